//! What the log says about processes: a fold, so a restart loses nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};

use base::{
    AxiomRef, EntryKey, Hash, IdentityId, ProcessId,
    cbor::{self, CborError},
};
use chain::payload::{
    Payload,
    identity::{IdentityCreated, IdentityType},
    process::ProcessCreate,
};
use minicbor::{Decode, Encode};

use super::limits::KEYS_REMEMBERED_MAX;

/// A committed creation whose exit is not on record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Open {
    #[n(0)]
    pub at: AxiomRef,
    #[n(1)]
    pub create: ProcessCreate,
    /// Its receipt is on record.
    #[n(2)]
    pub receipted: bool,
}

/// What a key has started.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Started {
    #[n(0)]
    pub pid: ProcessId,
    #[n(1)]
    pub at: AxiomRef,
    #[n(2)]
    pub image: Hash,
    #[n(3)]
    pub identity: IdentityId,
    #[n(4)]
    pub args_hash: Hash,
    #[n(5)]
    pub missing: Vec<String>,
}

#[derive(Clone, Debug, Encode, Decode)]
#[cbor(array)]
struct Known {
    #[n(0)]
    identity_type: IdentityType,
    #[n(1)]
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

/// What is derived from something else is left out.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct Saved {
    #[n(0)]
    highest: u64,
    #[n(1)]
    open: BTreeMap<ProcessId, Open>,
    /// Oldest first.
    #[n(2)]
    keys: Vec<(EntryKey, Started)>,
    #[n(3)]
    identities: BTreeMap<IdentityId, Known>,
    #[n(4)]
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

    /// Equal folds, equal bytes.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let started = |key: &EntryKey| Some((*key, self.keys.get(key)?.clone()));
        cbor::encode(&Saved {
            highest: self.highest,
            open: self.open.clone(),
            keys: self.key_order.iter().filter_map(started).collect(),
            identities: self.identities.iter().map(|(id, known)| (*id, known.clone())).collect(),
            admin: self.admin,
        })
    }

    /// What `save` has written, as it was folded.
    pub fn restore(bytes: &[u8]) -> Result<Self, CborError> {
        let Saved { highest, open, keys, identities, admin } = cbor::decode(bytes)?;
        Ok(Self {
            highest,
            by_entry: open.values().map(|open| (open.at.hash, open.create.pid)).collect(),
            open,
            key_order: keys.iter().map(|(key, _)| *key).collect(),
            keys: keys.into_iter().collect(),
            identities: identities.into_iter().collect(),
            admin,
        })
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
