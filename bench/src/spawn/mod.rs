//! What a sandbox costs beside bubblewrap and crun, as root and without privileges: from the decision to a program's
//! first instruction, and a whole `bailiwick run` on a running node beside their whole commands.
//!
//! The first is measured by the example `spawn_cost` of the crate `sandbox`, which may call `clone3`; the second by this
//! program, in a process of its own (`in_turn`), because crun needs another view of the cgroups than a node.

mod peers;
mod user;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{
    process,
    report::{Part, Row, Subject, Unit},
    site::{self, Folder, Site},
};
use user::User;

/// The contestants of `spawn_cost` that stand in the table.
const OURS: [(&str, &str); 3] = [
    ("sandbox (root, landlock, seccomp, caps)", "sandbox"),
    ("sandbox + user namespace", "sandbox with a user namespace"),
    ("sandbox without net", "sandbox without network namespace"),
];
const FLOOR: [(&str, &str); 2] = [
    ("bare clone3, same namespaces", "bare clone3 with the same namespaces"),
    ("bare clone3", "bare clone3"),
];
const BUBBLEWRAP: &str = "bubblewrap";
const CRUN: &str = "crun";
/// What a spawn may cost, times the bare `clone3`.
const GOAL_TIMES: f64 = 1.5;

#[derive(Clone, Copy, Debug)]
struct Plan {
    spawns: usize,
    runs: usize,
}

impl Plan {
    const FULL: Self = Self { spawns: 300, runs: 60 };
    const QUICK: Self = Self { spawns: 20, runs: 8 };
}

pub(crate) fn run(parent: &Path, quick: bool) -> Result<Part> {
    let plan = if quick { Plan::QUICK } else { Plan::FULL };
    let spawn_cost = spawn_cost()?;
    let mut part = Part::new("spawn");
    let mut users = vec![User::own()];
    if rustix::process::geteuid().is_root() {
        users.push(User::Nobody);
    } else {
        part.skip("as root", "the bench was not started as root");
    }
    for user in users {
        let folder = Folder::new(parent, user.word())?;
        let stage = Stage::new(folder.path(), user, &spawn_cost)?;
        stage.first_instruction(&mut part, plan).with_context(|| format!("spawn, {}", user.words()))?;
        stage.whole_run(&mut part, plan).with_context(|| format!("run, {}", user.words()))?;
    }
    part.note("a spawn ends with the first instruction of a static program of a handful of instructions; the peers show the same host folders, and have no Landlock, no system call filter of their own and no record");
    part.note("`bailiwick run` is a whole command against a running node: token, decision and entry on the disk, sandbox, monitor, exit on record; the peers' commands record nothing");
    Ok(part)
}

/// Names the example; without it cargo builds it.
const SPAWN_COST_VARIABLE: &str = "SPAWN_COST_BIN";

fn spawn_cost() -> Result<PathBuf> {
    if let Some(file) = std::env::var_os(SPAWN_COST_VARIABLE).map(PathBuf::from) {
        return if file.is_file() { Ok(file) } else { bail!("{SPAWN_COST_VARIABLE} names no file") };
    }
    site::cargo_build(&["--package", "sandbox", "--example", "spawn_cost"])?;
    let own = std::env::current_exe().context("this program")?;
    let file = own.with_file_name("examples").join("spawn_cost");
    if file.is_file() {
        Ok(file)
    } else {
        bail!("{} is not there; run the bench with --release", file.display())
    }
}

/// What one user runs, in a folder of the user's own.
struct Stage {
    user: User,
    /// Readable by everybody: programs.
    programs: PathBuf,
    /// The user's own.
    home: PathBuf,
}

impl Stage {
    fn new(folder: &Path, user: User, spawn_cost: &Path) -> Result<Self> {
        user::open_to_all(folder)?;
        let programs = folder.join("bin");
        std::fs::create_dir(&programs).context("making a folder")?;
        user::open_to_all(&programs)?;
        let own = std::env::current_exe().context("this program")?;
        for (file, name) in [(spawn_cost, "spawn_cost"), (&own, "bench"), (&site::binary()?, "bailiwick")] {
            std::fs::copy(file, programs.join(name))
                .with_context(|| format!("copying {}", file.display()))?;
        }
        let home = folder.join("h");
        user.own_folder(&home)?;
        Ok(Self { user, programs, home })
    }

    /// In the mount namespace that crun needs, as the user.
    fn command(&self, program: &str) -> Command {
        let mut words = Vec::new();
        if rustix::process::geteuid().is_root() && peers::has_hybrid_cgroups() {
            words.extend(peers::WITH_ONE_HIERARCHY.map(str::to_owned));
        }
        words.extend(self.user.becoming());
        words.push(self.programs.join(program).to_string_lossy().into_owned());
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).current_dir(&self.home).env("TMPDIR", &self.home).env("HOME", &self.home);
        command.env("XDG_RUNTIME_DIR", &self.home).stdin(Stdio::null());
        command
    }

    fn first_instruction(&self, part: &mut Part, plan: Plan) -> Result<()> {
        // Without a round it only makes the program.
        samples(self.command("spawn_cost").args(["0", "--samples", "--folder"]).arg(&self.home))?;
        let peers = self.peers(part, &self.home.join("first"))?;
        let mut command = self.command("spawn_cost");
        command.arg(plan.spawns.to_string()).arg("--samples").arg("--folder").arg(&self.home);
        command.arg("--peers").arg(self.write(&peers)?);
        let mut samples = samples(&mut command)?;
        let mut subjects = Vec::new();
        for (name, shown) in OURS {
            if let Some(mut values) = samples.remove(name) {
                subjects.push(Subject::ours(shown, &mut values));
            }
        }
        for (name, shown) in FLOOR.into_iter().chain([(BUBBLEWRAP, BUBBLEWRAP), (CRUN, CRUN)]) {
            if let Some(mut values) = samples.remove(name) {
                subjects.push(Subject::peer(shown, &mut values));
            }
        }
        let what = format!("sandboxed spawn to first instruction, {}", self.user.words());
        let [(_, floor), _] = FLOOR;
        let row = Row::new(what, Unit::Microseconds, subjects).against(floor, GOAL_TIMES);
        part.rows.push(row.against(BUBBLEWRAP, 1.0).against(CRUN, 1.0));
        Ok(())
    }

    fn whole_run(&self, part: &mut Part, plan: Plan) -> Result<()> {
        let binary = self.programs.join("bailiwick");
        let mut site = Site::of_user(binary.clone(), self.home.join("n"), self.user.becoming());
        site.up()?;
        let root = self.home.join("n").to_string_lossy().into_owned();
        let mut commands = vec![Named {
            name: "bailiwick".to_owned(),
            words: [&binary.to_string_lossy(), "--root", &root, "run", "--", "/bin/true"]
                .map(str::to_owned)
                .to_vec(),
        }];
        commands.extend(self.peers(part, Path::new("/bin/true"))?);
        let mut command = self.command("bench");
        command.arg(IN_TURN).arg(plan.runs.to_string()).arg(self.write(&commands)?);
        let samples = samples(&mut command);
        site.down()?;
        let mut samples = samples?;
        let mut subjects = Vec::new();
        for Named { name, .. } in &commands {
            let mut values = samples.remove(name).with_context(|| format!("no samples of {name}"))?;
            values.iter_mut().for_each(|us| *us /= 1e3);
            subjects.push(match name.as_str() {
                "bailiwick" => Subject::ours("bailiwick run", &mut values),
                name => Subject::peer(name, &mut values),
            });
        }
        let what = format!("a whole run of /bin/true, {}", self.user.words());
        part.rows.push(Row::new(what, Unit::Milliseconds, subjects));
        Ok(())
    }

    /// Commands of the peers that are there, for `program`.
    fn peers(&self, part: &mut Part, program: &Path) -> Result<Vec<Named>> {
        let mut found = Vec::new();
        for (name, program_name, package) in [(BUBBLEWRAP, "bwrap", "bubblewrap"), (CRUN, "crun", "crun")] {
            let what = format!("{name}, {}", self.user.words());
            if process::installed(program_name).is_none() {
                part.skip(what, process::missing(program_name, package));
                continue;
            }
            let words = match name {
                BUBBLEWRAP => peers::bubblewrap(program),
                _ => peers::crun(&self.home, self.user, program)?,
            };
            if let Err(error) = self.works(&words) {
                part.skip(what, format!("{error:#}"));
                continue;
            }
            found.push(Named { name: name.to_owned(), words });
        }
        Ok(found)
    }

    /// One try, since a peer that is installed may not be able to work on this host.
    fn works(&self, words: &[String]) -> Result<()> {
        let file = self.write(&[Named { name: "try".to_owned(), words: words.to_vec() }])?;
        samples(self.command("bench").arg(IN_TURN).arg("1").arg(file)).map(|_| ())
    }

    fn write(&self, commands: &[Named]) -> Result<PathBuf> {
        let file = self.home.join("commands");
        let line = |one: &Named| format!("{}\t{}\n", one.name, one.words.join("\t"));
        let text: String = commands.iter().map(line).collect();
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}

struct Named {
    name: String,
    words: Vec<String>,
}

/// The word that makes this program measure commands, in `main`.
pub(crate) const IN_TURN: &str = "in-turn";

/// Runs each command of a file in turn, so many rounds, to its end. Each must end well. Prints microseconds.
pub(crate) fn in_turn(rounds: &str, file: &str) -> Result<()> {
    let rounds: usize = rounds.parse().context("the number of rounds")?;
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    for round in 0..=rounds {
        for line in text.lines() {
            let mut words = line.split('\t');
            let (name, program) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let start = Instant::now();
            let output = Command::new(program).args(words).stdin(Stdio::null()).output();
            let took = start.elapsed();
            let output = output.with_context(|| format!("starting {program}"))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("{name} ended with {}: {}", output.status, said.trim());
            }
            // The first round warms up.
            if round > 0 {
                println!("{name}\t{:.1}", took.as_secs_f64() * 1e6);
            }
        }
    }
    Ok(())
}

/// Lines of name and number, by name.
fn samples(command: &mut Command) -> Result<BTreeMap<String, Vec<f64>>> {
    let output = command.output().context("starting a measurement")?;
    if !output.status.success() {
        bail!("{} {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (name, number) = line.split_once('\t').context("a line without a number")?;
        samples.entry(name.to_owned()).or_default().push(number.parse().context("a number")?);
    }
    Ok(samples)
}
