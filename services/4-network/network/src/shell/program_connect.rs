//! A program's `connect`: decided, on record, and only then carried out, on the program's own socket and this service's own
//! copy of the address. Nothing is kept of the socket once it has answered.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
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
    live::{Io, Live},
    programs::{Held, Program, libc_errno},
};
use crate::core::{Connection, Domain, Event, NetError, Reach, SocketId, SocketType};

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
        Status::from(error).into()
    }
}

/// A socket of TCP that this service has made.
struct Wanted {
    socket: OwnedFd,
    domain: Domain,
    inode: u64,
    /// For the kernel.
    to: SocketAddr,
    /// For rules: no host has two addresses.
    shown: SocketAddr,
}

impl Wanted {
    fn read(socket: OwnedFd, address: &wire::Address) -> Result<Self, Refused> {
        let is_stream = sockopt::socket_type(&socket)? == KernelType::STREAM;
        let domain = match sockopt::socket_domain(&socket)? {
            AddressFamily::INET => Domain::Inet,
            AddressFamily::INET6 => Domain::Inet6,
            _ => return Err(libc_errno::AFNOSUPPORT.into()),
        };
        let networks = (host_socket::network_of(socket.as_fd()), host_socket::own_network());
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

fn address_of(address: &wire::Address) -> Option<SocketAddr> {
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
                wire::ProgramAnswer { errno, own: false, refused: why.unwrap_or_default() }
            }
        }
    }

    /// True if the program's own loopback is meant.
    async fn decide_and_connect(
        self: &Arc<Self>,
        program: &Program,
        socket: OwnedFd,
        address: &wire::Address,
    ) -> Result<bool, Refused> {
        let wanted = Wanted::read(socket, address)?;
        if !host_socket::is_idle(wanted.socket.as_fd()).unwrap_or(false) {
            // It is connected or on its way: asking again sends nothing.
            return again(&wanted).await.map(|()| false);
        }
        match program.places.reach(wanted.shown) {
            // What `prove` switched off: policy alone is asked.
            Reach::Own | Reach::Refused(_) if kit::is_broken("egress-list") => {}
            Reach::Own => return Ok(true),
            Reach::Refused(why) => return Err(Refused { errno: libc_errno::ACCESS, why: Some(why) }),
            Reach::Ask => {}
        }
        if kit::is_broken("egress-record-first") {
            // What `prove` switched off: somebody hears from us before anything is on record.
            drop(tokio::net::TcpStream::connect(wanted.shown).await);
        }
        let wish = Wish {
            direction: Direction::Outbound,
            protocol: Protocol::Tcp,
            local: None,
            remote: Some(wanted.shown),
        };
        let connection = self.authorize_program(program.identity, program.process, wish).await?;
        let id = match self.enter(program, &wanted, &connection) {
            Ok(id) => id,
            Err(error) => {
                self.close_act(connection.at, false);
                return Err(error.into());
            }
        };
        let done = match self.stands(program.identity, &connection) {
            Ok(()) => self.carry_out(program, id, &wanted).await,
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
        connection: &Connection,
    ) -> Result<SocketId, NetError> {
        let held = Held { orders: program.orders.clone(), inode: wanted.inode };
        let live = Live::of(Io::Program(held));
        let id = self.registry.create(
            program.identity,
            &program.client,
            wanted.domain,
            SocketType::Stream,
            live,
        )?;
        self.registry.change(|sockets| {
            let record = sockets.go(id, program.identity, Event::Connect)?;
            record.process = program.process;
            record.remote = Some(wanted.shown);
            record.connection = Some(connection.clone());
            Ok::<(), NetError>(())
        })?;
        if let Some(before) = program.remember(wanted.inode, id) {
            self.registry.remove(before);
        }
        Ok(id)
    }

    async fn carry_out(&self, program: &Program, id: SocketId, wanted: &Wanted) -> Result<(), Refused> {
        let (_, live) = self.registry.find(id, program.identity)?;
        let connecting = async { Ok::<_, NetError>(connect(wanted).await) };
        let done = live.until_cut(connecting).await?;
        if matches!(done, Ok(()) | Err(Errno::INPROGRESS)) {
            let local = rustix::net::getsockname(&wanted.socket).ok();
            let local = local.and_then(|local| SocketAddr::try_from(local).ok());
            self.registry.change(|sockets| {
                let record = sockets.go(id, program.identity, Event::Established)?;
                record.local = local;
                Ok::<(), NetError>(())
            })?;
        }
        done.map_err(Into::into)
    }
}

/// As the program would have it: one that waits for nothing hears that it is under way.
async fn connect(wanted: &Wanted) -> Result<(), Errno> {
    let socket = &wanted.socket;
    let flags = rustix::fs::fcntl_getfl(socket)?;
    let waits = !flags.contains(OFlags::NONBLOCK);
    // The flag is the socket's, not this descriptor's: it is back before anybody can mind.
    if waits {
        rustix::fs::fcntl_setfl(socket, flags | OFlags::NONBLOCK)?;
    }
    let first = rustix::net::connect(socket, &wanted.to);
    if waits {
        rustix::fs::fcntl_setfl(socket, flags)?;
    }
    match first {
        Err(Errno::INPROGRESS) if waits => finished(wanted).await,
        other => other,
    }
}

/// Waits for the end of a connect that is under way, within the time that the program has set.
async fn finished(wanted: &Wanted) -> Result<(), Errno> {
    let limit = sockopt::socket_timeout(&wanted.socket, sockopt::Timeout::Send)?;
    let watched = watch(wanted.socket.as_fd())?;
    let ready = async { watched.writable().await.map(|mut ready| ready.retain_ready()) };
    let ready = match limit {
        Some(limit) => tokio::time::timeout(limit, ready).await.map_err(|_| Errno::INPROGRESS)?,
        None => ready.await,
    };
    ready.map_err(|_| Errno::IO)?;
    // Now the kernel says how it went; it sends nothing.
    rustix::net::connect(&wanted.socket, &wanted.to)
}

#[expect(
    deprecated,
    reason = "the form without the warning is unsafe; this one borrows a descriptor that outlives it"
)]
fn watch(socket: std::os::fd::BorrowedFd<'_>) -> Result<AsyncFd<std::os::fd::BorrowedFd<'_>>, Errno> {
    AsyncFd::with_interest(socket, Interest::WRITABLE).map_err(|_| Errno::NFILE)
}

async fn again(wanted: &Wanted) -> Result<(), Refused> {
    let waits = !rustix::fs::fcntl_getfl(&wanted.socket)?.contains(OFlags::NONBLOCK);
    if waits {
        return Ok(finished(wanted).await?);
    }
    match rustix::net::connect(&wanted.socket, &wanted.to) {
        Err(Errno::ALREADY) => Err(libc_errno::ALREADY.into()),
        other => Ok(other?),
    }
}
