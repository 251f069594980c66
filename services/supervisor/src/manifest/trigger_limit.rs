use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    health::millis,
    limits::{TRIGGER_BURST_DEFAULT, TRIGGER_INTERVAL_DEFAULT},
};

/// `[trigger_limit]`: how often connections may start a service; systemd's `TriggerLimitIntervalSec` and
/// `TriggerLimitBurst`. Beyond it the service listens no more until somebody starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TriggerLimit {
    /// 0: no limit.
    #[serde(rename = "interval_ms", with = "millis")]
    pub interval: Duration,
    /// Starts within one interval. 0: no limit.
    pub burst: u32,
}

impl Default for TriggerLimit {
    fn default() -> Self {
        Self { interval: TRIGGER_INTERVAL_DEFAULT, burst: TRIGGER_BURST_DEFAULT }
    }
}

impl TriggerLimit {
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    #[must_use]
    pub fn is_off(&self) -> bool {
        self.burst == 0 || self.interval.is_zero()
    }
}
