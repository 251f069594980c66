//! The vectors of docs/format.md against the code.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

use std::collections::BTreeMap;

use base::{AxiomRef, AxiomTime, Hash, Sequence, Signature};
use chain::{ChainPoint, Entry, EntryType, GroupBuilder, HeadSlot, SegmentHeader, UnsignedHead, merkle};
use ed25519_dalek::SigningKey;

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
    BTreeMap::from([
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
    ])
}

/// covers: AX-16, AX-17, AX-20, AX-45
#[test]
fn the_vectors_of_the_format_hold() {
    let block = FORMAT.split("```vectors\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let lines: String = computed().iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    assert_eq!(block, lines);
}
