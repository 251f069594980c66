//! The `Network` contract.

use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering};

use base::{ConnectionId, IdentityId, limits::MESSAGE_BYTES_MAX};
use chain::payload::network::Direction;
use contracts::{
    convert::bytes,
    network::v1::{self as wire, network_server::Network as Contract},
};
use kit::Requestor;
use tonic::{Code, Request, Response, Status};

use super::{
    Network,
    authorize::Wish,
    live::{Io, Live, reset},
};
use crate::core::{
    Connection, Domain, Event, NetError, Record, SocketId, SocketOption, SocketState, SocketType,
    check_value, from_wire,
    limits::{
        BACKLOG_DEFAULT, BACKLOG_MAX, DATAGRAM_BYTES_MAX, REASON_BYTES_MAX, TRANSFER_BYTES_MAX, time_limit,
        time_limit_or_default,
    },
    to_wire,
};

/// Bytes of one socket in a list, with framing, beside its peers.
const LISTED_BYTES: usize = 256;

pub(super) struct Handlers(pub(super) Arc<Network>);

fn system(error: &std::io::Error, what: &str) -> NetError {
    NetError::of_io(error, what)
}

/// How much a caller takes at most.
fn wanted(max_bytes: u32) -> Result<usize, NetError> {
    let bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    match (1..=TRANSFER_BYTES_MAX).contains(&bytes) {
        true => Ok(bytes),
        false => Err(NetError::invalid("max_bytes", format!("{max_bytes}; it is 1 to {TRANSFER_BYTES_MAX}"))),
    }
}

fn may(permitted: bool, what: &str) -> Result<(), NetError> {
    match permitted {
        true => Ok(()),
        false => Err(NetError::PermissionDenied(format!("its authorisation does not cover {what}"))),
    }
}

/// The connection of a socket that has one, to send or to receive on.
fn connected(record: &Record, what: &'static str) -> Result<Connection, NetError> {
    match (&record.connection, record.state) {
        (Some(connection), SocketState::Connected) => Ok(connection.clone()),
        (_, state) => Err(NetError::WrongState { state, what }),
    }
}

impl Network {
    /// If it was cut, why; the error itself otherwise.
    fn why(&self, id: SocketId, owner: IdentityId, error: NetError) -> NetError {
        self.registry.find(id, owner).err().unwrap_or(error)
    }

    /// Ends a connection whose time is limited.
    fn limit_duration(self: &Arc<Self>, id: SocketId, connection: &Connection) {
        let limit = connection.grant.duration_limit.0;
        if limit == 0 {
            return;
        }
        let (network, wanted) = (Arc::clone(self), connection.id);
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_nanos(limit)).await;
            // Its number is not used again, but the socket may have gone on to another connection.
            let still = |record: &Record| record.connection.as_ref().is_some_and(|known| known.id == wanted);
            let why = "its time is over";
            network.registry.cut_all(
                |sockets| {
                    sockets.list(None).find(|(at, record)| *at == id && still(record)).map(|(at, _)| at)
                },
                why,
            );
        });
    }

    async fn connect(
        self: &Arc<Self>,
        requestor: &Requestor,
        id: SocketId,
        wanted: Option<wire::Address>,
        timeout_ms: u32,
    ) -> Result<wire::ConnectReply, Status> {
        let owner = requestor.id();
        let (record, live) = self.registry.find(id, owner)?;
        let address = from_wire(wanted, record.domain)?;
        // Nobody else moves it while it is decided.
        let before = self.registry.change(|sockets| {
            let before = sockets.find(id, owner)?.state;
            sockets.go(id, owner, Event::Connect).map(|_| before)
        })?;
        let had = record.connection.clone();
        let back = || {
            self.registry.change(|sockets| {
                // Cut or closed meanwhile: that stays.
                if let Ok(record) = sockets.find_mut(id, owner)
                    && record.state == SocketState::Connecting
                {
                    record.state = before;
                    record.connection.clone_from(&had);
                }
            });
        };
        let wish = Wish {
            direction: Direction::Outbound,
            protocol: record.socket_type.protocol(),
            local: record.local,
            remote: Some(address),
        };
        if kit::is_broken("record-first") {
            // What `prove` switched off: somebody hears from us before anything is on record.
            drop(tokio::net::TcpStream::connect(address).await);
        }
        let connection = self.authorize(requestor, wish).await.inspect_err(|_| back())?;
        let limit = time_limit_or_default(timeout_ms);
        let known = self.registry.change(|sockets| {
            sockets.find_mut(id, owner).map(|record| record.connection = Some(connection.clone()))
        });
        let done = match known.and_then(|()| self.stands(owner, &connection)) {
            Err(error) => Err(error),
            Ok(()) => match record.socket_type {
                SocketType::Stream => {
                    live.connect(record.domain, record.local, address, limit).await.map(Some)
                }
                // A datagram socket sends nothing to be connected.
                SocketType::Datagram => Ok(record.local),
            },
        };
        self.close_act(connection.at, done.is_ok());
        let local = match done {
            Ok(local) => local,
            Err(error) => {
                back();
                return Err(self.why(id, owner, error).into());
            }
        };
        self.registry.change(|sockets| {
            let record = sockets.go(id, owner, Event::Established)?;
            record.local = local.or(record.local);
            record.remote = Some(address);
            if record.socket_type == SocketType::Datagram {
                record.peers.insert(address, connection.clone());
            }
            Ok::<(), NetError>(())
        })?;
        self.limit_duration(id, &connection);
        Ok(wire::ConnectReply {
            local: local.map(to_wire),
            connection: connection.id.0.to_vec(),
            authorized: Some(connection.at.into()),
        })
    }

    async fn bind(
        &self,
        requestor: &Requestor,
        id: SocketId,
        wanted: Option<wire::Address>,
    ) -> Result<wire::BindReply, Status> {
        let owner = requestor.id();
        let (record, live) = self.registry.find(id, owner)?;
        let address = from_wire(wanted, record.domain)?;
        record.require(Event::Bind)?;
        // From then on anybody can send to it (open point 19).
        let authorized = match record.socket_type {
            SocketType::Datagram => {
                let wish = Wish {
                    direction: Direction::Inbound,
                    protocol: record.socket_type.protocol(),
                    local: Some(address),
                    remote: None,
                };
                Some(self.authorize(requestor, wish).await?)
            }
            SocketType::Stream => None,
        };
        self.registry.change(|sockets| {
            sockets.go(id, owner, Event::Bind).map(|record| record.connection.clone_from(&authorized))
        })?;
        let stands = authorized.as_ref().map_or(Ok(()), |connection| self.stands(owner, connection));
        let bound =
            stands.and_then(|()| live.bind(address).map_err(|error| system(&error, &address.to_string())));
        if let Some(connection) = &authorized {
            self.close_act(connection.at, bound.is_ok());
        }
        let local = self.registry.change(|sockets| {
            let record = sockets.find_mut(id, owner)?;
            match bound {
                Ok(local) => record.local = Some(local),
                // As it was.
                Err(_) if record.state == SocketState::Bound => {
                    record.state = SocketState::Created;
                    record.connection = None;
                }
                Err(_) => {}
            }
            bound
        })?;
        Ok(wire::BindReply { local: Some(to_wire(local)) })
    }

    async fn listen(
        &self,
        requestor: &Requestor,
        id: SocketId,
        backlog: u32,
    ) -> Result<wire::ListenReply, Status> {
        let owner = requestor.id();
        if backlog > BACKLOG_MAX {
            return Err(NetError::invalid("backlog", format!("{backlog}, at most {BACKLOG_MAX}")).into());
        }
        let (record, live) = self.registry.find(id, owner)?;
        record.require(Event::Listen)?;
        if record.socket_type == SocketType::Datagram {
            return Err(NetError::invalid("socket", "a datagram socket does not listen: it is bound").into());
        }
        let wish = Wish {
            direction: Direction::Inbound,
            protocol: record.socket_type.protocol(),
            local: record.local,
            remote: None,
        };
        let connection = self.authorize(requestor, wish).await?;
        let place = record.local.map(|local| local.to_string()).unwrap_or_default();
        let backlog = if backlog == 0 { BACKLOG_DEFAULT } else { backlog };
        let at = connection.at;
        let known = self.registry.change(|sockets| {
            sockets.go(id, owner, Event::Listen).map(|record| record.connection = Some(connection.clone()))
        });
        let done = known
            .and_then(|()| self.stands(owner, &connection))
            .and_then(|()| live.listen(backlog).map_err(|error| system(&error, &place)));
        self.close_act(at, done.is_ok());
        if let Err(error) = done {
            self.registry.change(|sockets| {
                if let Ok(record) = sockets.find_mut(id, owner)
                    && record.state == SocketState::Listening
                {
                    record.state = SocketState::Bound;
                    record.connection = None;
                }
            });
            return Err(self.why(id, owner, error).into());
        }
        Ok(wire::ListenReply { local: record.local.map(to_wire), authorized: Some(at.into()) })
    }

    /// Peers that policy does not allow are cut off, and do not end the wait.
    async fn accept(
        self: &Arc<Self>,
        requestor: &Requestor,
        id: SocketId,
        timeout_ms: u32,
    ) -> Result<wire::AcceptReply, Status> {
        let owner = requestor.id();
        let (record, live) = self.registry.find(id, owner)?;
        if record.state != SocketState::Listening {
            return Err(NetError::WrongState { state: record.state, what: "accept" }.into());
        }
        let listener = live.listener()?;
        let until = tokio::time::Instant::now() + time_limit(timeout_ms);
        loop {
            let next = async { listener.accept().await.map_err(|error| system(&error, "accepting")) };
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let accepted = live.within(left, next).await;
            let (stream, peer) = accepted.map_err(|error| self.why(id, owner, error))?;
            let wish = Wish {
                direction: Direction::Inbound,
                protocol: record.socket_type.protocol(),
                local: record.local,
                remote: Some(peer),
            };
            let connection = match self.authorize(requestor, wish).await {
                Ok(connection) => connection,
                Err(refused) => {
                    reset(&stream);
                    // A no is about this peer; anything else is about all of them.
                    if refused.code() == Code::PermissionDenied {
                        continue;
                    }
                    return Err(refused);
                }
            };
            let (at, local) = (connection.at, stream.local_addr().ok());
            let made = self.registry.create(
                owner,
                record.domain,
                SocketType::Stream,
                Live::of(Io::Stream(Arc::new(stream))),
            );
            self.close_act(at, made.is_ok());
            let new = made?;
            self.registry.change(|sockets| {
                let record = sockets.find_mut(new, owner)?;
                record.state = SocketState::Connected;
                record.local = local;
                record.remote = Some(peer);
                record.connection = Some(connection.clone());
                Ok::<(), NetError>(())
            })?;
            if let Err(error) = self.stands(owner, &connection) {
                self.registry.cut_all(|_| [new], &error.to_string());
                self.registry.remove(new);
                continue;
            }
            self.limit_duration(new, &connection);
            return Ok(wire::AcceptReply {
                socket: new.0,
                peer: Some(to_wire(peer)),
                authorized: Some(at.into()),
            });
        }
    }

    async fn send(
        &self,
        owner: IdentityId,
        request: &wire::SendRequest,
    ) -> Result<wire::SendReply, NetError> {
        let id = SocketId(request.socket);
        let (record, live) = self.registry.find(id, owner)?;
        let connection = connected(&record, "send")?;
        may(connection.grant.send, "sending")?;
        let limit = time_limit(request.timeout_ms);
        let sent = match record.socket_type {
            SocketType::Stream if request.data.len() > TRANSFER_BYTES_MAX => {
                return Err(NetError::too_long("data", request.data.len()));
            }
            SocketType::Stream => {
                let stream = live.stream().map_err(|error| self.why(id, owner, error))?;
                let data = request.data.as_slice();
                let work = async {
                    live.pace(data.len(), connection.grant.bandwidth_limit).await;
                    loop {
                        match stream.try_write(data) {
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                                stream.writable().await.map_err(|error| system(&error, "sending"))?;
                            }
                            other => return other.map_err(|error| system(&error, "sending")),
                        }
                    }
                };
                live.within(limit, work).await
            }
            SocketType::Datagram => match record.remote {
                Some(peer) => {
                    self.send_datagram(&live, peer, &request.data, connection.grant.bandwidth_limit).await
                }
                None => return Err(NetError::WrongState { state: record.state, what: "send" }),
            },
        };
        let sent = sent.map_err(|error| self.why(id, owner, error))?;
        live.count(sent, 0);
        Ok(wire::SendReply { sent: u32::try_from(sent).unwrap_or(u32::MAX) })
    }

    async fn send_datagram(
        &self,
        live: &Live,
        peer: SocketAddr,
        data: &[u8],
        bandwidth: u64,
    ) -> Result<usize, NetError> {
        if data.len() > DATAGRAM_BYTES_MAX {
            let text = format!("{} bytes, a datagram has at most {DATAGRAM_BYTES_MAX}", data.len());
            return Err(NetError::invalid("data", text));
        }
        let socket = live.datagram()?;
        live.pace(data.len(), bandwidth).await;
        let sending =
            async { socket.send_to(data, peer).await.map_err(|error| system(&error, &peer.to_string())) };
        live.until_cut(sending).await
    }

    async fn recv(&self, owner: IdentityId, request: wire::RecvRequest) -> Result<Vec<u8>, NetError> {
        let id = SocketId(request.socket);
        let (record, live) = self.registry.find(id, owner)?;
        let connection = connected(&record, "receive")?;
        may(connection.grant.recv, "receiving")?;
        let (most, limit) = (wanted(request.max_bytes)?, time_limit(request.timeout_ms));
        let received = match record.socket_type {
            SocketType::Datagram => {
                return self
                    .recv_datagram(id, owner, &record, &live, most, limit)
                    .await
                    .map(|(data, _)| data);
            }
            SocketType::Stream => {
                let stream = live.stream().map_err(|error| self.why(id, owner, error))?;
                let mut buffer = vec![0; most];
                let work = async {
                    loop {
                        match stream.try_read(&mut buffer) {
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                                stream.readable().await.map_err(|error| system(&error, "receiving"))?;
                            }
                            Err(error) => return Err(system(&error, "receiving")),
                            Ok(bytes) => {
                                buffer.truncate(bytes);
                                return Ok(std::mem::take(&mut buffer));
                            }
                        }
                    }
                };
                live.within(limit, work).await
            }
        };
        let data = received.map_err(|error| self.why(id, owner, error))?;
        // What was read is slowed down, so the next is read later.
        live.pace(data.len(), connection.grant.bandwidth_limit).await;
        live.count(0, data.len());
        Ok(data)
    }

    /// A bound socket hears everybody, another only those that it was authorised to send to.
    async fn recv_datagram(
        &self,
        id: SocketId,
        owner: IdentityId,
        record: &Record,
        live: &Live,
        most: usize,
        limit: std::time::Duration,
    ) -> Result<(Vec<u8>, SocketAddr), NetError> {
        let socket = live.datagram().map_err(|error| self.why(id, owner, error))?;
        // One byte more, to see that there was more.
        let mut buffer = vec![0; most + 1];
        let hears = |peer: &SocketAddr| match (record.remote, &record.connection) {
            (Some(remote), _) => *peer == remote,
            (None, Some(_)) => true,
            (None, None) => self.registry.read(|sockets, _| {
                sockets.find(id, owner).is_ok_and(|record| record.peers.contains_key(peer))
            }),
        };
        let work = async {
            loop {
                let received = socket.recv_from(&mut buffer).await;
                let (bytes, peer) = received.map_err(|error| system(&error, "receiving"))?;
                if hears(&peer) {
                    return Ok((bytes, peer));
                }
            }
        };
        let (bytes, peer) = live.within(limit, work).await.map_err(|error| self.why(id, owner, error))?;
        if bytes > most {
            return Err(NetError::BufferTooSmall(most));
        }
        buffer.truncate(bytes);
        live.count(0, bytes);
        Ok((buffer, peer))
    }

    async fn send_to(
        &self,
        requestor: &Requestor,
        request: wire::SendToRequest,
    ) -> Result<wire::SendReply, Status> {
        let (id, owner) = (SocketId(request.socket), requestor.id());
        let (record, live) = self.registry.find(id, owner)?;
        if record.socket_type != SocketType::Datagram {
            return Err(NetError::invalid("socket", "a stream is connected first").into());
        }
        let peer = from_wire(request.address, record.domain)?;
        let connection = match record.peers.get(&peer) {
            Some(known) => known.clone(),
            None => {
                let wish = Wish {
                    direction: Direction::Outbound,
                    protocol: record.socket_type.protocol(),
                    local: record.local,
                    remote: Some(peer),
                };
                let connection = self.authorize(requestor, wish).await?;
                let added =
                    self.registry.change(|sockets| sockets.add_peer(id, owner, peer, connection.clone()));
                self.close_act(connection.at, added.is_ok());
                added.and_then(|()| self.stands(owner, &connection))?;
                connection
            }
        };
        may(connection.grant.send, "sending")?;
        let sent = self.send_datagram(&live, peer, &request.data, connection.grant.bandwidth_limit).await;
        let sent = sent.map_err(|error| self.why(id, owner, error))?;
        live.count(sent, 0);
        Ok(wire::SendReply { sent: u32::try_from(sent).unwrap_or(u32::MAX) })
    }

    fn list(&self, owner: Option<IdentityId>) -> Result<Vec<wire::SocketInfo>, NetError> {
        let mut room = MESSAGE_BYTES_MAX;
        self.registry.read(|sockets, live| {
            let mut listed = Vec::new();
            for (id, record) in sockets.list(owner) {
                room = room.checked_sub(LISTED_BYTES).ok_or_else(|| {
                    NetError::TooMany("there are more sockets than fit into one answer".to_owned())
                })?;
                let counted = |read: fn(&Live) -> u64| live.get(&id).map_or(0, |live| read(live));
                let connection = record.connection.as_ref();
                listed.push(wire::SocketInfo {
                    socket: id.0,
                    domain: record.domain.name().to_owned(),
                    socket_type: record.socket_type.name().to_owned(),
                    state: record.state.name().to_owned(),
                    local: record.local.map(to_wire),
                    remote: record.remote.map(to_wire),
                    owner: record.owner.0.to_vec(),
                    connection: connection.map(|known| known.id.0.to_vec()).unwrap_or_default(),
                    authorized: connection.map(|known| known.at.into()),
                    sent_bytes: counted(|live| live.sent_bytes.load(Ordering::Relaxed)),
                    received_bytes: counted(|live| live.received_bytes.load(Ordering::Relaxed)),
                });
            }
            Ok(listed)
        })
    }
}

impl Handlers {
    fn requestor<T>(&self, request: &Request<T>) -> Result<Requestor, Status> {
        Ok(kit::requestor(&self.0.node, request, true)?)
    }
}

#[tonic::async_trait]
impl Contract for Handlers {
    async fn socket(
        &self,
        request: Request<wire::SocketRequest>,
    ) -> Result<Response<wire::SocketReply>, Status> {
        let owner = self.requestor(&request)?.id();
        let domain = Domain::parse(&request.get_ref().domain)?;
        let socket_type = SocketType::parse(&request.get_ref().socket_type)?;
        let live = Live::fresh(domain, socket_type).map_err(|error| system(&error, "making a socket"))?;
        let id = self.0.registry.create(owner, domain, socket_type, live)?;
        Ok(Response::new(wire::SocketReply { socket: id.0 }))
    }

    async fn bind(&self, request: Request<wire::BindRequest>) -> Result<Response<wire::BindReply>, Status> {
        let (network, requestor) = (Arc::clone(&self.0), self.requestor(&request)?);
        let wire::BindRequest { socket, address } = request.into_inner();
        kit::uncancelled(async move { network.bind(&requestor, SocketId(socket), address).await })
            .await
            .map(Response::new)
    }

    async fn listen(
        &self,
        request: Request<wire::ListenRequest>,
    ) -> Result<Response<wire::ListenReply>, Status> {
        let (network, requestor) = (Arc::clone(&self.0), self.requestor(&request)?);
        let wire::ListenRequest { socket, backlog } = request.into_inner();
        kit::uncancelled(async move { network.listen(&requestor, SocketId(socket), backlog).await })
            .await
            .map(Response::new)
    }

    async fn accept(
        &self,
        request: Request<wire::AcceptRequest>,
    ) -> Result<Response<wire::AcceptReply>, Status> {
        let (network, requestor) = (Arc::clone(&self.0), self.requestor(&request)?);
        let wire::AcceptRequest { socket, timeout_ms } = request.into_inner();
        network.accept(&requestor, SocketId(socket), timeout_ms).await.map(Response::new)
    }

    async fn connect(
        &self,
        request: Request<wire::ConnectRequest>,
    ) -> Result<Response<wire::ConnectReply>, Status> {
        let (network, requestor) = (Arc::clone(&self.0), self.requestor(&request)?);
        let wire::ConnectRequest { socket, address, timeout_ms } = request.into_inner();
        kit::uncancelled(
            async move { network.connect(&requestor, SocketId(socket), address, timeout_ms).await },
        )
        .await
        .map(Response::new)
    }

    async fn send(&self, request: Request<wire::SendRequest>) -> Result<Response<wire::SendReply>, Status> {
        let owner = self.requestor(&request)?.id();
        Ok(Response::new(self.0.send(owner, request.get_ref()).await?))
    }

    async fn recv(&self, request: Request<wire::RecvRequest>) -> Result<Response<wire::RecvReply>, Status> {
        let owner = self.requestor(&request)?.id();
        Ok(Response::new(wire::RecvReply { data: self.0.recv(owner, request.into_inner()).await? }))
    }

    async fn close(
        &self,
        request: Request<wire::CloseRequest>,
    ) -> Result<Response<wire::CloseReply>, Status> {
        let owner = self.requestor(&request)?.id();
        let id = SocketId(request.get_ref().socket);
        self.0.registry.read(|sockets, _| sockets.find(id, owner).map(drop))?;
        if let Some(live) = self.0.registry.remove(id) {
            live.close();
        }
        Ok(Response::new(wire::CloseReply {}))
    }

    async fn send_to(
        &self,
        request: Request<wire::SendToRequest>,
    ) -> Result<Response<wire::SendReply>, Status> {
        let (network, requestor) = (Arc::clone(&self.0), self.requestor(&request)?);
        let wanted = request.into_inner();
        kit::uncancelled(async move { network.send_to(&requestor, wanted).await }).await.map(Response::new)
    }

    async fn recv_from(
        &self,
        request: Request<wire::RecvFromRequest>,
    ) -> Result<Response<wire::RecvFromReply>, Status> {
        let owner = self.requestor(&request)?.id();
        let wire::RecvFromRequest { socket, max_bytes, timeout_ms } = request.into_inner();
        let id = SocketId(socket);
        let (record, live) = self.0.registry.find(id, owner)?;
        if record.socket_type != SocketType::Datagram {
            return Err(NetError::invalid("socket", "of a stream it is known who sends").into());
        }
        if let Some(connection) = &record.connection {
            may(connection.grant.recv, "receiving")?;
        }
        let (most, limit) = (wanted(max_bytes)?, time_limit(timeout_ms));
        let (data, peer) = self.0.recv_datagram(id, owner, &record, &live, most, limit).await?;
        Ok(Response::new(wire::RecvFromReply { data, peer: Some(to_wire(peer)) }))
    }

    async fn get_option(
        &self,
        request: Request<wire::GetOptionRequest>,
    ) -> Result<Response<wire::OptionValue>, Status> {
        let owner = self.requestor(&request)?.id();
        let option = SocketOption::parse(&request.get_ref().name)?;
        let (record, live) = self.0.registry.find(SocketId(request.get_ref().socket), owner)?;
        Ok(Response::new(wire::OptionValue { value: live.option(option, record.domain)? }))
    }

    async fn set_option(
        &self,
        request: Request<wire::SetOptionRequest>,
    ) -> Result<Response<wire::OptionValue>, Status> {
        let owner = self.requestor(&request)?.id();
        let wire::SetOptionRequest { socket, name, value } = request.into_inner();
        let option = SocketOption::parse(&name)?;
        check_value(option, value)?;
        let (record, live) = self.0.registry.find(SocketId(socket), owner)?;
        live.set_option(option, value, record.domain, record.socket_type)?;
        Ok(Response::new(wire::OptionValue { value: live.option(option, record.domain)? }))
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<wire::SocketList>, Status> {
        let owner = self.requestor(&request)?.id();
        let sees_all = self.0.node.local().genesis_admin() == Some(owner);
        let sockets = self.0.list((!sees_all).then_some(owner))?;
        Ok(Response::new(wire::SocketList { sockets }))
    }

    async fn revoke(
        &self,
        request: Request<wire::RevokeRequest>,
    ) -> Result<Response<wire::RevokeReply>, Status> {
        let (network, requestor) = (Arc::clone(&self.0), self.requestor(&request)?);
        let wire::RevokeRequest { connection, reason } = request.into_inner();
        let id = bytes("connection", &connection)
            .map(ConnectionId)
            .map_err(|error| NetError::invalid("connection", error.to_string()))?;
        if reason.len() > REASON_BYTES_MAX {
            return Err(NetError::invalid("reason", format!("above {REASON_BYTES_MAX} bytes")).into());
        }
        let is_admin = network.node.local().genesis_admin() == Some(requestor.id());
        // Of another's connection it is not even told that it exists.
        let is_there = network.registry.read(|sockets, _| {
            sockets.by_connection(&id).is_some_and(|(_, record)| is_admin || record.owner == requestor.id())
        });
        if !is_there {
            return Err(NetError::ConnectionNotFound(id).into());
        }
        kit::uncancelled(async move {
            let at = network.revoke(&requestor, id, reason).await?;
            // The fold cuts; who is answered can rely on it.
            network.node.feed().wait_for(at.sequence).await?;
            Ok(Response::new(wire::RevokeReply { revoked_at: Some(at.into()) }))
        })
        .await
    }
}
