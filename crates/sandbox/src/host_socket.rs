//! Sockets that are handed into another network: which network one belongs to, and the lock on those that only go out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use crate::sys;

/// Which network namespace a socket was born in; the same number means the same one, for the life of the kernel.
pub fn network_of(socket: BorrowedFd<'_>) -> io::Result<u64> {
    sys::netns_cookie(socket)
}

/// The network namespace of this process.
pub fn own_network() -> io::Result<u64> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    network_of(socket.as_fd())
}

/// Nobody can connect to it from now on, whatever whoever holds it does: what asks for a new connection is dropped before
/// the socket sees it, and the lock cannot be taken off. For TCP. Newer kernels (seen with 6.18) permit it with a right alone.
pub fn lock_outbound(socket: BorrowedFd<'_>) -> io::Result<()> {
    sys::lock_outbound(socket)
}

/// Whether a TCP socket is neither connected nor on its way: the next `connect` may send something.
pub fn is_idle(socket: BorrowedFd<'_>) -> io::Result<bool> {
    const CLOSED: u8 = 7;
    Ok(sys::tcp_state(socket)? == CLOSED)
}

/// A descriptor of another process, as of this moment. `thread` may share its table with nobody; before Linux 6.9 the
/// table of its process is taken.
pub fn fetch(thread: i32, descriptor: i32) -> io::Result<OwnedFd> {
    /// `PIDFD_THREAD` is `O_EXCL`.
    const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL as u32);
    let gone = || io::Error::from_raw_os_error(libc::ESRCH);
    let open = |number: i32, flags| {
        let pid = Pid::from_raw(number).ok_or_else(gone)?;
        Ok::<_, io::Error>(rustix::process::pidfd_open(pid, flags)?)
    };
    let handle = match open(thread, THREAD) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            open(leader(thread).ok_or_else(gone)?, PidfdFlags::empty())?
        }
        other => other?,
    };
    Ok(rustix::process::pidfd_getfd(&handle, descriptor, PidfdGetfdFlags::empty())?)
}

/// Whether two threads have one table of descriptors. An error, as of a kernel that does not tell, says nothing.
pub fn share_descriptors(first: i32, second: i32) -> io::Result<bool> {
    sys::share_descriptors(first, second)
}

fn leader(thread: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn to_a_locked_socket_nobody_connects_and_it_connects_itself() {
        let locked = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        match lock_outbound(locked.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
            done => done.unwrap(),
        }
        // No answer at all: the request never reaches the socket.
        let limit = std::time::Duration::from_millis(300);
        let refused = TcpStream::connect_timeout(&locked.local_addr().unwrap(), limit).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        lock_outbound(socket.as_fd()).unwrap();
        assert!(lock_outbound(socket.as_fd()).is_err(), "the lock was replaced");
        assert!(is_idle(socket.as_fd()).unwrap());
        rustix::net::connect(&socket, &open.local_addr().unwrap()).unwrap();
        assert!(!is_idle(socket.as_fd()).unwrap());
        assert!(open.accept().is_ok());
    }

    #[test]
    fn a_socket_tells_its_network_and_a_descriptor_is_fetched() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(network_of(listener.as_fd()).unwrap(), own_network().unwrap());
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let again = fetch(thread, listener.as_raw_fd()).unwrap();
        let cookie = |fd: BorrowedFd<'_>| rustix::net::sockopt::socket_cookie(fd).unwrap();
        assert_eq!(cookie(again.as_fd()), cookie(listener.as_fd()));
        assert!(fetch(thread, i32::MAX).is_err());
        let leader = std::process::id() as i32;
        assert!(share_descriptors(leader, thread).unwrap());
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let shared = share_descriptors(leader, other.id() as i32).unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!shared);
    }
}
