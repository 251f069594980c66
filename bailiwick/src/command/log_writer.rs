//! Whether a node has a log open, asked without touching its lock: who tries a lock to see whether it is free may take it from a
//! node that starts at this moment.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use axiom::store::LOCK_FILE;

/// Beside the log's folder lies what its writer locks.
pub fn lock_of(folder: &Path) -> PathBuf {
    folder.parent().unwrap_or(folder).join(LOCK_FILE)
}

/// Whether somebody holds this lock. True where it cannot be told: who asks waits for a writer then.
pub fn is_held(lock: &Path) -> bool {
    let Ok(inode) = fs::metadata(lock).map(|lock| lock.ino()) else { return false };
    fs::read_to_string("/proc/locks").map_or(true, |locks| names(&locks, inode))
}

/// By the inode's number alone: its device is another number here than in `stat` on some file systems (btrfs). Another
/// lock of that number costs a wait, no more.
fn names(locks: &str, inode: u64) -> bool {
    locks.lines().any(|line| {
        // `7: FLOCK  ADVISORY  WRITE 812 fe:01:9381 0 EOF`; one that waits has `->` after its number.
        let mut words = line.split_ascii_whitespace().skip(1);
        let place = (words.next() == Some("FLOCK")).then(|| words.nth(3)).flatten();
        place.and_then(|place| place.rsplit(':').next()?.parse().ok()) == Some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable::{Disk, RealDisk};

    #[test]
    fn who_holds_the_lock_is_seen_and_the_lock_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock_of(&folder.path().join("log"));
        assert_eq!(lock, folder.path().join(LOCK_FILE));
        assert!(!is_held(&lock), "there is none");
        let disk = RealDisk::open(folder.path()).unwrap();
        let held = disk.lock(LOCK_FILE).unwrap();
        assert!(is_held(&lock));
        drop(held);
        assert!(!is_held(&lock), "the file is there and nobody has it");
    }

    #[test]
    fn other_locks_and_those_that_wait_are_none() {
        let line = |rest: &str| names(&format!("1: FLOCK  ADVISORY  WRITE 8 fe:01:41 0 EOF\n{rest}\n"), 42);
        assert!(line("12: FLOCK  ADVISORY  WRITE 812 fe:01:42 0 EOF"));
        for other in [
            "12: POSIX  ADVISORY  WRITE 812 fe:01:42 0 EOF",
            "12: -> FLOCK  ADVISORY  WRITE 812 fe:01:42 0 EOF",
            "12: FLOCK  ADVISORY  WRITE 812 fe:42:43 0 EOF",
            "12: FLOCK",
            "",
        ] {
            assert!(!line(other), "{other}");
        }
    }
}
