//! How much a program has written to its copy-on-write folders. No quota of the kernel is to be had on every file
//! system, so the layers are added up from time to time; between two looks a limit of the size of one file holds.
//!
//! A look does a bounded part of the work; the next one goes on where it stopped. What cannot be added up counts as too
//! much. A file that was removed and is still open is added too, where its process lets itself be looked at (one that
//! forbids that, or has only mapped the file, hides it).

use std::{
    collections::BTreeSet,
    fs,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, fchmod, fstat, openat, statat},
    io::Errno,
};

/// Between two looks, at least.
const LOOK_MS: u64 = 1_000;
/// A look takes at most one part in so many of the time.
const SHARE: u32 = 20;
/// Names in one look: some 50 ms, in which nothing else of the program is served.
const ENTRIES_PER_LOOK: usize = 32_768;
/// Folders below each other, with a descriptor for each; a deeper tree cannot be added up and counts as too much.
const DEPTH_MAX: usize = 256;
const BLOCK_BYTES: u64 = 512;
/// `f_type` of what shows a layer.
const OVERLAY: i64 = 0x794c_7630;

pub(crate) struct Disk {
    folder: OwnedFd,
    bytes_max: u64,
    entries_per_look: usize,
    /// Seconds of the wall clock. What was changed before belongs to the host.
    since: i64,
    next: Instant,
    under_way: Option<Pass>,
}

/// Once over all of it, in several looks where it is large.
struct Pass {
    used: u64,
    stack: Vec<Frame>,
}

struct Frame {
    folder: Dir,
    /// As its program left it, to be given back.
    locked: Option<Mode>,
}

impl Disk {
    pub(crate) fn new(folder: OwnedFd, bytes_max: u64) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            folder,
            bytes_max,
            entries_per_look: ENTRIES_PER_LOOK,
            since: i64::try_from(since).unwrap_or(i64::MAX),
            next: Instant::now(),
            under_way: None,
        }
    }

    /// How long nothing has to be looked at.
    pub(crate) fn next_look(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Looks if it is time to. `processes` are the program's, as this process sees them.
    pub(crate) fn is_over(&mut self, processes: impl FnOnce() -> Vec<i32>) -> bool {
        let begun = Instant::now();
        if begun < self.next {
            return false;
        }
        let is_over = self.look(processes).unwrap_or(true);
        let pause = begun.elapsed().saturating_mul(SHARE).max(Duration::from_millis(LOOK_MS));
        self.next = Instant::now() + pause;
        is_over
    }

    fn look(&mut self, processes: impl FnOnce() -> Vec<i32>) -> Result<bool, Errno> {
        let mut pass = match self.under_way.take() {
            Some(pass) => pass,
            None => {
                let is_ours = |file: &Path| rustix::fs::statfs(file).is_ok_and(|it| it.f_type == OVERLAY);
                let used = removed(&processes(), self.since, is_ours);
                Pass { used, stack: vec![open(self.folder.as_fd(), b".")?] }
            }
        };
        let is_done = pass.go_on(self.bytes_max, self.entries_per_look)?;
        let is_over = pass.used > self.bytes_max;
        if !is_done && !is_over {
            self.under_way = Some(pass);
        }
        Ok(is_over)
    }
}

impl Pass {
    /// True when all was seen, or more than is allowed.
    fn go_on(&mut self, bytes_max: u64, entries_max: usize) -> Result<bool, Errno> {
        self.stack.iter().try_for_each(Frame::unlock)?;
        let result = self.add(bytes_max, entries_max);
        let locked = self.stack.iter().try_for_each(Frame::lock);
        result.and_then(|is_done| locked.map(|()| is_done))
    }

    fn add(&mut self, bytes_max: u64, entries_max: usize) -> Result<bool, Errno> {
        for _ in 0..entries_max {
            let Some(frame) = self.stack.last_mut() else { return Ok(true) };
            let Some(entry) = frame.folder.next() else {
                self.stack.pop().map_or(Ok(()), |frame| frame.lock())?;
                continue;
            };
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let below = match statat(frame.folder.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    // A name costs something too, also one of an empty file.
                    let blocks = u64::try_from(stat.st_blocks).unwrap_or(0).max(1);
                    self.used = self.used.saturating_add(blocks.saturating_mul(BLOCK_BYTES));
                    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                }
                Err(error) if went_away(error) => false,
                Err(error) => return Err(error),
            };
            if self.used > bytes_max {
                return Ok(true);
            }
            if below {
                let opened = match open(frame.folder.fd()?, name) {
                    Err(error) if went_away(error) => continue,
                    opened => opened?,
                };
                // The first one is the layers' own folder.
                if self.stack.len() > DEPTH_MAX {
                    opened.lock()?;
                    return Err(Errno::NAMETOOLONG);
                }
                self.stack.push(opened);
            }
        }
        Ok(self.stack.is_empty())
    }
}

impl Frame {
    fn unlock(&self) -> Result<(), Errno> {
        self.locked.map_or(Ok(()), |mode| fchmod(self.folder.fd()?, mode | NEEDED))
    }

    fn lock(&self) -> Result<(), Errno> {
        self.locked.map_or(Ok(()), |mode| fchmod(self.folder.fd()?, mode))
    }
}

/// To read a folder and to look at what stands in it.
const NEEDED: Mode = Mode::RUSR.union(Mode::XUSR);

/// What goes away meanwhile, or becomes something else, is what is not there; the next look sees the rest.
fn went_away(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

/// A folder that its program has locked is opened all the same, for it belongs to the same user; whoever gets the mode
/// gives it back. The program sees the kernel's copy of the mode, not this one.
///
/// The folder is taken hold of before its mode is looked at and changed: a program that puts a link in its place meanwhile
/// would otherwise have the mode of what the link leads to changed, seen from here.
fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Frame, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
    let mode = Mode::from_raw_mode(fstat(&held)?.st_mode & 0o7777);
    let locked = (!mode.contains(NEEDED)).then_some(mode);
    if locked.is_some() {
        // A handle of a path has no mode to be changed, and its own name in /proc leads to exactly what it holds.
        let itself = format!("/proc/self/fd/{}", held.as_raw_fd());
        chmodat(CWD, itself, mode | NEEDED, AtFlags::empty())?;
    }
    let folder = Dir::new(openat(&held, c".", flags | OFlags::RDONLY, Mode::empty())?)?;
    Ok(Frame { folder, locked })
}

/// Bytes of files that have no name any more and are open in one of the processes, each once.
fn removed(processes: &[i32], since: i64, is_ours: impl Fn(&Path) -> bool) -> u64 {
    let mut seen = BTreeSet::new();
    let descriptors = processes.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok());
    let mut used = 0_u64;
    for entry in descriptors.flatten().flatten() {
        let path = entry.path();
        // The link is followed to the open file itself.
        let Ok(stat) = fs::metadata(&path) else { continue };
        let is_removed = stat.is_file() && stat.nlink() == 0 && stat.ctime() >= since;
        if is_removed && !seen.contains(&(stat.dev(), stat.ino())) && is_ours(&path) {
            seen.insert((stat.dev(), stat.ino()));
            used = used.saturating_add(stat.blocks().saturating_mul(BLOCK_BYTES));
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn disk(folder: &Path, bytes_max: u64) -> Disk {
        Disk::new(fs::File::open(folder).unwrap().into(), bytes_max)
    }

    fn over(folder: &Path, bytes_max: u64) -> bool {
        disk(folder, bytes_max).is_over(Vec::new)
    }

    fn lock(folder: &Path, mode: u32) {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(folder: &Path) -> u32 {
        fs::metadata(folder).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn all_that_lies_in_it_is_added_up_also_in_folders_and_behind_locks() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("link")).unwrap();
        assert!(!over(folder.path(), 2 << 20));
        assert!(over(folder.path(), (1 << 20) - 1));
        lock(&deep, 0);
        assert!(over(folder.path(), (1 << 20) - 1));
        assert_eq!(mode(&deep), 0, "locked as before");
    }

    #[test]
    fn a_tree_too_deep_to_be_added_up_counts_as_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let make = |depth: usize| fs::create_dir_all(folder.path().join("d/".repeat(depth))).unwrap();
        make(DEPTH_MAX);
        assert!(!over(folder.path(), u64::MAX));
        make(DEPTH_MAX + 1);
        assert!(over(folder.path(), u64::MAX));
    }

    #[test]
    fn it_is_looked_at_from_time_to_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = disk(folder.path(), 0);
        assert_eq!(disk.next_look(), Duration::ZERO);
        assert!(!disk.is_over(Vec::new));
        fs::write(folder.path().join("file"), "x").unwrap();
        assert!(!disk.is_over(Vec::new) && disk.next_look() > Duration::ZERO, "not yet");
    }

    #[test]
    fn a_look_is_bounded_and_the_next_goes_on_where_it_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let locked = folder.path().join("locked");
        fs::create_dir(&locked).unwrap();
        // Each counts for a block; with `.` and `..` these are 22 names.
        (0..20).for_each(|number| fs::write(locked.join(number.to_string()), "").unwrap());
        lock(&locked, 0o200);
        let looks = |bytes_max: u64| {
            let mut disk = disk(folder.path(), bytes_max);
            disk.entries_per_look = 5;
            for look in 1.. {
                let is_over = disk.look(Vec::new).unwrap();
                assert_eq!(mode(&locked), 0o200, "locked between looks");
                if is_over || disk.under_way.is_none() {
                    return (look, is_over);
                }
            }
            panic!("a pass does not end")
        };
        let folder_bytes = fs::metadata(&locked).unwrap().blocks().max(1) * BLOCK_BYTES;
        let all = folder_bytes + 20 * BLOCK_BYTES;
        let (count, is_over) = looks(all);
        assert!(!is_over && count >= 5, "at the limit: {count} looks");
        assert!(looks(all - 1).1, "one past it");
    }

    #[test]
    fn what_cannot_be_read_counts_as_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let file = fs::File::create(folder.path().join("file")).unwrap();
        let mut disk = Disk::new(file.into(), u64::MAX);
        assert!(disk.is_over(Vec::new), "no folder at all");
    }

    #[test]
    fn a_file_that_was_removed_counts_once_while_it_is_open() {
        let own = [i32::try_from(std::process::id()).unwrap()];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        let open = [fs::File::open(&path).unwrap(), fs::File::open(&path).unwrap()];
        let stat = open[0].metadata().unwrap();
        let ours = |file: &Path| fs::metadata(file).is_ok_and(|it| it.ino() == stat.ino());
        assert_eq!(removed(&own, 0, ours), 0, "it is added up by its name");
        fs::remove_file(&path).unwrap();
        assert_eq!(removed(&own, 0, ours), stat.blocks() * BLOCK_BYTES);
        assert_eq!(removed(&own, stat.ctime() + 1000, ours), 0, "the host's");
        drop(open);
        assert_eq!(removed(&own, 0, ours), 0);
    }
}
