//! Limits and deaths, and the end of a program's tree.

use std::io;

use chain::payload::process::ExitStatus;
use sandbox::process::{ExitStatus as Ended, Signal, reap};

use super::{
    Monitor,
    command::Command,
    outputs::{self, Outputs, Untaken},
    program::{self, Program},
    protocol::Phase,
};
use crate::core::OUTPUT_LIMIT;

/// SIGXCPU and SIGXFSZ.
const OVER_CPU_TIME: i32 = 24;
const OVER_FILE_SIZE: i32 = 25;

impl Monitor {
    /// Limits, deaths, and the end of the tree.
    pub(super) fn watch_program(&mut self) -> io::Result<()> {
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
    pub(super) fn end_for(&mut self, limit: &'static str) {
        self.passed.get_or_insert(limit);
        if let Some(program) = &self.program {
            // Gone already is what is wanted.
            let _ = program.signal(Signal::KILL);
        }
        program::signal_others(Signal::KILL);
    }
}
