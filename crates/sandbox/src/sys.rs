//! The system calls that rustix lacks. Nothing here decides anything.

use std::ffi::{CStr, CString};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes ownership of a descriptor that the kernel has just made for us.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let raw = check(result)? as RawFd;
    // SAFETY: the kernel returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The `libc` crate's constant overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of [`fork`] this is.
pub(crate) enum Forked {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// `clone3` as a fork: own copy of all memory, new namespaces, a pidfd, optionally a place in a v2 cgroup.
///
/// # Safety
/// The caller has one thread, or its child calls nothing but async-signal-safe functions.
pub(crate) unsafe fn fork(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain numbers, zero is valid for all.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(group) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has its own memory and returns here on a copy of this stack; the arguments
    // outlive the call. The caller vouches for threads.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, std::mem::size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: CLONE_PIDFD stored a new descriptor that nothing else owns.
    Ok(Forked::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Whether this process has no other thread: only then may it share nothing with one.
pub(crate) fn has_one_thread() -> bool {
    // SAFETY: the kernel only checks; a process with one thread has nothing to leave.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// Ends this process without running anything of the parent's copy.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Puts attributes on a mount (and, if asked, on all below it).
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, set: u64, clear: u64) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string and the structure outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            std::mem::size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Makes the group that this process stands in the root of what it sees of cgroups.
pub(crate) fn unshare_cgroup_namespace() -> io::Result<()> {
    // SAFETY: flags only; a cgroup namespace shares no memory or descriptors with anything.
    check(libc::c_long::from(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }))?;
    Ok(())
}

/// Marks every descriptor of this process close-on-exec.
pub(crate) fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: changes flags only, no descriptor is closed.
    check(unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Closes every descriptor from 3 on but these. Whoever owned one of them must never use or drop it again.
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    close_all_but_numbers(&mut kept.iter().map(|fd| fd.as_raw_fd() as u32).collect::<Vec<_>>())
}

/// The same by their numbers.
pub(crate) fn close_all_but_numbers(kept: &mut [u32]) -> io::Result<()> {
    kept.sort_unstable();
    let mut first: u32 = 3;
    let close = |first: u32, last: u32| {
        // SAFETY: only the init of a program and a part of the house call it, which never return to code that owns a
        // descriptor.
        check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
    };
    for number in kept {
        if *number > first {
            close(first, *number - 1)?;
        }
        first = first.max(*number + 1);
    }
    close(first, u32::MAX)?;
    Ok(())
}

/// Writing to a pipe or socket without a reader becomes an error.
pub(crate) fn ignore_broken_pipes() -> io::Result<()> {
    // SAFETY: sets a disposition, no handler.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Duplicates to a number of at least `min`, close-on-exec.
pub(crate) fn duplicate_above(fd: BorrowedFd<'_>, min: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with an open descriptor and a number.
    owned(libc::c_long::from(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, min) }))
}

/// Puts a copy of `fd` at `target`, inherited over exec; what was there is closed.
pub(crate) fn place(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: only the launcher's child calls it, whose descriptors below the launcher's own belong to nobody.
    check(libc::c_long::from(unsafe { libc::dup2(fd.as_raw_fd(), target) }))?;
    Ok(())
}

/// `execveat` of an open file, or of a path when `fd` is `AT_FDCWD`. Returns only on failure.
pub(crate) fn execute(fd: RawFd, path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let flags = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both vectors end with a null pointer and their strings outlive the call.
    unsafe {
        libc::syscall(libc::SYS_execveat, fd, path.as_ptr(), arguments.as_ptr(), environment.as_ptr(), flags);
    }
    io::Error::last_os_error()
}

/// Highest number of a signal on Linux.
pub(crate) const SIGNAL_MAX: i32 = 64;

/// Sends any signal, real-time ones too.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: without an info structure the kernel reads no memory.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, ptr::null::<u8>(), 0)
    })?;
    Ok(())
}

/// Default disposition for every signal, none blocked.
pub(crate) fn reset_signals() -> io::Result<()> {
    for signal in 1..=SIGNAL_MAX {
        // 32 and 33 belong to the C library, 9 and 19 cannot be changed; both say EINVAL, which is right.
        // SAFETY: SIG_DFL is a valid disposition.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    check(libc::c_long::from(unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut())
    }))?;
    Ok(())
}

/// Brings `lo` of the current network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    // SAFETY: ifreq is plain data, zero is valid; the ioctls read and write that one structure.
    unsafe {
        let socket =
            owned(libc::c_long::from(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)))?;
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::c_long::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)))?;
    }
    Ok(())
}

/// Gives `lo` of the current network namespace one more address, alone in its network.
pub(crate) fn loopback_has_too(address: Ipv4Addr) -> io::Result<()> {
    // SAFETY: ifreq is plain data, zero is valid, and its address has the size of a `sockaddr_in`; the ioctls read that one
    // structure.
    unsafe {
        let socket =
            owned(libc::c_long::from(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)))?;
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo:1") {
            *to = *from as libc::c_char;
        }
        for (call, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, Ipv4Addr::BROADCAST)] {
            let mut named: libc::sockaddr_in = std::mem::zeroed();
            named.sin_family = libc::AF_INET as libc::sa_family_t;
            named.sin_addr.s_addr = u32::from_ne_bytes(value.octets());
            (&raw mut request.ifr_ifru.ifru_addr).cast::<libc::sockaddr_in>().write(named);
            check(libc::c_long::from(libc::ioctl(socket.as_raw_fd(), call, &raw const request)))?;
        }
    }
    Ok(())
}

/// A packet socket hears everything on this device from now on but what it says itself, and says it there.
pub(crate) fn bind_packets(socket: BorrowedFd<'_>, index: i32) -> io::Result<()> {
    const EVERYTHING: u16 = libc::ETH_P_ALL as u16;
    const IGNORE_OUTGOING: libc::c_int = 23;
    let on: libc::c_int = 1;
    // SAFETY: sockaddr_ll is plain data, zero is valid; both calls read what they are given, of the size that they are told.
    unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as libc::sa_family_t;
        address.sll_protocol = EVERYTHING.to_be();
        address.sll_ifindex = index;
        let (length, option) = (size_of::<libc::sockaddr_ll>(), (&raw const on).cast());
        let socket = socket.as_raw_fd();
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        check(libc::c_long::from(libc::setsockopt(socket, libc::SOL_PACKET, IGNORE_OUTGOING, option, size)))?;
        let bound = libc::bind(socket, (&raw const address).cast(), length as libc::socklen_t);
        check(libc::c_long::from(bound))?;
    }
    Ok(())
}

/// Loads a system call filter for this thread; the listener if one was asked for.
pub(crate) fn load_filter(program: &[libc::sock_filter], listener: bool) -> io::Result<Option<OwnedFd>> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let load = |flags: libc::c_ulong| {
        // SAFETY: the kernel copies `len` instructions from a slice of that length.
        check(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter)
        })
    };
    if !listener {
        load(0)?;
        return Ok(None);
    }
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    match load(flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        // Before Linux 5.19: a signal may restart a call that was already shown.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => owned(load(flags)?).map(Some),
        result => owned(result?).map(Some),
    }
}

/// Whether the kernel knows a verdict of a filter.
pub(crate) fn filter_action_known(action: u32) -> bool {
    // SAFETY: the kernel reads one u32.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

const SYS_LANDLOCK_CREATE_RULESET: libc::c_long = 444;
const SYS_LANDLOCK_ADD_RULE: libc::c_long = 445;
const SYS_LANDLOCK_RESTRICT_SELF: libc::c_long = 446;

/// `struct landlock_ruleset_attr`; older kernels take a prefix of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RulesetAttributes {
    pub(crate) handled_files: u64,
    pub(crate) handled_net: u64,
    pub(crate) scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// The kernel's Landlock ABI, 0 without Landlock.
pub(crate) fn landlock_abi() -> u32 {
    // SAFETY: with the version flag the kernel reads no memory.
    let version = unsafe { libc::syscall(SYS_LANDLOCK_CREATE_RULESET, ptr::null::<u8>(), 0, 1) };
    u32::try_from(version).unwrap_or(0)
}

pub(crate) fn landlock_create(attributes: &RulesetAttributes, size: usize) -> io::Result<OwnedFd> {
    let size = size.min(std::mem::size_of::<RulesetAttributes>());
    // SAFETY: the kernel reads at most `size` bytes, no more than the structure has.
    owned(unsafe { libc::syscall(SYS_LANDLOCK_CREATE_RULESET, ptr::from_ref(attributes), size, 0) })
}

pub(crate) fn landlock_allow(
    ruleset: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    allowed: u64,
) -> io::Result<()> {
    let rule = PathBeneath { allowed, parent: parent.as_raw_fd() };
    // SAFETY: rule type 1 is PATH_BENEATH, whose structure this is.
    check(unsafe { libc::syscall(SYS_LANDLOCK_ADD_RULE, ruleset.as_raw_fd(), 1, &raw const rule, 0) })?;
    Ok(())
}

pub(crate) fn landlock_restrict(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes a descriptor and flags only.
    check(unsafe { libc::syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset.as_raw_fd(), 0) })?;
    Ok(())
}

/// Drops every capability but `kept` from the bounding set, as far as the kernel knows capabilities.
pub(crate) fn drop_bounding_set(kept: u64) -> io::Result<()> {
    for capability in (0..64u64).filter(|capability| kept & (1 << capability) == 0) {
        // SAFETY: prctl with numbers only.
        match check(libc::c_long::from(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })) {
            Ok(_) => {}
            // Above the last one that the kernel knows; there are no gaps.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) fn set_securebits(bits: libc::c_ulong) -> io::Result<()> {
    // SAFETY: prctl with numbers only.
    check(libc::c_long::from(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) }))?;
    Ok(())
}

/// Raises `kept` in the ambient set, so that they survive exec of an ordinary image; lowers all others.
pub(crate) fn set_ambient(kept: u64) -> io::Result<()> {
    // SAFETY: prctl with numbers only.
    check(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    }))?;
    for capability in (0..64u64).filter(|capability| kept & (1 << capability) != 0) {
        // SAFETY: prctl with numbers only.
        check(libc::c_long::from(unsafe {
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0)
        }))?;
    }
    Ok(())
}

/// `struct __user_cap_header_struct`, version 3.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Effective, permitted and inheritable, low and high word each, as the kernel lays them out.
type CapabilityWords = [[u32; 3]; 2];

/// The effective capabilities of this thread.
pub(crate) fn effective_capabilities() -> io::Result<u64> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut words: CapabilityWords = [[0; 3]; 2];
    // SAFETY: version 3 writes two structures of three words.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, words.as_mut_ptr()) })?;
    let [[low, ..], [high, ..]] = words;
    Ok(u64::from(low) | u64::from(high) << 32)
}

/// Sets effective and permitted to `held`, inheritable to `inheritable`.
pub(crate) fn set_capabilities(held: u64, inheritable: u64) -> io::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let words = |shift: u32| [(held >> shift) as u32, (held >> shift) as u32, (inheritable >> shift) as u32];
    let words: CapabilityWords = [words(0), words(32)];
    // SAFETY: version 3 reads two structures of three words.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) })?;
    Ok(())
}

pub(crate) fn set_scheduler(policy: libc::c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: pid 0 is this thread, the structure outlives the call.
    check(libc::c_long::from(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }))?;
    Ok(())
}

/// Reaps one child that has ended, without waiting.
pub(crate) fn reap_any() -> io::Result<Option<(i32, i32, libc::rusage)>> {
    let mut status = 0;
    // SAFETY: rusage is plain numbers, zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both out parameters outlive the call.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
    match check(libc::c_long::from(pid)) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some((pid, status, usage))),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits for one child by number. Used for children that never executed anything.
pub(crate) fn wait_for(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the out parameter outlives the call.
        match check(libc::c_long::from(unsafe { libc::waitpid(pid, &raw mut status, 0) })) {
            Ok(_) => return Ok(status),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set before sigaddset changes it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Blocks the signals and gives a descriptor that reads them.
pub(crate) fn signal_descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: the set outlives both calls.
    unsafe {
        check(libc::c_long::from(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut())))?;
        owned(libc::c_long::from(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)))
    }
}

/// `ioctl` of a notification listener with one structure that the kernel reads and writes.
///
/// # Safety
/// `T` is the structure that `request` names.
pub(crate) unsafe fn notify_ioctl<T>(
    fd: BorrowedFd<'_>,
    request: libc::Ioctl,
    argument: &mut T,
) -> io::Result<()> {
    // SAFETY: the caller pairs request and structure; it outlives the call.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), request, ptr::from_mut(argument)) }))?;
    Ok(())
}

/// Sets the flags of a listener (`SECCOMP_IOCTL_NOTIF_SET_FLAGS`, Linux 6.6), which go by value.
pub(crate) fn notify_flags(fd: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    /// `SECCOMP_IOW(4, __u64)`
    const SET_FLAGS: libc::Ioctl = 0x4008_2104;
    // SAFETY: this request reads no memory of ours.
    check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), SET_FLAGS, flags) }))?;
    Ok(())
}

/// Reads up to `buffer.len()` bytes at an address of another process; may be short at the end of a mapping.
pub(crate) fn read_memory(pid: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: buffer.len() };
    // SAFETY: the local vector describes `buffer`; the remote address is only read by the kernel, which checks it.
    let read =
        check(unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) }
            as libc::c_long)?;
    usize::try_from(read).map_err(|_| io::Error::other("negative length"))
}

/// Writes at an address of another process; short where its mapping ends or cannot be written.
pub(crate) fn write_memory(pid: i32, address: u64, bytes: &[u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the local vector describes `bytes`, which is only read; the kernel checks the remote address.
    let written =
        check(unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) }
            as libc::c_long)?;
    usize::try_from(written).map_err(|_| io::Error::other("negative length"))
}

/// `SO_NETNS_COOKIE`, Linux 5.14.
pub(crate) fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie: u64 = 0;
    let mut length = std::mem::size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which outlives the call.
    check(libc::c_long::from(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    }))?;
    Ok(cookie)
}

/// Drops every TCP segment with SYN and without ACK before the socket sees it, for good.
pub(crate) fn lock_outbound(socket: BorrowedFd<'_>) -> io::Result<()> {
    /// Of the TCP header, with which the filter's data begins.
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 2;
    const SYN_AND_ACK: u32 = 0x12;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS_AT),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, SYN_AND_ACK),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, SYN),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let set = |name, value: *const libc::c_void, length: usize| {
        // SAFETY: `value` points to `length` bytes that outlive the call; the program points to `filter`, which does too.
        check(libc::c_long::from(unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, value, length as libc::socklen_t)
        }))
    };
    set(libc::SO_ATTACH_FILTER, (&raw const program).cast(), std::mem::size_of::<libc::sock_fprog>())?;
    let on: libc::c_int = 1;
    set(libc::SO_LOCK_FILTER, (&raw const on).cast(), std::mem::size_of::<libc::c_int>())?;
    Ok(())
}

/// Whether two threads have one table of descriptors.
pub(crate) fn share_descriptors(first: i32, second: i32) -> io::Result<bool> {
    const KCMP_FILES: libc::c_int = 2;
    // SAFETY: only numbers are passed.
    check(unsafe { libc::syscall(libc::SYS_kcmp, first, second, KCMP_FILES, 0, 0) }).map(|order| order == 0)
}

/// The first byte of `struct tcp_info`.
pub(crate) fn tcp_state(socket: BorrowedFd<'_>) -> io::Result<u8> {
    let mut state = 0_u8;
    let mut length: libc::socklen_t = 1;
    // SAFETY: the kernel writes at most `length` bytes to `state`, which outlives the call.
    check(libc::c_long::from(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    }))?;
    Ok(state)
}
