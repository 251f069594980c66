//! What the engine decides from: a fold of the log and of nothing else (POL-47).

mod saved;

use std::sync::Arc;

use base::{AxiomRef, Hash, IdentityId, PublicKey, RuleId, Sequence, cbor};
use chain::payload::{
    Payload,
    identity::{IdentityChange, IdentityType},
    policy::{DecisionBody, SignedDecision},
    service::Genesis,
};
use minicbor::{Decode, Encode};

pub use self::saved::{FOLD_VERSION, StateError};
use super::{
    identities::Identities,
    rates::Rates,
    recent::{Recent, Used},
    rule_set::RuleSet,
};

/// What genesis pins (DESIGN 6).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Pinned {
    #[n(0)]
    pub admin: IdentityId,
    #[n(1)]
    pub admin_uid: u32,
    #[n(2)]
    pub node_key: PublicKey,
    #[n(3)]
    pub sequencer_key: PublicKey,
    #[n(4)]
    pub policy_key: PublicKey,
    /// Tokens are verified with it; the engine never calls `identity`.
    #[n(5)]
    pub identity_key: PublicKey,
}

/// Cheap to clone: the parts are shared until one side changes them.
#[derive(Clone, Debug)]
pub struct PolicyState {
    last: Option<AxiomRef>,
    pinned: Option<Arc<Pinned>>,
    rules: Arc<RuleSet>,
    identities: Arc<Identities>,
    rates: Arc<Rates>,
    recent: Arc<Recent>,
    hash: Hash,
}

impl Default for PolicyState {
    fn default() -> Self {
        let (rules, identities) = (Arc::new(RuleSet::default()), Arc::new(Identities::default()));
        let hash = hash_of(&rules, &identities);
        Self {
            last: None,
            pinned: None,
            rules,
            identities,
            rates: Arc::new(Rates::default()),
            recent: Arc::new(Recent::default()),
            hash,
        }
    }
}

fn hash_of(rules: &RuleSet, identities: &Identities) -> Hash {
    Hash::of_parts(&[b"bailiwick policy state v1\0", &rules.digest.root().0, &identities.digest.root().0])
}

impl PolicyState {
    /// Hash of what decides: rules and principals. Rate counters and used decisions are left out: they follow from the
    /// decisions that the log holds, as the replay that checks this hash does.
    #[must_use]
    pub fn state_hash(&self) -> Hash {
        self.hash
    }

    /// The last entry that was folded.
    #[must_use]
    pub fn position(&self) -> Option<Sequence> {
        self.last.map(|last| last.sequence)
    }

    /// The same with its hash.
    #[must_use]
    pub fn last(&self) -> Option<AxiomRef> {
        self.last
    }

    #[must_use]
    pub fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_deref()
    }

    #[must_use]
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    #[must_use]
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    #[must_use]
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    #[must_use]
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// A System identity, or the admin that genesis names (POL-56).
    #[must_use]
    pub fn is_system_class(&self, id: &IdentityId) -> bool {
        let is_system = |p: &super::identities::Principal| p.identity_type == IdentityType::System;
        self.identities.get(id).is_some_and(is_system)
            || self.pinned().is_some_and(|pinned| pinned.admin == *id)
    }

    /// True if the entry was not folded before; it counts as folded now.
    pub(super) fn advance(&mut self, at: AxiomRef) -> bool {
        let fresh = self.last.is_none_or(|last| at.sequence > last.sequence);
        if fresh {
            self.last = Some(at);
        }
        fresh
    }

    /// Folds one entry. One that was folded before changes nothing, so the feed and the engine's own results may overlap.
    pub fn apply(&mut self, at: AxiomRef, payload: &Payload) {
        if self.advance(at) {
            self.fold(Some(at), payload);
        }
    }

    /// `at` is None for an entry that is on its way to the log.
    pub(super) fn fold(&mut self, at: Option<AxiomRef>, payload: &Payload) {
        match payload {
            Payload::Genesis(envelope) => self.fold_genesis(at, &envelope.body),
            Payload::PolicyDecision(envelope) => self.fold_signed(at, &envelope.body),
            Payload::PolicyRuleAdded(envelope) => {
                let added = &envelope.body;
                Arc::make_mut(&mut self.rules).add(added.rule.clone(), at, added.created_by);
                self.rehash();
            }
            Payload::PolicyRuleRemoved(envelope) => {
                let removed = &envelope.body;
                Arc::make_mut(&mut self.rules).remove(&removed.rule);
                Arc::make_mut(&mut self.rates).forget(&removed.rule);
                self.rehash();
            }
            Payload::IdentityCreated(envelope) => {
                Arc::make_mut(&mut self.identities).create(&envelope.body);
                self.rehash();
            }
            Payload::IdentityUpdated(envelope) => {
                if let IdentityChange::Status { new, .. } = &envelope.body.change {
                    Arc::make_mut(&mut self.identities).set_status(&envelope.body.identity, *new);
                    self.rehash();
                }
            }
            _ => {}
        }
    }

    /// The same state with one rule more, to try it out.
    pub(super) fn with_rule(&self, rule: chain::payload::policy::PolicyRule) -> Self {
        let mut tried = self.clone();
        Arc::make_mut(&mut tried.rules).add(rule, None, IdentityId([0; 32]));
        tried.rehash();
        tried
    }

    /// Puts identities and rules into a state that no log tells.
    pub(super) fn imagine(
        &mut self,
        identities: &[chain::payload::identity::IdentityCreated],
        rules: Vec<chain::payload::policy::PolicyRule>,
    ) {
        let known = Arc::make_mut(&mut self.identities);
        identities.iter().for_each(|identity| known.create(identity));
        self.exchange(&[], rules);
    }

    /// Other rules in the place of these. What was counted for a rule's id stays counted.
    pub(super) fn exchange(&mut self, gone: &[RuleId], rules: Vec<chain::payload::policy::PolicyRule>) {
        let set = Arc::make_mut(&mut self.rules);
        gone.iter().for_each(|id| set.remove(id));
        rules.into_iter().for_each(|rule| set.add(rule, None, IdentityId([0; 32])));
        self.rehash();
    }

    /// Marks the decision that allows an entry as used.
    pub(super) fn use_up(&mut self, request: &Hash, used: Used) {
        Arc::make_mut(&mut self.recent).use_up(request, used);
    }

    /// `apply`, and the use of the decision that the entry cites. `bytes` is the payload as recorded.
    pub fn apply_entry(&mut self, at: AxiomRef, payload: &Payload, bytes: &[u8]) {
        if !self.advance(at) {
            return;
        }
        self.fold(Some(at), payload);
        if let Some(request) = payload.head().authorization {
            self.use_up(&request, Used { payload: Hash::of(bytes), entry: Some(at) });
        }
    }

    fn fold_genesis(&mut self, at: Option<AxiomRef>, genesis: &Genesis) {
        let identities = Arc::make_mut(&mut self.identities);
        genesis.identities.iter().for_each(|identity| identities.create(identity));
        let rules = Arc::make_mut(&mut self.rules);
        genesis.rules.iter().for_each(|rule| rules.add(rule.clone(), at, genesis.admin));
        self.pinned = Some(Arc::new(Pinned {
            admin: genesis.admin,
            admin_uid: genesis.admin_uid,
            node_key: genesis.node_key,
            sequencer_key: genesis.sequencer_key,
            policy_key: genesis.policy_key,
            identity_key: genesis.identity_key,
        }));
        self.rehash();
    }

    fn fold_signed(&mut self, at: Option<AxiomRef>, signed: &SignedDecision) {
        // The sequencer checked signature and form before it was recorded; what is unreadable allows nothing.
        if let Ok(body) = cbor::decode::<DecisionBody>(&signed.body) {
            self.fold_decision(at, &Arc::new(body));
        }
    }

    pub(super) fn fold_decision(&mut self, at: Option<AxiomRef>, body: &Arc<DecisionBody>) {
        if body.allows() {
            let need = self.rules.get(&body.deciding_rule).and_then(|stored| stored.rate);
            if let Some(need) = need {
                Arc::make_mut(&mut self.rates).record(
                    &body.deciding_rule,
                    need,
                    body.requestor,
                    body.timestamp,
                );
            }
        }
        Arc::make_mut(&mut self.recent).record(at, body);
    }

    fn rehash(&mut self) {
        self.hash = hash_of(&self.rules, &self.identities);
    }
}
