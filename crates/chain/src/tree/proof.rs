use super::{NodeId, Nodes, PROOF_HASHES_MAX, TREE_SIZE_MAX, TreeHash, split::Range};

/// On which side of the path the proof's hash stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// What stands beside a path, from below.
type Steps = Vec<(Side, Range)>;

/// The way from a leaf to the root. None beyond the last leaf.
fn inclusion_steps(index: u64, size: u64) -> Option<Steps> {
    if index >= size || size > TREE_SIZE_MAX {
        return None;
    }
    let mut steps = Vec::new();
    let mut at = Range::whole(size);
    while let Some((left, right)) = at.split() {
        if index < left.end {
            steps.push((Side::Right, right));
            at = left;
        } else {
            steps.push((Side::Left, left));
            at = right;
        }
    }
    steps.reverse();
    Some(steps)
}

/// The way from the place where the old tree ends to the new root, from below; and whether a hash must be given to begin
/// with, because the old tree is not one of the new one's subtrees. None unless `0 < old <= new`.
fn consistency_steps(old: u64, new: u64) -> Option<(Option<Range>, Steps)> {
    if old == 0 || old > new || new > TREE_SIZE_MAX {
        return None;
    }
    let mut steps = Vec::new();
    let mut at = Range::whole(new);
    while at.end != old {
        let (left, right) = at.split()?;
        if old <= left.end {
            steps.push((Side::Right, right));
            at = left;
        } else {
            steps.push((Side::Left, left));
            at = right;
        }
    }
    steps.reverse();
    Some(((at.start > 0).then_some(at), steps))
}

fn ids<'r>(ranges: impl IntoIterator<Item = &'r Range>) -> Vec<NodeId> {
    ranges.into_iter().flat_map(|range| range.nodes()).collect()
}

fn hashes<'r>(ranges: impl IntoIterator<Item = &'r Range>, nodes: &impl Nodes) -> Option<Vec<TreeHash>> {
    ranges.into_iter().map(|range| range.hash(nodes)).collect()
}

/// The subtrees from which `inclusion_proof` is made, so that a reader of the log keeps no others.
#[must_use]
pub fn inclusion_nodes(index: u64, size: u64) -> Option<Vec<NodeId>> {
    Some(ids(inclusion_steps(index, size)?.iter().map(|(_, range)| range)))
}

/// That leaf `index` stands in the tree of `size` leaves: RFC 6962 section 2.1.1. None if it does not, or a node is unknown.
pub fn inclusion_proof(nodes: &impl Nodes, index: u64, size: u64) -> Option<Vec<TreeHash>> {
    hashes(inclusion_steps(index, size)?.iter().map(|(_, range)| range), nodes)
}

#[must_use]
pub fn verify_inclusion(leaf: TreeHash, index: u64, size: u64, proof: &[TreeHash], root: TreeHash) -> bool {
    if proof.len() > PROOF_HASHES_MAX {
        return false;
    }
    let Some(steps) = inclusion_steps(index, size).filter(|steps| steps.len() == proof.len()) else {
        return false;
    };
    let found = steps.iter().zip(proof).fold(leaf, |below, ((side, _), beside)| match side {
        Side::Left => TreeHash::node(beside, &below),
        Side::Right => TreeHash::node(&below, beside),
    });
    found == root
}

/// The subtrees from which `consistency_proof` is made.
#[must_use]
pub fn consistency_nodes(old: u64, new: u64) -> Option<Vec<NodeId>> {
    if old == 0 {
        return Some(Vec::new());
    }
    let (first, steps) = consistency_steps(old, new)?;
    Some(ids(first.iter().chain(steps.iter().map(|(_, range)| range))))
}

/// That the tree of `new` leaves begins with the one of `old`: RFC 6962 section 2.1.2. Empty where `old` is 0: the empty
/// tree is the beginning of every other. None if `old` is larger, or a node is unknown.
pub fn consistency_proof(nodes: &impl Nodes, old: u64, new: u64) -> Option<Vec<TreeHash>> {
    if old == 0 {
        return Some(Vec::new());
    }
    let (first, steps) = consistency_steps(old, new)?;
    hashes(first.iter().chain(steps.iter().map(|(_, range)| range)), nodes)
}

#[must_use]
pub fn verify_consistency(
    old: u64,
    old_root: TreeHash,
    new: u64,
    new_root: TreeHash,
    proof: &[TreeHash],
) -> bool {
    if old == 0 {
        return proof.is_empty() && old_root == TreeHash::empty() && new <= TREE_SIZE_MAX;
    }
    if proof.len() > PROOF_HASHES_MAX {
        return false;
    }
    let Some((first, steps)) = consistency_steps(old, new) else { return false };
    let (seed, rest) = match (first, proof.split_first()) {
        (None, _) => (old_root, proof),
        (Some(_), Some((seed, rest))) => (*seed, rest),
        (Some(_), None) => return false,
    };
    if rest.len() != steps.len() {
        return false;
    }
    let (mut old_found, mut new_found) = (seed, seed);
    for ((side, _), beside) in steps.iter().zip(rest) {
        match side {
            // What stands to the right came later: the old tree knows nothing of it.
            Side::Right => new_found = TreeHash::node(&new_found, beside),
            Side::Left => {
                old_found = TreeHash::node(beside, &old_found);
                new_found = TreeHash::node(beside, &new_found);
            }
        }
    }
    old_found == old_root && new_found == new_root
}
