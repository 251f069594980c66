//! What the system tests share: a node in a temporary folder, driven through the command line.
//!
//! Promises: every node is stopped and every folder removed, also when a test fails. Never does: touch a process, mount
//! or cgroup that it did not start. Needs the built binary in `BAILIWICK_BIN`, which `cargo xtask test` sets.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may stop the test"
)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

pub mod client;
pub mod software_tpm;

/// A node of its own.
pub struct TestNode {
    root: tempfile::TempDir,
    binary: PathBuf,
    up: bool,
    user: Option<(u32, u32)>,
}

/// The services of the node itself, in the order in which they boot.
pub const SERVICES: [&str; 8] = [
    "axiom",
    "policy",
    "keys",
    "identity",
    "capability_service",
    "process_manager",
    "driver_manager",
    "network",
];

/// The binary under test. None, with the reason on the output, where nobody built it.
#[must_use]
pub fn binary() -> Option<PathBuf> {
    let found = std::env::var_os("BAILIWICK_BIN").map(PathBuf::from).filter(|file| file.is_file());
    if found.is_none() {
        println!("skipped: BAILIWICK_BIN names no file; `cargo xtask test` builds it");
    }
    found
}

impl TestNode {
    /// Boots a node. None where there is no binary.
    #[must_use]
    pub fn boot() -> Option<Self> {
        let mut node = Self::empty()?;
        node.up();
        Some(node)
    }

    /// A command is about to start the node: it is stopped in the end.
    pub fn will_be_up(&mut self) {
        self.up = true;
    }

    /// A folder for a node that was never up.
    #[must_use]
    pub fn empty() -> Option<Self> {
        let binary = binary()?;
        // Socket paths are short, so the folder's name is too.
        let root = tempfile::Builder::new().prefix("bw").tempdir().expect("a temporary folder");
        Some(Self { root, binary, up: false, user: None })
    }

    pub fn up(&mut self) {
        self.try_up(&[]).unwrap_or_else(|error| panic!("the node did not come up: {error}"));
    }

    /// With these variables; an error is what the command printed.
    pub fn try_up(&mut self, variables: &[(&str, &Path)]) -> Result<(), String> {
        self.try_up_with(&[], variables)
    }

    /// With these arguments as well.
    pub fn try_up_with(&mut self, args: &[&str], variables: &[(&str, &Path)]) -> Result<(), String> {
        let mut command = self.command(&[&["up", "--detach", "--name", "test"], args].concat());
        let output = command.envs(variables.iter().copied()).output().expect("the binary runs");
        self.up = output.status.success();
        if self.up { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// Through another command, which is given the node's command line as its last arguments.
    pub fn up_through(&mut self, wrapper: &[&str]) {
        let (program, arguments) = wrapper.split_first().expect("a command");
        let mut command = Command::new(program);
        command.args(arguments).arg(&self.binary).arg("--root").arg(self.root());
        let output = command.args(["up", "--detach", "--name", "test"]).stdin(Stdio::null()).output();
        let output = output.expect("the wrapper runs");
        self.up = output.status.success();
        assert!(self.up, "the node did not come up: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The node to come, and every command for it, is of this user; only root can say so.
    pub fn belongs_to(&mut self, uid: u32, gid: u32) {
        std::os::unix::fs::chown(self.root(), Some(uid), Some(gid)).expect("root gives its folder away");
        self.user = Some((uid, gid));
    }

    pub fn down(&mut self) {
        self.ok(&["down"]);
        self.up = false;
    }

    /// Another build for every command from now on.
    pub fn use_binary(&mut self, file: impl Into<PathBuf>) {
        self.binary = file.into();
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(self.root()).args(args).stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            std::os::unix::process::CommandExt::uid(&mut command, uid);
            std::os::unix::process::CommandExt::gid(&mut command, gid);
        }
        command
    }

    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// A command that must succeed; what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "bailiwick {args:?} ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[must_use]
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["-o", "json"]].concat())).expect("json")
    }

    /// Services with their pids.
    #[must_use]
    pub fn pids(&self) -> Vec<(String, i64)> {
        let status = self.json(&["status"]);
        let services = status["services"].as_array().expect("services");
        services
            .iter()
            .filter_map(|service| Some((service["name"].as_str()?.to_owned(), service["pid"].as_i64()?)))
            .collect()
    }

    #[must_use]
    pub fn pid(&self, service: &str) -> i64 {
        let found = self.pids().into_iter().find(|(name, _)| name == service);
        found.unwrap_or_else(|| panic!("{service} does not run")).1
    }

    /// Status of one service.
    #[must_use]
    pub fn service(&self, name: &str) -> Value {
        self.json(&["service", "status", name])
    }

    /// What a service has written.
    #[must_use]
    pub fn service_log(&self, name: &str) -> String {
        self.ok(&["service", "logs", name])
    }

    /// Entries of the log: of these types, or all.
    #[must_use]
    pub fn log(&self, types: &[&str]) -> Vec<Value> {
        let types: Vec<&str> = types.iter().flat_map(|name| ["--type", name]).collect();
        let shown = self.json(&[&["log", "show", "0.."], &types[..]].concat());
        shown.as_array().expect("entries").clone()
    }

    /// Writes a file into the node's folder, for a command that reads one.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.root().join(name);
        std::fs::write(&path, content).expect("a file in the node's folder");
        path.to_str().expect("a path").to_owned()
    }

    /// Registers a service of the user; what follows the table `[service]` is given.
    pub fn apply(&self, name: &str, rest: &str) -> Output {
        let text = format!(
            "version = 1\n[service]\nname = \"{name}\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n{rest}\n"
        );
        let file = self.file(&format!("{name}.toml"), text);
        self.run(&["service", "apply", &file])
    }

    /// Waits until every service runs.
    pub fn settled(&self) {
        let running = || {
            let output = self.run(&["status", "-o", "json"]);
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let services = status["services"].as_array().cloned().unwrap_or_default();
            !services.is_empty() && services.iter().all(|service| service["state"] == "Running")
        };
        assert!(within(Duration::from_secs(20), running), "not all services run");
    }
}

/// Whether the tests, and so their nodes, run as root.
#[must_use]
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Ends a process of the test's own node, by the pid that the node told.
pub fn kill(pid: i64) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill");
    assert!(status.success(), "no process {pid}");
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if self.up {
            let stopped = self.run(&["down"]);
            if !stopped.status.success() && !std::thread::panicking() {
                panic!("the node did not stop: {}", String::from_utf8_lossy(&stopped.stderr));
            }
        }
    }
}

/// How often a look is taken at what should change; most looks run the binary.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks again and again until it is so, or the time is over.
pub fn within(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    sandbox::wait_for(limit, LOOK_EVERY, || is_so().then_some(())).is_some()
}
