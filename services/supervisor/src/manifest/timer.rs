use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::health::{millis, optional_millis};
use crate::core::calendar::Calendar;

/// `[timer]`: what starts a service by time. It is not started at boot; by hand it is started as any other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimerConfig {
    /// At each of these times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calendar: Vec<Calendar>,
    /// Once, this long after the host has booted.
    #[serde(rename = "after_boot_ms", with = "optional_millis", skip_serializing_if = "Option::is_none")]
    pub after_boot: Option<Duration>,
    /// This long after its last start, or after the manifest was taken in.
    #[serde(rename = "every_ms", with = "optional_millis", skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
    /// Later by up to this; the same for each time of a node, and different from node to node.
    #[serde(rename = "random_delay_ms", with = "millis", skip_serializing_if = "Duration::is_zero")]
    pub random_delay: Duration,
    /// At once if a time has passed since its last start, while the node was down.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub catch_up: bool,
}
