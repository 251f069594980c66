//! The relay: a program's socket is joined to one of this service's, which alone goes out. What is cut here is cut, whoever has
//! the program's end of it, and what it may carry is held here.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustix::{fs::OFlags, io::Errno, net::sockopt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    Network,
    carriers::taken_over,
    live::{Live, reset},
    program::Program,
    program_socket::{Wanted, connect},
    pump::{End, denied, pump},
};
use crate::core::{
    Domain, NetError, Relay, SocketId,
    first_bytes::{FIRST_BYTES_MAX, Verdict, judge_all},
    limits::{FIRST_BYTES_TIMEOUT, PROXIED_HALF_OPEN_TIMEOUT, RELAY_CONNECT_TIMEOUT, RELAY_DRAIN_TIMEOUT},
};

/// On this host's loopback the other end is there at once.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// For one more relay, of all and of its program.
pub(super) fn room(all: &Arc<Semaphore>, own: &Arc<Semaphore>) -> Result<[OwnedSemaphorePermit; 2], Errno> {
    let one = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned().map_err(|_| Errno::AGAIN);
    Ok([one(all)?, one(own)?])
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::CONNABORTED)
}

/// That a relay has a connection: whatever its program does with its end, it is there until this is dropped.
pub(super) struct Relayed {
    network: Arc<Network>,
    id: SocketId,
    live: Arc<Live>,
}

impl Relayed {
    pub(super) fn new(network: &Arc<Network>, id: SocketId, live: &Arc<Live>) -> Self {
        live.set_relayed(true);
        Self { network: Arc::clone(network), id, live: Arc::clone(live) }
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.live.set_relayed(false);
        // Nobody else may be left to do it. One that begins to drain after this is looked at again (`remove_of`).
        if self.live.drains() {
            self.network.registry.remove(self.id);
        }
    }
}

/// How long a relay goes on that may have nobody on the program's side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// From when that side has said all: where the kernel cannot be asked whether it is still there.
    when_half_open: bool,
    after: Duration,
}

impl Drain {
    const GONE: Self = Self { when_half_open: false, after: RELAY_DRAIN_TIMEOUT };
    pub(super) const PROXIED: Self = Self { when_half_open: true, after: PROXIED_HALF_OPEN_TIMEOUT };
}

/// The end of a relay on the program's side.
pub(super) trait Side: Send {
    type From: AsyncRead + End;
    type Back: AsyncWrite + End;

    fn halves(self) -> (Self::From, Self::Back);
    /// Nothing that is queued is delivered any more.
    fn reset(from: &Self::From);
}

impl Side for TcpStream {
    type From = OwnedReadHalf;
    type Back = OwnedWriteHalf;

    fn halves(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        // As the program's own socket would not.
        let _ = self.set_nodelay(true);
        self.into_split()
    }

    fn reset(from: &OwnedReadHalf) {
        reset(from.as_ref());
    }
}

/// Whoever has the other end is in this process, and finds that this one has gone.
impl Side for DuplexStream {
    type From = ReadHalf<Self>;
    type Back = WriteHalf<Self>;

    fn halves(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        tokio::io::split(self)
    }

    fn reset(_: &ReadHalf<Self>) {}
}

impl Network {
    /// As [`connect`], by way of the relay. One that waits hears how the connection to the place itself went; one that does not
    /// is connected to the relay, and reset if the place cannot be reached.
    pub(super) async fn connect_by_relay(
        self: &Arc<Self>,
        program: &Program,
        id: SocketId,
        live: &Arc<Live>,
        wanted: &Wanted,
        relay: Relay,
    ) -> Result<(), Errno> {
        let room = room(&self.relays, &program.relays)?;
        let waits = !rustix::fs::fcntl_getfl(&wanted.socket)?.contains(OFlags::NONBLOCK);
        let to = wanted.shown;
        let reached = if waits {
            let limit = sockopt::socket_timeout(&wanted.socket, sockopt::Timeout::Send)?;
            Some(reach(to, limit.unwrap_or(RELAY_CONNECT_TIMEOUT)).await?)
        } else {
            None
        };
        let (here, said) = join(wanted).await?;
        // Another thread watches them from now on.
        let here = here.into_std().map_err(|error| errno(&error))?;
        let reached = reached.map(TcpStream::into_std).transpose().map_err(|error| errno(&error))?;
        let relayed = Relayed::new(self, id, live);
        self.carriers.spawn(async move {
            let _room = room;
            let Ok(here) = taken_over(here) else { return };
            let reaching = async {
                match reached {
                    Some(there) => taken_over(there).map_err(|_| NetError::ConnectionReset),
                    None => reach(to, RELAY_CONNECT_TIMEOUT).await.map_err(|_| NetError::ConnectionReset),
                }
            };
            let live = &*relayed.live;
            // Nobody has the program's end any more: what it wanted to reach is not reached for it much later.
            let reaching = async {
                tokio::select! {
                    biased;
                    there = reaching => there,
                    () = live.drained(RELAY_DRAIN_TIMEOUT) => Err(NetError::ConnectionReset),
                }
            };
            match live.until_cut(reaching).await {
                Ok(there) => {
                    relayed.network.carry(id, live, (here, Vec::new()), there, &relay, Drain::GONE).await
                }
                Err(_) => reset(&here),
            }
        });
        said
    }

    /// `begun`: what was heard of it already.
    pub(super) async fn carry<S: Side>(
        &self,
        id: SocketId,
        live: &Live,
        (here, begun): (S, Vec<u8>),
        there: TcpStream,
        relay: &Relay,
        drain: Drain,
    ) {
        // Small messages are not held back, as the program's own socket would not.
        let _ = there.set_nodelay(true);
        let ((mut from, mut back), (mut answers, mut to)) = (here.halves(), there.into_split());
        let program = (begun, &mut from, &mut back);
        let both = both_ways(program, (&mut answers, &mut to), live, relay, drain);
        // What ends by itself has said so to both sides; all else is not delivered any more.
        if let Err(error) = live.until_cut(both).await {
            if matches!(error, NetError::PermissionDenied(_)) {
                tracing::warn!(socket = id.0, %error, "a program's connection is cut");
                self.registry.cut_unasked(id, &error.to_string());
            }
            S::reset(&from);
            reset(to.as_ref());
        }
    }
}

pub(super) async fn reach(to: SocketAddr, limit: Duration) -> Result<TcpStream, Errno> {
    match timeout(limit, TcpStream::connect(to)).await {
        Ok(reached) => reached.map_err(|error| errno(&error)),
        Err(_) => Err(Errno::TIMEDOUT),
    }
}

/// Where a relay waits for the program's socket: in the family of the place, as the program would see its own end of it. A host
/// may have no `::1`, and a socket of IPv6 goes to IPv4 there too.
fn meeting(to: SocketAddr) -> SocketAddr {
    match to.ip().to_canonical() {
        IpAddr::V4(_) => SocketAddr::from(([127, 0, 0, 1], 0)),
        IpAddr::V6(_) => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0)),
    }
}

/// An address as a socket of this family writes it.
fn written(address: SocketAddr, domain: Domain) -> SocketAddr {
    match (domain, address) {
        (Domain::Inet6, SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        _ => address,
    }
}

/// Connects the program's socket to this process. The other end, and what the kernel's `connect` said.
async fn join(wanted: &Wanted) -> Result<(TcpStream, Result<(), Errno>), Errno> {
    let listener = TcpListener::bind(meeting(wanted.shown)).await.map_err(|error| errno(&error))?;
    let place = listener.local_addr().map_err(|error| errno(&error))?;
    let said = connect(&wanted.socket, written(place, wanted.domain)).await;
    if let Err(errno) = said
        && errno != Errno::INPROGRESS
    {
        return Err(errno);
    }
    let own = SocketAddr::try_from(rustix::net::getsockname(&wanted.socket)?).map_err(|_| Errno::INVAL)?;
    let accepting = async {
        loop {
            // Anybody on this host can come here; the program's socket is known by its address.
            match listener.accept().await {
                Ok((here, peer)) if written(peer, wanted.domain) == own => return Ok(here),
                Ok(_) => {}
                Err(error) => return Err(errno(&error)),
            }
        }
    };
    match timeout(JOIN_TIMEOUT, accepting).await {
        Ok(accepted) => accepted.map(|here| (here, said)),
        Err(_) => Err(Errno::TIMEDOUT),
    }
}

/// Lets the first bytes through when they ask for whom they may.
async fn first_bytes(
    live: &Live,
    begun: Vec<u8>,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut OwnedWriteHalf,
    relay: &Relay,
) -> Result<(), NetError> {
    let mut heard = begun;
    heard.reserve(FIRST_BYTES_MAX.saturating_sub(heard.len()));
    let reading = async {
        loop {
            match judge_all(&heard, &relay.names) {
                Verdict::Agrees => return Ok(()),
                Verdict::Refused(why) => return Err(denied(&why.text(&relay.names.join(" or ")))),
                Verdict::More => {}
            }
            match from.read_buf(&mut heard).await {
                Ok(0) => return Err(denied("it ended before it said whom it asks for")),
                Ok(_) => {}
                Err(error) => return Err(NetError::of_io(&error, "relaying")),
            }
        }
    };
    match timeout(FIRST_BYTES_TIMEOUT, reading).await {
        Ok(judged) => judged?,
        Err(_) => return Err(denied("it did not say in time whom it asks for")),
    }
    if !relay.send {
        return Err(denied("its authorisation does not cover sending"));
    }
    to.write_all(&heard).await.map_err(|error| NetError::of_io(&error, "relaying"))?;
    live.count(heard.len(), 0);
    live.charge(heard.len(), relay.bandwidth_limit);
    Ok(())
}

/// Until both directions have ended. One that nobody has the program's end of has the time of `drain` more.
async fn both_ways(
    (begun, from, back): (Vec<u8>, &mut (impl AsyncRead + End), &mut (impl AsyncWrite + End)),
    (answers, to): (&mut OwnedReadHalf, &mut OwnedWriteHalf),
    live: &Live,
    relay: &Relay,
    Drain { when_half_open, after }: Drain,
) -> Result<(), NetError> {
    let asks = async {
        if !(relay.names.is_empty() && begun.is_empty()) {
            first_bytes(live, begun, from, to, relay).await?;
        }
        pump(from, to, relay.send, |bytes| live.count(bytes, 0), live, relay).await?;
        if when_half_open {
            live.drain();
        }
        Ok(())
    };
    let hears = pump(answers, back, relay.recv, |bytes| live.count(0, bytes), live, relay);
    tokio::select! {
        biased;
        done = async { tokio::try_join!(asks, hears).map(drop) } => done,
        () = live.drained(after) => Err(NetError::ConnectionReset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::{
            BANDWIDTH_BURST,
            limits::{RELAY_BUFFER_BYTES, RELAYS_MAX, RELAYS_OF_PROGRAM_MAX},
        },
        shell::live::Io,
    };

    const DRAIN: Drain = Drain { when_half_open: false, after: Duration::from_millis(300) };
    const FREE: Relay = Relay { names: Vec::new(), send: true, recv: true, bandwidth_limit: 0 };

    /// A program's end and a server's, with the relay between them.
    async fn joined(
        relay: Relay,
    ) -> (TcpStream, TcpStream, Arc<Live>, tokio::task::JoinHandle<Result<(), NetError>>) {
        let pair = async || {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            (one, listener.accept().await.unwrap().0)
        };
        let ((program, here), (there, server)) = (pair().await, pair().await);
        let live = Arc::new(Live::of(Io::Away));
        let carried = Arc::clone(&live);
        let carrying = tokio::spawn(async move {
            let ((mut from, mut back), (mut answers, mut to)) = (here.into_split(), there.into_split());
            let program = (Vec::new(), &mut from, &mut back);
            let both = both_ways(program, (&mut answers, &mut to), &carried, &relay, DRAIN);
            carried.until_cut(both).await
        });
        (program, server, live, carrying)
    }

    #[tokio::test]
    async fn what_is_carried_arrives_and_ends_as_it_was_ended() {
        let (mut program, mut server, live, carrying) = joined(FREE).await;
        let sent: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
        let sending = async {
            program.write_all(&sent).await.unwrap();
            program.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let ((), read) = tokio::join!(sending, server.read_to_end(&mut heard));
        assert_eq!((read.unwrap(), heard == sent), (sent.len(), true));
        // The other direction is open still.
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        program.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        carrying.await.unwrap().unwrap();
        assert_eq!(live.sent_bytes.load(std::sync::atomic::Ordering::Relaxed), 300_000);
    }

    #[tokio::test]
    async fn a_direction_that_is_not_granted_carries_nothing() {
        let (mut program, mut server, _live, carrying) = joined(Relay { send: false, ..FREE }).await;
        server.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        program.read_exact(&mut heard).await.unwrap();
        program.write_all(b"!").await.unwrap();
        assert!(matches!(carrying.await.unwrap(), Err(NetError::PermissionDenied(_))));
        assert!(!matches!(server.read(&mut heard).await, Ok(1..)));
    }

    /// Its time is the limit's at least but for the burst, however fast the machine.
    #[tokio::test]
    async fn a_rate_is_kept() {
        let (mut program, mut server, _live, _carrying) =
            joined(Relay { bandwidth_limit: 100_000, ..FREE }).await;
        let began = std::time::Instant::now();
        let sending = async { program.write_all(&[7; 150_000]).await.unwrap() };
        let hearing = async {
            let mut heard = vec![0; 150_000];
            server.read_exact(&mut heard).await.unwrap();
        };
        tokio::join!(sending, hearing);
        let bytes_before_last = 150_000 - RELAY_BUFFER_BYTES as u64;
        let least = Duration::from_nanos(bytes_before_last * 1_000_000_000 / 100_000) - BANDWIDTH_BURST;
        assert!(began.elapsed() >= least, "{:?}, at least {least:?}", began.elapsed());
    }

    #[test]
    fn one_program_has_so_many_relays_and_all_together_have_so_many() {
        let program = || Arc::new(Semaphore::new(RELAYS_OF_PROGRAM_MAX));
        let (all, own) = (Arc::new(Semaphore::new(RELAYS_MAX)), program());
        let mut held: Vec<_> = (0..RELAYS_OF_PROGRAM_MAX).map(|_| room(&all, &own).unwrap()).collect();
        assert_eq!(room(&all, &own).err(), Some(Errno::AGAIN));
        assert_eq!(all.available_permits(), RELAYS_MAX - RELAYS_OF_PROGRAM_MAX, "a refusal holds nothing");
        held.pop();
        held.push(room(&all, &own).unwrap());
        while held.len() < RELAYS_MAX {
            let other = program();
            held.extend((0..RELAYS_OF_PROGRAM_MAX).map_while(|_| room(&all, &other).ok()));
        }
        assert_eq!(held.len(), RELAYS_MAX);
        let other = program();
        assert_eq!(room(&all, &other).err(), Some(Errno::AGAIN));
        held.pop();
        assert!(room(&all, &other).is_ok());
    }

    #[tokio::test]
    async fn what_asks_for_another_name_sends_nothing() {
        let named =
            |name: &str| Relay { names: vec!["first.example.org".to_owned(), name.to_owned()], ..FREE };
        let request = b"GET / HTTP/1.1\r\nHost: api.example.org\r\n\r\n";
        let (mut program, mut server, _live, _carrying) = joined(named("api.example.org")).await;
        for part in request.chunks(7) {
            program.write_all(part).await.unwrap();
        }
        let mut heard = vec![0; request.len()];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, request);
        let (mut program, mut server, _live, carrying) = joined(named("other.org")).await;
        program.write_all(request).await.unwrap();
        let Err(NetError::PermissionDenied(why)) = carrying.await.unwrap() else { panic!() };
        assert!(why.contains("other.org") && why.contains("api.example.org"), "{why}");
        assert!(!matches!(server.read(&mut heard).await, Ok(1..)));
    }

    /// A server that neither answers nor ends keeps no relay whose program is gone, and not before its time.
    #[tokio::test]
    async fn what_nobody_has_the_programs_end_of_is_drained_and_ends() {
        let (mut program, mut server, live, carrying) = joined(FREE).await;
        program.write_all(b"last words").await.unwrap();
        drop(program);
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last words");
        tokio::time::sleep(2 * DRAIN.after).await;
        assert!(!carrying.is_finished(), "one end is closed, and somebody may have the other half of it");
        live.drain();
        let began = tokio::time::Instant::now();
        assert_eq!(carrying.await.unwrap(), Err(NetError::ConnectionReset));
        assert!(began.elapsed() >= DRAIN.after, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_socket_of_ipv6_that_goes_to_ipv4_needs_no_ipv6_on_the_loopback() {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
        for to in ["192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
            assert_eq!(meeting(to.parse().unwrap()).to_string(), "127.0.0.1:0");
        }
        assert_eq!(meeting("[2001:db8::1]:80".parse().unwrap()).to_string(), "[::1]:0");
        let to: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let wanted = Wanted::for_test(socket.unwrap(), Domain::Inet6, to);
        let (here, said) = join(&wanted).await.unwrap();
        assert_eq!((said, here.local_addr().unwrap().is_ipv4()), (Ok(()), true));
    }

    #[tokio::test]
    async fn what_is_cut_ends() {
        let (_program, _server, live, carrying) = joined(FREE).await;
        live.cut();
        assert_eq!(carrying.await.unwrap(), Err(NetError::ConnectionReset));
    }
}
