//! Names of hosts as rules and resolvers mean them: one spelling for each, and none that is an address in disguise.

use ::core::{fmt, str::FromStr};

use idna::AsciiDenyList;
use thiserror::Error;

use super::special::Special;

/// Bytes of a name without its trailing dot, and of one label (RFC 1035).
pub const NAME_BYTES_MAX: usize = 253;
pub const LABEL_BYTES_MAX: usize = 63;
/// Bytes of what is read as a name: one of the longest in Unicode is not longer.
pub const NAME_TEXT_BYTES_MAX: usize = 1_024;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    #[error("it has {0} bytes, at most {NAME_TEXT_BYTES_MAX} are read")]
    TooLong(usize),
    #[error("it is no name of a host")]
    Malformed,
    #[error("it is an address in another spelling; write it as 192.0.2.1 or [2001:db8::1]")]
    Address,
    #[error("it leads to what is {}; name its address instead", .0.name())]
    Special(Special),
}

/// A name of a host in lower case, with punycode for what is not ASCII and without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Box<str>);

impl HostName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it lies below `other`, at whatever depth; nothing lies below itself.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.strip_suffix(&*other.0).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }

    /// What is special about the host that has this name by convention, whoever answers for it.
    #[must_use]
    pub fn special(&self) -> Option<Special> {
        let is = |name: &str| {
            *self.0 == *name || self.0.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
        };
        LOOPBACK
            .iter()
            .any(|name| is(name))
            .then_some(Special::Loopback)
            .or_else(|| METADATA.iter().any(|name| is(name)).then_some(Special::Metadata))
            .or_else(|| LINK_LOCAL.iter().any(|name| is(name)).then_some(Special::LinkLocal))
            .or_else(|| RESERVED.iter().any(|name| is(name)).then_some(Special::Reserved))
    }
}

/// With all that lies below them (RFC 6761, and what distributions write into `/etc/hosts`).
const LOOPBACK: [&str; 6] =
    ["localhost", "localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"];
const METADATA: [&str; 4] =
    ["metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"];
/// Asked for on the link (RFC 6762).
const LINK_LOCAL: [&str; 1] = ["local"];
/// Nobody has a host there, or no DNS leads to it (RFC 2606, 6761, 7686; the tree of addresses).
const RESERVED: [&str; 4] = ["invalid", "onion", "arpa", "alt"];

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_TEXT_BYTES_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        let ascii = idna::domain_to_ascii_cow(text.as_bytes(), AsciiDenyList::URL)
            .map_err(|_| NameError::Malformed)?;
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
            return Err(NameError::Malformed);
        }
        // As every parser of addresses reads it that is older than names are: decimal, octal, hexadecimal, with fewer parts.
        if name.rsplit('.').next().is_none_or(is_number) {
            return Err(NameError::Address);
        }
        Ok(Self(name.into()))
    }
}

/// Letters, digits, hyphens, and the underscore that services and some hosts have.
fn is_label(label: &str) -> bool {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(is_known)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_name_has_one_spelling() {
        for (text, read) in [
            ("api.example.com", "api.example.com"),
            ("API.Example.COM.", "api.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            // Wide letters and the full stop of other scripts.
            ("ｅｘａｍｐｌｅ。com", "example.com"),
            ("faß.example", "xn--fa-hia.example"),
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("1.example.com", "1.example.com"),
            ("0x7f.example", "0x7f.example"),
            ("printer", "printer"),
        ] {
            assert_eq!(name(text).as_str(), read, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("{}.example", "a".repeat(LABEL_BYTES_MAX + 1));
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "a:80",
            "user@host",
            "a%2eb",
            "[::1]",
            "::1",
            "*",
            "*.a",
            "-a.example",
            "a-.example",
            "a\u{0}b",
            "xn--a-ecp.example",
            "xn--",
            "a#b",
            "\u{ad}",
            &long,
        ] {
            assert_eq!(HostName::from_str(text), Err(NameError::Malformed), "{text:?}");
        }
        for text in [
            "127.1",
            "127.0.0.1",
            "127.0.0.1.",
            "2130706433",
            "017700000001",
            "0x7f000001",
            "0x7f.1",
            "0X7F.0.0.1",
            "0177.0.0.1",
            "0",
            "a.0",
            "example.0x",
            "１２７.１",
            "127。0。0。1",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "1.2.3.4.5",
            "256.256.256.256",
        ] {
            assert_eq!(HostName::from_str(text), Err(NameError::Address), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_no_longer_than_the_wire_has_room_for() {
        let of = |bytes: usize| {
            let label = "a".repeat(LABEL_BYTES_MAX);
            let mut text = [&*label; 4].join(".");
            text.truncate(bytes);
            text
        };
        assert!(HostName::from_str(&of(NAME_BYTES_MAX)).is_ok());
        assert!(HostName::from_str(&format!("{}.", of(NAME_BYTES_MAX))).is_ok());
        assert_eq!(HostName::from_str(&of(NAME_BYTES_MAX + 1)), Err(NameError::Malformed));
        assert!(HostName::from_str(&"a".repeat(LABEL_BYTES_MAX)).is_ok());
        let text = "a".repeat(NAME_TEXT_BYTES_MAX + 1);
        assert_eq!(HostName::from_str(&text), Err(NameError::TooLong(NAME_TEXT_BYTES_MAX + 1)));
    }

    #[test]
    fn names_that_lead_to_special_places_are_told() {
        for (text, kind) in [
            ("localhost", Special::Loopback),
            ("LOCALHOST.", Special::Loopback),
            ("a.localhost", Special::Loopback),
            ("localhost.localdomain", Special::Loopback),
            ("ip6-localhost", Special::Loopback),
            ("metadata.google.internal", Special::Metadata),
            ("Metadata.Google.Internal.", Special::Metadata),
            ("metadata.goog", Special::Metadata),
            ("printer.local", Special::LinkLocal),
            ("1.0.0.127.in-addr.arpa", Special::Reserved),
            ("a.onion", Special::Reserved),
        ] {
            assert_eq!(name(text).special(), Some(kind), "{text}");
        }
        for text in ["notlocalhost", "localhost.example.com", "internal", "example.com", "arpa.example"] {
            assert_eq!(name(text).special(), None, "{text}");
        }
    }

    #[test]
    fn below_means_below() {
        let below = |one: &str, other: &str| name(one).is_below(&name(other));
        assert!(below("a.example.com", "example.com") && below("a.b.example.com", "example.com"));
        assert!(!below("example.com", "example.com"));
        assert!(!below("notexample.com", "example.com"));
        assert!(!below("example.com", "a.example.com"));
    }
}
