//! The contract of container images: messages in, messages out.

use std::sync::Arc;

use base::TreeId;
use contracts::process_manager::v1::{self as pb, tree_chunk::Chunk};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::{handlers::Handlers, images::Piece, tree_acts::Shown};
use crate::core::{ProcessError, limits::CHUNK_BYTES_MAX};

/// Chunks of an archive under way to who unpacks it.
const CHUNKS_QUEUED: usize = 4;

impl Handlers {
    pub(super) async fn take_tree(
        &self,
        request: Request<Streaming<pb::TreeChunk>>,
    ) -> Result<Response<pb::Tree>, Status> {
        let (requestor, _) = self.requestor(&request)?;
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.and_then(|message| message.chunk);
        let Some(Chunk::Begin(pb::TreeBegin { tag, name })) = first else {
            return Err(ProcessError::invalid("begin", "the first message names the image").into());
        };
        let (pieces, reader) = mpsc::channel(CHUNKS_QUEUED);
        let manager = Arc::clone(&self.0);
        let mut importing =
            tokio::spawn(async move { manager.import_tree(tag, name, reader, requestor).await });
        let imported = tokio::select! {
            // It has its answer already, whatever still comes.
            imported = &mut importing => imported,
            forwarded = forward(chunks, pieces) => {
                forwarded?;
                importing.await
            }
        };
        let shown = imported.map_err(|error| ProcessError::Internal(error.to_string()))??;
        Ok(Response::new(describe(&shown)))
    }

    pub(super) async fn trees(
        &self,
        request: Request<pb::TreeFilter>,
    ) -> Result<Response<pb::TreeList>, Status> {
        self.requestor(&request)?;
        self.0.ready().await?;
        let trees = self.0.shown_images().iter().map(describe).collect();
        Ok(Response::new(pb::TreeList { trees }))
    }

    pub(super) async fn drop_tree(
        &self,
        request: Request<pb::RemoveTreeRequest>,
    ) -> Result<Response<pb::RemoveTreeReply>, Status> {
        let (requestor, _) = self.requestor(&request)?;
        let pb::RemoveTreeRequest { id, name } = request.into_inner();
        let id = TreeId::from_slice(&id).ok_or_else(|| {
            ProcessError::invalid("id", format!("{} bytes, not {}", id.len(), TreeId::BYTES))
        })?;
        let manager = Arc::clone(&self.0);
        let removal = async move { manager.remove_tree(id, &name, requestor).await };
        let at = kit::uncancelled(removal).await?;
        Ok(Response::new(pb::RemoveTreeReply { axiom_ref: Some(at.into()) }))
    }
}

/// Moves the chunks of a call to who unpacks them.
async fn forward(mut chunks: Streaming<pb::TreeChunk>, pieces: mpsc::Sender<Piece>) -> Result<(), Status> {
    while let Some(chunk) = chunks.message().await? {
        let Some(Chunk::Data(data)) = chunk.chunk else {
            return Err(ProcessError::invalid("begin", "only the first message names the image").into());
        };
        if data.len() > CHUNK_BYTES_MAX {
            let text = format!("{} bytes, at most {CHUNK_BYTES_MAX} are allowed", data.len());
            return Err(ProcessError::invalid("data", text).into());
        }
        // It has given up; its own answer says why.
        if pieces.send(Some(data)).await.is_err() {
            return Ok(());
        }
    }
    let _ = pieces.send(None).await;
    Ok(())
}

fn describe(shown: &Shown) -> pb::Tree {
    let Shown { name, named, tree } = shown;
    let content = tree.as_ref().map(|tree| tree.content.clone()).unwrap_or_default();
    pb::Tree {
        id: named.tree.0.to_vec(),
        name: name.clone(),
        entrypoint: content.entrypoint,
        cmd: content.cmd,
        env: content.env,
        working_dir: content.working_dir,
        user: content.user,
        uid: content.uid,
        gid: content.gid,
        layers: content.layers,
        entries: content.entries,
        size_bytes: content.size_bytes,
        left_out: content.left_out,
        set_id: content.set_id,
        owner: named.owner.0.to_vec(),
        since_ns: named.since.0,
        axiom_ref: Some(named.at.into()),
        manifest: named.manifest.map(|digest| digest.0.to_vec()).unwrap_or_default(),
        missing: tree.is_none(),
    }
}
