//! The few requests of `ptrace` that a launcher needs to look at a program between its `execve` and its first instruction.

use std::io;
use std::ptr;

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// This process stops at its next `execve` and waits for its parent.
pub(crate) fn trace_me() -> io::Result<()> {
    // SAFETY: the request takes no arguments.
    check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) })
}

/// The stack pointer of a stopped process.
pub(crate) fn stack_pointer(pid: i32) -> io::Result<u64> {
    // SAFETY: plain numbers, zero is valid.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one user_regs_struct, which outlives the call.
    check(unsafe {
        libc::ptrace(libc::PTRACE_GETREGS, pid, ptr::null_mut::<libc::c_void>(), &raw mut registers)
    })?;
    Ok(registers.rsp)
}

/// Changes one word of a stopped process.
pub(crate) fn set_word(pid: i32, address: u64, word: u64) -> io::Result<()> {
    // SAFETY: the address is the other process', and the kernel checks it; the word is a number.
    check(unsafe { libc::ptrace(libc::PTRACE_POKEDATA, pid, address, word) })
}

/// Lets a stopped process go on, traced by nobody.
pub(crate) fn detach(pid: i32) -> io::Result<()> {
    // SAFETY: no memory is named; 0 delivers no signal.
    check(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0) })
}

/// Waits until a traced child stops; an error if it ended instead.
pub(crate) fn wait_for_stop(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the out parameter outlives the call.
        match check(libc::c_long::from(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) })) {
            Ok(()) if libc::WIFSTOPPED(status) => return Ok(libc::WSTOPSIG(status)),
            Ok(()) => return Err(io::Error::other("it ended before it began")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Traps every RDTSC of this process, and of what it executes.
pub(crate) fn forbid_time_stamps() -> io::Result<()> {
    // SAFETY: prctl with numbers only.
    check(libc::c_long::from(unsafe { libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV, 0, 0, 0) }))
}

/// Addresses of what this process executes are the same each time.
pub(crate) fn fix_addresses() -> io::Result<()> {
    // SAFETY: a number only.
    check(libc::c_long::from(unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) }))
}
