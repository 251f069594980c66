//! Tampering with a log of 64 KiB: every byte flipped, every entry cut off, entries moved and taken from elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use axiom::store::{LOG_FOLDER, Opened, Store, StoreError, StoreOptions};
use base::{AxiomRef, AxiomTime, Sequence};
use chain::{
    ChainPoint, Entry, EntryType, GROUP_HEADER_BYTES, Part, Placed, SEGMENT_HEADER_BYTES, VerifyOptions,
    verify_log,
};

use crate::{broken::Broken, disk::SimDisk, random::Random, workload::genesis};

/// What was tried and what was missed. Sound: `missed` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TamperReport {
    pub bytes_flipped: u64,
    /// Flips named by entry, group header, segment header, padding.
    pub named_entry: u64,
    pub named_group_header: u64,
    pub named_segment_header: u64,
    pub named_padding: u64,
    pub truncations: u64,
    pub splices: u64,
    pub reorderings: u64,
    /// Damaged logs on which the store refused to start.
    pub starts_refused: u64,
    pub missed: Vec<String>,
}

impl TamperReport {
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.missed.is_empty()
    }

    fn add_flips(&mut self, part: Self) {
        self.bytes_flipped = self.bytes_flipped.saturating_add(part.bytes_flipped);
        self.named_entry = self.named_entry.saturating_add(part.named_entry);
        self.named_group_header = self.named_group_header.saturating_add(part.named_group_header);
        self.named_segment_header = self.named_segment_header.saturating_add(part.named_segment_header);
        self.named_padding = self.named_padding.saturating_add(part.named_padding);
        self.missed.extend(part.missed);
    }

    fn check(&mut self, found: bool, what: impl FnOnce() -> String) {
        if !found {
            self.missed.push(what());
        }
    }
}

type Log = BTreeMap<String, Vec<u8>>;

/// A log of one segment, its head, and what each byte belongs to.
#[derive(Clone)]
struct Sample {
    log: Log,
    name: String,
    head: AxiomRef,
    parts: Vec<Part>,
    /// Offset of each record, and the end of its group.
    records: Vec<(u64, u64)>,
    /// The verifier is switched off.
    without_chain: bool,
}

fn store_options(segment_bytes: u64) -> StoreOptions {
    StoreOptions { segment_bytes, spare_files: 1, fill_in_background: false, ..StoreOptions::new([9; 32]) }
}

impl Sample {
    /// Written by the real store; three quarters full, so that there is padding to flip.
    fn build(seed: u64, log_bytes: u64) -> Result<(Self, SimDisk), StoreError> {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(seed);
        let store = Store { disk: &disk, head_disk: &disk, options: store_options(log_bytes) };
        let Opened { mut layout, mut committer, reader, .. } = store.open(genesis, |_| {})?;
        let mut bytes = 0;
        while bytes < log_bytes * 3 / 4 {
            let mut point = layout.point();
            let mut entries = Vec::new();
            for _ in 0..=random.below(5) {
                let payload = vec![random.number() as u8; 200 + random.below(1800) as usize];
                bytes = bytes.saturating_add(payload.len() as u64 + 110);
                let sequence = point.next_sequence;
                let made =
                    Entry::next(sequence, point.last_hash, AxiomTime(seed), EntryType::Receipt, payload);
                let (entry, hash) = made.map_err(|_| StoreError::Layout)?;
                point = ChainPoint::after(AxiomRef { sequence, hash });
                entries.push((entry, hash));
            }
            committer.commit(layout.prepare(entries)?)?;
        }
        let head = reader.last();
        drop(committer);
        let name = chain::segment_name(Sequence(0));
        let content = disk.files().remove(&format!("{LOG_FOLDER}/{name}")).unwrap_or_default();
        let mut sample = Self {
            parts: vec![Part::Padding; content.len()],
            log: Log::from([(name.clone(), content)]),
            name,
            head,
            records: Vec::new(),
            without_chain: false,
        };
        sample.mark()?;
        Ok((sample, disk))
    }

    fn mark(&mut self) -> Result<(), StoreError> {
        let mut parts = std::mem::take(&mut self.parts);
        let mut records = Vec::new();
        fill(&mut parts, 0, SEGMENT_HEADER_BYTES as u64, Part::SegmentHeader);
        let mut group_from = SEGMENT_HEADER_BYTES as u64;
        verify_log(&self.log, &VerifyOptions::default(), |placed: &Placed<'_>| {
            let sequence = placed.record.header.sequence;
            let end = placed.offset.saturating_add(placed.record.size_bytes() as u64);
            if placed.offset == group_from.saturating_add(GROUP_HEADER_BYTES as u64) {
                fill(&mut parts, group_from, placed.offset, Part::GroupHeader(sequence));
            }
            fill(&mut parts, placed.offset, end, Part::Entry(sequence));
            records.push((placed.offset, placed.group_end));
            if end == placed.group_end {
                group_from = end;
            }
        })
        .map_err(StoreError::Damaged)?;
        self.parts = parts;
        self.records = records;
        Ok(())
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.log.get_mut(&self.name).map_or(&mut [], Vec::as_mut_slice)
    }

    fn verify(&self) -> Result<chain::Report, chain::Fault> {
        if self.without_chain {
            return Ok(chain::Report::default());
        }
        verify_log(&self.log, &VerifyOptions { head: Some(self.head), ..VerifyOptions::default() }, |_| {})
    }
}

fn fill(parts: &mut [Part], from: u64, end: u64, part: Part) {
    let range = usize::try_from(from).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
    parts.get_mut(range).unwrap_or_default().fill(part);
}

/// Tampers in every way with a log of this many bytes (whole pages) and counts what was found.
#[must_use]
pub fn tamper(seed: u64, log_bytes: u64, broken: Broken) -> TamperReport {
    let mut report = TamperReport::default();
    match (Sample::build(seed, log_bytes), Sample::build(seed.wrapping_add(1), log_bytes)) {
        (Ok((mut sample, disk)), Ok((mut other, _))) => {
            sample.without_chain = broken == Broken::Chain;
            flips(&sample, &mut report);
            cuts(&mut sample, &mut report);
            moves(&mut sample, &mut other, &mut report);
            starts(&sample, &disk, &mut report);
        }
        (Err(error), _) | (_, Err(error)) => {
            report.missed.push(format!("the sample could not be written: {error}"))
        }
    }
    report
}

fn flip(sample: &mut Sample, at: usize, mask: u8) {
    if let Some(byte) = sample.bytes().get_mut(at) {
        *byte ^= mask;
    }
}

/// Each byte once, shared out over the machine's processors.
fn flips(sample: &Sample, report: &mut TamperReport) {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = |worker| move || flips_of(sample.clone(), worker, workers);
        let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(work(worker))).collect();
        for thread in threads {
            match thread.join() {
                Ok(part) => report.add_flips(part),
                Err(_) => report.missed.push("a flip stopped the verifier".to_owned()),
            }
        }
    });
}

fn flips_of(mut sample: Sample, worker: usize, workers: usize) -> TamperReport {
    let mut report = TamperReport::default();
    let parts = sample.parts.clone();
    for (at, part) in parts.iter().enumerate().skip(worker).step_by(workers) {
        let mask = 1 << (at % 8);
        flip(&mut sample, at, mask);
        let found = sample.verify().err().map(|fault| fault.part);
        flip(&mut sample, at, mask);
        report.bytes_flipped = report.bytes_flipped.saturating_add(1);
        report.check(found == Some(*part), || format!("byte {at}, {part}: {found:?}"));
        let counter = match part {
            Part::Entry(_) => &mut report.named_entry,
            Part::GroupHeader(_) => &mut report.named_group_header,
            Part::SegmentHeader => &mut report.named_segment_header,
            _ => &mut report.named_padding,
        };
        *counter = counter.saturating_add(1);
    }
    report
}

/// Zeros from each entry's start on: what remains is a sound chain, and only the head tells.
fn cuts(sample: &mut Sample, report: &mut TamperReport) {
    let whole = sample.log.clone();
    let mut ends: BTreeSet<u64> = sample.records.iter().flat_map(|(offset, end)| [*offset, *end]).collect();
    ends.pop_last();
    for end in ends {
        let from = usize::try_from(end).unwrap_or(0);
        sample.bytes().get_mut(from..).unwrap_or_default().fill(0);
        let found = sample.verify().is_err();
        report.truncations = report.truncations.saturating_add(1);
        report.check(found, || format!("cut at offset {end}"));
        sample.log = whole.clone();
    }
}

/// Groups of another log in the place of own ones, and own groups in another order.
fn moves(sample: &mut Sample, other: &mut Sample, report: &mut TamperReport) {
    let whole = sample.log.clone();
    let foreign = other.bytes().to_vec();
    let groups = |sample: &Sample| {
        let mut ends: Vec<u64> = sample.records.iter().map(|(_, end)| *end).collect();
        ends.dedup();
        ends
    };
    let own = groups(sample);
    for pair in own.windows(2) {
        let [from, end] = pair else { continue };
        let range = usize::try_from(*from).unwrap_or(0)..usize::try_from(*end).unwrap_or(0);
        if let (Some(place), Some(bytes)) = (sample.bytes().get_mut(range.clone()), foreign.get(range)) {
            place.copy_from_slice(bytes);
        }
        let found = sample.verify().is_err();
        report.splices = report.splices.saturating_add(1);
        report.check(found, || format!("foreign bytes from {from} to {end}"));
        sample.log = whole.clone();
    }
    for triple in own.windows(3) {
        let [from, middle, end] = triple else { continue };
        let at = |offset: &u64| usize::try_from(*offset).unwrap_or(0);
        if let Some(place) = sample.bytes().get_mut(at(from)..at(end)) {
            place.rotate_left(at(middle).saturating_sub(at(from)));
        }
        let found = sample.verify().is_err();
        report.reorderings = report.reorderings.saturating_add(1);
        report.check(found, || format!("groups from {from} to {end} in another order"));
        sample.log = whole.clone();
    }
}

/// Damage below the head: the store does not start and does not take it for a torn tail.
fn starts(sample: &Sample, disk: &SimDisk, report: &mut TamperReport) {
    use durable::{Disk, DiskFile};
    let name = format!("{LOG_FOLDER}/{}", sample.name);
    let refused = |at: u64, mask: u8| -> Result<bool, durable::DiskError> {
        disk.restart_process();
        let file = disk.open(&name)?;
        let mut byte = [0];
        file.read_at(at, &mut byte)?;
        file.write_at(at, &[byte.first().copied().unwrap_or(0) ^ mask])?;
        let store = Store { disk, head_disk: disk, options: store_options(sample.parts.len() as u64) };
        let refused = matches!(store.open(genesis, |_| {}), Err(StoreError::Damaged(_)));
        file.write_at(at, &byte)?;
        Ok(refused)
    };
    for (offset, end) in &sample.records {
        for at in [offset.saturating_add(1), end.saturating_sub(1)] {
            let found = matches!(refused(at, 0x20), Ok(true));
            report.starts_refused = report.starts_refused.saturating_add(u64::from(found));
            report.check(found, || format!("the store started with a damaged byte {at}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: AX-21, AX-22, AX-55
    #[test]
    fn all_tampering_is_found_and_named() {
        let report = tamper(3, 16 * 1024, Broken::Nothing);
        assert_eq!(report.missed, Vec::<String>::new());
        assert_eq!(report.bytes_flipped, 16 * 1024);
        assert!(
            report.truncations > 9
                && report.splices > 2
                && report.reorderings > 1
                && report.starts_refused > 20
        );
        assert!(
            report.named_padding > 1000 && report.named_entry > 9_000 && report.named_group_header >= 4 * 64
        );
    }

    #[test]
    fn without_hashes_the_tampering_is_missed() {
        let report = tamper(3, 8 * 1024, Broken::Chain);
        assert!(report.missed.len() > 8 * 1024);
    }
}
