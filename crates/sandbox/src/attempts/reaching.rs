//! More ways to reach a process: by threads, by handles, by what the kernel asks about it.

use std::io;
use std::os::fd::AsRawFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::calls::{call, in_child};
use super::{Attempt, Canaries, Failure, NEEDS_THE_HOSTS_RIGHT, Way, held};
use crate::guard::Guard::{self, Caps, Landlock, Pidns, Seccomp, Userns};

const LIKE_TRACING: &[Guard] = &[Seccomp, Pidns, Userns, Landlock];
const THE_MONITOR_ITSELF: Way =
    Way::Never("the monitor forbids inspection by itself, and no guard can be switched off for it");

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(
        "write_memory_of_a_process",
        "changes the memory of a process of the user",
        LIKE_TRACING,
        write_memory,
    ),
    Attempt::new("stop_a_process", "stops a process of the user as its tracer", LIKE_TRACING, stop),
    Attempt::new(
        "compare_with_a_process",
        "learns what it shares with a process of the user",
        LIKE_TRACING,
        compare,
    ),
    Attempt::new(
        "push_out_memory",
        "pushes the memory of a process of the user out to disk",
        &[Seccomp, Caps, Pidns, Userns],
        advise,
    )
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new(
        "signal_by_a_handle",
        "may signal a process of the user by its handle",
        &[Pidns, Landlock],
        by_handle,
    ),
    Attempt::new(
        "signal_a_thread",
        "may signal a thread of a process of the user",
        &[Pidns, Landlock],
        thread,
    ),
    Attempt::new("queue_a_signal", "may signal a process of the user, with words", &[Pidns, Landlock], queue),
    Attempt::new("signal_everybody", "may signal every process of the user at once", &[Pidns], everybody),
    Attempt::new(
        "read_the_robust_list",
        "learns where a process of the user keeps its locks",
        &[Pidns, Userns, Landlock],
        robust_list,
    ),
    Attempt::new("read_the_session", "learns the session of a process of the user", &[Pidns], session),
    Attempt::new(
        "trace_its_own_child",
        "rewrites calls of its child behind the filter",
        &[Seccomp],
        own_child,
    ),
    Attempt::new("trace_the_monitor", "attaches to its own monitor", &[Seccomp], |_| {
        // SAFETY: PTRACE_SEIZE takes numbers only.
        unsafe { call(libc::SYS_ptrace, [u64::from(libc::PTRACE_SEIZE), 1, 0, 0, 0]) }?;
        Ok(())
    })
    .root(THE_MONITOR_ITSELF)
    .rootless(THE_MONITOR_ITSELF)
    .inside_only(),
    Attempt::new(
        "take_the_monitors_descriptor",
        "takes a descriptor from its own monitor",
        &[Seccomp],
        |_| {
            let handle = pidfd_open(Pid::INIT, PidfdFlags::empty())?;
            // SAFETY: descriptors and numbers.
            unsafe { call(libc::SYS_pidfd_getfd, [handle.as_raw_fd() as u64, 3, 0, 0, 0]) }?;
            Ok(())
        },
    )
    .root(THE_MONITOR_ITSELF)
    .rootless(THE_MONITOR_ITSELF)
    .inside_only(),
];

fn process(canaries: &Canaries) -> Result<Pid, Failure> {
    Pid::from_raw(canaries.number("process")?).ok_or(Failure::Absent("process"))
}

fn number(canaries: &Canaries) -> Result<u64, Failure> {
    Ok(process(canaries)?.as_raw_nonzero().get() as u64)
}

/// The same bytes again.
fn write_memory(canaries: &Canaries) -> Result<(), Failure> {
    let (secret, address) = (canaries.get("secret")?, canaries.number::<usize>("address")?);
    let mut bytes = secret.as_bytes().to_vec();
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    let pid = process(canaries)?.as_raw_nonzero().get();
    // SAFETY: the local vector covers a buffer that outlives the call; the remote one is the kernel's to check.
    if unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) } < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}

/// It goes on when the attempt ends, which is at once.
fn stop(canaries: &Canaries) -> Result<(), Failure> {
    let pid = number(canaries)?;
    // SAFETY: numbers only.
    unsafe { call(libc::SYS_ptrace, [u64::from(libc::PTRACE_SEIZE), pid, 0, 0, 0]) }?;
    // SAFETY: numbers only.
    unsafe { call(libc::SYS_ptrace, [libc::PTRACE_INTERRUPT as u64, pid, 0, 0, 0]) }?;
    Ok(())
}

fn compare(canaries: &Canaries) -> Result<(), Failure> {
    const OPEN_FILES: u64 = 2;
    let own = u64::from(std::process::id());
    // SAFETY: numbers only.
    unsafe { call(libc::SYS_kcmp, [own, number(canaries)?, OPEN_FILES, 0, 0]) }?;
    Ok(())
}

/// One page that it has read already.
fn advise(canaries: &Canaries) -> Result<(), Failure> {
    const PAGE_BYTES: usize = 4096;
    let address = canaries.number::<usize>("address")? & !(PAGE_BYTES - 1);
    let handle = pidfd_open(process(canaries)?, PidfdFlags::empty())?;
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: PAGE_BYTES };
    let arguments = [handle.as_raw_fd() as u64, &raw const remote as u64, 1, libc::MADV_COLD as u64, 0];
    // SAFETY: the kernel reads one vector; the memory that it names is not this process's.
    unsafe { call(libc::SYS_process_madvise, arguments) }?;
    Ok(())
}

fn by_handle(canaries: &Canaries) -> Result<(), Failure> {
    let handle = pidfd_open(process(canaries)?, PidfdFlags::empty())?;
    // SAFETY: a descriptor and numbers; no signal is sent.
    unsafe { call(libc::SYS_pidfd_send_signal, [handle.as_raw_fd() as u64, 0, 0, 0, 0]) }?;
    Ok(())
}

fn thread(canaries: &Canaries) -> Result<(), Failure> {
    let pid = number(canaries)?;
    // SAFETY: numbers; no signal is sent.
    unsafe { call(libc::SYS_tgkill, [pid, pid, 0, 0, 0]) }?;
    Ok(())
}

/// A signal that every process ignores unless it asks for it.
fn queue(canaries: &Canaries) -> Result<(), Failure> {
    let mut information = [0u32; 32];
    let [signal, _, code, ..] = &mut information;
    (*signal, *code) = (libc::SIGURG as u32, libc::SI_QUEUE as u32);
    let arguments = [number(canaries)?, libc::SIGURG as u64, information.as_ptr() as u64, 0, 0];
    // SAFETY: the kernel reads a structure of 128 bytes.
    unsafe { call(libc::SYS_rt_sigqueueinfo, arguments) }?;
    Ok(())
}

/// All that can be reached but itself and the first; no signal is sent.
fn everybody(_: &Canaries) -> Result<(), Failure> {
    // SAFETY: numbers.
    unsafe { call(libc::SYS_kill, [-1i64 as u64, 0, 0, 0, 0]) }?;
    Ok(())
}

fn robust_list(canaries: &Canaries) -> Result<(), Failure> {
    let (mut head, mut length) = (0u64, 0u64);
    let arguments = [number(canaries)?, &raw mut head as u64, &raw mut length as u64, 0, 0];
    // SAFETY: the kernel writes two numbers, which outlive the call.
    unsafe { call(libc::SYS_get_robust_list, arguments) }?;
    Ok(())
}

/// By number: in a container whose first process has no session of its own the answer is 0, which is one all the same.
fn session(canaries: &Canaries) -> Result<(), Failure> {
    // SAFETY: a number.
    unsafe { call(libc::SYS_getsid, [number(canaries)?, 0, 0, 0, 0]) }?;
    Ok(())
}

fn own_child(_: &Canaries) -> Result<(), Failure> {
    in_child(|| {
        // SAFETY: numbers only; it says that its parent traces it, and ends.
        unsafe { call(libc::SYS_ptrace, [libc::PTRACE_TRACEME as u64, 0, 0, 0, 0]) }
            .map_err(|error| error.into())
            .and_then(|done| if done == 0 { Ok(()) } else { Err(held("not traced")) })
    })
}
