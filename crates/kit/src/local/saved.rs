//! The shared fold as bytes, for axiom's snapshots: what is derived from something else is left out, and so are the
//! rights, which axiom keeps with the names of their objects.

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
use crate::{rights::Rights, token::Revocations};

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

impl LocalState {
    /// All but the rights, in the one canonical encoding: equal folds, equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let principals = self.principals().save();
        let state = self.read();
        let statuses = state.people.iter().map(|(id, status)| (*id, *status)).collect();
        cbor::encode(&Saved { statuses, rules: state.rules.clone(), principals })
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
