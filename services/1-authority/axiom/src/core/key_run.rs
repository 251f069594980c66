//! A run of idempotency keys: those of some consecutive entries, sorted by id, as they stand in a file.

use base::Sequence;

use super::keys::{ID_BYTES, Id};

/// Id and sequence.
pub const KEY_BYTES: usize = ID_BYTES + 8;
/// Ids are hashes, so a bucket of those that begin with the same bits has about so many.
const BUCKET_KEYS: usize = 8;
/// Keys of one run: its file stays below what is written in one piece.
pub const RUN_KEYS_MAX: usize = 10_000_000;

/// Immutable.
#[derive(Debug, PartialEq, Eq)]
pub struct KeyRun {
    /// First entry.
    from: u64,
    /// Behind the last entry.
    end: u64,
    /// Ids strictly ascending.
    bytes: Vec<u8>,
    /// Where the ids begin that have at least these first bits.
    buckets: Vec<u32>,
    bits: u32,
}

impl KeyRun {
    pub(super) fn of(from: u64, end: u64, mut keys: Vec<(Id, Sequence)>) -> Self {
        keys.sort_unstable();
        let mut bytes = Vec::with_capacity(keys.len().saturating_mul(KEY_BYTES));
        for (id, sequence) in keys {
            bytes.extend_from_slice(&id.0);
            bytes.extend_from_slice(&sequence.0.to_le_bytes());
        }
        Self::indexed(from, end, bytes)
    }

    /// A run as `bytes` told it. None unless it is one of entries `from` to `end`.
    #[must_use]
    pub fn from_bytes(from: u64, end: u64, bytes: Vec<u8>) -> Option<Self> {
        let count = bytes.len() / KEY_BYTES;
        let fits = bytes.len().is_multiple_of(KEY_BYTES) && count <= RUN_KEYS_MAX;
        if !fits || from >= end || count as u64 > end.saturating_sub(from) {
            return None;
        }
        let run = Self::indexed(from, end, bytes);
        let inside = run.iter().all(|(_, sequence)| (from..end).contains(&sequence.0));
        (inside && run.ids().is_sorted_by(|one, next| one < next)).then_some(run)
    }

    fn indexed(from: u64, end: u64, bytes: Vec<u8>) -> Self {
        let count = bytes.len() / KEY_BYTES;
        let bits = (count / BUCKET_KEYS).max(1).ilog2();
        let mut buckets = Vec::with_capacity((1_usize << bits).saturating_add(1));
        for (at, id) in ids(&bytes).enumerate() {
            let bucket = bucket(id, bits);
            while buckets.len() <= bucket {
                buckets.push(u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
        buckets.resize((1_usize << bits).saturating_add(1), u32::try_from(count).unwrap_or(u32::MAX));
        Self { from, end, bytes, buckets, bits }
    }

    #[must_use]
    pub const fn from(&self) -> u64 {
        self.from
    }

    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// As they stand in the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() / KEY_BYTES
    }

    fn ids(&self) -> impl Iterator<Item = &[u8]> {
        ids(&self.bytes)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, Sequence)> {
        self.bytes.chunks_exact(KEY_BYTES).map(|key| {
            let id = key.first_chunk().copied().unwrap_or_default();
            let sequence = key.last_chunk().copied().unwrap_or_default();
            (Id(id), Sequence(u64::from_le_bytes(sequence)))
        })
    }

    pub(super) fn find(&self, id: &Id) -> Option<Sequence> {
        let bucket = bucket(&id.0, self.bits);
        let [begin, end] = self.buckets.get(bucket..)?.first_chunk()?;
        let key = |at: u32| {
            let at = (at as usize).checked_mul(KEY_BYTES)?;
            self.bytes.get(at..)?.first_chunk::<KEY_BYTES>()
        };
        let found = (*begin..*end).filter_map(key).find(|key| key.starts_with(&id.0))?;
        Some(Sequence(u64::from_le_bytes(*found.last_chunk()?)))
    }

    /// Both as one; `newer` continues this one, and what stands in both is its.
    pub(super) fn merge(&self, newer: &Self) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.len().saturating_add(newer.bytes.len()));
        let mut old = self.bytes.chunks_exact(KEY_BYTES).peekable();
        for key in newer.bytes.chunks_exact(KEY_BYTES) {
            let id = id_of(key);
            while let Some(before) = old.next_if(|old| id_of(old) < id) {
                bytes.extend_from_slice(before);
            }
            let _ = old.next_if(|old| id_of(old) == id);
            bytes.extend_from_slice(key);
        }
        old.for_each(|key| bytes.extend_from_slice(key));
        Self::indexed(self.from, newer.end, bytes)
    }
}

fn ids(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks_exact(KEY_BYTES).map(id_of)
}

fn id_of(key: &[u8]) -> &[u8] {
    key.get(..ID_BYTES).unwrap_or_default()
}

/// The first bits, as a number.
fn bucket(id: &[u8], bits: u32) -> usize {
    let first = id.first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
    first.checked_shr(u32::BITS.saturating_sub(bits)).unwrap_or(0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Hash;

    fn id(n: u64) -> Id {
        Id(*Hash::of(&n.to_le_bytes()).0.first_chunk().unwrap())
    }

    fn run(from: u64, end: u64) -> KeyRun {
        KeyRun::of(from, end, (from..end).map(|n| (id(n), Sequence(n))).collect())
    }

    #[test]
    fn every_key_is_found_and_no_other_in_runs_of_every_size() {
        for count in (0..40).chain([100, 1000, 5000]) {
            let run = run(7, 7 + count);
            assert_eq!(run.len() as u64, count);
            for n in 0..count + 20 {
                let expected = (7..7 + count).contains(&n).then_some(Sequence(n));
                assert_eq!(run.find(&id(n)), expected, "{n} of {count}");
            }
            let again = KeyRun::from_bytes(7, 7 + count, run.bytes().to_vec());
            assert_eq!(again, (count > 0).then_some(run));
        }
        // Ids with the same first bits share a bucket.
        let low = |n: u8| Id([[0; 15].as_slice(), &[n]].concat().try_into().unwrap());
        let same = KeyRun::of(0, 200, (0..200).map(|n| (low(n), Sequence(u64::from(n)))).collect());
        assert!((0..200).all(|n| same.find(&low(n)) == Some(Sequence(u64::from(n)))));
        assert_eq!(same.find(&low(200)), None);
        assert_eq!(same.find(&Id([255; 16])), None);
    }

    #[test]
    fn merged_runs_are_the_run_of_all_and_the_newer_key_counts() {
        assert_eq!(run(0, 300).merge(&run(300, 1000)), run(0, 1000));
        assert_eq!(run(0, 0).merge(&run(0, 10)), run(0, 10));
        let newer = KeyRun::of(10, 12, vec![(id(3), Sequence(11)), (id(10), Sequence(10))]);
        let both = run(0, 10).merge(&newer);
        assert_eq!((both.len(), both.find(&id(3)), both.end()), (11, Some(Sequence(11)), 12));
    }

    #[test]
    fn bytes_that_are_no_run_of_these_entries_are_refused() {
        let bytes = run(5, 9).bytes().to_vec();
        let read = |from, end, bytes: &[u8]| KeyRun::from_bytes(from, end, bytes.to_vec());
        assert!(read(5, 9, &bytes).is_some());
        assert!(read(0, 100, &bytes).is_some(), "an entry can have a key that a later one has too");
        for (from, end) in [(6, 9), (5, 8), (9, 5), (5, 5)] {
            assert!(read(from, end, &bytes).is_none(), "{from}..{end}");
        }
        assert!(read(5, 9, &bytes[1..]).is_none() && read(5, 9, &bytes[..bytes.len() - 1]).is_none());
        let mut twice = bytes[..KEY_BYTES].to_vec();
        twice.extend_from_slice(&bytes[..KEY_BYTES]);
        assert!(read(5, 9, &twice).is_none());
        let mut turned = bytes[KEY_BYTES..2 * KEY_BYTES].to_vec();
        turned.extend_from_slice(&bytes[..KEY_BYTES]);
        assert!(read(5, 9, &turned).is_none());
    }
}
