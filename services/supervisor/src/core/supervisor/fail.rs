//! What follows a failure: the record, the kill, the restart or its end (SUP-50, SUP-51, SUP-66 to SUP-68, SUP-96).

use chain::payload::service::ServiceError;

use super::{
    LAGGARD_INTERVAL, Supervisor, SupervisorError, bounded,
    service::{Permit, Service},
};
use crate::{
    core::{
        graph::Graph,
        restart::{ExhaustedAction, Verdict},
        state::{ServiceState, Transition},
    },
    manifest::RestartMode,
};

impl Supervisor {
    /// A service that starts or runs has failed. If its process lives it is killed, and what comes next waits for its
    /// end, so that there are never two.
    pub(super) fn fail(&mut self, name: &str, error: ServiceError, text: &str) {
        let starting = self.state_of(name) == Some(ServiceState::Starting);
        let transition =
            if starting { Transition::StartupError(error) } else { Transition::FatalError(error) };
        if !self.go(name, transition, text) {
            return;
        }
        let Some(service) = self.services.get_mut(name) else { return };
        service.last_error = Some(bounded(text));
        service.failed_once = true;
        let lives = service.instance.is_some();
        self.record_failure(name, error, text);
        if lives {
            self.kill(name);
        }
        let rolled_back = starting && self.roll_back(name, text);
        if !rolled_back && starting {
            self.drain_start_waiters(name, &start_error(name, error, text));
        }
        if !lives {
            self.settle_failed(name);
        }
    }

    /// Decides between restart and rest once nothing of a failed service runs any more.
    pub(super) fn settle_failed(&mut self, name: &str) {
        let ending = self.is_ending();
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        let ServiceState::Failed { error } = service.state else { return };
        if service.instance.is_some() {
            return;
        }
        if ending || !service.is_wanted() || service.bounce || service.replacement.is_some() {
            return self.give_up(name, "shall be down");
        }
        if service.restart_at.is_some() {
            // It waits; a dependency that goes for good ends the waiting.
            if self.has_lost_dependency(name) {
                self.give_up(name, "a required service is down");
            }
            return;
        }
        match next_verdict(service, error, now) {
            Verdict::RestartAt(at) => {
                service.restart_at = Some(at);
                // Who wanted it down, before somebody wanted it up again, would wait for a rest that does not come.
                let overtaken = std::mem::take(&mut service.stop_waiters);
                self.changed = true;
                self.unremembered = true;
                for request in overtaken {
                    self.reply(request, Err(SupervisorError::Superseded(name.to_owned())));
                }
            }
            Verdict::GiveUp => self.give_up_for_good(name),
            Verdict::Panic => {
                self.give_up_for_good(name);
                self.emergency(&format!("{name} failed too often"));
            }
        }
    }

    fn has_lost_dependency(&self, name: &str) -> bool {
        let lost = |on: &str| {
            self.services.get(on).is_none_or(|s| s.state.rests() && !s.is_wanted() && !s.listens())
        };
        self.graph.required(name).any(lost)
    }

    fn give_up(&mut self, name: &str, cause: &str) {
        if self.go(name, Transition::GiveUp, cause) {
            self.rested(name);
        }
    }

    fn give_up_for_good(&mut self, name: &str) {
        if let Some(service) = self.services.get_mut(name) {
            service.given_up = true;
            service.permit = Permit::None;
        }
        self.give_up(name, "restarts are exhausted");
        let error = SupervisorError::NotRunning(name.to_owned());
        self.drain_start_waiters(name, &error);
        if Self::is_authority(name) {
            self.emergency(&format!("authority service {name} is down for good"));
        }
    }

    /// The manifest before takes the place of one that does not start (SUP-92).
    fn roll_back(&mut self, name: &str, text: &str) -> bool {
        let Some(previous) = self.services.get_mut(name).and_then(|service| service.previous.take()) else {
            return false;
        };
        let others = self.services.values().filter(|service| service.name() != name).map(Service::manifest);
        let Ok(graph) = Graph::new(others.chain([&previous.manifest.manifest])) else { return false };
        self.graph = graph;
        if let Some(service) = self.services.get_mut(name) {
            service.install(previous);
            service.restart_at = None;
        }
        let text = bounded(text);
        self.drain_start_waiters(name, &SupervisorError::RolledBack { service: name.to_owned(), text });
        self.announce(name, None);
        true
    }

    /// A service that has not taken in a revocation in time must not go on serving (DESIGN 2).
    pub(super) fn laggard(&mut self, name: &str) {
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        let recently = service.last_laggard.is_some_and(|at| now.since(at) < LAGGARD_INTERVAL);
        if !service.state.serves() || recently {
            return;
        }
        service.last_laggard = Some(now);
        service.uncounted = true;
        self.fail(name, ServiceError::HealthTimeout, "did not fold a revocation in time");
    }
}

fn next_verdict(service: &mut Service, error: ServiceError, now: super::Monotonic) -> Verdict {
    if service.uncounted {
        return Verdict::RestartAt(now);
    }
    // Another try finds the same file.
    let is_final = error == ServiceError::BinaryMismatch || service.mode == RestartMode::Never;
    match (is_final, service.policy.on_exhausted) {
        (false, _) => service.ledger.verdict(&service.policy, service.last_start, now),
        (true, ExhaustedAction::Panic) => Verdict::Panic,
        (true, _) => Verdict::GiveUp,
    }
}

/// Start errors are told apart (SUP-92).
fn start_error(name: &str, error: ServiceError, text: &str) -> SupervisorError {
    match error {
        ServiceError::StartupTimeout => SupervisorError::StartupTimeout(name.to_owned()),
        ServiceError::DependencyFailed => {
            SupervisorError::DependencyNotRunning { service: name.to_owned(), why: bounded(text) }
        }
        error => SupervisorError::ServiceCrashed { service: name.to_owned(), error, text: bounded(text) },
    }
}
