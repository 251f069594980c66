//! Reaching into other processes of the user.

use std::io;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open, test_kill_process};

use super::calls::call;
use super::{Attempt, Canaries, Failure, same};
use crate::guard::Guard::{self, Landlock, Pidns, Seccomp, Userns};

const ALL_FOUR: &[Guard] = &[Seccomp, Pidns, Userns, Landlock];

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("trace_a_process", "attaches to a process of the user", ALL_FOUR, trace),
    Attempt::new(
        "read_memory_of_a_process",
        "reads the memory of a process of the user",
        ALL_FOUR,
        read_memory,
    ),
    Attempt::new(
        "take_a_descriptor",
        "takes a descriptor from a process of the user",
        ALL_FOUR,
        take_a_descriptor,
    ),
    Attempt::new("hold_a_process", "gets a handle of a process of the user", &[Pidns], hold),
    Attempt::new("signal_a_process", "may signal a process of the user", &[Pidns, Landlock], signal),
    Attempt::new("signal_the_monitor", "may signal its own monitor", &[Landlock], signal_the_monitor)
        .inside_only(),
];

fn process(canaries: &Canaries) -> Result<Pid, Failure> {
    Pid::from_raw(canaries.number("process")?).ok_or(Failure::Absent("process"))
}

/// Attached, not stopped; it is let go when the attempt ends.
fn trace(canaries: &Canaries) -> Result<(), Failure> {
    let pid = process(canaries)?.as_raw_nonzero().get() as u64;
    // SAFETY: PTRACE_SEIZE takes numbers only.
    unsafe { call(libc::SYS_ptrace, [u64::from(libc::PTRACE_SEIZE), pid, 0, 0, 0]) }?;
    Ok(())
}

fn read_memory(canaries: &Canaries) -> Result<(), Failure> {
    let (secret, address) = (canaries.get("secret")?, canaries.number::<usize>("address")?);
    let mut found = vec![0u8; secret.len()];
    let local = libc::iovec { iov_base: found.as_mut_ptr().cast(), iov_len: found.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: found.len() };
    let pid = process(canaries)?.as_raw_nonzero().get();
    // SAFETY: the local vector covers a buffer that outlives the call; the remote one is the kernel's to check.
    if unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) } < 0 {
        return Err(io::Error::last_os_error().into());
    }
    same(&found, secret)
}

fn take_a_descriptor(canaries: &Canaries) -> Result<(), Failure> {
    let handle = pidfd_open(process(canaries)?, PidfdFlags::empty())?;
    pidfd_getfd(&handle, 0, PidfdGetfdFlags::empty())?;
    Ok(())
}

fn hold(canaries: &Canaries) -> Result<(), Failure> {
    pidfd_open(process(canaries)?, PidfdFlags::empty())?;
    Ok(())
}

fn signal(canaries: &Canaries) -> Result<(), Failure> {
    Ok(test_kill_process(process(canaries)?)?)
}

fn signal_the_monitor(_: &Canaries) -> Result<(), Failure> {
    Ok(test_kill_process(Pid::INIT)?)
}
