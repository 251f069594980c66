//! What a service is, as data: `ServiceManifest` and how it is read from TOML (seed 003 §4).
//!
//! Pure: the loader takes file names and texts. A text is accepted whole or refused with every place named;
//! unknown keys are refused, never skipped.

mod check;
mod egress;
mod health;
mod image;
pub mod limits;
mod load;
mod locate;
mod program;
mod protocol;
mod restart;
mod schema;
pub mod shipped;
mod sockets;
mod timer;
mod trigger_limit;

pub use chain::payload::service::ServiceType;
pub use egress::{CredentialConfig, EgressConfig};
pub use health::{HealthCheck, HealthConfig, HealthKind};
pub use image::ProgramImage;
pub use load::{LoadedManifest, Loading, ManifestError, check_places, load, parse};
pub use program::{
    CommandConfig, CommandRole, ControlSignal, EnvFile, FolderConfig, FsGrant, NetworkSwitch, Octal,
    ProgramConfig, Runs, SYSTEM, SandboxSwitches, SecretConfig,
};
pub use protocol::{Protocol, ProtocolError, ProtocolVersion};
pub use restart::{RestartMode, RestartTable};
pub use schema::{
    CapabilityRequirement, CapabilityRequirements, Dependency, EndpointDefinition, IoMaximum, Permission,
    Priority, RUNNING_IMAGE, ResourceRequirements, ServiceIdentityConfig, ServiceInfo, ServiceManifest,
};
pub use sockets::{ListenAddress, SocketConfig};
pub use timer::TimerConfig;
pub use trigger_limit::TriggerLimit;
