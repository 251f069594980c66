//! The headers of segments that a start does not read: each is there, has its length, and is the one of before.

use base::{Hash, Sequence};
use chain::{ChainPoint, SEGMENT_HEADER_BYTES, SegmentReader, log_edge::LogEdge, segment_name};
use durable::{Disk, DiskFile};

use super::{adapter::Segment, committer::is_segment, error::StoreError, open::Resume, options::LOG_FOLDER};

/// Names of the segment files in the order of the log.
pub(super) fn segment_names<D: Disk>(disk: &D) -> Result<Vec<String>, StoreError> {
    let mut names = disk.list(LOG_FOLDER)?;
    names.retain(|name| is_segment(name));
    names.sort_unstable();
    Ok(names)
}

/// Over the headers of the first segments of a log. A header binds the length of its file and all entries before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadersHash(pub Hash);

impl HeadersHash {
    /// Of no segment.
    pub const NONE: Self = Self(Hash::ZERO);

    #[must_use]
    pub fn after(&self, header: &[u8; SEGMENT_HEADER_BYTES]) -> Self {
        Self(Hash::of_parts(&[b"bailiwick segment headers v1\0", &self.0.0, header]))
    }
}

/// Headers so far, taken further as the log begins new segments.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    hash: HeadersHash,
    /// First sequence of the last segment that was taken in.
    newest: Option<Sequence>,
}

impl Default for Headers {
    fn default() -> Self {
        Self { hash: HeadersHash::NONE, newest: None }
    }
}

impl Headers {
    /// Those up to the segment that begins with `newest`, as a snapshot has them.
    #[must_use]
    pub const fn resume(hash: HeadersHash, newest: Sequence) -> Self {
        Self { hash, newest: Some(newest) }
    }

    /// Over all segments up to the one that begins with `last`.
    pub fn up_to<D: Disk>(&mut self, disk: &D, last: Sequence) -> Result<HeadersHash, StoreError> {
        if self.newest == Some(last) {
            return Ok(self.hash);
        }
        let behind = self.newest.map(segment_name);
        let end = segment_name(last);
        let names = segment_names(disk)?;
        for name in names.iter().filter(|name| behind.as_ref().is_none_or(|behind| *name > behind)) {
            if *name > end {
                break;
            }
            self.hash = self.hash.after(&read_header(disk, name)?);
        }
        self.newest = Some(last);
        Ok(self.hash)
    }
}

fn read_header<D: Disk>(disk: &D, name: &str) -> Result<[u8; SEGMENT_HEADER_BYTES], StoreError> {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    disk.open(&format!("{LOG_FOLDER}/{name}"))?.read_at(0, &mut header)?;
    Ok(header)
}

/// That the segments before the one in which a start goes on are those of the snapshot: whole files with the same
/// headers, and the same genesis. Their entries are not read.
pub(super) fn check_before<D: Disk>(
    disk: &D,
    before: &[String],
    current: &str,
    resume: &Resume,
    edge: Option<&LogEdge>,
) -> Result<(), StoreError> {
    let mut hash = HeadersHash::NONE;
    let mut begin = None;
    if let Some(edge) = edge {
        if edge.genesis().ok().map(|(_, hash)| hash) != Some(resume.genesis) {
            return Err(StoreError::NotResumed("the log's edge is of another log".to_owned()));
        }
        hash = HeadersHash(edge.headers);
        begin = Some(edge.point());
    }
    for name in before.iter().map(String::as_str).chain([current]) {
        let segment = Segment(disk.open(&format!("{LOG_FOLDER}/{name}"))?);
        // Opening compares name, length and header.
        let reader = SegmentReader::open(&segment, name, begin.take().as_ref());
        let mut reader = reader.map_err(|fault| StoreError::NotResumed(fault.to_string()))?;
        if hash == HeadersHash::NONE {
            let mut genesis = None;
            let group = match reader.point() {
                ChainPoint::GENESIS => reader.next_group(|placed| genesis = genesis.or(Some(placed.hash))),
                _ => Ok(false),
            };
            if group.is_err() || genesis != Some(resume.genesis) {
                return Err(StoreError::NotResumed("the log begins with another entry".to_owned()));
            }
        }
        hash = hash.after(&reader.header().encode());
    }
    if hash == resume.headers {
        return Ok(());
    }
    Err(StoreError::NotResumed("older segments were changed, removed or added".to_owned()))
}
