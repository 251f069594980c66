//! What is held while a request is under way, and when it is let go.

use super::*;

fn suspend(core: &mut IdentityCore, id: RequestId) -> Vec<Effect> {
    let request = status_request(core, "admin", IdentityStatus::Suspended);
    let root = id_of(core, "orbital.system");
    core.step(NOW, Event::UpdateStatus { id, request: UpdateStatusRequest { requestor: root, ..request } })
}

fn is_busy(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::Reply { result: Err(IdentityError::Busy(1)), .. }])
}

#[test]
fn an_identity_is_changed_by_one_request_until_its_entry_comes_back() {
    let mut core = core();
    let act = only_act(&suspend(&mut core, ID));
    assert!(is_busy(&suspend(&mut core, RequestId(2))));
    core.step(NOW, Event::Acted { id: ID, result: Ok(at(7)) });
    assert!(is_busy(&suspend(&mut core, RequestId(2))), "committed, but not folded yet");
    fold(&mut core, 7, NOW, &act.proposal);
    let again = only_error(&suspend(&mut core, ID));
    assert_eq!(again, IdentityError::StatusChange(IdentityStatus::Suspended, IdentityStatus::Suspended));
    assert_eq!(core.pending(), 0);
}

#[test]
fn a_change_that_was_refused_leaves_the_identity_free() {
    let mut core = core();
    only_act(&suspend(&mut core, ID));
    let failure = ActFailure::Denied(Sequence(5));
    let refused = core.step(NOW, Event::Acted { id: ID, result: Err(failure) });
    assert_eq!(only_error(&refused), IdentityError::Act(failure));
    only_act(&suspend(&mut core, ID));
}

#[test]
fn a_token_in_the_log_does_not_free_an_identity_that_is_being_changed() {
    let mut core = core();
    only_act(&suspend(&mut core, ID));
    let change = IdentityChange::AuthenticationFailed {
        channel: CHANNEL.to_owned(),
        reason: "x".to_owned(),
        credential: None,
    };
    let identity = id_of(&core, "admin");
    fold(&mut core, 7, NOW, &Proposal::Updated(IdentityUpdated { identity, change }));
    assert!(is_busy(&suspend(&mut core, RequestId(2))));
}

#[test]
fn a_key_path_is_held_like_a_name() {
    let mut core = core();
    let path = KeyPath::parse("/orbital/system/x").unwrap();
    let mut first = request(&core, "alice", IdentityType::User, "orbital.system");
    first.key_path = Some(path.clone());
    let second = CreateIdentityRequest { name: "bob".to_owned(), ..first.clone() };
    core.step(NOW, Event::Create { id: RequestId(2), request: first });
    assert_eq!(refused(&mut core, second.clone()), IdentityError::KeyTaken);
    core.step(NOW, Event::KeyDerived { id: RequestId(2), result: Err("locked".to_owned()) });
    assert_eq!(created(&mut core, second.clone()).key_path, path);
    let third = CreateIdentityRequest { name: "carol".to_owned(), ..second };
    assert_eq!(refused(&mut core, third), IdentityError::KeyTaken, "recorded");
}

#[test]
fn what_changed_while_keys_was_asked_refuses() {
    let ask = |core: &mut IdentityCore, parent: &str| {
        let request = request(core, "alice", IdentityType::User, parent);
        let root = id_of(core, "orbital.system");
        core.step(
            NOW,
            Event::Create { id: ID, request: CreateIdentityRequest { requestor: root, ..request } },
        );
    };
    let mut core = core();
    ask(&mut core, "admin");
    let admin = core.registry().find("admin").unwrap().clone();
    let taken = core.step(NOW, Event::KeyDerived { id: ID, result: Ok(admin.public_key) });
    assert_eq!(only_error(&taken), IdentityError::KeyTaken);
    ask(&mut core, "admin");
    let change = IdentityChange::Status {
        old: IdentityStatus::Active,
        new: IdentityStatus::Suspended,
        by: admin.id,
        reason: String::new(),
    };
    fold(&mut core, 7, NOW, &Proposal::Updated(IdentityUpdated { identity: admin.id, change }));
    let orphaned = core.step(NOW, Event::KeyDerived { id: ID, result: Ok(PublicKey([3; 32])) });
    assert_eq!(only_error(&orphaned), IdentityError::NotActive(admin.id));
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let mut core = core();
    let acted = |id| Event::Acted { id, result: Ok(at(7)) };
    let derived = |id| Event::KeyDerived { id, result: Ok(PublicKey([3; 32])) };
    assert!(core.step(NOW, acted(ID)).is_empty() && core.step(NOW, derived(ID)).is_empty());
    let request = request(&core, "alice", IdentityType::User, "orbital.system");
    core.step(NOW, Event::Create { id: ID, request });
    assert!(core.step(NOW, acted(ID)).is_empty(), "keys was asked, not policy");
    only_act(&core.step(NOW, derived(ID)));
    assert!(core.step(NOW, derived(ID)).is_empty(), "policy was asked, not keys");
    assert_eq!(core.pending(), 1);
    assert_eq!(core.step(NOW, acted(ID)).len(), 1);
    assert_eq!(core.pending(), 0);
}

#[test]
fn a_request_id_in_use_is_not_used_again() {
    let mut core = core();
    only_act(&suspend(&mut core, ID));
    let request = request(&core, "alice", IdentityType::User, "orbital.system");
    assert_eq!(refused(&mut core, request), IdentityError::Busy(PENDING_MAX));
}
