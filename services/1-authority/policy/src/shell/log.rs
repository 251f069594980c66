//! Reading the log: at the start what no snapshot holds, what is missing after a lost channel, single entries to explain.

use std::time::Duration;

use base::{AxiomRef, Hash, Sequence, TraceId};
use chain::payload::{Payload, PayloadError};
use contracts::axiom::v1::{AwaitFoldedRequest, RangeRequest, ReadRequest, axiom_client::AxiomClient};
use kit::{BoxError, Node, OperationContext, client::Calls};

/// Folding a log of many millions of entries takes minutes; nothing is decided before.
const RANGE_TIMEOUT: Duration = Duration::from_secs(3600);
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a service may take to fold what takes something away before it is a laggard (DESIGN 2).
const FOLD_WAIT_MS: u32 = 500;
/// With the time in which laggards are replaced.
const FOLD_TIMEOUT: Duration = Duration::from_secs(5);
/// Stands for everyone when axiom does not tell who has folded it.
const NOT_CONFIRMED: &str = "axiom";

/// An entry as the engine folds it.
pub(super) struct Logged {
    pub(super) at: AxiomRef,
    pub(super) payload: Payload,
    pub(super) bytes: Vec<u8>,
}

fn client(node: &Node, capability: &str, timeout: Duration) -> Result<AxiomClient<Calls>, BoxError> {
    let trace = TraceId(kit::authority::random_16()?);
    let context = OperationContext::of_service(node.identity(), capability, trace)?;
    let calls = node.peer("axiom").within(&context, None, timeout)?;
    Ok(AxiomClient::new(calls).max_decoding_message_size(64 * base::limits::MESSAGE_BYTES_MAX))
}

fn logged(entry: contracts::axiom::v1::Entry) -> Result<Option<Logged>, BoxError> {
    let hash = Hash::from_slice(&entry.hash).ok_or("an entry's hash has 32 bytes")?;
    let at = AxiomRef { sequence: Sequence(entry.sequence), hash };
    match Payload::decode(entry.entry_type, &entry.payload) {
        Ok(payload) => Ok(Some(Logged { at, payload, bytes: entry.payload })),
        // A type that this build does not know decides nothing.
        Err(PayloadError::UnknownType(_)) => Ok(None),
        Err(error) => Err(format!("entry {}: {error}", entry.sequence).into()),
    }
}

/// Returns when every running service has folded this entry, and what it took away is away; or who may still go by
/// what was before.
pub(super) async fn laggards(node: &Node, sequence: Sequence) -> Vec<String> {
    match await_folded(node, sequence).await {
        Ok(laggards) => laggards,
        Err(error) => {
            tracing::warn!(%error, %sequence, "axiom does not tell who has folded what takes something away");
            vec![NOT_CONFIRMED.to_owned()]
        }
    }
}

async fn await_folded(node: &Node, sequence: Sequence) -> Result<Vec<String>, BoxError> {
    let mut axiom = client(node, "system.axiom.await_folded", FOLD_TIMEOUT)?;
    let request = AwaitFoldedRequest { sequence: sequence.0, timeout_ms: FOLD_WAIT_MS };
    Ok(axiom.await_folded(request).await?.into_inner().laggards)
}

/// Shows every entry from `from` to the head.
pub(super) async fn read_from(
    node: &Node,
    from: Sequence,
    mut fold: impl FnMut(Logged),
) -> Result<(), BoxError> {
    let mut axiom = client(node, "system.axiom.range", RANGE_TIMEOUT)?;
    let request = RangeRequest { from: from.0, to: u64::MAX, entry_types: Vec::new() };
    let mut messages = axiom.range(request).await?.into_inner();
    while let Some(message) = messages.message().await? {
        for entry in message.entries {
            if let Some(entry) = logged(entry)? {
                fold(entry);
            }
        }
    }
    Ok(())
}

/// Whether the log has this entry; an error if it cannot be asked.
pub(super) async fn has(node: &Node, at: AxiomRef) -> Result<bool, BoxError> {
    let mut axiom = client(node, "system.axiom.read", READ_TIMEOUT)?;
    match axiom.read(ReadRequest { sequence: at.sequence.0 }).await {
        Ok(entry) => Ok(entry.into_inner().hash == at.hash.0),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(false),
        Err(status) => Err(status.into()),
    }
}

pub(super) async fn read(node: &Node, sequence: Sequence) -> Result<Option<Logged>, BoxError> {
    let mut axiom = client(node, "system.axiom.read", READ_TIMEOUT)?;
    logged(axiom.read(ReadRequest { sequence: sequence.0 }).await?.into_inner())
}
