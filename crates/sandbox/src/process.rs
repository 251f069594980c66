//! What the parent of processes needs: reaping, signals as a descriptor, orphans, and not being looked at.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use minicbor::{Decode, Encode};
use rustix::process::{DumpableBehavior, Pid, set_child_subreaper, set_dumpable_behavior};
use serde::{Deserialize, Serialize};

use crate::sys;

pub use rustix::process::{Signal, pidfd_send_signal};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    #[n(0)]
    Code(#[n(0)] i32),
    #[n(1)]
    Signal(#[n(0)] i32),
}

impl ExitStatus {
    /// From the kernel's wait status.
    #[must_use]
    pub fn of_wait(status: i32) -> ExitStatus {
        if libc::WIFSIGNALED(status) {
            ExitStatus::Signal(libc::WTERMSIG(status))
        } else {
            ExitStatus::Code(libc::WEXITSTATUS(status))
        }
    }
}

/// What a process and its reaped children used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Usage {
    #[n(0)]
    pub user_time_us: u64,
    #[n(1)]
    pub system_time_us: u64,
    #[n(2)]
    pub resident_bytes_max: u64,
    /// Blocks of 512 bytes that reached a device.
    #[n(3)]
    pub blocks_read: u64,
    #[n(4)]
    pub blocks_written: u64,
}

fn usage_of(usage: &libc::rusage) -> Usage {
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    let micros = |time: libc::timeval| {
        unsigned(time.tv_sec).saturating_mul(1_000_000).saturating_add(unsigned(time.tv_usec))
    };
    Usage {
        user_time_us: micros(usage.ru_utime),
        system_time_us: micros(usage.ru_stime),
        resident_bytes_max: unsigned(usage.ru_maxrss).saturating_mul(1024),
        blocks_read: unsigned(usage.ru_inblock),
        blocks_written: unsigned(usage.ru_oublock),
    }
}

/// A child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    pub pid: i32,
    pub status: ExitStatus,
    pub usage: Usage,
}

/// Reaps one child of this process, adopted orphans included; `None` when no more have ended.
pub fn reap() -> io::Result<Option<Reaped>> {
    Ok(sys::reap_any()?.map(|(pid, status, usage)| Reaped {
        pid,
        status: ExitStatus::of_wait(status),
        usage: usage_of(&usage),
    }))
}

/// Signals that arrive as bytes of a descriptor instead of interrupting.
#[derive(Debug)]
pub struct SignalReader(OwnedFd);

impl SignalReader {
    /// Blocks the signals for this thread and what it starts. [`crate::launch()`] unblocks them in its child.
    pub fn new(signals: &[Signal]) -> io::Result<SignalReader> {
        let numbers: Vec<i32> = signals.iter().map(|signal| signal.as_raw()).collect();
        Ok(SignalReader(sys::signal_descriptor(&numbers)?))
    }

    /// The same for every signal that another process may mean by it: not those that cannot be blocked, nor those that
    /// tell a process of its own fault.
    pub(crate) fn of_all() -> io::Result<SignalReader> {
        const OF_FAULTS: [i32; 7] = [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGSYS,
        ];
        let all = 1..=sys::SIGNAL_MAX;
        let numbers: Vec<i32> = all.filter(|number| !OF_FAULTS.contains(number)).collect();
        Ok(SignalReader(sys::signal_descriptor(&numbers)?))
    }

    /// The next signal, `None` when none is waiting.
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut record = [0u8; std::mem::size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut record) {
            // The number is the first field of the record.
            Ok(_) => {
                let [a, b, c, d, ..] = record;
                Ok(Some(u32::from_ne_bytes([a, b, c, d]) as i32))
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for SignalReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Orphans of this process's descendants become its children. PID 1 has them anyway.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Pid::from_raw(1))?)
}

/// The number of a process behind its handle, as this process's `/proc` counts.
pub fn pid_of(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    number.filter(|pid| *pid > 0).ok_or_else(|| io::Error::other("no process of this namespace"))
}

/// No core file, no debugger, `/proc/PID` closed to others of the same uid. To be called first thing by an image
/// that holds secrets, since `execve` makes a process dumpable.
pub fn forbid_inspection() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
