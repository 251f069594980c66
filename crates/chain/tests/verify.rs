//! Whole logs: what the verifier accepts, and what each kind of damage is called.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may stop the test")]
use std::collections::BTreeMap;

use base::{AxiomRef, AxiomTime, Hash, Sequence, Signature};
use chain::{
    Cause, ChainError, ChainPoint, Entry, EntryType, Fault, GROUP_HEADER_BYTES, GroupBuilder, Part, Report,
    SEGMENT_HEADER_BYTES, SegmentHeader, SegmentReader, VerifyOptions, segment_name, verify_in_parallel,
    verify_log,
};

const CAPACITY: u64 = 8192;
type Log = BTreeMap<String, Vec<u8>>;

/// Builds a log group by group; a segment that is full is followed by the next.
struct Writer {
    log: Log,
    point: ChainPoint,
    segment: Vec<u8>,
    header: SegmentHeader,
}

impl Writer {
    fn new() -> Self {
        let mut writer = Self {
            log: Log::new(),
            point: ChainPoint::GENESIS,
            segment: Vec::new(),
            header: SegmentHeader::at(&ChainPoint::GENESIS, CAPACITY, [9; 16]),
        };
        writer.begin();
        writer
    }

    fn begin(&mut self) {
        let salt = [self.point.next_sequence.0 as u8 + 1; 16];
        self.header = SegmentHeader::at(&self.point, CAPACITY, salt);
        self.segment = self.header.encode().to_vec();
    }

    fn end(&mut self) {
        let mut bytes = std::mem::take(&mut self.segment);
        bytes.resize(CAPACITY as usize, 0);
        self.log.insert(segment_name(Sequence(self.header.entry_count)), bytes);
    }

    fn group(&mut self, payloads: &[usize]) {
        let mut point = self.point;
        let mut group = GroupBuilder::new(Vec::new(), point.next_sequence);
        for size in payloads {
            let sequence = point.next_sequence;
            let kind = if sequence.0 == 0 { EntryType::Genesis } else { EntryType::Receipt };
            let payload = vec![sequence.0 as u8; *size];
            let (mut entry, hash) =
                Entry::next(sequence, point.last_hash, AxiomTime(1000 + sequence.0), kind, payload).unwrap();
            entry.signature = (sequence.0 % 3 == 1).then_some(Signature([5; 64]));
            group.push(&entry, &hash).unwrap();
            point = ChainPoint::after(AxiomRef { sequence, hash });
        }
        if self.segment.len() + group.size_bytes() > CAPACITY as usize {
            self.end();
            self.begin();
        }
        let bytes = group.finish(&self.header.salt).unwrap();
        self.segment.extend(bytes);
        self.point = point;
    }

    fn finish(mut self) -> Log {
        self.end();
        self.log
    }
}

fn log(groups: &[&[usize]]) -> Log {
    let mut writer = Writer::new();
    groups.iter().for_each(|payloads| writer.group(payloads));
    writer.finish()
}

const THREE_SEGMENTS: &[&[usize]] =
    &[&[100], &[10, 200, 0], &[3000], &[3000, 30], &[40, 4000], &[50; 8], &[3000, 1], &[2, 2, 2], &[700]];

/// In one thread and in several, which must come to the same.
fn verify(log: &Log) -> Result<Report, Fault> {
    let options = VerifyOptions::default();
    let (mut one, mut several) = (Vec::new(), Vec::new());
    let report = verify_log(log, &options, |placed| one.push(placed.hash));
    for threads in [0, 2, 3] {
        several.clear();
        let parallel =
            verify_in_parallel(log, &options, threads, |placed| placed.hash, |hash| several.push(hash));
        assert_eq!(parallel, report, "{threads} threads");
        assert_eq!(several, one);
    }
    report
}

fn references(log: &Log) -> Vec<AxiomRef> {
    let mut all = Vec::new();
    let visit = |placed: &chain::Placed<'_>| {
        all.push(AxiomRef { sequence: placed.record.header.sequence, hash: placed.hash });
    };
    verify_log(log, &VerifyOptions::default(), visit).unwrap();
    all
}

/// Part of the log that each byte of a segment belongs to, and where that part begins.
fn parts(log: &Log, name: &str) -> Vec<(Part, u64)> {
    let mut parts: Vec<_> = (0..CAPACITY).map(|at| (Part::Padding, at)).collect();
    parts[..SEGMENT_HEADER_BYTES].fill((Part::SegmentHeader, 0));
    let mut group_from = SEGMENT_HEADER_BYTES;
    let visit = |placed: &chain::Placed<'_>| {
        let sequence = placed.record.header.sequence;
        let first_here = SegmentHeader::decode(&log[name]).unwrap().entry_count;
        let next =
            log.keys().find(|other| other.as_str() > name).and_then(|other| chain::segment_first(other));
        if sequence.0 < first_here || next.is_some_and(|next| sequence >= next) {
            return;
        }
        let from = placed.offset as usize;
        if from == group_from + GROUP_HEADER_BYTES {
            parts[group_from..from].fill((Part::GroupHeader(sequence), group_from as u64));
        }
        parts[from..from + placed.record.size_bytes()].fill((Part::Entry(sequence), placed.offset));
        if from + placed.record.size_bytes() == placed.group_end as usize {
            group_from = placed.group_end as usize;
        }
    };
    verify_log(log, &VerifyOptions::default(), visit).unwrap();
    parts
}

#[test]
fn a_sound_log_is_accepted_and_counted() {
    let log = log(THREE_SEGMENTS);
    let all = references(&log);
    let report = verify(&log).unwrap();
    assert_eq!((report.segments, report.groups, report.entries), (3, 9, 23));
    assert_eq!(report.last, all.last().copied());
    for head in &all {
        let options = VerifyOptions { head: Some(*head), ..VerifyOptions::default() };
        assert_eq!(verify_log(&log, &options, |_| {}), Ok(report));
    }
}

/// covers: AX-22
#[test]
fn every_flipped_byte_is_found_and_its_part_is_named() {
    let mut log = log(THREE_SEGMENTS);
    let names: Vec<String> = log.keys().cloned().collect();
    for name in names {
        for (at, part) in parts(&log, &name).into_iter().enumerate() {
            let flip = 1 << (at % 8);
            log.get_mut(&name).unwrap()[at] ^= flip;
            let check = |log: &Log| match at % 61 {
                0 => verify(log),
                _ => verify_log(log, &VerifyOptions::default(), |_| {}),
            };
            let fault = check(&log).expect_err("a flipped byte was not found");
            assert_eq!(
                (fault.segment.as_str(), (fault.part, fault.offset)),
                (name.as_str(), part),
                "byte {at} of {name}: {fault}"
            );
            log.get_mut(&name).unwrap()[at] ^= flip;
        }
    }
}

#[test]
fn a_log_cut_at_any_entry_or_segment_is_found_against_the_head() {
    let whole = log(THREE_SEGMENTS);
    let head = *references(&whole).last().unwrap();
    let options = VerifyOptions { head: Some(head), ..VerifyOptions::default() };
    let mut cuts = Vec::new();
    verify_log(&whole, &VerifyOptions::default(), |placed| {
        cuts.push((placed.offset, placed.record.header.sequence))
    })
    .unwrap();
    for (offset, sequence) in cuts {
        let (name, _) = whole.range(..=segment_name(sequence)).next_back().unwrap();
        for group_too in [0, GROUP_HEADER_BYTES] {
            let mut cut = whole.clone();
            cut.retain(|other, _| other <= name);
            cut.get_mut(name).unwrap()[offset as usize - group_too..].fill(0);
            assert!(verify_log(&cut, &options, |_| {}).is_err(), "cut at entry {sequence}");
        }
    }
    for gone in whole.keys() {
        let mut cut = whole.clone();
        cut.remove(gone);
        assert!(verify_log(&cut, &options, |_| {}).is_err(), "without {gone}");
        let mut short = whole.clone();
        short.get_mut(gone).unwrap().truncate(CAPACITY as usize - 1);
        assert!(matches!(verify(&short).unwrap_err().cause, Cause::Length { found: 8191, .. }));
    }
    let other = AxiomRef { hash: Hash::of(b"another history"), ..head };
    let options = VerifyOptions { head: Some(other), ..VerifyOptions::default() };
    assert_eq!(verify_log(&whole, &options, |_| {}).unwrap_err().part, Part::Head);
}

/// covers: AX-21
#[test]
fn entries_moved_or_taken_from_another_log_are_found_although_their_groups_are_sound() {
    let salt = SegmentHeader::decode(&log(&[&[1]])[&segment_name(Sequence(0))]).unwrap().salt;
    let chain_of = |fill: u8| {
        let mut point = ChainPoint::GENESIS;
        let mut entries = Vec::new();
        for n in 0..5 {
            let made =
                Entry::next(Sequence(n), point.last_hash, AxiomTime(n), EntryType::Receipt, vec![fill; 20])
                    .unwrap();
            point = ChainPoint::after(AxiomRef { sequence: Sequence(n), hash: made.1 });
            entries.push(made);
        }
        entries
    };
    let check = |entries: &[(Entry, Hash)], expected: ChainError| {
        let mut group = GroupBuilder::new(Vec::new(), Sequence(0));
        entries.iter().for_each(|(entry, hash)| assert!(group.push(entry, hash).is_ok()));
        let mut bytes = SegmentHeader::at(&ChainPoint::GENESIS, CAPACITY, salt).encode().to_vec();
        bytes.extend(group.finish(&salt).unwrap());
        bytes.resize(CAPACITY as usize, 0);
        let fault = verify(&Log::from([(segment_name(Sequence(0)), bytes)])).unwrap_err();
        assert_eq!((fault.part, fault.cause), (Part::Entry(expected.sequence()), Cause::Chain(expected)));
    };
    let (own, foreign) = (chain_of(1), chain_of(2));
    let mut swapped = own.clone();
    swapped.swap(1, 2);
    check(&swapped, ChainError::SequenceGap { expected: Sequence(1), found: Sequence(2) });
    let mut spliced = own.clone();
    spliced[3] = foreign[3].clone();
    check(&spliced, ChainError::BrokenChain { sequence: Sequence(3) });
    let mut changed = own;
    changed[4].0.payload[0] ^= 1;
    check(&changed, ChainError::PayloadMismatch { sequence: Sequence(4) });
}

#[test]
fn a_segment_can_be_verified_alone_and_a_foreign_one_does_not_continue_the_chain() {
    let whole = log(THREE_SEGMENTS);
    let all = references(&whole);
    let mut tail = whole.clone();
    tail.pop_first();
    assert!(matches!(verify(&tail).unwrap_err().cause, Cause::SegmentGap { .. }));
    let options = VerifyOptions { head: all.last().copied(), from_oldest: true, ..VerifyOptions::default() };
    let report = verify_log(&tail, &options, |_| {}).unwrap();
    assert_eq!((report.segments, report.last), (2, all.last().copied()));

    let mut groups = THREE_SEGMENTS.to_vec();
    groups[0] = &[101];
    let foreign = log(&groups);
    let mut spliced = whole;
    let (name, bytes) = foreign.last_key_value().unwrap();
    spliced.insert(name.clone(), bytes.clone());
    assert_eq!(verify(&spliced).unwrap_err().part, Part::SegmentHeader);
}

#[test]
fn a_segment_is_read_on_from_behind_any_group_that_ends_where_it_should() {
    let log = log(THREE_SEGMENTS);
    let all = references(&log);
    for (name, bytes) in &log {
        let mut whole = SegmentReader::open(bytes, name, None).unwrap();
        let mut ends = Vec::new();
        loop {
            let group_at = whole.offset();
            if !whole.next_group(|_| {}).unwrap() {
                break;
            }
            ends.push((group_at, whole.point().last().unwrap()));
        }
        assert!(!ends.is_empty());
        for (group_at, last) in ends {
            let mut reader = SegmentReader::resume(bytes, name, group_at, last).unwrap();
            assert_eq!(reader.point(), ChainPoint::after(last));
            let mut next = last.sequence.0 + 1;
            while reader
                .next_group(|placed| {
                    assert_eq!(placed.hash, all[next as usize].hash);
                    next += 1;
                })
                .unwrap()
            {}
            assert_eq!(reader.point(), whole.point());
            let other = AxiomRef { hash: Hash::ZERO, ..last };
            assert!(SegmentReader::resume(bytes, name, group_at, other).is_err());
            for at in [0, group_at - 1, group_at + 1, CAPACITY - 10, CAPACITY, u64::MAX] {
                assert!(SegmentReader::resume(bytes, name, at, last).is_err());
            }
            // A changed byte of the group is found, though what stands before is not read.
            let mut changed = bytes.clone();
            changed[group_at as usize + GROUP_HEADER_BYTES + 100] ^= 1;
            assert!(SegmentReader::resume(&changed, name, group_at, last).is_err());
        }
    }
}

#[test]
fn only_damage_at_the_very_end_may_be_a_torn_tail() {
    let whole = log(THREE_SEGMENTS);
    let all = references(&whole);
    let (last, _) = whole.last_key_value().unwrap();
    let mut offsets = Vec::new();
    verify_log(&whole, &VerifyOptions::default(), |placed| offsets.push(placed.offset as usize)).unwrap();
    let mut torn = whole.clone();
    torn.get_mut(last).unwrap()[*offsets.last().unwrap() + 20] ^= 1;
    let fault = verify(&torn).unwrap_err();
    assert_eq!((fault.part, fault.may_be_torn_tail), (Part::Entry(all.last().unwrap().sequence), true));
    let mut damaged = whole.clone();
    damaged.get_mut(last).unwrap()[SEGMENT_HEADER_BYTES + GROUP_HEADER_BYTES + 20] ^= 1;
    assert!(!verify(&damaged).unwrap_err().may_be_torn_tail);
    let mut sealed = whole.clone();
    *sealed.first_entry().unwrap().get_mut().last_mut().unwrap() ^= 1;
    assert!(!verify(&sealed).unwrap_err().may_be_torn_tail);
}

#[test]
fn a_group_may_end_at_the_end_of_its_segment_or_anywhere_before() {
    let around = SEGMENT_HEADER_BYTES + GROUP_HEADER_BYTES + chain::record_bytes(0, false);
    for slack in [0, 1, GROUP_HEADER_BYTES - 1, GROUP_HEADER_BYTES, GROUP_HEADER_BYTES + 1] {
        let mut log = log(&[&[CAPACITY as usize - around - slack]]);
        assert_eq!(verify(&log).map(|report| report.groups), Ok(1), "{slack}");
        if slack > 0 {
            *log.first_entry().unwrap().get_mut().last_mut().unwrap() = 1;
            let fault = verify(&log).unwrap_err();
            assert_eq!((fault.part, fault.offset), (Part::Padding, CAPACITY - 1), "{slack}");
        }
    }
}

#[test]
fn a_group_that_holds_more_than_it_counts_is_refused() {
    let mut log = log(&[&[10, 20]]);
    let bytes = log.first_entry().unwrap().into_mut();
    let salt = SegmentHeader::decode(bytes).unwrap().salt;
    let (from, body) = (SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES + GROUP_HEADER_BYTES);
    let sound = chain::GroupHeader::decode(&salt, &bytes[from..]).unwrap();
    let end = body + sound.body_bytes as usize;
    let lie = chain::GroupHeader::of_body(&salt, sound.first, 1, &bytes[body..end]);
    bytes[from..body].copy_from_slice(&lie.encode());
    let fault = verify(&log).unwrap_err();
    let expected = (Part::GroupHeader(Sequence(0)), from as u64, Cause::NotAGroup);
    assert_eq!((fault.part, fault.offset, fault.cause), expected);
}

#[test]
fn a_log_without_an_entry_is_none() {
    assert_eq!(verify(&Log::new()).unwrap_err().cause, Cause::Empty);
    let fault = verify(&log(&[])).unwrap_err();
    assert_eq!((fault.segment, fault.cause), (segment_name(Sequence(0)), Cause::Empty));
    let notes = Log::from([("README".to_owned(), vec![])]);
    assert_eq!(verify(&notes).unwrap_err().cause, Cause::Empty);
    for bad in ["1.seg", "x.seg"] {
        let named = Log::from([(bad.to_owned(), vec![0; CAPACITY as usize])]);
        assert_eq!(verify(&named).unwrap_err().cause, Cause::Name, "{bad}");
    }
}

#[test]
fn a_segment_is_what_its_name_says_and_has_a_whole_header() {
    let whole = log(&[&[10]]);
    let bytes = whole.first_key_value().unwrap().1;
    let options = VerifyOptions { from_oldest: true, ..VerifyOptions::default() };
    let cause = |name: Sequence, bytes: &[u8]| {
        let log = Log::from([(segment_name(name), bytes.to_vec())]);
        verify_log(&log, &options, |_| {}).unwrap_err().cause
    };
    let short = chain::SegmentHeaderError::Short(SEGMENT_HEADER_BYTES as u64 - 1);
    assert_eq!(cause(Sequence(0), &bytes[..SEGMENT_HEADER_BYTES - 1]), Cause::SegmentHeader(short));
    let name = chain::SegmentHeaderError::Name { header: 0, name: Sequence(1) };
    assert_eq!(cause(Sequence(1), bytes), Cause::SegmentHeader(name));
    let length = Cause::Length { expected: CAPACITY, found: SEGMENT_HEADER_BYTES as u64 };
    assert_eq!(cause(Sequence(0), &bytes[..SEGMENT_HEADER_BYTES]), length);
}

#[test]
fn a_head_before_the_oldest_segment_is_not_shown_and_one_behind_the_end_is_missing() {
    let whole = log(THREE_SEGMENTS);
    let all = references(&whole);
    let mut tail = whole;
    tail.pop_first();
    let check = |head| {
        verify_log(
            &tail,
            &VerifyOptions { head: Some(head), from_oldest: true, ..VerifyOptions::default() },
            |_| {},
        )
    };
    let first = check(*all.last().unwrap()).unwrap().first;
    assert!(first.0 > 0);
    let at = |sequence: u64, hash| AxiomRef { sequence: Sequence(sequence), hash };
    let mismatch =
        |found: Result<Report, Fault>| matches!(found, Err(Fault { cause: Cause::HeadMismatch { .. }, .. }));
    // The entry right before is known by the hash that the first one names; of those before it nothing is.
    assert!(check(all[first.0 as usize - 1]).is_ok());
    assert!(mismatch(check(at(first.0 - 1, Hash::ZERO))));
    let before = check(all[first.0 as usize - 2]).unwrap_err();
    assert_eq!(before.cause, Cause::BeforeFirst { first, head: all[first.0 as usize - 2] });
    let begin = ChainPoint::after(all[first.0 as usize - 1]);
    let from_edge = |head| VerifyOptions { head: Some(head), ..VerifyOptions::from_edge(begin) };
    for verify in [verify_log_with, verify_in_two] {
        assert!(verify(&tail, &from_edge(all[first.0 as usize - 1])).is_ok());
        let refused = verify(&tail, &from_edge(all[0])).unwrap_err();
        assert_eq!(refused.cause, Cause::BeforeFirst { first, head: all[0] });
    }
    assert!(mismatch(check(at(first.0, Hash::ZERO))));
    assert!(mismatch(check(at(all.len() as u64 - 1, Hash::ZERO))));
    let behind = check(at(all.len() as u64, Hash::ZERO)).unwrap_err();
    assert!(matches!(behind.cause, Cause::BelowHead { .. }));
}

fn verify_log_with(log: &Log, options: &VerifyOptions) -> Result<Report, Fault> {
    verify_log(log, options, |_| {})
}

fn verify_in_two(log: &Log, options: &VerifyOptions) -> Result<Report, Fault> {
    verify_in_parallel(log, options, 2, |_| (), |()| {})
}

#[test]
fn a_folder_is_read_as_memory_is_and_other_files_in_it_are_passed_over() {
    let log = log(THREE_SEGMENTS);
    let folder = tempfile::tempdir().unwrap();
    log.iter().for_each(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).unwrap());
    std::fs::write(folder.path().join("notes.txt"), b"no segment").unwrap();
    let source = chain::LogFolder::new(folder.path());
    let check = || verify_log(&source, &VerifyOptions::default(), |_| {});
    assert_eq!(check(), verify(&log));
    let (last, bytes) = log.last_key_value().unwrap();
    std::fs::write(folder.path().join(last), &bytes[1..]).unwrap();
    assert_eq!(check().unwrap_err().segment, *last);
    let gone = chain::LogFolder::new(folder.path().join("nowhere"));
    let fault = verify_log(&gone, &VerifyOptions::default(), |_| {}).unwrap_err();
    assert!(matches!(fault.cause, Cause::Read(_)));
}

#[test]
fn a_read_over_the_end_is_an_error_and_not_a_part() {
    use chain::ReadAt;
    fn check(bytes: &impl ReadAt) {
        let mut two = [9; 2];
        assert_eq!(bytes.size_bytes().unwrap(), 3);
        bytes.read_exact_at(1, &mut two).unwrap();
        assert_eq!(two, [2, 3]);
        for from in [2, 3, 4, u64::MAX] {
            assert!(bytes.read_exact_at(from, &mut two).is_err(), "{from}");
        }
    }
    let memory = vec![1, 2, 3];
    check(&memory);
    check(&&memory);
    check(&memory.as_slice());
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &memory).unwrap();
    check(&file);
}

#[test]
fn a_fault_says_where_it_is() {
    let mut log = log(&[&[10, 20]]);
    let name = segment_name(Sequence(0));
    let offset = SEGMENT_HEADER_BYTES + GROUP_HEADER_BYTES + chain::record_bytes(10, false);
    log.get_mut(&name).unwrap()[offset + 100] ^= 1;
    let text = verify(&log).unwrap_err().to_string();
    assert!(text.starts_with(&format!("segment {name}, offset {offset}, entry 1: ")), "{text}");
}
