//! What the kernel has of the connections of programs: it is asked, whoever holds the descriptor and wherever it lies. What was
//! cut counts as cut when the kernel says so.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use contracts::network::v1 as wire;
use kit::Component;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, socket_with,
    sockopt,
};

use super::{
    Network,
    program::{Open, Program},
};
use crate::core::{ANSWER_BYTES_MAX, Domain, Flow, Held, held, limits::LOOKED_AT_IN_A_ROW_MAX};

/// The socket that the supervisor has made, for `sock_diag`.
const SOCKET_FD: &str = "BAILIWICK_SOCK_DIAG_FD";
/// Between two questions about what was cut: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// A monitor has cut what it finds by then. What still lives was handed to another program, or lies in a queue.
const ELSEWHERE_AFTER: Duration = Duration::from_millis(150);
/// Then the program ends, and what lies in its queues with it. Before this service itself is late (DESIGN 2).
const END_AFTER: Duration = Duration::from_millis(300);
/// From then on nobody is told that it was cut.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(2);
/// How often everything is looked through because there is no room.
const NO_ROOM_LOOK_EVERY: Duration = Duration::from_millis(100);
/// Of a program that has ended: when it is asked whether another has something of it.
const OUTLIVED_PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(1)];

/// Adopted at the start of the process, taken by `Init`.
static SOCKET: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// To be called first: descriptors are adopted before anything else is opened.
pub(super) fn adopt() {
    let raw = std::env::var(SOCKET_FD).ok().and_then(|text| text.parse().ok());
    let socket = raw.and_then(|raw| sandbox::inherited::adopt_descriptor(raw).ok());
    *SOCKET.lock().unwrap_or_else(PoisonError::into_inner) = socket;
}

/// The kernel's account of this host's connections.
#[derive(Debug, Default)]
pub(super) struct Kernel(Option<Mutex<(OwnedFd, u32)>>);

impl Kernel {
    /// One that does not know of a socket that is there is none: of a kernel without `tcp_diag` every connection is unknown.
    pub(super) fn take() -> Self {
        let socket = SOCKET.lock().unwrap_or_else(PoisonError::into_inner).take();
        let kernel = Self(socket.map(|socket| Mutex::new((socket, 0))));
        match kernel.knows_of_one() {
            Ok(true) => kernel,
            known => {
                tracing::warn!(?known, "the kernel does not tell which connections there are (sock_diag)");
                Self::default()
            }
        }
    }

    fn knows_of_one(&self) -> io::Result<bool> {
        let one = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::bind(&one, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
        rustix::net::listen(&one, 1)?;
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        Ok(self.ask(&flow_of(&one, Domain::Inet, unspecified)?)? == Some(Held::Yes))
    }

    pub(super) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn health(&self) -> Component {
        const NAME: &str = "flows";
        match self.is_there() {
            true => Component::healthy(NAME),
            false => Component::degraded(
                NAME,
                "the kernel does not tell which connections there are (CONFIG_INET_DIAG, module tcp_diag); programs get no way \
                 out, since none could be taken back with certainty",
            ),
        }
    }

    /// Whether anybody has it. What cannot be told counts as yes.
    fn has(&self, flow: &Flow) -> bool {
        !matches!(self.ask(flow), Ok(Some(Held::No)))
    }

    /// The kernel answers before it returns from the question.
    fn ask(&self, flow: &Flow) -> io::Result<Option<Held>> {
        let socket = self.0.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
        let (socket, number) = &mut *socket;
        *number = number.wrapping_add(1);
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(socket.as_fd(), &flow.question(*number), SendFlags::empty(), &kernel)?;
        loop {
            let mut buffer = [0; ANSWER_BYTES_MAX];
            let (_, bytes) = rustix::net::recv(socket.as_fd(), &mut buffer, RecvFlags::DONTWAIT)?;
            // One that nobody waited for comes before it.
            if let Some(said) = buffer.get(..bytes).and_then(|answer| held(answer, *number)) {
                return Ok(Some(said));
            }
        }
    }
}

/// What a socket that has been connected is to the kernel.
pub(super) fn flow_of(socket: &OwnedFd, domain: Domain, remote: SocketAddr) -> io::Result<Flow> {
    let local = SocketAddr::try_from(rustix::net::getsockname(socket)?)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Flow { domain, local, remote, cookie: sockopt::socket_cookie(socket)? })
}

/// At one after the other, with others coming between.
async fn look_at<T>(mut all: Vec<T>, mut look: impl FnMut(T)) {
    while !all.is_empty() {
        let next = all.split_off(all.len().saturating_sub(LOOKED_AT_IN_A_ROW_MAX));
        next.into_iter().for_each(&mut look);
        tokio::task::yield_now().await;
    }
}

impl Network {
    /// Forgets what nobody has any more.
    pub(super) fn close_gone(&self, program: &Program) {
        program.open().iter().for_each(|open| self.close_if_gone(program, open));
    }

    /// The same, with others coming between: of each the kernel is asked.
    pub(super) async fn look_for_gone(&self, program: &Program) {
        look_at(program.open(), |open| self.close_if_gone(program, &open)).await;
    }

    fn close_if_gone(&self, program: &Program, open: &Open) {
        if !self.is_gone(open) {
            return;
        }
        // What a relay has goes on without the program's end of it for a while, and is cut as any other.
        open.live.drain();
        if !open.live.is_relayed() {
            program.forget(open.inode, open.socket);
            self.registry.remove(open.socket);
        }
    }

    /// Of a program that has ended: what it sent by a relay, and then closed, arrives. The relay takes it out of the table.
    pub(super) fn drain_of(&self, program: &Program) {
        let open = program.open().into_iter();
        open.filter(|open| open.live.is_relayed() && self.is_gone(open)).for_each(|open| open.live.drain());
    }

    /// Nobody has the program's end. One that is just being connected is there.
    fn is_gone(&self, open: &Open) -> bool {
        open.live.flow.get().is_some_and(|flow| !self.kernel.has(flow))
    }

    /// The same of all programs.
    pub(super) fn close_all_gone(&self) {
        self.all_programs().iter().for_each(|program| self.close_gone(program));
    }

    /// Whether it is worth while to look again for what is gone.
    pub(super) fn may_close_gone(&self) -> bool {
        let mut last = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= NO_ROOM_LOOK_EVERY);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }

    /// What was cut of a program and is still there: the kernel's numbers. Others come between.
    async fn cut_and_there(&self, program: &Program) -> Vec<u64> {
        let mut there = Vec::new();
        look_at(program.open_and_cut(), |open| match !open.live.is_relayed() && self.is_gone(&open) {
            true => {
                program.forget(open.inode, open.socket);
                self.registry.remove(open.socket);
            }
            // One that is just being connected hears of its end there.
            false => there.push(open.inode),
        })
        .await;
        there
    }

    /// Returns when the kernel has nothing any more of what was cut; false if that takes too long.
    pub(super) async fn cut_is_done(&self) -> bool {
        let began = Instant::now();
        let (mut pause, mut told, mut ended) = (PAUSE_MIN, false, false);
        loop {
            let mut left = Vec::new();
            for program in self.all_programs() {
                let sockets = self.cut_and_there(&program).await;
                if !sockets.is_empty() {
                    left.push((program, sockets));
                }
            }
            let waited = began.elapsed();
            // A relay may have what was a program's that has ended.
            if left.is_empty() && !self.registry.has_cut_relayed() {
                return true;
            }
            if waited >= GIVEN_UP_AFTER {
                for (program, sockets) in left {
                    tracing::error!(program = program.client, ?sockets, "what was cut is still there");
                }
                return false;
            }
            let tells = !std::mem::replace(&mut told, waited >= ELSEWHERE_AFTER) && told;
            let ends = !std::mem::replace(&mut ended, waited >= END_AFTER) && ended;
            for (program, sockets) in left {
                // Again: what was hidden is found when it comes back.
                program.cut(&sockets);
                if tells || ends {
                    program.tell(wire::ProgramCut { sockets, end: ends });
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Of a program that has ended: what it had handed to another one ends too.
    pub(super) async fn end_outlived(&self, program: &Program) {
        for pause in OUTLIVED_PAUSES {
            tokio::time::sleep(pause).await;
            let open = program.open().into_iter();
            let left = open.filter(|open| open.live.flow.get().is_some_and(|flow| self.kernel.has(flow)));
            let sockets: Vec<u64> = left.map(|open| open.inode).collect();
            if sockets.is_empty() {
                break;
            }
            program.tell(wire::ProgramCut { sockets, end: false });
        }
        program.hush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::netlink;
    use std::{
        net::{TcpListener, TcpStream},
        task::{Context, Waker},
    };

    fn kernel() -> Kernel {
        let flags = SocketFlags::CLOEXEC;
        let protocol = Some(netlink::SOCK_DIAG);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol).unwrap();
        Kernel(Some(Mutex::new((socket, 0))))
    }

    #[test]
    fn the_kernel_tells_who_is_held_whoever_holds_it() {
        let kernel = kernel();
        assert!(kernel.knows_of_one().unwrap());
        for (place, domain) in [("127.0.0.1:0", Domain::Inet), ("[::1]:0", Domain::Inet6)] {
            let listener = TcpListener::bind(place).unwrap();
            let remote = listener.local_addr().unwrap();
            let stream = OwnedFd::from(TcpStream::connect(remote).unwrap());
            let flow = flow_of(&stream, domain, remote).unwrap();
            assert!(kernel.has(&flow));
            assert!(!kernel.has(&Flow { cookie: flow.cookie + 1, ..flow }), "another socket in its place");
            // In a queue, where no process has it.
            let (one, other) = sandbox::fdpass::Channel::pair().unwrap();
            one.send(b"hidden", &[stream.as_fd()]).unwrap();
            drop(stream);
            assert!(kernel.has(&flow));
            drop((one, other));
            assert!(!kernel.has(&flow), "what is closed is gone, though its end is still to be said");
        }
    }

    /// Whoever waits for a decision has its turn after so many.
    #[tokio::test]
    async fn others_come_between_what_is_looked_at() {
        let looked = std::cell::Cell::new(0);
        let (mut in_a_row, mut before) = (Vec::new(), 0);
        let looking = look_at(vec![(); 2 * LOOKED_AT_IN_A_ROW_MAX + 1], |()| looked.set(looked.get() + 1));
        let mut looking = std::pin::pin!(looking);
        let mut context = Context::from_waker(Waker::noop());
        while looking.as_mut().poll(&mut context).is_pending() {
            in_a_row.push(looked.get() - before);
            before = looked.get();
        }
        assert_eq!(in_a_row, [LOOKED_AT_IN_A_ROW_MAX, LOOKED_AT_IN_A_ROW_MAX, 1]);
    }

    #[test]
    fn a_kernel_that_does_not_tell_is_not_taken_for_one_that_has_nothing() {
        let flow = Flow {
            domain: Domain::Inet,
            local: "127.0.0.1:1".parse().unwrap(),
            remote: "127.0.0.1:2".parse().unwrap(),
            cookie: 1,
        };
        assert!(Kernel::default().has(&flow) && Kernel::default().health().degraded);
        assert!(Kernel::default().knows_of_one().is_err());
    }
}
