//! Who answers the calls that a program's filter shows, where that is its init.
//!
//! What is answered, and how, is not known here: the launcher gives it with its parts, as code. It runs in the init, with the
//! init's rights, beside what the init does for every program, and must wait for nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::event::PollFd;

/// What the code has to work with.
#[derive(Debug)]
pub struct Given {
    /// On it the launcher's side says what to do.
    pub control: OwnedFd,
    /// Of the name server: UDP, then TCP, which listens.
    pub names: Option<[OwnedFd; 2]>,
    /// What is sent out of the program's network, as packets.
    pub packets: Option<OwnedFd>,
    /// Whether connects can lead out of its network.
    pub leads_out: bool,
    /// Whether it has a proxy on its loopback.
    pub proxy: bool,
    /// Sockets of the host's that listen, and whereto on the program's loopback whoever comes there is led.
    pub published: Vec<(OwnedFd, u16)>,
    /// Ports of sockets that are given to it: what is accepted there did not go out.
    pub given_ports: Vec<u16>,
}

/// What a look has found. Most of what is waited for has nothing to say in any one turn, and a call of the kernel for each of them
/// would cost more than what is to be done.
#[derive(Debug, Default)]
pub struct Ready(Vec<RawFd>);

impl Ready {
    #[must_use]
    pub fn of(polled: &[PollFd<'_>]) -> Self {
        let spoke = polled.iter().filter(|one| !one.revents().is_empty());
        Self(spoke.map(|one| one.as_fd().as_raw_fd()).collect())
    }

    /// Only of what was there when it was looked: what was opened since may have the number of something that was closed.
    #[must_use]
    pub fn has(&self, fd: impl AsFd) -> bool {
        self.0.contains(&fd.as_fd().as_raw_fd())
    }
}

/// In the init. An error of any of these is its end, and with it the program's. What is written to standard error comes to
/// the program's log.
pub trait Watcher {
    /// Everything that it waits for, or will. Of what it has when it is made, the init keeps no other descriptor open.
    fn poll<'a>(&'a self, polled: &mut Vec<PollFd<'a>>);
    /// Does what can be done now.
    fn serve(&mut self, ready: &Ready) -> io::Result<()>;
    /// One more process, whose calls are shown there from now on.
    fn hear(&mut self, listener: OwnedFd) -> io::Result<()>;
}

/// Makes one, before there is a program.
pub type Watch = fn(Given) -> io::Result<Box<dyn Watcher>>;

#[cfg(test)]
mod tests {
    use rustix::event::{PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn who_has_said_something_or_has_gone_is_ready_and_nobody_else() {
        let pipe = || rustix::pipe::pipe().unwrap();
        let ((silent, _silent), (speaks, said), (gone, other)) = (pipe(), pipe(), pipe());
        rustix::io::write(&said, b"x").unwrap();
        drop(other);
        let mut polled = [&silent, &speaks, &gone].map(|fd| PollFd::new(fd, PollFlags::IN));
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
        let ready = Ready::of(&polled);
        assert!(!ready.has(&silent) && ready.has(&speaks) && ready.has(&gone));
        assert!(!Ready::default().has(&speaks));
    }
}
