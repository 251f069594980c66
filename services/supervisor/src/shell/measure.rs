//! What a process uses, as the kernel tells it.

use std::{
    fs::File,
    io::{BufRead, BufReader},
};

/// Lines of a summary that are looked at.
const LINES_MAX: usize = 64;
/// Processes of one service that are looked at; each costs some microseconds.
const PROCESSES_MAX: usize = 256;

/// Resident memory of a process with shared pages divided among those who share them; 0 when it has gone, or when it
/// may not be looked at (the first process of a program, on a rootless node).
#[must_use]
pub(super) fn pss_bytes(pid: u32) -> u64 {
    first_line(&format!("/proc/{pid}/smaps_rollup"), pss_of).unwrap_or(0)
}

/// The same of a program's whole tree, the init before it included.
#[must_use]
pub(super) fn tree_pss_bytes(pid: u32) -> u64 {
    let parent = |line: &str| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok();
    let Some(init) = first_line(&format!("/proc/{pid}/status"), parent) else { return 0 };
    let mut tree = vec![init];
    let mut next = 0;
    while let Some(pid) = tree.get(next).copied() {
        next += 1;
        tree.extend(children(pid).take(PROCESSES_MAX.saturating_sub(tree.len())));
    }
    tree.into_iter().map(pss_bytes).fold(0, u64::saturating_add)
}

/// Each thread has those that it has started.
fn children(pid: u32) -> impl Iterator<Item = u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.flat_map(|thread| {
        let listed = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        listed.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>()
    })
}

fn first_line<T>(path: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    let lines = BufReader::new(File::open(path).ok()?).lines().take(LINES_MAX).map_while(Result::ok);
    lines.into_iter().find_map(|line| read(&line))
}

fn pss_of(line: &str) -> Option<u64> {
    let kilobytes = line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim();
    Some(kilobytes.parse::<u64>().ok()?.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_process_is_read_and_of_none_is_zero() {
        assert_eq!(pss_of("Pss:                1234 kB"), Some(1234 * 1024));
        assert_eq!(pss_of("Pss_Dirty:          1234 kB"), None);
        assert!(pss_bytes(std::process::id()) > 0);
        assert_eq!(pss_bytes(u32::MAX), 0);
        assert_eq!(tree_pss_bytes(u32::MAX), 0);
    }

    #[test]
    fn a_tree_counts_the_process_above_and_those_below() {
        let mut shell = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 60 & echo $!; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let below: u32 = line.trim().parse().unwrap();
        let both = pss_bytes(shell.id()) + pss_bytes(below);
        let tree = tree_pss_bytes(below);
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(below.cast_signed()).unwrap(),
            rustix::process::Signal::KILL,
        );
        shell.wait().unwrap();
        assert!(both > 0 && tree >= both / 2, "{tree} of {both}");
    }
}
