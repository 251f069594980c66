//! NET-29: the errors that every method shares.

use std::io;

use thiserror::Error;

use super::{limits::TRANSFER_BYTES_MAX, state::SocketState};

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NetError {
    #[error("there is no socket {0} of yours")]
    SocketNotFound(u64),
    #[error("there is no live connection {0} of yours")]
    ConnectionNotFound(base::ConnectionId),
    #[error("{0} is in use")]
    AddressInUse(String),
    #[error("{0} refuses connections")]
    ConnectionRefused(String),
    #[error("the connection was reset")]
    ConnectionReset,
    #[error("nothing happened within {0} ms")]
    Timeout(u128),
    #[error("no way leads to {0}")]
    NetworkUnreachable(String),
    #[error("{0} cannot be reached")]
    HostUnreachable(String),
    #[error("{0}")]
    PermissionDenied(String),
    #[error("the authorisation of this connection was taken back: {0}")]
    AuthorizationRequired(String),
    #[error("it would have to wait")]
    WouldBlock,
    #[error("{field} is not valid: {text}")]
    InvalidArgument { field: &'static str, text: String },
    #[error("a socket that is {state} cannot {what}")]
    WrongState { state: SocketState, what: &'static str },
    #[error("the datagram is longer than the {0} bytes that were asked for, and lost")]
    BufferTooSmall(usize),
    #[error("{0}")]
    TooMany(String),
    #[error("the system: {0}")]
    System(String),
}

impl NetError {
    pub fn invalid(field: &'static str, text: impl Into<String>) -> Self {
        Self::InvalidArgument { field, text: text.into() }
    }

    #[must_use]
    pub fn too_long(field: &'static str, bytes: usize) -> Self {
        Self::invalid(field, format!("{bytes} bytes, at most {TRANSFER_BYTES_MAX} are taken"))
    }

    /// What the kernel said about a connection to, or a socket at, `place`.
    #[must_use]
    pub fn of_io(error: &io::Error, place: &str) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::AddrInUse => Self::AddressInUse(place.to_owned()),
            Kind::ConnectionRefused => Self::ConnectionRefused(place.to_owned()),
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Self::ConnectionReset,
            Kind::NetworkUnreachable | Kind::NetworkDown => Self::NetworkUnreachable(place.to_owned()),
            Kind::HostUnreachable | Kind::TimedOut => Self::HostUnreachable(place.to_owned()),
            Kind::PermissionDenied => Self::PermissionDenied(format!("the system forbids {place}")),
            Kind::WouldBlock => Self::WouldBlock,
            Kind::AddrNotAvailable => Self::invalid("address", format!("{place} is no address of this host")),
            Kind::InvalidInput => Self::invalid("address", format!("the system takes no {place}")),
            _ => Self::System(format!("{place}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: NET-29
    #[test]
    fn what_the_kernel_says_has_its_name() {
        let of = |errno: i32| NetError::of_io(&io::Error::from_raw_os_error(errno), "192.0.2.1:80");
        let place = || "192.0.2.1:80".to_owned();
        assert_eq!(of(98), NetError::AddressInUse(place()));
        assert_eq!(of(111), NetError::ConnectionRefused(place()));
        assert_eq!(of(104), NetError::ConnectionReset);
        assert_eq!(of(32), NetError::ConnectionReset);
        assert_eq!(of(101), NetError::NetworkUnreachable(place()));
        assert_eq!(of(113), NetError::HostUnreachable(place()));
        assert_eq!(of(110), NetError::HostUnreachable(place()));
        assert!(matches!(of(13), NetError::PermissionDenied(_)));
        assert_eq!(of(11), NetError::WouldBlock);
        assert!(matches!(of(99), NetError::InvalidArgument { field: "address", .. }));
        assert!(matches!(of(24), NetError::System(_)));
    }
}
