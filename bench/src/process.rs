//! Processes that the bench starts: found, measured, and ended whatever happens.

use std::{
    collections::BTreeSet,
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};

/// What a polite signal is given before the final one.
const GRACE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Orphans of what is started become children of this process, so that none is out of sight.
pub(crate) fn adopt_orphans() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("becoming a subreaper")
}

pub(crate) fn kill(pid: i32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid).with_context(|| format!("{pid} is no pid"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("opening process {pid}"))?;
    pidfd_send_signal(&pidfd, signal).with_context(|| format!("signalling process {pid}"))
}

/// Kibibytes of memory, shared pages counted in their share.
fn pss_kib(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Mebibytes of all of these together; a process that has ended counts nothing.
pub(crate) fn pss_mib(pids: &[i32]) -> f64 {
    pids.iter().filter_map(|pid| pss_kib(*pid)).sum::<u64>() as f64 / 1024.0
}

/// Processor time that a process has had, all its threads together, in nanoseconds. Threads that have ended count nothing.
pub(crate) fn cpu_ns(pid: i32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let of_thread = |entry: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        let text = std::fs::read_to_string(entry.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    threads.filter_map(of_thread).sum()
}

/// How often a process has gone to sleep by itself so far, all its threads together: each time something woke it.
pub(crate) fn sleeps(pid: i32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let of_thread = |entry: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        let text = std::fs::read_to_string(entry.ok()?.path().join("status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse().ok()
    };
    threads.filter_map(of_thread).sum()
}

/// Which process of a node this is, as its arguments tell.
pub(crate) fn node_name(pid: i32) -> String {
    let text = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = text.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut words = words.skip_while(|word| word != "process").skip(1).skip_while(|word| word == "service");
    words.next().map_or_else(String::new, |word| word.into_owned())
}

/// This process's children, their children, and so on.
pub(crate) fn descendants(of: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, parent(pid)?))
        })
        .collect();
    let mut found = BTreeSet::from([of]);
    loop {
        let before = found.len();
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| found.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            found.remove(&of);
            return found.into_iter().collect();
        }
    }
}

pub(crate) fn parent(pid: i32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold spaces and brackets.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// A program of a peer with everything below it; ended when this value is.
pub(crate) struct Tree {
    child: Child,
    ended: bool,
}

impl Tree {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { child, ended: false })
    }

    pub(crate) fn pid(&self) -> i32 {
        // Pids of Linux fit.
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Asks with `signal`, then ends whatever is left of it.
    pub(crate) fn end(mut self, signal: Signal) -> Result<()> {
        self.finish(signal)
    }

    fn finish(&mut self, signal: Signal) -> Result<()> {
        self.ended = true;
        // Told before the first one ends: its children are then somebody else's.
        let all = descendants(self.pid());
        kill(self.pid(), signal)?;
        let since = Instant::now();
        while since.elapsed() < GRACE && self.child.try_wait().context("waiting")?.is_none() {
            std::thread::sleep(LOOK_EVERY);
        }
        let _ = self.child.kill();
        self.child.wait().context("waiting")?;
        let since = Instant::now();
        loop {
            reap();
            let left: Vec<i32> = all.iter().copied().filter(|pid| is_ours(*pid)).collect();
            if left.is_empty() {
                return Ok(());
            }
            for pid in left {
                // Ended meanwhile is what is wanted.
                let _ = kill(pid, Signal::KILL);
            }
            if since.elapsed() > GRACE {
                bail!("processes do not end");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Tree {
    /// Only on an error path.
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.finish(Signal::TERM)
        {
            eprintln!("bench: {error:#}");
        }
    }
}

/// Below this process: a number that was given to somebody else meanwhile is not.
fn is_ours(pid: i32) -> bool {
    descendants(rustix::process::getpid().as_raw_nonzero().get()).contains(&pid)
}

/// Orphans that have ended.
pub(crate) fn reap() {
    for pid in descendants(rustix::process::getpid().as_raw_nonzero().get()) {
        let is_zombie = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| {
            text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
        });
        let own = parent(pid) == Some(rustix::process::getpid().as_raw_nonzero().get());
        if is_zombie
            && own
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Where a program lies, if it is installed.
pub(crate) fn installed(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// How to get what is missing.
pub(crate) fn missing(program: &str, package: &str) -> String {
    format!("{program} is not installed; `apt-get install {package}` brings it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_ended_with_what_it_left_to_others() {
        adopt_orphans().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "(sleep 100 & sleep 100 & wait) & sleep 100"]);
        let tree = Tree::spawn(&mut command).unwrap();
        let pid = tree.pid();
        let since = Instant::now();
        while descendants(pid).len() < 4 && since.elapsed() < GRACE {
            std::thread::sleep(LOOK_EVERY);
        }
        let all = descendants(pid);
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(pss_mib(&all) > 0.0);
        drop(tree);
        assert!(all.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()), "{all:?}");
    }
}
