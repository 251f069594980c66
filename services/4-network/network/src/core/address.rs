//! Addresses on the wire of the contract (NET-25).

use ::core::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use contracts::network::v1 as wire;

use super::{NetError, table::Domain};

/// An address for a socket of this family. Rules are about addresses, and one host must not have two: IPv4 in the clothes of
/// IPv6 is refused, a scope where the kernel looks at none, and a flow label, which says nothing about where.
pub fn from_wire(address: Option<wire::Address>, domain: Domain) -> Result<SocketAddr, NetError> {
    let address = address.ok_or_else(|| NetError::invalid("address", "it is missing"))?;
    let port = u16::try_from(address.port)
        .map_err(|_| NetError::invalid("port", format!("{} is above {}", address.port, u16::MAX)))?;
    let bytes = address.ip.as_slice();
    let read = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => SocketAddr::from((v4, port)),
        (_, Ok(v6)) => SocketAddrV6::new(v6.into(), port, address.flowinfo, address.scope_id).into(),
        _ => return Err(NetError::invalid("ip", format!("{} bytes, not 4 or 16", bytes.len()))),
    };
    match (read.ip(), domain) {
        (IpAddr::V6(_), _) if address.flowinfo != 0 => Err(NetError::invalid("flowinfo", "it is 0 here")),
        (IpAddr::V6(v6), _) if address.scope_id != 0 && !has_scope(v6) => Err(NetError::invalid(
            "scope_id",
            format!("{v6} is the same on every interface; it has no scope"),
        )),
        (IpAddr::V6(v6), _) if v6.to_ipv4_mapped().is_some() => {
            Err(NetError::invalid("ip", format!("{v6} is an address of IPv4; give its four bytes")))
        }
        (IpAddr::V4(_), Domain::Inet) | (IpAddr::V6(_), Domain::Inet6) => Ok(read),
        (ip, domain) => Err(NetError::invalid("ip", format!("{ip} is none of family {}", domain.name()))),
    }
}

/// Link-local, alone or of many.
fn has_scope(v6: Ipv6Addr) -> bool {
    v6.is_unicast_link_local() || matches!(v6.octets(), [0xff, scope, ..] if scope & 0xf == 2)
}

/// The same of a peer. "Any" is an address to bind to; to connect to it is to connect to this host, by another name.
pub fn peer_from_wire(address: Option<wire::Address>, domain: Domain) -> Result<SocketAddr, NetError> {
    let peer = from_wire(address, domain)?;
    match peer.ip().is_unspecified() {
        true => {
            Err(NetError::invalid("ip", "nobody has this address; this host's loopback is 127.0.0.1 or ::1"))
        }
        false => Ok(peer),
    }
}

#[must_use]
pub fn to_wire(address: SocketAddr) -> wire::Address {
    let port = u32::from(address.port());
    match address {
        SocketAddr::V4(v4) => {
            wire::Address { ip: v4.ip().octets().to_vec(), port, ..wire::Address::default() }
        }
        SocketAddr::V6(v6) => wire::Address {
            ip: v6.ip().octets().to_vec(),
            port,
            flowinfo: v6.flowinfo(),
            scope_id: v6.scope_id(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, domain: Domain) -> Result<SocketAddr, NetError> {
        from_wire(Some(to_wire(text.parse().unwrap())), domain)
    }

    /// covers: NET-25
    #[test]
    fn addresses_come_back_as_they_went() {
        for (text, domain) in [
            ("192.0.2.1:80", Domain::Inet),
            ("[2001:db8::1]:443", Domain::Inet6),
            ("[fe80::1%3]:1", Domain::Inet6),
        ] {
            assert_eq!(read(text, domain), Ok(text.parse().unwrap()));
        }
        let full = SocketAddrV6::new([1; 16].into(), 9, 7, 5);
        assert_eq!((to_wire(full.into()).flowinfo, to_wire(full.into()).scope_id), (7, 5));
    }

    #[test]
    fn what_is_no_address_of_the_family_is_refused() {
        for (text, domain) in [
            ("192.0.2.1:80", Domain::Inet6),
            ("[2001:db8::1]:80", Domain::Inet),
            ("[::ffff:127.0.0.1]:80", Domain::Inet6),
        ] {
            assert!(
                matches!(read(text, domain), Err(NetError::InvalidArgument { field: "ip", .. })),
                "{text}"
            );
        }
        for scoped in ["[2001:db8::1%5]:443", "[::1%1]:443"] {
            let refused = read(scoped, Domain::Inet6);
            assert!(matches!(refused, Err(NetError::InvalidArgument { field: "scope_id", .. })), "{scoped}");
        }
        assert!(read("[ff02::1%2]:443", Domain::Inet6).is_ok());
        let labelled = SocketAddrV6::new([1; 16].into(), 9, 7, 0);
        let refused = from_wire(Some(to_wire(labelled.into())), Domain::Inet6);
        assert!(matches!(refused, Err(NetError::InvalidArgument { field: "flowinfo", .. })));
        for (any, domain) in [("0.0.0.0:80", Domain::Inet), ("[::]:80", Domain::Inet6)] {
            assert!(read(any, domain).is_ok(), "to bind to");
            assert!(peer_from_wire(Some(to_wire(any.parse().unwrap())), domain).is_err(), "{any}");
        }
        let with = |ip: usize, port: u32| {
            let address = wire::Address { ip: vec![1; ip], port, ..wire::Address::default() };
            from_wire(Some(address), Domain::Inet)
        };
        assert!(with(4, 65_535).is_ok());
        assert!(matches!(with(4, 65_536), Err(NetError::InvalidArgument { field: "port", .. })));
        for bytes in [0, 3, 5, 15, 17] {
            assert!(with(bytes, 80).is_err(), "{bytes}");
        }
        assert!(from_wire(None, Domain::Inet).is_err());
    }
}
