//! A node whose seals a TPM 2.0 opens: unattended on its own machine, and on no other.

use std::time::Duration;

use system_tests::{TestNode, kill, software_tpm::SoftwareTpm, within};

/// covers: KEY-41
#[test]
fn a_node_restarts_unattended_with_its_own_tpm_and_with_no_other() {
    let Some(mut node) = TestNode::empty() else { return };
    let Some(software) = SoftwareTpm::new() else { return };
    let socket = software.socket();
    node.try_up_with(&["--tpm", socket.to_str().unwrap()], &[]).unwrap();
    let path = "/orbital/users/admin";
    let public = node.ok(&["key", "public", path]);
    let message = node.file("message", "signed");
    let signs = |node: &TestNode| node.run(&["key", "sign", path, &message]).status.success();
    assert!(signs(&node));
    let folder = node.root().join("state/keys");
    assert!(
        folder.join("seal.tpm").is_file() && !folder.join("seal.key").exists(),
        "no other key opens the seals"
    );
    // A new boundary gets the seed from the TPM again.
    let before = node.pid("keys");
    kill(before);
    assert!(within(Duration::from_secs(20), || node
        .pids()
        .iter()
        .any(|(n, pid)| n == "keys" && *pid != before)));
    node.settled();
    assert!(signs(&node));
    node.down();
    node.up();
    assert_eq!(node.ok(&["key", "public", path]), public);
    node.down();
    let state = software.off();
    let refused = node.try_up_with(&[], &[]).unwrap_err();
    assert!(refused.contains("tpm.sock"), "the TPM is named: {refused}");
    let software = SoftwareTpm::start(state).unwrap();
    node.up();
    assert_eq!(node.ok(&["key", "public", path]), public);
    node.down();
    // Another TPM in its place.
    let first = software.off();
    let other = SoftwareTpm::new().unwrap();
    std::os::unix::fs::symlink(other.socket(), first.path().join("tpm.sock")).unwrap();
    let refused = node.try_up_with(&[], &[]).unwrap_err();
    assert!(refused.contains("must be the one that this node was made with"), "{refused}");
    let again = node.try_up_with(&["--tpm", socket.to_str().unwrap()], &[]).unwrap_err();
    assert!(again.contains("--tpm is for a new node"), "{again}");
}
