//! Snapshots of the state: a signed head with the state's hash, then the state. A start loads the newest sound one and
//! folds only later entries (AX-54, AX-55).

use base::{AxiomRef, Hash, PublicKey, Sequence};
use chain::{SIGNED_HEAD_BYTES_MAX, SignedHead, SignedHeadError};
use durable::{Disk, DiskError, SMALL_FILE_BYTES_MAX, read_small, replace};
use thiserror::Error;

use super::options::SNAPSHOT_FOLDER;

const SUFFIX: &str = ".snap";
/// Snapshots kept: the newest, and one more should it not load.
const KEPT: usize = 2;

#[derive(Debug, Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the snapshot's signed head does not hold: {0}")]
    Note(#[from] SignedHeadError),
    #[error("the snapshot does not begin with a signed head")]
    Form,
    #[error("the signed head of a snapshot names the hash of a state")]
    NoState,
    #[error("the state does not have the hash that was signed")]
    StateHash,
    #[error("the snapshot is of entry {0}, its name says another")]
    Name(Sequence),
}

/// A verified snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The entry after which the state was taken; the log must have it with this hash.
    pub head: AxiomRef,
    pub state: Vec<u8>,
}

/// Names of snapshots that did not load, and why.
pub type RefusedSnapshots = Vec<(String, SnapshotError)>;

/// Writes a snapshot durably and removes all but the newest two. `note` is the signed head with the state's hash.
pub fn save_snapshot<D: Disk>(
    disk: &D,
    sequence: Sequence,
    note: &SignedHead,
    state: &[u8],
) -> Result<(), DiskError> {
    let length = u32::try_from(note.as_str().len()).unwrap_or(u32::MAX).to_le_bytes();
    let name = format!("{SNAPSHOT_FOLDER}/{:020}{SUFFIX}", sequence.0);
    replace(disk, &name, &[&length, note.as_str().as_bytes(), state])?;
    let names = names(disk)?;
    for (_, old) in names.iter().rev().skip(KEPT) {
        disk.remove(old)?;
    }
    Ok(())
}

/// The newest snapshot that verifies, and what was wrong with newer ones. The caller checks its head against the log.
pub fn load_snapshot<D: Disk>(
    disk: &D,
    key: &PublicKey,
) -> Result<(Option<Snapshot>, RefusedSnapshots), DiskError> {
    let mut refused = Vec::new();
    for (sequence, name) in names(disk)?.into_iter().rev() {
        let Some(bytes) = read_small(disk, &name, SMALL_FILE_BYTES_MAX)? else { continue };
        match parse(&bytes, key) {
            Ok(snapshot) if snapshot.head.sequence == sequence => return Ok((Some(snapshot), refused)),
            Ok(snapshot) => refused.push((name, SnapshotError::Name(snapshot.head.sequence))),
            Err(error) => refused.push((name, error)),
        }
    }
    Ok((None, refused))
}

fn names<D: Disk>(disk: &D) -> Result<Vec<(Sequence, String)>, DiskError> {
    let mut names: Vec<_> = disk
        .list(SNAPSHOT_FOLDER)?
        .into_iter()
        .filter_map(|name| {
            let sequence = Sequence(name.strip_suffix(SUFFIX)?.parse().ok()?);
            Some((sequence, format!("{SNAPSHOT_FOLDER}/{name}")))
        })
        .collect();
    names.sort_unstable();
    Ok(names)
}

fn parse(bytes: &[u8], key: &PublicKey) -> Result<Snapshot, SnapshotError> {
    let (length, rest) = bytes.split_first_chunk().ok_or(SnapshotError::Form)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (note, state) =
        rest.split_at_checked(length.min(SIGNED_HEAD_BYTES_MAX)).ok_or(SnapshotError::Form)?;
    let note = SignedHead::new(std::str::from_utf8(note).map_err(|_| SnapshotError::Form)?)?;
    let head = note.verify(key)?;
    if head.state.ok_or(SnapshotError::NoState)? != Hash::of(state) {
        return Err(SnapshotError::StateHash);
    }
    Ok(Snapshot { head: head.head, state: state.to_vec() })
}
