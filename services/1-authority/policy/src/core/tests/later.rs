//! A denial that time alone ends is told from one that stands.

use base::{AxiomTime, DurationNs, cbor};
use chain::payload::{
    identity::IdentityStatus,
    policy::{
        ActionKind, ActionMatcher, PolicyAction, PolicyCondition, PolicyEffect, PolicyRequest, PolicyRule,
        ResourceMatcher, Restriction,
    },
};

use super::{
    engine::Node,
    support::{BOB, NOW, SECOND, allow, at, request, rule, state, status},
};
use crate::core::{Item, Outcome, PolicyState, Refusal, later_by, limits::MATCHED_RULES_MAX};
use PolicyCondition::{After, Always, And, Before, Never, Not, Or};

fn secret() -> PolicyAction {
    PolicyAction::UseSecret { name: "key".to_owned(), place: "api.test:443".to_owned() }
}

fn use_of(pattern: &str) -> PolicyCondition {
    let kind = PolicyCondition::Action(ActionMatcher::Kind(ActionKind::UseSecret));
    And(vec![kind, PolicyCondition::Resource(ResourceMatcher::Pattern(pattern.to_owned()))])
}

const fn rate(count: u32) -> PolicyCondition {
    PolicyCondition::RateLimit { count, window: DurationNs(10 * SECOND) }
}

fn soon() -> AxiomTime {
    NOW.saturating_add(SECOND)
}

fn found(state: &PolicyState, request: &PolicyRequest) -> Option<String> {
    later_by(state, request, NOW).map(|rule| rule.to_string())
}

fn by(rules: Vec<PolicyRule>) -> Option<String> {
    found(&state(rules), &request(BOB, secret()))
}

fn yes(id: &str, priority: u32, condition: PolicyCondition) -> PolicyRule {
    rule(id, priority, PolicyEffect::Allow, condition)
}

fn no(id: &str, priority: u32, condition: PolicyCondition) -> PolicyRule {
    rule(id, priority, PolicyEffect::Deny, condition)
}

#[test]
fn only_what_time_can_change_is_allowed_later() {
    let own = || use_of("key@**");
    for (condition, comes_back) in [
        (And(vec![own(), rate(1)]), true),
        (And(vec![own(), After(soon())]), true),
        (And(vec![own(), Not(Box::new(Before(soon())))]), true),
        (And(vec![own(), Or(vec![Before(NOW), rate(3)])]), true),
        // What is over is over, and what never holds does not begin to.
        (And(vec![own(), Before(NOW)]), false),
        (And(vec![own(), Not(Box::new(After(NOW)))]), false),
        (And(vec![own(), rate(0)]), false),
        (And(vec![own(), rate(1), Never]), false),
        (And(vec![use_of("other@**"), rate(1)]), false),
        (Or(vec![And(vec![use_of("other@**"), rate(1)]), Before(NOW)]), false),
        // It is under its rate, and stays so.
        (And(vec![own(), Not(Box::new(rate(1)))]), false),
        // Nor does what cannot be evaluated.
        (And(vec![use_of("***"), rate(1)]), false),
    ] {
        let told = by(vec![yes("own", 10, condition.clone())]);
        assert_eq!(told.as_deref(), comes_back.then_some("own"), "{condition:?}");
    }
    assert_eq!(by(vec![]), None);
}

#[test]
fn what_stands_before_it_decides_unless_it_passes_too() {
    let limited = || yes("limited", 10, And(vec![use_of("key@**"), rate(1)]));
    let forbids = |condition| no("forbids", 20, condition);
    assert_eq!(by(vec![limited(), forbids(use_of("key@**"))]), None);
    assert_eq!(by(vec![limited(), forbids(use_of("***"))]), None);
    // What is denied is not counted: it is under that rate for good.
    assert_eq!(by(vec![limited(), forbids(And(vec![use_of("key@**"), rate(1)]))]), None);
    assert_eq!(by(vec![limited(), forbids(use_of("other@**"))]), Some("limited".to_owned()));
    let for_now = And(vec![use_of("key@**"), Before(soon())]);
    assert_eq!(by(vec![limited(), forbids(for_now.clone())]), Some("limited".to_owned()));
    assert_eq!(by(vec![yes("always", 10, Always), forbids(for_now)]), Some("always".to_owned()));
    // More than a decision can name deny, whatever they say.
    let many = |count: usize| {
        let late = And(vec![use_of("key@**"), Before(soon())]);
        let mut all: Vec<_> = (0..count).map(|at| no(&format!("no{at}"), 20, late.clone())).collect();
        all.push(limited());
        by(all)
    };
    assert_eq!(many(MATCHED_RULES_MAX - 1), Some("limited".to_owned()));
    assert_eq!(many(MATCHED_RULES_MAX), None);
    // Behind it nothing is looked at.
    assert_eq!(by(vec![yes("last", 5, Always), no("behind", 10, use_of("key@**"))]), None);
}

#[test]
fn who_may_ask_nothing_may_ask_nothing_later() {
    let mut state = state(vec![allow(Always)]);
    assert!(found(&state, &request(BOB, secret())).is_some());
    assert_eq!(found(&state, &request(99, secret())), None);
    state.apply(at(1), &status(BOB, IdentityStatus::Active, IdentityStatus::Suspended));
    assert_eq!(found(&state, &request(BOB, secret())), None);
}

/// At the rate, one past it, and when the window is over.
///
/// covers: POL-35
#[test]
fn a_use_is_counted_and_held_to_what_its_rule_asks_for_beside() {
    let limited = yes("limited", 10, rate(2));
    let restriction = Restriction { name: "r".to_owned(), condition: rate(2), limits: Default::default() };
    let under = rule("under", 10, PolicyEffect::AllowWithConditions, Always);
    let under = PolicyRule { restrictions: vec![restriction], ..under };
    for (rule, is_denied) in [(limited, true), (under, false)] {
        let mut node = Node::new(vec![rule]);
        let item = |node: &mut Node| {
            let request = node.fresh("network", BOB, secret());
            Item::UseNow { request: cbor::encode(&request) }
        };
        for _ in 0..2 {
            let asked = item(&mut node);
            assert!(node.done("network", &asked).allowed);
        }
        let asked = item(&mut node);
        match node.offer("network", &asked) {
            Outcome::Planned(unit) if is_denied => {
                assert!(!unit.allows);
                node.write(vec![unit]);
            }
            Outcome::Refused { refusal: Refusal::Policy(error), record: Some(unit) } if !is_denied => {
                assert!(error.to_string().contains("\"r\" is not met"), "{error}");
                node.write(vec![unit]);
            }
            other => panic!("{other:?}"),
        }
        // One that was refused under a restriction is on record as allowed, and counts.
        node.now = NOW.saturating_add(10 * SECOND);
        let asked = item(&mut node);
        assert!(node.done("network", &asked).allowed);
        node.audit();
    }
}
