use base::KeyPathError;
use thiserror::Error;

/// Why a key operation was refused (KEY open point 5).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error("the key path cannot be used: {0}")]
    InvalidPath(#[from] KeyPathError),
    #[error("not authorised to use this key: {0}")]
    Unauthorized(String),
    #[error("the decision cannot be accepted: {0}; ask policy for a decision for exactly this request")]
    InvalidDecision(String),
    #[error("the decision has expired or Axiom time is unknown; ask policy for a new one")]
    DecisionExpired,
    #[error("the cryptographic operation failed: {0}")]
    CryptoFailure(String),
    #[error(
        "the use of the key could not be recorded, so nothing is released; try again when the log accepts entries"
    )]
    AuditUnavailable,
    #[error("the seed is locked; `bailiwick key unlock` opens it")]
    Locked,
    #[error("{0}")]
    WrongPurpose(String),
    #[error("the path is in epoch {current}; there is no epoch {epoch} of it")]
    NoEpoch { epoch: u32, current: u32 },
    #[error("this key path is not rotated: {0}")]
    NotRotatable(String),
    #[error("{limit} key operations are already under way; try again")]
    Busy { limit: usize },
}
