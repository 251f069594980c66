//! Idempotency keys: one submitter, one key, one entry (AX-41). Remembered as long as the entry is in the log.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use base::{AxiomRef, EntryKey, Hash as Digest, IdentityId};
use chain::EntryType;

/// The first half of a BLAKE3 over submitter and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id([u8; 16]);

impl Id {
    pub(super) fn of(submitter: &IdentityId, key: &EntryKey) -> Self {
        let hash = Digest::of_parts(&[&submitter.0, &key.0]);
        Self(hash.0.first_chunk().copied().unwrap_or_default())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    New,
    /// The same bytes of the same type.
    Same(AxiomRef),
    /// Something else under the same key.
    Other(AxiomRef),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    known: HashMap<Id, Seen, BuildHasherDefault<IdHasher>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    entry: AxiomRef,
    content: Digest,
}

impl Keys {
    pub(super) fn look_up(&self, id: &Id, kind: EntryType, payload: &Digest) -> Known {
        match self.known.get(id) {
            None => Known::New,
            Some(seen) if seen.content == content(kind, payload) => Known::Same(seen.entry),
            Some(seen) => Known::Other(seen.entry),
        }
    }

    pub(super) fn insert(&mut self, id: Id, kind: EntryType, payload: &Digest, entry: AxiomRef) {
        self.known.insert(id, Seen { entry, content: content(kind, payload) });
    }
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
