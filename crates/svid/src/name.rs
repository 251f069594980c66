//! Trust domains and SPIFFE ids (SPIFFE-ID.md), within limits of our own.

use std::fmt;

use thiserror::Error;

/// Bytes of a trust domain; SPIFFE allows 255, but it is also the common name of the authority, which has at most 64.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 64;
/// Bytes of an id; SPIFFE allows 2048, and those that are given out here are far shorter.
pub const ID_BYTES_MAX: usize = 255;
const SCHEME: &str = "spiffe://";
/// Of a name in a refusal.
const SHOWN_CHARS: usize = 80;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    #[error("{0:?} is no trust domain: it has 1 to {TRUST_DOMAIN_BYTES_MAX} bytes of a-z 0-9 . - _")]
    TrustDomain(String),
    #[error("{0:?} is no SPIFFE id of at most {ID_BYTES_MAX} bytes: `spiffe://TRUST_DOMAIN/PATH`")]
    Id(String),
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

/// Below which an authority vouches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        let fits = !text.is_empty() && text.len() <= TRUST_DOMAIN_BYTES_MAX && text.bytes().all(legal);
        if fits { Ok(Self(text.to_owned())) } else { Err(NameError::TrustDomain(shown(text))) }
    }

    /// That of a node: its name in small letters. A name that is none even then is refused, not bent into one: two nodes
    /// must not come to the same trust domain by it.
    pub fn of_node(node_name: &str) -> Result<Self, NameError> {
        Self::parse(&node_name.to_ascii_lowercase())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the trust domain itself, which an authority's certificate carries.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }

    /// A member of it; `segments` are joined by `/`.
    pub fn member(&self, segments: &[&str]) -> Result<SpiffeId, NameError> {
        SpiffeId::parse(&format!("{SCHEME}{}/{}", self.0, segments.join("/")))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Of a workload: a trust domain and a path that is not empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpiffeId {
    text: String,
    domain: TrustDomain,
}

impl SpiffeId {
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let refuse = || NameError::Id(shown(text));
        if text.len() > ID_BYTES_MAX {
            return Err(refuse());
        }
        let (domain, path) =
            text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or_else(refuse)?;
        let domain = TrustDomain::parse(domain)?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let is_segment = |segment: &str| {
            !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(legal)
        };
        if path.split('/').all(is_segment) {
            Ok(Self { text: text.to_owned(), domain })
        } else {
            Err(refuse())
        }
    }

    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_domain_has_few_characters_and_a_limit() {
        let longest = "a".repeat(TRUST_DOMAIN_BYTES_MAX);
        for good in ["a", "node-a.example_1", &longest] {
            assert_eq!(TrustDomain::parse(good).unwrap().id(), format!("spiffe://{good}"));
        }
        let long = "a".repeat(TRUST_DOMAIN_BYTES_MAX + 1);
        for bad in ["", "A", "a/b", "a:1", "ä", "a b", "a%", "u@a", &long] {
            assert!(matches!(TrustDomain::parse(bad), Err(NameError::TrustDomain(_))), "{bad}");
        }
        assert_eq!(TrustDomain::of_node("Node-A").unwrap().as_str(), "node-a");
        assert!(TrustDomain::of_node("Knoten Ä").is_err());
    }

    #[test]
    fn an_id_has_a_path_of_plain_segments() {
        let id = SpiffeId::parse("spiffe://node-a/services/Web_1.2-x").unwrap();
        assert_eq!(
            (id.trust_domain().as_str(), id.as_str()),
            ("node-a", "spiffe://node-a/services/Web_1.2-x")
        );
        assert_eq!(id.trust_domain().member(&["services", "Web_1.2-x"]), Ok(id));
        for bad in [
            "spiffe://a",
            "spiffe://a/",
            "spiffe:///b",
            "spiffe://a//b",
            "spiffe://a/b/",
            "spiffe://a/./b",
            "spiffe://a/..",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/%62",
            "spiffe://a/é",
            "SPIFFE://a/b",
            "spiffe://A/b",
            "https://a/b",
            "spiffe://a:1/b",
            "spiffe://u@a/b",
            "",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad}");
        }
        let of = |bytes: usize| format!("spiffe://a/{}", "b".repeat(bytes - 11));
        assert!(SpiffeId::parse(&of(ID_BYTES_MAX)).is_ok());
        assert!(SpiffeId::parse(&of(ID_BYTES_MAX + 1)).is_err());
    }
}
