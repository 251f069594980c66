//! The road of every act: one stream of batches to policy, shared by all calls of a service.
//!
//! What was sent and not answered is sent again, in order and with the same keys, after the stream broke: the log
//! knows the keys, so nothing happens twice. What was never sent fails after a while, and nothing has changed.

mod driver;

use std::{path::PathBuf, sync::Arc, time::Duration};

use base::{
    AxiomRef, AxiomTime, EntryKey, Hash, IdentityId, Nonce, ProcessId, RuleId, Sequence, cbor,
    limits::MESSAGE_BYTES_MAX,
};
use chain::payload::{
    Body, Envelope, PayloadError,
    policy::{PolicyAction, PolicyContext, PolicyRequest, ResourceRef},
};
use contracts::{
    common::v1 as common,
    policy::v1::{self as wire, authority_item::Item, authority_reply::Result as WireResult},
};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::Code;

use crate::{
    error::{Guilty, IntoRefusal, Retry},
    feed::Feed,
    observe::Counter,
};
use driver::{Driver, Pending};

/// Items in one batch, and its bytes with room for the framing of the items.
pub const BATCH_ITEMS_MAX: usize = 256;
pub const BATCH_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// One item; a request and a payload of the largest size fit.
pub const ITEM_BYTES_MAX: usize = 256 * 1024;
/// Items that wait for an answer; beyond it a caller hears `Busy` at once.
pub const IN_FLIGHT_MAX: usize = 1024;
/// What a caller beyond that is told to wait: about the time of one group commit.
const BUSY_RETRY_MS: u32 = 10;
/// An item that could not be sent for so long fails; it has changed nothing.
pub const UNSENT_MAX: Duration = Duration::from_secs(5);

static ITEMS: Counter = Counter::new("authority_items_total", "items sent to policy");
static BATCHES: Counter = Counter::new("authority_batches_total", "batches sent to policy");
static RESENT: Counter = Counter::new("authority_resent_total", "items sent again after a broken stream");

/// What every service counts about its acts.
pub(crate) static COUNTERS: [&Counter; 3] = [&ITEMS, &BATCHES, &RESENT];

/// What was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// None for records and preflights.
    pub decision: Option<AxiomRef>,
    /// None for evaluations and preflights.
    pub entry: Option<AxiomRef>,
    /// CBOR `SignedDecision` as recorded; empty for records.
    pub signed_decision: Vec<u8>,
    /// The same key and bytes stood in the log before; the references are the first ones.
    pub duplicate: bool,
    pub timestamp: AxiomTime,
    /// Services that may still go by what was before; only of what takes something away.
    pub laggards: Vec<String>,
    /// Of the last entry that changed what this was decided by; none if nobody knows.
    pub decided_by: Option<Sequence>,
}

/// What takes something away is no success while somebody goes by what was before.
pub fn noticed(what: &str, at: Sequence, laggards: &[String]) -> Result<(), tonic::Status> {
    if laggards.is_empty() {
        return Ok(());
    }
    let who = laggards.join(", ");
    Err(tonic::Status::unavailable(format!(
        "{what} (entry {at}), and something may still go by what was before: {who}; look at `bailiwick status`"
    )))
}

impl Committed {
    /// Who has folded this has folded all rules, identities and rights that it was decided by. What else came before it, which
    /// can be much on a busy node, need not be waited for.
    #[must_use]
    pub fn decided_by(&self) -> Sequence {
        let last = self.entry.or(self.decision).map_or(Sequence(0), |at| at.sequence);
        self.decided_by.unwrap_or(last)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthorityError {
    #[error("denied by policy; `bailiwick why {}` tells the operator more", decision.sequence)]
    Denied {
        decision: AxiomRef,
        /// What was to be done at once ([`Authority::use_now`]) would be allowed by this rule at another time.
        later_by: Option<RuleId>,
    },
    #[error("policy refused the request, {reason}: {text}")]
    Refused { reason: String, text: String },
    #[error("{IN_FLIGHT_MAX} acts are under way; ask again in {retry_after_ms} ms")]
    Busy { retry_after_ms: u32 },
    #[error("policy could not be reached within {} s; nothing has changed", UNSENT_MAX.as_secs())]
    Unavailable,
    #[error("an act has at most {ITEM_BYTES_MAX} bytes, not {bytes}")]
    TooLarge { bytes: usize },
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error("the kernel gives no random numbers")]
    NoRandom,
    #[error("policy's answer is malformed: {0}")]
    MalformedReply(&'static str),
    #[error("this service is ending")]
    Ended,
}

/// What policy says of an act that another rule decides than it was made for.
const RULE_DIFFERS: &str = "RuleDiffers";
/// What it says where a rule allows, and asks for more than is there.
const UNAUTHORIZED: &str = "Unauthorized";

impl AuthorityError {
    /// Nothing was recorded: the act was made for what another rule allows.
    #[must_use]
    pub fn is_of_another_rule(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason == RULE_DIFFERS)
    }

    /// A rule allows it, under a condition that is not met now.
    #[must_use]
    pub fn is_of_a_condition(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason == UNAUTHORIZED)
    }
}

impl IntoRefusal for AuthorityError {
    const DOMAIN: &'static str = "bailiwick.policy.v1";

    fn reason(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "PolicyDenied",
            Self::Refused { .. } => "PolicyRefused",
            Self::Busy { .. } => "Busy",
            Self::Unavailable | Self::Ended | Self::MalformedReply(_) | Self::NoRandom => "PolicyUnavailable",
            Self::TooLarge { .. } | Self::Payload(_) => "InvalidPayload",
        }
    }

    fn guilty(&self) -> Guilty {
        match self {
            Self::Denied { .. } | Self::Refused { .. } | Self::Busy { .. } => Guilty::Refused,
            Self::TooLarge { .. } | Self::Payload(_) => Guilty::Misuse,
            Self::Unavailable | Self::Ended | Self::MalformedReply(_) | Self::NoRandom => Guilty::Gone,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Busy { retry_after_ms } => Retry::After(*retry_after_ms),
            Self::Unavailable => Retry::After(500),
            _ => Retry::Never,
        }
    }

    fn refusal(&self) -> Option<Sequence> {
        match self {
            Self::Denied { decision, .. } => Some(decision.sequence),
            _ => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Denied { .. } => Code::PermissionDenied,
            Self::Refused { .. } => Code::FailedPrecondition,
            Self::Busy { .. } => Code::ResourceExhausted,
            Self::TooLarge { .. } | Self::Payload(_) => Code::InvalidArgument,
            Self::Unavailable | Self::Ended | Self::MalformedReply(_) | Self::NoRandom => Code::Unavailable,
        }
    }
}

impl From<AuthorityError> for tonic::Status {
    fn from(error: AuthorityError) -> Self {
        error.to_status()
    }
}

/// Sixteen bytes of the kernel's random source.
pub fn random_16() -> Result<[u8; 16], AuthorityError> {
    let mut bytes = [0; 16];
    sandbox::random::fill(&mut bytes).map_err(|_| AuthorityError::NoRandom)?;
    Ok(bytes)
}

/// An entry to be recorded: its type and payload, built once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub entry_type: u32,
    pub payload: Vec<u8>,
    pub key: EntryKey,
}

impl Entry {
    /// An entry that `request` asks for; its key is new.
    pub fn for_request<T: Body>(
        submitter: IdentityId,
        request: &PolicyRequest,
        body: T,
    ) -> Result<Self, AuthorityError> {
        Self::build(submitter, Some(request.hash()), EntryKey(random_16()?), body)
    }

    /// A record, which needs no decision; its key is new.
    pub fn record<T: Body>(submitter: IdentityId, body: T) -> Result<Self, AuthorityError> {
        Self::build(submitter, None, EntryKey(random_16()?), body)
    }

    /// With a key of the caller's own, so that a repetition after a crash is recognised.
    pub fn build<T: Body>(
        submitter: IdentityId,
        authorization: Option<Hash>,
        key: EntryKey,
        body: T,
    ) -> Result<Self, AuthorityError> {
        let payload = Envelope { submitter, key, authorization, body }.to_bytes()?;
        Ok(Self { entry_type: T::ENTRY_TYPE, payload, key })
    }

    fn into_wire(self) -> wire::Proposal {
        wire::Proposal { entry_type: self.entry_type, payload: self.payload }
    }
}

/// Policy, as a service sees it. Cheap to clone; connects when it is first used.
#[derive(Clone, Debug)]
pub struct Authority {
    service: &'static str,
    feed: Feed,
    queue: mpsc::Sender<Pending>,
    room: Arc<Semaphore>,
}

impl Authority {
    /// Needs a running tokio runtime.
    #[must_use]
    pub fn at(socket: PathBuf, service: &'static str, feed: Feed) -> Self {
        let (queue, waiting) = mpsc::channel(IN_FLIGHT_MAX);
        tokio::spawn(Driver::new(socket, waiting).run());
        Self { service, feed, queue, room: Arc::new(Semaphore::new(IN_FLIGHT_MAX)) }
    }

    /// A request of this service, with a new nonce and what has been folded here. `resource` counts for actions that
    /// name none of their own; for the others the engine refuses any but theirs.
    pub fn request(
        &self,
        requestor: IdentityId,
        action: PolicyAction,
        resource: ResourceRef,
    ) -> Result<PolicyRequest, AuthorityError> {
        let resource = action.resource().unwrap_or(resource);
        Ok(PolicyRequest {
            requestor,
            action,
            resource,
            context: PolicyContext {
                axiom_sequence: self.feed.folded().0,
                service: self.service.to_owned(),
                process: ProcessId(0),
                metadata: std::collections::BTreeMap::new(),
            },
            nonce: Nonce(random_16()?),
            signature: None,
        })
    }

    /// Decides and, if allowed, records decision and entry together.
    pub async fn act(&self, request: &PolicyRequest, entry: Entry) -> Result<Committed, AuthorityError> {
        let request = cbor::encode(request);
        self.submit(Item::Act(wire::Act { request, entry: Some(entry.into_wire()), rule: None })).await
    }

    /// The same if this rule decides, for what the entry was made. If another one does, nothing is recorded
    /// ([`AuthorityError::is_of_another_rule`]).
    pub async fn act_by(
        &self,
        request: &PolicyRequest,
        entry: Entry,
        rule: &RuleId,
    ) -> Result<Committed, AuthorityError> {
        let (request, rule) = (cbor::encode(request), Some(rule.to_string()));
        self.submit(Item::Act(wire::Act { request, entry: Some(entry.into_wire()), rule })).await
    }

    /// Whether the act would be allowed now; to be asked before an effect is prepared at some cost. A yes leaves no trace
    /// and binds nobody: `act` decides again. A no is the denial that the act would have met, on record.
    pub async fn preflight(&self, request: &PolicyRequest) -> Result<(), AuthorityError> {
        self.submit(Item::Preflight(wire::Request { request: cbor::encode(request) })).await.map(drop)
    }

    /// Decides and records the decision, for one use later.
    pub async fn evaluate(&self, request: &PolicyRequest) -> Result<Committed, AuthorityError> {
        self.submit(Item::Evaluate(wire::Request { request: cbor::encode(request) })).await
    }

    /// Decides what is done as soon as this returns, without an entry of its own. What an allowance asks for beside holds now, as
    /// of an act; a denial says whether it is for good.
    pub async fn use_now(&self, request: &PolicyRequest) -> Result<Committed, AuthorityError> {
        self.submit(Item::UseNow(wire::Request { request: cbor::encode(request) })).await
    }

    /// Records an entry on a decision that stands in the log, and uses it up.
    pub async fn redeem(&self, decision: Sequence, entry: Entry) -> Result<Committed, AuthorityError> {
        self.submit(Item::Redeem(wire::Redeem { decision: decision.0, entry: Some(entry.into_wire()) })).await
    }

    /// Records what needs no decision: receipts, exits, failures.
    pub async fn record(&self, entry: Entry) -> Result<Committed, AuthorityError> {
        self.submit(Item::Record(entry.into_wire())).await
    }

    async fn submit(&self, item: Item) -> Result<Committed, AuthorityError> {
        let bytes = item_bytes(&item);
        if bytes > ITEM_BYTES_MAX {
            return Err(AuthorityError::TooLarge { bytes });
        }
        let busy = AuthorityError::Busy { retry_after_ms: BUSY_RETRY_MS };
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| busy.clone())?;
        let (reply, answer) = oneshot::channel();
        // The queue is as long as the permits, so there is room.
        self.queue.try_send(Pending::new(item, bytes, reply, permit)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => busy,
            mpsc::error::TrySendError::Closed(_) => AuthorityError::Ended,
        })?;
        let committed = answer.await.unwrap_or(Err(AuthorityError::Ended))?;
        // Whoever is told of it may ask another service next.
        for landed in [&committed.decision, &committed.entry].into_iter().flatten() {
            self.feed.seen().note(landed.sequence);
        }
        Ok(committed)
    }
}

/// Bytes that an item adds to its batch, rounded up.
fn item_bytes(item: &Item) -> usize {
    // Tags, lengths, id and sequence.
    const FRAMING_BYTES: usize = 64;
    let proposal = |entry: &Option<wire::Proposal>| entry.as_ref().map_or(0, |entry| entry.payload.len());
    FRAMING_BYTES
        + match item {
            Item::Act(act) => {
                act.request.len() + proposal(&act.entry) + act.rule.as_ref().map_or(0, String::len)
            }
            Item::Evaluate(request) | Item::Preflight(request) | Item::UseNow(request) => {
                request.request.len()
            }
            Item::Redeem(redeem) => proposal(&redeem.entry),
            Item::Record(entry) => entry.payload.len(),
        }
}

fn read_ref(reference: Option<common::AxiomRef>) -> Result<Option<AxiomRef>, AuthorityError> {
    reference
        .map(|reference| {
            let hash = Hash::from_slice(&reference.hash)
                .ok_or(AuthorityError::MalformedReply("an entry hash has not 32 bytes"))?;
            Ok(AxiomRef { sequence: Sequence(reference.sequence), hash })
        })
        .transpose()
}

fn read_reply(result: Option<WireResult>) -> Result<Committed, AuthorityError> {
    match result.ok_or(AuthorityError::MalformedReply("a reply without a result"))? {
        WireResult::Committed(committed) => Ok(Committed {
            decision: read_ref(committed.decision)?,
            entry: read_ref(committed.entry)?,
            signed_decision: committed.signed_decision,
            duplicate: committed.duplicate,
            timestamp: AxiomTime(committed.timestamp_ns),
            laggards: committed.laggards,
            decided_by: committed.decided_by.map(Sequence),
        }),
        WireResult::Denied(denied) => Err(AuthorityError::Denied {
            decision: read_ref(denied.decision)?
                .ok_or(AuthorityError::MalformedReply("a denial without a decision"))?,
            later_by: denied.later_by.and_then(|rule| RuleId::new(rule).ok()),
        }),
        WireResult::Refused(refused) => {
            Err(AuthorityError::Refused { reason: refused.reason, text: refused.text })
        }
        WireResult::Permitted(_) => Ok(Committed {
            decision: None,
            entry: None,
            signed_decision: Vec::new(),
            duplicate: false,
            timestamp: AxiomTime::ZERO,
            laggards: Vec::new(),
            decided_by: None,
        }),
        WireResult::BusyRetryAfterMs(retry_after_ms) => Err(AuthorityError::Busy { retry_after_ms }),
    }
}
