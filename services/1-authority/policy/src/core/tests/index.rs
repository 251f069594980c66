//! The index offers every rule that may match (`reference.rs` shows that) and few others, which is what it is for.

use chain::payload::{
    identity::IdentityType,
    policy::{
        ActionKind, ActionMatcher, IdentityMatcher, PolicyAction, PolicyCondition, ResourceMatcher,
        ResourceRef, ResourceType,
    },
};

use super::support::{ADMIN, ALICE, BOB, KEYS, ORG, ROOT, id, request, state};
use crate::core::{anchor::Anchors, index::Index};

use PolicyCondition::{Always, And, Never, Not, Or};

/// Positions of the conditions that a request by this identity would be tried against.
fn offered(conditions: &[PolicyCondition], who: u8, action: PolicyAction) -> Vec<usize> {
    let mut index = Index::default();
    for (slot, condition) in conditions.iter().enumerate() {
        index.insert(slot as u32, &Anchors::of(condition));
    }
    look_up(&index, who, action)
}

fn look_up(index: &Index, who: u8, action: PolicyAction) -> Vec<usize> {
    let state = state(vec![]);
    let request = request(who, action);
    let mut found = Vec::new();
    let requestor = state.identities().get(&id(who)).unwrap();
    index.candidates(requestor, request.action.kind(), &request.resource, |slot| found.push(slot as usize));
    found.sort_unstable();
    found.dedup();
    found
}

fn read(path: &str) -> PolicyAction {
    PolicyAction::ReadFile { path: path.to_owned() }
}

/// Each condition alone, against Alice's reading of `/a/b/c`.
fn check(table: Vec<(PolicyCondition, bool)>) {
    for (condition, expected) in table {
        let found = offered(std::slice::from_ref(&condition), ALICE, read("/a/b/c"));
        assert_eq!(!found.is_empty(), expected, "{condition:?}");
    }
}

fn exact(who: u8) -> PolicyCondition {
    PolicyCondition::Identity(IdentityMatcher::Exact(id(who)))
}

fn group(who: u8) -> PolicyCondition {
    PolicyCondition::Identity(IdentityMatcher::Group(id(who)))
}

fn named(pattern: &str) -> PolicyCondition {
    PolicyCondition::Identity(IdentityMatcher::Pattern(pattern.to_owned()))
}

fn of_type(kind: IdentityType) -> PolicyCondition {
    PolicyCondition::Identity(IdentityMatcher::Type(kind))
}

fn on(matcher: ResourceMatcher) -> PolicyCondition {
    PolicyCondition::Resource(matcher)
}

fn thing(resource_type: ResourceType, id: &str) -> PolicyCondition {
    on(ResourceMatcher::Exact(ResourceRef { resource_type, id: id.to_owned() }))
}

fn below(prefix: &str) -> PolicyCondition {
    on(ResourceMatcher::PathPrefix(prefix.to_owned()))
}

fn like(pattern: &str) -> PolicyCondition {
    on(ResourceMatcher::Pattern(pattern.to_owned()))
}

fn kind(kind: ActionKind) -> PolicyCondition {
    PolicyCondition::Action(ActionMatcher::Kind(kind))
}

fn any_of(kinds: &[ActionKind]) -> PolicyCondition {
    PolicyCondition::Action(ActionMatcher::AnyOf(kinds.to_vec()))
}

fn not(inner: PolicyCondition) -> PolicyCondition {
    Not(Box::new(inner))
}

#[test]
fn by_what_a_requestor_is() {
    check(vec![
        (exact(ALICE), true),
        (exact(BOB), false),
        (group(ALICE), true),
        (group(ORG), true),
        (group(ROOT), true),
        (group(BOB), false),
        (named("alice@example"), true),
        (named("bob"), false),
        (named("b*"), true),
        (named("***"), true),
        (of_type(IdentityType::User), true),
        (of_type(IdentityType::System), false),
        (of_type(IdentityType::Organization), false),
        (of_type(IdentityType::Service), false),
        (of_type(IdentityType::Node), false),
    ]);
}

#[test]
fn by_what_a_resource_is() {
    check(vec![
        (thing(ResourceType::File, "/a/b/c"), true),
        (thing(ResourceType::Key, "/a/b/c"), false),
        (thing(ResourceType::File, "/a/b"), false),
        (below("/"), true),
        (below("/a/b"), true),
        (below("/a/b/c"), true),
        (below("/a/bc"), false),
        (below("/a/b/c/d"), false),
        (below("/b"), false),
        (below("/a/"), true),
        (like("/a/b/c"), true),
        (like("/a/b"), false),
        (like("/a/*"), true),
        (like("/a/b/x*"), true),
        (like("/b/*"), false),
        (like("/a/bc/*"), false),
        (like("/*/z"), true),
        (like("//x/*"), true),
        (like("**"), true),
        (like("***"), true),
        (on(ResourceMatcher::Type(ResourceType::File)), true),
        (on(ResourceMatcher::Type(ResourceType::Key)), false),
        (on(ResourceMatcher::Type(ResourceType::Network)), false),
        (on(ResourceMatcher::Type(ResourceType::Service)), false),
        (on(ResourceMatcher::OwnKeyPath), false),
    ]);
}

#[test]
fn by_the_kind_of_action() {
    use ActionKind::{ReadFile, Sign, WriteFile};
    check(vec![
        (Always, true),
        (Never, false),
        (not(Always), false),
        (not(Never), true),
        (kind(ReadFile), true),
        (kind(WriteFile), false),
        (any_of(&[]), false),
        (any_of(&[WriteFile, ReadFile]), true),
        (any_of(&[ReadFile, ReadFile]), true),
        (any_of(&[WriteFile, Sign]), false),
        (not(kind(ReadFile)), false),
        (not(kind(WriteFile)), true),
        (not(any_of(&[ReadFile, Sign])), false),
        (And(vec![kind(ReadFile), any_of(&[ReadFile, Sign])]), true),
        (And(vec![kind(ReadFile), kind(WriteFile)]), false),
        (Or(vec![kind(WriteFile), kind(Sign)]), false),
        (Or(vec![kind(ReadFile), kind(ReadFile)]), true),
        (Or(vec![kind(ReadFile), Never]), true),
        (Or(vec![]), false),
    ]);
}

#[test]
fn of_several_needs_the_most_telling_one_is_looked_up() {
    let file = || on(ResourceMatcher::Type(ResourceType::File));
    let mut table = Vec::new();
    for other in [ROOT, ADMIN, ORG, BOB, KEYS] {
        for wide in
            [of_type(IdentityType::User), group(ROOT), named("*"), Or(vec![exact(ALICE), exact(other)])]
        {
            table.push((And(vec![wide.clone(), exact(other)]), false));
            table.push((And(vec![exact(other), wide]), false));
        }
    }
    for other in ["/a", "/b", "/z/z", "/0"] {
        for wide in [file(), below("/"), like("**"), Always] {
            table.push((And(vec![wide.clone(), thing(ResourceType::File, other)]), false));
            table.push((And(vec![thing(ResourceType::File, other), wide]), false));
        }
    }
    table.push((And(vec![exact(ALICE), below("/b")]), false));
    table.push((And(vec![exact(BOB), below("/a")]), false));
    table.push((And(vec![exact(ALICE), below("/a")]), true));
    check(table);
}

#[test]
fn alternatives_are_looked_up_one_by_one_until_they_are_too_many() {
    let others = |n: u8| Or((0..n).map(|n| exact(20 + n)).collect());
    check(vec![
        (Or(vec![exact(BOB), exact(ALICE)]), true),
        (Or(vec![exact(BOB), exact(KEYS)]), false),
        (Or(vec![exact(BOB), Never]), false),
        (Or(vec![Never, exact(BOB)]), false),
        (Or(vec![exact(BOB), Always]), true),
        (Or(vec![exact(BOB), below("/b")]), true),
        (others(8), false),
        (others(9), true),
    ]);
}

#[test]
fn a_thousand_rules_about_others_are_not_looked_at() {
    let text = |n: usize| format!("/data/{n}");
    let make: [&dyn Fn(usize) -> PolicyCondition; 5] = [
        &|n| thing(ResourceType::File, &text(n)),
        &|n| below(&text(n)),
        &|n| like(&text(n)),
        &|n| like(&format!("{}/*", text(n))),
        &|n| And(vec![below("/data"), named(&format!("user{n}"))]),
    ];
    for (kind, make) in make.iter().enumerate() {
        let conditions: Vec<_> = (0..1000).map(make).collect();
        for wanted in [0, 7, 999] {
            let found = offered(&conditions, ALICE, read(&text(wanted)));
            assert_eq!(found, if kind == 4 { vec![] } else { vec![wanted] }, "{:?}", conditions[wanted]);
        }
    }
    let conditions: Vec<_> = (0..250).map(exact).collect();
    assert_eq!(offered(&conditions, ALICE, read("/a")), [usize::from(ALICE)]);
}

#[test]
fn a_prefix_deeper_than_has_keys_of_its_own_is_found_under_a_shorter_one() {
    let path = |part: &str, n: usize| part.repeat(n);
    for n in [1, 2, 31, 32, 33, 60] {
        let condition = [below(&path("/x", n))];
        assert_eq!(offered(&condition, ALICE, read(&path("/x", n))), [0], "{n}");
        assert_eq!(offered(&condition, ALICE, read(&path("/x", n + 3))), [0], "{n}");
        assert_eq!(offered(&condition, ALICE, read(&path("/y", n))), [0; 0], "{n}");
        // From the thirty-third component on they lie together.
        let shorter = if n > 32 { vec![0] } else { vec![] };
        let above = path("/x", n.min(33) - 1) + if n == 1 { "/" } else { "" };
        assert_eq!(offered(&condition, ALICE, read(&above)), shorter, "{n}");
    }
}

#[test]
fn what_is_removed_is_not_offered_and_the_rest_is() {
    let conditions = [exact(ALICE), exact(ALICE), exact(ALICE), Or(vec![exact(ALICE), exact(BOB)])];
    let mut index = Index::default();
    let mut left: Vec<usize> = (0..conditions.len()).collect();
    for (slot, condition) in conditions.iter().enumerate() {
        index.insert(slot as u32, &Anchors::of(condition));
    }
    for gone in [1, 3, 0, 2] {
        assert_eq!(look_up(&index, ALICE, read("/a")), left);
        index.remove(gone as u32, &Anchors::of(&conditions[gone]));
        left.retain(|slot| *slot != gone);
        assert_eq!(
            look_up(&index, BOB, read("/a")),
            left.iter().copied().filter(|s| *s == 3).collect::<Vec<_>>()
        );
    }
    assert_eq!(look_up(&index, ALICE, read("/a")), left);
    // The slot is used again: another's removal leaves it alone.
    index.insert(0, &Anchors::of(&exact(ALICE)));
    index.remove(1, &Anchors::of(&exact(ALICE)));
    assert_eq!(look_up(&index, ALICE, read("/a")), [0]);
}
