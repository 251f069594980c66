use base::{AxiomRef, Hash, Sequence, limits::ENTRY_HEADER_BYTES};
use thiserror::Error;

use crate::{
    codec::{array_at, lay, u32_at, u64_at},
    diagnose,
    entry::EntryHeader,
    fault::{Cause, Fault, Part},
    group::{GROUP_HEADER_BYTES, GroupHeader, Record},
    source::ReadAt,
    validate::ChainPoint,
};

/// `HALCYON_CODEX` and NUL (AX-45).
pub const SEGMENT_MAGIC: [u8; 14] = *b"HALCYON_CODEX\0";
pub const SEGMENT_VERSION: u32 = 1;
/// The header's length, also the unit that a disk writes whole (AX-45).
pub const SEGMENT_HEADER_BYTES: usize = 512;
/// Smallest capacity: header, group header and one small entry, in whole pages.
pub const SEGMENT_BYTES_MIN: u64 = 4096;
/// Largest capacity: bounds the time of zeroing and of one start-up scan step.
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

const CHECKSUM_AT: usize = 480;
const SUFFIX: &str = ".seg";
const NAME_DIGITS: usize = 20;

/// File name of the segment that begins with this entry.
#[must_use]
pub fn segment_name(first: Sequence) -> String {
    format!("{:020}{SUFFIX}", first.0)
}

/// The first entry that a segment's name states.
#[must_use]
pub fn segment_first(name: &str) -> Option<Sequence> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() != NAME_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Sequence)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SegmentHeaderError {
    #[error("the file has {0} bytes, less than the header of {SEGMENT_HEADER_BYTES}")]
    Short(u64),
    #[error("the file does not begin with HALCYON_CODEX")]
    Magic,
    #[error("version {0} of the format needs a newer reader; this one reads {SEGMENT_VERSION}")]
    Version(u32),
    #[error("the header's checksum does not match")]
    Checksum,
    #[error("unknown flags {0:#x}")]
    Flags(u32),
    #[error("a segment has {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} bytes in whole pages, not {0}")]
    Capacity(u64),
    #[error("last sequence and entry count do not fit together")]
    Count,
    #[error("the header says {header} entries lie before, the name says {name}")]
    Name { header: u64, name: Sequence },
    #[error("the segment does not continue the chain: another hash stands before it")]
    Continuity,
}

/// The first 512 bytes of a segment, written once when it is begun: what lies *before* it. So no segment is ever
/// rewritten, and each can be verified alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Entries before this segment, so also its first sequence number.
    pub entry_count: u64,
    /// Last entry before this segment; 0 in the first one.
    pub last_sequence: u64,
    /// Hash of the last entry before this segment; zero in the first one.
    pub last_hash: Hash,
    /// Length of the file.
    pub capacity_bytes: u64,
    /// Part of each group's checksum. Unknown to those who submit entries, so no payload can be taken for a group.
    pub salt: [u8; 16],
}

impl SegmentHeader {
    /// The header of a segment that begins at `point`.
    #[must_use]
    pub const fn at(point: &ChainPoint, capacity_bytes: u64, salt: [u8; 16]) -> Self {
        let entry_count = point.next_sequence.0;
        let last_sequence = entry_count.saturating_sub(1);
        Self { entry_count, last_sequence, last_hash: point.last_hash, capacity_bytes, salt }
    }

    /// The place in the chain at which the segment begins.
    #[must_use]
    pub const fn point(&self) -> ChainPoint {
        ChainPoint { next_sequence: Sequence(self.entry_count), last_hash: self.last_hash }
    }

    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let fields: [u8; CHECKSUM_AT] = lay(&[
            &SEGMENT_MAGIC,
            &SEGMENT_VERSION.to_le_bytes(),
            &0_u32.to_le_bytes(),
            &self.entry_count.to_le_bytes(),
            &self.last_sequence.to_le_bytes(),
            &self.last_hash.0,
            &self.capacity_bytes.to_le_bytes(),
            &self.salt,
        ]);
        lay(&[&fields, &Hash::of(&fields).0])
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentHeaderError> {
        use SegmentHeaderError as E;
        let short = || E::Short(bytes.len() as u64);
        let fields = bytes.get(..CHECKSUM_AT).ok_or_else(short)?;
        let checksum = Hash(array_at(bytes, CHECKSUM_AT).ok_or_else(short)?);
        if !fields.starts_with(&SEGMENT_MAGIC) {
            return Err(E::Magic);
        }
        if checksum != Hash::of(fields) {
            return Err(E::Checksum);
        }
        match (u32_at(fields, 14).ok_or_else(short)?, u32_at(fields, 18).ok_or_else(short)?) {
            (SEGMENT_VERSION, 0) => {}
            (SEGMENT_VERSION, flags) => return Err(E::Flags(flags)),
            (version, _) => return Err(E::Version(version)),
        }
        let header = Self {
            entry_count: u64_at(fields, 22).ok_or_else(short)?,
            last_sequence: u64_at(fields, 30).ok_or_else(short)?,
            last_hash: Hash(array_at(fields, 38).ok_or_else(short)?),
            capacity_bytes: u64_at(fields, 70).ok_or_else(short)?,
            salt: array_at(fields, 78).ok_or_else(short)?,
        };
        let in_range = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&header.capacity_bytes);
        if !in_range || !header.capacity_bytes.is_multiple_of(SEGMENT_BYTES_MIN) {
            return Err(E::Capacity(header.capacity_bytes));
        }
        if header.last_sequence != header.entry_count.saturating_sub(1) {
            return Err(E::Count);
        }
        Ok(header)
    }
}

/// An entry and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'b> {
    pub record: Record<'b>,
    pub hash: Hash,
    /// Of the record, from the start of the segment.
    pub offset: u64,
    /// End of the record's group.
    pub group_end: u64,
}

/// Reads one segment from front to back, group by group, and believes nothing.
pub struct SegmentReader<R> {
    segment: R,
    name: String,
    header: SegmentHeader,
    point: ChainPoint,
    offset: u64,
    body: Vec<u8>,
}

impl<R: ReadAt> SegmentReader<R> {
    /// Checks name, length and header; where `expected` is given, also that the segment continues the chain there.
    pub fn open(segment: R, name: &str, expected: Option<&ChainPoint>) -> Result<Self, Fault> {
        let first = segment_first(name).ok_or_else(|| Fault::new(name, 0, Part::Segment, Cause::Name))?;
        let size_bytes = segment.size_bytes().map_err(|error| Fault::read(name, 0, &error))?;
        let in_header = |error| Fault::new(name, 0, Part::SegmentHeader, Cause::SegmentHeader(error));
        if size_bytes < SEGMENT_HEADER_BYTES as u64 {
            return Err(in_header(SegmentHeaderError::Short(size_bytes)));
        }
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        segment.read_exact_at(0, &mut bytes).map_err(|error| Fault::read(name, 0, &error))?;
        let header = SegmentHeader::decode(&bytes).map_err(in_header)?;
        if header.entry_count != first.0 {
            return Err(in_header(SegmentHeaderError::Name { header: header.entry_count, name: first }));
        }
        if header.capacity_bytes != size_bytes {
            let cause = Cause::Length { expected: header.capacity_bytes, found: size_bytes };
            return Err(Fault::new(name, size_bytes, Part::Segment, cause));
        }
        if let Some(expected) = expected {
            if expected.next_sequence != first {
                let cause = Cause::SegmentGap { expected: expected.next_sequence, found: first };
                return Err(Fault::new(name, 0, Part::Segment, cause));
            }
            if expected.last_hash != header.last_hash {
                return Err(in_header(SegmentHeaderError::Continuity));
            }
        }
        let offset = SEGMENT_HEADER_BYTES as u64;
        Ok(Self { segment, name: name.to_owned(), header, point: header.point(), offset, body: Vec::new() })
    }

    /// Goes on behind the group that stands at `group_at`: it is read and verified, and must end in `last`. What lies
    /// before it in the segment is not read; for readers that know it by other means.
    pub fn resume(segment: R, name: &str, group_at: u64, last: AxiomRef) -> Result<Self, Fault> {
        let mut reader = Self::open(segment, name, None)?;
        reader.offset = group_at;
        let elsewhere = || Fault::new(name, group_at, Part::Head, Cause::HeadMismatch { head: last });
        let room = reader.header.capacity_bytes.checked_sub(group_at);
        if group_at < SEGMENT_HEADER_BYTES as u64 || room.is_none_or(|room| room < GROUP_HEADER_BYTES as u64)
        {
            return Err(elsewhere());
        }
        let header = reader.read_group_header()?.ok_or_else(elsewhere)?;
        let mut first = [0; ENTRY_HEADER_BYTES];
        let first_at = group_at.saturating_add(GROUP_HEADER_BYTES as u64);
        if reader.header.capacity_bytes.saturating_sub(first_at) < first.len() as u64 {
            return Err(elsewhere());
        }
        let read = reader.segment.read_exact_at(first_at, &mut first);
        read.map_err(|error| Fault::read(name, first_at, &error))?;
        let last_hash = EntryHeader::decode(&first).map_err(|_| elsewhere())?.prev_hash;
        reader.point = ChainPoint { next_sequence: header.first, last_hash };
        match reader.next_group(|_| {})? && reader.point == ChainPoint::after(last) {
            true => Ok(reader),
            false => Err(elsewhere()),
        }
    }

    #[must_use]
    pub const fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The place in the chain behind the last group that was read.
    #[must_use]
    pub const fn point(&self) -> ChainPoint {
        self.point
    }

    /// End of the last group that was read.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads and verifies the next group and shows each entry to `visit`. False at the end, when all that follows is zero.
    ///
    /// The log may be written meanwhile. Bytes that were read before the group was whole are no damage, though by now it
    /// is whole and others stand behind it; and one that is not whole yet is read again as long as the source says so.
    pub fn next_group(&mut self, mut visit: impl FnMut(&Placed<'_>)) -> Result<bool, Fault> {
        let mut tries = 0_u32;
        let taken = loop {
            match self.take_group() {
                // What is whole now stays as it is: read once more, it holds or is damaged.
                Err(_) if self.is_whole() => break self.take_group()?,
                Err(fault) if fault.may_be_torn_tail && self.segment.settle(tries) => {
                    tries = tries.saturating_add(1);
                }
                other => break other?,
            }
        };
        let Some(header) = taken else { return Ok(false) };
        let body_at = self.offset.saturating_add(GROUP_HEADER_BYTES as u64);
        let group_end = body_at.saturating_add(u64::from(header.body_bytes));
        let mut point = self.point;
        let mut rest = self.body.as_slice();
        let mut offset = body_at;
        for _ in 0..header.entry_count {
            let sequence = point.next_sequence;
            let whole =
                Record::split(rest).and_then(|(record, left)| Ok((record, record.verify(&mut point)?, left)));
            let (record, hash, left) =
                whole.map_err(|error| Fault::new(&self.name, offset, Part::Entry(sequence), error))?;
            visit(&Placed { record, hash, offset, group_end });
            offset = offset.saturating_add(record.size_bytes() as u64);
            rest = left;
        }
        if !rest.is_empty() {
            return Err(Fault::new(
                &self.name,
                self.offset,
                Part::GroupHeader(header.first),
                Cause::NotAGroup,
            ));
        }
        self.point = point;
        self.offset = group_end;
        Ok(true)
    }

    /// Reads the next group's bytes and checks them against its header; None at the end.
    fn take_group(&mut self) -> Result<Option<GroupHeader>, Fault> {
        let Some(header) = self.read_group_header()? else { return self.check_end().map(|()| None) };
        let body_at = self.offset.saturating_add(GROUP_HEADER_BYTES as u64);
        let group_end = body_at.saturating_add(u64::from(header.body_bytes));
        if header.first != self.point.next_sequence || group_end > self.header.capacity_bytes {
            return Err(self.diagnose());
        }
        self.body.resize(header.body_bytes as usize, 0);
        let read = self.segment.read_exact_at(body_at, &mut self.body);
        read.map_err(|error| Fault::read(&self.name, body_at, &error))?;
        if header.checksum != header.checksum_of(&self.header.salt, &self.body) {
            return Err(self.diagnose());
        }
        Ok(Some(header))
    }

    /// Whether a whole group stands at the offset.
    fn is_whole(&self) -> bool {
        diagnose::is_group_at(&self.segment, &self.header, self.offset).unwrap_or(false)
    }

    fn read_group_header(&self) -> Result<Option<GroupHeader>, Fault> {
        let left = self.header.capacity_bytes.saturating_sub(self.offset);
        if left < GROUP_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut bytes = [0; GROUP_HEADER_BYTES];
        let read = self.segment.read_exact_at(self.offset, &mut bytes);
        read.map_err(|error| Fault::read(&self.name, self.offset, &error))?;
        Ok(GroupHeader::decode(&self.header.salt, &bytes))
    }

    fn check_end(&self) -> Result<(), Fault> {
        let end = self.header.capacity_bytes;
        match diagnose::first_not_zero(&self.segment, self.offset, end) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(self.diagnose()),
            Err(error) => Err(Fault::read(&self.name, self.offset, &error)),
        }
    }

    fn diagnose(&self) -> Fault {
        diagnose::name_damage(&self.segment, &self.name, &self.header, self.offset, &self.point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: AX-45
    #[test]
    fn the_header_stands_where_it_is_specified() {
        let point = ChainPoint { next_sequence: Sequence(7), last_hash: Hash::of(b"six") };
        let header = SegmentHeader::at(&point, 8192, [5; 16]);
        let bytes = header.encode();
        assert_eq!(&bytes[..14], b"HALCYON_CODEX\0");
        assert_eq!(bytes[14..22], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[22..30], 7u64.to_le_bytes());
        assert_eq!(bytes[30..38], 6u64.to_le_bytes());
        assert_eq!(bytes[38..70], Hash::of(b"six").0);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        assert_eq!(header.point(), point);
        for at in 0..SEGMENT_HEADER_BYTES {
            let mut flipped = bytes;
            flipped[at] ^= 0x10;
            assert!(SegmentHeader::decode(&flipped).is_err(), "byte {at}");
        }
        assert_eq!(SegmentHeader::decode(&bytes[..511]), Err(SegmentHeaderError::Short(511)));
    }

    #[test]
    fn capacity_is_bounded_at_the_limits() {
        let capacity =
            |bytes| SegmentHeader::decode(&SegmentHeader::at(&ChainPoint::GENESIS, bytes, [0; 16]).encode());
        for good in [SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX] {
            assert!(capacity(good).is_ok());
        }
        for bad in [0, SEGMENT_BYTES_MIN + 1, SEGMENT_BYTES_MAX + SEGMENT_BYTES_MIN, u64::MAX] {
            assert_eq!(capacity(bad), Err(SegmentHeaderError::Capacity(bad)));
        }
    }

    #[test]
    fn names_are_twenty_digits() {
        assert_eq!(segment_name(Sequence(42)), "00000000000000000042.seg");
        assert_eq!(segment_first("00000000000000000042.seg"), Some(Sequence(42)));
        assert_eq!(segment_first(&segment_name(Sequence(u64::MAX))), Some(Sequence(u64::MAX)));
        for bad in ["42.seg", "00000000000000000042", "+0000000000000000042.seg", "99999999999999999999.seg"]
        {
            assert_eq!(segment_first(bad), None, "{bad}");
        }
    }
}
