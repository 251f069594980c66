//! The `Identities` contract.

use std::sync::Arc;

use base::{CredentialId, IdentityId, KeyPath, TokenId, TraceId};
use chain::payload::identity::Identity;
use contracts::{
    convert::{ConvertError, bytes, from_name},
    identity::v1 as wire,
};
use kit::token::{self, ScopeAction, TokenScope};
use tonic::{Request, Response, Status};

use super::{IdentityService, login};
use crate::core::{
    AddCredentialRequest, AuthenticateRequest, CreateIdentityRequest, Event, IdentityError, IdentityFilter,
    IssueTokenRequest, NewCredential, Reply, RevokeCredentialRequest, UpdateStatusRequest,
};

/// Identities in one answer: some 600 bytes each, so that they fit a message.
pub(super) const LIST_MAX: usize = 1_500;
pub(super) const SECOND_NS: u64 = 1_000_000_000;

pub(super) struct Handlers(pub(super) Arc<IdentityService>);

pub(super) fn misuse(error: &ConvertError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn id(field: &'static str, value: &[u8]) -> Result<IdentityId, Status> {
    bytes(field, value).map(IdentityId).map_err(|error| misuse(&error))
}

/// Empty text is no choice.
fn chosen<T: serde::de::DeserializeOwned>(field: &'static str, value: &str) -> Result<Option<T>, Status> {
    let named = (!value.is_empty()).then(|| from_name(field, value));
    named.transpose().map_err(|error| misuse(&error))
}

fn trace_of<T>(request: &Request<T>) -> Result<TraceId, Status> {
    kit::context_of(request).map(|context| context.trace_id())
}

fn credential_id(value: &[u8]) -> Result<CredentialId, Status> {
    bytes("credential", value).map(CredentialId).map_err(|error| misuse(&error))
}

fn scope_actions(actions: &[String]) -> Result<Vec<ScopeAction>, Status> {
    let kind = |name: &String| match name.as_str() {
        "*" => Ok(ScopeAction::Any),
        name => from_name("actions", name).map(ScopeAction::Kind).map_err(|error| misuse(&error)),
    };
    // Bounded before anything is made of it.
    actions.iter().take(token::SCOPE_ACTIONS_MAX + 1).map(kind).collect()
}

fn scope(actions: &[String], resources: Vec<String>) -> Result<TokenScope, Status> {
    let mut scope = TokenScope::default();
    if !actions.is_empty() {
        scope.actions = scope_actions(actions)?;
    }
    if !resources.is_empty() {
        scope.resources = resources;
    }
    Ok(scope)
}

impl Handlers {
    /// Signs what was recorded.
    fn signed(&self, claims: token::Claims) -> Result<wire::Token, Status> {
        let identity = Some(self.wire_identity(&claims.identity)?);
        let (issued_at_ns, expires_at_ns) = (claims.issued_at.0, claims.expires_at.0);
        let id = claims.id.0.to_vec();
        let key = self.0.signing_key.get().ok_or_else(|| Status::internal("no key before `Start`"))?;
        let token = token::issue(key, claims).map_err(IdentityError::from)?.text;
        Ok(wire::Token { token, id, issued_at_ns, expires_at_ns, identity })
    }

    fn wire_identity(&self, id: &IdentityId) -> Result<wire::Identity, Status> {
        Ok(self.0.runner.read(|registry| registry.get(id).map(wire::Identity::from))?)
    }
}

#[tonic::async_trait]
impl wire::identities_server::Identities for Handlers {
    async fn create_identity(
        &self,
        request: Request<wire::CreateIdentityRequest>,
    ) -> Result<Response<wire::Identity>, Status> {
        let service = Arc::clone(&self.0);
        let requestor = kit::requestor(service.runner.node(), &request, true)?;
        let trace = trace_of(&request)?;
        let wire::CreateIdentityRequest { name, identity_type, parent, key_path } = request.into_inner();
        let key_path = (!key_path.is_empty()).then(|| KeyPath::parse(&key_path));
        let wanted = CreateIdentityRequest {
            requestor: requestor.id(),
            name,
            identity_type: from_name("identity_type", &identity_type).map_err(|error| misuse(&error))?,
            parent: id("parent", &parent)?,
            key_path: key_path.transpose().map_err(IdentityError::from)?,
        };
        kit::uncancelled(async move {
            let create = |id| Event::Create { id, request: wanted };
            match service.runner.run(requestor, trace, create).await?.0 {
                Reply::Identity(identity) => Ok(Response::new(wire::Identity::from(&*identity))),
                _ => Err(Status::internal("another answer than an identity")),
            }
        })
        .await
    }

    async fn get_identity(
        &self,
        request: Request<wire::GetIdentityRequest>,
    ) -> Result<Response<wire::Identity>, Status> {
        Ok(Response::new(self.wire_identity(&id("id", &request.get_ref().id)?)?))
    }

    async fn find_identity(
        &self,
        request: Request<wire::FindIdentityRequest>,
    ) -> Result<Response<wire::FindIdentityReply>, Status> {
        let name = &request.get_ref().name;
        let identity = self.0.runner.read(|registry| registry.find(name).map(wire::Identity::from));
        Ok(Response::new(wire::FindIdentityReply { identity }))
    }

    async fn list_identities(
        &self,
        request: Request<wire::IdentityFilter>,
    ) -> Result<Response<wire::IdentityList>, Status> {
        let wire::IdentityFilter { identity_type, status, parent, text } = request.into_inner();
        let filter = IdentityFilter {
            identity_type: chosen("identity_type", &identity_type)?,
            status: chosen("status", &status)?,
            parent: (!parent.is_empty()).then(|| id("parent", &parent)).transpose()?,
            ..IdentityFilter::default()
        };
        let identities: Vec<_> = self.0.runner.read(|registry| {
            let named = registry.list(&filter).filter(|identity| identity.name.contains(&text));
            named.take(LIST_MAX + 1).map(wire::Identity::from).collect()
        });
        if identities.len() > LIST_MAX {
            let text =
                format!("more than {LIST_MAX} identities match; ask for fewer by type, parent or text");
            return Err(Status::resource_exhausted(text));
        }
        Ok(Response::new(wire::IdentityList { identities }))
    }

    async fn update_status(
        &self,
        request: Request<wire::UpdateStatusRequest>,
    ) -> Result<Response<wire::Identity>, Status> {
        let service = Arc::clone(&self.0);
        let requestor = kit::requestor(service.runner.node(), &request, true)?;
        let trace = trace_of(&request)?;
        let wire::UpdateStatusRequest { id: identity, status, reason } = request.into_inner();
        let identity = id("id", &identity)?;
        let status = from_name("status", &status).map_err(|error| misuse(&error))?;
        let wanted = UpdateStatusRequest { requestor: requestor.id(), identity, status, reason };
        kit::uncancelled(async move {
            let update = |id| Event::UpdateStatus { id, request: wanted };
            service.runner.withdraw(requestor, trace, "the status is changed", update).await?;
            // The fold may be a moment behind; what was committed is known.
            let changed = |found: &Identity| wire::Identity::from(&Identity { status, ..found.clone() });
            let changed = service.runner.read(|registry| registry.get(&identity).map(changed));
            Ok(Response::new(changed?))
        })
        .await
    }

    async fn issue_token(
        &self,
        request: Request<wire::IssueTokenRequest>,
    ) -> Result<Response<wire::Token>, Status> {
        let service = Arc::clone(&self.0);
        let requestor = kit::requestor(service.runner.node(), &request, false)?;
        if requestor.claims().is_some() {
            let text = "a token is issued for whom the channel vouches for; send no other token with this";
            return Err(Status::invalid_argument(text));
        }
        let (trace, channel) = (trace_of(&request)?, kit::caller(&request)?.channel_name().to_owned());
        let wire::IssueTokenRequest { lifetime_s, actions, resources } = request.into_inner();
        let identity = requestor.id();
        let wanted = IssueTokenRequest {
            requestor: identity,
            identity,
            channel,
            scope: scope(&actions, resources)?,
            life_ns: (lifetime_s != 0).then(|| u64::from(lifetime_s) * SECOND_NS),
            token: TokenId(kit::authority::random_16()?),
        };
        kit::uncancelled(async move {
            let issue = |id| Event::IssueToken { id, request: wanted };
            let Reply::Token(claims) = service.runner.run(requestor, trace, issue).await?.0 else {
                return Err(Status::internal("another answer than a token"));
            };
            Ok(Response::new(Self(service).signed(*claims)?))
        })
        .await
    }

    async fn verify_token(
        &self,
        request: Request<wire::VerifyTokenRequest>,
    ) -> Result<Response<wire::VerifyTokenReply>, Status> {
        let own = kit::caller(&request)?.channel_name();
        let wire::VerifyTokenRequest { token, channel } = request.get_ref();
        let channel = if channel.is_empty() { own } else { channel.as_str() };
        let now = self.0.runner.node().clock().now().unwrap_or(base::AxiomTime(u64::MAX));
        let verified = self
            .0
            .runner
            .read(|registry| registry.verify_token(token, now, channel).map(wire::Identity::from));
        Ok(Response::new(wire::VerifyTokenReply { identity: Some(verified?) }))
    }

    async fn revoke_token(
        &self,
        request: Request<wire::RevokeTokenRequest>,
    ) -> Result<Response<wire::RevokeTokenReply>, Status> {
        let service = Arc::clone(&self.0);
        let requestor = kit::requestor(service.runner.node(), &request, true)?;
        let trace = trace_of(&request)?;
        let token = TokenId(bytes("id", &request.get_ref().id).map_err(|error| misuse(&error))?);
        kit::uncancelled(async move {
            let by = requestor.id();
            let revoke = |id| Event::RevokeToken { id, requestor: by, token };
            let revoked_at =
                service.runner.withdraw(requestor, trace, "the token is revoked", revoke).await?;
            Ok(Response::new(wire::RevokeTokenReply { revoked_at: revoked_at.map(Into::into) }))
        })
        .await
    }

    async fn add_credential(
        &self,
        request: Request<wire::AddCredentialRequest>,
    ) -> Result<Response<wire::AddCredentialReply>, Status> {
        let service = Arc::clone(&self.0);
        let requestor = kit::requestor(service.runner.node(), &request, true)?;
        let (trace, channel) = (trace_of(&request)?, kit::caller(&request)?.channel_name().to_owned());
        let wire::AddCredentialRequest { identity, name, kind } = request.into_inner();
        let (kind, key) = login::new_credential(kind, &channel)?;
        let credential = match &kind {
            NewCredential::Passkey { registration, .. } => registration.challenge.credential,
            _ => CredentialId(kit::authority::random_16()?),
        };
        let claims = requestor.claims();
        let wanted = AddCredentialRequest {
            requestor: requestor.id(),
            bound: claims.map(|claims| claims.scope.clone()),
            proved_by: claims.and_then(|claims| Some(claims.authentication.as_ref()?.credential)),
            identity: id("identity", &identity)?,
            credential,
            name,
            kind,
        };
        kit::uncancelled(async move {
            let add = |id| Event::AddCredential { id, request: wanted };
            match service.runner.run(requestor, trace, add).await?.0 {
                Reply::Credential(credential) => Ok(Response::new(wire::AddCredentialReply {
                    credential: Some(login::wire_credential(&credential)),
                    key: key.to_string(),
                })),
                _ => Err(Status::internal("another answer than a credential")),
            }
        })
        .await
    }

    async fn revoke_credential(
        &self,
        request: Request<wire::RevokeCredentialRequest>,
    ) -> Result<Response<wire::RevokeCredentialReply>, Status> {
        let service = Arc::clone(&self.0);
        let requestor = kit::requestor(service.runner.node(), &request, true)?;
        let trace = trace_of(&request)?;
        let wire::RevokeCredentialRequest { identity, credential, reason } = request.into_inner();
        let wanted = RevokeCredentialRequest {
            requestor: requestor.id(),
            identity: id("identity", &identity)?,
            credential: credential_id(&credential)?,
            reason,
        };
        kit::uncancelled(async move {
            let revoke = |id| Event::RevokeCredential { id, request: wanted };
            let what = "the credential is revoked";
            let revoked_at = service.runner.withdraw(requestor, trace, what, revoke).await?;
            Ok(Response::new(wire::RevokeCredentialReply { revoked_at: revoked_at.map(Into::into) }))
        })
        .await
    }

    async fn list_credentials(
        &self,
        request: Request<wire::ListCredentialsRequest>,
    ) -> Result<Response<wire::CredentialList>, Status> {
        let identity = id("identity", &request.get_ref().identity)?;
        let credentials = self.0.runner.read(|registry| {
            registry.get(&identity)?;
            Ok::<_, IdentityError>(registry.credentials().of(&identity).map(login::wire_credential).collect())
        })?;
        Ok(Response::new(wire::CredentialList { credentials }))
    }

    async fn request_challenge(
        &self,
        request: Request<wire::RequestChallengeRequest>,
    ) -> Result<Response<wire::Challenge>, Status> {
        let requestor = kit::requestor(self.0.runner.node(), &request, false)?;
        let (trace, channel) = (trace_of(&request)?, kit::caller(&request)?.channel_name().to_owned());
        let wire::RequestChallengeRequest { credential, origin } = request.into_inner();
        let adding = credential.is_empty();
        let credential = match adding {
            true => CredentialId(kit::authority::random_16()?),
            false => credential_id(&credential)?,
        };
        let origin = (!origin.is_empty()).then_some(origin);
        let mut nonce = [0; 32];
        sandbox::random::fill(&mut nonce)
            .map_err(|_| Status::unavailable("the kernel gives no random numbers"))?;
        let random = (kit::authority::random_16()?, nonce);
        let ask = |id| Event::RequestChallenge { id, credential, adding, origin, channel, random };
        match self.0.runner.run(requestor, trace, ask).await?.0 {
            Reply::Challenge(challenge) => Ok(Response::new(login::wire_challenge(&challenge))),
            _ => Err(Status::internal("another answer than a challenge")),
        }
    }

    async fn authenticate(
        &self,
        request: Request<wire::AuthenticateRequest>,
    ) -> Result<Response<wire::Token>, Status> {
        let service = Arc::clone(&self.0);
        let requestor = kit::requestor(service.runner.node(), &request, false)?;
        let (trace, channel) = (trace_of(&request)?, kit::caller(&request)?.channel_name().to_owned());
        let wire = request.into_inner();
        let wanted = AuthenticateRequest {
            credential: credential_id(&wire.credential)?,
            challenge: login::challenge(wire.challenge).map_err(|error| misuse(&error))?,
            proof: login::proof(wire.proof).map_err(|error| misuse(&error))?,
            channel,
            actions: scope_actions(&wire.actions)?,
            resources: wire.resources,
            life_ns: (wire.lifetime_s != 0).then(|| u64::from(wire.lifetime_s) * SECOND_NS),
            token: TokenId(kit::authority::random_16()?),
        };
        kit::uncancelled(async move {
            let login = |id| Event::Authenticate { id, request: wanted };
            match service.runner.run(requestor, trace, login).await?.0 {
                Reply::Token(claims) => Ok(Response::new(Self(service).signed(*claims)?)),
                _ => Err(Status::internal("another answer than a token")),
            }
        })
        .await
    }

    async fn get_trust_bundle(
        &self,
        _: Request<wire::GetTrustBundleRequest>,
    ) -> Result<Response<wire::TrustBundle>, Status> {
        Ok(Response::new(self.0.svids.trust_bundle().await?))
    }

    async fn who_am_i(
        &self,
        request: Request<wire::WhoAmIRequest>,
    ) -> Result<Response<wire::Identity>, Status> {
        let requestor = kit::requestor(self.0.runner.node(), &request, false)?;
        Ok(Response::new(self.wire_identity(&requestor.id())?))
    }
}
