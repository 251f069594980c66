//! Decisions' signatures: one a group, over the root of its Merkle tree, beside ed25519-dalek with as many signatures.

use std::{hint::black_box, time::Instant};

use anyhow::{Result, ensure};
use base::AxiomTime;
use chain::merkle;

use super::log::{bodies, policy_key, public, signed};
use crate::report::{Row, Subject, Unit};

const DECISIONS: usize = 8_192;

pub(super) fn rows(rounds: usize) -> Result<Vec<Row>> {
    [64, 1].into_iter().map(|group| row(group, rounds)).collect()
}

fn row(group: usize, rounds: usize) -> Result<Row> {
    let (key, mut all) = (policy_key(), Vec::new());
    for n in 0..DECISIONS / group {
        all.push(signed(&key, bodies((n * group) as u64, group, AxiomTime(1)))?);
    }
    let key = public(&key);
    let verify = |groups: &[Vec<_>]| {
        groups.iter().all(|group: &Vec<chain::payload::policy::SignedDecision>| {
            let mut verified = None;
            group.iter().all(|decision| {
                let signature = &decision.signature;
                let leaf = merkle::leaf(&decision.body);
                let root = merkle::root_from_path(leaf, signature.index, signature.count, &signature.path);
                let holds = root.is_some_and(|root| {
                    verified == Some(root) || merkle::verify_root(&key, &root, &signature.root)
                });
                verified = root;
                holds
            })
        })
    };
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let began = Instant::now();
        ensure!(black_box(verify(&all)), "a signature does not hold");
        one.push(super::rate(DECISIONS as u64, began));
        let began = Instant::now();
        let (left, right) = all.split_at(all.len() / 2);
        let both = std::thread::scope(|scope| {
            let left = scope.spawn(|| verify(left));
            verify(right) && left.join().unwrap_or(false)
        });
        ensure!(black_box(both), "a signature does not hold");
        two.push(super::rate(DECISIONS as u64, began));
    }
    let subjects =
        vec![Subject::ours("two cores", &mut two), Subject::ours("one core", &mut one), dalek(rounds)?];
    let what = format!("signatures of decisions, {group} in a group");
    Ok(Row::new(what, Unit::PerSecond, subjects))
}

/// As many signatures as decisions, one after the other, strictly. Its batch is left out: it takes what a strict reader
/// refuses, so no verifier of a log may use it.
fn dalek(rounds: usize) -> Result<Subject> {
    use ed25519_dalek::Signer;
    let key = policy_key();
    let messages: Vec<[u8; 8]> = (0..DECISIONS as u64).map(u64::to_le_bytes).collect();
    let signed: Vec<_> = messages.iter().map(|message| (message, key.sign(message))).collect();
    let verifying = key.verifying_key();
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        for (message, signature) in &signed {
            verifying.verify_strict(*message, signature)?;
        }
        rates.push(super::rate(DECISIONS as u64, began));
    }
    Ok(Subject::peer("ed25519-dalek, one by one, one core", &mut rates))
}
