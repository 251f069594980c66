//! Out of the control group that holds its limits.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use rustix::mount::{MountFlags, UnmountFlags};

use super::calls::call;
use super::{Attempt, BELONGS_TO_ROOT, Canaries, Failure, held};
use crate::guard::Guard::{Caps, Cgroupns, Landlock, Mountns, Seccomp};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("join_another_group", "moves itself to another control group", &[Mountns, Landlock], join),
    Attempt::new("see_the_groups", "sees the host's control groups", &[Mountns], see),
    Attempt::new("learn_its_group", "learns where it stands among the host's groups", &[Cgroupns], learn),
    Attempt::new("mount_the_groups", "mounts the control groups", &[Seccomp, Caps, Landlock], mount)
        .inside_only(),
    Attempt::new(
        "mount_the_old_groups",
        "mounts the control groups of old, whose release starts programs of the host",
        &[Seccomp, Caps, Landlock],
        |_| mount_kind("cgroup", Some(c"pids")),
    )
    .inside_only(),
    Attempt::new(
        "name_a_release_agent",
        "opens the setting that names a program for the host to start",
        &[Mountns, Landlock],
        release_agent,
    )
    .rootless(BELONGS_TO_ROOT),
    Attempt::new("make_a_group", "makes a control group of its own", &[Mountns, Landlock], make_a_group),
    Attempt::new("raise_a_limit", "takes the limit off a control group", &[Mountns, Landlock], raise),
    Attempt::new("give_a_group_away", "makes everybody owner of a control group", &[Mountns], give_away),
    Attempt::new(
        "ask_for_its_release",
        "has the host told when a group is empty",
        &[Mountns, Landlock],
        |canaries| Ok(fs::write(existing(canaries, "notify_on_release")?, "0")?),
    ),
    Attempt::new(
        "join_by_a_thread",
        "moves one of its threads to another group",
        &[Mountns, Landlock],
        |canaries| {
            let tasks = existing(canaries, "tasks")?;
            super::calls::in_child(|| Ok(fs::write(tasks, "0")?))
        },
    ),
    Attempt::new(
        "freeze_a_group",
        "freezes the processes of a control group",
        &[Mountns, Landlock],
        |canaries| Ok(fs::write(format!("{}/cgroup.freeze", canaries.get("unified_group")?), "0")?),
    ),
    Attempt::new("kill_a_group", "ends the processes of a control group", &[Mountns, Landlock], |canaries| {
        Ok(fs::write(format!("{}/cgroup.kill", canaries.get("unified_group")?), "1")?)
    }),
    Attempt::new(
        "start_in_a_group",
        "starts a child in another control group",
        &[Seccomp, Mountns],
        start_in,
    ),
    Attempt::new("unshare_the_groups", "takes a view of groups of its own", &[Seccomp, Caps], |_| {
        super::calls::in_child(|| {
            // SAFETY: a number; the child shares nothing that this would take.
            unsafe { call(libc::SYS_unshare, [libc::CLONE_NEWCGROUP as u64, 0, 0, 0, 0]) }?;
            Ok(())
        })
    })
    .inside_only(),
];

/// A file of the canary's group; which ones there are depends on the hierarchy.
fn existing(canaries: &Canaries, file: &'static str) -> Result<String, Failure> {
    let group = canaries.get("group")?;
    let path = format!("{group}/{file}");
    // In a sandbox the group is not to be seen, which is no reason to call it absent.
    if fs::exists(group)? && !fs::exists(&path)? { Err(Failure::Absent(file)) } else { Ok(path) }
}

/// Opened and closed; nothing is written.
fn release_agent(_: &Canaries) -> Result<(), Failure> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for entry in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        match fs::OpenOptions::new().write(true).open(entry.path().join("release_agent")) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

fn make_a_group(canaries: &Canaries) -> Result<(), Failure> {
    let group = format!("{}/below", canaries.get("group")?);
    fs::create_dir(&group)?;
    Ok(fs::remove_dir(group)?)
}

fn raise(canaries: &Canaries) -> Result<(), Failure> {
    Ok(fs::write(existing(canaries, "pids.max")?, "max")?)
}

/// To who owns it already.
fn give_away(canaries: &Canaries) -> Result<(), Failure> {
    let owner = rustix::process::getuid().as_raw();
    Ok(std::os::unix::fs::chown(existing(canaries, "cgroup.procs")?, Some(owner), None)?)
}

/// `struct clone_args` up to the group's descriptor, which is its last word.
fn start_in(canaries: &Canaries) -> Result<(), Failure> {
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let group = fs::File::open(canaries.get("unified_group")?)?;
    super::calls::in_child(|| {
        let mut arguments = [0u64; 11];
        let [flags, _, _, _, signal, .., last] = &mut arguments;
        (*flags, *signal, *last) = (INTO_CGROUP, libc::SIGCHLD as u64, group.as_raw_fd() as u64);
        // SAFETY: without CLONE_VM and a stack this is a fork; the child ends at once.
        match unsafe { call(libc::SYS_clone3, [arguments.as_ptr() as u64, 88, 0, 0, 0]) }? {
            0 => crate::sys::exit_now(0),
            child => {
                // It has to be gone before its group is removed.
                super::calls::wait(child as i32)?;
                Ok(())
            }
        }
    })
}

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
    mount_kind("cgroup2", None)
}

fn mount_kind(kind: &str, options: Option<&std::ffi::CStr>) -> Result<(), Failure> {
    let folder = format!("/tmp/bailiwick-groups-{}", std::process::id());
    fs::create_dir(&folder)?;
    let mounted = rustix::mount::mount("none", &folder, kind, MountFlags::empty(), options);
    if mounted.is_ok() {
        rustix::mount::unmount(&folder, UnmountFlags::DETACH)?;
    }
    fs::remove_dir(&folder)?;
    Ok(mounted.map_err(io::Error::from)?)
}
