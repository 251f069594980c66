//! Who exists, as the log tells it.

use std::collections::{BTreeMap, BTreeSet};

use base::{AxiomRef, AxiomTime, IdentityId, KeyPath, PublicKey, TokenId};
use chain::payload::{
    Payload,
    identity::{Identity, IdentityChange, IdentityCreated, IdentityStatus, IdentityType},
};
use kit::token::{self, Revocations};
use minicbor::{Decode, Encode};

use super::{Authority, Credentials, IdentityError, SvidError, names};

/// Identities of one node; far above what people and services need, and some 50 MB.
pub const IDENTITIES_MAX: usize = 100_000;
/// Tokens that have not expired and can be revoked one by one.
pub const TOKENS_MAX: usize = 65_536;

/// What `list_identities` selects; an empty filter selects all (IDN-10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityFilter {
    pub identity_type: Option<IdentityType>,
    pub status: Option<IdentityStatus>,
    pub parent: Option<IdentityId>,
    /// Start of the fully qualified name.
    pub name_prefix: String,
}

impl IdentityFilter {
    fn selects(&self, identity: &Identity) -> bool {
        self.identity_type.is_none_or(|wanted| wanted == identity.identity_type)
            && self.status.is_none_or(|wanted| wanted == identity.status)
            && self.parent.is_none_or(|wanted| Some(wanted) == identity.parent)
            && identity.name.starts_with(&self.name_prefix)
    }
}

/// Of what a saved registry means: a fold that changes has another.
pub const FOLD_VERSION: u32 = 1;

/// The fold. Two folds of one log are equal, and so are their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Registry {
    #[n(0)]
    by_id: BTreeMap<IdentityId, Identity>,
    #[n(1)]
    by_name: BTreeMap<String, IdentityId>,
    #[n(2)]
    paths: BTreeSet<KeyPath>,
    #[n(3)]
    children: BTreeMap<IdentityId, BTreeSet<IdentityId>>,
    #[n(4)]
    issuer: Option<PublicKey>,
    #[n(5)]
    tokens: BTreeMap<TokenId, (AxiomTime, IdentityId)>,
    #[n(6)]
    tokens_by_end: BTreeSet<(AxiomTime, TokenId)>,
    #[n(7)]
    revocations: Revocations,
    #[n(8)]
    credentials: Credentials,
    /// Of the node, from genesis: what its trust domain is made from.
    #[n(9)]
    node: Option<(String, AxiomTime)>,
    #[n(10)]
    ignored: u64,
}

impl Registry {
    /// Folds one committed entry, in order. What contradicts the registry changes nothing and is counted.
    pub fn apply(&mut self, at: AxiomRef, time: AxiomTime, payload: &Payload) {
        self.revocations.apply(time, payload);
        self.forget_expired(time);
        let fits = match payload {
            Payload::Genesis(genesis) => {
                self.issuer = Some(genesis.body.identity_key);
                self.node = Some((genesis.body.node_name.clone(), time));
                genesis.body.identities.iter().all(|created| self.add(at, created))
            }
            Payload::IdentityCreated(created) => self.add(at, &created.body),
            Payload::IdentityUpdated(update) => self.change(update.body.identity, &update.body.change),
            Payload::CredentialAdded(added) => {
                let added = &added.body;
                self.by_id.contains_key(&added.identity)
                    && self.credentials.add(at, added)
                    && self.refer(&added.identity)
            }
            Payload::CredentialRevoked(revoked) => {
                let revoked = &revoked.body;
                self.credentials.revoke(&revoked.identity, &revoked.credential)
                    && self.refer(&revoked.identity)
            }
            _ => true,
        };
        self.ignored = self.ignored.saturating_add(u64::from(!fits));
    }

    fn add(&mut self, at: AxiomRef, created: &IdentityCreated) -> bool {
        let parent_fits = match created.parent {
            Some(parent) => self.by_id.contains_key(&parent),
            None => self.by_id.is_empty(),
        };
        let id = IdentityId::of_key(&created.public_key);
        let free = self.is_free(&created.name, &created.key_path) && !self.by_id.contains_key(&id);
        if !parent_fits || !free || id != created.identity_id {
            return false;
        }
        self.by_name.insert(names::folded(&created.name), id);
        self.paths.insert(created.key_path.clone());
        if let Some(parent) = created.parent {
            self.children.entry(parent).or_default().insert(id);
        }
        self.by_id.insert(id, identity_of(created, at));
        true
    }

    fn change(&mut self, id: IdentityId, change: &IdentityChange) -> bool {
        let Some(identity) = self.by_id.get_mut(&id) else { return false };
        match change {
            IdentityChange::Status { old, new, .. } => {
                let fits = identity.status == *old && old.may_become(*new);
                if fits {
                    identity.status = *new;
                }
                fits
            }
            IdentityChange::TokenIssued { token, expires_at, .. } => {
                self.tokens_by_end.insert((*expires_at, *token));
                self.tokens.insert(*token, (*expires_at, id)).is_none()
            }
            IdentityChange::Authenticated { credential, token, expires_at, sign_count, .. } => {
                self.tokens_by_end.insert((*expires_at, *token));
                let fresh = self.tokens.insert(*token, (*expires_at, id)).is_none();
                self.credentials.used(&id, credential, *sign_count) && fresh
            }
            IdentityChange::TokenRevoked { token, .. } => match self.tokens.remove(token) {
                Some((expires_at, _)) => self.tokens_by_end.remove(&(expires_at, *token)),
                None => false,
            },
            IdentityChange::AuthenticationFailed { .. } | IdentityChange::SvidIssued { .. } => true,
        }
    }

    fn refer(&mut self, id: &IdentityId) -> bool {
        let Some(identity) = self.by_id.get_mut(id) else { return false };
        identity.credentials = self.credentials.refs(id);
        true
    }

    #[must_use]
    pub const fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    fn forget_expired(&mut self, time: AxiomTime) {
        while self.tokens_by_end.first().is_some_and(|(end, _)| *end <= time) {
            if let Some((_, token)) = self.tokens_by_end.pop_first() {
                self.tokens.remove(&token);
            }
        }
    }

    pub(super) fn is_free(&self, name: &str, path: &KeyPath) -> bool {
        !self.by_name.contains_key(&names::folded(name)) && !self.paths.contains(path)
    }

    /// IDN-04.
    pub fn get(&self, id: &IdentityId) -> Result<&Identity, IdentityError> {
        self.by_id.get(id).ok_or(IdentityError::NotFound(*id))
    }

    /// By fully qualified name; unknown is none (IDN-05).
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Identity> {
        self.by_id.get(self.by_name.get(&names::folded(name))?)
    }

    /// In order of name.
    pub fn list<'a>(&'a self, filter: &'a IdentityFilter) -> impl Iterator<Item = &'a Identity> {
        self.by_name.values().filter_map(|id| self.by_id.get(id)).filter(|identity| filter.selects(identity))
    }

    pub fn children(&self, id: &IdentityId) -> impl Iterator<Item = &Identity> {
        self.children.get(id).into_iter().flatten().filter_map(|child| self.by_id.get(child))
    }

    /// An identity that may act: it exists and is neither suspended nor revoked.
    pub fn active(&self, id: &IdentityId) -> Result<&Identity, IdentityError> {
        match self.get(id)? {
            identity if identity.status == IdentityStatus::Active => Ok(identity),
            _ => Err(IdentityError::NotActive(*id)),
        }
    }

    /// Whose token this is, if it was issued, has not expired and is not revoked.
    #[must_use]
    pub fn token_owner(&self, token: &TokenId) -> Option<IdentityId> {
        self.tokens.get(token).map(|(_, owner)| *owner)
    }

    /// The identity that a token proves (IDN-09). `now` is `AxiomTime(u64::MAX)` while Axiom time is unknown.
    pub fn verify_token(
        &self,
        text: &str,
        now: AxiomTime,
        channel: &str,
    ) -> Result<&Identity, IdentityError> {
        let issuer = self.issuer.as_ref().ok_or(token::TokenError::BadSignature)?;
        let claims = token::verify(issuer, text, now, channel, &self.revocations)?;
        self.active(&claims.identity)
    }

    /// The node as an authority for SVIDs.
    pub fn authority(&self) -> Result<Authority, SvidError> {
        let (name, began) = self.node.as_ref().ok_or(SvidError::NoGenesis)?;
        Authority::of_node(name, *began)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Entries that contradicted the registry; other than 0 means that somebody wrote past this service.
    #[must_use]
    pub const fn ignored(&self) -> u64 {
        self.ignored
    }
}

/// A new identity as everyone sees it (IDN-11).
pub(super) fn identity_of(created: &IdentityCreated, at: AxiomRef) -> Identity {
    Identity {
        id: created.identity_id,
        name: created.name.clone(),
        identity_type: created.identity_type,
        parent: created.parent,
        public_key: created.public_key,
        key_path: created.key_path.clone(),
        created_at: at,
        status: IdentityStatus::Active,
        credentials: Vec::new(),
    }
}
