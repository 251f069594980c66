//! Opening: everything is read and verified, or everything behind a group that a snapshot names; a torn tail is cut, a first
//! boot writes genesis.

use std::sync::Arc;

use base::{AxiomRef, Hash, Sequence};
use chain::{
    Cause, ChainPoint, Entry, Fault, GROUP_BODY_BYTES_MAX, GROUP_HEADER_BYTES, HEAD_FILE_BYTES, HeadError,
    HeadFile, HeadSlot, Part, Placed, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentReader, log_edge::LogEdge,
    segment_first, segment_name,
};
use durable::{Disk, DiskError, DiskFile, Pool, read_small, replace};

use super::{
    adapter::Segment,
    committer::Committer,
    edge,
    error::StoreError,
    headers::{HeadersHash, check_before, segment_names},
    index::{Index, Point},
    layout::{Layout, salt_of},
    options::{HEAD_FILE, LOCK_FILE, LOG_FOLDER, SPARE_FOLDER, StoreOptions},
    reader::{Begin, LogReader, Shared, Tail},
};

/// Bytes behind the last group that a start writes anew.
const PROBE_BYTES: u64 = 4096;

/// What the start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub first_boot: bool,
    /// A write that was never acknowledged and did not land whole; it was cut off.
    pub torn_tail: Option<Fault>,
    /// Durable entries above the head: written, perhaps never acknowledged.
    pub above_head: u64,
    /// Archived segments that the last process did not come to remove.
    pub removed: u64,
    /// There was an edge and no snapshot to go on from, but all that it says is archived was still here: the log was read
    /// whole, and begins with genesis again.
    pub edge_dropped: bool,
}

/// An open log, in the three parts that work at the same time.
pub struct Opened<D: Disk> {
    /// For the thread that orders and hashes.
    pub layout: Layout<D>,
    /// For the thread that writes.
    pub committer: Committer<D>,
    /// For everybody.
    pub reader: LogReader<D>,
    pub recovery: Recovery,
    /// Where the log begins, if its first segments are archived.
    pub edge: Option<LogEdge>,
}

/// What `open` needs.
pub struct Store<'a, D: Disk> {
    pub disk: &'a D,
    /// Where the head is kept: outside the log's folder.
    pub head_disk: &'a D,
    pub options: StoreOptions,
}

/// Where a snapshot was taken: what lies before it is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    pub tail: Tail,
    /// Over the headers of all segments up to the tail's.
    pub headers: HeadersHash,
    /// Hash of entry 0.
    pub genesis: Hash,
}

/// The scan's result.
struct Scan<D: Disk> {
    segments: u64,
    entries: u64,
    index: Index,
    point: ChainPoint,
    tail: Option<Tail>,
    /// The last segment.
    end: Option<(D::File, SegmentHeader, u64)>,
    torn_tail: Option<Fault>,
    head_hash: Option<Hash>,
    /// Where the bytes above the head begin in the last segment.
    above_head_from: u64,
}

impl<D: Disk> Store<'_, D> {
    /// Opens the log or makes it with `genesis` where neither log nor head exists. Shows every entry to `visit`, in order.
    pub fn open(
        self,
        genesis: impl FnOnce() -> Option<(Entry, Hash)>,
        visit: impl FnMut(&Placed<'_>),
    ) -> Result<Opened<D>, StoreError> {
        self.start(None, genesis, visit)
    }

    /// Opens the log and shows only what lies behind a snapshot. `NotResumed` if the log is not the snapshot's: then
    /// nothing was changed, and the log can be opened whole.
    pub fn resume(self, resume: &Resume, visit: impl FnMut(&Placed<'_>)) -> Result<Opened<D>, StoreError> {
        self.start(Some(resume), || None, visit)
    }

    fn start(
        self,
        resume: Option<&Resume>,
        genesis: impl FnOnce() -> Option<(Entry, Hash)>,
        mut visit: impl FnMut(&Placed<'_>),
    ) -> Result<Opened<D>, StoreError> {
        let lock = self.disk.lock(LOCK_FILE)?;
        for folder in [LOG_FOLDER, SPARE_FOLDER] {
            self.disk.create_dir(folder)?;
        }
        self.disk.sync_dir("")?;
        let head = self.read_head()?;
        let options = &self.options;
        let pool = Pool::open(
            self.disk,
            SPARE_FOLDER,
            options.segment_bytes,
            options.spare_files,
            options.fill_in_background,
        )?;
        let pool = Arc::new(pool);
        let mut recovery = Recovery::default();
        let mut edge = edge::load(self.disk, options.sequencer_key.as_ref())?;
        // Without a snapshot only genesis can be folded from: the edge is passed over, and has to be where the segments lead.
        let passed = if resume.is_none() { edge.take() } else { None };
        let mut passed_hash = None;
        let mut scan = {
            let mut look = |placed: &Placed<'_>| {
                let sequence = placed.record.header.sequence;
                if passed.as_ref().is_some_and(|edge| edge.last.sequence == sequence) {
                    passed_hash = Some(placed.hash);
                }
                visit(placed);
            };
            match (self.scan(resume, edge.as_ref(), head, &mut look), &passed) {
                (Err(error), Some(edge)) if edge::is_gap(&error, edge) => return Err(needs_restore(edge)),
                (scan, _) => scan?,
            }
        };
        if let Some(passed) = passed.as_ref().filter(|edge| passed_hash != Some(edge.last.hash)) {
            return Err(match scan.end {
                None => needs_restore(passed),
                Some(_) => StoreError::Edge("the segments before it do not lead to it".to_owned()),
            });
        }
        // Only now: until the snapshot is known to lead on, what was archived and is still here may be needed.
        if let Some(edge) = &edge {
            let left = edge::leftovers(self.disk, edge)?;
            recovery.removed = left.len() as u64;
            edge::remove(self.disk, &left)?;
        }
        if scan.end.is_none() {
            if let Some(head) = head {
                return Err(StoreError::LogMissing { head });
            }
            recovery.first_boot = true;
            self.write_genesis(&pool, genesis().ok_or(StoreError::NotGenesis)?)?;
            scan = self.scan(None, None, None, &mut visit)?;
        }
        recovery.torn_tail = scan.torn_tail.take();
        let (file, header, offset) = scan.end.ok_or(StoreError::NotGenesis)?;
        let tail = scan.tail.ok_or(StoreError::NotGenesis)?;
        let last = tail.last;
        let segment = Arc::new(file);
        let begin = Begin::of(edge.as_ref());
        let first = begin.point.next_sequence;
        let shared = Arc::new(Shared::new(self.disk.clone(), begin, scan.index, tail));
        shared.begin_segment(header.entry_count, Arc::clone(&segment));
        let reader = LogReader::new(Arc::clone(&shared));
        if let Some(head) = head
            .filter(|head| resume.is_some_and(|resume| head.sequence <= resume.tail.last.sequence))
            .filter(|head| head.sequence >= first)
        {
            scan.head_hash = Some(reader.read(head.sequence)?.hash());
        }
        check_head(head, last, &header, scan.entries, scan.head_hash, edge.as_ref())?;
        if passed.is_some() {
            edge::drop(self.disk)?;
            recovery.edge_dropped = true;
        }
        recovery.above_head = last.sequence.0.saturating_sub(head.map_or(0, |head| head.sequence.0));
        // What the last process wrote and did not sync is about to be shown to readers: make it durable first. Written
        // anew, because after a failed sync the kernel takes these pages for clean and would not write them.
        // And the zeros behind it, where the next group goes: a disk that refuses to write is known before anybody is
        // served.
        let probe_end = offset.saturating_add(PROBE_BYTES).min(header.capacity_bytes);
        write_again(&*segment, scan.above_head_from, probe_end)?;
        segment.sync_data()?;
        self.disk.sync_dir(LOG_FOLDER)?;
        let (head_file, head_offset) = self.raise_head(head, last)?;
        let mut layout = Layout::new(pool, self.options.clone(), scan.point, header, offset, scan.segments);
        layout.hold_reserve();
        let disk = self.disk.clone();
        let committer = Committer {
            disk,
            head_disk: self.head_disk.clone(),
            segment,
            segment_name: format!("{LOG_FOLDER}/{}", segment_name(Sequence(header.entry_count))),
            segments: scan.segments,
            first,
            head: head_file,
            head_offset,
            shared,
            stopped: false,
            _lock: lock,
        };
        Ok(Opened { layout, committer, reader, recovery, edge })
    }

    fn read_head(&self) -> Result<Option<AxiomRef>, StoreError> {
        let bytes = match read_small(self.head_disk, HEAD_FILE, HEAD_FILE_BYTES) {
            Err(DiskError::Failed { source, .. }) if source.kind() == std::io::ErrorKind::FileTooLarge => {
                return Err(StoreError::Head(HeadError::Damaged));
            }
            other => other?,
        };
        match bytes {
            Some(bytes) => Ok(HeadFile::decode(&bytes).map_err(StoreError::Head)?.head),
            None => Ok(None),
        }
    }

    /// Writes the head of the log as found, durably, and opens its file for the committer. A file that is there is
    /// written in place, in the slot that is not the newest: that needs no space on a full disk.
    fn raise_head(&self, old: Option<AxiomRef>, last: AxiomRef) -> Result<(D::File, u64), StoreError> {
        if old.is_some() {
            let file = self.head_disk.open(HEAD_FILE)?;
            let mut bytes = [0; HEAD_FILE_BYTES];
            file.read_at(0, &mut bytes)?;
            let offset = HeadFile::decode(&bytes).map_err(StoreError::Head)?.next_offset;
            file.write_at(offset, &HeadSlot(last).encode())?;
            file.sync_data()?;
            return Ok((file, HeadFile::other_offset(offset)));
        }
        let mut bytes = chain_head_bytes(last);
        bytes.resize(HEAD_FILE_BYTES, 0);
        replace(self.head_disk, HEAD_FILE, &[&bytes])?;
        Ok((self.head_disk.open(HEAD_FILE)?, HeadFile::other_offset(0)))
    }

    fn scan(
        &self,
        resume: Option<&Resume>,
        edge: Option<&LogEdge>,
        head: Option<AxiomRef>,
        visit: &mut impl FnMut(&Placed<'_>),
    ) -> Result<Scan<D>, StoreError> {
        let mut names = segment_names(self.disk)?;
        if let Some(edge) = edge {
            let begin = edge.point().next_sequence;
            names.retain(|name| segment_first(name).is_none_or(|first| first >= begin));
        }
        let mut scan = Scan {
            segments: 0,
            entries: 0,
            index: Index::default(),
            point: ChainPoint::GENESIS,
            tail: None,
            end: None,
            torn_tail: None,
            head_hash: None,
            above_head_from: SEGMENT_HEADER_BYTES as u64,
        };
        let mut rest = names.as_slice();
        if let Some(resume) = resume {
            let current = segment_name(resume.tail.segment);
            let before = names.partition_point(|name| *name < current);
            let (old, from) = names.split_at_checked(before).unwrap_or_default();
            let Some((name, behind)) = from.split_first().filter(|(name, _)| **name == current) else {
                return Err(StoreError::NotResumed(format!("there is no segment {current}")));
            };
            check_before(self.disk, old, name, resume, edge)?;
            old.iter().filter_map(|name| segment_first(name)).for_each(|first| scan.index.expect(first.0));
            scan.segments = old.len() as u64;
            let segment = Segment(self.disk.open(&format!("{LOG_FOLDER}/{name}"))?);
            let Tail { last, group_at, .. } = resume.tail;
            let reader = SegmentReader::resume(&segment, name, group_at, last)
                .map_err(|fault| StoreError::NotResumed(fault.to_string()))?;
            scan.entries = last.sequence.0.saturating_add(1);
            scan.above_head_from = reader.offset();
            scan.tail = Some(resume.tail);
            scan.index.expect(resume.tail.segment.0);
            let (header, offset) = scan_groups(&segment, reader, behind.is_empty(), head, &mut scan, visit)?;
            scan.end = Some((segment.0, header, offset));
            rest = behind;
        }
        for (at, name) in rest.iter().enumerate() {
            let is_last = at.saturating_add(1) == rest.len();
            self.scan_segment(name, is_last, head, &mut scan, visit)?;
        }
        Ok(scan)
    }

    fn scan_segment(
        &self,
        name: &str,
        is_last: bool,
        head: Option<AxiomRef>,
        scan: &mut Scan<D>,
        visit: &mut impl FnMut(&Placed<'_>),
    ) -> Result<(), StoreError> {
        let segment = Segment(self.disk.open(&format!("{LOG_FOLDER}/{name}"))?);
        let reader = SegmentReader::open(&segment, name, Some(&scan.point)).map_err(StoreError::Damaged)?;
        scan.above_head_from = SEGMENT_HEADER_BYTES as u64;
        let (header, offset) = scan_groups(&segment, reader, is_last, head, scan, visit)?;
        scan.end = Some((segment.0, header, offset));
        Ok(())
    }

    /// Segment 0 with genesis is made whole in a spare file and then renamed: a crash before leaves no log at all.
    fn write_genesis(&self, pool: &Pool<D>, genesis: (Entry, Hash)) -> Result<(), StoreError> {
        let (entry, hash) = genesis;
        let at_start = entry.header.sequence == Sequence(0) && entry.header.prev_hash == Hash::ZERO;
        if !at_start || entry.header.entry_type != chain::EntryType::Genesis || entry.hash() != hash {
            return Err(StoreError::NotGenesis);
        }
        let salt = salt_of(&self.options.salt_seed, Sequence(0));
        let header = SegmentHeader::at(&ChainPoint::GENESIS, self.options.segment_bytes, salt);
        let mut group = chain::GroupBuilder::new(Vec::new(), Sequence(0));
        group.push(&entry, &hash)?;
        let bytes = group.finish(&salt)?;
        if bytes.len().saturating_add(SEGMENT_HEADER_BYTES) as u64 > self.options.segment_bytes {
            return Err(StoreError::Layout);
        }
        let (file, spare_name) = pool.take()?;
        file.write_at(0, &header.encode())?;
        file.write_at(SEGMENT_HEADER_BYTES as u64, &bytes)?;
        file.sync_data()?;
        self.disk.rename(&spare_name, &format!("{LOG_FOLDER}/{}", segment_name(Sequence(0))))?;
        self.disk.sync_dir(LOG_FOLDER)?;
        Ok(())
    }
}

/// Reads a segment's groups to its end, and cuts off what a power cut left there. Gives the header and where groups end.
fn scan_groups<D: Disk>(
    segment: &Segment<D::File>,
    mut reader: SegmentReader<&Segment<D::File>>,
    is_last: bool,
    head: Option<AxiomRef>,
    scan: &mut Scan<D>,
    visit: &mut impl FnMut(&Placed<'_>),
) -> Result<(SegmentHeader, u64), StoreError> {
    let first = reader.header().entry_count;
    loop {
        let group_at = reader.offset();
        let group = reader.next_group(|placed| {
            let sequence = placed.record.header.sequence;
            if Index::wants(sequence, first) {
                let (offset, group_end) = (placed.offset, placed.group_end);
                scan.index.push(Point { sequence: sequence.0, segment: first, offset, group_end });
            }
            if head.is_some_and(|head| head.sequence == sequence) {
                scan.head_hash = Some(placed.hash);
                scan.above_head_from = placed.group_end;
            }
            scan.entries = scan.entries.saturating_add(1);
            visit(placed);
        });
        match group {
            Ok(true) => {
                let segment = Sequence(first);
                scan.tail = reader.point().last().map(|last| Tail { last, segment, group_at });
            }
            Ok(false) => break,
            Err(fault) => {
                let above_head = head.is_none_or(|head| reader.point().next_sequence > head.sequence);
                if !(is_last && fault.may_be_torn_tail && above_head) {
                    return Err(StoreError::Damaged(fault));
                }
                cut_tail(segment, reader.header(), reader.offset()).map_err(|cut| match cut {
                    Some(error) => error,
                    None => StoreError::Damaged(fault.clone()),
                })?;
                scan.torn_tail = Some(fault);
                break;
            }
        }
    }
    scan.point = reader.point();
    scan.segments = scan.segments.saturating_add(1);
    Ok((*reader.header(), reader.offset()))
}

fn needs_restore(edge: &LogEdge) -> StoreError {
    StoreError::NeedsRestore { first: edge.point().next_sequence, places: places(edge) }
}

fn places(edge: &LogEdge) -> String {
    edge.parts().iter().map(|part| part.place.as_str()).collect::<Vec<_>>().join(" ")
}

fn write_again<F: DiskFile>(file: &F, from: u64, end: u64) -> Result<(), StoreError> {
    let mut buffer = vec![0; 64 * 1024];
    let mut at = from;
    while at < end {
        let step = usize::try_from(end.saturating_sub(at)).unwrap_or(buffer.len()).min(buffer.len());
        let bytes = buffer.get_mut(..step).unwrap_or_default();
        file.read_at(at, bytes)?;
        file.write_at(at, bytes)?;
        at = at.saturating_add(step as u64);
    }
    Ok(())
}

fn chain_head_bytes(last: AxiomRef) -> Vec<u8> {
    chain::HeadSlot(last).encode().to_vec()
}

/// Zeros what a torn write left behind `offset`, durably. None if more lies there than one write can have left.
fn cut_tail<F: DiskFile>(
    segment: &Segment<F>,
    header: &SegmentHeader,
    offset: u64,
) -> Result<(), Option<StoreError>> {
    let reach =
        offset.saturating_add(GROUP_HEADER_BYTES as u64).saturating_add(u64::from(GROUP_BODY_BYTES_MAX));
    let end = reach.min(header.capacity_bytes);
    let wrap = |error: DiskError| Some(StoreError::Disk(error));
    match chain::first_not_zero(segment, end, header.capacity_bytes) {
        Ok(None) => {}
        Ok(Some(_)) => return Err(None),
        Err(error) => return Err(wrap(DiskError::new(durable::Operation::Read, LOG_FOLDER, error))),
    }
    let zeros = vec![0; 64 * 1024];
    let mut at = offset;
    while at < end {
        let step = usize::try_from(end.saturating_sub(at)).unwrap_or(zeros.len()).min(zeros.len());
        segment.0.write_at(at, zeros.get(..step).unwrap_or_default()).map_err(wrap)?;
        at = at.saturating_add(step as u64);
    }
    segment.0.sync_data().map_err(wrap)
}

/// The log must reach the head and have the head's entry. What lies before the edge cannot be looked for: only the entry
/// that the edge stands behind is known.
fn check_head(
    head: Option<AxiomRef>,
    last: AxiomRef,
    end: &SegmentHeader,
    entries: u64,
    head_hash: Option<Hash>,
    edge: Option<&LogEdge>,
) -> Result<(), StoreError> {
    let name = segment_name(Sequence(end.entry_count));
    let fault = |cause| {
        let part = Part::Head;
        StoreError::Damaged(Fault { segment: name.clone(), offset: 0, part, cause, may_be_torn_tail: false })
    };
    let before = |head: AxiomRef| edge.filter(|edge| head.sequence <= edge.last.sequence);
    match head {
        // Genesis is synced before the head's file is made: a crash between the two leaves this and nothing more.
        None if entries > 1 => Err(StoreError::HeadMissing { entries }),
        None => Ok(()),
        Some(head) if head.sequence > last.sequence => {
            Err(fault(Cause::BelowHead { last: last.sequence, head }))
        }
        Some(head) => match before(head) {
            Some(edge) if edge.last == head => Ok(()),
            Some(edge) if edge.last.sequence == head.sequence => Err(fault(Cause::HeadMismatch { head })),
            Some(edge) => Err(StoreError::HeadArchived {
                head,
                first: edge.point().next_sequence,
                places: places(edge),
            }),
            None if head_hash != Some(head.hash) => Err(fault(Cause::HeadMismatch { head })),
            None => Ok(()),
        },
    }
}
