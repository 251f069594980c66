//! Which tokens no longer hold, folded from the log by every service that accepts tokens (IDN-40, IDN open point 11).

use std::collections::{BTreeMap, BTreeSet};

use base::{AxiomTime, CredentialId, IdentityId, TokenId};
use chain::payload::{
    Payload,
    identity::{IdentityChange, IdentityStatus},
};

use super::{Claims, ISSUED_AHEAD_NS_MAX, LIFE_NS_MAX};

/// Revoked tokens remembered at once; each is forgotten after the longest life of a token. When more are revoked, the
/// oldest take all tokens with them that were issued before: refusing too much is the safe side.
pub const REVOKED_MAX: usize = 65_536;

/// A credential's revocation is remembered so long: a token that was being issued meanwhile may be stamped a little later.
const KEPT_NS: u64 = LIFE_NS_MAX + ISSUED_AHEAD_NS_MAX;

/// Single tokens, and per identity the time up to which its tokens do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub struct Revocations {
    #[n(0)]
    tokens: BTreeMap<TokenId, AxiomTime>,
    #[n(1)]
    by_time: BTreeSet<(AxiomTime, TokenId)>,
    /// Revoked credentials; what was issued for them does not count.
    #[n(2)]
    credentials: BTreeMap<CredentialId, AxiomTime>,
    #[n(3)]
    credentials_by_time: BTreeSet<(AxiomTime, CredentialId)>,
    /// Identities that are not active now, and whether that is final.
    #[n(4)]
    barred: BTreeMap<IdentityId, IdentityStatus>,
    /// A change of status ends every token issued up to then, also after the identity is active again.
    #[n(5)]
    ended: BTreeMap<IdentityId, AxiomTime>,
    /// Tokens issued up to here do not count for anyone.
    #[n(6)]
    all_ended: AxiomTime,
}

impl Revocations {
    /// Folds one committed entry; `time` is the entry's.
    pub fn apply(&mut self, time: AxiomTime, payload: &Payload) {
        if let Payload::CredentialRevoked(revoked) = payload {
            let credential = revoked.body.credential;
            if self.credentials.insert(credential, time).is_none() {
                self.credentials_by_time.insert((time, credential));
            }
            return self.forget(time);
        }
        let Payload::IdentityUpdated(update) = payload else { return };
        let identity = update.body.identity;
        match &update.body.change {
            IdentityChange::Status { new, .. } => {
                // `Revoked` is final (IDN-38), even if an entry said otherwise.
                if self.barred.get(&identity) != Some(&IdentityStatus::Revoked) {
                    match new {
                        IdentityStatus::Active => self.barred.remove(&identity),
                        barring => self.barred.insert(identity, *barring),
                    };
                }
                self.ended.insert(identity, time);
            }
            IdentityChange::TokenRevoked { token, .. } => {
                if let Some(before) = self.tokens.insert(*token, time) {
                    self.by_time.remove(&(before, *token));
                }
                self.by_time.insert((time, *token));
            }
            IdentityChange::TokenIssued { .. }
            | IdentityChange::SvidIssued { .. }
            | IdentityChange::Authenticated { .. }
            | IdentityChange::AuthenticationFailed { .. } => {}
        }
        self.forget(time);
    }

    fn forget(&mut self, time: AxiomTime) {
        self.forget_credentials(time);
        let over = |(revoked_at, _): &(AxiomTime, TokenId)| time.since(*revoked_at) > LIFE_NS_MAX;
        while self.by_time.len() > REVOKED_MAX || self.by_time.first().is_some_and(over) {
            if let Some((revoked_at, token)) = self.by_time.pop_first() {
                self.tokens.remove(&token);
                if time.since(revoked_at) <= LIFE_NS_MAX {
                    self.all_ended = self.all_ended.max(revoked_at);
                }
            }
        }
    }

    /// Nothing is issued for a credential after its revocation, so it is forgotten like a token.
    fn forget_credentials(&mut self, time: AxiomTime) {
        let over = |(revoked_at, _): &(AxiomTime, CredentialId)| time.since(*revoked_at) > KEPT_NS;
        while self.credentials_by_time.len() > REVOKED_MAX
            || self.credentials_by_time.first().is_some_and(over)
        {
            let Some((revoked_at, credential)) = self.credentials_by_time.pop_first() else { return };
            self.credentials.remove(&credential);
            if time.since(revoked_at) <= KEPT_NS {
                self.all_ended = self.all_ended.max(revoked_at);
            }
        }
    }

    /// Single revoked tokens that are remembered now.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.tokens.len()
    }

    #[must_use]
    pub fn covers(&self, claims: &Claims) -> bool {
        let authentication = claims.authentication.as_ref();
        self.tokens.contains_key(&claims.id)
            || authentication.is_some_and(|used| self.credentials.contains_key(&used.credential))
            || self.barred.contains_key(&claims.identity)
            || self.ended.get(&claims.identity).is_some_and(|ended| claims.issued_at <= *ended)
            || (self.all_ended > AxiomTime::ZERO && claims.issued_at <= self.all_ended)
    }
}
