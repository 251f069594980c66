//! `cargo xtask fuzz`: builds the targets of `fuzz/` in one go, with coverage counters, and runs each for a while.
//!
//! This is a plain `cargo build`: `cargo fuzz` would add the flags below and build target by target. There is no address
//! sanitizer, since it does not go together with the static build and what is driven here holds no `unsafe`.
//! What the engine finds on its way goes to a temporary folder; what breaks a target is kept below `target/fuzz`.

use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::proc::{self, End, TempDir};
use crate::test::{MESSAGES, executables};
use crate::workspace;

/// For each target, on every change: enough to see that what once broke does not break again, and a little more.
pub(crate) const SECONDS: u64 = 10;
/// For each target, at night.
pub(crate) const SECONDS_NIGHTLY: u64 = 60;
const SECONDS_MAX: u64 = 24 * 60 * 60;

/// Counters that the engine is guided by. They are in the environment, so they also take the place of the workspace's
/// flags for a static executable.
const FLAGS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);
/// One input that takes longer is a hang. The usual one takes some microseconds.
const INPUT_SECONDS_MAX: u64 = 10;
/// The targets take some 100 MiB, most of it the engine's.
const MEMORY_MB_MAX: u64 = 1024;
/// Beyond its time: reading the seeds, and one input that hangs.
const RUN_GRACE: Duration = Duration::from_secs(30 + INPUT_SECONDS_MAX);
/// Of the engine's report, shown when a target breaks.
const REPORT_LINES: usize = 30;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    target: Option<String>,
    file: Option<PathBuf>,
    seconds: u64,
}

impl Options {
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        let mut options = Self { target: None, file: None, seconds: SECONDS };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if *word == "--seconds" {
                options.seconds = words.next()?.parse().ok().filter(|n| (1..=SECONDS_MAX).contains(n))?;
            } else if word.starts_with('-') || options.file.is_some() {
                return None;
            } else if options.target.is_none() {
                options.target = Some((*word).to_owned());
            } else {
                options.file = Some(PathBuf::from(word));
            }
        }
        Some(options)
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(why) = missing() {
        bail!("{why}");
    }
    let mut targets = build()?;
    if let Some(name) = &options.target {
        let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
        targets.retain(|target| target.name == *name);
        ensure!(!targets.is_empty(), "there is no target `{name}`; there are {}", names.join(", "));
    }
    match (&options.file, targets.as_slice()) {
        (Some(file), [target]) => repeat(target, file),
        _ => each(&targets, options.seconds),
    }
}

/// The step of `ci`.
pub(crate) fn all(seconds: u64) -> Result<()> {
    each(&build()?, seconds)
}

/// What a machine must have, and this one has not.
pub(crate) fn missing() -> Option<&'static str> {
    let has = std::env::var_os("CXX").is_some() || proc::installed("c++");
    (!has).then_some("no C++ compiler, which the engine needs (Debian: `apt-get install g++`)")
}

struct Target {
    name: String,
    executable: PathBuf,
}

/// Below the target directory, with the engine's flags nothing is shared with other builds.
fn folder() -> Result<PathBuf> {
    Ok(workspace::metadata()?.target_directory.join("fuzz"))
}

fn build() -> Result<Vec<Target>> {
    let selection = ["--package", "fuzz", "--features", "engine", "--bins", "--profile", "fuzz"];
    let mut command = proc::cargo(&["build", MESSAGES]);
    command.args(selection).arg("--target-dir").arg(folder()?).current_dir(workspace::root()?);
    // This variable has precedence over all other places for such flags.
    command.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    let output = proc::stdout_of(&mut command, BUILD_LIMIT)?;
    let mut targets: Vec<Target> =
        executables(&output).map(|(name, executable)| Target { name, executable }).collect();
    ensure!(!targets.is_empty(), "cargo built no fuzz target");
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(targets)
}

/// As many at a time as there are cores: each target has one thread.
fn each(targets: &[Target], seconds: u64) -> Result<()> {
    let artifacts = folder()?.join("artifacts");
    fs::create_dir_all(&artifacts).with_context(|| format!("making {}", artifacts.display()))?;
    let artifacts = artifacts.as_path();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut broken = Vec::new();
    for together in targets.chunks(cores) {
        let results: Vec<_> = std::thread::scope(|scope| {
            let run = |target| scope.spawn(move || one(target, seconds, artifacts));
            let running: Vec<_> = together.iter().map(run).collect();
            running.into_iter().map(ScopedJoinHandle::join).collect()
        });
        for (target, result) in together.iter().zip(results) {
            match result.unwrap_or_else(|_| bail!("`{}`: its thread panicked", target.name)) {
                Ok(stats) => println!("   {:12} {stats}", target.name),
                Err(error) => {
                    println!("   {:12} BROKEN", target.name);
                    broken.push(format!("{error:#}"));
                }
            }
        }
    }
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

fn one(target: &Target, seconds: u64, artifacts: &Path) -> Result<Stats> {
    let fuzz = workspace::root()?.join("fuzz");
    let temporary = TempDir::new("fuzz")?;
    let (found, report) = (temporary.path().join("corpus"), temporary.path().join("report"));
    fs::create_dir(&found).with_context(|| format!("making {}", found.display()))?;
    let mut command = Command::new(&target.executable);
    command.args([
        format!("-max_total_time={seconds}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={MEMORY_MB_MAX}"),
        format!("-artifact_prefix={}/{}-", artifacts.display(), target.name),
        "-print_final_stats=1".to_owned(),
    ]);
    let dictionary = fuzz.join("dictionaries").join(&target.name);
    if dictionary.exists() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    // The place is in the panic's message; whoever wants more repeats the input.
    command.env("RUST_BACKTRACE", "0");
    // New inputs go to the first folder.
    command.arg(&found).arg(fuzz.join("corpus").join(&target.name)).stdout(Stdio::null());
    command.stderr(File::create(&report).with_context(|| format!("making {}", report.display()))?);
    let end = proc::run(&mut command, Duration::from_secs(seconds) + RUN_GRACE)?;
    let bytes = fs::read(&report).with_context(|| format!("reading {}", report.display()))?;
    let report = String::from_utf8_lossy(&bytes);
    match (end, Stats::read(&report)) {
        (End::Success, Some(stats)) if stats.executions > 0 => Ok(stats),
        _ => bail!("{}", broken(&target.name, end, &report)),
    }
}

/// What is said of a target that broke; the end of the engine's report goes to stderr.
fn broken(name: &str, end: End, report: &str) -> String {
    let lines: Vec<&str> = report.lines().collect();
    for line in lines.iter().skip(lines.len().saturating_sub(REPORT_LINES)) {
        eprintln!("   {name}| {line}");
    }
    let why = why(&lines).map_or_else(|| end.to_string(), str::to_owned);
    match lines.iter().find_map(|line| line.split_once("Test unit written to ")) {
        Some((_, input)) => format!("`{name}`: {why}\n   run it again: cargo xtask fuzz {name} {input}"),
        None => format!("`{name}`: {why}; the engine kept no input, run it again: cargo xtask fuzz {name}"),
    }
}

/// The panic and its message, or what the engine says.
fn why<'r>(lines: &[&'r str]) -> Option<&'r str> {
    let panic =
        lines.iter().position(|line| line.contains("' panicked at ") || line.contains(") panicked at "));
    match panic {
        Some(at) => lines.get(at + 1).copied(),
        None => lines.iter().find(|line| line.contains("ERROR: ")).copied(),
    }
}

/// Runs a target on one input and shows what it says.
fn repeat(target: &Target, file: &Path) -> Result<()> {
    ensure!(file.is_file(), "{} is no file", file.display());
    let limit = Duration::from_secs(INPUT_SECONDS_MAX) + RUN_GRACE;
    proc::check(
        Command::new(&target.executable).arg(format!("-timeout={INPUT_SECONDS_MAX}")).arg(file),
        limit,
    )
}

#[derive(Debug, PartialEq, Eq)]
struct Stats {
    seconds: u64,
    executions: u64,
    per_second: u64,
}

impl Stats {
    /// From the engine's last lines.
    fn read(report: &str) -> Option<Self> {
        let number = |before: &str| {
            let line = report.lines().rev().find_map(|line| line.strip_prefix(before))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let seconds =
            report.lines().rev().find_map(|line| line.strip_prefix("Done ")?.split_once(" runs in "));
        Some(Self {
            seconds: seconds?.1.split(' ').next()?.parse().ok()?,
            executions: number("stat::number_of_executed_units:")?,
            per_second: number("stat::average_exec_per_sec:")?,
        })
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>5} s  {:>10} executions  {:>8}/s", self.seconds, self.executions, self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(target: Option<&str>, file: Option<&str>, seconds: u64) -> Option<Options> {
        Some(Options { target: target.map(str::to_owned), file: file.map(PathBuf::from), seconds })
    }

    #[test]
    fn a_target_a_file_and_a_time_can_be_given() {
        assert_eq!(Options::parse(&[]), options(None, None, SECONDS));
        assert_eq!(Options::parse(&["entry"]), options(Some("entry"), None, SECONDS));
        assert_eq!(Options::parse(&["entry", "x"]), options(Some("entry"), Some("x"), SECONDS));
        assert_eq!(Options::parse(&["--seconds", "60", "entry"]), options(Some("entry"), None, 60));
        for wrong in [
            &["--seconds"][..],
            &["--seconds", "0"],
            &["--seconds", "86401"],
            &["--jobs", "2"],
            &["a", "b", "c"],
        ] {
            assert_eq!(Options::parse(wrong), None, "{wrong:?}");
        }
    }

    const SOUND: &str = "#2\tINITED cov: 9\nDone 1234567 runs in 11 second(s)\n\
        stat::number_of_executed_units: 1234567\nstat::average_exec_per_sec:     112233\n";

    #[test]
    fn the_engines_numbers_are_read() {
        let stats = Stats::read(SOUND).unwrap();
        assert_eq!(stats, Stats { seconds: 11, executions: 1_234_567, per_second: 112_233 });
        assert_eq!(stats.to_string(), "   11 s     1234567 executions    112233/s");
        assert_eq!(Stats::read("ERROR: no interesting inputs were found.\n"), None);
    }

    #[test]
    fn a_broken_target_says_why_and_how_to_see_it_again() {
        let panic = "thread '<unnamed>' (7) panicked at fuzz/src/entry.rs:9:5:\nnot one line\nstack backtrace:\n\
            ==7== ERROR: libFuzzer: deadly signal\nartifact_prefix='/a/'; Test unit written to /a/entry-crash-1\n";
        assert_eq!(
            broken("entry", End::Code(77), panic),
            "`entry`: not one line\n   run it again: cargo xtask fuzz entry /a/entry-crash-1"
        );
        let hang =
            "==7== ERROR: libFuzzer: timeout after 10 seconds\nTest unit written to /a/entry-timeout-1\n";
        assert!(broken("entry", End::Code(70), hang).contains("timeout after 10 seconds"));
        let nothing = broken("entry", End::Signal(11), "");
        assert!(nothing.contains("signal 11") && nothing.contains("cargo xtask fuzz entry"), "{nothing}");
    }
}
