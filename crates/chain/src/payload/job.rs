//! Deterministic jobs (spec 14). The signed receipt that closes one is content; the log names its hash.

use base::{AxiomRef, Hash, IdentityId, JobId, ProcessId};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::process::ResourceUsage;

/// Outputs of a job: as many as its manifest may have.
pub const OUTPUTS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct JobSubmit {
    #[n(0)]
    pub job: JobId,
    /// Of the manifest's bytes.
    #[n(1)]
    pub manifest: Hash,
    /// What the decision is about.
    #[n(2)]
    pub executable: Hash,
    #[n(3)]
    pub inputs: Vec<Hash>,
    #[n(4)]
    pub by: IdentityId,
    /// For people: the manifest's name.
    #[n(5)]
    pub name: String,
    /// What it is to policy, where ending it is asked for.
    #[n(6)]
    pub process: ProcessId,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct JobStart {
    #[n(0)]
    pub job: JobId,
    #[n(1)]
    pub submitted: AxiomRef,
}

/// One output, by its name in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct JobOutput {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub hash: Hash,
    #[n(2)]
    pub size_bytes: u64,
}

/// It ran once. Whether it gives the same again, its receipt says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct JobComplete {
    #[n(0)]
    pub job: JobId,
    #[n(1)]
    pub submitted: AxiomRef,
    #[n(2)]
    pub outputs: Vec<JobOutput>,
    #[n(3)]
    pub usage: ResourceUsage,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct JobFailed {
    #[n(0)]
    pub job: JobId,
    #[n(1)]
    pub submitted: AxiomRef,
    /// Name of the error: `DeterminismViolation`, `Timeout`, `Cancelled`, ...
    #[n(2)]
    pub error: String,
    /// For people.
    #[n(3)]
    pub text: String,
}
