//! The targets without their engine: on every machine, in every run of the tests.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that finds something wrong stops"
)]

use std::{fs, path::PathBuf};

use fuzz::TARGETS;
use sim::Random;

/// Changed inputs of each target.
const CASES: u64 = 1000;

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{target} has no seeds");
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn every_seed_is_accepted() {
    for (name, target) in TARGETS {
        for (path, bytes) in seeds(name) {
            assert!(target(&bytes), "{}: refused; see fuzz/examples/seeds", path.display());
        }
    }
}

#[test]
fn every_target_is_a_program_and_has_its_folder_of_seeds() {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    for folder in ["fuzz_targets", "corpus"] {
        let entries = fs::read_dir(here.join(folder)).unwrap();
        let mut found: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(".rs").to_owned())
            .collect();
        found.sort();
        assert_eq!(found, names, "{folder}");
    }
}

/// One to four changes: a byte, a cut, a piece taken out, doubled, or brought from another seed.
fn change(random: &mut Random, seeds: &[(PathBuf, Vec<u8>)], bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let mut place = |length: usize| random.below(length as u64 + 1) as usize;
        let (from, to) = (place(bytes.len()), place(bytes.len()));
        let (from, to) = (from.min(to), from.max(to));
        match random.below(6) {
            0 | 1 if from < bytes.len() => bytes[from] ^= 1 << random.below(8),
            2 if from < bytes.len() => bytes[from] = random.number() as u8,
            3 => bytes.truncate(to),
            4 => drop(bytes.drain(from..to)),
            _ => {
                let (_, other) = &seeds[random.below(seeds.len() as u64) as usize];
                let piece = from.min(other.len())..to.min(other.len());
                bytes.splice(from..from, other[piece].to_vec());
            }
        }
    }
}

/// A target that breaks an invariant panics.
#[test]
fn a_thousand_changed_inputs_break_no_invariant() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        let mut random = Random::new(0);
        for case in 0..CASES {
            let mut bytes = seeds[random.below(seeds.len() as u64) as usize].1.clone();
            change(&mut random, &seeds, &mut bytes);
            let held = std::panic::catch_unwind(|| target(&bytes));
            assert!(held.is_ok(), "{name}, case {case} of seed 0: {:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
