//! The shared fold as bytes, for snapshots: what is derived from something else is left out. Axiom keeps the rights apart,
//! with the names of their objects.

use base::{
    IdentityId, KeyPath, PublicKey, RuleId,
    cbor::{self, CborError},
};
use chain::payload::{capability::CapabilityGrant, identity::IdentityStatus};
use minicbor::{Decode, Encode};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
};

use super::{LocalState, State};
use crate::{
    rights::{Rights, SavedRights},
    token::Revocations,
};

/// Of the form of what a service saves, and of what it means: one that folds otherwise has another.
pub(crate) const LOCAL_VERSION: u32 = 1;

#[derive(Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct SavedPrincipals {
    #[n(0)]
    pub by_key_path: BTreeMap<KeyPath, IdentityId>,
    #[n(1)]
    pub admin: Option<IdentityId>,
    #[n(2)]
    pub token_issuer: Option<PublicKey>,
    #[n(3)]
    pub revocations: Revocations,
}

#[derive(Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Saved {
    #[n(0)]
    statuses: BTreeMap<IdentityId, IdentityStatus>,
    #[n(1)]
    rules: BTreeSet<RuleId>,
    #[n(2)]
    principals: SavedPrincipals,
}

/// With the rights.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct SavedWhole {
    #[n(0)]
    saved: Saved,
    #[n(1)]
    rights: SavedRights,
}

/// A whole state that was read and takes no place yet.
pub(crate) struct ReadState {
    state: State,
    principals: SavedPrincipals,
}

impl LocalState {
    fn saved(&self) -> Saved {
        let principals = self.principals().save();
        let state = self.read();
        let statuses = state.people.iter().map(|(id, status)| (*id, *status)).collect();
        Saved { statuses, rules: state.rules.clone(), principals }
    }

    /// All of it. Rights lie under a key that goes with them: keep it where what is saved belongs to this service alone.
    pub(crate) fn save_whole(&self) -> Vec<u8> {
        let saved = self.saved();
        let rights = self.read().rights.save();
        cbor::encode(&SavedWhole { saved, rights })
    }

    /// None if the rights contradict each other.
    pub(crate) fn read_whole(bytes: &[u8]) -> Result<Option<ReadState>, CborError> {
        let SavedWhole { saved, rights } = cbor::decode(bytes)?;
        let people = saved.statuses.into_iter().collect();
        let read = |rights| ReadState {
            state: State { people, rights, rules: saved.rules },
            principals: saved.principals,
        };
        Ok(rights.restore().map(read))
    }

    /// It takes the place of what was folded so far.
    pub(crate) fn put(&self, read: ReadState) {
        *self.principals.write().unwrap_or_else(PoisonError::into_inner) = read.principals.restore();
        *self.write() = read.state;
    }

    /// All but the rights, in the one canonical encoding: equal folds, equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(&self.saved())
    }

    /// Takes the place of what was folded so far. `grants` are those that were not taken back, in any order.
    pub fn restore<'g>(
        &self,
        bytes: &[u8],
        grants: impl IntoIterator<Item = &'g CapabilityGrant>,
    ) -> Result<(), CborError> {
        let saved: Saved = cbor::decode(bytes)?;
        let people = saved.statuses.into_iter().collect();
        let state = State { people, rights: Rights::of(grants), rules: saved.rules };
        *self.principals.write().unwrap_or_else(PoisonError::into_inner) = saved.principals.restore();
        *self.write() = state;
        Ok(())
    }
}
