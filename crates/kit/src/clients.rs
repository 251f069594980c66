//! Clients that come and go while a service runs: the supervisor passes their sockets over a channel that the service
//! has inherited. One channel for each process, so that nothing is meant for another.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
};

use base::cbor;
use minicbor::{Decode, Encode};
use sandbox::fdpass::{Channel, PassError};
use tokio::io::unix::AsyncFd;

use crate::env::{DESCRIPTORS_MAX, listening};

/// Bytes of a message: the names of all clients that a service can have.
const MESSAGE_BYTES_MAX: usize = DESCRIPTORS_MAX * (base::limits::NAME_BYTES_MAX + 4);

/// What the supervisor says. Said twice, it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ClientChange {
    /// Serve this client on the listening socket that comes along, and no longer on one before.
    #[n(0)]
    Serve(#[n(0)] String),
    /// Serve no clients on edges but these.
    #[n(1)]
    Only(#[n(0)] Vec<String>),
    /// The same two for the sockets of workloads.
    #[n(2)]
    ServeWorkload(#[n(0)] String),
    #[n(3)]
    OnlyWorkloads(#[n(0)] Vec<String>),
}

impl ClientChange {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }
}

/// The service's end.
#[derive(Debug)]
pub(crate) struct Changes(Option<AsyncFd<Wire>>);

#[derive(Debug)]
struct Wire(Channel);

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[expect(
    deprecated,
    reason = "the form without the warning is unsafe; this one owns its descriptor and never swaps it"
)]
fn register(wire: Wire) -> io::Result<AsyncFd<Wire>> {
    AsyncFd::new(wire)
}

impl Changes {
    pub(crate) fn new(fd: Option<OwnedFd>) -> io::Result<Self> {
        let Some(fd) = fd else { return Ok(Self(None)) };
        let channel = Channel::from(fd);
        channel.set_nonblocking()?;
        register(Wire(channel)).map(|wire| Self(Some(wire)))
    }

    /// The next one; never comes without a channel, or when nobody can speak on it any more. May be dropped while it
    /// waits.
    pub(crate) async fn next(&mut self) -> (ClientChange, Option<UnixListener>) {
        while let Some(wire) = &self.0 {
            match receive(wire).await {
                Ok(change) => return change,
                Err(Fault::Ended(error)) => {
                    tracing::warn!(%error, "no changes of clients are heard any more");
                    self.0 = None;
                }
                // The next one is its own message.
                Err(Fault::Message(error)) => {
                    tracing::warn!(error, "a change of clients was not understood");
                }
            }
        }
        std::future::pending().await
    }
}

enum Fault {
    Ended(String),
    Message(String),
}

async fn receive(wire: &AsyncFd<Wire>) -> Result<(ClientChange, Option<UnixListener>), Fault> {
    loop {
        let mut ready = wire.readable().await.map_err(|error| Fault::Ended(error.to_string()))?;
        // Seldom needed, so not kept.
        let (mut buffer, mut fds) = (vec![0; MESSAGE_BYTES_MAX], Vec::new());
        match ready.get_inner().0.receive(&mut buffer, &mut fds) {
            Ok(length) => {
                let change = cbor::decode(buffer.get(..length).unwrap_or_default());
                let change = change.map_err(|error| Fault::Message(error.to_string()))?;
                return Ok((change, fds.pop().and_then(listening)));
            }
            Err(PassError::Full) => ready.clear_ready(),
            Err(error @ PassError::Cut) => return Err(Fault::Message(error.to_string())),
            Err(error) => return Err(Fault::Ended(error.to_string())),
        }
    }
}
