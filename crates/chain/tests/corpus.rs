//! The corpus of evidence and proofs that must be refused: made here, kept in `tests/corpus` for every verifier.
//!
//! `BAILIWICK_WRITE_CORPUS=1 cargo test -p chain --test corpus` writes it anew.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may stop the test")]

#[path = "corpus/cases.rs"]
mod cases;
#[path = "corpus/log.rs"]
mod log;

use std::path::{Path, PathBuf};

use chain::{
    evidence::{Evidence, Expected},
    note::VerifierKey,
    tlog_proof::TlogProof,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus")
}

/// Why the file does not hold; None if it does. `key` is the reader's own; a proof cannot do without.
fn refusal(name: &str, bytes: &[u8], log: &VerifierKey, key: Option<&VerifierKey>) -> Option<String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Some("no UTF-8".into()) };
    if name.ends_with(".proof") {
        let proof: TlogProof = match text.parse() {
            Ok(proof) => proof,
            Err(error) => return Some(format!("{error}")),
        };
        let Some(leaf) = proof.extra.clone() else { return Some("no entry".into()) };
        return proof.verify(log, &leaf).err().map(|error| error.to_string());
    }
    let expected = Expected { log: key.cloned(), ..Expected::default() };
    let read = text.parse::<Evidence>().and_then(|evidence| evidence.verify(&expected));
    read.err().map(|error| error.to_string())
}

#[test]
fn the_corpus_is_the_generators_and_each_file_is_refused() {
    let files = cases::all();
    let key = log::Log::new(1).verifier();
    let mut reasons = String::new();
    let mut refused = 0;
    let mut wrong = Vec::new();
    for (name, (bytes, reason)) in &files {
        reasons.push_str(&format!("{name}: {reason}\n"));
        let found = refusal(name, bytes, &key, None);
        match name.split('/').next().unwrap() {
            "holds" => wrong.extend(found.map(|why| format!("{name}: {why}"))),
            "refused" => {
                refused += 1;
                if found.is_none() {
                    wrong.push(format!("{name} holds: {reason}"));
                }
            }
            "foreign" => {
                assert!(name.ends_with(".proof") || found.is_none(), "{name}: {found:?}");
                assert!(refusal(name, bytes, &key, Some(&key)).is_some(), "{name} holds for the log's key");
            }
            _ => {}
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(refused >= 200, "{refused}");
    if std::env::var_os("BAILIWICK_WRITE_CORPUS").is_some() {
        let _ = std::fs::remove_dir_all(folder());
        for (name, (bytes, _)) in &files {
            let path = folder().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        std::fs::write(folder().join("reasons.txt"), &reasons).unwrap();
    }
    for (name, (bytes, _)) in &files {
        assert_eq!(
            std::fs::read(folder().join(name)).ok().as_ref(),
            Some(bytes),
            "{name} is not the generator's"
        );
    }
    assert_eq!(std::fs::read_to_string(folder().join("reasons.txt")).unwrap(), reasons);
}
