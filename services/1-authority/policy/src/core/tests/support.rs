//! A small node: root, two services, an organisation with two users, and requests for every action.

use std::{collections::BTreeMap, sync::LazyLock};

use base::{
    AxiomRef, AxiomTime, CapabilityId, ConnectionId, CredentialId, EntryKey, Hash, IdentityId, KeyPath,
    Nonce, ProcessId, PublicKey, RuleId, Sequence,
};
use chain::payload::{
    Envelope, Payload,
    identity::{IdentityChange, IdentityCreated, IdentityStatus, IdentityType, IdentityUpdated},
    policy::{
        ExecuteTarget, FileType, PolicyAction, PolicyCondition, PolicyContext, PolicyEffect, PolicyRequest,
        PolicyRule, PolicyRuleAdded, PolicyRuleRemoved, ProcessOperation, ServiceOperation,
    },
    service::Genesis,
};
use ed25519_dalek::SigningKey;

use crate::core::PolicyState;

/// 2026-01-01.
pub(crate) const NOW: AxiomTime = AxiomTime(1_767_225_600_000_000_000);
pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) fn key_of(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

/// Derived once: property tests ask for them a million times.
pub(crate) fn public(n: u8) -> PublicKey {
    static KEYS: LazyLock<Vec<PublicKey>> =
        LazyLock::new(|| (0..=255).map(|n| PublicKey(key_of(n).verifying_key().to_bytes())).collect());
    KEYS[usize::from(n)]
}

pub(crate) fn id(n: u8) -> IdentityId {
    IdentityId::of_key(&public(n))
}

pub(crate) const ROOT: u8 = 1;
pub(crate) const ADMIN: u8 = 2;
pub(crate) const ORG: u8 = 3;
pub(crate) const ALICE: u8 = 4;
pub(crate) const BOB: u8 = 5;
pub(crate) const KEYS: u8 = 6;
pub(crate) const PROCESSES: u8 = 7;
pub(crate) const IDENTITY: u8 = 8;
pub(crate) const POLICY: u8 = 9;
pub(crate) const CAPABILITIES: u8 = 10;
pub(crate) const SUPERVISOR: u8 = 11;

pub(crate) fn born(n: u8, name: &str, kind: IdentityType, parent: Option<u8>, path: &str) -> IdentityCreated {
    IdentityCreated {
        identity_id: id(n),
        name: name.to_owned(),
        identity_type: kind,
        parent: parent.map(id),
        public_key: public(n),
        key_path: KeyPath::parse(path).unwrap(),
    }
}

pub(crate) fn people() -> Vec<IdentityCreated> {
    use IdentityType::{Organization, Service, System, User};
    let service = |n, name: &str| {
        let path = format!("/orbital/services/{name}");
        born(n, &format!("orbital.services.{name}"), Service, Some(ROOT), &path)
    };
    vec![
        born(ROOT, "orbital", System, None, "/orbital/system"),
        born(ADMIN, "admin", User, Some(ROOT), "/orbital/users/admin"),
        born(ORG, "example", Organization, Some(ROOT), "/orbital/orgs/example"),
        born(ALICE, "alice@example", User, Some(ORG), "/orbital/orgs/example/users/alice"),
        born(BOB, "bob", User, Some(ROOT), "/orbital/users/bob"),
        service(KEYS, "keys"),
        service(PROCESSES, "process_manager"),
        service(IDENTITY, "identity"),
        service(POLICY, "policy"),
        service(CAPABILITIES, "capability_service"),
        service(SUPERVISOR, "supervisor"),
    ]
}

pub(crate) fn envelope<T>(body: T) -> Box<Envelope<T>> {
    Box::new(Envelope { submitter: id(POLICY), key: EntryKey([0; 16]), authorization: None, body })
}

pub(crate) fn genesis(rules: Vec<PolicyRule>) -> Payload {
    Payload::Genesis(envelope(Genesis {
        version: 1,
        image_hash: Hash::ZERO,
        initial_capabilities: vec![],
        genesis_time: NOW,
        node_name: "node".to_owned(),
        node_key: public(100),
        sequencer_key: public(101),
        policy_key: public(102),
        identity_key: public(103),
        identities: people(),
        admin: id(ADMIN),
        admin_uid: 1000,
        rules,
    }))
}

pub(crate) fn at(sequence: u64) -> AxiomRef {
    AxiomRef { sequence: Sequence(sequence), hash: Hash::of(&sequence.to_le_bytes()) }
}

pub(crate) fn state(rules: Vec<PolicyRule>) -> PolicyState {
    let mut state = PolicyState::default();
    state.apply(at(0), &genesis(rules));
    state
}

pub(crate) fn added(rule: PolicyRule) -> Payload {
    Payload::PolicyRuleAdded(envelope(PolicyRuleAdded { rule, created_by: id(ADMIN) }))
}

pub(crate) fn removed(rule: &str) -> Payload {
    Payload::PolicyRuleRemoved(envelope(PolicyRuleRemoved { rule: rule_id(rule), removed_by: id(ADMIN) }))
}

pub(crate) fn status(n: u8, old: IdentityStatus, new: IdentityStatus) -> Payload {
    let change = IdentityChange::Status { old, new, by: id(ADMIN), reason: "test".to_owned() };
    Payload::IdentityUpdated(envelope(IdentityUpdated { identity: id(n), change }))
}

pub(crate) fn rule_id(text: &str) -> RuleId {
    RuleId::new(text).unwrap()
}

pub(crate) fn rule(
    text: &str,
    priority: u32,
    effect: PolicyEffect,
    condition: PolicyCondition,
) -> PolicyRule {
    PolicyRule {
        id: rule_id(text),
        name: text.to_owned(),
        description: String::new(),
        priority,
        condition,
        effect,
        restrictions: vec![],
    }
}

pub(crate) fn allow(condition: PolicyCondition) -> PolicyRule {
    rule("allow", 100, PolicyEffect::Allow, condition)
}

/// With the resource that the action names.
pub(crate) fn request(requestor: u8, action: PolicyAction) -> PolicyRequest {
    let resource = action.resource().unwrap_or(chain::payload::policy::ResourceRef {
        resource_type: chain::payload::policy::ResourceType::Capability,
        id: "some".to_owned(),
    });
    PolicyRequest {
        requestor: id(requestor),
        action,
        resource,
        context: PolicyContext {
            axiom_sequence: 3,
            service: "test".to_owned(),
            process: ProcessId(0),
            metadata: BTreeMap::new(),
        },
        nonce: Nonce([9; 16]),
        signature: None,
    }
}

pub(crate) fn read(requestor: u8, path: &str) -> PolicyRequest {
    request(requestor, PolicyAction::ReadFile { path: path.to_owned() })
}

/// One of each kind: the seed's 18 and those appended.
pub(crate) fn all_actions() -> Vec<PolicyAction> {
    let path = || "/data/file".to_owned();
    let key_path = KeyPath::parse("/orbital/users/bob/signing").unwrap();
    let rule = rule("new", 5, PolicyEffect::Allow, PolicyCondition::Always);
    vec![
        PolicyAction::CreateProcess { image: Hash::of(b"image") },
        PolicyAction::TerminateProcess { pid: ProcessId(7) },
        PolicyAction::CreateFile { path: path(), file_type: FileType::File },
        PolicyAction::ReadFile { path: path() },
        PolicyAction::WriteFile { path: path() },
        PolicyAction::DeleteFile { path: path() },
        PolicyAction::Connect { address: "192.0.2.1:443".to_owned() },
        PolicyAction::Listen { address: "[::]:80".to_owned() },
        PolicyAction::Sign { key_path: key_path.clone(), message_hash: Hash::of(b"m") },
        PolicyAction::Encrypt { key_path: key_path.clone() },
        PolicyAction::Decrypt { key_path: key_path.clone() },
        PolicyAction::RotateKey { key_path },
        PolicyAction::Disconnect { connection: ConnectionId([1; 16]) },
        PolicyAction::ImportImage { name: "web".to_owned() },
        PolicyAction::RemoveImage { name: "web".to_owned() },
        PolicyAction::TakeImage { name: "web".to_owned() },
        PolicyAction::UseImage { name: "web".to_owned(), tree: base::TreeId([1; 32]) },
        PolicyAction::UseSecret { name: "key".to_owned(), place: "api.test:443".to_owned() },
        PolicyAction::CreateIdentity { parent: id(ORG), name: "carol".to_owned() },
        PolicyAction::AddCredential { identity: id(BOB) },
        PolicyAction::RevokeCredential { identity: id(BOB), credential: CredentialId([1; 16]) },
        PolicyAction::DelegateCapability { capability: CapabilityId([1; 16]), to: id(ALICE) },
        PolicyAction::RevokeCapability { capability: CapabilityId([1; 16]) },
        PolicyAction::UpgradeSystem { image: Hash::of(b"image") },
        PolicyAction::ModifyPolicy { rule: Box::new(rule) },
        PolicyAction::ControlService { service: "keys".to_owned(), operation: ServiceOperation::Stop },
        PolicyAction::ModifyIdentity { identity: id(BOB) },
        PolicyAction::Authenticate { identity: id(BOB) },
        PolicyAction::ControlProcess { pid: ProcessId(7), operation: ProcessOperation::Suspend },
        PolicyAction::Execute { target: ExecuteTarget::Process(ProcessId(7)) },
    ]
}
