//! Supervision side by side: a hundred trivial services up, one killed until its replacement runs, and the memory of
//! whatever supervises. Ours are sandboxed and each start is on record; the peers' are bare processes.
//!
//! The same static program is the service everywhere, executed without a shell. It connects to the bench, which so learns
//! its pid and the moment of its first breath, and ends with the bench.

mod ours;
mod peers;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::{
    beacon::Beacon,
    process,
    report::{Part, Row, Subject, Unit},
    site::{self, Folder},
};

const SERVICES: usize = 100;
/// All services of a contestant are there within this, or it has failed.
const UP_TIMEOUT: Duration = Duration::from_secs(60);
const BACK_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time during which any of them holds a restart back that follows too soon: a killed one ran longer.
const THROTTLE: Duration = Duration::from_millis(1200);

#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    /// Kills in each round; of those that wait a second before each restart, fewer.
    kills: usize,
    kills_throttled: usize,
}

impl Plan {
    const FULL: Self = Self { rounds: 5, kills: 20, kills_throttled: 4 };
    const QUICK: Self = Self { rounds: 1, kills: 5, kills_throttled: 1 };
}

/// The trivial service and where it says that it is there.
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) program: PathBuf,
    pub(super) names: Vec<String>,
}

impl Stage {
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("here.sock")
    }
}

/// Something that keeps services running.
trait Supervision {
    fn name(&self) -> &'static str;
    fn is_ours(&self) -> bool {
        false
    }
    /// Waits about a second before each restart, by design.
    fn is_throttled(&self) -> bool {
        false
    }
    /// Writes what it reads at its start; not timed.
    fn prepare(&mut self, stage: &Stage) -> Result<()>;
    /// Starts it with all services of the stage; may return before these are there.
    fn start(&mut self) -> Result<()>;
    /// Waits until it knows itself that all services run; for those that tell.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
    /// Waits until it knows itself that the service runs again; for those that tell.
    fn knows(&mut self, _service: &str) -> Result<()> {
        Ok(())
    }
    /// What runs besides the services themselves.
    fn supervisors(&mut self) -> Result<Vec<i32>>;
    /// Ends it, and looks whether everything is on record; for those that record.
    fn stop(&mut self) -> Result<()>;
}

#[derive(Default)]
struct Samples {
    up_ms: Vec<f64>,
    back_ms: Vec<f64>,
    /// Until the supervision itself says so.
    known_ms: Vec<f64>,
    memory_mib: Vec<f64>,
}

pub(crate) fn run(parent: &Path, quick: bool) -> Result<Part> {
    let plan = if quick { Plan::QUICK } else { Plan::FULL };
    let folder = Folder::new(parent, "svc")?;
    let stage = stage(folder.path())?;
    let mut part = Part::new("services");
    let mut all: Vec<Box<dyn Supervision>> = vec![Box::new(ours::Bailiwick::new(&stage)?)];
    for (peer, program, package) in peers::all() {
        match process::installed(program) {
            Some(_) => all.push(peer),
            None => part.skip(peer.name(), process::missing(program, package)),
        }
    }
    let mut samples: Vec<Samples> = all.iter().map(|_| Samples::default()).collect();
    for round in 0..plan.rounds {
        for (one, samples) in all.iter_mut().zip(&mut samples) {
            eprintln!("bench: services: {}, round {} of {}", one.name(), round + 1, plan.rounds);
            let measured = one_round(one.as_mut(), &stage, plan, samples);
            measured.with_context(|| one.name().to_owned())?;
        }
    }
    rows(&mut part, &all, &mut samples);
    Ok(part)
}

fn stage(folder: &Path) -> Result<Stage> {
    let program = site::trivial_service(folder)?;
    let names = (0..SERVICES).map(|n| format!("s{n:03}")).collect();
    Ok(Stage { folder: folder.to_owned(), program, names })
}

fn one_round(one: &mut dyn Supervision, stage: &Stage, plan: Plan, samples: &mut Samples) -> Result<()> {
    let beacon = Beacon::new(&stage.socket())?;
    one.prepare(stage)?;
    // Whoever ran while it was prepared is not up: all names would be there before the clock runs.
    beacon.forget();
    let started = Instant::now();
    one.start()?;
    let all_up = beacon.wait_for(&stage.names, UP_TIMEOUT)?;
    samples.up_ms.push(all_up.duration_since(started).as_secs_f64() * 1e3);
    one.settle()?;
    std::thread::sleep(THROTTLE);
    samples.memory_mib.push(process::pss_mib(&one.supervisors()?));
    let kills = if one.is_throttled() { plan.kills_throttled } else { plan.kills };
    // Spread over the services, so that none is killed twice.
    for name in stage.names.iter().step_by(SERVICES / kills).take(kills) {
        let pid = beacon.pid(name).with_context(|| format!("{name} has no pid"))?;
        let killed = Instant::now();
        process::kill(pid, Signal::KILL)?;
        let back = beacon.wait_for_next(name, pid, BACK_TIMEOUT)?;
        samples.back_ms.push(back.duration_since(killed).as_secs_f64() * 1e3);
        one.knows(name)?;
        samples.known_ms.push(killed.elapsed().as_secs_f64() * 1e3);
    }
    one.stop()
}

fn rows(part: &mut Part, all: &[Box<dyn Supervision>], samples: &mut [Samples]) {
    let mut row = |what: &str, unit, values: fn(&mut Samples) -> &mut Vec<f64>| {
        let subjects = all.iter().zip(samples.iter_mut()).map(|(one, samples)| match one.is_ours() {
            true => Subject::ours(one.name(), values(samples)),
            false => Subject::peer(one.name(), values(samples)),
        });
        Row::new(what, unit, subjects.collect())
    };
    let up =
        row("100 services up, from the start of the whole", Unit::Milliseconds, |samples| &mut samples.up_ms);
    let back =
        row("kill to the replacement's first breath", Unit::Milliseconds, |samples| &mut samples.back_ms);
    let known =
        row("kill to replacement known as running", Unit::Milliseconds, |samples| &mut samples.known_ms);
    let memory =
        row("memory (PSS) of what supervises 100", Unit::Mebibytes, |samples| &mut samples.memory_mib);
    part.rows.push(back.against("runit", 1.0));
    part.rows.push(known.against("runit", 1.0));
    part.rows.push(up.against("s6", 1.0));
    part.rows.push(memory.against("runit", 1.0));
    part.note("ours are sandboxed, say READY=1, and each start and failure is an entry of the log, checked at the end of each round; the peers' services are bare processes that count as running once they execute");
    part.note("s6 and supervisord wait about a second before each restart, by design");
}
