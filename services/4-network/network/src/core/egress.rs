//! Whereto a program was given a way out: what `run --egress` names, before any rule is asked.

use std::str::FromStr;

use ::core::net::{IpAddr, SocketAddr};

use super::{NetError, special::special};

/// Places of one program.
pub const PLACES_MAX: usize = 64;

/// A range of addresses of one family, and a port or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    first: IpAddr,
    last: IpAddr,
    port: Option<u16>,
}

/// Everything that it may try.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Vec<Place>);

/// What a connect is to a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Policy is asked.
    Ask,
    /// Its own loopback, of which no other network knows.
    Own,
    /// Not named: for this reason.
    Refused(String),
}

impl Places {
    pub fn parse(texts: &[String]) -> Result<Self, NetError> {
        if texts.len() > PLACES_MAX {
            return Err(NetError::invalid("egress", format!("{} places, at most {PLACES_MAX}", texts.len())));
        }
        texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map(Self)
    }

    /// `to` is no IPv4 in the clothes of IPv6. `hosts` are the addresses of this host; none while they are not known.
    #[must_use]
    pub fn reach(&self, to: SocketAddr, hosts: Option<&[IpAddr]>) -> Reach {
        let (ip, kind) = (to.ip(), special(to.ip()));
        // Its loopback is told by itself.
        let is_hosts = !ip.is_loopback() && hosts.is_none_or(|hosts| hosts.contains(&ip));
        let fits = |place: &Place| place.port.is_none_or(|port| port == to.port()) && place.has(ip);
        // One that is special is not meant by a range that is wider than what makes it so.
        let means = |place: &Place| {
            let is_of_kind = kind.is_none() || (special(place.first) == kind && special(place.last) == kind);
            is_of_kind && (!is_hosts || place.first == place.last)
        };
        match self.0.iter().any(|place| fits(place) && means(place)) {
            true => Reach::Ask,
            false if ip.is_loopback() || ip.is_unspecified() => Reach::Own,
            false => Reach::Refused(match kind {
                Some(kind) if self.0.iter().any(fits) => {
                    format!("{to} is {}; name its address with --egress", kind.name())
                }
                None if self.0.iter().any(fits) && hosts.is_none() => {
                    format!(
                        "which addresses are this host's is not known, and {to} may be one; name it with --egress"
                    )
                }
                None if self.0.iter().any(fits) => {
                    format!("{to} is this host itself; name its address with --egress")
                }
                _ => format!("{to} is not among the places of the program; name it with --egress"),
            }),
        }
    }
}

impl Place {
    fn has(&self, ip: IpAddr) -> bool {
        self.first.is_ipv4() == ip.is_ipv4() && (self.first..=self.last).contains(&ip)
    }
}

impl FromStr for Place {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let wrong = |why: &str| {
            let form = "ADDRESS:PORT, ADDRESS/BITS:PORT or [ADDRESS/BITS]:PORT; the port may be *";
            NetError::invalid("egress", format!("{text:?}: {why}; a place is {form}"))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let port = match port {
            "*" => None,
            number => match number.parse::<u16>() {
                Ok(port) if port > 0 && number.bytes().all(|byte| byte.is_ascii_digit()) => Some(port),
                _ => return Err(wrong("the port is no number from 1 to 65535")),
            },
        };
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let (address, bits) = match inside.unwrap_or(host).split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (inside.unwrap_or(host), None),
        };
        let ip: IpAddr =
            address.parse().map_err(|_| wrong("names are not resolved here yet, and it is no address"))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn places(texts: &[&str]) -> Result<Places, NetError> {
        Places::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    fn reach(texts: &[&str], to: &str) -> Reach {
        places(texts).unwrap().reach(to.parse().unwrap(), Some(&["192.0.2.200".parse().unwrap()]))
    }

    #[test]
    fn what_is_named_is_asked_for_and_nothing_else() {
        let named = ["192.0.2.1:443", "203.0.113.0/24:*", "[2001:db8::/32]:80", "[2606:4700::1111]:53"];
        for to in ["192.0.2.1:443", "203.0.113.0:1", "203.0.113.255:65535", "[2001:db8:ffff::1]:80"] {
            assert_eq!(reach(&named, to), Reach::Ask, "{to}");
        }
        for to in ["192.0.2.1:80", "192.0.2.2:443", "203.0.114.0:1", "[2001:db9::1]:80", "[2001:db8::1]:81"] {
            assert!(matches!(reach(&named, to), Reach::Refused(_)), "{to}");
        }
    }

    #[test]
    fn a_wide_range_means_no_special_address() {
        let all = ["0.0.0.0/0:*", "[::/0]:*"];
        assert_eq!(reach(&all, "1.1.1.1:443"), Reach::Ask);
        assert_eq!(reach(&all, "[2606:4700::1111]:443"), Reach::Ask);
        for to in ["169.254.169.254:80", "10.0.0.1:80", "100.64.0.1:80", "[fe80::1]:80", "[fd00::1]:80"] {
            assert!(matches!(reach(&all, to), Reach::Refused(_)), "{to}");
        }
        assert!(matches!(reach(&["169.254.0.0/16:80"], "169.254.169.254:80"), Reach::Refused(_)));
        assert_eq!(reach(&["169.254.0.0/16:80"], "169.254.1.1:80"), Reach::Ask);
        assert_eq!(reach(&["169.254.169.254:80"], "169.254.169.254:80"), Reach::Ask);
        assert_eq!(reach(&["10.0.0.0/8:*"], "10.1.2.3:22"), Reach::Ask);
        assert!(matches!(reach(&["8.0.0.0/6:*"], "10.1.2.3:22"), Reach::Refused(_)));
    }

    #[test]
    fn the_host_itself_is_named_or_not_meant() {
        let hosts: Vec<IpAddr> =
            ["203.0.113.9", "10.0.0.9", "2001:db8::9"].iter().map(|ip| ip.parse().unwrap()).collect();
        let reach =
            |texts: &[&str], to: &str, hosts| places(texts).unwrap().reach(to.parse().unwrap(), hosts);
        let all = ["0.0.0.0/0:*", "[::/0]:*", "10.0.0.0/8:*"];
        for to in ["203.0.113.9:22", "10.0.0.9:22", "[2001:db8::9]:22"] {
            assert!(matches!(reach(&all, to, Some(&hosts)), Reach::Refused(_)), "{to}");
            assert_eq!(reach(&[to], to, Some(&hosts)), Reach::Ask, "{to}");
            // Before it is known which these are, every one may be.
            assert!(matches!(reach(&all, to, None), Reach::Refused(_)), "{to}");
            assert_eq!(reach(&[to], to, None), Reach::Ask, "{to}");
        }
        assert_eq!(reach(&all, "203.0.113.8:22", Some(&hosts)), Reach::Ask);
        assert_eq!(reach(&all, "10.0.0.8:22", Some(&hosts)), Reach::Ask);
        let Reach::Refused(why) = reach(&all, "203.0.113.9:22", Some(&hosts)) else { panic!() };
        assert!(why.contains("this host itself") && why.contains("--egress"), "{why}");
        assert_eq!(
            reach(&["127.0.0.0/8:*"], "127.0.0.1:22", Some(&["127.0.0.1".parse().unwrap()])),
            Reach::Ask
        );
    }

    #[test]
    fn the_loopback_is_the_programs_own_unless_the_hosts_is_named() {
        for to in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "0.0.0.0:80"] {
            assert_eq!(reach(&["0.0.0.0/0:*", "[::/0]:*"], to), Reach::Own, "{to}");
        }
        assert_eq!(reach(&["127.0.0.1:80"], "127.0.0.1:80"), Reach::Ask);
        assert_eq!(reach(&["127.0.0.1:80"], "127.0.0.1:81"), Reach::Own);
        assert_eq!(reach(&["[::1]:80"], "[::1]:80"), Reach::Ask);
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "",
            "192.0.2.1",
            "192.0.2.1:",
            "192.0.2.1:0",
            "192.0.2.1:+5",
            "192.0.2.1:65536",
            "192.0.2.1/33:1",
            "192.0.2.1/24:1",
            "2001:db8::1:443",
            "[192.0.2.1]:443",
            "[::ffff:192.0.2.1]:443",
            "0.0.0.0:80",
            "[::]:80",
            "0x7f.1:80",
            "2130706433:80",
            "127.1:80",
            "example.org:443",
        ] {
            assert!(places(&[text]).is_err(), "{text}");
        }
        assert!(places(&vec!["192.0.2.1:1"; PLACES_MAX]).is_ok());
        assert!(places(&vec!["192.0.2.1:1"; PLACES_MAX + 1]).is_err());
    }
}
