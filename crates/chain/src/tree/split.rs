use super::{NodeId, Nodes, TreeHash};

/// Leaves `start..end`, as a tree divides itself: `start` is a multiple of the largest power of two within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Range {
    pub(super) const fn whole(size: u64) -> Self {
        Self { start: 0, end: size }
    }

    pub(super) const fn leaves(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Both halves: the left one has the largest power of two below the number of leaves. None for one leaf or none.
    pub(super) fn split(self) -> Option<(Self, Self)> {
        let below = self.leaves().checked_sub(1).filter(|below| *below > 0)?;
        let middle = self.start.checked_add(1 << below.ilog2())?;
        Some((Self { start: self.start, end: middle }, Self { start: middle, end: self.end }))
    }

    /// The complete subtrees that lie side by side in the range, largest first.
    pub(super) fn nodes(self) -> impl Iterator<Item = NodeId> {
        let leaves = self.leaves();
        (0..u64::BITS as u8).rev().filter(move |level| leaves >> level & 1 == 1).map(move |level| {
            // What stands before this subtree are the larger ones, all of whose bits lie above the level.
            let before = leaves >> level & !1;
            NodeId { level, index: (self.start >> level).saturating_add(before) }
        })
    }

    pub(super) fn hash(self, nodes: &impl Nodes) -> Option<TreeHash> {
        let mut hashes = Vec::new();
        for id in self.nodes() {
            hashes.push(nodes.node(id)?);
        }
        Some(fold(&hashes))
    }
}

/// Root over complete subtrees, largest first.
pub(super) fn fold(peaks: &[TreeHash]) -> TreeHash {
    let joined = peaks.iter().rev().copied().reduce(|right, left| TreeHash::node(&left, &right));
    joined.unwrap_or_else(TreeHash::empty)
}
