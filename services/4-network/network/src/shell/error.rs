//! Network errors as callers see them.

use kit::{Guilty, IntoRefusal, Retry};
use tonic::{Code, Status};

use crate::core::NetError;

impl IntoRefusal for NetError {
    const DOMAIN: &'static str = "bailiwick.network.v1";

    fn reason(&self) -> &'static str {
        match self {
            Self::SocketNotFound(_) | Self::ConnectionNotFound(_) => "SocketNotFound",
            Self::AddressInUse(_) => "AddressInUse",
            Self::ConnectionRefused(_) => "ConnectionRefused",
            Self::ConnectionReset => "ConnectionReset",
            Self::Timeout(_) => "Timeout",
            Self::NetworkUnreachable(_) => "NetworkUnreachable",
            Self::HostUnreachable(_) => "HostUnreachable",
            Self::PermissionDenied(_) => "PermissionDenied",
            Self::AuthorizationRequired(_) => "AuthorizationRequired",
            Self::WouldBlock => "WouldBlock",
            Self::InvalidArgument { .. } | Self::WrongState { .. } => "InvalidArgument",
            Self::BufferTooSmall(_) => "BufferTooSmall",
            Self::TooMany(_) => "TooManySockets",
            Self::System(_) => "System",
        }
    }

    fn guilty(&self) -> Guilty {
        match self {
            Self::InvalidArgument { .. } | Self::WrongState { .. } | Self::BufferTooSmall(_) => {
                Guilty::Misuse
            }
            Self::System(_) => Guilty::Gone,
            _ => Guilty::Refused,
        }
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }

    fn code(&self) -> Code {
        match self {
            Self::SocketNotFound(_) | Self::ConnectionNotFound(_) => Code::NotFound,
            Self::AddressInUse(_) => Code::AlreadyExists,
            Self::PermissionDenied(_) | Self::AuthorizationRequired(_) => Code::PermissionDenied,
            Self::Timeout(_) => Code::DeadlineExceeded,
            Self::WouldBlock | Self::TooMany(_) => Code::ResourceExhausted,
            Self::InvalidArgument { .. } | Self::BufferTooSmall(_) => Code::InvalidArgument,
            Self::WrongState { .. } => Code::FailedPrecondition,
            _ => Code::Unavailable,
        }
    }
}

impl From<NetError> for Status {
    fn from(error: NetError) -> Self {
        error.to_status()
    }
}
