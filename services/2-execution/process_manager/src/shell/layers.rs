//! Layers of copy-on-write folders: made before their program, kept after it, worked on by a process of their own.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base::{AxiomRef, Hash, ProcessId, cbor};
use chain::payload::{
    Receipt, ReceiptStatus,
    policy::{PolicyAction, ProcessOperation, ResourceRef, ResourceType},
};
use kit::{Requestor, authority::random_16};
use tokio::{io::AsyncReadExt, net::unix::pipe};
use tonic::Status;

use super::{manager::Manager, spawn::memfd};
use crate::{
    core::{
        Layer, ProcessError, Spawn, Viewer, copied, job_plan,
        limits::{LAYERS_MAX, REASON_BYTES_MAX},
    },
    layer::{Change, Job, REPORT_BYTES_MAX, Report, Task},
};

/// Children of the keeper above this number are no programs but work on layers.
pub(super) const HELPERS_MIN: u64 = 1 << 63;
/// Of what blocks a commit, so many are named in the refusal; `diff` names all.
const NAMED_MAX: usize = 8;

pub(super) struct Kept {
    pub(super) layer: Layer,
    /// One job at a time.
    at_work: tokio::sync::Mutex<()>,
}

/// The layers that exist.
pub(super) struct Layers {
    /// Where they lie.
    store: PathBuf,
    /// What is known of each, one file a layer.
    records: PathBuf,
    known: Mutex<BTreeMap<ProcessId, Arc<Kept>>>,
}

impl Layers {
    /// `images` is where what the keeper mounts lies, `state` the service's own folder.
    pub(super) fn open(images: &Path, state: &Path) -> io::Result<Self> {
        let (store, records) = (images.join("layers"), state.join("layers"));
        for folder in [&store, &records] {
            fs::create_dir_all(folder)?;
        }
        // As for images: programs pass through by name, nobody else gets here.
        fs::set_permissions(&store, fs::Permissions::from_mode(0o711))?;
        let layers = Self { store, records, known: Mutex::default() };
        for entry in fs::read_dir(&layers.records)? {
            let path = entry?.path();
            match fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| cbor::decode::<Layer>(&bytes).map_err(|error| error.to_string()))
            {
                Ok(layer) if layers.folder(layer.pid).is_dir() => layers.keep(layer),
                // Made or removed half: nothing is in it.
                Ok(_) => fs::remove_file(&path)?,
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "what is known of a layer cannot be read")
                }
            }
        }
        for entry in fs::read_dir(&layers.store)? {
            // Fails for one with content, which is known, or was made by nobody here.
            let entry = entry?;
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(ProcessId);
            if pid.is_none_or(|pid| !layers.has(pid)) {
                let _ = fs::remove_dir(entry.path());
            }
        }
        Ok(layers)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Arc<Kept>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, layer: Layer) {
        self.known().insert(layer.pid, Arc::new(Kept { layer, at_work: tokio::sync::Mutex::default() }));
    }

    pub(super) fn folder(&self, pid: ProcessId) -> PathBuf {
        self.store.join(pid.0.to_string())
    }

    fn record(&self, pid: ProcessId) -> PathBuf {
        self.records.join(pid.0.to_string())
    }

    pub(super) fn has(&self, pid: ProcessId) -> bool {
        self.known().contains_key(&pid)
    }

    fn find(&self, pid: ProcessId, viewer: Viewer) -> Result<Arc<Kept>, ProcessError> {
        let kept = self.known().get(&pid).filter(|kept| kept.layer.is_seen_by(viewer)).cloned();
        kept.ok_or(ProcessError::NoLayer(pid))
    }

    pub(super) fn list(&self, viewer: Viewer) -> Vec<Layer> {
        let known = self.known();
        let layers = known.values().map(|kept| &kept.layer);
        layers.filter(|layer| layer.is_seen_by(viewer) && !layer.folders.is_empty()).cloned().collect()
    }

    /// Makes room for what a program will change.
    pub(super) fn make(
        &self,
        spawn: &Spawn,
        pid: ProcessId,
        by: base::IdentityId,
    ) -> Result<(), ProcessError> {
        // Of an image nothing is kept: its layers are not named, and go when nothing else is left.
        let folders: Vec<String> = copied(&spawn.paths).map(|grant| grant.source.clone()).collect();
        if !spawn.all_paths().any(|grant| grant.copied) {
            return Ok(());
        }
        if self.known().len() >= LAYERS_MAX {
            return Err(ProcessError::LayersFull);
        }
        let make = || -> io::Result<Layer> {
            let folder = self.folder(pid);
            fs::DirBuilder::new().mode(0o700).create(&folder)?;
            let made = fs::metadata(&folder)?;
            // Its content belongs to the program, which on a node of root is another user of the host.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
            let layer = Layer {
                pid,
                identity: spawn.identity,
                by,
                name: spawn.logged_name(),
                made_at: (made.ctime(), u32::try_from(made.ctime_nsec()).unwrap_or(0)),
                folders,
            };
            let mut options = fs::OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(self.record(pid))?;
            file.write_all(&cbor::encode(&layer))?;
            file.sync_all()?;
            fs::File::open(&self.records)?.sync_all()?;
            Ok(layer)
        };
        let layer =
            make().map_err(|error| ProcessError::Internal(format!("making the layer of {pid}: {error}")))?;
        self.keep(layer);
        Ok(())
    }

    /// Nothing is left in it.
    fn forget(&self, pid: ProcessId) {
        let removed = fs::remove_dir(self.folder(pid)).and_then(|()| fs::remove_file(self.record(pid)));
        if let Err(error) = removed {
            tracing::warn!(%pid, %error, "an empty layer stays");
        }
        self.known().remove(&pid);
    }
}

/// What became of a commit.
pub(super) struct Committed {
    pub(super) at: AxiomRef,
    pub(super) applied: u64,
    pub(super) complete: bool,
}

/// What a commit is to do.
pub(super) struct Wanted {
    pub(super) path: String,
    pub(super) force: bool,
    pub(super) reason: String,
}

impl Manager {
    pub(super) fn runs(&self, pid: ProcessId) -> bool {
        self.state().table.get(pid).is_some_and(|process| process.exit.is_none())
    }

    /// Runs one job; the layer is forgotten if it is empty afterwards.
    async fn work(
        &self,
        kept: &Kept,
        task: Task,
        path: &str,
        force: bool,
        prune: bool,
    ) -> Result<Report, ProcessError> {
        let pid = kept.layer.pid;
        let job = Job {
            task,
            folders: kept.layer.folders(path)?,
            made_at: kept.layer.made_at,
            force,
            mark: pid.0,
            prune,
        };
        let _alone = kept.at_work.lock().await;
        // The one before may have left nothing.
        if !self.layers.has(pid) {
            return Err(ProcessError::NoLayer(pid));
        }
        let report = self.launch_job(kept, &job).await?;
        if report.emptied {
            self.layers.forget(pid);
        }
        match &report.failed {
            Some(text) => Err(ProcessError::Layer {
                pid,
                text: format!("{text}; {} changes were applied", report.applied),
            }),
            None => Ok(report),
        }
    }

    async fn launch_job(&self, kept: &Kept, job: &Job) -> Result<Report, ProcessError> {
        let pid = kept.layer.pid;
        let internal =
            |text: String| ProcessError::Internal(format!("working on the layer of {pid}: {text}"));
        let io_error = |error: io::Error| internal(error.to_string());
        let random = random_16().map_err(|error| internal(error.to_string()))?;
        let id = u64::from_le_bytes(random.first_chunk().copied().unwrap_or_default()) | HELPERS_MIN;
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| io_error(error.into()))?;
        let slots = vec![
            self.image.try_clone().map_err(io_error)?,
            memfd(&cbor::encode(job)).map_err(io_error)?,
            write,
            self.error.try_clone().map_err(io_error)?,
        ];
        rustix::io::ioctl_fionbio(&read, true).map_err(|error| io_error(error.into()))?;
        let mut report = pipe::Receiver::from_owned_fd(read).map_err(io_error)?.take(REPORT_BYTES_MAX);
        let plan = job_plan(&kept.layer, job.task, &self.host);
        self.keeper.launch(id, &plan, slots).await.map_err(|error| match error {
            super::keeper::KeeperError::Launch { step, text } => ProcessError::Launch { step, text },
            other => internal(other.to_string()),
        })?;
        let mut bytes = Vec::new();
        report.read_to_end(&mut bytes).await.map_err(io_error)?;
        cbor::decode(&bytes).map_err(|_| internal("it ended without a report; say it again".to_owned()))
    }

    pub(super) async fn diff(
        &self,
        pid: ProcessId,
        path: &str,
        viewer: Viewer,
    ) -> Result<Report, ProcessError> {
        self.ready().await?;
        let kept = self.layers.find(pid, viewer)?;
        self.work(&kept, Task::Diff, path, false, false).await
    }

    /// After a program's end: a layer in which nothing differs is not kept.
    pub(super) fn prune(self: &Arc<Self>, pid: ProcessId) {
        let Ok(kept) = self.layers.find(pid, Viewer::All) else { return };
        let manager = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = manager.work(&kept, Task::Diff, "", false, true).await {
                tracing::warn!(%pid, %error, "whether a layer is empty cannot be seen; it is kept");
            }
        });
    }

    /// Nothing of its program ever ran.
    pub(super) async fn drop_layer(&self, pid: ProcessId) {
        let Ok(kept) = self.layers.find(pid, Viewer::All) else { return };
        if let Err(error) = self.work(&kept, Task::Remove, "", false, false).await {
            tracing::warn!(%pid, %error, "the layer of a program that never ran stays");
        }
    }

    pub(super) async fn commit_layer(
        self: &Arc<Self>,
        pid: ProcessId,
        wanted: Wanted,
        requestor: Requestor,
        viewer: Viewer,
    ) -> Result<Committed, Status> {
        let kept = self.ended_layer(pid, &wanted.reason, viewer).await?;
        // What cannot be done is not put on record as decided.
        let found = self.work(&kept, Task::Diff, &wanted.path, false, false).await?;
        if let Some(refused) = blocked(pid, &found.changes, wanted.force) {
            return Err(refused.into());
        }
        let Wanted { path, force, reason } = wanted;
        let about = [
            ("reason", reason),
            ("path", if path.is_empty() { "all".to_owned() } else { path.clone() }),
            ("force", force.to_string()),
            ("changes", (found.changes.len() as u64).saturating_add(found.more).to_string()),
        ];
        let at = self.decide_layer(pid, ProcessOperation::Commit, about, &requestor).await?;
        let result = self.work(&kept, Task::Commit, &path, force, false).await;
        let report = match result {
            // It changed between the two looks.
            Ok(report) if report.stopped => {
                self.close_layer(at, Hash::ZERO, false);
                let refused = blocked(pid, &report.changes, force);
                return Err(refused
                    .unwrap_or_else(|| ProcessError::Internal("stopped by nothing".to_owned()))
                    .into());
            }
            Ok(report) => report,
            Err(error) => {
                self.close_layer(at, Hash::ZERO, false);
                return Err(error.into());
            }
        };
        self.close_layer(at, Hash::of(&cbor::encode(&report)), true);
        Ok(Committed { at, applied: report.applied, complete: report.emptied })
    }

    pub(super) async fn discard_layer(
        self: &Arc<Self>,
        pid: ProcessId,
        reason: String,
        requestor: Requestor,
        viewer: Viewer,
    ) -> Result<AxiomRef, Status> {
        let kept = self.ended_layer(pid, &reason, viewer).await?;
        let at = self.decide_layer(pid, ProcessOperation::Discard, [("reason", reason)], &requestor).await?;
        let result = self.work(&kept, Task::Remove, "", false, false).await;
        self.close_layer(at, Hash::ZERO, result.is_ok());
        result?;
        Ok(at)
    }

    /// The layer of a program that changes nothing any more.
    async fn ended_layer(
        &self,
        pid: ProcessId,
        reason: &str,
        viewer: Viewer,
    ) -> Result<Arc<Kept>, ProcessError> {
        self.ready().await?;
        if reason.len() > REASON_BYTES_MAX {
            let text = format!("{} bytes, at most {REASON_BYTES_MAX} are allowed", reason.len());
            return Err(ProcessError::invalid("reason", text));
        }
        let kept = self.layers.find(pid, viewer)?;
        if self.runs(pid) {
            return Err(ProcessError::StillRuns(pid));
        }
        Ok(kept)
    }

    /// The decision is the record.
    async fn decide_layer<const N: usize>(
        &self,
        pid: ProcessId,
        operation: ProcessOperation,
        about: [(&str, String); N],
        requestor: &Requestor,
    ) -> Result<AxiomRef, Status> {
        let resource = ResourceRef { resource_type: ResourceType::Process, id: pid.to_string() };
        let action = PolicyAction::ControlProcess { pid, operation };
        let mut request = requestor.ask(&self.node, action, resource)?;
        request.context.process = pid;
        request.context.metadata.extend(about.map(|(name, value)| (name.to_owned(), value)));
        let committed = self.node.authority().evaluate(&request).await?;
        committed.decision.ok_or_else(|| ProcessError::Internal("policy named no entry".to_owned()).into())
    }

    /// The receipt names what was applied by the hash of the report.
    fn close_layer(self: &Arc<Self>, at: AxiomRef, report: Hash, done: bool) {
        let Ok(key) = random_16() else { return };
        let outputs = if report == Hash::ZERO { Vec::new() } else { vec![report] };
        let receipt = Receipt { outputs, ..Receipt::closing(at, ReceiptStatus::of(done)) };
        let manager = Arc::clone(self);
        tokio::spawn(async move { manager.record(base::EntryKey(key), receipt).await });
    }
}

/// What stands in the way, named.
fn blocked(pid: ProcessId, changes: &[Change], force: bool) -> Option<ProcessError> {
    use crate::layer::Blocked;
    let stands =
        |change: &&Change| change.blocked.is_some_and(|blocked| !force || blocked != Blocked::Conflict);
    let all: Vec<&Change> = changes.iter().filter(stands).collect();
    let named: Vec<String> = all
        .iter()
        .take(NAMED_MAX)
        .filter_map(|change| Some(format!("{}: {}", change.path, change.blocked?.reason())))
        .collect();
    let more = all.len().checked_sub(NAMED_MAX).filter(|more| *more > 0);
    let more = more.map_or_else(String::new, |more| format!("; and {more} more"));
    (!all.is_empty()).then(|| ProcessError::Blocked { pid, text: format!("{}{more}", named.join("; ")) })
}
