//! What each call about a TCP socket does.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

use contracts::network::v1::{self as wire, program_word::Word};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt},
};
use sandbox::{
    host_socket,
    notify::{Listener, Named, Notification, OnExec},
};

use super::{
    egress::{INET, INET6, Waiting, WayOut, What, finish, hand},
    refused::RefusedCalls,
};

/// On x86-64, the only architecture that the filter lets in.
const SOCKET: i32 = 41;
const CONNECT: i32 = 42;
const BIND: i32 = 49;
const LISTEN: i32 = 50;
const STREAM: u32 = 1;
const DATAGRAM: u32 = 2;
/// The flags of `socket` beside its type.
const NONBLOCK: u32 = SocketFlags::NONBLOCK.bits();
const CLOEXEC: u32 = SocketFlags::CLOEXEC.bits();
const TYPE: u32 = 0xf;
const TCP: u32 = 6;

/// The address that is meant: IPv4 in the clothes of IPv6 is IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

pub(super) fn to_wire(address: SocketAddr) -> wire::Address {
    let port = u32::from(address.port());
    match address {
        SocketAddr::V4(v4) => wire::Address { ip: v4.ip().octets().to_vec(), port, ..Default::default() },
        SocketAddr::V6(v6) => wire::Address {
            ip: v6.ip().octets().to_vec(),
            port,
            flowinfo: v6.flowinfo(),
            scope_id: v6.scope_id(),
        },
    }
}

/// The family of a TCP socket; none of any other.
fn family_of(socket: &OwnedFd) -> Option<AddressFamily> {
    let is_stream = sockopt::socket_type(socket).ok()? == SocketType::STREAM;
    let family = sockopt::socket_domain(socket).ok()?;
    (is_stream && [AddressFamily::INET, AddressFamily::INET6].contains(&family)).then_some(family)
}

/// Whether the kernel would take this address for a socket of the family.
fn fits(family: AddressFamily, address: &SocketAddr) -> bool {
    matches!(
        (family, address),
        (AddressFamily::INET, SocketAddr::V4(_)) | (AddressFamily::INET6, SocketAddr::V6(_))
    )
}

/// What a call names that is no TCP socket.
enum Other {
    /// There is nothing left to do.
    Answered,
    Socket(OwnedFd),
    /// The caller has made itself unreadable.
    Unknown,
}

/// A TCP socket of the program, as its call names it.
struct Found {
    socket: OwnedFd,
    family: AddressFamily,
    is_own: bool,
}

impl WayOut {
    /// Answers a call, now or later; false if it is none about a TCP socket.
    pub(crate) fn take(
        &mut self,
        listener: &Rc<Listener>,
        call: &Notification,
        refused: &mut RefusedCalls,
    ) -> io::Result<bool> {
        match call.number {
            SOCKET => self.socket(listener, call, refused),
            CONNECT => self.connect(listener, call, refused),
            BIND => self.bind(listener, call),
            LISTEN => self.listen(listener, call, refused),
            _ => Ok(false),
        }
    }

    fn socket(
        &mut self,
        listener: &Rc<Listener>,
        call: &Notification,
        refused: &mut RefusedCalls,
    ) -> io::Result<bool> {
        // The kernel takes three `int`s.
        let [domain, kind, protocol] =
            [0, 1, 2].map(|at: usize| call.arguments.get(at).map_or(0, |a| *a as u32));
        let name = match AddressFamily::from_raw(domain as u16) {
            AddressFamily::INET => INET,
            AddressFamily::INET6 => INET6,
            _ => return Ok(false),
        };
        let answered = match (kind & TYPE, protocol) {
            _ if kind & !(TYPE | NONBLOCK | CLOEXEC) != 0 => {
                listener.refuse(call, Errno::INVAL.raw_os_error())
            }
            (STREAM, 0 | TCP) => {
                let on_exec = if kind & CLOEXEC == 0 { OnExec::Keep } else { OnExec::Close };
                let nonblocking = kind & NONBLOCK != 0;
                let answered = match self.spares.take(name == INET6) {
                    Some(socket) => hand(listener, call, &socket, on_exec, nonblocking),
                    None => {
                        let what = What::Socket { on_exec, nonblocking };
                        let waiting = Waiting { listener: Rc::clone(listener), call: *call, what };
                        self.ask(waiting, Word::Socket(name.to_owned()), None)
                    }
                };
                self.ask_spares(name == INET6);
                answered
            }
            (STREAM, _) => listener.refuse(call, Errno::PROTONOSUPPORT.raw_os_error()),
            // Of its own network, which leads nowhere; what is read here cannot change, it stands in registers.
            (DATAGRAM, _) => return Ok(false),
            _ => {
                refused.add("socket", "raw", Errno::PERM.raw_os_error());
                listener.refuse(call, Errno::PERM.raw_os_error())
            }
        };
        answered.map(|()| true)
    }

    /// The socket that the call names.
    fn find(&self, listener: &Listener, call: &Notification) -> io::Result<Result<Found, Other>> {
        let [number, ..] = call.arguments;
        let socket = match host_socket::fetch(call.pid, number as i32) {
            Ok(socket) => socket,
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                return Ok(Err(Other::Unknown));
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(Errno::BADF.raw_os_error());
                return listener.refuse(call, errno).map(|()| Err(Other::Answered));
            }
        };
        // Whatever was fetched belongs to the caller, if the call still waits.
        if !listener.still_waits(call) {
            return Ok(Err(Other::Answered));
        }
        let Some(family) = family_of(&socket) else { return Ok(Err(Other::Socket(socket))) };
        let is_own = host_socket::network_of(socket.as_fd())? == self.own;
        Ok(Ok(Found { socket, family, is_own }))
    }

    /// The socket of TCP and the address that a call names; what it was answered with, if it names none.
    fn addressed(
        &self,
        listener: &Listener,
        call: &Notification,
    ) -> io::Result<Result<(Found, SocketAddr), bool>> {
        // Before it is asked whether the call still waits: whatever was read is its own then.
        let named = call.named();
        let found = match self.find(listener, call)? {
            Ok(found) => found,
            // Landlock refuses the kernel's own `connect` and `bind` of TCP, whatever stands there by then.
            Err(other) => return Ok(Err(matches!(other, Other::Answered))),
        };
        let errno = match named {
            Ok(Named::Internet(address)) if fits(found.family, &address) => return Ok(Ok((found, address))),
            // With `AF_UNSPEC` too: what was authorised is ended, not taken back to be used for something else.
            Ok(_) => Errno::AFNOSUPPORT.raw_os_error(),
            Err(errno) => errno,
        };
        listener.refuse(call, errno).map(|()| Err(true))
    }

    fn connect(
        &mut self,
        listener: &Rc<Listener>,
        call: &Notification,
        refused: &mut RefusedCalls,
    ) -> io::Result<bool> {
        let (found, address) = match self.addressed(listener, call)? {
            Ok(addressed) => addressed,
            Err(is_answered) => return Ok(is_answered),
        };
        let ip = address.ip().to_canonical();
        let (listener, call) = (Rc::clone(listener), *call);
        match found.is_own {
            // Bound before it was said where it is to go: that 127.0.0.1 may be the host's is for `network` to say.
            true if ip.is_loopback() && self.can_ask() => {
                let waiting = Waiting { listener, call, what: What::Leads { socket: found.socket, address } };
                self.ask(waiting, Word::Leads(to_wire(address)), None)?;
            }
            true if ip.is_loopback() || ip.is_unspecified() => {
                self.connect_local(listener, call, found.socket, address, refused)?;
            }
            _ if !self.leads_out => {
                // There is no route, or it is of another program that has one.
                let errno = if found.is_own { Errno::NETUNREACH } else { Errno::ACCESS }.raw_os_error();
                refused.add("connect", &canonical(address).to_string(), errno);
                listener.refuse(&call, errno)?;
            }
            true => self.ask_move_out(listener, call, address)?,
            false => self.ask_connect(listener, call, address, found.socket.as_fd())?,
        }
        Ok(true)
    }

    /// A socket of the host's is to take the place of one of its own network.
    pub(super) fn ask_move_out(
        &mut self,
        listener: Rc<Listener>,
        call: Notification,
        address: SocketAddr,
    ) -> io::Result<()> {
        // The socket's own family: the address fits it.
        let name = if address.is_ipv4() { INET } else { INET6 };
        let waiting = Waiting { listener, call, what: What::MoveOut { address } };
        self.ask(waiting, Word::Socket(name.to_owned()), None)
    }

    pub(super) fn ask_connect(
        &mut self,
        listener: Rc<Listener>,
        call: Notification,
        address: SocketAddr,
        socket: std::os::fd::BorrowedFd<'_>,
    ) -> io::Result<()> {
        let waiting = Waiting { listener, call, what: What::Connect { address } };
        self.ask(waiting, Word::Connect(to_wire(address)), Some(socket))
    }

    /// To the program's own loopback.
    pub(super) fn connect_own(
        &mut self,
        listener: Rc<Listener>,
        call: Notification,
        address: SocketAddr,
        refused: &mut RefusedCalls,
    ) -> io::Result<()> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        match self.move_in(&listener, &call, family) {
            Ok(socket) => self.connect_local(listener, call, socket, address, refused),
            Err(error) => listener.refuse(&call, error.raw_os_error().unwrap_or(Errno::BADF.raw_os_error())),
        }
    }

    /// A socket of the program's own network takes the place of the host's.
    fn move_in(
        &self,
        listener: &Listener,
        call: &Notification,
        family: AddressFamily,
    ) -> io::Result<OwnedFd> {
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        self.put_in_place(listener, call, socket.as_fd())?;
        Ok(socket)
    }

    fn bind(&mut self, listener: &Rc<Listener>, call: &Notification) -> io::Result<bool> {
        let (found, address) = match self.addressed(listener, call)? {
            Ok(addressed) => addressed,
            Err(is_answered) => return Ok(is_answered),
        };
        let done = match self.own(listener, call, found) {
            Ok(socket) => finish(listener, call, rustix::net::bind(&socket, &address)),
            Err(error) => listener.refuse(call, error.raw_os_error().unwrap_or(Errno::BADF.raw_os_error())),
        };
        done.map(|()| true)
    }

    /// Of every socket: a call that went on could find one of the host's in the place of what was looked at, and Landlock has
    /// no word about it.
    fn listen(
        &mut self,
        listener: &Rc<Listener>,
        call: &Notification,
        refused: &mut RefusedCalls,
    ) -> io::Result<bool> {
        let backlog = call.arguments.get(1).map_or(0, |backlog| *backlog as i32);
        let listens = |socket: OwnedFd| finish(listener, call, rustix::net::listen(&socket, backlog));
        let done = match self.find(listener, call)? {
            Ok(found) => match self.own(listener, call, found) {
                Ok(socket) => listens(socket),
                Err(error) => {
                    listener.refuse(call, error.raw_os_error().unwrap_or(Errno::BADF.raw_os_error()))
                }
            },
            Err(Other::Answered) => Ok(()),
            Err(Other::Socket(socket)) => listens(socket),
            Err(Other::Unknown) => {
                let errno = Errno::PERM.raw_os_error();
                refused.add("listen", "of a process that cannot be looked at", errno);
                listener.refuse(call, errno)
            }
        };
        done.map(|()| true)
    }

    /// Whoever serves, serves in its own network.
    fn own(&self, listener: &Listener, call: &Notification, found: Found) -> io::Result<OwnedFd> {
        match found.is_own {
            true => Ok(found.socket),
            // It was given one that listens already, and asks for another backlog.
            false if call.number == LISTEN && sockopt::socket_acceptconn(&found.socket)? => Ok(found.socket),
            // One that is connected is not given up for this.
            false if !host_socket::is_idle(found.socket.as_fd())? => Err(Errno::INVAL.into()),
            false => self.move_in(listener, call, found.family),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_address() {
        let of = |text: &str| canonical(text.parse().unwrap()).to_string();
        assert_eq!(of("[::ffff:192.0.2.1]:80"), "192.0.2.1:80");
        assert_eq!(of("[fe80::1%3]:80"), "[fe80::1%3]:80");
        assert!(fits(AddressFamily::INET6, &"[::1]:1".parse().unwrap()));
        assert!(!fits(AddressFamily::INET6, &"127.0.0.1:1".parse().unwrap()));
    }
}
