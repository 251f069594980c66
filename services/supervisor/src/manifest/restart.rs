use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::health::optional_millis;
use crate::core::restart::ExhaustedAction;

/// `[restart]`: what is left out comes from the service type (SUP open point 5). Upstream's names are accepted too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestartTable {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<RestartMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    #[serde(rename = "window_ms", with = "optional_millis", skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    #[serde(
        rename = "delay_ms",
        alias = "initial_delay_ms",
        with = "optional_millis",
        skip_serializing_if = "Option::is_none"
    )]
    pub delay: Option<Duration>,
    #[serde(alias = "backoff_factor", skip_serializing_if = "Option::is_none")]
    pub backoff: Option<f32>,
    #[serde(rename = "max_delay_ms", with = "optional_millis", skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_exhausted: Option<ExhaustedAction>,
}

/// After which exits a service is started again (SUP-103); each with backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartMode {
    Never,
    /// Exit code other than 0, a signal, a failed check.
    OnFailure,
    Always,
}
