//! Container images: taken over from a stream, unpacked by a process of their own, kept until they are removed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base::{Hash, cbor};
use kit::authority::random_16;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::mpsc,
};

use super::{images::Piece, keeper::KeeperError, layers::HELPERS_MIN, manager::Manager, spawn::memfd};
use crate::{
    core::{
        ProcessError, Spawn, TREE_SLOTS, Tree, TreeId, candidates,
        limits::{CHUNK_BYTES_MAX, TREE_NAME_BYTES_MAX, TREES_MAX},
        trees_folder, unpack_plan,
    },
    unpack::{REPORT_BYTES_MAX, ROOT, Report, Task},
};

/// What an image is called while it is unpacked, and while it is removed; left ones are removed at start.
const UNFINISHED: &str = ".unfinished-";
/// Pieces of a program on its way from an image to the images of programs.
const PIECES: usize = 4;

/// The images that are there.
pub(super) struct Trees {
    /// Where they lie.
    store: PathBuf,
    /// What is known of each, one file an image.
    records: PathBuf,
    known: Mutex<BTreeMap<TreeId, Arc<Tree>>>,
    /// Of folders that nobody wants any more.
    left: Mutex<Vec<String>>,
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
        let trees = Self { store, records, known: Mutex::default(), left: Mutex::default() };
        for entry in fs::read_dir(&trees.records)? {
            let path = entry?.path();
            let read = fs::read(&path).map_err(|error| error.to_string());
            match read.and_then(|bytes| cbor::decode::<Tree>(&bytes).map_err(|error| error.to_string())) {
                Ok(tree) if trees.folder(tree.id).is_dir() => {
                    trees.known().insert(tree.id, Arc::new(tree));
                }
                Ok(_) => fs::remove_file(&path)?,
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "what is known of an image cannot be read")
                }
            }
        }
        for entry in fs::read_dir(&trees.store)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let id = name.strip_prefix("sha256-").and_then(TreeId::from_hex);
            if id.is_none_or(|id| !trees.known().contains_key(&id)) {
                trees.left.lock().unwrap_or_else(PoisonError::into_inner).push(name);
            }
        }
        Ok(trees)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<TreeId, Arc<Tree>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, id: TreeId) -> PathBuf {
        self.store.join(format!("sha256-{}", id.to_hex()))
    }

    pub(super) fn list(&self) -> Vec<Arc<Tree>> {
        self.known().values().cloned().collect()
    }

    fn find(&self, id: TreeId) -> Result<Arc<Tree>, ProcessError> {
        self.known().get(&id).cloned().ok_or(ProcessError::NoTree(id))
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

    /// The image has its name and its place; whoever had the name loses it.
    fn keep(&self, unfinished: &str, tree: Tree) -> io::Result<Arc<Tree>> {
        let mut known = self.known();
        let place = self.folder(tree.id);
        if known.contains_key(&tree.id) {
            self.left.lock().unwrap_or_else(PoisonError::into_inner).push(unfinished.to_owned());
        } else {
            fs::rename(self.store.join(unfinished), &place)?;
            fs::set_permissions(&place, fs::Permissions::from_mode(0o711))?;
            File::open(&self.store)?.sync_all()?;
        }
        if !tree.name.is_empty() {
            let named = known.values_mut().filter(|other| other.name == tree.name && other.id != tree.id);
            for other in named {
                let nameless = Tree { name: String::new(), ..Tree::clone(other) };
                self.record(&nameless)?;
                *other = Arc::new(nameless);
            }
        }
        self.record(&tree)?;
        let tree = Arc::new(tree);
        known.insert(tree.id, Arc::clone(&tree));
        Ok(tree)
    }

    /// Nobody finds it any more.
    fn forget(&self, id: TreeId) -> io::Result<String> {
        let mut known = self.known();
        let gone = format!("{UNFINISHED}{}", id.to_hex());
        fs::rename(self.folder(id), self.store.join(&gone))?;
        fs::remove_file(self.records.join(id.to_hex()))?;
        known.remove(&id);
        Ok(gone)
    }
}

impl Manager {
    /// Unpacks what comes and keeps it, under the digest that it has.
    pub(super) async fn import_tree(
        self: &Arc<Self>,
        tag: String,
        name: String,
        pieces: mpsc::Receiver<Piece>,
    ) -> Result<Arc<Tree>, ProcessError> {
        if name.len() > TREE_NAME_BYTES_MAX || tag.len() > TREE_NAME_BYTES_MAX {
            let text = format!("a name has at most {TREE_NAME_BYTES_MAX} bytes");
            return Err(ProcessError::invalid("name", text));
        }
        if self.trees.known().len() >= TREES_MAX {
            return Err(ProcessError::TreesFull);
        }
        let random = random_16().map_err(|error| ProcessError::Internal(error.to_string()))?;
        let unfinished = format!("{UNFINISHED}{:032x}", u128::from_le_bytes(random));
        let make = || -> io::Result<()> {
            let folder = self.trees.store.join(&unfinished);
            fs::DirBuilder::new().mode(0o700).create(&folder)?;
            // Its content belongs to who runs programs, on a node of root another user of the host.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))
        };
        make().map_err(|error| ProcessError::Internal(format!("making room for an image: {error}")))?;
        let kept = match self.unpack(&unfinished, Task::Unpack(tag), Some(pieces)).await {
            Ok(Report::Unpacked(id, content)) => {
                let tree = Tree { id, name, content: *content };
                let checked = tree.check();
                checked.and_then(|()| {
                    let failed = |error| ProcessError::Internal(format!("keeping image {id}: {error}"));
                    self.trees.keep(&unfinished, tree).map_err(failed)
                })
            }
            Ok(Report::Failed(text)) => Err(ProcessError::TreeRefused(text)),
            Ok(Report::Removed) => Err(ProcessError::Internal("it did something else".to_owned())),
            Err(error) => Err(error),
        };
        if kept.is_err() {
            self.trees.left.lock().unwrap_or_else(PoisonError::into_inner).push(unfinished);
        }
        self.remove_left_trees();
        kept
    }

    pub(super) async fn remove_tree(self: &Arc<Self>, id: TreeId) -> Result<(), ProcessError> {
        self.ready().await?;
        self.trees.find(id)?;
        let used = format!("image:{id}:");
        let user = {
            let state = self.state();
            let mut open = state.ledger.open().iter();
            open.find(|(_, open)| open.create.grants.iter().any(|grant| grant.starts_with(&used)))
                .map(|it| *it.0)
        };
        if let Some(pid) = user {
            return Err(ProcessError::TreeInUse { tree: id, pid });
        }
        let failed = |error| ProcessError::Internal(format!("removing image {id}: {error}"));
        let gone = self.trees.forget(id).map_err(failed)?;
        self.remove_folder_of_tree(&gone).await
    }

    /// What an earlier process left, or an import that failed.
    pub(super) fn remove_left_trees(self: &Arc<Self>) {
        let left = std::mem::take(&mut *self.trees.left.lock().unwrap_or_else(PoisonError::into_inner));
        let manager = Arc::clone(self);
        tokio::spawn(async move {
            for name in left {
                if let Err(error) = manager.remove_folder_of_tree(&name).await {
                    tracing::warn!(name, %error, "what is left of an image stays until the next start");
                }
            }
        });
    }

    async fn remove_folder_of_tree(&self, name: &str) -> Result<(), ProcessError> {
        let folder = self.trees.store.join(name);
        let failed = |error| ProcessError::Internal(format!("removing {name}: {error}"));
        // A kept image was closed to who unpacked it.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).map_err(failed)?;
        match self.unpack(name, Task::Remove, None).await? {
            Report::Removed => fs::remove_dir(&folder).map_err(failed),
            Report::Failed(text) => Err(ProcessError::Internal(format!("emptying {name}: {text}"))),
            Report::Unpacked(..) => Err(ProcessError::Internal("it did something else".to_owned())),
        }
    }

    /// Runs one job on a folder of the store.
    async fn unpack(
        &self,
        folder: &str,
        task: Task,
        pieces: Option<mpsc::Receiver<Piece>>,
    ) -> Result<Report, ProcessError> {
        let internal = |text: String| ProcessError::Internal(format!("working on an image: {text}"));
        let io_error = |error: io::Error| internal(error.to_string());
        let errno = |error: Errno| internal(error.to_string());
        let random = random_16().map_err(|error| internal(error.to_string()))?;
        let id = u64::from_le_bytes(random.first_chunk().copied().unwrap_or_default()) | HELPERS_MIN;
        let (report, report_theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(errno)?;
        let (input_theirs, input) = pipe_with(PipeFlags::CLOEXEC).map_err(errno)?;
        let slots: Vec<OwnedFd> = vec![
            self.image.try_clone().map_err(io_error)?,
            memfd(&cbor::encode(&task)).map_err(io_error)?,
            report_theirs,
            self.error.try_clone().map_err(io_error)?,
            input_theirs,
        ];
        debug_assert_eq!(slots.len(), TREE_SLOTS as usize);
        for ours in [&report, &input] {
            rustix::io::ioctl_fionbio(ours, true).map_err(errno)?;
        }
        let mut report = pipe::Receiver::from_owned_fd(report).map_err(io_error)?.take(REPORT_BYTES_MAX);
        let input = pipe::Sender::from_owned_fd(input).map_err(io_error)?;
        let plan = unpack_plan(&format!("{}/{folder}", trees_folder(&self.host.images)));
        self.keeper.launch(id, &plan, slots).await.map_err(|error| match error {
            KeeperError::Launch { step, text } => ProcessError::Launch { step, text },
            other => internal(other.to_string()),
        })?;
        let cut = feed(input, pieces).await;
        let mut bytes = Vec::new();
        report.read_to_end(&mut bytes).await.map_err(io_error)?;
        if cut {
            return Err(ProcessError::invalid("data", "the stream was cut before its end"));
        }
        cbor::decode(&bytes).map_err(|_| {
            ProcessError::TreeRefused(
                "it was ended while it unpacked: by its limit of memory, or by somebody".to_owned(),
            )
        })
    }

    /// Shows a program its image and finds it in there: from then on it is a program like any other.
    pub(super) async fn enter_tree(&self, spawn: &mut Spawn) -> Result<(), ProcessError> {
        let Some(root) = &mut spawn.root else { return Ok(()) };
        let Some(id) = root.tree else { return Ok(()) };
        let tree = self.trees.find(id)?;
        tree.show(root, &self.host);
        if spawn.image != Hash::ZERO {
            return Ok(());
        }
        let path = spawn.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_str());
        let places = candidates(&spawn.name, &spawn.cwd, path);
        let folder = self.trees.folder(id).join(ROOT);
        let wanted = spawn.name.clone();
        let opened = tokio::task::spawn_blocking(move || find_program(&folder, &places, &wanted)).await;
        let (place, file, hash) = opened.map_err(|error| ProcessError::Internal(error.to_string()))??;
        spawn.name = place;
        spawn.image = hash;
        if matches!(self.images.open(hash, false).await, Err(ProcessError::ImageNotFound(_))) {
            let (send, receive) = mpsc::channel(PIECES);
            tokio::task::spawn_blocking(move || send_file(file, &send));
            let (stored, _) = self.images.put(receive).await?;
            if stored != hash {
                let text = "the program changed while it was read".to_owned();
                return Err(ProcessError::InvalidImage { image: hash, text });
            }
        }
        Ok(())
    }
}

/// True if what was fed ended before its end.
async fn feed(mut input: pipe::Sender, pieces: Option<mpsc::Receiver<Piece>>) -> bool {
    let Some(mut pieces) = pieces else { return false };
    loop {
        match pieces.recv().await {
            None => return true,
            Some(None) => return false,
            // It has given up, or has all it needs; its report says which.
            Some(Some(piece)) if input.write_all(&piece).await.is_err() => return false,
            Some(Some(_)) => {}
        }
    }
}

/// The first place at which there is a program, opened, with its hash. Links lead nowhere but into the image.
fn find_program(
    folder: &Path,
    places: &[String],
    wanted: &str,
) -> Result<(String, File, Hash), ProcessError> {
    let launch = |text: String| ProcessError::Launch { step: "image".to_owned(), text };
    let root = File::open(folder).map_err(|error| launch(format!("opening the image: {error}")))?;
    let mut last = Errno::NOENT;
    for place in places {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(root.as_fd(), place.as_str(), flags, Mode::empty(), inside) {
            Ok(file) => {
                let mut file = File::from(file);
                let data = file.metadata().map_err(|error| launch(error.to_string()))?;
                if !data.is_file() || data.permissions().mode() & 0o111 == 0 {
                    last = Errno::ACCESS;
                    continue;
                }
                let hash =
                    Hash::of_reader(&file).map_err(|error| launch(format!("reading {place}: {error}")))?;
                io::Seek::rewind(&mut file).map_err(|error| launch(error.to_string()))?;
                return Ok((place.clone(), file, hash));
            }
            Err(error) => last = if last == Errno::ACCESS { last } else { error },
        }
    }
    Err(launch(format!("there is no program {wanted:?} in the image: {last}")))
}

fn send_file(mut file: File, pieces: &mpsc::Sender<Piece>) {
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    loop {
        match io::Read::read(&mut file, &mut buffer) {
            Ok(0) => return drop(pieces.blocking_send(None)),
            Ok(read) => {
                let piece = buffer.get(..read).unwrap_or_default().to_vec();
                if pieces.blocking_send(Some(piece)).is_err() {
                    return;
                }
            }
            // Without its end the other side knows that it was cut.
            Err(error) => return tracing::warn!(%error, "a program of an image cannot be read"),
        }
    }
}
