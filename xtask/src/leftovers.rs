//! What tests must not leave behind: processes, mounts, cgroups.
//!
//! Processes are exact: we are a subreaper (see `proc`), so whatever a test left descends from us. Mounts and cgroups
//! belong to the machine; those that were not there before count, after a moment in which a dying process may let go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The kernel removes mounts and cgroups of a killed process a little after its end.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    parent: i32,
    command: String,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    processes: BTreeSet<i32>,
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    processes: Vec<Process>,
    mounts: Vec<String>,
    cgroups: Vec<PathBuf>,
}

impl Snapshot {
    pub(crate) fn take() -> Result<Self> {
        Ok(Self {
            processes: descendants()?.iter().map(|p| p.pid).collect(),
            mounts: mounts()?,
            cgroups: cgroups(Path::new("/sys/fs/cgroup")),
        })
    }

    fn compare(&self) -> Result<Leftovers> {
        let now = Self::take()?;
        Ok(Leftovers {
            processes: descendants()?.into_iter().filter(|p| !self.processes.contains(&p.pid)).collect(),
            mounts: now.mounts.difference(&self.mounts).cloned().collect(),
            cgroups: now.cgroups.difference(&self.cgroups).cloned().collect(),
        })
    }

    /// Prints the counts, ends leftover processes, and fails if there was anything.
    pub(crate) fn check(&self) -> Result<()> {
        let started = Instant::now();
        let mut left = self.compare()?;
        while !left.is_empty() && started.elapsed() < GRACE {
            std::thread::sleep(POLL);
            left = self.compare()?;
        }
        println!(
            "left behind: {} processes, {} mounts, {} cgroups",
            left.processes.len(),
            left.mounts.len(),
            left.cgroups.len()
        );
        for process in &left.processes {
            println!("  process {} (parent {}): {}", process.pid, process.parent, process.command);
        }
        for mount in &left.mounts {
            println!("  mount {mount}");
        }
        for cgroup in &left.cgroups {
            println!("  cgroup {}", cgroup.display());
        }
        end(&left.processes);
        if !left.is_empty() {
            bail!(
                "tests left something behind; the processes have been ended, mounts and cgroups stand where they are"
            );
        }
        Ok(())
    }
}

impl Leftovers {
    fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.mounts.is_empty() && self.cgroups.is_empty()
    }
}

/// All living processes below this one, zombies left out.
pub(crate) fn descendants() -> Result<Vec<Process>> {
    let mut all: BTreeMap<i32, Process> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").context("listing /proc")? {
        let Some(pid) = entry.ok().and_then(|e| e.file_name().to_str().and_then(|n| n.parse::<i32>().ok()))
        else {
            continue;
        };
        // It may end while we look.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((name, state, parent)) = parse_stat(&stat) else { continue };
        if matches!(state, 'Z' | 'X') {
            continue;
        }
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let command = if command.trim().is_empty() { format!("[{name}]") } else { command.trim().to_owned() };
        all.insert(pid, Process { pid, parent, command });
    }
    let own = std::process::id().cast_signed();
    Ok(all.values().filter(|p| descends(&all, p.parent, own)).cloned().collect())
}

fn descends(all: &BTreeMap<i32, Process>, mut parent: i32, from: i32) -> bool {
    // Bounded, since the table is no atomic picture and could show a circle.
    for _ in 0..all.len() {
        if parent == from {
            return true;
        }
        match all.get(&parent) {
            Some(process) => parent = process.parent,
            None => return false,
        }
    }
    false
}

/// Name, state, parent of `/proc/<pid>/stat`. The name may hold anything, also parentheses.
fn parse_stat(stat: &str) -> Option<(&str, char, i32)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut words = after.split_ascii_whitespace();
    Some((name, words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// Ends processes that we inherited. They are ours: nobody else can reap them, so the pid still means them.
pub(crate) fn end(processes: &[Process]) {
    for process in processes {
        let Some(pid) = Pid::from_raw(process.pid) else { continue };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    let started = Instant::now();
    let alive = |p: &Process| descendants().is_ok_and(|all| all.iter().any(|q| q.pid == p.pid));
    while started.elapsed() < GRACE && processes.iter().any(alive) {
        std::thread::sleep(POLL);
    }
}

/// Mounts of this mount namespace as `id mount-point type`: an id of its own also shows what was mounted over.
fn mounts() -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    Ok(text.lines().filter_map(parse_mount).collect())
}

fn parse_mount(line: &str) -> Option<String> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let (id, point) = (left.next()?, left.nth(3)?);
    Some(format!("{id} {point} {}", right.split(' ').next()?))
}

fn cgroups(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        // A cgroup may vanish while we walk.
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
            if is_folder && !of_the_service_manager(&entry.path()) {
                found.insert(entry.path());
                folders.push(entry.path());
            }
        }
    }
    found
}

/// systemd makes and removes these at any time; ours lie below one of them only under a name of our own.
fn of_the_service_manager(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    !name.contains("bailiwick") && (name.starts_with("session-") || name.starts_with("run-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_hostile_names() {
        assert_eq!(parse_stat("12 (a) b) (c) S 7 12 12 0"), Some(("a) b) (c", 'S', 7)));
        assert_eq!(parse_stat("12 (sh) Z 1 12"), Some(("sh", 'Z', 1)));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn mounts_are_told_apart_by_id_point_and_type() {
        let line = "36 35 98:0 /mnt1 /mnt/two rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(parse_mount(line).as_deref(), Some("36 /mnt/two ext3"));
        assert_eq!(parse_mount("36 35"), None);
    }

    #[test]
    fn what_is_new_is_left_behind() {
        let before = Snapshot::take().unwrap();
        let without_mounts = Snapshot { mounts: BTreeSet::new(), ..before };
        assert!(!without_mounts.compare().unwrap().mounts.is_empty());
    }

    #[test]
    fn a_folder_below_the_root_is_a_cgroup() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("memory/bailiwick-1/keys")).unwrap();
        std::fs::create_dir_all(temp.path().join("session-4.scope")).unwrap();
        let names: Vec<PathBuf> =
            cgroups(temp.path()).iter().map(|p| p.strip_prefix(temp.path()).unwrap().to_path_buf()).collect();
        assert_eq!(names, ["memory", "memory/bailiwick-1", "memory/bailiwick-1/keys"].map(PathBuf::from));
    }
}
