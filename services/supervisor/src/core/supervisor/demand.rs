//! Services that something starts: a connection that waits, or a time that has come.
//!
//! Such a service rests *armed*: its goal is `Down`, and what it waits for makes it `Up`. Each of these starts is a
//! decision like any other. `stop` disarms it, `start` starts it and arms it again. Armed and at rest it listens: nobody
//! is refused, so whoever requires it need not wait for it.
//!
//! A connection that waits already when the service ends would start it over and over: such a start counts towards the
//! restart budget and keeps its delays, as after a failure. However they come, connections start it no more often than its
//! `[trigger_limit]` says.

use chain::payload::service::ServiceError;

use super::{
    Effect, Monotonic, Supervisor,
    service::{Goal, Permit, Service},
};
use crate::core::restart::Verdict;

/// What is being done about connections of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// Nothing: it runs, or may not be started.
    None,
    /// The shell was asked to say when one waits.
    Awaited,
    /// One waits, and the service starts then.
    Due(Monotonic),
}

impl Service {
    /// Down, and started by the next connection.
    pub(super) fn listens(&self) -> bool {
        self.manifest().is_on_demand() && self.rests_armed()
    }

    /// Down, with something that will start it.
    pub(super) fn rests_armed(&self) -> bool {
        self.armed
            && !self.given_up
            && self.goal == Goal::Down
            && self.state.rests()
            && self.instance.is_none()
            && self.replacement.is_none()
    }

    /// Something other than the node and its operator starts it.
    pub(super) fn is_triggered(&self) -> bool {
        self.manifest().is_triggered()
    }

    /// As it stands once nobody has asked for anything: up, or armed.
    pub(super) fn want_usual(&mut self) {
        self.armed = self.is_triggered();
        self.goal = if self.armed { Goal::Down } else { Goal::Up };
    }
}

impl Supervisor {
    /// Requests are served by whoever is named: it runs, or a connection to it starts it.
    pub(super) fn is_there(&self, name: &str) -> bool {
        self.services.get(name).is_some_and(|service| service.state.serves() || service.listens())
    }

    /// Asks for connections of services that have come to listen.
    pub(super) fn await_demand(&mut self) {
        let ending = self.is_ending();
        for service in self.services.values_mut().filter(|service| service.manifest().is_on_demand()) {
            match (service.listens() && !ending, service.demand) {
                (true, Demand::None) => {
                    service.demand = Demand::Awaited;
                    self.effects.push(Effect::AwaitDemand { service: service.name().to_owned() });
                }
                (false, Demand::Awaited | Demand::Due(_)) => {
                    service.demand = Demand::None;
                    self.effects.push(Effect::ForgetDemand { service: service.name().to_owned() });
                }
                _ => {}
            }
        }
    }

    /// Whoever registered a service that waits to be started is told that it is there.
    pub(super) fn answer_armed(&mut self, name: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.start_waiters.is_empty() || !service.rests_armed() {
            return;
        }
        for request in std::mem::take(&mut service.start_waiters) {
            self.reply_status(request, name);
        }
    }

    /// `waited`: it was there at the first look.
    pub(super) fn demanded(&mut self, name: &str, waited: bool) {
        let (now, ending) = (self.now, self.is_ending());
        let Some(service) = self.services.get_mut(name) else { return };
        if ending || service.demand != Demand::Awaited || !service.listens() {
            return;
        }
        if !waited || !service.has_run {
            return self.start_on_demand(name, false);
        }
        match service.ledger.verdict(&service.policy, service.last_start, now) {
            Verdict::RestartAt(at) if at > now => service.demand = Demand::Due(at),
            Verdict::RestartAt(_) => self.start_on_demand(name, true),
            verdict => {
                let text = "ended over and over without taking the connection that waits";
                self.listen_no_more(name, ServiceError::Crashed { status: 0 }, text);
                if verdict == Verdict::Panic {
                    self.emergency(&format!("{name} {text}"));
                }
            }
        }
    }

    /// By its timer: like a start that somebody asks for. One that runs still goes on.
    pub(super) fn timer_elapsed(&mut self, name: &str) {
        let ending = self.is_ending();
        let Some(service) = self.services.get_mut(name) else { return };
        let is_down = service.state.rests() && service.instance.is_none() && service.replacement.is_none();
        if ending || !service.armed || service.manifest().timer.is_none() || !is_down {
            return;
        }
        service.goal = Goal::Up;
        service.given_up = false;
        service.failed_once = false;
        service.permit = Permit::None;
        service.ledger.clear();
        self.changed = true;
        self.unremembered = true;
    }

    pub(super) fn expire_demand(&mut self) {
        let now = self.now;
        let due = |service: &&Service| matches!(service.demand, Demand::Due(at) if at <= now);
        let due: Vec<String> = self.services.values().filter(due).map(|s| s.name().to_owned()).collect();
        due.iter().for_each(|name| self.start_on_demand(name, true));
    }

    /// Given up: whoever comes waits in the queue until somebody starts it.
    fn listen_no_more(&mut self, name: &str, error: ServiceError, text: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.given_up = true;
        service.last_error = Some(super::bounded(text));
        self.changed = true;
        self.unremembered = true;
        self.record_failure(name, error, text);
    }

    fn start_on_demand(&mut self, name: &str, counts: bool) {
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        service.demand = Demand::None;
        if !service.rests_armed() {
            return;
        }
        let limit = service.manifest().trigger_limit;
        if !service.triggers.admit(&limit, now) {
            let text = format!(
                "trigger limit hit: connections started it {} times within {} ms; it listens no more until \
                 `bailiwick service start {name}`",
                limit.burst,
                limit.interval.as_millis()
            );
            return self.listen_no_more(name, ServiceError::LaunchFailed, &text);
        }
        if counts {
            service.ledger.count(&service.policy, now);
        }
        service.goal = Goal::Up;
        service.failed_once = false;
        service.permit = Permit::None;
        self.changed = true;
        self.unremembered = true;
    }
}
