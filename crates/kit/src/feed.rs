//! Follows the log: entries in order, each folded once, across restarts of axiom and, from a snapshot, of the service.

mod follower;
mod keeper;

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use base::{AxiomRef, AxiomTime, Hash, Sequence};
use chain::payload::{Payload, PayloadError};
use contracts::axiom::v1::Entry;
use tokio::sync::watch;

use self::follower::{FeedFault, Follower};
use crate::{
    clock::AxiomClock,
    error::KitError,
    seen::Seen,
    service::BoxError,
    snapshot::{Parts, Snapshots},
};

/// Axiom says at least so often that it is there; three missed and the connection is made anew.
pub const FEED_SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long a call waits for its own fold to reach what its caller has seen (DESIGN 2).
pub const FEED_WAIT_MAX: Duration = Duration::from_millis(100);
/// The same for the operator, who would only ask again.
pub const FEED_WAIT_OPERATOR_MAX: Duration = Duration::from_secs(5);
/// How long a service that ends waits until its fold is written down; without it the next one reads more of the log.
const SAVE_TIMEOUT: Duration = Duration::from_secs(1);

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

/// What follows the log, and can be written down and taken up again.
pub trait Fold: Send + 'static {
    /// Applies one entry, in order.
    fn apply(&mut self, entry: &FeedEntry) -> Result<(), BoxError>;

    /// Returns when what the entries before take away is away: before that nobody is told that they are folded here.
    fn settled(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// All of it, in the one canonical encoding: equal folds, equal bytes. None if it is not to be written down.
    fn save(&self) -> Option<Parts> {
        None
    }

    /// Takes the place of what was folded so far: all of it or, with an error, nothing.
    fn restore(&mut self, _: &Parts) -> Result<(), BoxError> {
        Err("this fold cannot be restored".into())
    }
}

/// One that begins at genesis each time.
struct Unsaved<F>(F);

impl<F: FnMut(&FeedEntry) -> Result<(), BoxError> + Send + 'static> Fold for Unsaved<F> {
    fn apply(&mut self, entry: &FeedEntry) -> Result<(), BoxError> {
        (self.0)(entry)
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

/// Where a fold stands; shared with everyone who waits for it.
#[derive(Debug)]
struct Progress {
    /// The next sequence that has not been folded.
    next: watch::Sender<u64>,
    caught_up: watch::Sender<bool>,
    /// The highest sequence that somebody waits for.
    awaited: watch::Sender<u64>,
    /// Why nothing is folded any more.
    stopped: watch::Sender<Option<String>>,
    /// How often the fold was asked to be written down, and how many of these were answered.
    save_asked: watch::Sender<u64>,
    save_done: watch::Sender<u64>,
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
                awaited: watch::Sender::new(0),
                stopped: watch::Sender::new(None),
                save_asked: watch::Sender::new(0),
                save_done: watch::Sender::new(0),
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

    /// Returns once the feed has stopped for good, with the reason.
    pub async fn stopped(&self) -> String {
        let mut watcher = self.progress.stopped.subscribe();
        // The sender lives as long as `self`.
        let reason = watcher.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }

    /// Why the feed has stopped for good, if it has.
    #[must_use]
    pub fn why_stopped(&self) -> Option<String> {
        self.progress.stopped.borrow().clone()
    }

    /// Waits until `sequence` is folded here, at most `FEED_WAIT_MAX`.
    pub async fn wait_for(&self, sequence: Sequence) -> Result<(), KitError> {
        self.wait_within(sequence, FEED_WAIT_MAX).await
    }

    pub(crate) async fn wait_within(&self, sequence: Sequence, patience: Duration) -> Result<(), KitError> {
        let mut watcher = self.progress.next.subscribe();
        if *watcher.borrow() > sequence.0 {
            return Ok(());
        }
        // Axiom says so at once then, and not when it would next have told of entries that nobody here wants.
        self.progress.awaited.send_if_modified(|awaited| {
            let is_more = sequence.0 > *awaited;
            *awaited = sequence.0.max(*awaited);
            is_more
        });
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
        self.follow_from(socket, plan, clock, Unsaved(fold), None);
    }

    /// The same from what the last process wrote down, if the log has what it saw; and writes down what comes.
    pub fn follow_from(
        &self,
        socket: PathBuf,
        plan: FeedPlan,
        clock: AxiomClock,
        fold: impl Fold,
        snapshots: Option<Snapshots>,
    ) {
        self.progress.next.send_replace(plan.from.0);
        let progress = Arc::clone(&self.progress);
        let mut follower = Follower::new(progress, socket, plan, clock, fold, snapshots);
        tokio::spawn(async move { follower.run().await });
    }

    /// Returns when what is folded so far is written down, or after a second; for a service that ends.
    pub async fn save(&self) {
        let mut number = 0;
        self.progress.save_asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        let mut done = self.progress.save_done.subscribe();
        let written = done.wait_for(|done| *done >= number);
        if tokio::time::timeout(SAVE_TIMEOUT, written).await.is_err() {
            tracing::info!("the fold was not written down in time; the next process reads more of the log");
        }
    }
}

#[cfg(test)]
mod tests;
