//! What a request becomes: first the checks that need no one, then `keys` for a public key, then one act by `policy`.
//!
//! The registry itself changes only when the entry comes back with the feed. Until then the name, the key path and the
//! identity that is being changed are reserved, so that two requests under way cannot both be right.

mod login;

use std::collections::{BTreeMap, BTreeSet};

use base::{AxiomRef, AxiomTime, CredentialId, Hash, IdentityId, KeyPath, PublicKey, TokenId};
use chain::payload::{
    Payload,
    identity::{
        CredentialAdded, CredentialRevoked, Identity, IdentityChange, IdentityCreated, IdentityStatus,
        IdentityType, IdentityUpdated,
    },
    policy::{PolicyAction, ResourceRef, ResourceType},
};
use kit::token::{self, CHANNEL_BYTES_MAX, Claims, LIFE_NS_DEFAULT, LIFE_NS_MAX, TokenError, TokenScope};

pub use login::{AddCredentialRequest, AuthenticateRequest, NewCredential, RevokeCredentialRequest};

use super::{
    ActFailure, Challenge, Credential, IdentityError, Registry,
    challenges::Challenges,
    failures::Failures,
    names,
    registry::{IDENTITIES_MAX, TOKENS_MAX, identity_of},
};

/// Requests under way at once.
pub const PENDING_MAX: usize = 1024;
/// Bytes of a reason; it is kept for ever.
const REASON_BYTES_MAX: usize = 256;

/// Chosen by the shell, unique while the request is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// `requestor` is proved by the shell: by the channel, or by a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateIdentityRequest {
    pub requestor: IdentityId,
    pub name: String,
    pub identity_type: IdentityType,
    pub parent: IdentityId,
    pub key_path: Option<KeyPath>,
}

/// IDN-39.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateStatusRequest {
    pub requestor: IdentityId,
    pub identity: IdentityId,
    pub status: IdentityStatus,
    pub reason: String,
}

/// `token` is random, from the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueTokenRequest {
    pub requestor: IdentityId,
    pub identity: IdentityId,
    pub channel: String,
    pub scope: TokenScope,
    pub life_ns: Option<u64>,
    pub token: TokenId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Create {
        id: RequestId,
        request: CreateIdentityRequest,
    },
    UpdateStatus {
        id: RequestId,
        request: UpdateStatusRequest,
    },
    IssueToken {
        id: RequestId,
        request: IssueTokenRequest,
    },
    RevokeToken {
        id: RequestId,
        requestor: IdentityId,
        token: TokenId,
    },
    AddCredential {
        id: RequestId,
        request: AddCredentialRequest,
    },
    RevokeCredential {
        id: RequestId,
        request: RevokeCredentialRequest,
    },
    /// `random` is the challenge's id and nonce. With `adding`, `credential` is a random id for a passkey to come.
    RequestChallenge {
        id: RequestId,
        credential: CredentialId,
        adding: bool,
        origin: Option<String>,
        channel: String,
        random: ([u8; 16], [u8; 32]),
    },
    Authenticate {
        id: RequestId,
        request: AuthenticateRequest,
    },
    /// The answer to `Record`, whether or not it went well.
    Recorded {
        id: RequestId,
    },
    /// The answer to `AskKeys`.
    KeyDerived {
        id: RequestId,
        result: Result<PublicKey, String>,
    },
    /// The answer to `Act`: the entry's reference, or the certainty that there is none.
    Acted {
        id: RequestId,
        result: Result<AxiomRef, ActFailure>,
    },
}

/// The entry that an act asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    Created(IdentityCreated),
    Updated(IdentityUpdated),
    CredentialAdded(CredentialAdded),
    CredentialRevoked(CredentialRevoked),
}

/// What policy is asked, and the entry that stands beside its decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    pub requestor: IdentityId,
    pub action: PolicyAction,
    pub resource: ResourceRef,
    pub proposal: Proposal,
}

/// Performed by the shell in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    AskKeys {
        id: RequestId,
        path: KeyPath,
    },
    Act {
        id: RequestId,
        act: Box<Act>,
    },
    /// A failure, which needs no decision.
    Record {
        id: RequestId,
        update: Box<IdentityUpdated>,
    },
    Reply {
        id: RequestId,
        result: Result<Reply, IdentityError>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Identity(Box<Identity>),
    /// To be signed by the shell with `kit::token::issue`; its issue is recorded.
    Token(Box<Claims>),
    Credential(Box<Credential>),
    Challenge(Box<Challenge>),
    Done,
}

#[derive(Clone, Debug)]
enum Pending {
    Deriving { requestor: IdentityId, created: Box<IdentityCreatedWithoutKey> },
    Creating(Box<IdentityCreated>),
    Changing(IdentityId),
    Issuing(Box<Claims>),
    Revoking,
    DerivingCredential(Box<CredentialAdded>),
    AddingCredential(Box<CredentialAdded>),
    RevokingCredential(CredentialId),
    Authenticating(CredentialId, Box<Claims>),
    Failing(IdentityError),
}

impl Pending {
    fn adding(&self) -> Option<&CredentialAdded> {
        match self {
            Self::DerivingCredential(added) | Self::AddingCredential(added) => Some(added),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
struct IdentityCreatedWithoutKey {
    name: String,
    identity_type: IdentityType,
    parent: IdentityId,
    key_path: KeyPath,
}

/// All state of the service.
#[derive(Debug, Default)]
pub struct IdentityCore {
    registry: Registry,
    pending: BTreeMap<RequestId, Pending>,
    names: BTreeSet<String>,
    paths: BTreeSet<KeyPath>,
    changing: BTreeSet<IdentityId>,
    /// Credentials that are being revoked, and recovery keys and passkeys that are being used: until the entry comes back.
    revoking: BTreeSet<CredentialId>,
    using: BTreeSet<CredentialId>,
    challenges: Challenges,
    failures: Failures,
}

type Step = Result<Vec<Effect>, IdentityError>;

fn check_reason(reason: &str) -> Result<(), IdentityError> {
    let fits = reason.len() <= REASON_BYTES_MAX;
    if fits { Ok(()) } else { Err(IdentityError::Reason { limit: REASON_BYTES_MAX }) }
}

impl IdentityCore {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The registry as bytes: requests under way and what they reserve are not in it.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        base::cbor::encode(&self.registry)
    }

    /// Takes the place of what was folded so far; with an error nothing has changed.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), base::cbor::CborError> {
        self.registry = base::cbor::decode(bytes)?;
        Ok(())
    }

    /// Folds one committed entry, in order, and ends the reservations that it makes needless.
    pub fn apply(&mut self, at: AxiomRef, time: AxiomTime, payload: &Payload) {
        self.registry.apply(at, time, payload);
        match payload {
            Payload::IdentityCreated(created) => self.release(&created.body.name, &created.body.key_path),
            Payload::IdentityUpdated(update) => match &update.body.change {
                IdentityChange::Status { .. } => {
                    self.changing.remove(&update.body.identity);
                }
                IdentityChange::Authenticated { credential, .. } => {
                    self.using.remove(credential);
                }
                _ => {}
            },
            Payload::CredentialRevoked(revoked) => {
                self.revoking.remove(&revoked.body.credential);
            }
            _ => {}
        }
    }

    pub fn step(&mut self, now: AxiomTime, event: Event) -> Vec<Effect> {
        let (id, step) = match event {
            Event::Create { id, request } => (id, self.create(id, request)),
            Event::UpdateStatus { id, request } => (id, self.update_status(id, request)),
            Event::IssueToken { id, request } => (id, self.issue_token(id, request, now)),
            Event::AddCredential { id, request } => (id, self.add_credential(id, request, now)),
            Event::RevokeCredential { id, request } => (id, self.revoke_credential(id, request)),
            Event::RequestChallenge { id, credential, adding, origin, channel, random } => {
                (id, self.request_challenge(id, (credential, adding), origin, &channel, random, now))
            }
            Event::Authenticate { id, request } => (id, self.authenticate(id, request, now)),
            Event::Recorded { id } => (id, self.recorded(id)),
            Event::RevokeToken { id, requestor, token } => (id, self.revoke_token(id, requestor, token)),
            Event::KeyDerived { id, result } => (id, self.key_derived(id, result)),
            Event::Acted { id, result } => (id, self.acted(id, result)),
        };
        step.unwrap_or_else(|error| vec![Effect::Reply { id, result: Err(error) }])
    }

    /// A requestor that may not act reaches nobody, whatever policy would say (IDN-40).
    fn admit(&self, id: RequestId, requestor: IdentityId) -> Result<(), IdentityError> {
        self.check_free(id)?;
        self.registry.active(&requestor).map(|_| ())
    }

    /// That one more request may be under way, and under this id.
    fn check_free(&self, id: RequestId) -> Result<(), IdentityError> {
        let free = self.pending.len() < PENDING_MAX && !self.pending.contains_key(&id);
        if free { Ok(()) } else { Err(IdentityError::Busy(PENDING_MAX)) }
    }

    fn create(&mut self, id: RequestId, request: CreateIdentityRequest) -> Step {
        let CreateIdentityRequest { requestor, name, identity_type, parent, key_path } = request;
        self.admit(id, requestor)?;
        if self.registry.len() >= IDENTITIES_MAX {
            return Err(IdentityError::Busy(IDENTITIES_MAX));
        }
        let above = self.registry.active(&parent)?;
        let qualified = names::qualified_name(&name, identity_type, above)?;
        let key_path = names::key_path(&name, identity_type, above, key_path)?;
        if self.names.contains(&names::folded(&qualified)) || self.registry.find(&qualified).is_some() {
            return Err(IdentityError::NameTaken(qualified));
        }
        if self.paths.contains(&key_path) || !self.registry.is_free(&qualified, &key_path) {
            return Err(IdentityError::KeyTaken);
        }
        self.names.insert(names::folded(&qualified));
        self.paths.insert(key_path.clone());
        let path = key_path.clone();
        let created = IdentityCreatedWithoutKey { name: qualified, identity_type, parent, key_path };
        self.pending.insert(id, Pending::Deriving { requestor, created: Box::new(created) });
        Ok(vec![Effect::AskKeys { id, path }])
    }

    fn key_derived(&mut self, id: RequestId, result: Result<PublicKey, String>) -> Step {
        let (requestor, created) = match self.pending.remove(&id) {
            Some(Pending::Deriving { requestor, created }) => (requestor, *created),
            Some(Pending::DerivingCredential(added)) => return self.credential_key(id, *added, result),
            other => return Ok(self.put_back(id, other)),
        };
        let IdentityCreatedWithoutKey { name, identity_type, parent, key_path } = created;
        let checked = result.map_err(IdentityError::Keys).and_then(|key| {
            // Neither may have changed while `keys` was asked.
            self.registry.active(&parent)?;
            match self.registry.get(&IdentityId::of_key(&key)) {
                Ok(_) => Err(IdentityError::KeyTaken),
                Err(_) => Ok(key),
            }
        });
        let public_key = checked.inspect_err(|_| self.release(&name, &key_path))?;
        let identity_id = IdentityId::of_key(&public_key);
        let action = PolicyAction::CreateIdentity { parent, name: name.clone() };
        let resource = resource(parent);
        let parent = Some(parent);
        let created = IdentityCreated { identity_id, name, identity_type, parent, public_key, key_path };
        self.pending.insert(id, Pending::Creating(Box::new(created.clone())));
        let act = Act { requestor, action, resource, proposal: Proposal::Created(created) };
        Ok(vec![Effect::Act { id, act: Box::new(act) }])
    }

    fn update_status(&mut self, id: RequestId, request: UpdateStatusRequest) -> Step {
        let UpdateStatusRequest { requestor, identity, status, reason } = request;
        self.admit(id, requestor)?;
        check_reason(&reason)?;
        let target = self.registry.get(&identity)?;
        if target.parent.is_none() {
            return Err(IdentityError::Root);
        }
        if !target.status.may_become(status) {
            return Err(IdentityError::StatusChange(target.status, status));
        }
        if self.changing.contains(&identity) {
            return Err(IdentityError::Busy(1));
        }
        let change = IdentityChange::Status { old: target.status, new: status, by: requestor, reason };
        let act = Self::modify(id, requestor, target, PolicyAction::ModifyIdentity { identity }, change);
        self.changing.insert(identity);
        self.pending.insert(id, Pending::Changing(identity));
        Ok(vec![act])
    }

    fn issue_token(&mut self, id: RequestId, request: IssueTokenRequest, now: AxiomTime) -> Step {
        let IssueTokenRequest { requestor, identity, channel, scope, life_ns, token } = request;
        self.admit(id, requestor)?;
        let owner = self.registry.active(&identity)?;
        let claims = self.claims((token, identity), channel, scope, life_ns, now)?;
        let expires_at = claims.expires_at;
        let change = IdentityChange::TokenIssued { token, channel: claims.channel.clone(), expires_at };
        let act = Self::modify(id, requestor, owner, PolicyAction::Authenticate { identity }, change);
        self.pending.insert(id, Pending::Issuing(Box::new(claims)));
        Ok(vec![act])
    }

    /// What a token is to say: within its limits, and with room for it.
    fn claims(
        &self,
        (id, identity): (TokenId, IdentityId),
        channel: String,
        scope: TokenScope,
        life_ns: Option<u64>,
        now: AxiomTime,
    ) -> Result<Claims, IdentityError> {
        let life_ns = life_ns.unwrap_or(LIFE_NS_DEFAULT);
        if life_ns == 0 || life_ns > LIFE_NS_MAX {
            return Err(TokenError::Life.into());
        }
        if channel.is_empty() || channel.len() > CHANNEL_BYTES_MAX {
            return Err(TokenError::Channel.into());
        }
        scope.check().map_err(TokenError::from)?;
        self.check_token_room()?;
        let expires_at = now.saturating_add(life_ns);
        let claims =
            Claims { id, identity, issued_at: now, expires_at, scope, channel, authentication: None };
        token::check_size(&claims)?;
        Ok(claims)
    }

    fn check_token_room(&self) -> Result<(), IdentityError> {
        let is_issue = |p: &&Pending| matches!(p, Pending::Issuing(_) | Pending::Authenticating(..));
        let issuing = self.pending.values().filter(is_issue).count();
        let room = self.registry.tokens() + issuing < TOKENS_MAX;
        if room { Ok(()) } else { Err(IdentityError::Busy(TOKENS_MAX)) }
    }

    fn revoke_token(&mut self, id: RequestId, requestor: IdentityId, token: TokenId) -> Step {
        self.admit(id, requestor)?;
        let identity = self.registry.token_owner(&token).ok_or(IdentityError::TokenNotFound(token))?;
        let owner = self.registry.get(&identity)?;
        let change = IdentityChange::TokenRevoked { token, by: requestor };
        let act = Self::modify(id, requestor, owner, PolicyAction::ModifyIdentity { identity }, change);
        self.pending.insert(id, Pending::Revoking);
        Ok(vec![act])
    }

    fn modify(
        id: RequestId,
        requestor: IdentityId,
        target: &Identity,
        action: PolicyAction,
        change: IdentityChange,
    ) -> Effect {
        let proposal = Proposal::Updated(IdentityUpdated { identity: target.id, change });
        let act = Act { requestor, action, resource: resource(target.id), proposal };
        Effect::Act { id, act: Box::new(act) }
    }

    fn acted(&mut self, id: RequestId, result: Result<AxiomRef, ActFailure>) -> Step {
        let Some(pending) = self.pending.remove(&id) else { return Ok(Vec::new()) };
        let reply = match (pending, result) {
            // Neither has asked policy.
            (
                other @ (Pending::Deriving { .. } | Pending::DerivingCredential(_) | Pending::Failing(_)),
                _,
            ) => return Ok(self.put_back(id, Some(other))),
            (Pending::AddingCredential(added), Ok(at)) => {
                Reply::Credential(Box::new(Credential::of(&added, at)))
            }
            (Pending::Authenticating(credential, claims), Ok(at)) => {
                self.authenticated(credential, claims, at)?
            }
            (Pending::Creating(created), Ok(at)) => Reply::Identity(Box::new(identity_of(&created, at))),
            (Pending::Issuing(claims), Ok(_)) => Reply::Token(claims),
            (Pending::Changing(_) | Pending::Revoking | Pending::RevokingCredential(_), Ok(_)) => Reply::Done,
            (pending, Err(failure)) => {
                // With an entry, its arrival in the feed ends the reservation; without one, this does.
                match pending {
                    Pending::Creating(created) => self.release(&created.name, &created.key_path),
                    Pending::Changing(identity) => {
                        self.changing.remove(&identity);
                    }
                    Pending::RevokingCredential(credential) => {
                        self.revoking.remove(&credential);
                    }
                    Pending::Authenticating(credential, _) => {
                        self.using.remove(&credential);
                    }
                    _ => {}
                }
                return Err(failure.into());
            }
        };
        Ok(vec![Effect::Reply { id, result: Ok(reply) }])
    }

    fn release(&mut self, name: &str, path: &KeyPath) {
        self.names.remove(&names::folded(name));
        self.paths.remove(path);
    }

    /// An answer that nobody waits for in this state changes nothing.
    fn put_back(&mut self, id: RequestId, pending: Option<Pending>) -> Vec<Effect> {
        if let Some(pending) = pending {
            self.pending.insert(id, pending);
        }
        Vec::new()
    }
}

/// The identity that the action names, below whom a new one is made: policy refuses a request about another.
fn resource(identity: IdentityId) -> ResourceRef {
    ResourceRef { resource_type: ResourceType::Identity, id: identity.to_string() }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
