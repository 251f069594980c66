//! The seals of a node move: to a TPM, to a credential, to a local key file, and its keys stay what they are.

use std::path::Path;

use system_tests::{TestNode, software_tpm::SoftwareTpm};

const PATH: &str = "/orbital/users/admin";

fn refused(node: &TestNode, args: &[&str]) -> String {
    let output = node.run(args);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What is sealed, by whom: byte 18 of each file.
fn sealed_by(node: &TestNode) -> Vec<u8> {
    let files = ["keys/seed", "axiom/signing", "policy/signing", "identity/signing", "node/signing"];
    let kind = |name: &&str| std::fs::read(node.root().join(format!("state/{name}.sealed"))).unwrap()[18];
    files.iter().map(kind).collect()
}

fn comes_up_with(node: &mut TestNode, public: &str, variables: &[(&str, &Path)]) {
    node.try_up_with(&[], variables).unwrap();
    assert_eq!(node.ok(&["key", "public", PATH]), public);
    let message = node.file("message", "signed");
    node.ok(&["key", "sign", PATH, &message]);
    node.down();
}

/// covers: KEY-41
#[test]
fn the_seals_move_between_tpm_credential_and_file_and_what_was_used_before_opens_nothing() {
    let Some(mut node) = TestNode::boot() else { return };
    let public = node.ok(&["key", "public", PATH]);
    assert!(refused(&node, &["key", "reseal", "--local"]).contains("`bailiwick down` stops it"));
    node.down();
    let folder = node.root().join("state/keys");
    let old_key = std::fs::read(folder.join("seal.key")).unwrap();

    // A new key file in the place of the old one.
    assert!(node.ok(&["key", "reseal", "--local"]).contains("from key_file to key_file"));
    assert_ne!(std::fs::read(folder.join("seal.key")).unwrap(), old_key);
    comes_up_with(&mut node, &public, &[]);

    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("bailiwick.seal"), "a credential of some bytes").unwrap();
    let directory = credentials.path().to_str().unwrap();
    assert!(refused(&node, &["key", "reseal", "--credential"]).contains("which credential?"));
    let nowhere = refused(&node, &["key", "reseal", "--credential", "/nonexistent"]);
    assert!(nowhere.contains("the old ones are in force"), "{nowhere}");
    let moved = node.json(&["key", "reseal", "--credential", directory]);
    assert_eq!((moved["from"].as_str(), moved["to"].as_str()), (Some("key_file"), Some("credential")));
    assert_eq!(sealed_by(&node), [1; 5]);
    assert!(!folder.join("seal.key").exists(), "what was used before is gone");
    assert!(node.try_up_with(&[], &[]).is_err(), "it opens without the credential");
    let given = [("CREDENTIALS_DIRECTORY", credentials.path())];
    comes_up_with(&mut node, &public, &given);

    // Back to a file, with the credential that opens it now.
    let back = node.command(&["key", "reseal", "--local"]).envs(given).output().unwrap();
    assert!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
    assert_eq!(sealed_by(&node), [0; 5]);
    comes_up_with(&mut node, &public, &[]);

    // A run that was cut off: after the switch, and before it.
    let (next, seed) = (folder.join("seed.sealed.next"), folder.join("seed.sealed"));
    std::fs::copy(&seed, &next).unwrap();
    std::fs::write(&seed, "damaged").unwrap();
    std::fs::write(folder.join("reseal"), "bailiwick reseal v1\n").unwrap();
    comes_up_with(&mut node, &public, &[]);
    std::fs::write(&next, "never switched to").unwrap();
    comes_up_with(&mut node, &public, &[]);
    assert!(!next.exists() && !folder.join("reseal").exists());
}

/// covers: KEY-41
#[test]
fn the_seals_move_to_a_tpm_and_to_another_one() {
    let Some(mut node) = TestNode::boot() else { return };
    let (Some(first), Some(second)) = (SoftwareTpm::new(), SoftwareTpm::new()) else { return };
    let public = node.ok(&["key", "public", PATH]);
    node.down();
    let folder = node.root().join("state/keys");
    node.ok(&["key", "reseal", "--tpm", first.socket().to_str().unwrap()]);
    assert_eq!(sealed_by(&node), [3; 5]);
    assert!(!folder.join("seal.key").exists());
    comes_up_with(&mut node, &public, &[]);
    let absent = refused(&node, &["key", "reseal", "--tpm", "/nonexistent/tpm"]);
    assert!(absent.contains("/nonexistent/tpm") && absent.contains("the old ones are in force"), "{absent}");
    comes_up_with(&mut node, &public, &[]);
    node.ok(&["key", "reseal", "--tpm", second.socket().to_str().unwrap()]);
    drop(first.off());
    comes_up_with(&mut node, &public, &[]);
    node.ok(&["key", "reseal", "--local"]);
    assert_eq!(sealed_by(&node), [0; 5]);
    assert!(!folder.join("seal.tpm").exists());
    drop(second.off());
    comes_up_with(&mut node, &public, &[]);
}
