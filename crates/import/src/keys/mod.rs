//! Every key of the manual pages that we know, and its fate: the one table that the import follows and that
//! `docs/import.md` is made from.

mod compose;
mod exec;
mod protect;
mod quadlet;
mod resources;
mod service;
mod sockets;
mod unit;

use std::fmt::Write as _;

pub use compose::KEYS as COMPOSE;

use crate::report::Fate;

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treat {
    /// Nothing, wherever it stands.
    Ignored,
    /// There is nothing to map it to.
    Refused,
    /// A sandbox does it in any case: on is mapped, off is approximated.
    Always,
    /// Looked at; with the fates that can come of it.
    Code(&'static [Fate]),
}

#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub names: &'static [&'static str],
    pub treat: Treat,
    /// What becomes of it, or why nothing does and what to do.
    pub text: &'static str,
}

/// A manual page, and the sections of a file in which its keys stand.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub name: &'static str,
    pub sections: &'static [&'static str],
    pub keys: &'static [Key],
}

pub const PAGES: [Page; 11] = [
    Page { name: "systemd.unit(5)", sections: &["Unit"], keys: unit::UNIT },
    Page { name: "systemd.unit(5), [Install]", sections: &["Install"], keys: unit::INSTALL },
    Page { name: "systemd.service(5)", sections: &["Service"], keys: service::SERVICE },
    Page { name: "systemd.exec(5)", sections: &["Service", "Socket"], keys: exec::EXEC },
    Page { name: "systemd.exec(5), protection", sections: &["Service", "Socket"], keys: protect::PROTECT },
    Page { name: "systemd.kill(5)", sections: &["Service", "Socket"], keys: service::KILL },
    Page {
        name: "systemd.resource-control(5)",
        sections: &["Service", "Socket"],
        keys: resources::RESOURCES,
    },
    Page { name: "systemd.socket(5)", sections: &["Socket"], keys: sockets::SOCKET },
    Page { name: "systemd.timer(5)", sections: &["Timer"], keys: sockets::TIMER },
    Page { name: "podman-systemd.unit(5), [Container]", sections: &["Container"], keys: quadlet::CONTAINER },
    Page { name: "podman-systemd.unit(5), [Quadlet]", sections: &["Quadlet"], keys: quadlet::QUADLET },
];

/// Names that systemd still reads, and what they are called now.
pub const OLD_NAMES: [(&str, &str); 13] = [
    ("ReadWriteDirectories", "ReadWritePaths"),
    ("ReadOnlyDirectories", "ReadOnlyPaths"),
    ("InaccessibleDirectories", "InaccessiblePaths"),
    ("StartLimitInterval", "StartLimitIntervalSec"),
    ("OnFailureIsolate", "OnFailureJobMode"),
    ("RequiresOverridable", "Requires"),
    ("RequisiteOverridable", "Requisite"),
    ("BindTo", "BindsTo"),
    ("PropagateReloadTo", "PropagatesReloadTo"),
    ("PropagateReloadFrom", "ReloadPropagatedFrom"),
    ("Capabilities", "CapabilityBoundingSet"),
    ("MemoryLimit", "MemoryMax"),
    ("ReusePorts", "ReusePort"),
];

/// Keys of [Unit] that systemd still reads in [Service], where they once stood.
const ONCE_OF_SERVICE: [&str; 5] =
    ["StartLimitIntervalSec", "StartLimitBurst", "StartLimitAction", "FailureAction", "RebootArgument"];

/// The row of a key in a section, by its name of today.
pub fn find(section: &str, key: &str) -> Option<&'static Key> {
    let section = if section == "Service" && ONCE_OF_SERVICE.contains(&key) { "Unit" } else { section };
    let pages = PAGES.iter().filter(|page| page.sections.contains(&section));
    let mut keys = pages.flat_map(|page| page.keys);
    keys.find(|row| row.names.contains(&key))
}

/// Whether units of a kind have a section. One that no kind has is nobody's, and may be misspelt.
pub(crate) fn is_read(section: &str, kind: &str) -> bool {
    match section {
        "Service" => matches!(kind, "service" | "container"),
        "Socket" => kind == "socket",
        "Timer" => kind == "timer",
        "Container" | "Quadlet" => kind == "container",
        _ => true,
    }
}

/// Today's name of a key.
pub fn canonical(key: &str) -> &str {
    OLD_NAMES.iter().find(|(old, _)| *old == key).map_or(key, |(_, new)| new)
}

fn fates(treat: Treat) -> String {
    let words: Vec<String> = match treat {
        Treat::Ignored => vec![Fate::Ignored.to_string()],
        Treat::Refused => vec![Fate::Refused.to_string()],
        Treat::Always => vec![Fate::Mapped.to_string(), Fate::Approximated.to_string()],
        Treat::Code(fates) => fates.iter().map(ToString::to_string).collect(),
    };
    words.join(", ")
}

/// The tables of `docs/import.md`.
#[must_use]
pub fn tables() -> String {
    let mut out = String::new();
    let compose = Page { name: "compose file, a service", sections: &[], keys: COMPOSE };
    for page in PAGES.iter().chain([&compose]) {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n### {}\n\n| key | fate | how, or why not |\n|---|---|---|\n", page.name);
        for key in page.keys {
            let names: Vec<String> = key.names.iter().map(|name| format!("`{name}`")).collect();
            let text = key.text.replace('|', "\\|");
            let _ = writeln!(out, "| {} | {} | {text} |", names.join(" "), fates(key.treat));
        }
    }
    out.push_str("\n### Names that systemd still reads\n\n");
    for (old, new) in OLD_NAMES {
        let _ = writeln!(out, "- `{old}` is read as `{new}`");
    }
    out
}
