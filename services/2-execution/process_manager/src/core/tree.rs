//! An image that was imported: what is kept of it, and the sandbox of the process that unpacks one.

use kit::images::{Kind, Tree};
use sandbox::{Descriptor, Executable, Guard, GuardSet, Mount, Plan, Resource, Rlimit, seccomp::Profile};

use super::{Host, PathGrant, Root};
use crate::unpack;

/// Slots of an unpacking: its own image, the job, where the report goes, its standard error, the archive.
pub const TREE_SLOTS: u32 = 5;
/// An unpacking holds one file's piece, tables of names and the window of a decompressor.
const MEMORY_BYTES_MAX: u64 = 768 * 1024 * 1024;

/// Where images lie, one folder for each, below the place of the node's images.
#[must_use]
pub fn trees_folder(images: &str) -> String {
    format!("{images}/trees")
}

/// Shows it to a program: folders copied or read-only, files read-only.
pub(crate) fn show(tree: &Tree, root: &mut Root, host: &Host) {
    let folder = format!("{}/sha256-{}/{}", trees_folder(&host.images), tree.id.to_hex(), unpack::ROOT);
    for entry in &tree.content.top {
        match &entry.kind {
            Kind::Link(target) => root.links.push((entry.name.clone(), target.clone())),
            kind => root.paths.push(PathGrant {
                source: format!("{folder}/{}", entry.name),
                inside: format!("/{}", entry.name),
                writable: false,
                copied: root.copied && *kind == Kind::Folder,
            }),
        }
    }
    root.user = Some((tree.content.uid, tree.content.gid));
    root.home.clone_from(&tree.content.home);
}

/// The sandbox of an unpacking: the folder that it fills and nothing else. What it reads comes through a pipe.
#[must_use]
pub fn unpack_plan(folder: &str) -> Plan {
    let mut plan = Plan::new("image", Executable::Slot(0), Profile::Program);
    plan = plan.with_mounts(vec![Mount::Bind {
        source: folder.to_owned(),
        target: unpack::FOLDER.to_owned(),
        writable: true,
        optional: false,
    }]);
    plan.arguments = ["bailiwick", "process", "unpack"].map(str::to_owned).to_vec();
    plan.required = GuardSet::of(&[Guard::Userns, Guard::Mountns, Guard::NoNewPrivs, Guard::Seccomp]);
    plan.limits.memory_bytes_max = Some(MEMORY_BYTES_MAX);
    let bytes = unpack::UNPACKED_BYTES_MAX;
    plan.rlimits.push(Rlimit { resource: Resource::FileBytes, soft: bytes, hard: bytes });
    plan.descriptors =
        [(1, 3), (2, 1), (3, 2), (4, 0)].map(|(slot, target)| Descriptor { slot, target }).to_vec();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::TreeId;
    use kit::images::{Content, ROOT_ENTRIES_MAX, Top};

    fn tree(names: usize) -> Tree {
        let top = (0..names).map(|n| Top { name: format!("n{n}"), kind: Kind::Folder });
        Tree {
            id: TreeId([7; 32]),
            content: Content { top: top.collect(), uid: 5, home: "/h".to_owned(), ..Content::default() },
        }
    }

    #[test]
    fn an_unpacking_sees_one_folder() {
        let plan = unpack_plan("/srv/images/trees/.unfinished-1");
        assert_eq!(plan.validate(TREE_SLOTS as usize), Ok(()));
        assert_eq!(plan.mounts.len(), 1);
        assert!(plan.namespaces.net && plan.capabilities_kept == 0);
    }

    #[test]
    fn what_an_unpacking_reports_is_checked() {
        assert!(tree(ROOT_ENTRIES_MAX).check().is_ok());
        assert!(tree(ROOT_ENTRIES_MAX + 1).check().is_err());
        for name in ["..", "a/b", "", "proc"] {
            let mut tree = tree(1);
            tree.content.top[0].name = name.to_owned();
            assert!(tree.check().is_err(), "{name:?}");
        }
    }

    #[test]
    fn folders_are_copied_and_files_and_links_stay() {
        let mut tree = tree(1);
        tree.content.top.push(Top { name: "app".to_owned(), kind: Kind::File });
        tree.content.top.push(Top { name: "bin".to_owned(), kind: Kind::Link("usr/bin".to_owned()) });
        let host = Host { images: "/i".to_owned(), hidden: Vec::new(), monitor: Vec::new() };
        for copied in [true, false] {
            let wire = contracts::process_manager::v1::Root {
                tree: vec![7; 32],
                copy_on_write: copied,
                ..Default::default()
            };
            let mut root = Root::parse(wire).unwrap();
            show(&tree, &mut root, &host);
            let seen: Vec<(&str, bool)> =
                root.paths.iter().map(|grant| (grant.inside.as_str(), grant.copied)).collect();
            assert_eq!(seen, [("/n0", copied), ("/app", false)]);
            assert!(root.paths.iter().all(|grant| !grant.writable));
            assert_eq!(root.paths[0].source, format!("/i/trees/sha256-{}/root/n0", "07".repeat(32)));
            assert_eq!(root.links, [("bin".to_owned(), "usr/bin".to_owned())]);
            assert_eq!((root.user, root.home.as_str()), (Some((5, 0)), "/h"));
        }
    }
}
