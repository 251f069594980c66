//! Whereto a program was given a way out: what `run --egress` names, before any rule is asked.

use std::str::FromStr;

use ::core::net::{IpAddr, SocketAddr};

use super::{
    HostName, NetError, asks_by_name,
    name_place::{NamePlace, parse_port},
    special::{Special, is_hosts, special},
};

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
pub struct Places {
    addresses: Vec<Place>,
    names: Vec<NamePlace>,
    /// The same for datagrams, if there are any.
    datagrams: Option<Box<Places>>,
}

/// Behind a place for datagrams; one for TCP may say so too.
const UDP: &str = "/udp";
const TCP: &str = "/tcp";

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

/// A connect of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    pub reach: Reach,
    /// The name that leads there, if the program has asked for one.
    pub name: Option<HostName>,
    /// Because of which alone it may be asked, if no address was given: the address can be many others'.
    pub asks_for: Vec<HostName>,
}

/// Where one address serves many names, and what is sent is hidden from its first byte on.
const QUIC: &str =
    "nobody sees whom QUIC asks for, so no name leads there; name its address with --egress, or use TCP";

impl Places {
    pub fn parse(texts: &[String]) -> Result<Self, NetError> {
        if texts.len() > PLACES_MAX {
            return Err(NetError::invalid("egress", format!("{} places, at most {PLACES_MAX}", texts.len())));
        }
        let mut places = Self::default();
        for text in texts {
            match text.strip_suffix(UDP) {
                Some(place) => places.datagrams.get_or_insert_default().add_datagrams(place, text)?,
                None => places.add(text.strip_suffix(TCP).unwrap_or(text))?,
            }
        }
        Ok(places)
    }

    fn add(&mut self, text: &str) -> Result<(), NetError> {
        match is_address(text) {
            true => self.addresses.push(text.parse()?),
            false => self.names.push(NamePlace::parse(text)?),
        }
        Ok(())
    }

    /// A name has to say its port, and not that of QUIC alone.
    fn add_datagrams(&mut self, text: &str, whole: &str) -> Result<(), NetError> {
        if !is_address(text) {
            let wrong = |why: &str| Err(NetError::invalid("egress", format!("{whole:?}: {why}")));
            match text.rsplit_once(':') {
                None => return wrong("the port is missing; a name for datagrams is NAME:PORT/udp"),
                Some((_, port)) if parse_port(port).is_some_and(asks_by_name) => return wrong(QUIC),
                Some(_) => {}
            }
        }
        self.add(text)
    }

    #[must_use]
    pub fn has_datagrams(&self) -> bool {
        self.datagrams.is_some()
    }

    /// What a datagram is to the program, to whom it has not sent before.
    pub fn decide_datagram<'a>(
        &self,
        to: SocketAddr,
        hosts: Option<&[IpAddr]>,
        answered: impl IntoIterator<Item = &'a HostName>,
    ) -> Decided {
        let refused = |why: String| Decided { reach: Reach::Refused(why), name: None, asks_for: Vec::new() };
        let Some(places) = self.datagrams.as_deref().filter(|_| to.ip() == to.ip().to_canonical()) else {
            return refused(format!("{to} is not among the places of the program for datagrams"));
        };
        match places.decide(to, hosts, answered) {
            Decided { asks_for, .. } if !asks_for.is_empty() && asks_by_name(to.port()) => {
                refused(format!("{to}: {QUIC}"))
            }
            Decided { reach: Reach::Refused(why), .. } => refused(format!("by UDP: {why}")),
            decided => decided,
        }
    }

    /// Whether the name may be asked for.
    #[must_use]
    pub fn has_name(&self, name: &HostName) -> bool {
        let datagrams = || self.datagrams.as_deref().is_some_and(|places| places.has_name(name));
        self.names.iter().any(|place| place.has(name)) || datagrams()
    }

    /// Whether an address that a name has answered may be handed on: one that is special has to be named itself.
    #[must_use]
    pub fn takes(&self, ip: IpAddr, hosts: Option<&[IpAddr]>) -> bool {
        let (kind, is_hosts) = (special(ip), is_hosts(ip, hosts));
        let datagrams = self.datagrams.iter().flat_map(|places| &places.addresses);
        let mut all = self.addresses.iter().chain(datagrams);
        let mut is_named = || all.any(|place| place.has(ip) && place.means(kind, is_hosts));
        ip == ip.to_canonical() && ((kind.is_none() && !is_hosts) || is_named())
    }

    /// What a connect is to the program, of which these names have answered the address; and for which of them it is.
    pub fn decide<'a>(
        &self,
        to: SocketAddr,
        hosts: Option<&[IpAddr]>,
        answered: impl IntoIterator<Item = &'a HostName>,
    ) -> Decided {
        let allows = |name: &&HostName| self.names.iter().any(|place| place.allows(name, to.port()));
        let names: Vec<HostName> = answered.into_iter().filter(allows).cloned().collect();
        let name = names.first().cloned();
        let is_ordinary = special(to.ip()).is_none() && !is_hosts(to.ip(), hosts);
        match (self.reach(to, hosts), name) {
            (Reach::Refused(_), Some(name)) if is_ordinary => {
                Decided { reach: Reach::Ask, name: Some(name), asks_for: names }
            }
            (Reach::Refused(why), _) if !self.names.is_empty() => {
                let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
                let why = format!("{why}; none of its names answered it: {}", names.join(", "));
                Decided { reach: Reach::Refused(why), name: None, asks_for: Vec::new() }
            }
            (Reach::Ask, name) => Decided { reach: Reach::Ask, name, asks_for: Vec::new() },
            (reach, _) => Decided { reach, name: None, asks_for: Vec::new() },
        }
    }

    /// `to` is no IPv4 in the clothes of IPv6. `hosts` are the addresses of this host; none while they are not known.
    #[must_use]
    pub fn reach(&self, to: SocketAddr, hosts: Option<&[IpAddr]>) -> Reach {
        let (ip, kind) = (to.ip(), special(to.ip()));
        let is_hosts = is_hosts(ip, hosts);
        let fits = |place: &Place| place.port.is_none_or(|port| port == to.port()) && place.has(ip);
        match self.addresses.iter().any(|place| fits(place) && place.means(kind, is_hosts)) {
            true => Reach::Ask,
            false if ip.is_loopback() || ip.is_unspecified() => Reach::Own,
            false => Reach::Refused(match kind {
                Some(kind) if self.addresses.iter().any(fits) => {
                    format!("{to} is {}; name its address with --egress", kind.name())
                }
                None if self.addresses.iter().any(fits) && hosts.is_none() => {
                    format!(
                        "which addresses are this host's is not known, and {to} may be one; name it with --egress"
                    )
                }
                None if self.addresses.iter().any(fits) => {
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

    /// One that is special is not meant by a range that is wider than what makes it so.
    fn means(&self, kind: Option<Special>, is_hosts: bool) -> bool {
        let is_of_kind = kind.is_none() || (special(self.first) == kind && special(self.last) == kind);
        is_of_kind && (!is_hosts || self.first == self.last)
    }
}

/// Whether a place is meant as an address, right or wrong: of digits and dots, in brackets, or with more than one colon.
fn is_address(text: &str) -> bool {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let digits = |host: &str| host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.starts_with('[') || host.contains([':', '/']) || digits(host) || digits(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn places(texts: &[&str]) -> Result<Places, NetError> {
        Places::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    const HOSTS: [IpAddr; 1] = [IpAddr::V4(::core::net::Ipv4Addr::new(192, 0, 2, 200))];

    fn reach(texts: &[&str], to: &str) -> Reach {
        places(texts).unwrap().reach(to.parse().unwrap(), Some(&HOSTS))
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

    /// covers: NET-31
    #[test]
    fn datagrams_have_places_of_their_own() {
        let decide = |texts: &[&str], to: &str, answered: &[&str]| {
            let answered: Vec<HostName> = answered.iter().map(|name| name.parse().unwrap()).collect();
            places(texts).unwrap().decide_datagram(to.parse().unwrap(), Some(&HOSTS), &answered)
        };
        let both = ["192.0.2.1:53/udp", "192.0.2.1:443/tcp", "[2001:db8::/32]:123/udp"];
        assert_eq!(decide(&both, "192.0.2.1:53", &[]).reach, Reach::Ask);
        assert_eq!(decide(&both, "[2001:db8::1]:123", &[]).reach, Reach::Ask);
        assert_eq!(
            (reach(&both, "192.0.2.1:443"), places(&both).unwrap().has_datagrams()),
            (Reach::Ask, true)
        );
        // What is for one is not for the other.
        assert!(matches!(reach(&both, "192.0.2.1:53"), Reach::Refused(_)));
        for to in ["192.0.2.1:443", "192.0.2.2:53", "[::ffff:192.0.2.1]:53", "127.0.0.1:53"] {
            assert_ne!(decide(&both, to, &[]).reach, Reach::Ask, "{to}");
        }
        assert!(matches!(decide(&["192.0.2.1:53"], "192.0.2.1:53", &[]).reach, Reach::Refused(_)));
        assert!(matches!(decide(&["0.0.0.0/0:*/udp"], "10.0.0.1:53", &[]).reach, Reach::Refused(_)));
        // A name leads there as by TCP, but not where it would be hidden.
        let named = ["ntp.example.com:123/udp", "*.example.org:*/udp"];
        let decided = decide(&named, "192.0.2.1:123", &["ntp.example.com"]);
        assert_eq!((decided.reach, decided.name.unwrap().as_str()), (Reach::Ask, "ntp.example.com"));
        assert!(matches!(decide(&named, "192.0.2.1:123", &[]).reach, Reach::Refused(_)));
        assert_eq!(decide(&named, "192.0.2.1:5000", &["a.example.org"]).reach, Reach::Ask);
        let Reach::Refused(why) = decide(&named, "192.0.2.1:443", &["a.example.org"]).reach else { panic!() };
        assert!(why.contains("QUIC"), "{why}");
        let with_address = ["*.example.org:*/udp", "192.0.2.1:443/udp"];
        assert_eq!(decide(&with_address, "192.0.2.1:443", &["a.example.org"]).reach, Reach::Ask);
        assert!(places(&named).unwrap().has_name(&"ntp.example.com".parse().unwrap()));
        for wrong in
            ["a.example.com/udp", "a.example.com:443/udp", "192.0.2.1/udp", "/udp", "192.0.2.1:53/icmp"]
        {
            assert!(places(&[wrong]).is_err(), "{wrong}");
        }
    }

    fn decide(texts: &[&str], to: &str, answered: &[&str]) -> (Reach, Option<String>) {
        let answered: Vec<HostName> = answered.iter().map(|name| name.parse().unwrap()).collect();
        let decided = places(texts).unwrap().decide(to.parse().unwrap(), Some(&HOSTS), &answered);
        assert!(
            decided.asks_for.is_empty() || (decided.reach == Reach::Ask && decided.name.is_some()),
            "{decided:?}"
        );
        (decided.reach, decided.name.map(|name| name.to_string()))
    }

    #[test]
    fn a_name_allows_what_it_answered_on_its_port_and_nothing_else() {
        let named = ["api.example.com", "*.cdn.example:8443"];
        let api = ["api.example.com"];
        assert_eq!(decide(&named, "192.0.2.1:443", &api), (Reach::Ask, Some("api.example.com".to_owned())));
        assert_eq!(decide(&named, "[2001:db8::1]:443", &api).0, Reach::Ask);
        assert_eq!(
            decide(&named, "192.0.2.1:8443", &["api.example.com", "a.cdn.example"]),
            (Reach::Ask, Some("a.cdn.example".to_owned()))
        );
        for (to, answered) in [
            ("192.0.2.1:443", &[][..]),
            ("192.0.2.1:80", &api[..]),
            ("192.0.2.1:443", &["a.cdn.example"][..]),
            ("192.0.2.1:8443", &["cdn.example"][..]),
            ("192.0.2.1:443", &["other.example.com"][..]),
        ] {
            let (Reach::Refused(why), None) = decide(&named, to, answered) else {
                panic!("{to} {answered:?}")
            };
            assert!(why.contains("api.example.com:443, *.cdn.example:8443") && why.contains(to), "{why}");
        }
        // An address that was named too has its name beside it.
        let both = ["api.example.com", "192.0.2.1:443"];
        assert_eq!(decide(&both, "192.0.2.1:443", &api).1, Some("api.example.com".to_owned()));
        assert_eq!(decide(&both, "192.0.2.1:443", &[]), (Reach::Ask, None));
    }

    #[test]
    fn who_may_because_of_a_name_alone_is_told_from_who_may_anyway() {
        let decide = |texts: &[&str], to: &str, hosts: Option<&[IpAddr]>| {
            places(texts).unwrap().decide(to.parse().unwrap(), hosts, &["api.example.com".parse().unwrap()])
        };
        let name = ["api.example.com"];
        assert_eq!(decide(&name, "192.0.2.1:443", Some(&HOSTS)).asks_for.len(), 1);
        // Every name that leads there, and no other.
        let all = ["b.example", "api.example.com", "c.example:80"].map(|name| name.to_owned());
        let answered: Vec<HostName> = ["api.example.com", "b.example", "c.example", "d.example"]
            .map(|name| name.parse().unwrap())
            .to_vec();
        let decided =
            Places::parse(&all).unwrap().decide("192.0.2.1:443".parse().unwrap(), Some(&HOSTS), &answered);
        assert_eq!(decided.asks_for, answered[..2]);
        assert!(
            decide(&["api.example.com", "192.0.2.1:443"], "192.0.2.1:443", Some(&HOSTS)).asks_for.is_empty()
        );
        // A name leads to no address of this host, nor to one that may be.
        for hosts in [Some(&HOSTS[..]), None] {
            let decided = decide(&name, "192.0.2.200:443", hosts);
            assert!(matches!(decided.reach, Reach::Refused(_)) && decided.asks_for.is_empty(), "{decided:?}");
            assert!(!places(&name).unwrap().takes("192.0.2.200".parse().unwrap(), hosts));
        }
        let both = ["api.example.com", "192.0.2.200:443"];
        assert_eq!(decide(&both, "192.0.2.200:443", Some(&HOSTS)).reach, Reach::Ask);
        assert!(places(&both).unwrap().takes("192.0.2.200".parse().unwrap(), Some(&HOSTS)));
    }

    /// Whatever a name answers, and whoever has entered it.
    #[test]
    fn a_name_leads_to_no_special_address() {
        for ip in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.168.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.0.1",
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "192.88.99.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:8.8.8.8",
            "::ffff:0:7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "2001::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::",
            "fe80::1",
            "febf::1",
            "fc00::1",
            "fd00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            "100::1",
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            assert!(!places(&["api.example.com:*"]).unwrap().takes(ip, Some(&HOSTS)), "{ip}");
            let to = SocketAddr::new(ip.to_canonical(), 443);
            let (reach, _) = decide(&["api.example.com:*"], &to.to_string(), &["api.example.com"]);
            assert!(reach != Reach::Ask || special(ip).is_none(), "{ip}: {reach:?}");
        }
        for ip in ["192.0.2.1", "8.8.8.8", "2001:db8::1", "2606:4700::1111", "64:ff9b::808:808"] {
            assert!(places(&["api.example.com"]).unwrap().takes(ip.parse().unwrap(), Some(&HOSTS)), "{ip}");
        }
        // One that is named is handed on, and its place says on which port.
        let named = ["api.example.com:*", "127.0.0.1:8080", "10.0.0.0/8:443"];
        assert!(places(&named).unwrap().takes("127.0.0.1".parse().unwrap(), Some(&HOSTS)));
        assert!(places(&named).unwrap().takes("10.1.2.3".parse().unwrap(), Some(&HOSTS)));
        assert!(!places(&["0.0.0.0/0:*"]).unwrap().takes("10.1.2.3".parse().unwrap(), Some(&HOSTS)));
        assert_eq!(decide(&named, "127.0.0.1:8080", &["api.example.com"]).0, Reach::Ask);
        assert_eq!(decide(&named, "127.0.0.1:443", &["api.example.com"]).0, Reach::Own);
        assert!(matches!(decide(&named, "10.1.2.3:80", &["api.example.com"]).0, Reach::Refused(_)));
    }

    /// Addresses in other clothes, and names that stand for special ones.
    #[test]
    fn a_name_is_no_address_in_disguise() {
        for text in [
            "0x7f.1",
            "0x7f.1:80",
            "127.1",
            "127.1:443",
            "2130706433",
            "2130706433:443",
            "0x7f000001",
            "017700000001",
            "0177.0.0.1",
            "0x7f.0.0.1:443",
            "127.0.0.1.",
            "127.0.0.1.:443",
            "127.0.1:443",
            "0:443",
            "1:443",
            "0xa9fea9fe",
            "169.254.169.254",
            "[::ffff:127.0.0.1]",
            "[::ffff:127.0.0.1]:443",
            "[::1]",
            "::1",
            "[127.0.0.1]:443",
            "[::]:443",
            "１２７.１",
            "127。0。0。1:443",
            "localhost",
            "localhost:80",
            "LOCALHOST.:80",
            "a.localhost",
            "*.localhost",
            "localhost.localdomain",
            "ip6-localhost:443",
            "ip6-loopback",
            "metadata.google.internal",
            "metadata.google.internal:80",
            "METADATA.google.internal.",
            "metadata.goog",
            "*.metadata.goog:*",
            "instance-data",
            "instance-data.ec2.internal",
            "printer.local:631",
            "*.local",
            "1.0.0.127.in-addr.arpa",
            "1.ip6.arpa",
            "hidden.onion",
            "a.invalid",
            "*",
            "*:443",
            "*.com",
            "*.com:443",
            "*example.com",
            "a.*.com",
            "**.example.com",
            "*.*.example.com",
            "example.com:",
            "example.com:0",
            "example.com:65536",
            "example.com:+443",
            "example.com:443:443",
            "https://example.com",
            "https://example.com:443",
            "user@example.com:443",
            "example.com/path:443",
            "example..com",
            ".example.com",
            "exa mple.com",
            "-a.example.com",
            "a-.example.com",
            "example.com%2f:443",
            "exam\u{0}ple.com",
            "xn--a-ecp.example",
        ] {
            assert!(places(&[text]).is_err(), "{text}");
        }
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
        ] {
            assert!(places(&[text]).is_err(), "{text}");
        }
        assert!(places(&vec!["192.0.2.1:1"; PLACES_MAX]).is_ok());
        assert!(places(&vec!["192.0.2.1:1"; PLACES_MAX + 1]).is_err());
    }
}
