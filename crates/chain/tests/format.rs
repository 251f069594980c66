//! The vectors of docs/format.md against the code.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

use std::collections::BTreeMap;

use base::{AxiomRef, AxiomTime, Hash, PublicKey, Sequence, Signature};
use chain::{
    ChainPoint, Entry, EntryType, GroupBuilder, HeadSlot, SegmentHeader, UnsignedHead,
    checkpoint::{Checkpoint, origin},
    merkle,
    note::{Algorithm, NoteSigner},
    tree::{Edge, TreeHash, consistency_proof, inclusion_proof, set_proof},
};
use ed25519_dalek::SigningKey;
use sha2::{Digest, Sha256};

const FORMAT: &str = include_str!("../../../docs/format.md");
const SALT: [u8; 16] = [7; 16];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn computed() -> BTreeMap<&'static str, String> {
    let before = ChainPoint { next_sequence: Sequence(1), last_hash: Hash::of(b"genesis") };
    let (entry, hash) = Entry::next(
        Sequence(1),
        before.last_hash,
        AxiomTime(1_000_000_000),
        EntryType::Receipt,
        b"payload".to_vec(),
    )
    .unwrap();
    let group = |signature| {
        let mut group = GroupBuilder::new(Vec::new(), Sequence(1));
        group.push(&Entry { signature, ..entry.clone() }, &hash).unwrap();
        group.finish(&SALT).unwrap()
    };
    let key = SigningKey::from_bytes(&[7; 32]);
    let head = AxiomRef { sequence: Sequence(1), hash };
    let note = UnsignedHead { name: "node-a".into(), head, state: None }.sign(&key).unwrap();
    let tree = merkle::Tree::new([b"a", b"b", b"c"].map(|body| merkle::leaf(body)).to_vec()).unwrap();
    let mut vectors = of_the_tree();
    vectors.extend([
        ("tree-leaf-of-entry", hex(&TreeHash::leaf(&entry.leaf()).0)),
        ("header", hex(&entry.header.encode())),
        ("entry-hash", hex(&hash.0)),
        ("group", hex(&group(None))),
        ("group-signed", hex(&group(Some(Signature([5; 64]))))),
        ("segment-header-blake3", Hash::of(&SegmentHeader::at(&before, 65536, SALT).encode()).to_hex()),
        ("head-slot", hex(&HeadSlot(head).encode())),
        ("signed-head-blake3", Hash::of(note.as_str().as_bytes()).to_hex()),
        ("decision-root", hex(&tree.root().0)),
        ("decision-path-2", tree.path(2).unwrap().iter().map(|hash| hash.to_hex()).collect()),
        ("decision-root-signature", hex(&merkle::sign_root(&key, &tree.root()).0)),
    ]);
    vectors
}

/// The tree and what is signed of it.
fn of_the_tree() -> BTreeMap<&'static str, String> {
    let (mut edge, mut nodes) = (Edge::default(), BTreeMap::new());
    let mut root_3 = None;
    for leaf in ["a", "b", "c", "d", "e"] {
        edge.push(TreeHash::leaf(leaf.as_bytes()), |id, hash| {
            nodes.insert(id, hash);
        });
        root_3 = root_3.or((edge.size() == 3).then(|| edge.root()));
    }
    let key = SigningKey::from_bytes(&[7; 32]);
    let witness = SigningKey::from_bytes(&[8; 32]);
    let witness = NoteSigner { name: "witness.example/1", key: &witness };
    let origin = origin("node-a", &Hash::of(b"genesis"));
    let checkpoint = Checkpoint { origin, size: 5, root: edge.root() };
    let mut signed = checkpoint.sign(&key).unwrap();
    let line = witness.cosign(&checkpoint.text(), 1_700_000_000).unwrap();
    signed.note_mut().add(line).unwrap();
    let all =
        |hashes: Option<Vec<TreeHash>>| hashes.unwrap().iter().map(|hash| hex(&hash.0)).collect::<String>();
    BTreeMap::from([
        ("tree-root-3", hex(&root_3.unwrap().0)),
        ("tree-root-5", hex(&edge.root().0)),
        ("tree-inclusion-2-of-5", all(inclusion_proof(&nodes, 2, 5))),
        ("tree-consistency-3-to-5", all(consistency_proof(&nodes, 3, 5))),
        ("tree-set-1-3-of-5", all(set_proof(&nodes, &[1, 3], 5))),
        ("checkpoint-key", checkpoint.key(&PublicKey(key.verifying_key().to_bytes())).unwrap().to_string()),
        ("checkpoint-sha256", hex(&Sha256::digest(signed.to_string()))),
        ("witness-key", witness.verifier(Algorithm::Cosignature).unwrap().to_string()),
    ])
}

/// covers: AX-16, AX-17, AX-20, AX-45
#[test]
fn the_vectors_of_the_format_hold() {
    let block = FORMAT.split("```vectors\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let lines: String = computed().iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    assert_eq!(block, lines);
}
