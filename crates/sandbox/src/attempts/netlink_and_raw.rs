//! The kernel's own network interfaces: netlink, raw sockets, lists of who listens.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketType, recv, send, socket};

use super::{Attempt, Canaries, Failure, held};
use crate::guard::Guard::{Caps, Netns, Seccomp};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(
        "list_sockets",
        "finds a server of the user by a netlink dump",
        &[Seccomp, Netns],
        list_sockets,
    ),
    Attempt::new("read_the_table_of_ports", "finds a server of the user in /proc/net/tcp", &[Netns], table),
    Attempt::new("hear_kernel_events", "listens to the kernel's events", &[Seccomp], events),
    Attempt::new("make_a_raw_socket", "makes a socket that forges and hears packets", &[Caps], raw),
    Attempt::new("make_a_packet_socket", "makes a socket that hears every frame", &[Seccomp, Caps], packet),
    Attempt::new("add_an_address", "gives a network interface another address", &[Caps], add_an_address)
        .inside_only(),
];

/// Bytes of one answer.
const ANSWER_BYTES: usize = 32 * 1024;
/// `LISTEN` as a bit.
const LISTENING: u32 = 1 << 10;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// In `struct inet_diag_msg`, behind a netlink header of 16 bytes: the source port, big endian.
const PORT_OFFSET: usize = 16 + 4;

fn netlink(protocol: i32) -> Result<OwnedFd, Failure> {
    let protocol = u32::try_from(protocol).ok().and_then(std::num::NonZero::new).map(Protocol::from_raw);
    Ok(socket(AddressFamily::NETLINK, SocketType::RAW, protocol)?)
}

/// A netlink message with its header.
fn message(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend((16 + body.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn words<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Asks for all TCP sockets that listen and looks for the canary's port.
fn list_sockets(canaries: &Canaries) -> Result<(), Failure> {
    let port: u16 = canaries.number("tcp_port")?;
    let socket = netlink(libc::NETLINK_SOCK_DIAG)?;
    // struct inet_diag_req_v2: family, protocol, extensions, padding, states, then an id of zeros.
    let mut body = vec![libc::AF_INET as u8, libc::IPPROTO_TCP as u8, 0, 0];
    body.extend(LISTENING.to_ne_bytes());
    body.extend([0; 48]);
    send(
        &socket,
        &message(SOCK_DIAG_BY_FAMILY, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, &body),
        SendFlags::empty(),
    )?;
    let mut buffer = vec![0; ANSWER_BYTES];
    loop {
        let (_, length) = recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some(size) = words(rest, 0).map(u32::from_ne_bytes) {
            let kind = words(rest, 4).map(u16::from_ne_bytes);
            if kind != Some(SOCK_DIAG_BY_FAMILY) {
                return Err(held("no such server"));
            }
            if words(rest, PORT_OFFSET).map(u16::from_be_bytes) == Some(port) {
                return Ok(());
            }
            rest = rest.get(size.max(16) as usize..).unwrap_or_default();
        }
    }
}

fn table(canaries: &Canaries) -> Result<(), Failure> {
    let address = format!("0100007F:{:04X}", canaries.number::<u16>("tcp_port")?);
    let text = fs::read_to_string("/proc/net/tcp")?;
    if text.contains(&address) { Ok(()) } else { Err(held("no such server")) }
}

fn events(_: &Canaries) -> Result<(), Failure> {
    netlink(libc::NETLINK_KOBJECT_UEVENT)?;
    Ok(())
}

fn raw(_: &Canaries) -> Result<(), Failure> {
    socket(AddressFamily::INET, SocketType::RAW, Some(rustix::net::ipproto::UDP))?;
    Ok(())
}

fn packet(_: &Canaries) -> Result<(), Failure> {
    socket(AddressFamily::PACKET, SocketType::RAW, None)?;
    Ok(())
}

/// 127.77.77.77 on the loopback of its own network.
fn add_an_address(_: &Canaries) -> Result<(), Failure> {
    const ADDRESS: [u8; 4] = [127, 77, 77, 77];
    const LOCAL: u16 = 2;
    const LOOPBACK: u32 = 1;
    let socket = netlink(libc::NETLINK_ROUTE)?;
    // struct ifaddrmsg: family, prefix, flags, scope, index; then one attribute.
    let mut body = vec![libc::AF_INET as u8, 32, 0, 0];
    body.extend(LOOPBACK.to_ne_bytes());
    body.extend(8u16.to_ne_bytes());
    body.extend(LOCAL.to_ne_bytes());
    body.extend(ADDRESS);
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE;
    send(&socket, &message(libc::RTM_NEWADDR, flags, &body), SendFlags::empty())?;
    let mut buffer = vec![0; ANSWER_BYTES];
    let (_, length) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    // struct nlmsgerr behind the header: 0, or an errno below zero.
    match words(buffer.get(..length).unwrap_or_default(), 16).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error).into()),
        None => Err(held("a short answer")),
    }
}
