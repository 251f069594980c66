//! `cargo xtask ci`: everything that CI runs, in one target directory, cheapest checks first.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::steps::Steps;
use crate::{bench, conformance, mutants, proc, tidy, workspace};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    EveryChange,
    Nightly,
}

/// What every change may cost on two cores; exceeding it is said, and is a reason to move something to the night.
const BUDGET: Duration = Duration::from_secs(25 * 60);
pub(crate) const QUICK_LIMIT: Duration = Duration::from_secs(5 * 60);
const LONG_LIMIT: Duration = Duration::from_secs(40 * 60);
/// For each target, at night: building the fuzzer takes longer than that.
const FUZZ_SECONDS: u64 = 60;
/// Building a fuzz target takes its time too.
const FUZZ_BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);

pub(crate) fn run(extent: Extent) -> Result<()> {
    let mut steps = Steps::new("ci");
    steps.run("format", || cargo(&["fmt", "--all", "--check"], QUICK_LIMIT));
    steps.run("tidy", tidy::run);
    steps.run("conformance", conformance::check);
    if proc::installed("cargo-deny") {
        steps.run("dependencies", || cargo(&["deny", "check", "bans", "licenses", "sources"], QUICK_LIMIT));
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
        proc::check(std::process::Command::new(itself).args(["test", "--judge-skips"]), LONG_LIMIT)
    });
    steps.run("prove", || cargo(&["run", "--release", "--", "prove"], LONG_LIMIT));
    if extent == Extent::Nightly {
        fuzz(&mut steps, FUZZ_SECONDS)?;
        steps.run("mutants", || mutants::run(&mutants::Options::tonight()?));
        steps.run("bench", || bench::run(&["--quick"]));
    } else if steps.elapsed() > BUDGET {
        println!("ci: took longer than the {} minutes it may take", BUDGET.as_secs() / 60);
    }
    steps.finish()
}

pub(crate) fn contracts(options: &[&str]) -> Result<()> {
    let arguments: Vec<&str> =
        ["run", "--quiet", "--package", "contracts-gen", "--"].iter().chain(options).copied().collect();
    cargo(&arguments, LONG_LIMIT)
}

pub(crate) fn cargo(arguments: &[&str], limit: Duration) -> Result<()> {
    proc::check(proc::cargo(arguments).current_dir(workspace::root()?), limit)
}

fn fuzz(steps: &mut Steps, seconds: u64) -> Result<()> {
    let root = workspace::root()?;
    if !root.join("fuzz/Cargo.toml").exists() {
        steps.left_out("fuzz", "there is no fuzz/");
        return Ok(());
    }
    if !proc::installed("cargo-fuzz") {
        steps.left_out("fuzz", "cargo-fuzz is not installed (`cargo install cargo-fuzz --locked`)");
        return Ok(());
    }
    steps.run("fuzz", || {
        for target in fuzz_targets(&workspace::read(&root.join("fuzz/Cargo.toml"))?)? {
            println!("   {target}, {seconds} s");
            let time = format!("-max_total_time={seconds}");
            let mut command = proc::cargo(&["fuzz", "run", &target, "--", &time]);
            // The sanitizer needs unstable flags, which the stable compiler takes with this.
            command.env("RUSTC_BOOTSTRAP", "1").current_dir(&root);
            proc::check(&mut command, FUZZ_BUILD_LIMIT + Duration::from_secs(seconds))?;
        }
        Ok(())
    });
    Ok(())
}

fn fuzz_targets(cargo_toml: &str) -> Result<Vec<String>> {
    let table: toml::Table = toml::from_str(cargo_toml).context("reading fuzz/Cargo.toml")?;
    let bins = table.get("bin").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let names: Vec<String> = bins
        .iter()
        .filter_map(|b| b.get("name"))
        .filter_map(toml::Value::as_str)
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        bail!("fuzz/Cargo.toml names no target");
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_targets_are_the_bins() {
        let text = "[package]\nname = \"fuzz\"\n[[bin]]\nname = \"entry\"\npath = \"a.rs\"\n[[bin]]\nname = \"token\"\n";
        assert_eq!(fuzz_targets(text).unwrap(), ["entry", "token"]);
        assert!(fuzz_targets("[package]\nname = \"fuzz\"\n").is_err());
    }
}
