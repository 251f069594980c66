//! When a failed service starts again (seed 003 §7.2).

use std::{collections::VecDeque, time::Duration};

use chain::payload::service::ServiceType;
use serde::{Deserialize, Serialize};

use super::supervisor::Monotonic;
use crate::manifest::{RestartMode, RestartTable, TriggerLimit};

/// SUP-65.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestartPolicy {
    pub max_restarts: u32,
    pub window: Duration,
    pub delay: Duration,
    pub backoff: f32,
    pub max_delay: Duration,
    pub on_exhausted: ExhaustedAction,
}

/// SUP-68.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExhaustedAction {
    /// Leave it stopped.
    Stop,
    /// Bring the whole system down.
    Panic,
    /// Go on, as fast as the window allows.
    RetryForever,
}

/// First delay and ceiling (SUP-90).
const DELAY: Duration = Duration::from_millis(500);
const DELAY_MAX: Duration = Duration::from_millis(30_000);

impl RestartPolicy {
    /// SUP-86 to SUP-89.
    #[must_use]
    pub const fn of_type(service_type: ServiceType) -> Self {
        let (max_restarts, window_s, backoff, on_exhausted) = match service_type {
            ServiceType::Core => (3, 60, 2.0, ExhaustedAction::Panic),
            ServiceType::System => (5, 120, 1.5, ExhaustedAction::Stop),
            ServiceType::User => (10, 300, 1.5, ExhaustedAction::Stop),
            ServiceType::Driver => (5, 60, 2.0, ExhaustedAction::Stop),
        };
        Self {
            max_restarts,
            window: Duration::from_secs(window_s),
            delay: DELAY,
            backoff,
            max_delay: DELAY_MAX,
            on_exhausted,
        }
    }

    /// The type's policy with what the manifest says instead.
    #[must_use]
    pub fn new(service_type: ServiceType, table: Option<&RestartTable>) -> Self {
        let default = Self::of_type(service_type);
        let Some(table) = table else { return default };
        Self {
            max_restarts: table.max_restarts.unwrap_or(default.max_restarts),
            window: table.window.unwrap_or(default.window),
            delay: table.delay.unwrap_or(default.delay),
            backoff: table.backoff.unwrap_or(default.backoff),
            max_delay: table.max_delay.unwrap_or(default.max_delay),
            on_exhausted: table.on_exhausted.unwrap_or(default.on_exhausted),
        }
    }

    /// The wait before restart `n`, counted from 0 (SUP-67); from the previous start, so that a service that ran longer
    /// restarts at once.
    #[must_use]
    pub fn delay(&self, n: u32) -> Duration {
        let ceiling = self.max_delay.as_secs_f64();
        let factor = f64::from(self.backoff).powi(i32::try_from(n).unwrap_or(i32::MAX));
        let wait = self.delay.as_secs_f64() * factor;
        // Not a number (0 times infinity) and beyond the ceiling both end at the ceiling.
        if wait < ceiling { Duration::from_secs_f64(wait) } else { self.max_delay }
    }
}

/// A service restarts after any end unless its manifest says otherwise; a program of the user that ended well is done.
#[must_use]
pub fn mode(service_type: ServiceType, table: Option<&RestartTable>) -> RestartMode {
    match (table.and_then(|table| table.mode), service_type) {
        (Some(mode), _) => mode,
        (None, ServiceType::User) => RestartMode::OnFailure,
        (None, _) => RestartMode::Always,
    }
}

/// What comes next for a failed service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    RestartAt(Monotonic),
    GiveUp,
    Panic,
}

/// Starts by connections that still count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TriggerLedger {
    /// Oldest first; at most the burst of them.
    recent: VecDeque<Monotonic>,
}

impl TriggerLedger {
    /// Counts one more, unless that is one too many.
    pub fn admit(&mut self, limit: &TriggerLimit, now: Monotonic) -> bool {
        if limit.is_off() {
            return true;
        }
        while self.recent.pop_front_if(|at| now.since(*at) >= limit.interval).is_some() {}
        if self.recent.len() >= usize::try_from(limit.burst).unwrap_or(usize::MAX) {
            return false;
        }
        self.recent.push_back(now);
        true
    }
}

/// The automatic restarts that still count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartLedger {
    /// Times of the restarts inside the window, oldest first; at most `max_restarts` of them.
    recent: VecDeque<Monotonic>,
}

impl RestartLedger {
    /// `previous_start` is when the instance that failed was started.
    pub fn verdict(&mut self, policy: &RestartPolicy, previous_start: Monotonic, now: Monotonic) -> Verdict {
        self.forget(policy, now);
        let n = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        let due = previous_start.after(policy.delay(n)).max(now);
        if n < policy.max_restarts {
            return Verdict::RestartAt(due);
        }
        match (policy.on_exhausted, self.recent.front()) {
            // The budget of the window holds even for those who never give up.
            (ExhaustedAction::RetryForever, Some(oldest)) => {
                Verdict::RestartAt(due.max(oldest.after(policy.window)))
            }
            (ExhaustedAction::Panic, _) => Verdict::Panic,
            (ExhaustedAction::Stop | ExhaustedAction::RetryForever, _) => Verdict::GiveUp,
        }
    }

    /// Counts a restart that happens now.
    pub fn count(&mut self, policy: &RestartPolicy, now: Monotonic) {
        self.forget(policy, now);
        self.recent.push_back(now);
    }

    /// A start that somebody asked for begins a new account.
    pub fn clear(&mut self) {
        self.recent.clear();
    }

    /// A restart `window` ago no longer counts.
    fn forget(&mut self, policy: &RestartPolicy, now: Monotonic) {
        while self.recent.front().is_some_and(|time| time.after(policy.window) <= now) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RestartPolicy {
        RestartPolicy::of_type(ServiceType::System)
    }

    fn at_ms(ms: u64) -> Monotonic {
        Monotonic::from_ms(ms)
    }

    #[track_caller]
    fn default(kind: ServiceType, max: u32, window_s: u64, backoff: f32, action: ExhaustedAction) {
        let policy = RestartPolicy::new(kind, None);
        assert_eq!((policy.max_restarts, policy.window.as_secs()), (max, window_s));
        assert_eq!((policy.backoff, policy.on_exhausted), (backoff, action));
        assert_eq!((policy.delay.as_millis(), policy.max_delay.as_millis()), (500, 30_000));
    }

    /// covers: SUP-86, SUP-87, SUP-88, SUP-89, SUP-90
    #[test]
    fn each_type_has_its_default() {
        default(ServiceType::Core, 3, 60, 2.0, ExhaustedAction::Panic);
        default(ServiceType::System, 5, 120, 1.5, ExhaustedAction::Stop);
        default(ServiceType::User, 10, 300, 1.5, ExhaustedAction::Stop);
        default(ServiceType::Driver, 5, 60, 2.0, ExhaustedAction::Stop);
    }

    /// covers: SUP-67
    #[test]
    fn the_delay_grows_to_its_ceiling() {
        let policy = RestartPolicy { backoff: 2.0, ..policy() };
        let ms: Vec<u128> = (0..8).map(|n| policy.delay(n).as_millis()).collect();
        assert_eq!(ms, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(policy.delay(u32::MAX), policy.max_delay);
        let none = RestartPolicy { delay: Duration::ZERO, ..policy };
        assert_eq!(none.delay(3), Duration::ZERO);
        let low_ceiling = RestartPolicy { max_delay: Duration::from_millis(100), ..policy };
        assert_eq!(low_ceiling.delay(0).as_millis(), 100);
    }

    /// covers: SUP-65, SUP-66
    #[test]
    fn a_window_holds_no_more_restarts_than_allowed() {
        let policy = RestartPolicy { max_restarts: 2, window: Duration::from_secs(10), ..policy() };
        let mut ledger = RestartLedger::default();
        ledger.count(&policy, at_ms(0));
        ledger.count(&policy, at_ms(5000));
        assert_eq!(ledger.verdict(&policy, at_ms(5000), at_ms(9999)), Verdict::GiveUp);
        // The first has left the window; the second still counts for the delay.
        let verdict = ledger.verdict(&policy, at_ms(5000), at_ms(10_000));
        assert_eq!(verdict, Verdict::RestartAt(at_ms(10_000)));
    }

    /// covers: SUP-68
    #[test]
    fn exhaustion_has_three_ends() {
        let end = |on_exhausted| {
            let policy =
                RestartPolicy { max_restarts: 1, window: Duration::from_secs(10), on_exhausted, ..policy() };
            let mut ledger = RestartLedger::default();
            ledger.count(&policy, at_ms(1000));
            ledger.verdict(&policy, at_ms(1000), at_ms(2000))
        };
        assert_eq!(end(ExhaustedAction::Stop), Verdict::GiveUp);
        assert_eq!(end(ExhaustedAction::Panic), Verdict::Panic);
        assert_eq!(end(ExhaustedAction::RetryForever), Verdict::RestartAt(at_ms(11_000)));
    }

    #[test]
    fn the_delay_counts_from_the_previous_start() {
        let mut ledger = RestartLedger::default();
        assert_eq!(ledger.verdict(&policy(), at_ms(0), at_ms(100)), Verdict::RestartAt(at_ms(500)));
        assert_eq!(ledger.verdict(&policy(), at_ms(0), at_ms(700)), Verdict::RestartAt(at_ms(700)));
        ledger.count(&policy(), at_ms(700));
        assert_eq!(ledger.verdict(&policy(), at_ms(700), at_ms(800)), Verdict::RestartAt(at_ms(1450)));
    }

    /// covers: SUP-103
    #[test]
    fn the_mode_is_the_manifests_or_the_types() {
        let table = |mode| RestartTable { mode: Some(mode), ..RestartTable::default() };
        for wanted in [RestartMode::Never, RestartMode::OnFailure, RestartMode::Always] {
            assert_eq!(mode(ServiceType::Core, Some(&table(wanted))), wanted);
        }
        assert_eq!(mode(ServiceType::Driver, None), RestartMode::Always);
        assert_eq!(mode(ServiceType::User, Some(&RestartTable::default())), RestartMode::OnFailure);
    }
}
