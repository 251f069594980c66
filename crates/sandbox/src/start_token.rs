//! What one more process is started for: a byte in a pipe, that its init takes before it forks. Who asked takes it away
//! instead, and then knows that nothing starts, however long the init stood still. Once the init has it, only its end is
//! the end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

const TOKEN: [u8; 1] = *b"1";

/// The end of who asked. Gone with it, the token is void.
#[derive(Debug)]
pub struct StartToken {
    token: OwnedFd,
    _holds: OwnedFd,
}

impl StartToken {
    /// With the end that goes to the init.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (token, holds) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        rustix::io::write(&holds, &TOKEN)?;
        let theirs = token.try_clone()?;
        Ok((Self { token, _holds: holds }, theirs))
    }

    /// True if it was still there: nothing has been started, and nothing will be.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        taken(&self.token)
    }

    /// For whoever starts it: whether it may, because somebody waits for it and has not taken the token away.
    #[must_use]
    pub fn take(theirs: &OwnedFd) -> bool {
        take(theirs)
    }
}

fn taken(token: impl AsFd) -> bool {
    rustix::io::retry_on_intr(|| rustix::io::read(&token, &mut [0; TOKEN.len()])) == Ok(TOKEN.len())
}

/// Whether the process may be started: somebody waits for it, and has not taken the token away.
pub(crate) fn take(token: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(token, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let looked = rustix::io::retry_on_intr(|| poll(&mut polled, Some(&at_once)));
    let [token] = &polled;
    looked == Ok(1) && !token.revents().contains(PollFlags::HUP) && taken(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_both_has_it() {
        let (ours, theirs) = StartToken::new().unwrap();
        assert!(take(&theirs));
        assert!(!ours.withdraw() && !take(&theirs));
        let (ours, theirs) = StartToken::new().unwrap();
        assert!(ours.withdraw());
        assert!(!take(&theirs) && !ours.withdraw());
    }

    #[test]
    fn nobody_who_waits_is_no_token() {
        let (ours, theirs) = StartToken::new().unwrap();
        drop(ours);
        assert!(!take(&theirs));
    }

    #[test]
    fn what_is_no_token_starts_nothing() {
        let (empty, _holds) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        assert!(!take(&empty));
        let null = std::fs::File::open("/proc/self").unwrap();
        assert!(!take(&null.into()));
    }

    #[test]
    fn of_many_at_once_one_has_it() {
        for _ in 0..200 {
            let (ours, theirs) = StartToken::new().unwrap();
            let (started, withdrawn) = std::thread::scope(|scope| {
                let init = scope.spawn(|| take(&theirs));
                (ours.withdraw(), init.join().unwrap())
            });
            assert!(started != withdrawn);
        }
    }
}
