//! Files in memory that one process reads and nobody writes: its secrets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, openat};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::Prepared;
use super::mounts::{NO_DEVICES, NO_EXEC, NO_SUID, READ_ONLY, new_filesystem, open_inside, owned};
use crate::plan::SealedFile;
use crate::sys;

/// A file takes whole pages, and the folder some.
const PAGE_BYTES: u64 = 64 * 1024;

/// Mounts on a folder that is there, fills and closes.
pub(super) fn put(prepared: &Prepared<'_>, target: &str, slot: u32, files: &[SealedFile]) -> io::Result<()> {
    let contents = prepared.slots.get(slot as usize).ok_or(Errno::BADF)?;
    let pages = |file: &SealedFile| file.size_bytes.saturating_add(PAGE_BYTES);
    let size = files.iter().map(pages).fold(PAGE_BYTES, u64::saturating_add);
    let options = owned(prepared, size, 0o700);
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Since Linux 6.4 it can be kept out of swap, but not by who is in a user namespace; else encrypted swap is the
    // host's to have.
    match new_filesystem("tmpfs", target, flags, &format!("{options},noswap")) {
        Err(Errno::INVAL | Errno::PERM) => new_filesystem("tmpfs", target, flags, &options)?,
        result => result?,
    }
    let folder = open_inside(target, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut offset = 0;
    for file in files {
        write(prepared, &folder, file, contents, offset)?;
        offset += file.size_bytes;
    }
    fchmod(&folder, Mode::RUSR | Mode::XUSR)?;
    sys::mount_setattr(folder.as_fd(), false, READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC, 0)
}

fn write(
    prepared: &Prepared<'_>,
    folder: &OwnedFd,
    file: &SealedFile,
    contents: &OwnedFd,
    offset: u64,
) -> io::Result<()> {
    let mut bytes = vec![0; usize::try_from(file.size_bytes).map_err(|_| Errno::FBIG)?];
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(contents, rest, offset + read as u64)? {
            // Shorter than its plan says.
            0 => return Err(Errno::NODATA.into()),
            more => read += more,
        }
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(folder, file.name.as_str(), flags, Mode::RUSR)?;
    let (uid, gid) = prepared.effective.owner();
    fchown(&opened, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::write(&opened, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}
