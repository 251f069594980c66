//! Each kind of condition, where it holds and where it does not.

use base::{AxiomTime, DurationNs};
use chain::payload::{
    identity::IdentityType,
    policy::{
        ActionKind, ActionMatcher, IdentityMatcher, PolicyAction, PolicyCondition, PolicyEffect,
        ResourceMatcher, ResourceRef, ResourceType, Restriction,
    },
};
use std::sync::Arc;

use super::support::{
    ADMIN, ALICE, BOB, KEYS, NOW, ORG, ROOT, SECOND, allow, at, id, read, removed, request, rule, state,
};
use crate::core::{PolicyState, decide, evaluate};

fn allows(condition: &PolicyCondition, who: u8, path: &str) -> bool {
    let found = evaluate(&state(vec![allow(condition.clone())]), &read(who, path), NOW).unwrap();
    found.allows()
}

fn resource(matcher: ResourceMatcher) -> PolicyCondition {
    PolicyCondition::Resource(matcher)
}

fn identity(matcher: IdentityMatcher) -> PolicyCondition {
    PolicyCondition::Identity(matcher)
}

/// covers: POL-29, POL-31, POL-45
#[test]
fn resources_match_by_name_prefix_pattern_and_type() {
    let file = |path: &str| ResourceRef { resource_type: ResourceType::File, id: path.to_owned() };
    for (condition, yes, no) in [
        (resource(ResourceMatcher::Exact(file("/a/b"))), "/a/b", "/a/c"),
        (resource(ResourceMatcher::PathPrefix("/a/b".to_owned())), "/a/b/c", "/a/bc"),
        (resource(ResourceMatcher::Pattern("/a/*.txt".to_owned())), "/a/x.txt", "/a/b/x.txt"),
        (resource(ResourceMatcher::Pattern("/a/**".to_owned())), "/a/b/x.txt", "/b"),
    ] {
        assert!(allows(&condition, BOB, yes), "{condition:?} {yes}");
        assert!(!allows(&condition, BOB, no), "{condition:?} {no}");
    }
    assert!(allows(&resource(ResourceMatcher::Type(ResourceType::File)), BOB, "/a"));
    assert!(!allows(&resource(ResourceMatcher::Type(ResourceType::Key)), BOB, "/a"));
    assert!(!allows(&resource(ResourceMatcher::OwnKeyPath), BOB, "/orbital/users/bob"));
    assert!(allows(&PolicyCondition::Always, BOB, "/a"));
    assert!(!allows(&PolicyCondition::Never, BOB, "/a"));
}

/// covers: POL-30, POL-44
#[test]
fn identities_match_by_id_group_name_and_type() {
    for (matcher, yes, no) in [
        (IdentityMatcher::Exact(id(ALICE)), vec![ALICE], vec![BOB, ORG]),
        (IdentityMatcher::Group(id(ORG)), vec![ALICE, ORG], vec![BOB, ROOT]),
        (IdentityMatcher::Group(id(ROOT)), vec![ALICE, ORG, BOB, ROOT, KEYS], vec![]),
        (IdentityMatcher::Pattern("orbital.services.*".to_owned()), vec![KEYS], vec![BOB, ROOT]),
        (IdentityMatcher::Pattern("bob".to_owned()), vec![BOB], vec![ALICE]),
        (IdentityMatcher::Type(IdentityType::User), vec![BOB, ALICE, ADMIN], vec![ROOT, KEYS]),
    ] {
        let condition = identity(matcher);
        yes.iter().for_each(|who| assert!(allows(&condition, *who, "/a"), "{condition:?} {who}"));
        no.iter().for_each(|who| assert!(!allows(&condition, *who, "/a"), "{condition:?} {who}"));
    }
}

/// covers: POL-33
#[test]
fn conditions_compose_as_in_logic() {
    use PolicyCondition::{Always, And, Never, Not, Or};
    let not = |c| Not(Box::new(c));
    for (condition, expected) in [
        (And(vec![]), true),
        (Or(vec![]), false),
        (And(vec![Always, Never]), false),
        (And(vec![Always, Always]), true),
        (Or(vec![Never, Always]), true),
        (Or(vec![Never, Never]), false),
        (not(Never), true),
        (not(And(vec![Always, not(Or(vec![Never, Always]))])), true),
    ] {
        assert_eq!(allows(&condition, BOB, "/a"), expected, "{condition:?}");
    }
}

/// covers: POL-34, POL-46
#[test]
fn times_are_axiom_times_and_the_bound_itself_is_after() {
    for (condition, expected) in [
        (PolicyCondition::After(NOW), true),
        (PolicyCondition::After(AxiomTime(NOW.0 + 1)), false),
        (PolicyCondition::Before(NOW), false),
        (PolicyCondition::Before(AxiomTime(NOW.0 + 1)), true),
    ] {
        assert_eq!(allows(&condition, BOB, "/a"), expected, "{condition:?}");
    }
}

fn record(state: &mut PolicyState, sequence: u64, who: u8, now: AxiomTime) -> bool {
    let body = evaluate(state, &read(who, "/a"), now).unwrap();
    state.fold_decision(Some(at(sequence)), &Arc::new(body.clone()));
    body.allows()
}

/// covers: POL-35
#[test]
fn a_rate_limit_counts_recorded_allowed_decisions_of_the_rule_for_the_requestor() {
    let limit = PolicyCondition::RateLimit { count: 2, window: DurationNs(10 * SECOND) };
    let mut state = state(vec![allow(limit)]);
    let later = |s: u64| NOW.saturating_add(s * SECOND);
    assert!(evaluate(&state, &read(BOB, "/a"), NOW).unwrap().allows(), "what is not recorded does not count");
    let seen: Vec<_> =
        [0, 1, 2, 9, 10, 10, 11].iter().map(|s| record(&mut state, 1, BOB, later(*s))).collect();
    assert_eq!(seen, [true, true, false, false, true, false, true]);
    assert!(record(&mut state, 2, ALICE, later(11)));
    state.apply(at(3), &removed("allow"));
    assert_eq!(state.rates().events(), 0);
}

/// covers: POL-20, POL-22
#[test]
fn restrictions_become_conditions_only_of_allow_with_conditions() {
    let restriction =
        |name: &str, condition| Restriction { name: name.to_owned(), condition, limits: Default::default() };
    let restrictions = vec![
        restriction("soon", PolicyCondition::Before(AxiomTime(NOW.0 + 5))),
        restriction("x", PolicyCondition::Always),
    ];
    for effect in [PolicyEffect::Allow, PolicyEffect::Deny, PolicyEffect::AllowWithConditions] {
        let mut rule = rule("r", 1, effect, PolicyCondition::Always);
        rule.restrictions = restrictions.clone();
        let body = evaluate(&state(vec![rule]), &read(BOB, "/a"), NOW).unwrap();
        let expected: Vec<_> = match effect {
            PolicyEffect::AllowWithConditions => restrictions.iter().map(|r| r.condition.clone()).collect(),
            _ => vec![],
        };
        assert_eq!((body.effect, body.conditions), (effect, expected));
    }
}

/// covers: POL-26, POL-27, POL-40
#[test]
fn larger_priority_first_then_deny_then_conditions_then_the_smaller_id() {
    use PolicyEffect::{Allow, AllowWithConditions, Deny};
    let with = |all: &[(&str, u32, PolicyEffect)]| {
        let rules = all.iter().map(|(id, p, e)| rule(id, *p, *e, PolicyCondition::Always)).collect();
        evaluate(&state(rules), &read(BOB, "/a"), NOW)
            .unwrap()
            .matched_rules
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let order = with(&[
        ("z", 1, Deny),
        ("c", 5, Allow),
        ("b", 5, Allow),
        ("d", 5, AllowWithConditions),
        ("e", 5, Deny),
        ("a", 7, Allow),
    ]);
    assert_eq!(order, ["a", "e", "d", "b", "c", "z"]);
    assert_eq!(with(&[("a", 0, Deny), ("b", u32::MAX, Allow)]), ["b", "a"]);
}

/// covers: POL-58
#[test]
fn a_rule_that_cannot_be_evaluated_denies_in_its_place_with_reason_and_id() {
    let bad = resource(ResourceMatcher::Pattern("***".to_owned()));
    let with = |priority, condition| {
        let rules =
            vec![allow(PolicyCondition::Always), rule("bad", priority, PolicyEffect::Allow, condition)];
        evaluate(&state(rules), &read(BOB, "/a"), NOW).unwrap()
    };
    let denied = with(200, bad.clone());
    assert_eq!((denied.effect, denied.deciding_rule.as_str()), (PolicyEffect::Deny, "bad"));
    assert!(denied.reason.unwrap().contains("bad cannot be evaluated: malformed pattern"));
    assert!(with(50, bad.clone()).allows(), "a rule below cannot override");
    let not = PolicyCondition::Not(Box::new(bad.clone()));
    assert!(!with(200, not).allows());
    let other_action = PolicyCondition::Action(ActionMatcher::Kind(ActionKind::Sign));
    for other in [vec![bad.clone(), other_action.clone()], vec![other_action, bad]] {
        assert!(
            with(200, PolicyCondition::And(other)).allows(),
            "certainly false whatever the pattern means"
        );
    }
}

/// covers: POL-58
#[test]
fn a_rule_nested_too_deep_denies_every_request() {
    let deep = |levels: usize| {
        (1..levels).fold(PolicyCondition::Always, |inner, _| PolicyCondition::And(vec![inner]))
    };
    let max = base::limits::NESTING_MAX;
    assert!(allows(&deep(max), BOB, "/a"));
    let body = evaluate(&state(vec![allow(deep(max + 1))]), &read(BOB, "/a"), NOW).unwrap();
    assert_eq!((body.effect, body.deciding_rule.as_str()), (PolicyEffect::Deny, "allow"));
}

/// covers: KEY-37
#[test]
fn own_key_path_is_the_requestors_path_and_what_is_below() {
    let state = state(vec![allow(resource(ResourceMatcher::OwnKeyPath))]);
    for (path, expected) in [
        ("/orbital/users/bob", true),
        ("/orbital/users/bob/signing", true),
        ("/orbital/users/bobby", false),
        ("/orbital/users", false),
        ("/orbital/users/admin", false),
    ] {
        let key_path = base::KeyPath::parse(path).unwrap();
        let verdict = decide(&state, &request(BOB, PolicyAction::Decrypt { key_path }), NOW).effect;
        assert_eq!(verdict == PolicyEffect::Allow, expected, "{path}");
    }
}
