//! The engine's contract: decisions for callers themselves, rules, and explanations for the operator.

use std::sync::Arc;

use base::{AxiomRef, IdentityId, Nonce, RuleId, Sequence};
use chain::{
    log_edge::{COSIGNED_BYTES_MAX, EDGE_WITNESSES_MAX, PLACE_BYTES_MAX},
    payload::{
        Body, Envelope, Payload,
        log::LogArchive,
        policy::{
            DecisionBody, PolicyAction, PolicyContext, PolicyEffect, PolicyRequest, PolicyRule,
            PolicyRuleAdded, PolicyRuleRemoved, ServiceOperation, SignedDecision,
        },
    },
};
use contracts::{convert::ConvertError, policy::v1 as wire, policy::v1::policy_engine_server::PolicyEngine};
use kit::{Guilty, IntoRefusal, Requestor, Retry};
use thiserror::Error;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::{PolicyService, engine::Asked, log};
use crate::core::{
    Entry, Item, RuleFilter,
    authority::identity_of,
    explain::{Explanation, explain},
    validate,
    verify::request_of,
};
use crate::rules::to_toml;

/// The engine's own channel: it may ask every action, for callers whom it has authenticated.
const OWN_CHANNEL: &str = "policy";
/// Pairs of a context, as the contract says.
const METADATA_PAIRS_MAX: usize = 32;
/// Bytes of a key or value of one.
const METADATA_BYTES_MAX: usize = 256;
/// Bytes of a witness' key as text.
const WITNESS_BYTES_MAX: usize = 512;

pub(super) struct Contract(pub(super) Arc<PolicyService>);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum ContractError {
    #[error("the request is malformed: {0}")]
    Malformed(#[from] ConvertError),
    #[error("metadata has at most {METADATA_PAIRS_MAX} pairs of {METADATA_BYTES_MAX} bytes")]
    Metadata,
    #[error(
        "a checkpoint has at most {COSIGNED_BYTES_MAX} bytes, its witnesses are 1 to {EDGE_WITNESSES_MAX}, a place has at most \
         {PLACE_BYTES_MAX} bytes"
    )]
    Archive,
    #[error("you are {caller}, but ask for {requestor}; sign the request with its key, or ask for yourself")]
    Requestor { caller: IdentityId, requestor: IdentityId },
    #[error("there is no rule {0}")]
    RuleNotFound(String),
    #[error("refused by policy")]
    Denied(Sequence),
    #[error("{text}")]
    Refused { reason: String, text: String },
    #[error("too much is under way; try again in {0} ms")]
    Busy(u32),
    #[error("the engine has no answer; what was asked may or may not be on record")]
    NoAnswer,
    #[error("entry {0} is no decision")]
    NoDecision(Sequence),
    #[error("nothing was refused")]
    NothingRefused,
    #[error("{0}")]
    Internal(String),
}

impl IntoRefusal for ContractError {
    const DOMAIN: &'static str = "bailiwick.policy.v1";

    fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Metadata | Self::Archive => "InvalidRequest",
            Self::Requestor { .. } => "Unauthenticated",
            Self::RuleNotFound(_) => "RuleNotFound",
            Self::Denied(_) => "PolicyDenied",
            Self::Refused { reason, .. } => refusal_name(reason),
            Self::Busy(_) => "Busy",
            Self::NoAnswer => "AxiomUnavailable",
            Self::NoDecision(_) | Self::NothingRefused => "NotFound",
            Self::Internal(_) => "Internal",
        }
    }

    fn guilty(&self) -> Guilty {
        match self {
            Self::Malformed(_) | Self::Metadata | Self::Archive => Guilty::Misuse,
            Self::Busy(_) | Self::NoAnswer | Self::Internal(_) => Guilty::Gone,
            _ => Guilty::Refused,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Busy(ms) => Retry::After(*ms),
            _ => Retry::Never,
        }
    }

    fn refusal(&self) -> Option<Sequence> {
        match self {
            Self::Denied(sequence) => Some(*sequence),
            _ => None,
        }
    }
}

/// The names of the contract; anything else the engine says is `Refused`.
fn refusal_name(reason: &str) -> &'static str {
    const NAMES: [&str; 12] = [
        "Unauthenticated",
        "InvalidSignature",
        "Unauthorized",
        "RuleNotFound",
        "DuplicateRule",
        "InvalidRule",
        "AxiomUnavailable",
        "InvalidRequest",
        "InvalidPayload",
        "PolicyMismatch",
        "PolicyDecisionExpired",
        "DecisionUsed",
    ];
    NAMES.into_iter().find(|name| *name == reason).unwrap_or("Refused")
}

impl From<ContractError> for Status {
    fn from(error: ContractError) -> Self {
        error.to_status()
    }
}

impl Contract {
    async fn ask(&self, item: Item) -> Result<wire::Committed, ContractError> {
        let (replies, mut answer) = mpsc::unbounded_channel();
        self.0.desk.ask(vec![Asked { channel: OWN_CHANNEL.into(), id: 0, item, replies }]).await;
        let reply = answer.recv().await.and_then(|mut together| together.pop());
        let result = reply.and_then(|reply| reply.result).ok_or(ContractError::NoAnswer)?;
        match result {
            wire::authority_reply::Result::Committed(committed) => Ok(committed),
            wire::authority_reply::Result::Denied(denied) => {
                Err(ContractError::Denied(Sequence(denied.decision.map_or(0, |at| at.sequence))))
            }
            wire::authority_reply::Result::Refused(wire::Refused { reason, text }) => {
                Err(ContractError::Refused { reason, text })
            }
            wire::authority_reply::Result::BusyRetryAfterMs(ms) => Err(ContractError::Busy(ms)),
            wire::authority_reply::Result::Permitted(_) => {
                Err(ContractError::Internal("the engine answered what was not asked".to_owned()))
            }
        }
    }

    /// A request of the engine's own, for an authenticated caller and inside its token's scope.
    fn own_request(&self, requestor: &Requestor, action: PolicyAction) -> Result<PolicyRequest, Status> {
        let resource = action
            .resource()
            .ok_or_else(|| ContractError::Internal("an action without a resource".to_owned()))?;
        requestor.permit(action.kind(), &resource)?;
        Ok(PolicyRequest {
            requestor: requestor.id(),
            action,
            resource,
            context: PolicyContext {
                axiom_sequence: self.0.node.feed().folded().0,
                service: OWN_CHANNEL.to_owned(),
                ..PolicyContext::default()
            },
            nonce: Nonce(random()?),
            signature: None,
        })
    }

    /// Changes the rules: decision and entry in one.
    async fn change<T: Body>(
        &self,
        requestor: &Requestor,
        rule: PolicyRule,
        body: T,
    ) -> Result<wire::Committed, Status> {
        self.act(requestor, PolicyAction::ModifyPolicy { rule: Box::new(rule) }, body).await
    }

    /// An act of the engine's own: decision and entry in one.
    async fn act<T: Body>(
        &self,
        requestor: &Requestor,
        action: PolicyAction,
        body: T,
    ) -> Result<wire::Committed, Status> {
        let request = self.own_request(requestor, action)?;
        let submitter = identity_of(self.0.desk.engine().confirmed(), OWN_CHANNEL).map(|own| own.id);
        let envelope = Envelope {
            submitter: submitter
                .ok_or_else(|| ContractError::Internal("policy has no identity".to_owned()))?,
            key: base::EntryKey(random()?),
            authorization: Some(request.hash()),
            body,
        };
        let payload = envelope.to_bytes().map_err(|error| ContractError::Internal(error.to_string()))?;
        let entry = Entry { entry_type: T::ENTRY_TYPE, payload };
        Ok(self.ask(Item::Act { request: base::cbor::encode(&request), entry }).await?)
    }

    async fn decision(&self, sequence: Sequence) -> Result<DecisionBody, ContractError> {
        let entry = log::read(&self.0.node, sequence).await;
        match entry.map_err(|error| ContractError::Internal(error.to_string()))?.map(|entry| entry.payload) {
            Some(Payload::PolicyDecision(decision)) => {
                decision.body.decode_body().map_err(|error| ContractError::Internal(error.to_string()))
            }
            _ => Err(ContractError::NoDecision(sequence)),
        }
    }
}

fn random() -> Result<[u8; 16], ContractError> {
    kit::authority::random_16().map_err(|error| ContractError::Internal(error.to_string()))
}

/// A message may leave out what this service fills in: nonce, and where the request comes from.
fn fill_in(message: &mut wire::PolicyRequest, service: &str) -> Result<(), ContractError> {
    if message.nonce.is_empty() {
        message.nonce = random()?.to_vec();
    }
    let context = message.context.get_or_insert_with(wire::PolicyContext::default);
    let too_long = |text: &String| text.len() > METADATA_BYTES_MAX;
    if context.metadata.len() > METADATA_PAIRS_MAX
        || context.metadata.iter().any(|(key, value)| too_long(key) || too_long(value))
    {
        return Err(ContractError::Metadata);
    }
    // The channel says who asks, whatever the message says; a signed request keeps its bytes.
    if message.signature.is_empty() {
        service.clone_into(&mut context.service);
    }
    Ok(())
}

#[tonic::async_trait]
impl PolicyEngine for Contract {
    async fn evaluate(
        &self,
        request: Request<wire::PolicyRequest>,
    ) -> Result<Response<wire::PolicyDecision>, Status> {
        let caller = kit::requestor(&self.0.node, &request, true)?;
        let channel = Arc::clone(&kit::caller(&request)?.client);
        let mut message = request.into_inner();
        fill_in(&mut message, &channel)?;
        let asked = PolicyRequest::try_from(&message).map_err(ContractError::from)?;
        caller.permit(asked.action.kind(), &asked.resource)?;
        if asked.requestor != caller.id() && asked.signature.is_none() {
            return Err(ContractError::Requestor { caller: caller.id(), requestor: asked.requestor }.into());
        }
        let item = Item::Evaluate { request: base::cbor::encode(&asked) };
        match self.ask(item).await {
            Ok(committed) => {
                let signed: SignedDecision = base::cbor::decode(&committed.signed_decision)
                    .map_err(|error| ContractError::Internal(error.to_string()))?;
                let body =
                    signed.decode_body().map_err(|error| ContractError::Internal(error.to_string()))?;
                let at = committed.decision.as_ref().map(AxiomRef::try_from).transpose();
                let at = at.map_err(ContractError::from)?;
                Ok(Response::new(wire::PolicyDecision::of(&body, committed.signed_decision, at)))
            }
            // A denial is a decision. The caller gets its id; only the operator is told why.
            Err(ContractError::Denied(sequence)) => Ok(Response::new(wire::PolicyDecision {
                effect: wire::Effect::Deny.into(),
                axiom_ref: Some(contracts::common::v1::AxiomRef { sequence: sequence.0, hash: Vec::new() }),
                request_hash: asked.hash().0.to_vec(),
                ..wire::PolicyDecision::default()
            })),
            Err(error) => Err(error.into()),
        }
    }

    async fn get_policy_state(
        &self,
        _: Request<wire::GetPolicyStateRequest>,
    ) -> Result<Response<wire::PolicyStateSnapshot>, Status> {
        let snapshot = self.0.desk.engine().confirmed().snapshot();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Response::new(wire::PolicyStateSnapshot {
            state_hash: snapshot.state_hash.0.to_vec(),
            sequence: snapshot.sequence.map_or(0, |sequence| sequence.0),
            rules: count(snapshot.rules),
            identities: count(snapshot.identities),
        }))
    }

    async fn add_rule(
        &self,
        request: Request<wire::AddRuleRequest>,
    ) -> Result<Response<wire::AddRuleReply>, Status> {
        let caller = kit::requestor(&self.0.node, &request, true)?;
        let rule =
            request.into_inner().rule.ok_or(ContractError::Malformed(ConvertError::Missing("rule")))?;
        let rule = PolicyRule::try_from(&rule).map_err(ContractError::from)?;
        validate(&rule).map_err(|error| ContractError::Refused {
            reason: "InvalidRule".to_owned(),
            text: error.to_string(),
        })?;
        let body = PolicyRuleAdded { rule: rule.clone(), created_by: caller.id() };
        let id = rule.id.to_string();
        let committed = self.change(&caller, rule, body).await?;
        // Never success while something is still allowed that the rule forbids.
        noticed("the rule is added", &committed)?;
        Ok(Response::new(wire::AddRuleReply { id, created_at: committed.entry }))
    }

    async fn remove_rule(
        &self,
        request: Request<wire::RemoveRuleRequest>,
    ) -> Result<Response<wire::RemoveRuleReply>, Status> {
        let caller = kit::requestor(&self.0.node, &request, true)?;
        let text = request.into_inner().id;
        let missing = || ContractError::RuleNotFound(text.chars().take(80).collect());
        let id = RuleId::new(text.as_str()).map_err(|_| missing())?;
        let rule =
            self.0.desk.engine().confirmed().rules().get(&id).map(|stored| PolicyRule::clone(&stored.rule));
        let rule = rule.ok_or_else(missing)?;
        let body = PolicyRuleRemoved { rule: id, removed_by: caller.id() };
        let committed = self.change(&caller, rule, body).await?;
        // Never success before what it allowed is cut.
        noticed("the rule is removed", &committed)?;
        Ok(Response::new(wire::RemoveRuleReply { removed_at: committed.entry }))
    }

    async fn list_rules(&self, request: Request<wire::RuleFilter>) -> Result<Response<wire::Rules>, Status> {
        let filter = filter_of(request.into_inner())?;
        let engine = self.0.desk.engine();
        let wire_rule = |stored: &crate::core::StoredRule| wire::PolicyRule {
            created_at: stored.created_at.map(Into::into),
            created_by: stored.created_by.0.to_vec(),
            ..wire::PolicyRule::from(stored.rule.as_ref())
        };
        let rules = engine.confirmed().list_rules(&filter).into_iter().map(wire_rule).collect();
        Ok(Response::new(wire::Rules { rules }))
    }

    async fn archive_log(
        &self,
        request: Request<wire::ArchiveLogRequest>,
    ) -> Result<Response<wire::ArchiveLogReply>, Status> {
        let caller = kit::requestor(&self.0.node, &request, true)?;
        let body = archive_of(request.into_inner(), caller.id())?;
        let operation = ServiceOperation::Archive;
        let action = PolicyAction::ControlService { service: "axiom".to_owned(), operation };
        let committed = self.act(&caller, action, body).await?;
        Ok(Response::new(wire::ArchiveLogReply { entry: committed.entry }))
    }

    async fn explain(
        &self,
        request: Request<wire::ExplainRequest>,
    ) -> Result<Response<wire::Explanation>, Status> {
        kit::requestor(&self.0.node, &request, true)?;
        let sequence = match request.into_inner().decision {
            0 => self.0.desk.last_denial().ok_or(ContractError::NothingRefused)?,
            given => Sequence(given),
        };
        let body = self.decision(sequence).await?;
        let asked = request_of(&body);
        // What the rules of today would say is only used for the change to suggest.
        let explanation = explain(self.0.desk.engine().confirmed(), &asked, body.timestamp);
        Ok(Response::new(explained(sequence, body, explanation)))
    }
}

fn noticed(what: &str, committed: &wire::Committed) -> Result<(), Status> {
    let at = committed.entry.as_ref().map_or(0, |at| at.sequence);
    kit::authority::noticed(what, Sequence(at), &committed.laggards)
}

/// Bounded before it is recorded; axiom checks what it says.
fn archive_of(request: wire::ArchiveLogRequest, by: IdentityId) -> Result<LogArchive, ContractError> {
    let wire::ArchiveLogRequest { from, last, segments, checkpoint, witnesses, place } = request;
    let last = last.as_ref().ok_or(ConvertError::Missing("last"))?;
    let fits = checkpoint.len() <= COSIGNED_BYTES_MAX
        && (1..=EDGE_WITNESSES_MAX).contains(&witnesses.len())
        && witnesses.iter().all(|key| key.len() <= WITNESS_BYTES_MAX)
        && place.len() <= PLACE_BYTES_MAX;
    if !fits {
        return Err(ContractError::Archive);
    }
    let (from, last) = (Sequence(from), AxiomRef::try_from(last)?);
    Ok(LogArchive { from, last, segments, checkpoint, witnesses, place, by })
}

fn filter_of(filter: wire::RuleFilter) -> Result<RuleFilter, ContractError> {
    let effect = match filter.effect() {
        wire::Effect::Unspecified => None,
        effect => Some(PolicyEffect::try_from(effect)?),
    };
    let ids = filter.ids.iter().map(RuleId::new).collect::<Result<Vec<_>, _>>();
    let invalid = |error: base::IdError| ConvertError::Invalid { field: "ids", text: error.to_string() };
    Ok(RuleFilter {
        ids: ids.map_err(invalid)?,
        priority_min: filter.priority_min,
        priority_max: filter.priority_max,
        effect,
        text: filter.text,
    })
}

fn explained(sequence: Sequence, body: DecisionBody, now: Explanation) -> wire::Explanation {
    let layer = match body.deciding_rule.as_str() {
        RuleId::DEFAULT_DENY => now.layer.name(),
        rule if now.rule.as_str() == rule => now.layer.name(),
        _ => "rule",
    };
    wire::Explanation {
        decision: sequence.0,
        effect: wire::Effect::from(body.effect).into(),
        layer: layer.to_owned(),
        rule: body.deciding_rule.to_string(),
        reason: body.reason.unwrap_or_else(|| now.reason.clone()),
        request: now.request,
        smallest_change: now.smallest_change.as_ref().map(to_toml).unwrap_or_default(),
    }
}
