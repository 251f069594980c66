//! Credentials and logins at their limits, and while others are under way.

use super::*;

fn add(core: &mut IdentityCore, id: u64, request: AddCredentialRequest) -> Result<Act, IdentityError> {
    outcome(&core.step(NOW, Event::AddCredential { id: RequestId(id), request }))
}

/// With a credential id of its own.
fn other(core: &IdentityCore, n: u8, kind: NewCredential) -> AddCredentialRequest {
    AddCredentialRequest { credential: CredentialId([n; 16]), ..add_request(core, kind) }
}

/// covers: IDN-22, IDN-31
#[test]
fn no_credential_outlives_the_api_key_that_made_it() {
    let everything = || vec![permission(None, "**")];
    let mut core = with(api_key(everything(), Some(1_000)));
    for (n, (kind, taken)) in [
        (api_key(everything(), Some(999)), true),
        (api_key(everything(), Some(1_000)), true),
        (api_key(everything(), Some(1_001)), false),
        (api_key(everything(), None), false),
        (recovery_key(), false),
    ]
    .into_iter()
    .enumerate()
    {
        let made = other(&core, 20 + n as u8, kind);
        let by_key =
            AddCredentialRequest { bound: Some(TokenScope::default()), proved_by: Some(CREDENTIAL), ..made };
        let refusal = add(&mut core, 20 + n as u64, by_key).err();
        assert_eq!(refusal, (!taken).then_some(IdentityError::WiderThanToken), "{n}");
    }
    // A key without an end bounds nobody.
    let mut core = with(api_key(everything(), None));
    let made = other(&core, 30, recovery_key());
    let by_key =
        AddCredentialRequest { bound: Some(TokenScope::default()), proved_by: Some(CREDENTIAL), ..made };
    add(&mut core, 30, by_key).unwrap();
}

#[test]
fn what_is_under_way_counts_for_the_room_and_holds_its_id() {
    let mut core = core();
    for n in 1..=CREDENTIALS_PER_IDENTITY_MAX as u8 {
        let request = other(&core, n, recovery_key());
        add(&mut core, u64::from(n), request).unwrap();
    }
    let request = other(&core, 200, recovery_key());
    let full = IdentityError::Busy(CREDENTIALS_PER_IDENTITY_MAX);
    assert_eq!(add(&mut core, 200, request.clone()).unwrap_err(), full);
    // Another identity has room of its own, but no id that somebody is being given.
    let network = id_of(&core, "orbital.services.network");
    let elsewhere = AddCredentialRequest { identity: network, ..request };
    add(&mut core, 201, elsewhere).unwrap();
    let same_id = AddCredentialRequest { identity: network, ..other(&core, 3, recovery_key()) };
    assert!(matches!(add(&mut core, 202, same_id).unwrap_err(), IdentityError::Busy(_)));
    let mut core = self::core();
    let request = other(&core, 1, recovery_key());
    add(&mut core, 1, request).unwrap();
    let request = other(&core, 2, recovery_key());
    assert!(matches!(add(&mut core, 1, request).unwrap_err(), IdentityError::Busy(_)), "one request, one id");
}

#[test]
fn a_derived_key_at_its_owners_own_path_needs_no_derivation() {
    let mut core = core();
    let owner = core.registry().find("admin").unwrap().clone();
    let request = other(&core, 1, NewCredential::DerivedKey { key_path: None });
    let act = add(&mut core, 1, request).unwrap();
    let Proposal::CredentialAdded(recorded) = &act.proposal else { panic!("{act:?}") };
    let CredentialBody::DerivedKey { key_path, public_key } = &recorded.body else { panic!("{recorded:?}") };
    assert_eq!((key_path, *public_key), (&owner.key_path, owner.public_key));
}

#[test]
fn a_login_narrows_actions_and_resources_each_by_itself() {
    let permissions = vec![
        permission(Some(ActionKind::Sign), "key:/a/**"),
        permission(Some(ActionKind::Decrypt), "key:/a/**"),
    ];
    let mut core = with(api_key(permissions, None));
    let sign = ScopeAction::Kind(ActionKind::Sign);
    let both = vec![sign, ScopeAction::Kind(ActionKind::Decrypt)];
    for (n, (actions, resources, expected)) in [
        (vec![sign], vec![], (vec![sign], vec!["key:/a/**"])),
        (vec![], vec!["key:/a/b".to_owned()], (both, vec!["key:/a/b"])),
    ]
    .into_iter()
    .enumerate()
    {
        let challenge = challenge(&mut core, NOW, n as u64);
        let request =
            AuthenticateRequest { actions, resources, token: TokenId([n as u8; 16]), ..answer(&challenge) };
        let mut scope = logged_in(&mut core, NOW, request).scope;
        scope.actions.sort_unstable();
        let mut actions = expected.0;
        actions.sort_unstable();
        assert_eq!(
            (scope.actions, scope.resources),
            (actions, expected.1.into_iter().map(str::to_owned).collect())
        );
    }
}

#[test]
fn lives_channels_and_reasons_are_bounded() {
    let everything = || api_key(vec![permission(None, "**")], None);
    for (life_ns, legal) in [(0, false), (1, true), (LIFE_NS_MAX, true), (LIFE_NS_MAX + 1, false)] {
        let mut core = with(everything());
        let challenge = challenge(&mut core, NOW, 1);
        let request = AuthenticateRequest { life_ns: Some(life_ns), ..answer(&challenge) };
        let effects = authenticate(&mut core, NOW, request);
        assert_eq!(matches!(effects[..], [Effect::Act { .. }]), legal, "{life_ns}: {effects:?}");
    }
    for (bytes, legal) in [(0, false), (1, true), (CHANNEL_BYTES_MAX, true), (CHANNEL_BYTES_MAX + 1, false)] {
        let mut core = with(everything());
        let channel = "c".repeat(bytes);
        let ask = Event::RequestChallenge {
            id: ID,
            credential: CREDENTIAL,
            adding: false,
            origin: None,
            channel: channel.clone(),
            random: ([1; 16], [1; 32]),
        };
        let effects = core.step(NOW, ask);
        let [Effect::Reply { result: Ok(Reply::Challenge(challenge)), .. }] = &effects[..] else {
            panic!("{effects:?}")
        };
        let request = AuthenticateRequest { channel, ..answer(challenge) };
        let effects = authenticate(&mut core, NOW, request);
        assert_eq!(matches!(effects[..], [Effect::Act { .. }]), legal, "{bytes}: {effects:?}");
    }
    for (bytes, legal) in [(REASON_BYTES_MAX, true), (REASON_BYTES_MAX + 1, false)] {
        let mut core = with(everything());
        let admin = id_of(&core, "admin");
        let (requestor, identity, credential) = (admin, admin, CREDENTIAL);
        let request = RevokeCredentialRequest { requestor, identity, credential, reason: "r".repeat(bytes) };
        let effects = core.step(NOW, Event::RevokeCredential { id: ID, request });
        assert_eq!(matches!(effects[..], [Effect::Act { .. }]), legal, "{bytes}: {effects:?}");
    }
}

#[test]
fn one_request_id_logs_in_once_at_a_time() {
    let mut core = with(api_key(vec![permission(None, "**")], None));
    let (one, two) = (challenge(&mut core, NOW, 1), challenge(&mut core, NOW, 2));
    only_act(&authenticate(&mut core, NOW, answer(&one)));
    let again = authenticate(&mut core, NOW, answer(&two));
    assert!(matches!(only_error(&again), IdentityError::Busy(_)), "{again:?}");
}

#[test]
fn a_scope_that_fits_no_token_spends_no_recovery_key() {
    let mut core = with(recovery_key());
    let asked = challenge(&mut core, NOW, 1);
    let wide = vec!["x".repeat(kit::token::SCOPE_PATTERN_BYTES_MAX); kit::token::SCOPE_RESOURCES_MAX];
    let request = AuthenticateRequest { resources: wide, ..answer(&asked) };
    let error = only_error(&authenticate(&mut core, NOW, request));
    assert_eq!(error, IdentityError::Token(TokenError::TooLarge));
    let again = challenge(&mut core, NOW, 2);
    logged_in(&mut core, NOW, answer(&again));
}
