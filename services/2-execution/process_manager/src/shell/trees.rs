//! Container images as they lie on disk: one folder an image, kept as long as the log has a name for it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base::{TreeId, cbor};
use tokio::sync::Semaphore;

use crate::core::{ImageLedger, ProcessError, Tree, limits::IMPORTS_AT_ONCE};

/// What an image is called while it is unpacked, and while it is removed; left ones are removed at start.
const UNFINISHED: &str = ".unfinished-";

/// The images that are there.
pub(super) struct Trees {
    /// Where they lie.
    store: PathBuf,
    /// What is known of each, one file an image.
    records: PathBuf,
    known: Mutex<BTreeMap<TreeId, Arc<Tree>>>,
    /// Of folders that nobody wants any more.
    left: Mutex<Vec<String>>,
    claims: Arc<Mutex<BTreeMap<TreeId, Use>>>,
    /// Held from the question who has a name to the entry that changes it.
    pub(super) naming: tokio::sync::Mutex<()>,
    /// One permit an import.
    pub(super) imports: Arc<Semaphore>,
    /// Who has emptied what was left has emptied what others left meanwhile, and not only taken it from the list.
    pub(super) emptying: tokio::sync::Mutex<()>,
}

/// What is being done with an image at the moment.
#[derive(Clone, Copy, Debug)]
enum Use {
    /// So many programs are being started in it: the log does not say so yet.
    Entered(u32),
    Removed,
}

/// As long as it lives, its image is not removed, or nobody enters it.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Arc<Mutex<BTreeMap<TreeId, Use>>>,
    tree: TreeId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        match claims.get_mut(&self.tree) {
            Some(Use::Entered(programs)) if *programs > 1 => *programs -= 1,
            _ => {
                claims.remove(&self.tree);
            }
        }
    }
}

impl Trees {
    /// `images` is where what the keeper mounts lies, `state` the service's own folder.
    pub(super) fn open(images: &Path, state: &Path) -> io::Result<Self> {
        let (store, records) = (images.join("trees"), state.join("trees"));
        for folder in [&store, &records] {
            fs::create_dir_all(folder)?;
        }
        // As for images: programs pass through by name, nobody else gets here.
        fs::set_permissions(&store, fs::Permissions::from_mode(0o711))?;
        let trees = Self {
            store,
            records,
            known: Mutex::default(),
            left: Mutex::default(),
            claims: Arc::default(),
            naming: tokio::sync::Mutex::default(),
            imports: Arc::new(Semaphore::new(IMPORTS_AT_ONCE)),
            emptying: tokio::sync::Mutex::default(),
        };
        for entry in fs::read_dir(&trees.records)? {
            let path = entry?.path();
            let read = fs::read(&path).map_err(|error| error.to_string());
            match read.and_then(|bytes| cbor::decode::<Tree>(&bytes).map_err(|error| error.to_string())) {
                Ok(tree) if trees.folder(tree.id).is_dir() => {
                    trees.known().insert(tree.id, Arc::new(tree));
                }
                Ok(_) => fs::remove_file(&path)?,
                // Of another version, or half of one: its image is imported again.
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "what is known of an image cannot be read");
                    fs::remove_file(&path)?;
                }
            }
        }
        for entry in fs::read_dir(&trees.store)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            match name.strip_prefix("sha256-").and_then(TreeId::from_hex) {
                Some(id) if trees.known().contains_key(&id) => {}
                Some(id) => trees.put_aside(id)?,
                None => trees.leave(name),
            }
        }
        Ok(trees)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<TreeId, Arc<Tree>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn folder(&self, id: TreeId) -> PathBuf {
        self.store.join(format!("sha256-{}", id.to_hex()))
    }

    pub(super) fn get(&self, id: TreeId) -> Option<Arc<Tree>> {
        self.known().get(&id).cloned()
    }

    pub(super) fn find(&self, id: TreeId) -> Result<Arc<Tree>, ProcessError> {
        self.get(id).ok_or_else(|| ProcessError::NoTree(id.to_string()))
    }

    /// To be removed when there is time.
    pub(super) fn leave(&self, folder: String) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push(folder);
    }

    pub(super) fn take_left(&self) -> Vec<String> {
        std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A folder to be filled, and its name.
    pub(super) fn stage(&self, random: [u8; 16]) -> io::Result<String> {
        let name = format!("{UNFINISHED}{:032x}", u128::from_le_bytes(random));
        let folder = self.path(&name);
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        // Its content belongs to who runs programs, on a node of root another user of the host.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        Ok(name)
    }

    pub(super) fn path(&self, folder: &str) -> PathBuf {
        self.store.join(folder)
    }

    fn record(&self, tree: &Tree) -> io::Result<()> {
        let unfinished = self.records.join(format!("{UNFINISHED}{}", tree.id.to_hex()));
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(&cbor::encode(tree))?;
        file.sync_all()?;
        fs::rename(unfinished, self.records.join(tree.id.to_hex()))?;
        File::open(&self.records)?.sync_all()
    }

    /// What was staged has its place, durably. Nobody finds it there before the log has a name for it.
    pub(super) fn place(&self, staged: &str, tree: Tree) -> io::Result<Arc<Tree>> {
        let mut known = self.known();
        if let Some(there) = known.get(&tree.id) {
            self.leave(staged.to_owned());
            return Ok(Arc::clone(there));
        }
        fs::rename(self.path(staged), self.folder(tree.id))?;
        if let Err(error) = self.keep(&tree) {
            // Its place is free for the next import, whatever this one failed of.
            self.put_aside(tree.id)?;
            return Err(error);
        }
        let tree = Arc::new(tree);
        known.insert(tree.id, Arc::clone(&tree));
        Ok(tree)
    }

    fn keep(&self, tree: &Tree) -> io::Result<()> {
        fs::set_permissions(self.folder(tree.id), fs::Permissions::from_mode(0o711))?;
        File::open(&self.store)?.sync_all()?;
        self.record(tree)
    }

    /// Takes a folder out of the place of its image, under a name of its own: one of the same image may still be emptied.
    fn put_aside(&self, id: TreeId) -> io::Result<()> {
        let mut names = (0_u32..).map(|number| format!("{UNFINISHED}{}-{number}", id.to_hex()));
        let Some(gone) = names.find(|name| !self.path(name).exists()) else { return Ok(()) };
        fs::rename(self.folder(id), self.path(&gone))?;
        self.leave(gone);
        Ok(())
    }

    /// Images that have no name in the log: of an import that was refused or cut, or of a removal that was.
    /// One in which a program runs stays until a start that finds it empty.
    pub(super) fn forget_unnamed(&self, names: &ImageLedger, is_used: impl Fn(TreeId) -> bool) {
        let unnamed: Vec<TreeId> = self.known().keys().filter(|id| !names.is_named(**id)).copied().collect();
        for id in unnamed.into_iter().filter(|id| !is_used(*id)) {
            if let Err(error) = self.forget(id) {
                tracing::warn!(%id, %error, "an image without a name stays until the next start");
            }
        }
    }

    /// Nobody finds it any more; its folder is left.
    pub(super) fn forget(&self, id: TreeId) -> io::Result<()> {
        let mut known = self.known();
        self.put_aside(id)?;
        known.remove(&id);
        fs::remove_file(self.records.join(id.to_hex()))
    }

    /// For a program that is being started in it: until the log says so, the image stays.
    pub(super) fn enter(&self, tree: TreeId) -> Result<Claim, ProcessError> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        match claims.entry(tree).or_insert(Use::Entered(0)) {
            Use::Entered(programs) => *programs += 1,
            Use::Removed => return Err(ProcessError::TreeClaimed(tree)),
        }
        Ok(Claim { claims: Arc::clone(&self.claims), tree })
    }

    /// For its removal: from here on no program enters it.
    pub(super) fn close(&self, tree: TreeId) -> Result<Claim, ProcessError> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if claims.contains_key(&tree) {
            return Err(ProcessError::TreeClaimed(tree));
        }
        claims.insert(tree, Use::Removed);
        Ok(Claim { claims: Arc::clone(&self.claims), tree })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::Content;

    const TREE: TreeId = TreeId([7; 32]);

    fn trees() -> (tempfile::TempDir, Trees) {
        let folder = tempfile::tempdir().unwrap();
        let trees = Trees::open(&folder.path().join("images"), &folder.path().join("state")).unwrap();
        (folder, trees)
    }

    #[test]
    fn an_image_is_not_removed_while_a_program_enters_it_nor_entered_while_it_is_removed() {
        let (_folder, trees) = trees();
        let (one, two) = (trees.enter(TREE).unwrap(), trees.enter(TREE).unwrap());
        drop(one);
        assert_eq!(trees.close(TREE).unwrap_err(), ProcessError::TreeClaimed(TREE));
        drop(two);
        let removal = trees.close(TREE).unwrap();
        assert_eq!(trees.enter(TREE).unwrap_err(), ProcessError::TreeClaimed(TREE));
        assert!(trees.close(TREE).is_err() && trees.enter(TreeId([8; 32])).is_ok());
        drop(removal);
        assert!(trees.enter(TREE).is_ok());
    }

    #[test]
    fn what_the_log_has_no_name_for_does_not_stay() {
        let (folder, trees) = trees();
        let staged = trees.stage([1; 16]).unwrap();
        trees.place(&staged, Tree { id: TREE, content: Content::default() }).unwrap();
        assert!(trees.folder(TREE).is_dir() && trees.get(TREE).is_some());
        // The node ends here, before the entry.
        drop(trees);
        let trees = Trees::open(&folder.path().join("images"), &folder.path().join("state")).unwrap();
        assert!(trees.get(TREE).is_some() && trees.take_left().is_empty());
        trees.forget_unnamed(&ImageLedger::default(), |tree| tree == TREE);
        assert!(trees.get(TREE).is_some(), "a program runs in it");
        trees.forget_unnamed(&ImageLedger::default(), |_| false);
        assert!(trees.get(TREE).is_none() && !trees.folder(TREE).exists());
        assert_eq!(trees.take_left().len(), 1);
    }

    #[test]
    fn an_image_goes_again_while_its_first_folder_is_still_emptied() {
        let (_folder, trees) = trees();
        for random in [[1; 16], [2; 16]] {
            let staged = trees.stage(random).unwrap();
            fs::write(trees.path(&staged).join("file"), b"content").unwrap();
            trees.place(&staged, Tree { id: TREE, content: Content::default() }).unwrap();
            trees.forget(TREE).unwrap();
        }
        let left = trees.take_left();
        assert!(
            left.len() == 2 && left.iter().all(|name| trees.path(name).join("file").exists()),
            "{left:?}"
        );
    }

    #[test]
    fn a_place_is_free_again_when_its_image_could_not_be_kept() {
        let (folder, trees) = trees();
        let records = folder.path().join("state/trees");
        fs::remove_dir(&records).unwrap();
        let staged = trees.stage([1; 16]).unwrap();
        assert!(trees.place(&staged, Tree { id: TREE, content: Content::default() }).is_err());
        assert!(!trees.folder(TREE).exists() && trees.get(TREE).is_none());
        fs::create_dir(&records).unwrap();
        let staged = trees.stage([2; 16]).unwrap();
        assert!(trees.place(&staged, Tree { id: TREE, content: Content::default() }).is_ok());
    }
}
