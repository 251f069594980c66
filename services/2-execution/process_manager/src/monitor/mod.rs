//! The monitor: one for each program, PID 1 of its namespaces, outside of its filter.
//!
//! Promises: the program runs only after `Release`; output, exit status and refused calls are kept until they were
//! acknowledged, whoever died meanwhile; when the program ends, nothing of its tree is left. Never does: decide what
//! is allowed, open a path that the program names, allocate without bound. Calls nobody; process_manager calls it, on
//! a socket that stands in process_manager's own folder. When it dies, the kernel ends the whole namespace.
//!
//! Reading order: `main` and `Monitor::run` are the loop, `protocol.rs` is what can be said to it, `notice.rs` is
//! what it sees.

mod command;
mod connection;
mod datagrams;
mod disk;
mod egress;
mod egress_calls;
mod egress_sweep;
mod job_calls;
mod names;
mod notice;
pub mod output;
mod outputs;
mod program;
pub mod protocol;
mod proxy;
mod published;
mod refused;
mod service;
mod spare;

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use base::cbor;
use chain::payload::process::ExitStatus;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandbox::{
    Features, StartToken,
    inherited::adopt_descriptor,
    prepare,
    process::{ExitStatus as Ended, Signal, SignalReader, adopt_orphans, forbid_inspection, reap},
};
use thiserror::Error;

use crate::core::{DATAGRAMS_FD, DETERMINISM, Execution, LAYERS_FD, Learned, NAMES_FD, OUTPUT_LIMIT};
use command::{COMMANDS_MAX, Command};
use connection::Connection;
use datagrams::Datagrams;
use disk::Disk;
use egress::WayOut;
use job_calls::JobCalls;
use names::NameServer;
use notice::Notices;
use output::{Output, PIECE_BYTES, READER_GRACE_MS};
use outputs::{Outputs, Untaken};
use program::{Program, Used};
use protocol::{Config, Phase, Reply, Request, Status, Stream};
use proxy::Proxy;
use refused::RefusedCalls;
pub use service::watch;

/// Where the descriptors of a launch stand, in the order of its slots.
const CONFIG_FD: i32 = 3;
const CONTROL_FD: i32 = 4;
const IMAGE_FD: i32 = 5;
const STDOUT_FD: i32 = 6;
const STDERR_FD: i32 = 7;
/// Configuration: a plan and what stands around it.
const CONFIG_BYTES_MAX: u64 = 2 * sandbox::PLAN_BYTES_MAX as u64;
/// process_manager has one of its own and one for each caller that follows the streams.
const CONNECTIONS_MAX: usize = 16;
/// How often the processor time of a tree with such a limit is added up.
const CPU_LOOK_MS: u64 = 50;
/// How often a namespace that is being emptied is looked at again.
const ENDING_LOOK_MS: u64 = 2;
/// The first that refuses `connect` and `bind` of TCP.
const LANDLOCK_TCP_ABI: u32 = 4;
/// SIGXCPU and SIGXFSZ.
const OVER_CPU_TIME: i32 = 24;
const OVER_FILE_SIZE: i32 = 25;

#[derive(Debug, Error)]
enum MonitorError {
    #[error("the monitor was not started by process_manager: {0}")]
    Inherited(#[source] io::Error),
    #[error("its configuration cannot be read: {0}")]
    Config(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Entry of `bailiwick process monitor`.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::from(part())
}

/// The same in a child of the keeper that executes nothing: what it ends with.
#[must_use]
pub fn part() -> u8 {
    match start() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("monitor: {error}");
            1
        }
    }
}

fn start() -> Result<(), MonitorError> {
    // The program has the same uid; without this it could read and write the monitor through /proc.
    forbid_inspection()?;
    let inherit = |raw| adopt_descriptor(raw).map_err(MonitorError::Inherited);
    let config = read_config(inherit(CONFIG_FD)?)?;
    let listener = UnixListener::from(inherit(CONTROL_FD)?);
    listener.set_nonblocking(true)?;
    let image = inherit(IMAGE_FD)?;
    let (stdout, stderr) = (File::from(inherit(STDOUT_FD)?), File::from(inherit(STDERR_FD)?));
    adopt_orphans()?;
    let signals = SignalReader::new(&[Signal::CHILD])?;
    let layers_fd = i32::try_from(LAYERS_FD).unwrap_or(0);
    let layers = match config.layers_bytes_max {
        Some(bytes_max) => Some(Disk::new(inherit(layers_fd)?, bytes_max)),
        None => None,
    };
    let outputs = match config.fixed {
        Some(_) => Some(Outputs::new(inherit(layers_fd)?, config.outputs.clone(), config.outputs_bytes_max)),
        None => None,
    };
    let features = Features::for_inner();
    let missing = prepare(&config.plan, &features, None).missing;
    let datagrams_fd = i32::try_from(DATAGRAMS_FD).unwrap_or(0);
    let sees_sockets = (config.own_network && config.fixed.is_none()) || config.way_out;
    let way_out = match sees_sockets {
        true => {
            let names = if config.way_out { name_server()? } else { None };
            let datagrams =
                if config.datagrams { Some(Datagrams::new(inherit(datagrams_fd)?)) } else { None };
            let proxy = (config.way_out && config.proxy).then(Proxy::new).transpose()?;
            Some(WayOut::new(config.way_out, names, datagrams, proxy)?)
        }
        false => None,
    };
    let learned = config.learn.then(|| Rc::new(RefCell::new(Learned::default())));
    let mut monitor = Monitor {
        missing: missing.iter().map(|missing| format!("{}: {}", missing.guard, missing.why)).collect(),
        stdout: Output::new(stdout, config.output_bytes_max),
        stderr: Output::new(stderr, config.output_bytes_max),
        config,
        features,
        image,
        listener,
        connections: Vec::new(),
        phase: Phase::Held,
        program: None,
        stdin: None,
        stdin_ends: false,
        notices: None,
        left: Vec::new(),
        calls: None,
        way_out,
        refused: RefusedCalls::default(),
        used: Used::default(),
        started: Instant::now(),
        layers,
        outputs,
        untaken: None,
        learned,
        passed: None,
        suspended: false,
        commands: 0,
        ends: false,
        status: ExitStatus::Unknown,
        start_failure: None,
        done: false,
    };
    Ok(monitor.run(&signals)?)
}

/// The sockets on which the program's names are asked for; none if it has no network of its own.
fn name_server() -> io::Result<Option<NameServer>> {
    let first = i32::try_from(NAMES_FD).unwrap_or(0);
    match (adopt_descriptor(first), adopt_descriptor(first + 1)) {
        (Ok(udp), Ok(tcp)) => NameServer::new(udp, tcp).map(Some),
        _ => Ok(None),
    }
}

fn read_config(fd: OwnedFd) -> Result<Config, MonitorError> {
    let mut bytes = Vec::new();
    File::from(fd).take(CONFIG_BYTES_MAX).read_to_end(&mut bytes)?;
    cbor::decode(&bytes).map_err(|error| MonitorError::Config(error.to_string()))
}

/// Whether a read would not block.
fn is_readable(fd: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
        && polled.iter().all(|one| one.revents().contains(PollFlags::IN))
}

struct Monitor {
    config: Config,
    features: Features,
    missing: Vec<String>,
    image: OwnedFd,
    listener: UnixListener,
    connections: Vec<Connection>,
    phase: Phase,
    program: Option<Program>,
    stdin: Option<OwnedFd>,
    stdin_ends: bool,
    stdout: Output,
    stderr: Output,
    notices: Option<Notices>,
    /// Of commands that have ended; something of them runs still.
    left: Vec<Notices>,
    /// Of every program with a network of its own: what it does with sockets of TCP.
    way_out: Option<WayOut>,
    /// Of a job, instead of notices.
    calls: Option<JobCalls>,
    refused: RefusedCalls,
    used: Used,
    started: Instant,
    /// What it writes to copy-on-write folders.
    layers: Option<Disk>,
    /// Of a job.
    outputs: Option<Outputs>,
    untaken: Option<String>,
    /// What it used, if that is to be taken down.
    learned: Option<Rc<RefCell<Learned>>>,
    /// The limit for which the tree is being ended.
    passed: Option<&'static str>,
    suspended: bool,
    /// Commands beside it, as of the last look at the connections.
    commands: usize,
    /// The tree was told to end.
    ends: bool,
    status: ExitStatus,
    start_failure: Option<Reply>,
    done: bool,
}

impl Monitor {
    fn run(&mut self, signals: &SignalReader) -> io::Result<()> {
        let mut buffer = vec![0; PIECE_BYTES];
        while !self.done {
            self.wait(signals)?;
            while signals.next()?.is_some() {}
            if let Some(notices) = &self.notices
                && is_readable(notices.listener())
            {
                notices.serve(&mut self.refused, self.way_out.as_mut())?;
            }
            self.left.retain(|notices| !notices.is_over());
            for notices in self.left.iter().filter(|it| is_readable(it.listener())) {
                notices.serve(&mut self.refused, self.way_out.as_mut())?;
            }
            if let Some(way_out) = &mut self.way_out {
                way_out.serve(&mut self.refused)?;
            }
            if let Some(calls) = &mut self.calls
                && is_readable(calls.listener())
                && calls.serve(&mut self.refused)?
            {
                self.end_for(DETERMINISM);
            }
            self.move_output(&mut buffer)?;
            self.accept();
            self.talk()?;
            self.feed_stdin();
            self.watch_program()?;
            for connection in &mut self.connections {
                connection.serve_command(&mut self.refused, self.way_out.as_mut())?;
            }
            self.answer_waiting()?;
            for connection in self.connections.iter_mut().filter(|it| it.broken) {
                self.left.extend(connection.command.take().and_then(|mut it| it.take_notices()));
            }
            self.connections.retain(|connection| !connection.broken);
        }
        Ok(())
    }

    /// Blocks until something can be done or a time is due.
    fn wait(&self, signals: &SignalReader) -> io::Result<()> {
        let mut polled = vec![PollFd::new(signals, PollFlags::IN)];
        if self.connections.len() < CONNECTIONS_MAX {
            polled.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        if let Some(notices) = &self.notices {
            polled.push(PollFd::new(notices.listener(), PollFlags::IN));
        }
        polled.extend(self.left.iter().map(|notices| PollFd::new(notices.listener(), PollFlags::IN)));
        if let Some(way_out) = &self.way_out {
            way_out.poll(&mut polled);
        }
        if let Some(calls) = &self.calls {
            polled.push(PollFd::new(calls.listener(), PollFlags::IN));
        }
        for (output, stream) in [(&self.stdout, Stream::Stdout), (&self.stderr, Stream::Stderr)] {
            if let Some(pipe) = output.pipe().filter(|_| self.room(output, stream) > 0) {
                polled.push(PollFd::from_borrowed_fd(pipe, PollFlags::IN));
            }
        }
        for connection in &self.connections {
            let interest = if connection.is_backed_up() { PollFlags::OUT } else { PollFlags::IN };
            polled.push(PollFd::new(connection, interest));
            if let Some(command) = connection.command.as_ref().filter(|_| !connection.is_backed_up()) {
                command.poll(connection, &mut polled);
            }
        }
        if let Some(stdin) = &self.stdin
            && self.connections.iter().any(|it| it.stdin.is_some() && it.command.is_none())
        {
            polled.push(PollFd::new(stdin, PollFlags::OUT));
        }
        let timeout = self.next_look().map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// How long nothing has to be looked at by itself.
    fn next_look(&self) -> Option<Duration> {
        if self.phase != Phase::Running {
            return None;
        }
        let ran = self.started.elapsed();
        let until = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms).saturating_sub(ran));
        let ending = self.program.as_ref().is_some_and(|program| program.ended().is_some());
        let looks = [
            ending.then(|| Duration::from_millis(ENDING_LOOK_MS)),
            until(self.config.timeout_ms).filter(|_| self.passed.is_none()),
            (self.config.cpu_time_ms > 0).then(|| Duration::from_millis(CPU_LOOK_MS)),
            self.layers.as_ref().map(Disk::next_look).filter(|_| self.passed.is_none()),
            until(READER_GRACE_MS).filter(|left| !left.is_zero()),
        ];
        let commands = self.commands().filter_map(Command::time_left);
        looks.into_iter().flatten().chain(commands).min()
    }

    fn commands(&self) -> impl Iterator<Item = &Command> {
        self.connections.iter().filter_map(|connection| connection.command.as_ref())
    }

    fn room(&self, output: &Output, stream: Stream) -> usize {
        let offset = |connection: &Connection| match stream {
            Stream::Stdout => connection.stdout.offset,
            Stream::Stderr => connection.stderr.offset,
        };
        let slowest = self.connections.iter().filter_map(offset).min();
        output.room(slowest, self.started.elapsed() < Duration::from_millis(READER_GRACE_MS))
    }

    fn move_output(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let (out, err) = (self.room(&self.stdout, Stream::Stdout), self.room(&self.stderr, Stream::Stderr));
        for (output, room) in [(&mut self.stdout, out), (&mut self.stderr, err)] {
            if room > 0 && output.is_open() {
                output.take(room, buffer)?;
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        while self.connections.len() < CONNECTIONS_MAX {
            let Ok((socket, _)) = self.listener.accept() else { return };
            self.connections.extend(Connection::new(socket));
        }
    }

    fn talk(&mut self) -> io::Result<()> {
        self.commands = self.commands().count();
        let mut connections = std::mem::take(&mut self.connections);
        for connection in &mut connections {
            connection.flush();
            if connection.is_backed_up() || connection.broken {
                continue;
            }
            connection.fill();
            while !connection.is_backed_up() && !connection.broken {
                match connection.next() {
                    Ok(Some((id, request))) => self.answer(connection, id, request),
                    Ok(None) => break,
                    Err(_) => connection.broken = true,
                }
            }
            if let Some(mut command) = connection.command.take_if(|_| connection.broken) {
                self.commands = self.commands.saturating_sub(1);
                self.left.extend(command.take_notices());
            }
        }
        connections.append(&mut self.connections);
        self.connections = connections;
        Ok(())
    }

    fn answer(&mut self, connection: &mut Connection, id: u64, request: Request) {
        let refuse =
            |connection: &mut Connection, why: &str| connection.send(id, &Reply::Refused(why.to_owned()));
        if connection.command.is_some() {
            return connection.answer_for_command(id, request);
        }
        match request {
            Request::Execute(_)
                if !connection.passed.take().is_some_and(|token| StartToken::take(&token)) =>
            {
                refuse(connection, "nobody waits for it any more");
            }
            Request::Execute(execution) => match self.execute(&execution) {
                Ok(command) => {
                    self.commands += 1;
                    connection.command = Some(command);
                    connection.send(id, &Reply::Started);
                }
                Err(reply) => connection.send(id, &reply),
            },
            Request::Status => connection.send(id, &Reply::Status(self.report())),
            Request::Release => {
                let reply = self.release();
                connection.send(id, &reply);
            }
            Request::WayOut => match self.open_way_out(connection.passed.take()) {
                Ok(()) => connection.send(id, &Reply::Done),
                Err(why) => refuse(connection, &why),
            },
            Request::Cut(sockets) => {
                egress_sweep::cut(sockets.into_iter().collect());
                connection.send(id, &Reply::Done);
            }
            Request::Abort if self.phase == Phase::Held => {
                connection.send(id, &Reply::Done);
                self.done = true;
            }
            Request::Abort => refuse(connection, "it was released already"),
            Request::Signal(number) => match self.signal(number) {
                Ok(()) => connection.send(id, &Reply::Done),
                Err(error) => refuse(connection, &error.to_string()),
            },
            Request::Stdin(_) if self.stdin.is_none() || self.stdin_ends => {
                refuse(connection, "its standard input is closed");
            }
            Request::Stdin(_) if connection.stdin.is_some() => {
                refuse(connection, "one piece is under way already")
            }
            Request::Stdin(data) => connection.stdin = Some((id, data)),
            Request::StdinEnd => {
                self.stdin_ends = true;
                connection.send(id, &Reply::Done);
            }
            Request::Resize(size) => {
                // A program without a terminal has no window: nothing to do.
                if let Some(terminal) = self.stdout.pipe().filter(|_| self.config.terminal.is_some()) {
                    let _ = program::set_window(terminal, size);
                }
                connection.send(id, &Reply::Done);
            }
            Request::Read { stream, .. } if connection.reader(stream).waiting.is_some() => {
                refuse(connection, "this stream is being read already");
            }
            Request::Read { stream, offset } => {
                *connection.reader(stream) = connection::Reader { offset: Some(offset), waiting: Some(id) };
            }
            Request::Wait if connection.wait.is_some() => {
                refuse(connection, "it is being waited for already")
            }
            Request::Wait => connection.wait = Some(id),
            Request::Acknowledge if matches!(self.phase, Phase::Ended | Phase::Failed) => {
                connection.send(id, &Reply::Done);
                self.done = true;
            }
            Request::Acknowledge => refuse(connection, "it has not ended"),
        }
    }

    /// What goes out is held by Landlock beside the filter: a program that is quick enough could else make the kernel connect a
    /// socket that it was handed (`egress.rs`).
    fn open_way_out(&mut self, channel: Option<OwnedFd>) -> Result<(), String> {
        let way_out = self.way_out.as_mut().filter(|_| self.config.way_out);
        let way_out = way_out.ok_or("the program was not started with a way out")?;
        if self.features.landlock_abi < LANDLOCK_TCP_ABI {
            return Err("the kernel cannot hold a way out: it needs Landlock ABI 4 (Linux 6.7)".to_owned());
        }
        if !self.features.seccomp_notify {
            return Err("the kernel shows no system calls (seccomp user notification)".to_owned());
        }
        let channel = channel.ok_or("no channel came with it")?;
        way_out.open(channel).map_err(|error| error.to_string())
    }

    fn report(&self) -> Status {
        let (threads, usage) = match self.phase {
            Phase::Running => program::measure(&self.used),
            _ => (0, self.used.as_usage()),
        };
        Status {
            phase: self.phase,
            missing: self.missing.clone(),
            refused: self.refused.list(),
            suspended: self.suspended,
            threads,
            usage,
        }
    }

    fn release(&mut self) -> Reply {
        match self.phase {
            Phase::Held => {}
            Phase::Failed => return self.start_failure.clone().unwrap_or(Reply::Started),
            Phase::Running | Phase::Ended => return Reply::Started,
        }
        match self.begin() {
            Ok(()) => {
                self.phase = Phase::Running;
                Reply::Started
            }
            Err((step, errno, text)) => {
                let reply = Reply::StartFailed { step, errno, text };
                (self.phase, self.status) = (Phase::Failed, program::failed_status(errno));
                self.start_failure = Some(reply.clone());
                reply
            }
        }
    }

    /// One more command beside the program, with the program's plan.
    fn execute(&self, execution: &Execution) -> Result<Command, Box<Reply>> {
        let refused = |why: &str| Box::new(Reply::Refused(why.to_owned()));
        let is_there = self.program.as_ref().is_some_and(|program| program.ended().is_none());
        if self.phase != Phase::Running || !is_there || self.passed.is_some() {
            return Err(refused("the program does not run"));
        }
        if self.suspended {
            return Err(refused("the program is suspended"));
        }
        if self.commands + self.left.len() >= COMMANDS_MAX {
            let text =
                format!("{COMMANDS_MAX} commands run beside it already, or have left something behind");
            return Err(refused(&text));
        }
        Command::start(&self.config, &self.image, &self.features, execution).map_err(|error| {
            let (step, errno) = error.step_and_errno();
            let name = execution.command.first().map_or("", String::as_str);
            Box::new(Reply::StartFailed { step: step.to_owned(), errno, text: format!("{name}: {error}") })
        })
    }

    fn begin(&mut self) -> Result<(), (String, i32, String)> {
        if let Some(path) = &self.config.image_path {
            program::check_image(path, &self.image).map_err(|error| {
                ("check image".to_owned(), error.raw_os_error().unwrap_or(0), error.to_string())
            })?;
        }
        let result = Program::start(&self.config.plan, &self.image, &self.features, self.config.terminal);
        let (program, streams, listener) = result.map_err(|error| {
            let (step, errno) = error.step_and_errno();
            (step.to_owned(), errno, format!("{}: {error}", program::executable(&self.config.plan)))
        })?;
        self.started = Instant::now();
        self.program = Some(program);
        self.stdin = Some(streams.stdin);
        self.stdout.open(streams.stdout);
        if let Some(stderr) = streams.stderr {
            self.stderr.open(stderr);
        }
        match (listener, self.config.fixed) {
            (Some(listener), Some(fixed)) => {
                self.calls = Some(JobCalls::new(listener, fixed, self.config.calls_pass))
            }
            (Some(listener), None) => {
                let watch = self.config.watch.clone();
                let notices = Notices::new(listener, watch, self.config.own_network);
                self.notices = Some(notices.learning(self.learned.clone()));
            }
            (None, _) => {}
        }
        Ok(())
    }

    fn signal(&mut self, number: i32) -> io::Result<()> {
        let unknown = || io::Error::other(format!("{number} is not the number of a signal"));
        let signal = Signal::from_named_raw(number).ok_or_else(unknown)?;
        let program = self.program.as_ref().filter(|program| program.ended().is_none());
        let program = program.ok_or_else(|| io::Error::other("it does not run"))?;
        program.signal(signal)?;
        // These three mean the tree; the others are for the program to pass on.
        if matches!(signal, Signal::KILL | Signal::STOP | Signal::CONT) {
            program::signal_others(signal);
            self.ends |= signal == Signal::KILL;
            self.suspended = match signal {
                Signal::STOP => true,
                Signal::CONT => false,
                _ => self.suspended,
            };
        }
        Ok(())
    }

    fn feed_stdin(&mut self) {
        for connection in self.connections.iter_mut().filter(|it| it.command.is_none()) {
            let Some((id, mut data)) = connection.stdin.take() else { continue };
            let Some(stdin) = &self.stdin else {
                connection.send(id, &Reply::Refused("its standard input is closed".to_owned()));
                continue;
            };
            match rustix::io::write(stdin, &data) {
                Ok(written) => drop(data.drain(..written)),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                // It reads no more.
                Err(_) => {
                    self.stdin = None;
                    data.clear();
                }
            }
            if data.is_empty() {
                connection.send(id, &Reply::Done);
            } else {
                connection.stdin = Some((id, data));
            }
        }
        if self.stdin_ends && self.connections.iter().all(|connection| connection.stdin.is_none()) {
            self.stdin = None;
        }
    }

    /// Limits, deaths, and the end of the tree.
    fn watch_program(&mut self) -> io::Result<()> {
        if self.phase != Phase::Running {
            return Ok(());
        }
        self.enforce();
        self.reap()?;
        let Some(ended) = self.program.as_ref().and_then(Program::ended) else { return Ok(()) };
        for connection in &mut self.connections {
            connection.command.iter_mut().for_each(Command::end_with_program);
        }
        if !program::others().is_empty() {
            // Nothing of a program outlives it.
            program::signal_others(Signal::KILL);
            return Ok(());
        }
        (self.notices, self.calls, self.stdin) = (None, None, None);
        // `network` sees by it that the program has ended, however long its end waits to be read.
        self.way_out = None;
        self.left.clear();
        // The pipes have no writer left: they are read to their ends like before, at the pace of their readers.
        // A job that had no room left ends in its own way; that it had none is why.
        let full = self.outputs.is_some()
            && match ended {
                Ended::Code(code) => code != 0 && outputs::is_full(),
                Ended::Signal(signal) => signal == OVER_FILE_SIZE || outputs::is_full(),
            };
        self.status = match (self.passed, ended) {
            (Some(limit), _) => ExitStatus::Limit(limit.to_owned()),
            _ if full => ExitStatus::Limit(OUTPUT_LIMIT.to_owned()),
            (None, Ended::Signal(OVER_CPU_TIME)) => ExitStatus::Limit("cpu_time".to_owned()),
            (None, Ended::Code(code)) => ExitStatus::Code(code),
            (None, Ended::Signal(signal)) => ExitStatus::Signal(signal),
        };
        if self.status == ExitStatus::Code(0) {
            match self.outputs.as_ref().map(Outputs::take) {
                Some(Err(Untaken::OverLimit)) => self.status = ExitStatus::Limit(OUTPUT_LIMIT.to_owned()),
                Some(Err(Untaken::Failed(why))) => self.untaken = Some(why),
                Some(Ok(())) | None => {}
            }
        }
        self.phase = Phase::Ended;
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Some(reaped) = reap()? {
            self.used.add(reaped.usage);
            if self.program.as_mut().is_some_and(|program| program.has_ended(&reaped)) {
                continue;
            }
            let mut commands = self.connections.iter_mut().filter_map(|it| it.command.as_mut());
            if let Some(command) = commands.find_map(|it| it.has_ended(&reaped, self.ends).then_some(it)) {
                self.left.extend(command.take_notices());
            }
        }
        Ok(())
    }

    fn enforce(&mut self) {
        let ran_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let passed = |limit: u64, used: u64| limit > 0 && used >= limit;
        if self.passed.is_none() {
            let limit = if passed(self.config.timeout_ms, ran_ms) {
                Some("wall_time")
            } else if self.config.cpu_time_ms > 0
                && passed(self.config.cpu_time_ms, program::cpu_us(&self.used) / 1000)
            {
                Some("cpu_time")
            } else if self.layers.as_mut().is_some_and(|disk| disk.is_over(program::others)) {
                Some("disk")
            } else {
                None
            };
            if let Some(limit) = limit {
                self.end_for(limit);
            }
        }
    }

    /// The first reason counts.
    fn end_for(&mut self, limit: &'static str) {
        self.passed.get_or_insert(limit);
        if let Some(program) = &self.program {
            // Gone already is what is wanted.
            let _ = program.signal(Signal::KILL);
        }
        program::signal_others(Signal::KILL);
    }

    fn answer_waiting(&mut self) -> io::Result<()> {
        let ended = matches!(self.phase, Phase::Ended | Phase::Failed);
        for connection in self.connections.iter_mut().filter(|it| it.command.is_none()) {
            for (stream, output) in [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)] {
                let backed_up = connection.is_backed_up();
                let reader = connection.reader(stream);
                let (Some(id), Some(offset)) = (reader.waiting, reader.offset) else { continue };
                // Before it starts there is no pipe, which must not look like the end.
                if backed_up || self.phase == Phase::Held {
                    continue;
                }
                if let Some((offset, data, end)) = output.read(offset)? {
                    reader.waiting = None;
                    reader.offset = (!end).then_some(offset + data.len() as u64);
                    connection.send(id, &Reply::Output { offset, data, end });
                }
            }
            if ended && let Some(id) = connection.wait.take() {
                let (used, used_is_incomplete) =
                    self.learned.as_ref().map(|learned| learned.borrow().told()).unwrap_or_default();
                let ended = protocol::Ended {
                    status: self.status.clone(),
                    usage: self.used.as_usage(),
                    refused: self.refused.list(),
                    untaken: self.untaken.clone(),
                    used,
                    used_is_incomplete,
                };
                connection.send(id, &Reply::Ended(ended));
            }
        }
        Ok(())
    }
}
