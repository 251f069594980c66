//! Programs run under authority: what they were not given they do not reach, and `why` names it.

use std::{fs, net::TcpListener, time::Duration};

use system_tests::{TestNode, kill, within};

/// A file in the user's home and a server on loopback: both fail, both are named, with what the run was granted and the
/// flag that would allow each.
#[test]
fn why_names_the_path_and_the_address_that_were_refused() {
    let Some(node) = TestNode::boot() else { return };
    let home = tempfile::Builder::new().prefix("home").tempdir_in(std::env::var_os("HOME").unwrap()).unwrap();
    let canary = home.path().join("canary");
    fs::write(&canary, "secret").unwrap();
    let given = tempfile::tempdir().unwrap();
    fs::write(given.path().join("note"), "given").unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let address = server.local_addr().unwrap();
    let script = format!(
        "cat {}; exec 3<>/dev/tcp/127.0.0.1/{} && echo connected; cat {}/note; exit 4",
        canary.display(),
        address.port(),
        given.path().display()
    );
    let grant = given.path().to_str().unwrap();
    let output = node.run(&["run", "--fs", grant, "--", "bash", "-c", &script]);
    assert_eq!((String::from_utf8_lossy(&output.stdout).as_ref(), output.status.code()), ("given", Some(4)));
    assert!(server.accept().is_err(), "somebody connected");
    let why = node.ok(&["why", "last"]);
    let line = |of: &str| why.lines().find(|line| line.contains(of)).unwrap_or_else(|| panic!("{of}: {why}"));
    assert!(line("granted").contains(&format!("{grant}:ro")), "{why}");
    assert!(line("open").contains(canary.to_str().unwrap()), "{why}");
    assert!(line("connect").contains(&address.to_string()), "{why}");
    line(&format!("--fs {}", canary.display()));
    line(&format!("--egress {address}"));
    let allowed = node.run(&["run", "--fs", canary.to_str().unwrap(), "--", "cat", canary.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&allowed.stdout), "secret");
}

/// A refusal by policy: the caller gets an id, the operator layer, rule and the smallest change, and the log has it. The
/// change, put in force, allows exactly what was refused.
#[test]
fn why_names_layer_rule_and_change_of_a_refusal_by_policy() {
    let Some(node) = TestNode::boot() else { return };
    let (this, that) = (node.file("this", "this"), node.file("that", "that"));
    let sign = |file: &str| node.run(&["key", "sign", "/orbital/users/release", file]);
    let refused = sign(&this);
    assert_eq!(refused.status.code(), Some(3));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let why = node.json(&["why", "last"]);
    let id = why["id"].as_u64().unwrap();
    assert!(said.contains(&id.to_string()), "{said}");
    for told in ["rule", "default-deny", "layer", "priority"] {
        assert!(!said.contains(told), "the caller is told more than the id: {said}");
    }
    assert_eq!((why["layer"].as_str(), why["rule"].as_str()), (Some("rule"), Some("default-deny")), "{why}");
    assert_eq!(node.json(&["why", &id.to_string()]), why);
    let entry = node.json(&["log", "show", &id.to_string()])[0].clone();
    assert_eq!(
        (entry["type"].as_str(), entry["body"]["effect"].as_str()),
        (Some("PolicyDecision"), Some("Deny"))
    );
    let change = node.file("change.toml", why["smallest_change"].as_str().unwrap());
    node.ok(&["policy", "add", &change]);
    assert!(sign(&this).status.success(), "the smallest change does not allow it");
    let other = node.run(&["key", "sign", "/orbital/users/other", &that]);
    assert_eq!(other.status.code(), Some(3), "the smallest change allows more than what was refused");
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
    kill(node.pid("process_manager"));
    assert!(within(Duration::from_secs(15), || host_pid(&node) == Some(before)));
    node.ok(&["kill", "--signal", "kill", &id.to_string()]);
}
