//! One proof for several leaves: going down from the root, from left to right, a hash for each subtree in which none of
//! them stands. For a single leaf these are the hashes of its inclusion proof, in the order of the leaves.

use super::{NodeId, Nodes, TREE_SIZE_MAX, TreeHash, split::Range};

/// Ascending, each once, within the tree, at least one.
fn is_set(indices: impl IntoIterator<Item = u64>, size: u64) -> bool {
    let mut before = None;
    for index in indices {
        if before.is_some_and(|before| before >= index) {
            return false;
        }
        before = Some(index);
    }
    before.is_some_and(|last| last < size && size <= TREE_SIZE_MAX)
}

/// The subtrees beside the leaves, from left to right.
fn beside(indices: &[u64], size: u64) -> Option<Vec<Range>> {
    fn walk(at: Range, indices: &[u64], found: &mut Vec<Range>) {
        if indices.is_empty() {
            found.push(at);
        } else if let Some((left, right)) = at.split() {
            let (before, behind) = indices.split_at(indices.partition_point(|index| *index < left.end));
            walk(left, before, found);
            walk(right, behind, found);
        }
    }
    if !is_set(indices.iter().copied(), size) {
        return None;
    }
    let mut found = Vec::new();
    walk(Range::whole(size), indices, &mut found);
    Some(found)
}

/// The subtrees from which `set_proof` is made.
#[must_use]
pub fn set_nodes(indices: &[u64], size: u64) -> Option<Vec<NodeId>> {
    Some(beside(indices, size)?.iter().flat_map(|range| range.nodes()).collect())
}

/// That all these leaves stand in the tree of `size` leaves. None unless `indices` are ascending and within.
pub fn set_proof(nodes: &impl Nodes, indices: &[u64], size: u64) -> Option<Vec<TreeHash>> {
    beside(indices, size)?.iter().map(|range| range.hash(nodes)).collect()
}

/// The root to which these leaves and the hashes beside them lead. None if their number is not exactly the one needed.
#[must_use]
pub fn root_from_set(leaves: &[(u64, TreeHash)], size: u64, proof: &[TreeHash]) -> Option<TreeHash> {
    fn walk<'p>(
        at: Range,
        leaves: &[(u64, TreeHash)],
        proof: &mut impl Iterator<Item = &'p TreeHash>,
    ) -> Option<TreeHash> {
        match (leaves, at.split()) {
            ([], _) => proof.next().copied(),
            ([(_, leaf), ..], None) => Some(*leaf),
            (_, Some((left, right))) => {
                let (before, behind) =
                    leaves.split_at(leaves.partition_point(|(index, _)| *index < left.end));
                let left = walk(left, before, proof)?;
                Some(TreeHash::node(&left, &walk(right, behind, proof)?))
            }
        }
    }
    if !is_set(leaves.iter().map(|(index, _)| *index), size) {
        return None;
    }
    let mut proof = proof.iter();
    let root = walk(Range::whole(size), leaves, &mut proof)?;
    proof.next().is_none().then_some(root)
}
