//! What a change would do, and the way back.

use std::time::Duration;

use serde_json::Value;
use system_tests::{TestNode, kill, within};

const SOON: Duration = Duration::from_secs(15);

fn sleeper(name: &str, seconds: u32, more: &str) -> String {
    format!(
        "version = 1\n[service]\nname = \"{name}\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n\
         [program]\nimage = \"/bin/sleep\"\nargs = [\"{seconds}\"]\n{more}\n"
    )
}

fn entries(node: &TestNode) -> u64 {
    node.json(&["log", "head"])["sequence"].as_u64().unwrap_or_else(|| node.log(&[]).len() as u64)
}

fn services(node: &TestNode) -> Vec<String> {
    let names = node.pids().into_iter().map(|(name, _)| name);
    names.filter(|name| matches!(name.as_str(), "first" | "second" | "third")).collect()
}

#[test]
fn a_plan_says_what_would_change_start_anew_and_be_refused_and_does_nothing() {
    let Some(node) = TestNode::boot() else { return };
    let first = node.file("first.toml", sleeper("first", 1000, ""));
    let second = node.file("second.toml", sleeper("second", 1000, "[[dependencies]]\nname = \"first\""));
    node.ok(&["apply", "-f", &first, &second]);
    let before = (entries(&node), node.pid("first"), node.pid("second"));
    let changed = node.file("changed.toml", sleeper("first", 2000, ""));
    let new = node.file("new.toml", sleeper("third", 1000, ""));
    let broken = node.file("broken.toml", "version = 1\n[service]\nname = 7\n");
    let planned = node.json(&["plan", "-f", &changed, &second, &new]);
    let by_name =
        |name: &str| planned.as_array().unwrap().iter().find(|one| one["service"] == name).unwrap().clone();
    let one = by_name("first");
    assert_eq!(
        (&one["change"], &one["restarts"]),
        (&"changed".into(), &serde_json::json!(["first", "second"]))
    );
    let diff = one["diff"].to_string();
    assert!(diff.contains("-args = [\\\"1000\\\"]") && diff.contains("+args = [\\\"2000\\\"]"), "{diff}");
    assert_eq!(one["policy"]["allowed"], true, "{one}");
    assert_eq!(
        (&by_name("second")["change"], &by_name("second")["restarts"]),
        (&"unchanged".into(), &serde_json::json!([]))
    );
    assert_eq!(by_name("third")["change"], "new");
    let refused = node.run(&["plan", "-f", &broken, "-o", "json"]);
    assert_eq!(refused.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert!(
        said[0]["change"] == "refused" && said[0]["why"].as_str().unwrap().contains("broken.toml"),
        "{said}"
    );
    assert_eq!(
        (entries(&node), node.pid("first"), node.pid("second")),
        before,
        "nothing was done or recorded"
    );
    // A rule against it shows before it hurts.
    let rule = node.file(
        "rule.toml",
        "[[rule]]\nid = \"no-third\"\nname = \"n\"\ndescription = \"d\"\npriority = 9000\neffect = \"Deny\"\n\
         [rule.condition]\nresource = { exact = { type = \"service\", id = \"third\" } }\n",
    );
    node.ok(&["policy", "add", &rule]);
    let denied = node.run(&["plan", "-f", &new]);
    assert_eq!(denied.status.code(), Some(1));
    let said = String::from_utf8_lossy(&denied.stdout).into_owned();
    assert!(said.contains("refused by rule no-third"), "{said}");
    assert!(!node.run(&["apply", "-f", &new]).status.success(), "and so it is");
}

#[test]
fn a_rollback_puts_the_services_of_an_earlier_generation_back() {
    let Some(node) = TestNode::boot() else { return };
    let first = node.file("first.toml", sleeper("first", 1000, ""));
    node.ok(&["apply", "-f", &first]);
    let second = node.file("second.toml", sleeper("second", 1000, ""));
    node.ok(&["apply", "-f", &second]);
    let changed = node.file("first.toml", sleeper("first", 2000, ""));
    node.ok(&["apply", "-f", &changed]);
    node.ok(&["apply", "-f", &changed]);
    let all = node.json(&["service", "generations"]);
    assert_eq!(all["current"], 3, "{all}");
    let seconds = || {
        let shown = std::fs::read(format!("/proc/{}/cmdline", node.pid("first"))).unwrap();
        String::from_utf8_lossy(&shown).split('\0').nth(1).unwrap().to_owned()
    };
    assert_eq!(seconds(), "2000");
    let would = node.ok(&["rollback", "1", "--dry-run"]);
    assert!(
        would.contains("first would be put back") && would.contains("second would be removed"),
        "{would}"
    );
    assert_eq!((seconds().as_str(), services(&node).len()), ("2000", 2));
    // Another supervisor than the one that saw the changes goes back.
    kill(node.json(&["status"])["supervisor_pid"].as_i64().unwrap());
    node.settled();
    node.ok(&["rollback"]);
    assert!(within(SOON, || seconds() == "1000"));
    assert_eq!(services(&node), ["first", "second"]);
    node.ok(&["rollback", "1"]);
    assert_eq!(services(&node), ["first"]);
    assert!(!node.root().join("config/manifests/second.toml").exists());
    let missing = node.run(&["rollback", "99"]);
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(!missing.status.success() && said.contains("service generations"), "{said}");
    // Each step was decided and is on record.
    let registered = node.log(&["ServiceRegister"]);
    let of_first = registered.iter().filter(|entry| entry["body"]["name"] == "first").count();
    assert_eq!(of_first, 3, "made, changed, put back");
    // To the state before the first change.
    node.ok(&["rollback", "0"]);
    assert!(services(&node).is_empty());
}
