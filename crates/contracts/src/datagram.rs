//! What a program's monitor and `network` say to each other about datagrams: each packet of their own channel is one datagram, or
//! why there is none.
//!
//! The family of the peer (`4` or `6`), what became of it (a number of the kernel's, 0 for a datagram), the program's port, the peer's
//! port and address, each as the network has it; then the datagram, or a reason to be written down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What fits into a datagram of IPv4; one of IPv6 is no longer here.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;
const V4: u8 = 4;
const V6: u8 = 6;
/// Bytes of one packet of the channel.
pub const FRAME_BYTES_MAX: usize = 7 + 16 + DATAGRAM_BYTES_MAX;

/// One datagram between a program and somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// None is 0.
    pub errno: u16,
    /// From which the program sent, and hears.
    pub port: u16,
    pub peer: SocketAddr,
    pub data: &'a [u8],
}

impl<'a> Frame<'a> {
    /// None of what is longer than a datagram.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        if self.data.len() > DATAGRAM_BYTES_MAX {
            return None;
        }
        let mut bytes = Vec::with_capacity(FRAME_BYTES_MAX.min(23 + self.data.len()));
        bytes.push(if self.peer.is_ipv4() { V4 } else { V6 });
        bytes.extend(self.errno.to_be_bytes());
        bytes.extend(self.port.to_be_bytes());
        bytes.extend(self.peer.port().to_be_bytes());
        match self.peer.ip() {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
        bytes.extend(self.data);
        Some(bytes)
    }

    /// None of what is no frame.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (family, rest) = bytes.split_first()?;
        let (errno, rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let (peer_port, rest) = rest.split_first_chunk()?;
        let (ip, data): (IpAddr, &[u8]) = match *family {
            V4 => rest.split_first_chunk().map(|(octets, rest)| (Ipv4Addr::from(*octets).into(), rest))?,
            V6 => rest.split_first_chunk().map(|(octets, rest)| (Ipv6Addr::from(*octets).into(), rest))?,
            _ => return None,
        };
        let peer = SocketAddr::new(ip, u16::from_be_bytes(*peer_port));
        (data.len() <= DATAGRAM_BYTES_MAX).then_some(Self {
            errno: u16::from_be_bytes(*errno),
            port: u16::from_be_bytes(*port),
            peer,
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_nothing_else_is_one() {
        let longest = vec![7; DATAGRAM_BYTES_MAX];
        for peer in ["192.0.2.1:53", "[2001:db8::1]:65535"] {
            for data in [&b""[..], b"hello", &longest] {
                let frame = Frame { errno: 111, port: 40_000, peer: peer.parse().unwrap(), data };
                let bytes = frame.encode().unwrap();
                assert!(bytes.len() <= FRAME_BYTES_MAX);
                assert_eq!(Frame::decode(&bytes), Some(frame));
                let head = bytes.len() - data.len();
                assert!((0..head).all(|cut| Frame::decode(&bytes[..cut]).is_none()));
            }
        }
        let peer = "192.0.2.1:53".parse().unwrap();
        let long = vec![7; DATAGRAM_BYTES_MAX + 1];
        assert_eq!(Frame { errno: 0, port: 1, peer, data: &long }.encode(), None);
        let mut bytes = Frame { errno: 0, port: 1, peer, data: &longest }.encode().unwrap();
        bytes.push(0);
        assert_eq!(Frame::decode(&bytes), None);
        assert_eq!(Frame::decode(&[5; 40]), None);
    }
}
