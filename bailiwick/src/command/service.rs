//! `bailiwick service`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use contracts::supervisor::v1 as pb;

use super::status::{list_services, show_service};
use crate::{
    args::{Output, Service},
    node::{Node, failed},
    output,
};

pub async fn run(node: &Node, output: Output, command: Service) -> Result<()> {
    let supervisor = |verb: &str| node.supervisor(&format!("system.supervisor.{verb}"));
    let status = match command {
        Service::List => return list_services(node, output).await,
        Service::Logs { name } => return logs(node, &name),
        Service::Events => return events(node, output).await,
        Service::Remove { name } => {
            let request = pb::UnregisterRequest { name };
            supervisor("unregister")?.unregister(request).await.map_err(failed)?;
            return Ok(());
        }
        Service::Status { name } => {
            supervisor("get_status")?.get_status(pb::GetStatusRequest { id: 0, name }).await
        }
        Service::Start { name } => {
            supervisor("start_service")?.start_service(pb::StartServiceRequest { name }).await
        }
        Service::Stop { name } => {
            supervisor("stop_service")?.stop_service(pb::StopServiceRequest { id: 0, name }).await
        }
        Service::Restart { name } => {
            supervisor("restart_service")?.restart_service(pb::RestartServiceRequest { id: 0, name }).await
        }
        Service::Apply { manifest } => return apply_all(node, output, &[manifest]).await,
    };
    show_service(output, status.map_err(failed)?.into_inner())
}

/// One after the other, in the order given; reads all of them before the first is applied.
pub async fn apply_all(node: &Node, output: Output, paths: &[PathBuf]) -> Result<()> {
    let mut requests = Vec::with_capacity(paths.len());
    for path in paths {
        let manifest = std::fs::read_to_string(path)
            .with_context(|| format!("reading the manifest {}", path.display()))?;
        requests.push(pb::ApplyManifestRequest { manifest, file: path.display().to_string() });
    }
    for request in requests {
        let mut supervisor = node.supervisor("system.supervisor.apply_manifest")?;
        show_service(output, supervisor.apply_manifest(request).await.map_err(failed)?.into_inner())?;
    }
    Ok(())
}

fn logs(node: &Node, name: &str) -> Result<()> {
    let file = node.layout.service_log(name);
    let text = std::fs::read(&file).with_context(|| {
        format!("reading {}; `bailiwick service list` shows the services that are there", file.display())
    })?;
    std::io::Write::write_all(&mut std::io::stdout(), &text).context("writing")
}

#[derive(serde::Serialize)]
struct Event {
    service: String,
    from: String,
    to: String,
    cause: String,
    axiom_time_ns: u64,
}

async fn events(node: &Node, output: Output) -> Result<()> {
    let mut supervisor = node.supervisor_events("system.supervisor.subscribe")?;
    let mut events = supervisor.subscribe(pb::EventFilter::default()).await.map_err(failed)?.into_inner();
    while let Some(event) = events.message().await.map_err(failed)? {
        let event = Event {
            service: event.name,
            from: event.from,
            to: event.to,
            cause: event.cause,
            axiom_time_ns: event.axiom_time_ns,
        };
        output::show(output, &event, || {
            format!("{:<20} {} -> {}  {}\n", event.service, event.from, event.to, event.cause)
        })?;
    }
    Ok(())
}
