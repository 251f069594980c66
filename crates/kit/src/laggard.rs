//! Who does not fold a revocation in time may not go on serving (DESIGN 2): axiom, which knows, tells the supervisor.

use std::time::Duration;

use base::TraceId;
use contracts::supervisor::v1::{ReportLaggardRequest, supervisor_client::SupervisorClient};
use tonic::Status;

use crate::{
    authority::random_16, context::OperationContext, error::CallError, misuse::SUPERVISOR, service::Node,
};

const REPORT_CAPABILITY: &str = "system.supervisor.report_laggard";
/// The supervisor only takes note; one that does not answer is being restarted, and the laggard stays one.
const REPORT_TIMEOUT: Duration = Duration::from_millis(500);

/// Has a service killed and started anew, unless that was done within the last minute.
pub async fn report_laggard(node: &Node, name: &str) -> Result<(), CallError> {
    let trace = TraceId(random_16().map_err(Status::from)?);
    let calls = OperationContext::of_service(node.identity(), REPORT_CAPABILITY, trace)
        .and_then(|context| node.peer(SUPERVISOR).within(&context, None, REPORT_TIMEOUT))
        .map_err(Status::from)?;
    let request = ReportLaggardRequest { name: name.to_owned() };
    SupervisorClient::new(calls).report_laggard(request).await?;
    Ok(())
}
