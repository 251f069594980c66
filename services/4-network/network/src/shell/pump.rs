//! One direction of what is relayed: copied while it is little, moved by the kernel from socket to socket once it is much.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, Interest, ReadHalf, WriteHalf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::live::Live;
use crate::core::{
    NetError, Relay, burst_bytes,
    limits::{RELAY_BUFFER_BYTES, RELAY_BUFFER_BYTES_MAX},
};

/// One end of a relay in one direction.
pub(super) trait End: Unpin + Send {
    /// As the kernel has it; none if this process alone does.
    fn socket(&self) -> Option<&TcpStream>;
}

impl End for OwnedReadHalf {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl End for OwnedWriteHalf {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl End for ReadHalf<DuplexStream> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl End for WriteHalf<DuplexStream> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

pub(super) fn denied(text: &str) -> NetError {
    NetError::PermissionDenied(text.to_owned())
}

/// One direction, to its end.
pub(super) async fn pump(
    from: &mut (impl AsyncRead + End),
    to: &mut (impl AsyncWrite + End),
    permitted: bool,
    count: impl Fn(usize),
    live: &Live,
    relay: &Relay,
) -> Result<(), NetError> {
    let failed = |error: io::Error| NetError::of_io(&error, "relaying");
    // What has a limit flows evenly: no more at once than goes in a burst.
    let most = match relay.bandwidth_limit {
        0 => RELAY_BUFFER_BYTES_MAX,
        limit => burst_bytes(limit).clamp(RELAY_BUFFER_BYTES, RELAY_BUFFER_BYTES_MAX),
    };
    let mut buffer = vec![0; RELAY_BUFFER_BYTES];
    let mut moving = None;
    let mut may_move = true;
    loop {
        live.room(relay.bandwidth_limit).await;
        let bytes = match (&moving, from.socket(), to.socket()) {
            (Some(pipe), Some(here), Some(there)) => move_once(pipe, here, there, most).await,
            _ => copy_once(from, to, &mut buffer, permitted).await,
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(Failed::Refused) => return Err(denied("its authorisation does not cover this direction")),
            Err(Failed::Io(error)) => return Err(failed(error)),
        };
        if bytes == 0 {
            return to.shutdown().await.map_err(failed);
        }
        count(bytes);
        live.charge(bytes, relay.bandwidth_limit);
        if moving.is_some() || bytes < buffer.len() {
            continue;
        }
        // Who fills it sends much: a larger one is copied faster, and what is not copied at all faster still.
        if bytes < most {
            buffer.resize((bytes * 2).min(most), 0);
        } else if std::mem::take(&mut may_move) && from.socket().is_some() && to.socket().is_some() {
            // Without one it is copied, as before.
            moving = Pipe::new(most).ok();
            if moving.is_some() {
                buffer = Vec::new();
            }
        }
    }
}

enum Failed {
    Refused,
    Io(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How much; nothing at its end.
async fn copy_once(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    buffer: &mut [u8],
    permitted: bool,
) -> Result<usize, Failed> {
    let bytes = from.read(buffer).await?;
    if bytes > 0 && !permitted {
        return Err(Failed::Refused);
    }
    to.write_all(buffer.get(..bytes).unwrap_or_default()).await?;
    Ok(bytes)
}

/// What is under way between two sockets. Empty whenever nothing is being moved.
struct Pipe {
    hears: OwnedFd,
    says: OwnedFd,
}

impl Pipe {
    /// An error if it cannot hold so much: one with less room costs more calls than a copy.
    fn new(bytes: usize) -> io::Result<Self> {
        let (hears, says) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        if fcntl_getpipe_size(&says)? < bytes {
            fcntl_setpipe_size(&says, bytes)?;
        }
        Ok(Self { hears, says })
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// One piece, all of it: nothing stays in the pipe. Without `MORE`, with which the kernel would wait for what comes next.
async fn move_once(pipe: &Pipe, from: &TcpStream, to: &TcpStream, most: usize) -> Result<usize, Failed> {
    let take = || Ok(splice(from.as_fd(), None, pipe.says.as_fd(), None, most, FLAGS)?);
    let bytes = from.async_io(Interest::READABLE, take).await?;
    let mut left = bytes;
    while left > 0 {
        let give = || Ok(splice(pipe.hears.as_fd(), None, to.as_fd(), None, left, FLAGS)?);
        match to.async_io(Interest::WRITABLE, give).await? {
            0 => return Err(io::Error::from(Errno::PIPE).into()),
            given => left = left.saturating_sub(given),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::live::Io;
    use tokio::net::TcpListener;

    static FREE: Relay = Relay { names: Vec::new(), send: true, recv: true, bandwidth_limit: 0 };

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (one, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_the_kernel_moves_arrives_whole_and_ends_as_it_was_ended() {
        let ((mut program, here), (there, mut server)) = (pair().await, pair().await);
        let sent: Vec<u8> = (0..2_000_000_u32).map(|number| (number % 251) as u8).collect();
        let pipe = Pipe::new(RELAY_BUFFER_BYTES_MAX).unwrap();
        let moving = async {
            let mut moved = Vec::new();
            loop {
                match move_once(&pipe, &here, &there, RELAY_BUFFER_BYTES_MAX).await {
                    Ok(0) => break,
                    Ok(bytes) => moved.push(bytes),
                    Err(_) => panic!("it can be moved"),
                }
            }
            moved
        };
        let sending = async {
            program.write_all(&sent).await.unwrap();
            program.shutdown().await.unwrap();
        };
        let mut heard = vec![0; sent.len()];
        let (moved, (), read) = tokio::join!(moving, sending, server.read_exact(&mut heard));
        assert_eq!((read.unwrap(), heard == sent), (sent.len(), true));
        assert_eq!(moved.iter().sum::<usize>(), sent.len());
        assert!(moved.iter().all(|bytes| *bytes <= RELAY_BUFFER_BYTES_MAX));
    }

    /// From a copy to a move on the way, and counted in both.
    #[tokio::test]
    async fn much_is_carried_as_it_is_and_counted() {
        let ((mut program, here), (there, mut server)) = (pair().await, pair().await);
        let sent: Vec<u8> = (0..24_000_000_u32).map(|number| (number % 253) as u8).collect();
        let live = Live::of(Io::Away);
        let ((mut from, _back), (_answers, mut to)) = (here.into_split(), there.into_split());
        let pumping = pump(&mut from, &mut to, true, |bytes| live.count(bytes, 0), &live, &FREE);
        let sending = async {
            program.write_all(&sent).await.unwrap();
            program.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let (pumped, (), read) = tokio::join!(pumping, sending, server.read_to_end(&mut heard));
        assert_eq!((pumped, read.unwrap(), heard == sent), (Ok(()), sent.len(), true));
        assert_eq!(live.sent_bytes.load(std::sync::atomic::Ordering::Relaxed), sent.len() as u64);
    }
}
