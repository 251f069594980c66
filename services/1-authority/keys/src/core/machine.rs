//! The order of every use of a key: validate, check the decision, derive and operate (in the boundary), record, answer (KEY-34).
//!
//! One request is in one of three places: waiting for its decision to show up in the log, at the boundary, or being
//! recorded. A refusal skips the boundary and is recorded as well. Nothing is released before the log has the record:
//! the output rests in `Pending::Recording` and leaves it only together with the entry's reference (KEY-15).

use std::collections::BTreeMap;

use base::{AxiomRef, AxiomTime, Hash, IdentityId, KeyPath, PublicKey, Sequence, Signature};
use chain::payload::{
    Payload,
    identity::{KeyOperation, KeyUsage},
    policy::ActionKind,
};

use super::{
    KeyError, Operation, Plain, UseRequest, VerifyingKey,
    decision::{self, Genuine},
    epochs,
    saved::Folded,
};

/// Requests under way at once; one more is answered `Busy`.
pub const PENDING_MAX: usize = 1024;
/// How long a decision may take to reach this service's feed after policy has handed it out, in nanoseconds of Axiom time.
pub const COMMIT_WAIT_NS: u64 = 2_000_000_000;
/// Stands in a refusal's record where no committed decision was shown.
const NO_DECISION: AxiomRef = AxiomRef { sequence: Sequence(0), hash: Hash::ZERO };

/// Chosen by the shell, unique while the request is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a use of a key gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Signed { signature: Signature, public_key: VerifyingKey },
    Encrypted(Vec<u8>),
    Decrypted(Plain),
}

impl Output {
    const fn kind(&self) -> KeyOperation {
        match self {
            Self::Signed { .. } => KeyOperation::Sign,
            Self::Encrypted(_) => KeyOperation::Encrypt,
            Self::Decrypted(_) => KeyOperation::Decrypt,
        }
    }

    /// None for what was decrypted: a short secret would be found by its hash (KEY-35).
    fn hash(&self) -> Option<Hash> {
        match self {
            Self::Signed { signature, .. } => Some(Hash::of(&signature.0)),
            Self::Encrypted(sealed) => Some(Hash::of(sealed)),
            Self::Decrypted(_) => None,
        }
    }
}

/// KEY-14: the output with the entry that records the use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub output: Output,
    pub receipt: AxiomRef,
}

/// Of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKeys {
    pub signing: VerifyingKey,
    /// X25519; what is encrypted to it, the path decrypts. None for a path with a purpose.
    pub exchange: Option<PublicKey>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundaryRequest {
    PublicKeys {
        path: KeyPath,
        epoch: u32,
    },
    /// A `Decrypt` says itself in which epoch it was encrypted.
    Use {
        path: KeyPath,
        epoch: u32,
        operation: Operation,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    PublicKeys(PublicKeys),
    Output(Output),
}

/// Why the boundary gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundaryFailure {
    Locked,
    /// The path's key is not for this, or this is not of its format.
    WrongPurpose(String),
    /// It refused, or it died; the text says which.
    Failed(String),
}

/// The record is not in the log, or nobody knows whether it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRecorded;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    PublicKeys {
        id: RequestId,
        path: KeyPath,
        /// None is the current one.
        epoch: Option<u32>,
    },
    Use {
        id: RequestId,
        request: UseRequest,
    },
    BoundaryAnswered {
        id: RequestId,
        result: Result<Answer, BoundaryFailure>,
    },
    Recorded {
        id: RequestId,
        result: Result<AxiomRef, NotRecorded>,
    },
    /// At least once a second.
    Tick,
}

/// Performed by the shell in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    AskBoundary {
        id: RequestId,
        request: BoundaryRequest,
    },
    /// A refused use, which needs no decision.
    Record {
        id: RequestId,
        usage: KeyUsage,
    },
    /// A use that the decision for this request allows; its entry uses the decision up in the log, too.
    Redeem {
        id: RequestId,
        usage: KeyUsage,
        request_hash: Hash,
    },
    ReplyPublicKeys {
        id: RequestId,
        result: Result<PublicKeys, KeyError>,
    },
    ReplyUse {
        id: RequestId,
        result: Result<Used, KeyError>,
    },
}

/// What is recorded and compared of a request.
#[derive(Clone, Debug)]
struct Use {
    requestor: IdentityId,
    path: KeyPath,
    kind: KeyOperation,
    input_hash: Hash,
    decision: AxiomRef,
    epoch: u32,
}

#[derive(Debug)]
enum Pending {
    AwaitingCommit { request: Box<UseRequest>, genuine: Box<Genuine>, since: AxiomTime },
    AtBoundary { used: Use, request_hash: Hash },
    PublicKeys,
    Recording(Result<Output, KeyError>),
}

/// What `bailiwick prove --break` switches off, to see that its absence is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defence {
    /// A genuine decision serves only the request that it was made for.
    Binding,
    /// Nothing is released before its record.
    Record,
}

/// All state of the service.
#[derive(Debug, Default)]
pub struct KeysCore {
    off: Vec<Defence>,
    pub(super) folded: Folded,
    pending: BTreeMap<RequestId, Pending>,
}

impl std::fmt::Debug for Genuine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Genuine({})", self.body_hash)
    }
}

impl KeysCore {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For `prove` alone: goes on without one of its defences.
    pub fn switch_off(&mut self, defence: Defence) {
        self.off.push(defence);
    }

    /// Folds one committed entry of the log, in order. `time` is the entry's; `now` is as in `step`.
    pub fn apply(
        &mut self,
        at: AxiomRef,
        time: AxiomTime,
        payload: &Payload,
        now: Option<AxiomTime>,
    ) -> Vec<Effect> {
        self.folded.ledger.forget_expired(time);
        match payload {
            Payload::Genesis(genesis) => {
                self.folded.policy_key = Some(genesis.body.policy_key);
                genesis
                    .body
                    .identities
                    .iter()
                    .for_each(|identity| self.folded.epochs.pin(&identity.key_path));
            }
            Payload::IdentityCreated(created) => self.folded.epochs.pin(&created.body.key_path),
            Payload::PolicyDecision(decision) => {
                let Ok(body) = decision.body.decode_body() else { return Vec::new() };
                if is_use(body.action.kind()) && body.allows() {
                    let body_hash = Hash::of(&decision.body.body);
                    self.folded.ledger.commit(at, body_hash, body.request_hash, decision::expires_at(&body));
                    return self.resume(&body_hash, now);
                }
            }
            Payload::KeyUsage(usage) if usage.body.refused.is_none() => match usage.body.operation {
                KeyOperation::Lock => self.folded.is_locked = true,
                KeyOperation::Unlock => self.folded.is_locked = false,
                KeyOperation::Rotate => {
                    usage.body.rotation.iter().for_each(|it| self.folded.epochs.rotate(it))
                }
                _ => self.folded.ledger.used_in_log(usage.body.authorization),
            },
            _ => {}
        }
        Vec::new()
    }

    /// `now` is None while Axiom time is unknown: before the feed has caught up, or when it has been silent too long.
    pub fn step(&mut self, now: Option<AxiomTime>, event: Event) -> Vec<Effect> {
        match event {
            Event::PublicKeys { id, path, epoch } => self.public_keys(id, path, epoch),
            Event::Use { id, request } => self.use_key(id, request, now),
            Event::BoundaryAnswered { id, result } => self.boundary_answered(id, result),
            Event::Recorded { id, result } => self.recorded(id, result),
            Event::Tick => self.tick(now),
        }
    }

    /// In which epoch the path is.
    #[must_use]
    pub fn epoch(&self, path: &KeyPath) -> u32 {
        self.folded.epochs.current(path)
    }

    /// From which epoch to which a rotation would lead.
    pub fn next_epoch(&self, path: &KeyPath) -> Result<(u32, u32), KeyError> {
        self.folded.epochs.next(path)
    }

    /// Whether the seed must stay closed.
    #[must_use]
    pub const fn is_locked(&self) -> bool {
        self.folded.is_locked
    }

    /// Requests under way, for health and for draining.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn has_room(&self, id: RequestId) -> Result<(), KeyError> {
        match self.pending.len() >= PENDING_MAX || self.pending.contains_key(&id) {
            true => Err(KeyError::Busy { limit: PENDING_MAX }),
            false => Ok(()),
        }
    }

    fn public_keys(&mut self, id: RequestId, path: KeyPath, epoch: Option<u32>) -> Vec<Effect> {
        let epoch = match self.has_room(id).and_then(|()| self.folded.epochs.known(&path, epoch)) {
            Ok(epoch) => epoch,
            Err(error) => return vec![Effect::ReplyPublicKeys { id, result: Err(error) }],
        };
        self.pending.insert(id, Pending::PublicKeys);
        vec![Effect::AskBoundary { id, request: BoundaryRequest::PublicKeys { path, epoch } }]
    }

    fn use_key(&mut self, id: RequestId, request: UseRequest, now: Option<AxiomTime>) -> Vec<Effect> {
        // The one refusal without a record: recording it would take the room that is missing.
        if let Err(error) = self.has_room(id) {
            return vec![Effect::ReplyUse { id, result: Err(error) }];
        }
        let genuine = match decision::genuine(self.folded.policy_key.as_ref(), &request.authorization) {
            Ok(genuine) => genuine,
            Err(error) => return self.refuse(id, use_of(&request, NO_DECISION), error),
        };
        self.consider(id, Box::new(request), Box::new(genuine), now, now)
    }

    /// `since` is when the request came: the wait for its decision's commit is counted from there.
    fn consider(
        &mut self,
        id: RequestId,
        request: Box<UseRequest>,
        genuine: Box<Genuine>,
        since: Option<AxiomTime>,
        now: Option<AxiomTime>,
    ) -> Vec<Effect> {
        let committed = self.folded.ledger.committed(&genuine.body_hash);
        let used = use_of(&request, committed.unwrap_or(NO_DECISION));
        let allowed = match self.off.contains(&Defence::Binding) {
            false => decision::allows(&genuine.body, &request, now),
            true => now.ok_or(KeyError::DecisionExpired),
        };
        let now = match allowed {
            Ok(now) => now,
            Err(error) => return self.refuse(id, used, error),
        };
        if committed.is_none() {
            let since = since.unwrap_or(now);
            if now.since(since) >= COMMIT_WAIT_NS {
                let error = KeyError::InvalidDecision("it is not in the log".to_owned());
                return self.refuse(id, used, error);
            }
            self.pending.insert(id, Pending::AwaitingCommit { request, genuine, since });
            return Vec::new();
        }
        // From here on the decision is spent, whatever becomes of the output.
        if !self.folded.ledger.use_once(genuine.body.request_hash, decision::expires_at(&genuine.body)) {
            return self.refuse(id, used, KeyError::InvalidDecision("it was used before".to_owned()));
        }
        let UseRequest { key_path, operation, .. } = *request;
        let epoch = self.folded.epochs.current(&key_path);
        let used = Use { epoch: epoch_used(&operation, epoch), ..used };
        let ask = BoundaryRequest::Use { path: key_path, epoch, operation };
        self.pending.insert(id, Pending::AtBoundary { used, request_hash: genuine.body.request_hash });
        vec![Effect::AskBoundary { id, request: ask }]
    }

    fn boundary_answered(&mut self, id: RequestId, result: Result<Answer, BoundaryFailure>) -> Vec<Effect> {
        let result = result.map_err(|failure| match failure {
            BoundaryFailure::Locked => KeyError::Locked,
            BoundaryFailure::WrongPurpose(why) => KeyError::WrongPurpose(why),
            BoundaryFailure::Failed(why) => KeyError::CryptoFailure(why),
        });
        let mismatch = || KeyError::CryptoFailure("the boundary answered another question".to_owned());
        match self.pending.remove(&id) {
            Some(Pending::PublicKeys) => {
                let result = result.and_then(|answer| match answer {
                    Answer::PublicKeys(keys) => Ok(keys),
                    Answer::Output(_) => Err(mismatch()),
                });
                vec![Effect::ReplyPublicKeys { id, result }]
            }
            Some(Pending::AtBoundary { used, request_hash }) => match result {
                Ok(Answer::Output(output)) if self.off.contains(&Defence::Record) => {
                    let used = Used { output, receipt: used.decision };
                    vec![Effect::ReplyUse { id, result: Ok(used) }]
                }
                Ok(Answer::Output(output)) if output.kind() == used.kind => {
                    let usage = usage(&used, output.hash(), None);
                    self.pending.insert(id, Pending::Recording(Ok(output)));
                    vec![Effect::Redeem { id, usage, request_hash }]
                }
                Ok(_) => self.refuse(id, used, mismatch()),
                Err(error) => self.refuse(id, used, error),
            },
            other => self.put_back(id, other),
        }
    }

    fn recorded(&mut self, id: RequestId, result: Result<AxiomRef, NotRecorded>) -> Vec<Effect> {
        match self.pending.remove(&id) {
            Some(Pending::Recording(outcome)) => {
                let result = match result {
                    Ok(receipt) => outcome.map(|output| Used { output, receipt }),
                    Err(NotRecorded) => Err(KeyError::AuditUnavailable),
                };
                vec![Effect::ReplyUse { id, result }]
            }
            other => self.put_back(id, other),
        }
    }

    /// An answer that nobody waits for in this state changes nothing.
    fn put_back(&mut self, id: RequestId, pending: Option<Pending>) -> Vec<Effect> {
        if let Some(pending) = pending {
            self.pending.insert(id, pending);
        }
        Vec::new()
    }

    fn tick(&mut self, now: Option<AxiomTime>) -> Vec<Effect> {
        self.resume_where(now, |_| true)
    }

    fn resume(&mut self, body_hash: &Hash, now: Option<AxiomTime>) -> Vec<Effect> {
        self.resume_where(now, |waiting| waiting == body_hash)
    }

    fn resume_where(&mut self, now: Option<AxiomTime>, chosen: impl Fn(&Hash) -> bool) -> Vec<Effect> {
        let waiting = |(_, pending): &(&RequestId, &mut Pending)| matches!(pending, Pending::AwaitingCommit { genuine, .. } if chosen(&genuine.body_hash));
        let ids: Vec<_> = self.pending.iter_mut().filter(waiting).map(|(id, _)| *id).collect();
        let mut effects = Vec::new();
        for id in ids {
            if let Some(Pending::AwaitingCommit { request, genuine, since }) = self.pending.remove(&id) {
                effects.extend(self.consider(id, request, genuine, Some(since), now));
            }
        }
        effects
    }

    fn refuse(&mut self, id: RequestId, used: Use, error: KeyError) -> Vec<Effect> {
        let usage = usage(&used, None, Some(error.to_string()));
        self.pending.insert(id, Pending::Recording(Err(error)));
        vec![Effect::Record { id, usage }]
    }
}

fn use_of(request: &UseRequest, decision: AxiomRef) -> Use {
    let UseRequest { key_path, operation, requestor, .. } = request;
    Use {
        requestor: *requestor,
        path: key_path.clone(),
        kind: operation.kind(),
        input_hash: operation.input_hash(),
        decision,
        epoch: 0,
    }
}

/// Old epochs decrypt, and nothing else.
fn epoch_used(operation: &Operation, current: u32) -> u32 {
    match operation {
        Operation::Decrypt { sealed } => epochs::split(sealed).map_or(0, |(epoch, _)| epoch),
        _ => current,
    }
}

const fn is_use(kind: ActionKind) -> bool {
    matches!(kind, ActionKind::Sign | ActionKind::Encrypt | ActionKind::Decrypt)
}

/// Hashes only (KEY-35).
fn usage(used: &Use, output_hash: Option<Hash>, refused: Option<String>) -> KeyUsage {
    KeyUsage {
        identity: used.requestor,
        key_path: used.path.clone(),
        operation: used.kind,
        message_hash: Some(used.input_hash),
        authorization: used.decision,
        output_hash,
        refused,
        reason: None,
        epoch: Some(used.epoch).filter(|epoch| *epoch != 0),
        rotation: None,
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
