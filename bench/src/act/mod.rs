//! `act()` end to end through real processes: how many a second, and how long each takes.
//!
//! The load takes the place of one service on that service's own decision channel, which the owner of the node may
//! open: the same client (`kit::authority`), the same socket, policy and axiom as processes of their own in their
//! sandboxes, decision and entry on the disk before the answer. All services of the node follow the log meanwhile.
//! Beside it, in the same rounds: the same cores in one thread without any socket, and a bare loop that only writes and
//! syncs two such entries for each act.

mod bare;
mod cores;
mod effort;
mod load;

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};

use crate::{
    report::{Part, Row, Subject, Unit, quantile},
    site::{Folder, Site},
};
use effort::Effort;
use load::{Kind, Load, Public};

/// How many at a time, and the acts a second that two cores shall reach then.
const IN_FLIGHT: [(usize, Option<f64>); 4] =
    [(1, None), (16, Some(5_000.0)), (64, Some(40_000.0)), (1024, Some(50_000.0))];

#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    round: Duration,
}

impl Plan {
    const FULL: Self = Self { rounds: 9, round: Duration::from_millis(700) };
    const QUICK: Self = Self { rounds: 3, round: Duration::from_millis(250) };
}

/// What one round saw.
#[derive(Debug, Default)]
struct Round {
    acts: u64,
    took: Duration,
    /// Of each act.
    latencies_us: Vec<f64>,
}

/// One way to carry out acts.
trait Contestant {
    fn name(&self) -> String;
    fn is_ours(&self) -> bool;
    fn round(&mut self, in_flight: usize, time: Duration) -> Result<Round>;
}

/// Of one contestant at one number in flight.
#[derive(Default)]
struct Samples {
    per_second: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    cpu_us: Vec<f64>,
    effort: Effort,
    acts: u64,
}

impl Samples {
    fn take(&mut self, mut round: Round, effort: Effort) {
        self.cpu_us.push(effort.total_us() / round.acts as f64);
        self.effort.add(effort);
        self.acts += round.acts;
        self.per_second.push(round.acts as f64 / round.took.as_secs_f64());
        round.latencies_us.sort_by(f64::total_cmp);
        self.p50_us.push(quantile(&round.latencies_us, 0.5));
        self.p99_us.push(quantile(&round.latencies_us, 0.99));
    }
}

pub(crate) fn run(parent: &Path, quick: bool, only: &str) -> Result<Part> {
    let plan = if quick { Plan::QUICK } else { Plan::FULL };
    let folder = Folder::new(parent, "act")?;
    let mut site = Site::started(folder.path().join("node"))?;
    let part = measured(folder.path(), &site, plan, only);
    site.down()?;
    part
}

fn measured(folder: &Path, site: &Site, plan: Plan, only: &str) -> Result<Part> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    let operator = site.operator()?;
    let mut all: Vec<Box<dyn Contestant + '_>> = vec![
        Box::new(Load::new(&runtime, &operator, Kind::KeyUse)?),
        Box::new(Load::new(&runtime, &operator, Kind::Grant)?),
        Box::new(Public::new(&runtime, &operator)?),
        Box::new(cores::Cores::new(&folder.join("cores"), &operator)?),
        Box::new(bare::Bare::new(&folder.join("bare"))?),
    ];
    all.retain(|contestant| contestant.name().contains(only));
    let keeper = runtime.block_on(operator.node_pids())?[0];
    let pids = Effort::processes(keeper);
    let mut part = Part::new("act");
    for (in_flight, goal) in IN_FLIGHT {
        let mut samples: Vec<Samples> = all.iter().map(|_| Samples::default()).collect();
        for round in 0..=plan.rounds {
            for (contestant, samples) in all.iter_mut().zip(&mut samples) {
                let before = Effort::of_all(&pids);
                let found = contestant.round(in_flight, plan.round);
                let effort = Effort::of_all(&pids).since(&before);
                let found =
                    found.with_context(|| format!("{} with {in_flight} in flight", contestant.name()))?;
                // The first round warms up.
                if round > 0 {
                    samples.take(found, effort);
                }
            }
        }
        let mut row = |what: &str, unit, values: fn(&mut Samples) -> &mut Vec<f64>| {
            let subjects = all.iter().zip(&mut samples).map(|(one, samples)| match one.is_ours() {
                true => Subject::ours(one.name(), values(samples)),
                false => Subject::peer(one.name(), values(samples)),
            });
            Row::new(format!("{what}, {in_flight} in flight"), unit, subjects.collect())
        };
        let rate = row("acts", Unit::PerSecond, |samples| &mut samples.per_second);
        part.rows.push(match goal {
            Some(goal) => rate.goal(goal),
            None => rate,
        });
        part.rows.push(row("act, half of them within", Unit::Microseconds, |samples| &mut samples.p50_us));
        part.rows.push(row("act, 99 % within", Unit::Microseconds, |samples| &mut samples.p99_us));
        part.rows.push(row("processor time of an act", Unit::Microseconds, |samples| &mut samples.cpu_us));
        for (contestant, samples) in all.iter().zip(&samples) {
            part.note(format!(
                "processor time of an act, µs, {in_flight} in flight, {}: {}",
                contestant.name(),
                samples.effort.each(samples.acts)
            ));
        }
    }
    part.note(
        "an act is a decision and its entry, both on the disk before the answer; receipts are not counted",
    );
    part.note("the load is one process on the decision channel of the service named, with that service's own client; policy and axiom are sandboxed processes");
    Ok(part)
}
