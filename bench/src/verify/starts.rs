//! What the service does before it serves: from genesis, and from a snapshot that lies 10 000 entries back.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use axiom::{
    snapshot::{Policy, Snapshots, Writer},
    start::{Started, start},
    store::{CommitterThread, RANGE_ENTRIES_MAX, Space, Store, StoreOptions, Tail, verify_before},
};
use base::Sequence;
use chain::tree::{Edge, TreeHash};
use durable::RealDisk;
use kit::LocalState;

use super::log::{self, Written, public, sequencer_key};
use crate::report::{Row, Subject, Unit};

const GOAL_MS: f64 = 200.0;

struct Place {
    disk: RealDisk,
    head: RealDisk,
}

impl Place {
    fn start(
        &self,
        with_snapshot: bool,
    ) -> Result<(Started<RealDisk>, Snapshots<RealDisk>, LocalState, f64)> {
        let gate = LocalState::new();
        let began = Instant::now();
        let mut snapshots = Snapshots::new(self.head.clone());
        let snapshot = if with_snapshot { snapshots.load(&public(&sequencer_key())).0 } else { None };
        let store = || Store {
            disk: &self.disk,
            head_disk: &self.head,
            options: StoreOptions { fill_in_background: false, ..StoreOptions::new([1; 32]) },
        };
        let started = start(store, || None, None, snapshot, &gate)?;
        let ms = began.elapsed().as_secs_f64() * 1e3;
        ensure!(started.resumed.is_some() == with_snapshot, "the start did not begin where it should");
        Ok((started, snapshots, gate, ms))
    }
}

pub(super) fn rows(written: &Written, rounds: usize) -> Result<Vec<Row>> {
    let (disk, head) =
        (RealDisk::open(written.root.join("axiom"))?, RealDisk::open(written.root.join("head"))?);
    let place = Place { disk, head };
    let (mut whole, mut write) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (started, .., ms) = place.start(false)?;
        whole.push(ms);
        drop(started);
    }
    let (started, snapshots, gate, ms) = place.start(false)?;
    whole.push(ms);
    write.push(snapshot(&place, started, snapshots, &gate)?);
    let behind = Policy::DEFAULT.entries_max;
    append(&place, behind)?;
    let (mut resumed, mut core) = (Vec::new(), Vec::new());
    let mut checked = Vec::new();
    for _ in 0..rounds {
        let used = super::processor_s();
        let (started, .., ms) = place.start(true)?;
        resumed.push(ms);
        core.push((super::processor_s() - used) * 1e3);
        let (resume, edge) = started.resumed.context("a start from a snapshot")?;
        let began = Instant::now();
        let entries = verify_before(&place.disk, (&resume, &edge), None, || {})?;
        checked.push(super::rate(entries, began));
    }
    let what = format!("a start on {} entries", written.entries + behind);
    let start = vec![
        Subject::ours(format!("from a snapshot {behind} entries back"), &mut resumed),
        Subject::ours("its processor time", &mut core),
        Subject::ours("from genesis", &mut whole),
    ];
    let write = vec![Subject::ours("fold, sign, write, sync", &mut write)];
    let checked = vec![Subject::ours("one core, without its pauses", &mut checked)];
    Ok(vec![
        Row::new(what, Unit::Milliseconds, start).goal(GOAL_MS),
        Row::new("verifying behind such a start", Unit::PerSecond, checked),
        Row::new("the first snapshot of all of it", Unit::Milliseconds, write),
    ])
}

/// Takes a snapshot of everything.
fn snapshot(
    place: &Place,
    mut started: Started<RealDisk>,
    snapshots: Snapshots<RealDisk>,
    gate: &LocalState,
) -> Result<f64> {
    let genesis = started.growth.genesis().context("genesis")?;
    let reader = started.opened.reader.clone();
    let mut edge = Edge::default();
    while edge.size() <= reader.last().sequence.0 {
        for entry in reader.range(Sequence(edge.size()), RANGE_ENTRIES_MAX)? {
            edge.push(TreeHash::leaf(&entry.leaf()), |_, _| {});
        }
    }
    let began = Instant::now();
    let mut writer = Writer::new(
        (place.disk.clone(), snapshots),
        reader.clone(),
        ("bench".to_owned(), sequencer_key()),
        (&mut started.sequencer, gate),
        (genesis, None),
    )?;
    let tail: Tail = reader.tail();
    writer.write(tail, &edge, None)?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn append(place: &Place, count: u64) -> Result<()> {
    let (Started { opened, .. }, ..) = place.start(true)?;
    let mut layout = opened.layout;
    let mut committer = CommitterThread::start(opened.committer)?;
    let end = layout.point().next_sequence.0 + count;
    while layout.point().next_sequence.0 < end {
        ensure!(layout.space(1 << 20) != Space::Full, "the disk is full");
        let (group, _) = log::group(layout.point(), log::PAIRS_OF_A_GROUP)?;
        let committed = committer.commit_here(layout.prepare(group)?)?;
        layout.recycle(committed.buffer);
    }
    Ok(())
}
