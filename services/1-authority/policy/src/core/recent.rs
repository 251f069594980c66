//! Allowed decisions inside their validity, so that each is used once (POL open point 4).

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use base::{
    AxiomRef, AxiomTime, Hash, Sequence,
    cbor::{self, CborError},
    limits::DECISION_VALIDITY_NS,
};
use chain::payload::policy::DecisionBody;
use minicbor::{Decode, Encode, bytes::ByteVec};

use super::limits::DECISIONS_RECENT_MAX;

/// What was done with a decision.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Used {
    /// Of the payload that used it.
    #[n(0)]
    pub payload: Hash,
    /// None while the entry is on its way to the log.
    #[n(1)]
    pub entry: Option<AxiomRef>,
}

#[derive(Clone, Debug)]
pub struct RecentDecision {
    pub decision: Option<AxiomRef>,
    pub timestamp: AxiomTime,
    /// Kept until the decision is used.
    pub body: Option<Arc<DecisionBody>>,
    pub used: Option<Used>,
}

#[derive(Clone, Debug, Default)]
pub struct Recent {
    by_request: HashMap<Hash, RecentDecision>,
    by_sequence: HashMap<Sequence, Hash>,
    /// Oldest first.
    queue: VecDeque<(AxiomTime, Hash, Option<Sequence>)>,
    latest: AxiomTime,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct SavedDecision {
    #[n(0)]
    request: Hash,
    #[n(1)]
    decision: Option<AxiomRef>,
    #[n(2)]
    timestamp: AxiomTime,
    /// As bytes: a rule in it may be nested as deep as is allowed at all.
    #[n(3)]
    body: Option<ByteVec>,
    #[n(4)]
    used: Option<Used>,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct SavedRecent {
    /// In order of request.
    #[n(0)]
    decisions: Vec<SavedDecision>,
    #[n(1)]
    queue: Vec<(AxiomTime, Hash, Option<Sequence>)>,
    #[n(2)]
    latest: AxiomTime,
}

impl SavedDecision {
    fn restore(self) -> Result<(Hash, RecentDecision), CborError> {
        let Self { request, decision, timestamp, body, used } = self;
        let body = body.map(|body| cbor::decode::<DecisionBody>(&body)).transpose()?.map(Arc::new);
        Ok((request, RecentDecision { decision, timestamp, body, used }))
    }
}

impl SavedRecent {
    pub(super) fn restore(self) -> Result<Recent, CborError> {
        let numbered =
            |(_, request, sequence): &(AxiomTime, Hash, Option<Sequence>)| Some(((*sequence)?, *request));
        let by_request = self.decisions.into_iter().map(SavedDecision::restore).collect::<Result<_, _>>()?;
        let by_sequence = self.queue.iter().filter_map(numbered).collect();
        Ok(Recent { by_request, by_sequence, queue: self.queue.into(), latest: self.latest })
    }
}

impl Recent {
    pub(super) fn save(&self) -> SavedRecent {
        let saved = |(request, known): (&Hash, &RecentDecision)| SavedDecision {
            request: *request,
            decision: known.decision,
            timestamp: known.timestamp,
            body: known.body.as_ref().map(|body| cbor::encode(body.as_ref()).into()),
            used: known.used.clone(),
        };
        let mut decisions: Vec<_> = self.by_request.iter().map(saved).collect();
        decisions.sort_unstable_by_key(|decision| decision.request);
        SavedRecent { decisions, queue: self.queue.iter().copied().collect(), latest: self.latest }
    }

    #[must_use]
    pub fn get(&self, request: &Hash) -> Option<&RecentDecision> {
        self.by_request.get(request)
    }

    #[must_use]
    pub fn request_of(&self, decision: Sequence) -> Option<Hash> {
        self.by_sequence.get(&decision).copied()
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queue.len() >= DECISIONS_RECENT_MAX
    }

    pub(super) fn record(&mut self, decision: Option<AxiomRef>, body: &Arc<DecisionBody>) {
        self.latest = self.latest.max(body.timestamp);
        self.forget_old();
        if !body.allows() {
            return;
        }
        let sequence = decision.map(|at| at.sequence);
        self.queue.push_back((self.latest, body.request_hash, sequence));
        if let Some(sequence) = sequence {
            self.by_sequence.insert(sequence, body.request_hash);
        }
        let used = self.by_request.get(&body.request_hash).and_then(|known| known.used.clone());
        self.by_request.insert(
            body.request_hash,
            RecentDecision {
                decision,
                timestamp: body.timestamp,
                body: used.is_none().then(|| Arc::clone(body)),
                used,
            },
        );
    }

    pub(super) fn use_up(&mut self, request: &Hash, used: Used) {
        if let Some(known) = self.by_request.get_mut(request) {
            known.body = None;
            known.used = Some(used);
        }
    }

    fn forget_old(&mut self) {
        while let Some((time, request, sequence)) = self.queue.front().copied() {
            if self.latest.since(time) < DECISION_VALIDITY_NS {
                return;
            }
            self.queue.pop_front();
            if let Some(sequence) = sequence {
                self.by_sequence.remove(&sequence);
            }
            // A later decision for the same request keeps it alive.
            if self
                .by_request
                .get(&request)
                .is_some_and(|r| self.latest.since(r.timestamp) >= DECISION_VALIDITY_NS)
            {
                self.by_request.remove(&request);
            }
        }
    }
}
