//! Carries out what the core asks for: questions to the boundary, records, answers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base::{AxiomRef, EntryKey, Hash, IdentityId, KeyPath, PublicKey, Sequence};
use chain::payload::identity::{KeyOperation, KeyUsage};
use kit::{FeedEntry, Node, authority::Entry};
use tokio::sync::oneshot;

use super::link::Link;
use crate::{
    boundary::protocol::{Refusal, Request, Response},
    core::{
        Answer, BoundaryFailure, BoundaryRequest, Effect, Event, KeyError, KeysCore, NotRecorded, RequestId,
        SignRequest, SignResponse,
    },
};

/// How often the core is told the time while one of its requests waits for its decision to be committed.
const TICK: Duration = Duration::from_millis(500);
/// How often a drain looks whether all is done.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

enum Waiting {
    PublicKey(oneshot::Sender<Result<PublicKey, KeyError>>),
    Sign(oneshot::Sender<Result<SignResponse, KeyError>>),
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
}

impl Runner {
    pub(super) fn new(node: Node, link: Link) -> Self {
        Self { node, link, state: Mutex::default() }
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

    pub(super) async fn public_key(self: &Arc<Self>, path: KeyPath) -> Result<PublicKey, KeyError> {
        let (reply, answer) = oneshot::channel();
        self.begin(Waiting::PublicKey(reply), |id| Event::PublicKey { id, path });
        self.answer(answer).await
    }

    pub(super) async fn sign(self: &Arc<Self>, request: SignRequest) -> Result<SignResponse, KeyError> {
        let (reply, answer) = oneshot::channel();
        self.begin(Waiting::Sign(reply), |id| Event::Sign { id, request });
        self.answer(answer).await
    }

    /// Records a refusal that the core has not seen, before the caller hears of it (KEY-34).
    pub(super) async fn refuse(
        &self,
        requestor: IdentityId,
        key_path: KeyPath,
        message: Hash,
        error: KeyError,
    ) -> KeyError {
        let usage = KeyUsage {
            identity: requestor,
            key_path,
            operation: KeyOperation::Sign,
            message_hash: Some(message),
            authorization: AxiomRef { sequence: Sequence(0), hash: Hash::ZERO },
            output_hash: None,
            refused: Some(error.to_string()),
        };
        match self.record(usage).await {
            Ok(_) => error,
            Err(NotRecorded) => KeyError::AuditUnavailable,
        }
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
                Effect::ReplyPublicKey { id, result } => {
                    if let Some(Waiting::PublicKey(reply)) = self.state().waiting.remove(&id) {
                        let _ = reply.send(result);
                    }
                }
                Effect::ReplySign { id, result } => {
                    if let Some(Waiting::Sign(reply)) = self.state().waiting.remove(&id) {
                        let _ = reply.send(result);
                    }
                }
            }
        }
    }

    async fn ask(&self, request: BoundaryRequest) -> Result<Answer, BoundaryFailure> {
        let request = match request {
            BoundaryRequest::PublicKey { path } => Request::PublicKey { path },
            BoundaryRequest::Sign { path, message } => Request::Sign { path, message },
        };
        match self.link.ask(request).await {
            Ok(Response::PublicKey { public_key }) => Ok(Answer::PublicKey(public_key)),
            Ok(Response::Signed { signature, public_key }) => Ok(Answer::Signed { signature, public_key }),
            Ok(Response::Refused(Refusal::Locked)) => Err(BoundaryFailure::Locked),
            Ok(Response::Refused(refusal)) => Err(BoundaryFailure::Failed(refusal.to_string())),
            Ok(_) => Err(BoundaryFailure::Failed("the boundary answered another question".to_owned())),
            Err(error) => Err(BoundaryFailure::Failed(error.to_string())),
        }
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
