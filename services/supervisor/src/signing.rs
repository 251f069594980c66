//! The signing keys of sequencer, policy engine, identity service and node: sealed on the disk, unsealed at each start of
//! their service, handed over in a pipe (DESIGN 6).
//!
//! Promises: no signing key lies on the disk in the clear; a service gets its own key and never what opens the seals,
//! which would open the seed too; a key that genesis does not pin is handed to nobody. Never does: keep a key beyond one
//! hand-over; make a key after the first boot. Calls the disk. It is a library: a crash at any step loses no key.

use std::{fs::File, io::Write, os::fd::OwnedFd};

use base::{PublicKey, layout::Layout};
use chain::payload::service::Genesis;
use durable::{Disk, DiskError, RealDisk, read_small, replace, wipe};
use ed25519_dalek::SigningKey;
use rustix::pipe::{PipeFlags, pipe_with};
use seal::{Contents, SEAL_ENTROPY_BYTES, SEALED_BYTES, SEALED_SECRET_BYTES, SealError, SecretKind, Signer};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::sealing::{FOLDER, SEALED_SEED_FILE, Secret, SecretFault, Secrets};

/// In each signer's own folder; covered where the service sees that folder.
pub const SEALED_KEY_FILE: &str = "signing.sealed";
/// Where the key lay in the clear before there was a seal for it.
pub const PLAIN_KEY_FILE: &str = "signing.key";

/// An Ed25519 secret key, wiped when it is dropped.
pub type SecretKey = Zeroizing<[u8; SEALED_SECRET_BYTES]>;

#[derive(Debug, Error)]
pub enum SigningFault {
    #[error("{name} is not there: restore it from a copy of this node, the key cannot be made again")]
    Missing { name: String },
    #[error("{name} does not open: {source}; restore it from a copy of this node")]
    Seal { name: String, source: SealError },
    #[error("{name} has {bytes} bytes, a signing key has {SEALED_SECRET_BYTES}")]
    Length { name: String, bytes: usize },
    #[error(
        "{name} belongs to {found}, genesis pins {pinned}: nothing is signed with it; restore the file from a copy of this node"
    )]
    NotPinned { name: String, found: PublicKey, pinned: PublicKey },
    #[error(transparent)]
    Secret(#[from] SecretFault),
    #[error("what a signing key is to be sealed by cannot be told: {0}")]
    Seed(#[source] SealError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the kernel gives no random numbers")]
    Random(#[source] std::io::Error),
    #[error("cannot make the pipe that a signing key is handed over in")]
    Pipe(#[source] std::io::Error),
}

/// Where a signer keeps its key.
#[must_use]
pub const fn folder(signer: Signer) -> &'static str {
    match signer {
        Signer::Sequencer => "axiom",
        Signer::Policy => "policy",
        Signer::Identity => "identity",
        Signer::Node => "node",
    }
}

/// Whether a service signs by itself, and as whom. The node is no service.
#[must_use]
pub fn signer_of(service: &str) -> Option<Signer> {
    Signer::ALL.into_iter().find(|signer| *signer != Signer::Node && folder(*signer) == service)
}

#[must_use]
pub const fn pinned(genesis: &Genesis, signer: Signer) -> PublicKey {
    match signer {
        Signer::Sequencer => genesis.sequencer_key,
        Signer::Policy => genesis.policy_key,
        Signer::Identity => genesis.identity_key,
        Signer::Node => genesis.node_key,
    }
}

fn name_in_state(signer: Signer, file: &str) -> String {
    format!("{}/{file}", folder(signer))
}

fn public_half(key: &SecretKey) -> PublicKey {
    PublicKey(SigningKey::from_bytes(key).verifying_key().to_bytes())
}

fn check(key: SecretKey, pinned: &PublicKey, name: String) -> Result<SecretKey, SigningFault> {
    match public_half(&key) {
        found if found == *pinned => Ok(key),
        found => Err(SigningFault::NotPinned { name, found, pinned: *pinned }),
    }
}

/// Makes a key, leaves it sealed in its folder, and tells its public half. For a first boot: what was there is replaced.
pub fn create<D: Disk>(state: &D, signer: Signer, secret: &Secret) -> Result<PublicKey, SigningFault> {
    let mut key = SecretKey::default();
    kit::random::fill(&mut key[..]).map_err(SigningFault::Random)?;
    seal_into(state, &sealed_name(signer), signer, &key, secret)?;
    Ok(public_half(&key))
}

/// The sealed key, in the state folder.
pub(crate) fn sealed_name(signer: Signer) -> String {
    name_in_state(signer, SEALED_KEY_FILE)
}

pub(crate) fn seal_into<D: Disk>(
    state: &D,
    name: &str,
    signer: Signer,
    key: &SecretKey,
    secret: &Secret,
) -> Result<(), SigningFault> {
    let mut entropy = [0; SEAL_ENTROPY_BYTES];
    kit::random::fill(&mut entropy).map_err(SigningFault::Random)?;
    let sealed = seal::seal(Contents::SigningKey(signer), key, secret.kind, secret.as_slice(), &entropy);
    let sealed = sealed.map_err(|source| SigningFault::Seal { name: name.to_owned(), source })?;
    Ok(replace(state, name, &[&sealed])?)
}

/// What the signing keys are sealed by.
pub fn sealed_by<D: Disk>(state: &D) -> Result<Vec<SecretKind>, SigningFault> {
    let mut kinds = Vec::new();
    for name in Signer::ALL.map(sealed_name) {
        let sealed = read_small(state, &name, SEALED_BYTES)?;
        let sealed = sealed.ok_or_else(|| SigningFault::Missing { name: name.clone() })?;
        let kind = seal::sealed_by(&sealed).map_err(|source| SigningFault::Seal { name, source })?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

/// Unseals a key, if it is the one that genesis pins.
pub fn open<D: Disk>(
    state: &D,
    signer: Signer,
    secrets: &Secrets,
    pinned: &PublicKey,
) -> Result<SecretKey, SigningFault> {
    open_named(state, sealed_name(signer), signer, secrets, pinned)
}

pub(crate) fn open_named<D: Disk>(
    state: &D,
    name: String,
    signer: Signer,
    secrets: &Secrets,
    pinned: &PublicKey,
) -> Result<SecretKey, SigningFault> {
    let sealed = read_small(state, &name, SEALED_BYTES)?;
    let sealed = sealed.ok_or_else(|| SigningFault::Missing { name: name.clone() })?;
    let refused = |source| SigningFault::Seal { name: name.clone(), source };
    let kind = seal::sealed_by(&sealed).map_err(refused)?;
    let secret = secrets.read(kind)?;
    let mut key = SecretKey::default();
    seal::open(Contents::SigningKey(signer), &sealed, kind, secret.as_slice(), &mut key).map_err(refused)?;
    check(key, pinned, name)
}

/// Seals a key that an earlier build left in the clear, by what the seed is sealed by, then wipes it. True if there was
/// one. Stopped anywhere, it goes on at the next start: the plain key is wiped only once the sealed one is durable and opens.
pub fn seal_plain<D: Disk>(
    state: &D,
    signer: Signer,
    secrets: &Secrets,
    pinned: &PublicKey,
) -> Result<bool, SigningFault> {
    let plain = name_in_state(signer, PLAIN_KEY_FILE);
    let Some(bytes) = read_small(state, &plain, SEALED_BYTES)?.map(Zeroizing::new) else { return Ok(false) };
    let sealed_name = sealed_name(signer);
    if read_small(state, &sealed_name, SEALED_BYTES)?.is_none() {
        let length = || SigningFault::Length { name: plain.clone(), bytes: bytes.len() };
        let key = SecretKey::new(bytes.as_slice().try_into().map_err(|_| length())?);
        let key = check(key, pinned, plain.clone())?;
        let seed = format!("{FOLDER}/{SEALED_SEED_FILE}");
        let sealed_seed = read_small(state, &seed, SEALED_BYTES)?;
        let sealed_seed = sealed_seed.ok_or(SigningFault::Missing { name: seed })?;
        let kind = seal::sealed_by(&sealed_seed).map_err(SigningFault::Seed)?;
        seal_into(state, &sealed_name, signer, &key, &secrets.read(kind)?)?;
    }
    open(state, signer, secrets, pinned)?;
    wipe(state, &plain)?;
    Ok(true)
}

/// The same for every signer, at the supervisor's start. What cannot be sealed stays as it is and is told: its service
/// does not start.
pub fn seal_plain_keys(layout: &Layout, genesis: &Genesis) -> Vec<SigningFault> {
    let state = match RealDisk::open(&layout.state) {
        Ok(state) => state,
        Err(error) => return vec![error.into()],
    };
    let secrets = Secrets::of(layout);
    let mut faults = Vec::new();
    for signer in Signer::ALL {
        match seal_plain(&state, signer, &secrets, &pinned(genesis, signer)) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(signer = signer.name(), "a signing key that lay in the clear is sealed now");
            }
            Err(fault) => faults.push(fault),
        }
    }
    faults
}

/// The key in a pipe with nothing behind it: its service reads it once, and then it is nowhere.
pub fn hand_over(layout: &Layout, genesis: &Genesis, signer: Signer) -> Result<OwnedFd, SigningFault> {
    let state = RealDisk::open(&layout.state)?;
    let key = open(&state, signer, &Secrets::of(layout), &pinned(genesis, signer))?;
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| SigningFault::Pipe(errno.into()))?;
    // 32 bytes fit every pipe, so nobody is waited for.
    File::from(write).write_all(&key[..]).map_err(SigningFault::Pipe)?;
    Ok(read)
}
