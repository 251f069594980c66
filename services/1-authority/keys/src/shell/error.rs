//! Key errors as callers see them.

use kit::{Guilty, IntoRefusal, Retry};
use tonic::{Code, Status};

use crate::core::KeyError;

/// When to ask again after too many operations at once: about one group commit.
const BUSY_RETRY_MS: u32 = 10;

impl IntoRefusal for KeyError {
    const DOMAIN: &'static str = "bailiwick.keys.v1";

    fn reason(&self) -> &'static str {
        match self {
            Self::InvalidPath(_) => "InvalidPath",
            Self::Unauthorized(_) => "Unauthorized",
            Self::InvalidDecision(_) => "InvalidDecision",
            Self::DecisionExpired => "DecisionExpired",
            Self::CryptoFailure(_) => "CryptoFailure",
            Self::AuditUnavailable => "AuditUnavailable",
            Self::Locked => "Locked",
            Self::WrongPurpose(_) => "WrongPurpose",
            Self::NoEpoch { .. } => "NoEpoch",
            Self::NotRotatable(_) => "NotRotatable",
            Self::Busy { .. } => "Busy",
        }
    }

    fn guilty(&self) -> Guilty {
        match self {
            Self::InvalidPath(_) | Self::WrongPurpose(_) | Self::NoEpoch { .. } => Guilty::Misuse,
            Self::Unauthorized(_)
            | Self::InvalidDecision(_)
            | Self::DecisionExpired
            | Self::CryptoFailure(_)
            | Self::Busy { .. } => Guilty::Refused,
            Self::Locked | Self::NotRotatable(_) => Guilty::Refused,
            Self::AuditUnavailable => Guilty::Gone,
        }
    }

    /// A decision is spent by its use, so that the same call never succeeds after `AuditUnavailable`.
    fn retry(&self) -> Retry {
        match self {
            Self::Busy { .. } => Retry::After(BUSY_RETRY_MS),
            _ => Retry::Never,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::InvalidPath(_) | Self::WrongPurpose(_) | Self::NoEpoch { .. } => Code::InvalidArgument,
            Self::NotRotatable(_) => Code::FailedPrecondition,
            Self::Unauthorized(_) => Code::PermissionDenied,
            Self::InvalidDecision(_) | Self::DecisionExpired | Self::CryptoFailure(_) | Self::Locked => {
                Code::FailedPrecondition
            }
            Self::Busy { .. } => Code::ResourceExhausted,
            Self::AuditUnavailable => Code::Unavailable,
        }
    }
}

impl From<KeyError> for Status {
    fn from(error: KeyError) -> Self {
        error.to_status()
    }
}
