//! What a token permits at most.

use std::collections::BTreeSet;

use chain::payload::{
    identity::Permission,
    policy::{ActionKind, ResourceRef},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Actions of one scope; there are some two dozen kinds.
pub const SCOPE_ACTIONS_MAX: usize = 32;
/// Resource patterns of one scope.
pub const SCOPE_RESOURCES_MAX: usize = 16;
/// Bytes of one pattern; the work of a match is the product of its length and the resource's.
pub const SCOPE_PATTERN_BYTES_MAX: usize = 256;
/// Longest `type:id` that a pattern is held against; a longer one is outside every scope but `**`.
const RESOURCE_BYTES_MAX: usize = 4352;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScopeError {
    #[error("a scope has 1 to {SCOPE_ACTIONS_MAX} actions, not {0}")]
    Actions(usize),
    #[error("a scope has 1 to {SCOPE_RESOURCES_MAX} resource patterns, not {0}")]
    Resources(usize),
    #[error("a resource pattern has 1 to {SCOPE_PATTERN_BYTES_MAX} bytes, not {0}")]
    Pattern(usize),
}

/// One kind of action, or `*` for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScopeAction {
    Any,
    Kind(ActionKind),
}

impl Serialize for ScopeAction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("*"),
            Self::Kind(kind) => kind.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ScopeAction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Kind(ActionKind),
            Any(Star),
        }
        #[derive(Deserialize)]
        enum Star {
            #[serde(rename = "*")]
            Star,
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Kind(kind) => Self::Kind(kind),
            Form::Any(Star::Star) => Self::Any,
        })
    }
}

/// Actions and patterns over `type:id`, for example `key:/orbital/users/alice/**`; `*` stays inside a component between
/// slashes, `**` crosses them, `?` is one character. The default permits everything that policy does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenScope {
    pub actions: Vec<ScopeAction>,
    pub resources: Vec<String>,
}

impl Default for TokenScope {
    fn default() -> Self {
        Self { actions: vec![ScopeAction::Any], resources: vec!["**".to_owned()] }
    }
}

impl TokenScope {
    pub fn check(&self) -> Result<(), ScopeError> {
        if self.actions.is_empty() || self.actions.len() > SCOPE_ACTIONS_MAX {
            return Err(ScopeError::Actions(self.actions.len()));
        }
        if self.resources.is_empty() || self.resources.len() > SCOPE_RESOURCES_MAX {
            return Err(ScopeError::Resources(self.resources.len()));
        }
        match self.resources.iter().map(String::len).find(|n| *n == 0 || *n > SCOPE_PATTERN_BYTES_MAX) {
            Some(bytes) => Err(ScopeError::Pattern(bytes)),
            None => Ok(()),
        }
    }

    /// True if both the action and the resource are covered.
    #[must_use]
    pub fn permits(&self, action: ActionKind, resource: &ResourceRef) -> bool {
        let covers = |allowed: &ScopeAction| match allowed {
            ScopeAction::Any => true,
            ScopeAction::Kind(kind) => *kind == action,
        };
        self.actions.iter().any(covers) && self.permits_resource(resource)
    }

    /// Whether everything that this scope permits is permitted by one of these.
    #[must_use]
    pub fn within(&self, permissions: &[Permission]) -> bool {
        self.actions.iter().all(|action| {
            let action = match action {
                ScopeAction::Any => None,
                ScopeAction::Kind(kind) => Some(*kind),
            };
            self.resources.iter().all(|resource| covered(action, resource, permissions))
        })
    }

    /// Whether this scope permits at least what the permission does: with a token nobody makes a credential that is worth
    /// more than the token.
    #[must_use]
    pub fn covers(&self, permission: &Permission) -> bool {
        let own: Vec<Permission> = self.as_permissions().collect();
        covered(permission.action, &permission.resource, &own)
    }

    /// True for a scope that bounds nothing.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        self.actions.contains(&ScopeAction::Any) && self.resources.iter().any(|pattern| pattern == "**")
    }

    /// All actions on all resources that these permissions name, if that is no more than they permit together.
    #[must_use]
    pub fn of_permissions(permissions: &[Permission]) -> Option<Self> {
        let actions = permissions.iter().map(|all| all.action.map_or(ScopeAction::Any, ScopeAction::Kind));
        let actions: BTreeSet<ScopeAction> = actions.collect();
        let resources: BTreeSet<&String> = permissions.iter().map(|all| &all.resource).collect();
        let scope = Self {
            actions: actions.into_iter().collect(),
            resources: resources.into_iter().cloned().collect(),
        };
        (scope.check().is_ok() && scope.within(permissions)).then_some(scope)
    }

    fn as_permissions(&self) -> impl Iterator<Item = Permission> {
        self.actions.iter().flat_map(|action| {
            let action = match action {
                ScopeAction::Any => None,
                ScopeAction::Kind(kind) => Some(*kind),
            };
            self.resources.iter().map(move |resource| Permission { action, resource: resource.clone() })
        })
    }

    fn permits_resource(&self, resource: &ResourceRef) -> bool {
        if self.resources.iter().any(|pattern| pattern == "**") {
            return true;
        }
        // A `..` could lead out of what a pattern names, so no pattern covers it.
        if resource.id.len() > RESOURCE_BYTES_MAX || resource.id.split('/').any(|part| part == "..") {
            return false;
        }
        let kind = serde_json::to_value(resource.resource_type).ok();
        let Some(kind) = kind.as_ref().and_then(|kind| kind.as_str()) else { return false };
        let text = format!("{kind}:{}", resource.id);
        self.resources.iter().any(|pattern| matches(pattern, &text))
    }
}

/// Whether one permission covers this action (none: every one) on whatever this pattern matches. A pattern lies inside
/// another only if they are equal, the other is `**`, or the one names a single resource that the other matches: less than
/// could be proved, never more.
fn covered(action: Option<ActionKind>, resource: &str, permissions: &[Permission]) -> bool {
    let single = !resource.contains(['*', '?']) && resource.len() <= SCOPE_PATTERN_BYTES_MAX;
    permissions.iter().any(|permission| {
        (permission.action.is_none() || permission.action == action)
            && (permission.resource == "**"
                || permission.resource == resource
                || single && matches(&permission.resource, resource))
    })
}

/// Glob in time `pattern × text`, whatever either holds: `row[i]` tells whether the pattern so far matches the first
/// `i` characters.
fn matches(pattern: &str, text: &str) -> bool {
    let mut row: Vec<bool> = std::iter::once(true).chain(text.chars().map(|_| false)).collect();
    let mut tokens = pattern.chars().peekable();
    while let Some(token) = tokens.next() {
        let crosses = token == '*' && tokens.next_if_eq(&'*').is_some();
        // Of the cells one character shorter: `above` before this token, `left` after it.
        let (mut above, mut left) = (false, false);
        for (cell, taken) in row.iter_mut().zip(std::iter::once(None).chain(text.chars().map(Some))) {
            let matched = match (token, taken) {
                ('*', None) => *cell,
                ('*', Some(taken)) => *cell || left && (crosses || taken != '/'),
                ('?', Some(taken)) => above && taken != '/',
                (literal, Some(taken)) => above && literal == taken,
                (_, None) => false,
            };
            (above, left) = (*cell, matched);
            *cell = matched;
        }
    }
    row.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chain::payload::policy::ResourceType;

    #[test]
    fn patterns_match_like_paths() {
        for (pattern, text, expected) in [
            ("key:/a", "key:/a", true),
            ("key:/a", "key:/ab", false),
            ("key:/a/*", "key:/a/b", true),
            ("key:/a/*", "key:/a/b/c", false),
            ("key:/a/**", "key:/a/b/c", true),
            ("key:/a/**", "key:/a", false),
            ("key:/a/**/z", "key:/a/b/c/z", true),
            ("key:/a/**/z", "key:/a/b/c/y", false),
            ("*:/a", "key:/a", true),
            ("key:/?", "key:/é", true),
            ("key:?a", "key:/a", false),
            ("", "a", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("***", "a/b", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    /// covers: IDN-31
    #[test]
    fn a_scope_permits_what_it_names_and_nothing_else() {
        let key = |id: &str| ResourceRef { resource_type: ResourceType::Key, id: id.to_owned() };
        let scope = TokenScope {
            actions: vec![ScopeAction::Kind(ActionKind::Sign)],
            resources: vec!["key:/orbital/users/alice/**".to_owned()],
        };
        assert!(scope.permits(ActionKind::Sign, &key("/orbital/users/alice/signing")));
        assert!(!scope.permits(ActionKind::Decrypt, &key("/orbital/users/alice/signing")));
        assert!(!scope.permits(ActionKind::Sign, &key("/orbital/users/bob")));
        assert!(!scope.permits(ActionKind::Sign, &key("/orbital/users/alice/../bob")));
        let file = ResourceRef { resource_type: ResourceType::File, ..key("/orbital/users/alice/signing") };
        assert!(
            !scope.permits(ActionKind::Sign, &file),
            "a key's pattern does not cover a file of that name"
        );
        assert!(TokenScope::default().permits(ActionKind::UpgradeSystem, &key(&"x".repeat(10_000))));
    }

    #[test]
    fn scopes_are_bounded() {
        let scope = |actions: usize, resources: usize, bytes: usize| TokenScope {
            actions: vec![ScopeAction::Any; actions],
            resources: vec!["x".repeat(bytes); resources],
        };
        let (actions, resources, bytes) = (SCOPE_ACTIONS_MAX, SCOPE_RESOURCES_MAX, SCOPE_PATTERN_BYTES_MAX);
        assert_eq!(scope(actions, resources, bytes).check(), Ok(()));
        assert_eq!(scope(actions + 1, 1, 1).check(), Err(ScopeError::Actions(actions + 1)));
        assert_eq!(scope(0, 1, 1).check(), Err(ScopeError::Actions(0)));
        assert_eq!(scope(1, resources + 1, 1).check(), Err(ScopeError::Resources(resources + 1)));
        assert_eq!(scope(1, 0, 1).check(), Err(ScopeError::Resources(0)));
        assert_eq!(scope(1, 1, bytes + 1).check(), Err(ScopeError::Pattern(bytes + 1)));
        assert_eq!(scope(1, 1, 0).check(), Err(ScopeError::Pattern(0)));
    }
}
