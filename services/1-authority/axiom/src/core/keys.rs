//! Idempotency keys: one submitter, one key, one entry (AX-41). Remembered as long as the log.
//!
//! Of newer entries all is in memory that an answer needs. Of those that a snapshot covers only the sequence is, in
//! sorted runs of 24 bytes an entry; what else an answer needs stands in the log.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use base::{AxiomRef, EntryKey, Hash as Digest, IdentityId, Sequence};
use chain::{EntryHeader, EntryType};

use super::key_run::{KeyRun, RUN_KEYS_MAX};

/// Bytes of an id.
pub(super) const ID_BYTES: usize = 16;

/// The first half of a BLAKE3 over submitter and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(pub(super) [u8; ID_BYTES]);

impl Id {
    pub(super) fn of(submitter: &IdentityId, key: &EntryKey) -> Self {
        let hash = Digest::of_parts(&[&submitter.0, &key.0]);
        Self(hash.0.first_chunk().copied().unwrap_or_default())
    }
}

/// Entries that are in the log and not in memory: what never changes, however often it is looked at.
pub trait Past: Send {
    /// Header and hash of an entry; None if it cannot be read here.
    fn entry(&self, sequence: Sequence) -> Option<(EntryHeader, Digest)>;

    /// The first entry that can be read: what lies before it is archived.
    fn first(&self) -> Sequence {
        Sequence(0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    New,
    /// The same bytes of the same type.
    Same(AxiomRef),
    /// Something else under the same key, or something that cannot be looked at any more.
    Other(Sequence),
    /// An entry that is archived: it was accepted once, and nobody here can tell whether it was the same.
    Archived(Sequence),
}

#[derive(Default)]
pub(super) struct Keys {
    recent: HashMap<Id, Seen, BuildHasherDefault<IdHasher>>,
    /// Oldest first, without a gap.
    runs: Vec<Arc<KeyRun>>,
    past: Option<Box<dyn Past>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    entry: AxiomRef,
    content: Digest,
}

impl Keys {
    pub(super) fn with_runs(runs: Vec<Arc<KeyRun>>) -> Self {
        Self { runs, ..Self::default() }
    }

    pub(super) fn look_back_with(&mut self, past: Box<dyn Past>) {
        self.past = Some(past);
    }

    pub(super) fn look_up(&self, id: &Id, kind: EntryType, payload: &Digest) -> Known {
        let wanted = content(kind, payload);
        if let Some(seen) = self.recent.get(id) {
            return match seen.content == wanted {
                true => Known::Same(seen.entry),
                false => Known::Other(seen.entry.sequence),
            };
        }
        let Some(sequence) = self.runs.iter().rev().find_map(|run| run.find(id)) else { return Known::New };
        if self.past.as_ref().is_some_and(|past| sequence < past.first()) {
            return Known::Archived(sequence);
        }
        match self.past.as_ref().and_then(|past| past.entry(sequence)) {
            Some((header, hash)) if content(header.entry_type, &header.payload_hash) == wanted => {
                Known::Same(AxiomRef { sequence, hash })
            }
            _ => Known::Other(sequence),
        }
    }

    pub(super) fn insert(&mut self, id: Id, kind: EntryType, payload: &Digest, entry: AxiomRef) {
        self.recent.insert(id, Seen { entry, content: content(kind, payload) });
    }

    pub(super) fn runs(&self) -> &[Arc<KeyRun>] {
        &self.runs
    }

    /// Makes runs of what is in memory, up to and without `next`, and merges runs so that few are left.
    pub(super) fn seal(&mut self, next: Sequence) {
        let mut from = self.runs.last().map_or(0, |run| run.end());
        let mut recent: Vec<_> = self.recent.drain().map(|(id, seen)| (seen.entry.sequence, id)).collect();
        recent.sort_unstable();
        let mut recent = recent.into_iter().map(|(sequence, id)| (id, sequence)).peekable();
        while from < next.0 {
            let end = next.0.min(from.saturating_add(RUN_KEYS_MAX as u64));
            let keys = std::iter::from_fn(|| recent.next_if(|(_, sequence)| sequence.0 < end)).collect();
            let mut newest = KeyRun::of(from, end, keys);
            while let Some(before) = self.runs.pop_if(|before| joins(before, &newest)) {
                newest = before.merge(&newest);
            }
            self.runs.push(Arc::new(newest));
            from = end;
        }
    }

    /// Takes runs that somebody else made of the same entries, and forgets what they hold.
    pub(super) fn adopt(&mut self, runs: Vec<Arc<KeyRun>>) {
        let covered = runs.last().map_or(0, |run| run.end());
        self.recent.retain(|_, seen| seen.entry.sequence.0 >= covered);
        self.recent.shrink_to(self.recent.len().saturating_mul(2));
        self.runs = runs;
    }

    /// All of them, in the order of their ids: equal whatever runs they lie in.
    #[cfg(test)]
    pub(super) fn all(&self) -> std::collections::BTreeMap<Id, Sequence> {
        let old = self.runs.iter().flat_map(|run| run.iter());
        old.chain(self.recent.iter().map(|(id, seen)| (*id, seen.entry.sequence))).collect()
    }
}

/// Each key is written anew a few times, as its run is joined with one that is about as large, and runs stay few.
fn joins(before: &KeyRun, newest: &KeyRun) -> bool {
    before.len() <= newest.len().saturating_mul(2)
        && before.len().saturating_add(newest.len()) <= RUN_KEYS_MAX
}

/// The payload's hash with the type's code mixed in, as the same bytes can stand under two types.
fn content(kind: EntryType, payload: &Digest) -> Digest {
    let mut content = *payload;
    content.0.iter_mut().zip(kind.code().to_le_bytes()).for_each(|(byte, code)| *byte ^= code);
    content
}

/// Ids are hashes already: their first eight bytes will do.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}
}
