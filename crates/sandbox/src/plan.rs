//! Everything that is needed to start one sandboxed process, as data.

use base::cbor;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::guard::{Guard, GuardSet};
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
/// Descriptors that one process inherits. The kernel passes at most 253 in a message.
pub const DESCRIPTORS_MAX: usize = 128;
/// Highest number that an inherited descriptor can get; the launcher keeps its own above.
pub const DESCRIPTOR_TARGET_MAX: u32 = 255;
/// Bytes of a host name in Linux.
pub const HOST_NAME_BYTES_MAX: usize = 64;
/// Landlock path rules of one plan.
pub const LANDLOCK_RULES_MAX: usize = 512;

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum Executable {
    /// A descriptor of the launch request: what was hashed is what runs. A script (`#!`) needs `/dev/fd`,
    /// so `Mount::Proc` and `Mount::Dev`, in its sandbox.
    #[n(0)]
    Slot(#[n(0)] u32),
    /// A path inside the sandbox, opened there.
    #[n(1)]
    Path(#[n(0)] String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Namespaces {
    #[n(0)]
    pub user: bool,
    #[n(1)]
    pub pid: bool,
    #[n(2)]
    pub mount: bool,
    #[n(3)]
    pub net: bool,
    #[n(4)]
    pub ipc: bool,
    #[n(5)]
    pub uts: bool,
    #[n(6)]
    pub cgroup: bool,
}

impl Namespaces {
    pub const ALL: Namespaces =
        Namespaces { user: true, pid: true, mount: true, net: true, ipc: true, uts: true, cgroup: true };
    pub const NONE: Namespaces = Namespaces {
        user: false,
        pid: false,
        mount: false,
        net: false,
        ipc: false,
        uts: false,
        cgroup: false,
    };
}

/// Who the process is. Rootless, `host_uid` must be absent and the caller's own uid is the one that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Identity {
    /// The id that the process sees in its user namespace.
    #[n(0)]
    pub uid: u32,
    #[n(1)]
    pub gid: u32,
    /// The id that the host sees; only with privileges.
    #[n(2)]
    pub host_uid: Option<u32>,
    #[n(3)]
    pub host_gid: Option<u32>,
}

/// One thing in the new root. Targets are absolute and inside the sandbox, sources absolute and outside.
/// Later entries go on top of earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A file, folder, socket or device of the host, with everything mounted below it.
    #[n(0)]
    Bind {
        #[n(0)]
        source: String,
        #[n(1)]
        target: String,
        #[n(2)]
        writable: bool,
        /// Absent on the host: left out instead of an error (`/lib64` does not exist everywhere).
        #[n(3)]
        optional: bool,
    },
    #[n(1)]
    Tmpfs {
        #[n(0)]
        target: String,
        #[n(1)]
        size_bytes_max: u64,
        #[n(2)]
        mode: u32,
    },
    /// `/proc` of the sandbox's own pid namespace.
    #[n(2)]
    Proc,
    /// null zero full random urandom tty, fd links, an empty shm and a private pts.
    #[n(3)]
    Dev,
    #[n(4)]
    Symlink {
        #[n(0)]
        target: String,
        #[n(1)]
        points_to: String,
    },
}

/// What Landlock allows below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Access {
    /// Read, list, execute.
    #[n(0)]
    Read,
    /// Everything.
    #[n(1)]
    Write,
    /// Read and write existing files, no new ones (devices, `/proc`).
    #[n(2)]
    Modify,
    /// Reach through and list only.
    #[n(3)]
    List,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct PathRule {
    #[n(0)]
    pub path: String,
    #[n(1)]
    pub access: Access,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Landlock {
    /// Paths inside the sandbox. A path that is not there is skipped: it allows nothing.
    #[n(0)]
    pub rules: Vec<PathRule>,
    /// TCP connect and bind stay possible as far as the network namespace goes. Needs ABI 4 to be refused.
    #[n(1)]
    pub tcp: bool,
    /// Abstract sockets and signals to processes outside of this domain stay possible. Needs ABI 6 to be refused.
    #[n(2)]
    pub outside: bool,
}

impl Landlock {
    /// The rules that allow exactly what the mounts show.
    #[must_use]
    pub fn of_mounts(mounts: &[Mount]) -> Landlock {
        let mut rules = vec![PathRule { path: "/".to_owned(), access: Access::List }];
        for mount in mounts {
            let (path, access) = match mount {
                Mount::Bind { target, writable: true, .. } => (target.as_str(), Access::Write),
                Mount::Bind { target, .. } => (target.as_str(), Access::Read),
                Mount::Tmpfs { target, .. } => (target.as_str(), Access::Write),
                Mount::Proc => ("/proc", Access::Modify),
                Mount::Dev => ("/dev", Access::Modify),
                Mount::Symlink { .. } => continue,
            };
            rules.push(PathRule { path: path.to_owned(), access });
            if matches!(mount, Mount::Dev) {
                rules.push(PathRule { path: "/dev/shm".to_owned(), access: Access::Write });
            }
        }
        Landlock { rules, tcp: false, outside: false }
    }
}

/// Socket families that `socket` may create.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Sockets {
    #[n(0)]
    pub unix: bool,
    #[n(1)]
    pub inet: bool,
    /// Route lookups of the C library (`getaddrinfo`, `getifaddrs`); nothing can be changed without capabilities.
    #[n(2)]
    pub netlink_route: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Seccomp {
    #[n(0)]
    pub profile: Profile,
    #[n(1)]
    pub sockets: Sockets,
    /// Calls that are shown to whoever holds the listener before they go on. Empty: no listener.
    #[n(2)]
    pub notify: Vec<NotifyCall>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Resource {
    #[n(0)]
    OpenFiles,
    #[n(1)]
    Processes,
    #[n(2)]
    AddressSpace,
    #[n(3)]
    CpuSeconds,
    #[n(4)]
    CoreBytes,
    #[n(5)]
    FileBytes,
    #[n(6)]
    LockedBytes,
    #[n(7)]
    StackBytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Rlimit {
    #[n(0)]
    pub resource: Resource,
    #[n(1)]
    pub soft: u64,
    #[n(2)]
    pub hard: u64,
}

/// Limits of the whole tree, held by cgroups where they can be had, else by what [`crate::Enforced`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Limits {
    #[n(0)]
    pub memory_bytes_max: Option<u64>,
    #[n(1)]
    pub processes_max: Option<u64>,
    /// 1 to 10 000, 100 is the usual share.
    #[n(2)]
    pub cpu_weight: Option<u32>,
    /// Thousandths of one core.
    #[n(3)]
    pub cpu_millicores_max: Option<u32>,
    /// Of each process; a cgroup has no such limit, so it is an rlimit everywhere.
    #[n(4)]
    pub cpu_seconds_max: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Descriptor {
    /// Index into the descriptors that came with the launch request.
    #[n(0)]
    pub slot: u32,
    /// Number in the new process; 0, 1 and 2 are its standard streams.
    #[n(1)]
    pub target: u32,
}

/// A sandboxed process to be. [`Plan::new`] is closed: nothing mounted, everything unshared, strictest defaults.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Plan {
    /// Name of its cgroup, and of the process in reports.
    #[n(0)]
    pub label: String,
    #[n(1)]
    pub executable: Executable,
    /// With `argv[0]`.
    #[n(2)]
    pub arguments: Vec<String>,
    #[n(3)]
    pub environment: Vec<(String, String)>,
    #[n(4)]
    pub working_directory: String,
    #[n(5)]
    pub host_name: String,
    #[n(6)]
    pub namespaces: Namespaces,
    #[n(7)]
    pub identity: Identity,
    #[n(8)]
    pub mounts: Vec<Mount>,
    /// Covered by an empty file or folder; skipped where absent.
    #[n(9)]
    pub masked: Vec<String>,
    /// Remounted read-only in place (parts of `/proc`); skipped where absent.
    #[n(10)]
    pub read_only: Vec<String>,
    #[n(11)]
    pub landlock: Option<Landlock>,
    #[n(12)]
    pub seccomp: Option<Seccomp>,
    #[n(13)]
    pub rlimits: Vec<Rlimit>,
    #[n(14)]
    pub limits: Limits,
    #[n(15)]
    pub no_new_privs: bool,
    /// Bits of capabilities that survive `execve`; 0 is none, [`CAPABILITIES_UNTOUCHED`] changes nothing.
    #[n(16)]
    pub capabilities_kept: u64,
    /// SIGKILL when the process that launches dies.
    #[n(17)]
    pub dies_with_parent: bool,
    #[n(18)]
    pub oom_score_adj: Option<i32>,
    /// 0 (highest) to 31, 16 is normal; becomes nice and scheduling class.
    #[n(19)]
    pub priority: u8,
    /// False forbids core files. `execve` makes a process dumpable again, so an image with secrets also calls
    /// [`crate::process::forbid_inspection`] first thing.
    #[n(20)]
    pub dumpable: bool,
    #[n(21)]
    pub new_session: bool,
    /// Brings `lo` up in the own network namespace.
    #[n(22)]
    pub loopback: bool,
    #[n(23)]
    pub descriptors: Vec<Descriptor>,
    /// Switched off on purpose, to show that something notices.
    #[n(24)]
    pub disabled: GuardSet,
    /// Without these the launch is refused instead of reported as reduced.
    #[n(25)]
    pub required: GuardSet,
    /// A first process of the house stands before it in its pid namespace: passes signals on, reaps, and tells how it
    /// ended. Without one the program is PID 1 itself, to which the kernel shows no signal that it has no handler for.
    #[n(26)]
    pub init: bool,
    /// Its standard input is a terminal, which becomes the one of its new session.
    #[n(27)]
    pub controlling_terminal: bool,
}

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

/// Paths of `/proc` and `/sys` that tell or change things of the host.
pub const MASKED_USUALLY: &[&str] = &[
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/acpi",
    "/proc/scsi",
    "/proc/interrupts",
    "/proc/pressure",
];
/// Parts of `/proc` that root of the host could write to without any capability.
pub const READ_ONLY_USUALLY: &[&str] =
    &["/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/sysrq-trigger"];

impl Plan {
    /// The closed plan: own everything, empty root, no network, no right, seccomp profile given.
    #[must_use]
    pub fn new(label: &str, executable: Executable, profile: Profile) -> Plan {
        Plan {
            label: label.to_owned(),
            executable,
            arguments: vec![label.to_owned()],
            environment: Vec::new(),
            working_directory: "/".to_owned(),
            host_name: "bailiwick".to_owned(),
            namespaces: Namespaces::ALL,
            identity: Identity { uid: 1000, gid: 1000, host_uid: None, host_gid: None },
            mounts: Vec::new(),
            masked: Vec::new(),
            read_only: Vec::new(),
            landlock: Some(Landlock::of_mounts(&[])),
            seccomp: Some(Seccomp {
                profile,
                sockets: Sockets { unix: true, inet: false, netlink_route: false },
                notify: Vec::new(),
            }),
            rlimits: vec![Rlimit { resource: Resource::CoreBytes, soft: 0, hard: 0 }],
            limits: Limits::default(),
            no_new_privs: true,
            capabilities_kept: 0,
            dies_with_parent: true,
            oom_score_adj: None,
            priority: PRIORITY_NORMAL,
            dumpable: false,
            new_session: true,
            loopback: false,
            descriptors: Vec::new(),
            disabled: GuardSet::EMPTY,
            required: GuardSet::of(&[Guard::Seccomp, Guard::NoNewPrivs, Guard::Caps]),
            init: false,
            controlling_terminal: false,
        }
    }

    /// A process of the house itself (the supervisor): nothing is taken from it, only its life is tied.
    #[must_use]
    pub fn trusted(label: &str, executable: Executable) -> Plan {
        let mut plan = Plan::new(label, executable, Profile::Service);
        plan.namespaces = Namespaces::NONE;
        (plan.landlock, plan.seccomp) = (None, None);
        plan.rlimits.clear();
        plan.no_new_privs = false;
        plan.dumpable = true;
        plan.capabilities_kept = CAPABILITIES_UNTOUCHED;
        plan.required = GuardSet::EMPTY;
        plan
    }

    /// Sets the mounts, and the Landlock rules and masks that belong to them.
    #[must_use]
    pub fn with_mounts(mut self, mounts: Vec<Mount>) -> Plan {
        let (tcp, outside) =
            self.landlock.as_ref().map_or((false, false), |rules| (rules.tcp, rules.outside));
        if mounts.contains(&Mount::Proc) {
            self.masked = MASKED_USUALLY.iter().map(|path| (*path).to_owned()).collect();
            self.read_only = READ_ONLY_USUALLY.iter().map(|path| (*path).to_owned()).collect();
        }
        self.landlock = Some(Landlock { tcp, outside, ..Landlock::of_mounts(&mounts) });
        self.mounts = mounts;
        self
    }

    /// A second stage inside namespaces that exist already: everything of this process, nothing of the house.
    #[must_use]
    pub fn inner(mut self) -> Plan {
        self.namespaces = Namespaces::NONE;
        self.mounts.clear();
        self.masked.clear();
        self.read_only.clear();
        self.limits = Limits { cpu_seconds_max: self.limits.cpu_seconds_max, ..Limits::default() };
        self
    }

    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Decodes and validates; the size is checked first.
    pub fn decode(bytes: &[u8], slots: usize) -> Result<Plan, PlanError> {
        at_most("bytes", bytes.len(), PLAN_BYTES_MAX)?;
        let plan: Plan = cbor::decode(bytes)?;
        plan.validate(slots)?;
        Ok(plan)
    }

    /// Refuses what the launcher could not carry out or what would be ambiguous.
    pub fn validate(&self, slots: usize) -> Result<(), PlanError> {
        at_most("arguments", self.arguments.len(), ARGUMENTS_MAX)?;
        at_most("environment entries", self.environment.len(), ARGUMENTS_MAX)?;
        at_most("mounts", self.mounts.len() + self.masked.len() + self.read_only.len(), MOUNTS_MAX)?;
        at_most("descriptors", self.descriptors.len(), DESCRIPTORS_MAX)?;
        at_most("rlimits", self.rlimits.len(), 16)?;
        at_most("bytes of host name", self.host_name.len(), HOST_NAME_BYTES_MAX)?;
        at_most("bytes of label", self.label.len(), base::limits::NAME_BYTES_MAX)?;
        self.validate_arguments()?;
        self.validate_paths()?;
        self.validate_descriptors(slots)?;
        self.validate_numbers()
    }

    fn validate_arguments(&self) -> Result<(), PlanError> {
        let mut bytes = 0;
        for text in &self.arguments {
            no_zero("an argument", text)?;
            bytes += text.len() + 1;
        }
        for (name, value) in &self.environment {
            no_zero("an environment entry", name)?;
            no_zero("an environment entry", value)?;
            if name.is_empty() || name.contains('=') {
                return Err(PlanError::Contradiction(
                    "the name of an environment entry is empty or contains `=`",
                ));
            }
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

    fn validate_paths(&self) -> Result<(), PlanError> {
        if let Executable::Path(path) = &self.executable {
            absolute("the executable", path)?;
        }
        absolute("the working directory", &self.working_directory)?;
        for mount in &self.mounts {
            match mount {
                Mount::Bind { source, target, .. } => {
                    absolute("a mount's source", source)?;
                    inside("a mount's target", target)?;
                }
                Mount::Tmpfs { target, .. } => inside("a tmpfs", target)?,
                Mount::Symlink { target, points_to } => {
                    inside("a link", target)?;
                    no_zero("a link", points_to)?;
                    at_most("bytes of link", points_to.len(), PATH_BYTES_MAX)?;
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
        for Descriptor { slot, target } in &self.descriptors {
            if *slot as usize >= slots {
                return Err(PlanError::NoSlot { slot: *slot, slots });
            }
            match used.get_mut(*target as usize) {
                Some(taken) if !*taken => *taken = true,
                _ => return Err(PlanError::Target { target: *target }),
            }
        }
        if let Executable::Slot(slot) = self.executable
            && slot as usize >= slots
        {
            return Err(PlanError::NoSlot { slot, slots });
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<(), PlanError> {
        range("the priority", i64::from(self.priority), 0, i64::from(PRIORITY_MAX))?;
        if let Some(weight) = self.limits.cpu_weight {
            range("the cpu weight", i64::from(weight), 1, 10_000)?;
        }
        if let Some(quota) = self.limits.cpu_millicores_max {
            range("the cpu quota in millicores", i64::from(quota), 10, 1_000_000)?;
        }
        if let Some(score) = self.oom_score_adj {
            range("oom_score_adj", i64::from(score), -1000, 1000)?;
        }
        for id in [self.identity.uid, self.identity.gid] {
            range("an id", i64::from(id), 0, i64::from(u32::MAX - 1))?;
        }
        if self.seccomp.as_ref().is_some_and(|seccomp| seccomp.notify.len() > NotifyCall::ALL.len()) {
            return Err(PlanError::Contradiction("a notified call is named twice"));
        }
        Ok(())
    }
}

/// No step is taken about capabilities.
pub const CAPABILITIES_UNTOUCHED: u64 = u64::MAX;
/// Priorities of PRC-33.
pub const PRIORITY_NORMAL: u8 = 16;
pub const PRIORITY_MAX: u8 = 31;

fn at_most(what: &'static str, size: usize, limit: usize) -> Result<(), PlanError> {
    if size > limit { Err(PlanError::TooMany { what, size, limit }) } else { Ok(()) }
}

fn range(what: &'static str, value: i64, min: i64, max: i64) -> Result<(), PlanError> {
    if value < min || value > max { Err(PlanError::Range { what, value, min, max }) } else { Ok(()) }
}

fn no_zero(what: &'static str, text: &str) -> Result<(), PlanError> {
    if text.contains('\0') { Err(PlanError::Zero { what }) } else { Ok(()) }
}

fn absolute(what: &'static str, path: &str) -> Result<(), PlanError> {
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
    fn paths_that_could_leave_the_root_are_refused() {
        for bad in ["/", "relative", "/a/../b", "/a\0b", "//", "/."] {
            let mut plan = plan();
            plan.mounts = vec![Mount::Tmpfs { target: bad.to_owned(), size_bytes_max: 1, mode: 0 }];
            assert!(plan.validate(0).is_err(), "{bad:?}");
        }
    }
}
