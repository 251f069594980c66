//! The root of a sandbox: an empty tmpfs into which only the plan's mounts are moved.
//!
//! Sources are cloned as detached trees before anything is covered, so a source below the staging folder is found and
//! a path that only the launcher may walk is walked by the launcher.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::child::{At, Failure};
use super::{Prepared, Step};
use crate::plan::Mount;
use crate::sys;

/// The root holds folders and links only.
const ROOT_BYTES_MAX: &str = "4m";
/// Programs share memory with their own children only; more goes into a tmpfs of the plan.
const SHM_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Where the new root is put for the moment before it becomes the root: the first of these that exists.
const STAGING: &[&str] = &["/tmp", "/run", "/mnt", "/usr", "/proc", "/dev"];
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];
const DEVICE_LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NO_DEVICES: u64 = libc::MOUNT_ATTR_NODEV;
const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// Makes every mount private, then clones what the plan binds, in its order; `None` for what is not a bind.
pub(super) fn open_sources(prepared: &Prepared<'_>) -> Result<Vec<Option<OwnedFd>>, Failure> {
    // Private first: in a shared tree each mount would be made in the host as well.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).at(Step::Propagation)?;
    let open = |(index, mount): (usize, &Mount)| match mount {
        Mount::Bind { source, writable, optional, .. } => match clone_tree(CWD, source, true) {
            Ok(tree) => {
                let attributes = NO_SUID | NO_DEVICES | if *writable { 0 } else { READ_ONLY };
                sys::mount_setattr(tree.as_fd(), true, attributes, 0).at_index(Step::Sources, index)?;
                Ok(Some(tree))
            }
            Err(Errno::NOENT) if *optional => Ok(None),
            Err(error) => Err(error).at_index(Step::Sources, index),
        },
        // Without an own pid namespace there is no other /proc to be had than the host's.
        Mount::Proc if !prepared.effective.namespaces.pid => {
            Ok(Some(clone_tree(CWD, "/proc", true).at_index(Step::Sources, index)?))
        }
        _ => Ok(None),
    };
    prepared.plan.mounts.iter().enumerate().map(open).collect()
}

/// Builds the new root, makes it the root, lets go of the old one and makes it read-only.
pub(super) fn build(prepared: &Prepared<'_>, sources: Vec<Option<OwnedFd>>) -> Result<(), Failure> {
    let root =
        new_tmpfs(&[("size", ROOT_BYTES_MAX), ("mode", "0755")], NO_SUID | NO_DEVICES).at(Step::Root)?;
    stage(&root).at(Step::Root)?;
    for (index, (mount, source)) in prepared.plan.mounts.iter().zip(sources).enumerate() {
        put(prepared, root.as_fd(), mount, source).at_index(Step::Mount, index)?;
    }
    for (index, path) in prepared.plan.masked.iter().enumerate() {
        mask(root.as_fd(), path).at_index(Step::Mask, index)?;
    }
    for (index, path) in prepared.plan.read_only.iter().enumerate() {
        let index = prepared.plan.masked.len() + index;
        make_read_only(root.as_fd(), path).at_index(Step::Mask, index)?;
    }
    pivot(&root).at(Step::Pivot)?;
    sys::mount_setattr(root.as_fd(), false, READ_ONLY | NO_SUID | NO_DEVICES, 0).at(Step::ReadOnlyRoot)
}

fn clone_tree(folder: BorrowedFd<'_>, path: &str, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    rustix::mount::open_tree(folder, path, flags)
}

fn new_filesystem(kind: &str, options: &[(&str, &str)], attributes: u64) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn new_tmpfs(options: &[(&str, &str)], attributes: u64) -> io::Result<OwnedFd> {
    new_filesystem("tmpfs", options, attributes)
}

fn stage(root: &OwnedFd) -> io::Result<()> {
    let mut last = Errno::NOENT;
    for folder in STAGING {
        match rustix::mount::move_mount(root, "", CWD, *folder, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

fn put(
    prepared: &Prepared<'_>,
    root: BorrowedFd<'_>,
    mount: &Mount,
    source: Option<OwnedFd>,
) -> io::Result<()> {
    match (mount, source) {
        (Mount::Bind { target, .. }, Some(tree)) => attach(root, &tree, target),
        // Optional and absent.
        (Mount::Bind { .. }, None) => Ok(()),
        (Mount::Tmpfs { target, size_bytes_max, mode }, _) => {
            let tmpfs = owned_tmpfs(prepared, *size_bytes_max, *mode, NO_SUID | NO_DEVICES)?;
            attach(root, &tmpfs, target)
        }
        (Mount::Proc, Some(tree)) => attach(root, &tree, "/proc"),
        (Mount::Proc, None) => {
            let proc = new_filesystem("proc", &[], NO_SUID | NO_DEVICES | NO_EXEC)?;
            attach(root, &proc, "/proc")
        }
        (Mount::Dev, _) => devices(prepared, root),
        (Mount::Symlink { target, points_to }, _) => {
            let (folder, name) = parent(root, target)?;
            Ok(rustix::fs::symlinkat(points_to.as_str(), folder, name)?)
        }
    }
}

/// A tmpfs that belongs to the process.
fn owned_tmpfs(
    prepared: &Prepared<'_>,
    size_bytes_max: u64,
    mode: u32,
    attributes: u64,
) -> io::Result<OwnedFd> {
    let (size, mode) = (size_bytes_max.to_string(), format!("{mode:o}"));
    let (uid, gid) =
        prepared.effective.take.unwrap_or((prepared.effective.host_uid, prepared.effective.host_gid));
    let (uid, gid) = (uid.to_string(), gid.to_string());
    new_tmpfs(&[("size", &size), ("mode", &mode), ("uid", &uid), ("gid", &gid)], attributes)
}

fn devices(prepared: &Prepared<'_>, root: BorrowedFd<'_>) -> io::Result<()> {
    for name in DEVICES {
        let path = format!("/dev/{name}");
        let tree = match clone_tree(CWD, &path, false) {
            Ok(tree) => tree,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        sys::mount_setattr(tree.as_fd(), false, NO_SUID | NO_EXEC, NO_DEVICES)
            .or_else(|_| sys::mount_setattr(tree.as_fd(), false, NO_SUID | NO_EXEC, 0))?;
        attach(root, &tree, &path)?;
    }
    let shm = owned_tmpfs(prepared, SHM_BYTES_MAX, 0o1777, NO_SUID | NO_DEVICES)?;
    attach(root, &shm, "/dev/shm")?;
    let pts = new_filesystem("devpts", &[("ptmxmode", "0666"), ("mode", "0620")], NO_SUID | NO_EXEC)?;
    attach(root, &pts, "/dev/pts")?;
    for (link, points_to) in DEVICE_LINKS {
        let (folder, name) = parent(root, link)?;
        rustix::fs::symlinkat(*points_to, folder, name)?;
    }
    Ok(())
}

/// Moves a detached mount to a path of the new root, making the mount point where there is none.
fn attach(root: BorrowedFd<'_>, tree: &OwnedFd, target: &str) -> io::Result<()> {
    let is_folder = rustix::fs::fstat(tree)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let point = match open_in(root, target, OFlags::PATH) {
        Ok(point) => point,
        Err(Errno::NOENT) => {
            let (folder, name) = parent(root, target)?;
            if is_folder {
                rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755))?;
            } else {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o644))?;
            }
            open_in(root, target, OFlags::PATH)?
        }
        Err(error) => return Err(error.into()),
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", &point, "", flags)?)
}

/// Resolves with the new root as root: neither `..` nor a link leads out.
fn open_in(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The folder that a path stands in, made if need be, and its last part.
fn parent<'p>(root: BorrowedFd<'_>, path: &'p str) -> io::Result<(OwnedFd, &'p str)> {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let name = parts.pop().ok_or(Errno::INVAL)?;
    let mut folder = open_in(root, "/", OFlags::PATH | OFlags::DIRECTORY)?;
    let mut walked = String::new();
    for part in parts {
        walked.push('/');
        walked.push_str(part);
        folder = match open_in(root, &walked, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(next) => next,
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(&folder, part, Mode::from_raw_mode(0o755))?;
                open_in(root, &walked, OFlags::PATH | OFlags::DIRECTORY)?
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok((folder, name))
}

/// Covers a path with nothing: an empty folder or the null device.
fn mask(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let point = match open_in(root, path, OFlags::PATH) {
        Ok(point) => point,
        Err(Errno::NOENT | Errno::ACCESS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let cover = if rustix::fs::fstat(&point)?.st_mode & libc::S_IFMT == libc::S_IFDIR {
        new_tmpfs(&[("size", "4k"), ("mode", "0555")], READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC)?
    } else {
        clone_tree(CWD, "/dev/null", false)?
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(&cover, "", &point, "", flags)?)
}

/// Puts a read-only view of a path over itself.
fn make_read_only(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let point = match open_in(root, path, OFlags::PATH) {
        Ok(point) => point,
        Err(Errno::NOENT | Errno::ACCESS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let tree = clone_tree(point.as_fd(), "", true)?;
    sys::mount_setattr(tree.as_fd(), true, READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC, 0)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(&tree, "", &point, "", flags)?)
}

/// `pivot_root(".", ".")` stacks the old root on the new one, from where it is detached with all below it.
fn pivot(root: &OwnedFd) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}
