//! The supervisor is killed again and again while clients call and services restart.
//!
//! `SYSTEM_TESTS_KILLS=100` kills as often instead of nine times; more than nine in a minute is what the keeper takes for a
//! supervisor that cannot run, so a hundred take eleven minutes.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use system_tests::{TestNode, within};

use crate::egress_services::{GOES_OUT, Server, allow_all};

const KILLS: usize = 9;
const KILLS_VARIABLE: &str = "SYSTEM_TESTS_KILLS";
/// As many starts in a minute are not yet too many for the keeper.
const KILLS_PER_WINDOW: usize = 9;
const WINDOW: Duration = Duration::from_secs(61);
const BACK: Duration = Duration::from_secs(30);
/// Restarts of a service of the user among the kills: one after each so many.
const RESTART_EVERY: usize = 2;
/// Each kill comes so much later after its restart was asked for than the one before, so that they meet it at different moments.
const LATER: Duration = Duration::from_millis(20);
const DELAYS: u32 = 16;

fn status(node: &TestNode) -> Option<Value> {
    let output = node.run(&["status", "-o", "json"]);
    serde_json::from_slice(&output.stdout).ok()
}

/// By a handle, which can mean nobody else than who the node named.
fn kill(pid: i64) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let handle = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    pidfd_send_signal(handle, Signal::KILL).unwrap();
}

/// Processes of this node by their command lines: every service that runs, however often.
fn processes(words: &[&str]) -> BTreeMap<String, Vec<i64>> {
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i64>() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        for word in words.iter().filter(|word| line.contains(**word)) {
            found.entry((*word).to_owned()).or_default().push(pid);
        }
    }
    found
}

/// The parents of a process up to the first one.
fn below(mut pid: i64, ancestor: i64) -> bool {
    while pid > 1 {
        if pid == ancestor {
            return true;
        }
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = text.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
        pid = parent.unwrap_or(0);
    }
    false
}

fn parent(pid: i64) -> i64 {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).unwrap()
}

fn folder_of(program: &str) -> String {
    Path::new(program).parent().unwrap().display().to_string()
}

/// covers: SUP-97
#[test]
fn kills_of_the_supervisor_lose_and_double_nobody() {
    let Some(node) = TestNode::boot() else { return };
    let kills = std::env::var(KILLS_VARIABLE).map_or(KILLS, |text| text.parse().unwrap());
    // Each is found by a number that nobody else sleeps.
    let marks = ["86321.125", "86322.125", "86323.125"];
    let names = ["one", "two", "changing"];
    // Two of them have a way out: one is killed with its supervisor between asking for it and giving it on.
    let server = Server::new();
    allow_all(&node);
    let out = format!("fs = [{:?}]\n[egress]\nallow = [\"{}\"]\n", folder_of(GOES_OUT), server.place);
    for ((name, mark), way) in names.iter().zip(marks).zip(["", &out, &out]) {
        // The one that is restarted takes its time to end, so that some supervisors die before it does.
        let program = match *name {
            "changing" => format!(
                "[program]\nimage = \"/bin/sh\"\n\
                 args = [\"-c\", \"trap 'sleep 0.2; exit 0' TERM; sleep {mark} & wait; exit 1\"]\n{way}"
            ),
            _ => format!("[program]\nimage = \"/bin/sleep\"\nargs = [\"{mark}\"]\n{way}"),
        };
        let applied = node.apply(name, &program);
        assert!(applied.status.success(), "{applied:?}");
    }
    node.settled();
    let mut before: BTreeMap<String, i64> = node.pids().into_iter().collect();
    let keeper = parent(status(&node).unwrap()["supervisor_pid"].as_i64().unwrap());
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let stop = Stop(&over);
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    // Both ask services, none of which died; whether the supervisor is there is not the question.
                    let ok = node.run(&["policy", "state"]).status.success();
                    answered.fetch_add(u64::from(ok), Ordering::AcqRel);
                }
            });
        }
        let (mut killed, mut restarts) = (VecDeque::new(), 0);
        for round in 0..kills {
            if killed.len() == KILLS_PER_WINDOW
                && let Some(first) = killed.pop_front()
            {
                std::thread::sleep(WINDOW.saturating_sub(Instant::elapsed(&first)));
            }
            killed.push_back(Instant::now());
            let mut now = None;
            let is_there = || {
                now = status(&node).and_then(|status| status["supervisor_pid"].as_i64());
                now.is_some()
            };
            assert!(within(BACK, is_there), "no supervisor in round {round}");
            let now = now.unwrap();
            if round % RESTART_EVERY == 0 {
                // The kill below comes while this goes on: whether it is answered is open, that it leaves one is not.
                let mut restart = node.command(&["service", "restart", "changing"]).spawn().unwrap();
                std::thread::sleep(LATER * (restarts % DELAYS));
                restarts += 1;
                kill(now);
                let _ = restart.wait().unwrap();
            } else {
                kill(now);
            }
        }
        drop(stop);
    });
    node.settled();
    for name in ["two", "changing"] {
        let talk = format!("talk={}", server.place);
        let mut said = String::new();
        let goes_out = || {
            let output = node.run(&["exec", name, "--", GOES_OUT, &talk]);
            said = format!("{output:?}");
            String::from_utf8_lossy(&output.stdout).contains("talk: answer")
        };
        let does = within(BACK, goes_out);
        assert!(does, "{name}: {said} {}", node.service_log(name));
    }
    let mut after: BTreeMap<String, i64> = node.pids().into_iter().collect();
    // This one was restarted on purpose.
    before.remove("changing");
    assert!(after.remove("changing").is_some(), "{after:?}");
    assert_eq!(after, before, "a service was lost or started again");
    let running = processes(&marks);
    for mark in marks {
        let own: Vec<i64> =
            running.get(mark).into_iter().flatten().copied().filter(|pid| below(*pid, keeper)).collect();
        // The process and, before it, its first process, which shows its words too.
        let distinct: Vec<&i64> = own.iter().filter(|pid| !own.contains(&parent(**pid))).collect();
        assert_eq!(distinct.len(), 1, "{mark} runs as {own:?}");
    }
    let answered = answered.into_inner();
    eprintln!("{kills} kills in {:?}, {answered} calls were answered meanwhile", began.elapsed());
    assert!(answered > kills as u64, "services answered {answered} calls only");
    let failed = node.log(&["ServiceFailed"]);
    assert!(failed.is_empty(), "{failed:?}");
    // Whatever became of whoever asked for a restart, it was none or one.
    let of_changing = |kind| {
        let entries = node.log(&[kind]);
        entries.iter().filter(|entry| entry["body"]["name"] == "changing").cloned().collect::<Vec<_>>()
    };
    let (starts, stops) = (of_changing("ServiceStart"), of_changing("ServiceStop"));
    assert_eq!(starts.len(), 1 + stops.len(), "{starts:?} {stops:?}");
    assert!(stops.iter().all(|stop| stop["body"]["reason"] == "restart requested"), "{stops:?}");
    eprintln!("{} restarts were carried out", stops.len());
    assert_eq!(node.json(&["log", "verify"])["ok"], true);
}

/// Lets the callers end whatever becomes of the test.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What comes before a program is not the program: neither its number nor its readiness.
#[test]
fn a_command_before_a_program_is_not_taken_for_it_by_the_next_supervisor() {
    let Some(node) = TestNode::boot() else { return };
    let folder = tempfile::Builder::new().prefix("bw").tempdir().unwrap();
    // The program is nobody on the host.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let shown = folder.path().display();
    let manifest = format!(
        "[health]\nstartup_timeout_ms = 60000\n[program]\nimage = \"/bin/sleep\"\nargs = [\"86331.125\"]\n\
         fs = [\"{shown}\"]\n\
         before = [{{ command = [\"/bin/sh\", \"-c\", \"echo waits; until [ -e {shown}/go ]; do sleep 0.05; done\"] }}]\n"
    );
    let text = format!(
        "version = 1\n[service]\nname = \"slow\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n{manifest}"
    );
    let file = node.file("slow.toml", text);
    // Answered by nobody: who is asked dies.
    let mut apply = node.command(&["service", "apply", &file]).spawn().unwrap();
    let log = || String::from_utf8_lossy(&node.run(&["service", "logs", "slow"]).stdout).into_owned();
    assert!(within(BACK, || log().contains("waits")), "the command does not run");
    for _ in 0..2 {
        let before = status(&node).unwrap()["supervisor_pid"].as_i64().unwrap();
        kill(before);
        let replaced = || status(&node).is_some_and(|now| now["supervisor_pid"].as_i64() != Some(before));
        assert!(within(BACK, replaced), "no supervisor");
        let slow = node.service("slow");
        assert_eq!((&slow["state"], &slow["pid"]), (&Value::from("Starting"), &Value::Null), "{slow}");
    }
    let _ = apply.wait().unwrap();
    fs::write(folder.path().join("go"), "").unwrap();
    assert!(within(BACK, || node.service("slow")["state"] == "Running"), "{}", node.service("slow"));
    let pid = node.pid("slow");
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(line.split("\0").collect::<Vec<_>>(), ["/bin/sleep", "86331.125", ""]);
    let of_slow = |entry: &&Value| entry["body"]["name"] == "slow";
    let started: Vec<Value> = node.log(&["ServiceStart"]).iter().filter(of_slow).cloned().collect();
    assert_eq!(started.len(), 1, "{started:?}");
    assert_eq!(started[0]["body"]["pid"].as_i64(), Some(pid));
    assert!(node.log(&["ServiceFailed"]).is_empty());
}
