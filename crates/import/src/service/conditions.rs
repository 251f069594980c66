//! Conditions that can be looked at once.

use super::{Work, plain_path};
use crate::{
    report::Fate,
    unit::{Setting, Unit, value},
};

const PATHS: [&str; 6] = [
    "PathExists",
    "PathIsDirectory",
    "FileIsExecutable",
    "FileNotEmpty",
    "DirectoryNotEmpty",
    "PathIsReadWrite",
];

/// Where Linux shows batteries.
const BATTERIES: [&str; 3] =
    ["/sys/class/power_supply/BAT0", "/sys/class/power_supply/BAT1", "/sys/class/power_supply/CMB0"];

impl Work<'_> {
    pub(super) fn conditions(&mut self) {
        self.conditions_of(self.unit);
    }

    pub(super) fn conditions_of(&mut self, unit: &Unit) {
        for kind in ["Condition", "Assert"] {
            for name in PATHS {
                for one in unit.list("Unit", &format!("{kind}{name}")) {
                    self.path_condition(unit, &one);
                }
            }
            for one in unit.list("Unit", &format!("{kind}ACPower")) {
                self.mains(&one);
            }
            for one in unit.list("Unit", &format!("{kind}Capability")) {
                let name = one.value.trim_start_matches('|');
                match (value::capability(name), self.as_root) {
                    (Some(capability), true)
                        if self.manifest.program.privileges.iter().any(|one| one == capability) =>
                    {
                        self.mapped(&one, "[program] privileges");
                    }
                    (Some(_), false) => self.refused(
                        &one,
                        "the service manager's own capabilities are meant, which are not asked for",
                    ),
                    _ => self.refused(
                        &one,
                        "no program keeps it here, or the unit takes it away, or it is not known",
                    ),
                }
            }
        }
    }

    /// Capabilities that the unit's conditions ask for: it uses them.
    pub(super) fn wanted_by_conditions(&self) -> Vec<&'static str> {
        let keys = ["ConditionCapability", "AssertCapability"];
        let settings = keys.into_iter().flat_map(|key| self.unit.list("Unit", key));
        settings.filter_map(|one| value::capability(one.value.trim_start_matches('|'))).collect()
    }

    fn path_condition(&mut self, unit: &Unit, one: &Setting) {
        let Some(text) = self.put_in_of(unit, one, &one.value) else { return };
        let text = text.trim_start_matches('|').trim_start();
        let (path, wanted) = match text.strip_prefix('!') {
            Some(path) => (path.trim_start(), false),
            None => (text, true),
        };
        let path = plain_path(path);
        let there = self.host.exists(&path);
        match there == wanted {
            true => {
                let is = if there { "is there" } else { "is not there" };
                self.approximated(
                    one,
                    format!("{path} {is} now, as the unit wants it; nobody looks again at each start"),
                );
            }
            false => {
                let is = if there { "is there" } else { "is not there" };
                self.refused(
                    one,
                    format!("{path} {is}: the unit would not start on this host now, the service will"),
                );
            }
        }
    }

    fn mains(&mut self, one: &Setting) {
        let battery = BATTERIES.iter().any(|path| self.host.exists(path));
        match (battery, value::boolean(&one.value)) {
            (false, Some(true)) => self.say(
                one,
                Fate::Approximated,
                "this host has no battery, so it has mains; nobody looks again at each start",
            ),
            _ => self.refused(one, "nobody looks at the mains at each start"),
        }
    }
}
