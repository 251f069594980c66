//! The fold as bytes, for the service's snapshot. Requests under way are not in it; a decision that one of them has spent
//! is, and stays spent.

use base::{
    PublicKey,
    cbor::{self, CborError},
};
use minicbor::{Decode, Encode};

use super::{epochs::Epochs, ledger::Ledger, machine::KeysCore};

/// Of what these bytes mean: a fold that changes has another.
pub const FOLD_VERSION: u32 = 1;

/// What a fold of the log gives.
#[derive(Debug, Default, Encode, Decode)]
#[cbor(array)]
pub(super) struct Folded {
    #[n(0)]
    pub(super) policy_key: Option<PublicKey>,
    /// By a decision that no later one has taken back.
    #[n(1)]
    pub(super) is_locked: bool,
    #[n(2)]
    pub(super) epochs: Epochs,
    #[n(3)]
    pub(super) ledger: Ledger,
}

impl KeysCore {
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        cbor::encode(&self.folded)
    }

    /// Takes the place of what was folded so far; with an error nothing has changed.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), CborError> {
        self.folded = cbor::decode(bytes)?;
        Ok(())
    }
}
