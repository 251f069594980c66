//! Section `node`: it boots; every service is a process of its own, in namespaces and with files of its own.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Context, Section};

/// Namespaces in which no two services may meet.
const NAMESPACES: [&str; 5] = ["mnt", "pid", "net", "ipc", "uts"];
/// Services of this build.
const SERVICES: [&str; 8] = [
    "axiom",
    "policy",
    "keys",
    "identity",
    "capability_service",
    "process_manager",
    "driver_manager",
    "network",
];

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("node");
    let site = context.site()?;
    let status = site.json(&["status"])?;
    let number = |key: &str| status.get(key).and_then(Value::as_u64).unwrap_or(0);
    section.count("boot_ms", number("boot_ms"));
    let services = status.get("services").and_then(Value::as_array).context("no services in the status")?;
    let memory = services.iter().filter_map(|service| service.get("memory_bytes")?.as_u64()).sum::<u64>();
    section.count("memory_kib", memory / 1024);
    for name in SERVICES {
        let state = services
            .iter()
            .find(|service| service.get("name").and_then(Value::as_str) == Some(name))
            .and_then(|service| service.get("state")?.as_str());
        section.check(state == Some("Running"), format!("{name} is {}", state.unwrap_or("not there")));
    }
    let pids = site.pids()?;
    section.count("services", pids.len() as u64);
    let distinct: BTreeSet<i64> = pids.iter().map(|(_, pid)| *pid).collect();
    section.check(distinct.len() == pids.len(), "two services share a process");
    let own_state = site.layout()?.state;
    for (name, pid) in &pids {
        apart(&mut section, name, *pid, &pids);
        own_files(&mut section, name, *pid, &own_state);
    }
    let verified = site.json(&["log", "verify"])?;
    section.check(verified.get("ok") == Some(&Value::Bool(true)), "the log does not verify");
    section.count("entries", verified.get("entries").and_then(Value::as_u64).unwrap_or(0));
    Ok(section)
}

fn namespace(pid: i64, kind: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

fn apart(section: &mut Section, name: &str, pid: i64, all: &[(String, i64)]) {
    for kind in NAMESPACES {
        let own = namespace(pid, kind);
        let host = fs::read_link(format!("/proc/self/ns/{kind}"))
            .ok()
            .map(|link| link.to_string_lossy().into_owned());
        // The one way out of the node lives where the network is, and nowhere else.
        let may_be_there = (name, kind) == ("network", "net");
        section.check(
            own.is_some() && (own == host) == may_be_there,
            format!("{name}: its {kind} namespace is not what it should be"),
        );
        let shared = all.iter().find(|(other, theirs)| other != name && namespace(*theirs, kind) == own);
        section.check(shared.is_none(), format!("{name} shares its {kind} namespace"));
    }
}

/// What a service sees of the node's state is its own folder, under another name.
fn own_files(section: &mut Section, name: &str, pid: i64, state: &Path) {
    let root = format!("/proc/{pid}/root");
    let seen = Path::new(&root).join(state.strip_prefix("/").unwrap_or(state));
    section.check(fs::metadata(&seen).is_err(), format!("{name} sees the folder of all states"));
    let home = Path::new(&root).join("home");
    section.check(fs::metadata(home).is_err(), format!("{name} sees homes"));
    section
        .check(fs::metadata(Path::new(&root).join("state")).is_ok(), format!("{name} lacks its own folder"));
}
