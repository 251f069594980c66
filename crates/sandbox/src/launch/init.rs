//! A first process of a pid namespace, for programs that were not written to be one.
//!
//! The kernel drops every signal to PID 1 that it has no handler for, SIGTERM of a plain `sleep` too, and hands it every
//! orphan to reap. So the launcher's child stays as PID 1 and forks the program behind itself. It is a copy of the
//! launcher that executes nothing: with the launcher's pages shared, it costs a tenth of a process of its own.
//!
//! Beside the program it runs what the plan laid down and nothing else: commands before it, and those that the launcher
//! names by their place, each once at a time; and, while the program runs, what somebody asked for through the launcher
//! (`executed.rs`), which becomes what the program became and can do no more. Where the program leaves a daemon and ends, the daemon is the program.
//!
//! Where the plan says so it also answers the calls that the filters of its program and of these commands show (`watch.rs`).
//!
//! It keeps no capability that its program has not, cannot be looked at by it (they may share a uid), opens no file but
//! to find a daemon, and ends with its program; the kernel then ends what is left of the namespace.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use super::child::{FAILED, OWN_DESCRIPTORS_MIN, REPORT_BYTES, Report, decode_report};
use super::executed;
use super::watch::{Ready, Watcher};
use crate::fdpass::{Channel, PassError};
use crate::plan::{COMMANDS_MAX, Command, EXECUTION_BYTES_MAX, Execution, Forks, Plan};
use crate::process::{
    ExitStatus, Reaped, Signal, SignalReader, adopt_orphans, forbid_inspection, pid_of, reap,
};
use crate::start_token;
use crate::sys::{self, Forked};

/// Its name in `ps` and `top`; at most 15 bytes are kept.
const NAME: &std::ffi::CStr = c"bailiwick-init";
/// What a shell adds to the number of a signal.
const SIGNALLED: i32 = 128;
/// From the launcher: run the command whose place follows.
const RUN: u8 = b'R';
/// From the launcher: end the command whose place follows, if it runs.
const END: u8 = b'E';
/// From the launcher: run what follows, with the first three descriptors of the message as its standard streams, and call
/// it by this place; if the token that is the fourth is still there.
const EXECUTE: u8 = b'X';
/// The lowest place that is no command's of the plan.
pub const EXECUTED_FROM: u8 = 128;
const _: () = assert!(COMMANDS_MAX <= EXECUTED_FROM as usize, "the places are apart");
/// What comes from the launcher: kind, place, and what is to be executed.
const REQUEST_BYTES_MAX: usize = 2 + EXECUTION_BYTES_MAX;
/// A daemon is looked for this often, until it is there or the launcher's patience ends.
const LOOK_EVERY_MS: i64 = 10;
/// Bytes of the file in which a daemon writes its number that are read.
const PID_FILE_BYTES_MAX: usize = 32;

/// A program behind its init, from the launcher's side.
#[derive(Debug)]
pub struct Program {
    /// As the launcher's `/proc` shows it.
    pub pid: i32,
    channel: Channel,
    ended: Option<ExitStatus>,
}

/// What an init says while its program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// All that was to come before is done; `pid` of the [`Program`] is the one that stays.
    Settled,
    /// A command has ended.
    Done { command: u16, status: ExitStatus },
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Program {
    pub(super) fn new(pidfd: Option<OwnedFd>, channel: Channel) -> io::Result<Program> {
        let pidfd = pidfd.ok_or_else(|| io::Error::other("the init brought no handle of its program"))?;
        let pid = pid_of(pidfd.as_fd())?;
        channel.send(b"go", &[]).map_err(passed)?;
        channel.set_nonblocking()?;
        Ok(Program { pid, channel, ended: None })
    }

    /// The next thing that it has to say, `None` when there is nothing. Never waits.
    pub fn hear(&mut self) -> Option<Told> {
        let (mut buffer, mut fds) = ([0; REPORT_BYTES], Vec::new());
        while self.channel.receive(&mut buffer, &mut fds).is_ok() {
            match decode_report(&buffer) {
                Report::Settled => {
                    // Gone already: the number before stands until its end is told.
                    let pid = fds.pop().and_then(|pidfd| pid_of(pidfd.as_fd()).ok());
                    self.pid = pid.unwrap_or(self.pid);
                    return Some(Told::Settled);
                }
                Report::Done { command, status } => return Some(Told::Done { command, status }),
                Report::Ended(status) => self.ended = Some(status),
                Report::Failed { .. } | Report::Listener | Report::Started => {}
            }
        }
        None
    }

    /// Has the command at this place of the plan run; its end is heard.
    pub fn run(&self, command: u8) -> io::Result<()> {
        self.channel.send(&[RUN, command], &[]).map_err(passed)
    }

    /// Has one more process started; its end is heard under this place, [`EXECUTED_FROM`] or above. `execution` is an
    /// encoded [`Execution`]; `fds` are its standard streams, and the token of a [`crate::StartToken`]: without it nothing
    /// is started, and that is the end that is heard.
    pub fn execute(&self, place: u8, execution: &[u8], fds: [BorrowedFd<'_>; 4]) -> io::Result<()> {
        let request: Vec<u8> = [EXECUTE, place].into_iter().chain(execution.iter().copied()).collect();
        self.channel.send(&request, &fds).map_err(passed)
    }

    /// Has the command at this place killed, if it runs; its end is heard.
    pub fn end(&self, command: u8) -> io::Result<()> {
        self.channel.send(&[END, command], &[]).map_err(passed)
    }

    /// How it ended, once its init has. None if the init was killed: then its own status is the program's.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        while self.hear().is_some() {}
        self.ended
    }
}

/// Writes the name of what it stands before over the launcher's own arguments, which `ps` would show else. To be called
/// while `/proc` is the launcher's. Who reads `ps` learns less if it fails.
pub(super) fn show_as(part: &str, label: &str) {
    let shown = format!("bailiwick process {part} {label}");
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

/// A process that the plan lays down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Program,
    Command(usize),
}

/// What somebody asked for while the program ran.
pub(super) struct Asked {
    pub(super) execution: Execution,
    pub(super) streams: [OwnedFd; 3],
}

/// What a process that comes back from [`stay_before`] is to be.
pub(super) enum Becomes {
    Planned(Role),
    Asked(Asked),
}

impl Role {
    pub(super) fn command(self, plan: &Plan) -> Option<&Command> {
        match self {
            Role::Program => None,
            Role::Command(place) => plan.commands.get(place),
        }
    }

    /// The launcher no longer waits for it.
    pub(super) fn is_late(self, plan: &Plan) -> bool {
        match self {
            Role::Program => plan.before > 0,
            Role::Command(place) => place > 0 || plan.before == 0,
        }
    }
}

/// What stands as its standard streams.
pub(super) struct Standard<'a> {
    pub(super) null: BorrowedFd<'a>,
    /// Of the program; for what is said of its calls.
    pub(super) log: Option<BorrowedFd<'a>>,
}

/// Returns in what is to be executed alone, with a channel to its init if that answers; this process stays as its init and ends
/// with the program. `needed` are the descriptors that one more process will want.
pub(super) fn stay_before(
    plan: &Plan,
    channel: &Channel,
    standard: Standard<'_>,
    needed: &[BorrowedFd<'_>],
    watcher: Option<Box<dyn Watcher>>,
) -> io::Result<(Becomes, Option<Channel>)> {
    // Before there is a program: it may have the same uid, and could write to a process without a filter.
    forbid_inspection()?;
    let _ = rustix::thread::set_name(NAME);
    // PID 1 has them anyway; without a pid namespace they would go to the launcher.
    adopt_orphans()?;
    // Before the fork: no signal is lost.
    let signals = SignalReader::of_all()?;
    let role = if plan.before > 0 { Role::Command(0) } else { Role::Program };
    let mut watcher = watcher;
    let born = match fork(watcher.is_some())? {
        Side::Child(shown) => return Ok((Becomes::Planned(role), shown)),
        Side::Parent(born) => born,
    };
    for number in 0..3 {
        let log = standard.log.filter(|_| number == 2 && watcher.is_some());
        sys::place(log.unwrap_or(standard.null), number)?;
    }
    // Everything else is the launcher's; nothing here uses or closes it again.
    let needed = if plan.commands.is_empty() { &[] } else { needed };
    let mut kept = vec![channel.as_fd(), signals.as_fd(), born.executed.as_fd(), born.pidfd.as_fd()];
    kept.extend_from_slice(needed);
    kept.extend(born.shown.iter().map(AsFd::as_fd));
    let mut waits = Vec::new();
    watcher.iter().for_each(|watcher| watcher.poll(&mut waits));
    kept.extend(waits.iter().map(AsFd::as_fd));
    sys::close_all_but(&kept)?;
    drop(kept);
    drop(waits);
    if watcher.is_some() {
        // A peer that has gone is an error here and no signal for the program.
        sys::ignore_broken_pipes()?;
    }
    born.await_execution(watcher.as_deref_mut())?;
    tell(channel, Report::Started, &[born.pidfd.as_fd()])?;
    // A program that has ended keeps its number until it is reaped: only after the launcher has read it.
    channel.receive(&mut [0; 2], &mut Vec::new()).map_err(passed)?;
    let stage = Stage::of(role);
    let mut init = Init { plan, channel, signals, stage, main: born.into(), commands: Vec::new(), watcher };
    match init.serve() {
        Ok(becomes) => Ok(becomes),
        Err(_) => sys::exit_now(FAILED),
    }
}

/// A child that has just been made.
struct Born {
    pid: i32,
    pidfd: OwnedFd,
    /// Its writing end is closed by the child's exec or death.
    executed: OwnedFd,
    /// On it comes what its filter shows, if somebody answers here.
    shown: Option<Channel>,
}

impl Born {
    /// Nothing of what it does before is a call that is shown.
    fn await_execution(&self, watcher: Option<&mut (dyn Watcher + 'static)>) -> io::Result<()> {
        while rustix::io::retry_on_intr(|| rustix::io::read(&self.executed, &mut [0; 1]))? > 0 {}
        let (Some(watcher), Some(shown)) = (watcher, &self.shown) else { return Ok(()) };
        shown.set_nonblocking()?;
        let mut fds = Vec::new();
        match shown.receive(&mut [0; REPORT_BYTES], &mut fds) {
            Ok(_) => fds.into_iter().try_for_each(|listener| watcher.hear(listener)),
            // It ended before it had a filter. One that has it and a listener that nobody got is refused each such call.
            Err(_) => Ok(()),
        }
    }
}

enum Side {
    /// With the channel on which its init waits for what its filter shows.
    Child(Option<Channel>),
    Parent(Born),
}

/// `answers`: this process answers the calls that the child's filter shows.
fn fork(answers: bool) -> io::Result<Side> {
    let (executed, executes) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (ours, theirs) = match answers {
        true => {
            let (ours, theirs) = Channel::pair()?;
            // Above whatever a plan places.
            let above = sys::duplicate_above(theirs.as_fd(), OWN_DESCRIPTORS_MIN)?;
            (Some(ours), Some(Channel::from(above)))
        }
        false => (None, None),
    };
    // SAFETY: this process is a fork of one with a single thread and has started none.
    match unsafe { sys::fork(0, None) }? {
        Forked::Child => {
            sys::reset_signals()?;
            std::mem::forget(executes);
            drop(ours);
            Ok(Side::Child(theirs))
        }
        Forked::Parent { pid, pidfd } => Ok(Side::Parent(Born { pid, pidfd, executed, shown: ours })),
    }
}

/// A child that is watched.
struct Child {
    pid: i32,
    pidfd: OwnedFd,
}

impl From<Born> for Child {
    fn from(born: Born) -> Child {
        Child { pid: born.pid, pidfd: born.pidfd }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The command at this place runs before the program.
    Before(usize),
    Program,
    /// The started process has ended with 0, its daemon was not found yet.
    Forking,
    Daemon,
}

impl Stage {
    fn of(role: Role) -> Stage {
        match role {
            Role::Program => Stage::Program,
            Role::Command(place) => Stage::Before(place),
        }
    }
}

struct Init<'a> {
    plan: &'a Plan,
    channel: &'a Channel,
    signals: SignalReader,
    stage: Stage,
    /// What signals are meant for, and whose end counts.
    main: Child,
    /// Those that the launcher asked for, by their place.
    commands: Vec<(usize, Child)>,
    /// Who answers the calls that are shown.
    watcher: Option<Box<dyn Watcher>>,
}

impl Init<'_> {
    /// Comes back in a child only.
    fn serve(&mut self) -> io::Result<(Becomes, Option<Channel>)> {
        loop {
            let ready = self.wait()?;
            if let Some(watcher) = &mut self.watcher {
                watcher.serve(&ready)?;
            }
            while let Some(signal) = self.signals.next()? {
                if signal != libc::SIGCHLD {
                    // Gone already is what most of them want.
                    let _ = sys::pidfd_signal(self.main.pidfd.as_fd(), signal);
                }
            }
            while let Some(reaped) = reap()? {
                if let Some((role, shown)) = self.reaped(&reaped)? {
                    return Ok((Becomes::Planned(role), shown));
                }
            }
            if self.stage == Stage::Forking {
                self.look_for_daemon()?;
            }
            if let Some(becomes) = self.take_request()? {
                return Ok(becomes);
            }
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut polled =
            vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(self.channel, PollFlags::IN)];
        if let Some(watcher) = &self.watcher {
            watcher.poll(&mut polled);
        }
        let soon = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY_MS * 1_000_000 };
        let limit = (self.stage == Stage::Forking).then_some(&soon);
        rustix::io::retry_on_intr(|| poll(&mut polled, limit))?;
        let over = PollFlags::HUP | PollFlags::ERR;
        if polled.get(1).is_some_and(|channel| channel.revents().intersects(over)) {
            // Nobody is there to be told; the kernel ends this process at the same moment.
            sys::exit_now(FAILED);
        }
        Ok(Ready::of(&polled))
    }

    /// A role for the process that was forked because of it.
    fn reaped(&mut self, reaped: &Reaped) -> io::Result<Option<(Role, Option<Channel>)>> {
        if let Some(at) = self.commands.iter().position(|(_, child)| child.pid == reaped.pid) {
            let (place, _) = self.commands.swap_remove(at);
            self.done(place, reaped.status)?;
            return Ok(None);
        }
        if reaped.pid != self.main.pid {
            return Ok(None);
        }
        let well = reaped.status == ExitStatus::Code(0);
        match self.stage {
            Stage::Before(place) => {
                self.done(place, reaped.status)?;
                let may_fail = self.plan.commands.get(place).is_some_and(|command| command.may_fail);
                if well || may_fail { self.go_on(place + 1) } else { self.end(reaped.status) }
            }
            Stage::Program if well && self.plan.forks.is_some() => {
                self.stage = Stage::Forking;
                Ok(None)
            }
            // The number of one that ended without a daemon may be anybody's by now.
            Stage::Forking => Ok(None),
            Stage::Program | Stage::Daemon => self.end(reaped.status),
        }
    }

    fn go_on(&mut self, place: usize) -> io::Result<Option<(Role, Option<Channel>)>> {
        let role = if place < self.plan.before as usize { Role::Command(place) } else { Role::Program };
        let born = match fork(self.watcher.is_some())? {
            Side::Child(shown) => return Ok(Some((role, shown))),
            Side::Parent(born) => born,
        };
        born.await_execution(self.watcher.as_deref_mut())?;
        self.main = born.into();
        self.stage = Stage::of(role);
        if role == Role::Program && self.plan.forks.is_none() {
            self.settled()?;
        }
        Ok(None)
    }

    fn end(&self, status: ExitStatus) -> io::Result<Option<(Role, Option<Channel>)>> {
        tell(self.channel, Report::Ended(status), &[])?;
        sys::exit_now(match status {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => SIGNALLED + signal,
        })
    }

    fn settled(&self) -> io::Result<()> {
        tell(self.channel, Report::Settled, &[self.main.pidfd.as_fd()])
    }

    fn done(&self, place: usize, status: ExitStatus) -> io::Result<()> {
        let command = u16::try_from(place).unwrap_or(u16::MAX);
        tell(self.channel, Report::Done { command, status }, &[])
    }

    fn take_request(&mut self) -> io::Result<Option<(Becomes, Option<Channel>)>> {
        let mut polled = [PollFd::new(self.channel, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))? == 0 {
            return Ok(None);
        }
        let (mut request, mut fds) = (vec![0; REQUEST_BYTES_MAX], Vec::new());
        let length = self.channel.receive(&mut request, &mut fds).map_err(passed)?;
        let [kind, place, ref execution @ ..] = *request.get(..length).unwrap_or_default() else {
            return Ok(None);
        };
        if kind == EXECUTE {
            return self.execute(place, execution, fds);
        }
        let place = usize::from(place);
        let running = self.commands.iter().find(|(other, _)| *other == place);
        if let (END, Some((_, command))) = (kind, running) {
            // What was asked for has a session of its own in any case.
            self.kill(command, self.plan.new_session || place >= usize::from(EXECUTED_FROM));
        }
        // The launcher asks for what does not run yet, of those that there are.
        if kind != RUN || running.is_some() || place >= self.plan.commands.len() {
            return Ok(None);
        }
        let born = match fork(self.watcher.is_some()) {
            Ok(Side::Parent(born)) => born,
            Ok(Side::Child(shown)) => return Ok(Some((Becomes::Planned(Role::Command(place)), shown))),
            // At the limit of processes that it shares with its program, which is none the worse.
            Err(_) => return self.done(place, ExitStatus::Code(FAILED)).map(|()| None),
        };
        born.await_execution(self.watcher.as_deref_mut())?;
        self.commands.push((place, born.into()));
        Ok(None)
    }

    /// The launcher has looked at what it is; whatever is wrong all the same is an end like another.
    fn execute(
        &mut self,
        place: u8,
        execution: &[u8],
        fds: Vec<OwnedFd>,
    ) -> io::Result<Option<(Becomes, Option<Channel>)>> {
        let place = usize::from(place);
        let (Ok(execution), Ok(fds)) = (Execution::decode(execution), <[OwnedFd; 4]>::try_from(fds)) else {
            return self.done(place, ExitStatus::Code(FAILED)).map(|()| None);
        };
        let [input, output, error, token] = fds;
        // This process may have stood still meanwhile, and what was asked for been given up.
        if !start_token::take(&token) {
            return self.done(place, ExitStatus::Code(executed::NOT_EXECUTABLE)).map(|()| None);
        }
        drop(token);
        let asked = Asked { execution, streams: [input, output, error] };
        let born = match fork(self.watcher.is_some()) {
            Ok(Side::Parent(born)) => born,
            Ok(Side::Child(shown)) => return Ok(Some((Becomes::Asked(asked), shown))),
            Err(cause) => {
                executed::complain(&asked, "fork", &cause);
                return self.done(place, ExitStatus::Code(executed::NOT_EXECUTABLE)).map(|()| None);
            }
        };
        drop(asked);
        born.await_execution(self.watcher.as_deref_mut())?;
        self.commands.push((place, born.into()));
        Ok(None)
    }

    /// With all that it has started and that stayed in its session; gone already is what is wanted.
    fn kill(&self, command: &Child, leads_group: bool) {
        if let Some(group) = rustix::process::Pid::from_raw(command.pid).filter(|_| leads_group) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = sys::pidfd_signal(command.pidfd.as_fd(), Signal::KILL.as_raw());
    }

    /// The daemon is a child of this process by now: its parent has ended.
    fn look_for_daemon(&mut self) -> io::Result<()> {
        let children = children()?;
        let own = |pid: &i32| self.commands.iter().all(|(_, command)| command.pid != *pid);
        let children: Vec<i32> = children.into_iter().filter(own).collect();
        if children.is_empty() {
            // It left nobody behind.
            return self.end(ExitStatus::Code(0)).map(|_| ());
        }
        let file = self.plan.forks.as_ref().and_then(|Forks { pid_file }| pid_file.as_deref());
        let found = match file {
            Some(file) => written(file).filter(|pid| children.contains(pid)),
            None => children.first().copied(),
        };
        let Some(pid) = found.and_then(rustix::process::Pid::from_raw) else { return Ok(()) };
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        self.main = Child { pid: pid.as_raw_nonzero().get(), pidfd };
        self.stage = Stage::Daemon;
        self.settled()
    }
}

/// Of this process, in the order in which they became its own.
fn children() -> io::Result<Vec<i32>> {
    let path = format!("/proc/self/task/{}/children", rustix::thread::gettid().as_raw_nonzero());
    let text = std::fs::read_to_string(path)?;
    Ok(text.split_whitespace().filter_map(|number| number.parse().ok()).collect())
}

/// The number in a file that its program wrote: it names one of our own children or nothing.
fn written(path: &str) -> Option<i32> {
    // A pipe in its place must not make this process wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let mut buffer = [0; PID_FILE_BYTES_MAX];
    let length = rustix::io::read(&file, &mut buffer).ok()?;
    std::str::from_utf8(buffer.get(..length)?).ok()?.split_whitespace().next()?.parse().ok()
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
