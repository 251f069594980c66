use base::{AxiomRef, DurationNs, EntryKey, Hash, Sequence};
use chain::payload::{
    Body, Envelope, Payload,
    capability::{CapabilityRevoke, ObjectType, RateLimit},
};
use proptest::prelude::*;

use super::*;
use crate::core::Filter;

const ROOT: IdentityId = IdentityId([1; 32]);
const ALICE: IdentityId = IdentityId([2; 32]);
const BOB: IdentityId = IdentityId([3; 32]);
const NOW: AxiomTime = AxiomTime(1_000);
const NOTHING: Permissions =
    Permissions { read: false, write: false, execute: false, delegate: false, revoke: false };
const READ: Permissions = Permissions { read: true, ..NOTHING };
const READ_ON: Permissions = Permissions { read: true, delegate: true, ..NOTHING };
const WRITE: Permissions = Permissions { write: true, ..NOTHING };

fn file(id: &str) -> Resource {
    Resource { object_type: ObjectType::File, object_id: id.to_owned() }
}

fn wish(capability: u8, grantor: IdentityId, grantee: IdentityId, permissions: Permissions) -> Wish {
    Wish {
        capability: CapabilityId([capability; 16]),
        grantor,
        grantee,
        resource: file("/a"),
        permissions,
        restrictions: None,
        expires_at: None,
    }
}

fn at(sequence: u64) -> AxiomRef {
    AxiomRef { sequence: Sequence(sequence), hash: Hash::ZERO }
}

fn envelope<T: Body>(body: T) -> Box<Envelope<T>> {
    Box::new(Envelope { submitter: ROOT, key: EntryKey([0; 16]), authorization: None, body })
}

fn fold(holdings: &mut Holdings, grant: CapabilityGrant) {
    holdings.apply(at(7), &Payload::CapabilityGrant(envelope(grant)));
}

fn revoke(holdings: &mut Holdings, capability: u8) {
    let body =
        CapabilityRevoke { capability: CapabilityId([capability; 16]), by: ROOT, reason: String::new() };
    holdings.apply(at(9), &Payload::CapabilityRevoke(envelope(body)));
}

/// Plans as an active grantee's, now; the root makes rights from nothing.
fn plan(holdings: &Holdings, wish: Wish) -> Result<CapabilityGrant, CapabilityError> {
    let makes_new = wish.grantor == ROOT;
    plan_grant(holdings, wish, true, makes_new, NOW)
}

fn grant(holdings: &mut Holdings, wish: Wish) -> CapabilityGrant {
    let planned = plan(holdings, wish).unwrap();
    fold(holdings, planned.clone());
    planned
}

fn held_by(holdings: &Holdings, holder: IdentityId) -> Vec<u8> {
    let filter = Filter { holder: Some(holder), resource: None };
    holdings.list(&filter).map(|granted| granted.grant.capability_id.0[0]).collect()
}

/// covers: CAP-22
#[test]
fn a_wish_is_checked_before_anybody_is_asked() {
    let empty = Holdings::default();
    let changed = |change: &dyn Fn(&mut Wish)| {
        let mut wish = wish(1, ROOT, ALICE, READ);
        change(&mut wish);
        plan(&empty, wish)
    };
    let id = |bytes: usize| changed(&|wish| wish.resource = file(&"x".repeat(bytes)));
    assert_eq!("endpoint:".len() + OBJECT_ID_BYTES_MAX, 4096, "as policy knows it");
    assert!(id(1).is_ok() && id(OBJECT_ID_BYTES_MAX).is_ok());
    for bytes in [0, OBJECT_ID_BYTES_MAX + 1] {
        assert_eq!(id(bytes), Err(CapabilityError::ObjectId { bytes }));
    }
    assert_eq!(changed(&|wish| wish.resource = file("a\0b")), Err(CapabilityError::ObjectId { bytes: 3 }));
    assert_eq!(changed(&|wish| wish.permissions = NOTHING), Err(CapabilityError::NoPermission));
    let gone = plan_grant(&empty, wish(1, ROOT, ALICE, READ), false, true, NOW);
    assert_eq!(gone, Err(CapabilityError::UnknownIdentity(ALICE)));
    let time = |not_before: Option<u64>, not_after: Option<u64>, expires_at: Option<u64>| {
        changed(&|wish| {
            let time = TimeRestriction {
                not_before: not_before.map(AxiomTime),
                not_after: not_after.map(AxiomTime),
                time_of_day: None,
            };
            wish.restrictions = Some(Restrictions { time: Some(time), ..Restrictions::default() });
            wish.expires_at = expires_at.map(AxiomTime);
        })
    };
    for bad in [
        time(None, Some(NOW.0), None),
        time(None, None, Some(NOW.0)),
        time(Some(2_000), Some(2_000), None),
        time(Some(2_000), Some(3_000), Some(1_500)),
    ] {
        assert!(matches!(bad, Err(CapabilityError::Restrictions(_))), "{bad:?}");
    }
    assert!(time(Some(2_000), Some(2_001), None).is_ok());
    let both = time(None, Some(3_000), Some(2_500)).unwrap();
    assert_eq!(
        both.restrictions.unwrap().time.unwrap().not_after,
        Some(AxiomTime(2_500)),
        "the earlier counts"
    );
    assert_eq!(changed(&|_| ()).unwrap().restrictions, None);
    let rate = RateLimit { count: 1, window: DurationNs(1) };
    let counted = Restrictions { rate_limit: Some(rate), ..Restrictions::default() };
    let told = Restrictions { context: [("a".to_owned(), "b".to_owned())].into(), ..Restrictions::default() };
    for restrictions in [counted, told] {
        let refused = changed(&|wish| wish.restrictions = Some(restrictions.clone()));
        assert!(matches!(refused, Err(CapabilityError::Restrictions(_))), "no check would ever confirm it");
    }
}

/// covers: CAP-25, CAP-26
#[test]
fn a_holder_passes_on_a_part_of_what_it_has_and_no_more() {
    let mut holdings = Holdings::default();
    grant(&mut holdings, wish(1, ROOT, ALICE, READ_ON));
    let passed = grant(&mut holdings, wish(2, ALICE, BOB, READ));
    assert_eq!((passed.parent, passed.grantor), (Some(CapabilityId([1; 16])), ALICE));
    assert_eq!(plan(&holdings, wish(3, ALICE, BOB, WRITE)), Err(CapabilityError::CannotAmplify));
    assert_eq!(plan(&holdings, wish(3, BOB, ALICE, READ)), Err(CapabilityError::CannotDelegate));
    // Who holds nothing there makes a right of its own, if policy lets it; so does the admin, whatever it holds.
    let other = Wish { resource: file("/b"), ..wish(3, BOB, ALICE, WRITE) };
    assert_eq!(plan(&holdings, other).unwrap().parent, None);
    grant(&mut holdings, wish(4, ALICE, ROOT, READ));
    assert_eq!(plan(&holdings, wish(5, ROOT, BOB, WRITE)).unwrap().parent, None);
    // A better source is found behind a worse one.
    grant(&mut holdings, wish(6, ROOT, BOB, READ_ON));
    assert_eq!(plan(&holdings, wish(7, BOB, ALICE, READ)).unwrap().parent, Some(CapabilityId([6; 16])));
}

#[test]
fn a_passed_on_right_ends_with_its_source_at_the_latest() {
    let mut holdings = Holdings::default();
    grant(&mut holdings, Wish { expires_at: Some(AxiomTime(5_000)), ..wish(1, ROOT, ALICE, READ_ON) });
    let end = |expires_at: Option<u64>| {
        let wish = Wish { expires_at: expires_at.map(AxiomTime), ..wish(2, ALICE, BOB, READ) };
        plan(&holdings, wish).unwrap().restrictions.unwrap().time.unwrap().not_after
    };
    assert_eq!(end(None), Some(AxiomTime(5_000)));
    assert_eq!(end(Some(9_000)), Some(AxiomTime(5_000)));
    assert_eq!(end(Some(4_000)), Some(AxiomTime(4_000)));
    let late = plan_grant(&holdings, wish(2, ALICE, BOB, READ), true, false, AxiomTime(5_000)).unwrap();
    assert_eq!(late.parent, None, "an expired right is no source");
}

#[test]
fn a_passed_on_right_begins_with_its_source_and_keeps_its_hours() {
    let mut holdings = Holdings::default();
    let times = |not_before: Option<u64>, hours| {
        let time = TimeRestriction {
            not_before: not_before.map(AxiomTime),
            not_after: Some(AxiomTime(9_000)),
            time_of_day: hours,
        };
        Some(Restrictions { time: Some(time), ..Restrictions::default() })
    };
    let (day, night) = (Some((8, 16)), Some((20, 4)));
    grant(&mut holdings, Wish { restrictions: times(Some(2_000), day), ..wish(1, ROOT, ALICE, READ_ON) });
    let passed = |not_before, hours| {
        let wish = Wish { restrictions: times(not_before, hours), ..wish(2, ALICE, BOB, READ) };
        let time = plan(&holdings, wish).unwrap().restrictions.unwrap().time.unwrap();
        (time.not_before.map(|time| time.0), time.time_of_day)
    };
    assert_eq!(passed(None, None), (Some(2_000), day));
    assert_eq!(passed(Some(1_500), night), (Some(2_000), day));
    assert_eq!(passed(Some(3_000), day), (Some(3_000), day));
}

fn raw(id: u8, parent: Option<u8>, object: &str, permissions: Permissions) -> CapabilityGrant {
    CapabilityGrant {
        capability_id: CapabilityId([id; 16]),
        grantor: ROOT,
        grantee: ALICE,
        resource: file(object),
        permissions,
        restrictions: None,
        parent: parent.map(|parent| CapabilityId([parent; 16])),
    }
}

#[test]
fn grants_that_contradict_the_fold_give_nothing_and_are_counted() {
    let mut holdings = Holdings::default();
    fold(&mut holdings, raw(1, None, "/a", READ));
    let before = holdings.clone();
    for (n, bad) in [
        raw(1, None, "/b", READ),
        raw(2, Some(9), "/a", READ),
        raw(2, Some(1), "/a", READ_ON),
        raw(2, Some(1), "/b", READ),
    ]
    .into_iter()
    .enumerate()
    {
        fold(&mut holdings, bad.clone());
        assert_eq!(holdings.ignored(), n as u64 + 1, "{bad:?}");
    }
    assert_eq!(held_by(&holdings, ALICE), held_by(&before, ALICE));
    assert_eq!(holdings.get(&CapabilityId([1; 16])), before.get(&CapabilityId([1; 16])));
    fold(&mut holdings, raw(2, Some(1), "/a", READ));
    assert_eq!((held_by(&holdings, ALICE), holdings.ignored()), (vec![1, 2], 4));
}

#[test]
fn a_list_holds_what_the_filter_selects_in_order_of_id() {
    let mut holdings = Holdings::default();
    for (id, object, who) in [(3, "/a", ALICE), (1, "/b", ALICE), (2, "/a", BOB)] {
        fold(&mut holdings, CapabilityGrant { grantee: who, ..raw(id, None, object, READ) });
    }
    let list = |holder: Option<IdentityId>, object: Option<&str>| -> Vec<u8> {
        let filter = Filter { holder, resource: object.map(file) };
        holdings.list(&filter).map(|granted| granted.grant.capability_id.0[0]).collect()
    };
    assert_eq!(list(None, None), [1, 2, 3]);
    assert_eq!(list(Some(ALICE), None), [1, 3]);
    assert_eq!(list(None, Some("/a")), [2, 3]);
    assert_eq!(list(Some(ALICE), Some("/a")), [3]);
    assert_eq!(list(Some(ROOT), None), [0; 0]);
}

/// covers: CAP-37
#[test]
fn genesis_brings_the_first_rights() {
    let nobody = base::PublicKey([0; 32]);
    let genesis = chain::payload::service::Genesis {
        version: 1,
        image_hash: Hash::ZERO,
        initial_capabilities: vec![raw(1, None, "/a", READ), raw(2, Some(1), "/a", READ)],
        genesis_time: NOW,
        node_name: "desk".to_owned(),
        node_key: nobody,
        sequencer_key: nobody,
        policy_key: nobody,
        identity_key: nobody,
        identities: vec![],
        admin: ROOT,
        admin_uid: 1000,
        rules: vec![],
    };
    let mut holdings = Holdings::default();
    holdings.apply(at(0), &Payload::Genesis(envelope(genesis)));
    assert_eq!((held_by(&holdings, ALICE), holdings.ignored()), (vec![1, 2], 0));
    assert_eq!(holdings.get(&CapabilityId([1; 16])).unwrap().created_at, at(0));
}

/// covers: CAP-31, CAP-37
#[test]
fn revoking_takes_what_was_derived_and_leaves_the_rest() {
    let mut holdings = Holdings::default();
    grant(&mut holdings, wish(1, ROOT, ALICE, READ_ON));
    grant(&mut holdings, wish(2, ALICE, BOB, READ_ON));
    grant(&mut holdings, wish(3, BOB, ROOT, READ));
    grant(&mut holdings, wish(4, ALICE, ROOT, READ));
    let before = holdings.clone();
    revoke(&mut holdings, 2);
    assert_eq!((held_by(&holdings, BOB), held_by(&holdings, ROOT)), (vec![], vec![4]));
    assert_eq!(held_by(&holdings, ALICE), [1]);
    assert_eq!(holdings.ignored(), 0);
    revoke(&mut holdings, 2);
    assert_eq!(holdings.ignored(), 1, "there is nothing to revoke twice");
    let child = before.get(&CapabilityId([3; 16])).unwrap().grant.clone();
    fold(&mut holdings, child);
    assert_eq!(held_by(&holdings, ROOT), [4], "a child of what is gone gives nothing");
}

/// covers: CAP-30, CAP-33
#[test]
fn only_the_grantor_or_a_holder_of_the_right_revokes() {
    let mut holdings = Holdings::default();
    grant(&mut holdings, wish(1, ALICE, BOB, READ));
    let id = CapabilityId([1; 16]);
    let check = |by: IdentityId, answers_to_policy_alone: bool, holds: bool, reason: &str| {
        check_revoke(&holdings, &id, Revoker { id: by, answers_to_policy_alone }, reason, |resource| {
            assert_eq!(*resource, file("/a"));
            holds
        })
        .map(|granted| granted.grant.capability_id)
    };
    for (by, is_admin, holds) in
        [(ALICE, false, false), (BOB, false, true), (ROOT, false, true), (ROOT, true, false)]
    {
        assert_eq!(check(by, is_admin, holds, ""), Ok(id));
    }
    assert_eq!(check(BOB, false, false, ""), Err(CapabilityError::CannotRevoke(id)));
    // A stranger learns no more than of an id that does not exist.
    assert_eq!(check(ROOT, false, false, ""), Err(CapabilityError::NotFound(id)));
    let unknown = CapabilityId([9; 16]);
    let by = Revoker { id: ROOT, answers_to_policy_alone: true };
    assert_eq!(
        check_revoke(&holdings, &unknown, by, "", |_| true).unwrap_err(),
        CapabilityError::NotFound(unknown)
    );
    assert_eq!(check(ALICE, false, false, &"x".repeat(REASON_BYTES_MAX)), Ok(id));
    let bytes = REASON_BYTES_MAX + 1;
    assert_eq!(check(ALICE, false, false, &"x".repeat(bytes)), Err(CapabilityError::Reason { bytes }));
}

fn any_permissions() -> impl Strategy<Value = Permissions> {
    any::<[bool; 5]>().prop_map(|[read, write, execute, delegate, revoke]| Permissions {
        read,
        write,
        execute,
        delegate,
        revoke,
    })
}

proptest! {
    /// covers: CAP-29
    ///
    /// Whoever asks for whatever: along every chain of what is granted, permissions only shrink, also when the log
    /// brings grants that no plan would have made.
    #[test]
    fn permissions_never_grow_along_a_chain(
        steps in prop::collection::vec((0_u8..4, 0_u8..4, any_permissions(), prop::option::of(0_u8..40)), 1..40)
    ) {
        let mut holdings = Holdings::default();
        grant(&mut holdings, wish(200, ROOT, IdentityId([0; 32]), Permissions { delegate: true, ..READ }));
        for (n, (from, to, permissions, forged)) in (0_u8..).zip(steps) {
            let wish = wish(n, IdentityId([from; 32]), IdentityId([to; 32]), permissions);
            let forged = forged.map(|parent| CapabilityGrant {
                capability_id: wish.capability,
                grantor: wish.grantor,
                grantee: wish.grantee,
                resource: wish.resource.clone(),
                permissions,
                restrictions: None,
                parent: Some(CapabilityId([parent; 16])),
            });
            let planned = plan_grant(&holdings, wish, true, false, NOW).ok();
            if let Some(grant) = forged.or(planned) {
                fold(&mut holdings, grant);
            }
        }
        for granted in holdings.list(&Filter::default()) {
            if let Some(parent) = granted.grant.parent {
                let parent = &holdings.get(&parent).expect("its parent is live").grant;
                prop_assert!(parent.permissions.contains(granted.grant.permissions));
                prop_assert_eq!(&parent.resource, &granted.grant.resource);
            }
        }
    }
}
