//! `bailiwick key reseal`: the seals move to another secret, while the node is stopped.
//!
//! The key boundary runs alone and seals the seed anew; the signing keys are sealed here, as at the first boot. All is
//! written beside what is there, opened once with what the next start will find, and then switched (`supervisor::reseal`).

use std::{
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use base::layout::Layout;
use chain::payload::service::Genesis;
use durable::{RealDisk, read_small};
use sandbox::Features;
use seal::{KEY_FILE_BYTES, SEALED_BYTES, SecretKind};
use serde::Serialize;
use supervisor::{
    reseal,
    sealing::{self, SEAL_CREDENTIAL, SEALED_SEED_FILE, Secret, Secrets},
    signing,
};
use zeroize::Zeroizing;

use super::lock::opener;
use crate::{
    args::{Opens, Output, SealBy},
    exit::{Failure, USAGE},
    lone_boundary::{self, Given},
    node::Node,
    output, passphrase, up,
};

/// A node that is stopped, held so that nobody starts it meanwhile.
pub(super) struct Stopped {
    pub(super) node: Node,
    pub(super) state: RealDisk,
    pub(super) secrets: Secrets,
    pub(super) image: OwnedFd,
    pub(super) features: Features,
    _lock: File,
}

impl Stopped {
    pub(super) fn hold(layout: &Layout, what: &str) -> Result<Self> {
        let node = Node::find(layout.clone())?;
        std::fs::create_dir_all(&layout.run).with_context(|| format!("making {}", layout.run.display()))?;
        let Ok(lock) = up::take_lock(layout) else {
            bail!("{what} needs the node stopped, and it is up; `bailiwick down` stops it");
        };
        up::settle_seals(layout)?;
        Ok(Self {
            node,
            state: RealDisk::open(&layout.state)?,
            secrets: Secrets::of(layout),
            image: File::open("/proc/self/exe").context("opening the running program")?.into(),
            features: Features::detect(),
            _lock: lock,
        })
    }

    /// The sealed seed, and what it is sealed by.
    pub(super) fn sealed_seed(&self) -> Result<(Vec<u8>, SecretKind)> {
        let name = format!("{}/{SEALED_SEED_FILE}", sealing::FOLDER);
        let sealed = read_small(&self.state, &name, SEALED_BYTES)?
            .with_context(|| format!("{name} is not there: restore it from a copy of this node"))?;
        let kind = seal::sealed_by(&sealed).with_context(|| format!("{name} cannot be read"))?;
        Ok((sealed, kind))
    }
}

/// What will open the seals: read from where the next start reads it.
pub(super) struct Next {
    pub(super) kind: SecretKind,
    pub(super) secrets: Secrets,
    /// What is read from no file at the next start.
    typed: Option<Secret>,
}

impl Next {
    /// Puts down beside the seals what is kept there.
    pub(super) fn stage(
        state: &RealDisk,
        secrets: &Secrets,
        by: &SealBy,
        passphrase_file: Option<&Path>,
    ) -> Result<Self> {
        if by.passphrase {
            let typed = Some(passphrase::read_new(passphrase_file)?);
            return Ok(Self { kind: SecretKind::Passphrase, secrets: secrets.clone(), typed });
        }
        let mut key = Zeroizing::new([0; KEY_FILE_BYTES]);
        getrandom::fill(&mut *key).context("the kernel's random source")?;
        let (kind, secrets) = match by {
            SealBy { tpm: Some(device), .. } => {
                // It is opened again from wherever the node is started.
                let device = std::path::absolute(device).context("the path of the TPM")?;
                reseal::stage_secret(state, SecretKind::Tpm2, &sealing::seal_by_tpm(&device, &key)?)?;
                (SecretKind::Tpm2, secrets.clone().staged(SecretKind::Tpm2))
            }
            SealBy { credential: Some(folder), .. } => {
                let folder = credentials(folder.as_deref())?;
                (SecretKind::Credential, secrets.clone().with_credential(&folder))
            }
            _ => {
                reseal::stage_secret(state, SecretKind::KeyFile, &*key)?;
                (SecretKind::KeyFile, secrets.clone().staged(SecretKind::KeyFile))
            }
        };
        Ok(Self { kind, secrets, typed: None })
    }

    pub(super) fn secret(&self) -> Result<Secret> {
        match &self.typed {
            Some(typed) => Ok(Secret::new(typed.kind, typed.as_slice())),
            None => Ok(self.secrets.read(self.kind)?),
        }
    }
}

fn credentials(folder: Option<&Path>) -> Result<PathBuf> {
    let given = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let folder = folder.map(Path::to_owned).or(given).with_context(|| {
        format!("which credential? `--credential DIR` names the folder that holds {SEAL_CREDENTIAL}")
    })?;
    std::path::absolute(&folder).with_context(|| format!("resolving {}", folder.display()))
}

#[derive(Serialize)]
struct Moved {
    from: &'static str,
    to: &'static str,
}

pub fn run(
    layout: &Layout,
    output: Output,
    by: &SealBy,
    now: &Opens,
    new_passphrase: Option<&Path>,
) -> Result<()> {
    if !by.is_given() {
        let what = "what is to open the seals? --tpm PATH, --credential [DIR], --passphrase or --local";
        return Err(Failure::new(USAGE, what).into());
    }
    let stopped = Stopped::hold(layout, "moving the seals")?;
    let moved = moved(&stopped, by, now, new_passphrase).map_err(|error| {
        // What was written beside is of no use to anybody.
        let left = reseal::settle(&stopped.state).err().map(|left| format!("; then: {left}"));
        error.context(format!(
            "the seals were not moved, the old ones are in force{}",
            left.unwrap_or_default()
        ))
    })?;
    reseal::switch(&stopped.state, &moved.kept).context(
        "the seals are being moved and the disk failed; `bailiwick up` settles whether the old or the new are in force",
    )?;
    let moved = Moved { from: moved.from.name(), to: moved.to.name() };
    output::show(output, &moved, || format!("the seals moved from {} to {}\n", moved.from, moved.to))
}

struct Staged {
    from: SecretKind,
    to: SecretKind,
    /// What something is sealed by afterwards.
    kept: Vec<SecretKind>,
}

/// Everything before the switch.
fn moved(stopped: &Stopped, by: &SealBy, now: &Opens, new_passphrase: Option<&Path>) -> Result<Staged> {
    let (sealed, old) = stopped.sealed_seed()?;
    let opener = opener(old, &stopped.secrets, now)?;
    let next = Next::stage(&stopped.state, &stopped.secrets, by, new_passphrase)?;
    let given = Given {
        sealed: Some(lone_boundary::in_pipe(&sealed)?),
        secret: Some((old, opener.in_pipe()?)),
        next: Some((next.kind, next.secret()?.in_pipe()?)),
        words: None,
    };
    let mut boundary = lone_boundary::opened(&stopped.image, &stopped.features, given)?;
    let anew = boundary.seal().context("the key boundary could not seal the seed")?;
    reseal::stage_seed(&stopped.state, &anew)?;
    let genesis = &stopped.node.genesis;
    let mut kept = vec![next.kind];
    match next.kind {
        // Their services start unattended, so they stay as they are (decision 0014).
        SecretKind::Passphrase => kept.extend(signing::sealed_by(&stopped.state)?),
        _ => {
            let secrets = match &now.credential_from {
                Some(folder) => stopped.secrets.clone().with_credential(folder),
                None => stopped.secrets.clone(),
            };
            reseal::stage_keys(&stopped.state, genesis, &secrets, (&next.secret()?, &next.secrets))?;
        }
    }
    seed_opens(stopped, &next)?;
    Ok(Staged { from: old, to: next.kind, kept })
}

/// As the next start opens it, from what was written.
pub(super) fn seed_opens(stopped: &Stopped, next: &Next) -> Result<()> {
    let sealed =
        reseal::staged_seed(&stopped.state)?.context("the seed that was sealed anew is not there")?;
    let given = Given {
        sealed: Some(lone_boundary::in_pipe(&sealed)?),
        secret: Some((next.kind, next.secret()?.in_pipe()?)),
        ..Given::default()
    };
    let mut boundary = lone_boundary::opened(&stopped.image, &stopped.features, given)?;
    check_identities(&mut boundary, &stopped.node.genesis)
}

/// Whether the boundary's seed is that of this node: every key that genesis pins is derived again.
pub(super) fn check_identities(
    boundary: &mut keys::boundary::BoundaryClient,
    genesis: &Genesis,
) -> Result<()> {
    for identity in &genesis.identities {
        let path = &identity.key_path;
        let found = boundary.public_key(path).with_context(|| format!("deriving the key of {path}"))?;
        if found != identity.public_key {
            bail!(
                "this is the seed of another node: {path} has the key {found}, and genesis pins {}",
                identity.public_key
            );
        }
    }
    Ok(())
}
