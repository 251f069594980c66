//! The log and the policy engine as two processes that can die apart: real cores, real store, simulated disk and bus.

use std::collections::VecDeque;

use axiom::{
    core::{Draft, Limits, Reading, Sequencer, Source, Unit, UnitReply, genesis_entry},
    snapshot::{SnapshotError, Snapshots, Writer},
    start::{Started, start},
    store::{
        Committer, Layout, LogReader, Opened, RANGE_ENTRIES_MAX, Store, StoreError, StoreOptions,
        verify_before,
    },
};
use base::{AxiomRef, AxiomTime, Hash, IdentityId, Sequence, cbor};
use chain::{
    EntryType, merkle,
    payload::Payload,
    tree::{Edge, TreeHash},
};
use ed25519_dalek::SigningKey;
use kit::LocalState;
use policy::core::{Engine, Entry, Item, Outcome, PolicyState, SealedUnit, seal};

use super::cast::Cast;
use crate::disk::SimDisk;

/// Large enough for genesis, small enough for several in one run.
const SEGMENT_BYTES: u64 = 64 * 1024;

/// An entry that is durable, as every follower sees it.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub at: AxiomRef,
    pub entry_type: u32,
    pub time: AxiomTime,
    pub payload: Vec<u8>,
}

impl Logged {
    pub(super) fn decode(&self) -> Option<Payload> {
        Payload::decode(self.entry_type, &self.payload).ok()
    }
}

fn logged(entry: &chain::Entry, hash: Hash) -> Logged {
    Logged {
        at: AxiomRef { sequence: entry.header.sequence, hash },
        entry_type: entry.header.entry_type.code(),
        time: entry.header.timestamp,
        payload: entry.payload.clone(),
    }
}

/// By the number of the unit that it is for.
pub(super) type Reply = (u64, UnitReply);

/// Groups between two snapshots: few, so that each run has some and faults meet them too.
const SNAPSHOT_GROUPS: u64 = 5;

pub(super) struct Axiom {
    sequencer: Sequencer,
    layout: Layout<SimDisk>,
    committer: Committer<SimDisk>,
    reader: LogReader<SimDisk>,
    snapshots: Writer<SimDisk>,
    edge: Edge,
    groups: u64,
}

/// A log that was recovered: what everybody sees from then on.
pub(super) struct Recovered {
    pub axiom: Axiom,
    pub log: Vec<Logged>,
    /// What a start from a snapshot made of it that a whole one does not.
    pub unsound: Option<String>,
    pub from_snapshot: bool,
}

impl Axiom {
    /// Recovers what is durable, from a snapshot where there is one.
    pub(super) fn open(disk: &SimDisk, cast: &Cast, boot_ns: u64) -> Result<Recovered, StoreError> {
        let options = StoreOptions {
            segment_bytes: SEGMENT_BYTES,
            spare_files: 1,
            fill_in_background: false,
            ..StoreOptions::new([7; 32])
        };
        let key = cast.sequencer_key();
        let mut snapshots = Snapshots::new(disk.clone());
        let (snapshot, _) = snapshots.load(&base::PublicKey(key.verifying_key().to_bytes()));
        let gate = LocalState::new();
        let store = || Store { disk, head_disk: disk, options: options.clone() };
        let Started { opened, mut sequencer, growth, resumed, .. } =
            start(store, || genesis_entry(&cast.genesis).ok(), None, snapshot, &gate)?;
        let Opened { layout, committer, reader, .. } = opened;
        let mut whole = Whole::default();
        let mut log = Vec::new();
        while log.len() as u64 <= reader.last().sequence.0 {
            for entry in reader.range(Sequence(log.len() as u64), RANGE_ENTRIES_MAX)? {
                whole.take(&entry);
                log.push(logged(&entry, entry.hash()));
            }
        }
        let mut unsound = None;
        if whole.sequencer.save() != sequencer.save() || whole.gate.to_bytes() != gate.to_bytes() {
            unsound = Some("a start from a snapshot ends in another state".to_owned());
        }
        if let Some((resume, edge)) = &resumed
            && let Err(error) = verify_before(disk, (resume, edge), None, || {})
        {
            unsound = Some(format!("what lies before a snapshot does not hold: {error}"));
        }
        let genesis = growth.genesis().ok_or(StoreError::NotGenesis)?;
        let resume = resumed.as_ref().map(|(resume, _)| resume);
        let snapshots = Writer::new(
            (disk.clone(), snapshots),
            reader.clone(),
            ("node".to_owned(), key),
            (&mut sequencer, &gate),
            (genesis, resume),
        );
        let snapshots = snapshots.map_err(|error| StoreError::NotResumed(error.to_string()))?;
        sequencer.start(reading(boot_ns));
        let (from_snapshot, edge) = (resumed.is_some(), whole.edge);
        let axiom = Self { sequencer, layout, committer, reader, snapshots, edge, groups: 0 };
        Ok(Recovered { axiom, log, unsound, from_snapshot })
    }

    /// As the thread behind the log does it. That it fails is no harm: what is on the disk is found by the next start.
    fn snapshot(&mut self) -> Result<(), SnapshotError> {
        let runs = self.snapshots.write(self.reader.tail(), &self.edge, None)?;
        self.sequencer.adopt_key_runs(runs);
        Ok(())
    }

    pub(super) fn now(&mut self, boot_ns: u64) -> AxiomTime {
        self.sequencer.now(reading(boot_ns))
    }

    /// Orders and writes one group. `early` is told the replies before anything is durable; an error ends the process.
    pub(super) fn append(
        &mut self,
        units: Vec<SealedUnit>,
        boot_ns: u64,
        early: &mut dyn FnMut(&[Reply]),
    ) -> Result<(Vec<Reply>, Vec<Logged>), StoreError> {
        let ids: Vec<u64> = units.iter().map(|unit| unit.id).collect();
        let units = units.into_iter().map(|unit| {
            let drafts = unit.proposals.into_iter().filter_map(|entry| {
                let entry_type = EntryType::from_code(entry.entry_type).ok()?;
                Some(Draft { entry_type, payload: entry.payload })
            });
            Unit { entries: drafts.collect() }
        });
        let limits =
            Limits { body_bytes_max: self.layout.group_body_bytes_max(), reserve_only: false, full: false };
        let batch = self.sequencer.batch(reading(boot_ns), limits, Source::Policy, units.collect());
        let replies: Vec<_> = ids.into_iter().zip(batch.replies).collect();
        early(&replies);
        let landed: Vec<Logged> = batch.entries.iter().map(|(entry, hash)| logged(entry, *hash)).collect();
        let leaves: Vec<TreeHash> =
            batch.entries.iter().map(|(entry, _)| TreeHash::leaf(&entry.leaf())).collect();
        if !batch.entries.is_empty() {
            let bytes =
                batch.entries.iter().map(|(entry, _)| chain::record_bytes(entry.payload.len(), false));
            let _ = self.layout.space(bytes.map(|bytes| bytes as u64).sum());
            let group = self.layout.prepare(batch.entries)?;
            let committed = self.committer.commit(group)?;
            self.layout.recycle(committed.buffer);
            self.groups = self.groups.saturating_add(1);
            leaves.into_iter().for_each(|leaf| self.edge.push(leaf, |_, _| {}));
            if self.groups.is_multiple_of(SNAPSHOT_GROUPS) {
                let _ = self.snapshot();
            }
        }
        Ok((replies, landed))
    }
}

/// What every entry adds up to.
#[derive(Default)]
struct Whole {
    sequencer: Sequencer,
    gate: LocalState,
    edge: Edge,
}

impl Whole {
    fn take(&mut self, entry: &chain::Entry) {
        self.sequencer.replay(&entry.header, &entry.payload, entry.hash());
        let code = entry.header.entry_type.code();
        if let Ok(payload) = Payload::decode(code, &entry.payload)
            && LocalState::folds(code)
        {
            self.gate.apply_payload(entry.header.timestamp, &payload);
        }
        self.edge.push(TreeHash::leaf(&entry.leaf()), |_, _| {});
    }
}

const fn reading(boot_ns: u64) -> Reading {
    Reading { wall_ns: super::cast::START.0, boot_ns }
}

/// Who asks, on which channel, and which of its questions it is.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub client: &'static str,
    pub id: u64,
    pub item: Item,
}

#[derive(Clone, Debug)]
pub(super) enum Answer {
    Committed { decision: Option<AxiomRef>, entry: Option<AxiomRef>, signed: Vec<u8> },
    Denied,
    Refused,
}

struct Flight {
    unit: u64,
    ask: Option<Ask>,
    signed: Vec<u8>,
}

pub(super) struct Policy {
    engine: Engine,
    key: SigningKey,
    own: IdentityId,
    in_flight: VecDeque<Flight>,
    waiting: VecDeque<Ask>,
    /// What was sent to this axiom still stands; a new one must be asked what landed.
    pub connected: bool,
}

pub(super) fn has(log: &[Logged], at: AxiomRef) -> bool {
    log.iter().any(|entry| entry.at == at)
}

/// What a pass of the engine gives.
#[derive(Default)]
pub(super) struct Passed {
    pub units: Vec<SealedUnit>,
    pub answers: Vec<(&'static str, u64, Answer)>,
}

impl Policy {
    /// From what an engine before this one has written down, if the log has the entry that it ends with.
    pub(super) fn start(cast: &Cast, log: &[Logged], saved: Option<&[u8]>, permissive: bool) -> Self {
        let saved = saved.and_then(|saved| PolicyState::restore(saved).ok());
        let is_of = |state: &PolicyState| state.last().is_some_and(|last| has(log, last));
        let mut state = saved.filter(is_of).unwrap_or_default();
        let next = state.position().map_or(Sequence(0), |at| Sequence(at.0 + 1));
        for entry in log.iter().filter(|entry| entry.at.sequence >= next) {
            if let Some(payload) = entry.decode() {
                state.apply_entry(entry.at, &payload, &entry.payload);
            }
        }
        let mut engine = Engine::new(state);
        if permissive {
            engine.allow_everything();
        }
        let (in_flight, waiting) = (VecDeque::new(), VecDeque::new());
        Self {
            engine,
            key: cast.policy_key(),
            own: cast.service("policy"),
            in_flight,
            waiting,
            connected: true,
        }
    }

    /// The channel is new: forget what was sent, learn what landed, ask again what nobody has answered.
    pub(super) fn connect(&mut self, log: &[Logged], folds: bool) {
        self.engine.abandon();
        let next = self.engine.confirmed().position().map_or(Sequence(0), |at| Sequence(at.0 + 1));
        for entry in log.iter().filter(|entry| folds && entry.at.sequence >= next) {
            if let Some(payload) = entry.decode() {
                self.engine.apply_entry(entry.at, &payload, &entry.payload);
            }
        }
        for flight in std::mem::take(&mut self.in_flight).into_iter().rev() {
            if let Some(ask) = flight.ask {
                self.waiting.push_front(ask);
            }
        }
        self.connected = true;
    }

    /// Its state, as it would stand in a snapshot.
    pub(super) fn save(&self) -> Option<Vec<u8>> {
        self.engine.confirmed().save()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.waiting.is_empty()
    }

    pub(super) fn pass(&mut self, asks: Vec<Ask>, now: AxiomTime) -> Passed {
        let mut passed = Passed::default();
        let mut units = Vec::new();
        let waited = std::mem::take(&mut self.waiting);
        for ask in waited.into_iter().chain(asks) {
            match self.engine.propose(ask.client, &ask.item, now) {
                Outcome::Planned(unit) => {
                    self.in_flight.push_back(Flight { unit: unit.id, ask: Some(ask), signed: Vec::new() });
                    units.push(unit);
                }
                Outcome::Wait | Outcome::Busy { .. } => self.waiting.push_back(ask),
                Outcome::Done { decision, entry } => {
                    let answer = Answer::Committed { decision, entry: Some(entry), signed: Vec::new() };
                    passed.answers.push((ask.client, ask.id, answer));
                }
                Outcome::Permitted => passed.answers.push((ask.client, ask.id, Answer::Refused)),
                Outcome::Refused { record, .. } => {
                    passed.answers.push((ask.client, ask.id, Answer::Refused));
                    if let Some(unit) = record {
                        self.in_flight.push_back(Flight { unit: unit.id, ask: None, signed: Vec::new() });
                        units.push(unit);
                    }
                }
            }
        }
        let key = &self.key;
        let sealed = seal(units, self.own, &|root: &Hash| merkle::sign_root(key, root)).unwrap_or_default();
        for unit in &sealed {
            if let Some(flight) = self.in_flight.iter_mut().rev().find(|flight| flight.unit == unit.id) {
                flight.signed.clone_from(&unit.signed_decision);
            }
        }
        passed.units = sealed;
        passed
    }

    /// One result of the log; an error is a contradiction, which ends the real process.
    pub(super) fn settle(
        &mut self,
        unit: u64,
        reply: UnitReply,
    ) -> Result<Option<(&'static str, u64, Answer)>, String> {
        let flight = self.in_flight.pop_front().filter(|flight| flight.unit == unit);
        let flight = flight.ok_or("results came in another order than the units")?;
        let wrong = |error: policy::core::OutOfOrder| error.to_string();
        let settled = match reply {
            UnitReply::Accepted(entries) => Some(self.engine.committed(unit, &entries).map_err(wrong)?),
            UnitReply::Duplicate(entry) => {
                let (settled, again) = self.engine.duplicate(unit, &[entry]).map_err(wrong)?;
                if !again.is_empty() {
                    return Err("a decision that was sent came out otherwise".to_owned());
                }
                Some(settled)
            }
            UnitReply::Rejected(_) => {
                if !self.engine.rejected(unit).map_err(wrong)?.is_empty() {
                    return Err("a decision that was sent came out otherwise".to_owned());
                }
                None
            }
        };
        let Some(ask) = flight.ask else { return Ok(None) };
        let answer = match settled {
            None => Answer::Refused,
            Some(settled) if settled.decision.is_some() && !settled.allowed => Answer::Denied,
            Some(settled) => {
                Answer::Committed { decision: settled.decision, entry: settled.entry, signed: flight.signed }
            }
        };
        Ok(Some((ask.client, ask.id, answer)))
    }
}

/// An entry as its author builds it.
pub(super) fn entry<T: chain::payload::Body>(envelope: &chain::payload::Envelope<T>) -> Entry {
    let payload = envelope.to_bytes().unwrap_or_default();
    Entry { entry_type: T::ENTRY_TYPE, payload }
}

pub(super) fn encoded(request: &chain::payload::policy::PolicyRequest) -> Vec<u8> {
    cbor::encode(request)
}
