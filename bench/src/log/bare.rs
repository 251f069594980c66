//! The floor: one file of zeros, one loop, nothing else.

use std::{
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use axiom::store::SEGMENT_BYTES_DEFAULT;
use chain::{ChainPoint, GROUP_HEADER_BYTES, GroupBuilder};
use durable::{Disk, DiskFile, RealDisk};

use super::{FRAMING_BYTES, Subject, ours::entries, payload};

pub(super) const WITH_HASHES: &str = "bare write and sync with the same hashes";

/// Wraps around at the end of the file.
pub(super) struct Bare {
    name: &'static str,
    file: std::fs::File,
    size_bytes: u64,
    at: u64,
    hashes: bool,
    point: ChainPoint,
    buffer: Vec<u8>,
}

impl Bare {
    pub(super) fn new(folder: &Path, name: &'static str, hashes: bool) -> Result<Self> {
        let folder = folder.join(if hashes { "hashed" } else { "plain" });
        let size_bytes = SEGMENT_BYTES_DEFAULT * 2;
        RealDisk::open(&folder)?.create("file")?.zero(size_bytes)?;
        let file = std::fs::OpenOptions::new().write(true).open(folder.join("file"))?;
        Ok(Self { name, file, size_bytes, at: 0, hashes, point: ChainPoint::GENESIS, buffer: Vec::new() })
    }

    fn group(&mut self, count: usize) -> Result<()> {
        if self.hashes {
            let (entries, point) = entries(self.point, count)?;
            let mut group = GroupBuilder::new(std::mem::take(&mut self.buffer), self.point.next_sequence);
            for (entry, hash) in &entries {
                group.push(entry, hash)?;
            }
            self.buffer = group.finish(&[0; 16])?;
            self.point = point;
        } else {
            self.buffer.resize(GROUP_HEADER_BYTES, 0x5a);
            for n in 0..count {
                self.buffer.extend_from_slice(&[0x11; FRAMING_BYTES]);
                self.buffer.extend_from_slice(&payload(n as u64));
            }
        }
        Ok(())
    }
}

impl Subject for Bare {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&mut self, in_flight: usize, time: Duration) -> Result<(u64, Duration)> {
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < time {
            self.buffer.clear();
            self.group(in_flight)?;
            if self.at + self.buffer.len() as u64 > self.size_bytes {
                self.at = 0;
            }
            self.file.write_all_at(&self.buffer, self.at)?;
            self.file.sync_data()?;
            self.at += self.buffer.len() as u64;
            done += in_flight as u64;
        }
        Ok((done, start.elapsed()))
    }
}
