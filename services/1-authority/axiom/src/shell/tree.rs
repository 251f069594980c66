//! The RFC 6962 tree over the durable entries, beside the way of a commit: it is brought up to date from what readers see,
//! once a second and whenever a checkpoint is asked for.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base::{PublicKey, Sequence};
use chain::{
    checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint, origin},
    note::{Algorithm, NOTE_BYTES_MAX, VerifierKey},
    tree::{Edge, TreeHash},
};
use durable::{RealDisk, read_small, replace};
use ed25519_dalek::SigningKey;
use kit::BoxError;
use thiserror::Error;
use tokio::sync::watch;

use crate::{
    start::Growth,
    store::{LogReader, RANGE_ENTRIES_MAX, StoreError, Tail},
};

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

/// The checkpoint that the last run kept.
pub(super) fn kept_checkpoint(disk: &RealDisk) -> Result<Option<SignedCheckpoint>, BoxError> {
    let kept = read_small(disk, CHECKPOINT_FILE, NOTE_BYTES_MAX)?;
    Ok(kept.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok()))
}

pub(super) struct Tree {
    edge: Mutex<Edge>,
    reader: LogReader<RealDisk>,
    head_disk: RealDisk,
    signing: SigningKey,
    key: VerifierKey,
    /// Size and root of the checkpoint beside the head.
    kept: Mutex<Option<(u64, TreeHash)>>,
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
        let genesis = growth.genesis().ok_or("the log does not begin with genesis")?;
        let public = PublicKey(signing.verifying_key().to_bytes());
        let key = VerifierKey::new(origin(node_name, &genesis), Algorithm::Ed25519, public)?;
        // Until a newer one is kept: a snapshot that does not remember the file beside it could not be gone on from.
        let kept = Mutex::new(growth.remembered());
        let edge = Mutex::new(growth.check(&key)?);
        Ok(Self { edge, reader, head_disk, signing, key, kept })
    }

    pub(super) const fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Takes in what is durable now, up to the end of a group. Reads and hashes: not for a thread that others wait for.
    pub(super) fn catch_up(&self) -> Result<(Tail, Edge), StoreError> {
        let mut edge = self.edge.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = self.reader.tail();
        let end = tail.last.sequence.0.saturating_add(1);
        while edge.size() < end {
            let left = usize::try_from(end.saturating_sub(edge.size())).unwrap_or(RANGE_ENTRIES_MAX);
            let entries = self.reader.range(Sequence(edge.size()), left.min(RANGE_ENTRIES_MAX))?;
            if entries.is_empty() {
                return Err(StoreError::NotFound(Sequence(edge.size())));
            }
            for entry in entries {
                let header = entry.header.encode();
                edge.push(TreeHash::leaf_of(&[&header, &entry.payload]), |_, _| {});
            }
        }
        Ok((tail, edge.clone()))
    }

    /// A checkpoint over all durable entries.
    pub(super) fn checkpoint(&self) -> Result<SignedCheckpoint, TreeError> {
        let (_, edge) = self.catch_up()?;
        let origin = self.key.name().to_owned();
        let checkpoint = Checkpoint { origin, size: edge.size(), root: edge.root() };
        Ok(checkpoint.sign(&self.signing)?)
    }

    /// Writes the checkpoint beside the head: for those who publish while the node is down, and for the next start.
    pub(super) fn keep(&self) {
        let kept = self.checkpoint().map_err(BoxError::from).and_then(|signed| {
            replace(&self.head_disk, CHECKPOINT_FILE, &[signed.to_string().as_bytes()])?;
            let Checkpoint { size, root, .. } = signed.unverified();
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((*size, *root));
            Ok(())
        });
        if let Err(error) = kept {
            tracing::warn!(%error, "the checkpoint could not be kept");
        }
    }
}

impl Tree {
    /// The last durable entry, whether it was taken in or not.
    pub(super) fn last(&self) -> Sequence {
        self.reader.last().sequence
    }

    /// What the checkpoint beside the head states.
    pub(super) fn kept(&self) -> Option<(u64, TreeHash)> {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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
