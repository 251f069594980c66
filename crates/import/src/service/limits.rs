//! Limits and resources.

use super::Work;
use crate::{
    limits::SERVICE_NAME_BYTES_MAX,
    report::Fate,
    unit::{Setting, value},
};

/// systemd's default: 15 % of 32768.
const TASKS: u64 = 4915;
/// The supervisor's limits.
const PROCESSES_MAX: u64 = 32_768;
const OPEN_FILES: (u64, u64) = (16, 1_048_576);
const MEMORY_MB_MAX: u64 = 1024 * 1024;
const CPU_SHARES: (u64, u64) = (2, 262_144);

/// The higher of `SOFT:HARD`; `None` for infinity.
fn limit(one: &Setting) -> Option<Option<u64>> {
    let mut highest = Some(0);
    for part in one.value.split(':') {
        let number = match part.trim() {
            "infinity" => None,
            text => Some(text.parse::<u64>().ok().or_else(|| value::bytes(text).ok().flatten())?),
        };
        highest = highest.zip(number).map(|(one, other)| one.max(other));
    }
    Some(highest)
}

impl Work<'_> {
    pub(super) fn limits(&mut self) {
        debug_assert!(self.manifest.name.len() <= SERVICE_NAME_BYTES_MAX);
        self.files_and_processes();
        self.other_limits();
        self.memory();
        self.disks();
        self.order();
        if let Some(one) = self.service("DevicePolicy") {
            match one.value.as_str() {
                "closed" => self.mapped(&one, "/dev is its own: null zero full random urandom tty"),
                _ => self.approximated(&one, "/dev is its own: null zero full random urandom tty"),
            }
        }
        if let Some(one) = self.service("Delegate") {
            match value::boolean(&one.value) {
                Some(false) => self.ignored(&one, "no cgroup is handed over"),
                _ => self.refused(&one, "a service cannot make cgroups of its own"),
            }
        }
        if let Some(one) = self.service("IgnoreSIGPIPE") {
            match self.truth(&one) {
                Some(false) => self.mapped(&one, "SIGPIPE has its default"),
                Some(true) => self.approximated(
                    &one,
                    "SIGPIPE has its default: a program that does not ignore it ends by it",
                ),
                None => {}
            }
        }
    }

    fn files_and_processes(&mut self) {
        if let Some(one) = self.service("LimitNOFILE") {
            match limit(&one) {
                Some(Some(files)) if (OPEN_FILES.0..=OPEN_FILES.1).contains(&files) => {
                    self.manifest.sandbox.open_files_max = Some(files);
                    self.mapped(&one, "[sandbox] open_files_max");
                }
                Some(files) => {
                    let most = files.unwrap_or(OPEN_FILES.1).clamp(OPEN_FILES.0, OPEN_FILES.1);
                    self.manifest.sandbox.open_files_max = Some(most);
                    self.approximated(
                        &one,
                        format!("[sandbox] open_files_max = {most}, as near as there is"),
                    );
                }
                None => self.approximated(&one, "it is no number; the default of 4096 holds"),
            }
        }
        let mut processes = TASKS;
        if let Some(one) = self.service("TasksMax") {
            match one.value.parse::<u64>() {
                Ok(tasks) if (1..=PROCESSES_MAX).contains(&tasks) => {
                    processes = tasks;
                    self.mapped(&one, "[sandbox] processes_max");
                }
                _ => {
                    processes = PROCESSES_MAX;
                    self.approximated(
                        &one,
                        format!("[sandbox] processes_max = {PROCESSES_MAX}, the most there is"),
                    );
                }
            }
        }
        if let Some(one) = self.service("LimitNPROC") {
            match limit(&one) {
                Some(Some(count)) if count > 0 => {
                    processes = processes.min(count);
                    self.approximated(
                        &one,
                        "[sandbox] processes_max: the service's processes are counted, not the user's",
                    );
                }
                _ => self.approximated(&one, "the limit of TasksMax= holds"),
            }
        }
        self.manifest.sandbox.processes_max = Some(processes);
    }

    fn other_limits(&mut self) {
        if let Some(one) = self.service("LimitCORE") {
            match limit(&one) {
                Some(Some(0)) => self.mapped(&one, "no core file is written"),
                _ => self.approximated(&one, "no core file is written"),
            }
        }
        if let Some(one) = self.service("LimitMEMLOCK") {
            let lifted = self.manifest.program.privileges.iter().any(|one| one == "ipc_lock");
            self.approximated(
                &one,
                match lifted {
                    true => "the privilege ipc_lock lifts the limit",
                    false => "the limit stays the host's; the privilege ipc_lock would lift it",
                },
            );
        }
        for name in [
            "CPU",
            "FSIZE",
            "DATA",
            "STACK",
            "RSS",
            "AS",
            "LOCKS",
            "SIGPENDING",
            "MSGQUEUE",
            "NICE",
            "RTPRIO",
            "RTTIME",
        ] {
            let Some(one) = self.service(&format!("Limit{name}")) else { continue };
            match limit(&one) {
                Some(None) => self.ignored(&one, "there is no limit"),
                _ => self.refused(&one, "a manifest has no such limit"),
            }
        }
    }

    fn memory(&mut self) {
        for (key, high) in [("MemoryMax", false), ("MemoryHigh", true)] {
            let Some(one) = self.service(key) else { continue };
            match value::bytes(&one.value) {
                Ok(None) => {
                    self.say(&one, if high { Fate::Ignored } else { Fate::Mapped }, "there is no limit")
                }
                Ok(Some(_)) if high && self.manifest.resources.memory_mb.is_some() => {
                    self.ignored(&one, "MemoryMax= is the limit");
                }
                Ok(Some(bytes)) => {
                    self.manifest.resources.memory_mb = Some(bytes.div_ceil(1 << 20).clamp(1, MEMORY_MB_MAX));
                    match high {
                        true => self.approximated(
                            &one,
                            "[resources] memory_mb: beyond it the service is ended, not slowed",
                        ),
                        false => self.mapped(&one, "[resources] memory_mb"),
                    }
                }
                Err(why) => self.refused(&one, format!("{why}; write the size")),
            }
        }
    }

    fn order(&mut self) {
        for (key, usual) in [("CPUShares", 1024), ("CPUWeight", 100)] {
            let Some(one) = self.service(key) else { continue };
            match one.value.parse::<u64>() {
                Ok(weight) => {
                    let shares = (weight.saturating_mul(100) / usual).clamp(CPU_SHARES.0, CPU_SHARES.1);
                    self.manifest.resources.cpu_shares = Some(shares);
                    self.mapped(&one, "[resources] cpu_shares");
                }
                Err(_) => {
                    self.manifest.resources.cpu_shares = Some(CPU_SHARES.0);
                    self.approximated(&one, "[resources] cpu_shares, the least there is");
                }
            }
        }
        if let Some(one) = self.service("Nice") {
            match one.value.parse::<i32>() {
                Ok(0) => self.ignored(&one, "it is the usual"),
                Ok(nice) => {
                    let priority = if nice > 0 { "Low" } else { "Critical" };
                    self.manifest.resources.priority = Some(priority);
                    self.approximated(&one, format!("[resources] priority = {priority:?}"));
                }
                Err(_) => self.approximated(&one, "it is no niceness; the usual one"),
            }
        }
        if let Some(one) = self.service("CPUSchedulingPolicy") {
            match one.value.as_str() {
                "other" => self.mapped(&one, "it is the usual"),
                "idle" | "batch" => {
                    self.manifest.resources.priority = Some("Low");
                    self.approximated(&one, "[resources] priority = \"Low\"");
                }
                _ => self.refused(&one, "nothing is started in real time"),
            }
        }
        for key in ["IOSchedulingClass", "IOSchedulingPriority"] {
            if let Some(one) = self.service(key) {
                self.approximated(&one, "the disk's order follows the niceness");
            }
        }
        if let Some(one) = self.service("OOMScoreAdjust") {
            match one.value.parse::<i32>() {
                Ok(0) => self.ignored(&one, "it is the usual"),
                _ => self.approximated(&one, "not set: who is ended when memory is short follows use; limit the others by [resources] memory_mb"),
            }
        }
    }
}
