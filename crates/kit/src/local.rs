//! The shared fold: who is active, who holds what, which rules are in force. A look-up, no call.

mod saved;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use base::{AxiomTime, CapabilityId, IdentityId, RuleId};
use chain::payload::{
    Payload,
    capability::{Permissions, Resource},
    identity::{IdentityChange, IdentityCreated, IdentityStatus},
};

pub(crate) use self::saved::{LOCAL_VERSION, SavedPrincipals};
use crate::{feed::FeedEntry, principals::Principals, rights::Rights, service::BoxError};

#[derive(Debug, Default)]
struct State {
    /// Nobody who was not created has a status.
    people: HashMap<IdentityId, IdentityStatus>,
    rights: Rights,
    rules: BTreeSet<RuleId>,
}

/// Read by all handlers of a service, written by its feed.
#[derive(Debug, Default)]
pub struct LocalState {
    state: RwLock<State>,
    principals: RwLock<Principals>,
}

impl LocalState {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn principals(&self) -> RwLockReadGuard<'_, Principals> {
        self.principals.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if an active identity holds these permissions on the resource at this time, unconditionally but for time.
    /// `now` is `AxiomClock::now()`; without one nothing is held.
    #[must_use]
    pub fn holds(
        &self,
        identity: &IdentityId,
        resource: &Resource,
        asked: Permissions,
        now: Option<AxiomTime>,
    ) -> bool {
        let Some(now) = now else { return false };
        let state = self.read();
        state.is_active(identity) && state.rights.permit(identity, resource, asked, now)
    }

    /// Capabilities that an identity holds on a resource, whatever they permit and whenever they hold.
    #[must_use]
    pub fn held_on(&self, identity: &IdentityId, resource: &Resource) -> Vec<CapabilityId> {
        self.read().rights.held_on(identity, resource)
    }

    #[must_use]
    pub fn identity_status(&self, identity: &IdentityId) -> Option<IdentityStatus> {
        self.read().people.get(identity).copied()
    }

    #[must_use]
    pub fn is_active(&self, identity: &IdentityId) -> bool {
        self.identity_status(identity) == Some(IdentityStatus::Active)
    }

    /// Who holds a capability that was not revoked.
    #[must_use]
    pub fn holder(&self, id: &CapabilityId) -> Option<IdentityId> {
        self.read().rights.holder(id)
    }

    /// True if an active identity holds this very capability, and it holds now, unconditionally but for time.
    #[must_use]
    pub fn holds_capability(&self, identity: &IdentityId, id: &CapabilityId, now: Option<AxiomTime>) -> bool {
        let Some(now) = now else { return false };
        let state = self.read();
        state.is_active(identity)
            && state.rights.holder(id) == Some(*identity)
            && state.rights.is_valid_now(id, now)
    }

    #[must_use]
    pub fn rule_in_force(&self, rule: &RuleId) -> bool {
        self.read().rules.contains(rule)
    }

    /// Applies one entry; entry types that say nothing about this state are passed over.
    pub fn apply(&self, entry: &FeedEntry) -> Result<(), BoxError> {
        if Self::folds(entry.entry_type) {
            self.apply_payload(entry.timestamp, entry.decode()?);
        }
        Ok(())
    }

    /// Entry types that say something about this state.
    #[must_use]
    pub const fn folds(entry_type: u32) -> bool {
        matches!(entry_type, 0 | 10 | 11 | 86..=89 | 91)
    }

    /// The same for axiom, which has its entries from itself.
    pub fn apply_payload(&self, timestamp: AxiomTime, payload: &Payload) {
        let mut principals = self.principals.write().unwrap_or_else(PoisonError::into_inner);
        principals.apply(timestamp, payload);
        drop(principals);
        let mut state = self.write();
        match payload {
            Payload::Genesis(genesis) => {
                genesis.body.identities.iter().for_each(|identity| state.create(identity));
                genesis.body.initial_capabilities.iter().for_each(|grant| state.rights.grant(grant));
                state.rules.extend(genesis.body.rules.iter().map(|rule| rule.id.clone()));
            }
            Payload::IdentityCreated(created) => state.create(&created.body),
            Payload::IdentityUpdated(updated) => {
                if let IdentityChange::Status { new, .. } = &updated.body.change {
                    state.people.insert(updated.body.identity, *new);
                }
            }
            Payload::CapabilityGrant(grant) => state.rights.grant(&grant.body),
            Payload::CapabilityRevoke(_) if crate::is_broken("revocation") => {}
            Payload::CapabilityRevoke(revoke) => state.rights.revoke(revoke.body.capability),
            Payload::PolicyRuleAdded(added) => {
                state.rules.insert(added.body.rule.id.clone());
            }
            Payload::PolicyRuleRemoved(removed) => {
                state.rules.remove(&removed.body.rule);
            }
            _ => {}
        }
    }
}

impl State {
    fn create(&mut self, identity: &IdentityCreated) {
        self.people.entry(identity.identity_id).or_insert(IdentityStatus::Active);
    }

    fn is_active(&self, identity: &IdentityId) -> bool {
        self.people.get(identity) == Some(&IdentityStatus::Active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{EntryKey, PublicKey, key_paths};
    use chain::payload::{
        Body, Envelope,
        capability::{
            CapabilityGrant, CapabilityRevoke, DAY_NS, ObjectType, RateLimit, Restrictions, TimeRestriction,
        },
        identity::{CredentialRevoked, IdentityType, IdentityUpdated},
    };
    use contracts::axiom::v1::Entry;

    const READ: Permissions =
        Permissions { read: true, write: false, execute: false, delegate: false, revoke: false };
    const WRITE: Permissions =
        Permissions { read: false, write: true, execute: false, delegate: false, revoke: false };
    const NOW: Option<AxiomTime> = Some(AxiomTime(1_000));

    fn id(byte: u8) -> IdentityId {
        IdentityId([byte; 32])
    }

    fn file(name: &str) -> Resource {
        Resource { object_type: ObjectType::File, object_id: name.to_owned() }
    }

    fn apply<T: Body>(state: &LocalState, body: T) {
        let payload = Envelope { submitter: id(9), key: EntryKey([1; 16]), authorization: None, body }
            .to_bytes()
            .unwrap();
        let entry = Entry { hash: vec![0; 32], entry_type: T::ENTRY_TYPE, payload, ..Entry::default() };
        state.apply(&FeedEntry::read_for_test(entry)).unwrap();
    }

    fn grant(
        capability: u8,
        to: u8,
        parent: Option<u8>,
        restrictions: Option<Restrictions>,
    ) -> CapabilityGrant {
        CapabilityGrant {
            capability_id: CapabilityId([capability; 16]),
            grantor: id(9),
            grantee: id(to),
            resource: file("/a"),
            permissions: READ,
            restrictions,
            parent: parent.map(|parent| CapabilityId([parent; 16])),
        }
    }

    fn with_people() -> LocalState {
        let state = LocalState::new();
        for person in 1..=3 {
            apply(
                &state,
                IdentityCreated {
                    identity_id: id(person),
                    name: format!("person{person}"),
                    identity_type: IdentityType::User,
                    parent: None,
                    public_key: PublicKey([person; 32]),
                    key_path: base::KeyPath::parse(key_paths::USERS).unwrap(),
                },
            );
        }
        state
    }

    #[test]
    fn what_was_granted_is_held_and_nothing_else() {
        let state = with_people();
        apply(&state, grant(1, 1, None, None));
        assert!(state.holds(&id(1), &file("/a"), READ, NOW));
        assert!(!state.holds(&id(1), &file("/a"), WRITE, NOW));
        assert!(!state.holds(&id(1), &file("/b"), READ, NOW));
        assert!(!state.holds(&id(2), &file("/a"), READ, NOW));
        assert!(!state.holds(&id(1), &file("/a"), READ, None), "without the time nothing is held");
    }

    #[test]
    fn revoking_takes_the_whole_subtree() {
        let state = with_people();
        apply(&state, grant(1, 1, None, None));
        apply(&state, grant(2, 2, Some(1), None));
        apply(&state, grant(3, 3, Some(2), None));
        apply(&state, grant(4, 3, None, None));
        apply(
            &state,
            CapabilityRevoke { capability: CapabilityId([2; 16]), by: id(9), reason: String::new() },
        );
        assert!(state.holds(&id(1), &file("/a"), READ, NOW));
        assert!(!state.holds(&id(2), &file("/a"), READ, NOW));
        assert!(state.holder(&CapabilityId([3; 16])).is_none());
        assert!(state.holds(&id(3), &file("/a"), READ, NOW), "held by another grant");
        apply(&state, grant(5, 2, Some(3), None));
        assert!(!state.holds(&id(2), &file("/a"), READ, NOW), "a child of what is gone gives nothing");
    }

    /// covers: CAP-26
    #[test]
    fn what_permits_more_than_its_parent_gives_nothing() {
        let state = with_people();
        apply(&state, grant(1, 1, None, None));
        apply(&state, CapabilityGrant { permissions: WRITE, ..grant(2, 2, Some(1), None) });
        apply(&state, CapabilityGrant { resource: file("/b"), ..grant(3, 2, Some(1), None) });
        let ends = TimeRestriction { not_after: Some(AxiomTime(2_000)), ..TimeRestriction::default() };
        let ending = Restrictions { time: Some(ends), ..Restrictions::default() };
        apply(&state, grant(5, 3, None, Some(ending.clone())));
        apply(&state, grant(6, 2, Some(5), None));
        assert!(!state.holds(&id(2), &file("/a"), READ, NOW), "it would outlive its source");
        apply(&state, grant(7, 3, Some(5), Some(ending)));
        assert!(
            !state.holds(&id(2), &file("/a"), WRITE, NOW) && !state.holds(&id(2), &file("/b"), READ, NOW)
        );
        apply(&state, grant(4, 2, Some(1), None));
        assert!(state.holds(&id(2), &file("/a"), READ, NOW));
    }

    #[test]
    fn a_suspended_identity_holds_nothing_until_it_is_active_again() {
        let state = with_people();
        apply(&state, grant(1, 1, None, None));
        let change = |old, new| IdentityUpdated {
            identity: id(1),
            change: IdentityChange::Status { old, new, by: id(9), reason: String::new() },
        };
        apply(&state, change(IdentityStatus::Active, IdentityStatus::Suspended));
        assert!(!state.holds(&id(1), &file("/a"), READ, NOW));
        apply(&state, change(IdentityStatus::Suspended, IdentityStatus::Active));
        assert!(state.holds(&id(1), &file("/a"), READ, NOW));
    }

    /// covers: CAP-34, CAP-35
    #[test]
    fn time_limits_are_checked_and_what_needs_counting_is_not_held_here() {
        let check = |restrictions: Restrictions, now: u64| {
            let state = with_people();
            apply(&state, grant(1, 1, None, Some(restrictions)));
            state.holds(&id(1), &file("/a"), READ, Some(AxiomTime(now)))
        };
        let time = |time: TimeRestriction| Restrictions { time: Some(time), ..Restrictions::default() };
        let span = |from, to| {
            time(TimeRestriction {
                not_before: Some(AxiomTime(from)),
                not_after: Some(AxiomTime(to)),
                time_of_day: None,
            })
        };
        assert!(
            !check(span(10, 20), 9)
                && check(span(10, 20), 10)
                && check(span(10, 20), 19)
                && !check(span(10, 20), 20)
        );
        let hours =
            |from, to| time(TimeRestriction { time_of_day: Some((from, to)), ..TimeRestriction::default() });
        let at = |second: u64| DAY_NS * 3 + second * 1_000_000_000;
        assert!(
            check(hours(100, 200), at(100))
                && !check(hours(100, 200), at(200))
                && !check(hours(100, 200), at(99))
        );
        assert!(
            check(hours(200, 100), at(99))
                && check(hours(200, 100), at(200))
                && !check(hours(200, 100), at(150))
        );
        let rate = RateLimit { count: 1, window: base::DurationNs(1) };
        assert!(!check(Restrictions { rate_limit: Some(rate), ..Restrictions::default() }, 5));
        let context = [("room".to_owned(), "1".to_owned())].into();
        assert!(!check(Restrictions { context, ..Restrictions::default() }, 5));
    }

    fn step(state: &LocalState, number: u8) {
        let revoke = CapabilityRevoke {
            capability: CapabilityId([number.saturating_sub(2); 16]),
            by: id(9),
            reason: String::new(),
        };
        let change = |change| IdentityUpdated { identity: id(number % 3 + 1), change };
        let status = |old, new| IdentityChange::Status { old, new, by: id(9), reason: String::new() };
        match number % 6 {
            0..3 => apply(
                state,
                grant(number, number % 3 + 1, (number % 6 == 2).then_some(number.saturating_sub(1)), None),
            ),
            3 => apply(state, revoke),
            4 => apply(state, change(status(IdentityStatus::Active, IdentityStatus::Suspended))),
            _ => {
                let token = base::TokenId([number; 16]);
                apply(state, change(IdentityChange::TokenRevoked { token, by: id(9) }));
            }
        }
    }

    #[test]
    fn a_whole_state_that_was_written_down_anywhere_goes_on_to_the_same_bytes() {
        let bytes = |cut: u8| {
            let mut state = with_people();
            state.state.get_mut().unwrap().rights = Rights::with_secret((1, 2));
            (0..cut).for_each(|number| step(&state, number));
            let resumed = LocalState::new();
            resumed.put(LocalState::read_whole(&state.save_whole()).unwrap().unwrap());
            (cut..40).for_each(|number| step(&resumed, number));
            resumed.save_whole()
        };
        let whole = bytes(40);
        (0..40).for_each(|cut| assert_eq!(bytes(cut), whole, "cut at {cut}"));
        let hash = base::Hash::of(&whole).to_string();
        assert_eq!(
            hash, "blake3:8f18fa733c2934b2d62cab569a06b98603c05605a6c65a5be1540cd8348f0f86",
            "a fold that changes has another LOCAL_VERSION"
        );
    }

    #[test]
    fn what_is_saved_is_restored_with_all_that_is_derived_from_it() {
        let state = with_people();
        apply(&state, grant(1, 1, None, None));
        apply(&state, grant(2, 2, Some(1), None));
        apply(&state, grant(3, 3, Some(2), None));
        apply(&state, grant(4, 3, None, None));
        let revoke = |id| CapabilityRevoke {
            capability: CapabilityId([id; 16]),
            by: IdentityId([9; 32]),
            reason: String::new(),
        };
        apply(&state, revoke(4));
        let (token, credential) = (base::TokenId([6; 16]), base::CredentialId([7; 16]));
        let change = IdentityChange::TokenRevoked { token, by: id(9) };
        apply(&state, IdentityUpdated { identity: id(2), change });
        let revoked = CredentialRevoked { identity: id(2), credential, by: id(9), reason: String::new() };
        apply(&state, revoked);
        let suspended = IdentityChange::Status {
            old: IdentityStatus::Active,
            new: IdentityStatus::Suspended,
            by: id(9),
            reason: String::new(),
        };
        apply(&state, IdentityUpdated { identity: id(3), change: suspended });
        let bytes = state.to_bytes();
        let restored = LocalState::new();
        apply(&restored, grant(8, 1, None, None));
        let live = [grant(3, 3, Some(2), None), grant(2, 2, Some(1), None), grant(1, 1, None, None)];
        restored.restore(&bytes, &live).unwrap();
        assert_eq!(restored.to_bytes(), bytes);
        assert!(restored.holder(&CapabilityId([8; 16])).is_none(), "what was there before is gone");
        assert!(restored.holds(&id(2), &file("/a"), READ, NOW));
        assert_eq!(restored.identity_status(&id(3)), Some(IdentityStatus::Suspended));
        let path = base::KeyPath::parse(key_paths::USERS).unwrap();
        assert_eq!(restored.identity_by_key_path(&path), Some(id(1)));
        // Both go on alike: the subtree is known to both.
        for state in [&state, &restored] {
            apply(state, revoke(1));
            assert!(!state.holds(&id(2), &file("/a"), READ, NOW));
        }
        assert_eq!(restored.to_bytes(), state.to_bytes());
        assert!(restored.restore(&bytes[1..], &live).is_err());
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_an_error() {
        let entry = Entry { hash: vec![0; 32], entry_type: 10, payload: vec![0xff], ..Entry::default() };
        assert!(LocalState::new().apply(&FeedEntry::read_for_test(entry)).is_err());
        let later = Entry { hash: vec![0; 32], entry_type: 200, payload: vec![0xff], ..Entry::default() };
        assert!(LocalState::new().apply(&FeedEntry::read_for_test(later)).is_ok());
    }

    /// Prints, does not judge.
    #[test]
    #[ignore = "measures; run with --release --run-ignored only --no-capture"]
    fn measure_holds() {
        let state = with_people();
        for n in 0..10_000u32 {
            let mut capability = [0; 16];
            capability[..4].copy_from_slice(&n.to_le_bytes());
            let grant = CapabilityGrant {
                capability_id: CapabilityId(capability),
                resource: file(&format!("/srv/data/{n}")),
                ..grant(1, 1, None, None)
            };
            apply(&state, grant);
        }
        let files: Vec<Resource> = (0..1000).map(|n| file(&format!("/srv/data/{}", n * 7))).collect();
        let began = std::time::Instant::now();
        let mut held = 0u32;
        for _ in 0..1000 {
            for file in &files {
                held += u32::from(state.holds(&id(1), file, READ, NOW));
            }
        }
        assert_eq!(held, 1_000_000);
        println!("{} ns a look-up among 10 000 capabilities", began.elapsed().as_nanos() / 1_000_000);
    }
}
