//! The ordering thread: takes what waits, makes one group of it, hands it to the committer, answers when it is durable.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use base::{AxiomTime, Hash, Sequence};
use chain::{EntryType, GROUP_ENTRIES_MAX, record_bytes};
use durable::RealDisk;
use kit::{LocalState, Node};
use tokio::sync::{oneshot, watch};

use super::{snapshotting::Asks, start::read_clocks};
use crate::{
    core::{KeyRun, Limits, Sequencer, Source, UNIT_ENTRIES_MAX, Unit, UnitReply},
    start::tell,
    store::{CommitterThread, Layout, Space, StoreError},
};

/// Batches that wait for the ordering thread; each is at most one message.
const QUEUE_BATCHES_MAX: usize = 256;
/// The log can no longer be trusted to be what memory says: only a new start knows (invariant 4).
pub(super) const EXIT_UNCERTAIN: i32 = 70;
/// How often the log's files are looked at, whether somebody appends or not.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often a caller with a full queue tries again.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// Replies in the order of the units, and the time of the entries.
pub(super) type Answer = (Vec<UnitReply>, AxiomTime);

struct Batch {
    source: Source,
    units: Vec<Unit>,
    answer: Answerer,
}

type Answerer = Box<dyn FnOnce(Answer) + Send>;

enum Work {
    Batch(Batch),
    /// Hash of the control state, and up to where.
    State(oneshot::Sender<(Hash, Sequence)>),
    /// Keys that need not be in memory any more: they lie in these runs.
    Adopt(Vec<Arc<KeyRun>>),
    /// Answered when everything before it is durable.
    Settle(oneshot::Sender<()>),
    /// The log begins here from now on; so many segments were archived.
    BeginAt(Sequence, u64, std::sync::mpsc::Sender<()>),
}

/// A way to the ordering thread for the thread that archives.
pub(super) struct Recorder(SyncSender<Work>);

impl Recorder {
    /// Returns when the thread that writes knows it.
    pub(super) fn begin_at(&self, first: Sequence, archived: u64) {
        let (done, wait) = std::sync::mpsc::channel();
        if self.0.send(Work::BeginAt(first, archived, done)).is_ok() {
            // The ordering thread ends only with the process.
            let _ = wait.recv();
        }
    }

    /// Hands over a record of axiom's own.
    pub(super) fn record(&self, unit: Unit, answer: impl FnOnce(Answer) + Send + 'static) {
        let batch = Batch { source: Source::Own, units: vec![unit], answer: Box::new(answer) };
        drop(self.0.send(Work::Batch(batch)));
    }
}

/// The way to the ordering thread.
pub(super) struct Orders {
    queue: SyncSender<Work>,
    alive: Arc<AtomicBool>,
    /// What was told last about room in the log.
    space: Arc<Mutex<Space>>,
    _thread: JoinHandle<()>,
}

impl Orders {
    pub(super) fn start(
        sequencer: Sequencer,
        layout: Layout<RealDisk>,
        committer: CommitterThread<RealDisk>,
        node: Node,
        grown: watch::Sender<u64>,
        behind: Asks,
    ) -> Result<Self, StoreError> {
        let (queue, work) = sync_channel(QUEUE_BATCHES_MAX);
        let alive = Arc::new(AtomicBool::new(true));
        let (grown, own) = (Arc::new(grown), Arc::clone(&alive));
        let (space, checked) = (Arc::new(Mutex::new(Space::Normal)), Instant::now());
        let told = Arc::clone(&space);
        let mut thread =
            OrderingThread { sequencer, layout, committer, node, grown, behind, alive: own, space, checked };
        let handle = std::thread::Builder::new()
            .name("order".into())
            .spawn(move || thread.run(&work))
            .map_err(StoreError::Thread)?;
        Ok(Self { queue, alive, space: told, _thread: handle })
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Why not everything is taken, if it is not.
    pub(super) fn shortage(&self) -> Option<&'static str> {
        shortage(*self.space.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands a batch over; `answer` is called from another thread, once all its entries are durable.
    pub(super) async fn submit(
        &self,
        source: Source,
        units: Vec<Unit>,
        answer: impl FnOnce(Answer) + Send + 'static,
    ) {
        self.hand(Work::Batch(Batch { source, units, answer: Box::new(answer) })).await;
    }

    pub(super) async fn state(&self) -> Option<(Hash, Sequence)> {
        let (send, receive) = oneshot::channel();
        self.hand(Work::State(send)).await;
        receive.await.ok()
    }

    /// A way to hand over runs of keys from another thread.
    pub(super) fn adopter(&self) -> impl Fn(Vec<Arc<KeyRun>>) + Send + use<> {
        let queue = self.queue.clone();
        // The ordering thread ends only with the process.
        move |runs| drop(queue.send(Work::Adopt(runs)))
    }

    pub(super) fn recorder(&self) -> Recorder {
        Recorder(self.queue.clone())
    }

    pub(super) async fn settle(&self) {
        let (send, receive) = oneshot::channel();
        self.hand(Work::Settle(send)).await;
        let _ = receive.await;
    }

    async fn hand(&self, mut work: Work) {
        loop {
            match self.queue.try_send(work) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => work = back,
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }
}

struct OrderingThread {
    sequencer: Sequencer,
    layout: Layout<RealDisk>,
    committer: CommitterThread<RealDisk>,
    /// What this service's own clients hold, as every other service has it from its feed.
    node: Node,
    /// The last durable sequence; wakes followers.
    grown: Arc<watch::Sender<u64>>,
    /// Who takes snapshots, and segments out of the log.
    behind: Asks,
    alive: Arc<AtomicBool>,
    /// What was told last about room in the log.
    space: Arc<Mutex<Space>>,
    /// When the log's files were looked at last.
    checked: Instant,
}

/// Bytes that a batch takes in the log if all of it is accepted.
fn body_bytes(batch: &Batch) -> u64 {
    let drafts = batch.units.iter().flat_map(|unit| &unit.entries);
    drafts.map(|draft| record_bytes(draft.payload.len(), false) as u64).sum()
}

fn entry_count(batch: &Batch) -> usize {
    batch.units.len().saturating_mul(UNIT_ENTRIES_MAX)
}

impl OrderingThread {
    fn run(&mut self, queue: &Receiver<Work>) {
        let mut held = None;
        loop {
            let work = match held.take() {
                Some(work) => work,
                None => match queue.recv_timeout(CHECK_EVERY) {
                    Ok(work) => work,
                    Err(RecvTimeoutError::Timeout) => {
                        self.check();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            if self.checked.elapsed() >= CHECK_EVERY {
                self.check();
            }
            match work {
                Work::State(answer) => {
                    let sequence = self.sequencer.point().next_sequence.0.saturating_sub(1);
                    let _ = answer.send((self.sequencer.state().hash(), Sequence(sequence)));
                }
                Work::Adopt(runs) => self.sequencer.adopt_key_runs(runs),
                Work::BeginAt(first, archived, done) => {
                    self.committer.begin_at(first, archived);
                    self.layout.forget_segments(archived);
                    let _ = done.send(());
                }
                Work::Settle(answer) => {
                    self.wait_idle();
                    let _ = answer.send(());
                }
                Work::Batch(first) => held = self.group(first, queue),
            }
        }
        self.alive.store(false, Ordering::Release);
    }

    /// Makes one group of this batch and of those that wait behind it. Returns what did not belong to it.
    fn group(&mut self, first: Batch, queue: &Receiver<Work>) -> Option<Work> {
        let body_max = self.layout.group_body_bytes_max();
        let mut bytes = body_bytes(&first);
        let mut count = entry_count(&first);
        let mut batches = vec![first];
        let mut held = None;
        while let Ok(work) = queue.try_recv() {
            match work {
                Work::Batch(batch)
                    if bytes.saturating_add(body_bytes(&batch)) <= body_max
                        && count.saturating_add(entry_count(&batch)) <= GROUP_ENTRIES_MAX as usize =>
                {
                    bytes = bytes.saturating_add(body_bytes(&batch));
                    count = count.saturating_add(entry_count(&batch));
                    batches.push(batch);
                }
                other => {
                    held = Some(other);
                    break;
                }
            }
        }
        self.commit(batches, bytes, body_max);
        held
    }

    fn commit(&mut self, batches: Vec<Batch>, bytes: u64, body_max: u64) {
        let space = self.layout.space(bytes.min(body_max));
        self.tell_space(space);
        let mut limits = Limits {
            body_bytes_max: body_max,
            reserve_only: space == Space::ReserveOnly && !kit::is_broken("reserve"),
            full: space == Space::Full,
        };
        let reading = read_clocks();
        let now = self.sequencer.now(reading);
        let mut entries = Vec::new();
        let mut answers: Vec<(Answerer, Vec<UnitReply>)> = Vec::with_capacity(batches.len());
        for Batch { source, units, answer } in batches {
            let ordered = self.sequencer.batch(reading, limits, source, units);
            let used: u64 = ordered
                .entries
                .iter()
                .map(|(entry, _)| record_bytes(entry.payload.len(), false) as u64)
                .sum();
            limits.body_bytes_max = limits.body_bytes_max.saturating_sub(used);
            entries.extend(ordered.entries);
            answers.push((answer, ordered.replies));
        }
        let news: Vec<chain::Entry> = entries
            .iter()
            .map(|(entry, _)| entry)
            .filter(|entry| LocalState::folds(entry.header.entry_type.code()))
            .cloned()
            .collect();
        let archives = entries.iter().any(|(entry, _)| entry.header.entry_type == EntryType::LogArchive);
        let archive = archives.then(|| self.sequencer.open_archive().cloned()).flatten();
        let (node, behind) = (self.node.clone(), self.behind.clone());
        let answer_all = move || {
            if let Some(archive) = archive {
                behind.archive(archive);
            }
            for entry in news {
                tell(node.local(), &entry.header, &entry.payload);
            }
            for (answer, replies) in answers {
                answer((replies, now));
            }
        };
        if entries.is_empty() {
            // A duplicate is answered with an entry that may still be under way.
            self.wait_idle();
            return answer_all();
        }
        let group = match self.layout.prepare(entries) {
            Ok(group) => group,
            Err(error) => stop(&error),
        };
        // Whoever waits for an answer comes before those who follow: there are more of them.
        if self.committer.is_idle() {
            match self.committer.commit_here(group) {
                Ok(committed) => {
                    answer_all();
                    self.grown.send_replace(committed.last.sequence.0);
                    self.layout.recycle(committed.buffer);
                }
                Err(error) => stop(&error),
            }
        } else {
            let grown = Arc::clone(&self.grown);
            self.committer.submit(group, move |result| match result {
                Ok(committed) => {
                    answer_all();
                    grown.send_replace(committed.last.sequence.0);
                }
                Err(error) => stop(&error),
            });
        }
    }

    /// A file that was removed or replaced under the open log ends this process, as a failed write does.
    fn check(&mut self) {
        self.wait_idle();
        if let Err(error) = self.committer.check() {
            stop(&error);
        }
        if self.told_space() != Space::Normal {
            // Who made room shall see that it is seen.
            let space = self.layout.space(0);
            self.tell_space(space);
        }
        self.checked = Instant::now();
    }

    fn told_space(&self) -> Space {
        *self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says once that room runs out, and once that it is back.
    fn tell_space(&self, space: Space) {
        if space == self.told_space() {
            return;
        }
        *self.space.lock().unwrap_or_else(PoisonError::into_inner) = space;
        match shortage(space) {
            None => tracing::info!("the log has room again and takes everything"),
            Some(shortage) => tracing::error!("{shortage}"),
        }
    }

    fn wait_idle(&self) {
        while !self.committer.is_idle() {
            std::thread::yield_now();
        }
    }
}

const fn shortage(space: Space) -> Option<&'static str> {
    match space {
        Space::Normal => None,
        Space::ReserveOnly => {
            Some("disk or quota is full: only acts that take away and the shutdown are taken")
        }
        Space::Full => Some("disk or quota is full to the end of the reserve: nothing is taken"),
    }
}

/// A write may have landed or not. Nothing that this process remembers is worth anything now: end, and let the next
/// start read the disk.
fn stop(error: &StoreError) -> ! {
    tracing::error!(%error, "the log could not be written; this process ends and the next one recovers from disk");
    std::process::exit(EXIT_UNCERTAIN)
}
