use std::collections::BTreeMap;

use base::{AxiomTime, EntryKey, IdentityId, KeyPath};

use super::*;
use crate::{
    Entry,
    genesis::{GenesisPlan, build},
    note::NoteSigner,
    payload::Envelope,
    tree::{inclusion_nodes, inclusion_proof, verify_inclusion},
};

const WITNESS: &str = "witness.example/1";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

/// Of a node with a key; its identities' keys are hashes.
fn genesis_of(node_name: &str, sequencer: &SigningKey) -> Entry {
    let other = |number| PublicKey([number; 32]);
    let plan = GenesisPlan {
        image_hash: Hash([1; 32]),
        genesis_time: AxiomTime(7),
        node_name: node_name.to_owned(),
        node_key: other(2),
        sequencer_key: public(sequencer),
        policy_key: other(4),
        identity_key: other(5),
        admin_uid: 1000,
        rules: vec![],
        initial_capabilities: vec![],
    };
    let key_of = |path: &KeyPath| Some(PublicKey(Hash::of(path.to_string().as_bytes()).0));
    let body = build(plan, key_of).unwrap();
    let (submitter, key) = (IdentityId([9; 32]), EntryKey([9; 16]));
    let payload = Envelope { submitter, key, authorization: None, body }.to_bytes().unwrap();
    Entry::next(Sequence(0), Hash::ZERO, AxiomTime(7), EntryType::Genesis, payload).unwrap().0
}

fn leaf(index: u64) -> TreeHash {
    TreeHash::leaf(&index.to_le_bytes())
}

fn tree(size: u64) -> Edge {
    let mut tree = Edge::default();
    (0..size).for_each(|index| tree.push(leaf(index), |_, _| {}));
    tree
}

fn cosigned_text(genesis: &Entry, size: u64, log: &SigningKey, witness: &SigningKey) -> (String, String) {
    let checkpoint = Checkpoint { origin: origin("node-a", &genesis.hash()), size, root: tree(size).root() };
    let mut signed = checkpoint.sign(log).unwrap();
    let signer = NoteSigner { name: WITNESS, key: witness };
    let line = signer.cosign(&checkpoint.text(), 1_700_000_000).unwrap();
    signed.note_mut().add(line).unwrap();
    (signed.to_string(), signer.verifier(Algorithm::Cosignature).unwrap().to_string())
}

fn plan() -> EdgePlan {
    let genesis = genesis_of("node-a", &key());
    let (checkpoint, witness) = cosigned_text(&genesis, 9, &key(), &SigningKey::from_bytes(&[8; 32]));
    EdgePlan {
        genesis: genesis.leaf(),
        last: AxiomRef { sequence: Sequence(5), hash: Hash::of(b"five") },
        headers: Hash::of(b"headers"),
        tree: tree(6),
        checkpoint,
        witnesses: vec![witness],
        archive: AxiomRef { sequence: Sequence(11), hash: Hash::of(b"eleven") },
        place: "/archive".into(),
        before: None,
    }
}

#[test]
fn an_edge_stands_as_it_is_specified_and_reads_back() {
    let edge = LogEdge::new(plan()).unwrap();
    let bytes = edge.sign(&key()).unwrap();
    let text = include_str!("../../../../docs/format.md");
    let hash = Hash::of(&bytes).to_hex();
    assert!(text.contains(&format!("edge-blake3: {hash}\n")), "{hash}");
    for expected in [None, Some(public(&key()))] {
        assert_eq!(LogEdge::read(&bytes, expected.as_ref()).unwrap(), edge);
    }
    assert_eq!(edge.point().next_sequence, Sequence(6));
    assert_eq!(edge.tree(), Some(tree(6)));
    assert_eq!((edge.place_of(Sequence(5)), edge.place_of(Sequence(6))), (Some("/archive"), None));
    assert_eq!(edge.checkpoint().unwrap().size, 9);
}

#[test]
fn a_changed_byte_another_key_and_another_log_are_refused() {
    let bytes = LogEdge::new(plan()).unwrap().sign(&key()).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(LogEdge::read(&changed, Some(&public(&key()))).is_err(), "byte {at}");
        assert!(LogEdge::read(&changed, None).is_err(), "byte {at}, whatever key");
    }
    assert!(LogEdge::read(&bytes[..bytes.len() - 1], None).is_err());
    let other = public(&SigningKey::from_bytes(&[6; 32]));
    assert!(matches!(LogEdge::read(&bytes, Some(&other)), Err(EdgeError::Key)));
    // Made by somebody who has another key: genesis does not pin it.
    let forged = LogEdge::new(plan()).unwrap().sign(&SigningKey::from_bytes(&[6; 32])).unwrap();
    assert!(matches!(LogEdge::read(&forged, None), Err(EdgeError::Note(_))));
    assert!(matches!(LogEdge::read(&vec![0; EDGE_BYTES_MAX + 1], None), Err(EdgeError::TooLarge(_))));
}

/// Each field is looked at, also where the signature holds.
#[test]
fn what_does_not_fit_together_is_no_edge() {
    let witness = SigningKey::from_bytes(&[8; 32]);
    let genesis = genesis_of("node-a", &key());
    let refused = |change: &dyn Fn(&mut EdgePlan)| {
        let mut changed = plan();
        change(&mut changed);
        LogEdge::new(changed).unwrap_err()
    };
    let last = |number| AxiomRef { sequence: Sequence(number), hash: Hash::ZERO };
    assert!(matches!(refused(&|plan| plan.last = last(6)), EdgeError::Tree));
    assert!(matches!(refused(&|plan| plan.tree = tree(5)), EdgeError::Tree));
    assert!(matches!(refused(&|plan| plan.genesis.truncate(80)), EdgeError::Genesis));
    assert!(matches!(refused(&|plan| plan.genesis[100] ^= 1), EdgeError::Genesis));
    assert!(matches!(
        refused(&|plan| plan.genesis = genesis_of("node-b", &key()).leaf()),
        EdgeError::Checkpoint(_)
    ));
    let below = cosigned_text(&genesis, 5, &key(), &witness).0;
    assert!(matches!(
        refused(&|plan| plan.checkpoint.clone_from(&below)),
        EdgeError::Below { size: 5, archived: 6 }
    ));
    let other = SigningKey::from_bytes(&[6; 32]);
    let unsigned = cosigned_text(&genesis, 9, &other, &witness).0;
    assert!(matches!(refused(&|plan| plan.checkpoint.clone_from(&unsigned)), EdgeError::Checkpoint(_)));
    let stranger = cosigned_text(&genesis, 9, &key(), &other).0;
    assert!(matches!(refused(&|plan| plan.checkpoint.clone_from(&stranger)), EdgeError::Witness(_)));
    assert!(matches!(refused(&|plan| plan.witnesses.clear()), EdgeError::NoWitness(_)));
    let witnesses = |number| vec![plan().witnesses[0].clone(); number];
    let many = witnesses(EDGE_WITNESSES_MAX + 1);
    assert!(matches!(refused(&|plan| plan.witnesses.clone_from(&many)), EdgeError::NoWitness(_)));
    assert!(LogEdge::new(EdgePlan { witnesses: witnesses(EDGE_WITNESSES_MAX), ..plan() }).is_ok());
    // The log's own key, said to be a witness'.
    let (own, key_of_own) = cosigned_text(&genesis, 9, &key(), &key());
    let own = refused(&|plan| {
        plan.checkpoint.clone_from(&own);
        plan.witnesses = vec![key_of_own.clone()];
    });
    assert!(matches!(own, EdgeError::NoWitness(_)));
    let place = |bytes| EdgePlan { place: "p".repeat(bytes), ..plan() };
    assert!(LogEdge::new(place(PLACE_BYTES_MAX)).is_ok());
    assert!(matches!(LogEdge::new(place(PLACE_BYTES_MAX + 1)), Err(EdgeError::Parts)));
}

#[test]
fn parts_follow_on_each_other_and_are_bounded() {
    let genesis = genesis_of("node-a", &key());
    let (checkpoint, _) = cosigned_text(&genesis, 600, &key(), &SigningKey::from_bytes(&[8; 32]));
    let mut before = None;
    for number in 0..=EDGE_PARTS_MAX as u64 {
        let plan = EdgePlan {
            last: AxiomRef { sequence: Sequence(number), hash: Hash::ZERO },
            tree: tree(number + 1),
            checkpoint: checkpoint.clone(),
            place: format!("/{number}"),
            before: before.clone(),
            ..plan()
        };
        let edge = LogEdge::new(plan);
        if number == EDGE_PARTS_MAX as u64 {
            assert!(matches!(edge, Err(EdgeError::Parts)));
            break;
        }
        let edge = edge.unwrap();
        assert_eq!(edge.place_of(Sequence(number)), Some(format!("/{number}").as_str()));
        before = Some(edge);
    }
    // One behind the other in the same place is one part.
    let plan = |number, before| EdgePlan {
        last: AxiomRef { sequence: Sequence(number), hash: Hash::ZERO },
        tree: tree(number + 1),
        before,
        ..plan()
    };
    let first = LogEdge::new(plan(3, None)).unwrap();
    let second = LogEdge::new(plan(7, Some(first))).unwrap();
    assert_eq!(second.parts().len(), 1);
    assert_eq!(second.parts()[0].to, Sequence(7));
}

/// At any place: with the edge's subtrees alone, what is left has the root and the proofs of the whole log.
#[test]
fn what_is_left_proves_as_the_whole_log_does() {
    const SIZE: u64 = 40;
    let genesis = genesis_of("node-a", &key());
    let (checkpoint, _) = cosigned_text(&genesis, SIZE, &key(), &SigningKey::from_bytes(&[8; 32]));
    let mut whole = BTreeMap::new();
    let mut all = Edge::default();
    (0..SIZE).for_each(|index| all.push(leaf(index), |id, hash| whole.extend([(id, hash)])));
    for archived in 1..SIZE {
        let last = AxiomRef { sequence: Sequence(archived - 1), hash: Hash::ZERO };
        let plan = EdgePlan { last, tree: tree(archived), checkpoint: checkpoint.clone(), ..plan() };
        let edge = LogEdge::new(plan).unwrap();
        let mut nodes: BTreeMap<_, _> = edge.nodes().into_iter().collect();
        let mut left = edge.tree().unwrap();
        (archived..SIZE).for_each(|index| left.push(leaf(index), |id, hash| nodes.extend([(id, hash)])));
        assert_eq!(left, all, "{archived}");
        for index in archived..SIZE {
            let proof = inclusion_proof(&nodes, index, SIZE).unwrap();
            assert_eq!(Some(&proof), inclusion_proof(&whole, index, SIZE).as_ref());
            assert!(verify_inclusion(leaf(index), index, SIZE, &proof, all.root()));
        }
        // Of an archived entry it cannot be made: the node is not there, and nothing is made up.
        let needed = inclusion_nodes(0, SIZE).unwrap();
        let known = needed.iter().all(|id| nodes.contains_key(id));
        assert_eq!(inclusion_proof(&nodes, 0, SIZE).is_some(), known);
    }
}
