//! Out of the control group that holds its limits.

use std::fs;
use std::io;

use rustix::mount::{MountFlags, UnmountFlags};

use super::{Attempt, Canaries, Failure, held};
use crate::guard::Guard::{Caps, Cgroupns, Landlock, Mountns, Seccomp};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("join_another_group", "moves itself to another control group", &[Mountns, Landlock], join),
    Attempt::new("see_the_groups", "sees the host's control groups", &[Mountns], see),
    Attempt::new("learn_its_group", "learns where it stands among the host's groups", &[Cgroupns], learn),
    Attempt::new("mount_the_groups", "mounts the control groups", &[Seccomp, Caps, Landlock], mount)
        .inside_only(),
];

fn join(canaries: &Canaries) -> Result<(), Failure> {
    // In a child, which ends at once: a group with a process in it cannot be removed.
    let group = canaries.get("group")?;
    super::calls::in_child(|| Ok(fs::write(format!("{group}/cgroup.procs"), "0")?))
}

fn see(_: &Canaries) -> Result<(), Failure> {
    let mut entries = fs::read_dir("/sys/fs/cgroup")?;
    entries.next().map_or_else(|| Err(held("an empty folder")), |_| Ok(()))
}

fn learn(_: &Canaries) -> Result<(), Failure> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let named = text.lines().any(|line| line.rsplit(':').next().is_some_and(|path| path.len() > 1));
    if named { Ok(()) } else { Err(held("it stands at the root of what it sees")) }
}

fn mount(_: &Canaries) -> Result<(), Failure> {
    let folder = format!("/tmp/bailiwick-groups-{}", std::process::id());
    fs::create_dir(&folder)?;
    let mounted =
        rustix::mount::mount("none", &folder, "cgroup2", MountFlags::empty(), None::<&std::ffi::CStr>);
    if mounted.is_ok() {
        rustix::mount::unmount(&folder, UnmountFlags::DETACH)?;
    }
    fs::remove_dir(&folder)?;
    Ok(mounted.map_err(io::Error::from)?)
}
