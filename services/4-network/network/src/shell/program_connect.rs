//! A program's `connect`: decided, on record, and only then carried out, on the program's own socket and this service's own
//! copy of the address. Nothing is kept of the socket once it has answered.

use std::{
    collections::HashSet,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, MutexGuard, PoisonError},
};

use chain::payload::network::{Direction, Protocol};
use contracts::network::v1 as wire;
use rustix::{fs::OFlags, io::Errno};
use sandbox::host_socket;

use super::{
    Network,
    authorize::Wish,
    flows::flow_of,
    live::{Io, Live},
    program::{Held, Program},
    program_socket::{Phase, Refused, Wanted, address_of, connect, ended, finished, phase_of, take_back},
    programs::libc_errno,
};
use crate::core::{
    Connection, Decided, Domain, Event, HostName, NetError, Reach, SocketId, Way, asks_by_name,
};

/// The right to call the kernel's `connect` on one socket, which nobody else has until it is dropped.
struct Claim {
    network: Arc<Network>,
    inode: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.network.claimed().remove(&self.inode);
    }
}

impl Network {
    pub(super) async fn connect_for(
        self: &Arc<Self>,
        program: &Program,
        socket: OwnedFd,
        address: &wire::Address,
    ) -> wire::ProgramAnswer {
        match self.decide_and_connect(program, socket, address).await {
            Ok(own) => wire::ProgramAnswer { own, ..Default::default() },
            Err(Refused { errno, why }) => {
                wire::ProgramAnswer { errno, refused: why.unwrap_or_default(), ..Default::default() }
            }
        }
    }

    /// Whose an address of a loopback is. Nothing is decided: who connects there asks for that.
    pub(super) fn tell_leads(&self, program: &Program, id: u64, address: &wire::Address) {
        let mut answer = wire::ProgramAnswer::default();
        match address_of(address) {
            Some(to) => {
                let shown = SocketAddr::new(to.ip().to_canonical(), to.port());
                let hosts = self.interfaces.addresses();
                answer.own = matches!(program.decide(shown, hosts.as_deref()).reach, Reach::Own);
            }
            None => answer.errno = libc_errno::INVAL,
        }
        program.answer(id, answer, None);
    }

    fn claimed(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None if somebody else has it: of all programs, since a socket can be in the hands of two.
    fn claim(self: &Arc<Self>, inode: u64) -> Option<Claim> {
        self.claimed().insert(inode).then(|| Claim { network: Arc::clone(self), inode })
    }

    /// True if the program's own loopback is meant.
    async fn decide_and_connect(
        self: &Arc<Self>,
        program: &Program,
        socket: OwnedFd,
        address: &wire::Address,
    ) -> Result<bool, Refused> {
        let wanted = Wanted::read(socket, address)?;
        // Held until the answer: while it is decided whereto a socket goes, no other call can send it elsewhere.
        let claim = self.claim(wanted.inode);
        if !host_socket::is_idle(wanted.socket.as_fd()).unwrap_or(false) {
            return self.again(program, &wanted, claim.is_some()).await.map(|()| false);
        }
        let Some(_claim) = claim else { return Err(libc_errno::ALREADY.into()) };
        let hosts = self.interfaces.addresses();
        let Decided { reach, name, asks_for } = program.decide(wanted.shown, hosts.as_deref());
        match reach {
            // What `prove` switched off: policy alone is asked.
            Reach::Own | Reach::Refused(_) if kit::is_broken("egress-list") => {}
            Reach::Own | Reach::Refused(_)
                if program.service().is_some() && kit::is_broken("service-list") => {}
            Reach::Own => return Ok(true),
            Reach::Refused(why) => return Err(Refused { errno: libc_errno::ACCESS, why: Some(why) }),
            Reach::Ask => {}
        }
        let is_early = kit::is_broken("egress-record-first")
            || (program.service().is_some() && kit::is_broken("service-policy"));
        if is_early {
            // What `prove` switched off: somebody hears from us before anything is on record.
            drop(tokio::net::TcpStream::connect(wanted.shown).await);
        }
        let wish = Wish {
            secret: None,
            direction: Direction::Outbound,
            protocol: Protocol::Tcp,
            local: None,
            remote: Some(wanted.shown),
            name: name.as_ref().map(ToString::to_string),
        };
        let connection = self.authorize_program(program.identity, program.process, wish).await?;
        let asks_for = asks_for.iter().filter(|_| asks_by_name(wanted.shown.port()));
        let way = Way::of(&connection.grant, asks_for.map(ToString::to_string).collect());
        let id = match self.enter(program, &wanted, name, &connection) {
            Ok(id) => id,
            Err(error) => {
                self.close_act(connection.at, false);
                return Err(error.into());
            }
        };
        let stands = match program.orders.is_closed() {
            // It ended while this was decided: who takes its rows away may have been here already.
            true => Err(NetError::ConnectionReset),
            false => self.stands(program.identity, &connection),
        };
        let done = match stands {
            Ok(()) => self.carry_out(program, id, &wanted, way).await,
            Err(error) => Err(error.into()),
        };
        let is_under_way = matches!(&done, Err(refused) if refused.errno == libc_errno::INPROGRESS);
        self.close_act(connection.at, done.is_ok() || is_under_way);
        if done.is_ok() || is_under_way {
            self.limit_duration(&connection);
        } else {
            program.forget(wanted.inode, id);
            self.registry.remove(id);
        }
        done.map(|()| false)
    }

    /// Into the table before it is asked whether what allows it still stands, so that nothing slips between.
    fn enter(
        &self,
        program: &Program,
        wanted: &Wanted,
        name: Option<HostName>,
        connection: &Connection,
    ) -> Result<SocketId, NetError> {
        let held = Held { orders: program.orders.clone(), inode: wanted.inode };
        let live = Arc::new(Live::of(Io::Program(held)));
        let id = self.enter_row(program, wanted.domain, wanted.shown, &live, name, connection)?;
        // Of a socket of before with the same number: a relay that still goes for it ends.
        if let Some(before) =
            program.remember(wanted.inode, id, live).and_then(|before| self.registry.remove(before))
        {
            before.cut.send_replace(true);
        }
        Ok(id)
    }

    pub(super) fn enter_row(
        &self,
        program: &Program,
        domain: Domain,
        to: SocketAddr,
        live: &Arc<Live>,
        name: Option<HostName>,
        connection: &Connection,
    ) -> Result<SocketId, NetError> {
        let create = || {
            let (owner, client) = (program.identity, &program.client);
            self.registry.create_flow(owner, client, domain, live)
        };
        // What has been closed counts no longer.
        let id = create().or_else(|error| match error {
            NetError::TooMany(_) if self.may_close_gone() => {
                self.close_all_gone();
                create()
            }
            other => Err(other),
        })?;
        let entered = self.registry.change(|sockets| {
            let record = sockets.go(id, program.identity, Event::Connect)?;
            record.process = program.process;
            record.remote = Some(to);
            record.name = name;
            record.connection = Some(connection.clone());
            Ok::<(), NetError>(())
        });
        // A row that nobody has would count for as long as the program lives.
        entered.inspect_err(|_| drop(self.registry.remove(id)))?;
        Ok(id)
    }

    async fn carry_out(
        self: &Arc<Self>,
        program: &Program,
        id: SocketId,
        wanted: &Wanted,
        way: Way,
    ) -> Result<(), Refused> {
        let (_, live) = self.registry.find(id, program.identity)?;
        let connecting = async {
            Ok::<_, NetError>(match way {
                Way::Direct => connect(&wanted.socket, wanted.to).await,
                Way::Relay(relay) => self.connect_by_relay(program, id, &live, wanted, relay).await,
            })
        };
        let mut done = match live.until_cut(connecting).await {
            Ok(done) => done.map_err(Refused::from),
            Err(error) => Err(error.into()),
        };
        if done.as_ref().err().is_none_or(|refused| refused.errno == libc_errno::INPROGRESS) {
            // Of a relayed one the other end is here.
            let peer = rustix::net::getpeername(&wanted.socket).ok().flatten();
            let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).unwrap_or(wanted.to);
            let flow = flow_of(&wanted.socket, wanted.domain, peer);
            let local = flow.as_ref().ok().map(|flow| flow.local);
            let established = self.registry.change(|sockets| {
                let record = sockets.go(id, program.identity, Event::Established)?;
                record.local = local;
                Ok::<(), NetError>(())
            });
            match (established, flow) {
                (Ok(()), Ok(flow)) => drop(live.flow.set(flow)),
                // It was cut meanwhile, and the monitor may have looked before the kernel began.
                (Err(error), _) => done = Err(error.into()),
                // What cannot be found again is not let out.
                (Ok(()), Err(_)) => done = Err(Errno::CONNABORTED.into()),
            }
        }
        if done.as_ref().is_err_and(|refused| refused.errno != libc_errno::INPROGRESS) {
            take_back(&wanted.socket);
        }
        done
    }

    /// On a socket that is connected or on its way: says where it is. The kernel's `connect` is not called, since the
    /// socket may be idle by then, and this address was never decided. `claimed`: nobody else calls it meanwhile.
    async fn again(&self, program: &Program, wanted: &Wanted, claimed: bool) -> Result<(), Refused> {
        let live = program.known(wanted.inode).map(|id| self.registry.find(id, program.identity));
        let Some(Ok((_, live))) = live else {
            // Nothing says whereto it goes, or what allowed it was taken back.
            take_back(&wanted.socket);
            return Err(live.and_then(Result::err).map_or_else(|| Errno::CONNABORTED.into(), Into::into));
        };
        let waits = !rustix::fs::fcntl_getfl(&wanted.socket)?.contains(OFlags::NONBLOCK);
        let said = match phase_of(&wanted.socket) {
            Phase::Connected => Err(Errno::ISCONN),
            Phase::Going if waits => {
                let ending = async { Ok::<_, NetError>(finished(&wanted.socket, Errno::ALREADY).await) };
                live.until_cut(ending).await?
            }
            Phase::Going => Err(Errno::ALREADY),
            Phase::Closed => Err(ended(&wanted.socket)),
        };
        // As after the kernel's own answer: the next `connect` begins anew.
        if claimed && phase_of(&wanted.socket) == Phase::Closed {
            take_back(&wanted.socket);
        }
        said.map_err(Into::into)
    }
}
