//! What a process uses, as the kernel tells it.

use std::io::{BufRead, BufReader};

/// Lines of a summary that are looked at.
const LINES_MAX: usize = 64;

/// Resident memory of a process with shared pages divided among those who share them; 0 when it has gone.
#[must_use]
pub(super) fn pss_bytes(pid: u32) -> u64 {
    let Ok(file) = std::fs::File::open(format!("/proc/{pid}/smaps_rollup")) else { return 0 };
    let lines = BufReader::new(file).lines().take(LINES_MAX).map_while(Result::ok);
    lines.into_iter().find_map(|line| pss_of(&line)).unwrap_or(0)
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
    }
}
