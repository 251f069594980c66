//! How a WebSocket comes to be: the same way as a request, then its handshake.

use std::{sync::Arc, time::Duration};

use contracts::network::v1::{self as wire, web_socket_event::Event};
use hyper::{
    HeaderMap,
    header::{CONNECTION, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE, USER_AGENT},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error,
        handshake::client::{Request, generate_key},
        protocol::WebSocketConfig,
    },
};
use tonic::Status;

use super::{
    Asker, Network, answer, headers,
    reach::{Peer, Wire, wire_id},
    slots::{Kind, Slot},
};
use crate::core::{
    CallError, Connection, NetError, Schemes, SocketId, Target,
    limits::{PROTOCOLS_MAX, time_limit_or_default},
};
use base::limits::NAME_BYTES_MAX;

/// Read at once; a message grows as it comes.
const READ_BYTES: usize = 16 * 1024;
const EVENTS_AHEAD: usize = 2;

pub(in crate::shell) type EventStream = ReceiverStream<Result<wire::WebSocketEvent, Status>>;

struct Wanted {
    target: Target,
    protocols: Vec<String>,
    headers: HeaderMap,
    limit: Duration,
    message_bytes: usize,
    header_bytes: u32,
}

/// Open, and what it is called.
pub(super) struct Opened {
    pub(super) stream: WebSocketStream<Wire>,
    pub(super) id: SocketId,
    pub(super) connection: Connection,
    pub(super) protocol: String,
    pub(super) slot: Slot,
}

fn protocols(names: Vec<String>) -> Result<Vec<String>, NetError> {
    let is_token = |name: &String| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(known)
    };
    match names.len() <= PROTOCOLS_MAX && names.iter().all(is_token) {
        true => Ok(names),
        false => {
            let text = format!("they are at most {PROTOCOLS_MAX} tokens of 1 to {NAME_BYTES_MAX} bytes");
            Err(NetError::invalid("protocols", text))
        }
    }
}

impl Network {
    fn read_open(&self, request: wire::WebSocketOpenRequest) -> Result<Result<Wanted, CallError>, NetError> {
        let limits = self.calls.policy().limits;
        let protocols = protocols(request.protocols)?;
        let headers = match headers::read(&request.headers, limits.header_bytes)? {
            Ok(headers) => headers,
            Err(error) => return Ok(Err(error)),
        };
        let limit = time_limit_or_default(request.timeout_ms);
        let (message_bytes, header_bytes) = (limits.message_bytes as usize, limits.header_bytes);
        Ok(Target::parse(&request.url, Schemes::WebSocket).map(|target| Wanted {
            target,
            protocols,
            headers,
            limit,
            message_bytes,
            header_bytes,
        }))
    }

    /// Opens one, and passes on what comes until either side has gone.
    pub(super) fn web_socket_open(
        self: &Arc<Self>,
        asker: Asker,
        request: wire::WebSocketOpenRequest,
    ) -> Result<EventStream, NetError> {
        let read = self.read_open(request)?;
        let slot = self.calls.slots.take(Kind::WebSocket, asker.requestor.id());
        let (out, events) = mpsc::channel(EVENTS_AHEAD);
        let network = Arc::clone(self);
        tokio::spawn(async move {
            let opened = match (read, slot) {
                (Ok(wanted), Ok(slot)) => tokio::select! {
                    opened = network.open_within(&asker, wanted, slot) => opened,
                    () = out.closed() => return,
                },
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
            match opened {
                Ok(opened) => network.carry_web_socket(&asker, opened, &out).await,
                Err(error) => answer::last_event(&out, Event::Failed(answer::error(&error))).await,
            }
        });
        Ok(ReceiverStream::new(events))
    }

    async fn open_within(
        self: &Arc<Self>,
        asker: &Asker,
        wanted: Wanted,
        slot: Slot,
    ) -> Result<Opened, CallError> {
        let deadline = Instant::now() + wanted.limit;
        let opening = async {
            let peer = self.reach(asker, &wanted.target, deadline).await?;
            handshake(peer, &wanted, slot).await
        };
        let limit = wanted.limit.as_millis();
        timeout_at(deadline, opening).await.unwrap_or(Err(CallError::Timeout(limit)))
    }
}

fn request(wanted: &Wanted) -> Result<Request, CallError> {
    let invalid = |error: String| CallError::InvalidUrl(format!("it cannot be sent: {error}"));
    let scheme = if wanted.target.is_tls() { "wss" } else { "ws" };
    let authority = wanted.target.authority();
    let uri = format!("{scheme}://{authority}{}", wanted.target.path());
    let mut request = Request::builder().uri(uri).body(()).map_err(|error| invalid(error.to_string()))?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("bailiwick"));
    headers.extend(wanted.headers.clone());
    let value = |text: String| HeaderValue::try_from(text).map_err(|error| invalid(error.to_string()));
    headers.insert(HOST, value(authority)?);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(HeaderName::from_static("sec-websocket-version"), HeaderValue::from_static("13"));
    headers.insert(HeaderName::from_static("sec-websocket-key"), value(generate_key())?);
    if !wanted.protocols.is_empty() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value(wanted.protocols.join(", "))?);
    }
    Ok(request)
}

async fn handshake(peer: Peer, wanted: &Wanted, slot: Slot) -> Result<Opened, CallError> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .max_message_size(Some(wanted.message_bytes))
        .max_frame_size(Some(wanted.message_bytes));
    let request = request(wanted)?;
    let shaken = client_async_with_config(request, peer.wire, Some(config)).await;
    let (stream, response) = shaken.map_err(|error| match error {
        // Where it is sent on to is not gone to: a WebSocket is asked for where it is.
        Error::Http(response) => {
            CallError::ConnectionFailed(format!("the answer is {}, no WebSocket", response.status()))
        }
        Error::Io(error) => CallError::ConnectionFailed(error.to_string()),
        other => CallError::Other(format!("no handshake of a WebSocket: {other}")),
    })?;
    let head: usize =
        response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head > wanted.header_bytes as usize {
        return Err(CallError::too_large("the answer's head", u64::from(wanted.header_bytes)));
    }
    let protocol = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
    let protocol = protocol.and_then(|name| name.to_str().ok()).unwrap_or_default().to_owned();
    Ok(Opened { stream, id: peer.id, connection: peer.connection, protocol, slot })
}

/// What an open one says first.
pub(super) fn first_event(opened: &Opened) -> Event {
    let first = wire::WebSocketOpened {
        conn_id: opened.id.0,
        protocol: opened.protocol.clone(),
        connection: wire_id(opened.connection.id),
        authorized: Some(opened.connection.at.into()),
    };
    Event::Opened(first)
}
