//! Connections to other processes of this node, as hyper reads and writes them.
//!
//! A socket of this machine tells whoever waits to write each time that its peer has read, full or not. The runtime's own stream
//! is watched for both, so each message would wake its sender once more, for nothing. This one is watched for reading, and for
//! writing as long as it is full.

use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

use crate::watched::{Watched, watch};

/// Room for what is read at once, which has to be filled with zeros before: at first, and at most.
const READ_BYTES_MIN: usize = 1024;
const READ_BYTES_MAX: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Stream {
    socket: AsyncFd<Watched<UnixStream>>,
    /// The same socket, watched for writing.
    full: Option<AsyncFd<Watched<OwnedFd>>>,
    read_bytes: usize,
}

impl Stream {
    /// Within a runtime.
    pub(crate) fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        let socket = watch(stream.into_std()?, Interest::READABLE)?;
        Ok(Self { socket, full: None, read_bytes: READ_BYTES_MIN })
    }

    fn poll_to_write(
        &mut self,
        context: &mut Context<'_>,
        mut write: impl FnMut(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let ready = match &self.full {
                Some(full) => Some(ready!(full.poll_write_ready(context))?),
                None => None,
            };
            match (write(&self.socket.get_ref().0), ready) {
                (Err(error), Some(mut ready)) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
                (Err(error), None) if error.kind() == ErrorKind::WouldBlock => {
                    self.full = Some(same(&self.socket.get_ref().0)?);
                }
                (Err(error), _) if error.kind() == ErrorKind::Interrupted => {}
                (done, _) => {
                    self.full = None;
                    return Poll::Ready(done);
                }
            }
        }
    }
}

/// The runtime takes a descriptor once, and this one is watched for reading already.
fn same(fd: impl AsFd) -> io::Result<AsyncFd<Watched<OwnedFd>>> {
    watch(fd.as_fd().try_clone_to_owned()?, Interest::WRITABLE)
}

/// Waits until this socket, which was full and is watched for reading alone, takes something again.
pub async fn until_writable(fd: impl AsFd) -> io::Result<()> {
    same(fd)?.writable().await.map(drop)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut ready = ready!(this.socket.poll_read_ready(context))?;
            let wanted = buffer.remaining().min(this.read_bytes);
            match (&this.socket.get_ref().0).read(buffer.initialize_unfilled_to(wanted)) {
                Ok(count) => {
                    if count == wanted && wanted > 0 {
                        this.read_bytes = (this.read_bytes * 2).min(READ_BYTES_MAX);
                    } else if count > 0 {
                        // There was no more.
                        ready.clear_ready();
                        this.read_bytes = count.next_power_of_two().max(READ_BYTES_MIN);
                    }
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_to_write(context, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_to_write(context, |mut socket| socket.write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is held back here.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.get_ref().0.shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (Stream, tokio::net::UnixStream) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        (Stream::new(ours).unwrap(), theirs)
    }

    #[tokio::test]
    async fn what_is_said_is_heard_whole_in_both_directions_until_each_has_ended() {
        let (mut ours, mut theirs) = pair();
        // More than the socket holds, and than is read at once.
        let said: Vec<u8> = (0..3 * READ_BYTES_MAX).map(|at| (at % 251) as u8).collect();
        let heard = said.clone();
        let other = tokio::spawn(async move {
            let mut there = vec![0; heard.len()];
            theirs.read_exact(&mut there).await.unwrap();
            assert!(there == heard);
            theirs.write_all(&there).await.unwrap();
            theirs
        });
        ours.write_all(&said).await.unwrap();
        let mut back = vec![0; said.len()];
        ours.read_exact(&mut back).await.unwrap();
        assert!(back == said && ours.read_bytes > READ_BYTES_MIN && ours.full.is_none());
        let mut theirs = other.await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        theirs.write_all(b"last").await.unwrap();
        drop(theirs);
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"last");
        assert!(ours.write_all(b"late").await.is_err());
    }

    #[tokio::test]
    async fn a_full_socket_is_written_to_once_its_peer_has_read_and_is_watched_for_that_alone() {
        let (mut ours, mut theirs) = pair();
        let piece = [b'x'; 4096];
        let mut said = 0;
        let is_full = |done: Result<io::Result<usize>, _>| done.map(Result::unwrap).ok();
        while let Some(count) =
            is_full(tokio::time::timeout(Duration::from_millis(50), ours.write(&piece)).await)
        {
            said += count;
        }
        assert!(ours.full.is_some());
        // It still hears.
        theirs.write_all(b"word").await.unwrap();
        let mut word = [0; 4];
        ours.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"word");
        let other = tokio::spawn(async move {
            let mut there = vec![0; said + piece.len()];
            theirs.read_exact(&mut there).await.unwrap();
        });
        ours.write_all(&piece).await.unwrap();
        assert!(ours.full.is_none());
        other.await.unwrap();
    }

    /// How often this thread has waited for something.
    fn waits() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }

    #[tokio::test]
    async fn that_its_peer_has_read_wakes_nobody() {
        const TRIPS: u64 = 50;
        let (mut ours, theirs) = pair();
        let mut theirs = theirs.into_std().unwrap();
        theirs.set_nonblocking(false).unwrap();
        let other = std::thread::spawn(move || {
            let mut byte = [0];
            while theirs.read(&mut byte).unwrap() > 0 {
                // Whoever is woken by that sleeps again before there is an answer.
                std::thread::sleep(Duration::from_millis(3));
                theirs.write_all(&byte).unwrap();
            }
        });
        let before = waits();
        for _ in 0..TRIPS {
            ours.write_all(b"x").await.unwrap();
            ours.read_exact(&mut [0]).await.unwrap();
        }
        let waited = waits() - before;
        drop(ours);
        other.join().unwrap();
        // Once for each answer; watched for both it would be twice.
        assert!(waited < TRIPS * 3 / 2, "waited {waited} times for {TRIPS} answers");
    }
}
