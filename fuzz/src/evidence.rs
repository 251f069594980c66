//! Any text as what strangers hand over: hashes, keys, notes, checkpoints, proofs, evidence, requests to a witness, paths
//! of tiles; and any bytes as an entry bundle.
//!
//! Strategy: each reader gets the whole input; the formats tell themselves apart. Signatures are not guessed, so the trees
//! behind them are also checked as if the note had held.
//! Invariants: a refusal is one line; what is read is written back as it was; nothing that was not signed verifies with a
//! key that signed nothing.

use std::{fmt::Display, str::FromStr};

use base::PublicKey;
use chain::{
    checkpoint::SignedCheckpoint,
    evidence::{Evidence, Expected},
    note::{Algorithm, Note, NoteSignature, VerifierKey},
    tiles::{TILE_WIDTH, Tile, bundle_entries},
    tlog_proof::TlogProof,
    tree::TreeHash,
    witness::AddCheckpoint,
};

use crate::check::one_line;

fn reads_back<T: FromStr<Err: Display> + Display>(text: &str) -> Option<T> {
    match text.parse::<T>() {
        Ok(read) => {
            assert!(read.to_string() == text, "written back otherwise");
            Some(read)
        }
        Err(error) => {
            one_line(&error);
            None
        }
    }
}

/// A key under the name that the checkpoint gives, which signed nothing. None where that is no name for a key.
fn stranger(checkpoint: &SignedCheckpoint) -> Option<VerifierKey> {
    let public = ed25519_dalek::SigningKey::from_bytes(&[200; 32]).verifying_key().to_bytes();
    checkpoint.unverified().key(&PublicKey(public)).ok()
}

fn refused<T>(result: Result<T, impl Display>) {
    assert!(result.is_err(), "holds with a key that signed nothing");
    result.err().iter().for_each(one_line);
}

fn checkpoint(signed: &SignedCheckpoint) {
    if let Some(key) = stranger(signed) {
        refused(signed.verify(&key));
        let witness = VerifierKey::new(key.name(), Algorithm::Cosignature, *key.public_key());
        witness.iter().for_each(|witness| refused(signed.note().verify(witness)));
    }
}

fn proof(proof: &TlogProof) {
    checkpoint(&proof.checkpoint);
    if let Some(key) = stranger(&proof.checkpoint) {
        refused(proof.verify(&key, proof.extra.as_deref().unwrap_or_default()));
    }
}

fn evidence(evidence: &Evidence) {
    checkpoint(&evidence.checkpoint);
    refused(evidence.verify(&Expected { log: stranger(&evidence.checkpoint), ..Expected::default() }));
    for result in [
        evidence.verify(&Expected::default()).map(drop),
        evidence.verify_tree(evidence.checkpoint.unverified()),
    ] {
        if let Err(error) = result {
            one_line(&error);
        }
    }
}

fn request(request: &AddCheckpoint) {
    checkpoint(&request.checkpoint);
    refused(request.decide(None, None));
    if let Some(key) = stranger(&request.checkpoint) {
        refused(request.decide(Some(&key), None));
    }
}

pub fn run(input: &[u8]) -> bool {
    let bundle = (1..=TILE_WIDTH).find_map(|width| bundle_entries(input, width));
    let Ok(text) = std::str::from_utf8(input) else { return bundle.is_some() };
    let small = [
        reads_back::<TreeHash>(text).is_some(),
        reads_back::<VerifierKey>(text).is_some(),
        reads_back::<NoteSignature>(text).is_some(),
        reads_back::<Note>(text).is_some(),
        reads_back::<Tile>(text).is_some(),
    ];
    let notes = [
        reads_back(text).as_ref().map(checkpoint),
        reads_back(text).as_ref().map(proof),
        reads_back(text).as_ref().map(evidence),
        reads_back(text).as_ref().map(request),
    ];
    bundle.is_some() || small.contains(&true) || notes.contains(&Some(()))
}
