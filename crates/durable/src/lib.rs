//! The one place that writes what must survive a power cut.
//!
//! Promises: what `sync_data`, `sync_dir` or `replace` answered `Ok` for is on the disk; a file is replaced whole or not
//! at all; a second writer fails at once. A failed write or sync is `Uncertain`: nobody knows what landed, the caller
//! must end and read the disk again, never try once more (the kernel drops the error after it was told once).
//! Never does: knows what it writes, keeps clocks, retries. Calls the kernel alone; is a library and cannot die alone.
//!
//! The system calls, in order:
//!
//! ```text
//! Disk::create         openat(O_CREAT|O_EXCL|O_RDWR|O_CLOEXEC)
//! DiskFile::zero       fallocate(0, len), pwrite zeros in 1 MiB steps, fsync: blocks are allocated *and written*,
//!                      so that a later pwrite inside changes no metadata and fdatasync is one device flush
//! DiskFile::write_at   pwrite until all is written
//! DiskFile::sync_data  fdatasync
//! Disk::holds          fstat, lstat: the same device and file number
//! Disk::rename         renameat
//! Disk::sync_dir       openat(O_DIRECTORY), fsync
//! Pool (a spare file)  create, zero, fsync of the folder: its name is durable before it is renamed away
//! replace              create NAME.new, pwrite, fdatasync, renameat NAME.new NAME, fsync of the folder
//! wipe                 pwrite zeros over all of it, fdatasync, unlinkat, fsync of the folder
//! Disk::lock           openat(O_CREAT), flock(LOCK_EX|LOCK_NB), held until dropped or the process dies
//! ```
//!
//! Known gaps: a device that lies about flushes; one that writes elsewhere than it was told (flash, copy on write) keeps
//! what `wipe` wrote over; the file's name is durable only after `sync_dir`, which callers owe.

mod disk;
mod pool;
mod real;
mod replace;

pub use disk::{Disk, DiskError, DiskFile, Operation};
pub use pool::{POOL_FILES_MAX, Pool, PoolError};
pub use real::{RealDisk, RealFile, RealLock};
pub use replace::{SMALL_FILE_BYTES_MAX, read_small, replace, wipe};
