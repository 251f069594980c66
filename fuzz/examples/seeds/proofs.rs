use std::collections::BTreeMap;

use base::{AxiomTime, Hash, PublicKey, Sequence};
use chain::{
    Entry, EntryType,
    checkpoint::{Checkpoint, SignedCheckpoint, origin},
    evidence::{Evidence, Older},
    note::{Algorithm, NoteSigner, VerifierKey},
    tiles::{Tile, TileKind},
    tlog_proof::TlogProof,
    tree::{Edge, NodeId, TreeHash, consistency_proof, inclusion_proof, set_proof},
    witness::AddCheckpoint,
};
use ed25519_dalek::SigningKey;

use crate::{Seeds, named};

const SIZE: u64 = 7;
const OLD: u64 = 3;
const WITNESS: &str = "witness.example/1";

struct Log {
    leaves: Vec<Vec<u8>>,
    nodes: BTreeMap<NodeId, TreeHash>,
    older: TreeHash,
    root: TreeHash,
}

fn log() -> Log {
    let (mut nodes, mut edge) = (BTreeMap::new(), Edge::default());
    let (mut leaves, mut before, mut older) = (Vec::new(), Hash::ZERO, TreeHash::empty());
    for n in 0..SIZE {
        let payload = vec![7; n as usize];
        let next = Entry::next(Sequence(n), before, AxiomTime(1000 + n), EntryType::Receipt, payload);
        let (entry, hash) = next.unwrap();
        before = hash;
        edge.push(TreeHash::leaf(&entry.leaf()), |id, hash| {
            nodes.insert(id, hash);
        });
        leaves.push(entry.leaf());
        if edge.size() == OLD {
            older = edge.root();
        }
    }
    Log { leaves, nodes, older, root: edge.root() }
}

fn signed(log: &Log) -> (SignedCheckpoint, VerifierKey, VerifierKey) {
    let (own, witness) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
    let checkpoint = Checkpoint { origin: origin("desk", &Hash::of(b"genesis")), size: SIZE, root: log.root };
    let mut signed = checkpoint.sign(&own).unwrap();
    let signer = NoteSigner { name: WITNESS, key: &witness };
    let line = signer.cosign(&checkpoint.text(), 1_700_000_000).unwrap();
    signed.note_mut().add(line).unwrap();
    let key = checkpoint.key(&PublicKey(own.verifying_key().to_bytes())).unwrap();
    (signed, key, signer.verifier(Algorithm::Cosignature).unwrap())
}

pub(crate) fn all() -> Seeds {
    let log = log();
    let (checkpoint, key, witness) = signed(&log);
    let consistency = consistency_proof(&log.nodes, OLD, SIZE).unwrap();
    let indices = [1, 4, 5];
    let entries = indices.iter().map(|n| (*n, log.leaves.get(*n as usize).unwrap().clone()));
    let evidence = Evidence {
        log: key.clone(),
        witnesses: vec![witness],
        older: Some(Older { size: OLD, root: log.older, consistency: consistency.clone() }),
        entries: entries.collect(),
        tree: set_proof(&log.nodes, &indices, SIZE).unwrap(),
        checkpoint: checkpoint.clone(),
    };
    let proof = TlogProof {
        extra: log.leaves.get(4).cloned(),
        index: 4,
        hashes: inclusion_proof(&log.nodes, 4, SIZE).unwrap(),
        checkpoint: checkpoint.clone(),
    };
    let request = AddCheckpoint { old: OLD, consistency, checkpoint: checkpoint.clone() };
    let bundle = log.leaves.iter().flat_map(|leaf| {
        let length = u16::try_from(leaf.len()).unwrap();
        [&length.to_be_bytes(), leaf.as_slice()].concat()
    });
    let tile = Tile { kind: TileKind::Hashes { level: 1 }, index: 1_234_067, width: 9 };
    vec![
        named("evidence", evidence.to_string()),
        named("proof", proof.to_string()),
        named("request", request.to_string()),
        named("checkpoint", checkpoint.to_string()),
        named("key", key.to_string()),
        named("hash", log.root.to_string()),
        named("tile", tile.to_string()),
        named("bundle", bundle.collect::<Vec<u8>>()),
    ]
}
