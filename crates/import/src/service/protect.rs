//! Capabilities, and the protections that a sandbox gives in any case.

use base::{LINUX_CAPABILITIES, PRIVILEGES};

use super::Work;
use crate::{
    report::Fate,
    unit::{Setting, value},
};

/// What root keeps where a unit does not say: to become other users, to own and read files, to bind low ports, to leave
/// by `chroot`, to signal and order its own, to log in people.
pub(crate) const PRIVILEGES_OF_ROOT: [&str; 13] = [
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "net_bind_service",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
    "sys_nice",
    "sys_resource",
];

/// Those that cannot be kept.
fn beyond(one: &Setting) -> Vec<&'static str> {
    let named = one.value.split_ascii_whitespace().filter_map(value::capability);
    named.filter(|name| !PRIVILEGES.contains(name)).collect()
}

impl Work<'_> {
    pub(super) fn protection(&mut self) {
        self.privileges();
        self.homes_and_system();
        self.private();
        self.fixed();
    }

    /// The set that lines of a capability list come to; `None` if there is none, and whether only `~` lines made it.
    fn capabilities(&mut self, key: &str) -> Option<(Vec<&'static str>, bool)> {
        let mut set: Option<(Vec<&'static str>, bool)> = None;
        let every: Vec<Setting> = self.unit.every("Service", key).cloned().collect();
        for one in every {
            let (text, inverted) = match one.value.strip_prefix('~') {
                Some(text) => (text, true),
                None => (one.value.as_str(), false),
            };
            let mut named = Vec::new();
            for word in text.split_ascii_whitespace() {
                match value::capability(word) {
                    Some(known) => named.push(known),
                    None => self.refused(&one, format!("{word} is no capability that is known here")),
                }
            }
            let all = || LINUX_CAPABILITIES.to_vec();
            set = Some(match (set, inverted, text.trim().is_empty()) {
                (_, false, true) => (Vec::new(), false),
                (None, false, _) => (named, false),
                (None, true, _) => (all().into_iter().filter(|one| !named.contains(one)).collect(), true),
                (Some((mut set, only)), false, _) => {
                    set.extend(named.into_iter().filter(|one| !set.contains(one)).collect::<Vec<_>>());
                    (set, only)
                }
                (Some((set, only)), true, _) => {
                    (set.into_iter().filter(|one| !named.contains(one)).collect(), only)
                }
            });
        }
        set
    }

    fn privileges(&mut self) {
        let bounding = self.capabilities("CapabilityBoundingSet");
        let ambient = self.capabilities("AmbientCapabilities").map(|(set, _)| set).unwrap_or_default();
        let wanted = self.wanted_by_conditions();
        let mut kept: Vec<&str> = match (&bounding, self.as_root) {
            (_, false) => ambient.clone(),
            (Some((set, false)), true) => set.clone(),
            (Some((set, true)), true) => {
                let usual = |one: &&&str| PRIVILEGES_OF_ROOT.contains(one) || wanted.contains(one);
                set.iter().filter(usual).copied().collect()
            }
            (None, true) => PRIVILEGES_OF_ROOT.to_vec(),
        };
        let bound = |one: &&str| bounding.as_ref().is_none_or(|(set, _)| set.contains(one));
        if self.as_root {
            kept.extend(ambient.iter().chain(&wanted).copied().filter(&bound));
        }
        kept.retain(|one| bound(one) && PRIVILEGES.contains(one));
        kept.sort_unstable();
        kept.dedup();
        if self.manifest.program.user.is_none() {
            kept.clear();
        }
        self.manifest.program.privileges = kept.iter().map(|one| (*one).to_owned()).collect();
        for one in self.every_said("CapabilityBoundingSet") {
            match (&bounding, self.as_root) {
                (_, false) => {
                    self.mapped(&one, "a program that is not root's has none but those it is given")
                }
                (Some((_, false)), true) => self.kept(&one),
                (_, true) => self.approximated(
                    &one,
                    "[program] privileges: the fixed list for root, without those that the unit takes away",
                ),
            }
        }
        for one in self.every_said("AmbientCapabilities") {
            match self.manifest.program.user {
                Some(_) => self.kept(&one),
                None => self.refused(
                    &one,
                    "privileges need a user of the host; name one with User= and no DynamicUser=",
                ),
            }
        }
        if self.as_root && bounding.is_none() {
            let how = format!(
                "the unit keeps all of root's capabilities; the manifest keeps {}; add what else it needs to `privileges`",
                self.manifest.program.privileges.join(" ")
            );
            self.whole(Fate::Approximated, how);
        }
    }

    fn kept(&mut self, one: &Setting) {
        let beyond = beyond(one);
        match beyond.is_empty() {
            true => self.mapped(one, "[program] privileges"),
            false => {
                let why = format!(
                    "{} cannot be kept by any program here; run it outside if it needs it",
                    beyond.join(" ")
                );
                self.refused(one, why);
            }
        }
    }

    /// Settings of a key that were not yet spoken of.
    fn every_said(&mut self, key: &str) -> Vec<Setting> {
        let entries = &self.report.entries;
        let said =
            |one: &&Setting| !entries.iter().any(|entry| entry.place == one.place && entry.key == one.key);
        self.unit.every("Service", key).filter(said).cloned().collect()
    }

    fn homes_and_system(&mut self) {
        if let Some(one) = self.service("ProtectHome") {
            match (one.value.as_str(), value::boolean(&one.value)) {
                ("read-only", _) => {
                    for path in ["/home", "/root"] {
                        if self.host.exists(path) {
                            self.grant(path, false);
                        }
                    }
                    self.approximated(
                        &one,
                        "/home and /root are granted, where they are there; /run/user is not",
                    );
                }
                (_, Some(false)) => {
                    self.approximated(&one, "homes are not shown; grant what it needs with `fs`")
                }
                _ => self.mapped(&one, "homes are not shown"),
            }
        }
        if let Some(one) = self.service("ProtectSystem") {
            match (one.value.as_str(), value::boolean(&one.value)) {
                ("strict", _) => self.mapped(&one, "nothing is written but what is granted so"),
                ("full", _) | (_, Some(true)) => {
                    self.mapped(
                        &one,
                        "/usr and /etc are not written; elsewhere it writes what is granted so",
                    );
                }
                _ => self.approximated(&one, "nothing is written but what is granted so"),
            }
        }
        for one in self.unit.list("Service", "InaccessiblePaths") {
            let Some(words) = self.words(&one) else { continue };
            for word in words {
                let path = super::plain_path(word.trim_start_matches(['-', '+']));
                let shown = ["/etc", "/var", "/srv", "/opt", "/usr"];
                let inside = |root: &&str| path == **root || path.starts_with(&format!("{root}/"));
                match shown.iter().any(inside) {
                    true => self.refused(
                        &one,
                        format!("{path} lies below what the manifest grants; take the grant apart by hand"),
                    ),
                    false => self.mapped(&one, format!("{path} is not shown")),
                }
            }
        }
    }

    fn private(&mut self) {
        if let Some(one) = self.service("PrivateTmp") {
            match one.value.as_str() {
                "disconnected" => self.mapped(&one, "[sandbox] tmp_mb: a /tmp of its own"),
                _ => match self.truth(&one) {
                    Some(true) => self.mapped(&one, "[sandbox] tmp_mb: a /tmp of its own, in memory"),
                    Some(false) => {
                        self.approximated(&one, "/tmp is its own all the same; nobody else finds files in it")
                    }
                    None => {}
                },
            }
        }
        let private = self.service("PrivateNetwork");
        let on = private.as_ref().and_then(|one| self.truth(one)).unwrap_or(false);
        if let Some(one) = private {
            self.mapped(
                &one,
                if on { "[sandbox] network is its own" } else { "[sandbox] network = \"host\"" },
            );
        }
        self.manifest.sandbox.host_network = !on;
        if let Some(one) = self.service("PrivateUsers") {
            let apart = self.manifest.program.privileges.is_empty();
            match (self.truth(&one), apart) {
                (Some(true), true) | (Some(false), false) => {
                    self.mapped(&one, "a user namespace is its own where no privileges are kept")
                }
                (Some(true), false) => {
                    self.approximated(&one, "no user namespace stands between, since privileges are kept")
                }
                (Some(false), true) => self.approximated(
                    &one,
                    "a user namespace of its own stands between, since no privileges are kept",
                ),
                (None, _) => {}
            }
        }
        if let Some(one) = self.service("PrivateMounts") {
            match self.truth(&one) {
                Some(true) => self.mapped(&one, "mounts are its own"),
                Some(false) => {
                    self.approximated(&one, "mounts are its own; nothing that it mounts would be seen")
                }
                None => {}
            }
        }
        if let Some(one) = self.service("MountFlags") {
            match one.value.as_str() {
                "private" => self.mapped(&one, "mounts are its own"),
                _ => self.approximated(&one, "mounts are its own, and none of the host comes later"),
            }
        }
    }

    /// What holds of every sandbox, compared with what the unit asks for.
    fn fixed(&mut self) {
        for key in ["ProtectProc", "ProcSubset"] {
            let Some(one) = self.service(key) else { continue };
            match one.value.as_str() {
                "invisible" | "ptraceable" | "noaccess" => {
                    self.mapped(&one, "/proc shows the service's own processes only")
                }
                _ => self.approximated(
                    &one,
                    "/proc shows the service's own processes, and the host's facts read-only",
                ),
            }
        }
        for one in self.unit.list("Service", "RestrictAddressFamilies") {
            self.approximated(
                &one,
                "families are unix, inet, inet6 and netlink for routes: not narrowed, not widened",
            );
        }
        if let Some(one) = self.service("RestrictNamespaces") {
            match value::boolean(&one.value) {
                Some(true) => self.mapped(&one, "no namespace can be made"),
                _ => self.approximated(&one, "no namespace at all can be made"),
            }
        }
        if let Some(one) = self.service("MemoryDenyWriteExecute") {
            match self.truth(&one) {
                Some(true) => self.refused(
                    &one,
                    "memory that is written and executed is not forbidden here; the protection is lost",
                ),
                Some(false) => self.ignored(&one, "it is not forbidden"),
                None => {}
            }
        }
        if let Some(one) = self.service("RestrictRealtime") {
            let nice = self.manifest.program.privileges.iter().any(|one| one == "sys_nice");
            match (self.truth(&one), nice) {
                (Some(true), true) => {
                    self.manifest.program.privileges.retain(|one| one != "sys_nice");
                    self.mapped(&one, "the privilege sys_nice is left out");
                }
                (Some(true), false) => {
                    self.mapped(&one, "without the privilege sys_nice nothing runs in real time")
                }
                (Some(false), _) => self.approximated(&one, "it needs the privilege sys_nice"),
                (None, _) => {}
            }
        }
        if let Some(one) = self.service("RestrictSUIDSGID") {
            match self.truth(&one) {
                Some(true) => self.approximated(&one, "the bits can be set, but nothing that is executed here gains a right; on files for others they count"),
                Some(false) => self.ignored(&one, "it is not restricted"),
                None => {}
            }
        }
        for one in self.unit.list("Service", "SystemCallFilter") {
            self.approximated(&one, "a fixed filter is on in any case (mounts, modules, keyrings, namespaces, ptrace, bpf, io_uring, clock, reboot are refused); it is not narrowed to this list");
        }
        for one in self.unit.list("Service", "SystemCallArchitectures") {
            match one.value.as_str() {
                "native" => self.mapped(&one, "calls of another architecture end the program"),
                _ => self.approximated(&one, "only native calls are let through"),
            }
        }
    }
}
