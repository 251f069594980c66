//! Calls on a ring, which a system call filter does not see.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::net::{AddressFamily, SocketType};

use super::ring::{CONNECT, OPEN, Request, Ring, SOCKET};
use super::servers::hear;
use super::{Attempt, Canaries, Failure, same};
use crate::guard::Guard::{Landlock, Mountns, Netns, Seccomp};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("make_a_ring", "makes a ring, on which calls pass by the filter", &[Seccomp], make),
    Attempt::new("open_by_a_ring", "reads a file of the user", &[Seccomp, Mountns, Landlock], open),
    Attempt::new(
        "connect_by_a_ring",
        "talks with a TCP server on the host's loopback",
        &[Seccomp, Netns],
        connect,
    ),
    Attempt::new("socket_by_a_ring", "makes a socket of a family that is refused", &[Seccomp], socket),
];

fn make(_: &Canaries) -> Result<(), Failure> {
    Ring::new()?;
    Ok(())
}

/// The descriptor that a request resulted in.
fn descriptor(raw: i32) -> OwnedFd {
    // SAFETY: the kernel made it for this request; nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

fn open(canaries: &Canaries) -> Result<(), Failure> {
    let path = CString::new(canaries.file("secret")?.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let request = Request {
        operation: OPEN,
        fd: libc::AT_FDCWD,
        address: path.as_ptr() as u64,
        operation_flags: libc::O_RDONLY as u32,
        ..Request::default()
    };
    let mut found = Vec::new();
    File::from(descriptor(Ring::new()?.carry_out(request)?)).read_to_end(&mut found)?;
    same(&found, canaries.get("secret")?)
}

fn connect(canaries: &Canaries) -> Result<(), Failure> {
    let ring = Ring::new()?;
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    let port: u16 = canaries.number("tcp_port")?;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    let request = Request {
        operation: CONNECT,
        fd: socket.as_raw_fd(),
        offset: std::mem::size_of::<libc::sockaddr_in>() as u64,
        address: &raw const address as u64,
        ..Request::default()
    };
    ring.carry_out(request)?;
    same(&hear(TcpStream::from(socket))?, canaries.get("secret")?)
}

/// Kernel events: a family of which the filter lets only route lookups pass.
fn socket(_: &Canaries) -> Result<(), Failure> {
    let request = Request {
        operation: SOCKET,
        fd: libc::AF_NETLINK,
        offset: libc::SOCK_DGRAM as u64,
        length: libc::NETLINK_KOBJECT_UEVENT as u32,
        ..Request::default()
    };
    drop(descriptor(Ring::new()?.carry_out(request)?));
    Ok(())
}
