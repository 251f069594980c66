//! Takes segments out of the log once that was decided: everybody who would need them has written down what it made of
//! them, the edge is durable, then the files go. A receipt closes it, whichever way it ends.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use base::{EntryKey, Hash, IdentityId, Sequence};
use chain::{
    EntryType,
    genesis::SERVICE_NAMES,
    log_edge::LogEdge,
    payload::{Envelope, Receipt, ReceiptStatus},
};
use durable::RealDisk;
use ed25519_dalek::SigningKey;

use super::{
    followers::Followers,
    order::{EXIT_UNCERTAIN, Recorder},
    snapshotting::{Pace, Work},
};
use crate::{
    core::{Draft, OpenArchive, Unit, UnitReply},
    store::{ArchiveError, LogReader, Removal},
};

/// How long services may take to write down what they have folded; behind a start they come one after the other.
const SAVE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often they are asked.
const SAVE_AGAIN: Duration = Duration::from_secs(3);
/// How often it is looked whether they have.
const SAVE_PAUSE: Duration = Duration::from_millis(50);
/// Follows the log without being a service of the catalogue.
const SUPERVISOR: &str = "supervisor";
/// The receipt's key is made of the entry that it closes: however often it is recorded, there is one.
const KEY_LABEL: &[u8] = b"bailiwick archive receipt v1\0";

pub(super) struct Archiver {
    pub(super) disk: RealDisk,
    /// Where the head is.
    pub(super) head_disk: RealDisk,
    /// Where the log begins, if anything was archived before.
    pub(super) edge: Option<LogEdge>,
    pub(super) reader: LogReader<RealDisk>,
    pub(super) followers: Arc<Followers>,
    pub(super) recorder: Recorder,
    pub(super) key: SigningKey,
    /// Axiom's own.
    pub(super) identity: IdentityId,
}

impl Work {
    pub(super) fn archive(&mut self, open: &OpenArchive) {
        let began = Instant::now();
        let outcome = self.carry_out(open);
        let last = open.act.last.sequence;
        let done = match outcome {
            Ok(segments) => {
                let seconds = began.elapsed().as_secs_f64();
                tracing::info!(segments, %last, place = open.act.place, seconds, "segments were taken out of the log");
                true
            }
            Err(error) => {
                tracing::error!(%error, entry = %open.entry, "nothing is taken out of the log");
                false
            }
        };
        self.archiver.close(open, ReceiptStatus::of(done));
    }

    /// Of the process before. Where the edge is this act's it was carried out; nothing else is, so much later: whoever asked was told
    /// that nothing was taken, and may have thrown the copies away.
    pub(super) fn close(&self, open: &OpenArchive) {
        let done = self.archiver.edge.as_ref().is_some_and(|edge| edge.archive == open.entry);
        if !done {
            tracing::warn!(entry = %open.entry, "an archiving was decided and not carried out; it has to be asked for again");
        }
        self.archiver.close(open, ReceiptStatus::of(done));
    }

    /// Gives the number of segments that were taken.
    fn carry_out(&mut self, open: &OpenArchive) -> Result<u64, ArchiveError> {
        let first = Sequence(open.act.last.sequence.0.saturating_add(1));
        if self.covered_segment.is_none_or(|segment| segment < first) {
            self.write()
                .map_err(|error| ArchiveError::Fold(format!("no snapshot could be taken: {error}")))?;
        }
        if self.covered_segment.is_none_or(|segment| segment < first) {
            return Err(ArchiveError::NotWhole(open.act.last.sequence));
        }
        self.archiver.wait_saved(self.writer.services(), open.act.last.sequence)?;
        let mut pace = Pace::new();
        let archiver = &mut self.archiver;
        let before = archiver.edge.as_ref();
        let removal = Removal::plan(&archiver.disk, before, (open.entry, &open.act), &archiver.key, || {
            pace.rest();
        })?;
        if let Err(error) = removal.write_edge(&archiver.disk, &archiver.head_disk) {
            // It may stand there or not; only a new start knows.
            tracing::error!(%error, "the log's edge could not be written; this process ends");
            std::process::exit(EXIT_UNCERTAIN)
        }
        archiver.recorder.begin_at(first, removal.segments());
        archiver.reader.begin_at(&removal.edge);
        if let Err(error) = removal.remove(&archiver.disk) {
            tracing::warn!(%error, "archived segments are still there; the next start removes them");
        }
        let segments = removal.segments();
        archiver.edge = Some(removal.edge);
        Ok(segments)
    }
}

impl Archiver {
    /// Until the next process of each service needs nothing up to `last`.
    fn wait_saved(&self, services: BTreeSet<String>, last: Sequence) -> Result<(), ArchiveError> {
        let mut wanted = services;
        wanted.retain(|name| name != "axiom" && SERVICE_NAMES.contains(&name.as_str()));
        wanted.insert(SUPERVISOR.to_owned());
        let began = Instant::now();
        let mut asked: Option<Instant> = None;
        loop {
            let unsaved = self.followers.unsaved(&wanted, last.0);
            if unsaved.is_empty() {
                return Ok(());
            }
            // Again and again: one that was still reading when it was asked has not come far.
            if asked.is_none_or(|asked| asked.elapsed() >= SAVE_AGAIN) {
                self.followers.ask_save();
                asked = Some(Instant::now());
            }
            if began.elapsed() >= SAVE_TIMEOUT {
                let text = format!(
                    "{} did not write down what was made of the entries up to {last} within {} s; a service that is \
                     stopped must be started first",
                    unsaved.join(", "),
                    SAVE_TIMEOUT.as_secs()
                );
                return Err(ArchiveError::Fold(text));
            }
            std::thread::sleep(SAVE_PAUSE);
        }
    }

    fn close(&self, open: &OpenArchive, status: ReceiptStatus) {
        let hash = Hash::of_parts(&[KEY_LABEL, &open.entry.hash.0]);
        let key = EntryKey(hash.0.first_chunk().copied().unwrap_or_default());
        let body = Receipt::closing(open.entry, status);
        let envelope = Envelope { submitter: self.identity, key, authorization: None, body };
        let payload = match envelope.to_bytes() {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(%error, "the receipt of an archiving could not be built");
                return;
            }
        };
        let unit = Unit { entries: vec![Draft { entry_type: EntryType::Receipt, payload }] };
        self.recorder.record(unit, |(replies, _)| {
            if let Some(UnitReply::Rejected(refusal)) = replies.first() {
                tracing::error!(%refusal, "the receipt of an archiving was not recorded; the next start tries again");
            }
        });
    }
}
