use chain::payload::process as log;

use crate::process_manager::v1 as pb;

impl From<&pb::ResourceLimits> for log::ResourceLimits {
    /// What is 0 in a message takes the default (PRC-30); for the three that may be unlimited the default is 0.
    fn from(l: &pb::ResourceLimits) -> Self {
        let default = Self::default();
        let or = |given: u64, default: u64| if given == 0 { default } else { given };
        let or32 = |given: u32, default: u32| if given == 0 { default } else { given };
        Self {
            cpu_time_ms: l.cpu_time_ms,
            memory_bytes: or(l.memory_bytes, default.memory_bytes),
            threads: or32(l.threads, default.threads),
            capabilities: or32(l.capabilities, default.capabilities),
            files: or32(l.files, default.files),
            io_bandwidth_bytes: l.io_bandwidth_bytes,
            net_bandwidth_bytes: l.net_bandwidth_bytes,
            cpu_millicores: (l.cpu_millicores > 0).then_some(l.cpu_millicores),
            disk_bytes: (l.disk_bytes > 0).then_some(l.disk_bytes),
            io: (l.io_weight > 0 || !l.io.is_empty()).then(|| log::IoLimits {
                weight: (l.io_weight > 0).then_some(l.io_weight),
                max: l.io.iter().map(log::IoLimit::from).collect(),
            }),
        }
    }
}

impl From<&pb::IoLimit> for log::IoLimit {
    fn from(l: &pb::IoLimit) -> Self {
        let given = |number: u64| (number > 0).then_some(number);
        Self {
            place: l.place.clone(),
            read_bytes: given(l.read_bytes),
            write_bytes: given(l.write_bytes),
            read_operations: given(l.read_operations),
            write_operations: given(l.write_operations),
        }
    }
}

impl From<&log::ResourceUsage> for pb::ResourceUsage {
    fn from(u: &log::ResourceUsage) -> Self {
        Self {
            cpu_time_ns: u.cpu_time_ns,
            memory_bytes: u.memory_bytes,
            memory_peak_bytes: u.memory_peak_bytes,
            io_read_bytes: u.io_read_bytes,
            io_write_bytes: u.io_write_bytes,
        }
    }
}

impl From<&log::ExitStatus> for pb::ExitStatus {
    fn from(s: &log::ExitStatus) -> Self {
        use pb::exit_status::Status;
        let status = match s {
            log::ExitStatus::Code(code) => Status::Code(*code),
            log::ExitStatus::Signal(signal) => Status::Signal(*signal),
            log::ExitStatus::Limit(name) => Status::Limit(name.clone()),
            log::ExitStatus::Unknown => Status::Unknown(true),
        };
        Self { status: Some(status) }
    }
}

impl From<&log::RefusedCall> for pb::RefusedCall {
    fn from(r: &log::RefusedCall) -> Self {
        Self { call: r.call.clone(), target: r.target.clone(), errno: r.errno, times: r.times }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: PRC-29, PRC-30
    #[test]
    fn unset_limits_take_the_defaults() {
        let limits = log::ResourceLimits::from(&pb::ResourceLimits { threads: 3, ..Default::default() });
        assert_eq!(limits, log::ResourceLimits { threads: 3, ..log::ResourceLimits::default() });
        assert_eq!((limits.memory_bytes, limits.files, limits.cpu_time_ms), (256 << 20, 256, 0));
    }
}
