//! The outputs of a job: it writes them to a file system of its own, which ends with its namespace. Before that they are
//! copied to where they are taken from.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

use rustix::{
    fs::{CWD, Mode, OFlags, fstatvfs, openat},
    io::Errno,
};

use crate::core::OUT_FOLDER;

#[derive(Debug)]
pub(crate) struct Outputs {
    to: OwnedFd,
    names: Vec<String>,
    /// Of all together.
    bytes_max: u64,
}

/// Why outputs were not taken.
#[derive(Debug)]
pub(crate) enum Untaken {
    /// Together they are larger than they may be.
    OverLimit,
    /// In words.
    Failed(String),
}

impl Outputs {
    pub(crate) const fn new(to: OwnedFd, names: Vec<String>, bytes_max: u64) -> Self {
        Self { to, names, bytes_max }
    }

    /// Copies those that are there.
    pub(crate) fn take(&self) -> Result<(), Untaken> {
        let from = out().map_err(|error| Untaken::Failed(format!("opening {OUT_FOLDER}: {error}")))?;
        self.take_from(&from)
    }

    /// The sizes count, before the first byte is copied: many names of one file, and files full of holes, are small where they
    /// lie and large where they are copied to.
    fn take_from(&self, from: &OwnedFd) -> Result<(), Untaken> {
        let failed =
            |name: &str, error: io::Error| Untaken::Failed(format!("output {OUT_FOLDER}/{name}: {error}"));
        let mut left = self.bytes_max;
        let mut found = Vec::new();
        for name in &self.names {
            let Some((source, size)) = open(from, name).map_err(|error| failed(name, error))? else {
                continue;
            };
            left = left.checked_sub(size).ok_or(Untaken::OverLimit)?;
            found.push((name, source, size));
        }
        for (name, source, size) in found {
            copy(source.take(size), &self.to, name).map_err(|error| failed(name, error))?;
        }
        Ok(())
    }
}

fn out() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, OUT_FOLDER, flags, Mode::empty())?)
}

/// Whether nothing more can be written there.
pub(crate) fn is_full() -> bool {
    out().and_then(|out| Ok(fstatvfs(&out)?)).is_ok_and(|stat| stat.f_bavail == 0)
}

/// A regular file and no link to one, with its size: what the job made itself. None where there is nothing; whether it had to
/// be there is not decided here.
fn open(from: &OwnedFd, name: &str) -> io::Result<Option<(File, u64)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = match openat(from, name, flags, Mode::empty()) {
        Ok(source) => File::from(source),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = source.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(Some((source, metadata.len())))
}

fn copy(mut source: impl Read, to: &OwnedFd, name: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let mut copied = File::from(openat(to, name, flags, mode)?);
    io::copy(&mut source, &mut copied).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    fn take(from: &Path, to: &Path, names: &[&str], bytes_max: u64) -> Result<(), Untaken> {
        let folder = |path: &Path| OwnedFd::from(File::open(path).unwrap());
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Outputs::new(folder(to), names, bytes_max).take_from(&folder(from))
    }

    #[test]
    fn outputs_count_together_whatever_they_take_where_they_lie() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (from.path(), to.path());
        fs::write(from.join("one"), "12345").unwrap();
        fs::hard_link(from.join("one"), from.join("two")).unwrap();
        File::create(from.join("holes")).unwrap().set_len(8).unwrap();
        let is_empty = || fs::read_dir(to).unwrap().count() == 0;
        for (names, bytes_max) in [(&["one", "two"][..], 9), (&["holes"], 7), (&["one", "holes"], 12)] {
            assert!(matches!(take(from, to, names, bytes_max), Err(Untaken::OverLimit)), "{names:?}");
            assert!(is_empty(), "{names:?}");
        }
        take(from, to, &["one", "absent", "two", "holes"], 18).unwrap();
        assert_eq!(fs::read(to.join("two")).unwrap(), b"12345");
        assert_eq!(fs::read(to.join("holes")).unwrap(), [0; 8]);
        fs::create_dir(from.join("folder")).unwrap();
        assert!(matches!(take(from, to, &["folder"], 9), Err(Untaken::Failed(_))));
    }
}
