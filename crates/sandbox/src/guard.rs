//! The defences by name, sets of them, and what could not be given.

use std::fmt;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// One defence of a sandbox. `prove --break NAME` switches one off and must then notice.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Guard {
    #[n(0)]
    Userns,
    #[n(1)]
    Mountns,
    #[n(2)]
    Pidns,
    #[n(3)]
    Netns,
    #[n(4)]
    Ipcns,
    #[n(5)]
    Utsns,
    #[n(6)]
    Cgroupns,
    #[n(7)]
    Landlock,
    #[n(8)]
    Seccomp,
    #[n(9)]
    Rlimits,
    #[n(10)]
    NoNewPrivs,
    #[n(11)]
    Caps,
    #[n(12)]
    Cgroup,
    /// A host uid of its own; needs privileges, so a rootless node reports it as missing.
    #[n(13)]
    Uid,
}

impl Guard {
    pub const ALL: [Guard; 14] = [
        Guard::Userns,
        Guard::Mountns,
        Guard::Pidns,
        Guard::Netns,
        Guard::Ipcns,
        Guard::Utsns,
        Guard::Cgroupns,
        Guard::Landlock,
        Guard::Seccomp,
        Guard::Rlimits,
        Guard::NoNewPrivs,
        Guard::Caps,
        Guard::Cgroup,
        Guard::Uid,
    ];

    /// The name on the command line, in the log and in `status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Guard::Userns => "userns",
            Guard::Mountns => "mountns",
            Guard::Pidns => "pidns",
            Guard::Netns => "netns",
            Guard::Ipcns => "ipcns",
            Guard::Utsns => "utsns",
            Guard::Cgroupns => "cgroupns",
            Guard::Landlock => "landlock",
            Guard::Seccomp => "seccomp",
            Guard::Rlimits => "rlimits",
            Guard::NoNewPrivs => "no_new_privs",
            Guard::Caps => "caps",
            Guard::Cgroup => "cgroup",
            Guard::Uid => "uid",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Guard> {
        Guard::ALL.into_iter().find(|guard| guard.name() == name)
    }

    fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of guards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
pub struct GuardSet(#[n(0)] u32);

impl GuardSet {
    pub const EMPTY: GuardSet = GuardSet(0);

    #[must_use]
    pub fn of(guards: &[Guard]) -> GuardSet {
        GuardSet(guards.iter().fold(0, |bits, guard| bits | guard.bit()))
    }

    #[must_use]
    pub fn with(self, guard: Guard) -> GuardSet {
        GuardSet(self.0 | guard.bit())
    }

    #[must_use]
    pub fn contains(self, guard: Guard) -> bool {
        self.0 & guard.bit() != 0
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Guard> {
        Guard::ALL.into_iter().filter(move |guard| self.contains(*guard))
    }
}

impl fmt::Display for GuardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().map(Guard::name).collect::<Vec<_>>().join("+"))
    }
}

/// A defence, or a part of one, that the plan asked for and that this process does not get.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Missing {
    #[n(0)]
    pub guard: Guard,
    /// For people: what is missing and what would give it.
    #[n(1)]
    pub why: String,
    /// Nothing of the guard is left; else it holds in part, as `why` says. A required guard may be partial.
    #[n(2)]
    pub whole: bool,
}

impl Missing {
    pub(crate) fn whole(guard: Guard, why: impl Into<String>) -> Missing {
        Missing { guard, why: why.into(), whole: true }
    }

    pub(crate) fn part(guard: Guard, why: impl Into<String>) -> Missing {
        Missing { guard, why: why.into(), whole: false }
    }
}

/// What holds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum EnforcedBy {
    #[n(0)]
    CgroupV1,
    #[n(1)]
    CgroupV2,
    /// Per process, not per tree: a child has the same limit again.
    #[n(2)]
    Rlimit,
    #[n(3)]
    Nice,
    #[n(4)]
    Nothing,
}

/// A limit that a plan can state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum LimitKind {
    #[n(0)]
    Memory,
    #[n(1)]
    Processes,
    #[n(2)]
    CpuWeight,
    #[n(3)]
    CpuQuota,
    #[n(4)]
    CpuTime,
    #[n(5)]
    Io,
    #[n(6)]
    IoWeight,
}

/// Which limit is held by what, for `status` and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Enforced {
    #[n(0)]
    pub limit: LimitKind,
    #[n(1)]
    pub by: EnforcedBy,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sets_round_trip() {
        for guard in Guard::ALL {
            assert_eq!(Guard::parse(guard.name()), Some(guard));
            let set = GuardSet::EMPTY.with(guard);
            assert_eq!(set.iter().collect::<Vec<_>>(), vec![guard]);
        }
        assert_eq!(Guard::parse("nothing"), None);
        assert!(GuardSet::EMPTY.is_empty());
    }
}
