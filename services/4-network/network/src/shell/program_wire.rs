//! The channel to a program's monitor, and how it is opened.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use contracts::{
    network::v1 as wire,
    way_out::{GREETING, HELLO_BYTES_MAX, Message as _, with_length},
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use sandbox::fdpass::{Channel, PassError};
use tokio::{
    io::{AsyncReadExt, Interest, unix::AsyncFd},
    net::UnixStream,
};
use zeroize::Zeroizing;

pub(super) type Wire = kit::Watched<Channel>;

pub(super) fn register(channel: Channel) -> io::Result<AsyncFd<Wire>> {
    kit::watch(channel, Interest::READABLE)
}

pub(super) async fn hello(stream: &mut UnixStream) -> io::Result<wire::ProgramHello> {
    let wrong = |text: &'static str| io::Error::new(io::ErrorKind::InvalidData, text);
    // The kit has looked at it.
    stream.read_exact(&mut vec![0; GREETING.len()]).await?;
    let length = stream.read_u32_le().await? as usize;
    if length > HELLO_BYTES_MAX {
        return Err(wrong("a hello that is too long"));
    }
    // There may be secrets in it.
    let mut body = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut body).await?;
    wire::ProgramHello::decode(body.as_slice()).map_err(|_| wrong("no hello"))
}

pub(super) async fn pass(
    stream: &UnixStream,
    welcome: &wire::ProgramWelcome,
    fd: Option<OwnedFd>,
) -> io::Result<()> {
    let bytes = with_length(welcome);
    let send = || {
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let parts = [io::IoSlice::new(&bytes)];
        Ok(rustix::net::sendmsg(stream, &parts, &mut control, SendFlags::NOSIGNAL)?)
    };
    match stream.async_io(Interest::WRITABLE, send).await? == bytes.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

pub(super) async fn send(
    wire: &AsyncFd<Wire>,
    order: &wire::ProgramOrder,
    fds: &[OwnedFd],
) -> Result<(), PassError> {
    let bytes = order.encode_to_vec();
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    loop {
        let channel = &wire.get_ref().0;
        match channel.send(&bytes, &fds) {
            Err(PassError::Full) => kit::until_writable(channel).await.map_err(PassError::Io)?,
            other => return other,
        }
    }
}

pub(super) async fn receive(
    wire: &AsyncFd<Wire>,
    buffer: &mut [u8],
) -> Result<(wire::ProgramWord, Vec<OwnedFd>), PassError> {
    loop {
        let mut ready = wire.readable().await.map_err(PassError::Io)?;
        let mut fds = Vec::new();
        match ready.get_inner().0.receive(buffer, &mut fds) {
            Ok(length) => {
                let word = wire::ProgramWord::decode(buffer.get(..length).unwrap_or_default());
                let word = word.map_err(|_| PassError::Closed)?;
                return Ok((word, fds));
            }
            Err(PassError::Full) => ready.clear_ready(),
            Err(error) => return Err(error),
        }
    }
}
