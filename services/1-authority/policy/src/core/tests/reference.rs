//! The index must be invisible (POL-52): a linear evaluator, written from the specification's words, gives the same answers.

use base::{AxiomTime, IdentityId, KeyPath, RuleId};
use chain::payload::{
    identity::{IdentityCreated, IdentityType},
    policy::{
        ActionKind, ActionMatcher, IdentityMatcher, PolicyAction, PolicyCondition, PolicyEffect,
        PolicyRequest, PolicyRule, ResourceMatcher, ResourceRef, ResourceType, Restriction,
    },
};
use proptest::prelude::*;

use super::support::{
    ADMIN, ALICE, BOB, KEYS, NOW, ORG, ROOT, SECOND, added, at, born, envelope, id, people, removed, request,
    rule, rule_id, state,
};
use crate::core::{decide, evaluate, glob, unmet};
use base::DurationNs;
use chain::payload::Payload;

/// Requestors of random requests; 200 has a parent that nobody knows.
const WHO: [u8; 6] = [ROOT, ADMIN, ALICE, BOB, KEYS, 200];

fn orphan() -> IdentityCreated {
    born(200, "orphan", IdentityType::User, Some(201), "/orbital/users/orphan")
}

/// Every allowed decision: its rule, its requestor, its time.
type History = Vec<(RuleId, IdentityId, AxiomTime)>;

/// None: cannot be told.
fn holds(
    condition: &PolicyCondition,
    rule: &RuleId,
    request: &PolicyRequest,
    who: &IdentityCreated,
    now: AxiomTime,
    history: &History,
) -> Option<bool> {
    let inner = |c: &PolicyCondition| holds(c, rule, request, who, now, history);
    match condition {
        PolicyCondition::Always => Some(true),
        PolicyCondition::Never => Some(false),
        PolicyCondition::And(all) => {
            let all: Vec<_> = all.iter().map(inner).collect();
            if all.contains(&Some(false)) {
                Some(false)
            } else {
                all.into_iter().collect::<Option<Vec<_>>>().map(|_| true)
            }
        }
        PolicyCondition::Or(any) => {
            let any: Vec<_> = any.iter().map(inner).collect();
            if any.contains(&Some(true)) {
                Some(true)
            } else {
                any.into_iter().collect::<Option<Vec<_>>>().map(|_| false)
            }
        }
        PolicyCondition::Not(c) => inner(c).map(|held| !held),
        PolicyCondition::Before(time) => Some(now < *time),
        PolicyCondition::After(time) => Some(*time <= now),
        PolicyCondition::RateLimit { count, window } => {
            let counts = |(by, whose, time): &&(RuleId, IdentityId, AxiomTime)| {
                by == rule && *whose == request.requestor && now.0 - time.0 < window.0
            };
            Some(history.iter().filter(counts).count() < *count as usize)
        }
        PolicyCondition::Action(ActionMatcher::Kind(kind)) => Some(request.action.kind() == *kind),
        PolicyCondition::Action(ActionMatcher::AnyOf(kinds)) => Some(kinds.contains(&request.action.kind())),
        PolicyCondition::Identity(matcher) => match matcher {
            IdentityMatcher::Exact(id) => Some(request.requestor == *id),
            IdentityMatcher::Type(kind) => Some(who.identity_type == *kind),
            IdentityMatcher::Pattern(pattern) => glob::matches(pattern, &who.name, '.').ok(),
            IdentityMatcher::Group(group) => in_group(who.identity_id, *group),
        },
        PolicyCondition::Resource(matcher) => resource(matcher, &request.resource, who),
    }
}

fn in_group(member: IdentityId, group: IdentityId) -> Option<bool> {
    if member == group {
        return Some(true);
    }
    let all: Vec<_> = people().into_iter().chain([orphan()]).collect();
    match all.iter().find(|p| p.identity_id == member)?.parent {
        None => Some(false),
        Some(parent) => in_group(parent, group),
    }
}

fn resource(matcher: &ResourceMatcher, resource: &ResourceRef, who: &IdentityCreated) -> Option<bool> {
    let parts = |path: &str| path.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    match matcher {
        ResourceMatcher::Exact(wanted) => Some(wanted == resource),
        ResourceMatcher::Type(kind) => Some(resource.resource_type == *kind),
        ResourceMatcher::Pattern(pattern) => glob::matches(pattern, &resource.id, '/').ok(),
        ResourceMatcher::PathPrefix(prefix) => {
            let normal = prefix == "/"
                || (prefix.starts_with('/') && !prefix.ends_with('/') && !prefix.contains("//"));
            let is_path = resource.id.starts_with('/');
            normal.then(|| is_path && parts(&resource.id).starts_with(&parts(prefix)))
        }
        ResourceMatcher::OwnKeyPath if resource.resource_type != ResourceType::Key => Some(false),
        ResourceMatcher::OwnKeyPath => {
            let path = KeyPath::parse(&resource.id).unwrap();
            Some(path == who.key_path || path.is_child_of(&who.key_path))
        }
    }
}

/// Effect, deciding rule and everything that matched, by trying every rule.
fn linear(
    rules: &[PolicyRule],
    request: &PolicyRequest,
    now: AxiomTime,
    history: &History,
) -> (PolicyEffect, String, Vec<String>) {
    let who = people().into_iter().chain([orphan()]).find(|p| p.identity_id == request.requestor).unwrap();
    let mut sorted: Vec<_> = rules.iter().collect();
    let rank = |effect| match effect {
        PolicyEffect::Deny => 0,
        PolicyEffect::AllowWithConditions => 1,
        PolicyEffect::Allow => 2,
    };
    sorted.sort_by_key(|r| (std::cmp::Reverse(r.priority), rank(r.effect), r.id.clone()));
    let found: Vec<_> = sorted
        .into_iter()
        .map(|r| (r, holds(&r.condition, &r.id, request, &who, now, history)))
        .filter(|(_, held)| *held != Some(false))
        .collect();
    let names = found.iter().map(|(r, _)| r.id.to_string()).collect();
    match found.first() {
        None => (PolicyEffect::Deny, "DEFAULT_DENY".to_owned(), names),
        Some((rule, None)) => (PolicyEffect::Deny, rule.id.to_string(), names),
        Some((rule, Some(_))) => (rule.effect, rule.id.to_string(), names),
    }
}

const PATHS: [&str; 8] =
    ["/", "/a", "/a/b", "/a/bc", "/a/b/c", "/a/b/c/d/e/f", "/data", "/orbital/users/bob/k"];

fn path() -> impl Strategy<Value = String> {
    let deep = (1..60_usize).prop_map(|n| "/x".repeat(n));
    prop_oneof![
        4 => proptest::sample::select(&PATHS[..]).prop_map(str::to_owned),
        1 => deep,
    ]
}

fn resource_matcher() -> impl Strategy<Value = ResourceMatcher> {
    let patterns = ["/a/*", "/a/**", "/a/b", "**", "/*/b", "/a/b?", "***", "", "/data*", "keys", "*"];
    let types = [ResourceType::File, ResourceType::Key, ResourceType::Network, ResourceType::Service];
    prop_oneof![
        (proptest::sample::select(types.to_vec()), path())
            .prop_map(|(resource_type, id)| ResourceMatcher::Exact(ResourceRef { resource_type, id })),
        path().prop_map(ResourceMatcher::PathPrefix),
        proptest::sample::select(vec!["a", "/a/", "//a"])
            .prop_map(|p| ResourceMatcher::PathPrefix(p.to_owned())),
        proptest::sample::select(patterns.to_vec()).prop_map(|p| ResourceMatcher::Pattern(p.to_owned())),
        proptest::sample::select(types.to_vec()).prop_map(ResourceMatcher::Type),
        Just(ResourceMatcher::OwnKeyPath),
    ]
}

fn identity_matcher() -> impl Strategy<Value = IdentityMatcher> {
    let names = ["bob", "*", "**", "orbital.services.*", "*@example", "***", "alice@example"];
    let types = [IdentityType::System, IdentityType::User, IdentityType::Service];
    let who = proptest::sample::select([&WHO[..], &[ORG, 201]].concat());
    prop_oneof![
        who.clone().prop_map(|n| IdentityMatcher::Exact(id(n))),
        who.prop_map(|n| IdentityMatcher::Group(id(n))),
        proptest::sample::select(names.to_vec()).prop_map(|p| IdentityMatcher::Pattern(p.to_owned())),
        proptest::sample::select(types.to_vec()).prop_map(IdentityMatcher::Type),
    ]
}

const KINDS: [ActionKind; 5] = [
    ActionKind::ReadFile,
    ActionKind::WriteFile,
    ActionKind::Sign,
    ActionKind::Connect,
    ActionKind::ControlService,
];

fn condition() -> impl Strategy<Value = PolicyCondition> {
    let kinds = || proptest::sample::select(&KINDS[..]);
    let leaf = prop_oneof![
        1 => Just(PolicyCondition::Always),
        1 => Just(PolicyCondition::Never),
        4 => identity_matcher().prop_map(PolicyCondition::Identity),
        4 => resource_matcher().prop_map(PolicyCondition::Resource),
        2 => kinds().prop_map(|k| PolicyCondition::Action(ActionMatcher::Kind(k))),
        2 => proptest::collection::vec(kinds(), 0..3).prop_map(|k| PolicyCondition::Action(ActionMatcher::AnyOf(k))),
        1 => (0..3_u64).prop_map(|s| PolicyCondition::Before(AxiomTime(NOW.0 + s * SECOND - SECOND))),
        1 => (0..3_u64).prop_map(|s| PolicyCondition::After(AxiomTime(NOW.0 + s * SECOND - SECOND))),
        1 => (0..4_u32, 1..4_u64).prop_map(|(count, n)| PolicyCondition::RateLimit { count, window: DurationNs(n * SECOND / 2) }),
    ];
    leaf.prop_recursive(4, 24, 10, |inner| {
        prop_oneof![
            3 => proptest::collection::vec(inner.clone(), 0..4).prop_map(PolicyCondition::And),
            2 => proptest::collection::vec(inner.clone(), 0..11).prop_map(PolicyCondition::Or),
            1 => inner.prop_map(|c| PolicyCondition::Not(Box::new(c))),
        ]
    })
}

fn rules() -> impl Strategy<Value = Vec<PolicyRule>> {
    let effect = proptest::sample::select(vec![
        PolicyEffect::Allow,
        PolicyEffect::Deny,
        PolicyEffect::AllowWithConditions,
    ]);
    proptest::collection::vec((condition(), 0..4_u32, effect), 0..24).prop_map(|drawn| {
        let numbered = drawn.into_iter().enumerate();
        numbered.map(|(n, (c, priority, effect))| rule(&format!("r{n}"), priority, effect, c)).collect()
    })
}

fn any_request() -> impl Strategy<Value = PolicyRequest> {
    let action = prop_oneof![
        3 => path().prop_map(|path| PolicyAction::ReadFile { path }),
        1 => path().prop_map(|path| PolicyAction::WriteFile { path }),
        2 => proptest::sample::select(vec!["/orbital/users/bob/k", "/orbital/users/bob", "/a/b", "/a"])
            .prop_map(|p| PolicyAction::Encrypt { key_path: KeyPath::parse(p).unwrap() }),
        1 => Just(PolicyAction::Connect { address: "192.0.2.1:443".to_owned() }),
        1 => Just(PolicyAction::ControlService {
            service: "keys".to_owned(),
            operation: chain::payload::policy::ServiceOperation::Stop,
        }),
    ];
    (proptest::sample::select(&WHO[..]), action).prop_map(|(who, action)| request(who, action))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// covers: POL-21, POL-27, POL-33, POL-40, POL-52
    #[test]
    fn the_index_gives_what_trying_every_rule_gives(
        rules in rules(), requests in proptest::collection::vec(any_request(), 1..8), gone in 0..24_usize,
    ) {
        let mut state = state(rules.clone());
        state.apply(at(1), &Payload::IdentityCreated(envelope(orphan())));
        let mut left = rules;
        for round in 0..2 {
            for request in &requests {
                let body = evaluate(&state, request, NOW).unwrap();
                let (effect, deciding, matched) = linear(&left, request, NOW, &Vec::new());
                prop_assert_eq!(body.matched_rules.iter().map(ToString::to_string).collect::<Vec<_>>(), matched);
                prop_assert_eq!(body.deciding_rule.to_string(), deciding);
                prop_assert_eq!(body.effect, effect);
                prop_assert_eq!(body.reason.is_some(), effect == PolicyEffect::Deny);
            }
            if round == 0 && gone < left.len() {
                state.apply(at(2), &removed(&format!("r{gone}")));
                left.remove(gone);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// covers: POL-38
    #[test]
    fn a_set_of_rules_has_one_hash_whatever_its_history(rules in rules()) {
        let whole = state(rules.clone());
        let mut grown = state(vec![]);
        let mut sequence = 1;
        for rule in rules.iter().rev() {
            grown.apply(at(sequence), &added(rule.clone()));
            sequence += 1;
        }
        prop_assert_eq!(whole.state_hash(), grown.state_hash());
        grown.apply(at(sequence), &added(rule("extra", 1, PolicyEffect::Deny, PolicyCondition::Always)));
        prop_assert_ne!(whole.state_hash(), grown.state_hash());
        grown.apply(at(sequence + 1), &removed("extra"));
        prop_assert_eq!(whole.state_hash(), grown.state_hash());
        prop_assert!(grown.rules().get(&rule_id("extra")).is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Requests one after the other, each decision recorded: rate limits count as a list of everything recorded does,
    /// and a restriction refuses an act exactly if one of them does not certainly hold.
    ///
    /// covers: POL-22, POL-35
    #[test]
    fn rates_and_restrictions_are_what_counting_the_recorded_decisions_gives(
        mut rules in rules(), restriction in condition(),
        requests in proptest::collection::vec((any_request(), 0..1200_u64), 1..16),
    ) {
        for rule in rules.iter_mut().filter(|rule| rule.effect == PolicyEffect::AllowWithConditions) {
            rule.restrictions =
                vec![Restriction { name: "r".to_owned(), condition: restriction.clone(), limits: Default::default() }];
        }
        let mut state = state(rules.clone());
        state.apply(at(1), &Payload::IdentityCreated(envelope(orphan())));
        let (mut history, mut now) = (History::new(), NOW);
        for (n, (request, pause_ms)) in requests.iter().enumerate() {
            now = now.saturating_add(pause_ms * SECOND / 1000);
            let body = evaluate(&state, request, now).unwrap();
            let (effect, deciding, matched) = linear(&rules, request, now, &history);
            prop_assert_eq!(body.matched_rules.iter().map(ToString::to_string).collect::<Vec<_>>(), matched);
            prop_assert_eq!((body.effect, body.deciding_rule.to_string()), (effect, deciding));
            let who = people().into_iter().chain([orphan()]).find(|p| p.identity_id == request.requestor).unwrap();
            let met = effect != PolicyEffect::AllowWithConditions
                || holds(&restriction, &body.deciding_rule, request, &who, now, &history) == Some(true);
            prop_assert_eq!(unmet(&state, &body, now, None).is_none(), met);
            if body.allows() {
                history.push((body.deciding_rule.clone(), request.requestor, now));
            }
            state.fold_decision(Some(at(2 + n as u64)), &std::sync::Arc::new(body));
        }
    }
}

/// covers: POL-21
#[test]
fn more_matches_than_can_be_recorded_deny() {
    use crate::core::limits::MATCHED_RULES_MAX;
    let many = |n: usize| {
        (0..n)
            .map(|n| rule(&format!("r{n}"), 1, PolicyEffect::Allow, PolicyCondition::Always))
            .collect::<Vec<_>>()
    };
    let request = super::support::read(BOB, "/a");
    let (fits, over) = (state(many(MATCHED_RULES_MAX)), state(many(MATCHED_RULES_MAX + 1)));
    assert_eq!(decide(&fits, &request, NOW).effect, PolicyEffect::Allow);
    let denied = decide(&over, &request, NOW);
    assert_eq!((denied.effect, denied.matched.len()), (PolicyEffect::Deny, 0));
}
