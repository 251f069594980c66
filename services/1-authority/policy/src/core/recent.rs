//! Allowed decisions inside their validity, so that each is used once (POL open point 4).

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use base::{AxiomRef, AxiomTime, Hash, Sequence, limits::DECISION_VALIDITY_NS};
use chain::payload::policy::DecisionBody;

use super::limits::DECISIONS_RECENT_MAX;

/// What was done with a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Of the payload that used it.
    pub payload: Hash,
    /// None while the entry is on its way to the log.
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

impl Recent {
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
