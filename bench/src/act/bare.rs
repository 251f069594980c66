//! What the disk gives: two entries for each act, written and synced, nothing else.

use std::{
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use durable::{Disk, DiskFile, RealDisk};

use super::{Contestant, Round};

/// A decision and a grant as they stand in the log, with their headers.
const ACT_BYTES: usize = 1_100;

pub(super) struct Bare {
    file: std::fs::File,
    at: u64,
    buffer: Vec<u8>,
}

impl Bare {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        RealDisk::open(folder)?.create("file")?.zero(axiom::store::SEGMENT_BYTES_DEFAULT)?;
        let file = std::fs::OpenOptions::new().write(true).open(folder.join("file"))?;
        Ok(Self { file, at: 0, buffer: Vec::new() })
    }
}

impl Contestant for Bare {
    fn name(&self) -> String {
        "bare write and sync of two entries each".to_owned()
    }

    fn is_ours(&self) -> bool {
        false
    }

    fn round(&mut self, in_flight: usize, time: Duration) -> Result<Round> {
        let mut round = Round::default();
        let start = Instant::now();
        while start.elapsed() < time {
            let since = Instant::now();
            self.buffer.clear();
            self.buffer.resize(in_flight * ACT_BYTES, 0x5a);
            if self.at + self.buffer.len() as u64 > axiom::store::SEGMENT_BYTES_DEFAULT {
                self.at = 0;
            }
            self.file.write_all_at(&self.buffer, self.at)?;
            self.file.sync_data()?;
            self.at += self.buffer.len() as u64;
            round.acts += in_flight as u64;
            round.latencies_us.push(since.elapsed().as_secs_f64() * 1e6);
        }
        round.took = start.elapsed();
        Ok(round)
    }
}
