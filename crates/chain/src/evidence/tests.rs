use std::collections::BTreeMap;

use base::{AxiomTime, Hash, Sequence};
use ed25519_dalek::SigningKey;

use super::*;
use crate::{
    ChainPoint, Entry, EntryType,
    note::{NoteSigner, VerifierKey},
    tlog_proof::TlogProof,
    tree::{Edge, NodeId, consistency_proof, inclusion_proof, set_proof},
};

/// A small log with a key, and a witness.
pub(crate) struct Log {
    pub key: SigningKey,
    pub witness: SigningKey,
    entries: Vec<Entry>,
    nodes: BTreeMap<NodeId, TreeHash>,
    roots: Vec<TreeHash>,
}

impl Log {
    fn new(length: u64, salt: u8) -> Self {
        let (mut nodes, mut edge, mut point) = (BTreeMap::new(), Edge::default(), ChainPoint::GENESIS);
        let mut entries = Vec::new();
        let mut roots = vec![edge.root()];
        for n in 0..length {
            let payload = vec![if n > 4 { salt } else { 0 }; n as usize];
            let (entry, hash) =
                Entry::next(Sequence(n), point.last_hash, AxiomTime(n * 10), EntryType::Receipt, payload)
                    .unwrap();
            point = ChainPoint::after(base::AxiomRef { sequence: Sequence(n), hash });
            edge.push(TreeHash::leaf(&entry.leaf()), |id, hash| {
                nodes.insert(id, hash);
            });
            roots.push(edge.root());
            entries.push(entry);
        }
        let (key, witness) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
        Self { key, witness, entries, nodes, roots }
    }

    fn at(&self, size: u64) -> Checkpoint {
        let origin = crate::checkpoint::origin("desk", &Hash::of(b"genesis"));
        Checkpoint { origin, size, root: self.roots[size as usize] }
    }

    fn key(&self) -> VerifierKey {
        self.at(0).key(&PublicKey(self.key.verifying_key().to_bytes())).unwrap()
    }

    fn witness(&self) -> NoteSigner<'_> {
        NoteSigner { name: "w.example/1", key: &self.witness }
    }

    fn evidence(&self, indices: &[u64], size: u64, old: Option<u64>) -> Evidence {
        let mut checkpoint = self.at(size).sign(&self.key).unwrap();
        let text = checkpoint.note().text().to_owned();
        checkpoint.note_mut().add(self.witness().cosign(&text, 1_700_000_000).unwrap()).unwrap();
        let older = old.map(|old| Older {
            size: old,
            root: self.roots[old as usize],
            consistency: consistency_proof(&self.nodes, old, size).unwrap(),
        });
        Evidence {
            log: self.key(),
            witnesses: vec![self.witness().verifier(Algorithm::Cosignature).unwrap()],
            older,
            entries: indices.iter().map(|n| (*n, self.entries[*n as usize].leaf())).collect(),
            tree: set_proof(&self.nodes, indices, size).unwrap(),
            checkpoint,
        }
    }
}

fn expected(log: &Log) -> Expected {
    Expected { log: Some(log.key()), ..Expected::default() }
}

#[test]
fn evidence_reads_back_and_holds() {
    let log = Log::new(20, 1);
    for (indices, size, old) in [
        (&[3, 4, 5, 6][..], 20, None),
        (&[0], 1, None),
        (&[0, 7, 19], 20, Some(11)),
        (&[19], 20, Some(20)),
        (&(0..13).collect::<Vec<_>>(), 13, Some(1)),
    ] {
        let evidence = log.evidence(indices, size, old);
        let read: Evidence = evidence.to_string().parse().unwrap();
        assert_eq!(read, evidence);
        let shown = read.verify(&expected(&log)).unwrap();
        assert_eq!(shown.checkpoint, log.at(size));
        assert_eq!(shown.witnesses, [("w.example/1".to_owned(), 1_700_000_000)]);
        assert_eq!(shown.older_size, old);
    }
}

/// No byte can be changed unseen: neither in the file nor in the tree behind it.
#[test]
fn any_changed_byte_is_refused() {
    let log = Log::new(20, 1);
    let text = log.evidence(&[3, 4, 11], 20, Some(9)).to_string();
    for at in 0..text.len() {
        for flip in [1, 0x20] {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= flip;
            let read = String::from_utf8(bytes).ok().and_then(|text| text.parse::<Evidence>().ok());
            let held = read.is_some_and(|read| read.verify(&expected(&log)).is_ok());
            assert!(!held, "byte {at} of {:?}", &text[..at.min(60)]);
        }
    }
}

#[test]
fn another_log_another_witness_and_other_keys_are_refused() {
    let log = Log::new(20, 1);
    let evidence = log.evidence(&[3], 20, None);
    let mut other = expected(&log);
    other.log = Some(VerifierKey::new("other", Algorithm::Ed25519, *log.key().public_key()).unwrap());
    assert!(matches!(evidence.verify(&other), Err(EvidenceError::OtherLog { .. })));
    let stranger = SigningKey::from_bytes(&[9; 32]);
    let stranger =
        NoteSigner { name: "w.example/2", key: &stranger }.verifier(Algorithm::Cosignature).unwrap();
    let more = Expected { witnesses: vec![stranger.clone()], ..expected(&log) };
    assert!(matches!(evidence.verify(&more), Err(EvidenceError::Witness(NoteError::NoSignature { .. }))));
    let claims = Evidence { witnesses: vec![stranger], ..evidence.clone() };
    assert!(matches!(claims.verify(&expected(&log)), Err(EvidenceError::Witness(_))));
    let mut twice = evidence.clone();
    twice.witnesses.push(twice.witnesses[0].clone());
    assert!(matches!(twice.verify(&expected(&log)), Err(EvidenceError::Twice(_))));
    let log_as_witness = Evidence { witnesses: vec![log.key()], ..evidence.clone() };
    assert!(matches!(log_as_witness.verify(&expected(&log)), Err(EvidenceError::Algorithm { .. })));
    let needed = Expected { witnesses: evidence.witnesses.clone(), ..expected(&log) };
    let unnamed = Evidence { witnesses: vec![], ..evidence };
    assert_eq!(unnamed.verify(&needed).unwrap().witnesses.len(), 1);
}

/// The log signed these leaves, but no entry can look so.
#[test]
fn leaves_that_are_no_entries_are_refused_although_they_are_signed() {
    let log = Log::new(4, 1);
    let entry = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut leaves: Vec<_> = log.entries.iter().map(|entry| entry.leaf()).collect();
        change(&mut leaves[2]);
        let (mut nodes, mut edge) = (BTreeMap::new(), Edge::default());
        for leaf in &leaves {
            edge.push(TreeHash::leaf(leaf), |id, hash| {
                nodes.insert(id, hash);
            });
        }
        let checkpoint = Checkpoint { root: edge.root(), ..log.at(4) }.sign(&log.key).unwrap();
        let entries = vec![(1, leaves[1].clone()), (2, leaves[2].clone())];
        let tree = set_proof(&nodes, &[1, 2], 4).unwrap();
        let forged = Evidence { witnesses: vec![], entries, tree, checkpoint, ..log.evidence(&[1], 4, None) };
        match forged.verify(&expected(&log)) {
            Err(EvidenceError::Entry { index: 2, what }) => what,
            Ok(_) => "held",
            Err(_) => "refused for another reason",
        }
    };
    assert_eq!(entry(&|_| {}), "held");
    assert_eq!(entry(&|leaf| leaf[0] = 3), "the header states another sequence");
    assert_eq!(entry(&|leaf| leaf.push(0)), "the header states another payload size");
    assert_eq!(entry(&|leaf| leaf.truncate(87)), "shorter than a header");
    assert_eq!(entry(&|leaf| leaf[72] = 0), "the time goes back");
    assert_eq!(entry(&|leaf| leaf.resize(65_536, 0)), "longer than an entry may be");
}

/// Truncation, rollback and a second history are found against a remembered checkpoint.
#[test]
fn a_remembered_checkpoint_finds_what_was_cut_or_changed() {
    let (log, forked) = (Log::new(20, 1), Log::new(20, 2));
    let remember = |log: &Log, size| Expected { remembered: Some(log.at(size)), ..expected(log) };
    assert!(log.evidence(&[3], 20, Some(11)).verify(&remember(&log, 11)).is_ok());
    assert!(log.evidence(&[3], 20, None).verify(&remember(&log, 20)).is_ok());
    assert_eq!(
        log.evidence(&[3], 15, None).verify(&remember(&log, 20)),
        Err(EvidenceError::RolledBack { remembered: 20, found: 15 })
    );
    assert_eq!(log.evidence(&[3], 20, None).verify(&remember(&log, 11)), Err(EvidenceError::Unconnected(11)));
    for evidence in [forked.evidence(&[3], 20, Some(11)), forked.evidence(&[3], 11, None)] {
        assert_eq!(evidence.verify(&remember(&log, 11)), Err(EvidenceError::Changed(11)));
    }
    let mut other = remember(&log, 20);
    other.remembered = Some(Checkpoint { origin: "other".into(), ..log.at(20) });
    assert!(matches!(log.evidence(&[3], 20, None).verify(&other), Err(EvidenceError::OtherLog { .. })));
}

#[test]
fn lines_in_another_order_or_number_are_refused() {
    let log = Log::new(20, 1);
    let text = log.evidence(&[3, 11], 20, Some(9)).to_string();
    let lines: Vec<&str> = text.split('\n').collect();
    for at in 0..lines.len() {
        let without = [&lines[..at], &lines[at + 1..]].concat().join("\n");
        let doubled = [&lines[..=at], &lines[at..]].concat().join("\n");
        for (what, changed) in [("without", without), ("doubled", doubled)] {
            let held = changed.parse::<Evidence>().is_ok_and(|read| read.verify(&expected(&log)).is_ok());
            // One witness less is named, or its line stands twice: nothing false is claimed.
            let harmless = lines[at].starts_with("witness ") && what == "without"
                || lines[at].starts_with("— ") && what == "doubled";
            assert_eq!(held, harmless, "{what} {:?}", lines[at]);
        }
    }
    let many = |count: usize| {
        let witness = format!("{}\n", lines[2]);
        text.replacen(&witness, &witness.repeat(count), 1).parse::<Evidence>()
    };
    assert!(many(EVIDENCE_WITNESSES_MAX).is_ok());
    assert_eq!(many(EVIDENCE_WITNESSES_MAX + 1), Err(EvidenceError::TooLarge));
    let large = "x".repeat(EVIDENCE_BYTES_MAX + 1);
    assert_eq!(large.parse::<Evidence>(), Err(EvidenceError::TooLarge));
}

#[test]
fn a_single_entry_has_a_standard_proof() {
    let log = Log::new(20, 1);
    let leaf = log.entries[13].leaf();
    let proof = TlogProof {
        extra: Some(leaf.clone()),
        index: 13,
        hashes: inclusion_proof(&log.nodes, 13, 20).unwrap(),
        checkpoint: log.at(20).sign(&log.key).unwrap(),
    };
    let text = proof.to_string();
    let read: TlogProof = text.parse().unwrap();
    assert_eq!(read, proof);
    assert_eq!(read.verify(&log.key(), &leaf), Ok(&log.at(20)));
    assert!(read.verify(&log.key(), b"other").is_err());
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let read = String::from_utf8(bytes).ok().and_then(|text| text.parse::<TlogProof>().ok());
        let held = read.is_some_and(|read| {
            read.extra.as_ref().is_some_and(|leaf| read.verify(&log.key(), leaf).is_ok())
        });
        assert!(!held, "byte {at}");
    }
    let bare = TlogProof { extra: None, ..proof };
    assert_eq!(bare.to_string().parse(), Ok(bare));
}
