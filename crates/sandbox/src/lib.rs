//! Namespaces, cgroups, Landlock, seccomp and limits for one process tree.
//!
//! Promises: what a [`Plan`] asks for is either given, or listed as [`Missing`] before the image runs, or the launch
//! fails with the step's name and no process is left; a guard that the plan requires is never merely listed.
//! Never does: decide who may run what; keep state between launches; start threads; touch a cgroup or mount that it
//! did not make. Calls nobody but the kernel. Is a library: it dies with its caller, and so does what it launched
//! when the plan says `dies_with_parent`.

pub mod attempts;
mod capability;
pub mod cgroup;
pub mod datagram_link;
pub mod determined;
pub mod fdpass;
mod features;
mod guard;
pub mod host_socket;
pub mod inherited;
pub mod keeper_protocol;
mod landlock;
mod launch;
pub mod notify;
mod open_within;
mod plan;
pub mod process;
pub mod random;
pub mod score;
pub mod seccomp;
pub mod secret_memory;
mod start_token;
mod sys;
mod trace;
mod wait;

pub use capability::capability_bit;
pub use features::{Controller, Features, Hierarchy};
pub use guard::{Enforced, EnforcedBy, Guard, GuardSet, LimitKind, Missing};
pub use launch::{
    EXECUTED_FROM, Effective, Given, LAUNCH_TIMEOUT_MS, LaunchError, Launched, OF_THE_HOUSE, Part, Parts,
    Program, Ready, Step, Told, Watch, Watcher, duplicate_all, inner, launch, launch_from, prepare,
};
pub use open_within::open_within;
pub use plan::{
    ALL_DISKS, ARGUMENT_BYTES_MAX, ARGUMENTS_MAX, Access, CAPABILITIES_UNTOUCHED, COMMANDS_MAX, Command,
    DESCRIPTOR_TARGET_MAX, DESCRIPTORS_MAX, Descriptor, EXECUTION_ARGUMENTS_MAX, EXECUTION_BYTES_MAX,
    Executable, Execution, Forks, GROUPS_MAX, HOST_NAME_BYTES_MAX, IO_BYTES_PER_S_MIN, IO_LIMITS_MAX,
    IO_WEIGHT_MAX, Identity, IoLimit, IoLimits, LANDLOCK_RULES_MAX, Landlock, Limits, MASKED_USUALLY,
    MOUNTS_MAX, Mount, Namespaces, OVERLAY_UPPER, OVERLAY_WORK, PATH_BYTES_MAX, PLAN_BYTES_MAX, PRIORITY_MAX,
    PRIORITY_NORMAL, PathRule, Plan, PlanError, Published, READ_ONLY_USUALLY, Resource, Rlimit,
    SEALED_BYTES_MAX, SEALED_FILES_MAX, SealedFile, Seccomp, Sockets, UserName, Watched,
};
pub use start_token::StartToken;
pub use wait::wait_for;
