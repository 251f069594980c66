//! Changed rules against recorded decisions, and who could do what.

use base::{DurationNs, Sequence, cbor};
use chain::payload::{
    identity::IdentityStatus,
    policy::{
        ActionKind, IdentityMatcher, PolicyAction, PolicyCondition, PolicyEffect, PolicyRule,
        ResourceMatcher, Restriction,
    },
};

use super::{
    engine::{Node, add_rule, sign_request},
    support::{ADMIN, ALICE, BOB, KEYS, NOW, SECOND, allow, at, id, request, rule, rule_id, state, status},
};
use crate::core::{
    Item,
    trial::{Change, Difference, WhatIf, request_for, who_can},
};

fn ask(node: &mut Node, who: u8) -> bool {
    let request = sign_request(node, who);
    node.done("keys", &Item::Evaluate { request: cbor::encode(&request) }).allowed
}

fn what_if(node: &Node, change: Change, since: u64) -> Vec<Difference> {
    let mut what_if = WhatIf::new(change, Sequence(since));
    let entries = node.log.iter().enumerate();
    let found = entries.filter_map(|(n, (kind, bytes))| what_if.step(at(n as u64), *kind, bytes).unwrap());
    let found = found.collect();
    assert_eq!(what_if.state().state_hash(), node.engine.confirmed().state_hash(), "the fold as it was");
    found
}

fn only(who: u8) -> PolicyCondition {
    PolicyCondition::Identity(IdentityMatcher::Exact(id(who)))
}

fn limited(count: u32) -> PolicyRule {
    allow(PolicyCondition::RateLimit { count, window: DurationNs(100 * SECOND) })
}

fn places(found: &[Difference]) -> Vec<u64> {
    found.iter().map(|difference| difference.at.sequence.0).collect()
}

#[test]
fn rules_as_they_were_change_nothing() {
    let mut node = Node::new(vec![limited(2)]);
    let seen: Vec<_> = (0..4).map(|_| ask(&mut node, BOB)).collect();
    assert_eq!(seen, [true, true, false, false]);
    assert_eq!(what_if(&node, Change::default(), 0), []);
    assert_eq!(what_if(&node, Change { rules: vec![limited(2)], only: true, ..Change::default() }, 0), []);
}

/// A limit is counted under the rules that are tried: what they refuse does not count, what they allow does.
#[test]
fn a_rate_counts_what_the_changed_rule_would_have_allowed() {
    let mut node = Node::new(vec![limited(3)]);
    let seen: Vec<_> = (0..5).map(|_| ask(&mut node, BOB)).collect();
    assert_eq!(seen, [true, true, true, false, false]);
    let changed = |count| Change { rules: vec![limited(count)], ..Change::default() };
    assert_eq!(places(&what_if(&node, changed(1), 0)), [2, 3]);
    let more = what_if(&node, changed(4), 0);
    assert_eq!(places(&more), [4]);
    assert_eq!((more[0].recorded.effect, more[0].now.effect), (PolicyEffect::Deny, PolicyEffect::Allow));
    // From the third on: two were counted before.
    assert_eq!(places(&what_if(&node, changed(2), 3)), [3]);
    assert_eq!(places(&what_if(&node, changed(3), 3)), [0_u64; 0]);
}

#[test]
fn every_decision_is_made_again_with_the_rules_and_identities_of_its_own_place() {
    let mut node = Node::new(vec![allow(only(ADMIN))]);
    assert!(!ask(&mut node, BOB)); // 1
    let bob = rule("bob", 50, PolicyEffect::Allow, only(BOB));
    let add = add_rule(&mut node, ADMIN, bob);
    node.done("policy", &add); // 2 and 3
    assert!(ask(&mut node, BOB)); // 4
    let deny = rule("deny-bob", 500, PolicyEffect::Deny, only(BOB));
    let found = what_if(&node, Change { rules: vec![deny], ..Change::default() }, 0);
    assert_eq!(places(&found), [1, 4], "1 is denied by another rule, 4 is denied now");
    assert_eq!(found[1].now.deciding_rule, rule_id("deny-bob"));
    let without = Change { without: [rule_id("bob")].into(), ..Change::default() };
    assert_eq!(places(&what_if(&node, without, 0)), [4], "adding it later does not bring it back");
    let alone = Change { rules: vec![allow(only(BOB))], only: true, ..Change::default() };
    assert_eq!(places(&what_if(&node, alone, 0)), [1, 2, 4]);
}

#[test]
fn who_can_names_active_identities_with_rule_and_conditions() {
    let mut soon = rule("soon", 200, PolicyEffect::AllowWithConditions, only(ALICE));
    soon.restrictions = vec![Restriction {
        name: "never".to_owned(),
        condition: PolicyCondition::Never,
        limits: Default::default(),
    }];
    let file = PolicyCondition::Resource(ResourceMatcher::PathPrefix("/a".to_owned()));
    let users = PolicyCondition::Or(vec![only(BOB), only(KEYS)]);
    let mut state = state(vec![soon, allow(PolicyCondition::And(vec![file, users]))]);
    let who = |state: &crate::core::PolicyState, path: &str| {
        let found = who_can(state, ActionKind::ReadFile, path, NOW).unwrap();
        found.into_iter().map(|one| (one.name, one.rule.to_string(), one.unmet.is_some())).collect::<Vec<_>>()
    };
    let alice = ("alice@example".to_owned(), "soon".to_owned(), true);
    let bob = ("bob".to_owned(), "allow".to_owned(), false);
    let keys = ("orbital.services.keys".to_owned(), "allow".to_owned(), false);
    assert_eq!(who(&state, "/a/b"), [alice.clone(), bob, keys.clone()]);
    assert_eq!(who(&state, "/b"), std::slice::from_ref(&alice));
    state.apply(at(1), &status(BOB, IdentityStatus::Active, IdentityStatus::Suspended));
    assert_eq!(who(&state, "/a/b"), [alice, keys]);
    assert!(who_can(&state, ActionKind::Sign, "no path", NOW).unwrap_err().to_string().contains("no path"));
}

/// What is asked by kind and resource is what rules see of the real action.
#[test]
fn every_kind_of_action_can_be_asked_about() {
    for action in super::support::all_actions() {
        let real = request(BOB, action);
        let kind = real.action.kind();
        let asked = request_for(id(BOB), kind, &real.resource.id, Default::default()).unwrap();
        assert_eq!((asked.action.kind(), &asked.resource), (kind, &real.resource));
        let exact = PolicyCondition::Resource(ResourceMatcher::Exact(real.resource.clone()));
        let state = state(vec![allow(exact)]);
        assert_eq!(crate::core::decide(&state, &asked, NOW).effect, PolicyEffect::Allow, "{kind:?}");
    }
    let terminate = PolicyAction::TerminateProcess { pid: base::ProcessId(7) };
    assert_eq!(request(BOB, terminate.clone()).resource, terminate.resource().unwrap());
}
