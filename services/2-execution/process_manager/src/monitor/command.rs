//! One more command in the program's sandbox, for as long as whoever asked for it stays connected.
//!
//! It becomes what the program became: same plan, so same rights, limits, filter and Landlock rules, in the namespaces
//! and the group that its monitor stands in. It is a Landlock domain of its own: from Linux 6.12 on it cannot signal
//! the program, nor the program it. Nothing is kept of what it says: its pipes wait for its reader.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use chain::payload::process::ExitStatus;
use rustix::{
    event::{PollFd, PollFlags},
    fs::{Access, AtFlags, CWD, FileType},
    io::Errno,
};
use sandbox::{
    Executable, Features, LaunchError, Plan,
    process::{ExitStatus as Ended, Reaped, Signal},
};

use super::{
    connection::Connection,
    egress::WayOut,
    notice::Notices,
    output::PIECE_BYTES,
    program::{self, Program, Streams, Used},
    protocol::{Config, Reply, Request, Stream},
    refused::RefusedCalls,
};
use crate::core::Execution;

/// Commands beside one program at once, those counted that have ended and left something behind.
pub(super) const COMMANDS_MAX: usize = 8;

#[derive(Debug)]
pub(crate) struct Command {
    program: Program,
    stdin: Option<OwnedFd>,
    stdin_ends: bool,
    stdout: Side,
    stderr: Side,
    has_terminal: bool,
    notices: Option<Notices>,
    until: Option<Instant>,
    is_over_time: bool,
    used: Used,
    with_program: bool,
}

/// One of its streams of output.
#[derive(Debug)]
struct Side {
    pipe: Option<OwnedFd>,
    offset: u64,
    /// The request that waits for more.
    waiting: Option<u64>,
}

impl Side {
    fn new(pipe: Option<OwnedFd>) -> Self {
        Self { pipe, offset: 0, waiting: None }
    }

    /// What is there for the request that waits; none when there is nothing yet.
    fn read(&mut self, has_ended: bool) -> Option<(u64, Reply)> {
        let id = self.waiting?;
        let mut data = vec![0; PIECE_BYTES];
        let read = match self.pipe.as_ref().map(|pipe| rustix::io::read(pipe, &mut *data)) {
            Some(Ok(read)) => read,
            // What it left behind may have the pipe open still; that is nothing that it says.
            Some(Err(Errno::AGAIN | Errno::INTR)) if !has_ended => return None,
            // A terminal that nobody has open any more answers EIO.
            Some(Err(_)) | None => 0,
        };
        data.truncate(read);
        let (offset, end) = (self.offset, data.is_empty());
        self.offset += data.len() as u64;
        self.waiting = None;
        if end {
            self.pipe = None;
        }
        Some((id, Reply::Output { offset, data, end }))
    }
}

impl Command {
    /// Forks and executes beside the program. Blocks until it has, at most the time limit of a launch.
    pub(super) fn start(
        config: &Config,
        image: &OwnedFd,
        features: &Features,
        execution: &Execution,
    ) -> Result<Self, LaunchError> {
        let plan = plan(&config.plan, execution);
        let (program, streams, listener) = Program::start(&plan, image, features, execution.terminal)?;
        let Streams { stdin, stdout, stderr } = streams;
        let until = (execution.timeout_ms > 0).then(|| Duration::from_millis(execution.timeout_ms));
        Ok(Self {
            program,
            stdin: Some(stdin),
            stdin_ends: false,
            stdout: Side::new(Some(stdout)),
            stderr: Side::new(stderr),
            has_terminal: execution.terminal.is_some(),
            notices: listener.map(|it| Notices::new(it, config.watch.clone(), config.own_network)),
            until: until.and_then(|limit| Instant::now().checked_add(limit)),
            is_over_time: false,
            used: Used::default(),
            with_program: false,
        })
    }

    /// Whether this was it.
    pub(super) fn has_ended(&mut self, reaped: &Reaped, with_program: bool) -> bool {
        let is = self.program.has_ended(reaped);
        if is {
            self.with_program |= with_program;
            self.used.add(reaped.usage);
            (self.stdin, self.until) = (None, None);
        }
        is
    }

    /// Its program has ended.
    pub(super) fn end_with_program(&mut self) {
        self.with_program |= self.program.ended().is_none();
        self.program.kill_group();
    }

    /// How long its time limit lets it run.
    pub(super) fn time_left(&self) -> Option<Duration> {
        Some(self.until?.saturating_duration_since(Instant::now()))
    }

    pub(super) fn enforce(&mut self) {
        if self.until.is_some_and(|until| until <= Instant::now()) {
            (self.is_over_time, self.until) = (true, None);
            self.program.kill_group();
        }
    }

    /// What it left behind goes on to show its calls, which nothing else would answer.
    pub(super) fn take_notices(&mut self) -> Option<Notices> {
        self.notices.take()
    }

    pub(super) fn notices(&self) -> Option<&Notices> {
        self.notices.as_ref()
    }

    pub(super) fn poll<'a>(&'a self, connection: &'a Connection, polled: &mut Vec<PollFd<'a>>) {
        if let Some(notices) = &self.notices {
            polled.push(PollFd::new(notices.listener(), PollFlags::IN));
        }
        for side in [&self.stdout, &self.stderr] {
            if let Some(pipe) = side.pipe.as_ref().filter(|_| side.waiting.is_some()) {
                polled.push(PollFd::new(pipe, PollFlags::IN));
            }
        }
        if let Some(stdin) = self.stdin.as_ref().filter(|_| connection.stdin.is_some()) {
            polled.push(PollFd::new(stdin, PollFlags::OUT));
        }
    }

    fn status(&self) -> Option<ExitStatus> {
        Some(match self.program.ended()? {
            _ if self.is_over_time => ExitStatus::Limit("wall_time".to_owned()),
            Ended::Code(code) => ExitStatus::Code(code),
            Ended::Signal(signal) => ExitStatus::Signal(signal),
        })
    }

    /// An answer that can be given at once.
    pub(super) fn answer(&mut self, request: Request, stdin_is_busy: bool) -> Answer {
        let refuse = |why: &str| Answer::Now(Reply::Refused(why.to_owned()));
        match request {
            Request::Stdin(_) | Request::StdinEnd if self.stdin.is_none() || self.stdin_ends => {
                refuse("its standard input is closed")
            }
            Request::Stdin(_) if stdin_is_busy => refuse("one piece is under way already"),
            Request::Stdin(data) => Answer::Stdin(data),
            Request::StdinEnd => {
                self.stdin_ends = true;
                Answer::Now(Reply::Done)
            }
            Request::Resize(size) => {
                if let Some(terminal) = self.stdout.pipe.as_ref().filter(|_| self.has_terminal) {
                    let _ = program::set_window(std::os::fd::AsFd::as_fd(terminal), size);
                }
                Answer::Now(Reply::Done)
            }
            Request::Read { stream, .. } => match self.side(stream).waiting {
                Some(_) => refuse("this stream is being read already"),
                None => Answer::Later(stream),
            },
            Request::Wait => Answer::AtItsEnd,
            Request::Signal(number) => match Signal::from_named_raw(number) {
                Some(signal) => match self.program.signal(signal) {
                    Ok(()) => Answer::Now(Reply::Done),
                    Err(error) => refuse(&error.to_string()),
                },
                None => refuse(&format!("{number} is not the number of a signal")),
            },
            _ => refuse("this connection is a command's"),
        }
    }

    fn side(&mut self, stream: Stream) -> &mut Side {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    pub(super) fn read_for(&mut self, stream: Stream, id: u64) {
        self.side(stream).waiting = Some(id);
    }

    /// What has become ready, its end last.
    pub(super) fn replies(&mut self, wait: &mut Option<u64>) -> Vec<(u64, Reply)> {
        let has_ended = self.program.ended().is_some();
        let mut replies: Vec<_> = [&mut self.stdout, &mut self.stderr]
            .into_iter()
            .filter_map(|side| side.read(has_ended))
            .collect();
        if let Some(status) = self.status()
            && let Some(id) = wait.take()
        {
            let (usage, with_program) = (self.used.as_usage(), self.with_program);
            replies.push((id, Reply::Executed { status, usage, with_program }));
        }
        replies
    }

    /// Moves what is under way into its input; true when all of it is there, or nobody reads it any more.
    pub(super) fn feed(&mut self, data: &mut Vec<u8>) -> bool {
        match self.stdin.as_ref().map(|stdin| rustix::io::write(stdin, data)) {
            Some(Ok(written)) => drop(data.drain(..written)),
            Some(Err(Errno::AGAIN | Errno::INTR)) => {}
            Some(Err(_)) | None => {
                self.stdin = None;
                data.clear();
            }
        }
        data.is_empty()
    }

    pub(super) fn end_input(&mut self) {
        if self.stdin_ends {
            self.stdin = None;
        }
    }
}

impl Drop for Command {
    /// Whoever asked for it has gone.
    fn drop(&mut self) {
        self.program.kill_group();
    }
}

/// How a request of a command's connection is answered.
pub(super) enum Answer {
    Now(Reply),
    Later(Stream),
    Stdin(Vec<u8>),
    AtItsEnd,
}

impl Connection {
    /// A request of the one whose command this connection is.
    pub(super) fn answer_for_command(&mut self, id: u64, request: Request) {
        let busy = self.stdin.is_some();
        let Some(command) = &mut self.command else { return };
        match command.answer(request, busy) {
            Answer::Now(reply) => self.send(id, &reply),
            Answer::Later(stream) => command.read_for(stream, id),
            Answer::Stdin(data) => self.stdin = Some((id, data)),
            Answer::AtItsEnd if self.wait.is_some() => {
                self.send(id, &Reply::Refused("it is being waited for already".to_owned()));
            }
            Answer::AtItsEnd => self.wait = Some(id),
        }
    }

    /// Calls that were shown, input that was sent, output and the end that were asked for.
    pub(super) fn serve_command(
        &mut self,
        refused: &mut RefusedCalls,
        way_out: Option<&mut WayOut>,
    ) -> io::Result<()> {
        let Some(command) = &mut self.command else { return Ok(()) };
        if let Some(notices) = command.notices()
            && super::is_readable(notices.listener())
        {
            notices.serve(refused, way_out)?;
        }
        command.enforce();
        let mut replies = Vec::new();
        if let Some((id, mut data)) = self.stdin.take() {
            if command.feed(&mut data) {
                replies.push((id, Reply::Done));
            } else {
                self.stdin = Some((id, data));
            }
        }
        if self.stdin.is_none() {
            command.end_input();
        }
        if !self.is_backed_up()
            && let Some(command) = &mut self.command
        {
            replies.extend(command.replies(&mut self.wait));
        }
        replies.iter().for_each(|(id, reply)| self.send(*id, reply));
        Ok(())
    }
}

/// The program's own plan with another command.
fn plan(program: &Plan, execution: &Execution) -> Plan {
    let mut plan = program.clone();
    for (name, value) in &execution.env {
        plan.environment.retain(|(known, _)| known != name);
        plan.environment.push((name.clone(), value.clone()));
    }
    if let Some(folder) = &execution.cwd {
        plan.working_directory.clone_from(folder);
    }
    let name = execution.command.first().map_or("", String::as_str);
    plan.executable = Executable::Path(find(&plan, name));
    plan.arguments.clone_from(&execution.command);
    plan.controlling_terminal = execution.terminal.is_some();
    plan
}

/// As a shell finds it, in the sandbox. What is not found is left for the launch to refuse.
fn find(plan: &Plan, name: &str) -> String {
    let from = |folder: &str| format!("{}/{name}", folder.trim_end_matches('/'));
    if name.starts_with('/') {
        return name.to_owned();
    }
    if name.contains('/') {
        return from(&plan.working_directory);
    }
    let path = plan.environment.iter().find(|(variable, _)| variable == "PATH");
    let folders = path.map_or("", |(_, folders)| folders.as_str()).split(':');
    let candidates = folders.filter(|folder| folder.starts_with('/')).map(from);
    let mut found = candidates.filter(|file| is_program(file));
    found.next().unwrap_or_else(|| from("/usr/bin"))
}

fn is_program(file: &str) -> bool {
    let is_file = rustix::fs::stat(file)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    is_file && rustix::fs::accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}
