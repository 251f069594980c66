//! Which plans are refused: what the launcher could not carry out, and what would be ambiguous.

use base::cbor;
use thiserror::Error;

use super::{
    Descriptor, Executable, Mount, PRIORITY_MAX, Plan, SEALED_BYTES_MAX, SEALED_FILES_MAX, SealedFile,
    UserName,
};
use crate::seccomp::{NotifyCall, Profile};

/// Encoded plan, bytes. The kernel's own limit for arguments and environment is of this order.
pub const PLAN_BYTES_MAX: usize = 1024 * 1024;
/// Arguments and environment together, bytes; below the kernel's 2 MiB with the default stack limit.
pub const ARGUMENT_BYTES_MAX: usize = 512 * 1024;
/// Arguments, and environment entries, each.
pub const ARGUMENTS_MAX: usize = 4096;
/// Mounts, links and masked paths of one plan; each costs 3 to 6 system calls at start.
pub const MOUNTS_MAX: usize = 256;
/// Bytes of one path: the kernel's PATH_MAX with its terminating zero.
pub const PATH_BYTES_MAX: usize = 4095;
/// Commands that stand ready beside the program of one plan.
pub const COMMANDS_MAX: usize = 128;
/// Supplementary groups; each is a line of the group map, of which the kernel takes 340.
pub const GROUPS_MAX: usize = 32;
/// Descriptors that one process inherits. The kernel passes at most 253 in a message.
pub const DESCRIPTORS_MAX: usize = 128;
/// Highest number that an inherited descriptor can get; the launcher keeps its own above.
pub const DESCRIPTOR_TARGET_MAX: u32 = 255;
/// Bytes of a host name in Linux.
pub const HOST_NAME_BYTES_MAX: usize = 64;
/// Bytes of a user's name: what `useradd` takes.
pub(super) const USER_NAME_BYTES_MAX: usize = 32;
/// Landlock path rules of one plan.
pub const LANDLOCK_RULES_MAX: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    #[error("the plan has {size} {what}, the limit is {limit}")]
    TooMany { what: &'static str, size: usize, limit: usize },
    #[error("{what} {text:?} is not an absolute path without `..`")]
    NotAbsolute { what: &'static str, text: String },
    #[error("{what} contains a zero byte")]
    Zero { what: &'static str },
    #[error("descriptor slot {slot} does not exist, the request has {slots}")]
    NoSlot { slot: u32, slots: usize },
    #[error("descriptor target {target} is used twice or above {DESCRIPTOR_TARGET_MAX}")]
    Target { target: u32 },
    #[error("{what} is {value}, allowed is {min} to {max}")]
    Range { what: &'static str, value: i64, min: i64, max: i64 },
    #[error("{0}")]
    Contradiction(&'static str),
    #[error("the plan cannot be decoded: {0}")]
    Decode(#[from] cbor::CborError),
}

/// Before anything is decoded.
pub(super) fn size(bytes: &[u8]) -> Result<(), PlanError> {
    at_most("bytes", bytes.len(), PLAN_BYTES_MAX)
}

impl Plan {
    /// Refuses what the launcher could not carry out or what would be ambiguous.
    pub fn validate(&self, slots: usize) -> Result<(), PlanError> {
        at_most("arguments", self.arguments.len(), ARGUMENTS_MAX)?;
        at_most("environment entries", self.environment.len(), ARGUMENTS_MAX)?;
        at_most("mounts", self.mounts.len() + self.masked.len() + self.read_only.len(), MOUNTS_MAX)?;
        at_most("descriptors", self.descriptors.len(), DESCRIPTORS_MAX)?;
        at_most("rlimits", self.rlimits.len(), 16)?;
        at_most("bytes of host name", self.host_name.len(), HOST_NAME_BYTES_MAX)?;
        at_most("bytes of label", self.label.len(), base::limits::NAME_BYTES_MAX)?;
        at_most("groups", self.groups.len(), GROUPS_MAX)?;
        at_most("commands", self.commands.len(), COMMANDS_MAX)?;
        self.validate_arguments()?;
        self.validate_paths(slots)?;
        self.validate_descriptors(slots)?;
        self.validate_numbers()
    }

    fn validate_arguments(&self) -> Result<(), PlanError> {
        let mut bytes = 0;
        let of_commands = self.commands.iter().flat_map(|command| &command.arguments);
        for text in self.arguments.iter().chain(of_commands) {
            no_zero("an argument", text)?;
            bytes += text.len() + 1;
        }
        let given = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in given.chain(self.own_pid.as_deref().map(|name| (name, ""))) {
            variable(name, value)?;
            bytes += name.len() + value.len() + 2;
        }
        at_most("bytes of arguments and environment", bytes, ARGUMENT_BYTES_MAX)?;
        no_zero("the host name", &self.host_name)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if self.label.is_empty() || self.label.starts_with('.') || !self.label.bytes().all(plain) {
            return Err(PlanError::Contradiction(
                "the label is not made of letters, digits, `_`, `-` and `.`",
            ));
        }
        Ok(())
    }

    fn validate_paths(&self, slots: usize) -> Result<(), PlanError> {
        if let Executable::Path(path) = &self.executable {
            absolute("the executable", path)?;
        }
        absolute("the working directory", &self.working_directory)?;
        self.commands.iter().try_for_each(|command| absolute("a command", &command.path))?;
        let pid_file = self.forks.as_ref().and_then(|forks| forks.pid_file.as_ref());
        pid_file.map_or(Ok(()), |path| inside("the file of the daemon's number", path))?;
        for mount in &self.mounts {
            match mount {
                Mount::Bind { source, target, .. } => {
                    absolute("a mount's source", source)?;
                    inside("a mount's target", target)?;
                }
                Mount::Tmpfs { target, .. } => inside("a tmpfs", target)?,
                Mount::Folder { target, .. } => inside("a folder", target)?,
                Mount::Symlink { target, points_to } => {
                    inside("a link", target)?;
                    no_zero("a link", points_to)?;
                    at_most("bytes of link", points_to.len(), PATH_BYTES_MAX)?;
                }
                Mount::Overlay { source, target, layer } => {
                    absolute("a mount's source", source)?;
                    inside("a mount's target", target)?;
                    inside("the layer of a mount", layer)?;
                }
                Mount::Sealed { target, slot, files } => {
                    inside("sealed files", target)?;
                    sealed(*slot, files, slots)?;
                }
                Mount::Proc | Mount::Dev => {}
            }
        }
        for path in self.masked.iter().chain(&self.read_only) {
            inside("a masked path", path)?;
        }
        if !self.mounts.is_empty() && !self.namespaces.mount {
            return Err(PlanError::Contradiction("mounts without a mount namespace"));
        }
        let rules = self.landlock.as_ref().map_or(&[][..], |landlock| &landlock.rules);
        at_most("landlock rules", rules.len(), LANDLOCK_RULES_MAX)?;
        rules.iter().try_for_each(|rule| absolute("a landlock rule", &rule.path))
    }

    fn validate_descriptors(&self, slots: usize) -> Result<(), PlanError> {
        let mut used = [false; DESCRIPTOR_TARGET_MAX as usize + 1];
        let mut take = |target: u32| match used.get_mut(target as usize) {
            Some(taken) if !*taken => {
                *taken = true;
                Ok(())
            }
            _ => Err(PlanError::Target { target }),
        };
        for Descriptor { slot, target } in &self.descriptors {
            if *slot as usize >= slots {
                return Err(PlanError::NoSlot { slot: *slot, slots });
            }
            take(*target)?;
        }
        if let Some(first) = self.name_server {
            take(first)?;
            take(first.saturating_add(1))?;
            if !self.loopback {
                return Err(PlanError::Contradiction("a name server without a loopback"));
            }
        }
        if let Some(target) = self.datagrams {
            take(target)?;
            if self.name_server.is_none() {
                return Err(PlanError::Contradiction("datagrams without a name server"));
            }
        }
        self.watched.as_ref().map_or(Ok(()), |watched| self.validate_watched(watched, slots))?;
        if let Executable::Slot(slot) = self.executable
            && slot as usize >= slots
        {
            return Err(PlanError::NoSlot { slot, slots });
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<(), PlanError> {
        if !self.init && (!self.commands.is_empty() || self.forks.is_some()) {
            return Err(PlanError::Contradiction("commands and daemons need an init"));
        }
        if self.part && self.init {
            return Err(PlanError::Contradiction("a part of the house needs no init"));
        }
        range("the commands before", i64::from(self.before), 0, self.commands.len() as i64)?;
        range("the umask", i64::from(self.umask.unwrap_or(0)), 0, 0o777)?;
        range("the priority", i64::from(self.priority), 0, i64::from(PRIORITY_MAX))?;
        if let Some(weight) = self.limits.cpu_weight {
            range("the cpu weight", i64::from(weight), 1, 10_000)?;
        }
        if let Some(quota) = self.limits.cpu_millicores_max {
            range("the cpu quota in millicores", i64::from(quota), 10, 1_000_000)?;
        }
        if let Some(io) = &self.limits.io {
            io.validate()?;
        }
        if let Some(UserName { name, home }) = &self.user_name {
            at_most("bytes of a user's name", name.len(), USER_NAME_BYTES_MAX)?;
            at_most("bytes of a home", home.len(), PATH_BYTES_MAX)?;
            let is_plain = |text: &str| !text.is_empty() && !text.contains([':', '\n', '\0']);
            if !is_plain(name) || !is_plain(home) {
                return Err(PlanError::Contradiction(
                    "a user's name or home that a line of passwd cannot hold",
                ));
            }
        }
        if let Some(score) = self.oom_score_adj {
            range("oom_score_adj", i64::from(score), -1000, 1000)?;
        }
        for id in [self.identity.uid, self.identity.gid] {
            range("an id", i64::from(id), 0, i64::from(u32::MAX - 1))?;
        }
        let is_job = self.seccomp.as_ref().is_some_and(|seccomp| seccomp.profile == Profile::Job);
        if is_job != self.deterministic || (self.deterministic && self.init) {
            return Err(PlanError::Contradiction(
                "a deterministic plan has the profile of a job and no init",
            ));
        }
        if self.seccomp.as_ref().is_some_and(|seccomp| seccomp.notify.len() > NotifyCall::ALL.len()) {
            return Err(PlanError::Contradiction("a notified call is named twice"));
        }
        Ok(())
    }
}

fn sealed(slot: u32, files: &[SealedFile], slots: usize) -> Result<(), PlanError> {
    if slot as usize >= slots {
        return Err(PlanError::NoSlot { slot, slots });
    }
    at_most("sealed files", files.len(), SEALED_FILES_MAX)?;
    let bytes = files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size_bytes));
    let most = usize::try_from(SEALED_BYTES_MAX).unwrap_or(usize::MAX);
    at_most("bytes of sealed files", usize::try_from(bytes).unwrap_or(usize::MAX), most)?;
    for (index, SealedFile { name, .. }) in files.iter().enumerate() {
        no_zero("the name of a sealed file", name)?;
        at_most("bytes of a sealed file's name", name.len(), 255)?;
        let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        if !is_name || files.iter().take(index).any(|other| other.name == *name) {
            return Err(PlanError::Contradiction("a sealed file is named by a path, or like another"));
        }
    }
    Ok(())
}

pub(super) fn at_most(what: &'static str, size: usize, limit: usize) -> Result<(), PlanError> {
    if size > limit { Err(PlanError::TooMany { what, size, limit }) } else { Ok(()) }
}

pub(super) fn range(what: &'static str, value: i64, min: i64, max: i64) -> Result<(), PlanError> {
    if value < min || value > max { Err(PlanError::Range { what, value, min, max }) } else { Ok(()) }
}

pub(super) fn variable(name: &str, value: &str) -> Result<(), PlanError> {
    no_zero("an environment entry", name)?;
    no_zero("an environment entry", value)?;
    if name.is_empty() || name.contains('=') {
        return Err(PlanError::Contradiction("the name of an environment entry is empty or contains `=`"));
    }
    Ok(())
}

pub(super) fn no_zero(what: &'static str, text: &str) -> Result<(), PlanError> {
    if text.contains('\0') { Err(PlanError::Zero { what }) } else { Ok(()) }
}

pub(super) fn absolute(what: &'static str, path: &str) -> Result<(), PlanError> {
    no_zero(what, path)?;
    at_most("bytes of path", path.len(), PATH_BYTES_MAX)?;
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(PlanError::NotAbsolute { what, text: path.to_owned() });
    }
    Ok(())
}

/// Absolute and not the root itself.
fn inside(what: &'static str, path: &str) -> Result<(), PlanError> {
    absolute(what, path)?;
    if path.split('/').all(|part| part.is_empty() || part == ".") {
        return Err(PlanError::NotAbsolute { what, text: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new("test", Executable::Path("/bin/true".to_owned()), Profile::Program).with_mounts(vec![
            Mount::Proc,
            Mount::Dev,
            Mount::Bind {
                source: "/usr".to_owned(),
                target: "/usr".to_owned(),
                writable: false,
                optional: false,
            },
            Mount::Tmpfs { target: "/tmp".to_owned(), size_bytes_max: 1 << 20, mode: 0o1777 },
            Mount::Symlink { target: "/bin".to_owned(), points_to: "usr/bin".to_owned() },
        ])
    }

    /// covers: SUP-77
    #[test]
    fn a_name_server_has_two_descriptors_and_a_loopback() {
        let with = |first: u32, loopback: bool| {
            let mut plan = Plan::new("t", Executable::Slot(0), Profile::Program);
            plan.descriptors.push(Descriptor { slot: 0, target: 9 });
            (plan.name_server, plan.loopback) = (Some(first), loopback);
            plan.validate(1)
        };
        assert!(with(10, true).is_ok() && with(7, true).is_ok());
        assert!(matches!(with(10, false), Err(PlanError::Contradiction(_))));
        for first in [8, 9, DESCRIPTOR_TARGET_MAX, u32::MAX] {
            assert!(matches!(with(first, true), Err(PlanError::Target { .. })), "{first}");
        }
    }

    #[test]
    fn datagrams_have_a_descriptor_and_come_with_a_name_server() {
        let with = |names: Option<u32>, target: u32| {
            let mut plan = Plan::new("t", Executable::Slot(0), Profile::Program);
            (plan.name_server, plan.loopback, plan.datagrams) = (names, true, Some(target));
            plan.validate(1)
        };
        assert!(with(Some(9), 11).is_ok());
        assert!(matches!(with(None, 11), Err(PlanError::Contradiction(_))));
        for target in [9, 10, u32::MAX] {
            assert!(matches!(with(Some(9), target), Err(PlanError::Target { .. })), "{target}");
        }
    }

    #[test]
    fn a_plan_survives_encoding_and_only_whole() {
        let plan = plan();
        let bytes = plan.encode();
        assert_eq!(Plan::decode(&bytes, 0), Ok(plan));
        for cut in 0..bytes.len() {
            assert!(Plan::decode(&bytes[..cut], 0).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_past_it() {
        let mut at = plan();
        at.arguments = vec![String::new(); ARGUMENTS_MAX];
        assert_eq!(at.validate(0), Ok(()));
        at.arguments.push(String::new());
        assert!(matches!(at.validate(0), Err(PlanError::TooMany { what: "arguments", .. })));
        at.arguments = vec!["x".repeat(ARGUMENT_BYTES_MAX - 1)];
        assert_eq!(at.validate(0), Ok(()));
        at.arguments = vec!["x".repeat(ARGUMENT_BYTES_MAX)];
        assert!(at.validate(0).is_err());
        at = plan();
        let used = at.masked.len() + at.read_only.len();
        at.mounts = vec![Mount::Proc; MOUNTS_MAX - used];
        assert_eq!(at.validate(0), Ok(()));
        at.mounts.push(Mount::Proc);
        assert!(at.validate(0).is_err());
    }

    #[test]
    fn slots_and_targets_are_checked() {
        let mut plan = plan();
        plan.descriptors = vec![Descriptor { slot: 0, target: DESCRIPTOR_TARGET_MAX }];
        assert_eq!(plan.validate(1), Ok(()));
        assert_eq!(plan.validate(0), Err(PlanError::NoSlot { slot: 0, slots: 0 }));
        plan.descriptors = vec![Descriptor { slot: 0, target: DESCRIPTOR_TARGET_MAX + 1 }];
        assert_eq!(plan.validate(1), Err(PlanError::Target { target: DESCRIPTOR_TARGET_MAX + 1 }));
        plan.descriptors = vec![Descriptor { slot: 0, target: 5 }, Descriptor { slot: 0, target: 5 }];
        assert_eq!(plan.validate(1), Err(PlanError::Target { target: 5 }));
    }

    #[test]
    fn sealed_files_have_names_of_their_own_and_a_bound() {
        let with = |sizes: &[(&str, u64)]| {
            let file = |(name, size_bytes): &(&str, u64)| SealedFile {
                name: (*name).to_owned(),
                size_bytes: *size_bytes,
            };
            let mut plan = plan();
            let files = sizes.iter().map(file).collect();
            plan.mounts.push(Mount::Sealed { target: "/run/x".to_owned(), slot: 0, files });
            plan
        };
        assert_eq!(with(&[("a", SEALED_BYTES_MAX - 1), ("b", 1)]).validate(1), Ok(()));
        assert!(with(&[("a", SEALED_BYTES_MAX), ("b", 1)]).validate(1).is_err());
        assert!(with(&[("a", u64::MAX), ("b", 1)]).validate(1).is_err());
        assert_eq!(with(&[]).validate(0), Err(PlanError::NoSlot { slot: 0, slots: 0 }));
        for bad in ["", ".", "..", "a/b", "a\0"] {
            assert!(with(&[(bad, 1)]).validate(1).is_err(), "{bad:?}");
        }
        assert!(with(&[("a", 1), ("a", 1)]).validate(1).is_err());
        let names: Vec<String> = (0..=SEALED_FILES_MAX).map(|n| n.to_string()).collect();
        let all: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 0)).collect();
        assert_eq!(with(&all[1..]).validate(1), Ok(()));
        assert!(with(&all).validate(1).is_err());
    }

    #[test]
    fn paths_that_could_leave_the_root_are_refused() {
        for bad in ["/", "relative", "/a/../b", "/a\0b", "//", "/."] {
            let mut plan = plan();
            plan.mounts = vec![Mount::Tmpfs { target: bad.to_owned(), size_bytes_max: 1, mode: 0 }];
            assert!(plan.validate(0).is_err(), "{bad:?}");
        }
    }
}
