//! What the log keeps of a program's life, and who may not end one.

use std::{fs, time::Duration};

use base::Hash;
use contracts::process_manager::v1::{
    KillRequest, ResourceLimits, SpawnRequest, SpawnResponse, processes_client::ProcessesClient,
};
use serde_json::{Value, json};
use system_tests::{
    TestNode,
    client::{Client, reason},
    within,
};

/// A program that every host has, and that waits.
const SLEEP: &str = "/bin/sleep";
const LIMIT: Duration = Duration::from_secs(20);

/// Somebody at the process manager, with a token.
struct Caller(Client);

impl Caller {
    fn operator(node: &TestNode) -> Self {
        let operator = Client::operator(node);
        let token = operator.issue(&[]);
        Self(operator.with_token(Some(&token)))
    }

    /// Bob, who is no admin, with a token that he got for a credential of his.
    fn bob(node: &TestNode) -> Self {
        let id = node.json(&["identity", "create", "bob"])["id"].as_str().unwrap().parse().unwrap();
        let add = ["identity", "credential", "add", "--kind", "recovery-key", "--identity", "bob", "bob"];
        let added = node.json(&add);
        let key = node.file("bob.key", added["key"].as_str().unwrap());
        let credential = added["id"].as_str().unwrap();
        let token = node.ok(&["identity", "login", "--credential", credential, "--key-file", &key]);
        Self(Client::new(node.root().join("run/admin"), id).with_token(Some(token.trim())))
    }

    fn stub(&self, verb: &str) -> ProcessesClient<kit::client::Calls> {
        ProcessesClient::new(self.0.calls("process_manager", &format!("system.process_manager.{verb}")))
    }

    fn spawn(&self, change: impl FnOnce(&mut SpawnRequest)) -> SpawnResponse {
        let mut request = SpawnRequest {
            image: Hash::of(&fs::read(SLEEP).unwrap()).0.to_vec(),
            args: vec!["1000".to_owned()],
            identity: self.0.identity().0.to_vec(),
            name: "sleep".to_owned(),
            idempotency_key: kit::authority::random_16().unwrap().to_vec(),
            ..SpawnRequest::default()
        };
        change(&mut request);
        self.0.wait(self.stub("spawn").spawn(request)).unwrap().into_inner()
    }

    fn signal(&self, pid: u64, signal: &str, why: &str) -> Result<u64, String> {
        let request = KillRequest { pid, signal: signal.to_owned(), reason: why.to_owned() };
        let answer = self.0.wait(self.stub("kill").kill(request)).map_err(reason)?.into_inner();
        Ok(answer.axiom_ref.unwrap().sequence)
    }
}

fn entry(node: &TestNode, sequence: u64) -> Value {
    node.json(&["log", "show", &sequence.to_string()])[0].clone()
}

fn state(node: &TestNode, pid: u64) -> Value {
    let list = node.json(&["ps"]);
    list.as_array()
        .unwrap()
        .iter()
        .find(|row| row["pid"] == pid)
        .map_or(Value::Null, |row| row["state"].clone())
}

/// covers: PRC-31
#[test]
fn creation_change_of_state_signal_and_end_stand_in_the_log_with_who_and_why() {
    let Some(node) = TestNode::boot() else { return };
    // Makes the image known, and is in nobody's way.
    node.ok(&["run", "--", SLEEP, "0"]);
    node.ok(&["capability", "grant", "file:/data", "r", "admin"]);
    let held = node.json(&["capability", "list", "--holder", "admin"]);
    let held = held.as_array().unwrap().iter().find(|one| one["resource"].to_string().contains("/data"));
    let capability: base::CapabilityId = held.unwrap()["id"].as_str().unwrap().parse().unwrap();
    let caller = Caller::operator(&node);
    let me = json!(caller.0.identity());
    let spawned = caller.spawn(|request| {
        request.capabilities = vec![capability.0.to_vec()];
        request.resource_limits = Some(ResourceLimits { files: 77, ..ResourceLimits::default() });
    });
    let pid = spawned.pid;
    let created = entry(&node, spawned.axiom_ref.unwrap().sequence);
    assert_eq!(created["type"], "ProcessCreate");
    let body = &created["body"];
    assert_eq!((&body["pid"], &body["identity"], &body["by"]), (&json!(pid), &me, &me));
    assert_eq!(body["image"], json!(Hash::of(&fs::read(SLEEP).unwrap())));
    assert_eq!(body["capabilities"], json!([capability]));
    assert_eq!((&body["limits"]["files"], &body["limits"]["threads"]), (&json!(77), &json!(64)));

    // Which state it leaves follows from the operation, for from another one it is refused.
    let before = node.log(&["PolicyDecision"]).len();
    assert_eq!(caller.signal(pid, "cont", "x").unwrap_err(), "WrongState");
    assert_eq!(node.log(&["PolicyDecision"]).len(), before);
    for (signal, operation, after) in [("stop", "suspend", "suspended"), ("cont", "resume", "running")] {
        let why = format!("to {operation} it");
        let decided = entry(&node, caller.signal(pid, signal, &why).unwrap());
        assert_eq!(
            (&decided["type"], &decided["body"]["effect"]),
            (&json!("PolicyDecision"), &json!("Allow"))
        );
        let body = &decided["body"];
        assert_eq!(body["action"], json!({ "control_process": { "pid": pid, "operation": operation } }));
        assert_eq!((&body["requestor"], &body["context"]["metadata"]["reason"]), (&me, &json!(why)));
        assert_eq!(state(&node, pid), after);
    }

    let killed = entry(&node, caller.signal(pid, "kill", "enough of it").unwrap());
    assert_eq!(killed["type"], "ProcessKill");
    assert_eq!(killed["body"], json!({ "pid": pid, "signal": "kill", "by": me, "reason": "enough of it" }));
    let ended = || node.log(&["ProcessExit"]).into_iter().find(|exit| exit["body"]["pid"] == pid);
    assert!(within(LIMIT, || ended().is_some()));
    let ended = ended().unwrap();
    assert_eq!(ended["body"]["status"], json!({ "signal": 9 }));
    assert!(ended["body"]["usage"]["memory_peak_bytes"].as_u64() > Some(0), "{ended}");
    assert!(ended["sequence"].as_u64() > killed["sequence"].as_u64());
}

/// covers: PRC-41
#[test]
fn what_runs_as_the_house_is_ended_by_the_house_alone() {
    let Some(node) = TestNode::boot() else { return };
    node.ok(&["run", "--", SLEEP, "0"]);
    let bob = Caller::bob(&node);
    let may = format!(
        "[[rule]]\nid = \"bob\"\nname = \"bob\"\ndescription = \"\"\npriority = 2000\neffect = \"Allow\"\n\
         [rule.condition]\nand = [{{ identity = {{ exact = \"{}\" }} }}, {{ action = {{ any_of = [\"create_process\", \
         \"terminate_process\", \"control_process\"] }} }}]\n",
        bob.0.identity()
    );
    node.ok(&["policy", "add", &node.file("bob.toml", may)]);
    let robot = node.json(&["identity", "create", "robot", "--type", "Service", "--parent", "bob"]);
    let robot: base::IdentityId = robot["id"].as_str().unwrap().parse().unwrap();
    let own = bob.spawn(|_| {}).pid;
    let house = bob.spawn(|request| request.identity = robot.0.to_vec()).pid;
    let others = Caller::operator(&node).spawn(|_| {}).pid;
    // Receipts of what came before may come still.
    let done = || node.log(&["PolicyDecision", "ProcessKill", "ProcessExit"]).len();
    let before = done();
    // He has started it and policy would let him; what runs as a service is out of his reach all the same.
    for signal in ["term", "kill", "stop", "user1"] {
        assert_eq!(bob.signal(house, signal, "x").unwrap_err(), "SystemProcess", "{signal}");
    }
    assert_eq!(bob.signal(others, "kill", "x").unwrap_err(), "NoSuchProcess", "he does not see it");
    assert_eq!(done(), before, "nothing was decided or done");
    for pid in [own, house, others] {
        assert_eq!(state(&node, pid), "running");
    }
    bob.signal(own, "kill", "x").unwrap();
    Caller::operator(&node).signal(house, "kill", "x").unwrap();
    assert!(within(LIMIT, || [own, house].iter().all(|pid| state(&node, *pid) != "running")));
}
