//! What the types of the schema do not say: lengths, ranges, names, and what belongs to which kind.

mod activation;
mod io;
mod program;

use std::time::Duration;

use super::{
    CapabilityRequirement, EgressConfig, HealthConfig, HealthKind, NetworkSwitch, RestartTable,
    ServiceManifest,
    limits::{
        ARGUMENTS_MAX, BACKOFF_MAX, CAPABILITIES_MAX, CPU_SHARES_MAX, CPU_SHARES_MIN, DEPENDENCIES_MAX,
        DESCRIPTION_BYTES_MAX, DURATION_MAX, ENDPOINTS_MAX, INTERVAL_MIN, MANIFEST_VERSION, MEMORY_MB_MAX,
        NAME_BYTES_MAX, OPEN_FILES_MAX, PERMISSIONS_MAX, PROCESSES_MAX, RESTARTS_MAX, SERVICE_NAME_BYTES_MAX,
        TEXT_BYTES_MAX, THRESHOLD_MAX,
    },
};
use crate::core::restart::ExhaustedAction;

/// Names that belong to parts that are no services.
const RESERVED: [&str; 5] = ["init", SUPERVISOR, "keeper", "admin", "operator"];
const SUPERVISOR: &str = "supervisor";

pub(super) struct Fault {
    pub(super) key: String,
    pub(super) what: String,
}

#[derive(Default)]
struct Faults(Vec<Fault>);

pub(super) fn check(manifest: &ServiceManifest) -> Vec<Fault> {
    let mut faults = Faults::default();
    if manifest.version != MANIFEST_VERSION {
        faults.add(
            "version",
            format!(
                "{} is a format that this build does not read; allowed is {MANIFEST_VERSION}",
                manifest.version
            ),
        );
    }
    service(&mut faults, manifest);
    capabilities(&mut faults, manifest);
    resources(&mut faults, manifest);
    dependencies(&mut faults, manifest);
    endpoints(&mut faults, manifest);
    health(&mut faults, &manifest.health, manifest.program.is_some());
    if let Some(table) = &manifest.restart {
        restart(&mut faults, table);
    }
    if let Some(table) = &manifest.program {
        program::check(&mut faults, table, manifest.service.service_type);
    }
    sandbox(&mut faults, manifest);
    if let Some(what) = manifest.egress.as_ref().and_then(EgressConfig::fault) {
        faults.add("egress.allow", what);
    }
    if let Some(what) = manifest.egress.as_ref().and_then(EgressConfig::credential_fault) {
        faults.add("egress.credentials", what);
    }
    if manifest.has_way() {
        way(&mut faults, manifest, if manifest.egress.is_some() { "egress" } else { "sockets" });
    }
    activation::check(&mut faults, manifest);
    faults.0
}

impl Faults {
    fn add(&mut self, key: impl Into<String>, what: impl Into<String>) {
        self.0.push(Fault { key: key.into(), what: what.into() });
    }

    fn count(&mut self, key: &str, count: usize, max: usize) {
        if count > max {
            self.add(key, format!("at most {max} are allowed, not {count}"));
        }
    }

    fn text(&mut self, key: &str, text: &str, bytes_max: usize) {
        if text.len() > bytes_max || text.contains('\0') {
            self.add(key, format!("at most {bytes_max} bytes without NUL are allowed, not {}", text.len()));
        }
    }

    fn range<T: PartialOrd + std::fmt::Display>(&mut self, key: &str, value: T, min: T, max: T) {
        if !(value >= min && value <= max) {
            self.add(key, format!("{value} is out of range; allowed is {min} to {max}"));
        }
    }

    fn duration(&mut self, key: &str, value: Duration, min: Duration) {
        self.range(key, value.as_millis(), min.as_millis(), DURATION_MAX.as_millis());
    }

    /// A name of an endpoint, a capability type or a permission.
    fn name(&mut self, key: &str, name: &str) {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'*');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(legal) {
            self.add(
                key,
                format!(
                    "{name:?} is no name; allowed are 1 to {NAME_BYTES_MAX} bytes of A-Z a-z 0-9 _ - . : *"
                ),
            );
        }
    }

    fn service_name(&mut self, key: &str, name: &str) {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
        if name.len() > SERVICE_NAME_BYTES_MAX || !starts || !name.bytes().all(legal) {
            self.add(key, format!("{name:?} is no service name; allowed are 1 to {SERVICE_NAME_BYTES_MAX} bytes of a-z 0-9 _ -, a letter first"));
        } else if RESERVED.contains(&name) {
            self.add(key, format!("{name:?} is taken; not allowed are {}", RESERVED.join(", ")));
        }
    }
}

fn service(faults: &mut Faults, manifest: &ServiceManifest) {
    faults.service_name("service.name", &manifest.service.name);
    faults.text("service.description", &manifest.service.description, DESCRIPTION_BYTES_MAX);
    faults.text("service.binary", &manifest.service.binary, NAME_BYTES_MAX * 2);
    if !manifest.service.binary.starts_with("blake3:") {
        faults.add("service.binary", "a binary is named by its hash: `blake3:` and 64 hexadecimal digits");
    }
    if manifest.key_path().is_none() {
        faults.add("service.name", "no key path can be made from this name; give [identity] key_path");
    }
    if let Some(identity) = &manifest.identity {
        permissions(faults, "identity.permissions", &identity.permissions);
    }
}

fn permissions(faults: &mut Faults, key: &str, permissions: &[String]) {
    faults.count(key, permissions.len(), PERMISSIONS_MAX);
    for (index, permission) in permissions.iter().enumerate().take(PERMISSIONS_MAX) {
        faults.name(&format!("{key}[{index}]"), permission);
    }
}

fn capabilities(faults: &mut Faults, manifest: &ServiceManifest) {
    let mut list = |key: &str, requirements: &[CapabilityRequirement]| {
        faults.count(key, requirements.len(), CAPABILITIES_MAX);
        for (index, requirement) in requirements.iter().enumerate().take(CAPABILITIES_MAX) {
            faults.name(&format!("{key}[{index}].type"), &requirement.capability_type);
            let key = format!("{key}[{index}].permissions");
            permissions(faults, &key, &requirement.permissions);
            words(faults, &key, requirement);
        }
    };
    list("capabilities.required", &manifest.capabilities.required);
    list("capabilities.optional", &manifest.capabilities.optional);
}

/// What a capability is made of; a word that its type does not know would be granted as nothing (AX-11, POL-36).
fn words(faults: &mut Faults, key: &str, requirement: &CapabilityRequirement) {
    let known: &[&str] = match requirement.capability_type.as_str() {
        "Axiom" => &["read", "write"],
        "Policy" => &["query"],
        _ => &["read", "query", "write", "execute", "delegate", "revoke"],
    };
    if let Some(other) = requirement.permissions.iter().find(|word| !known.contains(&word.as_str())) {
        let capability_type = &requirement.capability_type;
        faults.add(
            key,
            format!("{capability_type} has no permission {other:?}; allowed are {}", known.join(", ")),
        );
    }
}

fn resources(faults: &mut Faults, manifest: &ServiceManifest) {
    if let Some(memory_mb) = manifest.resources.memory_mb {
        faults.range("resources.memory_mb", memory_mb, 1, MEMORY_MB_MAX);
    }
    faults.range("resources.cpu_shares", manifest.resources.cpu_shares, CPU_SHARES_MIN, CPU_SHARES_MAX);
    io::check(faults, &manifest.resources);
}

fn dependencies(faults: &mut Faults, manifest: &ServiceManifest) {
    faults.count("dependencies", manifest.dependencies.len(), DEPENDENCIES_MAX);
    let mut seen: Vec<&str> = Vec::new();
    for (index, dependency) in manifest.dependencies.iter().enumerate().take(DEPENDENCIES_MAX) {
        let key = format!("dependencies[{index}].name");
        // A program gets a socket to look up services with; the node's own have it without asking.
        match (dependency.name == SUPERVISOR && manifest.program.is_some(), dependency.required) {
            (true, false) => {}
            (true, true) => faults.add(&key, "it is there whenever a program is; say required = false"),
            (false, _) => faults.service_name(&key, &dependency.name),
        }
        if dependency.name == manifest.service.name {
            faults.add(&key, "a service cannot depend on itself");
        }
        if seen.contains(&dependency.name.as_str()) {
            faults.add(&key, format!("{:?} is named twice; give one version range", dependency.name));
        }
        seen.push(&dependency.name);
    }
}

fn endpoints(faults: &mut Faults, manifest: &ServiceManifest) {
    faults.count("endpoints", manifest.endpoints.len(), ENDPOINTS_MAX);
    let mut seen: Vec<&str> = Vec::new();
    for (index, endpoint) in manifest.endpoints.iter().enumerate().take(ENDPOINTS_MAX) {
        let key = format!("endpoints[{index}].name");
        faults.name(&key, &endpoint.name);
        if seen.contains(&endpoint.name.as_str()) {
            faults.add(&key, format!("{:?} is named twice; an endpoint has one protocol", endpoint.name));
        }
        seen.push(&endpoint.name);
    }
}

fn health(faults: &mut Faults, health: &HealthConfig, is_program: bool) {
    let shortest = Duration::from_millis(1);
    faults.duration("health.startup_timeout_ms", health.startup_timeout, shortest);
    faults.duration("health.check_interval_ms", health.check_interval, INTERVAL_MIN);
    faults.duration("health.check_timeout_ms", health.check_timeout, shortest);
    faults.duration("health.stop_timeout_ms", health.stop_timeout, Duration::ZERO);
    faults.range("health.failure_threshold", health.failure_threshold, 1, THRESHOLD_MAX);
    faults.range("health.success_threshold", health.success_threshold, 1, THRESHOLD_MAX);
    if let Some(endpoint) = &health.check_endpoint {
        faults.name("health.check_endpoint", endpoint);
    }
    arguments(faults, "health.command", &health.command);
    if let Some(watchdog) = health.watchdog {
        faults.duration("health.watchdog_ms", watchdog, INTERVAL_MIN);
    }
    let kind = health.kind(is_program);
    if kind == HealthKind::Lifecycle && is_program {
        faults.add(
            "health.kind",
            "a [program] does not speak the lifecycle; allowed are exec, tcp, http, sd_notify, process",
        );
    }
    let mut belongs = |key: &str, present: bool, needed: bool, allowed: bool| {
        if needed && !present {
            faults.add(format!("health.{key}"), format!("kind {kind:?} needs it"));
        } else if present && !allowed {
            faults.add(format!("health.{key}"), format!("kind {kind:?} does not use it"));
        }
    };
    let (tcp, http) = (kind == HealthKind::Tcp, kind == HealthKind::Http);
    belongs("command", !health.command.is_empty(), kind == HealthKind::Exec, kind == HealthKind::Exec);
    belongs("address", health.address.is_some(), tcp || http, tcp || http);
    belongs("path", health.path.is_some(), false, http);
    belongs("watchdog_ms", health.watchdog.is_some(), false, kind == HealthKind::SdNotify);
    if let Some(address) = &health.address {
        let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
        if port.and_then(|port| port.parse::<u16>().ok()).is_none_or(|port| port == 0) || address.len() > 255
        {
            faults.add("health.address", format!("an address is HOST:PORT, not {address:?}"));
        }
    }
    if let Some(path) = &health.path {
        let legal = path.bytes().all(|b| b.is_ascii_graphic());
        if !path.starts_with('/') || !legal || path.len() > TEXT_BYTES_MAX {
            faults.add("health.path", format!("a path starts with `/` and has no spaces, not {path:?}"));
        }
    }
}

fn arguments(faults: &mut Faults, key: &str, arguments: &[String]) {
    faults.count(key, arguments.len(), ARGUMENTS_MAX);
    for (index, argument) in arguments.iter().enumerate().take(ARGUMENTS_MAX) {
        faults.text(&format!("{key}[{index}]"), argument, TEXT_BYTES_MAX);
    }
}

fn restart(faults: &mut Faults, table: &RestartTable) {
    if let Some(max_restarts) = table.max_restarts {
        faults.range("restart.max_restarts", max_restarts, 0, RESTARTS_MAX);
        if max_restarts == 0 && table.on_exhausted == Some(ExhaustedAction::RetryForever) {
            faults.add(
                "restart.on_exhausted",
                "RetryForever needs a max_restarts of at least 1, since no window holds more",
            );
        }
    }
    let durations = [
        ("restart.window_ms", table.window),
        ("restart.delay_ms", table.delay),
        ("restart.max_delay_ms", table.max_delay),
    ];
    for (key, value) in durations {
        if let Some(value) = value {
            let min = if key == "restart.window_ms" { Duration::from_millis(1) } else { Duration::ZERO };
            faults.duration(key, value, min);
        }
    }
    if let Some(backoff) = table.backoff {
        faults.range("restart.backoff", backoff, 1.0, BACKOFF_MAX);
    }
}

/// Out of its own network, or into it.
fn way(faults: &mut Faults, manifest: &ServiceManifest, key: &str) {
    let Some(program) = &manifest.program else {
        return faults.add(key, "only a [program] is given a way out or in; the node's own ask `network`");
    };
    if manifest.sandbox.network == NetworkSwitch::Host {
        faults.add(key, "in the host's network nothing would hold it; leave out sandbox.network");
    }
    // Its monitor looks into its descriptors, which who has more rights than it, or another user, does not let it.
    if !program.privileges.is_empty() {
        faults.add(key, "a program that keeps privileges cannot be given a way out or in");
    }
}

fn sandbox(faults: &mut Faults, manifest: &ServiceManifest) {
    let sandbox = &manifest.sandbox;
    faults.range("sandbox.tmp_mb", sandbox.tmp_mb, 0, MEMORY_MB_MAX);
    faults.range("sandbox.processes_max", sandbox.processes_max, 1, PROCESSES_MAX);
    faults.range("sandbox.open_files_max", sandbox.open_files_max, 16, OPEN_FILES_MAX);
    if sandbox.network == NetworkSwitch::Host && manifest.program.is_none() {
        faults.add("sandbox.network", "only a [program] can be given the host's network; allowed is own");
    }
}
