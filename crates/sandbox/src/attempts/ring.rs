//! A ring of one request at a time: as much of io_uring as an attempt needs.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::calls::call;

/// `struct io_uring_params` as words, and where in it the offsets stand.
type Parameters = [u32; 30];
const SUBMISSION_TAIL: usize = 11;
const SUBMISSION_ARRAY: usize = 16;
const COMPLETION_ENTRIES: usize = 25;

const ENTRIES: u64 = 2;
const RING_BYTES: usize = 4096;
const ENTRY_BYTES: usize = 64;
const OFFSET_SUBMISSION: i64 = 0;
const OFFSET_COMPLETION: i64 = 0x800_0000;
const OFFSET_ENTRIES: i64 = 0x1000_0000;
const WAIT_FOR_IT: u64 = 1;

/// Operations.
pub(super) const OPEN: u8 = 18;
pub(super) const CONNECT: u8 = 16;
pub(super) const SOCKET: u8 = 45;
pub(super) const STATX: u8 = 21;
pub(super) const RENAME: u8 = 35;
pub(super) const UNLINK: u8 = 36;
pub(super) const MAKE_FOLDER: u8 = 37;
pub(super) const SYMLINK: u8 = 38;
/// Of a ring: a thread of the kernel takes requests in.
pub(super) const POLLED_BY_THE_KERNEL: u32 = 1 << 1;
/// The word of the parameters in which flags stand.
const FLAGS: usize = 2;

/// The head of `struct io_uring_sqe`; the rest of its 64 bytes is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Request {
    pub(super) operation: u8,
    pub(super) flags: u8,
    pub(super) priority: u16,
    pub(super) fd: i32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) operation_flags: u32,
    pub(super) rest: [u64; 4],
}

const _: () = assert!(std::mem::size_of::<Request>() == ENTRY_BYTES);

/// A mapping, let go with the process.
#[derive(Clone, Copy)]
struct Mapping(*mut u8);

impl Mapping {
    fn of(ring: &OwnedFd, offset: i64) -> io::Result<Mapping> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping at a place of the kernel's choice.
        let at =
            unsafe { libc::mmap(ptr::null_mut(), RING_BYTES, protection, flags, ring.as_raw_fd(), offset) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Mapping(at.cast())) }
    }

    /// A pointer into it; an offset beyond it would be the kernel's mistake and is an error.
    fn at<T>(self, offset: u32) -> io::Result<*mut T> {
        let offset = offset as usize;
        if offset + std::mem::size_of::<T>() > RING_BYTES {
            return Err(io::Error::other("the ring is larger than it was asked to be"));
        }
        // SAFETY: within the mapping, as just checked.
        Ok(unsafe { self.0.add(offset) }.cast())
    }
}

pub(super) struct Ring {
    fd: OwnedFd,
    parameters: Parameters,
}

impl Ring {
    pub(super) fn new() -> io::Result<Ring> {
        Ring::with_flags(0)
    }

    pub(super) fn with_flags(flags: u32) -> io::Result<Ring> {
        let mut parameters: Parameters = [0; 30];
        parameters[FLAGS] = flags;
        // SAFETY: the kernel reads and writes one structure of this size.
        let raw =
            unsafe { call(libc::SYS_io_uring_setup, [ENTRIES, parameters.as_mut_ptr() as u64, 0, 0, 0]) }?;
        // SAFETY: the kernel returned a new descriptor that nothing else owns.
        Ok(Ring { fd: unsafe { OwnedFd::from_raw_fd(raw as RawFd) }, parameters })
    }

    fn parameter(&self, index: usize) -> io::Result<u32> {
        self.parameters.get(index).copied().ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Carries one request out; its result, which is never negative. A ring serves one request.
    pub(super) fn carry_out(self, request: Request) -> io::Result<i32> {
        let submission = Mapping::of(&self.fd, OFFSET_SUBMISSION)?;
        let completion = Mapping::of(&self.fd, OFFSET_COMPLETION)?;
        let entries = Mapping::of(&self.fd, OFFSET_ENTRIES)?;
        let tail = submission.at::<AtomicU32>(self.parameter(SUBMISSION_TAIL)?)?;
        let array = submission.at::<u32>(self.parameter(SUBMISSION_ARRAY)?)?;
        // A completion's result stands behind its eight bytes of user data.
        let result = completion.at::<i32>(self.parameter(COMPLETION_ENTRIES)? + 8)?;
        // SAFETY: all four point into live mappings, which nothing else in this process touches; the kernel reads
        // the entry after the tail was moved, and has written the result when the call has returned.
        unsafe {
            entries.at::<Request>(0)?.write(request);
            array.write(0);
            (*tail).store(1, Ordering::Release);
            call(libc::SYS_io_uring_enter, [self.fd.as_raw_fd() as u64, 1, 1, WAIT_FOR_IT, 0])?;
            match result.read_volatile() {
                error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
                good => Ok(good),
            }
        }
    }
}
