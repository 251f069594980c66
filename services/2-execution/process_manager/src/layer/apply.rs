//! Makes one change of a layer on the host: prepared under an unfinished name beside its place, then renamed there.

use std::{collections::HashMap, fs::File, io, os::fd::OwnedFd};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, fchmod, fsetxattr,
        futimens, linkat, mkdirat, mknodat, openat, readlinkat, renameat, symlinkat, unlinkat,
    },
    io::Errno,
};

use super::{Kind, entry, remove, unfinished, walk::Visit};

/// Files with several names that are remembered; more become files of their own.
const LINKED_MAX: usize = 65_536;

pub(super) struct Apply<'a> {
    root: &'a OwnedFd,
    new: Vec<u8>,
    old: Vec<u8>,
    /// Where the first name of a file with several was put, by inode.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl<'a> Apply<'a> {
    pub(super) fn new(root: &'a OwnedFd, mark: u64) -> Self {
        let [new, old] = unfinished(mark).map(String::into_bytes);
        Self { root, new, old, linked: HashMap::new() }
    }

    /// Whole or not at all; what a cut one has left in this folder is removed first.
    pub(super) fn change(&mut self, visit: &mut Visit<'_>) -> io::Result<()> {
        let base =
            visit.base.ok_or_else(|| io::Error::other("the folder that it belongs into is not there"))?;
        remove::one(base, &self.new)?;
        remove::one(base, &self.old)?;
        let Some(above) = visit.above else { return self.remove(base, visit.name) };
        let was_folder = visit.below.as_ref().is_some_and(|below| entry::kind(below) == Kind::Folder);
        match entry::kind(&above) {
            Kind::Folder if was_folder => {
                let folder = entry::open_folder(base, visit.name)?;
                return Ok(fchmod(&folder, mode(&above))?);
            }
            Kind::Folder => {
                mkdirat(base, &self.new, Mode::RWXU)?;
                let (from, to) = (entry::open(visit.upper, visit.name)?, entry::open(base, &self.new)?);
                carry(&from, &to)?;
                fchmod(&to, mode(&above))?;
            }
            Kind::File if self.link(base, visit, &above)? => {}
            Kind::File => self.file(base, visit, &above)?,
            Kind::Symlink => {
                let target = readlinkat(visit.upper, visit.name, Vec::new())?;
                symlinkat(target, base, &self.new)?;
            }
            Kind::Fifo => {
                mknodat(base, &self.new, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
                rustix::fs::chmodat(base, &self.new, mode(&above), AtFlags::empty())?;
            }
            Kind::Device | Kind::Socket => return Err(io::Error::other("it cannot be made")),
        }
        // Only the same kind is replaced by a rename.
        if visit.below.is_some() && was_folder != (entry::kind(&above) == Kind::Folder) {
            self.remove(base, visit.name)?;
        }
        renameat(base, &self.new, base, visit.name)?;
        // Two names of one file: the rename has done nothing and said so to nobody.
        match unlinkat(base, &self.new, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        if entry::kind(&above) == Kind::File && above.st_nlink > 1 && self.linked.len() < LINKED_MAX {
            self.linked.insert((above.st_dev, above.st_ino), visit.path.clone());
        }
        Ok(())
    }

    /// A folder goes whole: under an unfinished name at once, then piece by piece.
    fn remove(&self, base: &OwnedFd, name: &[u8]) -> io::Result<()> {
        match renameat(base, name, base, &self.old) {
            Ok(()) => remove::one(base, &self.old),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A further name of a file that was put already.
    fn link(&self, base: &OwnedFd, visit: &Visit<'_>, above: &Stat) -> io::Result<bool> {
        if above.st_nlink < 2 {
            return Ok(false);
        }
        let Some(first) = self.linked.get(&(above.st_dev, above.st_ino)) else { return Ok(false) };
        let (folder, name) = match first.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (first.get(..at).unwrap_or_default(), first.get(at + 1..).unwrap_or_default()),
            None => (&b"."[..], first.as_slice()),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let folder = sandbox::open_within(self.root, folder, flags, beneath)?;
        // On a file system that knows no second names it becomes a file of its own.
        let _ = visit;
        Ok(linkat(&folder, name, base, &self.new, AtFlags::empty()).is_ok())
    }

    fn file(&self, base: &OwnedFd, visit: &Visit<'_>, above: &Stat) -> io::Result<()> {
        let from = entry::open(visit.upper, visit.name)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = openat(base, &self.new, flags, Mode::RUSR | Mode::WUSR)?;
        let (mut from, mut to) = (File::from(from), File::from(to));
        io::copy(&mut from, &mut to)?;
        let (from, to) = (OwnedFd::from(from), OwnedFd::from(to));
        carry(&from, &to)?;
        fchmod(&to, mode(above))?;
        let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let nanoseconds = |value| i64::try_from(value).unwrap_or(0);
        futimens(
            &to,
            &Timestamps {
                last_access: time(above.st_atime, nanoseconds(above.st_atime_nsec)),
                last_modification: time(above.st_mtime, nanoseconds(above.st_mtime_nsec)),
            },
        )?;
        Ok(rustix::fs::fsync(&to)?)
    }
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(entry::permissions(stat))
}

fn carry(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    for (name, value) in entry::attributes(from)? {
        fsetxattr(to, name.as_slice(), &value, rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}
