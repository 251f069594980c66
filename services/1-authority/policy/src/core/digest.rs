//! Hash over a set of items that changes with one item in microseconds, whatever the size of the set.
//!
//! Items lie in buckets by the hash of their key, each bucket is hashed over its sorted items, and a binary tree stands
//! over the buckets. The result depends on the set alone, not on the order of changes.

use std::collections::BTreeMap;

use base::Hash;

const BITS: u32 = 10;
const BUCKETS: usize = 1 << BITS;

#[derive(Clone, Debug)]
pub(crate) struct SetDigest {
    buckets: Vec<BTreeMap<Hash, Hash>>,
    /// Node 1 is the root, `n` has the children `2n` and `2n + 1`, buckets begin at `BUCKETS`.
    nodes: Vec<Hash>,
}

impl Default for SetDigest {
    fn default() -> Self {
        let mut nodes = vec![bucket_hash(&BTreeMap::new()); 2 * BUCKETS];
        for at in (1..BUCKETS).rev() {
            let above = node_hash(&nodes, at);
            if let Some(node) = nodes.get_mut(at) {
                *node = above;
            }
        }
        Self { buckets: vec![BTreeMap::new(); BUCKETS], nodes }
    }
}

impl SetDigest {
    /// Puts an item under a key, or takes the key away.
    pub(crate) fn set(&mut self, key: &[u8], item: Option<&[u8]>) {
        let key = Hash::of_parts(&[b"bailiwick policy state key v1\0", key]);
        let at = usize::from(u16::from_be_bytes([key.0[0], key.0[1]]) >> (16 - BITS));
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        match item {
            Some(item) => bucket.insert(key, Hash::of_parts(&[b"bailiwick policy state item v1\0", item])),
            None => bucket.remove(&key),
        };
        let mut hash = bucket_hash(bucket);
        let mut at = BUCKETS + at;
        while at > 0 {
            if let Some(node) = self.nodes.get_mut(at) {
                *node = hash;
            }
            at /= 2;
            hash = node_hash(&self.nodes, at);
        }
    }

    pub(crate) fn root(&self) -> Hash {
        self.nodes.get(1).copied().unwrap_or(Hash::ZERO)
    }
}

fn bucket_hash(bucket: &BTreeMap<Hash, Hash>) -> Hash {
    let mut bytes = Vec::with_capacity(bucket.len() * 64);
    for (key, item) in bucket {
        bytes.extend_from_slice(&key.0);
        bytes.extend_from_slice(&item.0);
    }
    Hash::of_parts(&[b"bailiwick policy state bucket v1\0", &bytes])
}

fn node_hash(nodes: &[Hash], at: usize) -> Hash {
    let child = |n: usize| nodes.get(n).copied().unwrap_or(Hash::ZERO);
    Hash::of_parts(&[b"bailiwick policy state node v1\0", &child(2 * at).0, &child(2 * at + 1).0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_counts_whatever_its_bucket() {
        let mut digest = SetDigest::default();
        let mut roots = std::collections::HashSet::from([digest.root()]);
        for n in 0..4 * BUCKETS as u32 {
            digest.set(&n.to_be_bytes(), Some(b"x"));
            assert!(roots.insert(digest.root()), "item {n} is not in the root");
        }
    }

    #[test]
    fn depends_on_the_set_and_not_on_its_history() {
        let (mut one, mut two) = (SetDigest::default(), SetDigest::default());
        let empty = one.root();
        for n in 0..3000_u32 {
            one.set(&n.to_be_bytes(), Some(b"x"));
            two.set(&(2999 - n).to_be_bytes(), Some(if n == 7 { b"y" } else { b"x" }));
        }
        assert_ne!(one.root(), two.root());
        two.set(&2992_u32.to_be_bytes(), Some(b"x"));
        assert_eq!(one.root(), two.root());
        for n in 0..3000_u32 {
            one.set(&n.to_be_bytes(), None);
        }
        assert_eq!(one.root(), empty);
        assert_eq!(SetDigest::default().root(), empty);
    }
}
