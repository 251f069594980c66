//! A place of a program that is named by its address: what `--egress` may say, and what it covers.

use std::str::FromStr;

use ::core::net::IpAddr;

use super::{
    NetError,
    name_place::parse_port,
    special::{Special, special},
};

/// A range of addresses of one family, and a port or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressPlace {
    first: IpAddr,
    last: IpAddr,
    port: Option<u16>,
}

impl AddressPlace {
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.first.is_ipv4() == ip.is_ipv4() && (self.first..=self.last).contains(&ip)
    }

    pub(super) fn is_at(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }

    /// One that is special is not meant by a range that is wider than what makes it so.
    pub(super) fn means(&self, kind: Option<Special>, is_hosts: bool) -> bool {
        let is_of_kind = kind.is_none() || (special(self.first) == kind && special(self.last) == kind);
        is_of_kind && (!is_hosts || self.first == self.last)
    }
}

/// Whether a place is meant as an address, right or wrong: of digits and dots, in brackets, or with more than one colon.
pub(super) fn is_address(text: &str) -> bool {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let digits = |host: &str| host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.starts_with('[') || host.contains([':', '/']) || digits(host) || digits(text)
}

impl FromStr for AddressPlace {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let wrong = |why: &str| {
            let form = "ADDRESS:PORT, ADDRESS/BITS:PORT or [ADDRESS/BITS]:PORT; the port may be *";
            NetError::invalid("egress", format!("{text:?}: {why}; a place is {form}"))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let port = match port {
            "*" => None,
            number => Some(parse_port(number).ok_or_else(|| wrong("the port is no number from 1 to 65535"))?),
        };
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let (address, bits) = match inside.unwrap_or(host).split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (inside.unwrap_or(host), None),
        };
        let ip: IpAddr = address.parse().map_err(|_| wrong("it is no address"))?;
        if ip.is_ipv6() != inside.is_some() {
            return Err(wrong("an address of IPv6, and no other, stands in brackets"));
        }
        if ip != ip.to_canonical() {
            return Err(wrong("an address of IPv4 is written as one"));
        }
        if ip.is_unspecified() && bits != Some("0") {
            return Err(wrong("nobody has this address"));
        }
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(text) => text
                .parse::<u32>()
                .ok()
                .filter(|bits| *bits <= width)
                .ok_or_else(|| wrong("too many bits"))?,
        };
        let (first, last) = range(ip, width - bits);
        if first != ip {
            return Err(wrong("there are bits set behind those that count"));
        }
        Ok(Self { first, last, port })
    }
}

/// With the last `free` bits clear, and set.
fn range(ip: IpAddr, free: u32) -> (IpAddr, IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(free).unwrap_or(0);
            ((v4.to_bits() & mask).into_v4(), (v4.to_bits() | !mask).into_v4())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(free).unwrap_or(0);
            (IpAddr::V6((v6.to_bits() & mask).into()), IpAddr::V6((v6.to_bits() | !mask).into()))
        }
    }
}

trait IntoV4 {
    fn into_v4(self) -> IpAddr;
}

impl IntoV4 for u32 {
    fn into_v4(self) -> IpAddr {
        IpAddr::V4(self.into())
    }
}
