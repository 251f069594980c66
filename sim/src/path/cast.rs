//! A small node: an admin, its services, and rules that allow, deny and count.

use std::collections::BTreeMap;

use base::{
    AxiomRef, AxiomTime, CapabilityId, DurationNs, EntryKey, Hash, IdentityId, KeyPath, Nonce, ProcessId,
    PublicKey, RuleId, Sequence,
};
use chain::payload::{
    Envelope,
    capability::{CapabilityGrant, ObjectType, Permissions, Resource},
    identity::{IdentityCreated, IdentityType},
    policy::{
        ActionKind, ActionMatcher, PolicyAction, PolicyCondition, PolicyContext, PolicyEffect, PolicyRequest,
        PolicyRule, PolicyRuleAdded, PolicyRuleRemoved, ResourceRef, ResourceType,
    },
    process::{ExitStatus, ProcessCreate, ProcessExit, ResourceLimits, ResourceUsage},
    service::Genesis,
};
use ed25519_dalek::SigningKey;
use policy::core::{Entry, Item};

use super::node::{encoded, entry};
use crate::random::Random;

/// 2026-01-01.
pub(super) const START: AxiomTime = AxiomTime(1_767_225_600_000_000_000);
const SERVICES: [&str; 6] =
    ["keys", "process_manager", "identity", "policy", "capability_service", "supervisor"];
/// Grants that the rule lets through in its window.
const GRANTS_MAX: u32 = 5;
const GRANTS_WINDOW_NS: u64 = 3_000_000_000;
const KEY_PATH: &str = "/orbital/users/admin";

pub(super) struct Cast {
    pub admin: IdentityId,
    /// The payload of the first entry.
    pub genesis: Vec<u8>,
    services: BTreeMap<&'static str, IdentityId>,
    key_path: KeyPath,
    rule: PolicyRule,
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn public(n: u8) -> PublicKey {
    PublicKey(key(n).verifying_key().to_bytes())
}

fn rule(id: &str, priority: u32, effect: PolicyEffect, condition: PolicyCondition) -> Option<PolicyRule> {
    let (id, name) = (RuleId::new(id).ok()?, id.to_owned());
    Some(PolicyRule {
        id,
        name,
        description: String::new(),
        priority,
        condition,
        effect,
        restrictions: vec![],
    })
}

fn kinds(kinds: &[ActionKind]) -> PolicyCondition {
    PolicyCondition::Action(ActionMatcher::AnyOf(kinds.to_vec()))
}

impl Cast {
    /// None only if a constant above is malformed.
    pub(super) fn new() -> Option<Self> {
        let born = |n: u8, name: &str, identity_type, parent, path: &str| {
            let identity_id = IdentityId::of_key(&public(n));
            let (name, key_path) = (name.to_owned(), KeyPath::parse(path).ok()?);
            Some(IdentityCreated {
                identity_id,
                name,
                identity_type,
                parent,
                public_key: public(n),
                key_path,
            })
        };
        let root = born(1, "orbital", IdentityType::System, None, "/orbital/system")?;
        let above = Some(root.identity_id);
        let admin = born(2, "admin", IdentityType::User, above, KEY_PATH)?;
        let mut services = BTreeMap::new();
        let mut identities = vec![root, admin.clone()];
        for (n, name) in (3..).zip(SERVICES) {
            let path = format!("/orbital/services/{name}");
            let made = born(n, &format!("orbital.services.{name}"), IdentityType::Service, above, &path)?;
            services.insert(name, made.identity_id);
            identities.push(made);
        }
        let grants = || kinds(&[ActionKind::DelegateCapability]);
        let rate = PolicyCondition::RateLimit { count: GRANTS_MAX, window: DurationNs(GRANTS_WINDOW_NS) };
        let rules = vec![
            rule("grants", 100, PolicyEffect::Allow, PolicyCondition::And(vec![grants(), rate]))?,
            rule("others", 100, PolicyEffect::Allow, PolicyCondition::Not(Box::new(grants())))?,
        ];
        let body = Genesis {
            version: 1,
            image_hash: Hash::ZERO,
            initial_capabilities: vec![],
            genesis_time: START,
            node_name: "node".to_owned(),
            node_key: public(100),
            sequencer_key: public(101),
            policy_key: public(102),
            identity_key: public(103),
            identities,
            admin: admin.identity_id,
            admin_uid: 1000,
            rules,
        };
        let submitter = admin.identity_id;
        let genesis = Envelope { submitter, key: EntryKey([0; 16]), authorization: None, body };
        Some(Self {
            admin: admin.identity_id,
            genesis: genesis.to_bytes().ok()?,
            services,
            key_path: admin.key_path,
            rule: rule("no-launch", 200, PolicyEffect::Deny, kinds(&[ActionKind::CreateProcess]))?,
        })
    }

    #[expect(clippy::unused_self, reason = "the cast's key, whoever asks")]
    pub(super) fn sequencer_key(&self) -> SigningKey {
        key(101)
    }

    #[expect(clippy::unused_self, reason = "the cast's key, whoever asks")]
    pub(super) fn policy_key(&self) -> SigningKey {
        key(102)
    }

    pub(super) fn service(&self, name: &str) -> IdentityId {
        self.services.get(name).copied().unwrap_or(self.admin)
    }

    pub(super) const fn key_path(&self) -> &KeyPath {
        &self.key_path
    }

    fn request(&self, random: &mut Random, action: PolicyAction, service: &str) -> PolicyRequest {
        let other = || ResourceRef { resource_type: ResourceType::Capability, id: "file:/x".to_owned() };
        let resource = action.resource().unwrap_or_else(other);
        let context = PolicyContext { service: service.to_owned(), ..PolicyContext::default() };
        PolicyRequest {
            requestor: self.admin,
            action,
            resource,
            context,
            nonce: Nonce(sixteen(random)),
            signature: None,
        }
    }

    fn act<T: chain::payload::Body>(
        &self,
        random: &mut Random,
        service: &str,
        action: PolicyAction,
        body: T,
    ) -> Item {
        let request = self.request(random, action, service);
        let authorization = Some(request.hash());
        let (submitter, key) = (self.service(service), EntryKey(sixteen(random)));
        let entry = entry(&Envelope { submitter, key, authorization, body });
        Item::Act { request: encoded(&request), entry }
    }

    /// A right on `/n`; asked again with other random numbers it is another grant of the same.
    pub(super) fn grant(&self, random: &mut Random, n: u64) -> Item {
        let capability_id = CapabilityId(sixteen(random));
        let body = CapabilityGrant {
            capability_id,
            grantor: self.admin,
            grantee: self.admin,
            resource: Resource { object_type: ObjectType::File, object_id: format!("/{n}") },
            permissions: Permissions { read: true, ..Permissions::default() },
            restrictions: None,
            parent: None,
        };
        let action = PolicyAction::DelegateCapability { capability: capability_id, to: self.admin };
        self.act(random, "capability_service", action, body)
    }

    pub(super) fn launch(&self, random: &mut Random, pid: ProcessId) -> Item {
        let body = ProcessCreate {
            pid,
            image: Hash::ZERO,
            identity: self.admin,
            capabilities: vec![],
            limits: ResourceLimits::default(),
            by: self.admin,
            args_hash: Hash::ZERO,
            name: "program".to_owned(),
            grants: vec![],
            missing: vec![],
        };
        self.act(random, "process_manager", PolicyAction::CreateProcess { image: Hash::ZERO }, body)
    }

    pub(super) fn ended(&self, random: &mut Random, pid: ProcessId) -> Item {
        let usage = ResourceUsage::default();
        let body = ProcessExit { pid, status: ExitStatus::Unknown, usage, refused: vec![] };
        Item::Record { entry: self.record(random, "process_manager", body) }
    }

    pub(super) fn record<T: chain::payload::Body>(
        &self,
        random: &mut Random,
        service: &str,
        body: T,
    ) -> Entry {
        let (submitter, key) = (self.service(service), EntryKey(sixteen(random)));
        entry(&Envelope { submitter, key, authorization: None, body })
    }

    /// The use of a decision.
    pub(super) fn redeem<T: chain::payload::Body>(
        &self,
        random: &mut Random,
        decision: AxiomRef,
        request: Hash,
        body: T,
    ) -> Item {
        let (submitter, key) = (self.service("keys"), EntryKey(sixteen(random)));
        let entry = entry(&Envelope { submitter, key, authorization: Some(request), body });
        Item::Redeem { decision: decision.sequence, entry }
    }

    pub(super) fn may_sign(&self, random: &mut Random, message_hash: Hash) -> Item {
        let action = PolicyAction::Sign { key_path: self.key_path.clone(), message_hash };
        Item::Evaluate { request: encoded(&self.request(random, action, "policy")) }
    }

    /// Forbids launches, or allows them again.
    pub(super) fn toggle(&self, random: &mut Random, forbid: bool) -> Item {
        let rule = self.rule.clone();
        let action = PolicyAction::ModifyPolicy { rule: Box::new(rule.clone()) };
        if forbid {
            self.act(random, "policy", action, PolicyRuleAdded { rule, created_by: self.admin })
        } else {
            self.act(random, "policy", action, PolicyRuleRemoved { rule: rule.id, removed_by: self.admin })
        }
    }
}

pub(super) fn sixteen(random: &mut Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        half.copy_from_slice(&random.number().to_le_bytes());
    }
    bytes
}

pub(super) const NOWHERE: AxiomRef = AxiomRef { sequence: Sequence(0), hash: Hash::ZERO };
