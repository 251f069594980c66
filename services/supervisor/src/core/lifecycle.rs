//! What is said between the supervisor and a service (seed 003 §5.3, §7.3).

use std::time::Duration;

use base::{CapabilityId, IdentityId, KeyPath};
use serde::{Deserialize, Serialize};

use super::supervisor::ServiceStatus;
use crate::manifest::Permission;

/// SUP-56.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum LifecycleMessage {
    Init {
        config: ServiceConfig,
        capabilities: Vec<CapabilityId>,
        identity: ServiceIdentity,
    },
    /// Take requests of clients from now on.
    Start,
    /// Finish the work in hand.
    PrepareStop,
    /// End at once.
    Stop,
    HealthCheck,
    StatusRequest,
}

/// SUP-57. There is no negative reply: closing the channel or exiting is the failure (SUP open point 13).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum LifecycleResponse {
    InitComplete,
    Started,
    ReadyToStop,
    Stopped,
    Health(HealthStatus),
    Status(Box<ServiceStatus>),
}

impl LifecycleResponse {
    /// SUP-58: each message has one answer.
    #[must_use]
    pub const fn answers(&self, message: &LifecycleMessage) -> bool {
        use LifecycleMessage as M;
        matches!(
            (message, self),
            (M::Init { .. }, Self::InitComplete)
                | (M::Start, Self::Started)
                | (M::PrepareStop, Self::ReadyToStop)
                | (M::Stop, Self::Stopped)
                | (M::HealthCheck, Self::Health(_))
                | (M::StatusRequest, Self::Status(_))
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    pub name: String,
    pub version: String,
    /// Manifest text as loaded.
    pub manifest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceIdentity {
    pub id: IdentityId,
    pub key_path: KeyPath,
    pub permissions: Vec<Permission>,
}

/// SUP-72.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthStatus {
    pub healthy: bool,
    pub components: Vec<ComponentHealth>,
    pub last_error: Option<String>,
    pub uptime: Duration,
    /// Healthy, and not working in full: no check has failed.
    #[serde(default)]
    pub degraded: bool,
}

/// SUP-83.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentHealth {
    pub name: String,
    pub healthy: bool,
    pub message: Option<String>,
    #[serde(default)]
    pub degraded: bool,
}
