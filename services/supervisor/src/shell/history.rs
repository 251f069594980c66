//! Where the generations of the configuration lie: the list of changes, and each manifest's text under its hash.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::UNIX_EPOCH,
};

use base::{Hash, layout::Layout};
use durable::{DiskError, RealDisk};

use super::sockets;
use crate::{core::generations::Generations, manifest::limits::MANIFEST_BYTES_MAX};

const LIST: &str = "changes.json";
/// Bytes of the list: [`CHANGES_MAX`](crate::core::generations::CHANGES_MAX) changes and as many services below them.
const LIST_BYTES_MAX: usize = 1024 * 1024;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct History {
    folder: PathBuf,
    /// None until it was read.
    generations: Arc<Mutex<Option<Generations>>>,
}

impl History {
    pub(super) fn new(layout: &Layout) -> Self {
        let folder = layout.service_state(sockets::SUPERVISOR).join("generations");
        Self { folder, generations: Arc::default() }
    }

    fn disk(&self) -> Result<RealDisk, String> {
        let made = sockets::make_folder(&self.folder).map_err(|error| error.to_string());
        made.and_then(|()| RealDisk::open(&self.folder).map_err(|error| error.to_string()))
    }

    fn loaded(&self) -> Result<MutexGuard<'_, Option<Generations>>, String> {
        let mut held = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            let read = durable::read_small(&self.disk()?, LIST, LIST_BYTES_MAX).map_err(unreadable)?;
            let known = match read {
                Some(bytes) => serde_json::from_slice(&bytes).map_err(unreadable)?,
                None => Generations::default(),
            };
            *held = Some(known);
        }
        Ok(held)
    }

    /// A service has a manifest, or none any more. Its text is on the disk before the list names it.
    pub(super) fn add(&self, service: &str, text: Option<&str>) -> Result<(), String> {
        let time_ms = kit::wall_time().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let mut held = self.loaded()?;
        let Some(known) = held.as_ref() else { return Ok(()) };
        let mut next = known.clone();
        let manifest = text.map(|text| Hash::of(text.as_bytes()));
        if !next.add(u64::try_from(time_ms).unwrap_or(0), service, manifest) {
            return Ok(());
        }
        let disk = self.disk()?;
        let failed = |error: DiskError| error.to_string();
        if let (Some(text), Some(hash)) = (text, manifest) {
            durable::replace(&disk, &file(&hash), &[text.as_bytes()]).map_err(failed)?;
        }
        let list = serde_json::to_vec(&next).map_err(|error| error.to_string())?;
        durable::replace(&disk, LIST, &[&list]).map_err(failed)?;
        self.forget_unneeded(known, &next);
        *held = Some(next);
        Ok(())
    }

    /// Texts that only the change which was folded away needed.
    fn forget_unneeded(&self, before: &Generations, after: &Generations) {
        let oldest = before.changes().next().and_then(|change| before.at(change.number.saturating_sub(1)));
        for hash in oldest.iter().flat_map(|state| state.values()).filter(|hash| !after.needs(hash)) {
            // One that stays costs its bytes and nothing else.
            let _ = std::fs::remove_file(self.folder.join(file(hash)));
        }
    }

    pub(super) fn all(&self) -> Result<Generations, String> {
        Ok(self.loaded()?.clone().unwrap_or_default())
    }

    /// The text of a manifest that a generation names.
    pub(super) fn text(&self, hash: &Hash) -> Result<String, String> {
        let read = durable::read_small(&self.disk()?, &file(hash), MANIFEST_BYTES_MAX)
            .map_err(|error| error.to_string())?;
        let bytes = read.ok_or_else(|| format!("{} is not there", self.folder.join(file(hash)).display()))?;
        if Hash::of(&bytes) != *hash {
            return Err(format!("{} was changed", self.folder.join(file(hash)).display()));
        }
        String::from_utf8(bytes).map_err(|error| error.to_string())
    }
}

fn unreadable(error: impl std::fmt::Display) -> String {
    format!("the list of generations cannot be read: {error}")
}

fn file(hash: &Hash) -> String {
    format!("blake3-{}.toml", hash.to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_changes_outlive_the_process_and_a_changed_text_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path()).unwrap();
        let history = History::new(&layout);
        history.add("a", Some("first")).unwrap();
        history.add("a", Some("second")).unwrap();
        history.add("a", Some("second")).unwrap();
        history.add("a", None).unwrap();
        let again = History::new(&layout);
        let all = again.all().unwrap();
        assert_eq!(all.current(), 3);
        let hash = all.at(1).unwrap()["a"];
        assert_eq!(again.text(&hash).unwrap(), "first");
        let path: &std::path::Path = &again.folder.join(file(&hash));
        std::fs::write(path, "other").unwrap();
        assert!(again.text(&hash).unwrap_err().contains("was changed"));
        std::fs::remove_file(path).unwrap();
        assert!(again.text(&hash).unwrap_err().contains("not there"));
        std::fs::write(again.folder.join(LIST), "{").unwrap();
        assert!(History::new(&layout).all().is_err(), "an unreadable list is no empty one");
    }
}
