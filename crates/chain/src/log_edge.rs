//! The edge of a log whose first segments are archived: what stood before the first entry that is left, and what is
//! needed to go on from there. Signed by the sequencer, so that who can change the log's files alone cannot move it.

use base::{
    AxiomRef, Hash, PublicKey, Sequence,
    cbor::{self, CborError},
    limits::{ENTRY_HEADER_BYTES, PAYLOAD_SIZE_BYTES_MAX},
};
use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::{
    EntryHeader, EntryType,
    checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint, origin},
    note::{Algorithm, NoteError, VerifierKey},
    payload::{Payload, service::Genesis},
    signed_head::{SIGNED_HEAD_BYTES_MAX, SignedHead, SignedHeadError, UnsignedHead},
    tree::{Edge, NodeId, TreeHash},
    validate::ChainPoint,
};

/// In the log's folder.
pub const EDGE_FILE: &str = "edge";
/// Of the file's form.
pub const EDGE_VERSION: u32 = 1;
/// Largest file that is written or read.
pub const EDGE_BYTES_MAX: usize = 512 * 1024;
/// Places that one edge names; parts that lie in the same place one behind the other are one.
pub const EDGE_PARTS_MAX: usize = 256;
/// Bytes of the name of such a place.
pub const PLACE_BYTES_MAX: usize = 1024;
/// Witnesses whose signatures one archiving rests on.
pub const EDGE_WITNESSES_MAX: usize = 16;
/// A cosigned checkpoint, as an entry and the edge hold it.
pub const COSIGNED_BYTES_MAX: usize = 16 * 1024;
/// Before what is hashed, so that no other signed state is taken for an edge.
const LABEL: &[u8] = b"bailiwick log edge v1\0";
/// The note's length stands before it.
const LENGTH_BYTES: usize = 4;

#[derive(Debug, Error)]
pub enum EdgeError {
    #[error("it has {0} bytes, at most {EDGE_BYTES_MAX} are read")]
    TooLarge(usize),
    #[error("it does not begin with a signed head")]
    Form,
    #[error("its signed head does not hold: {0}")]
    Note(#[from] SignedHeadError),
    #[error("it does not have the hash that was signed")]
    Hash,
    #[error("it cannot be read: {0}")]
    State(#[from] CborError),
    #[error("it is of version {0}, this build reads {EDGE_VERSION}")]
    Version(u32),
    #[error("it holds no genesis entry")]
    Genesis,
    #[error("genesis pins another key than the one that is expected")]
    Key,
    #[error("its signed head names another entry, or another node")]
    Other,
    #[error("its tree is not one of its entries")]
    Tree,
    #[error("its parts do not lead from genesis to its entry, or are too many")]
    Parts,
    #[error("its checkpoint does not hold: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("its checkpoint has {size} entries, but {archived} are archived")]
    Below { size: u64, archived: u64 },
    #[error("a witness' signature does not hold: {0}")]
    Witness(#[from] NoteError),
    #[error("{0}")]
    NoWitness(&'static str),
}

/// Entries that lie elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(array)]
pub struct Part {
    #[n(0)]
    pub from: Sequence,
    #[n(1)]
    pub to: Sequence,
    /// Where they were taken to, as who did it named it. It may have been moved since.
    #[n(2)]
    pub place: String,
}

/// What is left of the entries that are archived.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct LogEdge {
    #[n(0)]
    version: u32,
    /// Header and payload of entry 0.
    #[cbor(n(1), with = "minicbor::bytes")]
    genesis: Vec<u8>,
    /// The last entry that is archived.
    #[n(2)]
    pub last: AxiomRef,
    /// Over the headers of all archived segments, as snapshots have it.
    #[n(3)]
    pub headers: Hash,
    /// The tree's complete subtrees over all archived entries, largest first.
    #[n(4)]
    peaks: Vec<Hash>,
    /// The checkpoint below which everything was taken, with all signatures.
    #[n(5)]
    checkpoint: String,
    /// Keys of the witnesses that signed it.
    #[n(6)]
    pub witnesses: Vec<String>,
    /// The entry that decided it.
    #[n(7)]
    pub archive: AxiomRef,
    /// From genesis on, without a gap.
    #[n(8)]
    parts: Vec<Part>,
}

/// What an edge is made of.
#[derive(Clone, Debug)]
pub struct EdgePlan {
    pub genesis: Vec<u8>,
    pub last: AxiomRef,
    pub headers: Hash,
    pub tree: Edge,
    pub checkpoint: String,
    pub witnesses: Vec<String>,
    pub archive: AxiomRef,
    pub place: String,
    /// The edge before.
    pub before: Option<LogEdge>,
}

impl LogEdge {
    /// Checked as a reader will.
    pub fn new(plan: EdgePlan) -> Result<Self, EdgeError> {
        let EdgePlan { genesis, last, headers, tree, checkpoint, witnesses, archive, place, before } = plan;
        let from = before.as_ref().map_or(Sequence(0), |before| before.point().next_sequence);
        let mut parts = before.map(|before| before.parts).unwrap_or_default();
        match parts.last_mut().filter(|part| part.place == place) {
            Some(part) => part.to = last.sequence,
            None => parts.push(Part { from, to: last.sequence, place }),
        }
        if tree.size() != last.sequence.0.saturating_add(1) {
            return Err(EdgeError::Tree);
        }
        let peaks = tree.peaks().iter().map(|peak| Hash(peak.0)).collect();
        let edge = Self {
            version: EDGE_VERSION,
            genesis,
            last,
            headers,
            peaks,
            checkpoint,
            witnesses,
            archive,
            parts,
        };
        edge.check()?;
        Ok(edge)
    }

    /// The file's bytes.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, EdgeError> {
        let state = cbor::encode(self);
        let (genesis, _) = self.genesis()?;
        let head = UnsignedHead { name: genesis.node_name, head: self.last, state: Some(hash_of(&state)) };
        let note = head.sign(key)?;
        let length = u32::try_from(note.as_str().len()).map_err(|_| EdgeError::Form)?;
        let bytes = [&length.to_le_bytes(), note.as_str().as_bytes(), &state].concat();
        if bytes.len() > EDGE_BYTES_MAX { Err(EdgeError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads a file and believes nothing but `key`; without one, the key that the edge's own genesis pins, as who reads a
    /// whole log believes its first entry.
    pub fn read(bytes: &[u8], key: Option<&PublicKey>) -> Result<Self, EdgeError> {
        if bytes.len() > EDGE_BYTES_MAX {
            return Err(EdgeError::TooLarge(bytes.len()));
        }
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(EdgeError::Form)?;
        let length = u32::from_le_bytes(*length) as usize;
        let note = rest.split_at_checked(length).filter(|_| length <= SIGNED_HEAD_BYTES_MAX);
        let (note, state) = note.ok_or(EdgeError::Form)?;
        let note = SignedHead::new(std::str::from_utf8(note).map_err(|_| EdgeError::Form)?)?;
        // The version first: what a newer build added behind it is no reason to complain about the form.
        match first_number(state) {
            Some(EDGE_VERSION) => {}
            Some(version) => return Err(EdgeError::Version(version)),
            None => return Err(EdgeError::Form),
        }
        let edge: Self = cbor::decode(state)?;
        let (genesis, _) = edge.genesis()?;
        if key.is_some_and(|key| *key != genesis.sequencer_key) {
            return Err(EdgeError::Key);
        }
        let head = note.verify(&genesis.sequencer_key)?;
        if head.state != Some(hash_of(state)) {
            return Err(EdgeError::Hash);
        }
        if head.head != edge.last || head.name != genesis.node_name {
            return Err(EdgeError::Other);
        }
        edge.check()?;
        Ok(edge)
    }

    fn check(&self) -> Result<(), EdgeError> {
        self.tree().ok_or(EdgeError::Tree)?;
        self.check_parts().ok_or(EdgeError::Parts)?;
        let checkpoint = self.checkpoint()?;
        let archived = self.point().next_sequence.0;
        if checkpoint.size < archived {
            return Err(EdgeError::Below { size: checkpoint.size, archived });
        }
        Ok(())
    }

    fn check_parts(&self) -> Option<()> {
        let mut next = 0_u64;
        for part in &self.parts {
            let fits = part.from.0 == next && part.to >= part.from && part.place.len() <= PLACE_BYTES_MAX;
            next = fits.then(|| part.to.0.checked_add(1)).flatten()?;
        }
        (next == self.point().next_sequence.0 && self.parts.len() <= EDGE_PARTS_MAX).then_some(())
    }

    /// Where the log begins now.
    #[must_use]
    pub const fn point(&self) -> ChainPoint {
        ChainPoint::after(self.last)
    }

    /// The tree over all that is archived.
    #[must_use]
    pub fn tree(&self) -> Option<Edge> {
        let size = self.last.sequence.0.checked_add(1)?;
        Edge::from_peaks(size, self.peaks.iter().map(|peak| TreeHash(peak.0)).collect())
    }

    /// The subtrees that proofs of later entries need of the archived ones.
    #[must_use]
    pub fn nodes(&self) -> Vec<(NodeId, TreeHash)> {
        let size = self.last.sequence.0.saturating_add(1);
        let levels = (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1);
        let mut begin = 0_u64;
        let mut id = |level: u32| {
            let id = NodeId { level: u8::try_from(level).unwrap_or(u8::MAX), index: begin >> level };
            begin = begin.saturating_add(1 << level);
            id
        };
        levels.map(&mut id).zip(self.peaks.iter().map(|peak| TreeHash(peak.0))).collect()
    }

    /// The first entry's body, and its hash.
    pub fn genesis(&self) -> Result<(Genesis, Hash), EdgeError> {
        let (header, payload) =
            self.genesis.split_at_checked(ENTRY_HEADER_BYTES).ok_or(EdgeError::Genesis)?;
        let header = EntryHeader::decode(header).map_err(|_| EdgeError::Genesis)?;
        let mut point = ChainPoint::GENESIS;
        let hash = point.step(&header, payload).map_err(|_| EdgeError::Genesis)?;
        let is_genesis = header.entry_type == EntryType::Genesis && payload.len() <= PAYLOAD_SIZE_BYTES_MAX;
        match Payload::decode(EntryType::Genesis.code(), payload) {
            Ok(Payload::Genesis(envelope)) if is_genesis => Ok((envelope.body, hash)),
            _ => Err(EdgeError::Genesis),
        }
    }

    /// Header and payload of entry 0, for the next edge.
    #[must_use]
    pub fn genesis_bytes(&self) -> &[u8] {
        &self.genesis
    }

    /// The log's key, as genesis pins it.
    pub fn key(&self) -> Result<VerifierKey, EdgeError> {
        let (genesis, hash) = self.genesis()?;
        let name = origin(&genesis.node_name, &hash);
        Ok(VerifierKey::new(name, Algorithm::Ed25519, genesis.sequencer_key)?)
    }

    /// What the log signed of itself, and the witnesses too.
    pub fn checkpoint(&self) -> Result<Checkpoint, EdgeError> {
        cosigned(&self.checkpoint, &self.key()?, &self.witnesses)
    }

    /// Where what is archived lies, from genesis on.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Where this entry lies, if it is archived.
    #[must_use]
    pub fn place_of(&self, sequence: Sequence) -> Option<&str> {
        let part = self.parts.iter().find(|part| (part.from..=part.to).contains(&sequence))?;
        Some(&part.place)
    }
}

/// A checkpoint that the log's key and each of these witnesses signed; there must be one.
pub fn cosigned(text: &str, log: &VerifierKey, witnesses: &[String]) -> Result<Checkpoint, EdgeError> {
    if text.len() > COSIGNED_BYTES_MAX {
        return Err(EdgeError::TooLarge(text.len()));
    }
    if witnesses.is_empty() || witnesses.len() > EDGE_WITNESSES_MAX {
        return Err(EdgeError::NoWitness("1 to 16 witnesses must have signed the checkpoint"));
    }
    let signed: SignedCheckpoint = text.parse()?;
    let checkpoint = signed.verify(log)?.clone();
    for witness in witnesses {
        let key: VerifierKey = witness.parse()?;
        if key.algorithm() != Algorithm::Cosignature {
            return Err(EdgeError::NoWitness("a witness' key is of type 4"));
        }
        if key.public_key() == log.public_key() {
            return Err(EdgeError::NoWitness("the log cannot be its own witness"));
        }
        signed.note().verify(&key)?;
    }
    Ok(checkpoint)
}

fn hash_of(state: &[u8]) -> Hash {
    Hash::of_parts(&[LABEL, state])
}

fn first_number(state: &[u8]) -> Option<u32> {
    let mut decoder = minicbor::Decoder::new(state);
    decoder.array().ok()?;
    decoder.u32().ok()
}

#[cfg(test)]
mod tests;
