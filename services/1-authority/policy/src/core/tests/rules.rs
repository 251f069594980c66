//! Rule files, the default rules, validation, lists and explanations.

use base::{AxiomTime, DurationNs, KeyPath, ProcessId};
use chain::payload::policy::{
    PolicyAction, PolicyCondition, PolicyEffect, PolicyRule, ProcessOperation, ResourceMatcher, Restriction,
    ServiceOperation,
};

use super::support::{
    ADMIN, ALICE, BOB, NOW, PROCESSES, ROOT, SUPERVISOR, all_actions, allow, at, id, read, request, rule,
    rule_id, state, status,
};
use crate::{
    core::{
        Layer, PolicyError, RuleFilter, decide,
        explain::explain,
        limits::{
            CONDITION_NODES_MAX, DESCRIPTION_BYTES_MAX, RATE_COUNT_MAX, RATE_WINDOW_NS_MAX, RESTRICTIONS_MAX,
        },
        validate,
    },
    rules,
};

fn defaults() -> Vec<PolicyRule> {
    rules::defaults(id(ADMIN)).unwrap()
}

/// covers: POL-42
#[test]
fn the_default_rules_hold_the_two_of_the_specification() {
    let all = defaults();
    let find = |id: &str| all.iter().find(|rule| rule.id == rule_id(id)).unwrap();
    let (first, last) = (find("system-admin"), find("default-deny"));
    assert_eq!((first.priority, first.effect), (1000, PolicyEffect::Allow));
    assert_eq!(
        (last.priority, last.effect, &last.condition),
        (0, PolicyEffect::Deny, &PolicyCondition::Always)
    );
    assert!(all.iter().all(|rule| !rule.description.is_empty()));
}

/// covers: POL-42, KEY-37, IDN-48
#[test]
fn by_default_people_use_their_own_keys_and_the_owner_runs_the_node() {
    let state = state(defaults());
    let allowed = |who, action| decide(&state, &request(who, action), NOW).effect == PolicyEffect::Allow;
    let sign = |path: &str| PolicyAction::Decrypt { key_path: KeyPath::parse(path).unwrap() };
    for action in all_actions() {
        let kind = action.kind();
        let key = matches!(
            action,
            PolicyAction::Sign { .. }
                | PolicyAction::Encrypt { .. }
                | PolicyAction::Decrypt { .. }
                | PolicyAction::RotateKey { .. }
        );
        let login = matches!(action, PolicyAction::Authenticate { .. });
        assert!(allowed(ROOT, action.clone()), "{kind:?}");
        assert_eq!(allowed(ADMIN, action.clone()), !key, "{kind:?}");
        assert_eq!(allowed(ALICE, action), login, "{kind:?}");
    }
    assert!(allowed(BOB, sign("/orbital/users/bob/k")) && allowed(ADMIN, sign("/orbital/users/admin")));
    let control =
        || PolicyAction::ControlService { service: "keys".to_owned(), operation: ServiceOperation::Start };
    let suspend = || PolicyAction::ControlProcess { pid: ProcessId(1), operation: ProcessOperation::Suspend };
    assert!(allowed(SUPERVISOR, control()) && !allowed(PROCESSES, control()));
    assert!(allowed(PROCESSES, suspend()) && !allowed(SUPERVISOR, suspend()));
}

/// covers: POL-26
#[test]
fn errors_in_a_rule_file_name_the_place() {
    let good =
        "[[rule]]\nid = \"a\"\nname = \"n\"\npriority = 1\neffect = \"Deny\"\ncondition = \"always\"\n";
    assert_eq!(rules::parse("f", good, id(ADMIN)).unwrap().len(), 1);
    assert_eq!(rules::parse("f", "", id(ADMIN)).unwrap(), []);
    let limit = "condition = { rate_limit = { count = 1, window_ns = 5, burst = 2 } }";
    let exact = "condition = { and = [\"always\", { resource = { exact = { type = \"file\", id = \"/a\", ids = 3 } } }] }";
    for (text, line, place, part) in [
        (good.replace("priority = 1", "priority = 1\nprio = 2"), 5, "prio", "prio"),
        (good.replace("condition = \"always\"", limit), 6, "burst", "burst"),
        (good.replace("condition = \"always\"", exact), 6, "ids", "ids"),
        (good.replace("\"Deny\"", "\"deny\""), 5, "\"deny", "deny"),
        (good.replace("\"always\"", "always"), 6, "always", ""),
        (good.replace("[[rule]]", "[[rules]]"), 1, "rules", "rules"),
        (good.replace("\"always\"", "{ before = 5 }"), 1, "[[rule", "before 2020"),
        (format!("{good}{good}"), 7, "[[rule", "twice"),
        (good.replace("\"always\"", "{ identity = { exact = \"@admin\" } }\nx = 1"), 7, "x", "x"),
    ] {
        let error = rules::parse("my.toml", &text, id(ADMIN)).unwrap_err();
        assert!(error.text.contains(part), "{error}");
        let column = text.lines().nth(line - 1).unwrap().find(place).unwrap() + 1;
        assert_eq!((error.line, error.column), (line, column), "{error}\n{text}");
        assert!(error.to_string().starts_with(&format!("my.toml:{line}:{column}: ")));
    }
    let long = " ".repeat(rules::FILE_BYTES_MAX);
    assert!(rules::parse("f", &long, id(ADMIN)).is_ok());
    assert!(rules::parse("f", &(long + " "), id(ADMIN)).unwrap_err().text.contains("at most"));
}

#[test]
fn the_admins_id_is_put_in_as_a_value_and_moves_no_place() {
    let text = |description: &str, condition: &str| {
        format!(
            "[[rule]]\nid = \"a\"\nname = \"n\"\npriority = 1\neffect = \"Deny\"\ndescription = {description}\ncondition = {condition}\n"
        )
    };
    let exact = "{ identity = { exact = \"@admin\" } }";
    // Not alone in its string: what was written stays, and what is shown is read back.
    for description in ["'ask \"@admin\"'", r#""\u0022@admin\u0022""#] {
        let rules = rules::parse("f", &text(description, exact), id(ADMIN)).unwrap();
        assert!(rules[0].description.ends_with("\"@admin\""), "{rules:?}");
        assert_eq!(
            rules[0].condition,
            PolicyCondition::Identity(chain::payload::policy::IdentityMatcher::Exact(id(ADMIN)))
        );
        assert_eq!(rules::parse("f", &rules::to_toml(&rules[0]), id(ADMIN)), Ok(rules));
    }
    // The id itself, before the fault, is not taken for one that was put in.
    let named = format!("\"{}\"", id(ADMIN));
    let error = rules::parse("f", &text(&named, "{ before = \"soon\" }"), id(ADMIN)).unwrap_err();
    assert_eq!((error.line, error.column), (7, 24), "{error}");
}

#[test]
fn what_a_rule_file_says_cannot_leave_its_line_or_reach_the_terminal() {
    let error = rules::parse("f", "\"\\u001b[2J\\n\" = 1\n", id(ADMIN)).unwrap_err();
    assert!(error.to_string().contains("`\\u{1b}[2J\\n`"), "{error}");
}

fn place_of(rule: &PolicyRule) -> String {
    match validate(rule) {
        Ok(()) => String::new(),
        Err(PolicyError::InvalidRule { place, .. }) => place,
        Err(other) => panic!("{other}"),
    }
}

/// covers: POL-58
#[test]
fn a_rule_that_could_not_be_evaluated_is_not_stored() {
    let with = |condition| place_of(&allow(condition));
    let not = |inner| PolicyCondition::Not(Box::new(inner));
    let bad = || PolicyCondition::Resource(ResourceMatcher::Pattern("***".to_owned()));
    let prefix = |p: &str| PolicyCondition::Resource(ResourceMatcher::PathPrefix(p.to_owned()));
    let rate = |count, ns| PolicyCondition::RateLimit { count, window: DurationNs(ns) };
    assert_eq!(
        with(PolicyCondition::And(vec![PolicyCondition::Always, not(bad())])),
        "condition.and[1].not.resource.pattern"
    );
    assert_eq!(
        (with(prefix("/a")).as_str(), with(prefix("/a/")).as_str()),
        ("", "condition.resource.path_prefix")
    );
    assert_eq!(
        (with(rate(RATE_COUNT_MAX, 1)), with(rate(1, RATE_WINDOW_NS_MAX))),
        (String::new(), String::new())
    );
    assert_eq!(with(rate(RATE_COUNT_MAX + 1, 1)), "condition.rate_limit.count");
    assert_eq!(with(rate(1, 0)), "condition.rate_limit.window_ns");
    assert_eq!(with(rate(1, RATE_WINDOW_NS_MAX + 1)), "condition.rate_limit.window_ns");
    assert_eq!(with(PolicyCondition::After(AxiomTime(1_700_000_000))), "condition.after");
    let many = |n| PolicyCondition::Or(vec![PolicyCondition::Always; n]);
    assert_eq!(
        (with(many(CONDITION_NODES_MAX - 1)).as_str(), with(many(CONDITION_NODES_MAX)).as_str()),
        ("", "condition")
    );
    let deep = |n| (0..n).fold(PolicyCondition::Always, |inner, _| PolicyCondition::And(vec![inner]));
    assert_eq!((with(deep(8)).as_str(), with(deep(12)).as_str()), ("", "rule"));
}

#[test]
fn texts_and_restrictions_of_a_rule_have_limits() {
    let long = |bytes| PolicyRule { description: "x".repeat(bytes), ..allow(PolicyCondition::Always) };
    assert_eq!(place_of(&long(DESCRIPTION_BYTES_MAX)), "");
    assert_eq!(place_of(&long(DESCRIPTION_BYTES_MAX + 1)), "description");
    assert_eq!(place_of(&PolicyRule { name: String::new(), ..allow(PolicyCondition::Always) }), "name");
    let restricted = |effect, n| {
        let one = Restriction {
            name: "r".to_owned(),
            condition: PolicyCondition::Always,
            limits: Default::default(),
        };
        place_of(&PolicyRule { restrictions: vec![one; n], ..rule("r", 1, effect, PolicyCondition::Always) })
    };
    assert_eq!(restricted(PolicyEffect::AllowWithConditions, RESTRICTIONS_MAX), "");
    assert_eq!(restricted(PolicyEffect::AllowWithConditions, RESTRICTIONS_MAX + 1), "restrictions");
    assert_eq!(restricted(PolicyEffect::AllowWithConditions, 0), "restrictions");
    assert_eq!(restricted(PolicyEffect::Allow, 1), "restrictions");
}

/// covers: POL-05, POL-08
#[test]
fn lists_and_snapshots_tell_what_is_in_force() {
    let state = state(defaults());
    let list = |filter: RuleFilter| {
        state.list_rules(&filter).iter().map(|stored| stored.rule.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(RuleFilter::default()).len(), defaults().len());
    assert_eq!(
        list(RuleFilter { effect: Some(PolicyEffect::Deny), ..RuleFilter::default() }),
        ["default-deny"]
    );
    assert_eq!(
        list(RuleFilter { priority_min: Some(900), ..RuleFilter::default() }),
        ["system-admin", "owner"]
    );
    let low = RuleFilter { priority_max: Some(500), text: "Own keys".to_owned(), ..RuleFilter::default() };
    assert_eq!(list(low), ["own-keys"]);
    assert_eq!(list(RuleFilter { ids: vec![rule_id("owner")], ..RuleFilter::default() }), ["owner"]);
    let between = |min, max| {
        list(RuleFilter { priority_min: Some(min), priority_max: Some(max), ..RuleFilter::default() }).len()
    };
    assert_eq!((between(1000, 1000), between(1001, u32::MAX), between(0, 0)), (1, 0, 1));
    let snapshot = state.snapshot();
    assert_eq!((snapshot.rules, snapshot.identities), (defaults().len(), 11));
    assert_eq!((snapshot.state_hash, snapshot.sequence), (state.state_hash(), Some(base::Sequence(0))));
}

/// covers: POL-41
#[test]
fn the_suggested_rule_allows_exactly_what_was_refused() {
    let mut state = state(defaults());
    let refused = read(BOB, "/data/file");
    let why = explain(&state, &refused, NOW);
    assert_eq!((why.layer, why.rule.as_str()), (Layer::Rule, "default-deny"));
    assert!(why.request.contains("bob wanted ReadFile") && why.request.contains("/data/file"));
    let text = rules::to_toml(&why.smallest_change.unwrap());
    let suggested = rules::parse("suggested", &text, id(ADMIN)).unwrap().remove(0);
    state.apply(at(1), &super::support::added(suggested));
    assert_eq!(decide(&state, &refused, NOW).effect, PolicyEffect::Allow);
    assert_eq!(decide(&state, &read(ALICE, "/data/file"), NOW).effect, PolicyEffect::Deny);
    assert_eq!(decide(&state, &read(BOB, "/data/other"), NOW).effect, PolicyEffect::Deny);
    assert_eq!(explain(&state, &refused, NOW).smallest_change, None);
}

#[test]
fn no_rule_is_suggested_where_none_helps() {
    use chain::payload::identity::IdentityStatus::{Active, Suspended};
    let highest = vec![rule("no", u32::MAX, PolicyEffect::Deny, PolicyCondition::Always)];
    assert_eq!(explain(&state(highest), &read(BOB, "/a"), NOW).smallest_change, None);
    let mut suspended = state(defaults());
    suspended.apply(at(1), &status(BOB, Active, Suspended));
    let why = explain(&suspended, &read(BOB, "/a"), NOW);
    assert_eq!((why.layer.name(), why.smallest_change), ("authentication", None));
}
