//! What sockets the program has open, by looking through the descriptors of all its threads.

use std::{
    collections::HashSet,
    fs, io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use rustix::net::sockopt;
use sandbox::{host_socket, notify::OnExec, process::Signal};

use super::program;

/// A descriptor that moves from one thread to another while it is looked for is found the next time.
const SWEEPS: usize = 3;

/// Threads of every process of the program, one for each table of descriptors as far as that can be told: `close_range` can
/// give a thread one of its own.
fn threads() -> Vec<i32> {
    let mut found = Vec::new();
    for pid in program::others() {
        let Ok(folder) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        let numbers = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut last = None;
        for thread in numbers {
            let shares = |last| host_socket::share_descriptors(last, thread).unwrap_or(false);
            if !last.is_some_and(shares) {
                found.push(thread);
                last = Some(thread);
            }
        }
    }
    found
}

/// Descriptor and socket number of every socket of a thread.
fn sockets(thread: i32) -> io::Result<Vec<(i32, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{thread}/fd"))?.flatten() {
        let Some(inode) = socket_of(fs::read_link(entry.path()))? else { continue };
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((number, inode));
        }
    }
    Ok(found)
}

/// The number of the socket that a descriptor leads to; none of what is no socket, or has been closed since.
fn socket_of(link: io::Result<PathBuf>) -> io::Result<Option<u64>> {
    match link {
        Ok(target) => {
            let number = |text: &str| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
            Ok(target.to_str().and_then(number))
        }
        // The folder of an unreadable process is its namespace's root's: whoever has that number can list it and read nothing.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether a thread has made itself unreadable. One that is ending looks the same, and has nothing any more.
fn is_unreadable(thread: i32, error: &io::Error) -> bool {
    let has_memory = || {
        let status = fs::read_to_string(format!("/proc/{thread}/status"));
        status.is_ok_and(|text| text.lines().any(|line| line.starts_with("VmSize:")))
    };
    error.kind() == io::ErrorKind::PermissionDenied && has_memory()
}

/// A socket of a thread, if it still is the one that was listed.
fn take(thread: i32, number: i32, inode: u64) -> io::Result<Option<OwnedFd>> {
    let socket = host_socket::fetch(thread, number)?;
    let is_it = rustix::fs::fstat(&socket)?.st_ino == inode;
    Ok(is_it.then_some(socket))
}

/// Ends these connections: one descriptor of each is enough, it is the same socket for all who have it.
pub(super) fn cut(wanted: HashSet<u64>) {
    sweep_for(wanted, |left| sweep(|inode| left.contains(&inode), reset));
}

/// Again for what was not found, and not for what was.
fn sweep_for(mut left: HashSet<u64>, mut sweep: impl FnMut(&HashSet<u64>) -> HashSet<u64>) {
    for _ in 0..SWEEPS {
        if left.is_empty() {
            return;
        }
        let ended = sweep(&left);
        left.retain(|inode| !ended.contains(inode));
    }
}

/// Ends every connection that goes out of this network. What listens goes nowhere, and belongs to others too.
pub(super) fn cut_all(own: u64, given_ports: &[u16]) {
    for _ in 0..SWEEPS {
        sweep(
            |_| true,
            |socket| {
                let leads_out =
                    || host_socket::network_of(socket.as_fd()).is_ok_and(|network| network != own);
                if !is_given(socket, given_ports) && leads_out() {
                    reset(socket);
                }
            },
        );
    }
}

/// A socket of the host's that was given to the program, or was accepted there. No connect leaves from such a port: the kernel
/// takes none that is bound.
fn is_given(socket: &OwnedFd, given_ports: &[u16]) -> bool {
    let local = || SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok();
    let is_at_given = || local().is_some_and(|local| given_ports.contains(&local.port()));
    !given_ports.is_empty() && (sockopt::socket_acceptconn(socket).unwrap_or(false) || is_at_given())
}

/// Which were found.
fn sweep(is_wanted: impl Fn(u64) -> bool, end: impl Fn(&OwnedFd)) -> HashSet<u64> {
    let mut ended = HashSet::new();
    for thread in threads() {
        let swept = sockets(thread).and_then(|list| {
            for (number, inode) in list.into_iter().filter(|(_, inode)| is_wanted(*inode)) {
                if ended.contains(&inode) {
                    continue;
                }
                match take(thread, number, inode) {
                    Ok(Some(socket)) => {
                        end(&socket);
                        ended.insert(inode);
                    }
                    Err(error) if is_unreadable(thread, &error) => return Err(error),
                    Ok(None) | Err(_) => {}
                }
            }
            Ok(())
        });
        // It has made itself unreadable: what it has cannot be taken back from it.
        if let Err(error) = swept
            && is_unreadable(thread, &error)
            && let Some(pid) = rustix::process::Pid::from_raw(thread)
        {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    ended
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, os::fd::AsRawFd};

    #[test]
    fn a_descriptor_that_may_not_be_read_is_not_taken_for_no_socket() {
        let of = |target: &str| socket_of(Ok(PathBuf::from(target))).unwrap();
        assert_eq!((of("socket:[7]"), of("pipe:[7]"), of("/socket:[7]")), (Some(7), None, None));
        let failed = |kind: io::ErrorKind| socket_of(Err(kind.into()));
        assert_eq!(failed(io::ErrorKind::NotFound).unwrap(), None);
        assert_eq!(
            failed(io::ErrorKind::PermissionDenied).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
    }

    #[test]
    fn what_was_found_is_not_looked_for_again() {
        let mut asked = Vec::new();
        let mut sweep = |finds: &'static [u64]| {
            asked.clear();
            sweep_for(HashSet::from([1, 2]), |left| {
                asked.push(left.len());
                left.iter().copied().filter(|one| finds.contains(one)).collect()
            });
            asked.clone()
        };
        assert_eq!(sweep(&[1, 2]), [2]);
        assert_eq!(sweep(&[2]), [2, 1, 1]);
        assert_eq!(sweep(&[]), [2; SWEEPS]);
    }

    #[test]
    fn who_has_ended_is_not_unreadable() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let own = rustix::process::getpid().as_raw_nonzero().get();
        assert!(is_unreadable(own, &denied));
        assert!(!is_unreadable(own, &io::ErrorKind::NotFound.into()));
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let number = i32::try_from(ended.id()).unwrap();
        let is_zombie = || {
            let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
            status.contains("State:\tZ")
        };
        while !is_zombie() {
            std::thread::yield_now();
        }
        assert!(!is_unreadable(number, &denied));
        ended.wait().unwrap();
        assert!(!is_unreadable(number, &denied));
    }

    #[test]
    fn what_was_given_or_accepted_there_is_not_cut_with_what_goes_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let out = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let [listener, out, accepted]: [OwnedFd; 3] = [listener.into(), out.into(), accepted.into()];
        let given = [address.port()];
        assert!(is_given(&listener, &given) && is_given(&accepted, &given));
        assert!(!is_given(&out, &given) && !is_given(&accepted, &[]));
    }

    #[test]
    fn a_socket_is_taken_only_if_it_is_the_one_that_was_listed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let number = listener.as_raw_fd();
        let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
        assert!(sockets(thread).unwrap().contains(&(number, inode)));
        assert!(take(thread, number, inode).unwrap().is_some());
        assert!(take(thread, number, inode + 1).unwrap().is_none());
    }
}
