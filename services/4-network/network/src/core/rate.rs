//! How often something may be asked for, and how many bytes a second go through.

use std::time::{Duration, Instant};

/// A bandwidth holds over longer than this: so much may go before it is paid for. A clock that wakes a millisecond late would
/// else cost each piece of a fast connection that millisecond.
pub const BANDWIDTH_BURST: Duration = Duration::from_millis(10);

/// What a limit of bytes a second lets through in a burst.
#[must_use]
pub fn burst_bytes(limit: u64) -> usize {
    let bytes = u128::from(limit) * BANDWIDTH_BURST.as_nanos() / 1_000_000_000;
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// What is moved under a limit of bytes a second is paid for with time, afterwards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    paid_at: Option<Instant>,
}

impl Pace {
    /// When more may be moved, if not at once.
    #[must_use]
    pub fn free_at(&self, now: Instant) -> Option<Instant> {
        self.paid_at.and_then(|at| at.checked_sub(BANDWIDTH_BURST)).filter(|at| *at > now)
    }

    /// So many bytes were moved; a limit of 0 is none.
    pub fn charge(&mut self, now: Instant, bytes: usize, limit: u64) {
        if let Some(nanoseconds) = (bytes as u64).saturating_mul(1_000_000_000).checked_div(limit) {
            let from = self.paid_at.map_or(now, |at| at.max(now));
            self.paid_at = from.checked_add(Duration::from_nanos(nanoseconds));
        }
    }
}

/// So many at once, and so many a second from then on.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// For how long one fills its place.
    each: Duration,
    /// Until when the places that are taken are full, one after the other.
    full_until: Duration,
    /// How far that may lie ahead for one more to fit.
    ahead_max: Duration,
}

impl Bucket {
    #[must_use]
    pub fn new(at_once: u32, a_second: u32) -> Self {
        let each = Duration::from_secs(1) / a_second.max(1);
        Self { each, full_until: Duration::ZERO, ahead_max: each.saturating_mul(at_once.saturating_sub(1)) }
    }

    /// Whether one more fits; then it has its place. `now` counts from any moment and does not go back.
    pub fn take(&mut self, now: Duration) -> bool {
        let from = self.full_until.max(now);
        let fits = from.saturating_sub(now) <= self.ahead_max;
        if fits {
            self.full_until = from.saturating_add(self.each);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::limits::{CONNECTS_A_SECOND_MAX, CONNECTS_AT_ONCE_MAX};

    fn taken(bucket: &mut Bucket, now: Duration) -> u32 {
        let mut taken = 0;
        while bucket.take(now) {
            taken += 1;
        }
        taken
    }

    #[test]
    fn the_last_fits_and_the_next_does_not() {
        let mut bucket = Bucket::new(CONNECTS_AT_ONCE_MAX, CONNECTS_A_SECOND_MAX);
        let start = Duration::from_secs(7);
        for number in 1..=CONNECTS_AT_ONCE_MAX {
            assert!(bucket.take(start), "{number}");
        }
        assert!(!bucket.take(start));
        let second = start + Duration::from_secs(1);
        assert_eq!(taken(&mut bucket, second), CONNECTS_A_SECOND_MAX);
        assert_eq!(taken(&mut bucket, second), 0, "being refused gives no place");
        assert_eq!(taken(&mut bucket, second + Duration::from_secs(3_600)), CONNECTS_AT_ONCE_MAX);
    }

    #[test]
    fn a_bucket_of_one_holds_one() {
        let mut bucket = Bucket::new(1, 1);
        assert_eq!(taken(&mut bucket, Duration::ZERO), 1);
        assert_eq!(taken(&mut bucket, Duration::from_millis(999)), 0);
        assert_eq!(taken(&mut bucket, Duration::from_secs(1)), 1);
    }

    /// Moves pieces as fast as they may go, and wakes late each time.
    fn moved(limit: u64, piece: usize, seconds: u64, late: Duration) -> u64 {
        let start = Instant::now();
        let (mut pace, mut now, mut bytes) = (Pace::default(), start, 0);
        while now < start + Duration::from_secs(seconds) {
            match pace.free_at(now) {
                Some(at) => now = at + late,
                None => {
                    pace.charge(now, piece, limit);
                    bytes += piece as u64;
                }
            }
        }
        bytes
    }

    #[test]
    fn a_rate_holds_and_is_reached_by_who_wakes_late() {
        let millisecond = Duration::from_millis(1);
        for (limit, piece) in [(1_000_000_000, 65_536), (100_000_000, 65_536), (1_000_000, 16_384)] {
            let bytes = moved(limit, piece, 2, millisecond);
            let most = 2 * limit + limit / 100 + piece as u64;
            assert!((2 * limit * 98 / 100..=most).contains(&bytes), "{limit}: {bytes}");
        }
        assert_eq!(
            moved(1, 1, 100, Duration::ZERO),
            101,
            "the first goes at once, each other after a second"
        );
    }

    #[test]
    fn without_a_limit_nothing_is_paid() {
        let mut pace = Pace::default();
        let now = Instant::now();
        pace.charge(now, usize::MAX, 0);
        assert_eq!(pace.free_at(now), None);
        // What would take longer than time goes on stops it, and overflows nothing.
        pace.charge(now, usize::MAX, 1);
        assert!(pace.free_at(now).is_some_and(|at| at > now + Duration::from_secs(100 * 365 * 86_400)));
    }
}
