//! What a supervisor finds when it starts: nothing, which is a boot, or what the one before left running.

use std::sync::atomic::Ordering::Release;

use sandbox::keeper_protocol;

use super::{
    clients,
    keeper_client::{Keeper, KeeperError, Started},
    launches::{self, Kind},
    memory::Remembered,
    run::{Shell, exit_status},
    settling::Launching,
};
use crate::core::supervisor::{BootMode, Child, ChildExit, Event, LaunchId};

/// Said of a start whose report went to the supervisor that died.
const MISSING_UNKNOWN: &str = "what the host could not give: not known, the supervisor died during the start";

/// Boot if the keeper holds nothing, else adoption.
pub(super) async fn first_event(
    shell: &mut Shell,
    keeper: &Keeper,
    remembered: Option<Remembered>,
) -> Result<Event, KeeperError> {
    let all = keeper.children().await?;
    let Some(remembered) = remembered else {
        // Nobody knows whose these are: they end, and everything starts anew.
        for child in all {
            launches::end_stray(keeper, child.id, child.exit.is_none()).await;
        }
        let mode = shell.marker.mode();
        shell.progress.is_recovery.store(mode == BootMode::Recovery, Release);
        if mode == BootMode::Recovery {
            tracing::warn!(
                "recovery: boots have failed over and over; only authority and execution are started"
            );
        }
        return Ok(Event::Boot { mode });
    };
    shell.progress.is_recovery.store(remembered.is_recovery, Release);
    shell.progress.boot_ms.store(remembered.boot_ms.unwrap_or(0), Release);
    let name_of = |launch: LaunchId| {
        let known = remembered.launches.iter().find(|(id, _)| *id == launch.0);
        known.map(|(_, name)| name.clone())
    };
    let (mut children, mut exits) = (Vec::new(), Vec::new());
    for child in all {
        match (launches::kind(child.id), child.exit) {
            (Kind::Service(launch), None) => match name_of(launch) {
                Some(service) => {
                    let missing = remembered.unsettled.get(&launch.0).cloned();
                    children.push(take_up(shell, &child, launch, service, missing));
                }
                None => launches::end_stray(keeper, child.id, true).await,
            },
            (Kind::Service(launch), Some(exit)) => match name_of(launch) {
                Some(service) => {
                    shell.launches.insert(launch, service.clone());
                    let status = exit_status(exit.status);
                    exits.push(ChildExit { launch, service, status, was_there: child.settled });
                }
                None => launches::end_stray(keeper, child.id, false).await,
            },
            (Kind::Companion(launch), None) if name_of(launch).is_some() => {
                let mut companions =
                    shell.progress.companions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                companions.extend(name_of(launch).map(|name| (name, child.pid.unsigned_abs())));
            }
            // Told again by the keeper, and taken in there.
            (Kind::Companion(_), Some(_)) => {}
            (Kind::Companion(_), exit) => {
                launches::end_stray(keeper, child.id, exit.is_none()).await;
            }
        }
    }
    tracing::info!(running = children.len(), ended = exits.len(), "taking over from the supervisor before");
    // The one before may have died between a change and the telling of it.
    for child in &children {
        let (keeper, sockets) = (keeper.clone(), shell.applier.registry.sockets());
        let server = child.service.clone();
        tokio::spawn(async move { clients::tell(&keeper, &sockets, &server, |_| true).await });
    }
    Ok(Event::Adopted { memory: Some(Box::new(remembered.machine)), children, exits })
}

/// One that has not settled is waited for as if this supervisor had launched it: the keeper tells the rest.
fn take_up(
    shell: &mut Shell,
    child: &keeper_protocol::Child,
    launch: LaunchId,
    service: String,
    missing: Option<Vec<String>>,
) -> Child {
    shell.launches.insert(launch, service.clone());
    let missing = missing.unwrap_or_else(|| vec![MISSING_UNKNOWN.to_owned()]);
    let pid = child.pid.unsigned_abs();
    if child.settled {
        return Child { launch, service, pid: Some(pid), missing };
    }
    if let Some(manifest) = shell.applier.registry.manifest(&service) {
        let started = Started { pid, missing: missing.clone() };
        shell.launching.insert(launch, Launching::taken_up(manifest, started));
    }
    Child { launch, service, pid: None, missing }
}
