//! Which log is meant, its key as genesis pins it, and the checkpoint to work with: a file's, the running node's, or the
//! one that the node kept when it started or stopped.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use base::{Hash, Sequence, layout::Layout};
use chain::{
    SegmentReader,
    checkpoint::{Checkpoint, SignedCheckpoint, origin},
    note::{Algorithm, NOTE_BYTES_MAX, VerifierKey},
    payload::{Payload, service::Genesis},
    segment_name,
};

use super::log_files::edge_of;
use crate::{
    args::{LogFrom, Output},
    exit::Failure,
    node::{Node, failed, runtime},
    output,
};

/// A log's folder with a checkpoint that its key signed.
pub struct Signed {
    pub folder: PathBuf,
    /// Where segments of it are archived.
    pub archives: Vec<PathBuf>,
    pub key: VerifierKey,
    pub signed: SignedCheckpoint,
    pub checkpoint: Checkpoint,
}

/// Finds them; nothing is believed but the folder's genesis.
pub fn find(layout: &Layout, from: &LogFrom) -> Result<Signed> {
    let folder = from.log.clone().unwrap_or_else(|| layout.log());
    let key = key_of(&folder)?;
    let signed = match (&from.checkpoint, &from.log) {
        (Some(file), _) => read(file)?,
        (None, Some(_)) => {
            bail!("a log outside the node needs --checkpoint FILE: `bailiwick log checkpoint` printed it")
        }
        (None, None) => current(layout)?,
    };
    let checkpoint = signed
        .verify(&key)
        .map_err(|error| Failure::refused(&format_args!("the checkpoint is not of this log: {error}")))?
        .clone();
    Ok(Signed { folder, archives: from.archive.clone(), key, signed, checkpoint })
}

/// The log's key, from its first entry; the rest of the log is not read.
pub fn key_of(folder: &Path) -> Result<VerifierKey> {
    let (genesis, hash) = genesis(folder)?;
    Ok(VerifierKey::new(origin(&genesis.node_name, &hash), Algorithm::Ed25519, genesis.sequencer_key)?)
}

/// Genesis and its entry hash.
pub fn genesis(folder: &Path) -> Result<(Genesis, Hash)> {
    if let Some(edge) = edge_of(folder)? {
        return Ok(edge.genesis()?);
    }
    let name = segment_name(Sequence(0));
    let path = folder.join(&name);
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let mut found = None;
    let first =
        SegmentReader::open(file, &name, Some(&chain::ChainPoint::GENESIS)).and_then(|mut segment| {
            segment.next_group(|placed| {
                if placed.record.header.sequence == Sequence(0) {
                    found =
                        Payload::decode(0, placed.record.payload).ok().map(|payload| (payload, placed.hash));
                }
            })
        });
    match (found, first) {
        (Some((Payload::Genesis(envelope), hash)), Ok(_)) => Ok((envelope.body, hash)),
        (_, Err(fault)) => Err(Failure::damaged(&fault).into()),
        _ => bail!("{} does not begin with a genesis entry", folder.display()),
    }
}

/// A checkpoint out of a file.
pub fn read(file: &Path) -> Result<SignedCheckpoint> {
    let text = read_text(file, NOTE_BYTES_MAX)?;
    text.parse().with_context(|| format!("{} is not a signed checkpoint", file.display()))
}

/// A text file of bounded size; what has no size that it tells, like a pipe, is bounded too.
pub fn read_text(file: &Path, bytes_max: usize) -> Result<String> {
    let context = || format!("reading {}", file.display());
    let mut bytes = Vec::new();
    let limit = (bytes_max as u64).saturating_add(1);
    File::open(file).and_then(|opened| opened.take(limit).read_to_end(&mut bytes)).with_context(context)?;
    if bytes.len() > bytes_max {
        let what = format!("{} has more than the {bytes_max} bytes of such a file", file.display());
        return Err(Failure::refused(&what).into());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => Err(Failure::refused(&format_args!("{} is no UTF-8 text", file.display())).into()),
    }
}

/// The running node's, or the kept one.
fn current(layout: &Layout) -> Result<SignedCheckpoint> {
    let live = Node::find(layout.clone()).ok().filter(|node| node.admin_socket("axiom").exists());
    if let Some(node) = live {
        match runtime()?.block_on(ask(&node)) {
            Ok(reply) => return Ok(reply.signed.parse()?),
            Err(error) => eprintln!("bailiwick: the node does not answer ({error:#}): taking what it kept"),
        }
    }
    let kept = layout.checkpoint();
    read(&kept).with_context(|| {
        format!(
            "there is no node that answers and no checkpoint in {}; start it with `bailiwick up`, or give --checkpoint FILE",
            kept.display()
        )
    })
}

async fn ask(node: &Node) -> Result<contracts::axiom::v1::Checkpoint> {
    let mut axiom = node.axiom("system.axiom.get_checkpoint")?;
    let request = contracts::axiom::v1::GetCheckpointRequest {};
    Ok(axiom.get_checkpoint(request).await.map_err(failed)?.into_inner())
}

#[derive(serde::Serialize)]
struct Shown {
    origin: String,
    size: u64,
    root: chain::tree::TreeHash,
    key: VerifierKey,
    signed: String,
}

/// `log checkpoint`: the note alone, so that it can be put into a file; its key goes to standard error.
pub fn show(layout: &Layout, output: Output) -> Result<()> {
    let Signed { key, signed, checkpoint, .. } =
        find(layout, &LogFrom { log: None, archive: Vec::new(), checkpoint: None })?;
    if output == Output::Text {
        eprintln!("key {key}");
    }
    let Checkpoint { origin, size, root } = checkpoint;
    let shown = Shown { origin, size, root, key, signed: signed.to_string() };
    output::show(output, &shown, || shown.signed.clone())
}
