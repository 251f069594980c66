//! What this kernel and these privileges give. Detected once; a test hands in a smaller one.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::sys::{self, Forked};

/// Capabilities without which the launcher counts as unprivileged: SETUID, SETGID, SETPCAP, SYS_ADMIN.
const PRIVILEGES: u64 = 1 << 7 | 1 << 6 | 1 << 8 | 1 << 21;
const CAP_SYS_RESOURCE: u64 = 1 << 24;
const CAP_SYS_NICE: u64 = 1 << 23;

/// Version of the hierarchy that has a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hierarchy {
    V1,
    V2,
}

/// Where one controller's groups can be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    pub hierarchy: Hierarchy,
    /// The caller's own group; children are made below it.
    pub own: PathBuf,
}

/// Everything that the launcher asks of the house. Nothing else is looked up later, so that a [`Features`] with less
/// in it plays an older kernel or a smaller right through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    pub kernel: String,
    /// May change ids and mount in the initial namespaces.
    pub privileged: bool,
    /// May raise hard limits and lower `oom_score_adj`.
    pub resources: bool,
    /// May raise its priority.
    pub nice: bool,
    /// An unprivileged user namespace can be made and is good for mounting.
    pub user_namespaces: bool,
    /// 0: none.
    pub landlock_abi: u32,
    pub seccomp_filter: bool,
    pub seccomp_notify: bool,
    /// It was tried, and no devices for a program's datagrams can be made in a network of its own (`veth`).
    #[serde(default)]
    pub lacks_datagrams: bool,
    pub memory: Option<Controller>,
    pub pids: Option<Controller>,
    pub cpu: Option<Controller>,
    /// `io` of v2, `blkio` of v1.
    #[serde(default)]
    pub io: Option<Controller>,
    /// For stopping a v1 tree at once.
    pub freezer: Option<Controller>,
    /// A v2 group can be made: `cgroup.kill`, `cgroup.freeze`, birth inside the group.
    pub unified: Option<PathBuf>,
}

impl Features {
    /// Asks the kernel. Makes and ends one child; leaves nothing behind.
    #[must_use]
    pub fn detect() -> Features {
        let groups = cgroup::detect();
        Features {
            user_namespaces: user_namespace_works().unwrap_or(false),
            lacks_datagrams: !datagrams_work().unwrap_or(true),
            memory: groups.memory,
            pids: groups.pids,
            cpu: groups.cpu,
            io: groups.io,
            freezer: groups.freezer,
            unified: groups.unified,
            ..Features::for_inner()
        }
    }

    /// What [`crate::inner`] asks for: neither namespaces nor groups, since those exist already. Starts nothing.
    #[must_use]
    pub fn for_inner() -> Features {
        let capabilities = sys::effective_capabilities().unwrap_or(0);
        let initial = in_initial_user_namespace();
        Features {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            privileged: capabilities & PRIVILEGES == PRIVILEGES,
            resources: initial && capabilities & CAP_SYS_RESOURCE != 0,
            nice: initial && capabilities & CAP_SYS_NICE != 0,
            landlock_abi: sys::landlock_abi(),
            seccomp_filter: sys::filter_action_known(libc::SECCOMP_RET_KILL_PROCESS),
            seccomp_notify: sys::filter_action_known(libc::SECCOMP_RET_USER_NOTIF),
            ..Features::default()
        }
    }
}

/// Hard limits and priorities are raised by rights in the initial user namespace only, which maps every id to itself.
fn in_initial_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Only to make the devices tells: their module is loaded when it is asked for. Unknown to whoever has threads.
fn datagrams_work() -> io::Result<bool> {
    if !sys::has_one_thread() || fs::metadata("/proc/self/ns/user").is_err() {
        return Ok(true);
    }
    // SAFETY: there is one thread, so the child may do what it likes.
    match unsafe { sys::fork((libc::CLONE_NEWUSER | libc::CLONE_NEWNET) as u64, None) } {
        Ok(Forked::Child) => sys::exit_now(i32::from(crate::datagram_link::make_devices().is_err())),
        Ok(Forked::Parent { pid, .. }) => Ok(sys::wait_for(pid)? == 0),
        // Then it is user namespaces that are missing.
        Err(error) => Err(error),
    }
}

/// Some systems let a user namespace be made and give it no rights: only a mount inside of it tells.
fn user_namespace_works() -> io::Result<bool> {
    if fs::metadata("/proc/self/ns/user").is_err() {
        return Ok(false);
    }
    let flags = (libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as u64;
    // SAFETY: the child calls mount and _exit only, both async-signal-safe.
    match unsafe { sys::fork(flags, None) } {
        Ok(Forked::Child) => {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            // SAFETY: null source, type and data are allowed when only propagation changes.
            let result = unsafe {
                libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null())
            };
            sys::exit_now(i32::from(result != 0))
        }
        Ok(Forked::Parent { pid, .. }) => Ok(sys::wait_for(pid)? == 0),
        Err(_) => Ok(false),
    }
}
