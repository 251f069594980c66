//! The append channel: batches in, results out, in order.

use std::{pin::Pin, sync::Arc};

use base::limits::MESSAGE_BYTES_MAX;
use chain::EntryType;
use contracts::axiom::v1::{
    AppendBatch, AppendResults, Head, Rejection, Unit as WireUnit, UnitResult, append_server::Append,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::AxiomService;
use crate::core::{Draft, Refusal, RejectionReason, Source, Unit, UnitReply};

/// Bytes of one batch on the wire: one message of payloads, and what surrounds each unit.
pub(super) const BATCH_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// Units of one batch, as the contract says.
const BATCH_UNITS_MAX: usize = 1024;
/// Proposals of one unit, as the contract says.
const UNIT_PROPOSALS_MAX: usize = 4;
/// Batches of one channel that are not answered yet; more wait in the socket.
const BATCHES_IN_FLIGHT_MAX: usize = 64;

pub(super) struct Appends(pub(super) Arc<AxiomService>);

type Results = Pin<Box<dyn Stream<Item = Result<AppendResults, Status>> + Send>>;

/// What came on the channel, to be answered in order.
struct Waiting {
    ids: Vec<u64>,
    replies: oneshot::Receiver<super::order::Answer>,
    /// Units that were refused before they were ordered, by their place.
    refused: Vec<(usize, Refusal)>,
}

#[tonic::async_trait]
impl Append for Appends {
    type ChannelStream = Results;

    async fn channel(&self, request: Request<Streaming<AppendBatch>>) -> Result<Response<Results>, Status> {
        let source = match &*kit::caller(&request)?.client {
            "policy" => Source::Policy,
            "supervisor" => Source::Supervisor,
            other => return Err(Status::permission_denied(format!("{other} appends nothing"))),
        };
        let service = Arc::clone(&self.0);
        let (results, outgoing) = mpsc::channel(BATCHES_IN_FLIGHT_MAX);
        let (waiting, mut answered) = mpsc::channel::<Waiting>(BATCHES_IN_FLIGHT_MAX);
        let head = AppendResults { results: Vec::new(), head: Some(head(&service)?) };
        results.try_send(Ok(head)).map_err(|_| Status::internal("a new channel is full"))?;
        let failures = results.clone();
        tokio::spawn(async move {
            while let Some(batch) = answered.recv().await {
                // The ordering thread ends only with the process.
                let Ok((replies, time)) = batch.replies.await else { return };
                let answer =
                    AppendResults { results: merge(batch.ids, replies, batch.refused, time.0), head: None };
                if results.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            if let Err(status) = receive(&service, source, request.into_inner(), &waiting).await {
                let _ = failures.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

fn head(service: &AxiomService) -> Result<Head, Status> {
    let last = service.reader.last();
    let signed = service.identity.sign(last).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Head {
        head: Some(last.into()),
        signed: signed.as_str().to_owned(),
        axiom_time_ns: service.identity.time().0.0,
        first: service.reader.begin().point.next_sequence.0,
    })
}

async fn receive(
    service: &AxiomService,
    source: Source,
    mut batches: Streaming<AppendBatch>,
    waiting: &mpsc::Sender<Waiting>,
) -> Result<(), Status> {
    while let Some(batch) = batches.message().await? {
        if batch.units.len() > BATCH_UNITS_MAX {
            let text = format!("a batch has at most {BATCH_UNITS_MAX} units, not {}", batch.units.len());
            return Err(Status::invalid_argument(text));
        }
        let mut ids = Vec::with_capacity(batch.units.len());
        let mut units = Vec::with_capacity(batch.units.len());
        let mut refused = Vec::new();
        for (place, unit) in batch.units.into_iter().enumerate() {
            ids.push(unit.id);
            match drafts(unit) {
                Ok(unit) => units.push(unit),
                Err(refusal) => refused.push((place, refusal)),
            }
        }
        let (answer, replies) = oneshot::channel();
        // Waits here when too much is unanswered, before anything of this batch is ordered.
        if waiting.send(Waiting { ids, replies, refused }).await.is_err() {
            return Ok(());
        }
        service.orders.submit(source, units, move |replies| drop(answer.send(replies))).await;
    }
    Ok(())
}

fn drafts(unit: WireUnit) -> Result<Unit, Refusal> {
    let invalid = |index, text| Refusal { reason: RejectionReason::InvalidPayload, index, text };
    let count = unit.proposals.len();
    if count == 0 || count > UNIT_PROPOSALS_MAX {
        return Err(invalid(0, format!("a unit has 1 to {UNIT_PROPOSALS_MAX} proposals, not {count}")));
    }
    let mut entries = Vec::with_capacity(count);
    for (index, proposal) in unit.proposals.into_iter().enumerate() {
        let entry_type =
            EntryType::from_code(proposal.entry_type).map_err(|error| invalid(index, error.to_string()))?;
        entries.push(Draft { entry_type, payload: proposal.payload });
    }
    Ok(Unit { entries })
}

/// One result for each unit, in the order in which they came.
fn merge(
    ids: Vec<u64>,
    replies: Vec<UnitReply>,
    refused: Vec<(usize, Refusal)>,
    time: u64,
) -> Vec<UnitResult> {
    let mut refused = refused.into_iter().peekable();
    let mut replies = replies.into_iter();
    let next = |(place, id): (usize, u64)| {
        let reply = match refused.next_if(|(refused, _)| *refused == place) {
            Some((_, refusal)) => UnitReply::Rejected(refusal),
            None => replies.next()?,
        };
        Some(result(id, reply, time))
    };
    ids.into_iter().enumerate().map_while(next).collect()
}

fn result(id: u64, reply: UnitReply, timestamp_ns: u64) -> UnitResult {
    let result = UnitResult { id, timestamp_ns, ..UnitResult::default() };
    match reply {
        UnitReply::Accepted(entries) => {
            UnitResult { accepted: entries.into_iter().map(Into::into).collect(), ..result }
        }
        UnitReply::Duplicate(entry) => UnitResult { accepted: vec![entry.into()], duplicate: true, ..result },
        UnitReply::Rejected(refusal) => {
            UnitResult { rejected: wire_reason(refusal.reason).into(), text: refusal.to_string(), ..result }
        }
    }
}

const fn wire_reason(reason: RejectionReason) -> Rejection {
    match reason {
        RejectionReason::InvalidPayload => Rejection::InvalidPayload,
        RejectionReason::MissingPolicyDecision => Rejection::MissingPolicyDecision,
        RejectionReason::PolicyMismatch => Rejection::PolicyMismatch,
        RejectionReason::PolicyDecisionExpired => Rejection::PolicyDecisionExpired,
        RejectionReason::InvalidPolicySignature => Rejection::InvalidPolicySignature,
        RejectionReason::ResourceNotFound => Rejection::ResourceNotFound,
        RejectionReason::DuplicateNonce => Rejection::DuplicateNonce,
        RejectionReason::Backpressure => Rejection::Backpressure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{AxiomRef, Hash, Sequence};
    use contracts::axiom::v1::Proposal;

    /// covers: AX-43
    #[test]
    fn results_stand_in_the_order_of_the_units() {
        let entry = AxiomRef { sequence: Sequence(4), hash: Hash([1; 32]) };
        let refusal =
            |text: &str| Refusal { reason: RejectionReason::InvalidPayload, index: 0, text: text.to_owned() };
        let refused = vec![(0, refusal("first")), (2, refusal("third"))];
        let replies = vec![UnitReply::Accepted(vec![entry]), UnitReply::Duplicate(entry)];
        let results = merge(vec![10, 11, 12, 13], replies, refused, 9);
        let brief: Vec<_> =
            results.iter().map(|r| (r.id, r.accepted.len(), r.duplicate, r.rejected != 0)).collect();
        assert_eq!(
            brief,
            [(10, 0, false, true), (11, 1, false, false), (12, 0, false, true), (13, 1, true, false)]
        );
        assert!(results[2].text.contains("third"));
    }

    #[test]
    fn a_unit_is_bounded_and_of_known_types() {
        let proposal = |entry_type| Proposal { entry_type, payload: vec![] };
        let unit = |proposals| drafts(WireUnit { id: 1, proposals });
        assert!(unit(vec![]).is_err());
        assert!(unit(vec![proposal(80); UNIT_PROPOSALS_MAX]).is_ok());
        assert!(unit(vec![proposal(80); UNIT_PROPOSALS_MAX + 1]).is_err());
        assert!(unit(vec![proposal(80), proposal(9999)]).is_err_and(|refusal| refusal.index == 1));
    }

    /// covers: AX-40
    #[test]
    fn every_reason_has_a_name_of_its_own_on_the_wire() {
        let wire: std::collections::BTreeSet<i32> =
            RejectionReason::ALL.iter().map(|reason| wire_reason(*reason).into()).collect();
        assert_eq!(wire.len(), RejectionReason::ALL.len());
        assert!(!wire.contains(&Rejection::None.into()));
    }
}
