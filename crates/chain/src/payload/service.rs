//! Genesis, and what the supervisor records about services.

use base::{AxiomTime, Hash, IdentityId, KeyPath, PublicKey};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{capability::CapabilityGrant, identity::IdentityCreated, policy::PolicyRule};

/// The first entry: pins every key that others are checked against (AX-29, DESIGN 6).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct Genesis {
    /// Version of the log's format.
    #[n(0)]
    pub version: u32,
    /// The running image.
    #[n(1)]
    pub image_hash: Hash,
    #[n(2)]
    pub initial_capabilities: Vec<CapabilityGrant>,
    #[n(3)]
    pub genesis_time: AxiomTime,
    #[n(4)]
    pub node_name: String,
    #[n(5)]
    pub node_key: PublicKey,
    #[n(6)]
    pub sequencer_key: PublicKey,
    #[n(7)]
    pub policy_key: PublicKey,
    #[n(8)]
    pub identity_key: PublicKey,
    /// Root, services, node and first admin; parents before children.
    #[n(9)]
    pub identities: Vec<IdentityCreated>,
    #[n(10)]
    pub admin: IdentityId,
    /// The host user whose peer credentials vouch for the admin on this node.
    #[n(11)]
    pub admin_uid: u32,
    #[n(12)]
    pub rules: Vec<PolicyRule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct Shutdown {
    #[n(0)]
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ServiceRegister {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub version: String,
    #[n(2)]
    pub service_type: ServiceType,
    #[n(3)]
    pub binary: Hash,
    #[n(4)]
    pub manifest: Hash,
    #[n(5)]
    pub key_path: KeyPath,
}

/// SUP-28.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
pub enum ServiceType {
    #[n(0)]
    Core,
    #[n(1)]
    System,
    #[n(2)]
    User,
    #[n(3)]
    Driver,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ServiceStart {
    #[n(0)]
    pub name: String,
    /// Process id in the keeper's pid namespace.
    #[n(1)]
    pub pid: u32,
    #[n(2)]
    pub binary: Hash,
    /// Restarts so far; 0 for the first start.
    #[n(3)]
    pub restarts: u32,
    /// Recorded after the fact, because log or policy were down.
    #[n(4)]
    pub late: bool,
    /// What the host could not give its sandbox.
    #[n(5)]
    pub missing: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ServiceStop {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub reason: String,
    #[n(2)]
    pub late: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ServiceFailed {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub error: ServiceError,
    #[n(2)]
    pub text: String,
    #[n(3)]
    pub late: bool,
}

/// The wall clock was stepped. Nothing follows from it: the log's own time goes on as before.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ClockSet {
    /// By so much, nanoseconds; negative if it was set back.
    #[n(0)]
    pub by_ns: i64,
    /// What it shows since, nanoseconds since the Unix epoch.
    #[n(1)]
    pub wall_ns: u64,
}

/// A watched service was not heard of in time. It runs on: this is the warning before it is judged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ServiceLate {
    #[n(0)]
    pub name: String,
    /// What it was late with, and what comes of it.
    #[n(1)]
    pub text: String,
}

/// SUP open point 14: small, the text goes beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceError {
    #[n(0)]
    StartupTimeout,
    #[n(1)]
    BinaryMismatch,
    #[n(2)]
    MissingCapability,
    #[n(3)]
    DependencyFailed,
    #[n(4)]
    Crashed {
        /// Exit code, or the negative signal number.
        #[n(0)]
        status: i32,
    },
    #[n(5)]
    HealthTimeout,
    #[n(6)]
    ShutdownTimeout,
    #[n(7)]
    LaunchFailed,
}
