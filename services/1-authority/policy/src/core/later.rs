//! Whether a denial is for good. What is denied by a rate, or by a point in time, is allowed again by nothing but time.

use base::{AxiomTime, RuleId};
use chain::payload::policy::{PolicyCondition, PolicyEffect, PolicyRequest, PolicyRule};

use super::{
    PolicyState,
    condition::{Facts, Fault},
    evaluate::authenticate,
    limits::MATCHED_RULES_MAX,
    request::fault_of,
};

/// What a condition may come out as, at this time or later, if nothing changes but the time and what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Could {
    hold: bool,
    fail: bool,
}

impl Could {
    const EITHER: Self = Self { hold: true, fail: true };

    const fn only(holds: bool) -> Self {
        Self { hold: holds, fail: !holds }
    }

    const fn negated(self) -> Self {
        Self { hold: self.fail, fail: self.hold }
    }
}

/// The first rule that would allow this at another time, while everything before it stood aside. None of what is refused
/// whatever the time is, and of what cannot be told.
#[must_use]
pub fn later_by(state: &PolicyState, request: &PolicyRequest, now: AxiomTime) -> Option<RuleId> {
    let requestor = authenticate(state, request).ok()?;
    if fault_of(request).is_some() {
        return None;
    }
    let facts =
        Facts { request, kind: request.action.kind(), requestor, now, rates: state.rates(), own: None };
    let mut matched = Vec::new();
    state.rules().matching(&facts, &mut matched);
    if matched.len() > MATCHED_RULES_MAX {
        return None;
    }
    for stored in state.rules().candidates(&facts) {
        // One that cannot be evaluated denies, at any time.
        stored.structure.ok()?;
        let could = facts.could(&stored.rule, &stored.rule.condition).ok()?;
        match stored.rule.effect {
            PolicyEffect::Allow | PolicyEffect::AllowWithConditions if could.hold => {
                return Some(stored.rule.id.clone());
            }
            PolicyEffect::Deny if !could.fail => return None,
            _ => {}
        }
    }
    None
}

impl Facts<'_> {
    /// Rather too much than too little: parts are taken for independent of each other.
    fn could(&self, rule: &PolicyRule, condition: &PolicyCondition) -> Result<Could, Fault> {
        match condition {
            PolicyCondition::And(all) => self.all_could(rule, all, |could| could),
            PolicyCondition::Or(any) => self.all_could(rule, any, Could::negated).map(Could::negated),
            PolicyCondition::Not(inner) => self.could(rule, inner).map(Could::negated),
            // Once over, it does not come back.
            PolicyCondition::Before(time) if self.now < *time => Ok(Could::EITHER),
            PolicyCondition::After(time) if self.now < *time => Ok(Could::EITHER),
            // What it allows is counted. A rule that denies allows nothing, and one that holds while it is under its rate passes it
            // only by what it has allowed.
            PolicyCondition::RateLimit { count, window }
                if *count > 0 && window.0 > 0 && rule.effect != PolicyEffect::Deny =>
            {
                self.holds(rule, condition).map(|holds| Could { hold: true, fail: !holds })
            }
            certain => self.holds(rule, certain).map(Could::only),
        }
    }

    /// As `all_are`: what certainly fails makes the rest not matter, and what is unknown the whole.
    fn all_could(
        &self,
        rule: &PolicyRule,
        conditions: &[PolicyCondition],
        seen: impl Fn(Could) -> Could,
    ) -> Result<Could, Fault> {
        let (mut all, mut unknown) = (Could::only(true), None);
        for condition in conditions {
            match self.could(rule, condition).map(&seen) {
                Ok(could) if !could.hold => return Ok(Could::only(false)),
                Ok(could) => all.fail |= could.fail,
                Err(fault) => unknown = unknown.or(Some(fault)),
            }
        }
        unknown.map_or(Ok(all), Err)
    }
}
