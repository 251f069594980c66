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
mod io_uring;
mod judge;
mod keyrings;
mod namespaces;
mod netlink_and_raw;
mod proc_and_sys;
mod ptrace_and_pidfd;
mod ring;
mod servers;
mod setuid_and_capabilities;
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
pub const CLASSES: [(&str, &[Attempt]); 12] = [
    ("files", files::ATTEMPTS),
    ("devices", devices::ATTEMPTS),
    ("proc_and_sys", proc_and_sys::ATTEMPTS),
    ("namespaces", namespaces::ATTEMPTS),
    ("ptrace_and_pidfd", ptrace_and_pidfd::ATTEMPTS),
    ("sockets", sockets::ATTEMPTS),
    ("netlink_and_raw", netlink_and_raw::ATTEMPTS),
    ("keyrings", keyrings::ATTEMPTS),
    ("io_uring", io_uring::ATTEMPTS),
    ("cgroup_escape", cgroup_escape::ATTEMPTS),
    ("setuid_and_capabilities", setuid_and_capabilities::ATTEMPTS),
    ("exhaustion", exhaustion::ATTEMPTS),
];

/// How it is shown that an attempt is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It succeeds when all of these are off; each of them alone holds it.
    Without(&'static [Guard]),
    /// It cannot succeed even then.
    Never(&'static str),
}

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
        Attempt { name, aim, guard, root: way, rootless: way, bare: true, perform }
    }

    const fn rootless(self, rootless: Way) -> Attempt {
        Attempt { rootless, ..self }
    }

    const fn root(self, root: Way) -> Attempt {
        Attempt { root, ..self }
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
        CLASSES.iter().flat_map(|(_, attempts)| attempts.iter()).find(|attempt| attempt.name == name)
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
        for (class, attempts) in CLASSES {
            assert!((4..=6).contains(&attempts.len()), "{class} has {}", attempts.len());
            for attempt in attempts {
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
        assert!(names.len() >= 48, "{}", names.len());
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
            let found = CLASSES.iter().flat_map(|(_, attempts)| attempts.iter()).find(alone);
            assert!(found.is_some() || guard == Guard::NoNewPrivs, "{guard}");
        }
    }
}
