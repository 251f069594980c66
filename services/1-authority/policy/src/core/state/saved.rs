//! The engine's state as bytes, for its snapshot: all that a later decision can depend on.

use std::sync::Arc;

use base::{
    AxiomRef, Hash,
    cbor::{self, CborError},
};
use minicbor::{Decode, Encode};
use thiserror::Error;

use super::{Pinned, PolicyState, hash_of};
use crate::core::{
    identities::SavedIdentities,
    rates::SavedRates,
    recent::SavedRecent,
    rule_set::{RuleSet, SavedRule},
};

/// Of what these bytes mean: a fold that changes has another.
pub const FOLD_VERSION: u32 = 1;

#[derive(Debug, Error)]
pub enum StateError {
    #[error(transparent)]
    Form(#[from] CborError),
    #[error("its rules and principals do not have the hash that was written down with them")]
    Hash,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct Saved {
    #[n(0)]
    last: AxiomRef,
    #[n(1)]
    pinned: Option<Pinned>,
    #[n(2)]
    rules: Vec<SavedRule>,
    #[n(3)]
    identities: SavedIdentities,
    #[n(4)]
    rates: SavedRates,
    #[n(5)]
    recent: SavedRecent,
    /// Of rules and principals, as each decision names it.
    #[n(6)]
    hash: Hash,
}

impl PolicyState {
    /// Equal folds, equal bytes; none before the first entry.
    #[must_use]
    pub fn save(&self) -> Option<Vec<u8>> {
        Some(cbor::encode(&Saved {
            last: self.last?,
            pinned: self.pinned.as_deref().cloned(),
            rules: self.rules.save(),
            identities: self.identities.save(),
            rates: self.rates.save(),
            recent: self.recent.save(),
            hash: self.hash,
        }))
    }

    /// What `save` has written, as it was folded.
    pub fn restore(bytes: &[u8]) -> Result<Self, StateError> {
        let saved: Saved = cbor::decode(bytes)?;
        let (rules, identities) = (RuleSet::restore(saved.rules)?, saved.identities.restore());
        let hash = hash_of(&rules, &identities);
        if hash != saved.hash {
            return Err(StateError::Hash);
        }
        Ok(Self {
            last: Some(saved.last),
            pinned: saved.pinned.map(Arc::new),
            rules: Arc::new(rules),
            identities: Arc::new(identities),
            rates: Arc::new(saved.rates.restore()),
            recent: Arc::new(saved.recent.restore()?),
            hash,
        })
    }
}
