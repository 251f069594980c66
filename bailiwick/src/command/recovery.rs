//! `bailiwick recovery`: the root seed as words. The words pass between the boundary and the terminal; this process only
//! hands the terminal over.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use base::layout::Layout;
use durable::{Disk, RealDisk};
use keys::boundary::BoundaryClient;
use rustix::termios::isatty;
use sandbox::Features;
use seal::{KEY_FILE_BYTES, SecretKind, Signer};
use serde::Serialize;
use supervisor::{
    reseal,
    sealing::{self, Secret},
    signing::{self, pinned},
};

use super::{
    lock::opener,
    reseal::{Next, Stopped, check_identities, seed_opens},
};
use crate::{
    args::{Opens, Output, Recovery, SealBy},
    exit::{Failure, USAGE},
    lone_boundary::{self, Given},
    node::Node,
    output, recovery,
    terminal::{self, Silent},
};

pub fn run(layout: &Layout, output: Output, command: Recovery) -> Result<()> {
    match command {
        Recovery::Words { now, force } => words(layout, &now, force),
        Recovery::Test => test(layout, output),
        Recovery::Restore { by } => restore(layout, output, by),
    }
}

/// First the copies that the words need, then the words.
fn words(layout: &Layout, now: &Opens, force: bool) -> Result<()> {
    if !force && !isatty(std::io::stdout()) {
        let what = "the words would go where nobody looks: standard output is no terminal; --force prints them all the same";
        return Err(Failure::new(USAGE, what).into());
    }
    let stopped = Stopped::hold(layout, "printing the words")?;
    let (sealed, kind) = stopped.sealed_seed()?;
    let secret = opener(kind, &stopped.secrets, now)?;
    let next = match signing::sealed_by(&stopped.state)?[..] {
        [by] if by == kind => Secret::new(kind, secret.as_slice()),
        [by] => opener(by, &stopped.secrets, now)?,
        _ => bail!(
            "the signing keys are sealed by more than one secret; `bailiwick key reseal` seals them by one"
        ),
    };
    let given = Given {
        sealed: Some(lone_boundary::in_pipe(&sealed)?),
        secret: Some((kind, secret.in_pipe()?)),
        next: Some((next.kind, next.in_pipe()?)),
        words: Some(std::io::stdout().as_fd().try_clone_to_owned().context("standard output")?),
    };
    let mut boundary = lone_boundary::opened(&stopped.image, &stopped.features, given)?;
    check_identities(&mut boundary, &stopped.node.genesis)?;
    recovery::copy_keys(&stopped.state, &mut boundary, &stopped.node.genesis)?;
    eprintln!(
        "Whoever has these 24 words has every key of this node. Write them down; keep no copy on a machine."
    );
    boundary.write_words().context("the key boundary could not print the words")?;
    eprintln!(
        "They restore the node together with its log and the folder {}; `bailiwick recovery test` shows that they do.",
        layout.state.join(recovery::FOLDER).display()
    );
    Ok(())
}

/// A boundary whose seed comes from the words that somebody types, or that stand on standard input.
fn from_words(image: &OwnedFd, features: &Features, next: &Secret) -> Result<BoundaryClient> {
    let given = Given {
        next: Some((next.kind, next.in_pipe()?)),
        words: Some(std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?),
        ..Given::default()
    };
    let mut boundary = lone_boundary::start(image, features, given)?;
    let silent = match terminal::types() {
        true => {
            eprintln!("The 24 words, in one line or in several; they are not shown:");
            Some(Silent::enter()?)
        }
        false => None,
    };
    let read = boundary.read_words();
    drop(silent);
    read.context("the words are of no use")?;
    Ok(boundary)
}

#[derive(Serialize)]
struct Tested {
    /// Keys that the words derive, as genesis pins them.
    identities: usize,
    /// Copies that they open, as genesis pins them.
    signing_keys: usize,
}

fn test(layout: &Layout, output: Output) -> Result<()> {
    let node = Node::find(layout.clone())?;
    let state = RealDisk::open(&layout.state)?;
    let image = std::fs::File::open("/proc/self/exe").context("opening the running program")?.into();
    // What the copies are sealed by in passing; it is forgotten.
    let mut passing = zeroize::Zeroizing::new([0; KEY_FILE_BYTES]);
    getrandom::fill(&mut *passing).context("the kernel's random source")?;
    let next = Secret::new(SecretKind::KeyFile, &*passing);
    let mut boundary = from_words(&image, &Features::detect(), &next)?;
    check_identities(&mut boundary, &node.genesis)?;
    for signer in Signer::ALL {
        recovery::restored(&state, &mut boundary, &node.genesis, signer)?;
    }
    let tested = Tested { identities: node.genesis.identities.len(), signing_keys: Signer::ALL.len() };
    output::show(output, &tested, || {
        format!(
            "these words restore this node: {} derived keys and {} signing keys are those of genesis\n",
            tested.identities, tested.signing_keys
        )
    })
}

#[derive(Serialize)]
struct Restored {
    sealed_by: &'static str,
}

fn restore(layout: &Layout, output: Output, mut by: SealBy) -> Result<()> {
    if by.passphrase {
        let what = "signing keys are not sealed by a passphrase: restore with --local, --tpm or --credential, \
                    then `bailiwick key reseal --passphrase`";
        return Err(Failure::new(USAGE, what).into());
    }
    if !by.is_given() {
        // As for a new node.
        let credential = std::env::var_os("CREDENTIALS_DIRECTORY").is_some();
        (by.credential, by.local) = (credential.then_some(None), !credential);
    }
    let stopped = Stopped::hold(layout, "restoring from the words")?;
    for folder in Signer::ALL.map(signing::folder).into_iter().chain([sealing::FOLDER]) {
        stopped.state.create_dir(folder)?;
    }
    stopped.state.sync_dir("")?;
    let kind = staged(&stopped, &by).map_err(|error| {
        let left = reseal::settle(&stopped.state).err().map(|left| format!("; then: {left}"));
        error.context(format!("nothing was restored, everything is as it was{}", left.unwrap_or_default()))
    })?;
    reseal::switch(&stopped.state, &[kind]).context(
        "the seals are being restored and the disk failed; `bailiwick up` settles whether they are in force",
    )?;
    let restored = Restored { sealed_by: kind.name() };
    output::show(output, &restored, || {
        format!(
            "the node is restored, its seals are opened by {}; `bailiwick up` starts it\n",
            restored.sealed_by
        )
    })
}

fn staged(stopped: &Stopped, by: &SealBy) -> Result<SecretKind> {
    let next = Next::stage(&stopped.state, &stopped.secrets, by, None)?;
    let genesis = &stopped.node.genesis;
    let mut boundary = from_words(&stopped.image, &stopped.features, &next.secret()?)?;
    check_identities(&mut boundary, genesis)?;
    let sealed = boundary.seal().context("the key boundary could not seal the seed")?;
    reseal::stage_seed(&stopped.state, &sealed)?;
    for signer in Signer::ALL {
        let sealed = recovery::restored(&stopped.state, &mut boundary, genesis, signer)?;
        reseal::stage_sealed_key(&stopped.state, signer, &sealed)?;
        reseal::open_staged(&stopped.state, signer, &next.secrets, &pinned(genesis, signer))?;
    }
    seed_opens(stopped, &next)?;
    Ok(next.kind)
}
