//! What is damaged at a place where no valid group stands: the search for the name that a fault carries.

use std::io;

use base::Sequence;

use crate::{
    fault::{Cause, Fault, Part},
    group::{GROUP_BODY_BYTES_MAX, GROUP_HEADER_BYTES, GROUP_MAGIC, GroupHeader, Record, RecordError},
    segment::SegmentHeader,
    source::ReadAt,
    validate::ChainPoint,
};

/// Bytes read at once while looking through padding.
const CHUNK_BYTES: usize = 64 * 1024;
static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];
/// Bodies that one search hashes, each of up to 4 MiB: whoever made a file can fill it with headers that look right. A
/// write that was cut off leaves no header of its segment behind its own.
const BODIES_HASHED_MAX: usize = 16;

/// Offset of the first byte from `from` to `end` that is not zero.
pub fn first_not_zero(segment: &impl ReadAt, from: u64, end: u64) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = from;
    while at < end {
        let wanted = usize::try_from(end.saturating_sub(at)).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let chunk = buffer.get_mut(..wanted).unwrap_or_default();
        segment.read_exact_at(at, chunk)?;
        if ZEROS.get(..wanted) != Some(&*chunk) {
            let inside = chunk.iter().position(|byte| *byte != 0).unwrap_or(0);
            return Ok(Some(at.saturating_add(inside as u64)));
        }
        at = at.saturating_add(wanted as u64);
    }
    Ok(None)
}

/// Offset of a valid group behind `from`, wherever it stands. Behind `BODIES_HASHED_MAX` headers of this segment whose body
/// does not fit, the next such header is believed: a torn write leaves none, so what stands here is not to be cut off.
pub(crate) fn later_group(
    segment: &impl ReadAt,
    header: &SegmentHeader,
    from: u64,
) -> io::Result<Option<(u64, Sequence)>> {
    let end = header.capacity_bytes;
    let overlap = GROUP_MAGIC.len().saturating_sub(1);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = from;
    let mut hashed = 0_usize;
    while at.saturating_add(GROUP_HEADER_BYTES as u64) <= end {
        let wanted = usize::try_from(end.saturating_sub(at)).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let chunk = buffer.get_mut(..wanted).unwrap_or_default();
        segment.read_exact_at(at, chunk)?;
        if ZEROS.get(..wanted) != Some(&*chunk) {
            for (inside, _) in
                chunk.windows(GROUP_MAGIC.len()).enumerate().filter(|(_, bytes)| *bytes == GROUP_MAGIC)
            {
                let place = at.saturating_add(inside as u64);
                let Some(group) = header_at(segment, header, place)? else { continue };
                if hashed >= BODIES_HASHED_MAX || has_body(segment, header, place, &group)? {
                    return Ok(Some((place, group.first)));
                }
                hashed = hashed.saturating_add(1);
            }
        }
        at = at.saturating_add(wanted.saturating_sub(overlap).max(1) as u64);
    }
    Ok(None)
}

/// The group header at `at`, if one of this segment stands there and its body would have room.
fn header_at(segment: &impl ReadAt, header: &SegmentHeader, at: u64) -> io::Result<Option<GroupHeader>> {
    let body_at = at.saturating_add(GROUP_HEADER_BYTES as u64);
    if body_at > header.capacity_bytes {
        return Ok(None);
    }
    let mut bytes = [0; GROUP_HEADER_BYTES];
    segment.read_exact_at(at, &mut bytes)?;
    let has_room =
        |group: &GroupHeader| body_at.saturating_add(u64::from(group.body_bytes)) <= header.capacity_bytes;
    Ok(GroupHeader::decode(&header.salt, &bytes).filter(has_room))
}

/// Whether the body of the group at `at` is the one that its header was made for.
fn has_body(segment: &impl ReadAt, header: &SegmentHeader, at: u64, group: &GroupHeader) -> io::Result<bool> {
    let mut body = vec![0; group.body_bytes as usize];
    segment.read_exact_at(at.saturating_add(GROUP_HEADER_BYTES as u64), &mut body)?;
    Ok(group.checksum == group.checksum_of(&header.salt, &body))
}

/// Whether a whole group of this segment stands at `at`.
pub(crate) fn is_group_at(segment: &impl ReadAt, header: &SegmentHeader, at: u64) -> io::Result<bool> {
    match header_at(segment, header, at)? {
        Some(group) => has_body(segment, header, at, &group),
        None => Ok(false),
    }
}

/// As much from `at` as the group there claims, never more than the largest group or the segment holds.
fn read_group(segment: &impl ReadAt, header: &SegmentHeader, at: u64) -> io::Result<Vec<u8>> {
    let left = header.capacity_bytes.saturating_sub(at);
    let most = left.min(u64::from(GROUP_BODY_BYTES_MAX) + GROUP_HEADER_BYTES as u64);
    let mut bytes = vec![0; usize::try_from(most).unwrap_or(0)];
    segment.read_exact_at(at, &mut bytes)?;
    Ok(bytes)
}

/// Names the damage at `offset`, where a group should begin or only zeros should follow.
pub(crate) fn name_damage(
    segment: &impl ReadAt,
    name: &str,
    header: &SegmentHeader,
    offset: u64,
    point: &ChainPoint,
) -> Fault {
    match try_name(segment, name, header, offset, point) {
        Ok(fault) => fault,
        Err(error) => Fault::read(name, offset, &error),
    }
}

fn try_name(
    segment: &impl ReadAt,
    name: &str,
    header: &SegmentHeader,
    offset: u64,
    point: &ChainPoint,
) -> io::Result<Fault> {
    let bytes = read_group(segment, header, offset)?;
    // Mostly the next group stands where this one says; only if it does not, all that follows is searched.
    let group = GroupHeader::decode_unchecked(&bytes);
    let stated =
        group.map_or(0, |group| u64::from(group.body_bytes)).saturating_add(GROUP_HEADER_BYTES as u64);
    let follows = is_group_at(segment, header, offset.saturating_add(stated))?;
    let torn = !follows && later_group(segment, header, offset.saturating_add(1))?.is_none();
    let fault = |at: u64, part: Part, cause: Cause| Fault {
        may_be_torn_tail: torn,
        ..Fault::new(name, at, part, cause)
    };
    let has_magic = bytes.starts_with(&GROUP_MAGIC);
    let walk = Walk::over(bytes.get(GROUP_HEADER_BYTES..).unwrap_or_default(), point);
    if let Some(group) = group.filter(|_| has_magic || walk.entries > 0) {
        let in_header = |cause| fault(offset, Part::GroupHeader(point.next_sequence), cause);
        let long = u64::from(group.body_bytes) > header.capacity_bytes.saturating_sub(offset);
        // The records agree with the count or with the length: then the header is what does not fit.
        if walk.entries >= u64::from(group.entry_count) || walk.bytes == u64::from(group.body_bytes) {
            return Ok(in_header(if has_magic { Cause::Checksum } else { Cause::NotAGroup }));
        }
        if group.first != point.next_sequence || !group.within_limits() {
            let cause = if long { Cause::GroupTooLong } else { Cause::NotAGroup };
            return Ok(in_header(cause));
        }
        let at = offset.saturating_add(GROUP_HEADER_BYTES as u64).saturating_add(walk.bytes);
        let sequence = Sequence(point.next_sequence.0.saturating_add(walk.entries));
        return Ok(fault(at, Part::Entry(sequence), walk.error.map_or(Cause::Checksum, Cause::from)));
    }
    let at = first_not_zero(segment, offset, header.capacity_bytes)?.unwrap_or(offset);
    Ok(fault(at, Part::Padding, Cause::NotZero))
}

/// How far records that fit the chain reach.
struct Walk {
    entries: u64,
    bytes: u64,
    error: Option<RecordError>,
}

impl Walk {
    fn over(body: &[u8], point: &ChainPoint) -> Self {
        let mut walk = Self { entries: 0, bytes: 0, error: None };
        let mut point = *point;
        let mut rest = body;
        loop {
            let whole = Record::split(rest).and_then(|(record, left)| {
                record.verify(&mut point)?;
                Ok((record.size_bytes() as u64, left))
            });
            match whole {
                Ok((bytes, left)) => {
                    walk.entries = walk.entries.saturating_add(1);
                    walk.bytes = walk.bytes.saturating_add(bytes);
                    rest = left;
                }
                Err(error) => {
                    walk.error = Some(error);
                    return walk;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: u64 = 4 * CHUNK_BYTES as u64;
    const SALT: [u8; 16] = [3; 16];
    const FIRST: Sequence = Sequence(9);

    fn header() -> SegmentHeader {
        SegmentHeader::at(&ChainPoint::GENESIS, CAPACITY, SALT)
    }

    fn group(salt: &[u8; 16]) -> Vec<u8> {
        let body = b"some bytes";
        [GroupHeader::of_body(salt, FIRST, 1, body).encode().as_slice(), body].concat()
    }

    /// A segment of zeros with these bytes in it; what reaches over its end is cut off.
    fn segment_with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; CAPACITY as usize];
        segment.splice(at.., bytes.iter().copied().chain(std::iter::repeat(0)).take(CAPACITY as usize - at));
        segment
    }

    #[test]
    fn the_first_byte_that_is_not_zero_is_found_wherever_it_stands() {
        let end = CAPACITY - 3;
        for at in [512, 513, CHUNK_BYTES - 1, CHUNK_BYTES, 512 + CHUNK_BYTES, CAPACITY as usize - 4] {
            let segment = segment_with(at, &[7, 7]);
            let at = at as u64;
            assert_eq!(first_not_zero(&segment, 512, end).unwrap(), Some(at));
            assert_eq!(first_not_zero(&segment, at, end).unwrap(), Some(at));
            assert_eq!(first_not_zero(&segment, 512, at).unwrap(), None, "the end is not looked at");
            assert_eq!(first_not_zero(&segment, at + 2, end).unwrap(), None);
        }
    }

    #[test]
    fn a_later_group_is_found_wherever_it_stands() {
        let from = 600;
        let last = CAPACITY as usize - group(&SALT).len();
        let near = |at: usize| at - 10..at + 10;
        let borders = [from + CHUNK_BYTES, from + 2 * CHUNK_BYTES, CHUNK_BYTES, from + 10];
        for at in borders.into_iter().flat_map(near).chain([last - 1, last]) {
            let segment = segment_with(at, &group(&SALT));
            let at = at as u64;
            let find = |from| later_group(&segment, &header(), from).unwrap();
            let expected = Some((at, FIRST));
            assert_eq!([find(from as u64), find(at), find(at + 1)], [expected, expected, None], "{at}");
        }
    }

    #[test]
    fn what_only_looks_like_a_group_is_passed_over() {
        let whole = group(&SALT);
        let cut = segment_with(CAPACITY as usize - whole.len() + 1, &whole);
        let header_cut = segment_with(CAPACITY as usize - GROUP_HEADER_BYTES + 1, &whole);
        let foreign = segment_with(700, &group(&[4; 16]));
        let mut changed = segment_with(700, &whole);
        changed[700 + GROUP_HEADER_BYTES] ^= 1;
        for segment in [cut, header_cut, foreign, changed] {
            assert_eq!(later_group(&segment, &header(), 600).unwrap(), None);
        }
        let mut two = segment_with(700, &group(&[4; 16]));
        two[900..900 + whole.len()].copy_from_slice(&whole);
        assert_eq!(later_group(&two, &header(), 600).unwrap(), Some((900, FIRST)));
    }

    /// Counts the bytes that are read.
    struct Counted<'s>(&'s [u8], std::cell::Cell<u64>);

    impl ReadAt for Counted<'_> {
        fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.1.set(self.1.get() + buffer.len() as u64);
            self.0.read_exact_at(offset, buffer)
        }

        fn size_bytes(&self) -> io::Result<u64> {
            self.0.size_bytes()
        }
    }

    #[test]
    fn no_file_makes_a_search_hash_without_end() {
        let body_bytes = CAPACITY as u32 / 2;
        let claim = |first: u64| {
            let mut claimed = GroupHeader::of_body(&SALT, Sequence(first), 1, b"");
            claimed.body_bytes = body_bytes;
            claimed.fields_check = claimed.check_of_fields(&SALT);
            claimed.encode()
        };
        let filled = |headers: usize| {
            let bytes: Vec<u8> = (0..headers as u64).flat_map(claim).collect();
            segment_with(600, &bytes)
        };
        let below = filled(BODIES_HASHED_MAX);
        assert_eq!(later_group(&below, &header(), 600).unwrap(), None);
        let place = 600 + (BODIES_HASHED_MAX * GROUP_HEADER_BYTES) as u64;
        let expected = Some((place, Sequence(BODIES_HASHED_MAX as u64)));
        for headers in [BODIES_HASHED_MAX + 1, 1000] {
            let segment = filled(headers);
            let counted = Counted(&segment, std::cell::Cell::new(0));
            assert_eq!(later_group(&counted, &header(), 600).unwrap(), expected);
            let most = BODIES_HASHED_MAX as u64 * u64::from(body_bytes) + CAPACITY;
            assert!(counted.1.get() <= most, "{} bytes read", counted.1.get());
        }
        // What looks like that is never cut off.
        let fault = name_damage(&filled(1000), "s", &header(), 536, &ChainPoint::GENESIS);
        assert!(!fault.may_be_torn_tail);
    }

    #[test]
    fn a_header_that_cannot_stand_here_is_named_by_what_it_claims() {
        let cause = |first, body_bytes| {
            let mut claimed = GroupHeader::of_body(&SALT, first, 1, b"");
            claimed.body_bytes = body_bytes;
            let segment = segment_with(512, &claimed.encode());
            let fault = name_damage(&segment, "s", &header(), 512, &ChainPoint::GENESIS);
            assert_eq!((fault.offset, fault.may_be_torn_tail), (512, true));
            (fault.part, fault.cause)
        };
        let here = Part::GroupHeader(Sequence(0));
        let left = CAPACITY as u32 - 512;
        assert_eq!(cause(FIRST, left), (here, Cause::NotAGroup));
        assert_eq!(cause(FIRST, left + 1), (here, Cause::GroupTooLong));
        assert_eq!(cause(Sequence(0), GROUP_BODY_BYTES_MAX + 1), (here, Cause::GroupTooLong));
    }
}
