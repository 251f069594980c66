//! Side by side measurements. `cargo xtask bench` builds what it needs and runs all of it.
//!
//! Promises: ours and its peers are measured in the same run, in interleaved rounds; what a machine lacks is said, never
//! left out silently; every process that was started is ended and every folder removed, also on an error.

mod act;
mod beacon;
mod boot;
mod capability;
mod egress;
mod idle;
mod log;
mod output;
mod policy;
#[cfg(feature = "peers")]
mod policy_peers;
mod process;
mod report;
mod services;
mod site;
mod spawn;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use report::{Part, Report};
use site::Folder;

const USAGE: &str = "\
usage: bench [PART...] [--quick] [-o json] [--dir DIR] [--only TEXT]
  policy   one decision in process: our engine, and with --features peers Cedar, Regorus and Casbin
  log      durable entries per second: the sequencer's core, bare loops, and with --features peers redb and SQLite
  act      acts per second and their latency, through real processes
  spawn    sandboxed spawn to first instruction, and a whole run, beside bare clone3, bubblewrap and crun
  services kill to replacement, 100 services up, and the supervisors' memory, beside runit, s6 and supervisord
  capability  a check among 100 000 rights, and taking back 10 000 of them at once
  verify   a log of a million entries: verifying and folding it, starting on it, bytes an entry
  boot     boot of a node and its idle memory
  idle     wake-ups, processor time and memory of a node in which nothing happens, alone and with 1 000 services
  output   captured output, beside s6-log and a bare file
  egress   a program's way out: bytes and connections, beside a direct loopback, veth, slirp4netns and pasta
Without a PART all of them run. DIR is where the folders of the parts are made, on the disk to be measured; by default the
folder for temporary files. TEXT chooses among the contestants of `act`, for a profile. BAILIWICK_BIN names the binary; without it cargo builds one.";

const PARTS: [&str; 11] =
    ["policy", "log", "verify", "act", "capability", "spawn", "services", "boot", "idle", "output", "egress"];

struct Options {
    parts: Vec<&'static str>,
    quick: bool,
    json: bool,
    dir: PathBuf,
    /// Of `act`: contestants whose names hold this.
    only: String,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, rounds, file] = words.as_slice()
        && word == spawn::IN_TURN
    {
        return exit(spawn::in_turn(rounds, file).map(|()| ExitCode::SUCCESS));
    }
    let Some(options) = read(&words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    exit(run(&options))
}

fn exit(result: Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn read(words: &[String]) -> Option<Options> {
    let mut options = Options {
        parts: Vec::new(),
        quick: false,
        json: false,
        dir: std::env::temp_dir(),
        only: String::new(),
    };
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "--quick" => options.quick = true,
            "-o" => options.json = words.next()? == "json",
            "--only" => words.next()?.clone_into(&mut options.only),
            "--dir" => options.dir = PathBuf::from(words.next()?),
            part => options.parts.push(PARTS.into_iter().find(|known| *known == part)?),
        }
    }
    if options.parts.is_empty() {
        options.parts.extend(PARTS);
    }
    Some(options)
}

fn run(options: &Options) -> Result<ExitCode> {
    process::adopt_orphans()?;
    let dir = std::path::absolute(&options.dir).context("the folder to measure in")?;
    if !dir.is_dir() {
        bail!("{} is no folder", dir.display());
    }
    let before = load();
    let mut parts = Vec::new();
    let mut failed = false;
    for name in &options.parts {
        eprintln!("bench: {name} …");
        let since = std::time::Instant::now();
        match part(name, &dir, options) {
            Ok(part) => parts.push(part),
            Err(error) => {
                failed = true;
                eprintln!("bench: {name} failed: {error:#}");
                let mut part = Part::new(name);
                part.skip("all of it", format!("{error:#}"));
                parts.push(part);
            }
        }
        eprintln!("bench: {name}: {:.1} s", since.elapsed().as_secs_f64());
    }
    let report = Report { machine: machine(), quick: options.quick, load: [before, load()], parts };
    match options.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => print!("{}", report.markdown()),
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn part(name: &str, dir: &std::path::Path, options: &Options) -> Result<Part> {
    let quick = options.quick;
    match name {
        "policy" => policy::run(quick),
        "log" => {
            let folder = Folder::new(dir, "log")?;
            log::run(folder.path(), quick)
        }
        "verify" => {
            let folder = Folder::new(dir, "verify")?;
            verify::run(folder.path(), quick)
        }
        "act" => act::run(dir, quick, &options.only),
        "capability" => capability::run(dir, quick),
        "spawn" => spawn::run(dir, quick),
        "services" => services::run(dir, quick),
        "boot" => boot::run(dir, quick),
        "idle" => idle::run(dir, quick),
        "output" => output::run(dir, quick),
        "egress" => egress::run(dir, quick),
        other => bail!("there is no part {other}"),
    }
}

/// Of the last minute.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    format!("{cores} cores, Linux {release}")
}
