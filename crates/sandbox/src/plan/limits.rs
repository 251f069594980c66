//! What a process may use, alone and with its descendants.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::check::{PATH_BYTES_MAX, PlanError, at_most, range};

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
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
    #[n(5)]
    pub io: Option<IoLimits>,
}

/// Stands for every disk in [`IoLimit::place`].
pub const ALL_DISKS: &str = "all";
/// Limits of disks in one plan.
pub const IO_LIMITS_MAX: usize = 16;
/// Less is no limit but a stop: one page takes longer than a second.
pub const IO_BYTES_PER_S_MIN: u64 = 4096;
/// Weights of cgroup v2; 100 is the usual one.
pub const IO_WEIGHT_MAX: u32 = 10_000;

/// What the tree may ask of disks. Refused where nothing holds it: who limits a disk shares it with somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct IoLimits {
    /// 1 to 10 000, 100 is the usual share.
    #[n(0)]
    pub weight: Option<u32>,
    #[n(1)]
    pub max: Vec<IoLimit>,
    /// Where nothing holds it, this is reported, and the process starts.
    #[n(2)]
    pub is_optional: bool,
}

/// Of one disk, each per second. Of several for the same disk the lowest hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct IoLimit {
    /// A block device, a path on the disk that is meant, without symbolic links; or [`ALL_DISKS`].
    #[n(0)]
    pub place: String,
    #[n(1)]
    pub read_bytes_per_s: Option<u64>,
    #[n(2)]
    pub write_bytes_per_s: Option<u64>,
    #[n(3)]
    pub read_operations_per_s: Option<u64>,
    #[n(4)]
    pub write_operations_per_s: Option<u64>,
}

impl IoLimits {
    pub(super) fn validate(&self) -> Result<(), PlanError> {
        at_most("limits of disks", self.max.len(), IO_LIMITS_MAX)?;
        if let Some(weight) = self.weight {
            range("the io weight", i64::from(weight), 1, i64::from(IO_WEIGHT_MAX))?;
        }
        for limit in &self.max {
            at_most("bytes of a disk's place", limit.place.len(), PATH_BYTES_MAX)?;
            if limit.place != ALL_DISKS && !limit.place.starts_with('/') {
                return Err(PlanError::Contradiction("a disk is named by an absolute path, or is `all`"));
            }
            for bytes in [limit.read_bytes_per_s, limit.write_bytes_per_s].into_iter().flatten() {
                range(
                    "bytes per second of a disk",
                    bytes.cast_signed(),
                    IO_BYTES_PER_S_MIN as i64,
                    i64::MAX,
                )?;
            }
            for operations in
                [limit.read_operations_per_s, limit.write_operations_per_s].into_iter().flatten()
            {
                range("operations per second of a disk", operations.cast_signed(), 1, i64::from(u32::MAX))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_disks_hold_at_their_edge_and_one_past_it() {
        let check = |change: &dyn Fn(&mut IoLimits, &mut IoLimit), wanted: bool| {
            let mut limit = IoLimit { place: "/".to_owned(), ..IoLimit::default() };
            let mut io = IoLimits::default();
            change(&mut io, &mut limit);
            io.max.push(limit);
            assert_eq!(io.validate().is_ok(), wanted, "{io:?}");
        };
        check(&|_, _| {}, true);
        for (weight, wanted) in [(0, false), (1, true), (IO_WEIGHT_MAX, true), (IO_WEIGHT_MAX + 1, false)] {
            check(&|io, _| io.weight = Some(weight), wanted);
        }
        let most = u64::try_from(i64::MAX).unwrap();
        for (bytes, wanted) in
            [(IO_BYTES_PER_S_MIN - 1, false), (IO_BYTES_PER_S_MIN, true), (most, true), (most + 1, false)]
        {
            check(&|_, limit| limit.read_bytes_per_s = Some(bytes), wanted);
            check(&|_, limit| limit.write_bytes_per_s = Some(bytes), wanted);
        }
        let most = u64::from(u32::MAX);
        for (count, wanted) in [(0, false), (1, true), (most, true), (most + 1, false)] {
            check(&|_, limit| limit.read_operations_per_s = Some(count), wanted);
            check(&|_, limit| limit.write_operations_per_s = Some(count), wanted);
        }
        for (place, wanted) in [("all", true), ("sda", false), ("", false)] {
            check(&|_, limit| limit.place = place.to_owned(), wanted);
        }
        let long = "/".repeat(PATH_BYTES_MAX);
        check(&|_, limit| limit.place.clone_from(&long), true);
        check(&|_, limit| limit.place = format!("{long}/"), false);
        let others =
            |count| move |io: &mut IoLimits, limit: &mut IoLimit| io.max = vec![limit.clone(); count];
        check(&others(IO_LIMITS_MAX - 1), true);
        check(&others(IO_LIMITS_MAX), false);
    }
}
