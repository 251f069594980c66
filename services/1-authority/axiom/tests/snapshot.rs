//! Starts from a snapshot on a real disk: what is taken, what is passed over, and what is found behind the start.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may stop the test")]

use std::path::{Path, PathBuf};

use axiom::{
    core::{Sequencer, genesis_entry},
    snapshot::{RefusedSnapshots, SNAPSHOT_FOLDER, Snapshot, SnapshotError, Snapshots, Writer},
    start::{CheckpointMissing, Growth, Started, start},
    store::{
        CommitterThread, LOG_FOLDER, Layout, LogReader, Space, Store, StoreError, StoreOptions, verify_before,
    },
};
use base::{AxiomRef, AxiomTime, EntryKey, Hash, IdentityId, PublicKey, Sequence};
use chain::{
    ChainPoint, Entry, EntryType, LogFolder, VerifyOptions,
    checkpoint::{Checkpoint, SignedCheckpoint, origin},
    genesis::{self, GenesisPlan},
    note::{Algorithm, VerifierKey},
    payload::{Envelope, Receipt, ReceiptStatus},
    tree::{Edge, TreeHash},
    verify_log,
};
use durable::RealDisk;
use ed25519_dalek::SigningKey;
use kit::LocalState;

const SEGMENT_BYTES: u64 = 16 * 1024;
const NODE: &str = "desk";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[8; 32])
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

fn first_entry() -> (Entry, Hash) {
    let other = PublicKey([1; 32]);
    let plan = GenesisPlan {
        image_hash: Hash::ZERO,
        genesis_time: AxiomTime(1),
        node_name: NODE.to_owned(),
        node_key: other,
        sequencer_key: public(&key()),
        policy_key: other,
        identity_key: other,
        admin_uid: 0,
        rules: Vec::new(),
        initial_capabilities: Vec::new(),
    };
    let genesis =
        genesis::build(plan, |path| Some(PublicKey(Hash::of(path.to_string().as_bytes()).0))).unwrap();
    let submitter = genesis.admin;
    let envelope = Envelope { submitter, key: EntryKey([0; 16]), authorization: None, body: genesis };
    genesis_entry(&envelope.to_bytes().unwrap()).unwrap()
}

struct Place {
    _folder: tempfile::TempDir,
    disk: RealDisk,
    head: RealDisk,
    path: PathBuf,
}

/// A log that was opened, its tree, and the thread that writes.
struct Node {
    started: Parts,
    edge: Edge,
    gate: LocalState,
    kept: Option<(u64, TreeHash)>,
    writer: Writer<RealDisk>,
}

struct Parts {
    layout: Layout<RealDisk>,
    committer: CommitterThread<RealDisk>,
    reader: LogReader<RealDisk>,
    sequencer: Sequencer,
    read_from: u64,
    behind: Option<(axiom::store::Resume, Edge)>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let (disk, head) =
            (RealDisk::open(path.join("axiom")).unwrap(), RealDisk::open(path.join("head")).unwrap());
        Self { _folder: folder, disk, head, path }
    }

    fn store(&self) -> Store<'_, RealDisk> {
        let options = StoreOptions {
            segment_bytes: SEGMENT_BYTES,
            fill_in_background: false,
            ..StoreOptions::new([3; 32])
        };
        Store { disk: &self.disk, head_disk: &self.head, options }
    }

    fn load(&self) -> (Option<Snapshot>, RefusedSnapshots) {
        Snapshots::new(self.head.clone()).load(&public(&key()))
    }

    fn start(&self, kept: Option<SignedCheckpoint>) -> Result<(Started<RealDisk>, LocalState), StoreError> {
        let gate = LocalState::new();
        let (snapshot, _) = self.load();
        Ok((start(|| self.store(), || Some(first_entry()), kept, snapshot, &gate)?, gate))
    }

    fn open(&self) -> Result<Node, StoreError> {
        let mut snapshots = Snapshots::new(self.head.clone());
        let (snapshot, _) = snapshots.load(&public(&key()));
        let gate = LocalState::new();
        let Started { opened, mut sequencer, growth, unreadable, resumed } =
            start(|| self.store(), || Some(first_entry()), None, snapshot, &gate)?;
        assert_eq!(unreadable, None);
        let genesis = growth.genesis().unwrap();
        let edge = growth.check(&log_key()).unwrap();
        let writer = Writer::new(
            (self.disk.clone(), snapshots),
            opened.reader.clone(),
            (NODE.to_owned(), key()),
            (&mut sequencer, &gate),
            (genesis, resumed.as_ref().map(|(resume, _)| resume)),
        );
        let started = Parts {
            layout: opened.layout,
            committer: CommitterThread::start(opened.committer).unwrap(),
            reader: opened.reader,
            sequencer,
            read_from: resumed.as_ref().map_or(0, |(resume, _)| resume.tail.last.sequence.0 + 1),
            behind: resumed,
        };
        Ok(Node { started, edge, gate, kept: None, writer: writer.unwrap() })
    }

    fn snapshots(&self) -> Vec<PathBuf> {
        files(&self.path.join("head").join(SNAPSHOT_FOLDER))
    }

    fn segments(&self) -> Vec<PathBuf> {
        files(&self.path.join("axiom").join(LOG_FOLDER))
    }

    /// What genesis and every entry add up to.
    fn whole(&self) -> (Sequencer, LocalState, Edge) {
        let (mut sequencer, gate, mut edge) = (Sequencer::new(), LocalState::new(), Edge::default());
        let folder = LogFolder::new(self.path.join("axiom").join(LOG_FOLDER));
        verify_log(&folder, &VerifyOptions::default(), |placed| {
            let header = &placed.record.header;
            assert!(sequencer.replay(header, placed.record.payload, placed.hash));
            if LocalState::folds(header.entry_type.code()) {
                let payload =
                    chain::payload::Payload::decode(header.entry_type.code(), placed.record.payload).unwrap();
                gate.apply_payload(header.timestamp, &payload);
            }
            edge.push(TreeHash::leaf_of(&[&header.encode(), placed.record.payload]), |_, _| {});
        })
        .unwrap();
        (sequencer, gate, edge)
    }
}

fn log_key() -> VerifierKey {
    VerifierKey::new(origin(NODE, &first_entry().1), Algorithm::Ed25519, public(&key())).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn receipt(sequence: u64) -> Vec<u8> {
    receipt_with(sequence, Hash::ZERO)
}

fn receipt_with(sequence: u64, environment: Hash) -> Vec<u8> {
    let body = Receipt {
        axiom_entry: AxiomRef { sequence: Sequence(0), hash: Hash::ZERO },
        inputs: vec![],
        outputs: vec![],
        environment,
        status: ReceiptStatus::Success,
        proof: None,
    };
    let key = EntryKey(*Hash::of(&sequence.to_le_bytes()).0.first_chunk().unwrap());
    Envelope { submitter: IdentityId([2; 32]), key, authorization: None, body }.to_bytes().unwrap()
}

impl Node {
    /// Appends groups of three receipts.
    fn append(&mut self, groups: u64) {
        for _ in 0..groups {
            let mut point = self.started.layout.point();
            let mut entries = Vec::new();
            for _ in 0..3 {
                let sequence = point.next_sequence;
                let (kind, time) = (EntryType::Receipt, AxiomTime(sequence.0));
                let (entry, hash) =
                    Entry::next(sequence, point.last_hash, time, kind, receipt(sequence.0)).unwrap();
                assert!(self.started.sequencer.replay(&entry.header, &entry.payload, hash));
                self.edge.push(TreeHash::leaf(&entry.leaf()), |_, _| {});
                point = ChainPoint::after(AxiomRef { sequence, hash });
                entries.push((entry, hash));
            }
            assert_ne!(self.started.layout.space(4096), Space::Full);
            let group = self.started.layout.prepare(entries).unwrap();
            self.started.committer.commit_here(group).unwrap();
        }
    }

    fn snapshot(&mut self) {
        let tail = self.started.reader.tail();
        let runs = self.writer.write(tail, &self.edge, self.kept).unwrap();
        self.started.sequencer.adopt_key_runs(runs);
    }

    fn checkpoint(&self) -> SignedCheckpoint {
        let origin = origin(NODE, &first_entry().1);
        Checkpoint { origin, size: self.edge.size(), root: self.edge.root() }.sign(&key()).unwrap()
    }
}

/// A log of several segments with a snapshot in it and entries behind that. Gives the snapshot's last entry.
fn filled(place: &Place) -> AxiomRef {
    let mut node = place.open().unwrap();
    node.append(100);
    node.snapshot();
    let last = node.started.reader.last();
    node.append(40);
    last
}

/// covers: AX-54, AX-55, AX-59
#[test]
fn a_start_from_a_snapshot_reads_what_is_behind_it_and_ends_where_a_whole_one_does() {
    let place = Place::new();
    let last = filled(&place);
    assert!(place.segments().len() > 5);
    // Again and again: each start goes on from the newest.
    let mut newest = last.sequence.0;
    for _ in 0..4 {
        let mut node = place.open().unwrap();
        assert_eq!(node.started.read_from, newest + 1);
        let (mut sequencer, gate, edge) = place.whole();
        assert_eq!(node.started.sequencer.save(), sequencer.save());
        assert_eq!((node.gate.to_bytes(), &node.edge), (gate.to_bytes(), &edge));
        // All keys are known, those in runs with the entry that they belong to.
        node.started.sequencer.seal_keys();
        sequencer.seal_keys();
        let keys = |sequencer: &Sequencer| -> u64 {
            sequencer.key_runs().iter().map(|run| run.bytes().len() as u64 / 24).sum()
        };
        assert_eq!(keys(&node.started.sequencer), keys(&sequencer));
        for n in [0, 1, 63, 64, 299, 300, 301, 400, newest] {
            assert_eq!(node.started.reader.read(Sequence(n)).unwrap().header.sequence, Sequence(n));
        }
        let (resume, edge) = node.started.behind.clone().unwrap();
        let mut paced = 0;
        assert_eq!(verify_before(&place.disk, (&resume, &edge), None, || paced += 1).unwrap(), newest + 1);
        assert!(paced > 100);
        node.append(7);
        node.snapshot();
        newest = node.started.reader.last().sequence.0;
        node.append(1);
    }
    // Two snapshots and the runs that they need are left.
    let names = place.snapshots();
    assert_eq!(names.iter().filter(|name| name.extension().unwrap() == "snap").count(), 2);
    assert!(names.len() <= 2 + 8, "{names:?}");
}

/// covers: AX-41
#[test]
fn an_entry_that_only_a_run_remembers_is_found_again_and_not_written_twice() {
    use axiom::core::{Draft, Limits, Reading, RejectionReason, Source, Unit, UnitReply};
    let place = Place::new();
    filled(&place);
    let mut node = place.open().unwrap();
    node.started.sequencer.start(Reading::default());
    let mut ask = |payload: Vec<u8>| {
        let limits = Limits { body_bytes_max: 1 << 20, reserve_only: false, full: false };
        let unit = Unit { entries: vec![Draft { entry_type: EntryType::Receipt, payload }] };
        node.started.sequencer.batch(Reading::default(), limits, Source::Policy, vec![unit]).replies.remove(0)
    };
    // In a run, at the snapshot, behind it.
    for n in [5, 300, 410] {
        let entry = node.started.reader.read(Sequence(n)).unwrap();
        assert_eq!(ask(receipt(n)), UnitReply::Duplicate(entry.reference()));
        let other = ask(receipt_with(n, Hash::of(b"another")));
        assert!(
            matches!(other, UnitReply::Rejected(refusal) if refusal.reason == RejectionReason::DuplicateNonce)
        );
    }
}

fn refusal(place: &Place) -> SnapshotError {
    let (found, mut refused) = place.load();
    assert!(found.is_none());
    refused.remove(0).1
}

/// covers: AX-55
#[test]
fn whatever_is_wrong_with_a_snapshot_it_is_passed_over_and_the_log_is_read_whole() {
    let place = Place::new();
    filled(&place);
    let names = place.snapshots();
    let [run, snapshot] = names.as_slice() else { panic!("{names:?}") };
    let (run, snapshot) = if run.extension().unwrap() == "keys" { (run, snapshot) } else { (snapshot, run) };
    let (run_bytes, bytes) = (std::fs::read(run).unwrap(), std::fs::read(snapshot).unwrap());
    let from_genesis = || {
        let (started, gate) = place.start(None).unwrap();
        assert!(started.resumed.is_none());
        let (whole, whole_gate, _) = place.whole();
        assert_eq!((started.sequencer.save(), gate.to_bytes()), (whole.save(), whole_gate.to_bytes()));
    };
    // Every byte, also of the note and of its length.
    for at in (0..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        std::fs::write(snapshot, changed).unwrap();
        let (found, refused) = place.load();
        assert!(found.is_none() && refused.len() == 1, "byte {at}");
    }
    from_genesis();
    for end in [0, 3, 4, 100, bytes.len() - 1] {
        std::fs::write(snapshot, &bytes[..end]).unwrap();
        assert!(place.load().0.is_none(), "{end} bytes");
    }
    std::fs::write(snapshot, &bytes).unwrap();
    assert!(place.load().0.is_some());
    // Signed by another node's key.
    let other = public(&SigningKey::from_bytes(&[9; 32]));
    let (found, refused) = Snapshots::new(place.head.clone()).load(&other);
    assert!(found.is_none() && matches!(refused[0].1, SnapshotError::Note(_)));
    // Of another entry than its name says.
    let renamed = snapshot.with_file_name(format!("{:020}.snap", 7));
    std::fs::rename(snapshot, &renamed).unwrap();
    assert!(matches!(refusal(&place), SnapshotError::Entries(Sequence(7), ..)));
    std::fs::rename(&renamed, snapshot).unwrap();
    // Keys that were changed, and keys that are gone.
    let mut changed = run_bytes.clone();
    changed[100] ^= 1;
    std::fs::write(run, changed).unwrap();
    assert!(matches!(refusal(&place), SnapshotError::Run { from: 0, .. }));
    std::fs::remove_file(run).unwrap();
    assert!(matches!(refusal(&place), SnapshotError::Run { from: 0, .. }));
    from_genesis();
}

/// A snapshot of the same key and another log, as after a node was made anew: the entries are the same, but lie in other
/// segments.
#[test]
fn a_snapshot_of_another_log_is_not_taken() {
    let (place, other) = (Place::new(), Place::new());
    filled(&other);
    std::fs::create_dir(place.path.join("head").join(SNAPSHOT_FOLDER)).unwrap();
    for file in other.snapshots() {
        let name = file.file_name().unwrap();
        std::fs::copy(&file, place.path.join("head").join(SNAPSHOT_FOLDER).join(name)).unwrap();
    }
    assert!(place.load().0.is_some());
    let (started, _) = place.start(None).unwrap();
    assert!(started.resumed.is_none() && started.opened.recovery.first_boot);
    drop(started);
    let options = StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        fill_in_background: false,
        ..StoreOptions::new([4; 32])
    };
    let (fresh, gate) = (Place::new(), LocalState::new());
    let store = || Store { disk: &fresh.disk, head_disk: &fresh.head, options: options.clone() };
    let mut started = start(store, || Some(first_entry()), None, None, &gate).unwrap();
    for n in 1..400 {
        let point = started.opened.layout.point();
        let (kind, time) = (EntryType::Receipt, AxiomTime(n));
        let entry = Entry::next(point.next_sequence, point.last_hash, time, kind, receipt(n)).unwrap();
        assert_ne!(started.opened.layout.space(4096), Space::Full);
        let group = started.opened.layout.prepare(vec![entry]).unwrap();
        started.opened.committer.commit(group).unwrap();
    }
    drop(started);
    assert!(start(store, || None, None, place.load().0, &gate).unwrap().resumed.is_none());
}

fn change(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// covers: AX-55, AX-22
#[test]
fn an_older_segment_that_was_changed_or_removed_is_found_at_the_start_or_behind_it() {
    let place = Place::new();
    filled(&place);
    let segments = place.segments();
    // A header is read at the start: the whole log is read, which names the damage.
    for (segment, at) in [(0, 90), (1, 20), (1, 80), (2, 300)] {
        change(&segments[segment], at);
        assert!(matches!(place.start(None), Err(StoreError::Damaged(_))), "byte {at} of segment {segment}");
        change(&segments[segment], at);
    }
    // Genesis and the group in which the snapshot was taken are read too.
    change(&segments[0], 700);
    assert!(matches!(place.start(None), Err(StoreError::Damaged(_))));
    change(&segments[0], 700);
    let moved = segments[1].with_extension("gone");
    std::fs::rename(&segments[1], &moved).unwrap();
    assert!(matches!(place.start(None), Err(StoreError::Damaged(_))));
    std::fs::rename(&moved, &segments[1]).unwrap();
    let bytes = std::fs::read(&segments[1]).unwrap();
    std::fs::write(&segments[1], &bytes[..bytes.len() - 4096]).unwrap();
    assert!(matches!(place.start(None), Err(StoreError::Damaged(_))));
    std::fs::write(&segments[1], bytes).unwrap();
    // A change inside of a segment is not looked at, and is found behind the start.
    let (started, _) = place.start(None).unwrap();
    let (resume, edge) = started.resumed.unwrap();
    assert!(verify_before(&place.disk, (&resume, &edge), None, || {}).is_ok());
    change(&segments[2], 2000);
    assert!(place.load().0.is_some());
    assert!(matches!(verify_before(&place.disk, (&resume, &edge), None, || {}), Err(StoreError::Damaged(_))));
    change(&segments[2], 2000);
    // So is another tree than the snapshot's.
    let mut other = Edge::default();
    other.push(TreeHash::leaf(b"x"), |_, _| {});
    assert!(matches!(
        verify_before(&place.disk, (&resume, &other), None, || {}),
        Err(StoreError::Damaged(_))
    ));
}

/// covers: AX-55
#[test]
fn a_log_that_lacks_what_the_snapshot_or_the_head_saw_is_refused() {
    let place = Place::new();
    filled(&place);
    // The last segments are gone: the head knows.
    let segments = place.segments();
    for segment in &segments[segments.len() - 4..] {
        std::fs::remove_file(segment).unwrap();
    }
    assert!(matches!(place.start(None), Err(StoreError::Damaged(_))));
}

/// After a power cut the head can be older than a snapshot: it was written and not synced.
#[test]
fn a_head_before_the_snapshot_is_looked_up_in_what_is_not_read() {
    let place = Place::new();
    let mut node = place.open().unwrap();
    node.append(100);
    let head = std::fs::read(place.path.join("head/head")).unwrap();
    node.append(30);
    node.snapshot();
    drop(node);
    std::fs::write(place.path.join("head/head"), &head).unwrap();
    assert!(place.start(None).unwrap().0.resumed.is_some());
    // And one that the log does not have is none.
    let mut other = head;
    let slot = chain::HeadSlot(AxiomRef { sequence: Sequence(250), hash: Hash::ZERO }).encode();
    for at in [0, 512] {
        other[at..at + slot.len()].copy_from_slice(&slot);
    }
    std::fs::write(place.path.join("head/head"), other).unwrap();
    assert!(matches!(place.start(None), Err(StoreError::Damaged(_))));
}

/// covers: AX-55
#[test]
fn the_kept_checkpoint_is_compared_wherever_it_lies() {
    let place = Place::new();
    let mut node = place.open().unwrap();
    node.append(20);
    let old = node.checkpoint();
    node.append(20);
    let remembered = node.checkpoint();
    node.kept = Some((remembered.unverified().size, remembered.unverified().root));
    node.append(60);
    let at_snapshot = node.checkpoint();
    node.snapshot();
    node.append(20);
    let behind = node.checkpoint();
    drop(node);
    let check = |kept: &SignedCheckpoint| {
        let (started, _) = place.start(Some(kept.clone())).unwrap();
        (started.resumed.is_some(), started.growth.check(&log_key()).map(|edge| edge.size()))
    };
    for (kept, from_snapshot) in [(&old, false), (&remembered, true), (&at_snapshot, true), (&behind, true)] {
        let (resumed, checked) = check(kept);
        assert_eq!((resumed, checked.unwrap()), (from_snapshot, 361));
        let Checkpoint { origin, size, .. } = kept.unverified().clone();
        let other = Checkpoint { origin, size, root: TreeHash::leaf(b"x") }.sign(&key()).unwrap();
        assert!(matches!(check(&other), (_, Err(CheckpointMissing::Changed { .. }))), "of {size}");
    }
    let origin = behind.unverified().origin.clone();
    let longer = Checkpoint { origin, size: 362, root: TreeHash::leaf(b"x") }.sign(&key()).unwrap();
    assert!(check(&longer).1.is_err());
    assert!(Growth::begin(None).check(&log_key()).is_ok());
}
