//! Capability errors as callers see them.

use kit::{Guilty, IntoRefusal, Retry};
use tonic::{Code, Status};

use crate::core::CapabilityError;

/// When to ask again while nothing is heard from the log.
const GONE_RETRY_MS: u32 = 500;

impl IntoRefusal for CapabilityError {
    const DOMAIN: &'static str = "bailiwick.capability_service.v1";

    fn reason(&self) -> &'static str {
        match self {
            Self::UnknownIdentity(_) => "UnknownIdentity",
            Self::NotFound(_) => "NotFound",
            Self::NotHolder(_) => "NotHolder",
            Self::CannotRevoke(_) => "CannotRevoke",
            Self::CannotDelegate => "CannotDelegate",
            Self::CannotAmplify => "CannotAmplify",
            Self::ObjectId { .. } | Self::NoPermission | Self::Restrictions(_) | Self::Reason { .. } => {
                "InvalidRequest"
            }
            Self::TimeUnknown => "Unavailable",
            Self::TooMany | Self::ChainLength | Self::TooManyRates | Self::Full => "TooMany",
        }
    }

    fn guilty(&self) -> Guilty {
        match self {
            Self::ObjectId { .. } | Self::NoPermission | Self::Restrictions(_) | Self::Reason { .. } => {
                Guilty::Misuse
            }
            Self::TimeUnknown => Guilty::Gone,
            _ => Guilty::Refused,
        }
    }

    fn retry(&self) -> Retry {
        if matches!(self, Self::TimeUnknown) { Retry::After(GONE_RETRY_MS) } else { Retry::Never }
    }

    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) | Self::UnknownIdentity(_) => Code::NotFound,
            Self::NotHolder(_) | Self::CannotRevoke(_) | Self::CannotDelegate | Self::CannotAmplify => {
                Code::PermissionDenied
            }
            Self::TooMany | Self::ChainLength | Self::TooManyRates | Self::Full => Code::ResourceExhausted,
            Self::TimeUnknown => Code::Unavailable,
            _ => Code::InvalidArgument,
        }
    }
}

impl From<CapabilityError> for Status {
    fn from(error: CapabilityError) -> Self {
        error.to_status()
    }
}
