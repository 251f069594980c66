//! One service from the wish to stop it to `Stopped` (SUP-95), and which services must stop.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chain::payload::service::ServiceError;

use super::{
    EMERGENCY_STOP_TIMEOUT, Effect, ExitStatus, KILL_TIMEOUT, LaunchId, Signal, Supervisor, SupervisorError,
    service::{Goal, Permit, Service, Stage},
};
use crate::{
    core::{
        catalogue,
        lifecycle::LifecycleMessage,
        state::{ServiceState, Transition},
    },
    manifest::RestartMode,
};

impl Supervisor {
    pub(super) fn stop_what_must_stop(&mut self) {
        let leaving = self.leaving();
        let order = Arc::clone(self.graph.stop_order());
        for name in order.iter().filter(|name| leaving.contains(*name)) {
            match self.state_of(name) {
                Some(ServiceState::Running | ServiceState::Degraded) if !self.has_live_dependents(name) => {
                    self.begin_stop(name);
                }
                Some(ServiceState::Failed { .. }) => self.settle_failed(name),
                Some(ServiceState::Starting) => self.stop_a_start(name),
                Some(ServiceState::Registered | ServiceState::Stopped) => self.disappoint(name),
                _ => {}
            }
        }
    }

    /// Services that must not run, or not go on running as they do.
    pub(super) fn leaving(&self) -> BTreeSet<String> {
        let phase = self.stopping_phase();
        // In a shutdown nothing comes back.
        let returns = |service: &Service| service.is_wanted() && !self.is_ending();
        let mut leaving: BTreeSet<String> = BTreeSet::new();
        for name in self.graph.start_order().iter() {
            let Some(service) = self.services.get(name) else { continue };
            let asked = (service.goal == Goal::Down && !service.listens())
                || service.bounce
                || service.replacement.is_some();
            let ends = phase.is_some_and(|phase| service.phase >= phase);
            let lost = |dependency: &str| match self.services.get(dependency) {
                None => true,
                Some(other) => {
                    leaving.contains(dependency)
                        || (other.state.rests() && !returns(other) && !other.listens())
                }
            };
            if asked || ends || self.graph.check(name).is_err() || self.graph.required(name).any(lost) {
                leaving.insert(name.clone());
            }
        }
        leaving
    }

    fn has_live_dependents(&self, name: &str) -> bool {
        self.graph.dependents(name).iter().filter_map(|other| self.services.get(other)).any(|s| s.is_live())
    }

    /// A start cannot be stopped, only fail; it is waited for unless there is no time.
    fn stop_a_start(&mut self, name: &str) {
        let killed = |stage| matches!(stage, Stage::Killed | Stage::Stuck);
        let stage = self.services.get(name).and_then(|service| service.instance.as_ref()).map(|i| i.stage);
        if self.is_emergency() && !stage.is_none_or(killed) {
            self.kill(name);
        }
    }

    /// Whoever waits for this service to start waits in vain.
    fn disappoint(&mut self, name: &str) {
        let waits = |s: &Service| s.goal == Goal::Up && s.replacement.is_none() && !s.bounce;
        if !self.services.get(name).is_some_and(|s| !s.start_waiters.is_empty() && waits(s)) {
            return;
        }
        let why = self.dependency_error(name).unwrap_or_else(|| "a required service stops".to_owned());
        let error = SupervisorError::DependencyNotRunning { service: name.to_owned(), why };
        self.drain_start_waiters(name, &error);
    }

    pub(super) fn drain_start_waiters(&mut self, name: &str, error: &SupervisorError) {
        let Some(service) = self.services.get_mut(name) else { return };
        for request in std::mem::take(&mut service.start_waiters) {
            self.reply(request, Err(error.clone()));
        }
    }

    fn begin_stop(&mut self, name: &str) {
        if name == catalogue::LOG && self.is_ending() && !self.last_entries_written() {
            return;
        }
        let reason = self.stop_reason(name);
        self.tell_to_stop(name, reason);
    }

    pub(super) fn tell_to_stop(&mut self, name: &str, reason: String) {
        if !self.go(name, Transition::Stop, &reason) {
            return;
        }
        let timeout = self.stop_timeout(name);
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        service.stop_reason = reason;
        let speaks = service.speaks_lifecycle();
        let Some(instance) = service.instance.as_mut() else { return };
        instance.next_check = None;
        instance.watchdog_due = None;
        instance.call = None;
        let launch = instance.launch;
        if speaks {
            instance.stage = Stage::Draining;
            instance.deadline = Some(now.after(timeout));
            self.send(name, LifecycleMessage::PrepareStop);
        } else {
            // A foreign program has one step that is as long as the two.
            instance.stage = Stage::Ending;
            instance.deadline = Some(now.after(timeout.saturating_mul(2)));
            self.effects.push(Effect::Signal { launch, signal: Signal::Terminate });
        }
    }

    pub(super) fn stop_reason(&self, name: &str) -> String {
        if let Some(shutdown) = &self.shutdown {
            return format!("shutdown: {}", shutdown.reason);
        }
        match self.services.get(name) {
            Some(service) if service.goal == Goal::Down => "requested".to_owned(),
            Some(service) if service.replacement.is_some() => "new manifest".to_owned(),
            Some(service) if service.bounce => "restart requested".to_owned(),
            _ => "a required service stops".to_owned(),
        }
    }

    fn stop_timeout(&self, name: &str) -> Duration {
        let own = self.services.get(name).map_or(Duration::ZERO, |s| s.manifest().health.stop_timeout);
        if self.is_emergency() { own.min(EMERGENCY_STOP_TIMEOUT) } else { own }
    }

    /// The work in hand is done, or its time is up.
    pub(super) fn end(&mut self, name: &str) {
        let timeout = self.stop_timeout(name);
        let now = self.now;
        let Some(instance) = self.services.get_mut(name).and_then(|service| service.instance.as_mut()) else {
            return;
        };
        if instance.stage != Stage::Draining {
            return;
        }
        instance.stage = Stage::Ending;
        instance.deadline = Some(now.after(timeout));
        self.send(name, LifecycleMessage::Stop);
    }

    pub(super) fn kill(&mut self, name: &str) {
        let now = self.now;
        let Some(instance) = self.services.get_mut(name).and_then(|service| service.instance.as_mut()) else {
            return;
        };
        instance.stage = Stage::Killed;
        instance.deadline = Some(now.after(KILL_TIMEOUT));
        instance.call = None;
        instance.next_check = None;
        instance.watchdog_due = None;
        instance.late = None;
        self.effects.push(Effect::Signal { launch: instance.launch, signal: Signal::Kill });
    }

    /// The time of a stage is up.
    pub(super) fn expire_stage(&mut self, name: &str) {
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(instance) = service.instance.as_mut() else { return };
        if instance.deadline.take_if(|deadline| *deadline <= now).is_none() {
            return;
        }
        let limit = service.manifest().health.startup_timeout;
        match service.instance.as_ref().map(|instance| instance.stage) {
            Some(Stage::Launching | Stage::Readying) => {
                let text = format!("not ready within {} ms", limit.as_millis());
                self.fail(name, ServiceError::StartupTimeout, &text);
            }
            Some(Stage::Draining) => self.end(name),
            Some(Stage::Ending) => self.stop_timed_out(name),
            Some(Stage::Killed) => self.stuck(name),
            Some(Stage::Serving | Stage::Stuck) | None => {}
        }
    }

    fn stop_timed_out(&mut self, name: &str) {
        let text = "did not end in time after it was told to stop, and was killed";
        if let Some(service) = self.services.get_mut(name) {
            service.last_error = Some(text.to_owned());
        }
        self.go(name, Transition::ShutdownTimeout, text);
        self.record_failure(name, ServiceError::ShutdownTimeout, text);
        self.kill(name);
    }

    /// Not even SIGKILL ends it. It is never started a second time beside itself, but nobody waits for it either.
    fn stuck(&mut self, name: &str) {
        if let Some(instance) = self.services.get_mut(name).and_then(|service| service.instance.as_mut()) {
            instance.stage = Stage::Stuck;
            self.changed = true;
            self.effects
                .push(Effect::Warn(format!("{name} does not end after SIGKILL; going on without it")));
        }
    }

    pub(super) fn exited(&mut self, launch: LaunchId, status: ExitStatus) {
        if let Some(name) = self.owner(launch) {
            self.unremembered = true;
            self.changed = true;
            self.ended(&name, status);
        }
        self.effects.push(Effect::Acknowledge { launch });
    }

    pub(super) fn ended(&mut self, name: &str, status: ExitStatus) {
        let Some(service) = self.services.get(name) else { return };
        let is_job = service.runs_once();
        // What is started by something comes back by that; a job has done what it is for.
        let comes_back = service.mode == RestartMode::Always && !service.is_triggered() && !is_job;
        let is_done = status.is_success() && !comes_back;
        if is_done && is_job {
            // Over before it was known to run.
            self.ready(name);
        }
        let Some(service) = self.services.get_mut(name) else { return };
        service.instance = None;
        match service.state {
            ServiceState::Stopping => self.stopped(name),
            ServiceState::Failed { .. } => self.settle_failed(name),
            ServiceState::Running | ServiceState::Degraded if is_done => {
                service.goal = Goal::Down;
                service.stop_reason = "ended by itself with success".to_owned();
                self.go(name, Transition::Stop, "ended by itself");
                self.stopped(name);
            }
            ServiceState::Starting | ServiceState::Running | ServiceState::Degraded => {
                let text = match status {
                    ExitStatus::Code(code) => format!("exited with code {code}"),
                    ExitStatus::Signal(signal) => format!("was ended by signal {signal}"),
                };
                self.fail(name, ServiceError::Crashed { status: status.number() }, &text);
            }
            ServiceState::Registered | ServiceState::Stopped | ServiceState::Restarting => {}
        }
    }

    fn stopped(&mut self, name: &str) {
        self.go(name, Transition::ShutdownComplete, "stopped");
        // The log's own stop is written before it stops.
        if !(name == catalogue::LOG && self.is_ending()) {
            self.record_stop(name);
        }
        self.rested(name);
    }

    /// After a service came to `Stopped`, whatever the way.
    pub(super) fn rested(&mut self, name: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.restart_at = None;
        service.stop_authorization = None;
        if !service.is_wanted() {
            // The next start needs a decision of its own.
            service.permit = Permit::None;
            self.effects.push(Effect::Rested { service: name.to_owned() });
        }
        let waiters = std::mem::take(&mut service.stop_waiters);
        for request in waiters {
            self.reply_status(request, name);
        }
    }
}
