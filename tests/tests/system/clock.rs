//! The wall clock is set by a year, forward and back, while a node runs and while it is down: the log's time goes on, and
//! with it everything that is counted by it.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use serde_json::Value;
use system_tests::{TestNode, kill, within};

const SOON: Duration = Duration::from_secs(60);
/// A leap year: each date of the calendar comes in it.
const YEAR_S: i64 = 366 * 24 * 60 * 60;
const HOUR_NS: u64 = 3_600_000_000_000;
const YEAR_NS: u64 = YEAR_S.unsigned_abs() * 1_000_000_000;
/// As systemd knows it, and never late.
const WATCHED: &str = r#"
[health]
kind = "sd_notify"
watchdog_ms = 3000
[program]
image = "/usr/bin/python3"
args = ["-c", '''
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ["NOTIFY_SOCKET"])
s.send(b"READY=1")
while True:
    time.sleep(0.2); s.send(b"WATCHDOG=1")
''']
"#;

struct Moved {
    node: TestNode,
    clock: PathBuf,
}

impl Moved {
    fn up(&mut self) {
        let clock = self.clock.clone();
        let allowed = ["--allow-break", "wall-clock"];
        self.node.try_up_with(&allowed, &[("BAILIWICK_WALL_MOVED", &clock)]).unwrap();
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.node.command(args).env("BAILIWICK_WALL_MOVED", &self.clock).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn set(&self, seconds: i64) {
        // Mounted where the log is: the same file stays.
        fs::write(&self.clock, seconds.to_string()).unwrap();
    }

    fn starts(&self, name: &str) -> Vec<Value> {
        let all = self.node.log(&["ServiceStart"]);
        all.into_iter().filter(|entry| entry["body"]["name"] == name).collect()
    }

    /// When the log says that its last entry was.
    fn last_ns(&self) -> u64 {
        let log = self.node.json(&["log", "tail", "-n", "1"]);
        log[0]["axiom_time_ns"].as_u64().unwrap_or_else(|| panic!("{log}"))
    }

    /// Timers, tokens, a watchdog and a restart do what they did before.
    fn goes_on(&self, what: &str) {
        let before = self.starts("each-second").len();
        assert_eq!(self.ok(&["run", "--", "echo", "ran"]), "ran\n", "{what}");
        let goes_on = || self.starts("each-second").len() >= before + 2;
        assert!(within(SOON, goes_on), "{what}: the timer stands still");
        let crashed = self.node.pid("crashing");
        kill(crashed);
        let back = || self.node.service("crashing")["pid"].as_i64().is_some_and(|pid| pid != crashed);
        assert!(within(SOON, back), "{what}: {}", self.node.service("crashing"));
        assert!(within(SOON, || self.node.service("watched")["state"] == "Running"), "{what}");
    }
}

fn job(timer: &str) -> String {
    format!("[program]\nimage = \"/bin/true\"\nruns = \"once\"\n[timer]\n{timer}\n")
}

/// covers: AX-06, SUP-63
#[test]
fn a_clock_that_is_set_by_a_year_moves_no_expiry_and_fires_each_time_once() {
    let Some(node) = TestNode::empty() else { return };
    let clock = node.root().join("clock");
    let mut moved = Moved { node, clock };
    moved.set(0);
    moved.up();
    for (name, manifest) in [
        ("each-second", job("calendar = [\"*:*:0/1\"]")),
        ("each-year", job("calendar = [\"*-01-01 00:00:00 UTC\"]")),
        ("crashing", "[program]\nimage = \"/bin/sleep\"\nargs = [\"100000\"]\n[restart]\ndelay_ms = 100\nmax_restarts = 100\n".to_owned()),
        ("watched", WATCHED.to_owned()),
    ] {
        let applied = moved.node.apply(name, &manifest);
        assert!(applied.status.success(), "{name}: {applied:?}");
    }
    moved.goes_on("before");
    let watched = moved.node.pid("watched");
    let failures = || {
        let log = moved.node.log(&["ServiceFailed"]);
        log.into_iter().filter(|entry| entry["body"]["name"] == "watched").count()
    };
    let start_ns = moved.last_ns();
    let (over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let stop = Stop(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let status = moved.node.run(&["status", "-o", "json"]);
                assert!(status.status.success(), "{status:?}");
                asked.fetch_add(1, Ordering::AcqRel);
            }
        });
        moved.set(YEAR_S);
        assert!(within(SOON, || moved.starts("each-year").len() == 1), "the new year does not come");
        moved.goes_on("a year ahead");
        moved.set(-YEAR_S);
        moved.goes_on("a year behind");
        let passed = moved.last_ns() - start_ns;
        assert!(passed < HOUR_NS, "the log went {passed} ns on");
        assert_eq!(moved.starts("each-year").len(), 1, "the new year came twice");
        moved.set(0);
        moved.goes_on("set right");
        assert_eq!((moved.node.pid("watched"), failures()), (watched, 0), "the watchdog was misled");
        drop(stop);
    });
    assert!(asked.into_inner() > 0);
    let said = moved.node.service_log("axiom");
    assert!(said.matches("the wall clock was set").count() >= 3, "{said}");
    // And on record, with what they come to together: it was set right in the end. What follows within seconds may be one step.
    let steps = || -> Vec<i64> {
        // Read while it is written, its end may look torn with more behind it.
        let shown = moved.node.run(&["log", "show", "0..", "--type", "ClockSet", "-o", "json"]);
        let log: Vec<Value> = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        log.iter().map(|entry| entry["body"]["by_ns"].as_i64().unwrap()).collect()
    };
    let rounded = |ns: i64| (ns + ns.signum() * 500_000_000) / 1_000_000_000;
    let is_all = || steps().len() >= 2 && rounded(steps().iter().sum()) == 0;
    assert!(within(SOON, is_all), "{:?}", steps());
    assert!(steps().first().is_some_and(|first| rounded(*first) == YEAR_S), "{:?}", steps());

    // While nobody looks: what the host says at the start counts, unless the log is later.
    let before_ns = moved.last_ns();
    moved.node.down();
    moved.set(YEAR_S);
    moved.up();
    moved.goes_on("ahead at the start");
    let ahead_ns = moved.last_ns();
    assert!(ahead_ns.abs_diff(before_ns + YEAR_NS) < HOUR_NS, "{before_ns} {ahead_ns}");
    let new_years = moved.starts("each-year").len();
    moved.node.down();
    moved.set(-YEAR_S);
    moved.up();
    moved.goes_on("behind at the start");
    let behind_ns = moved.last_ns();
    assert!(behind_ns > ahead_ns && behind_ns - ahead_ns < HOUR_NS, "{ahead_ns} {behind_ns}");
    assert_eq!(moved.starts("each-year").len(), new_years, "no new year while it was down");
    let said = moved.ok(&["log", "verify"]);
    assert!(!said.is_empty());
}

struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
