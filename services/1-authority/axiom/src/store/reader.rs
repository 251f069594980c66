//! Reading the durable part of the log while it is written.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use base::{AxiomRef, Sequence};
use chain::{
    ChainPoint, Entry, GROUP_HEADER_BYTES, Part, RECORD_BYTES_MAX, Record, RecordError, SEGMENT_HEADER_BYTES,
    log_edge::{LogEdge, Part as Archived},
    segment_name,
};
use durable::{Disk, DiskFile};

use super::{
    error::StoreError,
    index::{Found, Index, Point},
    options::LOG_FOLDER,
};

/// Entries of one answer to `range`.
pub const RANGE_ENTRIES_MAX: usize = 4096;
/// Bytes of payload in one answer to `range`.
pub const RANGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Newest entries kept in memory, so that followers that keep up read no file.
const RECENT_ENTRIES_MAX: usize = 8192;
/// Bytes of payload that these may hold.
const RECENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes read ahead at once.
const READ_BYTES: usize = 256 * 1024;
/// Segment files kept open for reading.
const OPEN_SEGMENTS_MAX: usize = 8;

pub(super) struct Shared<D: Disk> {
    disk: D,
    state: Mutex<State<D>>,
    grown: Condvar,
}

/// The last durable group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Its last entry.
    pub last: AxiomRef,
    /// First sequence of its segment.
    pub segment: Sequence,
    pub group_at: u64,
}

/// Where the log begins, and where what lay before it is.
#[derive(Clone, Debug)]
pub struct Begin {
    pub point: ChainPoint,
    pub parts: Arc<[Archived]>,
}

impl Begin {
    pub(super) fn of(edge: Option<&LogEdge>) -> Self {
        Self {
            point: edge.map_or(ChainPoint::GENESIS, LogEdge::point),
            parts: edge.map(LogEdge::parts).unwrap_or_default().into(),
        }
    }

    /// That this entry, or one before the log's first, was archived.
    #[must_use]
    pub fn archived(&self, sequence: Sequence) -> StoreError {
        let part = self.parts.iter().find(|part| (part.from..=part.to).contains(&sequence));
        let place = part.map_or_else(|| "an archive".to_owned(), |part| part.place.clone());
        StoreError::Archived { sequence, first: self.point.next_sequence, place }
    }
}

struct State<D: Disk> {
    begin: Begin,
    index: Index,
    open: BTreeMap<u64, Arc<D::File>>,
    recent: VecDeque<Arc<Entry>>,
    recent_bytes: usize,
    tail: Tail,
}

impl<D: Disk> Shared<D> {
    pub(super) fn new(disk: D, begin: Begin, index: Index, tail: Tail) -> Self {
        let (open, recent) = (BTreeMap::new(), VecDeque::new());
        let state = State { begin, index, open, recent, recent_bytes: 0, tail };
        Self { disk, state: Mutex::new(state), grown: Condvar::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin_segment(&self, first: u64, file: Arc<D::File>) {
        self.lock().keep_open(first, file);
    }

    /// Shows a durable group to readers.
    pub(super) fn publish(&self, points: Vec<Point>, entries: Vec<Arc<Entry>>, tail: Tail) {
        let mut state = self.lock();
        points.into_iter().for_each(|point| state.index.push(point));
        state.recent_bytes =
            entries.iter().fold(state.recent_bytes, |sum, entry| sum.saturating_add(entry.payload.len()));
        state.recent.extend(entries);
        while state.recent.len() > RECENT_ENTRIES_MAX || state.recent_bytes > RECENT_BYTES_MAX {
            let Some(oldest) = state.recent.pop_front() else { break };
            state.recent_bytes = state.recent_bytes.saturating_sub(oldest.payload.len());
        }
        state.tail = tail;
        drop(state);
        self.grown.notify_all();
    }

    fn segment(&self, first: u64) -> Result<Arc<D::File>, StoreError> {
        if let Some(file) = self.lock().open.get(&first) {
            return Ok(Arc::clone(file));
        }
        let name = format!("{LOG_FOLDER}/{}", segment_name(Sequence(first)));
        let file = Arc::new(self.disk.open(&name)?);
        self.lock().keep_open(first, Arc::clone(&file));
        Ok(file)
    }

    /// Finds the places of a segment's entries by hopping from record to record; whoever reads an entry checks it. `end`
    /// is the end of what is durable, or `before`. Gives the point at or before `from`.
    fn read_index(
        &self,
        segment: u64,
        end: u64,
        before: u64,
        from: Sequence,
    ) -> Result<Option<Point>, StoreError> {
        let begin = SEGMENT_HEADER_BYTES as u64;
        let at = Point { sequence: segment, segment, offset: begin, group_end: begin };
        let mut cursor = Cursor::new(self.segment(segment)?, at);
        let mut points = Vec::new();
        while let Some(point) = cursor.hop(Sequence(end.saturating_sub(1)))? {
            if Index::wants(Sequence(point.sequence), segment) {
                points.push(point);
            }
        }
        let behind = points.partition_point(|point| point.sequence <= from.0);
        let found = behind.checked_sub(1).and_then(|at| points.get(at)).copied();
        self.lock().index.fill(segment, before, points);
        Ok(found)
    }
}

impl<D: Disk> State<D> {
    fn keep_open(&mut self, first: u64, file: Arc<D::File>) {
        while self.open.len() >= OPEN_SEGMENTS_MAX {
            self.open.pop_first();
        }
        self.open.insert(first, file);
    }

    fn recent(&self, sequence: Sequence) -> Option<&Arc<Entry>> {
        let first = self.recent.front()?.header.sequence.0;
        self.recent.get(usize::try_from(sequence.0.checked_sub(first)?).ok()?)
    }
}

/// Reads durable entries; cheap to clone.
pub struct LogReader<D: Disk> {
    shared: Arc<Shared<D>>,
}

impl<D: Disk> Clone for LogReader<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<D: Disk> LogReader<D> {
    pub(super) const fn new(shared: Arc<Shared<D>>) -> Self {
        Self { shared }
    }

    /// The last durable entry.
    #[must_use]
    pub fn last(&self) -> AxiomRef {
        self.shared.lock().tail.last
    }

    /// Where the log begins.
    #[must_use]
    pub fn begin(&self) -> Begin {
        self.shared.lock().begin.clone()
    }

    /// The log begins at this edge from now on: what lies before it is not shown any more.
    pub fn begin_at(&self, edge: &LogEdge) {
        let mut state = self.shared.lock();
        state.begin = Begin::of(Some(edge));
        let first = edge.point().next_sequence.0;
        state.index.forget_before(first);
        state.open = state.open.split_off(&first);
    }

    /// The last durable group.
    #[must_use]
    pub fn tail(&self) -> Tail {
        self.shared.lock().tail
    }

    /// Waits until the log reaches beyond `sequence`; false when the time is over.
    #[must_use]
    pub fn wait_beyond(&self, sequence: Sequence, timeout: Duration) -> bool {
        let state = self.shared.lock();
        let (state, _) = self
            .shared
            .grown
            .wait_timeout_while(state, timeout, |state| state.tail.last.sequence <= sequence)
            .unwrap_or_else(PoisonError::into_inner);
        state.tail.last.sequence > sequence
    }

    /// One entry with its hash, checked against its record.
    pub fn read(&self, sequence: Sequence) -> Result<Arc<Entry>, StoreError> {
        let mut found = self.range(sequence, 1)?;
        found.pop().ok_or(StoreError::NotFound(sequence))
    }

    /// Entries from `from` on: at most `entries_max`, `RANGE_ENTRIES_MAX` and about `RANGE_BYTES_MAX`; at least one
    /// unless the log ends before.
    pub fn range(&self, from: Sequence, entries_max: usize) -> Result<Vec<Arc<Entry>>, StoreError> {
        let limit = entries_max.min(RANGE_ENTRIES_MAX);
        let (found, last) = {
            let state = self.shared.lock();
            if from < state.begin.point.next_sequence {
                return Err(state.begin.archived(from));
            }
            if state.recent(from).is_some() {
                return Ok(from_memory(&state, from, limit));
            }
            (state.index.find(from), state.tail.last.sequence)
        };
        if from > last || limit == 0 {
            return Ok(Vec::new());
        }
        let point = match found {
            Found::Point(point) => point,
            Found::Unread { segment, before } => {
                match self.shared.read_index(segment, before.min(last.0.saturating_add(1)), before, from)? {
                    Some(point) => point,
                    None => return Ok(Vec::new()),
                }
            }
            Found::Nothing => return Ok(Vec::new()),
        };
        let file = self.shared.segment(point.segment)?;
        let mut cursor = Cursor::new(file, point);
        let mut entries = Vec::new();
        let mut bytes = 0_usize;
        while entries.len() < limit && bytes < RANGE_BYTES_MAX {
            let Some(entry) = cursor.next(from, last)? else { break };
            bytes = bytes.saturating_add(entry.payload.len());
            entries.push(Arc::new(entry));
        }
        Ok(entries)
    }
}

fn from_memory<D: Disk>(state: &State<D>, from: Sequence, limit: usize) -> Vec<Arc<Entry>> {
    let first = state.recent.front().map_or(0, |entry| entry.header.sequence.0);
    let skip = usize::try_from(from.0.saturating_sub(first)).unwrap_or(usize::MAX);
    let mut bytes = 0_usize;
    let fits = |entry: &&Arc<Entry>| {
        let fits = bytes < RANGE_BYTES_MAX;
        bytes = bytes.saturating_add(entry.payload.len());
        fits
    };
    state.recent.iter().skip(skip).take(limit).take_while(fits).cloned().collect()
}

/// Walks records of one segment from an index point.
struct Cursor<F> {
    file: Arc<F>,
    /// Of the next record.
    point: Point,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<F: DiskFile> Cursor<F> {
    const fn new(file: Arc<F>, point: Point) -> Self {
        Self { file, point, buffer: Vec::new(), buffer_at: 0 }
    }

    /// The next entry at or behind `from`; None at the end of the segment or behind `last`.
    fn next(&mut self, from: Sequence, last: Sequence) -> Result<Option<Entry>, StoreError> {
        loop {
            if self.point.sequence >= from.0 {
                return self.step(last, |record| {
                    record.verify_alone()?;
                    Ok(record.to_entry())
                });
            }
            if self.step(last, |_| Ok(()))?.is_none() {
                return Ok(None);
            }
        }
    }

    /// Where the next record stands, without a look at its payload; None as `next`.
    fn hop(&mut self, last: Sequence) -> Result<Option<Point>, StoreError> {
        let size_bytes = self.step(last, |record| Ok(record.size_bytes() as u64))?;
        Ok(size_bytes.map(|size_bytes| Point {
            sequence: self.point.sequence.saturating_sub(1),
            offset: self.point.offset.saturating_sub(size_bytes),
            ..self.point
        }))
    }

    /// Steps over the next record and gives what `take` makes of it; None at the end of the segment or behind `last`.
    fn step<T>(
        &mut self,
        last: Sequence,
        take: impl FnOnce(&Record<'_>) -> Result<T, RecordError>,
    ) -> Result<Option<T>, StoreError> {
        if self.point.sequence > last.0 || !self.enter_group()? {
            return Ok(None);
        }
        let at = self.point.offset;
        let (sequence, segment) = (Sequence(self.point.sequence), self.point.segment);
        let damaged = |error: RecordError| damage(segment, at, Part::Entry(sequence), error.into());
        let bytes = self.bytes(RECORD_BYTES_MAX)?;
        let (record, _) = Record::split(bytes).map_err(damaged)?;
        let size_bytes = record.size_bytes() as u64;
        if record.header.sequence != sequence {
            let found = chain::ChainError::SequenceGap { expected: sequence, found: record.header.sequence };
            return Err(damage(segment, at, Part::Entry(sequence), found.into()));
        }
        let taken = take(&record).map_err(damaged)?;
        self.point.offset = at.saturating_add(size_bytes);
        self.point.sequence = sequence.0.saturating_add(1);
        Ok(Some(taken))
    }

    /// At the end of a group: steps over the next one's header. False at the end of the segment.
    fn enter_group(&mut self) -> Result<bool, StoreError> {
        if self.point.offset < self.point.group_end {
            return Ok(true);
        }
        let header = self.bytes(GROUP_HEADER_BYTES)?;
        let Some(header) =
            chain::GroupHeader::decode_unchecked(header).filter(|header| header.entry_count > 0)
        else {
            return Ok(false);
        };
        if header.first.0 != self.point.sequence {
            return Ok(false);
        }
        self.point.offset = self.point.offset.saturating_add(GROUP_HEADER_BYTES as u64);
        self.point.group_end = self.point.offset.saturating_add(u64::from(header.body_bytes));
        Ok(true)
    }

    /// Up to `wanted` bytes at the cursor, fewer at the end of the file.
    fn bytes(&mut self, wanted: usize) -> Result<&[u8], StoreError> {
        let inside = |buffer: &[u8], buffer_at: u64, at: u64| {
            let from = usize::try_from(at.checked_sub(buffer_at)?).ok()?;
            (buffer.len().checked_sub(from)? >= wanted).then_some(from)
        };
        let at = self.point.offset;
        let from = match inside(&self.buffer, self.buffer_at, at) {
            Some(from) => from,
            None => {
                let left = self.file.size_bytes()?.saturating_sub(at);
                let ahead = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES.max(wanted));
                self.buffer.resize(ahead, 0);
                self.file.read_at(at, &mut self.buffer)?;
                self.buffer_at = at;
                0
            }
        };
        Ok(self.buffer.get(from..).unwrap_or_default())
    }
}

fn damage(segment: u64, offset: u64, part: Part, cause: chain::Cause) -> StoreError {
    let segment = segment_name(Sequence(segment));
    StoreError::Damaged(chain::Fault { segment, offset, part, cause, may_be_torn_tail: false })
}
