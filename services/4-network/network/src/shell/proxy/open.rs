//! The one way of what is asked of the proxy: rules by URL, then how often, then the places of the program, then policy and the
//! record, and only then the first packet. It is held like what the program connects itself, and carried by the relay.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
};

use chain::payload::network::{Direction, Protocol};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, task::AbortHandle};

use super::Proxied;
use crate::{
    core::{
        CallError, Connection, Decided, Domain, Event, HostName, NetError, Reach, Relay, SocketId, Target,
        User, asks_by_name,
        limits::{ADDRESSES_TRIED_MAX, PROXY_CONNECT_TIMEOUT},
    },
    shell::{
        Network,
        authorize::Wish,
        calls::failed,
        flows::flow_of,
        live::{Io, Live},
        program::Program,
        relay::{Drain, Relayed, Side, reach, room},
    },
};

/// A connection to where it was asked for, until it is dropped.
pub(super) struct Opened {
    network: Arc<Network>,
    program: Arc<Program>,
    id: SocketId,
    inode: u64,
    live: Arc<Live>,
    /// What allows it.
    pub(super) connection: Connection,
    /// Until somebody carries it, and whereto it leads.
    pub(super) there: Option<(TcpStream, SocketAddr)>,
    pub(super) relay: Relay,
    _relayed: Relayed,
    /// Of one over which nothing is asked it is another's.
    pub(super) room: Option<[OwnedSemaphorePermit; 2]>,
}

impl Opened {
    pub(super) fn id(&self) -> SocketId {
        self.id
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Both ways, until one has said all or it is cut. `begun`: what was said already.
    pub(super) async fn carry(mut self, here: impl Side + 'static, begun: Vec<u8>) {
        let Some((there, _)) = self.there.take() else { return };
        let (program, live) = (Arc::clone(&self.program), Arc::clone(&self.live));
        let carrying = tokio::spawn(async move {
            self.network.carry(self.id, &self.live, (here, begun), there, &self.relay, Drain::PROXIED).await;
        });
        let _ends = Ends { program, live, carrying: carrying.abort_handle() };
        let _ = carrying.await;
    }
}

/// Ends what is carried when nobody waits for it any more.
struct Ends {
    program: Arc<Program>,
    live: Arc<Live>,
    carrying: AbortHandle,
}

impl Drop for Ends {
    fn drop(&mut self) {
        match self.program.orders.is_closed() {
            // Its program has ended: as of what it connects itself, nothing that is queued is delivered any more.
            true => self.live.cut(),
            false => self.carrying.abort(),
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.network.calls.release(self.id);
        self.program.forget(self.inode, self.id);
        self.network.registry.remove(self.id);
    }
}

pub(super) fn denied(text: impl Into<String>) -> CallError {
    CallError::PolicyDenied(text.into())
}

pub(super) fn too_many() -> CallError {
    CallError::Other("too many connections are carried for it, or for all".to_owned())
}

/// None of an address.
pub(super) fn name_in(target: &Target) -> Result<Option<HostName>, CallError> {
    match target.address() {
        Some(_) => Ok(None),
        None => {
            let name = target.host().parse();
            name.map(Some).map_err(|error| CallError::InvalidUrl(format!("{:?}: {error}", target.host())))
        }
    }
}

impl Proxied {
    /// May this be asked for, and how often? Sends nothing.
    pub(super) fn judge(&self, target: &Target) -> Result<User, CallError> {
        self.network.calls.judge(&self.program.client, target)
    }

    /// To be called with what [`Proxied::judge`] said. `secret`: by its name, what is put into what is asked there.
    pub(super) async fn open(
        &self,
        user: User,
        target: &Target,
        secret: Option<&str>,
    ) -> Result<Opened, CallError> {
        let addresses = match (target.address(), name_in(target)?) {
            (_, Some(name)) => self.network.addresses_of(&self.program, &name).await?,
            (address, None) => address.into_iter().collect(),
        };
        let mut last = None;
        for ip in addresses.into_iter().take(ADDRESSES_TRIED_MAX) {
            let (this, user, target) = (self.clone(), user.clone(), target.clone());
            let secret = secret.map(str::to_owned);
            // What is on record is carried through, whoever waits for it: who has gone lets go of what was made.
            let opened = kit::uncancelled(async move { this.open_at(user, &target, ip, secret).await }).await;
            match opened {
                Ok(opened) => return Ok(opened),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| CallError::Dns(format!("{} has no address", target.host()))))
    }

    /// Whether the places of the program lead there: by which name, and for whom its first bytes have to ask.
    pub(super) fn leads_to(
        &self,
        target: &Target,
        to: SocketAddr,
        hosts: Option<&[IpAddr]>,
    ) -> Result<(Option<HostName>, Vec<String>), CallError> {
        let (program, name) = (&self.program, name_in(target)?);
        let Decided { reach: decided, name: answered, asks_for } = match &name {
            Some(name) => program.places.decide(to, hosts, [name]),
            None => program.decide(to, hosts),
        };
        match decided {
            Reach::Ask => {}
            // What `prove` switched off: policy alone is asked.
            Reach::Own | Reach::Refused(_) if kit::is_broken("proxy-places") => {}
            Reach::Own => {
                return Err(denied(format!("{to} is the program's own loopback, to which no proxy leads")));
            }
            Reach::Refused(why) => return Err(denied(why)),
        }
        // Who was asked for by name is asked for by name there, too, whatever place covers the address.
        let asked: Vec<HostName> = name.iter().cloned().collect();
        let asked = if name.is_some() { asked } else { asks_for };
        let names = asked.iter().filter(|_| asks_by_name(to.port())).map(ToString::to_string).collect();
        Ok((name.or(answered), names))
    }

    async fn open_at(
        &self,
        user: User,
        target: &Target,
        ip: IpAddr,
        secret: Option<String>,
    ) -> Result<Opened, CallError> {
        let (network, program, to) = (&self.network, &self.program, SocketAddr::new(ip, target.port()));
        let room = room(&network.relays, &program.relays).map_err(|_| too_many())?;
        let hosts = network.interfaces.addresses();
        let (name, names) = self.leads_to(target, to, hosts.as_deref())?;
        let wish = Wish {
            direction: Direction::Outbound,
            protocol: Protocol::Tcp,
            local: None,
            remote: Some(to),
            name: name.as_ref().map(ToString::to_string),
            secret: secret.clone(),
        };
        let connection = network
            .authorize_program(program.identity, program.process, wish)
            .await
            .map_err(|status| failed(&status))?;
        let grant = connection.grant;
        let relay =
            Relay { names, send: grant.send, recv: grant.recv, bandwidth_limit: grant.bandwidth_limit };
        let domain = if to.is_ipv4() { Domain::Inet } else { Domain::Inet6 };
        let live = Arc::new(Live::of(Io::Away));
        // In the table it is one whose end is waited for, from the first moment on.
        live.set_relayed(true);
        let entered = network.enter_row(program, domain, to, &live, name, &connection);
        let opened = match entered {
            Ok(id) => {
                let relayed = Relayed::new(network, id, &live);
                network.registry.change(|sockets| sockets.tell_secret(id, secret));
                // It stands in the table before it is asked: no change of the policy slips between.
                network.calls.hold(id, user, target.clone(), ip, program);
                let made = match network.stands(program.identity, &connection) {
                    Ok(()) => self.connect(id, &live, domain, to).await,
                    Err(error) => Err(error),
                };
                match made {
                    Ok((there, inode)) => Ok(Opened {
                        network: Arc::clone(network),
                        program: Arc::clone(program),
                        id,
                        inode,
                        live,
                        connection: connection.clone(),
                        there: Some((there, to)),
                        relay,
                        _relayed: relayed,
                        room: Some(room),
                    }),
                    Err(error) => {
                        network.calls.release(id);
                        network.registry.remove(id);
                        Err(error)
                    }
                }
            }
            Err(error) => Err(error),
        };
        network.close_act(connection.at, opened.is_ok());
        if opened.is_ok() {
            network.limit_duration(&connection);
        }
        opened.map_err(|error| failed(&error.into()))
    }

    async fn connect(
        &self,
        id: SocketId,
        live: &Arc<Live>,
        domain: Domain,
        to: SocketAddr,
    ) -> Result<(TcpStream, u64), NetError> {
        let (network, program) = (&self.network, &self.program);
        let hosts = network.interfaces.addresses();
        let still = network.calls.still_held(id, hosts.as_deref());
        // What `prove` switched off is not said here either.
        if !kit::is_broken("proxy-rules") {
            still.map_err(|error| NetError::PermissionDenied(error.to_string()))?;
        }
        let io = |error: std::io::Error| NetError::of_io(&error, &to.to_string());
        let connecting = async { reach(to, PROXY_CONNECT_TIMEOUT).await.map_err(|errno| io(errno.into())) };
        let there = live.until_cut(connecting).await?;
        let socket = there.as_fd().try_clone_to_owned().map_err(io)?;
        let flow = flow_of(&socket, domain, to).map_err(io)?;
        let inode = rustix::fs::fstat(&socket).map_err(|errno| io(errno.into()))?.st_ino;
        network.registry.change(|sockets| {
            let record = sockets.go(id, program.identity, Event::Established)?;
            record.local = Some(flow.local);
            Ok::<(), NetError>(())
        })?;
        // Set once: this row is new.
        let _ = live.flow.set(flow);
        program.remember(inode, id, Arc::clone(live));
        // It ended while this was made: who takes its rows away may have been here already.
        match program.orders.is_closed() {
            true => Err(NetError::ConnectionReset),
            false => Ok((there, inode)),
        }
    }
}
