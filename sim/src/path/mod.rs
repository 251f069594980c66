//! The three phases from one seed: a request is proposed, authorised, committed, and only then carried out, while
//! processes die and the power is cut between any two steps.
//!
//! Real: the sequencer's core and store, the policy engine with its signatures, the core of `keys`. Simulated: disk, clock,
//! and the bus, which loses what is under way when an end of it dies, and on which clients ask again under the same keys.

mod cast;
mod clients;
mod node;

use std::collections::{BTreeSet, VecDeque};

use base::{AxiomTime, Sequence};
use policy::core::{
    SealedUnit,
    verify::{Replay, Verification},
};

use crate::{
    disk::{Fault, SimDisk},
    random::Random,
};
use cast::Cast;
use clients::Clients;
use node::{Answer, Ask, Axiom, Logged, Policy, Recovered, Reply};

/// Steps in which something new may begin and something may break; then everything comes to rest.
const STEPS: u64 = 240;
/// Rounds until everything must have come to rest.
const REST_ROUNDS: u64 = 400;
/// Steps between two snapshots of a fold, on average.
const WRITTEN_DOWN_IN: u64 = 16;
/// Messages that one step moves.
const TOGETHER_MAX: u64 = 6;

/// A mistake made on purpose, to show that the audit finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Defect {
    #[default]
    Nothing,
    /// The log answers before its write is durable.
    EarlyAcknowledgement,
    /// The disk answers every sync and keeps what it was going to lose.
    LyingDisk,
    /// A client that asks again takes new keys.
    NewKeysWhenAskedAgain,
    /// A program is started when its start is asked for.
    EffectBeforeCommit,
    /// A signature is handed out before its use is recorded.
    ReleaseBeforeRecord,
    /// The engine does not learn what landed while its channel was broken.
    StaleEngine,
    /// No rule refuses anything.
    PermissiveEngine,
}

impl Defect {
    pub const ALL: [Self; 7] = [
        Self::EarlyAcknowledgement,
        Self::LyingDisk,
        Self::NewKeysWhenAskedAgain,
        Self::EffectBeforeCommit,
        Self::ReleaseBeforeRecord,
        Self::StaleEngine,
        Self::PermissiveEngine,
    ];
}

/// What the runs did, and what the audits found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathReport {
    pub seeds: u64,
    /// Acts whose commit was answered.
    pub acknowledged: u64,
    pub denied: u64,
    /// Programs started and signatures handed out.
    pub carried_out: u64,
    /// Deaths of processes, and power cuts among them.
    pub deaths: u64,
    pub power_cuts: u64,
    /// Starts of the log from a snapshot.
    pub from_snapshot: u64,
    /// Starts of the engine from a state that was written down.
    pub from_folds: u64,
    /// Decisions made again at their own places.
    pub decisions: u64,
    /// One line per failure, with the seed that repeats it.
    pub failures: Vec<String>,
}

impl PathReport {
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.failures.is_empty()
    }

    pub fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.acknowledged += other.acknowledged;
        self.denied += other.denied;
        self.carried_out += other.carried_out;
        self.deaths += other.deaths;
        self.power_cuts += other.power_cuts;
        self.from_snapshot += other.from_snapshot;
        self.from_folds += other.from_folds;
        self.decisions += other.decisions;
        self.failures.extend(other.failures);
    }
}

/// Runs so many seeds from `seed` on.
#[must_use]
pub fn path(seed: u64, seeds: u64, defect: Defect) -> PathReport {
    let mut report = PathReport::default();
    let Some(cast) = Cast::new() else {
        report.failures.push("the cast cannot be made".to_owned());
        return report;
    };
    for n in 0..seeds {
        report.add(Run::new(&cast, seed.wrapping_add(n), defect).go());
    }
    report
}

/// Everything of one run. What crosses a process's border lies in a queue, and is lost with either end.
struct Run<'c> {
    cast: &'c Cast,
    seed: u64,
    defect: Defect,
    random: Random,
    disk: SimDisk,
    boot_ns: u64,
    axiom: Option<Axiom>,
    policy: Option<Policy>,
    clients: Clients<'c>,
    /// What is durable, as readers see it.
    log: Vec<Logged>,
    to_policy: VecDeque<Ask>,
    to_axiom: VecDeque<SealedUnit>,
    results: VecDeque<Reply>,
    answers: VecDeque<(&'static str, u64, Answer)>,
    /// What an engine has written down of its state; whoever comes after it goes on from there.
    saved: Option<Vec<u8>>,
    /// Of its own, so that when something is written down changes nothing else.
    when: Random,
    /// Nothing breaks any more.
    rests: bool,
    report: PathReport,
}

impl<'c> Run<'c> {
    fn new(cast: &'c Cast, seed: u64, defect: Defect) -> Self {
        let disk = SimDisk::new(seed);
        if defect == Defect::LyingDisk {
            disk.lie();
        }
        Self {
            cast,
            seed,
            defect,
            random: Random::new(seed),
            disk,
            boot_ns: 1,
            axiom: None,
            policy: None,
            clients: Clients::new(cast, defect),
            log: Vec::new(),
            to_policy: VecDeque::new(),
            to_axiom: VecDeque::new(),
            results: VecDeque::new(),
            answers: VecDeque::new(),
            saved: None,
            when: Random::new(seed ^ 0xf01d),
            rests: false,
            report: PathReport { seeds: 1, ..PathReport::default() },
        }
    }

    fn go(mut self) -> PathReport {
        for _ in 0..STEPS {
            self.step();
            if !self.report.failures.is_empty() {
                return self.report;
            }
        }
        self.disk.no_plan();
        self.rests = true;
        if self.come_to_rest() {
            // What was acknowledged survives even the end.
            self.cut_power();
            self.restart();
            self.come_to_rest();
            self.audit();
        }
        self.report
    }

    fn step(&mut self) {
        self.boot_ns += 1_000_000;
        match self.random.below(100) {
            0..24 => self.begin(),
            24..42 => self.pass(),
            42..60 => self.append(),
            60..72 => self.settle(),
            72..86 => self.hear(),
            86..93 => self.feed(),
            93..96 => self.wait(),
            96 => self.plan_fault(),
            97 => self.kill(),
            _ => self.restart(),
        }
        self.after();
        self.write_down();
    }

    /// Each at moments of its own: the folds of a node stand at different entries.
    fn write_down(&mut self) {
        if self.when.below(WRITTEN_DOWN_IN) == 0 {
            self.saved = self.policy.as_ref().and_then(Policy::save).or(self.saved.take());
        }
        if self.when.below(WRITTEN_DOWN_IN) == 0 {
            self.clients.write_down(&self.log);
        }
    }

    /// What the clients found, and what they want to ask.
    fn after(&mut self) {
        if let Some(what) = self.clients.fault.take() {
            self.fail(&what);
        }
        let asked = self.clients.take_asked();
        if self.policy.is_some() {
            self.to_policy.extend(asked);
        }
    }

    fn fail(&mut self, what: &str) {
        let (seed, defect) = (self.seed, self.defect);
        self.report.failures.push(format!("{what}: `sim path --seed {seed:#x} --seeds 1`, {defect:?}"));
    }

    fn begin(&mut self) {
        self.clients.begin(&mut self.random);
    }

    fn some(&mut self, there: usize) -> usize {
        let most = 1 + self.random.below(TOGETHER_MAX);
        there.min(usize::try_from(most).unwrap_or(1))
    }

    fn now(&mut self) -> Option<AxiomTime> {
        self.axiom.as_mut().map(|axiom| axiom.now(self.boot_ns))
    }

    fn pass(&mut self) {
        let (Some(now), Some(policy)) = (self.now(), self.policy.as_mut()) else { return };
        if !policy.connected {
            policy.connect(&self.log, self.defect != Defect::StaleEngine);
            self.to_axiom.clear();
            self.results.clear();
        }
        let count = self.some(self.to_policy.len());
        let asks = self.to_policy.drain(..count).collect();
        let Some(policy) = self.policy.as_mut() else { return };
        let passed = policy.pass(asks, now);
        self.to_axiom.extend(passed.units);
        self.answers.extend(passed.answers);
    }

    fn append(&mut self) {
        let count = self.some(self.to_axiom.len());
        let units: Vec<SealedUnit> = self.to_axiom.drain(..count).collect();
        let (boot_ns, early) = (self.boot_ns, self.defect == Defect::EarlyAcknowledgement);
        let Some(axiom) = self.axiom.as_mut().filter(|_| !units.is_empty()) else { return };
        let results = &mut self.results;
        let mut tell = |replies: &[Reply]| {
            if early {
                results.extend(replies.iter().cloned());
            }
        };
        match axiom.append(units, boot_ns, &mut tell) {
            Ok((replies, landed)) => {
                self.log.extend(landed);
                if !early {
                    self.results.extend(replies);
                }
            }
            // A process that does not know what landed ends; if the power is gone, so do all.
            Err(_) if self.disk.is_dead() => self.cut_power(),
            Err(_) => self.kill_axiom(),
        }
    }

    fn settle(&mut self) {
        let count = self.some(self.results.len());
        for _ in 0..count {
            let Some(policy) = self.policy.as_mut() else { return };
            let Some((unit, reply)) = self.results.pop_front() else { return };
            match policy.settle(unit, reply) {
                Ok(answer) => self.answers.extend(answer),
                Err(what) => self.fail(&what),
            }
        }
    }

    fn hear(&mut self) {
        let count = self.some(self.answers.len());
        let now = self.now();
        for _ in 0..count {
            let Some((client, id, answer)) = self.answers.pop_front() else { return };
            match &answer {
                Answer::Committed { .. } => self.report.acknowledged += 1,
                Answer::Denied => self.report.denied += 1,
                Answer::Refused => {}
            }
            self.clients.answered(client, id, answer, now, &self.log, &mut self.random);
        }
    }

    fn feed(&mut self) {
        let now = self.now();
        let more = 1 + self.random.below(20);
        self.clients.feed(&self.log, more, now, &mut self.random);
    }

    fn wait(&mut self) {
        let ns = [10_000_000, 1_000_000_000, 4_000_000_000, 31_000_000_000];
        let at = usize::try_from(self.random.below(ns.len() as u64)).unwrap_or(0);
        self.boot_ns += ns.get(at).copied().unwrap_or(0);
        let now = self.now();
        self.clients.tick(now, &mut self.random);
    }

    fn plan_fault(&mut self) {
        let kinds = [Fault::PowerCut, Fault::Failed, Fault::FailedButHappened];
        let kind = usize::try_from(self.random.below(3)).ok().and_then(|at| kinds.get(at)).copied();
        let soon = self.random.below(6);
        self.disk.plan(soon, kind.unwrap_or(Fault::PowerCut));
    }

    fn kill(&mut self) {
        self.report.deaths += 1;
        match self.random.below(6) {
            0 => self.kill_axiom(),
            1 => self.kill_policy(),
            2 => self.clients.kill_keys(),
            3 => self.clients.kill_launcher(),
            4 => self.clients.kill_capabilities(),
            _ => self.cut_power(),
        }
    }

    /// Of what was under way on a socket that broke, a part had been read.
    fn tear<T>(random: &mut Random, queue: &mut VecDeque<T>) {
        let kept = random.below(queue.len() as u64 + 1);
        queue.truncate(usize::try_from(kept).unwrap_or(0));
    }

    fn kill_axiom(&mut self) {
        self.axiom = None;
        self.disk.restart_process();
        self.to_axiom.clear();
        // What it had answered is read before the channel's end is seen.
        Self::tear(&mut self.random, &mut self.results);
        if let Some(policy) = self.policy.as_mut() {
            policy.connected = false;
        }
    }

    fn kill_policy(&mut self) {
        self.policy = None;
        self.to_policy.clear();
        // What the log had read of it, it carries out; nobody hears the results.
        Self::tear(&mut self.random, &mut self.to_axiom);
        Self::tear(&mut self.random, &mut self.answers);
        self.append();
        self.to_axiom.clear();
        self.results.clear();
    }

    fn cut_power(&mut self) {
        self.report.power_cuts += 1;
        self.axiom = None;
        self.policy = None;
        self.clients.cut_power();
        self.disk.restart_machine();
        self.to_policy.clear();
        self.to_axiom.clear();
        self.results.clear();
        self.answers.clear();
    }

    fn restart(&mut self) {
        if self.axiom.is_none() {
            match Axiom::open(&self.disk, self.cast, self.boot_ns) {
                Ok(Recovered { axiom, log, unsound, from_snapshot }) => {
                    self.report.from_snapshot += u64::from(from_snapshot);
                    if let Some(what) = unsound {
                        self.fail(&what);
                    }
                    self.check_kept(&log);
                    (self.axiom, self.log) = (Some(axiom), log);
                }
                Err(_) if self.disk.is_dead() => return self.cut_power(),
                Err(error) if self.rests => {
                    return self.fail(&format!("the log does not open: {error}"));
                }
                // It met a fault that was planned.
                Err(_) => return self.disk.restart_process(),
            }
        }
        if self.policy.is_none() {
            let permissive = self.defect == Defect::PermissiveEngine;
            let saved = self.saved.as_deref();
            self.report.from_folds += u64::from(saved.is_some());
            self.policy = Some(Policy::start(self.cast, &self.log, saved, permissive));
            self.results.clear();
            self.to_policy.clear();
            let again = self.clients.ask_again(&mut self.random);
            self.to_policy.extend(again);
        }
        let now = self.now();
        self.clients.restart(&self.log, now, &mut self.random);
    }

    /// What readers have seen stays.
    fn check_kept(&mut self, log: &[Logged]) {
        let kept = self.log.iter().zip(log).take_while(|(old, new)| old.at == new.at).count();
        if kept < self.log.len() {
            self.fail(&format!("{} entries that were seen are gone", self.log.len() - kept));
        }
    }

    /// Everybody is answered. False if that does not happen.
    fn come_to_rest(&mut self) -> bool {
        for _ in 0..REST_ROUNDS {
            self.boot_ns += 100_000_000;
            self.restart();
            self.pass();
            self.after();
            self.append();
            self.settle();
            self.hear();
            self.feed();
            let now = self.now();
            self.clients.tick(now, &mut self.random);
            self.after();
            if !self.report.failures.is_empty() {
                return false;
            }
            let policy = self.policy.as_ref().is_some_and(|policy| policy.connected && policy.is_idle());
            let queues = self.to_policy.len() + self.to_axiom.len() + self.results.len() + self.answers.len();
            if policy && queues == 0 && self.clients.are_idle(&self.log) {
                return true;
            }
        }
        let (policy, log) =
            (self.policy.as_ref().map(|policy| (policy.connected, policy.is_idle())), self.log.len());
        let queues = (self.to_policy.len(), self.to_axiom.len(), self.results.len(), self.answers.len());
        let text = format!(
            "it does not come to rest: policy {policy:?}, queues {queues:?}, log {log}, {}",
            self.clients.rest()
        );
        self.fail(&text);
        false
    }

    fn audit(&mut self) {
        let failures = self.clients.audit(&self.log);
        failures.iter().for_each(|what| self.fail(what));
        self.report.carried_out += self.clients.carried_out();
        let mut replay = Replay::default();
        let mut keys = BTreeSet::new();
        for (next, entry) in std::mem::take(&mut self.log).into_iter().enumerate() {
            if entry.at.sequence != Sequence(next as u64) {
                self.fail("the log has a gap");
            }
            let head = entry.decode().map(|payload| payload.head());
            if head.is_some_and(|head| !keys.insert((head.submitter, head.key))) {
                self.fail(&format!("entry {next} repeats the key of another"));
            }
            match replay.step(entry.at, entry.entry_type, &entry.payload) {
                Ok(None) => {}
                Ok(Some(Verification::Verified)) => self.report.decisions += 1,
                other => self.fail(&format!("decision {next} does not re-evaluate to itself: {other:?}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: ACT-01, ACT-02, ACT-14, ACT-20
    #[test]
    fn nothing_acknowledged_is_lost_nothing_is_done_twice_and_nothing_without_its_entry() {
        let report = path(0x5eed, 300, Defect::Nothing);
        assert_eq!(report.failures, Vec::<String>::new());
        assert!(report.acknowledged > 300 * 5 && report.carried_out > 300, "{report:?}");
        assert!(report.power_cuts > 300 && report.deaths > 300 && report.denied > 30, "{report:?}");
    }

    #[test]
    fn each_defect_is_found() {
        for defect in Defect::ALL {
            let found = (0..40).map(|n| path(n * 1000, 100, defect)).find(|report| !report.is_sound());
            assert!(found.is_some(), "{defect:?} was not found in 4 000 seeds");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        assert_eq!(path(7, 3, Defect::Nothing), path(7, 3, Defect::Nothing));
    }
}
