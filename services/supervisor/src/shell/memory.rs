//! What outlives the supervisor: two sealed memory files in the keeper, each replaced whole. Nothing of it is on a disk.
//! What changes with every step of the machine is one, the manifests of the user's services are the other.
//!
//! The keeper knows its children by number alone; which service a number belongs to stands here, and stands here
//! before the child is launched.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::OwnedFd,
    sync::Arc,
};

use base::{CapabilityId, Hash, IdentityId};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::fd_store::FdStore;
use crate::{
    core::{
        supervisor::{Memory, ServiceSetup},
        timer::Account,
        wall::Wall,
    },
    manifest::parse,
};

/// Under which the keeper holds it.
pub(super) const NAME: &str = "supervisor:memory";
pub(super) const USERS_NAME: &str = "supervisor:users";
/// Bytes: a thousand services and a thousand waiting entries take about two megabytes.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub(super) machine: Memory,
    /// Launch and service.
    pub(super) launches: Vec<(u64, String)>,
    /// Launches whose program is not there yet, with what the host could not give their sandboxes.
    #[serde(default)]
    pub(super) unsettled: BTreeMap<u64, Vec<String>>,
    pub(super) is_recovery: bool,
    /// None before the boot was done.
    pub(super) boot_ms: Option<u64>,
    #[serde(default)]
    pub(super) fd_store: FdStore,
    /// By service, with the manifest's hash.
    #[serde(default)]
    pub(super) timers: BTreeMap<String, (Hash, Account)>,
    #[serde(default)]
    pub(super) wall: Wall,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct UserService {
    pub(super) file: String,
    pub(super) text: String,
    pub(super) identity: IdentityId,
    pub(super) capabilities: Vec<CapabilityId>,
}

/// Services of the user, as they were registered.
#[must_use]
pub(super) fn setups(users: &[UserService], image: Hash) -> Vec<ServiceSetup> {
    let setup = |user: &UserService| {
        let mut manifest = parse(&user.file, &user.text).ok()?;
        manifest.manifest = manifest.manifest.with_running_image(image);
        let (identity, capabilities) = (user.identity, user.capabilities.clone());
        Some(ServiceSetup { manifest: Arc::new(manifest), identity, capabilities })
    };
    users.iter().filter_map(setup).collect()
}

pub(super) fn write(what: &impl Serialize) -> io::Result<OwnedFd> {
    let bytes = serde_json::to_vec(what)?;
    let mut file = File::from(memfd_create("supervisor-memory", MemfdFlags::CLOEXEC)?);
    file.write_all(&bytes)?;
    Ok(file.into())
}

pub(super) fn read<T: DeserializeOwned>(fd: OwnedFd) -> io::Result<T> {
    let mut file = File::from(fd);
    if file.metadata()?.len() > BYTES_MAX {
        return Err(io::Error::other("the memory of the supervisor before is too large"));
    }
    // The descriptor shares its position with the one in the keeper.
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::supervisor::{Monotonic, Supervisor};

    #[test]
    fn what_was_written_is_read_back_and_damage_is_an_error() {
        let machine = Supervisor::new(Vec::new(), [7; 16]).unwrap().memory();
        assert_eq!(machine.booted_at, Monotonic(0));
        let user = UserService {
            file: "mine.toml".to_owned(),
            text: "version = 1\n[service]\nname = \"mine\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n"
                .to_owned(),
            identity: IdentityId([4; 32]),
            capabilities: vec![CapabilityId([5; 16])],
        };
        let launches = vec![(3, "keys".to_owned())];
        let remembered = Remembered {
            machine,
            launches,
            unsettled: BTreeMap::from([(3, vec!["caps".to_owned()])]),
            is_recovery: true,
            boot_ms: Some(5),
            fd_store: FdStore::default(),
            timers: BTreeMap::new(),
            wall: Wall::default(),
        };
        let fd = write(&remembered).unwrap();
        let again = fd.try_clone().unwrap();
        assert_eq!(read::<Remembered>(fd).unwrap(), remembered);
        assert_eq!(read::<Remembered>(again).unwrap(), remembered);
        let users: Vec<UserService> = read(write(&vec![user.clone()]).unwrap()).unwrap();
        assert_eq!(users, [user]);
        let setups = setups(&users, Hash([9; 32]));
        let [setup] = setups.as_slice() else { panic!() };
        assert_eq!((setup.name(), setup.identity), ("mine", IdentityId([4; 32])));
        assert_eq!(setup.manifest.manifest.binary_hash(), Ok(Hash([9; 32])));
        let mut file = File::from(memfd_create("x", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(b"{").unwrap();
        assert!(read::<Remembered>(file.into()).is_err());
    }
}
