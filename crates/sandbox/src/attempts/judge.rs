//! What has to be seen before a sandbox counts as holding an attempt.

use super::{ABSENT, Attempt, BROKEN, REFUSED, SUCCEEDED, Way, off_together};
use crate::guard::GuardSet;

/// Where an attempt is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the sandbox, with these guards off.
    Sandbox(GuardSet),
    /// As the same user, outside of any sandbox.
    Bare,
}

/// What an attempt came to: its exit code, or none when it was not even started, and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    pub verdict: Verdict,
    pub shown: Shown,
    /// Succeeded outside of any sandbox; `None`: not tried.
    pub bare: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Refused(String),
    /// Its canary cannot be had on this host.
    Untried(String),
    /// It succeeded, or it went wrong: what was not refused is missed.
    Missed(String),
}

/// Why a refusal means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It succeeded with these off.
    Without(GuardSet),
    /// It cannot succeed here even so, for this reason.
    Cannot(String),
    /// Neither: the refusal proves nothing.
    Not(String),
}

/// Tries an attempt everywhere it has to be tried. `run` gives the exit code of the attempt and its line; `broken`
/// are the guards that are off on purpose in what should hold.
pub fn examine(
    attempt: &Attempt,
    privileged: bool,
    broken: GuardSet,
    mut run: impl FnMut(Place) -> (Option<i32>, String),
) -> Examined {
    let verdict = match run(Place::Sandbox(off_together(broken, privileged))) {
        (Some(code), line) if is(code, REFUSED) || killed(code) => Verdict::Refused(line),
        (Some(code), line) if is(code, ABSENT) => Verdict::Untried(line),
        (Some(code), line) if is(code, SUCCEEDED) => Verdict::Missed(line),
        (Some(code), line) if is(code, BROKEN) => Verdict::Missed(line),
        (code, line) => Verdict::Missed(format!("could not be tried ({code:?}): {line}")),
    };
    if !broken.is_empty() {
        return Examined { verdict, shown: Shown::Cannot("not asked for".to_owned()), bare: None };
    }
    let bare = attempt.bare.then(|| run(Place::Bare));
    let succeeded_bare = bare.as_ref().map(|(code, _)| *code == Some(i32::from(SUCCEEDED)));
    let shown = match attempt.way(privileged) {
        Way::Never(why) => Shown::Cannot(why.to_owned()),
        Way::Without(guards) => {
            let off = attempt.beside.iter().copied().fold(GuardSet::of(guards), GuardSet::with);
            let off = off_together(off, privileged);
            let (code, line) = run(Place::Sandbox(off));
            match (code, bare) {
                (Some(code), _) if is(code, SUCCEEDED) => Shown::Without(off),
                (Some(code), _) if is(code, ABSENT) => Shown::Cannot(line),
                (_, Some((Some(code), bare))) if is(code, REFUSED) => {
                    Shown::Cannot(format!("this host refuses it outside of any sandbox too: {bare}"))
                }
                (_, _) => Shown::Not(line),
            }
        }
    };
    Examined { verdict, shown, bare: succeeded_bare }
}

fn is(code: i32, expected: u8) -> bool {
    code == i32::from(expected)
}

/// SIGKILL of a limit or SIGSYS of the filter, as a shell reports them.
fn killed(code: i32) -> bool {
    code == 128 + libc::SIGKILL || code == 128 + libc::SIGSYS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Guard;

    fn attempt() -> &'static Attempt {
        Attempt::find("read_a_file").unwrap()
    }

    fn judge(inside: u8, without: u8, bare: u8) -> Examined {
        examine(attempt(), true, GuardSet::EMPTY, |place| {
            let code = match place {
                Place::Sandbox(off) if off.is_empty() => inside,
                Place::Sandbox(_) => without,
                Place::Bare => bare,
            };
            (Some(i32::from(code)), String::new())
        })
    }

    #[test]
    fn a_refusal_that_cannot_be_otherwise_proves_nothing() {
        let good = judge(REFUSED, SUCCEEDED, SUCCEEDED);
        assert!(matches!(good.verdict, Verdict::Refused(_)) && matches!(good.shown, Shown::Without(_)));
        assert!(matches!(judge(SUCCEEDED, SUCCEEDED, SUCCEEDED).verdict, Verdict::Missed(_)));
        assert!(matches!(judge(BROKEN, SUCCEEDED, SUCCEEDED).verdict, Verdict::Missed(_)));
        assert!(matches!(judge(1, SUCCEEDED, SUCCEEDED).verdict, Verdict::Missed(_)));
        assert!(matches!(judge(ABSENT, ABSENT, ABSENT).verdict, Verdict::Untried(_)));
        assert!(matches!(judge(REFUSED, REFUSED, SUCCEEDED).shown, Shown::Not(_)));
        assert!(matches!(judge(REFUSED, REFUSED, REFUSED).shown, Shown::Cannot(_)));
        assert!(matches!(judge(REFUSED, BROKEN, SUCCEEDED).shown, Shown::Not(_)));
    }

    #[test]
    fn what_refuses_it_too_is_off_when_it_is_to_succeed() {
        let attempt = Attempt::find("speak_for_other_addresses").unwrap();
        let both = GuardSet::of(&[Guard::Caps, Guard::Seccomp]);
        let seen = examine(attempt, true, GuardSet::EMPTY, |place| {
            let code = if place == Place::Sandbox(both) { SUCCEEDED } else { REFUSED };
            (Some(i32::from(code)), String::new())
        });
        assert_eq!(seen.shown, Shown::Without(both));
    }

    #[test]
    fn with_a_guard_broken_only_the_verdict_counts() {
        let broken = GuardSet::of(&[Guard::Mountns]);
        let seen = examine(attempt(), true, broken, |place| {
            assert_eq!(place, Place::Sandbox(broken));
            (None, "the launch was refused".to_owned())
        });
        assert!(matches!(seen.verdict, Verdict::Missed(_)));
    }
}
