//! Adopts descriptors that a parent left open across `execve`: the one place where a number becomes an owner.
//!
//! Promises: a number is adopted once, is open, and is closed on the next `execve`. Never does: adopt standard
//! streams. Calls the kernel alone.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::Mutex,
};

/// Numbers below are standard streams, which belong to the runtime.
const FIRST_INHERITED: RawFd = 3;

static ADOPTED: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// In a child whose descriptors were all placed anew: what its parent adopted is no longer there.
pub(crate) fn start_over() {
    ADOPTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
}

/// Takes over a descriptor that this process inherited. To be called at start, before anything else is opened,
/// with numbers that the parent named.
pub fn adopt_descriptor(raw: RawFd) -> io::Result<OwnedFd> {
    if raw < FIRST_INHERITED {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("descriptor {raw} is a standard stream, not inherited"),
        ));
    }
    let mut adopted = ADOPTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if adopted.contains(&raw) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("descriptor {raw} was adopted before and has one owner"),
        ));
    }
    // SAFETY: the borrow ends within this statement; `fcntl` on a number that is not open fails with EBADF
    // and touches nothing.
    rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(raw) }, rustix::io::FdFlags::CLOEXEC)?;
    adopted.insert(raw);
    // SAFETY: the descriptor is open (checked above), was left open by the parent for this process, and no
    // other owner was made of it here (the set holds every number ever adopted).
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn a_descriptor_is_adopted_once_and_only_if_open() {
        let raw = std::fs::File::open("/dev/null").unwrap().into_raw_fd();
        let owned = adopt_descriptor(raw).unwrap();
        assert!(rustix::io::fcntl_getfd(&owned).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(adopt_descriptor(raw).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(adopt_descriptor(2).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(adopt_descriptor(1_000_000).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
