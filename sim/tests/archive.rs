//! Segments are taken out of a log: at any place, and with the power cut at every step. What is left starts, verifies, and
//! adds up to what the whole log did.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may stop the test")]

use axiom::{
    core::genesis_entry,
    snapshot::{Snapshots, Writer},
    start::{Started, start},
    store::{
        ArchiveError, CommitterThread, DiskLog, HEAD_FILE, LogReader, Removal, Space, Store, StoreError,
        StoreOptions, verify_before,
    },
};
use base::{AxiomRef, AxiomTime, EntryKey, Hash, IdentityId, PublicKey, Sequence};
use chain::{
    ChainPoint, Entry, EntryType, HEAD_FILE_BYTES, HeadSlot, LogSource, VerifyOptions,
    checkpoint::{Checkpoint, origin},
    genesis::{self, GenesisPlan},
    log_edge::LogEdge,
    note::{Algorithm, NoteSigner},
    payload::{Envelope, Receipt, ReceiptStatus, log::LogArchive},
    segment_first,
    tree::{Edge, TreeHash},
    verify_log,
};
use durable::{Disk, DiskFile, replace};
use ed25519_dalek::SigningKey;
use kit::LocalState;
use sim::{Fault, SimDisk};

const SEGMENT_BYTES: u64 = 16 * 1024;
const NODE: &str = "desk";
const GROUPS: u64 = 160;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[8; 32])
}

fn public() -> PublicKey {
    PublicKey(key().verifying_key().to_bytes())
}

fn first_entry() -> (Entry, Hash) {
    let other = PublicKey([1; 32]);
    let plan = GenesisPlan {
        image_hash: Hash::ZERO,
        genesis_time: AxiomTime(1),
        node_name: NODE.to_owned(),
        node_key: other,
        sequencer_key: public(),
        policy_key: other,
        identity_key: other,
        admin_uid: 0,
        rules: Vec::new(),
        initial_capabilities: Vec::new(),
    };
    let body = genesis::build(plan, |path| Some(PublicKey(Hash::of(path.to_string().as_bytes()).0))).unwrap();
    let submitter = body.admin;
    let envelope = Envelope { submitter, key: EntryKey([0; 16]), authorization: None, body };
    genesis_entry(&envelope.to_bytes().unwrap()).unwrap()
}

fn receipt(sequence: u64) -> Vec<u8> {
    let cited = AxiomRef { sequence: Sequence(0), hash: Hash::ZERO };
    let body = Receipt::closing(cited, ReceiptStatus::Success);
    let key = EntryKey(*Hash::of(&sequence.to_le_bytes()).0.first_chunk().unwrap());
    Envelope { submitter: IdentityId([2; 32]), key, authorization: None, body }.to_bytes().unwrap()
}

struct Node {
    started: Started<SimDisk>,
    gate: LocalState,
}

fn open(disk: &SimDisk) -> Result<Node, StoreError> {
    let (snapshot, refused) = Snapshots::new(disk.clone()).load(&public());
    assert!(refused.is_empty(), "{refused:?}");
    let gate = LocalState::new();
    let options = StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        spare_files: 1,
        fill_in_background: false,
        sequencer_key: Some(public()),
        ..StoreOptions::new([3; 32])
    };
    let store = || Store { disk, head_disk: disk, options: options.clone() };
    let started = start(store, || Some(first_entry()), None, snapshot, &gate)?;
    assert_eq!(started.unreadable, None);
    Ok(Node { started, gate })
}

/// Everything that can be read, as it adds up; from the edge on, or from genesis.
struct Read {
    reader: LogReader<SimDisk>,
    saved: Vec<u8>,
    gate: Vec<u8>,
    tree: Edge,
    edge: Option<LogEdge>,
}

fn read(disk: &SimDisk) -> Read {
    let node = open(disk).unwrap();
    let Started { opened, sequencer, growth, resumed, .. } = node.started;
    if let Some((resume, edge)) = &resumed {
        verify_before(disk, (resume, edge), opened.edge.as_ref(), || {}).unwrap();
    }
    let begin = opened.edge.as_ref().map_or(ChainPoint::GENESIS, LogEdge::point);
    let options = VerifyOptions { head: Some(opened.reader.last()), ..VerifyOptions::from_edge(begin) };
    let report = verify_log(&DiskLog(disk), &options, |_| {}).unwrap();
    assert_eq!(report.first, begin.next_sequence);
    let log = origin(NODE, &growth.genesis().unwrap());
    let key = chain::note::VerifierKey::new(log, Algorithm::Ed25519, public()).unwrap();
    Read {
        saved: sequencer.save().unwrap(),
        gate: node.gate.to_bytes(),
        tree: growth.check(&key).unwrap(),
        edge: opened.edge,
        reader: opened.reader,
    }
}

/// A log of several segments, with a snapshot in its last one.
fn filled(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let node = open(&disk).unwrap();
    let mut tree = Edge::default();
    tree.push(TreeHash::leaf(&first_entry().0.leaf()), |_, _| {});
    let Started { mut opened, mut sequencer, growth, .. } = node.started;
    let mut committer = CommitterThread::start(opened.committer).unwrap();
    for _ in 0..GROUPS {
        let mut point = opened.layout.point();
        let mut entries = Vec::new();
        for _ in 0..2 {
            let sequence = point.next_sequence;
            let (kind, time) = (EntryType::Receipt, AxiomTime(sequence.0));
            let made = Entry::next(sequence, point.last_hash, time, kind, receipt(sequence.0));
            let (entry, hash) = made.unwrap();
            assert!(sequencer.replay(&entry.header, &entry.payload, hash));
            tree.push(TreeHash::leaf(&entry.leaf()), |_, _| {});
            point = ChainPoint::after(AxiomRef { sequence, hash });
            entries.push((entry, hash));
        }
        assert_ne!(opened.layout.space(4096), Space::Full);
        committer.commit_here(opened.layout.prepare(entries).unwrap()).unwrap();
    }
    let genesis = growth.genesis().unwrap();
    let mut writer = Writer::new(
        (disk.clone(), Snapshots::new(disk.clone())),
        opened.reader.clone(),
        (NODE.to_owned(), key()),
        (&mut sequencer, &node.gate),
        (genesis, None),
    )
    .unwrap();
    writer.write(opened.reader.tail(), &tree, None).unwrap();
    drop(committer);
    disk.restart_process();
    disk
}

fn names(disk: &SimDisk) -> Vec<String> {
    let mut names = DiskLog(disk).names().unwrap();
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    names
}

/// The act that takes all segments before the one that is `left`th.
fn act(disk: &SimDisk, from: Sequence, left: usize) -> LogArchive {
    let all = names(disk);
    let name = &all[left];
    let segment = DiskLog(disk).open(name).unwrap();
    let reader = chain::SegmentReader::open(segment, name, None).unwrap();
    let last = reader.point().last().unwrap();
    let is_taken =
        |name: &&String| segment_first(name).is_some_and(|first| first >= from && first <= last.sequence);
    let segments = all.iter().filter(is_taken).count() as u64;
    let whole = read(disk).tree;
    let log = origin(NODE, &first_entry().1);
    let checkpoint = Checkpoint { origin: log, size: whole.size(), root: whole.root() };
    let witness = SigningKey::from_bytes(&[6; 32]);
    let signer = NoteSigner { name: "witness.example/1", key: &witness };
    let mut signed = checkpoint.sign(&key()).unwrap();
    signed.note_mut().add(signer.cosign(&checkpoint.text(), 1_700_000_000).unwrap()).unwrap();
    LogArchive {
        from,
        last,
        segments,
        checkpoint: signed.to_string(),
        witnesses: vec![signer.verifier(Algorithm::Cosignature).unwrap().to_string()],
        place: "/archive".to_owned(),
        by: IdentityId([9; 32]),
    }
}

const ENTRY: AxiomRef = AxiomRef { sequence: Sequence(1), hash: Hash::ZERO };

fn carry_out(disk: &SimDisk, before: Option<&LogEdge>, act: &LogArchive) -> Result<LogEdge, ArchiveError> {
    let removal = Removal::plan(disk, before, (ENTRY, act), &key(), || {})?;
    removal.write_edge(disk, disk)?;
    removal.remove(disk)?;
    Ok(removal.edge)
}

fn is_the_same(read: &Read, whole: &Read) {
    assert_eq!((&read.saved, &read.gate, &read.tree), (&whole.saved, &whole.gate, &whole.tree));
    assert_eq!(read.reader.last(), whole.reader.last());
}

/// covers: AX-54, AX-59
#[test]
fn from_any_edge_on_the_log_adds_up_to_what_it_did_as_a_whole() {
    let segments = names(&filled(1)).len();
    assert!(segments > 5);
    for left in 1..segments {
        let disk = filled(1);
        let whole = read(&disk);
        let act = act(&disk, Sequence(0), left);
        let edge = carry_out(&disk, None, &act).unwrap();
        assert_eq!(names(&disk).len(), segments - left);
        let archived = read(&disk);
        assert_eq!(archived.edge.as_ref(), Some(&edge));
        is_the_same(&archived, &whole);
        // What was taken is refused by a name of its own, the first that is left is there.
        let first = act.last.sequence.0 + 1;
        let refused = archived.reader.range(Sequence(first - 1), 1);
        assert!(matches!(refused, Err(StoreError::Archived { .. })), "{refused:?}");
        assert_eq!(archived.reader.read(Sequence(first)).unwrap().header.sequence.0, first);
        // And once more, from there.
        if left + 1 < segments {
            let again = self::act(&disk, Sequence(first), 1);
            carry_out(&disk, Some(&edge), &again).unwrap();
            is_the_same(&read(&disk), &whole);
        }
    }
}

/// covers: AX-47
#[test]
fn no_power_cut_leaves_a_log_that_does_not_start() {
    let (mut cut, mut with, mut without) = (0, 0, 0);
    for seed in 0..6 {
        for fault in [Fault::PowerCut, Fault::Failed, Fault::FailedButHappened] {
            for step in 0.. {
                let disk = filled(seed);
                let whole = read(&disk);
                let act = act(&disk, Sequence(0), 4);
                disk.restart_process();
                disk.plan(step, fault);
                if carry_out(&disk, None, &act).is_ok() {
                    assert!(step > 6, "a run has more steps than {step}");
                    break;
                }
                cut += 1;
                if fault == Fault::PowerCut {
                    disk.restart_machine()
                } else {
                    disk.restart_process()
                }
                let after = read(&disk);
                is_the_same(&after, &whole);
                match &after.edge {
                    Some(edge) => {
                        without += 1;
                        assert_eq!(edge.last, act.last);
                    }
                    None => {
                        with += 1;
                        carry_out(&disk, None, &act).unwrap();
                    }
                }
                disk.restart_machine();
                let end = read(&disk);
                is_the_same(&end, &whole);
                assert_eq!(end.edge.unwrap().last, act.last);
            }
        }
    }
    assert!(cut > 50 && with > 10 && without > 10, "{cut} {with} {without}");
}

#[test]
fn what_was_not_decided_is_not_taken_and_what_is_wrong_does_not_start() {
    let disk = filled(2);
    let good = act(&disk, Sequence(0), 3);
    let refuse = |change: &dyn Fn(&mut LogArchive)| {
        let mut act = good.clone();
        change(&mut act);
        Removal::plan(&disk, None, (ENTRY, &act), &key(), || {}).err().unwrap()
    };
    assert!(matches!(refuse(&|act| act.from = Sequence(1)), ArchiveError::Begins { .. }));
    assert!(matches!(refuse(&|act| act.last.sequence.0 += 1), ArchiveError::NotWhole(_)));
    assert!(matches!(refuse(&|act| act.segments += 1), ArchiveError::NotWhole(_)));
    assert!(matches!(refuse(&|act| act.last.hash.0[0] ^= 1), ArchiveError::OtherEntry(_)));
    assert!(matches!(refuse(&|act| act.witnesses.clear()), ArchiveError::Edge(_)));
    assert!(matches!(
        refuse(&|act| act.checkpoint = act.checkpoint.replace("desk", "desc")),
        ArchiveError::Edge(_)
    ));
    let other_root = |act: &mut LogArchive| {
        let log = origin(NODE, &first_entry().1);
        let checkpoint = Checkpoint { origin: log, size: 300, root: TreeHash::leaf(b"x") };
        let witness = SigningKey::from_bytes(&[6; 32]);
        let signer = NoteSigner { name: "witness.example/1", key: &witness };
        let mut signed = checkpoint.sign(&key()).unwrap();
        signed.note_mut().add(signer.cosign(&checkpoint.text(), 1).unwrap()).unwrap();
        act.checkpoint = signed.to_string();
    };
    assert!(matches!(refuse(&other_root), ArchiveError::OtherRoot(300)));

    let files = disk.files();
    carry_out(&disk, None, &good).unwrap();
    let edge = disk.files()["log/edge"].clone();
    // Without its edge, with a changed one, without a segment behind it, without the snapshot: it does not start.
    disk.remove("log/edge").unwrap();
    assert!(open(&disk).is_err());
    disk.restart_process();
    let mut changed = edge.clone();
    changed[300] ^= 1;
    replace(&disk, "log/edge", &[&changed]).unwrap();
    assert!(matches!(open(&disk), Err(StoreError::Edge(_))));
    disk.restart_process();
    replace(&disk, "log/edge", &[&edge]).unwrap();
    is_the_same(&read(&disk), &read(&disk));
    let snapshots = disk.list("snapshot").unwrap();
    for name in snapshots {
        disk.remove(&format!("snapshot/{name}")).unwrap();
    }
    let refused = open(&disk).err().unwrap();
    assert!(
        matches!(refused, StoreError::NeedsRestore { .. })
            && refused.to_string().contains("log restore /archive")
    );
    disk.restart_process();
    // Put back, it is the whole log, whatever else there is.
    for name in files.keys().filter(|name| name.ends_with(".seg") && name.starts_with("log/")) {
        replace(&disk, name, &[&files[name]]).unwrap();
    }
    disk.remove("log/edge").unwrap();
    assert_eq!(read(&disk).edge, None);
}

/// The head as the disk has it, set back to an entry of the log.
fn set_head(disk: &SimDisk, head: AxiomRef) {
    replace(disk, HEAD_FILE, &[&HeadSlot(head).encode(), &[0; HEAD_FILE_BYTES - 64]]).unwrap();
}

/// covers: AX-47
#[test]
fn a_head_before_the_edge_is_refused_and_found_again_in_the_archive() {
    let disk = filled(3);
    let whole = read(&disk);
    let files = disk.files();
    let act = act(&disk, Sequence(0), 3);
    let at = |sequence: u64| {
        let entry = whole.reader.read(Sequence(sequence)).unwrap();
        AxiomRef { sequence: Sequence(sequence), hash: entry.hash() }
    };
    let (old, last) = (at(2), act.last);
    assert!(old.sequence < last.sequence);
    carry_out(&disk, None, &act).unwrap();
    let head = disk.files()[HEAD_FILE].clone();
    for other in [old, AxiomRef { hash: Hash::ZERO, ..old }] {
        set_head(&disk, other);
        let refused = open(&disk).err().unwrap();
        assert!(matches!(refused, StoreError::HeadArchived { .. }), "{refused}");
        assert!(refused.to_string().contains("log restore /archive"), "{refused}");
        disk.restart_process();
    }
    // The entry before the edge is known by its hash, and so is what is behind it.
    set_head(&disk, AxiomRef { hash: Hash::ZERO, ..last });
    assert!(matches!(open(&disk), Err(StoreError::Damaged(_))));
    disk.restart_process();
    set_head(&disk, last);
    is_the_same(&read(&disk), &whole);
    disk.restart_process();
    // With the archive it can be looked for.
    for name in files.keys().filter(|name| name.ends_with(".seg") && name.starts_with("log/")) {
        replace(&disk, name, &[&files[name]]).unwrap();
    }
    disk.remove("log/edge").unwrap();
    for (head, holds) in [(old, true), (AxiomRef { hash: Hash::ZERO, ..old }, false)] {
        set_head(&disk, head);
        assert_eq!(open(&disk).is_ok(), holds);
        disk.restart_process();
    }
    replace(&disk, HEAD_FILE, &[&head]).unwrap();
    is_the_same(&read(&disk), &whole);
}

/// A power cut takes the head's writes that were not synced; the edge's own never stands before it.
#[test]
fn the_head_is_durable_before_the_edge_is() {
    for seed in 0..20 {
        let disk = filled(seed);
        let whole = read(&disk);
        let act = act(&disk, Sequence(0), 4);
        let removal = Removal::plan(&disk, None, (ENTRY, &act), &key(), || {}).unwrap();
        // As it was after genesis, and not synced since.
        disk.restart_machine();
        set_head(&disk, AxiomRef { sequence: Sequence(0), hash: first_entry().1 });
        let file = disk.open(HEAD_FILE).unwrap();
        file.write_at(0, &HeadSlot(whole.reader.last()).encode()).unwrap();
        removal.write_edge(&disk, &disk).unwrap();
        removal.remove(&disk).unwrap();
        drop(file);
        disk.restart_machine();
        is_the_same(&read(&disk), &whole);
    }
}

fn lose_snapshots(disk: &SimDisk) {
    for name in disk.list("snapshot").unwrap() {
        disk.remove(&format!("snapshot/{name}")).unwrap();
    }
}

#[test]
fn an_edge_before_which_nothing_was_taken_yet_needs_no_snapshot() {
    let disk = filled(4);
    let whole = read(&disk);
    let act = act(&disk, Sequence(0), 4);
    let removal = Removal::plan(&disk, None, (ENTRY, &act), &key(), || {}).unwrap();
    removal.write_edge(&disk, &disk).unwrap();
    lose_snapshots(&disk);
    let sound = disk.files();
    // Whatever the start comes to, the next one finds a log.
    for fault in [Fault::PowerCut, Fault::Failed] {
        for step in 0..8 {
            disk.plan(step, fault);
            let opened = open(&disk).is_ok();
            if fault == Fault::PowerCut {
                disk.restart_machine()
            } else {
                disk.restart_process()
            }
            let node = open(&disk).unwrap();
            assert_eq!(node.started.opened.edge, None);
            assert!(opened || step < 8);
            drop(node);
            disk.restart_process();
            replace(&disk, "log/edge", &[&sound["log/edge"]]).unwrap();
        }
    }
    let node = open(&disk).unwrap();
    assert!(node.started.opened.recovery.edge_dropped);
    drop(node);
    disk.restart_process();
    let after = read(&disk);
    is_the_same(&after, &whole);
    assert!(after.edge.is_none() && !disk.files().contains_key("log/edge"));
    // And it can be archived anew.
    disk.restart_process();

    // With one of them gone, or changed, it does not.
    replace(&disk, "log/edge", &[&sound["log/edge"]]).unwrap();
    let all = names(&disk);
    disk.remove(&format!("log/{}", all[1])).unwrap();
    assert!(matches!(open(&disk), Err(StoreError::NeedsRestore { .. })));
    disk.restart_process();
    let mut changed = sound[&format!("log/{}", all[1])].clone();
    changed[3000] ^= 1;
    replace(&disk, &format!("log/{}", all[1]), &[&changed]).unwrap();
    assert!(matches!(open(&disk), Err(StoreError::Damaged(_))));
    assert!(disk.files().contains_key("log/edge"));
}
