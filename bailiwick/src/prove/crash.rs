//! Section `crash`: processes are killed under load, and power is cut on a simulated disk; nothing acknowledged is lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use chain::{LogFolder, VerifyOptions, payload::Payload, verify_log};
use rustix::process::{Pid, Signal, kill_process};
use sandbox::wait_for;
use serde_json::Value;
use sim::Broken;

use super::{
    Context, Section, Site,
    rights::{Acknowledged, READ, Rights},
};
use crate::node::{Node, runtime};

/// Power cuts on the simulated disk; the least that counts is 500.
const POWER_CUTS: u64 = 600;
const FAULTS: u64 = 300;
/// Acts under way at once while processes are killed.
const LOAD: usize = 8;
/// A killed process must be back within this.
const BACK_TIMEOUT: Duration = Duration::from_secs(15);
/// Load before, between and after the kills.
const LOAD_PAUSE: Duration = Duration::from_millis(150);
/// How often a look is taken at what should change.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("crash");
    let broken = match context.broken.as_deref() {
        Some("fsync") => Broken::Fsync,
        Some("ack") => Broken::Ack,
        _ => Broken::Nothing,
    };
    power_cuts(&mut section, context.seed, broken);
    // The simulation is where these two are noticed; killing real processes shows neither.
    if broken == Broken::Nothing {
        kills(&mut section, context.site()?)?;
    }
    Ok(section)
}

fn power_cuts(section: &mut Section, seed: u64, broken: Broken) {
    let mut reports = vec![sim::powercut(seed, POWER_CUTS, broken)];
    if broken == Broken::Nothing {
        reports.push(sim::faults(seed, FAULTS));
    }
    for report in reports {
        section.count("power cuts and faults", report.points);
        section.count("entries acknowledged before", report.acknowledged);
        section.count("lost", report.lost);
        section.count("logs that did not open", report.unopenable);
        for failure in report.failures.iter().take(5) {
            section.miss(format!("{failure:?}"));
        }
    }
}

/// Acts of many callers at once, and which of them were acknowledged.
struct Load {
    acknowledged: Arc<Mutex<Acknowledged>>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Load {
    fn start(node: Node) -> Self {
        let acknowledged = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let shared = (Arc::clone(&acknowledged), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let Ok(runtime) = runtime() else { return };
            runtime.block_on(async {
                let callers = (0..LOAD).map(|caller| grants(&node, caller, &shared.0, &shared.1));
                let mut all = Vec::new();
                for caller in callers {
                    all.push(Box::pin(caller));
                }
                join_all(all).await;
            });
        });
        Self { acknowledged, stop, thread }
    }

    fn end(self) -> Acknowledged {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.join();
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// What each of them gives, in the order in which they end.
pub(super) async fn join_all<F: Future + Unpin>(mut all: Vec<F>) -> Vec<F::Output> {
    let mut given = Vec::with_capacity(all.len());
    std::future::poll_fn(|context| {
        all.retain_mut(|one| match std::pin::Pin::new(one).poll(context) {
            std::task::Poll::Ready(one) => {
                given.push(one);
                false
            }
            std::task::Poll::Pending => true,
        });
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    given
}

/// Grants rights to the operator as fast as they are answered. A call that fails counts as not acknowledged.
async fn grants(node: &Node, caller: usize, acknowledged: &Mutex<Acknowledged>, stop: &AtomicBool) {
    let rights = Rights { node };
    let mut number = 0_u64;
    while !stop.load(Ordering::Acquire) {
        number += 1;
        match rights.try_grant(&format!("/load/{caller}/{number}"), READ).await {
            Ok(Ok(granted)) => {
                let mut acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                acknowledged.insert(granted.id, granted.sequence);
            }
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

fn kills(section: &mut Section, site: &Site) -> Result<()> {
    let program = site.done(&["run", "--detach", "--", "sleep", "1000"])?.trim().to_owned();
    let host_pid = running(site, &program)?.context("the program does not run")?;
    let load = Load::start(site.node()?);
    std::thread::sleep(LOAD_PAUSE);
    let mut targets: Vec<String> = site.pids()?.into_iter().map(|(name, _)| name).collect();
    targets.push("supervisor".to_owned());
    let mut kills = 0;
    for target in &targets {
        kill_one(section, site, target)?;
        kills += 1;
        let still = running(site, &program)?;
        if still != Some(host_pid) {
            section.count("programs lost", 1);
            section.miss(format!("after {target} was killed, the program is {still:?} and not {host_pid}"));
        }
        std::thread::sleep(LOAD_PAUSE);
    }
    section.count("kills", kills);
    let before_last = load.count();
    within(|| Ok(load.count() > before_last))
        .then_some(())
        .map_or_else(|| section.miss("no act was acknowledged after the last kill"), |()| ());
    let acknowledged = load.end();
    site.done(&["kill", "--signal", "kill", &program])?;
    section.count("acts acknowledged under kills", acknowledged.len() as u64);
    let lost = missing(site, acknowledged)?;
    section.count("acts lost", lost);
    section.check(lost == 0, format!("{lost} acknowledged acts are not in the log"));
    section.check(kills >= 7, "not every service was killed");
    Ok(())
}

/// Host pid of a running program.
fn running(site: &Site, program: &str) -> Result<Option<i64>> {
    let listed = wait_for(BACK_TIMEOUT, LOOK_EVERY, || site.json(&["ps"]).ok());
    let listed = listed.with_context(|| format!("no list within {} s", BACK_TIMEOUT.as_secs()))?;
    let list = listed.as_array().context("ps gives a list")?;
    let row = list.iter().find(|row| row.get("pid").and_then(Value::as_u64) == program.parse().ok());
    Ok(row.and_then(|row| row.get("host_pid")).and_then(Value::as_i64))
}

/// Kills one process of the node, waits for its successor, and compares all others.
fn kill_one(section: &mut Section, site: &Site, target: &str) -> Result<()> {
    let before: BTreeMap<String, i64> = site.pids()?.into_iter().collect();
    let supervisor = supervisor_pid(site)?;
    let victim = if target == "supervisor" { supervisor } else { before.get(target).copied().unwrap_or(0) };
    let pid =
        i32::try_from(victim).ok().and_then(Pid::from_raw).with_context(|| format!("{target} has no pid"))?;
    let since = Instant::now();
    kill_process(pid, Signal::KILL).with_context(|| format!("killing {target}, process {victim}"))?;
    let mut after = BTreeMap::new();
    let back = within(|| {
        let Ok(pids) = site.pids() else { return Ok(false) };
        after = pids.into_iter().collect();
        let replaced = match target {
            "supervisor" => supervisor_pid(site).is_ok_and(|pid| pid != supervisor && pid != 0),
            _ => after.get(target).is_some_and(|pid| *pid != victim),
        };
        Ok(replaced && site.all_running()?)
    });
    section.check(back, format!("{target} was not back within {} s", BACK_TIMEOUT.as_secs()));
    let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    section.count("ms until back, together", ms);
    for (name, pid) in &before {
        if name != target {
            section
                .check(after.get(name) == Some(pid), format!("{name} did not survive the death of {target}"));
        }
    }
    Ok(())
}

fn supervisor_pid(site: &Site) -> Result<i64> {
    site.json(&["status"])?
        .get("supervisor_pid")
        .and_then(Value::as_i64)
        .context("no supervisor in the status")
}

/// An error counts as not yet: what is asked may be what was killed.
fn within(mut is_so: impl FnMut() -> Result<bool>) -> bool {
    wait_for(BACK_TIMEOUT, LOOK_EVERY, || is_so().unwrap_or(false).then_some(())).is_some()
}

/// Acknowledged grants that are not in the log under the sequence that was told.
pub(super) fn missing(site: &Site, mut acknowledged: Acknowledged) -> Result<u64> {
    let folder = LogFolder::new(site.layout()?.log());
    let outcome = verify_log(&folder, &VerifyOptions::default(), |placed| {
        let header = &placed.record.header;
        if let Ok(Payload::CapabilityGrant(grant)) =
            Payload::decode(header.entry_type.code(), placed.record.payload)
        {
            let id = grant.body.capability_id;
            if acknowledged.get(&id) == Some(&header.sequence.0) {
                acknowledged.remove(&id);
            }
        }
    });
    match outcome {
        Err(fault) if !fault.may_be_torn_tail => Err(crate::exit::Failure::damaged(&fault).into()),
        _ => Ok(acknowledged.len() as u64),
    }
}
