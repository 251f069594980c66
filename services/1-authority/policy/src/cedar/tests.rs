//! Tables of both directions. That they decide as Cedar does is asked of Cedar itself, in `tests/tests/system/cedar.rs`.

use base::{AxiomTime, IdentityId, RuleId};
use chain::payload::policy::{
    ActionKind, ActionMatcher, IdentityMatcher, PolicyCondition, PolicyEffect, PolicyRule, ResourceMatcher,
    ResourceRef, ResourceType, Restriction,
};

use super::{
    COMPARISONS_MAX, EXPRESSION_DEPTH_MAX, FILE_BYTES_MAX, Import, POLICIES_MAX, PRIORITY_USUAL, Without,
    export, import,
};
use crate::rules;

const BOB: IdentityId = IdentityId([0xb0; 32]);

fn rule(id: &str, priority: u32, effect: PolicyEffect, condition: PolicyCondition) -> PolicyRule {
    PolicyRule {
        id: RuleId::new(id).unwrap(),
        name: id.to_owned(),
        description: String::new(),
        priority,
        condition,
        effect,
        restrictions: vec![],
    }
}

fn allow(condition: PolicyCondition) -> PolicyRule {
    rule("r", 1, PolicyEffect::Allow, condition)
}

fn read(text: &str) -> Import {
    import("a.cedar", text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The condition of the one policy, or where and why there is none.
fn imported(clause: &str) -> Result<PolicyCondition, String> {
    let mut found = read(&format!("permit(principal, action, resource)\nwhen {{ {clause} }};"));
    let left_out = found.left_out.pop().map(|one| format!("{}:{} {}", one.line, one.column, one.why));
    found.rules.pop().map(|rule| rule.condition).ok_or_else(|| left_out.unwrap_or_default())
}

fn identity(matcher: IdentityMatcher) -> PolicyCondition {
    PolicyCondition::Identity(matcher)
}

fn glob(pattern: &str) -> PolicyCondition {
    PolicyCondition::Resource(ResourceMatcher::Pattern(pattern.to_owned()))
}

fn below(path: &str) -> PolicyCondition {
    PolicyCondition::Resource(ResourceMatcher::PathPrefix(path.to_owned()))
}

fn file(id: &str) -> PolicyCondition {
    let id = id.to_owned();
    PolicyCondition::Resource(ResourceMatcher::Exact(ResourceRef { resource_type: ResourceType::File, id }))
}

#[test]
fn the_documented_rules_are_the_documented_policies() {
    let text = include_str!("../../../../../docs/cedar.md");
    let block = |name: &str| {
        let open = format!("```{name}\n");
        let from = text.find(&open).unwrap() + open.len();
        let rest = text.get(from..).unwrap();
        rest.get(..rest.find("```").unwrap()).unwrap()
    };
    let rules = rules::parse("docs/cedar.md", block("toml"), BOB).unwrap();
    let export = export(&rules).unwrap();
    assert_eq!(export.text, block("cedar"));
    let back = read(&export.text);
    assert_eq!((back.left_out, back.raised), (vec![], vec![]));
    let ids: Vec<&str> = back.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["release", "no-secrets", "writers"]);
    assert!(back.rules.iter().all(|rule| rules.contains(rule)), "{:#?}", back.rules);
}

#[test]
fn the_default_rules_are_exported_but_for_the_own_keys() {
    let export = export(&rules::defaults(BOB).unwrap()).unwrap();
    let left_out: Vec<_> = export.left_out.iter().map(|one| (one.rule.as_str(), one.without)).collect();
    assert_eq!(left_out, [("own-keys", Without::AllowsLess)]);
    assert_eq!(export.unneeded, [RuleId::new("default-deny").unwrap()]);
}

#[test]
fn each_condition_has_its_words_and_comes_back() {
    use PolicyCondition::{Action, After, And, Before, Not, Or, Resource};
    let now = 1_767_225_600_000_000_000;
    for (condition, expected) in [
        (
            identity(IdentityMatcher::Exact(BOB)),
            format!("principal == Identity::\"{BOB}\", action, resource)"),
        ),
        (
            identity(IdentityMatcher::Group(BOB)),
            format!("principal in Identity::\"{BOB}\", action, resource)"),
        ),
        (identity(IdentityMatcher::Pattern("bob".to_owned())), "principal.name == \"bob\"".to_owned()),
        (identity(IdentityMatcher::Pattern("o.**".to_owned())), "{ principal.name like \"o.*\" }".to_owned()),
        (
            identity(IdentityMatcher::Pattern("o.*".to_owned())),
            "principal.name like \"o.*\" && !(principal.name like \"*.*.*\")".to_owned(),
        ),
        (file("/a\"*\\\n"), "resource == File::\"/a\\\"*\\\\\\u{a}\")".to_owned()),
        (Resource(ResourceMatcher::Type(ResourceType::Key)), "resource is Key)".to_owned()),
        (below("/a*"), "resource.id == \"/a*\" || resource.id like \"/a\\*/*\"".to_owned()),
        (below("/"), "resource.id == \"/\" || resource.id like \"/*\"".to_owned()),
        (glob("/a/*"), "resource.id like \"/a/*\" && !(resource.id like \"*/*/*/*\")".to_owned()),
        (
            Action(ActionMatcher::Kind(ActionKind::ReadFile)),
            "action == Action::\"read_file\", resource)".to_owned(),
        ),
        (
            Action(ActionMatcher::AnyOf(vec![ActionKind::Sign, ActionKind::Listen])),
            "action in [Action::\"sign\", Action::\"listen\"], resource)".to_owned(),
        ),
        (Before(AxiomTime(now)), format!("context.now < {now}")),
        (After(AxiomTime(i64::MAX as u64)), format!("context.now >= {}", i64::MAX)),
        (
            And(vec![below("/a"), Or(vec![glob("x"), Not(Box::new(And(vec![glob("y"), file("z")])))])]),
            "(resource.id == \"/a\" || resource.id like \"/a/*\") && (resource.id == \"x\" || \
             !(resource.id == \"y\" && resource == File::\"z\"))"
                .to_owned(),
        ),
        (Or(vec![glob("/a/*"), glob("x")]), "(resource.id like \"/a/*\" && !".to_owned()),
        (PolicyCondition::Never, "when { false }".to_owned()),
        (PolicyCondition::Always, "permit (principal, action, resource);".to_owned()),
    ] {
        let given = allow(condition);
        let export = export(std::slice::from_ref(&given)).unwrap();
        assert!(export.text.contains(&expected), "{expected}\n{}", export.text);
        assert_eq!(read(&export.text).rules, [given], "{}", export.text);
    }
}

#[test]
fn what_cedar_cannot_say_is_named() {
    use PolicyCondition::{After, And, Not, RateLimit, Resource};
    let rate = RateLimit { count: 1, window: base::DurationNs(1) };
    for (condition, why) in [
        (And(vec![glob("a"), Not(Box::new(rate))]), "rate limits"),
        (Resource(ResourceMatcher::OwnKeyPath), "own_key_path"),
        (glob("/a?"), "`?` in the pattern \"/a?\""),
        (glob("/**/a/*"), "`*` beside `**`"),
        (After(AxiomTime(i64::MAX as u64 + 1)), "more nanoseconds"),
        (glob("***"), "not valid"),
    ] {
        let export = export(&[allow(condition)]).unwrap();
        let why_not = export.left_out.first().map(|one| one.why.to_string()).unwrap_or_default();
        assert!(why_not.contains(why), "{why}: {why_not}");
        assert!(
            export.text.contains("// Left out: r; ") && !export.text.contains("permit ("),
            "{}",
            export.text
        );
    }
    let mut restricted = rule("r", 1, PolicyEffect::AllowWithConditions, PolicyCondition::Always);
    restricted.restrictions = vec![Restriction {
        name: "r".to_owned(),
        condition: PolicyCondition::Always,
        limits: Default::default(),
    }];
    assert!(export(&[restricted]).unwrap().left_out[0].why.to_string().contains("restrictions"));
}

#[test]
fn a_file_that_allows_more_says_so() {
    use PolicyEffect::{Allow, Deny};
    let odd = || glob("/a?");
    let permit = |priority| rule("p", priority, Allow, PolicyCondition::Always);
    let rate = PolicyCondition::RateLimit { count: 1, window: base::DurationNs(1) };
    for (rules, more) in [
        (vec![rule("d", 1, Deny, odd()), permit(1)], true),
        (vec![rule("d", 1, Deny, odd()), permit(0)], true),
        (vec![rule("d", 1, Deny, odd()), permit(2)], false),
        (vec![rule("d", 1, Allow, odd()), permit(1)], false),
        // Where it cannot be evaluated it denies.
        (vec![rule("d", 2, Allow, rate), permit(1)], true),
        (vec![rule("d", 1, Deny, odd())], false),
    ] {
        let export = export(&rules).unwrap();
        let found = export.left_out.iter().any(|one| one.without == Without::AllowsMore);
        assert_eq!((found, export.text.contains("ALLOWS MORE")), (more, more), "{}", export.text);
    }
}

#[test]
fn a_rule_that_denies_gives_way_to_those_above_it_alone() {
    use PolicyEffect::{Allow, Deny};
    let rules = [
        rule("high", 3, Allow, glob("a")),
        rule("other", 3, Allow, glob("b")),
        rule("deny", 2, Deny, glob("**")),
        rule("low", 1, Allow, glob("c")),
        rule("last", 0, Deny, glob("d")),
    ];
    let export = export(&rules).unwrap();
    let unless = "when { resource.id like \"*\" }\nunless { resource.id == \"a\" || resource.id == \"b\" };";
    assert!(export.text.contains(unless), "{}", export.text);
    assert_eq!(export.unneeded, [RuleId::new("last").unwrap()]);
    assert_eq!(read(&export.text).rules, rules[..4]);
}

#[test]
fn a_priority_that_cedar_does_not_know_makes_no_permit_stronger() {
    let found = read(
        "@id(\"p\") @priority(\"9\") permit(principal, action, resource);\n\
         @id(\"d\") @priority(\"2\") forbid(principal, action, resource) unless { principal.name == \"bob\" };\n\
         @id(\"e\") @priority(\"10\") forbid(principal, action, resource) when { true };",
    );
    let ids: Vec<&str> = found.raised.iter().map(RuleId::as_str).collect();
    assert_eq!(ids, ["d"]);
    let priorities: Vec<u32> = found.rules.iter().map(|rule| rule.priority).collect();
    assert_eq!(priorities, [9, 9, 10]);
    let not_bob = PolicyCondition::Not(Box::new(identity(IdentityMatcher::Pattern("bob".to_owned()))));
    assert_eq!(found.rules[1].condition, not_bob);
}

#[test]
fn what_no_rule_can_say_is_named_with_its_place() {
    for (clause, why) in [
        ("resource.owner == \"bob\"", "2:8 no rule has the attribute `resource.owner`"),
        ("true && principal.manager.name == \"x\"", "2:16 no rule has an attribute of an attribute"),
        ("resource in File::\"/a\"", "2:20 no rule has resources inside"),
        ("principal == User::\"alice\"", "2:21 this is no identity"),
        ("action == Action::\"view\"", "2:18 there is no action \"view\""),
        ("resource is Photo", "2:8 no resource is of the type `Photo`"),
        ("principal is User", "principals of other types"),
        ("[1, 2].contains(context.now)", "2:8 no rule has a function"),
        ("ip(\"10.0.0.1\").isLoopback()", "a function"),
        ("context.now + 1 < 2", "an order of anything but"),
        ("principal == ?principal", "a slot of a template"),
        ("{a: 1} == {\"a\": 1}", "a record"),
        ("1", "a value where a comparison is needed"),
        ("principal has age", "`principal.age`"),
        ("principal.type == \"Robot\"", "no identity is of the type"),
        ("resource.id == \"a*\"", "2:8"),
        ("resource.id like \"a\\*\"", "the character `*` itself"),
        ("principal.name == \"@admin\"", "a rule file cannot hold"),
        ("context.now < 7", "2020"),
    ] {
        let found = imported(clause);
        let expected = if why == "2:8" { "the character `*` itself" } else { why };
        assert!(found.as_ref().is_err_and(|text| text.contains(expected)), "{clause}: {found:?}");
    }
    let both = read(
        "forbid(principal == ?principal, action, resource); permit(principal, action, resource in X::\"a\");",
    );
    let without: Vec<Without> = both.left_out.iter().map(|one| one.without).collect();
    assert_eq!(without, [Without::AllowsMore, Without::AllowsLess]);
}

#[test]
fn text_that_is_no_cedar_is_refused_with_its_place() {
    let head = "permit(principal, action, resource)";
    for (text, expected) in [
        ("permit(principal, action);".to_owned(), "a.cedar:1:25: expected `,`, found `)`"),
        ("allow(principal, action, resource);".to_owned(), "1:1: expected `permit` or `forbid`"),
        (head.to_owned(), "1:36: expected `when`, `unless` or `;`, found the end"),
        (format!("{head}\nwhen {{ }};"), "2:8: expected an expression"),
        (format!("{head} when {{ a }};"), "nothing is called `a`"),
        (format!("{head} when {{ 1 < 2 < 3 }};"), "expected `}`, found `<`"),
        (format!("{head} when {{ principal = 1 }};"), "expected `}`, found `=`"),
        (format!("{head} when {{ \"\\q\" == \"\" }};"), "1:45: unknown escape"),
        (format!("{head} when {{ \"é\" == \"\n }};"), "1:51: this string does not end"),
        (format!("{head} when {{ !!!!!true }};"), "at most 4 `!`"),
        (format!("{head} when {{ 1 == 9223372036854775808 }};"), "too large"),
        (format!("@a @a {head};"), "stands there twice"),
        ("permit(principal == 1, action, resource);".to_owned(), "1:21: expected an entity"),
    ] {
        let error = import("a.cedar", &text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn the_limits_hold_at_their_edge() {
    let policy = |clause: &str| format!("permit(principal,action,resource)when{{{clause}}};");
    let nested = |depth: usize| policy(&format!("{}true{}", "(".repeat(depth), ")".repeat(depth)));
    // The clause and what stands in each pair of parentheses.
    let deepest = (EXPRESSION_DEPTH_MAX - 2) / 2;
    assert!(import("a", &nested(deepest)).is_ok());
    assert!(import("a", &nested(deepest + 1)).unwrap_err().text.contains("nested deeper"));
    let many = |n: usize| import("a", &"permit(principal,action,resource);".repeat(n));
    assert_eq!(many(POLICIES_MAX).unwrap().rules.len(), POLICIES_MAX);
    assert!(many(POLICIES_MAX + 1).unwrap_err().text.contains("policies"));
    let padded = |n: usize| import("a", &format!("{}permit(principal,action,resource);", " ".repeat(n - 34)));
    assert!(padded(FILE_BYTES_MAX).is_ok());
    assert!(padded(FILE_BYTES_MAX + 1).unwrap_err().text.contains("bytes"));
    // Each `if` doubles what stands in its condition, and adds a comparison for each branch.
    let (mut doubled, mut comparisons) = ("true".to_owned(), 1);
    for _ in 0..16 {
        (doubled, comparisons) = (format!("if {doubled} then true else true"), 2 * comparisons + 2);
    }
    let filled = |n: usize| read(&policy(&format!("({doubled}){}", "&&true".repeat(n - comparisons))));
    assert_eq!(filled(COMPARISONS_MAX).rules.len(), 1);
    assert!(filled(COMPARISONS_MAX + 1).left_out[0].why.contains("comparisons"));
    let rules: Vec<_> = (0..=POLICIES_MAX)
        .map(|n| PolicyRule { id: RuleId::new(format!("r{n}")).unwrap(), ..allow(PolicyCondition::Always) })
        .collect();
    assert_eq!(export(&rules), Err(super::TooLarge::Policies));
    assert!(export(&rules[..POLICIES_MAX]).is_ok());
    let rules: Vec<_> = (0..2000)
        .map(|n| PolicyRule {
            id: RuleId::new(format!("r{n}")).unwrap(),
            ..rule("r", 9 - n % 2 * 2, [PolicyEffect::Allow, PolicyEffect::Deny][n as usize % 2], glob("/a"))
        })
        .collect();
    assert_eq!(
        export(&[rules, vec![rule("z", 1, PolicyEffect::Allow, glob("x"))]].concat()),
        Err(super::TooLarge::Bytes)
    );
}

#[test]
fn a_foreign_policy_gets_an_id_a_name_and_the_usual_priority() {
    let found = read(
        "permit(principal, action, resource);\n@id(\"policy0\") permit(principal, action, resource);\n\
         @id(\"not an id\") permit(principal, action, resource);\n@id(\"policy0\") permit(principal, action, resource);",
    );
    let ids: Vec<(&str, &str)> =
        found.rules.iter().map(|rule| (rule.id.as_str(), rule.name.as_str())).collect();
    assert_eq!(
        ids,
        [("policy0_", "policy0_"), ("policy0", "policy0"), ("policy2", "not an id"), ("policy3", "policy0")]
    );
    assert!(found.rules.iter().all(|rule| rule.priority == PRIORITY_USUAL));
}

/// The nesting that a rule may have, each level in parentheses, and once more inside of an `unless`.
#[test]
fn the_deepest_rule_is_exported_and_comes_back() {
    let mut condition = PolicyCondition::Or(vec![below("/a"), glob("/b/*")]);
    let deeper = |condition: PolicyCondition, level: usize| match level % 3 {
        0 => PolicyCondition::Not(Box::new(condition)),
        1 => PolicyCondition::And(vec![glob("x"), condition]),
        _ => PolicyCondition::Or(vec![glob("y"), condition]),
    };
    for level in 0.. {
        let next = deeper(condition.clone(), level);
        if crate::core::validate(&allow(next.clone())).is_err() {
            break;
        }
        condition = next;
    }
    let rules = [
        rule("high", 3, PolicyEffect::Allow, condition.clone()),
        rule("deny", 2, PolicyEffect::Deny, condition),
        rule("low", 1, PolicyEffect::Allow, PolicyCondition::Always),
    ];
    let export = export(&rules).unwrap();
    assert_eq!(read(&export.text).rules, rules);
}
