//! Conditions of an allowance are enforced where the act passes: whatever service asks, however it asks.

use base::{AxiomTime, DurationNs, cbor};
use chain::payload::policy::{
    IdentityMatcher, PolicyCondition, PolicyEffect, PolicyRequest, PolicyRule, ResourceMatcher, Restriction,
};

use super::{
    engine::{Node, sign_request, usage},
    support::{ALICE, BOB, NOW, ORG, SECOND, id, request, rule},
};
use crate::core::{Item, Outcome, Refusal, limits::DENIALS_SINGLE_PER_S, validate};
use PolicyCondition::{After, Always, Before, Never};

fn only_if(conditions: &[PolicyCondition]) -> PolicyRule {
    let restriction = |(n, condition): (usize, &PolicyCondition)| Restriction {
        name: format!("r{n}"),
        condition: condition.clone(),
        limits: Default::default(),
    };
    let restrictions = conditions.iter().enumerate().map(restriction).collect();
    PolicyRule { restrictions, ..rule("only-if", 100, PolicyEffect::AllowWithConditions, Always) }
}

fn act(request: &PolicyRequest) -> Item {
    Item::Act { request: cbor::encode(request), entry: usage(request.nonce.0[0], request, b"m") }
}

fn evaluate(request: &PolicyRequest) -> Item {
    Item::Evaluate { request: cbor::encode(request) }
}

fn later(seconds: u64) -> AxiomTime {
    NOW.saturating_add(seconds * SECOND)
}

/// The decision goes on record with its conditions; the text is the refusal of the act.
fn refused(node: &mut Node, item: &Item) -> String {
    match node.offer("keys", item) {
        Outcome::Refused { refusal: Refusal::Policy(error), record: Some(unit) } => {
            assert!(unit.entry.is_none() && unit.decision.is_some());
            node.write(vec![unit]);
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

/// covers: POL-22
#[test]
fn an_act_goes_ahead_only_if_every_restriction_holds() {
    let own = PolicyCondition::Identity(IdentityMatcher::Group(id(ORG)));
    let file = PolicyCondition::Resource(ResourceMatcher::PathPrefix("/orbital/users/bob".to_owned()));
    let malformed = PolicyCondition::Resource(ResourceMatcher::Pattern("***".to_owned()));
    for (conditions, unmet) in [
        (vec![Always, After(NOW), Before(later(1)), file], None),
        (vec![Always, Never], Some("\"r1\" is not met")),
        (vec![Before(NOW)], Some("\"r0\" is not met")),
        (vec![After(later(1))], Some("\"r0\" is not met")),
        (vec![own], Some("\"r0\" is not met")),
        (vec![Always, malformed.clone()], Some("\"r1\" cannot be judged")),
        (vec![PolicyCondition::Not(Box::new(malformed))], Some("\"r0\" cannot be judged")),
    ] {
        let mut node = Node::new(vec![only_if(&conditions)]);
        let request = sign_request(&mut node, BOB);
        let preflight = Item::Preflight { request: cbor::encode(&request) };
        match unmet {
            None => {
                assert_eq!(node.offer("keys", &preflight), Outcome::Permitted);
                assert!(node.done("keys", &act(&request)).entry.is_some());
            }
            Some(text) => {
                for item in [preflight, act(&request)] {
                    let told = refused(&mut node, &item);
                    assert!(told.contains(text) && told.contains("only-if"), "{told}");
                }
            }
        }
        node.audit();
    }
}

/// covers: POL-22
#[test]
fn a_decision_is_redeemed_only_while_its_restrictions_hold() {
    let mut node = Node::new(vec![only_if(&[Before(later(10))])]);
    let decided = |node: &mut Node| {
        let request = sign_request(node, BOB);
        let decision = node.done("keys", &evaluate(&request)).decision.unwrap().sequence;
        Item::Redeem { decision, entry: usage(request.nonce.0[0], &request, b"m") }
    };
    let (first, second) = (decided(&mut node), decided(&mut node));
    node.now = later(9);
    assert!(node.done("keys", &first).entry.is_some());
    node.now = later(10);
    let told = node.refusal("keys", &second).to_string();
    assert!(told.contains("\"r0\" is not met"), "{told}");
    node.audit();
}

/// covers: POL-22, POL-35
#[test]
fn a_rate_in_a_restriction_counts_and_a_decision_does_not_count_against_itself() {
    let limit = PolicyCondition::RateLimit { count: 2, window: DurationNs(10 * SECOND) };
    let mut node = Node::new(vec![only_if(&[limit])]);
    let first = sign_request(&mut node, BOB);
    assert!(node.done("keys", &act(&first)).entry.is_some());
    let second = sign_request(&mut node, BOB);
    let decision = node.done("keys", &evaluate(&second)).decision.unwrap().sequence;
    let redeem = Item::Redeem { decision, entry: usage(second.nonce.0[0], &second, b"m") };
    assert!(node.done("keys", &redeem).entry.is_some(), "the second of two");
    let third = sign_request(&mut node, BOB);
    let decision = node.done("keys", &evaluate(&third)).decision.unwrap().sequence;
    let redeem = Item::Redeem { decision, entry: usage(third.nonce.0[0], &third, b"m") };
    assert!(node.refusal("keys", &redeem).to_string().contains("is not met"), "the third of two");
    let fourth = sign_request(&mut node, BOB);
    assert!(refused(&mut node, &act(&fourth)).contains("is not met"));
    let other = sign_request(&mut node, ALICE);
    assert!(node.done("keys", &act(&other)).entry.is_some(), "another requestor");
    node.now = later(11);
    let late = sign_request(&mut node, BOB);
    assert!(node.done("keys", &act(&late)).entry.is_some());
    node.audit();
}

/// `network` holds them, for as long as they are about what it does.
#[test]
fn limits_of_connections_are_taken_in_rules_about_connections_alone() {
    use chain::payload::policy::{ActionKind, ActionMatcher, PolicyCondition};
    let about = |kinds: &[ActionKind]| PolicyCondition::Action(ActionMatcher::AnyOf(kinds.to_vec()));
    let ways = [ActionKind::Connect, ActionKind::Listen];
    let wider = [ActionKind::Connect, ActionKind::Sign];
    let valid = |condition: PolicyCondition, limit: &str| {
        let mut rule = only_if(&[Always]);
        rule.condition = condition;
        rule.restrictions[0].limits.insert(limit.to_owned(), 7);
        validate(&rule).is_ok()
    };
    for limit in chain::payload::network::NetworkGrant::LIMITS {
        assert!(valid(about(&ways), limit), "{limit}");
    }
    assert!(!valid(about(&ways), "packets"));
    assert!(valid(PolicyCondition::And(vec![Always, about(&ways)]), "send"));
    assert!(!valid(PolicyCondition::Or(vec![Always, about(&ways)]), "send"));
    assert!(!valid(about(&wider), "send") && !valid(Always, "send"));
    assert!(!valid(PolicyCondition::Not(Box::new(about(&wider))), "send"));

    let mut rule = only_if(&[Always]);
    rule.restrictions[0].limits.insert("send".to_owned(), 1);
    let mut node = Node::new(vec![rule]);
    let request = sign_request(&mut node, BOB);
    assert!(refused(&mut node, &act(&request)).contains("has limits that nothing enforces"), "a signature");
}

#[test]
fn a_limit_by_name_is_enforced_by_nobody_and_so_allows_nothing() {
    let mut rule = only_if(&[Always]);
    assert_eq!(validate(&rule), Ok(()));
    rule.restrictions[0].limits.insert("bytes".to_owned(), 7);
    assert!(validate(&rule).unwrap_err().to_string().contains("restrictions.limits"));
    let mut node = Node::new(vec![rule]);
    let request = sign_request(&mut node, BOB);
    assert!(refused(&mut node, &act(&request)).contains("has limits that nothing enforces"));
}

/// Like other refusals, these cannot be used to fill the log.
#[test]
fn unmet_conditions_fill_no_log() {
    let mut node = Node::new(vec![only_if(&[Never])]);
    for _ in 0..DENIALS_SINGLE_PER_S {
        let request = sign_request(&mut node, BOB);
        refused(&mut node, &act(&request));
    }
    let request = sign_request(&mut node, BOB);
    assert!(matches!(node.offer("keys", &act(&request)), Outcome::Busy { .. }));
}

/// A decision whose rule is gone or was changed is not redeemed on the word of the new one.
#[test]
fn a_rule_with_other_restrictions_redeems_nothing() {
    use super::support::{added, removed, state};
    let mut state = state(vec![only_if(&[Always])]);
    let request = request(BOB, super::support::read(BOB, "/a").action);
    let body = crate::core::evaluate(&state, &request, NOW).unwrap();
    let unmet = |state: &crate::core::PolicyState| crate::core::unmet(state, &body, NOW, Some(NOW));
    assert_eq!(unmet(&state), None);
    state.apply(super::support::at(1), &removed("only-if"));
    assert!(unmet(&state).unwrap().contains("not in force"));
    state.apply(super::support::at(2), &added(only_if(&[Always, Always])));
    assert!(unmet(&state).unwrap().contains("other restrictions"));
}
