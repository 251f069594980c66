//! Any text as a token, and any bytes as the claims of one that is signed.
//!
//! Strategy: the first byte chooses. 0: the rest is a token's text. 1: the rest is the message of a token that the issuer
//! signs, as only a faulty issuer would, since nobody guesses a signature. 2: the same, with one byte of the text changed.
//! Invariants: a refusal is one line; what verifies keeps the limits of life, channel and scope, names the channel that is
//! read without proof, is issued again as a token that verifies to the same claims, and is refused on another channel,
//! at its end, under another key, and with any changed byte.

use base::{AxiomTime, PublicKey};
use chain::payload::policy::{ActionKind, ResourceRef, ResourceType};
use ed25519_dalek::SigningKey;
use kit::token::{
    CHANNEL_BYTES_MAX, Claims, LIFE_NS_MAX, Revocations, TOKEN_BYTES_MAX, TokenError, claimed_channel, issue,
    verify,
};
use pasetors::{
    keys::AsymmetricSecretKey,
    version4::{PublicToken, V4},
};

pub const NOW: AxiomTime = AxiomTime(1_790_000_000_000_000_000);
pub const CHANNEL: &str = "admin";
/// Of the format: see `docs/format.md`.
const PURPOSE: &[u8] = b"bailiwick token v1";

/// Seed of the key that signs.
pub const ISSUER: [u8; 32] = [9; 32];

fn issuer() -> SigningKey {
    SigningKey::from_bytes(&ISSUER)
}

pub fn run(input: &[u8]) -> bool {
    match input.split_first() {
        Some((0, text)) => std::str::from_utf8(text).is_ok_and(verified),
        Some((1, message)) => signed(message).is_some_and(|text| verified(&text)),
        Some((2, [at_high, at_low, change, message @ ..])) => {
            let Some(text) = signed(message) else { return false };
            let at = usize::from(u16::from_be_bytes([*at_high, *at_low])) % text.len();
            refused_changed(&text, at, *change)
        }
        _ => false,
    }
}

fn signed(message: &[u8]) -> Option<String> {
    let secret = AsymmetricSecretKey::<V4>::from(&issuer().to_keypair_bytes()).ok()?;
    PublicToken::sign(&secret, message, None, Some(PURPOSE)).ok()
}

fn check(key: &SigningKey, text: &str, now: AxiomTime, channel: &str) -> Result<Claims, TokenError> {
    let public = PublicKey(key.verifying_key().to_bytes());
    verify(&public, text, now, channel, &Revocations::default())
}

fn verified(text: &str) -> bool {
    let claimed = claimed_channel(text);
    let claims = match check(&issuer(), text, NOW, CHANNEL) {
        Ok(claims) => claims,
        Err(error) => {
            super::check::one_line(&error);
            return false;
        }
    };
    assert!(text.len() <= TOKEN_BYTES_MAX);
    assert_eq!(claimed.as_deref(), Some(CHANNEL));
    assert!((1..=CHANNEL_BYTES_MAX).contains(&claims.channel.len()) && claims.channel == CHANNEL);
    assert!((1..=LIFE_NS_MAX).contains(&claims.expires_at.since(claims.issued_at)));
    assert_eq!(claims.scope.check(), Ok(()));
    match issue(&issuer(), claims.clone()) {
        Ok(token) => assert_eq!(check(&issuer(), &token.text, NOW, CHANNEL).as_ref(), Ok(&claims)),
        Err(error) => assert_eq!(error, TokenError::TooLarge),
    }
    assert_eq!(check(&issuer(), text, NOW, "another"), Err(TokenError::WrongChannel));
    assert_eq!(check(&issuer(), text, claims.expires_at, CHANNEL), Err(TokenError::Expired));
    let other = SigningKey::from_bytes(&[8; 32]);
    assert_eq!(check(&other, text, NOW, CHANNEL), Err(TokenError::BadSignature));
    // What a scope permits is what a pattern in it names, and a path that climbs is under `**` alone.
    let climbing = ResourceRef { resource_type: ResourceType::File, id: "/a/../b".to_owned() };
    let all = claims.scope.resources.iter().any(|pattern| pattern == "**");
    assert!(all || claims.require(ActionKind::ReadFile, &climbing).is_err());
    true
}

fn refused_changed(text: &str, at: usize, change: u8) -> bool {
    let mut bytes = text.as_bytes().to_vec();
    let Some(byte) = bytes.get_mut(at) else { return false };
    *byte ^= change;
    match std::str::from_utf8(&bytes) {
        Ok(changed) if changed != text => {
            assert!(check(&issuer(), changed, NOW, CHANNEL).is_err(), "byte {at} of {text}");
            false
        }
        // Nothing was changed.
        _ => verified(text),
    }
}
