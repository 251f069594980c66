//! What the kernel has of a socket: used by any number of calls at once, and cut from outside.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType as KernelType, sockopt};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::watch,
    time::{self, Instant},
};

use super::{
    datagram_flow::Sources,
    program::{Cuts, Held},
};
use crate::core::{Domain, Flow, NetError, Pace, SocketType};

/// In which form a socket is: tokio's types change with what was done.
#[derive(Debug)]
pub(super) enum Io {
    /// Not connected and not listening.
    Fresh(TcpSocket),
    Listener(Arc<TcpListener>),
    Stream(Arc<TcpStream>),
    Datagram(Arc<UdpSocket>),
    /// Of a program's datagrams to one peer.
    Sources(Arc<Sources>),
    /// Of a program, which alone has it.
    Program(Held),
    /// In the hands of a call that will put it back, or cut.
    Away,
}

pub(super) struct Live {
    io: Mutex<Io>,
    pub(super) cut: watch::Sender<bool>,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    /// Of a connection with a bandwidth.
    pace: Mutex<Pace>,
    /// What a program's socket is to the kernel, once the kernel's `connect` was called.
    pub(super) flow: OnceLock<Flow>,
    is_relayed: AtomicBool,
    drains: watch::Sender<bool>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("io", &self.io).finish_non_exhaustive()
    }
}

/// IPv4 and IPv6 are two worlds: rules are about addresses, and no host has two of them.
fn only_v6(socket: impl std::os::fd::AsFd, domain: Domain) -> io::Result<()> {
    if domain == Domain::Inet6 {
        sockopt::set_ipv6_v6only(socket, true)?;
    }
    Ok(())
}

fn fresh_stream(domain: Domain) -> io::Result<TcpSocket> {
    let socket = match domain {
        Domain::Inet => TcpSocket::new_v4()?,
        Domain::Inet6 => TcpSocket::new_v6()?,
    };
    only_v6(&socket, domain)?;
    Ok(socket)
}

fn fresh_datagram(domain: Domain) -> io::Result<UdpSocket> {
    let family = match domain {
        Domain::Inet => AddressFamily::INET,
        Domain::Inet6 => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, KernelType::DGRAM, flags, None)?;
    only_v6(&socket, domain)?;
    UdpSocket::from_std(socket.into())
}

impl Live {
    pub(super) fn fresh(domain: Domain, socket_type: SocketType) -> io::Result<Self> {
        Ok(Self::of(match socket_type {
            SocketType::Stream => Io::Fresh(fresh_stream(domain)?),
            SocketType::Datagram => Io::Datagram(Arc::new(fresh_datagram(domain)?)),
        }))
    }

    pub(super) fn of(io: Io) -> Self {
        Self {
            io: Mutex::new(io),
            cut: watch::Sender::new(false),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            pace: Mutex::default(),
            flow: OnceLock::new(),
            is_relayed: AtomicBool::new(false),
            drains: watch::Sender::new(false),
        }
    }

    fn io(&self) -> MutexGuard<'_, Io> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the form without taking it.
    pub(super) fn with<T>(&self, look: impl FnOnce(&Io) -> T) -> T {
        look(&self.io())
    }

    pub(super) fn stream(&self) -> Result<Arc<TcpStream>, NetError> {
        self.with(|io| match io {
            Io::Stream(stream) => Ok(Arc::clone(stream)),
            _ => Err(NetError::ConnectionReset),
        })
    }

    pub(super) fn datagram(&self) -> Result<Arc<UdpSocket>, NetError> {
        self.with(|io| match io {
            Io::Datagram(socket) => Ok(Arc::clone(socket)),
            _ => Err(NetError::invalid("socket", "it is no datagram socket")),
        })
    }

    pub(super) fn listener(&self) -> Result<Arc<TcpListener>, NetError> {
        self.with(|io| match io {
            Io::Listener(listener) => Ok(Arc::clone(listener)),
            _ => Err(NetError::invalid("socket", "it does not listen")),
        })
    }

    pub(super) fn bind(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        match &*self.io() {
            Io::Fresh(socket) => {
                socket.bind(address)?;
                socket.local_addr()
            }
            Io::Datagram(socket) => {
                rustix::net::bind(socket, &address)?;
                socket.local_addr()
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    pub(super) fn listen(&self, backlog: u32) -> io::Result<()> {
        let mut io = self.io();
        match std::mem::replace(&mut *io, Io::Away) {
            Io::Fresh(socket) => {
                *io = Io::Listener(Arc::new(socket.listen(backlog)?));
                Ok(())
            }
            other => {
                *io = other;
                Err(io::ErrorKind::InvalidInput.into())
            }
        }
    }

    /// Connects. After a failure there is a fresh socket, see [`Live::renew`].
    pub(super) async fn connect(&self, to: SocketAddr, limit: Duration) -> Result<SocketAddr, NetError> {
        let taken = std::mem::replace(&mut *self.io(), Io::Away);
        let Io::Fresh(socket) = taken else {
            *self.io() = taken;
            return Err(NetError::invalid("socket", "it is being connected already"));
        };
        let place = to.to_string();
        let connecting = async { socket.connect(to).await.map_err(|error| NetError::of_io(&error, &place)) };
        let connected = match time::timeout(limit, self.until_cut(connecting)).await {
            Ok(connected) => connected?,
            Err(_) => return Err(NetError::Timeout(limit.as_millis())),
        };
        let local = connected.local_addr().map_err(|error| NetError::of_io(&error, &place))?;
        let mut io = self.io();
        // Cut since: what was connected is closed here.
        if *self.cut.borrow() {
            reset(&connected);
            return Err(NetError::ConnectionReset);
        }
        *io = Io::Stream(Arc::new(connected));
        Ok(local)
    }

    /// After the kernel's socket was used up: another one, bound where that one was. False if it is not, since somebody
    /// else has the address now, or there is no socket to be had. Options have to be set again.
    pub(super) fn renew(&self, domain: Domain, bound: Option<SocketAddr>) -> bool {
        let mut io = self.io();
        if *self.cut.borrow() || !matches!(*io, Io::Away) {
            return false;
        }
        let Ok(socket) = fresh_stream(domain) else { return false };
        let is_bound = bound.is_none_or(|address| socket.bind(address).is_ok());
        match is_bound {
            true => *io = Io::Fresh(socket),
            // A half bound one is not kept.
            false => {
                if let Ok(socket) = fresh_stream(domain) {
                    *io = Io::Fresh(socket);
                }
            }
        }
        is_bound
    }

    /// Where a socket that is not connected is bound, as the kernel says it.
    pub(super) fn bound_to(&self) -> Option<SocketAddr> {
        self.with(|io| match io {
            Io::Fresh(socket) => socket.local_addr().ok(),
            _ => None,
        })
    }

    pub(super) fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    /// Whether a relay has it: then it is there, whatever its program does with its end.
    pub(super) fn is_relayed(&self) -> bool {
        self.is_relayed.load(Ordering::SeqCst)
    }

    pub(super) fn set_relayed(&self, is_relayed: bool) {
        self.is_relayed.store(is_relayed, Ordering::SeqCst);
    }

    /// Nobody has the program's end any more: its relay has a while for what was sent.
    pub(super) fn drain(&self) {
        self.drains.send_if_modified(|drains| !std::mem::replace(drains, true));
    }

    pub(super) fn drains(&self) -> bool {
        *self.drains.borrow()
    }

    /// Comes when what was sent has had its time.
    pub(super) async fn drained(&self, limit: Duration) {
        let mut drains = self.drains.subscribe();
        // Its sender is this.
        drop(drains.wait_for(|drains| *drains).await);
        time::sleep(limit).await;
    }

    /// Comes when the socket is cut.
    pub(super) fn cut_signal(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut cut = self.cut.subscribe();
        async move {
            drop(cut.wait_for(|cut| *cut).await);
        }
    }

    /// Ends with an error when the socket is cut.
    pub(super) async fn until_cut<T>(
        &self,
        work: impl Future<Output = Result<T, NetError>>,
    ) -> Result<T, NetError> {
        let mut cut = self.cut.subscribe();
        tokio::select! {
            biased;
            _ = cut.wait_for(|cut| *cut) => Err(NetError::ConnectionReset),
            done = work => done,
        }
    }

    /// Waits at most so long; not at all if the limit is zero.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, NetError>>,
    ) -> Result<T, NetError> {
        let ended = if limit.is_zero() { NetError::WouldBlock } else { NetError::Timeout(limit.as_millis()) };
        match time::timeout(limit, self.until_cut(work)).await {
            Ok(done) => done,
            Err(_) => Err(ended),
        }
    }

    /// Until what was moved before has been paid for. `limit` is in bytes a second; 0 is none.
    pub(super) async fn room(&self, limit: u64) {
        if limit > 0 {
            let at = self.free_at();
            if let Some(at) = at {
                time::sleep_until(at).await;
            }
        }
    }

    /// When more may be moved, if not at once.
    pub(super) fn free_at(&self) -> Option<Instant> {
        self.pace().free_at(Instant::now().into_std()).map(Into::into)
    }

    /// So many were moved: those that come have to wait for them.
    pub(super) fn charge(&self, bytes: usize, limit: u64) {
        self.pace().charge(Instant::now().into_std(), bytes, limit);
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, sent: usize, received: usize) {
        self.sent_bytes.fetch_add(sent as u64, Ordering::Relaxed);
        self.received_bytes.fetch_add(received as u64, Ordering::Relaxed);
    }

    /// At once, with what is in flight.
    pub(super) fn cut(&self) {
        self.cut_with(&mut Cuts::default());
    }

    /// The same of one of many: its monitor is told of those of one program together.
    pub(super) fn cut_with(&self, cuts: &mut Cuts) {
        self.cut.send_replace(true);
        let io = std::mem::replace(&mut *self.io(), Io::Away);
        match io {
            Io::Stream(stream) => reset(&stream),
            Io::Program(held) => cuts.add(held),
            Io::Sources(sources) => sources.cut(),
            _ => {}
        }
    }

    /// As its owner wants it: what was sent still arrives. A program's own socket cannot be closed for it, and is cut.
    pub(super) fn close(&self) {
        self.cut.send_replace(true);
        match std::mem::replace(&mut *self.io(), Io::Away) {
            Io::Program(held) => Cuts::default().add(held),
            Io::Sources(sources) => sources.cut(),
            _ => {}
        }
    }
}

/// What was said arrives, and then its end.
pub(super) fn end_writing(stream: &TcpStream) -> io::Result<()> {
    match rustix::net::shutdown(stream, Shutdown::Write) {
        // The peer was quicker.
        Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// At once, whoever else still holds the socket, and so that nothing of what is queued is delivered: dissolving the
/// association makes the kernel send a reset, where a shutdown would send what is left and an end.
pub(super) fn reset(stream: impl std::os::fd::AsFd) {
    let stream = stream.as_fd();
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    if rustix::net::connect_unspec(stream).is_err() {
        let _ = rustix::net::shutdown(stream, Shutdown::Both);
    }
}
