//! What a deterministic job could see that no filter hides: the child's part before its `execve`, the parent's after it.

use std::io;
use std::os::fd::OwnedFd;

use crate::notify::Listener;
use crate::{sys, trace};

/// Words of arguments, environment and auxiliary vector that are looked through; more than a plan can have.
const WORDS_MAX: u64 = 32 * 1024;
const WORD: u64 = size_of::<u64>() as u64;
/// Keys of the auxiliary vector.
const AT_NULL: u64 = 0;
const AT_IGNORE: u64 = 1;
const AT_RANDOM: u64 = 25;
const AT_SYSINFO_EHDR: u64 = 33;
/// What stands at `AT_RANDOM` instead of 16 random bytes: the C library makes a canary and pointer guards of it.
const NOT_RANDOM: [u64; 2] = [0x6a6f_6220_6a6f_6220, 0x626f_6a20_626f_6a20];

/// In the child, right before its filter: time stamps trap, addresses are fixed, and it stops once it has executed.
pub(super) fn fix() -> io::Result<()> {
    trace::forbid_time_stamps()?;
    trace::fix_addresses()?;
    trace::trace_me()
}

/// In the parent: the one `execveat` that goes on.
pub(super) fn let_start(listener: Option<&OwnedFd>) -> io::Result<()> {
    let Some(listener) = listener else { return Ok(()) };
    let listener = Listener::from(listener.try_clone()?);
    let Some(call) = listener.receive()? else { return Ok(()) };
    match i64::from(call.number) {
        libc::SYS_execveat => listener.go_on(&call),
        _ => listener.refuse(&call, libc::EPERM),
    }
}

/// In the parent, with the program stopped before its first instruction: the vDSO is in no vector, so every look at a
/// clock is a system call, and what should be random is the same each time.
pub(super) fn settle(pid: i32) -> io::Result<()> {
    match trace::wait_for_stop(pid)? {
        libc::SIGTRAP => {}
        signal => {
            return Err(io::Error::other(format!("it stopped with signal {signal} and not at its start")));
        }
    }
    let stack = trace::stack_pointer(pid)?;
    for (at, key, value) in vector(pid, stack)? {
        match key {
            AT_SYSINFO_EHDR => trace::set_word(pid, at, AT_IGNORE)?,
            AT_RANDOM => {
                trace::set_word(pid, value, NOT_RANDOM[0])?;
                trace::set_word(pid, value.saturating_add(WORD), NOT_RANDOM[1])?;
            }
            _ => {}
        }
    }
    trace::detach(pid)
}

/// The auxiliary vector: above the stack pointer stand the count, the arguments, a zero, the environment, a zero.
fn vector(pid: i32, stack: u64) -> io::Result<Vec<(u64, u64, u64)>> {
    let word = |index: u64| {
        let mut bytes = [0; size_of::<u64>()];
        let at = stack.saturating_add(index.saturating_mul(WORD));
        match sys::read_memory(pid, at, &mut bytes)? {
            read if read == bytes.len() => Ok((at, u64::from_ne_bytes(bytes))),
            _ => Err(io::Error::other("its stack ends early")),
        }
    };
    let arguments = word(0)?.1;
    let mut index = arguments.saturating_add(2);
    while index < WORDS_MAX && word(index)?.1 != 0 {
        index += 1;
    }
    let mut entries = Vec::new();
    while index < WORDS_MAX {
        let ((at, key), (_, value)) = (word(index + 1)?, word(index + 2)?);
        if key == AT_NULL {
            return Ok(entries);
        }
        entries.push((at, key, value));
        index += 2;
    }
    Err(io::Error::other("its auxiliary vector has no end"))
}
