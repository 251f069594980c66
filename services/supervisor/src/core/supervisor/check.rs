//! Health of services that run, and readiness by probes (SUP-63, SUP-70, SUP-71, SUP-84).

use std::time::Duration;

use chain::payload::service::ServiceError;

use super::{
    CallId, Effect, LaunchId, Monotonic, Notification, READY_PROBE_INTERVAL, Supervisor,
    service::{Call, CallKind, Stage},
};
use crate::{
    core::{
        health::HealthVerdict,
        lifecycle::{ComponentHealth, HealthStatus, LifecycleMessage},
        state::{ServiceState, Transition},
    },
    manifest::HealthCheck,
};

/// Checks that cost a message are asked for together; those that cost a sandbox each stay where they fell.
pub(super) fn next_check(now: Monotonic, interval: Duration, check: &HealthCheck) -> Monotonic {
    match check {
        HealthCheck::Exec { .. } => now.after(interval),
        _ => now.next_after(interval),
    }
}

impl Supervisor {
    /// Checks whose time has come, and answers that did not come in time.
    pub(super) fn expire_checks(&mut self, name: &str) {
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        let timeout = service.manifest().health.check_timeout;
        let Some(instance) = service.instance.as_mut() else { return };
        let late = instance.call.take_if(|call| call.due <= now).map(|call| now.since(call.due));
        let unfed = instance.watchdog_due.take_if(|due| *due <= now).map(|due| now.since(due));
        match (instance.stage, unfed, late) {
            (Stage::Serving, Some(overslept), _) => self.unfed(name, overslept),
            (Stage::Serving, None, Some(overslept)) => self.check_late(name, timeout, overslept),
            _ => {}
        }
        self.begin_check(name);
    }

    fn begin_check(&mut self, name: &str) {
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        let health = &service.manifest().health;
        let (interval, timeout) = (health.check_interval, health.check_timeout);
        let check = service.check.clone();
        let Some(instance) = service.instance.as_mut() else { return };
        let due = instance.call.is_none() && instance.next_check.is_some_and(|at| at <= now);
        if !due || !matches!(instance.stage, Stage::Serving | Stage::Readying) {
            return;
        }
        instance.next_check = Some(match instance.stage {
            Stage::Serving => next_check(now, interval, &check),
            _ => now.after(READY_PROBE_INTERVAL.min(interval)),
        });
        if check == HealthCheck::Lifecycle {
            return self.send(name, LifecycleMessage::HealthCheck);
        }
        let launch = instance.launch;
        let call = self.call_id();
        let Some(instance) = self.services.get_mut(name).and_then(|service| service.instance.as_mut()) else {
            return;
        };
        instance.call = Some(Call { id: call, what: CallKind::Probe, due: now.after(timeout) });
        self.effects.push(Effect::Probe { launch, call, check, timeout });
    }

    pub(super) fn probe_result(&mut self, launch: LaunchId, id: CallId, result: Result<(), String>) {
        let Some(name) = self.owner(launch) else { return };
        let Some(instance) = self.services.get_mut(&name).and_then(|service| service.instance.as_mut())
        else {
            return;
        };
        let is_answer = |call: &mut Call| call.id == id && matches!(call.what, CallKind::Probe);
        if instance.call.take_if(is_answer).is_none() {
            return;
        }
        match (instance.stage, result) {
            (Stage::Readying, Ok(())) => self.ready(&name),
            (Stage::Serving, Ok(())) => self.check_passed(&name),
            (Stage::Serving, Err(text)) => self.check_failed(&name, &text),
            // Not ready yet.
            _ => {}
        }
    }

    pub(super) fn health_answered(&mut self, name: &str, status: HealthStatus) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(instance) = service.instance.as_mut() else { return };
        if instance.stage != Stage::Serving {
            return;
        }
        let (healthy, degraded, text) = (status.healthy, status.degraded, status.last_error.clone());
        let was_degraded = instance.status.replace(status).is_some_and(|before| before.degraded);
        if was_degraded && healthy && !degraded {
            // What it lacked is there again: nothing to tell any more.
            service.last_error = None;
        }
        if healthy && degraded {
            self.check_degraded(name, &text.unwrap_or_else(|| "says that it is degraded".to_owned()));
        } else if healthy {
            self.check_passed(name);
        } else {
            self.check_failed(name, &text.unwrap_or_else(|| "says that it is not healthy".to_owned()));
        }
    }

    fn check_passed(&mut self, name: &str) {
        self.no_longer_late(name);
        let Some(service) = self.services.get_mut(name) else { return };
        let threshold = service.manifest().health.success_threshold;
        let Some(instance) = service.instance.as_mut() else { return };
        if instance.health.success(threshold) == HealthVerdict::Recovered {
            self.go(name, Transition::Recovered, "checks pass again");
        }
    }

    /// Restarting it would not help, so it is never counted as a failure.
    fn check_degraded(&mut self, name: &str, text: &str) {
        self.no_longer_late(name);
        let Some(service) = self.services.get_mut(name) else { return };
        if !service.state.serves() {
            return;
        }
        service.last_error = Some(super::bounded(text));
        let Some(instance) = service.instance.as_mut() else { return };
        if instance.health.degraded() == HealthVerdict::Warning {
            self.go(name, Transition::HealthWarning, text);
        }
    }

    /// It may hang, or have no time to answer.
    fn check_late(&mut self, name: &str, timeout: Duration, overslept: Duration) {
        let text = format!("did not answer a check within {} ms", timeout.as_millis());
        self.is_late(name, &text);
        if self.count_failure(name, &text) == HealthVerdict::Fatal {
            self.accuse(name, text, timeout, overslept);
        }
    }

    /// It answered, or nobody is there.
    pub(super) fn check_failed(&mut self, name: &str, text: &str) {
        self.no_longer_late(name);
        if self.count_failure(name, text) == HealthVerdict::Fatal {
            self.fail(name, ServiceError::HealthTimeout, text);
        }
    }

    fn count_failure(&mut self, name: &str, text: &str) -> HealthVerdict {
        let Some(service) = self.services.get_mut(name).filter(|service| service.state.serves()) else {
            return HealthVerdict::Unchanged;
        };
        service.last_error = Some(super::bounded(text));
        let threshold = service.manifest().health.failure_threshold;
        let Some(instance) = service.instance.as_mut() else { return HealthVerdict::Unchanged };
        let verdict = instance.health.failure(threshold);
        if verdict == HealthVerdict::Warning {
            self.go(name, Transition::HealthWarning, text);
        }
        verdict
    }

    fn fed_again(&mut self, name: &str) {
        if let Some(service) = self.services.get_mut(name) {
            service.last_error = None;
        }
        if self.state_of(name) == Some(ServiceState::Degraded) {
            self.go(name, Transition::Recovered, "sends WATCHDOG=1 again");
        }
    }

    /// sd_notify counts for services that take part in it; from others it says nothing.
    pub(super) fn notified(&mut self, launch: LaunchId, notification: Notification) {
        let Some(name) = self.owner(launch) else { return };
        let now = self.now;
        let Some(service) = self.services.get_mut(&name) else { return };
        let HealthCheck::SdNotify { watchdog } = service.check else { return };
        let Some(instance) = service.instance.as_mut() else { return };
        match (notification, instance.stage) {
            (Notification::Ready, Stage::Launching) => instance.said_ready = true,
            (Notification::Ready, Stage::Readying) => self.ready(&name),
            (Notification::Watchdog, Stage::Serving) if instance.watchdog_due.is_some() => {
                instance.watchdog_due = watchdog.map(|watchdog| now.after(watchdog));
                if self.no_longer_late(&name) {
                    self.fed_again(&name);
                }
            }
            // It ends by its own wish; its exit tells how.
            (Notification::Stopping, _) => {
                instance.watchdog_due = None;
                instance.late = None;
            }
            (Notification::Status(text), _) => {
                let message = Some(super::bounded(&text));
                let component =
                    ComponentHealth { name: "status".to_owned(), healthy: true, message, degraded: false };
                let status =
                    HealthStatus { healthy: true, components: vec![component], ..HealthStatus::default() };
                instance.status = Some(status);
            }
            _ => {}
        }
    }
}
