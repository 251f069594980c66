//! Deterministic jobs on a real node: twice the same, a receipt, and everything that must not be ends with its name.

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::Value;
use system_tests::{TestNode, kill, within};

const SEED: &str = "0000000000000000000000000000000000000000000000000000000000000001";

/// A manifest whose program is the binary under test, which knows these attempts.
fn manifest(node: &TestNode, attempt: &str, determinism: &str, rest: &str) -> String {
    let text = format!(
        "version = 1\nname = \"{attempt}\"\n{rest}\n[executable]\nexec_type = \"NativeBinary\"\nentry_point = \
         \"bailiwick\"\nargs = [\"process\", \"job-attempt\", \"{attempt}\"]\n[determinism]\nis_deterministic = \
         true\n{determinism}\n[[inputs]]\nname = \"text\"\nmount = \"/in/text\"\n[[outputs]]\nname = \"result\"\npath = \
         \"/out/result\"\n"
    );
    node.file(&format!("{attempt}.toml"), text)
}

fn seeded() -> String {
    format!("random_seed = \"{SEED}\"")
}

/// Submits and follows; what `-o json` shows of its end.
fn submit(node: &TestNode, manifest: &str) -> Value {
    let text = node.file("text", "one two three\nfour\n");
    let binary = system_tests::binary().unwrap();
    let output = node
        .command(&[
            "job",
            "submit",
            manifest,
            "-o",
            "json",
            "--input",
            &format!("text={text}"),
            "--executable",
        ])
        .arg(binary)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn verify(node: &TestNode, args: &[&str]) -> Value {
    let output = node.command(&[&["job", "verify", "-o", "json"], args].concat()).output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// covers: ACT-49, ACT-50, ACT-27, ACT-29, ACT-36
#[test]
fn a_job_runs_twice_and_its_receipt_is_verified_with_and_without_the_node() {
    let Some(node) = TestNode::boot() else { return };
    let file = manifest(&node, "count", &seeded(), "");
    let job = submit(&node, &file);
    assert_eq!(job["state"], "verified", "{job}");
    let id = job["job"].as_str().unwrap();
    let kinds = ["JobSubmit", "JobStart", "JobComplete", "JobFailed"];
    let entries = node.log(&kinds);
    let seen: Vec<&str> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(seen, ["JobSubmit", "JobStart", "JobComplete"]);
    let receipts = node.log(&["Receipt"]);
    let submitted = entries[0]["sequence"].as_u64();
    let closing =
        receipts.iter().find(|entry| entry["body"]["axiom_entry"]["sequence"].as_u64() == submitted);
    let closing = closing.unwrap_or_else(|| panic!("no receipt for {submitted:?} in {receipts:?}"));
    assert_eq!(closing["body"]["proof"], job["receipt"]);
    assert_eq!(closing["body"]["outputs"][0], job["outputs"][0]["hash"]);
    // The signature is on record: `keys` used the process manager's key once.
    let used = node.log(&["KeyUsage"]);
    let path = "/orbital/services/process_manager";
    assert!(used.iter().any(|entry| entry["body"]["key_path"] == path), "{used:?}");
    let folder = node.root().join("results");
    node.ok(&["job", "outputs", id, "--dir", folder.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(folder.join("result")).unwrap(), "2 lines, 4 words\n");
    let receipt = node.root().join("receipt");
    let receipt = receipt.to_str().unwrap();
    node.ok(&["job", "receipt", id, "--file", receipt]);
    let before = node.log(&[]).len();
    for what in [id, receipt] {
        assert_eq!(verify(&node, &[what])["result"], "verified");
    }
    // To run somebody's program is decided, and changes nothing else.
    let after = node.log(&[]);
    let added: Vec<&Value> = after[before..].iter().map(|entry| &entry["type"]).collect();
    assert_eq!(added, ["PolicyDecision", "PolicyDecision"]);
    let again = submit(&node, &file);
    assert_eq!(again["outputs"], job["outputs"]);
    assert_ne!(again["job"], job["job"]);
    altered(&node, receipt);
}

/// Of a receipt, with and without a node, whose content was changed, whose content is gone, or of somebody else.
fn altered(node: &TestNode, receipt: &str) {
    assert_eq!(verify(node, &[receipt, "--offline"])["result"], "signature_holds");
    let other = "00".repeat(32);
    for args in [&[receipt, "--offline", "--issuer", &other][..], &[receipt, "--issuer", &other]] {
        assert_eq!(verify(node, args)["result"], "invalid_signature");
    }
    let mut bytes = fs::read(receipt).unwrap();
    let name = bytes.windows(6).rposition(|window| window == b"result").unwrap();
    // The first byte of the output's hash stands behind its name and the head of a byte string.
    bytes[name + 8] ^= 1;
    let forged = node.root().join("forged");
    fs::write(&forged, bytes).unwrap();
    let forged = forged.to_str().unwrap();
    for args in [&[forged, "--offline"][..], &[forged]] {
        assert_eq!(verify(node, args)["result"], "invalid_signature");
    }
    assert!(!node.run(&["job", "verify", forged, "--offline"]).status.success());
    let text = Path::new(node.root()).join("state/images");
    let hash = Command::new("sh").arg("-c").arg(format!("ls {}", text.display())).output().unwrap();
    assert!(!hash.stdout.is_empty(), "{text:?}");
}

/// covers: ACT-37, ACT-47, ACT-46
#[test]
fn what_a_job_must_not_do_ends_it_and_is_named() {
    let Some(node) = TestNode::boot() else { return };
    for (attempt, call) in [("clock", "clock_gettime"), ("network", "socket"), ("program", "clone")] {
        let job = submit(&node, &manifest(&node, attempt, &seeded(), ""));
        assert_eq!(
            (&job["state"], &job["error"]),
            (&"failed".into(), &"DeterminismViolation".into()),
            "{job}"
        );
        assert!(job["error_text"].as_str().unwrap().contains(call), "{job}");
        assert_eq!(job["receipt"], Value::Null);
    }
    // Without a seed the C library's own start is a violation.
    let job = submit(&node, &manifest(&node, "count", "", ""));
    assert!(job["error_text"].as_str().unwrap().contains("random_seed"), "{job}");
    let job = submit(&node, &manifest(&node, "file-time", &seeded(), ""));
    assert_eq!(job["error"], "DeterminismViolation", "{job}");
    assert!(job["error_text"].as_str().unwrap().contains("second run differs: result"), "{job}");
    let job = submit(&node, &manifest(&node, "nothing", &seeded(), ""));
    assert_eq!(job["error"], "ExecutionError", "{job}");
    assert!(job["error_text"].as_str().unwrap().contains("it gives up"), "{job}");
    let job = submit(&node, &manifest(&node, "input", &seeded(), ""));
    assert_eq!(job["error"], "ExecutionError", "{job}");
    let job = submit(&node, &manifest(&node, "forever", &seeded(), "resources = { wall_limit = 300 }"));
    assert_eq!(job["error"], "Timeout", "{job}");
    let small = "resources = { output_limit = 65536 }";
    let job = submit(&node, &manifest(&node, "large", &seeded(), small));
    assert_eq!(job["error"], "ResourceExceeded", "{job}");
    assert!(job["error_text"].as_str().unwrap().contains("output_limit"), "{job}");
    // Files that it has removed go with it, and so does what they took; while it runs they count.
    let job = submit(&node, &manifest(&node, "removed", &seeded(), small));
    assert_eq!(job["error"], "ExecutionError", "{job}");
    assert!(job["error_text"].as_str().unwrap().contains("No space left"), "{job}");
    let job = submit(&node, &manifest(&node, "memory", &seeded(), ""));
    assert_ne!(job["state"], "verified", "{job}");
    assert_eq!(
        node.log(&["Receipt"]).iter().filter(|entry| entry["body"]["proof"] != Value::Null).count(),
        0
    );
}

/// covers: ACT-38, ACT-41
#[test]
fn what_is_declared_is_there_and_nothing_else() {
    let Some(node) = TestNode::boot() else { return };
    let fixed = format!("{}\nclock_ns = 1700000000000000001", seeded());
    let content = |attempt: &str| {
        let job = submit(&node, &manifest(&node, attempt, &fixed, ""));
        assert_eq!(job["state"], "verified", "{job}");
        let folder = node.root().join(format!("out-{attempt}"));
        node.ok(&["job", "outputs", job["job"].as_str().unwrap(), "--dir", folder.to_str().unwrap()]);
        fs::read_to_string(folder.join("result")).unwrap()
    };
    assert_eq!(content("clock"), "1700000000000000001\n");
    assert_eq!(content("environment"), "0\n");
    assert_eq!(content("undeclared"), "[]\n");
    assert!(content("random").trim().parse::<u64>().unwrap() > 0);
}

/// The process manager dies while a job runs: it ends as failed, without a receipt, and nothing of it runs on.
#[test]
fn a_job_whose_process_manager_dies_has_failed_and_has_no_receipt() {
    let Some(node) = TestNode::boot() else { return };
    let file = manifest(&node, "forever", &seeded(), "resources = { wall_limit = 600000 }");
    let text = node.file("text", "one\n");
    let output = node
        .command(&["job", "submit", &file, "--detach", "--input", &format!("text={text}"), "--executable"])
        .arg(system_tests::binary().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let state = || node.json(&["job", "status", &id])["state"].as_str().unwrap().to_owned();
    assert!(within(Duration::from_secs(20), || state() == "running"));
    let manager = node.pid("process_manager");
    kill(manager);
    assert!(within(Duration::from_secs(20), || {
        let output = node.run(&["job", "status", &id, "-o", "json"]);
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("\"failed\"")
    }));
    let job = node.json(&["job", "status", &id]);
    assert_eq!(job["error"], "EnvironmentError", "{job}");
    assert!(node.log(&["Receipt"]).iter().all(|entry| entry["body"]["proof"] == Value::Null));
    // What can be submitted again can be cancelled.
    let output = node
        .command(&["job", "submit", &file, "--detach", "--input", &format!("text={text}"), "--executable"])
        .arg(system_tests::binary().unwrap())
        .output()
        .unwrap();
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let state = || node.json(&["job", "status", &id])["state"].as_str().unwrap().to_owned();
    assert!(within(Duration::from_secs(20), || state() == "running"));
    node.ok(&["job", "cancel", &id]);
    assert!(within(Duration::from_secs(20), || state() == "failed"));
    assert_eq!(node.json(&["job", "status", &id])["error"], "Cancelled");
    assert!(!node.run(&["job", "cancel", &id]).status.success());
}
