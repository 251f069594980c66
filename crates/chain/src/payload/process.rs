//! Programs that `process_manager` runs (spec 06).

use base::{CapabilityId, Hash, IdentityId, ProcessId};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// PRC-29; 0 means unlimited for `cpu_time_ms`, `io_bandwidth_bytes` and `net_bandwidth_bytes`.
/// `cpu_millicores`, `disk_bytes` and `io` came later: an entry without them has none, and is as long as before.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceLimits {
    #[n(0)]
    pub cpu_time_ms: u64,
    #[n(1)]
    pub memory_bytes: u64,
    #[n(2)]
    pub threads: u32,
    #[n(3)]
    pub capabilities: u32,
    #[n(4)]
    pub files: u32,
    #[n(5)]
    pub io_bandwidth_bytes: u64,
    #[n(6)]
    pub net_bandwidth_bytes: u64,
    /// Thousandths of one core; none means as much as there is.
    #[n(7)]
    pub cpu_millicores: Option<u32>,
    /// Of each of its private folders, of all its copy-on-write folders together, and of a file that it writes; none
    /// means what `process_manager` gives.
    #[n(8)]
    pub disk_bytes: Option<u64>,
    /// Of disks one by one; `io_bandwidth_bytes` is of each disk, to read and to write.
    #[n(9)]
    pub io: Option<IoLimits>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
#[serde(default, deny_unknown_fields)]
pub struct IoLimits {
    /// 1 to 10 000, 100 is the usual share.
    #[n(0)]
    pub weight: Option<u32>,
    #[n(1)]
    pub max: Vec<IoLimit>,
}

/// Of one disk, each per second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
#[serde(default, deny_unknown_fields)]
pub struct IoLimit {
    /// A path on the disk, its device, or `all`.
    #[n(0)]
    pub place: String,
    #[n(1)]
    pub read_bytes: Option<u64>,
    #[n(2)]
    pub write_bytes: Option<u64>,
    #[n(3)]
    pub read_operations: Option<u64>,
    #[n(4)]
    pub write_operations: Option<u64>,
}

impl Default for ResourceLimits {
    /// PRC-30.
    fn default() -> Self {
        Self {
            cpu_time_ms: 0,
            memory_bytes: 268_435_456,
            threads: 64,
            capabilities: 256,
            files: 256,
            io_bandwidth_bytes: 0,
            net_bandwidth_bytes: 0,
            cpu_millicores: None,
            disk_bytes: None,
            io: None,
        }
    }
}

/// PRC-28.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ResourceUsage {
    #[n(0)]
    pub cpu_time_ns: u64,
    #[n(1)]
    pub memory_bytes: u64,
    #[n(2)]
    pub memory_peak_bytes: u64,
    #[n(3)]
    pub io_read_bytes: u64,
    #[n(4)]
    pub io_write_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    #[n(0)]
    Term,
    #[n(1)]
    Kill,
    #[n(2)]
    Stop,
    #[n(3)]
    Cont,
    #[n(4)]
    User1,
    #[n(5)]
    User2,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    #[n(0)]
    Code(#[n(0)] i32),
    #[n(1)]
    Signal(#[n(0)] i32),
    /// Ended by the system for passing a limit; the limit's name.
    #[n(2)]
    Limit(#[n(0)] String),
    /// Its monitor died, so nobody saw how it ended.
    #[n(3)]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ProcessCreate {
    #[n(0)]
    pub pid: ProcessId,
    #[n(1)]
    pub image: Hash,
    #[n(2)]
    pub identity: IdentityId,
    #[n(3)]
    pub capabilities: Vec<CapabilityId>,
    #[n(4)]
    pub limits: ResourceLimits,
    #[n(5)]
    pub by: IdentityId,
    /// Hash over the arguments: they can hold what must not be kept for ever.
    #[n(6)]
    pub args_hash: Hash,
    /// For people: the program's name, cut to 64 bytes.
    #[n(7)]
    pub name: String,
    /// Paths granted, as `path:ro` or `path:rw`.
    #[n(8)]
    pub grants: Vec<String>,
    /// What the host could not give.
    #[n(9)]
    pub missing: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ProcessExit {
    #[n(0)]
    pub pid: ProcessId,
    #[n(1)]
    pub status: ExitStatus,
    #[n(2)]
    pub usage: ResourceUsage,
    /// Calls that the sandbox refused, as its monitor saw them; at most `REFUSED_MAX`.
    #[n(3)]
    pub refused: Vec<RefusedCall>,
}

/// Refused calls kept per program; more are counted in the last one's `times`.
pub const REFUSED_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct RefusedCall {
    /// Name of the system call.
    #[n(0)]
    pub call: String,
    /// The path or address that it named.
    #[n(1)]
    pub target: String,
    #[n(2)]
    pub errno: i32,
    #[n(3)]
    pub times: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(array)]
pub struct ProcessKill {
    #[n(0)]
    pub pid: ProcessId,
    #[n(1)]
    pub signal: Signal,
    #[n(2)]
    pub by: IdentityId,
    #[n(3)]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use base::cbor;

    use super::*;

    #[test]
    fn limits_without_what_came_later_are_as_long_as_before_and_are_still_read() {
        let old = ResourceLimits::default();
        let bytes = cbor::encode(&old);
        // An array of the first seven.
        assert_eq!(bytes.first(), Some(&0x87));
        assert_eq!(cbor::decode::<ResourceLimits>(&bytes).unwrap(), old);
        let max = vec![IoLimit { place: "all".to_owned(), read_bytes: Some(4096), ..IoLimit::default() }];
        let new = ResourceLimits { io: Some(IoLimits { weight: Some(50), max }), ..old };
        let bytes = cbor::encode(&new);
        assert_eq!(bytes.first(), Some(&0x8a));
        assert_eq!(cbor::decode::<ResourceLimits>(&bytes).unwrap(), new);
    }
}
