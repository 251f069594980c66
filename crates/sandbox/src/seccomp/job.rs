//! The profile of a deterministic job (ACT-47, ACT-48): what computes on its own files. Whatever is not named is shown to
//! the monitor, which ends the job and names the call; see `determined.rs` for the few that it answers.

use libc::*;

use super::Rule;
use super::profiles::{PR_SET_VMA, absent, allow, ioctl_refused, notify, option};

pub(super) const JOB: &[Rule] = &[
    allow(&[SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_brk], "memory"),
    allow(&[SYS_read, SYS_readv, SYS_pread64, SYS_preadv, SYS_write, SYS_writev], "files"),
    allow(&[SYS_pwrite64, SYS_pwritev, SYS_lseek, SYS_close, SYS_close_range], "files"),
    allow(&[SYS_dup, SYS_dup2, SYS_dup3, SYS_fcntl], "descriptors of its own"),
    allow(
        &[SYS_open, SYS_openat, SYS_openat2, SYS_creat],
        "what is mounted for it; Landlock and the mounts say which",
    ),
    allow(&[SYS_stat, SYS_fstat, SYS_lstat, SYS_newfstatat, SYS_statx], "sizes"),
    allow(&[SYS_access, SYS_faccessat, SYS_faccessat2, SYS_readlink, SYS_readlinkat], "does a file exist"),
    allow(&[SYS_getdents64, SYS_getcwd, SYS_chdir, SYS_fchdir], "folders"),
    allow(&[SYS_unlink, SYS_unlinkat], "its output folder, in which there are no others"),
    allow(&[SYS_rename, SYS_renameat, SYS_renameat2], "its output folder"),
    allow(&[SYS_truncate, SYS_ftruncate, SYS_fallocate, SYS_fadvise64], "its output files"),
    allow(&[SYS_fsync, SYS_fdatasync, SYS_umask, SYS_chmod, SYS_fchmod, SYS_fchmodat], "its output files"),
    allow(&[SYS_futex, SYS_set_robust_list, SYS_set_tid_address], "threads of a fork-join"),
    absent(&[SYS_clone3], "its flags cannot be read here; the C library falls back to clone"),
    absent(&[SYS_rseq], "it shows on which processor a thread runs"),
    allow(&[SYS_sched_yield, SYS_poll, SYS_ppoll, SYS_pipe2], "waiting, start of a Rust program"),
    allow(&[SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack], "signal handling"),
    allow(&[SYS_tgkill, SYS_getpid, SYS_gettid], "abort; the numbers are those of its own namespace"),
    allow(&[SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid], "start of a static program"),
    allow(&[SYS_arch_prctl, SYS_prlimit64, SYS_getrlimit], "thread-local storage, stack size"),
    allow(&[SYS_exit, SYS_exit_group, SYS_restart_syscall], "the end"),
    allow(&[SYS_sendmsg], "the launcher hands the listener over; the job itself has no socket to send on"),
    option(PR_SET_NAME, "names of threads"),
    option(PR_SET_VMA, "the C library names its heaps"),
    ioctl_refused("is this a terminal: no"),
    notify(&[SYS_socket], "no family: the line that a filter always has would be an error and no end"),
];
