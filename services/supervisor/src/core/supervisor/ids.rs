use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// Nanoseconds of a clock that never goes back and goes on while the supervisor is dead; only the shell reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Monotonic(pub u64);

const SECOND_NS: u64 = 1_000_000_000;

impl Monotonic {
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// When whatever is done each `period` is done next: periods of whole seconds end at whole seconds, so that checks of
    /// many services make one wake-up. Never later than a period from now.
    #[must_use]
    pub fn next_after(self, period: Duration) -> Self {
        let next = self.after(period);
        match period.subsec_nanos() {
            0 if !period.is_zero() => Self(next.0 - next.0 % SECOND_NS),
            _ => next,
        }
    }

    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// One start of one service; never used again in a node's life.
    LaunchId
);
number!(
    /// A call that somebody waits for; the shell chooses it.
    RequestId
);
number!(
    /// Whoever listens to events; the shell chooses it.
    SubscriberId
);
number!(
    /// A question to the Policy Engine.
    ActId
);
number!(
    /// A lifecycle message or a probe that awaits its answer.
    CallId
);
number!(
    /// An entry that awaits its place in the log.
    RecordId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_of_whole_seconds_end_at_whole_seconds_and_are_never_longer() {
        let next = |now, ms| Monotonic(now).next_after(Duration::from_millis(ms)).0;
        assert_eq!(next(0, 1000), 1_000_000_000);
        assert_eq!(next(1, 1000), 1_000_000_000);
        assert_eq!(next(999_999_999, 1000), 1_000_000_000);
        assert_eq!(next(1_000_000_000, 1000), 2_000_000_000);
        assert_eq!(next(1_700_000_000, 5000), 6_000_000_000);
        assert_eq!(next(1_700_000_000, 250), 1_950_000_000, "shorter ones stay where they fell");
        assert_eq!(next(5, 0), 5);
    }
}
