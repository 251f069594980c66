//! Receipts on a real node: verified one by one and over a range, proved to somebody else, and found out where they do not hold.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use system_tests::TestNode;

const SEED: &str = "0000000000000000000000000000000000000000000000000000000000000001";

/// A job that counts words; what `-o json` shows of its end.
fn counted(node: &TestNode) -> Value {
    let manifest = format!(
        "version = 1\nname = \"count\"\n[executable]\nexec_type = \"NativeBinary\"\nentry_point = \"bailiwick\"\nargs = \
         [\"process\", \"job-attempt\", \"count\"]\n[determinism]\nis_deterministic = true\nrandom_seed = \"{SEED}\"\n\
         [[inputs]]\nname = \"text\"\nmount = \"/in/text\"\n[[outputs]]\nname = \"result\"\npath = \"/out/result\"\n"
    );
    let manifest = node.file("count.toml", manifest);
    let text = format!("text={}", node.file("text", "one two three\nfour\n"));
    let mut command =
        node.command(&["job", "submit", &manifest, "-o", "json", "--input", &text, "--executable"]);
    let output = command.arg(system_tests::binary().unwrap()).output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// Of a range; its exit code and what it shows.
fn audit(node: &TestNode, range: &str) -> (Option<i32>, Value) {
    let output = node.run(&["log", "audit", range, "-o", "json"]);
    let shown = serde_json::from_slice(&output.stdout);
    (output.status.code(), shown.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

fn counts(audited: &Value) -> [u64; 3] {
    ["passed", "failed", "errors"].map(|name| audited["trail"][name].as_u64().unwrap())
}

/// Where the signed receipt lies.
fn content(node: &TestNode, job: &Value) -> PathBuf {
    let hash = job["receipt"].as_str().unwrap().trim_start_matches("blake3:").to_owned();
    node.root().join("state/images").join(format!("blake3-{hash}"))
}

/// The row of the job's receipt.
fn row(audited: &Value, job: &Value) -> Value {
    let rows = audited["receipts"].as_array().unwrap();
    rows.iter().find(|row| row["entry"] == job["entry"]).unwrap_or_else(|| panic!("{audited}")).clone()
}

/// covers: ACT-28, ACT-33
#[test]
fn receipts_are_verified_by_file_by_job_and_by_range_and_proved_to_others() {
    let Some(node) = TestNode::boot() else { return };
    node.ok(&["run", "--", "/bin/true"]);
    let job = counted(&node);
    assert_eq!(job["state"], "verified", "{job}");
    let id = job["job"].as_str().unwrap();

    // One receipt, as a file and by its job.
    let file = node.root().join("receipt");
    node.ok(&["job", "receipt", id, "--file", file.to_str().unwrap()]);
    for what in [file.to_str().unwrap(), id] {
        assert_eq!(node.json(&["job", "verify", what])["result"], "verified", "{what}");
    }

    // A range: up to here, so that what is appended meanwhile changes nothing.
    let last = node.log(&[]).last().unwrap()["sequence"].as_u64().unwrap();
    let range = format!("0..{last}");
    let (code, whole) = audit(&node, &range);
    assert_eq!(code, Some(0), "{whole}");
    let receipts = node.log(&["Receipt"]);
    let closed = |receipt: &&Value| receipt["body"]["axiom_entry"]["sequence"].as_u64() <= Some(last);
    assert_eq!(counts(&whole), [receipts.iter().filter(closed).count() as u64, 0, 0]);
    assert_eq!(
        (&whole["from"], &whole["to"], &whole["trail"]["entries"]),
        (&json!(0), &json!(last), &json!(last + 1))
    );
    let of_job = row(&whole, &job);
    assert_eq!((&of_job["type"], &of_job["result"]), (&json!("JobSubmit"), &json!("passed")));
    assert_eq!(of_job["receipt_hash"], job["receipt"]);
    assert_eq!(audit(&node, &range).1["trail"], whole["trail"], "the same, the same hash");
    // A part of it is another trail, with the receipts of that part, wherever these stand.
    let only = job["entry"].as_u64().unwrap();
    let (code, part) = audit(&node, &only.to_string());
    assert_eq!((code, counts(&part)), (Some(0), [1, 0, 0]), "{part}");
    assert_ne!(part["trail"]["hash"], whole["trail"]["hash"]);

    // A proof that the receipt is on record, for somebody who has nothing else.
    let sequence = of_job["receipt"].as_u64().unwrap().to_string();
    let proof = node.root().join("proof");
    node.ok(&["log", "prove", &sequence, proof.to_str().unwrap()]);
    let key = node.json(&["log", "checkpoint"])["key"].as_str().unwrap().to_owned();
    let verified = node.json(&["verify", proof.to_str().unwrap(), "--key", &key]);
    assert!(verified.to_string().contains(job["receipt"].as_str().unwrap()), "{verified}");
}

/// covers: ACT-33
#[test]
fn a_receipt_that_was_changed_or_is_gone_is_found_by_an_audit() {
    let Some(node) = TestNode::boot() else { return };
    let job = counted(&node);
    let last = node.log(&[]).last().unwrap()["sequence"].as_u64().unwrap();
    let range = format!("0..{last}");
    let (_, whole) = audit(&node, &range);
    let [passed, ..] = counts(&whole);
    let path = content(&node, &job);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    let at = bad.len() / 2;
    bad[at] ^= 1;
    // The store's files are read-only; who changes one has the rights to make another.
    fs::remove_file(&path).unwrap();
    fs::write(&path, &bad).unwrap();
    let (code, audited) = audit(&node, &range);
    assert_eq!((code, counts(&audited)), (Some(5), [passed - 1, 1, 0]), "{audited}");
    assert_eq!(row(&audited, &job)["result"], "failed");
    assert_ne!(audited["trail"]["hash"], whole["trail"]["hash"]);
    fs::remove_file(&path).unwrap();
    let (code, audited) = audit(&node, &range);
    assert_eq!((code, counts(&audited)), (Some(1), [passed - 1, 0, 1]), "{audited}");
    assert_eq!(row(&audited, &job)["result"], "error");
    fs::write(&path, &good).unwrap();
    assert_eq!(audit(&node, &range), (Some(0), whole));
}
