//! The contract of layers: messages in, messages out.

use std::sync::Arc;

use base::ProcessId;
use contracts::process_manager::v1 as pb;
use tonic::{Request, Response, Status};

use super::{handlers::Handlers, layers::Wanted};
use crate::layer::{Change, Kind, What};

impl Handlers {
    pub(super) async fn layers(
        &self,
        request: Request<pb::LayerFilter>,
    ) -> Result<Response<pb::LayerList>, Status> {
        let (_, viewer) = self.requestor(&request)?;
        self.0.ready().await?;
        let layers = self.0.layers.list(viewer).into_iter().map(|layer| pb::Layer {
            running: self.0.runs(layer.pid),
            pid: layer.pid.0,
            identity: layer.identity.0.to_vec(),
            name: layer.name,
            folders: layer.folders,
        });
        Ok(Response::new(pb::LayerList { layers: layers.collect() }))
    }

    pub(super) async fn differences(
        &self,
        request: Request<pb::DiffRequest>,
    ) -> Result<Response<pb::DiffReply>, Status> {
        let (_, viewer) = self.requestor(&request)?;
        let pb::DiffRequest { pid, path } = request.into_inner();
        let report = self.0.diff(ProcessId(pid), &path, viewer).await?;
        let changes = report.changes.iter().map(describe).collect();
        Ok(Response::new(pb::DiffReply { changes, more: report.more }))
    }

    pub(super) async fn apply(
        &self,
        request: Request<pb::CommitRequest>,
    ) -> Result<Response<pb::CommitReply>, Status> {
        let (requestor, viewer) = self.requestor(&request)?;
        let pb::CommitRequest { pid, path, force, reason } = request.into_inner();
        let manager = Arc::clone(&self.0);
        let wanted = Wanted { path, force, reason };
        let commit = async move { manager.commit_layer(ProcessId(pid), wanted, requestor, viewer).await };
        let done = kit::uncancelled(commit).await?;
        Ok(Response::new(pb::CommitReply {
            axiom_ref: Some(done.at.into()),
            applied: done.applied,
            complete: done.complete,
        }))
    }

    pub(super) async fn throw_away(
        &self,
        request: Request<pb::DiscardRequest>,
    ) -> Result<Response<pb::DiscardReply>, Status> {
        let (requestor, viewer) = self.requestor(&request)?;
        let pb::DiscardRequest { pid, reason } = request.into_inner();
        let manager = Arc::clone(&self.0);
        let discard = async move { manager.discard_layer(ProcessId(pid), reason, requestor, viewer).await };
        let at = kit::uncancelled(discard).await?;
        Ok(Response::new(pb::DiscardReply { axiom_ref: Some(at.into()) }))
    }
}

fn describe(change: &Change) -> pb::Change {
    let what = match change.what {
        What::Added => "added",
        What::Changed => "changed",
        What::Removed => "removed",
    };
    let kind = match change.kind {
        Kind::File => "file",
        Kind::Folder => "folder",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Device => "device",
        Kind::Socket => "socket",
    };
    pb::Change {
        path: change.path.clone(),
        what: what.to_owned(),
        kind: kind.to_owned(),
        size_bytes: change.size_bytes,
        blocked: change.blocked.map(|blocked| blocked.reason().to_owned()).unwrap_or_default(),
    }
}
