//! A stock of files that are already full of zeros, so that beginning a segment never waits for the disk.

use std::sync::{
    Arc, Condvar, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use thiserror::Error;

use crate::disk::{Disk, DiskError, DiskFile};

/// Spare files of one pool: more would only hold space.
pub const POOL_FILES_MAX: usize = 16;

#[derive(Debug, Error)]
pub enum PoolError {
    #[error("a pool keeps 1 to {POOL_FILES_MAX} files, not {0}")]
    Size(usize),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the thread that fills the pool cannot be started")]
    Thread(#[source] std::io::Error),
}

/// Zeroed files of one length in one folder.
pub struct Pool<D: Disk> {
    shared: Arc<Shared<D>>,
    filler: Option<std::thread::JoinHandle<()>>,
}

struct Shared<D: Disk> {
    disk: D,
    folder: String,
    size_bytes: u64,
    files: usize,
    state: Mutex<State>,
    changed: Condvar,
    next_name: AtomicU64,
}

#[derive(Default)]
struct State {
    ready: Vec<String>,
    /// Files with old content, to be zeroed again.
    used: Vec<String>,
    stop: bool,
    /// The last thing that went wrong in the background; filling stops until the next `take`.
    failed: bool,
}

impl<D: Disk> Pool<D> {
    /// Keeps `files` spare files of `size_bytes` in `folder`. What lies there from before is zeroed again, as nobody
    /// knows how far it was used. `in_background` starts the thread that fills; without it only `take` and `fill_one` do.
    pub fn open(
        disk: &D,
        folder: &str,
        size_bytes: u64,
        files: usize,
        in_background: bool,
    ) -> Result<Self, PoolError> {
        if files == 0 || files > POOL_FILES_MAX {
            return Err(PoolError::Size(files));
        }
        disk.create_dir(folder)?;
        let mut used: Vec<String> =
            disk.list(folder)?.into_iter().map(|name| format!("{folder}/{name}")).collect();
        used.sort_unstable();
        for extra in used.split_off(used.len().min(files)) {
            disk.remove(&extra)?;
        }
        let next =
            used.iter().filter_map(|name| number_of(name)).max().map_or(0, |last| last.saturating_add(1));
        let shared = Arc::new(Shared {
            disk: disk.clone(),
            folder: folder.to_owned(),
            size_bytes,
            files,
            state: Mutex::new(State { used, ..State::default() }),
            changed: Condvar::new(),
            next_name: AtomicU64::new(next),
        });
        let filler = if in_background {
            let shared = Arc::clone(&shared);
            let thread =
                std::thread::Builder::new().name("pool".into()).spawn(move || shared.fill_for_ever());
            Some(thread.map_err(PoolError::Thread)?)
        } else {
            None
        };
        Ok(Self { shared, filler })
    }

    /// A file full of zeros: a spare one, or one made while the caller waits, from an old one where there is one: on a
    /// full disk that is the only space left. The caller renames it away.
    pub fn take(&self) -> Result<(D::File, String), DiskError> {
        let (spare, used) = {
            let mut state = self.shared.lock();
            state.failed = false;
            let spare = state.ready.pop();
            let used = if spare.is_none() { state.used.pop() } else { None };
            (spare, used)
        };
        let taken = match (spare, used) {
            (Some(name), _) => self.shared.disk.open(&name).map(|file| (file, name)),
            (None, Some(name)) => self.shared.zero_again(name),
            (None, None) => self.shared.make(),
        };
        // Not before: the filler would take the same space.
        self.shared.changed.notify_all();
        taken
    }

    /// Takes back a file with old content that nobody needs any more: it is renamed into the pool and zeroed again.
    pub fn recycle(&self, name: &str) -> Result<(), DiskError> {
        let spare = self.shared.new_name();
        self.shared.disk.rename(name, &spare)?;
        self.shared.lock().used.push(spare);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Makes one spare file ready. False when the pool is full.
    pub fn fill_one(&self) -> Result<bool, DiskError> {
        self.shared.fill_one()
    }

    /// Files that are ready now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.shared.lock().ready.len()
    }
}

impl<D: Disk> Drop for Pool<D> {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(filler) = self.filler.take() {
            // A filler that panicked has nothing to hand over.
            let _ = filler.join();
        }
    }
}

fn number_of(name: &str) -> Option<u64> {
    name.rsplit_once('/')?.1.strip_suffix(".zero")?.parse().ok()
}

impl<D: Disk> Shared<D> {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change of the state is one assignment or push, so it is sound after a panic too.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_name(&self) -> String {
        format!("{}/{:08}.zero", self.folder, self.next_name.fetch_add(1, Ordering::Relaxed))
    }

    /// Full of zeros, and its name durable before anybody renames it: else a power cut could leave the file under both
    /// names, and the next start would zero a segment for a spare file.
    fn ready_to_rename(&self, file: &D::File) -> Result<(), DiskError> {
        file.zero(self.size_bytes)?;
        self.disk.sync_dir(&self.folder)
    }

    fn make(&self) -> Result<(D::File, String), DiskError> {
        let name = self.new_name();
        let file = self.disk.create(&name)?;
        match self.ready_to_rename(&file) {
            Ok(()) => Ok((file, name)),
            Err(error) => {
                // Gives the space back; the first error is the one that tells.
                let _ = self.disk.remove(&name);
                Err(error)
            }
        }
    }

    /// Zeroes a file with old content; one that cannot be is given back to the disk.
    fn zero_again(&self, name: String) -> Result<(D::File, String), DiskError> {
        let zeroed = self.disk.open(&name).and_then(|file| self.ready_to_rename(&file).map(|()| file));
        match zeroed {
            Ok(file) => Ok((file, name)),
            Err(error) => {
                let _ = self.disk.remove(&name);
                Err(error)
            }
        }
    }

    fn fill_one(&self) -> Result<bool, DiskError> {
        let used = {
            let mut state = self.lock();
            if state.ready.len() >= self.files {
                let Some(extra) = state.used.pop() else { return Ok(false) };
                drop(state);
                self.disk.remove(&extra)?;
                return Ok(true);
            }
            state.used.pop()
        };
        let name = match used {
            Some(name) => self.zero_again(name)?.1,
            None => self.make()?.1,
        };
        self.lock().ready.push(name);
        Ok(true)
    }

    fn fill_for_ever(&self) {
        loop {
            let mut state = self.lock();
            while !state.stop && (state.failed || state.ready.len() >= self.files && state.used.is_empty()) {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            drop(state);
            if self.fill_one().is_err() {
                self.lock().failed = true;
            }
        }
    }
}
