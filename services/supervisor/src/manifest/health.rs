use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a service shows that it is well (SUP-69). What is left out has the default of SUP open point 6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// Left out: `lifecycle`, or `process` for a `[program]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<HealthKind>,
    /// Not ready within it: failed to start.
    #[serde(rename = "startup_timeout_ms", with = "millis")]
    pub startup_timeout: Duration,
    #[serde(rename = "check_interval_ms", with = "millis")]
    pub check_interval: Duration,
    /// No answer within it: one failure.
    #[serde(rename = "check_timeout_ms", with = "millis")]
    pub check_timeout: Duration,
    /// For each of the two steps of a stop: work in hand, then exit.
    #[serde(rename = "stop_timeout_ms", with = "millis")]
    pub stop_timeout: Duration,
    /// Failures in a row that make a service failed.
    pub failure_threshold: u32,
    /// Good checks in a row that make a degraded service run again.
    pub success_threshold: u32,
    /// Named by the seed; implicit, so that it need not stand among the endpoints (SUP open point 7).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_endpoint: Option<String>,
    /// `exec`: program and arguments; exit code 0 is healthy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// `tcp` and `http`: host and port, as the service sees them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `http`: left out, `/`. A status of 200 to 399 is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `sd_notify`: longest pause between two `WATCHDOG=1`.
    #[serde(rename = "watchdog_ms", with = "optional_millis", skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Duration>,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            kind: None,
            startup_timeout: Duration::from_millis(5000),
            check_interval: Duration::from_millis(5000),
            check_timeout: Duration::from_millis(1000),
            stop_timeout: Duration::from_millis(5000),
            failure_threshold: 3,
            success_threshold: 2,
            check_endpoint: None,
            command: Vec::new(),
            address: None,
            path: None,
            watchdog: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthKind {
    /// `HealthCheck` on the lifecycle channel.
    Lifecycle,
    /// A command inside the service's sandbox.
    Exec,
    /// A connection is accepted.
    Tcp,
    /// A request is answered.
    Http,
    /// `READY=1`, then `WATCHDOG=1`.
    SdNotify,
    /// The process lives.
    Process,
}

/// The check that the configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthCheck {
    Lifecycle,
    Exec { command: Vec<String> },
    Tcp { address: String },
    Http { address: String, path: String },
    SdNotify { watchdog: Option<Duration> },
    Process,
}

impl HealthConfig {
    #[must_use]
    pub fn kind(&self, is_program: bool) -> HealthKind {
        match (self.kind, is_program) {
            (Some(kind), _) => kind,
            (None, true) => HealthKind::Process,
            (None, false) => HealthKind::Lifecycle,
        }
    }

    /// The check; a manifest that was loaded has what its kind needs.
    #[must_use]
    pub fn check(&self, is_program: bool) -> HealthCheck {
        let address = || self.address.clone().unwrap_or_default();
        match self.kind(is_program) {
            HealthKind::Lifecycle => HealthCheck::Lifecycle,
            HealthKind::Exec => HealthCheck::Exec { command: self.command.clone() },
            HealthKind::Tcp => HealthCheck::Tcp { address: address() },
            HealthKind::Http => HealthCheck::Http {
                address: address(),
                path: self.path.clone().unwrap_or_else(|| "/".to_owned()),
            },
            HealthKind::SdNotify => HealthCheck::SdNotify { watchdog: self.watchdog },
            HealthKind::Process => HealthCheck::Process,
        }
    }
}

/// Durations are integers of milliseconds in TOML.
pub(super) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::manifest) fn serialize<S: Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(in crate::manifest) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

pub(super) mod optional_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::manifest) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::millis::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::manifest) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<u64>::deserialize(deserializer).map(|value| value.map(Duration::from_millis))
    }
}
