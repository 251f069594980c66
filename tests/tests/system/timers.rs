//! Services that a time starts, and jobs that are done when they end.

use std::time::Duration;

use serde_json::Value;
use system_tests::{TestNode, kill, within};

const PATIENCE: Duration = Duration::from_secs(30);

fn job(timer: &str) -> String {
    format!(
        "[program]\nimage = \"/bin/sh\"\nargs = [\"-c\", \"echo ran; exit 0\"]\nruns = \"once\"\n[timer]\n{timer}\n"
    )
}

fn starts(node: &TestNode) -> Vec<Value> {
    let log = node.log(&["ServiceStart"]);
    log.into_iter().filter(|entry| entry["body"]["name"] == "job").collect()
}

fn timer(node: &TestNode) -> Value {
    let timers = node.json(&["service", "timers"]);
    timers.as_array().unwrap().iter().find(|timer| timer["name"] == "job").cloned().unwrap_or_default()
}

#[test]
fn a_time_of_the_calendar_starts_a_job_again_and_again_and_each_start_was_decided() {
    let Some(node) = TestNode::boot() else { return };
    let applied = node.apply("job", &job("calendar = [\"*:*:0/1\"]"));
    assert!(applied.status.success(), "{applied:?}");
    assert!(timer(&node)["next_start_ms"].is_u64());
    assert!(within(PATIENCE, || starts(&node).len() >= 3));
    // The next supervisor goes on.
    kill(node.json(&["status"])["supervisor_pid"].as_i64().unwrap());
    let before = starts(&node).len();
    assert!(within(PATIENCE, || starts(&node).len() >= before + 2));
    node.ok(&["service", "stop", "job"]);
    assert!(timer(&node)["next_start_ms"].is_null());
    assert!(timer(&node)["last_start_ms"].is_u64());
    let all = starts(&node);
    assert!(all.iter().all(|entry| entry["authorization"].is_string()), "{all:?}");
    assert_eq!(node.log(&["ServiceFailed"]).iter().filter(|e| e["body"]["name"] == "job").count(), 0);
    assert!(node.ok(&["service", "logs", "job"]).matches("ran").count() >= all.len() - 1);
    node.ok(&["service", "remove", "job"]);
}

#[test]
fn what_was_missed_while_the_node_was_down_is_made_good_if_that_is_wanted() {
    let Some(mut node) = TestNode::boot() else { return };
    // Far away for one who counts from now, due at once for one who knows the last start.
    let second = job("every_ms = 2000\ncatch_up = true");
    assert!(node.apply("job", &second).status.success());
    assert!(within(PATIENCE, || !starts(&node).is_empty()));
    node.ok(&["service", "stop", "job"]);
    let hour = job("every_ms = 3600000\ncatch_up = true");
    assert!(node.apply("job", &hour).status.success());
    let (next, last) =
        (timer(&node)["next_start_ms"].as_u64().unwrap(), timer(&node)["last_start_ms"].as_u64().unwrap());
    assert!(next.abs_diff(last + 3_600_000) < 5_000, "counted from the last start: {next} {last}");
    let before = starts(&node).len();
    assert!(node.apply("job", &second).status.success());
    node.down();
    node.up();
    assert!(within(PATIENCE, || starts(&node).len() > before));
}

#[test]
fn a_time_that_is_none_is_refused_with_its_place() {
    let Some(node) = TestNode::boot() else { return };
    for (timer, why) in [
        ("calendar = [\"5:00 Europe/Berlin\"]", "allowed is UTC"),
        ("calendar = [\"*-13-01\"]", "no month"),
        ("catch_up = true", "it needs one of calendar"),
    ] {
        let applied = node.apply("job", &job(timer));
        let said = String::from_utf8_lossy(&applied.stderr).into_owned();
        assert!(!applied.status.success() && said.contains(why), "{timer}: {said}");
    }
}
