//! Programs run under authority: what they were not given they do not reach, and `why` names it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that finds something wrong stops"
)]

use std::{fs, net::TcpListener, time::Duration};

use system_tests::{TestNode, within};

/// A file in a home and a server on loopback: both fail, both are named, with the flag that would allow them.
#[test]
fn why_names_the_path_and_the_address_that_were_refused() {
    let Some(node) = TestNode::boot() else { return };
    let home = tempfile::Builder::new().prefix("home").tempdir_in(std::env::var_os("HOME").unwrap()).unwrap();
    let canary = home.path().join("canary");
    fs::write(&canary, "secret").unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let script =
        format!("cat {}; exec 3<>/dev/tcp/127.0.0.1/{} && echo connected", canary.display(), address.port());
    let output = node.run(&["run", "--", "bash", "-c", &script]);
    assert!(!output.status.success());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(!printed.contains("secret") && !printed.contains("connected"), "{printed}");
    let why = node.ok(&["why", "last"]);
    assert!(why.contains(canary.to_str().unwrap()), "{why}");
    assert!(why.contains(&address.to_string()), "{why}");
    assert!(why.contains(&format!("--fs {}", canary.display())) && why.contains("--egress"), "{why}");
    let allowed = node.run(&["run", "--fs", canary.to_str().unwrap(), "--", "cat", canary.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&allowed.stdout), "secret");
}

/// covers: PRC-10
#[test]
fn arguments_arrive_unchanged_and_the_exit_code_comes_back() {
    let Some(node) = TestNode::boot() else { return };
    let output = node.run(&["run", "--", "sh", "-c", "printf '%s|' \"$@\"; exit 7", "sh", "a b", "", "ü\n"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a b||ü\n|");
    assert_eq!(output.status.code(), Some(7));
}

/// covers: PRC-13
#[test]
fn limits_are_held() {
    let Some(node) = TestNode::boot() else { return };
    let files = node.run(&[
        "run",
        "--files",
        "16",
        "--",
        "bash",
        "-c",
        "for i in $(seq 3 40); do eval \"exec $i</dev/null\" || exit 9; done",
    ]);
    assert!(!files.status.success(), "40 files were opened with a limit of 16");
    let wall = node.run(&["run", "--timeout", "300ms", "--", "sleep", "30"]);
    assert!(!wall.status.success());
    assert!(String::from_utf8_lossy(&wall.stderr).contains("limit"), "{wall:?}");
}

/// covers: PRC-04, PRC-06
#[test]
fn a_program_is_listed_and_killed_on_record() {
    let Some(node) = TestNode::boot() else { return };
    let id: u64 = node.ok(&["run", "--detach", "--", "sleep", "1000"]).trim().parse().unwrap();
    let list = node.json(&["ps"]);
    assert!(list.as_array().unwrap().iter().any(|row| row["pid"] == id && row["state"] == "running"));
    node.ok(&["kill", "--signal", "kill", &id.to_string()]);
    let gone = || {
        let list = node.json(&["ps"]);
        !list.as_array().unwrap().iter().any(|row| row["pid"] == id && row["state"] == "running")
    };
    assert!(within(Duration::from_secs(10), gone));
    let kills = node.json(&["log", "show", "0..", "--type", "ProcessKill"]);
    assert_eq!(kills.as_array().unwrap().len(), 1);
}

#[test]
fn a_program_survives_the_death_of_the_process_manager() {
    let Some(node) = TestNode::boot() else { return };
    let id: u64 = node.ok(&["run", "--detach", "--", "sleep", "1000"]).trim().parse().unwrap();
    let host_pid = |node: &TestNode| {
        let output = node.run(&["ps", "-o", "json"]);
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let list = list.as_array().cloned().unwrap_or_default();
        list.iter().find(|row| row["pid"] == id).and_then(|row| row["host_pid"].as_i64())
    };
    let before = host_pid(&node).unwrap();
    let manager = node.pids().into_iter().find(|(name, _)| name == "process_manager").unwrap().1;
    std::process::Command::new("kill").args(["-9", &manager.to_string()]).status().unwrap();
    assert!(within(Duration::from_secs(15), || host_pid(&node) == Some(before)));
    node.ok(&["kill", "--signal", "kill", &id.to_string()]);
}
