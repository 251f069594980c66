//! Principals: chains of parents, and what a second creation or an illegal change does.

use base::{KeyPath, Sequence};
use chain::payload::{
    Payload,
    identity::{IdentityCreated, IdentityStatus, IdentityType},
    policy::{IdentityMatcher, PolicyCondition},
};

use super::support::{ALICE, BOB, NOW, ROOT, allow, at, born, envelope, id, read, state, status};
use crate::core::{Layer, PolicyState, decide, limits::IDENTITY_DEPTH_MAX};

fn create(state: &mut PolicyState, new: IdentityCreated) {
    let next = state.position().unwrap_or(Sequence(0)).0 + 1;
    state.apply(at(next), &Payload::IdentityCreated(envelope(new)));
}

/// covers: POL-44
#[test]
fn groups_reach_as_deep_as_a_chain_may_be_and_beyond_it_they_cannot_be_told() {
    let in_root = PolicyCondition::Identity(IdentityMatcher::Group(id(ROOT)));
    let mut state = state(vec![allow(in_root)]);
    let (mut parent, first) = (ROOT, 60);
    for n in first..first + IDENTITY_DEPTH_MAX as u8 + 1 {
        let path = format!("/orbital/chain/{n}");
        create(&mut state, born(n, &format!("chain{n}"), IdentityType::Organization, Some(parent), &path));
        parent = n;
        // Root itself is the first of the chain.
        let depth = usize::from(n - first) + 2;
        let layer = decide(&state, &read(n, "/a"), NOW).layer;
        assert_eq!(
            layer,
            if depth <= IDENTITY_DEPTH_MAX { Layer::Rule } else { Layer::Evaluation },
            "{depth}"
        );
        assert_eq!(state.identities().get(&id(n)).unwrap().lineage.len(), depth.min(IDENTITY_DEPTH_MAX));
    }
}

#[test]
fn the_first_creation_of_an_id_and_the_first_holder_of_a_path_stay() {
    let mut state = state(vec![]);
    let (before, count) = (state.state_hash(), state.identities().len());
    create(&mut state, born(BOB, "mallory", IdentityType::System, None, "/orbital/system/mallory"));
    assert_eq!((state.state_hash(), state.identities().len()), (before, count));
    assert_eq!(state.identities().get(&id(BOB)).unwrap().name, "bob");
    create(&mut state, born(60, "mallory", IdentityType::User, Some(ROOT), "/orbital/users/bob"));
    assert_ne!(state.state_hash(), before);
    let path = KeyPath::parse("/orbital/users/bob").unwrap();
    assert_eq!(state.identities().by_key_path(&path).unwrap().id, id(BOB));
    assert!(!state.identities().is_empty() && PolicyState::default().identities().is_empty());
}

#[test]
fn every_change_of_a_status_changes_the_hash_and_an_illegal_one_nothing() {
    use IdentityStatus::{Active, Revoked, Suspended};
    let mut state = state(vec![]);
    let mut seen = vec![state.state_hash()];
    for (sequence, new, changes) in
        [(1, Active, false), (2, Suspended, true), (3, Revoked, true), (4, Active, false)]
    {
        state.apply(at(sequence), &status(ALICE, Active, new));
        assert_eq!(!seen.contains(&state.state_hash()), changes, "{new:?}");
        seen.push(state.state_hash());
    }
    assert_eq!(state.identities().get(&id(ALICE)).unwrap().status, Revoked);
}
