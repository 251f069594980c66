//! Carries out what the core asks for: questions to the boundary, records, answers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base::{AxiomRef, EntryKey, Hash, IdentityId, KeyPath, Sequence};
use chain::payload::identity::KeyUsage;
use kit::{FeedEntry, Node, authority::Entry};
use tokio::sync::oneshot;

use super::link::Link;
use crate::{
    boundary::protocol::{Refusal, Request, Response},
    core::{
        Answer, BoundaryFailure, BoundaryRequest, Defence, Effect, Event, KeyError, KeysCore, NotRecorded,
        Operation, Output, PublicKeys, RequestId, UseRequest, Used,
    },
};

/// How often the core is told the time while one of its requests waits for its decision to be committed.
const TICK: Duration = Duration::from_millis(500);
/// By the names that `prove --break` has for them.
const DEFENCES: [(&str, Defence); 2] = [("key-decision", Defence::Binding), ("key-record", Defence::Record)];
/// How often a drain looks whether all is done.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

enum Waiting {
    PublicKeys(oneshot::Sender<Result<PublicKeys, KeyError>>),
    Use(oneshot::Sender<Result<Used, KeyError>>),
}

#[derive(Default)]
struct State {
    core: KeysCore,
    last_id: u64,
    waiting: HashMap<RequestId, Waiting>,
}

/// Core, boundary and node together; shared by handlers, feed and effects.
pub(super) struct Runner {
    node: Node,
    link: Link,
    state: Mutex<State>,
    rotating: tokio::sync::Mutex<()>,
}

impl Runner {
    pub(super) fn new(node: Node, link: Link) -> Self {
        let mut state = State::default();
        for (name, defence) in DEFENCES {
            if kit::is_broken(name) {
                state.core.switch_off(defence);
            }
        }
        Self { node, link, state: Mutex::new(state), rotating: tokio::sync::Mutex::default() }
    }

    pub(super) const fn node(&self) -> &Node {
        &self.node
    }

    pub(super) const fn link(&self) -> &Link {
        &self.link
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fold(self: &Arc<Self>, entry: &FeedEntry) -> Result<(), kit::BoxError> {
        let payload = entry.decode()?;
        let now = self.node.clock().now();
        let effects = self.state().core.apply(entry.reference(), entry.timestamp, payload, now);
        self.perform(effects);
        Ok(())
    }

    pub(super) fn save(&self) -> Vec<u8> {
        self.state().core.save()
    }

    pub(super) fn restore(&self, own: &[u8]) -> Result<(), kit::BoxError> {
        Ok(self.state().core.restore(own)?)
    }

    /// Of the current epoch, or of one that is named.
    pub(super) async fn public_keys(
        self: &Arc<Self>,
        path: KeyPath,
        epoch: Option<u32>,
    ) -> Result<PublicKeys, KeyError> {
        let (reply, answer) = oneshot::channel();
        self.begin(Waiting::PublicKeys(reply), |id| Event::PublicKeys { id, path, epoch });
        self.answer(answer).await
    }

    pub(super) async fn use_key(self: &Arc<Self>, request: UseRequest) -> Result<Used, KeyError> {
        let (reply, answer) = oneshot::channel();
        self.begin(Waiting::Use(reply), |id| Event::Use { id, request });
        self.answer(answer).await
    }

    /// Records a refusal that the core has not seen, before the caller hears of it (KEY-34).
    pub(super) async fn refuse(
        &self,
        requestor: IdentityId,
        key_path: KeyPath,
        operation: &Operation,
        error: KeyError,
    ) -> KeyError {
        let usage = KeyUsage {
            identity: requestor,
            key_path,
            operation: operation.kind(),
            message_hash: Some(operation.input_hash()),
            authorization: AxiomRef { sequence: Sequence(0), hash: Hash::ZERO },
            output_hash: None,
            refused: Some(error.to_string()),
            reason: None,
            epoch: None,
            rotation: None,
        };
        match self.record(usage).await {
            Ok(_) => error,
            Err(NotRecorded) => KeyError::AuditUnavailable,
        }
    }

    /// Held by whoever rotates a path.
    pub(super) const fn rotating(&self) -> &tokio::sync::Mutex<()> {
        &self.rotating
    }

    pub(super) fn epoch(&self, path: &KeyPath) -> u32 {
        self.state().core.epoch(path)
    }

    pub(super) fn next_epoch(&self, path: &KeyPath) -> Result<(u32, u32), KeyError> {
        self.state().core.next_epoch(path)
    }

    /// Whether the log says that the seed stays closed.
    pub(super) fn is_locked(&self) -> bool {
        self.state().core.is_locked()
    }

    /// Returns when nothing is under way.
    pub(super) async fn drain(&self) {
        while self.state().core.pending() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    fn begin(self: &Arc<Self>, waiting: Waiting, event: impl FnOnce(RequestId) -> Event) {
        let now = self.node.clock().now();
        let effects = {
            let mut state = self.state();
            state.last_id += 1;
            let id = RequestId(state.last_id);
            state.waiting.insert(id, waiting);
            state.core.step(now, event(id))
        };
        self.perform(effects);
    }

    /// Waits, and meanwhile tells the core the time: a decision that is never committed must not be waited for.
    async fn answer<T>(
        self: &Arc<Self>,
        mut answer: oneshot::Receiver<Result<T, KeyError>>,
    ) -> Result<T, KeyError> {
        loop {
            match tokio::time::timeout(TICK, &mut answer).await {
                Ok(answered) => {
                    return answered
                        .unwrap_or_else(|_| Err(KeyError::CryptoFailure("nobody answers".to_owned())));
                }
                Err(_) => self.step(Event::Tick),
            }
        }
    }

    fn step(self: &Arc<Self>, event: Event) {
        let now = self.node.clock().now();
        let effects = self.state().core.step(now, event);
        self.perform(effects);
    }

    fn perform(self: &Arc<Self>, effects: Vec<Effect>) {
        for effect in effects {
            let runner = Arc::clone(self);
            match effect {
                Effect::AskBoundary { id, request } => {
                    tokio::spawn(async move {
                        let result = runner.ask(request).await;
                        runner.step(Event::BoundaryAnswered { id, result });
                    });
                }
                Effect::Record { id, usage } => {
                    tokio::spawn(async move {
                        let result = runner.record(usage).await;
                        runner.step(Event::Recorded { id, result });
                    });
                }
                Effect::Redeem { id, usage, request_hash } => {
                    tokio::spawn(async move {
                        let result = runner.redeem(usage, request_hash).await;
                        runner.step(Event::Recorded { id, result });
                    });
                }
                Effect::ReplyPublicKeys { id, result } => {
                    if let Some(Waiting::PublicKeys(reply)) = self.state().waiting.remove(&id) {
                        let _ = reply.send(result);
                    }
                }
                Effect::ReplyUse { id, result } => {
                    if let Some(Waiting::Use(reply)) = self.state().waiting.remove(&id) {
                        let _ = reply.send(result);
                    }
                }
            }
        }
    }

    async fn ask(&self, request: BoundaryRequest) -> Result<Answer, BoundaryFailure> {
        let request = match request {
            BoundaryRequest::PublicKeys { path, epoch } => Request::PublicKey { path, epoch },
            BoundaryRequest::Use { path, epoch, operation: Operation::Sign { message } } => {
                Request::Sign { path, message, epoch }
            }
            BoundaryRequest::Use { path, epoch, operation: Operation::SignBytes { message } } => {
                Request::SignBytes { path, message, epoch }
            }
            BoundaryRequest::Use { path, epoch, operation: Operation::Encrypt { plain } } => {
                Request::Encrypt { path, plain, epoch }
            }
            BoundaryRequest::Use { path, operation: Operation::Decrypt { sealed }, .. } => {
                Request::Decrypt { path, sealed }
            }
        };
        let response = self.link.ask(request).await;
        Ok(match response.map_err(|error| BoundaryFailure::Failed(error.to_string()))? {
            Response::PublicKey { public_key, exchange_key } => {
                Answer::PublicKeys(PublicKeys { signing: public_key, exchange: exchange_key })
            }
            Response::Signed { signature, public_key } => {
                Answer::Output(Output::Signed { signature, public_key })
            }
            Response::Encrypted { sealed } => Answer::Output(Output::Encrypted(sealed)),
            Response::Decrypted { plain } => Answer::Output(Output::Decrypted(plain)),
            Response::Refused(Refusal::Locked) => return Err(BoundaryFailure::Locked),
            Response::Refused(Refusal::Purpose(why)) => return Err(BoundaryFailure::WrongPurpose(why)),
            Response::Refused(refusal) => return Err(BoundaryFailure::Failed(refusal.to_string())),
            Response::Status { .. }
            | Response::Created { .. }
            | Response::Unsealed
            | Response::Locked
            | Response::Armed
            | Response::WordsWritten
            | Response::WordsRead
            | Response::Resealed { .. } => {
                return Err(BoundaryFailure::Failed("the boundary answered another question".to_owned()));
            }
        })
    }

    async fn record(&self, usage: KeyUsage) -> Result<AxiomRef, NotRecorded> {
        let entry = Entry::record(self.node.identity(), usage).map_err(not_recorded)?;
        let committed = self.node.authority().record(entry).await.map_err(not_recorded)?;
        committed.entry.ok_or(NotRecorded)
    }

    /// Records a use on its decision, which no other entry can use then.
    async fn redeem(&self, usage: KeyUsage, request_hash: Hash) -> Result<AxiomRef, NotRecorded> {
        let decision = usage.authorization.sequence;
        let key = EntryKey(kit::authority::random_16().map_err(not_recorded)?);
        let entry =
            Entry::build(self.node.identity(), Some(request_hash), key, usage).map_err(not_recorded)?;
        let committed = self.node.authority().redeem(decision, entry).await.map_err(not_recorded)?;
        committed.entry.ok_or(NotRecorded)
    }
}

fn not_recorded(error: kit::authority::AuthorityError) -> NotRecorded {
    tracing::warn!(%error, "the use of a key could not be recorded; nothing is released");
    NotRecorded
}
