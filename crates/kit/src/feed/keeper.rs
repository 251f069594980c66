//! When a fold is written down, and that it is done beside the fold: who waits for a revocation waits for no disk.

use std::time::Instant;

use base::AxiomRef;
use tokio::task::JoinHandle;

use crate::snapshot::{Due, Parts, Snapshots};

pub(super) struct Keeper {
    snapshots: Option<Snapshots>,
    /// The first sequence that is not in the last snapshot, and when that was.
    from: u64,
    since: Instant,
    state_bytes: u64,
    /// Gives whether it is there.
    writing: Option<JoinHandle<bool>>,
}

impl Keeper {
    pub(super) fn new(snapshots: Option<Snapshots>, from: u64) -> Self {
        Self { snapshots, from, since: Instant::now(), state_bytes: 0, writing: None }
    }

    /// These are what the snapshot had that was taken up.
    pub(super) fn begin(&mut self, next: u64, parts: &Parts) {
        (self.from, self.state_bytes) = (next, bytes_of(parts));
    }

    pub(super) fn refuse(&mut self, why: &dyn std::fmt::Display) {
        if let Some(snapshots) = &self.snapshots {
            snapshots.refuse(why);
        }
    }

    pub(super) fn is_due(&self, next: u64) -> bool {
        let is_writing = self.writing.as_ref().is_some_and(|writing| !writing.is_finished());
        let entries = next.saturating_sub(self.from);
        self.snapshots.is_some()
            && !is_writing
            && Due::DEFAULT.is_due(entries, self.since.elapsed(), self.state_bytes)
    }

    /// For a service that ends.
    pub(super) fn is_worth(&self, next: u64) -> bool {
        self.snapshots.is_some() && Due::DEFAULT.is_worth(next.saturating_sub(self.from), self.state_bytes)
    }

    pub(super) fn write(&mut self, last: AxiomRef, parts: Option<Parts>) {
        (self.from, self.since) = (last.sequence.0.saturating_add(1), Instant::now());
        let Some((snapshots, parts)) = self.snapshots.clone().zip(parts) else { return };
        self.state_bytes = bytes_of(&parts);
        self.writing = Some(tokio::task::spawn_blocking(move || match snapshots.write(last, parts) {
            Ok(()) => {
                tracing::debug!(%last, "the fold is written down");
                true
            }
            Err(error) => {
                tracing::warn!(%error, %last, "the fold could not be written down");
                false
            }
        }));
    }

    /// Returns when nothing is being written; true if something was, and is there.
    pub(super) async fn written(&mut self) -> bool {
        match self.writing.take() {
            // It panics nowhere; one that did would have written nothing.
            Some(writing) => writing.await.unwrap_or(false),
            None => false,
        }
    }
}

fn bytes_of(parts: &Parts) -> u64 {
    parts.shared.len().saturating_add(parts.own.len()) as u64
}
