//! Credentials and what is given for them: added, revoked, challenged, proved.

use base::limits::NAME_BYTES_MAX;
use chain::payload::{
    identity::{CredentialBody, Permission},
    policy::ActionKind,
};
use kit::token::{Authentication, SCOPE_PATTERN_BYTES_MAX, ScopeAction};

use super::{
    super::{
        AuthProof, Challenge,
        credentials::{self, CREDENTIALS_MAX, CREDENTIALS_PER_IDENTITY_MAX, Credential, PERMISSIONS_MAX},
        passkeys::{self, Registration},
    },
    *,
};

/// What is to be made of it. Keys are made by the shell, which shows them; here there are only hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewCredential {
    /// Answers a challenge that was asked for on `channel` and names the credential's id.
    Passkey {
        registration: Box<Registration>,
        channel: String,
    },
    RecoveryKey {
        key_hash: Hash,
    },
    ApiKey {
        key_hash: Hash,
        permissions: Vec<Permission>,
        life_ns: Option<u64>,
    },
    DerivedKey {
        key_path: Option<KeyPath>,
    },
}

/// `credential` is random, from the shell; a passkey's is that of its challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCredentialRequest {
    pub requestor: IdentityId,
    /// What the requestor's token permits at most; none if the channel alone proves it.
    pub bound: Option<TokenScope>,
    /// For which credential that token was given.
    pub proved_by: Option<CredentialId>,
    pub identity: IdentityId,
    pub credential: CredentialId,
    pub name: String,
    pub kind: NewCredential,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokeCredentialRequest {
    pub requestor: IdentityId,
    pub identity: IdentityId,
    pub credential: CredentialId,
    pub reason: String,
}

/// `token` is random, from the shell. No actions or no resources: all that the credential permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticateRequest {
    pub credential: CredentialId,
    pub challenge: Challenge,
    pub proof: AuthProof,
    pub channel: String,
    pub actions: Vec<ScopeAction>,
    pub resources: Vec<String>,
    pub life_ns: Option<u64>,
    pub token: TokenId,
}

fn check_permissions(permissions: &[Permission]) -> Result<(), IdentityError> {
    let sized = |one: &Permission| (1..=SCOPE_PATTERN_BYTES_MAX).contains(&one.resource.len());
    let fits = (1..=PERMISSIONS_MAX).contains(&permissions.len()) && permissions.iter().all(sized);
    if fits { Ok(()) } else { Err(IdentityError::Permissions) }
}

/// A token's scope, never wider than what the credential permits (IDN open point 10).
fn scope_for(
    body: &CredentialBody,
    actions: &[ScopeAction],
    resources: &[String],
) -> Result<TokenScope, IdentityError> {
    let CredentialBody::ApiKey { permissions, .. } = body else {
        let mut scope = TokenScope::default();
        if !actions.is_empty() {
            scope.actions = actions.to_vec();
        }
        if !resources.is_empty() {
            scope.resources = resources.to_vec();
        }
        scope.check().map_err(TokenError::from)?;
        return Ok(scope);
    };
    if actions.is_empty() && resources.is_empty() {
        return TokenScope::of_permissions(permissions).ok_or(IdentityError::ScopeUnclear);
    }
    let of = |action: Option<ActionKind>| action.map_or(ScopeAction::Any, ScopeAction::Kind);
    let mut scope = TokenScope { actions: actions.to_vec(), resources: resources.to_vec() };
    if scope.actions.is_empty() {
        let all: BTreeSet<_> = permissions.iter().map(|one| of(one.action)).collect();
        scope.actions = all.into_iter().collect();
    }
    if scope.resources.is_empty() {
        let all: BTreeSet<_> = permissions.iter().map(|one| one.resource.clone()).collect();
        scope.resources = all.into_iter().collect();
    }
    scope.check().map_err(TokenError::from)?;
    if scope.within(permissions) { Ok(scope) } else { Err(IdentityError::WiderThanCredential) }
}

impl IdentityCore {
    pub(super) fn add_credential(
        &mut self,
        id: RequestId,
        request: AddCredentialRequest,
        now: AxiomTime,
    ) -> Step {
        self.admit(id, request.requestor)?;
        if let NewCredential::Passkey { registration, channel } = &request.kind {
            let challenge = &registration.challenge;
            self.challenges.redeem(now, challenge, request.credential, channel)?;
        }
        let owner = self.registry.active(&request.identity)?;
        if request.name.len() > NAME_BYTES_MAX || request.name.chars().any(char::is_control) {
            return Err(IdentityError::CredentialName);
        }
        self.check_room(&request)?;
        let body = match &request.kind {
            NewCredential::Passkey { registration, .. } => {
                let (body, webauthn_id) = passkeys::check_registration(registration)?;
                if self.knows_passkey(&webauthn_id) {
                    return Err(IdentityError::PasskeyKnown);
                }
                body
            }
            NewCredential::RecoveryKey { key_hash } => {
                CredentialBody::RecoveryKey { key_hash: *key_hash, used: false }
            }
            NewCredential::ApiKey { key_hash, permissions, life_ns } => {
                check_permissions(permissions)?;
                let expires_at = life_ns.map(|life| now.saturating_add(life));
                let permissions = permissions.clone();
                CredentialBody::ApiKey { key_hash: *key_hash, permissions, expires_at }
            }
            NewCredential::DerivedKey { key_path } => {
                let key_path = key_path.clone().unwrap_or_else(|| owner.key_path.clone());
                if key_path != owner.key_path && !key_path.is_child_of(&owner.key_path) {
                    return Err(IdentityError::NotBelowParent);
                }
                CredentialBody::DerivedKey { key_path, public_key: owner.public_key }
            }
        };
        self.check_bound(&request, &body)?;
        let AddCredentialRequest { requestor, identity, credential, name, .. } = request;
        let added = CredentialAdded { identity, credential, name, body, by: requestor };
        match &added.body {
            CredentialBody::DerivedKey { key_path, .. } if *key_path != owner.key_path => {
                let path = key_path.clone();
                self.pending.insert(id, Pending::DerivingCredential(Box::new(added)));
                Ok(vec![Effect::AskKeys { id, path }])
            }
            _ => Ok(self.ask_to_add(id, added)),
        }
    }

    fn check_room(&self, request: &AddCredentialRequest) -> Result<(), IdentityError> {
        let adding: Vec<&CredentialAdded> = self.pending.values().filter_map(Pending::adding).collect();
        let known = self.registry.credentials();
        if known.len() + adding.len() >= CREDENTIALS_MAX
            || known.knows(&request.credential)
            || adding.iter().any(|added| added.credential == request.credential)
        {
            return Err(IdentityError::Busy(CREDENTIALS_MAX));
        }
        let own = adding.iter().filter(|added| added.identity == request.identity).count();
        if known.of(&request.identity).count() + own >= CREDENTIALS_PER_IDENTITY_MAX {
            return Err(IdentityError::Busy(CREDENTIALS_PER_IDENTITY_MAX));
        }
        Ok(())
    }

    fn knows_passkey(&self, webauthn_id: &[u8]) -> bool {
        let is_it = |added: &CredentialAdded| match &added.body {
            CredentialBody::Passkey { origin: Some(origin), .. } => origin.webauthn_id == webauthn_id,
            _ => false,
        };
        self.registry.credentials().knows_passkey(webauthn_id)
            || self.pending.values().filter_map(Pending::adding).any(is_it)
    }

    /// With a token nobody makes a credential that is worth more than what the token was given for.
    fn check_bound(
        &self,
        request: &AddCredentialRequest,
        body: &CredentialBody,
    ) -> Result<(), IdentityError> {
        let permitted = match (&request.bound, body) {
            (None, _) => true,
            (Some(scope), _) if scope.is_unbounded() => true,
            (Some(scope), CredentialBody::ApiKey { permissions, .. }) => {
                permissions.iter().all(|permission| scope.covers(permission))
            }
            (Some(_), _) => false,
        };
        let proved_by = request.proved_by.and_then(|id| self.registry.credentials().get(&id).ok());
        let outlives = match proved_by.map(|credential| &credential.body) {
            Some(CredentialBody::ApiKey { expires_at: Some(end), .. }) => match body {
                CredentialBody::ApiKey { expires_at: Some(own), .. } => own > end,
                _ => true,
            },
            _ => false,
        };
        if permitted && !outlives { Ok(()) } else { Err(IdentityError::WiderThanToken) }
    }

    fn ask_to_add(&mut self, id: RequestId, added: CredentialAdded) -> Vec<Effect> {
        let identity = added.identity;
        let act = Act {
            requestor: added.by,
            action: PolicyAction::AddCredential { identity },
            resource: resource(identity),
            proposal: Proposal::CredentialAdded(added.clone()),
        };
        self.pending.insert(id, Pending::AddingCredential(Box::new(added)));
        vec![Effect::Act { id, act: Box::new(act) }]
    }

    pub(super) fn credential_key(
        &mut self,
        id: RequestId,
        mut added: CredentialAdded,
        result: Result<PublicKey, String>,
    ) -> Step {
        let key = result.map_err(IdentityError::Keys)?;
        self.registry.active(&added.identity)?;
        if let CredentialBody::DerivedKey { public_key, .. } = &mut added.body {
            *public_key = key;
        }
        Ok(self.ask_to_add(id, added))
    }

    pub(super) fn revoke_credential(&mut self, id: RequestId, request: RevokeCredentialRequest) -> Step {
        let RevokeCredentialRequest { requestor, identity, credential, reason } = request;
        self.admit(id, requestor)?;
        check_reason(&reason)?;
        if self.registry.credentials().get(&credential)?.identity != identity {
            return Err(IdentityError::CredentialNotFound(credential));
        }
        if !self.revoking.insert(credential) {
            return Err(IdentityError::Busy(1));
        }
        let revoked = CredentialRevoked { identity, credential, by: requestor, reason };
        let act = Act {
            requestor,
            action: PolicyAction::RevokeCredential { identity, credential },
            resource: resource(identity),
            proposal: Proposal::CredentialRevoked(revoked),
        };
        self.pending.insert(id, Pending::RevokingCredential(credential));
        Ok(vec![Effect::Act { id, act: Box::new(act) }])
    }

    pub(super) fn request_challenge(
        &mut self,
        id: RequestId,
        (credential, adding): (CredentialId, bool),
        origin: Option<String>,
        channel: &str,
        random: ([u8; 16], [u8; 32]),
        now: AxiomTime,
    ) -> Step {
        let for_a_page = if adding {
            if self.registry.credentials().knows(&credential) {
                return Err(IdentityError::Busy(CREDENTIALS_MAX));
            }
            true
        } else {
            let known = self.registry.credentials().get(&credential)?;
            matches!(known.body, CredentialBody::Passkey { .. })
        };
        if origin.is_some() != for_a_page || !origin.as_deref().is_none_or(passkeys::is_origin) {
            return Err(IdentityError::Origin);
        }
        let challenge = self.challenges.issue(now, (credential, origin), channel, random)?;
        Ok(vec![Effect::Reply { id, result: Ok(Reply::Challenge(Box::new(challenge))) }])
    }

    /// Verify, ask policy, record, answer (IDN-44). The challenge is spent whatever comes of it.
    pub(super) fn authenticate(
        &mut self,
        id: RequestId,
        request: AuthenticateRequest,
        now: AxiomTime,
    ) -> Step {
        self.check_free(id)?;
        let redeemed = self.challenges.redeem(now, &request.challenge, request.credential, &request.channel);
        let credential = self.registry.credentials().get(&request.credential)?.clone();
        let identity = credential.identity;
        let checked = redeemed.and_then(|()| self.check_proof(&request, &credential, now));
        let (claims, sign_count) = match checked {
            Ok(checked) => checked,
            Err(error) if error.is_failed_authentication() => {
                return Ok(self.fail(id, identity, &request, error, now));
            }
            Err(error) => return Err(error),
        };
        if matches!(credential.body, CredentialBody::RecoveryKey { .. } | CredentialBody::Passkey { .. }) {
            self.using.insert(credential.id);
        }
        let change = IdentityChange::Authenticated {
            credential: credential.id,
            token: claims.id,
            channel: claims.channel.clone(),
            expires_at: claims.expires_at,
            sign_count,
        };
        let owner = self.registry.active(&identity)?;
        let act = Self::modify(id, identity, owner, PolicyAction::Authenticate { identity }, change);
        self.pending.insert(id, Pending::Authenticating(credential.id, Box::new(claims)));
        Ok(vec![act])
    }

    fn check_proof(
        &self,
        request: &AuthenticateRequest,
        credential: &Credential,
        now: AxiomTime,
    ) -> Result<(Claims, Option<u32>), IdentityError> {
        let sign_count = credentials::verify(&credential.body, &request.proof, &request.challenge)?;
        credential.usable(now)?;
        self.registry.active(&credential.identity)?;
        if self.revoking.contains(&credential.id) || self.using.contains(&credential.id) {
            return Err(IdentityError::Busy(1));
        }
        let scope = scope_for(&credential.body, &request.actions, &request.resources)?;
        let channel = request.channel.clone();
        let mut claims =
            self.claims((request.token, credential.identity), channel, scope, request.life_ns, now)?;
        if let CredentialBody::ApiKey { expires_at: Some(end), .. } = &credential.body {
            claims.expires_at = claims.expires_at.min(*end);
        }
        Ok((claims, sign_count))
    }

    fn fail(
        &mut self,
        id: RequestId,
        identity: IdentityId,
        request: &AuthenticateRequest,
        error: IdentityError,
        now: AxiomTime,
    ) -> Vec<Effect> {
        let Some(others) = self.failures.note(now, identity) else {
            return vec![Effect::Reply { id, result: Err(error) }];
        };
        let mut reason = error.to_string();
        if others > 0 {
            reason = format!("{reason}; {others} others were only counted");
        }
        let credential = Some(request.credential);
        let change =
            IdentityChange::AuthenticationFailed { channel: request.channel.clone(), reason, credential };
        self.pending.insert(id, Pending::Failing(error));
        vec![Effect::Record { id, update: Box::new(IdentityUpdated { identity, change }) }]
    }

    /// The failure stands in the log, or could not be recorded: the answer is the same.
    pub(super) fn recorded(&mut self, id: RequestId) -> Step {
        match self.pending.remove(&id) {
            Some(Pending::Failing(error)) => Err(error),
            other => Ok(self.put_back(id, other)),
        }
    }

    /// What was recorded as the authentication becomes a token, unless the credential or its identity was taken away
    /// meanwhile.
    pub(super) fn authenticated(
        &mut self,
        credential: CredentialId,
        mut claims: Box<Claims>,
        entry: AxiomRef,
    ) -> Result<Reply, IdentityError> {
        self.registry.credentials().get(&credential)?;
        self.registry.active(&claims.identity)?;
        if self.revoking.contains(&credential) {
            return Err(IdentityError::CredentialNotFound(credential));
        }
        claims.authentication = Some(Authentication { credential, entry });
        Ok(Reply::Token(claims))
    }
}
