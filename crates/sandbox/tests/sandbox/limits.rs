//! Limits hold, by cgroup where one can be made, and the report says by what.

use sandbox::{Features, Guard, GuardSet, IoLimit, IoLimits};

use crate::common::{As, is_root, launchers, line, probe, run, shell};

const MEBIBYTE: u64 = 1 << 20;

fn cgroups_here() -> bool {
    let features = Features::detect();
    let here = is_root() && features.memory.is_some() && features.pids.is_some() && features.cpu.is_some();
    if !here {
        println!("skipped: no writable cgroup with memory, pids and cpu");
    }
    here
}

/// covers: PRC-13, PRC-32
#[test]
fn memory_is_held_by_a_cgroup() {
    if !cgroups_here() {
        return;
    }
    let mut plan = probe("memory 268435456");
    plan.limits.memory_bytes_max = Some(64 * MEBIBYTE);
    let text = run(As::Root, &plan, &["cgroup"]);
    assert!(line(&text, "enforced Memory").contains("Cgroup"), "{text}");
    assert_eq!(line(&text, "signal"), "9", "{text}");
    assert!(line(&text, "oom_kills").parse::<u64>().unwrap() >= 1, "{text}");
    assert!(line(&text, "memory_peak_bytes").parse::<u64>().unwrap() <= 64 * MEBIBYTE);
    plan.disabled = GuardSet::of(&[Guard::Cgroup, Guard::Rlimits]);
    let text = run(As::Root, &plan, &["cgroup"]);
    assert!(text.contains("ok memory"), "{text}");
}

/// covers: PRC-13, PRC-32
#[test]
fn processes_are_held_by_a_cgroup() {
    if !cgroups_here() {
        return;
    }
    let mut plan = probe("processes 50");
    plan.limits.processes_max = Some(10);
    let text = run(As::Root, &plan, &["cgroup"]);
    line(&text, &format!("error {} processes", libc::EAGAIN));
    plan.limits.processes_max = Some(60);
    assert!(run(As::Root, &plan, &["cgroup"]).contains("ok processes 50 50"));
}

/// covers: PRC-13
#[test]
fn the_processor_is_held_by_a_cgroup() {
    if !cgroups_here() {
        return;
    }
    let mut plan = probe("spin");
    plan.limits.cpu_millicores_max = Some(200);
    let text = run(As::Root, &plan, &["cgroup"]);
    assert!(line(&text, "enforced CpuQuota").contains("Cgroup"), "{text}");
    let used: u64 = line(&text, "cpu_time_us").parse().unwrap();
    // One second of spinning at a fifth of a core; twice that leaves room for start and accounting.
    assert!(used > 0 && used < 450_000, "{text}");
}

/// covers: PRC-13
#[test]
fn the_disk_is_held_by_a_cgroup() {
    if !is_root() || Features::detect().io.is_none() {
        println!("skipped: no writable cgroup with io or blkio");
        return;
    }
    // Past the page cache, which is no disk.
    const READ: &str = "start=$(date +%s%N); \
                        dd if=/usr/bin/perl of=/dev/null bs=64k count=16 iflag=direct && \
                        echo took $((($(date +%s%N) - start) / 1000000))";
    let mut plan = shell(READ);
    let took = |text: &str| line(text, "took").parse::<u64>().unwrap();
    let limit = IoLimit { read_bytes_per_s: Some(MEBIBYTE / 2), ..IoLimit::default() };
    for place in ["/usr/bin/perl", "all"] {
        let max = vec![IoLimit { place: place.to_owned(), ..limit.clone() }];
        plan.limits.io = Some(IoLimits { max, ..IoLimits::default() });
        let text = run(As::Root, &plan, &["cgroup"]);
        assert!(line(&text, "enforced Io").contains("Cgroup"), "{text}");
        // One mebibyte at half a mebibyte per second. Load only makes it longer.
        assert!(took(&text) > 1_500, "{place}: {text}");
    }
    plan.limits.io = None;
    // Not at once, on a busy disk; how fast it is is not what is asked.
    let fastest = (0..5).map(|_| took(&run(As::Root, &plan, &["cgroup"]))).min().unwrap();
    assert!(fastest < 1_500, "{fastest} ms without a limit");
}

/// covers: PRC-13
#[test]
fn a_limit_of_a_disk_that_nothing_holds_is_refused_or_said() {
    let mut plan = probe("pid");
    let max = vec![IoLimit { place: "all".to_owned(), read_bytes_per_s: Some(4096), ..IoLimit::default() }];
    plan.limits.io = Some(IoLimits { max, ..IoLimits::default() });
    for launcher in launchers() {
        let options = ["cgroup", "cgroups=no"];
        assert!(run(*launcher, &plan, &options).starts_with("error 0 disks cannot be limited: "));
        let mut plan = plan.clone();
        plan.limits.io.as_mut().unwrap().is_optional = true;
        let text = run(*launcher, &plan, &options);
        assert!(text.contains("ok pid"), "{text}");
        assert!(line(&text, "enforced Io").contains("Nothing"), "{text}");
        assert!(line(&text, "missing cgroup").contains("Io"), "{text}");
    }
}

/// covers: PRC-13, PRC-32
#[test]
fn without_cgroups_rlimits_stand_in_and_it_is_said() {
    for launcher in launchers() {
        let options = ["cgroup", "cgroups=no"];
        let mut plan = probe("memory 268435456");
        plan.limits.memory_bytes_max = Some(64 * MEBIBYTE);
        plan.limits.cpu_millicores_max = Some(100);
        let text = run(*launcher, &plan, &options);
        assert_eq!(line(&text, "enforced Memory"), "by Rlimit", "{text}");
        assert_eq!(line(&text, "enforced CpuQuota"), "by Nothing", "{text}");
        line(&text, "missing cgroup");
        assert!(!text.contains("ok memory"), "{text}");
        let mut plan = probe("processes 50");
        plan.limits.processes_max = Some(10);
        let text = run(*launcher, &plan, &options);
        if *launcher == As::Root {
            // Its uid is 0 of the host, which the kernel exempts: nothing holds, and that is what is said.
            assert_eq!(line(&text, "enforced Processes"), "by Nothing", "{text}");
            plan.identity.host_uid = Some(70_125);
        }
        let text = run(*launcher, &plan, &options);
        assert_eq!(line(&text, "enforced Processes"), "by Rlimit", "{text}");
        line(&text, &format!("error {} processes", libc::EAGAIN));
        let mut plan = probe("spin_on");
        plan.limits.cpu_seconds_max = Some(1);
        let text = run(*launcher, &plan, &options);
        let signal: i32 = line(&text, "signal").parse().unwrap();
        assert!(signal == libc::SIGXCPU || signal == libc::SIGKILL, "{text}");
    }
}

/// A child in a user namespace could not raise its own priority any more.
#[test]
fn priorities_above_and_below_normal_are_taken() {
    for launcher in launchers() {
        for (priority, nice) in [(12, -2), (16, 0), (20, 5)] {
            let mut plan = probe("priority");
            plan.priority = priority;
            let text = run(*launcher, &plan, &[]);
            if nice < 0 && *launcher == As::Nobody {
                assert!(line(&text, "missing rlimits").contains("CAP_SYS_NICE"), "{text}");
                assert_eq!(line(&text, "ok priority"), own_nice().to_string(), "{text}");
            } else {
                let expected = if nice < 0 { nice } else { nice.max(own_nice()) };
                assert_eq!(line(&text, "ok priority"), expected.to_string(), "{text}");
            }
        }
    }
}

/// The tests themselves may run at a lower priority, which a plan of normal priority leaves as it is.
fn own_nice() -> i32 {
    rustix::process::getpriority_process(None).unwrap()
}
