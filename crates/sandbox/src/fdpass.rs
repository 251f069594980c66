//! Descriptor passing: one message of bytes and descriptors over a `SOCK_SEQPACKET` pair, bounded both ways.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use thiserror::Error;

use crate::plan::DESCRIPTORS_MAX;

/// Bytes of one message. A packet has to fit the socket's send buffer (212 992 bytes by default) with its
/// bookkeeping, and several must fit at once; larger things go by descriptor.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Descriptors of one message: those of a plan, its image and one memfd.
pub const MESSAGE_DESCRIPTORS_MAX: usize = DESCRIPTORS_MAX + 2;

const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(MESSAGE_DESCRIPTORS_MAX));

#[derive(Debug, Error)]
pub enum PassError {
    #[error("a message of {0} bytes is above the limit of {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    #[error("a message with {0} descriptors is above the limit of {MESSAGE_DESCRIPTORS_MAX}")]
    TooManyDescriptors(usize),
    #[error("the peer sent more than fits, the message was cut and dropped")]
    Cut,
    #[error("the channel is full; read replies or try again")]
    Full,
    #[error("the peer has closed the channel")]
    Closed,
    #[error("passing a message over the channel failed")]
    Io(#[source] io::Error),
}

/// One end of a channel.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl From<OwnedFd> for Channel {
    /// Takes over a descriptor that was inherited by number.
    fn from(fd: OwnedFd) -> Channel {
        Channel(fd)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> OwnedFd {
        channel.0
    }
}

impl Channel {
    /// A connected pair, close-on-exec.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel(one), Channel(other)))
    }

    pub fn set_nonblocking(&self) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.0)?;
        Ok(rustix::fs::fcntl_setfl(&self.0, flags | rustix::fs::OFlags::NONBLOCK)?)
    }

    /// Sends one message. Empty messages are refused: the peer could not tell them from the end.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), PassError> {
        if bytes.is_empty() || bytes.len() > MESSAGE_BYTES_MAX {
            return Err(PassError::TooLong(bytes.len()));
        }
        if fds.len() > MESSAGE_DESCRIPTORS_MAX {
            return Err(PassError::TooManyDescriptors(fds.len()));
        }
        let mut space = [MaybeUninit::<u8>::uninit(); CONTROL_BYTES];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(PassError::TooManyDescriptors(fds.len()));
        }
        loop {
            match sendmsg(&self.0, &[io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(pass_error(error)),
            }
        }
    }

    /// Receives one message into `buffer`; its descriptors are appended to `fds`, close-on-exec. A message that does
    /// not fit is an error and its descriptors are closed.
    pub fn receive(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, PassError> {
        let mut space = [MaybeUninit::<u8>::uninit(); CONTROL_BYTES];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = loop {
            let iov = &mut [io::IoSliceMut::new(buffer)];
            match recvmsg(&self.0, iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => break message,
                Err(Errno::INTR) => {}
                Err(error) => return Err(pass_error(error)),
            }
        };
        let before = fds.len();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                fds.extend(received);
            }
        }
        if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            fds.truncate(before);
            return Err(PassError::Cut);
        }
        if message.bytes == 0 { Err(PassError::Closed) } else { Ok(message.bytes) }
    }
}

fn pass_error(error: Errno) -> PassError {
    match error {
        Errno::AGAIN => PassError::Full,
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => PassError::Closed,
        other => PassError::Io(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (one, other) = Channel::pair().unwrap();
        let (passed, kept) = Channel::pair().unwrap();
        one.send(b"take", &[passed.as_fd()]).unwrap();
        drop(passed);
        let (mut buffer, mut fds) = (vec![0; 16], Vec::new());
        assert_eq!(other.receive(&mut buffer, &mut fds).unwrap(), 4);
        assert_eq!(fds.len(), 1);
        Channel::from(fds.remove(0)).send(b"through", &[]).unwrap();
        assert_eq!(kept.receive(&mut buffer, &mut fds).unwrap(), 7);
        assert_eq!(&buffer[..7], b"through");
        drop(one);
        assert!(matches!(other.receive(&mut buffer, &mut fds), Err(PassError::Closed)));
    }

    #[test]
    fn both_limits_hold_at_the_limit_and_one_past_it() {
        let (one, other) = Channel::pair().unwrap();
        let fd = other.as_fd().try_clone_to_owned().unwrap();
        let many = vec![fd.as_fd(); MESSAGE_DESCRIPTORS_MAX + 1];
        let long = vec![1; MESSAGE_BYTES_MAX + 1];
        assert!(matches!(one.send(&long, &[]), Err(PassError::TooLong(_))));
        assert!(matches!(one.send(b"x", &many), Err(PassError::TooManyDescriptors(_))));
        assert!(matches!(one.send(b"", &[]), Err(PassError::TooLong(0))));
        one.send(&long[1..], &many[1..]).unwrap();
        let (mut buffer, mut fds) = (vec![0; MESSAGE_BYTES_MAX], Vec::new());
        assert_eq!(other.receive(&mut buffer, &mut fds).unwrap(), MESSAGE_BYTES_MAX);
        assert_eq!(fds.len(), MESSAGE_DESCRIPTORS_MAX);
        fds.clear();
        one.send(b"too long", &[fd.as_fd()]).unwrap();
        assert!(matches!(other.receive(&mut buffer[..3], &mut fds), Err(PassError::Cut)));
        assert!(fds.is_empty());
    }
}
