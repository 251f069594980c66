//! What a manifest limits, in the kernel's words.

use sandbox::{ALL_DISKS, GuardSet, IoLimit, IoLimits, Limits, Plan, Resource, Rlimit};

use crate::manifest::{IoMaximum, Priority, ResourceRequirements, ServiceManifest};

pub(super) fn apply(plan: &mut Plan, manifest: &ServiceManifest) {
    let resources = &manifest.resources;
    plan.limits = Limits {
        memory_bytes_max: resources.memory_mb.map(|megabytes| u64::from(megabytes) * 1024 * 1024),
        processes_max: Some(u64::from(manifest.sandbox.processes_max)),
        // The usual share is 100 in both.
        cpu_weight: Some(resources.cpu_shares.clamp(1, 10_000)),
        io: io(resources),
        ..Limits::default()
    };
    // Nobody is raised above the host's own programs, which would need a right that a user namespace does not have; the
    // order among services is kept by lowering the others.
    plan.priority = match resources.priority {
        Priority::Critical => sandbox::PRIORITY_NORMAL,
        Priority::High => sandbox::PRIORITY_NORMAL + 2,
        Priority::Normal => sandbox::PRIORITY_NORMAL + 4,
        Priority::Low => sandbox::PRIORITY_NORMAL + 8,
    };
    let files = u64::from(manifest.sandbox.open_files_max);
    plan.rlimits.push(Rlimit { resource: Resource::OpenFiles, soft: files, hard: files });
}

fn io(resources: &ResourceRequirements) -> Option<IoLimits> {
    let max: Vec<IoLimit> = resources.io.iter().map(maximum).collect();
    (resources.io_weight.is_some() || !max.is_empty()).then_some(IoLimits {
        weight: resources.io_weight,
        max,
        is_optional: resources.io_optional,
    })
}

fn maximum(one: &IoMaximum) -> IoLimit {
    // Links are followed here: the keeper looks at no path. What is not there yet is where it would be made.
    let place = std::fs::canonicalize(&one.place).ok().and_then(|place| place.to_str().map(str::to_owned));
    IoLimit {
        place: place.filter(|_| one.place != ALL_DISKS).unwrap_or_else(|| one.place.clone()),
        read_bytes_per_s: one.read_bytes,
        write_bytes_per_s: one.write_bytes,
        read_operations_per_s: one.read_operations,
        write_operations_per_s: one.write_operations,
    }
}

/// Guards that are off in a program's sandbox because `prove` asked for it.
#[must_use]
pub(super) fn broken(allow_break: &[String]) -> GuardSet {
    let guards = allow_break.iter().filter_map(|name| sandbox::Guard::parse(name));
    guards.fold(GuardSet::EMPTY, GuardSet::with)
}
