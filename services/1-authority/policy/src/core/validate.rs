//! Whether a rule may be stored. What slipped in all the same denies when it is met (POL-58).

use base::{AxiomTime, cbor, limits::NAME_BYTES_MAX};
use chain::payload::{
    network::NetworkGrant,
    policy::{
        ActionKind, ActionMatcher, DecisionBody, IdentityMatcher, PolicyAction, PolicyCondition,
        PolicyEffect, PolicyRule, ResourceMatcher, Restriction,
    },
};

use super::{
    PolicyError,
    condition::{is_normal_path, structure},
    glob,
    limits::{
        DESCRIPTION_BYTES_MAX, RATE_COUNT_MAX, RATE_WINDOW_NS_MAX, RESOURCE_BYTES_MAX, RESTRICTIONS_MAX,
        RULE_BYTES_MAX, RULE_TIME_NS_MIN,
    },
};

/// Names the first thing that is wrong, and where.
pub fn validate(rule: &PolicyRule) -> Result<(), PolicyError> {
    check(rule).map_err(|(place, text)| PolicyError::InvalidRule { rule: rule.id.to_string(), place, text })
}

type Fault = (String, String);

fn check(rule: &PolicyRule) -> Result<(), Fault> {
    let at = |place: &str, text: String| Err((place.to_owned(), text));
    if rule.id.as_str() == base::RuleId::DEFAULT_DENY {
        return at("id", "this id is reserved for the decision without a rule".to_owned());
    }
    if rule.name.is_empty() || rule.name.len() > NAME_BYTES_MAX {
        return at("name", format!("a name has 1 to {NAME_BYTES_MAX} bytes, not {}", rule.name.len()));
    }
    if rule.description.len() > DESCRIPTION_BYTES_MAX {
        return at(
            "description",
            format!("at most {DESCRIPTION_BYTES_MAX} bytes, not {}", rule.description.len()),
        );
    }
    check_restrictions(rule)?;
    structure(rule).map_err(|fault| ("condition".to_owned(), fault.to_string()))?;
    check_limits(rule)?;
    check_condition(&rule.condition, "condition")?;
    for (n, restriction) in rule.restrictions.iter().enumerate() {
        check_condition(&restriction.condition, &format!("restrictions[{n}].condition"))?;
    }
    check_size(rule)
}

fn check_restrictions(rule: &PolicyRule) -> Result<(), Fault> {
    let count = rule.restrictions.len();
    let text = match rule.effect {
        PolicyEffect::AllowWithConditions if count == 0 => {
            "AllowWithConditions needs at least one; an allowance without conditions is Allow".to_owned()
        }
        PolicyEffect::Allow | PolicyEffect::Deny if count > 0 => {
            "only AllowWithConditions has restrictions".to_owned()
        }
        _ if count > RESTRICTIONS_MAX => format!("at most {RESTRICTIONS_MAX}, not {count}"),
        _ => return Ok(()),
    };
    Err(("restrictions".to_owned(), text))
}

/// Of connections alone there is somebody who holds limits by name. The structure was checked.
fn check_limits(rule: &PolicyRule) -> Result<(), Fault> {
    let of = |restriction: &Restriction| {
        let mut names = restriction.limits.keys();
        let unknown = names.find(|name| !NetworkGrant::LIMITS.contains(&name.as_str()))?;
        Some((restriction.name.clone(), unknown.clone()))
    };
    let fault = |text: String| Err(("restrictions.limits".to_owned(), text));
    if let Some((restriction, name)) = rule.restrictions.iter().find_map(of) {
        let known = NetworkGrant::LIMITS.join(", ");
        return fault(format!(
            "nothing enforces {name:?} of {restriction:?}, so nothing would be allowed; there are {known}, or use a \
             rate_limit condition"
        ));
    }
    let limits_something = rule.restrictions.iter().any(|restriction| !restriction.limits.is_empty());
    match limits_something && !is_about_connections(&rule.condition) {
        true => fault(
            "limits by name are held for connections alone, so the rule's condition must be about the actions connect \
             and listen and no others"
                .to_owned(),
        ),
        false => Ok(()),
    }
}

/// Whether it can hold for no other action.
fn is_about_connections(condition: &PolicyCondition) -> bool {
    let is_one = |kind: &ActionKind| matches!(kind, ActionKind::Connect | ActionKind::Listen);
    match condition {
        PolicyCondition::Never => true,
        PolicyCondition::Action(ActionMatcher::Kind(kind)) => is_one(kind),
        PolicyCondition::Action(ActionMatcher::AnyOf(kinds)) => kinds.iter().all(is_one),
        PolicyCondition::And(all) => all.iter().any(is_about_connections),
        PolicyCondition::Or(any) => any.iter().all(is_about_connections),
        _ => false,
    }
}

/// A rule must fit a decision that carries it, and be readable there again.
fn check_size(rule: &PolicyRule) -> Result<(), Fault> {
    let fault = |text: String| Err(("rule".to_owned(), text));
    let bytes = cbor::encode(rule).len();
    if bytes > RULE_BYTES_MAX {
        return fault(format!("a rule has at most {RULE_BYTES_MAX} bytes, not {bytes}"));
    }
    match cbor::decode::<DecisionBody>(&cbor::encode(&decision_about(rule))) {
        Ok(_) => Ok(()),
        Err(error) => fault(format!("a decision about it cannot be recorded: {error}")),
    }
}

fn decision_about(rule: &PolicyRule) -> DecisionBody {
    use base::{Hash, IdentityId, Nonce, RuleId};
    use chain::payload::policy::{PolicyContext, ResourceRef, ResourceType};
    DecisionBody {
        request_hash: Hash::ZERO,
        requestor: IdentityId([0; 32]),
        action: PolicyAction::ModifyPolicy { rule: Box::new(rule.clone()) },
        resource: ResourceRef { resource_type: ResourceType::Policy, id: rule.id.to_string() },
        context: PolicyContext::default(),
        nonce: Nonce([0; 16]),
        policy_state_hash: Hash::ZERO,
        matched_rules: Vec::new(),
        effect: PolicyEffect::Deny,
        deciding_rule: RuleId::default_deny(),
        conditions: rule.restrictions.iter().map(|r| r.condition.clone()).collect(),
        timestamp: AxiomTime::ZERO,
        reason: None,
    }
}

/// Its depth was checked.
fn check_condition(condition: &PolicyCondition, place: &str) -> Result<(), Fault> {
    let at = |member: &str| format!("{place}.{member}");
    match condition {
        PolicyCondition::And(all) | PolicyCondition::Or(all) => {
            let member = if matches!(condition, PolicyCondition::And(_)) { "and" } else { "or" };
            let mut numbered = all.iter().enumerate();
            numbered.try_for_each(|(n, inner)| check_condition(inner, &at(&format!("{member}[{n}]"))))
        }
        PolicyCondition::Not(inner) => check_condition(inner, &at("not")),
        PolicyCondition::Identity(IdentityMatcher::Pattern(pattern)) => {
            check_pattern(pattern, at("identity.pattern"))
        }
        PolicyCondition::Resource(matcher) => check_resource(matcher, &at("resource")),
        PolicyCondition::Before(time) => check_time(*time, at("before")),
        PolicyCondition::After(time) => check_time(*time, at("after")),
        PolicyCondition::RateLimit { count, window } => {
            if *count > RATE_COUNT_MAX {
                return Err((at("rate_limit.count"), format!("at most {RATE_COUNT_MAX}, not {count}")));
            }
            match window.0 {
                1..=RATE_WINDOW_NS_MAX => Ok(()),
                ns => Err((at("rate_limit.window_ns"), format!("1 to {RATE_WINDOW_NS_MAX} ns, not {ns}"))),
            }
        }
        _ => Ok(()),
    }
}

fn check_pattern(pattern: &str, place: String) -> Result<(), Fault> {
    glob::check(pattern).map_err(|error| (place, error.to_string()))
}

fn check_resource(matcher: &ResourceMatcher, place: &str) -> Result<(), Fault> {
    match matcher {
        ResourceMatcher::Pattern(pattern) => check_pattern(pattern, format!("{place}.pattern")),
        ResourceMatcher::PathPrefix(prefix)
            if !is_normal_path(prefix) || prefix.len() > RESOURCE_BYTES_MAX =>
        {
            let text =
                "an absolute path without empty, `.` and `..` components and without a slash at the end";
            Err((format!("{place}.path_prefix"), format!("{text} is needed")))
        }
        ResourceMatcher::Exact(resource)
            if resource.id.is_empty() || resource.id.len() > RESOURCE_BYTES_MAX =>
        {
            Err((format!("{place}.exact.id"), format!("1 to {RESOURCE_BYTES_MAX} bytes are needed")))
        }
        _ => Ok(()),
    }
}

fn check_time(time: AxiomTime, place: String) -> Result<(), Fault> {
    match time.0 >= RULE_TIME_NS_MIN {
        true => Ok(()),
        false => Err((place, format!("{} is before 2020: times are nanoseconds since 1970", time.0))),
    }
}
