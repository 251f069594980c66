//! One service unit, with its sockets and its timer, becomes one manifest.

mod around;
mod commands;
mod conditions;
mod container;
mod disks;
mod environment;
mod files;
mod identity;
mod life;
mod limits;
mod protect;
mod relations;
mod sockets;
mod timer;

use crate::{
    host::Host,
    keys::{self, Treat, canonical},
    limits::{DESCRIPTION_BYTES_MAX, DURATION_MS_MAX},
    manifest::Manifest,
    report::{Fate, Place, Report},
    unit::{self, Names, Setting, Unit, value, words},
};

pub(crate) use container::{container, has_no_network};
pub(crate) use environment::Variables;

/// The units of one import, and the names that their manifests have.
pub(crate) struct Peers {
    /// Full unit name, name of its manifest.
    pub(crate) services: Vec<(String, String)>,
    /// Other names of the services (`Alias=`), name of the manifest.
    pub(crate) aliases: Vec<(String, String)>,
    /// Other units of the import: sockets and timers.
    pub(crate) others: Vec<String>,
}

impl Peers {
    pub(crate) fn manifest_of(&self, unit: &str) -> Option<&str> {
        self.services
            .iter()
            .chain(&self.aliases)
            .find(|(full, _)| full == unit)
            .map(|(_, name)| name.as_str())
    }
}

/// A service while its manifest is made.
pub(crate) struct Work<'a> {
    pub unit: &'a Unit,
    pub host: &'a dyn Host,
    pub peers: &'a Peers,
    pub report: &'a mut Report,
    pub manifest: Manifest,
    pub variables: Variables,
    /// The user is root, by name or because none is named.
    pub as_root: bool,
}

/// Makes the manifest of a service, with the sockets and the timer that belong to it.
pub(crate) fn manifest(
    unit: &Unit,
    sockets: &[Unit],
    timers: &[Unit],
    peers: &Peers,
    host: &dyn Host,
    report: &mut Report,
) -> Option<Manifest> {
    for part in std::iter::once(unit).chain(sockets).chain(timers) {
        by_table(part, report);
    }
    let name = peers.manifest_of(&unit.name.full()).unwrap_or_default().to_owned();
    let manifest = Manifest {
        head: vec![format!("Made from {} by `bailiwick import`.", unit.name.full())],
        name: name.clone(),
        ..Manifest::default()
    };
    let mut work =
        Work { unit, host, peers, report, manifest, variables: Variables::default(), as_root: false };
    if name != unit.name.stem() {
        let how = format!("the service is called {name}: a name has at most 32 bytes of a-z 0-9 _ -");
        work.whole(Fate::Approximated, how);
    }
    work.description();
    // Commands speak of what comes before them here: user, variables.
    work.identity();
    work.environment_in("Service");
    let complete = work.commands();
    work.life();
    work.files();
    work.protection();
    work.limits();
    work.conditions();
    work.relations();
    work.install(!sockets.is_empty(), !timers.is_empty());
    for socket in sockets {
        work.socket(socket);
    }
    for timer in timers {
        work.timer(timer);
    }
    work.around();
    let manifest = work.manifest;
    for unit in std::iter::once(unit).chain(sockets).chain(timers) {
        nothing_is_passed_over(unit, report);
    }
    complete.then_some(manifest)
}

/// What the table of keys alone decides, and what it does not know.
pub(crate) fn by_table(unit: &Unit, report: &mut Report) {
    for (index, one) in unit.settings.iter().enumerate() {
        let key = canonical(&one.key);
        if one.section.starts_with("X-") || one.key.starts_with("X-") {
            report.add(&one.place, &one.key, &one.value, Fate::Ignored, "it is for other programs");
            continue;
        }
        if !keys::is_read(&one.section, &unit.name.kind) {
            let how = format!("systemd reads no [{}] in a {} unit", one.section, unit.name.kind);
            report.add(&one.place, &one.key, &one.value, Fate::Ignored, how);
            continue;
        }
        let Some(row) = keys::find(&one.section, key) else {
            let how =
                format!("[{}] has no key of this name that is known here; is it spelt right?", one.section);
            report.add(&one.place, &one.key, &one.value, Fate::Refused, how);
            continue;
        };
        let same = |other: &&Setting| other.section == one.section && canonical(&other.key) == key;
        let later = unit.settings.get(index + 1..).unwrap_or_default().iter();
        let taken_back = later.clone().find(|other| same(other) && other.value.is_empty());
        if let Some(by) = taken_back {
            report.add(
                &one.place,
                &one.key,
                &one.value,
                Fate::Ignored,
                format!("{} takes it back", by.place),
            );
            continue;
        }
        match row.treat {
            Treat::Ignored => report.add(&one.place, &one.key, &one.value, Fate::Ignored, row.text),
            _ if one.value.is_empty() && !MEANS_NONE.contains(&key) => {
                report.add(&one.place, &one.key, "", Fate::Ignored, "it takes back what stands before it");
            }
            Treat::Refused => report.add(&one.place, &one.key, &one.value, Fate::Refused, row.text),
            Treat::Always => match value::boolean(&one.value) {
                Some(false) => {
                    let how = format!("it is on in any case: {}", row.text);
                    report.add(&one.place, &one.key, &one.value, Fate::Approximated, how);
                }
                Some(true) => report.add(&one.place, &one.key, &one.value, Fate::Mapped, row.text),
                // `PrivateIPC=` and its like know more words than two in newer versions.
                None => report.add(&one.place, &one.key, &one.value, Fate::Approximated, row.text),
            },
            Treat::Code(_) => {}
        }
    }
}

/// Keys of which an empty value is a value: no capability at all.
const MEANS_NONE: [&str; 1] = ["CapabilityBoundingSet"];

/// Fails closed: a setting of which nothing was said is refused.
fn nothing_is_passed_over(unit: &Unit, report: &mut Report) {
    for one in &unit.settings {
        let said = |entry: &crate::report::Entry| entry.place == one.place && entry.key == one.key;
        if !report.entries.iter().any(said) {
            let how = "the import passed it over, which is a fault of the import";
            report.add(&one.place, &one.key, &one.value, Fate::Refused, how);
        }
    }
}

impl Work<'_> {
    fn say(&mut self, one: &Setting, fate: Fate, how: impl Into<String>) {
        self.report.add(&one.place, &one.key, &one.value, fate, how);
    }

    fn mapped(&mut self, one: &Setting, how: impl Into<String>) {
        self.say(one, Fate::Mapped, how);
    }

    fn approximated(&mut self, one: &Setting, how: impl Into<String>) {
        self.say(one, Fate::Approximated, how);
    }

    fn ignored(&mut self, one: &Setting, why: impl Into<String>) {
        self.say(one, Fate::Ignored, why);
    }

    fn refused(&mut self, one: &Setting, why: impl Into<String>) {
        self.say(one, Fate::Refused, why);
    }

    /// About the unit as a whole.
    fn whole(&mut self, fate: Fate, how: impl Into<String>) {
        self.report.add(&self.unit.place(), "", "", fate, how);
    }

    /// The value that holds; of those before it is said that they do not.
    fn one(&mut self, section: &str, key: &str) -> Option<Setting> {
        self.one_of(self.unit, section, key)
    }

    fn one_of(&mut self, unit: &Unit, section: &str, key: &str) -> Option<Setting> {
        let last = unit.last(section, key)?;
        for before in unit.every(section, key).filter(|before| **before != last) {
            let said = |entry: &crate::report::Entry| entry.place == before.place && entry.key == before.key;
            if !self.report.entries.iter().any(said) {
                let why = format!("{} says it again", last.place);
                self.report.add(&before.place, &before.key, &before.value, Fate::Ignored, why);
            }
        }
        Some(last)
    }

    fn service(&mut self, key: &str) -> Option<Setting> {
        self.one("Service", key)
    }

    /// True or false, or a refusal.
    fn truth(&mut self, one: &Setting) -> Option<bool> {
        let truth = value::boolean(&one.value);
        if truth.is_none() {
            self.refused(one, "it is neither yes nor no");
        }
        truth
    }

    /// With its specifiers put in, or a refusal.
    fn expanded(&mut self, one: &Setting) -> Option<String> {
        self.put_in(one, &one.value)
    }

    fn put_in(&mut self, one: &Setting, text: &str) -> Option<String> {
        self.put_in_of(self.unit, one, text)
    }

    fn put_in_of(&mut self, unit: &Unit, one: &Setting, text: &str) -> Option<String> {
        let names = Names { unit: &unit.name, host: self.host };
        match unit::expand(text, &names) {
            Ok(text) => Some(text),
            Err(why) => {
                self.refused(one, why);
                None
            }
        }
    }

    /// Its words, unquoted, with specifiers put in; or a refusal.
    fn words(&mut self, one: &Setting) -> Option<Vec<String>> {
        match words::texts(&one.value) {
            Ok(words) => words.iter().map(|word| self.put_in(one, word)).collect(),
            Err(why) => {
                self.refused(one, format!("it cannot be split into words: {why}"));
                None
            }
        }
    }

    /// Milliseconds, at most what a manifest can say; the second says whether it was cut.
    fn span_ms(&mut self, one: &Setting) -> Option<(u64, bool)> {
        match value::span_us(&one.value) {
            Ok(None) => Some((DURATION_MS_MAX, true)),
            Ok(Some(us)) => {
                let ms = us.div_ceil(1000);
                Some((ms.min(DURATION_MS_MAX), ms > DURATION_MS_MAX))
            }
            Err(why) => {
                self.refused(one, why);
                None
            }
        }
    }

    fn description(&mut self) {
        let Some(one) = self.one("Unit", "Description") else { return };
        let Some(text) = self.expanded(&one) else { return };
        let end = (0..=DESCRIPTION_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        match text.get(..end).filter(|_| text.len() > DESCRIPTION_BYTES_MAX) {
            Some(cut) => {
                self.manifest.description = cut.to_owned();
                self.approximated(&one, format!("cut at {DESCRIPTION_BYTES_MAX} bytes"));
            }
            None => {
                self.manifest.description = text;
                self.mapped(&one, "[service] description");
            }
        }
    }
}

/// `/var/run` is `/run` everywhere; a trailing slash and a doubled one say nothing.
pub(crate) fn plain_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let path = format!("/{}", parts.join("/"));
    match path.strip_prefix("/var/run") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/run{rest}"),
        _ => path,
    }
}

/// `place` of a unit that is no service of the import.
pub(crate) fn alone(unit: &Unit, why: &str, report: &mut Report) {
    by_table(unit, report);
    let place: Place = unit.place();
    report.add(&place, "", "", Fate::Refused, why);
    for one in &unit.settings {
        let said = |entry: &crate::report::Entry| entry.place == one.place && entry.key == one.key;
        if !report.entries.iter().any(said) {
            report.add(&one.place, &one.key, &one.value, Fate::Ignored, "the unit as a whole is refused");
        }
    }
}
