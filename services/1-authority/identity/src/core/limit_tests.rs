//! Tokens: their limits, and when they are forgotten.

use kit::token::ScopeAction;

use super::*;

fn ask(core: &mut IdentityCore, id: RequestId, change: impl Fn(&mut IssueTokenRequest)) -> Vec<Effect> {
    let mut request = token_request(core, None);
    change(&mut request);
    core.step(NOW, Event::IssueToken { id, request })
}

#[test]
fn channel_and_scope_of_a_token_are_bounded() {
    let mut core = core();
    for (bytes, legal) in [(0, false), (1, true), (CHANNEL_BYTES_MAX, true), (CHANNEL_BYTES_MAX + 1, false)] {
        let effects = ask(&mut core, ID, |request| request.channel = "c".repeat(bytes));
        assert_eq!(matches!(effects[..], [Effect::Act { .. }]), legal, "{bytes}");
        core.step(NOW, Event::Acted { id: ID, result: Err(ActFailure::NotCommitted) });
    }
    let nothing = TokenScope { actions: vec![], resources: vec!["**".to_owned()] };
    let effects = ask(&mut core, ID, |request| request.scope = nothing.clone());
    assert!(matches!(only_error(&effects), IdentityError::Token(_)));
    let everything = TokenScope { actions: vec![ScopeAction::Any], ..nothing };
    only_act(&ask(&mut core, ID, |request| request.scope = everything.clone()));
}

#[test]
fn a_reason_may_have_so_many_bytes() {
    let mut core = core();
    let mut request = status_request(&core, "orbital.services.network", IdentityStatus::Suspended);
    request.reason = "x".repeat(REASON_BYTES_MAX);
    only_act(&core.step(NOW, Event::UpdateStatus { id: ID, request }));
}

fn token_entry(core: &IdentityCore, n: u64, expires_at: AxiomTime) -> Proposal {
    let mut token = TokenId([0; 16]);
    token.0[..8].copy_from_slice(&n.to_be_bytes());
    let change = IdentityChange::TokenIssued { token, channel: CHANNEL.to_owned(), expires_at };
    Proposal::Updated(IdentityUpdated { identity: id_of(core, "admin"), change })
}

#[test]
fn a_token_is_known_until_its_time_is_over() {
    let mut core = core();
    let end = NOW.saturating_add(1000);
    let entry = token_entry(&core, 0, end);
    fold(&mut core, 7, NOW, &entry);
    let owner = |core: &IdentityCore| core.registry().token_owner(&TokenId([0; 16]));
    assert_eq!((owner(&core), core.registry().tokens()), (Some(id_of(&core, "admin")), 1));
    let other = token_entry(&core, 1, end.saturating_add(1000));
    fold(&mut core, 8, AxiomTime(end.0 - 1), &other);
    assert_eq!((owner(&core).is_some(), core.registry().tokens()), (true, 2));
    let third = token_entry(&core, 2, end.saturating_add(1000));
    fold(&mut core, 9, end, &third);
    assert_eq!((owner(&core), core.registry().tokens()), (None, 2));
    assert_eq!(core.registry().ignored(), 0);
}

#[test]
fn a_token_recorded_twice_and_a_revocation_of_none_are_counted_as_contradictions() {
    let mut core = core();
    let entry = token_entry(&core, 0, NOW.saturating_add(1000));
    fold(&mut core, 7, NOW, &entry);
    fold(&mut core, 8, NOW, &entry);
    assert_eq!((core.registry().ignored(), core.registry().tokens()), (1, 1));
    let identity = id_of(&core, "admin");
    let change = IdentityChange::TokenRevoked { token: TokenId([0; 16]), by: identity };
    let revoked = Proposal::Updated(IdentityUpdated { identity, change });
    fold(&mut core, 9, NOW, &revoked);
    assert_eq!((core.registry().ignored(), core.registry().tokens()), (1, 0));
    fold(&mut core, 10, NOW, &revoked);
    assert_eq!(core.registry().ignored(), 2);
}

#[test]
fn tokens_are_bounded_with_those_that_are_being_issued() {
    let mut core = core();
    let end = NOW.saturating_add(1000);
    for n in 1..TOKENS_MAX as u64 {
        let entry = token_entry(&core, n, end);
        fold(&mut core, 7, NOW, &entry);
    }
    only_act(&ask(&mut core, ID, |_| {}));
    let full = ask(&mut core, RequestId(2), |_| {});
    assert!(matches!(full[..], [Effect::Reply { result: Err(IdentityError::Busy(TOKENS_MAX)), .. }]));
    core.step(NOW, Event::Acted { id: ID, result: Err(ActFailure::NotCommitted) });
    only_act(&ask(&mut core, ID, |_| {}));
}
