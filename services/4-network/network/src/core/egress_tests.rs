//! Places of a program, and what is not among them.

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
    let reach = |texts: &[&str], to: &str, hosts| places(texts).unwrap().reach(to.parse().unwrap(), hosts);
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
    assert_eq!(reach(&["127.0.0.0/8:*"], "127.0.0.1:22", Some(&["127.0.0.1".parse().unwrap()])), Reach::Ask);
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
    assert_eq!((reach(&both, "192.0.2.1:443"), places(&both).unwrap().has_datagrams()), (Reach::Ask, true));
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
    for wrong in ["a.example.com/udp", "a.example.com:443/udp", "192.0.2.1/udp", "/udp", "192.0.2.1:53/icmp"]
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
        let (Reach::Refused(why), None) = decide(&named, to, answered) else { panic!("{to} {answered:?}") };
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
    let answered: Vec<HostName> =
        ["api.example.com", "b.example", "c.example", "d.example"].map(|name| name.parse().unwrap()).to_vec();
    let decided =
        Places::parse(&all).unwrap().decide("192.0.2.1:443".parse().unwrap(), Some(&HOSTS), &answered);
    assert_eq!(decided.asks_for, answered[..2]);
    assert!(decide(&["api.example.com", "192.0.2.1:443"], "192.0.2.1:443", Some(&HOSTS)).asks_for.is_empty());
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
