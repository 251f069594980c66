use base::AxiomTime;

/// What the shell read from the kernel's clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// `CLOCK_REALTIME`, nanoseconds since the Unix epoch.
    pub wall_ns: u64,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_ns: u64,
}

/// Axiom time: the greater of the last entry's time and the wall clock at the start, advanced by the boot clock. A later
/// step of the wall clock changes nothing (DESIGN 7); it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    anchor: AxiomTime,
    anchor_boot_ns: u64,
    last: AxiomTime,
    /// How far the wall clock was from this one when it was told last.
    told_ns: i128,
}

/// A wall clock is also slewed, by far less than this between two looks at it.
const STEP_NS_MIN: i128 = 1_000_000_000;

impl Clock {
    #[must_use]
    pub fn start(last_entry: AxiomTime, reading: Reading) -> Self {
        let anchor = last_entry.max(AxiomTime(reading.wall_ns));
        Self { anchor, anchor_boot_ns: reading.boot_ns, last: anchor, told_ns: 0 }
    }

    /// The time at a reading; never earlier than any time told before.
    pub fn now(&mut self, reading: Reading) -> AxiomTime {
        let passed = reading.boot_ns.saturating_sub(self.anchor_boot_ns);
        self.last = self.last.max(self.anchor.saturating_add(passed));
        self.last
    }

    /// The distance of the wall clock, if it was stepped since the last look: positive if it is ahead.
    pub fn step_ns(&mut self, reading: Reading) -> Option<i128> {
        let expected = self.anchor.saturating_add(reading.boot_ns.saturating_sub(self.anchor_boot_ns));
        let drift_ns = i128::from(reading.wall_ns) - i128::from(expected.0);
        let stepped = (drift_ns - self.told_ns).abs() >= STEP_NS_MIN;
        self.told_ns = drift_ns;
        stepped.then_some(drift_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn reading(wall_ns: u64, boot_ns: u64) -> Reading {
        Reading { wall_ns, boot_ns }
    }

    /// covers: AX-06, AX-18
    #[test]
    fn time_follows_the_boot_clock_and_never_goes_back() {
        let mut clock = Clock::start(AxiomTime(500), reading(1000, 10));
        assert_eq!(clock.now(reading(1000, 10)), AxiomTime(1000));
        assert_eq!(clock.now(reading(5, 30)), AxiomTime(1020));
        assert_eq!(clock.now(reading(9000, 20)), AxiomTime(1020));
        let mut behind = Clock::start(AxiomTime(2000), reading(1000, 10));
        assert_eq!(behind.now(reading(1000, 15)), AxiomTime(2005));
        let mut end = Clock::start(AxiomTime(u64::MAX), reading(1, 0));
        assert_eq!(end.now(reading(1, u64::MAX)), AxiomTime(u64::MAX));
    }

    const SECOND_NS: u64 = 1_000_000_000;
    const YEAR_NS: u64 = 365 * 86_400 * SECOND_NS;
    const WALL: u64 = 50 * YEAR_NS;

    /// covers: AX-06
    #[test]
    fn a_wall_clock_that_is_stepped_by_a_year_is_told_once_and_moves_nothing() {
        for (to, expected) in [(WALL + YEAR_NS, 1), (WALL - YEAR_NS, -1)] {
            let mut clock = Clock::start(AxiomTime(WALL - 1), reading(WALL, 10 * SECOND_NS));
            let second = |from: u64, n| reading(from + n * SECOND_NS, (10 + n) * SECOND_NS);
            assert_eq!(
                (clock.step_ns(second(WALL, 1)), clock.now(second(WALL, 1))),
                (None, AxiomTime(WALL + SECOND_NS))
            );
            assert_eq!(clock.step_ns(second(to, 2)), Some(expected * i128::from(YEAR_NS)));
            assert_eq!(clock.now(second(to, 2)), AxiomTime(WALL + 2 * SECOND_NS));
            assert_eq!(clock.step_ns(second(to, 3)), None, "told once");
            assert_eq!(clock.step_ns(second(WALL, 4)), Some(0), "it was set right again");
            assert_eq!(clock.now(second(WALL, 4)), AxiomTime(WALL + 4 * SECOND_NS));
        }
    }

    #[test]
    fn a_step_is_a_second_and_what_is_below_is_none() {
        for (by, told) in [(SECOND_NS - 1, false), (SECOND_NS, true)] {
            let mut clock = Clock::start(AxiomTime(0), reading(WALL, 0));
            assert_eq!(clock.step_ns(reading(WALL + by, 0)).is_some(), told);
            let mut clock = Clock::start(AxiomTime(0), reading(WALL, 0));
            assert_eq!(clock.step_ns(reading(WALL - by, 0)).is_some(), told);
        }
    }

    /// covers: AX-06
    #[test]
    fn over_a_restart_time_goes_on_from_the_log_whatever_the_wall_clock_says() {
        let last_entry = AxiomTime(WALL);
        let mut behind = Clock::start(last_entry, reading(WALL - YEAR_NS, 7));
        assert_eq!(behind.now(reading(WALL - YEAR_NS, 7)), last_entry, "never back");
        assert!(behind.step_ns(reading(WALL - YEAR_NS, 7)).is_some(), "that it is behind is told");
        let mut ahead = Clock::start(last_entry, reading(WALL + YEAR_NS, 7));
        assert_eq!(ahead.now(reading(WALL, 8)), AxiomTime(WALL + YEAR_NS + 1), "an expiry comes, and stays");
        let mut again = Clock::start(ahead.now(reading(WALL, 9)), reading(WALL, 0));
        assert_eq!(again.now(reading(WALL, 0)), AxiomTime(WALL + YEAR_NS + 2));
    }
}
