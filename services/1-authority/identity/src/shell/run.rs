//! Carries out what the core asks for: public keys from `keys`, acts by policy, answers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base::{AxiomRef, AxiomTime, KeyPath, PublicKey, Sequence, TraceId};
use chain::payload::identity::{IdentityChange, IdentityUpdated};
use contracts::keys::v1::{DerivePublicKeyRequest, keys_client::KeysClient};
use kit::{
    CallError, FeedEntry, Node, OperationContext, Peer, Requestor,
    authority::{AuthorityError, Entry},
};
use tokio::sync::oneshot;
use tonic::Status;

use crate::core::{
    Act, ActFailure, Effect, Event, IdentityCore, IdentityError, Proposal, Registry, Reply, RequestId,
};

/// How often a drain looks whether all is done.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
const DERIVE_CAPABILITY: &str = "system.keys.derive_public_key";

/// A request's result, and the entry that it left in the log.
pub(super) type Outcome = (Reply, Option<AxiomRef>);

/// A request's result, the entry that it left in the log, and who may not go by that entry yet.
struct Done {
    reply: Reply,
    committed: Option<AxiomRef>,
    laggards: Vec<String>,
}

struct Waiting {
    requestor: Requestor,
    trace: TraceId,
    reply: oneshot::Sender<Result<Done, Status>>,
    committed: Option<AxiomRef>,
    laggards: Vec<String>,
    /// Why an act never reached policy or was not carried out there, where that is more than the core knows.
    fault: Option<Status>,
}

#[derive(Default)]
struct State {
    core: IdentityCore,
    last_id: u64,
    waiting: HashMap<RequestId, Waiting>,
}

/// Core and node together; shared by handlers, feed and effects.
pub(super) struct Runner {
    node: Node,
    keys: Peer,
    policy: Peer,
    state: Mutex<State>,
}

impl Runner {
    pub(super) fn new(node: Node) -> Self {
        let (keys, policy) = (node.peer("keys"), node.peer("policy"));
        Self { node, keys, policy, state: Mutex::default() }
    }

    pub(super) const fn node(&self) -> &Node {
        &self.node
    }

    pub(super) const fn keys(&self) -> &Peer {
        &self.keys
    }

    pub(super) const fn policy(&self) -> &Peer {
        &self.policy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fold(&self, entry: &FeedEntry) -> Result<(), kit::BoxError> {
        let payload = entry.decode()?;
        self.state().core.apply(entry.reference(), entry.timestamp, payload);
        Ok(())
    }

    pub(super) fn save(&self) -> Vec<u8> {
        self.state().core.save()
    }

    pub(super) fn restore(&self, own: &[u8]) -> Result<(), kit::BoxError> {
        Ok(self.state().core.restore(own)?)
    }

    /// Looks something up in the registry.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        look(self.state().core.registry())
    }

    /// Runs one request to its end.
    pub(super) async fn run(
        self: &Arc<Self>,
        requestor: Requestor,
        trace: TraceId,
        event: impl FnOnce(RequestId) -> Event,
    ) -> Result<Outcome, Status> {
        let Done { reply, committed, .. } = self.finish(requestor, trace, event).await?;
        Ok((reply, committed))
    }

    /// Runs one request that takes something away: no success while somebody goes by what was before. `what` has
    /// happened all the same.
    pub(super) async fn withdraw(
        self: &Arc<Self>,
        requestor: Requestor,
        trace: TraceId,
        what: &str,
        event: impl FnOnce(RequestId) -> Event,
    ) -> Result<Option<AxiomRef>, Status> {
        let Done { committed, laggards, .. } = self.finish(requestor, trace, event).await?;
        let at = committed.map_or(Sequence(0), |at| at.sequence);
        kit::authority::noticed(what, at, &laggards)?;
        Ok(committed)
    }

    async fn finish(
        self: &Arc<Self>,
        requestor: Requestor,
        trace: TraceId,
        event: impl FnOnce(RequestId) -> Event,
    ) -> Result<Done, Status> {
        // Everything that expires is stamped with it.
        let now = self.node.clock().now().ok_or(IdentityError::TimeUnknown)?;
        let (reply, answer) = oneshot::channel();
        let effects = {
            let mut state = self.state();
            state.last_id += 1;
            let id = RequestId(state.last_id);
            let waiting =
                Waiting { requestor, trace, reply, committed: None, laggards: Vec::new(), fault: None };
            state.waiting.insert(id, waiting);
            state.core.step(now, event(id))
        };
        self.perform(effects);
        let done = answer.await.unwrap_or_else(|_| Err(Status::internal("the request was lost")))?;
        if let Some(committed) = done.committed {
            // So that the caller's next question finds it; if the feed is late, the act stands all the same.
            let _ = self.node.feed().wait_for(committed.sequence).await;
        }
        Ok(done)
    }

    pub(super) async fn drain(&self) {
        while self.state().core.pending() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    fn step(self: &Arc<Self>, event: Event) {
        let now = self.node.clock().now().unwrap_or(AxiomTime(u64::MAX));
        let effects = self.state().core.step(now, event);
        self.perform(effects);
    }

    fn perform(self: &Arc<Self>, effects: Vec<Effect>) {
        for effect in effects {
            let runner = Arc::clone(self);
            match effect {
                Effect::AskKeys { id, path } => {
                    tokio::spawn(async move {
                        let result = runner.derive(id, &path).await.map_err(|error| error.to_string());
                        runner.step(Event::KeyDerived { id, result });
                    });
                }
                Effect::Act { id, act } => {
                    tokio::spawn(async move {
                        let result = runner.act(id, *act).await;
                        runner.step(Event::Acted { id, result });
                    });
                }
                Effect::Record { id, update } => {
                    tokio::spawn(async move {
                        runner.record(*update).await;
                        runner.step(Event::Recorded { id });
                    });
                }
                Effect::Reply { id, result } => {
                    let Some(waiting) = self.state().waiting.remove(&id) else { continue };
                    let (committed, laggards) = (waiting.committed, waiting.laggards);
                    let result = match (result, waiting.fault) {
                        (Ok(reply), _) => Ok(Done { reply, committed, laggards }),
                        (Err(_), Some(fault)) => Err(fault),
                        (Err(error), None) => Err(error.into()),
                    };
                    let _ = waiting.reply.send(result);
                }
            }
        }
    }

    async fn derive(&self, id: RequestId, path: &KeyPath) -> Result<PublicKey, CallError> {
        let trace = self.state().waiting.get(&id).map_or(TraceId([0; 16]), |waiting| waiting.trace);
        let calls = OperationContext::of_service(self.node.identity(), DERIVE_CAPABILITY, trace)
            .and_then(|context| self.keys.with(&context, None))
            .map_err(Status::from)?;
        let request = DerivePublicKeyRequest { path: path.to_string(), epoch: None };
        let answer = KeysClient::new(calls).derive_public_key(request).await?.into_inner();
        let key = answer.key.as_slice().try_into().map(PublicKey);
        Ok(key.map_err(|_| Status::internal("a public key has 32 bytes"))?)
    }

    async fn act(&self, id: RequestId, act: Act) -> Result<AxiomRef, ActFailure> {
        match self.commit(id, act).await {
            Ok((entry, laggards)) => {
                if let Some(waiting) = self.state().waiting.get_mut(&id) {
                    waiting.committed = Some(entry);
                    waiting.laggards = laggards;
                }
                Ok(entry)
            }
            Err(Fault::Denied(decision)) => Err(ActFailure::Denied(decision.sequence)),
            Err(Fault::Other(status)) => {
                tracing::warn!(error = status.message(), "an act was not carried out");
                if let Some(waiting) = self.state().waiting.get_mut(&id) {
                    waiting.fault = Some(status);
                }
                Err(ActFailure::NotCommitted)
            }
        }
    }

    /// A failure is answered as one even where it could not be recorded.
    async fn record(&self, update: IdentityUpdated) {
        let recorded = match Entry::record(self.node.identity(), update) {
            Ok(entry) => self.node.authority().record(entry).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            tracing::warn!(%error, "a failed authentication was not recorded");
        }
    }

    async fn commit(&self, id: RequestId, act: Act) -> Result<(AxiomRef, Vec<String>), Fault> {
        let Act { requestor, action, resource, proposal } = act;
        let by_credential = matches!(&proposal, Proposal::Updated(update)
            if update.identity == requestor && matches!(update.change, IdentityChange::Authenticated { .. }));
        let request = if by_credential {
            // Its credential has proved who asks, whoever vouches for the channel.
            self.node.authority().request(requestor, action, resource)?
        } else {
            let waiting = self.state().waiting.get(&id).map(|waiting| waiting.requestor.clone());
            let proven = waiting.filter(|proven| proven.id() == requestor);
            let proven = proven.ok_or_else(|| Status::internal("an act without a requestor"))?;
            proven.ask(&self.node, action, resource)?
        };
        let submitter = self.node.identity();
        let entry = match proposal {
            Proposal::Created(created) => Entry::for_request(submitter, &request, created),
            Proposal::Updated(updated) => Entry::for_request(submitter, &request, updated),
            Proposal::CredentialAdded(added) => Entry::for_request(submitter, &request, added),
            Proposal::CredentialRevoked(revoked) => Entry::for_request(submitter, &request, revoked),
        }?;
        let committed = self.node.authority().act(&request, entry).await?;
        let entry = committed.entry.ok_or_else(|| Status::internal("an act without an entry"))?;
        Ok((entry, committed.laggards))
    }
}

enum Fault {
    Denied(AxiomRef),
    Other(Status),
}

impl From<AuthorityError> for Fault {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::Denied { decision, .. } => Self::Denied(decision),
            error => Self::Other(error.into()),
        }
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self::Other(status)
    }
}
