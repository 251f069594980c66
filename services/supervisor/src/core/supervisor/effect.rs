use std::{sync::Arc, time::Duration};

use base::Hash;
use chain::payload::{policy::ServiceOperation, service::ServiceError};
use thiserror::Error;

use super::{ActId, CallId, LaunchId, Record, RequestId, ServiceEvent, ServiceStatus, SubscriberId};
use crate::{
    core::lifecycle::LifecycleMessage,
    manifest::{HealthCheck, LoadedManifest},
};

/// What the shell carries out, in order. A later effect may rely on an earlier one having been handed over.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Store `memory()` where the keeper keeps it, before the next effect that anybody else sees, and before waiting.
    Remember,
    /// Ask the Policy Engine; answered by `ActResult`.
    Act {
        act: ActId,
        service: String,
        operation: ServiceOperation,
        /// On whose behalf; none for what the boot itself starts.
        request: Option<RequestId>,
    },
    /// Into the log; answered by `CommitResult`.
    Append(Record),
    /// Check that the program has this hash and start it; answered by `Launched` or `LaunchFailed`.
    Launch {
        launch: LaunchId,
        service: String,
        manifest: Arc<LoadedManifest>,
        binary: Hash,
    },
    /// Answered by `LifecycleReply` with the same call, or `LifecycleClosed`. A new message replaces one that is unanswered.
    SendLifecycle {
        launch: LaunchId,
        call: CallId,
        message: LifecycleMessage,
    },
    /// Answered by `ProbeResult` with the same call.
    Probe {
        launch: LaunchId,
        call: CallId,
        check: HealthCheck,
        timeout: Duration,
    },
    /// Read what the kernel counts of waiting, of this service and of all; answered by `Pressure`.
    ReadPressure {
        launch: LaunchId,
    },
    Signal {
        launch: LaunchId,
        signal: Signal,
    },
    /// Nobody is to be told of connections to this service any more; a socket is not held open for it.
    ForgetDemand {
        service: String,
    },
    /// Run what its manifest has run once it is ready; answered by `AfterFailed` if one fails that may not.
    RunAfter {
        launch: LaunchId,
    },
    /// Have it read its configuration again, in the way of its manifest; the request is answered when that is done.
    Reload {
        launch: LaunchId,
        request: RequestId,
    },
    /// Say when something waits on a socket of this service that starts it; answered by `Demanded`, once. A later one
    /// replaces it.
    AwaitDemand {
        service: String,
    },
    /// It is down and nobody wants it up: what it left to be given back to it is let go.
    Rested {
        service: String,
    },
    /// The exit was taken in: the keeper may forget it.
    Acknowledge {
        launch: LaunchId,
    },
    Notify {
        subscribers: Vec<SubscriberId>,
        event: ServiceEvent,
    },
    /// Too many listen already.
    RefuseSubscriber {
        subscriber: SubscriberId,
        error: SupervisorError,
    },
    Reply {
        request: RequestId,
        result: Result<Reply, SupervisorError>,
    },
    /// All phases are done; `missing` lists services that should run and do not.
    Booted {
        missing: Vec<String>,
    },
    /// Leave the marker that the next boot reads; shutdown has begun.
    Emergency {
        reason: String,
    },
    /// All has ended, except what could not be killed.
    Finished {
        emergency: bool,
        survivors: Vec<String>,
    },
    /// For the operator's log.
    Warn(String),
    /// A watched service is late; it is on record, if that was not said of it just before.
    Late {
        service: String,
        text: String,
    },
}

impl Effect {
    /// What somebody else sees, so that a supervisor which starts after it must know of it. The others can wait until there is
    /// nothing more to take in: a death before that is as good as one before the event itself.
    #[must_use]
    pub const fn leaves_a_trace(&self) -> bool {
        !matches!(
            self,
            Self::Remember
                | Self::Probe { .. }
                | Self::ReadPressure { .. }
                | Self::AwaitDemand { .. }
                | Self::Notify { .. }
                | Self::RefuseSubscriber { .. }
                | Self::Warn(_)
                | Self::Late { .. }
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Terminate,
    Kill,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Status(Box<ServiceStatus>),
    Done,
}

/// The error texts say what was asked of which service and what stands against it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SupervisorError {
    #[error("there is no service {0:?}; `bailiwick service list` shows those that are known")]
    NotFound(String),
    #[error("service {0} does not run")]
    NotRunning(String),
    #[error("service {0} has no endpoint")]
    NoEndpoint(String),
    #[error("{0} is a program: it may look up services here, and nothing else")]
    NotForPrograms(String),
    #[error("service {service} offers {offered}, the caller needs {wanted}")]
    IncompatibleVersion { service: String, wanted: String, offered: String },
    #[error("service {service} cannot be stopped: {core} is a core service, which only a shutdown stops")]
    CoreService { service: String, core: String },
    #[error(
        "service {0} has nothing that reloads it: its [program] names no reload and no reload_signal; \
         `bailiwick service restart {0}` starts it anew"
    )]
    NoReload(String),
    #[error("service {service} was not reloaded: {text}; `bailiwick service logs {service}` may say more")]
    NotReloaded { service: String, text: String },
    #[error("no command runs beside service {service}: {text}")]
    NotExecuted { service: String, text: String },
    #[error("there is no generation {number}; {text}")]
    NoGeneration { number: u64, text: String },
    #[error("policy refuses; the refusal has id {refusal}")]
    PolicyDenied { refusal: u64 },
    #[error("the manifest is refused: {0}")]
    InvalidManifest(String),
    #[error("service {service} was not started: {why}")]
    DependencyNotRunning { service: String, why: String },
    #[error("service {0} was not ready in time")]
    StartupTimeout(String),
    #[error("service {service} failed: {text}")]
    ServiceCrashed { service: String, error: ServiceError, text: String },
    #[error("the new manifest of service {service} failed, the one before is in its place again: {text}")]
    RolledBack { service: String, text: String },
    #[error("service {service} cannot listen on {listen}: {why}")]
    CannotListen { service: String, listen: String, why: String },
    #[error("service {0} must be stopped first: `bailiwick service stop {0}`")]
    NotStopped(String),
    #[error("service {0} was asked for something else before this was done")]
    Superseded(String),
    #[error("nobody can decide now: {0}; try again")]
    Unavailable(String),
    #[error("the node is shutting down")]
    ShuttingDown,
    #[error("at most {limit} {what} are possible at a time; try again later")]
    Busy { what: &'static str, limit: usize },
}
