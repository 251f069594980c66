//! The store on a disk that fills, and under files that vanish. The disk is a small tmpfs in a mount namespace of the
//! test's own, which ends with it; without root also in a user namespace.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use axiom::store::{LOG_FOLDER, Opened, SPARE_FOLDER, Space, Store, StoreError, StoreOptions};
use base::{AxiomRef, AxiomTime, Hash, Sequence};
use chain::{ChainPoint, Entry, EntryType, LogFolder, VerifyOptions, verify_log};
use durable::RealDisk;

const SEGMENT_BYTES: u64 = 64 * 1024;
/// Of the small disk: room for some segments beside the reserve and a spare file.
const DISK_BYTES: u64 = 1024 * 1024;
/// Set for the half of a test that runs on the small disk.
const SMALL_DISK: &str = "BAILIWICK_TEST_SMALL_DISK";
/// `SPACE_BYTES` is asked for each entry of `ENTRY_BYTES`.
const ENTRY_BYTES: usize = 4000;
const SPACE_BYTES: u64 = 4200;

fn open(folder: &Path) -> Result<Opened<RealDisk>, StoreError> {
    let disk = RealDisk::open(folder.join("axiom"))?;
    let head_disk = RealDisk::open(folder.join("head"))?;
    let options = StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        spare_files: 1,
        fill_in_background: false,
        ..StoreOptions::new([5; 32])
    };
    Store { disk: &disk, head_disk: &head_disk, options }.open(genesis, |_| {})
}

fn genesis() -> Option<(Entry, Hash)> {
    Entry::next(Sequence(0), Hash::ZERO, AxiomTime(1), EntryType::Genesis, b"genesis".to_vec()).ok()
}

fn next(point: ChainPoint) -> (Entry, Hash) {
    let payload = vec![7; ENTRY_BYTES];
    Entry::next(point.next_sequence, point.last_hash, AxiomTime(2), EntryType::Receipt, payload).unwrap()
}

fn append(opened: &mut Opened<RealDisk>) -> Result<AxiomRef, StoreError> {
    let group = opened.layout.prepare(vec![next(opened.layout.point())])?;
    Ok(opened.committer.commit(group)?.last)
}

/// Appends while the log says that there is room of this kind. What was acknowledged last.
fn append_while(opened: &mut Opened<RealDisk>, room: Space) -> AxiomRef {
    while opened.layout.space(SPACE_BYTES) == room {
        append(opened).unwrap();
    }
    opened.reader.last()
}

/// Runs the named test of this binary again, on a small disk of its own. False where no namespace can be had.
fn on_small_disk(test: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mount = |script: &str| {
        let mut command = Command::new("unshare");
        if !is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let mounted = format!("mount -t tmpfs -o size={DISK_BYTES} tmpfs \"$0\" && {script}");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &mounted]).arg(folder.path());
        command
    };
    if !mount("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no mount namespace with a tmpfs can be made here");
        return false;
    }
    let output = mount("exec \"$1\" --exact \"$2\" --nocapture")
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(SMALL_DISK, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the mount is seen outside");
    true
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn small_disk() -> Option<PathBuf> {
    std::env::var_os(SMALL_DISK).map(PathBuf::from)
}

/// Takes all the space that is left.
fn fill(folder: &Path) -> PathBuf {
    use std::io::Write;
    let path = folder.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    path
}

fn verify(folder: &Path, head: AxiomRef) {
    let options = VerifyOptions { head: Some(head), ..VerifyOptions::default() };
    let log = LogFolder::new(folder.join("axiom").join(LOG_FOLDER));
    let report = verify_log(&log, &options, |_| {}).unwrap();
    assert_eq!(report.entries, head.sequence.0 + 1);
}

/// covers: AX-48
#[test]
fn a_full_disk_leaves_the_reserve_keeps_what_was_acknowledged_and_goes_on_when_there_is_room() {
    let Some(folder) = small_disk() else {
        on_small_disk(
            "a_full_disk_leaves_the_reserve_keeps_what_was_acknowledged_and_goes_on_when_there_is_room",
        );
        return;
    };
    let mut opened = open(&folder).unwrap();
    append(&mut opened).unwrap();
    let filler = fill(&folder);
    let normal = append_while(&mut opened, Space::Normal);
    assert_eq!(opened.layout.space(SPACE_BYTES), Space::ReserveOnly);
    // A start on the full disk needs no space, and finds the reserve where it was.
    drop(opened);
    let mut opened = open(&folder).unwrap();
    assert_eq!((opened.reader.last(), opened.recovery.above_head), (normal, 0));
    assert_eq!(opened.layout.space(SPACE_BYTES), Space::ReserveOnly);
    let reserve = append_while(&mut opened, Space::ReserveOnly);
    assert!(reserve.sequence.0 >= normal.sequence.0 + 10, "{normal} {reserve}");
    assert_eq!(opened.layout.space(SPACE_BYTES), Space::Full);
    assert!(matches!(append(&mut opened), Err(StoreError::Full)));
    verify(&folder, reserve);
    // Room is back: the same process goes on, and so does the next one.
    fs::remove_file(filler).unwrap();
    assert_eq!(opened.layout.space(SPACE_BYTES), Space::Normal);
    let after = append(&mut opened).unwrap();
    assert_eq!(after.sequence.0, reserve.sequence.0 + 1);
    drop(opened);
    let mut opened = open(&folder).unwrap();
    assert_eq!(opened.reader.last(), after);
    verify(&folder, append(&mut opened).unwrap());
}

#[test]
fn a_removed_or_replaced_file_is_noticed_before_the_next_acknowledgement_and_nothing_follows() {
    type Act = fn(&Path, &Path);
    let acts: [(&str, Act); 5] = [
        ("segment removed", |segment, _| fs::remove_file(segment).unwrap()),
        ("segment copied over", |segment, _| {
            let bytes = fs::read(segment).unwrap();
            fs::remove_file(segment).unwrap();
            fs::write(segment, bytes).unwrap();
        }),
        ("folder replaced", |segment, _| {
            let folder = segment.parent().unwrap();
            fs::rename(folder, folder.with_extension("old")).unwrap();
            fs::create_dir(folder).unwrap();
        }),
        ("head removed", |_, head| fs::remove_file(head).unwrap()),
        ("head replaced", |_, head| {
            fs::copy(head, head.with_extension("new")).unwrap();
            fs::rename(head.with_extension("new"), head).unwrap();
        }),
    ];
    for (what, act) in acts {
        let folder = tempfile::tempdir().unwrap();
        let mut opened = open(folder.path()).unwrap();
        let last = append(&mut opened).unwrap();
        opened.committer.check().unwrap();
        let log = folder.path().join("axiom").join(LOG_FOLDER);
        let segment = fs::read_dir(&log).unwrap().next().unwrap().unwrap().path();
        act(&segment, &folder.path().join("head").join("head"));
        assert!(matches!(append(&mut opened), Err(StoreError::Replaced(_))), "{what}");
        assert_eq!(opened.reader.last(), last, "{what}: shown although it was not acknowledged");
        assert!(matches!(opened.committer.check(), Err(StoreError::Stopped)), "{what}");
        opened.layout.space(SPACE_BYTES);
        assert!(matches!(append(&mut opened), Err(StoreError::Stopped | StoreError::Layout)), "{what}");
    }
}

#[test]
fn an_older_segment_that_vanished_is_noticed_at_the_next_look() {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = open(folder.path()).unwrap();
    let log = folder.path().join("axiom").join(LOG_FOLDER);
    while fs::read_dir(&log).unwrap().count() < 3 {
        opened.layout.space(SPACE_BYTES);
        append(&mut opened).unwrap();
    }
    opened.committer.check().unwrap();
    fs::remove_file(log.join(chain::segment_name(Sequence(0)))).unwrap();
    assert!(matches!(opened.committer.check(), Err(StoreError::Replaced(_))));
    assert!(matches!(append(&mut opened), Err(StoreError::Stopped)));
    drop(opened);
    assert!(open(folder.path()).is_err());
    assert!(folder.path().join("axiom").join(SPARE_FOLDER).is_dir());
}
