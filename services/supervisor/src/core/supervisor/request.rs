//! What callers ask (SUP-09, SUP-10, SUP-29, SUP-30, SUP-81, SUP-92): refused at once, or decided and then done.

use base::Hash;
use chain::payload::service::ServiceType;

use super::{
    Effect, Reply, RequestId, ServiceSetup, Supervisor, SupervisorError, WAITERS_MAX,
    act::Purpose,
    service::{Goal, Permit, Service},
};
use crate::{
    core::{
        graph::{Graph, GraphError},
        restart::TriggerLedger,
        state::{self, ServiceState, Transition},
    },
    manifest::{ProgramConfig, limits::SERVICES_MAX},
};

impl Supervisor {
    pub(super) fn start_requested(&mut self, request: RequestId, name: &str) {
        match self.start_refusal(name) {
            Some(error) => self.reply(request, Err(error)),
            None if self.serves(name) => self.reply_status(request, name),
            None => self.authorize(name, Purpose::Start(request)),
        }
    }

    fn start_refusal(&self, name: &str) -> Option<SupervisorError> {
        if self.is_ending() {
            return Some(SupervisorError::ShuttingDown);
        }
        let Some(service) = self.services.get(name) else {
            return Some(SupervisorError::NotFound(name.to_owned()));
        };
        if service.start_waiters.len() >= WAITERS_MAX {
            return Some(SupervisorError::Busy { what: "callers of one service", limit: WAITERS_MAX });
        }
        let why = self.dependency_error(name)?;
        Some(SupervisorError::DependencyNotRunning { service: name.to_owned(), why })
    }

    pub(super) fn start_allowed(&mut self, request: RequestId, name: &str, authorization: Option<Hash>) {
        // The world may have changed while policy decided.
        if let Some(error) = self.start_refusal(name) {
            return self.reply(request, Err(error));
        }
        if self.serves(name) {
            return self.reply_status(request, name);
        }
        self.want(name, authorization, request);
    }

    /// Somebody wants the service up: a new account of restarts, and no more waiting for the next one.
    fn want(&mut self, name: &str, authorization: Option<Hash>, request: RequestId) {
        let now = self.now;
        let Some(service) = self.services.get_mut(name) else { return };
        service.goal = Goal::Up;
        service.armed = service.is_triggered();
        service.given_up = false;
        service.failed_once = false;
        service.permit = Permit::Granted(authorization);
        service.ledger.clear();
        service.triggers = TriggerLedger::default();
        service.restart_at = service.restart_at.map(|_| now);
        service.start_waiters.push(request);
        self.changed = true;
        self.unremembered = true;
    }

    pub(super) fn stop_requested(&mut self, request: RequestId, name: &str) {
        match self.stop_refusal(name) {
            Some(error) => self.reply(request, Err(error)),
            None => self.authorize(name, Purpose::Stop(request)),
        }
    }

    /// A core service stops with the system only, and so does whatever a running core service requires.
    fn stop_refusal(&self, name: &str) -> Option<SupervisorError> {
        if self.is_ending() {
            return Some(SupervisorError::ShuttingDown);
        }
        let Some(service) = self.services.get(name) else {
            return Some(SupervisorError::NotFound(name.to_owned()));
        };
        if service.stop_waiters.len() >= WAITERS_MAX {
            return Some(SupervisorError::Busy { what: "callers of one service", limit: WAITERS_MAX });
        }
        let mut reached = vec![name];
        let mut index = 0;
        while let Some(current) = reached.get(index).copied() {
            index += 1;
            let Some(service) = self.services.get(current) else { continue };
            if is_core(service) && (current == name || service.is_live()) {
                let core = current.to_owned();
                return Some(SupervisorError::CoreService { service: name.to_owned(), core });
            }
            for dependent in self.graph.dependents(current) {
                if !reached.contains(&dependent.as_str()) {
                    reached.push(dependent);
                }
            }
        }
        None
    }

    pub(super) fn stop_allowed(&mut self, request: RequestId, name: &str, authorization: Option<Hash>) {
        if let Some(error) = self.stop_refusal(name) {
            return self.reply(request, Err(error));
        }
        self.drain_start_waiters(name, &SupervisorError::Superseded(name.to_owned()));
        let Some(service) = self.services.get_mut(name) else { return };
        service.goal = Goal::Down;
        service.armed = false;
        service.bounce = false;
        service.stop_authorization = authorization;
        let rests = service.state.rests();
        if rests {
            service.permit = Permit::None;
        } else {
            service.stop_waiters.push(request);
        }
        self.changed = true;
        self.unremembered = true;
        if rests {
            self.reply_status(request, name);
        }
    }

    pub(super) fn restart_requested(&mut self, request: RequestId, name: &str) {
        match self.restart_refusal(name) {
            Some(error) => self.reply(request, Err(error)),
            None => self.authorize(name, Purpose::Restart(request)),
        }
    }

    fn restart_refusal(&self, name: &str) -> Option<SupervisorError> {
        self.stop_refusal(name).or_else(|| self.start_refusal(name))
    }

    pub(super) fn restart_allowed(&mut self, request: RequestId, name: &str, authorization: Option<Hash>) {
        if let Some(error) = self.restart_refusal(name) {
            return self.reply(request, Err(error));
        }
        self.drain_start_waiters(name, &SupervisorError::Superseded(name.to_owned()));
        let Some(service) = self.services.get_mut(name) else { return };
        service.stop_authorization = authorization;
        service.bounce = !service.state.rests();
        self.want(name, authorization, request);
    }

    pub(super) fn reload_requested(&mut self, request: RequestId, name: &str) {
        match self.reload_refusal(name) {
            Some(error) => self.reply(request, Err(error)),
            None => self.authorize(name, Purpose::Reload(request)),
        }
    }

    fn reload_refusal(&self, name: &str) -> Option<SupervisorError> {
        if self.is_ending() {
            return Some(SupervisorError::ShuttingDown);
        }
        let Some(service) = self.services.get(name) else {
            return Some(SupervisorError::NotFound(name.to_owned()));
        };
        if !service.manifest().program.as_ref().is_some_and(ProgramConfig::can_reload) {
            return Some(SupervisorError::NoReload(name.to_owned()));
        }
        (!service.state.serves()).then(|| SupervisorError::NotRunning(name.to_owned()))
    }

    pub(super) fn reload_allowed(&mut self, request: RequestId, name: &str) {
        if let Some(error) = self.reload_refusal(name) {
            return self.reply(request, Err(error));
        }
        let launch = self.services.get(name).and_then(|service| Some(service.instance.as_ref()?.launch));
        match launch {
            Some(launch) => self.effects.push(Effect::Reload { launch, request }),
            None => self.reply(request, Err(SupervisorError::NotRunning(name.to_owned()))),
        }
    }

    pub(super) fn register_requested(&mut self, request: RequestId, setup: ServiceSetup) {
        let name = setup.name().to_owned();
        match self.register_refusal(&setup) {
            Some(error) => self.reply(request, Err(error)),
            None => self.authorize(&name, Purpose::Register(request, Box::new(setup))),
        }
    }

    fn register_refusal(&self, setup: &ServiceSetup) -> Option<SupervisorError> {
        if self.is_ending() {
            return Some(SupervisorError::ShuttingDown);
        }
        let name = setup.name();
        match self.services.get(name) {
            None if self.services.len() >= SERVICES_MAX => {
                return Some(SupervisorError::Busy { what: "services", limit: SERVICES_MAX });
            }
            Some(service) if is_core(service) => {
                return Some(SupervisorError::CoreService {
                    service: name.to_owned(),
                    core: name.to_owned(),
                });
            }
            // A change must not smuggle in what would stop a core service.
            Some(_) => {
                if let Some(error) = self.stop_refusal(name) {
                    return Some(error);
                }
            }
            None => {}
        }
        let error = self.graph_with(setup).err()?;
        Some(SupervisorError::InvalidManifest(error.to_string()))
    }

    /// Which services would start anew if this manifest took its place: the service itself if it runs with another one, and
    /// whatever that runs requires it. Nothing changes.
    pub fn consequences(&self, setup: &ServiceSetup) -> Result<Vec<String>, SupervisorError> {
        if let Some(error) = self.register_refusal(setup) {
            return Err(error);
        }
        let same = |service: &Service| service.setup.manifest.hash == setup.manifest.hash;
        match self.services.get(setup.name()) {
            Some(service) if service.is_live() && !same(service) => {}
            _ => return Ok(Vec::new()),
        }
        let mut reached = vec![setup.name().to_owned()];
        let mut index = 0;
        while let Some(current) = reached.get(index).cloned() {
            index += 1;
            for dependent in self.graph.dependents(&current) {
                let lives = self.services.get(dependent).is_some_and(Service::is_live);
                if lives && !reached.contains(dependent) {
                    reached.push(dependent.clone());
                }
            }
        }
        Ok(reached)
    }

    fn graph_with(&self, setup: &ServiceSetup) -> Result<Graph, GraphError> {
        let coming = |service: &Service| service.name() == setup.name();
        let others = self.services.values().filter(|service| !coming(service)).map(|service| {
            let replacement = service.replacement.as_ref().map(|(setup, _)| &setup.manifest.manifest);
            replacement.unwrap_or_else(|| service.manifest())
        });
        Graph::new(others.chain([&setup.manifest.manifest]))
    }

    pub(super) fn register_allowed(
        &mut self,
        request: RequestId,
        setup: ServiceSetup,
        authorization: Option<Hash>,
    ) {
        if let Some(error) = self.register_refusal(&setup) {
            return self.reply(request, Err(error));
        }
        let Ok(graph) = self.graph_with(&setup) else { return };
        let name = setup.name().to_owned();
        let same = |service: &Service| service.setup.manifest.hash == setup.manifest.hash;
        if self.services.get(&name).is_some_and(|service| service.state.serves() && same(service)) {
            return self.reply_status(request, &name);
        }
        self.graph = graph;
        self.drain_start_waiters(&name, &SupervisorError::Superseded(name.clone()));
        let armed = setup.manifest.manifest.is_triggered();
        match self.services.get_mut(&name) {
            Some(service) => service.replacement = Some((setup, authorization)),
            None => {
                self.insert(setup);
                self.announce(&name, authorization);
            }
        }
        let Some(service) = self.services.get_mut(&name) else { return };
        service.armed = armed;
        service.goal = if armed { Goal::Down } else { Goal::Up };
        service.given_up = false;
        service.failed_once = false;
        // Starting is a decision of its own.
        service.permit = Permit::None;
        service.start_waiters.push(request);
        self.changed = true;
        self.unremembered = true;
    }

    pub(super) fn unregister_requested(&mut self, request: RequestId, name: &str) {
        match self.unregister_refusal(name) {
            Some(error) => self.reply(request, Err(error)),
            None => self.authorize(name, Purpose::Unregister(request)),
        }
    }

    fn unregister_refusal(&self, name: &str) -> Option<SupervisorError> {
        let Some(service) = self.services.get(name) else {
            return Some(SupervisorError::NotFound(name.to_owned()));
        };
        // One that was never started has nothing to stop.
        let never_started = service.state == ServiceState::Registered && service.goal == Goal::Down;
        let stopped = (service.state == ServiceState::Stopped || never_started) && service.instance.is_none();
        (!stopped).then(|| SupervisorError::NotStopped(name.to_owned()))
    }

    pub(super) fn unregister_allowed(&mut self, request: RequestId, name: &str) {
        if let Some(error) = self.unregister_refusal(name) {
            return self.reply(request, Err(error));
        }
        let from = self.state_of(name);
        let never_started = from == Some(ServiceState::Registered);
        if !never_started && state::next(from, Transition::Unregister) != Ok(None) {
            return self.reply(request, Err(SupervisorError::NotStopped(name.to_owned())));
        }
        let others = self.services.values().filter(|service| service.name() != name).map(Service::manifest);
        // Fewer services make no new cycle.
        if let Ok(graph) = Graph::new(others) {
            self.graph = graph;
        }
        self.drain_start_waiters(name, &SupervisorError::NotFound(name.to_owned()));
        self.services.remove(name);
        self.effects.push(Effect::ForgetDemand { service: name.to_owned() });
        self.tell(name, from, None, "unregistered");
        self.changed = true;
        self.unremembered = true;
        self.reply(request, Ok(Reply::Done));
    }
}

fn is_core(service: &Service) -> bool {
    service.manifest().service.service_type == ServiceType::Core
}
