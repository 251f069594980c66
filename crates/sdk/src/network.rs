//! What `network` is asked, and what it answers, in the seed's shapes.

use std::net::IpAddr;

use contracts::network::v1 as wire;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpMethod {
    Get,
    Post,
    Put,
    Delete,
    Patch,
    Head,
    Options,
}

impl HttpMethod {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    pub method: HttpMethod,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    /// For everything together; 0 is 30 000.
    pub timeout_ms: u32,
}

/// A status such as 404 is a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    pub result: Result<HttpSuccess, NetworkError>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpSuccess {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    PolicyDenied,
    DnsError,
    ConnectionFailed,
    Timeout,
    InvalidUrl,
    CorsError,
    RateLimitExceeded,
    Other(String),
}

impl From<wire::NetworkError> for NetworkError {
    fn from(error: wire::NetworkError) -> Self {
        use wire::NetworkErrorKind as Kind;
        match error.kind() {
            Kind::PolicyDenied => Self::PolicyDenied,
            Kind::DnsError => Self::DnsError,
            Kind::ConnectionFailed => Self::ConnectionFailed,
            Kind::Timeout => Self::Timeout,
            Kind::InvalidUrl => Self::InvalidUrl,
            Kind::CorsError => Self::CorsError,
            Kind::RateLimitExceeded => Self::RateLimitExceeded,
            Kind::Other | Kind::Unspecified => Self::Other(error.text),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsRequest {
    pub name: String,
    /// 0 is 30 000.
    pub timeout_ms: u32,
}

/// Addresses and how many seconds each may be used.
pub(crate) fn addresses(reply: wire::ResolveReply) -> Result<Vec<(IpAddr, u32)>, NetworkError> {
    if let Some(failed) = reply.failed {
        return Err(failed.into());
    }
    let address = |found: &wire::ResolvedAddress| {
        let ip = match *found.ip.as_slice() {
            [a, b, c, d] => IpAddr::from([a, b, c, d]),
            ref bytes => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        };
        Some((ip, found.ttl_seconds))
    };
    Ok(reply.addresses.iter().filter_map(address).collect())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsOpenRequest {
    /// ws or wss.
    pub url: String,
    pub protocols: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsMessage {
    pub conn_id: u64,
    pub data: WsData,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WsData {
    Text(String),
    Binary(Vec<u8>),
}

impl From<WsData> for wire::web_socket_message::Data {
    fn from(data: WsData) -> Self {
        match data {
            WsData::Text(text) => Self::Text(text),
            WsData::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl From<wire::WebSocketMessage> for WsMessage {
    fn from(message: wire::WebSocketMessage) -> Self {
        use wire::web_socket_message::Data;
        let data = match message.data {
            Some(Data::Text(text)) => WsData::Text(text),
            Some(Data::Binary(bytes)) => WsData::Binary(bytes),
            None => WsData::Binary(Vec::new()),
        };
        Self { conn_id: message.conn_id, data }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsCloseRequest {
    pub conn_id: u64,
    /// 1000, or 3000 to 4999.
    pub code: Option<u16>,
    pub reason: Option<String>,
}
