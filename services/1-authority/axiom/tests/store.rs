//! The store on a real disk: reading while writing, starting again, refusing what is not whole.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

use std::{
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use axiom::store::{
    CommitterThread, Follow, Follower, HEAD_FILE, LOG_FOLDER, Opened, Space, Store, StoreError, StoreOptions,
};
use base::{AxiomRef, AxiomTime, Hash, Sequence};
use chain::{ChainPoint, Entry, EntryType, LogFolder, VerifyOptions, verify_log};
use durable::{DiskError, RealDisk};

const SEGMENT_BYTES: u64 = 16 * 1024;

struct Place {
    _folder: tempfile::TempDir,
    disk: RealDisk,
    head: RealDisk,
    path: std::path::PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let (disk, head) =
            (RealDisk::open(path.join("axiom")).unwrap(), RealDisk::open(path.join("head")).unwrap());
        Self { _folder: folder, disk, head, path }
    }

    fn open(&self) -> Result<Opened<RealDisk>, StoreError> {
        self.open_with(StoreOptions {
            segment_bytes: SEGMENT_BYTES,
            fill_in_background: false,
            ..StoreOptions::new([3; 32])
        })
    }

    fn open_with(&self, options: StoreOptions) -> Result<Opened<RealDisk>, StoreError> {
        Store { disk: &self.disk, head_disk: &self.head, options }.open(genesis, |_| {})
    }

    fn log(&self) -> std::path::PathBuf {
        self.path.join("axiom").join(LOG_FOLDER)
    }
}

fn genesis() -> Option<(Entry, Hash)> {
    Entry::next(Sequence(0), Hash::ZERO, AxiomTime(1), EntryType::Genesis, b"genesis".to_vec()).ok()
}

fn entries(mut point: ChainPoint, sizes: &[usize]) -> Vec<(Entry, Hash)> {
    let mut entries = Vec::new();
    for size in sizes {
        let sequence = point.next_sequence;
        let payload = vec![sequence.0 as u8; *size];
        let made = Entry::next(sequence, point.last_hash, AxiomTime(sequence.0), EntryType::Receipt, payload)
            .unwrap();
        point = ChainPoint::after(AxiomRef { sequence, hash: made.1 });
        entries.push(made);
    }
    entries
}

fn append(opened: &mut Opened<RealDisk>, sizes: &[usize]) {
    let entries = entries(opened.layout.point(), sizes);
    assert_ne!(opened.layout.space(8192), Space::Full);
    let group = opened.layout.prepare(entries).unwrap();
    opened.committer.commit(group).unwrap();
}

fn fill(opened: &mut Opened<RealDisk>, groups: usize) {
    for n in 0..groups {
        append(opened, &[n % 700, 300, (n * 37) % 900]);
    }
}

/// covers: AX-05, AX-13, AX-48
#[test]
fn entries_read_back_by_number_and_range_before_and_after_a_restart() {
    let place = Place::new();
    let mut opened = place.open().unwrap();
    assert!(opened.recovery.first_boot);
    fill(&mut opened, 200);
    let last = opened.reader.last();
    assert_eq!(last.sequence, Sequence(600));
    drop(opened);
    let opened = place.open().unwrap();
    assert_eq!((opened.reader.last(), opened.recovery.above_head), (last, 0));
    for n in [0, 1, 63, 64, 65, 300, 599, 600] {
        let entry = opened.reader.read(Sequence(n)).unwrap();
        assert_eq!(entry.header.sequence, Sequence(n));
    }
    assert_eq!(opened.reader.read(Sequence(600)).unwrap().hash(), last.hash);
    assert!(matches!(opened.reader.read(Sequence(601)), Err(StoreError::NotFound(_))));
    let mut from = 0;
    while from <= 600 {
        let some = opened.reader.range(Sequence(from), 100).unwrap();
        assert!(!some.is_empty());
        for entry in some {
            assert_eq!(entry.header.sequence, Sequence(from));
            from += 1;
        }
    }
    let options = VerifyOptions { head: Some(last), ..VerifyOptions::default() };
    let report = verify_log(&LogFolder::new(place.log()), &options, |_| {}).unwrap();
    assert!(report.entries == 601 && report.segments > 10, "{report:?}");
}

/// covers: AX-51
#[test]
fn a_follower_hears_of_the_replay_and_then_gets_every_entry_once_in_order() {
    let place = Place::new();
    let mut opened = place.open().unwrap();
    fill(&mut opened, 10);
    let mut follower = Follower::new(opened.reader.clone(), Sequence(5));
    assert_eq!(follower.poll(4).unwrap(), Follow::Replay { from: Sequence(5), to: Sequence(30) });
    let mut next = 5;
    for round in 0..2 {
        while let Follow::Entries(entries) = follower.poll(4).unwrap() {
            for entry in entries {
                assert_eq!(entry.header.sequence, Sequence(next));
                next += 1;
            }
        }
        assert_eq!(next, 31 + round * 3);
        append(&mut opened, &[1, 2, 3]);
    }
    let fresh = Follower::new(opened.reader.clone(), Sequence(37)).poll(4).unwrap();
    assert_eq!(fresh, Follow::CaughtUp);
}

/// covers: AX-39
#[test]
fn the_committer_thread_answers_after_the_entries_are_readable_and_wakes_those_who_wait() {
    let place = Place::new();
    let Opened { mut layout, committer, reader, .. } = place.open().unwrap();
    let mut thread = CommitterThread::start(committer).unwrap();
    let (sender, answers) = mpsc::channel();
    let waiting = reader.clone();
    let waiter = std::thread::spawn(move || waiting.wait_beyond(Sequence(99), Duration::from_secs(20)));
    for _ in 0..100 {
        layout.space(300);
        let group = layout.prepare(entries(layout.point(), &[100])).unwrap();
        let (sender, reader) = (sender.clone(), reader.clone());
        thread.submit(group, move |result| {
            let last = result.unwrap().last;
            sender.send((last, reader.read(last.sequence).unwrap().hash())).unwrap();
        });
    }
    drop(thread);
    let answers: Vec<_> = answers.try_iter().collect();
    assert_eq!(answers.len(), 100);
    assert!(
        answers
            .iter()
            .enumerate()
            .all(|(n, (last, hash))| last.sequence.0 == n as u64 + 1 && last.hash == *hash)
    );
    assert!(waiter.join().unwrap());
    assert!(!reader.wait_beyond(Sequence(100), Duration::from_millis(1)));
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// covers: AX-15, AX-55
#[test]
fn a_log_without_its_head_a_head_without_its_log_and_a_second_writer_are_refused() {
    let place = Place::new();
    let mut opened = place.open().unwrap();
    fill(&mut opened, 40);
    let start = Instant::now();
    assert!(matches!(place.open(), Err(StoreError::Disk(DiskError::Locked { .. }))));
    assert!(start.elapsed() < Duration::from_secs(5));
    let last = opened.reader.last();
    drop(opened);
    let head = place.path.join("head").join(HEAD_FILE);
    let kept = std::fs::read(&head).unwrap();
    std::fs::remove_file(&head).unwrap();
    assert!(matches!(place.open(), Err(StoreError::HeadMissing { entries: 121 })));
    std::fs::write(&head, &kept).unwrap();
    let segments = files(&place.log());
    let newest = std::fs::read(segments.last().unwrap()).unwrap();
    std::fs::remove_file(segments.last().unwrap()).unwrap();
    assert!(matches!(place.open(), Err(StoreError::Damaged(fault)) if fault.part == chain::Part::Head));
    segments[..segments.len() - 1].iter().for_each(|segment| std::fs::remove_file(segment).unwrap());
    assert!(matches!(place.open(), Err(StoreError::LogMissing { head }) if head == last));
    std::fs::write(segments.last().unwrap(), newest).unwrap();
    assert!(matches!(place.open(), Err(StoreError::Damaged(_))));
}

/// covers: AX-47
#[test]
fn a_torn_tail_is_cut_off_and_the_log_goes_on() {
    let place = Place::new();
    let mut opened = place.open().unwrap();
    append(&mut opened, &[100, 100]);
    let last = opened.reader.last();
    let mut end = 0;
    drop(opened);
    let name = files(&place.log())[0].clone();
    verify_log(&LogFolder::new(place.log()), &VerifyOptions::default(), |placed| end = placed.group_end)
        .unwrap();
    let mut bytes = std::fs::read(&name).unwrap();
    // The second sector of a group whose first one never arrived.
    bytes[end as usize + 300..end as usize + 500].fill(0xaa);
    std::fs::write(&name, &bytes).unwrap();
    let mut opened = place.open().unwrap();
    assert!(opened.recovery.torn_tail.is_some());
    assert_eq!(opened.reader.last(), last);
    append(&mut opened, &[5]);
    drop(opened);
    assert_eq!(place.open().unwrap().recovery.torn_tail, None);
}

#[test]
fn when_the_quota_is_used_up_only_the_reserve_is_left_and_then_nothing() {
    let place = Place::new();
    let log_bytes_max = 3 * SEGMENT_BYTES;
    let options = StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        spare_files: 1,
        log_bytes_max,
        fill_in_background: false,
        ..StoreOptions::new([3; 32])
    };
    let mut opened = place.open_with(options).unwrap();
    let mut seen = Vec::new();
    loop {
        let space = opened.layout.space(4097);
        if seen.last() != Some(&space) {
            seen.push(space);
        }
        if space == Space::Full {
            break;
        }
        let group = opened.layout.prepare(entries(opened.layout.point(), &[4000])).unwrap();
        opened.committer.commit(group).unwrap();
    }
    assert_eq!(seen, [Space::Normal, Space::ReserveOnly, Space::Full]);
    assert_eq!(files(&place.log()).len(), 4);
    assert!(matches!(opened.layout.prepare(entries(opened.layout.point(), &[4000])), Err(StoreError::Full)));
}
