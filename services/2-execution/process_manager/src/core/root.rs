//! A root of a program's own: a folder of the host, or an image that was imported.
//!
//! Each name in its top is shown for itself, so that `/proc`, `/dev`, `/tmp` and `/run` need no place in it and it need
//! not be written to. What a program makes in `/` itself is therefore refused, as with a read-only root.

use base::TreeId;
use contracts::process_manager::v1 as pb;

use super::{
    PathGrant, ProcessError,
    limits::{self, ROOT_ENTRIES_MAX},
    normalize,
    request::{at_most, fixed},
};

/// Where programs are looked for, if nothing else is said.
pub(super) const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The sandbox's own: what a root has there is not shown.
pub const NOT_SHOWN: [&str; 5] = ["proc", "dev", "sys", "tmp", "run"];
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
            top_name(&link.name)?;
            points_to(&link.points_to)?;
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

/// A name that can stand in the top of a root.
pub(super) fn top_name(name: &str) -> Result<(), ProcessError> {
    let plain = !name.is_empty() && name.len() <= 255 && name != "." && name != "..";
    if !plain || name.contains(['/', '\0']) || NOT_SHOWN.contains(&name) {
        return Err(ProcessError::invalid("root", format!("{name:?} cannot stand in the top of a root")));
    }
    Ok(())
}

pub(super) fn points_to(target: &str) -> Result<(), ProcessError> {
    at_most("root", target.len(), sandbox::PATH_BYTES_MAX, "bytes")?;
    if target.is_empty() || target.contains('\0') {
        return Err(ProcessError::invalid("root", "a link points to nothing"));
    }
    Ok(())
}

/// Where a program may stand, in the order in which it is looked for.
#[must_use]
pub fn candidates(name: &str, cwd: &str, path: Option<&str>) -> Vec<String> {
    if name.starts_with('/') {
        return vec![normalize(name)];
    }
    if name.contains('/') {
        return vec![normalize(&format!("{cwd}/{name}"))];
    }
    let folders = path.unwrap_or(USUAL_PATH).split(':');
    folders.map(|folder| normalize(&format!("{folder}/{name}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_as_a_shell_does() {
        assert_eq!(candidates("/bin/../bin/a", "/x", None), ["/bin/a"]);
        assert_eq!(candidates("./a", "/x", None), ["/x/a"]);
        assert_eq!(candidates("a", "/x", Some("/b:/c/")), ["/b/a", "/c/a"]);
        assert_eq!(candidates("a", "/x", None).len(), 6);
    }

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
