//! A software TPM of a test's own, as the system tests and those of the crate `tpm` start it.

use std::{
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// It listens within this, however busy the machine is.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Ended when it is dropped.
pub struct SoftwareTpm {
    folder: tempfile::TempDir,
    child: Child,
}

impl SoftwareTpm {
    /// A new one. None, and said, where there is no swtpm.
    #[must_use]
    pub fn new() -> Option<Self> {
        Self::start(tempfile::Builder::new().prefix("bwtpm").tempdir().expect("a temporary folder"))
    }

    /// One that was switched off, with its state.
    #[must_use]
    pub fn start(folder: tempfile::TempDir) -> Option<Self> {
        let started = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init"])
            .args(["--tpmstate", &format!("dir={}", folder.path().display())])
            .args(["--server", &format!("type=unixio,path={}", folder.path().join("tpm.sock").display())])
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
        let since = Instant::now();
        // The file is there before anybody listens.
        while UnixStream::connect(software.socket()).is_err() {
            assert!(since.elapsed() < LISTEN_TIMEOUT, "swtpm does not listen");
            std::thread::sleep(LOOK_EVERY);
        }
        Some(software)
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("tpm.sock")
    }

    /// Switched off; its state stays in the folder.
    #[must_use]
    pub fn off(mut self) -> tempfile::TempDir {
        self.end();
        let _ = std::fs::remove_file(self.socket());
        let nothing = tempfile::tempdir().expect("a temporary folder");
        std::mem::replace(&mut self.folder, nothing)
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for SoftwareTpm {
    fn drop(&mut self) {
        self.end();
    }
}
