//! A node whose seals a TPM 2.0 opens: unattended on its own machine, and on no other.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that finds something wrong stops")]

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use system_tests::{TestNode, kill, within};

/// A software TPM with a folder of its own.
struct Software {
    folder: tempfile::TempDir,
    child: Child,
}

impl Software {
    fn start(folder: tempfile::TempDir) -> Option<Self> {
        let socket = folder.path().join("tpm.sock");
        let started = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init"])
            .args(["--tpmstate", &format!("dir={}", folder.path().display())])
            .args(["--server", &format!("type=unixio,path={}", socket.display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = started else {
            assert!(std::env::var_os("CI").is_none(), "CI has swtpm");
            println!("skipped: no swtpm (apt-get install swtpm)");
            return None;
        };
        let software = Self { folder, child };
        // The file is there before anybody listens.
        let listens = || std::os::unix::net::UnixStream::connect(software.socket()).is_ok();
        assert!(within(Duration::from_secs(10), listens), "swtpm does not listen");
        Some(software)
    }

    fn new() -> Option<Self> {
        Self::start(tempfile::Builder::new().prefix("bwtpm").tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("tpm.sock")
    }

    /// Switched off; its state stays.
    fn off(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let _ = std::fs::remove_file(self.socket());
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }
}

impl Drop for Software {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// covers: KEY-41
#[test]
fn a_node_restarts_unattended_with_its_own_tpm_and_with_no_other() {
    let Some(mut node) = TestNode::empty() else { return };
    let Some(software) = Software::new() else { return };
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
    let software = Software::start(state).unwrap();
    node.up();
    assert_eq!(node.ok(&["key", "public", path]), public);
    node.down();
    // Another TPM in its place.
    let first = software.off();
    let other = Software::new().unwrap();
    std::os::unix::fs::symlink(other.socket(), first.path().join("tpm.sock")).unwrap();
    let refused = node.try_up_with(&[], &[]).unwrap_err();
    assert!(refused.contains("must be the one that this node was made with"), "{refused}");
    let again = node.try_up_with(&["--tpm", socket.to_str().unwrap()], &[]).unwrap_err();
    assert!(again.contains("--tpm is for a new node"), "{again}");
}
