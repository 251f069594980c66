//! Datagrams as packets: what a program's network sends is read here, and what comes back is written.
//!
//! A packet is an Ethernet frame of the two devices of `sandbox::datagram_link`. Only what a socket of UDP sends by itself is one:
//! options, other protocols, other senders and everything that is not whole are none. A datagram of IPv6 that is longer than a packet
//! comes in pieces, one after the other.

use ::core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use contracts::datagram::DATAGRAM_BYTES_MAX;
use sandbox::datagram_link::{OTHER_HARDWARE, OWN_HARDWARE, OWN_V4, OWN_V6, PACKET_BYTES_MAX};

/// What is read at once: a packet with its Ethernet header.
pub const FRAME_BYTES_MAX: usize = ETHERNET_BYTES + PACKET_BYTES_MAX;
const ETHERNET_BYTES: usize = 14;
const V4_BYTES: usize = 20;
const V6_BYTES: usize = 40;
const FRAGMENT_BYTES: usize = 8;
const UDP_BYTES: usize = 8;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const FRAGMENT: u8 = 44;
const HOPS: u8 = 64;
/// Of one piece of a datagram of IPv6: a multiple of eight.
const PIECE_BYTES_MAX: usize = 65_000;

/// A datagram on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub port: u16,
    pub to: SocketAddr,
    pub data: Vec<u8>,
}

/// Why one does not arrive, as its sender can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens, or it may not: `ECONNREFUSED`.
    Port,
    /// `EHOSTUNREACH`.
    Host,
    /// `ENETUNREACH`.
    Network,
}

/// A datagram of IPv6 of which something is to come.
#[derive(Debug)]
struct Pieces {
    to: Ipv6Addr,
    number: [u8; 4],
    bytes: Vec<u8>,
}

/// Reads packets. Of datagrams in pieces one at a time: they come in a row.
#[derive(Debug, Default)]
pub struct Reader(Option<Pieces>);

impl Reader {
    pub fn read(&mut self, frame: &[u8]) -> Option<Outgoing> {
        let (_, rest) = frame.split_first_chunk::<12>()?;
        let (kind, packet) = rest.split_first_chunk::<2>()?;
        match *kind {
            IPV4 => read_v4(packet),
            IPV6 => self.read_v6(packet),
            _ => None,
        }
    }

    fn read_v6(&mut self, packet: &[u8]) -> Option<Outgoing> {
        let (head, body) = packet.split_first_chunk::<V6_BYTES>()?;
        let [version, _, _, _, length @ ..] = head;
        let ([high, low, next, _], addresses) = length.split_first_chunk::<4>()?;
        let (from, to) = addresses.split_first_chunk::<16>()?;
        let to = Ipv6Addr::from(*to.first_chunk::<16>()?);
        let body = body.get(..usize::from(u16::from_be_bytes([*high, *low])))?;
        if version >> 4 != 6 || Ipv6Addr::from(*from) != OWN_V6 {
            return None;
        }
        match *next {
            UDP => read_udp(to.into(), body),
            FRAGMENT => self.piece(to, body),
            _ => None,
        }
    }

    fn piece(&mut self, to: Ipv6Addr, body: &[u8]) -> Option<Outgoing> {
        let ([next, _, high, low, number @ ..], data) = body.split_first_chunk::<FRAGMENT_BYTES>()?;
        let place = u16::from_be_bytes([*high, *low]);
        let (at, has_more) = (usize::from(place & !7), place & 1 == 1);
        // Whatever does not fit ends what was begun.
        let mut pieces = match self.0.take() {
            Some(pieces) if at > 0 => pieces,
            _ if at == 0 => Pieces { to, number: *number, bytes: Vec::new() },
            _ => return None,
        };
        let is_next = pieces.to == to && pieces.number == *number && pieces.bytes.len() == at;
        let length = at.checked_add(data.len())?;
        let is_whole = !has_more || (data.len().is_multiple_of(8) && !data.is_empty());
        if *next != UDP || !is_next || !is_whole || length > UDP_BYTES + DATAGRAM_BYTES_MAX {
            return None;
        }
        pieces.bytes.extend_from_slice(data);
        if !has_more {
            return read_udp(to.into(), &pieces.bytes);
        }
        self.0 = Some(pieces);
        None
    }
}

fn read_v4(packet: &[u8]) -> Option<Outgoing> {
    let (head, _) = packet.split_first_chunk::<V4_BYTES>()?;
    let [version_and_length, _, high, low, _, _, place_high, place_low, _, protocol, _, _, addresses @ ..] =
        head;
    let (from, to) = addresses.split_first_chunk::<4>()?;
    let to = Ipv4Addr::from(*to.first_chunk::<4>()?);
    // With five words there are no options; all else but "do not cut it" says that it is a piece.
    let is_plain = *version_and_length == 0x45 && *protocol == UDP;
    let is_whole = place_high & !0x40 == 0 && *place_low == 0;
    let body = packet.get(V4_BYTES..usize::from(u16::from_be_bytes([*high, *low])))?;
    match is_plain && is_whole && Ipv4Addr::from(*from) == OWN_V4 {
        true => read_udp(to.into(), body),
        false => None,
    }
}

/// The kernel that wrote it has not always counted its sum.
fn read_udp(to: IpAddr, body: &[u8]) -> Option<Outgoing> {
    let ([from_high, from_low, to_high, to_low, high, low, _, _], data) =
        body.split_first_chunk::<UDP_BYTES>()?;
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let port = u16::from_be_bytes([*from_high, *from_low]);
    let to = SocketAddr::new(to, u16::from_be_bytes([*to_high, *to_low]));
    let is_whole = length == body.len() && data.len() <= DATAGRAM_BYTES_MAX;
    (is_whole && port != 0 && to.port() != 0).then(|| Outgoing { port, to, data: data.to_vec() })
}

/// What the program hears from a peer: one packet, or several of a long one. None of what is no datagram.
#[must_use]
pub fn incoming(from: SocketAddr, port: u16, data: &[u8], number: u32) -> Vec<Vec<u8>> {
    if data.len() > DATAGRAM_BYTES_MAX {
        return Vec::new();
    }
    let udp = udp(from, port, data);
    match from.ip() {
        IpAddr::V4(from) => vec![packet_v4(from, UDP, &udp)],
        IpAddr::V6(from) if V6_BYTES + udp.len() <= PACKET_BYTES_MAX => vec![packet_v6(from, UDP, &udp)],
        IpAddr::V6(from) => {
            let count = udp.len().div_ceil(PIECE_BYTES_MAX);
            let pieces = udp.chunks(PIECE_BYTES_MAX).enumerate();
            pieces
                .map(|(at, piece)| {
                    let place = u16::try_from(at * PIECE_BYTES_MAX).unwrap_or(0) | u16::from(at + 1 < count);
                    let mut body = vec![UDP, 0];
                    body.extend(place.to_be_bytes());
                    body.extend(number.to_be_bytes());
                    body.extend(piece);
                    packet_v6(from, FRAGMENT, &body)
                })
                .collect()
        }
    }
}

/// What its socket hears of a datagram that did not arrive.
#[must_use]
pub fn unreachable(peer: SocketAddr, port: u16, why: Unreachable) -> Vec<u8> {
    // The head of what was sent, by which the kernel finds who sent it.
    let mut sent = Vec::with_capacity(UDP_BYTES);
    sent.extend(port.to_be_bytes());
    sent.extend(peer.port().to_be_bytes());
    sent.extend([0, 8, 0, 0]);
    match peer.ip() {
        IpAddr::V4(peer) => {
            let code = match why {
                Unreachable::Port => 3,
                Unreachable::Host => 1,
                Unreachable::Network => 0,
            };
            let mut body = vec![3, code, 0, 0, 0, 0, 0, 0];
            body.extend(head_v4(OWN_V4, peer, UDP, sent.len()));
            body.extend(sent);
            set_sum(&mut body, 2, 0);
            packet_v4(peer, ICMP, &body)
        }
        IpAddr::V6(peer) => {
            let code = match why {
                Unreachable::Port => 4,
                Unreachable::Host => 3,
                Unreachable::Network => 0,
            };
            let mut body = vec![1, code, 0, 0, 0, 0, 0, 0];
            body.extend(head_v6(OWN_V6, peer, UDP, sent.len()));
            body.extend(sent);
            let pseudo = pseudo_sum(&peer.octets(), &OWN_V6.octets(), ICMP6, body.len());
            set_sum(&mut body, 2, pseudo);
            packet_v6(peer, ICMP6, &body)
        }
    }
}

fn udp(from: SocketAddr, port: u16, data: &[u8]) -> Vec<u8> {
    let length = UDP_BYTES + data.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    let pseudo = match from.ip() {
        IpAddr::V4(from) => pseudo_sum(&from.octets(), &OWN_V4.octets(), UDP, length),
        IpAddr::V6(from) => pseudo_sum(&from.octets(), &OWN_V6.octets(), UDP, length),
    };
    set_sum(&mut bytes, 6, pseudo);
    bytes
}

fn packet_v4(from: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    [&ethernet(IPV4)[..], &head_v4(from, OWN_V4, protocol, body.len()), body].concat()
}

fn packet_v6(from: Ipv6Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    [&ethernet(IPV6)[..], &head_v6(from, OWN_V6, protocol, body.len()), body].concat()
}

fn ethernet(kind: [u8; 2]) -> Vec<u8> {
    [&OWN_HARDWARE[..], &OTHER_HARDWARE, &kind].concat()
}

fn head_v4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, length: usize) -> Vec<u8> {
    let mut head = vec![0x45, 0];
    head.extend(u16::try_from(V4_BYTES + length).unwrap_or(0).to_be_bytes());
    head.extend([0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
    head.extend(from.octets());
    head.extend(to.octets());
    set_sum(&mut head, 10, 0);
    head
}

fn head_v6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, length: usize) -> Vec<u8> {
    let mut head = vec![0x60, 0, 0, 0];
    head.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
    head.extend([protocol, HOPS]);
    head.extend(from.octets());
    head.extend(to.octets());
    head
}

fn words(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| {
        let high = pair.first().copied().unwrap_or(0);
        u64::from(u16::from_be_bytes([high, pair.get(1).copied().unwrap_or(0)]))
    };
    bytes.chunks(2).map(word).sum()
}

fn pseudo_sum(from: &[u8], to: &[u8], protocol: u8, length: usize) -> u64 {
    words(from) + words(to) + u64::from(protocol) + length as u64
}

/// The sum of the internet (RFC 1071) over all of it; where it stands there is none yet. None at all is written as its other zero.
fn set_sum(bytes: &mut [u8], at: usize, pseudo: u64) {
    let mut sum = words(bytes) + pseudo;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or(0);
    let sum = if sum == 0 { 0xffff } else { sum };
    for (to, from) in bytes.iter_mut().skip(at).zip(sum.to_be_bytes()) {
        *to = from;
    }
}

#[cfg(test)]
#[path = "datagram_tests.rs"]
mod tests;
