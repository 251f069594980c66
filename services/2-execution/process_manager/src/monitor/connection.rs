//! One connection of process_manager: frames in, frames out, and what waits for an answer.

use std::{
    io::{self, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::{
    command::Command,
    protocol::{FRAME_BYTES_MAX, FrameError, Reply, Request, Stream, frame, next_frame},
};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    pub(crate) stdout: Reader,
    pub(crate) stderr: Reader,
    pub(crate) wait: Option<u64>,
    pub(crate) stdin: Option<(u64, Vec<u8>)>,
    /// The command that is this connection's.
    pub(crate) command: Option<Command>,
    /// A descriptor that came along.
    pub(crate) passed: Option<OwnedFd>,
    /// The peer has gone or speaks another language.
    pub(crate) broken: bool,
}

/// A follower of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reader {
    /// Up to where it has read; none if it never asked.
    pub(crate) offset: Option<u64>,
    /// The request that waits for more.
    pub(crate) waiting: Option<u64>,
}

impl Connection {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            input: Vec::new(),
            output: Vec::new(),
            stdout: Reader::default(),
            stderr: Reader::default(),
            wait: None,
            stdin: None,
            command: None,
            passed: None,
            broken: false,
        })
    }

    pub(crate) fn reader(&mut self, stream: Stream) -> &mut Reader {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Nothing more is taken from a peer that does not take its answers.
    pub(crate) fn is_backed_up(&self) -> bool {
        !self.output.is_empty()
    }

    pub(crate) fn send(&mut self, id: u64, reply: &Reply) {
        self.output.extend(frame(id, reply));
        self.flush();
    }

    pub(crate) fn flush(&mut self) {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(0) => return self.broken = true,
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.broken = true,
            }
        }
    }

    /// Reads what is there, at most what one frame needs.
    pub(crate) fn fill(&mut self) {
        if self.input.len() > FRAME_BYTES_MAX {
            return;
        }
        let mut buffer = [0; READ_BYTES];
        match self.receive(&mut buffer) {
            Ok(0) => self.broken = true,
            Ok(read) => self.input.extend(buffer.iter().take(read)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.broken = true,
        }
    }

    /// Reads bytes, and the descriptor that comes with them.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [io::IoSliceMut::new(buffer)];
        let message = rustix::net::recvmsg(&self.socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut passed) = part {
                self.passed = passed.next();
            }
        }
        Ok(message.bytes)
    }

    pub(crate) fn next(&mut self) -> Result<Option<(u64, Request)>, FrameError> {
        next_frame(&mut self.input)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
