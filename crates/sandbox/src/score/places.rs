//! How wide a place of a way out is. Policy decides about each connection all the same.

use std::net::IpAddr;

/// Badness, reason, and what would lower it. What cannot be read counts as everything: it is not harmless for that.
pub(super) fn look(text: &str) -> (u32, &'static str, &'static str) {
    const ALL: u32 = 7;
    let text = text.strip_suffix("/udp").or_else(|| text.strip_suffix("/tcp")).unwrap_or(text);
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let any_port = u32::from(port == "*");
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let (address, bits) = bare.split_once('/').map_or((bare, None), |(address, bits)| (address, Some(bits)));
    let Ok(ip) = address.parse::<IpAddr>() else {
        return match host.strip_prefix("*.") {
            _ if bits.is_some() => {
                (ALL, "reaches what nobody can say", "write the place as ADDRESS/BITS:PORT")
            }
            Some(_) => (
                2 + any_port,
                "reaches every host below a name, whoever makes one",
                "name the hosts that it needs",
            ),
            None => (
                1 + any_port,
                "reaches the hosts that a name leads to",
                if any_port > 0 { "name the port" } else { "leave out what it does not reach" },
            ),
        };
    };
    let width = if ip.is_ipv4() { 32_u32 } else { 128 };
    let free = match bits.map(str::parse::<u32>) {
        None => 0,
        Some(Ok(bits)) if bits <= width => width - bits,
        Some(_) => return (ALL, "reaches what nobody can say", "write the place as ADDRESS/BITS:PORT"),
    };
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    // A quarter of the bits is a network of somebody's, three quarters nearly everybody.
    let wide = match free {
        0 if is_link_local => {
            return (
                5,
                "reaches the link, where clouds tell a machine its credentials",
                "name another place",
            );
        }
        _ if ip.is_loopback() => {
            return (
                (3 + any_port).min(ALL),
                "reaches what listens on the host's own loopback",
                "publish that service on a unix socket in a granted folder",
            );
        }
        0 => 1,
        free if free * 4 <= width => 2,
        free if free * 4 <= 3 * width => 4,
        _ => 6,
    };
    let reason = match wide {
        1 => "reaches one address",
        6 => "reaches nearly every address there is",
        _ => "reaches a range of addresses",
    };
    let lower = if free > 0 {
        "name the addresses that it needs"
    } else if any_port > 0 {
        "name the port"
    } else {
        "leave out what it does not reach"
    };
    ((wide + any_port).min(ALL), reason, lower)
}
