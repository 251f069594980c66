//! What can be looked up (SUP-11 to SUP-13, SUP-74, SUP-82, SUP-93). Nothing here changes a service.

use std::{sync::Arc, time::Duration};

use base::ServiceId;
use serde::{Deserialize, Serialize};

use super::{
    Effect, LaunchId, SUBSCRIBERS_MAX, ServiceSetup, SubscriberId, Supervisor, SupervisorError,
    boot::BootProgress,
    bounded,
    service::{Goal, Service, Stage},
};
use crate::{
    core::{catalogue, lifecycle::HealthStatus, state::ServiceState},
    manifest::{
        EndpointDefinition, LoadedManifest, ProgramConfig, ProtocolVersion, ServiceInfo, TimerConfig,
    },
};

/// SUP-82.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceStatus {
    pub id: ServiceId,
    pub name: String,
    pub state: ServiceState,
    pub pid: Option<u32>,
    pub uptime: Option<Duration>,
    pub restarts: u32,
    pub last_error: Option<String>,
    pub health: HealthStatus,
    pub info: ServiceInfo,
    /// What the host could not give its sandbox.
    pub missing: Vec<String>,
    /// It is down, and the next connection starts it.
    pub listening: bool,
}

/// Empty lists let everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventFilter {
    pub services: Vec<String>,
    /// Names of states that are entered.
    pub states: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceEvent {
    pub name: String,
    /// None when it was registered.
    pub from: Option<ServiceState>,
    /// None when it was unregistered.
    pub to: Option<ServiceState>,
    pub cause: String,
}

/// Where a service is; the socket is the caller's own, which the shell knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    pub service: String,
    pub version: String,
    pub provides: Vec<EndpointDefinition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    Booting,
    Running,
    /// Booted, but something that should run does not.
    Degraded,
    Stopping,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub state: NodeState,
    pub uptime: Duration,
    /// Services of the catalogue without a manifest.
    pub not_installed: Vec<String>,
    /// Entries that are not known to be in the log.
    pub records_waiting: usize,
}

impl EventFilter {
    fn lets_through(&self, event: &ServiceEvent) -> bool {
        let state = event.to.map_or("", ServiceState::name);
        (self.services.is_empty() || self.services.contains(&event.name))
            && (self.states.is_empty() || self.states.iter().any(|wanted| wanted == state))
    }
}

impl Supervisor {
    pub fn status(&self, id: ServiceId) -> Result<ServiceStatus, SupervisorError> {
        let service = self.services.values().find(|service| service.id == id);
        service.map(|s| self.status_of(s)).ok_or_else(|| SupervisorError::NotFound(id.to_string()))
    }

    pub fn status_by_name(&self, name: &str) -> Result<ServiceStatus, SupervisorError> {
        let service = self.services.get(name);
        service.map(|s| self.status_of(s)).ok_or_else(|| SupervisorError::NotFound(name.to_owned()))
    }

    fn of_launch(&self, launch: LaunchId) -> Option<&Service> {
        let owns = |service: &&Service| service.instance.as_ref().is_some_and(|i| i.launch == launch);
        self.services.values().find(owns)
    }

    #[must_use]
    pub fn status_of_launch(&self, launch: LaunchId) -> Option<ServiceStatus> {
        self.of_launch(launch).map(|service| self.status_of(service))
    }

    /// What a command can be run beside: a running program of the user. The node's own services hold keys, the log and the
    /// rules; nothing of anybody else's runs there, whoever asks.
    pub fn running_program(&self, name: &str) -> Result<LaunchId, SupervisorError> {
        let service = self.services.get(name).ok_or_else(|| SupervisorError::NotFound(name.to_owned()))?;
        if service.manifest().program.is_none() {
            let text = "its manifest has no [program]: it is a service of the node itself, and those take no command";
            return Err(SupervisorError::NotExecuted { service: name.to_owned(), text: text.to_owned() });
        }
        match &service.instance {
            Some(instance) if instance.stage == Stage::Serving => Ok(instance.launch),
            None => Err(SupervisorError::NotRunning(name.to_owned())),
            Some(instance) => {
                let text = match instance.stage {
                    Stage::Launching | Stage::Readying => "it is starting; ask again when it is ready",
                    _ => "it is ending; start it first",
                };
                Err(SupervisorError::NotExecuted { service: name.to_owned(), text: text.to_owned() })
            }
        }
    }

    /// What this launch was started from.
    #[must_use]
    pub fn manifest_of(&self, launch: LaunchId) -> Option<Arc<LoadedManifest>> {
        self.of_launch(launch).map(|service| Arc::clone(&service.setup.manifest))
    }

    /// What the program of this launch is, whatever has been put in its place since.
    #[must_use]
    pub fn program_of(&self, launch: LaunchId) -> Option<&ProgramConfig> {
        self.of_launch(launch)?.manifest().program.as_ref()
    }

    /// Every known service, in starting order.
    #[must_use]
    pub fn list(&self) -> Vec<ServiceStatus> {
        let known = self.graph.start_order().iter().filter_map(|name| self.services.get(name));
        known.map(|service| self.status_of(service)).collect()
    }

    pub(super) fn status_of(&self, service: &Service) -> ServiceStatus {
        let instance = service.instance.as_ref();
        let uptime = instance.and_then(|instance| instance.running_since).map(|since| self.now.since(since));
        let told = instance.and_then(|instance| instance.status.clone());
        let health = told.unwrap_or_else(|| HealthStatus {
            healthy: service.state == ServiceState::Running,
            last_error: service.last_error.clone(),
            ..HealthStatus::default()
        });
        ServiceStatus {
            id: service.id,
            name: service.name().to_owned(),
            state: service.state,
            pid: instance.and_then(|instance| instance.pid),
            uptime,
            restarts: service.restarts,
            last_error: service.last_error.clone(),
            health: HealthStatus { uptime: uptime.unwrap_or_default(), ..health },
            info: service.manifest().service.clone(),
            missing: service.missing.clone(),
            listening: service.listens(),
        }
    }

    /// Where a client that speaks at least `wanted` finds a service.
    pub fn lookup(
        &self,
        name: &str,
        wanted: Option<ProtocolVersion>,
    ) -> Result<EndpointView, SupervisorError> {
        let service = self.services.get(name).ok_or_else(|| SupervisorError::NotFound(name.to_owned()))?;
        if !service.state.serves() {
            return Err(SupervisorError::NotRunning(name.to_owned()));
        }
        let offered = &service.manifest().endpoints;
        if offered.is_empty() {
            return Err(SupervisorError::NoEndpoint(name.to_owned()));
        }
        let fits =
            |endpoint: &&EndpointDefinition| wanted.is_none_or(|w| endpoint.protocol.version.serves(w));
        let provides: Vec<EndpointDefinition> = offered.iter().filter(fits).cloned().collect();
        match wanted {
            Some(wanted) if provides.is_empty() => Err(SupervisorError::IncompatibleVersion {
                service: name.to_owned(),
                wanted: wanted.to_string(),
                offered: offered.iter().map(|e| e.protocol.to_string()).collect::<Vec<_>>().join(", "),
            }),
            _ => Ok(EndpointView {
                service: name.to_owned(),
                version: service.manifest().service.version.to_string(),
                provides,
            }),
        }
    }

    #[must_use]
    pub fn node(&self) -> NodeView {
        let all_run =
            self.services.values().all(|s| s.goal == Goal::Down || s.state == ServiceState::Running);
        let state = match self.boot {
            _ if self.is_ending() => NodeState::Stopping,
            BootProgress::NotBegun | BootProgress::Phase(_) => NodeState::Booting,
            BootProgress::Done | BootProgress::Ended if all_run => NodeState::Running,
            BootProgress::Done | BootProgress::Ended => NodeState::Degraded,
        };
        let installed = |name: &str| self.services.contains_key(name);
        NodeView {
            state,
            uptime: self.now.since(self.booted_at),
            not_installed: catalogue::ALL
                .iter()
                .filter(|entry| entry.phase.is_some() && !installed(entry.name))
                .map(|entry| entry.name.to_owned())
                .collect(),
            records_waiting: self.records.waiting.len(),
        }
    }

    /// True while something that a manifest of the user describes is up, on its way there, or waits to be started.
    #[must_use]
    pub fn runs_service_of_user(&self) -> bool {
        self.services
            .values()
            .any(|s| (s.instance.is_some() || s.rests_armed()) && catalogue::find(s.name()).is_none())
    }

    /// What is registered, as it is in force now.
    pub fn setups(&self) -> impl Iterator<Item = &ServiceSetup> {
        self.services.values().map(|service| &service.setup)
    }

    /// What is in force, what takes its place next, and what a failed replacement goes back to.
    pub fn all_setups(&self) -> impl Iterator<Item = &ServiceSetup> {
        self.services.values().flat_map(|service| {
            let next = service.replacement.as_ref().map(|(setup, _)| setup);
            [Some(&service.setup), next, service.previous.as_ref()].into_iter().flatten()
        })
    }

    /// Those that their timer may start.
    pub fn armed_timers(&self) -> impl Iterator<Item = (&LoadedManifest, &TimerConfig)> {
        let armed = self.services.values().filter(|service| service.armed);
        armed.filter_map(|s| Some((s.setup.manifest.as_ref(), s.manifest().timer.as_ref()?)))
    }

    /// The manifest that a service will have once nothing moves any more.
    #[must_use]
    pub fn manifest_to_be(&self, name: &str) -> Option<Arc<LoadedManifest>> {
        let service = self.services.get(name)?;
        let setup = service.replacement.as_ref().map_or(&service.setup, |(setup, _)| setup);
        Some(Arc::clone(&setup.manifest))
    }

    /// Launch and name of everything that runs or may run, for the shell's own bookkeeping.
    pub fn live(&self) -> impl Iterator<Item = (super::LaunchId, &str)> {
        self.services.values().filter_map(|s| s.instance.as_ref().map(|instance| (instance.launch, s.name())))
    }

    pub(super) fn subscribe(&mut self, subscriber: SubscriberId, filter: EventFilter) {
        if self.subscribers.len() >= SUBSCRIBERS_MAX && !self.subscribers.contains_key(&subscriber) {
            let error = SupervisorError::Busy { what: "listeners to events", limit: SUBSCRIBERS_MAX };
            return self.effects.push(Effect::RefuseSubscriber { subscriber, error });
        }
        self.subscribers.insert(subscriber, filter);
    }

    pub(super) fn tell(
        &mut self,
        name: &str,
        from: Option<ServiceState>,
        to: Option<ServiceState>,
        cause: &str,
    ) {
        let event = ServiceEvent { name: name.to_owned(), from, to, cause: bounded(cause) };
        let subscribers: Vec<SubscriberId> = self
            .subscribers
            .iter()
            .filter(|(_, filter)| filter.lets_through(&event))
            .map(|(subscriber, _)| *subscriber)
            .collect();
        if !subscribers.is_empty() {
            self.effects.push(Effect::Notify { subscribers, event });
        }
    }
}
