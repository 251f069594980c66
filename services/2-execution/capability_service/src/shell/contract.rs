//! The `Capabilities` contract.

use std::{sync::Arc, time::Duration};

use base::{AxiomRef, AxiomTime, CapabilityId, IdentityId, Sequence, TraceId, limits::MESSAGE_BYTES_MAX};
use chain::payload::{
    capability::{CapabilityGrant, CapabilityRevoke, Permissions, Resource},
    policy::{PolicyAction, ResourceRef, ResourceType},
};
use contracts::{
    axiom::v1::{AwaitFoldedRequest, axiom_client::AxiomClient},
    capability_service::v1 as wire,
    convert::{ConvertError, bytes, to_name},
};
use kit::{CallError, OperationContext, Requestor, authority::Entry};
use tonic::{Request, Response, Status};

use super::CapabilityService;
use crate::core::{
    CapabilityError, Delegation, Filter, Revoker, Unfit, Use, Wish, check_chain, check_context, check_revoke,
    plan_delegation, plan_grant,
};

/// How long a revocation waits for all services to have folded it.
const FOLD_WAIT_MS: u32 = 500;
/// The call has longer: axiom has laggards replaced and waits for that.
const FOLD_CALL_TIMEOUT: Duration = Duration::from_millis(FOLD_WAIT_MS as u64 + 2_500);
const AWAIT_CAPABILITY: &str = "system.axiom.await_folded";
/// Withdraws what is misused, whoever granted it (SUP-64).
const SUPERVISOR: &str = "supervisor";
/// Stands for everyone when axiom does not tell who has folded it.
const NOT_CONFIRMED: &str = "axiom";
/// Bytes of a listed capability beside its object id and context: four ids, a reference, bits, times, framing.
const LISTED_BYTES: usize = 320;
/// Framing of one pair of a context.
const CONTEXT_PAIR_BYTES: usize = 12;

const REVOKE: Permissions =
    Permissions { read: false, write: false, execute: false, delegate: false, revoke: true };

pub(super) struct Handlers(pub(super) Arc<CapabilityService>);

fn misuse(error: ConvertError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn resource(value: Option<wire::Resource>) -> Result<Resource, Status> {
    let value = value.ok_or_else(|| misuse(ConvertError::Missing("resource")))?;
    Resource::try_from(&value).map_err(misuse)
}

fn permissions(value: Option<wire::Permissions>) -> Permissions {
    value.map(|value| Permissions::from(&value)).unwrap_or_default()
}

fn identity(field: &'static str, value: &[u8]) -> Result<IdentityId, Status> {
    bytes(field, value).map(IdentityId).map_err(misuse)
}

/// What policy's rules and a token's scope see of an object.
fn guarded(resource: &Resource) -> ResourceRef {
    let id = format!("{}:{}", to_name(&resource.object_type), resource.object_id);
    ResourceRef { resource_type: ResourceType::Capability, id }
}

/// A rate is two numbers, and so are hours; one alone would silently be none.
fn check_halves(restrictions: Option<&wire::Restrictions>) -> Result<(), CapabilityError> {
    let Some(all) = restrictions else { return Ok(()) };
    if all.rate_count.is_some() != all.rate_window_ns.is_some() {
        return Err(CapabilityError::Restrictions("a rate has a count and a window"));
    }
    match all.day_from_s.is_some() == all.day_to_s.is_some() {
        true => Ok(()),
        false => Err(CapabilityError::Restrictions("hours have a beginning and an end")),
    }
}

/// Upper bound of what it takes in a message.
fn listed_bytes(grant: &CapabilityGrant) -> usize {
    let context = grant.restrictions.iter().flat_map(|restrictions| &restrictions.context);
    let told: usize = context.map(|(key, value)| CONTEXT_PAIR_BYTES + key.len() + value.len()).sum();
    LISTED_BYTES + grant.resource.object_id.len() + told
}

const fn word(unfit: Unfit) -> &'static str {
    match unfit {
        Unfit::NotHeld => "not_held",
        Unfit::Time => "time",
        Unfit::Context => "context",
        Unfit::Rate => "rate",
    }
}

fn on_wire(grant: &CapabilityGrant, created_at: AxiomRef) -> wire::Capability {
    wire::Capability {
        id: grant.capability_id.0.to_vec(),
        resource: Some((&grant.resource).into()),
        permissions: Some(grant.permissions.into()),
        restrictions: grant.restrictions.as_ref().map(Into::into),
        holder: grant.grantee.0.to_vec(),
        grantor: grant.grantor.0.to_vec(),
        parent: grant.parent.map(|parent| parent.0.to_vec()),
        generation: 0,
        created_at: Some(created_at.into()),
    }
}

impl CapabilityService {
    fn is_admin(&self, id: IdentityId) -> bool {
        self.node.local().genesis_admin() == Some(id)
    }

    fn is_supervisor(&self, id: IdentityId) -> bool {
        self.node.local().service_identity(SUPERVISOR) == Some(id)
    }

    async fn grant(&self, requestor: &Requestor, wish: Wish) -> Result<(CapabilityGrant, AxiomRef), Status> {
        let now = self.node.clock().now().ok_or(CapabilityError::TimeUnknown)?;
        let active = self.node.local().is_active(&wish.grantee);
        let makes_new = self.is_admin(requestor.id());
        let grant = plan_grant(&self.holdings(), wish, active, makes_new, now)?;
        self.commit(requestor, grant).await
    }

    async fn delegate(
        &self,
        requestor: &Requestor,
        wish: Delegation,
    ) -> Result<(CapabilityGrant, AxiomRef), Status> {
        let now = self.node.clock().now().ok_or(CapabilityError::TimeUnknown)?;
        let active = self.node.local().is_active(&wish.to);
        let grant = plan_delegation(&self.holdings(), wish, active, now)?;
        self.commit(requestor, grant).await
    }

    /// Policy decides, the log records.
    async fn commit(
        &self,
        requestor: &Requestor,
        grant: CapabilityGrant,
    ) -> Result<(CapabilityGrant, AxiomRef), Status> {
        // A passed on right is the source's; a new one is its own.
        let capability = grant.parent.unwrap_or(grant.capability_id);
        let action = PolicyAction::DelegateCapability { capability, to: grant.grantee };
        let request = requestor.ask(&self.node, action, guarded(&grant.resource))?;
        let entry = Entry::for_request(self.node.identity(), &request, grant.clone())?;
        let committed = self.node.authority().act(&request, entry).await?;
        let created_at = committed.entry.ok_or_else(|| Status::internal("an act without an entry"))?;
        // So that the caller's next question finds it; if the feed is late, the grant stands all the same.
        let _ = self.node.feed().wait_for(created_at.sequence).await;
        Ok((grant, created_at))
    }

    /// Somebody else's capability: no mistake makes up an id that exists.
    fn is_foreign(&self, id: &CapabilityId, by: IdentityId) -> bool {
        self.holdings().get(id).is_some_and(|granted| granted.grant.grantee != by)
    }

    fn spend(&self, holder: IdentityId, object: &Resource, what: &Use) -> Result<CapabilityId, Unfit> {
        let local = self.node.local();
        let Some(now) = self.node.clock().now() else { return Err(Unfit::Time) };
        if !local.is_active(&holder) {
            return Err(Unfit::NotHeld);
        }
        let held = local.held_on(&holder, object);
        let holdings = self.holdings();
        let mut uses = self.uses();
        // The log's time was not known when this process became ready.
        uses.begin(now);
        uses.spend(&holdings, &held, what, now)
    }

    async fn revoke(
        &self,
        requestor: &Requestor,
        capability: CapabilityId,
        reason: String,
    ) -> Result<AxiomRef, Status> {
        let id = requestor.id();
        let by = Revoker { id, answers_to_policy_alone: self.is_admin(id) || self.is_supervisor(id) };
        let now = self.node.clock().now();
        let holds = |resource: &Resource| self.node.local().holds(&by.id, resource, REVOKE, now);
        let resource = check_revoke(&self.holdings(), &capability, by, &reason, holds)
            .map(|granted| guarded(&granted.grant.resource))?;
        let request = requestor.ask(&self.node, PolicyAction::RevokeCapability { capability }, resource)?;
        let body = CapabilityRevoke { capability, by: by.id, reason };
        let entry = Entry::for_request(self.node.identity(), &request, body)?;
        let committed = self.node.authority().act(&request, entry).await?;
        let revoked_at = committed.entry.ok_or_else(|| Status::internal("an act without an entry"))?;
        let _ = self.node.feed().wait_for(revoked_at.sequence).await;
        Ok(revoked_at)
    }

    /// Services that may still honour what was revoked.
    async fn laggards(&self, sequence: Sequence, trace: TraceId) -> Vec<String> {
        match self.await_folded(sequence, trace).await {
            Ok(laggards) => laggards,
            Err(error) => {
                tracing::warn!(%error, %sequence, "axiom does not tell who has folded a revocation");
                vec![NOT_CONFIRMED.to_owned()]
            }
        }
    }

    async fn await_folded(&self, sequence: Sequence, trace: TraceId) -> Result<Vec<String>, CallError> {
        let calls = OperationContext::of_service(self.node.identity(), AWAIT_CAPABILITY, trace)
            .and_then(|context| self.axiom.within(&context, None, FOLD_CALL_TIMEOUT))
            .map_err(Status::from)?;
        let request = AwaitFoldedRequest { sequence: sequence.0, timeout_ms: FOLD_WAIT_MS };
        Ok(AxiomClient::new(calls).await_folded(request).await?.into_inner().laggards)
    }
}

#[tonic::async_trait]
impl wire::capabilities_server::Capabilities for Handlers {
    async fn grant(
        &self,
        request: Request<wire::GrantRequest>,
    ) -> Result<Response<wire::Capability>, Status> {
        let service = Arc::clone(&self.0);
        let requestor = kit::requestor(&service.node, &request, true)?;
        let wanted = request.into_inner();
        check_halves(wanted.restrictions.as_ref())?;
        let wish = Wish {
            capability: CapabilityId(kit::authority::random_16()?),
            grantor: requestor.id(),
            grantee: identity("grantee", &wanted.grantee)?,
            resource: resource(wanted.resource)?,
            permissions: permissions(wanted.permissions),
            restrictions: wanted.restrictions.as_ref().map(Into::into),
            expires_at: wanted.expires_at_ns.map(AxiomTime),
        };
        kit::uncancelled(async move {
            let (grant, created_at) = service.grant(&requestor, wish).await?;
            Ok(Response::new(on_wire(&grant, created_at)))
        })
        .await
    }

    async fn delegate(
        &self,
        request: Request<wire::DelegateRequest>,
    ) -> Result<Response<wire::Capability>, Status> {
        let service = Arc::clone(&self.0);
        let requestor = kit::requestor(&service.node, &request, true)?;
        let misuse_by = kit::misuse(&request)?;
        let wanted = request.into_inner();
        let wish = Delegation {
            capability: CapabilityId(kit::authority::random_16()?),
            source: CapabilityId(bytes("capability", &wanted.capability).map_err(misuse)?),
            by: requestor.id(),
            to: identity("to", &wanted.to)?,
            permissions: permissions(wanted.permissions),
        };
        if service.is_foreign(&wish.source, wish.by) {
            misuse_by.is_abuse(&format!("wanted to pass on capability {}, which another holds", wish.source));
        }
        kit::uncancelled(async move {
            let (grant, created_at) = service.delegate(&requestor, wish).await?;
            Ok(Response::new(on_wire(&grant, created_at)))
        })
        .await
    }

    async fn get_chain(
        &self,
        request: Request<wire::GetChainRequest>,
    ) -> Result<Response<wire::CapabilityList>, Status> {
        let by = kit::requestor(&self.0.node, &request, false)?.id();
        let id = CapabilityId(bytes("capability", &request.get_ref().capability).map_err(misuse)?);
        let holdings = self.0.holdings();
        let mut room = MESSAGE_BYTES_MAX;
        let mut capabilities = Vec::new();
        for granted in check_chain(&holdings, &id, by, self.0.is_admin(by))? {
            room = room.checked_sub(listed_bytes(&granted.grant)).ok_or(CapabilityError::TooMany)?;
            capabilities.push(on_wire(&granted.grant, granted.created_at));
        }
        Ok(Response::new(wire::CapabilityList { capabilities, more: false }))
    }

    async fn r#use(&self, request: Request<wire::UseRequest>) -> Result<Response<wire::UseReply>, Status> {
        let wire::UseRequest { identity: holder, resource: object, permissions: asked, context } =
            request.into_inner();
        let (holder, object) = (identity("identity", &holder)?, resource(object)?);
        let what = Use { permissions: permissions(asked), context: context.into_iter().collect() };
        check_context(&what.context)?;
        Ok(Response::new(match self.0.spend(holder, &object, &what) {
            Ok(id) => {
                wire::UseReply { permitted: true, capability: id.0.to_vec(), ..wire::UseReply::default() }
            }
            Err(unfit) => wire::UseReply { refused: word(unfit).to_owned(), ..wire::UseReply::default() },
        }))
    }

    async fn check(
        &self,
        request: Request<wire::CheckRequest>,
    ) -> Result<Response<wire::CheckReply>, Status> {
        let wire::CheckRequest { identity: holder, resource: object, permissions: asked } =
            request.into_inner();
        let (holder, object, asked) = (identity("identity", &holder)?, resource(object)?, permissions(asked));
        // To hold nothing is no right.
        let held = !asked.is_empty()
            && self.0.node.local().holds(&holder, &object, asked, self.0.node.clock().now());
        Ok(Response::new(wire::CheckReply { held }))
    }

    async fn list(
        &self,
        request: Request<wire::CapabilityFilter>,
    ) -> Result<Response<wire::CapabilityList>, Status> {
        let by = kit::requestor(&self.0.node, &request, false)?.id();
        let wire::CapabilityFilter { holder, resource: object, after } = request.into_inner();
        let is_paged = after.is_some();
        let after = after.filter(|after| !after.is_empty());
        let filter = Filter {
            holder: (!holder.is_empty()).then(|| identity("holder", &holder)).transpose()?,
            resource: object.map(|object| resource(Some(object))).transpose()?,
            after: after.map(|after| bytes("after", &after).map(CapabilityId).map_err(misuse)).transpose()?,
        };
        let is_admin = self.0.is_admin(by);
        let mut room = MESSAGE_BYTES_MAX;
        let mut capabilities = Vec::new();
        let mut more = false;
        let holdings = self.0.holdings();
        for granted in holdings.list(&filter) {
            // Others' capabilities are none of the caller's business (CAP-33).
            if is_admin || granted.grant.grantee == by || granted.grant.grantor == by {
                match room.checked_sub(listed_bytes(&granted.grant)) {
                    Some(left) => room = left,
                    None if is_paged => {
                        more = true;
                        break;
                    }
                    None => return Err(CapabilityError::TooMany.into()),
                }
                capabilities.push(on_wire(&granted.grant, granted.created_at));
            }
        }
        Ok(Response::new(wire::CapabilityList { capabilities, more }))
    }

    async fn revoke(
        &self,
        request: Request<wire::RevokeRequest>,
    ) -> Result<Response<wire::RevokeReply>, Status> {
        let service = Arc::clone(&self.0);
        let requestor = kit::requestor(&service.node, &request, true)?;
        let trace = kit::context_of(&request)?.trace_id();
        let wire::RevokeRequest { id, reason } = request.into_inner();
        let capability = CapabilityId(bytes("id", &id).map_err(misuse)?);
        kit::uncancelled(async move {
            let revoked_at = service.revoke(&requestor, capability, reason).await?;
            let laggards = service.laggards(revoked_at.sequence, trace).await;
            Ok(Response::new(wire::RevokeReply { revoked_at: Some(revoked_at.into()), laggards }))
        })
        .await
    }
}
