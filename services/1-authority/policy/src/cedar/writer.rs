//! A condition as a Cedar expression, and a rule as a policy.

use chain::payload::policy::{
    ActionKind, ActionMatcher, IdentityMatcher, PolicyCondition, PolicyEffect, PolicyRule, ResourceMatcher,
};
use thiserror::Error;

use super::{
    fold::{below, separators},
    quoted::{Piece, quote, quote_pattern},
    terms::Text,
    vocabulary::{
        ACTION, IDENTITY, RULE_DESCRIPTION, RULE_ID, RULE_NAME, RULE_PRIORITY, action_name, entity_type,
        identity_type_name,
    },
};

/// Why Cedar cannot say it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unmapped {
    #[error("it is not valid: {0}")]
    Invalid(String),
    #[error("it allows under restrictions, and a Cedar decision carries none")]
    Restrictions,
    #[error("Cedar counts no decisions, so it has no rate limits")]
    RateLimit,
    #[error("no policy compares a resource with whoever asks, as `own_key_path` does")]
    OwnKeyPath,
    #[error("`?` in the pattern {0:?}: Cedar's patterns have no single character")]
    SingleCharacter(String),
    #[error("`*` beside `**` in the pattern {0:?}: Cedar has one star, and it crosses separators")]
    BothStars(String),
    #[error("the time {0} is more nanoseconds than a number of Cedar holds")]
    Time(u64),
}

/// What an expression stands in: there it may need parentheses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    Or,
    And,
}

pub(super) struct Policy {
    /// Without the semicolon, so that a clause can follow.
    pub(super) text: String,
    /// All that it asks for, as one member of a disjunction.
    pub(super) condition: String,
}

/// The rule is valid, so its nesting is bounded.
pub(super) fn policy(rule: &PolicyRule) -> Result<Policy, Unmapped> {
    let effect = match rule.effect {
        PolicyEffect::Allow => "permit",
        PolicyEffect::Deny => "forbid",
        PolicyEffect::AllowWithConditions => return Err(Unmapped::Restrictions),
    };
    let members = match &rule.condition {
        PolicyCondition::And(members) => members.as_slice(),
        PolicyCondition::Always => &[],
        other => std::slice::from_ref(other),
    };
    let (scope, rest) = scope(members)?;
    let mut text = annotations(rule);
    text.push_str(&format!("{effect} ({scope})"));
    if !rest.is_empty() {
        text.push_str(&format!("\nwhen {{ {} }}", joined(rest, Inside::And, " && ")?));
    }
    Ok(Policy { text, condition: expression(&rule.condition, Inside::Or)? })
}

fn annotations(rule: &PolicyRule) -> String {
    let mut text = format!("@{RULE_ID}({})\n@{RULE_NAME}({})\n", quote(rule.id.as_str()), quote(&rule.name));
    if !rule.description.is_empty() {
        text.push_str(&format!("@{RULE_DESCRIPTION}({})\n", quote(&rule.description)));
    }
    text.push_str(&format!("@{RULE_PRIORITY}(\"{}\")\n", rule.priority));
    text
}

/// Conditions at the front that a policy's head can hold, in its order; and the others.
fn scope(members: &[PolicyCondition]) -> Result<(String, &[PolicyCondition]), Unmapped> {
    let mut rest = members;
    let mut part = |variable: &str, fits: fn(&PolicyCondition) -> bool| match rest {
        [first, behind @ ..] if fits(first) => {
            rest = behind;
            expression(first, Inside::Nothing)
        }
        _ => Ok(variable.to_owned()),
    };
    let principal = part("principal", |one| {
        matches!(one, PolicyCondition::Identity(IdentityMatcher::Exact(_) | IdentityMatcher::Group(_)))
    })?;
    let action = part("action", |one| match one {
        PolicyCondition::Action(ActionMatcher::AnyOf(kinds)) => !kinds.is_empty(),
        PolicyCondition::Action(ActionMatcher::Kind(_)) => true,
        _ => false,
    })?;
    let resource = part("resource", |one| {
        matches!(one, PolicyCondition::Resource(ResourceMatcher::Exact(_) | ResourceMatcher::Type(_)))
    })?;
    Ok((format!("{principal}, {action}, {resource}"), rest))
}

fn joined(members: &[PolicyCondition], inside: Inside, sign: &str) -> Result<String, Unmapped> {
    // A single member needs no parentheses from what is not there.
    let inside = if members.len() == 1 { Inside::Nothing } else { inside };
    let texts = members.iter().map(|member| expression(member, inside));
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join(sign))
}

fn expression(condition: &PolicyCondition, inside: Inside) -> Result<String, Unmapped> {
    let chain = |members: &[PolicyCondition], own: Inside, sign: &str, empty: &str| match members {
        [] => Ok(empty.to_owned()),
        [one] => expression(one, inside),
        _ => Ok(grouped(joined(members, own, sign)?, inside != Inside::Nothing && inside != own)),
    };
    Ok(match condition {
        PolicyCondition::Always => "true".to_owned(),
        PolicyCondition::Never => "false".to_owned(),
        PolicyCondition::Identity(matcher) => return identity(matcher, inside),
        PolicyCondition::Resource(matcher) => return resource(matcher, inside),
        PolicyCondition::Action(ActionMatcher::Kind(kind)) => format!("action == {}", action(*kind)),
        PolicyCondition::Action(ActionMatcher::AnyOf(kinds)) => match kinds.as_slice() {
            [] => "false".to_owned(),
            kinds => {
                format!("action in [{}]", kinds.iter().copied().map(action).collect::<Vec<_>>().join(", "))
            }
        },
        PolicyCondition::And(members) => chain(members, Inside::And, " && ", "true")?,
        PolicyCondition::Or(members) => chain(members, Inside::Or, " || ", "false")?,
        PolicyCondition::Not(inner) => format!("!({})", expression(inner, Inside::Nothing)?),
        PolicyCondition::Before(time) => format!("context.now < {}", nanoseconds(time.0)?),
        PolicyCondition::After(time) => format!("context.now >= {}", nanoseconds(time.0)?),
        PolicyCondition::RateLimit { .. } => return Err(Unmapped::RateLimit),
    })
}

fn grouped(text: String, needed: bool) -> String {
    if needed { format!("({text})") } else { text }
}

fn nanoseconds(time: u64) -> Result<i64, Unmapped> {
    i64::try_from(time).map_err(|_| Unmapped::Time(time))
}

fn action(kind: ActionKind) -> String {
    format!("{ACTION}::{}", quote(&action_name(kind)))
}

fn identity(matcher: &IdentityMatcher, inside: Inside) -> Result<String, Unmapped> {
    Ok(match matcher {
        IdentityMatcher::Exact(id) => format!("principal == {IDENTITY}::{}", quote(&id.to_string())),
        IdentityMatcher::Group(id) => format!("principal in {IDENTITY}::{}", quote(&id.to_string())),
        IdentityMatcher::Pattern(pattern) => {
            return glob(Text::PrincipalName, "principal.name", pattern, inside);
        }
        IdentityMatcher::Type(wanted) => format!("principal.type == {}", quote(&identity_type_name(*wanted))),
    })
}

fn resource(matcher: &ResourceMatcher, inside: Inside) -> Result<String, Unmapped> {
    Ok(match matcher {
        ResourceMatcher::Exact(wanted) => {
            format!("resource == {}::{}", entity_type(wanted.resource_type), quote(&wanted.id))
        }
        ResourceMatcher::Type(wanted) => format!("resource is {}", entity_type(*wanted)),
        ResourceMatcher::PathPrefix(prefix) => {
            let (itself, under) = (quote(prefix), quote_pattern(&below(prefix)));
            grouped(format!("resource.id == {itself} || resource.id like {under}"), inside == Inside::And)
        }
        ResourceMatcher::Pattern(pattern) => return glob(Text::ResourceId, "resource.id", pattern, inside),
        ResourceMatcher::OwnKeyPath => return Err(Unmapped::OwnKeyPath),
    })
}

/// `**` is Cedar's star. Of stars that stay inside components the same is true where there are no more separators than
/// the pattern has (`fold`).
fn glob(text: Text, attribute: &str, pattern: &str, inside: Inside) -> Result<String, Unmapped> {
    if pattern.contains('?') {
        return Err(Unmapped::SingleCharacter(pattern.to_owned()));
    }
    if !pattern.contains('*') {
        return Ok(format!("{attribute} == {}", quote(pattern)));
    }
    let crossing = pattern.contains("**");
    let singles = pattern.replace("**", "");
    if crossing && singles.contains('*') {
        return Err(Unmapped::BothStars(pattern.to_owned()));
    }
    let collapsed = pattern.replace("**", "*");
    let pieces: Vec<Piece> =
        collapsed.chars().map(|c| if c == '*' { Piece::Star } else { Piece::Char(c) }).collect();
    let like = format!("{attribute} like {}", quote_pattern(&pieces));
    if crossing {
        return Ok(like);
    }
    let own = pattern.matches(text.separator()).count();
    let bound = quote_pattern(&separators(text, own + 1));
    Ok(grouped(format!("{like} && !({attribute} like {bound})"), inside == Inside::Or))
}
