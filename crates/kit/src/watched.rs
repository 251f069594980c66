//! Descriptors that the runtime watches.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// What owns a descriptor, as the runtime takes it.
#[derive(Debug)]
pub struct Watched<T>(pub T);

impl<T: AsFd> AsRawFd for Watched<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Within a runtime. `owner` gives the same descriptor as long as it lives.
#[expect(
    deprecated,
    reason = "the form without the warning is unsafe; what is watched owns its descriptor, and nobody here swaps it"
)]
pub fn watch<T: AsFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<Watched<T>>> {
    AsyncFd::with_interest(Watched(owner), interest)
}
