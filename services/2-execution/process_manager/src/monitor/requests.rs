//! What process_manager asks of a monitor, and what it answers.

use std::{io, os::fd::OwnedFd, time::Instant};

use sandbox::{Ready, StartToken, process::Signal};

use super::{
    Monitor,
    command::{COMMANDS_MAX, Command},
    connection::{self, Connection},
    egress_sweep,
    job_calls::JobCalls,
    notice::Notices,
    program::{self, Program},
    protocol::{self, Phase, Reply, Request, Status, Stream},
};
use crate::core::Execution;

/// The first that refuses `connect` and `bind` of TCP.
const LANDLOCK_TCP_ABI: u32 = 4;

impl Monitor {
    pub(super) fn talk(&mut self, ready: &Ready) -> io::Result<()> {
        self.commands = self.commands().count();
        let mut connections = std::mem::take(&mut self.connections);
        for connection in &mut connections {
            connection.flush();
            if connection.is_backed_up() || connection.broken {
                continue;
            }
            if ready.has(&*connection) {
                connection.fill();
            }
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

    pub(super) fn feed_stdin(&mut self) {
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

    pub(super) fn answer_waiting(&mut self) -> io::Result<()> {
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
