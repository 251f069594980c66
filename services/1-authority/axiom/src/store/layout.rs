//! Where the next group goes: arithmetic and spare files, no write. So groups are laid out and hashed while the one
//! before is on its way to the disk.

use std::sync::Arc;

use base::{AxiomRef, Hash, Sequence};
use chain::{
    ChainPoint, Entry, GROUP_HEADER_BYTES, GroupBuilder, SEGMENT_HEADER_BYTES, SegmentHeader, record_bytes,
};
use durable::{Disk, Pool};

use super::{
    error::StoreError,
    index::{Index, Point},
    options::StoreOptions,
};

/// What may still be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Normal,
    /// Only the reserve is left: for acts that only take away and for the shutdown.
    ReserveOnly,
    Full,
}

/// A segment to begin, in a file that is full of zeros.
pub(super) struct Begin<F> {
    pub header: SegmentHeader,
    pub file: Arc<F>,
    pub spare_name: String,
}

/// A group that is ready for one write.
pub struct PreparedGroup<D: Disk> {
    pub(super) begin: Option<Begin<D::File>>,
    /// First sequence of its segment.
    pub(super) segment: Sequence,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) points: Vec<Point>,
    pub(super) last: AxiomRef,
    pub(super) entries: Vec<Arc<Entry>>,
}

impl<D: Disk> PreparedGroup<D> {
    /// The last entry of the group.
    #[must_use]
    pub const fn last(&self) -> AxiomRef {
        self.last
    }
}

pub struct Layout<D: Disk> {
    pool: Arc<Pool<D>>,
    options: StoreOptions,
    point: ChainPoint,
    header: SegmentHeader,
    offset: u64,
    segments: u64,
    /// The reserve: the next segment's file, held before it is needed.
    next: Option<(D::File, String)>,
    /// The reserve has been entered and no other file could be had.
    in_reserve: bool,
    buffers: Vec<Vec<u8>>,
}

impl<D: Disk> Layout<D> {
    pub(super) fn new(
        pool: Arc<Pool<D>>,
        options: StoreOptions,
        point: ChainPoint,
        header: SegmentHeader,
        offset: u64,
        segments: u64,
    ) -> Self {
        let in_reserve = false;
        Self { pool, options, point, header, offset, segments, next: None, in_reserve, buffers: Vec::new() }
    }

    /// Where the next entry goes in the chain.
    #[must_use]
    pub const fn point(&self) -> ChainPoint {
        self.point
    }

    /// Bytes of records that fit one group of this log.
    #[must_use]
    pub fn group_body_bytes_max(&self) -> u64 {
        let room =
            self.options.segment_bytes.saturating_sub((SEGMENT_HEADER_BYTES + GROUP_HEADER_BYTES) as u64);
        room.min(u64::from(chain::GROUP_BODY_BYTES_MAX))
    }

    /// Whether a group with this many bytes of records may be appended. Takes the next spare file when it is needed.
    pub fn space(&mut self, body_bytes: u64) -> Space {
        if self.in_reserve {
            // Space was made meanwhile, perhaps.
            self.in_reserve = !self.secure();
        }
        if self.fits(body_bytes) {
            return if self.in_reserve { Space::ReserveOnly } else { Space::Normal };
        }
        if self.next.is_none() && !self.secure() {
            return Space::Full;
        }
        // The reserve is entered by everybody only if another one can be had behind it.
        let quota = self.segments.saturating_add(1).saturating_mul(self.options.segment_bytes);
        if quota <= self.options.log_bytes_max
            && (self.pool.ready() > 0 || matches!(self.pool.fill_one(), Ok(true)))
        {
            Space::Normal
        } else {
            Space::ReserveOnly
        }
    }

    fn fits(&self, body_bytes: u64) -> bool {
        let end = self.offset.saturating_add(GROUP_HEADER_BYTES as u64).saturating_add(body_bytes);
        end <= self.header.capacity_bytes
    }

    /// Takes a file as the reserve. False where disk or quota is full.
    fn secure(&mut self) -> bool {
        if self.next.is_some() {
            return true;
        }
        // One segment beyond the quota is the reserve itself.
        let with_next = self.segments.saturating_add(1).saturating_mul(self.options.segment_bytes);
        let quota = self.options.log_bytes_max.saturating_add(self.options.segment_bytes);
        if with_next <= quota {
            self.next = self.pool.take().ok();
        }
        self.next.is_some()
    }

    /// Holds the reserve from the start on, so that it is there when the disk is full.
    pub fn hold_reserve(&mut self) -> bool {
        self.secure()
    }

    /// Lays out entries that follow the chain as one group. The caller has asked for `space`.
    pub fn prepare(&mut self, entries: Vec<(Entry, Hash)>) -> Result<PreparedGroup<D>, StoreError> {
        let body: u64 = entries.iter().map(|(entry, _)| bytes_of(entry)).fold(0, u64::saturating_add);
        if body > self.group_body_bytes_max() {
            return Err(StoreError::Layout);
        }
        let begin = if self.fits(body) { None } else { Some(self.begin()?) };
        let mut group = GroupBuilder::new(self.buffers.pop().unwrap_or_default(), self.point.next_sequence);
        let mut points = Vec::new();
        let mut point = self.point;
        let group_end = self.offset.saturating_add(GROUP_HEADER_BYTES as u64).saturating_add(body);
        for (entry, hash) in &entries {
            let sequence = entry.header.sequence;
            if sequence != point.next_sequence || entry.header.prev_hash != point.last_hash {
                return Err(StoreError::Layout);
            }
            let offset = self.offset.saturating_add(u64::from(group.push(entry, hash)?));
            if Index::wants(sequence, self.header.entry_count) {
                points.push(Point {
                    sequence: sequence.0,
                    segment: self.header.entry_count,
                    offset,
                    group_end,
                });
            }
            point = ChainPoint::after(AxiomRef { sequence, hash: *hash });
        }
        let last = point.last().ok_or(StoreError::Layout)?;
        let bytes = group.finish(&self.header.salt)?;
        let offset = self.offset;
        self.point = point;
        self.offset = group_end;
        let entries = entries.into_iter().map(|(entry, _)| Arc::new(entry)).collect();
        let segment = Sequence(self.header.entry_count);
        Ok(PreparedGroup { begin, segment, offset, bytes, points, last, entries })
    }

    /// So many segments were archived: there is room for others.
    pub const fn forget_segments(&mut self, number: u64) {
        self.segments = self.segments.saturating_sub(number);
    }

    /// Gives a group's memory back, to be used again.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.buffers.len() < 4 {
            self.buffers.push(buffer);
        }
    }

    fn begin(&mut self) -> Result<Begin<D::File>, StoreError> {
        if !self.secure() {
            return Err(StoreError::Full);
        }
        let (file, spare_name) = self.next.take().ok_or(StoreError::Full)?;
        let salt = salt_of(&self.options.salt_seed, self.point.next_sequence);
        self.header = SegmentHeader::at(&self.point, self.options.segment_bytes, salt);
        self.offset = SEGMENT_HEADER_BYTES as u64;
        self.segments = self.segments.saturating_add(1);
        let file = Arc::new(file);
        self.in_reserve = !self.secure();
        Ok(Begin { header: self.header, file, spare_name })
    }
}

/// Bytes that an entry takes in a group.
pub(super) fn bytes_of(entry: &Entry) -> u64 {
    record_bytes(entry.payload.len(), entry.signature.is_some()) as u64
}

/// A segment's salt: unknown to whoever does not know the seed, and another one for each segment.
pub(super) fn salt_of(seed: &[u8; 32], first: Sequence) -> [u8; 16] {
    let hash = Hash::of_parts(&[b"bailiwick segment salt v1\0", seed, &first.0.to_le_bytes()]);
    hash.0.first_chunk().copied().unwrap_or_default()
}
