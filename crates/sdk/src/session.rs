//! Messages out, replies in: each thread has an inbox of its own.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        LazyLock,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};

use contracts::network::v1::{
    self as wire, fetch_part::Part, network_client::NetworkClient, web_socket_event::Event,
};
use kit::{Peer, client::Calls};
use prost::Message;
use tokio::runtime::Runtime;

use crate::{
    Endpoint, Error,
    client::calls,
    message::{MSG_DNS_RESOLVE, MSG_NET_REQUEST, MSG_WS_CLOSE, MSG_WS_MESSAGE, MSG_WS_OPEN, Reply},
    network::{HttpResponse, HttpSuccess, addresses},
};

/// Longer than any answer takes: the service's own limit, which the request may set, is five minutes.
const ANSWER_LIMIT: Duration = Duration::from_secs(310);
/// A connection lives for as long as somebody listens.
const CONNECTION_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

enum Told {
    Reply(Box<Result<Reply, Error>>),
    /// Nothing follows for one of those that were sent.
    Done,
}

struct Inbox {
    tell: Sender<Told>,
    told: Receiver<Told>,
    open: usize,
    peers: BTreeMap<PathBuf, Peer>,
}

impl Default for Inbox {
    fn default() -> Self {
        let (tell, told) = channel();
        Self { tell, told, open: 0, peers: BTreeMap::new() }
    }
}

thread_local! {
    static INBOX: RefCell<Inbox> = RefCell::default();
}

/// What carries the calls of all threads.
static RUNTIME: LazyLock<io::Result<Runtime>> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build());

fn runtime() -> Result<&'static Runtime, Error> {
    RUNTIME.as_ref().map_err(|error| Error::Runtime(io::Error::new(error.kind(), error.to_string())))
}

/// Sends a message and does not wait. What goes wrong is the reply, as is the answer.
pub fn send(endpoint: Endpoint, code: u16, request: &[u8]) {
    INBOX.with_borrow_mut(|inbox| {
        inbox.open += 1;
        let tell = inbox.tell.clone();
        let started = runtime().map(|runtime| {
            let _inside = runtime.enter();
            let peer =
                inbox.peers.entry(endpoint.socket.clone()).or_insert_with(|| Peer::at(&endpoint.socket));
            let call =
                Call { peer: peer.clone(), endpoint, code, request: request.to_vec(), tell: tell.clone() };
            runtime.spawn(call.run());
        });
        if let Err(error) = started {
            let _ = tell.send(Told::Reply(Box::new(Err(error))));
            let _ = tell.send(Told::Done);
        }
    });
}

/// Waits for the next reply to what this thread has sent, in the order in which they come.
pub fn receive_reply() -> Result<Reply, Error> {
    INBOX.with_borrow_mut(|inbox| {
        while inbox.open > 0 {
            match inbox.told.recv() {
                Ok(Told::Reply(reply)) => return *reply,
                // The inbox holds a sender itself.
                Ok(Told::Done) | Err(_) => inbox.open -= 1,
            }
        }
        Err(Error::NothingSent)
    })
}

struct Call {
    peer: Peer,
    endpoint: Endpoint,
    code: u16,
    request: Vec<u8>,
    tell: Sender<Told>,
}

impl Call {
    async fn run(self) {
        if let Err(error) = self.made().await {
            self.reply(Err(error));
        }
        let _ = self.tell.send(Told::Done);
    }

    fn reply(&self, reply: Result<Reply, Error>) {
        let _ = self.tell.send(Told::Reply(Box::new(reply)));
    }

    async fn made(&self) -> Result<(), Error> {
        match self.code {
            MSG_NET_REQUEST => {
                self.fetch().await.map(|response| self.reply(Ok(Reply::HttpResponse(response))))
            }
            MSG_DNS_RESOLVE => {
                let mut network = self.network("resolve", ANSWER_LIMIT)?;
                let reply = network.resolve(self.read::<wire::ResolveRequest>()?).await?.into_inner();
                self.reply(Ok(Reply::DnsResponse(addresses(reply))));
                Ok(())
            }
            MSG_WS_OPEN => self.web_socket().await,
            MSG_WS_MESSAGE => {
                let mut network = self.network("web_socket", ANSWER_LIMIT)?;
                network.web_socket_send(self.read::<wire::WebSocketMessage>()?).await?;
                Ok(())
            }
            MSG_WS_CLOSE => {
                let mut network = self.network("web_socket", ANSWER_LIMIT)?;
                network.web_socket_close(self.read::<wire::WebSocketCloseRequest>()?).await?;
                Ok(())
            }
            unknown => Err(Error::UnknownMessage(unknown)),
        }
    }

    fn network(&self, operation: &str, limit: Duration) -> Result<NetworkClient<Calls>, Error> {
        let capability = format!("system.network.{operation}");
        Ok(NetworkClient::new(calls(&self.endpoint, &self.peer, &capability, limit)?))
    }

    fn read<T: Message + Default>(&self) -> Result<T, Error> {
        T::decode(self.request.as_slice())
            .map_err(|error| Error::Malformed { code: self.code, text: error.to_string() })
    }

    async fn fetch(&self) -> Result<HttpResponse, Error> {
        let mut network = self.network("fetch", ANSWER_LIMIT)?;
        let mut parts = network.fetch(self.read::<wire::FetchRequest>()?).await?.into_inner();
        let mut success = HttpSuccess::default();
        while let Some(part) = parts.message().await? {
            match part.part {
                Some(Part::Head(head)) => {
                    success.status = u16::try_from(head.status).unwrap_or(u16::MAX);
                    success.headers = head.headers.into_iter().map(|h| (h.name, h.value)).collect();
                }
                Some(Part::Body(bytes)) => success.body.extend_from_slice(&bytes),
                Some(Part::End(_)) => return Ok(HttpResponse { result: Ok(success) }),
                Some(Part::Failed(failed)) => return Ok(HttpResponse { result: Err(failed.into()) }),
                None => {}
            }
        }
        Err(Error::Short("network"))
    }

    async fn web_socket(&self) -> Result<(), Error> {
        let mut network = self.network("web_socket", CONNECTION_LIMIT)?;
        let mut events =
            network.web_socket_open(self.read::<wire::WebSocketOpenRequest>()?).await?.into_inner();
        while let Some(event) = events.message().await? {
            let reply = match event.event {
                Some(Event::Opened(opened)) => {
                    Reply::WsOpened { conn_id: opened.conn_id, protocol: opened.protocol }
                }
                Some(Event::Message(message)) => Reply::WsMessage(message.into()),
                Some(Event::Closed(closed)) => {
                    let code = u16::try_from(closed.code).unwrap_or_default();
                    self.reply(Ok(Reply::WsClosed { conn_id: closed.conn_id, code, reason: closed.reason }));
                    return Ok(());
                }
                Some(Event::Failed(failed)) => {
                    self.reply(Ok(Reply::WsError(failed.into())));
                    return Ok(());
                }
                None => continue,
            };
            self.reply(Ok(reply));
        }
        Err(Error::Short("network"))
    }
}
