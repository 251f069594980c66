//! Who asks: the operator, `keys` with its real core, a launcher of programs, and `capability_service`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{AxiomRef, AxiomTime, Hash, ProcessId, PublicKey, Signature, cbor};
use chain::payload::{Payload, policy::SignedDecision};
use keys::core::{
    Answer as BoundaryAnswer, BoundaryRequest, Effect, Event, KeysCore, NotRecorded, Operation, Output,
    RequestId, UseRequest, VerifyingKey,
};
use policy::core::Item;

use super::{
    Defect,
    cast::{Cast, NOWHERE},
    node::{Answer, Ask, Logged},
};
use crate::random::Random;

const OPERATOR: &str = "policy";
const KEYS: &str = "keys";
const LAUNCHER: &str = "process_manager";
const CAPABILITIES: &str = "capability_service";

/// What a question was about.
#[derive(Clone, Debug)]
enum About {
    Grant(u64),
    MaySign(Hash),
    Rule,
    Launch(ProcessId),
    Ended,
    Recorded(RequestId),
}

/// Asked and not answered. Asked again, in order and with the same keys, when the channel breaks.
#[derive(Default)]
struct Waiting(BTreeMap<u64, (&'static str, Item, About)>);

/// A signature as it was handed out.
struct Released {
    request: Hash,
    receipt: AxiomRef,
}

pub(super) struct Clients<'c> {
    cast: &'c Cast,
    defect: Defect,
    waiting: Waiting,
    next_id: u64,
    next_thing: u64,
    asked: Vec<Ask>,
    /// What contradicts the promises at once.
    pub fault: Option<String>,
    acknowledged: Vec<AxiomRef>,
    forbids: bool,
    // keys
    core: KeysCore,
    keys_next: usize,
    /// What a process of `keys` has written down of its fold, and the entry that this ends with.
    keys_saved: Option<(AxiomRef, Vec<u8>)>,
    boundary: VecDeque<(RequestId, BoundaryRequest)>,
    next_use: u64,
    /// Decisions that the operator holds, to be used once; some are shown twice.
    decisions: Vec<(Hash, SignedDecision)>,
    uses: BTreeMap<RequestId, Hash>,
    released: Vec<Released>,
    // launcher
    launcher_next: usize,
    running: BTreeSet<ProcessId>,
    started: Vec<ProcessId>,
}

impl<'c> Clients<'c> {
    pub(super) fn new(cast: &'c Cast, defect: Defect) -> Self {
        Self {
            cast,
            defect,
            waiting: Waiting::default(),
            next_id: 1,
            next_thing: 1,
            asked: Vec::new(),
            fault: None,
            acknowledged: Vec::new(),
            forbids: false,
            core: KeysCore::new(),
            keys_next: 0,
            keys_saved: None,
            boundary: VecDeque::new(),
            next_use: 1,
            decisions: Vec::new(),
            uses: BTreeMap::new(),
            released: Vec::new(),
            launcher_next: 0,
            running: BTreeSet::new(),
            started: Vec::new(),
        }
    }

    fn ask(&mut self, client: &'static str, item: Item, about: About) {
        let id = self.next_id;
        self.next_id += 1;
        self.asked.push(Ask { client, id, item: item.clone() });
        self.waiting.0.insert(id, (client, item, about));
    }

    pub(super) fn take_asked(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.asked)
    }

    /// Something new.
    pub(super) fn begin(&mut self, random: &mut Random) {
        let n = self.next_thing;
        self.next_thing += 1;
        match random.below(8) {
            0..3 => {
                let item = self.cast.grant(random, n);
                self.ask(CAPABILITIES, item, About::Grant(n));
            }
            3..5 => {
                let message = Hash::of(&n.to_le_bytes());
                let item = self.cast.may_sign(random, message);
                self.ask(OPERATOR, item, About::MaySign(message));
            }
            5..7 => {
                let pid = ProcessId(n);
                let item = self.cast.launch(random, pid);
                if self.defect == Defect::EffectBeforeCommit {
                    self.start(pid, &[]);
                }
                self.ask(LAUNCHER, item, About::Launch(pid));
            }
            _ if random.coin() => {
                let item = self.cast.toggle(random, !self.forbids);
                self.ask(OPERATOR, item, About::Rule);
            }
            _ => {
                let ended = self.running.pop_first();
                ended.into_iter().for_each(|pid| self.end(pid, random));
            }
        }
    }

    fn end(&mut self, pid: ProcessId, random: &mut Random) {
        let item = self.cast.ended(random, pid);
        self.ask(LAUNCHER, item, About::Ended);
    }

    /// Carries out a launch: never without its entry, never twice.
    fn start(&mut self, pid: ProcessId, log: &[Logged]) {
        let recorded = log.iter().any(|entry| created(entry) == Some(pid));
        if !recorded || self.started.contains(&pid) {
            let why = if recorded { "twice" } else { "without its entry" };
            self.fault = Some(format!("program {} was started {why}", pid.0));
        }
        self.started.push(pid);
        self.running.insert(pid);
    }

    pub(super) fn answered(
        &mut self,
        client: &'static str,
        id: u64,
        answer: Answer,
        now: Option<AxiomTime>,
        log: &[Logged],
        random: &mut Random,
    ) {
        // Whoever asked may be gone, or may have been answered before.
        let Some((_, _, about)) = self.waiting.0.get(&id).filter(|(asked_by, ..)| *asked_by == client) else {
            return;
        };
        let about = about.clone();
        self.waiting.0.remove(&id);
        if let Answer::Committed { decision, entry, .. } = &answer {
            self.acknowledged.extend(decision.iter().chain(entry));
        }
        match (about, answer) {
            (About::Launch(pid), Answer::Committed { .. }) if self.defect != Defect::EffectBeforeCommit => {
                self.start(pid, log);
            }
            (About::MaySign(message), Answer::Committed { signed, .. }) => {
                if let Ok(decision) = cbor::decode::<SignedDecision>(&signed) {
                    self.decisions.push((message, decision));
                    self.show(now, random);
                }
            }
            (About::Rule, Answer::Committed { .. }) => self.forbids = !self.forbids,
            // It is there already, or not there: another asked for the same.
            (About::Rule, _) => self.forbids = random.coin(),
            (About::Recorded(id), answer) => {
                let result = match answer {
                    Answer::Committed { entry: Some(entry), .. } => Ok(entry),
                    _ => Err(NotRecorded),
                };
                let effects = self.core.step(now, Event::Recorded { id, result });
                self.perform(effects, random);
            }
            _ => {}
        }
    }

    /// Shows a decision to `keys`; now and then one that was shown before.
    fn show(&mut self, now: Option<AxiomTime>, random: &mut Random) {
        let again = random.below(4) == 0;
        let at = if again { random.below(self.decisions.len() as u64) } else { u64::MAX };
        let chosen = usize::try_from(at).ok().and_then(|at| self.decisions.get(at));
        let Some((message, authorization)) = chosen.or(self.decisions.last()).cloned() else { return };
        let id = RequestId(self.next_use);
        self.next_use += 1;
        let Ok(body) = authorization.decode_body() else { return };
        self.uses.insert(id, body.request_hash);
        let request = UseRequest {
            key_path: self.cast.key_path().clone(),
            operation: Operation::Sign { message },
            requestor: self.cast.admin,
            authorization,
        };
        let effects = self.core.step(now, Event::Use { id, request });
        self.perform(effects, random);
    }

    fn perform(&mut self, effects: Vec<Effect>, random: &mut Random) {
        for effect in effects {
            match effect {
                Effect::AskBoundary { id, request } => self.boundary.push_back((id, request)),
                Effect::Record { id, usage } => {
                    let entry = self.cast.record(random, KEYS, usage);
                    self.ask(KEYS, Item::Record { entry }, About::Recorded(id));
                }
                Effect::Redeem { id, usage, request_hash } => {
                    if self.defect == Defect::ReleaseBeforeRecord {
                        self.released.push(Released { request: request_hash, receipt: NOWHERE });
                    }
                    let decision = usage.authorization;
                    let item = self.cast.redeem(random, decision, request_hash, usage);
                    self.ask(KEYS, item, About::Recorded(id));
                }
                Effect::ReplyUse { id, result: Ok(used) } => {
                    if let Some(request) = self.uses.remove(&id)
                        && self.defect != Defect::ReleaseBeforeRecord
                    {
                        self.released.push(Released { request, receipt: used.receipt });
                    }
                }
                Effect::ReplyUse { .. } | Effect::ReplyPublicKeys { .. } => {}
            }
        }
    }

    pub(super) fn feed(&mut self, log: &[Logged], more: u64, now: Option<AxiomTime>, random: &mut Random) {
        let more = usize::try_from(more).unwrap_or(1);
        if self.keys_next == 0 {
            self.take_up_keys(log);
        }
        for entry in log.iter().skip(self.keys_next).take(more) {
            self.keys_next += 1;
            if let Some(payload) = entry.decode() {
                let effects = self.core.apply(entry.at, entry.time, &payload, now);
                self.perform(effects, random);
            }
        }
        for entry in log.iter().skip(self.launcher_next).take(more) {
            self.launcher_next += 1;
            let Some(pid) = created(entry) else { continue };
            // Of a launcher before this one, and never started: it says so.
            let is_awaited =
                self.waiting.0.values().any(|(.., about)| matches!(about, About::Launch(it) if *it == pid));
            if !is_awaited && !self.running.contains(&pid) && !ended(log).contains(&pid) {
                self.end(pid, random);
            }
        }
        self.answer_boundary(now, random);
    }

    fn take_up_keys(&mut self, log: &[Logged]) {
        let Some((last, saved)) = &self.keys_saved else { return };
        let folded = log.iter().position(|entry| entry.at == *last);
        if let Some(folded) = folded
            && self.core.restore(saved).is_ok()
        {
            self.keys_next = folded + 1;
        }
    }

    pub(super) fn write_down(&mut self, log: &[Logged]) {
        if let Some(last) = self.keys_next.checked_sub(1).and_then(|last| log.get(last)) {
            self.keys_saved = Some((last.at, self.core.save()));
        }
    }

    fn answer_boundary(&mut self, now: Option<AxiomTime>, random: &mut Random) {
        if let Some((id, BoundaryRequest::Use { .. })) = self.boundary.pop_front() {
            let output = Output::Signed {
                signature: Signature([1; 64]),
                public_key: VerifyingKey::Ed25519(PublicKey([2; 32])),
            };
            let result = Ok(BoundaryAnswer::Output(output));
            let effects = self.core.step(now, Event::BoundaryAnswered { id, result });
            self.perform(effects, random);
        }
    }

    pub(super) fn tick(&mut self, now: Option<AxiomTime>, random: &mut Random) {
        let effects = self.core.step(now, Event::Tick);
        self.perform(effects, random);
        if random.below(8) == 0 && !self.decisions.is_empty() {
            self.show(now, random);
        }
    }

    fn forget(&mut self, client: &str) {
        self.waiting.0.retain(|_, (asked_by, ..)| *asked_by != client);
        self.asked.retain(|ask| ask.client != client);
    }

    pub(super) fn kill_keys(&mut self) {
        self.forget(KEYS);
        self.core = KeysCore::new();
        self.keys_next = 0;
        self.boundary.clear();
        self.uses.clear();
    }

    /// Its programs run on.
    pub(super) fn kill_launcher(&mut self) {
        self.forget(LAUNCHER);
        self.launcher_next = 0;
    }

    pub(super) fn kill_capabilities(&mut self) {
        self.forget(CAPABILITIES);
    }

    pub(super) fn cut_power(&mut self) {
        self.kill_keys();
        self.kill_launcher();
        self.kill_capabilities();
        self.forget(OPERATOR);
        self.running.clear();
    }

    /// After the channel broke.
    pub(super) fn ask_again(&mut self, random: &mut Random) -> Vec<Ask> {
        self.asked.clear();
        let mut again = Vec::with_capacity(self.waiting.0.len());
        for (id, (client, item, about)) in &mut self.waiting.0 {
            if let (Defect::NewKeysWhenAskedAgain, About::Grant(n)) = (self.defect, &about) {
                *item = self.cast.grant(random, *n);
            }
            again.push(Ask { client, id: *id, item: item.clone() });
        }
        again
    }

    /// A service that starts folds the log before it serves.
    pub(super) fn restart(&mut self, log: &[Logged], now: Option<AxiomTime>, random: &mut Random) {
        if self.keys_next == 0 || self.launcher_next == 0 {
            self.feed(log, u64::MAX, now, random);
        }
    }

    pub(super) fn are_idle(&self, log: &[Logged]) -> bool {
        self.waiting.0.is_empty()
            && self.boundary.is_empty()
            && self.core.pending() == 0
            && self.keys_next == log.len()
            && self.launcher_next == log.len()
    }

    /// What they still wait for.
    pub(super) fn rest(&self) -> String {
        let about: Vec<_> = self.waiting.0.values().map(|(client, _, about)| (client, about)).collect();
        let (boundary, pending) = (self.boundary.len(), self.core.pending());
        format!(
            "asked {about:?}, boundary {boundary}, keys {pending}, read {} {}",
            self.keys_next, self.launcher_next
        )
    }

    pub(super) fn carried_out(&self) -> u64 {
        (self.started.len() + self.released.len()) as u64
    }

    /// What does not fit the log as it stands in the end.
    pub(super) fn audit(&self, log: &[Logged]) -> Vec<String> {
        let mut found = Vec::new();
        let there = |at: &AxiomRef| usize::try_from(at.sequence.0).ok().and_then(|n| log.get(n));
        let lost =
            self.acknowledged.iter().filter(|at| there(at).is_none_or(|entry| entry.at != **at)).count();
        if lost > 0 {
            found.push(format!("{lost} acknowledged entries are lost"));
        }
        let mut granted = BTreeSet::new();
        let mut used = BTreeSet::new();
        for entry in log {
            match entry.decode() {
                Some(Payload::CapabilityGrant(grant))
                    if !granted.insert(grant.body.resource.object_id.clone()) =>
                {
                    found.push(format!("{} was granted twice", grant.body.resource.object_id));
                }
                Some(Payload::KeyUsage(usage))
                    if usage.body.refused.is_none() && !used.insert(usage.body.authorization.sequence) =>
                {
                    found.push(format!("decision {} was used twice", usage.body.authorization));
                }
                _ => {}
            }
        }
        let mut requests = BTreeSet::new();
        for released in &self.released {
            let receipt = there(&released.receipt).filter(|entry| entry.at == released.receipt);
            let usage = receipt.and_then(Logged::decode);
            let is_recorded = matches!(usage, Some(Payload::KeyUsage(usage)) if usage.body.refused.is_none());
            if !is_recorded || !requests.insert(released.request) {
                found.push("a signature was handed out twice, or without its record".to_owned());
            }
        }
        let ended = ended(log);
        for pid in log.iter().filter_map(created) {
            if !ended.contains(&pid) && !self.running.contains(&pid) {
                found.push(format!("program {} is neither running nor ended", pid.0));
            }
        }
        found
    }
}

fn created(entry: &Logged) -> Option<ProcessId> {
    match entry.decode() {
        Some(Payload::ProcessCreate(create)) => Some(create.body.pid),
        _ => None,
    }
}

fn ended(log: &[Logged]) -> BTreeSet<ProcessId> {
    let exits = log.iter().filter_map(|entry| match entry.decode() {
        Some(Payload::ProcessExit(exit)) => Some(exit.body.pid),
        _ => None,
    });
    exits.collect()
}
