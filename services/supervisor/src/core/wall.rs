//! Whether the wall clock was stepped (DESIGN 7): it is on record, and changes nothing. Pure: both clocks are arguments.

use serde::{Deserialize, Serialize};

/// What the kernel's clocks showed at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// `CLOCK_REALTIME`, nanoseconds since the Unix epoch.
    pub wall_ns: u64,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_ns: u64,
}

/// A wall clock is also slewed, by far less than this between two looks at it.
pub const STEP_NS_MIN: i128 = 1_000_000_000;
/// Steps are recorded this far apart at least, by the clock that nobody sets; what comes in between is one with the next.
pub const INTERVAL_NS: u64 = 10 * 1_000_000_000;

/// A step that is to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub by_ns: i64,
    pub wall_ns: u64,
}

/// Goes from one supervisor to the next, so that a step in between is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wall {
    /// How far it was from the boot clock at the last look.
    seen_ns: Option<i64>,
    /// Of steps that were not recorded yet.
    pending_ns: i64,
    last_boot_ns: Option<u64>,
}

impl Wall {
    /// To be called whenever something happens.
    pub fn look(&mut self, reading: Reading) -> Option<Step> {
        let Reading { wall_ns, boot_ns } = reading;
        let distance_ns = i128::from(wall_ns) - i128::from(boot_ns);
        let by_ns = self.seen_ns.map_or(0, |seen| distance_ns - i128::from(seen));
        // What is slewed is followed, so that it never adds up to a step.
        self.seen_ns = Some(narrow(distance_ns));
        if by_ns.abs() >= STEP_NS_MIN {
            self.pending_ns = self.pending_ns.saturating_add(narrow(by_ns));
        }
        let waits = self.last_boot_ns.is_some_and(|last| boot_ns.saturating_sub(last) < INTERVAL_NS);
        if self.pending_ns == 0 || waits {
            return None;
        }
        self.last_boot_ns = Some(boot_ns);
        Some(Step { by_ns: std::mem::take(&mut self.pending_ns), wall_ns })
    }

    /// False before the first look.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.seen_ns.is_some()
    }

    /// How long until steps that wait can be recorded.
    #[must_use]
    pub fn due_in_ns(&self, boot_ns: u64) -> Option<u64> {
        let last = self.last_boot_ns.filter(|_| self.pending_ns != 0)?;
        Some(last.saturating_add(INTERVAL_NS).saturating_sub(boot_ns))
    }
}

fn narrow(ns: i128) -> i64 {
    i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn at(wall_s: u64, boot_s: u64) -> Reading {
        Reading { wall_ns: wall_s * S, boot_ns: boot_s * S }
    }

    #[test]
    fn a_step_is_told_once_with_its_size_and_time_that_passes_is_none() {
        let mut wall = Wall::default();
        assert_eq!(wall.look(at(1000, 10)), None, "the first look");
        assert_eq!(wall.look(at(1500, 510)), None, "time has passed, or the machine slept");
        assert_eq!(wall.look(at(1600, 511)), Some(Step { by_ns: 99 * S as i64, wall_ns: 1600 * S }));
        assert_eq!(wall.look(at(1601, 512)), None);
        assert_eq!(wall.look(at(1520, 531)), Some(Step { by_ns: -100 * S as i64, wall_ns: 1520 * S }));
    }

    #[test]
    fn a_clock_is_slewed_below_the_limit_and_set_at_it() {
        let mut wall = Wall::default();
        wall.look(at(1000, 10));
        let mut reading = at(1001, 11);
        for _ in 0..10 {
            reading.wall_ns += S - 1;
            assert_eq!(wall.look(reading), None);
        }
        reading.wall_ns += S;
        assert_eq!(wall.look(reading), Some(Step { by_ns: S as i64, wall_ns: reading.wall_ns }));
    }

    #[test]
    fn a_clock_that_is_set_again_and_again_does_not_fill_the_log() {
        let mut wall = Wall::default();
        wall.look(at(1000, 10));
        assert!(wall.look(at(2000, 10)).is_some());
        assert_eq!((wall.look(at(3000, 11)), wall.look(at(5000, 12))), (None, None));
        assert_eq!(wall.due_in_ns(12 * S), Some(8 * S));
        // What went forth and back is nothing, and what is left is one step.
        assert_eq!(wall.look(at(5007, 19)), None);
        assert_eq!(wall.look(at(5008, 20)), Some(Step { by_ns: 2998 * S as i64, wall_ns: 5008 * S }));
        assert_eq!(wall.due_in_ns(20 * S), None);
    }

    #[test]
    fn a_step_while_no_supervisor_looked_is_noticed_by_the_next() {
        let mut wall = Wall::default();
        wall.look(at(1000, 10));
        let kept = serde_json::to_string(&wall).unwrap();
        let mut next: Wall = serde_json::from_str(&kept).unwrap();
        assert_eq!(next.look(at(900, 20)).map(|step| step.by_ns), Some(-110 * S as i64));
    }
}
