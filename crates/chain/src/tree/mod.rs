//! The RFC 6962 tree over the entries: hashes, the right edge that grows with the log, inclusion and consistency proofs.
//!
//! Leaf `n` is entry `n`: header and payload without the signature. SHA-256, because the tools that others wrote use it.
//! A proof is a list of the ranges whose hashes it holds, so making and verifying walk the same definition.

mod edge;
mod proof;
mod set;
mod split;

use std::{collections::BTreeMap, fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use thiserror::Error;

pub use edge::Edge;
pub use proof::{
    consistency_nodes, consistency_proof, inclusion_nodes, inclusion_proof, verify_consistency,
    verify_inclusion,
};
pub use set::{root_from_set, set_nodes, set_proof};

/// Leaves of one tree: sizes are read and written as signed 64-bit numbers by many.
pub const TREE_SIZE_MAX: u64 = i64::MAX as u64;
/// Hashes of one proof: one for each level, and one more in a consistency proof.
pub const PROOF_HASHES_MAX: usize = 64;

const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

/// SHA-256 of a leaf, a node or a whole tree. Text form: base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeHash(pub [u8; 32]);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a tree hash is 32 bytes in base64, not {0:?}")]
pub struct TreeHashError(String);

impl TreeHash {
    /// Root of the tree without leaves.
    #[must_use]
    pub fn empty() -> Self {
        Self(Sha256::digest([]).into())
    }

    #[must_use]
    pub fn leaf(bytes: &[u8]) -> Self {
        Self::leaf_of(&[bytes])
    }

    /// Hash of a leaf that lies in several pieces.
    #[must_use]
    pub fn leaf_of(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new_with_prefix(LEAF);
        parts.iter().for_each(|part| hasher.update(part));
        Self(hasher.finalize().into())
    }

    #[must_use]
    pub fn node(left: &Self, right: &Self) -> Self {
        Self(Sha256::new_with_prefix(NODE).chain_update(left.0).chain_update(right.0).finalize().into())
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TreeHash {
    type Err = TreeHashError;

    /// The one canonical encoding only.
    fn from_str(text: &str) -> Result<Self, TreeHashError> {
        let refuse = || TreeHashError(text.chars().take(80).collect());
        let bytes = STANDARD.decode(text).map_err(|_| refuse())?;
        bytes.try_into().map(Self).map_err(|_| refuse())
    }
}

impl serde::Serialize for TreeHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A complete subtree: the `2^level` leaves from `index << level` on. Its hash never changes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    pub level: u8,
    pub index: u64,
}

/// Where the hashes of complete subtrees come from.
pub trait Nodes {
    fn node(&self, id: NodeId) -> Option<TreeHash>;
}

impl Nodes for BTreeMap<NodeId, TreeHash> {
    fn node(&self, id: NodeId) -> Option<TreeHash> {
        self.get(&id).copied()
    }
}

#[cfg(test)]
mod tests;
