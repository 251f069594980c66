//! Calls for who runs the machine. Each is made so that it changes nothing when it is let through: a setting is set to
//! what it is, or the call is wrong in something that the kernel looks at after the right.

use super::calls::Ended;
use super::calls::{call, in_child, owned, reached};
use super::{Attempt, Canaries, Failure, NEEDS_THE_HOSTS_RIGHT, calls, held};
use crate::guard::Guard::{self, Caps, Seccomp, Userns};

const OF_THE_HOST: &[Guard] = &[Seccomp, Caps, Userns];
/// A path that leads nowhere.
const NOWHERE: &std::ffi::CStr = c"/proc/bailiwick-no-such-file";

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::new("set_the_clock", "sets the rate of the machine's clock", OF_THE_HOST, clock)
        .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("load_a_module", "loads code into the kernel", OF_THE_HOST, |_| {
        // SAFETY: no byte is read of an image of length 0.
        let result = unsafe { call(libc::SYS_init_module, [0, 0, c"".as_ptr() as u64, 0, 0]) };
        reached(result, &[libc::ENOEXEC, libc::EFAULT, libc::EINVAL])
    })
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("unload_a_module", "takes code out of the kernel", OF_THE_HOST, |_| {
        // SAFETY: a C string; there is no such module.
        let result = unsafe {
            call(
                libc::SYS_delete_module,
                [c"bailiwick_none".as_ptr() as u64, libc::O_NONBLOCK as u64, 0, 0, 0],
            )
        };
        reached(result, &[libc::ENOENT])
    })
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("load_a_kernel", "loads another kernel", OF_THE_HOST, |_| {
        // SAFETY: numbers; no flag that it knows, and no segment.
        let result = unsafe { call(libc::SYS_kexec_load, [0, 0, 0, 0xfff0, 0]) };
        reached(result, &[libc::EINVAL])
    })
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("restart_the_machine", "restarts the machine", &[Seccomp, Caps], |_| {
        // SAFETY: numbers; without the magic ones nothing happens.
        reached(unsafe { call(libc::SYS_reboot, [0, 0, 0, 0, 0]) }, &[libc::EINVAL])
    }),
    Attempt::new("use_a_swap_file", "lets the kernel swap to a file", OF_THE_HOST, |_| {
        // SAFETY: a C string that leads nowhere.
        let result = unsafe { call(libc::SYS_swapon, [NOWHERE.as_ptr() as u64, 0, 0, 0, 0]) };
        reached(result, &[libc::ENOENT])
    })
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("account_for_processes", "writes down what everybody runs", OF_THE_HOST, |_| {
        // SAFETY: a C string that leads nowhere.
        let result = unsafe { call(libc::SYS_acct, [NOWHERE.as_ptr() as u64, 0, 0, 0, 0]) };
        reached(result, &[libc::ENOENT])
    })
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("read_the_kernels_messages", "reads what the kernel said", OF_THE_HOST, |_| {
        const UNREAD_BYTES: u64 = 9;
        // SAFETY: numbers only.
        reached(unsafe { call(libc::SYS_syslog, [UNREAD_BYTES, 0, 0, 0, 0]) }, &[])
    })
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("use_ports_of_the_machine", "reads and writes ports of devices", OF_THE_HOST, |_| {
        // SAFETY: a number; no port is touched.
        in_child(|| reached(unsafe { call(libc::SYS_iopl, [3, 0, 0, 0, 0]) }, &[]))
    })
    .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("look_at_kernel_programs", "asks which programs run in the kernel", OF_THE_HOST, bpf)
        .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("measure_everybody", "counts what all processes do", OF_THE_HOST, perf)
        .rootless(NEEDS_THE_HOSTS_RIGHT),
    Attempt::new("handle_its_own_faults", "stops the kernel in the middle of a copy", &[Seccomp], |_| {
        const USER_MODE_ONLY: u64 = 1;
        // SAFETY: a number.
        let raw = unsafe { call(libc::SYS_userfaultfd, [USER_MODE_ONLY, 0, 0, 0, 0]) }?;
        // SAFETY: it was just made.
        drop(unsafe { owned(raw) });
        Ok(())
    }),
    Attempt::new("read_the_segment_table", "uses the processor's table of segments", &[Seccomp], |_| {
        let mut table = [0u8; 64];
        // SAFETY: a buffer with its length; the table is read.
        reached(unsafe { call(libc::SYS_modify_ldt, [0, table.as_mut_ptr() as u64, 64, 0, 0]) }, &[])
    }),
    Attempt::new("write_quotas_out", "has the quotas of all disks written", &[Seccomp], |_| {
        const SYNC: u64 = 0x80_0001 << 8;
        // SAFETY: no path means all.
        reached(unsafe { call(libc::SYS_quotactl, [SYNC, 0, 0, 0, 0]) }, &[])
    }),
    Attempt::new("place_its_memory", "chooses the memory of the host that it takes", &[Seccomp], |_| {
        // SAFETY: numbers: the policy that it has.
        reached(unsafe { call(libc::SYS_set_mempolicy, [0, 0, 0, 0, 0]) }, &[])
    }),
    Attempt::new("call_by_the_old_door", "makes a call by the door of 32-bit programs", &[Seccomp], old_door),
    Attempt::new(
        "call_by_another_table",
        "makes a call by the numbers of the x32 programs",
        &[Seccomp],
        |_| {
            const X32: i64 = 0x4000_0000;
            in_child(|| {
                // SAFETY: getpid takes nothing.
                unsafe { call(X32 | libc::SYS_getpid, [0; 5]) }?;
                Ok(())
            })
        },
    ),
];

/// Reads the machine's clock and sets its tick to what it is.
fn clock(_: &Canaries) -> Result<(), Failure> {
    // SAFETY: timex is plain numbers, zero is valid and asks only; it outlives both calls.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe { call(libc::SYS_adjtimex, [&raw mut state as u64, 0, 0, 0, 0]) }?;
    state.modes = libc::ADJ_TICK;
    // SAFETY: as above.
    unsafe { call(libc::SYS_adjtimex, [&raw mut state as u64, 0, 0, 0, 0]) }?;
    Ok(())
}

/// The next program after none; that there is none is only said to who may ask.
fn bpf(_: &Canaries) -> Result<(), Failure> {
    const NEXT_PROGRAM: u64 = 11;
    let mut attributes = [0u32; 4];
    // SAFETY: a structure with its size, which outlives the call.
    reached(
        unsafe { call(libc::SYS_bpf, [NEXT_PROGRAM, attributes.as_mut_ptr() as u64, 12, 0, 0]) },
        &[libc::ENOENT],
    )
}

/// `struct perf_event_attr`, first version: kind, size, what; the processor's time of everybody on processor 0.
fn perf(_: &Canaries) -> Result<(), Failure> {
    const SOFTWARE: u32 = 1;
    const BYTES: u32 = 64;
    let mut attributes = [0u32; 16];
    let [kind, size, ..] = &mut attributes;
    (*kind, *size) = (SOFTWARE, BYTES);
    let everybody = -1i64 as u64;
    // SAFETY: a structure with its size in it, and numbers.
    let raw =
        unsafe { call(libc::SYS_perf_event_open, [attributes.as_ptr() as u64, everybody, 0, everybody, 0]) }?;
    // SAFETY: it was just made.
    drop(unsafe { owned(raw) });
    Ok(())
}

/// In a child: the filter ends who uses it, and so does a kernel that does not have it.
fn old_door(_: &Canaries) -> Result<(), Failure> {
    const GETPID_OF_32_BIT: i32 = 20;
    let child = calls::spawn(|| {
        let mut number = GETPID_OF_32_BIT;
        // SAFETY: the call takes nothing and changes nothing but the register of its result.
        unsafe {
            std::arch::asm!(
                "int 0x80",
                inlateout("eax") number,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        if number > 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(-number).into()) }
    })?;
    match calls::wait(child)? {
        Ended::Signal(libc::SIGSEGV) => Err(held("this kernel has no such door")),
        ended => calls::result(ended),
    }
}
