//! The folder of snapshots: the newest two, and the runs of keys that they name.

use std::{collections::BTreeSet, sync::Arc};

use base::{Hash, PublicKey, Sequence};
use chain::{
    SIGNED_HEAD_BYTES_MAX,
    tree::{Edge, TreeHash},
};
use durable::{Disk, DiskError, read_small, replace};
use ed25519_dalek::SigningKey;

use super::body::{Body, RunRef, SNAPSHOT_BYTES_MAX, SnapshotError, length_of};
use crate::{
    core::{KEY_BYTES, KeyRun, RUN_KEYS_MAX, Sequencer},
    store::Resume,
};

/// On the head's disk.
pub const SNAPSHOT_FOLDER: &str = "snapshot";
const SUFFIX: &str = ".snap";
pub(super) const RUN_SUFFIX: &str = ".keys";
/// Snapshots kept: the newest, and one more should it not load.
const KEPT: usize = 2;

/// A snapshot that verifies; whether the log is its own is not known yet.
pub struct Snapshot {
    pub resume: Resume,
    pub edge: Edge,
    /// Size and root of the checkpoint that was kept when it was taken.
    pub kept: Option<(u64, TreeHash)>,
    pub gate: Vec<u8>,
    pub sequencer: Sequencer,
}

/// Names of snapshots that did not load, and why.
pub type RefusedSnapshots = Vec<(String, SnapshotError)>;

/// A snapshot's file and those that it names.
struct Kept {
    name: String,
    runs: Vec<RunRef>,
}

pub struct Snapshots<D: Disk> {
    disk: D,
    /// Oldest first.
    kept: Vec<Kept>,
}

impl<D: Disk> Snapshots<D> {
    /// `disk` is the head's. The folder is made with the first snapshot: a start on a full disk needs no new block.
    pub const fn new(disk: D) -> Self {
        Self { disk, kept: Vec::new() }
    }

    /// The newest snapshot that verifies, and what was wrong with newer ones.
    pub fn load(&mut self, key: &PublicKey) -> (Option<Snapshot>, RefusedSnapshots) {
        let mut refused = Vec::new();
        let mut names = match self.disk.list(SNAPSHOT_FOLDER) {
            Ok(names) => names,
            Err(error) if error.is_not_found() => return (None, refused),
            Err(error) => return (None, vec![(SNAPSHOT_FOLDER.to_owned(), error.into())]),
        };
        names.sort_unstable();
        for name in names.into_iter().rev().filter(|name| name.ends_with(SUFFIX)) {
            match self.load_one(&name, key) {
                Ok((snapshot, runs)) => {
                    self.kept = vec![Kept { name, runs }];
                    return (Some(snapshot), refused);
                }
                Err(error) => refused.push((name, error)),
            }
        }
        (None, refused)
    }

    fn load_one(&self, name: &str, key: &PublicKey) -> Result<(Snapshot, Vec<RunRef>), SnapshotError> {
        let sequence = name.strip_suffix(SUFFIX).and_then(|digits| digits.parse().ok());
        let sequence = Sequence(sequence.ok_or(SnapshotError::Form)?);
        let limit = SNAPSHOT_BYTES_MAX + SIGNED_HEAD_BYTES_MAX;
        let bytes = read_small(&self.disk, &place(name), limit)?.ok_or(SnapshotError::Form)?;
        let body = Body::read(&bytes, key, sequence)?;
        let edge = body.edge().ok_or(SnapshotError::Tree)?;
        let runs = body.runs.iter().map(|run| self.load_run(run)).collect::<Result<_, _>>()?;
        let sequencer = Sequencer::resume(body.last, &body.sequencer, runs)?;
        let resume = Resume { tail: body.tail(), headers: body.headers(), genesis: body.genesis };
        let kept = body.kept.map(|kept| (kept.size, TreeHash(kept.root.0)));
        let Body { gate, runs, .. } = body;
        Ok((Snapshot { resume, edge, kept, gate, sequencer }, runs))
    }

    fn load_run(&self, run: &RunRef) -> Result<Arc<KeyRun>, SnapshotError> {
        let refuse = || SnapshotError::Run { from: run.from, end: run.end };
        let bytes = read_small(&self.disk, &place(&run.file_name()), RUN_KEYS_MAX * KEY_BYTES)?;
        let bytes = bytes.filter(|bytes| Hash::of(bytes) == run.hash).ok_or_else(refuse)?;
        KeyRun::from_bytes(run.from, run.end, bytes).map(Arc::new).ok_or_else(refuse)
    }

    /// Writes a snapshot and its runs durably, and removes what the newest two do not need; after a failure also what it
    /// wrote itself, as on a full disk the log needs that room.
    pub(super) fn save(
        &mut self,
        body: &Body,
        runs: &[Arc<KeyRun>],
        node_name: &str,
        key: &SigningKey,
    ) -> Result<(), SnapshotError> {
        self.write(body, runs, node_name, key).inspect_err(|_| {
            let _ = self.remove_others();
        })?;
        Ok(self.remove_others()?)
    }

    fn write(
        &mut self,
        body: &Body,
        runs: &[Arc<KeyRun>],
        node_name: &str,
        key: &SigningKey,
    ) -> Result<(), SnapshotError> {
        let (note, state) = body.sign(node_name, key)?;
        self.disk.create_dir(SNAPSHOT_FOLDER)?;
        self.disk.sync_dir("")?;
        for (run, reference) in runs.iter().zip(&body.runs) {
            if !self.kept.iter().any(|kept| kept.runs.contains(reference)) {
                replace(&self.disk, &place(&reference.file_name()), &[run.bytes()])?;
            }
        }
        let name = format!("{:020}{SUFFIX}", body.last.sequence.0);
        replace(&self.disk, &place(&name), &[&length_of(&note), note.as_str().as_bytes(), &state])?;
        self.kept.retain(|kept| kept.name != name);
        self.kept.push(Kept { name, runs: body.runs.clone() });
        self.kept.drain(..self.kept.len().saturating_sub(KEPT));
        Ok(())
    }

    fn remove_others(&self) -> Result<(), DiskError> {
        let needed: BTreeSet<String> = self
            .kept
            .iter()
            .flat_map(|kept| kept.runs.iter().map(RunRef::file_name).chain([kept.name.clone()]))
            .collect();
        for name in self.disk.list(SNAPSHOT_FOLDER)?.iter().filter(|name| !needed.contains(*name)) {
            self.disk.remove(&place(name))?;
        }
        Ok(())
    }

    /// Removes all of them: the next start reads everything.
    pub fn discard(&mut self) -> Result<(), DiskError> {
        self.kept.clear();
        self.remove_others()?;
        self.disk.sync_dir(SNAPSHOT_FOLDER)
    }
}

fn place(name: &str) -> String {
    format!("{SNAPSHOT_FOLDER}/{name}")
}
