//! Copies of the signing keys under the root seed: with them, recovery words bring back everything that a node signs with.

use anyhow::{Context, Result, bail};
use chain::payload::service::Genesis;
use durable::{Disk, RealDisk, read_small, replace};
use keys::boundary::BoundaryClient;
use seal::{SEALED_BYTES, Signer};
use supervisor::signing::{self, SEALED_KEY_FILE, pinned};

/// In the state folder, seen by no service.
pub const FOLDER: &str = "recovery";

fn name(signer: Signer) -> String {
    format!("{FOLDER}/{}.sealed", signer.name())
}

/// Writes those that are not there. The boundary has the seed, and as its next secret what opens the signing keys.
pub fn copy_keys(state: &RealDisk, boundary: &mut BoundaryClient, genesis: &Genesis) -> Result<()> {
    state.create_dir(FOLDER)?;
    state.sync_dir("")?;
    for signer in Signer::ALL {
        if copy(state, signer)?.is_some() {
            continue;
        }
        let sealed_name = format!("{}/{SEALED_KEY_FILE}", signing::folder(signer));
        let sealed = read_small(state, &sealed_name, SEALED_BYTES)?
            .with_context(|| format!("{sealed_name} is not there: restore it from a copy of this node"))?;
        let (copy, found) =
            boundary.copy(signer, &sealed).with_context(|| format!("copying {sealed_name} for recovery"))?;
        check(signer, found, genesis)?;
        replace(state, &name(signer), &[&copy])?;
    }
    Ok(())
}

pub fn copy(state: &RealDisk, signer: Signer) -> Result<Option<Vec<u8>>> {
    Ok(read_small(state, &name(signer), SEALED_BYTES)?)
}

/// The copy of a signing key, sealed by the boundary's next secret; it is the one that genesis pins.
pub fn restored(
    state: &RealDisk,
    boundary: &mut BoundaryClient,
    genesis: &Genesis,
    signer: Signer,
) -> Result<Vec<u8>> {
    let name = name(signer);
    let copy = copy(state, signer)?.with_context(|| {
        format!(
            "{name} is not there: words alone bring back the seed, and not the signing key of {}; \
             `recovery words` makes the copies while the node is whole, and a backup must hold them",
            signer.name()
        )
    })?;
    let (sealed, found) = boundary.restore(signer, &copy).with_context(|| format!("opening {name}"))?;
    check(signer, found, genesis)?;
    Ok(sealed)
}

fn check(signer: Signer, found: base::PublicKey, genesis: &Genesis) -> Result<()> {
    let pinned = pinned(genesis, signer);
    if found != pinned {
        bail!("the signing key of {} is {found}, and genesis pins {pinned}", signer.name());
    }
    Ok(())
}
