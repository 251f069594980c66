//! Content-addressed images: `blake3-<hex>` in one folder, never changed once they have their name.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use base::Hash;
use tokio::sync::mpsc;

use crate::core::{ProcessError, limits::IMAGE_BYTES_MAX};

/// What an unfinished image is called; left ones are removed at start.
const UNFINISHED: &str = ".unfinished-";

/// A piece of an image that is being put; nothing after `None`. Without it, the image was not sent whole.
pub(super) type Piece = Option<Vec<u8>>;

/// A file as it was when it was hashed. Its owner can set the modification time but not the time of change, so a file
/// with the same stamp has the same content, as long as nobody turns the machine's clock back to hide a change; who can
/// do that can write this service's memory too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let data = file.metadata()?;
        Ok(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct Images {
    folder: Arc<PathBuf>,
    hashed: Arc<Mutex<HashMap<Hash, Stamp>>>,
    counter: Arc<std::sync::atomic::AtomicU64>,
    /// Held while a file gets its name: one that has it keeps it, for a program may be starting from it.
    naming: Arc<Mutex<()>>,
}

impl Images {
    pub(super) fn open_folder(folder: &Path) -> io::Result<Self> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        // As root, programs have another host uid than this service and their mounts are made with it: they pass
        // through by name. Nobody else gets here, the folder above is closed.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
        Ok(Self {
            folder: Arc::new(folder.to_owned()),
            hashed: Arc::default(),
            counter: Arc::default(),
            naming: Arc::default(),
        })
    }

    fn path(&self, hash: &Hash) -> PathBuf {
        self.folder.join(format!("blake3-{}", hash.to_hex()))
    }

    fn remember(&self, hash: Hash, stamp: Stamp) {
        self.hashed.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, stamp);
    }

    fn known(&self, hash: &Hash) -> Option<Stamp> {
        self.hashed.lock().unwrap_or_else(PoisonError::into_inner).get(hash).copied()
    }

    /// The image, opened, and the same content as when it was named (PRC-09). `unpinned` leaves the comparison out.
    pub(super) async fn open(&self, hash: Hash, unpinned: bool) -> Result<File, ProcessError> {
        let images = self.clone();
        let opened = tokio::task::spawn_blocking(move || images.open_now(hash, unpinned)).await;
        opened.unwrap_or_else(|error| Err(ProcessError::Internal(error.to_string())))
    }

    fn open_now(&self, hash: Hash, unpinned: bool) -> Result<File, ProcessError> {
        let invalid = |text: String| ProcessError::InvalidImage { image: hash, text };
        let file = match File::open(self.path(&hash)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ProcessError::ImageNotFound(hash));
            }
            Err(error) => return Err(invalid(error.to_string())),
        };
        let stamp = Stamp::of(&file).map_err(|error| invalid(error.to_string()))?;
        if unpinned || self.known(&hash) == Some(stamp) {
            return Ok(file);
        }
        let found = Hash::of_reader(&file).map_err(|error| invalid(error.to_string()))?;
        if found != hash {
            return Err(invalid(format!("its content is {found}: it was altered after it was put")));
        }
        // Changed while it was read: the next start hashes it again.
        if Stamp::of(&file).is_ok_and(|after| after == stamp) {
            self.remember(hash, stamp);
        }
        Ok(file)
    }

    /// Takes an image over, piece by piece. Durable when this answers.
    pub(super) async fn put(&self, pieces: mpsc::Receiver<Piece>) -> Result<(Hash, u64), ProcessError> {
        let images = self.clone();
        let put = tokio::task::spawn_blocking(move || images.put_now(pieces)).await;
        put.unwrap_or_else(|error| Err(ProcessError::Internal(error.to_string())))
    }

    fn put_now(&self, pieces: mpsc::Receiver<Piece>) -> Result<(Hash, u64), ProcessError> {
        let number = self.counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let unfinished = self.folder.join(format!("{UNFINISHED}{number}"));
        let result = self.write(&unfinished, pieces);
        if result.is_err() {
            // What is left of it is removed at the next start.
            let _ = fs::remove_file(&unfinished);
        }
        result
    }

    fn write(
        &self,
        unfinished: &Path,
        mut pieces: mpsc::Receiver<Piece>,
    ) -> Result<(Hash, u64), ProcessError> {
        let failed = |error: io::Error| ProcessError::Internal(format!("storing an image: {error}"));
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished).map_err(failed)?;
        let (mut hasher, mut size) = (blake3::Hasher::new(), 0u64);
        loop {
            let cut = || ProcessError::invalid("data", "the stream was cut before its end");
            let Some(piece) = pieces.blocking_recv().ok_or_else(cut)? else { break };
            size += piece.len() as u64;
            if size > IMAGE_BYTES_MAX {
                return Err(ProcessError::invalid(
                    "data",
                    format!("an image has at most {IMAGE_BYTES_MAX} bytes"),
                ));
            }
            hasher.update(&piece);
            file.write_all(&piece).map_err(failed)?;
        }
        if size == 0 {
            return Err(ProcessError::invalid("data", "an image has at least one byte"));
        }
        let hash = Hash(*hasher.finalize().as_bytes());
        self.name(&file, unfinished, hash).map_err(failed)?;
        Ok((hash, size))
    }

    /// Gives a file that is whole its name, durably, unless one has it already.
    fn name(&self, file: &File, unfinished: &Path, hash: Hash) -> io::Result<()> {
        let is_there = || self.open_now(hash, false).is_ok();
        if is_there() {
            return fs::remove_file(unfinished);
        }
        // Who looks at an input's times learns nothing.
        file.set_modified(std::time::UNIX_EPOCH)?;
        file.set_permissions(fs::Permissions::from_mode(0o555))?;
        file.sync_all()?;
        let naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        // Once more: somebody else may have put the same meanwhile.
        if is_there() {
            return fs::remove_file(unfinished);
        }
        fs::rename(unfinished, self.path(&hash))?;
        File::open(&*self.folder).and_then(|folder| folder.sync_all())?;
        self.remember(hash, Stamp::of(file)?);
        drop(naming);
        Ok(())
    }

    /// Takes over what can be read here: an output, a manifest, a receipt. It may be empty, and has at most `bytes_max`.
    pub(super) fn keep(&self, content: impl io::Read, bytes_max: u64) -> io::Result<(Hash, u64)> {
        let number = self.counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let unfinished = self.folder.join(format!("{UNFINISHED}{number}"));
        let kept = self.copy(content, &unfinished, bytes_max);
        if kept.is_err() {
            // What is left of it is removed at the next start.
            let _ = fs::remove_file(&unfinished);
        }
        kept
    }

    fn copy(&self, content: impl io::Read, unfinished: &Path, bytes_max: u64) -> io::Result<(Hash, u64)> {
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(unfinished)?;
        let size = io::copy(&mut content.take(bytes_max.saturating_add(1)), &mut file)?;
        if size > bytes_max {
            return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
        }
        file.seek(io::SeekFrom::Start(0))?;
        let hash = Hash::of_reader(&file)?;
        self.name(&file, unfinished, hash)?;
        Ok((hash, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(images: &Images, pieces: &[&[u8]]) -> Result<(Hash, u64), ProcessError> {
        let (send, receive) = mpsc::channel(16);
        for piece in pieces {
            send.send(Some(piece.to_vec())).await.unwrap();
        }
        send.send(None).await.unwrap();
        images.put(receive).await
    }

    /// Programs start from the first one's file while the others are still being put.
    #[tokio::test(flavor = "multi_thread", worker_threads = 8)]
    async fn who_puts_the_same_at_the_same_time_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::open_folder(folder.path()).unwrap();
        for round in 0..20_u8 {
            let tasks = (0..8).map(|_| {
                let images = images.clone();
                tokio::spawn(async move {
                    let (hash, _) = put(&images, &[&[round + 1; 4096]]).await.unwrap();
                    fs::metadata(images.path(&hash)).unwrap().ino()
                })
            });
            let mut seen = std::collections::BTreeSet::new();
            for task in tasks.collect::<Vec<_>>() {
                seen.insert(task.await.unwrap());
            }
            assert_eq!(seen.len(), 1, "round {round}");
        }
    }

    /// covers: PRC-09
    #[tokio::test]
    async fn an_image_is_what_its_name_says_or_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::open_folder(folder.path()).unwrap();
        let (hash, size) = put(&images, &[b"#!/bin/sh\n", b"echo hello\n"]).await.unwrap();
        assert_eq!((hash, size), (Hash::of(b"#!/bin/sh\necho hello\n"), 21));
        assert_eq!(put(&images, &[b"#!/bin/sh\necho hello\n"]).await.unwrap().0, hash);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        images.open(hash, false).await.unwrap();
        let missing = Hash::of(b"another");
        assert_eq!(images.open(missing, false).await.unwrap_err(), ProcessError::ImageNotFound(missing));
        let path = images.path(&hash);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&path, "#!/bin/sh\necho HELLO\n").unwrap();
        let altered = images.open(hash, false).await.unwrap_err();
        assert!(matches!(altered, ProcessError::InvalidImage { .. }), "{altered}");
        assert!(images.open(hash, true).await.is_ok(), "the defence was switched off");
        let (again, _) = put(&images, &[b"#!/bin/sh\necho hello\n"]).await.unwrap();
        assert_eq!(again, hash);
        images.open(hash, false).await.unwrap();
    }

    #[tokio::test]
    async fn an_unfinished_or_empty_image_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(format!("{UNFINISHED}3")), "x").unwrap();
        let images = Images::open_folder(folder.path()).unwrap();
        assert!(matches!(put(&images, &[]).await, Err(ProcessError::Invalid { .. })));
        let (send, receive) = mpsc::channel(16);
        send.send(Some(b"half".to_vec())).await.unwrap();
        drop(send);
        assert!(matches!(images.put(receive).await, Err(ProcessError::Invalid { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
