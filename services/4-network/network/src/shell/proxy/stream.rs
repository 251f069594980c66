//! A connection of the proxy as a stream of bytes: counted, and no faster than its grant lets it be. Who cuts it does so with the socket.

use std::{
    future::Future,
    io::{self, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep_until},
};

use crate::{
    core::limits::RELAY_BUFFER_BYTES,
    shell::live::{Live, end_writing},
};

pub(super) struct Wire {
    stream: Arc<TcpStream>,
    live: Arc<Live>,
    /// Bytes a second, both ways together; 0 is no limit.
    bandwidth_limit: u64,
    /// Until what was moved before has been paid for.
    paid: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    pub(super) fn new(stream: Arc<TcpStream>, live: Arc<Live>, bandwidth_limit: u64) -> Self {
        Self { stream, live, bandwidth_limit, paid: None }
    }

    /// Until some may be moved, and how much of so many bytes: what has a limit flows evenly.
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<usize> {
        if self.bandwidth_limit == 0 {
            return Poll::Ready(bytes);
        }
        loop {
            if let Some(paid) = &mut self.paid {
                ready!(paid.as_mut().poll(cx));
            }
            // The other direction may have moved something since.
            self.paid = self.live.free_at().map(|at| Box::pin(sleep_until(at)));
            if self.paid.is_none() {
                return Poll::Ready(bytes.min(RELAY_BUFFER_BYTES));
            }
        }
    }

    fn moved(&self, sent: usize, received: usize) {
        self.live.count(sent, received);
        self.live.charge(sent.saturating_add(received), self.bandwidth_limit);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let most = ready!(this.poll_room(cx, buf.remaining()));
        loop {
            ready!(this.stream.poll_read_ready(cx))?;
            match this.stream.try_read(buf.initialize_unfilled_to(most)) {
                Ok(bytes) => {
                    buf.advance(bytes);
                    this.moved(0, bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let most = ready!(this.poll_room(cx, data.len()));
        let data = data.get(..most).unwrap_or(data);
        loop {
            ready!(this.stream.poll_write_ready(cx))?;
            match this.stream.try_write(data) {
                Ok(bytes) => {
                    this.moved(bytes, 0);
                    return Poll::Ready(Ok(bytes));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::BANDWIDTH_BURST, shell::live::Io};
    use std::sync::atomic::Ordering;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    async fn wired(limit: u64) -> (Wire, TcpStream, Arc<Live>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let live = Arc::new(Live::of(Io::Away));
        (Wire::new(Arc::new(one), Arc::clone(&live), limit), listener.accept().await.unwrap().0, live)
    }

    #[tokio::test]
    async fn what_goes_both_ways_arrives_and_is_counted() {
        let (mut wire, mut peer, live) = wired(0).await;
        wire.write_all(b"asked").await.unwrap();
        peer.write_all(b"answered").await.unwrap();
        let (mut asked, mut answered) = ([0; 5], [0; 8]);
        peer.read_exact(&mut asked).await.unwrap();
        wire.read_exact(&mut answered).await.unwrap();
        assert_eq!((&asked, &answered), (b"asked", b"answered"));
        wire.shutdown().await.unwrap();
        assert_eq!(peer.read(&mut asked).await.unwrap(), 0);
        let counted = [&live.sent_bytes, &live.received_bytes].map(|bytes| bytes.load(Ordering::Relaxed));
        assert_eq!(counted, [5, 8]);
    }

    /// Its time is the limit's at least but for the burst, however fast the machine; both ways count together.
    #[tokio::test]
    async fn a_rate_is_kept() {
        let (mut wire, mut peer, _live) = wired(100_000).await;
        let began = std::time::Instant::now();
        wire.write_all(&[7; 60_000]).await.unwrap();
        let mut heard = vec![0; 60_000];
        peer.read_exact(&mut heard).await.unwrap();
        peer.write_all(&heard).await.unwrap();
        wire.read_exact(&mut heard).await.unwrap();
        // The last piece is not waited for.
        let least = std::time::Duration::from_millis(1_000) - BANDWIDTH_BURST;
        assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    }
}
