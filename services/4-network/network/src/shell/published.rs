//! Whoever comes to what is published of a service: decided as the service's `Listen`, on record with the peer, and only then carried to
//! the program, by a relay. Nothing of it is heard before.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use chain::payload::network::{Direction, Protocol};
use contracts::network::v1 as wire;
use rustix::net::{SocketType as KernelType, sockopt};
use tokio::{io::Interest, net::TcpStream};
use tonic::Code;

use super::{
    Network,
    authorize::Wish,
    flows::flow_of,
    live::{Io, Live, reset},
    program::Program,
    program_socket::address_of,
    relay::{Drain, Relayed, room},
};
use crate::core::{Connection, Domain, Event, NetError, Relay, SocketId};

/// One who has come.
struct Came {
    listens: SocketAddr,
    peer: SocketAddr,
    /// The same as rules and people read it: what came by IPv4 to a socket of both is no address of IPv6.
    shown: SocketAddr,
    there: TcpStream,
    /// On its way to the program.
    here: TcpStream,
    inode: u64,
}

impl Came {
    fn read(came: &wire::ProgramCame, fds: Vec<OwnedFd>) -> Option<Self> {
        let [accepted, own] = <[OwnedFd; 2]>::try_from(fds).ok()?;
        let listens = address_of(came.listens.as_ref()?)?;
        let inode = rustix::fs::fstat(&accepted).ok()?.st_ino;
        let there = stream_of(accepted)?;
        let peer = there.peer_addr().ok()?;
        Some(Self { listens, peer, shown: canonical(peer), there, here: stream_of(own)?, inode })
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        // With its scope.
        IpAddr::V6(_) => address,
    }
}

fn stream_of(socket: OwnedFd) -> Option<TcpStream> {
    if !matches!(sockopt::socket_type(&socket), Ok(KernelType::STREAM)) {
        return None;
    }
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(true).ok()?;
    TcpStream::from_std(stream).ok()
}

impl Network {
    /// Whom there is no room for is closed at once.
    pub(super) fn start_came(
        self: &Arc<Self>,
        program: &Arc<Program>,
        came: &wire::ProgramCame,
        fds: Vec<OwnedFd>,
    ) {
        let Some(came) = Came::read(came, fds) else { return };
        if !program.may_connect() {
            return reset(&came.there);
        }
        let Ok(room) = room(&self.relays, &program.relays) else { return reset(&came.there) };
        let (network, program) = (Arc::clone(self), Arc::clone(program));
        tokio::spawn(async move {
            network.let_in(&program, came).await;
            drop(room);
        });
    }

    async fn let_in(self: &Arc<Self>, program: &Arc<Program>, came: Came) {
        let wish = Wish {
            secret: None,
            direction: Direction::Inbound,
            protocol: Protocol::Tcp,
            local: Some(came.listens),
            remote: Some(came.shown),
            name: None,
        };
        let connection = match self.authorize_program(program.identity, program.process, wish).await {
            Ok(connection) => connection,
            Err(refused) => {
                if refused.code() != Code::PermissionDenied {
                    tracing::warn!(client = program.client, %refused, "somebody is not let in");
                }
                if kit::is_broken("service-let-in") {
                    // What `prove` switched off: whoever is refused is carried all the same.
                    let Came { mut there, mut here, .. } = came;
                    let _ = tokio::io::copy_bidirectional(&mut there, &mut here).await;
                    return;
                }
                return reset(&came.there);
            }
        };
        let live = Arc::new(Live::of(Io::Away));
        // In the table it is one whose end is waited for, from the first moment on.
        live.set_relayed(true);
        let domain = if came.peer.is_ipv4() { Domain::Inet } else { Domain::Inet6 };
        let id = match self.enter_row(program, domain, came.shown, &live, None, &connection) {
            Ok(id) => id,
            Err(error) => {
                tracing::warn!(client = program.client, %error, "somebody is not let in");
                self.close_act(connection.at, false);
                return reset(&came.there);
            }
        };
        let relayed = Relayed::new(self, id, &live);
        let done = self.join(program, &came, id, &live, domain, &connection).await;
        self.close_act(connection.at, done.is_ok());
        let Came { there, here, inode, .. } = came;
        match done {
            Ok(()) => {
                self.limit_duration(&connection);
                let grant = connection.grant;
                let names = Vec::new();
                let (send, recv, bandwidth_limit) = (grant.send, grant.recv, grant.bandwidth_limit);
                let relay = Relay { names, send, recv, bandwidth_limit };
                self.carry(id, &live, (here, Vec::new()), there, &relay, Drain::PROXIED).await;
            }
            Err(error) => {
                tracing::debug!(client = program.client, %error, "somebody was let in and not reached");
                reset(&there);
            }
        }
        program.forget(inode, id);
        self.registry.remove(id);
        drop(relayed);
    }

    /// It stands in the table before it is asked whether what allows it still does.
    async fn join(
        &self,
        program: &Program,
        came: &Came,
        id: SocketId,
        live: &Arc<Live>,
        domain: Domain,
        connection: &Connection,
    ) -> Result<(), NetError> {
        self.stands(program.identity, connection)?;
        let io = |error: std::io::Error| NetError::of_io(&error, "reaching the program");
        live.until_cut(async { came.here.ready(Interest::WRITABLE).await.map(drop).map_err(io) }).await?;
        if let Some(error) = came.here.take_error().map_err(io)? {
            return Err(io(error));
        }
        let socket = came.there.as_fd().try_clone_to_owned().map_err(io)?;
        let flow = flow_of(&socket, domain, came.peer).map_err(io)?;
        self.registry.change(|sockets| {
            let record = sockets.go(id, program.identity, Event::Established)?;
            record.local = Some(canonical(flow.local));
            Ok::<(), NetError>(())
        })?;
        // Set once: this row is new.
        let _ = live.flow.set(flow);
        program.remember(came.inode, id, Arc::clone(live));
        // It ended while this was made: who takes its rows away may have been here already.
        match program.orders.is_closed() {
            true => Err(NetError::ConnectionReset),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_by_ipv4_is_an_address_of_ipv4() {
        for (from, shown) in [
            ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("[fe80::1%3]:80", "[fe80::1%3]:80"),
        ] {
            assert_eq!(canonical(from.parse().unwrap()).to_string(), shown);
        }
    }
}
