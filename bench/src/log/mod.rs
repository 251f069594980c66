//! Durable entries per second: the sequencer's core beside a bare loop that writes the same bytes, with and without the
//! same hashes, and (feature `peers`) beside redb and SQLite. Rounds are interleaved, the table shows medians.

mod bare;
mod ours;
#[cfg(feature = "peers")]
mod peers;

pub(crate) use ours::genesis_of as genesis;
use std::{path::Path, time::Duration};

use anyhow::Result;
use base::{AxiomRef, EntryKey, Hash, IdentityId, Sequence};
use chain::payload::{Envelope, Receipt, ReceiptStatus};

use crate::report::{Part, Row, Subject as Measured, Unit};

/// Payload of each entry: a receipt with two outputs. Header and record add 97 bytes.
const PAYLOAD_BYTES: usize = 197;
const FRAMING_BYTES: usize = 97;
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];
/// From here on half of the entries in flight are hashed while the other half is written.
const PIPELINED_FROM: usize = 256;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    round: Duration,
}

impl Plan {
    const FULL: Self = Self { rounds: 7, round: Duration::from_millis(700) };
    const QUICK: Self = Self { rounds: 3, round: Duration::from_millis(200) };
}

/// One way to make entries durable.
trait Subject {
    fn name(&self) -> &'static str;
    fn is_ours(&self) -> bool {
        false
    }
    /// Makes entries durable, `in_flight` at a time, for about `time`. Returns how many, and in what time.
    fn run(&mut self, in_flight: usize, time: Duration) -> Result<(u64, Duration)>;
}

/// Runs all subjects in `folder`, which must be on the disk that is to be measured.
pub(crate) fn run(folder: &Path, quick: bool) -> Result<Part> {
    let plan = if quick { Plan::QUICK } else { Plan::FULL };
    let mut subjects: Vec<Box<dyn Subject>> = vec![
        Box::new(ours::Checked::new(&folder.join("checked"))?),
        Box::new(ours::Store::new(&folder.join("store"))?),
        Box::new(bare::Bare::new(folder, bare::WITH_HASHES, true)?),
        Box::new(bare::Bare::new(folder, "bare write and sync", false)?),
    ];
    subjects.extend(peers(folder)?);
    let mut part = Part::new("log");
    for in_flight in IN_FLIGHT {
        let mut rates: Vec<Vec<f64>> = vec![Vec::new(); subjects.len()];
        for round in 0..=plan.rounds {
            for (subject, rates) in subjects.iter_mut().zip(&mut rates) {
                let (entries, took) = subject.run(in_flight, plan.round)?;
                // The first round warms up.
                if round > 0 {
                    rates.push(entries as f64 / took.as_secs_f64());
                }
            }
        }
        let measured = subjects.iter().zip(&mut rates).map(|(subject, rates)| match subject.is_ours() {
            true => Measured::ours(subject.name(), rates),
            false => Measured::peer(subject.name(), rates),
        });
        let what = format!("durable entries, {in_flight} in flight");
        part.rows.push(Row::new(what, Unit::PerSecond, measured.collect()));
    }
    part.note("`sequencer` checks each receipt as the service does (form, key, decision, state) and gives it to the store; `store` is the store alone, with head, index and readers");
    Ok(part)
}

#[cfg(not(feature = "peers"))]
fn peers(_folder: &Path) -> Result<Vec<Box<dyn Subject>>> {
    Ok(Vec::new())
}

#[cfg(feature = "peers")]
fn peers(folder: &Path) -> Result<Vec<Box<dyn Subject>>> {
    Ok(vec![Box::new(peers::Redb::new(folder)?), Box::new(peers::Sqlite::new(folder)?)])
}

/// Bytes of a payload for subjects that do not read it.
fn payload(n: u64) -> Vec<u8> {
    let mut payload = vec![0x5a; PAYLOAD_BYTES];
    payload.iter_mut().zip(n.to_le_bytes()).for_each(|(byte, n)| *byte = n);
    payload
}

/// Payload number `n` as a service would record it: all of them have the same size and keys of their own.
fn receipt(submitter: IdentityId, n: u64) -> Result<Vec<u8>> {
    let mut key = [0; 16];
    key.iter_mut().zip(n.to_le_bytes()).for_each(|(byte, n)| *byte = n);
    let body = Receipt {
        axiom_entry: AxiomRef { sequence: Sequence(0), hash: Hash::ZERO },
        inputs: Vec::new(),
        outputs: vec![Hash([0x5a; 32]); 2],
        environment: Hash([0x5a; 32]),
        status: ReceiptStatus::Success,
        proof: None,
    };
    Ok(Envelope { submitter, key: EntryKey(key), authorization: None, body }.to_bytes()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_writes_as_many_bytes() {
        for n in [0, 1, u64::MAX] {
            assert_eq!(receipt(IdentityId([1; 32]), n).unwrap().len(), PAYLOAD_BYTES);
            assert_eq!(payload(n).len(), PAYLOAD_BYTES);
        }
    }
}
