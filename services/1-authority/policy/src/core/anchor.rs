//! What a request must have for a condition to be anything but certainly false: the keys under which a rule is found.
//!
//! Keys are 64-bit hashes. Two things under one key cost a needless evaluation and change no answer: every candidate is
//! evaluated in full.

use base::IdentityId;
use chain::payload::{
    identity::IdentityType,
    policy::{ActionMatcher, IdentityMatcher, PolicyCondition, ResourceMatcher, ResourceRef, ResourceType},
};

use super::{condition::is_normal_path, glob, identities::Principal};

/// The key of rules that any request may satisfy.
pub(super) const ANY: u64 = 0;
/// Keys of one dimension that a rule is stored under; with more it is stored under `ANY`.
const KEYS_MAX: usize = 8;
/// Components of a path that have keys of their own; deeper prefixes are stored under their first so many.
const PATH_KEYS_MAX: usize = 32;

/// One bit for each `ActionKind`.
pub(super) type Actions = u32;

/// None in a dimension: anything may match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Anchors {
    pub(super) actions: Actions,
    identity: Option<Vec<u64>>,
    resource: Option<Vec<ResourceKey>>,
}

/// A key, and where in a resource it is found: one bit for each depth of a path and for each other kind of key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ResourceKey {
    pub(super) key: u64,
    pub(super) place: u64,
}

const ANYWHERE: ResourceKey = ResourceKey { key: ANY, place: 1 };

impl Anchors {
    const NOTHING_KNOWN: Self = Self { actions: Actions::MAX, identity: None, resource: None };
    const NEVER: Self = Self { actions: 0, identity: None, resource: None };

    /// The caller has checked the rule's structure.
    pub(super) fn of(condition: &PolicyCondition) -> Self {
        match condition {
            PolicyCondition::Never => Self::NEVER,
            PolicyCondition::Action(matcher) => Self { actions: action_bits(matcher), ..Self::NOTHING_KNOWN },
            PolicyCondition::Identity(matcher) => {
                Self { identity: identity_keys(matcher), ..Self::NOTHING_KNOWN }
            }
            PolicyCondition::Resource(matcher) => {
                Self { resource: resource_keys(matcher), ..Self::NOTHING_KNOWN }
            }
            PolicyCondition::And(all) => all.iter().map(Self::of).fold(Self::NOTHING_KNOWN, Self::both),
            PolicyCondition::Or(any) => any.iter().map(Self::of).reduce(Self::either).unwrap_or(Self::NEVER),
            PolicyCondition::Not(inner) => match inner.as_ref() {
                PolicyCondition::Action(matcher) => {
                    Self { actions: !action_bits(matcher), ..Self::NOTHING_KNOWN }
                }
                PolicyCondition::Always => Self::NEVER,
                _ => Self::NOTHING_KNOWN,
            },
            PolicyCondition::Always
            | PolicyCondition::Before(_)
            | PolicyCondition::After(_)
            | PolicyCondition::RateLimit { .. } => Self::NOTHING_KNOWN,
        }
    }

    /// Either side's keys are necessary; fewer are better.
    fn both(self, other: Self) -> Self {
        Self {
            actions: self.actions & other.actions,
            identity: fewer(self.identity, other.identity, |key| *key),
            resource: fewer(self.resource, other.resource, |key| key.key),
        }
    }

    fn either(self, other: Self) -> Self {
        if self.actions == 0 || other.actions == 0 {
            return if self.actions == 0 { other } else { self };
        }
        Self {
            actions: self.actions | other.actions,
            identity: union(self.identity, other.identity),
            resource: union(self.resource, other.resource),
        }
    }

    pub(super) fn identity_keys(&self) -> &[u64] {
        self.identity.as_deref().unwrap_or(&[ANY])
    }

    pub(super) fn resource_keys(&self) -> &[ResourceKey] {
        self.resource.as_deref().unwrap_or(&[ANYWHERE])
    }
}

fn fewer<K>(a: Option<Vec<K>>, b: Option<Vec<K>>, key: impl Fn(&K) -> u64) -> Option<Vec<K>> {
    // Smaller is more selective: the kind of the widest key, then how many.
    let rank = |keys: &[K]| (keys.iter().map(|k| key(k) & 7).max().unwrap_or(7), keys.len());
    match (a, b) {
        (Some(a), Some(b)) => Some(if rank(&b) < rank(&a) { b } else { a }),
        (a, b) => a.or(b),
    }
}

fn union<K: Ord>(a: Option<Vec<K>>, b: Option<Vec<K>>) -> Option<Vec<K>> {
    let mut keys = a?;
    keys.extend(b?);
    keys.sort_unstable();
    keys.dedup();
    (keys.len() <= KEYS_MAX).then_some(keys)
}

fn action_bits(matcher: &ActionMatcher) -> Actions {
    match matcher {
        ActionMatcher::Kind(kind) => 1 << *kind as u32,
        ActionMatcher::AnyOf(any) => any.iter().fold(0, |bits, kind| bits | 1 << *kind as u32),
    }
}

fn identity_keys(matcher: &IdentityMatcher) -> Option<Vec<u64>> {
    match matcher {
        IdentityMatcher::Exact(id) => Some(vec![id_key(EXACT, id)]),
        IdentityMatcher::Group(id) => Some(vec![id_key(GROUP, id)]),
        IdentityMatcher::Type(wanted) => Some(vec![identity_type_key(*wanted)]),
        IdentityMatcher::Pattern(name) if is_literal(name) => Some(vec![name_key(name)]),
        IdentityMatcher::Pattern(_) => None,
    }
}

fn resource_keys(matcher: &ResourceMatcher) -> Option<Vec<ResourceKey>> {
    match matcher {
        ResourceMatcher::Exact(resource) => {
            Some(vec![exact_key(resource.resource_type, text_hash(&resource.id))])
        }
        ResourceMatcher::PathPrefix(prefix) if is_normal_path(prefix) => Some(vec![prefix_key(prefix)]),
        ResourceMatcher::Type(wanted) => Some(vec![resource_type_key(*wanted)]),
        ResourceMatcher::OwnKeyPath => Some(vec![resource_type_key(ResourceType::Key)]),
        ResourceMatcher::Pattern(text) if is_literal(text) => Some(vec![literal_key(text_hash(text))]),
        ResourceMatcher::Pattern(pattern) if glob::check(pattern).is_ok() => folder_of(pattern),
        // What cannot be evaluated must be found by every request.
        ResourceMatcher::PathPrefix(_) | ResourceMatcher::Pattern(_) => None,
    }
}

fn is_literal(pattern: &str) -> bool {
    glob::check(pattern).is_ok() && glob::literal_prefix(pattern).len() == pattern.len()
}

/// The whole components before the first wildcard, if they make a path below the root.
fn folder_of(pattern: &str) -> Option<Vec<ResourceKey>> {
    let (folder, _) = glob::literal_prefix(pattern).rsplit_once('/')?;
    (folder != "/" && is_normal_path(folder)).then(|| vec![prefix_key(folder)])
}

// The low three bits of a key tell its kind, most selective first.
const EXACT: u64 = 1;
const LITERAL: u64 = 2;
const PREFIX: u64 = 3;
const GROUP: u64 = 4;
const TYPE: u64 = 5;

fn key(kind: u64, value: u64) -> u64 {
    let mixed = (value ^ value >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29) << 3 | kind
}

/// An id is a hash already.
fn id_key(kind: u64, id: &IdentityId) -> u64 {
    let first = id.0.first_chunk::<8>().copied().unwrap_or_default();
    key(kind, u64::from_le_bytes(first))
}

pub(super) fn name_key(name: &str) -> u64 {
    key(LITERAL, text_hash(name))
}

/// True for the key of a group.
pub(super) fn is_group(identity_key: u64) -> bool {
    identity_key & 7 == GROUP
}

fn identity_type_key(identity_type: IdentityType) -> u64 {
    key(TYPE, identity_type as u64)
}

fn resource_type_key(resource_type: ResourceType) -> ResourceKey {
    ResourceKey { key: key(TYPE, resource_type as u64), place: 1 << 1 }
}

fn literal_key(hash: u64) -> ResourceKey {
    ResourceKey { key: key(LITERAL, hash), place: 1 << 2 }
}

fn exact_key(resource_type: ResourceType, hash: u64) -> ResourceKey {
    ResourceKey { key: key(EXACT, hash.wrapping_add(resource_type as u64)), place: 1 << 3 }
}

/// A path of so many components; none for the root.
fn depth_key(components: usize, hash: u64) -> ResourceKey {
    ResourceKey { key: key(PREFIX, hash), place: 1 << (4 + components.min(PATH_KEYS_MAX)) }
}

fn prefix_key(prefix: &str) -> ResourceKey {
    let end = prefix.match_indices('/').nth(PATH_KEYS_MAX).map_or(prefix.len(), |(at, _)| at);
    let kept = prefix.get(..end).unwrap_or(prefix);
    let components = if kept == "/" { 0 } else { kept.matches('/').count() };
    depth_key(components, text_hash(kept))
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

fn text_hash(text: &str) -> u64 {
    text.bytes().fold(FNV_START, fnv)
}

/// Keys of a request in one dimension, without an allocation.
pub(super) struct Keys<K, const N: usize> {
    keys: [K; N],
    len: usize,
}

impl<K: Copy + Default, const N: usize> Keys<K, N> {
    fn new() -> Self {
        Self { keys: [K::default(); N], len: 0 }
    }

    fn push(&mut self, key: K) {
        if let Some(slot) = self.keys.get_mut(self.len) {
            *slot = key;
            self.len += 1;
        }
    }

    pub(super) fn as_slice(&self) -> &[K] {
        self.keys.get(..self.len).unwrap_or(&[])
    }
}

/// Any, exact, name, type, and the lineage if rules name groups.
pub(super) fn keys_of_requestor(
    requestor: &Principal,
    with_groups: bool,
) -> Keys<u64, { super::limits::IDENTITY_DEPTH_MAX + 4 }> {
    let mut keys = Keys::new();
    keys.push(ANY);
    keys.push(id_key(EXACT, &requestor.id));
    keys.push(requestor.name_key);
    keys.push(identity_type_key(requestor.identity_type));
    if with_groups {
        requestor.lineage.iter().for_each(|id| keys.push(id_key(GROUP, id)));
    }
    keys
}

/// Any, exact, literal, type, and every prefix of whole components.
pub(super) fn keys_of_resource(resource: &ResourceRef) -> Keys<ResourceKey, { PATH_KEYS_MAX + 6 }> {
    let mut keys = Keys::new();
    keys.push(ANYWHERE);
    keys.push(resource_type_key(resource.resource_type));
    let mut hash = FNV_START;
    let mut slashes = 0;
    for byte in resource.id.bytes() {
        if byte == b'/' {
            // What stands before the second slash is the first component.
            if (1..=PATH_KEYS_MAX).contains(&slashes) {
                keys.push(depth_key(slashes, hash));
            }
            slashes += 1;
        }
        hash = fnv(hash, byte);
    }
    if slashes > 0 {
        if slashes <= PATH_KEYS_MAX {
            keys.push(depth_key(slashes, hash));
        }
        keys.push(depth_key(0, fnv(FNV_START, b'/')));
    }
    keys.push(literal_key(hash));
    keys.push(exact_key(resource.resource_type, hash));
    keys
}
