//! The log's files are read while axiom writes them: by commands that ask nobody.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use axiom::store::{LOG_FOLDER, Opened, Space, Store, StoreOptions};
use base::{AxiomRef, AxiomTime, Hash, Sequence};
use chain::{ChainPoint, Entry, EntryType, Fault, LogFolder, VerifyOptions, verify_in_parallel, verify_log};
use durable::RealDisk;

/// Groups of several pages, and a new segment every few groups.
const SEGMENT_BYTES: u64 = 256 * 1024;
const ENTRY_BYTES: usize = 9_000;
const SPACE_BYTES: u64 = 6 * 9_500;
/// Readers go on until so many have read it, and for so long at most.
const READS: u64 = 4_000;
const TIME_MAX: Duration = Duration::from_secs(20);

fn open(folder: &Path) -> Opened<RealDisk> {
    let disk = RealDisk::open(folder.join("axiom")).unwrap();
    let head_disk = RealDisk::open(folder.join("head")).unwrap();
    let options = StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        spare_files: 2,
        fill_in_background: false,
        ..StoreOptions::new([5; 32])
    };
    let genesis =
        || Entry::next(Sequence(0), Hash::ZERO, AxiomTime(1), EntryType::Genesis, b"genesis".to_vec()).ok();
    Store { disk: &disk, head_disk: &head_disk, options }.open(genesis, |_| {}).unwrap()
}

fn append(opened: &mut Opened<RealDisk>) {
    let mut point = opened.layout.point();
    let mut entries = Vec::new();
    for number in 0..5 {
        let payload = vec![number; ENTRY_BYTES];
        let entry =
            Entry::next(point.next_sequence, point.last_hash, AxiomTime(2), EntryType::Receipt, payload);
        let (entry, hash) = entry.unwrap();
        point = ChainPoint::after(AxiomRef { sequence: point.next_sequence, hash });
        entries.push((entry, hash));
    }
    assert_ne!(opened.layout.space(SPACE_BYTES), Space::Full);
    let group = opened.layout.prepare(entries).unwrap();
    opened.committer.commit(group).unwrap();
}

#[test]
fn nothing_that_is_written_meanwhile_is_called_damaged() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut opened = open(folder.path());
    append(&mut opened);
    let log = LogFolder::new(folder.path().join("axiom").join(LOG_FOLDER));
    let (done, reads, torn) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let options = VerifyOptions::default();
    let looked = |outcome: Result<u64, Fault>, least: &mut u64| {
        reads.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(entries) => {
                assert!(entries >= *least, "{entries} entries, {least} before");
                *least = entries;
            }
            // In the middle of a write.
            Err(fault) if fault.may_be_torn_tail => drop(torn.fetch_add(1, Ordering::Relaxed)),
            Err(fault) => panic!("{fault}"),
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut least = 0;
            while !done.load(Ordering::Relaxed) {
                looked(verify_log(&log, &options, |_| {}).map(|report| report.entries), &mut least);
            }
        });
        scope.spawn(|| {
            let mut least = 0;
            while !done.load(Ordering::Relaxed) {
                let read = verify_in_parallel(&log, &options, 2, |_| (), |()| {});
                looked(read.map(|report| report.entries), &mut least);
            }
        });
        let began = Instant::now();
        let mut groups = 0_u64;
        while reads.load(Ordering::Relaxed) < READS && began.elapsed() < TIME_MAX {
            append(&mut opened);
            groups += 1;
            // Short enough to be read often, and begun anew many times.
            if groups.is_multiple_of(40) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if groups > 2_000 {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let last = opened.reader.last();
    let whole = VerifyOptions { head: Some(last), ..options };
    assert_eq!(verify_log(&log, &whole, |_| {}).unwrap().last, Some(last));
    println!("{} reads, {} torn", reads.into_inner(), torn.into_inner());
}
