//! Addresses that nobody means by accident: those of this host, of the networks around it, and of who would tell secrets.

use ::core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is special about an address. A place that is to be reached all the same is named by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Unspecified,
    Loopback,
    LinkLocal,
    /// Where clouds tell a machine its secrets.
    Metadata,
    Private,
    /// Of carriers (CGNAT).
    Shared,
    Multicast,
    Benchmark,
    Reserved,
    /// IPv4 in other clothes than the mapped ones, or the way through somebody else's translator.
    Translated,
}

impl Special {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata",
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Multicast => "multicast",
            Self::Benchmark => "benchmark",
            Self::Reserved => "reserved",
            Self::Translated => "translated",
        }
    }
}

/// None for an ordinary address of the internet. A mapped one is judged as what it is.
#[must_use]
pub fn special(ip: IpAddr) -> Option<Special> {
    match ip.to_canonical() {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

/// Whether an address is this host's; each may be while it is not known which are. Its loopback is told by itself. A mapped one
/// is judged as what it is.
#[must_use]
pub(super) fn is_hosts(ip: IpAddr, hosts: Option<&[IpAddr]>) -> bool {
    let ip = ip.to_canonical();
    !ip.is_loopback() && hosts.is_none_or(|hosts| hosts.contains(&ip))
}

const fn special_v4(v4: Ipv4Addr) -> Option<Special> {
    Some(match v4.octets() {
        [0, ..] => Special::Unspecified,
        [127, ..] => Special::Loopback,
        [169, 254, 169, 253 | 254]
        | [169, 254, 170, 2 | 23]
        | [100, 100, 100, 200]
        // Of an ordinary range, and of the machine's own cloud all the same.
        | [168, 63, 129, 16] => Special::Metadata,
        [169, 254, ..] => Special::LinkLocal,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Special::Private,
        [100, 64..=127, ..] => Special::Shared,
        [224..=239, ..] => Special::Multicast,
        [198, 18 | 19, ..] => Special::Benchmark,
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Special::Reserved,
        _ => return None,
    })
}

const fn special_v6(v6: Ipv6Addr) -> Option<Special> {
    Some(match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Special::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Special::Loopback,
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254 | 0x0023] | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254] => {
            Special::Metadata
        }
        // Of the translators only the well-known one, to an ordinary address.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return special_v4(embedded(high, low)),
        [0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] | [0x2001, 0, ..] | [0x2002, ..] => Special::Translated,
        [0x100, 0, 0, 0, ..] => Special::Reserved,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Special::Private,
        [0xfe80..=0xfebf, ..] => Special::LinkLocal,
        [0xff00..=0xffff, ..] => Special::Multicast,
        _ => return None,
    })
}

const fn embedded(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_special_address_is_told_and_its_neighbours_are_not() {
        let table: [(Option<Special>, &[&str]); 11] = [
            (
                Some(Special::Unspecified),
                &["0.0.0.0", "0.255.255.255", "::", "::ffff:0.0.0.0", "64:ff9b::0.0.0.1"],
            ),
            (
                Some(Special::Loopback),
                &["127.0.0.1", "127.255.255.254", "127.1.2.3", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"],
            ),
            (
                Some(Special::LinkLocal),
                &["169.254.0.0", "169.254.255.255", "::ffff:169.254.1.1", "fe80::1", "febf::1"],
            ),
            (
                Some(Special::Metadata),
                &[
                    "169.254.169.254",
                    "169.254.169.253",
                    "169.254.170.2",
                    "169.254.170.23",
                    "100.100.100.200",
                    "168.63.129.16",
                    "::ffff:168.63.129.16",
                    "64:ff9b::a83f:8110",
                    "::ffff:169.254.169.254",
                    "64:ff9b::a9fe:a9fe",
                    "fd00:ec2::254",
                    "fd00:ec2::23",
                    "fd20:ce::254",
                ],
            ),
            (
                Some(Special::Private),
                &[
                    "10.0.0.0",
                    "10.255.255.255",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.0.1",
                    "192.168.255.255",
                    "::ffff:10.0.0.1",
                    "64:ff9b::c0a8:1",
                    "fc00::1",
                    "fdff::1",
                    "fec0::1",
                    "fd20:ce::253",
                ],
            ),
            (Some(Special::Shared), &["100.64.0.0", "100.127.255.255", "::ffff:100.64.0.1"]),
            (
                Some(Special::Multicast),
                &["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1", "::ffff:224.0.0.1"],
            ),
            (Some(Special::Benchmark), &["198.18.0.0", "198.19.255.255"]),
            (
                Some(Special::Reserved),
                &[
                    "192.0.0.1",
                    "192.88.99.1",
                    "240.0.0.1",
                    "255.255.255.255",
                    "100::1",
                    "::ffff:255.255.255.255",
                ],
            ),
            (
                Some(Special::Translated),
                &[
                    "::2",
                    "::127.0.0.1",
                    "::8.8.8.8",
                    "::ffff:0:7f00:1",
                    "2001::1",
                    "2002:7f00:1::",
                    "2002:808:808::1",
                    "64:ff9b:1::a00:1",
                ],
            ),
            (
                None,
                &[
                    "1.1.1.1",
                    "9.255.255.255",
                    "11.0.0.0",
                    "100.63.255.255",
                    "100.128.0.0",
                    "126.255.255.255",
                    "128.0.0.0",
                    "168.63.129.15",
                    "168.63.129.17",
                    "169.253.255.255",
                    "169.255.0.0",
                    "172.15.255.255",
                    "172.32.0.0",
                    "192.0.2.1",
                    "192.167.255.255",
                    "192.169.0.0",
                    "198.17.255.255",
                    "198.20.0.0",
                    "223.255.255.255",
                    "::ffff:8.8.8.8",
                    "64:ff9b::808:808",
                    "2001:db8::1",
                    "2606:4700::1111",
                    "2003::1",
                    "fbff::1",
                ],
            ),
        ];
        for (expected, addresses) in table {
            for address in addresses {
                assert_eq!(special(address.parse().unwrap()), expected, "{address}");
            }
        }
        let special: usize = table.iter().filter(|(kind, _)| kind.is_some()).map(|(_, all)| all.len()).sum();
        assert!(special >= 55);
    }
}
