//! A small node's life on the log, remembered outside the disk: what was acknowledged, and where groups end.

use axiom::store::{Committer, Layout, Opened, Space, Store, StoreError, StoreOptions};
use base::{AxiomRef, AxiomTime, Hash, Sequence};
use chain::{Entry, EntryType};

use crate::{broken::Broken, disk::SimDisk, random::Random};

/// Small, so that a short run begins many segments.
const SEGMENT_BYTES: u64 = 8192;

pub(crate) fn store<'d>(disk: &'d SimDisk, head: &'d SimDisk) -> Store<'d, SimDisk> {
    let options = StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        spare_files: 1,
        fill_in_background: false,
        ..StoreOptions::new([7; 32])
    };
    Store { disk, head_disk: head, options }
}

pub(crate) fn genesis() -> Option<(Entry, Hash)> {
    Entry::next(Sequence(0), Hash::ZERO, AxiomTime(1), EntryType::Genesis, b"genesis".to_vec()).ok()
}

/// What the outside world knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Every entry that was acknowledged.
    pub acknowledged: Vec<AxiomRef>,
    /// Last entries of all groups that were ever begun, acknowledged or not, with genesis.
    pub group_ends: Vec<AxiomRef>,
}

pub(crate) struct Node {
    layout: Layout<SimDisk>,
    committer: Committer<SimDisk>,
    /// A write of the log failed.
    uncertain: bool,
    acknowledges_early: bool,
}

impl Node {
    /// Opens the log. Entries found there count as acknowledged from now on: readers have seen them.
    pub(crate) fn open(
        disk: &SimDisk,
        head: &SimDisk,
        known: &mut Known,
        broken: Broken,
    ) -> Result<Self, StoreError> {
        let mut found = Vec::new();
        let Opened { layout, committer, .. } = store(disk, head).open(genesis, |placed| {
            found.push(AxiomRef { sequence: placed.record.header.sequence, hash: placed.hash });
        })?;
        known.group_ends.extend(found.first().copied());
        known.acknowledged = found;
        Ok(Self { layout, committer, uncertain: false, acknowledges_early: broken == Broken::Ack })
    }

    /// Appends groups until one fails.
    pub(crate) fn work(
        &mut self,
        random: &mut Random,
        groups: u64,
        known: &mut Known,
    ) -> Result<(), StoreError> {
        for _ in 0..groups {
            let entries = self.entries(random)?;
            let references: Vec<AxiomRef> = entries
                .iter()
                .map(|(entry, hash)| AxiomRef { sequence: entry.header.sequence, hash: *hash })
                .collect();
            known.group_ends.extend(references.last().copied());
            if self.acknowledges_early {
                known.acknowledged.extend(&references);
            }
            let group = self.layout.prepare(entries)?;
            let committed = self.committer.commit(group).inspect_err(|_| self.uncertain = true)?;
            self.layout.recycle(committed.buffer);
            if !self.acknowledges_early {
                known.acknowledged.extend(references);
            }
        }
        Ok(())
    }

    /// After an uncertain write nothing more may be written.
    pub(crate) fn wrote_on(&mut self, random: &mut Random) -> bool {
        let group = self.entries(random).and_then(|entries| self.layout.prepare(entries));
        self.uncertain
            && group.is_ok_and(|group| !matches!(self.committer.commit(group), Err(StoreError::Stopped)))
    }

    fn entries(&mut self, random: &mut Random) -> Result<Vec<(Entry, Hash)>, StoreError> {
        let mut point = self.layout.point();
        let mut entries = Vec::new();
        for _ in 0..=random.below(4) {
            let payload = vec![random.number() as u8; random.below(900) as usize];
            let sequence = point.next_sequence;
            let entry =
                Entry::next(sequence, point.last_hash, AxiomTime(sequence.0), EntryType::Receipt, payload);
            let (entry, hash) = entry.map_err(|_| StoreError::Layout)?;
            point = chain::ChainPoint::after(AxiomRef { sequence, hash });
            entries.push((entry, hash));
        }
        match self.layout.space(4096) {
            Space::Full => Err(StoreError::Full),
            _ => Ok(entries),
        }
    }
}
