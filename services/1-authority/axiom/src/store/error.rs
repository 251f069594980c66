use base::AxiomRef;
use chain::{Fault, GroupError};
use durable::{DiskError, PoolError};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum StoreError {
    /// Damage below the head, or damage that no power cut explains.
    #[error("the log is damaged and is not opened: {0}; restore it from a copy, then `bailiwick log verify`")]
    Damaged(Fault),
    #[error("the head {head} was acknowledged, but there is no log: restore it from a copy")]
    LogMissing { head: AxiomRef },
    #[error(
        "the log has {entries} entries, but the head that belongs to it is missing: restore the head's file"
    )]
    HeadMissing { entries: u64 },
    #[error("the head's file is damaged: {0}")]
    Head(chain::HeadError),
    /// Nothing was changed: the log can be opened whole.
    #[error("the log is not the one of the snapshot: {0}")]
    NotResumed(String),
    #[error("the first entry must be genesis at sequence 0 after a zero hash")]
    NotGenesis,
    #[error("a group does not follow the last one, or does not fit a segment")]
    Layout,
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error("no space is left for the log, not even its reserve")]
    Full,
    #[error(
        "the log's edge does not hold: {0}; bring its file back from a copy, or the archived segments (`bailiwick log restore`)"
    )]
    Edge(String),
    #[error(
        "the log begins with entry {first}, what lies before it is archived, and there is no snapshot to go on from: bring the \
         archived segments back with `bailiwick log restore {places}`, then start again"
    )]
    NeedsRestore { first: base::Sequence, places: String },
    /// The head is written down durably before an edge is: it is of another log, or was set back.
    #[error(
        "the head {head} was acknowledged, but the log begins with entry {first}: what is archived may hold it or not. Bring the \
         head's file back, or the archived segments with `bailiwick log restore {places}`, then start again"
    )]
    HeadArchived { head: AxiomRef, first: base::Sequence, places: String },
    #[error(
        "Archived: entry {sequence} was taken out of the log, which begins with entry {first}; it lies in {place} (`bailiwick log restore` brings it back)"
    )]
    Archived { sequence: base::Sequence, first: base::Sequence, place: String },
    #[error("entry {0} is not in the log")]
    NotFound(base::Sequence),
    #[error(
        "{0} was removed or replaced while the log was open: what was written since is not where it belongs"
    )]
    Replaced(String),
    #[error("an earlier write failed and may have landed: this process must end and read the disk again")]
    Stopped,
    #[error("the committer's thread cannot be started")]
    Thread(#[source] std::io::Error),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Pool(#[from] PoolError),
}
