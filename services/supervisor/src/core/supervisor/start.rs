//! One service from permission to ready (SUP-39 to SUP-41, SUP-59, SUP-70).

use std::sync::Arc;

use chain::payload::service::{ServiceError, ServiceStart};

use super::{
    CallId, Effect, LaunchId, Monotonic, RecordBody, Supervisor,
    act::Purpose,
    boot::BootProgress,
    check::next_check,
    service::{Call, CallKind, Instance, Permit, Service, Stage},
};
use crate::{
    core::{
        catalogue,
        lifecycle::{LifecycleMessage, LifecycleResponse, ServiceConfig, ServiceIdentity},
        state::{ServiceState, Transition},
    },
    manifest::HealthCheck,
};

impl Supervisor {
    pub(super) fn start_what_may_start(&mut self) {
        if self.is_ending() {
            return;
        }
        let names = self.names();
        for name in names.iter() {
            self.exchange(name);
            self.answer_armed(name);
        }
        // A dependency that still serves but is about to stop is none to start on: its dependents would take turns
        // and it would never come to stop.
        let leaving = self.leaving();
        for name in names.iter().filter(|name| !leaving.contains(*name)) {
            self.try_start(name);
        }
    }

    /// A service at rest is the moment to put a new manifest in place, and the end of a bounce.
    fn exchange(&mut self, name: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.instance.is_some() || !service.state.rests() {
            return;
        }
        service.bounce = false;
        if let Some((setup, authorization)) = service.replacement.take() {
            let before = service.setup.clone();
            service.install(setup);
            // One that waits may be started when everybody has forgotten what it was before.
            service.previous = Some(before).filter(|_| !service.armed);
            self.announce(name, authorization);
        }
    }

    fn try_start(&mut self, name: &str) {
        let Some(service) = self.services.get(name) else { return };
        if service.instance.is_some() || !service.is_wanted() || !self.is_open(service.phase) {
            return;
        }
        let restarts = match service.state {
            ServiceState::Registered | ServiceState::Stopped => false,
            ServiceState::Failed { .. } if service.restart_at.is_some_and(|at| at <= self.now) => true,
            _ => return,
        };
        if self.graph.check(name).is_err() || self.graph.required(name).any(|on| !self.is_there(on)) {
            return;
        }
        if self.waits_for_preferred(name) {
            return;
        }
        // With the log down for so long, only what brings it back may start.
        if self.records.is_full() && !matches!(name, catalogue::LOG | catalogue::DECIDER) {
            return;
        }
        match service.permit {
            Permit::Granted(_) => self.launch(name, restarts),
            Permit::None => self.authorize(name, Purpose::Boot),
            Permit::RetryAt(at) if at <= self.now => self.authorize(name, Purpose::Boot),
            Permit::Asked(_) | Permit::RetryAt(_) => {}
        }
    }

    /// During boot a service lets those go first that it uses without requiring them.
    fn waits_for_preferred(&self, name: &str) -> bool {
        if !matches!(self.boot, BootProgress::Phase(_)) {
            return false;
        }
        if self.graph.preferred(name).next().is_none() {
            return false;
        }
        let settled = self.settled();
        self.graph.preferred(name).any(|other| !settled.contains(other))
    }

    fn launch(&mut self, name: &str, restarts: bool) {
        if restarts {
            self.go(name, Transition::AutoRestart, "restart");
            self.go(name, Transition::Restart, "restart");
        } else {
            self.go(name, Transition::Start, "start");
        }
        let now = self.now;
        let launch = LaunchId(self.next_launch);
        let Some(service) = self.services.get_mut(name) else { return };
        if service.state != ServiceState::Starting {
            return;
        }
        if restarts {
            service.restarts = service.restarts.saturating_add(1);
            if !service.uncounted {
                service.ledger.count(&service.policy, now);
            }
        }
        service.uncounted = false;
        service.restart_at = None;
        service.last_start = now;
        service.has_run = true;
        let manifest = Arc::clone(&service.setup.manifest);
        match manifest.manifest.binary_hash() {
            Ok(binary) => {
                let mut instance = Instance::new(launch);
                instance.deadline = Some(now.after(service.startup_timeout()));
                service.instance = Some(instance);
                self.next_launch += 1;
                self.unremembered = true;
                self.effects.push(Effect::Launch { launch, service: name.to_owned(), manifest, binary });
            }
            Err(error) => self.fail(name, ServiceError::BinaryMismatch, &error.to_string()),
        }
    }

    pub(super) fn launched(&mut self, launch: LaunchId, pid: u32, missing: Vec<String>) {
        let Some(name) = self.owner(launch) else { return };
        let Some(service) = self.services.get_mut(&name) else { return };
        service.missing.clone_from(&missing);
        let permit = service.permit;
        let body = ServiceStart {
            name: name.clone(),
            pid,
            binary: service.manifest().binary_hash().unwrap_or_default(),
            restarts: service.restarts,
            late: false,
            missing,
        };
        let Some(instance) = service.instance.as_mut() else { return };
        if instance.pid.replace(pid).is_some() {
            return;
        }
        let goes_on = instance.stage == Stage::Launching;
        let authorization = if let Permit::Granted(authorization) = permit { authorization } else { None };
        self.record(authorization, RecordBody::Start(body));
        if goes_on {
            self.await_ready(&name);
        }
    }

    /// The process is there; what makes it ready depends on how it shows that it is well.
    pub(super) fn await_ready(&mut self, name: &str) {
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        let check = service.check.clone();
        let Some(instance) = service.instance.as_mut() else { return };
        instance.stage = Stage::Readying;
        match check {
            HealthCheck::Lifecycle => {
                let message = init_message(service);
                self.send(name, message);
            }
            HealthCheck::Exec { .. } | HealthCheck::Tcp { .. } | HealthCheck::Http { .. } => {
                instance.next_check = Some(now);
            }
            HealthCheck::SdNotify { .. } if instance.said_ready => self.ready(name),
            HealthCheck::SdNotify { .. } => {}
            HealthCheck::Process => self.ready(name),
        }
    }

    pub(super) fn send(&mut self, name: &str, message: LifecycleMessage) {
        let id = self.call_id();
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        let timeout = service.manifest().health.check_timeout;
        let Some(instance) = service.instance.as_mut() else { return };
        // All but health checks end with their stage.
        let due = match message {
            LifecycleMessage::HealthCheck => now.after(timeout),
            _ => Monotonic(u64::MAX),
        };
        instance.call = Some(Call { id, what: CallKind::Lifecycle(message.clone()), due });
        self.effects.push(Effect::SendLifecycle { launch: instance.launch, call: id, message });
    }

    pub(super) fn lifecycle_reply(&mut self, launch: LaunchId, id: CallId, response: LifecycleResponse) {
        let Some(name) = self.owner(launch) else { return };
        let Some(instance) = self.services.get_mut(&name).and_then(|service| service.instance.as_mut())
        else {
            return;
        };
        // An answer to a call that timed out, or a second one, changes nothing.
        let Some(call) = instance.call.take_if(|call| call.id == id) else { return };
        let CallKind::Lifecycle(message) = call.what else { return };
        if !response.answers(&message) {
            let what = "answered a lifecycle message with something else";
            return self.call_broke(&name, &message, what);
        }
        match response {
            LifecycleResponse::InitComplete => self.send(&name, LifecycleMessage::Start),
            LifecycleResponse::Started => self.ready(&name),
            LifecycleResponse::ReadyToStop => self.end(&name),
            LifecycleResponse::Health(status) => self.health_answered(&name, status),
            // The process exits after `Stopped`, which is what counts.
            LifecycleResponse::Stopped | LifecycleResponse::Status(_) => {}
        }
    }

    pub(super) fn lifecycle_closed(&mut self, launch: LaunchId, text: &str) {
        let Some(name) = self.owner(launch) else { return };
        let Some(instance) = self.services.get_mut(&name).and_then(|service| service.instance.as_mut())
        else {
            return;
        };
        if let Some(Call { what: CallKind::Lifecycle(message), .. }) = instance.call.take() {
            self.call_broke(&name, &message, text);
        }
    }

    /// There is no negative reply: this is the failure (SUP open point 13).
    fn call_broke(&mut self, name: &str, message: &LifecycleMessage, what: &str) {
        match message {
            LifecycleMessage::Init { .. } | LifecycleMessage::Start => {
                self.fail(name, ServiceError::Crashed { status: 0 }, what);
            }
            LifecycleMessage::HealthCheck => self.check_failed(name, what),
            LifecycleMessage::PrepareStop => self.end(name),
            // It exits, or its time runs out.
            LifecycleMessage::Stop | LifecycleMessage::StatusRequest => {}
        }
    }

    /// From here on clients are served.
    pub(super) fn ready(&mut self, name: &str) {
        let now = self.now;
        if self.state_of(name) != Some(ServiceState::Starting) || !self.go(name, Transition::Ready, "ready") {
            return;
        }
        if name == catalogue::DECIDER {
            self.gated = true;
        }
        let Some(service) = self.services.get_mut(name) else { return };
        service.previous = None;
        let interval = service.manifest().health.check_interval;
        let follows = service.manifest().program.as_ref().is_some_and(|program| !program.after.is_empty());
        let Some(instance) = service.instance.as_mut() else { return };
        instance.stage = Stage::Serving;
        instance.deadline = None;
        instance.call = None;
        // One that was taken over has run all the time, and what follows a start was done.
        let is_new = instance.running_since.is_none();
        instance.running_since.get_or_insert(now);
        if is_new && follows {
            self.effects.push(Effect::RunAfter { launch: instance.launch });
        }
        match service.check {
            HealthCheck::SdNotify { watchdog } => {
                instance.next_check = None;
                instance.watchdog_due = watchdog.map(|watchdog| now.after(watchdog));
            }
            HealthCheck::Process => instance.next_check = None,
            _ => instance.next_check = Some(next_check(now, interval, &service.check)),
        }
        // Who asked for a restart waits for the start after the stop that is still to come.
        if !service.bounce {
            for request in std::mem::take(&mut service.start_waiters) {
                self.reply_status(request, name);
            }
        }
    }

    pub(super) fn after_failed(&mut self, launch: LaunchId, text: &str) {
        let Some(name) = self.owner(launch) else { return };
        if self.serves(&name) {
            self.fail(&name, ServiceError::LaunchFailed, text);
        }
    }

    pub(super) fn launch_failed(&mut self, launch: LaunchId, error: ServiceError, text: String) {
        let Some(name) = self.owner(launch) else { return };
        let Some(service) = self.services.get_mut(&name) else { return };
        service.instance = None;
        self.unremembered = true;
        match service.state {
            ServiceState::Starting => self.fail(&name, error, &text),
            ServiceState::Failed { .. } => self.settle_failed(&name),
            _ => {}
        }
    }
}

fn init_message(service: &Service) -> LifecycleMessage {
    let manifest = service.manifest();
    // A loaded manifest has a key path; without one the service would get an identity that names no key.
    let key_path = manifest.key_path();
    let fallback = || base::KeyPath::parse(base::key_paths::SERVICES).ok();
    let Some(key_path) = key_path.or_else(fallback) else { return LifecycleMessage::StatusRequest };
    LifecycleMessage::Init {
        config: ServiceConfig {
            name: service.name().to_owned(),
            version: manifest.service.version.to_string(),
            manifest: service.setup.manifest.text.clone(),
        },
        capabilities: service.setup.capabilities.clone(),
        identity: ServiceIdentity {
            id: service.setup.identity,
            key_path,
            permissions: manifest.permissions().to_vec(),
        },
    }
}
