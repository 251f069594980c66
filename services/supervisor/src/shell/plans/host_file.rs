//! Files of the host that a manifest names and root reads: never one that the program could have put there.
//!
//! A path is only a name. What counts is what was opened: a regular file (a pipe would make whoever opens it wait), not
//! of the node's own, and in no folder that the program may write, where a link would make root read another's file.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use crate::manifest::ProgramConfig;

/// What a program may be given to read, and what its manifest lets it write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    pub(super) program: &'a ProgramConfig,
    pub(super) hidden: &'a [String],
}

/// Opened without waiting; a regular file.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// The same, within bounds.
pub(super) fn open_within(path: &Path, bounds: Bounds<'_>) -> io::Result<File> {
    let file = open(path)?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    for named in [path, real.as_path()] {
        if bounds.hidden.iter().any(|own| is_below(named, own)) {
            return Err(io::Error::other(format!("{} is the node's own", named.display())));
        }
        let granted =
            bounds.program.fs.iter().filter(|grant| grant.writable).map(|grant| grant.path.as_str());
        let mut written = granted.chain(bounds.program.folders.iter().map(|folder| folder.path.as_str()));
        if let Some(folder) = written.find(|folder| is_below(named, folder)) {
            return Err(io::Error::other(format!(
                "{} lies in {folder}, which the program may write, so it could put any file of the host in its place; \
                 keep it elsewhere",
                named.display()
            )));
        }
    }
    Ok(file)
}

/// By its name, and by where that leads.
pub(super) fn is_below(path: &Path, folder: &str) -> bool {
    let real = std::fs::canonicalize(folder).unwrap_or_else(|_| PathBuf::from(folder));
    path.starts_with(folder) || path.starts_with(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_may_write_or_is_the_nodes_own_is_not_read_for_it() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for folder in ["own", "state", "etc"] {
            std::fs::create_dir(path(folder)).unwrap();
            std::fs::write(path(folder).join("file"), folder).unwrap();
        }
        std::os::unix::fs::symlink(path("state/file"), path("etc/link")).unwrap();
        std::os::unix::fs::symlink(path("own/file"), path("etc/other")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("etc/pipe"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let text = format!("image = \"/x\"\nfs = [\"{}:rw\"]", path("own").display());
        let program: ProgramConfig = toml::from_str(&text).unwrap();
        let hidden = [path("state").to_string_lossy().into_owned()];
        let bounds = Bounds { program: &program, hidden: &hidden };
        assert!(open_within(&path("etc/file"), bounds).is_ok());
        for (name, why) in [
            ("own/file", "may write"),
            ("etc/other", "may write"),
            ("state/file", "node's own"),
            ("etc/link", "node's own"),
            ("etc/pipe", "no regular file"),
            ("etc", "no regular file"),
        ] {
            let error = open_within(&path(name), bounds).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
    }
}
