//! Every escape attempt against a sandbox built as programs get it: a monitor in namespaces, the program behind
//! Landlock and the filter. Makes the canaries, so it runs as the user that the attempts are to have.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use sandbox::attempts::{
    Attempt, CANARY_VARIABLE, CLASSES, Canaries, Examined, Place, Shown, TARGET, Verdict, Way, examine,
    off_together,
};
use sandbox::seccomp::Profile;
use sandbox::{
    Access, Descriptor, Executable, Guard, GuardSet, Landlock, Limits, Mount, Namespaces, PathRule, Plan,
    Resource, Rlimit, Seccomp, Sockets,
};

/// One attempt takes milliseconds; one that hangs is broken.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
const SHOWN: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc"];

struct Suite {
    canaries: Canaries,
    exe: PathBuf,
    folder: PathBuf,
    privileged: bool,
}

/// Tries all, or those named; `broken=GUARD` switches one off, `each` shows that each guard of an attempt holds it
/// alone. One line for each attempt: what is not as it should be starts with `MISSED`.
pub(crate) fn run(words: &[&str]) -> io::Result<ExitCode> {
    let exe = std::env::current_exe()?;
    let folder = std::env::temp_dir().join(format!("sandbox-suite-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let mut target = Command::new(&exe);
    target.args(["attempt", TARGET]);
    let privileged = rustix::process::geteuid().is_root();
    let result = Canaries::make(&folder, target).and_then(|canaries| {
        let suite = Suite { canaries, exe, folder: folder.clone(), privileged };
        suite.all(words)
    });
    fs::remove_dir_all(&folder)?;
    result.map(|()| ExitCode::SUCCESS)
}

impl Suite {
    fn all(&self, words: &[&str]) -> io::Result<()> {
        let broken = words.iter().filter_map(|word| Guard::parse(word.strip_prefix("broken=")?));
        let broken = broken.fold(GuardSet::EMPTY, GuardSet::with);
        let chosen: Vec<&str> = words.iter().copied().filter(|word| Attempt::find(word).is_some()).collect();
        for class in CLASSES {
            for attempt in class.attempts() {
                if !chosen.is_empty() && !chosen.contains(&attempt.name) {
                    continue;
                }
                let start = Instant::now();
                let mut examined =
                    examine(attempt, self.privileged, broken, |place| self.attempt(attempt, place));
                if words.contains(&"each") && broken.is_empty() {
                    self.each_alone(attempt, &mut examined);
                }
                self.canaries.refresh()?;
                println!(
                    "{} took {} ms",
                    describe(class.name, attempt, &examined),
                    start.elapsed().as_millis()
                );
            }
        }
        Ok(())
    }

    /// With all guards but one off, that one must still hold.
    fn each_alone(&self, attempt: &Attempt, examined: &mut Examined) {
        let Way::Without(guards) = attempt.way(self.privileged) else { return };
        if !matches!(examined.shown, Shown::Without(_)) {
            return;
        }
        for kept in guards {
            let others: Vec<Guard> = guards.iter().copied().filter(|guard| guard != kept).collect();
            let off = off_together(GuardSet::of(&others), self.privileged);
            // What goes off with others holds nothing alone; an unprivileged user is given no group here.
            if off.contains(*kept) || (*kept == Guard::Cgroup && !self.privileged) {
                continue;
            }
            let (code, line) = self.attempt(attempt, Place::Sandbox(off));
            if code == Some(i32::from(sandbox::attempts::SUCCEEDED)) {
                examined.verdict = Verdict::Missed(format!("{kept} alone does not hold it: {line}"));
            }
        }
    }

    fn attempt(&self, attempt: &Attempt, place: Place) -> (Option<i32>, String) {
        let _ = self.canaries.refresh();
        let _ = self.canaries.harm();
        let result = match place {
            Place::Bare => {
                let mut command = Command::new(&self.exe);
                command.args(["attempt", attempt.name]).env(CANARY_VARIABLE, self.canaries.text());
                finish(command, &[]).map(|(code, text)| (code, text.trim().to_owned()))
            }
            Place::Sandbox(off) => self.inside(attempt.name, off),
        };
        let (code, line) = result.unwrap_or_else(|error| (None, error.to_string()));
        match self.canaries.harm() {
            Some(harm) if code != Some(i32::from(sandbox::attempts::SUCCEEDED)) => {
                (None, format!("{line}; but {harm}"))
            }
            _ => (code, line),
        }
    }

    fn inside(&self, name: &str, off: GuardSet) -> io::Result<(Option<i32>, String)> {
        let (outer, inner) = plans(name, self.canaries.text(), off);
        let file = self.folder.join("plan");
        fs::write(&file, inner.encode())?;
        let mut command = Command::new(&self.exe);
        command.args(["launch", &slot_option(&file)]);
        if self.privileged {
            command.arg("cgroup");
        }
        let (_, text) = finish(command, &outer.encode())?;
        let ended = text.lines().find_map(|line| line.strip_prefix("inner "));
        let number = |kind: &str| ended?.strip_prefix(kind)?.strip_suffix(')')?.parse::<i32>().ok();
        let code = number("Code(").or_else(|| number("Signal(").map(|signal| 128 + signal));
        Ok((code, text.lines().filter(|line| says(line)).collect::<Vec<_>>().join("; ")))
    }
}

/// One line: verdict, class, name, how it was shown, and what the user can do outside of a sandbox.
fn describe(class: &str, attempt: &Attempt, examined: &Examined) -> String {
    let (mark, said) = match &examined.verdict {
        Verdict::Refused(said) => ("held", said),
        Verdict::Untried(said) => ("untried", said),
        Verdict::Missed(said) => ("MISSED", said),
    };
    let shown = match &examined.shown {
        Shown::Without(off) => format!("shown without {off}"),
        Shown::Cannot(why) => format!("cannot: {why}"),
        Shown::Not(said) => format!("NOT SHOWN: {said}"),
    };
    let bare = match examined.bare {
        Some(true) => "bare yes",
        Some(false) => "bare no",
        None => "bare not tried",
    };
    format!("{mark} {class} {} [{said}] [{shown}] {bare}", attempt.name)
}

fn says(line: &str) -> bool {
    ["succeeded", "refused", "absent", "broken", "failed", "signal", "error"]
        .iter()
        .any(|start| line.starts_with(start))
}

fn slot_option(file: &Path) -> String {
    format!("slot={}", file.display())
}

fn finish(mut command: Command, input: &[u8]) -> io::Result<(Option<i32>, String)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let deadline = Instant::now() + ATTEMPT_TIMEOUT;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::other("the attempt did not end"));
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut text)?;
    }
    Ok((status.code(), text))
}

/// The monitor's plan and the program's, as programs get them.
fn plans(name: &str, canaries: String, off: GuardSet) -> (Plan, Plan) {
    let tmpfs =
        |target: &str| Mount::Tmpfs { target: target.to_owned(), size_bytes_max: 1 << 28, mode: 0o1777 };
    let bind = |path: &&str| Mount::Bind {
        source: (*path).to_owned(),
        target: (*path).to_owned(),
        writable: false,
        optional: true,
    };
    let mut mounts: Vec<Mount> = SHOWN.iter().map(bind).collect();
    mounts.extend([Mount::Proc, Mount::Dev, tmpfs("/tmp")]);
    let mut outer = Plan::new("attempt", Executable::Slot(0), Profile::Program).with_mounts(mounts);
    let mut landlock = Landlock::of_mounts(&outer.mounts);
    landlock.tcp = true;
    if off.contains(Guard::Mountns) {
        // The host's `/tmp` is no private one.
        landlock.rules.retain(|rule: &PathRule| rule.path != "/tmp" && rule.access != Access::Write);
    }
    (outer.landlock, outer.seccomp) = (None, None);
    outer.arguments = ["stage", "monitor"].map(str::to_owned).to_vec();
    outer.descriptors = (0..3).map(|number| Descriptor { slot: number + 1, target: number }).collect();
    outer.descriptors.push(Descriptor { slot: 5, target: 5 });
    outer.descriptors.push(Descriptor { slot: 0, target: 6 });
    outer.limits = Limits { memory_bytes_max: Some(256 << 20), processes_max: Some(65), ..Limits::default() };
    outer.loopback = true;
    outer.disabled = off;
    outer.required =
        GuardSet::of(&[Guard::Mountns, Guard::Pidns, Guard::Netns, Guard::NoNewPrivs, Guard::Caps]);
    let mut inner = Plan::new("attempt", Executable::Slot(0), Profile::Program);
    inner.namespaces = Namespaces::NONE;
    inner.landlock = Some(landlock);
    inner.seccomp = Some(Seccomp {
        profile: Profile::Program,
        sockets: Sockets { unix: true, inet: true, netlink_route: true },
        notify: Vec::new(),
    });
    inner.arguments = ["stage", "attempt", name].map(str::to_owned).to_vec();
    inner.environment = vec![(CANARY_VARIABLE.to_owned(), canaries)];
    inner.rlimits.push(Rlimit { resource: Resource::OpenFiles, soft: 256, hard: 256 });
    inner.descriptors = (0..3).map(|number| Descriptor { slot: number + 1, target: number }).collect();
    inner.disabled = off;
    (outer, inner)
}
