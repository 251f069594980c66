//! The log on a disk: segments, head, index, snapshots. Blocking calls and one thread; no knowledge of what entries mean.
//!
//! Promises: a group is acknowledged after it is durable and after the head is written; readers see durable entries
//! only; what lies below the head is there or the store refuses to open. Unsure whether a write landed: every later
//! call fails with `Stopped`, the process ends, the next start reads the disk.
//! Never does: rewrites a sealed segment, tries a failed write again, takes damage for a torn tail.

mod adapter;
mod committer;
mod error;
mod follow;
mod index;
mod layout;
mod open;
mod options;
mod reader;
mod snapshot;

pub use adapter::DiskLog;
pub use committer::{Committed, Committer, CommitterThread};
pub use error::StoreError;
pub use follow::{Follow, Follower};
pub use layout::{Layout, PreparedGroup, Space};
pub use open::{Opened, Recovery, Store};
pub use options::{
    HEAD_FILE, LOG_FOLDER, SEGMENT_BYTES_DEFAULT, SNAPSHOT_FOLDER, SPARE_FILES_DEFAULT, SPARE_FOLDER,
    StoreOptions,
};
pub use reader::{LogReader, RANGE_BYTES_MAX, RANGE_ENTRIES_MAX};
pub use snapshot::{RefusedSnapshots, Snapshot, SnapshotError, load_snapshot, save_snapshot};
