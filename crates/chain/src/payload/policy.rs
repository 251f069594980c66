//! Requests, rules and decisions of the Policy Engine (seed 003 §3.1).

use std::collections::BTreeMap;

use base::{
    AxiomTime, CapabilityId, ConnectionId, CredentialId, DurationNs, Hash, IdentityId, KeyPath, Nonce,
    ProcessId, RuleId, Signature, TreeId, cbor,
};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::identity::IdentityType;

/// Who asks, what for, on what (POL-09). The requestor is named by id alone: the engine reads the rest from its own state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct PolicyRequest {
    #[n(0)]
    pub requestor: IdentityId,
    #[n(1)]
    pub action: PolicyAction,
    #[n(2)]
    pub resource: ResourceRef,
    #[n(3)]
    pub context: PolicyContext,
    /// Two equal requests are two requests.
    #[n(4)]
    pub nonce: Nonce,
    /// By the requestor's key over `signed_bytes`.
    #[n(5)]
    pub signature: Option<Signature>,
}

impl PolicyRequest {
    /// What a decision is bound to: everything but the signature.
    #[must_use]
    pub fn hash(&self) -> Hash {
        hash_of_signed_bytes(&self.signed_bytes())
    }

    /// The same for a request that was decoded from these bytes.
    #[must_use]
    pub fn hash_of(&self, bytes: &[u8]) -> Hash {
        // Without a signature they are what would be signed: there is one encoding.
        if self.signature.is_none() { hash_of_signed_bytes(bytes) } else { self.hash() }
    }

    /// The bytes that a requestor signs.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        match self.signature {
            None => cbor::encode(self),
            Some(_) => cbor::encode(&Self { signature: None, ..self.clone() }),
        }
    }
}

fn hash_of_signed_bytes(bytes: &[u8]) -> Hash {
    Hash::of_parts(&[b"bailiwick request v1\0", bytes])
}

/// Where a request comes from (POL-43).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct PolicyContext {
    /// The highest sequence that the caller has seen.
    #[n(0)]
    pub axiom_sequence: u64,
    /// Boot name of the service that asks, taken from the channel.
    #[n(1)]
    pub service: String,
    /// 0 when no managed program is involved.
    #[n(2)]
    pub process: ProcessId,
    #[n(3)]
    pub metadata: BTreeMap<String, String>,
}

/// The seed's 18 actions in seven groups, then those appended for moments that the seed gates without naming (POL-55, POL open point 10).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyAction {
    #[n(0)]
    CreateProcess {
        #[n(0)]
        image: Hash,
    },
    #[n(1)]
    TerminateProcess {
        #[n(0)]
        pid: ProcessId,
    },
    #[n(2)]
    CreateFile {
        #[n(0)]
        path: String,
        #[n(1)]
        file_type: FileType,
    },
    #[n(3)]
    ReadFile {
        #[n(0)]
        path: String,
    },
    #[n(4)]
    WriteFile {
        #[n(0)]
        path: String,
    },
    #[n(5)]
    DeleteFile {
        #[n(0)]
        path: String,
    },
    #[n(6)]
    Connect {
        #[n(0)]
        address: String,
    },
    #[n(7)]
    Listen {
        #[n(0)]
        address: String,
    },
    #[n(8)]
    Sign {
        #[n(0)]
        key_path: KeyPath,
        #[n(1)]
        message_hash: Hash,
    },
    #[n(9)]
    Encrypt {
        #[n(0)]
        key_path: KeyPath,
    },
    #[n(10)]
    Decrypt {
        #[n(0)]
        key_path: KeyPath,
    },
    #[n(11)]
    CreateIdentity {
        #[n(0)]
        parent: IdentityId,
        #[n(1)]
        name: String,
    },
    #[n(12)]
    AddCredential {
        #[n(0)]
        identity: IdentityId,
    },
    #[n(13)]
    RevokeCredential {
        #[n(0)]
        identity: IdentityId,
        #[n(1)]
        credential: CredentialId,
    },
    #[n(14)]
    DelegateCapability {
        #[n(0)]
        capability: CapabilityId,
        #[n(1)]
        to: IdentityId,
    },
    #[n(15)]
    RevokeCapability {
        #[n(0)]
        capability: CapabilityId,
    },
    #[n(16)]
    UpgradeSystem {
        #[n(0)]
        image: Hash,
    },
    #[n(17)]
    ModifyPolicy {
        #[n(0)]
        rule: Box<PolicyRule>,
    },
    #[n(18)]
    ControlService {
        #[n(0)]
        service: String,
        #[n(1)]
        operation: ServiceOperation,
    },
    #[n(19)]
    ModifyIdentity {
        #[n(0)]
        identity: IdentityId,
    },
    #[n(20)]
    Authenticate {
        #[n(0)]
        identity: IdentityId,
    },
    #[n(21)]
    ControlProcess {
        #[n(0)]
        pid: ProcessId,
        #[n(1)]
        operation: ProcessOperation,
    },
    #[n(22)]
    RotateKey {
        #[n(0)]
        key_path: KeyPath,
    },
    /// One more command inside the sandbox of something that runs.
    #[n(23)]
    Execute {
        #[n(0)]
        target: ExecuteTarget,
    },
    /// Cuts a live connection.
    #[n(24)]
    Disconnect {
        #[n(0)]
        connection: ConnectionId,
    },
    /// Gives a container image a name that nobody has, or that is the requestor's own.
    #[n(25)]
    ImportImage {
        #[n(0)]
        name: String,
    },
    /// Takes an own name away, and with its last one the image.
    #[n(26)]
    RemoveImage {
        #[n(0)]
        name: String,
    },
    /// One of these two with a name that is another's.
    #[n(27)]
    TakeImage {
        #[n(0)]
        name: String,
    },
    /// Runs a program in it; which program is asked besides.
    #[n(28)]
    UseImage {
        #[n(0)]
        name: String,
        #[n(1)]
        tree: TreeId,
    },
    /// Has the way out put a secret into what goes to one place, `HOST:PORT`. The secret by its name.
    #[n(32)]
    UseSecret {
        #[n(0)]
        name: String,
        #[n(1)]
        place: String,
    },
}

/// What a command is run beside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecuteTarget {
    #[n(0)]
    Process(#[n(0)] ProcessId),
    #[n(1)]
    Service(#[n(0)] String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum ServiceOperation {
    #[n(0)]
    Register,
    #[n(1)]
    Start,
    #[n(2)]
    Stop,
    #[n(3)]
    Restart,
    #[n(4)]
    Unregister,
    #[n(5)]
    Shutdown,
    /// Of `keys` alone: the seed is wiped, and opened again.
    #[n(6)]
    Lock,
    #[n(7)]
    Unlock,
    /// Of `network` alone: its rules by URL, its limits and whom it trusts.
    #[n(8)]
    Configure,
    /// Of `axiom` alone: the log's first segments are taken out of it.
    #[n(9)]
    Archive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum ProcessOperation {
    #[n(0)]
    Suspend,
    #[n(1)]
    Resume,
    /// What it changed in copy-on-write folders is applied on the host, or thrown away.
    #[n(2)]
    Commit,
    #[n(3)]
    Discard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum FileType {
    #[n(0)]
    File,
    #[n(1)]
    Directory,
    #[n(2)]
    Symlink,
}

/// The kind of an action, without its data: what an `ActionMatcher` sees.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    #[n(0)]
    CreateProcess,
    #[n(1)]
    TerminateProcess,
    #[n(2)]
    CreateFile,
    #[n(3)]
    ReadFile,
    #[n(4)]
    WriteFile,
    #[n(5)]
    DeleteFile,
    #[n(6)]
    Connect,
    #[n(7)]
    Listen,
    #[n(8)]
    Sign,
    #[n(9)]
    Encrypt,
    #[n(10)]
    Decrypt,
    #[n(11)]
    CreateIdentity,
    #[n(12)]
    AddCredential,
    #[n(13)]
    RevokeCredential,
    #[n(14)]
    DelegateCapability,
    #[n(15)]
    RevokeCapability,
    #[n(16)]
    UpgradeSystem,
    #[n(17)]
    ModifyPolicy,
    #[n(18)]
    ControlService,
    #[n(19)]
    ModifyIdentity,
    #[n(20)]
    Authenticate,
    #[n(21)]
    ControlProcess,
    #[n(22)]
    RotateKey,
    #[n(23)]
    Execute,
    #[n(24)]
    Disconnect,
    #[n(25)]
    ImportImage,
    #[n(26)]
    RemoveImage,
    #[n(27)]
    TakeImage,
    #[n(28)]
    UseImage,
    #[n(32)]
    UseSecret,
}

impl PolicyAction {
    #[must_use]
    pub const fn kind(&self) -> ActionKind {
        match self {
            Self::CreateProcess { .. } => ActionKind::CreateProcess,
            Self::TerminateProcess { .. } => ActionKind::TerminateProcess,
            Self::CreateFile { .. } => ActionKind::CreateFile,
            Self::ReadFile { .. } => ActionKind::ReadFile,
            Self::WriteFile { .. } => ActionKind::WriteFile,
            Self::DeleteFile { .. } => ActionKind::DeleteFile,
            Self::Connect { .. } => ActionKind::Connect,
            Self::Listen { .. } => ActionKind::Listen,
            Self::Sign { .. } => ActionKind::Sign,
            Self::Encrypt { .. } => ActionKind::Encrypt,
            Self::Decrypt { .. } => ActionKind::Decrypt,
            Self::CreateIdentity { .. } => ActionKind::CreateIdentity,
            Self::AddCredential { .. } => ActionKind::AddCredential,
            Self::RevokeCredential { .. } => ActionKind::RevokeCredential,
            Self::DelegateCapability { .. } => ActionKind::DelegateCapability,
            Self::RevokeCapability { .. } => ActionKind::RevokeCapability,
            Self::UpgradeSystem { .. } => ActionKind::UpgradeSystem,
            Self::ModifyPolicy { .. } => ActionKind::ModifyPolicy,
            Self::ControlService { .. } => ActionKind::ControlService,
            Self::ModifyIdentity { .. } => ActionKind::ModifyIdentity,
            Self::Authenticate { .. } => ActionKind::Authenticate,
            Self::ControlProcess { .. } => ActionKind::ControlProcess,
            Self::RotateKey { .. } => ActionKind::RotateKey,
            Self::Execute { .. } => ActionKind::Execute,
            Self::Disconnect { .. } => ActionKind::Disconnect,
            Self::ImportImage { .. } => ActionKind::ImportImage,
            Self::RemoveImage { .. } => ActionKind::RemoveImage,
            Self::TakeImage { .. } => ActionKind::TakeImage,
            Self::UseImage { .. } => ActionKind::UseImage,
            Self::UseSecret { .. } => ActionKind::UseSecret,
        }
    }

    /// The resource of an action, where the action names it. Rules look at the resource, the act does what the action
    /// says: they must be the same thing. None for capabilities, whose resource is what they give access to.
    #[must_use]
    pub fn resource(&self) -> Option<ResourceRef> {
        let (resource_type, id) = match self {
            Self::CreateProcess { image } => (ResourceType::Image, image.to_string()),
            Self::ImportImage { name } | Self::RemoveImage { name } | Self::TakeImage { name } => {
                (ResourceType::Image, name.clone())
            }
            // Rules may name either: `web@**`, `**@sha256:...`.
            Self::UseImage { name, tree } => (ResourceType::Image, format!("{name}@{tree}")),
            // The same: `api-key@**`, `**@api.example.com:443`.
            Self::UseSecret { name, place } => (ResourceType::Network, format!("{name}@{place}")),
            Self::TerminateProcess { pid } | Self::ControlProcess { pid, .. } => {
                (ResourceType::Process, pid.to_string())
            }
            Self::Execute { target: ExecuteTarget::Process(pid) } => (ResourceType::Process, pid.to_string()),
            Self::Execute { target: ExecuteTarget::Service(name) } => (ResourceType::Service, name.clone()),
            Self::CreateFile { path, .. }
            | Self::ReadFile { path }
            | Self::WriteFile { path }
            | Self::DeleteFile { path } => (ResourceType::File, path.clone()),
            Self::Connect { address } | Self::Listen { address } => (ResourceType::Network, address.clone()),
            Self::Disconnect { connection } => (ResourceType::Network, connection.to_string()),
            Self::Sign { key_path, .. }
            | Self::Encrypt { key_path }
            | Self::Decrypt { key_path }
            | Self::RotateKey { key_path } => (ResourceType::Key, key_path.to_string()),
            // Whoever may create is a question of below whom.
            Self::CreateIdentity { parent, .. } => (ResourceType::Identity, parent.to_string()),
            Self::AddCredential { identity }
            | Self::RevokeCredential { identity, .. }
            | Self::ModifyIdentity { identity }
            | Self::Authenticate { identity } => (ResourceType::Identity, identity.to_string()),
            Self::DelegateCapability { .. } | Self::RevokeCapability { .. } => return None,
            Self::UpgradeSystem { image } => (ResourceType::System, image.to_string()),
            Self::ModifyPolicy { rule } => (ResourceType::Policy, rule.id.to_string()),
            Self::ControlService { service, .. } => (ResourceType::Service, service.clone()),
        };
        Some(ResourceRef { resource_type, id })
    }

    /// An act that only takes away may use the log's reserved space (DESIGN 2).
    #[must_use]
    pub const fn only_takes_away(&self) -> bool {
        match self {
            Self::TerminateProcess { .. }
            | Self::RevokeCredential { .. }
            | Self::RevokeCapability { .. }
            | Self::Disconnect { .. } => true,
            Self::ControlService { operation, .. } => {
                matches!(
                    operation,
                    ServiceOperation::Stop
                        | ServiceOperation::Shutdown
                        | ServiceOperation::Lock
                        | ServiceOperation::Archive
                )
            }
            Self::ControlProcess { operation, .. } => matches!(operation, ProcessOperation::Suspend),
            _ => false,
        }
    }
}

/// What an action is done to, as rules see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ResourceRef {
    #[n(0)]
    #[serde(rename = "type")]
    pub resource_type: ResourceType,
    /// A path, an address, a key path, an id or a name, by type.
    #[n(1)]
    pub id: String,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum ResourceType {
    #[n(0)]
    Process,
    #[n(1)]
    Image,
    #[n(2)]
    File,
    #[n(3)]
    Network,
    #[n(4)]
    Key,
    #[n(5)]
    Identity,
    #[n(6)]
    Capability,
    #[n(7)]
    Policy,
    #[n(8)]
    Service,
    #[n(9)]
    System,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
pub enum PolicyEffect {
    #[n(0)]
    Allow,
    #[n(1)]
    Deny,
    #[n(2)]
    AllowWithConditions,
}

/// When a rule applies. All variants of the seed (§3.1.4).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyCondition {
    #[n(0)]
    Always,
    #[n(1)]
    Never,
    #[n(2)]
    Identity(#[n(0)] IdentityMatcher),
    #[n(3)]
    Resource(#[n(0)] ResourceMatcher),
    #[n(4)]
    Action(#[n(0)] ActionMatcher),
    #[n(5)]
    And(#[n(0)] Vec<PolicyCondition>),
    #[n(6)]
    Or(#[n(0)] Vec<PolicyCondition>),
    #[n(7)]
    Not(#[n(0)] Box<PolicyCondition>),
    /// Strictly earlier than the given time.
    #[n(8)]
    Before(#[n(0)] AxiomTime),
    /// At the given time or later.
    #[n(9)]
    After(#[n(0)] AxiomTime),
    /// Fewer than `count` allowed decisions of this rule for this requestor inside the window.
    #[n(10)]
    RateLimit {
        #[n(0)]
        count: u32,
        #[n(1)]
        #[serde(rename = "window_ns")]
        window: DurationNs,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityMatcher {
    #[n(0)]
    Exact(#[n(0)] IdentityId),
    /// Everyone below this identity in the tree, and the identity itself.
    #[n(1)]
    Group(#[n(0)] IdentityId),
    /// Glob over the fully qualified name.
    #[n(2)]
    Pattern(#[n(0)] String),
    #[n(3)]
    Type(#[n(0)] IdentityType),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceMatcher {
    #[n(0)]
    Exact(#[n(0)] ResourceRef),
    /// Whole components: `/a/b` does not match `/a/bc` (POL-45).
    #[n(1)]
    PathPrefix(#[n(0)] String),
    /// Glob: `*` inside a component, `**` across components, `?` one character.
    #[n(2)]
    Pattern(#[n(0)] String),
    #[n(3)]
    Type(#[n(0)] ResourceType),
    /// The key paths at or below the requestor's own (KEY-37).
    #[n(4)]
    OwnKeyPath,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionMatcher {
    #[n(0)]
    Kind(#[n(0)] ActionKind),
    #[n(1)]
    AnyOf(#[n(0)] Vec<ActionKind>),
}

/// A condition that an allowed caller must still satisfy, with limits by name (POL open point 3).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
#[serde(deny_unknown_fields)]
pub struct Restriction {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub condition: PolicyCondition,
    #[n(2)]
    #[serde(default)]
    pub limits: BTreeMap<String, u64>,
}

/// A rule as it is proposed and stored. `created_at` is the entry that adds it, so the fold supplies it (POL-26).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    #[n(0)]
    pub id: RuleId,
    #[n(1)]
    pub name: String,
    #[n(2)]
    #[serde(default)]
    pub description: String,
    /// Higher is tried first.
    #[n(3)]
    pub priority: u32,
    #[n(4)]
    pub condition: PolicyCondition,
    #[n(5)]
    pub effect: PolicyEffect,
    #[n(6)]
    #[serde(default)]
    pub restrictions: Vec<Restriction>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct PolicyRuleAdded {
    #[n(0)]
    pub rule: PolicyRule,
    #[n(1)]
    pub created_by: IdentityId,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct PolicyRuleRemoved {
    #[n(0)]
    pub rule: RuleId,
    #[n(1)]
    pub removed_by: IdentityId,
}

/// What is decided, and everything needed to decide it again (AX-34, POL-49).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct DecisionBody {
    #[n(0)]
    pub request_hash: Hash,
    #[n(1)]
    pub requestor: IdentityId,
    #[n(2)]
    pub action: PolicyAction,
    #[n(3)]
    pub resource: ResourceRef,
    #[n(4)]
    pub context: PolicyContext,
    #[n(5)]
    pub nonce: Nonce,
    #[n(6)]
    pub policy_state_hash: Hash,
    /// In evaluation order.
    #[n(7)]
    pub matched_rules: Vec<RuleId>,
    #[n(8)]
    pub effect: PolicyEffect,
    #[n(9)]
    pub deciding_rule: RuleId,
    #[n(10)]
    pub conditions: Vec<PolicyCondition>,
    #[n(11)]
    pub timestamp: AxiomTime,
    /// Why not, for people; present on every denial.
    #[n(12)]
    pub reason: Option<String>,
}

impl DecisionBody {
    #[must_use]
    pub fn allows(&self) -> bool {
        matches!(self.effect, PolicyEffect::Allow | PolicyEffect::AllowWithConditions)
    }
}

/// Root signature and Merkle path, so that one signature serves a group (decision 0001).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct DecisionSignature {
    #[n(0)]
    pub root: Signature,
    #[n(1)]
    pub index: u32,
    /// Number of decisions in the group.
    #[n(2)]
    pub count: u32,
    #[n(3)]
    pub path: Vec<Hash>,
}

/// The payload of a `PolicyDecision` entry: body bytes as signed, and the signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct SignedDecision {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    #[n(1)]
    pub signature: DecisionSignature,
}

impl SignedDecision {
    pub fn decode_body(&self) -> Result<DecisionBody, cbor::CborError> {
        cbor::decode(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_same_with_its_signature_and_another_with_any_other_change() {
        let path = "/a".to_owned();
        let resource = ResourceRef { resource_type: ResourceType::File, id: path.clone() };
        let plain = PolicyRequest {
            requestor: IdentityId([1; 32]),
            action: PolicyAction::ReadFile { path: path.clone() },
            resource: resource.clone(),
            context: PolicyContext::default(),
            nonce: Nonce([2; 16]),
            signature: None,
        };
        let signed = PolicyRequest { signature: Some(Signature([3; 64])), ..plain.clone() };
        assert_eq!((signed.signed_bytes(), signed.hash()), (plain.signed_bytes(), plain.hash()));
        let service = PolicyContext { service: "keys".to_owned(), ..PolicyContext::default() };
        for other in [
            PolicyRequest { requestor: IdentityId([9; 32]), ..plain.clone() },
            PolicyRequest { action: PolicyAction::WriteFile { path }, ..plain.clone() },
            PolicyRequest { resource: ResourceRef { id: "/b".to_owned(), ..resource }, ..plain.clone() },
            PolicyRequest { context: service, ..plain.clone() },
            PolicyRequest { nonce: Nonce([9; 16]), ..plain.clone() },
        ] {
            assert_ne!(other.hash(), plain.hash(), "{other:?}");
        }
    }

    #[test]
    fn what_gives_nothing_to_anybody_only_takes_away() {
        use ProcessOperation as P;
        use ServiceOperation as S;
        let service = |operation| PolicyAction::ControlService { service: "keys".to_owned(), operation };
        let process = |operation| PolicyAction::ControlProcess { pid: ProcessId(7), operation };
        let credential = CredentialId([1; 16]);
        let capability = CapabilityId([1; 16]);
        let identity = IdentityId([1; 32]);
        for (action, expected) in [
            (PolicyAction::TerminateProcess { pid: ProcessId(7) }, true),
            (PolicyAction::RevokeCredential { identity, credential }, true),
            (PolicyAction::RevokeCapability { capability }, true),
            (service(S::Stop), true),
            (service(S::Shutdown), true),
            (service(S::Start), false),
            (service(S::Lock), true),
            (service(S::Unlock), false),
            (process(P::Suspend), true),
            (process(P::Resume), false),
            (PolicyAction::DelegateCapability { capability, to: identity }, false),
            (PolicyAction::DeleteFile { path: "/a".to_owned() }, false),
        ] {
            assert_eq!(action.only_takes_away(), expected, "{action:?}");
        }
    }
}
