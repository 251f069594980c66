//! The contract of container images: messages in, messages out.

use std::sync::Arc;

use contracts::process_manager::v1::{self as pb, tree_chunk::Chunk};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::{handlers::Handlers, images::Piece};
use crate::core::{ProcessError, Tree, TreeId, limits::CHUNK_BYTES_MAX};

/// Chunks of an archive under way to who unpacks it.
const CHUNKS_QUEUED: usize = 4;

impl Handlers {
    pub(super) async fn take_tree(
        &self,
        request: Request<Streaming<pb::TreeChunk>>,
    ) -> Result<Response<pb::Tree>, Status> {
        self.requestor(&request)?;
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.and_then(|message| message.chunk);
        let Some(Chunk::Begin(pb::TreeBegin { tag, name })) = first else {
            return Err(ProcessError::invalid("begin", "the first message names the image").into());
        };
        let (pieces, reader) = mpsc::channel(CHUNKS_QUEUED);
        let manager = Arc::clone(&self.0);
        let unpacking = tokio::spawn(async move { manager.import_tree(tag, name, reader).await });
        forward(chunks, pieces).await?;
        let tree = unpacking.await.map_err(|error| ProcessError::Internal(error.to_string()))??;
        Ok(Response::new(describe(&tree)))
    }

    pub(super) fn trees(&self, request: Request<pb::TreeFilter>) -> Result<Response<pb::TreeList>, Status> {
        self.requestor(&request)?;
        let trees = self.0.trees.list().iter().map(|tree| describe(tree)).collect();
        Ok(Response::new(pb::TreeList { trees }))
    }

    pub(super) async fn drop_tree(
        &self,
        request: Request<pb::RemoveTreeRequest>,
    ) -> Result<Response<pb::RemoveTreeReply>, Status> {
        self.requestor(&request)?;
        let id = request.into_inner().id;
        let id = <[u8; 32]>::try_from(id.as_slice())
            .map_err(|_| ProcessError::invalid("id", format!("{} bytes, not 32", id.len())))?;
        let manager = Arc::clone(&self.0);
        kit::uncancelled(async move { manager.remove_tree(TreeId(id)).await }).await?;
        Ok(Response::new(pb::RemoveTreeReply {}))
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

fn describe(tree: &Tree) -> pb::Tree {
    let content = &tree.content;
    pb::Tree {
        id: tree.id.0.to_vec(),
        name: tree.name.clone(),
        entrypoint: content.entrypoint.clone(),
        cmd: content.cmd.clone(),
        env: content.env.clone(),
        working_dir: content.working_dir.clone(),
        user: content.user.clone(),
        uid: content.uid,
        gid: content.gid,
        layers: content.layers,
        entries: content.entries,
        size_bytes: content.size_bytes,
        left_out: content.left_out,
        set_id: content.set_id,
    }
}
