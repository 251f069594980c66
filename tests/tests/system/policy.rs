//! What rules would do, asked through the command line: of a node that runs, of its log alone, and of no node.

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

/// Without a node, unless its rules or its admin are asked for; and the exit code says whether anything is missing.
#[test]
fn rules_go_to_cedar_and_come_back() {
    let Some(node) = TestNode::empty() else { return };
    let run = |args: &[&str]| {
        let output = node.run(args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let rules = node.file("rules.toml", DENY);
    let (code, policies, _) = run(&["policy", "export", "--cedar", &rules]);
    assert_eq!(code, Some(0));
    assert!(
        policies.contains("forbid (principal, action, resource)\nwhen { resource.id == \"/secret\""),
        "{policies}"
    );
    let back = node.file("rules.cedar", &policies);
    let (code, toml, _) = run(&["policy", "import", "--cedar", &back]);
    assert_eq!(code, Some(0));
    let rules_back = node.file("back.toml", &toml);
    assert_eq!(node.json(&["policy", "check", &rules_back]), node.json(&["policy", "check", &rules]));

    let foreign = "forbid(principal, action, resource)\nwhen { resource.owner == principal };\n\
                   permit(principal, action, resource is Key);";
    let foreign = node.file("foreign.cedar", foreign);
    let (code, toml, errors) = run(&["policy", "import", "--cedar", &foreign]);
    assert_eq!(code, Some(1));
    assert!(toml.contains("id = \"policy1\"") && !toml.contains("policy0"), "{toml}");
    assert!(errors.contains("foreign.cedar:2:8: policy policy0: no rule has"), "{errors}");
    assert!(errors.contains("allow more than the policies"), "{errors}");

    let rated = DENY.replace(
        "{ resource = { path_prefix = \"/secret\" } }",
        "{ rate_limit = { count = 1, window_ns = 1 } }",
    );
    let rated = node.file("rated.toml", format!("{rated}\n[[rule]]\nid = \"all\"\nname = \"All\"\npriority = 1\neffect = \"Allow\"\ncondition = \"always\"\n"));
    let (code, policies, errors) = run(&["policy", "export", "--cedar", &rated]);
    assert_eq!(code, Some(1));
    assert!(
        policies.contains("ALLOWS MORE") && errors.contains("allow more than the rules"),
        "{policies}{errors}"
    );

    let broken = node.file("broken.cedar", "permit(principal, action);");
    let (code, _, errors) = run(&["policy", "import", "--cedar", &broken]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("broken.cedar:1:25: expected `,`"), "{errors}");
    let whose =
        DENY.replace("{ resource = { path_prefix = \"/secret\" } }", "{ identity = { exact = \"@admin\" } }");
    let whose = node.file("whose.toml", whose);
    let (code, _, errors) = run(&["policy", "export", "--cedar", &whose]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("@admin"), "{errors}");
}

#[test]
fn the_rules_of_a_node_go_to_cedar() {
    let Some(mut node) = TestNode::boot() else { return };
    node.down();
    let output = node.run(&["policy", "export", "--cedar"]);
    let (policies, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors.contains("left out: rule own-keys: no policy compares a resource with whoever asks"),
        "{errors}"
    );
    assert!(
        policies.contains("// Not needed here: default-deny") && !policies.contains("ALLOWS MORE"),
        "{policies}"
    );
    assert!(policies.contains("@id(\"owner\")"), "{policies}");
    let file = node.file("node.cedar", &policies);
    let toml = node.file("node.toml", node.ok(&["policy", "import", "--cedar", &file]));
    let ids =
        |rules: Value| rules.as_array().unwrap().iter().map(|rule| rule["id"].clone()).collect::<Vec<_>>();
    let checked = ids(node.json(&["policy", "check", &toml]));
    assert_eq!(checked, ["system-admin", "owner", "authenticate", "process-manager", "supervisor"]);
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
