//! The edge of the log in its folder: where it begins once its first segments are archived (decision 0025).
//!
//! The order is: the edge durably, then the segments before it, oldest first. A crash in between leaves segments that the
//! edge says are archived; the next start removes them.

use base::{AxiomRef, PublicKey, Sequence};
use chain::{
    Cause, ChainPoint, Fault, SEGMENT_HEADER_BYTES, SegmentReader,
    log_edge::{EDGE_BYTES_MAX, EDGE_FILE, EdgeError, EdgePlan, LogEdge, cosigned},
    payload::log::LogArchive,
    segment_first,
    tree::{Edge, TreeHash},
};
use durable::{Disk, DiskError, DiskFile, read_small, replace};
use ed25519_dalek::SigningKey;
use thiserror::Error;

use super::{
    adapter::Segment,
    error::StoreError,
    headers::{HeadersHash, segment_names},
    options::{HEAD_FILE, LOG_FOLDER},
};

/// Why nothing was taken out of the log.
#[derive(Debug, Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Edge(#[from] EdgeError),
    #[error("the log begins with entry {begins}, not with {asked}")]
    Begins { begins: Sequence, asked: Sequence },
    #[error("no segment ends with entry {0}, or it is the last one, which is never taken")]
    NotWhole(Sequence),
    #[error("the segments do not lead to the entry {0} that is to be the last one taken")]
    OtherEntry(AxiomRef),
    #[error("the log does not have the root that the checkpoint of {0} entries states")]
    OtherRoot(u64),
    #[error("{0}")]
    Fold(String),
}

/// Reads the edge; None if nothing is archived.
pub(super) fn load<D: Disk>(disk: &D, key: Option<&PublicKey>) -> Result<Option<LogEdge>, StoreError> {
    let Some(bytes) = read_small(disk, &place(), EDGE_BYTES_MAX)? else { return Ok(None) };
    let Some(key) = key else { return Err(StoreError::Edge("no key was given to check it with".to_owned())) };
    match LogEdge::read(&bytes, Some(key)) {
        Ok(edge) => Ok(Some(edge)),
        Err(error) => Err(StoreError::Edge(error.to_string())),
    }
}

fn place() -> String {
    format!("{LOG_FOLDER}/{EDGE_FILE}")
}

/// The log begins with genesis again: all that was archived is there.
pub(super) fn drop<D: Disk>(disk: &D) -> Result<(), DiskError> {
    disk.remove(&place())?;
    disk.sync_dir(LOG_FOLDER)
}

/// Whether a log that was read from genesis on has a gap before the edge: something of what is archived is not there.
pub(super) fn is_gap(error: &StoreError, edge: &LogEdge) -> bool {
    let begin = edge.point().next_sequence;
    matches!(
        error,
        StoreError::Damaged(Fault { cause: Cause::SegmentGap { expected, found }, .. })
            if *expected < begin && *found <= begin
    )
}

/// What is archived and still there.
pub(super) fn leftovers<D: Disk>(disk: &D, edge: &LogEdge) -> Result<Vec<String>, StoreError> {
    let begin = edge.point().next_sequence;
    let mut names = segment_names(disk)?;
    names.retain(|name| segment_first(name).is_some_and(|first| first < begin));
    Ok(names)
}

/// Segments that can be taken, verified, and the edge that would be left.
pub struct Removal {
    pub edge: LogEdge,
    bytes: Vec<u8>,
    names: Vec<String>,
}

impl Removal {
    /// Reads every segment that is to be taken, and on to the checkpoint: what is archived is what was decided, and it
    /// lies below what witnesses have signed. `pace` is called after every group.
    pub fn plan<D: Disk>(
        disk: &D,
        before: Option<&LogEdge>,
        (entry, act): (AxiomRef, &LogArchive),
        key: &SigningKey,
        mut pace: impl FnMut(),
    ) -> Result<Self, ArchiveError> {
        let begin = before.map_or(ChainPoint::GENESIS, LogEdge::point);
        if begin.next_sequence != act.from {
            return Err(ArchiveError::Begins { begins: begin.next_sequence, asked: act.from });
        }
        let names = segment_names(disk)?;
        let end = ChainPoint::after(act.last);
        let is_taken = |name: &str| segment_first(name).is_some_and(|first| first < end.next_sequence);
        let from = names.partition_point(|name| segment_first(name).is_some_and(|first| first < act.from));
        let behind = names.partition_point(|name| is_taken(name));
        let taken = names.get(from..behind).unwrap_or_default().to_vec();
        let left = names.get(behind..).unwrap_or_default();
        let next = left.first().and_then(|name| segment_first(name));
        if taken.is_empty() || taken.len() as u64 != act.segments || next != Some(end.next_sequence) {
            return Err(ArchiveError::NotWhole(act.last.sequence));
        }
        let mut read = Reading {
            point: begin,
            tree: before.and_then(LogEdge::tree).unwrap_or_default(),
            headers: before.map_or(HeadersHash::NONE, |before| HeadersHash(before.headers)),
            genesis: before.map(|before| before.genesis_bytes().to_vec()).unwrap_or_default(),
        };
        for name in &taken {
            read.segment(disk, name, u64::MAX, &mut pace)?;
        }
        if read.point != end {
            return Err(ArchiveError::OtherEntry(act.last));
        }
        let tree = read.tree.clone();
        let edge = LogEdge::new(EdgePlan {
            genesis: read.genesis.clone(),
            last: act.last,
            headers: read.headers.0,
            tree,
            checkpoint: act.checkpoint.clone(),
            witnesses: act.witnesses.clone(),
            archive: entry,
            place: act.place.clone(),
            before: before.cloned(),
        })?;
        let checkpoint = cosigned(&act.checkpoint, &edge.key()?, &act.witnesses)?;
        for name in left {
            if read.tree.size() < checkpoint.size {
                read.segment(disk, name, checkpoint.size, &mut pace)?;
            }
        }
        if read.tree.size() != checkpoint.size || read.tree.root() != checkpoint.root {
            return Err(ArchiveError::OtherRoot(checkpoint.size));
        }
        let bytes = edge.sign(key)?;
        Ok(Self { edge, bytes, names: taken })
    }

    /// How many segments are taken.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.names.len() as u64
    }

    /// From here on the log begins at the edge, whatever happens. The head is made durable first: it is not synced with
    /// each group, and one that a power cut set back to before the edge could not be looked for any more.
    pub fn write_edge<D: Disk>(&self, disk: &D, head_disk: &D) -> Result<(), DiskError> {
        head_disk.open(HEAD_FILE)?.sync_data()?;
        replace(disk, &place(), &[&self.bytes])
    }

    /// Behind `write_edge`.
    pub fn remove<D: Disk>(&self, disk: &D) -> Result<(), DiskError> {
        remove(disk, &self.names)
    }
}

/// Oldest first, so that what is left never has a gap.
pub(super) fn remove<D: Disk>(disk: &D, names: &[String]) -> Result<(), DiskError> {
    for name in names {
        disk.remove(&format!("{LOG_FOLDER}/{name}"))?;
    }
    disk.sync_dir(LOG_FOLDER)
}

struct Reading {
    point: ChainPoint,
    tree: Edge,
    headers: HeadersHash,
    /// Header and payload of entry 0.
    genesis: Vec<u8>,
}

impl Reading {
    /// The tree takes at most `size` entries; a segment is read no further than that.
    fn segment<D: Disk>(
        &mut self,
        disk: &D,
        name: &str,
        size: u64,
        pace: &mut impl FnMut(),
    ) -> Result<(), StoreError> {
        let segment = Segment(disk.open(&format!("{LOG_FOLDER}/{name}"))?);
        let mut reader =
            SegmentReader::open(&segment, name, Some(&self.point)).map_err(StoreError::Damaged)?;
        let header: [u8; SEGMENT_HEADER_BYTES] = reader.header().encode();
        self.headers = self.headers.after(&header);
        while self.tree.size() < size {
            let (tree, genesis) = (&mut self.tree, &mut self.genesis);
            let group = reader.next_group(|placed| {
                let header = placed.record.header.encode();
                if genesis.is_empty() {
                    *genesis = [header.as_slice(), placed.record.payload].concat();
                }
                if tree.size() < size {
                    tree.push(TreeHash::leaf_of(&[&header, placed.record.payload]), |_, _| {});
                }
            });
            if !group.map_err(StoreError::Damaged)? {
                break;
            }
            pace();
        }
        self.point = reader.point();
        Ok(())
    }
}
