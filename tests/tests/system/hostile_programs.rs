//! Programs that take what they can get: each is contained and on record, and the node answers throughout.

use std::{
    fs,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use system_tests::{TestNode, within};

const SOON: Duration = Duration::from_secs(60);
/// Generous: machines that test are busy. The figures are printed.
const STATUS_WORST: Duration = Duration::from_secs(10);
const STATUS_P99: Duration = Duration::from_secs(2);
/// Twice the bound of a log and what may come between two looks at it.
const LOGS_BYTES_MAX: u64 = 128 << 20;
/// Kept of each stream of a program.
const PROGRAM_OUTPUT_BYTES_MAX: u64 = 4 << 20;
/// Processes of a service, one that it may not have, and its first process.
const PROCESSES_MAX: usize = 32;

/// Fewer say nothing of the slowest in a hundred.
const CALLS_MIN: usize = 100;

/// Asks for the status all the time; how long each answer took. `work` is given what waits until enough were asked while
/// the program does its worst.
fn watched(node: &TestNode, what: &str, work: impl FnOnce(&dyn Fn())) {
    let (over, times) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let begun = Instant::now();
                let answered = node.run(&["status", "-o", "json"]).status.success();
                times.lock().unwrap().push((begun.elapsed(), answered));
            }
        });
        struct Stop<'s>(&'s AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let _stop = Stop(&over);
        work(&|| {
            let enough = || times.lock().unwrap().len() >= CALLS_MIN;
            assert!(within(SOON, enough), "{what}: fewer than {CALLS_MIN} calls in {SOON:?}");
        });
    });
    let mut times = times.into_inner().unwrap();
    times.sort();
    assert!(times.iter().all(|(_, answered)| *answered), "{what}: a status was not answered");
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].0;
    eprintln!(
        "{what}: {} status calls, p50 {:?}, p99 {:?}, worst {:?}",
        times.len(),
        at(50),
        at(99),
        at(100)
    );
    assert!(at(99) < STATUS_P99 && at(100) < STATUS_WORST, "{what}: the node was slow: {:?}", at(99));
}

fn shell(script: &str) -> String {
    format!("[program]\nimage = \"/bin/sh\"\nargs = ['-c', '''{script}''']\n")
}

/// Processes in the pid namespace of one.
fn beside(pid: i64) -> usize {
    let space = |pid: &dyn std::fmt::Display| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = space(&pid);
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    all.filter(|name| own.is_some() && space(&name.to_string_lossy()) == own).count()
}

fn failures(node: &TestNode, name: &str) -> Vec<Value> {
    let of = |entry: &Value| entry["body"]["name"] == name;
    node.log(&["ServiceFailed"]).into_iter().filter(of).collect()
}

/// A service that forks without end has its number of processes, and a program that `run` started too.
#[test]
fn a_fork_bomb_fills_its_own_house_only() {
    let Some(node) = TestNode::boot() else { return };
    let core = node.pids();
    let limits = format!("[sandbox]\nprocesses_max = {PROCESSES_MAX}\n");
    // This shell tries again, for some seconds, where another gives up.
    let bomb = "while :; do sleep 1000 & done";
    watched(&node, "fork bomb", |enough| {
        let applied = node.apply(
            "bomb",
            &(shell(bomb).replace("/bin/sh", "/bin/bash") + &limits + "[restart]\nmode = \"never\"\n"),
        );
        assert!(applied.status.success(), "{applied:?}");
        let said = || node.ok(&["service", "logs", "bomb"]);
        let refused = || said().to_lowercase().contains("fork") || !failures(&node, "bomb").is_empty();
        assert!(within(SOON, refused), "{}", said());
        let status = node.json(&["service", "status", "bomb"]);
        if let Some(pid) = status["pid"].as_i64() {
            assert!(beside(pid) <= PROCESSES_MAX + 2, "{} processes: {status}", beside(pid));
        }
        let output = node.run(&[
            "run",
            "--",
            "/bin/sh",
            "-c",
            "i=0; while [ $i -lt 300 ]; do sleep 30 & i=$((i+1)); done",
        ]);
        let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(!output.status.success() && said.contains("fork"), "{output:?}");
        enough();
        node.ok(&["service", "stop", "bomb"]);
    });
    assert_eq!(node.pids(), core, "another service noticed");
    let ends = node.log(&["ProcessExit"]);
    assert!(!ends.is_empty(), "the end of a program is on record");
}

#[test]
fn a_memory_hog_is_ended_and_its_end_is_on_record() {
    let Some(node) = TestNode::boot() else { return };
    let core = node.pids();
    let hog = "head -c 400000000 /dev/zero | tail -c 399999999 | wc -c; echo took it; kill -9 $$";
    watched(&node, "memory hog", |enough| {
        let limits = "[resources]\nmemory_mb = 64\n[restart]\nmode = \"never\"\n";
        let _ = node.apply("hog", &(shell(&format!("set -e; x=$({hog}); {hog}")) + limits));
        assert!(
            within(SOON, || !failures(&node, "hog").is_empty()),
            "{}",
            node.ok(&["service", "status", "hog"])
        );
        let output = node.run(&[
            "run",
            "--",
            "/bin/sh",
            "-c",
            "x=$(head -c 600000000 /dev/zero | tr '\\0' x); echo took it",
        ]);
        assert!(!String::from_utf8_lossy(&output.stdout).contains("took it"), "{output:?}");
        enough();
        assert!(!output.status.success(), "{output:?}");
    });
    assert_eq!(node.pids(), core, "another service noticed");
    let ends = node.log(&["ProcessExit"]);
    assert!(!ends.is_empty(), "the end of a program is on record");
}

#[test]
fn a_disk_filler_fills_its_private_folders_only() {
    let Some(node) = TestNode::boot() else { return };
    let filler = "cat /dev/zero > /tmp/filled; echo tmp $?; cat /dev/zero > /dev/shm/filled; echo shm $?; echo end; sleep 1000";
    watched(&node, "disk filler", |enough| {
        let limits = "[resources]\nmemory_mb = 512\n[sandbox]\ntmp_mb = 16\n";
        let applied = node.apply("filler", &(shell(filler) + limits));
        assert!(applied.status.success(), "{applied:?}");
        let said = || node.ok(&["service", "logs", "filler"]);
        assert!(within(SOON, || said().contains("end")), "{}", said());
        assert!(said().contains("No space left"), "{}", said());
        let inside = format!("/proc/{}/root", node.pid("filler"));
        let size = |file: &str| fs::metadata(format!("{inside}/{file}")).map_or(0, |data| data.len());
        assert!(size("tmp/filled") <= 16 << 20, "{}", size("tmp/filled"));
        assert!(size("dev/shm/filled") <= 64 << 20, "{}", size("dev/shm/filled"));
        enough();
        node.ok(&["service", "stop", "filler"]);
    });
    assert!(!fs::exists("/tmp/filled").unwrap() && !fs::exists("/dev/shm/filled").unwrap());
}

/// What a service writes without end is cut, and the node's log says so.
#[test]
fn a_flood_of_output_stays_within_the_bound_of_a_log() {
    let Some(node) = TestNode::boot() else { return };
    let folder = node.root().join("state/logs");
    let bytes = |name: &str| fs::metadata(folder.join(name)).map_or(0, |data| data.len());
    watched(&node, "output flood", |enough| {
        let applied = node.apply("flood", &shell("exec yes a flood of words"));
        assert!(applied.status.success(), "{applied:?}");
        let first = node.pid("flood");
        let mut highest = 0;
        let cut = || {
            highest = highest.max(bytes("flood.log"));
            bytes("flood.log.1") > 0
        };
        assert!(within(SOON, cut), "the log was never put aside: {highest} bytes");
        let until = Instant::now() + Duration::from_secs(5);
        assert!(within(SOON, || {
            highest = highest.max(bytes("flood.log"));
            Instant::now() > until
        }));
        eprintln!("the log of the flood had {highest} bytes at most");
        assert!(highest < LOGS_BYTES_MAX, "{highest} bytes");
        assert_eq!(node.pid("flood"), first, "it goes on all the time");
        enough();
        node.ok(&["service", "stop", "flood"]);
        assert!(bytes("flood.log") <= LOGS_BYTES_MAX && bytes("flood.log.1") <= 8 << 20);
    });
    let said = |file: &str| String::from_utf8_lossy(&fs::read(folder.join(file)).unwrap()).into_owned();
    assert!(said("node.log").contains("a full log is put aside"), "{}", said("node.log"));
}

/// Through `run`: to a reader that takes all, to one that takes nothing, and to nobody.
#[test]
fn a_program_that_floods_its_reader_or_nobody_keeps_a_bounded_file_and_is_on_record() {
    let Some(node) = TestNode::boot() else { return };
    let core = node.pids();
    let flood = ["--", "yes", "a flood of words"];
    let kept = |pid: u64| {
        let folder = node.root().join(format!("state/process_manager/programs/{pid}"));
        fs::metadata(folder.join("stdout")).map_or(0, |data| data.len())
    };
    watched(&node, "output flood of programs", |enough| {
        let read =
            |stdout: Stdio| node.command(&[&["run"], &flood[..]].concat()).stdout(stdout).spawn().unwrap();
        let mut readers = [read(Stdio::null()), read(Stdio::piped())];
        let alone = node.ok(&[&["run", "--detach"], &flood[..]].concat());
        let running = || {
            let programs = node.json(&["ps"]);
            let pids = programs.as_array().unwrap().iter().filter(|row| row["state"] == "running");
            pids.filter_map(|row| row["pid"].as_u64()).collect::<Vec<u64>>()
        };
        assert!(within(SOON, || running().len() == 3), "{:?}", running());
        let pids = running();
        assert!(pids.contains(&alone.trim().parse().unwrap()), "{pids:?} {alone}");
        let mut highest = 0;
        let mut look = || {
            highest = pids.iter().map(|pid| kept(*pid)).fold(highest, u64::max);
            pids.iter().map(|pid| kept(*pid)).filter(|bytes| *bytes == PROGRAM_OUTPUT_BYTES_MAX).count()
        };
        // Each writes more than is kept of it; the one that nobody reads waits.
        assert!(within(SOON, || look() == 3), "{:?}", pids.iter().map(|pid| kept(*pid)).collect::<Vec<_>>());
        enough();
        look();
        eprintln!("of one flood {highest} bytes were kept at most");
        assert_eq!(highest, PROGRAM_OUTPUT_BYTES_MAX);
        assert_eq!(running(), pids, "they go on all the time");
        for pid in &pids {
            node.ok(&["kill", &pid.to_string(), "--signal", "kill"]);
        }
        drop(readers[1].stdout.take());
        for reader in &mut readers {
            assert_eq!(reader.wait().unwrap().code(), Some(128 + 9));
        }
        let ends = || node.log(&["ProcessExit"]);
        assert!(within(SOON, || ends().len() == 3), "{:?}", ends());
        for end in ends() {
            assert!(end["body"]["usage"]["cpu_time_ns"].as_u64().unwrap() > 0, "{end}");
        }
    });
    assert_eq!(node.pids(), core, "another service noticed");
}

/// A service that stands still is found by its health check, and replaced.
#[test]
fn a_service_that_is_stopped_by_a_signal_is_replaced() {
    let Some(node) = TestNode::boot() else { return };
    let signal = |pid: i64, signal: &str| {
        let done = Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
        assert!(done.success());
    };
    watched(&node, "SIGSTOP", |enough| {
        let before = node.pid("identity");
        signal(before, "-STOP");
        enough();
        let replaced = || node.pids().iter().any(|(name, pid)| name == "identity" && *pid != before);
        assert!(within(SOON, replaced), "identity still stands");
    });
    node.settled();
    let failed = failures(&node, "identity");
    assert!(failed[0]["body"]["error"].to_string().to_lowercase().contains("health"), "{failed:?}");
    // That it was late stands before that it failed.
    let is_late = |entry: &Value| entry["body"]["name"] == "identity";
    let warned = || node.log(&["ServiceLate"]).into_iter().find(is_late);
    assert!(within(SOON, || warned().is_some()), "no warning is on record");
    assert!(warned().unwrap()["body"]["text"].as_str().unwrap().contains("did not answer a check"));
}
