//! Revocations while somebody does not listen: what was answered is so, and what was not is the one or the other.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use system_tests::{TestNode, within};

const EVERYBODY: [&str; 6] = ["process_manager", "identity", "keys", "capability_service", "policy", "axiom"];

struct Rights<'n> {
    node: &'n TestNode,
    me: String,
}

impl<'n> Rights<'n> {
    fn new(node: &'n TestNode) -> Self {
        let me = node.json(&["identity", "whoami"])["name"].as_str().unwrap().to_owned();
        Self { node, me }
    }

    fn grant(&self, object: &str) -> String {
        let granted = self.node.json(&["capability", "grant", object, "r", &self.me]);
        granted[0]["id"].as_str().unwrap().to_owned()
    }

    fn is_held(&self, object: &str) -> bool {
        let said = self.node.run(&["capability", "check", &self.me, object, "r"]);
        match String::from_utf8_lossy(&said.stdout).trim() {
            "held" => true,
            "not held" => false,
            _ => panic!("no answer: {}", String::from_utf8_lossy(&said.stderr)),
        }
    }

    fn is_listed(&self, object: &str) -> bool {
        let who = self.node.json(&["capability", "who", object]);
        !who.as_array().unwrap().is_empty()
    }

    fn revocations(&self, id: &str) -> usize {
        let is_of = |entry: &&Value| entry.to_string().contains(id);
        self.node.log(&["CapabilityRevoke"]).iter().filter(is_of).count()
    }
}

fn signal(pid: i64, signal: &str) -> bool {
    let kill = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
    kill.unwrap().success()
}

/// covers: CAP-32
#[test]
fn whoever_stands_still_during_a_revocation_what_was_answered_is_so() {
    let Some(node) = TestNode::boot() else { return };
    let rights = Rights::new(&node);
    for service in EVERYBODY {
        let object = format!("file:/srv/{service}");
        let id = rights.grant(&object);
        let pid = node.pid(service);
        assert!(signal(pid, "-STOP"));
        let answered = node.run(&["capability", "revoke", &id]).status.success();
        if answered && service != "capability_service" {
            assert!(!rights.is_listed(&object), "{service} stood still, and what was taken back is held");
        }
        // It is gone if it was replaced.
        signal(pid, "-CONT");
        node.settled();
        // A call that nobody waits for any more may still arrive.
        let is_quiet = || rights.is_listed(&object) == (rights.revocations(&id) == 0);
        assert!(within(Duration::from_secs(10), is_quiet), "{service}: the log and the rights differ");
        if rights.is_listed(&object) {
            assert!(!answered, "{service} stood still, and a revocation was answered that is none");
            node.ok(&["capability", "revoke", &id]);
        }
        assert!(!rights.is_listed(&object), "{service}");
        assert_eq!(rights.revocations(&id), 1, "{service}: taken back once");
    }
}

/// Processor time that nobody needs, from as many as make the machine wait.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start(count: usize) -> Self {
        let start = |_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        Self((0..count).map(start).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}

/// covers: CAP-32
#[test]
fn a_revocation_on_a_machine_without_time_is_late_and_not_half_done() {
    let Some(node) = TestNode::boot() else { return };
    let rights = Rights::new(&node);
    let cores = std::thread::available_parallelism().unwrap().get();
    let hogs = Hogs::start(cores * 8);
    for number in 0..5 {
        let object = format!("file:/srv/{number}");
        let id = rights.grant(&object);
        assert!(rights.is_held(&object));
        let revoked = node.run(&["capability", "revoke", &id]);
        let said = String::from_utf8_lossy(&revoked.stderr).into_owned();
        // Success means that nobody honours it; anything else names who may.
        assert!(revoked.status.success() || said.contains("not yet applied by"), "{said}");
        assert!(!rights.is_listed(&object));
        if revoked.status.success() {
            assert!(!rights.is_held(&object));
        }
        assert_eq!(rights.revocations(&id), 1);
    }
    drop(hogs);
    node.settled();
    assert!((0..5).all(|number| !rights.is_held(&format!("file:/srv/{number}"))));
}
