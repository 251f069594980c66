//! `bailiwick service`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use contracts::supervisor::v1 as pb;

use super::{
    logs, plan,
    status::{list_services, list_timers, show_service, show_services},
};
use crate::{
    args::{Output, Service},
    node::{Node, failed},
    output::{self, said_if_slow},
};

pub async fn run(node: &Node, output: Output, command: Service) -> Result<()> {
    let patient = |verb: &str| node.supervisor_patient(&format!("system.supervisor.{verb}"));
    let status = match command {
        Service::List => return list_services(node, output).await,
        Service::Timers => return list_timers(node, output).await,
        Service::Logs { name, follow, lines } => return logs::show(node, &name, follow, lines),
        Service::Events => return events(node, output).await,
        Service::Generations => return plan::generations(node, output).await,
        Service::Remove { name } => return remove(node, output, name).await,
        Service::Apply { manifests } => return apply(node, output, &manifests).await,
        Service::Status { name } => {
            let mut supervisor = node.supervisor("system.supervisor.get_status")?;
            supervisor.get_status(pb::GetStatusRequest { id: 0, name }).await
        }
        Service::Start { name } => {
            let what = format!("starting {name}");
            let request = pb::StartServiceRequest { name };
            said_if_slow(&what, patient("start_service")?.start_service(request)).await
        }
        Service::Stop { name } => {
            let what = format!("stopping {name}; what does not end in time is killed");
            let request = pb::StopServiceRequest { id: 0, name };
            said_if_slow(&what, patient("stop_service")?.stop_service(request)).await
        }
        Service::Restart { name } => {
            let what = format!("restarting {name}; what does not end in time is killed");
            let request = pb::RestartServiceRequest { id: 0, name };
            said_if_slow(&what, patient("restart_service")?.restart_service(request)).await
        }
        Service::Reload { name } => {
            let what = format!("reloading {name}");
            let request = pb::ReloadServiceRequest { id: 0, name };
            said_if_slow(&what, patient("reload_service")?.reload_service(request)).await
        }
    };
    show_service(output, status.map_err(failed)?.into_inner())
}

/// Each on its own: one that fails does not stop the next.
pub async fn apply(node: &Node, output: Output, named: &[PathBuf]) -> Result<()> {
    let files = manifests(named)?;
    let mut applied = Vec::new();
    let mut failures = Vec::new();
    for file in &files {
        match apply_one(node, file).await {
            Ok(status) => applied.push(status),
            Err(error) => failures.push((file, error)),
        }
    }
    match (applied.pop(), failures.pop()) {
        (Some(status), None) if files.len() == 1 => show_service(output, status),
        (None, Some((_, error))) if files.len() == 1 => Err(error),
        (last, first) => {
            applied.extend(last);
            show_services(output, applied)?;
            failures.extend(first);
            if failures.is_empty() {
                return Ok(());
            }
            for (file, error) in &failures {
                eprintln!("bailiwick: {}: {error:#}", file.display());
            }
            bail!("{} of {} manifests were not applied", failures.len(), files.len())
        }
    }
}

async fn apply_one(node: &Node, path: &Path) -> Result<pb::ServiceStatus> {
    let manifest =
        std::fs::read_to_string(path).with_context(|| format!("reading the manifest {}", path.display()))?;
    let file = path.display().to_string();
    let mut supervisor = node.supervisor_patient("system.supervisor.apply_manifest")?;
    let request = pb::ApplyManifestRequest { manifest, file };
    let what = format!("starting what {} describes", path.display());
    Ok(said_if_slow(&what, supervisor.apply_manifest(request)).await.map_err(failed)?.into_inner())
}

/// A folder means every manifest in it, by name.
pub fn manifests(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let listing = std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
        let mut found: Vec<PathBuf> =
            listing.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        found.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        if found.is_empty() {
            bail!("there is no manifest (*.toml) in {}", path.display());
        }
        found.sort_unstable();
        files.extend(found);
    }
    Ok(files)
}

#[derive(serde::Serialize)]
struct Removed {
    removed: String,
    /// What it has left, which nobody else will remove.
    folder: PathBuf,
}

async fn remove(node: &Node, output: Output, name: String) -> Result<()> {
    let mut supervisor = node.supervisor("system.supervisor.unregister")?;
    supervisor.unregister(pb::UnregisterRequest { name: name.clone() }).await.map_err(failed)?;
    let removed = Removed { folder: node.layout.service_state(&name), removed: name };
    output::show(output, &removed, || {
        format!("{} is removed; its files stay in {}\n", removed.removed, removed.folder.display())
    })
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
    let mut supervisor = node.supervisor_patient("system.supervisor.subscribe")?;
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
