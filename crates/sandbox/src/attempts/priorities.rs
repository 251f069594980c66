//! Taking the processor from others.

use rustix::process::Pid;

use super::calls::call;
use super::{Attempt, Canaries, Failure, NEEDS_THE_HOSTS_RIGHT};
use crate::guard::Guard::{Caps, Pidns, Userns};

/// `which` of the calls on priorities of input and output: a process.
const OF_A_PROCESS: u64 = 1;
const CLASS_SHIFT: u32 = 13;
const REAL_TIME: u64 = 1;
const BEST_EFFORT: u64 = 2;

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("raise_its_priority", "runs before others of the host", &[Caps, Userns], |_| {
        Ok(rustix::process::setpriority_process(None, -5)?)
    })
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("read_disks_in_real_time", "reads disks before others of the host", &[Caps, Userns], |_| {
        io_priority(0, REAL_TIME << CLASS_SHIFT)
    })
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("pin_a_process", "chooses the processors of a process of the user", &[Pidns], pin),
    Attempt::new("schedule_a_process", "changes how a process of the user is scheduled", &[Pidns], schedule),
    Attempt::new(
        "slow_the_disks_of_a_process",
        "makes the disks slow for a process of the user",
        &[Pidns],
        |canaries| io_priority(process(canaries)?, (BEST_EFFORT << CLASS_SHIFT) | 7),
    ),
    Attempt::new("raise_a_hard_limit", "raises a limit that it was given", &[Caps, Userns], |_| {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let now = getrlimit(Resource::Nofile);
        let more = now.maximum.unwrap_or(0).saturating_add(1);
        Ok(setrlimit(Resource::Nofile, Rlimit { current: now.current, maximum: Some(more) })?)
    })
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("escape_the_oom_killer", "lets the host end others in its place", &[Caps, Userns], |_| {
        let now = std::fs::read_to_string("/proc/self/oom_score_adj")?;
        let now: i32 = now.trim().parse().map_err(|_| Failure::Broken("no score".to_owned()))?;
        Ok(std::fs::write("/proc/self/oom_score_adj", (now - 100).max(-1000).to_string())?)
    })
    .rootless(NEEDS_THE_HOSTS_RIGHT),
];

fn process(canaries: &Canaries) -> Result<u64, Failure> {
    let pid = Pid::from_raw(canaries.number("process")?).ok_or(Failure::Absent("process"))?;
    Ok(pid.as_raw_nonzero().get() as u64)
}

fn io_priority(pid: u64, priority: u64) -> Result<(), Failure> {
    // SAFETY: numbers only.
    unsafe { call(libc::SYS_ioprio_set, [OF_A_PROCESS, pid, priority, 0, 0]) }?;
    Ok(())
}

/// To those that it has.
fn pin(canaries: &Canaries) -> Result<(), Failure> {
    let pid = process(canaries)?;
    let mut mask = [0u64; 16];
    // SAFETY: a buffer with its length, which outlives the call.
    let bytes = unsafe { call(libc::SYS_sched_getaffinity, [pid, 128, mask.as_mut_ptr() as u64, 0, 0]) }?;
    // SAFETY: as many bytes as were just filled.
    unsafe { call(libc::SYS_sched_setaffinity, [pid, bytes as u64, mask.as_ptr() as u64, 0, 0]) }?;
    Ok(())
}

/// As it is scheduled already.
fn schedule(canaries: &Canaries) -> Result<(), Failure> {
    let parameters = 0i32;
    let arguments = [process(canaries)?, libc::SCHED_OTHER as u64, &raw const parameters as u64, 0, 0];
    // SAFETY: one number, which outlives the call.
    unsafe { call(libc::SYS_sched_setscheduler, arguments) }?;
    Ok(())
}
