//! Opens what lies below a folder, and nothing else, whatever links say.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::path::Arg;

/// Each of them fails only if something is renamed or mounted in the microseconds that it takes.
const TRIES_MAX: usize = 1_000;

/// `openat2`, again where the kernel cannot tell whether a `..` or a link stayed inside: something was renamed or mounted
/// meanwhile, anywhere on the machine.
pub fn open_within(
    root: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    again(|| openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
}

fn again<T>(mut open: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let mut tries = 1;
    loop {
        match open() {
            Err(Errno::AGAIN) if tries < TRIES_MAX => tries += 1,
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_could_not_tell_is_asked_again_and_not_for_ever() {
        let mut left = 5;
        let mut open = || {
            left -= 1;
            if left > 0 { Err(Errno::AGAIN) } else { Ok(left) }
        };
        assert_eq!(again(&mut open), Ok(0));
        let mut asked = 0;
        let never = again(|| {
            asked += 1;
            Err::<(), _>(Errno::AGAIN)
        });
        assert_eq!((never, asked), (Err(Errno::AGAIN), TRIES_MAX));
        assert_eq!(again(|| Err::<(), _>(Errno::NOENT)), Err(Errno::NOENT));
    }
}
