//! Opening the log: verify, replay, start the threads.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use base::{AxiomRef, AxiomTime};
use chain::{SignedHead, UnsignedHead};
use durable::{DiskError, PoolError, RealDisk};
use ed25519_dalek::SigningKey;
use kit::{BoxError, InitContext, boot_time_ns};
use tokio::sync::watch;

use super::{
    AxiomService,
    archive::Archiver,
    followers::Followers,
    order::Orders,
    snapshotting::{Asks, Snapshotting},
    tree::{Tree, kept_checkpoint},
};
use crate::{
    core::{Clock, Reading, genesis_entry},
    snapshot::{Snapshots, Writer},
    start::{Started, start},
    store::{
        CommitterThread, HEAD_FILE, SEGMENT_BYTES_DEFAULT, Store, StoreError, StoreOptions, verify_before,
    },
};

/// Folder of the head, outside of the log's own; set where the service runs without its mounts.
const HEAD_VARIABLE: &str = "BAILIWICK_HEAD";
const HEAD_FOLDER: &str = "/head";
/// Genesis as the first `up` wrote it.
const GENESIS_VARIABLE: &str = "BAILIWICK_GENESIS";
const GENESIS_FILE: &str = "/genesis.cbor";
/// Bytes of a segment, for small nodes and tests.
const SEGMENT_VARIABLE: &str = "BAILIWICK_SEGMENT_BYTES";

/// Entries before a snapshot that are verified at once, and not behind the start: some 20 ms.
const VERIFIED_FIRST_MAX: u64 = 20_000;

/// Who signs heads, and the clock that followers are told.
pub(super) struct Identity {
    node_name: String,
    key: SigningKey,
    clock: Mutex<Clock>,
}

impl Identity {
    /// The head as text that somebody keeps elsewhere.
    pub(super) fn sign(&self, head: AxiomRef) -> Result<SignedHead, chain::SignedHeadError> {
        UnsignedHead { name: self.node_name.clone(), head, state: None }.sign(&self.key)
    }

    /// Axiom time now and the boot clock at the same moment.
    pub(super) fn time(&self) -> (AxiomTime, u64) {
        let reading = read_clocks();
        let mut clock = self.clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(ahead_ns) = clock.step_ns(reading) {
            let ahead_s = ahead_ns as f64 / 1e9;
            tracing::warn!(ahead_s, "the wall clock was set; the log's time goes on as before");
        }
        (clock.now(reading), reading.boot_ns)
    }
}

/// Both clocks of the kernel.
pub(super) fn read_clocks() -> Reading {
    let wall = kit::wall_time().duration_since(UNIX_EPOCH).unwrap_or_default();
    Reading { wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX), boot_ns: boot_time_ns() }
}

fn place(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from)
}

/// A disk that refuses today may take writes tomorrow. The end of a start that it made fail is put off by this much, so
/// that starts that fail so never use up what the supervisor allows a core service (3 in 60 s) and the node comes back
/// without help; well below the time allowed for a start.
pub(super) const DISK_PAUSE: Duration = Duration::from_secs(25);

/// True if the disk, not what is on it, made a start fail, and there is a log to come back to.
pub(super) fn may_pass(error: &BoxError) -> bool {
    let failed = match error.downcast_ref::<StoreError>() {
        Some(StoreError::Disk(error) | StoreError::Pool(PoolError::Disk(error))) => error,
        Some(_) => return false,
        None => match error.downcast_ref::<DiskError>() {
            Some(error) => error,
            None => return false,
        },
    };
    let passes = !matches!(failed, DiskError::Locked { .. }) && !failed.is_not_found();
    passes && place(HEAD_VARIABLE, HEAD_FOLDER).join(HEAD_FILE).exists()
}

pub(super) fn open(mut context: InitContext) -> Result<AxiomService, BoxError> {
    let key = context.signing_key()?;
    let disk = RealDisk::open(&context.state_folder)?;
    let head_disk = RealDisk::open(place(HEAD_VARIABLE, HEAD_FOLDER))?;
    let mut salt_seed = [0; 32];
    kit::random::fill(&mut salt_seed)?;
    let mut options = StoreOptions::new(salt_seed);
    options.segment_bytes = segment_bytes()?;
    options.sequencer_key = Some(key.public_key());
    let genesis_file = place(GENESIS_VARIABLE, GENESIS_FILE);
    let node = context.node.clone();
    let kept = kept_checkpoint(&head_disk)?;
    let mut snapshots = Snapshots::new(head_disk.clone());
    let (snapshot, refused) = snapshots.load(&key.public_key());
    for (name, error) in refused {
        tracing::warn!(name, %error, "a snapshot is passed over");
    }
    let Started { opened, mut sequencer, growth, unreadable, resumed } = start(
        || Store { disk: &disk, head_disk: &head_disk, options: options.clone() },
        || genesis_entry(&std::fs::read(&genesis_file).ok()?).ok(),
        kept,
        snapshot,
        context.node.local(),
    )?;
    // A short log is verified whole before anybody is served: that takes no longer than the rest of a start.
    let behind = match &resumed {
        Some((resume, edge)) if resume.tail.last.sequence.0 < VERIFIED_FIRST_MAX => {
            verify_before(&disk, (resume, edge), opened.edge.as_ref(), || {})?;
            None
        }
        other => other.clone(),
    };
    if let Some(sequence) = unreadable {
        return Err(format!("entry {sequence} cannot be read by this build; a newer one wrote it").into());
    }
    let reading = read_clocks();
    let clock = Clock::start(sequencer.last_time(), reading);
    sequencer.start(reading);
    let pinned = sequencer.state().pinned.as_ref().ok_or("the log does not begin with genesis")?;
    let node_name = pinned.node_name.clone();
    let key = key.pinned_as(&pinned.sequencer_key)?;
    let last = opened.reader.last();
    tracing::info!(
        entries = last.sequence.0 + 1,
        read_from = resumed.as_ref().map_or(0, |(resume, _)| resume.tail.last.sequence.0 + 1),
        first_boot = opened.recovery.first_boot,
        torn_tail = opened.recovery.torn_tail.is_some(),
        above_head = opened.recovery.above_head,
        begins_with = opened.reader.begin().point.next_sequence.0,
        removed = opened.recovery.removed,
        "the log is sound"
    );
    if let Some(fault) = &opened.recovery.torn_tail {
        tracing::warn!(%fault, "a write that was never acknowledged was cut off");
    }
    if opened.recovery.edge_dropped {
        tracing::warn!(
            "there was no snapshot to go on from the log's edge, but nothing of what lies before it was taken yet: the log begins with \
             genesis again"
        );
    }
    let (grow, grown) = watch::channel(last.sequence.0);
    let genesis = growth.genesis().ok_or("the log does not begin with genesis")?;
    let writer = Writer::new(
        (disk.clone(), snapshots),
        opened.reader.clone(),
        (node_name.clone(), key.clone()),
        (&mut sequencer, context.node.local()),
        (genesis, resumed.as_ref().map(|(resume, _)| resume)),
    )?;
    let tree =
        Arc::new(Tree::start(growth, &node_name, key.clone(), head_disk.clone(), opened.reader.clone())?);
    tree.keep();
    let committer = CommitterThread::start(opened.committer)?;
    let (asks, asked) = Asks::new();
    if let Some(open) = sequencer.open_archive() {
        // The last process did not come to carry it out, or to say so.
        asks.close(open.clone());
    }
    let orders =
        Orders::start(sequencer, opened.layout, committer, context.node.clone(), grow, asks.clone())?;
    let covered = resumed.as_ref().map(|(resume, _)| resume.tail);
    let followers = Arc::new(Followers::default());
    let archiver = Archiver {
        disk: disk.clone(),
        head_disk,
        edge: opened.edge.clone(),
        reader: opened.reader.clone(),
        followers: Arc::clone(&followers),
        recorder: orders.recorder(),
        key: key.clone(),
        identity: context.identity,
    };
    let adopter = orders.adopter();
    let snapshotting =
        Snapshotting::start(writer, Arc::clone(&tree), covered, (asks, asked), archiver, adopter)?;
    if let Some(before) = behind {
        snapshotting.verify_behind(disk, before, opened.edge)?;
    }
    Ok(AxiomService {
        orders,
        reader: opened.reader,
        followers,
        grown,
        identity: Identity { node_name, key, clock: Mutex::new(clock) },
        tree,
        snapshotting,
        node,
    })
}

fn segment_bytes() -> Result<u64, BoxError> {
    match std::env::var(SEGMENT_VARIABLE) {
        Ok(text) => Ok(text.parse().map_err(|_| format!("{SEGMENT_VARIABLE} is no number: {text:?}"))?),
        Err(_) => Ok(SEGMENT_BYTES_DEFAULT),
    }
}
