//! NET-45: what a request ends with that brought no answer. It is a result, not a failure of the call.

use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    #[error("{0}")]
    PolicyDenied(String),
    #[error("{0}")]
    Dns(String),
    #[error("{0}")]
    ConnectionFailed(String),
    #[error("it was not over within {0} ms")]
    Timeout(u128),
    #[error("{0}")]
    InvalidUrl(String),
    #[error("{0}")]
    RateLimitExceeded(String),
    #[error("{0}")]
    Other(String),
}

impl CallError {
    /// Of what has more bytes than it may.
    #[must_use]
    pub fn too_large(what: &str, limit: u64) -> Self {
        Self::Other(format!("too large: {what} has more than {limit} bytes"))
    }
}
