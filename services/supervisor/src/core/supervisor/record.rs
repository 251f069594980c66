//! Entries for the log, types 1 and 20 to 23 (SUP-100). They queue while the log is down and go first when it is back.

use std::collections::VecDeque;

use base::{EntryKey, Hash, cbor};
use chain::payload::{
    Body,
    service::{ServiceError, ServiceFailed, ServiceRegister, ServiceStart, ServiceStop, Shutdown},
};
use serde::{Deserialize, Serialize};

use super::{CommitOutcome, Effect, Monotonic, RECORDS_MAX, RETRY_DELAY, RecordId, Supervisor, bounded};
use crate::core::catalogue;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub id: RecordId,
    /// The same when the record is sent again.
    pub key: EntryKey,
    /// Request hash of the decision under which this happened; none before the Policy Engine ran and for failures.
    pub authorization: Option<Hash>,
    pub body: RecordBody,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RecordBody {
    Shutdown(Shutdown),
    Register(ServiceRegister),
    Start(ServiceStart),
    Stop(ServiceStop),
    Failed(ServiceFailed),
}

impl RecordBody {
    #[must_use]
    pub const fn entry_type(&self) -> u32 {
        match self {
            Self::Shutdown(_) => Shutdown::ENTRY_TYPE,
            Self::Register(_) => ServiceRegister::ENTRY_TYPE,
            Self::Start(_) => ServiceStart::ENTRY_TYPE,
            Self::Stop(_) => ServiceStop::ENTRY_TYPE,
            Self::Failed(_) => ServiceFailed::ENTRY_TYPE,
        }
    }

    /// The service that this is about.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Shutdown(_) => None,
            Self::Register(body) => Some(&body.name),
            Self::Start(body) => Some(&body.name),
            Self::Stop(body) => Some(&body.name),
            Self::Failed(body) => Some(&body.name),
        }
    }

    fn set_late(&mut self) {
        match self {
            Self::Start(body) => body.late = true,
            Self::Stop(body) => body.late = true,
            Self::Failed(body) => body.late = true,
            Self::Shutdown(_) | Self::Register(_) => {}
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Shutdown(body) => cbor::encode(body),
            Self::Register(body) => cbor::encode(body),
            Self::Start(body) => cbor::encode(body),
            Self::Stop(body) => cbor::encode(body),
            Self::Failed(body) => cbor::encode(body),
        }
    }
}

/// Records that are not known to be in the log, oldest first.
#[derive(Debug)]
pub(super) struct RecordQueue {
    pub(super) nonce: [u8; 16],
    pub(super) next: u64,
    /// With whether it is under way.
    pub(super) waiting: VecDeque<(Record, bool)>,
    retry_at: Option<Monotonic>,
}

impl RecordQueue {
    pub(super) fn new(nonce: [u8; 16]) -> Self {
        Self { nonce, next: 1, waiting: VecDeque::new(), retry_at: None }
    }

    pub(super) fn retry_at(&self) -> Option<Monotonic> {
        self.retry_at
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= RECORDS_MAX
    }

    /// False if there is no room and the record stands for nothing that is there already.
    fn push(&mut self, authorization: Option<Hash>, body: RecordBody) -> bool {
        let id = RecordId(self.next);
        let digest = Hash::of_parts(&[&self.nonce, &id.0.to_le_bytes(), &body.to_bytes()]);
        let mut key = [0; 16];
        key.iter_mut().zip(digest.0).for_each(|(to, from)| *to = from);
        let record = Record { id, key: EntryKey(key), authorization, body };
        if self.is_full() {
            // A service that fails over and over while nothing can be recorded: the newest start carries the number of
            // restarts, so it can stand for the ones before it.
            let same = |other: &Record| {
                other.body.entry_type() == record.body.entry_type()
                    && other.body.service() == record.body.service()
            };
            let Some(at) = self.waiting.iter().rposition(|(other, sent)| !*sent && same(other)) else {
                return false;
            };
            self.waiting.remove(at);
        }
        self.next += 1;
        self.waiting.push_back((record, false));
        true
    }
}

impl Supervisor {
    pub(super) fn record(&mut self, authorization: Option<Hash>, mut body: RecordBody) {
        if !self.log_is_up() {
            body.set_late();
        }
        self.unremembered = true;
        let what = body.entry_type();
        if !self.records.push(authorization, body) {
            self.effects.push(Effect::Warn(format!(
                "an entry of type {what} is lost: {RECORDS_MAX} entries wait for the log already"
            )));
        }
        // At once, so that the entry stands before whatever effect follows it.
        self.flush_records();
    }

    pub(super) fn record_failure(&mut self, name: &str, error: ServiceError, text: &str) {
        let body = ServiceFailed { name: name.to_owned(), error, text: bounded(text), late: false };
        self.record(None, RecordBody::Failed(body));
    }

    pub(super) fn record_stop(&mut self, name: &str) {
        let Some(service) = self.services.get(name) else { return };
        let authorization = service.stop_authorization;
        let body = ServiceStop { name: name.to_owned(), reason: bounded(&service.stop_reason), late: false };
        self.record(authorization, RecordBody::Stop(body));
    }

    fn log_is_up(&self) -> bool {
        self.serves(catalogue::LOG)
    }

    /// Sends what waits, in order, if the log is there.
    pub(super) fn flush_records(&mut self) {
        if !self.log_is_up() {
            // What was under way may or may not have landed: it is sent again, with the same key and bytes.
            self.records.waiting.iter_mut().for_each(|(_, sent)| *sent = false);
            self.records.retry_at = None;
            return;
        }
        if self.records.retry_at.is_some_and(|at| at > self.now) {
            return;
        }
        self.records.retry_at = None;
        for (record, sent) in self.records.waiting.iter_mut().filter(|(_, sent)| !*sent) {
            *sent = true;
            self.effects.push(Effect::Append(record.clone()));
        }
    }

    pub(super) fn commit_result(&mut self, id: RecordId, outcome: CommitOutcome) {
        let Some(at) = self.records.waiting.iter().position(|(record, _)| record.id == id) else { return };
        match outcome {
            CommitOutcome::Committed => {
                self.records.waiting.remove(at);
            }
            CommitOutcome::Rejected { text } => {
                self.records.waiting.remove(at);
                self.effects.push(Effect::Warn(format!("the log refuses entry {id}: {}", bounded(&text))));
            }
            CommitOutcome::Unavailable => {
                // Everything behind it is sent again after it, so that the order stays.
                self.records.waiting.iter_mut().skip(at).for_each(|(_, sent)| *sent = false);
                self.records.retry_at = Some(self.now.after(RETRY_DELAY));
            }
        }
        self.changed = true;
        self.unremembered = true;
    }
}
