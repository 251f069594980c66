//! From a request to a running program, in the order of PRC-21: decision, image, hold, commit, release.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, OpenOptionsExt},
            net::UnixListener,
        },
    },
    sync::Arc,
};

use base::{AxiomRef, CapabilityId, EntryKey, ProcessId, cbor};
use chain::payload::{
    ReceiptStatus,
    policy::{PolicyAction, PolicyRequest, ResourceRef, ResourceType},
    process::{ExitStatus, ProcessCreate},
};
use kit::{Requestor, authority::Entry};
use rustix::fs::MemfdFlags;
use sandbox::Guard;
use tokio::sync::watch;
use tonic::Status;

use super::{adopt::format_grant, egress, keeper::KeeperError, manager::Manager};
use crate::{
    core::{
        Event, MONITOR_SLOTS, Plans, Process, ProcessError, ProcessState, Root, SECRETS_SLOT, Secret, Spawn,
        Started, has_datagrams, layers_bytes_max, logged_credential, plans,
    },
    monitor::{
        output::OUTPUT_BYTES_MAX,
        protocol::{Config, Reply, Request},
    },
};

/// How many times the feed's own patience (100 ms) a spawn waits to see its entry.
const FOLD_WAITS_MAX: usize = 20;

/// What the caller learns.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) pid: ProcessId,
    pub(super) host_pid: u32,
    pub(super) at: AxiomRef,
    pub(super) missing: Vec<String>,
}

impl Manager {
    /// The same key starts one process, also when both requests are under way at once.
    pub(super) async fn spawn(
        self: &Arc<Self>,
        spawn: Spawn,
        requestor: Requestor,
    ) -> Result<Spawned, Status> {
        self.ready().await?;
        let key = spawn.entry_key(requestor.id());
        let mut finished = loop {
            let other = {
                let mut state = self.state();
                if let Some(started) = state.ledger.started(&key) {
                    return Ok(repeated(&state, started, &spawn)?);
                }
                match state.under_way.get(&key) {
                    Some(other) => other.clone(),
                    None => {
                        let (finished, under_way) = watch::channel(());
                        state.under_way.insert(key, under_way);
                        break Some(finished);
                    }
                }
            };
            let mut other = other;
            // Ends when the other's sender is dropped.
            while other.changed().await.is_ok() {}
            self.wait_for_fold(&key).await;
        };
        let result = self.spawn_once(&spawn, &requestor, key).await;
        if let Ok(spawned) = &result {
            // Whoever comes with the same key then finds it in the ledger; if not, the log still refuses its entry.
            for _ in 0..FOLD_WAITS_MAX {
                if self.node.feed().wait_for(spawned.at.sequence).await.is_ok() {
                    break;
                }
            }
        }
        self.state().under_way.remove(&key);
        drop(finished.take());
        result
    }

    /// The other request's end and its entry's fold are two events; it removes its mark after both.
    async fn wait_for_fold(&self, key: &EntryKey) {
        while self.state().under_way.contains_key(key) {
            tokio::task::yield_now().await;
        }
    }

    async fn spawn_once(
        self: &Arc<Self>,
        spawn: &Spawn,
        requestor: &Requestor,
        key: EntryKey,
    ) -> Result<Spawned, Status> {
        self.check_identity(spawn, requestor)?;
        self.check_capabilities(spawn, requestor)?;
        let request = self.question(spawn, requestor)?;
        // A refused request launches nothing; the act below decides again, with decision and entry in one write.
        self.node.authority().preflight(&request).await?;
        let image = self.images.open(spawn.image, spawn.unpinned || kit::is_broken("hash-pin")).await?;
        let pid = self.enter(spawn, requestor)?;
        let held = match self.hold(spawn, pid, requestor, image).await {
            Ok(held) => held,
            Err(error) => {
                self.undo(pid).await;
                return Err(error.into());
            }
        };
        let create = ProcessCreate {
            pid,
            image: spawn.image,
            identity: spawn.identity,
            capabilities: spawn.capabilities.clone(),
            limits: spawn.limits.clone(),
            by: requestor.id(),
            args_hash: spawn.args_hash(),
            name: spawn.logged_name(),
            grants: spawn
                .root
                .iter()
                .map(Root::logged)
                .chain(spawn.paths.iter().map(format_grant))
                .chain(spawn.secrets.iter().map(Secret::logged))
                .chain(spawn.egress.iter().map(|place| egress::logged(place)))
                .chain(spawn.credentials.iter().map(logged_credential))
                .collect(),
            missing: held.missing.clone(),
        };
        let at = match self.commit(&request, self.use_question(spawn, requestor)?, key, create).await {
            Ok(at) => at,
            Err(status) => {
                // Whatever became of the entry: if it stands in the log after all, it is closed as `Unknown`.
                self.undo(pid).await;
                return Err(status);
            }
        };
        self.release(pid, at, spawn).await?;
        Ok(Spawned { pid, host_pid: held.host_pid, at, missing: held.missing })
    }

    fn check_identity(&self, spawn: &Spawn, requestor: &Requestor) -> Result<(), ProcessError> {
        let unknown = |text| ProcessError::UnknownIdentity { identity: spawn.identity, text };
        match self.node.local().identity_status(&spawn.identity) {
            None => return Err(unknown("does not exist")),
            Some(_) if !self.node.local().is_active(&spawn.identity) => {
                return Err(unknown("is suspended or revoked"));
            }
            Some(_) => {}
        }
        let state = self.state();
        let by = requestor.id();
        if state.ledger.is_system_class(&by) || state.ledger.descends(spawn.identity, by) {
            return Ok(());
        }
        Err(unknown("is neither the caller's own nor below it"))
    }

    fn check_capabilities(&self, spawn: &Spawn, requestor: &Requestor) -> Result<(), ProcessError> {
        let now = self.node.clock().now();
        let held = |id| self.node.local().holds_capability(&requestor.id(), id, now);
        match spawn.capabilities.iter().find(|id| !held(id)) {
            Some(id) => Err(ProcessError::CapabilityDenied(*id)),
            None => Ok(()),
        }
    }

    /// A capability that is named and held by somebody else: no mistake makes one up.
    pub(super) fn foreign_capability(&self, spawn: &Spawn, requestor: &Requestor) -> Option<CapabilityId> {
        let holder = |id| self.node.local().holder(id);
        spawn.capabilities.iter().find(|id| holder(id).is_some_and(|it| it != requestor.id())).copied()
    }

    /// Gives the process its id and its place in the table.
    fn enter(&self, spawn: &Spawn, requestor: &Requestor) -> Result<ProcessId, ProcessError> {
        let mut state = self.state();
        let gone = state.table.make_room()?;
        let on_record = state.ledger.highest().max(state.jobs.highest());
        let pid = state.table.reserve(on_record);
        state.table.insert(Process {
            pid,
            state: ProcessState::Creating,
            image: spawn.image,
            identity: spawn.identity,
            by: requestor.id(),
            name: spawn.name.clone(),
            paths: spawn.paths.clone(),
            created_at: None,
            host_pid: 0,
            exit: None,
            attached: 0,
        });
        drop(state);
        if let Some(gone) = gone {
            let keeper = self.keeper.clone();
            tokio::spawn(async move { keeper.kill(gone.0).await });
        }
        Ok(pid)
    }

    /// Starts the monitor, which holds the program until the log has it.
    async fn hold(
        self: &Arc<Self>,
        spawn: &Spawn,
        pid: ProcessId,
        requestor: &Requestor,
        image: File,
    ) -> Result<Held, ProcessError> {
        self.layers.make(spawn, pid, requestor.id())?;
        let plans = plans(spawn, &self.host, pid);
        let internal = |error: io::Error| ProcessError::Internal(format!("preparing process {pid}: {error}"));
        let slots = self.slots(spawn, pid, &plans, image).map_err(internal)?;
        // Its socket stands already: the question waits there for it. Of a launch that fails both end.
        let (started, status) = tokio::join!(
            self.keeper.launch(pid.0, &plans.monitor, slots),
            self.ask_monitor(pid, &Request::Status)
        );
        let started = started.map_err(|error| match error {
            KeeperError::Launch { step, text } => ProcessError::Launch { step, text },
            other => ProcessError::Internal(other.to_string()),
        })?;
        let mut missing = started.missing;
        match status {
            Ok(Reply::Status(status)) => missing.extend(status.missing),
            Ok(_) => return Err(ProcessError::Internal("the monitor does not answer for itself".to_owned())),
            Err(error) => {
                return Err(ProcessError::Launch { step: "monitor".to_owned(), text: error.to_string() });
            }
        }
        missing.dedup();
        if !spawn.egress.is_empty() {
            self.open_way_out(pid, spawn.identity, &spawn.egress, &spawn.credentials).await?;
        }
        if let Some(process) = self.state().table.get_mut(pid) {
            process.host_pid = started.host_pid;
        }
        Ok(Held { host_pid: started.host_pid, missing })
    }

    /// The descriptors of a launch, in the order of [`MONITOR_SLOTS`].
    fn slots(&self, spawn: &Spawn, pid: ProcessId, plans: &Plans, image: File) -> io::Result<Vec<OwnedFd>> {
        let folder = self.folder(pid);
        // Of an earlier process of this service that got no further than this.
        self.remove_folder(pid);
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let config = Config {
            plan: plans.program.clone(),
            watch: plans.watch.clone(),
            image_path: plans.image_path.clone(),
            timeout_ms: spawn.timeout_ms,
            cpu_time_ms: spawn.limits.cpu_time_ms,
            own_network: !spawn.disabled.contains(Guard::Netns),
            output_bytes_max: OUTPUT_BYTES_MAX,
            terminal: spawn.terminal,
            layers_bytes_max: layers_bytes_max(spawn),
            fixed: None,
            calls_pass: false,
            outputs: Vec::new(),
            way_out: !spawn.egress.is_empty(),
            outputs_bytes_max: 0,
            learn: spawn.learn,
            datagrams: has_datagrams(spawn),
            proxy: spawn.proxy,
        };
        let mut slots = self.usual_slots(pid, &config, image)?;
        if !spawn.secrets.is_empty() {
            debug_assert_eq!(slots.len(), SECRETS_SLOT as usize);
            let contents: Vec<&[u8]> = spawn.secrets.iter().map(|secret| secret.content.as_slice()).collect();
            slots.push(memfd(&zeroize::Zeroizing::new(contents.concat()))?);
        }
        if layers_bytes_max(spawn).is_some() {
            slots.push(File::open(self.layers.folder(pid))?.into());
        }
        Ok(slots)
    }

    /// What every monitor gets; the folder of the process is there.
    pub(super) fn usual_slots(
        &self,
        pid: ProcessId,
        config: &Config,
        image: File,
    ) -> io::Result<Vec<OwnedFd>> {
        let folder = self.folder(pid);
        let output = |name| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600).open(folder.join(name))
        };
        let slots = vec![
            self.image.try_clone()?,
            memfd(&cbor::encode(config))?,
            UnixListener::bind(self.socket(pid))?.into(),
            image.into(),
            output("stdout")?.into(),
            output("stderr")?.into(),
            self.error.try_clone()?,
        ];
        debug_assert_eq!(slots.len(), MONITOR_SLOTS as usize);
        Ok(slots)
    }

    /// What policy is asked, within the scope of the requestor's token.
    fn question(&self, spawn: &Spawn, requestor: &Requestor) -> Result<PolicyRequest, Status> {
        let resource = ResourceRef { resource_type: ResourceType::Image, id: spawn.image.to_string() };
        let action = PolicyAction::CreateProcess { image: spawn.image };
        let mut request = requestor.ask(&self.node, action, resource)?;
        request.context.metadata.insert("identity".to_owned(), spawn.identity.to_string());
        if spawn.learn {
            // What it uses is told to whoever runs it, so that it is no secret to the rules.
            request.context.metadata.insert("learn".to_owned(), "true".to_owned());
        }
        if let Some((root, tree)) = spawn.root.as_ref().and_then(|root| Some((root, root.tree?))) {
            request.context.metadata.insert("image".to_owned(), root.name.clone());
            request.context.metadata.insert("tree".to_owned(), tree.to_string());
        }
        Ok(request)
    }

    /// Of a program in an image two things are decided: that the image is used, which the decision records, and the program.
    async fn commit(
        &self,
        request: &PolicyRequest,
        image: Option<PolicyRequest>,
        key: EntryKey,
        create: ProcessCreate,
    ) -> Result<AxiomRef, Status> {
        let entry = Entry::build(self.node.identity(), Some(request.hash()), key, create)?;
        if let Some(image) = image {
            self.node.authority().evaluate(&image).await?;
        }
        let committed = self.node.authority().act(request, entry).await?;
        if committed.duplicate {
            // The log knew this key from before what is remembered here; that process had its life.
            return Err(ProcessError::invalid("idempotency_key", "it started a process long ago").into());
        }
        committed.entry.ok_or_else(|| ProcessError::Internal("policy named no entry".to_owned()).into())
    }

    async fn release(
        self: &Arc<Self>,
        pid: ProcessId,
        at: AxiomRef,
        spawn: &Spawn,
    ) -> Result<(), ProcessError> {
        {
            let mut state = self.state();
            state.table.step(pid, Event::Started)?;
            if let Some(process) = state.table.get_mut(pid) {
                process.created_at = Some(at);
            }
        }
        let released = self.ask_monitor(pid, &Request::Release).await;
        let (status, result) = match released {
            Ok(Reply::Started) => (ReceiptStatus::Success, Ok(())),
            Ok(Reply::StartFailed { step, errno, text }) => {
                let code = if errno == rustix::io::Errno::NOENT.raw_os_error() { 127 } else { 126 };
                self.finish(pid, ExitStatus::Code(code), Default::default(), Vec::new());
                (ReceiptStatus::Failed { exit_code: code }, Err(ProcessError::Launch { step, text }))
            }
            other => {
                let text = format!("the monitor died before the program ran: {other:?}");
                let _ = self.keeper.kill(pid.0).await;
                (ReceiptStatus::Failed { exit_code: 126 }, Err(ProcessError::Internal(text)))
            }
        };
        let manager = Arc::clone(self);
        let image = spawn.image;
        tokio::spawn(async move { manager.record_receipt(pid, at, image, status).await });
        match &result {
            Ok(()) => self.watch(pid),
            // Nobody will wait for what never ran.
            Err(_) => {
                if let Some(exit) = self.state().table.get_mut(pid).and_then(|process| process.exit.as_mut())
                {
                    exit.waited = true;
                }
            }
        }
        result
    }

    /// Nothing of it ran and nothing stays.
    async fn undo(&self, pid: ProcessId) {
        self.abandon(pid).await;
        self.remove_folder(pid);
        self.drop_layer(pid).await;
    }
}

#[derive(Debug)]
struct Held {
    host_pid: u32,
    missing: Vec<String>,
}

/// The answer to a key that has started its process: the same process, if it is the same request.
fn repeated(
    state: &super::manager::State,
    started: &Started,
    spawn: &Spawn,
) -> Result<Spawned, ProcessError> {
    let same = started.image == spawn.image
        && started.identity == spawn.identity
        && started.args_hash == spawn.args_hash();
    if !same {
        return Err(ProcessError::invalid("idempotency_key", "it has started another program"));
    }
    Ok(Spawned {
        pid: started.pid,
        host_pid: state.table.get(started.pid).map_or(0, |process| process.host_pid),
        at: started.at,
        missing: started.missing.clone(),
    })
}

/// Bytes in memory, to be read from the start.
pub(super) fn memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create("monitor", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    rustix::fs::seek(file.as_fd(), rustix::fs::SeekFrom::Start(0))?;
    Ok(file.into())
}
