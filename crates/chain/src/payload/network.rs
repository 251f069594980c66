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
