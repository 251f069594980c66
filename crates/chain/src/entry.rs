use base::{
    AxiomRef, AxiomTime, Hash, Sequence, Signature,
    limits::{ENTRY_HEADER_BYTES, PAYLOAD_SIZE_BYTES_MAX},
};
use thiserror::Error;

use crate::{
    codec::{array_at, lay, u32_at, u64_at},
    entry_type::{EntryType, UnknownEntryType},
};

/// The part of an entry that says where it stands (AX-17). 88 bytes, little-endian, final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    pub sequence: Sequence,
    pub prev_hash: Hash,
    pub payload_hash: Hash,
    pub timestamp: AxiomTime,
    pub entry_type: EntryType,
    pub payload_size: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    #[error("an entry header has {ENTRY_HEADER_BYTES} bytes, not {0}")]
    Short(usize),
    #[error(transparent)]
    EntryType(#[from] UnknownEntryType),
    #[error("a payload has at most {PAYLOAD_SIZE_BYTES_MAX} bytes, not {0}; larger data goes by hash")]
    PayloadTooLarge(u32),
}

impl EntryHeader {
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_HEADER_BYTES] {
        lay(&[
            &self.sequence.0.to_le_bytes(),
            &self.prev_hash.0,
            &self.payload_hash.0,
            &self.timestamp.0.to_le_bytes(),
            &self.entry_type.code().to_le_bytes(),
            &self.payload_size.to_le_bytes(),
        ])
    }

    /// Reads the header at the front of `bytes`. A payload size above the limit is refused here, before anybody allocates.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let short = || HeaderError::Short(bytes.len());
        let payload_size = u32_at(bytes, 84).ok_or_else(short)?;
        let header = Self {
            sequence: Sequence(u64_at(bytes, 0).ok_or_else(short)?),
            prev_hash: Hash(array_at(bytes, 8).ok_or_else(short)?),
            payload_hash: Hash(array_at(bytes, 40).ok_or_else(short)?),
            timestamp: AxiomTime(u64_at(bytes, 72).ok_or_else(short)?),
            entry_type: EntryType::from_code(u32_at(bytes, 80).ok_or_else(short)?)?,
            payload_size,
        };
        if payload_size as usize > PAYLOAD_SIZE_BYTES_MAX {
            return Err(HeaderError::PayloadTooLarge(payload_size));
        }
        Ok(header)
    }

    /// BLAKE3 over header and payload; the signature is no part of it (AX-20).
    #[must_use]
    pub fn entry_hash(&self, payload: &[u8]) -> Hash {
        Hash::of_parts(&[&self.encode(), payload])
    }
}

/// One entry as it stands in the log (AX-16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub header: EntryHeader,
    pub payload: Vec<u8>,
    pub signature: Option<Signature>,
}

impl Entry {
    /// The entry that follows `prev_hash` at `sequence`, with its entry hash. Refuses a payload above the limit.
    pub fn next(
        sequence: Sequence,
        prev_hash: Hash,
        timestamp: AxiomTime,
        entry_type: EntryType,
        payload: Vec<u8>,
    ) -> Result<(Self, Hash), HeaderError> {
        let payload_size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if payload.len() > PAYLOAD_SIZE_BYTES_MAX {
            return Err(HeaderError::PayloadTooLarge(payload_size));
        }
        let payload_hash = Hash::of(&payload);
        let header = EntryHeader { sequence, prev_hash, payload_hash, timestamp, entry_type, payload_size };
        let hash = header.entry_hash(&payload);
        Ok((Self { header, payload, signature: None }, hash))
    }

    #[must_use]
    pub fn hash(&self) -> Hash {
        self.header.entry_hash(&self.payload)
    }

    #[must_use]
    pub fn reference(&self) -> AxiomRef {
        AxiomRef { sequence: self.header.sequence, hash: self.hash() }
    }

    /// Header and payload: the leaf of the RFC 6962 tree, and what the entry hash covers.
    #[must_use]
    pub fn leaf(&self) -> Vec<u8> {
        [&self.header.encode(), self.payload.as_slice()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(payload: Vec<u8>) -> (Entry, Hash) {
        Entry::next(Sequence(7), Hash::of(b"before"), AxiomTime(1 << 40), EntryType::Receipt, payload)
            .unwrap()
    }

    /// covers: AX-16, AX-17, AX-18, AX-20
    #[test]
    fn the_hash_is_blake3_over_the_fields_in_their_order() {
        let (mut entry, hash) = entry(b"payload".to_vec());
        let mut bytes = Vec::new();
        bytes.extend(7u64.to_le_bytes());
        bytes.extend(blake3::hash(b"before").as_bytes());
        bytes.extend(blake3::hash(b"payload").as_bytes());
        bytes.extend((1u64 << 40).to_le_bytes());
        bytes.extend(80u32.to_le_bytes());
        bytes.extend(7u32.to_le_bytes());
        assert_eq!(bytes, entry.header.encode());
        bytes.extend(b"payload");
        assert_eq!(hash.0, *blake3::hash(&bytes).as_bytes());
        assert_eq!(entry.leaf(), bytes);
        entry.signature = Some(Signature([9; 64]));
        assert_eq!(entry.hash(), hash);
    }

    #[test]
    fn headers_round_trip_and_refuse_what_they_cannot_mean() {
        let (entry, _) = entry(b"payload".to_vec());
        let bytes = entry.header.encode();
        assert_eq!(EntryHeader::decode(&bytes), Ok(entry.header));
        assert_eq!(EntryHeader::decode(&bytes[..87]), Err(HeaderError::Short(87)));
        let mut unknown = bytes;
        unknown[80] = 2;
        assert_eq!(EntryHeader::decode(&unknown), Err(HeaderError::EntryType(UnknownEntryType(2))));
    }

    #[test]
    fn payload_size_is_bounded_at_the_limit() {
        let (mut largest, _) = entry(vec![1; PAYLOAD_SIZE_BYTES_MAX]);
        assert_eq!(largest.leaf().len(), 65_535);
        assert!(EntryHeader::decode(&largest.header.encode()).is_ok());
        largest.header.payload_size += 1;
        let over = largest.header.payload_size;
        assert_eq!(EntryHeader::decode(&largest.header.encode()), Err(HeaderError::PayloadTooLarge(over)));
        let refused = Entry::next(
            Sequence(0),
            Hash::ZERO,
            AxiomTime(0),
            EntryType::Genesis,
            vec![1; PAYLOAD_SIZE_BYTES_MAX + 1],
        );
        assert_eq!(refused, Err(HeaderError::PayloadTooLarge(over)));
    }
}
