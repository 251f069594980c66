use base::{
    Hash, Sequence, Signature,
    limits::{ENTRY_HEADER_BYTES, ENTRY_SIZE_BYTES_MAX},
};
use thiserror::Error;

use crate::{
    codec::{array_at, lay, u32_at, u64_at},
    entry::{Entry, EntryHeader, HeaderError},
    validate::{ChainError, ChainPoint},
};

/// First bytes of a group; the last one is the version.
pub const GROUP_MAGIC: [u8; 8] = *b"BWGROUP\x01";
/// Magic, first sequence, entry count, body length, check of these fields, checksum over all of the group.
pub const GROUP_HEADER_BYTES: usize = 64;
/// Entries of one group: 2^12, so that a decision's Merkle path has at most 12 steps.
pub const GROUP_ENTRIES_MAX: u32 = 4096;
/// Bytes of a group's records: bounds what a reader must hold at once and how long one write takes (about 2 ms).
pub const GROUP_BODY_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Bytes of the check behind each record.
pub const RECORD_CHECK_BYTES: usize = 8;
/// A record with the largest payload and a signature.
pub const RECORD_BYTES_MAX: usize = ENTRY_SIZE_BYTES_MAX + 1 + Signature::BYTES + RECORD_CHECK_BYTES;

const FIELDS_BYTES: usize = 24;
const CHECKSUM_AT: usize = 32;
const UNSIGNED: u8 = 0;
const SIGNED: u8 = 1;

/// Bytes that an entry takes in a group.
#[must_use]
pub const fn record_bytes(payload: usize, signed: bool) -> usize {
    let signature = if signed { Signature::BYTES } else { 0 };
    ENTRY_HEADER_BYTES.saturating_add(1 + signature + RECORD_CHECK_BYTES).saturating_add(payload)
}

/// Stands before the records of a group. The group is there whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    pub first: Sequence,
    pub entry_count: u32,
    pub body_bytes: u32,
    /// Over the fields alone and the segment's salt: so a search for groups reads no body for bytes that only look like
    /// one, and nobody who does not know the salt can make such bytes.
    pub fields_check: [u8; 8],
    /// Over salt, fields and body.
    pub checksum: Hash,
}

impl GroupHeader {
    /// The header that belongs to a body. `salt` is the segment's.
    #[must_use]
    pub fn of_body(salt: &[u8; 16], first: Sequence, entry_count: u32, body: &[u8]) -> Self {
        let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut header = Self { first, entry_count, body_bytes, fields_check: [0; 8], checksum: Hash::ZERO };
        header.fields_check = header.check_of_fields(salt);
        header.checksum = header.checksum_of(salt, body);
        header
    }

    #[must_use]
    pub fn checksum_of(&self, salt: &[u8; 16], body: &[u8]) -> Hash {
        Hash::of_parts(&[salt, &self.fields(), body])
    }

    #[must_use]
    pub fn check_of_fields(&self, salt: &[u8; 16]) -> [u8; 8] {
        first_8(&Hash::of_parts(&[salt, &self.fields()]))
    }

    #[must_use]
    pub fn encode(&self) -> [u8; GROUP_HEADER_BYTES] {
        lay(&[&self.fields(), &self.fields_check, &self.checksum.0])
    }

    fn fields(&self) -> [u8; FIELDS_BYTES] {
        lay(&[
            &GROUP_MAGIC,
            &self.first.0.to_le_bytes(),
            &self.entry_count.to_le_bytes(),
            &self.body_bytes.to_le_bytes(),
        ])
    }

    /// Reads the fields, whatever magic and check say; None where the bytes end before.
    #[must_use]
    pub fn decode_unchecked(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            first: Sequence(u64_at(bytes, 8)?),
            entry_count: u32_at(bytes, 16)?,
            body_bytes: u32_at(bytes, 20)?,
            fields_check: array_at(bytes, FIELDS_BYTES)?,
            checksum: Hash(array_at(bytes, CHECKSUM_AT)?),
        })
    }

    /// Reads a header of a segment with this salt; None unless magic, check and limits hold.
    #[must_use]
    pub fn decode(salt: &[u8; 16], bytes: &[u8]) -> Option<Self> {
        let header = Self::decode_unchecked(bytes)?;
        let sound = bytes.starts_with(&GROUP_MAGIC) && header.within_limits();
        (sound && header.fields_check == header.check_of_fields(salt)).then_some(header)
    }

    #[must_use]
    pub const fn within_limits(&self) -> bool {
        self.entry_count >= 1
            && self.entry_count <= GROUP_ENTRIES_MAX
            && self.body_bytes <= GROUP_BODY_BYTES_MAX
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    #[error("the record ends behind the end of its group")]
    Short,
    #[error("the entry header cannot be read: {0}")]
    Header(HeaderError),
    #[error("the signature flag is {0}, not 0 or 1")]
    SignatureFlag(u8),
    #[error(transparent)]
    Chain(ChainError),
    #[error("header, payload or signature does not match the record's check")]
    Check,
}

/// One entry inside a group, not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'b> {
    pub header: EntryHeader,
    pub payload: &'b [u8],
    pub signature: Option<Signature>,
    check: [u8; RECORD_CHECK_BYTES],
}

impl<'b> Record<'b> {
    /// Splits the record from the front of `bytes`: lengths only, hashes are checked by `verify`.
    pub fn split(bytes: &'b [u8]) -> Result<(Self, &'b [u8]), RecordError> {
        let (header, rest) = bytes.split_at_checked(ENTRY_HEADER_BYTES).ok_or(RecordError::Short)?;
        let header = EntryHeader::decode(header).map_err(RecordError::Header)?;
        let (flag, rest) = rest.split_first().ok_or(RecordError::Short)?;
        let (signature, rest) = match *flag {
            UNSIGNED => (None, rest),
            SIGNED => {
                let (signature, rest) = rest.split_first_chunk().ok_or(RecordError::Short)?;
                (Some(Signature(*signature)), rest)
            }
            other => return Err(RecordError::SignatureFlag(other)),
        };
        let (payload, rest) =
            rest.split_at_checked(header.payload_size as usize).ok_or(RecordError::Short)?;
        let (check, rest) = rest.split_first_chunk().ok_or(RecordError::Short)?;
        Ok((Self { header, payload, signature, check: *check }, rest))
    }

    /// Checks that the entry belongs at `point` and is whole; moves `point` past it and gives the entry's hash.
    pub fn verify(&self, point: &mut ChainPoint) -> Result<Hash, RecordError> {
        let mut next = *point;
        let hash = next.step(&self.header, self.payload).map_err(RecordError::Chain)?;
        if check_of(&hash, self.signature.as_ref()) != self.check {
            return Err(RecordError::Check);
        }
        *point = next;
        Ok(hash)
    }

    /// The entry's hash, checked against the record alone: for a read in the middle of a log that was verified before.
    pub fn verify_alone(&self) -> Result<Hash, RecordError> {
        let mut before = ChainPoint { next_sequence: self.header.sequence, last_hash: self.header.prev_hash };
        self.verify(&mut before)
    }

    #[must_use]
    pub fn to_entry(&self) -> Entry {
        Entry { header: self.header, payload: self.payload.to_vec(), signature: self.signature }
    }

    /// Bytes that the record takes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        record_bytes(self.payload.len(), self.signature.is_some())
    }
}

/// The records of a group's body in order; ends at the first that cannot be split.
pub struct Records<'b> {
    rest: &'b [u8],
}

impl<'b> Records<'b> {
    #[must_use]
    pub const fn new(body: &'b [u8]) -> Self {
        Self { rest: body }
    }
}

impl<'b> Iterator for Records<'b> {
    type Item = Result<Record<'b>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match Record::split(self.rest) {
            Ok((record, rest)) => {
                self.rest = rest;
                Some(Ok(record))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// First bytes of the entry's hash; of hash and signature where one is there, as the hash does not cover it.
fn check_of(hash: &Hash, signature: Option<&Signature>) -> [u8; RECORD_CHECK_BYTES] {
    let whole = signature.map_or(*hash, |signature| Hash::of_parts(&[&hash.0, &signature.0]));
    first_8(&whole)
}

fn first_8(hash: &Hash) -> [u8; 8] {
    lay(&[hash.0.first_chunk::<8>().unwrap_or(&[0; 8])])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GroupError {
    #[error("a group has at most {GROUP_ENTRIES_MAX} entries")]
    Entries,
    #[error("the records of a group have at most {GROUP_BODY_BYTES_MAX} bytes, not {0}")]
    Body(usize),
    #[error("a group has at least one entry")]
    Empty,
}

/// Lays entries out as one group. The buffer can be used again for the next one.
#[derive(Debug)]
pub struct GroupBuilder {
    bytes: Vec<u8>,
    first: Sequence,
    entry_count: u32,
}

impl GroupBuilder {
    /// Begins a group in `buffer`, whose content is dropped and whose memory is kept.
    #[must_use]
    pub fn new(mut buffer: Vec<u8>, first: Sequence) -> Self {
        buffer.clear();
        buffer.resize(GROUP_HEADER_BYTES, 0);
        Self { bytes: buffer, first, entry_count: 0 }
    }

    #[must_use]
    pub const fn entry_count(&self) -> u32 {
        self.entry_count
    }

    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds an entry whose hash the caller has computed; gives the record's offset from the group's start.
    pub fn push(&mut self, entry: &Entry, hash: &Hash) -> Result<u32, GroupError> {
        if self.entry_count >= GROUP_ENTRIES_MAX {
            return Err(GroupError::Entries);
        }
        let body = self.bytes.len().saturating_sub(GROUP_HEADER_BYTES);
        let more = body.saturating_add(record_bytes(entry.payload.len(), entry.signature.is_some()));
        if more > GROUP_BODY_BYTES_MAX as usize {
            return Err(GroupError::Body(more));
        }
        let offset = u32::try_from(self.bytes.len()).map_err(|_| GroupError::Body(more))?;
        self.bytes.extend_from_slice(&entry.header.encode());
        match &entry.signature {
            None => self.bytes.push(UNSIGNED),
            Some(signature) => {
                self.bytes.push(SIGNED);
                self.bytes.extend_from_slice(&signature.0);
            }
        }
        self.bytes.extend_from_slice(&entry.payload);
        self.bytes.extend_from_slice(&check_of(hash, entry.signature.as_ref()));
        self.entry_count = self.entry_count.saturating_add(1);
        Ok(offset)
    }

    /// The group's bytes, ready for one write into the segment with this salt.
    pub fn finish(mut self, salt: &[u8; 16]) -> Result<Vec<u8>, GroupError> {
        if self.entry_count == 0 {
            return Err(GroupError::Empty);
        }
        if let Some((header, body)) = self.bytes.split_first_chunk_mut::<GROUP_HEADER_BYTES>() {
            *header = GroupHeader::of_body(salt, self.first, self.entry_count, body).encode();
        }
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use base::AxiomTime;

    use super::*;
    use crate::entry_type::EntryType;

    const SALT: [u8; 16] = [3; 16];

    fn entry(payload: Vec<u8>) -> (Entry, Hash) {
        Entry::next(Sequence(5), Hash::of(b"x"), AxiomTime(9), EntryType::Receipt, payload).unwrap()
    }

    #[test]
    fn a_group_reads_back_as_it_was_written() {
        let (mut signed, hash) = entry(vec![1, 2, 3]);
        signed.signature = Some(Signature([4; 64]));
        let (plain, plain_hash) =
            Entry::next(Sequence(6), hash, AxiomTime(9), EntryType::Receipt, vec![]).unwrap();
        let mut group = GroupBuilder::new(Vec::new(), Sequence(5));
        assert_eq!(group.push(&signed, &hash), Ok(64));
        assert_eq!(group.push(&plain, &plain_hash), Ok(64 + 164));
        assert_eq!(group.entry_count(), 2);
        let bytes = group.finish(&SALT).unwrap();
        let header = GroupHeader::decode(&SALT, &bytes).unwrap();
        let body = &bytes[GROUP_HEADER_BYTES..];
        assert_eq!(
            (header.first, header.entry_count, header.body_bytes as usize),
            (Sequence(5), 2, body.len())
        );
        assert_eq!(header.checksum, header.checksum_of(&SALT, body));
        assert_ne!(header.checksum, header.checksum_of(&[4; 16], body));
        let read: Vec<Entry> = Records::new(body).map(|record| record.unwrap().to_entry()).collect();
        assert_eq!(read, [signed, plain]);
        let mut point = ChainPoint { next_sequence: Sequence(5), last_hash: Hash::of(b"x") };
        for record in Records::new(body) {
            record.unwrap().verify(&mut point).unwrap();
        }
        assert_eq!(point.last_hash, plain_hash);
    }

    /// covers: AX-22
    #[test]
    fn every_flipped_bit_of_a_record_is_found_by_the_record_alone() {
        for signature in [None, Some(Signature([4; 64]))] {
            let (mut entry, hash) = entry(vec![0; 40]);
            entry.signature = signature;
            let mut group = GroupBuilder::new(Vec::new(), Sequence(5));
            group.push(&entry, &hash).unwrap();
            let bytes = group.finish(&SALT).unwrap();
            for bit in 0..(bytes.len() - GROUP_HEADER_BYTES) * 8 {
                let mut body = bytes[GROUP_HEADER_BYTES..].to_vec();
                body[bit / 8] ^= 1 << (bit % 8);
                let mut point = ChainPoint { next_sequence: Sequence(5), last_hash: Hash::of(b"x") };
                let found = Record::split(&body).and_then(|(record, _)| record.verify(&mut point));
                assert!(found.is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_group_is_bounded_in_entries_and_bytes() {
        let (small, hash) = entry(vec![]);
        let mut group = GroupBuilder::new(Vec::new(), Sequence(5));
        for _ in 0..GROUP_ENTRIES_MAX {
            group.push(&small, &hash).unwrap();
        }
        assert_eq!(group.push(&small, &hash), Err(GroupError::Entries));
        assert!(GroupHeader::decode(&SALT, &group.finish(&SALT).unwrap()).is_some());
        let (large, hash) = entry(vec![0; 65_447]);
        let mut group = GroupBuilder::new(Vec::new(), Sequence(5));
        let fit = GROUP_BODY_BYTES_MAX as usize / record_bytes(65_447, false);
        for _ in 0..fit {
            group.push(&large, &hash).unwrap();
        }
        assert!(matches!(group.push(&large, &hash), Err(GroupError::Body(_))));
        let left = GROUP_BODY_BYTES_MAX as usize + GROUP_HEADER_BYTES - group.size_bytes();
        let last = |bytes| entry(vec![0; left - record_bytes(0, false) + bytes]);
        let (over, over_hash) = last(1);
        let body = GROUP_BODY_BYTES_MAX as usize + 1;
        assert_eq!(group.push(&over, &over_hash), Err(GroupError::Body(body)));
        let (fits, hash) = last(0);
        group.push(&fits, &hash).unwrap();
        assert!(GroupHeader::decode(&SALT, &group.finish(&SALT).unwrap()).is_some());
        assert_eq!(GroupBuilder::new(Vec::new(), Sequence(5)).finish(&SALT), Err(GroupError::Empty));
        for count in [0, GROUP_ENTRIES_MAX + 1] {
            let over = GroupHeader::of_body(&SALT, Sequence(5), count, &[]);
            assert_eq!(GroupHeader::decode(&SALT, &over.encode()), None);
        }
        let mut over = GroupHeader::of_body(&SALT, Sequence(5), 1, &[]);
        assert!(GroupHeader::decode(&SALT, &over.encode()).is_some());
        assert_eq!(GroupHeader::decode(&[4; 16], &over.encode()), None);
        over.body_bytes = GROUP_BODY_BYTES_MAX + 1;
        over.fields_check = over.check_of_fields(&SALT);
        assert_eq!(GroupHeader::decode(&SALT, &over.encode()), None);
    }
}
