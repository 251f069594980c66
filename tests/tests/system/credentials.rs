//! Credentials on a real node: what is shown once logs in while it is good, and not after.

use std::{fs, path::Path, time::Duration};

use contracts::policy::v1::{Action, PolicyRequest, ResourceRef, policy_engine_client::PolicyEngineClient};
use system_tests::{
    TestNode,
    client::{Client, reason},
    within,
};

const PATH: &str = "/orbital/users/admin";

/// A new credential: its id, and the file that holds its key.
fn add(node: &TestNode, kind: &str, more: &[&str]) -> (String, String) {
    let added = node.json(&[&["identity", "credential", "add", "--kind", kind], more].concat());
    let text = |name: &str| added[name].as_str().unwrap_or_default().to_owned();
    let id = text("id");
    let file = node.file(&format!("{id}.key"), text("key"));
    (id, file)
}

fn login(node: &TestNode, id: &str, file: Option<&str>) -> Result<String, String> {
    let key = file.map_or(vec![], |file| vec!["--key-file", file]);
    let output = node.run(&[&["identity", "login", "--credential", id], &key[..]].concat());
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What policy answers whoever shows this token and asks for this use of the operator's key.
fn asks(node: &TestNode, token: &str, kind: &str) -> String {
    let client = Client::operator(node).with_token(Some(token));
    let mut policy = PolicyEngineClient::new(client.calls("policy", "system.policy.evaluate"));
    let message_hash = if kind == "sign" { vec![7; 32] } else { Vec::new() };
    let request = PolicyRequest {
        requestor: client.identity().0.to_vec(),
        action: Some(Action {
            kind: kind.to_owned(),
            key_path: PATH.to_owned(),
            message_hash,
            ..Action::default()
        }),
        resource: Some(ResourceRef { r#type: "key".to_owned(), id: PATH.to_owned() }),
        ..PolicyRequest::default()
    };
    client.wait(policy.evaluate(request)).map_or_else(reason, |_| "ok".to_owned())
}

fn holds_in(folder: &Path, what: &str) -> bool {
    fs::read_dir(folder).unwrap().flatten().any(|entry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => holds_in(&entry.path(), what),
        kind if kind.is_file() => {
            fs::read(entry.path()).unwrap().windows(what.len()).any(|part| part == what.as_bytes())
        }
        _ => false,
    })
}

/// covers: IDN-06, IDN-08, IDN-18, IDN-21, IDN-23
#[test]
fn a_recovery_key_logs_in_once_and_is_kept_by_its_hash() {
    let Some(node) = TestNode::boot() else { return };
    let (id, file) = add(&node, "recovery-key", &["spare"]);
    let key = fs::read_to_string(&file).unwrap();
    // Of the right form, and wrong.
    let last = if key.ends_with('0') { "1" } else { "0" };
    let wrong = node.file("wrong", format!("{}{last}", &key[..key.len() - 1]));
    assert!(login(&node, &id, Some(&wrong)).is_err());
    let token = login(&node, &id, Some(&file)).unwrap();
    assert_eq!(asks(&node, &token, "sign"), "ok");
    assert!(login(&node, &id, Some(&file)).is_err(), "it was used");
    let list = node.json(&["identity", "credential", "list"]);
    let spare = list.as_array().unwrap().iter().find(|one| one["id"] == id.as_str()).unwrap();
    assert_eq!((&spare["about"], &spare["name"]), (&"used".into(), &"spare".into()));
    assert!(!node.ok(&["identity", "credential", "list"]).contains(key.trim()));
    for file in [&file, &wrong] {
        fs::remove_file(file).unwrap();
    }
    assert!(!holds_in(node.root(), key.trim()), "the key itself is kept nowhere");
    let changes = node.log(&["IdentityUpdated"]);
    let failed =
        changes.iter().filter(|entry| entry["body"]["change"].get("authentication_failed").is_some());
    assert_eq!(failed.count(), 2, "{changes:?}");
}

/// covers: IDN-07, IDN-19, IDN-20, IDN-22, IDN-26
#[test]
fn an_api_key_permits_what_it_says_until_it_expires_or_is_revoked() {
    let Some(node) = TestNode::boot() else { return };
    let sign = format!("sign=key:{PATH}");
    let (id, file) = add(&node, "api-key", &["--permission", &sign]);
    let token = login(&node, &id, Some(&file)).unwrap();
    assert_eq!(asks(&node, &token, "sign"), "ok");
    assert_ne!(asks(&node, &token, "decrypt"), "ok", "policy would allow it, the key does not");
    node.ok(&["identity", "credential", "revoke", &id]);
    assert_ne!(asks(&node, &token, "sign"), "ok", "a token ends with its credential");
    assert!(login(&node, &id, Some(&file)).is_err());
    // Short, and it ends by itself.
    let (short, file) = add(&node, "api-key", &["--permission", &sign, "--expires", "3s"]);
    assert!(login(&node, &short, Some(&file)).is_ok());
    assert!(within(Duration::from_secs(20), || login(&node, &short, Some(&file)).is_err()));
    // A key path signs inside the boundary.
    let (derived, _) = add(&node, "derived-key", &[]);
    let token = login(&node, &derived, None).unwrap();
    assert_eq!(asks(&node, &token, "sign"), "ok");
    node.ok(&["identity", "credential", "revoke", &derived]);
    assert!(login(&node, &derived, None).is_err());
}
