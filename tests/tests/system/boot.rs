//! A node boots, is made of separate processes, survives kills, and leaves a log that anybody can verify.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Command,
    time::Duration,
};

use system_tests::{SERVICES, TestNode, kill, within};

/// covers: SUP-02, SUP-12, SUP-79
#[test]
fn a_node_boots_as_separate_processes_in_namespaces_of_their_own() {
    let Some(node) = TestNode::boot() else { return };
    let pids = node.pids();
    let names: BTreeSet<&str> = pids.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(SERVICES));
    for kind in ["mnt", "net", "pid"] {
        let seen: BTreeSet<_> =
            pids.iter().map(|(_, pid)| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()).collect();
        assert_eq!(seen.len(), pids.len(), "services share a {kind} namespace");
    }
    let status = node.json(&["status"]);
    assert!(status["not_installed"].as_array().unwrap().iter().any(|name| name == "filesystem"));
}

/// covers: SUP-61, AX-12, SUP-80
#[test]
fn a_killed_service_is_replaced_and_the_others_do_not_notice() {
    let Some(node) = TestNode::boot() else { return };
    for victim in SERVICES {
        let before: BTreeMap<String, i64> = node.pids().into_iter().collect();
        kill(before[victim]);
        let replaced = || node.pids().into_iter().any(|(name, pid)| name == victim && pid != before[victim]);
        assert!(within(Duration::from_secs(15), replaced), "{victim} did not come back");
        node.settled();
        let after: BTreeMap<String, i64> = node.pids().into_iter().collect();
        for (name, pid) in &before {
            assert_eq!(after[name] == *pid, name != victim, "{name} after the death of {victim}");
        }
    }
    node.ok(&["policy", "state"]);
}

/// covers: SUP-97
#[test]
fn a_killed_supervisor_takes_up_what_runs() {
    let Some(node) = TestNode::boot() else { return };
    let before = node.pids();
    let supervisor = node.json(&["status"])["supervisor_pid"].as_i64().unwrap();
    kill(supervisor);
    let replaced = || {
        let output = node.run(&["status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["supervisor_pid"].as_i64().is_some_and(|pid| pid != supervisor)
    };
    assert!(within(Duration::from_secs(15), replaced));
    node.settled();
    assert_eq!(node.pids(), before);
}

/// covers: AX-48
#[test]
fn a_node_comes_up_again_with_the_same_log() {
    let Some(mut node) = TestNode::boot() else { return };
    node.ok(&["identity", "create", "alice"]);
    let key = node.ok(&["key", "public", "/orbital/users/alice"]);
    node.down();
    node.up();
    assert_eq!(node.ok(&["key", "public", "/orbital/users/alice"]), key);
    assert_eq!(node.json(&["identity", "show", "alice"])["public_key"], key.trim());
}

/// covers: AX-21, AX-22
#[test]
fn a_copy_of_the_log_verifies_alone_and_a_flipped_byte_is_named() {
    let Some(mut node) = TestNode::boot() else { return };
    node.ok(&["identity", "create", "bob"]);
    let head = node.ok(&["log", "head"]);
    node.down();
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(node.root().join("state/axiom/log")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let head_file = copy.path().join("head.note");
    fs::write(&head_file, head).unwrap();
    let verify = || {
        Command::new(system_tests::binary().unwrap())
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("HOME")
            .args(["log", "verify", copy.path().to_str().unwrap(), "--head", head_file.to_str().unwrap()])
            .output()
            .unwrap()
    };
    assert!(verify().status.success(), "{}", String::from_utf8_lossy(&verify().stderr));
    let segment = copy.path().join("00000000000000000000.seg");
    let mut bytes = fs::read(&segment).unwrap();
    // In the middle of the first entry's payload.
    bytes[900] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let refused = verify();
    assert_eq!(refused.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("entry 0"), "{refused:?}");
}

/// A person with curl: HTTP/1.1 and JSON on the socket that also speaks gRPC.
#[test]
fn the_same_socket_speaks_http_and_json() {
    let Some(node) = TestNode::boot() else { return };
    let call = |context: &str, body: &str| {
        let mut stream = UnixStream::connect(node.root().join("run/admin/identity.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request = format!(
            "POST /bailiwick.identity.v1.Identities/FindIdentity HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\n{context}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let without = call("", "{}");
    assert!(without.starts_with("HTTP/1.1 400") && without.contains("envelope_invalid"), "{without}");
    let identity = node.json(&["identity", "whoami"]);
    let device = node.json(&["identity", "show", "orbital.nodes.test"]);
    let context = format!(
        "bailiwick-context: {{\"app_id\":\"app_0\",\"requester_identity_id\":{},\"device_id\":{},\"actor_type\":\"user\",\
         \"capability\":\"system.identity.find_identity\",\"is_remote\":false,\
         \"trace_id\":\"00112233445566778899aabbccddeeff\"}}\r\n",
        identity["id"], device["id"]
    );
    let found = call(&context, "{\"name\":\"admin\"}");
    assert!(found.starts_with("HTTP/1.1 200") && found.contains("/orbital/users/admin"), "{found}");
}
