//! `cargo xtask ci`: everything that CI runs, in one target directory, cheapest checks first.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::steps::Steps;
use crate::{bench, conformance, fuzz, mutants, proc, test, tidy, workspace};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    EveryChange,
    Nightly,
}

/// What every change may cost on two cores; exceeding it is said, and is a reason to move something to the night.
const BUDGET: Duration = Duration::from_secs(25 * 60);
/// Runs of the three phases with crashes between any two steps.
const SIM_SEEDS: &str = "10000";
pub(crate) const QUICK_LIMIT: Duration = Duration::from_secs(5 * 60);
const LONG_LIMIT: Duration = Duration::from_secs(40 * 60);

pub(crate) fn run(extent: Extent) -> Result<()> {
    let mut steps = Steps::new("ci");
    steps.run("format", || cargo(&["fmt", "--all", "--check"], QUICK_LIMIT));
    steps.run("tidy", tidy::run);
    steps.run("conformance", conformance::check);
    if proc::installed("cargo-deny") {
        steps.run("dependencies", || {
            cargo(&["deny", "--log-level", "error", "check", "bans", "licenses", "sources"], QUICK_LIMIT)
        });
    } else {
        steps.left_out("dependencies", "cargo-deny is not installed (`cargo install cargo-deny --locked`)");
    }
    steps.run("lints", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"], LONG_LIMIT)
    });
    steps.run("contracts", || {
        contracts(&["--check"])?;
        cargo(&["test", "--quiet", "--package", "contracts-gen"], LONG_LIMIT)
    });
    // A process of its own: it must not inherit what the steps before it left running.
    let itself = std::env::current_exe().context("finding this executable")?;
    steps.run("tests", || {
        let mut command = std::process::Command::new(itself);
        if extent == Extent::Nightly {
            // Connects that a program races against whoever decides them; each waits for the log.
            command.env("EGRESS_RACES", "20000");
        }
        proc::check_telling(command.args(["test", "--judge-skips"]), LONG_LIMIT, tells_of_tests)
    });
    steps.run("prove", || {
        let mut command = proc::cargo(&["run", "--release", "--", "prove"]);
        proc::check_telling(command.current_dir(workspace::root()?), LONG_LIMIT, |line| {
            line.contains(" missed ")
        })
    });
    steps.run("sim", sim);
    fuzz(&mut steps, if extent == Extent::Nightly { fuzz::SECONDS_NIGHTLY } else { fuzz::SECONDS });
    if extent == Extent::Nightly {
        steps.run("simulation", simulation);
        steps.run("mutants", || mutants::run(&mutants::Options::tonight()?));
        steps.run("bench", || bench::run(&["--quick"]));
    } else if steps.elapsed() > BUDGET {
        println!("ci: took longer than the {} minutes it may take", BUDGET.as_secs() / 60);
    }
    steps.finish()
}

/// Tests that did not hold, as nextest marks them, and steps of `xtask test` that failed.
fn tells_of_tests(line: &str) -> bool {
    let mark = line.trim_start().split(" [").next().unwrap_or_default();
    ["FAIL", "LEAK-FAIL", "TIMEOUT"].contains(&mark) || mark.starts_with("SIG") || line.starts_with("test: ")
}

/// Built together with `bailiwick`, whose dependencies have more features: alone it would have all of them compiled once more.
fn sim() -> Result<()> {
    let selection = ["--package", "bailiwick", "--package", "sim"];
    let mut command = std::process::Command::new(test::release_binary(&selection, "sim")?);
    proc::check(command.args(["path", "--seeds", SIM_SEEDS]).current_dir(workspace::root()?), LONG_LIMIT)
}

/// A million random events on the supervisor's core; every change rolls 20 000.
fn simulation() -> Result<()> {
    let mut command =
        proc::cargo(&["test", "--release", "--package", "supervisor", "--test", "core", "random_events"]);
    proc::check(command.env("SUPERVISOR_SIM_EVENTS", "1000000").current_dir(workspace::root()?), LONG_LIMIT)
}

pub(crate) fn contracts(options: &[&str]) -> Result<()> {
    let arguments: Vec<&str> =
        ["run", "--quiet", "--package", "contracts-gen", "--"].iter().chain(options).copied().collect();
    cargo(&arguments, LONG_LIMIT)
}

pub(crate) fn cargo(arguments: &[&str], limit: Duration) -> Result<()> {
    proc::check(proc::cargo(arguments).current_dir(workspace::root()?), limit)
}

/// Where what it needs is missing, the step is left out; in CI it fails, since there it can be had.
fn fuzz(steps: &mut Steps, seconds: u64) {
    match fuzz::missing() {
        Some(why) if std::env::var_os("CI").is_none() => steps.left_out("fuzz", why),
        Some(why) => drop(steps.run("fuzz", || -> Result<()> { bail!("{why}") })),
        None => drop(steps.run("fuzz", || fuzz::all(seconds))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_did_not_hold_are_told_from_the_others() {
        for told in [
            "        FAIL [   0.040s] (1/4) xtask::bin/xtask proc::tests::one",
            "     SIGABRT [   0.040s] (1/4) kit observe::tests::one",
            "     TIMEOUT [ 300.001s] (1/4) system-tests::system run::one",
            "test: nothing left behind: 1 process",
        ] {
            assert!(tells_of_tests(told), "{told}");
        }
        for other in [
            "        PASS [   0.040s] (1/4) xtask::bin/xtask proc::tests::FAIL",
            "  TRY 1 FAIL [   0.040s] (1/4) kit observe::tests::one",
            "    said FAIL [once]",
        ] {
            assert!(!tells_of_tests(other), "{other}");
        }
    }
}
