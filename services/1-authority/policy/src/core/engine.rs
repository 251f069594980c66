//! Plans what goes to the log, in log order, against a state that includes everything sent and not yet answered.
//!
//! A unit whose rejection could change a later evaluation (it changes rules or principals, or counts towards a rate
//! limit of the same requestor) is alone in flight in that respect: what depends on it waits for its result. So every
//! recorded decision re-evaluates to itself, whatever the sequencer rejects. What is sent and not yet answered is `in_flight`.

mod in_flight;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use base::{
    AxiomRef, AxiomTime, EntryKey, Hash, IdentityId, RuleId, Sequence, cbor, limits::DECISION_VALIDITY_NS,
};
use chain::payload::{
    Envelope, Payload,
    identity::{IdentityChange, IdentityStatus, IdentityUpdated},
    policy::{DecisionBody, PolicyEffect, PolicyRequest},
};
use thiserror::Error;

use super::{
    PolicyError, PolicyState,
    admit::{self, Refusal},
    authority::identity_of,
    denials::{Denials, Note, counted_reason, plain_reason},
    evaluate::{evaluate, evaluate_hashed, unmet},
    limits::UNITS_IN_FLIGHT_MAX,
    recent::Used,
};

/// What a full engine tells its caller to wait, in milliseconds.
const RETRY_AFTER_MS: u32 = 5;
const IDENTITY_UPDATED: u32 = 89;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub entry_type: u32,
    /// CBOR envelope, as its author built it.
    pub payload: Vec<u8>,
}

/// What a service asks on its authority channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// `request` is CBOR `PolicyRequest`.
    Act {
        request: Vec<u8>,
        entry: Entry,
    },
    /// The same for an entry that is made for what this rule allows: if another one decides, nothing happens.
    ActBy {
        request: Vec<u8>,
        entry: Entry,
        rule: RuleId,
    },
    Evaluate {
        request: Vec<u8>,
    },
    Redeem {
        decision: Sequence,
        entry: Entry,
    },
    Record {
        entry: Entry,
    },
    /// Would an act on this be allowed? A no is recorded like any other; a yes leaves nothing.
    Preflight {
        request: Vec<u8>,
    },
    /// What is done as soon as it is answered, without an entry: the restrictions are held to now.
    UseNow {
        request: Vec<u8>,
    },
}

/// Goes into the log whole or not at all. `seal` makes it ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub id: u64,
    /// CBOR `DecisionBody`.
    pub decision: Option<Vec<u8>>,
    pub entry: Option<Entry>,
    /// The decision allows; true for records.
    pub allows: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send it; the answer to the caller follows from its result.
    Planned(Unit),
    /// Depends on what is in flight: offer the item again after the next result.
    Wait,
    /// Was done before, with the same payload.
    Done {
        decision: Option<AxiomRef>,
        entry: AxiomRef,
    },
    /// The answer to a preflight; nothing has changed.
    Permitted,
    Busy {
        retry_after_ms: u32,
    },
    /// `record` is to be sent all the same: a failed authentication leaves a trace (POL-54).
    Refused {
        refusal: Refusal,
        record: Option<Unit>,
    },
}

/// What a result means for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub decision: Option<AxiomRef>,
    pub entry: Option<AxiomRef>,
    pub allowed: bool,
}

/// The result is not for the oldest unit in flight: engine and log disagree, and the process must end and fold again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a result for unit {got} came while unit {expected:?} was the oldest in flight")]
pub struct OutOfOrder {
    pub got: u64,
    pub expected: Option<u64>,
}

struct Pending {
    id: u64,
    /// Kept for a new evaluation.
    request: Option<PolicyRequest>,
    body: Option<Arc<DecisionBody>>,
    act: Option<Act>,
    holds: Holds,
}

struct Act {
    entry: Entry,
    payload: Payload,
    /// Request whose decision this uses, and the hash of the payload that uses it.
    uses: Option<(Hash, Hash)>,
}

/// The use of a request's decision by an entry, for `Act::uses`.
fn using(request: Hash, entry: &Entry) -> Option<(Hash, Hash)> {
    Some((request, Hash::of(&entry.payload)))
}

/// What a decision is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For<'a> {
    /// With the rule that it was made for, if it was made for one.
    Act(&'a Entry, Option<&'a RuleId>),
    /// A redeeming, or a service that is given it.
    Later,
    Preflight,
    Now,
}

/// What must wait while a unit is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Nothing,
    Requestor(IdentityId),
    Everything,
}

#[derive(Default)]
pub struct Engine {
    confirmed: PolicyState,
    speculative: PolicyState,
    pending: VecDeque<Pending>,
    unit_next: u64,
    denials: Denials,
    held_all: usize,
    held: HashMap<IdentityId, usize>,
    /// No rule refuses anything.
    permissive: bool,
}

impl Engine {
    /// From the folded log.
    #[must_use]
    pub fn new(confirmed: PolicyState) -> Self {
        Self { speculative: confirmed.clone(), confirmed, ..Self::default() }
    }

    /// Allows whatever is asked; for `prove --break policy` alone.
    pub fn allow_everything(&mut self) {
        self.permissive = true;
    }

    /// What the log holds.
    #[must_use]
    pub fn confirmed(&self) -> &PolicyState {
        &self.confirmed
    }

    /// What the log will hold if everything sent is accepted.
    #[must_use]
    pub fn speculative(&self) -> &PolicyState {
        &self.speculative
    }

    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Folds an entry that came by the feed. What the engine sent itself may come both ways, in any order.
    pub fn apply_entry(&mut self, at: AxiomRef, payload: &Payload, bytes: &[u8]) {
        self.confirmed.apply_entry(at, payload, bytes);
        if self.pending.is_empty() {
            self.speculative.apply_entry(at, payload, bytes);
        }
    }

    pub fn propose(&mut self, channel: &str, item: &Item, now: AxiomTime) -> Outcome {
        if self.held_all > 0 || self.pending.len() >= UNITS_IN_FLIGHT_MAX {
            return Outcome::Wait;
        }
        if self.speculative.recent().is_full() {
            return Outcome::Busy { retry_after_ms: RETRY_AFTER_MS };
        }
        let planned = match item {
            Item::Act { request, entry } => self.decide(channel, request, For::Act(entry, None), now),
            Item::ActBy { request, entry, rule } => {
                self.decide(channel, request, For::Act(entry, Some(rule)), now)
            }
            Item::Evaluate { request } => self.decide(channel, request, For::Later, now),
            Item::Preflight { request } => self.decide(channel, request, For::Preflight, now),
            Item::UseNow { request } => self.decide(channel, request, For::Now, now),
            Item::Redeem { decision, entry } => self.redeem(channel, *decision, entry, now),
            Item::Record { entry } => admit::record(&self.speculative, channel, entry).map(|payload| {
                Outcome::Planned(self.plan(
                    None,
                    None,
                    Some(Act { entry: entry.clone(), payload, uses: None }),
                ))
            }),
        };
        planned.unwrap_or_else(|refusal| Outcome::Refused { refusal, record: None })
    }

    fn decide(
        &mut self,
        channel: &str,
        bytes: &[u8],
        purpose: For<'_>,
        now: AxiomTime,
    ) -> Result<Outcome, Refusal> {
        let (entry, rule) = match purpose {
            For::Act(entry, rule) => (Some(entry), rule),
            For::Later | For::Preflight | For::Now => (None, None),
        };
        let request = admit::request(channel, bytes)?;
        if self.held.contains_key(&request.requestor) {
            return Ok(Outcome::Wait);
        }
        let hash = request.hash_of(bytes);
        if let Some(answer) = self.used_before(&hash, entry) {
            return answer;
        }
        let state = &self.speculative;
        let payload = match entry {
            Some(entry) => Some(admit::act(state, channel, entry, hash, &request.action, request.requestor)?),
            None => None,
        };
        let body = match evaluate_hashed(state, &request, hash, now) {
            Ok(body) if self.permissive => DecisionBody { effect: PolicyEffect::Allow, reason: None, ..body },
            Ok(body) => body,
            Err(error) => return Ok(self.refuse_signature(channel, &request, error, now)),
        };
        if !body.allows() {
            return Ok(self.deny(request, body, now));
        }
        if rule.is_some_and(|rule| *rule != body.deciding_rule) {
            return Err(Refusal::RuleDiffers(body.deciding_rule));
        }
        if purpose != For::Later
            && let Some(why) = unmet(&self.speculative, &body, now, None)
        {
            return Ok(self.refuse_unmet(request, body, why, now));
        }
        if purpose == For::Preflight {
            return Ok(Outcome::Permitted);
        }
        if let Some(payload) = &payload {
            admit::rule_change(&self.speculative, &request.requestor, payload)?;
        }
        let act = entry.cloned().zip(payload).map(|(entry, payload)| {
            let uses = using(hash, &entry);
            Act { entry, payload, uses }
        });
        Ok(Outcome::Planned(self.plan(Some(request), Some(body), act)))
    }

    /// A request whose decision was used gets the same answer for the same payload, and none for another.
    fn used_before(&self, request: &Hash, entry: Option<&Entry>) -> Option<Result<Outcome, Refusal>> {
        let used = self.speculative.recent().get(request)?.used.as_ref()?;
        if entry.map(|entry| Hash::of(&entry.payload)) != Some(used.payload) {
            return Some(Err(Refusal::DecisionUsed));
        }
        let known = self.confirmed.recent().get(request);
        let done = known.and_then(|known| Some((known.decision, known.used.as_ref()?.entry?)));
        Some(Ok(match done {
            Some((decision, entry)) => Outcome::Done { decision, entry },
            None => Outcome::Busy { retry_after_ms: RETRY_AFTER_MS },
        }))
    }

    fn redeem(
        &mut self,
        channel: &str,
        decision: Sequence,
        entry: &Entry,
        now: AxiomTime,
    ) -> Result<Outcome, Refusal> {
        let state = &self.speculative;
        let request =
            self.confirmed.recent().request_of(decision).ok_or(Refusal::DecisionNotFound(decision))?;
        if let Some(answer) = self.used_before(&request, Some(entry)) {
            return answer;
        }
        let recent = state.recent().get(&request).ok_or(Refusal::DecisionNotFound(decision))?;
        let body = recent.body.clone().ok_or(Refusal::DecisionUsed)?;
        if now.since(recent.timestamp) >= DECISION_VALIDITY_NS {
            return Err(Refusal::DecisionExpired);
        }
        let requestor = state.identities().get(&body.requestor);
        if requestor.is_none_or(|requestor| requestor.status != IdentityStatus::Active) {
            let text = "the requestor was suspended or revoked after the decision".to_owned();
            return Err(PolicyError::Unauthorized(text).into());
        }
        if let Some(why) = unmet(state, &body, now, Some(recent.timestamp)) {
            return Err(PolicyError::Unauthorized(why).into());
        }
        let payload = admit::act(state, channel, entry, request, &body.action, body.requestor)?;
        admit::rule_change(state, &body.requestor, &payload)?;
        let act = Act { entry: entry.clone(), payload, uses: using(request, entry) };
        Ok(Outcome::Planned(self.plan(None, None, Some(act))))
    }

    /// None for one whom nobody knows.
    fn known(&self, requestor: IdentityId) -> Option<IdentityId> {
        self.speculative.identities().get(&requestor).map(|known| known.id)
    }

    fn deny(&mut self, request: PolicyRequest, mut body: DecisionBody, now: AxiomTime) -> Outcome {
        match self.denials.note(self.known(request.requestor), &request, now) {
            Note::Counted => Outcome::Busy { retry_after_ms: ms_to_next_second(now) },
            Note::Single { others } => {
                body.reason = body.reason.map(|reason| counted_reason(&reason, others));
                Outcome::Planned(self.plan(Some(request), Some(body), None))
            }
        }
    }

    /// The decision is recorded with its conditions, the act is not carried out.
    fn refuse_unmet(
        &mut self,
        request: PolicyRequest,
        body: DecisionBody,
        why: String,
        now: AxiomTime,
    ) -> Outcome {
        match self.denials.note(self.known(request.requestor), &request, now) {
            Note::Counted => Outcome::Busy { retry_after_ms: ms_to_next_second(now) },
            Note::Single { .. } => Outcome::Refused {
                refusal: PolicyError::Unauthorized(why).into(),
                record: Some(self.plan(Some(request), Some(body), None)),
            },
        }
    }

    fn refuse_signature(
        &mut self,
        channel: &str,
        request: &PolicyRequest,
        error: PolicyError,
        now: AxiomTime,
    ) -> Outcome {
        match self.denials.note(self.known(request.requestor), request, now) {
            Note::Counted => Outcome::Busy { retry_after_ms: ms_to_next_second(now) },
            Note::Single { others } => {
                let reason = counted_reason(&error.to_string(), others);
                let record = self.failed_authentication(channel, request, reason, now);
                Outcome::Refused { refusal: error.into(), record }
            }
        }
    }

    fn failed_authentication(
        &mut self,
        channel: &str,
        request: &PolicyRequest,
        reason: String,
        now: AxiomTime,
    ) -> Option<Unit> {
        let submitter = identity_of(&self.speculative, "policy")?.id;
        let parts: [&[u8]; 3] =
            [b"bailiwick failed authentication v1\0", &request.hash().0, &now.0.to_be_bytes()];
        let key = EntryKey(Hash::of_parts(&parts).0.first_chunk::<16>().copied()?);
        let change =
            IdentityChange::AuthenticationFailed { channel: channel.to_owned(), reason, credential: None };
        let body = IdentityUpdated { identity: request.requestor, change };
        let envelope = Envelope { submitter, key, authorization: None, body };
        let entry = Entry { entry_type: IDENTITY_UPDATED, payload: envelope.to_bytes().ok()? };
        let payload = Payload::IdentityUpdated(Box::new(envelope));
        Some(self.plan(None, None, Some(Act { entry, payload, uses: None })))
    }

    /// Whether [`Engine::tick`] has anything to look at.
    #[must_use]
    pub fn counts_denials(&self) -> bool {
        !self.denials.is_empty()
    }

    /// Once a second: denials that were only counted become one entry for each requestor.
    pub fn tick(&mut self, now: AxiomTime) -> Vec<Unit> {
        if self.held_all > 0 || self.pending.len() >= UNITS_IN_FLIGHT_MAX {
            return Vec::new();
        }
        let mut units = Vec::new();
        for (request, others) in self.denials.due(now) {
            let requestor = self.known(request.requestor);
            let held = self.held.contains_key(&request.requestor);
            match evaluate(&self.speculative, &request, now) {
                Ok(mut body) if !held && !body.allows() => {
                    body.reason = body.reason.map(|reason| counted_reason(&reason, others));
                    units.push(self.plan(Some(request), Some(body), None));
                }
                // Would be allowed by now: nobody asked again, so only the number is kept.
                _ => self.denials.carry(requestor, others.saturating_add(1), now),
            }
        }
        units
    }
}

fn ms_to_next_second(now: AxiomTime) -> u32 {
    let left_ns = 1_000_000_000 - now.0 % 1_000_000_000;
    u32::try_from(left_ns.div_ceil(1_000_000)).unwrap_or(RETRY_AFTER_MS)
}
