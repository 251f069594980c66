//! How often something may be asked for.

use std::time::Duration;

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
}
