//! Checks by a command run where their service runs: they see what it sees, are ended when they take too long, and stand
//! in nobody's way.

use std::{fs, process::Command, time::Duration};

use system_tests::{TestNode, kill, within};

const SOON: Duration = Duration::from_secs(60);

fn signal(pid: i64, signal: &str) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "no process {pid}");
}

/// Processes whose words end so.
fn sleepers(mark: &str) -> Vec<i64> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i64>().ok());
    let words = |pid: &i64| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| words(pid) == format!("sleep\0{mark}\0")).collect()
}

fn service(script: &str, check: &str, more: &str) -> String {
    format!(
        "[program]\nimage = \"/bin/sh\"\nargs = ['-c', '''{script}''']\n[health]\nkind = \"exec\"\n\
         command = [\"/bin/sh\", \"-c\", '''{check}''']\ncheck_interval_ms = 100\n{more}\n"
    )
}

/// What it made in its private folder, and its processes.
#[test]
fn a_check_sees_what_its_service_sees() {
    let Some(node) = TestNode::boot() else { return };
    let script =
        "trap 'rm /tmp/well' USR1; echo $$ > /tmp/own.pid; echo > /tmp/well; while :; do sleep 0.1; done";
    let check = "test -e /tmp/well && kill -0 $(cat /tmp/own.pid)";
    let applied = node.apply("checked", &service(script, check, ""));
    assert!(applied.status.success(), "{applied:?}");
    assert!(within(SOON, || node.service("checked")["state"] == "Running"), "{}", node.service("checked"));
    let first = node.pid("checked");
    signal(first, "-USR1");
    let failed = || node.log(&["ServiceFailed"]).into_iter().find(|entry| entry["body"]["name"] == "checked");
    assert!(within(SOON, || failed().is_some()), "{}", node.service("checked"));
    let entry = failed().unwrap().to_string();
    assert!(entry.contains("the check ended with code 1"), "{entry}");
    // Its next folder is as it should be.
    let again = || {
        let now = node.service("checked");
        now["state"] == "Running" && now["pid"].as_i64().is_some_and(|pid| pid != first)
    };
    assert!(within(SOON, again), "{}", node.service("checked"));
    node.ok(&["service", "stop", "checked"]);
}

#[test]
fn a_check_that_takes_too_long_is_ended_and_the_service_can_be_told_to_end_meanwhile() {
    let Some(node) = TestNode::boot() else { return };
    let mark = "86399.625";
    let script = "trap 'echo > /tmp/hang' USR1; while :; do sleep 0.1; done";
    let stop = "kill -TERM 2; echo told > /tmp/told";
    let check = format!("test -e /tmp/hang || exit 0; sleep {mark} & wait");
    let more = "check_timeout_ms = 300\nfailure_threshold = 1000\n";
    let manifest = service(script, &check, more).replacen(
        "[health]",
        &format!("stop = [\"/bin/sh\", \"-c\", \"{stop}\"]\n[health]"),
        1,
    );
    let applied = node.apply("hanging", &manifest);
    assert!(applied.status.success(), "{applied:?}");
    assert!(within(SOON, || node.service("hanging")["state"] == "Running"), "{}", node.service("hanging"));
    let first = node.pid("hanging");
    signal(first, "-USR1");
    let mut seen = std::collections::BTreeSet::new();
    let several = || {
        seen.extend(sleepers(mark));
        seen.len() >= 3
    };
    assert!(within(SOON, several), "{seen:?}: {}", node.service("hanging"));
    assert!(within(SOON, || sleepers(mark).len() <= 1), "one check at a time: {:?}", sleepers(mark));
    let says = || node.service("hanging")["last_error"].as_str().unwrap_or_default().to_owned();
    assert!(within(SOON, || says().contains("within 300 ms")), "{}", says());
    let status = node.service("hanging");
    assert_eq!((status["state"].as_str(), status["pid"].as_i64()), (Some("Degraded"), Some(first)));
    // The supervisor after it ends the check of the one before.
    kill(node.json(&["status"])["supervisor_pid"].as_i64().unwrap());
    seen.clear();
    let several = || {
        seen.extend(sleepers(mark));
        seen.len() >= 3
    };
    assert!(within(SOON, several), "{seen:?}");
    node.ok(&["service", "stop", "hanging"]);
    let stopped = node.service("hanging");
    assert!(!stopped["last_error"].as_str().unwrap_or_default().contains("was killed"), "{stopped}");
    assert!(within(SOON, || sleepers(mark).is_empty()), "{:?}", sleepers(mark));
}
