//! What sockets the program has open, by looking through the descriptors of all its threads.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::net::sockopt;
use sandbox::{host_socket, notify::OnExec, process::Signal};

use super::program;

/// A descriptor that moves from one thread to another while it is looked for is found the next time.
const SWEEPS: usize = 3;

/// Threads of every process of the program. A table of descriptors may be one thread's alone.
fn threads() -> Vec<i32> {
    let tasks = |pid: i32| {
        let folder = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let numbers = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Some(numbers.collect::<Vec<i32>>())
    };
    program::others().into_iter().filter_map(tasks).flatten().collect()
}

/// Descriptor and socket number of every socket of a thread.
fn sockets(thread: i32) -> io::Result<Vec<(i32, u64)>> {
    let folder = fs::read_dir(format!("/proc/{thread}/fd"))?;
    let socket = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, inode))
    };
    Ok(folder.filter_map(socket).collect())
}

/// Which of these somebody has open.
pub(super) fn alive(wanted: &[u64]) -> Vec<u64> {
    let open: Vec<u64> = threads()
        .into_iter()
        .filter_map(|thread| sockets(thread).ok())
        .flatten()
        .map(|(_, inode)| inode)
        .collect();
    wanted.iter().copied().filter(|inode| open.contains(inode)).collect()
}

/// Ends these connections: one descriptor of each is enough, it is the same socket for all who have it.
pub(super) fn cut(wanted: &[u64]) {
    for _ in 0..SWEEPS {
        sweep(|inode, socket| wanted.contains(&inode).then(|| reset(socket)));
    }
}

/// Ends every connection that goes out of this network.
pub(super) fn cut_all(own: u64) {
    for _ in 0..SWEEPS {
        sweep(|_, socket| {
            let is_foreign = host_socket::network_of(socket.as_fd()).is_ok_and(|network| network != own);
            is_foreign.then(|| reset(socket))
        });
    }
}

fn sweep(look: impl Fn(u64, &OwnedFd) -> Option<()>) {
    for thread in threads() {
        match sockets(thread) {
            Ok(list) => {
                for (number, inode) in list {
                    if let Ok(socket) = host_socket::fetch(thread, number) {
                        look(inode, &socket);
                    }
                }
            }
            // It has made itself unreadable: what it has cannot be taken back from it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                if let Some(pid) = rustix::process::Pid::from_raw(thread) {
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
            }
            Err(_) => {}
        }
    }
}

/// At once, and nothing of what is queued is delivered.
fn reset(socket: &OwnedFd) {
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
    if rustix::net::connect_unspec(socket).is_err() {
        let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
    }
}

/// Whether a descriptor is closed on exec.
pub(super) fn on_exec(thread: i32, number: i32) -> OnExec {
    const CLOEXEC: u32 = 0o2_000_000;
    let text = fs::read_to_string(format!("/proc/{thread}/fdinfo/{number}")).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0);
    if flags & CLOEXEC == 0 { OnExec::Keep } else { OnExec::Close }
}

/// What a program sets before it binds or connects, carried over to the socket that takes the place.
pub(super) fn copy_options(from: &OwnedFd, to: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(from)?;
    if flags.contains(rustix::fs::OFlags::NONBLOCK) {
        rustix::io::ioctl_fionbio(to, true)?;
    }
    sockopt::set_socket_reuseaddr(to, sockopt::socket_reuseaddr(from)?)?;
    sockopt::set_socket_reuseport(to, sockopt::socket_reuseport(from)?)?;
    sockopt::set_socket_keepalive(to, sockopt::socket_keepalive(from)?)?;
    sockopt::set_tcp_nodelay(to, sockopt::tcp_nodelay(from)?)?;
    sockopt::set_socket_linger(to, sockopt::socket_linger(from)?)?;
    for side in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(to, side, sockopt::socket_timeout(from, side)?)?;
    }
    if let Ok(only) = sockopt::ipv6_v6only(from) {
        sockopt::set_ipv6_v6only(to, only)?;
    }
    Ok(())
}
