//! When a service with `[timer]` is due. Pure: both clocks are arguments, and the dice are a hash.
//!
//! Each time fires once. What has been fired, or passed over, is behind `seen`; times of the calendar are looked for after
//! it. So a wall clock that is put forward over several times fires once, and one that is put back by up to
//! [`CLOCK_BACK_MAX`] fires none a second time. Put back further, it was wrong before: `seen` goes back with it.

use std::time::Duration;

use base::Hash;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

use super::supervisor::Monotonic;
use crate::manifest::TimerConfig;

/// A wall clock that is put back by more than this has shown a wrong day.
pub const CLOCK_BACK_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What both clocks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub wall: Timestamp,
    /// Since the host has booted, with the time that it slept.
    pub boot: Monotonic,
}

/// The account of one service's timer; outlives the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Of the calendar: nothing up to here fires any more. Microseconds of Unix time.
    seen_us: i64,
    /// `every` is counted from here: nanoseconds since the host's boot, negative before it.
    counted_from_ns: i64,
    boot_is_done: bool,
}

#[derive(Clone, Debug)]
pub struct Timer {
    config: TimerConfig,
    seed: Hash,
    account: Account,
}

impl Timer {
    /// `last_start` is what the log knows of an earlier life of the node; it counts for those that catch up, and for
    /// what happens once after a boot.
    #[must_use]
    pub fn new(config: &TimerConfig, seed: Hash, now: Moment, last_start: Option<Timestamp>) -> Self {
        let ago = last_start.map(|start| elapsed(start, now.wall));
        let caught_up = ago.filter(|_| config.catch_up);
        let seen = last_start.filter(|_| caught_up.is_some()).unwrap_or(now.wall).min(now.wall);
        let before_ns = |ago: Duration| nanos(now.boot).saturating_sub(duration_nanos(ago));
        let mut timer = Self {
            config: config.clone(),
            seed,
            account: Account {
                seen_us: seen.as_microsecond(),
                counted_from_ns: before_ns(caught_up.unwrap_or(Duration::ZERO)),
                boot_is_done: false,
            },
        };
        // Started after it was due in this life of the host.
        let started_ns = ago.map(before_ns);
        timer.account.boot_is_done =
            timer.boot_due_ns().is_none_or(|due| started_ns.is_some_and(|start| start >= due));
        timer
    }

    /// The one that another supervisor kept.
    #[must_use]
    pub fn again(config: &TimerConfig, seed: Hash, account: Account) -> Self {
        Self { config: config.clone(), seed, account }
    }

    #[must_use]
    pub const fn account(&self) -> Account {
        self.account
    }

    /// How long it takes until it is due: zero if it is. None if nothing will start it.
    #[must_use]
    pub fn due_in(&self, now: Moment, local: &TimeZone) -> Option<Duration> {
        let calendar = self.calendar_due(now, local).map(|due| elapsed(now.wall, due));
        let monotonic = [self.boot_due_ns().filter(|_| !self.account.boot_is_done), self.every_due_ns()];
        let left =
            |due: i64| Duration::from_nanos(u64::try_from(due.saturating_sub(nanos(now.boot))).unwrap_or(0));
        let monotonic = monotonic.into_iter().flatten().map(left);
        calendar.into_iter().chain(monotonic).min()
    }

    /// To be called before a look at what is due: a clock that was put back so far that it was wrong before is counted from
    /// where it stands, and goes on from there.
    pub fn follow_clock(&mut self, now: Moment) {
        self.account.seen_us = self.seen(now).as_microsecond();
    }

    /// It was due and was started, or ran still: whatever was due until now is done with.
    pub fn fired(&mut self, now: Moment) {
        self.account.seen_us = self.seen(now).max(now.wall).as_microsecond();
        self.account.boot_is_done |= self.boot_due_ns().is_none_or(|due| due <= nanos(now.boot));
        self.account.counted_from_ns = nanos(now.boot);
    }

    /// Somebody or something started it.
    pub fn started(&mut self, now: Moment) {
        self.account.counted_from_ns = nanos(now.boot);
    }

    fn seen(&self, now: Moment) -> Timestamp {
        let seen = Timestamp::from_microsecond(self.account.seen_us).unwrap_or(now.wall);
        if elapsed(now.wall, seen) > CLOCK_BACK_MAX { now.wall } else { seen }
    }

    fn calendar_due(&self, now: Moment, local: &TimeZone) -> Option<Timestamp> {
        let seen = self.seen(now);
        let next = self.config.calendar.iter().filter_map(|calendar| calendar.next(seen, local)).min()?;
        next.checked_add(self.delay(&next.as_second().to_le_bytes())).ok()
    }

    fn boot_due_ns(&self) -> Option<i64> {
        let due = self.config.after_boot?.saturating_add(self.delay(b"boot"));
        Some(duration_nanos(due))
    }

    /// With `after_boot`, from the first start on.
    fn every_due_ns(&self) -> Option<i64> {
        let every = self.config.every?;
        if self.config.after_boot.is_some() && !self.account.boot_is_done {
            return None;
        }
        let from = self.account.counted_from_ns;
        let due = every.saturating_add(self.delay(&from.to_le_bytes()));
        Some(from.saturating_add(duration_nanos(due)))
    }

    /// The same each time that it is asked, so that neither a look nor a restart casts the dice again.
    fn delay(&self, of: &[u8]) -> Duration {
        let [a, b, c, d, e, f, g, h, ..] = Hash::of_parts(&[&self.seed.0, of]).0;
        let most_ms = u64::try_from(self.config.random_delay.as_millis()).unwrap_or(u64::MAX);
        let dice = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        Duration::from_millis(dice.checked_rem(most_ms.saturating_add(1)).unwrap_or(0))
    }
}

/// Zero if `to` comes before `from`.
fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

fn nanos(boot: Monotonic) -> i64 {
    i64::try_from(boot.0).unwrap_or(i64::MAX)
}

fn duration_nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn config(text: &str) -> TimerConfig {
        toml::from_str(text).unwrap()
    }

    /// So many seconds after a midnight, and after the host's boot.
    fn at(wall: i64, boot: u64) -> Moment {
        Moment {
            wall: Timestamp::from_second(1_767_225_600 + wall).unwrap(),
            boot: Monotonic(boot * 1_000_000_000),
        }
    }

    fn due(timer: &Timer, now: Moment) -> Option<u64> {
        timer.due_in(now, &TimeZone::UTC).map(|duration| duration.as_secs())
    }

    fn fresh(text: &str, now: Moment) -> Timer {
        Timer::new(&config(text), Hash::ZERO, now, None)
    }

    #[test]
    fn each_time_of_the_calendar_fires_once() {
        let mut timer = fresh("calendar = [\"hourly\", \"*:30\"]", at(100, 0));
        assert_eq!(due(&timer, at(100, 0)), Some(1700));
        assert_eq!(due(&timer, at(1800, 0)), Some(0));
        timer.fired(at(1800, 0));
        assert_eq!(due(&timer, at(1800, 0)), Some(1800));
        // Put forward over many of them: one start.
        assert_eq!(due(&timer, at(36_001, 0)), Some(0));
        timer.fired(at(36_001, 0));
        assert_eq!(due(&timer, at(36_001, 0)), Some(1799));
        // Put back by an hour: those of this hour have been.
        assert_eq!(due(&timer, at(32_401, 0)), Some(5399));
        // Nor do they after another start meanwhile.
        let mut also = timer.clone();
        also.fired(at(32_401, 0));
        assert_eq!(due(&also, at(32_401, 0)), Some(5399));
        // Put back by days: it was wrong before.
        assert_eq!(due(&timer, at(-300_000, 0)), Some(1200));
        timer.follow_clock(at(-300_000, 0));
        assert_eq!(due(&timer, at(-298_800, 0)), Some(0), "it counts from there");
        timer.follow_clock(at(-298_800, 0));
        assert_eq!(due(&timer, at(-298_800, 0)), Some(0), "a look changes nothing");
        timer.fired(at(-298_800, 0));
        assert_eq!(due(&timer, at(-298_800, 0)), Some(1800));
    }

    #[test]
    fn a_time_that_was_missed_is_caught_up_with_if_that_is_wanted() {
        let of = |catch_up: bool, last: Option<i64>| {
            let text = format!("calendar = [\"daily\"]\ncatch_up = {catch_up}");
            let last = last.map(|last| at(last, 0).wall);
            due(&Timer::new(&config(&text), Hash::ZERO, at(7200, 60), last), at(7200, 60))
        };
        assert_eq!(of(true, Some(-100)), Some(0));
        assert_eq!(of(true, Some(100)), Some(22 * HOUR));
        assert_eq!(of(false, Some(-100)), Some(22 * HOUR));
        assert_eq!(of(true, None), Some(22 * HOUR), "it never ran, so it missed nothing");
        assert_eq!(of(true, Some(999_999)), Some(22 * HOUR), "a start in the future is none");
    }

    #[test]
    fn after_boot_is_once_a_boot_and_every_counts_from_the_last_start() {
        let text = "after_boot_ms = 900000\nevery_ms = 3600000";
        let mut timer = fresh(text, at(0, 100));
        assert_eq!(due(&timer, at(0, 100)), Some(800), "and not by `every` before that");
        timer.fired(at(800, 900));
        assert_eq!(due(&timer, at(800, 900)), Some(HOUR));
        timer.started(at(0, 2000));
        assert_eq!(due(&timer, at(0, 2000)), Some(HOUR));
        // The wall clock plays no part.
        assert_eq!(due(&timer, at(99_999_999, 5600)), Some(0));
        timer.fired(at(0, 5600));
        assert_eq!(due(&timer, at(0, 5600)), Some(HOUR), "it ran still: not again at once");
        let known = |last: i64| Timer::new(&config(text), Hash::ZERO, at(0, 2000), Some(at(last, 0).wall));
        assert_eq!(
            due(&known(-1000), at(0, 2000)),
            Some(HOUR),
            "started 100 s after it was due in this boot"
        );
        assert_eq!(due(&known(-1200), at(0, 2000)), Some(0), "started by somebody before it was due");
        assert_eq!(due(&known(-3000), at(0, 2000)), Some(0), "started before this boot");
    }

    #[test]
    fn every_is_counted_over_a_time_that_the_node_was_down() {
        let of = |catch_up: bool, last: i64, boot: u64| {
            let text = format!("every_ms = 3600000\ncatch_up = {catch_up}");
            let timer = Timer::new(&config(&text), Hash::ZERO, at(0, boot), Some(at(last, 0).wall));
            due(&timer, at(0, boot))
        };
        assert_eq!(of(true, -600, 9000), Some(3000));
        assert_eq!(of(true, -4000, 9000), Some(0));
        assert_eq!(of(true, -4000, 60), Some(0), "before the host's boot");
        assert_eq!(of(true, -600, 60), Some(3000));
        assert_eq!(of(false, -4000, 9000), Some(HOUR));
    }

    #[test]
    fn a_delay_is_within_its_limit_and_always_the_same() {
        let text = "calendar = [\"daily\"]\nrandom_delay_ms = 600000";
        let of = |node: u8| {
            let timer = Timer::new(&config(text), Hash([node; 32]), at(1, 0), None);
            let first = due(&timer, at(1, 0)).unwrap();
            assert_eq!(due(&timer, at(1001, 0)), Some(first - 1000), "not cast again");
            first
        };
        let all: std::collections::BTreeSet<u64> = (0..50).map(of).collect();
        let day = 24 * HOUR - 1;
        assert!(all.iter().all(|delay| (day..=day + 600).contains(delay)), "{all:?}");
        assert!(all.len() > 20, "nodes differ");
    }

    #[test]
    fn nothing_left_is_never_due() {
        assert_eq!(due(&fresh("calendar = [\"2020-01-01\"]", at(0, 0)), at(0, 0)), None);
        let mut once = fresh("after_boot_ms = 1000", at(0, 0));
        once.fired(at(0, 2));
        assert_eq!(due(&once, at(0, 2)), None);
    }
}
