//! What goes through a socket. It was authorised when it was opened; each use looks whether it still is.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use base::IdentityId;
use chain::payload::network::Direction;
use contracts::network::v1 as wire;
use kit::Requestor;
use tonic::Status;

use super::{Network, authorize::Wish, live::Live};
use crate::core::{
    Connection, NetError, Record, SocketId, SocketState, SocketType,
    limits::{DATAGRAM_BYTES_MAX, TIMEOUT_DEFAULT, TRANSFER_BYTES_MAX, time_limit},
    peer_from_wire,
};

/// How much a caller takes at most.
pub(super) fn wanted(max_bytes: u32) -> Result<usize, NetError> {
    let bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    match (1..=TRANSFER_BYTES_MAX).contains(&bytes) {
        true => Ok(bytes),
        false => Err(NetError::invalid("max_bytes", format!("{max_bytes}; it is 1 to {TRANSFER_BYTES_MAX}"))),
    }
}

pub(super) fn may(permitted: bool, what: &str) -> Result<(), NetError> {
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
    pub(super) async fn send(
        &self,
        owner: IdentityId,
        request: &wire::SendRequest,
    ) -> Result<wire::SendReply, NetError> {
        let id = SocketId(request.socket);
        let (record, live) = self.registry.find(id, owner)?;
        let connection = connected(&record, "send")?;
        may(connection.grant.send, "sending")?;
        if record.socket_type == SocketType::Stream && request.data.len() > TRANSFER_BYTES_MAX {
            return Err(NetError::too_long("data", request.data.len()));
        }
        let _room = self.registry.transfer(owner)?;
        let (limit, bandwidth) = (time_limit(request.timeout_ms), connection.grant.bandwidth_limit);
        let sent = match (record.socket_type, record.remote) {
            (SocketType::Stream, _) => send_stream(&live, &request.data, bandwidth, limit).await,
            (SocketType::Datagram, Some(peer)) => {
                send_datagram(&live, peer, &request.data, bandwidth, limit).await
            }
            (SocketType::Datagram, None) => {
                return Err(NetError::WrongState { state: record.state, what: "send" });
            }
        };
        let sent = sent.map_err(|error| self.why(id, owner, error))?;
        live.count(sent, 0);
        Ok(wire::SendReply { sent: u32::try_from(sent).unwrap_or(u32::MAX) })
    }

    pub(super) async fn recv(
        &self,
        owner: IdentityId,
        request: wire::RecvRequest,
    ) -> Result<Vec<u8>, NetError> {
        let id = SocketId(request.socket);
        let (record, live) = self.registry.find(id, owner)?;
        let connection = connected(&record, "receive")?;
        may(connection.grant.recv, "receiving")?;
        let (most, limit) = (wanted(request.max_bytes)?, time_limit(request.timeout_ms));
        if record.socket_type == SocketType::Datagram {
            return self.recv_datagram(id, owner, most, limit).await.map(|(data, _)| data);
        }
        let _room = self.registry.transfer(owner)?;
        let received = recv_stream(&live, most, connection.grant.bandwidth_limit, limit).await;
        let data = received.map_err(|error| self.why(id, owner, error))?;
        live.count(0, data.len());
        Ok(data)
    }

    /// A bound socket hears everybody, another only those that it was authorised to send to, and to hear.
    pub(super) async fn recv_datagram(
        &self,
        id: SocketId,
        owner: IdentityId,
        most: usize,
        limit: Duration,
    ) -> Result<(Vec<u8>, SocketAddr), NetError> {
        let (record, live) = self.registry.find(id, owner)?;
        let socket = live.datagram().map_err(|error| self.why(id, owner, error))?;
        if let Some(connection) = &record.connection {
            may(connection.grant.recv, "receiving")?;
        }
        let _room = self.registry.transfer(owner)?;
        // One byte more, to see that there was more.
        let mut buffer = vec![0; most + 1];
        // Asked anew for each: peers come and go.
        let bandwidth_from = |peer: &SocketAddr| match (record.remote, &record.connection) {
            (Some(remote), Some(connection)) => (*peer == remote).then_some(connection.grant.bandwidth_limit),
            (Some(_), None) => None,
            (None, Some(connection)) => Some(connection.grant.bandwidth_limit),
            (None, None) => self.registry.read(|sockets, _| {
                let known = sockets.find(id, owner).ok()?.peers.get(peer).filter(|known| known.grant.recv)?;
                Some(known.grant.bandwidth_limit)
            }),
        };
        let work = async {
            loop {
                let received = socket.recv_from(&mut buffer).await;
                let (bytes, peer) = received.map_err(|error| NetError::of_io(&error, "receiving"))?;
                let Some(bandwidth) = bandwidth_from(&peer) else { continue };
                // What was taken is told to those who come next; to wait now could lose it.
                live.charge(bytes, bandwidth);
                return Ok((bytes, peer));
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

    pub(super) async fn send_to(
        self: &Arc<Self>,
        requestor: &Requestor,
        request: wire::SendToRequest,
    ) -> Result<wire::SendReply, Status> {
        let (id, owner) = (SocketId(request.socket), requestor.id());
        let (record, live) = self.registry.find(id, owner)?;
        if record.socket_type != SocketType::Datagram {
            return Err(NetError::invalid("socket", "a stream is connected first").into());
        }
        let peer = peer_from_wire(request.address, record.domain)?;
        let connection = match record.peers.get(&peer) {
            Some(known) => known.clone(),
            None => self.new_peer(requestor, id, &record, peer).await?,
        };
        may(connection.grant.send, "sending")?;
        let _room = self.registry.transfer(owner)?;
        let bandwidth = connection.grant.bandwidth_limit;
        let sent = send_datagram(&live, peer, &request.data, bandwidth, TIMEOUT_DEFAULT).await;
        let sent = sent.map_err(|error| self.why(id, owner, error))?;
        live.count(sent, 0);
        Ok(wire::SendReply { sent: u32::try_from(sent).unwrap_or(u32::MAX) })
    }

    /// The first datagram to somebody is a connect.
    async fn new_peer(
        self: &Arc<Self>,
        requestor: &Requestor,
        id: SocketId,
        record: &Record,
        peer: SocketAddr,
    ) -> Result<Connection, Status> {
        let wish = Wish {
            secret: None,
            direction: Direction::Outbound,
            protocol: record.socket_type.protocol(),
            local: record.local,
            remote: Some(peer),
            name: None,
        };
        let owner = requestor.id();
        let asked = self.authorize(requestor, wish).await?;
        let added = self.registry.change(|sockets| sockets.add_peer(id, owner, peer, asked.clone()));
        let counts = added.and_then(|counts| self.stands(owner, &counts).map(|()| counts));
        // Of two that were authorised at once the first counts.
        let is_this = counts.as_ref().is_ok_and(|counts| counts.id == asked.id);
        self.close_act(asked.at, is_this);
        match &counts {
            Ok(_) if is_this => self.limit_duration(&asked),
            Ok(_) => {}
            Err(error) => self.registry.end(&asked.id, &error.to_string()),
        }
        Ok(counts?)
    }
}

async fn send_stream(live: &Live, data: &[u8], bandwidth: u64, limit: Duration) -> Result<usize, NetError> {
    let stream = live.stream()?;
    let work = async {
        live.room(bandwidth).await;
        loop {
            match stream.try_write(data) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    stream.writable().await.map_err(|error| NetError::of_io(&error, "sending"))?;
                }
                other => return other.map_err(|error| NetError::of_io(&error, "sending")),
            }
        }
    };
    let sent = live.within(limit, work).await?;
    live.charge(sent, bandwidth);
    Ok(sent)
}

async fn recv_stream(live: &Live, most: usize, bandwidth: u64, limit: Duration) -> Result<Vec<u8>, NetError> {
    let stream = live.stream()?;
    let mut buffer = vec![0; most];
    let work = async {
        live.room(bandwidth).await;
        loop {
            match stream.try_read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    stream.readable().await.map_err(|error| NetError::of_io(&error, "receiving"))?;
                }
                other => return other.map_err(|error| NetError::of_io(&error, "receiving")),
            }
        }
    };
    let bytes = live.within(limit, work).await?;
    live.charge(bytes, bandwidth);
    buffer.truncate(bytes);
    Ok(buffer)
}

async fn send_datagram(
    live: &Live,
    peer: SocketAddr,
    data: &[u8],
    bandwidth: u64,
    limit: Duration,
) -> Result<usize, NetError> {
    if data.len() > DATAGRAM_BYTES_MAX {
        let text = format!("{} bytes, a datagram has at most {DATAGRAM_BYTES_MAX}", data.len());
        return Err(NetError::invalid("data", text));
    }
    let socket = live.datagram()?;
    let sending = async {
        live.room(bandwidth).await;
        socket.send_to(data, peer).await.map_err(|error| NetError::of_io(&error, &peer.to_string()))
    };
    let sent = live.within(limit, sending).await?;
    live.charge(sent, bandwidth);
    Ok(sent)
}
