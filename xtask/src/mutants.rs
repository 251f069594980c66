//! `cargo xtask mutants`: changes the pure cores one place at a time and counts how often the tests notice.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{proc, workspace};

/// Goal of the design: of the mutants that compile, this many in a hundred are killed.
const KILLED_PERCENT_GOAL: usize = 90;
/// One mutant costs a build of one crate and its tests; some hundreds of them on two cores.
const LIMIT: Duration = Duration::from_secs(6 * 60 * 60);
/// Seconds for the tests of one mutant before it counts as killed by hanging.
const TIMEOUT_S: &str = "120";

/// Where decisions are made without I/O: all cores, and the log's format.
const FILES: [&str; 2] = ["**/src/core/**", "crates/chain/src/**"];

pub(crate) fn run() -> Result<()> {
    if !proc::installed("cargo-mutants") {
        bail!("cargo-mutants is not installed; `cargo install cargo-mutants --locked` installs it");
    }
    let root = workspace::root()?;
    let out = workspace::metadata()?.target_directory;
    let mut command = proc::cargo(&["mutants", "--no-shuffle", "--baseline", "run", "--timeout", TIMEOUT_S]);
    for files in FILES {
        command.args(["--file", files]);
    }
    for package in packages(&root)? {
        command.args(["--package", &package]);
    }
    if proc::installed("cargo-nextest") {
        command.args(["--test-tool", "nextest"]);
    }
    command.arg("--output").arg(&out).current_dir(&root);
    // It fails when mutants survive; whether that is too many is decided below.
    let end = proc::run(&mut command, LIMIT)?;
    let report = out.join("mutants.out/outcomes.json");
    let text = workspace::read(&report).with_context(|| format!("cargo mutants {end} and left no report"))?;
    let tally = Tally::read(&text)?;
    tally.print();
    if tally.killed_percent() < KILLED_PERCENT_GOAL {
        bail!("{} % of the mutants were killed, the goal is {KILLED_PERCENT_GOAL} %", tally.killed_percent());
    }
    Ok(())
}

/// Packages that have files to mutate.
fn packages(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for package in workspace::metadata()?.packages {
        let Some(folder) = package.manifest_path.parent() else { continue };
        let relative = workspace::relative(root, folder);
        if relative == "crates/chain" || folder.join("src/core").is_dir() {
            names.push(package.name);
        }
    }
    Ok(names)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    caught: usize,
    timed_out: usize,
    unviable: usize,
    survivors: Vec<String>,
}

#[derive(Deserialize)]
struct Outcomes {
    outcomes: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    summary: String,
    scenario: serde_json::Value,
}

impl Tally {
    fn read(text: &str) -> Result<Self> {
        let outcomes: Outcomes = serde_json::from_str(text).context("reading the report of cargo mutants")?;
        let mut tally = Self::default();
        for outcome in outcomes.outcomes {
            match outcome.summary.as_str() {
                "CaughtMutant" => tally.caught += 1,
                "Timeout" => tally.timed_out += 1,
                "Unviable" => tally.unviable += 1,
                "MissedMutant" => {
                    let name = outcome.scenario.pointer("/Mutant/name").and_then(serde_json::Value::as_str);
                    tally.survivors.push(name.unwrap_or("a mutant without a name").to_owned());
                }
                "Success" => {} // the baseline
                "Failure" => bail!("the tests fail without any mutant"),
                other => bail!("cargo mutants reports `{other}`, which this command does not know"),
            }
        }
        Ok(tally)
    }

    fn viable(&self) -> usize {
        self.caught + self.timed_out + self.survivors.len()
    }

    fn killed_percent(&self) -> usize {
        // No mutant at all means that nothing was tested.
        ((self.caught + self.timed_out) * 100).checked_div(self.viable()).unwrap_or(0)
    }

    fn print(&self) {
        for survivor in &self.survivors {
            println!("  survived: {survivor}");
        }
        println!(
            "mutants: {} of {} killed ({} %), {} by hanging; {} more did not compile",
            self.caught + self.timed_out,
            self.viable(),
            self.killed_percent(),
            self.timed_out,
            self.unviable
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_counted() {
        let text = r#"{"outcomes": [
            {"summary": "Success", "scenario": "Baseline"},
            {"summary": "CaughtMutant", "scenario": {"Mutant": {"name": "a"}}},
            {"summary": "CaughtMutant", "scenario": {"Mutant": {"name": "b"}}},
            {"summary": "Timeout", "scenario": {"Mutant": {"name": "c"}}},
            {"summary": "Unviable", "scenario": {"Mutant": {"name": "d"}}},
            {"summary": "MissedMutant", "scenario": {"Mutant": {"name": "src/core/x.rs:1:2: replace + with -"}}}
        ]}"#;
        let tally = Tally::read(text).unwrap();
        assert_eq!((tally.viable(), tally.killed_percent()), (4, 75));
        assert_eq!(tally.survivors, ["src/core/x.rs:1:2: replace + with -"]);
    }

    #[test]
    fn nothing_tested_is_nothing_killed() {
        assert_eq!(Tally::read(r#"{"outcomes": []}"#).unwrap().killed_percent(), 0);
        assert!(Tally::read(r#"{"outcomes": [{"summary": "Failure", "scenario": "Baseline"}]}"#).is_err());
    }
}
