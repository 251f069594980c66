//! System calls that rustix lacks or wraps with more than an attempt wants.

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Failure, held};
use crate::sys;

/// How long a child of an attempt may take.
const CHILD_TIMEOUT: Duration = Duration::from_secs(5);

/// A raw call.
///
/// # Safety
/// Pointers among the arguments are valid for what the call does with them.
pub(super) unsafe fn call(number: libc::c_long, arguments: [u64; 5]) -> io::Result<i64> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the caller vouches for pointers.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A right was there if the call went well, or if the kernel got as far as these mistakes, which were made on purpose.
pub(super) fn reached(result: io::Result<i64>, mistakes: &[i32]) -> Result<(), Failure> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error().is_some_and(|errno| mistakes.contains(&errno)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A path of a canary for the kernel.
pub(super) fn c_path(path: &Path) -> Result<CString, Failure> {
    Ok(CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?)
}

/// A new descriptor that a raw call returned.
///
/// # Safety
/// The kernel made it just now; nothing else owns it.
pub(super) unsafe fn owned(raw: i64) -> OwnedFd {
    // SAFETY: as the caller vouches.
    unsafe { OwnedFd::from_raw_fd(raw as RawFd) }
}

/// How a child of an attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Code(i32),
    Signal(i32),
}

/// Forks; the parent gets the child's number, the child runs `work` and ends with its result: 0 or an errno.
pub(super) fn spawn(work: impl FnOnce() -> Result<(), Failure>) -> io::Result<i32> {
    // SAFETY: an attempt is a program with one thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => sys::exit_now(match work() {
            Ok(()) => 0,
            Err(Failure::Refused(error)) => error.raw_os_error().unwrap_or(libc::EIO),
            Err(_) => libc::EINVAL,
        }),
        pid => Ok(pid),
    }
}

/// Waits for a child. One that takes too long is ended, and was no attempt.
pub(super) fn wait(pid: i32) -> Result<Ended, Failure> {
    let deadline = Instant::now() + CHILD_TIMEOUT;
    loop {
        let mut status = 0;
        // SAFETY: the out parameter outlives the call.
        match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
            -1 => return Err(io::Error::last_os_error().into()),
            0 if Instant::now() > deadline => {
                kill(pid);
                // SAFETY: as above; a killed child ends.
                unsafe { libc::waitpid(pid, &raw mut status, 0) };
                return Err(Failure::Broken("its child took too long".to_owned()));
            }
            0 => std::thread::sleep(Duration::from_millis(1)),
            _ if libc::WIFSIGNALED(status) => return Ok(Ended::Signal(libc::WTERMSIG(status))),
            _ => return Ok(Ended::Code(libc::WEXITSTATUS(status))),
        }
    }
}

/// Ends a child that was spawned here.
pub(super) fn kill(pid: i32) {
    // SAFETY: a number and a signal; the child is not reaped yet, so the number is its own.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// What the end of a child means: limits and the filter kill, anything else is a mistake.
pub(super) fn result(ended: Ended) -> Result<(), Failure> {
    match ended {
        Ended::Code(0) => Ok(()),
        Ended::Code(errno) => Err(io::Error::from_raw_os_error(errno).into()),
        Ended::Signal(libc::SIGKILL | libc::SIGSYS) => Err(held("the kernel ended it")),
        Ended::Signal(signal) => Err(Failure::Broken(format!("its child was ended by signal {signal}"))),
    }
}

/// The same as [`spawn`] and [`wait`]: what a child achieved.
pub(super) fn in_child(work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    result(wait(spawn(work)?)?)
}
