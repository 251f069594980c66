//! Who is the requestor of a call: asked here by every service, in one way.
//!
//! The channel names an identity: the client's own on an edge, genesis' admin on the admin socket. A token that was issued
//! to this channel may name who stands behind it instead. The context only claims, and must agree.

use base::IdentityId;
use chain::payload::policy::{ActionKind, PolicyAction, PolicyRequest, ResourceRef};
use tonic::{Request, Status};

use crate::{
    channel::{Caller, ChannelKind},
    clock::AxiomClock,
    error::KitError,
    local::LocalState,
    service::{Node, caller, context_of},
    token::{Claims, TokenError},
};

const TOKEN_METADATA: &str = "authorization";
const TOKEN_SCHEME: &str = "Bearer ";

/// A proven requestor, and what its token permits at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requestor {
    id: IdentityId,
    claims: Option<Claims>,
}

impl Requestor {
    #[must_use]
    pub const fn id(&self) -> IdentityId {
        self.id
    }

    /// None if the channel alone proves it.
    #[must_use]
    pub const fn claims(&self) -> Option<&Claims> {
        self.claims.as_ref()
    }

    /// Refuses what lies outside the token's scope, whatever policy would say (IDN-31).
    pub fn permit(&self, action: ActionKind, resource: &ResourceRef) -> Result<(), KitError> {
        match &self.claims {
            Some(claims) => claims.require(action, resource).map_err(KitError::TokenRefused),
            None => Ok(()),
        }
    }

    /// A request to policy in this requestor's name, inside its token's scope.
    pub fn ask(
        &self,
        node: &Node,
        action: PolicyAction,
        resource: ResourceRef,
    ) -> Result<PolicyRequest, Status> {
        self.permit(action.kind(), &resource)?;
        Ok(node.authority().request(self.id, action, resource)?)
    }
}

/// Proves the requestor of a call. `token_on_admin`: on the admin socket the uid alone does not suffice; on an edge the
/// socket does, and a token is verified if there is one.
pub fn requestor<T>(node: &Node, request: &Request<T>, token_on_admin: bool) -> Result<Requestor, KitError> {
    requestor_in(node.local(), node.clock(), request, token_on_admin)
}

/// Who calls on a workload's socket: its service, as long as that may act.
pub fn workload<T>(node: &Node, request: &Request<T>) -> Result<Requestor, KitError> {
    let caller = caller(request).map_err(|_| KitError::HandlerDied)?;
    let id = channel_identity(node.local(), caller)?;
    match node.local().is_active(&id) {
        true => Ok(Requestor { id, claims: None }),
        false => Err(KitError::NotActive(id)),
    }
}

/// The same for a process without a `Node` (the supervisor).
pub fn requestor_in<T>(
    local: &LocalState,
    clock: &AxiomClock,
    request: &Request<T>,
    token_on_admin: bool,
) -> Result<Requestor, KitError> {
    let inside = |_| KitError::HandlerDied;
    let caller = caller(request).map_err(inside)?;
    let own = channel_identity(local, caller)?;
    let claims = match bearer(request)? {
        Some(text) => {
            let verified = local.verify_token(text, clock.now(), caller.channel_name());
            Some(verified.map_err(KitError::TokenRefused)?)
        }
        None if token_on_admin && caller.is_admin() => return Err(KitError::TokenRequired),
        None => None,
    };
    let id = claims.as_ref().map_or(own, |claims| claims.identity);
    let context = context_of(request).map_err(inside)?;
    if let Some(claimed) = context.requester()
        && claimed != id
    {
        let text = format!("the context names {claimed} as the requester, the channel proves {id}");
        return Err(KitError::EnvelopeInvalid(text));
    }
    match local.is_active(&id) {
        true => Ok(Requestor { id, claims }),
        false => Err(KitError::NotActive(id)),
    }
}

/// Whom the socket itself vouches for.
fn channel_identity(local: &LocalState, caller: &Caller) -> Result<IdentityId, KitError> {
    let identity = match caller.channel {
        ChannelKind::Admin => local.genesis_admin(),
        // The operator's channel has that name; a service that took it would be taken for the operator's token holder.
        ChannelKind::Edge | ChannelKind::Workload if &*caller.client != ChannelKind::Admin.name() => {
            local.service_identity(&caller.client)
        }
        _ => None,
    };
    identity.ok_or_else(|| KitError::NobodyThere(caller.channel_name().chars().take(80).collect()))
}

fn bearer<T>(request: &Request<T>) -> Result<Option<&str>, KitError> {
    let malformed = || KitError::TokenRefused(TokenError::Malformed("send one `authorization: Bearer …`"));
    let mut values = request.metadata().get_all(TOKEN_METADATA).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().and_then(|text| text.strip_prefix(TOKEN_SCHEME));
    match (text, values.next()) {
        (Some(text), None) => Ok(Some(text)),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
#[path = "requestor_tests.rs"]
mod tests;
