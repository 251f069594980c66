//! What a process is started as: its sandbox, what it sees, what it inherits.
//!
//! Here is what all have in common; `service` is the node's own services, `boundary` the key boundary, `program` the
//! ordinary programs of the user, with `account` (who it is), `folders`, `secrets` and `environment`. `limits` is what a manifest
//! limits, `slots` the order of descriptors.

mod account;
mod boundary;
mod credentials;
mod environment;
mod folders;
mod host_file;
mod image;
mod limits;
mod program;
mod secrets;
mod service;
mod slots;
mod watched;

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use base::{Hash, layout::Layout};
use sandbox::{Features, Identity, Mount, Plan};
use thiserror::Error;

use super::{
    ownership::{self, INSIDE_UID},
    sockets::{self, Socket},
};
use crate::{
    core::elf::{self, ElfFault},
    manifest::ServiceManifest,
    sealing::{SEAL_KEY_FILE, SEALED_SEED_FILE},
    signing::SEALED_KEY_FILE,
};

pub(super) use account::ids_of;
pub(super) use boundary::boundary_pair;
pub(super) use credentials::CredentialFault;
pub(super) use environment::identify;
pub(super) use folders::{find_way, make_way};
pub(super) use program::{ProgramFault, place_of_check};
pub(super) use watched::give as give_control;

/// A service's log is put aside above this, at its next start or while it runs (`logs.rs`); with the one put aside that is
/// 16 MiB a service.
pub(in crate::shell) const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What is sealed, and the local key that opens it: never for the service that owns the folder.
const HIDDEN_FILES: [&str; 3] = [SEAL_KEY_FILE, SEALED_SEED_FILE, SEALED_KEY_FILE];

#[derive(Debug, Error)]
pub(super) enum PlanFault {
    #[error("cannot make or open {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot make the socket between keys and its boundary: {0}")]
    Pair(io::Error),
    #[error("a descriptor cannot be duplicated: {0}")]
    Duplicate(io::Error),
    #[error("cannot make the socket on which the host's interfaces are heard of: {0}")]
    Netlink(io::Error),
    #[error("the image is no service binary: {0}")]
    Image(#[from] ElfFault),
}

/// The running program: opened once, hashed once, so that what was hashed is what runs.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) file: File,
    pub(super) hash: Hash,
}

impl Image {
    pub(super) fn running() -> io::Result<Self> {
        let file = File::open("/proc/self/exe")?;
        let hash = Hash::of_reader(&file)?;
        Ok(Self { file, hash })
    }

    /// SUP-73: every service of the node itself runs from this image.
    fn check(&self) -> Result<(), ElfFault> {
        elf::check(|offset, buffer| self.file.read_exact_at(buffer, offset))
    }
}

/// What every plan is made from.
#[derive(Debug)]
pub(super) struct House {
    pub(super) layout: Layout,
    pub(super) features: Features,
    pub(super) image: Image,
    /// Defences that `prove` may switch off; passed on to services.
    pub(super) allow_break: Vec<String>,
    pub(super) own_uid: u32,
}

/// A launch as the keeper takes it.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) plan: Plan,
    /// Names of descriptors that the keeper holds: the first slots.
    pub(super) stored: Vec<String>,
    pub(super) fds: Vec<OwnedFd>,
}

impl House {
    /// Services have host ids of their own only if there is a right to give them.
    #[must_use]
    pub(super) fn uid_of(&self, service: &str) -> Option<u32> {
        self.features.privileged.then(|| ownership::host_uid(service))
    }

    /// What no program sees, whatever it is granted.
    pub(super) fn hidden(&self) -> [String; 3] {
        [&self.layout.state, &self.layout.run, &self.layout.config]
            .map(|path| path.to_string_lossy().into_owned())
    }

    pub(super) fn identity_of(&self, service: &str) -> Identity {
        let host = self.uid_of(service);
        Identity { uid: INSIDE_UID, gid: INSIDE_UID, host_uid: host, host_gid: host }
    }

    /// Makes a service's folder, its owner's alone.
    pub(super) fn prepare_folder(&self, name: &str, owner: Option<(u32, u32)>) -> Result<(), PlanFault> {
        let folder = self.layout.service_state(name);
        let alone = || std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700));
        let made = sockets::make_folder(&folder).and_then(|()| alone()).and_then(|()| match owner {
            Some((uid, _)) => ownership::give_tree(&folder, uid, &HIDDEN_FILES),
            None => Ok(()),
        });
        made.map_err(|source| PlanFault::File { path: folder, source })
    }

    pub(super) fn own_mounts(&self, manifest: &ServiceManifest, all: &[Socket]) -> Vec<Mount> {
        let name = manifest.service.name.as_str();
        let mut mounts = vec![bind(&self.layout.service_state(name), kit::env::STATE_FOLDER, true)];
        if manifest.sandbox.tmp_mb > 0 {
            let size_bytes_max = u64::from(manifest.sandbox.tmp_mb) * 1024 * 1024;
            mounts.push(Mount::Tmpfs { target: "/tmp".to_owned(), size_bytes_max, mode: 0o700 });
        }
        for socket in all.iter().filter(|socket| socket.client.as_deref() == Some(name)) {
            if let Some(inside) = socket.inside() {
                mounts.push(bind(&socket.path, &inside, false));
            }
        }
        mounts
    }

    pub(super) fn image_fd(&self) -> Result<OwnedFd, PlanFault> {
        self.image.file.try_clone().map(Into::into).map_err(PlanFault::Duplicate)
    }

    /// Where a service's standard error goes; a full log is put aside first.
    pub(super) fn open_log(&self, name: &str) -> Result<OwnedFd, PlanFault> {
        let path = self.layout.service_log(name);
        open_log(&path).map_err(|source| PlanFault::File { path, source })
    }
}

fn open_log(path: &Path) -> io::Result<OwnedFd> {
    if let Some(folder) = path.parent() {
        sockets::make_folder(folder)?;
    }
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    Ok(OpenOptions::new().create(true).append(true).mode(0o600).open(path)?.into())
}

pub(super) fn open(path: &Path) -> Result<OwnedFd, PlanFault> {
    match File::open(path) {
        Ok(file) => Ok(file.into()),
        Err(source) => Err(PlanFault::File { path: path.to_owned(), source }),
    }
}

pub(super) fn bind(source: &Path, target: &str, writable: bool) -> Mount {
    Mount::Bind {
        source: source.to_string_lossy().into_owned(),
        target: target.to_owned(),
        writable,
        optional: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn house(root: &Path, privileged: bool) -> House {
        House {
            layout: Layout::under(root).unwrap(),
            features: Features { privileged, user_namespaces: true, ..Features::default() },
            // This test is built as the product is.
            image: Image { file: File::open("/proc/self/exe").unwrap(), hash: Hash::ZERO },
            allow_break: vec!["landlock".to_owned()],
            own_uid: 7,
        }
    }

    pub(super) fn shipped(name: &str) -> ServiceManifest {
        let of = |(file, text): &(&str, &str)| crate::manifest::parse(file, text).unwrap().manifest;
        crate::manifest::shipped::ALL.iter().map(of).find(|manifest| manifest.service.name == name).unwrap()
    }

    pub(super) fn all_sockets(layout: &Layout) -> Vec<Socket> {
        let all = crate::manifest::shipped::ALL
            .map(|(file, text)| crate::manifest::parse(file, text).unwrap().manifest);
        sockets::of_node(layout, &all)
    }

    pub(super) fn variable<'a>(plan: &'a Plan, name: &str) -> &'a str {
        plan.environment.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    #[test]
    fn a_log_is_put_aside_above_its_limit() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("logs/a.log");
        drop(open_log(&path).unwrap());
        File::options().write(true).open(&path).unwrap().set_len(LOG_BYTES_MAX).unwrap();
        drop(open_log(&path).unwrap());
        assert!(!root.path().join("logs/a.log.1").exists());
        File::options().write(true).open(&path).unwrap().set_len(LOG_BYTES_MAX + 1).unwrap();
        drop(open_log(&path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        assert!(root.path().join("logs/a.log.1").exists());
    }
}
