//! What the log says about processes: a fold, so a restart loses nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};

use base::{AxiomRef, EntryKey, Hash, IdentityId, ProcessId};
use chain::payload::{
    Payload,
    identity::{IdentityCreated, IdentityType},
    process::ProcessCreate,
};

use super::limits::KEYS_REMEMBERED_MAX;

/// A committed creation whose exit is not on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    pub at: AxiomRef,
    pub create: ProcessCreate,
    /// Its receipt is on record.
    pub receipted: bool,
}

/// What a key has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    pub pid: ProcessId,
    pub at: AxiomRef,
    pub image: Hash,
    pub identity: IdentityId,
    pub args_hash: Hash,
    pub missing: Vec<String>,
}

#[derive(Clone, Debug)]
struct Known {
    identity_type: IdentityType,
    parent: Option<IdentityId>,
}

/// Fold of genesis, identities and entries 30, 31 and 80.
#[derive(Debug, Default)]
pub struct Ledger {
    highest: u64,
    open: BTreeMap<ProcessId, Open>,
    by_entry: HashMap<Hash, ProcessId>,
    keys: HashMap<EntryKey, Started>,
    key_order: VecDeque<EntryKey>,
    identities: HashMap<IdentityId, Known>,
    admin: Option<IdentityId>,
}

/// How often a parent may be looked up: deeper trees than this are not made.
const ANCESTORS_MAX: usize = 64;

impl Ledger {
    /// Folds one committed entry.
    pub fn apply(&mut self, at: AxiomRef, payload: &Payload) {
        match payload {
            Payload::Genesis(genesis) => {
                genesis.body.identities.iter().for_each(|identity| self.know(identity));
                self.admin = Some(genesis.body.admin);
            }
            Payload::IdentityCreated(created) => self.know(&created.body),
            Payload::ProcessCreate(created) => self.created(at, created.key, &created.body),
            Payload::ProcessExit(exit) => {
                if let Some(open) = self.open.remove(&exit.body.pid) {
                    self.by_entry.remove(&open.at.hash);
                }
            }
            Payload::Receipt(receipt) => {
                let pid = self.by_entry.get(&receipt.body.axiom_entry.hash);
                if let Some(open) = pid.and_then(|pid| self.open.get_mut(pid)) {
                    open.receipted = true;
                }
            }
            _ => {}
        }
    }

    fn know(&mut self, identity: &IdentityCreated) {
        let known = Known { identity_type: identity.identity_type, parent: identity.parent };
        self.identities.insert(identity.identity_id, known);
    }

    fn created(&mut self, at: AxiomRef, key: EntryKey, create: &ProcessCreate) {
        self.highest = self.highest.max(create.pid.0);
        self.by_entry.insert(at.hash, create.pid);
        self.open.insert(create.pid, Open { at, create: create.clone(), receipted: false });
        let started = Started {
            pid: create.pid,
            at,
            image: create.image,
            identity: create.identity,
            args_hash: create.args_hash,
            missing: create.missing.clone(),
        };
        if self.keys.insert(key, started).is_none() {
            self.key_order.push_back(key);
        }
        if self.key_order.len() > KEYS_REMEMBERED_MAX
            && let Some(oldest) = self.key_order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }

    /// Highest process id on record, 0 if there is none (PRC-35).
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    #[must_use]
    pub fn open(&self) -> &BTreeMap<ProcessId, Open> {
        &self.open
    }

    #[must_use]
    pub fn started(&self, key: &EntryKey) -> Option<&Started> {
        self.keys.get(key)
    }

    /// Genesis' admin, and identities of type System.
    #[must_use]
    pub fn is_system_class(&self, id: &IdentityId) -> bool {
        self.admin == Some(*id)
            || self.identities.get(id).is_some_and(|known| known.identity_type == IdentityType::System)
    }

    /// Identities that run the node itself.
    #[must_use]
    pub fn is_of_the_house(&self, id: &IdentityId) -> bool {
        self.identities
            .get(id)
            .is_some_and(|known| matches!(known.identity_type, IdentityType::System | IdentityType::Service))
    }

    /// True if `identity` is `of` or descends from it.
    #[must_use]
    pub fn descends(&self, identity: IdentityId, of: IdentityId) -> bool {
        let mut at = Some(identity);
        for _ in 0..ANCESTORS_MAX {
            match at {
                Some(id) if id == of => return true,
                Some(id) => at = self.identities.get(&id).and_then(|known| known.parent),
                None => return false,
            }
        }
        false
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
