use base::{Hash, HashError, KeyPath};
use chain::payload::capability::Permissions;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use super::{
    EgressConfig, HealthConfig, ProgramConfig, Protocol, RestartTable, SandboxSwitches, ServiceType,
    SocketConfig, TimerConfig, TriggerLimit,
};

/// Stands for the hash of the image that the node runs from. `up` puts the real hash in its place, so that a shipped
/// manifest needs no edit when the binary is built; it is no hash, so it can never be taken for one.
pub const RUNNING_IMAGE: &str = "blake3:running-image";

/// One service (SUP-23). TOML on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceManifest {
    /// Format of the manifest.
    pub version: u32,
    pub service: ServiceInfo,
    /// Left out: a key path below `/orbital/services`, no permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<ServiceIdentityConfig>,
    #[serde(default)]
    pub capabilities: CapabilityRequirements,
    #[serde(default)]
    pub resources: ResourceRequirements,
    #[serde(default)]
    pub health: HealthConfig,
    /// Left out: by service type (SUP open point 5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartTable>,
    /// What a foreign program is; a service of Bailiwick has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramConfig>,
    #[serde(default)]
    pub sandbox: SandboxSwitches,
    /// Left out: a `[program]` in its own network reaches nothing but itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressConfig>,
    #[serde(default)]
    pub dependencies: Vec<Dependency>,
    #[serde(default)]
    pub endpoints: Vec<EndpointDefinition>,
    /// What a `[program]` listens on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<SocketConfig>,
    /// What starts a `[program]` by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer: Option<TimerConfig>,
    #[serde(default, skip_serializing_if = "TriggerLimit::is_usual")]
    pub trigger_limit: TriggerLimit,
}

impl ServiceManifest {
    /// It is started by a connection, and rests until one comes.
    #[must_use]
    pub fn is_on_demand(&self) -> bool {
        self.sockets.iter().any(|socket| socket.on_demand)
    }

    /// `network` has to do with it: it goes out, or somebody comes in.
    #[must_use]
    pub fn has_way(&self) -> bool {
        self.egress.is_some() || self.sockets.iter().any(|socket| socket.publish.is_some())
    }

    /// Something other than the node and its operator starts it: a connection, or a time.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.is_on_demand() || self.timer.is_some()
    }

    /// Where the service's key is, named or not.
    #[must_use]
    pub fn key_path(&self) -> Option<KeyPath> {
        match &self.identity {
            Some(ServiceIdentityConfig { key_path: Some(path), .. }) => Some(path.clone()),
            _ => KeyPath::parse(base::key_paths::SERVICES).ok()?.child(&self.service.name).ok(),
        }
    }

    #[must_use]
    pub fn permissions(&self) -> &[Permission] {
        self.identity.as_ref().map_or(&[], |identity| &identity.permissions)
    }

    #[must_use]
    pub fn has_workload_api(&self) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.workload_api)
    }

    /// The hash of the program that may start; the text is checked here, not when the file is loaded (SUP-25).
    pub fn binary_hash(&self) -> Result<Hash, HashError> {
        self.service.binary.parse()
    }

    /// With the placeholder for the running image replaced.
    #[must_use]
    pub fn with_running_image(mut self, image: Hash) -> Self {
        if self.service.binary == RUNNING_IMAGE {
            self.service.binary = image.to_string();
        }
        self
    }
}

/// SUP-24.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceInfo {
    /// Unique; folder, socket and log field are named after it.
    pub name: String,
    pub version: Version,
    pub service_type: ServiceType,
    /// `blake3:` and the digest. Left out: the running image, which is the launcher of a `[program]` too.
    #[serde(default = "running_image")]
    pub binary: String,
    #[serde(default)]
    pub description: String,
}

fn running_image() -> String {
    RUNNING_IMAGE.to_owned()
}

/// SUP-27.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceIdentityConfig {
    /// Left out: as without this table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_path: Option<KeyPath>,
    #[serde(default)]
    pub permissions: Vec<Permission>,
    /// It gets SPIFFE's Workload API on a socket of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub workload_api: bool,
}

/// A capability string such as `fs.read`.
pub type Permission = String;

/// SUP-31.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityRequirements {
    #[serde(default)]
    pub required: Vec<CapabilityRequirement>,
    #[serde(default)]
    pub optional: Vec<CapabilityRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityRequirement {
    #[serde(rename = "type")]
    pub capability_type: String,
    #[serde(default)]
    pub permissions: Vec<Permission>,
}

impl CapabilityRequirement {
    /// The words as bits: `query` reads (CAP open point 2).
    #[must_use]
    pub fn rights(&self) -> Permissions {
        let has = |word: &str| self.permissions.iter().any(|permission| permission == word);
        Permissions {
            read: has("read") || has("query"),
            write: has("write"),
            execute: has("execute"),
            delegate: has("delegate"),
            revoke: has("revoke"),
        }
    }
}

/// SUP-32. What is left out is not limited, except that every service has a share of the processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceRequirements {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    pub cpu_shares: u32,
    pub priority: Priority,
    /// Share of the disks: 1 to 10 000, 100 is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u32>,
    /// Where no cgroup holds what is said of disks, the service starts all the same, and `status` says so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub io_optional: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io: Vec<IoMaximum>,
}

/// What may be asked of a disk each second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoMaximum {
    /// A path on the disk, its device, or `all`.
    pub place: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_operations: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_operations: Option<u64>,
}

impl Default for ResourceRequirements {
    fn default() -> Self {
        Self {
            memory_mb: None,
            cpu_shares: 100,
            priority: Priority::Normal,
            io_weight: None,
            io_optional: false,
            io: Vec::new(),
        }
    }
}

/// The catalogue's priorities, and one below them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Priority {
    Critical,
    High,
    Normal,
    Low,
}

/// SUP-33.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    pub name: String,
    #[serde(default)]
    pub version: VersionReq,
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

/// SUP-34.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointDefinition {
    pub name: String,
    pub protocol: Protocol,
}
