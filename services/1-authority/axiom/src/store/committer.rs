//! The one place that writes the log. One write and one `fdatasync` per group, then the head, then the acknowledgement.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
    mpsc::{Receiver, SyncSender, sync_channel},
};

use base::{AxiomRef, Sequence};
use chain::{HeadFile, HeadSlot, segment_first, segment_name};
use durable::{Disk, DiskFile};

use super::{
    error::StoreError,
    layout::PreparedGroup,
    options::{HEAD_FILE, LOG_FOLDER, SPARE_FOLDER},
    reader::{Shared, Tail},
};

/// Groups on their way to the disk beside the one that is being written: more would only add delay.
const QUEUE_GROUPS_MAX: usize = 1;

/// Answer to a durable group: its last entry, and its memory to be used again.
pub struct Committed {
    pub last: AxiomRef,
    pub buffer: Vec<u8>,
}

pub struct Committer<D: Disk> {
    pub(super) disk: D,
    pub(super) head_disk: D,
    pub(super) segment: Arc<D::File>,
    /// Its name with the folder.
    pub(super) segment_name: String,
    /// Segments from the log's edge on.
    pub(super) segments: u64,
    /// The log's first entry: segments before it are archived, whether they were removed yet or not.
    pub(super) first: Sequence,
    pub(super) head: D::File,
    pub(super) head_offset: u64,
    pub(super) shared: Arc<Shared<D>>,
    pub(super) stopped: bool,
    /// Held as long as somebody can write.
    pub(super) _lock: D::Lock,
}

impl<D: Disk> Committer<D> {
    /// Makes a group durable, then visible to readers. After an error nothing more is written by this process.
    pub fn commit(&mut self, group: PreparedGroup<D>) -> Result<Committed, StoreError> {
        if self.stopped {
            return Err(StoreError::Stopped);
        }
        self.stopped = true;
        let PreparedGroup { begin, segment, offset, bytes, points, last, entries } = group;
        match begin {
            None => {
                self.segment.write_at(offset, &bytes)?;
                self.segment.sync_data()?;
            }
            Some(begin) => {
                begin.file.write_at(0, &begin.header.encode())?;
                begin.file.write_at(offset, &bytes)?;
                begin.file.sync_data()?;
                let name = format!("{LOG_FOLDER}/{}", segment_name(base::Sequence(begin.header.entry_count)));
                self.disk.rename(&begin.spare_name, &name)?;
                self.disk.sync_dir(LOG_FOLDER)?;
                self.disk.sync_dir(SPARE_FOLDER)?;
                self.segment = Arc::clone(&begin.file);
                self.segment_name = name;
                self.segments = self.segments.saturating_add(1);
                self.shared.begin_segment(begin.header.entry_count, begin.file);
            }
        }
        // Not synced: it survives the death of the process, and after a power cut an older head is a sound one.
        self.head.write_at(self.head_offset, &HeadSlot(last).encode())?;
        self.head_offset = HeadFile::other_offset(self.head_offset);
        // After the write: what vanished before is noticed before anybody is answered.
        self.check_names()?;
        self.shared.publish(points, entries, Tail { last, segment, group_at: offset });
        self.stopped = false;
        Ok(Committed { last, buffer: bytes })
    }

    /// Segment and head are still what their names lead to.
    fn check_names(&self) -> Result<(), StoreError> {
        if !self.disk.holds(&self.segment_name, &self.segment)? {
            return Err(StoreError::Replaced(self.segment_name.clone()));
        }
        if !self.head_disk.holds(HEAD_FILE, &self.head)? {
            return Err(StoreError::Replaced(HEAD_FILE.to_owned()));
        }
        Ok(())
    }

    /// The log begins here from now on.
    fn begin_at(&mut self, first: Sequence, archived: u64) {
        self.first = first;
        self.segments = self.segments.saturating_sub(archived);
    }

    /// What a commit checks, and that no other segment has gone. After an error nothing more is written.
    pub fn check(&mut self) -> Result<(), StoreError> {
        if self.stopped {
            return Err(StoreError::Stopped);
        }
        self.stopped = true;
        self.check_names()?;
        let names = self.disk.list(LOG_FOLDER)?;
        let counts = |name: &&String| {
            is_segment(name) && segment_first(name).is_none_or(|begins| begins >= self.first)
        };
        if names.iter().filter(counts).count() as u64 != self.segments {
            return Err(StoreError::Replaced(LOG_FOLDER.to_owned()));
        }
        self.stopped = false;
        Ok(())
    }
}

pub(super) fn is_segment(name: &str) -> bool {
    name.ends_with(".seg")
}

type Done = Box<dyn FnOnce(Result<Committed, StoreError>) + Send>;

/// Commits groups in order, in a thread of its own, so that the next group is laid out and hashed meanwhile. A group
/// that finds the committer idle can be committed by the caller's own thread, which saves two wake-ups.
pub struct CommitterThread<D: Disk> {
    committer: Arc<Mutex<Committer<D>>>,
    queue: Option<SyncSender<(PreparedGroup<D>, Done)>>,
    under_way: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl<D: Disk> CommitterThread<D> {
    pub fn start(committer: Committer<D>) -> Result<Self, StoreError> {
        let committer = Arc::new(Mutex::new(committer));
        let under_way = Arc::new(AtomicUsize::new(0));
        let (queue, groups) = sync_channel(QUEUE_GROUPS_MAX);
        let own = (Arc::clone(&committer), Arc::clone(&under_way));
        let thread = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || run(&own.0, &own.1, &groups))
            .map_err(StoreError::Thread)?;
        Ok(Self { committer, queue: Some(queue), under_way, thread: Some(thread) })
    }

    /// True if no group is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    /// Commits in the caller's thread. Only for the one caller that also submits, and only when idle: the order of
    /// groups is the order of these two calls.
    pub fn commit_here(&mut self, group: PreparedGroup<D>) -> Result<Committed, StoreError> {
        while !self.is_idle() {
            std::thread::yield_now();
        }
        self.committer.lock().unwrap_or_else(PoisonError::into_inner).commit(group)
    }

    /// The log begins with `first` from now on; so many segments were archived.
    pub fn begin_at(&self, first: Sequence, archived: u64) {
        self.committer.lock().unwrap_or_else(PoisonError::into_inner).begin_at(first, archived);
    }

    /// Looks whether the log's files are still there; between groups.
    pub fn check(&self) -> Result<(), StoreError> {
        self.committer.lock().unwrap_or_else(PoisonError::into_inner).check()
    }

    /// Hands a group over; `done` is called from the committer's thread. Waits while `QUEUE_GROUPS_MAX` groups wait.
    pub fn submit(
        &mut self,
        group: PreparedGroup<D>,
        done: impl FnOnce(Result<Committed, StoreError>) + Send + 'static,
    ) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        let refused = match &self.queue {
            Some(queue) => queue.send((group, Box::new(done))).err().map(|unsent| unsent.0.1),
            None => None,
        };
        if let Some(done) = refused {
            self.under_way.fetch_sub(1, Ordering::AcqRel);
            done(Err(StoreError::Stopped));
        }
    }
}

impl<D: Disk> Drop for CommitterThread<D> {
    /// Finishes what was handed over, then ends.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A committer that panicked has nothing to hand over.
            let _ = thread.join();
        }
    }
}

fn run<D: Disk>(
    committer: &Mutex<Committer<D>>,
    under_way: &AtomicUsize,
    groups: &Receiver<(PreparedGroup<D>, Done)>,
) {
    while let Ok((group, done)) = groups.recv() {
        let result = committer.lock().unwrap_or_else(PoisonError::into_inner).commit(group);
        under_way.fetch_sub(1, Ordering::AcqRel);
        done(result);
    }
}
