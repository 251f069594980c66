//! Any bytes as a segment file. Strategy: the input fills the records of a segment whose header is sound, with and
//! without a sound group header before it, so that the fuzzer need not guess checksums. Invariants: no panic; an
//! accepted log is a chain; a head beyond its end is refused.
#![no_main]

use std::collections::BTreeMap;

use base::{AxiomRef, Hash, Sequence};
use chain::{ChainPoint, GroupHeader, SegmentHeader, VerifyOptions, segment_name, verify_log};
use libfuzzer_sys::fuzz_target;

const CAPACITY: usize = 65_536;
const SALT: [u8; 16] = [7; 16];

fuzz_target!(|input: &[u8]| {
    let (mode, body) = input.split_first().unwrap_or((&0, &[]));
    let mut bytes = match mode % 3 {
        0 => Vec::new(),
        _ => SegmentHeader::at(&ChainPoint::GENESIS, CAPACITY as u64, SALT).encode().to_vec(),
    };
    if mode % 3 == 2 {
        bytes.extend(GroupHeader::of_body(&SALT, Sequence(0), u32::from(mode / 3).max(1), body).encode());
    }
    bytes.extend(body);
    bytes.resize(CAPACITY, 0);
    let log = BTreeMap::from([(segment_name(Sequence(0)), bytes)]);
    let mut point = ChainPoint::GENESIS;
    let report = verify_log(&log, &VerifyOptions::default(), |placed| {
        assert_eq!(point.step(&placed.record.header, placed.record.payload), Ok(placed.hash));
    });
    if let Ok(report) = report {
        assert_eq!(report.last, point.last());
        let beyond = AxiomRef { sequence: Sequence(report.entries), hash: Hash::ZERO };
        assert!(verify_log(&log, &VerifyOptions { head: Some(beyond), from_oldest: false }, |_| {}).is_err());
    }
});
