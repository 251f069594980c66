//! The program's way out: its calls about TCP sockets, answered with sockets of the host's network.
//!
//! Such a socket is born in `network` and handed to the program by `socket` itself, so that what was registered on it before
//! `connect` stays; `network` decides each `connect` and carries it out on the same socket. Nothing of these calls goes on to
//! the kernel: between what is read here and what the kernel would read, the program can change it. Nothing is kept of a
//! socket: its end would send no end to the peer.
//!
//! A program that was given none has its own loopback and nothing else; what another program hands to it leads nowhere.
//!
//! The program's own loopback is its own: a server, or a client of one, gets a socket of its own network in the place of
//! the host's, and its monitor carries the call out there.
//!
//! `egress_calls.rs` is what each call does, `egress_sweep.rs` finds what the program has open.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use contracts::{
    network::v1::{self as wire, program_order::Order, program_word::Word},
    way_out::{Message as _, PACKET_BYTES_MAX, SPARE_MAX},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
};
use sandbox::{
    Ready,
    fdpass::{Channel, PassError},
    host_socket,
    notify::{Listener, Notification, OnExec},
};

use super::{
    datagrams::Datagrams,
    egress_sweep::{self, copy_options},
    names::NameServer,
    proxy::Proxy,
    published::{Came, Published},
    refused::RefusedCalls,
    spare::Spares,
};

/// Calls that wait for `network` at once; the next is told to try again.
const WAITING_MAX: usize = 512;
/// How long a connect on the own loopback that nobody waits for is looked at: it is at its end before the kernel has answered, or its
/// server is busy.
const LOOPBACK_PATIENCE: Duration = Duration::from_millis(5);
/// Families of sockets, as `network` calls them.
pub(super) const INET: &str = "inet";
pub(super) const INET6: &str = "inet6";
/// Packets taken in a row before the loop looks at everything else again.
const PACKETS_PER_TURN_MAX: usize = 64;

/// A call that waits for `network`.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) listener: Rc<Listener>,
    pub(super) call: Notification,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Socket {
        on_exec: OnExec,
        nonblocking: bool,
    },
    Connect {
        address: SocketAddr,
    },
    /// It has a socket of its own network, and wants to go out: a socket of the host's takes its place first.
    MoveOut {
        address: SocketAddr,
    },
    /// It has one, and names a loopback: its own, or that of the host, if it was given that.
    Leads {
        socket: OwnedFd,
        address: SocketAddr,
    },
}

/// A connect in the program's own network that is under way.
#[derive(Debug)]
struct Local {
    listener: Rc<Listener>,
    call: Notification,
    socket: OwnedFd,
    address: SocketAddr,
}

#[derive(Debug)]
pub(crate) struct WayOut {
    /// Whether it was given one.
    pub(super) leads_out: bool,
    channel: Option<Channel>,
    /// The number of the program's own network.
    pub(super) own: u64,
    next: u64,
    waiting: HashMap<u64, Waiting>,
    local: Vec<Local>,
    names: Option<NameServer>,
    datagrams: Option<Datagrams>,
    /// Under which number their channel was asked for.
    datagrams_asked: Option<u64>,
    proxy: Option<Proxy>,
    pub(super) spares: Spares,
    /// Ports of sockets of the host's that it was given: what is accepted there came in, and is not this way's to end.
    given_ports: Vec<u16>,
    published: Published,
    /// What it was told to end in this turn.
    to_cut: HashSet<u64>,
}

impl WayOut {
    pub(crate) fn new(
        leads_out: bool,
        names: Option<NameServer>,
        datagrams: Option<Datagrams>,
        proxy: Option<Proxy>,
    ) -> io::Result<Self> {
        Ok(Self {
            leads_out,
            channel: None,
            own: host_socket::own_network()?,
            next: 1,
            waiting: HashMap::new(),
            local: Vec::new(),
            names,
            datagrams,
            datagrams_asked: None,
            proxy,
            spares: Spares::default(),
            given_ports: Vec::new(),
            published: Published::default(),
            to_cut: HashSet::new(),
        })
    }

    pub(super) fn of_service(self, given_ports: Vec<u16>, published: Published) -> Self {
        Self { given_ports, published, ..self }
    }

    /// Whether there is somebody who knows which places the program was given. Without, its own loopback is still its own.
    pub(super) fn can_ask(&self) -> bool {
        self.leads_out && self.channel.is_some()
    }

    /// Whether datagrams have a way; then they are not this file's to refuse.
    pub(super) fn has_datagrams(&self) -> bool {
        self.datagrams.is_some()
    }

    /// From process_manager, which has one only where `network` knows of none that lives.
    pub(crate) fn open(&mut self, fd: OwnedFd) -> io::Result<()> {
        if self.channel.is_some() {
            self.lose();
        }
        let channel = Channel::from(fd);
        channel.set_nonblocking()?;
        self.channel = Some(channel);
        if self.datagrams.is_some() {
            self.ask_datagrams();
        }
        Ok(())
    }

    fn ask_datagrams(&mut self) {
        let id = self.next;
        self.next += 1;
        let asked = self.send(&wire::ProgramWord { id, word: Some(Word::Datagrams(true)) }, None);
        self.datagrams_asked = asked.is_ok().then_some(id);
    }

    pub(crate) fn poll<'a>(&'a self, polled: &mut Vec<PollFd<'a>>) {
        if let Some(channel) = &self.channel {
            polled.push(PollFd::new(channel, PollFlags::IN));
        }
        polled.extend(self.local.iter().map(|local| PollFd::new(&local.socket, PollFlags::OUT)));
        if let Some(names) = &self.names {
            names.poll(polled);
        }
        if let Some(datagrams) = &self.datagrams {
            datagrams.poll(polled);
        }
        if let Some(proxy) = &self.proxy {
            proxy.poll(polled);
        }
        self.published.poll(polled, self.channel.is_some());
    }

    /// With all else that it is told in this turn: to find one connection costs as much as to find all.
    pub(super) fn add_cuts(&mut self, sockets: Vec<u64>) {
        self.to_cut.extend(sockets);
    }

    /// Takes what `network` has said, and what has come to its end by itself.
    pub(crate) fn serve(&mut self, ready: &Ready, refused: &mut RefusedCalls) -> io::Result<()> {
        let heard = match self.channel.as_ref().is_some_and(|channel| ready.has(channel)) {
            true => self.hear(refused),
            false => Ok(()),
        };
        // Whatever else fails.
        egress_sweep::cut(std::mem::take(&mut self.to_cut));
        heard?;
        if let Some(mut names) = self.names.take() {
            let mut next = self.next;
            names.serve(ready, &mut next, &mut |id, question| {
                self.send(&wire::ProgramWord { id, word: Some(Word::Question(question)) }, None).is_ok()
            });
            (self.next, self.names) = (next, Some(names));
        }
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.serve(ready, refused);
            if datagrams.misses_channel() && self.datagrams_asked.is_none() {
                self.ask_datagrams();
            }
        }
        if let Some(proxy) = &self.proxy {
            proxy.serve(ready, |socket| {
                let word = wire::ProgramWord { id: 0, word: Some(Word::Proxied(wire::ProgramProxied {})) };
                // Nobody is there to be asked: it is closed, and the program hears that.
                let _ = self.send(&word, Some(socket.as_fd()));
            });
        }
        if self.channel.is_some() {
            let mut published = std::mem::take(&mut self.published);
            let done = published.serve(|Came { listens, accepted, own }| {
                let came = wire::ProgramCame { listens: Some(super::egress_calls::to_wire(listens)) };
                let word = wire::ProgramWord { id: 0, word: Some(Word::Came(came)) };
                // Whom `network` has no room for is closed.
                let _ = self.send_with(&word, &[accepted.as_fd(), own.as_fd()]);
            });
            self.published = published;
            done?;
        }
        for local in std::mem::take(&mut self.local) {
            if is_writable(&local.socket, Duration::ZERO) {
                let done = rustix::net::connect(&local.socket, &local.address);
                finish_local(&local.listener, &local.call, local.address, done, refused)?;
            } else if local.listener.still_waits(&local.call) {
                self.local.push(local);
            }
        }
        Ok(())
    }

    fn hear(&mut self, refused: &mut RefusedCalls) -> io::Result<()> {
        let mut buffer = [0; PACKET_BYTES_MAX];
        for _ in 0..PACKETS_PER_TURN_MAX {
            let Some(channel) = &self.channel else { break };
            let mut fds = Vec::new();
            match channel.receive(&mut buffer, &mut fds) {
                Ok(length) => {
                    let packet = buffer.get(..length).unwrap_or_default();
                    match wire::ProgramOrder::decode(packet) {
                        Ok(order) => self.obey(order, fds, refused)?,
                        Err(_) => self.lose(),
                    }
                }
                Err(PassError::Full) => break,
                Err(_) => self.lose(),
            }
        }
        Ok(())
    }

    /// `network` has gone: nothing new goes out, and what is out ends, since nobody could take it back any more.
    fn lose(&mut self) {
        self.channel = None;
        // Before anything else, and whatever else fails.
        egress_sweep::cut_all(self.own, &self.given_ports);
        for (_, Waiting { listener, call, .. }) in self.waiting.drain() {
            // Whose listener has failed is heard where it is read; the others still wait for theirs.
            let _ = listener.refuse(&call, Errno::NETDOWN.raw_os_error());
        }
        if let Some(names) = &mut self.names {
            names.lose();
        }
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.lose();
        }
        self.datagrams_asked = None;
        self.spares = Spares::default();
    }

    fn obey(
        &mut self,
        order: wire::ProgramOrder,
        fds: Vec<OwnedFd>,
        refused: &mut RefusedCalls,
    ) -> io::Result<()> {
        let mut fds = match self.spares.answer(order.id, fds) {
            Ok(()) => return Ok(()),
            Err(fds) => fds,
        };
        let fd = fds.pop();
        match order.order {
            Some(Order::Answer(_)) if self.datagrams_asked == Some(order.id) => {
                self.datagrams_asked = None;
                match (&mut self.datagrams, fd) {
                    (Some(datagrams), Some(fd)) => datagrams.open(fd),
                    // What is sent is not reached; `network` has no more to say about it.
                    (Some(datagrams), None) => {
                        datagrams.refuse();
                        Ok(())
                    }
                    (None, _) => Ok(()),
                }
            }
            Some(Order::Answer(answer)) => match self.waiting.remove(&order.id) {
                Some(waiting) => self.answer(waiting, &answer, fd, refused),
                None if order.id == 0 => {
                    if !answer.refused.is_empty() {
                        refused.add("proxy", &answer.name, i32::try_from(answer.errno).unwrap_or(0));
                    }
                    Ok(())
                }
                None => {
                    if let Some(names) = &mut self.names {
                        names.answer(order.id, &answer, refused);
                    }
                    Ok(())
                }
            },
            Some(Order::Cut(wanted)) => {
                self.add_cuts(wanted.sockets);
                Ok(())
            }
            Some(Order::Look(_)) | None => Ok(()),
        }
    }

    fn answer(
        &mut self,
        waiting: Waiting,
        answer: &wire::ProgramAnswer,
        fd: Option<OwnedFd>,
        refused: &mut RefusedCalls,
    ) -> io::Result<()> {
        let Waiting { listener, call, what } = waiting;
        let errno = i32::try_from(answer.errno).unwrap_or(Errno::ACCESS.raw_os_error());
        if errno != 0 {
            if let (false, What::Connect { address, .. } | What::MoveOut { address }) =
                (answer.refused.is_empty(), &what)
            {
                refused.add("connect", &super::egress_calls::canonical(*address).to_string(), errno);
            }
            return listener.refuse(&call, errno);
        }
        match (what, fd) {
            (What::Socket { on_exec, nonblocking }, Some(socket)) => {
                hand(&listener, &call, &socket, on_exec, nonblocking)
            }
            (What::MoveOut { address }, Some(socket)) => {
                match self.put_in_place(&listener, &call, socket.as_fd()) {
                    Ok(()) => self.ask_connect(listener, call, address, socket.as_fd()),
                    Err(error) => listener.refuse(&call, error.raw_os_error().unwrap_or(EBADF)),
                }
            }
            (What::Connect { address }, _) if answer.own => {
                self.connect_own(listener, call, address, refused)
            }
            (What::Connect { .. }, _) => listener.give(&call, &[], 0),
            (What::Leads { socket, address }, _) if answer.own => {
                self.connect_local(listener, call, socket, address, refused)
            }
            (What::Leads { address, .. }, _) => self.ask_move_out(listener, call, address),
            (What::Socket { .. } | What::MoveOut { .. }, None) => {
                listener.refuse(&call, Errno::NETDOWN.raw_os_error())
            }
        }
    }

    /// Asks, or answers the call at once if that cannot be.
    pub(super) fn ask(&mut self, waiting: Waiting, word: Word, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if self.waiting.len() >= WAITING_MAX {
            return waiting.listener.refuse(&waiting.call, Errno::AGAIN.raw_os_error());
        }
        let id = self.next;
        self.next += 1;
        match self.send(&wire::ProgramWord { id, word: Some(word) }, fd) {
            Ok(()) => {
                self.waiting.insert(id, waiting);
                Ok(())
            }
            Err(errno) => waiting.listener.refuse(&waiting.call, errno.raw_os_error()),
        }
    }

    fn send(&self, word: &wire::ProgramWord, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        self.send_with(word, fd.as_slice())
    }

    fn send_with(&self, word: &wire::ProgramWord, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let channel = self.channel.as_ref().ok_or(Errno::NETDOWN)?;
        channel.send(&word.encode_to_vec(), fds).map_err(|error| match error {
            PassError::Full => Errno::AGAIN,
            _ => Errno::NETDOWN,
        })
    }

    /// Asks for sockets before they are needed. Without them each call waits for its own.
    pub(super) fn ask_spares(&mut self, is_v6: bool) {
        if self.channel.is_none() || !self.spares.are_wanted(is_v6) {
            return;
        }
        let id = self.next;
        self.next += 1;
        let domain = if is_v6 { INET6 } else { INET }.to_owned();
        let count = u32::try_from(SPARE_MAX).unwrap_or(0);
        let word = Word::Spare(wire::ProgramSpare { domain, count });
        if self.send(&wire::ProgramWord { id, word: Some(word) }, None).is_ok() {
            self.spares.asked(is_v6, id);
        }
    }

    /// This socket takes the place of the one that the call names, with the same options.
    pub(super) fn put_in_place(
        &self,
        listener: &Listener,
        call: &Notification,
        socket: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let [number, ..] = call.arguments;
        let before = host_socket::fetch(call.pid, number as i32)?;
        copy_options(&before, socket)?;
        let on_exec = egress_sweep::on_exec(call.pid, number as i32);
        listener.replace(call, socket, number as u32, on_exec)
    }

    /// A connect in the program's own network, carried out here: its own Landlock rules permit it none.
    pub(super) fn connect_local(
        &mut self,
        listener: Rc<Listener>,
        call: Notification,
        socket: OwnedFd,
        address: SocketAddr,
        refused: &mut RefusedCalls,
    ) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&socket)?;
        let blocking = !flags.contains(rustix::fs::OFlags::NONBLOCK);
        // The monitor waits for nobody; for as long as this call takes the socket does not either.
        if blocking {
            rustix::fs::fcntl_setfl(&socket, flags | rustix::fs::OFlags::NONBLOCK)?;
        }
        let connected = rustix::net::connect(&socket, &address);
        if blocking {
            rustix::fs::fcntl_setfl(&socket, flags)?;
        }
        match connected {
            Err(Errno::INPROGRESS) if blocking && self.local.len() < WAITING_MAX => {
                self.local.push(Local { listener, call, socket, address });
                Ok(())
            }
            // One that does not wait hears of the end elsewhere; on the loopback it has come.
            Err(Errno::INPROGRESS) => {
                let is_over = is_writable(&socket, LOOPBACK_PATIENCE);
                if is_over && host_socket::is_idle(socket.as_fd()).unwrap_or(false) {
                    refused.add("connect", &address.to_string(), Errno::CONNREFUSED.raw_os_error());
                }
                listener.refuse(&call, Errno::INPROGRESS.raw_os_error())
            }
            other => finish_local(&listener, &call, address, other, refused),
        }
    }
}

/// Ends a `socket` with this one.
pub(super) fn hand(
    listener: &Listener,
    call: &Notification,
    socket: &OwnedFd,
    on_exec: OnExec,
    nonblocking: bool,
) -> io::Result<()> {
    if nonblocking {
        rustix::io::ioctl_fionbio(socket, true)?;
    }
    listener.hand(call, socket.as_fd(), on_exec)
}

const EBADF: i32 = Errno::BADF.raw_os_error();

/// Ends a call that the monitor carried out.
pub(super) fn finish(listener: &Listener, call: &Notification, done: Result<(), Errno>) -> io::Result<()> {
    match done {
        Ok(()) => listener.give(call, &[], 0),
        Err(errno) => listener.refuse(call, errno.raw_os_error()),
    }
}

/// The same of a connect in its own network; that nobody listens there may be why it fails.
fn finish_local(
    listener: &Listener,
    call: &Notification,
    address: SocketAddr,
    done: Result<(), Errno>,
    refused: &mut RefusedCalls,
) -> io::Result<()> {
    if done == Err(Errno::CONNREFUSED) {
        refused.add("connect", &address.to_string(), Errno::CONNREFUSED.raw_os_error());
    }
    finish(listener, call, done)
}

fn is_writable(socket: &OwnedFd, patience: Duration) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::OUT)];
    let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(patience.subsec_nanos()) };
    rustix::event::poll(&mut polled, Some(&patience)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
