//! Why a job came to nothing (ACT-46). It stands in the log, so the texts are short.

use base::Hash;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, Error)]
#[serde(rename_all = "snake_case")]
pub enum JobError {
    #[n(0)]
    #[error("the manifest is refused: {0}")]
    ValidationError(#[n(0)] String),
    #[n(1)]
    #[error("{hash} is not in the content store; put it there with `job submit --input`")]
    InputNotFound {
        #[n(0)]
        hash: Hash,
    },
    /// The sandbox could not be made, or the node went down meanwhile.
    #[n(2)]
    #[error("the environment failed: {0}")]
    EnvironmentError(#[n(0)] String),
    /// It ended with another code than 0, or with a signal as 128 and its number.
    #[n(3)]
    #[error("it ended with {exit_code}{}", told(stderr))]
    ExecutionError {
        #[n(0)]
        exit_code: i32,
        /// The end of what it said, at most `STDERR_BYTES_MAX` bytes.
        #[n(1)]
        stderr: String,
    },
    /// The name of the limit.
    #[n(4)]
    #[error("it passed its limit of {0}")]
    ResourceExceeded(#[n(0)] String),
    #[n(5)]
    #[error("it ran longer than its wall time")]
    Timeout,
    /// The call that it made, or the output that differed.
    #[n(6)]
    #[error("it is not deterministic: {0}")]
    DeterminismViolation(#[n(0)] String),
    #[n(7)]
    #[error("verification failed: {0}")]
    VerificationFailed(#[n(0)] String),
    /// Somebody stopped it: the end of a job that was `Cancelled`.
    #[n(8)]
    #[error("it was cancelled")]
    Cancelled,
}

impl JobError {
    /// As the log has it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ValidationError(_) => "ValidationError",
            Self::InputNotFound { .. } => "InputNotFound",
            Self::EnvironmentError(_) => "EnvironmentError",
            Self::ExecutionError { .. } => "ExecutionError",
            Self::ResourceExceeded(_) => "ResourceExceeded",
            Self::Timeout => "Timeout",
            Self::DeterminismViolation(_) => "DeterminismViolation",
            Self::VerificationFailed(_) => "VerificationFailed",
            Self::Cancelled => "Cancelled",
        }
    }
}

fn told(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {}", stderr.trim_end()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::cbor;

    /// covers: ACT-46
    #[test]
    fn every_error_says_what_went_wrong_and_survives_the_log() {
        let hash = Hash::of(b"x");
        for (error, says) in [
            (JobError::ValidationError("name is empty".to_owned()), "name is empty"),
            (JobError::InputNotFound { hash }, "content store"),
            (JobError::EnvironmentError("no user namespace".to_owned()), "no user namespace"),
            (
                JobError::ExecutionError { exit_code: 3, stderr: "no such word\n".to_owned() },
                "3: no such word",
            ),
            (JobError::ResourceExceeded("memory".to_owned()), "limit of memory"),
            (JobError::Timeout, "wall time"),
            (JobError::DeterminismViolation("clock_gettime".to_owned()), "clock_gettime"),
            (JobError::VerificationFailed("output `a`".to_owned()), "output `a`"),
            (JobError::Cancelled, "cancelled"),
        ] {
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(cbor::decode::<JobError>(&cbor::encode(&error)), Ok(error));
        }
    }
}
