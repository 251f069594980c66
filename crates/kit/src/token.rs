//! Proof of who is calling: PASETO v4.public with the seed's `AuthToken` fields, bound to the channel it was issued for (IDN-28).
//!
//! Pure: time, keys, randomness and the list of what was revoked are arguments. Times are integers of Axiom time in
//! claims of our own; PASETO's registered time claims are not used, for they are text and read the wall clock.

mod proven;
mod revocations;
mod scope;

use base::{AxiomRef, AxiomTime, CredentialId, Hash, IdentityId, PublicKey, Sequence, Signature, TokenId};
use ed25519_dalek::SigningKey;
use pasetors::{
    keys::{AsymmetricPublicKey, AsymmetricSecretKey},
    token::UntrustedToken,
    version4::{PublicToken, V4},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use proven::Proven;
pub use revocations::{REVOKED_MAX, Revocations};
pub use scope::{
    SCOPE_ACTIONS_MAX, SCOPE_PATTERN_BYTES_MAX, SCOPE_RESOURCES_MAX, ScopeAction, ScopeError, TokenScope,
};

/// Longest token text in bytes; it travels in request metadata.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Life of a token when nothing else is asked for (IDN open point 10).
pub const LIFE_NS_DEFAULT: u64 = 3_600_000_000_000;
/// Longest life of a token.
pub const LIFE_NS_MAX: u64 = 86_400_000_000_000;
/// How far a reader's Axiom time may lag behind the issuer's; a feed silent for longer makes every token expire.
pub const ISSUED_AHEAD_NS_MAX: u64 = 5_000_000_000;
/// Bytes of a channel's name.
pub const CHANNEL_BYTES_MAX: usize = 128;

/// What every PASETO of this version and purpose begins with.
const TEXT_HEADER: &str = "v4.public.";
const SIGNATURE_BYTES: usize = 64;
/// Signed beside the claims, never sent: a token of another purpose or format does not verify here.
const PURPOSE: &[u8] = b"bailiwick token v1";

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    #[error("the token is not signed by this node's identity service")]
    BadSignature,
    #[error("the token has expired, or axiom time is unknown")]
    Expired,
    #[error("the token was issued in the future of this service")]
    NotYetValid,
    #[error("the token was issued to another channel")]
    WrongChannel,
    #[error("the token, or its identity, was revoked or suspended")]
    Revoked,
    #[error("the token's scope does not cover this")]
    ScopeExceeded,
    #[error("a token lives at most {LIFE_NS_MAX} ns and longer than none")]
    Life,
    #[error("a channel's name has 1 to {CHANNEL_BYTES_MAX} bytes")]
    Channel,
    #[error("the scope is refused")]
    Scope(#[from] ScopeError),
    #[error("the token would have more than {TOKEN_BYTES_MAX} bytes")]
    TooLarge,
}

/// What a token says. `channel` names the socket or uid that it was issued to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    pub id: TokenId,
    pub identity: IdentityId,
    pub issued_at: AxiomTime,
    pub expires_at: AxiomTime,
    pub scope: TokenScope,
    pub channel: String,
    /// None where the channel alone vouched. Left out then, so that the text is what it was before there were credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
}

/// What a token was given for (IDN-47).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authentication {
    pub credential: CredentialId,
    /// The entry that records it.
    pub entry: AxiomRef,
}

impl Claims {
    /// Refuses what lies outside the scope, whatever policy would say (IDN-31).
    pub fn require(
        &self,
        action: chain::payload::policy::ActionKind,
        resource: &chain::payload::policy::ResourceRef,
    ) -> Result<(), TokenError> {
        if self.scope.permits(action, resource) { Ok(()) } else { Err(TokenError::ScopeExceeded) }
    }

    /// Whether they count on this channel now.
    pub(crate) fn hold(
        &self,
        now: AxiomTime,
        channel: &str,
        revoked: &Revocations,
    ) -> Result<(), TokenError> {
        if now >= self.expires_at {
            return Err(TokenError::Expired);
        }
        if self.issued_at.since(now) > ISSUED_AHEAD_NS_MAX {
            return Err(TokenError::NotYetValid);
        }
        if self.channel != channel {
            return Err(TokenError::WrongChannel);
        }
        if revoked.covers(self) {
            return Err(TokenError::Revoked);
        }
        Ok(())
    }

    /// What holds for every token, however it was made.
    fn check(&self) -> Result<(), TokenError> {
        let life = self.expires_at.since(self.issued_at);
        if life == 0 || life > LIFE_NS_MAX {
            return Err(TokenError::Life);
        }
        if self.channel.is_empty() || self.channel.len() > CHANNEL_BYTES_MAX {
            return Err(TokenError::Channel);
        }
        Ok(self.scope.check()?)
    }
}

/// The seed's `AuthToken`: the claims, the signature, and the text that carries both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthToken {
    pub claims: Claims,
    pub signature: Signature,
    pub text: String,
}

/// Whether these claims fit a token, whatever login it will name: asked before anything is recorded or spent for it.
pub fn check_size(claims: &Claims) -> Result<(), TokenError> {
    let entry = AxiomRef { sequence: Sequence(u64::MAX), hash: Hash::ZERO };
    let authentication = Some(Authentication { credential: CredentialId([0; 16]), entry });
    let message = serde_json::to_vec(&Claims { authentication, ..claims.clone() })
        .map_err(|_| TokenError::Malformed("claims"))?;
    let signed = message.len().saturating_add(SIGNATURE_BYTES);
    // Base64 without padding.
    let text = TEXT_HEADER.len().saturating_add(signed.saturating_mul(4).div_ceil(3));
    if text > TOKEN_BYTES_MAX { Err(TokenError::TooLarge) } else { Ok(()) }
}

/// Signs `claims`. Only the identity service has the key.
pub fn issue(key: &SigningKey, claims: Claims) -> Result<AuthToken, TokenError> {
    claims.check()?;
    let message = serde_json::to_vec(&claims).map_err(|_| TokenError::Malformed("claims"))?;
    let secret =
        AsymmetricSecretKey::<V4>::from(&key.to_keypair_bytes()).map_err(|_| TokenError::BadSignature)?;
    let text = PublicToken::sign(&secret, &message, None, Some(PURPOSE))
        .map_err(|_| TokenError::Malformed("claims"))?;
    if text.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLarge);
    }
    let signature = parse(&text)?.1;
    Ok(AuthToken { claims, signature, text })
}

/// Splits a token into its parts without believing any of them.
fn parse(text: &str) -> Result<(UntrustedToken<pasetors::Public, V4>, Signature), TokenError> {
    if text.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLarge);
    }
    let token =
        UntrustedToken::<pasetors::Public, V4>::try_from(text).map_err(|_| TokenError::Malformed("text"))?;
    if !token.untrusted_footer().is_empty() {
        return Err(TokenError::Malformed("a footer is not used"));
    }
    let signature = token
        .untrusted_message()
        .last_chunk::<SIGNATURE_BYTES>()
        .ok_or(TokenError::Malformed("no signature"))?;
    let signature = Signature(*signature);
    Ok((token, signature))
}

/// Accepts a token that `issuer` signed, for `channel`, now.
///
/// `now` is `AxiomTime(u64::MAX)` while Axiom time is unknown: then every token has expired.
pub fn verify(
    issuer: &PublicKey,
    text: &str,
    now: AxiomTime,
    channel: &str,
    revoked: &Revocations,
) -> Result<Claims, TokenError> {
    let claims = signed_claims(issuer, text)?;
    claims.hold(now, channel, revoked)?;
    Ok(claims)
}

/// What `issuer` signed, whether or not it still holds: that never changes for a text.
pub(crate) fn signed_claims(issuer: &PublicKey, text: &str) -> Result<Claims, TokenError> {
    let (token, _) = parse(text)?;
    let issuer = AsymmetricPublicKey::<V4>::from(&issuer.0).map_err(|_| TokenError::BadSignature)?;
    let trusted =
        PublicToken::verify(&issuer, &token, None, Some(PURPOSE)).map_err(|_| TokenError::BadSignature)?;
    let claims: Claims =
        serde_json::from_str(trusted.payload()).map_err(|_| TokenError::Malformed("claims"))?;
    claims.check()?;
    Ok(claims)
}

/// The channel that a token names, unproven.
#[must_use]
pub fn claimed_channel(text: &str) -> Option<String> {
    claimed(text).map(|claims| claims.channel)
}

/// The identity that a token names, unproven: whoever holds it tells by this in whose name to call.
#[must_use]
pub fn claimed_identity(text: &str) -> Option<IdentityId> {
    claimed(text).map(|claims| claims.identity)
}

fn claimed(text: &str) -> Option<Claims> {
    let (token, _) = parse(text).ok()?;
    // The last 64 bytes of a public token's message are its signature.
    let payload = token.untrusted_message().split_last_chunk::<SIGNATURE_BYTES>()?.0;
    serde_json::from_slice(payload).ok()
}

#[cfg(test)]
mod tests;
