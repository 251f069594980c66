//! How a socket comes to a connection: bind, connect, listen, accept. Nothing is done before it is decided and on record.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base::IdentityId;
use chain::payload::network::Direction;
use contracts::network::v1 as wire;
use kit::Requestor;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};
use tonic::{Code, Status};

use super::{
    Network,
    authorize::Wish,
    live::{Io, Live, reset},
};
use crate::core::{
    Connection, Event, NetError, Record, SocketId, SocketState, SocketType, from_wire,
    limits::{BACKLOG_DEFAULT, BACKLOG_MAX, time_limit, time_limit_or_default},
    peer_from_wire, to_wire,
};

impl Network {
    /// If it was cut, why; the error itself otherwise.
    pub(super) fn why(&self, id: SocketId, owner: IdentityId, error: NetError) -> NetError {
        self.registry.find(id, owner).err().unwrap_or(error)
    }

    /// Ends a connection whose time is limited.
    pub(super) fn limit_duration(self: &Arc<Self>, connection: &Connection) {
        let limit = connection.grant.duration_limit.0;
        if limit == 0 {
            return;
        }
        let (network, ended) = (Arc::clone(self), connection.id);
        tokio::spawn(async move {
            sleep(Duration::from_nanos(limit)).await;
            network.registry.end(&ended, "its time is over");
        });
    }

    pub(super) async fn connect(
        self: &Arc<Self>,
        requestor: &Requestor,
        id: SocketId,
        wanted: Option<wire::Address>,
        timeout_ms: u32,
    ) -> Result<wire::ConnectReply, Status> {
        self.connect_by_name(requestor, id, wanted, timeout_ms, None).await
    }

    /// The same with the name that led to the address, for rules and for the record.
    pub(super) async fn connect_by_name(
        self: &Arc<Self>,
        requestor: &Requestor,
        id: SocketId,
        wanted: Option<wire::Address>,
        timeout_ms: u32,
        name: Option<String>,
    ) -> Result<wire::ConnectReply, Status> {
        let owner = requestor.id();
        let (record, live) = self.registry.find(id, owner)?;
        let address = peer_from_wire(wanted, record.domain)?;
        let is_stream = record.socket_type == SocketType::Stream;
        if !is_stream && record.state == SocketState::Bound {
            // It would have two authorisations, and its socket one.
            return Err(
                NetError::invalid("socket", "a bound datagram socket is not connected: it sends to").into()
            );
        }
        // Nobody else moves it while it is decided.
        let before = self.registry.change(|sockets| {
            let before = sockets.find(id, owner)?.state;
            sockets.go(id, owner, Event::Connect).map(|_| before)
        })?;
        let wish = Wish {
            secret: None,
            direction: Direction::Outbound,
            protocol: record.socket_type.protocol(),
            local: record.local,
            remote: Some(address),
            name,
        };
        if kit::is_broken("record-first") {
            // What `prove` switched off: somebody hears from us before anything is on record.
            drop(TcpStream::connect(address).await);
        }
        let decided = self.authorize(requestor, wish).await;
        let connection = decided.inspect_err(|_| self.unconnect(id, owner, before, record.local))?;
        let known = self.registry.change(|sockets| {
            sockets.find_mut(id, owner).map(|record| record.connection = Some(connection.clone()))
        });
        let done = match known.and_then(|()| self.stands(owner, &connection)) {
            Err(error) => Err(error),
            Ok(()) if is_stream => live.connect(address, time_limit_or_default(timeout_ms)).await.map(Some),
            // A datagram socket sends nothing to be connected.
            Ok(()) => Ok(record.local),
        };
        self.close_act(connection.at, done.is_ok());
        let local = match done {
            Ok(local) => local,
            Err(error) => {
                let used_up = is_stream && live.bound_to().is_none();
                match used_up && !live.renew(record.domain, record.local) {
                    // Somebody else has its address now.
                    true => self.unconnect(id, owner, SocketState::Created, None),
                    false => self.unconnect(id, owner, before, record.local),
                }
                return Err(self.why(id, owner, error).into());
            }
        };
        self.registry.change(|sockets| {
            let record = sockets.go(id, owner, Event::Established)?;
            record.local = local.or(record.local);
            record.remote = Some(address);
            Ok::<(), NetError>(())
        })?;
        self.limit_duration(&connection);
        Ok(wire::ConnectReply {
            local: local.map(to_wire),
            connection: connection.id.0.to_vec(),
            authorized: Some(connection.at.into()),
        })
    }

    /// As it was before the connect; one that was cut or closed meanwhile stays so.
    fn unconnect(&self, id: SocketId, owner: IdentityId, state: SocketState, local: Option<SocketAddr>) {
        self.registry.change(|sockets| {
            if let Ok(record) = sockets.find_mut(id, owner)
                && record.state == SocketState::Connecting
            {
                record.state = state;
                record.local = local;
                record.connection = None;
            }
        });
    }

    pub(super) async fn bind(
        self: &Arc<Self>,
        requestor: &Requestor,
        id: SocketId,
        wanted: Option<wire::Address>,
    ) -> Result<wire::BindReply, Status> {
        let owner = requestor.id();
        let (record, live) = self.registry.find(id, owner)?;
        let address = from_wire(wanted, record.domain)?;
        record.require(Event::Bind)?;
        let place = address.to_string();
        // From then on anybody can send to it (open point 19).
        let authorized = match record.socket_type {
            SocketType::Stream => None,
            SocketType::Datagram if address.port() == 0 => {
                let why = "a datagram socket is bound to a port that is named: it is decided before the kernel chooses";
                return Err(NetError::invalid("port", why).into());
            }
            SocketType::Datagram => {
                let wish = Wish {
                    secret: None,
                    direction: Direction::Inbound,
                    protocol: record.socket_type.protocol(),
                    local: Some(address),
                    remote: None,
                    name: None,
                };
                Some(self.authorize(requestor, wish).await?)
            }
        };
        let taken = self.registry.change(|sockets| {
            sockets.go(id, owner, Event::Bind).map(|record| record.connection.clone_from(&authorized))
        });
        if let Err(error) = taken {
            // Another call was first; its state is none of this one's.
            self.close_all(authorized.as_ref(), false);
            return Err(error.into());
        }
        let stands = authorized.as_ref().map_or(Ok(()), |connection| self.stands(owner, connection));
        let bound = stands.and_then(|()| live.bind(address).map_err(|error| NetError::of_io(&error, &place)));
        self.close_all(authorized.as_ref(), bound.is_ok());
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
        authorized.iter().for_each(|connection| self.limit_duration(connection));
        Ok(wire::BindReply { local: Some(to_wire(local)) })
    }

    fn close_all(&self, connection: Option<&Connection>, done: bool) {
        connection.into_iter().for_each(|connection| self.close_act(connection.at, done));
    }

    pub(super) async fn listen(
        self: &Arc<Self>,
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
            secret: None,
            direction: Direction::Inbound,
            protocol: record.socket_type.protocol(),
            local: record.local,
            remote: None,
            name: None,
        };
        let connection = self.authorize(requestor, wish).await?;
        let place = record.local.map(|local| local.to_string()).unwrap_or_default();
        let backlog = if backlog == 0 { BACKLOG_DEFAULT } else { backlog };
        let taken = self.registry.change(|sockets| {
            sockets.go(id, owner, Event::Listen).map(|record| record.connection = Some(connection.clone()))
        });
        if let Err(error) = taken {
            self.close_act(connection.at, false);
            return Err(self.why(id, owner, error).into());
        }
        let done = self.stands(owner, &connection).and_then(|()| match live.bound_to() == record.local {
            true => live.listen(backlog).map_err(|error| NetError::of_io(&error, &place)),
            // The kernel would listen where nobody decided.
            false => Err(NetError::invalid("socket", "it is not bound any more")),
        });
        self.close_act(connection.at, done.is_ok());
        if let Err(error) = done {
            let is_bound = live.bound_to() == record.local || live.renew(record.domain, record.local);
            self.registry.change(|sockets| {
                if let Ok(record) = sockets.find_mut(id, owner)
                    && record.state == SocketState::Listening
                {
                    record.state = if is_bound { SocketState::Bound } else { SocketState::Created };
                    record.local = record.local.filter(|_| is_bound);
                    record.connection = None;
                }
            });
            return Err(self.why(id, owner, error).into());
        }
        self.limit_duration(&connection);
        Ok(wire::ListenReply { local: record.local.map(to_wire), authorized: Some(connection.at.into()) })
    }

    /// Peers that policy does not allow are cut off, and do not end the wait. Policy decides each by where it comes to.
    pub(super) async fn accept(
        self: &Arc<Self>,
        requestor: &Requestor,
        client: &str,
        id: SocketId,
        timeout_ms: u32,
    ) -> Result<wire::AcceptReply, Status> {
        let owner = requestor.id();
        let (record, live) = self.registry.find(id, owner)?;
        if record.state != SocketState::Listening {
            return Err(NetError::WrongState { state: record.state, what: "accept" }.into());
        }
        let listener = live.listener()?;
        let until = Instant::now() + time_limit(timeout_ms);
        loop {
            let next =
                async { listener.accept().await.map_err(|error| NetError::of_io(&error, "accepting")) };
            let left = until.saturating_duration_since(Instant::now());
            let accepted = live.within(left, next).await;
            let (stream, peer) = accepted.map_err(|error| self.why(id, owner, error))?;
            let (network, requestor, client) = (Arc::clone(self), requestor.clone(), client.to_owned());
            // Whoever waits for it may go away; what is on record is carried through all the same.
            let taken =
                kit::uncancelled(async move { network.take(&requestor, &client, id, stream, peer).await });
            if let Some(reply) = taken.await? {
                return Ok(reply);
            }
        }
    }

    /// One that has come; none if it may not.
    async fn take(
        self: &Arc<Self>,
        requestor: &Requestor,
        client: &str,
        listening: SocketId,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Option<wire::AcceptReply>, Status> {
        let owner = requestor.id();
        let (record, _) = self.registry.find(listening, owner)?;
        let wish = Wish {
            secret: None,
            direction: Direction::Inbound,
            protocol: record.socket_type.protocol(),
            local: record.local,
            remote: Some(peer),
            name: None,
        };
        let connection = match self.authorize(requestor, wish).await {
            Ok(connection) => connection,
            Err(refused) => {
                reset(&stream);
                // A no is about this peer; anything else is about all of them.
                return if refused.code() == Code::PermissionDenied { Ok(None) } else { Err(refused) };
            }
        };
        let stream = Arc::new(stream);
        let made = self.make_connected(client, owner, &record, &stream, peer, &connection);
        // The listener may have been cut or closed meanwhile, and what allows it taken back.
        let stands = self.registry.find(listening, owner).and_then(|_| self.stands(owner, &connection));
        self.close_act(connection.at, made.is_ok() && stands.is_ok());
        let new = match (made, stands) {
            (Ok(new), Ok(())) => new,
            (made, stands) => {
                made.iter().for_each(|new| drop(self.registry.remove(*new)));
                reset(&stream);
                return Err(made.err().or(stands.err()).unwrap_or(NetError::ConnectionReset).into());
            }
        };
        self.limit_duration(&connection);
        let authorized = Some(connection.at.into());
        Ok(Some(wire::AcceptReply { socket: new.0, peer: Some(to_wire(peer)), authorized }))
    }

    fn make_connected(
        &self,
        client: &str,
        owner: IdentityId,
        listening: &Record,
        stream: &Arc<TcpStream>,
        peer: SocketAddr,
        connection: &Connection,
    ) -> Result<SocketId, NetError> {
        let live = Live::of(Io::Stream(Arc::clone(stream)));
        let new = self.registry.create(owner, client, listening.domain, SocketType::Stream, live)?;
        self.registry.change(|sockets| {
            let record = sockets.find_mut(new, owner)?;
            record.state = SocketState::Connected;
            record.local = stream.local_addr().ok();
            record.remote = Some(peer);
            record.connection = Some(connection.clone());
            Ok(new)
        })
    }
}
