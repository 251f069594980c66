//! The machine: `step(now, event)` gives effects, in order.
//!
//! Every service has a *state* (what is) and a *goal* (what is wanted). An event changes one of the two; then
//! `reconcile` moves every service towards its goal, as far as the seventeen transitions allow, until nothing moves.
//! Who wins on conflict:
//!
//! 1. A shutdown wins over every goal; an emergency over a shutdown.
//! 2. A stop wins over a start, and over an automatic restart: a failed service that shall be down is given up.
//! 3. A required dependency that is down for good, or about to go down, takes its dependents with it, dependents first;
//!    they start again once all their dependencies run. One that restarts by itself does not: its dependents are told
//!    by their own broken calls, keep running and find it again on the same socket.
//! 4. While `Starting` nothing but the start's own end counts; a stop is remembered until then.
//!
//! Where things are: `boot` phases; `start` from permission to ready; `stop` one service; `shutdown` all; `fail` what
//! follows a failure; `demand` what waits to be started by a connection; `check` health, `late` who does not answer; `request` what callers ask; `act` decisions; `record` entries for the log;
//! `adopt` after the supervisor itself died; `view` what can be looked up.

mod act;
mod adopt;
mod boot;
mod check;
mod demand;
mod effect;
mod event;
mod fail;
mod ids;
mod late;
mod record;
mod request;
mod service;
mod shutdown;
mod start;
mod stop;
mod view;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base::ServiceId;

pub use adopt::{Memory, ServiceMemory};
pub use effect::{Effect, Reply, Signal, SupervisorError};
pub use event::{ActOutcome, BootMode, Child, ChildExit, CommitOutcome, Event, ExitStatus, Notification};
pub use ids::{ActId, CallId, LaunchId, Monotonic, RecordId, RequestId, SubscriberId};
pub use late::{HANG_KILL_INTERVAL, MACHINE_EXCUSES_MAX};
pub use record::{Record, RecordBody};
pub use service::ServiceSetup;
pub use view::{EndpointView, EventFilter, NodeState, NodeView, ServiceEvent, ServiceStatus};

use super::{
    catalogue,
    graph::{Graph, GraphError},
    state::{self, ServiceState, Transition},
};
use act::PendingAct;
use boot::BootProgress;
use record::RecordQueue;
use service::Service;
use shutdown::Shutdown;

/// Entries that wait for the log at most; beyond it nothing but log and Policy Engine is started (DESIGN 5).
pub const RECORDS_MAX: usize = 1024;
/// Questions to the Policy Engine under way at most.
pub const ACTS_MAX: usize = 1024;
/// A decision is awaited for this long; the answer is then no.
pub const ACT_TIMEOUT: Duration = Duration::from_secs(5);
/// When nobody could decide, or the log did not take an entry, it is tried again after this.
pub const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Listeners to events at most.
pub const SUBSCRIBERS_MAX: usize = 64;
/// Callers that wait for one service to start or stop at most.
pub const WAITERS_MAX: usize = 64;
/// Readiness is probed this often while a service starts: often enough not to be the delay of a start.
pub const READY_PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// After SIGKILL the kernel needs this long at most unless a process hangs in it; then nobody waits any more.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Each step of a stop in an emergency, whatever the manifest says.
pub const EMERGENCY_STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// Before the log itself stops, entries under way are awaited for this long.
pub const LAST_ENTRIES_TIMEOUT: Duration = Duration::from_secs(1);
/// A laggard is killed at most this often (DESIGN 2).
pub const LAGGARD_INTERVAL: Duration = Duration::from_secs(60);
/// Bytes of an error text that is kept or recorded.
pub const ERROR_TEXT_BYTES_MAX: usize = 512;

/// The supervisor's decisions.
#[derive(Debug)]
pub struct Supervisor {
    now: Monotonic,
    booted_at: Monotonic,
    services: BTreeMap<String, Service>,
    graph: Graph,
    boot: BootProgress,
    shutdown: Option<Shutdown>,
    /// The Policy Engine has run: from then on starts, stops and restarts need a decision (SUP-100).
    gated: bool,
    acts: BTreeMap<ActId, PendingAct>,
    records: RecordQueue,
    subscribers: BTreeMap<SubscriberId, EventFilter>,
    /// When a service was killed because it hangs.
    last_hang_kill: Option<Monotonic>,
    next_launch: u64,
    next_call: u64,
    next_act: u64,
    next_service: u32,
    effects: Vec<Effect>,
    /// Something moved since the last pass.
    changed: bool,
    /// `memory()` is not what was last stored.
    unremembered: bool,
}

impl Supervisor {
    /// `nonce` is random and new for each life of the supervisor that does not get its memory back; it keeps the
    /// idempotency keys of two lives apart.
    pub fn new(setups: Vec<ServiceSetup>, nonce: [u8; 16]) -> Result<Self, GraphError> {
        let graph = Graph::new(setups.iter().map(|setup| &setup.manifest.manifest))?;
        let mut machine = Self {
            now: Monotonic(0),
            booted_at: Monotonic(0),
            services: BTreeMap::new(),
            graph,
            boot: BootProgress::NotBegun,
            shutdown: None,
            gated: false,
            acts: BTreeMap::new(),
            records: RecordQueue::new(nonce),
            subscribers: BTreeMap::new(),
            last_hang_kill: None,
            next_launch: 1,
            next_call: 1,
            next_act: 1,
            next_service: 1,
            effects: Vec::new(),
            changed: false,
            unremembered: false,
        };
        let mut setups = setups;
        // Ids in starting order, so that they are the same in each life with the same manifests.
        setups.sort_by_key(|setup| machine.graph.start_order().iter().position(|name| name == setup.name()));
        for setup in setups {
            machine.insert(setup);
        }
        Ok(machine)
    }

    /// Takes in one event. Effects are to be carried out in order.
    pub fn step(&mut self, now: Monotonic, event: Event) -> Vec<Effect> {
        self.now = self.now.max(now);
        self.take_in(event);
        self.expire();
        // Most events are answers that move nothing; with a thousand services it matters not to look at all of them.
        if self.changed || self.is_due() {
            self.reconcile();
        }
        let mut effects = std::mem::take(&mut self.effects);
        if std::mem::take(&mut self.unremembered) {
            effects.insert(0, Effect::Remember);
        }
        effects
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Boot { mode } => self.boot(mode),
            Event::Adopted { memory, children, exits } => self.adopt(memory.map(|m| *m), children, exits),
            Event::RegisterRequested { request, setup } => self.register_requested(request, *setup),
            Event::UnregisterRequested { request, service } => self.unregister_requested(request, &service),
            Event::StartRequested { request, service } => self.start_requested(request, &service),
            Event::StopRequested { request, service } => self.stop_requested(request, &service),
            Event::RestartRequested { request, service } => self.restart_requested(request, &service),
            Event::ReloadRequested { request, service } => self.reload_requested(request, &service),
            Event::ShutdownRequested { request, reason } => self.shutdown_requested(request, reason),
            Event::Subscribe { subscriber, filter } => self.subscribe(subscriber, filter),
            Event::Unsubscribe { subscriber } => {
                self.subscribers.remove(&subscriber);
            }
            Event::Laggard { service } => self.laggard(&service),
            Event::TimerElapsed { service } => self.timer_elapsed(&service),
            Event::Demanded { service, waited } => self.demanded(&service, waited),
            Event::Launched { launch, pid, missing } => self.launched(launch, pid, missing),
            Event::LaunchFailed { launch, error, text } => self.launch_failed(launch, error, text),
            Event::Exited { launch, status } => self.exited(launch, status),
            Event::AfterFailed { launch, text } => self.after_failed(launch, &text),
            Event::LifecycleReply { launch, call, response } => self.lifecycle_reply(launch, call, response),
            Event::LifecycleClosed { launch, text } => self.lifecycle_closed(launch, &text),
            Event::ProbeResult { launch, call, result } => self.probe_result(launch, call, result),
            Event::Pressure { launch, reading } => self.pressure_read(launch, reading),
            Event::Slept { duration } => self.slept(duration),
            Event::Notify { launch, notification } => self.notified(launch, notification),
            Event::ActResult { act, outcome } => self.act_result(act, outcome),
            Event::CommitResult { record, outcome } => self.commit_result(record, outcome),
            Event::Timer => {}
        }
    }

    /// Moves everything towards what is wanted, until nothing moves.
    fn reconcile(&mut self) {
        if matches!(self.boot, BootProgress::NotBegun | BootProgress::Ended) {
            return;
        }
        // Each pass moves at least one service on its way of at most a handful of transitions; the bound only guards
        // against a mistake here, which must not become a loop in the first process of the node.
        let passes_max = self.services.len() * 8 + 16;
        for _ in 0..passes_max {
            self.changed = false;
            self.stop_what_must_stop();
            self.start_what_may_start();
            self.advance_boot();
            self.advance_shutdown();
            self.flush_records();
            if !self.changed {
                return self.await_demand();
            }
        }
        self.effects.push(Effect::Warn(
            "the services did not settle in one step; going on with the next event".to_owned(),
        ));
    }

    /// When `Timer` is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Monotonic> {
        let services = self.services.values().filter_map(|service| self.service_deadline(service));
        let acts = self.acts.values().map(|act| act.due);
        // Nobody waits for the log's last entries any more when it ended by itself in the meantime.
        let last_entries = self.shutdown.as_ref().and_then(Shutdown::deadline).filter(|at| *at > self.now);
        let others = [self.records.retry_at(), last_entries];
        services.chain(acts).chain(others.into_iter().flatten()).min()
    }

    fn service_deadline(&self, service: &Service) -> Option<Monotonic> {
        let restart = service.restart_at.filter(|at| service.instance.is_none() && *at > self.now);
        let ask_again = match service.permit {
            service::Permit::RetryAt(at) => Some(at).filter(|at| *at > self.now),
            _ => None,
        };
        let demand = match service.demand {
            demand::Demand::Due(at) => Some(at),
            _ => None,
        };
        [restart, ask_again, demand, self.instance_deadline(service)].into_iter().flatten().min()
    }

    fn instance_deadline(&self, service: &Service) -> Option<Monotonic> {
        let instance = service.instance.as_ref()?;
        let call = instance.call.as_ref().map(|call| call.due);
        // A check that is due waits for the answer to the one before.
        let next_check = instance.next_check.filter(|_| call.is_none());
        let times = [instance.deadline, call, next_check, instance.watchdog_due];
        times.into_iter().flatten().min()
    }

    /// Everything whose time has come.
    fn expire(&mut self) {
        self.expire_acts();
        self.expire_demand();
        let due = |service: &&Service| self.instance_deadline(service).is_some_and(|at| at <= self.now);
        let due: Vec<String> = self.services.values().filter(due).map(|s| s.name().to_owned()).collect();
        for name in due {
            self.expire_checks(&name);
            self.expire_stage(&name);
        }
    }

    /// Something other than the end of a stage or a check is due.
    fn is_due(&self) -> bool {
        let restart = |s: &Service| s.instance.is_none() && s.restart_at.is_some_and(|at| at <= self.now);
        let ask_again = |s: &Service| matches!(s.permit, service::Permit::RetryAt(at) if at <= self.now);
        let others = [self.records.retry_at(), self.shutdown.as_ref().and_then(Shutdown::deadline)];
        others.into_iter().flatten().any(|at| at <= self.now)
            || self.services.values().any(|s| restart(s) || ask_again(s))
    }

    /// In starting order; cheap to hold on to.
    fn names(&self) -> Arc<[String]> {
        Arc::clone(self.graph.start_order())
    }

    fn insert(&mut self, setup: ServiceSetup) {
        let id = ServiceId(self.next_service);
        self.next_service = self.next_service.saturating_add(1);
        self.services.insert(setup.name().to_owned(), Service::new(id, setup));
    }

    fn owner(&self, launch: LaunchId) -> Option<String> {
        let owns = |service: &&Service| service.instance.as_ref().is_some_and(|i| i.launch == launch);
        self.services.values().find(owns).map(|service| service.name().to_owned())
    }

    fn state_of(&self, name: &str) -> Option<ServiceState> {
        self.services.get(name).map(|service| service.state)
    }

    fn serves(&self, name: &str) -> bool {
        self.state_of(name).is_some_and(ServiceState::serves)
    }

    /// The only place where a state changes. False, and nothing happens, if there is no such transition.
    fn go(&mut self, name: &str, transition: Transition, cause: &str) -> bool {
        let Some(service) = self.services.get_mut(name) else { return false };
        let from = service.state;
        match state::next(Some(from), transition) {
            Ok(Some(to)) => {
                service.state = to;
                self.changed = true;
                self.unremembered = true;
                self.tell(name, Some(from), Some(to), cause);
                true
            }
            Ok(None) => true,
            Err(rejected) => {
                self.effects.push(Effect::Warn(format!("{name}: {rejected}")));
                false
            }
        }
    }

    fn reply(&mut self, request: RequestId, result: Result<Reply, SupervisorError>) {
        self.effects.push(Effect::Reply { request, result });
    }

    fn reply_status(&mut self, request: RequestId, name: &str) {
        let result = match self.services.get(name) {
            Some(service) => Ok(Reply::Status(Box::new(self.status_of(service)))),
            None => Err(SupervisorError::NotFound(name.to_owned())),
        };
        self.reply(request, result);
    }

    fn call_id(&mut self) -> CallId {
        let id = CallId(self.next_call);
        self.next_call += 1;
        id
    }

    /// A shutdown has begun.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.shutdown.is_some()
    }

    fn is_authority(name: &str) -> bool {
        catalogue::phase(name) == catalogue::Phase::Authority
    }
}

/// Error texts come from services and programs: bounded before they are kept.
fn bounded(text: &str) -> String {
    let mut end = text.len().min(ERROR_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
