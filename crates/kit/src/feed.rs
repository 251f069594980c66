//! Follows the log: entries in order, each folded once, across restarts of axiom.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use base::{AxiomRef, AxiomTime, Hash, Sequence};
use chain::payload::{Payload, PayloadError};
use contracts::{
    axiom::v1::{
        Entry, FeedBatch, FollowRequest, FollowStart, feed_client::FeedClient, follow_request::Step,
    },
    common::v1 as common,
};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    client::Peer,
    clock::AxiomClock,
    error::{CallError, KitError},
    seen::Seen,
    service::BoxError,
};

/// Axiom says at least so often that it is there; three missed and the connection is made anew.
pub const FEED_SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long a call waits for its own fold to reach what its caller has seen (DESIGN 2).
pub const FEED_WAIT_MAX: Duration = Duration::from_millis(100);
/// The same for the operator, who would only ask again.
pub const FEED_WAIT_OPERATOR_MAX: Duration = Duration::from_secs(5);
/// Pause before a connection is made anew, doubled up to the maximum.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long axiom may take to answer that a follow has begun; its socket accepts even while it is down.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Acknowledgements under way; one for each batch.
const ACKS_QUEUED_MAX: usize = 64;

/// Which entries a service wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedPlan {
    /// First sequence wanted; 0 is genesis.
    pub from: Sequence,
    /// Codes; empty means all.
    pub entry_types: Vec<u32>,
    /// What a snapshot has folded last.
    pub seen: Option<AxiomRef>,
}

/// What `LocalState` needs: genesis, capabilities, rules, identities.
const STANDARD_TYPES: [u32; 8] = [0, 10, 11, 86, 87, 88, 89, 91];

impl FeedPlan {
    /// The shared state and these entry types.
    #[must_use]
    pub fn of_types(entry_types: &[u32]) -> Self {
        let mut entry_types = [entry_types, &STANDARD_TYPES].concat();
        entry_types.sort_unstable();
        entry_types.dedup();
        Self { from: Sequence(0), entry_types, seen: None }
    }

    /// Every entry.
    #[must_use]
    pub fn all() -> Self {
        Self { from: Sequence(0), entry_types: Vec::new(), seen: None }
    }
}

/// One entry as a fold sees it.
#[derive(Debug)]
pub struct FeedEntry {
    pub sequence: Sequence,
    pub hash: Hash,
    pub entry_type: u32,
    pub timestamp: AxiomTime,
    /// As recorded; never encoded again.
    pub payload: Vec<u8>,
    /// It was there before this process.
    pub replay: bool,
    decoded: OnceLock<Result<Payload, PayloadError>>,
}

impl FeedEntry {
    fn read(entry: Entry, replay: bool) -> Result<Self, FeedFault> {
        let hash =
            Hash::from_slice(&entry.hash).ok_or(FeedFault::Malformed("an entry hash has not 32 bytes"))?;
        Ok(Self {
            sequence: Sequence(entry.sequence),
            hash,
            entry_type: entry.entry_type,
            timestamp: AxiomTime(entry.timestamp_ns),
            payload: entry.payload,
            replay,
            decoded: OnceLock::new(),
        })
    }

    #[cfg(test)]
    pub(crate) fn read_for_test(entry: Entry) -> Self {
        Self::read(entry, false).unwrap()
    }

    #[must_use]
    pub fn reference(&self) -> AxiomRef {
        AxiomRef { sequence: self.sequence, hash: self.hash }
    }

    /// Decoded once, for whoever asks first.
    pub fn decode(&self) -> Result<&Payload, PayloadError> {
        self.decoded
            .get_or_init(|| Payload::decode(self.entry_type, &self.payload))
            .as_ref()
            .map_err(Clone::clone)
    }
}

#[derive(Debug, Error)]
enum FeedFault {
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
    #[error("entry {sequence} cannot be folded: {source}")]
    Fold { sequence: Sequence, source: BoxError },
}

impl FeedFault {
    /// Another attempt would end the same way, or worse: with a state that is not the log's.
    fn is_final(&self) -> bool {
        matches!(self, Self::Truncated(_) | Self::Fold { .. })
    }
}

/// Where a fold stands; shared with everyone who waits for it.
#[derive(Debug)]
struct Progress {
    /// The next sequence that has not been folded.
    next: watch::Sender<u64>,
    caught_up: watch::Sender<bool>,
}

/// A service's place in the log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    progress: Arc<Progress>,
    seen: Seen,
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

impl Feed {
    #[must_use]
    pub fn new() -> Self {
        Self {
            progress: Arc::new(Progress {
                next: watch::Sender::new(0),
                caught_up: watch::Sender::new(false),
            }),
            seen: Seen::new(),
        }
    }

    /// What is known here to be in the log: folded, committed by an act of ours, or learned from others.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        let folded = self.folded();
        self.seen.note(folded);
        &self.seen
    }

    /// Highest sequence folded.
    #[must_use]
    pub fn folded(&self) -> Sequence {
        Sequence(self.progress.next.borrow().saturating_sub(1))
    }

    /// Returns once all that was in the log when the follow began is folded.
    pub async fn caught_up(&self) {
        let mut watcher = self.progress.caught_up.subscribe();
        // The sender lives as long as `self`.
        let _ = watcher.wait_for(|caught_up| *caught_up).await;
    }

    /// Waits until `sequence` is folded here, at most `FEED_WAIT_MAX`.
    pub async fn wait_for(&self, sequence: Sequence) -> Result<(), KitError> {
        self.wait_within(sequence, FEED_WAIT_MAX).await
    }

    pub(crate) async fn wait_within(&self, sequence: Sequence, patience: Duration) -> Result<(), KitError> {
        let mut watcher = self.progress.next.subscribe();
        let reached = watcher.wait_for(|next| *next > sequence.0);
        match tokio::time::timeout(patience, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(KitError::Behind { wanted: sequence, folded: self.folded() }),
        }
    }

    /// Follows the log in a task of its own until the runtime ends or the log contradicts what was seen.
    pub fn follow(
        &self,
        socket: PathBuf,
        plan: FeedPlan,
        clock: AxiomClock,
        fold: impl FnMut(&FeedEntry) -> Result<(), BoxError> + Send + 'static,
    ) {
        self.progress.next.send_replace(plan.from.0);
        let mut follower = Follower { progress: Arc::clone(&self.progress), plan, clock, fold, socket };
        tokio::spawn(async move { follower.run().await });
    }
}

struct Follower<F> {
    progress: Arc<Progress>,
    plan: FeedPlan,
    clock: AxiomClock,
    fold: F,
    socket: PathBuf,
}

impl<F: FnMut(&FeedEntry) -> Result<(), BoxError> + Send> Follower<F> {
    async fn run(&mut self) {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let before = self.next();
            let Err(fault) = self.follow_once().await else { continue };
            if fault.is_final() {
                tracing::error!(%fault, "the feed stops: from now on every expiry counts as reached");
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

    fn next(&self) -> u64 {
        *self.progress.next.borrow()
    }

    async fn follow_once(&mut self) -> Result<(), FeedFault> {
        let (acks, requests) = mpsc::channel(ACKS_QUEUED_MAX);
        let start = FollowStart {
            from: self.next(),
            entry_types: self.plan.entry_types.clone(),
            seen: self
                .plan
                .seen
                .map(|seen| common::AxiomRef { sequence: seen.sequence.0, hash: seen.hash.0.to_vec() }),
        };
        let first = FollowRequest { step: Some(Step::Start(start)) };
        acks.try_send(first).map_err(|_| FeedFault::Ended)?;
        let mut client = FeedClient::new(Peer::at(&self.socket).channel());
        let opening = client.follow(ReceiverStream::new(requests));
        let mut batches = match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
            Err(_) => return Err(FeedFault::Silent),
            Ok(Err(status)) => return Err(read_status(status)),
            Ok(Ok(response)) => response.into_inner(),
        };
        loop {
            let batch = match tokio::time::timeout(FEED_SILENCE_MAX, batches.message()).await {
                Err(_) => return Err(FeedFault::Silent),
                Ok(Err(status)) => return Err(read_status(status)),
                Ok(Ok(None)) => return Err(FeedFault::Ended),
                Ok(Ok(Some(batch))) => batch,
            };
            let before = self.next();
            self.fold_batch(batch)?;
            let next = self.next();
            if next > before {
                let ack = FollowRequest { step: Some(Step::Folded(next.saturating_sub(1))) };
                acks.send(ack).await.map_err(|_| FeedFault::Ended)?;
            }
            // A long replay must not keep the calls of a single-threaded service waiting.
            tokio::task::yield_now().await;
        }
    }

    fn fold_batch(&mut self, batch: FeedBatch) -> Result<(), FeedFault> {
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
            (self.fold)(&entry).map_err(|source| FeedFault::Fold { sequence: entry.sequence, source })?;
            next = found.saturating_add(1);
            self.plan.seen = Some(entry.reference());
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
    let error = CallError::from(status);
    if error.reason() == "Truncated" {
        FeedFault::Truncated(error.to_string())
    } else {
        FeedFault::Gone(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence: u64, hash: u8) -> Entry {
        Entry { sequence, hash: vec![hash; 32], entry_type: 30, ..Entry::default() }
    }

    fn batch(entries: Vec<Entry>, up_to: u64) -> FeedBatch {
        FeedBatch { entries, up_to, replay: false, axiom_time_ns: 1000, boot_time_ns: 10 }
    }

    type Folded = Arc<std::sync::Mutex<Vec<u64>>>;

    fn follower(plan: FeedPlan) -> (Follower<impl FnMut(&FeedEntry) -> Result<(), BoxError>>, Folded) {
        let folded = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&folded);
        let fold = move |entry: &FeedEntry| -> Result<(), BoxError> {
            if entry.sequence.0 == 66 {
                return Err("cannot".into());
            }
            seen.lock().unwrap().push(entry.sequence.0);
            Ok(())
        };
        let progress = Feed::new().progress;
        (Follower { progress, plan, clock: AxiomClock::new(), fold, socket: PathBuf::new() }, folded)
    }

    #[test]
    fn entries_are_folded_in_order_and_once() {
        let (mut follower, folded) = follower(FeedPlan::all());
        follower.fold_batch(batch(vec![entry(0, 1), entry(1, 2)], 1)).unwrap();
        follower.fold_batch(batch(vec![entry(1, 2), entry(2, 3)], 2)).unwrap();
        follower.fold_batch(batch(vec![], 2)).unwrap();
        assert_eq!(*folded.lock().unwrap(), [0, 1, 2]);
        assert_eq!(follower.next(), 3);
        assert_eq!(follower.clock.at(10), Some(AxiomTime(1000)));
    }

    #[test]
    fn a_gap_is_refused_unless_entries_are_filtered() {
        let (mut whole, folded) = follower(FeedPlan::all());
        whole.fold_batch(batch(vec![entry(0, 1)], 0)).unwrap();
        assert!(matches!(
            whole.fold_batch(batch(vec![entry(2, 3)], 2)),
            Err(FeedFault::Gap { wanted: 1, found: 2 })
        ));
        assert!(matches!(whole.fold_batch(batch(vec![], 5)), Err(FeedFault::Gap { wanted: 1, found: 5 })));
        assert_eq!((whole.next(), folded.lock().unwrap().len()), (1, 1));
        let (mut filtered, _) = follower(FeedPlan::of_types(&[30]));
        filtered.fold_batch(batch(vec![entry(7, 1)], 9)).unwrap();
        assert_eq!(filtered.next(), 10);
        assert!(matches!(filtered.fold_batch(batch(vec![entry(12, 1)], 11)), Err(FeedFault::Malformed(_))));
    }

    #[test]
    fn a_rewritten_log_and_a_failed_fold_are_final() {
        let (mut follower, folded) = follower(FeedPlan::all());
        follower.fold_batch(batch(vec![entry(0, 1)], 0)).unwrap();
        let rewritten = follower.fold_batch(batch(vec![entry(0, 9)], 0)).unwrap_err();
        assert!(rewritten.is_final(), "{rewritten}");
        let (mut filtered, _) = super::tests::follower(FeedPlan::of_types(&[30]));
        let failed = filtered.fold_batch(batch(vec![entry(65, 1), entry(66, 1)], 66)).unwrap_err();
        assert!(failed.is_final(), "{failed}");
        assert_eq!(filtered.next(), 66, "what came before it stays folded");
        assert_eq!(folded.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_sequence_ends_after_a_tenth_of_a_second() {
        let feed = Feed::new();
        let began = tokio::time::Instant::now();
        assert!(matches!(feed.wait_for(Sequence(0)).await, Err(KitError::Behind { .. })));
        assert_eq!(began.elapsed(), FEED_WAIT_MAX);
        feed.progress.next.send_replace(8);
        assert!(feed.wait_for(Sequence(7)).await.is_ok());
        assert!(feed.wait_for(Sequence(8)).await.is_err());
    }
}
