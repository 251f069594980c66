//! The seals of a node that is there move to another secret: written beside the old ones, opened once, then all switched
//! by one file.
//!
//! Promises: at every moment, a power cut included, either all old seals open or all new ones do, by what stands in the
//! state folder once [`settle`] has run. Never does: see the seed, choose a secret. Calls the disk. The node is not up
//! meanwhile: whoever calls holds its lock.
//!
//! ```text
//! NAME.next         beside each file that changes: the sealed seed, sealed signing keys, seal.key or seal.tpm
//! keys/reseal       the switch; its lines name the files that are wiped afterwards
//! ```
//!
//! Before the switch is durable, `settle` removes what was written beside; afterwards it carries the switch out.

use base::PublicKey;
use chain::payload::service::Genesis;
use durable::{Disk, DiskError, read_small, replace, wipe};
use seal::{SEALED_BYTES, SecretKind, Signer};

use crate::{
    sealing::{FOLDER, SEALED_SEED_FILE, STAGED, Secret, Secrets, secret_file},
    signing::{self, SecretKey, SigningFault, pinned, sealed_name},
};

/// The switch, in the folder of `keys`.
const SWITCH: &str = "keys/reseal";
const FIRST_LINE: &str = "bailiwick reseal v1";
/// It names at most the two files of secrets.
const SWITCH_BYTES_MAX: usize = 256;

/// What [`settle`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing was under way.
    Clean,
    /// Something had been written beside and was never switched to: it is gone, the old seals are in force.
    Discarded,
    /// The new seals are in force.
    Switched,
}

fn in_keys(file: &str) -> String {
    format!("{FOLDER}/{file}")
}

fn staged(name: &str) -> String {
    format!("{name}{STAGED}")
}

/// Files of sealed things, by their names in the state folder.
fn sealed_names() -> impl Iterator<Item = String> {
    let keys = Signer::ALL.into_iter().map(sealed_name);
    std::iter::once(in_keys(SEALED_SEED_FILE)).chain(keys)
}

/// Files that open them.
fn secret_names() -> impl Iterator<Item = String> {
    SecretKind::ALL.into_iter().filter_map(secret_file).map(in_keys)
}

fn exists<D: Disk>(state: &D, name: &str) -> Result<bool, DiskError> {
    match state.open(name) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Removes what an earlier run left, or ends it: at each start of the node, and before anything is sealed anew.
pub fn settle<D: Disk>(state: &D) -> Result<Settled, DiskError> {
    match read_small(state, SWITCH, SWITCH_BYTES_MAX)? {
        Some(switch) => carry_out(state, &switch).map(|()| Settled::Switched),
        None => discard(state),
    }
}

fn discard<D: Disk>(state: &D) -> Result<Settled, DiskError> {
    let mut settled = Settled::Clean;
    for name in secret_names().map(|name| staged(&name)) {
        // Half written, too: it holds as much of a secret.
        for name in [format!("{name}.new"), name] {
            if exists(state, &name)? {
                wipe(state, &name)?;
                settled = Settled::Discarded;
            }
        }
    }
    for name in sealed_names().map(|name| staged(&name)) {
        if exists(state, &name)? {
            state.remove(&name)?;
            state.sync_dir(folder_of(&name))?;
            settled = Settled::Discarded;
        }
    }
    Ok(settled)
}

/// Every step may have been done by a run that was cut off.
fn carry_out<D: Disk>(state: &D, switch: &[u8]) -> Result<(), DiskError> {
    for name in sealed_names() {
        let next = staged(&name);
        if exists(state, &next)? {
            state.rename(&next, &name)?;
            state.sync_dir(folder_of(&name))?;
        }
    }
    for name in secret_names() {
        let next = staged(&name);
        if exists(state, &next)? {
            // Nothing is sealed by the old one any more.
            if exists(state, &name)? {
                wipe(state, &name)?;
            }
            state.rename(&next, &name)?;
            state.sync_dir(folder_of(&name))?;
        }
    }
    let text = String::from_utf8_lossy(switch);
    for name in secret_names().filter(|name| text.lines().skip(1).any(|line| line == name)) {
        if exists(state, &name)? {
            wipe(state, &name)?;
        }
    }
    state.remove(SWITCH)?;
    state.sync_dir(FOLDER)
}

/// Puts down what will open the new seals, if it is kept in a file.
pub fn stage_secret<D: Disk>(state: &D, kind: SecretKind, bytes: &[u8]) -> Result<(), DiskError> {
    match secret_file(kind) {
        Some(file) => replace(state, &staged(&in_keys(file)), &[bytes]),
        None => Ok(()),
    }
}

pub fn stage_seed<D: Disk>(state: &D, sealed: &[u8]) -> Result<(), DiskError> {
    replace(state, &staged(&in_keys(SEALED_SEED_FILE)), &[sealed])
}

/// The sealed seed that is about to take its place, as it was written.
pub fn staged_seed<D: Disk>(state: &D) -> Result<Option<Vec<u8>>, DiskError> {
    read_small(state, &staged(&in_keys(SEALED_SEED_FILE)), SEALED_BYTES)
}

pub fn stage_key<D: Disk>(
    state: &D,
    signer: Signer,
    key: &SecretKey,
    secret: &Secret,
) -> Result<(), SigningFault> {
    signing::seal_into(state, &staged(&sealed_name(signer)), signer, key, secret)
}

/// The same for one that somebody else has sealed.
pub fn stage_sealed_key<D: Disk>(state: &D, signer: Signer, sealed: &[u8]) -> Result<(), DiskError> {
    replace(state, &staged(&sealed_name(signer)), &[sealed])
}

/// Opens a staged key with what will be there at the next start.
pub fn open_staged<D: Disk>(
    state: &D,
    signer: Signer,
    secrets: &Secrets,
    pinned: &PublicKey,
) -> Result<SecretKey, SigningFault> {
    signing::open_named(state, staged(&sealed_name(signer)), signer, secrets, pinned)
}

/// All signing keys, sealed by `next` beside the old ones, and opened once.
pub fn stage_keys<D: Disk>(
    state: &D,
    genesis: &Genesis,
    secrets: &Secrets,
    next: (&Secret, &Secrets),
) -> Result<(), SigningFault> {
    let (secret, next) = next;
    for signer in Signer::ALL {
        let pinned = pinned(genesis, signer);
        stage_key(state, signer, &signing::open(state, signer, secrets, &pinned)?, secret)?;
        open_staged(state, signer, next, &pinned)?;
    }
    Ok(())
}

/// From here on the new seals are in force. `kept` are the kinds of secret that something is still sealed by.
pub fn switch<D: Disk>(state: &D, kept: &[SecretKind]) -> Result<(), DiskError> {
    let wiped = SecretKind::ALL.into_iter().filter(|kind| !kept.contains(kind));
    let lines = wiped.filter_map(secret_file).map(|file| format!("{}\n", in_keys(file)));
    let text: String = std::iter::once(format!("{FIRST_LINE}\n")).chain(lines).collect();
    replace(state, SWITCH, &[text.as_bytes()])?;
    settle(state).map(drop)
}
