//! Who uses a capability for what it does not permit loses it (SUP-64, CAP open point 8).
//!
//! A client of an edge holds a capability on this service. Uses beyond it are refused and counted; when they add up to
//! abuse, the supervisor is told, which has the capability revoked: that is the entry in the log, and from then on the
//! gate refuses everything. The operator's socket is not counted: the operator is inside the trusted base.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base::{AxiomTime, CapabilityId, IdentityId, TraceId};
use chain::payload::capability::{ObjectType, Resource};
use contracts::supervisor::v1::{ReportMisuseRequest, supervisor_client::SupervisorClient};
use tonic::Request;

use crate::{
    authority::random_16,
    channel::{Caller, ChannelKind},
    context::OperationContext,
    error::{CallError, KitError, Retry},
    service::Node,
    table::Operation,
};

/// Refused uses of one capability within [`REFUSED_USES_WINDOW`] that are abuse. One or two are a mistake.
pub const REFUSED_USES_MAX: usize = 3;
pub const REFUSED_USES_WINDOW: Duration = Duration::from_secs(60);
/// Who hands capabilities out needs none (CAP-38).
pub(crate) const SUPERVISOR: &str = "supervisor";
const REPORT_CAPABILITY: &str = "system.supervisor.report_misuse";
/// How often a report is sent while nobody can revoke: after half a minute the next abuse makes a new one.
const REPORTS_MAX: u32 = 60;
const REPORT_PAUSE: Duration = Duration::from_millis(500);

/// Refused uses by client; clients are the edges of this service, so their number is the manifests'.
#[derive(Debug, Default)]
struct Ledger {
    refused: HashMap<Arc<str>, Vec<Instant>>,
}

impl Ledger {
    /// True if this refusal makes it abuse; then counting begins anew.
    fn note(&mut self, client: &Arc<str>, now: Instant) -> bool {
        let times = self.refused.entry(Arc::clone(client)).or_default();
        times.retain(|time| now.saturating_duration_since(*time) < REFUSED_USES_WINDOW);
        times.push(now);
        let is_abuse = times.len() >= REFUSED_USES_MAX;
        if is_abuse {
            self.refused.remove(client);
        }
        is_abuse
    }
}

/// Log time as the service knows it; there once `Init` was answered.
pub(crate) type Now = Box<dyn Fn() -> Option<AxiomTime> + Send + Sync>;

/// What the clients of edges may here, and what they have tried.
pub(crate) struct EdgeRights {
    node: Node,
    /// Type of the capability on this service; none: a socket suffices.
    capability_type: Option<&'static str>,
    ledger: Mutex<Ledger>,
}

impl std::fmt::Debug for EdgeRights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeRights").field("capability_type", &self.capability_type).finish_non_exhaustive()
    }
}

impl EdgeRights {
    pub(crate) fn new(node: Node, capability_type: Option<&'static str>) -> Self {
        Self { node, capability_type, ledger: Mutex::default() }
    }

    fn resource(&self) -> Option<Resource> {
        let object_id = self.capability_type?.to_owned();
        Some(Resource { object_type: ObjectType::Service, object_id })
    }

    /// Whether the capability that a client holds on this service permits an operation (AX-11, POL-36).
    pub(crate) fn check(
        &self,
        caller: &Caller,
        operation: &'static Operation,
        now: Option<AxiomTime>,
    ) -> Result<(), KitError> {
        let free = caller.channel != ChannelKind::Edge || operation.public || &*caller.client == SUPERVISOR;
        let Some(resource) = self.resource().filter(|_| !free) else { return Ok(()) };
        if now.is_none() {
            return Err(KitError::LogUnheard);
        }
        let local = self.node.local();
        let holder = local.service_identity(&caller.client);
        let holder = holder.ok_or_else(|| KitError::NobodyThere(caller.client.to_string()))?;
        // Whoever is suspended will hold it again.
        if !local.is_active(&holder) {
            return Err(KitError::NotActive(holder));
        }
        if local.holds(&holder, &resource, operation.right.into(), now) {
            return Ok(());
        }
        Err(KitError::CapabilityNotHeld {
            client: caller.client.to_string(),
            capability_type: resource.object_id,
            right: operation.right,
        })
    }

    /// Counts a refused use.
    pub(crate) fn refused(self: &Arc<Self>, caller: &Caller, why: &KitError) {
        let is_use = matches!(
            why,
            KitError::CapabilityNotHeld { .. }
                | KitError::CapabilityMismatch { .. }
                | KitError::CallerNotAllowed { .. }
        );
        if !is_use || caller.channel != ChannelKind::Edge {
            return;
        }
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let is_abuse = ledger.note(&caller.client, Instant::now());
        drop(ledger);
        if is_abuse {
            let seconds = REFUSED_USES_WINDOW.as_secs();
            self.withdraw(
                caller,
                &format!("{REFUSED_USES_MAX} refused uses in {seconds} s, the last: {why}"),
            );
        }
    }

    /// Has everything revoked that the client holds on this service.
    fn withdraw(self: &Arc<Self>, caller: &Caller, what: &str) {
        let local = self.node.local();
        let (Some(resource), Some(holder)) = (self.resource(), local.service_identity(&caller.client)) else {
            return;
        };
        let text = format!("misuse by {}: {what}", caller.client);
        tracing::warn!(client = %caller.client, what, "a capability is misused");
        for capability in local.held_on(&holder, &resource) {
            let (rights, text) = (Arc::clone(self), text.clone());
            tokio::spawn(async move { rights.report(capability, holder, &text).await });
        }
    }

    /// Until somebody has revoked it: what is refused meanwhile stays refused.
    async fn report(&self, capability: CapabilityId, holder: IdentityId, text: &str) {
        for _ in 0..REPORTS_MAX {
            match self.report_once(capability, text).await {
                Ok(()) => return,
                Err(error) if matches!(error.retry(), Retry::After(_)) => {
                    tokio::time::sleep(REPORT_PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(%error, %capability, %holder, "a misused capability is not withdrawn");
                    return;
                }
            }
        }
        tracing::error!(%capability, %holder, "nobody could withdraw a misused capability");
    }

    async fn report_once(&self, capability: CapabilityId, text: &str) -> Result<(), CallError> {
        let trace = TraceId(random_16().map_err(tonic::Status::from)?);
        let context = OperationContext::of_service(self.node.identity(), REPORT_CAPABILITY, trace)
            .map_err(tonic::Status::from)?;
        let calls = self.node.peer(SUPERVISOR).with(&context, None).map_err(tonic::Status::from)?;
        let request = ReportMisuseRequest { capability: capability.0.to_vec(), text: text.to_owned() };
        SupervisorClient::new(calls).report_misuse(request).await?;
        Ok(())
    }
}

/// For a handler that finds a use which no count excuses, such as another's capability id.
#[derive(Clone, Debug)]
pub struct Misuse {
    rights: Arc<EdgeRights>,
    caller: Caller,
}

impl Misuse {
    pub(crate) fn new(rights: &Arc<EdgeRights>, caller: &Caller) -> Self {
        Self { rights: Arc::clone(rights), caller: caller.clone() }
    }

    /// Withdraws what the caller holds on this service.
    pub fn is_abuse(&self, what: &str) {
        if self.caller.channel == ChannelKind::Edge {
            self.rights.withdraw(&self.caller, what);
        }
    }
}

/// How a handler reports abuse by the caller of this request.
pub fn misuse<T>(request: &Request<T>) -> Result<Misuse, tonic::Status> {
    request.extensions().get::<Misuse>().cloned().ok_or_else(|| KitError::HandlerDied.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_refusals_of_one_client_in_a_window_are_abuse() {
        let mut ledger = Ledger::default();
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        assert!(!ledger.note(&one, at(0)));
        assert!(!ledger.note(&one, at(1)));
        assert!(!ledger.note(&other, at(2)), "each client counts for itself");
        assert!(ledger.note(&one, at(59)));
        assert!(!ledger.note(&one, at(59)), "counted anew");
        assert!(!ledger.note(&other, at(30)));
        assert!(!ledger.note(&other, at(62)), "the first one is a window ago");
        assert!(ledger.note(&other, at(63)));
    }
}
