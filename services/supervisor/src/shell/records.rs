//! The supervisor's own road into the log: entries of types 1 and 20 to 23, in order, over `append/supervisor.sock`.
//!
//! The machine keeps what is not known to be in the log and says when to send it again; here is only one connection,
//! and the answer for each entry that was put on it.

use std::{collections::VecDeque, path::PathBuf};

use base::IdentityId;
use chain::payload::Body;
use contracts::axiom::v1::{
    AppendBatch, AppendResults, Proposal, Rejection, Unit, UnitResult, append_client::AppendClient,
};
use kit::{Peer, authority::Entry};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::inputs::Input;
use crate::core::supervisor::{CommitOutcome, Event, RECORDS_MAX, Record, RecordBody, RecordId};

/// Units of one batch; the contract allows 1 024 and a megabyte, and a record has at most a few kilobytes.
const BATCH_UNITS_MAX: usize = 64;

/// Starts the road; it ends with the runtime. Each record is answered by one `CommitResult`.
pub(super) fn start(
    socket: PathBuf,
    submitter: IdentityId,
    inputs: mpsc::UnboundedSender<Input>,
) -> mpsc::UnboundedSender<Record> {
    let (records, waiting) = mpsc::unbounded_channel();
    let road = Road { socket, submitter, inputs, waiting };
    tokio::spawn(road.run());
    records
}

struct Road {
    socket: PathBuf,
    submitter: IdentityId,
    inputs: mpsc::UnboundedSender<Input>,
    waiting: mpsc::UnboundedReceiver<Record>,
}

type Connection = (mpsc::Sender<AppendBatch>, Streaming<AppendResults>);

impl Road {
    async fn run(mut self) {
        while let Some(first) = self.waiting.recv().await {
            let mut under_way = VecDeque::new();
            if let Err(status) = self.connected(first, &mut under_way).await {
                tracing::info!(%status, "the log is not there");
            }
            // Not known to be in the log; the machine sends them again, with the same keys.
            while let Ok(record) = self.waiting.try_recv() {
                under_way.push_back(record.id);
            }
            for id in under_way {
                self.tell(id, CommitOutcome::Unavailable);
            }
        }
    }

    /// Serves one connection until it breaks.
    async fn connected(&mut self, first: Record, under_way: &mut VecDeque<RecordId>) -> Result<(), Status> {
        under_way.push_back(first.id);
        let (batches, mut results) = self.open().await?;
        under_way.clear();
        let mut next = Some(first);
        loop {
            if let Some(record) = next.take() {
                let batch = self.batch(record, under_way);
                // Fails when the connection has: the next read says why.
                let _ = batches.send(batch).await;
            }
            tokio::select! {
                record = self.waiting.recv() => match record {
                    Some(record) => next = Some(record),
                    None => return Ok(()),
                },
                message = results.message() => match message? {
                    Some(message) => message.results.into_iter().for_each(|result| self.settle(&result, under_way)),
                    None => return Err(Status::unavailable("the log ended the channel")),
                },
            }
        }
    }

    async fn open(&self) -> Result<Connection, Status> {
        let (batches, stream) = mpsc::channel(RECORDS_MAX);
        let mut client = AppendClient::new(Peer::at(&self.socket).channel());
        let results = client.channel(ReceiverStream::new(stream)).await?.into_inner();
        Ok((batches, results))
    }

    /// This record and those that wait behind it.
    fn batch(&mut self, first: Record, under_way: &mut VecDeque<RecordId>) -> AppendBatch {
        let mut units = Vec::new();
        let mut next = Some(first);
        while let Some(record) = next.take() {
            let id = record.id;
            match proposal(self.submitter, record) {
                Ok(proposal) => {
                    under_way.push_back(id);
                    units.push(Unit { id: id.0, proposals: vec![proposal] });
                }
                Err(text) => self.tell(id, CommitOutcome::Rejected { text }),
            }
            if units.len() < BATCH_UNITS_MAX {
                next = self.waiting.try_recv().ok();
            }
        }
        AppendBatch { units }
    }

    fn settle(&self, result: &UnitResult, under_way: &mut VecDeque<RecordId>) {
        let id = RecordId(result.id);
        under_way.retain(|waiting| *waiting != id);
        self.tell(id, outcome(result));
    }

    fn tell(&self, record: RecordId, outcome: CommitOutcome) {
        let _ = self.inputs.send(Input::Event(Event::CommitResult { record, outcome }));
    }
}

fn outcome(result: &UnitResult) -> CommitOutcome {
    match result.rejected() {
        Rejection::None => CommitOutcome::Committed,
        // Full for the moment.
        Rejection::Backpressure => CommitOutcome::Unavailable,
        other => CommitOutcome::Rejected { text: format!("{}: {}", other.as_str_name(), result.text) },
    }
}

fn proposal(submitter: IdentityId, record: Record) -> Result<Proposal, String> {
    let Record { key, authorization, body, .. } = record;
    let entry = match body {
        RecordBody::Shutdown(body) => build(submitter, authorization, key, body),
        RecordBody::Register(body) => build(submitter, authorization, key, body),
        RecordBody::Start(body) => build(submitter, authorization, key, body),
        RecordBody::Stop(body) => build(submitter, authorization, key, body),
        RecordBody::Failed(body) => build(submitter, authorization, key, body),
    }?;
    Ok(Proposal { entry_type: entry.entry_type, payload: entry.payload })
}

fn build<T: Body>(
    submitter: IdentityId,
    authorization: Option<base::Hash>,
    key: base::EntryKey,
    body: T,
) -> Result<Entry, String> {
    Entry::build(submitter, authorization, key, body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{EntryKey, Hash};
    use chain::payload::service::Shutdown;

    #[test]
    fn a_rejection_is_final_unless_the_log_is_full() {
        let result = |rejection: Rejection| UnitResult {
            rejected: rejection as i32,
            text: "why".to_owned(),
            ..UnitResult::default()
        };
        assert_eq!(outcome(&result(Rejection::None)), CommitOutcome::Committed);
        assert_eq!(outcome(&result(Rejection::Backpressure)), CommitOutcome::Unavailable);
        let CommitOutcome::Rejected { text } = outcome(&result(Rejection::InvalidPayload)) else { panic!() };
        assert!(text.ends_with("why"));
    }

    #[test]
    fn a_record_sent_again_has_the_same_bytes() {
        let record = Record {
            id: RecordId(4),
            key: EntryKey([3; 16]),
            authorization: Some(Hash([2; 32])),
            body: RecordBody::Shutdown(Shutdown { reason: "end".to_owned() }),
        };
        let once = proposal(IdentityId([1; 32]), record.clone()).unwrap();
        assert_eq!(once.entry_type, 1);
        assert_eq!(proposal(IdentityId([1; 32]), record).unwrap(), once);
    }
}
