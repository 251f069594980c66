//! The archive in which an image came: its files, stored by number, found by name.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

use base::TreeId;
use rustix::fs::{Mode, OFlags, openat};
use sha2::{Digest, Sha256};

use super::{
    ARCHIVE_BYTES_MAX, ARCHIVE_ENTRIES_MAX, JSON_BYTES_MAX, PATH_BYTES_MAX,
    layer::parts,
    read::{Bounded, decompressed},
    refuse,
};

/// The files of an archive. Names of the archive are never names in the file system.
pub(super) struct Stored {
    folder: OwnedFd,
    files: HashMap<String, (u32, u64)>,
}

/// A file of the archive, and what it must be.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    /// In the archive.
    pub(super) path: String,
    /// Of its bytes, if it is named by them.
    pub(super) digest: Option<TreeId>,
    /// Of a layer, without compression.
    pub(super) unpacked: Option<TreeId>,
}

pub(super) fn store(archive: impl Read, folder: OwnedFd) -> io::Result<Stored> {
    let bounded = Bounded::new(decompressed(archive)?, ARCHIVE_BYTES_MAX, "the archive");
    let mut files = HashMap::new();
    let mut number = 0_u32;
    for entry in tar::Archive::new(bounded).entries()? {
        let mut entry =
            entry.map_err(|error| refuse(format!("the archive is no tar archive, or cut: {error}")))?;
        let name = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&name).into_owned();
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {}
            tar::EntryType::Directory | tar::EntryType::XGlobalHeader => continue,
            other => {
                let text = format!("{shown:?} of the archive is {other:?}; only files and folders are taken");
                return Err(refuse(text));
            }
        }
        if files.len() >= ARCHIVE_ENTRIES_MAX {
            return Err(refuse(format!("the archive has more than {ARCHIVE_ENTRIES_MAX} files")));
        }
        if name.len() > PATH_BYTES_MAX {
            return Err(refuse(format!("a name of the archive has more than {PATH_BYTES_MAX} bytes")));
        }
        let key = parts(&name)?.join(&b'/');
        let key =
            String::from_utf8(key).map_err(|_| refuse(format!("{shown:?} of the archive is not UTF-8")))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(&folder, number.to_string(), flags, Mode::RUSR | Mode::WUSR)?);
        let size = io::copy(&mut entry, &mut file)?;
        if size != entry.size() {
            return Err(refuse(format!("the archive was cut in {shown:?}")));
        }
        if files.insert(key, (number, size)).is_some() {
            return Err(refuse(format!("{shown:?} stands in the archive twice")));
        }
        number += 1;
    }
    Ok(Stored { folder, files })
}

impl Stored {
    pub(super) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// A file, and its size.
    pub(super) fn open(&self, path: &str) -> io::Result<(File, u64)> {
        let lacks = || refuse(format!("the archive lacks {path:?}"));
        let (number, size) = self.files.get(path).copied().ok_or_else(lacks)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok((File::from(openat(&self.folder, number.to_string(), flags, Mode::empty())?), size))
    }

    /// A small file, compared with its digest.
    pub(super) fn read(&self, path: &str, digest: Option<TreeId>) -> io::Result<Vec<u8>> {
        let (file, size) = self.open(path)?;
        if size > JSON_BYTES_MAX {
            return Err(refuse(format!("{path:?} has {size} bytes, more than {JSON_BYTES_MAX}")));
        }
        let mut bytes = Vec::new();
        file.take(JSON_BYTES_MAX).read_to_end(&mut bytes)?;
        if let Some(digest) = digest {
            same(path, digest, Sha256::digest(&bytes).into())?;
        }
        Ok(bytes)
    }
}

/// Content that is not what its name says is never used.
pub(super) fn same(what: &str, wanted: TreeId, found: [u8; 32]) -> io::Result<()> {
    if found == wanted.0 {
        return Ok(());
    }
    Err(refuse(format!("{what} has the digest {}, not {wanted}", TreeId(found))))
}
