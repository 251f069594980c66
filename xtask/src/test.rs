//! `cargo xtask test`: everything as the caller, then the system tests once more without privileges.
//!
//! The tests are built once. The second round runs the same executables, copied to where the other uid can read them,
//! since nothing may be built as that uid and the workspace may lie where it cannot look.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::proc::{self, End, TempDir};
use crate::steps::Steps;
use crate::{leftovers, workspace};

/// `nobody`: has nothing anywhere.
const UNPRIVILEGED_ID: u32 = 65534;
const SYSTEM_TESTS_PACKAGE: &str = "system-tests";
/// All of them are one executable, with a module for each subject.
const SYSTEM_TESTS: &str = "system";
/// The subjects that are repeated without privileges: what a user without root relies on.
const REPEATED: [&str; 10] =
    ["boot", "authority", "processes", "rights", "run", "sandbox", "service", "services", "signing", "prove"];

/// The generator has a step of its own in `ci`; its dependencies are the heaviest in the workspace.
const SELECTION: [&str; 3] = ["--workspace", "--exclude", "contracts-gen"];

/// A clean release build takes under four minutes on two quiet cores; a busy machine gets five times that.
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);
const TESTS_LIMIT: Duration = Duration::from_secs(20 * 60);
/// The slowest system tests boot a node some dozens of times.
const ONE_TEST_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Where tests find the release binary.
const BINARY_VARIABLE: &str = "BAILIWICK_BIN";

/// What a skipped test means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skips {
    /// Said, and no more: a machine need not have everything.
    Shown,
    /// Fails unless `.ci/skips` expects it: CI has what it can have.
    Judged,
}

pub(crate) fn run(skips: Skips) -> Result<()> {
    let mut steps = Steps::new("test");
    let binary = steps.run("build the release binary", build_binary);
    let tests = steps.run("build the tests", build_tests);
    let (Some(binary), Some(system_tests)) = (binary, tests) else { return steps.finish() };

    // After the builds, so that a compiler cache that stays is not taken for a leftover.
    let before = leftovers::Snapshot::take()?;
    let skipped: Mutex<Vec<String>> = Mutex::default();
    steps.run("all tests", || all_tests(&binary, &skipped));
    let root = rustix::process::geteuid().is_root();
    if root {
        steps.run("system tests without privileges", || without_privileges(&binary, &system_tests, &skipped));
    } else {
        steps.left_out("system tests without privileges", "already run without, since not started as root");
    }
    if skips == Skips::Judged {
        let expected = workspace::root()?.join(".ci/skips");
        steps.run("skips are expected", || judge(&lock(&skipped), &workspace::read(&expected)?));
    }
    steps.run("nothing left behind", || before.check());
    steps.finish()
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    package_id: String,
    #[serde(default)]
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

fn build_binary() -> Result<PathBuf> {
    let executable = release_binary(&["--package", "bailiwick"], "bailiwick")?;
    println!("   {}", executable.display());
    Ok(executable)
}

/// Builds in release what `selection` names, and returns the executable `name` of it.
pub(crate) fn release_binary(selection: &[&str], name: &str) -> Result<PathBuf> {
    let arguments: Vec<&str> =
        ["build", "--release", MESSAGES].into_iter().chain(selection.iter().copied()).collect();
    let output = proc::stdout_of(proc::cargo(&arguments).current_dir(workspace::root()?), BUILD_LIMIT)?;
    let found = executables(&output).find(|(built, _)| built == name);
    found.map(|(_, executable)| executable).with_context(|| format!("cargo built no executable `{name}`"))
}

pub(crate) const MESSAGES: &str = "--message-format=json-render-diagnostics";

fn messages(output: &str) -> impl Iterator<Item = Message> + '_ {
    // Build scripts may print other lines between the messages.
    output
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|m| m.executable.is_some())
}

/// Names and places of the programs that cargo built.
pub(crate) fn executables(output: &str) -> impl Iterator<Item = (String, PathBuf)> + '_ {
    messages(output).filter_map(|message| {
        let target = message.target.filter(|target| target.kind.iter().any(|kind| kind == "bin"))?;
        Some((target.name, message.executable?))
    })
}

/// Builds every test and returns the executable of the system tests.
fn build_tests() -> Result<PathBuf> {
    let arguments: Vec<&str> = ["test", "--no-run", MESSAGES].into_iter().chain(SELECTION).collect();
    let output = proc::stdout_of(proc::cargo(&arguments).current_dir(workspace::root()?), BUILD_LIMIT)?;
    system_tests(&output)
}

fn system_tests(output: &str) -> Result<PathBuf> {
    let is_it = |message: &Message| {
        message.package_id.contains(&format!("#{SYSTEM_TESTS_PACKAGE}@"))
            && message
                .target
                .as_ref()
                .is_some_and(|t| t.name == SYSTEM_TESTS && t.kind.iter().any(|k| k == "test"))
    };
    messages(output)
        .find(is_it)
        .and_then(|message| message.executable)
        .with_context(|| format!("package {SYSTEM_TESTS_PACKAGE} has no test `{SYSTEM_TESTS}`"))
}

fn all_tests(binary: &Path, skipped: &Mutex<Vec<String>>) -> Result<()> {
    let report = workspace::metadata()?.target_directory.join(NEXTEST_REPORT);
    // An old report would be taken for this run's; that there is none is fine.
    let _ = std::fs::remove_file(&report);
    let mut command = if proc::installed("cargo-nextest") {
        let mut command = proc::cargo(&["nextest", "run", "--test-threads"]);
        command.arg(at_once().to_string());
        command
    } else {
        println!("   cargo-nextest is not installed; `cargo test` runs the same tests, slower");
        proc::cargo(&["test", "--no-fail-fast", "--lib", "--bins", "--tests"])
    };
    command.args(SELECTION).current_dir(workspace::root()?).env(BINARY_VARIABLE, binary);
    let result = proc::check(&mut command, TESTS_LIMIT);
    if let Ok(report) = std::fs::read_to_string(&report) {
        note_skips("", &report, skipped);
    }
    result
}

/// See `.config/nextest.toml`.
const NEXTEST_REPORT: &str = "nextest/default/junit.xml";

/// Tests that cannot run here say `skipped: why` on their output.
fn skips(output: &str) -> impl Iterator<Item = &str> {
    output.lines().filter_map(|line| line.find("skipped: ").and_then(|at| line.get(at..)))
}

fn note_skips(test: &str, output: &str, skipped: &Mutex<Vec<String>>) {
    for line in skips(output) {
        println!("   {test}{line}");
        lock(skipped).push(format!("{test}{line}"));
    }
}

/// Each line of `expected` is a part of the reasons that it allows; what follows `#` says why.
fn judge(skipped: &[String], expected: &str) -> Result<()> {
    let parts: Vec<&str> = expected
        .lines()
        .map(|l| l.split('#').next().unwrap_or_default().trim())
        .filter(|p| !p.is_empty())
        .collect();
    let unexpected: Vec<&str> =
        skipped.iter().filter(|s| !parts.iter().any(|p| s.contains(p))).map(String::as_str).collect();
    if !unexpected.is_empty() {
        bail!("{} skips that .ci/skips does not expect:\n   {}", unexpected.len(), unexpected.join("\n   "));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A folder of the unprivileged uid with copies of all that it runs.
struct Stage {
    folder: TempDir,
    binary: PathBuf,
}

impl Stage {
    fn new(binary: &Path) -> Result<Self> {
        let folder = TempDir::new("user")?;
        set_mode(folder.path(), 0o755)?;
        let copy = copy_executable(binary, folder.path())?;
        Ok(Self { folder, binary: copy })
    }

    fn own_folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        set_mode(&path, 0o700)?;
        chown(&path, Some(UNPRIVILEGED_ID), Some(UNPRIVILEGED_ID))
            .with_context(|| format!("giving {} away", path.display()))?;
        Ok(path)
    }

    /// A command of the other uid, with nothing of our environment but PATH.
    fn command(&self, executable: &Path, home: &Path) -> Command {
        let mut command = Command::new(executable);
        command.env_clear().current_dir(home).uid(UNPRIVILEGED_ID).gid(UNPRIVILEGED_ID);
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", home).env("TMPDIR", home).env("XDG_RUNTIME_DIR", home);
        command.env("USER", "nobody").env("LANG", "C.UTF-8").env(BINARY_VARIABLE, &self.binary);
        command.stdin(std::process::Stdio::null());
        command
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))
}

fn copy_executable(from: &Path, folder: &Path) -> Result<PathBuf> {
    let to = folder.join(from.file_name().context("an executable without a name")?);
    std::fs::copy(from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    set_mode(&to, 0o755)?;
    Ok(to)
}

fn without_privileges(binary: &Path, system_tests: &Path, skipped: &Mutex<Vec<String>>) -> Result<()> {
    let stage = Stage::new(binary)?;
    let home = stage.own_folder("list")?;
    let executable = copy_executable(system_tests, stage.folder.path())?;
    let listed = proc::stdout_of(
        stage.command(&executable, &home).args(["--list", "--format", "terse"]),
        ONE_TEST_LIMIT,
    )?;
    let names = repeated(&listed)?;
    println!("   {} tests as uid {UNPRIVILEGED_ID}", names.len());
    let failed = run_cases(&stage, &executable, &names, skipped)?;
    if failed > 0 {
        bail!("{failed} of {} did not hold without privileges", names.len());
    }
    Ok(())
}

/// Of the `subject::name: test` lines of libtest's terse list, the names to repeat.
fn repeated(list: &str) -> Result<Vec<String>> {
    let all: Vec<&str> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let is_of = |name: &str, subject: &str| name.split("::").next() == Some(subject);
    for subject in REPEATED {
        if !all.iter().any(|name| is_of(name, subject)) {
            bail!("the system tests have none about `{subject}`");
        }
    }
    let repeated = all.into_iter().filter(|name| REPEATED.iter().any(|subject| is_of(name, subject)));
    Ok(repeated.map(str::to_owned).collect())
}

/// Most tests wait for others half of their time: for each core two.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) * 2
}

/// Returns how many failed. As with nextest, each runs in a process of its own.
fn run_cases(
    stage: &Stage,
    executable: &Path,
    names: &[String],
    skipped: &Mutex<Vec<String>>,
) -> Result<usize> {
    let (next, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = names.get(index) else { return };
            let started = Instant::now();
            let verdict = match run_case(stage, index, executable, name, skipped) {
                Ok(()) => "held".to_owned(),
                Err(error) => {
                    failures.fetch_add(1, Ordering::Relaxed);
                    format!("FAILED\n{error:#}")
                }
            };
            println!("   {:7.2} s  {name}  {verdict}", started.elapsed().as_secs_f64());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once() {
            scope.spawn(work);
        }
    });
    Ok(failures.into_inner())
}

fn run_case(
    stage: &Stage,
    index: usize,
    executable: &Path,
    name: &str,
    skipped: &Mutex<Vec<String>>,
) -> Result<()> {
    let home = stage.own_folder(&index.to_string())?;
    // Outside the test's own folder, so that what it leaves there can be told.
    let log = stage.folder.path().join(format!("{index}.log"));
    let file = std::fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
    let mut command = stage.command(executable, &home);
    command.args(["--exact", name, "--nocapture"]).stdout(file.try_clone()?).stderr(file);
    let end = proc::run(&mut command, ONE_TEST_LIMIT)?;
    let output = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    note_skips(&format!("{name}: "), &output, skipped);
    if end != End::Success {
        bail!("{end}\n{output}");
    }
    let left: Vec<_> = std::fs::read_dir(&home)?.flatten().map(|e| e.file_name()).collect();
    if !left.is_empty() {
        bail!("left files in its temporary folder: {left:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(package: &str, name: &str, kind: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"path+file:///w/tests#{package}@0.1.0","target":{{"kind":["{kind}"],"name":"{name}"}},"executable":"/t/{name}-1"}}"#
        )
    }

    #[test]
    fn the_system_tests_are_found_among_cargos_messages() {
        let lines = [
            artifact("policy", SYSTEM_TESTS, "test"),
            artifact("system-tests", "shown", "bin"),
            "not json".to_owned(),
            artifact("system-tests", SYSTEM_TESTS, "test"),
        ];
        assert_eq!(system_tests(&lines.join("\n")).unwrap(), Path::new("/t/system-1"));
        assert!(system_tests(&lines[..3].join("\n")).unwrap_err().to_string().contains("no test `system`"));
    }

    #[test]
    fn what_is_repeated_is_of_the_named_subjects_and_each_has_a_test() {
        let list = |subjects: &[&str]| -> String {
            subjects.iter().map(|subject| format!("{subject}::a::b: test\n")).collect()
        };
        let all = format!("{}kills::boot: test\nboot: benchmark\n\n1 test\n", list(&REPEATED));
        let names = repeated(&all).unwrap();
        assert_eq!(names, REPEATED.map(|subject| format!("{subject}::a::b")));
        let [first, missing, ..] = REPEATED;
        let error = repeated(&list(&[first])).unwrap_err().to_string();
        assert!(error.contains(&format!("`{missing}`")), "{error}");
    }

    #[test]
    fn skips_are_read() {
        assert_eq!(skips("x\n<out>skipped: no fuse here\n").collect::<Vec<_>>(), ["skipped: no fuse here"]);
    }

    #[test]
    fn only_expected_skips_are_accepted() {
        let skipped = ["boot a: skipped: no cgroup v2 controller here".to_owned()];
        judge(&skipped, "# none\ncgroup v2 controller # hybrid hierarchy\n").unwrap();
        assert!(judge(&skipped, "fuse # x\n# cgroup\n").is_err());
        judge(&[], "").unwrap();
    }

    #[test]
    fn as_root_a_case_runs_as_the_other_uid_and_may_leave_no_file() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can become another uid");
            return;
        }
        let stage = Stage::new(Path::new("/bin/sh")).unwrap();
        let check = |index: usize, script: &str| {
            let path = stage.folder.path().join(format!("{index}.sh"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            set_mode(&path, 0o755).unwrap();
            run_case(&stage, index, &path, "y", &Mutex::default())
        };
        check(
            0,
            "test $(id -u) = 65534 && test $(id -G) = 65534 && test $PWD = $HOME && test -x $BAILIWICK_BIN",
        )
        .unwrap();
        assert!(check(1, "echo why; exit 3").unwrap_err().to_string().contains("why"));
        assert!(check(2, "touch file").unwrap_err().to_string().contains("file"));
    }
}
