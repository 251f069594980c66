//! The log on a disk: segments, head, index. Blocking calls and one thread; no knowledge of what entries mean.
//!
//! Promises: a group is acknowledged after it is durable and after the head is written; readers see durable entries
//! only; what lies below the head is there or the store refuses to open. Unsure whether a write landed: every later
//! call fails with `Stopped`, the process ends, the next start reads the disk.
//! Never does: rewrites a sealed segment, tries a failed write again, takes damage for a torn tail.

mod adapter;
mod committer;
mod edge;
mod error;
mod follow;
mod headers;
mod index;
mod layout;
mod open;
mod options;
mod reader;
mod verify;

pub use adapter::DiskLog;
pub use committer::{Committed, Committer, CommitterThread};
pub use edge::{ArchiveError, Removal};
pub use error::StoreError;
pub use follow::{Follow, Follower};
pub use headers::{Headers, HeadersHash};
pub use layout::{Layout, PreparedGroup, Space};
pub use open::{Opened, Recovery, Resume, Store};
pub use options::{
    HEAD_FILE, LOCK_FILE, LOG_FOLDER, SEGMENT_BYTES_DEFAULT, SPARE_FILES_DEFAULT, SPARE_FOLDER, StoreOptions,
};
pub use reader::{Begin, LogReader, RANGE_BYTES_MAX, RANGE_ENTRIES_MAX, Tail};
pub use verify::verify_before;
