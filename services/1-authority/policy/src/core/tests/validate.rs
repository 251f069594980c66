//! What a rule may hold, at each limit and one past it, and the place that a refusal names.

use base::{AxiomTime, cbor, limits::NAME_BYTES_MAX};
use chain::payload::policy::{
    IdentityMatcher, PolicyCondition, PolicyEffect, PolicyRule, ResourceMatcher, ResourceRef, ResourceType,
    Restriction,
};

use super::support::{BOB, NOW, allow, read, rule, state};
use crate::core::{
    PolicyError, evaluate,
    limits::{CONDITION_NODES_MAX, RESOURCE_BYTES_MAX, RULE_BYTES_MAX, RULE_TIME_NS_MIN},
    validate,
};

use PolicyCondition::{Always, And, Not, Or};

/// Empty if the rule is fine.
fn place_of(rule: &PolicyRule) -> String {
    match validate(rule) {
        Ok(()) => String::new(),
        Err(PolicyError::InvalidRule { place, .. }) => place,
        Err(other) => panic!("{other}"),
    }
}

fn exact(bytes: usize) -> PolicyCondition {
    let id = "x".repeat(bytes);
    PolicyCondition::Resource(ResourceMatcher::Exact(ResourceRef { resource_type: ResourceType::File, id }))
}

fn prefix(bytes: usize) -> PolicyCondition {
    PolicyCondition::Resource(ResourceMatcher::PathPrefix(format!("/{}", "x".repeat(bytes - 1))))
}

fn restricted(condition: PolicyCondition, restrictions: Vec<PolicyCondition>) -> PolicyRule {
    let restriction = |condition| Restriction { name: "r".to_owned(), condition, limits: Default::default() };
    PolicyRule {
        restrictions: restrictions.into_iter().map(restriction).collect(),
        ..rule("r", 1, PolicyEffect::AllowWithConditions, condition)
    }
}

#[test]
fn a_refusal_names_the_place_in_the_condition() {
    let bad = || PolicyCondition::Resource(ResourceMatcher::Pattern(String::new()));
    let name = |pattern: &str| PolicyCondition::Identity(IdentityMatcher::Pattern(pattern.to_owned()));
    for (condition, place) in [
        (name("a*"), ""),
        (name("***"), "condition.identity.pattern"),
        (Or(vec![bad()]), "condition.or[0].resource.pattern"),
        (PolicyCondition::Before(AxiomTime(RULE_TIME_NS_MIN)), ""),
        (PolicyCondition::Before(AxiomTime(RULE_TIME_NS_MIN - 1)), "condition.before"),
        (PolicyCondition::After(AxiomTime(RULE_TIME_NS_MIN)), ""),
        (PolicyCondition::After(AxiomTime(RULE_TIME_NS_MIN - 1)), "condition.after"),
        (prefix(RESOURCE_BYTES_MAX), ""),
        (prefix(RESOURCE_BYTES_MAX + 1), "condition.resource.path_prefix"),
        (exact(0), "condition.resource.exact.id"),
        (exact(1), ""),
        (exact(RESOURCE_BYTES_MAX), ""),
        (exact(RESOURCE_BYTES_MAX + 1), "condition.resource.exact.id"),
    ] {
        assert_eq!(place_of(&allow(condition.clone())), place, "{condition:?}");
    }
    let second = restricted(Always, vec![Always, bad()]);
    assert_eq!(place_of(&second), "restrictions[1].condition.resource.pattern");
}

#[test]
fn names_restrictions_and_the_whole_rule_have_limits() {
    let named = |bytes| PolicyRule { name: "x".repeat(bytes), ..allow(Always) };
    assert_eq!(place_of(&named(NAME_BYTES_MAX)), "");
    assert_eq!(place_of(&named(NAME_BYTES_MAX + 1)), "name");
    for effect in [PolicyEffect::Allow, PolicyEffect::Deny] {
        assert_eq!(place_of(&rule("r", 1, effect, Always)), "");
        assert_eq!(place_of(&PolicyRule { effect, ..restricted(Always, vec![Always]) }), "restrictions");
    }
    let of_bytes = |last| {
        let longest = || exact(RESOURCE_BYTES_MAX);
        allow(Or(vec![longest(), longest(), longest(), exact(last)]))
    };
    let last = RULE_BYTES_MAX - cbor::encode(&of_bytes(4000)).len() + 4000;
    assert_eq!(cbor::encode(&of_bytes(last)).len(), RULE_BYTES_MAX);
    assert_eq!((place_of(&of_bytes(last)).as_str(), place_of(&of_bytes(last + 1)).as_str()), ("", "rule"));
}

/// covers: POL-58
#[test]
fn conditions_of_restrictions_count_and_a_rule_beyond_the_limit_denies() {
    let many = |n| Or(vec![Always; n]);
    let with = |nodes: usize| restricted(many(nodes - 3), vec![Not(Box::new(Always))]);
    assert_eq!(place_of(&with(CONDITION_NODES_MAX)), "");
    assert_eq!(place_of(&with(CONDITION_NODES_MAX + 1)), "condition");
    let allows = |rule| evaluate(&state(vec![rule]), &read(BOB, "/a"), NOW).unwrap().allows();
    assert!(allows(with(CONDITION_NODES_MAX)) && !allows(with(CONDITION_NODES_MAX + 1)));
    let nested =
        |levels: usize| (1..levels).fold(And(vec![]), |inner, _| Not(Box::new(Not(Box::new(inner)))));
    let levels = base::limits::NESTING_MAX / 2;
    assert!(allows(allow(nested(levels))) && !allows(allow(nested(levels + 1))));
}
