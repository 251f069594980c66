//! Changing what is mounted, by the calls of old and by those of today.

use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::calls::{call, in_child, reached};
use super::{Attempt, Canaries, Failure, NEEDS_THE_HOSTS_RIGHT, held};
use crate::guard::Guard::{self, Caps, Landlock, Seccomp, Userns};

/// Landlock knows mounts, but neither attributes nor copies of them.
const ALL_THREE: &[Guard] = &[Seccomp, Caps, Landlock];

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("copy_a_tree", "copies a tree of mounts, to change the copy", &[Seccomp, Caps], copy)
        .inside_only(),
    Attempt::new("move_a_tree", "puts a copy of a tree over another folder", ALL_THREE, move_tree)
        .inside_only(),
    Attempt::new("make_a_file_system", "makes a file system by the new calls", &[Seccomp, Caps], |_| {
        new("tmpfs")
    })
    .inside_only(),
    Attempt::new(
        "make_a_writable_view",
        "makes what is shown read-only writable",
        &[Seccomp, Caps],
        attribute,
    )
    .inside_only(),
    Attempt::new(
        "remount_as_writable",
        "makes what is shown read-only writable, as of old",
        ALL_THREE,
        |_| {
            in_child(|| {
                let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
                Ok(rustix::mount::mount_remount("/etc", flags, "")?)
            })
        },
    )
    .inside_only(),
    Attempt::new("uncover_a_file", "takes away what covers a file of the kernel", ALL_THREE, |_| {
        Ok(rustix::mount::unmount("/proc/keys", UnmountFlags::DETACH)?)
    })
    .inside_only(),
    Attempt::new("pivot_the_root", "makes another folder the root of all", ALL_THREE, |_| {
        in_child(|| {
            rustix::process::chdir("/tmp")?;
            Ok(rustix::process::pivot_root(".", ".")?)
        })
    })
    .inside_only(),
    Attempt::new(
        "mount_a_second_proc",
        "makes a /proc of its own, in which nothing is covered",
        &[Seccomp, Caps],
        |_| new("proc"),
    )
    .inside_only(),
    Attempt::new("share_its_mounts", "makes its mounts show elsewhere", ALL_THREE, |_| {
        in_child(|| {
            let flags = rustix::mount::MountPropagationFlags::SHARED;
            Ok(rustix::mount::mount_change("/tmp", flags)?)
        })
    })
    .inside_only(),
    Attempt::new("list_the_mounts", "lists mounts by the new call", &[Seccomp], list),
    Attempt::new("look_at_a_mount", "learns what a mount is made of by the new call", &[Seccomp], look),
    Attempt::new(
        "mount_the_kernels_traces",
        "mounts what the kernel traces",
        &[Seccomp, Caps, Userns],
        |_| new("tracefs"),
    )
    .rootless(NEEDS_THE_HOSTS_RIGHT)
    .inside_only(),
    Attempt::new("unshare_the_mounts", "takes a view of files of its own", &[Seccomp, Caps], |_| {
        in_child(|| {
            // SAFETY: a number; the child shares nothing that this would take.
            unsafe { call(libc::SYS_unshare, [libc::CLONE_NEWNS as u64, 0, 0, 0, 0]) }?;
            Ok(())
        })
    })
    .inside_only(),
];

fn copied() -> Result<std::os::fd::OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(rustix::mount::open_tree(CWD, "/tmp", flags)?)
}

fn copy(_: &Canaries) -> Result<(), Failure> {
    copied().map(drop)
}

fn move_tree(_: &Canaries) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(copied()?, "", CWD, "/tmp", flags)?)
}

/// It stands nowhere and ends with its descriptor.
fn new(kind: &str) -> Result<(), Failure> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    if mount.as_raw_fd() < 0 { Err(held("no mount")) } else { Ok(()) }
}

fn attribute(_: &Canaries) -> Result<(), Failure> {
    let folder = rustix::fs::open("/etc", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
    Ok(crate::sys::mount_setattr(std::os::fd::AsFd::as_fd(&folder), false, 0, libc::MOUNT_ATTR_RDONLY)?)
}

/// `listmount` and `statmount` have fixed numbers; an older kernel has neither.
const SYS_LISTMOUNT: i64 = 458;
const SYS_STATMOUNT: i64 = 457;
/// `struct mnt_id_req`, first version: size, nothing, mount, parameter. The root of all that is seen.
const ROOT_OF_ALL: u64 = u64::MAX;

#[repr(C)]
struct Wanted {
    size: u32,
    spare: u32,
    mount: u64,
    parameter: u64,
}

fn list(_: &Canaries) -> Result<(), Failure> {
    let wanted = Wanted { size: 24, spare: 0, mount: ROOT_OF_ALL, parameter: 0 };
    let mut found = [0u64; 8];
    let arguments = [&raw const wanted as u64, found.as_mut_ptr() as u64, found.len() as u64, 0, 0];
    // SAFETY: a structure with its size in it and a buffer with its length.
    reached(unsafe { call(SYS_LISTMOUNT, arguments) }, &[])
}

/// Of no mount: that there is none is only said to who may ask.
fn look(_: &Canaries) -> Result<(), Failure> {
    let wanted = Wanted { size: 24, spare: 0, mount: 1, parameter: 1 };
    let mut found = [0u64; 64];
    let arguments = [&raw const wanted as u64, found.as_mut_ptr() as u64, 512, 0, 0];
    // SAFETY: a structure with its size in it and a buffer with its length.
    let result: io::Result<i64> = unsafe { call(SYS_STATMOUNT, arguments) };
    reached(result, &[libc::ENOENT, libc::EINVAL])
}
