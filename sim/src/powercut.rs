//! Power cuts and failing writes at every step of a run, and an audit after each.

use axiom::store::DiskLog;
use base::AxiomRef;
use chain::{VerifyOptions, verify_log};

use crate::{
    broken::Broken,
    disk::{Fault, SimDisk},
    random::Random,
    workload::{Known, Node},
};

/// Groups that a run appends before and after the fault.
const GROUPS: u64 = 24;

/// What the audits found. Sound: `lost`, `unopenable`, `half_groups` and `went_on` are all zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Faults that were tried, each followed by a recovery and an audit.
    pub points: u64,
    /// Entries that had been acknowledged before the faults, over all points.
    pub acknowledged: u64,
    /// Acknowledged entries that were missing or changed afterwards.
    pub lost: u64,
    /// Logs that did not open again, or did not verify.
    pub unopenable: u64,
    /// Logs that ended inside a group.
    pub half_groups: u64,
    /// Stores that wrote on after an uncertain write.
    pub went_on: u64,
    /// One line per failure, with what repeats it.
    pub failures: Vec<String>,
}

impl Report {
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.failures.is_empty()
    }

    fn add(&mut self, other: Self) {
        self.points = self.points.saturating_add(other.points);
        self.acknowledged = self.acknowledged.saturating_add(other.acknowledged);
        self.lost = self.lost.saturating_add(other.lost);
        self.unopenable = self.unopenable.saturating_add(other.unopenable);
        self.half_groups = self.half_groups.saturating_add(other.half_groups);
        self.went_on = self.went_on.saturating_add(other.went_on);
        self.failures.extend(other.failures);
    }
}

/// Cuts the power at `points` steps, in turn at every write, sync, creation and renaming of a run from first boot on,
/// and once more during each recovery.
#[must_use]
pub fn powercut(seed: u64, points: u64, broken: Broken) -> Report {
    run_all(seed, points, &[Fault::PowerCut], broken)
}

/// Lets writes, syncs and renamings fail, without and with having happened, each followed by a restart of the process
/// and then by a power cut.
#[must_use]
pub fn faults(seed: u64, points: u64) -> Report {
    run_all(seed, points, &[Fault::Failed, Fault::FailedButHappened], Broken::Nothing)
}

/// Repeats one point, as a failure names it.
#[must_use]
pub fn replay(seed: u64, step: u64, fault: Fault) -> Report {
    Run::new(seed, step, fault, Broken::Nothing).go()
}

fn run_all(seed: u64, points: u64, kinds: &[Fault], broken: Broken) -> Report {
    let mut report = Report::default();
    let steps = steps_of_a_run(seed).max(1);
    let mut seeds = Random::new(seed);
    let mut run_seed = seed;
    for point in 0..points {
        let step = point.checked_rem(steps).unwrap_or(0);
        if step == 0 {
            run_seed = seeds.number();
        }
        let kind = kinds.get(seeds.below(kinds.len() as u64) as usize).copied().unwrap_or(Fault::PowerCut);
        report.add(Run::new(run_seed, step, kind, broken).go());
    }
    report
}

/// How many steps a run without a fault has.
fn steps_of_a_run(seed: u64) -> u64 {
    let mut run = Run::new(seed, u64::MAX, Fault::PowerCut, Broken::Nothing);
    run.live();
    run.disk.steps()
}

/// One life, one fault, one audit. Log and head are on the same simulated machine.
struct Run {
    seed: u64,
    step: u64,
    fault: Fault,
    broken: Broken,
    disk: SimDisk,
    random: Random,
    known: Known,
    report: Report,
}

impl Run {
    fn new(seed: u64, step: u64, fault: Fault, broken: Broken) -> Self {
        let disk = SimDisk::new(seed ^ step.rotate_left(32));
        if broken == Broken::Fsync {
            disk.lie();
        }
        let random = Random::new(seed);
        Self { seed, step, fault, broken, disk, random, known: Known::default(), report: Report::default() }
    }

    fn go(mut self) -> Report {
        self.report.points = 1;
        self.live();
        self.report.acknowledged = self.known.acknowledged.len() as u64;
        if self.fault == Fault::PowerCut {
            self.disk.restart_machine();
        } else {
            self.disk.restart_process();
            self.audit("after a restart of the process");
            self.disk.restart_machine();
        }
        self.audit("after the fault");
        // The power fails again while the log is being recovered, and then while it works on.
        let during = self.random.below(12);
        self.disk.plan(during, Fault::PowerCut);
        self.live_on();
        self.disk.restart_machine();
        self.audit("after a second cut");
        self.report
    }

    fn live(&mut self) {
        self.disk.plan(self.step, self.fault);
        self.live_on();
    }

    /// Opens and works until something fails or the work is done.
    fn live_on(&mut self) {
        let mut known = self.known.clone();
        let Ok(mut node) = Node::open(&self.disk, &self.disk, &mut known, self.broken) else { return };
        self.known = known;
        let result = node.work(&mut self.random, GROUPS, &mut self.known);
        if result.is_err() && node.wrote_on(&mut self.random) {
            self.report.went_on = self.report.went_on.saturating_add(1);
            self.fail("a store wrote on after an uncertain write");
        }
    }

    /// Opens the log and compares it with what is known outside.
    fn audit(&mut self, when: &str) {
        let mut found = Known::default();
        if let Err(error) = Node::open(&self.disk, &self.disk, &mut found, self.broken) {
            self.report.unopenable = self.report.unopenable.saturating_add(1);
            return self.fail(&format!("{when} the log does not open: {error}"));
        }
        let missing =
            self.known.acknowledged.iter().filter(|entry| !holds(&found.acknowledged, entry)).count();
        if missing > 0 {
            self.report.lost = self.report.lost.saturating_add(missing as u64);
            self.fail(&format!("{when} {missing} acknowledged entries are lost"));
        }
        let last = found.acknowledged.last().copied();
        let ends = self.known.group_ends.iter().chain(&found.group_ends).any(|end| Some(*end) == last);
        if !ends {
            self.report.half_groups = self.report.half_groups.saturating_add(1);
            self.fail(&format!("{when} the log ends inside a group"));
        }
        let options = VerifyOptions { head: last, ..VerifyOptions::default() };
        if let Err(fault) = verify_log(&DiskLog(&self.disk), &options, |_| {}) {
            self.report.unopenable = self.report.unopenable.saturating_add(1);
            self.fail(&format!("{when} the log does not verify: {fault}"));
        }
        self.known.acknowledged = found.acknowledged;
        self.known.group_ends.extend(found.group_ends);
        self.disk.restart_process();
    }

    fn fail(&mut self, what: &str) {
        let (seed, step, fault) = (self.seed, self.step, self.fault);
        self.report
            .failures
            .push(format!("{what}: cargo xtask sim --seed {seed:#x} --steps {step} --fault {fault:?}"));
    }
}

fn holds(found: &[AxiomRef], entry: &AxiomRef) -> bool {
    usize::try_from(entry.sequence.0).ok().and_then(|at| found.get(at)) == Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: AX-47, AX-48
    #[test]
    fn no_power_cut_loses_an_acknowledged_entry_or_shows_half_a_group() {
        let report = powercut(0x5eed, 600, Broken::Nothing);
        assert_eq!(report.failures, Vec::<String>::new());
        assert_eq!((report.points, report.lost, report.unopenable, report.half_groups), (600, 0, 0, 0));
        assert!(report.acknowledged > 600 * 10, "{report:?}");
    }

    #[test]
    fn a_failed_write_or_sync_stops_the_store_and_loses_nothing() {
        let report = faults(0xfa11, 600);
        assert_eq!(report.failures, Vec::<String>::new());
        assert_eq!((report.points, report.went_on), (600, 0));
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let run = |seed| powercut(seed, 40, Broken::Nothing);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1).acknowledged, run(2).acknowledged);
    }

    #[test]
    fn the_audits_notice_a_lying_disk_and_an_early_acknowledgement() {
        let lying = powercut(1, 150, Broken::Fsync);
        assert!(lying.lost + lying.unopenable > 20 && !lying.is_sound(), "{lying:?}");
        let early = powercut(1, 150, Broken::Ack);
        assert!(early.lost > 20 && !early.is_sound(), "{early:?}");
    }
}
