//! The outputs of a job: it writes them to a file system of its own, which ends with its namespace. Before that they are
//! copied to where they are taken from.

use std::{
    fs::File,
    io::{self, Seek},
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
}

impl Outputs {
    pub(crate) const fn new(to: OwnedFd, names: Vec<String>) -> Self {
        Self { to, names }
    }

    /// Copies those that are there. What could not be copied, in words.
    pub(crate) fn take(&self) -> Option<String> {
        let from = match out() {
            Ok(from) => from,
            Err(error) => return Some(format!("opening {OUT_FOLDER}: {error}")),
        };
        let untaken = |name: &String| {
            let error = copy(&from, &self.to, name).err()?;
            Some(format!("output {OUT_FOLDER}/{name}: {error}"))
        };
        self.names.iter().find_map(untaken)
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

/// A regular file and no link to one: what the job made itself.
fn copy(from: &OwnedFd, to: &OwnedFd, name: &str) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut source = match openat(from, name, flags, Mode::empty()) {
        Ok(source) => File::from(source),
        // Whether it had to be there is not decided here.
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !source.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let mut copied = File::from(openat(to, name, flags, mode)?);
    source.rewind()?;
    io::copy(&mut source, &mut copied).map(drop)
}
