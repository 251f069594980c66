//! From the keeper's answer to a program that is there: what comes before it, and the daemon that it leaves.
//!
//! The machine knows none of this: it is told of a launch when the process that stays is there, or that there is none.

use std::sync::Arc;

use chain::payload::service::ServiceError;
use sandbox::{keeper_protocol::Exit, process};

use super::{
    control::ended_how,
    keeper_client::Started,
    launches::{self, Fault, KEYS},
    run::Shell,
};
use crate::{
    core::supervisor::{Event, LaunchId, Signal, Supervisor},
    manifest::{CommandRole, LoadedManifest, ProgramConfig},
};

/// A launch whose program is not there yet: the keeper has not answered, or something comes before the program.
#[derive(Debug)]
pub(super) struct Launching {
    pub(super) manifest: Arc<LoadedManifest>,
    pub(super) signals: Vec<Signal>,
    pub(super) exit: Option<Exit>,
    /// What the keeper answered, of a program that settles later.
    pub(super) started: Option<Started>,
    pub(super) settled: Option<u32>,
    /// The last command before it that has ended.
    pub(super) command: Option<(u16, process::ExitStatus)>,
}

impl Launching {
    pub(super) fn new(manifest: Arc<LoadedManifest>) -> Self {
        Self { manifest, signals: Vec::new(), exit: None, started: None, settled: None, command: None }
    }

    /// By the supervisor before, which is not there to be told the rest.
    pub(super) fn taken_up(manifest: Arc<LoadedManifest>, started: Started) -> Self {
        Self { started: Some(started), ..Self::new(manifest) }
    }

    fn settles_later(&self) -> bool {
        self.manifest.manifest.program.as_ref().is_some_and(ProgramConfig::settles_later)
    }

    /// Why a program that never settled has ended.
    fn why(&self, exit: &Exit) -> String {
        let program = self.manifest.manifest.program.as_ref();
        let command = self.command.and_then(|(place, status)| {
            let CommandRole::Before(number) = program?.role(place)? else { return None };
            let words = &program?.before.get(number)?.command;
            (status != process::ExitStatus::Code(0)).then(|| (words.join(" "), status))
        });
        match command {
            Some((words, status)) => format!("{words:?}, which runs before it, {}", ended_how(status)),
            None if exit.status == process::ExitStatus::Code(0) => {
                "it ended and left no daemon behind (runs = \"forks\")".to_owned()
            }
            None => format!("it {} before it was there", ended_how(exit.status)),
        }
    }
}

impl Shell {
    /// The keeper has answered. A program that comes later is waited for; the time limit of the start is the machine's.
    pub(super) fn launched(
        &mut self,
        machine: &mut Supervisor,
        launch: LaunchId,
        result: Result<Started, Fault>,
    ) {
        let Some(mut launching) = self.launching.remove(&launch) else { return };
        match result {
            Ok(started) if launching.settles_later() => {
                let signals = std::mem::take(&mut launching.signals);
                let settled = launching.settled;
                launching.started = Some(started);
                self.launching.insert(launch, launching);
                // What the host could not give is told once, and recorded when the program is there.
                self.unremembered = true;
                for signal in signals {
                    self.signal(machine, launch, signal);
                }
                if let Some(pid) = settled {
                    self.settled(machine, launch, pid);
                }
            }
            Ok(started) => self.is_there(machine, launch, started, launching),
            Err((error, text)) => self.not_launched(machine, launch, error, text),
        }
        self.end_unsettled(machine, launch);
    }

    fn is_there(
        &mut self,
        machine: &mut Supervisor,
        launch: LaunchId,
        started: Started,
        launching: Launching,
    ) {
        self.step(machine, Event::Launched { launch, pid: started.pid, missing: started.missing });
        for signal in launching.signals {
            self.signal(machine, launch, signal);
        }
        if let Some(exit) = launching.exit {
            self.exited(machine, launch, exit);
        }
    }

    fn not_launched(
        &mut self,
        machine: &mut Supervisor,
        launch: LaunchId,
        error: ServiceError,
        text: String,
    ) {
        let service = self.launches.remove(&launch).unwrap_or_default();
        self.ways_out.end(launch);
        tracing::error!(service, ?error, text, "not launched");
        if service == KEYS {
            launches::kill(&self.applier.keeper, launches::companion(launch));
        }
        self.step(machine, Event::LaunchFailed { launch, error, text });
    }

    /// What came before the program is done.
    pub(super) fn settled(&mut self, machine: &mut Supervisor, launch: LaunchId, pid: u32) {
        let Some(launching) = self.launching.get_mut(&launch) else { return };
        let Some(mut started) = launching.started.take() else {
            launching.settled = Some(pid);
            return;
        };
        started.pid = pid;
        if let Some(launching) = self.launching.remove(&launch) {
            self.is_there(machine, launch, started, launching);
        }
    }

    /// It ended before it was there: nothing was launched.
    pub(super) fn end_unsettled(&mut self, machine: &mut Supervisor, launch: LaunchId) {
        let ended = |launching: &Launching| launching.started.is_some() && launching.exit.is_some();
        if !self.launching.get(&launch).is_some_and(ended) {
            return;
        }
        let Some(launching) = self.launching.remove(&launch) else { return };
        let text = launching.exit.as_ref().map_or_else(String::new, |exit| launching.why(exit));
        self.acknowledge(launch.0);
        self.not_launched(machine, launch, ServiceError::LaunchFailed, text);
    }
}
