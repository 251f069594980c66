use super::{
    NodeId, Nodes, TREE_SIZE_MAX, TreeHash,
    split::{Range, fold},
};

/// The right edge of a growing tree: the complete subtrees that are not yet part of a larger one. At most 64 hashes, and
/// all that is needed to take leaves and to tell the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    /// Largest first.
    peaks: Vec<TreeHash>,
}

impl Edge {
    /// The edge of a tree whose subtrees are known. None where one is not.
    pub fn from_nodes(size: u64, nodes: &impl Nodes) -> Option<Self> {
        let peaks = Range::whole(size).nodes().map(|id| nodes.node(id)).collect::<Option<_>>()?;
        Some(Self { size, peaks })
    }

    /// The edge of a tree of `size` leaves, as `peaks` told them. None where their number is not that of such a tree.
    #[must_use]
    pub fn from_peaks(size: u64, peaks: Vec<TreeHash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize && size <= TREE_SIZE_MAX).then_some(Self { size, peaks })
    }

    /// Its complete subtrees, largest first.
    #[must_use]
    pub fn peaks(&self) -> &[TreeHash] {
        &self.peaks
    }

    /// Leaves so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    #[must_use]
    pub fn root(&self) -> TreeHash {
        fold(&self.peaks)
    }

    /// Takes the next leaf, and tells every subtree that it completes, from the leaf itself up.
    pub fn push(&mut self, leaf: TreeHash, mut completed: impl FnMut(NodeId, TreeHash)) {
        let mut id = NodeId { level: 0, index: self.size };
        let mut hash = leaf;
        completed(id, hash);
        while id.index & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = TreeHash::node(&left, &hash);
            id = NodeId { level: id.level.saturating_add(1), index: id.index >> 1 };
            completed(id, hash);
        }
        self.peaks.push(hash);
        self.size = self.size.saturating_add(1);
    }
}
