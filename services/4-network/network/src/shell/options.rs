//! Options of the kernel's sockets, by their names here.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::sockopt;

use super::live::{Io, Live};
use crate::core::{Domain, NetError, SocketOption, SocketType};

impl Live {
    /// Calls with the kernel's socket.
    fn on<T>(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<T>,
        what: &str,
    ) -> Result<T, NetError> {
        self.with(|io| {
            let socket = match io {
                Io::Fresh(socket) => socket.as_fd(),
                Io::Listener(listener) => listener.as_fd(),
                Io::Stream(stream) => stream.as_fd(),
                Io::Datagram(socket) => socket.as_fd(),
                Io::Away | Io::Program(_) | Io::Sources(_) => {
                    return Err(NetError::invalid("socket", "it is being connected, or closed"));
                }
            };
            call(socket).map_err(|errno| NetError::of_io(&errno.into(), what))
        })
    }

    pub(super) fn option(&self, option: SocketOption, domain: Domain) -> Result<u32, NetError> {
        let bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let read = |socket: BorrowedFd<'_>| match (option, domain) {
            (SocketOption::NoDelay, _) => sockopt::tcp_nodelay(socket).map(u32::from),
            (SocketOption::KeepAlive, _) => sockopt::socket_keepalive(socket).map(u32::from),
            (SocketOption::ReuseAddress, _) => sockopt::socket_reuseaddr(socket).map(u32::from),
            (SocketOption::Ttl, Domain::Inet) => sockopt::ip_ttl(socket),
            (SocketOption::Ttl, Domain::Inet6) => sockopt::ipv6_unicast_hops(socket).map(u32::from),
            (SocketOption::ReceiveBuffer, _) => sockopt::socket_recv_buffer_size(socket).map(bytes),
            (SocketOption::SendBuffer, _) => sockopt::socket_send_buffer_size(socket).map(bytes),
            (SocketOption::Error, _) => sockopt::socket_error(socket)
                .map(|error| error.err().map_or(0, |errno| errno.raw_os_error().unsigned_abs())),
        };
        self.on(read, option.name())
    }

    /// The value was checked.
    pub(super) fn set_option(
        &self,
        option: SocketOption,
        value: u32,
        domain: Domain,
        socket_type: SocketType,
    ) -> Result<(), NetError> {
        if option == SocketOption::NoDelay && socket_type == SocketType::Datagram {
            return Err(NetError::invalid("name", "`no_delay` is for streams"));
        }
        let size = usize::try_from(value).unwrap_or(usize::MAX);
        let hops = u8::try_from(value).ok();
        let set = |socket: BorrowedFd<'_>| match (option, domain) {
            (SocketOption::NoDelay, _) => sockopt::set_tcp_nodelay(socket, value != 0),
            (SocketOption::KeepAlive, _) => sockopt::set_socket_keepalive(socket, value != 0),
            (SocketOption::ReuseAddress, _) => sockopt::set_socket_reuseaddr(socket, value != 0),
            (SocketOption::Ttl, Domain::Inet) => sockopt::set_ip_ttl(socket, value),
            (SocketOption::Ttl, Domain::Inet6) => sockopt::set_ipv6_unicast_hops(socket, hops),
            (SocketOption::ReceiveBuffer, _) => sockopt::set_socket_recv_buffer_size(socket, size),
            (SocketOption::SendBuffer, _) => sockopt::set_socket_send_buffer_size(socket, size),
            (SocketOption::Error, _) => Err(rustix::io::Errno::INVAL),
        };
        self.on(set, option.name())
    }
}
