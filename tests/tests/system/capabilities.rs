//! Rights of a whole node: passed on, limited, taken back while services stand still or work.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use base::IdentityId;
use contracts::capability_service::v1::{
    CheckRequest, GrantRequest, Permissions, Resource, capabilities_client::CapabilitiesClient,
};
use serde_json::Value;
use system_tests::{TestNode, client::Client, kill, within};

fn me(node: &TestNode) -> String {
    node.json(&["identity", "whoami"])["name"].as_str().unwrap().to_owned()
}

/// Grants the operator itself something; the id.
fn grant(node: &TestNode, resource: &str, rights: &str, more: &[&str]) -> String {
    let who = me(node);
    let granted = node.json(&[&["capability", "grant", resource, rights, &who], more].concat());
    granted[0]["id"].as_str().unwrap().to_owned()
}

fn stop(pid: i64) {
    assert!(Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap().success());
}

/// covers: CAP-15, CAP-18, CAP-41
#[test]
fn rights_are_passed_on_shown_and_taken_back_with_all_that_came_of_them() {
    let Some(node) = TestNode::boot() else { return };
    let root = grant(&node, "file:/srv/a", "rd", &["--rate", "5/60s"]);
    let policy = "orbital.services.policy";
    let passed = node.json(&["capability", "delegate", &root, "r", policy]);
    let leaf = passed[0]["id"].as_str().unwrap().to_owned();
    assert_eq!((&passed[0]["parent"], &passed[0]["rights"]), (&root.as_str().into(), &"r".into()));
    assert_eq!(passed[0]["limits"]["rate_limit"]["count"], 5);
    let ids = |rows: &Value| -> Vec<String> {
        rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&node.json(&["capability", "chain", &leaf])), [leaf.clone(), root.clone()]);
    let mut who = ids(&node.json(&["capability", "who", "file:/srv/a"]));
    let mut both = [root.clone(), leaf.clone()];
    who.sort_unstable();
    both.sort_unstable();
    assert_eq!(who, both);
    let tree = node.json(&["capability", "tree", &root]);
    assert_eq!((ids(&tree), ids(&tree[0]["derived"])), (vec![root.clone()], vec![leaf.clone()]));
    let text = node.ok(&["capability", "tree", &root]);
    assert!(text.contains(&format!("\n  {leaf}")), "{text}");
    let more = node.run(&["capability", "delegate", &root, "rw", policy]);
    let said = String::from_utf8_lossy(&more.stderr).into_owned();
    assert!(!more.status.success() && said.contains("more is asked for"), "{said}");
    node.ok(&["capability", "revoke", &root, "--reason", "over"]);
    assert_eq!(node.json(&["capability", "who", "file:/srv/a"]), serde_json::json!([]));
    let history = |more: &[&str]| -> Vec<String> {
        let events = node.json(&[&["capability", "history", &leaf], more].concat());
        let name = |event: &Value| event["operation"].as_str().unwrap().to_owned();
        events.as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(history(&[]), ["Delegate", "Revoke"]);
    assert_eq!(history(&["--operation", "delegate", "--by", &me(&node)]), ["Delegate"]);
    assert_eq!(history(&["--by", policy]), [""; 0]);
    assert_eq!((history(&["--since", "1h"]).len(), history(&["--until", "1h"]).len()), (2, 0));
    assert_eq!(history(&["--limit", "1"]), ["Revoke"]);
}

/// covers: CAP-34
#[test]
fn who_kills_the_service_gets_no_use_more_than_the_rate_permits() {
    let Some(node) = TestNode::boot() else { return };
    grant(&node, "file:/srv/a", "r", &["--rate", "2/1h", "--context", "room=1"]);
    let who = me(&node);
    let spend = |context: &str| {
        let told = node.run(&["capability", "use", &who, "file:/srv/a", "r", "--context", context]);
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        if told.status.success() { "permitted".to_owned() } else { text.trim().to_owned() }
    };
    assert_eq!(spend("room=2"), "refused: context");
    assert_eq!((spend("room=1"), spend("room=1")), ("permitted".to_owned(), "permitted".to_owned()));
    assert_eq!(spend("room=1"), "refused: rate");
    let before = node.pid("capability_service");
    kill(before);
    let replaced = || node.pids().iter().any(|(name, pid)| name == "capability_service" && *pid != before);
    assert!(within(Duration::from_secs(20), replaced));
    node.settled();
    assert_eq!(spend("room=1"), "refused: rate", "a new process does not know what the old one has counted");
    // What is granted now nobody can have used before.
    grant(&node, "file:/srv/a", "r", &["--rate", "1/1h"]);
    assert_eq!((spend("room=1"), spend("room=1")), ("permitted".to_owned(), "refused: rate".to_owned()));
}

/// covers: CAP-09
#[test]
fn a_service_without_what_it_requires_does_not_start_and_without_an_option_it_does() {
    let Some(node) = TestNode::boot() else { return };
    let rule = "[[rule]]\nid = \"no-keys\"\nname = \"n\"\ndescription = \"d\"\npriority = 9000\neffect = \"Deny\"\n\
                [rule.condition]\nand = [{ action = { kind = \"delegate_capability\" } }, \
                { resource = { exact = { type = \"capability\", id = \"service:Keys\" } } }]\n";
    node.ok(&["policy", "add", &node.file("rule.toml", rule)]);
    let apply = |name: &str, list: &str| {
        let program = "[program]\nimage = \"/bin/sleep\"\nargs = [\"1000\"]\n";
        let needs = format!("[capabilities]\n{list} = [{{ type = \"Keys\", permissions = [\"read\"] }}]\n");
        node.apply(name, &format!("{needs}{program}"))
    };
    let refused = apply("needs", "required");
    assert!(!refused.status.success(), "{refused:?}");
    let runs = |name: &str| node.pids().iter().any(|(known, _)| known == name);
    assert!(!runs("needs"));
    let started = apply("likes", "optional");
    assert!(started.status.success() && runs("likes"), "{started:?}");
    let holder = node.json(&["identity", "list"]);
    let likes =
        holder.as_array().unwrap().iter().find(|it| it["key_path"] == "/orbital/services/likes").unwrap();
    let held = node.json(&["capability", "list", "--holder", likes["name"].as_str().unwrap()]);
    assert_eq!(held, serde_json::json!([]));
}

/// covers: CAP-38
#[test]
fn the_supervisor_derives_what_services_hold_from_its_own() {
    let Some(node) = TestNode::boot() else { return };
    let supervisor = node.json(&["identity", "show", "orbital.services.supervisor"])["id"].clone();
    let roots = node.json(&["capability", "list", "--holder", "orbital.services.supervisor"]);
    let root_of = |resource: &str| {
        let found = roots.as_array().unwrap().iter().find(|row| row["resource"] == resource);
        found.unwrap_or_else(|| panic!("no root for {resource}"))["id"].clone()
    };
    let shipped = node.json(&["capability", "list", "--holder", "orbital.services.process_manager"]);
    let program = "[capabilities]\nrequired = [{ type = \"Axiom\", permissions = [\"read\"] }]\n\
                   [program]\nimage = \"/bin/sleep\"\nargs = [\"1000\"]\n";
    assert!(node.apply("mine", program).status.success());
    let all = node.json(&["capability", "who", "service:Axiom"]);
    let mine = all.as_array().unwrap().iter().max_by_key(|row| row["created_at"].as_u64()).unwrap();
    for held in shipped.as_array().unwrap().iter().chain([mine]) {
        assert_eq!(held["grantor"], supervisor, "{held}");
        assert_eq!(held["parent"], root_of(held["resource"].as_str().unwrap()), "{held}");
        assert!(!held["rights"].as_str().unwrap().contains(['d', 'v']), "reduced: {held}");
    }
}

/// covers: CAP-32
#[test]
fn a_service_that_stands_still_during_a_revocation_is_replaced_once_a_minute() {
    let Some(node) = TestNode::boot() else { return };
    let (first, second) = (grant(&node, "file:/srv/a", "r", &[]), grant(&node, "file:/srv/b", "r", &[]));
    let before = node.pid("process_manager");
    stop(before);
    let began = Instant::now();
    node.ok(&["capability", "revoke", &first]);
    assert!(began.elapsed() >= Duration::from_millis(500), "it is given half a second");
    let pid = || node.pids().into_iter().find(|(name, _)| name == "process_manager").map(|(_, pid)| pid);
    assert!(within(Duration::from_secs(20), || pid().is_some_and(|pid| pid != before)));
    node.settled();
    let status = node.json(&["service", "status", "process_manager"]);
    assert!(status.to_string().contains("did not fold a revocation in time"), "{status}");
    // Not again within a minute: then the answer is that it may still hold.
    let again = pid().unwrap();
    stop(again);
    let revoked = node.run(&["capability", "revoke", &second]);
    let said = String::from_utf8_lossy(&revoked.stderr).into_owned();
    assert!(!revoked.status.success() && said.contains("not yet applied by process_manager"), "{said}");
    assert!(Command::new("kill").args(["-CONT", &again.to_string()]).status().unwrap().success());
    assert_eq!(node.log(&["CapabilityRevoke"]).len(), 2, "both stand in the log");
}

/// What the operator asks in a loop.
struct Asker {
    client: Client,
    identity: IdentityId,
}

impl Asker {
    fn new(node: &TestNode) -> Self {
        let token = Client::operator(node).issue(&[]);
        let client = Client::operator(node).with_token(Some(&token));
        let identity = client.identity();
        Self { client, identity }
    }

    fn stub(&self, verb: &str) -> CapabilitiesClient<kit::client::Calls> {
        let capability = format!("system.capability_service.{verb}");
        CapabilitiesClient::new(self.client.calls("capability_service", &capability))
    }

    fn holds(&self, object: &str) -> bool {
        let request = CheckRequest {
            identity: self.identity.0.to_vec(),
            resource: Some(file(object)),
            permissions: Some(READ),
        };
        self.client.wait(self.stub("check").check(request)).unwrap().into_inner().held
    }

    fn grant(&self, object: &str) {
        let request = GrantRequest {
            resource: Some(file(object)),
            permissions: Some(READ),
            grantee: self.identity.0.to_vec(),
            ..GrantRequest::default()
        };
        self.client.wait(self.stub("grant").grant(request)).unwrap();
    }
}

const READ: Permissions =
    Permissions { read: true, write: false, execute: false, delegate: false, revoke: false };

fn file(id: &str) -> Resource {
    Resource { object_type: "file".to_owned(), object_id: id.to_owned() }
}

/// covers: CAP-32
#[test]
fn after_a_revocation_has_answered_no_check_succeeds_whatever_else_goes_on() {
    let Some(node) = TestNode::boot() else { return };
    let id = grant(&node, "file:/srv/a", "r", &[]);
    let (revoked, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (held, grants) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (checker, granter) = (Asker::new(&node), Asker::new(&node));
    let checking = std::thread::spawn({
        let (revoked, over, held) = (Arc::clone(&revoked), Arc::clone(&over), Arc::clone(&held));
        move || {
            let mut after = 0_u64;
            while !over.load(Ordering::SeqCst) {
                // Whether it was answered before this check began.
                let answered = revoked.load(Ordering::SeqCst);
                let holds = checker.holds("/srv/a");
                assert!(!(answered && holds), "a check succeeded after the revocation had answered");
                held.fetch_add(u64::from(holds), Ordering::SeqCst);
                after += u64::from(answered);
            }
            after
        }
    });
    let granting = std::thread::spawn({
        let (over, grants) = (Arc::clone(&over), Arc::clone(&grants));
        move || {
            while !over.load(Ordering::SeqCst) {
                let n = grants.fetch_add(1, Ordering::SeqCst);
                granter.grant(&format!("/srv/load/{n}"));
            }
        }
    });
    let loaded = || held.load(Ordering::SeqCst) > 10 && grants.load(Ordering::SeqCst) > 10;
    assert!(within(Duration::from_secs(20), loaded));
    node.ok(&["capability", "revoke", &id]);
    revoked.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(300));
    over.store(true, Ordering::SeqCst);
    assert!(checking.join().unwrap() > 0, "none was asked afterwards");
    granting.join().unwrap();
}
