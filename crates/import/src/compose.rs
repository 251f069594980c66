//! A compose file: each of its services becomes the manifest of a program of the host.

mod disks;
mod published;
mod service;

use crate::{
    Import, fits, keys,
    manifest::{Manifest, service_name},
    ports,
    report::{Fate, Place, Report},
    yaml::{self, Node},
};

/// What is said of a service and of the file.
struct Work<'a> {
    file: &'a str,
    report: &'a mut Report,
    manifest: Manifest,
    /// Names of the services of the file, and of their manifests.
    names: &'a [(String, String)],
}

/// Imports a compose file.
pub fn compose(file: &str, text: &str) -> Result<Import, String> {
    let root = yaml::read(text).map_err(|why| format!("{file}: {why}"))?;
    let Some(services) = root.get("services").filter(|services| !services.entries().is_empty()) else {
        return Err(format!("{file}: a compose file has `services:`, with a mapping for each"));
    };
    let mut report = Report::default();
    for (key, node) in root.entries() {
        top(file, key, node, &mut report);
    }
    let mut names: Vec<(String, String)> = Vec::new();
    for (key, _) in services.entries() {
        let wanted = service_name(key);
        let taken = |name: &str| names.iter().any(|(_, known)| known == name);
        let numbered =
            (2..=services.entries().len() + 1).map(|number| service_name(&format!("{wanted}-{number}")));
        let name = std::iter::once(wanted.clone())
            .chain(numbered)
            .find(|name| !taken(name))
            .unwrap_or(wanted.clone());
        names.push((key.clone(), name));
    }
    let mut manifests = Vec::new();
    let mut shut_in = Vec::new();
    for ((key, node), (_, name)) in services.entries().iter().zip(&names) {
        let manifest = Manifest {
            name: name.clone(),
            head: vec![format!("Made from the service {key} of a compose file by `bailiwick import`.")],
            ..Manifest::default()
        };
        let mut work = Work { file, report: &mut report, manifest, names: &names };
        let complete = work.service(key, node);
        let manifest = work.manifest;
        let place = Place { file: file.to_owned(), line: node.line };
        if !complete {
            let why = format!(
                "{key}: there is no image: and no entrypoint:, so there is no program to run; no manifest is made"
            );
            report.add(&place, "", "", Fate::Refused, why);
            continue;
        }
        match fits::why_not(&manifest) {
            Some(why) => report.add(&place, "", "", Fate::Refused, format!("{key}: {why}")),
            None => {
                if ports::is_shut_in(&manifest, has_no_network(node)) {
                    shut_in.push(name.as_str());
                }
                manifests.push(manifest);
            }
        }
    }
    if let Some(how) = ports::reach_nothing(&shut_in) {
        report.add(&Place { file: file.to_owned(), line: 0 }, "", "", Fate::Approximated, how);
    }
    let mut import = Import { manifests, report };
    crate::units::break_circles(&mut import.manifests, &mut import.report);
    Ok(import)
}

fn has_no_network(service: &Node) -> bool {
    service.get("network_mode").and_then(Node::text) == Some("none")
}

fn top(file: &str, key: &str, node: &Node, report: &mut Report) {
    let place = Place { file: file.to_owned(), line: node.line };
    let (fate, how) = match key {
        "services" => return,
        "version" | "name" => (Fate::Ignored, "it names the file"),
        key if key.starts_with("x-") => (Fate::Ignored, "it is for other programs"),
        "volumes" => (Fate::Ignored, "a volume is a folder of the service that uses it"),
        "networks" => {
            (Fate::Ignored, "each service has a network of its own; the services that name one are told so")
        }
        "secrets" | "configs" => {
            (Fate::Refused, "they are not handed out; put files where the program reads them")
        }
        "include" => (Fate::Refused, "no other file is read: import it too"),
        _ => (Fate::Refused, "a compose file has no key of this name that is known here"),
    };
    report.add(&place, key, &node.shown(), fate, how);
}

impl Work<'_> {
    fn say(&mut self, key: &str, node: &Node, fate: Fate, how: impl Into<String>) {
        let place = Place { file: self.file.to_owned(), line: node.line };
        self.report.add(&place, key, &node.shown(), fate, how);
    }

    fn outcome(&mut self, key: &str, node: &Node, how: &str, done: Result<(), String>) {
        match done {
            Ok(()) => self.say(key, node, Fate::Mapped, how),
            Err(why) => self.say(key, node, Fate::Refused, why),
        }
    }

    fn service(&mut self, name: &str, node: &Node) -> bool {
        crate::parts::begin(&mut self.manifest);
        if name != self.manifest.name {
            let how = format!(
                "the service is called {}: a name has at most 32 bytes of a-z 0-9 _ -",
                self.manifest.name
            );
            self.say("", node, Fate::Approximated, how);
        }
        self.manifest.restart.mode = Some("never");
        let entries = node.entries();
        // A user comes before what needs one.
        let (first, rest): (Vec<_>, Vec<_>) = entries.iter().partition(|(key, _)| key == "user");
        for (key, value) in first.into_iter().chain(rest) {
            if key.starts_with("x-") {
                self.say(key, value, Fate::Ignored, "it is for other programs");
                continue;
            }
            match keys::COMPOSE.iter().find(|row| row.names.contains(&key.as_str())) {
                None => self.say(
                    key,
                    value,
                    Fate::Refused,
                    "a service has no key of this name that is known here",
                ),
                Some(row) => self.key(key, value, row),
            }
        }
        self.program(node);
        self.ports(node);
        if ports::is_shut_in(&self.manifest, has_no_network(node)) {
            self.manifest.head.push(ports::SHUT_IN.to_owned());
        }
        !self.manifest.program.image.is_empty()
    }
}
