//! A connection of a call as a stream of bytes: in the table like any other, cut with what allowed it, and gone when it is
//! dropped.

use std::{
    future::Future,
    io::{self, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use base::IdentityId;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::{Network, lock};
use crate::{
    core::{Connection, NetError, Pace, SocketId},
    shell::live::{Live, end_writing},
};

/// Taken at once of a connection with a bandwidth, so that it flows.
const PACED_BYTES_MAX: usize = 16 * 1024;

pub(in crate::shell) struct Carried {
    network: Arc<Network>,
    id: SocketId,
    owner: IdentityId,
    connection: Connection,
    live: Arc<Live>,
    stream: Arc<TcpStream>,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Until what was moved before has been paid for.
    paid: Option<Pin<Box<Sleep>>>,
    pace: Pace,
}

impl Carried {
    pub(super) fn new(
        network: Arc<Network>,
        id: SocketId,
        owner: IdentityId,
        connection: Connection,
    ) -> Result<Self, NetError> {
        let (_, live) = network.registry.find(id, owner)?;
        let stream = live.stream()?;
        let cut = Box::pin(live.cut_signal());
        Ok(Self { network, id, owner, connection, live, stream, cut, paid: None, pace: Pace::default() })
    }

    pub(super) fn id(&self) -> SocketId {
        self.id
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Why it was cut, if it was.
    fn ended(&self) -> io::Error {
        let why = self.network.registry.find(self.id, self.owner).err().unwrap_or(NetError::ConnectionReset);
        io::Error::new(ErrorKind::ConnectionAborted, why.to_string())
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if *self.live.cut.borrow() || self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(self.ended()));
        }
        if let Some(paid) = &mut self.paid {
            ready!(paid.as_mut().poll(cx));
            self.paid = None;
        }
        Poll::Ready(Ok(()))
    }

    fn room(&self, bytes: usize) -> usize {
        if self.connection.grant.bandwidth_limit > 0 { bytes.min(PACED_BYTES_MAX) } else { bytes }
    }

    fn charge(&mut self, bytes: usize) {
        let now = Instant::now().into_std();
        self.pace.charge(now, bytes, self.connection.grant.bandwidth_limit);
        self.paid = self.pace.free_at(now).map(|at| Box::pin(sleep_until(at.into())));
    }
}

impl AsyncRead for Carried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_room(cx))?;
        loop {
            ready!(this.stream.poll_read_ready(cx))?;
            let most = this.room(buf.remaining());
            let place = buf.initialize_unfilled_to(most);
            match this.stream.try_read(place) {
                // What was cut ends with an error, however the kernel puts it.
                Ok(0) if most > 0 && *this.live.cut.borrow() => return Poll::Ready(Err(this.ended())),
                Ok(bytes) => {
                    buf.advance(bytes);
                    this.live.count(0, bytes);
                    this.charge(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) if *this.live.cut.borrow() => return Poll::Ready(Err(this.ended())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Carried {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_room(cx))?;
        let data = data.get(..this.room(data.len())).unwrap_or(data);
        loop {
            ready!(this.stream.poll_write_ready(cx))?;
            match this.stream.try_write(data) {
                Ok(bytes) => {
                    this.live.count(bytes, 0);
                    this.charge(bytes);
                    return Poll::Ready(Ok(bytes));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) if *this.live.cut.borrow() => return Poll::Ready(Err(this.ended())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(end_writing(&self.stream))
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        lock(&self.network.calls.held).remove(&self.id);
        if let Some(live) = self.network.registry.remove(self.id) {
            live.close();
        }
    }
}
