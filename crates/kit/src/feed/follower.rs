//! One connection after another to axiom's feed, and the fold that goes on over all of them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use base::{AxiomRef, AxiomTime, Hash, Sequence};
use contracts::{
    axiom::v1::{FeedBatch, FollowRequest, FollowStart, feed_client::FeedClient, follow_request::Step},
    common::v1 as common,
};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::{FEED_SILENCE_MAX, FeedEntry, FeedPlan, Fold, Progress, keeper::Keeper};
use crate::{
    client::Peer,
    clock::AxiomClock,
    error::CallError,
    service::BoxError,
    snapshot::{Snapshot, Snapshots},
};

/// Pause before a connection is made anew, doubled up to the maximum.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long axiom may take to answer that a follow has begun; its socket accepts even while it is down.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Acknowledgements under way; one for each batch.
const ACKS_QUEUED_MAX: usize = 64;

#[derive(Debug, Error)]
pub(super) enum FeedFault {
    #[error("axiom is not there: {0}")]
    Gone(CallError),
    #[error("nothing was heard for {} ms", FEED_SILENCE_MAX.as_millis())]
    Silent,
    #[error("entry {found} came where {wanted} was due")]
    Gap { wanted: u64, found: u64 },
    #[error("{0}")]
    Malformed(&'static str),
    #[error("axiom ended the feed")]
    Ended,
    #[error("the log does not continue what was seen before: {0}")]
    Truncated(String),
    #[error(
        "what this service has not folded yet is no longer in the log: {0}; stop the node, bring it back with \
         `bailiwick log restore DIR`, and start again"
    )]
    Archived(String),
    #[error("entry {sequence} cannot be folded: {source}")]
    Fold { sequence: Sequence, source: BoxError },
    #[error("the fold begins anew")]
    Anew,
}

impl FeedFault {
    /// Another attempt would end the same way, or worse: with a state that is not the log's.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Truncated(_) | Self::Archived(_) | Self::Fold { .. })
    }
}

pub(super) struct Follower<F> {
    progress: Arc<Progress>,
    plan: FeedPlan,
    /// The plan as it was at first: what a refused snapshot leads back to.
    began: FeedPlan,
    pub(super) clock: AxiomClock,
    fold: F,
    socket: PathBuf,
    /// A snapshot that is taken up as soon as the log is known to have what it ends with.
    found: Option<Snapshot>,
    keeper: Keeper,
    asked: watch::Receiver<u64>,
    awaited: watch::Receiver<u64>,
    /// The last entry that is accounted for, whether it was wanted or not.
    at: Option<AxiomRef>,
}

impl<F: Fold> Follower<F> {
    pub(super) fn new(
        progress: Arc<Progress>,
        socket: PathBuf,
        plan: FeedPlan,
        clock: AxiomClock,
        fold: F,
        snapshots: Option<Snapshots>,
    ) -> Self {
        let found = snapshots.as_ref().and_then(Snapshots::take);
        let (asked, awaited) = (progress.save_asked.subscribe(), progress.awaited.subscribe());
        let (began, keeper) = (plan.clone(), Keeper::new(snapshots, plan.from.0));
        Self { progress, plan, began, clock, fold, socket, found, keeper, asked, awaited, at: None }
    }

    pub(super) async fn run(&mut self) {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let before = self.next();
            let Err(fault) = self.follow_once().await else { continue };
            if matches!(fault, FeedFault::Truncated(_)) && self.found.take().is_some() {
                self.begin_anew(&fault);
                continue;
            }
            if matches!(fault, FeedFault::Anew) {
                continue;
            }
            if fault.is_final() {
                tracing::error!(%fault, "the feed stops: from now on every expiry counts as reached");
                self.progress.stopped.send_replace(Some(fault.to_string()));
                return;
            }
            if self.next() > before {
                pause = RETRY_PAUSE_MIN;
            }
            tracing::info!(%fault, next = self.next(), "feed interrupted");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    pub(super) fn next(&self) -> u64 {
        *self.progress.next.borrow()
    }

    /// What the snapshot has folded is what the log has: it takes the place of all entries up to there.
    fn take_up(&mut self) -> Result<(), FeedFault> {
        let Some(found) = self.found.take() else { return Ok(()) };
        if let Err(error) = self.fold.restore(&found.parts) {
            self.begin_anew(&error);
            return Err(FeedFault::Anew);
        }
        let next = found.last.sequence.0.saturating_add(1);
        tracing::info!(last = %found.last, "the fold goes on from its snapshot");
        self.keeper.begin(next, &found.parts);
        self.at = Some(found.last);
        self.progress.next.send_replace(next);
        Ok(())
    }

    fn begin_anew(&mut self, why: &dyn std::fmt::Display) {
        self.keeper.refuse(why);
        self.plan = self.began.clone();
        self.at = None;
        self.progress.next.send_replace(self.plan.from.0);
    }

    fn start(&self) -> FollowStart {
        let found = self.found.as_ref().map(|found| found.last);
        let seen = found.or(self.at).or(self.plan.seen);
        FollowStart {
            from: found.map_or_else(|| self.next(), |last| last.sequence.0.saturating_add(1)),
            entry_types: self.plan.entry_types.clone(),
            seen: seen.map(|seen| common::AxiomRef { sequence: seen.sequence.0, hash: seen.hash.0.to_vec() }),
        }
    }

    async fn follow_once(&mut self) -> Result<(), FeedFault> {
        let (acks, requests) = mpsc::channel(ACKS_QUEUED_MAX);
        let first = FollowRequest { step: Some(Step::Start(self.start())) };
        acks.try_send(first).map_err(|_| FeedFault::Ended)?;
        let mut client = FeedClient::new(Peer::at(&self.socket).channel());
        let opening = client.follow(ReceiverStream::new(requests));
        let mut batches = match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
            Err(_) => return Err(FeedFault::Silent),
            Ok(Err(status)) => return Err(read_status(status)),
            Ok(Ok(response)) => response.into_inner(),
        };
        self.take_up()?;
        // Said on this connection too.
        self.awaited.mark_changed();
        loop {
            let message = tokio::select! {
                message = tokio::time::timeout(FEED_SILENCE_MAX, batches.message()) => message,
                _ = self.asked.changed() => {
                    self.save_now().await;
                    continue;
                }
                _ = self.awaited.changed() => {
                    let awaited = *self.awaited.borrow_and_update();
                    if awaited >= self.next() {
                        let told = FollowRequest { step: Some(Step::Awaited(awaited)) };
                        acks.send(told).await.map_err(|_| FeedFault::Ended)?;
                    }
                    continue;
                }
            };
            let batch = match message {
                Err(_) => return Err(FeedFault::Silent),
                Ok(Err(status)) => return Err(read_status(status)),
                Ok(Ok(None)) => return Err(FeedFault::Ended),
                Ok(Ok(Some(batch))) => batch,
            };
            let before = self.next();
            let save = batch.save;
            self.fold_batch(batch)?;
            if save && let Some(saved) = self.save_for_archive().await {
                let told = FollowRequest { step: Some(Step::Saved(saved.sequence.0)) };
                acks.send(told).await.map_err(|_| FeedFault::Ended)?;
            }
            let next = self.next();
            if next > before {
                self.fold.settled().await;
                let ack = FollowRequest { step: Some(Step::Folded(next.saturating_sub(1))) };
                acks.send(ack).await.map_err(|_| FeedFault::Ended)?;
            }
            if let Some(last) = self.last().filter(|_| self.keeper.is_due(next)) {
                self.keeper.write(last, self.fold.save());
            }
            // A long replay must not keep the calls of a single-threaded service waiting.
            tokio::task::yield_now().await;
        }
    }

    /// What is folded ends with this entry; none if its hash is not known.
    fn last(&self) -> Option<AxiomRef> {
        self.at.filter(|at| at.sequence.0.checked_add(1) == Some(self.next()))
    }

    /// Entries are about to be archived: written down whatever it costs, as the next process could not read them. None if
    /// it is not there afterwards.
    async fn save_for_archive(&mut self) -> Option<AxiomRef> {
        self.keeper.written().await;
        let last = self.last()?;
        self.keeper.write(last, self.fold.save());
        self.keeper.written().await.then_some(last)
    }

    async fn save_now(&mut self) {
        let number = *self.asked.borrow_and_update();
        self.keeper.written().await;
        if let Some(last) = self.last().filter(|_| self.keeper.is_worth(self.next())) {
            self.keeper.write(last, self.fold.save());
            self.keeper.written().await;
        }
        self.progress.save_done.send_replace(number);
    }

    pub(super) fn fold_batch(&mut self, batch: FeedBatch) -> Result<(), FeedFault> {
        let all = self.plan.entry_types.is_empty();
        let mut next = self.next();
        for entry in batch.entries {
            let entry = FeedEntry::read(entry, batch.replay)?;
            let found = entry.sequence.0;
            if found > batch.up_to {
                return Err(FeedFault::Malformed("an entry lies beyond what its batch announces"));
            }
            if found < next {
                self.check_seen(&entry)?;
                continue;
            }
            if all && found != next {
                return Err(FeedFault::Gap { wanted: next, found });
            }
            self.fold.apply(&entry).map_err(|source| FeedFault::Fold { sequence: entry.sequence, source })?;
            next = found.saturating_add(1);
            self.plan.seen = Some(entry.reference());
            self.at = self.plan.seen;
            // Published one by one: a fault in the next entry must not make this one be folded twice.
            self.progress.next.send_if_modified(|shared| {
                *shared = next;
                false
            });
        }
        let told = batch.up_to.saturating_add(1);
        if all && told > next {
            return Err(FeedFault::Gap { wanted: next, found: batch.up_to });
        }
        if let Some(hash) = Hash::from_slice(&batch.up_to_hash).filter(|_| told >= next) {
            self.at = Some(AxiomRef { sequence: Sequence(batch.up_to), hash });
        }
        self.progress.next.send_modify(|shared| *shared = next.max(told));
        self.clock.tell(AxiomTime(batch.axiom_time_ns), batch.boot_time_ns);
        if !batch.replay {
            self.progress.caught_up.send_if_modified(|caught_up| !std::mem::replace(caught_up, true));
        }
        Ok(())
    }

    /// An entry may come again; a different one in its place means that the log was rewritten.
    fn check_seen(&self, entry: &FeedEntry) -> Result<(), FeedFault> {
        match self.plan.seen {
            Some(seen) if seen.sequence == entry.sequence && seen.hash != entry.hash => {
                Err(FeedFault::Truncated(format!("entry {} has another hash than before", entry.sequence)))
            }
            _ => Ok(()),
        }
    }
}

fn read_status(status: tonic::Status) -> FeedFault {
    let code = status.code();
    let error = CallError::from(status);
    match code {
        tonic::Code::DataLoss => FeedFault::Truncated(error.to_string()),
        tonic::Code::OutOfRange => FeedFault::Archived(error.to_string()),
        _ => FeedFault::Gone(error),
    }
}
