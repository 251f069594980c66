//! The product's conscience can tell, and can fail.

use std::process::{Command, Output};

fn prove(args: &[&str]) -> Option<Output> {
    Some(Command::new(system_tests::binary()?).arg("prove").args(args).output().unwrap())
}

fn report(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

#[test]
fn the_quick_sections_hold() {
    let sections = [
        "--section",
        "node",
        "--section",
        "work",
        "--section",
        "authority",
        "--section",
        "revoke",
        "--section",
        "keys",
        "--section",
        "tamper",
        "--section",
        "verify",
        "--section",
        "replay",
        "--section",
        "images",
        "--section",
        "services",
    ];
    let Some(output) = prove(&[&sections[..], &["--json"]].concat()) else { return };
    let report = report(&output);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["sections"].as_array().unwrap().len(), 10);
    assert!(report["sections"].as_array().unwrap().iter().all(|section| section["ok"] == true));
}

/// One guard of the sandbox stands for all of them here: `cargo xtask ci --nightly` goes through the whole list.
#[test]
fn a_defence_that_is_switched_off_is_missed() {
    missed(&[
        "chain",
        "tree",
        "checkpoint-signature",
        "fsync",
        "ack",
        "mountns",
        "service-handed",
        "service-let-in",
    ]);
}

#[test]
fn an_authority_that_is_switched_off_is_missed() {
    missed(&["policy", "decision-signature", "token-binding", "hash-pin", "revocation", "cascade"]);
}

#[test]
fn a_key_or_a_record_that_is_switched_off_is_missed() {
    missed(&["replay", "key-purpose", "key-lock", "key-decision", "key-record", "image-record"]);
}

fn missed(parts: &[&str]) {
    for part in parts {
        let Some(output) = prove(&["--break", part, "--json"]) else { return };
        assert!(!output.status.success(), "nothing missed {part}: {:#}", report(&output));
        let report = report(&output);
        let missed =
            report["sections"].as_array().unwrap().iter().filter_map(|section| section["missed"].as_array());
        assert!(missed.flatten().count() > 0, "{part}: {report:#}");
    }
}
