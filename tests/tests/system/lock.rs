//! A locked node uses no key, until somebody who may opens it again; a passphrase opens nothing unattended.

use std::time::Duration;

use serde_json::Value;
use system_tests::{TestNode, kill, within};

const PATH: &str = "/orbital/users/admin";
const PATIENCE: Duration = Duration::from_secs(20);

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn keys(node: &TestNode) -> Value {
    let status = node.json(&["status"]);
    status["services"].as_array().unwrap().iter().find(|s| s["name"] == "keys").unwrap().clone()
}

/// The supervisor asks once a second.
fn told_locked(node: &TestNode) {
    let told = || {
        let keys = keys(node);
        keys["state"] == "Degraded" && keys["last_error"].as_str().unwrap_or_default().starts_with("locked: ")
    };
    assert!(within(PATIENCE, told), "{}", keys(node));
}

fn refuses(node: &TestNode, message: &str) {
    for args in [
        vec!["key", "sign", PATH, message],
        vec!["key", "encrypt", PATH, message],
        vec!["key", "public", PATH],
    ] {
        let output = node.run(&args);
        assert!(text(&output).contains("(Locked)"), "{args:?}: {}", text(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    assert_eq!(node.json(&["key", "info", PATH])["state"], "locked");
}

fn restarted(node: &TestNode) {
    let before = node.pid("keys");
    kill(before);
    assert!(within(PATIENCE, || node.pids().iter().any(|(name, pid)| name == "keys" && *pid != before)));
}

/// covers: KEY-32
#[test]
fn a_lock_holds_over_restarts_and_only_an_unlock_on_record_ends_it() {
    let Some(mut node) = TestNode::boot() else { return };
    let message = node.file("message", "signed");
    let public = node.ok(&["key", "public", PATH]);
    let nothing = node.run(&["key", "unlock"]);
    assert!(text(&nothing).contains("there is nothing to unlock"), "{}", text(&nothing));
    node.ok(&["key", "lock", "--reason", "a laptop was lost"]);
    refuses(&node, &message);
    told_locked(&node);
    // Neither a new process nor a new boot is an unlock.
    restarted(&node);
    told_locked(&node);
    refuses(&node, &message);
    node.down();
    node.up();
    told_locked(&node);
    refuses(&node, &message);
    node.ok(&["key", "unlock", "--reason", "it was found"]);
    assert_eq!(node.ok(&["key", "public", PATH]), public);
    node.ok(&["key", "sign", PATH, &message]);
    node.settled();
    assert_eq!(keys(&node)["last_error"], Value::Null);
    restarted(&node);
    node.settled();
    node.ok(&["key", "sign", PATH, &message]);
    let acts: Vec<(String, String)> = node
        .log(&["KeyUsage"])
        .iter()
        .filter(|entry| entry["body"]["reason"].is_string())
        .map(|entry| {
            assert_ne!(entry["authorization"], Value::Null, "each has its decision: {entry}");
            let text = |name: &str| entry["body"][name].as_str().unwrap().to_owned();
            (text("operation"), text("reason"))
        })
        .collect();
    let pair = |what: &str, why: &str| (what.to_owned(), why.to_owned());
    assert_eq!(acts, [pair("Lock", "a laptop was lost"), pair("Unlock", "it was found")]);
}

/// covers: KEY-41, KEY-43
#[test]
fn a_node_sealed_by_a_passphrase_comes_up_locked_and_is_opened_by_it() {
    let Some(mut node) = TestNode::boot() else { return };
    let message = node.file("message", "signed");
    let public = node.ok(&["key", "public", PATH]);
    node.down();
    let right = node.file("right", "correct horse battery staple\n");
    let wrong = node.file("wrong", "correct horse battery stable\n");
    let short = node.file("short", "seven77\n");
    let refused = node.run(&["key", "reseal", "--passphrase", "--new-passphrase-file", &short]);
    assert!(text(&refused).contains("has 8 to 1024 bytes"), "{}", text(&refused));
    let moved = node.json(&["key", "reseal", "--passphrase", "--new-passphrase-file", &right]);
    assert_eq!((moved["from"].as_str(), moved["to"].as_str()), (Some("key_file"), Some("passphrase")));
    assert!(node.root().join("state/keys/seal.key").exists(), "it opens the signing keys");
    node.up();
    told_locked(&node);
    refuses(&node, &message);
    let output = node.run(&["key", "unlock", "--passphrase-file", &wrong]);
    assert!(text(&output).contains("wrong secret"), "{}", text(&output));
    refuses(&node, &message);
    node.ok(&["key", "unlock", "--passphrase-file", &right]);
    assert_eq!(node.ok(&["key", "public", PATH]), public);
    node.settled();
    // Nobody else knows it: a new boundary is closed.
    restarted(&node);
    told_locked(&node);
    node.ok(&["key", "unlock", "--passphrase-file", &right]);
    node.ok(&["key", "sign", PATH, &message]);
    node.down();
    let output = node.run(&["key", "reseal", "--local", "--passphrase-file", &wrong]);
    assert!(text(&output).contains("wrong secret"), "{}", text(&output));
    node.ok(&["key", "reseal", "--local", "--passphrase-file", &right]);
    node.up();
    node.settled();
    assert_eq!(node.ok(&["key", "public", PATH]), public);
}
