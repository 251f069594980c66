//! One signature for a group of decisions (decision 0001): a Merkle tree over the decision bodies, its root signed once.
//!
//! The tree is as wide as the next power of two; missing leaves are all zero. So the path's length alone fixes its shape,
//! the bits of the index say on which side each step stands, and a decision that stands alone has an empty path.

use base::{Hash, PublicKey, Signature};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

const LEAF: &[u8] = b"bailiwick decision leaf v1\0";
const NODE: &[u8] = b"bailiwick decision node v1\0";
const ROOT: &[u8] = b"bailiwick decision root v1\0";

/// Steps of a path; a group has at most 2^12 entries, so this leaves room and bounds the work for a hostile path.
pub const PATH_STEPS_MAX: usize = 16;

/// Leaf of one decision body (CBOR without the signature).
#[must_use]
pub fn leaf(body: &[u8]) -> Hash {
    Hash::of_parts(&[LEAF, body])
}

#[must_use]
pub fn node(left: &Hash, right: &Hash) -> Hash {
    Hash::of_parts(&[NODE, &left.0, &right.0])
}

/// The bytes that are signed for a root.
#[must_use]
pub fn root_message(root: &Hash) -> Vec<u8> {
    [ROOT, &root.0].concat()
}

#[must_use]
pub fn sign_root(key: &SigningKey, root: &Hash) -> Signature {
    Signature(key.sign(&root_message(root)).to_bytes())
}

#[must_use]
pub fn verify_root(key: &PublicKey, root: &Hash, signature: &Signature) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&key.0) else { return false };
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    key.verify_strict(&root_message(root), &signature).is_ok()
}

/// The root to which a leaf leads, or None if the path's length is not the one of a tree of `count` leaves or the index
/// lies beyond them.
#[must_use]
pub fn root_from_path(leaf: Hash, index: u32, count: u32, path: &[Hash]) -> Option<Hash> {
    if index >= count
        || path.len() > PATH_STEPS_MAX
        || 1_u64 << path.len() != u64::from(count).next_power_of_two()
    {
        return None;
    }
    Some(path.iter().enumerate().fold(leaf, |below, (level, sibling)| {
        if index >> level & 1 == 0 { node(&below, sibling) } else { node(sibling, &below) }
    }))
}

/// All levels of a tree, so that paths cost look-ups only.
#[derive(Clone, Debug)]
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// None for no leaves, or more than `2^PATH_STEPS_MAX`.
    #[must_use]
    pub fn new(leaves: Vec<Hash>) -> Option<Self> {
        if leaves.is_empty() || leaves.len() > 1 << PATH_STEPS_MAX {
            return None;
        }
        let mut levels = vec![leaves];
        // What stands beside the last node where nothing is: all-zero leaves and the nodes above them.
        let mut absent = Hash::ZERO;
        while let Some(below) = levels.last().filter(|below| below.len() > 1) {
            let above = below.chunks(2).map(|pair| match pair {
                [left, right] => node(left, right),
                [left] => node(left, &absent),
                _ => absent,
            });
            let above = above.collect();
            absent = node(&absent, &absent);
            levels.push(above);
        }
        Some(Self { levels })
    }

    #[must_use]
    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|top| top.first()).copied().unwrap_or(Hash::ZERO)
    }

    /// Siblings from the leaf up; None beyond the last leaf.
    #[must_use]
    pub fn path(&self, index: u32) -> Option<Vec<Hash>> {
        let mut at = index as usize;
        self.levels.first()?.get(at)?;
        let mut absent = Hash::ZERO;
        let mut path = Vec::with_capacity(self.levels.len());
        for level in self.levels.iter().take(self.levels.len().saturating_sub(1)) {
            path.push(level.get(at ^ 1).copied().unwrap_or(absent));
            absent = node(&absent, &absent);
            at >>= 1;
        }
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|n| leaf(&n.to_le_bytes())).collect()
    }

    #[test]
    fn every_path_of_every_size_leads_to_the_root_and_no_other_leaf_does() {
        for count in 1..=33 {
            let all = leaves(count);
            let tree = Tree::new(all.clone()).unwrap();
            for (index, own) in all.iter().enumerate() {
                let path = tree.path(index as u32).unwrap();
                assert_eq!(1 << path.len(), count.next_power_of_two());
                assert_eq!(root_from_path(*own, index as u32, count as u32, &path), Some(tree.root()));
                assert_ne!(
                    root_from_path(leaf(b"other"), index as u32, count as u32, &path),
                    Some(tree.root())
                );
                assert_ne!(root_from_path(*own, index as u32 ^ 1, count as u32, &path), Some(tree.root()));
            }
            assert_eq!(tree.path(count as u32), None);
        }
        assert!(Tree::new(Vec::new()).is_none());
        assert!(Tree::new(vec![leaf(b"a"); 1 << PATH_STEPS_MAX]).is_some());
        assert!(Tree::new(vec![leaf(b"a"); (1 << PATH_STEPS_MAX) + 1]).is_none());
    }

    #[test]
    fn one_decision_is_its_own_root_and_paths_are_bounded() {
        let own = leaf(b"body");
        let tree = Tree::new(vec![own]).unwrap();
        assert_eq!((tree.root(), tree.path(0)), (own, Some(vec![])));
        assert_eq!(root_from_path(own, 1, 1, &[]), None);
        assert!(root_from_path(own, 0, 1 << PATH_STEPS_MAX, &[own; PATH_STEPS_MAX]).is_some());
        assert_eq!(root_from_path(own, 0, 2 << PATH_STEPS_MAX, &[own; PATH_STEPS_MAX + 1]), None);
    }

    #[test]
    fn the_root_signature_covers_the_root_and_its_purpose() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = PublicKey(key.verifying_key().to_bytes());
        let root = leaf(b"body");
        let signature = sign_root(&key, &root);
        assert!(verify_root(&public, &root, &signature));
        assert!(!verify_root(&public, &leaf(b"other"), &signature));
        assert!(!verify_root(&PublicKey([8; 32]), &root, &signature));
        assert!(!verify_root(&public, &root, &Signature(key.sign(&root.0).to_bytes())));
    }
}
