//! Messages by their numbers, as the seed sends them; behind each stands an operation of the service's contract.

pub use contracts::message_codes::{
    MSG_DNS_RESOLVE, MSG_DNS_RESPONSE, MSG_NET_REQUEST, MSG_NET_RESPONSE, MSG_WS_CLOSE, MSG_WS_CLOSED,
    MSG_WS_ERROR, MSG_WS_MESSAGE, MSG_WS_OPEN, MSG_WS_OPENED,
};
use contracts::network::v1 as wire;
use prost::Message as _;

use crate::network::{
    DnsRequest, HttpRequest, HttpResponse, NetworkError, WsCloseRequest, WsMessage, WsOpenRequest,
};

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    HttpResponse(HttpResponse),
    WsOpened {
        conn_id: u64,
        /// Empty if the peer chose none.
        protocol: String,
    },
    WsMessage(WsMessage),
    /// 1005 if the peer said no code, 1006 if it went without a word.
    WsClosed {
        conn_id: u64,
        code: u16,
        reason: String,
    },
    WsError(NetworkError),
    /// Addresses with how many seconds they may be used.
    DnsResponse(Result<Vec<(std::net::IpAddr, u32)>, NetworkError>),
}

impl Reply {
    /// The message's number.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::HttpResponse(_) => MSG_NET_RESPONSE,
            Self::WsOpened { .. } => MSG_WS_OPENED,
            Self::WsMessage(_) => MSG_WS_MESSAGE,
            Self::WsClosed { .. } => MSG_WS_CLOSED,
            Self::WsError(_) => MSG_WS_ERROR,
            Self::DnsResponse(_) => MSG_DNS_RESPONSE,
        }
    }
}

/// What can be sent.
pub trait Encode {
    fn to_bytes(&self) -> Vec<u8>;
}

/// The bytes of a message, as the contract's protobuf has them.
#[must_use]
pub fn encode(message: &impl Encode) -> Vec<u8> {
    message.to_bytes()
}

fn headers(of: &[(String, String)]) -> Vec<wire::Header> {
    let header = |(name, value): &(String, String)| wire::Header { name: name.clone(), value: value.clone() };
    of.iter().map(header).collect()
}

impl Encode for HttpRequest {
    fn to_bytes(&self) -> Vec<u8> {
        wire::FetchRequest {
            method: self.method.name().to_owned(),
            url: self.url.clone(),
            headers: headers(&self.headers),
            body: self.body.clone().unwrap_or_default(),
            timeout_ms: self.timeout_ms,
            ..wire::FetchRequest::default()
        }
        .encode_to_vec()
    }
}

impl Encode for WsOpenRequest {
    fn to_bytes(&self) -> Vec<u8> {
        wire::WebSocketOpenRequest {
            url: self.url.clone(),
            protocols: self.protocols.clone(),
            ..wire::WebSocketOpenRequest::default()
        }
        .encode_to_vec()
    }
}

impl Encode for WsMessage {
    fn to_bytes(&self) -> Vec<u8> {
        wire::WebSocketMessage { conn_id: self.conn_id, data: Some(self.data.clone().into()) }.encode_to_vec()
    }
}

impl Encode for WsCloseRequest {
    fn to_bytes(&self) -> Vec<u8> {
        wire::WebSocketCloseRequest {
            conn_id: self.conn_id,
            code: self.code.map(u32::from).unwrap_or_default(),
            reason: self.reason.clone().unwrap_or_default(),
        }
        .encode_to_vec()
    }
}

impl Encode for DnsRequest {
    fn to_bytes(&self) -> Vec<u8> {
        wire::ResolveRequest { name: self.name.clone(), timeout_ms: self.timeout_ms }.encode_to_vec()
    }
}
