//! What the machine knows about one service.

use std::{sync::Arc, time::Duration};

use base::{CapabilityId, Hash, IdentityId, ServiceId};

use super::{ActId, CallId, LaunchId, Monotonic, RequestId, demand::Demand, late::Late};
use crate::{
    core::{
        catalogue::{self, Phase},
        health::HealthCounter,
        lifecycle::{HealthStatus, LifecycleMessage},
        restart::{self, RestartLedger, RestartPolicy, TriggerLedger},
        state::ServiceState,
    },
    manifest::{HealthCheck, LoadedManifest, RestartMode, Runs, ServiceManifest},
};

/// A service as it is registered: manifest, and what the node gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSetup {
    pub manifest: Arc<LoadedManifest>,
    pub identity: IdentityId,
    pub capabilities: Vec<CapabilityId>,
}

impl ServiceSetup {
    #[must_use]
    pub fn name(&self) -> &str {
        self.manifest.name()
    }
}

/// What is wanted, as opposed to what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Up,
    Down,
}

/// Whether a start has been decided. A decision covers the restarts that follow from the manifest's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    None,
    Asked(ActId),
    /// None before the Policy Engine ran for the first time (SUP-100).
    Granted(Option<Hash>),
    /// Nobody could decide; ask again then.
    RetryAt(Monotonic),
}

#[derive(Debug)]
pub(super) struct Service {
    pub(super) id: ServiceId,
    pub(super) setup: ServiceSetup,
    pub(super) phase: Phase,
    pub(super) policy: RestartPolicy,
    pub(super) mode: RestartMode,
    pub(super) check: HealthCheck,

    pub(super) state: ServiceState,
    pub(super) goal: Goal,
    /// Failed for good, refused, or impossible: stays down until somebody asks again.
    pub(super) given_up: bool,
    /// What its manifest names may start it.
    pub(super) armed: bool,
    pub(super) demand: Demand,
    pub(super) triggers: TriggerLedger,
    /// It was launched with the manifest that it has.
    pub(super) has_run: bool,
    /// Must stop once, then start again.
    pub(super) bounce: bool,
    pub(super) permit: Permit,
    /// Permission of the stop in progress.
    pub(super) stop_authorization: Option<Hash>,
    pub(super) stop_reason: String,

    pub(super) instance: Option<Instance>,
    pub(super) ledger: RestartLedger,
    pub(super) last_start: Monotonic,
    pub(super) restarts: u32,
    pub(super) restart_at: Option<Monotonic>,
    /// A start has failed since this was last wanted; the boot does not wait for it any more unless it is critical.
    pub(super) failed_once: bool,
    pub(super) last_laggard: Option<Monotonic>,
    /// The end of this instance does not count towards the restart budget.
    pub(super) uncounted: bool,
    pub(super) last_error: Option<String>,
    pub(super) missing: Vec<String>,

    /// Takes the place of `setup` as soon as nothing runs; with the decision that allows it.
    pub(super) replacement: Option<(ServiceSetup, Option<Hash>)>,
    /// What to go back to if the replacement fails to start.
    pub(super) previous: Option<ServiceSetup>,
    pub(super) start_waiters: Vec<RequestId>,
    pub(super) stop_waiters: Vec<RequestId>,
}

/// One process, from the order to launch it until its exit was taken in.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) launch: LaunchId,
    pub(super) pid: Option<u32>,
    pub(super) stage: Stage,
    pub(super) running_since: Option<Monotonic>,
    /// What the stage ends with if nothing comes before.
    pub(super) deadline: Option<Monotonic>,
    pub(super) call: Option<Call>,
    pub(super) next_check: Option<Monotonic>,
    pub(super) watchdog_due: Option<Monotonic>,
    pub(super) late: Option<Late>,
    /// `READY=1` came before the launch itself was known: the two travel on different roads.
    pub(super) said_ready: bool,
    pub(super) health: HealthCounter,
    pub(super) status: Option<HealthStatus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Launching,
    /// `Init` or `Start` is out, or readiness is awaited.
    Readying,
    Serving,
    /// `PrepareStop` is out.
    Draining,
    /// `Stop` or SIGTERM is out.
    Ending,
    Killed,
    /// Killed long ago and still not gone: nobody waits for it any more.
    Stuck,
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) what: CallKind,
    pub(super) due: Monotonic,
}

#[derive(Clone, Debug)]
pub(super) enum CallKind {
    Lifecycle(LifecycleMessage),
    Probe,
}

impl Service {
    pub(super) fn new(id: ServiceId, setup: ServiceSetup) -> Self {
        let manifest = &setup.manifest.manifest;
        let service_type = manifest.service.service_type;
        Self {
            id,
            phase: catalogue::phase(&manifest.service.name),
            policy: RestartPolicy::new(service_type, manifest.restart.as_ref()),
            mode: restart::mode(service_type, manifest.restart.as_ref()),
            check: manifest.health.check(manifest.program.is_some()),
            state: ServiceState::Registered,
            goal: Goal::Down,
            given_up: false,
            armed: false,
            demand: Demand::None,
            triggers: TriggerLedger::default(),
            has_run: false,
            bounce: false,
            permit: Permit::None,
            stop_authorization: None,
            stop_reason: String::new(),
            instance: None,
            ledger: RestartLedger::default(),
            last_start: Monotonic(0),
            restarts: 0,
            restart_at: None,
            failed_once: false,
            last_laggard: None,
            uncounted: false,
            last_error: None,
            missing: Vec::new(),
            replacement: None,
            previous: None,
            start_waiters: Vec::new(),
            stop_waiters: Vec::new(),
            setup,
        }
    }

    /// Puts another manifest in the place of this one; the account of restarts begins anew.
    pub(super) fn install(&mut self, setup: ServiceSetup) {
        let fresh = Self::new(self.id, setup);
        self.setup = fresh.setup;
        self.policy = fresh.policy;
        self.mode = fresh.mode;
        self.check = fresh.check;
        self.has_run = false;
        // Its sockets may be others: who waited for a connection waited on the old ones.
        self.demand = fresh.demand;
        self.triggers = fresh.triggers;
        self.ledger.clear();
    }

    pub(super) fn manifest(&self) -> &ServiceManifest {
        &self.setup.manifest.manifest
    }

    pub(super) fn name(&self) -> &str {
        self.setup.name()
    }

    /// Something runs, or may.
    pub(super) fn is_live(&self) -> bool {
        self.instance.as_ref().is_some_and(|instance| instance.stage != Stage::Stuck)
    }

    /// Will start by itself once it can.
    pub(super) fn is_wanted(&self) -> bool {
        self.goal == Goal::Up && !self.given_up
    }

    pub(super) fn startup_timeout(&self) -> Duration {
        self.manifest().health.startup_timeout
    }

    /// A job: its end with 0 is what it is for.
    pub(super) fn runs_once(&self) -> bool {
        self.manifest().program.as_ref().is_some_and(|program| program.runs == Runs::Once)
    }

    /// Somebody notices when it does not answer.
    pub(super) fn is_watched(&self) -> bool {
        !matches!(self.check, HealthCheck::Process | HealthCheck::SdNotify { watchdog: None })
    }

    pub(super) fn speaks_lifecycle(&self) -> bool {
        self.check == HealthCheck::Lifecycle
    }
}

impl Instance {
    pub(super) fn new(launch: LaunchId) -> Self {
        Self {
            launch,
            pid: None,
            stage: Stage::Launching,
            running_since: None,
            deadline: None,
            call: None,
            next_check: None,
            watchdog_due: None,
            late: None,
            said_ready: false,
            health: HealthCounter::default(),
            status: None,
        }
    }
}
