//! What `cedar.rs` draws at random: people, acts, rules of every kind, and policies as text.

use base::{AxiomTime, DurationNs, Hash, IdentityId, KeyPath, PublicKey, RuleId};
use chain::payload::{
    identity::{IdentityCreated, IdentityType},
    policy::{
        ActionKind, ActionMatcher, IdentityMatcher, PolicyCondition, PolicyEffect, PolicyRule,
        ResourceMatcher, ResourceRef, ResourceType, Restriction,
    },
};
use policy::cases::id_of;
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

/// 2026-01-01.
pub(crate) const NOW: AxiomTime = AxiomTime(1_767_225_600_000_000_000);
pub(crate) const ALLOW_ALL: &str =
    "[[rule]]\nid = \"all\"\nname = \"All\"\npriority = 1\neffect = \"Allow\"\ncondition = \"always\"\n";

/// Parents stand before their children. One name holds everything that a string or a pattern must escape.
const PEOPLE: [(&str, IdentityType, Option<&str>); 7] = [
    ("orbital", IdentityType::System, None),
    ("example", IdentityType::Organization, Some("orbital")),
    ("alice@example", IdentityType::User, Some("example")),
    ("carol.alice@example", IdentityType::User, Some("alice@example")),
    ("bob", IdentityType::User, Some("orbital")),
    ("orbital.services.keys", IdentityType::Service, Some("orbital")),
    ("a*b?\"\\\u{202e}é", IdentityType::Node, Some("orbital")),
];

pub(crate) fn people() -> Vec<IdentityCreated> {
    let person =
        |(n, (name, identity_type, parent)): (usize, (&str, IdentityType, Option<&str>))| IdentityCreated {
            identity_id: id_of(name),
            name: name.to_owned(),
            identity_type,
            parent: parent.map(id_of),
            public_key: PublicKey(id_of(name).0),
            key_path: KeyPath::parse(&format!("/orbital/users/p{n}")).unwrap(),
        };
    PEOPLE.into_iter().enumerate().map(person).collect()
}

const PATHS: [&str; 11] = [
    "/",
    "/a",
    "/a/b",
    "/a/bc",
    "/a/b/c",
    "/a/b/c/d/e",
    "/data",
    "/a*b",
    "/a*b/c",
    "/a?b",
    "/é\"\\\u{202e}/x",
];

/// Every kind of action on every type of resource; a type of its own where the action names none.
pub(crate) fn acts() -> Vec<(ActionKind, String, Option<ResourceType>)> {
    use ActionKind as A;
    let files = [A::CreateFile, A::ReadFile, A::WriteFile, A::DeleteFile];
    let keys = ["/orbital/users/p4", "/orbital/users/p4/k", "/a/b", "/a"];
    let mut all: Vec<(ActionKind, String, Option<ResourceType>)> = Vec::new();
    let mut on = |kind, id: &str| all.push((kind, id.to_owned(), None));
    for (n, path) in PATHS.iter().enumerate() {
        on(A::ReadFile, path);
        on(files[n % files.len()], path);
    }
    for (n, path) in keys.iter().enumerate() {
        on(A::Sign, path);
        on([A::Encrypt, A::Decrypt][n % 2], path);
    }
    for kind in [A::CreateIdentity, A::AddCredential, A::RevokeCredential, A::ModifyIdentity, A::Authenticate]
    {
        on(kind, &id_of("bob").to_string());
    }
    on(A::ModifyIdentity, &id_of("nobody").to_string());
    on(A::Connect, "192.0.2.1:443");
    on(A::Listen, "[::1]:80");
    on(A::ControlService, "keys");
    on(A::TerminateProcess, "7");
    on(A::ControlProcess, "7");
    on(A::ModifyPolicy, "r0");
    on(A::CreateProcess, &Hash::ZERO.to_string());
    on(A::UpgradeSystem, &Hash::ZERO.to_string());
    on(A::RevokeCapability, "7");
    // A key that has no key path: the own key path cannot be told.
    all.push((A::DelegateCapability, "/".to_owned(), Some(ResourceType::Key)));
    all.push((A::DelegateCapability, "/a/b".to_owned(), Some(ResourceType::File)));
    all
}

const TYPES: [ResourceType; 10] = [
    ResourceType::Process,
    ResourceType::Image,
    ResourceType::File,
    ResourceType::Network,
    ResourceType::Key,
    ResourceType::Identity,
    ResourceType::Capability,
    ResourceType::Policy,
    ResourceType::Service,
    ResourceType::System,
];
const KINDS: [ActionKind; 6] = [
    ActionKind::ReadFile,
    ActionKind::WriteFile,
    ActionKind::Sign,
    ActionKind::Connect,
    ActionKind::ModifyIdentity,
    ActionKind::DelegateCapability,
];
/// Globs that Cedar can say, without those that together with another are said shorter.
const GLOBS: [&str; 17] = [
    "/a/*", "/a/**", "**", "/*/b", "/*", "*", "/**", "/a*", "**/c", "/a/*/*", "**b**", "/é**", "*:443",
    "**:**", "/a/b*", "keys", "7",
];
const OTHER_GLOBS: [&str; 10] =
    ["/a/b?", "***", "", "/a/**/c*", "/a", "/a/b", "**/**", "*/**", "**/**/**", "/data"];
const NAME_GLOBS: [&str; 9] =
    ["bob", "*", "**", "orbital.services.*", "orbital.**", "*@example", "*.*", "o*l", "**alice**"];
const OTHER_NAME_GLOBS: [&str; 5] = ["***", "?ob", "**.*", "orbital", "**.**"];
const IDENTITY_TYPES: [IdentityType; 4] =
    [IdentityType::System, IdentityType::User, IdentityType::Service, IdentityType::Node];

fn who() -> impl Strategy<Value = IdentityId> {
    let known: Vec<IdentityId> = PEOPLE.iter().map(|(name, ..)| id_of(name)).collect();
    select([known, vec![id_of("nobody")]].concat())
}

fn resource() -> impl Strategy<Value = ResourceRef> {
    let others = [
        (ResourceType::Key, "/a/b"),
        (ResourceType::File, "/a*b"),
        (ResourceType::Network, "192.0.2.1:443"),
        (ResourceType::Process, "7"),
        (ResourceType::Capability, "7"),
        (ResourceType::File, "/é\"\\\u{202e}/x"),
    ];
    let of = |(resource_type, id): (ResourceType, &str)| ResourceRef { resource_type, id: id.to_owned() };
    let bob = ResourceRef { resource_type: ResourceType::Identity, id: id_of("bob").to_string() };
    prop_oneof![
        3 => (select(&TYPES[..]), select(&PATHS[..])).prop_map(of),
        2 => select(others.to_vec()).prop_map(of),
        1 => Just(bob),
    ]
}

/// Conditions that Cedar can say, none of them a constant.
fn plain_leaf() -> impl Strategy<Value = PolicyCondition> {
    use PolicyCondition::{Action, After, Before, Identity, Resource};
    let text = |texts: &'static [&'static str]| select(texts).prop_map(str::to_owned);
    let time = || (0..3_u64).prop_map(|n| AxiomTime(NOW.0 - 1 + n));
    let kinds = || select(&KINDS[..]);
    prop_oneof![
        1 => who().prop_map(|id| Identity(IdentityMatcher::Exact(id))),
        2 => who().prop_map(|id| Identity(IdentityMatcher::Group(id))),
        1 => text(&NAME_GLOBS).prop_map(|glob| Identity(IdentityMatcher::Pattern(glob))),
        1 => select(&IDENTITY_TYPES[..]).prop_map(|wanted| Identity(IdentityMatcher::Type(wanted))),
        2 => resource().prop_map(|resource| Resource(ResourceMatcher::Exact(resource))),
        2 => text(&PATHS).prop_map(|path| Resource(ResourceMatcher::PathPrefix(path))),
        2 => text(&GLOBS).prop_map(|glob| Resource(ResourceMatcher::Pattern(glob))),
        1 => select(&TYPES[..]).prop_map(|wanted| Resource(ResourceMatcher::Type(wanted))),
        1 => kinds().prop_map(|kind| Action(ActionMatcher::Kind(kind))),
        1 => vec(kinds(), 1..3).prop_map(|kinds| Action(ActionMatcher::AnyOf(kinds))),
        1 => time().prop_map(Before),
        1 => time().prop_map(After),
    ]
}

fn odd_leaf() -> impl Strategy<Value = PolicyCondition> {
    use PolicyCondition::{Action, Always, Before, Identity, Never, RateLimit, Resource};
    prop_oneof![
        2 => Just(Always),
        2 => Just(Never),
        1 => Just(Action(ActionMatcher::AnyOf(vec![]))),
        1 => Just(Resource(ResourceMatcher::OwnKeyPath)),
        1 => Just(Before(AxiomTime(u64::MAX))),
        1 => (0..2_u32).prop_map(|count| RateLimit { count, window: DurationNs(1) }),
        1 => Just(Resource(ResourceMatcher::PathPrefix("a/".to_owned()))),
        3 => select(&OTHER_GLOBS[..]).prop_map(|glob| Resource(ResourceMatcher::Pattern(glob.to_owned()))),
        1 => select(&OTHER_NAME_GLOBS[..]).prop_map(|glob| Identity(IdentityMatcher::Pattern(glob.to_owned()))),
    ]
}

fn condition() -> impl Strategy<Value = PolicyCondition> {
    prop_oneof![6 => plain_leaf(), 1 => odd_leaf()].prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            3 => vec(inner.clone(), 0..4).prop_map(PolicyCondition::And),
            2 => vec(inner.clone(), 0..4).prop_map(PolicyCondition::Or),
            1 => inner.prop_map(|one| PolicyCondition::Not(Box::new(one))),
        ]
    })
}

fn rule(n: usize, priority: u32, effect: PolicyEffect, condition: PolicyCondition) -> PolicyRule {
    let restrictions = match effect {
        PolicyEffect::AllowWithConditions => {
            vec![Restriction {
                name: "r".to_owned(),
                condition: PolicyCondition::Always,
                limits: Default::default(),
            }]
        }
        _ => vec![],
    };
    let id = RuleId::new(format!("r{n}")).unwrap();
    let description = ["", "a \"quoted\"\n// line"][n % 2].to_owned();
    PolicyRule { name: format!("Rule {n}"), id, description, priority, condition, effect, restrictions }
}

fn rules_of(
    condition: impl Strategy<Value = PolicyCondition>,
    effects: Vec<PolicyEffect>,
) -> impl Strategy<Value = Vec<PolicyRule>> {
    vec((condition, 0..4_u32, select(effects)), 0..8).prop_map(|drawn| {
        let numbered = drawn.into_iter().enumerate();
        numbered.map(|(n, (condition, priority, effect))| rule(n, priority, effect, condition)).collect()
    })
}

pub(crate) fn rules() -> impl Strategy<Value = Vec<PolicyRule>> {
    use PolicyEffect::{Allow, AllowWithConditions, Deny};
    rules_of(condition(), vec![Allow, Allow, Allow, Deny, Deny, AllowWithConditions])
}

/// Rules in the form in which they come back: no member of an `and` is an `and`, none of an `or` an `or`.
pub(crate) fn plain_rules() -> impl Strategy<Value = Vec<PolicyRule>> {
    let negated = |one| PolicyCondition::Not(Box::new(one));
    let leaf = || prop_oneof![4 => plain_leaf(), 1 => plain_leaf().prop_map(negated)];
    let or = vec(leaf(), 2..4).prop_map(PolicyCondition::Or);
    let not = vec(leaf(), 2..4).prop_map(PolicyCondition::And).prop_map(negated);
    let and = vec(prop_oneof![4 => leaf(), 1 => or.clone(), 1 => not], 2..5).prop_map(PolicyCondition::And);
    let either = vec(prop_oneof![2 => leaf(), 1 => and.clone()], 2..4).prop_map(PolicyCondition::Or);
    let whole = prop_oneof![
        2 => leaf(), 4 => and, 1 => or, 1 => either,
        1 => Just(PolicyCondition::Always), 1 => Just(PolicyCondition::Never),
    ];
    rules_of(whole, vec![PolicyEffect::Allow, PolicyEffect::Allow, PolicyEffect::Deny])
}

fn entity() -> impl Strategy<Value = String> {
    who().prop_map(|id| format!("Identity::\"{id}\""))
}

fn action() -> impl Strategy<Value = String> {
    let words =
        ["read_file", "write_file", "sign", "modify_identity", "delegate_\\u{63}apability", "connect"];
    select(words.to_vec()).prop_map(|word| format!("Action::\"{word}\""))
}

fn thing() -> impl Strategy<Value = String> {
    let things = [
        "File::\"/a/b\"",
        "File::\"/\\x61*b\"",
        "Key::\"/a/b\"",
        "Network::\"192.0.2.1:443\"",
        "Process::\"7\"",
        "File::\"/é\\\"\\\\\\u{202e}/x\"",
    ];
    select(things.to_vec()).prop_map(str::to_owned)
}

fn comparison() -> impl Strategy<Value = String> {
    let orders = || select(vec!["<", "<=", ">", ">=", "==", "!="]);
    let equals = || select(vec!["==", "!="]);
    let time = || (0..3_u64).prop_map(|n| NOW.0 - 1 + n);
    let names = select(vec!["\"bob\"", "\"\\u{62}o\\x62\"", "\"orbital\"", "\"alice@example\""]);
    let types = select(vec!["\"System\"", "\"User\"", "\"Node\""]);
    let name_patterns =
        select(vec!["\"*\"", "\"**\"", "\"orbital.*\"", "\"*@\\u{2a}\"", "\"bob\"", "\"*b\""]);
    let patterns =
        select(vec!["\"/a/*\"", "\"*/*\"", "\"/a\"", "\"*:443\"", "\"*\"", "\"/*/b\"", "\"*/*/*\""]);
    let kinds = select(vec!["File", "Key", "Network", "Identity", "Capability"]);
    let fixed = select(vec![
        "true",
        "false",
        "principal has name",
        "resource has \"id\"",
        "context has now",
        "principal is Identity",
        "action in [ ]",
        "principal in [ ]",
        "( resource . id == \"/a\" || resource . id like \"/a/*\" )",
        "( resource . id like \"/a/*\" && ! ( resource . id like \"*/*/*/*\" ) )",
    ]);
    prop_oneof![
        (equals(), entity()).prop_map(|(sign, who)| format!("principal {sign} {who}")),
        (equals(), entity()).prop_map(|(sign, who)| format!("{who} {sign} principal")),
        entity().prop_map(|who| format!("principal in {who}")),
        (entity(), entity()).prop_map(|(one, other)| format!("principal in [ {one} , {other} , ]")),
        entity().prop_map(|who| format!("principal is Identity in {who}")),
        (equals(), names.clone()).prop_map(|(sign, name)| format!("principal . name {sign} {name}")),
        names.prop_map(|name| format!("{name} == principal [ \"name\" ]")),
        (equals(), types).prop_map(|(sign, name)| format!("principal . type {sign} {name}")),
        name_patterns.prop_map(|pattern| format!("principal . name like {pattern}")),
        (equals(), action()).prop_map(|(sign, action)| format!("action {sign} {action}")),
        (action(), action()).prop_map(|(one, other)| format!("action in [ {one} , {other} ]")),
        action().prop_map(|action| format!("action in {action}")),
        (equals(), thing()).prop_map(|(sign, thing)| format!("resource {sign} {thing}")),
        kinds.prop_map(|kind| format!("resource is {kind}")),
        patterns.clone().prop_map(|pattern| format!("resource [ \"id\" ] like {pattern}")),
        patterns.prop_map(|pattern| format!("resource . id like {pattern}")),
        (orders(), time()).prop_map(|(sign, time)| format!("context . now {sign} {time}")),
        (orders(), time()).prop_map(|(sign, time)| format!("{time} {sign} context . now")),
        fixed.prop_map(str::to_owned),
    ]
}

/// Without parentheses where Cedar's precedence needs none, so that it is tested.
fn expression() -> impl Strategy<Value = String> {
    comparison().prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            3 => (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("{one} && {other}")),
            3 => (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("{one} || // or\n {other}")),
            2 => inner.clone().prop_map(|one| format!("( {one} )")),
            1 => inner.clone().prop_map(|one| format!("! ( {one} )")),
            1 => inner.clone().prop_map(|one| format!("! ! ! ( {one} )")),
            1 => (inner.clone(), inner.clone(), inner)
                .prop_map(|(one, yes, no)| format!("( if {one} then {yes} else {no} )")),
        ]
    })
}

fn policy() -> impl Strategy<Value = String> {
    let any = |word: &'static str| Just(word.to_owned());
    let principal = prop_oneof![
        3 => any("principal"),
        1 => entity().prop_map(|who| format!("principal == {who}")),
        1 => entity().prop_map(|who| format!("principal in {who}")),
        1 => any("principal is Identity"),
        1 => entity().prop_map(|who| format!("principal is Identity in {who}")),
    ];
    let act = prop_oneof![
        3 => any("action"),
        1 => action().prop_map(|one| format!("action == {one}")),
        1 => action().prop_map(|one| format!("action in {one}")),
        1 => vec(action(), 0..3).prop_map(|some| format!("action in [ {} ]", some.join(" , "))),
    ];
    let resource = prop_oneof![
        3 => any("resource"),
        1 => thing().prop_map(|one| format!("resource == {one}")),
        1 => select(vec!["File", "Key"]).prop_map(|one| format!("resource is {one}")),
    ];
    let head = select(vec![
        "",
        "@id ( \"a-1\" ) ",
        "@priority ( \"7\" ) ",
        "@priority ( \"100\" ) ",
        "@id ( \"no id\" ) @priority ( \"900\" ) ",
        "@doc @name ( \"N\\u{e9}\" ) @description ( \"d\" ) ",
    ]);
    let clause = (select(vec!["when", "unless"]), expression());
    let clauses = vec(clause.prop_map(|(word, inner)| format!(" {word} {{ {inner} }}")), 0..3);
    let effect = select(vec!["permit", "permit", "forbid"]);
    (head, effect, principal, act, resource, clauses).prop_map(
        |(head, effect, principal, act, resource, clauses)| {
            format!("{head}{effect} ( {principal} , {act} , {resource} ){} ;\n", clauses.concat())
        },
    )
}

pub(crate) fn policies() -> impl Strategy<Value = String> {
    vec(policy(), 0..6).prop_map(|all| all.concat())
}

/// Words of the rest of Cedar, and of none.
const WORDS: [&str; 58] = [
    "principal",
    "action",
    "resource",
    "context",
    "resource . owner",
    "principal . manager . name",
    "(",
    ")",
    "&&",
    "||",
    "!",
    "! ! ! !",
    "-",
    "==",
    "=",
    "<",
    "in",
    "is",
    "has",
    "like",
    "[",
    "]",
    "{",
    "}",
    ",",
    ";",
    "1",
    "\"x\"",
    "\"*\"",
    "ip ( \"1.2.3.4\" )",
    ". contains ( principal )",
    "?principal",
    "?other",
    "if",
    "then",
    "else",
    "Identity::\"x\"",
    "User::\"alice\"",
    "A::B::\"c\"",
    "@x ( \"y\" )",
    "@x",
    "::",
    ".",
    "// c\n",
    "\"\\q\"",
    "\"\\*\"",
    "+",
    "* 2",
    "User",
    "9223372036854775807",
    "9223372036854775808",
    "unless",
    "when",
    "permit",
    "true",
    "{ \"a\" : 1 , b : 2 }",
    "%",
    "#",
];

/// Policies with up to three words taken out, put in, doubled or exchanged.
pub(crate) fn changed_policies() -> impl Strategy<Value = String> {
    let change = (0..4_u8, any::<Index>(), any::<Index>(), select(&WORDS[..]));
    (vec(policy(), 1..4), vec(change, 1..4)).prop_map(|(policies, changes)| {
        let whole = policies.concat();
        let mut words: Vec<&str> = whole.split(' ').collect();
        for (how, at, other, word) in changes {
            let (at, other) = (at.index(words.len()), other.index(words.len()));
            match how {
                0 if words.len() > 1 => drop(words.remove(at)),
                1 => words.insert(at, word),
                2 => words[at] = word,
                _ => words.swap(at, other),
            }
        }
        words.join(" ")
    })
}
