//! What a job goes through (ACT-45). Finer steps are words of progress (open point 8).

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// The log has it.
    Submitted,
    /// Its manifest and all its inputs are there.
    Validated,
    /// It waits for its turn.
    Scheduled,
    Running,
    /// It ran once and has outputs.
    Completed,
    /// It ran again with the same outputs, and has a receipt.
    Verified,
    Failed,
    Cancelled,
}

impl JobState {
    pub const ALL: [Self; 8] = [
        Self::Submitted,
        Self::Validated,
        Self::Scheduled,
        Self::Running,
        Self::Completed,
        Self::Verified,
        Self::Failed,
        Self::Cancelled,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Validated => "validated",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Verified => "verified",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Verified | Self::Failed | Self::Cancelled)
    }
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEvent {
    Validate,
    Schedule,
    Start,
    Complete,
    Verify,
    Fail,
    Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a job that is {state} cannot {event:?}")]
pub struct WrongMove {
    pub state: JobState,
    pub event: JobEvent,
}

/// The state after an event; every move that is not in the table is refused.
pub const fn next(state: JobState, event: JobEvent) -> Result<JobState, WrongMove> {
    use JobEvent as E;
    use JobState as S;
    Ok(match (state, event) {
        (S::Submitted, E::Validate) => S::Validated,
        (S::Validated, E::Schedule) => S::Scheduled,
        (S::Scheduled, E::Start) => S::Running,
        (S::Running, E::Complete) => S::Completed,
        (S::Completed, E::Verify) => S::Verified,
        (S::Submitted | S::Running | S::Completed, E::Fail) => S::Failed,
        (S::Validated | S::Scheduled, E::Cancel) => S::Cancelled,
        (state, event) => return Err(WrongMove { state, event }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: ACT-45
    #[test]
    fn a_job_moves_as_specified_and_in_no_other_way() {
        use JobEvent as E;
        use JobState as S;
        let allowed = [
            (S::Submitted, E::Validate, S::Validated),
            (S::Submitted, E::Fail, S::Failed),
            (S::Validated, E::Schedule, S::Scheduled),
            (S::Validated, E::Cancel, S::Cancelled),
            (S::Scheduled, E::Start, S::Running),
            (S::Scheduled, E::Cancel, S::Cancelled),
            (S::Running, E::Complete, S::Completed),
            (S::Running, E::Fail, S::Failed),
            (S::Completed, E::Verify, S::Verified),
            (S::Completed, E::Fail, S::Failed),
        ];
        let events = [E::Validate, E::Schedule, E::Start, E::Complete, E::Verify, E::Fail, E::Cancel];
        for state in S::ALL {
            for event in events {
                let to = allowed.iter().find(|(from, by, _)| (*from, *by) == (state, event)).map(|row| row.2);
                assert_eq!(next(state, event).ok(), to, "{state} {event:?}");
                assert!(!state.is_final() || to.is_none(), "{state} is final");
            }
        }
    }
}
