//! An open WebSocket: messages keep their kind both ways, and it goes with whoever has opened it.

use std::sync::Arc;

use base::IdentityId;
use contracts::network::v1::{self as wire, web_socket_event::Event, web_socket_message::Data};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::{CapacityError, ProtocolError},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    Asker, Network,
    answer::{self, Events},
    lock,
    reach::Wire,
    web_socket_open::{Opened, first_event},
};
use crate::{
    core::{
        CallError, NetError, SocketId,
        limits::{CLOSE_REASON_BYTES_MAX, LAST_WORD_TIMEOUT, TIMEOUT_DEFAULT},
    },
    shell::registry::Transfer,
};

/// The peer named none, and it went without a word (RFC 6455, 7.4.1): said to callers, never sent.
const NO_STATUS: u32 = 1005;
const ABNORMAL: u32 = 1006;
const NORMAL: u16 = 1000;

pub(super) struct WebSocket {
    owner: IdentityId,
    client: String,
    message_bytes: usize,
    sink: Mutex<SplitSink<WebSocketStream<Wire>, Message>>,
    /// Its caller has closed it.
    closing: watch::Sender<bool>,
}

/// How it ended.
enum End {
    /// The caller does not listen any more.
    Left,
    Closed(u32, String),
    Failed(CallError),
}

/// What the peer broke, and the code that says so to it.
fn fault(error: &Error) -> (CallError, CloseCode) {
    let code = match error {
        Error::Capacity(_) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        _ => CloseCode::Protocol,
    };
    let error = match error {
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            CallError::too_large("a message", *max_size as u64)
        }
        Error::Io(error) => CallError::ConnectionFailed(error.to_string()),
        other => CallError::Other(format!("the peer breaks the protocol: {other}")),
    };
    (error, code)
}

impl Network {
    pub(super) async fn carry_web_socket(self: &Arc<Self>, asker: &Asker, opened: Opened, out: &Events) {
        let id = opened.id;
        let first = first_event(&opened);
        let Opened { stream, slot, .. } = opened;
        let message_bytes = self.calls.policy().limits.message_bytes as usize;
        let (sink, mut stream) = stream.split();
        let (owner, client) = (asker.requestor.id(), asker.user.name.clone());
        let socket = Arc::new(WebSocket {
            owner,
            client,
            message_bytes,
            sink: Mutex::new(sink),
            closing: watch::Sender::new(false),
        });
        // First: who hears that it is open may use it at once.
        lock(&self.calls.web_sockets).insert(id, Arc::clone(&socket));
        let end = match answer::event(out, first).await {
            true => self.listen_to(id, &mut stream, &socket, out).await,
            false => End::Left,
        };
        lock(&self.calls.web_sockets).remove(&id);
        let cut = self.registry.find(id, owner).err();
        if matches!(end, End::Left) {
            socket.say_close(CloseCode::Away).await;
        }
        drop((socket, stream, slot));
        let last = match (end, cut) {
            (End::Left, _) => return,
            (_, Some(why)) => Event::Failed(answer::error(&CallError::PolicyDenied(why.to_string()))),
            (End::Closed(code, reason), None) => {
                Event::Closed(wire::WebSocketClosed { conn_id: id.0, code, reason })
            }
            (End::Failed(error), None) => Event::Failed(answer::error(&error)),
        };
        answer::last_event(out, last).await;
    }

    async fn listen_to(
        &self,
        id: SocketId,
        stream: &mut futures_util::stream::SplitStream<WebSocketStream<Wire>>,
        socket: &WebSocket,
        out: &Events,
    ) -> End {
        let mut closing = socket.closing.subscribe();
        let overdue = async {
            drop(closing.wait_for(|closing| *closing).await);
            sleep(LAST_WORD_TIMEOUT).await;
        };
        tokio::pin!(overdue);
        loop {
            let next = tokio::select! {
                next = stream.next() => next,
                () = out.closed() => return End::Left,
                // The peer does not answer to a close.
                () = &mut overdue => return End::Closed(ABNORMAL, String::new()),
            };
            let data = match next {
                Some(Ok(Message::Text(text))) => Data::Text(text.as_str().to_owned()),
                Some(Ok(Message::Binary(bytes))) => Data::Binary(bytes.to_vec()),
                // Answered by the codec; nobody else's business.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(said))) => {
                    // The answer to it goes out with the next look; a peer that stays is not waited for.
                    drop(timeout(LAST_WORD_TIMEOUT, stream.next()).await);
                    return said.map_or(End::Closed(NO_STATUS, String::new()), |said| {
                        End::Closed(u32::from(u16::from(said.code)), said.reason.as_str().to_owned())
                    });
                }
                None
                | Some(Err(
                    Error::ConnectionClosed
                    | Error::AlreadyClosed
                    | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
                )) => return End::Closed(ABNORMAL, String::new()),
                Some(Err(error)) => {
                    let (error, code) = fault(&error);
                    socket.say_close(code).await;
                    return End::Failed(error);
                }
            };
            let message = wire::WebSocketMessage { conn_id: id.0, data: Some(data) };
            if !answer::event(out, Event::Message(message)).await {
                return End::Left;
            }
        }
    }

    /// NET-49: of another's it is not even told that it exists.
    fn web_socket(&self, asker: &Asker, conn_id: u64) -> Result<Arc<WebSocket>, NetError> {
        let found = lock(&self.calls.web_sockets).get(&SocketId(conn_id)).map(Arc::clone);
        found
            .filter(|one| one.owner == asker.requestor.id() && one.client == asker.user.name)
            .ok_or(NetError::SocketNotFound(conn_id))
    }

    pub(super) async fn web_socket_send(
        &self,
        asker: &Asker,
        message: wire::WebSocketMessage,
    ) -> Result<(), NetError> {
        let socket = self.web_socket(asker, message.conn_id)?;
        let message = match message.data {
            Some(Data::Text(text)) => Message::text(text),
            Some(Data::Binary(bytes)) => Message::binary(bytes),
            None => return Err(NetError::invalid("data", "it is neither text nor binary")),
        };
        if message.len() > socket.message_bytes {
            let text = format!("too large: {} bytes, at most {}", message.len(), socket.message_bytes);
            return Err(NetError::invalid("data", text));
        }
        socket.say_in(self.registry.transfer(socket.owner)?, message).await
    }

    pub(super) async fn web_socket_close(
        &self,
        asker: &Asker,
        request: wire::WebSocketCloseRequest,
    ) -> Result<(), NetError> {
        let socket = self.web_socket(asker, request.conn_id)?;
        if request.reason.len() > CLOSE_REASON_BYTES_MAX {
            return Err(NetError::invalid("reason", format!("above {CLOSE_REASON_BYTES_MAX} bytes")));
        }
        let frame = match u16::try_from(request.code) {
            Ok(0) if request.reason.is_empty() => None,
            Ok(code @ (NORMAL | 3000..=4999)) => {
                Some(CloseFrame { code: code.into(), reason: request.reason.into() })
            }
            _ => return Err(NetError::invalid("code", "it is 1000 or 3000 to 4999, and 0 has no reason")),
        };
        let said = socket.say(Message::Close(frame)).await;
        socket.closing.send_replace(true);
        said
    }
}

impl WebSocket {
    /// Waits for whoever sends at the same time, and for a peer that does not read, but not for ever.
    /// Each that waits for a peer that does not read holds its message: `room` is held as long.
    async fn say_in(&self, room: Transfer, message: Message) -> Result<(), NetError> {
        let said = self.say(message).await;
        drop(room);
        said
    }

    async fn say(&self, message: Message) -> Result<(), NetError> {
        let until = Instant::now() + TIMEOUT_DEFAULT;
        let saying = async {
            let mut sink = self.sink.lock().await;
            sink.send(message).await
        };
        match timeout_at(until, saying).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(NetError::ConnectionReset),
            Err(_) => Err(NetError::Timeout(TIMEOUT_DEFAULT.as_millis())),
        }
    }

    async fn say_close(&self, code: CloseCode) {
        let frame = CloseFrame { code, reason: "".into() };
        let saying = async { self.sink.lock().await.send(Message::Close(Some(frame))).await };
        drop(timeout(LAST_WORD_TIMEOUT, saying).await);
    }
}
