//! From single checks to a verdict (seed 003 §7.3, SUP open points 8 and 9).

use serde::{Deserialize, Serialize};

/// What one more check says about a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthVerdict {
    Unchanged,
    /// The first failure after good checks.
    Warning,
    /// Enough good checks after a warning.
    Recovered,
    /// `failure_threshold` failures in a row.
    Fatal,
}

/// Counts checks of one instance. Both running and degraded services are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCounter {
    failures_in_row: u32,
    successes_in_row: u32,
    warned: bool,
}

impl HealthCounter {
    pub fn failure(&mut self, failure_threshold: u32) -> HealthVerdict {
        self.successes_in_row = 0;
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        if self.failures_in_row >= failure_threshold {
            return HealthVerdict::Fatal;
        }
        match std::mem::replace(&mut self.warned, true) {
            false => HealthVerdict::Warning,
            true => HealthVerdict::Unchanged,
        }
    }

    /// It answers and says that it does not work in full: no failure, nor a good check.
    pub const fn degraded(&mut self) -> HealthVerdict {
        self.failures_in_row = 0;
        self.successes_in_row = 0;
        match std::mem::replace(&mut self.warned, true) {
            false => HealthVerdict::Warning,
            true => HealthVerdict::Unchanged,
        }
    }

    pub fn success(&mut self, success_threshold: u32) -> HealthVerdict {
        self.failures_in_row = 0;
        self.successes_in_row = self.successes_in_row.saturating_add(1);
        if self.warned && self.successes_in_row >= success_threshold {
            self.warned = false;
            return HealthVerdict::Recovered;
        }
        HealthVerdict::Unchanged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HealthVerdict::{Fatal, Recovered, Unchanged, Warning};

    /// `-` is a failed check, `+` a good one, `~` one that says degraded.
    #[track_caller]
    fn check(failures: u32, successes: u32, checks: &str, expected: &[HealthVerdict]) {
        let mut counter = HealthCounter::default();
        let got: Vec<HealthVerdict> = checks
            .chars()
            .map(|c| match c {
                '-' => counter.failure(failures),
                '~' => counter.degraded(),
                _ => counter.success(successes),
            })
            .collect();
        assert_eq!(got, expected, "{checks}");
    }

    /// covers: SUP-71, SUP-84
    #[test]
    fn the_first_failure_warns_the_threshold_is_fatal_and_good_checks_recover() {
        check(3, 2, "+---", &[Unchanged, Warning, Unchanged, Fatal]);
        check(3, 2, "--++", &[Warning, Unchanged, Unchanged, Recovered]);
        check(3, 2, "--+--+-", &[Warning, Unchanged, Unchanged, Unchanged, Unchanged, Unchanged, Unchanged]);
        check(1, 1, "-", &[Fatal]);
        check(2, 1, "-+-", &[Warning, Recovered, Warning]);
    }

    #[test]
    fn who_is_degraded_is_warned_about_once_and_never_given_up() {
        check(2, 1, "~~~+", &[Warning, Unchanged, Unchanged, Recovered]);
        check(2, 1, "-~-+", &[Warning, Unchanged, Unchanged, Recovered]);
        check(3, 2, "~+~++", &[Warning, Unchanged, Unchanged, Unchanged, Recovered]);
    }
}
