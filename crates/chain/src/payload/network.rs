//! Connections that were authorised, and authorisations that were taken back (spec 10). Never what they carry.

use base::{ConnectionId, DurationNs, IdentityId, ProcessId};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// NET-30: recorded before the first packet leaves, or before a peer's connection is handed on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ConnectionAuthorize {
    #[n(0)]
    pub connection: ConnectionId,
    #[n(1)]
    pub direction: Direction,
    #[n(2)]
    pub protocol: Protocol,
    /// `address:port`, IPv6 in brackets; none before the kernel has chosen one.
    #[n(3)]
    pub local: Option<String>,
    /// The same of the peer; none where any may come.
    #[n(4)]
    pub remote: Option<String>,
    /// The name by which the peer was asked for.
    #[n(5)]
    pub name: Option<String>,
    /// Whose connection it is.
    #[n(6)]
    pub identity: IdentityId,
    /// 0 where no managed program is involved.
    #[n(7)]
    pub process: ProcessId,
    #[n(8)]
    pub grant: NetworkGrant,
    /// Name of the secret that `network` puts into what goes there; never its value.
    #[n(9)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// NET-33: closes the live connection.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ConnectionRevoke {
    #[n(0)]
    pub connection: ConnectionId,
    #[n(1)]
    pub by: IdentityId,
    /// At most 256 bytes.
    #[n(2)]
    pub reason: String,
}

/// NET-32; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct NetworkGrant {
    #[n(0)]
    pub send: bool,
    #[n(1)]
    pub recv: bool,
    /// Bytes a second, both ways together.
    #[n(2)]
    pub bandwidth_limit: u64,
    #[n(3)]
    #[serde(rename = "duration_limit_ns")]
    pub duration_limit: DurationNs,
}

impl NetworkGrant {
    /// What a rule's restrictions call them; `send` and `recv` are 0 or 1.
    pub const LIMITS: [&str; 4] = [Self::SEND, Self::RECV, Self::BANDWIDTH, Self::DURATION];
    pub const SEND: &str = "send";
    pub const RECV: &str = "recv";
    pub const BANDWIDTH: &str = "bandwidth_limit";
    pub const DURATION: &str = "duration_limit_ns";
    pub const UNLIMITED: Self =
        Self { send: true, recv: true, bandwidth_limit: 0, duration_limit: DurationNs(0) };
}

/// NET-31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    #[n(0)]
    Outbound,
    #[n(1)]
    Inbound,
    #[n(2)]
    Bidirectional,
}

/// NET-31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[n(0)]
    Tcp,
    #[n(1)]
    Udp,
    #[n(2)]
    Icmp,
    #[n(3)]
    Raw {
        #[n(0)]
        protocol: u8,
    },
}

/// NET-50, NET-64: what the network service goes by from here on; it takes the place of everything that was there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct NetworkPolicyUpdate {
    #[n(0)]
    pub rules: Vec<UrlRule>,
    #[n(1)]
    pub limits: CallLimits,
    /// Certificates in PEM, one each: authorities that are trusted beside those of the build.
    #[n(2)]
    pub authorities: Vec<String>,
    #[n(3)]
    pub by: IdentityId,
}

/// NET-50.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct UrlRule {
    #[n(0)]
    pub id: String,
    #[n(1)]
    pub applies_to: ProcessClass,
    /// With `://` in it of the whole URL, otherwise of the host.
    #[n(2)]
    pub url_pattern: String,
    #[n(3)]
    pub allow: bool,
    #[n(4)]
    pub priority: u32,
}

/// NET-51.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessClass {
    #[n(0)]
    System,
    #[n(1)]
    Runtime,
    #[n(2)]
    Application,
    #[n(3)]
    Named(#[n(0)] String),
}

/// NET-56, NET-57, and how large things may be. In a file, what is not said is 0: as it is by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
#[serde(deny_unknown_fields, default)]
pub struct CallLimits {
    /// So many requests of one process in a window of so many milliseconds.
    #[n(0)]
    pub process_requests: u32,
    #[n(1)]
    pub process_window_ms: u32,
    /// The same to one host, of all processes together.
    #[n(2)]
    pub host_requests: u32,
    #[n(3)]
    pub host_window_ms: u32,
    #[n(4)]
    pub request_bytes: u32,
    #[n(5)]
    pub response_bytes: u64,
    #[n(6)]
    pub header_bytes: u32,
    #[n(7)]
    pub message_bytes: u32,
}
