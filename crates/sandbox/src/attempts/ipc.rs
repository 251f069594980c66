//! What one namespace of processes' messages hides from another, and entering namespaces of others.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::calls::{call, in_child, owned};
use super::{Attempt, Canaries, Failure, NEEDS_THE_HOSTS_RIGHT, held};
use crate::guard::Guard::{Caps, Ipcns, Landlock, Pidns, Seccomp, Userns};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("move_a_semaphore", "changes a System V semaphore of the user", &[Ipcns], semaphore),
    Attempt::new(
        "open_a_message_queue",
        "opens a POSIX queue of the user",
        &[Ipcns, Landlock],
        message_queue,
    ),
    Attempt::new(
        "list_shared_memory",
        "finds a System V segment of the user in /proc",
        &[Ipcns],
        |canaries| listed("/proc/sysvipc/shm", canaries.get("shared_memory")?),
    ),
    Attempt::new("list_queues", "finds a System V queue of the user in /proc", &[Ipcns], |canaries| {
        listed("/proc/sysvipc/msg", canaries.get("queue")?)
    }),
    Attempt::new(
        "enter_by_a_file",
        "enters the network of a process of the user",
        &[Seccomp, Caps, Pidns, Userns, Landlock],
        by_file,
    )
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new(
        "enter_by_a_handle",
        "enters the names of a process of the user by its handle",
        &[Seccomp, Caps, Pidns, Userns, Landlock],
        by_handle,
    )
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new(
        "clone_by_the_new_call",
        "starts a child in a user namespace of its own, by the call whose flags lie in memory",
        &[Seccomp],
        clone3,
    ),
    Attempt::new("unshare_the_time", "takes a clock of its own", &[Seccomp, Caps], |_| {
        unshare(libc::CLONE_NEWTIME)
    })
    .inside_only(),
    Attempt::new("unshare_the_network", "takes a network of its own", &[Seccomp, Caps], |_| {
        unshare(libc::CLONE_NEWNET)
    })
    .inside_only(),
    Attempt::new("rename_the_host", "gives its host another name", &[Seccomp, Caps], |_| {
        Ok(rustix::system::sethostname(b"escaped")?)
    })
    .inside_only(),
];

fn unshare(flag: i32) -> Result<(), Failure> {
    in_child(|| {
        // SAFETY: a number; the child shares nothing that this would take.
        unsafe { call(libc::SYS_unshare, [flag as u64, 0, 0, 0, 0]) }?;
        Ok(())
    })
}

fn semaphore(canaries: &Canaries) -> Result<(), Failure> {
    let mut up = libc::sembuf { sem_num: 0, sem_op: 1, sem_flg: libc::IPC_NOWAIT as i16 };
    let arguments = [canaries.number::<u32>("semaphore")?.into(), &raw mut up as u64, 1, 0, 0];
    // SAFETY: one structure, which outlives the call.
    unsafe { call(libc::SYS_semop, arguments) }?;
    Ok(())
}

fn message_queue(canaries: &Canaries) -> Result<(), Failure> {
    let name = CString::new(canaries.get("message_queue")?).map_err(io::Error::other)?;
    // SAFETY: a C string; the kernel takes the name without its first stroke, as the C library gives it.
    let queue = unsafe { libc::mq_open(name.as_ptr(), libc::O_RDWR) };
    if queue < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: it was just made.
    drop(unsafe { owned(queue.into()) });
    Ok(())
}

/// The second word of a line is the object's number.
fn listed(path: &str, id: &str) -> Result<(), Failure> {
    let text = fs::read_to_string(path)?;
    let found = text.lines().any(|line| line.split_ascii_whitespace().nth(1) == Some(id));
    if found { Ok(()) } else { Err(held("no such object")) }
}

fn set_namespace(fd: &impl AsRawFd, kind: i32) -> Result<(), Failure> {
    // SAFETY: a descriptor and a number; this process has one thread.
    unsafe { call(libc::SYS_setns, [fd.as_raw_fd() as u64, kind as u64, 0, 0, 0]) }?;
    Ok(())
}

fn by_file(canaries: &Canaries) -> Result<(), Failure> {
    let file = fs::File::open(format!("/proc/{}/ns/net", canaries.get("process")?))?;
    set_namespace(&file, libc::CLONE_NEWNET)
}

fn by_handle(canaries: &Canaries) -> Result<(), Failure> {
    let pid = Pid::from_raw(canaries.number("process")?).ok_or(Failure::Absent("process"))?;
    set_namespace(&pidfd_open(pid, PidfdFlags::empty())?, libc::CLONE_NEWUTS)
}

/// `struct clone_args`, its first version: flags first, the signal at its end fifth.
fn clone3(_: &Canaries) -> Result<(), Failure> {
    in_child(|| {
        let mut arguments = [0u64; 8];
        let [flags, _, _, _, signal, ..] = &mut arguments;
        (*flags, *signal) = (libc::CLONE_NEWUSER as u64, libc::SIGCHLD as u64);
        // SAFETY: without CLONE_VM and a stack this is a fork; the child ends at once.
        match unsafe { call(libc::SYS_clone3, [arguments.as_ptr() as u64, 64, 0, 0, 0]) }? {
            0 => crate::sys::exit_now(0),
            _ => Ok(()),
        }
    })
}
