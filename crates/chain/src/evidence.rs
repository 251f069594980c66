//! Evidence: one text file that holds entries, the proof that they stand in a log, the log's checkpoint with what
//! witnesses signed, and all public keys. Whoever knows the log's key can check it with SHA-256 and Ed25519 alone.

mod text;

use std::collections::BTreeSet;

use base::{PublicKey, limits::ENTRY_HEADER_BYTES};
use thiserror::Error;

use crate::{
    checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint},
    codec::{u32_at, u64_at},
    note::{Algorithm, NoteError, VerifierKey},
    tree::{TREE_SIZE_MAX, TreeHash, root_from_set, verify_consistency},
};

/// First line.
pub const EVIDENCE_MAGIC: &str = "bailiwick evidence v1";
/// Bytes of one file: what a browser or a mail still takes.
pub const EVIDENCE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Entries of one file.
pub const EVIDENCE_ENTRIES_MAX: usize = 65_536;
/// Witnesses of one file: with the log's own, the signatures of one note.
pub const EVIDENCE_WITNESSES_MAX: usize = crate::note::SIGNATURES_MAX - 1;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EvidenceError {
    #[error("evidence has at most {EVIDENCE_BYTES_MAX} bytes and {EVIDENCE_ENTRIES_MAX} entries")]
    TooLarge,
    #[error("line {line} of the evidence is not what the format has there")]
    Form { line: usize },
    #[error("the key {0} stands twice")]
    Twice(String),
    #[error("the key {name} is of type {}, it should be of type {}", *found as u8, *expected as u8)]
    Algorithm { name: String, found: Algorithm, expected: Algorithm },
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("witness: {0}")]
    Witness(NoteError),
    #[error("entry {index}: {what}")]
    Entry { index: u64, what: &'static str },
    #[error("the entries and the hashes beside them do not lead to the checkpoint's root")]
    Tree,
    #[error("the checkpoint does not contain the older tree of {old} entries")]
    Consistency { old: u64 },
    #[error("the evidence is of the log {found}, expected was {expected}")]
    OtherLog { expected: String, found: String },
    #[error(
        "the log had {remembered} entries before, the checkpoint has {found}: it was cut back, or the evidence is older"
    )]
    RolledBack { remembered: u64, found: u64 },
    #[error("the log has another root for the {0} entries that are remembered: its history was changed")]
    Changed(u64),
    #[error(
        "nothing in the evidence shows that the log still contains the {0} entries that are remembered; export it with --since"
    )]
    Unconnected(u64),
}

/// An older tree of the same log, and the proof that the newer one contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Older {
    pub size: u64,
    pub root: TreeHash,
    pub consistency: Vec<TreeHash>,
}

/// A file as it is read, nothing in it believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub log: VerifierKey,
    pub witnesses: Vec<VerifierKey>,
    pub older: Option<Older>,
    /// Sequences and leaves (header and payload), ascending.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// What stands beside the entries in the tree, from left to right.
    pub tree: Vec<TreeHash>,
    pub checkpoint: SignedCheckpoint,
}

/// What the reader knows from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// The log's key. Without it the evidence shows only that its parts fit together.
    pub log: Option<VerifierKey>,
    /// Witnesses that must have signed, beside those that the evidence names.
    pub witnesses: Vec<VerifierKey>,
    /// A checkpoint of this log that the reader has seen before.
    pub remembered: Option<Checkpoint>,
}

/// What was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub checkpoint: Checkpoint,
    /// Names of the witnesses that signed, and when, in seconds since the Unix epoch.
    pub witnesses: Vec<(String, u64)>,
    pub older_size: Option<u64>,
}

impl Evidence {
    /// Everything, against what the reader knows.
    pub fn verify(&self, expected: &Expected) -> Result<Shown, EvidenceError> {
        let shown = self.verify_signatures(expected)?;
        self.verify_tree(&shown.checkpoint)?;
        if let Some(remembered) = &expected.remembered {
            self.verify_remembered(&shown.checkpoint, remembered)?;
        }
        Ok(shown)
    }

    /// The signatures alone: what the log and the witnesses said, not yet that the entries are part of it.
    pub fn verify_signatures(&self, expected: &Expected) -> Result<Shown, EvidenceError> {
        if let Some(log) = expected.log.as_ref().filter(|log| **log != self.log) {
            let (expected, found) = (log.to_string(), self.log.to_string());
            return Err(EvidenceError::OtherLog { expected, found });
        }
        check_keys(&self.log, &self.witnesses)?;
        let checkpoint = self.checkpoint.verify(&self.log)?.clone();
        let mut witnesses = Vec::new();
        for witness in self.witnesses.iter().chain(&expected.witnesses) {
            has_algorithm(witness, Algorithm::Cosignature)?;
            let signed = self.checkpoint.note().verify(witness).map_err(EvidenceError::Witness)?;
            let row = (witness.name().to_owned(), signed.time_s.unwrap_or(0));
            if !witnesses.contains(&row) {
                witnesses.push(row);
            }
        }
        let older_size = self.older.as_ref().map(|older| older.size);
        Ok(Shown { checkpoint, witnesses, older_size })
    }

    /// That entries and older tree are part of the checkpoint's tree.
    pub fn verify_tree(&self, checkpoint: &Checkpoint) -> Result<(), EvidenceError> {
        let mut time = 0;
        for (index, leaf) in &self.entries {
            time = check_leaf(*index, leaf, time)
                .map_err(|what| EvidenceError::Entry { index: *index, what })?;
        }
        let leaves: Vec<_> =
            self.entries.iter().map(|(index, leaf)| (*index, TreeHash::leaf(leaf))).collect();
        if root_from_set(&leaves, checkpoint.size, &self.tree) != Some(checkpoint.root) {
            return Err(EvidenceError::Tree);
        }
        let Some(older) = &self.older else { return Ok(()) };
        let (size, root) = (checkpoint.size, checkpoint.root);
        let held =
            older.size > 0 && verify_consistency(older.size, older.root, size, root, &older.consistency);
        if held { Ok(()) } else { Err(EvidenceError::Consistency { old: older.size }) }
    }

    fn verify_remembered(&self, found: &Checkpoint, remembered: &Checkpoint) -> Result<(), EvidenceError> {
        if remembered.origin != found.origin {
            let (expected, found) = (remembered.origin.clone(), found.origin.clone());
            return Err(EvidenceError::OtherLog { expected, found });
        }
        if remembered.size > found.size {
            return Err(EvidenceError::RolledBack { remembered: remembered.size, found: found.size });
        }
        let older = self.older.as_ref().map(|older| (older.size, older.root));
        let known = [Some((found.size, found.root)), older];
        match known.into_iter().flatten().find(|(size, _)| *size == remembered.size) {
            Some((_, root)) if root == remembered.root => Ok(()),
            Some(_) => Err(EvidenceError::Changed(remembered.size)),
            None if remembered.size == 0 => Ok(()),
            None => Err(EvidenceError::Unconnected(remembered.size)),
        }
    }
}

/// Each key once, each of its kind.
fn check_keys(log: &VerifierKey, witnesses: &[VerifierKey]) -> Result<(), EvidenceError> {
    has_algorithm(log, Algorithm::Ed25519)?;
    let mut seen: BTreeSet<PublicKey> = BTreeSet::from([*log.public_key()]);
    for witness in witnesses {
        has_algorithm(witness, Algorithm::Cosignature)?;
        if !seen.insert(*witness.public_key()) {
            return Err(EvidenceError::Twice(witness.name().to_owned()));
        }
    }
    Ok(())
}

fn has_algorithm(key: &VerifierKey, expected: Algorithm) -> Result<(), EvidenceError> {
    let (name, found) = (key.name().to_owned(), key.algorithm());
    if found == expected { Ok(()) } else { Err(EvidenceError::Algorithm { name, found, expected }) }
}

/// The fields of the header that need no other hash: its place, its payload's size, its time. Gives the time.
fn check_leaf(index: u64, leaf: &[u8], earlier: u64) -> Result<u64, &'static str> {
    let short = "shorter than a header";
    if leaf.len() > base::limits::ENTRY_SIZE_BYTES_MAX {
        return Err("longer than an entry may be");
    }
    let payload = leaf.len().checked_sub(ENTRY_HEADER_BYTES).ok_or(short)?;
    if u64_at(leaf, 0) != Some(index) || index > TREE_SIZE_MAX {
        return Err("the header states another sequence");
    }
    if u32_at(leaf, 84).map(|size| size as usize) != Some(payload) {
        return Err("the header states another payload size");
    }
    let time = u64_at(leaf, 72).ok_or(short)?;
    if time < earlier { Err("the time goes back") } else { Ok(time) }
}

#[cfg(test)]
mod tests;
