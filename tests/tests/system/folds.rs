//! Every service writes its fold down when it ends, and the next process goes on from there, deciding and answering as if
//! it had read the whole log; a file that is damaged or another's is removed.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use system_tests::{TestNode, kill, within};

const FOLDING: [&str; 5] = ["policy", "keys", "identity", "capability_service", "process_manager"];
const GOES_ON: &str = "the fold goes on from its snapshot";
const REFUSED: &str = "a snapshot is not used";
const PATH: &str = "/orbital/users/admin/release";
const SOON: Duration = Duration::from_secs(20);

fn snapshot(node: &TestNode, service: &str) -> PathBuf {
    node.root().join("state").join(service).join("fold.snapshot")
}

fn said(node: &TestNode, service: &str, what: &str) -> usize {
    node.service_log(service).matches(what).count()
}

/// Something for each service to remember: a suspended person, a right, a right that was taken back, a rotated key.
struct Past {
    key: String,
    right: String,
    revoked: String,
}

fn past(node: &TestNode) -> Past {
    node.ok(&["identity", "create", "alice"]);
    node.ok(&["identity", "create", "bob"]);
    node.ok(&["identity", "suspend", "alice"]);
    let grant = |object: &str| {
        let granted = node.json(&["capability", "grant", object, "r", "bob"]);
        granted[0]["id"].as_str().unwrap().to_owned()
    };
    let (right, revoked) = (grant("file:/kept"), grant("file:/gone"));
    node.ok(&["capability", "revoke", &revoked]);
    node.ok(&["key", "rotate", PATH, "--reason", "a year is over"]);
    Past { key: node.ok(&["key", "public", PATH]), right, revoked }
}

fn is_remembered(node: &TestNode, past: &Past) {
    assert_eq!(node.ok(&["key", "public", PATH]), past.key);
    let status =
        |name: &str| node.json(&["identity", "show", name])["status"].as_str().unwrap().to_lowercase();
    assert_eq!((status("alice").as_str(), status("bob").as_str()), ("suspended", "active"));
    assert_eq!(node.json(&["capability", "who", "file:/kept"])[0]["id"], past.right.as_str());
    assert_eq!(node.json(&["capability", "who", "file:/gone"]), serde_json::json!([]));
    let twice = node.run(&["capability", "revoke", &past.revoked]);
    assert!(!twice.status.success(), "what was taken back cannot be taken back again");
}

/// Whatever was decided on a state from a snapshot comes out the same on the state that all entries give.
fn is_replayed(node: &TestNode) {
    assert_eq!(node.json(&["log", "replay"])["mismatches"], serde_json::json!([]));
}

/// covers: AX-54, AX-59
#[test]
fn services_go_on_from_what_they_wrote_down_and_decide_as_a_replay_does() {
    let Some(mut node) = TestNode::boot() else { return };
    let past = past(&node);
    assert!(
        FOLDING.iter().all(|service| said(&node, service, GOES_ON) == 0),
        "there was nothing to go on from"
    );
    node.down();
    for service in FOLDING {
        let mode = fs::metadata(snapshot(&node, service)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{service}");
    }
    node.up();
    node.settled();
    for service in FOLDING {
        let wrote = node.service_log(service);
        assert!(wrote.contains(GOES_ON) && !wrote.contains(REFUSED), "{service}: {wrote}");
    }
    is_remembered(&node, &past);
    node.ok(&["capability", "grant", "file:/later", "r", "bob"]);
    is_replayed(&node);
    // A service that is killed goes on from what the last one before it wrote down.
    for service in ["policy", "capability_service"] {
        let before = node.pid(service);
        kill(before);
        assert!(within(SOON, || node.pids().iter().any(|(name, pid)| name == service && *pid != before)));
        assert!(within(SOON, || said(&node, service, GOES_ON) == 2), "{}", node.service_log(service));
        node.settled();
    }
    is_remembered(&node, &past);
    assert_eq!(node.json(&["capability", "who", "file:/later"]).as_array().unwrap().len(), 1);
    node.ok(&["capability", "grant", "file:/last", "r", "bob"]);
    is_replayed(&node);
}

/// covers: AX-55
#[test]
fn a_snapshot_that_is_damaged_or_anothers_is_told_and_the_log_is_folded() {
    let Some(mut node) = TestNode::boot() else { return };
    let past = past(&node);
    node.down();
    let damage = |service: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let file = snapshot(&node, service);
        let mut bytes = fs::read(&file).unwrap();
        change(&mut bytes);
        fs::write(&file, bytes).unwrap();
    };
    damage("policy", &|bytes| *bytes.last_mut().unwrap() ^= 1);
    damage("identity", &|bytes| bytes.truncate(40));
    let of_another = fs::read(snapshot(&node, "process_manager")).unwrap();
    damage("capability_service", &|bytes| bytes.clone_from(&of_another));
    node.up();
    node.settled();
    for service in ["policy", "identity", "capability_service"] {
        let wrote = node.service_log(service);
        assert!(wrote.contains(REFUSED) && !wrote.contains(GOES_ON), "{service}: {wrote}");
    }
    assert!(said(&node, "keys", GOES_ON) == 1 && said(&node, "keys", REFUSED) == 0);
    is_remembered(&node, &past);
    node.ok(&["capability", "grant", "file:/later", "r", "bob"]);
    is_replayed(&node);
}
