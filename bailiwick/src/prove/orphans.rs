//! What a child leaves behind when it ends, however far away from it that went to live: ended to the last.
//!
//! While this stands, this process is where orphans of its descendants go, so a node whose starter was killed becomes
//! its child and cannot get lost, nor can its number be anybody else's. It is told to end twice, upon which a keeper
//! ends everything that it holds; what takes no notice is killed, and what that leaves comes here in its turn.

use std::{collections::BTreeSet, os::fd::OwnedFd, time::Duration};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid},
};
use sandbox::{process::adopt_orphans, wait_for};

/// How long an orderly end may take: a keeper has this long before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the kernel may take to end what was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub struct Orphans {
    /// Children that were there before, which are somebody else's business.
    before: BTreeSet<i32>,
    patience: Duration,
}

impl Orphans {
    /// From now on they come here.
    pub fn adopt() -> Result<Self> {
        let before = children();
        adopt_orphans().context("becoming the parent of orphans")?;
        Ok(Self { before, patience: END_TIMEOUT })
    }

    /// Ends all that have come, and what they leave; how many were still running. Nobody else may wait for a child that
    /// was started since `adopt`.
    pub fn end(self) -> usize {
        let mut running = BTreeSet::new();
        let mut gone = || {
            let orphans = self.reap();
            running.extend(orphans.iter().copied());
            orphans.is_empty().then_some(())
        };
        if gone().is_none() {
            // The second is the keeper's word for at once.
            self.tell(Signal::TERM);
            self.tell(Signal::TERM);
            if wait_for(self.patience, LOOK_EVERY, &mut gone).is_none() {
                wait_for(KILL_TIMEOUT, LOOK_EVERY, || {
                    self.tell(Signal::KILL);
                    gone()
                });
            }
        }
        running.len()
    }

    /// Takes the exits of those that have ended; the others.
    fn reap(&self) -> Vec<i32> {
        let mut orphans: Vec<i32> = children().difference(&self.before).copied().collect();
        orphans.retain(|orphan| {
            let ended = waitpid(Pid::from_raw(*orphan), WaitOptions::NOHANG);
            matches!(ended, Ok(None))
        });
        orphans
    }

    fn tell(&self, signal: Signal) {
        for orphan in self.reap().into_iter().filter_map(Pid::from_raw) {
            // Not reaped yet, so the number is still its own.
            if let Ok(orphan) = pidfd_open(orphan, PidfdFlags::empty()) {
                let _ = pidfd_send_signal(&orphan, signal);
                settle(&orphan);
            }
        }
    }
}

impl Drop for Orphans {
    fn drop(&mut self) {
        let _ = rustix::process::set_child_subreaper(None);
    }
}

/// A moment for one signal to be taken in before the next of the same kind, which would be one with it.
fn settle(process: &OwnedFd) {
    const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&MOMENT));
}

/// Numbers of this process's children, ended ones included.
fn children() -> BTreeSet<i32> {
    let own = std::process::id();
    let folder = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = folder.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|pid| parent(*pid) == Some(own)).collect()
}

fn parent(pid: i32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may contain anything: state, parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn sleepers(mark: &str) -> usize {
        let folder = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = folder.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| String::from_utf8_lossy(line).starts_with(&format!("sleep\0{mark}"))).count()
    }

    /// One that ends in order, one that takes no notice, and one below it that only its death makes an orphan.
    #[test]
    fn what_a_killed_child_has_left_in_sessions_of_its_own_is_ended() {
        let mark = format!("{}.7", 100_000 + std::process::id());
        let mut orphans = Orphans::adopt().unwrap();
        orphans.patience = Duration::from_millis(300);
        let script = format!(
            "setsid sleep {mark} & setsid sh -c 'trap \"\" TERM; sleep {mark} & while :; do sleep 1; done' & exec sleep 60"
        );
        let mut child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        wait_for(END_TIMEOUT, LOOK_EVERY, || (sleepers(&mark) == 2).then_some(())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(orphans.end() >= 2);
        assert_eq!(sleepers(&mark), 0);
    }
}
