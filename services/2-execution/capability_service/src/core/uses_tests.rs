use base::{AxiomRef, DurationNs, EntryKey, Hash, IdentityId, Sequence};
use chain::payload::{
    Envelope, Payload,
    capability::{CapabilityGrant, CapabilityRevoke, ObjectType, Resource, TimeRestriction},
};

use super::*;

const ALICE: IdentityId = IdentityId([2; 32]);
const READ: Permissions =
    Permissions { read: true, write: false, execute: false, delegate: false, revoke: false };
/// When counting begins, and what was granted before and after.
const BEGAN: u64 = 1_000;
const BEFORE: u64 = 900;
const WINDOW: u64 = 100;

fn id(byte: u8) -> CapabilityId {
    CapabilityId([byte; 16])
}

fn rate(count: u32) -> Restrictions {
    let rate = RateLimit { count, window: DurationNs(WINDOW) };
    Restrictions { rate_limit: Some(rate), ..Restrictions::default() }
}

fn room(value: &str) -> Restrictions {
    Restrictions { context: [("room".to_owned(), value.to_owned())].into(), ..Restrictions::default() }
}

struct World {
    holdings: Holdings,
    uses: Uses,
}

impl World {
    fn new() -> Self {
        let mut uses = Uses::default();
        uses.begin(AxiomTime(BEGAN));
        // A second beginning is none.
        uses.begin(AxiomTime(BEGAN + 500));
        Self { holdings: Holdings::default(), uses }
    }

    fn apply(&mut self, since: u64, payload: &Payload) {
        let at = AxiomRef { sequence: Sequence(1), hash: Hash::ZERO };
        self.holdings.apply(at, AxiomTime(since), payload);
    }

    fn grant(&mut self, capability: u8, parent: Option<u8>, restrictions: Option<Restrictions>, since: u64) {
        let body = CapabilityGrant {
            capability_id: id(capability),
            grantor: ALICE,
            grantee: ALICE,
            resource: Resource { object_type: ObjectType::File, object_id: "/a".to_owned() },
            permissions: READ,
            restrictions,
            parent: parent.map(id),
        };
        let (submitter, key) = (ALICE, EntryKey([0; 16]));
        let envelope = Envelope { submitter, key, authorization: None, body };
        self.apply(since, &Payload::CapabilityGrant(Box::new(envelope)));
        assert_eq!(self.holdings.ignored(), 0);
    }

    fn revoke(&mut self, capability: u8) {
        let body = CapabilityRevoke { capability: id(capability), by: ALICE, reason: String::new() };
        let (submitter, key) = (ALICE, EntryKey([0; 16]));
        let envelope = Envelope { submitter, key, authorization: None, body };
        self.apply(BEGAN, &Payload::CapabilityRevoke(Box::new(envelope)));
        self.uses.forget(&self.holdings);
    }

    /// A read in room 1.
    fn spend(&mut self, held: &[u8], now: u64) -> Result<u8, Unfit> {
        let what = Use { permissions: READ, context: room("1").context };
        let held: Vec<CapabilityId> = held.iter().map(|byte| id(*byte)).collect();
        self.uses.spend(&self.holdings, &held, &what, AxiomTime(now)).map(|id| id.0[0])
    }
}

/// covers: CAP-34
#[test]
fn a_rate_permits_so_many_uses_in_any_window_and_not_one_more() {
    let mut world = World::new();
    world.grant(1, None, Some(rate(2)), BEGAN);
    assert_eq!(world.spend(&[1], 1_010), Ok(1));
    assert_eq!(world.spend(&[1], 1_050), Ok(1));
    assert_eq!(world.spend(&[1], 1_060), Err(Unfit::Rate));
    assert_eq!(world.spend(&[1], 1_109), Err(Unfit::Rate), "refused uses are not counted either");
    assert_eq!(world.spend(&[1], 1_110), Ok(1), "the first is a window ago");
    assert_eq!(world.spend(&[1], 1_111), Err(Unfit::Rate));
    assert_eq!(world.spend(&[1], 1_150), Ok(1));
    // What is free is used first, and costs nothing.
    world.grant(2, None, None, BEGAN);
    assert_eq!(world.spend(&[1, 2], 1_300), Ok(2));
    assert_eq!((world.spend(&[1], 1_300), world.spend(&[1], 1_300)), (Ok(1), Ok(1)));
}

/// covers: CAP-29
#[test]
fn what_was_passed_on_uses_up_what_its_source_had() {
    let mut world = World::new();
    world.grant(1, None, Some(rate(3)), BEGAN);
    world.grant(2, Some(1), Some(rate(2)), BEGAN);
    world.grant(3, Some(1), Some(rate(3)), BEGAN);
    assert_eq!((world.spend(&[2], 1_010), world.spend(&[2], 1_010)), (Ok(2), Ok(2)));
    assert_eq!(world.spend(&[2], 1_010), Err(Unfit::Rate), "its own");
    assert_eq!(world.spend(&[3], 1_020), Ok(3));
    assert_eq!(world.spend(&[3], 1_020), Err(Unfit::Rate), "all three of the source are used");
    assert_eq!(world.spend(&[1], 1_020), Err(Unfit::Rate));
    // What was refused by the source's rate has not been counted against its own.
    assert_eq!((world.spend(&[3], 1_110), world.spend(&[3], 1_110)), (Ok(3), Ok(3)));
}

#[test]
fn after_a_restart_a_rate_counts_as_used_up_for_a_window() {
    let mut world = World::new();
    world.grant(1, None, Some(rate(2)), BEFORE);
    world.grant(2, Some(1), Some(rate(1)), BEGAN);
    assert_eq!(world.spend(&[1], BEGAN), Err(Unfit::Rate), "an earlier process may have permitted all of it");
    assert_eq!(
        world.spend(&[2], BEGAN + WINDOW - 1),
        Err(Unfit::Rate),
        "and so for what was derived from it"
    );
    assert_eq!(world.spend(&[1], BEGAN + WINDOW), Ok(1));
    let mut silent = World { uses: Uses::default(), ..World::new() };
    silent.grant(1, None, Some(rate(2)), BEGAN);
    assert_eq!(
        silent.spend(&[1], BEGAN + 10 * WINDOW),
        Err(Unfit::Rate),
        "who does not know the time counts nothing"
    );
}

/// covers: CAP-34, CAP-35
#[test]
fn a_use_outside_of_its_context_or_time_is_refused() {
    let mut world = World::new();
    world.grant(1, None, Some(room("1")), BEGAN);
    world.grant(2, None, Some(room("2")), BEGAN);
    assert_eq!(world.spend(&[1, 2], 1_010), Ok(1));
    assert_eq!(world.spend(&[2], 1_010), Err(Unfit::Context));
    let both = [("room".to_owned(), "1".to_owned()), ("door".to_owned(), "3".to_owned())];
    world.grant(3, None, Some(Restrictions { context: both.into(), ..Restrictions::default() }), BEGAN);
    assert_eq!(world.spend(&[3], 1_010), Err(Unfit::Context), "all of it must be so");
    let time = TimeRestriction {
        not_before: Some(AxiomTime(1_020)),
        not_after: Some(AxiomTime(1_030)),
        time_of_day: None,
    };
    world.grant(4, None, Some(Restrictions { time: Some(time), ..Restrictions::default() }), BEGAN);
    assert_eq!((world.spend(&[4], 1_019), world.spend(&[4], 1_030)), (Err(Unfit::Time), Err(Unfit::Time)));
    assert_eq!((world.spend(&[4], 1_020), world.spend(&[4], 1_029)), (Ok(4), Ok(4)));
    assert_eq!(world.spend(&[2, 4], 1_010), Err(Unfit::Context), "the one that came closest says why");
    assert_eq!(world.spend(&[], 1_010), Err(Unfit::NotHeld));
    let wrong = |permissions| Use { permissions, context: BTreeMap::new() };
    for permissions in [Permissions::default(), Permissions { write: true, ..READ }] {
        let refused = world.uses.spend(&world.holdings, &[id(1)], &wrong(permissions), AxiomTime(1_010));
        assert_eq!(refused, Err(Unfit::NotHeld));
    }
}

#[test]
fn what_is_revoked_is_not_counted_any_more() {
    let mut world = World::new();
    world.grant(1, None, Some(rate(2)), BEGAN);
    world.grant(2, None, Some(rate(2)), BEGAN);
    assert_eq!((world.spend(&[1], 1_010), world.spend(&[2], 1_010)), (Ok(1), Ok(2)));
    world.revoke(1);
    assert_eq!(world.uses.counted.keys().copied().collect::<Vec<_>>(), [id(2)]);
    assert_eq!(world.spend(&[1], 1_010), Err(Unfit::NotHeld));
}
