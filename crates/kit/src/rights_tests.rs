use std::collections::BTreeMap;

use chain::payload::capability::{ObjectType, RateLimit, TimeRestriction};
use proptest::prelude::*;

use super::*;

const NOW: AxiomTime = AxiomTime(1_000);

fn id(byte: u8) -> CapabilityId {
    CapabilityId([byte; 16])
}

fn person(byte: u8) -> IdentityId {
    IdentityId([byte; 32])
}

fn object(byte: u8) -> Resource {
    let object_type = if byte.is_multiple_of(2) { ObjectType::File } else { ObjectType::Device };
    Resource { object_type, object_id: format!("/{}", byte / 2) }
}

fn permissions(bits: u8) -> Permissions {
    Permissions { read: bits & 1 != 0, write: bits & 2 != 0, ..Permissions::default() }
}

fn restrictions(kind: u8) -> Option<Restrictions> {
    let until = |end| TimeRestriction { not_after: Some(AxiomTime(end)), ..TimeRestriction::default() };
    match kind {
        0 => Some(Restrictions { time: Some(until(500)), ..Restrictions::default() }),
        1 => Some(Restrictions { time: Some(until(2_000)), ..Restrictions::default() }),
        2 => {
            let rate = RateLimit { count: 1, window: base::DurationNs(1) };
            Some(Restrictions { rate_limit: Some(rate), ..Restrictions::default() })
        }
        _ => None,
    }
}

/// The same in the plainest way.
#[derive(Default)]
struct Plain(BTreeMap<CapabilityId, CapabilityGrant>);

impl Plain {
    fn grant(&mut self, grant: &CapabilityGrant) {
        let within = |parent| self.0.get(&parent).is_some_and(|source| grant.is_within(source));
        if grant.parent.is_none_or(within) {
            self.0.entry(grant.capability_id).or_insert_with(|| grant.clone());
        }
    }

    fn revoke(&mut self, root: CapabilityId) {
        let below: Vec<_> = self.0.values().filter(|grant| grant.parent == Some(root)).cloned().collect();
        self.0.remove(&root);
        below.iter().for_each(|grant| self.revoke(grant.capability_id));
    }

    fn is_valid(grant: &CapabilityGrant) -> bool {
        grant
            .restrictions
            .as_ref()
            .is_none_or(|own| !own.need_check() && own.time.as_ref().is_none_or(|time| time.admits(NOW)))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Grant(Box<CapabilityGrant>),
    Revoke(CapabilityId),
}

fn step() -> impl Strategy<Value = Step> {
    let grant = (0..12_u8, 0..3_u8, 0..4_u8, 1..4_u8, 0..6_u8, proptest::option::of(0..12_u8));
    prop_oneof![
        4 => grant.prop_map(|(of, to, on, bits, kind, from)| Step::Grant(Box::new(CapabilityGrant {
            capability_id: id(of),
            grantor: person(9),
            grantee: person(to),
            resource: object(on),
            permissions: permissions(bits),
            restrictions: restrictions(kind),
            parent: from.map(id),
        }))),
        1 => (0..12_u8).prop_map(|of| Step::Revoke(id(of))),
    ]
}

proptest! {
    /// covers: CAP-29, CAP-31
    #[test]
    fn the_fold_answers_as_the_plainest_one_does(
        steps in proptest::collection::vec(step(), 0..60),
        restored in any::<bool>(),
    ) {
        let (mut rights, mut plain) = (Rights::default(), Plain::default());
        for step in steps {
            match step {
                Step::Grant(grant) => {
                    rights.grant(&grant);
                    plain.grant(&grant);
                }
                Step::Revoke(id) => {
                    rights.revoke(id);
                    plain.revoke(id);
                }
            }
        }
        if restored {
            // In the order of their ids, which is not that in which they were granted.
            rights = Rights::of(plain.0.values());
        }
        for number in 0..12 {
            let expected = plain.0.get(&id(number));
            prop_assert_eq!(rights.holder(&id(number)), expected.map(|grant| grant.grantee));
            prop_assert_eq!(rights.is_valid_now(&id(number), NOW), expected.is_some_and(Plain::is_valid));
        }
        for (who, on) in (0..3).flat_map(|who| (0..4).map(move |on| (person(who), object(on)))) {
            let is_here = |grant: &&CapabilityGrant| grant.grantee == who && grant.resource == on;
            let mut held = rights.held_on(&who, &on);
            held.sort_unstable();
            let expected: Vec<_> =
                plain.0.values().filter(is_here).map(|grant| grant.capability_id).collect();
            prop_assert_eq!(held, expected);
            for asked in (1..4).map(permissions) {
                let expected = plain.0.values().filter(is_here)
                    .any(|grant| grant.permissions.contains(asked) && Plain::is_valid(grant));
                prop_assert_eq!(rights.permit(&who, &on, asked, NOW), expected);
            }
        }
        let (live, places) = (rights.by_id.len(), rights.places.values());
        prop_assert_eq!(places.map(|at| at.as_slice().len()).sum::<usize>(), live, "nothing is left lying");
        prop_assert_eq!(rights.all.len(), live + rights.free.len());
    }
}

fn apply(rights: &mut Rights, step: &Step) {
    match step {
        Step::Grant(grant) => rights.grant(grant),
        Step::Revoke(id) => rights.revoke(*id),
    }
}

fn bytes(rights: &Rights) -> Vec<u8> {
    base::cbor::encode(&rights.save())
}

proptest! {
    #[test]
    fn rights_that_were_written_down_go_on_as_if_nothing_had_been(
        steps in proptest::collection::vec(step(), 0..60),
        cut in 0..60_usize,
    ) {
        let (mut whole, mut resumed) = (Rights::with_secret((1, 2)), Rights::with_secret((1, 2)));
        for (number, step) in steps.iter().enumerate() {
            if number == cut {
                let saved = base::cbor::decode::<SavedRights>(&bytes(&resumed)).unwrap();
                resumed = saved.restore().unwrap();
            }
            apply(&mut whole, step);
            apply(&mut resumed, step);
        }
        prop_assert_eq!(bytes(&resumed), bytes(&whole));
        let (live, places) = (resumed.by_id.len(), resumed.places.values());
        prop_assert_eq!(places.map(|at| at.as_slice().len()).sum::<usize>(), live);
        for (who, on) in (0..3).flat_map(|who| (0..4).map(move |on| (person(who), object(on)))) {
            for asked in (1..4).map(permissions) {
                prop_assert_eq!(resumed.permit(&who, &on, asked, NOW), whole.permit(&who, &on, asked, NOW));
            }
        }
    }
}

#[test]
fn holder_name_and_type_do_not_run_into_one_another() {
    let rights = Rights::default();
    let named = |object_id: &str, object_type| Resource { object_type, object_id: object_id.to_owned() };
    let mut places = vec![
        rights.place(Some(&person(b'a')), &named("a", ObjectType::File)),
        rights.place(Some(&person(b'a')), &named("aa", ObjectType::File)),
        rights.place(Some(&person(b'a')), &named("a", ObjectType::Device)),
        rights.place(None, &named("a", ObjectType::File)),
        rights.place(None, &named(&"a".repeat(33), ObjectType::File)),
        Rights::default().place(None, &named("a", ObjectType::File)),
    ];
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 6);
}
