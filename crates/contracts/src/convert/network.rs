//! The network policy between its messages and the log.

use chain::payload::network::{CallLimits, NetworkPolicyUpdate, ProcessClass, UrlRule};

use super::ConvertError;
use crate::network::v1 as pb;

/// Before the name of the one service that a rule is for.
const NAMED: &str = "named:";

/// As rules name it.
#[must_use]
pub fn class_name(class: &ProcessClass) -> String {
    match class {
        ProcessClass::System => "system".to_owned(),
        ProcessClass::Runtime => "runtime".to_owned(),
        ProcessClass::Application => "application".to_owned(),
        ProcessClass::Named(name) => format!("{NAMED}{name}"),
    }
}

/// None if it is no class.
#[must_use]
pub fn class_of(name: &str) -> Option<ProcessClass> {
    match name {
        "system" => Some(ProcessClass::System),
        "runtime" => Some(ProcessClass::Runtime),
        "application" => Some(ProcessClass::Application),
        _ => name.strip_prefix(NAMED).map(|name| ProcessClass::Named(name.to_owned())),
    }
}

impl From<&CallLimits> for pb::CallLimits {
    fn from(limits: &CallLimits) -> Self {
        Self {
            process_requests: limits.process_requests,
            process_window_ms: limits.process_window_ms,
            host_requests: limits.host_requests,
            host_window_ms: limits.host_window_ms,
            request_bytes: limits.request_bytes,
            response_bytes: limits.response_bytes,
            header_bytes: limits.header_bytes,
            message_bytes: limits.message_bytes,
        }
    }
}

impl From<&pb::CallLimits> for CallLimits {
    fn from(limits: &pb::CallLimits) -> Self {
        Self {
            process_requests: limits.process_requests,
            process_window_ms: limits.process_window_ms,
            host_requests: limits.host_requests,
            host_window_ms: limits.host_window_ms,
            request_bytes: limits.request_bytes,
            response_bytes: limits.response_bytes,
            header_bytes: limits.header_bytes,
            message_bytes: limits.message_bytes,
        }
    }
}

impl From<&UrlRule> for pb::UrlRule {
    fn from(rule: &UrlRule) -> Self {
        Self {
            id: rule.id.clone(),
            applies_to: class_name(&rule.applies_to),
            url_pattern: rule.url_pattern.clone(),
            allow: rule.allow,
            priority: rule.priority,
        }
    }
}

impl TryFrom<pb::UrlRule> for UrlRule {
    type Error = ConvertError;

    fn try_from(rule: pb::UrlRule) -> Result<Self, ConvertError> {
        let applies_to = class_of(&rule.applies_to).ok_or_else(|| {
            let shown: String = base::visible(&rule.applies_to).chars().take(64).collect();
            let text =
                format!("{shown:?} is none of `system`, `runtime`, `application` and `{NAMED}SERVICE`");
            ConvertError::Invalid { field: "applies_to", text }
        })?;
        let pb::UrlRule { id, url_pattern, allow, priority, .. } = rule;
        Ok(Self { id, applies_to, url_pattern, allow, priority })
    }
}

impl From<&NetworkPolicyUpdate> for pb::NetworkPolicy {
    fn from(policy: &NetworkPolicyUpdate) -> Self {
        Self {
            rules: policy.rules.iter().map(Into::into).collect(),
            limits: Some((&policy.limits).into()),
            authorities: policy.authorities.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_comes_back_as_it_was() {
        let limits = CallLimits {
            process_requests: 1,
            process_window_ms: 2,
            host_requests: 3,
            host_window_ms: 4,
            request_bytes: 5,
            response_bytes: 6,
            header_bytes: 7,
            message_bytes: 8,
        };
        let rule = |applies_to: ProcessClass| UrlRule {
            id: "r".to_owned(),
            applies_to,
            url_pattern: "*.example.org".to_owned(),
            allow: true,
            priority: 9,
        };
        let named = ProcessClass::Named("editor".to_owned());
        let classes = [ProcessClass::System, ProcessClass::Runtime, ProcessClass::Application, named];
        let rules = classes.map(rule).to_vec();
        let policy = NetworkPolicyUpdate {
            rules: rules.clone(),
            limits,
            authorities: vec!["a".to_owned()],
            by: base::IdentityId([1; 32]),
        };
        let wire = pb::NetworkPolicy::from(&policy);
        assert_eq!(CallLimits::from(wire.limits.as_ref().unwrap()), limits);
        let back: Result<Vec<UrlRule>, _> = wire.rules.into_iter().map(UrlRule::try_from).collect();
        assert_eq!((back.unwrap(), wire.authorities), (rules.clone(), policy.authorities));
        let unknown = pb::UrlRule { applies_to: "root\u{7}".to_owned(), ..(&rules[0]).into() };
        let refused = UrlRule::try_from(unknown).unwrap_err().to_string();
        assert!(refused.contains("none of `system`") && !refused.contains('\u{7}'), "{refused}");
    }
}
