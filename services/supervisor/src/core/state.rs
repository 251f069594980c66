//! The states of a service and the only ways between them (seed 003 §5.2).

use std::fmt;

use chain::payload::service::ServiceError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// SUP-37.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceState {
    /// Known, not started.
    Registered,
    Starting,
    Running,
    /// Runs, but a check failed.
    Degraded,
    Stopping,
    Stopped,
    /// Has failed; the wait before a restart is spent here (SUP open point 10).
    Failed {
        error: ServiceError,
    },
    Restarting,
}

/// What can happen to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    Register,
    Start,
    Ready,
    StartupError(ServiceError),
    HealthWarning,
    Recovered,
    Stop,
    ShutdownComplete,
    ShutdownTimeout,
    FatalError(ServiceError),
    AutoRestart,
    GiveUp,
    Restart,
    Unregister,
}

/// A transition that does not exist from where the service is; the state stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a service in state {state:?} cannot take the transition {transition:?}")]
pub struct Rejected {
    pub state: Option<ServiceState>,
    pub transition: Transition,
}

/// The seventeen transitions (SUP-38 to SUP-55). `None` is a service that is not known.
pub fn next(state: Option<ServiceState>, transition: Transition) -> Result<Option<ServiceState>, Rejected> {
    use ServiceState::{Degraded, Failed, Registered, Restarting, Running, Starting, Stopped, Stopping};
    use Transition as T;
    let to = match (state, transition) {
        (None, T::Register) => Registered,
        (Some(Registered), T::Start) => Starting,
        (Some(Starting), T::Ready) => Running,
        (Some(Starting), T::StartupError(error)) => Failed { error },
        (Some(Running), T::HealthWarning) => Degraded,
        (Some(Running), T::Stop) => Stopping,
        (Some(Running), T::FatalError(error)) => Failed { error },
        (Some(Degraded), T::Recovered) => Running,
        (Some(Degraded), T::Stop) => Stopping,
        (Some(Degraded), T::FatalError(error)) => Failed { error },
        (Some(Stopping), T::ShutdownComplete) => Stopped,
        (Some(Stopping), T::ShutdownTimeout) => Failed { error: ServiceError::ShutdownTimeout },
        (Some(Failed { .. }), T::AutoRestart) => Restarting,
        (Some(Failed { .. }), T::GiveUp) => Stopped,
        (Some(Restarting), T::Restart) => Starting,
        (Some(Stopped), T::Start) => Starting,
        (Some(Stopped), T::Unregister) => return Ok(None),
        (state, transition) => return Err(Rejected { state, transition }),
    };
    Ok(Some(to))
}

impl ServiceState {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registered => "Registered",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Degraded => "Degraded",
            Self::Stopping => "Stopping",
            Self::Stopped => "Stopped",
            Self::Failed { .. } => "Failed",
            Self::Restarting => "Restarting",
        }
    }

    /// Serves clients.
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(self, Self::Running | Self::Degraded)
    }

    /// Does not run and will not by itself.
    #[must_use]
    pub const fn rests(self) -> bool {
        matches!(self, Self::Registered | Self::Stopped)
    }
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ServiceState::{Degraded, Failed, Registered, Restarting, Running, Starting, Stopped, Stopping};
    use Transition as T;

    const CRASH: ServiceError = ServiceError::Crashed { status: 1 };
    const FAILED: ServiceState = Failed { error: CRASH };
    const TIMEOUT: ServiceState = Failed { error: ServiceError::ShutdownTimeout };

    const STATES: [Option<ServiceState>; 9] = [
        None,
        Some(Registered),
        Some(Starting),
        Some(Running),
        Some(Degraded),
        Some(Stopping),
        Some(Stopped),
        Some(FAILED),
        Some(Restarting),
    ];
    const TRANSITIONS: [Transition; 14] = [
        T::Register,
        T::Start,
        T::Ready,
        T::StartupError(CRASH),
        T::HealthWarning,
        T::Recovered,
        T::Stop,
        T::ShutdownComplete,
        T::ShutdownTimeout,
        T::FatalError(CRASH),
        T::AutoRestart,
        T::GiveUp,
        T::Restart,
        T::Unregister,
    ];

    type Row = (Option<ServiceState>, Transition, Option<ServiceState>);

    /// The seed's diagram, line by line.
    const DIAGRAM: [Row; 17] = [
        (None, T::Register, Some(Registered)),
        (Some(Registered), T::Start, Some(Starting)),
        (Some(Starting), T::Ready, Some(Running)),
        (Some(Starting), T::StartupError(CRASH), Some(FAILED)),
        (Some(Running), T::HealthWarning, Some(Degraded)),
        (Some(Running), T::Stop, Some(Stopping)),
        (Some(Running), T::FatalError(CRASH), Some(FAILED)),
        (Some(Degraded), T::Recovered, Some(Running)),
        (Some(Degraded), T::Stop, Some(Stopping)),
        (Some(Degraded), T::FatalError(CRASH), Some(FAILED)),
        (Some(Stopping), T::ShutdownComplete, Some(Stopped)),
        (Some(Stopping), T::ShutdownTimeout, Some(TIMEOUT)),
        (Some(FAILED), T::AutoRestart, Some(Restarting)),
        (Some(FAILED), T::GiveUp, Some(Stopped)),
        (Some(Restarting), T::Restart, Some(Starting)),
        (Some(Stopped), T::Start, Some(Starting)),
        (Some(Stopped), T::Unregister, None),
    ];

    #[track_caller]
    fn row(index: usize) {
        let (from, transition, to) = DIAGRAM[index];
        assert_eq!(next(from, transition), Ok(to), "{from:?} {transition:?}");
    }

    #[test]
    fn a_state_is_written_by_its_name() {
        assert_eq!((Running.to_string(), Stopped.to_string()), ("Running".to_owned(), "Stopped".to_owned()));
    }

    /// covers: SUP-37, SUP-55
    #[test]
    fn every_pair_outside_the_diagram_is_rejected() {
        let mut accepted = 0;
        for state in STATES {
            for transition in TRANSITIONS {
                let drawn = DIAGRAM.iter().find(|(from, by, _)| *from == state && *by == transition);
                match (next(state, transition), drawn) {
                    (Ok(to), Some((_, _, expected))) => {
                        accepted += 1;
                        assert_eq!(to, *expected);
                    }
                    (Err(rejected), None) => assert_eq!(rejected, Rejected { state, transition }),
                    (got, expected) => panic!("{state:?} {transition:?}: {got:?}, drawn {expected:?}"),
                }
            }
        }
        assert_eq!(accepted, 17);
    }

    /// covers: SUP-38, SUP-39, SUP-40, SUP-41, SUP-53
    #[test]
    fn a_service_is_registered_started_and_ready_or_not() {
        [0, 1, 2, 3, 15].into_iter().for_each(row);
    }

    /// covers: SUP-42, SUP-44, SUP-45, SUP-47
    #[test]
    fn health_moves_between_running_degraded_and_failed() {
        [4, 6, 7, 9].into_iter().for_each(row);
    }

    /// covers: SUP-43, SUP-46, SUP-48, SUP-49, SUP-54
    #[test]
    fn a_running_service_stops_in_time_or_fails() {
        [5, 8, 10, 11, 16].into_iter().for_each(row);
    }

    /// covers: SUP-50, SUP-51, SUP-52
    #[test]
    fn a_failed_service_restarts_or_is_given_up() {
        [12, 13, 14].into_iter().for_each(row);
    }
}
