//! A log at scale: verifying it, folding it, starting on it, and what an entry costs beside its payload.
//!
//! Two logs are written by the store itself: one as a busy node writes it, in groups of 128 entries whose 64 decisions share
//! one signature, and a part of it as an idle one does, each decision and each act durable alone. Entries are 10 ms apart.
//! Rates by processor time are those of one core that does nothing else, also where this machine does.

mod log;
mod signatures;
mod starts;

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use axiom::core::Sequencer;
use chain::{
    LogFolder, VerifyOptions,
    tree::{Edge, TreeHash},
    verify_in_parallel, verify_log,
};

use crate::report::{Part, Row, Subject, Unit};
use log::Written;

const ENTRIES: u64 = 1_000_000;
const ENTRIES_QUICK: u64 = 100_000;
/// Of the log whose entries are durable one by one.
const SINGLE_SHARE: u64 = 50;
const ROUNDS: usize = 3;
const ROUNDS_QUICK: usize = 3;
const CORES: usize = 2;
const GOAL_VERIFY: f64 = 500_000.0;
const GOAL_REPLAY: f64 = 300_000.0;

pub(crate) fn run(folder: &Path, quick: bool) -> Result<Part> {
    let mut part = Part::new("verify");
    let entries = if quick { ENTRIES_QUICK } else { ENTRIES };
    let rounds = if quick { ROUNDS_QUICK } else { ROUNDS };
    let grouped = log::write(&folder.join("grouped"), entries, log::PAIRS_OF_A_GROUP)?;
    let single = log::write(&folder.join("single"), entries / SINGLE_SHARE, 1)?;
    for (name, written) in [("in groups of 128", &grouped), ("one by one", &single)] {
        let what = format!("{} entries {name}", written.entries);
        part.rows.push(verification(&what, written, rounds)?);
        part.rows.push(replay(&what, written, rounds)?);
        part.rows.push(bytes(&what, written)?);
    }
    part.rows.extend(signatures::rows(rounds)?);
    part.rows.extend(starts::rows(&grouped, rounds)?);
    part.note(
        "chain: every hash, group checksum and padding byte; tree: the SHA-256 tree of RFC 6962 besides",
    );
    part.note(
        "bytes beside the payload: of an entry its header (88), its record (9) and its share of group and segment headers; \
         published tiles add 32.1 for hashes and 2 for the length, as Tessera's and Sunlight's do, who keep their entries there alone",
    );
    Ok(part)
}

/// Processor time of this process so far, in seconds.
fn processor_s() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

fn rate(entries: u64, began: Instant) -> f64 {
    entries as f64 / began.elapsed().as_secs_f64()
}

fn verification(what: &str, written: &Written, rounds: usize) -> Result<Row> {
    let folder = LogFolder::new(&written.folder);
    let options = VerifyOptions { head: Some(written.last), ..VerifyOptions::default() };
    let (mut chain, mut alone, mut both, mut core) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let began = Instant::now();
        verify_log(&folder, &options, |_| {})?;
        chain.push(rate(written.entries, began));
        let (began, used, mut one) = (Instant::now(), processor_s(), Edge::default());
        verify_log(&folder, &options, |placed| one.push(log::leaf(placed), |_, _| {}))?;
        alone.push(rate(written.entries, began));
        core.push(written.entries as f64 / (processor_s() - used));
        let (began, mut two) = (Instant::now(), Edge::default());
        verify_in_parallel(&folder, &options, CORES, log::leaf, |leaf: TreeHash| two.push(leaf, |_, _| {}))?;
        both.push(rate(written.entries, began));
        anyhow::ensure!(one == two, "one core and two come to different trees");
    }
    let subjects = vec![
        Subject::ours("chain and tree, two cores", &mut both),
        Subject::ours("one core", &mut alone),
        Subject::ours("one core's processor time", &mut core),
        Subject::ours("the chain alone, one core", &mut chain),
    ];
    Ok(Row::new(format!("verifying a log: {what}"), Unit::PerSecond, subjects).goal(GOAL_VERIFY))
}

fn replay(what: &str, written: &Written, rounds: usize) -> Result<Row> {
    let entries = written.read(200_000)?;
    let (mut rates, mut core) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut sequencer = Sequencer::new();
        let (began, used) = (Instant::now(), processor_s());
        for (entry, hash) in &entries {
            anyhow::ensure!(
                sequencer.replay(&entry.header, &entry.payload, *hash),
                "an entry cannot be read"
            );
        }
        rates.push(rate(entries.len() as u64, began));
        core.push(entries.len() as f64 / (processor_s() - used));
    }
    let subjects = vec![
        Subject::ours("the sequencer's fold, one core", &mut rates),
        Subject::ours("processor time", &mut core),
    ];
    Ok(Row::new(format!("folding into state: {what}"), Unit::PerSecond, subjects).goal(GOAL_REPLAY))
}

fn bytes(what: &str, written: &Written) -> Result<Row> {
    let used = written.used_bytes().context("the size of the log")?;
    let beside = (used - written.payload_bytes as f64) / written.entries as f64;
    let subjects = vec![
        Subject::ours("in the log", &mut [beside]),
        Subject::ours("payload", &mut [written.payload_bytes as f64 / written.entries as f64]),
        Subject::peer("tiles of tlog-tiles", &mut [log::tile_bytes(written.entries)]),
    ];
    Ok(Row::new(format!("bytes beside the payload of an entry: {what}"), Unit::Bytes, subjects))
}
