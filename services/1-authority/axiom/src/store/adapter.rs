//! A `Disk` as the verifier reads it.

use std::io;

use chain::{LogSource, ReadAt};
use durable::{Disk, DiskError, DiskFile};

use super::options::LOG_FOLDER;

/// The log's folder on a disk, for `chain::verify_log`.
pub struct DiskLog<'d, D>(pub &'d D);

pub struct Segment<F>(pub F);

impl<F: DiskFile> ReadAt for Segment<F> {
    fn size_bytes(&self) -> io::Result<u64> {
        self.0.size_bytes().map_err(io_error)
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer).map_err(io_error)
    }
}

impl<D: Disk> LogSource for DiskLog<'_, D> {
    type Segment = Segment<D::File>;

    fn names(&self) -> io::Result<Vec<String>> {
        self.0.list(LOG_FOLDER).map_err(io_error)
    }

    fn open(&self, name: &str) -> io::Result<Self::Segment> {
        self.0.open(&format!("{LOG_FOLDER}/{name}")).map(Segment).map_err(io_error)
    }
}

fn io_error(error: DiskError) -> io::Error {
    io::Error::new(error.kind(), error)
}
