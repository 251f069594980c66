use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Octal,
    limits::{SOCKET_BACKLOG_DEFAULT, UNIX_PATH_BYTES_MAX},
};

/// `[[sockets]]`: bound by the supervisor on the host, held over every restart, and handed to the program as systemd
/// does it (`LISTEN_FDS`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketConfig {
    /// What the program finds in `LISTEN_FDNAMES`. Several sockets may have one name.
    pub name: String,
    pub listen: ListenAddress,
    /// Of TCP: it is not handed to the program. Whoever comes is decided about as the service's `Listen`, and led to this port of the
    /// program's own loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<u16>,
    /// The service is started by the first connection or datagram. Left out: it is started as any other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_demand: bool,
    /// Connections that wait to be accepted; the kernel's own limit (`net.core.somaxconn`) holds too.
    #[serde(default = "backlog", skip_serializing_if = "is_usual_backlog")]
    pub backlog: u32,
    /// Of a unix socket's file. Left out: 0660, for owner and group.
    #[serde(default = "usual_mode", skip_serializing_if = "is_usual_mode")]
    pub mode: Octal,
    /// Who a unix socket's file belongs to: `NAME` or `NAME:GROUP`, numbers too; needs a node that runs as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

const fn backlog() -> u32 {
    SOCKET_BACKLOG_DEFAULT
}

const fn is_usual_backlog(backlog: &u32) -> bool {
    *backlog == SOCKET_BACKLOG_DEFAULT
}

const fn usual_mode() -> Octal {
    Octal(0o660)
}

fn is_usual_mode(mode: &Octal) -> bool {
    *mode == usual_mode()
}

/// `tcp:0.0.0.0:80`, `tcp:[::]:80`, `udp:127.0.0.1:53`, `unix:/run/x.sock`, `unix-dgram:/run/x.sock`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Unix(String),
    UnixDatagram(String),
}

impl ListenAddress {
    /// Of a unix socket.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Unix(path) | Self::UnixDatagram(path) => Some(path),
            Self::Tcp(_) | Self::Udp(_) => None,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "tcp" => internet(rest).map(Self::Tcp),
            "udp" => internet(rest).map(Self::Udp),
            "unix" => path(rest).map(Self::Unix),
            "unix-dgram" => path(rest).map(Self::UnixDatagram),
            _ => Err(format!(
                "{text:?} is no address to listen on; allowed are tcp:HOST:PORT, udp:HOST:PORT, unix:PATH and unix-dgram:PATH"
            )),
        }
    }
}

fn internet(text: &str) -> Result<SocketAddr, String> {
    let refuse = || {
        format!(
            "{text:?} is not HOST:PORT; HOST is an address such as 127.0.0.1, 0.0.0.0 or [::], PORT is 1 to 65535"
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
    let port: u16 = port.parse().map_err(|_| refuse())?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address: IpAddr = match (bare, host) {
        (Some(bare), _) => IpAddr::V6(bare.parse().map_err(|_| refuse())?),
        (None, host) => IpAddr::V4(host.parse().map_err(|_| refuse())?),
    };
    if port == 0 { Err(refuse()) } else { Ok(SocketAddr::new(address, port)) }
}

fn path(text: &str) -> Result<String, String> {
    let climbs = text.split('/').any(|part| part == ".." || part == ".");
    if !text.starts_with('/') || text.ends_with('/') || climbs || text.contains('\0') {
        return Err(format!("the path of a socket is absolute and without `.` and `..`, not {text:?}"));
    }
    if text.len() > UNIX_PATH_BYTES_MAX {
        return Err(format!(
            "the path of a socket has at most {UNIX_PATH_BYTES_MAX} bytes, this one has {}",
            text.len()
        ));
    }
    // As systemd takes it: the old name is a link to the new one, and no link above a socket is followed.
    Ok(text.strip_prefix("/var/run/").map_or_else(|| text.to_owned(), |rest| format!("/run/{rest}")))
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::UnixDatagram(path) => write!(f, "unix-dgram:{path}"),
        }
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written_as_it_stands() {
        for text in [
            "tcp:0.0.0.0:80",
            "tcp:[::]:443",
            "udp:127.0.0.1:53",
            "unix:/run/redis/redis.sock",
            "unix-dgram:/run/log.sock",
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "80",
            "tcp:80",
            "tcp:localhost:80",
            "tcp:0.0.0.0:0",
            "tcp:0.0.0.0:65536",
            "tcp:::1:80",
            "tcp:[127.0.0.1]:80",
            "sctp:0.0.0.0:80",
            "unix:run/x",
            "unix:/run/../x",
            "unix:/run/",
            "unix:/a\0b",
        ] {
            assert!(wrong.parse::<ListenAddress>().is_err(), "{wrong:?}");
        }
        let old: ListenAddress = "unix:/var/run/x.sock".parse().unwrap();
        assert_eq!(old.to_string(), "unix:/run/x.sock");
        let of = |length: usize| format!("unix:/{}", "x".repeat(length - 1)).parse::<ListenAddress>();
        assert!(of(UNIX_PATH_BYTES_MAX).is_ok());
        assert!(of(UNIX_PATH_BYTES_MAX + 1).unwrap_err().contains("107"));
    }
}
