//! The contract: messages in, messages out.

use std::sync::Arc;

use base::{Hash, IdentityId, ProcessId};
use contracts::process_manager::v1::{self as pb, attach_input::Input, processes_server::Processes};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{images::Piece, manager::Manager, signal};
use crate::{
    core::{
        Exit, Process, ProcessError, ProcessState, Spawn, UsedPath, Uses, Viewer, limits::CHUNK_BYTES_MAX,
    },
    monitor::protocol::{Reply, Request as Ask},
};

/// Chunks of an image under way to its writer.
const CHUNKS_QUEUED: usize = 4;

pub(super) struct Handlers(pub(super) Arc<Manager>);

impl Handlers {
    /// Who asks, and what they see: services on their edges, the admin and System identities see everything.
    pub(super) fn requestor<T>(&self, request: &Request<T>) -> Result<(kit::Requestor, Viewer), Status> {
        let requestor = kit::requestor(&self.0.node, request, true)?;
        let is_service = requestor.claims().is_none() && !kit::caller(request)?.is_admin();
        let sees_all = is_service || self.0.state().ledger.is_system_class(&requestor.id());
        let viewer = if sees_all { Viewer::All } else { Viewer::Identity(requestor.id()) };
        Ok((requestor, viewer))
    }

    async fn info(&self, process: Process) -> pb::ProcessInfo {
        let mut info = describe(&process);
        if process.exit.is_none() {
            // The group counts what has come and gone between two looks; the monitor is there where no group is.
            let group = self.0.keeper.measure(process.pid.0).await.unwrap_or_default();
            if let Ok(Reply::Status(status)) = self.0.ask_monitor(process.pid, &Ask::Status).await {
                info.refused = status.refused.iter().map(Into::into).collect();
                info.thread_count = status.threads;
                let mut usage = status.usage;
                usage.cpu_time_ns = usage.cpu_time_ns.max(group.cpu_time_us.saturating_mul(1000));
                usage.memory_bytes = usage.memory_bytes.max(group.memory_bytes);
                usage.memory_peak_bytes = usage.memory_peak_bytes.max(group.memory_peak_bytes);
                info.resource_usage = Some((&usage).into());
            }
        }
        info
    }
}

fn describe(process: &Process) -> pb::ProcessInfo {
    let exit = process.exit.as_ref();
    pb::ProcessInfo {
        pid: process.pid.0,
        parent_pid: None,
        identity: process.identity.0.to_vec(),
        state: process.state.name().to_owned(),
        image: process.image.0.to_vec(),
        created_at: process.created_at.map(Into::into),
        resource_usage: exit.map(|exit| (&exit.usage).into()),
        thread_count: 0,
        name: process.name.clone(),
        host_pid: process.host_pid,
        refused: exit.map(|exit| exit.refused.iter().map(Into::into).collect()).unwrap_or_default(),
        paths: process
            .paths
            .iter()
            .map(|grant| pb::PathGrant {
                path: grant.source.clone(),
                writable: grant.writable,
                inside: grant.inside.clone(),
                copy_on_write: grant.copied,
            })
            .collect(),
    }
}

fn used_path(used: &UsedPath) -> pb::UsedPath {
    let UsedPath { path, uses, below } = used;
    let Uses { read, write, execute, connect } = *uses;
    pb::UsedPath { path: path.clone(), read, write, execute, connect, below: *below }
}

pub(super) fn wait_reply(exit: &Exit) -> pb::WaitReply {
    pb::WaitReply {
        status: Some((&exit.status).into()),
        usage: Some((&exit.usage).into()),
        refused: exit.refused.iter().map(Into::into).collect(),
        used: exit.used.0.iter().map(used_path).collect(),
        used_is_incomplete: exit.used.1,
    }
}

/// Moves the chunks of a call to the image's writer.
async fn forward(mut chunks: Streaming<pb::ImageChunk>, pieces: mpsc::Sender<Piece>) -> Result<(), Status> {
    while let Some(chunk) = chunks.message().await? {
        if chunk.data.len() > CHUNK_BYTES_MAX {
            let text = format!("{} bytes, at most {CHUNK_BYTES_MAX} are allowed", chunk.data.len());
            return Err(ProcessError::invalid("data", text).into());
        }
        // The writer has given up; its own answer says why.
        if pieces.send(Some(chunk.data)).await.is_err() {
            return Ok(());
        }
    }
    let _ = pieces.send(None).await;
    Ok(())
}

#[tonic::async_trait]
impl Processes for Handlers {
    async fn put_image(
        &self,
        request: Request<Streaming<pb::ImageChunk>>,
    ) -> Result<Response<pb::Image>, Status> {
        self.requestor(&request)?;
        let (pieces, writer) = mpsc::channel(CHUNKS_QUEUED);
        let images = self.0.images.clone();
        let writing = tokio::spawn(async move { images.put(writer).await });
        forward(request.into_inner(), pieces).await?;
        let (hash, size_bytes) =
            writing.await.map_err(|error| ProcessError::Internal(error.to_string()))??;
        Ok(Response::new(pb::Image { hash: hash.0.to_vec(), size_bytes }))
    }

    async fn spawn(&self, request: Request<pb::SpawnRequest>) -> Result<Response<pb::SpawnResponse>, Status> {
        let (requestor, _) = self.requestor(&request)?;
        let misuse = kit::misuse(&request)?;
        let allowed: Vec<String> =
            request.get_ref().disabled_guards.iter().filter(|name| kit::is_broken(name)).cloned().collect();
        let mut spawn = Spawn::parse(request.into_inner(), &allowed)?;
        let manager = Arc::clone(&self.0);
        let claim = manager.enter_tree(&mut spawn, &requestor).await?;
        if let Some(id) = manager.foreign_capability(&spawn, &requestor) {
            misuse.is_abuse(&format!("named capability {id}, which another holds"));
        }
        // From commit to release nothing may cut it.
        let spawned = kit::uncancelled(async move {
            let _claim = claim;
            manager.spawn(spawn, requestor).await
        });
        let spawned = spawned.await?;
        Ok(Response::new(pb::SpawnResponse {
            pid: spawned.pid.0,
            tid: spawned.host_pid,
            axiom_ref: Some(spawned.at.into()),
            missing: spawned.missing,
        }))
    }

    async fn kill(&self, request: Request<pb::KillRequest>) -> Result<Response<pb::KillReply>, Status> {
        let (requestor, viewer) = self.requestor(&request)?;
        let pb::KillRequest { pid, signal, reason } = request.into_inner();
        let signal = signal::parse(&signal)?;
        let manager = Arc::clone(&self.0);
        let signalled =
            async move { manager.signal(ProcessId(pid), signal, reason, requestor, viewer).await };
        let at = kit::uncancelled(signalled).await?;
        Ok(Response::new(pb::KillReply { axiom_ref: Some(at.into()) }))
    }

    async fn get_info(
        &self,
        request: Request<pb::GetInfoRequest>,
    ) -> Result<Response<pb::ProcessInfo>, Status> {
        let (_, viewer) = self.requestor(&request)?;
        self.0.ready().await?;
        let process = self.0.state().table.find(ProcessId(request.get_ref().pid), viewer)?.clone();
        Ok(Response::new(self.info(process).await))
    }

    async fn list(&self, request: Request<pb::ProcessFilter>) -> Result<Response<pb::ProcessList>, Status> {
        let (_, viewer) = self.requestor(&request)?;
        let filter = Filter::parse(request.get_ref())?;
        self.0.ready().await?;
        let processes: Vec<Process> =
            self.0.state().table.list(viewer).filter(|process| filter.takes(process)).cloned().collect();
        let mut list = Vec::with_capacity(processes.len());
        for process in processes {
            list.push(self.info(process).await);
        }
        Ok(Response::new(pb::ProcessList { processes: list }))
    }

    async fn wait(&self, request: Request<pb::WaitRequest>) -> Result<Response<pb::WaitReply>, Status> {
        let (_, viewer) = self.requestor(&request)?;
        self.0.ready().await?;
        let exit = self.0.wait(ProcessId(request.get_ref().pid), viewer).await?;
        Ok(Response::new(wait_reply(&exit)))
    }

    type AttachStream = ReceiverStream<Result<pb::AttachOutput, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::AttachInput>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (_, viewer) = self.requestor(&request)?;
        let mut input = request.into_inner();
        let first = input.message().await?.and_then(|message| message.input);
        let Some(Input::Pid(pid)) = first else {
            return Err(ProcessError::invalid("pid", "the first message names the process").into());
        };
        let output = self.0.attach(ProcessId(pid), viewer, input).await?;
        Ok(Response::new(ReceiverStream::new(output)))
    }

    type ExecuteStream = ReceiverStream<Result<pb::AttachOutput, Status>>;

    async fn execute(
        &self,
        request: Request<Streaming<pb::ExecuteInput>>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let (requestor, viewer) = self.requestor(&request)?;
        let mut input = request.into_inner();
        let first = input.message().await?.and_then(|message| message.input);
        let Some(pb::execute_input::Input::Begin(begin)) = first else {
            return Err(ProcessError::invalid("begin", "the first message names process and command").into());
        };
        let manager = Arc::clone(&self.0);
        // Once it is decided, nothing may cut it before its end is on record.
        let executed = async move { manager.execute(begin, input, requestor, viewer).await };
        Ok(Response::new(ReceiverStream::new(kit::uncancelled(executed).await?)))
    }

    async fn list_layers(
        &self,
        request: Request<pb::LayerFilter>,
    ) -> Result<Response<pb::LayerList>, Status> {
        self.layers(request).await
    }

    async fn diff(&self, request: Request<pb::DiffRequest>) -> Result<Response<pb::DiffReply>, Status> {
        self.differences(request).await
    }

    async fn commit(&self, request: Request<pb::CommitRequest>) -> Result<Response<pb::CommitReply>, Status> {
        self.apply(request).await
    }

    async fn discard(
        &self,
        request: Request<pb::DiscardRequest>,
    ) -> Result<Response<pb::DiscardReply>, Status> {
        self.throw_away(request).await
    }

    async fn import_tree(
        &self,
        request: Request<Streaming<pb::TreeChunk>>,
    ) -> Result<Response<pb::Tree>, Status> {
        self.take_tree(request).await
    }

    async fn list_trees(&self, request: Request<pb::TreeFilter>) -> Result<Response<pb::TreeList>, Status> {
        self.trees(request).await
    }

    async fn remove_tree(
        &self,
        request: Request<pb::RemoveTreeRequest>,
    ) -> Result<Response<pb::RemoveTreeReply>, Status> {
        self.drop_tree(request).await
    }
}

#[derive(Debug)]
struct Filter {
    identity: Option<IdentityId>,
    state: Option<ProcessState>,
}

impl Filter {
    fn parse(filter: &pb::ProcessFilter) -> Result<Self, ProcessError> {
        let identity = match filter.identity.as_slice() {
            [] => None,
            bytes => Some(IdentityId::from_slice(bytes).ok_or_else(|| {
                ProcessError::invalid("identity", format!("not {} bytes", Hash::ZERO.0.len()))
            })?),
        };
        let state = match filter.state.as_str() {
            "" => None,
            name => Some(
                ProcessState::parse(name)
                    .ok_or_else(|| ProcessError::invalid("state", format!("there is no state {name:?}")))?,
            ),
        };
        Ok(Self { identity, state })
    }

    fn takes(&self, process: &Process) -> bool {
        self.identity.is_none_or(|identity| process.identity == identity)
            && self.state.is_none_or(|state| process.state == state)
    }
}
