//! A disk that keeps only what was synced.
//!
//! Between two syncs each 512-byte sector may be on the platter in any version that was written, whatever the others
//! did: so writes are dropped, torn and reordered. Creation, renaming and removal of files wait for `sync_dir`. After a
//! failed sync the kernel holds pages that look clean and never reach the disk; the model does too.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use durable::{Disk, DiskError, DiskFile, Operation};

use crate::random::Random;

const SECTOR_BYTES: usize = 512;

/// What goes wrong at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine stops inside the operation; everything later fails.
    PowerCut,
    /// The operation fails and did nothing.
    Failed,
    /// The operation fails, and happened all the same.
    FailedButHappened,
}

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Versions of each sector since the last sync.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Content>,
    next_file: u64,
    durable_names: BTreeMap<String, u64>,
    names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
    locks: Vec<String>,
    step: u64,
    plan: Option<(u64, Fault)>,
    dead: bool,
    /// Syncs are answered and not done.
    lies: bool,
    random: Option<Random>,
}

/// Shared by all its clones.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let disk = Self::default();
        disk.lock_state().random = Some(Random::new(seed));
        disk
    }

    /// At the `step`th change from now, counted from 0, this goes wrong.
    pub fn plan(&self, step: u64, fault: Fault) {
        let mut state = self.lock_state();
        state.plan = Some((state.step.saturating_add(step), fault));
    }

    pub fn no_plan(&self) {
        self.lock_state().plan = None;
    }

    /// From now on syncs are answered and not done.
    pub fn lie(&self) {
        self.lock_state().lies = true;
    }

    /// The power is gone.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.lock_state().dead
    }

    /// Changes so far: writes, syncs, creations, renamings, removals.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.lock_state().step
    }

    /// The process is gone, the machine runs on: locks fall, what was written stays visible.
    pub fn restart_process(&self) {
        let mut state = self.lock_state();
        state.locks.clear();
        state.plan = None;
    }

    /// The power was cut and is back: only what reached the platter is left, by the random choice of the seed.
    pub fn restart_machine(&self) {
        let mut state = self.lock_state();
        state.locks.clear();
        state.plan = None;
        state.dead = false;
        state.forget_unsynced();
    }

    /// What stands on the disk now, by name; for audits.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.lock_state();
        let content =
            |file: &u64| state.files.get(file).map(|content| content.current.clone()).unwrap_or_default();
        state.names.iter().map(|(name, file)| (name.clone(), content(file))).collect()
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one change, carries it out as far as the plan lets it.
    fn change(
        &self,
        operation: Operation,
        name: &str,
        act: impl FnOnce(&mut State),
    ) -> Result<(), DiskError> {
        let mut state = self.lock_state();
        let error = || DiskError::new(operation, name, io::Error::other("simulated"));
        if state.dead {
            return Err(error());
        }
        let step = state.step;
        state.step = step.saturating_add(1);
        match state.plan.filter(|(planned, _)| *planned == step).map(|(_, fault)| fault) {
            None => {
                act(&mut state);
                Ok(())
            }
            Some(Fault::PowerCut) => {
                // A sync that was under way has done nothing for certain; a write or renaming may still be in flight.
                if !matches!(operation, Operation::Sync | Operation::SyncDir | Operation::Zero) {
                    act(&mut state);
                }
                state.dead = true;
                Err(error())
            }
            Some(Fault::Failed) => {
                if operation == Operation::Sync {
                    state.forget_dirty(name);
                }
                Err(error())
            }
            Some(Fault::FailedButHappened) => {
                act(&mut state);
                Err(error())
            }
        }
    }
}

impl State {
    fn content(&mut self, file: u64) -> &mut Content {
        self.files.entry(file).or_default()
    }

    /// The kernel told the error once and takes the pages for clean from here on.
    fn forget_dirty(&mut self, name: &str) {
        if let Some(file) = self.names.get(name).copied() {
            self.content(file).dirty.clear();
        }
    }

    fn sync_names(&mut self, folder: &str) {
        let inside = |name: &str| folder_of(name) == folder;
        let (ready, rest): (Vec<_>, Vec<_>) = self.pending_names.drain(..).partition(|change| match change {
            NameChange::Add(name, _) | NameChange::Remove(name) => inside(name),
            NameChange::Rename(from, to, _) => inside(from) || inside(to),
        });
        self.pending_names = rest;
        ready.iter().for_each(|change| apply(&mut self.durable_names, change));
    }

    fn forget_unsynced(&mut self) {
        let mut random = self.random.clone().unwrap_or_else(|| Random::new(0));
        let changes = std::mem::take(&mut self.pending_names);
        // A journal keeps a prefix; a disk without one any subset.
        let prefix = random.coin().then(|| random.below(changes.len() as u64 + 1) as usize);
        for (at, change) in changes.iter().enumerate() {
            if prefix.map_or_else(|| random.coin(), |prefix| at < prefix) {
                apply(&mut self.durable_names, change);
            }
        }
        self.names = self.durable_names.clone();
        for content in self.files.values_mut() {
            for (sector, versions) in std::mem::take(&mut content.dirty) {
                let chosen = random.below(versions.len() as u64 + 1) as usize;
                if let Some(version) = versions.get(chosen) {
                    put(&mut content.durable, sector.saturating_mul(SECTOR_BYTES), version);
                }
            }
            content.current = content.durable.clone();
        }
        self.random = Some(random);
    }
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn apply(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Add(name, file) => {
            names.insert(name.clone(), *file);
        }
        NameChange::Rename(from, to, file) => {
            if names.get(from) == Some(file) {
                names.remove(from);
            }
            names.insert(to.clone(), *file);
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

/// Writes into a buffer that grows as a file does.
fn put(bytes: &mut Vec<u8>, at: usize, content: &[u8]) {
    let end = at.saturating_add(content.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(place) = bytes.get_mut(at..end) {
        place.copy_from_slice(content);
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn open(&self, name: &str) -> Result<SimFile, DiskError> {
        let state = self.lock_state();
        match state.names.get(name) {
            Some(file) if !state.dead => {
                Ok(SimFile { disk: self.clone(), file: *file, name: name.to_owned() })
            }
            _ => Err(DiskError::new(Operation::Open, name, io::ErrorKind::NotFound.into())),
        }
    }

    fn holds(&self, name: &str, file: &SimFile) -> Result<bool, DiskError> {
        Ok(self.lock_state().names.get(name) == Some(&file.file))
    }

    fn create(&self, name: &str) -> Result<SimFile, DiskError> {
        if self.lock_state().names.contains_key(name) {
            return Err(DiskError::new(Operation::Create, name, io::ErrorKind::AlreadyExists.into()));
        }
        let mut made = 0;
        self.change(Operation::Create, name, |state| {
            made = state.next_file;
            state.next_file = made.saturating_add(1);
            state.names.insert(name.to_owned(), made);
            state.pending_names.push(NameChange::Add(name.to_owned(), made));
        })?;
        Ok(SimFile { disk: self.clone(), file: made, name: name.to_owned() })
    }

    fn create_dir(&self, _name: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        let state = self.lock_state();
        let inside = state.names.keys().filter(|name| folder_of(name) == folder);
        Ok(inside.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.change(Operation::Rename, from, |state| {
            if let Some(file) = state.names.remove(from) {
                state.names.insert(to.to_owned(), file);
                state.pending_names.push(NameChange::Rename(from.to_owned(), to.to_owned(), file));
            }
        })
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.change(Operation::Remove, name, |state| {
            state.names.remove(name);
            state.pending_names.push(NameChange::Remove(name.to_owned()));
        })
    }

    fn sync_dir(&self, folder: &str) -> Result<(), DiskError> {
        self.change(Operation::SyncDir, folder, |state| state.sync_names(folder))
    }

    fn lock(&self, name: &str) -> Result<SimLock, DiskError> {
        let mut state = self.lock_state();
        if state.locks.iter().any(|lock| lock == name) {
            return Err(DiskError::Locked { name: name.to_owned() });
        }
        state.locks.push(name.to_owned());
        Ok(SimLock { disk: self.clone(), name: name.to_owned() })
    }
}

pub struct SimLock {
    disk: SimDisk,
    name: String,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock_state().locks.retain(|lock| *lock != self.name);
    }
}

pub struct SimFile {
    disk: SimDisk,
    file: u64,
    name: String,
}

impl DiskFile for SimFile {
    fn size_bytes(&self) -> Result<u64, DiskError> {
        Ok(self.disk.lock_state().content(self.file).current.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let mut state = self.disk.lock_state();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = state.content(self.file).current.get(from..from.saturating_add(buffer.len()));
        match bytes {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(DiskError::new(Operation::Read, &self.name, io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.change(Operation::Write, &self.name, |state| {
            let content = state.content(self.file);
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            put(&mut content.current, from, bytes);
            let sectors = from / SECTOR_BYTES..from.saturating_add(bytes.len()).div_ceil(SECTOR_BYTES);
            for sector in sectors {
                let at = sector.saturating_mul(SECTOR_BYTES);
                let end = at.saturating_add(SECTOR_BYTES).min(content.current.len());
                let version = content.current.get(at..end).unwrap_or_default().to_vec();
                content.dirty.entry(sector).or_default().push(version);
            }
        })
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.disk.change(Operation::Sync, &self.name, |state| {
            if state.lies {
                return;
            }
            let content = state.content(self.file);
            for (sector, versions) in std::mem::take(&mut content.dirty) {
                if let Some(version) = versions.last() {
                    put(&mut content.durable, sector.saturating_mul(SECTOR_BYTES), version);
                }
            }
        })
    }

    fn zero(&self, size_bytes: u64) -> Result<(), DiskError> {
        self.disk.change(Operation::Zero, &self.name, |state| {
            let zeros = vec![0; usize::try_from(size_bytes).unwrap_or(0)];
            let content = state.content(self.file);
            *content = Content { durable: zeros.clone(), current: zeros, dirty: BTreeMap::new() };
        })
    }
}
