//! The profiles: one line per use, each with its reason. The first line that matches decides.

use libc::*;

use super::Action::{Allow, Errno, Kill, Notify};
use super::When::{AllBits, Always, AnyBit, BothEqual, Equals};
use super::{Action, NICENESS_BEHIND, Profile, Rule, When, job::JOB};

/// The lines of a profile and what happens to everything that they do not name.
#[must_use]
pub fn rules(profile: Profile) -> (&'static [Rule], Action) {
    match profile {
        Profile::Service => (SERVICE, Kill),
        Profile::Boundary => (BOUNDARY, Kill),
        Profile::Program => (PROGRAM, Allow),
        Profile::Job => (JOB, Notify),
    }
}

pub(super) const fn allow(calls: &'static [i64], why: &'static str) -> Rule {
    Rule { calls, when: Always, action: Allow, why }
}

const fn refuse(calls: &'static [i64], why: &'static str) -> Rule {
    Rule { calls, when: Always, action: Errno(EPERM), why }
}

pub(super) const fn absent(calls: &'static [i64], why: &'static str) -> Rule {
    Rule { calls, when: Always, action: Errno(ENOSYS), why }
}

pub(super) const fn on(calls: &'static [i64], when: When, action: Action, why: &'static str) -> Rule {
    Rule { calls, when, action, why }
}

pub(super) const fn option(value: i32, why: &'static str) -> Rule {
    on(&[SYS_prctl], Equals { argument: 0, value: value as u32 }, Allow, why)
}

pub(super) const fn notify(calls: &'static [i64], why: &'static str) -> Rule {
    Rule { calls, when: Always, action: Notify, why }
}

pub(super) const fn ioctl_refused(why: &'static str) -> Rule {
    on(&[SYS_ioctl], Always, Errno(ENOTTY), why)
}

const fn ioctl_number(value: u64, why: &'static str) -> Rule {
    on(&[SYS_ioctl], Equals { argument: 1, value: value as u32 }, Allow, why)
}

const NAMESPACE_FLAGS: u32 = (CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET) as u32;
const THREAD_FLAGS: u32 = (CLONE_THREAD | CLONE_VM | CLONE_SIGHAND) as u32;
const EXEC_ONCE: Rule = on(
    &[SYS_execveat],
    Equals { argument: 4, value: AT_EMPTY_PATH as u32 },
    Allow,
    "the launcher starts the image by descriptor; no path can be executed",
);
pub(super) const PR_SET_VMA: i32 = 0x5356_4d41;
const PR_GET_AUXV: i32 = 0x4155_5856;
/// landlock_* have fixed numbers on every architecture.
const SYS_LANDLOCK_CREATE: i64 = 444;
const SYS_LANDLOCK_ADD: i64 = 445;
const SYS_LANDLOCK_RESTRICT: i64 = 446;
const SYS_MSEAL: i64 = 462;
const SYS_FUTEX_WAITV: i64 = 449;
const SYS_MOUNT_SETATTR: i64 = 442;
const SYS_QUOTACTL_FD: i64 = 443;
const SYS_STATMOUNT: i64 = 457;
const SYS_LISTMOUNT: i64 = 458;
const SYS_OPEN_TREE_ATTR: i64 = 467;

const SERVICE: &[Rule] = &[
    allow(&[SYS_read, SYS_write, SYS_readv, SYS_writev], "sockets, pipes, files"),
    allow(&[SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2, SYS_pwritev2], "segment files"),
    allow(
        &[SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg, SYS_sendto, SYS_sendmsg, SYS_sendmmsg],
        "sockets of edges",
    ),
    allow(&[SYS_close, SYS_close_range, SYS_dup, SYS_dup2, SYS_dup3, SYS_fcntl], "descriptors of its own"),
    allow(
        &[SYS_futex, SYS_FUTEX_WAITV, SYS_set_robust_list, SYS_get_robust_list, SYS_rseq],
        "threads wait and wake",
    ),
    allow(
        &[SYS_epoll_wait, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_epoll_ctl, SYS_epoll_create1],
        "tokio's reactor",
    ),
    allow(&[SYS_poll, SYS_ppoll, SYS_select, SYS_pselect6, SYS_eventfd2], "blocking waits and wake-ups"),
    allow(
        &[SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime, SYS_signalfd4],
        "timers and signals",
    ),
    allow(&[SYS_accept, SYS_accept4, SYS_connect, SYS_shutdown], "connections of its edges"),
    allow(&[SYS_bind, SYS_listen], "a service may serve a socket in its own folder"),
    allow(
        &[SYS_getsockname, SYS_getpeername, SYS_getsockopt, SYS_setsockopt],
        "peer credentials, buffer sizes",
    ),
    on(
        &[SYS_socketpair],
        Equals { argument: 0, value: AF_UNIX as u32 },
        Allow,
        "signal wake-ups of tokio, tests",
    ),
    allow(&[SYS_pipe2], "wake-ups"),
    allow(
        &[SYS_mmap, SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_mprotect],
        "memory; stacks of threads",
    ),
    allow(
        &[SYS_mlock, SYS_mlock2, SYS_munlock, SYS_mlockall, SYS_membarrier, SYS_msync, SYS_mincore],
        "key pages",
    ),
    allow(&[SYS_openat, SYS_open, SYS_openat2, SYS_creat], "its folder and what is mounted for it"),
    allow(
        &[SYS_fstat, SYS_stat, SYS_lstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_fstatfs],
        "sizes, free space",
    ),
    allow(&[SYS_lseek, SYS_getdents64, SYS_readlink, SYS_readlinkat, SYS_getcwd], "reading folders"),
    allow(&[SYS_access, SYS_faccessat, SYS_faccessat2], "does a file exist"),
    allow(&[SYS_fsync, SYS_fdatasync, SYS_sync_file_range, SYS_syncfs], "durability"),
    allow(&[SYS_ftruncate, SYS_truncate, SYS_fallocate, SYS_fadvise64, SYS_flock], "segment files and locks"),
    allow(&[SYS_rename, SYS_renameat, SYS_renameat2, SYS_link, SYS_linkat], "atomic replacement"),
    allow(&[SYS_unlink, SYS_unlinkat, SYS_rmdir, SYS_mkdir, SYS_mkdirat], "its own folder"),
    allow(&[SYS_symlink, SYS_symlinkat, SYS_utimensat], "trees that it keeps for others"),
    allow(&[SYS_chmod, SYS_fchmod, SYS_fchmodat, SYS_umask], "modes of its own files"),
    allow(&[SYS_copy_file_range, SYS_sendfile, SYS_splice, SYS_tee], "moving data between descriptors"),
    allow(&[SYS_memfd_create], "large messages by descriptor"),
    on(&[SYS_clone], AllBits { argument: 0, bits: THREAD_FLAGS }, Allow, "threads, never processes"),
    absent(&[SYS_clone3], "its flags cannot be read here; the C library falls back to clone"),
    allow(&[SYS_exit, SYS_exit_group, SYS_restart_syscall, SYS_set_tid_address], "life of threads"),
    allow(&[SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack], "signal handling"),
    allow(&[SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_tgkill, SYS_pause], "abort and waiting for signals"),
    allow(&[SYS_sched_yield, SYS_sched_getaffinity, SYS_getcpu], "how many workers"),
    on(
        &[SYS_setpriority],
        BothEqual { first: (0, PRIO_PROCESS), second: (2, NICENESS_BEHIND) },
        Allow,
        "a thread that nobody waits for stands back; no priority can be raised",
    ),
    allow(&[SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_time], "clocks"),
    allow(&[SYS_clock_nanosleep, SYS_nanosleep], "sleep"),
    allow(&[SYS_getrandom], "keys and nonces"),
    allow(&[SYS_getpid, SYS_gettid, SYS_getppid, SYS_getpgrp, SYS_getsid], "log lines"),
    allow(&[SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getresuid, SYS_getresgid], "who am I"),
    allow(&[SYS_uname, SYS_sysinfo, SYS_getrusage, SYS_times], "status"),
    allow(&[SYS_getrlimit, SYS_prlimit64, SYS_setrlimit], "stack size; own limits can only go down"),
    allow(&[SYS_arch_prctl], "thread-local storage at start"),
    option(PR_SET_NAME, "names of threads"),
    option(PR_GET_NAME, "names of threads"),
    option(PR_SET_DUMPABLE, "a holder of secrets forbids inspection"),
    option(PR_GET_DUMPABLE, "a holder of secrets checks it"),
    option(PR_SET_VMA, "the C library names its heaps"),
    option(PR_GET_AUXV, "page size and the clock's fast path, without /proc"),
    option(PR_GET_NO_NEW_PRIVS, "status of its own sandbox"),
    option(PR_GET_SECCOMP, "status of its own sandbox"),
    option(PR_CAPBSET_READ, "status of its own sandbox"),
    on(&[SYS_prctl], Always, Errno(EPERM), "nothing else about itself can be changed"),
    ioctl_number(FIONBIO, "std sets sockets non-blocking with it"),
    ioctl_number(FIONREAD, "how much is there to read"),
    on(&[SYS_ioctl], Always, Errno(ENOTTY), "is this a terminal: no"),
    allow(&[SYS_pidfd_open, SYS_pidfd_send_signal, SYS_waitid, SYS_wait4], "process handles it was passed"),
    absent(&[SYS_io_uring_setup, SYS_MSEAL], "not needed, and callers know how to do without"),
    EXEC_ONCE,
];

const BOUNDARY: &[Rule] = &[
    allow(
        &[SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_recvmsg, SYS_sendmsg],
        "its one inherited socket",
    ),
    allow(&[SYS_recvfrom, SYS_sendto, SYS_poll, SYS_ppoll], "its one inherited socket"),
    allow(&[SYS_accept4], "the operator, who unlocks it, on the other socket that it inherits"),
    allow(
        &[SYS_pread64, SYS_pwrite64, SYS_lseek, SYS_fstat, SYS_statx, SYS_ftruncate],
        "the sealed seed, by descriptor",
    ),
    allow(&[SYS_newfstatat], "size of the sealed seed: the C library's fstat"),
    allow(&[SYS_fsync, SYS_fdatasync, SYS_close, SYS_fcntl], "the sealed seed, by descriptor"),
    allow(&[SYS_mmap, SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_mprotect], "memory"),
    allow(&[SYS_mlock, SYS_mlock2, SYS_munlock, SYS_mlockall], "keys never reach a swap device"),
    allow(&[SYS_memfd_secret], "pages that the kernel itself does not map"),
    allow(
        &[SYS_futex, SYS_set_robust_list, SYS_set_tid_address, SYS_rseq, SYS_arch_prctl],
        "start of a process",
    ),
    allow(&[SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack], "start, stack guard"),
    allow(
        &[SYS_exit, SYS_exit_group, SYS_restart_syscall, SYS_tgkill, SYS_getpid, SYS_gettid],
        "end and abort",
    ),
    allow(&[SYS_getrandom, SYS_clock_gettime], "seeds, nonces, time-outs"),
    allow(&[SYS_prlimit64, SYS_getrlimit, SYS_sched_getaffinity, SYS_sched_yield], "start of a Rust program"),
    allow(&[SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid], "start of a static program"),
    option(PR_SET_DUMPABLE, "forbids inspection"),
    option(PR_GET_DUMPABLE, "checks it"),
    option(PR_GET_NO_NEW_PRIVS, "is the launcher's promise kept"),
    option(PR_SET_NAME, "name of the process"),
    option(PR_SET_VMA, "the C library names its heaps"),
    option(PR_GET_AUXV, "page size and the clock's fast path, without /proc"),
    on(&[SYS_prctl], Always, Errno(EPERM), "nothing else about itself can be changed"),
    on(
        &[SYS_openat, SYS_open],
        Always,
        Errno(ENOENT),
        "start code looks for /proc/self/maps and lives without",
    ),
    on(&[SYS_readlink, SYS_readlinkat], Always, Errno(ENOENT), "start code looks for its own path"),
    on(&[SYS_ioctl], Always, Errno(ENOTTY), "is this a terminal: no"),
    EXEC_ONCE,
];

const PROGRAM: &[Rule] = &[
    refuse(
        &[
            SYS_mount,
            SYS_umount2,
            SYS_pivot_root,
            SYS_chroot,
            SYS_move_mount,
            SYS_open_tree,
            SYS_OPEN_TREE_ATTR,
        ],
        "its view of files is fixed",
    ),
    refuse(
        &[SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_MOUNT_SETATTR],
        "its view of files is fixed",
    ),
    refuse(&[SYS_STATMOUNT, SYS_LISTMOUNT], "layout of the host's mounts"),
    refuse(&[SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp], "memory of other processes"),
    refuse(&[SYS_process_madvise, SYS_process_mrelease, SYS_pidfd_getfd], "memory and descriptors of others"),
    refuse(&[SYS_keyctl, SYS_add_key, SYS_request_key], "kernel keyrings are not namespaced"),
    refuse(&[SYS_bpf, SYS_perf_event_open, SYS_userfaultfd], "large attack surface, no use inside"),
    absent(
        &[SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register],
        "calls on a ring pass by this filter",
    ),
    refuse(&[SYS_kexec_load, SYS_kexec_file_load, SYS_reboot], "the machine"),
    refuse(&[SYS_init_module, SYS_finit_module, SYS_delete_module], "the kernel"),
    refuse(&[SYS_syslog, SYS__sysctl], "the kernel's messages and settings"),
    refuse(&[SYS_open_by_handle_at, SYS_name_to_handle_at], "a handle opens files outside of the root"),
    refuse(&[SYS_setns, SYS_unshare], "namespaces are given, not taken"),
    absent(&[SYS_clone3], "its flags cannot be read here; the C library falls back to clone"),
    on(
        &[SYS_clone],
        AnyBit { argument: 0, bits: NAMESPACE_FLAGS },
        Errno(EPERM),
        "namespaces are given, not taken",
    ),
    refuse(&[SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl, SYS_QUOTACTL_FD], "the machine's storage"),
    refuse(&[SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime], "the machine's clock"),
    refuse(&[SYS_sethostname, SYS_setdomainname], "names are given"),
    refuse(&[SYS_fanotify_init, SYS_fanotify_mark, SYS_lookup_dcookie], "watching files of others"),
    refuse(&[SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_vhangup], "hardware and old interfaces"),
    refuse(
        &[SYS_mbind, SYS_set_mempolicy, SYS_migrate_pages, SYS_move_pages],
        "placement in the host's memory",
    ),
    refuse(&[SYS_nfsservctl, SYS_uselib, SYS_ustat, SYS_sysfs], "obsolete, only an attack surface"),
    on(&[SYS_personality], Equals { argument: 0, value: 0 }, Allow, "the usual personality"),
    on(&[SYS_personality], Equals { argument: 0, value: u32::MAX }, Allow, "asks for the personality"),
    refuse(&[SYS_personality], "old personalities switch off address randomisation and more"),
    on(&[SYS_ioctl], Equals { argument: 1, value: TIOCSTI as u32 }, Errno(EPERM), "types into the terminal"),
    on(
        &[SYS_ioctl],
        Equals { argument: 1, value: TIOCLINUX as u32 },
        Errno(EPERM),
        "pastes into the console",
    ),
    on(
        &[SYS_ioctl],
        Equals { argument: 1, value: TIOCCONS as u32 },
        Errno(EPERM),
        "takes the console's output",
    ),
    on(
        &[SYS_ioctl],
        Equals { argument: 1, value: TIOCSETD as u32 },
        Errno(EPERM),
        "line disciplines: protocols of the kernel, loaded for whoever asks",
    ),
    on(&[SYS_socketpair], Equals { argument: 0, value: AF_UNIX as u32 }, Allow, "pairs are local"),
    on(&[SYS_socketpair], Always, Errno(EAFNOSUPPORT), "pairs of other families"),
    allow(
        &[SYS_LANDLOCK_CREATE, SYS_LANDLOCK_ADD, SYS_LANDLOCK_RESTRICT],
        "a program may restrict itself further",
    ),
];
