//! Whether a service that is late hangs, or the machine has no time for it (SUP-63). Pure: what the kernel counted, and
//! how late everybody is, are arguments.
//!
//! A process that hangs waits for nothing that the machine could give it. One that is starved stands in the queue for the
//! processor, or waits for pages or blocks: the kernel counts that time, for the process and for the machine. What is known
//! of the process itself counts before what is known of all: on a machine with much to do somebody always waits.

use std::{fmt, time::Duration};

use super::supervisor::Monotonic;

/// A process that stood still for want of something for this share of the time is starved.
pub const STARVED_PERCENT: u64 = 50;
/// The same where only the machine as a whole can be asked.
pub const STARVED_MACHINE_PERCENT: u64 = 80;
/// A deadline that was looked at later than this share of its period says more about the supervisor than about the service.
pub const OVERSLEPT_PERCENT: u32 = 50;
/// As many that are late at once, if they are half of all, have something in common, and that is the machine.
pub const CROWD_MIN: usize = 3;

/// Time that was lost waiting, in microseconds since some moment. None: nobody counts it here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    pub processor_us: Option<u64>,
    pub memory_us: Option<u64>,
    pub disk_us: Option<u64>,
}

/// What the kernel had counted at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub at: Monotonic,
    pub own: Stalls,
    pub machine: Stalls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Processor,
    Memory,
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Hangs,
    /// For this share of the time it, or the machine, waited for this.
    Starved {
        on: Resource,
        percent: u64,
    },
    /// The deadline was looked at so much too late.
    Overslept {
        ms: u64,
    },
    Crowd {
        late: usize,
        of: usize,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hangs => f.write_str("it waits for nothing that the machine lacks"),
            Self::Starved { on, percent } => {
                let on = match on {
                    Resource::Processor => "the processor",
                    Resource::Memory => "memory",
                    Resource::Disk => "the disk",
                };
                write!(f, "the machine is short of time: {percent} % of it went by waiting for {on}")
            }
            Self::Overslept { ms } => {
                write!(f, "the machine is short of time: the supervisor itself came {ms} ms late")
            }
            Self::Crowd { late, of } => {
                write!(f, "the machine is short of time: {late} of {of} watched services are late at once")
            }
        }
    }
}

/// Who is late, and how it was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// Of the deadline.
    pub period: Duration,
    /// How late it was looked at.
    pub overslept: Duration,
    pub late: usize,
    pub watched: usize,
}

/// `before` was read when it was late for the first time.
#[must_use]
pub fn judge(before: Option<&Reading>, after: &Reading, lateness: Lateness) -> Verdict {
    if lateness.overslept > lateness.period * OVERSLEPT_PERCENT / 100 {
        let ms = u64::try_from(lateness.overslept.as_millis()).unwrap_or(u64::MAX);
        return Verdict::Overslept { ms };
    }
    if let Some(starved) = before.and_then(|before| starved(before, after)) {
        return starved;
    }
    if lateness.late >= CROWD_MIN && lateness.late.saturating_mul(2) >= lateness.watched {
        return Verdict::Crowd { late: lateness.late, of: lateness.watched };
    }
    Verdict::Hangs
}

fn starved(before: &Reading, after: &Reading) -> Option<Verdict> {
    let elapsed_us = u64::try_from(after.at.since(before.at).as_micros()).ok().filter(|us| *us > 0)?;
    // Of several threads the sum may be above the time that went by.
    let share = |before: Option<u64>, after: Option<u64>| {
        Some(after?.saturating_sub(before?).saturating_mul(100) / elapsed_us).map(|percent| percent.min(100))
    };
    let of = |on: Resource, field: fn(&Stalls) -> Option<u64>| {
        let own = share(field(&before.own), field(&after.own));
        let limit = if own.is_some() { STARVED_PERCENT } else { STARVED_MACHINE_PERCENT };
        let percent = own.or_else(|| share(field(&before.machine), field(&after.machine)))?;
        (percent >= limit).then_some(Verdict::Starved { on, percent })
    };
    of(Resource::Processor, |stalls| stalls.processor_us)
        .or_else(|| of(Resource::Memory, |stalls| stalls.memory_us))
        .or_else(|| of(Resource::Disk, |stalls| stalls.disk_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(1000);

    fn stalls(processor: Option<u64>, memory: Option<u64>, disk: Option<u64>) -> Stalls {
        // Percent of a second.
        let us = |percent: Option<u64>| percent.map(|percent| percent * 10_000);
        Stalls { processor_us: us(processor), memory_us: us(memory), disk_us: us(disk) }
    }

    /// Counted within one second, from what was there before.
    fn check(
        own: Stalls,
        machine: Stalls,
        overslept_ms: u64,
        (late, watched): (usize, usize),
        expected: Verdict,
    ) {
        let zero = |stalls: Stalls| Stalls {
            processor_us: stalls.processor_us.map(|_| 0),
            memory_us: stalls.memory_us.map(|_| 0),
            disk_us: stalls.disk_us.map(|_| 0),
        };
        let before = Reading { at: Monotonic::from_ms(5_000), own: zero(own), machine: zero(machine) };
        let after = Reading { at: Monotonic::from_ms(6_000), own, machine };
        let overslept = Duration::from_millis(overslept_ms);
        let lateness = Lateness { period: PERIOD, overslept, late, watched };
        let shown = format!("{own:?} {machine:?} {overslept_ms} {late}/{watched}");
        assert_eq!(judge(Some(&before), &after, lateness), expected, "{shown}");
    }

    /// covers: SUP-63
    #[test]
    fn a_hang_is_told_from_a_machine_without_time() {
        let none = Stalls::default();
        let one = (1, 10);
        let starved = |on, percent| Verdict::Starved { on, percent };
        use Resource::{Disk, Memory, Processor};
        // What is known of itself.
        check(stalls(Some(0), Some(0), Some(0)), none, 0, one, Verdict::Hangs);
        check(stalls(Some(49), Some(49), Some(49)), none, 0, one, Verdict::Hangs);
        check(stalls(Some(50), Some(0), Some(0)), none, 0, one, starved(Processor, 50));
        check(stalls(Some(0), Some(50), Some(90)), none, 0, one, starved(Memory, 50));
        check(stalls(Some(0), Some(0), Some(50)), none, 0, one, starved(Disk, 50));
        check(stalls(Some(700), None, None), none, 0, one, starved(Processor, 100));
        // A busy machine excuses nobody who did not wait for it.
        check(
            stalls(Some(3), Some(0), Some(0)),
            stalls(Some(99), Some(99), Some(99)),
            0,
            one,
            Verdict::Hangs,
        );
        // Only the machine can be asked.
        check(none, stalls(Some(79), Some(79), Some(79)), 0, one, Verdict::Hangs);
        check(none, stalls(Some(80), None, None), 0, one, starved(Processor, 80));
        check(stalls(Some(0), None, None), stalls(Some(99), Some(85), Some(0)), 0, one, starved(Memory, 85));
        check(stalls(Some(0), None, None), stalls(Some(0), Some(0), Some(80)), 0, one, starved(Disk, 80));
        // Nothing is counted at all: how late everybody is still tells.
        check(none, none, 0, one, Verdict::Hangs);
        check(none, none, 500, one, Verdict::Hangs);
        check(none, none, 501, one, Verdict::Overslept { ms: 501 });
        check(none, none, 0, (2, 2), Verdict::Hangs);
        check(none, none, 0, (3, 6), Verdict::Crowd { late: 3, of: 6 });
        check(none, none, 0, (3, 7), Verdict::Hangs);
    }

    #[test]
    fn without_an_earlier_reading_or_time_between_two_nobody_is_starved() {
        let lateness = Lateness { period: PERIOD, overslept: Duration::ZERO, late: 1, watched: 1 };
        let all = stalls(Some(100), Some(100), Some(100));
        let reading = Reading { at: Monotonic::from_ms(1), own: all, machine: all };
        assert_eq!(judge(None, &reading, lateness), Verdict::Hangs);
        assert_eq!(judge(Some(&reading), &reading, lateness), Verdict::Hangs);
        // What counts less than before is another process: the count began anew.
        let later =
            Reading { at: Monotonic::from_ms(2), own: stalls(Some(0), Some(0), Some(0)), machine: all };
        assert_eq!(judge(Some(&reading), &later, lateness), Verdict::Hangs);
    }
}
