use std::io;

use crate::disk::{Disk, DiskError, DiskFile, Operation};

/// Largest file that is written or read in one piece: a snapshot of a large state fits, a mistake does not.
pub const SMALL_FILE_BYTES_MAX: usize = 256 * 1024 * 1024;
const SUFFIX: &str = ".new";

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Replaces a file whole or not at all, durably: after a crash it has the old or the new bytes.
pub fn replace<D: Disk>(disk: &D, name: &str, parts: &[&[u8]]) -> Result<(), DiskError> {
    let bytes = parts.iter().map(|part| part.len() as u64).fold(0, u64::saturating_add);
    fitting(bytes, SMALL_FILE_BYTES_MAX, Operation::Write, name)?;
    let new = format!("{name}{SUFFIX}");
    let file = match disk.create(&new) {
        // What an earlier crash left half written.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&new)?;
            disk.create(&new)?
        }
        other => other?,
    };
    let mut at = 0_u64;
    for part in parts {
        file.write_at(at, part)?;
        at = at.saturating_add(part.len() as u64);
    }
    file.sync_data()?;
    disk.rename(&new, name)?;
    disk.sync_dir(folder_of(name))
}

/// The whole of a small file; None if it is not there.
pub fn read_small<D: Disk>(
    disk: &D,
    name: &str,
    size_bytes_max: usize,
) -> Result<Option<Vec<u8>>, DiskError> {
    let file = match disk.open(name) {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    let limit = size_bytes_max.min(SMALL_FILE_BYTES_MAX);
    let size_bytes = fitting(file.size_bytes()?, limit, Operation::Read, name)?;
    let mut bytes = vec![0; size_bytes];
    file.read_at(0, &mut bytes)?;
    Ok(Some(bytes))
}

/// Writes zeros over a small file, durably, and removes it: for a secret that stands elsewhere now.
pub fn wipe<D: Disk>(disk: &D, name: &str) -> Result<(), DiskError> {
    let file = disk.open(name)?;
    let size_bytes = fitting(file.size_bytes()?, SMALL_FILE_BYTES_MAX, Operation::Write, name)?;
    file.write_at(0, &vec![0; size_bytes])?;
    file.sync_data()?;
    disk.remove(name)?;
    disk.sync_dir(folder_of(name))
}

fn fitting(size_bytes: u64, limit: usize, operation: Operation, name: &str) -> Result<usize, DiskError> {
    usize::try_from(size_bytes).ok().filter(|bytes| *bytes <= limit).ok_or_else(|| DiskError::Failed {
        operation,
        name: name.to_owned(),
        source: io::Error::new(io::ErrorKind::FileTooLarge, format!("{size_bytes} bytes, at most {limit}")),
    })
}
