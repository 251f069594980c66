//! The agent's socket: the operator's alone, and gone when the agent is.

use std::{
    io::ErrorKind,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::{fs::Mode, process::umask};

/// Removes the file when dropped.
pub(super) struct SocketFile {
    path: PathBuf,
    kept: bool,
}

impl SocketFile {
    /// Listens there, with mode 0600 from the first moment. A socket that nobody listens on any more is replaced.
    pub(super) fn bind(path: PathBuf) -> Result<(Self, UnixListener)> {
        if UnixStream::connect(&path).is_ok() {
            bail!("an agent listens on {} already; `--socket` names another place", path.display());
        }
        match std::fs::symlink_metadata(&path) {
            Ok(there) if std::os::unix::fs::FileTypeExt::is_socket(&there.file_type()) => {
                let removed = std::fs::remove_file(&path);
                removed.with_context(|| format!("removing the old socket {}", path.display()))?;
            }
            Ok(_) => bail!("{} is there and is no socket", path.display()),
            Err(_) => {}
        }
        let old = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let bound = UnixListener::bind(&path);
        umask(old);
        let listener = bound.map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => {
                anyhow::anyhow!("{} is too long for the path of a socket", path.display())
            }
            _ => anyhow::Error::new(error).context(format!("listening on {}", path.display())),
        })?;
        Ok((Self { path, kept: false }, listener))
    }

    /// The socket that whoever started this process has bound: standard input.
    pub(super) fn inherited(path: PathBuf) -> Result<(Self, UnixListener)> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().context("taking standard input")?;
        let listens = rustix::net::sockopt::socket_acceptconn(&socket);
        if !listens.context("standard input is no socket")? {
            bail!("standard input is no socket that listens");
        }
        Ok((Self { path, kept: false }, socket.into()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the file to somebody else.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_socket_is_its_owners_alone_replaces_a_dead_one_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        drop(UnixListener::bind(&path).unwrap());
        let (socket, listener) = SocketFile::bind(path.clone()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(SocketFile::bind(path.clone()).is_err(), "somebody listens");
        assert!(path.exists(), "and is left alone");
        drop((socket, listener));
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        assert!(SocketFile::bind(path.clone()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    }
}
