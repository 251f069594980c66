//! How a program that runs is told something: to end, to read its configuration again; and how it is asked whether it is
//! well, by a command in its sandbox.

use std::time::Duration;

use sandbox::process::{ExitStatus, Signal};
use tokio::sync::oneshot;

use super::{inputs::Input, keeper_client::Keeper, plans, run::Shell};
use crate::{
    core::supervisor::{CallId, Event, LaunchId, Reply, RequestId, Supervisor, SupervisorError},
    manifest::{CommandRole, ControlSignal, ProgramConfig, ServiceManifest},
};

/// A check by a command that is under way, until its end is told.
pub(super) struct Check {
    /// Its number with the keeper: the end of another, of a supervisor before, is none of it.
    run: u64,
    ended: oneshot::Sender<ExitStatus>,
    /// What is asked for meanwhile: this one took too long.
    next: Option<(CallId, Duration)>,
}

/// The end of a command that ran beside a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) place: u16,
    pub(super) status: ExitStatus,
    pub(super) run: u64,
}

const fn number(signal: ControlSignal) -> Signal {
    match signal {
        ControlSignal::Term => Signal::TERM,
        ControlSignal::Quit => Signal::QUIT,
        ControlSignal::Int => Signal::INT,
        ControlSignal::Hup => Signal::HUP,
        ControlSignal::Usr1 => Signal::USR1,
        ControlSignal::Usr2 => Signal::USR2,
        ControlSignal::Winch => Signal::WINCH,
        ControlSignal::Kill => Signal::KILL,
    }
}

pub(super) fn ended_how(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("ended with code {code}"),
        ExitStatus::Signal(signal) => format!("was ended by signal {signal}"),
    }
}

impl Shell {
    pub(super) fn send_signal(&self, launch: LaunchId, signal: Signal) {
        let sent = self.applier.keeper.signal(launch.0, signal.as_raw());
        tokio::spawn(async move {
            if let Err(error) = sent.await {
                tracing::debug!(%error, %launch, "not signalled: it has ended");
            }
        });
    }

    /// By its command, and then by its signal; what does neither in time is killed by the machine.
    pub(super) fn tell_to_end(&self, machine: &Supervisor, launch: LaunchId) {
        let place = machine.program_of(launch).and_then(|program| program.place(CommandRole::Stop));
        let Some(place) = place else { return self.send_stop_signal(machine, launch) };
        let stop_signal = stop_signal(machine.program_of(launch));
        let keeper = self.applier.keeper.clone();
        let asked = keeper.run(launch.0, place);
        tokio::spawn(async move {
            if let Err(error) = asked.await {
                tracing::warn!(%error, %launch, "the command that stops it does not run; it is sent its signal");
                let _ = keeper.signal(launch.0, stop_signal.as_raw()).await;
            }
        });
    }

    pub(super) fn send_stop_signal(&self, machine: &Supervisor, launch: LaunchId) {
        self.send_signal(launch, stop_signal(machine.program_of(launch)));
    }

    pub(super) fn reload(&mut self, machine: &Supervisor, launch: LaunchId, request: RequestId) {
        if self.reloads.contains_key(&launch) {
            let busy = SupervisorError::Busy { what: "reloads of one service", limit: 1 };
            return self.answer(request, Err(busy));
        }
        let Some(program) = machine.program_of(launch) else { return };
        if let Some(signal) = program.reload_signal {
            self.send_signal(launch, number(signal));
            let status = self.status(machine, launch);
            return self.answer(request, status);
        }
        let Some(place) = program.place(CommandRole::Reload) else { return };
        self.reloads.insert(launch, request);
        let asked = self.applier.keeper.run(launch.0, place);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            if let Err(error) = asked.await {
                let _ = inputs.send(Input::NotReloaded { launch, text: error.to_string() });
            }
        });
    }

    /// The command at this place of those that follow the start; none is left when there is no such place.
    pub(super) fn run_after(&self, machine: &Supervisor, launch: LaunchId, number: usize) {
        let place = machine.program_of(launch).and_then(|program| program.place(CommandRole::After(number)));
        let Some(place) = place else { return };
        let asked = self.applier.keeper.run(launch.0, place);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            if let Err(error) = asked.await {
                let text = format!("what follows its start does not run: {error}");
                let _ = inputs.send(Input::Event(Event::AfterFailed { launch, text }));
            }
        });
    }

    /// Runs the check of a service where the service runs. Its end is waited for in a task; one that takes too long is
    /// ended, and the next waits until it has.
    pub(super) fn probe_by_command(
        &mut self,
        manifest: &ServiceManifest,
        launch: LaunchId,
        call: CallId,
        timeout: Duration,
    ) {
        let Some(place) = plans::place_of_check(manifest) else { return };
        let (keeper, inputs) = (self.applier.keeper.clone(), self.inputs.clone());
        if let Some(before) = self.checks.get_mut(&launch) {
            before.next = Some((call, timeout));
            return end_command(&keeper, launch, place);
        }
        let (ended, end) = oneshot::channel();
        let run = keeper.next_run();
        self.checks.insert(launch, Check { run, ended, next: None });
        let asked = keeper.run_as(launch.0, place, run);
        tokio::spawn(async move {
            let result = match asked.await {
                Ok(()) => end_of_check(&keeper, launch, place, end, timeout).await,
                Err(error) => {
                    // One of the supervisor before may run still.
                    end_command(&keeper, launch, place);
                    let _ = inputs.send(Input::CheckGone { launch, run });
                    Err(format!("the check does not run: {error}"))
                }
            };
            let _ = inputs.send(Input::Event(Event::ProbeResult { launch, call, result }));
        });
    }

    /// Runs the next check, if one waits. Without a status it was not run.
    pub(super) fn check_is_over(
        &mut self,
        machine: &Supervisor,
        launch: LaunchId,
        run: u64,
        status: Option<ExitStatus>,
    ) {
        if self.checks.get(&launch).is_none_or(|check| check.run != run) {
            return;
        }
        let Some(Check { ended, next, .. }) = self.checks.remove(&launch) else { return };
        if let Some(status) = status {
            let _ = ended.send(status);
        }
        if let (Some((call, timeout)), Some(loaded)) = (next, machine.manifest_of(launch)) {
            self.probe_by_command(&loaded.manifest, launch, call, timeout);
        }
    }

    /// A command of a service has ended.
    pub(super) fn command_done(
        &mut self,
        machine: &mut Supervisor,
        launch: LaunchId,
        Done { place, status, run }: Done,
    ) {
        if place >= u16::from(sandbox::EXECUTED_FROM) {
            return self.applier.executions.ended(run, status);
        }
        if let Some(launching) = self.launching.get_mut(&launch) {
            launching.command = Some((place, status));
            return;
        }
        let check = machine.manifest_of(launch).and_then(|loaded| plans::place_of_check(&loaded.manifest));
        if check.is_some_and(|check| u16::from(check) == place) {
            return self.check_is_over(machine, launch, run, Some(status));
        }
        let role = machine.program_of(launch).and_then(|program| program.role(place));
        match role {
            Some(CommandRole::Stop) => {
                if status != ExitStatus::Code(0) {
                    tracing::warn!(%launch, ?status, "the command that stops it failed; it is sent its signal");
                }
                self.send_stop_signal(machine, launch);
            }
            Some(CommandRole::Reload) => {
                let result = match status {
                    ExitStatus::Code(0) => Ok(()),
                    status => Err(format!("the command that reloads it {}", ended_how(status))),
                };
                self.reloaded(machine, launch, result);
            }
            Some(CommandRole::After(number)) => {
                let command = machine.program_of(launch).and_then(|program| program.after.get(number));
                let failed = command.filter(|one| !one.may_fail && status != ExitStatus::Code(0));
                match failed.map(|one| one.command.join(" ")) {
                    Some(words) => {
                        let text = format!("{words:?}, which follows its start, {}", ended_how(status));
                        self.step(machine, Event::AfterFailed { launch, text });
                    }
                    None => self.run_after(machine, launch, number + 1),
                }
            }
            Some(CommandRole::Before(_)) | None => {}
        }
    }

    /// Answers who waits for it, if anybody does.
    pub(super) fn reloaded(&mut self, machine: &Supervisor, launch: LaunchId, result: Result<(), String>) {
        let Some(request) = self.reloads.remove(&launch) else { return };
        let answer = match result {
            Ok(()) => self.status(machine, launch),
            Err(text) => Err(SupervisorError::NotReloaded { service: self.name(launch), text }),
        };
        self.answer(request, answer);
    }

    fn name(&self, launch: LaunchId) -> String {
        self.launches.get(&launch).cloned().unwrap_or_default()
    }

    fn status(&self, machine: &Supervisor, launch: LaunchId) -> Result<Reply, SupervisorError> {
        let status = machine.status_of_launch(launch).map(|status| Reply::Status(Box::new(status)));
        status.ok_or_else(|| SupervisorError::NotRunning(self.name(launch)))
    }

    fn answer(&mut self, request: RequestId, result: Result<Reply, SupervisorError>) {
        if let Some((answer, _)) = self.callers.remove(&request) {
            let _ = answer.send(result);
        }
    }
}

fn end_command(keeper: &Keeper, launch: LaunchId, place: u8) {
    let asked = keeper.end_command(launch.0, place);
    tokio::spawn(async move {
        if let Err(error) = asked.await {
            tracing::debug!(%error, %launch, "a command is not ended: its service has");
        }
    });
}

async fn end_of_check(
    keeper: &Keeper,
    launch: LaunchId,
    place: u8,
    end: oneshot::Receiver<ExitStatus>,
    timeout: Duration,
) -> Result<(), String> {
    match tokio::time::timeout(timeout, end).await {
        Ok(Ok(ExitStatus::Code(0))) => Ok(()),
        Ok(Ok(status)) => Err(format!("the check {}", ended_how(status))),
        Ok(Err(_)) => Err("nobody saw how the check ended".to_owned()),
        Err(_) => {
            end_command(keeper, launch, place);
            Err(format!("the check did not end within {} ms", timeout.as_millis()))
        }
    }
}

fn stop_signal(program: Option<&ProgramConfig>) -> Signal {
    number(program.map_or(ControlSignal::Term, |program| program.stop_signal))
}
