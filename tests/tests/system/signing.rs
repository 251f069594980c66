//! Signing keys lie on the disk sealed, whatever happens to the node, and a wrong one starts nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use base::{PublicKey, layout::Layout};
use chain::payload::{Payload, service::Genesis};
use durable::RealDisk;
use ed25519_dalek::SigningKey;
use seal::{SecretKind, Signer};
use supervisor::{
    sealing::Secrets,
    signing::{self, PLAIN_KEY_FILE, SEALED_KEY_FILE},
};
use system_tests::{TestNode, within};

const SIGNERS: [&str; 3] = ["axiom", "policy", "identity"];

fn layout(node: &TestNode) -> Layout {
    Layout::under(node.root()).unwrap()
}

fn genesis(node: &TestNode) -> Genesis {
    match Payload::decode(0, &fs::read(layout(node).genesis()).unwrap()).unwrap() {
        Payload::Genesis(genesis) => genesis.body,
        other => panic!("{other:?}"),
    }
}

fn file(node: &TestNode, signer: Signer, name: &str) -> PathBuf {
    layout(node).service_state(signing::folder(signer)).join(name)
}

/// Every 32 bytes in a row of every file, taken as a secret key: those whose public half genesis pins.
fn plain_keys(node: &TestNode) -> Vec<(PathBuf, Signer)> {
    let genesis = genesis(node);
    let pinned: BTreeMap<PublicKey, Signer> =
        Signer::ALL.map(|signer| (signing::pinned(&genesis, signer), signer)).into();
    let mut found = Vec::new();
    let mut left = vec![layout(node).state];
    while let Some(path) = left.pop() {
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            for window in windows(&bytes) {
                let public = SigningKey::from_bytes(window).verifying_key().to_bytes();
                found.extend(pinned.get(&PublicKey(public)).map(|signer| (path.clone(), *signer)));
            }
        }
    }
    found
}

/// All windows but those in the long stretches of zeros that segments end with.
fn windows(bytes: &[u8]) -> impl Iterator<Item = &[u8; 32]> {
    const STEP: usize = 4096;
    const ZEROS: [u8; STEP] = [0; STEP];
    let used = |at: &usize| bytes[*at..].iter().len() < STEP || bytes[*at..*at + STEP] != ZEROS;
    let blocks = (0..bytes.len()).step_by(STEP).filter(used);
    blocks.flat_map(|at| {
        let from = at.saturating_sub(31);
        let to = (at + STEP + 31).min(bytes.len());
        bytes[from..to].windows(32).map(|window| window.try_into().unwrap())
    })
}

fn kill(pid: i64) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

fn pid(node: &TestNode, service: &str) -> Option<i64> {
    node.pids().into_iter().find(|(name, _)| name == service).map(|(_, pid)| pid)
}

/// What needs all three keys: a decision, a token, a signed head.
fn works(node: &TestNode, name: &str) {
    node.ok(&["identity", "create", name]);
    assert!(node.ok(&["log", "head"]).contains("bailiwick head test"));
}

#[test]
fn keys_stay_sealed_through_kills_of_the_services_and_of_the_supervisor() {
    let Some(node) = TestNode::boot() else { return };
    works(&node, "alice");
    assert_eq!(plain_keys(&node), []);
    let supervisor = || {
        let output = node.run(&["status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["supervisor_pid"].as_i64()
    };
    for round in ["before", "after"] {
        for service in SIGNERS {
            let before = pid(&node, service).unwrap();
            kill(before);
            let replaced = || pid(&node, service).is_some_and(|pid| pid != before);
            assert!(within(Duration::from_secs(20), replaced), "{service} did not come back");
            node.settled();
        }
        works(&node, round);
        if round == "before" {
            // The next supervisor knows no secret of this one: it reads what opens the seals again.
            let before = supervisor().unwrap();
            kill(before);
            assert!(within(Duration::from_secs(20), || supervisor().is_some_and(|pid| pid != before)));
            node.settled();
        }
    }
    assert_eq!(plain_keys(&node), []);
}

#[test]
fn a_node_whose_keys_lie_in_the_clear_is_taken_over_and_they_are_sealed() {
    let Some(mut node) = TestNode::boot() else { return };
    works(&node, "alice");
    node.down();
    let (layout, genesis) = (layout(&node), genesis(&node));
    let state = RealDisk::open(&layout.state).unwrap();
    for signer in Signer::ALL {
        let pinned = signing::pinned(&genesis, signer);
        let key = signing::open(&state, signer, &Secrets::of(&layout), &pinned).unwrap();
        fs::write(file(&node, signer, PLAIN_KEY_FILE), *key).unwrap();
        fs::remove_file(file(&node, signer, SEALED_KEY_FILE)).unwrap();
    }
    // The search finds what is there.
    let mut found: Vec<Signer> = plain_keys(&node).into_iter().map(|(_, signer)| signer).collect();
    found.sort();
    found.dedup();
    assert_eq!(found, Signer::ALL);
    node.up();
    works(&node, "bob");
    assert_eq!(plain_keys(&node), []);
    assert!(Signer::ALL.iter().all(|signer| !file(&node, *signer, PLAIN_KEY_FILE).exists()));
}

#[test]
fn a_wrong_key_starts_nothing_and_is_named() {
    let Some(mut node) = TestNode::boot() else { return };
    node.down();
    let (layout, genesis) = (layout(&node), genesis(&node));
    let sealed = |signer| file(&node, signer, SEALED_KEY_FILE);
    let (axiom, policy) = (sealed(Signer::Sequencer), sealed(Signer::Policy));
    let right = (fs::read(&axiom).unwrap(), fs::read(&policy).unwrap());
    let log = fs::read(layout.log().join("00000000000000000000.seg")).unwrap();
    let seal_key = layout.service_state("keys").join("seal.key");
    let secret = fs::read(&seal_key).unwrap();
    let put_back = || {
        fs::write(&axiom, &right.0).unwrap();
        fs::write(&policy, &right.1).unwrap();
        fs::write(&seal_key, &secret).unwrap();
    };
    let other = || {
        let secret = Secrets::of(&layout).read(SecretKind::KeyFile).unwrap();
        signing::create(&RealDisk::open(&layout.state).unwrap(), Signer::Sequencer, &secret).unwrap();
    };
    let cases: [(&str, &dyn Fn()); 4] = [
        ("holds the policy signing key, not the sequencer signing key", &|| {
            fs::write(&axiom, &right.1).unwrap();
            fs::write(&policy, &right.0).unwrap();
        }),
        (
            "axiom/signing.sealed does not open: the seal does not open: wrong secret, or the file is damaged",
            &|| {
                let mut flipped = right.0.clone();
                flipped[100] ^= 1;
                fs::write(&axiom, flipped).unwrap();
            },
        ),
        ("wrong secret, or the file is damaged", &|| fs::write(&seal_key, [1; 32]).unwrap()),
        (&format!("genesis pins {}: nothing is signed with it", genesis.sequencer_key), &other),
    ];
    for (text, break_it) in cases {
        break_it();
        let printed = node.try_up(&[]).expect_err("it came up");
        let told = fs::read_to_string(layout.state.join("logs/node.log")).unwrap();
        assert!(told.contains(text), "{text:?} is not in:\n{told}");
        assert!(printed.contains("signing.sealed"), "what the operator sees:\n{printed}");
        fs::remove_file(layout.state.join("logs/node.log")).unwrap();
        put_back();
    }
    assert!(log == fs::read(layout.log().join("00000000000000000000.seg")).unwrap(), "the log was written");
    // An earlier failure leaves a mark, which the next good boot takes away.
    node.up();
    works(&node, "alice");
}

/// The credential is needed at each start of the supervisor, and its loss is named.
#[test]
fn keys_sealed_by_a_credential_open_with_it_alone() {
    let Some(mut node) = TestNode::empty() else { return };
    let credentials = tempfile::tempdir().unwrap();
    fs::write(credentials.path().join("bailiwick.seal"), "a credential of some length").unwrap();
    let given: &[(&str, &Path)] = &[("CREDENTIALS_DIRECTORY", credentials.path())];
    node.try_up(given).unwrap();
    works(&node, "alice");
    let sealed = fs::read(file(&node, Signer::Policy, SEALED_KEY_FILE)).unwrap();
    assert_eq!(seal::sealed_by(&sealed), Ok(SecretKind::Credential));
    let before = pid(&node, "policy").unwrap();
    kill(before);
    assert!(within(Duration::from_secs(20), || pid(&node, "policy").is_some_and(|pid| pid != before)));
    node.settled();
    works(&node, "bob");
    assert_eq!(plain_keys(&node), []);
    node.down();
    let printed = node.try_up(&[]).expect_err("it came up without its credential");
    assert!(printed.contains("$CREDENTIALS_DIRECTORY that holds bailiwick.seal"), "{printed}");
    node.try_up(given).unwrap();
    works(&node, "carol");
}

/// A credential that is there although this node was not sealed by it opens nothing, and closes nothing either.
#[test]
fn a_node_sealed_by_its_own_key_starts_where_a_credential_is_given() {
    let Some(mut node) = TestNode::boot() else { return };
    node.down();
    let credentials = tempfile::tempdir().unwrap();
    fs::write(credentials.path().join("bailiwick.seal"), "a credential of some length").unwrap();
    node.try_up(&[("CREDENTIALS_DIRECTORY", credentials.path())]).unwrap();
    works(&node, "alice");
    let message = node.file("message", "signed");
    node.ok(&["key", "sign", "/orbital/users/admin", &message]);
}
