//! Which services run in a container image: the supervisor knows, and who keeps the image asks before it removes it.

use std::time::Duration;

use base::{TraceId, TreeId};
use contracts::supervisor::v1::{ImageUsersRequest, supervisor_client::SupervisorClient};
use tonic::Status;

use crate::{
    authority::random_16, context::OperationContext, error::CallError, misuse::SUPERVISOR, service::Node,
};

const CAPABILITY: &str = "system.supervisor.image_users";
/// The supervisor answers from its memory; one that does not is being restarted.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Names of the services that run in this image, or would at their next start.
pub async fn image_users(node: &Node, tree: TreeId) -> Result<Vec<String>, CallError> {
    let trace = TraceId(random_16().map_err(Status::from)?);
    let calls = OperationContext::of_service(node.identity(), CAPABILITY, trace)
        .and_then(|context| node.peer(SUPERVISOR).within(&context, None, TIMEOUT))
        .map_err(Status::from)?;
    let request = ImageUsersRequest { tree: tree.0.to_vec() };
    Ok(SupervisorClient::new(calls).image_users(request).await?.into_inner().services)
}
