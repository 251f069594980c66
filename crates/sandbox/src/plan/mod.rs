//! Everything that is needed to start one sandboxed process, as data. `files.rs` is what it sees, `limits.rs` what it
//! may use, `check.rs` which plans are refused, `execution.rs` one more process where a plan was carried out.

mod check;
mod execution;
mod files;
mod limits;
mod watched;

use base::cbor;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::guard::{Guard, GuardSet};
use crate::seccomp::{NotifyCall, Profile};

pub use check::{
    ARGUMENT_BYTES_MAX, ARGUMENTS_MAX, COMMANDS_MAX, DESCRIPTOR_TARGET_MAX, DESCRIPTORS_MAX, GROUPS_MAX,
    HOST_NAME_BYTES_MAX, LANDLOCK_RULES_MAX, MOUNTS_MAX, PATH_BYTES_MAX, PLAN_BYTES_MAX, PlanError,
};
pub use execution::{EXECUTION_ARGUMENTS_MAX, EXECUTION_BYTES_MAX, Execution};
pub use files::{
    Access, Landlock, MASKED_USUALLY, Mount, OVERLAY_UPPER, OVERLAY_WORK, PathRule, READ_ONLY_USUALLY,
    SEALED_BYTES_MAX, SEALED_FILES_MAX, SealedFile,
};
pub use limits::{
    ALL_DISKS, IO_BYTES_PER_S_MIN, IO_LIMITS_MAX, IO_WEIGHT_MAX, IoLimit, IoLimits, Limits, PRIORITY_MAX,
    PRIORITY_NORMAL, Resource, Rlimit,
};
pub use watched::{Published, Watched};

/// No step is taken about capabilities.
pub const CAPABILITIES_UNTOUCHED: u64 = u64::MAX;

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

impl Seccomp {
    /// Whether somebody must answer for calls.
    #[must_use]
    pub fn has_listener(&self) -> bool {
        !self.notify.is_empty() || self.profile == Profile::Job
    }
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

/// A program beside the main one, run by the init in the same sandbox: what was laid down here and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Command {
    /// As the sandbox sees it.
    #[n(0)]
    pub path: String,
    /// With `argv[0]`.
    #[n(1)]
    pub arguments: Vec<String>,
    /// Of one that runs before the program: it goes on whatever the end of this one.
    #[n(2)]
    pub may_fail: bool,
}

/// The started process ends with 0 and leaves a daemon behind, which is the program from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Forks {
    /// Where it writes the daemon's number, as the sandbox sees it. Without one the daemon is the first process that
    /// became the init's child.
    #[n(0)]
    pub pid_file: Option<String>,
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
    /// Supplementary groups of the host, the same inside; only with privileges.
    #[n(28)]
    pub groups: Vec<u32>,
    #[n(29)]
    pub umask: Option<u32>,
    /// What the init can be told to run, by place; it needs an init.
    #[n(30)]
    pub commands: Vec<Command>,
    /// So many of them run, one after the other, before the program starts.
    #[n(31)]
    pub before: u32,
    #[n(32)]
    pub forks: Option<Forks>,
    /// A variable in which the program finds its own number, as it sees itself (`LISTEN_PID`); no command of the plan
    /// gets it.
    #[n(33)]
    pub own_pid: Option<String>,
    /// A part of the house: a launcher that has parts goes on as the one that the arguments name, in its own copy, and
    /// nothing is executed. Any other executes the image.
    #[n(34)]
    #[cbor(default)]
    pub part: bool,
    /// No clock but the kernel's calls, no random bytes, no random addresses: see `launch/determined.rs`. With the profile
    /// of a job, and never without its listener.
    #[n(35)]
    #[cbor(default)]
    pub deterministic: bool,
    /// In an own network with a loopback: sockets on port 53 of 127.0.0.1, of UDP at this descriptor and of TCP, which
    /// listens, at the next. The port is a right that the process itself does not have. The loopback gets an address beside
    /// its own, without which libraries do not ask.
    #[n(36)]
    pub name_server: Option<u32>,
    /// In an own network with a name server: at this descriptor, everything that is sent out of it by the ways that it then has,
    /// as packets; see `datagram_link.rs`.
    #[n(37)]
    pub datagrams: Option<u32>,
    /// Its init answers the calls that its filter shows; the name server and the datagrams are the init's then.
    #[n(38)]
    pub watched: Option<Watched>,
    /// Names for its ids, where what it sees has none; see `launch/user_names.rs`.
    #[n(39)]
    pub user_name: Option<UserName>,
}

/// What `/etc/passwd` and `/etc/group` say of the ids inside.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct UserName {
    /// Of the user and of the group.
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub home: String,
}

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
            groups: Vec::new(),
            umask: None,
            commands: Vec::new(),
            before: 0,
            forks: None,
            own_pid: None,
            part: false,
            deterministic: false,
            name_server: None,
            datagrams: None,
            watched: None,
            user_name: None,
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

    /// The program is there later than the launch: something runs before it, or it forks.
    #[must_use]
    pub fn settles_later(&self) -> bool {
        self.before > 0 || self.forks.is_some()
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
        check::size(bytes)?;
        let plan: Plan = cbor::decode(bytes)?;
        plan.validate(slots)?;
        Ok(plan)
    }
}
