//! Which services run in a container image: the supervisor knows, and who keeps the image asks before it removes it.

use std::time::Duration;

use base::{TraceId, TreeId};
use contracts::supervisor::v1::{ImageUsersReply, ImageUsersRequest, supervisor_client::SupervisorClient};
use tonic::{Status, Streaming};

use crate::{
    authority::random_16, context::OperationContext, error::CallError, misuse::SUPERVISOR, service::Node,
};

const CAPABILITY: &str = "system.supervisor.close_image";
/// The supervisor answers from its memory; one that does not is being restarted.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A removal waits for policy and the log, however long they are away.
const CLOSED_MAX: Duration = Duration::from_secs(3_600);

/// An image that no service is taken in for, as long as this lives.
#[derive(Debug)]
pub struct ClosedImage {
    /// Names of the services that run in it, or would at their next start; with one it is not closed.
    pub services: Vec<String>,
    _call: Streaming<ImageUsersReply>,
}

/// Asks who runs in an image that is to be removed, and keeps others out until that is done.
pub async fn close_image(node: &Node, tree: TreeId) -> Result<ClosedImage, CallError> {
    let trace = TraceId(random_16().map_err(Status::from)?);
    let calls = OperationContext::of_service(node.identity(), CAPABILITY, trace)
        .and_then(|context| node.peer(SUPERVISOR).within(&context, None, CLOSED_MAX))
        .map_err(Status::from)?;
    let asked = async {
        let request = ImageUsersRequest { tree: tree.0.to_vec() };
        let mut call = SupervisorClient::new(calls).close_image(request).await?.into_inner();
        let reply = call.message().await?;
        let services = reply.ok_or_else(|| Status::unavailable("the supervisor said nothing"))?.services;
        Ok(ClosedImage { services, _call: call })
    };
    let late = || Status::deadline_exceeded("the supervisor does not answer");
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| Err(late().into()))
}
