//! The sequencer's core in one thread, as the service runs it between its sockets: with its checks, and the store alone.

use std::{
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use axiom::{
    core::{Draft, Limits, Reading, Sequencer, Source, Unit, UnitReply, genesis_entry},
    store::{Committed, CommitterThread, Layout, Opened, PreparedGroup, Space, StoreError, StoreOptions},
};
use base::{AxiomRef, AxiomTime, EntryKey, Hash, IdentityId, PublicKey};
use chain::{
    ChainPoint, Entry, EntryType,
    genesis::{self, GenesisPlan},
    payload::Envelope,
};
use durable::RealDisk;

use super::{FRAMING_BYTES, PAYLOAD_BYTES, PIPELINED_FROM, Subject, payload, receipt};

/// Units that are made before the clock runs; more would only fill the memory.
const PREPARED_MAX: usize = 400_000;
/// Guess of the first round, per second.
const RATE_FIRST: f64 = 5_000.0;

/// Entries that follow `point`, hashed as the sequencer does.
pub(super) fn entries(point: ChainPoint, count: usize) -> Result<(Vec<(Entry, Hash)>, ChainPoint)> {
    let mut point = point;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let sequence = point.next_sequence;
        let payload = payload(sequence.0);
        let (entry, hash) =
            Entry::next(sequence, point.last_hash, AxiomTime(sequence.0), EntryType::Receipt, payload)?;
        point = ChainPoint::after(AxiomRef { sequence, hash });
        entries.push((entry, hash));
    }
    Ok((entries, point))
}

/// A log on the disk and the thread that writes it.
struct Log {
    layout: Layout<RealDisk>,
    committer: CommitterThread<RealDisk>,
    done: mpsc::Receiver<Result<Committed, StoreError>>,
    sender: mpsc::Sender<Result<Committed, StoreError>>,
    under_way: usize,
}

impl Log {
    fn open(folder: &Path, genesis: &(Entry, Hash)) -> Result<Self> {
        std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
        let (disk, head_disk) = (RealDisk::open(folder.join("log"))?, RealDisk::open(folder.join("head"))?);
        let options = StoreOptions::new([1; 32]);
        let store = axiom::store::Store { disk: &disk, head_disk: &head_disk, options };
        let Opened { layout, committer, .. } = store.open(|| Some(genesis.clone()), |_| {})?;
        let (sender, done) = mpsc::channel();
        Ok(Self { layout, committer: CommitterThread::start(committer)?, done, sender, under_way: 0 })
    }

    fn prepare(&mut self, entries: Vec<(Entry, Hash)>) -> Result<PreparedGroup<RealDisk>> {
        if self.layout.space((entries.len() * (PAYLOAD_BYTES + FRAMING_BYTES)) as u64) == Space::Full {
            return Err(StoreError::Full.into());
        }
        Ok(self.layout.prepare(entries)?)
    }

    fn commit_here(&mut self, entries: Vec<(Entry, Hash)>) -> Result<()> {
        let group = self.prepare(entries)?;
        let committed = self.committer.commit_here(group)?;
        self.layout.recycle(committed.buffer);
        Ok(())
    }

    /// Hands a group over, then waits until no more than one is on its way.
    fn submit(&mut self, entries: Vec<(Entry, Hash)>) -> Result<()> {
        let group = self.prepare(entries)?;
        let sender = self.sender.clone();
        self.under_way += 1;
        self.committer.submit(group, move |result| {
            // The receiver lives as long as the subject.
            let _ = sender.send(result);
        });
        self.settle(1)
    }

    fn settle(&mut self, leave: usize) -> Result<()> {
        while self.under_way > leave {
            let committed = self.done.recv().context("the committer has ended")??;
            self.layout.recycle(committed.buffer);
            self.under_way -= 1;
        }
        Ok(())
    }
}

fn genesis() -> Result<(Entry, Hash)> {
    genesis_of(PublicKey([1; 32]), PublicKey([1; 32]))
}

/// The first entry of a log with these keys of the sequencer and of the policy engine.
pub(crate) fn genesis_of(sequencer_key: PublicKey, policy_key: PublicKey) -> Result<(Entry, Hash)> {
    let key = PublicKey([1; 32]);
    let plan = GenesisPlan {
        image_hash: Hash::ZERO,
        genesis_time: AxiomTime(1),
        node_name: "bench".to_owned(),
        node_key: key,
        sequencer_key,
        policy_key,
        identity_key: key,
        admin_uid: 0,
        rules: Vec::new(),
        initial_capabilities: Vec::new(),
    };
    let genesis = genesis::build(plan, |path| Some(PublicKey(Hash::of(path.to_string().as_bytes()).0)))?;
    let submitter = genesis.admin;
    let envelope = Envelope { submitter, key: EntryKey([0; 16]), authorization: None, body: genesis };
    Ok(genesis_entry(&envelope.to_bytes()?)?)
}

/// The store as the sequencer uses it, with head, index and readers.
pub(super) struct Store(Log);

impl Store {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        Ok(Self(Log::open(folder, &genesis()?)?))
    }
}

impl Subject for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn run(&mut self, in_flight: usize, time: Duration) -> Result<(u64, Duration)> {
        let is_pipelined = in_flight >= PIPELINED_FROM;
        let count = if is_pipelined { in_flight / 2 } else { in_flight };
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < time {
            let (entries, _) = entries(self.0.layout.point(), count)?;
            if is_pipelined {
                self.0.submit(entries)?
            } else {
                self.0.commit_here(entries)?
            }
            done += count as u64;
        }
        self.0.settle(0)?;
        Ok((done, start.elapsed()))
    }
}

/// Sequencer and store: every check that the service makes of a record, in the order of the service.
pub(super) struct Checked {
    log: Log,
    sequencer: Sequencer,
    submitter: IdentityId,
    next_key: u64,
    /// Of the round before, entries a second.
    rate: f64,
}

impl Checked {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let genesis = genesis()?;
        let log = Log::open(folder, &genesis)?;
        let mut sequencer = Sequencer::new();
        if !sequencer.replay(&genesis.0.header, &genesis.0.payload, genesis.1) {
            bail!("genesis cannot be read");
        }
        sequencer.start(reading());
        Ok(Self { log, sequencer, submitter: IdentityId([2; 32]), next_key: 1, rate: RATE_FIRST })
    }

    /// What a channel would bring: made before the clock runs.
    fn units(&mut self, count: usize) -> Result<Vec<Unit>> {
        let mut units = Vec::with_capacity(count);
        for _ in 0..count {
            let payload = receipt(self.submitter, self.next_key)?;
            self.next_key += 1;
            units.push(Unit { entries: vec![Draft { entry_type: EntryType::Receipt, payload }] });
        }
        Ok(units)
    }

    fn order(&mut self, units: Vec<Unit>) -> Result<Vec<(Entry, Hash)>> {
        let limits = Limits {
            body_bytes_max: self.log.layout.group_body_bytes_max(),
            reserve_only: false,
            full: false,
        };
        let batch = self.sequencer.batch(reading(), limits, Source::Policy, units);
        match batch.replies.iter().find(|reply| !matches!(reply, UnitReply::Accepted(_))) {
            Some(reply) => bail!("the sequencer refuses a receipt: {reply:?}"),
            None => Ok(batch.entries),
        }
    }
}

fn reading() -> Reading {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Reading { wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(0), boot_ns: kit::boot_time_ns() }
}

impl Subject for Checked {
    fn name(&self) -> &'static str {
        "sequencer"
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn run(&mut self, in_flight: usize, time: Duration) -> Result<(u64, Duration)> {
        let is_pipelined = in_flight >= PIPELINED_FROM;
        let count = if is_pipelined { in_flight / 2 } else { in_flight };
        let wanted = ((self.rate * time.as_secs_f64()) as usize).clamp(count * 4, PREPARED_MAX);
        let mut groups = Vec::with_capacity(wanted / count + 1);
        for _ in 0..wanted.div_ceil(count) {
            groups.push(self.units(count)?);
        }
        let done = (groups.len() * count) as u64;
        let start = Instant::now();
        for units in groups {
            let entries = self.order(units)?;
            if is_pipelined { self.log.submit(entries)? } else { self.log.commit_here(entries)? }
        }
        self.log.settle(0)?;
        let took = start.elapsed();
        self.rate = done as f64 / took.as_secs_f64();
        Ok((done, took))
    }
}
