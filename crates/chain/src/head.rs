use base::{AxiomRef, Hash, Sequence};
use thiserror::Error;

use crate::codec::{array_at, lay, u64_at};

/// Two slots, each in a sector of its own.
pub const HEAD_FILE_BYTES: usize = 1024;
const SLOT_STRIDE: usize = 512;
const SLOT_BYTES: usize = 64;
const CHECK_BYTES: usize = 24;
const CONTEXT: &[u8] = b"bailiwick head v1\0";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    #[error("the head file has {HEAD_FILE_BYTES} bytes, not {0}")]
    Length(usize),
    #[error("no slot of the head file is whole")]
    Damaged,
}

/// One slot: sequence, entry hash, and the first 24 bytes of a BLAKE3 over both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSlot(pub AxiomRef);

impl HeadSlot {
    #[must_use]
    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        let sequence = self.0.sequence.0.to_le_bytes();
        let check = Hash::of_parts(&[CONTEXT, &sequence, &self.0.hash.0]);
        lay(&[&sequence, &self.0.hash.0, check.0.first_chunk::<CHECK_BYTES>().unwrap_or(&[0; CHECK_BYTES])])
    }

    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let hash = Hash(array_at(bytes, 8)?);
        let slot = Self(AxiomRef { sequence: Sequence(u64_at(bytes, 0)?), hash });
        (bytes.get(..SLOT_BYTES)? == slot.encode()).then_some(slot)
    }
}

/// The highest acknowledged entry, kept outside the log's folder. Writes alternate between the slots, so that a torn
/// write leaves the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadFile {
    /// None in a file of zeros: nothing was acknowledged yet.
    pub head: Option<AxiomRef>,
    /// Offset at which the next head is to be written.
    pub next_offset: u64,
}

impl HeadFile {
    pub fn decode(bytes: &[u8]) -> Result<Self, HeadError> {
        if bytes.len() != HEAD_FILE_BYTES {
            return Err(HeadError::Length(bytes.len()));
        }
        let slot = |at: usize| bytes.get(at..).and_then(HeadSlot::decode);
        let (first, second) = (slot(0), slot(SLOT_STRIDE));
        let next_offset = match (&first, &second) {
            (Some(HeadSlot(a)), Some(HeadSlot(b))) if a.sequence < b.sequence => 0,
            (Some(_), _) => SLOT_STRIDE as u64,
            (None, _) => 0,
        };
        let head = first.into_iter().chain(second).map(|slot| slot.0).max_by_key(|head| head.sequence);
        if head.is_none() && bytes.iter().any(|byte| *byte != 0) {
            return Err(HeadError::Damaged);
        }
        Ok(Self { head, next_offset })
    }

    /// Where the head after the next one goes.
    #[must_use]
    pub const fn other_offset(offset: u64) -> u64 {
        if offset == 0 { SLOT_STRIDE as u64 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> AxiomRef {
        AxiomRef { sequence: Sequence(n), hash: Hash::of(&n.to_le_bytes()) }
    }

    #[test]
    fn the_newest_whole_slot_counts_and_the_other_is_written_next() {
        let mut file = vec![0; HEAD_FILE_BYTES];
        let mut state = HeadFile::decode(&file).unwrap();
        assert_eq!(state, HeadFile { head: None, next_offset: 0 });
        for n in 3..9 {
            let offset = state.next_offset as usize;
            file[offset..offset + 64].copy_from_slice(&HeadSlot(at(n)).encode());
            state = HeadFile::decode(&file).unwrap();
            assert_eq!(state.head, Some(at(n)));
            assert_ne!(state.next_offset as usize, offset);
        }
        let newest = HeadFile::other_offset(state.next_offset) as usize;
        file[newest + 9] ^= 1;
        assert_eq!(
            HeadFile::decode(&file).unwrap(),
            HeadFile { head: Some(at(7)), next_offset: newest as u64 }
        );
        file[state.next_offset as usize] ^= 1;
        assert_eq!(HeadFile::decode(&file), Err(HeadError::Damaged));
        assert_eq!(HeadFile::decode(&file[1..]), Err(HeadError::Length(1023)));
    }
}
