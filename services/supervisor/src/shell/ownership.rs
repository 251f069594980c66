//! Host user ids of services. Run as root, each service is a user of its own on the host; rootless, all are the owner.
//!
//! The ids are computed from the name, never stored, so that a folder's owner means the same at each start.
//! `status` shows them through the folders; the range is free by the usual allocations (below 2^31, above those of
//! containers and dynamic users).

use std::{io, os::unix::fs::MetadataExt, path::Path};

use base::Hash;

use crate::core::catalogue;

/// First id of the range. Services of the catalogue have it plus their place there.
pub(super) const UID_FIRST: u32 = 1_900_000_000;
/// First id of services of the user.
pub(super) const USER_UID_FIRST: u32 = UID_FIRST + 1_000;
/// Ids for services of the user.
pub(super) const USER_UIDS: u32 = 1_000_000;
/// Id inside every sandbox.
pub(super) const INSIDE_UID: u32 = 1_000;
/// What a user namespace shows for a host id that it does not map.
pub(super) const OVERFLOW_UID: u32 = 65_534;
/// Depth of a service's own folder that is walked; deeper is not of this house's making.
const DEPTH_MAX: usize = 16;

/// The host id of a service; also its group.
#[must_use]
pub(super) fn host_uid(service: &str) -> u32 {
    if catalogue::find(service).is_some() {
        return UID_FIRST.saturating_add(u32::try_from(catalogue::rank(service)).unwrap_or(0));
    }
    let [a, b, c, d, ..] = Hash::of(service.as_bytes()).0;
    USER_UID_FIRST + u32::from_le_bytes([a, b, c, d]) % USER_UIDS
}

/// Gives a file, a folder or a socket to a service.
pub(super) fn give(path: &Path, uid: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid))
}

/// Gives a folder with everything in it, unless it is the service's already. Files of these names stay as they are.
pub(super) fn give_tree(folder: &Path, uid: u32, except: &[&str]) -> io::Result<()> {
    if std::fs::symlink_metadata(folder)?.uid() == uid {
        return Ok(());
    }
    let mut left = vec![(folder.to_owned(), 0)];
    while let Some((path, depth)) = left.pop() {
        if depth < DEPTH_MAX && std::fs::symlink_metadata(&path)?.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                let entry = entry?;
                if !except.iter().any(|name| entry.file_name() == *name) {
                    left.push((entry.path(), depth + 1));
                }
            }
        }
        if path != folder {
            give(&path, uid)?;
        }
    }
    // Last, so that a walk that was cut short is begun again.
    give(folder, uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_apart() {
        assert_eq!(host_uid("axiom"), UID_FIRST + 1);
        assert_eq!(host_uid("update_manager"), UID_FIRST + 12);
        assert_eq!(host_uid("mine"), host_uid("mine"));
        assert_ne!(host_uid("mine"), host_uid("yours"));
        assert!((USER_UID_FIRST..USER_UID_FIRST + USER_UIDS).contains(&host_uid("mine")));
    }

    #[test]
    fn a_tree_is_given_once_and_exceptions_stay() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: giving files away needs root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("keys");
        std::fs::create_dir_all(folder.join("deep")).unwrap();
        for file in ["deep/a", "seal.key"] {
            std::fs::write(folder.join(file), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
        let before = std::fs::metadata("/etc/passwd").unwrap().uid();
        give_tree(&folder, 77, &["seal.key"]).unwrap();
        let uid = |name: &str| std::fs::symlink_metadata(folder.join(name)).unwrap().uid();
        assert_eq!((uid("deep/a"), uid("deep"), uid("link"), uid("seal.key")), (77, 77, 77, 0));
        assert_eq!(std::fs::metadata("/etc/passwd").unwrap().uid(), before);
        std::fs::write(folder.join("new"), "x").unwrap();
        give_tree(&folder, 77, &[]).unwrap();
        assert_eq!(uid("new"), 0, "not walked again");
    }
}
