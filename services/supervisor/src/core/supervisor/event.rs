use std::time::Duration;

use base::Hash;
use chain::payload::service::ServiceError;
use serde::{Deserialize, Serialize};

use super::{ActId, CallId, EventFilter, LaunchId, Memory, RecordId, RequestId, ServiceSetup, SubscriberId};
use crate::core::{hang::Reading, lifecycle::LifecycleResponse};

/// What the shell tells the machine. `Boot` or `Adopted` comes first, once.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The node starts.
    Boot {
        mode: BootMode,
    },
    /// The supervisor starts again while services run. `children` live, `exits` have ended and were not yet taken in.
    Adopted {
        memory: Option<Box<Memory>>,
        children: Vec<Child>,
        exits: Vec<ChildExit>,
    },

    /// A manifest to register or to put in the place of one, and to start.
    RegisterRequested {
        request: RequestId,
        setup: Box<ServiceSetup>,
    },
    UnregisterRequested {
        request: RequestId,
        service: String,
    },
    StartRequested {
        request: RequestId,
        service: String,
    },
    StopRequested {
        request: RequestId,
        service: String,
    },
    RestartRequested {
        request: RequestId,
        service: String,
    },
    ReloadRequested {
        request: RequestId,
        service: String,
    },
    /// By an operator or a signal; always granted, since it only takes away.
    ShutdownRequested {
        request: Option<RequestId>,
        reason: String,
    },
    Subscribe {
        subscriber: SubscriberId,
        filter: EventFilter,
    },
    Unsubscribe {
        subscriber: SubscriberId,
    },
    /// A service has not folded a revocation in time (DESIGN 2); it is killed, which does not count as a restart.
    Laggard {
        service: String,
    },

    /// A connection or datagram waits for a service that listens; `waited` if it was there when the service came to do so.
    Demanded {
        service: String,
        waited: bool,
    },
    /// The timer of a service has come to its time.
    TimerElapsed {
        service: String,
    },

    Launched {
        launch: LaunchId,
        pid: u32,
        /// What the host could not give the sandbox.
        missing: Vec<String>,
    },
    LaunchFailed {
        launch: LaunchId,
        error: ServiceError,
        text: String,
    },
    Exited {
        launch: LaunchId,
        status: ExitStatus,
    },
    /// A command that its manifest has run once it is ready has failed.
    AfterFailed {
        launch: LaunchId,
        text: String,
    },
    LifecycleReply {
        launch: LaunchId,
        call: CallId,
        response: LifecycleResponse,
    },
    /// The channel broke or could not be opened, or what came is no answer.
    LifecycleClosed {
        launch: LaunchId,
        text: String,
    },
    ProbeResult {
        launch: LaunchId,
        call: CallId,
        result: Result<(), String>,
    },
    Notify {
        launch: LaunchId,
        notification: Notification,
    },
    /// What was to be read of the pressure on a service and on the machine.
    Pressure {
        launch: LaunchId,
        reading: Reading,
    },
    /// The machine was suspended for so long since the event before.
    Slept {
        duration: Duration,
    },

    ActResult {
        act: ActId,
        outcome: ActOutcome,
    },
    CommitResult {
        record: RecordId,
        outcome: CommitOutcome,
    },
    /// Time has passed: `deadline()` is reached.
    Timer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootMode {
    Normal,
    /// After repeated failed boots: authority and execution only.
    Recovery,
}

/// What a service says by sd_notify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    Ready,
    Watchdog,
    Stopping,
    Status(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

impl ExitStatus {
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// Exit code, or the negative signal number.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_neg(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActOutcome {
    /// Decided and committed; the hash names the request that was decided.
    Allowed { authorization: Hash },
    /// `refusal` is the sequence of the entry that records it.
    Denied { refusal: u64 },
    /// Nobody could decide.
    Unavailable { text: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    Committed,
    /// Not known to be in the log: to be sent again, with the same bytes.
    Unavailable,
    /// The log refuses it for good.
    Rejected {
        text: String,
    },
}

/// A process that the keeper holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    pub launch: LaunchId,
    pub service: String,
    /// None as long as the process that stays is not there: `Launched` or `LaunchFailed` is still to come.
    pub pid: Option<u32>,
    /// What the host could not give its sandbox; counts if its start is not recorded yet.
    pub missing: Vec<String>,
}

/// A process that has ended while nobody listened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildExit {
    pub launch: LaunchId,
    pub service: String,
    pub status: ExitStatus,
    /// The process that stays was there; else what ended is a start that came to nothing.
    pub was_there: bool,
}
