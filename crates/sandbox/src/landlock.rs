//! Landlock: the second lock on files, and the one that also knows TCP, abstract sockets and signals.
//!
//! The ABI is a fact in [`crate::Features`], so that every older kernel can be played through on a newer one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::guard::{Guard, Missing};
use crate::plan::{Access, Landlock, PathRule};
use crate::sys::{self, RulesetAttributes};

/// The newest ABI whose rights are used here.
const ABI_MAX: u32 = 6;

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
/// Remove, make: bits 4 to 12, ABI 1.
const CHANGE_NAMES: u64 = 0x1ff0;
/// Link and rename between folders, ABI 2. Before, it was always refused.
const REFER: u64 = 1 << 13;
/// ABI 3. Before, truncation could not be refused.
const TRUNCATE: u64 = 1 << 14;
/// ioctls of devices, ABI 5.
const IOCTL_DEV: u64 = 1 << 15;
/// What a rule on something that is not a folder may name.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

/// The first that refuses `connect` and `bind` of TCP.
pub(crate) const TCP_ABI: u32 = 4;

const TCP_BIND_CONNECT: u64 = 3;
const SCOPE_ABSTRACT_SIGNAL: u64 = 3;

fn handled(abi: u32) -> u64 {
    let mut rights = EXECUTE | WRITE_FILE | READ_FILE | READ_DIR | CHANGE_NAMES;
    for (since, right) in [(2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)] {
        if abi >= since {
            rights |= right;
        }
    }
    rights
}

fn allowed(access: Access) -> u64 {
    match access {
        Access::Read => EXECUTE | READ_FILE | READ_DIR,
        Access::Write => u64::MAX,
        Access::Modify => WRITE_FILE | READ_FILE | READ_DIR | TRUNCATE | IOCTL_DEV,
        Access::List => READ_DIR,
    }
}

/// What a kernel with this ABI cannot hold of the plan.
#[must_use]
pub(crate) fn missing(landlock: &Landlock, abi: u32) -> Vec<Missing> {
    let lack = |why: &str| Missing::part(Guard::Landlock, why);
    if abi == 0 {
        return vec![Missing::whole(
            Guard::Landlock,
            "the kernel has no landlock; files are held by the mount namespace alone",
        )];
    }
    let mut list = Vec::new();
    if abi < 3 {
        list.push(lack("truncation is not refused before landlock abi 3 (linux 6.2)"));
    }
    if abi < 4 && !landlock.tcp {
        list.push(lack(
            "tcp is not refused before landlock abi 4 (linux 6.7); the network namespace holds it",
        ));
    }
    if abi < 6 && !landlock.outside {
        list.push(lack("abstract sockets and signals are not scoped before landlock abi 6 (linux 6.12)"));
    }
    list
}

/// Restricts this thread for good. Paths are looked up now; one that is not there allows nothing. The image lies
/// outside of the sandbox and may be read and executed all the same.
pub(crate) fn restrict(
    landlock: &Landlock,
    rules: &[PathRule],
    image: BorrowedFd<'_>,
    abi: u32,
) -> io::Result<()> {
    let abi = abi.min(ABI_MAX);
    let attributes = RulesetAttributes {
        handled_files: handled(abi),
        handled_net: if abi >= TCP_ABI && !landlock.tcp { TCP_BIND_CONNECT } else { 0 },
        scoped: if abi >= 6 && !landlock.outside { SCOPE_ABSTRACT_SIGNAL } else { 0 },
    };
    let known_bytes = match abi {
        0 => return Ok(()),
        1..=3 => 8,
        4..=5 => 16,
        _ => 24,
    };
    let ruleset = sys::landlock_create(&attributes, known_bytes)?;
    for PathRule { path, access } in rules {
        let parent: OwnedFd = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => continue,
            Err(error) => return Err(error.into()),
        };
        let kind = rustix::fs::fstat(&parent)?.st_mode & libc::S_IFMT;
        let mut rights = allowed(*access) & attributes.handled_files;
        if kind != libc::S_IFDIR {
            rights &= OF_FILES;
        }
        if rights != 0 {
            sys::landlock_allow(ruleset.as_fd(), parent.as_fd(), rights)?;
        }
    }
    match sys::landlock_allow(ruleset.as_fd(), image, EXECUTE | READ_FILE) {
        // A memfd has no place in any tree; Landlock leaves such files alone.
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {}
        result => result?,
    }
    sys::landlock_restrict(ruleset.as_fd())
}

/// Takes `connect` and `bind` of TCP from this thread for good, and nothing else: signals and files stay what the domain says in
/// which it is already.
pub(crate) fn refuse_tcp(abi: u32) -> io::Result<()> {
    if abi < TCP_ABI {
        return Ok(());
    }
    let attributes = RulesetAttributes { handled_files: 0, handled_net: TCP_BIND_CONNECT, scoped: 0 };
    let ruleset = sys::landlock_create(&attributes, 16)?;
    sys::landlock_restrict(ruleset.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_abi_handles_what_it_knows_and_the_rest_is_reported() {
        assert_eq!(handled(1), 0x1fff);
        assert_eq!(handled(2), 0x3fff);
        assert_eq!(handled(3), 0x7fff);
        assert_eq!(handled(5), 0xffff);
        let plan = Landlock::default();
        let counts: Vec<usize> = (0..=6).map(|abi| missing(&plan, abi).len()).collect();
        assert_eq!(counts, [1, 3, 3, 2, 1, 1, 0]);
    }
}
