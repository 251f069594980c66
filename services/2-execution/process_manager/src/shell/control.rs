//! A monitor, as this service's tasks see it.

use std::{io, mem::MaybeUninit, os::fd::BorrowedFd, path::Path};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
};

use crate::monitor::protocol::{FrameError, Reply, Request, frame, next_frame};

#[derive(Debug, Error)]
pub(super) enum ControlError {
    #[error("the monitor cannot be reached: {0}")]
    Io(#[from] io::Error),
    #[error("the monitor speaks another language: {0}")]
    Frame(#[from] FrameError),
    #[error("the monitor has gone")]
    Gone,
    #[error("the monitor refuses: {0}")]
    Refused(String),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Control {
    socket: UnixStream,
    input: Vec<u8>,
    next_id: u64,
}

impl Control {
    pub(super) async fn connect(path: &Path) -> Result<Self, ControlError> {
        Ok(Self { socket: UnixStream::connect(path).await?, input: Vec::new(), next_id: 1 })
    }

    pub(super) async fn send(&mut self, id: u64, request: &Request) -> Result<(), ControlError> {
        Ok(self.socket.write_all(&frame(id, request)).await?)
    }

    /// The same with a descriptor.
    pub(super) async fn pass(
        &mut self,
        id: u64,
        request: &Request,
        fd: BorrowedFd<'_>,
    ) -> Result<(), ControlError> {
        let bytes = frame(id, request);
        let send = || {
            let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [fd];
            control.push(SendAncillaryMessage::ScmRights(&fds));
            let parts = [io::IoSlice::new(&bytes)];
            Ok(rustix::net::sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL)?)
        };
        let sent = self.socket.async_io(Interest::WRITABLE, send).await?;
        Ok(self.socket.write_all(bytes.get(sent..).unwrap_or_default()).await?)
    }

    /// The next reply. May be dropped while it waits: what was read stays.
    pub(super) async fn receive(&mut self) -> Result<(u64, Reply), ControlError> {
        loop {
            if let Some(message) = next_frame(&mut self.input)? {
                return Ok(message);
            }
            if self.socket.read_buf(&mut self.input).await? == 0 {
                return Err(ControlError::Gone);
            }
        }
    }

    /// One request and its reply, with nothing else under way on this connection.
    pub(super) async fn call(&mut self, request: &Request) -> Result<Reply, ControlError> {
        self.call_with(request, None).await
    }

    /// The same, with a descriptor that goes along.
    pub(super) async fn call_with(
        &mut self,
        request: &Request,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Reply, ControlError> {
        let id = self.next_id;
        self.next_id += 1;
        match fd {
            Some(fd) => self.pass(id, request, fd).await?,
            None => self.send(id, request).await?,
        }
        loop {
            match self.receive().await? {
                (of, Reply::Refused(text)) if of == id => return Err(ControlError::Refused(text)),
                (of, reply) if of == id => return Ok(reply),
                // Of a call that was dropped.
                _ => {}
            }
        }
    }
}
