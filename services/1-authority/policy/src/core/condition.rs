//! Whether a condition holds. A part that cannot be evaluated makes the whole unknown only where its value would matter
//! (Kleene): a rule for another action stays a rule for another action, whatever else stands in it.

use base::{AxiomTime, DurationNs, KeyPath, limits::NESTING_MAX};
use chain::payload::policy::{
    ActionKind, ActionMatcher, IdentityMatcher, PolicyCondition, PolicyRequest, PolicyRule, ResourceMatcher,
    ResourceRef, ResourceType,
};
use thiserror::Error;

use super::{
    glob::{self, GlobError},
    identities::Principal,
    limits::CONDITION_NODES_MAX,
    rates::Rates,
};

/// Why a condition could not be evaluated (POL-58).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    #[error("malformed pattern: {0}")]
    Pattern(#[from] GlobError),
    #[error("malformed path prefix")]
    PathPrefix,
    #[error("the resource is of type key, but its id is no key path")]
    KeyPath,
    #[error("a parent of the requestor is not known, so its groups are not known")]
    Lineage,
    #[error("conditions nested deeper than {NESTING_MAX}")]
    TooDeep,
    #[error("more than {CONDITION_NODES_MAX} conditions")]
    TooManyNodes,
    #[error("the memory of rate limits is full")]
    RateMemory,
}

/// All that a condition may look at.
pub(super) struct Facts<'a> {
    pub(super) request: &'a PolicyRequest,
    pub(super) kind: ActionKind,
    pub(super) requestor: &'a Principal,
    pub(super) now: AxiomTime,
    pub(super) rates: &'a Rates,
    /// When the decision was made that is judged again: it does not count against itself.
    pub(super) own: Option<AxiomTime>,
}

type Holds = Result<bool, Fault>;

/// Checked once when a rule is stored, so that evaluation can recurse.
pub(super) fn structure(rule: &PolicyRule) -> Result<(), Fault> {
    let mut nodes = 0;
    measure(&rule.condition, 1, &mut nodes)?;
    rule.restrictions.iter().try_for_each(|restriction| measure(&restriction.condition, 1, &mut nodes))
}

fn measure(condition: &PolicyCondition, depth: usize, nodes: &mut usize) -> Result<(), Fault> {
    *nodes += 1;
    if depth > NESTING_MAX {
        return Err(Fault::TooDeep);
    }
    if *nodes > CONDITION_NODES_MAX {
        return Err(Fault::TooManyNodes);
    }
    match condition {
        PolicyCondition::And(all) | PolicyCondition::Or(all) => {
            all.iter().try_for_each(|inner| measure(inner, depth + 1, nodes))
        }
        PolicyCondition::Not(inner) => measure(inner, depth + 1, nodes),
        _ => Ok(()),
    }
}

impl Facts<'_> {
    /// The caller has checked the rule's `structure`.
    pub(super) fn holds(&self, rule: &PolicyRule, condition: &PolicyCondition) -> Holds {
        match condition {
            PolicyCondition::Always => Ok(true),
            PolicyCondition::Never => Ok(false),
            PolicyCondition::Identity(matcher) => self.identity(matcher),
            PolicyCondition::Resource(matcher) => self.resource(matcher),
            PolicyCondition::Action(matcher) => Ok(action(matcher, self.kind)),
            PolicyCondition::And(all) => self.all_are(rule, all, true),
            PolicyCondition::Or(any) => self.all_are(rule, any, false).map(|none| !none),
            PolicyCondition::Not(inner) => self.holds(rule, inner).map(|held| !held),
            PolicyCondition::Before(time) => Ok(self.now < *time),
            PolicyCondition::After(time) => Ok(self.now >= *time),
            PolicyCondition::RateLimit { count, window } => self.rate(rule, *count, *window),
        }
    }

    /// False if any is certainly otherwise; else unknown if any is unknown.
    fn all_are(&self, rule: &PolicyRule, conditions: &[PolicyCondition], wanted: bool) -> Holds {
        let mut unknown = None;
        for condition in conditions {
            match self.holds(rule, condition) {
                Ok(held) if held == wanted => {}
                Ok(_) => return Ok(false),
                Err(fault) => unknown = unknown.or(Some(fault)),
            }
        }
        unknown.map_or(Ok(true), Err)
    }

    fn identity(&self, matcher: &IdentityMatcher) -> Holds {
        match matcher {
            IdentityMatcher::Exact(id) => Ok(self.requestor.id == *id),
            IdentityMatcher::Group(group) if self.requestor.lineage.contains(group) => Ok(true),
            IdentityMatcher::Group(_) if self.requestor.lineage_complete => Ok(false),
            IdentityMatcher::Group(_) => Err(Fault::Lineage),
            IdentityMatcher::Pattern(pattern) => Ok(glob::matches(pattern, &self.requestor.name, '.')?),
            IdentityMatcher::Type(wanted) => Ok(self.requestor.identity_type == *wanted),
        }
    }

    fn resource(&self, matcher: &ResourceMatcher) -> Holds {
        let resource = &self.request.resource;
        match matcher {
            ResourceMatcher::Exact(wanted) => Ok(wanted == resource),
            ResourceMatcher::PathPrefix(prefix) => match is_normal_path(prefix) {
                true => Ok(is_at_or_below(&resource.id, prefix)),
                false => Err(Fault::PathPrefix),
            },
            ResourceMatcher::Pattern(pattern) => Ok(glob::matches(pattern, &resource.id, '/')?),
            ResourceMatcher::Type(wanted) => Ok(resource.resource_type == *wanted),
            ResourceMatcher::OwnKeyPath => self.own_key_path(resource),
        }
    }

    fn own_key_path(&self, resource: &ResourceRef) -> Holds {
        if resource.resource_type != ResourceType::Key {
            return Ok(false);
        }
        let path = KeyPath::parse(&resource.id).map_err(|_| Fault::KeyPath)?;
        Ok(path == self.requestor.key_path || path.is_child_of(&self.requestor.key_path))
    }

    fn rate(&self, rule: &PolicyRule, count: u32, window: DurationNs) -> Holds {
        let used =
            self.rates.count(&rule.id, &self.requestor.id, window, self.now).ok_or(Fault::RateMemory)?;
        let own = self.own.is_some_and(|time| self.now.since(time) < window.0);
        Ok(used.saturating_sub(usize::from(own)) < count as usize)
    }
}

fn action(matcher: &ActionMatcher, kind: ActionKind) -> bool {
    match matcher {
        ActionMatcher::Kind(wanted) => *wanted == kind,
        ActionMatcher::AnyOf(any) => any.contains(&kind),
    }
}

/// Absolute, without empty, `.` or `..` components and without a slash at the end; `/` alone is the root.
#[must_use]
pub fn is_normal_path(path: &str) -> bool {
    path == "/"
        || path.strip_prefix('/').is_some_and(|rest| {
            !rest.contains('\0') && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
        })
}

/// Whole components: `/a/b` is not above `/a/bc`. `prefix` is a normal path.
#[must_use]
pub fn is_at_or_below(path: &str, prefix: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || prefix == "/",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: POL-45
    #[test]
    fn prefixes_match_whole_components() {
        for (path, prefix, expected) in [
            ("/a/b", "/a/b", true),
            ("/a/b/c", "/a/b", true),
            ("/a/bc", "/a/b", false),
            ("/a", "/a/b", false),
            ("/a", "/", true),
            ("/", "/", true),
            ("a", "/", false),
        ] {
            assert_eq!(is_at_or_below(path, prefix), expected, "{path} under {prefix}");
        }
    }

    #[test]
    fn a_normal_path_says_where_it_leads() {
        for good in ["/", "/a", "/a/b", "/...", "/a b"] {
            assert!(is_normal_path(good), "{good}");
        }
        for bad in ["", "a", "/a/", "//", "/a//b", "/a/../b", "/.", "/a\0b", "./a"] {
            assert!(!is_normal_path(bad), "{bad:?}");
        }
    }
}
