//! Programs that may connect: a channel to the monitor of each, from process_manager's hands. What is said on it is answered in
//! `program_connect.rs`.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base::{IdentityId, ProcessId};
use contracts::{
    network::v1::{self as wire, program_order::Order, program_word::Word},
    way_out::{GREETING, HELLO_BYTES_MAX, Message as _, PACKET_BYTES_MAX, with_length},
};
use kit::Caller;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, socket_with,
};
use sandbox::{
    fdpass::{Channel, PassError},
    host_socket,
};
use tokio::{
    io::{AsyncReadExt, Interest, unix::AsyncFd},
    net::UnixStream,
    sync::{Semaphore, mpsc},
    time::timeout,
};

use super::{Network, names::Names};
use crate::core::{
    Bucket, Domain, NetError, Places, SocketId,
    limits::{CONNECTS_A_SECOND_MAX, CONNECTS_AT_ONCE_MAX, CONNECTS_OF_PROGRAM_MAX, PROGRAMS_MAX},
};

/// Who alone speaks for programs.
const STARTER: &str = "process_manager";
/// It says everything at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a program with connections is asked which it still has.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Looks in a row that did not find a socket, after which it is gone. One may be on its way between two processes.
const LOOKS_MISSED_MAX: u8 = 2;

/// One program.
pub(super) struct Program {
    pub(super) process: ProcessId,
    pub(super) identity: IdentityId,
    pub(super) places: Places,
    /// Under which its sockets stand in the table.
    pub(super) client: String,
    pub(super) orders: mpsc::UnboundedSender<Said>,
    pub(super) connects: Arc<Semaphore>,
    flows: Mutex<HashMap<u64, Flow>>,
    rate: Mutex<Bucket>,
    since: Instant,
    pub(super) names: Names,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    socket: SocketId,
    missed: u8,
}

/// What goes to a monitor.
pub(super) type Said = (wire::ProgramOrder, Option<OwnedFd>);
type Heard = mpsc::UnboundedReceiver<Said>;

/// A connection of a program: this service has nothing of it, and its monitor ends it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) orders: mpsc::UnboundedSender<Said>,
    /// The kernel's number of the socket.
    pub(super) inode: u64,
}

impl Held {
    pub(super) fn cut(&self) {
        let cut = Order::Cut(wire::ProgramSockets { sockets: vec![self.inode] });
        // Nobody hears it any more if the program has ended, and its connections with it.
        let _ = self.orders.send((wire::ProgramOrder { id: 0, order: Some(cut) }, None));
    }
}

/// What a look says of those that were asked for.
#[derive(Debug, Default)]
struct Seen {
    /// Not found by enough looks, with their numbers in the table.
    gone: Vec<(u64, SocketId)>,
    here: Vec<(u64, SocketId)>,
}

#[derive(Debug)]
struct Wire(Channel);

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[expect(
    deprecated,
    reason = "the form without the warning is unsafe; this one owns its descriptor and never swaps it"
)]
fn register(wire: Wire) -> io::Result<AsyncFd<Wire>> {
    AsyncFd::new(wire)
}

impl Program {
    fn flows(&self) -> MutexGuard<'_, HashMap<u64, Flow>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table's number of one that is known; it is replaced by the new.
    pub(super) fn remember(&self, inode: u64, socket: SocketId) -> Option<SocketId> {
        self.flows().insert(inode, Flow { socket, missed: 0 }).map(|before| before.socket)
    }

    /// Its number in the table.
    pub(super) fn known(&self, inode: u64) -> Option<SocketId> {
        self.flows().get(&inode).map(|flow| flow.socket)
    }

    pub(super) fn forget(&self, inode: u64, socket: SocketId) {
        let mut flows = self.flows();
        if flows.get(&inode).is_some_and(|flow| flow.socket == socket) {
            flows.remove(&inode);
        }
    }

    pub(super) fn say(&self, id: u64, order: Order, fd: Option<OwnedFd>) {
        let _ = self.orders.send((wire::ProgramOrder { id, order: Some(order) }, fd));
    }

    pub(super) fn answer(&self, id: u64, answer: wire::ProgramAnswer, fd: Option<OwnedFd>) {
        self.say(id, Order::Answer(answer), fd);
    }

    fn seen(&self, asked: &[u64], alive: &[u64]) -> Seen {
        let mut flows = self.flows();
        let mut seen = Seen::default();
        for inode in asked {
            let Some(flow) = flows.get_mut(inode) else { continue };
            if alive.contains(inode) {
                flow.missed = 0;
                seen.here.push((*inode, flow.socket));
                continue;
            }
            flow.missed = flow.missed.saturating_add(1);
            if flow.missed >= LOOKS_MISSED_MAX {
                seen.gone.push((*inode, flow.socket));
                flows.remove(inode);
            }
        }
        seen
    }

    fn may_connect(&self) -> bool {
        let now = self.since.elapsed();
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }
}

impl Network {
    pub(super) fn take_program(self: &Arc<Self>, caller: &Caller, stream: UnixStream) {
        if &*caller.client != STARTER {
            tracing::warn!(client = %caller.client, "asks for a way out of a program, which is {STARTER}'s to do");
            return;
        }
        let network = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = network.greet(stream).await {
                tracing::warn!(%error, "a way out was asked for and not opened");
            }
        });
    }

    async fn greet(self: &Arc<Self>, mut stream: UnixStream) -> io::Result<()> {
        let hello = timeout(HELLO_TIMEOUT, hello(&mut stream)).await??;
        let program = match self.find_or_open(&hello) {
            // process_manager has been started again; the program's monitor has its channel.
            Ok((known, None)) => {
                pass(&stream, &wire::ProgramWelcome::default(), None).await?;
                known
            }
            Ok((program, Some(heard))) => {
                let opened = async {
                    let (ours, theirs) = Channel::pair()?;
                    ours.set_nonblocking()?;
                    let ours = register(Wire(ours))?;
                    pass(&stream, &wire::ProgramWelcome::default(), Some(theirs.into())).await?;
                    Ok::<_, io::Error>(ours)
                };
                match opened.await {
                    Ok(ours) => {
                        let (network, served) = (Arc::clone(self), Arc::clone(&program));
                        tokio::spawn(async move { network.serve_program(served, heard, ours).await });
                    }
                    // Nobody has the other end: the next greeting opens another one.
                    Err(error) => {
                        self.end_program(&program, heard);
                        return Err(error);
                    }
                }
                program
            }
            Err(error) => {
                let refused = error.to_string();
                return pass(&stream, &wire::ProgramWelcome { refused }, None).await;
            }
        };
        // The end of this connection tells process_manager of ours, or of the program's.
        tokio::select! {
            () = program.orders.closed() => {}
            _ = stream.readable() => {}
        }
        Ok(())
    }

    /// In the table before anything is said, so that of two greetings for one program one opens it.
    fn find_or_open(&self, hello: &wire::ProgramHello) -> Result<(Arc<Program>, Option<Heard>), NetError> {
        let identity = IdentityId::from_slice(&hello.identity)
            .ok_or_else(|| NetError::invalid("identity", "it is not 32 bytes"))?;
        let places = Places::parse(&hello.egress)?;
        let mut programs = self.programs();
        if let Some(known) = programs.get(&hello.process) {
            return match known.identity == identity && known.places == places {
                true => Ok((Arc::clone(known), None)),
                false => {
                    Err(NetError::invalid("process", "it is known with another identity or other places"))
                }
            };
        }
        if programs.len() >= PROGRAMS_MAX {
            return Err(NetError::TooMany(format!("{PROGRAMS_MAX} programs have a way out already")));
        }
        let (orders, heard) = mpsc::unbounded_channel();
        let program = Program {
            process: ProcessId(hello.process),
            identity,
            places,
            client: format!("program {}", hello.process),
            orders,
            connects: Arc::new(Semaphore::new(CONNECTS_OF_PROGRAM_MAX)),
            flows: Mutex::default(),
            rate: Mutex::new(Bucket::new(CONNECTS_AT_ONCE_MAX, CONNECTS_A_SECOND_MAX)),
            since: Instant::now(),
            names: Names::new(),
        };
        let program = Arc::new(program);
        programs.insert(hello.process, Arc::clone(&program));
        Ok((program, Some(heard)))
    }

    fn programs(&self) -> MutexGuard<'_, HashMap<u64, Arc<Program>>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve_program(self: Arc<Self>, program: Arc<Program>, mut heard: Heard, wire: AsyncFd<Wire>) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let mut asked: (u64, Vec<u64>) = (0, Vec::new());
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Also when nothing is left: what was hidden until it was forgotten is met by a look.
        let mut has_gone_out = false;
        loop {
            has_gone_out |= !program.flows().is_empty();
            tokio::select! {
                biased;
                said = heard.recv() => {
                    let Some((order, fd)) = said else { break };
                    if send(&wire, &order, fd.as_ref()).await.is_err() {
                        break;
                    }
                }
                word = receive(&wire, &mut buffer) => match word {
                    Ok((word, fd)) => match word.word {
                        Some(Word::Alive(alive)) if word.id == asked.0 => {
                            let seen = program.seen(&std::mem::take(&mut asked.1), &alive.sockets);
                            self.heed(&program, seen);
                        }
                        Some(Word::Alive(_)) | None => {}
                        Some(Word::Socket(domain)) => self.make_socket(&program, word.id, &domain),
                        Some(Word::Connect(address)) => self.start_connect(&program, word.id, address, fd),
                        Some(Word::Question(question)) => self.start_question(&program, word.id, question),
                    },
                    Err(_) => break,
                },
                _ = look.tick(), if has_gone_out => {
                    asked = (asked.0 + 1, program.flows().keys().copied().collect());
                    program.say(asked.0, Order::Look(wire::ProgramSockets { sockets: asked.1.clone() }), None);
                }
            }
        }
        self.end_program(&program, heard);
    }

    /// What is being decided finds the channel closed, or its row is in the table by now; only then another program can have
    /// the number.
    fn end_program(&self, program: &Arc<Program>, mut heard: Heard) {
        heard.close();
        self.registry.remove_of(&program.client, "its program has ended");
        let mut programs = self.programs();
        if programs.get(&program.process.0).is_some_and(|known| Arc::ptr_eq(known, program)) {
            programs.remove(&program.process.0);
        }
    }

    /// Cuts before it forgets: a socket that was only hidden is not connected without a row. One that lives although it was
    /// cut was hidden then, and is cut again.
    fn heed(&self, program: &Program, seen: Seen) {
        let again = self.registry.read(|sockets, _| {
            let is_cut = |socket: SocketId| {
                sockets.find(socket, program.identity).is_ok_and(|record| record.cut.is_some())
            };
            seen.here
                .iter()
                .filter(|(_, socket)| is_cut(*socket))
                .map(|(inode, _)| *inode)
                .collect::<Vec<_>>()
        });
        let sockets: Vec<u64> = seen.gone.iter().map(|(inode, _)| *inode).chain(again).collect();
        if !sockets.is_empty() {
            program.say(0, Order::Cut(wire::ProgramSockets { sockets }), None);
        }
        for (_, socket) in seen.gone {
            self.registry.remove(socket);
        }
    }

    fn make_socket(&self, program: &Program, id: u64, domain: &str) {
        match Domain::parse(domain).map_err(|_| libc_errno::AFNOSUPPORT).and_then(host_stream) {
            Ok(socket) => program.answer(id, wire::ProgramAnswer::default(), Some(socket)),
            Err(errno) => program.answer(id, wire::ProgramAnswer { errno, ..Default::default() }, None),
        }
    }

    fn start_connect(
        self: &Arc<Self>,
        program: &Arc<Program>,
        id: u64,
        address: wire::Address,
        socket: Option<OwnedFd>,
    ) {
        let refuse = |errno| program.answer(id, wire::ProgramAnswer { errno, ..Default::default() }, None);
        let Some(socket) = socket else { return refuse(libc_errno::BADF) };
        if !program.may_connect() {
            return refuse(libc_errno::AGAIN);
        }
        let Ok(place) = Arc::clone(&program.connects).try_acquire_owned() else {
            return refuse(libc_errno::AGAIN);
        };
        let (network, program) = (Arc::clone(self), Arc::clone(program));
        tokio::spawn(async move {
            let answer = network.connect_for(&program, socket, &address).await;
            program.answer(id, answer, None);
            drop(place);
        });
    }
}

/// Numbers that a program understands.
pub(super) mod libc_errno {
    use rustix::io::Errno;

    pub(in crate::shell) const AFNOSUPPORT: u32 = Errno::AFNOSUPPORT.raw_os_error().unsigned_abs();
    pub(in crate::shell) const BADF: u32 = Errno::BADF.raw_os_error().unsigned_abs();
    pub(in crate::shell) const AGAIN: u32 = Errno::AGAIN.raw_os_error().unsigned_abs();
    pub(in crate::shell) const ACCESS: u32 = Errno::ACCESS.raw_os_error().unsigned_abs();
    pub(in crate::shell) const INVAL: u32 = Errno::INVAL.raw_os_error().unsigned_abs();
    pub(in crate::shell) const ALREADY: u32 = Errno::ALREADY.raw_os_error().unsigned_abs();
    pub(in crate::shell) const INPROGRESS: u32 = Errno::INPROGRESS.raw_os_error().unsigned_abs();
    pub(in crate::shell) const NETDOWN: u32 = Errno::NETDOWN.raw_os_error().unsigned_abs();
}

/// A TCP socket that only goes out.
fn host_stream(domain: Domain) -> Result<OwnedFd, u32> {
    let family = match domain {
        Domain::Inet => AddressFamily::INET,
        Domain::Inet6 => AddressFamily::INET6,
    };
    let made = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = made.map_err(|errno| errno.raw_os_error().unsigned_abs())?;
    // One lock more, where the kernel lets a process without rights have it; the monitor lets nothing listen here.
    if let Err(error) = host_socket::lock_outbound(socket.as_fd()) {
        tracing::debug!(%error, "a program's socket is not locked by a filter of its own");
    }
    Ok(socket)
}

async fn hello(stream: &mut UnixStream) -> io::Result<wire::ProgramHello> {
    let wrong = |text: &'static str| io::Error::new(io::ErrorKind::InvalidData, text);
    // The kit has looked at it.
    stream.read_exact(&mut vec![0; GREETING.len()]).await?;
    let length = stream.read_u32_le().await? as usize;
    if length > HELLO_BYTES_MAX {
        return Err(wrong("a hello that is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    wire::ProgramHello::decode(body.as_slice()).map_err(|_| wrong("no hello"))
}

async fn pass(stream: &UnixStream, welcome: &wire::ProgramWelcome, fd: Option<OwnedFd>) -> io::Result<()> {
    let bytes = with_length(welcome);
    let send = || {
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let parts = [io::IoSlice::new(&bytes)];
        Ok(rustix::net::sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL)?)
    };
    match stream.async_io(Interest::WRITABLE, send).await? == bytes.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

async fn send(
    wire: &AsyncFd<Wire>,
    order: &wire::ProgramOrder,
    fd: Option<&OwnedFd>,
) -> Result<(), PassError> {
    let bytes = order.encode_to_vec();
    let fds: Vec<_> = fd.into_iter().map(AsFd::as_fd).collect();
    loop {
        let mut ready = wire.writable().await.map_err(PassError::Io)?;
        match ready.get_inner().0.send(&bytes, &fds) {
            Err(PassError::Full) => ready.clear_ready(),
            other => return other,
        }
    }
}

async fn receive(
    wire: &AsyncFd<Wire>,
    buffer: &mut [u8],
) -> Result<(wire::ProgramWord, Option<OwnedFd>), PassError> {
    loop {
        let mut ready = wire.readable().await.map_err(PassError::Io)?;
        let mut fds = Vec::new();
        match ready.get_inner().0.receive(buffer, &mut fds) {
            Ok(length) => {
                let word = wire::ProgramWord::decode(buffer.get(..length).unwrap_or_default());
                let word = word.map_err(|_| PassError::Closed)?;
                return Ok((word, fds.pop()));
            }
            Err(PassError::Full) => ready.clear_ready(),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::live::{Io, Live};

    fn program() -> (Program, Heard) {
        let (orders, heard) = mpsc::unbounded_channel();
        let program = Program {
            process: ProcessId(1),
            identity: IdentityId([1; 32]),
            places: Places::default(),
            client: "program 1".to_owned(),
            orders,
            connects: Arc::new(Semaphore::new(CONNECTS_OF_PROGRAM_MAX)),
            flows: Mutex::default(),
            rate: Mutex::new(Bucket::new(CONNECTS_AT_ONCE_MAX, CONNECTS_A_SECOND_MAX)),
            since: Instant::now(),
            names: Names::new(),
        };
        (program, heard)
    }

    #[test]
    fn a_socket_is_gone_after_two_looks_in_a_row_that_missed_it() {
        let (program, _heard) = program();
        program.remember(7, SocketId(1));
        program.remember(8, SocketId(2));
        let look = |alive: &[u64]| {
            let seen = program.seen(&[7, 8], alive);
            (seen.gone, seen.here)
        };
        let one = |inode, socket| vec![(inode, SocketId(socket))];
        assert_eq!(look(&[8]), (vec![], one(8, 2)));
        assert_eq!(look(&[7]), (vec![], one(7, 1)));
        assert_eq!(look(&[7]), (one(8, 2), one(7, 1)));
        assert_eq!((program.known(7), program.known(8)), (Some(SocketId(1)), None));
    }

    #[test]
    fn a_close_and_a_cut_by_its_owner_reach_the_monitor() {
        for end in [Live::close, Live::cut] {
            let (program, mut heard) = program();
            let live = Live::of(Io::Program(Held { orders: program.orders.clone(), inode: 7 }));
            end(&live);
            let (order, _) = heard.try_recv().unwrap();
            let cut = Order::Cut(wire::ProgramSockets { sockets: vec![7] });
            assert_eq!(order.order, Some(cut));
        }
    }
}
