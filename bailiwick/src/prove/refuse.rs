//! Section `refuse`: ways out of the sandbox, tried through the product's own `run` on canaries of this user, with all
//! guards on, with those that hold them off, and outside of any sandbox; as the user of this node and, when that is
//! root, again on a node of an unprivileged user.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use sandbox::{
    Guard, GuardSet,
    attempts::{
        Attempt, CANARY_VARIABLE, CLASSES, Canaries, Class, Examined, Place, SUCCEEDED, Shown, TARGET,
        Verdict, examine,
    },
    wait_for,
};
use serde_json::Value;

use super::{Context, Section, Site, orphans::Orphans};

const NAME: &str = "refuse";
/// Starts a line that says why an attempt is not shown to be one.
const REASON: &str = "prove: refuse:";
/// An attempt takes milliseconds; one that hangs is broken.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a look is taken whether one has ended.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Slower than this is told while it goes on.
const SLOW: Duration = Duration::from_secs(1);
/// The whole section on a second node, which also boots.
const ROOTLESS_TIMEOUT: Duration = Duration::from_secs(180);
/// Fewer would show little.
const REFUSED_MIN: u64 = 150;
const CLASSES_MIN: u64 = 12;
/// Tries at the same time: most of one is waiting for the node.
const WORKERS: usize = 3;
/// An unprivileged user that every Linux has.
const NOBODY: u32 = 65534;
/// Counts of a run as an unprivileged user, beside their names there.
const ROOTLESS: [(&str, &str); 6] = [
    ("refused", "rootless_refused"),
    ("missed", "rootless_missed"),
    ("shown", "rootless_shown"),
    ("cannot", "rootless_cannot"),
    ("untried", "rootless_untried"),
    ("bare", "rootless_bare"),
];

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new(NAME);
    let (seed, part) = (context.seed, context.broken.clone());
    let site = context.site()?;
    let examined = examine_all(site, part.as_deref().and_then(Guard::parse))?;
    for class in CLASSES {
        let mut refused = 0;
        for attempt in class.attempts() {
            let examined = examined.get(attempt.name).context("an attempt was left out")?;
            refused += u64::from(tally(&mut section, class.name, attempt, examined, part.is_none()));
        }
        section.count("classes", u64::from(refused > 0));
    }
    let count = |section: &Section, what| section.counts.get(what).copied().unwrap_or(0);
    let (refused, classes) = (count(&section, "refused"), count(&section, "classes"));
    if refused < REFUSED_MIN || classes < CLASSES_MIN {
        section.miss(format!("only {refused} attempts in {classes} classes were refused"));
    }
    if rustix::process::geteuid().is_root() {
        rootless(&mut section, site.exe(), seed, part.as_deref())?;
    }
    Ok(section)
}

/// Tries all, some at the same time, each worker with canaries of its own.
fn examine_all(site: &Site, broken: Option<Guard>) -> Result<BTreeMap<&'static str, Examined>> {
    let all: Vec<&Attempt> = CLASSES.iter().flat_map(Class::attempts).collect();
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(&'static str, Examined)>> {
        let trial = Trial::new(site, broken)?;
        let mut examined = Vec::new();
        while let Some(attempt) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            examined.push((attempt.name, trial.examine(attempt)));
        }
        Ok(examined)
    };
    let mut examined = BTreeMap::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            examined.extend(worker.join().map_err(|_| anyhow!("a worker panicked"))??);
        }
        Ok(examined)
    })
}

/// Counts one attempt; true if it was refused as it should be.
fn tally(section: &mut Section, class: &str, attempt: &Attempt, examined: &Examined, whole: bool) -> bool {
    section.count("attempts", 1);
    section.count("bare", u64::from(examined.bare == Some(true)));
    let refused = match &examined.verdict {
        Verdict::Refused(_) => {
            section.count("refused", 1);
            true
        }
        Verdict::Untried(why) => {
            section.count("untried", 1);
            eprintln!("{REASON} {class}/{} is not tried: {why}", attempt.name);
            false
        }
        Verdict::Missed(why) => {
            section.count("missed", 1);
            section.miss(format!("{class}/{} ({}, {}): {why}", attempt.name, attempt.aim, attempt.guard));
            false
        }
    };
    if !whole {
        return refused;
    }
    match &examined.shown {
        Shown::Without(_) => section.count("shown", 1),
        Shown::Cannot(why) => {
            section.count("cannot", 1);
            eprintln!("{REASON} {class}/{} cannot succeed: {why}", attempt.name);
        }
        Shown::Not(why) => section.miss(format!(
            "{class}/{} proves nothing: with its guards off it does not succeed either: {why}",
            attempt.name
        )),
    }
    refused
}

/// Everything that one attempt needs.
struct Trial<'s> {
    site: &'s Site,
    canaries: Canaries,
    privileged: bool,
    broken: GuardSet,
}

impl<'s> Trial<'s> {
    fn new(site: &'s Site, broken: Option<Guard>) -> Result<Self> {
        let mut target = Command::new(site.exe());
        target.args(["process", "attempt", TARGET]);
        // Beside the node's folder, which no program sees whatever is off.
        let canaries = Canaries::make(&std::env::temp_dir(), target).context("making the canaries")?;
        let broken = broken.map_or(GuardSet::EMPTY, |guard| GuardSet::of(&[guard]));
        Ok(Self { site, canaries, privileged: rustix::process::geteuid().is_root(), broken })
    }

    fn examine(&self, attempt: &Attempt) -> Examined {
        examine(attempt, self.privileged, self.broken, |place| {
            self.attempt(attempt, place).unwrap_or_else(|error| (None, format!("{error:#}")))
        })
    }

    /// One try; a refusal is believed only when no canary was touched.
    fn attempt(&self, attempt: &Attempt, place: Place) -> Result<(Option<i32>, String)> {
        self.canaries.refresh().context("making the canaries good again")?;
        // What was left by the one before is not this one's.
        let _ = self.canaries.harm();
        let words = ["process", "attempt", attempt.name];
        let variable = format!("{CANARY_VARIABLE}={}", self.canaries.text());
        let command = match place {
            Place::Bare => {
                let mut command = Command::new(self.site.exe());
                command.args(words).env(CANARY_VARIABLE, self.canaries.text());
                command
            }
            Place::Sandbox(off) => {
                let exe = self.site.exe().to_str().context("the path of this program is not UTF-8")?;
                let mut args = vec!["run", "--no-notice", "--env", &variable];
                args.extend(off.iter().flat_map(|guard| ["--disable", guard.name()]));
                args.extend(["--", exe]);
                args.extend(words);
                self.site.command(&args)
            }
        };
        let since = Instant::now();
        let (code, line) = finish(command, ATTEMPT_TIMEOUT)?;
        if since.elapsed() > SLOW {
            eprintln!("prove: refuse: {} took {:.1} s: {line}", attempt.name, since.elapsed().as_secs_f64());
        }
        match self.canaries.harm() {
            Some(harm) if code != Some(i32::from(SUCCEEDED)) => Ok((None, format!("{line}; but {harm}"))),
            _ => Ok((code, line)),
        }
    }
}

/// Runs a command to its end, within a limit: exit code, and the last line that says something.
fn finish(command: Command, timeout: Duration) -> Result<(Option<i32>, String)> {
    let (code, out, error) = output_within(command, timeout)?;
    let last = |text: &str| text.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned);
    Ok((code, last(&out).or_else(|| last(&error)).unwrap_or_default()))
}

fn output_within(mut command: Command, timeout: Duration) -> Result<(Option<i32>, String, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting")?;
    // Read beside the waiting: a full pipe would stop the child.
    let (out, error) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let code = wait(&mut child, timeout)?;
    let text = |reader: std::thread::JoinHandle<String>| reader.join().unwrap_or_default();
    Ok((code, text(out), text(error)))
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is what there is to show.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Its exit code; after the time limit it is ended.
fn wait(child: &mut Child, timeout: Duration) -> Result<Option<i32>> {
    let ended = wait_for(timeout, LOOK_EVERY, || child.try_wait().transpose());
    if let Some(status) = ended {
        return Ok(status?.code());
    }
    child.kill()?;
    child.wait()?;
    bail!("it did not end within {} s", timeout.as_secs());
}

/// The same section on a node of nobody, from a copy of this program that nobody can read.
fn rootless(section: &mut Section, exe: &Path, seed: u64, broken: Option<&str>) -> Result<()> {
    eprintln!("{REASON} the same on a node of uid {NOBODY} …");
    let home = Home::new()?;
    let program = home.0.join("bailiwick");
    fs::copy(exe, &program).with_context(|| format!("copying {}", exe.display()))?;
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
    let mut command = Command::new(&program);
    command.args(["prove", "--json", "--section", NAME, "--seed", &seed.to_string()]);
    command.args(broken.map(|part| ["--break", part]).into_iter().flatten());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", &home.0).env("TMPDIR", &home.0).current_dir(&home.0).uid(NOBODY).gid(NOBODY);
    let orphans = Orphans::adopt()?;
    let result = output_within(command, ROOTLESS_TIMEOUT);
    // Its node, if it could not end that itself.
    let left = orphans.end();
    let (code, out, error) =
        result.with_context(|| format!("{left} of its processes were left and ended"))?;
    // Its progress is not ours, its reasons are.
    for reason in error.lines().filter(|line| line.contains(REASON)) {
        eprintln!("{reason} (uid {NOBODY})");
    }
    let report: Value = serde_json::from_str(out.trim())
        .with_context(|| format!("a node of uid {NOBODY} ended with {code:?}: {}", error.trim()))?;
    let theirs = report.pointer("/sections/0").context("a report without a section")?;
    for (theirs_name, ours_name) in ROOTLESS {
        let number = theirs.pointer(&format!("/counts/{theirs_name}")).and_then(Value::as_u64);
        section.count(ours_name, number.unwrap_or(0));
    }
    for missed in theirs.get("missed").and_then(Value::as_array).into_iter().flatten() {
        section.miss(format!("uid {NOBODY}: {}", missed.as_str().unwrap_or_default()));
    }
    if theirs.get("ok") != Some(&Value::Bool(true)) {
        section.ok = false;
    }
    Ok(())
}

/// A folder of nobody's, removed in the end. Its name is short: sockets lie below it.
struct Home(PathBuf);

impl Home {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("bwn{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let home = Self(folder);
        std::os::unix::fs::chown(&home.0, Some(NOBODY), Some(NOBODY))?;
        Ok(home)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
