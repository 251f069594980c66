//! A state that was written down decides as if nothing had been, and goes on to the same bytes.

use std::sync::Arc;

use base::{AxiomTime, DurationNs, Hash, Sequence};
use chain::payload::{
    identity::{IdentityStatus, IdentityType},
    policy::{PolicyCondition, PolicyEffect, PolicyRule},
};
use minicbor::bytes::ByteVec;

use super::support::{
    ALICE, BOB, NOW, ROOT, SECOND, added, allow, at, born, envelope, genesis, read, removed, rule, status,
};
use crate::core::{PolicyState, StateError, Used, evaluate};

fn limited(id: &str, count: u32) -> PolicyRule {
    rule(id, 200, PolicyEffect::Allow, PolicyCondition::RateLimit { count, window: DurationNs(60 * SECOND) })
}

fn time(number: u64) -> AxiomTime {
    AxiomTime(NOW.0 + number * 3 * SECOND)
}

/// Decisions of two people, most of them by rules that count; some are used; rules and people come and go.
fn step(state: &mut PolicyState, number: u64) {
    let who = if number.is_multiple_of(3) { ALICE } else { BOB };
    let name = format!("r{}", number / 8);
    let payload = match number % 8 {
        0 => added(limited(&name, 4)),
        5 if number > 10 => removed(&format!("r{}", number / 8 - 1)),
        6 => {
            let (n, path) = (100 + (number / 8) as u8, format!("/orbital/users/u{number}"));
            let kind = IdentityType::User;
            let parent = if number > 20 { Some(ROOT) } else { Some(250) };
            let created = born(n, &format!("u{number}"), kind, parent, &path);
            chain::payload::Payload::IdentityCreated(envelope(created))
        }
        7 if number == 7 => status(BOB, IdentityStatus::Active, IdentityStatus::Suspended),
        7 if number == 15 => status(BOB, IdentityStatus::Suspended, IdentityStatus::Active),
        kind => {
            let request = read(who, &format!("/f{}", number % 5));
            let body = evaluate(state, &request, time(number)).unwrap();
            if state.advance(at(number)) {
                state.fold_decision(Some(at(number)), &Arc::new(body));
            }
            if kind == 2 {
                let used = Used { payload: Hash::of(b"payload"), entry: Some(at(number)) };
                state.use_up(&request.hash(), used);
            }
            return;
        }
    };
    state.apply_entry(at(number), &payload, b"payload");
}

fn begun(entries: u64) -> PolicyState {
    let mut state = PolicyState::default();
    let rules = vec![allow(PolicyCondition::Always), limited("first", 2)];
    state.apply(at(0), &genesis(rules));
    (1..entries).for_each(|number| step(&mut state, number));
    state
}

/// covers: AX-59
#[test]
fn a_state_that_was_written_down_anywhere_goes_on_to_the_same_bytes_and_decisions() {
    const ENTRIES: u64 = 48;
    let whole = begun(ENTRIES);
    for cut in 1..=ENTRIES {
        let mut resumed = PolicyState::restore(&begun(cut).save().unwrap()).unwrap();
        assert_eq!(resumed.last(), Some(at(cut - 1)));
        (cut..ENTRIES).for_each(|number| step(&mut resumed, number));
        assert_eq!(resumed.save(), whole.save(), "cut at {cut}");
        assert_eq!((resumed.state_hash(), resumed.rates()), (whole.state_hash(), whole.rates()));
        for request in [read(ALICE, "/f1"), read(BOB, "/f2"), read(101, "/f3")] {
            let decide = |state: &PolicyState| evaluate(state, &request, time(ENTRIES));
            assert_eq!(decide(&resumed), decide(&whole), "cut at {cut}");
        }
        // What byte equality cannot see, because neither side would have it.
        let remembered = |state: &PolicyState| {
            let requests = [ALICE, BOB].into_iter().flat_map(|who| (0..5).map(move |n| (who, n)));
            let known =
                |(who, n): (u8, u8)| state.recent().get(&read(who, &format!("/f{n}")).hash()).cloned();
            let of: Vec<_> = (0..ENTRIES).map(|number| state.recent().request_of(Sequence(number))).collect();
            format!("{:?} {of:?}", requests.map(known).collect::<Vec<_>>())
        };
        assert_eq!(remembered(&resumed), remembered(&whole), "cut at {cut}");
    }
    let hash = Hash::of(&whole.save().unwrap()).to_string();
    assert_eq!(
        hash, "blake3:cdf915894eb9e1f21f108cb1490fb4607f3e02d20133e7436fcab939077d98fc",
        "a fold that changes has another FOLD_VERSION"
    );
    assert!(whole.rates().events() > 3 && whole.rules().len() > 2);
}

#[test]
fn a_state_whose_rules_were_exchanged_is_refused() {
    assert!(PolicyState::default().save().is_none(), "nothing is folded");
    let bytes = begun(20).save().unwrap();
    let mut fields: Vec<ByteVec> = Vec::new();
    let mut decoder = minicbor::Decoder::new(&bytes);
    for _ in 0..decoder.array().unwrap().unwrap() {
        let from = decoder.position();
        decoder.skip().unwrap();
        fields.push(bytes[from..decoder.position()].to_vec().into());
    }
    let other = begun(8).save().unwrap();
    let mut decoder = minicbor::Decoder::new(&other);
    decoder.array().unwrap();
    decoder.skip().unwrap();
    decoder.skip().unwrap();
    let from = decoder.position();
    decoder.skip().unwrap();
    fields[2] = other[from..decoder.position()].to_vec().into();
    let mixed = [vec![0x87], fields.iter().flat_map(|field| field.to_vec()).collect()].concat();
    assert!(matches!(PolicyState::restore(&mixed), Err(StateError::Hash)));
    assert!(matches!(PolicyState::restore(&bytes[1..]), Err(StateError::Form(_))));
}
