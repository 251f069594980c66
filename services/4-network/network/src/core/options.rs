//! Options that a caller may read and set: by name, and only these. Those that change where packets go (source routes,
//! bound devices, foreign source addresses) are not among them.

use super::NetError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketOption {
    NoDelay,
    KeepAlive,
    ReuseAddress,
    Ttl,
    ReceiveBuffer,
    SendBuffer,
    /// The last error of the socket, which is then forgotten; read only.
    Error,
}

impl SocketOption {
    pub const ALL: [Self; 7] = [
        Self::NoDelay,
        Self::KeepAlive,
        Self::ReuseAddress,
        Self::Ttl,
        Self::ReceiveBuffer,
        Self::SendBuffer,
        Self::Error,
    ];
    /// Of a buffer, in bytes; the kernel doubles it.
    pub const BUFFER_MAX: u32 = 16 * 1024 * 1024;
    const TTL_MAX: u32 = 255;

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoDelay => "no_delay",
            Self::KeepAlive => "keep_alive",
            Self::ReuseAddress => "reuse_address",
            Self::Ttl => "ttl",
            Self::ReceiveBuffer => "recv_buffer",
            Self::SendBuffer => "send_buffer",
            Self::Error => "error",
        }
    }

    pub fn parse(name: &str) -> Result<Self, NetError> {
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
            let all = Self::ALL.map(Self::name).join(" ");
            NetError::invalid("name", format!("there is no option {name:?}; there are {all}"))
        })
    }
}

/// Whether the value can be set.
pub fn check_value(option: SocketOption, value: u32) -> Result<(), NetError> {
    let (lowest, highest) = match option {
        SocketOption::NoDelay | SocketOption::KeepAlive | SocketOption::ReuseAddress => (0, 1),
        SocketOption::Ttl => (1, SocketOption::TTL_MAX),
        SocketOption::ReceiveBuffer | SocketOption::SendBuffer => (1, SocketOption::BUFFER_MAX),
        SocketOption::Error => return Err(NetError::invalid("name", "`error` can only be read")),
    };
    match (lowest..=highest).contains(&value) {
        true => Ok(()),
        false => {
            let text = format!("{} is {lowest} to {highest}, not {value}", option.name());
            Err(NetError::invalid("value", text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: NET-28
    #[test]
    fn options_have_names_and_bounds() {
        for option in SocketOption::ALL {
            assert_eq!(SocketOption::parse(option.name()), Ok(option));
        }
        for unknown in ["", "IPV6_RTHDR", "bind_to_device", "free_bind"] {
            assert!(SocketOption::parse(unknown).is_err(), "{unknown}");
        }
        let takes = |option, value| check_value(option, value).is_ok();
        assert!(takes(SocketOption::NoDelay, 1) && !takes(SocketOption::NoDelay, 2));
        assert!(
            takes(SocketOption::Ttl, 255) && !takes(SocketOption::Ttl, 256) && !takes(SocketOption::Ttl, 0)
        );
        assert!(takes(SocketOption::SendBuffer, SocketOption::BUFFER_MAX));
        assert!(!takes(SocketOption::SendBuffer, SocketOption::BUFFER_MAX + 1));
        assert!(!takes(SocketOption::Error, 0));
    }
}
