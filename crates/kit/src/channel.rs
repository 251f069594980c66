//! Who is calling: the socket on which a call arrives says it, nothing in the message does.

use std::{fmt, str::FromStr, sync::Arc};

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChannelKind {
    /// From the supervisor alone.
    Lifecycle,
    /// Requests of one client, one socket for each (client, server) edge of the manifests.
    Edge,
    /// The log feed of one service, served by axiom.
    Feed,
    /// The decision channel of one service, served by policy.
    Authority,
    /// Appends of policy or of the supervisor, served by axiom.
    Append,
    /// SPIFFE's Workload API for one client: a contract whose callers know nothing of this node.
    Workload,
    /// The operator, checked by peer credentials.
    Admin,
    /// The one socket to the key boundary; not served by the kit.
    Boundary,
    /// Clients that come and go while the service runs, told by the supervisor; not served, see `clients`.
    Clients,
    /// A pipe with the service's own signing key; no socket.
    Signing,
}

impl ChannelKind {
    pub const ALL: [Self; 10] = [
        Self::Lifecycle,
        Self::Edge,
        Self::Feed,
        Self::Authority,
        Self::Append,
        Self::Workload,
        Self::Admin,
        Self::Boundary,
        Self::Clients,
        Self::Signing,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lifecycle => "lifecycle",
            Self::Edge => "edge",
            Self::Feed => "feed",
            Self::Authority => "authority",
            Self::Append => "append",
            Self::Workload => "workload",
            Self::Admin => "admin",
            Self::Boundary => "boundary",
            Self::Clients => "clients",
            Self::Signing => "signing",
        }
    }

    /// True if a socket of this kind belongs to one named client.
    #[must_use]
    pub const fn has_client(self) -> bool {
        matches!(self, Self::Edge | Self::Feed | Self::Authority | Self::Append | Self::Workload)
    }
}

impl fmt::Display for ChannelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ChannelKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(())
    }
}

/// Stands in the extensions of every request (`request.extensions().get::<Caller>()`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub channel: ChannelKind,
    /// Boot name of the client; `admin` for the operator, `supervisor` for the lifecycle.
    pub client: Arc<str>,
    /// On `admin` only: peer credentials do not survive namespaces between services.
    pub peer_uid: Option<u32>,
    pub peer_pid: Option<i32>,
}

impl Caller {
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.channel == ChannelKind::Admin
    }

    /// What a token names as the channel that it holds on: the client's name, the same on every server's socket for it,
    /// and `admin` for the operator.
    #[must_use]
    pub fn channel_name(&self) -> &str {
        &self.client
    }
}
