//! Acts are decided and recorded, signatures leave a receipt, rules and the engine itself are replaced while a node runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    process::Stdio,
    time::Duration,
};

use base::Hash;
use contracts::policy::v1::{
    Action, AddRuleRequest, Effect, GetPolicyStateRequest, PolicyRequest, RemoveRuleRequest, ResourceRef,
    RuleFilter, policy_engine_client::PolicyEngineClient,
};
use serde_json::Value;
use system_tests::{
    TestNode,
    client::{Client, reason},
    kill, within,
};

/// Lets the operator use a key that the rules of a new node give to nobody.
const RELEASE_RULE: &str = r#"
[[rule]]
id = "release-signing"
name = "Release signing"
description = "The owner may sign with the release key."
priority = 100
effect = "Allow"

[rule.condition]
and = [
    { identity = { exact = "@admin" } },
    { action = { kind = "sign" } },
    { resource = { exact = { type = "key", id = "/orbital/users/release" } } },
]
"#;

fn of_type<'a>(log: &'a [Value], name: &str) -> Vec<&'a Value> {
    log.iter().filter(|entry| entry["type"] == name).collect()
}

/// covers: POL-01, AX-01, AX-07
#[test]
fn every_act_was_decided_by_policy_and_has_its_place_in_one_order() {
    let Some(node) = TestNode::boot() else { return };
    let message = node.file("message", "sign me");
    let rule = node.file("rule.toml", RELEASE_RULE);
    // Several at once, so that somebody has to put them in order.
    let creating: Vec<_> = (0..4)
        .map(|n| {
            let name = format!("person{n}");
            node.command(&["identity", "create", &name]).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in creating {
        assert!(child.wait().unwrap().success());
    }
    node.ok(&["identity", "suspend", "person0"]);
    let granted = node.json(&["capability", "grant", "file:/data", "r", "person1"]);
    node.ok(&["capability", "revoke", granted[0]["id"].as_str().unwrap()]);
    node.ok(&["key", "sign", "/orbital/users/admin", &message]);
    node.ok(&["policy", "add", &rule]);
    node.ok(&["policy", "remove", "release-signing"]);
    let program = node.ok(&["run", "--detach", "--", "sleep", "1000"]);
    node.ok(&["kill", "--signal", "kill", program.trim()]);
    let log = node.log(&[]);
    let sequences: Vec<u64> = log.iter().map(|entry| entry["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (0..log.len() as u64).collect::<Vec<_>>());
    let mut allowed = BTreeSet::new();
    let mut acts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &log[1..] {
        let name = entry["type"].as_str().unwrap();
        if name == "PolicyDecision" {
            let request = entry["body"]["request_hash"].as_str().unwrap();
            if entry["body"]["effect"] == "Allow" {
                allowed.insert(request);
            }
        } else if let Some(request) = entry["authorization"].as_str() {
            assert!(allowed.contains(request), "nothing before it allows {entry}");
            *acts.entry(name).or_default() += 1;
        }
    }
    // What changes authority or runs something is never a mere record.
    for name in [
        "CapabilityGrant",
        "CapabilityRevoke",
        "PolicyRuleAdded",
        "PolicyRuleRemoved",
        "IdentityCreated",
        "IdentityUpdated",
        "ProcessCreate",
        "ProcessKill",
        "KeyUsage",
    ] {
        assert_eq!(acts.get(name), Some(&of_type(&log, name).len()), "{name}");
    }
    assert_eq!(acts["IdentityCreated"], 4);
    assert_eq!(node.json(&["log", "replay"])["mismatches"], serde_json::json!([]));
}

/// A service that stands still goes by what was before: it is replaced before anybody hears that something was taken away.
///
/// covers: IDN-40
#[test]
fn who_takes_something_away_hears_it_when_everybody_goes_by_it() {
    let Some(node) = TestNode::boot() else { return };
    node.ok(&["identity", "create", "bob"]);
    let added = node.json(&["identity", "credential", "add", "--kind", "recovery-key", "spare"]);
    let spare = added["id"].as_str().unwrap().to_owned();
    let forbidden = RELEASE_RULE.replace("\"Allow\"", "\"Deny\"");
    let rule = node.file("rule.toml", forbidden);
    // Each is replaced once a minute at most, so each act has another.
    for (stopped, act) in [
        ("network", &["identity", "suspend", "bob"][..]),
        ("driver_manager", &["identity", "credential", "revoke", &spare, "--reason", "lost"]),
        ("process_manager", &["policy", "add", &rule]),
    ] {
        let old = node.pid(stopped);
        let process = rustix::process::Pid::from_raw(i32::try_from(old).unwrap()).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
        let output = node.run(act);
        let state = || {
            let stat = fs::read_to_string(format!("/proc/{old}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
        };
        // A busy machine may take longer than axiom waits: that is told, and is no success.
        match output.status.success() {
            // What was killed runs no more, and takes its time to go; the keeper may not have taken it in then.
            true => {
                assert_ne!(state(), Some('T'), "{act:?} was answered while {stopped} stood still");
                let has_gone = || matches!(state(), None | Some('Z'));
                assert!(
                    within(Duration::from_secs(20), has_gone),
                    "{act:?} was answered, and {stopped} lives"
                );
            }
            false => {
                let text = String::from_utf8(output.stderr).unwrap();
                assert!(text.contains("may still go by what was before"), "{text}");
            }
        }
        let is_replaced = || node.pids().into_iter().any(|(name, pid)| name == stopped && pid != old);
        assert!(within(Duration::from_secs(20), is_replaced), "{stopped} is not replaced");
        node.settled();
    }
}

/// covers: AX-08, KEY-01
#[test]
fn a_signature_leaves_an_entry_and_its_reference_is_the_receipt() {
    let Some(node) = TestNode::boot() else { return };
    let message = node.file("message", "a release");
    let before = node.log(&["KeyUsage"]).len();
    let signed = node.json(&["key", "sign", "/orbital/users/admin", &message]);
    let receipt = signed["receipt"].as_u64().unwrap();
    let entry = node.json(&["log", "show", &receipt.to_string()])[0].clone();
    assert_eq!(entry["type"], "KeyUsage");
    assert_eq!(entry["body"]["key_path"], "/orbital/users/admin");
    assert_eq!(entry["body"]["operation"], "Sign");
    assert_eq!(entry["body"]["message_hash"], Hash::of(b"a release").to_string());
    assert_eq!(entry["body"]["identity"], node.json(&["identity", "whoami"])["id"]);
    assert_eq!(entry["body"]["authorization"]["sequence"], signed["decision"]);
    assert_eq!(node.log(&["KeyUsage"]).len(), before + 1);
    let key = node.ok(&["key", "public", "/orbital/users/admin"]);
    let text = |name: &str| signed[name].as_str().unwrap().to_owned();
    assert_eq!(text("public_key"), key.trim());
    node.ok(&["key", "verify", key.trim(), &text("signature"), &message]);
    let other = node.file("other", "another release");
    assert!(!node.run(&["key", "verify", key.trim(), &text("signature"), &other]).status.success());
}

/// covers: KEY-06, KEY-07, KEY-35
#[test]
fn what_is_encrypted_to_a_path_is_opened_by_who_may_and_both_are_on_record() {
    let Some(node) = TestNode::boot() else { return };
    let path = "/orbital/users/admin";
    let plain = node.file("plain", "the launch code");
    let sealed = node.root().join("sealed");
    let sealed = sealed.to_str().unwrap();
    node.ok(&["key", "encrypt", path, &plain, "--to", sealed]);
    let bytes = std::fs::read(sealed).unwrap();
    assert!(!bytes.windows(6).any(|part| part == b"launch"));
    assert_eq!(node.ok(&["key", "decrypt", path, sealed]), "the launch code");
    let uses = node.log(&["KeyUsage"]);
    let [.., encrypted, decrypted] = &uses[..] else { panic!("{uses:?}") };
    assert_eq!(encrypted["body"]["operation"], "Encrypt");
    assert_eq!(encrypted["body"]["output_hash"], Hash::of(&bytes).to_string());
    assert_eq!(decrypted["body"]["operation"], "Decrypt");
    assert_eq!(decrypted["body"]["message_hash"], Hash::of(&bytes).to_string());
    assert_eq!(decrypted["body"]["output_hash"], Value::Null);
    // Another's key is not the operator's to use, and a changed file does not open.
    let others = node.run(&["key", "decrypt", "/orbital/users/other", sealed]);
    assert!(String::from_utf8_lossy(&others.stderr).contains("bailiwick why"), "{others:?}");
    let mut changed = bytes;
    changed[60] ^= 1;
    std::fs::write(sealed, changed).unwrap();
    let damaged = node.run(&["key", "decrypt", path, sealed]);
    assert!(String::from_utf8_lossy(&damaged.stderr).contains("damaged"), "{damaged:?}");
    assert!(damaged.stdout.is_empty());
}

fn request(who: &Client, path: &str) -> PolicyRequest {
    PolicyRequest {
        requestor: who.identity().0.to_vec(),
        action: Some(Action { kind: "encrypt".to_owned(), key_path: path.to_owned(), ..Action::default() }),
        resource: Some(ResourceRef { r#type: "key".to_owned(), id: path.to_owned() }),
        ..PolicyRequest::default()
    }
}

/// covers: POL-04
#[test]
fn the_engine_has_five_methods_and_evaluate_gives_a_decision_or_an_error() {
    let Some(node) = TestNode::boot() else { return };
    let operator = Client::operator(&node);
    let token = operator.issue(&[]);
    let operator = operator.with_token(Some(&token));
    let engine =
        |verb: &str| PolicyEngineClient::new(operator.calls("policy", &format!("system.policy.{verb}")));
    let evaluate =
        |request| operator.wait(engine("evaluate").evaluate(request)).map(tonic::Response::into_inner);
    let own = evaluate(request(&operator, "/orbital/users/admin")).unwrap();
    assert_eq!((own.effect(), own.deciding_rule.as_str()), (Effect::Allow, "own-keys"));
    let at = own.axiom_ref.unwrap();
    let entry = node.json(&["log", "show", &at.sequence.to_string()])[0].clone();
    assert_eq!(entry["hash"], Hash::from_slice(&at.hash).unwrap().to_string());
    let others = evaluate(request(&operator, "/orbital/services/policy")).unwrap();
    assert_eq!(others.effect(), Effect::Deny, "a denial is a decision");
    let mut wrong = request(&operator, "/orbital/users/admin");
    wrong.action = Some(Action { kind: "divine".to_owned(), ..Action::default() });
    assert_eq!(reason(evaluate(wrong).unwrap_err()), "InvalidRequest");
    let foreign = PolicyRequest { requestor: vec![7; 32], ..request(&operator, "/orbital/users/admin") };
    assert_eq!(reason(evaluate(foreign).unwrap_err()), "Unauthenticated");

    let list = || {
        let rules = operator.wait(engine("list_rules").list_rules(RuleFilter::default())).unwrap();
        rules.into_inner().rules
    };
    let state = || {
        let state = operator.wait(engine("get_policy_state").get_policy_state(GetPolicyStateRequest {}));
        state.unwrap().into_inner()
    };
    let (rules, before) = (list(), state());
    assert_eq!((rules.len(), state().state_hash), (before.rules as usize, before.state_hash.clone()));
    let mut rule = rules[0].clone();
    rule.id = "another".to_owned();
    let add = |rule| operator.wait(engine("add_rule").add_rule(AddRuleRequest { rule: Some(rule) }));
    assert_eq!(add(rule.clone()).unwrap().into_inner().id, "another");
    assert_eq!(reason(add(rule).unwrap_err()), "DuplicateRule");
    assert!(list().len() == rules.len() + 1 && state().state_hash != before.state_hash);
    let remove =
        |id: &str| operator.wait(engine("remove_rule").remove_rule(RemoveRuleRequest { id: id.to_owned() }));
    remove("another").unwrap();
    assert_eq!(reason(remove("another").unwrap_err()), "RuleNotFound");
    assert_eq!(list(), rules);
}

/// covers: POL-37
#[test]
fn rules_and_the_engine_are_replaced_without_the_host() {
    let Some(mut node) = TestNode::boot() else { return };
    let message = node.file("message", "a release");
    let rule = node.file("rule.toml", RELEASE_RULE);
    let signs =
        |node: &TestNode| node.run(&["key", "sign", "/orbital/users/release", &message]).status.success();
    let pids = |node: &TestNode| node.pids().into_iter().collect::<BTreeMap<String, i64>>();
    let before = pids(&node);
    assert!(!signs(&node));
    node.ok(&["policy", "add", &rule]);
    assert!(signs(&node), "the new rule is in force at once");
    assert_eq!(pids(&node), before, "nothing was started anew for it");
    // The engine alone is replaced; the others do not notice.
    kill(before["policy"]);
    let replaced = || pids(&node).get("policy").is_some_and(|pid| *pid != before["policy"]);
    assert!(within(Duration::from_secs(15), replaced));
    node.settled();
    let after = pids(&node);
    assert!(before.iter().all(|(name, pid)| (name == "policy") != (after[name] == *pid)), "{after:?}");
    assert!(signs(&node), "the new engine decides by the same rules");
    node.ok(&["policy", "remove", "release-signing"]);
    assert!(!signs(&node));
    // Another build of it takes over the same log.
    node.ok(&["policy", "add", &rule]);
    node.down();
    let mut build = fs::read(system_tests::binary().unwrap()).unwrap();
    let first = Hash::of(&build);
    build.extend_from_slice(b"another build");
    let file = node.file("bailiwick", &build);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    node.use_binary(&file);
    node.up();
    assert!(signs(&node), "the new build decides by the same rules");
    let log = node.log(&["ServiceStart"]);
    let builds: BTreeSet<&str> = log
        .iter()
        .filter(|entry| entry["body"]["name"] == "policy")
        .filter_map(|entry| entry["body"]["binary"].as_str())
        .collect();
    let expected = [first, Hash::of(&build)].map(|hash| hash.to_string());
    assert_eq!(builds, expected.iter().map(String::as_str).collect());
    assert_eq!(node.json(&["log", "replay"])["mismatches"], serde_json::json!([]));
}
