//! System call filters: a small assembler for classic BPF, over profiles that are data (`profiles.rs`).
//!
//! Only the low 32 bits of an argument are compared: every argument that is looked at here is an `int` or a set of
//! flags below 32 bits for the kernel too, and comparing more would let a caller hide behind bits nobody reads.

#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
compile_error!("the system call profiles are written for x86_64");

mod profiles;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::plan::{Seccomp, Sockets};

pub use profiles::rules;

/// Which list of calls a process lives with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Profile {
    /// A static Rust service on tokio: what it needs, anything else kills it.
    #[n(0)]
    Service,
    /// The key boundary: a handful, anything else kills it.
    #[n(1)]
    Boundary,
    /// An ordinary program: what reaches beyond its process is refused, the rest is allowed.
    #[n(2)]
    Program,
}

/// A call that can be shown to a listener before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum NotifyCall {
    /// open, openat, openat2, creat.
    #[n(0)]
    Open,
    #[n(1)]
    Connect,
    /// execve. `execveat` is how the launcher itself starts the image and is not shown.
    #[n(2)]
    Exec,
    /// unlink, rename, mkdir, link and their like.
    #[n(3)]
    ChangeName,
    #[n(4)]
    Bind,
    /// sendto: a datagram names its address there.
    #[n(5)]
    SendTo,
}

impl NotifyCall {
    pub const ALL: [NotifyCall; 6] = [
        NotifyCall::Open,
        NotifyCall::Connect,
        NotifyCall::Exec,
        NotifyCall::ChangeName,
        NotifyCall::Bind,
        NotifyCall::SendTo,
    ];

    fn numbers(self) -> &'static [i64] {
        match self {
            NotifyCall::Open => &[libc::SYS_open, libc::SYS_openat, libc::SYS_openat2, libc::SYS_creat],
            NotifyCall::Connect => &[libc::SYS_connect],
            NotifyCall::Exec => &[libc::SYS_execve],
            NotifyCall::ChangeName => &[
                libc::SYS_unlink,
                libc::SYS_unlinkat,
                libc::SYS_rename,
                libc::SYS_renameat,
                libc::SYS_renameat2,
                libc::SYS_mkdir,
                libc::SYS_mkdirat,
                libc::SYS_rmdir,
                libc::SYS_link,
                libc::SYS_linkat,
                libc::SYS_symlink,
                libc::SYS_symlinkat,
            ],
            NotifyCall::Bind => &[libc::SYS_bind],
            NotifyCall::SendTo => &[libc::SYS_sendto],
        }
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    Errno(i32),
    Kill,
    Notify,
}

/// A condition on the low 32 bits of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    Equals {
        argument: u8,
        value: u32,
    },
    /// Any of these bits is set.
    AnyBit {
        argument: u8,
        bits: u32,
    },
    /// Every one of these bits is set.
    AllBits {
        argument: u8,
        bits: u32,
    },
}

/// One line of a profile. The first that matches decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub calls: &'static [i64],
    pub when: When,
    pub action: Action,
    pub why: &'static str,
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;
/// `AUDIT_ARCH_X86_64`.
const ARCH: u32 = 0xc000_003e;
/// Calls of the x32 ABI carry this bit.
const X32_BIT: u32 = 0x4000_0000;
/// The kernel's limit of instructions.
pub const INSTRUCTIONS_MAX: usize = 4096;

type Instruction = libc::sock_filter;

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

impl Action {
    fn code(self) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | (errno as u32 & 0xffff),
            Action::Kill => libc::SECCOMP_RET_KILL_PROCESS,
            Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
        }
    }
}

/// Writes one line: jump over unless the number matches, then the condition, then the verdict. The number is loaded
/// at the start of each line that follows a condition, so every line stands alone and no jump exceeds one line.
fn emit(program: &mut Vec<Instruction>, number: i64, when: When, action: Action) {
    let number = number as u32;
    let verdict = instruction(RETURN, 0, 0, action.code());
    let argument = |index: u8| instruction(LOAD, 0, 0, OFFSET_ARGUMENTS + 8 * u32::from(index));
    let reload = instruction(LOAD, 0, 0, OFFSET_NUMBER);
    match when {
        When::Always => program.extend([instruction(JUMP_EQUAL, 0, 1, number), verdict]),
        When::Equals { argument: index, value } => program.extend([
            instruction(JUMP_EQUAL, 0, 4, number),
            argument(index),
            instruction(JUMP_EQUAL, 0, 1, value),
            verdict,
            reload,
        ]),
        When::AnyBit { argument: index, bits } => program.extend([
            instruction(JUMP_EQUAL, 0, 4, number),
            argument(index),
            instruction(JUMP_ANY_BIT, 0, 1, bits),
            verdict,
            reload,
        ]),
        When::AllBits { argument: index, bits } => program.extend([
            instruction(JUMP_EQUAL, 0, 5, number),
            argument(index),
            instruction(AND, 0, 0, bits),
            instruction(JUMP_EQUAL, 0, 1, bits),
            verdict,
            reload,
        ]),
    }
}

/// The filter of a plan. Order: architecture, the profile's lines, socket families, notified calls, the rest.
#[must_use]
pub fn assemble(seccomp: &Seccomp) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD, 0, 0, OFFSET_ARCH),
        instruction(JUMP_EQUAL, 1, 0, ARCH),
        instruction(RETURN, 0, 0, Action::Kill.code()),
        instruction(LOAD, 0, 0, OFFSET_NUMBER),
        instruction(JUMP_AT_LEAST, 0, 1, X32_BIT),
        instruction(RETURN, 0, 0, Action::Kill.code()),
    ];
    let (lines, otherwise) = rules(seccomp.profile);
    let notified: Vec<i64> = seccomp.notify.iter().flat_map(|call| call.numbers()).copied().collect();
    for line in lines {
        for number in line.calls {
            // A call that is allowed and to be shown is shown; one that is refused stays refused.
            let show = line.action == Action::Allow && notified.contains(number);
            emit(&mut program, *number, line.when, if show { Action::Notify } else { line.action });
        }
    }
    for family in families(seccomp.sockets) {
        emit(&mut program, libc::SYS_socket, When::Equals { argument: 0, value: family }, Action::Allow);
    }
    if seccomp.sockets.netlink_route {
        allow_netlink_route(&mut program);
    }
    emit(&mut program, libc::SYS_socket, When::Always, Action::Errno(libc::EAFNOSUPPORT));
    if otherwise == Action::Allow {
        for number in notified {
            emit(&mut program, number, When::Always, Action::Notify);
        }
    }
    program.push(instruction(RETURN, 0, 0, otherwise.code()));
    program
}

/// The one line with two conditions: of netlink's protocols (audit, packet filter, kernel events …) only `ROUTE`.
fn allow_netlink_route(program: &mut Vec<Instruction>) {
    let argument = |index: u32| instruction(LOAD, 0, 0, OFFSET_ARGUMENTS + 8 * index);
    program.extend([
        instruction(JUMP_EQUAL, 0, 6, libc::SYS_socket as u32),
        argument(0),
        instruction(JUMP_EQUAL, 0, 3, libc::AF_NETLINK as u32),
        argument(2),
        instruction(JUMP_EQUAL, 0, 1, libc::NETLINK_ROUTE as u32),
        instruction(RETURN, 0, 0, Action::Allow.code()),
        instruction(LOAD, 0, 0, OFFSET_NUMBER),
    ]);
}

fn families(sockets: Sockets) -> impl Iterator<Item = u32> {
    [(sockets.unix, libc::AF_UNIX), (sockets.inet, libc::AF_INET), (sockets.inet, libc::AF_INET6)]
        .into_iter()
        .filter(|(allowed, _)| *allowed)
        .map(|(_, family)| family as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's rules for classic BPF, as far as these programs use them.
    fn run(program: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut at = 0;
        let mut accumulator = 0u32;
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            match code {
                LOAD => {
                    accumulator = match k {
                        OFFSET_NUMBER => number,
                        OFFSET_ARCH => arch,
                        offset => arguments[(offset as usize - 16) / 8] as u32,
                    }
                }
                JUMP_EQUAL => at += jump(accumulator == k),
                JUMP_AT_LEAST => at += jump(accumulator >= k),
                JUMP_ANY_BIT => at += jump(accumulator & k != 0),
                AND => accumulator &= k,
                RETURN => return k,
                other => panic!("unknown code {other}"),
            }
        }
    }

    fn filter(profile: Profile, notify: &[NotifyCall]) -> Vec<Instruction> {
        let sockets = Sockets { unix: true, inet: true, netlink_route: false };
        assemble(&Seccomp { profile, sockets, notify: notify.to_vec() })
    }

    fn verdict(profile: Profile, number: i64, arguments: [u64; 6]) -> u32 {
        run(&filter(profile, &[]), ARCH, number as u32, arguments)
    }

    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    #[test]
    fn foreign_architectures_and_x32_are_killed_in_every_profile() {
        for profile in [Profile::Service, Profile::Boundary, Profile::Program] {
            let program = filter(profile, &NotifyCall::ALL);
            assert!(program.len() <= INSTRUCTIONS_MAX);
            let i386 = 0x4000_0003;
            assert_eq!(run(&program, i386, libc::SYS_read as u32, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
            let x32 = X32_BIT | libc::SYS_read as u32;
            assert_eq!(run(&program, ARCH, x32, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
            assert_eq!(run(&program, ARCH, libc::SYS_read as u32, [0; 6]), libc::SECCOMP_RET_ALLOW);
        }
    }

    #[test]
    fn a_program_is_refused_what_reaches_beyond_it() {
        let check = |number, arguments, expected| {
            assert_eq!(verdict(Profile::Program, number, arguments), expected, "call {number}");
        };
        for number in [
            libc::SYS_mount,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_keyctl,
            libc::SYS_bpf,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_open_by_handle_at,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_pidfd_getfd,
        ] {
            check(number, [0; 6], EPERM);
        }
        for number in [libc::SYS_clone3, libc::SYS_io_uring_setup] {
            check(number, [0; 6], ENOSYS);
        }
        let new_user = u64::from(libc::CLONE_NEWUSER as u32);
        check(libc::SYS_clone, [new_user | 17, 0, 0, 0, 0, 0], EPERM);
        check(libc::SYS_clone, [17, 0, 0, 0, 0, 0], libc::SECCOMP_RET_ALLOW);
        // The kernel reads 32 bits of an ioctl's number; bits above must not hide it.
        check(libc::SYS_ioctl, [0, libc::TIOCSTI | 1 << 40, 0, 0, 0, 0], EPERM);
        check(libc::SYS_ioctl, [0, libc::TCGETS, 0, 0, 0, 0], libc::SECCOMP_RET_ALLOW);
        check(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0], libc::SECCOMP_RET_ALLOW);
        check(libc::SYS_personality, [0x0040_0000, 0, 0, 0, 0, 0], EPERM);
        let no_family = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;
        check(libc::SYS_socket, [libc::AF_PACKET as u64, 0, 0, 0, 0, 0], no_family);
        check(libc::SYS_socket, [libc::AF_NETLINK as u64, 0, 0, 0, 0, 0], no_family);
        check(libc::SYS_socket, [libc::AF_INET6 as u64, 0, 0, 0, 0, 0], libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn of_netlink_only_route_lookups_pass_and_only_where_they_are_allowed() {
        let with = |netlink_route| Sockets { unix: true, inet: true, netlink_route };
        let open = |sockets, family: i32, protocol: i32| {
            let program = assemble(&Seccomp { profile: Profile::Program, sockets, notify: Vec::new() });
            let arguments = [family as u64, libc::SOCK_RAW as u64, protocol as u64, 0, 0, 0];
            run(&program, ARCH, libc::SYS_socket as u32, arguments) == libc::SECCOMP_RET_ALLOW
        };
        assert!(open(with(true), libc::AF_NETLINK, libc::NETLINK_ROUTE));
        assert!(!open(with(false), libc::AF_NETLINK, libc::NETLINK_ROUTE));
        for protocol in 1..32 {
            assert!(!open(with(true), libc::AF_NETLINK, protocol), "{protocol}");
        }
        assert!(!open(with(true), libc::AF_PACKET, 0));
        assert!(open(with(true), libc::AF_INET6, 17));
        // What stands behind the line is still looked at.
        let program = assemble(&Seccomp {
            profile: Profile::Program,
            sockets: with(true),
            notify: vec![NotifyCall::Connect],
        });
        assert_eq!(run(&program, ARCH, libc::SYS_connect as u32, [0; 6]), libc::SECCOMP_RET_USER_NOTIF);
    }

    #[test]
    fn allow_lists_kill_what_they_do_not_name() {
        for profile in [Profile::Service, Profile::Boundary] {
            for number in
                [libc::SYS_ptrace, libc::SYS_mount, libc::SYS_execve, libc::SYS_bpf, libc::SYS_fork, 9999]
            {
                assert_eq!(verdict(profile, number, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS, "{number}");
            }
            let start = [300, 0, 0, 0, libc::AT_EMPTY_PATH as u64, 0];
            assert_eq!(verdict(profile, libc::SYS_execveat, start), libc::SECCOMP_RET_ALLOW);
            assert_eq!(verdict(profile, libc::SYS_execveat, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        }
        // Threads, yes; processes, no.
        let thread = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
        assert_eq!(
            verdict(Profile::Service, libc::SYS_clone, [thread as u64, 0, 0, 0, 0, 0]),
            libc::SECCOMP_RET_ALLOW
        );
        assert_eq!(
            verdict(Profile::Service, libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
            libc::SECCOMP_RET_KILL_PROCESS
        );
    }

    #[test]
    fn notified_calls_are_shown_and_refused_ones_stay_refused() {
        let program = filter(Profile::Program, &[NotifyCall::Open, NotifyCall::Connect]);
        for number in [libc::SYS_openat, libc::SYS_open, libc::SYS_connect] {
            assert_eq!(run(&program, ARCH, number as u32, [0; 6]), libc::SECCOMP_RET_USER_NOTIF);
        }
        assert_eq!(run(&program, ARCH, libc::SYS_mount as u32, [0; 6]), EPERM);
        assert_eq!(run(&program, ARCH, libc::SYS_execve as u32, [0; 6]), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn every_line_has_a_reason() {
        for profile in [Profile::Service, Profile::Boundary, Profile::Program] {
            for rule in rules(profile).0 {
                assert!(rule.why.len() >= 5 && !rule.calls.is_empty(), "{rule:?}");
            }
        }
    }
}
