//! Where entries stand: one point every 64 entries, so that an index of 100 million entries takes 50 MB.

use std::collections::BTreeMap;

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

/// What a look-up finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The last point at or before the entry.
    Point(Point),
    /// The entry's segment was not read so far before this sequence.
    Unread {
        segment: u64,
        before: u64,
    },
    Nothing,
}

/// Disposable: rebuilt when the log is opened, or when a segment that a start did not read is read first.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// By the first sequence of their segment. Points of a segment begin with its first entry once it was read.
    segments: BTreeMap<u64, Vec<Point>>,
}

impl Index {
    /// True if an entry's place is to be kept.
    pub(super) const fn wants(sequence: Sequence, first_of_segment: u64) -> bool {
        sequence.0.is_multiple_of(STRIDE) || sequence.0 == first_of_segment
    }

    /// A segment that is there and was not read.
    pub(super) fn expect(&mut self, segment: u64) {
        self.segments.entry(segment).or_default();
    }

    /// Segments that begin before this are archived.
    pub(super) fn forget_before(&mut self, first: u64) {
        self.segments = self.segments.split_off(&first);
    }

    pub(super) fn push(&mut self, point: Point) {
        self.segments.entry(point.segment).or_default().push(point);
    }

    /// Takes what was found by reading a segment from its beginning, up to `before`.
    pub(super) fn fill(&mut self, segment: u64, before: u64, mut points: Vec<Point>) {
        let known = self.segments.entry(segment).or_default();
        if known.first().map_or(u64::MAX, |first| first.sequence) != before {
            // Somebody else was faster.
            return;
        }
        points.retain(|point| point.sequence < before);
        points.append(known);
        *known = points;
    }

    pub(super) fn find(&self, sequence: Sequence) -> Found {
        let Some((segment, points)) = self.segments.range(..=sequence.0).next_back() else {
            return Found::Nothing;
        };
        let first = points.first().map_or(u64::MAX, |first| first.sequence);
        if sequence.0 < first && first != *segment {
            return Found::Unread { segment: *segment, before: first };
        }
        let behind = points.partition_point(|point| point.sequence <= sequence.0);
        let point = behind.checked_sub(1).and_then(|at| points.get(at));
        point.copied().map_or(Found::Nothing, Found::Point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn point(segment: u64, sequence: u64) -> Point {
        Point { sequence, segment, offset: sequence * 100, group_end: 0 }
    }

    #[test]
    fn what_was_not_read_is_filled_in_once_and_then_found() {
        let mut index = Index::default();
        assert_eq!(index.find(Sequence(5)), Found::Nothing);
        index.expect(0);
        index.expect(100);
        index.push(point(100, 192));
        assert_eq!(index.find(Sequence(5)), Found::Unread { segment: 0, before: u64::MAX });
        assert_eq!(index.find(Sequence(191)), Found::Unread { segment: 100, before: 192 });
        assert_eq!(index.find(Sequence(500)), Found::Point(point(100, 192)));
        // A point that was pushed meanwhile stays where it belongs, and is not there twice.
        index.push(point(100, 256));
        index.fill(100, 192, vec![point(100, 100), point(100, 128), point(100, 192)]);
        index.fill(100, 192, vec![point(100, 100)]);
        for (sequence, found) in [(100, 100), (130, 128), (192, 192), (255, 192), (300, 256)] {
            assert_eq!(index.find(Sequence(sequence)), Found::Point(point(100, found)));
        }
        index.fill(0, u64::MAX, vec![point(0, 0), point(0, 64)]);
        assert_eq!(index.find(Sequence(99)), Found::Point(point(0, 64)));
    }
}
