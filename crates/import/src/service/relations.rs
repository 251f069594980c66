//! What other units a unit speaks of.

use super::Work;
use crate::{
    manifest::Dependency,
    unit::{Setting, Unit},
};

/// Of the host itself: they run beside the node, or there is nothing to wait for.
fn is_of_the_host(name: &str) -> bool {
    name.starts_with("systemd-") || name.starts_with("dbus.") || name == "-.mount"
}

/// Kinds of units that are no services.
fn is_no_service(name: &str) -> bool {
    let kinds =
        [".target", ".mount", ".automount", ".slice", ".device", ".swap", ".scope", ".path", ".timer"];
    kinds.iter().any(|kind| name.ends_with(kind))
}

impl Work<'_> {
    pub(super) fn relations(&mut self) {
        for key in ["Requires", "BindsTo", "Requisite"] {
            self.needs(key, true);
        }
        for key in ["Wants", "Upholds", "After"] {
            self.needs(key, false);
        }
        for one in self.unit.list("Unit", "Before") {
            let Some(words) = self.words(&one) else { continue };
            for word in words {
                match self.peers.manifest_of(&word).is_some() {
                    true => self.mapped(&one, format!("{word} depends on it")),
                    false => self.ignored(&one, format!("{word} is not of this import")),
                }
            }
        }
        let told = [
            ("PartOf", "it is not stopped and started again with it: do both"),
            ("Conflicts", "it is not stopped when this starts: stop it yourself"),
            ("ReloadPropagatedFrom", "a reload is not passed on: reload both"),
            ("PropagatesReloadTo", "a reload is not passed on: reload both"),
            ("PropagatesStopTo", "a stop is not passed on: stop both"),
            ("StopPropagatedFrom", "a stop is not passed on: stop both"),
        ];
        for (key, why) in told {
            for one in self.unit.list("Unit", key) {
                let Some(words) = self.words(&one) else { continue };
                for word in words {
                    match self.peers.manifest_of(&word).is_some() {
                        true => self.refused(&one, format!("{word}: {why}")),
                        false => self.ignored(&one, format!("{word} is not of this import")),
                    }
                }
            }
        }
    }

    fn needs(&mut self, key: &str, required: bool) {
        for one in self.unit.list("Unit", key) {
            let Some(words) = self.words(&one) else { continue };
            for word in words {
                self.need(&one, &word, required, key == "After");
            }
        }
    }

    fn need(&mut self, one: &Setting, word: &str, required: bool, only_order: bool) {
        if let Some(name) = self.peers.manifest_of(word).map(str::to_owned) {
            self.depend(&name, required);
            self.mapped(one, format!("[[dependencies]] {name}"));
        } else if self.peers.others.iter().any(|other| other == word) {
            self.mapped(one, format!("{word} is part of the manifest"));
        } else if is_no_service(word) {
            self.ignored(one, format!("{word}: the node starts when the host is up"));
        } else if is_of_the_host(word) {
            self.ignored(one, format!("{word} is the host's own"));
        } else if required {
            self.refused(
                one,
                format!(
                    "{word} is not of this import, and nobody starts it: name it on the command line too"
                ),
            );
        } else {
            let what = if only_order { "an order" } else { "a wish" };
            self.ignored(one, format!("{word} is not of this import, and this is {what}"));
        }
    }

    /// One more dependency; one that is required stays so.
    pub(super) fn depend(&mut self, name: &str, required: bool) {
        if name == self.manifest.name {
            return;
        }
        let dependencies = &mut self.manifest.dependencies;
        match dependencies.iter_mut().find(|known| known.name == name) {
            Some(known) => known.required |= required,
            None => dependencies.push(Dependency { name: name.to_owned(), required }),
        }
    }

    /// `[Install]`.
    pub(super) fn install(&mut self, has_sockets: bool, has_timer: bool) {
        let how = match (has_sockets, has_timer) {
            (_, true) => "its timer starts it",
            (true, _) => {
                "with its sockets it starts at boot if it is wanted so, else at the first connection"
            }
            _ => "a service starts with the node once it is applied",
        };
        for key in ["WantedBy", "RequiredBy", "UpheldBy"] {
            let every: Vec<Setting> = self.unit.list("Install", key);
            for one in every {
                self.ignored(&one, how);
            }
        }
        for one in self.unit.list("Service", "Sockets") {
            let Some(words) = self.words(&one) else { continue };
            for word in words {
                match self.peers.others.contains(&word) {
                    true => self.mapped(&one, "[[sockets]]"),
                    false => self.refused(
                        &one,
                        format!("{word} is not of this import: name it on the command line too"),
                    ),
                }
            }
        }
    }

    /// [Unit] and [Install] of a socket or a timer, which is a part of its service here.
    pub(super) fn part(&mut self, unit: &Unit) {
        self.conditions_of(unit);
        let keys = [
            "Description",
            "Requires",
            "BindsTo",
            "Requisite",
            "Wants",
            "Upholds",
            "After",
            "Before",
            "PartOf",
            "Conflicts",
            "ReloadPropagatedFrom",
            "PropagatesReloadTo",
            "PropagatesStopTo",
            "StopPropagatedFrom",
            "StartLimitIntervalSec",
            "StartLimitBurst",
            "StartLimitAction",
            "FailureAction",
            "SuccessAction",
            "JobTimeoutAction",
        ];
        for key in keys {
            for one in unit.list("Unit", key) {
                self.ignored(&one, "it is a part of its service here, and the service's own counts");
            }
        }
        for key in ["WantedBy", "RequiredBy", "UpheldBy"] {
            for one in unit.list("Install", key) {
                self.ignored(&one, "it is there as long as its service");
            }
        }
    }
}
