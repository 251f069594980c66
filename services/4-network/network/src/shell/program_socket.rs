//! A socket of TCP that a program was handed: what it is, and the kernel's `connect` on it, as the program would have it.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
};

use contracts::network::v1 as wire;
use rustix::{
    fs::OFlags,
    io::Errno,
    net::{AddressFamily, SocketType as KernelType, sockopt},
};
use sandbox::host_socket;
use tokio::io::{Interest, unix::AsyncFd};
use tonic::{Code, Status};

use super::{live::reset, programs::libc_errno};
use crate::core::{Domain, NetError};

/// What the program hears.
pub(super) struct Refused {
    pub(super) errno: u32,
    /// For the operator, if somebody said no.
    pub(super) why: Option<String>,
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

/// Where a socket of TCP is between two calls of `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Going,
    Connected,
}

pub(super) fn phase_of(socket: &OwnedFd) -> Phase {
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
    pub(super) inode: u64,
    /// For the kernel.
    pub(super) to: SocketAddr,
    /// For rules: no host has two addresses.
    pub(super) shown: SocketAddr,
}

impl Wanted {
    pub(super) fn read(socket: OwnedFd, address: &wire::Address) -> Result<Self, Refused> {
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
pub(super) async fn finished(socket: &OwnedFd, late: Errno) -> Result<(), Errno> {
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
pub(super) fn ended(socket: &OwnedFd) -> Errno {
    match sockopt::socket_error(socket) {
        Ok(Err(why)) => why,
        _ => Errno::CONNABORTED,
    }
}

/// Nothing of a connect that failed goes on, and the next one finds the socket as if this one had not been.
pub(super) fn take_back(socket: &OwnedFd) {
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
