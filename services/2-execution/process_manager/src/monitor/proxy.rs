//! The proxy of a program, as far as it is here: who connects to it on the program's own loopback is handed to `network`.
//!
//! Nothing is read here. Whoever is in this network may connect: it is the program's alone, so who asks is known.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    os::fd::OwnedFd,
};

use kit::way_out::PROXY_PORT;
use rustix::event::{PollFd, PollFlags};
use sandbox::Ready;

/// Connections handed on in a row before the loop looks at everything else again; the others wait in the kernel.
const ACCEPTED_PER_TURN_MAX: usize = 32;

#[derive(Debug)]
pub(crate) struct Proxy(TcpListener);

impl Proxy {
    /// Before the program is there, so that nobody else has the port.
    pub(crate) fn new() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PROXY_PORT))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    pub(super) fn poll<'a>(&'a self, polled: &mut Vec<PollFd<'a>>) {
        polled.push(PollFd::new(&self.0, PollFlags::IN));
    }

    /// What `hand` does not pass on is closed.
    pub(super) fn serve(&self, ready: &Ready, mut hand: impl FnMut(OwnedFd)) {
        if !ready.has(&self.0) {
            return;
        }
        for _ in 0..ACCEPTED_PER_TURN_MAX {
            match self.0.accept() {
                Ok((socket, _)) => hand(socket.into()),
                Err(_) => break,
            }
        }
    }
}
