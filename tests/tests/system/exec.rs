//! One more command in the sandbox of a running program: decided, on record, and no more than the program itself.

use std::{io::Write, process::Stdio, time::Duration};

use serde_json::Value;
use system_tests::{TestNode, within};

/// A program that has left a mark and stays.
fn staying(node: &TestNode) -> u64 {
    let script = "echo here > /run/mark; exec sleep 1000";
    let pid: u64 = node.ok(&["run", "--detach", "--", "sh", "-c", script]).trim().parse().unwrap();
    let marked = || node.run(&["exec", &pid.to_string(), "--", "test", "-e", "/run/mark"]).status.success();
    assert!(within(Duration::from_secs(10), marked), "the program left no mark");
    pid
}

fn decisions(node: &TestNode) -> Vec<Value> {
    let log = node.log(&["PolicyDecision"]);
    log.into_iter().filter(|entry| !entry["body"]["action"]["execute"].is_null()).collect()
}

/// How the act of a decision was closed.
fn closed(node: &TestNode, decision: &Value) -> Option<Value> {
    let log = node.log(&["Receipt"]);
    let of_it = |it: &&Value| it["body"]["axiom_entry"]["sequence"] == decision["sequence"];
    log.iter().find(of_it).map(|entry| entry["body"]["status"].clone())
}

#[test]
fn a_command_is_decided_recorded_and_closed_with_its_end() {
    let Some(node) = TestNode::boot() else { return };
    let pid = staying(&node).to_string();
    let mut command = node.command(&["exec", &pid, "--env", "A=b", "--", "sh", "-c", "cat; echo $A; exit 7"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), &b"through\nb\n"[..]));
    let decided = decisions(&node).pop().unwrap();
    assert_eq!(decided["body"]["action"]["execute"]["target"]["process"].to_string(), pid, "{decided}");
    let asked = decided.to_string();
    assert!(asked.contains(r#""command":"sh""#) && !asked.contains("through"), "{asked}");
    let failed = serde_json::json!({ "failed": { "exit_code": 7 } });
    assert!(within(Duration::from_secs(10), || closed(&node, &decided) == Some(failed.clone())));
    assert_eq!(node.ok(&["exec", "-t", "sh", "--", "cat", "/run/mark"]), "here\r\n", "by its name");
    let late = node.run(&["exec", &pid, "--timeout", "100ms", "--", "sleep", "1000"]);
    assert_eq!(late.status.code(), Some(137), "{late:?}");
    let last = decisions(&node).pop().unwrap();
    assert!(within(Duration::from_secs(10), || closed(&node, &last) == Some("timeout".into())));
}

#[test]
fn what_is_denied_or_gone_runs_nothing_and_is_said() {
    let Some(node) = TestNode::boot() else { return };
    let pid = staying(&node).to_string();
    let before = decisions(&node).len();
    let said = |args: &[&str]| {
        let output = node.run(args);
        assert_eq!(output.status.code(), Some(125), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&["exec", "4711", "--", "true"]).contains("no process 4711"));
    assert!(said(&["exec", "nobody", "--", "true"]).contains("no running program has the name"));
    assert_eq!(decisions(&node).len(), before, "nothing to decide");
    let absent = said(&["exec", &pid, "--", "no-such-command"]);
    assert!(absent.contains("no-such-command") && absent.contains("open executable"), "{absent}");
    let rule = "[[rule]]\nid = \"none\"\nname = \"none\"\ndescription = \"d\"\npriority = 999\neffect = \"Deny\"\n\
                condition = { action = { kind = \"execute\" } }\n";
    node.ok(&["policy", "add", &node.file("rule.toml", rule)]);
    let denied = said(&["exec", &pid, "--", "touch", "/run/denied"]);
    assert!(denied.contains("bailiwick why"), "{denied}");
    assert_eq!(decisions(&node).pop().unwrap()["body"]["effect"], "Deny");
    // A program is as free as before to be told, and its end ends the rest.
    node.ok(&["kill", &pid, "--signal", "stop"]);
    assert!(said(&["exec", &pid, "--", "true"]).contains("suspended"));
    node.ok(&["policy", "remove", "none"]);
    node.ok(&["kill", &pid, "--signal", "cont"]);
    let kept = node.run(&["exec", &pid, "--", "test", "-e", "/run/denied"]);
    assert_eq!(kept.status.code(), Some(1), "what was denied has not run");
    let mut beside = node.command(&["exec", &pid, "--", "sh", "-c", "echo up; exec sleep 1000"]);
    let mut beside = beside.stdout(Stdio::piped()).spawn().unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(beside.stdout.as_mut().unwrap(), &mut up).unwrap();
    node.ok(&["kill", &pid, "--signal", "kill"]);
    assert_eq!(beside.wait().unwrap().code(), Some(137));
    let last = decisions(&node).pop().unwrap();
    assert!(within(Duration::from_secs(10), || closed(&node, &last) == Some("cancelled".into())));
    assert!(!said(&["exec", &pid, "--", "true"]).is_empty());
}
