//! The shared fold: who is active, who holds what, which rules are in force. A look-up, no call.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, PoisonError},
};

use base::{AxiomTime, CapabilityId, IdentityId, RuleId};
use chain::payload::{
    Payload,
    capability::{CapabilityGrant, Permissions, Resource},
    identity::{IdentityChange, IdentityCreated, IdentityStatus},
};

use crate::{feed::FeedEntry, service::BoxError};

/// Nanoseconds of a day.
const DAY_NS: u64 = 86_400_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// A capability as its holder has it.
#[derive(Clone, Debug)]
pub struct Held {
    pub id: CapabilityId,
    pub permissions: Permissions,
    not_before: AxiomTime,
    not_after: AxiomTime,
    time_of_day: Option<(u32, u32)>,
    /// It has limits that only capability_service can count or compare: a look-up alone does not suffice.
    needs_check: bool,
}

impl Held {
    fn of(grant: &CapabilityGrant) -> Self {
        let restrictions = grant.restrictions.as_ref();
        let time = restrictions.and_then(|all| all.time.as_ref());
        Self {
            id: grant.capability_id,
            permissions: grant.permissions,
            not_before: time.and_then(|time| time.not_before).unwrap_or(AxiomTime::ZERO),
            not_after: time.and_then(|time| time.not_after).unwrap_or(AxiomTime(u64::MAX)),
            time_of_day: time.and_then(|time| time.time_of_day),
            needs_check: restrictions.is_some_and(|all| all.rate_limit.is_some() || !all.context.is_empty()),
        }
    }

    fn is_valid(&self, now: AxiomTime) -> bool {
        let in_day = self.time_of_day.is_none_or(|(from, to)| {
            let second = (now.0 % DAY_NS) / SECOND_NS;
            let (from, to) = (u64::from(from), u64::from(to));
            if from <= to { (from..to).contains(&second) } else { second >= from || second < to }
        });
        now >= self.not_before && now < self.not_after && in_day
    }
}

#[derive(Debug, Default)]
struct State {
    identities: HashMap<IdentityId, IdentityStatus>,
    grants: HashMap<CapabilityId, CapabilityGrant>,
    children: HashMap<CapabilityId, Vec<CapabilityId>>,
    holders: HashMap<IdentityId, HashMap<Resource, Vec<Held>>>,
    rules: BTreeSet<RuleId>,
}

/// Read by all handlers of a service, written by its feed.
#[derive(Debug, Default)]
pub struct LocalState {
    state: RwLock<State>,
}

impl LocalState {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if an active identity holds these permissions on the resource at this time, unconditionally but for time.
    /// `now` is `AxiomClock::now()`; without one nothing is held.
    #[must_use]
    pub fn holds(&self, identity: &IdentityId, resource: &Resource, asked: Permissions, now: Option<AxiomTime>) -> bool {
        let Some(now) = now else { return false };
        let state = self.read();
        state.identities.get(identity) == Some(&IdentityStatus::Active)
            && state.holders.get(identity).and_then(|all| all.get(resource)).is_some_and(|all| {
                all.iter().any(|held| !held.needs_check && held.permissions.contains(asked) && held.is_valid(now))
            })
    }

    #[must_use]
    pub fn identity_status(&self, identity: &IdentityId) -> Option<IdentityStatus> {
        self.read().identities.get(identity).copied()
    }

    #[must_use]
    pub fn is_active(&self, identity: &IdentityId) -> bool {
        self.identity_status(identity) == Some(IdentityStatus::Active)
    }

    /// A capability that was not revoked.
    #[must_use]
    pub fn capability(&self, id: &CapabilityId) -> Option<CapabilityGrant> {
        self.read().grants.get(id).cloned()
    }

    #[must_use]
    pub fn rule_in_force(&self, rule: &RuleId) -> bool {
        self.read().rules.contains(rule)
    }

    /// Applies one entry; entry types that say nothing about this state are passed over.
    pub fn apply(&self, entry: &FeedEntry) -> Result<(), BoxError> {
        if !matches!(entry.entry_type, 0 | 10 | 11 | 86..=89) {
            return Ok(());
        }
        let mut state = self.write();
        match entry.decode()? {
            Payload::Genesis(genesis) => {
                genesis.body.identities.iter().for_each(|identity| state.create(identity));
                genesis.body.initial_capabilities.iter().for_each(|grant| state.grant(grant));
                state.rules.extend(genesis.body.rules.iter().map(|rule| rule.id.clone()));
            }
            Payload::IdentityCreated(created) => state.create(&created.body),
            Payload::IdentityUpdated(updated) => {
                if let IdentityChange::Status { new, .. } = &updated.body.change {
                    state.identities.insert(updated.body.identity, *new);
                }
            }
            Payload::CapabilityGrant(grant) => state.grant(&grant.body),
            Payload::CapabilityRevoke(revoke) => state.revoke(revoke.body.capability),
            Payload::PolicyRuleAdded(added) => {
                state.rules.insert(added.body.rule.id.clone());
            }
            Payload::PolicyRuleRemoved(removed) => {
                state.rules.remove(&removed.body.rule);
            }
            _ => {}
        }
        Ok(())
    }
}

impl State {
    fn create(&mut self, identity: &IdentityCreated) {
        self.identities.entry(identity.identity_id).or_insert(IdentityStatus::Active);
    }

    /// A grant whose parent is gone gives nothing.
    fn grant(&mut self, grant: &CapabilityGrant) {
        if let Some(parent) = grant.parent {
            if !self.grants.contains_key(&parent) {
                return;
            }
            self.children.entry(parent).or_default().push(grant.capability_id);
        }
        if self.grants.insert(grant.capability_id, grant.clone()).is_none() {
            let held = self.holders.entry(grant.grantee).or_default();
            held.entry(grant.resource.clone()).or_default().push(Held::of(grant));
        }
    }

    /// The capability and everything derived from it; without recursion, for chains may be long.
    fn revoke(&mut self, root: CapabilityId) {
        if let Some(parent) = self.grants.get(&root).and_then(|grant| grant.parent)
            && let Some(children) = self.children.get_mut(&parent)
        {
            children.retain(|child| *child != root);
        }
        let mut left = vec![root];
        while let Some(id) = left.pop() {
            left.extend(self.children.remove(&id).unwrap_or_default());
            let Some(grant) = self.grants.remove(&id) else { continue };
            let Some(resources) = self.holders.get_mut(&grant.grantee) else { continue };
            if let Some(held) = resources.get_mut(&grant.resource) {
                held.retain(|held| held.id != id);
                if held.is_empty() {
                    resources.remove(&grant.resource);
                }
            }
            if resources.is_empty() {
                self.holders.remove(&grant.grantee);
            }
        }
    }
}
