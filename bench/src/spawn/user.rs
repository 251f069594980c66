//! As whom something is measured.

use std::{
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use anyhow::{Context, Result};

/// `nobody`: has nothing anywhere.
pub(super) const UNPRIVILEGED_ID: u32 = 65534;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// Whoever runs the bench.
    Own { is_root: bool },
    /// Somebody without privileges, whom root can become.
    Nobody,
}

impl User {
    pub(super) fn own() -> Self {
        Self::Own { is_root: rustix::process::geteuid().is_root() }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Own { is_root: true } => "as root",
            Self::Own { is_root: false } | Self::Nobody => "unprivileged",
        }
    }

    /// Part of a folder's name.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Own { is_root: true } => "r",
            Self::Own { is_root: false } | Self::Nobody => "u",
        }
    }

    pub(super) const fn is_root(self) -> bool {
        matches!(self, Self::Own { is_root: true })
    }

    pub(super) fn uid(self) -> u32 {
        match self {
            Self::Own { .. } => rustix::process::geteuid().as_raw(),
            Self::Nobody => UNPRIVILEGED_ID,
        }
    }

    pub(super) fn gid(self) -> u32 {
        match self {
            Self::Own { .. } => rustix::process::getegid().as_raw(),
            Self::Nobody => UNPRIVILEGED_ID,
        }
    }

    /// Words in front of a command that is to run as this user.
    pub(super) fn becoming(self) -> Vec<String> {
        match self {
            Self::Own { .. } => Vec::new(),
            Self::Nobody => {
                let id = UNPRIVILEGED_ID.to_string();
                ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"].map(str::to_owned).to_vec()
            }
        }
    }

    pub(super) fn own_folder(self, path: &Path) -> Result<()> {
        std::fs::create_dir(path).with_context(|| format!("making {}", path.display()))?;
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(path, mode).context("setting a mode")?;
        match self {
            Self::Own { .. } => Ok(()),
            Self::Nobody => {
                chown(path, Some(UNPRIVILEGED_ID), Some(UNPRIVILEGED_ID)).context("giving a folder away")
            }
        }
    }
}

pub(super) fn open_to_all(folder: &Path) -> Result<()> {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).context("setting a mode")
}
