//! Output of programs into the node's logs, beside s6-log and a bare file: how fast its writer gets rid of it.
//!
//! Everywhere the same program writes lines of 100 bytes in pieces of 64 KiB, after a first part that is not counted.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::{
    beacon::Beacon,
    process::{self, Tree},
    report::{Part, Row, Subject, Unit},
    site::{self, Folder, Site},
};

const MEBIBYTES: usize = 2048;
const MEBIBYTES_QUICK: usize = 256;
const ROUNDS: usize = 5;
const ROUNDS_QUICK: usize = 1;
const GOAL_MB_PER_SECOND: f64 = 500.0;
const DONE_TIMEOUT: Duration = Duration::from_secs(120);
/// Of the services of the user: a log is kept at this size, and one of it aside.
const S6_LOG: [&str; 2] = ["n1", "s8388608"];

struct Stage {
    folder: PathBuf,
    program: PathBuf,
    mebibytes: usize,
}

impl Stage {
    fn socket(&self) -> PathBuf {
        self.folder.join("here.sock")
    }

    fn arguments(&self, name: &str) -> [String; 3] {
        [self.socket().to_string_lossy().into_owned(), name.to_owned(), self.mebibytes.to_string()]
    }

    /// Waits for the writer of this name; megabytes in a second.
    fn wait(&self, beacon: &Beacon, name: &str) -> Result<f64> {
        let begun = beacon.wait_for(&[name.to_owned()], DONE_TIMEOUT)?;
        let done = beacon.wait_for(&[format!("{name}-done")], DONE_TIMEOUT)?;
        let megabytes = (self.mebibytes * 1024 * 1024) as f64 / 1e6;
        Ok(megabytes / done.duration_since(begun).as_secs_f64())
    }
}

pub(crate) fn run(parent: &Path, quick: bool) -> Result<Part> {
    let (mebibytes, rounds) = if quick { (MEBIBYTES_QUICK, ROUNDS_QUICK) } else { (MEBIBYTES, ROUNDS) };
    let folder = Folder::new(parent, "out")?;
    let program = site::trivial_service(folder.path())?;
    let stage = Stage { folder: folder.path().to_owned(), program, mebibytes };
    let mut part = Part::new("output");
    let has_s6_log = process::installed("s6-log").is_some();
    if !has_s6_log {
        part.skip("s6-log", process::missing("s6-log", "s6"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    let mut site = Site::started(stage.folder.join("n"))?;
    let operator = site.operator()?;
    let (mut service, mut program, mut s6, mut file) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        eprintln!("bench: output: round {} of {rounds}", round + 1);
        let beacon = Beacon::new(&stage.socket())?;
        let name = format!("w{round}");
        runtime.block_on(operator.apply(&[manifest(&stage, &name)]))?;
        service.push(stage.wait(&beacon, &name)?);
        site.done(&["service", "stop", &name])?;
        let name = format!("p{round}");
        let pid = detach(&site, &stage, &name)?;
        program.push(stage.wait(&beacon, &name)?);
        site.done(&["kill", "--signal", "kill", pid.trim()])?;
        file.push(bare(&stage, &beacon, round)?);
        if has_s6_log {
            s6.push(piped(&stage, &beacon, round)?);
        }
    }
    site.down()?;
    let mut subjects = vec![
        Subject::ours("a service's log", &mut service),
        Subject::ours("a program's, through its monitor", &mut program),
    ];
    if has_s6_log {
        subjects.push(Subject::peer("s6-log", &mut s6));
    }
    subjects.push(Subject::peer("a bare file without bound", &mut file));
    let row = Row::new("captured output, nobody reading", Unit::MegabytesPerSecond, subjects);
    part.rows.push(row.goal(GOAL_MB_PER_SECOND).against("s6-log", 1.0));
    part.note("s6-log keeps two files of 8 MiB without time stamps; a service's log is a file of 8 MiB with one aside, a program's the last 4 MiB of each stream");
    Ok(part)
}

fn detach(site: &Site, stage: &Stage, name: &str) -> Result<String> {
    let grants = [
        stage.program.parent().unwrap_or(&stage.program).display().to_string(),
        format!("{}:rw", stage.socket().display()),
    ];
    let program = stage.program.to_string_lossy();
    let arguments = stage.arguments(name);
    let [grant, socket] = &grants;
    let mut words = vec!["run", "--detach", "--fs", grant, "--fs", socket, "--", &program];
    words.extend(arguments.iter().map(String::as_str));
    site.done(&words)
}

fn writer(stage: &Stage, name: &str) -> Command {
    let mut command = Command::new(&stage.program);
    command.args(stage.arguments(name)).stdin(Stdio::null());
    command
}

fn bare(stage: &Stage, beacon: &Beacon, round: usize) -> Result<f64> {
    let (name, path) = (format!("f{round}"), stage.folder.join("bare"));
    let file = std::fs::File::create(&path).context("making a file")?;
    let writer = Tree::spawn(writer(stage, &name).stdout(file))?;
    let speed = stage.wait(beacon, &name)?;
    writer.end(Signal::TERM)?;
    std::fs::remove_file(&path).context("removing a file")?;
    Ok(speed)
}

fn piped(stage: &Stage, beacon: &Beacon, round: usize) -> Result<f64> {
    let name = format!("s{round}");
    let (read, write) = std::io::pipe().context("a pipe")?;
    let mut command = Command::new("s6-log");
    let [number, size] = S6_LOG;
    let logger = Tree::spawn(
        command.args(["-b", number, size]).arg(stage.folder.join("s6")).stdin(read).stderr(Stdio::null()),
    )?;
    let writer = Tree::spawn(writer(stage, &name).stdout(write))?;
    let speed = stage.wait(beacon, &name)?;
    writer.end(Signal::TERM)?;
    logger.end(Signal::TERM)?;
    Ok(speed)
}

fn manifest(stage: &Stage, name: &str) -> String {
    let [socket, name, mebibytes] = stage.arguments(name);
    format!(
        "version = 1\n[service]\nname = \"{name}\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n\
         [program]\nimage = \"{program}\"\nargs = [\"{socket}\", \"{name}\", \"{mebibytes}\"]\n\
         fs = [\"{folder}\", \"{socket}:rw\"]\n[health]\nstop_timeout_ms = 100\n",
        program = stage.program.display(),
        folder = stage.program.parent().unwrap_or(&stage.program).display(),
    )
}
