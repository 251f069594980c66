//! The monitor: one for each program, PID 1 of its namespaces, outside of its filter.
//!
//! Promises: the program runs only after `Release`; output, exit status and refused calls are kept until they were
//! acknowledged, whoever died meanwhile; when the program ends, nothing of its tree is left. Never does: decide what
//! is allowed, open a path that the program names, allocate without bound. Calls nobody; process_manager calls it, on
//! a socket that stands in process_manager's own folder. When it dies, the kernel ends the whole namespace.
//!
//! Reading order: `main` and `Monitor::run` are the loop, `protocol.rs` is what can be said to it and `requests.rs` what it answers,
//! `notice.rs` is what it sees, `ending.rs` how it ends.

mod command;
mod connection;
mod datagrams;
mod disk;
mod egress;
mod egress_calls;
mod egress_sweep;
mod ending;
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
mod requests;
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
    Features, Ready,
    inherited::adopt_descriptor,
    prepare,
    process::{Signal, SignalReader, adopt_orphans, forbid_inspection},
};
use thiserror::Error;

use crate::core::{DATAGRAMS_FD, DETERMINISM, LAYERS_FD, Learned, NAMES_FD};
use command::Command;
use connection::Connection;
use datagrams::Datagrams;
use disk::Disk;
use egress::WayOut;
use job_calls::JobCalls;
use names::NameServer;
use notice::Notices;
use output::{Output, PIECE_BYTES, READER_GRACE_MS};
use outputs::Outputs;
use program::{Program, Used};
use protocol::{Config, Phase, Reply, Stream};
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
            let ready = self.wait(signals)?;
            while ready.has(signals) && signals.next()?.is_some() {}
            // Before Linux 6.11 a call is waited for, for good, where nobody is left to make one: to have spoken is not enough.
            if let Some(notices) = &self.notices
                && ready.has(notices.listener())
                && is_readable(notices.listener())
            {
                notices.serve(&mut self.refused, self.way_out.as_mut())?;
            }
            let shows = |notices: &Notices| ready.has(notices.listener());
            self.left.retain(|notices| !(shows(notices) && notices.is_over()));
            for notices in self.left.iter().filter(|it| shows(it)) {
                notices.serve(&mut self.refused, self.way_out.as_mut())?;
            }
            if let Some(way_out) = &mut self.way_out {
                way_out.serve(&ready, &mut self.refused)?;
            }
            if let Some(calls) = &mut self.calls
                && ready.has(calls.listener())
                && is_readable(calls.listener())
                && calls.serve(&mut self.refused)?
            {
                self.end_for(DETERMINISM);
            }
            self.move_output(&ready, &mut buffer)?;
            if ready.has(&self.listener) {
                self.accept();
            }
            self.talk(&ready)?;
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
    fn wait(&self, signals: &SignalReader) -> io::Result<Ready> {
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
            Ok(_) => Ok(Ready::of(&polled)),
            Err(rustix::io::Errno::INTR) => Ok(Ready::default()),
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

    fn move_output(&mut self, ready: &Ready, buffer: &mut [u8]) -> io::Result<()> {
        let (out, err) = (self.room(&self.stdout, Stream::Stdout), self.room(&self.stderr, Stream::Stderr));
        for (output, room) in [(&mut self.stdout, out), (&mut self.stderr, err)] {
            if room > 0 && output.pipe().is_some_and(|pipe| ready.has(pipe)) {
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
}
