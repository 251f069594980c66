//! Any bytes as a segment file.
//!
//! Strategy: the first byte chooses how much is made sound, so that the engine need not guess checksums. 0: nothing.
//! 1: the segment's header. 2: a group's header too. 3: everything: the input is cut into the payloads of a log, of which
//! one byte is then changed.
//! Invariants: a fault is one line; what is accepted is a chain that ends where the report says; a head beyond the end is
//! refused; a log that was written is accepted whole; any one changed byte is found, and named no later than it stands.

use std::collections::BTreeMap;

use base::{AxiomRef, AxiomTime, Hash, Sequence, Signature};
use chain::{
    ChainPoint, Entry, EntryType, Fault, GroupBuilder, GroupHeader, Report, SEGMENT_BYTES_MIN, SegmentHeader,
    VerifyOptions, segment_name, verify_log,
};

/// Four pages: room for all that an input of the engine's usual size can say.
const CAPACITY: usize = 4 * SEGMENT_BYTES_MIN as usize;
const SALT: [u8; 16] = [7; 16];
/// Entries of a sound log.
const ENTRIES_MAX: usize = 32;

pub fn run(input: &[u8]) -> bool {
    let Some((mode, body)) = input.split_first() else { return false };
    let header = || SegmentHeader::at(&ChainPoint::GENESIS, CAPACITY as u64, SALT).encode().to_vec();
    let bytes = match (mode % 4, body) {
        (0, _) => body.to_vec(),
        (1, _) => [header().as_slice(), body].concat(),
        (2, _) => {
            let group = GroupHeader::of_body(&SALT, Sequence(0), u32::from(mode / 4).max(1), body);
            [header().as_slice(), &group.encode(), body].concat()
        }
        (_, [at_high, at_low, change, payloads @ ..]) => {
            return changed(header(), payloads, u16::from_be_bytes([*at_high, *at_low]), *change);
        }
        _ => return false,
    };
    verified(bytes).is_ok()
}

fn padded(mut bytes: Vec<u8>) -> BTreeMap<String, Vec<u8>> {
    bytes.resize(CAPACITY, 0);
    BTreeMap::from([(segment_name(Sequence(0)), bytes)])
}

fn verified(bytes: Vec<u8>) -> Result<Report, Fault> {
    let log = padded(bytes);
    let mut point = ChainPoint::GENESIS;
    let report = verify_log(&log, &VerifyOptions::default(), |placed| {
        assert_eq!(point.step(&placed.record.header, placed.record.payload), Ok(placed.hash));
    });
    match &report {
        Ok(report) => {
            assert_eq!(report.last, point.last());
            let beyond = AxiomRef { sequence: Sequence(report.entries), hash: Hash::ZERO };
            let options = VerifyOptions { head: Some(beyond), ..VerifyOptions::default() };
            assert!(verify_log(&log, &options, |_| {}).is_err());
        }
        Err(fault) => super::check::one_line(fault),
    }
    report
}

fn changed(header: Vec<u8>, payloads: &[u8], at: u16, change: u8) -> bool {
    let Some((mut bytes, entries)) = sound(header, payloads) else { return false };
    bytes.resize(CAPACITY, 0);
    assert_eq!(verified(bytes.clone()).map(|report| report.entries), Ok(entries));
    let at = usize::from(at) % CAPACITY;
    if let Some(byte) = bytes.get_mut(at).filter(|_| change != 0) {
        *byte ^= change;
        match verified(bytes) {
            Ok(_) => assert!(change == 0, "byte {at} was changed and nobody saw it"),
            Err(fault) => assert!(fault.offset <= at as u64, "byte {at} was changed: {fault}"),
        }
    }
    true
}

/// A log of one segment. Each line of the input is a payload; its first byte says whether the entry is signed and whether a
/// group begins with it.
fn sound(header: Vec<u8>, payloads: &[u8]) -> Option<(Vec<u8>, u64)> {
    let mut bytes = header;
    let mut point = ChainPoint::GENESIS;
    let mut group = GroupBuilder::new(Vec::new(), point.next_sequence);
    for payload in payloads.split(|byte| *byte == b'\n').take(ENTRIES_MAX) {
        let how = payload.first().copied().unwrap_or(0);
        if how & 1 == 1 && group.entry_count() > 0 {
            bytes.extend(group.finish(&SALT).ok()?);
            group = GroupBuilder::new(Vec::new(), point.next_sequence);
        }
        let kinds = EntryType::ALL;
        let kind = kinds.get(payload.len() % kinds.len()).copied()?;
        let time = AxiomTime(point.next_sequence.0);
        let (mut entry, hash) =
            Entry::next(point.next_sequence, point.last_hash, time, kind, payload.to_vec()).ok()?;
        entry.signature = (how & 2 == 2).then_some(Signature([how; 64]));
        group.push(&entry, &hash).ok()?;
        point = ChainPoint::after(AxiomRef { sequence: point.next_sequence, hash });
    }
    bytes.extend(group.finish(&SALT).ok()?);
    // What does not fit is not written.
    (bytes.len() <= CAPACITY).then_some((bytes, point.next_sequence.0))
}
