//! Our ends of a command's standard streams: three pipes, or a terminal for all of them. Nothing is kept of what it says: its
//! pipes wait for its reader.

use std::{
    future::pending,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::Winsize,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Bytes of output that are read at once.
const PIECE_BYTES: usize = 32 * 1024;
/// What a terminal's line discipline takes for the end of what is typed.
const END_OF_INPUT: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) rows: u16,
    pub(super) columns: u16,
}

/// A descriptor under a number of its own.
type Watched = kit::Watched<OwnedFd>;

fn register(fd: OwnedFd) -> io::Result<AsyncFd<Watched>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    kit::watch(fd, Interest::READABLE | Interest::WRITABLE)
}

/// One stream of its output; gone when it has ended.
pub(super) struct Reader(AsyncFd<Watched>);

impl Reader {
    /// The next piece; never, where there is no stream any more.
    pub(super) async fn next(stream: &mut Option<Reader>) -> Vec<u8> {
        loop {
            let Some(reader) = stream else { return pending().await };
            match reader.read().await {
                Some(data) => return data,
                None => *stream = None,
            }
        }
    }

    /// None at its end. A terminal that nobody has open any more answers EIO.
    async fn read(&self) -> Option<Vec<u8>> {
        loop {
            let mut ready = self.0.readable().await.ok()?;
            match read(&self.0) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Ok(data) if !data.is_empty() => return Some(data),
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// What is there now.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        loop {
            match read(&self.0) {
                Err(Errno::INTR) => {}
                result => return result.ok().filter(|data| !data.is_empty()),
            }
        }
    }
}

fn read(fd: &AsyncFd<Watched>) -> Result<Vec<u8>, Errno> {
    let mut data = vec![0; PIECE_BYTES];
    let read = rustix::io::read(&fd.get_ref().0, &mut *data)?;
    data.truncate(read);
    Ok(data)
}

/// Its input, with one piece under way at most.
pub(super) struct Writer {
    fd: AsyncFd<Watched>,
    waiting: Vec<u8>,
    ends: bool,
}

impl Writer {
    /// Moves what waits a step on; never comes back where nothing does.
    pub(super) async fn feed(stream: &mut Option<Writer>) {
        let Some(writer) = stream.as_mut().filter(|writer| !writer.waiting.is_empty()) else {
            return pending().await;
        };
        let is_over = writer.step().await;
        if is_over || (writer.ends && writer.waiting.is_empty()) {
            *stream = None;
        }
    }

    /// True if nobody reads it any more.
    async fn step(&mut self) -> bool {
        let Ok(mut ready) = self.fd.writable().await else { return true };
        match rustix::io::write(&self.fd.get_ref().0, &self.waiting) {
            Ok(written) => drop(self.waiting.drain(..written.min(self.waiting.len()))),
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
        false
    }
}

pub(super) struct Streams {
    pub(super) stdin: Option<Writer>,
    pub(super) stdout: Option<Reader>,
    pub(super) stderr: Option<Reader>,
    /// For the size of its window.
    terminal: Option<OwnedFd>,
}

impl Streams {
    /// With the command's ends, which are closed here once the keeper has them.
    pub(super) fn open(terminal: Option<Window>) -> io::Result<(Self, [OwnedFd; 3])> {
        match terminal {
            Some(size) => Self::terminal(size),
            None => Self::pipes(),
        }
    }

    fn pipes() -> io::Result<(Self, [OwnedFd; 3])> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let ((stdin, stdin_ours), (stdout_ours, stdout), (stderr_ours, stderr)) = (pipe()?, pipe()?, pipe()?);
        let ours = Self {
            stdin: Some(Writer { fd: register(stdin_ours)?, waiting: Vec::new(), ends: false }),
            stdout: Some(Reader(register(stdout_ours)?)),
            stderr: Some(Reader(register(stderr_ours)?)),
            terminal: None,
        };
        Ok((ours, [stdin, stdout, stderr]))
    }

    /// Of the host's `/dev/pts`, which the command does not see: it has the descriptors, and no name for them.
    fn terminal(size: Window) -> io::Result<(Self, [OwnedFd; 3])> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags)?;
        unlockpt(&ours)?;
        set_window(&ours, size)?;
        let theirs = ioctl_tiocgptpeer(&ours, flags)?;
        let streams = Self {
            stdin: Some(Writer { fd: register(ours.try_clone()?)?, waiting: Vec::new(), ends: false }),
            stdout: Some(Reader(register(ours.try_clone()?)?)),
            stderr: None,
            terminal: Some(ours),
        };
        Ok((streams, [theirs.try_clone()?, theirs.try_clone()?, theirs]))
    }

    /// Whether a message may be taken in: what came before is written, or nobody reads it.
    pub(super) fn takes_more(&self) -> bool {
        self.stdin.as_ref().is_none_or(|writer| writer.waiting.is_empty())
    }

    pub(super) fn give(&mut self, data: Vec<u8>) {
        if let Some(writer) = self.stdin.as_mut().filter(|writer| !writer.ends) {
            writer.waiting = data;
        }
    }

    /// Its input ends; a terminal is told so, as nothing can be closed there.
    pub(super) fn end_input(&mut self) {
        match &self.terminal {
            Some(_) => self.give(vec![END_OF_INPUT]),
            None => self.stdin = None,
        }
    }

    pub(super) fn resize(&self, size: Window) {
        if let Some(terminal) = &self.terminal {
            let _ = set_window(terminal, size);
        }
    }
}

/// Tells the terminal's foreground, which redraws itself.
fn set_window(terminal: impl AsFd, size: Window) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
