//! A Quadlet container unit becomes the manifest of a program of the host.

use super::{Peers, Work, by_table, nothing_is_passed_over};
use crate::{
    host::Host,
    limits::DURATION_MS_MAX,
    manifest::Manifest,
    parts::{self, Image},
    ports::{self, Unpublished},
    report::Report,
    unit::{Setting, Unit, value},
};

const CONTAINER: &str = "Container";
const PROCESSES_MAX: u64 = 32_768;

pub(crate) fn container(
    unit: &Unit,
    peers: &Peers,
    host: &dyn Host,
    report: &mut Report,
) -> Option<Manifest> {
    by_table(unit, report);
    let name = peers.manifest_of(&unit.service_name()).unwrap_or_default().to_owned();
    let head = vec![format!("Made from {} by `bailiwick import`.", unit.name.full())];
    let manifest = Manifest { head, name, ..Manifest::default() };
    let mut work =
        Work { unit, host, peers, report, manifest, variables: super::Variables::default(), as_root: false };
    parts::begin(&mut work.manifest);
    work.description();
    work.environment_in(CONTAINER);
    let complete = work.container_program();
    work.container_user();
    work.container_files();
    work.container_network();
    work.container_ports();
    work.container_limits();
    let stop = work.manifest.health.stop_timeout_ms;
    let kind = work.manifest.health.kind;
    work.life();
    if work.unit.last("Service", "TimeoutStopSec").is_none() {
        work.manifest.health.stop_timeout_ms = stop;
    }
    work.manifest.health.kind = kind.or(work.manifest.health.kind);
    work.container_health();
    work.conditions();
    work.relations();
    work.install(false, false);
    let settings: Vec<Setting> = unit.settings.clone();
    for one in settings.iter().filter(|one| one.section == "Service") {
        let said = |entry: &crate::report::Entry| entry.place == one.place && entry.key == one.key;
        if !work.report.entries.iter().any(said) {
            work.refused(one, "it is about the process of podman, which there is none of here");
        }
    }
    let manifest = work.manifest;
    nothing_is_passed_over(unit, report);
    complete.then_some(manifest)
}

/// The last that is named holds.
pub(crate) fn has_no_network(unit: &Unit) -> bool {
    unit.last(CONTAINER, "Network").is_some_and(|one| one.value == "none")
}

impl Work<'_> {
    fn of_container(&mut self, key: &str) -> Option<Setting> {
        self.one(CONTAINER, key)
    }

    /// Runs something that says why it cannot be, and reports both ways.
    pub(super) fn attempt(&mut self, one: &Setting, how: &str, done: Result<(), String>) {
        match done {
            Ok(()) => self.mapped(one, how),
            Err(why) => self.refused(one, why),
        }
    }

    fn container_program(&mut self) -> bool {
        let mut in_container = false;
        if let Some(one) = self.of_container("Image") {
            match parts::image(&one.value) {
                Ok(Image::Program(path)) => {
                    self.manifest.program.image = path;
                    self.mapped(&one, "[program] image");
                }
                Ok(Image::Container(name)) => {
                    in_container = true;
                    parts::needs_image(&mut self.manifest, &name);
                    self.mapped(&one, parts::OF_STORE);
                }
                Err(why) => self.refused(&one, why),
            }
        }
        if let Some(one) = self.of_container("Entrypoint") {
            match parts::host_program(&one.value) {
                _ if in_container && !one.value.is_empty() && !one.value.starts_with('[') => {
                    self.manifest.program.entrypoint = vec![one.value.clone()];
                    self.mapped(&one, "[program] entrypoint");
                }
                Some(path) if !in_container => {
                    self.manifest.program.image = path;
                    self.mapped(&one, "[program] image");
                }
                _ => self.refused(&one, "it is no absolute path of a program"),
            }
        }
        if let Some(one) = self.of_container("Exec")
            && let Some(words) = self.words(&one)
        {
            self.manifest.program.args = words;
            self.mapped(&one, "[program] args");
        }
        if self.manifest.program.image.is_empty() {
            self.whole(
                crate::report::Fate::Refused,
                "there is no Image=, so there is no program to run; no manifest is made",
            );
            return false;
        }
        true
    }

    fn container_user(&mut self) {
        let (user, group) = (self.of_container("User"), self.of_container("Group"));
        if let Some(one) = &user {
            match parts::account(&one.value) {
                Ok(name) => {
                    self.manifest.program.user = Some(name);
                    self.approximated(one, "[program] user: a user of the host, not of an image");
                }
                Err(why) => self.refused(one, why),
            }
        }
        if let Some(one) = &group {
            let joined = self.manifest.program.user.as_ref().map(|user| format!("{user}:{}", one.value));
            match joined
                .ok_or_else(|| "a group needs User=".to_owned())
                .and_then(|text| parts::account(&text))
            {
                Ok(name) => {
                    self.manifest.program.user = Some(name);
                    self.approximated(one, "[program] user, after the colon: a group of the host");
                }
                Err(why) => self.refused(one, why),
            }
        }
        for one in self.unit.list(CONTAINER, "AddCapability") {
            for word in one.value.split_ascii_whitespace() {
                let done = parts::privilege(&mut self.manifest, word);
                self.attempt(&one, "[program] privileges", done);
            }
        }
        for one in self.unit.list(CONTAINER, "DropCapability") {
            self.mapped(&one, "none is kept but those that are added");
        }
        if let Some(one) = self.of_container("EnvironmentHost") {
            match self.truth(&one) {
                Some(true) => self.refused(&one, "nothing is inherited"),
                Some(false) => self.ignored(&one, "nothing is inherited"),
                None => {}
            }
        }
    }

    fn container_files(&mut self) {
        for one in self.unit.list(CONTAINER, "Volume") {
            let Some(text) = self.expanded(&one) else { continue };
            let (source, target, read_only) = parts::split_volume(&text);
            match parts::volume(&source, &target, read_only) {
                Ok(parts::Volume::Folder(path)) => {
                    let how = parts::add_volume(&mut self.manifest, parts::Volume::Folder(path));
                    self.approximated(&one, how);
                }
                Ok(grant) => {
                    let how = parts::add_volume(&mut self.manifest, grant);
                    self.mapped(&one, how);
                }
                Err(why) => self.refused(&one, why),
            }
        }
        for one in self.unit.list(CONTAINER, "Tmpfs") {
            match parts::is_temporary(&one.value) {
                true => self.mapped(&one, "it is its own, in memory"),
                false => self.refused(&one, "only /tmp and /run are temporary"),
            }
        }
        if let Some(one) = self.of_container("WorkingDir") {
            let climbs = one.value.split('/').any(|part| part == "..");
            match one.value.starts_with('/') && !climbs {
                true => {
                    self.manifest.program.cwd = Some(super::plain_path(&one.value));
                    self.mapped(&one, "[program] cwd");
                }
                false => self.refused(&one, "it is no absolute path"),
            }
        }
    }

    fn container_network(&mut self) {
        for one in self.unit.list(CONTAINER, "Network") {
            match one.value.as_str() {
                "host" => {
                    self.manifest.sandbox.host_network = true;
                    self.mapped(&one, "[sandbox] network = \"host\"");
                }
                "none" => self.mapped(&one, "[sandbox] network is its own, and reaches nothing"),
                _ => match one.value.split(':').next().unwrap_or_default() {
                    "bridge" | "private" | "pasta" | "slirp4netns" => {
                        self.approximated(&one, ports::OWN_NETWORK);
                    }
                    "container" | "ns" => self.refused(&one, ports::NO_OTHERS),
                    _ => self.refused(&one, ports::EACH_OTHER),
                },
            }
        }
    }

    /// When network and privileges are known.
    fn container_ports(&mut self) {
        let has_none = has_no_network(self.unit);
        let unpublished = Unpublished::of(&self.manifest, has_none).map(Unpublished::said);
        for one in self.unit.list(CONTAINER, "PublishPort") {
            if let Some((fate, why)) = unpublished {
                self.say(&one, fate, why);
                continue;
            }
            let Some(text) = self.put_in(&one, &one.value) else { continue };
            let done = ports::short(&text).and_then(|all| ports::publish(&mut self.manifest, None, &all));
            match done {
                Ok(()) => self.approximated(&one, ports::HOW),
                Err(why) => self.refused(&one, why),
            }
        }
        if ports::is_shut_in(&self.manifest, has_none) {
            self.manifest.head.push(ports::SHUT_IN.to_owned());
        }
    }

    fn container_limits(&mut self) {
        if let Some(one) = self.of_container("PidsLimit") {
            let done = parts::number(&one.value, PROCESSES_MAX)
                .map(|count| self.manifest.sandbox.processes_max = Some(count));
            self.attempt(&one, "[sandbox] processes_max", done);
        }
        if let Some(one) = self.of_container("Memory") {
            let done =
                parts::megabytes(&one.value).map(|size| self.manifest.resources.memory_mb = Some(size));
            self.attempt(&one, "[resources] memory_mb", done);
        }
        if let Some(one) = self.of_container("StopSignal") {
            let signal =
                value::signal(&one.value).ok_or_else(|| "a manifest cannot name this signal".to_owned());
            let done = signal.map(|signal| self.manifest.program.stop_signal = Some(signal));
            self.attempt(&one, "[program] stop_signal", done);
        }
        if let Some(one) = self.of_container("StopTimeout") {
            let done = parts::number(&one.value, DURATION_MS_MAX / 1000)
                .map(|seconds| self.manifest.health.stop_timeout_ms = Some(seconds * 1000));
            self.attempt(&one, "[health] stop_timeout_ms", done);
        }
        if let Some(one) = self.of_container("Notify") {
            match value::boolean(&one.value) {
                Some(true) => {
                    self.manifest.health.kind = Some("sd_notify");
                    self.mapped(&one, "[health] kind = \"sd_notify\"");
                }
                _ => self.ignored(&one, "it is ready when it has started"),
            }
        }
    }

    fn container_health(&mut self) {
        let command = self.of_container("HealthCmd");
        let checked = command.as_ref().is_some_and(|one| one.value != "none");
        if let Some(one) = &command {
            match self.manifest.health.kind {
                _ if !checked => self.mapped(one, "there is no check"),
                Some(_) => self.refused(one, "Notify= says how it is; a service is checked in one way"),
                None => {
                    self.manifest.health.kind = Some("exec");
                    self.manifest.health.command = vec!["/bin/sh".into(), "-c".into(), one.value.clone()];
                    self.mapped(one, "[health] kind = \"exec\"");
                }
            }
        }
        let is_exec = self.manifest.health.kind == Some("exec");
        for key in ["HealthInterval", "HealthTimeout", "HealthRetries"] {
            let Some(one) = self.of_container(key) else { continue };
            if !is_exec {
                self.ignored(&one, "there is no HealthCmd=");
                continue;
            }
            if key == "HealthRetries" {
                let done = parts::number(&one.value, 1000)
                    .map(|count| self.manifest.health.failure_threshold = Some(count));
                self.attempt(&one, "[health] failure_threshold", done);
                continue;
            }
            let Some((ms, _)) = self.span_ms(&one) else { continue };
            let health = &mut self.manifest.health;
            let into = if key == "HealthInterval" {
                &mut health.check_interval_ms
            } else {
                &mut health.check_timeout_ms
            };
            *into = Some(ms.max(10));
            self.mapped(&one, "[health]");
        }
    }
}
