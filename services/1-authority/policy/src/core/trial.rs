//! What rules would do, without a log being written: single requests, recorded decisions again, who may do what.

use std::collections::{BTreeMap, BTreeSet};

use base::{
    AxiomRef, AxiomTime, CapabilityId, CredentialId, Hash, IdentityId, KeyPath, Nonce, ProcessId, RuleId,
    Sequence, cbor,
};
use chain::payload::{
    Payload, PayloadError,
    identity::{IdentityCreated, IdentityStatus},
    policy::{
        ActionKind, DecisionBody, ExecuteTarget, FileType, PolicyAction, PolicyCondition, PolicyContext,
        PolicyEffect, PolicyRequest, PolicyRule, ProcessOperation, ResourceRef, ResourceType,
        ServiceOperation,
    },
};
use thiserror::Error;

use super::{PolicyState, evaluate, unmet, verify::request_of};

/// An action kind and a resource that do not go together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{resource:?} is nothing that {kind:?} can be done to: {text}")]
pub struct NoSuchAct {
    pub kind: ActionKind,
    pub resource: String,
    pub text: String,
}

/// A request as rules see it: they look at the kind of an action and at its resource, at nothing else of it.
pub fn request_for(
    requestor: IdentityId,
    kind: ActionKind,
    resource: &str,
    metadata: BTreeMap<String, String>,
) -> Result<PolicyRequest, NoSuchAct> {
    let action =
        action_on(kind, resource).map_err(|text| NoSuchAct { kind, resource: resource.to_owned(), text })?;
    let capability = || ResourceRef { resource_type: ResourceType::Capability, id: resource.to_owned() };
    Ok(PolicyRequest {
        requestor,
        resource: action.resource().unwrap_or_else(capability),
        action,
        context: PolicyContext { metadata, ..PolicyContext::default() },
        nonce: Nonce([0; Nonce::BYTES]),
        signature: None,
    })
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn action_on(kind: ActionKind, resource: &str) -> Result<PolicyAction, String> {
    let text = || resource.to_owned();
    let key_path = || KeyPath::parse(resource).map_err(|error| error.to_string());
    let pid = || parsed::<u64>(resource).map(ProcessId);
    Ok(match kind {
        ActionKind::CreateProcess => PolicyAction::CreateProcess { image: parsed(resource)? },
        ActionKind::TerminateProcess => PolicyAction::TerminateProcess { pid: pid()? },
        ActionKind::ControlProcess => {
            PolicyAction::ControlProcess { pid: pid()?, operation: ProcessOperation::Suspend }
        }
        ActionKind::Execute => PolicyAction::Execute {
            target: pid().map_or_else(|_| ExecuteTarget::Service(text()), ExecuteTarget::Process),
        },
        ActionKind::CreateFile => PolicyAction::CreateFile { path: text(), file_type: FileType::File },
        ActionKind::ReadFile => PolicyAction::ReadFile { path: text() },
        ActionKind::WriteFile => PolicyAction::WriteFile { path: text() },
        ActionKind::DeleteFile => PolicyAction::DeleteFile { path: text() },
        ActionKind::Connect => PolicyAction::Connect { address: text() },
        ActionKind::Listen => PolicyAction::Listen { address: text() },
        ActionKind::Disconnect => PolicyAction::Disconnect { connection: parsed(resource)? },
        ActionKind::ImportImage => PolicyAction::ImportImage { name: text() },
        ActionKind::RemoveImage => PolicyAction::RemoveImage { name: text() },
        ActionKind::TakeImage => PolicyAction::TakeImage { name: text() },
        ActionKind::UseImage => {
            let (name, tree) =
                resource.rsplit_once('@').ok_or("an image is used by its name and id: NAME@sha256:...")?;
            PolicyAction::UseImage { name: name.to_owned(), tree: parsed(tree)? }
        }
        ActionKind::UseSecret => {
            let (name, place) =
                resource.split_once('@').ok_or("a secret is used by its name for a place: NAME@HOST:PORT")?;
            PolicyAction::UseSecret { name: name.to_owned(), place: place.to_owned() }
        }
        ActionKind::Sign => PolicyAction::Sign { key_path: key_path()?, message_hash: Hash::ZERO },
        ActionKind::Encrypt => PolicyAction::Encrypt { key_path: key_path()? },
        ActionKind::Decrypt => PolicyAction::Decrypt { key_path: key_path()? },
        ActionKind::RotateKey => PolicyAction::RotateKey { key_path: key_path()? },
        ActionKind::CreateIdentity => {
            PolicyAction::CreateIdentity { parent: parsed(resource)?, name: String::new() }
        }
        ActionKind::AddCredential => PolicyAction::AddCredential { identity: parsed(resource)? },
        ActionKind::RevokeCredential => PolicyAction::RevokeCredential {
            identity: parsed(resource)?,
            credential: CredentialId([0; CredentialId::BYTES]),
        },
        ActionKind::DelegateCapability => PolicyAction::DelegateCapability {
            capability: CapabilityId([0; CapabilityId::BYTES]),
            to: IdentityId([0; IdentityId::BYTES]),
        },
        ActionKind::RevokeCapability => {
            PolicyAction::RevokeCapability { capability: CapabilityId([0; CapabilityId::BYTES]) }
        }
        ActionKind::UpgradeSystem => PolicyAction::UpgradeSystem { image: parsed(resource)? },
        ActionKind::ModifyPolicy => PolicyAction::ModifyPolicy {
            rule: Box::new(PolicyRule {
                id: RuleId::new(resource).map_err(|error| error.to_string())?,
                name: text(),
                description: String::new(),
                priority: 0,
                condition: PolicyCondition::Never,
                effect: PolicyEffect::Deny,
                restrictions: Vec::new(),
            }),
        },
        ActionKind::ControlService => {
            PolicyAction::ControlService { service: text(), operation: ServiceOperation::Start }
        }
        ActionKind::ModifyIdentity => PolicyAction::ModifyIdentity { identity: parsed(resource)? },
        ActionKind::Authenticate => PolicyAction::Authenticate { identity: parsed(resource)? },
    })
}

impl PolicyState {
    /// A state that no log tells: these identities, parents before their children, and these rules.
    #[must_use]
    pub fn imagined(identities: &[IdentityCreated], rules: Vec<PolicyRule>) -> Self {
        Self::default().with(identities, rules)
    }

    /// The same with more identities and rules. What is known already stays as it is.
    #[must_use]
    pub fn with(mut self, identities: &[IdentityCreated], rules: Vec<PolicyRule>) -> Self {
        self.imagine(identities, rules);
        self
    }

    /// The decision on the last of so many equal requests in a row, each counted as if it were recorded.
    #[must_use]
    pub fn nth(&self, request: &PolicyRequest, times: u32, now: AxiomTime) -> Option<DecisionBody> {
        let mut state = self.clone();
        let mut last = None;
        for _ in 0..times {
            let body = std::sync::Arc::new(evaluate(&state, request, now).ok()?);
            state.fold_decision(None, &body);
            last = Some(body);
        }
        last.map(|body| DecisionBody::clone(&body))
    }
}

/// Somebody who would be allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowed {
    pub identity: IdentityId,
    pub name: String,
    pub rule: RuleId,
    pub conditions: Vec<PolicyCondition>,
    /// Which of the conditions does not hold now, so that an act would be refused all the same.
    pub unmet: Option<String>,
}

/// Every identity that would be allowed this now, by name.
pub fn who_can(
    state: &PolicyState,
    kind: ActionKind,
    resource: &str,
    now: AxiomTime,
) -> Result<Vec<Allowed>, NoSuchAct> {
    let mut request = request_for(IdentityId([0; IdentityId::BYTES]), kind, resource, BTreeMap::new())?;
    let mut allowed = Vec::new();
    for principal in state.identities().iter().filter(|one| one.status == IdentityStatus::Active) {
        request.requestor = principal.id;
        let Ok(body) = evaluate(state, &request, now) else { continue };
        if body.allows() {
            allowed.push(Allowed {
                identity: principal.id,
                name: principal.name.clone(),
                unmet: unmet(state, &body, now, None),
                rule: body.deciding_rule,
                conditions: body.conditions,
            });
        }
    }
    allowed.sort_by(|a, b| (&a.name, a.identity).cmp(&(&b.name, b.identity)));
    Ok(allowed)
}

/// The rules that are tried in place of those in force.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Each takes the place of the rule with its id, or is one more.
    pub rules: Vec<PolicyRule>,
    /// These are not in force.
    pub without: BTreeSet<RuleId>,
    /// No other rule is in force.
    pub only: bool,
}

/// A recorded decision that would come out otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub at: AxiomRef,
    pub recorded: DecisionBody,
    pub now: DecisionBody,
}

/// Folds a log twice: as it was, and from one entry on as it would have been under changed rules. Identities are those of
/// each decision's own place. A rate limit counts what the changed rules would have allowed from there on, and what was
/// recorded before.
pub struct WhatIf {
    change: Change,
    changed: BTreeSet<RuleId>,
    since: Sequence,
    state: PolicyState,
    tried: Option<PolicyState>,
    decisions: u64,
}

impl WhatIf {
    #[must_use]
    pub fn new(change: Change, since: Sequence) -> Self {
        let changed = change.rules.iter().map(|rule| rule.id.clone()).chain(change.without.clone()).collect();
        Self { change, changed, since, state: PolicyState::default(), tried: None, decisions: 0 }
    }

    /// Decisions that were made again.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    #[must_use]
    pub fn state(&self) -> &PolicyState {
        &self.state
    }

    /// Some for a decision that would differ in its effect, its rule or its conditions.
    pub fn step(
        &mut self,
        at: AxiomRef,
        entry_type: u32,
        bytes: &[u8],
    ) -> Result<Option<Difference>, PayloadError> {
        let payload = match Payload::decode(entry_type, bytes) {
            Ok(payload) => payload,
            Err(PayloadError::UnknownType(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        if self.tried.is_none() && at.sequence >= self.since && self.state.position().is_some() {
            self.tried = Some(self.start());
        }
        let passed_over = match &payload {
            Payload::PolicyRuleAdded(added) => self.is_changed(&added.body.rule.id),
            Payload::PolicyRuleRemoved(removed) => self.is_changed(&removed.body.rule),
            _ => false,
        };
        let difference = match (&mut self.tried, &payload) {
            (None, _) => None,
            (Some(tried), Payload::PolicyDecision(envelope)) => {
                self.decisions = self.decisions.saturating_add(1);
                let recorded = cbor::decode::<DecisionBody>(&envelope.body.body).ok();
                recorded.and_then(|recorded| decide_again(tried, at, recorded))
            }
            (Some(_), _) if passed_over => None,
            (Some(tried), payload) => {
                tried.apply_entry(at, payload, bytes);
                None
            }
        };
        self.state.apply_entry(at, &payload, bytes);
        Ok(difference)
    }

    fn is_changed(&self, rule: &RuleId) -> bool {
        self.change.only || self.changed.contains(rule)
    }

    fn start(&self) -> PolicyState {
        let mut tried = self.state.clone();
        let gone = tried.rules().in_order().into_iter().map(|stored| stored.rule.id.clone());
        let gone: Vec<_> = gone.filter(|id| self.is_changed(id)).collect();
        tried.exchange(&gone, self.change.rules.clone());
        tried
    }
}

fn decide_again(tried: &mut PolicyState, at: AxiomRef, recorded: DecisionBody) -> Option<Difference> {
    let body = evaluate(tried, &request_of(&recorded), recorded.timestamp).ok()?;
    tried.fold_decision(Some(at), &std::sync::Arc::new(body.clone()));
    let differs = (body.effect, &body.deciding_rule, &body.conditions)
        != (recorded.effect, &recorded.deciding_rule, &recorded.conditions);
    differs.then_some(Difference { at, recorded, now: body })
}
