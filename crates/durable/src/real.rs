use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};

use crate::disk::{Disk, DiskError, DiskFile, Operation};

/// Zeros written by one call: large enough that calls cost nothing, small enough to stay in the cache.
const ZERO_STEP_BYTES: usize = 1024 * 1024;
/// Files of the store are for its own user only.
const FILE_MODE: u32 = 0o600;
/// Files that are published are for everybody to read.
const PUBLIC_FILE_MODE: u32 = 0o644;

/// A folder of the machine.
#[derive(Clone, Debug)]
pub struct RealDisk {
    folder: Arc<Path>,
    file_mode: u32,
}

impl RealDisk {
    /// Makes the folder itself if its parent is there.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, DiskError> {
        let folder = folder.as_ref();
        match std::fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(DiskError::new(Operation::CreateDir, &folder.display().to_string(), error))
            }
            _ => Ok(Self { folder: folder.into(), file_mode: FILE_MODE }),
        }
    }

    /// The same folder, with files that everybody may read; for a web server.
    #[must_use]
    pub fn public(self) -> Self {
        Self { file_mode: PUBLIC_FILE_MODE, ..self }
    }

    /// A name is a file of this folder, never a link to another: the folder may be writable by somebody who is trusted less.
    fn read_write(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(self.file_mode);
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        options
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.folder.to_path_buf() } else { self.folder.join(name) }
    }

    fn file(&self, name: &str, operation: Operation, options: &OpenOptions) -> Result<RealFile, DiskError> {
        let file = options.open(self.path(name)).map_err(|error| DiskError::new(operation, name, error))?;
        Ok(RealFile { file, name: name.into() })
    }
}

impl Disk for RealDisk {
    type File = RealFile;
    type Lock = RealLock;

    fn open(&self, name: &str) -> Result<RealFile, DiskError> {
        self.file(name, Operation::Open, &self.read_write())
    }

    fn holds(&self, name: &str, file: &RealFile) -> Result<bool, DiskError> {
        let wrap = |error| DiskError::new(Operation::Length, name, error);
        let own = file.file.metadata().map_err(wrap)?;
        match std::fs::symlink_metadata(self.path(name)) {
            Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(wrap(error)),
        }
    }

    fn create(&self, name: &str) -> Result<RealFile, DiskError> {
        self.file(name, Operation::Create, self.read_write().create_new(true))
    }

    fn create_dir(&self, name: &str) -> Result<(), DiskError> {
        match std::fs::create_dir(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(DiskError::new(Operation::CreateDir, name, error))
            }
            _ => Ok(()),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        let wrap = |error| DiskError::new(Operation::List, folder, error);
        let mut names = Vec::new();
        for file in std::fs::read_dir(self.path(folder)).map_err(wrap)? {
            names.push(file.map_err(wrap)?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        std::fs::rename(self.path(from), self.path(to))
            .map_err(|error| DiskError::new(Operation::Rename, from, error))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        std::fs::remove_file(self.path(name)).map_err(|error| DiskError::new(Operation::Remove, name, error))
    }

    fn sync_dir(&self, folder: &str) -> Result<(), DiskError> {
        let sync = || File::open(self.path(folder))?.sync_all();
        sync().map_err(|error| DiskError::new(Operation::SyncDir, folder, error))
    }

    fn lock(&self, name: &str) -> Result<RealLock, DiskError> {
        let file = self.file(name, Operation::Lock, self.read_write().create(true).truncate(false))?;
        match rustix::fs::flock(&file.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(RealLock { _file: file.file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DiskError::Locked { name: name.to_owned() }),
            Err(error) => Err(DiskError::new(Operation::Lock, name, error.into())),
        }
    }
}

/// The lock falls with the descriptor, so also with the process.
#[derive(Debug)]
pub struct RealLock {
    _file: File,
}

#[derive(Debug)]
pub struct RealFile {
    file: File,
    name: Box<str>,
}

impl RealFile {
    /// A file that another process opened and handed over.
    #[must_use]
    pub fn from_file(file: File, name: &str) -> Self {
        Self { file, name: name.into() }
    }

    /// Has the kernel forget what it holds of the file: whoever reads it then reads what the disk holds. Only what is synced
    /// is forgotten.
    pub fn forget_cached(&self) -> Result<(), DiskError> {
        rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)
            .map_err(|error| self.wrap(Operation::Forget)(error.into()))
    }

    fn wrap(&self, operation: Operation) -> impl Fn(io::Error) -> DiskError + '_ {
        move |error| DiskError::new(operation, &self.name, error)
    }
}

impl DiskFile for RealFile {
    fn size_bytes(&self) -> Result<u64, DiskError> {
        Ok(self.file.metadata().map_err(self.wrap(Operation::Length))?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_exact_at(buffer, offset).map_err(self.wrap(Operation::Read))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_all_at(bytes, offset).map_err(self.wrap(Operation::Write))
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(self.wrap(Operation::Sync))
    }

    fn zero(&self, size_bytes: u64) -> Result<(), DiskError> {
        let wrap = self.wrap(Operation::Zero);
        // Blocks that the file has are kept: on a full disk somebody else would take them.
        if self.size_bytes()? > size_bytes {
            self.file.set_len(size_bytes).map_err(&wrap)?;
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, size_bytes) {
            // Some file systems cannot; writing allocates too.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(wrap(error.into())),
        }
        let zeros = vec![0; ZERO_STEP_BYTES];
        let mut at = 0_u64;
        while at < size_bytes {
            let step = usize::try_from(size_bytes.saturating_sub(at))
                .unwrap_or(ZERO_STEP_BYTES)
                .min(ZERO_STEP_BYTES);
            self.file.write_all_at(zeros.get(..step).unwrap_or_default(), at).map_err(&wrap)?;
            at = at.saturating_add(step as u64);
        }
        self.file.sync_all().map_err(&wrap)
    }
}
