//! The one task that owns the engine: items in, units out, results in, replies out; in passes, so that one signature
//! and one message serve whatever waits.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base::{AxiomRef, AxiomTime, Hash, Sequence, limits::MESSAGE_BYTES_MAX};
use chain::{merkle, payload::policy::PolicyRequest};
use contracts::{
    axiom::v1::{
        AppendBatch, AppendResults, Proposal, Rejection, Unit as WireUnit, UnitResult,
        append_client::AppendClient,
    },
    policy::v1 as wire,
};
use ed25519_dalek::SigningKey;
use kit::{BoxError, HandedKey, LocalState, Node, snapshot::Snapshots};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{log, saved};
use crate::core::{
    Engine, Entry, Item, Outcome, PolicyState, SealedUnit, Unit, authority::identity_of, later_by, seal,
    withdraws,
};

/// Messages of items that wait for the engine from all channels together; beyond it a channel reads no further. Each has
/// at most `BATCH_ITEMS_MAX` items and two megabytes.
const MESSAGES_QUEUED_MAX: usize = 64;
/// Items of one pass, so of one signature and at most one message to the log. The last message that fits is taken whole,
/// so that what a caller sent together is decided, signed and recorded together.
const PASS_ITEMS_MAX: usize = 512;
/// Items that wait for a result, because they depend on what is in flight.
const WAITING_MAX: usize = 4096;
/// Bytes of one message to the log; a unit is at most two payloads.
const BATCH_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Units of one message, as the contract says.
const BATCH_UNITS_MAX: usize = 1024;
/// Messages to the log that are not sent yet.
const BATCHES_QUEUED_MAX: usize = 64;
/// Pause before the append channel is opened again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Denials that were only counted become entries this often.
const TICK: Duration = Duration::from_secs(1);
/// What a caller is told to wait when too much waits already.
const RETRY_AFTER_MS: u32 = 5;

/// Where replies to a channel go, those of one pass together. Bounded by what a channel may have in flight.
pub(super) type Replies = mpsc::UnboundedSender<Vec<wire::AuthorityReply>>;

/// One item, who sent it, and where its answer goes.
pub(super) struct Asked {
    pub(super) channel: Arc<str>,
    pub(super) id: u64,
    pub(super) item: Item,
    pub(super) replies: Replies,
}

/// Replies of one pass, handed over when it ends: one wake-up and one message for each channel, not for each reply.
#[derive(Default)]
struct Outbox(Vec<(Replies, Vec<wire::AuthorityReply>)>);

impl Outbox {
    fn put(&mut self, asked: &Asked, result: wire::authority_reply::Result) {
        let reply = wire::AuthorityReply { id: asked.id, result: Some(result) };
        // There are as many as services that act: a handful.
        match self.0.iter_mut().find(|(replies, _)| replies.same_channel(&asked.replies)) {
            Some((_, together)) => together.push(reply),
            None => self.0.push((asked.replies.clone(), vec![reply])),
        }
    }

    fn refuse(&mut self, asked: &Asked, reason: &str, text: &str) {
        let refused = wire::Refused { reason: reason.to_owned(), text: text.to_owned() };
        self.put(asked, wire::authority_reply::Result::Refused(refused));
    }

    fn busy(&mut self, asked: &Asked, retry_after_ms: u32) {
        self.put(asked, wire::authority_reply::Result::BusyRetryAfterMs(retry_after_ms));
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        for (replies, together) in self.0.drain(..) {
            // A channel that has gone asks again on its next connection.
            let _ = replies.send(together);
        }
    }
}

struct Waiter {
    unit: u64,
    asked: Option<Asked>,
    signed_decision: Vec<u8>,
    /// What is decided from then on can come out otherwise.
    changes: bool,
}

impl Waiter {
    fn of(unit: &Unit, asked: Option<Asked>) -> Self {
        let changes = unit.entry.as_ref().is_some_and(|entry| LocalState::folds(entry.entry_type));
        Self { unit: unit.id, asked, signed_decision: Vec::new(), changes }
    }
}

/// What handlers may look at.
struct Shared {
    engine: Mutex<Engine>,
    connected: AtomicBool,
    /// The last denial on record, for `why last`.
    last_denial: Mutex<Option<Sequence>>,
}

/// The way to the engine.
#[derive(Clone)]
pub(super) struct Desk {
    queue: mpsc::Sender<Vec<Asked>>,
    shared: Arc<Shared>,
}

impl Desk {
    /// Folds the log from where the last process has written down its state, compares the key with the one that genesis pins, opens the append channel, starts the task.
    pub(super) async fn start(
        node: Node,
        key: HandedKey,
        snapshots: Option<&Snapshots>,
    ) -> Result<Self, BoxError> {
        let (mut state, mut last_denial) = saved::begin(&node, snapshots).await?;
        log::read_from(&node, after(&state), |entry| {
            note_denial(&mut last_denial, &entry);
            state.apply_entry(entry.at, &entry.payload, &entry.bytes);
        })
        .await?;
        let pinned = state.pinned().ok_or("the log does not begin with genesis")?;
        let key = key.pinned_as(&pinned.policy_key)?;
        tracing::info!(up_to = ?state.position(), rules = state.rules().len(), "the log is folded");
        let mut engine = Engine::new(state);
        if kit::is_broken("policy") {
            engine.allow_everything();
        }
        let (queue, asked) = mpsc::channel(MESSAGES_QUEUED_MAX);
        let shared = Arc::new(Shared {
            engine: Mutex::new(engine),
            connected: AtomicBool::new(false),
            last_denial: Mutex::new(last_denial),
        });
        let task = Task {
            node,
            key,
            shared: Arc::clone(&shared),
            asked,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            decided_by: Sequence(0),
            batches: None,
        };
        tokio::spawn(task.run());
        Ok(Self { queue, shared })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Acquire)
    }

    /// Waits while the engine has too much to do, which in turn holds up the channel's sender.
    pub(super) async fn ask(&self, together: Vec<Asked>) {
        // The task ends only with the process.
        let _ = self.queue.send(together).await;
    }

    /// The engine between two passes.
    pub(super) fn engine(&self) -> MutexGuard<'_, Engine> {
        self.shared.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in the log, as bytes; the engine is held only while it hands out its parts, which are shared.
    pub(super) fn save(&self) -> Vec<u8> {
        let state = self.engine().confirmed().clone();
        saved::save(&state, self.last_denial())
    }

    pub(super) fn last_denial(&self) -> Option<Sequence> {
        *self.shared.last_denial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first sequence that is not folded.
fn after(state: &PolicyState) -> Sequence {
    state.position().map_or(Sequence(0), |at| Sequence(at.0.saturating_add(1)))
}

fn note_denial(last: &mut Option<Sequence>, entry: &log::Logged) {
    if let chain::payload::Payload::PolicyDecision(decision) = &entry.payload
        && decision.body.decode_body().is_ok_and(|body| !body.allows())
    {
        *last = Some(entry.at.sequence);
    }
}

struct Task {
    node: Node,
    key: SigningKey,
    shared: Arc<Shared>,
    asked: mpsc::Receiver<Vec<Asked>>,
    /// Depend on what is in flight.
    waiting: VecDeque<Asked>,
    /// Units sent and not answered, in the order in which they were sent.
    in_flight: VecDeque<Waiter>,
    /// Of the last entry that changed what is decided by.
    decided_by: Sequence,
    batches: Option<mpsc::Sender<AppendBatch>>,
}

/// Why the channel to the log was given up.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the append channel ended: {0}")]
    Channel(#[from] Status),
    #[error("the append channel ended")]
    Ended,
    #[error("the log cannot be read: {0}")]
    Log(BoxError),
}

impl Task {
    async fn run(mut self) {
        loop {
            let lost = match self.connect().await {
                Ok(results) => {
                    self.shared.connected.store(true, Ordering::Release);
                    self.serve(results).await
                }
                Err(lost) => lost,
            };
            self.shared.connected.store(false, Ordering::Release);
            self.batches = None;
            tracing::warn!(error = %lost, in_flight = self.in_flight.len(), "axiom is not there");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Opens the channel, learns what landed, and asks again what was in flight: the log knows the keys.
    async fn connect(&mut self) -> Result<Streaming<AppendResults>, Lost> {
        let (batches, outgoing) = mpsc::channel(BATCHES_QUEUED_MAX);
        let peer = self.node.peer("append");
        let mut client = AppendClient::new(peer.channel()).max_decoding_message_size(4 * MESSAGE_BYTES_MAX);
        let mut results = client.channel(ReceiverStream::new(outgoing)).await?.into_inner();
        // Axiom's first message has its head: from here on only this channel adds decisions.
        results.message().await?.ok_or(Lost::Ended)?;
        self.engine().abandon();
        let next = after(self.engine().confirmed());
        let shared = Arc::clone(&self.shared);
        log::read_from(&self.node, next, |entry| {
            let mut last = shared.last_denial.lock().unwrap_or_else(PoisonError::into_inner);
            note_denial(&mut last, &entry);
            let mut engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
            engine.apply_entry(entry.at, &entry.payload, &entry.bytes);
        })
        .await
        .map_err(Lost::Log)?;
        // What was read can have changed it, and what comes after it is seen here.
        let position = self.engine().confirmed().position();
        self.decided_by = position.unwrap_or(Sequence(0));
        self.batches = Some(batches);
        let again: Vec<Asked> = self.in_flight.drain(..).filter_map(|waiter| waiter.asked).collect();
        for asked in again.into_iter().rev() {
            self.waiting.push_front(asked);
        }
        Ok(results)
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.shared.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&mut self, mut results: Streaming<AppendResults>) -> Lost {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut items = Vec::with_capacity(PASS_ITEMS_MAX);
        let mut units = self.propose(&mut items);
        loop {
            if let Err(lost) = self.send(units).await {
                return lost;
            }
            // An idle node is not woken for what nobody was refused.
            let counting = self.engine().counts_denials();
            units = tokio::select! {
                message = results.message() => match message {
                    Ok(Some(message)) => match self.settle(message) {
                        Ok(()) => self.propose(&mut items),
                        Err(lost) => return lost,
                    },
                    Ok(None) => return Lost::Ended,
                    Err(status) => return status.into(),
                },
                received = self.asked.recv() => match received {
                    Some(together) => {
                        items.extend(together);
                        self.take_waiting(&mut items);
                        self.propose(&mut items)
                    }
                    // The service has ended; nobody asks any more.
                    None => std::future::pending().await,
                },
                _ = tick.tick(), if counting => self.counted_denials(),
            };
        }
    }

    /// What has come meanwhile goes into the same pass.
    fn take_waiting(&mut self, items: &mut Vec<Asked>) {
        while items.len() < PASS_ITEMS_MAX
            && let Ok(together) = self.asked.try_recv()
        {
            items.extend(together);
        }
    }

    /// Offers what waits, then what is new, in order; answers at once what needs no entry.
    fn propose(&mut self, items: &mut Vec<Asked>) -> Vec<Unit> {
        let now = self.node.clock().now();
        let shared = Arc::clone(&self.shared);
        let mut engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let mut units = Vec::new();
        let mut outbox = Outbox::default();
        let waited: Vec<Asked> = self.waiting.drain(..).collect();
        for asked in waited.into_iter().chain(items.drain(..)) {
            let Some(now) = now else {
                outbox.refuse(
                    &asked,
                    "AxiomUnavailable",
                    "the log has not been heard for 5 s; nothing can be decided",
                );
                continue;
            };
            match engine.propose(&asked.channel, &asked.item, now) {
                Outcome::Planned(unit) => {
                    self.in_flight.push_back(Waiter::of(&unit, Some(asked)));
                    units.push(unit);
                }
                Outcome::Wait if self.waiting.len() < WAITING_MAX => self.waiting.push_back(asked),
                Outcome::Wait => outbox.busy(&asked, RETRY_AFTER_MS),
                Outcome::Busy { retry_after_ms } => outbox.busy(&asked, retry_after_ms),
                Outcome::Permitted => {
                    outbox.put(&asked, wire::authority_reply::Result::Permitted(wire::Permitted {}));
                }
                Outcome::Done { decision, entry } => {
                    let committed = wire::Committed {
                        decision: decision.map(Into::into),
                        entry: Some(entry.into()),
                        duplicate: true,
                        timestamp_ns: now.0,
                        ..wire::Committed::default()
                    };
                    self.committed(&asked, committed, &mut outbox);
                }
                Outcome::Refused { refusal, record } => {
                    outbox.refuse(&asked, refusal.reason(), &refusal.to_string());
                    if let Some(unit) = record {
                        self.in_flight.push_back(Waiter::of(&unit, None));
                        units.push(unit);
                    }
                }
            }
        }
        units
    }

    /// Denials that were only counted; nobody waits for their entries.
    fn counted_denials(&mut self) -> Vec<Unit> {
        let units = self.node.clock().now().map(|now| self.engine().tick(now)).unwrap_or_default();
        let waiters = units.iter().map(|unit| Waiter::of(unit, None));
        self.in_flight.extend(waiters);
        units
    }

    /// Signs once, sends in messages of bounded size.
    async fn send(&mut self, units: Vec<Unit>) -> Result<(), Lost> {
        if units.is_empty() {
            return Ok(());
        }
        let sealed = self.seal(units)?;
        let mut batch = AppendBatch::default();
        let mut bytes = 0;
        for unit in sealed {
            let unit_bytes: usize = unit.proposals.iter().map(|entry| entry.payload.len()).sum();
            if batch.units.len() >= BATCH_UNITS_MAX || bytes + unit_bytes > BATCH_BYTES_MAX {
                self.hand(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            bytes += unit_bytes;
            batch.units.push(self.wire_unit(unit));
        }
        self.hand(batch).await
    }

    fn seal(&self, units: Vec<Unit>) -> Result<Vec<SealedUnit>, Lost> {
        let own = identity_of(self.engine().confirmed(), "policy").map(|own| own.id);
        let own = own.ok_or_else(|| Lost::Log("genesis names no identity for policy".into()))?;
        seal(units, own, &|root: &Hash| merkle::sign_root(&self.key, root))
            .map_err(|error| Lost::Log(error.into()))
    }

    fn wire_unit(&mut self, unit: SealedUnit) -> WireUnit {
        // Units are sent in the order of their waiters, so the search ends soon.
        if let Some(waiter) = self.in_flight.iter_mut().rev().find(|waiter| waiter.unit == unit.id) {
            waiter.signed_decision = unit.signed_decision;
        }
        let proposals = unit.proposals.into_iter();
        let proposals =
            proposals.map(|Entry { entry_type, payload }| Proposal { entry_type, payload }).collect();
        WireUnit { id: unit.id, proposals }
    }

    async fn hand(&self, batch: AppendBatch) -> Result<(), Lost> {
        match &self.batches {
            Some(batches) => batches.send(batch).await.map_err(|_| Lost::Ended),
            None => Err(Lost::Ended),
        }
    }

    /// Results come in the order of the units.
    fn settle(&mut self, message: AppendResults) -> Result<(), Lost> {
        let shared = Arc::clone(&self.shared);
        let mut engine = shared.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outbox = Outbox::default();
        for result in message.results {
            let waiter = match self.in_flight.pop_front() {
                Some(waiter) if waiter.unit == result.id => waiter,
                _ => stop("results came in another order than the units"),
            };
            let entries = result.accepted.iter().map(AxiomRef::try_from).collect::<Result<Vec<_>, _>>();
            let entries = entries.map_err(|error| Lost::Log(error.into()))?;
            let (settled, again) = if entries.is_empty() {
                (None, engine.rejected(result.id).unwrap_or_else(|error| stop(&error.to_string())))
            } else if result.duplicate {
                match engine.duplicate(result.id, &entries) {
                    Ok((settled, again)) => (Some(settled), again),
                    Err(error) => stop(&error.to_string()),
                }
            } else {
                match engine.committed(result.id, &entries) {
                    Ok(settled) => (Some(settled), Vec::new()),
                    Err(error) => stop(&error.to_string()),
                }
            };
            if !again.is_empty() {
                // What depends on a unit waits for its result, so nothing can come out otherwise.
                stop("a decision that was sent came out otherwise without a unit before it");
            }
            if let Some(last) = entries.last().filter(|_| waiter.changes) {
                self.decided_by = self.decided_by.max(last.sequence);
            }
            self.answer(&mut engine, waiter, &result, settled, &mut outbox);
        }
        Ok(())
    }

    fn answer(
        &mut self,
        engine: &mut Engine,
        waiter: Waiter,
        result: &UnitResult,
        settled: Option<crate::core::Settled>,
        outbox: &mut Outbox,
    ) {
        let Some(settled) = settled else {
            if let Some(asked) = &waiter.asked {
                self.rejected(engine, asked, result, outbox);
            }
            return;
        };
        if !settled.allowed
            && let Some(decision) = settled.decision
        {
            *self.shared.last_denial.lock().unwrap_or_else(PoisonError::into_inner) = Some(decision.sequence);
        }
        let Some(asked) = &waiter.asked else { return };
        match settled.decision {
            Some(decision) if !settled.allowed => {
                let later_by = later_of(engine, &asked.item, AxiomTime(result.timestamp_ns));
                let denied = wire::Denied { decision: Some(decision.into()), later_by };
                outbox.put(asked, wire::authority_reply::Result::Denied(denied));
            }
            _ => {
                let committed = wire::Committed {
                    decision: settled.decision.map(Into::into),
                    entry: settled.entry.map(Into::into),
                    signed_decision: waiter.signed_decision,
                    duplicate: result.duplicate,
                    timestamp_ns: result.timestamp_ns,
                    laggards: Vec::new(),
                    decided_by: Some(self.decided_by.0),
                };
                self.committed(asked, committed, outbox);
            }
        }
    }

    /// What takes something away is answered when everybody has taken notice, or with who has not.
    fn committed(&self, asked: &Asked, mut committed: wire::Committed, outbox: &mut Outbox) {
        let withdrawn = match &asked.item {
            Item::Act { entry, .. }
            | Item::ActBy { entry, .. }
            | Item::Redeem { entry, .. }
            | Item::Record { entry } => withdraws(entry),
            Item::Evaluate { .. } | Item::Preflight { .. } | Item::UseNow { .. } => false,
        };
        let at = committed.entry.as_ref().map(|at| Sequence(at.sequence)).filter(|_| withdrawn);
        let Some(at) = at else {
            return outbox.put(asked, wire::authority_reply::Result::Committed(committed));
        };
        // As many as the channels have room for in flight; others are decided and answered meanwhile.
        let (node, replies, id) = (self.node.clone(), asked.replies.clone(), asked.id);
        tokio::spawn(async move {
            committed.laggards = log::laggards(&node, at).await;
            let result = Some(wire::authority_reply::Result::Committed(committed));
            // A channel that has gone asks again on its next connection.
            let _ = replies.send(vec![wire::AuthorityReply { id, result }]);
        });
    }

    /// The log said no. A request that was decided before a connection broke has its decision there already.
    fn rejected(&self, engine: &Engine, asked: &Asked, result: &UnitResult, outbox: &mut Outbox) {
        if result.rejected() == Rejection::Backpressure {
            return outbox.busy(asked, RETRY_AFTER_MS);
        }
        let decided = match &asked.item {
            Item::Evaluate { request } if result.rejected() == Rejection::DuplicateNonce => {
                let hash = base::cbor::decode::<PolicyRequest>(request).ok().map(|request| request.hash());
                hash.and_then(|hash| engine.confirmed().recent().get(&hash)?.decision)
            }
            _ => None,
        };
        match decided {
            Some(decision) => {
                let (node, replies, id) = (self.node.clone(), asked.replies.clone(), asked.id);
                tokio::spawn(async move { answer_from_log(&node, decision, id, &replies).await });
            }
            None => outbox.refuse(asked, reason_name(result.rejected()), &result.text),
        }
    }
}

/// Who does something at once is told whether it was denied for good.
fn later_of(engine: &Engine, item: &Item, now: AxiomTime) -> Option<String> {
    let Item::UseNow { request } = item else { return None };
    let request = base::cbor::decode::<PolicyRequest>(request).ok()?;
    later_by(engine.confirmed(), &request, now).map(|rule| rule.to_string())
}

/// Answers with a decision that stands in the log.
async fn answer_from_log(node: &Node, decision: AxiomRef, id: u64, replies: &Replies) {
    let signed = match log::read(node, decision.sequence).await {
        Ok(Some(log::Logged { payload: chain::payload::Payload::PolicyDecision(entry), .. })) => {
            base::cbor::encode(&entry.body)
        }
        _ => Vec::new(),
    };
    let result = match signed.is_empty() {
        true => wire::authority_reply::Result::Refused(wire::Refused {
            reason: "AxiomUnavailable".to_owned(),
            text: format!("the decision {decision} cannot be read"),
        }),
        false => wire::authority_reply::Result::Committed(wire::Committed {
            decision: Some(decision.into()),
            signed_decision: signed,
            duplicate: true,
            ..wire::Committed::default()
        }),
    };
    let _ = replies.send(vec![wire::AuthorityReply { id, result: Some(result) }]);
}

const fn reason_name(rejection: Rejection) -> &'static str {
    match rejection {
        Rejection::None => "Internal",
        Rejection::InvalidPayload => "InvalidPayload",
        Rejection::MissingPolicyDecision => "MissingPolicyDecision",
        Rejection::PolicyMismatch => "PolicyMismatch",
        Rejection::PolicyDecisionExpired => "PolicyDecisionExpired",
        Rejection::InvalidPolicySignature => "InvalidPolicySignature",
        Rejection::ResourceNotFound => "ResourceNotFound",
        Rejection::DuplicateNonce => "DuplicateNonce",
        Rejection::Backpressure => "Backpressure",
    }
}

/// Engine and log disagree: what this process remembers is worth nothing. The next one folds the log.
fn stop(why: &str) -> ! {
    tracing::error!(why, "the engine stops; the next one folds the log");
    std::process::exit(70)
}
