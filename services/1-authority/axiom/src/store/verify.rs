//! The part of a log that a start did not read, read behind it.

use chain::{
    Cause, ChainPoint, Fault, Part, SegmentReader,
    log_edge::LogEdge,
    segment_first, segment_name,
    tree::{Edge, TreeHash},
};
use durable::Disk;

use super::{adapter::Segment, error::StoreError, headers::segment_names, open::Resume, options::LOG_FOLDER};

/// Verifies everything from genesis, or the log's edge, up to where a start began, and that it leads to the same entry and the same tree.
/// `pace` is called after every group. Gives the number of entries.
pub fn verify_before<D: Disk>(
    disk: &D,
    (resume, edge): (&Resume, &Edge),
    begin: Option<&LogEdge>,
    mut pace: impl FnMut(),
) -> Result<u64, StoreError> {
    let end = ChainPoint::after(resume.tail.last);
    let mut point = begin.map_or(ChainPoint::GENESIS, LogEdge::point);
    let mut tree = begin.and_then(LogEdge::tree).unwrap_or_default();
    let first = point.next_sequence;
    for name in segment_names(disk)? {
        if segment_first(&name).is_some_and(|begins| begins < first) {
            continue;
        }
        if segment_first(&name).is_none_or(|first| first > resume.tail.segment) {
            break;
        }
        let segment = Segment(disk.open(&format!("{LOG_FOLDER}/{name}"))?);
        let mut reader = SegmentReader::open(&segment, &name, Some(&point)).map_err(StoreError::Damaged)?;
        while reader.point() != end {
            let group = reader.next_group(|placed| {
                let header = placed.record.header.encode();
                tree.push(TreeHash::leaf_of(&[&header, placed.record.payload]), |_, _| {});
            });
            if !group.map_err(StoreError::Damaged)? {
                break;
            }
            pace();
        }
        point = reader.point();
    }
    if point == end && tree == *edge {
        return Ok(end.next_sequence.0.saturating_sub(first.0));
    }
    let (part, cause) = (Part::Head, Cause::HeadMismatch { head: resume.tail.last });
    let segment = segment_name(resume.tail.segment);
    let offset = resume.tail.group_at;
    Err(StoreError::Damaged(Fault { segment, offset, part, cause, may_be_torn_tail: false }))
}
