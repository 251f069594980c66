//! How much a program has written to its copy-on-write folders. No quota of the kernel is to be had on every file
//! system, so the layers are added up from time to time; between two looks a limit of the size of one file holds.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, chmodat, fchmod, openat, statat},
    io::Errno,
};

/// Between two looks, at least.
const LOOK_MS: u64 = 1_000;
/// A look takes at most one part in so many of the time.
const SHARE: u32 = 20;
/// Folders below each other, with a descriptor for each; a deeper tree cannot be added up and counts as too much.
const DEPTH_MAX: usize = 256;
const BLOCK_BYTES: u64 = 512;

pub(crate) struct Disk {
    folder: OwnedFd,
    bytes_max: u64,
    next: Instant,
}

impl Disk {
    pub(crate) fn new(folder: OwnedFd, bytes_max: u64) -> Self {
        Self { folder, bytes_max, next: Instant::now() }
    }

    /// How long nothing has to be looked at.
    pub(crate) fn next_look(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Looks if it is time to.
    pub(crate) fn is_over(&mut self) -> bool {
        let begun = Instant::now();
        if begun < self.next {
            return false;
        }
        let mut used = 0;
        // What goes away meanwhile is what is not there; the next look sees the rest.
        let counted = add(&self.folder, b".", 0, self.bytes_max, &mut used);
        let pause = begun.elapsed().saturating_mul(SHARE).max(Duration::from_millis(LOOK_MS));
        self.next = Instant::now() + pause;
        used > self.bytes_max || counted == Err(Errno::NAMETOOLONG)
    }
}

/// Adds up a folder, until it is more than is allowed.
fn add(parent: &OwnedFd, name: &[u8], depth: usize, bytes_max: u64, used: &mut u64) -> Result<(), Errno> {
    if depth > DEPTH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    let (folder, locked) = open(parent, name)?;
    let result = add_all(&folder, depth, bytes_max, used);
    if let Some(mode) = locked {
        fchmod(&folder, mode)?;
    }
    result
}

fn add_all(folder: &OwnedFd, depth: usize, bytes_max: u64, used: &mut u64) -> Result<(), Errno> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        // A name costs something too, also one of an empty file.
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0).max(1);
        *used = used.saturating_add(blocks.saturating_mul(BLOCK_BYTES));
        if *used > bytes_max {
            return Ok(());
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            && add(folder, name, depth + 1, bytes_max, used) == Err(Errno::NAMETOOLONG)
        {
            return Err(Errno::NAMETOOLONG);
        }
    }
    Ok(())
}

/// A folder that its program has locked is opened all the same, for it belongs to the same user; whoever gets the mode
/// gives it back. The program sees the kernel's copy of the mode, not this one.
fn open(parent: &OwnedFd, name: &[u8]) -> Result<(OwnedFd, Option<Mode>), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(parent, name, flags, Mode::empty());
    let mode = Mode::from_raw_mode(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode & 0o7777);
    let needed = Mode::RUSR | Mode::XUSR;
    if mode.contains(needed) {
        return Ok((open()?, None));
    }
    chmodat(parent, name, mode | needed, AtFlags::empty())?;
    Ok((open()?, Some(mode)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(folder: &std::path::Path, bytes_max: u64) -> bool {
        Disk::new(std::fs::File::open(folder).unwrap().into(), bytes_max).is_over()
    }

    #[test]
    fn all_that_lies_in_it_is_added_up_also_in_folders_and_behind_locks() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("file"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("link")).unwrap();
        assert!(!over(folder.path(), 2 << 20));
        assert!(over(folder.path(), (1 << 20) - 1));
        std::fs::set_permissions(&deep, std::fs::Permissions::from_mode(0o0)).unwrap();
        assert!(over(folder.path(), (1 << 20) - 1));
        assert_eq!(std::fs::metadata(&deep).unwrap().permissions().mode() & 0o7777, 0, "locked as before");
    }

    #[test]
    fn a_tree_too_deep_to_be_added_up_counts_as_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let make = |depth: usize| std::fs::create_dir_all(folder.path().join("d/".repeat(depth))).unwrap();
        make(DEPTH_MAX);
        assert!(!over(folder.path(), u64::MAX));
        make(DEPTH_MAX + 1);
        assert!(over(folder.path(), u64::MAX));
    }

    #[test]
    fn it_is_looked_at_from_time_to_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::new(std::fs::File::open(folder.path()).unwrap().into(), 0);
        assert_eq!(disk.next_look(), Duration::ZERO);
        assert!(!disk.is_over());
        std::fs::write(folder.path().join("file"), "x").unwrap();
        assert!(!disk.is_over() && disk.next_look() > Duration::ZERO, "not yet");
    }
}
