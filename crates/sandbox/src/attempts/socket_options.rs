//! Options of ordinary sockets that reach beyond the socket, and more of netlink's protocols.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;

use super::calls::{call, owned};
use super::{Attempt, Canaries, Failure, NEEDS_THE_HOSTS_RIGHT};
use crate::guard::Guard::{Caps, Seccomp, Userns};

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new(
        "change_the_packet_filter",
        "makes a socket to the kernel's packet filter",
        &[Seccomp],
        |_| netlink(libc::NETLINK_NETFILTER),
    ),
    Attempt::new(
        "talk_to_kernel_families",
        "makes a socket to the kernel's generic families",
        &[Seccomp],
        |_| netlink(libc::NETLINK_GENERIC),
    ),
    Attempt::new("talk_to_the_auditor", "makes a socket to the kernel's audit", &[Seccomp], |_| {
        netlink(libc::NETLINK_AUDIT)
    }),
    Attempt::new("change_encryption_of_packets", "makes a socket to the kernel's IPsec", &[Seccomp], |_| {
        netlink(libc::NETLINK_XFRM)
    }),
    Attempt::new("mark_its_packets", "gives its packets a mark by which hosts route", &[Caps], |_| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        option(&socket, libc::SOL_SOCKET, libc::SO_MARK, 7)
    }),
    Attempt::new(
        "force_a_buffer",
        "takes more memory for a socket than hosts allow",
        &[Caps, Userns],
        |_| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 1 << 16)
        },
    )
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("speak_for_other_addresses", "serves addresses that are not its own", &[Caps], |_| {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        option(&socket, libc::SOL_IP, libc::IP_TRANSPARENT, 1)
    })
    .beside(&[Seccomp]),
    Attempt::new("forge_a_connection", "sets the state of a TCP connection by hand", &[Caps], |_| {
        const TCP_REPAIR: i32 = 19;
        // SAFETY: numbers only.
        let raw =
            unsafe { call(libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0, 0, 0]) }?;
        // SAFETY: it was just made.
        option(&unsafe { owned(raw) }, libc::IPPROTO_TCP, TCP_REPAIR, 1)
    }),
    Attempt::new("read_the_old_packet_filter", "reads the tables of the old packet filter", &[Caps], tables),
    Attempt::new("take_the_loopback_down", "takes a network interface down by its name", &[Caps], link_down)
        .inside_only(),
];

fn netlink(protocol: i32) -> Result<(), Failure> {
    let arguments = [libc::AF_NETLINK as u64, libc::SOCK_RAW as u64, protocol as u64, 0, 0];
    // SAFETY: numbers only.
    let raw = unsafe { call(libc::SYS_socket, arguments) }?;
    // SAFETY: it was just made.
    drop(unsafe { owned(raw) });
    Ok(())
}

fn option(socket: &impl AsRawFd, level: i32, name: i32, value: i32) -> Result<(), Failure> {
    let arguments = [
        socket.as_raw_fd() as u64,
        level as u64,
        name as u64,
        &raw const value as u64,
        size_of::<i32>() as u64,
    ];
    // SAFETY: one number, which outlives the call, with its size.
    unsafe { call(libc::SYS_setsockopt, arguments) }?;
    Ok(())
}

/// `IPT_SO_GET_INFO` of the table of filters; holes were in the calls that change it, which ask for the same right.
fn tables(_: &Canaries) -> Result<(), Failure> {
    const GET_INFO: i32 = 64;
    const INFO_BYTES: usize = 84;
    // SAFETY: numbers only.
    let raw = unsafe { call(libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_RAW as u64, 1, 0, 0]) };
    let socket = match raw {
        // SAFETY: it was just made.
        Ok(raw) => unsafe { owned(raw) },
        Err(_) => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map(std::os::fd::OwnedFd::from)?,
    };
    let mut info = [0u8; INFO_BYTES];
    for (to, from) in info.iter_mut().zip(b"filter") {
        *to = *from;
    }
    let mut length = INFO_BYTES as u32;
    let arguments = [
        socket.as_raw_fd() as u64,
        libc::SOL_IP as u64,
        GET_INFO as u64,
        info.as_mut_ptr() as u64,
        &raw mut length as u64,
    ];
    // SAFETY: a buffer with its length, both of which outlive the call.
    unsafe { call(libc::SYS_getsockopt, arguments) }?;
    Ok(())
}

/// Of its own network, which ends with it.
fn link_down(_: &Canaries) -> Result<(), Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: ifreq is plain data, zero is valid, and no flag but UP is taken away.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    // SAFETY: the kernel reads one structure, which outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}
