use std::collections::BTreeSet;

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
    holdings.apply(at(7), NOW, &Payload::CapabilityGrant(envelope(grant)));
}

fn revoke(holdings: &mut Holdings, capability: u8) {
    let body =
        CapabilityRevoke { capability: CapabilityId([capability; 16]), by: ROOT, reason: String::new() };
    holdings.apply(at(9), NOW, &Payload::CapabilityRevoke(envelope(body)));
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
    let filter = Filter { holder: Some(holder), ..Filter::default() };
    holdings.list(&filter).map(|granted| granted.grant.capability_id.0[0]).collect()
}

fn numbered(number: u32, object_id: &str) -> CapabilityGrant {
    let mut id = [9; 16];
    id.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    CapabilityGrant {
        capability_id: CapabilityId(id),
        grantor: ROOT,
        grantee: ALICE,
        resource: file(object_id),
        permissions: READ_ON,
        restrictions: None,
        parent: None,
    }
}

#[test]
fn what_every_service_must_remember_has_an_end() {
    let (mut many, mut long) = (Holdings::default(), Holdings::default());
    let fill = |holdings: &mut Holdings, from: u32, to: usize, name: &str| {
        (from..u32::try_from(to).unwrap()).for_each(|number| fold(holdings, numbered(number, name)));
    };
    let name = "n".repeat(1 << 11);
    fill(&mut many, 1, LIVE_MAX, "/a");
    fill(&mut long, 1, NAME_BYTES_MAX >> 11, &name);
    for (holdings, fits) in [(&mut many, "/a"), (&mut long, name.as_str())] {
        let one = Wish { resource: file(fits), ..wish(1, ROOT, ALICE, READ_ON) };
        let last = grant(holdings, one.clone());
        let on = Delegation {
            capability: CapabilityId([2; 16]),
            source: last.capability_id,
            by: ALICE,
            to: BOB,
            permissions: READ,
        };
        assert_eq!(plan(holdings, Wish { resource: file("/b"), ..one.clone() }), Err(CapabilityError::Full));
        assert_eq!(plan_delegation(holdings, on, true, NOW), Err(CapabilityError::Full));
        revoke(holdings, 1);
        assert!(plan(holdings, one).is_ok(), "what was taken back makes room");
    }
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
}

/// A root's wish with these limits, on its own.
fn limited(restrictions: Restrictions) -> Result<CapabilityGrant, CapabilityError> {
    plan(&Holdings::default(), Wish { restrictions: Some(restrictions), ..wish(1, ROOT, ALICE, READ) })
}

fn rated(count: u32, window_ns: u64) -> Restrictions {
    let rate = RateLimit { count, window: DurationNs(window_ns) };
    Restrictions { rate_limit: Some(rate), ..Restrictions::default() }
}

fn told(pairs: &[(&str, &str)]) -> Restrictions {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Restrictions { context: pairs.iter().map(pair).collect(), ..Restrictions::default() }
}

fn in_hours(from: u32, to: u32) -> Restrictions {
    let time = TimeRestriction { time_of_day: Some((from, to)), ..TimeRestriction::default() };
    Restrictions { time: Some(time), ..Restrictions::default() }
}

#[test]
fn rates_contexts_and_hours_have_limits() {
    let key = |bytes: usize| told(&[(&"k".repeat(bytes), "")]);
    let value = |bytes: usize| told(&[("k", &"v".repeat(bytes))]);
    let many = |pairs: usize| Restrictions {
        context: (0..pairs).map(|n| (n.to_string(), String::new())).collect(),
        ..Restrictions::default()
    };
    for good in [
        rated(1, 1),
        rated(RATE_COUNT_MAX, RATE_WINDOW_NS_MAX),
        in_hours(0, 86_399),
        in_hours(86_399, 0),
        key(1),
        key(CONTEXT_KEY_BYTES_MAX),
        value(CONTEXT_VALUE_BYTES_MAX),
        many(CONTEXT_PAIRS_MAX),
    ] {
        assert_eq!(limited(good.clone()).unwrap().restrictions, Some(good));
    }
    for bad in [
        rated(0, 1),
        rated(RATE_COUNT_MAX + 1, 1),
        rated(1, 0),
        rated(1, RATE_WINDOW_NS_MAX + 1),
        in_hours(5, 5),
        in_hours(0, 86_400),
        in_hours(86_400, 0),
        key(0),
        key(CONTEXT_KEY_BYTES_MAX + 1),
        value(CONTEXT_VALUE_BYTES_MAX + 1),
        many(CONTEXT_PAIRS_MAX + 1),
    ] {
        let refused = limited(bad.clone());
        assert!(matches!(refused, Err(CapabilityError::Restrictions(_))), "{bad:?}: {refused:?}");
    }
}

#[test]
fn so_many_rates_are_counted_and_no_more() {
    let mut holdings = Holdings::default();
    let id = |n: u16| CapabilityId([n.to_be_bytes(); 8].concat().try_into().unwrap());
    let wish =
        |n: u16| Wish { capability: id(n), restrictions: Some(rated(1, 1)), ..wish(0, ROOT, ALICE, READ_ON) };
    for n in 1..=u16::try_from(RATED_MAX).unwrap() {
        grant(&mut holdings, wish(n));
    }
    assert_eq!(holdings.rated(), RATED_MAX);
    assert_eq!(plan(&holdings, wish(5_000)), Err(CapabilityError::TooManyRates));
    let on = Delegation { capability: id(5_001), source: id(1), by: ALICE, to: BOB, permissions: READ };
    assert_eq!(plan_delegation(&holdings, on, true, NOW), Err(CapabilityError::TooManyRates));
    assert!(plan(&holdings, Wish { restrictions: None, ..wish(5_000) }).is_ok());
    let body = CapabilityRevoke { capability: id(1), by: ROOT, reason: String::new() };
    holdings.apply(at(9), NOW, &Payload::CapabilityRevoke(envelope(body)));
    assert_eq!(holdings.rated(), RATED_MAX - 1);
    assert!(plan(&holdings, wish(5_000)).is_ok());
}

fn on(capability: u8, source: u8, by: IdentityId, to: IdentityId, permissions: Permissions) -> Delegation {
    let id = |id: u8| CapabilityId([id; 16]);
    Delegation { capability: id(capability), source: id(source), by, to, permissions }
}

fn delegate(holdings: &Holdings, wish: Delegation) -> Result<CapabilityGrant, CapabilityError> {
    plan_delegation(holdings, wish, true, NOW)
}

fn pass(holdings: &mut Holdings, wish: Delegation) {
    let planned = delegate(holdings, wish).unwrap();
    fold(holdings, planned);
}

/// covers: CAP-15, CAP-24, CAP-25, CAP-26, CAP-28
#[test]
fn only_the_holder_delegates_a_part_with_the_limits_of_the_whole() {
    let mut holdings = Holdings::default();
    let limits = Restrictions { context: told(&[("room", "1")]).context, ..rated(2, 1_000) };
    grant(&mut holdings, Wish { restrictions: Some(limits.clone()), ..wish(1, ROOT, ALICE, READ_ON) });
    let passed = delegate(&holdings, on(2, 1, ALICE, BOB, READ)).unwrap();
    let expected = CapabilityGrant {
        capability_id: CapabilityId([2; 16]),
        grantor: ALICE,
        grantee: BOB,
        resource: file("/a"),
        permissions: READ,
        restrictions: Some(limits),
        parent: Some(CapabilityId([1; 16])),
    };
    assert_eq!(passed, expected);
    let unheld = Err(CapabilityError::NotHolder(CapabilityId([1; 16])));
    assert_eq!(delegate(&holdings, on(3, 1, BOB, BOB, READ)), unheld);
    assert_eq!(delegate(&holdings, on(3, 1, ROOT, BOB, READ)), unheld, "who granted it does not hold it");
    let unknown = Err(CapabilityError::NotHolder(CapabilityId([9; 16])));
    assert_eq!(
        delegate(&holdings, on(3, 9, ALICE, BOB, READ)),
        unknown,
        "nor does anybody what is not there"
    );
    let more = Permissions { write: true, ..READ };
    assert_eq!(delegate(&holdings, on(3, 1, ALICE, BOB, more)), Err(CapabilityError::CannotAmplify));
    assert_eq!(delegate(&holdings, on(3, 1, ALICE, BOB, NOTHING)), Err(CapabilityError::NoPermission));
    let gone = plan_delegation(&holdings, on(3, 1, ALICE, BOB, READ), false, NOW);
    assert_eq!(gone, Err(CapabilityError::UnknownIdentity(BOB)));
    fold(&mut holdings, passed);
    assert_eq!(delegate(&holdings, on(3, 2, BOB, ALICE, READ)), Err(CapabilityError::CannotDelegate));
    let ended = Some(NOW.saturating_add(1));
    grant(&mut holdings, Wish { expires_at: ended, ..wish(4, ROOT, ALICE, READ_ON) });
    assert!(delegate(&holdings, on(5, 4, ALICE, BOB, READ)).is_ok());
    let late = plan_delegation(&holdings, on(5, 4, ALICE, BOB, READ), true, NOW.saturating_add(1));
    assert!(matches!(late, Err(CapabilityError::Restrictions(_))), "what has expired is not passed on");
}

/// covers: CAP-18, CAP-33
#[test]
fn a_chain_leads_to_its_root_and_is_shown_to_whose_business_it_is() {
    let mut holdings = Holdings::default();
    grant(&mut holdings, wish(1, ROOT, ALICE, READ_ON));
    pass(&mut holdings, on(2, 1, ALICE, BOB, READ_ON));
    pass(&mut holdings, on(3, 2, BOB, BOB, READ));
    let chain = |id: u8, by, sees_all| -> Result<Vec<u8>, CapabilityError> {
        let id = CapabilityId([id; 16]);
        let links = check_chain(&holdings, &id, by, sees_all)?;
        Ok(links.map(|granted| granted.grant.capability_id.0[0]).collect())
    };
    assert_eq!(chain(3, BOB, false), Ok(vec![3, 2, 1]));
    assert_eq!(chain(2, ALICE, false), Ok(vec![2, 1]), "its grantor");
    assert_eq!(chain(3, ROOT, true), Ok(vec![3, 2, 1]));
    assert_eq!(chain(3, ALICE, false), Err(CapabilityError::NotFound(CapabilityId([3; 16]))));
    assert_eq!(chain(9, ALICE, false), Err(CapabilityError::NotFound(CapabilityId([9; 16]))));
}

#[test]
fn a_chain_is_so_long_and_no_longer() {
    let mut holdings = Holdings::default();
    grant(&mut holdings, wish(0, ROOT, ALICE, READ_ON));
    for n in 1..CHAIN_LENGTH_MAX {
        let (id, source) = (u8::try_from(n).unwrap(), u8::try_from(n - 1).unwrap());
        pass(&mut holdings, on(id, source, ALICE, ALICE, READ_ON));
    }
    let last = CapabilityId([255; 16]);
    assert_eq!(holdings.chain(&last).count(), CHAIN_LENGTH_MAX);
    let id = CapabilityId(*b"one more than so");
    let one_more = Delegation { capability: id, ..on(0, 255, ALICE, BOB, READ) };
    assert_eq!(delegate(&holdings, one_more), Err(CapabilityError::ChainLength));
}

#[test]
fn a_grant_out_of_ones_own_right_has_the_narrower_of_both_limits() {
    let mut holdings = Holdings::default();
    let source = Restrictions { context: told(&[("room", "1")]).context, ..rated(5, 100) };
    grant(&mut holdings, Wish { restrictions: Some(source.clone()), ..wish(1, ROOT, ALICE, READ_ON) });
    let passed = |asked: Option<Restrictions>| {
        plan(&holdings, Wish { restrictions: asked, ..wish(2, ALICE, BOB, READ) })
    };
    assert_eq!(passed(None).unwrap().restrictions, Some(source));
    let both = passed(Some(rated(9, 200))).unwrap().restrictions.unwrap();
    assert_eq!(both.rate_limit, rated(5, 200).rate_limit);
    let both = passed(Some(told(&[("door", "2")]))).unwrap().restrictions.unwrap();
    assert_eq!(both.context, told(&[("door", "2"), ("room", "1")]).context);
    let torn = passed(Some(told(&[("room", "2")])));
    assert!(matches!(torn, Err(CapabilityError::Restrictions(_))), "{torn:?}");
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
        let filter = Filter { holder, resource: object.map(file), after: None };
        holdings.list(&filter).map(|granted| granted.grant.capability_id.0[0]).collect()
    };
    assert_eq!(list(None, None), [1, 2, 3]);
    assert_eq!(list(Some(ALICE), None), [1, 3]);
    assert_eq!(list(None, Some("/a")), [2, 3]);
    assert_eq!(list(Some(ALICE), Some("/a")), [3]);
    assert_eq!(list(Some(ROOT), None), [0; 0]);
    let after = |holder: Option<IdentityId>, after: u8| -> Vec<u8> {
        let filter = Filter { holder, after: Some(CapabilityId([after; 16])), resource: None };
        holdings.list(&filter).map(|granted| granted.grant.capability_id.0[0]).collect()
    };
    assert_eq!((after(None, 1), after(None, 3), after(Some(ALICE), 1)), (vec![2, 3], vec![], vec![3]));
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
    holdings.apply(at(0), NOW, &Payload::Genesis(envelope(genesis)));
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

/// One step of a history: who asks for what; ids are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Grant {
        from: u8,
        to: u8,
        permissions: Permissions,
        limits: Option<u8>,
    },
    Delegate {
        source: u8,
        by: u8,
        to: u8,
        permissions: Permissions,
    },
    Revoke {
        root: u8,
    },
    /// A grant that no plan would have made.
    Forged {
        parent: u8,
        to: u8,
        permissions: Permissions,
        limits: Option<u8>,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let limits = || prop::option::of(0_u8..8);
    prop_oneof![
        (0_u8..4, 0_u8..4, any_permissions(), limits())
            .prop_map(|(from, to, permissions, limits)| Step::Grant { from, to, permissions, limits }),
        (0_u8..60, 0_u8..4, 0_u8..4, any_permissions())
            .prop_map(|(source, by, to, permissions)| Step::Delegate { source, by, to, permissions }),
        (0_u8..60).prop_map(|root| Step::Revoke { root }),
        (0_u8..60, 0_u8..4, any_permissions(), limits())
            .prop_map(|(parent, to, permissions, limits)| Step::Forged { parent, to, permissions, limits }),
    ]
}

/// Eight kinds of limits, some within others.
fn some_limits(kind: u8) -> Restrictions {
    let mut limits = if kind & 1 == 1 { rated(2 + u32::from(kind), 50) } else { Restrictions::default() };
    if kind & 2 == 2 {
        let not_after = Some(AxiomTime(5_000 + u64::from(kind)));
        limits.time = Some(TimeRestriction { not_after, ..TimeRestriction::default() });
    }
    if kind & 4 == 4 {
        limits.context = told(&[("room", "1")]).context;
    }
    limits
}

fn below(holdings: &Holdings, root: CapabilityId) -> BTreeSet<CapabilityId> {
    let falls = |id: &CapabilityId| holdings.chain(id).any(|link| link.grant.capability_id == root);
    ids(holdings).into_iter().filter(falls).collect()
}

fn ids(holdings: &Holdings) -> BTreeSet<CapabilityId> {
    holdings.list(&Filter::default()).map(|granted| granted.grant.capability_id).collect()
}

proptest! {
    /// covers: CAP-29, CAP-31
    ///
    /// Whoever asks for whatever: along every chain permissions only shrink and limits only grow narrower, also when the
    /// log brings grants that no plan would have made; a revocation takes exactly what stands below its root.
    #[test]
    fn no_history_amplifies_and_a_revocation_takes_a_subtree(
        steps in prop::collection::vec(any_step(), 1..60)
    ) {
        let who = |id: u8| IdentityId([id; 32]);
        let mut holdings = Holdings::default();
        for n in 0..4 {
            let wish = wish(200 + n, ROOT, who(n), Permissions { delegate: true, write: n > 1, ..READ });
            grant(&mut holdings, Wish { restrictions: Some(some_limits(n * 2)), ..wish });
        }
        // The first four have ids above those of all steps; a step names the live one at its place.
        let named = |holdings: &Holdings, place: u8| {
            let live: Vec<CapabilityId> = ids(holdings).into_iter().collect();
            live.get(usize::from(place) % live.len().max(1)).copied().unwrap_or(CapabilityId([255; 16]))
        };
        for (n, step) in (0_u8..).zip(steps) {
            let new = CapabilityId([n; 16]);
            match step {
                Step::Grant { from, to, permissions, limits } => {
                    let restrictions = limits.map(some_limits);
                    let wish = Wish { restrictions, ..wish(n, who(from), who(to), permissions) };
                    if let Ok(grant) = plan_grant(&holdings, wish, true, false, NOW) {
                        // Who holds nothing there makes a right from nothing, if policy lets it; here it does not.
                        if grant.parent.is_some() {
                            fold(&mut holdings, grant);
                        }
                    }
                }
                Step::Delegate { source, by, to, permissions } => {
                    let source = named(&holdings, source);
                    let wish = Delegation { capability: new, source, by: who(by), to: who(to), permissions };
                    if let Ok(grant) = plan_delegation(&holdings, wish, true, NOW) {
                        fold(&mut holdings, grant);
                        prop_assert!(holdings.get(&new).is_some(), "what was planned is taken in");
                    }
                }
                Step::Revoke { root } => {
                    let root = named(&holdings, root);
                    let (before, gone) = (ids(&holdings), below(&holdings, root));
                    let body = CapabilityRevoke { capability: root, by: ROOT, reason: String::new() };
                    holdings.apply(at(9), NOW, &Payload::CapabilityRevoke(envelope(body)));
                    let left: BTreeSet<CapabilityId> = before.difference(&gone).copied().collect();
                    prop_assert_eq!(ids(&holdings), left);
                }
                Step::Forged { parent, to, permissions, limits } => {
                    let parent = Some(named(&holdings, parent));
                    let forged = CapabilityGrant { capability_id: new, grantee: who(to), permissions, parent,
                        restrictions: limits.map(some_limits), ..raw(n, None, "/a", permissions) };
                    fold(&mut holdings, forged);
                }
            }
        }
        let mut rated = 0;
        for granted in holdings.list(&Filter::default()) {
            let grant = &granted.grant;
            rated += usize::from(grant.restrictions.as_ref().is_some_and(|all| all.rate_limit.is_some()));
            if let Some(parent) = grant.parent {
                let parent = &holdings.get(&parent).expect("its parent is live").grant;
                prop_assert!(parent.permissions.contains(grant.permissions));
                prop_assert_eq!(&parent.resource, &grant.resource);
                let free = Restrictions::default();
                let (own, theirs) = (grant.restrictions.as_ref(), parent.restrictions.as_ref());
                prop_assert!(own.unwrap_or(&free).is_within(theirs.unwrap_or(&free)));
            }
        }
        prop_assert_eq!(holdings.rated(), rated);
    }
}

fn step(holdings: &mut Holdings, number: u8) {
    let parent = (!number.is_multiple_of(3)).then(|| CapabilityId([number / 3 * 3; 16]));
    let granted = CapabilityGrant {
        capability_id: CapabilityId([number; 16]),
        grantor: ROOT,
        grantee: IdentityId([number % 5; 32]),
        resource: file("/a"),
        permissions: READ_ON,
        restrictions: None,
        parent,
    };
    match number % 7 {
        6 => revoke(holdings, number / 2),
        _ => fold(holdings, granted),
    }
}

#[test]
fn holdings_that_were_written_down_anywhere_go_on_to_the_same_bytes() {
    let mut whole = Holdings::default();
    (0..60).for_each(|number| step(&mut whole, number));
    for cut in 0..=60 {
        let mut begun = Holdings::default();
        (0..cut).for_each(|number| step(&mut begun, number));
        let mut resumed = Holdings::restore(&begun.save()).unwrap();
        (cut..60).for_each(|number| step(&mut resumed, number));
        assert_eq!(resumed.save(), whole.save(), "cut at {cut}");
        let counts = |holdings: &Holdings| (holdings.live(), holdings.name_bytes(), holdings.rated());
        assert_eq!(counts(&resumed), counts(&whole), "cut at {cut}");
    }
    let hash = Hash::of(&whole.save()).to_string();
    assert_eq!(
        hash, "blake3:1a57d61ae0f5d56613e7184ce6c32a3e23b3b4757aed9c647f12bf6f6183165d",
        "a fold that changes has another FOLD_VERSION"
    );
    assert!(whole.live() > 10 && whole.ignored() > 0);
}
