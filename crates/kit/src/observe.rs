//! Evidence: structured log on the log pipe, counters as Prometheus text.

use std::{
    fmt::Write,
    io::IsTerminal,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Instant,
};

use crate::table::Operation;

/// A counter of a service: `static SIGNED: Counter = Counter::new("keys_signatures_total", "signatures released")`.
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    help: &'static str,
    value: AtomicU64,
}

impl Counter {
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, value: AtomicU64::new(0) }
    }

    pub fn add(&self, count: u64) {
        self.value.fetch_add(count, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct OperationCount {
    requests: AtomicU64,
    refused: AtomicU64,
    duration_ns: AtomicU64,
}

/// One number of a row.
type Reading = fn(&OperationCount) -> u64;

/// Counts of one service, a row for each operation.
#[derive(Debug)]
pub(crate) struct Metrics {
    service: &'static str,
    rows: Vec<(&'static str, OperationCount)>,
    in_flight: AtomicI64,
    unrouted: AtomicU64,
    started: Instant,
}

impl Metrics {
    pub(crate) fn new(service: &'static str, table: &'static [Operation]) -> Self {
        Self {
            service,
            rows: table.iter().map(|row| (row.path, OperationCount::default())).collect(),
            in_flight: AtomicI64::new(0),
            unrouted: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    pub(crate) fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Acquire)
    }

    pub(crate) fn unrouted(&self) {
        self.unrouted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self, row: usize, refused: bool, since: Instant) {
        let Some((_, count)) = self.rows.get(row) else { return };
        count.requests.fetch_add(1, Ordering::Relaxed);
        count.refused.fetch_add(u64::from(refused), Ordering::Relaxed);
        let ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        count.duration_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Requests and refusals of all operations.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.rows.iter().fold((0, 0), |(requests, refused), (_, count)| {
            (
                requests + count.requests.load(Ordering::Relaxed),
                refused + count.refused.load(Ordering::Relaxed),
            )
        })
    }

    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Prometheus text format.
    pub(crate) fn text(&self, folded: u64, own: &[&'static Counter]) -> String {
        let mut text = String::with_capacity(512 + self.rows.len() * 320);
        let service = self.service;
        let families: [(&str, &str, Reading); 3] = [
            ("bailiwick_requests_total", "calls answered", |c| c.requests.load(Ordering::Relaxed)),
            ("bailiwick_refused_total", "calls answered with an error", |c| {
                c.refused.load(Ordering::Relaxed)
            }),
            ("bailiwick_request_nanoseconds_total", "time spent on calls", |c| {
                c.duration_ns.load(Ordering::Relaxed)
            }),
        ];
        // Writing to a String cannot fail.
        for (name, help, value) in families {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n");
            for (path, count) in &self.rows {
                let _ =
                    writeln!(text, "{name}{{service=\"{service}\",operation=\"{path}\"}} {}", value(count));
            }
        }
        for (name, kind, value) in [
            ("bailiwick_in_flight", "gauge", self.in_flight().max(0).unsigned_abs()),
            ("bailiwick_unrouted_total", "counter", self.unrouted.load(Ordering::Relaxed)),
            ("bailiwick_folded_sequence", "gauge", folded),
            ("bailiwick_uptime_milliseconds", "gauge", self.uptime_ms()),
        ] {
            let _ = writeln!(text, "# TYPE {name} {kind}\n{name}{{service=\"{service}\"}} {value}");
        }
        for counter in own {
            let (name, help, value) = (counter.name, counter.help, counter.get());
            let _ = writeln!(text, "# HELP bailiwick_{name} {help}\n# TYPE bailiwick_{name} counter");
            let _ = writeln!(text, "bailiwick_{name}{{service=\"{service}\"}} {value}");
        }
        text
    }
}

/// JSON lines on standard error, which is the service's log file; for people when it is a terminal. `BAILIWICK_LOG` filters.
/// A line that finds no room is lost, and nothing else.
pub fn start_log(service: &'static str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BAILIWICK_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // By default the loss of a line is told by `eprintln!`, which panics where it cannot write either.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    // Fails only if a log was started before, which then stays.
    let started = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    };
    if started.is_ok() {
        tracing::debug!(service, "log started");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Cost;

    static TABLE: [Operation; 1] = [Operation::reads("/a.B/C", Cost::Light, "system.a.c")];
    static OWN: Counter = Counter::new("own_total", "own things");
    /// Set in the process whose standard error takes nothing.
    const FULL_VARIABLE: &str = "KIT_LOG_ON_A_FULL_DISK";

    #[test]
    fn a_line_that_finds_no_room_ends_nobody() {
        if std::env::var_os(FULL_VARIABLE).is_some() {
            start_log("kit");
            tracing::error!("this goes nowhere");
            return;
        }
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ended = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "observe::tests::a_line_that_finds_no_room_ends_nobody", "--nocapture"])
            .env(FULL_VARIABLE, "yes")
            .stdout(std::process::Stdio::piped())
            .stderr(full)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && said.contains("1 passed"), "{}: {said}", ended.status);
    }

    #[test]
    fn counts_appear_as_prometheus_text() {
        let metrics = Metrics::new("keys", &TABLE);
        metrics.answered(0, false, Instant::now());
        metrics.answered(0, true, Instant::now());
        OWN.add(3);
        let text = metrics.text(41, &[&OWN]);
        for line in [
            "bailiwick_requests_total{service=\"keys\",operation=\"/a.B/C\"} 2",
            "bailiwick_refused_total{service=\"keys\",operation=\"/a.B/C\"} 1",
            "bailiwick_folded_sequence{service=\"keys\"} 41",
            "bailiwick_own_total{service=\"keys\"} 3",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        assert_eq!(metrics.totals(), (2, 1));
    }
}
