//! Following the log: entries in order, at least once, with a signal while a follower catches up (AX-51).

use std::sync::Arc;

use base::Sequence;
use chain::Entry;
use durable::Disk;

use super::{error::StoreError, reader::LogReader};

/// What a follower gets next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Entries from the first to the second were there before; what follows until then is a replay.
    Replay {
        from: Sequence,
        to: Sequence,
    },
    Entries(Vec<Arc<Entry>>),
    /// Nothing new; wait for growth.
    CaughtUp,
}

pub struct Follower<D: Disk> {
    reader: LogReader<D>,
    next: Sequence,
    announced: bool,
}

impl<D: Disk> Follower<D> {
    /// Begins with entry `from`. After a crash, ask again from the last entry that was applied: a second delivery is
    /// possible and is told by its sequence.
    #[must_use]
    pub const fn new(reader: LogReader<D>, from: Sequence) -> Self {
        Self { reader, next: from, announced: false }
    }

    #[must_use]
    pub const fn next_sequence(&self) -> Sequence {
        self.next
    }

    pub fn poll(&mut self, entries_max: usize) -> Result<Follow, StoreError> {
        let last = self.reader.last().sequence;
        if !self.announced {
            self.announced = true;
            if self.next <= last {
                return Ok(Follow::Replay { from: self.next, to: last });
            }
        }
        if self.next > last {
            return Ok(Follow::CaughtUp);
        }
        let entries = self.reader.range(self.next, entries_max)?;
        match entries.last() {
            Some(last) => self.next = Sequence(last.header.sequence.0.saturating_add(1)),
            None => return Ok(Follow::CaughtUp),
        }
        Ok(Follow::Entries(entries))
    }
}
