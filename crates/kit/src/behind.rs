//! Threads that nobody waits for.

use rustix::{process::setpriority_process, thread::gettid};

/// Lowers the priority of the calling thread, for good: for work behind what callers wait for.
pub fn stand_back() {
    let niceness = i32::try_from(sandbox::seccomp::NICENESS_BEHIND).unwrap_or_default();
    if let Err(error) = setpriority_process(Some(gettid()), niceness) {
        tracing::debug!(%error, "a thread that nobody waits for has the priority of the others");
    }
}
