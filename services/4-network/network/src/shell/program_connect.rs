//! A program's `connect`: decided, on record, and only then carried out, on the program's own socket and this service's own
//! copy of the address. Nothing is kept of the socket once it has answered.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, MutexGuard, OnceLock, PoisonError},
};

use chain::payload::network::{Direction, Protocol};
use contracts::network::v1 as wire;
use rustix::{
    fs::OFlags,
    io::Errno,
    net::{AddressFamily, SocketType as KernelType, sockopt},
};
use sandbox::host_socket;
use tokio::io::{Interest, unix::AsyncFd};
use tonic::{Code, Status};

use super::{
    Network,
    authorize::Wish,
    flows::flow_of,
    live::{Io, Live, reset},
    program::{Held, Program},
    programs::libc_errno,
};
use crate::core::{
    Connection, Decided, Domain, Event, HostName, NetError, Reach, SocketId, Way, asks_by_name,
};

/// What the program hears.
struct Refused {
    errno: u32,
    /// For the operator, if somebody said no.
    why: Option<String>,
}

impl From<u32> for Refused {
    fn from(errno: u32) -> Self {
        Self { errno, why: None }
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        errno.raw_os_error().unsigned_abs().into()
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::PermissionDenied => {
                Self { errno: libc_errno::ACCESS, why: Some(status.message().to_owned()) }
            }
            Code::ResourceExhausted => libc_errno::AGAIN.into(),
            _ => libc_errno::NETDOWN.into(),
        }
    }
}

impl From<NetError> for Refused {
    fn from(error: NetError) -> Self {
        match error {
            // It was cut, as one would be that its peer had given up.
            NetError::ConnectionReset => Errno::CONNABORTED.into(),
            other => Status::from(other).into(),
        }
    }
}

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

/// Where a socket of TCP is between two calls of `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Going,
    Connected,
}

fn phase_of(socket: &OwnedFd) -> Phase {
    match rustix::net::getpeername(socket) {
        Ok(_) => Phase::Connected,
        Err(_) if host_socket::is_idle(socket.as_fd()).unwrap_or(true) => Phase::Closed,
        Err(_) => Phase::Going,
    }
}

/// A socket of TCP that this service has made.
pub(super) struct Wanted {
    pub(super) socket: OwnedFd,
    pub(super) domain: Domain,
    inode: u64,
    /// For the kernel.
    to: SocketAddr,
    /// For rules: no host has two addresses.
    pub(super) shown: SocketAddr,
}

impl Wanted {
    fn read(socket: OwnedFd, address: &wire::Address) -> Result<Self, Refused> {
        let is_stream = sockopt::socket_type(&socket)? == KernelType::STREAM;
        let domain = match sockopt::socket_domain(&socket)? {
            AddressFamily::INET => Domain::Inet,
            AddressFamily::INET6 => Domain::Inet6,
            _ => return Err(libc_errno::AFNOSUPPORT.into()),
        };
        let networks = (host_socket::network_of(socket.as_fd()), own_network());
        if !is_stream || !matches!(networks, (Ok(one), Ok(own)) if one == own) {
            return Err(libc_errno::INVAL.into());
        }
        let to = address_of(address).ok_or(libc_errno::INVAL)?;
        if to.is_ipv4() != (domain == Domain::Inet) {
            return Err(libc_errno::AFNOSUPPORT.into());
        }
        let shown = match (to.ip().to_canonical(), to) {
            (ip @ IpAddr::V4(_), _) => SocketAddr::new(ip, to.port()),
            // What the kernel looks at on one interface alone says nothing elsewhere.
            (_, SocketAddr::V6(v6)) if v6.scope_id() != 0 && !v6.ip().is_unicast_link_local() => {
                return Err(libc_errno::INVAL.into());
            }
            _ => to,
        };
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        Ok(Self { socket, domain, inode, to, shown })
    }
}

/// That of this service is the host's, and it never goes to another.
fn own_network() -> io::Result<u64> {
    static OWN: OnceLock<u64> = OnceLock::new();
    match OWN.get() {
        Some(own) => Ok(*own),
        None => host_socket::own_network().map(|own| *OWN.get_or_init(|| own)),
    }
}

#[cfg(test)]
impl Wanted {
    pub(super) fn for_test(socket: OwnedFd, domain: Domain, to: SocketAddr) -> Self {
        Self { socket, domain, inode: 0, to, shown: to }
    }
}

pub(super) fn address_of(address: &wire::Address) -> Option<SocketAddr> {
    let port = u16::try_from(address.port).ok()?;
    if let Ok(v4) = <[u8; 4]>::try_from(address.ip.as_slice()) {
        return Some(SocketAddr::from((v4, port)));
    }
    let v6 = <[u8; 16]>::try_from(address.ip.as_slice()).ok()?;
    (address.flowinfo == 0).then(|| SocketAddrV6::new(v6.into(), port, 0, address.scope_id).into())
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

/// As the program would have it: one that waits for nothing hears that it is under way.
pub(super) async fn connect(socket: &OwnedFd, to: SocketAddr) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(socket)?;
    let waits = !flags.contains(OFlags::NONBLOCK);
    // The flag is the socket's, not this descriptor's: it is back before anybody can mind.
    if waits {
        rustix::fs::fcntl_setfl(socket, flags | OFlags::NONBLOCK)?;
    }
    let first = rustix::net::connect(socket, &to);
    if waits {
        rustix::fs::fcntl_setfl(socket, flags)?;
    }
    match first {
        Err(Errno::INPROGRESS) if waits => finished(socket, Errno::INPROGRESS).await,
        other => other,
    }
}

/// Waits for the end of a connect that is under way, within the time that the program has set; `late` is said after it.
/// Only looks: another thread of the program can have made the socket idle, and a `connect` would set out again.
async fn finished(socket: &OwnedFd, late: Errno) -> Result<(), Errno> {
    let limit = sockopt::socket_timeout(socket, sockopt::Timeout::Send)?;
    let watched = watch(socket.as_fd())?;
    let ending = async {
        loop {
            let mut ready = watched.writable().await.map_err(|_| Errno::IO)?;
            match phase_of(socket) {
                Phase::Connected => return Ok(()),
                Phase::Going => ready.clear_ready(),
                Phase::Closed => return Err(ended(socket)),
            }
        }
    };
    match limit {
        Some(limit) => tokio::time::timeout(limit, ending).await.unwrap_or(Err(late)),
        None => ending.await,
    }
}

/// Why a connect that was under way is no more; told once, as the kernel does.
fn ended(socket: &OwnedFd) -> Errno {
    match sockopt::socket_error(socket) {
        Ok(Err(why)) => why,
        _ => Errno::CONNABORTED,
    }
}

/// Nothing of a connect that failed goes on, and the next one finds the socket as if this one had not been.
fn take_back(socket: &OwnedFd) {
    let linger = sockopt::socket_linger(socket);
    reset(socket);
    if let Ok(linger) = linger {
        let _ = sockopt::set_socket_linger(socket, linger);
    }
    // What the reset left is not the next connect's.
    let _ = sockopt::socket_error(socket);
}

#[expect(
    deprecated,
    reason = "the form without the warning is unsafe; this one borrows a descriptor that outlives it"
)]
fn watch(socket: std::os::fd::BorrowedFd<'_>) -> Result<AsyncFd<std::os::fd::BorrowedFd<'_>>, Errno> {
    AsyncFd::with_interest(socket, Interest::WRITABLE).map_err(|_| Errno::NFILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SocketFlags, socket_with};
    use std::net::TcpListener;

    fn wanted(to: SocketAddr) -> Wanted {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, KernelType::STREAM, flags, None).unwrap();
        Wanted::for_test(socket, Domain::Inet, to)
    }

    /// Takes no more connections: what asks for one hears nothing.
    fn full() -> (OwnedFd, SocketAddr, Vec<Wanted>) {
        let flags = SocketFlags::CLOEXEC;
        let listener = socket_with(AddressFamily::INET, KernelType::STREAM, flags, None).unwrap();
        rustix::net::bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let place = SocketAddr::try_from(rustix::net::getsockname(&listener).unwrap()).unwrap();
        let fillers = (0..4).map(|_| {
            let filler = wanted(place);
            let _ = rustix::net::connect(&filler.socket, &place);
            filler
        });
        let fillers = fillers.collect();
        (listener, place, fillers)
    }

    #[tokio::test]
    async fn who_waits_for_a_connect_hears_that_it_was_broken_off_and_sends_nothing() {
        let (_listener, place, _fillers) = full();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = wanted(place);
        assert_eq!(phase_of(&one.socket), Phase::Closed);
        assert_eq!(connect(&one.socket, one.to).await, Err(Errno::INPROGRESS));
        assert_eq!(phase_of(&one.socket), Phase::Going);
        // The same socket, with an address that nobody has decided.
        let undecided = Wanted {
            socket: one.socket.try_clone().unwrap(),
            to: other.local_addr().unwrap(),
            ..wanted(place)
        };
        let break_off = async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            rustix::net::shutdown(&one.socket, rustix::net::Shutdown::Both).unwrap();
        };
        let (heard, ()) = tokio::join!(finished(&undecided.socket, Errno::ALREADY), break_off);
        assert!(matches!(heard, Err(Errno::CONNRESET | Errno::CONNABORTED)), "{heard:?}");
        assert_eq!(phase_of(&one.socket), Phase::Closed);
        other.set_nonblocking(true).unwrap();
        assert!(other.accept().is_err());
    }

    #[tokio::test]
    async fn what_is_taken_back_can_be_used_again_and_lingers_as_before() {
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let one = wanted(refusing);
        let heard = match connect(&one.socket, one.to).await {
            Err(Errno::INPROGRESS) => finished(&one.socket, Errno::INPROGRESS).await,
            other => other,
        };
        assert_eq!(heard, Err(Errno::CONNREFUSED));
        take_back(&one.socket);
        assert_eq!(sockopt::socket_linger(&one.socket), Ok(None));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let again = Wanted { to: listener.local_addr().unwrap(), ..one };
        let heard = match connect(&again.socket, again.to).await {
            Err(Errno::INPROGRESS) => finished(&again.socket, Errno::INPROGRESS).await,
            other => other,
        };
        assert_eq!((heard, phase_of(&again.socket)), (Ok(()), Phase::Connected));
        take_back(&again.socket);
        assert_eq!(phase_of(&again.socket), Phase::Closed);
        let (mut peer, _) = listener.accept().unwrap();
        let read = std::io::Read::read(&mut peer, &mut [0; 1]);
        assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
}
