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
    lines_of(&format!("/proc/{pid}/smaps_rollup")).find_map(|line| bytes_of(&line, "Pss:")).unwrap_or(0)
}

/// The same of a program's whole tree. Of the init before it only what is its own counts: the rest is the keeper's, from
/// which it was copied.
#[must_use]
pub(super) fn tree_pss_bytes(pid: u32) -> u64 {
    let parent = |line: &str| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok();
    let Some(init) = lines_of(&format!("/proc/{pid}/status")).find_map(|line| parent(&line)) else {
        return 0;
    };
    let mut tree: Vec<u32> = children(init).take(PROCESSES_MAX).collect();
    let mut next = 0;
    while let Some(pid) = tree.get(next).copied() {
        next += 1;
        tree.extend(children(pid).take(PROCESSES_MAX.saturating_sub(tree.len())));
    }
    tree.into_iter().map(pss_bytes).fold(private_bytes(init), u64::saturating_add)
}

fn private_bytes(pid: u32) -> u64 {
    let private = lines_of(&format!("/proc/{pid}/smaps_rollup"));
    private.filter_map(|line| bytes_of(&line, "Private_Clean:").or(bytes_of(&line, "Private_Dirty:"))).sum()
}

/// Each thread has those that it has started.
fn children(pid: u32) -> impl Iterator<Item = u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.flat_map(|thread| {
        let listed = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        listed.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>()
    })
}

fn lines_of(path: &str) -> impl Iterator<Item = String> + use<> {
    let lines = File::open(path).into_iter().flat_map(|file| BufReader::new(file).lines());
    lines.take(LINES_MAX).map_while(Result::ok)
}

fn bytes_of(line: &str, name: &str) -> Option<u64> {
    let kilobytes = line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim();
    Some(kilobytes.parse::<u64>().ok()?.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_process_is_read_and_of_none_is_zero() {
        assert_eq!(bytes_of("Pss:                1234 kB", "Pss:"), Some(1234 * 1024));
        assert_eq!(bytes_of("Pss_Dirty:          1234 kB", "Pss:"), None);
        assert!(pss_bytes(std::process::id()) > 0);
        assert_eq!(pss_bytes(u32::MAX), 0);
        assert_eq!(tree_pss_bytes(u32::MAX), 0);
    }

    #[test]
    fn a_tree_is_everything_below_the_process_above() {
        // The outer shell stands for the init.
        let mut shell = std::process::Command::new("/bin/sh")
            .args(["-c", "sh -c 'sleep 60 & echo $$; wait' & sleep 60 & wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let program: u32 = line.trim().parse().unwrap();
        let all: Vec<u32> = children(shell.id()).chain(children(program)).collect();
        assert_eq!(all.len(), 3);
        let sum: u64 = all.iter().map(|pid| pss_bytes(*pid)).sum();
        let tree = tree_pss_bytes(program);
        for pid in all {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        shell.wait().unwrap();
        // Others may come to share a page meanwhile, or cease to.
        assert!(sum > 0 && tree > sum / 2, "{tree} of {sum}");
    }
}
