//! `status` and `down`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use contracts::{
    lifecycle::v1::HealthStatus,
    supervisor::v1::{
        GetNodeRequest, ListServicesRequest, Node as NodeStatus, ServiceStatus, ShutdownRequest,
    },
};
use serde::Serialize;

use crate::{
    args::Output,
    node::{Node, failed},
    output,
};

/// An ordered shutdown of all services takes less; after that something is wrong.
const DOWN_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Service {
    name: String,
    state: String,
    pid: Option<u32>,
    uptime_ms: Option<u64>,
    restarts: u32,
    healthy: Option<bool>,
    memory_bytes: u64,
    last_error: Option<String>,
    /// Parts that are not well, each with the reason.
    limited: Vec<String>,
    missing: Vec<String>,
    /// It is down, and the next connection starts it.
    listening: bool,
    /// `NAME ADDRESS` of each that it is handed.
    sockets: Vec<String>,
    /// When a time starts it, and when it was started last; Unix time.
    next_start_ms: Option<u64>,
    last_start_ms: Option<u64>,
}

#[derive(Serialize)]
struct Status {
    node: String,
    state: String,
    root: String,
    keeper_pid: u32,
    supervisor_pid: u32,
    uptime_ms: u64,
    boot_ms: u64,
    services: Vec<Service>,
    not_installed: Vec<String>,
    missing: Vec<String>,
    /// What keeps the node from doing all it should, each with what to do next.
    troubles: Vec<String>,
}

fn limited(health: &HealthStatus) -> Vec<String> {
    let bad = health.components.iter().filter(|part| !part.healthy || part.degraded);
    bad.map(|part| format!("{}: {}", part.name, part.message.as_deref().unwrap_or("not healthy"))).collect()
}

fn service(status: ServiceStatus) -> Service {
    Service {
        healthy: status.health.as_ref().map(|health| health.healthy),
        limited: status.health.as_ref().map(limited).unwrap_or_default(),
        name: status.name,
        state: status.state,
        pid: status.pid,
        uptime_ms: status.uptime_ms,
        restarts: status.restarts,
        memory_bytes: status.memory_bytes,
        last_error: status.last_error.or_else(|| Some(status.error).filter(|error| !error.is_empty())),
        missing: status.missing,
        listening: status.listening,
        next_start_ms: status.timer.as_ref().and_then(|timer| timer.next_ms),
        last_start_ms: status.timer.as_ref().and_then(|timer| timer.last_ms),
        sockets: status.sockets.iter().map(|socket| format!("{} {}", socket.name, socket.listen)).collect(),
    }
}

async fn ask(node: &Node) -> Result<(NodeStatus, Vec<ServiceStatus>)> {
    let mut supervisor = node.supervisor("system.supervisor.get_node")?;
    let status = supervisor.get_node(GetNodeRequest {}).await.map_err(failed)?.into_inner();
    let mut supervisor = node.supervisor("system.supervisor.list_services")?;
    let services = supervisor.list_services(ListServicesRequest {}).await.map_err(failed)?.into_inner();
    Ok((status, services.services))
}

pub async fn show(node: &Node, output: Output) -> Result<()> {
    let (status, services) = ask(node).await?;
    let status = Status {
        node: status.name,
        state: status.state,
        root: status.root,
        keeper_pid: status.keeper_pid,
        supervisor_pid: status.supervisor_pid,
        uptime_ms: status.uptime_ms,
        boot_ms: status.boot_ms,
        services: services.into_iter().map(service).collect(),
        not_installed: status.not_installed,
        missing: status.missing,
        troubles: status.troubles,
    };
    output::show(output, &status, || text(&status))
}

fn text(status: &Status) -> String {
    let state =
        if status.state == "running" { output::good(&status.state) } else { output::bad(&status.state) };
    let mut text = format!(
        "node {} {state}, up {}, booted in {}, keeper {}, supervisor {}\n\n",
        status.node,
        output::duration(status.uptime_ms),
        output::duration(status.boot_ms),
        status.keeper_pid,
        status.supervisor_pid
    );
    for trouble in &status.troubles {
        text.push_str(&format!("{} {trouble}\n\n", output::bad("trouble:")));
    }
    text.push_str(&table(&status.services));
    for service in &status.services {
        for limited in &service.limited {
            text.push_str(&format!("{}: {limited}\n", service.name));
        }
    }
    if !status.not_installed.is_empty() {
        text.push_str(&format!("\nnot installed: {}\n", status.not_installed.join(", ")));
    }
    if !status.missing.is_empty() {
        text.push_str("\nthis host cannot give:\n");
        for missing in &status.missing {
            text.push_str(&format!("  {missing}\n"));
        }
    }
    text
}

fn table(services: &[Service]) -> String {
    let dash = || "-".to_owned();
    let row = |service: &Service| {
        vec![
            service.name.clone(),
            if service.listening { "listening".to_owned() } else { service.state.clone() },
            service.pid.map_or_else(dash, |pid| pid.to_string()),
            service.uptime_ms.map_or_else(dash, output::duration),
            service.restarts.to_string(),
            output::size(service.memory_bytes),
            service.last_error.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = services.iter().map(row).collect();
    output::table(&["SERVICE", "STATE", "PID", "UP", "RESTARTS", "MEMORY", "LAST ERROR"], &rows)
}

/// One service, as `service status` and its kin show it.
pub fn show_service(output: Output, status: ServiceStatus) -> Result<()> {
    let service = service(status);
    output::show(output, &service, || {
        let mut text = table(std::slice::from_ref(&service));
        for limited in &service.limited {
            text.push_str(&format!("{limited}\n"));
        }
        for missing in &service.missing {
            text.push_str(&format!("missing: {missing}\n"));
        }
        for socket in &service.sockets {
            text.push_str(&format!("socket: {socket}\n"));
        }
        text
    })
}

/// Several of them in one table.
pub fn show_services(output: Output, all: Vec<ServiceStatus>) -> Result<()> {
    let services: Vec<Service> = all.into_iter().map(service).collect();
    output::show(output, &services, || table(&services))
}

pub async fn list_services(node: &Node, output: Output) -> Result<()> {
    let (_, services) = ask(node).await?;
    show_services(output, services)
}

/// Services that a time starts, those that come first before the others.
pub async fn list_timers(node: &Node, output: Output) -> Result<()> {
    let (_, services) = ask(node).await?;
    let timed = services.into_iter().filter(|status| status.timer.is_some());
    let mut timers: Vec<Service> = timed.map(service).collect();
    timers.sort_by_key(|service| service.next_start_ms.unwrap_or(u64::MAX));
    output::show(output, &timers, || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let next = |at: u64| match at.saturating_sub(now) {
            0 => "now".to_owned(),
            left => format!("in {}", output::duration(left)),
        };
        let last = |at: u64| format!("{} ago", output::duration(now.saturating_sub(at)));
        let row = |service: &Service| {
            vec![
                service.name.clone(),
                service.state.clone(),
                service.next_start_ms.map_or_else(|| "-".to_owned(), next),
                service.last_start_ms.map_or_else(|| "never".to_owned(), last),
                service.last_error.clone().unwrap_or_default(),
            ]
        };
        let rows: Vec<_> = timers.iter().map(row).collect();
        output::table(&["SERVICE", "STATE", "NEXT", "LAST START", "LAST ERROR"], &rows)
    })
}

/// Asks for an ordered shutdown and waits until the node's lock is free again.
pub async fn down(node: &Node) -> Result<()> {
    let mut supervisor = node.supervisor("system.supervisor.shutdown")?;
    supervisor
        .shutdown(ShutdownRequest { reason: "asked by the operator".to_owned() })
        .await
        .map_err(failed)?;
    let since = Instant::now();
    let mut told = since;
    while crate::up::is_up(&node.layout) {
        if since.elapsed() > DOWN_TIMEOUT {
            bail!(
                "the node has not stopped within {} s; `bailiwick status` shows what hangs",
                DOWN_TIMEOUT.as_secs()
            );
        }
        if told.elapsed() > output::SLOW {
            told = Instant::now();
            let left = still_running(node).await;
            eprintln!("bailiwick: waiting for {left} to end …");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!(
        "node stopped in {}",
        output::duration(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX))
    );
    Ok(())
}

/// What a shutdown still waits for, for people.
async fn still_running(node: &Node) -> String {
    let running = |status: &ServiceStatus| status.pid.is_some();
    let names = |services: Vec<ServiceStatus>| {
        services.into_iter().filter(running).map(|status| status.name).collect::<Vec<_>>().join(", ")
    };
    match ask(node).await {
        Ok((_, services)) => Some(names(services)).filter(|names| !names.is_empty()),
        // The supervisor has taken its leave.
        Err(_) => None,
    }
    .unwrap_or_else(|| "the keeper".to_owned())
}
