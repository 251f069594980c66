//! Who stands behind a key path, who the admin is, and whose tokens count: what proves a requestor, folded locally.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use base::{AxiomTime, IdentityId, KeyPath, PublicKey, key_paths};
use chain::payload::{Payload, identity::IdentityCreated};

use crate::{
    local::{LocalState, SavedPrincipals},
    token::{self, Claims, Proven, Revocations, TokenError},
};

#[derive(Debug, Default)]
pub(crate) struct Principals {
    by_key_path: HashMap<KeyPath, IdentityId>,
    admin: Option<IdentityId>,
    /// Pinned in genesis: the one key that signs tokens.
    token_issuer: Option<PublicKey>,
    revocations: Revocations,
    proven: Mutex<Proven>,
}

impl Principals {
    pub(crate) fn apply(&mut self, time: AxiomTime, payload: &Payload) {
        self.revocations.apply(time, payload);
        match payload {
            Payload::Genesis(genesis) => {
                self.admin = Some(genesis.body.admin);
                self.token_issuer = Some(genesis.body.identity_key);
                genesis.body.identities.iter().for_each(|identity| self.create(identity));
            }
            Payload::IdentityCreated(created) => self.create(&created.body),
            _ => {}
        }
    }

    pub(crate) fn save(&self) -> SavedPrincipals {
        SavedPrincipals {
            by_key_path: self.by_key_path.iter().map(|(path, id)| (path.clone(), *id)).collect(),
            admin: self.admin,
            token_issuer: self.token_issuer,
            revocations: self.revocations.clone(),
        }
    }

    /// The first identity of a path keeps it.
    fn create(&mut self, identity: &IdentityCreated) {
        self.by_key_path.entry(identity.key_path.clone()).or_insert(identity.identity_id);
    }
}

impl SavedPrincipals {
    pub(crate) fn restore(self) -> Principals {
        let Self { by_key_path, admin, token_issuer, revocations } = self;
        let by_key_path = by_key_path.into_iter().collect();
        Principals { by_key_path, admin, token_issuer, revocations, proven: Mutex::default() }
    }
}

impl LocalState {
    #[must_use]
    pub fn identity_by_key_path(&self, path: &KeyPath) -> Option<IdentityId> {
        self.principals().by_key_path.get(path).copied()
    }

    /// The identity of a service by its boot name, which is the name of its channel.
    #[must_use]
    pub fn service_identity(&self, name: &str) -> Option<IdentityId> {
        let path = KeyPath::parse(key_paths::SERVICES).ok()?.child(name).ok()?;
        self.identity_by_key_path(&path)
    }

    /// The first admin, whom genesis names and peer credentials vouch for on the admin sockets.
    #[must_use]
    pub fn genesis_admin(&self) -> Option<IdentityId> {
        self.principals().admin
    }

    /// The key that tokens are verified with; none before genesis is folded.
    #[must_use]
    pub fn token_issuer(&self) -> Option<PublicKey> {
        self.principals().token_issuer
    }

    /// The claims of a token that holds on this channel now; `now` is `AxiomClock::now()`, and without one no token does.
    pub fn verify_token(
        &self,
        text: &str,
        now: Option<AxiomTime>,
        channel: &str,
    ) -> Result<Claims, TokenError> {
        let principals = self.principals();
        let issuer = principals.token_issuer.as_ref().ok_or(TokenError::BadSignature)?;
        let claimed = if crate::is_broken("token-binding") { token::claimed_channel(text) } else { None };
        let channel = claimed.as_deref().unwrap_or(channel);
        let claims = principals.proven.lock().unwrap_or_else(PoisonError::into_inner).claims(issuer, text)?;
        claims.hold(now.unwrap_or(AxiomTime(u64::MAX)), channel, &principals.revocations)?;
        Ok(claims)
    }
}
