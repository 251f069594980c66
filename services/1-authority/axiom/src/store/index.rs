//! Where entries stand: one point every 64 entries, so that an index of 100 million entries takes 50 MB.

use base::Sequence;

/// Entries between two points: what a look-up reads past at most.
pub(super) const STRIDE: u64 = 64;

/// A record's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub sequence: u64,
    /// First sequence of the segment.
    pub segment: u64,
    pub offset: u64,
    pub group_end: u64,
}

/// Disposable: rebuilt when the log is opened.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    points: Vec<Point>,
}

impl Index {
    /// True if an entry's place is to be kept.
    pub(super) fn wants(sequence: Sequence, first_of_segment: u64) -> bool {
        sequence.0.is_multiple_of(STRIDE) || sequence.0 == first_of_segment
    }

    pub(super) fn push(&mut self, point: Point) {
        self.points.push(point);
    }

    /// The last point at or before an entry.
    pub(super) fn before(&self, sequence: Sequence) -> Option<Point> {
        let behind = self.points.partition_point(|point| point.sequence <= sequence.0);
        self.points.get(behind.checked_sub(1)?).copied()
    }
}
