//! What rules would do, asked through the command line: of a node that runs, of its log alone, and of no node.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that finds something wrong stops")]

use serde_json::Value;
use system_tests::TestNode;

const DENY: &str = r#"
[[rule]]
id = "no-authority"
name = "Nobody reads what is below /secret"
priority = 950
effect = "Deny"
condition = { resource = { path_prefix = "/secret" } }
"#;

#[test]
fn cases_run_without_a_node_and_the_exit_code_says_how() {
    let Some(node) = TestNode::empty() else { return };
    node.file("rules.toml", DENY);
    let cases = |effect: &str| {
        format!(
            "rules = \"rules.toml\"\n[[identity]]\nname = \"bob\"\ntype = \"User\"\n[[case]]\nrequestor = \"bob\"\n\
             action = \"read_file\"\nresource = \"/secret/plan\"\neffect = \"{effect}\"\nrule = \"no-authority\"\n"
        )
    };
    let good = node.file("good.toml", cases("Deny"));
    let report = node.json(&["policy", "test", &good]);
    assert_eq!((&report["ok"], &report["passed"]), (&Value::from(true), &Value::from(1)));
    let bad = node.file("bad.toml", cases("Allow"));
    let output = node.run(&["policy", "test", &bad]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("FAIL") && text.contains("expected Allow, got Deny"), "{text}");
    let broken = node.file("broken.toml", "[[case]]\n");
    assert_eq!(node.run(&["policy", "test", &broken]).status.code(), Some(2));
}

#[test]
fn recorded_decisions_are_made_again_under_changed_rules() {
    let Some(mut node) = TestNode::boot() else { return };
    node.ok(&["policy", "evaluate", "read_file", "/secret/plan"]);
    node.ok(&["policy", "evaluate", "read_file", "/public"]);
    let who = |path: &str| {
        let found = node.json(&["policy", "who-can", "read_file", path]);
        let all = found.as_array().unwrap().clone();
        all.into_iter().map(|one| one["rule"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(who("/secret/plan").contains(&"owner".to_owned()));
    let rules = node.file("rules.toml", DENY);
    let empty = "[[rule]]\nid = \"nothing\"\nname = \"Nothing\"\npriority = 1\neffect = \"Deny\"\ncondition = \"never\"\n";
    let nothing = node.file("nothing.toml", empty);
    let on_node = node.file(
        "on-node.toml",
        "rules = \"node\"\n[[case]]\nrequestor = \"admin\"\naction = \"read_file\"\nresource = \"/a\"\neffect = \"Allow\"\nrule = \"owner\"\n",
    );
    let look = |node: &TestNode| {
        let same = node.json(&["policy", "what-if", &nothing]);
        assert_eq!(same["different"], 0, "{same}");
        assert!(same["decisions"].as_u64().unwrap() >= 2, "{same}");
        let output = node.run(&["policy", "what-if", &rules, "--since", "1h", "-o", "json"]);
        assert_eq!(output.status.code(), Some(1));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["different"], 1, "{found}");
        let one = &found["differences"][0];
        assert_eq!(one["resource"], "/secret/plan");
        assert_eq!(
            (&one["recorded"]["rule"], &one["now"]["rule"]),
            (&"owner".into(), &"no-authority".into())
        );
        assert_eq!(one["now"]["effect"], "Deny");
        let after = one["sequence"].as_u64().unwrap() + 1;
        let later = node.json(&["policy", "what-if", &rules, "--since", &after.to_string()]);
        assert_eq!(later["different"], 0, "{later}");
        node.ok(&["policy", "test", &on_node]);
    };
    look(&node);
    node.ok(&["policy", "add", &rules]);
    assert!(!who("/secret/plan").contains(&"owner".to_owned()), "the new rule is in force");
    assert!(who("/public").contains(&"owner".to_owned()));
    // The log alone says the same, and the rule added later changes nothing about what was before it.
    node.down();
    look(&node);
}

/// An act that is allowed under a condition that does not hold is refused, whatever service it goes through.
#[test]
fn a_condition_that_does_not_hold_refuses_the_act() {
    let Some(node) = TestNode::boot() else { return };
    let rule = r#"
[[rule]]
id = "identities-later"
name = "New identities, but not any more"
priority = 950
effect = "AllowWithConditions"
condition = { action = { kind = "create_identity" } }
restrictions = [{ name = "until-2020", condition = { before = 1577836800000000000 } }]
"#;
    node.ok(&["identity", "create", "alice"]);
    let file = node.file("rule.toml", rule);
    node.ok(&["policy", "add", &file]);
    let output = node.run(&["identity", "create", "bob"]);
    assert!(!output.status.success());
    let names = node.ok(&["identity", "list"]);
    assert!(names.contains("alice") && !names.contains("bob"), "{names}");
    node.ok(&["policy", "remove", "identities-later"]);
    node.ok(&["identity", "create", "bob"]);
}
