//! Somebody on this host who is connected to.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::LOOK_EVERY;

pub(super) struct Peer {
    listener: TcpListener,
    pub(super) place: SocketAddr,
}

impl Peer {
    pub(super) fn new() -> Result<Self> {
        Self::at(Ipv4Addr::LOCALHOST.into())
    }

    pub(super) fn at(own: IpAddr) -> Result<Self> {
        let listener = TcpListener::bind((own, 0)).with_context(|| format!("listening at {own}"))?;
        listener.set_nonblocking(true).context("the listener")?;
        let place = listener.local_addr().context("the listener")?;
        Ok(Self { listener, place })
    }

    /// Who came within the time.
    pub(super) fn accept(&self, limit: Duration) -> Option<TcpStream> {
        sandbox::wait_for(limit, LOOK_EVERY, || self.listener.accept().ok().map(|(stream, _)| stream))
    }
}
