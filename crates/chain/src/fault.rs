use std::fmt;

use base::{AxiomRef, Sequence};
use thiserror::Error;

use crate::{group::RecordError, head::HeadError, segment::SegmentHeaderError, validate::ChainError};

/// Which part of a log is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The file as a whole: its name, its length, its place among the others.
    Segment,
    SegmentHeader,
    /// The header of the group that begins with this entry.
    GroupHeader(Sequence),
    Entry(Sequence),
    /// Bytes behind the last group, which are all zero.
    Padding,
    /// The log as a whole against the head kept outside it.
    Head,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment => f.write_str("segment"),
            Self::SegmentHeader => f.write_str("segment header"),
            Self::GroupHeader(first) => write!(f, "header of the group of entry {first}"),
            Self::Entry(sequence) => write!(f, "entry {sequence}"),
            Self::Padding => f.write_str("padding"),
            Self::Head => f.write_str("head"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Cause {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Record(RecordError),
    #[error(transparent)]
    SegmentHeader(#[from] SegmentHeaderError),
    #[error("the group's checksum does not match its bytes")]
    Checksum,
    #[error("not a group header")]
    NotAGroup,
    #[error("the group ends behind the end of the segment")]
    GroupTooLong,
    #[error("the byte is not zero")]
    NotZero,
    #[error("the name does not say the first sequence number in 20 digits")]
    Name,
    #[error("the file has {found} bytes, its header says {expected}")]
    Length { expected: u64, found: u64 },
    #[error("expected the segment that begins with entry {expected}, found the one of {found}")]
    SegmentGap { expected: Sequence, found: Sequence },
    #[error("there is no segment")]
    Empty,
    #[error("the log ends at entry {last}, below the head {head}: entries are missing")]
    BelowHead { last: Sequence, head: AxiomRef },
    #[error(
        "the log begins with entry {first}, behind the head {head}: it cannot show that it has that entry; name the archive that \
         holds it too"
    )]
    BeforeFirst { first: Sequence, head: AxiomRef },
    #[error("entry {} has another hash than the head {head}", head.sequence)]
    HeadMismatch { head: AxiomRef },
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error("reading failed: {0}")]
    Read(String),
}

impl From<RecordError> for Cause {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Chain(error) => Self::Chain(error),
            other => Self::Record(other),
        }
    }
}

/// What is wrong with a log, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("segment {segment}, offset {offset}, {part}: {cause}")]
pub struct Fault {
    pub segment: String,
    pub offset: u64,
    pub part: Part,
    #[source]
    pub cause: Cause,
    /// Nothing valid stands behind it in the last segment: what a power cut in the middle of a write also leaves.
    /// Only a head at or above this place tells damage from a torn tail.
    pub may_be_torn_tail: bool,
}

impl Fault {
    pub(crate) fn new(segment: &str, offset: u64, part: Part, cause: impl Into<Cause>) -> Self {
        Self { segment: segment.to_owned(), offset, part, cause: cause.into(), may_be_torn_tail: false }
    }

    pub(crate) fn read(segment: &str, offset: u64, error: &std::io::Error) -> Self {
        Self::new(segment, offset, Part::Segment, Cause::Read(error.to_string()))
    }
}
