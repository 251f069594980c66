//! What a start makes of the log: from a snapshot on, or from genesis on.

use base::{Hash, Sequence};
use chain::{
    Entry, EntryHeader, Placed,
    checkpoint::SignedCheckpoint,
    note::VerifierKey,
    payload::Payload,
    tree::{Edge, TreeHash},
};
use durable::Disk;
use kit::LocalState;
use thiserror::Error;

use crate::{
    core::{Past, Sequencer},
    snapshot::Snapshot,
    store::{LogReader, Opened, Resume, Store, StoreError},
};

#[derive(Debug, Error)]
pub enum CheckpointMissing {
    #[error(
        "the log does not contain the checkpoint that it signed: {size} entries then, {entries} now; it was rolled back or \
         changed, bring back the newer log"
    )]
    Changed { size: u64, entries: u64 },
}

/// Takes an entry into what the gate looks at. False if it cannot be read.
pub(crate) fn tell(gate: &LocalState, header: &EntryHeader, payload: &[u8]) -> bool {
    let code = header.entry_type.code();
    if !LocalState::folds(code) {
        return true;
    }
    let Ok(payload) = Payload::decode(code, payload) else { return false };
    gate.apply_payload(header.timestamp, &payload);
    true
}

/// The tree while the log is read at the start, and what the last run signed of it.
pub struct Growth {
    edge: Edge,
    genesis: Option<Hash>,
    kept: Option<SignedCheckpoint>,
    /// The root that the log has now for the size of `kept`.
    found: Option<TreeHash>,
}

impl Growth {
    /// `kept` is the checkpoint beside the head.
    #[must_use]
    pub fn begin(kept: Option<SignedCheckpoint>) -> Self {
        Self { edge: Edge::default(), genesis: None, kept, found: None }
    }

    /// From a snapshot on. None if what is kept lies before it and is not the checkpoint that the snapshot remembers:
    /// then only the whole log can tell.
    fn resume(kept: Option<SignedCheckpoint>, snapshot: &Snapshot) -> Option<Self> {
        let edge = snapshot.edge.clone();
        let size = kept.as_ref().map(|kept| kept.unverified().size);
        let found = match (size, snapshot.kept) {
            (None, _) => None,
            (Some(size), _) if size > edge.size() => None,
            (Some(size), _) if size == edge.size() => Some(edge.root()),
            (Some(size), Some((remembered, root))) if size == remembered => Some(root),
            _ => return None,
        };
        Some(Self { edge, genesis: Some(snapshot.resume.genesis), kept, found })
    }

    fn take(&mut self, placed: &Placed<'_>) {
        self.genesis = self.genesis.or(Some(placed.hash));
        let header = placed.record.header.encode();
        self.edge.push(TreeHash::leaf_of(&[&header, placed.record.payload]), |_, _| {});
        if self.kept.as_ref().is_some_and(|kept| kept.unverified().size == self.edge.size()) {
            self.found = Some(self.edge.root());
        }
    }

    /// Entry hash of genesis.
    #[must_use]
    pub const fn genesis(&self) -> Option<Hash> {
        self.genesis
    }

    /// Size and root of what is kept, if the log contains it.
    #[must_use]
    pub fn remembered(&self) -> Option<(u64, TreeHash)> {
        let kept = self.kept.as_ref()?.unverified();
        (self.found == Some(kept.root)).then_some((kept.size, kept.root))
    }

    /// A log that does not contain what its own key signed before was rolled back or changed.
    pub fn check(self, key: &VerifierKey) -> Result<Edge, CheckpointMissing> {
        let Some(kept) = &self.kept else { return Ok(self.edge) };
        let kept = match kept.verify(key) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%error, "the kept checkpoint is none of this log and is passed over");
                return Ok(self.edge);
            }
        };
        if self.found == Some(kept.root) {
            return Ok(self.edge);
        }
        Err(CheckpointMissing::Changed { size: kept.size, entries: self.edge.size() })
    }
}

impl<D: Disk> Past for LogReader<D> {
    fn entry(&self, sequence: Sequence) -> Option<(EntryHeader, Hash)> {
        let entry = self.read(sequence).ok()?;
        Some((entry.header, entry.hash()))
    }

    fn first(&self) -> Sequence {
        self.begin().point.next_sequence
    }
}

/// The log, open, and what it adds up to.
pub struct Started<D: Disk> {
    pub opened: Opened<D>,
    pub sequencer: Sequencer,
    pub growth: Growth,
    /// The first entry that this build cannot read.
    pub unreadable: Option<Sequence>,
    /// Where the reading began, with the tree at that place, if not at genesis.
    pub resumed: Option<(Resume, Edge)>,
}

/// Opens the log from `snapshot` on if it is the log's, and from genesis on otherwise. `store` is asked once or twice.
pub fn start<'d, D: Disk>(
    store: impl Fn() -> Store<'d, D>,
    genesis: impl FnOnce() -> Option<(Entry, Hash)>,
    kept: Option<SignedCheckpoint>,
    snapshot: Option<Snapshot>,
    gate: &LocalState,
) -> Result<Started<D>, StoreError> {
    if let Some(snapshot) = snapshot {
        match resume(&store, kept.clone(), snapshot, gate) {
            Ok(started) => return Ok(started),
            Err(StoreError::NotResumed(why)) => {
                tracing::warn!(why, "the snapshot is not taken: the log is read from genesis");
            }
            Err(other) => return Err(other),
        }
    }
    let nothing = LocalState::new().to_bytes();
    gate.restore(&nothing, []).map_err(|error| StoreError::NotResumed(error.to_string()))?;
    let mut fold = Fold { sequencer: Sequencer::new(), growth: Growth::begin(kept), gate, unreadable: None };
    let opened = store().open(genesis, |placed| fold.take(placed))?;
    Ok(fold.end(opened, None))
}

fn resume<'d, D: Disk>(
    store: impl Fn() -> Store<'d, D>,
    kept: Option<SignedCheckpoint>,
    snapshot: Snapshot,
    gate: &LocalState,
) -> Result<Started<D>, StoreError> {
    let refuse = |why: String| StoreError::NotResumed(why);
    let growth = Growth::resume(kept, &snapshot)
        .ok_or_else(|| refuse("it does not remember the checkpoint beside the head".to_owned()))?;
    let Snapshot { resume, edge, sequencer, gate: saved, .. } = snapshot;
    gate.restore(&saved, sequencer.state().capabilities.all_live())
        .map_err(|error| refuse(error.to_string()))?;
    let mut fold = Fold { sequencer, growth, gate, unreadable: None };
    let opened = store().resume(&resume, |placed| fold.take(placed))?;
    Ok(fold.end(opened, Some((resume, edge))))
}

struct Fold<'g> {
    sequencer: Sequencer,
    growth: Growth,
    gate: &'g LocalState,
    unreadable: Option<Sequence>,
}

impl Fold<'_> {
    fn take(&mut self, placed: &Placed<'_>) {
        self.growth.take(placed);
        let header = &placed.record.header;
        let read = self.sequencer.replay(header, placed.record.payload, placed.hash)
            && tell(self.gate, header, placed.record.payload);
        if !read {
            self.unreadable.get_or_insert(header.sequence);
        }
    }

    fn end<D: Disk>(self, opened: Opened<D>, resumed: Option<(Resume, Edge)>) -> Started<D> {
        let Self { mut sequencer, growth, unreadable, .. } = self;
        sequencer.look_back_with(Box::new(opened.reader.clone()));
        Started { opened, sequencer, growth, unreadable, resumed }
    }
}
