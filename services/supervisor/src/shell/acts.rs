//! Questions to the Policy Engine: may this service be started, stopped, restarted, registered, removed?

use base::IdentityId;
use chain::payload::policy::{PolicyAction, ResourceRef, ResourceType, ServiceOperation};
use kit::authority::{Authority, AuthorityError};

use crate::core::supervisor::ActOutcome;

/// Decides and records the decision; what follows is recorded by the supervisor under its request's hash.
pub(super) async fn ask(
    authority: Authority,
    requestor: IdentityId,
    service: String,
    operation: ServiceOperation,
) -> ActOutcome {
    let action = PolicyAction::ControlService { service: service.clone(), operation };
    let asked = match authority.request(requestor, action, resource(service)) {
        Ok(request) => authority.evaluate(&request).await.map(|_| request.hash()),
        Err(error) => Err(error),
    };
    match asked {
        Ok(authorization) => ActOutcome::Allowed { authorization },
        Err(AuthorityError::Denied { decision, .. }) => ActOutcome::Denied { refusal: decision.sequence.0 },
        Err(error) => ActOutcome::Unavailable { text: error.to_string() },
    }
}

fn resource(service: String) -> ResourceRef {
    ResourceRef { resource_type: ResourceType::Service, id: service }
}
