//! A folder of the host under a layer that takes every change (overlayfs).
//!
//! The process that mounts it owns the layer: made here, after its ids were mapped, so that what the kernel writes
//! there for the program is the program's own. Works in a user namespace, where the layer's marks are attributes
//! `user.overlay.*` instead of `trusted.overlay.*`; they are the same everywhere, so that one reader suffices.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, fchmod, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::plan::{OVERLAY_UPPER, OVERLAY_WORK};

/// What to look at when the kernel says no, which it does with `EINVAL` for most reasons.
pub(super) const HINT: &str = "needs overlayfs in user namespaces (Linux 5.11), a source without mounts below it, and \
                               a file system below the node's state with attributes `user.*`";

/// Of permissions, those that a folder's view takes from its layer.
const PERMISSIONS: u32 = 0o7777;

/// Makes the layer and mounts, detached.
pub(super) fn open(source: &str, layer: &str) -> io::Result<OwnedFd> {
    const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    let lower = openat(CWD, source, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    made(mkdirat(CWD, layer, Mode::RWXU))?;
    let layer = openat(CWD, layer, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
    let part = |name: &str| {
        made(mkdirat(&layer, name, Mode::RWXU))?;
        openat(&layer, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())
    };
    let (upper, work) = (part(OVERLAY_UPPER)?, part(OVERLAY_WORK)?);
    // The upper folder is what the merged one looks like from outside.
    fchmod(&upper, Mode::from_raw_mode(fstat(&lower)?.st_mode & PERMISSIONS))?;
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (option, folder) in [("lowerdir", &lower), ("upperdir", &upper), ("workdir", &work)] {
        // By descriptor: a path can contain the `:` and `,` that separate options.
        let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
        rustix::mount::fsconfig_set_string(context.as_fd(), option, path)?;
    }
    rustix::mount::fsconfig_set_flag(context.as_fd(), "userxattr")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn made(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}
