use base::{AxiomRef, Hash, Sequence};
use thiserror::Error;

use crate::entry::{Entry, EntryHeader};

/// The first fault of a chain (AX-21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChainError {
    #[error("expected entry {expected}, found {found}")]
    SequenceGap { expected: Sequence, found: Sequence },
    #[error("entry {sequence} does not follow the hash of the entry before it")]
    BrokenChain { sequence: Sequence },
    #[error("the payload of entry {sequence} does not have the hash and size that its header states")]
    PayloadMismatch { sequence: Sequence },
}

impl ChainError {
    /// The entry at which the chain breaks: the one that should stand there.
    #[must_use]
    pub const fn sequence(&self) -> Sequence {
        match *self {
            Self::SequenceGap { expected, .. } => expected,
            Self::BrokenChain { sequence } | Self::PayloadMismatch { sequence } => sequence,
        }
    }
}

/// A place in the chain: what the next entry must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainPoint {
    pub next_sequence: Sequence,
    pub last_hash: Hash,
}

impl ChainPoint {
    /// Before genesis, whose `prev_hash` is all zero (AX-19).
    pub const GENESIS: Self = Self { next_sequence: Sequence(0), last_hash: Hash::ZERO };

    /// The place after an entry.
    #[must_use]
    pub const fn after(entry: AxiomRef) -> Self {
        Self { next_sequence: Sequence(entry.sequence.0.saturating_add(1)), last_hash: entry.hash }
    }

    /// The last entry before this place, none before genesis.
    #[must_use]
    pub fn last(&self) -> Option<AxiomRef> {
        let sequence = Sequence(self.next_sequence.0.checked_sub(1)?);
        Some(AxiomRef { sequence, hash: self.last_hash })
    }

    /// Checks that the entry belongs here, moves past it, and gives its hash.
    pub fn step(&mut self, header: &EntryHeader, payload: &[u8]) -> Result<Hash, ChainError> {
        let sequence = self.next_sequence;
        if header.sequence != sequence {
            return Err(ChainError::SequenceGap { expected: sequence, found: header.sequence });
        }
        if header.prev_hash != self.last_hash {
            return Err(ChainError::BrokenChain { sequence });
        }
        if header.payload_size as usize != payload.len() || header.payload_hash != Hash::of(payload) {
            return Err(ChainError::PayloadMismatch { sequence });
        }
        let hash = header.entry_hash(payload);
        *self = Self::after(AxiomRef { sequence, hash });
        Ok(hash)
    }
}

/// Walks from genesis and stops at the first fault.
pub fn validate_chain<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> Result<ChainPoint, ChainError> {
    let mut point = ChainPoint::GENESIS;
    for entry in entries {
        point.step(&entry.header, &entry.payload)?;
    }
    Ok(point)
}

#[cfg(test)]
mod tests {
    use base::AxiomTime;

    use super::*;
    use crate::entry_type::EntryType;

    fn chain(length: u64) -> Vec<Entry> {
        let mut point = ChainPoint::GENESIS;
        let mut entries = Vec::new();
        for n in 0..length {
            let kind = if n == 0 { EntryType::Genesis } else { EntryType::Receipt };
            let payload = vec![7; n as usize * 3];
            let (entry, hash) =
                Entry::next(Sequence(n), point.last_hash, AxiomTime(n), kind, payload).unwrap();
            point = ChainPoint::after(AxiomRef { sequence: Sequence(n), hash });
            entries.push(entry);
        }
        entries
    }

    fn fault(change: impl FnOnce(&mut Vec<Entry>)) -> ChainError {
        let mut entries = chain(6);
        change(&mut entries);
        validate_chain(&entries).unwrap_err()
    }

    /// covers: AX-14, AX-19, AX-21
    #[test]
    fn a_chain_validates_until_its_first_fault() {
        let entries = chain(6);
        assert_eq!(entries[0].header.prev_hash, Hash::ZERO);
        let end = validate_chain(&entries).unwrap();
        assert_eq!(end.last(), Some(entries[5].reference()));
        let gap = |expected, found| ChainError::SequenceGap {
            expected: Sequence(expected),
            found: Sequence(found),
        };
        assert_eq!(fault(|entries| drop(entries.remove(3))), gap(3, 4));
        assert_eq!(fault(|entries| entries.swap(2, 4)), gap(2, 4));
        assert_eq!(fault(|entries| entries[0].header.sequence.0 = 1), gap(0, 1));
        let broken = |at| ChainError::BrokenChain { sequence: Sequence(at) };
        assert_eq!(fault(|entries| entries[0].header.prev_hash.0[0] = 1), broken(0));
        assert_eq!(fault(|entries| entries[4].header.timestamp.0 += 1), broken(5));
        let payload = |at| ChainError::PayloadMismatch { sequence: Sequence(at) };
        assert_eq!(fault(|entries| entries[3].payload[0] ^= 1), payload(3));
        assert_eq!(fault(|entries| entries[3].payload.push(0)), payload(3));
    }
}
