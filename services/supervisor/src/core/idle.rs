//! When a node that was started for somebody's programs has outlived its use.
//!
//! Used means: a program runs, a service of the user runs, or something was decided. Reading is no use: it needs no node.

use std::{collections::BTreeSet, time::Duration};

use base::ProcessId;

use super::supervisor::Monotonic;

/// What happened that counts as use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    ProgramStarted(ProcessId),
    ProgramEnded(ProcessId),
    /// A decision, whatever its outcome.
    Decision,
}

#[derive(Clone, Debug)]
pub struct Idle {
    limit: Duration,
    last: Monotonic,
    programs: BTreeSet<ProcessId>,
}

impl Idle {
    #[must_use]
    pub fn new(limit: Duration, now: Monotonic) -> Self {
        Self { limit, last: now, programs: BTreeSet::new() }
    }

    pub fn used(&mut self, now: Monotonic, by: Use) {
        self.last = self.last.max(now);
        match by {
            Use::ProgramStarted(program) => {
                self.programs.insert(program);
            }
            Use::ProgramEnded(program) => {
                self.programs.remove(&program);
            }
            Use::Decision => {}
        }
    }

    /// How long there is still to wait, at least; zero when the time has come. A program or a service of the user
    /// that runs puts it off by the whole limit, counted from now.
    pub fn remaining(&mut self, now: Monotonic, service_of_user_runs: bool) -> Duration {
        if service_of_user_runs || !self.programs.is_empty() {
            self.last = self.last.max(now);
        }
        self.limit.saturating_sub(now.since(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Monotonic {
        Monotonic(seconds * 1_000_000_000)
    }

    #[test]
    fn an_unused_node_ends_after_the_limit_and_each_use_begins_it_anew() {
        let mut idle = Idle::new(LIMIT, at(0));
        assert_eq!(idle.remaining(at(599), false), Duration::from_secs(1));
        idle.used(at(599), Use::Decision);
        assert_eq!(idle.remaining(at(600), false), Duration::from_secs(599));
        assert_eq!(idle.remaining(at(1199), false), Duration::ZERO);
    }

    #[test]
    fn a_program_or_a_service_of_the_user_keeps_it_however_long_it_runs() {
        let mut idle = Idle::new(LIMIT, at(0));
        idle.used(at(1), Use::ProgramStarted(ProcessId(1)));
        idle.used(at(1), Use::ProgramStarted(ProcessId(2)));
        idle.used(at(2), Use::ProgramEnded(ProcessId(2)));
        assert_eq!(idle.remaining(at(10_000), false), LIMIT);
        idle.used(at(10_001), Use::ProgramEnded(ProcessId(1)));
        assert_eq!(idle.remaining(at(10_601), true), LIMIT);
        assert_eq!(idle.remaining(at(11_200), false), Duration::from_secs(1));
        assert_eq!(idle.remaining(at(11_201), false), Duration::ZERO);
    }

    #[test]
    fn time_that_goes_back_ends_nothing() {
        let mut idle = Idle::new(LIMIT, at(1_000));
        idle.used(at(5), Use::Decision);
        assert_eq!(idle.remaining(at(0), false), LIMIT);
    }
}
