//! Where the datagrams of a program go whose network has nothing but a loopback: a pair of virtual devices in that network. What it
//! sends to anybody leaves by the first, and whoever holds the socket on the second reads it there as a packet; what is written to
//! that socket comes to the program as from outside. No packet leaves the network by this.
//!
//! All numbers are this network's own and nobody else's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::sys;

/// The program's address by IPv4: the dummy address of RFC 7600, which its loopback has for names already. A C library that is asked
/// for addresses of configured families alone (`AI_ADDRCONFIG`) takes a network of nothing but 127.0.0.1 for none, and asks for no
/// name.
pub const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// By IPv6. A local one (RFC 4193): of a name with addresses of both families, IPv4 is tried first (RFC 6724), since nobody here knows
/// whether the host has IPv6.
pub const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd62, 0x6c77, 0x6b00, 0, 0, 0, 0, 8);
/// Addresses of the two devices: the program's, and the one with the socket.
pub const OWN_HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const OTHER_HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// What an Ethernet device can have at most: every datagram of IPv4 is one packet.
pub const PACKET_BYTES_MAX: usize = 65_535;

/// Numbers behind the loopback's.
const OWN_INDEX: i32 = 2;
const OTHER_INDEX: i32 = 3;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const REQUEST_TO_ANSWER: u16 = 0x1 | 0x4;
const MAKE: u16 = 0x400 | 0x200;
const ERROR: u16 = 2;
/// `IFF_UP`, and `IFF_NOARP`: nobody is asked who has an address.
const UP: u32 = 0x1;
const NO_ARP: u32 = 0x80;
/// `IFLA_*`, `VETH_INFO_PEER`.
const HARDWARE: u16 = 1;
const NAME: u16 = 3;
const BYTES_MAX: u16 = 4;
const LINK_INFO: u16 = 18;
const SEGMENTS_MAX: u16 = 40;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const PEER: u16 = 1;
/// `IFA_*`.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const ADDRESS_FLAGS: u16 = 8;
/// Nobody else can have it.
const NO_DAD: u32 = 0x2;
/// `RTA_*`, and what a route is.
const DEVICE: u16 = 4;
const PREFERRED_SOURCE: u16 = 7;
const MAIN_TABLE: u8 = 254;
const STATIC: u8 = 4;
const LINK_SCOPE: u8 = 253;
const UNICAST: u8 = 1;

/// A message of `rtnetlink` that is being written.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST_TO_ANSWER | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        Self(bytes)
    }

    /// `struct ifinfomsg`: a device with these flags.
    fn device(self, index: i32, flags: u32) -> Self {
        self.changed(index, flags, flags)
    }

    /// Of the flags only those in `mask` become as they are said.
    fn changed(mut self, index: i32, flags: u32, mask: u32) -> Self {
        self.0.extend([0; 4]);
        self.0.extend(index.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(mask.to_ne_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn attribute(self, kind: u16, value: &[u8]) -> Self {
        self.nested(kind, |message| message.bytes(value))
    }

    fn nested(mut self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let at = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        let mut whole = inside(self);
        whole.set_length(at, at);
        whole.0.resize(whole.0.len().next_multiple_of(4), 0);
        whole
    }

    /// Two bytes at `at`: how much has come from `since` on. Nothing here is longer than these can say.
    fn set_length(&mut self, at: usize, since: usize) {
        let length = u16::try_from(self.0.len() - since).unwrap_or(u16::MAX).to_ne_bytes();
        for (to, from) in self.0.iter_mut().skip(at).zip(length) {
            *to = from;
        }
    }

    fn whole(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_ne_bytes();
        for (to, from) in self.0.iter_mut().zip(length) {
            *to = from;
        }
        self.0
    }
}

fn new_pair() -> Message {
    let bytes_max = (PACKET_BYTES_MAX as u32).to_ne_bytes();
    let one = |message: Message, name: &[u8], hardware: &[u8]| {
        message.attribute(NAME, name).attribute(HARDWARE, hardware).attribute(BYTES_MAX, &bytes_max)
    };
    one(Message::new(NEW_LINK, MAKE).device(OWN_INDEX, NO_ARP), b"out\0", &OWN_HARDWARE)
        // What a program sends as one to be cut into several (`UDP_SEGMENT`) is cut before it is read.
        .attribute(SEGMENTS_MAX, &1_u32.to_ne_bytes())
        .nested(LINK_INFO, |info| {
            info.attribute(INFO_KIND, b"veth").nested(INFO_DATA, |data| {
                data.nested(PEER, |peer| one(peer.device(OTHER_INDEX, NO_ARP), b"relay\0", &OTHER_HARDWARE))
            })
        })
}

fn octets(ip: IpAddr) -> (u8, u8, Vec<u8>) {
    match ip {
        IpAddr::V4(v4) => (libc::AF_INET as u8, 32, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6 as u8, 128, v6.octets().to_vec()),
    }
}

fn new_address(ip: IpAddr) -> Message {
    let (family, bits, octets) = octets(ip);
    Message::new(NEW_ADDRESS, MAKE)
        .bytes(&[family, bits, 0, 0])
        .bytes(&OWN_INDEX.to_ne_bytes())
        .attribute(LOCAL, &octets)
        .attribute(ADDRESS, &octets)
        .attribute(ADDRESS_FLAGS, &NO_DAD.to_ne_bytes())
}

/// To everybody.
fn new_route(source: IpAddr) -> Message {
    let (family, _, octets) = octets(source);
    let scope = if source.is_ipv4() { LINK_SCOPE } else { 0 };
    Message::new(NEW_ROUTE, MAKE)
        .bytes(&[family, 0, 0, 0, MAIN_TABLE, STATIC, scope, UNICAST, 0, 0, 0, 0])
        .attribute(DEVICE, &OWN_INDEX.to_ne_bytes())
        .attribute(PREFERRED_SOURCE, &octets)
}

/// The kernel answers before it returns from the message.
fn ask(socket: &OwnedFd, message: Message) -> io::Result<()> {
    const ERRNO_AT: usize = 16;
    rustix::net::sendto(socket, &message.whole(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 1024];
    let (_, length) = rustix::net::recv(socket, &mut answer, RecvFlags::DONTWAIT)?;
    let answer = answer.get(..length).unwrap_or_default();
    let kind = answer.get(4..).and_then(|rest| rest.first_chunk()).map(|kind| u16::from_ne_bytes(*kind));
    let errno = answer.get(ERRNO_AT..).and_then(|rest| rest.first_chunk()).map(|it| i32::from_ne_bytes(*it));
    match (kind, errno) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(errno)) => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The two devices, in the current network.
pub(crate) fn make_devices() -> io::Result<OwnedFd> {
    // Its protocol is the first, `NETLINK_ROUTE`.
    let flags = SocketFlags::CLOEXEC;
    let route = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    ask(&route, new_pair())?;
    Ok(route)
}

/// Makes it in the current network, with the rights on that. The socket on the second device: each read is one packet with its
/// Ethernet header, and each write.
pub(crate) fn make() -> io::Result<OwnedFd> {
    let route = make_devices()?;
    // A device has its carrier once the other is up. One that was up before drops all that is sent until the kernel comes to tell it so,
    // which takes a second when it has much to do; one that comes up behind the other sends at once. So each does so once.
    for (index, flags) in [(OWN_INDEX, UP), (OTHER_INDEX, UP), (OWN_INDEX, 0), (OWN_INDEX, UP)] {
        ask(&route, Message::new(NEW_LINK, 0).changed(index, flags, UP))?;
    }
    ask(&route, new_route(OWN_V4.into()))?;
    // A kernel without IPv6 has no address for it, and no way either.
    if ask(&route, new_address(OWN_V6.into())).is_ok() {
        ask(&route, new_route(OWN_V6.into()))?;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Without a protocol it hears nothing before it is bound.
    let packets = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    sys::bind_packets(packets.as_fd(), OTHER_INDEX)?;
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_lengths() {
        let bytes = new_route(OWN_V4.into()).whole();
        assert_eq!(bytes[..4], u32::try_from(bytes.len()).unwrap().to_ne_bytes());
        assert_eq!(bytes[28..32], [8, 0, 4, 0], "the device, of four bytes");
        assert_eq!(bytes[36..44], [8, 0, 7, 0, 192, 0, 0, 8]);
        let pair = new_pair().whole();
        assert_eq!(pair[32..36], [8, 0, 3, 0]);
        assert!(pair.len().is_multiple_of(4));
    }
}
