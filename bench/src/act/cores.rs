//! The same cores in one thread: engine, one signature for the group, sequencer, store. What is missing is every socket,
//! every other process and every follower, so the distance to the real thing is what these cost.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use axiom::{
    core::{Draft, Limits, Reading, Sequencer, Source, Unit, UnitReply, genesis_entry},
    store::{CommitterThread, Layout, Opened, Store, StoreOptions},
};
use base::{AxiomRef, EntryKey, Hash, IdentityId, Nonce, PublicKey, cbor};
use chain::{
    EntryType, merkle,
    payload::{Envelope, Payload, policy::PolicyContext, policy::PolicyRequest},
};
use durable::RealDisk;
use ed25519_dalek::SigningKey;
use policy::core::{Engine, Item, Outcome, PolicyState, seal};

use super::{
    Contestant, Round,
    load::{Kind, Maker},
};
use crate::site::Operator;

const CHANNEL: &str = "keys";

pub(super) struct Cores {
    maker: Maker,
    engine: Engine,
    key: SigningKey,
    policy: IdentityId,
    sequencer: Sequencer,
    layout: Layout<RealDisk>,
    committer: CommitterThread<RealDisk>,
}

impl Cores {
    /// With the node's identities and rules, and a policy key of its own.
    pub(super) fn new(folder: &Path, operator: &Operator) -> Result<Self> {
        let key = SigningKey::from_bytes(&[7; 32]);
        let mut genesis = operator.genesis.clone();
        genesis.policy_key = PublicKey(key.verifying_key().to_bytes());
        let submitter = genesis.admin;
        let envelope = Envelope { submitter, key: EntryKey([0; 16]), authorization: None, body: genesis };
        let (entry, hash) = genesis_entry(&envelope.to_bytes()?)?;
        let at = AxiomRef { sequence: entry.header.sequence, hash };
        let mut state = PolicyState::default();
        state.apply(at, &Payload::decode(EntryType::Genesis.code(), &entry.payload)?);
        let mut sequencer = Sequencer::new();
        if !sequencer.replay(&entry.header, &entry.payload, hash) {
            bail!("genesis cannot be read");
        }
        sequencer.start(reading());
        std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
        let (disk, head_disk) = (RealDisk::open(folder.join("log"))?, RealDisk::open(folder.join("head"))?);
        let store = Store { disk: &disk, head_disk: &head_disk, options: StoreOptions::new([1; 32]) };
        let Opened { layout, committer, .. } = store.open(|| Some((entry, hash)), |_| {})?;
        Ok(Self {
            maker: Maker::new(Kind::KeyUse, operator)?,
            engine: Engine::new(state),
            key,
            policy: operator.service("policy")?,
            sequencer,
            layout,
            committer: CommitterThread::start(committer)?,
        })
    }

    fn items(&self, count: usize) -> Result<Vec<Item>> {
        let ask = |requestor, action, resource| {
            let context = PolicyContext { service: CHANNEL.to_owned(), ..PolicyContext::default() };
            let nonce = Nonce(kit::authority::random_16()?);
            Ok(PolicyRequest { requestor, action, resource, context, nonce, signature: None })
        };
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            let (request, entry) = self.maker.make(ask)?;
            let entry = policy::core::Entry { entry_type: entry.entry_type, payload: entry.payload };
            items.push(Item::Act { request: cbor::encode(&request), entry });
        }
        Ok(items)
    }

    /// One group, from the request's making to the durable entry and the engine's knowledge of it.
    fn group(&mut self, count: usize) -> Result<()> {
        let items = self.items(count)?;
        let reading = reading();
        let now = self.sequencer.now(reading);
        let mut planned = Vec::with_capacity(count);
        for item in &items {
            match self.engine.propose(CHANNEL, item, now) {
                Outcome::Planned(unit) => planned.push(unit),
                other => bail!("the engine answers an act with {other:?}"),
            }
        }
        let sealed = seal(planned, self.policy, &|root: &Hash| merkle::sign_root(&self.key, root))?;
        let mut ids = Vec::with_capacity(count);
        let mut units = Vec::with_capacity(count);
        for unit in sealed {
            ids.push(unit.id);
            let entries = unit.proposals.into_iter().map(|entry| {
                Ok(Draft { entry_type: EntryType::from_code(entry.entry_type)?, payload: entry.payload })
            });
            units.push(Unit { entries: entries.collect::<Result<_>>()? });
        }
        let body_bytes_max = self.layout.group_body_bytes_max();
        let limits = Limits { body_bytes_max, reserve_only: false, full: false };
        let batch = self.sequencer.batch(reading, limits, Source::Policy, units);
        let bytes = batch
            .entries
            .iter()
            .map(|(entry, _)| chain::record_bytes(entry.payload.len(), false) as u64)
            .sum();
        let _ = self.layout.space(bytes);
        let group = self.layout.prepare(batch.entries)?;
        let committed = self.committer.commit_here(group)?;
        self.layout.recycle(committed.buffer);
        for (id, reply) in ids.into_iter().zip(batch.replies) {
            match reply {
                UnitReply::Accepted(entries) => self.engine.committed(id, &entries).context("the engine")?,
                other => bail!("the sequencer answers an act with {other:?}"),
            };
        }
        Ok(())
    }
}

fn reading() -> Reading {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Reading { wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(0), boot_ns: kit::boot_time_ns() }
}

impl Contestant for Cores {
    fn name(&self) -> String {
        "the same cores in one thread, no sockets".to_owned()
    }

    fn is_ours(&self) -> bool {
        false
    }

    fn round(&mut self, in_flight: usize, time: Duration) -> Result<Round> {
        let mut round = Round::default();
        let start = Instant::now();
        while start.elapsed() < time {
            let since = Instant::now();
            self.group(in_flight)?;
            round.acts += in_flight as u64;
            round.latencies_us.push(since.elapsed().as_secs_f64() * 1e6);
        }
        round.took = start.elapsed();
        Ok(round)
    }
}
