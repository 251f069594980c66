//! Any bytes as what an authority's keys are asked to sign: a certificate, or a token.
//!
//! Strategy: the first byte chooses. 0: a TBSCertificate. 1: the signing input of a token. 2: a whole token to be verified.
//! Invariants: a refusal is one line; what may be signed is of the one trust domain, is written again to the same bytes,
//! is refused with a byte more or less and by any other authority; only the key that signs is made an authority; nothing
//! that is a certificate is a token.

use svid::{Certificate, P256Key, Subject, Token, TokenError, TrustDomain};

/// The authority's key: the generator of the curve.
pub const KEY: [u8; 65] = [
    4, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77,
    0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f, 0xe3,
    0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33,
    0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];
pub const DOMAIN: &str = "node-a";

pub fn run(input: &[u8]) -> bool {
    let (Some(key), Ok(domain)) = (P256Key::from_bytes(&KEY), TrustDomain::parse(DOMAIN)) else {
        return false;
    };
    match input.split_first() {
        Some((0, bytes)) => certificate(bytes, &domain, &key),
        Some((1, bytes)) => token(bytes, &domain, &key),
        Some((2, bytes)) => whole(bytes, &domain, &key),
        _ => false,
    }
}

fn other_domain() -> Option<TrustDomain> {
    TrustDomain::parse("node-b").ok()
}

fn certificate(bytes: &[u8], domain: &TrustDomain, key: &P256Key) -> bool {
    let read = match Certificate::read(bytes, domain, key) {
        Ok(read) => read,
        Err(error) => {
            super::check::one_line(&error);
            return false;
        }
    };
    assert_eq!(read.to_sign(key).as_deref(), Ok(bytes));
    assert_eq!(matches!(read.subject, Subject::Authority(_)), read.key == *key);
    assert_eq!(read.subject.trust_domain(), domain);
    assert!(read.not_after_s > read.not_before_s);
    assert!(other_domain().is_some_and(|other| Certificate::read(bytes, &other, key).is_err()));
    if matches!(read.subject, Subject::Workload(_)) {
        assert!(Certificate::read(bytes, domain, &read.key).is_err());
    }
    assert!(Certificate::read(&[bytes, &[0]].concat(), domain, key).is_err());
    assert!(bytes.split_last().is_none_or(|(_, less)| Certificate::read(less, domain, key).is_err()));
    assert!(Token::read(bytes, domain, key).is_err());
    assert!(bytes.len() > 32);
    true
}

fn token(bytes: &[u8], domain: &TrustDomain, key: &P256Key) -> bool {
    let read = match Token::read(bytes, domain, key) {
        Ok(read) => read,
        Err(error) => {
            super::check::one_line(&error);
            return false;
        }
    };
    assert_eq!(read.to_sign(key).map(String::into_bytes).as_deref(), Ok(bytes));
    assert_eq!(read.subject.trust_domain(), domain);
    assert!(read.expires_at_s > read.issued_at_s && !read.audience.is_empty());
    assert!(other_domain().is_some_and(|other| Token::read(bytes, &other, key).is_err()));
    assert!(Token::read(&[bytes, b"A"].concat(), domain, key).is_err());
    assert!(Certificate::read(bytes, domain, key).is_err());
    assert!(bytes.len() > 32);
    true
}

fn whole(bytes: &[u8], domain: &TrustDomain, key: &P256Key) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match Token::verify(text, domain, key, "db", 0) {
        // Nobody has the key's secret; 1 is it, and the seed that was made with it holds.
        Ok(token) => assert!(token.audience.iter().any(|one| one == "db")),
        Err(error) => {
            super::check::one_line(&error);
            // The right form with a wrong signature is as deep as most inputs come.
            return error == TokenError::Signature;
        }
    }
    true
}
