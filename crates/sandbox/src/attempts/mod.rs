//! Ways out of a sandbox, as data and code: what is tried, on which canary, and which guards hold it.
//!
//! An attempt runs inside as an ordinary program and aims at canaries alone ([`Canaries`]), which whoever proves the
//! sandbox made and which its user can reach. It is worth something only if it can succeed: with its guards off, or,
//! where even that is not enough, for a reason that stands beside it. What is compared how, says `judge.rs`.

mod calls;
mod canary;
mod cgroup_escape;
mod devices;
mod exhaustion;
mod files;
mod folders;
mod io_uring;
mod ipc;
mod judge;
mod kernel_calls;
mod kernel_tables;
mod keyrings;
mod making;
mod mounts;
mod namespaces;
mod netlink_and_raw;
mod priorities;
mod privileges;
mod proc_and_sys;
mod proc_of_others;
mod ptrace_and_pidfd;
mod reaching;
mod ring;
mod servers;
mod setuid_and_capabilities;
mod socket_families;
mod socket_options;
mod sockets;

use std::io;

use rustix::io::Errno;

use crate::guard::{Guard, GuardSet};

pub use canary::{Canaries, TARGET};
pub use judge::{Examined, Place, Shown, Verdict, examine};

/// The variable that tells an attempt where the canaries are.
pub const CANARY_VARIABLE: &str = "BAILIWICK_CANARY";
/// Exit codes of an attempt.
pub const SUCCEEDED: u8 = 0;
pub const REFUSED: u8 = 10;
/// The canary could not be made on this host.
pub const ABSENT: u8 = 11;
/// The attempt itself is wrong: counts as a miss.
pub const BROKEN: u8 = 12;

/// All of them, class by class.
pub const CLASSES: [Class; 12] = [
    Class { name: "files", parts: &[files::ATTEMPTS, folders::ATTEMPTS] },
    Class { name: "devices", parts: &[devices::ATTEMPTS] },
    Class {
        name: "proc_and_sys",
        parts: &[proc_and_sys::ATTEMPTS, proc_of_others::ATTEMPTS, kernel_tables::ATTEMPTS],
    },
    Class { name: "namespaces", parts: &[namespaces::ATTEMPTS, mounts::ATTEMPTS, ipc::ATTEMPTS] },
    Class { name: "ptrace_and_pidfd", parts: &[ptrace_and_pidfd::ATTEMPTS, reaching::ATTEMPTS] },
    Class { name: "sockets", parts: &[sockets::ATTEMPTS, socket_families::ATTEMPTS] },
    Class { name: "netlink_and_raw", parts: &[netlink_and_raw::ATTEMPTS, socket_options::ATTEMPTS] },
    Class { name: "keyrings", parts: &[keyrings::ATTEMPTS] },
    Class { name: "io_uring", parts: &[io_uring::ATTEMPTS] },
    Class { name: "cgroup_escape", parts: &[cgroup_escape::ATTEMPTS] },
    Class {
        name: "setuid_and_capabilities",
        parts: &[setuid_and_capabilities::ATTEMPTS, privileges::ATTEMPTS, kernel_calls::ATTEMPTS],
    },
    Class { name: "exhaustion", parts: &[exhaustion::ATTEMPTS, priorities::ATTEMPTS] },
];

/// One surface, in as many parts as it has files.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    pub name: &'static str,
    parts: &'static [&'static [Attempt]],
}

impl Class {
    pub fn attempts(&self) -> impl Iterator<Item = &'static Attempt> + use<> {
        self.parts.iter().flat_map(|part| part.iter())
    }
}

/// How it is shown that an attempt is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It succeeds when all of these are off; each of them alone holds it.
    Without(&'static [Guard]),
    /// It cannot succeed even then.
    Never(&'static str),
}

/// Why a rootless node cannot lose what only a right of the host gives.
const NEEDS_THE_HOSTS_RIGHT: Way = Way::Never(
    "the kernel asks for a right in the initial user namespace, which a rootless node does not have",
);
/// The same of things that root alone may open.
const BELONGS_TO_ROOT: Way =
    Way::Never("the host lets only root open it, so a rootless node has no access that it could lose");

/// One way out.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub name: &'static str,
    /// What it tries on which canary, for people.
    pub aim: &'static str,
    /// The first guard that holds it.
    pub guard: Guard,
    /// When the node has privileges.
    pub root: Way,
    /// When it has none.
    pub rootless: Way,
    /// What refuses it too where a monitor sees the program's calls, as a node's do; off as well when it is to succeed.
    pub beside: &'static [Guard],
    /// May be tried outside of any sandbox: it changes nothing but its canary.
    pub bare: bool,
    perform: fn(&Canaries) -> Result<(), Failure>,
}

impl Attempt {
    const fn new(
        name: &'static str,
        aim: &'static str,
        guards: &'static [Guard],
        perform: fn(&Canaries) -> Result<(), Failure>,
    ) -> Attempt {
        let guard = match guards {
            [first, ..] => *first,
            [] => Guard::Mountns,
        };
        let way = Way::Without(guards);
        Attempt { name, aim, guard, root: way, rootless: way, beside: &[], bare: true, perform }
    }

    const fn rootless(self, rootless: Way) -> Attempt {
        Attempt { rootless, ..self }
    }

    const fn root(self, root: Way) -> Attempt {
        Attempt { root, ..self }
    }

    const fn beside(self, beside: &'static [Guard]) -> Attempt {
        Attempt { beside, ..self }
    }

    /// Outside of a sandbox it would change the host.
    const fn inside_only(self) -> Attempt {
        Attempt { bare: false, ..self }
    }

    #[must_use]
    pub fn way(&self, privileged: bool) -> Way {
        if privileged { self.root } else { self.rootless }
    }

    #[must_use]
    pub fn find(name: &str) -> Option<&'static Attempt> {
        CLASSES.iter().flat_map(Class::attempts).find(|attempt| attempt.name == name)
    }
}

/// Guards that go off together: what the kernel does not give without the other.
#[must_use]
pub fn off_together(guards: GuardSet, privileged: bool) -> GuardSet {
    let mut off = guards;
    if off.contains(Guard::Userns) && !privileged {
        // Unprivileged, every other namespace stands on the user namespace.
        for guard in [Guard::Mountns, Guard::Pidns, Guard::Netns, Guard::Ipcns, Guard::Utsns, Guard::Cgroupns]
        {
            off = off.with(guard);
        }
        // Outside of a user namespace of its own, the limit of processes counts all of this user's.
        off = off.with(Guard::Rlimits);
    }
    if off.contains(Guard::Cgroup) && !privileged {
        // What stands in where a user is given no group.
        off = off.with(Guard::Rlimits);
    }
    if off.contains(Guard::NoNewPrivs) {
        // Neither is given to an unprivileged process that could still gain rights.
        off = off.with(Guard::Seccomp).with(Guard::Landlock);
    }
    off
}

/// Why an attempt did not succeed.
#[derive(Debug)]
enum Failure {
    /// By the kernel, as it should be.
    Refused(io::Error),
    /// There is no such canary on this host.
    Absent(&'static str),
    Broken(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Refused(error)
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Failure {
        Failure::Refused(error.into())
    }
}

/// Something other than the canary answered, or too little came.
fn held(what: &'static str) -> Failure {
    Failure::Refused(io::Error::other(what))
}

/// What came back is the canary's.
fn same(found: &[u8], expected: &str) -> Result<(), Failure> {
    if found == expected.as_bytes() { Ok(()) } else { Err(held("not what the canary holds")) }
}

/// Entry of the program that attempts: tries one and says what came of it; the exit code.
#[must_use]
pub fn main(name: &str) -> u8 {
    if name == TARGET {
        return canary::be_target();
    }
    let text = std::env::var(CANARY_VARIABLE).unwrap_or_default();
    let Some(attempt) = Attempt::find(name) else {
        println!("broken: there is no attempt {name:?}");
        return BROKEN;
    };
    match (attempt.perform)(&Canaries::parse(&text)) {
        Ok(()) => {
            println!("succeeded: {}", attempt.aim);
            SUCCEEDED
        }
        Err(Failure::Refused(error)) => {
            println!("refused: {error}");
            REFUSED
        }
        Err(Failure::Absent(canary)) => {
            println!("absent: this host has no canary {canary:?}");
            ABSENT
        }
        Err(Failure::Broken(why)) => {
            println!("broken: {why}");
            BROKEN
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_classes_are_neither_empty_nor_crowded() {
        let mut names = BTreeSet::new();
        for class in CLASSES {
            let count = class.attempts().count();
            assert!((8..=48).contains(&count), "{} has {count}", class.name);
            for attempt in class.attempts() {
                assert!(names.insert(attempt.name), "{} twice", attempt.name);
                assert!(attempt.aim.len() > 10, "{}", attempt.name);
                for way in [attempt.root, attempt.rootless] {
                    match way {
                        Way::Without(guards) => assert!(!guards.is_empty(), "{}", attempt.name),
                        Way::Never(why) => assert!(why.len() > 20, "{}", attempt.name),
                    }
                }
            }
        }
        assert!(names.len() >= 160, "{}", names.len());
    }

    /// `prove --break GUARD` needs an attempt that this guard alone holds.
    #[test]
    fn each_guard_alone_holds_an_attempt() {
        for guard in Guard::ALL {
            if guard == Guard::Uid {
                continue;
            }
            let off = off_together(GuardSet::of(&[guard]), true);
            let alone = |attempt: &&Attempt| match attempt.root {
                Way::Without(guards) => guards.iter().all(|guard| off.contains(*guard)),
                Way::Never(_) => false,
            };
            let found = CLASSES.iter().flat_map(Class::attempts).find(alone);
            assert!(found.is_some() || guard == Guard::NoNewPrivs, "{guard}");
        }
    }
}
