//! `bailiwick log prove` and `log export`: what a third party checks without this machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, bail};
use base::{Sequence, layout::Layout};
use chain::{
    Placed,
    checkpoint::Checkpoint,
    evidence::{EVIDENCE_BYTES_MAX, EVIDENCE_ENTRIES_MAX, Evidence, Expected, Older},
    note::VerifierKey,
    tlog_proof::TlogProof,
    tree::{
        NodeId, TreeHash, consistency_nodes, consistency_proof, inclusion_nodes, inclusion_proof, set_nodes,
        set_proof,
    },
    verify_in_parallel,
};
use serde::Serialize;

use super::{
    checkpoint::{self, Signed},
    log::threads,
    log_files::LogFiles,
};
use crate::{
    args::{LogFrom, Output},
    exit::Failure,
    output,
};

/// What goes into an evidence file.
pub struct Wanted<'a> {
    pub from: u64,
    pub to: Option<u64>,
    pub witnesses: &'a [String],
    pub since: Option<&'a Path>,
}

/// Leaves and nodes of the log that a proof needs, read with everything before and between them.
struct Read {
    nodes: BTreeMap<NodeId, TreeHash>,
    leaves: Vec<(u64, Vec<u8>)>,
}

/// Reads the whole log, believes nothing, and keeps what is wanted.
fn read(log: &Signed, (from, to): (u64, u64), since: u64, wanted: &BTreeSet<NodeId>) -> Result<Read> {
    let Checkpoint { size, root, .. } = log.checkpoint;
    let files = LogFiles::reaching(&log.folder, &log.archives, Sequence(from.min(since)))?;
    let mut tree = files.tree();
    let mut read = Read { nodes: BTreeMap::new(), leaves: Vec::new() };
    // Of what is archived a proof of later entries needs nothing but the edge's subtrees.
    if let Some(edge) = files.edge.as_ref().filter(|_| files.first > Sequence(0)) {
        read.nodes.extend(edge.nodes());
    }
    let bytes = AtomicUsize::new(0);
    let take = |placed: &Placed<'_>| {
        let (index, header) = (placed.record.header.sequence.0, placed.record.header.encode());
        let leaf = (from..=to).contains(&index).then(|| [&header, placed.record.payload].concat());
        // In base64 a third more.
        let more = leaf.as_ref().map_or(0, |leaf| leaf.len() / 3 * 4);
        let fits = bytes.fetch_add(more, Ordering::Relaxed).saturating_add(more) <= EVIDENCE_BYTES_MAX;
        (index, TreeHash::leaf_of(&[&header, placed.record.payload]), leaf.filter(|_| fits))
    };
    let outcome = verify_in_parallel(&files, &files.options(), threads(), take, |(index, hash, leaf)| {
        if index >= size {
            return;
        }
        tree.push(hash, |id, hash| {
            if wanted.contains(&id) {
                read.nodes.insert(id, hash);
            }
        });
        read.leaves.extend(leaf.map(|leaf| (index, leaf)));
    });
    let too_large = bytes.into_inner() > EVIDENCE_BYTES_MAX;
    match outcome {
        Err(fault) if !(fault.may_be_torn_tail && tree.size() == size) => {
            return Err(Failure::damaged(&fault).into());
        }
        _ => {}
    }
    if too_large {
        bail!("these entries do not fit one file of {EVIDENCE_BYTES_MAX} bytes; export a part of them");
    }
    if tree.size() < size {
        bail!("the log ends at {} entries, its checkpoint has {size}: entries are missing", tree.size());
    }
    if tree.root() != root {
        let what = "the log does not have the root that its checkpoint states: its history was changed";
        return Err(Failure::refused(&what).into());
    }
    Ok(read)
}

fn check_range(from: u64, to: u64, checkpoint: &Checkpoint) -> Result<()> {
    if from > to || to >= checkpoint.size {
        let last = checkpoint.size.saturating_sub(1);
        bail!("entries {from} to {to} are no part of the checkpoint, which has entries 0 to {last}");
    }
    if to.saturating_sub(from) >= EVIDENCE_ENTRIES_MAX as u64 {
        bail!("one file holds at most {EVIDENCE_ENTRIES_MAX} entries; export a part of them");
    }
    Ok(())
}

/// A proof that was made from sound data exists; this says otherwise if it does not.
fn made<T>(proof: Option<T>) -> Result<T> {
    proof.context("the proof could not be made from the log")
}

pub fn prove(
    layout: &Layout,
    output: Output,
    sequence: u64,
    file: Option<&Path>,
    from: &LogFrom,
) -> Result<()> {
    let log = checkpoint::find(layout, from)?;
    check_range(sequence, sequence, &log.checkpoint)?;
    let size = log.checkpoint.size;
    let wanted = made(inclusion_nodes(sequence, size))?.into_iter().collect();
    let Read { nodes, leaves } = read(&log, (sequence, sequence), u64::MAX, &wanted)?;
    let extra = leaves.into_iter().next().map(|(_, leaf)| leaf);
    let hashes = made(inclusion_proof(&nodes, sequence, size))?;
    let proof = TlogProof { extra, index: sequence, hashes, checkpoint: log.signed };
    // What is given away was checked once as the receiver will.
    proof.verify(&log.key, proof.extra.as_deref().unwrap_or_default())?;
    let text = proof.to_string();
    match file {
        None => output::show(output, &Text { text: &text }, || text.clone()),
        Some(file) => {
            std::fs::write(file, &text).with_context(|| format!("writing {}", file.display()))?;
            let written = Written { file, entries: 1, size, key: &log.key };
            output::show(output, &written, || written.text())
        }
    }
}

#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
}

#[derive(Serialize)]
struct Written<'a> {
    file: &'a Path,
    entries: usize,
    /// Of the checkpoint.
    size: u64,
    key: &'a VerifierKey,
}

impl Written<'_> {
    fn text(&self) -> String {
        let Self { file, entries, size, key } = self;
        format!(
            "{}: {entries} entries of a log of {size}; check it with\nbailiwick verify {} --key '{key}'\n",
            file.display(),
            file.display()
        )
    }
}

pub fn export(
    layout: &Layout,
    output: Output,
    file: &Path,
    wanted: &Wanted<'_>,
    from: &LogFrom,
) -> Result<()> {
    let log = checkpoint::find(layout, from)?;
    let size = log.checkpoint.size;
    let to = wanted.to.unwrap_or_else(|| size.saturating_sub(1));
    check_range(wanted.from, to, &log.checkpoint)?;
    let since = match wanted.since {
        Some(file) => Some(older(&log, file)?),
        None => None,
    };
    let indices: Vec<u64> = (wanted.from..=to).collect();
    let mut needed: BTreeSet<NodeId> = made(set_nodes(&indices, size))?.into_iter().collect();
    if let Some(since) = &since {
        needed.extend(made(consistency_nodes(since.size, size))?);
    }
    let Read { nodes, leaves } =
        read(&log, (wanted.from, to), since.as_ref().map_or(u64::MAX, |since| since.size), &needed)?;
    let older = match since {
        Some(Checkpoint { size: old, root, .. }) => {
            Some(Older { size: old, root, consistency: made(consistency_proof(&nodes, old, size))? })
        }
        None => None,
    };
    let witnesses = wanted.witnesses.iter().map(|key| key.parse()).collect::<Result<Vec<_>, _>>()?;
    let evidence = Evidence {
        log: log.key.clone(),
        witnesses,
        older,
        entries: leaves,
        tree: made(set_proof(&nodes, &indices, size))?,
        checkpoint: log.signed,
    };
    let text = evidence.to_string();
    // What is given away was read and checked once as the receiver will.
    let read: Evidence = text.parse()?;
    read.verify(&Expected { log: Some(log.key.clone()), ..Expected::default() })
        .map_err(|error| Failure::refused(&error))?;
    std::fs::write(file, &text).with_context(|| format!("writing {}", file.display()))?;
    let written = Written { file, entries: evidence.entries.len(), size, key: &log.key };
    output::show(output, &written, || written.text())
}

fn older(log: &Signed, file: &Path) -> Result<Checkpoint> {
    let signed = checkpoint::read(file)?;
    let older = signed
        .verify(&log.key)
        .with_context(|| format!("{} is not a checkpoint of this log", file.display()))?;
    if older.size == 0 || older.size > log.checkpoint.size {
        bail!(
            "{} has {} entries, the log's checkpoint has {}: it is not an older one",
            file.display(),
            older.size,
            log.checkpoint.size
        );
    }
    Ok(older.clone())
}
