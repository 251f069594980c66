use base::{
    AxiomTime, CapabilityId, ConnectionId, CredentialId, DurationNs, Hash, IdentityId, Nonce, ProcessId,
    RuleId, Signature, TreeId, limits::NESTING_MAX,
};
use chain::payload::policy as log;

use super::{ConvertError, bytes, from_name, parse, require, to_name};
use crate::policy::v1 as pb;

impl TryFrom<&pb::Action> for log::PolicyAction {
    type Error = ConvertError;

    fn try_from(a: &pb::Action) -> Result<Self, ConvertError> {
        use log::ActionKind as Kind;
        let image = || bytes("image", &a.image).map(Hash);
        let identity = || bytes("identity", &a.identity).map(IdentityId);
        let path = || if a.path.is_empty() { Err(ConvertError::Missing("path")) } else { Ok(a.path.clone()) };
        let address = || {
            if a.address.is_empty() { Err(ConvertError::Missing("address")) } else { Ok(a.address.clone()) }
        };
        let key_path = || parse("key_path", &a.key_path);
        let capability = || bytes("capability", &a.capability).map(CapabilityId);
        let pid = ProcessId(a.pid);
        Ok(match from_name::<Kind>("kind", &a.kind)? {
            Kind::CreateProcess => Self::CreateProcess { image: image()? },
            Kind::TerminateProcess => Self::TerminateProcess { pid },
            Kind::CreateFile => {
                Self::CreateFile { path: path()?, file_type: from_name("file_type", &a.file_type)? }
            }
            Kind::ReadFile => Self::ReadFile { path: path()? },
            Kind::WriteFile => Self::WriteFile { path: path()? },
            Kind::DeleteFile => Self::DeleteFile { path: path()? },
            Kind::Connect => Self::Connect { address: address()? },
            Kind::Listen => Self::Listen { address: address()? },
            Kind::Sign => Self::Sign {
                key_path: key_path()?,
                message_hash: Hash(bytes("message_hash", &a.message_hash)?),
            },
            Kind::Encrypt => Self::Encrypt { key_path: key_path()? },
            Kind::Decrypt => Self::Decrypt { key_path: key_path()? },
            Kind::RotateKey => Self::RotateKey { key_path: key_path()? },
            Kind::Disconnect => {
                Self::Disconnect { connection: ConnectionId(bytes("connection", &a.connection)?) }
            }
            Kind::ImportImage => Self::ImportImage { name: a.name.clone() },
            Kind::RemoveImage => Self::RemoveImage { name: a.name.clone() },
            Kind::TakeImage => Self::TakeImage { name: a.name.clone() },
            Kind::UseImage => Self::UseImage { name: a.name.clone(), tree: TreeId(bytes("tree", &a.tree)?) },
            Kind::UseSecret => Self::UseSecret { name: a.name.clone(), place: address()? },
            Kind::CreateIdentity => Self::CreateIdentity { parent: identity()?, name: a.name.clone() },
            Kind::AddCredential => Self::AddCredential { identity: identity()? },
            Kind::RevokeCredential => Self::RevokeCredential {
                identity: identity()?,
                credential: CredentialId(bytes("credential", &a.credential)?),
            },
            Kind::DelegateCapability => {
                Self::DelegateCapability { capability: capability()?, to: IdentityId(bytes("to", &a.to)?) }
            }
            Kind::RevokeCapability => Self::RevokeCapability { capability: capability()? },
            Kind::UpgradeSystem => Self::UpgradeSystem { image: image()? },
            Kind::ModifyPolicy => {
                Self::ModifyPolicy { rule: Box::new(require("rule", a.rule.as_ref())?.try_into()?) }
            }
            Kind::ControlService => Self::ControlService {
                service: a.service.clone(),
                operation: from_name("operation", &a.operation)?,
            },
            Kind::ModifyIdentity => Self::ModifyIdentity { identity: identity()? },
            Kind::Authenticate => Self::Authenticate { identity: identity()? },
            Kind::ControlProcess => {
                Self::ControlProcess { pid, operation: from_name("operation", &a.operation)? }
            }
            Kind::Execute if a.service.is_empty() => {
                Self::Execute { target: log::ExecuteTarget::Process(pid) }
            }
            Kind::Execute => Self::Execute { target: log::ExecuteTarget::Service(a.service.clone()) },
        })
    }
}

impl From<&log::PolicyAction> for pb::Action {
    fn from(action: &log::PolicyAction) -> Self {
        use log::PolicyAction as A;
        let mut a = Self { kind: to_name(&action.kind()), ..Self::default() };
        match action {
            A::CreateProcess { image } | A::UpgradeSystem { image } => a.image = image.0.to_vec(),
            A::TerminateProcess { pid } => a.pid = pid.0,
            A::CreateFile { path, file_type } => {
                a.path.clone_from(path);
                a.file_type = to_name(file_type);
            }
            A::ReadFile { path } | A::WriteFile { path } | A::DeleteFile { path } => a.path.clone_from(path),
            A::Connect { address } | A::Listen { address } => a.address.clone_from(address),
            A::Disconnect { connection } => a.connection = connection.0.to_vec(),
            A::ImportImage { name } | A::RemoveImage { name } | A::TakeImage { name } => {
                a.name.clone_from(name);
            }
            A::UseImage { name, tree } => {
                a.name.clone_from(name);
                a.tree = tree.0.to_vec();
            }
            A::UseSecret { name, place } => {
                a.name.clone_from(name);
                a.address.clone_from(place);
            }
            A::Sign { key_path, message_hash } => {
                a.key_path = key_path.to_string();
                a.message_hash = message_hash.0.to_vec();
            }
            A::Encrypt { key_path } | A::Decrypt { key_path } | A::RotateKey { key_path } => {
                a.key_path = key_path.to_string()
            }
            A::CreateIdentity { parent, name } => {
                a.identity = parent.0.to_vec();
                a.name.clone_from(name);
            }
            A::AddCredential { identity } | A::ModifyIdentity { identity } | A::Authenticate { identity } => {
                a.identity = identity.0.to_vec();
            }
            A::RevokeCredential { identity, credential } => {
                a.identity = identity.0.to_vec();
                a.credential = credential.0.to_vec();
            }
            A::DelegateCapability { capability, to } => {
                a.capability = capability.0.to_vec();
                a.to = to.0.to_vec();
            }
            A::RevokeCapability { capability } => a.capability = capability.0.to_vec(),
            A::ModifyPolicy { rule } => a.rule = Some(rule.as_ref().into()),
            A::ControlService { service, operation } => {
                a.service.clone_from(service);
                a.operation = to_name(operation);
            }
            A::ControlProcess { pid, operation } => {
                a.pid = pid.0;
                a.operation = to_name(operation);
            }
            A::Execute { target: log::ExecuteTarget::Process(pid) } => a.pid = pid.0,
            A::Execute { target: log::ExecuteTarget::Service(name) } => a.service.clone_from(name),
        }
        a
    }
}

impl TryFrom<&pb::ResourceRef> for log::ResourceRef {
    type Error = ConvertError;

    fn try_from(r: &pb::ResourceRef) -> Result<Self, ConvertError> {
        Ok(Self { resource_type: from_name("resource.type", &r.r#type)?, id: r.id.clone() })
    }
}

impl From<&log::ResourceRef> for pb::ResourceRef {
    fn from(r: &log::ResourceRef) -> Self {
        Self { r#type: to_name(&r.resource_type), id: r.id.clone() }
    }
}

impl From<&pb::PolicyContext> for log::PolicyContext {
    fn from(c: &pb::PolicyContext) -> Self {
        Self {
            axiom_sequence: c.axiom_sequence,
            service: c.service.clone(),
            process: ProcessId(c.process),
            metadata: c.metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }
}

impl TryFrom<&pb::PolicyRequest> for log::PolicyRequest {
    type Error = ConvertError;

    /// The nonce must be there: who receives a request without one makes it first.
    fn try_from(r: &pb::PolicyRequest) -> Result<Self, ConvertError> {
        let signature = match r.signature.as_slice() {
            [] => None,
            given => Some(Signature(bytes("signature", given)?)),
        };
        Ok(Self {
            requestor: IdentityId(bytes("requestor", &r.requestor)?),
            action: require("action", r.action.as_ref())?.try_into()?,
            resource: require("resource", r.resource.as_ref())?.try_into()?,
            context: r.context.as_ref().map(Into::into).unwrap_or_default(),
            nonce: Nonce(bytes("nonce", &r.nonce)?),
            signature,
        })
    }
}

impl TryFrom<pb::Effect> for log::PolicyEffect {
    type Error = ConvertError;

    fn try_from(e: pb::Effect) -> Result<Self, ConvertError> {
        match e {
            pb::Effect::Allow => Ok(Self::Allow),
            pb::Effect::Deny => Ok(Self::Deny),
            pb::Effect::AllowWithConditions => Ok(Self::AllowWithConditions),
            pb::Effect::Unspecified => Err(ConvertError::Missing("effect")),
        }
    }
}

impl From<log::PolicyEffect> for pb::Effect {
    fn from(e: log::PolicyEffect) -> Self {
        match e {
            log::PolicyEffect::Allow => Self::Allow,
            log::PolicyEffect::Deny => Self::Deny,
            log::PolicyEffect::AllowWithConditions => Self::AllowWithConditions,
        }
    }
}

fn condition(c: &pb::Condition, depth: usize) -> Result<log::PolicyCondition, ConvertError> {
    use log::PolicyCondition as L;
    use pb::condition::Condition as P;
    if depth > NESTING_MAX {
        return Err(ConvertError::TooDeep);
    }
    let list = |cs: &pb::Conditions| {
        cs.conditions.iter().map(|c| condition(c, depth + 1)).collect::<Result<Vec<_>, _>>()
    };
    Ok(match require("condition", c.condition.as_ref())? {
        P::Always(true) => L::Always,
        P::Never(true) => L::Never,
        P::Always(false) | P::Never(false) => {
            return Err(ConvertError::Unknown { field: "condition", value: "false".to_owned() });
        }
        P::Identity(m) => L::Identity(m.try_into()?),
        P::Resource(m) => L::Resource(m.try_into()?),
        P::Action(m) => {
            let kinds = m.kinds.iter().map(|kind| from_name("kinds", kind)).collect::<Result<Vec<_>, _>>()?;
            match kinds.as_slice() {
                [] => return Err(ConvertError::Missing("kinds")),
                [kind] => L::Action(log::ActionMatcher::Kind(*kind)),
                _ => L::Action(log::ActionMatcher::AnyOf(kinds)),
            }
        }
        P::And(cs) => L::And(list(cs)?),
        P::Or(cs) => L::Or(list(cs)?),
        P::Not(c) => L::Not(Box::new(condition(c, depth + 1)?)),
        P::BeforeNs(ns) => L::Before(AxiomTime(*ns)),
        P::AfterNs(ns) => L::After(AxiomTime(*ns)),
        P::RateLimit(r) => L::RateLimit { count: r.count, window: DurationNs(r.window_ns) },
    })
}

impl TryFrom<&pb::Condition> for log::PolicyCondition {
    type Error = ConvertError;

    fn try_from(c: &pb::Condition) -> Result<Self, ConvertError> {
        condition(c, 1)
    }
}

impl From<&log::PolicyCondition> for pb::Condition {
    fn from(c: &log::PolicyCondition) -> Self {
        use log::PolicyCondition as L;
        use pb::condition::Condition as P;
        let list = |cs: &[L]| pb::Conditions { conditions: cs.iter().map(Into::into).collect() };
        let condition = match c {
            L::Always => P::Always(true),
            L::Never => P::Never(true),
            L::Identity(m) => P::Identity(m.into()),
            L::Resource(m) => P::Resource(m.into()),
            L::Action(log::ActionMatcher::Kind(kind)) => {
                P::Action(pb::ActionMatcher { kinds: vec![to_name(kind)] })
            }
            L::Action(log::ActionMatcher::AnyOf(kinds)) => {
                P::Action(pb::ActionMatcher { kinds: kinds.iter().map(to_name).collect() })
            }
            L::And(cs) => P::And(list(cs)),
            L::Or(cs) => P::Or(list(cs)),
            L::Not(c) => P::Not(Box::new(c.as_ref().into())),
            L::Before(t) => P::BeforeNs(t.0),
            L::After(t) => P::AfterNs(t.0),
            L::RateLimit { count, window } => {
                P::RateLimit(pb::RateLimit { count: *count, window_ns: window.0 })
            }
        };
        Self { condition: Some(condition) }
    }
}

impl TryFrom<&pb::IdentityMatcher> for log::IdentityMatcher {
    type Error = ConvertError;

    fn try_from(m: &pb::IdentityMatcher) -> Result<Self, ConvertError> {
        use pb::identity_matcher::Matcher;
        Ok(match require("identity matcher", m.matcher.as_ref())? {
            Matcher::Exact(id) => Self::Exact(IdentityId(bytes("exact", id)?)),
            Matcher::Group(id) => Self::Group(IdentityId(bytes("group", id)?)),
            Matcher::Pattern(text) => Self::Pattern(text.clone()),
            Matcher::Type(name) => Self::Type(from_name("type", name)?),
        })
    }
}

impl From<&log::IdentityMatcher> for pb::IdentityMatcher {
    fn from(m: &log::IdentityMatcher) -> Self {
        use pb::identity_matcher::Matcher;
        let matcher = match m {
            log::IdentityMatcher::Exact(id) => Matcher::Exact(id.0.to_vec()),
            log::IdentityMatcher::Group(id) => Matcher::Group(id.0.to_vec()),
            log::IdentityMatcher::Pattern(text) => Matcher::Pattern(text.clone()),
            log::IdentityMatcher::Type(t) => Matcher::Type(to_name(t)),
        };
        Self { matcher: Some(matcher) }
    }
}

impl TryFrom<&pb::ResourceMatcher> for log::ResourceMatcher {
    type Error = ConvertError;

    fn try_from(m: &pb::ResourceMatcher) -> Result<Self, ConvertError> {
        use pb::resource_matcher::Matcher;
        Ok(match require("resource matcher", m.matcher.as_ref())? {
            Matcher::Exact(r) => Self::Exact(r.try_into()?),
            Matcher::PathPrefix(text) => Self::PathPrefix(text.clone()),
            Matcher::Pattern(text) => Self::Pattern(text.clone()),
            Matcher::Type(name) => Self::Type(from_name("type", name)?),
            Matcher::OwnKeyPath(true) => Self::OwnKeyPath,
            Matcher::OwnKeyPath(false) => {
                return Err(ConvertError::Unknown { field: "own_key_path", value: "false".to_owned() });
            }
        })
    }
}

impl From<&log::ResourceMatcher> for pb::ResourceMatcher {
    fn from(m: &log::ResourceMatcher) -> Self {
        use pb::resource_matcher::Matcher;
        let matcher = match m {
            log::ResourceMatcher::Exact(r) => Matcher::Exact(r.into()),
            log::ResourceMatcher::PathPrefix(text) => Matcher::PathPrefix(text.clone()),
            log::ResourceMatcher::Pattern(text) => Matcher::Pattern(text.clone()),
            log::ResourceMatcher::Type(t) => Matcher::Type(to_name(t)),
            log::ResourceMatcher::OwnKeyPath => Matcher::OwnKeyPath(true),
        };
        Self { matcher: Some(matcher) }
    }
}

impl TryFrom<&pb::PolicyRule> for log::PolicyRule {
    type Error = ConvertError;

    fn try_from(r: &pb::PolicyRule) -> Result<Self, ConvertError> {
        let restriction = |r: &pb::Restriction| {
            Ok(log::Restriction {
                name: r.name.clone(),
                condition: require("restriction.condition", r.condition.as_ref())?.try_into()?,
                limits: r.limits.iter().map(|(k, v)| (k.clone(), *v)).collect(),
            })
        };
        Ok(Self {
            id: parse::<RuleId>("id", &r.id)?,
            name: r.name.clone(),
            description: r.description.clone(),
            priority: r.priority,
            condition: require("condition", r.condition.as_ref())?.try_into()?,
            effect: effect_of(r.effect)?,
            restrictions: r.restrictions.iter().map(restriction).collect::<Result<_, ConvertError>>()?,
        })
    }
}

fn effect_of(number: i32) -> Result<log::PolicyEffect, ConvertError> {
    pb::Effect::try_from(number)
        .map_err(|_| ConvertError::Unknown { field: "effect", value: number.to_string() })?
        .try_into()
}

impl From<&log::PolicyRule> for pb::PolicyRule {
    fn from(r: &log::PolicyRule) -> Self {
        let restriction = |r: &log::Restriction| pb::Restriction {
            name: r.name.clone(),
            condition: Some((&r.condition).into()),
            limits: r.limits.iter().map(|(k, v)| (k.clone(), *v)).collect(),
        };
        Self {
            id: r.id.to_string(),
            name: r.name.clone(),
            description: r.description.clone(),
            priority: r.priority,
            condition: Some((&r.condition).into()),
            effect: pb::Effect::from(r.effect).into(),
            restrictions: r.restrictions.iter().map(restriction).collect(),
            created_at: None,
            created_by: Vec::new(),
        }
    }
}

impl pb::PolicyDecision {
    /// The readable form of a recorded decision; `signed` carries the CBOR that services verify.
    #[must_use]
    pub fn of(body: &log::DecisionBody, signed: Vec<u8>, axiom_ref: Option<base::AxiomRef>) -> Self {
        Self {
            effect: pb::Effect::from(body.effect).into(),
            matched_rules: body.matched_rules.iter().map(ToString::to_string).collect(),
            deciding_rule: body.deciding_rule.to_string(),
            conditions: body.conditions.iter().map(Into::into).collect(),
            timestamp_ns: body.timestamp.0,
            signed,
            axiom_ref: axiom_ref.map(Into::into),
            request_hash: body.request_hash.0.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::{ActionMatcher, IdentityMatcher, PolicyCondition as C, ResourceMatcher};

    fn every_condition() -> C {
        C::And(vec![
            C::Always,
            C::Not(Box::new(C::Never)),
            C::Identity(IdentityMatcher::Exact(IdentityId([1; 32]))),
            C::Identity(IdentityMatcher::Group(IdentityId([2; 32]))),
            C::Or(vec![
                C::Identity(IdentityMatcher::Pattern("a*".to_owned())),
                C::Identity(IdentityMatcher::Type(chain::payload::identity::IdentityType::User)),
            ]),
            C::Resource(ResourceMatcher::PathPrefix("/a".to_owned())),
            C::Resource(ResourceMatcher::Pattern("/a/**".to_owned())),
            C::Resource(ResourceMatcher::Type(log::ResourceType::Key)),
            C::Resource(ResourceMatcher::OwnKeyPath),
            C::Resource(ResourceMatcher::Exact(log::ResourceRef {
                resource_type: log::ResourceType::File,
                id: "/x".to_owned(),
            })),
            C::Action(ActionMatcher::Kind(log::ActionKind::Sign)),
            C::Action(ActionMatcher::AnyOf(vec![log::ActionKind::Sign, log::ActionKind::Encrypt])),
            C::Before(AxiomTime(5)),
            C::After(AxiomTime(6)),
            C::RateLimit { count: 3, window: DurationNs(9) },
        ])
    }

    fn rule() -> log::PolicyRule {
        log::PolicyRule {
            id: RuleId::new("r1").unwrap(),
            name: "one".to_owned(),
            description: "d".to_owned(),
            priority: 7,
            condition: every_condition(),
            effect: log::PolicyEffect::AllowWithConditions,
            restrictions: vec![log::Restriction {
                name: "slow".to_owned(),
                condition: C::Before(AxiomTime(9)),
                limits: [("bytes".to_owned(), 4)].into(),
            }],
        }
    }

    /// covers: SUP-77, POL-26
    #[test]
    fn a_rule_with_every_condition_survives() {
        let message = pb::PolicyRule::from(&rule());
        assert_eq!(log::PolicyRule::try_from(&message), Ok(rule()));
    }

    /// covers: POL-11, POL-12, POL-13, POL-14, POL-15
    #[test]
    fn every_action_survives() {
        for action in actions() {
            let message = pb::Action::from(&action);
            assert_eq!(log::PolicyAction::try_from(&message), Ok(action));
        }
    }

    fn actions() -> Vec<log::PolicyAction> {
        use log::PolicyAction as A;
        let (hash, id) = (Hash([3; 32]), IdentityId([4; 32]));
        let path = || "/p".to_owned();
        let key = || "/orbital/users/a".parse().unwrap();
        vec![
            A::CreateProcess { image: hash },
            A::TerminateProcess { pid: ProcessId(3) },
            A::CreateFile { path: path(), file_type: log::FileType::Directory },
            A::ReadFile { path: path() },
            A::WriteFile { path: path() },
            A::DeleteFile { path: path() },
            A::Connect { address: "1.2.3.4:5".to_owned() },
            A::Listen { address: "[::1]:5".to_owned() },
            A::Sign { key_path: key(), message_hash: hash },
            A::Encrypt { key_path: key() },
            A::Decrypt { key_path: key() },
            A::RotateKey { key_path: key() },
            A::Disconnect { connection: ConnectionId([7; 16]) },
            A::ImportImage { name: "web".to_owned() },
            A::RemoveImage { name: "web".to_owned() },
            A::TakeImage { name: "web".to_owned() },
            A::UseImage { name: "web".to_owned(), tree: TreeId([8; 32]) },
            A::UseSecret { name: "key".to_owned(), place: "api.test:443".to_owned() },
            A::CreateIdentity { parent: id, name: "n".to_owned() },
            A::AddCredential { identity: id },
            A::RevokeCredential { identity: id, credential: CredentialId([5; 16]) },
            A::DelegateCapability { capability: CapabilityId([6; 16]), to: id },
            A::RevokeCapability { capability: CapabilityId([6; 16]) },
            A::UpgradeSystem { image: hash },
            A::ModifyPolicy { rule: Box::new(rule()) },
            A::ControlService { service: "x".to_owned(), operation: log::ServiceOperation::Stop },
            A::ModifyIdentity { identity: id },
            A::Authenticate { identity: id },
            A::ControlProcess { pid: ProcessId(3), operation: log::ProcessOperation::Resume },
            A::Execute { target: log::ExecuteTarget::Process(ProcessId(3)) },
            A::Execute { target: log::ExecuteTarget::Service("x".to_owned()) },
        ]
    }

    /// covers: SUP-77
    #[test]
    fn an_unknown_or_missing_member_is_an_error_that_names_the_field() {
        let unknown = pb::Action { kind: "fly".to_owned(), ..Default::default() };
        assert_eq!(
            log::PolicyAction::try_from(&unknown),
            Err(ConvertError::Unknown { field: "kind", value: "fly".to_owned() })
        );
        let short =
            pb::Action { kind: "create_process".to_owned(), image: vec![1; 31], ..Default::default() };
        assert_eq!(
            log::PolicyAction::try_from(&short),
            Err(ConvertError::Length { field: "image", expected: 32, found: 31 })
        );
        assert_eq!(
            log::PolicyRule::try_from(&pb::PolicyRule { id: "r".to_owned(), ..Default::default() }),
            Err(ConvertError::Missing("condition"))
        );
    }

    #[test]
    fn nesting_is_bounded_at_the_limit() {
        let nested = |levels: usize| {
            (1..levels).fold(pb::Condition::from(&C::Always), |inner, _| pb::Condition {
                condition: Some(pb::condition::Condition::Not(Box::new(inner))),
            })
        };
        assert!(C::try_from(&nested(NESTING_MAX)).is_ok());
        assert_eq!(C::try_from(&nested(NESTING_MAX + 1)), Err(ConvertError::TooDeep));
    }
}
