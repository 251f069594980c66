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
        state::Transition,
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
        let late = instance.call.take_if(|call| call.due <= now).is_some();
        let watchdog = instance.watchdog_due.take_if(|due| *due <= now).is_some();
        match instance.stage {
            Stage::Serving if watchdog => {
                self.fail(name, ServiceError::HealthTimeout, "sent no WATCHDOG=1 in time");
            }
            Stage::Serving if late => {
                self.check_failed(name, &format!("did not answer a check within {} ms", timeout.as_millis()));
            }
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
        let Some(service) = self.services.get_mut(name) else { return };
        let threshold = service.manifest().health.success_threshold;
        let Some(instance) = service.instance.as_mut() else { return };
        if instance.health.success(threshold) == HealthVerdict::Recovered {
            self.go(name, Transition::Recovered, "checks pass again");
        }
    }

    /// Restarting it would not help, so it is never counted as a failure.
    fn check_degraded(&mut self, name: &str, text: &str) {
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

    pub(super) fn check_failed(&mut self, name: &str, text: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        if !service.state.serves() {
            return;
        }
        service.last_error = Some(super::bounded(text));
        let threshold = service.manifest().health.failure_threshold;
        let Some(instance) = service.instance.as_mut() else { return };
        match instance.health.failure(threshold) {
            HealthVerdict::Warning => {
                self.go(name, Transition::HealthWarning, text);
            }
            HealthVerdict::Fatal => self.fail(name, ServiceError::HealthTimeout, text),
            HealthVerdict::Unchanged | HealthVerdict::Recovered => {}
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
            }
            // It ends by its own wish; its exit tells how.
            (Notification::Stopping, _) => instance.watchdog_due = None,
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
