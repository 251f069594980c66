//! One output stream of a program: from its pipe into a file of bounded size, from there to whoever reads.
//!
//! With a reader, the pipe waits for the slowest one, so nothing is lost in `run … | wc`. Without one, the oldest is
//! overwritten, and a later reader is told where what is left begins. A program that was just started waits a moment
//! for its first reader, who cannot be there before it.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

/// Bytes moved at once: what a pipe holds.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Bytes kept of each stream.
pub const OUTPUT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How long a full file waits for its first reader.
pub const READER_GRACE_MS: u64 = 2_000;

#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    bytes_max: u64,
    pipe: Option<OwnedFd>,
    written: u64,
    followed: bool,
}

impl Output {
    pub(crate) fn new(file: File, bytes_max: u64) -> Self {
        Self { file, bytes_max: bytes_max.max(1), pipe: None, written: 0, followed: false }
    }

    /// Takes the reading end.
    pub(crate) fn open(&mut self, pipe: OwnedFd) {
        self.pipe = Some(pipe);
    }

    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Bytes that may be taken from the pipe now. `slowest` is where the slowest reader stands.
    pub(crate) fn room(&self, slowest: Option<u64>, in_grace: bool) -> usize {
        let waits_for = match slowest {
            Some(offset) => offset,
            None if in_grace && !self.followed => 0,
            None => return PIECE_BYTES,
        };
        let free = self.bytes_max.saturating_sub(self.written.saturating_sub(waits_for));
        usize::try_from(free).unwrap_or(PIECE_BYTES).min(PIECE_BYTES)
    }

    /// Takes up to `room` bytes. False at the end.
    pub(crate) fn take(&mut self, room: usize, buffer: &mut [u8]) -> io::Result<bool> {
        let Some(pipe) = &self.pipe else { return Ok(false) };
        let Some(buffer) = buffer.get_mut(..room) else { return Ok(true) };
        match rustix::io::read(pipe, &mut *buffer) {
            // A terminal that nobody has open any more answers EIO.
            Ok(0) | Err(rustix::io::Errno::IO) => {
                self.pipe = None;
                Ok(false)
            }
            Ok(read) => {
                self.store(buffer.get(..read).unwrap_or_default())?;
                Ok(true)
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn store(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let at = self.written % self.bytes_max;
            let fits = usize::try_from(self.bytes_max - at).unwrap_or(usize::MAX).min(data.len());
            let (now, later) = data.split_at(fits);
            self.file.write_all_at(now, at)?;
            self.written += fits as u64;
            data = later;
        }
        Ok(())
    }

    /// What is kept from `offset` on, at most one piece: where it begins, the bytes, and whether it is the end. None
    /// when there is nothing yet.
    pub(crate) fn read(&mut self, offset: u64) -> io::Result<Option<(u64, Vec<u8>, bool)>> {
        self.followed = true;
        let oldest = self.written.saturating_sub(self.bytes_max);
        let offset = offset.clamp(oldest, self.written);
        if offset == self.written && self.is_open() {
            return Ok(None);
        }
        let at = offset % self.bytes_max;
        let length = (self.written - offset).min(self.bytes_max - at).min(PIECE_BYTES as u64);
        let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut data, at)?;
        let end = !self.is_open() && offset + length == self.written;
        Ok(Some((offset, data, end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(bytes_max: u64) -> (Output, OwnedFd) {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut output = Output::new(tempfile::tempfile().unwrap(), bytes_max);
        output.open(read);
        (output, write)
    }

    fn all(output: &mut Output, mut offset: u64) -> (u64, Vec<u8>) {
        let (mut bytes, mut first) = (Vec::new(), None);
        while let Some((at, data, end)) = output.read(offset).unwrap() {
            first.get_or_insert(at);
            offset = at + data.len() as u64;
            bytes.extend(data);
            if end {
                break;
            }
        }
        (first.unwrap_or(offset), bytes)
    }

    #[test]
    fn the_oldest_is_dropped_and_the_reader_is_told() {
        let (mut output, write) = output(10);
        let mut buffer = [0; PIECE_BYTES];
        for piece in ["abcdef", "ghijkl", "mno"] {
            rustix::io::write(&write, piece.as_bytes()).unwrap();
            assert!(output.take(PIECE_BYTES, &mut buffer).unwrap());
        }
        assert_eq!(all(&mut output, 0), (5, b"fghijklmno".to_vec()));
        assert_eq!(all(&mut output, 8), (8, b"ijklmno".to_vec()));
        assert_eq!(output.read(15).unwrap(), None, "nothing yet");
        drop(write);
        assert!(!output.take(PIECE_BYTES, &mut buffer).unwrap());
        assert_eq!(output.read(15).unwrap(), Some((15, Vec::new(), true)));
    }

    #[test]
    fn the_pipe_waits_for_a_reader_and_a_moment_for_the_first() {
        let (mut output, _write) = output(100);
        output.store(&[1; 90]).unwrap();
        assert_eq!(output.room(None, true), 10);
        assert_eq!(output.room(None, false), PIECE_BYTES);
        assert_eq!(output.room(Some(0), false), 10);
        assert_eq!(output.room(Some(50), false), 60);
        output.store(&[1; 10]).unwrap();
        assert_eq!(output.room(None, true), 0);
        output.read(0).unwrap();
        assert_eq!(output.room(None, true), PIECE_BYTES, "its first reader was there");
    }
}
