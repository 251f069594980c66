//! What all handlers share: the core's state, the keeper, the images, the connections to monitors.

use std::{
    collections::HashMap,
    io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use base::{EntryKey, ProcessId, TreeId};
use kit::{BoxError, Component, FeedEntry, Node};
use tokio::sync::{mpsc, watch};

use super::{
    control::{Control, ControlError},
    images::Images,
    inherited::Inherited,
    jobs::Jobs,
    keeper::Keeper,
    layers::Layers,
    trees::Trees,
};
use crate::{
    core::{Host, ImageLedger, JobLedger, Ledger, ProcessError, Table},
    monitor::protocol::{Reply, Request},
};

/// How often ended processes are looked at, to forget those that were waited for.
const FORGET_EVERY: Duration = Duration::from_millis(250);
/// How long a call waits for the programs of the last run to be taken over.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// A monitor answers within milliseconds. One that is stopped or starved must not hold its caller.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) table: Table,
    pub(super) jobs: JobLedger,
    pub(super) images: ImageLedger,
    /// Spawns under way, by key; dropped when they are finished.
    pub(super) under_way: HashMap<EntryKey, watch::Receiver<()>>,
}

impl State {
    /// A program whose root is this image.
    pub(super) fn runs_in(&self, tree: TreeId) -> Option<ProcessId> {
        let used = format!("image:{tree}:");
        let mut open = self.ledger.open().iter();
        open.find(|(_, open)| open.create.grants.iter().any(|grant| grant.starts_with(&used)))
            .map(|(pid, _)| *pid)
    }
}

/// The folds, for the snapshot.
#[derive(Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
struct Saved {
    #[cbor(n(0), with = "minicbor::bytes")]
    ledger: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    jobs: Vec<u8>,
    #[cbor(n(2), with = "minicbor::bytes")]
    images: Vec<u8>,
}

pub(super) struct Manager {
    pub(super) node: Node,
    pub(super) keeper: Keeper,
    pub(super) images: Images,
    pub(super) layers: Layers,
    pub(super) trees: Trees,
    pub(super) jobs: Jobs,
    pub(super) host: Host,
    pub(super) image: std::os::fd::OwnedFd,
    pub(super) error: std::os::fd::OwnedFd,
    programs: PathBuf,
    state: Mutex<State>,
    controls: Mutex<HashMap<ProcessId, Arc<tokio::sync::Mutex<Control>>>>,
    /// Told whenever a process ends or the log says something new about one.
    pub(super) changed: watch::Sender<()>,
    pub(super) recovered: watch::Sender<bool>,
    born: Instant,
    /// Nothing can be started or taken over any more: a new process may.
    lost: AtomicBool,
}

impl Manager {
    pub(super) async fn start(
        node: Node,
        state_folder: &Path,
        inherited: Inherited,
    ) -> Result<Arc<Self>, BoxError> {
        let Inherited { keeper, image, error, images, host } = inherited;
        let programs = state_folder.join("programs");
        std::fs::create_dir_all(&programs)?;
        kit::way_out::write_name_servers(&images)?;
        let (exits, told) = mpsc::unbounded_channel();
        let nonce =
            u64::from_le_bytes(kit::authority::random_16()?.first_chunk().copied().unwrap_or_default());
        let manager = Arc::new(Self {
            keeper: Keeper::connect(keeper, nonce, exits).await?,
            layers: Layers::open(&images, state_folder)?,
            trees: Trees::open(&images, state_folder)?,
            jobs: Jobs::open(&images, &node)?,
            images: Images::open_folder(&images)?,
            node,
            host,
            image,
            error,
            programs,
            state: Mutex::default(),
            controls: Mutex::default(),
            changed: watch::channel(()).0,
            recovered: watch::channel(false).0,
            born: Instant::now(),
            lost: AtomicBool::new(false),
        });
        tokio::spawn(Arc::clone(&manager).look_after(told));
        Ok(manager)
    }

    /// Takes over what runs, then listens to the keeper and forgets what is over, for this process's life.
    async fn look_after(
        self: Arc<Self>,
        mut exits: mpsc::UnboundedReceiver<(u64, sandbox::keeper_protocol::Exit)>,
    ) {
        self.node.feed().caught_up().await;
        if let Err(error) = self.take_over().await {
            // Half a take-over must not look whole: calls go on being answered `Recovering`, health says why.
            tracing::error!(%error, "programs of the last run could not be taken over");
            self.lost.store(true, Ordering::Relaxed);
            return;
        }
        self.close_interrupted_jobs();
        self.forget_unnamed_trees();
        self.recovered.send_replace(true);
        self.remove_left_trees();
        let mut changed = self.changed.subscribe();
        loop {
            tokio::select! {
                exit = exits.recv() => match exit {
                    Some((id, exit)) => self.monitor_ended(ProcessId(id), exit).await,
                    // Without the keeper nothing can be started or measured; the supervisor sees it in `health`.
                    None => return self.lost.store(true, Ordering::Relaxed),
                },
                _ = changed.changed() => self.close_orphans(),
                () = tokio::time::sleep(FORGET_EVERY), if self.has_ended_ones() => self.forget().await,
            }
        }
    }

    fn has_ended_ones(&self) -> bool {
        self.state().table.list(crate::core::Viewer::All).any(|process| process.exit.is_some())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds on this process's own clock.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn fold(&self, entry: &FeedEntry) -> Result<(), BoxError> {
        if matches!(entry.entry_type, 0 | 30 | 31 | 70..=73 | 76 | 77 | 80 | 88) {
            let payload = entry.decode()?;
            let mut state = self.state();
            state.ledger.apply(entry.reference(), payload);
            state.jobs.apply(entry.reference(), payload);
            state.images.apply(entry.reference(), entry.timestamp, payload);
            drop(state);
            if matches!(entry.entry_type, 70..=73 | 80) {
                self.jobs.changed();
            }
            if entry.entry_type == 30 {
                self.changed.send_replace(());
            }
        }
        Ok(())
    }

    fn forget_unnamed_trees(&self) {
        let state = self.state();
        self.trees.forget_unnamed(&state.images, |tree| state.runs_in(tree).is_some());
    }

    pub(super) fn save(&self) -> Vec<u8> {
        let state = self.state();
        let (ledger, jobs, images) = (state.ledger.save(), state.jobs.save(), state.images.save());
        base::cbor::encode(&Saved { ledger, jobs, images })
    }

    pub(super) fn restore(&self, own: &[u8]) -> Result<(), BoxError> {
        let saved: Saved = base::cbor::decode(own)?;
        let (ledger, jobs) = (Ledger::restore(&saved.ledger)?, JobLedger::restore(&saved.jobs)?);
        let images = ImageLedger::restore(&saved.images)?;
        let mut state = self.state();
        (state.ledger, state.jobs, state.images) = (ledger, jobs, images);
        Ok(())
    }

    pub(super) fn health(&self) -> Component {
        if self.lost.load(Ordering::Relaxed) {
            return Component::failed(
                "keeper",
                "the keeper or the programs of the last run cannot be reached",
            );
        }
        Component::healthy("keeper")
    }

    /// No call changes or shows anything before the programs of the last run are known.
    pub(super) async fn ready(&self) -> Result<(), ProcessError> {
        let mut recovered = self.recovered.subscribe();
        match tokio::time::timeout(RECOVERY_TIMEOUT, recovered.wait_for(|done| *done)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ProcessError::Recovering),
        }
    }

    /// The folder of one program: its control socket and its output.
    pub(super) fn folder(&self, pid: ProcessId) -> PathBuf {
        self.programs.join(pid.0.to_string())
    }

    pub(super) fn socket(&self, pid: ProcessId) -> PathBuf {
        self.folder(pid).join("control.sock")
    }

    pub(super) fn remove_folder(&self, pid: ProcessId) {
        let folder = self.folder(pid);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, folder = %folder.display(), "the folder of an ended program stays");
            }
            _ => {}
        }
        self.controls().remove(&pid);
    }

    /// Folders of programs that may be left from before.
    pub(super) fn folders(&self) -> io::Result<Vec<ProcessId>> {
        let names = std::fs::read_dir(&self.programs)?;
        Ok(names.filter_map(|name| name.ok()?.file_name().to_str()?.parse().ok().map(ProcessId)).collect())
    }

    fn controls(&self) -> MutexGuard<'_, HashMap<ProcessId, Arc<tokio::sync::Mutex<Control>>>> {
        self.controls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request to a monitor, over the connection that is kept for it.
    pub(super) async fn ask_monitor(&self, pid: ProcessId, request: &Request) -> Result<Reply, ControlError> {
        self.ask_monitor_with(pid, request, None).await
    }

    /// The same, with a descriptor that goes along.
    pub(super) async fn ask_monitor_with(
        &self,
        pid: ProcessId,
        request: &Request,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Reply, ControlError> {
        let ask = async {
            let known = self.controls().get(&pid).cloned();
            let control = match known {
                Some(control) => control,
                None => {
                    let control = Control::connect(&self.socket(pid)).await?;
                    let control = Arc::new(tokio::sync::Mutex::new(control));
                    self.controls().insert(pid, Arc::clone(&control));
                    control
                }
            };
            let mut control = control.lock().await;
            control.call_with(request, fd).await
        };
        let result = match tokio::time::timeout(MONITOR_TIMEOUT, ask).await {
            Ok(result) => result,
            Err(_) => Err(ControlError::Gone),
        };
        if matches!(result, Err(ControlError::Io(_) | ControlError::Frame(_) | ControlError::Gone)) {
            self.controls().remove(&pid);
        }
        result
    }
}
