//! Families of sockets that no network namespace divides, or that few programs need and that many holes were in.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use super::calls::{call, owned};
use super::servers::hear;
use super::{Attempt, Canaries, Failure, held, same};
use crate::fdpass::Channel;
use crate::guard::Guard::{Caps, Landlock, Netns, Seccomp};

/// Answers on one machine take microseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(400);
const AF_ALG: i32 = 38;
const AF_VSOCK: i32 = 40;
const AF_XDP: i32 = 44;

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(
        "be_given_a_descriptor",
        "is given a descriptor of a file of the user over an abstract socket",
        &[Netns, Landlock],
        given,
    ),
    Attempt::new(
        "connect_by_a_mapped_address",
        "talks with a TCP server on the host's loopback by an address of IPv6",
        &[Netns],
        mapped,
    ),
    Attempt::new("meet_an_abstract_name", "learns that a name is served on the host", &[Netns], meet),
    Attempt::new("send_as_the_monitor", "sends a message in the name of its monitor", &[Caps], send_as),
    Attempt::new("talk_to_the_hypervisor", "makes a socket to the machine below", &[Seccomp], |_| {
        family(AF_VSOCK, libc::SOCK_STREAM)
    }),
    Attempt::new("use_the_kernels_ciphers", "makes a socket to the kernel's ciphers", &[Seccomp], |_| {
        family(AF_ALG, libc::SOCK_SEQPACKET)
    }),
    Attempt::new(
        "pass_by_the_network_stack",
        "makes a socket to a network card's rings",
        &[Seccomp, Caps],
        |_| family(AF_XDP, libc::SOCK_RAW),
    ),
    Attempt::new("pair_of_another_family", "makes a pair of sockets that is not local", &[Seccomp], pair),
    Attempt::new("serve_a_low_port", "serves a port that others trust", &[Caps], |_| {
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 1)).map(drop).map_err(Failure::from)
    })
    .inside_only(),
];

fn family(family: i32, kind: i32) -> Result<(), Failure> {
    // SAFETY: numbers only.
    let raw = unsafe { call(libc::SYS_socket, [family as u64, kind as u64, 0, 0, 0]) }?;
    // SAFETY: it was just made.
    drop(unsafe { owned(raw) });
    Ok(())
}

fn given(canaries: &Canaries) -> Result<(), Failure> {
    let address = UnixAddress::from_abstract_name(canaries.get("descriptor_name")?)?;
    let channel = Channel::from(OwnedFd::from(UnixStream::connect_addr(&address)?));
    let mut given = Vec::new();
    channel.receive(&mut [0; 8], &mut given).map_err(io::Error::other)?;
    let file = given.pop().ok_or_else(|| held("no descriptor came"))?;
    let secret = canaries.get("secret")?;
    let mut found = vec![0; secret.len()];
    // All who come are given the same open file, whose place in it they share.
    std::fs::File::from(file).read_exact_at(&mut found, 0)?;
    same(&found, secret)
}

fn mapped(canaries: &Canaries) -> Result<(), Failure> {
    let address = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    let address = SocketAddr::V6(SocketAddrV6::new(address, canaries.number("tcp_port")?, 0, 0));
    let stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    same(&hear(stream)?, canaries.get("secret")?)
}

/// Only who shares names with the host cannot take this one.
fn meet(canaries: &Canaries) -> Result<(), Failure> {
    let address = UnixAddress::from_abstract_name(canaries.get("stream_name")?)?;
    match UnixListener::bind_addr(&address) {
        Ok(_) => Err(held("nobody serves the name")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Process 1 is whoever that is where the attempt runs.
fn send_as(_: &Canaries) -> Result<(), Failure> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, UCred, sendmsg};
    let (one, _other) = UnixDatagram::pair()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    if !control.push(SendAncillaryMessage::ScmCredentials(UCred {
        pid: rustix::process::Pid::INIT,
        uid,
        gid,
    })) {
        return Err(Failure::Broken("no room for credentials".to_owned()));
    }
    sendmsg(one.as_fd(), &[io::IoSlice::new(b"x")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn pair(_: &Canaries) -> Result<(), Failure> {
    const AF_TIPC: i32 = 30;
    let mut pair = [0i32; 2];
    let arguments = [AF_TIPC as u64, libc::SOCK_SEQPACKET as u64, 0, pair.as_mut_ptr() as u64, 0];
    // SAFETY: the kernel writes two numbers, which outlive the call.
    unsafe { call(libc::SYS_socketpair, arguments) }?;
    Ok(())
}
