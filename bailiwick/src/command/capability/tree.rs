//! What is derived from what.

use std::collections::{BTreeMap, BTreeSet};

use base::{CapabilityId, IdentityId};
use serde::Serialize;

use super::{Row, limits};
use crate::output;

pub(super) struct Tree {
    rows: BTreeMap<CapabilityId, Row>,
    children: BTreeMap<CapabilityId, Vec<CapabilityId>>,
}

/// A capability with those that were derived from it.
#[derive(Serialize)]
pub(super) struct Nested<'a> {
    #[serde(flatten)]
    row: &'a Row,
    derived: Vec<Nested<'a>>,
}

impl Tree {
    pub(super) fn new(rows: Vec<Row>) -> Self {
        let mut children: BTreeMap<CapabilityId, Vec<CapabilityId>> = BTreeMap::new();
        for row in &rows {
            if let Some(parent) = row.parent {
                children.entry(parent).or_default().push(row.id);
            }
        }
        Self { rows: rows.into_iter().map(|row| (row.id, row)).collect(), children }
    }

    /// Where the tree is to begin: at one capability, at those of a holder, or at all that nothing shown is above.
    pub(super) fn roots(&self, root: Option<CapabilityId>, holder: Option<IdentityId>) -> Vec<CapabilityId> {
        let wanted: BTreeSet<CapabilityId> = match (root, holder) {
            (Some(root), _) => self.rows.keys().copied().filter(|id| *id == root).collect(),
            (None, Some(holder)) => {
                self.rows.values().filter(|row| row.holder == holder).map(|row| row.id).collect()
            }
            (None, None) => self.rows.keys().copied().collect(),
        };
        let mut roots: Vec<CapabilityId> = wanted.iter().copied().collect();
        roots.retain(|id| !self.above(id).any(|above| wanted.contains(&above)));
        roots
    }

    fn parent(&self, id: &CapabilityId) -> Option<CapabilityId> {
        self.rows.get(id).and_then(|row| row.parent)
    }

    fn above(&self, id: &CapabilityId) -> impl Iterator<Item = CapabilityId> {
        std::iter::successors(self.parent(id), |id| self.parent(id))
    }

    /// As deep as chains are, which the service limits.
    pub(super) fn nested(&self, roots: &[CapabilityId]) -> Vec<Nested<'_>> {
        let derived = |id| self.children.get(id).map(Vec::as_slice).unwrap_or_default();
        let rows = roots.iter().filter_map(|id| self.rows.get(id));
        rows.map(|row| Nested { row, derived: self.nested(derived(&row.id)) }).collect()
    }

    pub(super) fn text(&self, roots: &[CapabilityId]) -> String {
        let mut left: Vec<(usize, CapabilityId)> = roots.iter().rev().map(|id| (0, *id)).collect();
        let mut lines = Vec::new();
        while let Some((depth, id)) = left.pop() {
            if let Some(row) = self.rows.get(&id) {
                lines.push(vec![
                    format!("{}{id}", "  ".repeat(depth)),
                    row.resource.clone(),
                    row.rights.clone(),
                    row.holder.to_string(),
                    row.limits.as_ref().map(limits::text).unwrap_or_default(),
                ]);
            }
            let derived = self.children.get(&id).into_iter().flatten().rev();
            left.extend(derived.map(|child| (depth + 1, *child)));
        }
        output::table(&["ID", "RESOURCE", "RIGHTS", "HOLDER", "LIMITS"], &lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u8, parent: Option<u8>, holder: u8) -> Row {
        Row {
            id: CapabilityId([id; 16]),
            resource: "file:/a".to_owned(),
            rights: "r".to_owned(),
            holder: IdentityId([holder; 32]),
            grantor: IdentityId([9; 32]),
            parent: parent.map(|parent| CapabilityId([parent; 16])),
            limits: None,
            generation: 0,
            created_at: 1,
        }
    }

    #[test]
    fn a_tree_begins_where_it_is_asked_to() {
        let tree = Tree::new(vec![
            row(1, None, 1),
            row(2, Some(1), 2),
            row(3, Some(2), 1),
            row(4, Some(1), 2),
            row(5, Some(8), 3),
        ]);
        let roots = |root: Option<u8>, holder: Option<u8>| -> Vec<u8> {
            let root = root.map(|id| CapabilityId([id; 16]));
            tree.roots(root, holder.map(|id| IdentityId([id; 32]))).iter().map(|id| id.0[0]).collect()
        };
        assert_eq!(roots(None, None), [1, 5], "what is above the last one is not shown");
        assert_eq!(roots(Some(2), None), [2]);
        assert_eq!(roots(Some(7), None), [0; 0]);
        assert_eq!(roots(None, Some(1)), [1], "3 stands below 1");
        assert_eq!(roots(None, Some(2)), [2, 4]);
        let all = tree.roots(None, None);
        let json = serde_json::to_value(tree.nested(&all)).unwrap();
        assert_eq!(json[0]["derived"][0]["derived"][0]["id"], row(3, None, 1).id.to_string());
        assert_eq!(json[0]["derived"][1]["id"], row(4, None, 1).id.to_string());
        assert_eq!(json[1]["derived"], serde_json::json!([]));
        let text = tree.text(&all);
        let indents: Vec<usize> =
            text.lines().skip(1).map(|line| line.len() - line.trim_start().len()).collect();
        assert_eq!(indents, [0, 2, 4, 2, 0]);
    }
}
