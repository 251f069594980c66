//! Rights that the program was not given.

use std::fs;
use std::io;
use std::process::Command;

use rustix::fs::XattrFlags;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::Uid;

use super::canary::OTHER_UID;
use super::{Attempt, Canaries, Failure, Way, calls, held};
use crate::guard::Guard::{Caps, Landlock, Mountns, NoNewPrivs, Seccomp, Userns};
use crate::sys;

const SYS_ADMIN: u64 = 1 << 21;

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(
        "run_a_set_uid_file",
        "becomes another user by a set-uid file",
        &[NoNewPrivs, Userns, Mountns],
        set_uid_file,
    )
    .rootless(Way::Never(
        "a user cannot make a set-uid file of anybody else, so there is none that could be a canary",
    )),
    Attempt::new("become_another_user", "changes its user id", &[Caps, Userns], become_another).rootless(
        Way::Never("a rootless node maps one id, and no capability reaches an id that is not mapped"),
    ),
    Attempt::new("take_a_capability", "raises CAP_SYS_ADMIN", &[Caps], take_a_capability),
    Attempt::new(
        "give_a_file_capabilities",
        "gives a file of its own a capability",
        &[Caps],
        file_capability,
    )
    .inside_only(),
    Attempt::new("mount_a_file_system", "mounts a file system", &[Seccomp, Caps, Landlock], mount)
        .inside_only(),
    Attempt::new("change_the_root", "makes another folder its root", &[Seccomp, Caps], change_the_root),
];

fn set_uid_file(canaries: &Canaries) -> Result<(), Failure> {
    let output = Command::new(canaries.get("set_uid_file")?).arg("-u").output()?;
    let uid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if uid == OTHER_UID.to_string() { Ok(()) } else { Err(held("the set-uid bit is ignored")) }
}

fn become_another(_: &Canaries) -> Result<(), Failure> {
    let uid = Uid::from_raw(OTHER_UID);
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

fn take_a_capability(_: &Canaries) -> Result<(), Failure> {
    Ok(sys::set_capabilities(SYS_ADMIN, 0)?)
}

/// `struct vfs_cap_data`, version 2: effective, CAP_NET_RAW permitted.
const NET_RAW_OF_A_FILE: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn file_capability(_: &Canaries) -> Result<(), Failure> {
    let path = format!("/tmp/bailiwick-file-{}", std::process::id());
    fs::write(&path, "x")?;
    let set = rustix::fs::setxattr(&path, "security.capability", &NET_RAW_OF_A_FILE, XattrFlags::empty());
    fs::remove_file(&path)?;
    Ok(set.map_err(io::Error::from)?)
}

fn mount(_: &Canaries) -> Result<(), Failure> {
    let folder = format!("/tmp/bailiwick-mount-{}", std::process::id());
    fs::create_dir(&folder)?;
    let mounted =
        rustix::mount::mount("none", &folder, "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>);
    if mounted.is_ok() {
        rustix::mount::unmount(&folder, UnmountFlags::DETACH)?;
    }
    fs::remove_dir(&folder)?;
    Ok(mounted.map_err(io::Error::from)?)
}

/// In a child: the rest of the attempt keeps its root.
fn change_the_root(_: &Canaries) -> Result<(), Failure> {
    calls::in_child(|| Ok(rustix::process::chroot("/tmp")?))
}
