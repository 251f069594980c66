//! A log that is read while it is written: whatever falls between two reads, nothing that becomes whole is called damaged.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may stop the test")]
use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use base::{AxiomRef, AxiomTime, Hash, Sequence};
use chain::{
    ChainPoint, Entry, EntryType, Fault, GROUP_HEADER_BYTES, GroupBuilder, LogFolder, LogSource, ReadAt,
    SEGMENT_HEADER_BYTES, SegmentHeader, VerifyOptions, segment_name, verify_log,
};

const CAPACITY: usize = 8192;
type Log = BTreeMap<String, Vec<u8>>;

/// A group of two entries at `point`, which is moved behind it.
fn group(point: &mut ChainPoint, salt: &[u8; 16]) -> Vec<u8> {
    let mut group = GroupBuilder::new(Vec::new(), point.next_sequence);
    for _ in 0..2 {
        let sequence = point.next_sequence;
        let kind = if sequence.0 == 0 { EntryType::Genesis } else { EntryType::Receipt };
        let payload = vec![7; 300];
        let (entry, hash) =
            Entry::next(sequence, point.last_hash, AxiomTime(sequence.0), kind, payload).unwrap();
        group.push(&entry, &hash).unwrap();
        *point = ChainPoint::after(AxiomRef { sequence, hash });
    }
    group.finish(salt).unwrap()
}

/// A log with one group, and what it is after each write: the next group in part, whole, and what comes behind it.
fn states(part: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<Log> {
    let salt = [9; 16];
    let mut point = ChainPoint::GENESIS;
    let mut bytes = SegmentHeader::at(&point, CAPACITY as u64, salt).encode().to_vec();
    bytes.extend(group(&mut point, &salt));
    let at = |bytes: &[u8], more: &[u8]| {
        let mut bytes = [bytes, more].concat();
        bytes.resize(CAPACITY, 0);
        Log::from([(segment_name(Sequence(0)), bytes)])
    };
    let second = group(&mut point, &salt);
    let mut states = vec![at(&bytes, &[]), at(&bytes, &part(&second))];
    bytes.extend(second);
    let third = group(&mut point, &salt);
    states.extend([at(&bytes, &[]), at(&bytes, &third)]);
    let mut rotated = states[3].clone();
    let mut next = SegmentHeader::at(&point, CAPACITY as u64, salt).encode().to_vec();
    let name = segment_name(point.next_sequence);
    next.extend(group(&mut point, &salt));
    next.resize(CAPACITY, 0);
    rotated.insert(name, next);
    states.push(rotated);
    states
}

/// Goes to the next state at these numbers of reads.
struct Growing<'s> {
    states: &'s [Log],
    switches: &'s [usize],
    reads: Cell<usize>,
    waits: bool,
}

impl Growing<'_> {
    fn now(&self) -> &Log {
        let read = self.reads.get();
        self.reads.set(read + 1);
        &self.states[self.switches.iter().filter(|at| **at <= read).count()]
    }
}

struct Segment<'g>(&'g Growing<'g>, String);

impl ReadAt for Segment<'_> {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(CAPACITY as u64)
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.now()[&self.1].read_exact_at(offset, buffer)
    }

    fn settle(&self, tries: u32) -> bool {
        self.0.waits && tries < 1000
    }
}

impl<'g> LogSource for &'g Growing<'g> {
    type Segment = Segment<'g>;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.now().keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Segment<'g>> {
        Ok(Segment(self, name.to_owned()))
    }
}

fn read(states: &[Log], switches: &[usize], waits: bool) -> (Result<(), Fault>, Vec<Hash>, usize) {
    let growing = Growing { states, switches, reads: Cell::new(0), waits };
    let mut seen = Vec::new();
    let outcome = verify_log(&&growing, &VerifyOptions::default(), |placed| seen.push(placed.hash));
    (outcome.map(|_| ()), seen, growing.reads.get())
}

/// What of a group a reader sees.
type Part = fn(&[u8]) -> Vec<u8>;

#[test]
fn nothing_that_becomes_whole_is_called_damaged() {
    let parts: [Part; 4] = [
        |group| group[..GROUP_HEADER_BYTES].to_vec(),
        |group| group[..GROUP_HEADER_BYTES / 2].to_vec(),
        |group| group[..group.len() / 2].to_vec(),
        // Pages may come in any order.
        |group| [vec![0; group.len() / 2].as_slice(), &group[group.len() / 2..]].concat(),
    ];
    let (mut torn, mut read_again) = (0, 0);
    for part in parts {
        let states = states(&part);
        let whole = read(&states[4..], &[], false).1;
        assert_eq!(whole.len(), 8);
        let reads = read(&states, &[0, usize::MAX, usize::MAX, usize::MAX], false).2 + 4;
        for first in 0..reads {
            for second in first..reads {
                for third in second..reads {
                    for fourth in [third, third + 1, third + 2, usize::MAX] {
                        let switches = [first, second, third, fourth];
                        let (outcome, seen, _) = read(&states, &switches, false);
                        assert!(whole.starts_with(&seen) && seen.len() >= 2, "{switches:?}");
                        match outcome {
                            Ok(()) if seen.len() > 2 => read_again += 1,
                            Ok(()) => {}
                            Err(fault) => {
                                assert!(fault.may_be_torn_tail, "{switches:?}: {fault}");
                                torn += 1;
                            }
                        }
                        // Who waits sees it whole.
                        let (outcome, seen, _) = read(&states, &switches, true);
                        assert!(whole.starts_with(&seen));
                        assert_eq!(outcome, Ok(()), "{switches:?}");
                    }
                }
            }
        }
        // One that stays as it is may be a torn tail.
        let stays = [0, usize::MAX, usize::MAX, usize::MAX];
        for waits in [false, true] {
            assert!(read(&states, &stays, waits).0.unwrap_err().may_be_torn_tail);
        }
    }
    assert!(torn > 100 && read_again > 100, "{torn} {read_again}");
}

/// What is damaged stays damaged, however often it is read.
#[test]
fn a_damaged_group_with_another_behind_it_is_refused_at_once() {
    let states = states(&|group| group.to_vec());
    let mut damaged = states[4].clone();
    let first = damaged.first_entry().unwrap().into_mut();
    first[SEGMENT_HEADER_BYTES + GROUP_HEADER_BYTES + 900] ^= 1;
    let (outcome, _, reads) = read(&[damaged], &[], true);
    assert!(!outcome.unwrap_err().may_be_torn_tail);
    assert!(reads < 30, "{reads}");
}

#[test]
fn a_folder_in_which_segments_are_begun_is_listed_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    let spare = folder.path().join("spare");
    std::fs::write(folder.path().join(segment_name(Sequence(0))), b"").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..3000 {
                std::fs::write(&spare, b"").unwrap();
                std::fs::rename(&spare, folder.path().join(segment_name(Sequence(number)))).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        let source = LogFolder::new(folder.path());
        let mut looks = 0;
        while !done.load(Ordering::Relaxed) || looks < 100 {
            let mut names = source.names().unwrap();
            names.retain(|name| name.ends_with(".seg"));
            names.sort();
            let gap = (0..).zip(&names).find(|(number, name)| **name != segment_name(Sequence(*number)));
            assert_eq!(gap, None, "of {} names", names.len());
            looks += 1;
        }
    });
}
