//! Published ports of Quadlet and compose files: sockets that the node holds, led to a port of the program's own network.

use std::net::{IpAddr, Ipv6Addr};

use crate::{
    manifest::{Manifest, Socket},
    report::Fate,
};

/// The supervisor's limit.
const SOCKETS_MAX: usize = 16;
/// Bytes of the name of a socket.
const NAME_BYTES_MAX: usize = 64;

/// What is told of a port.
pub(crate) const HOW: &str = "[[sockets]] with `publish`: who comes is let in by policy (`listen`), and the program sees all of them as \
                              127.0.0.1; on the host a port below 1024 needs a node that runs as root";
const DATAGRAMS: &str = "only TCP is published; in the host's network the program takes datagrams itself";

/// Why nothing is published, whatever the ports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unpublished {
    /// The program binds them itself.
    OfTheHost,
    /// It was asked for none.
    None,
    Privileges,
}

impl Unpublished {
    /// Of a manifest whose network and privileges are known.
    pub(crate) fn of(manifest: &Manifest, has_none: bool) -> Option<Self> {
        if manifest.sandbox.host_network {
            return Some(Self::OfTheHost);
        }
        if has_none {
            return Some(Self::None);
        }
        (!manifest.program.privileges.is_empty()).then_some(Self::Privileges)
    }

    pub(crate) fn said(self) -> (Fate, &'static str) {
        match self {
            Self::OfTheHost => (Fate::Ignored, "in the host's network the program binds its ports itself"),
            Self::None => (Fate::Ignored, "a network that reaches nothing publishes nothing"),
            Self::Privileges => (
                Fate::Refused,
                "a program that keeps privileges is let nobody in to; take its capabilities away",
            ),
        }
    }
}

/// A port of the host and one of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// None: every address of the host.
    pub(crate) host: Option<IpAddr>,
    pub(crate) published: u16,
    pub(crate) target: u16,
}

/// `[[IP:]PORT:]PORT[/PROTOCOL]`, where a port may be a range.
pub(crate) fn short(text: &str) -> Result<Vec<Port>, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    is_tcp(protocol)?;
    let (rest, target) = ports.rsplit_once(':').unwrap_or(("", ports));
    // The last colon of what is left, if it is not one of an address of IPv6.
    let (host, published) = match rest.rsplit_once(':') {
        Some((host, published)) if !published.contains(']') => (Some(host), published),
        _ => (None, rest),
    };
    pair(host.map(address).transpose()?, published, target)
}

/// The ports of the host against those of the program.
pub(crate) fn pair(host: Option<IpAddr>, published: &str, target: &str) -> Result<Vec<Port>, String> {
    let (first, last) = range(target)?;
    if published.is_empty() {
        let all = if first == last { first.to_string() } else { format!("{first}-{last}") };
        return Err(format!("the host's port would be any that is free; name it: \"{all}:{all}\""));
    }
    let (first_there, last_there) = range(published)?;
    if last_there - first_there != last - first {
        return Err(format!("{published} and {target} are not the same number of ports; name one for each"));
    }
    // Refused before it is made: a range can be long.
    if usize::from(last - first) >= SOCKETS_MAX {
        return Err(format!("a service has at most {SOCKETS_MAX} sockets"));
    }
    let ports = (first_there..=last_there).zip(first..=last);
    Ok(ports.map(|(published, target)| Port { host, published, target }).collect())
}

pub(crate) fn is_tcp(protocol: &str) -> Result<(), String> {
    match protocol {
        "tcp" => Ok(()),
        "udp" => Err(DATAGRAMS.to_owned()),
        other => Err(format!("{other:?} is no protocol that is published here; only TCP is")),
    }
}

pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| format!("{text:?} is no address of the host"))
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let digits = |text: &&str| text.bytes().all(|b| b.is_ascii_digit());
    let port = |text| Some(text).filter(digits)?.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let wrong = || format!("{text:?} is no port of 1 to 65535, and no range of them");
    let both = port(first).zip(port(last)).filter(|(first, last)| first <= last);
    both.ok_or_else(wrong)
}

/// All of a line or nothing of it.
pub(crate) fn publish(manifest: &mut Manifest, name: Option<&str>, ports: &[Port]) -> Result<(), String> {
    let mut sockets = manifest.sockets.clone();
    for port in ports {
        add(&mut sockets, name, port)?;
    }
    if sockets.len() > SOCKETS_MAX {
        return Err(format!("a service has at most {SOCKETS_MAX} sockets"));
    }
    manifest.sockets = sockets;
    Ok(())
}

fn add(sockets: &mut Vec<Socket>, name: Option<&str>, port: &Port) -> Result<(), String> {
    // [::] takes IPv4 too, as an engine does that is told no address.
    let every = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let listen = |host: IpAddr| match host {
        IpAddr::V4(host) => format!("tcp:{host}:{}", port.published),
        IpAddr::V6(host) => format!("tcp:[{host}]:{}", port.published),
    };
    if port.host == Some(every) {
        return Err("an engine takes [::] for IPv6 alone, and here it would take IPv4 as well: leave the address out \
                    for both, or name one of the host's"
            .to_owned());
    }
    let host = port.host.unwrap_or(every);
    let made = listen(host);
    // The one that takes both does for the other.
    let covers = |one: &Socket| one.listen == made || (host.is_unspecified() && one.listen == listen(every));
    if let Some(known) = sockets.iter().find(|one| covers(one)) {
        return match known.publish == Some(port.target) {
            true => Ok(()),
            false => Err(format!("port {} of the host leads to another port already", port.published)),
        };
    }
    let narrower = format!("tcp:0.0.0.0:{}", port.published);
    sockets.retain(|one| !(host == every && one.listen == narrower && one.publish == Some(port.target)));
    let legal = |name: &&str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(known)
    };
    let name = name.filter(legal).map_or_else(|| format!("port-{}", port.target), str::to_owned);
    sockets.push(Socket { name, listen: made, publish: Some(port.target), ..Socket::default() });
    Ok(())
}

/// Of a network that an engine leads out.
pub(crate) const OWN_NETWORK: &str =
    "[sandbox] network is its own, and reaches what [egress] allow names and no other";
/// Of any other.
pub(crate) const NO_OTHERS: &str =
    "the network of another is joined by nobody: there are the host's (\"host\"), and its own";

/// Why services of one file do not find each other.
pub(crate) const EACH_OTHER: &str = "each service has a network of its own, and finds no other by its name: publish the other's port on \
                                     127.0.0.1, name that in `[egress] allow` of this one, and have it connect there";

/// In the head of a manifest whose program has a network of its own.
pub(crate) const SHUT_IN: &str =
    "Its program reaches nothing outside yet: what it needs is named in [egress] allow = [\"NAME:PORT\", …].";

/// It could reach something, and nothing says what.
pub(crate) fn is_shut_in(manifest: &Manifest, has_none: bool) -> bool {
    !manifest.sandbox.host_network && !has_none
}

/// Said once of all that come out.
pub(crate) fn reach_nothing(names: &[&str]) -> Option<String> {
    let which = match names {
        [] => return None,
        [one] => format!("{one} reaches"),
        many => format!("{} reach", many.join(", ")),
    };
    Some(format!(
        "{which} nothing outside, and the file does not say what is needed: write `[egress] allow` by hand; once a place is \
         named there, the service's log (`bailiwick service logs`) says what else was refused"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens(texts: &[&str]) -> Result<Vec<(String, u64)>, String> {
        let mut manifest = Manifest::default();
        for text in texts {
            publish(&mut manifest, None, &short(text)?)?;
        }
        let of = |one: &Socket| (one.listen.clone(), u64::from(one.publish.unwrap_or(0)));
        Ok(manifest.sockets.iter().map(of).collect())
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, u64)]) {
        let expected = expected.iter().map(|(listen, port)| ((*listen).to_owned(), *port)).collect();
        assert_eq!(listens(&[text]), Ok(expected), "{text}");
    }

    #[test]
    fn a_line_is_read_as_an_engine_reads_it() {
        check("8080:80", &[("tcp:[::]:8080", 80)]);
        check("8080:80/tcp", &[("tcp:[::]:8080", 80)]);
        check("127.0.0.1:8080:80", &[("tcp:127.0.0.1:8080", 80)]);
        check("[::1]:8080:80", &[("tcp:[::1]:8080", 80)]);
        check("3000-3001:80-81", &[("tcp:[::]:3000", 80), ("tcp:[::]:3001", 81)]);
        check("127.0.0.1:3000-3001:80-81/tcp", &[("tcp:127.0.0.1:3000", 80), ("tcp:127.0.0.1:3001", 81)]);
        for wrong in [
            "",
            "80",
            ":80",
            "127.0.0.1::80",
            "0:80",
            "80:0",
            "80:65536",
            "80-79:80-79",
            "3000-3001:80",
            "a:80",
            "host:80:80",
            "[::1:80:80",
            "80:80/udp",
            "80:80/sctp",
            "80:80/",
            "-1:80",
            "+80:80",
            " 80:80",
            "80:80:80:80",
        ] {
            assert!(short(wrong).is_err(), "{wrong:?}: {:?}", short(wrong));
        }
        assert!(short("53:53/udp").unwrap_err().contains("only TCP is published"));
        assert!(short("80").unwrap_err().contains("\"80:80\""));
    }

    #[test]
    fn a_service_has_so_many_sockets_and_no_more() {
        assert_eq!(listens(&["1000-1015:1000-1015"]).unwrap().len(), SOCKETS_MAX);
        assert!(short("1000-1016:1000-1016").unwrap_err().contains("at most 16"));
        let one_more = listens(&["1000-1015:1000-1015", "2000:2000"]);
        assert!(one_more.unwrap_err().contains("at most 16"));
        assert!(short("1-65535:1-65535").is_err());
    }

    #[test]
    fn one_address_is_one_socket() {
        let both = Ok(vec![("tcp:[::]:80".to_owned(), 80)]);
        for texts in [["80:80", "80:80"], ["0.0.0.0:80:80", "80:80"], ["80:80", "0.0.0.0:80:80"]] {
            assert_eq!(listens(&texts), both, "{texts:?}");
        }
        assert!(listens(&["80:80", "80:81"]).is_err());
        assert!(listens(&["[::]:80:80"]).is_err());
        assert_eq!(listens(&["127.0.0.1:80:80", "[::1]:80:80"]).unwrap().len(), 2);
    }

    #[test]
    fn a_socket_is_called_as_it_was_or_by_its_port() {
        let port = Port { host: None, published: 80, target: 8080 };
        let named = |name: Option<&str>| {
            let mut manifest = Manifest::default();
            publish(&mut manifest, name, std::slice::from_ref(&port)).unwrap();
            manifest.sockets[0].name.clone()
        };
        let longest = "n".repeat(NAME_BYTES_MAX);
        assert_eq!((named(Some("web")), named(Some(&longest))), ("web".to_owned(), longest.clone()));
        for other in [None, Some(""), Some("a b"), Some(&*format!("{longest}n"))] {
            assert_eq!(named(other), "port-8080");
        }
    }
}
