//! A first process of a pid namespace, for programs that were not written to be one.
//!
//! The kernel drops every signal to PID 1 that it has no handler for, SIGTERM of a plain `sleep` too, and hands it every
//! orphan to reap. So the launcher's child stays as PID 1 and forks the program behind itself. It is a copy of the
//! launcher that executes nothing: with the launcher's pages shared, it costs a tenth of a process of its own.
//!
//! It keeps no descriptor but its own three, no capability, and cannot be looked at by its program, which has its uid.
//! It never opens a file and never allocates in its loop. When it ends, the kernel ends what is left of the namespace.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::PipeFlags;

use super::child::{FAILED, REPORT_BYTES, Report, decode_report};
use crate::fdpass::{Channel, PassError};
use crate::process::{ExitStatus, SignalReader, adopt_orphans, forbid_inspection, pid_of, reap};
use crate::sys::{self, Forked};

/// Its name in `ps` and `top`; at most 15 bytes are kept.
const NAME: &std::ffi::CStr = c"bailiwick-init";
/// What a shell adds to the number of a signal.
const SIGNALLED: i32 = 128;

/// A program behind its init, from the launcher's side.
#[derive(Debug)]
pub struct Program {
    /// As the launcher's `/proc` shows it.
    pub pid: i32,
    channel: Channel,
}

impl Program {
    pub(super) fn new(pidfd: Option<OwnedFd>, channel: Channel) -> io::Result<Program> {
        let pidfd = pidfd.ok_or_else(|| io::Error::other("the init brought no handle of its program"))?;
        let pid = pid_of(pidfd.as_fd())?;
        channel.send(b"go", &[]).map_err(passed)?;
        channel.set_nonblocking()?;
        Ok(Program { pid, channel })
    }

    /// How it ended, once its init has. None if the init was killed: then its own status is the program's.
    #[must_use]
    pub fn ended(&self) -> Option<ExitStatus> {
        let mut buffer = [0; REPORT_BYTES];
        while self.channel.receive(&mut buffer, &mut Vec::new()).is_ok() {
            if let Report::Ended(status) = decode_report(&buffer) {
                return Some(status);
            }
        }
        None
    }
}

/// Writes the name of what it stands before over the launcher's own arguments, which `ps` would show else. To be called
/// while `/proc` is the launcher's. Who reads `ps` learns less if it fails.
pub(super) fn show_as(label: &str) {
    let shown = format!("bailiwick process init {label}");
    let write = || {
        let (start, end) = arguments(&std::fs::read_to_string("/proc/self/stat").ok()?)?;
        let mut text = shown.into_bytes();
        // The last byte stays zero.
        text.resize(usize::try_from(end.checked_sub(start)?).ok()?.checked_sub(1)?, 0);
        let memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem").ok()?;
        memory.write_all_at(&text, start).ok()
    };
    let _ = write();
}

/// Where the arguments stand in memory: the 48th and 49th field, behind a name that may contain anything.
fn arguments(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(45);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Returns in the program-to-be alone; this process stays as its init and ends with it.
pub(super) fn stay_before(channel: &Channel, null: &OwnedFd) -> io::Result<()> {
    // Before there is a program: it has the same uid, and could write to a process without a filter.
    forbid_inspection()?;
    let _ = rustix::thread::set_name(NAME);
    // PID 1 has them anyway; without a pid namespace they would go to the launcher.
    adopt_orphans()?;
    // Before the fork: no signal is lost.
    let signals = SignalReader::of_all()?;
    // Its writing end is closed by the program's exec or death.
    let (executed, executes) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: this process is a fork of one with a single thread and has started none.
    match unsafe { sys::fork(0, None) }? {
        Forked::Child => {
            sys::reset_signals()?;
            std::mem::forget(executes);
            Ok(())
        }
        Forked::Parent { pid, pidfd } => {
            let Err(_) = serve(channel, null, &signals, &executed, pid, &pidfd);
            sys::exit_now(FAILED)
        }
    }
}

fn serve(
    channel: &Channel,
    null: &OwnedFd,
    signals: &SignalReader,
    executed: &OwnedFd,
    pid: i32,
    program: &OwnedFd,
) -> io::Result<Infallible> {
    for standard in 0..3 {
        sys::place(null.as_fd(), standard)?;
    }
    // Everything else is the launcher's; nothing here uses or closes it again.
    sys::close_all_but(&mut [channel.as_fd(), signals.as_fd(), executed.as_fd(), program.as_fd()])?;
    while rustix::io::retry_on_intr(|| rustix::io::read(executed, &mut [0; 1]))? > 0 {}
    tell(channel, Report::Started, &[program.as_fd()])?;
    // A program that has ended keeps its number until it is reaped: only after the launcher has read it.
    channel.receive(&mut [0; 2], &mut Vec::new()).map_err(passed)?;
    loop {
        rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(signals, PollFlags::IN)], None))?;
        while let Some(signal) = signals.next()? {
            if signal != libc::SIGCHLD {
                // Gone already is what most of them want.
                let _ = sys::pidfd_signal(program.as_fd(), signal);
            }
        }
        while let Some(reaped) = reap()? {
            if reaped.pid == pid {
                tell(channel, Report::Ended(reaped.status), &[])?;
                sys::exit_now(match reaped.status {
                    ExitStatus::Code(code) => code,
                    ExitStatus::Signal(signal) => SIGNALLED + signal,
                });
            }
        }
    }
}

fn tell(channel: &Channel, report: Report, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    channel.send(&report.encode(), fds).map_err(passed)
}

fn passed(error: PassError) -> io::Error {
    io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_found_behind_any_name() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (start, end) = arguments(&stat).unwrap();
        let shown = std::fs::read("/proc/self/cmdline").unwrap();
        assert_eq!(usize::try_from(end - start).unwrap(), shown.len());
        let (_, rest) = stat.rsplit_once(')').unwrap();
        assert_eq!(arguments(&format!("7 (a) b) {rest}")), Some((start, end)));
        assert_eq!(arguments("garbage"), None);
    }
}
