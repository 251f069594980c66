//! What stands around the machine in a test: processes, log, Policy Engine and time, all obedient unless told otherwise.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use base::{Hash, IdentityId};
use chain::payload::service::ServiceError;
use supervisor::core::hang::{Reading, Stalls};
use supervisor::core::lifecycle::{HealthStatus, LifecycleMessage, LifecycleResponse};
use supervisor::core::state::ServiceState;
use supervisor::core::supervisor::{
    ActOutcome, BootMode, CommitOutcome, Effect, Event, ExitStatus, LaunchId, Monotonic, Notification,
    Record, Reply, RequestId, ServiceEvent, ServiceSetup, ServiceStatus, Signal, Supervisor, SupervisorError,
};
use supervisor::manifest;

pub(crate) const FIXTURES: [(&str, &str); 12] = [
    ("axiom.toml", include_str!("../fixtures/manifests/axiom.toml")),
    ("policy.toml", include_str!("../fixtures/manifests/policy.toml")),
    ("keys.toml", include_str!("../fixtures/manifests/keys.toml")),
    ("identity.toml", include_str!("../fixtures/manifests/identity.toml")),
    ("process_manager.toml", include_str!("../fixtures/manifests/process_manager.toml")),
    ("capability_service.toml", include_str!("../fixtures/manifests/capability_service.toml")),
    ("block_storage.toml", include_str!("../fixtures/manifests/block_storage.toml")),
    ("filesystem.toml", include_str!("../fixtures/manifests/filesystem.toml")),
    ("driver_manager.toml", include_str!("../fixtures/manifests/driver_manager.toml")),
    ("network.toml", include_str!("../fixtures/manifests/network.toml")),
    ("terminal.toml", include_str!("../fixtures/manifests/terminal.toml")),
    ("update_manager.toml", include_str!("../fixtures/manifests/update_manager.toml")),
];

pub(crate) const HASH: &str = "blake3:1111111111111111111111111111111111111111111111111111111111111111";

/// How the processes of one service behave.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    pub(crate) launches: Result<(), ServiceError>,
    pub(crate) answers_init: bool,
    pub(crate) answers_start: bool,
    pub(crate) answers_prepare_stop: bool,
    /// Ends after `Stop` or SIGTERM.
    pub(crate) stops: bool,
    /// Ends after SIGKILL.
    pub(crate) dies: bool,
    /// Its `READY=1` is there before the keeper's answer.
    pub(crate) says_ready_first: bool,
    /// None: does not answer.
    pub(crate) health: Option<bool>,
    /// Why it is degraded, while it is.
    pub(crate) degraded: Option<String>,
    pub(crate) probe: Option<Result<(), String>>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            launches: Ok(()),
            answers_init: true,
            answers_start: true,
            answers_prepare_stop: true,
            stops: true,
            dies: true,
            says_ready_first: false,
            health: Some(true),
            degraded: None,
            probe: Some(Ok(())),
        }
    }
}

pub(crate) struct Process {
    pub(crate) service: String,
    pub(crate) pid: u32,
}

pub(crate) struct World {
    pub(crate) machine: Supervisor,
    pub(crate) now: Monotonic,
    pub(crate) processes: BTreeMap<LaunchId, Process>,
    pub(crate) manners: BTreeMap<String, Manners>,
    pub(crate) policy: ActOutcome,
    pub(crate) policy_answers: bool,
    pub(crate) log: Vec<Record>,
    pub(crate) log_answers: bool,
    pub(crate) replies: BTreeMap<RequestId, Result<Reply, SupervisorError>>,
    pub(crate) events: Vec<ServiceEvent>,
    /// Whose program was told to read its configuration again, for whom.
    pub(crate) reloads: Vec<(String, RequestId)>,
    /// What was done, one line each, in order.
    pub(crate) trace: Vec<String>,
    pub(crate) finished: Option<(bool, Vec<String>)>,
    pub(crate) inbox: VecDeque<Event>,
    /// Services whose connections are waited for.
    pub(crate) awaited: BTreeSet<String>,
    /// Services with a connection that nobody has accepted.
    pub(crate) clients: BTreeSet<String>,
    pub(crate) starved_percent: u64,
    pub(crate) reads_pressure: bool,
    next_request: u64,
}

pub(crate) fn setup(file: &str, text: &str) -> ServiceSetup {
    let manifest = manifest::parse(file, text).unwrap_or_else(|errors| panic!("{errors:?}"));
    let identity = IdentityId(Hash::of(manifest.name().as_bytes()).0);
    ServiceSetup { manifest: Arc::new(manifest), identity, capabilities: Vec::new() }
}

/// A service of the user: `extra` is TOML behind the `[service]` table.
pub(crate) fn user(name: &str, extra: &str) -> ServiceSetup {
    service(name, "User", extra)
}

pub(crate) fn service(name: &str, service_type: &str, extra: &str) -> ServiceSetup {
    let text = format!(
        "version = 1\n[service]\nname = \"{name}\"\nversion = \"1.0.0\"\nservice_type = \"{service_type}\"\nbinary = \"{HASH}\"\n{extra}\n"
    );
    setup(&format!("{name}.toml"), &text)
}

pub(crate) fn requires(name: &str) -> String {
    format!("[[dependencies]]\nname = \"{name}\"\n")
}

pub(crate) fn fixtures() -> Vec<ServiceSetup> {
    FIXTURES.iter().map(|(file, text)| setup(file, text)).collect()
}

impl World {
    pub(crate) fn new(setups: Vec<ServiceSetup>) -> Self {
        Self {
            machine: Supervisor::new(setups, [7; 16]).unwrap(),
            now: Monotonic::from_ms(1_000_000),
            processes: BTreeMap::new(),
            manners: BTreeMap::new(),
            policy: ActOutcome::Allowed { authorization: Hash([9; 32]) },
            policy_answers: true,
            log: Vec::new(),
            log_answers: true,
            replies: BTreeMap::new(),
            events: Vec::new(),
            reloads: Vec::new(),
            trace: Vec::new(),
            finished: None,
            inbox: VecDeque::new(),
            awaited: BTreeSet::new(),
            clients: BTreeSet::new(),
            starved_percent: 0,
            reads_pressure: true,
            next_request: 1,
        }
    }

    pub(crate) fn booted(setups: Vec<ServiceSetup>) -> Self {
        let mut world = Self::new(setups);
        world.boot();
        world
    }

    pub(crate) fn boot(&mut self) {
        self.event(Event::Boot { mode: BootMode::Normal });
    }

    pub(crate) fn manners(&mut self, service: &str) -> &mut Manners {
        self.manners.entry(service.to_owned()).or_default()
    }

    /// Takes in the event and everything that follows from it without time going by.
    pub(crate) fn event(&mut self, event: Event) {
        self.inbox.push_back(event);
        let mut turns = 0;
        while let Some(event) = self.inbox.pop_front() {
            turns += 1;
            assert!(turns < 10_000, "one event never ends: {:?}", self.recent());
            self.one(event);
        }
    }

    /// Takes in this event alone.
    pub(crate) fn one(&mut self, event: Event) {
        for effect in self.machine.step(self.now, event) {
            self.perform(effect);
        }
    }

    /// Lets time go by, with every timer on its way.
    pub(crate) fn advance_ms(&mut self, ms: u64) {
        let until = Monotonic(self.now.0 + ms * 1_000_000);
        while let Some(due) = self.machine.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.event(Event::Timer);
        }
        self.now = until;
        self.event(Event::Timer);
    }

    pub(crate) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { launch, service, .. } => self.launch(launch, service),
            Effect::SendLifecycle { launch, call, message } => {
                let Some(name) = self.service_of(launch) else { return };
                self.trace.push(format!("{} {name}", message_name(&message)));
                if let Some(response) = self.answer(&name, &message) {
                    self.inbox.push_back(Event::LifecycleReply { launch, call, response });
                }
                if message == LifecycleMessage::Stop && self.manners(&name).stops {
                    self.exit(launch, ExitStatus::Code(0));
                }
            }
            Effect::Probe { launch, call, .. } => {
                let Some(name) = self.service_of(launch) else { return };
                self.trace.push(format!("Probe {name}"));
                if let Some(result) = self.manners(&name).probe.clone() {
                    self.inbox.push_back(Event::ProbeResult { launch, call, result });
                }
            }
            Effect::Signal { launch, signal } => self.signal(launch, signal),
            Effect::ReadPressure { launch } => {
                self.trace.push("ReadPressure".to_owned());
                if self.reads_pressure {
                    // It has waited for so much of all time.
                    let us = self.now.0 / 1000 / 100 * self.starved_percent;
                    let own = Stalls { processor_us: Some(us), ..Stalls::default() };
                    let reading = Reading { at: self.now, own, machine: Stalls::default() };
                    self.inbox.push_back(Event::Pressure { launch, reading });
                }
            }
            Effect::RunAfter { .. } => {}
            Effect::ForgetDemand { service } => {
                self.awaited.remove(&service);
                self.trace.push(format!("Forget {service}"));
            }
            Effect::Reload { launch, request } => {
                let service = self.processes.get(&launch).map(|process| process.service.clone());
                self.reloads.push((service.unwrap_or_default(), request));
            }
            Effect::Act { act, service, operation, .. } => {
                self.trace.push(format!("Act {operation:?} {service}"));
                if self.policy_answers {
                    let outcome = self.policy.clone();
                    self.inbox.push_back(Event::ActResult { act, outcome });
                }
            }
            Effect::Append(record) => {
                let service = record.body.service().unwrap_or("-").to_owned();
                self.trace.push(format!("Append {} {service}", record.body.entry_type()));
                if self.log_answers {
                    let id = record.id;
                    self.log.push(record);
                    self.inbox
                        .push_back(Event::CommitResult { record: id, outcome: CommitOutcome::Committed });
                }
            }
            Effect::Notify { event, .. } => self.events.push(event),
            Effect::Reply { request, result } => {
                assert!(self.replies.insert(request, result).is_none(), "two replies to request {request}");
            }
            Effect::Booted { missing } => self.trace.push(format!("Booted without {missing:?}")),
            Effect::Emergency { reason } => self.trace.push(format!("Emergency: {reason}")),
            Effect::Finished { emergency, survivors } => {
                assert!(self.finished.is_none(), "finished twice");
                self.finished = Some((emergency, survivors));
            }
            Effect::AwaitDemand { service } => {
                self.trace.push(format!("Await {service}"));
                if self.clients.contains(&service) {
                    self.inbox.push_back(Event::Demanded { service, waited: true });
                } else {
                    self.awaited.insert(service);
                }
            }
            Effect::Rested { service } => self.trace.push(format!("Rested {service}")),
            Effect::Remember => self.trace.push("Remember".to_owned()),
            Effect::Acknowledge { launch } => self.trace.push(format!("Acknowledge {launch}")),
            Effect::Warn(text) => self.trace.push(format!("Warn {text}")),
            Effect::Late { service, text } => self.trace.push(format!("Late {service} {text}")),
            Effect::RefuseSubscriber { subscriber, .. } => self.trace.push(format!("Refuse {subscriber}")),
        }
    }

    fn launch(&mut self, launch: LaunchId, service: String) {
        assert!(!self.processes.values().any(|p| p.service == service), "{service} runs twice");
        self.trace.push(format!("Launch {service}"));
        match self.manners(&service).launches {
            Ok(()) => {
                let pid = 100 + u32::try_from(launch.0).unwrap();
                if self.manners(&service).says_ready_first {
                    self.inbox.push_back(Event::Notify { launch, notification: Notification::Ready });
                }
                self.processes.insert(launch, Process { service, pid });
                self.inbox.push_back(Event::Launched { launch, pid, missing: Vec::new() });
            }
            Err(error) => {
                let text = "it was told not to".to_owned();
                self.inbox.push_back(Event::LaunchFailed { launch, error, text });
            }
        }
    }

    fn answer(&mut self, name: &str, message: &LifecycleMessage) -> Option<LifecycleResponse> {
        let manners = self.manners(name).clone();
        match message {
            LifecycleMessage::Init { .. } => manners.answers_init.then_some(LifecycleResponse::InitComplete),
            LifecycleMessage::Start => manners.answers_start.then_some(LifecycleResponse::Started),
            LifecycleMessage::PrepareStop => {
                manners.answers_prepare_stop.then_some(LifecycleResponse::ReadyToStop)
            }
            LifecycleMessage::Stop => manners.stops.then_some(LifecycleResponse::Stopped),
            LifecycleMessage::HealthCheck => {
                let healthy = manners.health?;
                Some(LifecycleResponse::Health(HealthStatus {
                    healthy,
                    degraded: manners.degraded.is_some(),
                    last_error: manners.degraded,
                    ..HealthStatus::default()
                }))
            }
            LifecycleMessage::StatusRequest => None,
        }
    }

    fn signal(&mut self, launch: LaunchId, signal: Signal) {
        let name = self.service_of(launch).unwrap_or_else(|| "nobody".to_owned());
        self.trace.push(format!("{signal:?} {name}"));
        let manners = self.manners(&name).clone();
        match signal {
            Signal::Terminate if manners.stops => self.exit(launch, ExitStatus::Signal(15)),
            Signal::Kill if manners.dies => self.exit(launch, ExitStatus::Signal(9)),
            _ => {}
        }
    }

    fn exit(&mut self, launch: LaunchId, status: ExitStatus) {
        if self.processes.remove(&launch).is_some() {
            self.inbox.push_back(Event::Exited { launch, status });
        }
    }

    /// Somebody connects to a service and stays in the queue.
    pub(crate) fn connect(&mut self, service: &str) {
        self.clients.insert(service.to_owned());
        if self.awaited.remove(service) {
            self.event(Event::Demanded { service: service.to_owned(), waited: false });
        }
    }

    /// The process of a service ends by itself.
    pub(crate) fn crash(&mut self, service: &str, status: ExitStatus) {
        let launch = self.launch_of(service);
        self.exit(launch, status);
        while let Some(event) = self.inbox.pop_front() {
            self.one(event);
        }
    }

    pub(crate) fn launch_of(&self, service: &str) -> LaunchId {
        *self
            .processes
            .iter()
            .find(|(_, p)| p.service == service)
            .unwrap_or_else(|| panic!("{service} does not run"))
            .0
    }

    fn service_of(&self, launch: LaunchId) -> Option<String> {
        self.processes.get(&launch).map(|process| process.service.clone())
    }

    fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub(crate) fn start(&mut self, service: &str) -> RequestId {
        let request = self.request();
        self.event(Event::StartRequested { request, service: service.to_owned() });
        request
    }

    pub(crate) fn stop(&mut self, service: &str) -> RequestId {
        let request = self.request();
        self.event(Event::StopRequested { request, service: service.to_owned() });
        request
    }

    pub(crate) fn restart(&mut self, service: &str) -> RequestId {
        let request = self.request();
        self.event(Event::RestartRequested { request, service: service.to_owned() });
        request
    }

    pub(crate) fn reload(&mut self, service: &str) -> RequestId {
        let request = self.request();
        self.event(Event::ReloadRequested { request, service: service.to_owned() });
        request
    }

    pub(crate) fn register(&mut self, setup: ServiceSetup) -> RequestId {
        let request = self.request();
        self.event(Event::RegisterRequested { request, setup: Box::new(setup) });
        request
    }

    pub(crate) fn unregister(&mut self, service: &str) -> RequestId {
        let request = self.request();
        self.event(Event::UnregisterRequested { request, service: service.to_owned() });
        request
    }

    pub(crate) fn shutdown(&mut self) {
        self.event(Event::ShutdownRequested { request: None, reason: "test".to_owned() });
    }

    pub(crate) fn reply(&self, request: RequestId) -> &Result<Reply, SupervisorError> {
        self.replies.get(&request).unwrap_or_else(|| panic!("request {request} has no reply yet"))
    }

    pub(crate) fn error(&self, request: RequestId) -> &SupervisorError {
        self.reply(request).as_ref().unwrap_err()
    }

    pub(crate) fn status(&self, service: &str) -> ServiceStatus {
        self.machine.status_by_name(service).unwrap()
    }

    pub(crate) fn state(&self, service: &str) -> ServiceState {
        self.status(service).state
    }

    /// The end of the trace, newest first.
    pub(crate) fn recent(&self) -> Vec<&str> {
        self.trace.iter().rev().take(60).map(String::as_str).collect()
    }

    /// Lines of the trace that begin with a word, without it.
    pub(crate) fn traced(&self, word: &str) -> Vec<&str> {
        self.trace.iter().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect()
    }
}

pub(crate) fn message_name(message: &LifecycleMessage) -> &'static str {
    match message {
        LifecycleMessage::Init { .. } => "Init",
        LifecycleMessage::Start => "Start",
        LifecycleMessage::PrepareStop => "PrepareStop",
        LifecycleMessage::Stop => "Stop",
        LifecycleMessage::HealthCheck => "HealthCheck",
        LifecycleMessage::StatusRequest => "StatusRequest",
    }
}
