//! Times of allowed decisions for rules with a rate limit, from recorded decisions alone (POL open point 7).

use std::collections::{BTreeMap, HashMap, VecDeque};

use base::{AxiomTime, DurationNs, IdentityId, RuleId};
use chain::payload::policy::{PolicyCondition, PolicyRule};
use minicbor::{Decode, Encode};

use super::limits::{RATE_COUNT_MAX, RATE_EVENTS_MAX, RATE_WINDOW_NS_MAX};

/// Between two searches for times that have left their window while the memory is full, in nanoseconds.
const SWEEP_EVERY_NS: u64 = 1_000_000_000;

/// The largest count and window among a rule's rate limits: what must be remembered for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct RateNeed {
    #[n(0)]
    pub(super) count: u32,
    #[n(1)]
    pub(super) window_ns: u64,
}

impl RateNeed {
    /// None for a rule without rate limits. The caller has checked the rule's structure.
    pub(super) fn of(rule: &PolicyRule) -> Option<Self> {
        let mut need = None;
        collect(&rule.condition, 0, &mut need);
        // A decision that is redeemed is among those that are counted, and must not push another one out.
        rule.restrictions.iter().for_each(|restriction| collect(&restriction.condition, 1, &mut need));
        need
    }
}

fn collect(condition: &PolicyCondition, own: u32, need: &mut Option<RateNeed>) {
    match condition {
        PolicyCondition::And(all) | PolicyCondition::Or(all) => {
            all.iter().for_each(|c| collect(c, own, need))
        }
        PolicyCondition::Not(inner) => collect(inner, own, need),
        PolicyCondition::RateLimit { count, window } => {
            let known = need.unwrap_or(RateNeed { count: 0, window_ns: 0 });
            *need = Some(RateNeed {
                count: known.count.max((*count).min(RATE_COUNT_MAX).saturating_add(own)),
                window_ns: known.window_ns.max(window.0).min(RATE_WINDOW_NS_MAX),
            });
        }
        _ => {}
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counted {
    need: Option<RateNeed>,
    /// Oldest first, never decreasing, at most `need.count`.
    times: HashMap<IdentityId, VecDeque<AxiomTime>>,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct SavedCounted {
    #[n(0)]
    need: Option<RateNeed>,
    #[n(1)]
    times: BTreeMap<IdentityId, Vec<AxiomTime>>,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct SavedRates {
    #[n(0)]
    rules: BTreeMap<RuleId, SavedCounted>,
    #[n(1)]
    blind_until: AxiomTime,
    #[n(2)]
    sweep_at: AxiomTime,
}

impl SavedRates {
    pub(super) fn restore(self) -> Rates {
        let counted = |saved: SavedCounted| Counted {
            need: saved.need,
            times: saved.times.into_iter().map(|(id, times)| (id, times.into())).collect(),
        };
        let rules: HashMap<_, _> = self.rules.into_iter().map(|(id, saved)| (id, counted(saved))).collect();
        Rates {
            events: rules.values().flat_map(|counted| counted.times.values()).map(VecDeque::len).sum(),
            rules,
            blind_until: self.blind_until,
            sweep_at: self.sweep_at,
            ..Rates::default()
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    rules: HashMap<RuleId, Counted>,
    events: usize,
    events_max: usize,
    /// Until then a time that should have been kept may be missing.
    blind_until: AxiomTime,
    sweep_at: AxiomTime,
}

impl Default for Rates {
    fn default() -> Self {
        Self::with_events_max(RATE_EVENTS_MAX)
    }
}

impl Rates {
    fn with_events_max(events_max: usize) -> Self {
        Self {
            rules: HashMap::new(),
            events: 0,
            events_max,
            blind_until: AxiomTime::ZERO,
            sweep_at: AxiomTime::ZERO,
        }
    }

    pub(super) fn save(&self) -> SavedRates {
        let counted = |counted: &Counted| SavedCounted {
            need: counted.need,
            times: counted.times.iter().map(|(id, times)| (*id, times.iter().copied().collect())).collect(),
        };
        SavedRates {
            rules: self.rules.iter().map(|(id, rule)| (id.clone(), counted(rule))).collect(),
            blind_until: self.blind_until,
            sweep_at: self.sweep_at,
        }
    }

    /// Times kept; for tests and metrics.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.events >= self.events_max
    }

    /// Allowed decisions inside the window that ends now; None if that is not known.
    pub(super) fn count(
        &self,
        rule: &RuleId,
        requestor: &IdentityId,
        window: DurationNs,
        now: AxiomTime,
    ) -> Option<usize> {
        if now < self.blind_until {
            return None;
        }
        let Some(times) = self.rules.get(rule).and_then(|counted| counted.times.get(requestor)) else {
            return Some(0);
        };
        let outside = times.partition_point(|time| now.since(*time) >= window.0);
        Some(times.len().saturating_sub(outside))
    }

    pub(super) fn record(&mut self, rule: &RuleId, need: RateNeed, requestor: IdentityId, time: AxiomTime) {
        if need.count == 0 || need.window_ns == 0 {
            return;
        }
        if self.events >= self.events_max && time >= self.sweep_at {
            self.sweep(time);
        }
        let full = self.events >= self.events_max;
        let counted = self.rules.entry(rule.clone()).or_default();
        counted.need = Some(need);
        let times = match full {
            true => match counted.times.get_mut(&requestor) {
                Some(times) => times,
                None => return self.go_blind(time, need),
            },
            false => counted.times.entry(requestor).or_default(),
        };
        let time = times.back().map_or(time, |last| time.max(*last));
        while times.len() >= need.count as usize {
            times.pop_front();
            self.events = self.events.saturating_sub(1);
        }
        if self.events >= self.events_max {
            return self.go_blind(time, need);
        }
        times.push_back(time);
        self.events += 1;
    }

    /// A rule that is gone takes its counters with it.
    pub(super) fn forget(&mut self, rule: &RuleId) {
        if let Some(counted) = self.rules.remove(rule) {
            let gone: usize = counted.times.values().map(VecDeque::len).sum();
            self.events = self.events.saturating_sub(gone);
        }
    }

    fn go_blind(&mut self, time: AxiomTime, need: RateNeed) {
        self.blind_until = self.blind_until.max(time.saturating_add(need.window_ns));
    }

    fn sweep(&mut self, now: AxiomTime) {
        self.sweep_at = now.saturating_add(SWEEP_EVERY_NS);
        for counted in self.rules.values_mut() {
            let window_ns = counted.need.map_or(0, |need| need.window_ns);
            counted.times.retain(|_, times| {
                times.retain(|time| now.since(*time) < window_ns);
                !times.is_empty()
            });
        }
        self.events = self.rules.values().flat_map(|c| c.times.values()).map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: RateNeed = RateNeed { count: 3, window_ns: 100 };
    const WINDOW: DurationNs = DurationNs(100);

    fn rule() -> RuleId {
        RuleId::new("r").unwrap()
    }

    /// covers: POL-35
    #[test]
    fn times_leave_the_window_one_by_one() {
        let mut rates = Rates::default();
        let id = IdentityId([1; 32]);
        for time in [10, 20, 30] {
            rates.record(&rule(), NEED, id, AxiomTime(time));
        }
        let at = |now| rates.count(&rule(), &id, WINDOW, AxiomTime(now));
        assert_eq!(
            [at(30), at(109), at(110), at(120), at(130)],
            [Some(3), Some(3), Some(2), Some(1), Some(0)]
        );
        assert_eq!(rates.count(&rule(), &IdentityId([2; 32]), WINDOW, AxiomTime(30)), Some(0));
    }

    #[test]
    fn no_more_times_are_kept_than_can_matter() {
        let mut rates = Rates::default();
        for time in 0..50 {
            rates.record(&rule(), NEED, IdentityId([1; 32]), AxiomTime(time));
        }
        assert_eq!(rates.events(), 3);
        rates.forget(&rule());
        assert_eq!(rates.events(), 0);
    }

    #[test]
    fn a_limit_that_needs_nothing_keeps_nothing() {
        let mut rates = Rates::default();
        for need in [RateNeed { count: 0, window_ns: 100 }, RateNeed { count: 3, window_ns: 0 }] {
            rates.record(&rule(), need, IdentityId([1; 32]), AxiomTime(10));
        }
        assert_eq!(rates.events(), 0);
    }

    #[test]
    fn a_rule_needs_the_largest_of_its_limits_however_deep() {
        use PolicyCondition::{Always, And, Not, Or};
        let limit = |count, ns| PolicyCondition::RateLimit { count, window: DurationNs(ns) };
        let need = |condition| {
            RateNeed::of(&PolicyRule {
                id: rule(),
                name: "r".to_owned(),
                description: String::new(),
                priority: 1,
                condition,
                effect: chain::payload::policy::PolicyEffect::Allow,
                restrictions: vec![],
            })
            .map(|need| (need.count, need.window_ns))
        };
        assert_eq!(need(And(vec![Always, Not(Box::new(Always))])), None);
        let deep = And(vec![Not(Box::new(limit(5, 10))), Or(vec![limit(2, 50), limit(1, 1)])]);
        assert_eq!(need(deep), Some((5, 50)));
        assert_eq!(need(limit(u32::MAX, u64::MAX)), Some((RATE_COUNT_MAX, RATE_WINDOW_NS_MAX)));
    }

    #[test]
    fn a_full_memory_serves_whom_it_knows_and_is_searched_once_a_second() {
        let mut rates = Rates::with_events_max(3);
        let id = |n: u8| IdentityId([n; 32]);
        (0..3).for_each(|n| rates.record(&rule(), NEED, id(0), AxiomTime(10 + n)));
        assert!(rates.is_full());
        rates.record(&rule(), NEED, id(0), AxiomTime(20));
        let count = |rates: &Rates, n, now| rates.count(&rule(), &id(n), WINDOW, AxiomTime(now));
        assert_eq!((rates.events(), count(&rates, 0, 20)), (3, Some(3)), "the oldest makes room");
        // Long after, but the search at 20 was less than a second ago.
        rates.record(&rule(), NEED, id(1), AxiomTime(500));
        assert_eq!((rates.events(), count(&rates, 1, 599), count(&rates, 1, 600)), (3, None, Some(0)));
        rates.record(&rule(), NEED, id(1), AxiomTime(20 + SWEEP_EVERY_NS));
        assert_eq!((rates.events(), rates.is_full()), (1, false));
    }

    #[test]
    fn what_still_counts_survives_the_search() {
        let mut rates = Rates::with_events_max(2);
        let id = |n: u8| IdentityId([n; 32]);
        rates.record(&rule(), NEED, id(0), AxiomTime(100));
        rates.record(&rule(), NEED, id(1), AxiomTime(101));
        rates.record(&rule(), NEED, id(2), AxiomTime(200));
        assert_eq!(rates.events(), 2, "one left its window, one came");
        let count = |n| rates.count(&rule(), &id(n), WINDOW, AxiomTime(200));
        assert_eq!((count(0), count(1), count(2)), (Some(0), Some(1), Some(1)));
    }

    #[test]
    fn a_full_memory_is_unknown_and_not_zero() {
        let mut rates = Rates::with_events_max(2);
        for n in 0..3 {
            rates.record(&rule(), NEED, IdentityId([n; 32]), AxiomTime(10 + u64::from(n)));
        }
        assert_eq!(rates.events(), 2);
        let count = |rates: &Rates, now| rates.count(&rule(), &IdentityId([2; 32]), WINDOW, AxiomTime(now));
        assert_eq!(count(&rates, 111), None);
        assert_eq!(count(&rates, 112), Some(0));
        rates.record(&rule(), NEED, IdentityId([2; 32]), AxiomTime(SWEEP_EVERY_NS + 500));
        assert_eq!((rates.events(), count(&rates, SWEEP_EVERY_NS + 500)), (1, Some(1)));
    }
}
