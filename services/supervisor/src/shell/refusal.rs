//! How callers are told what went wrong.

use kit::{Guilty, IntoRefusal, Retry};
use tonic::Status;

use crate::core::supervisor::SupervisorError;

impl IntoRefusal for SupervisorError {
    const DOMAIN: &'static str = "bailiwick.supervisor.v1";

    fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "NotFound",
            Self::NotRunning(_) => "NotRunning",
            Self::NoEndpoint(_) => "NoEndpoint",
            Self::NotForPrograms(_) => "NotForPrograms",
            Self::IncompatibleVersion { .. } => "IncompatibleVersion",
            Self::CoreService { .. } => "CoreService",
            Self::NoGeneration { .. } => "NoGeneration",
            Self::NoReload(_) => "NoReload",
            Self::NotReloaded { .. } => "NotReloaded",
            Self::NotExecuted { .. } => "NotExecuted",
            Self::PolicyDenied { .. } => "PolicyDenied",
            Self::InvalidManifest(_) => "InvalidManifest",
            Self::DependencyNotRunning { .. } => "DependencyNotRunning",
            Self::StartupTimeout(_) => "StartupTimeout",
            Self::ServiceCrashed { .. } => "ServiceCrashed",
            Self::RolledBack { .. } => "RolledBack",
            Self::CannotListen { .. } => "CannotListen",
            Self::NotStopped(_) => "NotStopped",
            Self::Superseded(_) => "Superseded",
            Self::Unavailable(_) => "Unavailable",
            Self::ShuttingDown => "ShuttingDown",
            Self::Busy { .. } => "Busy",
        }
    }

    fn guilty(&self) -> Guilty {
        match self {
            Self::InvalidManifest(_) => Guilty::Misuse,
            Self::Unavailable(_) | Self::ShuttingDown => Guilty::Gone,
            _ => Guilty::Refused,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Unavailable(_) | Self::Busy { .. } => Retry::After(500),
            _ => Retry::Never,
        }
    }

    fn refusal(&self) -> Option<base::Sequence> {
        match self {
            Self::PolicyDenied { refusal } => Some(base::Sequence(*refusal)),
            _ => None,
        }
    }
}

impl From<SupervisorError> for Status {
    fn from(error: SupervisorError) -> Self {
        error.to_status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: SUP-92, SUP-93
    #[test]
    fn errors_are_told_apart_by_reason() {
        let name = || "x".to_owned();
        let all = [
            SupervisorError::NotFound(name()),
            SupervisorError::NotRunning(name()),
            SupervisorError::NoEndpoint(name()),
            SupervisorError::NotForPrograms(name()),
            SupervisorError::DependencyNotRunning { service: name(), why: name() },
            SupervisorError::StartupTimeout(name()),
            SupervisorError::ServiceCrashed {
                service: name(),
                error: chain::payload::service::ServiceError::HealthTimeout,
                text: name(),
            },
            SupervisorError::RolledBack { service: name(), text: name() },
        ];
        let reasons: std::collections::BTreeSet<&str> = all.iter().map(IntoRefusal::reason).collect();
        assert_eq!(reasons.len(), all.len());
        let status = Status::from(SupervisorError::PolicyDenied { refusal: 17 });
        assert_eq!(kit::error_info(&status).unwrap().refusal, 17);
    }
}
