//! Two threads that work behind the log: one takes snapshots when they are due, one verifies what the start did not read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use base::Sequence;
use chain::{log_edge::LogEdge, tree::Edge};
use durable::RealDisk;
use tokio::sync::oneshot;

use super::{archive::Archiver, tree::Tree};
use crate::{
    core::{KeyRun, OpenArchive},
    snapshot::{Policy, SnapshotError, Writer},
    store::{Resume, StoreError, Tail, verify_before},
};

/// How often it is looked whether a snapshot is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long nothing is tried after a snapshot could not be taken: the disk may be full.
const FAILED_PAUSE: Duration = Duration::from_secs(60);
/// Verification works so long and then rests as long, so that half a core at most is its own.
const WORK_STEP: Duration = Duration::from_millis(10);
/// The log's older part is not what it was: nothing that this process serves is worth anything.
const EXIT_DAMAGED: i32 = 71;

pub(super) enum Ask {
    /// Take these segments out of the log: it was decided, and the decision is durable.
    Archive(OpenArchive),
    Close(OpenArchive),
    /// Take a last snapshot and end.
    Finish(oneshot::Sender<()>),
    /// Remove all snapshots and end, so that the next start reads the whole log.
    Discard(Sender<()>),
}

/// The way to the thread that takes snapshots.
#[derive(Clone)]
pub(super) struct Asks(Sender<Ask>);

impl Asks {
    pub(super) fn new() -> (Self, Receiver<Ask>) {
        let (asks, asked) = channel();
        (Self(asks), asked)
    }

    pub(super) fn archive(&self, open: OpenArchive) {
        // The thread ends only as the service stops: then the next start closes it.
        drop(self.0.send(Ask::Archive(open)));
    }

    /// What the process before did not come to close.
    pub(super) fn close(&self, open: OpenArchive) {
        drop(self.0.send(Ask::Close(open)));
    }
}

pub(super) struct Snapshotting {
    asks: Asks,
    verifies: Arc<AtomicBool>,
}

pub(super) struct Work {
    pub(super) writer: Writer<RealDisk>,
    tree: Arc<Tree>,
    pub(super) archiver: Archiver,
    /// Waits until what lies before the start is verified: that reads what this takes away.
    waiting: Option<OpenArchive>,
    verifies: Arc<AtomicBool>,
    adopt: Box<dyn Fn(Vec<Arc<KeyRun>>) + Send>,
    /// Last entry of the newest snapshot on the disk, and since when it is there.
    covered: Option<Sequence>,
    /// First sequence of that entry's segment.
    pub(super) covered_segment: Option<Sequence>,
    since: Instant,
    failed: Option<Instant>,
}

impl Snapshotting {
    /// `covered` is the last group of the snapshot that the start took, if it took one.
    pub(super) fn start(
        writer: Writer<RealDisk>,
        tree: Arc<Tree>,
        covered: Option<Tail>,
        (asks, asked): (Asks, Receiver<Ask>),
        archiver: Archiver,
        adopt: impl Fn(Vec<Arc<KeyRun>>) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let verifies = Arc::new(AtomicBool::new(false));
        let mut work = Work {
            writer,
            tree,
            archiver,
            waiting: None,
            verifies: Arc::clone(&verifies),
            adopt: Box::new(adopt),
            covered: covered.map(|tail| tail.last.sequence),
            covered_segment: covered.map(|tail| tail.segment),
            since: Instant::now(),
            failed: None,
        };
        let thread = std::thread::Builder::new().name("snapshot".into());
        let run = move || {
            kit::stand_back();
            work.run(&asked);
        };
        thread.spawn(run).map_err(StoreError::Thread)?;
        Ok(Self { asks, verifies })
    }

    /// Takes a snapshot of all that is durable, for the next start.
    pub(super) async fn finish(&self) {
        let (done, wait) = oneshot::channel();
        if self.asks.0.send(Ask::Finish(done)).is_ok() {
            let _ = wait.await;
        }
    }

    /// Verifies the log up to where the start began. A log that does not hold ends the process.
    pub(super) fn verify_behind(
        &self,
        disk: RealDisk,
        (resume, edge): (Resume, Edge),
        begin: Option<LogEdge>,
    ) -> Result<(), StoreError> {
        let (asks, verifies) = (self.asks.0.clone(), Arc::clone(&self.verifies));
        verifies.store(true, Ordering::Release);
        let verify = move || {
            kit::stand_back();
            let mut pace = Pace::new();
            let began = Instant::now();
            match verify_before(&disk, (&resume, &edge), begin.as_ref(), || pace.rest()) {
                Ok(entries) => {
                    let seconds = began.elapsed().as_secs_f64();
                    tracing::info!(entries, seconds, "the log is sound from where it begins on");
                    verifies.store(false, Ordering::Release);
                }
                Err(error) => stop(&asks, &error),
            }
        };
        let thread = std::thread::Builder::new().name("verify".into());
        thread.spawn(verify).map_err(StoreError::Thread)?;
        Ok(())
    }
}

fn stop(asks: &Sender<Ask>, error: &StoreError) -> ! {
    let is_damage = matches!(error, StoreError::Damaged(_) | StoreError::NotResumed(_));
    tracing::error!(%error, is_damage, "what lies before the snapshot cannot be verified; this process ends");
    let (done, wait) = channel();
    // The next one reads all of it. What could not be read says nothing about the snapshots, and they may be all there is to go on from.
    if is_damage && asks.send(Ask::Discard(done)).is_ok() {
        // It answers, or has ended: the service is stopping anyway.
        let _ = wait.recv();
    }
    std::process::exit(EXIT_DAMAGED)
}

pub(super) struct Pace {
    since: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { since: Instant::now() }
    }

    pub(super) fn rest(&mut self) {
        let worked = self.since.elapsed();
        if worked >= WORK_STEP {
            std::thread::sleep(worked);
            self.since = Instant::now();
        }
    }
}

/// What is to be archived, once nobody reads what it takes away.
fn due(waiting: &mut Option<OpenArchive>, verifies: &AtomicBool) -> Option<OpenArchive> {
    if verifies.load(Ordering::Acquire) { None } else { waiting.take() }
}

impl Work {
    fn run(&mut self, asked: &Receiver<Ask>) {
        loop {
            if let Some(open) = due(&mut self.waiting, &self.verifies) {
                self.archive(&open);
            }
            match asked.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(Ask::Finish(done)) => {
                    if self.fresh() > 0 {
                        self.take();
                    }
                    // Nobody waits if the stop took too long.
                    let _ = done.send(());
                    return;
                }
                Ok(Ask::Archive(open)) => self.waiting = Some(open),
                Ok(Ask::Close(open)) => self.close(&open),
                Ok(Ask::Discard(done)) => {
                    if let Err(error) = self.writer.discard() {
                        tracing::error!(%error, "the snapshots could not be removed: remove the folder `snapshot`");
                    }
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    /// Entries that the newest snapshot lacks.
    fn fresh(&self) -> u64 {
        let next = |sequence: Sequence| sequence.0.saturating_add(1);
        next(self.tree.last()).saturating_sub(self.covered.map_or(0, next))
    }

    fn look(&mut self) {
        if self.failed.is_some_and(|failed| failed.elapsed() < FAILED_PAUSE) {
            return;
        }
        if Policy::DEFAULT.is_due(self.fresh(), self.since.elapsed(), self.writer.state_bytes()) {
            self.take();
        }
    }

    fn take(&mut self) {
        match self.write() {
            Ok(covered) => {
                (self.covered, self.since, self.failed) = (Some(covered), Instant::now(), None);
            }
            Err(error) => {
                self.failed = Some(Instant::now());
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "no snapshot could be taken; the next start reads more of the log");
            }
        }
    }

    pub(super) fn write(&mut self) -> Result<Sequence, SnapshotError> {
        let (tail, edge) = self.tree.catch_up()?;
        let runs = self.writer.write(tail, &edge, self.tree.kept())?;
        (self.adopt)(runs);
        (self.covered, self.covered_segment) = (Some(tail.last.sequence), Some(tail.segment));
        Ok(tail.last.sequence)
    }
}

#[cfg(test)]
mod tests {
    use base::{AxiomRef, Hash, IdentityId};
    use chain::payload::log::LogArchive;

    use super::*;

    #[test]
    fn archiving_waits_until_what_lies_before_the_start_is_verified() {
        let entry = AxiomRef { sequence: Sequence(9), hash: Hash::ZERO };
        let act = LogArchive {
            from: Sequence(0),
            last: entry,
            segments: 1,
            checkpoint: String::new(),
            witnesses: Vec::new(),
            place: "/archive".to_owned(),
            by: IdentityId([1; 32]),
        };
        let verifies = AtomicBool::new(true);
        let mut waiting = Some(OpenArchive { entry, act });
        assert_eq!(due(&mut waiting, &verifies), None);
        assert!(waiting.is_some(), "it is not lost");
        verifies.store(false, Ordering::Release);
        assert_eq!(due(&mut waiting, &verifies).map(|open| open.entry), Some(entry));
        assert_eq!(due(&mut waiting, &verifies), None, "once");
    }
}
