//! What a service's fold has come to, in one file of its own folder, so that the next process need not read the whole
//! log (decision 0021).
//!
//! Promises: the file is there whole or not at all; it is taken only by the same service, with the same version of its
//! fold, for the same entry types, and where the log has the entry that it ends with. Whatever is wrong with it is told,
//! it is removed, and the fold begins at genesis. It holds against accidents and not against whoever may write in the
//! folder: that is the service itself, and the node's own user.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base::{
    AxiomRef, Hash,
    cbor::{self, CborError},
};
use durable::{Disk, DiskError, RealDisk, read_small, replace};
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::{feed::FeedPlan, local::LOCAL_VERSION};

/// In the service's own folder.
pub const SNAPSHOT_FILE: &str = "fold.snapshot";
/// Largest file that is written or read.
pub const SNAPSHOT_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Of the file's form.
const SNAPSHOT_VERSION: u32 = 1;
const LABEL: &[u8] = b"bailiwick fold snapshot v1\0";
const HASH_BYTES: usize = 32;

#[derive(Debug, Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("it is too short to have a hash")]
    Form,
    #[error("it does not have the hash that stands before it")]
    Hash,
    #[error("it cannot be read: {0}")]
    State(#[from] CborError),
    #[error("it is of version {found}, this build reads {wanted}")]
    Version { found: String, wanted: String },
    #[error("it is of the service {0}")]
    Service(String),
    #[error("it was folded from other entry types than this build folds")]
    EntryTypes,
    #[error("it has {0} bytes, at most {SNAPSHOT_BYTES_MAX} are kept")]
    TooLarge(usize),
}

/// What is written down of a fold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Parts {
    /// The shared state: identities, rights, rules.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub shared: Vec<u8>,
    /// What is the service's own.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub own: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Snapshot {
    #[n(0)]
    service: String,
    /// Of the shared state's form, and of the service's own fold.
    #[n(1)]
    versions: (u32, u32),
    #[n(2)]
    entry_types: Vec<u32>,
    /// The last entry that is in it, whether it was one of those types or not.
    #[n(3)]
    pub(crate) last: AxiomRef,
    #[n(4)]
    pub(crate) parts: Parts,
}

/// Whose snapshots are meant.
#[derive(Clone, Debug)]
struct Owner {
    service: &'static str,
    fold_version: u32,
    entry_types: Vec<u32>,
}

impl Owner {
    fn write(&self, last: AxiomRef, parts: Parts) -> Result<Vec<u8>, SnapshotError> {
        let snapshot = Snapshot {
            service: self.service.to_owned(),
            versions: (LOCAL_VERSION, self.fold_version),
            entry_types: self.entry_types.clone(),
            last,
            parts,
        };
        let state = cbor::encode(&(SNAPSHOT_VERSION, snapshot));
        let bytes = state.len().saturating_add(HASH_BYTES);
        if bytes > SNAPSHOT_BYTES_MAX {
            return Err(SnapshotError::TooLarge(bytes));
        }
        Ok([Hash::of_parts(&[LABEL, &state]).0.as_slice(), &state].concat())
    }

    fn read(&self, bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
        let (hash, state) = bytes.split_first_chunk::<HASH_BYTES>().ok_or(SnapshotError::Form)?;
        if Hash::of_parts(&[LABEL, state]).0 != *hash {
            return Err(SnapshotError::Hash);
        }
        // The version first: what a newer build added behind it is no reason to complain about the form.
        match first_number(state) {
            Some(SNAPSHOT_VERSION) => {}
            found => {
                let found = found.map_or_else(|| "an unknown kind".to_owned(), |found| found.to_string());
                return Err(SnapshotError::Version { found, wanted: SNAPSHOT_VERSION.to_string() });
            }
        }
        let (_, snapshot): (u32, Snapshot) = cbor::decode(state)?;
        if snapshot.service != self.service {
            return Err(SnapshotError::Service(base::visible(&snapshot.service).into_owned()));
        }
        let (found, wanted) = (snapshot.versions, (LOCAL_VERSION, self.fold_version));
        if found != wanted {
            let text = |(shared, own)| format!("{shared}.{own}");
            return Err(SnapshotError::Version { found: text(found), wanted: text(wanted) });
        }
        match snapshot.entry_types == self.entry_types {
            true => Ok(snapshot),
            false => Err(SnapshotError::EntryTypes),
        }
    }
}

fn first_number(state: &[u8]) -> Option<u32> {
    let mut decoder = minicbor::Decoder::new(state);
    decoder.array().ok()?;
    decoder.u32().ok()
}

#[derive(Debug)]
struct Shared {
    disk: RealDisk,
    owner: Owner,
    /// What was found at the start, until it is taken.
    found: Mutex<Option<Snapshot>>,
}

/// A service's snapshot. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

impl Snapshots {
    /// Reads what the last process left. A folder that cannot be used is told, and there is none then.
    #[must_use]
    pub fn open(folder: &Path, service: &'static str, fold_version: u32, plan: &FeedPlan) -> Option<Self> {
        let owner = Owner { service, fold_version, entry_types: plan.entry_types.clone() };
        let disk = RealDisk::open(folder)
            .inspect_err(|error| tracing::warn!(%error, "no snapshot of the fold is kept"))
            .ok()?;
        let snapshots = Self { shared: Arc::new(Shared { disk, owner, found: Mutex::default() }) };
        match snapshots.load() {
            Ok(found) => *snapshots.found() = found,
            Err(error) => snapshots.refuse(&error),
        }
        Some(snapshots)
    }

    fn load(&self) -> Result<Option<Snapshot>, SnapshotError> {
        let bytes = read_small(&self.shared.disk, SNAPSHOT_FILE, SNAPSHOT_BYTES_MAX)?;
        bytes.map(|bytes| self.shared.owner.read(&bytes)).transpose()
    }

    fn found(&self) -> MutexGuard<'_, Option<Snapshot>> {
        self.shared.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service's own part of what was found.
    #[must_use]
    pub fn own(&self) -> Option<Vec<u8>> {
        self.found().as_ref().map(|found| found.parts.own.clone())
    }

    pub(crate) fn take(&self) -> Option<Snapshot> {
        self.found().take()
    }

    /// Tells what is wrong with it, and removes it: everything is folded from genesis.
    pub fn refuse(&self, why: &dyn std::fmt::Display) {
        tracing::warn!(%why, file = SNAPSHOT_FILE, "a snapshot is not used; the log is folded from genesis");
        *self.found() = None;
        self.remove(SNAPSHOT_FILE);
    }

    fn remove(&self, name: &str) {
        match self.shared.disk.remove(name) {
            Err(error) if !error.is_not_found() => tracing::warn!(%error, "a snapshot stays"),
            _ => {}
        }
    }

    /// Durable once this answers `Ok`; blocks. After a failure nothing half written is left: on a full disk the log
    /// needs that room.
    pub(crate) fn write(&self, last: AxiomRef, parts: Parts) -> Result<(), SnapshotError> {
        let bytes = self.shared.owner.write(last, parts)?;
        replace(&self.shared.disk, SNAPSHOT_FILE, &[&bytes])
            .inspect_err(|_| self.remove(&format!("{SNAPSHOT_FILE}.new")))?;
        Ok(())
    }
}

/// When a snapshot is worth its writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Entries of the log after which one is taken, not sooner than `apart` after the last one.
    pub entries: u64,
    pub apart: Duration,
    /// Time after which one is taken if there is any new entry.
    pub every: Duration,
    /// Bytes of state written for each new entry, at most: a large state is written seldom, so that the snapshots of all
    /// services together never cost much more than the log itself.
    pub bytes_per_entry: u64,
    /// A state up to here is small whatever the log says.
    pub small_bytes: u64,
}

impl Due {
    pub(crate) const DEFAULT: Self = Self {
        entries: 1_000,
        apart: Duration::from_secs(10),
        every: Duration::from_secs(3_600),
        bytes_per_entry: 256,
        small_bytes: 64 * 1024,
    };

    /// So many entries and so much time after the last one, whose state had so many bytes.
    pub(crate) fn is_due(&self, entries: u64, passed: Duration, state_bytes: u64) -> bool {
        self.is_worth(entries, state_bytes)
            && (passed >= self.every || (entries >= self.entries && passed >= self.apart))
    }

    /// The same at the service's end, whenever that is.
    pub(crate) fn is_worth(&self, entries: u64, state_bytes: u64) -> bool {
        let allowed = entries.saturating_mul(self.bytes_per_entry).max(self.small_bytes);
        entries > 0 && state_bytes <= allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Sequence;

    fn owner() -> Owner {
        Owner { service: "keys", fold_version: 3, entry_types: vec![0, 30] }
    }

    fn last() -> AxiomRef {
        AxiomRef { sequence: Sequence(41), hash: Hash::of(b"41") }
    }

    fn parts() -> Parts {
        Parts { shared: vec![1, 2], own: vec![3; 40] }
    }

    fn file() -> Vec<u8> {
        owner().write(last(), parts()).unwrap()
    }

    #[test]
    fn what_was_written_is_read_by_its_owner_alone() {
        let read = owner().read(&file()).unwrap();
        assert_eq!((read.last, read.parts), (last(), parts()));
        let other = Owner { service: "policy", ..owner() };
        assert!(matches!(other.read(&file()), Err(SnapshotError::Service(name)) if name == "keys"));
        let newer = Owner { fold_version: 4, ..owner() };
        assert!(matches!(newer.read(&file()), Err(SnapshotError::Version { .. })));
        let wider = Owner { entry_types: vec![0, 30, 31], ..owner() };
        assert!(matches!(wider.read(&file()), Err(SnapshotError::EntryTypes)));
    }

    #[test]
    fn the_vector_of_the_format_is_what_is_written() {
        let text = include_str!("../../../docs/format.md");
        let vector = text.lines().find_map(|line| line.strip_prefix("fold: ")).unwrap();
        let hex: String = file().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(vector, hex);
    }

    #[test]
    fn no_byte_can_change_and_none_can_be_missing() {
        let file = file();
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(matches!(owner().read(&changed), Err(SnapshotError::Hash)), "byte {at}");
            assert!(owner().read(&file[..at]).is_err(), "cut at {at}");
        }
        let of_version = |version: u32| {
            let state = cbor::encode(&(version, 7_u8));
            [Hash::of_parts(&[LABEL, &state]).0.as_slice(), &state].concat()
        };
        assert!(
            matches!(owner().read(&of_version(2)), Err(SnapshotError::Version { found, .. }) if found == "2")
        );
        assert!(matches!(owner().read(&of_version(1)), Err(SnapshotError::State(_))));
    }

    #[test]
    fn a_snapshot_is_bounded_at_the_limit() {
        let with = |bytes| Parts { shared: Vec::new(), own: vec![0; bytes] };
        let around = owner().write(last(), with(1 << 20)).unwrap().len() - (1 << 20);
        assert!(owner().write(last(), with(SNAPSHOT_BYTES_MAX - around)).is_ok());
        let over = owner().write(last(), with(SNAPSHOT_BYTES_MAX - around + 1));
        assert!(matches!(over, Err(SnapshotError::TooLarge(bytes)) if bytes == SNAPSHOT_BYTES_MAX + 1));
    }

    #[test]
    fn what_is_wrong_is_removed_and_what_is_right_stays_until_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let plan = FeedPlan::all();
        let open = || Snapshots::open(folder.path(), "keys", 1, &plan).unwrap();
        assert_eq!(open().own(), None, "nothing is there");
        open().write(last(), parts()).unwrap();
        open().write(AxiomRef { sequence: Sequence(50), ..last() }, parts()).unwrap();
        let snapshots = open();
        assert_eq!(snapshots.own(), Some(parts().own));
        assert_eq!(snapshots.take().map(|found| found.last.sequence), Some(Sequence(50)));
        assert_eq!(snapshots.own(), None, "taken once");
        std::fs::write(folder.path().join(SNAPSHOT_FILE), b"something").unwrap();
        assert_eq!(open().own(), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it was removed");
    }

    /// covers: AX-54
    #[test]
    fn a_snapshot_is_due_by_entries_and_time_and_never_for_nothing_or_for_too_much() {
        let due = |entries, seconds, bytes| Due::DEFAULT.is_due(entries, Duration::from_secs(seconds), bytes);
        assert!(!due(0, 1_000_000, 0));
        assert!(!due(999, 3_599, 0) && due(999, 3_600, 0) && due(1, 3_600, 0));
        assert!(!due(1_000, 9, 0) && due(1_000, 10, 0) && !due(1_000_000, 9, 0));
        assert!(due(1_000, 10, 256_000) && !due(1_000, 10, 256_001) && due(1_001, 10, 256_001));
        assert!(!due(1_000, 3_600, 256_001), "a large state waits for entries");
        assert!(Due::DEFAULT.is_worth(1, 65_536) && !Due::DEFAULT.is_worth(1, 65_537));
        assert!(!Due::DEFAULT.is_worth(0, 0));
    }
}
