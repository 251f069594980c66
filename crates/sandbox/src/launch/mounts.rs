//! The root of a sandbox: an empty tmpfs that first becomes the root and is then filled with the plan's mounts.
//!
//! Sources are cloned as detached trees before, so a path that only the launcher may walk is walked by the launcher.
//! After it the host's tree is gone: whatever a path or a link says, it stays inside. Only magic links of `/proc` could
//! lead to descriptors of the launcher, so nothing is ever made through one.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use rustix::process::{Gid, Uid};

use super::child::{At, Failure};
use super::{Prepared, Step, overlay, sealed, user_names};
use crate::plan::Mount;
use crate::{open_within::open_within, sys};

/// The root holds folders and links only.
const ROOT_OPTIONS: &str = "size=4m,mode=0755";
/// Programs share memory with their own children only; more goes into a tmpfs of the plan.
const SHM_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Where the new root is put for the moment before it becomes the root: the first of these that exists.
const STAGING: &[&str] = &["/tmp", "/run", "/mnt", "/usr", "/proc", "/dev"];
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];
/// In `/dev`.
const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// The process opens its own terminals, and hands them to its own group alone.
const TERMINAL_OPTIONS: &str = "ptmxmode=0666,mode=0620";

pub(super) const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub(super) const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub(super) const NO_DEVICES: u64 = libc::MOUNT_ATTR_NODEV;
pub(super) const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// What must be opened while the host's tree is still there, for one mount of a plan.
pub(super) enum Source {
    /// Made on the spot, or optional and absent.
    Nothing,
    Tree(OwnedFd),
    Devices(Vec<(&'static str, OwnedFd)>),
}

/// Makes every mount private, then opens what the plan's mounts need, in their order.
pub(super) fn open_sources(prepared: &Prepared<'_>) -> Result<Vec<Source>, Failure> {
    // Private first: in a shared tree each mount would be made in the host as well.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).at(Step::Propagation)?;
    let open = |(index, mount)| open_source(prepared, mount).at_index(Step::Sources, index);
    prepared.plan.mounts.iter().enumerate().map(open).collect()
}

fn open_source(prepared: &Prepared<'_>, mount: &Mount) -> io::Result<Source> {
    Ok(match mount {
        Mount::Bind { source, writable, optional, .. } => match clone_tree(CWD, source, true) {
            Ok(tree) => {
                let attributes = NO_SUID | NO_DEVICES | if *writable { 0 } else { READ_ONLY };
                sys::mount_setattr(tree.as_fd(), true, attributes, 0)?;
                Source::Tree(tree)
            }
            Err(Errno::NOENT) if *optional => Source::Nothing,
            Err(error) => return Err(error.into()),
        },
        // The kernel gives a new one only to who sees a whole old one, so not any more once the host's tree is gone.
        Mount::Proc if prepared.effective.namespaces.pid => Source::Tree(new_proc()?),
        // Without an own pid namespace there is no other /proc to be had than the host's.
        Mount::Proc => Source::Tree(clone_tree(CWD, "/proc", true)?),
        Mount::Dev => Source::Devices(open_devices()?),
        Mount::Overlay { source, layer, .. } => Source::Tree(overlay::open(source, layer)?),
        Mount::Tmpfs { .. } | Mount::Symlink { .. } | Mount::Folder { .. } | Mount::Sealed { .. } => {
            Source::Nothing
        }
    })
}

fn new_proc() -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain((NO_SUID | NO_DEVICES | NO_EXEC) as u32);
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn open_devices() -> io::Result<Vec<(&'static str, OwnedFd)>> {
    let mut devices = Vec::with_capacity(DEVICES.len());
    for name in DEVICES {
        match clone_tree(CWD, &format!("/dev/{name}"), false) {
            Ok(tree) => {
                sys::mount_setattr(tree.as_fd(), false, NO_SUID | NO_EXEC, NO_DEVICES)
                    .or_else(|_| sys::mount_setattr(tree.as_fd(), false, NO_SUID | NO_EXEC, 0))?;
                devices.push((*name, tree));
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(devices)
}

pub(super) fn clone_tree(folder: BorrowedFd<'_>, path: &str, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    rustix::mount::open_tree(folder, path, flags)
}

/// Makes the new root, lets go of the host's, fills the new one and makes it read-only.
pub(super) fn build(prepared: &Prepared<'_>, sources: Vec<Source>) -> Result<(), Failure> {
    let plan = prepared.plan;
    let mut cover = if plan.masked.is_empty() { None } else { Some(Cover::new().at(Step::Mask)?) };
    stage().at(Step::Root)?;
    pivot().at(Step::Pivot)?;
    for (index, (mount, source)) in plan.mounts.iter().zip(sources).enumerate() {
        put(prepared, mount, source).at_index(Step::Mount, index)?;
    }
    user_names::put(plan).at(Step::UserNames)?;
    for (index, path) in plan.masked.iter().enumerate() {
        cover.as_mut().map_or(Ok(()), |cover| cover.mask(path)).at_index(Step::Mask, index)?;
    }
    for (index, path) in plan.read_only.iter().enumerate() {
        make_read_only(path).at_index(Step::Mask, plan.masked.len() + index)?;
    }
    sys::mount_setattr(CWD, false, READ_ONLY | NO_SUID | NO_DEVICES, 0).at(Step::ReadOnlyRoot)
}

/// Puts an empty tmpfs somewhere and enters it.
fn stage() -> io::Result<()> {
    let mut last = Errno::NOENT;
    for folder in STAGING {
        match new_tmpfs(folder, ROOT_OPTIONS) {
            Ok(()) => return Ok(rustix::process::chdir(*folder)?),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

/// `pivot_root(".", ".")` stacks the old root on the new one, from where it is detached with all below it.
fn pivot() -> io::Result<()> {
    rustix::process::pivot_root(".", ".")?;
    Ok(rustix::mount::unmount(".", UnmountFlags::DETACH)?)
}

fn new_tmpfs(folder: &str, options: &str) -> Result<(), Errno> {
    new_filesystem("tmpfs", folder, MountFlags::NOSUID | MountFlags::NODEV, options)
}

pub(super) fn new_filesystem(
    kind: &str,
    folder: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), Errno> {
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(kind, folder, kind, flags, Some(options.as_c_str()))
}

fn put(prepared: &Prepared<'_>, mount: &Mount, source: Source) -> io::Result<()> {
    match (mount, source) {
        (Mount::Bind { target, .. } | Mount::Overlay { target, .. }, Source::Tree(tree)) => {
            attach(&tree, target)
        }
        (Mount::Proc, Source::Tree(tree)) => attach(&tree, "/proc"),
        (Mount::Dev, Source::Devices(devices)) => make_devices(prepared, devices),
        (Mount::Tmpfs { target, size_bytes_max, mode }, _) => {
            make_folder(target)?;
            Ok(new_tmpfs(target, &owned(prepared, *size_bytes_max, *mode))?)
        }
        (Mount::Symlink { target, points_to }, _) => {
            let (folder, name) = parent(target)?;
            Ok(rustix::fs::symlinkat(points_to.as_str(), folder, name)?)
        }
        (Mount::Folder { target, mode }, _) => own_folder(prepared, target, *mode),
        (Mount::Sealed { target, slot, files }, _) => {
            make_folder(target)?;
            sealed::put(prepared, target, *slot, files)
        }
        // Optional and absent.
        (Mount::Bind { .. } | Mount::Overlay { .. } | Mount::Proc | Mount::Dev, _) => Ok(()),
    }
}

/// A folder that belongs to the process. The umask of the launcher has no say in its mode.
fn own_folder(prepared: &Prepared<'_>, target: &str, mode: u32) -> io::Result<()> {
    make_folder(target)?;
    let folder = open_inside(target, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
    let (uid, gid) = prepared.effective.owner();
    rustix::fs::fchown(&folder, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    // After the owner: a change of it may take the set-group bit away.
    Ok(rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode))?)
}

/// Options of a tmpfs that belongs to the process.
pub(super) fn owned(prepared: &Prepared<'_>, size_bytes_max: u64, mode: u32) -> String {
    let (uid, gid) = prepared.effective.owner();
    format!("size={size_bytes_max},mode={mode:o},uid={uid},gid={gid}")
}

fn make_devices(prepared: &Prepared<'_>, devices: Vec<(&str, OwnedFd)>) -> io::Result<()> {
    make_folder("/dev")?;
    let folder = open_inside("/dev", OFlags::PATH | OFlags::DIRECTORY)?;
    for (name, tree) in devices {
        attach_at(&folder, name, &tree, || format!("/dev/{name}"))?;
    }
    for name in ["shm", "pts"] {
        exists(rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755)))?;
    }
    new_tmpfs("/dev/shm", &owned(prepared, SHM_BYTES_MAX, 0o1777))?;
    let terminals = MountFlags::NOSUID | MountFlags::NOEXEC;
    new_filesystem("devpts", "/dev/pts", terminals, TERMINAL_OPTIONS)?;
    for (link, points_to) in DEVICE_LINKS {
        rustix::fs::symlinkat(*points_to, &folder, *link)?;
    }
    Ok(())
}

/// Moves a detached mount to a path, making the mount point where there is none.
pub(super) fn attach(tree: &OwnedFd, target: &str) -> io::Result<()> {
    let (folder, name) = parent(target)?;
    attach_at(folder, name, tree, || target.to_owned())
}

/// The same in a folder that is open; `target` is the whole path.
fn attach_at(folder: impl AsFd, name: &str, tree: &OwnedFd, target: impl Fn() -> String) -> io::Result<()> {
    let is_folder = rustix::fs::fstat(tree)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let made = if is_folder {
        rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755))
    } else {
        rustix::fs::mknodat(&folder, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
    };
    match made {
        // What was just made is no link, so it can be named.
        Ok(()) => move_mount(tree, folder, name)?,
        Err(Errno::EXIST) => match open_inside(&target(), OFlags::PATH) {
            Ok(point) => move_mount(tree, point, "")?,
            // A link that leads nowhere yet, as `/etc/resolv.conf` leads into `/run`: what it names is made. The kernel has
            // followed it to its end, so there is one.
            Err(Errno::NOENT) => attach(tree, &linked(&folder, name, &target())?)?,
            Err(error) => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Where a link leads that stands at `path`, as a path from the root.
fn linked(folder: impl AsFd, name: &str, path: &str) -> io::Result<String> {
    let to = rustix::fs::readlinkat(folder, name, Vec::new())?;
    let to = to.to_str().map_err(|_| Errno::INVAL)?;
    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
    Ok(if to.starts_with('/') { to.to_owned() } else { format!("{above}/{to}") })
}

/// Moves a detached mount on top of a path, or of what is open if the path is empty.
pub(super) fn move_mount(tree: &OwnedFd, folder: impl AsFd, path: &str) -> Result<(), Errno> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    rustix::mount::move_mount(tree, "", folder, path, flags)
}

/// Opens a path, not through a magic link. The working folder is the root.
pub(super) fn open_inside(path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open_within(CWD, path, flags, resolve)
}

/// A folder of the new root.
enum Folder {
    Root,
    Below(OwnedFd),
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Folder::Root => CWD,
            Folder::Below(folder) => folder.as_fd(),
        }
    }
}

fn exists(made: Result<(), Errno>) -> Result<(), Errno> {
    match made {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

fn make_folder(path: &str) -> io::Result<()> {
    let (folder, name) = parent(path)?;
    Ok(exists(rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o755)))?)
}

/// The folder that a path stands in, made if need be, and its last part.
fn parent(path: &str) -> io::Result<(Folder, &str)> {
    const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let name = parts.pop().ok_or(Errno::INVAL)?;
    if parts.is_empty() {
        return Ok((Folder::Root, name));
    }
    match open_inside(&parts.join("/"), FOLDER) {
        Ok(folder) => return Ok((Folder::Below(folder), name)),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let mut folder = Folder::Root;
    let mut walked = String::new();
    for part in parts {
        walked.push('/');
        walked.push_str(part);
        exists(rustix::fs::mkdirat(&folder, part, Mode::from_raw_mode(0o755)))?;
        folder = Folder::Below(open_inside(&walked, FOLDER)?);
    }
    Ok((folder, name))
}

/// The null device, with which files are covered.
struct Cover {
    null: OwnedFd,
    /// It stands somewhere already, so the next one is a copy of it.
    used: bool,
}

impl Cover {
    /// To be called while the host's tree is there.
    fn new() -> io::Result<Cover> {
        Ok(Cover { null: clone_tree(CWD, "/dev/null", false)?, used: false })
    }

    /// Covers a path with nothing: an empty folder or the null device. Links are followed, as who opens it does.
    fn mask(&mut self, path: &str) -> io::Result<()> {
        let kind = match rustix::fs::stat(path) {
            Ok(stat) => stat.st_mode & libc::S_IFMT,
            Err(Errno::NOENT | Errno::ACCESS) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if kind == libc::S_IFDIR {
            let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            return Ok(new_filesystem("tmpfs", path, flags, "size=4k,mode=0555")?);
        }
        if self.used {
            self.null = clone_tree(self.null.as_fd(), "", false)?;
        }
        self.used = true;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        Ok(rustix::mount::move_mount(&self.null, "", CWD, path, flags)?)
    }
}

/// Puts a read-only view of a path over itself.
fn make_read_only(path: &str) -> io::Result<()> {
    let point = match open_inside(path, OFlags::PATH) {
        Ok(point) => point,
        Err(Errno::NOENT | Errno::ACCESS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let tree = clone_tree(point.as_fd(), "", true)?;
    sys::mount_setattr(tree.as_fd(), true, READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC, 0)?;
    Ok(move_mount(&tree, &point, "")?)
}
