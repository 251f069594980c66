//! Folders of the host that a program is given as its own.

use std::{
    ffi::OsStr,
    io,
    os::fd::OwnedFd,
    path::{Component, Path},
};

use rustix::{
    fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, openat},
    io::Errno,
};
use sandbox::Mount;

use super::{PlanFault, bind, host_file::is_below};
use crate::manifest::{FolderConfig, ProgramConfig};

/// Private to each program, gone with it.
const RUN: &str = "/run";
/// Its sockets, numbers and locks fit many times over.
const RUN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Of folders above one that is made.
const PARENT_MODE: u32 = 0o755;
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A `/run` of its own, under both of its names, with the folders that the program wants there.
pub(super) fn run(program: &ProgramConfig, in_image: bool) -> Vec<Mount> {
    let mut mounts =
        vec![Mount::Tmpfs { target: RUN.to_owned(), size_bytes_max: RUN_BYTES_MAX, mode: 0o755 }];
    // Where `/var` itself is the host's, or an image's, so is the link in it.
    if !in_image
        && !program.fs.iter().any(|grant| matches!(grant.path.trim_end_matches('/'), "/var" | "/var/run"))
    {
        mounts.push(Mount::Symlink { target: "/var/run".to_owned(), points_to: RUN.to_owned() });
    }
    let own = program.folders.iter().filter(|folder| is_private(folder));
    mounts.extend(own.map(|folder| Mount::Folder { target: folder.path.clone(), mode: folder.mode.0 }));
    mounts
}

fn is_private(folder: &FolderConfig) -> bool {
    Path::new(&folder.path).starts_with(RUN)
}

fn of_host(program: &ProgramConfig) -> impl Iterator<Item = &FolderConfig> {
    program.folders.iter().filter(|folder| !is_private(folder))
}

/// Makes those of the host that are not there.
pub(super) fn make(
    program: &ProgramConfig,
    owner: Option<(u32, u32)>,
    hidden: &[String],
) -> Result<(), PlanFault> {
    for folder in of_host(program) {
        let path = Path::new(&folder.path);
        let fault = |source| PlanFault::File { path: path.to_owned(), source };
        // Neither a part of the node's own nor what it stands in.
        if hidden.iter().any(|own| is_below(path, own) || Path::new(own).starts_with(path)) {
            return Err(fault(io::Error::other("it is the node's own and is given to no program")));
        }
        make_one(path, folder.mode.0, owner).map_err(fault)?;
    }
    Ok(())
}

/// What shows them. One below another comes with that one: its path is the program's to change, so root does not follow
/// it again.
pub(super) fn mounts(program: &ProgramConfig) -> Vec<Mount> {
    let written: Vec<&Path> =
        program.fs.iter().filter(|grant| grant.writable).map(|grant| Path::new(&grant.path)).collect();
    let all: Vec<&Path> = of_host(program).map(|folder| Path::new(folder.path.as_str())).collect();
    let stands_in = |path: &Path| {
        written.iter().any(|other| path.starts_with(other))
            || all.iter().any(|other| path != *other && path.starts_with(other))
    };
    let mut shown: Vec<&Path> = all.iter().copied().filter(|path| !stands_in(path)).collect();
    shown.dedup();
    shown.into_iter().map(|path| bind(path, &path.to_string_lossy(), true)).collect()
}

/// Step by step and through no link: parts of the path may be the program's. One that is there already keeps its mode
/// and its owner: somebody may have meant something by them.
fn make_one(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let (Some(parent), Some(last)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let folder = make_way(parent)?;
    match mkdirat(&folder, last, Mode::from_raw_mode(0o700)) {
        // It must be a folder all the same.
        Err(Errno::EXIST) => return enter(&folder, last).map(|_| ()),
        made => made?,
    }
    let made = enter(&folder, last)?;
    if let Some((uid, gid)) = owner {
        fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(fchmod(&made, Mode::from_raw_mode(mode))?)
}

/// The folder at an absolute path, with those above it, made where they are not there; through no link.
pub(in crate::shell) fn make_way(path: &Path) -> io::Result<OwnedFd> {
    walk(path, |folder, name| match mkdirat(folder, name, Mode::from_raw_mode(PARENT_MODE)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    })
}

/// The folder at an absolute path, if it is there; through no link.
pub(in crate::shell) fn find_way(path: &Path) -> io::Result<OwnedFd> {
    walk(path, |_, _| Ok(()))
}

fn walk(path: &Path, before: impl Fn(&OwnedFd, &OsStr) -> io::Result<()>) -> io::Result<OwnedFd> {
    let mut folder = openat(CWD, "/", FOLDER, Mode::empty())?;
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        before(&folder, name)?;
        folder = enter(&folder, name)?;
    }
    Ok(folder)
}

fn enter(folder: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    openat(folder, name, FOLDER, Mode::empty()).map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR => {
            io::Error::other(format!("{} in it is a link or no folder", name.to_string_lossy()))
        }
        error => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(text: &str) -> ProgramConfig {
        toml::from_str(&format!("image = \"/x\"\n{text}")).unwrap()
    }

    #[test]
    fn a_folder_is_made_once_and_never_through_a_link() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/own");
        make_one(&path, 0o2750, None).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o2750);
        make_one(&path, 0o700, None).unwrap();
        assert_eq!(mode(&path), 0o2750, "what is there stays as it is");
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(make_one(&link, 0o755, None).is_err());
        assert!(make_one(&link.join("below"), 0o755, None).is_err(), "nor behind one");
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(make_one(&root.path().join("file"), 0o755, None).is_err());
    }

    #[test]
    fn the_nodes_own_and_what_it_stands_in_are_nobodys() {
        let hidden = ["/var/lib/bailiwick".to_owned()];
        for path in ["/var/lib/bailiwick", "/var/lib/bailiwick/keys"] {
            let asked = program(&format!("folders = [{{ path = \"{path}\" }}]"));
            assert!(matches!(make(&asked, None, &hidden), Err(PlanFault::File { .. })), "{path}");
        }
    }

    #[test]
    fn a_folder_in_another_comes_with_that_one() {
        let asked = program(
            "fs = [\"/var/log:rw\"]\nfolders = [{ path = \"/var/lib/a\" }, { path = \"/var/lib/a/b\" }, { path = \"/var/log/c\" }]",
        );
        assert_eq!(mounts(&asked), [bind(Path::new("/var/lib/a"), "/var/lib/a", true)]);
    }
}
