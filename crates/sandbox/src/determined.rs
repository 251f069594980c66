//! What a monitor says to the calls that a job's filter shows (ACT-37, ACT-38): the declared clock and seed, threads if
//! they are declared, and for everything else that the job is not deterministic.
//!
//! Deciding is pure; `Listener` carries it out.

use base::Hash;
use minicbor::{Decode, Encode};

use crate::notify::Notification;

/// Bytes given at one call; a program that wants more asks again.
const RANDOM_BYTES_MAX: u64 = 256;
/// Bytes of a `cpu_set_t` that are given: as many processors as anybody has.
const AFFINITY_BYTES: usize = 8;
const THREAD_FLAGS: u64 = (libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND) as u64;
const NANOSECONDS: u64 = 1_000_000_000;

/// The inputs of a job that are no files. What is absent ends the job that asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Fixed {
    /// What every clock shows, since 1970.
    #[n(0)]
    pub clock_ns: Option<u64>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub seed: Option<[u8; 32]>,
    #[n(2)]
    pub threads: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    GoOn,
    Refuse(i32),
    /// Bytes for addresses of the caller, and what the call gives.
    Give(Vec<(u64, Vec<u8>)>, i64),
    /// It is not deterministic: the job ends.
    Violation,
}

/// The answers of one run. Random bytes are one stream, so the order of the questions decides what each gets.
#[derive(Debug, Default)]
pub struct Answers {
    fixed: Fixed,
    drawn: u64,
}

impl Answers {
    #[must_use]
    pub fn new(fixed: Fixed) -> Answers {
        Answers { fixed, drawn: 0 }
    }

    pub fn judge(&mut self, call: &Notification) -> Verdict {
        let [first, second, third, ..] = call.arguments;
        match (i64::from(call.number), self.fixed.clock_ns, self.fixed.seed) {
            // Its flags stand in a register: nobody changes them between this look and the kernel's.
            (libc::SYS_clone, ..) if self.fixed.threads && first & THREAD_FLAGS == THREAD_FLAGS => {
                Verdict::GoOn
            }
            // Asked at the start of many a program: one processor, everywhere.
            (libc::SYS_sched_getaffinity, ..) => {
                if second < AFFINITY_BYTES as u64 {
                    return Verdict::Refuse(libc::EINVAL);
                }
                Verdict::Give(vec![(third, 1_u64.to_ne_bytes().to_vec())], AFFINITY_BYTES as i64)
            }
            (libc::SYS_clock_gettime, Some(now), _) => {
                Verdict::Give(vec![(second, pair(now / NANOSECONDS, now % NANOSECONDS))], 0)
            }
            (libc::SYS_clock_getres, Some(_), _) => {
                Verdict::Give(if second == 0 { Vec::new() } else { vec![(second, pair(0, 1))] }, 0)
            }
            (libc::SYS_gettimeofday, Some(now), _) => {
                let mut given = Vec::new();
                if first != 0 {
                    given.push((first, pair(now / NANOSECONDS, now % NANOSECONDS / 1000)));
                }
                // A zone that nobody uses: UTC.
                if second != 0 {
                    given.push((second, vec![0; 8]));
                }
                Verdict::Give(given, 0)
            }
            (libc::SYS_time, Some(now), _) => {
                let seconds = now / NANOSECONDS;
                let given =
                    if first == 0 { Vec::new() } else { vec![(first, seconds.to_ne_bytes().to_vec())] };
                Verdict::Give(given, i64::try_from(seconds).unwrap_or(i64::MAX))
            }
            (libc::SYS_getrandom, _, Some(seed)) => {
                let bytes = self.draw(&seed, second.min(RANDOM_BYTES_MAX));
                let count = bytes.len() as i64;
                Verdict::Give(vec![(first, bytes)], count)
            }
            _ => Verdict::Violation,
        }
    }

    fn draw(&mut self, seed: &[u8; 32], count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < count {
            let block = Hash::of_parts(&[b"bailiwick job random v1\0", seed, &self.drawn.to_le_bytes()]);
            self.drawn += 1;
            bytes.extend(block.0);
        }
        bytes.truncate(usize::try_from(count).unwrap_or(0));
        bytes
    }
}

/// A `timespec` or `timeval`.
fn pair(seconds: u64, rest: u64) -> Vec<u8> {
    [seconds.to_ne_bytes(), rest.to_ne_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: i64, arguments: [u64; 3]) -> Notification {
        let [a, b, c] = arguments;
        Notification { id: 1, pid: 2, number: number as i32, arguments: [a, b, c, 0, 0, 0] }
    }

    const ALL: Fixed = Fixed { clock_ns: Some(7_000_000_009), seed: Some([1; 32]), threads: true };

    /// covers: ACT-37, ACT-38
    #[test]
    fn time_random_bytes_and_threads_are_there_if_they_are_declared() {
        let asked = [
            call(libc::SYS_clock_gettime, [0, 64, 0]),
            call(libc::SYS_clock_getres, [0, 64, 0]),
            call(libc::SYS_gettimeofday, [64, 128, 0]),
            call(libc::SYS_time, [64, 0, 0]),
            call(libc::SYS_getrandom, [64, 16, 0]),
            call(libc::SYS_clone, [THREAD_FLAGS, 0, 0]),
        ];
        let mut none = Answers::default();
        let mut all = Answers::new(ALL);
        for call in &asked {
            assert_eq!(none.judge(call), Verdict::Violation, "{call:?}");
            assert_ne!(all.judge(call), Verdict::Violation, "{call:?}");
        }
        let given = |verdict| match verdict {
            Verdict::Give(given, value) => (given, value),
            other => panic!("{other:?}"),
        };
        let (time, _) = given(all.judge(&asked[0]));
        assert_eq!(time, [(64, pair(7, 9))]);
        assert_eq!(given(all.judge(&asked[3])), (vec![(64, 7_u64.to_ne_bytes().to_vec())], 7));
        assert_eq!(given(all.judge(&call(libc::SYS_time, [0, 0, 0]))), (vec![], 7));
    }

    #[test]
    fn random_bytes_are_one_stream_and_the_same_each_time() {
        let draw =
            |answers: &mut Answers, count| match answers.judge(&call(libc::SYS_getrandom, [64, count, 0])) {
                Verdict::Give(given, value) => (given[0].1.clone(), value),
                other => panic!("{other:?}"),
            };
        let (mut one, mut other) = (Answers::new(ALL), Answers::new(ALL));
        let first = draw(&mut one, 40);
        assert_eq!(first, draw(&mut other, 40));
        assert_eq!((first.0.len(), first.1), (40, 40));
        assert_ne!(draw(&mut one, 40), first, "the stream goes on");
        assert_eq!(draw(&mut one, RANDOM_BYTES_MAX).1, 256);
        assert_eq!(draw(&mut one, RANDOM_BYTES_MAX + 1).1, 256);
        let mut another = Answers::new(Fixed { seed: Some([2; 32]), ..ALL });
        assert_ne!(draw(&mut another, 40), first);
    }

    #[test]
    fn processes_programs_and_sockets_are_a_violation_whatever_is_declared() {
        let mut all = Answers::new(ALL);
        for number in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_socket,
            libc::SYS_uname,
            libc::SYS_getcpu,
            libc::SYS_nanosleep,
        ] {
            assert_eq!(all.judge(&call(number, [0, 0, 0])), Verdict::Violation, "{number}");
        }
        let fork = call(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0]);
        assert_eq!(all.judge(&fork), Verdict::Violation);
        let wide = call(libc::SYS_sched_getaffinity, [0, 128, 64]);
        let one = Verdict::Give(vec![(64, 1_u64.to_ne_bytes().to_vec())], 8);
        assert_eq!((all.judge(&wide), Answers::default().judge(&wide)), (one.clone(), one));
        let narrow = call(libc::SYS_sched_getaffinity, [0, 7, 64]);
        assert_eq!(all.judge(&narrow), Verdict::Refuse(libc::EINVAL));
    }
}
