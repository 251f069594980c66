use std::{fmt, io};

use thiserror::Error;

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Open,
    Create,
    CreateDir,
    List,
    Length,
    Read,
    Write,
    Zero,
    Sync,
    Rename,
    Remove,
    SyncDir,
    Lock,
    Forget,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::CreateDir => "create folder",
            Self::List => "list",
            Self::Length => "read the length of",
            Self::Read => "read",
            Self::Write => "write",
            Self::Zero => "fill with zeros",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::SyncDir => "sync folder",
            Self::Lock => "lock",
            Self::Forget => "drop from the page cache",
        })
    }
}

#[derive(Debug, Error)]
pub enum DiskError {
    #[error("cannot {operation} {name}")]
    Failed {
        operation: Operation,
        name: String,
        #[source]
        source: io::Error,
    },
    /// It may have happened or not. End, and read the disk again.
    #[error("cannot {operation} {name}, and it may have happened in part: stop and recover from the disk")]
    Uncertain {
        operation: Operation,
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("{name} is locked: another process writes here")]
    Locked { name: String },
}

impl DiskError {
    /// The error of an operation; those that change the disk leave it unknown how far they came.
    #[must_use]
    pub fn new(operation: Operation, name: &str, source: io::Error) -> Self {
        let name = name.to_owned();
        match operation {
            Operation::Write
            | Operation::Sync
            | Operation::Rename
            | Operation::SyncDir
            | Operation::Remove => Self::Uncertain { operation, name, source },
            _ => Self::Failed { operation, name, source },
        }
    }

    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Failed { source, .. } | Self::Uncertain { source, .. } => source.kind(),
            Self::Locked { .. } => io::ErrorKind::WouldBlock,
        }
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }

    /// No space or no quota is left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// A folder and what is in it. Names are relative, with `/` between folder and file.
pub trait Disk: Clone + Send + Sync + 'static {
    type File: DiskFile;
    /// Held while it lives.
    type Lock: Send + 'static;

    /// Opens an existing file to read and write.
    fn open(&self, name: &str) -> Result<Self::File, DiskError>;
    /// True while `name` still leads to this open file; not once it was removed, replaced or its folder was.
    fn holds(&self, name: &str, file: &Self::File) -> Result<bool, DiskError>;
    /// Makes a new file; one that exists is an error.
    fn create(&self, name: &str) -> Result<Self::File, DiskError>;
    /// Makes a folder unless it is there. Durable after `sync_dir` of its parent.
    fn create_dir(&self, name: &str) -> Result<(), DiskError>;
    /// Names of the files in a folder, in any order.
    fn list(&self, folder: &str) -> Result<Vec<String>, DiskError>;
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
    fn remove(&self, name: &str) -> Result<(), DiskError>;
    /// Makes creation, renaming and removal in a folder durable; "" is the disk's own folder.
    fn sync_dir(&self, folder: &str) -> Result<(), DiskError>;
    /// Takes the single-writer lock or fails at once (AX-15).
    fn lock(&self, name: &str) -> Result<Self::Lock, DiskError>;
}

/// One open file.
pub trait DiskFile: Send + Sync + 'static {
    fn size_bytes(&self) -> Result<u64, DiskError>;
    /// Fills `buffer` from `offset`; an end of file before is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Content written so far survives a power cut once this answers `Ok`.
    fn sync_data(&self) -> Result<(), DiskError>;
    /// Gives the file this length, all of it zeros that are written and synced.
    fn zero(&self, size_bytes: u64) -> Result<(), DiskError>;
}
