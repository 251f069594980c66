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
/// step of the wall clock changes nothing (DESIGN 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    anchor: AxiomTime,
    anchor_boot_ns: u64,
    last: AxiomTime,
}

impl Clock {
    #[must_use]
    pub fn start(last_entry: AxiomTime, reading: Reading) -> Self {
        let anchor = last_entry.max(AxiomTime(reading.wall_ns));
        Self { anchor, anchor_boot_ns: reading.boot_ns, last: anchor }
    }

    /// The time at a reading; never earlier than any time told before.
    pub fn now(&mut self, reading: Reading) -> AxiomTime {
        let passed = reading.boot_ns.saturating_sub(self.anchor_boot_ns);
        self.last = self.last.max(self.anchor.saturating_add(passed));
        self.last
    }

    /// How far the wall clock has moved away since the start, in nanoseconds; for the record only.
    #[must_use]
    pub fn wall_drift_ns(&self, reading: Reading) -> i128 {
        let expected = self.anchor.saturating_add(reading.boot_ns.saturating_sub(self.anchor_boot_ns));
        i128::from(reading.wall_ns) - i128::from(expected.0)
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
        assert_eq!(clock.wall_drift_ns(reading(1005, 30)), -15);
        let mut behind = Clock::start(AxiomTime(2000), reading(1000, 10));
        assert_eq!(behind.now(reading(1000, 15)), AxiomTime(2005));
        let mut end = Clock::start(AxiomTime(u64::MAX), reading(1, 0));
        assert_eq!(end.now(reading(1, u64::MAX)), AxiomTime(u64::MAX));
    }
}
