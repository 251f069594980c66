//! Which service may speak for what. A service without a row may record receipts and nothing else.

use base::{Hash, IdentityId, KeyPath, key_paths};
use chain::payload::{
    Payload,
    identity::{IdentityChange, KeyOperation},
    network::Direction,
    policy::{ActionKind, PolicyAction, ServiceOperation},
};

use super::{Principal, state::PolicyState};

/// One service's authority over the log.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Boot name, which is the name of its channel.
    pub service: &'static str,
    /// Kinds of action for which it may ask a decision.
    pub actions: &'static [ActionKind],
    /// Entry types that it may append on a decision.
    pub acts: &'static [u32],
    /// Entry types that it may append without one.
    pub records: &'static [u32],
}

const RECEIPT: u32 = 80;
/// The service that holds keys, whose seed can be locked.
const KEYS: &str = "keys";
/// The service that has rules by URL.
const NETWORK: &str = "network";
/// The service whose log can be archived.
const AXIOM: &str = "axiom";
/// What any service may record: that an act of its own is closed.
pub const RECORDS_OF_ANYONE: &[u32] = &[RECEIPT];

/// The engine's own powers, which no rule widens (POL-51): decisions, and failed signatures as `IdentityUpdated`.
pub const UNGUARDED: &[u32] = &[85, 89];

/// Everything that may be asked through the engine's own contract; the performing service redeems it.
const EVERY_ACTION: &[ActionKind] = &[
    ActionKind::CreateProcess,
    ActionKind::TerminateProcess,
    ActionKind::CreateFile,
    ActionKind::ReadFile,
    ActionKind::WriteFile,
    ActionKind::DeleteFile,
    ActionKind::Connect,
    ActionKind::Listen,
    ActionKind::Sign,
    ActionKind::Encrypt,
    ActionKind::Decrypt,
    ActionKind::CreateIdentity,
    ActionKind::AddCredential,
    ActionKind::RevokeCredential,
    ActionKind::DelegateCapability,
    ActionKind::RevokeCapability,
    ActionKind::UpgradeSystem,
    ActionKind::ModifyPolicy,
    ActionKind::ControlService,
    ActionKind::ModifyIdentity,
    ActionKind::Authenticate,
    ActionKind::ControlProcess,
    ActionKind::RotateKey,
    ActionKind::Execute,
    ActionKind::Disconnect,
    ActionKind::ImportImage,
    ActionKind::RemoveImage,
    ActionKind::TakeImage,
    ActionKind::UseImage,
    ActionKind::UseSecret,
];

pub const TABLE: &[Row] = &[
    // The last one takes segments out of the log: axiom itself asks nobody.
    Row { service: "policy", actions: EVERY_ACTION, acts: &[86, 87, 110], records: &[] },
    Row {
        service: "keys",
        // Of services it controls itself alone, see `fits_key`.
        actions: &[
            ActionKind::Sign,
            ActionKind::Encrypt,
            ActionKind::Decrypt,
            ActionKind::RotateKey,
            ActionKind::ControlService,
        ],
        acts: &[92],
        records: &[92],
    },
    Row {
        service: "identity",
        actions: &[
            ActionKind::CreateIdentity,
            ActionKind::AddCredential,
            ActionKind::RevokeCredential,
            ActionKind::ModifyIdentity,
            ActionKind::Authenticate,
        ],
        acts: &[88, 89, 90, 91],
        // Failed authentications alone, see `fits_no_decision`.
        records: &[89],
    },
    Row {
        service: "capability_service",
        actions: &[ActionKind::DelegateCapability, ActionKind::RevokeCapability],
        acts: &[10, 11],
        records: &[],
    },
    Row {
        service: "process_manager",
        actions: &[
            ActionKind::CreateProcess,
            ActionKind::TerminateProcess,
            ActionKind::ControlProcess,
            ActionKind::Execute,
            ActionKind::ImportImage,
            ActionKind::RemoveImage,
            ActionKind::TakeImage,
            ActionKind::UseImage,
        ],
        acts: &[30, 32, 70, 76, 77],
        records: &[31, 71, 72, 73],
    },
    Row {
        service: "supervisor",
        actions: &[
            ActionKind::ControlService,
            ActionKind::UpgradeSystem,
            ActionKind::Execute,
            // For a service that runs in it.
            ActionKind::UseImage,
        ],
        acts: &[20, 21, 22],
        // The last two it does not append itself: what it notices has time.
        records: &[20, 21, 22, 23, 111, 112],
    },
    Row {
        service: "filesystem",
        actions: &[
            ActionKind::CreateFile,
            ActionKind::ReadFile,
            ActionKind::WriteFile,
            ActionKind::DeleteFile,
        ],
        acts: &[40, 41, 42, 43, 44],
        records: &[],
    },
    Row {
        service: "network",
        // Of services it configures itself alone, see `fits_decision`.
        actions: &[
            ActionKind::Connect,
            ActionKind::Listen,
            ActionKind::Disconnect,
            ActionKind::ControlService,
            ActionKind::UseSecret,
        ],
        acts: &[60, 61, 62],
        records: &[],
    },
    Row {
        service: "update_manager",
        actions: &[ActionKind::UpgradeSystem],
        acts: &[12, 100, 101, 102],
        records: &[],
    },
];

#[must_use]
pub fn row_of(service: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.service == service)
}

#[must_use]
pub fn may_ask(service: &str, kind: ActionKind) -> bool {
    row_of(service).is_some_and(|row| row.actions.contains(&kind))
}

#[must_use]
pub fn may_act(service: &str, entry_type: u32) -> bool {
    row_of(service).is_some_and(|row| row.acts.contains(&entry_type))
}

#[must_use]
pub fn may_record(service: &str, entry_type: u32) -> bool {
    RECORDS_OF_ANYONE.contains(&entry_type)
        || row_of(service).is_some_and(|row| row.records.contains(&entry_type))
}

/// The identity under which a service submits: the one with its key path.
#[must_use]
pub fn identity_of<'a>(state: &'a PolicyState, service: &str) -> Option<&'a Principal> {
    let path = KeyPath::parse(&format!("{}/{service}", key_paths::SERVICES)).ok()?;
    state.identities().by_key_path(&path)
}

/// A record that needs no decision must be one that can do nothing.
#[must_use]
pub fn fits_no_decision(payload: &Payload) -> bool {
    match payload {
        Payload::IdentityUpdated(e) => matches!(e.body.change, IdentityChange::AuthenticationFailed { .. }),
        _ => true,
    }
}

/// Whether an entry does what the decision allows and no more.
#[must_use]
pub fn fits_decision(state: &PolicyState, action: &PolicyAction, by: IdentityId, payload: &Payload) -> bool {
    match (action, payload) {
        (PolicyAction::DelegateCapability { capability, to }, Payload::CapabilityGrant(e)) => {
            e.body.grantee == *to
                && (e.body.parent == Some(*capability) || e.body.capability_id == *capability)
        }
        (PolicyAction::RevokeCapability { capability }, Payload::CapabilityRevoke(e)) => {
            e.body.capability == *capability && e.body.by == by
        }
        (PolicyAction::ControlService { service, .. }, Payload::ServiceRegister(e)) => {
            e.body.name == *service
        }
        (PolicyAction::ControlService { service, .. }, Payload::ServiceStart(e)) => e.body.name == *service,
        (PolicyAction::ControlService { service, .. }, Payload::ServiceStop(e)) => e.body.name == *service,
        (PolicyAction::ControlService { service, operation }, Payload::LogArchive(e)) => {
            service == AXIOM && *operation == ServiceOperation::Archive && e.body.by == by
        }
        (PolicyAction::CreateProcess { image }, Payload::ProcessCreate(e)) => {
            e.body.image == *image && e.body.by == by
        }
        // A job is a program too: who may run the one may submit the other.
        (PolicyAction::CreateProcess { image }, Payload::JobSubmit(e)) => {
            e.body.executable == *image && e.body.by == by
        }
        (PolicyAction::TerminateProcess { pid }, Payload::ProcessKill(e)) => {
            e.body.pid == *pid && e.body.by == by
        }
        (PolicyAction::ImportImage { name }, Payload::ImageImport(e)) => {
            e.body.name == *name && e.body.by == by && e.body.taken_from.is_none()
        }
        (PolicyAction::RemoveImage { name }, Payload::ImageRemove(e)) => {
            e.body.name == *name && e.body.by == by && e.body.taken_from.is_none()
        }
        (PolicyAction::TakeImage { name }, Payload::ImageImport(e)) => {
            e.body.name == *name && e.body.by == by && e.body.taken_from.is_some()
        }
        (PolicyAction::TakeImage { name }, Payload::ImageRemove(e)) => {
            e.body.name == *name && e.body.by == by && e.body.taken_from.is_some()
        }
        (PolicyAction::Connect { address }, Payload::ConnectionAuthorize(e)) => {
            e.body.direction == Direction::Outbound
                && e.body.remote.as_ref() == Some(address)
                && e.body.identity == by
        }
        (PolicyAction::Listen { address }, Payload::ConnectionAuthorize(e)) => {
            e.body.direction == Direction::Inbound
                && e.body.local.as_ref() == Some(address)
                && e.body.identity == by
        }
        (PolicyAction::Disconnect { connection }, Payload::ConnectionRevoke(e)) => {
            e.body.connection == *connection && e.body.by == by
        }
        (PolicyAction::ControlService { service, operation }, Payload::NetworkPolicyUpdate(e)) => {
            service == NETWORK && *operation == ServiceOperation::Configure && e.body.by == by
        }
        (PolicyAction::ModifyPolicy { rule }, Payload::PolicyRuleAdded(e)) => {
            e.body.rule == **rule && e.body.created_by == by
        }
        (PolicyAction::ModifyPolicy { rule }, Payload::PolicyRuleRemoved(e)) => {
            let stored = state.rules().get(&e.body.rule);
            stored.is_some_and(|stored| *stored.rule == **rule) && e.body.removed_by == by
        }
        (PolicyAction::CreateIdentity { parent, name }, Payload::IdentityCreated(e)) => {
            e.body.parent == Some(*parent) && e.body.name == *name
        }
        (action, Payload::IdentityUpdated(e)) => fits_update(action, &e.body.identity, &e.body.change, by),
        (PolicyAction::AddCredential { identity }, Payload::CredentialAdded(e)) => {
            e.body.identity == *identity && e.body.by == by
        }
        (PolicyAction::RevokeCredential { identity, credential }, Payload::CredentialRevoked(e)) => {
            e.body.identity == *identity && e.body.credential == *credential && e.body.by == by
        }
        (PolicyAction::RotateKey { key_path }, Payload::KeyUsage(e)) => {
            let rotation = e.body.rotation.as_ref().filter(|_| e.body.operation == KeyOperation::Rotate);
            e.body.identity == by
                && e.body.key_path == *key_path
                && rotation.is_some_and(|rotation| {
                    (&rotation.old_path, &rotation.new_path, rotation.rotated_by) == (key_path, key_path, by)
                        && rotation.old_epoch.checked_add(1) == Some(rotation.new_epoch)
                })
        }
        (action, Payload::KeyUsage(e)) => {
            let usage = &e.body;
            usage.identity == by && fits_key(action, &usage.key_path, usage.operation, usage.message_hash)
        }
        _ => false,
    }
}

fn fits_update(action: &PolicyAction, whose: &IdentityId, change: &IdentityChange, by: IdentityId) -> bool {
    match (action, change) {
        (PolicyAction::ModifyIdentity { identity }, IdentityChange::Status { by: changed_by, .. }) => {
            identity == whose && *changed_by == by
        }
        (PolicyAction::ModifyIdentity { identity }, IdentityChange::TokenRevoked { by: revoked_by, .. }) => {
            identity == whose && *revoked_by == by
        }
        (PolicyAction::Authenticate { identity }, IdentityChange::TokenIssued { .. }) => identity == whose,
        // A workload gets its own alone.
        (PolicyAction::Authenticate { identity }, IdentityChange::SvidIssued { .. }) => {
            identity == whose && *whose == by
        }
        // Whoever proved a credential asks for itself.
        (PolicyAction::Authenticate { identity }, IdentityChange::Authenticated { .. }) => {
            identity == whose && *whose == by
        }
        _ => false,
    }
}

fn fits_key(action: &PolicyAction, path: &KeyPath, done: KeyOperation, message: Option<Hash>) -> bool {
    match (action, done) {
        (PolicyAction::Sign { key_path, message_hash }, KeyOperation::Sign) => {
            key_path == path && message == Some(*message_hash)
        }
        (PolicyAction::Encrypt { key_path }, KeyOperation::Encrypt) => key_path == path,
        (PolicyAction::Decrypt { key_path }, KeyOperation::Decrypt) => key_path == path,
        (PolicyAction::ControlService { service, operation }, KeyOperation::Lock | KeyOperation::Unlock) => {
            let wanted = match done {
                KeyOperation::Lock => ServiceOperation::Lock,
                _ => ServiceOperation::Unlock,
            };
            service == KEYS
                && *operation == wanted
                && path.to_string() == format!("{}/{KEYS}", key_paths::SERVICES)
        }
        _ => false,
    }
}
