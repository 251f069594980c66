//! What a process may use, alone and with its descendants.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Priorities of PRC-33.
pub const PRIORITY_NORMAL: u8 = 16;
pub const PRIORITY_MAX: u8 = 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Resource {
    #[n(0)]
    OpenFiles,
    #[n(1)]
    Processes,
    #[n(2)]
    AddressSpace,
    #[n(3)]
    CpuSeconds,
    #[n(4)]
    CoreBytes,
    #[n(5)]
    FileBytes,
    #[n(6)]
    LockedBytes,
    #[n(7)]
    StackBytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Rlimit {
    #[n(0)]
    pub resource: Resource,
    #[n(1)]
    pub soft: u64,
    #[n(2)]
    pub hard: u64,
}

/// Limits of the whole tree, held by cgroups where they can be had, else by what [`crate::Enforced`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Limits {
    #[n(0)]
    pub memory_bytes_max: Option<u64>,
    #[n(1)]
    pub processes_max: Option<u64>,
    /// 1 to 10 000, 100 is the usual share.
    #[n(2)]
    pub cpu_weight: Option<u32>,
    /// Thousandths of one core.
    #[n(3)]
    pub cpu_millicores_max: Option<u32>,
    /// Of each process; a cgroup has no such limit, so it is an rlimit everywhere.
    #[n(4)]
    pub cpu_seconds_max: Option<u64>,
}
