//! A second fold of the log, brought up to date when a snapshot is due, from what readers see.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use base::{Hash, Sequence};
use chain::{
    ChainPoint, Entry,
    tree::{Edge, TreeHash},
};
use durable::Disk;
use ed25519_dalek::SigningKey;
use kit::LocalState;

use super::{
    body::{Body, RunRef, SNAPSHOT_VERSION, SavedRoot, SnapshotError},
    files::Snapshots,
};
use crate::{
    core::{KeyRun, Sequencer},
    start::tell,
    store::{Headers, LogReader, RANGE_ENTRIES_MAX, Resume, Tail},
};

/// When a snapshot is due (AX-54).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Entries after which one is taken if the log has been quiet so long since the last one.
    pub entries: u64,
    pub quiet: Duration,
    /// Entries after which one is taken however busy the log is.
    pub entries_max: u64,
    /// Time after which one is taken if there is any new entry.
    pub every: Duration,
    /// Bytes of state written for each entry, at most: a large state is written seldom, so that snapshots never cost more
    /// than the log itself.
    pub bytes_per_entry: u64,
}

impl Policy {
    pub const DEFAULT: Self = Self {
        entries: 1_000,
        quiet: Duration::from_secs(10),
        entries_max: 10_000,
        every: Duration::from_secs(3_600),
        bytes_per_entry: 256,
    };

    /// Whether one is due so many entries and so much time after the last one, whose state had so many bytes.
    #[must_use]
    pub fn is_due(&self, entries: u64, passed: Duration, state_bytes: u64) -> bool {
        if entries == 0 || entries.saturating_mul(self.bytes_per_entry) < state_bytes {
            return entries > 0 && passed >= self.every;
        }
        entries >= self.entries_max
            || passed >= self.every
            || (entries >= self.entries && passed >= self.quiet)
    }
}

pub struct Writer<D: Disk> {
    log: D,
    files: Snapshots<D>,
    reader: LogReader<D>,
    node_name: String,
    key: SigningKey,
    genesis: Hash,
    headers: Headers,
    sequencer: Sequencer,
    gate: LocalState,
    state_bytes: u64,
}

impl<D: Disk> Writer<D> {
    /// Goes on behind what a start folded; `resume` is where that start began, if a snapshot told it.
    pub fn new(
        (log, files): (D, Snapshots<D>),
        reader: LogReader<D>,
        (node_name, key): (String, SigningKey),
        (sequencer, gate): (&mut Sequencer, &LocalState),
        (genesis, resume): (Hash, Option<&Resume>),
    ) -> Result<Self, SnapshotError> {
        sequencer.seal_keys();
        let last = sequencer.point().last().ok_or(SnapshotError::Fold)?;
        let saved = sequencer.save().ok_or(SnapshotError::Fold)?;
        let second = Sequencer::resume(last, &saved, sequencer.key_runs().to_vec())?;
        let own = LocalState::new();
        own.restore(&gate.to_bytes(), second.state().capabilities.all_live())?;
        let headers = resume
            .map_or_else(Headers::default, |resume| Headers::resume(resume.headers, resume.tail.segment));
        let state_bytes = saved.len() as u64;
        Ok(Self {
            log,
            files,
            reader,
            node_name,
            key,
            genesis,
            headers,
            sequencer: second,
            gate: own,
            state_bytes,
        })
    }

    /// The last entry that was folded.
    #[must_use]
    pub fn folded(&self) -> Sequence {
        Sequence(self.sequencer.point().next_sequence.0.saturating_sub(1))
    }

    /// Services of the node that are on record up to there.
    #[must_use]
    pub fn services(&self) -> BTreeSet<String> {
        self.sequencer.state().services.keys().cloned().collect()
    }

    /// Bytes of the state, as it was last.
    #[must_use]
    pub const fn state_bytes(&self) -> u64 {
        self.state_bytes
    }

    /// Folds up to the end of a durable group and writes that down. `edge` is the tree's at the same place, `kept` what
    /// the checkpoint beside the head states. Gives the runs of keys, for the thread that orders.
    pub fn write(
        &mut self,
        tail: Tail,
        edge: &Edge,
        kept: Option<(u64, TreeHash)>,
    ) -> Result<Vec<Arc<KeyRun>>, SnapshotError> {
        self.fold(tail)?;
        self.sequencer.seal_keys();
        let runs = self.sequencer.key_runs().to_vec();
        let headers = self.headers.up_to(&self.log, tail.segment)?;
        let body = Body {
            version: SNAPSHOT_VERSION,
            genesis: self.genesis,
            last: tail.last,
            segment: tail.segment,
            group_at: tail.group_at,
            headers: headers.0,
            peaks: edge.peaks().iter().map(|peak| Hash(peak.0)).collect(),
            kept: kept.map(|(size, root)| SavedRoot { size, root: Hash(root.0) }),
            runs: runs.iter().map(|run| RunRef::of(run)).collect(),
            gate: self.gate.to_bytes(),
            sequencer: self.sequencer.save().ok_or(SnapshotError::Fold)?,
        };
        if body.edge().as_ref() != Some(edge) {
            return Err(SnapshotError::Tree);
        }
        self.state_bytes = body.sequencer.len().saturating_add(body.gate.len()) as u64;
        self.files.save(&body, &runs, &self.node_name, &self.key)?;
        Ok(runs)
    }

    fn fold(&mut self, tail: Tail) -> Result<(), SnapshotError> {
        let end = ChainPoint::after(tail.last);
        while self.sequencer.point().next_sequence < end.next_sequence {
            let next = self.sequencer.point().next_sequence;
            let left =
                usize::try_from(end.next_sequence.0.saturating_sub(next.0)).unwrap_or(RANGE_ENTRIES_MAX);
            let entries = self.reader.range(next, left.min(RANGE_ENTRIES_MAX))?;
            if entries.is_empty() {
                return Err(SnapshotError::Fold);
            }
            for entry in entries {
                self.take(&entry)?;
            }
        }
        // The hash of the last entry leads back over all of them.
        if self.sequencer.point() == end { Ok(()) } else { Err(SnapshotError::Fold) }
    }

    fn take(&mut self, entry: &Entry) -> Result<(), SnapshotError> {
        let header = &entry.header;
        let before = self.sequencer.point();
        let follows = before.next_sequence == header.sequence && before.last_hash == header.prev_hash;
        let read = follows
            && self.sequencer.replay(header, &entry.payload, entry.hash())
            && tell(&self.gate, header, &entry.payload);
        if read { Ok(()) } else { Err(SnapshotError::Fold) }
    }

    /// Removes every snapshot.
    pub fn discard(&mut self) -> Result<(), SnapshotError> {
        Ok(self.files.discard()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: AX-54
    #[test]
    fn a_snapshot_is_due_by_entries_and_by_time_and_never_for_nothing() {
        let policy = Policy::DEFAULT;
        let due = |entries, seconds, bytes| policy.is_due(entries, Duration::from_secs(seconds), bytes);
        assert!(!due(0, 1_000_000, 0));
        assert!(!due(999, 3_599, 0) && due(999, 3_600, 0) && due(1, 3_600, 0));
        assert!(!due(1_000, 9, 0) && due(1_000, 10, 0));
        assert!(!due(9_999, 0, 0) && due(10_000, 0, 0));
        // 256 bytes of state an entry.
        assert!(due(10_000, 0, 2_560_000) && !due(10_000, 0, 2_560_001) && due(10_001, 0, 2_560_001));
        assert!(due(10_000, 3_600, u64::MAX), "after an hour whatever it costs");
    }
}
