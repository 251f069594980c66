//! Any bytes as a message to an agent, and as what a key for ssh is asked to sign.
//!
//! Strategy: the first byte chooses. 0: the rest is what a client sends, its length first. 1: the rest is to be signed.
//! Invariants: a refusal is one line; no length beyond the limit is believed; what is understood of a message is said
//! again by its encoder; what may be signed is a signature for a known namespace or a login with the key itself, is refused
//! with a byte more or less, and begins as no message of the other kind.

use base::PublicKey;
use ssh::{
    NAMESPACES, Signed,
    agent::{LENGTH_BYTES, MESSAGE_BYTES_MAX, Request, length},
    key_blob, key_of_blob, signed,
};

/// The key that is asked to sign.
pub const KEY: PublicKey = PublicKey([7; 32]);

pub fn run(input: &[u8]) -> bool {
    match input.split_first() {
        Some((0, message)) => asked(message),
        Some((1, bytes)) => may_sign(bytes),
        _ => false,
    }
}

fn asked(message: &[u8]) -> bool {
    let Some((prefix, rest)) = message.split_first_chunk::<LENGTH_BYTES>() else { return false };
    let bytes = match length(*prefix) {
        Ok(bytes) => bytes,
        Err(error) => {
            super::check::one_line(&error);
            return false;
        }
    };
    assert!((1..=MESSAGE_BYTES_MAX).contains(&bytes));
    let Some(body) = rest.get(..bytes) else { return false };
    match Request::parse(body) {
        Ok(Request::Other(number)) => {
            assert!(number != 11 && number != 13);
            true
        }
        Ok(request) => {
            if let Request::Sign { key: Some(key), data } = &request {
                assert_eq!(key_of_blob(&key_blob(key)), Some(*key));
                may_sign(data);
            }
            if !matches!(request, Request::Sign { key: None, .. }) {
                let said = request.to_bytes();
                let again = said.get(LENGTH_BYTES..).unwrap_or_default();
                assert_eq!(Request::parse(again), Ok(request));
            }
            true
        }
        Err(error) => {
            super::check::one_line(&error);
            false
        }
    }
}

fn may_sign(bytes: &[u8]) -> bool {
    let is_signature = bytes.starts_with(b"SSHSIG");
    match signed(bytes, &KEY) {
        Ok(Signed::Signature { namespace }) => assert!(is_signature && NAMESPACES.contains(&namespace)),
        Ok(Signed::Login { user, .. }) => {
            assert!(!is_signature && user.len() < bytes.len());
            assert!(bytes.windows(32).any(|window| window == KEY.0), "a login with another key");
            assert!(signed(bytes, &PublicKey([8; 32])).is_err());
        }
        Err(error) => {
            super::check::one_line(&error);
            return false;
        }
    }
    assert!(signed(&[bytes, &[0]].concat(), &KEY).is_err());
    assert!(bytes.split_last().is_none_or(|(_, less)| signed(less, &KEY).is_err()));
    // Keys without a purpose sign hashes, of 32 bytes.
    assert!(bytes.len() > 32);
    true
}
