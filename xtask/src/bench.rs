//! `cargo xtask bench`: builds what is measured and what measures, says which peers are missing, runs all parts in one go.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::{leftovers, proc, workspace};

/// Programs that ours is measured beside, and the Debian packages that bring them. Peers that are libraries are built in.
const PEERS: [(&str, &str); 5] = [
    ("bwrap", "bubblewrap"),
    ("crun", "crun"),
    ("runsvdir", "runit"),
    ("s6-svscan", "s6"),
    ("supervisord", "supervisor"),
];

const BUILD_LIMIT: Duration = Duration::from_secs(40 * 60);
/// All parts in full take about ten minutes on two quiet cores.
const RUN_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Passes words on to the bench: parts, `--quick`, `-o json`, `--dir DIR`.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let binary = build(&["--package", "bailiwick"], "bailiwick")?;
    let spawn_cost = build(&["--package", "sandbox", "--example", "spawn_cost"], "spawn_cost")?;
    let bench = build(&["--package", "bench", "--features", "peers", "--bins"], "bench")?;
    tell_missing();
    let before = leftovers::descendants()?;
    let mut command = Command::new(bench);
    command.args(words).env("BAILIWICK_BIN", binary).env("SPAWN_COST_BIN", spawn_cost);
    let measured = proc::check(&mut command, RUN_LIMIT);
    let mut left = leftovers::descendants()?;
    left.retain(|process| !before.iter().any(|known| known.pid == process.pid));
    if !left.is_empty() {
        leftovers::end(&left);
        bail!("the bench left {} processes behind; they have been ended: {left:?}", left.len());
    }
    measured
}

/// What is said goes to standard error: standard output is the table.
fn tell_missing() {
    let missing: Vec<&str> = PEERS
        .into_iter()
        .filter(|(program, _)| !proc::installed(program))
        .map(|(_, package)| package)
        .collect();
    if !missing.is_empty() {
        eprintln!(
            "bench: {} peers are not installed and will be left out; `apt-get install {}` brings them",
            missing.len(),
            missing.join(" ")
        );
    }
}

fn build(arguments: &[&str], name: &str) -> Result<PathBuf> {
    eprintln!("bench: building {name}");
    let messages = ["build", "--release", "--message-format=json-render-diagnostics"];
    let mut command = proc::cargo(&messages);
    let output = proc::stdout_of(command.args(arguments).current_dir(workspace::root()?), BUILD_LIMIT)?;
    match executable(&output, name) {
        Some(file) => Ok(file),
        None => bail!("cargo built no executable `{name}`"),
    }
}

fn executable(output: &str, name: &str) -> Option<PathBuf> {
    let of_name = |message: &serde_json::Value| {
        message.pointer("/target/name").and_then(serde_json::Value::as_str) == Some(name)
    };
    let messages = output.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut found =
        messages.filter(of_name).filter_map(|message| Some(message.get("executable")?.as_str()?.into()));
    found.next()
}
