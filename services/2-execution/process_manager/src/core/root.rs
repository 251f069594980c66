//! A root of a program's own: a folder of the host, or an image that was imported.
//!
//! Each name in its top is shown for itself, so that `/proc`, `/dev`, `/tmp` and `/run` need no place in it and it need
//! not be written to. What a program makes in `/` itself is therefore refused, as with a read-only root.

use base::TreeId;
use contracts::process_manager::v1 as pb;
use kit::images;

use super::{
    PathGrant, ProcessError,
    limits::{self, ROOT_ENTRIES_MAX},
    request::{at_most, fixed},
};

/// Home of a program in a folder that says nothing about users: its own, and writable.
const FOLDER_HOME: &str = "/tmp";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// An imported image; none is a folder, whose entries are among the granted paths.
    pub tree: Option<TreeId>,
    /// By which it is used; rules see it. Empty is any that it has.
    pub name: String,
    pub copied: bool,
    /// In its top.
    pub links: Vec<(String, String)>,
    /// Of the host, for the record.
    pub folder: String,
    /// What an image has in its top; of the node, not of the host.
    pub paths: Vec<PathGrant>,
    /// Ids inside, as an image wants them.
    pub user: Option<(u32, u32)>,
    pub home: String,
}

impl Root {
    pub fn parse(wire: pb::Root) -> Result<Self, ProcessError> {
        let tree = match wire.tree.as_slice() {
            [] => None,
            bytes => Some(TreeId(fixed("root", bytes)?)),
        };
        at_most("root", wire.links.len(), ROOT_ENTRIES_MAX, "links")?;
        at_most("root", wire.name.len(), limits::TREE_NAME_BYTES_MAX, "bytes")?;
        at_most("root", wire.folder.len(), sandbox::PATH_BYTES_MAX, "bytes")?;
        let links = wire.links.into_iter().map(|link| {
            let refused = |text| ProcessError::invalid("root", text);
            images::top_name(&link.name).map_err(refused)?;
            images::points_to(&link.points_to).map_err(refused)?;
            Ok((link.name, link.points_to))
        });
        let links = links.collect::<Result<Vec<_>, ProcessError>>()?;
        if tree.is_some() && (!links.is_empty() || !wire.folder.is_empty()) {
            return Err(ProcessError::invalid("root", "an image brings its own links and is no folder"));
        }
        Ok(Self {
            tree,
            name: wire.name,
            copied: wire.copy_on_write,
            links,
            folder: wire.folder,
            paths: Vec::new(),
            user: None,
            home: FOLDER_HOME.to_owned(),
        })
    }

    /// As `grants` of an entry has it.
    #[must_use]
    pub fn logged(&self) -> String {
        match self.tree {
            Some(tree) => format!("image:{tree}:{}", if self.copied { "cow" } else { "ro" }),
            None => format!("root:{}", self.folder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_brings_at_most_so_many_links_and_none_that_leads_elsewhere() {
        let link = |name: &str, points_to: &str| pb::RootLink {
            name: name.to_owned(),
            points_to: points_to.to_owned(),
        };
        let parse = |links| Root::parse(pb::Root { links, ..Default::default() });
        assert!(parse(vec![link("bin", "usr/bin"); ROOT_ENTRIES_MAX]).is_ok());
        assert!(parse(vec![link("bin", "usr/bin"); ROOT_ENTRIES_MAX + 1]).is_err());
        for (name, target) in [("a/b", "x"), ("..", "x"), ("", "x"), ("proc", "x"), ("a", ""), ("a", "b\0")] {
            assert!(parse(vec![link(name, target)]).is_err(), "{name:?} {target:?}");
        }
        let tree = pb::Root { tree: vec![1; 32], links: vec![link("a", "b")], ..Default::default() };
        assert!(Root::parse(tree).is_err());
        assert!(Root::parse(pb::Root { tree: vec![1; 31], ..Default::default() }).is_err());
    }
}
