//! Units of one import, brought together: services with their sockets and timers, and the order among them.

use crate::{
    Import, fits,
    host::Host,
    limits::FILES_MAX,
    manifest::service_name,
    ports,
    report::{Fate, Place, Report},
    service::{self, Peers},
    unit::{Unit, UnitError, UnitName, parse, words},
};

/// A unit as it was named: its name, and its files in the order in which systemd reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// With the instance: `postgresql@15-main.service`.
    pub name: String,
    /// File name and text: the unit, then its drop-ins.
    pub files: Vec<(String, String)>,
}

/// Imports units. A file that is no unit at all is an error; what a unit says that cannot be had is in the report.
pub fn units(named: &[Named], host: &dyn Host) -> Result<Import, String> {
    let files: usize = named.iter().map(|one| one.files.len()).sum();
    if files > FILES_MAX {
        return Err(format!("{files} files are too many for one import; at most {FILES_MAX} are read"));
    }
    let mut all = Vec::new();
    for one in named {
        all.push(read(one)?);
    }
    Ok(together(&all, host))
}

fn read(named: &Named) -> Result<Unit, String> {
    let Some(name) = UnitName::parse(&named.name) else {
        return Err(format!(
            "{:?} is no name of a unit; it is NAME.service or NAME@INSTANCE.service",
            named.name
        ));
    };
    let mut settings = Vec::new();
    let file = named.files.first().map(|(file, _)| file.clone()).unwrap_or_default();
    for (file, text) in &named.files {
        settings.extend(parse(file, text).map_err(|error: UnitError| error.to_string())?);
    }
    Ok(Unit { name, file, settings })
}

fn is_service(unit: &Unit) -> bool {
    matches!(unit.name.kind.as_str(), "service" | "container")
}

/// The service that a socket or a timer belongs to.
fn service_of(unit: &Unit) -> String {
    let (section, key) = if unit.name.kind == "socket" { ("Socket", "Service") } else { ("Timer", "Unit") };
    let named = unit.last(section, key).map(|one| one.value);
    named.unwrap_or_else(|| format!("{}.service", unit.name.stem()))
}

fn together(all: &[Unit], host: &dyn Host) -> Import {
    let mut report = Report::default();
    let services: Vec<&Unit> = all.iter().filter(|unit| is_service(unit)).collect();
    let others: Vec<&Unit> = all.iter().filter(|unit| !is_service(unit)).collect();
    let mut peers = Peers {
        services: Vec::new(),
        aliases: Vec::new(),
        others: others.iter().map(|unit| unit.name.full()).collect(),
    };
    for unit in &services {
        let name = unique(&service_name(&unit.name.stem()), &peers);
        let aliases = unit.list("Install", "Alias");
        let aliases = aliases.iter().flat_map(|one| one.value.split_ascii_whitespace());
        peers.aliases.extend(aliases.map(|alias| (alias.to_owned(), name.clone())));
        peers.services.push((unit.service_name(), name));
    }
    let mut manifests = Vec::new();
    let mut shut_in = Vec::new();
    for unit in &services {
        let full = unit.service_name();
        let part = |kind: &str| -> Vec<Unit> {
            let of = |one: &&&Unit| one.name.kind == kind && service_of(one) == full;
            others.iter().filter(of).map(|one| (*one).clone()).collect()
        };
        let (sockets, timers) = (part("socket"), part("timer"));
        let made = match unit.name.kind.as_str() {
            "container" => service::container(unit, &peers, host, &mut report),
            _ => service::manifest(unit, &sockets, &timers, &peers, host, &mut report),
        };
        let Some(made) = made else { continue };
        match fits::why_not(&made) {
            Some(why) => report.add(&unit.place(), "", "", Fate::Refused, why),
            None => {
                let is_container = unit.name.kind == "container";
                if is_container && ports::is_shut_in(&made, service::has_no_network(unit)) {
                    shut_in.push((unit.place(), made.name.clone()));
                }
                manifests.push(made);
            }
        }
    }
    let names: Vec<&str> = shut_in.iter().map(|(_, name)| name.as_str()).collect();
    if let (Some((place, _)), Some(how)) = (shut_in.first(), ports::reach_nothing(&names)) {
        report.add(place, "", "", Fate::Approximated, how);
    }
    for unit in others {
        let full = service_of(unit);
        match unit.name.kind.as_str() {
            "socket" | "timer" if peers.manifest_of(&full).is_some() => {}
            "socket" | "timer" => {
                service::alone(
                    unit,
                    &format!("it belongs to {full}, which is not of this import: name it too"),
                    &mut report,
                );
            }
            "target" | "slice" | "mount" | "automount" | "swap" | "device" | "scope" => {
                let why = "it is a unit of the host; the node starts when the host is up";
                report.add(&unit.place(), "", "", Fate::Ignored, why);
            }
            kind => {
                let why = format!(
                    "a {kind} unit starts or holds nothing here; only services, sockets and timers are imported"
                );
                report.add(&unit.place(), "", "", Fate::Refused, why);
            }
        }
    }
    order(&services, &peers, &mut manifests);
    break_circles(&mut manifests, &mut report);
    for manifest in &mut manifests {
        manifest.dependencies.sort_by(|one, other| one.name.cmp(&other.name));
    }
    Import { manifests, report }
}

/// A second unit whose name comes to the same gets a number.
fn unique(name: &str, peers: &Peers) -> String {
    let taken = |name: &str| peers.services.iter().any(|(_, known)| known == name);
    if !taken(name) {
        return name.to_owned();
    }
    let numbered = (2..).map(|number| service_name(&format!("{name}-{number}")));
    numbered.take(FILES_MAX + 1).find(|name| !taken(name)).unwrap_or_else(|| name.to_owned())
}

/// `Before=` a unit of the import: that one depends on this.
fn order(services: &[&Unit], peers: &Peers, manifests: &mut [crate::Manifest]) {
    for unit in services {
        let Some(own) = peers.manifest_of(&unit.service_name()) else { continue };
        for one in unit.list("Unit", "Before") {
            for word in words::texts(&one.value).unwrap_or_default() {
                let Some(later) = peers.manifest_of(&word).filter(|later| *later != own) else { continue };
                let Some(later) = manifests.iter_mut().find(|one| one.name == later) else { continue };
                if !later.dependencies.iter().any(|known| known.name == own) {
                    later
                        .dependencies
                        .push(crate::manifest::Dependency { name: own.to_owned(), required: false });
                }
            }
        }
    }
    // A unit of which no manifest could be made is nobody's dependency.
    let made: Vec<String> = manifests.iter().map(|one| one.name.clone()).collect();
    for manifest in manifests {
        manifest.dependencies.retain(|one| made.contains(&one.name));
    }
}

/// Dependencies have no circle: one that would close it is left out, and said.
pub(crate) fn break_circles(manifests: &mut [crate::Manifest], report: &mut Report) {
    let mut kept: Vec<(String, String)> = Vec::new();
    for manifest in manifests.iter_mut() {
        let own = manifest.name.clone();
        manifest.dependencies.retain(|dependency| {
            if reaches(&kept, &dependency.name, &own) {
                let why =
                    format!("{own} and {} depend on each other; {own} does not wait for it", dependency.name);
                report.add(&Place::default(), "", "", Fate::Refused, why);
                return false;
            }
            kept.push((own.clone(), dependency.name.clone()));
            true
        });
    }
}

fn reaches(edges: &[(String, String)], from: &str, to: &str) -> bool {
    let mut seen = vec![from.to_owned()];
    let mut index = 0;
    while let Some(at) = seen.get(index).cloned() {
        if at == to {
            return true;
        }
        for (_, next) in edges.iter().filter(|(one, _)| *one == at) {
            if !seen.contains(next) {
                seen.push(next.clone());
            }
        }
        index += 1;
    }
    false
}
