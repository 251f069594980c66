//! A TPM behind a character device, or behind the Unix socket of a software TPM: both take a command and give an answer.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{fs::FileTypeExt, net::UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Transport;

/// A TPM makes a key in up to some seconds; one that takes longer has died.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer; the specification's own implementation has 4 096.
const ANSWER_BYTES_MAX: usize = 4096;
/// Tag, size and code, which every answer has.
const HEAD_BYTES: usize = 10;

pub struct Device(Kind);

enum Kind {
    /// Gives an answer whole, to one read.
    Character(File),
    /// Gives it in pieces.
    Socket(UnixStream),
}

impl Device {
    pub fn open(path: &Path) -> io::Result<Self> {
        let kind = std::fs::metadata(path)?.file_type();
        if kind.is_socket() {
            let socket = UnixStream::connect(path)?;
            socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
            return Ok(Self(Kind::Socket(socket)));
        }
        if !kind.is_char_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no character device and no socket",
            ));
        }
        Ok(Self(Kind::Character(File::options().read(true).write(true).open(path)?)))
    }
}

impl Transport for Device {
    fn exchange(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        let until = Instant::now() + ANSWER_TIMEOUT;
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        match &mut self.0 {
            Kind::Character(file) => {
                file.write_all(command)?;
                wait(file.as_fd(), until)?;
                let read = file.read(&mut answer)?;
                answer.truncate(read);
            }
            Kind::Socket(socket) => {
                socket.write_all(command)?;
                let mut filled = 0;
                let mut size = HEAD_BYTES;
                while filled < size {
                    wait(socket.as_fd(), until)?;
                    let room = answer.get_mut(filled..size).ok_or_else(too_long)?;
                    match socket.read(room)? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        read => filled += read,
                    }
                    if filled == HEAD_BYTES && size == HEAD_BYTES {
                        size = told(&answer).filter(|size| *size <= ANSWER_BYTES_MAX).ok_or_else(too_long)?;
                    }
                }
                answer.truncate(filled);
            }
        }
        Ok(answer)
    }
}

fn told(answer: &[u8]) -> Option<usize> {
    let size = answer.get(2..6)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(size)).ok()
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is larger than an answer can be")
}

fn wait(fd: BorrowedFd<'_>, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut waits = [PollFd::new(&fd, PollFlags::IN)];
    match rustix::io::retry_on_intr(|| poll(&mut waits, Some(&left)))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
