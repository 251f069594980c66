//! `cargo xtask mutants`: changes the pure cores one place at a time and counts how often the tests notice.
//!
//! What is changed stands in `.cargo/mutants.toml`. Each change is made in a copy of the tree, so that no interruption
//! leaves one in the sources. The tests asked are those beside the core, and no others: a core whose mistakes only a
//! running node would show is not tested.

mod report;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

use crate::{proc, workspace};
use report::Tally;

/// Goal of the design: of the mutants that compile, this many in a hundred are killed.
const KILLED_PERCENT_GOAL: usize = 90;
/// For one package: some hundreds of mutants, each a build of one crate's tests and their run.
const LIMIT: Duration = Duration::from_secs(6 * 60 * 60);
/// Seconds for the tests of one mutant before it counts as killed by hanging; they take one or two.
const TIMEOUT_S: &str = "25";
/// Cases of each property. The usual 256 are more than half of a mutant's cost, and find little that these do not.
const PROPERTY_CASES: &str = "32";
/// Each night takes one part, so that a week makes a whole.
const NIGHTS: u64 = 7;
const DAY_S: u64 = 24 * 60 * 60;

/// The formats of the log and of sealed secrets have no `core` folder and are one.
const FORMATS: [&str; 4] = ["crates/chain", "crates/seal", "crates/ssh", "crates/svid"];
/// Packages that keep tests of their core outside `src/`.
const TESTS_OUTSIDE: [(&str, &[&str]); 2] =
    [("chain", &["--test=format", "--test=verify"]), ("supervisor", &["--test=core"])];

/// The `index`th of `count` parts; part `i` has the mutants `i`, `i + count`, `i + 2 * count` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shard {
    index: u64,
    count: u64,
}

impl Shard {
    const WHOLE: Self = Self { index: 0, count: 1 };

    fn parse(text: &str) -> Option<Self> {
        let (index, count) = text.split_once('/')?;
        let shard = Self { index: index.parse().ok()?, count: count.parse().ok()? };
        (shard.index < shard.count).then_some(shard)
    }

    fn of_day(day: u64) -> Self {
        Self { index: day % NIGHTS, count: NIGHTS }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Empty: all that have a core.
    packages: Vec<String>,
    shard: Shard,
}

impl Options {
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        let mut options = Self { packages: Vec::new(), shard: Shard::WHOLE };
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            match word {
                "--shard" => options.shard = Shard::parse(words.next()?)?,
                flag if flag.starts_with('-') => return None,
                package => options.packages.push(package.to_owned()),
            }
        }
        Some(options)
    }

    /// What one night takes.
    pub(crate) fn tonight() -> Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("reading the clock")?;
        Ok(Self { packages: Vec::new(), shard: Shard::of_day(now.as_secs() / DAY_S) })
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if !proc::installed("cargo-mutants") {
        bail!("cargo-mutants is not installed; `cargo install cargo-mutants --locked` installs it");
    }
    let root = workspace::root()?;
    let target = workspace::metadata()?.target_directory;
    let packages = chosen(&options.packages, packages(&root)?)?;
    let mut rows = Vec::new();
    for (done, package) in packages.iter().enumerate() {
        println!("── mutants: {package} ({} of {})", done + 1, packages.len());
        let started = Instant::now();
        let tally = of_package(&root, &target, package, options.shard)?;
        rows.push((package.as_str(), tally, started.elapsed()));
    }
    let total = report::print(&rows);
    if total.killed_percent() < KILLED_PERCENT_GOAL {
        bail!("{} % of the mutants were killed, the goal is {KILLED_PERCENT_GOAL} %", total.killed_percent());
    }
    Ok(())
}

fn of_package(root: &Path, target: &Path, package: &str, shard: Shard) -> Result<Tally> {
    let out = target.join("mutants-report").join(package);
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let part = format!("{}/{}", shard.index, shard.count);
    let mut command = proc::cargo(&["mutants", "--package", package, "--shard", &part]);
    command.args(["--timeout", TIMEOUT_S, "--output"]).arg(&out);
    for tests in tests_of(package) {
        // For the build and for the run, so that nothing is built that is not run.
        command.arg(format!("--cargo-arg={tests}"));
    }
    // Kept between runs: the crates below are compiled once.
    command.env("CARGO_TARGET_DIR", target).env("PROPTEST_CASES", PROPERTY_CASES).current_dir(root);
    // A mutant is one changed line: a third of the time, whatever the machine is set to.
    command.env("CARGO_INCREMENTAL", "1");
    // It fails when mutants survive; whether that is too many is decided over all packages.
    let end = proc::run(&mut command, LIMIT)?;
    let report = out.join("mutants.out/outcomes.json");
    let text = workspace::read(&report).with_context(|| format!("cargo mutants {end} and left no report"))?;
    if end == proc::End::TimedOut {
        bail!(
            "the mutants of {package} take more than {} hours; take a part by --shard",
            LIMIT.as_secs() / 3600
        );
    }
    Tally::read(&text).with_context(|| format!("package {package}"))
}

fn tests_of(package: &str) -> impl Iterator<Item = &'static str> {
    let outside = TESTS_OUTSIDE.iter().find(|(name, _)| *name == package).map_or(&[][..], |(_, tests)| tests);
    std::iter::once("--lib").chain(outside.iter().copied())
}

/// Packages that have a core.
fn packages(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for package in workspace::metadata()?.packages {
        let Some(folder) = package.manifest_path.parent() else { continue };
        if FORMATS.contains(&workspace::relative(root, folder).as_str()) || folder.join("src/core").is_dir() {
            names.push(package.name);
        }
    }
    Ok(names)
}

fn chosen(wanted: &[String], all: Vec<String>) -> Result<Vec<String>> {
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!("no package {unknown} with a pure core; there are {}", all.join(", "));
    }
    Ok(if wanted.is_empty() { all } else { wanted.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_name_packages_and_a_part() {
        let parse = Options::parse;
        let whole = Options { packages: vec![], shard: Shard::WHOLE };
        assert_eq!(parse(&[]), Some(whole));
        let part = Options { packages: vec!["policy".to_owned()], shard: Shard { index: 2, count: 3 } };
        assert_eq!(parse(&["policy", "--shard", "2/3"]), Some(part));
        for bad in ["3/3", "0/0", "1", "a/2", "-1/2"] {
            assert_eq!(parse(&["--shard", bad]), None, "{bad}");
        }
        assert_eq!(parse(&["--shard"]), None);
        assert_eq!(parse(&["--shards"]), None);
    }

    #[test]
    fn a_week_of_nights_takes_every_part_once() {
        let mut parts: Vec<_> = (20_000..20_000 + NIGHTS).map(|day| Shard::of_day(day).index).collect();
        parts.sort_unstable();
        assert_eq!(parts, (0..NIGHTS).collect::<Vec<_>>());
    }

    #[test]
    fn every_package_with_a_core_is_found_and_no_other_is_chosen() {
        let all = packages(&workspace::root().unwrap()).unwrap();
        for name in ["chain", "policy", "supervisor"] {
            assert!(all.iter().any(|package| package == name), "{name}");
        }
        assert!(TESTS_OUTSIDE.iter().all(|(name, _)| all.iter().any(|package| package == name)));
        assert_eq!(chosen(&["policy".to_owned()], all.clone()).unwrap(), ["policy"]);
        assert!(chosen(&["base".to_owned()], all).is_err());
    }

    #[test]
    fn tests_outside_the_sources_are_asked_where_there_are_any() {
        assert_eq!(tests_of("policy").collect::<Vec<_>>(), ["--lib"]);
        assert_eq!(tests_of("supervisor").collect::<Vec<_>>(), ["--lib", "--test=core"]);
    }
}
