//! The two plans of a job's run: the monitor's with nothing around it but what the manifest names, and the job's.

use base::{Hash, ProcessId};
use job::JobManifest;
use sandbox::{
    Descriptor, Executable, Guard, GuardSet, Landlock, Limits, Mount, Namespaces, Plan, Resource, Rlimit,
    Seccomp, Sockets, determined::Fixed, seccomp::Profile,
};

use super::{
    Host,
    plan::{LAYERS_FD, MONITOR_SLOTS},
};

/// Where a job writes, and where its program stands.
pub const OUT_FOLDER: &str = "/out";
const PROGRAM: &str = "/job/program";
/// What a program is called that names itself in no way.
const USUAL_NAME: &str = "program";

/// What is known of one run besides its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPlace {
    pub run: ProcessId,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JobPlans {
    /// For the keeper.
    pub monitor: Plan,
    /// For the monitor.
    pub program: Plan,
    pub fixed: Fixed,
    pub image_path: String,
}

/// Builds both. Nothing in them depends on anything but the manifest, except names that the job does not see.
#[must_use]
pub fn job_plans(manifest: &JobManifest, place: &JobPlace, host: &Host) -> JobPlans {
    let label = format!("job-{}", place.run);
    let inside = mounts(manifest, host);
    let mut monitor = Plan::new(&label, Executable::Slot(0), Profile::Program).with_mounts(inside.clone());
    monitor.arguments.clone_from(&host.monitor);
    (monitor.landlock, monitor.seccomp) = (None, None);
    monitor.required = GuardSet::of(&[
        Guard::Mountns,
        Guard::Pidns,
        Guard::Netns,
        Guard::Ipcns,
        Guard::NoNewPrivs,
        Guard::Caps,
    ]);
    monitor.limits = Limits {
        memory_bytes_max: Some(manifest.environment.memory_limit),
        // The monitor is one of them.
        processes_max: Some(u64::from(manifest.threads_max()) + 1),
        cpu_weight: None,
        cpu_millicores_max: None,
        cpu_seconds_max: None,
        io: None,
    };
    monitor.host_name = "job".to_owned();
    monitor.descriptors = (1..MONITOR_SLOTS - 1).map(|slot| Descriptor { slot, target: slot + 2 }).collect();
    monitor.descriptors.push(Descriptor { slot: MONITOR_SLOTS - 1, target: 2 });
    monitor.descriptors.push(Descriptor { slot: MONITOR_SLOTS, target: LAYERS_FD });
    let program = program(manifest, &label, Landlock::of_mounts(&inside));
    let fixed = Fixed {
        clock_ns: manifest.determinism.clock_ns,
        seed: manifest.determinism.random_seed.map(|seed| seed.0),
        threads: manifest.threads_max() > 1,
    };
    JobPlans { monitor, program, fixed, image_path: PROGRAM.to_owned() }
}

fn shown(source: &str, target: &str) -> Mount {
    Mount::Bind { source: source.to_owned(), target: target.to_owned(), writable: false, optional: false }
}

/// What it writes lies in memory of its own: no file system of the host bounds it so surely, and none numbers its files the
/// same in every run.
fn mounts(manifest: &JobManifest, host: &Host) -> Vec<Mount> {
    let content = |hash: &Hash| format!("{}/blake3-{}", host.images, hash.to_hex());
    let out = Mount::Tmpfs {
        target: OUT_FOLDER.to_owned(),
        // To the kernel none is no limit.
        size_bytes_max: manifest.resources.output_limit.max(1),
        mode: 0o755,
    };
    let mut mounts = vec![shown(&content(&manifest.executable.hash), PROGRAM), out];
    mounts.extend(manifest.inputs.iter().map(|input| shown(&content(&input.hash), &input.mount)));
    mounts
}

fn program(manifest: &JobManifest, label: &str, landlock: Landlock) -> Plan {
    let mut plan = Plan::new(label, Executable::Path(PROGRAM.to_owned()), Profile::Job);
    let name = manifest.executable.entry_point.clone().unwrap_or_else(|| USUAL_NAME.to_owned());
    plan.arguments = std::iter::once(name).chain(manifest.executable.args.iter().cloned()).collect();
    plan.working_directory = OUT_FOLDER.to_owned();
    plan.namespaces = Namespaces::NONE;
    plan.landlock = Some(landlock);
    plan.seccomp = Some(Seccomp { profile: Profile::Job, sockets: Sockets::default(), notify: Vec::new() });
    plan.deterministic = true;
    plan.umask = Some(0o022);
    let environment = &manifest.environment;
    let limit = |resource, value| Rlimit { resource, soft: value, hard: value };
    // The kernel counts whole seconds; what was used is compared with the limit at the end.
    let seconds = environment.cpu_limit.div_ceil(1000);
    plan.rlimits.extend([
        limit(Resource::OpenFiles, environment.fd_limit.into()),
        limit(Resource::StackBytes, environment.stack_size),
        // A group may not be had, and where it can be had it may end a job; this is an error that a program sees.
        limit(Resource::AddressSpace, environment.memory_limit),
        limit(Resource::FileBytes, manifest.resources.output_limit),
        Rlimit { resource: Resource::CpuSeconds, soft: seconds, hard: seconds + 1 },
    ]);
    plan.descriptors = (0..3).map(|stream| Descriptor { slot: stream + 1, target: stream }).collect();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> JobManifest {
        let text = r#"version = 1
name = "n"
outputs = [{ name = "o", path = "/out/o" }]
inputs = [{ name = "i", hash = "blake3:1111111111111111111111111111111111111111111111111111111111111111", size = 1, mount = "/in/i" }]
environment = { memory_limit = 8388608, cpu_limit = 1500, stack_size = 131072, fd_limit = 9 }
executable = { exec_type = "NativeBinary", hash = "blake3:0000000000000000000000000000000000000000000000000000000000000000", args = ["a b"] }
determinism = { is_deterministic = true, concurrency = { ForkJoin = { max_threads = 3 } } }
"#;
        JobManifest::parse(text).unwrap()
    }

    /// covers: ACT-36, ACT-41, ACT-43
    #[test]
    fn a_job_sees_what_its_manifest_names_and_is_held_to_its_limits() {
        let host = Host {
            images: "/srv/images".to_owned(),
            hidden: Vec::new(),
            monitor: vec!["bailiwick".to_owned(), "process".to_owned(), "monitor".to_owned()],
        };
        let place = JobPlace { run: ProcessId(7) };
        let plans = job_plans(&manifest(), &place, &host);
        assert_eq!(plans.monitor.validate(MONITOR_SLOTS as usize + 1), Ok(()));
        assert_eq!(plans.program.validate(4), Ok(()));
        let targets: Vec<(&str, bool)> = plans
            .monitor
            .mounts
            .iter()
            .filter_map(|mount| match mount {
                Mount::Bind { target, writable, .. } => Some((target.as_str(), *writable)),
                _ => None,
            })
            .collect();
        let shown = [("/job/program", false), ("/in/i", false)];
        assert_eq!((targets.as_slice(), plans.monitor.mounts.len()), (&shown[..], shown.len() + 1));
        let out = Mount::Tmpfs { target: "/out".to_owned(), size_bytes_max: 64 << 20, mode: 0o755 };
        assert!(plans.monitor.mounts.contains(&out));
        let program = &plans.program;
        assert_eq!(program.arguments, ["program", "a b"]);
        assert!(program.environment.is_empty() && program.deterministic);
        let limit = |resource| {
            program.rlimits.iter().find(|limit| limit.resource == resource).map(|limit| limit.soft)
        };
        assert_eq!(limit(Resource::OpenFiles), Some(9));
        assert_eq!(limit(Resource::StackBytes), Some(131_072));
        assert_eq!(limit(Resource::AddressSpace), Some(8_388_608));
        assert_eq!(limit(Resource::CpuSeconds), Some(2));
        assert_eq!(plans.monitor.limits.memory_bytes_max, Some(8_388_608));
        assert_eq!(plans.monitor.limits.processes_max, Some(4));
        assert_eq!(plans.fixed, Fixed { clock_ns: None, seed: None, threads: true });
    }
}
