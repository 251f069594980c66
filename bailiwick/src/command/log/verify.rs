//! `bailiwick log verify`: every byte of a log, against what somebody kept elsewhere.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result};
use base::{AxiomRef, Sequence, limits::ENTRY_HEADER_BYTES};
use chain::{
    Cause, Fault, Placed, Report, SignedHead, VerifyOptions,
    checkpoint::Checkpoint,
    log_edge::LogEdge,
    note::VerifierKey,
    tree::{Edge, TreeHash},
    verify_in_parallel,
};
use serde::Serialize;

use super::threads;
use crate::{
    args::Output,
    command::{checkpoint, log_files::LogFiles},
    exit::{DAMAGED, Failure, USAGE},
    output,
};

/// What the caller knows beside the log.
#[derive(Default)]
pub struct Against<'a> {
    pub head: Option<&'a Path>,
    pub checkpoint: Option<&'a Path>,
    /// The log's key.
    pub key: Option<&'a str>,
    /// Genesis as the node's first `up` wrote it, where it is the node's own log.
    pub genesis: Option<PathBuf>,
}

#[derive(Serialize)]
struct Verified {
    ok: bool,
    segments: u64,
    groups: u64,
    entries: u64,
    /// The first entry that was read; what lies before it is archived.
    first: Sequence,
    head: Option<AxiomRef>,
    /// The head that it was checked against, if one was given.
    checked_against: Option<AxiomRef>,
    /// The checkpoint that it was checked against, if one was given.
    checkpoint: Option<Checkpoint>,
    /// The log's key, and whether it was compared with something that is not in the log's own folder.
    key: String,
    key_pinned: bool,
}

/// What was read once.
struct Read {
    report: Report,
    found: Option<TreeHash>,
    found_archived: Option<TreeHash>,
    other_edge: bool,
}

/// Reads everything, believes nothing; names the first damaged entry, header or padding byte.
pub fn verify(output: Output, folders: &[PathBuf], against: &Against<'_>) -> Result<()> {
    // Where genesis is, or the edge that holds it.
    let named = folders.iter().find(|folder| checkpoint::genesis(folder).is_ok());
    let folder = named.or(folders.first()).context("no folder was named")?;
    let checked_against = against.head.map(|file| signed_head(folder, file)).transpose()?;
    let checkpoint = against.checkpoint.map(|file| signed_checkpoint(folder, file)).transpose()?;
    let kept_size = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
    let open = || {
        let files = LogFiles::of(folders)?;
        is_reached(&files, checked_against, checkpoint.as_ref()).map(|()| files)
    };
    let (files, read) = LogFiles::reading(open, |files| read(files, checked_against, kept_size))?;
    let Read { report, found, found_archived, other_edge } = read.map_err(|fault| files.fault(&fault))?;
    let end = report.last.map_or(0, |last| last.sequence.0.saturating_add(1));
    check_root(checkpoint.as_ref(), found, end)?;
    // What the log signed of itself when segments were archived.
    let archived = files.edge.as_ref().map(LogEdge::checkpoint).transpose()?;
    check_root(archived.as_ref(), found_archived, end)?;
    if other_edge {
        return Err(Failure::new(
            DAMAGED,
            "the archive does not lead to the log's edge: it is of another log",
        )
        .into());
    }
    let key = match files.edge.as_ref().filter(|_| report.first > Sequence(0)) {
        Some(edge) => edge.key()?,
        None => checkpoint::key_of(folder)?,
    };
    let key_pinned = is_pinned(&files, &key, against)?;
    let verified = Verified {
        ok: true,
        segments: report.segments,
        groups: report.groups,
        entries: report.entries,
        first: report.first,
        head: report.last,
        checked_against,
        checkpoint,
        key: key.to_string(),
        key_pinned,
    };
    output::show(output, &verified, || verified.text(&files, archived.as_ref()))
}

impl Verified {
    fn text(&self, files: &LogFiles, archived: Option<&Checkpoint>) -> String {
        let last = self.head.map_or_else(|| "none".to_owned(), |last| last.to_string());
        let mut against = files.note();
        if let Some(archived) = archived {
            against.push_str(&format!("contains the checkpoint of {} entries of its edge\n", archived.size));
        }
        if let Some(head) = self.checked_against {
            against.push_str(&format!("contains the head {head}\n"));
        }
        if let Some(checkpoint) = &self.checkpoint {
            against.push_str(&format!("contains the checkpoint of {} entries\n", checkpoint.size));
        }
        if self.checked_against.is_none() && self.checkpoint.is_none() {
            against.push_str(
                "nothing was given to check against: that nothing was cut off the end is not shown ",
            );
            against.push_str("(--head FILE, --checkpoint FILE)\n");
        }
        // Who reads from genesis on sees the entry that names the key; at an edge there is a file that says so of itself.
        if self.first > Sequence(0) && !self.key_pinned {
            against.push_str(&format!(
                "the key is the one that the log's edge names, and was compared with nothing: whoever made this edge made the log \
                 that follows it. Compare it with what you kept (--key KEY):\n{}\n",
                self.key
            ));
        }
        format!(
            "{}: {} entries in {} groups and {} segments\nlast entry {last}\n{against}",
            output::good("sound"),
            self.entries,
            self.groups,
            self.segments
        )
    }
}

fn read(files: &LogFiles, head: Option<AxiomRef>, kept_size: u64) -> Result<Read, Fault> {
    let options = VerifyOptions { head, ..files.options() };
    let archived = files.edge.as_ref().and_then(|edge| edge.checkpoint().ok());
    let archived_size = archived.map_or(0, |checkpoint| checkpoint.size);
    let mut tree = files.tree();
    let (mut found, mut found_archived) = (None, None);
    let edge_at = files.edge.as_ref().map(|edge| edge.last);
    let other_edge = AtomicBool::new(false);
    let leaf = |placed: &Placed<'_>| {
        let header = &placed.record.header;
        if edge_at.is_some_and(|at| at.sequence == header.sequence && at.hash != placed.hash) {
            other_edge.store(true, Ordering::Relaxed);
        }
        (header.sequence.0 < kept_size.max(archived_size))
            .then(|| TreeHash::leaf_of(&[&header.encode(), placed.record.payload]))
    };
    let mut compare = |tree: &Edge| {
        if tree.size() == kept_size {
            found = Some(tree.root());
        }
        if tree.size() == archived_size {
            found_archived = Some(tree.root());
        }
    };
    compare(&tree);
    let report = verify_in_parallel(files, &options, threads(), leaf, |leaf| {
        if let Some(leaf) = leaf {
            tree.push(leaf, |_, _| {});
            compare(&tree);
        }
    })?;
    Ok(Read { report, found, found_archived, other_edge: other_edge.into_inner() })
}

/// A head or a checkpoint from before the first entry that is here cannot be looked for, whatever the log holds.
fn is_reached(files: &LogFiles, head: Option<AxiomRef>, checkpoint: Option<&Checkpoint>) -> Result<()> {
    let before = |what: String| {
        let text = format!(
            "{what} lies before entry {}, where this log begins: name the archive's folder too\n{}",
            files.first,
            files.note()
        );
        Err(Failure::new(USAGE, text).into())
    };
    if let Some(kept) = checkpoint.filter(|kept| kept.size < files.tree().size()) {
        return before(format!("the checkpoint of {} entries", kept.size));
    }
    let last = files.edge.as_ref().map(|edge| edge.last);
    match head.filter(|head| head.sequence < files.first) {
        Some(head) if Some(head) == last => Ok(()),
        Some(head) if Some(head.sequence) == last.map(|last| last.sequence) => {
            Err(Failure::refused(&Cause::HeadMismatch { head }).into())
        }
        Some(head) => before(format!("the head {head}")),
        None => Ok(()),
    }
}

/// Whether the key is one that the caller or the node itself knows from elsewhere. One that is another ends it.
fn is_pinned(files: &LogFiles, key: &VerifierKey, against: &Against<'_>) -> Result<bool> {
    if let Some(given) = against.key {
        let given: VerifierKey = given.parse()?;
        if given != *key {
            return Err(Failure::refused(&format_args!("the log's key is {key}, not {given}")).into());
        }
        return Ok(true);
    }
    let Some(edge) = files.edge.as_ref().filter(|_| files.first > Sequence(0)) else { return Ok(false) };
    let Some(own) = against.genesis.as_ref().and_then(|file| std::fs::read(file).ok()) else {
        return Ok(false);
    };
    if edge.genesis_bytes().get(ENTRY_HEADER_BYTES..) != Some(own.as_slice()) {
        return Err(Failure::refused(&"the log's edge is not of the log that this node began").into());
    }
    Ok(true)
}

fn signed_checkpoint(folder: &Path, file: &Path) -> Result<Checkpoint> {
    let key = checkpoint::key_of(folder)?;
    let signed = checkpoint::read(file)?;
    let checkpoint = signed
        .verify(&key)
        .with_context(|| format!("{} is not a checkpoint signed by this log's sequencer", file.display()))?;
    Ok(checkpoint.clone())
}

fn check_root(kept: Option<&Checkpoint>, found: Option<TreeHash>, entries: u64) -> Result<(), Failure> {
    let Some(kept) = kept.filter(|kept| found != Some(kept.root)) else { return Ok(()) };
    let text = match found {
        None => format!(
            "the log ends at {entries} entries, its checkpoint has {}: entries are missing",
            kept.size
        ),
        Some(_) => {
            format!("the first {} entries are not those of the checkpoint: history was changed", kept.size)
        }
    };
    Err(Failure::new(DAMAGED, text))
}

/// The entry that a signed head names, checked with the sequencer's key as genesis pins it.
fn signed_head(folder: &Path, file: &Path) -> Result<AxiomRef> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading the signed head {}", file.display()))?;
    let key = checkpoint::genesis(folder)?.0.sequencer_key;
    let head = SignedHead::new(text)?
        .verify(&key)
        .with_context(|| format!("{} is not a head signed by this log's sequencer", file.display()))?;
    Ok(head.head)
}
