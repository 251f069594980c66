//! Tokens whose signature was found good: a caller shows the same one with each call, and to check it again is the dearest
//! part of many a call. Whether it still holds (time, channel, revocation) is asked each time.

use std::collections::{HashMap, VecDeque};

use base::{Hash, PublicKey};

use super::{Claims, TokenError, signed_claims};

/// Tokens remembered at once, by the hash of their text; the oldest makes room. One of the largest takes 4 KiB.
pub(crate) const PROVEN_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Proven {
    by_text: HashMap<Hash, Claims>,
    oldest_first: VecDeque<Hash>,
}

impl Proven {
    /// The claims that `issuer` signed. The caller has one issuer for ever.
    pub(crate) fn claims(&mut self, issuer: &PublicKey, text: &str) -> Result<Claims, TokenError> {
        let hash = Hash::of(text.as_bytes());
        if let Some(claims) = self.by_text.get(&hash) {
            return Ok(claims.clone());
        }
        let claims = signed_claims(issuer, text)?;
        if self.oldest_first.len() >= PROVEN_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_text.remove(&oldest);
        }
        self.oldest_first.push_back(hash);
        self.by_text.insert(hash, claims.clone());
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use base::{AxiomTime, IdentityId, TokenId};
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::token::{LIFE_NS_DEFAULT, TokenScope, issue};

    fn token(n: u64) -> String {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_le_bytes());
        let claims = Claims {
            id: TokenId(id),
            identity: IdentityId([2; 32]),
            issued_at: AxiomTime(1),
            expires_at: AxiomTime(1 + LIFE_NS_DEFAULT),
            scope: TokenScope::default(),
            channel: "admin".to_owned(),
            authentication: None,
        };
        issue(&SigningKey::from_bytes(&[9; 32]), claims).unwrap().text
    }

    #[test]
    fn only_what_was_signed_is_remembered_and_no_more_than_so_many() {
        let issuer = PublicKey(SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes());
        let mut proven = Proven::default();
        for n in 0..=PROVEN_MAX as u64 {
            let text = token(n);
            let first = proven.claims(&issuer, &text).unwrap();
            assert_eq!(proven.claims(&issuer, &text), Ok(first), "the second time from memory");
        }
        assert_eq!((proven.by_text.len(), proven.oldest_first.len()), (PROVEN_MAX, PROVEN_MAX));
        let other = PublicKey(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
        assert!(proven.claims(&other, &token(1)).is_ok(), "still remembered");
        assert_eq!(proven.claims(&other, &token(0)), Err(TokenError::BadSignature), "forgotten, so checked");
        let mut forged = token(7);
        forged.truncate(forged.len() - 2);
        assert!(proven.claims(&issuer, &forged).is_err());
        assert_eq!(proven.by_text.len(), PROVEN_MAX);
    }
}
