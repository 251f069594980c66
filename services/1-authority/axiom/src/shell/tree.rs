//! The RFC 6962 tree over the durable entries, beside the way of a commit: it is brought up to date from what readers see,
//! once a second and whenever a checkpoint is asked for.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base::{Hash, PublicKey, Sequence};
use chain::{
    Placed,
    checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint, origin},
    note::{Algorithm, NOTE_BYTES_MAX, VerifierKey},
    tree::{Edge, TreeHash},
};
use durable::{RealDisk, read_small, replace};
use ed25519_dalek::SigningKey;
use kit::BoxError;
use thiserror::Error;
use tokio::sync::watch;

use crate::store::{LogReader, RANGE_ENTRIES_MAX, StoreError};

/// The checkpoint signed last at a start or a stop, beside the head.
const CHECKPOINT_FILE: &str = "checkpoint";
/// Between two looks at what was appended, so that the work is done in batches while others commit.
const GROW_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Error)]
pub(super) enum TreeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// The tree while the log is read at the start, and what the last run signed of it.
pub(super) struct Growth {
    edge: Edge,
    genesis: Option<Hash>,
    kept: Option<SignedCheckpoint>,
    /// The root that the log has now for the size of `kept`.
    found: Option<TreeHash>,
}

impl Growth {
    pub(super) fn begin(disk: &RealDisk) -> Result<Self, BoxError> {
        let kept = read_small(disk, CHECKPOINT_FILE, NOTE_BYTES_MAX)?;
        let kept = kept.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
        Ok(Self { edge: Edge::default(), genesis: None, kept, found: None })
    }

    pub(super) fn take(&mut self, placed: &Placed<'_>) {
        self.genesis = self.genesis.or(Some(placed.hash));
        let header = placed.record.header.encode();
        self.edge.push(TreeHash::leaf_of(&[&header, placed.record.payload]), |_, _| {});
        if self.kept.as_ref().is_some_and(|kept| kept.unverified().size == self.edge.size()) {
            self.found = Some(self.edge.root());
        }
    }

    /// A log that does not contain what its own key signed before was rolled back or changed.
    fn check(&self, key: &VerifierKey) -> Result<(), BoxError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let kept = match kept.verify(key) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%error, "the kept checkpoint is none of this log and is passed over");
                return Ok(());
            }
        };
        if self.found == Some(kept.root) {
            return Ok(());
        }
        let (size, entries) = (kept.size, self.edge.size());
        let text = format!(
            "the log does not contain the checkpoint that it signed: {size} entries then, {entries} now; \
             it was rolled back or changed, bring back the newer log"
        );
        Err(text.into())
    }
}

pub(super) struct Tree {
    edge: Mutex<Edge>,
    reader: LogReader<RealDisk>,
    head_disk: RealDisk,
    signing: SigningKey,
    key: VerifierKey,
}

impl Tree {
    /// Refuses a log that lacks what was signed before.
    pub(super) fn start(
        growth: Growth,
        node_name: &str,
        signing: SigningKey,
        head_disk: RealDisk,
        reader: LogReader<RealDisk>,
    ) -> Result<Self, BoxError> {
        let genesis = growth.genesis.ok_or("the log does not begin with genesis")?;
        let public = PublicKey(signing.verifying_key().to_bytes());
        let key = VerifierKey::new(origin(node_name, &genesis), Algorithm::Ed25519, public)?;
        growth.check(&key)?;
        Ok(Self { edge: Mutex::new(growth.edge), reader, head_disk, signing, key })
    }

    pub(super) const fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Takes in what is durable now. Reads and hashes: not for a thread that others wait for.
    fn catch_up(&self) -> Result<(u64, TreeHash), StoreError> {
        let mut edge = self.edge.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.reader.last().sequence.0;
        while edge.size() <= last {
            let entries = self.reader.range(Sequence(edge.size()), RANGE_ENTRIES_MAX)?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let header = entry.header.encode();
                edge.push(TreeHash::leaf_of(&[&header, &entry.payload]), |_, _| {});
            }
        }
        Ok((edge.size(), edge.root()))
    }

    /// A checkpoint over all durable entries.
    pub(super) fn checkpoint(&self) -> Result<SignedCheckpoint, TreeError> {
        let (size, root) = self.catch_up()?;
        let checkpoint = Checkpoint { origin: self.key.name().to_owned(), size, root };
        Ok(checkpoint.sign(&self.signing)?)
    }

    /// Writes the checkpoint beside the head: for those who publish while the node is down, and for the next start.
    pub(super) fn keep(&self) {
        let kept = self.checkpoint().map_err(BoxError::from).and_then(|signed| {
            Ok(replace(&self.head_disk, CHECKPOINT_FILE, &[signed.to_string().as_bytes()])?)
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "the checkpoint could not be kept");
        }
    }
}

/// Follows the log as long as it grows.
pub(super) async fn grow(tree: Arc<Tree>, mut grown: watch::Receiver<u64>) {
    while grown.changed().await.is_ok() {
        tokio::time::sleep(GROW_PAUSE).await;
        let tree = Arc::clone(&tree);
        let taken = tokio::task::spawn_blocking(move || tree.catch_up()).await;
        if let Ok(Err(error)) = taken {
            tracing::warn!(%error, "the tree could not follow the log");
        }
    }
}
