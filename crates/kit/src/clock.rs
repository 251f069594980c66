//! Axiom time in a service: what the feed said last, advanced by the boot clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use base::AxiomTime;

/// A service that has heard nothing for so long treats every expiry as reached (DESIGN 7).
pub const CLOCK_STALE_NS: u64 = 5_000_000_000;

/// `CLOCK_BOOTTIME` in nanoseconds: goes on through suspend, never steps.
#[must_use]
pub fn boot_time_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// How long until the boot clock reads a multiple of `period`: what is due now and then is due at the same moments in every
/// process of the host, which then sleeps in between. Never zero.
#[must_use]
pub fn until_next(period: Duration) -> Duration {
    until_multiple(boot_time_ns(), period)
}

fn until_multiple(now_ns: u64, period: Duration) -> Duration {
    let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(period_ns - now_ns % period_ns)
}

/// Names a file with a number of seconds by which the wall clock of a node is moved, for tests: to set the clock of the
/// machine is no test's to do. `up` hands it on to a node that was started with `--allow-break wall-clock`, and else to none.
pub const WALL_MOVED: &str = "BAILIWICK_WALL_MOVED";

/// Whether the wall clock of this process is moved, and may be at any time without the kernel knowing.
#[must_use]
pub fn is_wall_moved() -> bool {
    std::env::var_os(WALL_MOVED).is_some()
}

/// The wall clock. Everything of a node that asks what day it is asks here, but what compares with times of files.
#[must_use]
pub fn wall_time() -> SystemTime {
    let now = SystemTime::now();
    if !is_wall_moved() {
        return now;
    }
    let text = std::env::var_os(WALL_MOVED).and_then(|file| std::fs::read_to_string(file).ok());
    let seconds: i64 = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let by = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 { now.checked_sub(by) } else { now.checked_add(by) };
    moved.unwrap_or(now)
}

#[derive(Debug, Default)]
struct State {
    heard: AtomicBool,
    /// Axiom time less boot time, wrapping; it only grows.
    offset_ns: AtomicU64,
    /// Boot time at which the feed was heard last.
    heard_ns: AtomicU64,
}

/// Shared by all handlers of a service; two atomic reads for each look.
#[derive(Clone, Debug, Default)]
pub struct AxiomClock {
    state: Arc<State>,
}

impl AxiomClock {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The feed said: at `boot_time_ns` it was `axiom_time`.
    pub fn tell(&self, axiom_time: AxiomTime, boot_time_ns: u64) {
        self.state.offset_ns.store(axiom_time.0.wrapping_sub(boot_time_ns), Ordering::Release);
        self.state.heard_ns.fetch_max(boot_time_ns, Ordering::AcqRel);
        self.state.heard.store(true, Ordering::Release);
    }

    /// None while the feed is silent: then nothing that expires is valid.
    #[must_use]
    pub fn now(&self) -> Option<AxiomTime> {
        self.at(boot_time_ns())
    }

    /// The same at a given moment of the boot clock.
    #[must_use]
    pub fn at(&self, boot_ns: u64) -> Option<AxiomTime> {
        if !self.state.heard.load(Ordering::Acquire) {
            return None;
        }
        let silent = boot_ns.saturating_sub(self.state.heard_ns.load(Ordering::Acquire));
        (silent <= CLOCK_STALE_NS)
            .then(|| AxiomTime(boot_ns.wrapping_add(self.state.offset_ns.load(Ordering::Acquire))))
    }

    /// True from `expiry` on, and whenever nobody knows the time.
    #[must_use]
    pub fn has_expired(&self, expiry: AxiomTime) -> bool {
        self.now().is_none_or(|now| now >= expiry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_by_the_boot_clock_and_stops_when_the_feed_is_silent() {
        let clock = AxiomClock::new();
        assert_eq!(clock.at(7), None, "nothing heard yet");
        assert!(clock.has_expired(AxiomTime(u64::MAX)));
        clock.tell(AxiomTime(1_000_000), 100);
        assert_eq!(clock.at(100), Some(AxiomTime(1_000_000)));
        assert_eq!(clock.at(350), Some(AxiomTime(1_000_250)));
        assert_eq!(clock.at(100 + CLOCK_STALE_NS), Some(AxiomTime(1_000_000 + CLOCK_STALE_NS)));
        assert_eq!(clock.at(101 + CLOCK_STALE_NS), None);
        clock.tell(AxiomTime(9_000_000_000), 101 + CLOCK_STALE_NS);
        assert_eq!(clock.at(102 + CLOCK_STALE_NS), Some(AxiomTime(9_000_000_001)));
    }

    #[test]
    fn what_is_due_now_and_then_is_due_at_the_same_moments() {
        let until = |now_ns, ms| until_multiple(now_ns, Duration::from_millis(ms)).as_nanos();
        assert_eq!(until(0, 1000), 1_000_000_000);
        assert_eq!(until(1, 1000), 999_999_999);
        assert_eq!(until(1_999_999_999, 1000), 1);
        assert_eq!(until(2_000_000_000, 1000), 1_000_000_000);
        assert_eq!(until(7, 0), 1);
        assert!(until_next(Duration::from_secs(1)) <= Duration::from_secs(1));
    }

    #[test]
    fn an_expiry_is_reached_at_its_very_time() {
        let clock = AxiomClock::new();
        let boot = boot_time_ns();
        clock.tell(AxiomTime(5), boot);
        assert!(clock.has_expired(AxiomTime(5)));
        assert!(!clock.has_expired(AxiomTime(5 + 60_000_000_000)));
    }
}
