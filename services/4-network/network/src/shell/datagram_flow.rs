//! One peer of a program's datagrams: decided, in the table, and carried until it is idle or cut.

use std::{
    collections::HashMap,
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chain::payload::network::{Direction, NetworkGrant, Protocol};
use contracts::datagram::DATAGRAM_BYTES_MAX;
use rustix::{io::Errno, net::Shutdown};
use tokio::{io::Interest, net::UdpSocket, sync::OwnedSemaphorePermit, task::AbortHandle};
use tonic::Code;

use super::{
    Network,
    authorize::Wish,
    datagrams::{Begun, Datagrams, Queued},
    live::{Io, Live},
    program::Program,
};
use crate::core::{
    Connection, Domain, Event, HostName, NetError, SocketId, SocketType, limits::DATAGRAM_IDLE_TIMEOUT,
};

/// How often it is looked for what is idle.
const IDLE_LOOK: Duration = Duration::from_secs(5);

/// The sockets of one flow, by the program's ports.
#[derive(Default)]
pub(super) struct Sources(Mutex<Open>);

#[derive(Default)]
struct Open {
    is_cut: bool,
    by_port: HashMap<u16, Source>,
}

struct Source {
    socket: Arc<UdpSocket>,
    /// When something last went through, in milliseconds of the machine.
    used: Arc<AtomicU64>,
    hears: AbortHandle,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Drop for Source {
    fn drop(&mut self) {
        self.hears.abort();
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.open().by_port.keys()).finish()
    }
}

fn now_ms() -> u64 {
    kit::boot_time_ns() / 1_000_000
}

impl Sources {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When this returns nothing goes out any more, whoever is just sending: the kernel itself refuses it.
    pub(super) fn cut(&self) {
        let mut open = self.open();
        open.is_cut = true;
        for source in open.by_port.values() {
            let _ = rustix::net::shutdown(&source.socket, Shutdown::Both);
        }
        open.by_port.clear();
    }

    fn find(&self, port: u16) -> Option<Arc<UdpSocket>> {
        let open = self.open();
        let source = open.by_port.get(&port)?;
        source.used.store(now_ms(), Ordering::Relaxed);
        Some(Arc::clone(&source.socket))
    }

    /// False if it was cut meanwhile.
    fn add(&self, port: u16, source: Source) -> bool {
        let mut open = self.open();
        if !open.is_cut {
            open.by_port.insert(port, source);
        }
        !open.is_cut
    }

    /// Gives up the one that was not used for longest; false if there is none.
    fn give_up_one(&self) -> bool {
        let mut open = self.open();
        let used = |(port, source): (&u16, &Source)| (source.used.load(Ordering::Relaxed), *port);
        let oldest = open.by_port.iter().map(used).min();
        oldest.is_some_and(|(_, port)| open.by_port.remove(&port).is_some())
    }

    /// Gives up what is idle; whether something is left.
    fn keep_used(&self) -> bool {
        let idle = u64::try_from(DATAGRAM_IDLE_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        let mut open = self.open();
        let now = now_ms();
        open.by_port.retain(|_, source| now.saturating_sub(source.used.load(Ordering::Relaxed)) < idle);
        !open.by_port.is_empty()
    }
}

/// The flows of one program, which share what it may have of sockets.
#[derive(Default)]
pub(super) struct Shares(Mutex<Vec<Weak<Sources>>>);

impl Shares {
    /// As many as a program has peers.
    fn join(&self, sources: &Arc<Sources>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(sources));
    }

    /// Of the peer that has most of them the one that was not used for longest is given up: a client with a new port for each
    /// question leaves every other peer of the program its own.
    fn give_up_one(&self) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let most = all.iter().filter_map(Weak::upgrade).max_by_key(|sources| sources.open().by_port.len());
        most.is_some_and(|sources| sources.give_up_one())
    }
}

/// What carries one flow.
struct Carrier {
    network: Arc<Network>,
    datagrams: Arc<Datagrams>,
    sources: Arc<Sources>,
    live: Arc<Live>,
    peer: SocketAddr,
    grant: NetworkGrant,
}

impl Network {
    pub(super) async fn datagram_flow(
        self: Arc<Self>,
        program: Arc<Program>,
        datagrams: Arc<Datagrams>,
        begun: Begun,
    ) {
        let Begun { peer, name, port, flow, queue, deciding } = begun;
        match self.begin_flow(&program, peer, name).await {
            Ok((connection, id, live, sources)) => {
                drop(deciding);
                let (network, datagrams) = (Arc::clone(&self), Arc::clone(&datagrams));
                let grant = connection.grant;
                datagrams.shares.join(&sources);
                let carrier = Carrier { network, datagrams, sources, live, peer, grant };
                carrier.carry(queue).await;
                self.registry.remove(id);
            }
            Err((errno, why)) => {
                if !why.is_empty() {
                    datagrams.deny(peer);
                }
                datagrams.fail(port, peer, errno.raw_os_error().unsigned_abs(), &why);
            }
        }
        datagrams.forget(peer, &flow);
    }

    /// In the table before it is asked whether what allows it still stands, so that nothing slips between.
    async fn begin_flow(
        self: &Arc<Self>,
        program: &Program,
        peer: SocketAddr,
        name: Option<HostName>,
    ) -> Result<(Connection, SocketId, Arc<Live>, Arc<Sources>), (Errno, String)> {
        let wish = Wish {
            secret: None,
            direction: Direction::Outbound,
            protocol: Protocol::Udp,
            local: None,
            remote: Some(peer),
            name: name.as_ref().map(ToString::to_string),
        };
        let refused = |status: tonic::Status| match status.code() {
            Code::PermissionDenied => (Errno::ACCESS, status.message().to_owned()),
            _ => (Errno::NETDOWN, String::new()),
        };
        if kit::is_broken("datagrams-record-first") {
            // What `prove` switched off: somebody hears from us before anything is on record.
            if let Ok(early) = tokio::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).await {
                let _ = early.send_to(b"early", peer).await;
            }
        }
        let authorised = self.authorize_program(program.identity, program.process, wish).await;
        let connection = authorised.map_err(refused)?;
        let sources = Arc::new(Sources::default());
        let entered = self.enter_flow(program, peer, name, &connection, &sources);
        let stands = match program.orders.is_closed() {
            true => Err(NetError::ConnectionReset),
            false if !connection.grant.send => {
                Err(NetError::PermissionDenied("its authorisation does not cover sending".to_owned()))
            }
            false => self.stands(program.identity, &connection),
        };
        self.close_act(connection.at, entered.is_ok() && stands.is_ok());
        match (entered, stands) {
            (Ok((id, live)), Ok(())) => {
                self.limit_duration(&connection);
                Ok((connection, id, live, sources))
            }
            (entered, stands) => {
                let error = entered.as_ref().err().cloned().or(stands.err());
                entered.iter().for_each(|(id, _)| drop(self.registry.remove(*id)));
                Err(refused(error.unwrap_or(NetError::ConnectionReset).into()))
            }
        }
    }

    fn enter_flow(
        &self,
        program: &Program,
        peer: SocketAddr,
        name: Option<HostName>,
        connection: &Connection,
        sources: &Arc<Sources>,
    ) -> Result<(SocketId, Arc<Live>), NetError> {
        let domain = if peer.is_ipv4() { Domain::Inet } else { Domain::Inet6 };
        let live = Live::of(Io::Sources(Arc::clone(sources)));
        let (owner, client) = (program.identity, &program.client);
        let id = self.registry.create(owner, client, domain, SocketType::Datagram, live)?;
        let entered = self.registry.change(|sockets| {
            sockets.go(id, owner, Event::Connect)?;
            let record = sockets.go(id, owner, Event::Established)?;
            record.process = program.process;
            record.remote = Some(peer);
            record.name = name;
            record.connection = Some(connection.clone());
            Ok::<(), NetError>(())
        });
        let found = entered.and_then(|()| self.registry.find(id, owner));
        // A row that nobody has would count for as long as the program lives.
        let (_, live) = found.inspect_err(|_| drop(self.registry.remove(id)))?;
        Ok((id, live))
    }
}

impl Carrier {
    async fn carry(&self, mut queue: tokio::sync::mpsc::Receiver<Queued>) {
        let mut look = tokio::time::interval(IDLE_LOOK);
        look.reset();
        let carrying = async {
            loop {
                tokio::select! {
                    queued = queue.recv() => match queued {
                        Some(queued) => self.send(queued).await,
                        None => break,
                    },
                    _ = look.tick() => if !self.sources.keep_used() {
                        break;
                    },
                }
            }
            Ok(())
        };
        let _ = self.live.until_cut(carrying).await;
        self.sources.cut();
    }

    async fn send(&self, queued: Queued) {
        let limit = self.grant.bandwidth_limit;
        self.live.room(limit).await;
        let port = queued.port;
        let socket = match self.sources.find(port) {
            Some(socket) => socket,
            None => match self.open(port).await {
                Ok(socket) => socket,
                Err((errno, why)) => return self.fail(port, errno, why),
            },
        };
        let mut sent = socket.send(&queued.data).await;
        // That an earlier one did not arrive is said instead of sending this one.
        if let Err(error) = &sent
            && error.kind() == ErrorKind::ConnectionRefused
        {
            self.fail(port, Errno::CONNREFUSED, "");
            sent = socket.send(&queued.data).await;
        }
        match sent {
            Ok(bytes) => {
                self.live.count(bytes, 0);
                self.live.charge(bytes, limit);
            }
            Err(error) => self.fail(port, Errno::from_io_error(&error).unwrap_or(Errno::IO), ""),
        }
    }

    fn fail(&self, port: u16, errno: Errno, why: &str) {
        self.datagrams.fail(port, self.peer, errno.raw_os_error().unsigned_abs(), why);
    }

    async fn open(&self, port: u16) -> Result<Arc<UdpSocket>, (Errno, &'static str)> {
        const FULL: &str = "it has as many ports in use as it may";
        let acquire = || {
            let own = Arc::clone(&self.datagrams.sockets).try_acquire_owned().ok()?;
            Some((own, Arc::clone(&self.network.datagram_sockets).try_acquire_owned().ok()?))
        };
        let room = acquire().or_else(|| self.datagrams.shares.give_up_one().then(acquire).flatten());
        let room = room.ok_or((Errno::AGAIN, FULL))?;
        let failed = |error: io::Error| (Errno::from_io_error(&error).unwrap_or(Errno::IO), "");
        let any: SocketAddr =
            if self.peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await.map_err(failed)?;
        socket.connect(self.peer).await.map_err(failed)?;
        let (socket, used) = (Arc::new(socket), Arc::new(AtomicU64::new(now_ms())));
        let hearing = Hearing {
            datagrams: Arc::clone(&self.datagrams),
            live: Arc::clone(&self.live),
            socket: Arc::clone(&socket),
            used: Arc::clone(&used),
            port,
            peer: self.peer,
            grant: self.grant,
        };
        let hears = tokio::spawn(hearing.run()).abort_handle();
        match self.sources.add(port, Source { socket: Arc::clone(&socket), used, hears, _room: room }) {
            true => Ok(socket),
            false => Err((Errno::CONNABORTED, "")),
        }
    }
}

/// What comes back to one port.
struct Hearing {
    datagrams: Arc<Datagrams>,
    live: Arc<Live>,
    socket: Arc<UdpSocket>,
    used: Arc<AtomicU64>,
    port: u16,
    peer: SocketAddr,
    grant: NetworkGrant,
}

impl Hearing {
    /// Ends with its source.
    async fn run(self) {
        // That one did not arrive makes a socket no more readable. Each is asked for by itself: tokio tries nothing for both.
        while let Ok(ready) = self.socket.ready(Interest::READABLE | Interest::ERROR).await {
            if ready.is_error() {
                self.tell_errors();
            }
            // Not kept while nothing comes. One byte more, to see that there was more.
            let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
            loop {
                if *self.live.cut.borrow() {
                    return;
                }
                match self.socket.try_recv_from(&mut buffer) {
                    // What came before the socket was connected may be anybody's.
                    Ok((bytes, from)) if bytes <= DATAGRAM_BYTES_MAX && is_from(from, self.peer) => {
                        self.take(buffer.get(..bytes).unwrap_or_default()).await;
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => self.fail(&error),
                }
                // Whoever is flooded holds up nobody else.
                tokio::task::yield_now().await;
            }
        }
    }

    fn tell_errors(&self) {
        let next = || self.socket.take_error()?.ok_or_else(|| ErrorKind::WouldBlock.into());
        while let Ok(error) = self.socket.try_io(Interest::ERROR, next) {
            self.fail(&error);
        }
    }

    fn fail(&self, error: &io::Error) {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        self.datagrams.fail(self.port, self.peer, errno.raw_os_error().unsigned_abs(), "");
    }

    async fn take(&self, data: &[u8]) {
        if !self.grant.recv {
            return;
        }
        let limit = self.grant.bandwidth_limit;
        self.live.room(limit).await;
        self.live.charge(data.len(), limit);
        // Cut since: nothing of it is heard any more.
        if *self.live.cut.borrow() {
            return;
        }
        self.used.store(now_ms(), Ordering::Relaxed);
        self.live.count(0, data.len());
        self.datagrams.deliver(self.port, self.peer, data);
    }
}

fn is_from(from: SocketAddr, peer: SocketAddr) -> bool {
    (from.ip().to_canonical(), from.port()) == (peer.ip().to_canonical(), peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    async fn source(peer: SocketAddr, room: &Arc<Semaphore>, used: u64) -> Source {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(peer).await.unwrap();
        let hears = tokio::spawn(std::future::pending::<()>()).abort_handle();
        let one = || Arc::clone(room).try_acquire_owned().unwrap();
        Source { socket: Arc::new(socket), used: Arc::new(used.into()), hears, _room: (one(), one()) }
    }

    #[tokio::test]
    async fn what_is_cut_is_refused_by_the_kernel_whoever_is_sending() {
        let (server, room) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), Arc::new(Semaphore::new(4)));
        let peer = server.local_addr().unwrap();
        let sources = Arc::new(Sources::default());
        assert!(sources.add(1, source(peer, &room, now_ms()).await));
        let sending = sources.find(1).unwrap();
        sending.send(b"before").await.unwrap();
        Live::of(Io::Sources(Arc::clone(&sources))).cut();
        let sent = sending.send(b"after").await;
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert!(!sources.add(2, source(peer, &room, now_ms()).await), "nothing begins again");
        let mut heard = [0; 16];
        assert_eq!(server.recv(&mut heard).await.unwrap(), 6);
        assert_eq!(server.try_recv(&mut heard).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(room.available_permits(), 4);
    }

    #[tokio::test]
    async fn who_has_most_gives_one_up() {
        let (peer, room) = ("127.0.0.1:9".parse().unwrap(), Arc::new(Semaphore::new(8)));
        let (shares, now) = (Shares::default(), now_ms());
        assert!(!shares.give_up_one());
        let [few, many, gone] = [(); 3].map(|()| Arc::new(Sources::default()));
        for sources in [&few, &many, &gone] {
            shares.join(sources);
        }
        drop(gone);
        // Whoever has few keeps even what was not used for longest.
        few.add(1, source(peer, &room, 0).await);
        for port in 1..=3 {
            many.add(port, source(peer, &room, now + u64::from(port)).await);
        }
        assert!(shares.give_up_one());
        assert!(many.find(1).is_none() && many.find(2).is_some() && few.find(1).is_some());
        assert!(shares.give_up_one());
        assert_eq!((few.open().by_port.len(), many.open().by_port.len()), (1, 1));
        assert_eq!(room.available_permits(), 4);
        drop(many);
        shares.join(&few);
        assert_eq!(shares.0.lock().unwrap().len(), 2, "who has gone is forgotten");
    }

    #[tokio::test]
    async fn the_longest_unused_is_given_up_and_what_is_idle_ends() {
        let (peer, room) = ("127.0.0.1:9".parse().unwrap(), Arc::new(Semaphore::new(6)));
        let sources = Sources::default();
        let (now, idle) = (now_ms(), u64::try_from(DATAGRAM_IDLE_TIMEOUT.as_millis()).unwrap());
        // The machine may have been started just now.
        let long_ago = now.saturating_sub(idle);
        for (port, used) in [(1, now), (2, long_ago), (3, now + 60_000)] {
            sources.add(port, source(peer, &room, used).await);
        }
        assert!(sources.give_up_one());
        assert!(sources.find(2).is_none() && room.available_permits() == 2);
        assert!(sources.keep_used());
        assert!(sources.give_up_one() && sources.give_up_one() && !sources.give_up_one());
        assert!(!sources.keep_used());
        if now >= idle {
            sources.add(2, source(peer, &room, long_ago).await);
            assert!(!sources.keep_used(), "it was idle for as long as it may");
        }
    }
}
