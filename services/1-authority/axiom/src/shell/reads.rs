//! Reads: entries, the head, the state's hash, and who has folded what.

use std::{pin::Pin, sync::Arc, time::Duration};

use base::Sequence;
use contracts::axiom::v1::{
    AwaitFoldedReply, AwaitFoldedRequest, Checkpoint, Entries, Entry, GetCheckpointRequest, GetHeadRequest,
    GetStateRequest, Head, RangeRequest, ReadRequest, State, axiom_server::Axiom,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::AxiomService;
use crate::store::StoreError;

/// Entries of one message of a range.
const RANGE_ENTRIES: usize = 256;
/// Messages of a range that wait for their reader.
const RANGE_QUEUED_MAX: usize = 4;
/// Longest wait for followers, as the contract says.
const AWAIT_TIMEOUT_MS_MAX: u32 = 5_000;
/// Who has not folded a revocation after so long is killed (DESIGN 2).
const LAGGARD_AFTER: Duration = Duration::from_millis(500);
/// How long one that is killed may take to be gone, and its successor to fold what was missed.
const LAGGARD_GONE_AFTER: Duration = Duration::from_millis(1_000);
/// Those whose entries take something away. What anybody else waits for is no reason to kill.
const REVOKERS: [&str; 3] = ["capability_service", "identity", "policy"];

pub(super) struct Reads(pub(super) Arc<AxiomService>);

type EntriesStream = Pin<Box<dyn Stream<Item = Result<Entries, Status>> + Send>>;

pub(super) fn wire_entry(entry: &chain::Entry) -> Entry {
    let header = &entry.header;
    Entry {
        sequence: header.sequence.0,
        prev_hash: header.prev_hash.0.to_vec(),
        payload_hash: header.payload_hash.0.to_vec(),
        timestamp_ns: header.timestamp.0,
        entry_type: header.entry_type.code(),
        payload: entry.payload.clone(),
        signature: entry.signature.map(|signature| signature.0.to_vec()).unwrap_or_default(),
        hash: header.entry_hash(&entry.payload).0.to_vec(),
    }
}

pub(super) fn status(error: StoreError) -> Status {
    match error {
        StoreError::Archived { .. } => Status::out_of_range(error.to_string()),
        StoreError::NotFound(_) => Status::not_found(error.to_string()),
        other => Status::internal(other.to_string()),
    }
}

#[tonic::async_trait]
impl Axiom for Reads {
    type RangeStream = EntriesStream;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Entry>, Status> {
        let entry = self.0.reader.read(Sequence(request.into_inner().sequence)).map_err(status)?;
        Ok(Response::new(wire_entry(&entry)))
    }

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<EntriesStream>, Status> {
        let RangeRequest { from, to, entry_types } = request.into_inner();
        let reader = self.0.reader.clone();
        let (send, receive) = mpsc::channel(RANGE_QUEUED_MAX);
        tokio::spawn(async move {
            let mut next = from;
            while next <= to {
                let entries = match reader.range(Sequence(next), RANGE_ENTRIES) {
                    Ok(entries) => entries,
                    Err(error) => {
                        let _ = send.send(Err(status(error))).await;
                        return;
                    }
                };
                let Some(last) = entries.last() else { return };
                next = last.header.sequence.0.saturating_add(1);
                let wanted = entries.iter().filter(|entry| {
                    let code = entry.header.entry_type.code();
                    entry.header.sequence.0 <= to && (entry_types.is_empty() || entry_types.contains(&code))
                });
                let message = Entries { entries: wanted.map(|entry| wire_entry(entry)).collect() };
                if send.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn get_head(&self, _: Request<GetHeadRequest>) -> Result<Response<Head>, Status> {
        let last = self.0.reader.last();
        let signed = self.0.identity.sign(last).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(Head {
            head: Some(last.into()),
            signed: signed.as_str().to_owned(),
            axiom_time_ns: self.0.identity.time().0.0,
            first: self.0.reader.begin().point.next_sequence.0,
        }))
    }

    async fn get_checkpoint(&self, _: Request<GetCheckpointRequest>) -> Result<Response<Checkpoint>, Status> {
        let tree = Arc::clone(&self.0.tree);
        let signed = tokio::task::spawn_blocking(move || tree.checkpoint()).await;
        let signed = signed.map_err(|error| Status::internal(error.to_string()))?;
        let signed = signed.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(Checkpoint { signed: signed.to_string(), key: self.0.tree.key().to_string() }))
    }

    async fn get_state(&self, _: Request<GetStateRequest>) -> Result<Response<State>, Status> {
        let state = self.0.orders.state().await;
        let (hash, sequence) = state.ok_or_else(|| Status::unavailable("the log is stopping"))?;
        Ok(Response::new(State { state_hash: hash.0.to_vec(), sequence: sequence.0 }))
    }

    async fn await_folded(
        &self,
        request: Request<AwaitFoldedRequest>,
    ) -> Result<Response<AwaitFoldedReply>, Status> {
        let caller = kit::caller(&request)?;
        let revokes = caller.is_admin() || REVOKERS.contains(&&*caller.client);
        let AwaitFoldedRequest { sequence, timeout_ms } = request.into_inner();
        if timeout_ms > AWAIT_TIMEOUT_MS_MAX {
            let text = format!("timeout_ms is at most {AWAIT_TIMEOUT_MS_MAX}, not {timeout_ms}");
            return Err(Status::invalid_argument(text));
        }
        if sequence > self.0.reader.last().sequence.0 {
            return Err(Status::not_found(format!("entry {sequence} is not in the log")));
        }
        let timeout = Duration::from_millis(u64::from(timeout_ms));
        let mut laggards = self.0.followers.wait(sequence, timeout).await;
        if revokes && timeout >= LAGGARD_AFTER && !laggards.is_empty() {
            self.replace(&laggards, sequence).await;
            laggards = self.0.followers.wait(sequence, LAGGARD_GONE_AFTER).await;
        }
        Ok(Response::new(AwaitFoldedReply { laggards }))
    }
}

impl Reads {
    /// They may not go on serving by what was before.
    async fn replace(&self, laggards: &[String], sequence: u64) {
        for name in laggards {
            tracing::warn!(service = name, sequence, "has not folded a revocation in time");
            if let Err(error) = kit::report_laggard(&self.0.node, name).await {
                tracing::warn!(%error, service = name, "the supervisor is not told of a laggard");
            }
        }
    }
}
