//! Folders of the host that a program is given as its own.

use std::{
    fs::{DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown},
    path::Path,
};

use sandbox::Mount;

use super::{PlanFault, bind};
use crate::manifest::{FolderConfig, ProgramConfig};

/// Private to each program, gone with it.
const RUN: &str = "/run";
/// Its sockets, numbers and locks fit many times over.
const RUN_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A `/run` of its own, under both of its names, with the folders that the program wants there.
pub(super) fn run(program: &ProgramConfig) -> Vec<Mount> {
    let mut mounts =
        vec![Mount::Tmpfs { target: RUN.to_owned(), size_bytes_max: RUN_BYTES_MAX, mode: 0o755 }];
    // Where `/var` itself is the host's, so is the link in it.
    if !program.fs.iter().any(|grant| matches!(grant.path.trim_end_matches('/'), "/var" | "/var/run")) {
        mounts.push(Mount::Symlink { target: "/var/run".to_owned(), points_to: RUN.to_owned() });
    }
    let own = program.folders.iter().filter(|folder| is_private(folder));
    mounts.extend(own.map(|folder| Mount::Folder { target: folder.path.clone(), mode: folder.mode.0 }));
    mounts
}

fn is_private(folder: &FolderConfig) -> bool {
    Path::new(&folder.path).starts_with(RUN)
}

/// Those of the host, made where they are not there.
pub(super) fn of_host(program: &ProgramConfig, owner: Option<(u32, u32)>) -> Result<Vec<Mount>, PlanFault> {
    let of_host = program.folders.iter().filter(|folder| !is_private(folder));
    of_host
        .map(|folder| {
            let path = Path::new(&folder.path);
            make(path, folder.mode.0, owner)
                .map_err(|source| PlanFault::File { path: path.to_owned(), source })?;
            Ok(bind(path, &folder.path, true))
        })
        .collect()
}

/// One that is there already keeps its mode and its owner: somebody may have meant something by them.
fn make(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(found) => {
            let what = if found.is_symlink() { "a link" } else { "no folder" };
            return Err(io::Error::other(format!("it is {what} (owner {})", found.uid())));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    DirBuilder::new().mode(0o700).create(path)?;
    if let Some((uid, gid)) = owner {
        lchown(path, Some(uid), Some(gid))?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_once_and_never_through_a_link() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/own");
        make(&path, 0o2750, None).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o2750);
        make(&path, 0o700, None).unwrap();
        assert_eq!(mode(&path), 0o2750, "what is there stays as it is");
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(make(&link, 0o755, None).is_err());
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(make(&root.path().join("file"), 0o755, None).is_err());
    }
}
