//! A static program that goes out, for tests: each word is done in order and says one line.
//!
//!     goes_out [talk=ADDRESS | epoll=ADDRESS | threads=ADDRESS | child=ADDRESS | hold=ADDRESS | bound=ADDRESS |
//!               fork=ADDRESS | until=ADDRESS | parked=ADDRESS | unreadable=ADDRESS | own | kinds |
//!               broken=SILENT+OTHER | both=ADDRESS+ADDRESS | hidden=ADDRESS | gives=PATH | takes=PATH+ADDRESS |
//!               hands=PATH+ADDRESS | keeps=PATH]...

#![allow(clippy::print_stdout, reason = "a program of tests")]

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Command,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::{
    event::epoll,
    io::Errno,
    net::{
        AddressFamily, RawProtocol, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, ipproto,
        socket_with, sockopt,
    },
};
use sandbox::fdpass::Channel;

const THREADS: usize = 8;
const CONNECTS_OF_ONE: usize = 4;
const ROUNDS: usize = 16;
const ASKS: usize = 20;
/// Longer than a program is given to show what was cut.
const HIDDEN: Duration = Duration::from_millis(1_500);
/// Longer than it takes until it is seen which connections nobody has any more.
const FORGOTTEN: Duration = Duration::from_secs(9);
/// Sockets that one program hands to another: of each family the same number.
const GIVEN: usize = 8;
const RACES: usize = 20_000;
const MSG_FASTOPEN: u32 = 0x2000_0000;
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    for word in std::env::args().skip(1) {
        let (what, address) = word.split_once('=').unwrap_or((&word, "127.0.0.1:1"));
        if let Some(said) = shared(what, address) {
            println!("{what}: {}", said.unwrap_or_else(number));
            continue;
        }
        let (address, other) = address.split_once('+').unwrap_or((address, address));
        let Ok(other) = other.parse::<SocketAddr>() else {
            println!("{what}: {other} is no address");
            continue;
        };
        let Ok(address) = address.parse::<SocketAddr>() else {
            println!("{what}: {address} is no address");
            continue;
        };
        let said = match what {
            "talk" => socket(address, SocketFlags::empty()).and_then(|one| {
                connect(&one, &address)?;
                talk(&mut TcpStream::from(one))
            }),
            "epoll" => with_epoll(address),
            "threads" => with_threads(address),
            "fork" => in_a_child(address),
            "child" => inherited(address),
            "bound" => bound_first(address),
            "hold" => hold(address, false),
            "hidden" => hidden(address),
            "until" => until(address),
            "parked" => parked(address),
            "unreadable" => hold(address, true),
            "own" => own(),
            "broken" => broken_off(address, other),
            "both" => both(address, other),
            "kinds" => Ok(kinds()),
            _ => Ok("unknown".to_owned()),
        };
        println!("{what}: {}", said.unwrap_or_else(number));
        let _ = std::io::stdout().flush();
    }
}

fn socket(address: SocketAddr, flags: SocketFlags) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket_with(family, SocketType::STREAM, flags | SocketFlags::CLOEXEC, None)
}

fn number(errno: Errno) -> String {
    errno.raw_os_error().to_string()
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn talk(stream: &mut TcpStream) -> Result<String, Errno> {
    stream.write_all(b"question").map_err(|error| errno(&error))?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).map_err(|error| errno(&error))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Registered before it is connected, as event loops do.
fn with_epoll(address: SocketAddr) -> Result<String, Errno> {
    let one = socket(address, SocketFlags::NONBLOCK)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let data = epoll::EventData::new_u64(7);
    epoll::add(&poll, &one, data, epoll::EventFlags::OUT | epoll::EventFlags::IN)?;
    match connect(&one, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno),
    }
    loop {
        let mut events = Vec::with_capacity(4);
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        let out = |event: &epoll::Event| {
            let flags = event.flags;
            flags.contains(epoll::EventFlags::OUT) && !flags.contains(epoll::EventFlags::HUP)
        };
        if events.iter().any(out) {
            break;
        }
    }
    sockopt::socket_error(&one)??;
    // The old way to ask whether it is there.
    let again = connect(&one, &address).err();
    if ![None, Some(Errno::ISCONN)].contains(&again) {
        return Ok(format!("a second connect: {}", again.map_or_else(String::new, number)));
    }
    rustix::io::ioctl_fionbio(&one, false)?;
    talk(&mut TcpStream::from(one))
}

fn with_threads(address: SocketAddr) -> Result<String, Errno> {
    let one = || {
        (0..CONNECTS_OF_ONE).all(|_| {
            let connected = TcpStream::connect(address);
            connected.is_ok_and(|mut stream| talk(&mut stream).is_ok_and(|answer| answer == "answer"))
        })
    };
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(false)).collect::<Vec<_>>()
    });
    Ok(format!("{} of {THREADS}", all.iter().filter(|done| **done).count()))
}

/// The socket is made here and connected by another process.
fn in_a_child(address: SocketAddr) -> Result<String, Errno> {
    let one = socket(address, SocketFlags::empty())?;
    rustix::io::fcntl_setfd(&one, rustix::io::FdFlags::empty())?;
    let program = std::env::current_exe().map_err(|error| errno(&error))?;
    let mut command = Command::new(program);
    let output =
        command.arg(format!("child={address}")).env("INHERITED", one.as_raw_fd().to_string()).output();
    let output = output.map_err(|error| errno(&error))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn inherited(address: SocketAddr) -> Result<String, Errno> {
    let number = std::env::var("INHERITED").ok().and_then(|text| text.parse().ok()).ok_or(Errno::BADF)?;
    let one = sandbox::inherited::adopt_descriptor(number).map_err(|error| errno(&error))?;
    connect(&one, &address)?;
    talk(&mut TcpStream::from(one))
}

/// Bound to a port of its own network before it goes out.
fn bound_first(address: SocketAddr) -> Result<String, Errno> {
    let one = socket(address, SocketFlags::empty())?;
    rustix::net::bind(&one, &SocketAddr::from(([0, 0, 0, 0], 0)))?;
    connect(&one, &address)?;
    talk(&mut TcpStream::from(one))
}

/// Says how the connection ended.
fn hold(address: SocketAddr, unreadable: bool) -> Result<String, Errno> {
    let mut stream = TcpStream::connect(address).map_err(|error| errno(&error))?;
    if unreadable {
        sandbox::process::forbid_inspection().map_err(|error| errno(&error))?;
    }
    println!("holding");
    let _ = std::io::stdout().flush();
    Ok(match stream.read(&mut [0; 1]) {
        Ok(read) => format!("read {read}"),
        Err(error) => number(errno(&error)),
    })
}

/// As `hold`, of a connection that for some time only the queue of a Unix socket has.
fn hidden(address: SocketAddr) -> Result<String, Errno> {
    let stream = TcpStream::connect(address).map_err(|error| errno(&error))?;
    let (one, other) = Channel::pair().map_err(|error| errno(&error))?;
    one.send(b"hidden", &[stream.as_fd()]).map_err(|_| Errno::IO)?;
    drop(stream);
    println!("holding");
    let _ = std::io::stdout().flush();
    std::thread::sleep(HIDDEN);
    let mut fds = Vec::new();
    other.receive(&mut [0; 16], &mut fds).map_err(|_| Errno::IO)?;
    let mut stream = TcpStream::from(fds.pop().ok_or(Errno::BADF)?);
    Ok(match stream.read(&mut [0; 1]) {
        Ok(read) => format!("read {read}"),
        Err(error) => number(errno(&error)),
    })
}

/// One connection lies in a queue where no process has it, and is taken out again; another is held all the time.
fn parked(address: SocketAddr) -> Result<String, Errno> {
    let connected = || TcpStream::connect(address).map_err(|error| errno(&error));
    let (one, mut other) = (connected()?, connected()?);
    let (to, from) = Channel::pair().map_err(|error| errno(&error))?;
    to.send(b"one", &[one.as_fd()]).map_err(|_| Errno::IO)?;
    drop(one);
    println!("holding");
    let _ = std::io::stdout().flush();
    std::thread::sleep(FORGOTTEN);
    let mut taken = Vec::new();
    from.receive(&mut [0; 8], &mut taken).map_err(|_| Errno::IO)?;
    let mut one = TcpStream::from(taken.pop().ok_or(Errno::BADF)?);
    let of_one = match one.read(&mut [0; 1]) {
        Ok(read) => format!("read {read}"),
        Err(error) => number(errno(&error)),
    };
    talk(&mut other).map(|answer| format!("{of_one}, the other: {answer}"))
}

/// Tries until it is let out; says what it heard before that.
fn until(address: SocketAddr) -> Result<String, Errno> {
    let mut heard = Vec::new();
    loop {
        match TcpStream::connect(address) {
            Ok(mut stream) => return talk(&mut stream).map(|answer| format!("{answer} after {heard:?}")),
            Err(error) => {
                let errno = errno(&error).raw_os_error();
                if !heard.contains(&errno) {
                    heard.push(errno);
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// One thread breaks off a connect that is under way while others ask for another place on the same socket. Says what
/// those heard, each number once.
fn broken_off(silent: SocketAddr, other: SocketAddr) -> Result<String, Errno> {
    let mut heard = BTreeSet::new();
    for round in 0..ROUNDS {
        let one = socket(silent, SocketFlags::NONBLOCK)?;
        match connect(&one, &silent) {
            Err(Errno::INPROGRESS) => {}
            done => return Ok(format!("the silent place: {done:?}")),
        }
        // In half of the rounds those that ask wait inside the call, in the others they ask all the time.
        let waits = round % 2 == 0;
        rustix::io::ioctl_fionbio(&one, !waits)?;
        let ask = || {
            let asks = if waits { 1 } else { ASKS };
            (0..asks).map(|_| connect(&one, &other).map_or_else(number, |()| "done".to_owned())).collect()
        };
        let said: Vec<BTreeSet<String>> = std::thread::scope(|scope| {
            let asking = [scope.spawn(ask), scope.spawn(ask)];
            std::thread::sleep(PAUSE);
            let _ = rustix::net::shutdown(&one, rustix::net::Shutdown::Both);
            asking.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        heard.extend(said.into_iter().flatten());
        if rustix::net::getpeername(&one).is_ok() {
            return Ok(format!("connected after {heard:?}"));
        }
    }
    Ok(heard.into_iter().collect::<Vec<_>>().join(" "))
}

/// Two threads connect one socket to two places at once, a number of times. What is connected stays so.
fn both(address: SocketAddr, other: SocketAddr) -> Result<String, Errno> {
    let mut connected = 0;
    for _ in 0..ROUNDS {
        let one = socket(address, SocketFlags::empty())?;
        let start = Barrier::new(2);
        let go = |to: SocketAddr| {
            start.wait();
            connect(&one, &to)
        };
        let done = std::thread::scope(|scope| {
            let first = scope.spawn(|| go(address));
            let second = go(other);
            [first.join().unwrap_or(Err(Errno::IO)), second]
        });
        match done {
            [Ok(()), Err(Errno::ALREADY | Errno::ISCONN)] | [Err(Errno::ALREADY | Errno::ISCONN), Ok(())] => {
                connected += 1;
            }
            // The one that was second waited for the first inside the call.
            [Ok(()), Ok(())] => connected += 1,
            _ => return Ok(format!("{done:?}")),
        }
        std::mem::forget(one);
    }
    Ok(format!("{connected} of {ROUNDS}"))
}

/// What two programs do that see one folder.
fn shared(what: &str, place: &str) -> Option<Result<String, Errno>> {
    match what {
        "gives" => Some(gives(place)),
        "takes" => {
            let (path, address) = place.split_once('+')?;
            Some(address.parse().map_err(|_| Errno::INVAL).and_then(|address| takes(path, address)))
        }
        "hands" => {
            let (path, address) = place.split_once('+')?;
            Some(address.parse().map_err(|_| Errno::INVAL).and_then(|address| hands(path, address)))
        }
        "keeps" => Some(keeps(place)),
        _ => None,
    }
}

/// Whoever comes there.
fn met(path: &str) -> Result<Channel, Errno> {
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&listener, 1)?;
    println!("holding");
    let _ = std::io::stdout().flush();
    Ok(Channel::from(rustix::net::accept(&listener)?))
}

fn at(path: &str) -> Result<Channel, Errno> {
    let there = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&there, &SocketAddrUnix::new(path)?)?;
    Ok(Channel::from(there))
}

/// Hands two connections over, and has nothing of them any more.
fn hands(path: &str, to: SocketAddr) -> Result<String, Errno> {
    let peer = met(path)?;
    let connected = || TcpStream::connect(to).map_err(|error| errno(&error));
    let (one, other) = (connected()?, connected()?);
    peer.send(b"take", &[one.as_fd(), other.as_fd()]).map_err(|_| Errno::IO)?;
    drop((one, other));
    peer.receive(&mut [0; 8], &mut Vec::new()).map_err(|_| Errno::IO)?;
    Ok("handed".to_owned())
}

/// Has what another program was let out with, until both have ended.
fn keeps(path: &str) -> Result<String, Errno> {
    let there = at(path)?;
    let mut taken = Vec::new();
    there.receive(&mut [0; 8], &mut taken).map_err(|_| Errno::IO)?;
    println!("holding");
    let _ = std::io::stdout().flush();
    let ends = taken.into_iter().map(|one| match TcpStream::from(one).read(&mut [0; 1]) {
        Ok(read) => format!("read {read}"),
        Err(error) => number(errno(&error)),
    });
    Ok(ends.collect::<Vec<_>>().join(" "))
}

/// Hands sockets that are not connected to whoever comes here, and waits until they were used.
fn gives(path: &str) -> Result<String, Errno> {
    let peer = met(path)?;
    let mut one = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        for _ in 0..GIVEN / 2 {
            one.push(socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?);
        }
    }
    let all: Vec<_> = one.iter().map(AsFd::as_fd).collect();
    peer.send(b"take", &all).map_err(|_| Errno::IO)?;
    peer.receive(&mut [0; 8], &mut Vec::new()).map_err(|_| Errno::IO)?;
    Ok("taken".to_owned())
}

/// Tries every way out of a socket that it did not make.
fn takes(path: &str, to: SocketAddr) -> Result<String, Errno> {
    let there = at(path)?;
    let mut taken = Vec::new();
    there.receive(&mut [0; 8], &mut taken).map_err(|_| Errno::IO)?;
    let [one, two, three, four, .., last] = taken.as_slice() else { return Err(Errno::BADF) };
    let fast_open = SendFlags::from_bits_retain(MSG_FASTOPEN);
    let mut said = vec![
        ("connect", connect(one, &to)),
        ("bind", rustix::net::bind(two, &SocketAddr::from(([0, 0, 0, 0], 0)))),
        ("sendto", rustix::net::sendto(three, b"question", fast_open, &to).map(drop)),
        ("route", sockopt::set_ipv6_freebind(last, true)),
    ];
    // A port of its own network is nobody else's.
    let listens = rustix::net::listen(four, 1).and_then(|()| rustix::net::getsockname(four));
    let place = listens.and_then(|place| SocketAddr::try_from(place).map_err(|_| Errno::INVAL));
    if let Ok(place) = place {
        println!("listens: {place}");
        let _ = std::io::stdout().flush();
        std::thread::sleep(HIDDEN);
    }
    said.push(("listen", place.map(drop)));
    // Once more with another thread that puts the socket in the place of an innocent one.
    said.push(("raced", raced(one, to)));
    there.send(b"done", &[]).map_err(|_| Errno::IO)?;
    let said = said
        .into_iter()
        .map(|(what, done)| format!("{what} {}", done.map_or_else(number, |()| "done".to_owned())));
    Ok(said.collect::<Vec<_>>().join(" "))
}

/// Connects a descriptor that is now a datagram socket of its own network, which may connect, and now the handed one.
fn raced(handed: &OwnedFd, to: SocketAddr) -> Result<(), Errno> {
    let innocent = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Of all descriptors the standard input alone has a number that two threads may use and change.
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                let _ = rustix::stdio::dup2_stdin(handed).and_then(|()| rustix::stdio::dup2_stdin(&innocent));
            }
        });
        for _ in 0..RACES {
            let _ = connect(rustix::stdio::stdin(), &to);
        }
        ends.store(true, Ordering::Relaxed);
    });
    rustix::net::getpeername(handed).map(drop)
}

/// A server and its client in the program's own network; the last one is bound first, and stays so.
fn own() -> Result<String, Errno> {
    let mut said = Vec::new();
    for (place, is_bound) in [("127.0.0.1:0", false), ("[::1]:0", false), ("127.0.0.1:0", true)] {
        let listener = TcpListener::bind(place).map_err(|error| errno(&error))?;
        let place = listener.local_addr().map_err(|error| errno(&error))?;
        let answering = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept()?;
            peer.read_exact(&mut [0; 8])?;
            peer.write_all(b"answer")
        });
        let one = socket(place, SocketFlags::empty())?;
        if is_bound {
            rustix::net::bind(&one, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
        }
        let before = rustix::net::getsockname(&one)?;
        connect(&one, &place)?;
        let is_kept = rustix::net::getsockname(&one)? == before;
        said.push(talk(&mut TcpStream::from(one))?);
        if is_bound && !is_kept {
            said.push("from elsewhere".to_owned());
        }
        let _ = answering.join();
    }
    Ok(said.join(" "))
}

/// What is refused, and how.
fn kinds() -> String {
    let made = |family: AddressFamily, kind: SocketType, protocol: Option<rustix::net::Protocol>| {
        socket_with(family, kind, SocketFlags::CLOEXEC, protocol).map_or_else(number, |_| "made".to_owned())
    };
    let protocol = |number: u32| {
        std::num::NonZeroU32::new(number).map(|raw: RawProtocol| rustix::net::Protocol::from_raw(raw))
    };
    let raw = made(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP));
    let sctp = made(AddressFamily::INET, SocketType::STREAM, protocol(132));
    let vsock = made(AddressFamily::VSOCK, SocketType::STREAM, None);
    let packet = made(AddressFamily::PACKET, SocketType::DGRAM, None);
    let unix = made(AddressFamily::UNIX, SocketType::STREAM, None);
    let datagram = made(AddressFamily::INET, SocketType::DGRAM, None);
    let option = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .and_then(|one| sockopt::set_ip_freebind(&one, true))
        .map_or_else(number, |()| "set".to_owned());
    format!(
        "raw {raw} sctp {sctp} vsock {vsock} packet {packet} unix {unix} datagram {datagram} freebind {option}"
    )
}
