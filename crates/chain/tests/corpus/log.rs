//! A small log with fixed keys, and evidence and proofs of it.

use std::collections::BTreeMap;

use base::{AxiomRef, AxiomTime, Hash, PublicKey, Sequence};
use chain::{
    ChainPoint, Entry, EntryType,
    checkpoint::{Checkpoint, SignedCheckpoint, origin},
    evidence::{Evidence, Older},
    note::{Algorithm, NoteSigner, VerifierKey},
    tlog_proof::TlogProof,
    tree::{Edge, NodeId, TreeHash, consistency_proof, inclusion_proof, set_proof},
};
use ed25519_dalek::SigningKey;

/// Entries of the log.
pub(crate) const SIZE: u64 = 20;
const WITNESSED_AT_S: u64 = 1_700_000_000;

pub(crate) struct Log {
    pub(crate) key: SigningKey,
    pub(crate) leaves: Vec<Vec<u8>>,
    nodes: BTreeMap<NodeId, TreeHash>,
    roots: Vec<TreeHash>,
}

impl Log {
    /// Entries from the fifth on depend on `salt`: two logs of one beginning.
    pub(crate) fn new(salt: u8) -> Self {
        let mut point = ChainPoint::GENESIS;
        let mut leaves = Vec::new();
        for n in 0..SIZE {
            let payload = vec![if n > 4 { salt } else { 0 }; n as usize % 7];
            let (entry, hash) = Entry::next(
                Sequence(n),
                point.last_hash,
                AxiomTime(1000 + n * 10),
                EntryType::Receipt,
                payload,
            )
            .unwrap();
            point = ChainPoint::after(AxiomRef { sequence: Sequence(n), hash });
            leaves.push(entry.leaf());
        }
        Self::of(leaves)
    }

    /// A log that signs whatever these leaves are.
    pub(crate) fn of(leaves: Vec<Vec<u8>>) -> Self {
        let (mut nodes, mut edge) = (BTreeMap::new(), Edge::default());
        let mut roots = vec![edge.root()];
        for leaf in &leaves {
            edge.push(TreeHash::leaf(leaf), |id, hash| {
                nodes.insert(id, hash);
            });
            roots.push(edge.root());
        }
        Self { key: SigningKey::from_bytes(&[7; 32]), leaves, nodes, roots }
    }

    pub(crate) fn checkpoint(&self, size: u64) -> Checkpoint {
        let origin = origin("node-a", &Hash::of(b"genesis"));
        Checkpoint { origin, size, root: self.roots[size as usize] }
    }

    pub(crate) fn verifier(&self) -> VerifierKey {
        self.checkpoint(0).key(&PublicKey(self.key.verifying_key().to_bytes())).unwrap()
    }

    /// Signed by the log and by these witnesses.
    pub(crate) fn signed(&self, size: u64, witnesses: &[u8]) -> SignedCheckpoint {
        let mut signed = self.checkpoint(size).sign(&self.key).unwrap();
        for witness in witnesses {
            let key = SigningKey::from_bytes(&[*witness; 32]);
            let signer = NoteSigner { name: &witness_name(*witness), key: &key };
            let line = signer.cosign(&self.checkpoint(size).text(), WITNESSED_AT_S).unwrap();
            signed.note_mut().add(line).unwrap();
        }
        signed
    }

    pub(crate) fn older(&self, old: u64, size: u64) -> Older {
        let consistency = consistency_proof(&self.nodes, old, size).unwrap();
        Older { size: old, root: self.roots[old as usize], consistency }
    }

    pub(crate) fn evidence(
        &self,
        indices: &[u64],
        size: u64,
        old: Option<u64>,
        witnesses: &[u8],
    ) -> Evidence {
        Evidence {
            log: self.verifier(),
            witnesses: witnesses.iter().map(|witness| witness_key(*witness)).collect(),
            older: old.map(|old| self.older(old, size)),
            entries: indices.iter().map(|n| (*n, self.leaves[*n as usize].clone())).collect(),
            tree: set_proof(&self.nodes, indices, size).unwrap(),
            checkpoint: self.signed(size, witnesses),
        }
    }

    pub(crate) fn proof(&self, index: u64, size: u64) -> TlogProof {
        TlogProof {
            extra: Some(self.leaves[index as usize].clone()),
            index,
            hashes: inclusion_proof(&self.nodes, index, size).unwrap(),
            checkpoint: self.signed(size, &[8]),
        }
    }
}

pub(crate) fn witness_name(witness: u8) -> String {
    format!("witness.example/{witness}")
}

pub(crate) fn witness_key(witness: u8) -> VerifierKey {
    let key = SigningKey::from_bytes(&[witness; 32]);
    NoteSigner { name: &witness_name(witness), key: &key }.verifier(Algorithm::Cosignature).unwrap()
}
