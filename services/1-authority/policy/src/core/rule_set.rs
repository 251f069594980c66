//! The rules in force, and which of them match a request, in the order in which they are tried (POL-27).

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use base::{
    AxiomRef, IdentityId, RuleId,
    cbor::{self, CborError},
};
use chain::payload::policy::{PolicyEffect, PolicyRule};
use minicbor::{Decode, Encode, bytes::ByteVec};

use super::{
    anchor::Anchors,
    condition::{Facts, Fault, structure},
    digest::SetDigest,
    index::Index,
    rates::RateNeed,
};

/// A rule and where it came from (POL-26).
#[derive(Clone, Debug)]
pub struct StoredRule {
    pub rule: Arc<PolicyRule>,
    /// None while the entry that adds it is on its way to the log.
    pub created_at: Option<AxiomRef>,
    pub created_by: IdentityId,
    pub(super) structure: Result<(), Fault>,
    pub(super) rate: Option<RateNeed>,
    order: u64,
}

impl StoredRule {
    fn new(rule: Arc<PolicyRule>, created_at: Option<AxiomRef>, created_by: IdentityId) -> Self {
        let structure = structure(&rule);
        let rate = structure.is_ok().then(|| RateNeed::of(&rule)).flatten();
        let order = order(&rule);
        Self { rule, created_at, created_by, structure, rate, order }
    }
}

/// Smaller is tried first: larger priority, then Deny before AllowWithConditions before Allow (POL open point 5).
pub(crate) fn order(rule: &PolicyRule) -> u64 {
    let effect = match rule.effect {
        PolicyEffect::Deny => 0,
        PolicyEffect::AllowWithConditions => 1,
        PolicyEffect::Allow => 2,
    };
    u64::from(u32::MAX - rule.priority) << 2 | effect
}

fn tried_before(a: &StoredRule, b: &StoredRule) -> Ordering {
    a.order.cmp(&b.order).then_with(|| a.rule.id.cmp(&b.rule.id))
}

/// A rule that matched, or that could not be evaluated and so denies.
#[derive(Clone, Copy, Debug)]
pub struct Match<'a> {
    pub stored: &'a StoredRule,
    pub fault: Option<Fault>,
}

#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    slots: Vec<Option<StoredRule>>,
    free: Vec<u32>,
    by_id: HashMap<RuleId, u32>,
    index: Index,
    /// Rules whose structure is refused: they deny every request.
    broken: Vec<u32>,
    pub(super) digest: SetDigest,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct SavedRule {
    /// As bytes: it may be nested as deep as is allowed at all.
    #[n(0)]
    rule: ByteVec,
    #[n(1)]
    created_at: Option<AxiomRef>,
    #[n(2)]
    created_by: IdentityId,
}

impl RuleSet {
    /// In order of id.
    pub(super) fn save(&self) -> Vec<SavedRule> {
        let mut all: Vec<&StoredRule> = self.slots.iter().flatten().collect();
        all.sort_unstable_by(|a, b| a.rule.id.cmp(&b.rule.id));
        let saved = |stored: &StoredRule| SavedRule {
            rule: cbor::encode(stored.rule.as_ref()).into(),
            created_at: stored.created_at,
            created_by: stored.created_by,
        };
        all.into_iter().map(saved).collect()
    }

    pub(super) fn restore(saved: Vec<SavedRule>) -> Result<Self, CborError> {
        let mut rules = Self::default();
        for saved in saved {
            rules.add(cbor::decode(&saved.rule)?, saved.created_at, saved.created_by);
        }
        Ok(rules)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    #[must_use]
    pub fn get(&self, id: &RuleId) -> Option<&StoredRule> {
        self.slot(*self.by_id.get(id)?)
    }

    /// All rules in the order in which they are tried.
    #[must_use]
    pub fn in_order(&self) -> Vec<&StoredRule> {
        let mut all: Vec<_> = self.slots.iter().flatten().collect();
        all.sort_unstable_by(|a, b| tried_before(a, b));
        all
    }

    fn slot(&self, slot: u32) -> Option<&StoredRule> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// An id in use stays with its rule; the engine refuses such an addition before it is recorded (POL-28).
    pub(super) fn add(&mut self, rule: PolicyRule, created_at: Option<AxiomRef>, created_by: IdentityId) {
        if self.by_id.contains_key(&rule.id) {
            return;
        }
        self.digest.set(rule.id.as_str().as_bytes(), Some(&cbor::encode(&rule)));
        let stored = StoredRule::new(Arc::new(rule), created_at, created_by);
        let slot = self.free.pop().unwrap_or(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        match stored.structure {
            Ok(()) => self.index.insert(slot, &Anchors::of(&stored.rule.condition)),
            Err(_) => self.broken.push(slot),
        }
        self.by_id.insert(stored.rule.id.clone(), slot);
        match self.slots.get_mut(slot as usize) {
            Some(free) => *free = Some(stored),
            None => self.slots.push(Some(stored)),
        }
    }

    pub(super) fn remove(&mut self, id: &RuleId) {
        let Some(slot) = self.by_id.remove(id) else { return };
        self.digest.set(id.as_str().as_bytes(), None);
        let Some(stored) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        self.free.push(slot);
        match stored.structure {
            Ok(()) => self.index.remove(slot, &Anchors::of(&stored.rule.condition)),
            Err(_) => self.broken.retain(|broken| *broken != slot),
        }
    }

    /// Every rule that matches, in the order in which they are tried (POL-21). `matches` is emptied first.
    pub(super) fn matching<'a>(&'a self, facts: &Facts<'_>, matches: &mut Vec<Match<'a>>) {
        matches.clear();
        self.consider(facts, |stored| {
            match stored.structure.and_then(|()| facts.holds(&stored.rule, &stored.rule.condition)) {
                Ok(false) => {}
                Ok(true) => matches.push(Match { stored, fault: None }),
                Err(fault) => matches.push(Match { stored, fault: Some(fault) }),
            }
        });
        matches.sort_unstable_by(|a, b| tried_before(a.stored, b.stored));
        matches.dedup_by(|a, b| std::ptr::eq(a.stored, b.stored));
    }

    /// Every rule that may match at some time, in the order in which they are tried.
    pub(super) fn candidates(&self, facts: &Facts<'_>) -> Vec<&StoredRule> {
        let mut all = Vec::new();
        self.consider(facts, |stored| all.push(stored));
        all.sort_unstable_by(|a, b| tried_before(a, b));
        all.dedup_by(|a, b| std::ptr::eq(*a, *b));
        all
    }

    /// The index knows nothing of time, so what it leaves out matches at none. One may come more than once.
    fn consider<'a>(&'a self, facts: &Facts<'_>, mut one: impl FnMut(&'a StoredRule)) {
        let mut consider = |slot: u32| {
            if let Some(stored) = self.slot(slot) {
                one(stored);
            }
        };
        if facts.requestor.lineage_complete {
            self.index.candidates(facts.requestor, facts.kind, &facts.request.resource, &mut consider);
            self.broken.iter().copied().for_each(consider);
        } else {
            // A group that cannot be told is a group of any rule: the index would miss it.
            (0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)).for_each(consider);
        }
    }
}
