//! From where a log is read. The verifier works on a folder, on bytes in memory and on a simulated disk alike.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::segment::segment_first;

/// Random access to one segment file.
pub trait ReadAt {
    fn size_bytes(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`; an end of file before is an error.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Asked about a group at the end that is not whole: waits a little and gives true if it may be whole then, because
    /// somebody may be writing it. `tries` counts from 0.
    fn settle(&self, tries: u32) -> bool {
        let _ = tries;
        false
    }
}

/// The folder with the segment files.
pub trait LogSource {
    type Segment: ReadAt;
    /// Names of all files, in any order; what does not end in `.seg` is passed over.
    fn names(&self) -> io::Result<Vec<String>>;
    fn open(&self, name: &str) -> io::Result<Self::Segment>;
}

impl ReadAt for [u8] {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = from.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size_bytes(&self) -> io::Result<u64> {
        self.as_slice().size_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        ReadAt::read_exact_at(self.as_slice(), offset, buffer)
    }
}

impl ReadAt for File {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl<R: ReadAt + ?Sized> ReadAt for &R {
    fn size_bytes(&self) -> io::Result<u64> {
        (**self).size_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_exact_at(offset, buffer)
    }

    fn settle(&self, tries: u32) -> bool {
        (**self).settle(tries)
    }
}

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct LogFolder(PathBuf);

impl LogFolder {
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self(folder.as_ref().to_owned())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for file in std::fs::read_dir(&self.0)? {
            // A name that is not UTF-8 is none of ours and would not parse either.
            names.push(file?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }
}

impl LogSource for LogFolder {
    type Segment = File;

    /// A folder is not listed in one moment: of two segments that are begun meanwhile, the later one may be seen alone. Up
    /// to the last one that a first look sees, a second one misses none.
    fn names(&self) -> io::Result<Vec<String>> {
        let is_segment = |name: &String| segment_first(name).is_some();
        let newest = self.list()?.into_iter().filter(is_segment).max();
        let mut names = self.list()?;
        names.retain(|name| !is_segment(name) || Some(name) <= newest.as_ref());
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        File::open(self.0.join(name))
    }
}

impl LogSource for BTreeMap<String, Vec<u8>> {
    type Segment = Vec<u8>;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Vec<u8>> {
        self.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
