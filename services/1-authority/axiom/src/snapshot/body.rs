//! A snapshot's bytes: a signed head that names the hash of the state, and the state.

use base::{
    AxiomRef, Hash, PublicKey, Sequence,
    cbor::{self, CborError},
};
use chain::{
    SIGNED_HEAD_BYTES_MAX, SignedHead, SignedHeadError, UnsignedHead,
    tree::{Edge, TreeHash},
};
use durable::DiskError;
use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::{
    core::{KeyRun, ResumeError},
    store::{HeadersHash, StoreError, Tail},
};

/// Of the state's form; another one is not taken.
pub const SNAPSHOT_VERSION: u32 = 1;
/// Largest state that is written or read: what a start could still take in faster than the entries themselves.
pub const SNAPSHOT_BYTES_MAX: usize = 128 * 1024 * 1024;
/// The note's length stands before it.
const LENGTH_BYTES: usize = 4;

#[derive(Debug, Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("reading the log for it")]
    Store(#[from] StoreError),
    #[error("its signed head does not hold: {0}")]
    Note(#[from] SignedHeadError),
    #[error("it does not begin with a signed head")]
    Form,
    #[error("its signed head does not name the hash of a state")]
    NoState,
    #[error("its state does not have the hash that was signed")]
    StateHash,
    #[error("its state cannot be read: {0}")]
    State(#[from] CborError),
    #[error("its state is of version {0}, this build reads {SNAPSHOT_VERSION}")]
    Version(u32),
    #[error("name, signed head and state are not of one entry, but {0}, {1} and {2}")]
    Entries(Sequence, Sequence, Sequence),
    #[error("its tree is not one of its entries")]
    Tree,
    #[error("its keys of entries {from} to {end} are not there as they were signed")]
    Run { from: u64, end: u64 },
    #[error(transparent)]
    Resume(#[from] ResumeError),
    #[error("its state has {0} bytes, at most {SNAPSHOT_BYTES_MAX} are kept")]
    TooLarge(usize),
    #[error("the entries read for it do not lead to the log's last one")]
    Fold,
}

/// Some keys, in a file of their own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct RunRef {
    #[n(0)]
    pub from: u64,
    #[n(1)]
    pub end: u64,
    #[n(2)]
    pub hash: Hash,
}

impl RunRef {
    pub(super) fn of(run: &KeyRun) -> Self {
        Self { from: run.from(), end: run.end(), hash: Hash::of(run.bytes()) }
    }

    pub(super) fn file_name(&self) -> String {
        format!("{:020}-{:020}{}", self.from, self.end, super::files::RUN_SUFFIX)
    }
}

/// The root of the first entries, as a checkpoint stated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct SavedRoot {
    #[n(0)]
    pub size: u64,
    #[n(1)]
    pub root: Hash,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Body {
    #[n(0)]
    pub version: u32,
    /// Entry hash of genesis.
    #[n(1)]
    pub genesis: Hash,
    /// The last entry that is in it.
    #[n(2)]
    pub last: AxiomRef,
    /// First sequence of that entry's segment.
    #[n(3)]
    pub segment: Sequence,
    /// Where that entry's group begins in the segment.
    #[n(4)]
    pub group_at: u64,
    #[n(5)]
    pub headers: Hash,
    /// The tree's complete subtrees, largest first.
    #[n(6)]
    pub peaks: Vec<Hash>,
    /// The checkpoint that was kept beside the head at that time.
    #[n(7)]
    pub kept: Option<SavedRoot>,
    #[n(8)]
    pub runs: Vec<RunRef>,
    /// What the service's own gate looks at.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub gate: Vec<u8>,
    /// What later entries are judged by.
    #[cbor(n(10), with = "minicbor::bytes")]
    pub sequencer: Vec<u8>,
}

impl Body {
    pub(super) const fn tail(&self) -> Tail {
        Tail { last: self.last, segment: self.segment, group_at: self.group_at }
    }

    pub(super) const fn headers(&self) -> HeadersHash {
        HeadersHash(self.headers)
    }

    pub(super) fn edge(&self) -> Option<Edge> {
        let size = self.last.sequence.0.checked_add(1)?;
        Edge::from_peaks(size, self.peaks.iter().map(|peak| TreeHash(peak.0)).collect())
    }

    /// Note and state, to be written one behind the other.
    pub(super) fn sign(
        &self,
        node_name: &str,
        key: &SigningKey,
    ) -> Result<(SignedHead, Vec<u8>), SnapshotError> {
        let state = cbor::encode(self);
        if state.len() > SNAPSHOT_BYTES_MAX {
            return Err(SnapshotError::TooLarge(state.len()));
        }
        let head =
            UnsignedHead { name: node_name.to_owned(), head: self.last, state: Some(Hash::of(&state)) };
        Ok((head.sign(key)?, state))
    }

    /// Verifies signature and hash, then reads. `name` is the sequence in the file's name.
    pub(super) fn read(bytes: &[u8], key: &PublicKey, name: Sequence) -> Result<Self, SnapshotError> {
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(SnapshotError::Form)?;
        let length = u32::from_le_bytes(*length) as usize;
        let note = rest.split_at_checked(length).filter(|_| length <= SIGNED_HEAD_BYTES_MAX);
        let (note, state) = note.ok_or(SnapshotError::Form)?;
        let note = SignedHead::new(std::str::from_utf8(note).map_err(|_| SnapshotError::Form)?)?;
        let head = note.verify(key)?;
        if head.state.ok_or(SnapshotError::NoState)? != Hash::of(state) {
            return Err(SnapshotError::StateHash);
        }
        // The version first: what a newer build added behind it is no reason to complain about the form.
        let version = minicbor::Decoder::new(state);
        match first_number(version) {
            Some(SNAPSHOT_VERSION) => {}
            Some(version) => return Err(SnapshotError::Version(version)),
            None => return Err(SnapshotError::Form),
        }
        let body: Self = cbor::decode(state)?;
        let of = (name, head.head.sequence, body.last.sequence);
        if body.last != head.head || name != body.last.sequence {
            return Err(SnapshotError::Entries(of.0, of.1, of.2));
        }
        Ok(body)
    }
}

fn first_number(mut decoder: minicbor::Decoder<'_>) -> Option<u32> {
    decoder.array().ok()?;
    decoder.u32().ok()
}

/// The parts of a snapshot's file in their order.
pub(super) fn length_of(note: &SignedHead) -> [u8; LENGTH_BYTES] {
    u32::try_from(note.as_str().len()).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Body {
        Body {
            version: SNAPSHOT_VERSION,
            genesis: Hash::of(b"genesis"),
            last: AxiomRef { sequence: Sequence(5), hash: Hash::of(b"entry") },
            segment: Sequence(3),
            group_at: 512,
            headers: Hash::of(b"headers"),
            peaks: vec![Hash::of(b"four"), Hash::of(b"two")],
            kept: Some(SavedRoot { size: 2, root: Hash::of(b"root") }),
            runs: vec![RunRef { from: 0, end: 6, hash: Hash::of(b"run") }],
            gate: b"gate".to_vec(),
            sequencer: b"sequencer".to_vec(),
        }
    }

    fn file(body: &Body) -> Vec<u8> {
        let (note, state) = body.sign("node-a", &SigningKey::from_bytes(&[7; 32])).unwrap();
        [&length_of(&note), note.as_str().as_bytes(), &state].concat()
    }

    fn public() -> PublicKey {
        PublicKey(SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes())
    }

    /// covers: AX-54
    #[test]
    fn a_snapshot_stands_as_it_is_specified() {
        let text = include_str!("../../../../../docs/format.md");
        let hex: String = file(&body()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(text.contains(&format!("snapshot: {hex}\n")), "{hex}");
        assert_eq!(Body::read(&file(&body()), &public(), Sequence(5)).unwrap(), body());
        assert_eq!(body().edge().unwrap().size(), 6);
    }

    #[test]
    fn a_newer_version_is_named_and_other_forms_are_refused() {
        let newer = Body { version: SNAPSHOT_VERSION + 1, ..body() };
        let read = |body: &Body| Body::read(&file(body), &public(), Sequence(5));
        assert!(matches!(read(&newer), Err(SnapshotError::Version(2))));
        let mut one_less = body();
        one_less.peaks.pop();
        assert_eq!(one_less.edge(), None);
        let head = UnsignedHead { name: "node-a".into(), head: body().last, state: None };
        let note = head.sign(&SigningKey::from_bytes(&[7; 32])).unwrap();
        let bytes = [&length_of(&note), note.as_str().as_bytes()].concat();
        assert!(matches!(Body::read(&bytes, &public(), Sequence(5)), Err(SnapshotError::NoState)));
        assert!(matches!(Body::read(&[255; 4], &public(), Sequence(5)), Err(SnapshotError::Form)));
        let other = Body { last: AxiomRef { sequence: Sequence(6), ..body().last }, ..body() };
        assert!(matches!(Body::read(&file(&other), &public(), Sequence(5)), Err(SnapshotError::Entries(..))));
    }

    #[test]
    fn a_state_is_bounded_at_the_limit() {
        let with = |bytes| Body { gate: vec![0; bytes], ..body() };
        let around = cbor::encode(&with(1 << 20)).len() - (1 << 20);
        let key = SigningKey::from_bytes(&[7; 32]);
        assert!(with(SNAPSHOT_BYTES_MAX - around).sign("n", &key).is_ok());
        let over = with(SNAPSHOT_BYTES_MAX - around + 1).sign("n", &key);
        assert!(matches!(over, Err(SnapshotError::TooLarge(bytes)) if bytes == SNAPSHOT_BYTES_MAX + 1));
    }
}
