//! How it starts, when it is ready, how often it is started again, how it ends.

use super::Work;
use crate::{
    limits::DURATION_MS_MAX,
    report::Fate,
    unit::{Setting, value},
};

/// systemd's defaults.
const START_MS: u64 = 90_000;
const STOP_MS: u64 = 90_000;
const DELAY_MS: u64 = 100;
const BURST: u64 = 5;
const INTERVAL_MS: u64 = 10_000;
/// The most that a manifest takes: the supervisor's `RESTARTS_MAX`.
const RESTARTS_MAX: u64 = 1000;

impl Work<'_> {
    pub(super) fn life(&mut self) {
        let kind = self.kind();
        self.pid_file(&kind);
        self.timeouts(&kind);
        self.watchdog(&kind);
        self.restart();
        self.kill();
        self.rest(&kind);
    }

    fn kind(&mut self) -> String {
        let one = self.service("Type");
        let kind = one.as_ref().map_or("simple", |one| one.value.as_str()).to_owned();
        let (runs, how) = match kind.as_str() {
            "forking" => ("forks", None),
            "oneshot" => ("once", None),
            "dbus" => ("foreground", Some("ready when it has started, not when it has its name on the bus")),
            _ => ("foreground", None),
        };
        self.manifest.program.runs = Some(runs);
        self.reload_signal(&kind);
        let Some(one) = one else { return kind };
        match (kind.as_str(), how) {
            ("notify" | "notify-reload", _) => {
                self.manifest.health.kind = Some("sd_notify");
                self.mapped(&one, "[health] kind = \"sd_notify\"");
            }
            ("simple" | "exec" | "idle" | "forking" | "oneshot", _) => {
                self.mapped(&one, format!("[program] runs = {runs:?}"));
            }
            (_, Some(how)) => self.approximated(&one, how),
            _ => self.refused(&one, "it is no type of service that is known here"),
        }
        kind
    }

    fn reload_signal(&mut self, kind: &str) {
        if kind == "notify-reload" {
            let signal = self.service("ReloadSignal");
            let named = signal.as_ref().map_or(Some("hup"), |one| value::signal(&one.value));
            if !self.manifest.program.reload.is_empty() {
                if let Some(one) = signal {
                    self.ignored(&one, "ExecReload= is run instead");
                }
                return;
            }
            self.manifest.program.reload_signal = named;
            match (signal, named) {
                (Some(one), Some(_)) => self.mapped(&one, "[program] reload_signal"),
                (Some(one), None) => self.refused(&one, "a manifest cannot name this signal"),
                _ => {}
            }
        } else if let Some(one) = self.service("ReloadSignal") {
            self.refused(&one, "it counts for Type=notify-reload only");
        }
    }

    fn pid_file(&mut self, kind: &str) {
        let Some(one) = self.service("PIDFile") else { return };
        let Some(path) = self.expanded(&one) else { return };
        if kind != "forking" {
            self.ignored(&one, "a program that stays in the foreground needs none");
            return;
        }
        let path = if path.starts_with('/') { path } else { format!("/run/{path}") };
        if path.split('/').any(|part| part == "..") {
            self.refused(&one, "it is no absolute path without `..`");
            return;
        }
        self.manifest.program.pid_file = Some(super::plain_path(&path));
        self.mapped(&one, "[program] pid_file");
    }

    fn timeouts(&mut self, kind: &str) {
        let both = self.service("TimeoutSec");
        let start = self.service("TimeoutStartSec");
        let stop = self.service("TimeoutStopSec");
        let default = if kind == "oneshot" { DURATION_MS_MAX } else { START_MS };
        self.manifest.health.startup_timeout_ms = Some(default);
        self.manifest.health.stop_timeout_ms = Some(STOP_MS);
        // `TimeoutSec=` is both, wherever it stands; the single ones win here, as when they come later.
        for (one, starts, stops) in [(&both, true, true), (&start, true, false), (&stop, false, true)] {
            let Some(one) = one else { continue };
            let Some((ms, cut)) = self.span_ms(one) else { continue };
            // 0 is no limit, as with systemd before it knew `infinity`.
            let (ms, cut) = if ms == 0 { (DURATION_MS_MAX, true) } else { (ms, cut) };
            if starts {
                self.manifest.health.startup_timeout_ms = Some(ms);
            }
            if stops {
                self.manifest.health.stop_timeout_ms = Some(ms);
            }
            let key = if starts { "startup_timeout_ms" } else { "stop_timeout_ms" };
            match cut {
                true => self.approximated(one, format!("[health] {key} is a day, the longest there is")),
                false => self.mapped(one, format!("[health] {key}")),
            }
        }
        if let Some(one) = self.service("SendSIGKILL") {
            match self.truth(&one) {
                Some(false) => {
                    self.approximated(
                        &one,
                        "what has not ended after the stop timeout is killed in any case",
                    );
                }
                Some(true) => self.ignored(&one, "it is killed after the stop timeout"),
                None => {}
            }
        }
    }

    fn watchdog(&mut self, kind: &str) {
        let Some(one) = self.service("WatchdogSec") else { return };
        let Some((ms, _)) = self.span_ms(&one) else { return };
        match (ms, kind) {
            (0, _) => self.ignored(&one, "there is no watchdog"),
            (_, "notify" | "notify-reload") => {
                self.manifest.health.watchdog_ms = Some(ms.max(10));
                self.mapped(&one, "[health] watchdog_ms");
            }
            _ => self.refused(&one, "a watchdog needs Type=notify here"),
        }
    }

    fn restart(&mut self) {
        let one = self.service("Restart");
        let word = one.as_ref().map_or("no", |one| one.value.as_str()).to_owned();
        let (mode, how) = match word.as_str() {
            "no" => ("never", None),
            "always" => ("always", None),
            "on-failure" => ("on_failure", None),
            "on-success" => ("always", Some("it is also started again after a failure")),
            "on-abnormal" | "on-abort" | "on-watchdog" => {
                ("on_failure", Some("it is also started again after an exit code that is not 0"))
            }
            _ => ("never", Some("it is no word for it; never")),
        };
        self.manifest.restart.mode = Some(mode);
        if let Some(one) = &one {
            match how {
                Some(how) => self.approximated(one, how),
                None => self.mapped(one, "[restart] mode"),
            }
        }
        self.budget(mode);
        let delay = self.service("RestartSec");
        let mut ms = DELAY_MS;
        if let Some(one) = &delay
            && let Some((given, cut)) = self.span_ms(one)
        {
            ms = given;
            match cut {
                true => self.approximated(one, "[restart] delay_ms is a day, the longest there is"),
                false => self.mapped(one, "[restart] delay_ms"),
            }
        }
        if mode != "never" {
            self.manifest.restart.delay_ms = Some(ms);
        }
        self.exits(mode);
    }

    fn budget(&mut self, mode: &str) {
        let interval = self.limit("StartLimitIntervalSec");
        let burst = self.limit("StartLimitBurst");
        let window = interval.as_ref().and_then(|one| self.span_ms(one)).map_or(INTERVAL_MS, |(ms, _)| ms);
        let count = burst.as_ref().map_or(Some(BURST), |one| one.value.parse().ok()).unwrap_or(BURST);
        let endless = window == 0 || count == 0;
        for one in [&interval, &burst].into_iter().flatten() {
            match () {
                () if mode == "never" => self.mapped(one, "it is never started again by itself"),
                () if endless => self.approximated(one, "it is started again without end"),
                () if count > RESTARTS_MAX => {
                    self.approximated(one, format!("at most {RESTARTS_MAX} restarts are counted"));
                }
                () => self.mapped(one, "[restart] max_restarts and window_ms"),
            }
        }
        if mode != "never" {
            let restart = &mut self.manifest.restart;
            restart.max_restarts = Some(if endless { RESTARTS_MAX } else { count.min(RESTARTS_MAX) });
            restart.window_ms = Some(if endless { INTERVAL_MS } else { window });
            restart.on_exhausted = Some(if endless { "RetryForever" } else { "Stop" });
        }
    }

    /// Stands in [Unit] now, and once stood in [Service].
    fn limit(&mut self, key: &str) -> Option<Setting> {
        let old = self.service(key);
        let new = self.one("Unit", key);
        match (old, new) {
            (Some(old), Some(new)) => {
                let why = format!("{} says it too", new.place);
                self.ignored(&old, why);
                Some(new)
            }
            (old, new) => new.or(old),
        }
    }

    fn exits(&mut self, mode: &str) {
        for one in self.unit.list("Service", "SuccessExitStatus") {
            match mode {
                "on_failure" => self.approximated(
                    &one,
                    "only 0 is a success: it is started again after these too, unless it was to stop",
                ),
                "never" => self.approximated(
                    &one,
                    "only 0 is a success: after these it is shown as failed, unless it was to stop",
                ),
                _ => self.ignored(&one, "it is started again in any case"),
            }
        }
        for one in self.unit.list("Service", "RestartPreventExitStatus") {
            let endless = self.manifest.restart.on_exhausted == Some("RetryForever");
            match mode {
                "never" => self.approximated(&one, "it is never started again"),
                _ if endless => self.refused(&one, "it is started again after these too, without end"),
                _ => self.approximated(
                    &one,
                    "it is started again after these too, until the budget of [restart] is spent",
                ),
            }
        }
    }

    fn kill(&mut self) {
        if let Some(one) = self.service("KillMode") {
            match one.value.as_str() {
                "mixed" => self.mapped(&one, "the main process gets the signal, what is left is killed"),
                "control-group" => {
                    self.approximated(
                        &one,
                        "only the main process gets the signal; what is left after its end is killed",
                    );
                }
                "process" => self.approximated(&one, "what is left after the main process's end is killed"),
                _ => self.refused(&one, "nothing outlives its service"),
            }
        }
        if let Some(one) = self.service("KillSignal") {
            match value::signal(&one.value) {
                Some(signal) if self.manifest.program.stop_signal.is_none() => {
                    self.manifest.program.stop_signal = Some(signal);
                    self.mapped(&one, "[program] stop_signal");
                }
                Some(_) => self.ignored(&one, "ExecStop= sends its own"),
                None if one.value.ends_with("CONT") && !self.manifest.program.stop.is_empty() => {
                    self.ignored(&one, "the stop command does it");
                }
                None => self.refused(&one, "a manifest can name term quit int hup usr1 usr2 winch"),
            }
        }
        if let Some(one) = self.service("SendSIGHUP") {
            match self.truth(&one) {
                Some(true) => self.refused(&one, "a second signal is not sent"),
                Some(false) => self.ignored(&one, "it is not sent"),
                None => {}
            }
        }
    }

    fn rest(&mut self, kind: &str) {
        if let Some(one) = self.service("RemainAfterExit") {
            match (self.truth(&one), kind) {
                (Some(false), _) => self.ignored(&one, "it is done when it has ended"),
                (Some(true), _) if !self.manifest.program.stop.is_empty() => {
                    self.manifest.program.stop.clear();
                    self.refused(
                        &one,
                        "nothing is left to be stopped once it has ended, so ExecStop= is never run",
                    );
                }
                (Some(true), "oneshot") => {
                    self.approximated(&one, "once it has ended with 0 it is done, and shown so")
                }
                (Some(true), _) => {
                    self.manifest.program.runs = Some("once");
                    self.manifest.program.pid_file = None;
                    self.approximated(&one, "[program] runs = \"once\": once it has ended with 0 it is done");
                }
                (None, _) => {}
            }
        }
        if let Some(one) = self.service("ExitType") {
            match one.value.as_str() {
                "main" => self.ignored(&one, "it ends with its main process"),
                _ => self.refused(&one, "it ends with its main process"),
            }
        }
        if let Some(one) = self.service("NotifyAccess") {
            match one.value.as_str() {
                "all" => self.mapped(&one, "any process of the service may speak"),
                _ => self.approximated(&one, "any process of the service may speak"),
            }
        }
        if let Some(one) = self.service("BusName") {
            self.bus(&one);
        }
        if let Some(one) = self.service("OOMPolicy") {
            match one.value.as_str() {
                "continue" => self.mapped(
                    &one,
                    "the kernel ends one process; the service goes on if it was not the main one",
                ),
                _ => self.approximated(
                    &one,
                    "the kernel ends one process; the service ends if it was the main one",
                ),
            }
        }
        for key in ["StartLimitAction", "FailureAction", "SuccessAction", "JobTimeoutAction"] {
            let Some(one) = self.limit(key) else { continue };
            match one.value.as_str() {
                "none" => self.ignored(&one, "nothing is to be done"),
                _ => self.refused(&one, "no service brings the host down"),
            }
        }
    }

    fn bus(&mut self, one: &Setting) {
        const BUS: &str = "/run/dbus/system_bus_socket";
        match self.host.exists(BUS) {
            true => {
                self.grant(BUS, true);
                self.approximated(one, format!("{BUS} is granted; nobody waits for the name"));
            }
            false => self
                .approximated(one, format!("there is no {BUS} here now; grant it with `fs` where there is")),
        }
        let why = "a bus checks who calls by the host's user, so the program must run as the user that the bus's rules name";
        self.whole(Fate::Approximated, why);
    }
}
