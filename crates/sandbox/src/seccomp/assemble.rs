//! A small assembler for classic BPF: looks the call's number up in a balanced tree, then tests that call's lines.
//!
//! A tree and not a list, because the kernel runs a new filter once for each system call that it has, to learn which
//! are always allowed: with a list of all lines that took longer than the rest of loading it.
//!
//! Only the low 32 bits of an argument are compared: every argument that is looked at here is an `int` or a set of
//! flags below 32 bits for the kernel too, and comparing more would let a caller hide behind bits nobody reads.

use super::{
    Action, NotifyCall, Profile, Rule, When,
    handed::{FOREIGN, HANDED},
    rules,
};
use crate::plan::{Seccomp, Sockets};

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
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

    fn instruction(self) -> Instruction {
        instruction(RETURN, 0, 0, self.code())
    }
}

/// What happens to one call under one condition. Of the lines of a call, the first that matches decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    number: u32,
    when: When,
    action: Action,
}

/// The filter of a plan.
#[must_use]
pub fn assemble(seccomp: &Seccomp) -> Vec<Instruction> {
    let (mut lines, otherwise) = lines(seccomp);
    // Stable: the lines of one call keep their order.
    lines.sort_by_key(|line| line.number);
    let spans = spans(&lines, otherwise);
    // From its end: a jump can only be written once it is known how much it jumps over.
    let mut backwards = Vec::with_capacity(4 * spans.len());
    tree(&mut backwards, &spans, otherwise);
    backwards.extend([
        Action::Kill.instruction(),
        instruction(JUMP_AT_LEAST, 0, 1, X32_BIT),
        instruction(LOAD, 0, 0, OFFSET_NUMBER),
        Action::Kill.instruction(),
        instruction(JUMP_EQUAL, 1, 0, ARCH),
        instruction(LOAD, 0, 0, OFFSET_ARCH),
    ]);
    backwards.reverse();
    backwards
}

/// Every line in the order in which they decide, and what happens to a call without one. Order: what guards handed sockets,
/// the profile's lines, socket families, notified calls.
fn lines(seccomp: &Seccomp) -> (Vec<Line>, Action) {
    let (rules, otherwise) = rules(seccomp.profile);
    let notified: Vec<i64> = seccomp.notify.iter().flat_map(|call| call.numbers()).copied().collect();
    let line = |number: i64, when, action| Line { number: number as u32, when, action };
    let of_rule = |rule: &Rule, number: i64| {
        // A call that is allowed and to be shown is shown; one that is refused stays refused.
        let show = rule.action == Action::Allow && notified.contains(&number);
        line(number, rule.when, if show { Action::Notify } else { rule.action })
    };
    let shows = |call| seccomp.profile == Profile::Program && seccomp.notify.contains(&call);
    let is_handed = shows(NotifyCall::Socket);
    let first = match (is_handed, shows(NotifyCall::Listen)) {
        (true, _) => HANDED,
        (false, true) => FOREIGN,
        (false, false) => &[],
    };
    let mut lines: Vec<Line> = first
        .iter()
        .chain(rules)
        .flat_map(|rule| rule.calls.iter().map(move |number| of_rule(rule, *number)))
        .collect();
    lines.extend(families(seccomp.sockets).map(|(when, is_inet)| {
        line(libc::SYS_socket, when, if is_handed && is_inet { Action::Notify } else { Action::Allow })
    }));
    lines.push(line(libc::SYS_socket, When::Always, Action::Errno(libc::EAFNOSUPPORT)));
    if otherwise == Action::Allow {
        lines.extend(notified.iter().map(|number| line(*number, When::Always, Action::Notify)));
    }
    (lines, otherwise)
}

/// With whether it is one of the internet.
fn families(sockets: Sockets) -> impl Iterator<Item = (When, bool)> {
    let family = |family: i32| When::Equals { argument: 0, value: family as u32 };
    // Of netlink's protocols (audit, packet filter, kernel events …) only `ROUTE`.
    let (netlink, route) = ((0, libc::AF_NETLINK as u32), (2, libc::NETLINK_ROUTE as u32));
    [
        (sockets.unix, family(libc::AF_UNIX), false),
        (sockets.inet, family(libc::AF_INET), true),
        (sockets.inet, family(libc::AF_INET6), true),
        (sockets.netlink_route, When::BothEqual { first: netlink, second: route }, false),
    ]
    .into_iter()
    .filter_map(|(allowed, when, is_inet)| allowed.then_some((when, is_inet)))
}

/// Calls from one number up to the next span's, with what decides them: their lines, none for calls without any.
#[derive(Clone, Copy, Debug)]
struct Span<'l> {
    from: u32,
    lines: &'l [Line],
}

impl Span<'_> {
    /// The verdict, where it needs no argument.
    fn verdict(&self, otherwise: Action) -> Option<Action> {
        match self.lines {
            [] => Some(otherwise),
            [Line { when: When::Always, action, .. }, ..] => Some(*action),
            _ => None,
        }
    }
}

/// All numbers without a gap, lowest first. Neighbours with the same verdict are one.
fn spans(lines: &[Line], otherwise: Action) -> Vec<Span<'_>> {
    let mut spans = vec![Span { from: 0, lines: &[] }];
    for lines in lines.chunk_by(|one, next| one.number == next.number) {
        let number = lines.first().map_or(0, |line| line.number);
        let others = Span { from: number.saturating_add(1), lines: &[] };
        for span in [Span { from: number, lines }, others] {
            // Calls that follow each other leave no room between them.
            spans.pop_if(|last| last.from == span.from);
            let before = spans.last().and_then(|last| last.verdict(otherwise));
            if before.is_none() || before != span.verdict(otherwise) {
                spans.push(span);
            }
        }
    }
    spans
}

/// With the call's number loaded: halves the spans until one is left.
fn tree(backwards: &mut Vec<Instruction>, spans: &[Span<'_>], otherwise: Action) {
    let (low, high) = spans.split_at(spans.len() / 2);
    let Some(middle) = high.first() else { return };
    if low.is_empty() {
        return leaf(backwards, middle, otherwise);
    }
    tree(backwards, high, otherwise);
    let end = backwards.len();
    tree(backwards, low, otherwise);
    let length = backwards.len() - end;
    match u8::try_from(length) {
        Ok(length) => backwards.push(instruction(JUMP_AT_LEAST, length, 0, middle.from)),
        // A conditional jump reaches 255 instructions, an unconditional one all.
        Err(_) => backwards.extend([
            instruction(JUMP, 0, 0, u32::try_from(length).unwrap_or(u32::MAX)),
            instruction(JUMP_AT_LEAST, 0, 1, middle.from),
        ]),
    }
}

/// The lines of one call, each jumped over if its condition does not hold.
fn leaf(backwards: &mut Vec<Instruction>, span: &Span<'_>, otherwise: Action) {
    let argument = |index: u8| instruction(LOAD, 0, 0, OFFSET_ARGUMENTS + 8 * u32::from(index));
    // What stands behind a line without a condition is never reached.
    let ends = span.lines.iter().position(|line| line.when == When::Always);
    let reached = ends.map_or(span.lines.len(), |at| at + 1);
    if ends.is_none() {
        backwards.push(otherwise.instruction());
    }
    for line in span.lines.iter().take(reached).rev() {
        backwards.push(line.action.instruction());
        match line.when {
            When::Always => {}
            When::Equals { argument: index, value } => {
                backwards.extend([instruction(JUMP_EQUAL, 0, 1, value), argument(index)]);
            }
            When::AnyBit { argument: index, bits } => {
                backwards.extend([instruction(JUMP_ANY_BIT, 0, 1, bits), argument(index)]);
            }
            When::AllBits { argument: index, bits } => backwards.extend([
                instruction(JUMP_EQUAL, 0, 1, bits),
                instruction(AND, 0, 0, bits),
                argument(index),
            ]),
            When::BothEqual { first: (one, value), second: (other, second) } => backwards.extend([
                instruction(JUMP_EQUAL, 0, 1, second),
                argument(other),
                instruction(JUMP_EQUAL, 0, 3, value),
                argument(one),
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        count(program, arch, number, arguments).0
    }

    /// The kernel's rules for classic BPF, as far as these programs use them: the verdict, after how many instructions.
    fn count(program: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
        let mut at = 0;
        let mut accumulator = 0u32;
        for steps in 1.. {
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
                JUMP => at += k as usize,
                JUMP_EQUAL => at += jump(accumulator == k),
                JUMP_AT_LEAST => at += jump(accumulator >= k),
                JUMP_ANY_BIT => at += jump(accumulator & k != 0),
                AND => accumulator &= k,
                RETURN => return (k, steps),
                other => panic!("unknown code {other}"),
            }
        }
        panic!("programs only jump forwards")
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

    /// The lines read as they are meant, one after the other.
    fn meant(seccomp: &Seccomp, number: u32, arguments: [u64; 6]) -> u32 {
        let (lines, otherwise) = lines(seccomp);
        let argument = |index: u8| arguments[usize::from(index)] as u32;
        let holds = |when: When| match when {
            When::Always => true,
            When::Equals { argument: index, value } => argument(index) == value,
            When::AnyBit { argument: index, bits } => argument(index) & bits != 0,
            When::AllBits { argument: index, bits } => argument(index) & bits == bits,
            When::BothEqual { first, second } => {
                argument(first.0) == first.1 && argument(second.0) == second.1
            }
        };
        let found = lines.iter().find(|line| line.number == number && holds(line.when));
        found.map_or(otherwise, |line| line.action).code()
    }

    /// Every value that a condition of this call names, its neighbours, and none.
    fn values(lines: &[Line], number: u32, index: u8) -> Vec<u64> {
        let of = |when: When| match when {
            When::Equals { argument, value } if argument == index => vec![value],
            When::AnyBit { argument, bits } | When::AllBits { argument, bits } if argument == index => {
                vec![bits, bits & bits.wrapping_neg(), !bits]
            }
            When::BothEqual { first, second } => [first, second]
                .into_iter()
                .filter(|(argument, _)| *argument == index)
                .map(|(_, v)| v)
                .collect(),
            _ => Vec::new(),
        };
        let lines = lines.iter().filter(|line| line.number == number);
        let named = lines.flat_map(|line| of(line.when)).flat_map(|value| [value, value.wrapping_add(1)]);
        std::iter::once(0).chain(named.map(u64::from)).collect()
    }

    #[test]
    fn a_handed_socket_takes_the_options_of_the_list_alone() {
        let handed = filter(Profile::Program, &[NotifyCall::Socket]);
        let of = |number: i64, arguments: [u64; 6]| run(&handed, ARCH, number as u32, arguments);
        let (inet, unix) = (libc::AF_INET as u64, libc::AF_UNIX as u64);
        assert_eq!(of(libc::SYS_socket, [inet, 1, 0, 0, 0, 0]), libc::SECCOMP_RET_USER_NOTIF);
        assert_eq!(
            of(libc::SYS_socket, [libc::AF_INET6 as u64, 3, 0, 0, 0, 0]),
            libc::SECCOMP_RET_USER_NOTIF
        );
        assert_eq!(of(libc::SYS_socket, [unix, 1, 0, 0, 0, 0]), libc::SECCOMP_RET_ALLOW);
        let refused = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;
        assert_eq!(of(libc::SYS_socket, [libc::AF_VSOCK as u64, 1, 0, 0, 0, 0]), refused);
        let set = |level: i32, name: i32| of(libc::SYS_setsockopt, [3, level as u64, name as u64, 0, 0, 0]);
        let no_option = libc::SECCOMP_RET_ERRNO | libc::ENOPROTOOPT as u32;
        for (level, name) in [
            (libc::SOL_SOCKET, libc::SO_REUSEADDR),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY),
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
        ] {
            assert_eq!(set(level, name), libc::SECCOMP_RET_ALLOW, "{level} {name}");
        }
        const TCP_FASTOPEN_CONNECT: i32 = 30;
        for (level, name) in [
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
            (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
            (libc::SOL_SOCKET, libc::SO_DETACH_FILTER),
            (libc::IPPROTO_IPV6, libc::IPV6_RTHDR),
            (libc::IPPROTO_IPV6, libc::IPV6_HOPOPTS),
            (libc::IPPROTO_IP, libc::IP_OPTIONS),
            (libc::IPPROTO_IP, libc::IP_FREEBIND),
            (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
            (libc::IPPROTO_TCP, libc::TCP_REPAIR),
            (libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT),
        ] {
            assert_eq!(set(level, name), no_option, "{level} {name}");
        }
        let fast = libc::MSG_FASTOPEN as u64;
        let not_supported = libc::SECCOMP_RET_ERRNO | libc::EOPNOTSUPP as u32;
        for (call, at) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
            let mut arguments = [3, 0, 0, 0, 0, 0];
            assert_eq!(of(call, arguments), libc::SECCOMP_RET_ALLOW);
            arguments[at] = fast | 1;
            assert_eq!(of(call, arguments), not_supported);
        }
        let asks = |request: u32| of(libc::SYS_ioctl, [3, u64::from(request) | 1 << 40, 0, 0, 0, 0]);
        let no_request = libc::SECCOMP_RET_ERRNO | libc::ENOTTY as u32;
        // Of the owner, the mark and the time, in both forms; and what every descriptor knows.
        let own = (0x8901..=0x8907).chain([0x8010_8906, 0x8010_8907]);
        for request in own.chain([libc::FIONBIO as u32, libc::FIONREAD as u32, libc::TCGETS as u32]) {
            assert_eq!(asks(request), libc::SECCOMP_RET_ALLOW, "{request:#x}");
        }
        for request in (0x8908..=0x89ff).chain(0x8b00..=0x8bff).chain([0x8900]) {
            assert_eq!(asks(request), no_request, "{request:#x}");
        }
        let plain = filter(Profile::Program, &[]);
        let set = [3, libc::SOL_SOCKET as u64, libc::SO_BINDTODEVICE as u64, 0, 0, 0];
        assert_eq!(run(&plain, ARCH, libc::SYS_setsockopt as u32, set), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn the_tree_decides_as_the_lines_do_one_after_the_other() {
        let all = Sockets { unix: true, inet: true, netlink_route: true };
        for profile in [Profile::Service, Profile::Boundary, Profile::Program] {
            for (sockets, notify) in [(all, &NotifyCall::ALL[..]), (Sockets::default(), &[])] {
                let seccomp = Seccomp { profile, sockets, notify: notify.to_vec() };
                let program = assemble(&seccomp);
                let (lines, _) = lines(&seccomp);
                for number in 0..600 {
                    let mut arguments = vec![[0u64; 6]];
                    for index in 0..6u8 {
                        let values = values(&lines, number, index);
                        let with = |base: &[u64; 6], value: u64| {
                            let mut arguments = *base;
                            arguments[usize::from(index)] = value;
                            arguments
                        };
                        arguments =
                            arguments.iter().flat_map(|a| values.iter().map(|v| with(a, *v))).collect();
                    }
                    for arguments in arguments {
                        let found = run(&program, ARCH, number, arguments);
                        let meant = meant(&seccomp, number, arguments);
                        assert_eq!(found, meant, "{profile:?} {number} {arguments:?}");
                    }
                }
            }
        }
    }

    /// The kernel goes through it once for each call when it is loaded, and later for each that looks at arguments.
    #[test]
    fn a_call_is_decided_in_few_steps() {
        for profile in [Profile::Service, Profile::Boundary, Profile::Program] {
            let program = filter(profile, &NotifyCall::ALL);
            // These test a number of arguments one after the other.
            let long = [libc::SYS_prctl, libc::SYS_ioctl, libc::SYS_setsockopt];
            let steps = (0..600).filter(|number| !long.contains(&i64::from(*number)));
            let most = steps.map(|number| count(&program, ARCH, number, [0; 6]).1).max();
            assert!(most.is_some_and(|most| most <= 32), "{profile:?}: {most:?}");
        }
    }

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
