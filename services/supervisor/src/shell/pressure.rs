//! What the kernel counts of waiting: of one service and of the machine. And whether the machine slept.
//!
//! Of a service: the time that its threads stood in the queue for the processor (`/proc/PID/task/TID/schedstat`, on every
//! kernel that counts it), and the pressure in its cgroup where that is of version 2. Of the machine: `/proc/pressure`. What
//! is not there is not counted; see `core/hang.rs` for what is left then.

use std::{path::Path, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use crate::core::{
    hang::{Reading, Stalls},
    supervisor::Monotonic,
};

const MACHINE: &str = "/proc/pressure";
/// Where version 2 is mounted, alone or beside version 1.
const GROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Threads of one service that are looked at; each costs some microseconds.
const THREADS_MAX: usize = 64;
/// Sleep that is shorter is the difference of two looks at two clocks.
const SLEEP_MIN: Duration = Duration::from_millis(100);

/// `pid` is the service's, if it is known.
pub(super) fn read(at: Monotonic, pid: Option<u32>) -> Reading {
    let own = pid.map(own).unwrap_or_default();
    Reading { at, own, machine: pressure_below(Path::new(MACHINE), "cpu", "memory", "io", "some") }
}

fn own(pid: u32) -> Stalls {
    let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    let group = group.as_deref().and_then(group_path);
    let of_group = |path: &str| {
        let folders = GROUPS.map(|root| Path::new(root).join(path.trim_start_matches('/')));
        let found = folders.into_iter().find(|folder| folder.join("memory.pressure").exists())?;
        Some(pressure_below(&found, "cpu.pressure", "memory.pressure", "io.pressure", "full"))
    };
    let stalls = group.and_then(of_group).unwrap_or_default();
    Stalls { processor_us: queued_us(pid).or(stalls.processor_us), ..stalls }
}

/// The line of version 2 in `/proc/PID/cgroup`. The root's pressure is the machine's.
fn group_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| *path != "/")
}

fn pressure_below(folder: &Path, processor: &str, memory: &str, disk: &str, processor_line: &str) -> Stalls {
    let total = |file: &str, line: &str| total_us(&std::fs::read_to_string(folder.join(file)).ok()?, line);
    Stalls {
        processor_us: total(processor, processor_line),
        memory_us: total(memory, "full"),
        disk_us: total(disk, "full"),
    }
}

/// `full avg10=0.00 avg60=0.13 avg300=0.05 total=609883640`
fn total_us(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.split(' ').find_map(|field| field.strip_prefix("total=")?.parse().ok())
}

/// Time on the run queue, of all threads together. None where nobody counts it.
fn queued_us(pid: u32) -> Option<u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().take(THREADS_MAX);
    let times = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some(text.split(' ').nth(1)?.parse::<u64>().ok()? / 1000)
    });
    // A kernel that does not count says zero of everything, or has no such file.
    let all: Vec<u64> = times.collect();
    (!all.is_empty()).then(|| all.iter().fold(0, |sum: u64, one| sum.saturating_add(*one)))
}

/// Time since the boot without that in which the machine was suspended.
pub(super) fn awake() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How long the machine was suspended, as far as it was told of.
#[derive(Debug, Default)]
pub(super) struct Sleep {
    known: Option<Duration>,
}

impl Sleep {
    /// What it slept since the last look: the clock that goes on then against the one that stands still.
    pub(super) fn more(&mut self, boot: Monotonic, awake: Duration) -> Option<Duration> {
        let slept = Duration::from_nanos(boot.0).saturating_sub(awake);
        let known = *self.known.get_or_insert(slept);
        let more = slept.checked_sub(known).filter(|more| *more >= SLEEP_MIN)?;
        self.known = Some(slept);
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it_and_what_is_not_there_is_not_counted() {
        let text = "some avg10=85.31 avg60=82.27 avg300=82.88 total=32687\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!((total_us(text, "some"), total_us(text, "full")), (Some(32_687), Some(7)));
        assert_eq!(
            (total_us("", "some"), total_us("some total=x", "some"), total_us(text, "so")),
            (None, None, None)
        );
        let folder = tempfile::tempdir().unwrap();
        let read = || pressure_below(folder.path(), "cpu", "memory", "io", "some");
        assert_eq!(read(), Stalls::default());
        std::fs::write(folder.path().join("cpu"), text).unwrap();
        std::fs::write(folder.path().join("memory"), text).unwrap();
        assert_eq!(read(), Stalls { processor_us: Some(32_687), memory_us: Some(7), disk_us: None });
        assert_eq!(group_path("12:pids:/x\n0::/a/b\n"), Some("/a/b"));
        assert_eq!((group_path("0::/\n"), group_path("12:pids:/x\n")), (None, None));
        assert_eq!(own(u32::MAX), Stalls::default());
    }

    #[test]
    fn a_process_that_waits_for_the_processor_is_told_from_one_that_sleeps() {
        // Itself: it was queued at least as long as it says, and the count never goes back.
        let before = queued_us(std::process::id());
        let after = queued_us(std::process::id());
        assert!(before.is_some() && after >= before);
    }

    #[test]
    fn only_what_the_machine_slept_since_the_last_look_is_told() {
        let mut sleep = Sleep::default();
        let at = |boot_ms: u64, awake_ms: u64| (Monotonic::from_ms(boot_ms), Duration::from_millis(awake_ms));
        let mut more = |(boot, awake)| sleep.more(boot, awake);
        assert_eq!(more(at(9_000, 4_000)), None, "before this supervisor");
        assert_eq!(more(at(10_000, 5_000)), None);
        assert_eq!(more(at(11_099, 6_000)), None);
        assert_eq!(more(at(11_100, 6_000)), Some(Duration::from_millis(100)));
        assert_eq!(more(at(11_100, 6_000)), None);
        assert_eq!(more(at(3_611_100, 6_000)), Some(Duration::from_secs(3600)));
        let before = awake();
        assert!(Duration::from_nanos(kit::boot_time_ns()) >= before);
    }
}
