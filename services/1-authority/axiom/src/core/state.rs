//! Control state: what the log adds up to (AX-50). The reducer is pure, total and deterministic; its maps are ordered.

use std::collections::BTreeMap;

use base::{AxiomRef, Hash, IdentityId, KeyPath, ProcessId, PublicKey, RuleId, Sequence, cbor, key_paths};
use chain::payload::{
    Payload,
    capability::CapabilityGrant,
    identity::{IdentityChange, IdentityCreated, IdentityStatus},
    policy::PolicyRule,
    process::ProcessCreate,
    service::{Genesis, ServiceRegister},
};
use minicbor::{Decode, Encode};

use super::{capabilities::Capabilities, reply::RejectionReason};

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ServiceRecord {
    #[n(0)]
    pub register: ServiceRegister,
    #[n(1)]
    pub status: ServiceStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ServiceStatus {
    #[n(0)]
    Registered,
    #[n(1)]
    Started,
    #[n(2)]
    Stopped,
    #[n(3)]
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct IdentityRecord {
    #[n(0)]
    pub created: IdentityCreated,
    #[n(1)]
    pub status: IdentityStatus,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RuleRecord {
    #[n(0)]
    pub rule: PolicyRule,
    /// The entry that added it.
    #[n(1)]
    pub created_at: Sequence,
}

/// Keys that genesis fixes for ever.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Pinned {
    #[n(0)]
    pub node_name: String,
    #[n(1)]
    pub node_key: PublicKey,
    #[n(2)]
    pub sequencer_key: PublicKey,
    #[n(3)]
    pub policy_key: PublicKey,
    #[n(4)]
    pub identity_key: PublicKey,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ControlState {
    #[n(0)]
    pub capabilities: Capabilities,
    #[n(1)]
    pub services: BTreeMap<String, ServiceRecord>,
    /// Programs that run.
    #[n(2)]
    pub processes: BTreeMap<ProcessId, ProcessCreate>,
    /// Content hash by path; filled by the entries of the file system.
    #[n(3)]
    pub namespace: BTreeMap<String, Hash>,
    /// Manifest hash by job; filled by the entries of jobs.
    #[n(4)]
    pub jobs: BTreeMap<Hash, Hash>,
    #[n(5)]
    pub system_image: Option<Hash>,
    #[n(6)]
    pub policy: BTreeMap<RuleId, RuleRecord>,
    #[n(7)]
    pub identities: BTreeMap<IdentityId, IdentityRecord>,
    #[n(8)]
    pub pinned: Option<Pinned>,
}

type Checked = Result<(), (RejectionReason, String)>;

fn missing(what: impl std::fmt::Display) -> (RejectionReason, String) {
    (RejectionReason::ResourceNotFound, format!("{what} is not known"))
}

fn conflict(what: impl std::fmt::Display) -> (RejectionReason, String) {
    (RejectionReason::InvalidPayload, what.to_string())
}

fn require(holds: bool, otherwise: impl FnOnce() -> (RejectionReason, String)) -> Checked {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// A record about another entry comes after it.
fn check_cited(cited: AxiomRef, next: Sequence) -> Checked {
    let cited = cited.sequence;
    require(cited < next, || missing(format_args!("entry {cited}")))
}

impl ControlState {
    /// Whether this is the identity of the service with that name.
    #[must_use]
    pub fn is_service(&self, id: &IdentityId, name: &str) -> bool {
        let path = KeyPath::parse(key_paths::SERVICES).and_then(|services| services.child(name));
        let known = self.identities.get(id);
        known.zip(path.ok()).is_some_and(|(known, path)| known.created.key_path == path)
    }

    /// Hash of the canonical encoding: equal states, equal hashes (AX-59).
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&self.to_bytes())
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, cbor::CborError> {
        cbor::decode(bytes)
    }

    /// Whether an entry fits what is there (AX-44). `next` is the sequence it would get.
    pub fn check(&self, payload: &Payload, next: Sequence) -> Checked {
        match payload {
            Payload::Genesis(_) => Err(conflict("there is one genesis, at sequence 0")),
            Payload::CapabilityGrant(entry) => self.check_grant(&entry.body),
            Payload::CapabilityRevoke(entry) => {
                let id = entry.body.capability;
                require(self.capabilities.live(&id).is_some(), || missing(format_args!("capability {id}")))
            }
            Payload::ServiceStart(entry) => {
                let name = &entry.body.name;
                require(self.services.contains_key(name), || missing(format_args!("service {name}")))
            }
            Payload::ProcessCreate(entry) => {
                let pid = entry.body.pid;
                require(!self.processes.contains_key(&pid), || {
                    conflict(format_args!("process {pid} is there already"))
                })
            }
            Payload::ProcessExit(entry) => self.check_process(entry.body.pid),
            Payload::ProcessKill(entry) => self.check_process(entry.body.pid),
            Payload::JobStart(entry) => check_cited(entry.body.submitted, next),
            Payload::JobComplete(entry) => check_cited(entry.body.submitted, next),
            Payload::JobFailed(entry) => check_cited(entry.body.submitted, next),
            Payload::Receipt(entry) => check_cited(entry.body.axiom_entry, next),
            Payload::KeyUsage(entry) => {
                let cited = entry.body.authorization.sequence;
                require(cited < next || entry.authorization.is_some(), || {
                    missing(format_args!("entry {cited}"))
                })
            }
            Payload::PolicyRuleAdded(entry) => {
                let id = &entry.body.rule.id;
                require(!self.policy.contains_key(id), || {
                    conflict(format_args!("rule {id} is there already"))
                })
            }
            Payload::PolicyRuleRemoved(entry) => {
                let id = &entry.body.rule;
                require(self.policy.contains_key(id), || missing(format_args!("rule {id}")))
            }
            Payload::IdentityCreated(entry) => self.check_identity(&entry.body),
            Payload::IdentityUpdated(entry) => {
                let id = entry.body.identity;
                let record =
                    self.identities.get(&id).ok_or_else(|| missing(format_args!("identity {id}")))?;
                match &entry.body.change {
                    IdentityChange::Status { old, new, .. } => {
                        let legal = record.status == *old && old.may_become(*new);
                        require(legal, || {
                            conflict(format_args!("identity {id} cannot go to that status from its own"))
                        })
                    }
                    _ => Ok(()),
                }
            }
            Payload::CredentialAdded(entry) => self.check_known(entry.body.identity),
            Payload::CredentialRevoked(entry) => self.check_known(entry.body.identity),
            Payload::Shutdown(_)
            | Payload::JobSubmit(_)
            | Payload::ImageImport(_)
            | Payload::ImageRemove(_)
            | Payload::LogArchive(_)
            | Payload::ServiceRegister(_)
            | Payload::ServiceStop(_)
            | Payload::ServiceFailed(_)
            | Payload::ClockSet(_)
            | Payload::ServiceLate(_)
            | Payload::ConnectionAuthorize(_)
            | Payload::ConnectionRevoke(_)
            | Payload::NetworkPolicyUpdate(_)
            | Payload::PolicyDecision(_) => Ok(()),
        }
    }

    fn check_process(&self, pid: ProcessId) -> Checked {
        require(self.processes.contains_key(&pid), || missing(format_args!("process {pid}")))
    }

    fn check_known(&self, id: IdentityId) -> Checked {
        require(self.identities.contains_key(&id), || missing(format_args!("identity {id}")))
    }

    fn check_grant(&self, grant: &CapabilityGrant) -> Checked {
        let id = grant.capability_id;
        require(!self.capabilities.was_granted(&id), || {
            conflict(format_args!("capability {id} was granted before"))
        })?;
        let Some(parent) = grant.parent else { return Ok(()) };
        let live =
            self.capabilities.live(&parent).ok_or_else(|| missing(format_args!("capability {parent}")))?;
        require(grant.is_within(live), || {
            conflict(format_args!("capability {id} would give more than its parent has"))
        })
    }

    fn check_identity(&self, created: &IdentityCreated) -> Checked {
        let id = created.identity_id;
        require(IdentityId::of_key(&created.public_key) == id, || {
            conflict("the identity is not the hash of its key")
        })?;
        require(!self.identities.contains_key(&id), || {
            conflict(format_args!("identity {id} is there already"))
        })?;
        match created.parent {
            Some(parent) => {
                require(self.identities.contains_key(&parent), || missing(format_args!("identity {parent}")))
            }
            None => Ok(()),
        }
    }

    /// Takes one entry in. Total: what does not fit changes nothing.
    pub fn apply(&mut self, sequence: Sequence, payload: &Payload) {
        match payload {
            Payload::Genesis(entry) => self.apply_genesis(sequence, &entry.body),
            Payload::CapabilityGrant(entry) => self.capabilities.grant(&entry.body),
            Payload::CapabilityRevoke(entry) => self.capabilities.revoke(entry.body.capability),
            Payload::ServiceRegister(entry) => {
                let record =
                    ServiceRecord { register: entry.body.clone(), status: ServiceStatus::Registered };
                self.services.insert(entry.body.name.clone(), record);
            }
            Payload::ServiceStart(entry) => self.set_service(&entry.body.name, ServiceStatus::Started),
            Payload::ServiceStop(entry) => self.set_service(&entry.body.name, ServiceStatus::Stopped),
            Payload::ServiceFailed(entry) => self.set_service(&entry.body.name, ServiceStatus::Failed),
            Payload::ProcessCreate(entry) => {
                self.processes.insert(entry.body.pid, entry.body.clone());
            }
            Payload::ProcessExit(entry) => {
                self.processes.remove(&entry.body.pid);
            }
            Payload::PolicyRuleAdded(entry) => self.add_rule(sequence, &entry.body.rule),
            Payload::PolicyRuleRemoved(entry) => {
                self.policy.remove(&entry.body.rule);
            }
            Payload::IdentityCreated(entry) => self.add_identity(&entry.body),
            Payload::IdentityUpdated(entry) => {
                if let IdentityChange::Status { new, .. } = &entry.body.change
                    && let Some(record) = self.identities.get_mut(&entry.body.identity)
                {
                    record.status = *new;
                }
            }
            Payload::Shutdown(_)
            | Payload::ProcessKill(_)
            | Payload::JobSubmit(_)
            | Payload::JobStart(_)
            | Payload::JobComplete(_)
            | Payload::JobFailed(_)
            | Payload::ImageImport(_)
            | Payload::ImageRemove(_)
            | Payload::ConnectionAuthorize(_)
            | Payload::ConnectionRevoke(_)
            | Payload::NetworkPolicyUpdate(_)
            | Payload::Receipt(_)
            | Payload::PolicyDecision(_)
            | Payload::CredentialAdded(_)
            | Payload::CredentialRevoked(_)
            | Payload::ClockSet(_)
            | Payload::ServiceLate(_)
            | Payload::KeyUsage(_)
            | Payload::LogArchive(_) => {}
        }
    }

    fn apply_genesis(&mut self, sequence: Sequence, genesis: &Genesis) {
        self.system_image = Some(genesis.image_hash);
        self.pinned = Some(Pinned {
            node_name: genesis.node_name.clone(),
            node_key: genesis.node_key,
            sequencer_key: genesis.sequencer_key,
            policy_key: genesis.policy_key,
            identity_key: genesis.identity_key,
        });
        genesis.identities.iter().for_each(|identity| self.add_identity(identity));
        genesis.initial_capabilities.iter().for_each(|grant| self.capabilities.grant(grant));
        genesis.rules.iter().for_each(|rule| self.add_rule(sequence, rule));
    }

    fn add_identity(&mut self, created: &IdentityCreated) {
        let record = IdentityRecord { created: created.clone(), status: IdentityStatus::Active };
        self.identities.insert(created.identity_id, record);
    }

    fn add_rule(&mut self, created_at: Sequence, rule: &PolicyRule) {
        self.policy.insert(rule.id.clone(), RuleRecord { rule: rule.clone(), created_at });
    }

    fn set_service(&mut self, name: &str, status: ServiceStatus) {
        if let Some(record) = self.services.get_mut(name) {
            record.status = status;
        }
    }
}
