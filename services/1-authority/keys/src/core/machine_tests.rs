use super::*;
use base::{EntryKey, Nonce, RuleId, limits::DECISION_VALIDITY_NS};
use chain::{
    merkle,
    payload::{
        Envelope,
        policy::{
            DecisionBody, DecisionSignature, PolicyAction, PolicyCondition, PolicyContext, PolicyEffect,
            ResourceRef, ResourceType, SignedDecision,
        },
    },
};
use ed25519_dalek::SigningKey;

#[path = "saved_tests.rs"]
mod saved;

const ALICE: IdentityId = IdentityId([1; 32]);
const MESSAGE: Hash = Hash([7; 32]);
const NOW: AxiomTime = AxiomTime(1_000_000_000_000);
const ID: RequestId = RequestId(1);
const RECEIPT: AxiomRef = AxiomRef { sequence: Sequence(99), hash: Hash([9; 32]) };
const SIGNATURE: Output =
    Output::Signed { signature: Signature([5; 64]), public_key: VerifyingKey::Ed25519(PublicKey([6; 32])) };
const SIGNED: Answer = Answer::Output(SIGNATURE);

fn path(text: &str) -> KeyPath {
    KeyPath::parse(text).unwrap()
}

fn body() -> DecisionBody {
    DecisionBody {
        request_hash: Hash([3; 32]),
        requestor: ALICE,
        action: PolicyAction::Sign { key_path: path("/orbital/users/alice"), message_hash: MESSAGE },
        resource: ResourceRef { resource_type: ResourceType::Key, id: "/orbital/users/alice".to_owned() },
        context: PolicyContext::default(),
        nonce: Nonce([4; 16]),
        policy_state_hash: Hash::ZERO,
        matched_rules: vec![],
        effect: PolicyEffect::Allow,
        deciding_rule: RuleId::default_deny(),
        conditions: vec![],
        timestamp: NOW,
        reason: None,
    }
}

/// Signs `body` as one of a group of three, so that there is a path to check.
fn signed_by(key: &SigningKey, body: &DecisionBody) -> SignedDecision {
    let bytes = base::cbor::encode(body);
    let tree = merkle::Tree::new(vec![merkle::leaf(b"a"), merkle::leaf(&bytes), merkle::leaf(b"c")]).unwrap();
    let root = merkle::sign_root(key, &tree.root());
    SignedDecision {
        body: bytes,
        signature: DecisionSignature { root, index: 1, count: 3, path: tree.path(1).unwrap() },
    }
}

fn engine() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

fn request(decision: SignedDecision) -> UseRequest {
    UseRequest {
        key_path: path("/orbital/users/alice"),
        operation: Operation::Sign { message: MESSAGE },
        requestor: ALICE,
        authorization: decision,
    }
}

fn at(sequence: u64) -> AxiomRef {
    AxiomRef { sequence: Sequence(sequence), hash: Hash([8; 32]) }
}

fn envelope<T>(body: T) -> Box<Envelope<T>> {
    Box::new(Envelope { submitter: ALICE, key: EntryKey([0; 16]), authorization: None, body })
}

fn core() -> KeysCore {
    let public = PublicKey(engine().verifying_key().to_bytes());
    let genesis = chain::payload::service::Genesis {
        version: 1,
        image_hash: Hash::ZERO,
        initial_capabilities: vec![],
        genesis_time: AxiomTime(0),
        node_name: "n".to_owned(),
        node_key: public,
        sequencer_key: public,
        policy_key: public,
        identity_key: public,
        identities: vec![],
        admin: ALICE,
        admin_uid: 0,
        rules: vec![],
    };
    let mut core = KeysCore::new();
    assert_eq!(core.apply(at(0), AxiomTime(0), &Payload::Genesis(envelope(genesis)), None), vec![]);
    core
}

fn commit(core: &mut KeysCore, decision: &SignedDecision) -> Vec<Effect> {
    core.apply(at(5), NOW, &Payload::PolicyDecision(envelope(decision.clone())), Some(NOW))
}

fn sign(core: &mut KeysCore, id: u64, request: UseRequest, now: Option<AxiomTime>) -> Vec<Effect> {
    core.step(now, Event::Use { id: RequestId(id), request })
}

/// Commits `decision`, asks with `request`, and returns the refusal after checking that it was recorded and nothing signed.
fn refusal(core: &mut KeysCore, request: UseRequest, now: Option<AxiomTime>) -> KeyError {
    let effects = sign(core, 1, request, now);
    let [Effect::Record { id: ID, usage }] = &effects[..] else {
        panic!("not a recorded refusal: {effects:?}")
    };
    assert_eq!((usage.output_hash, usage.identity), (None, ALICE));
    let text = usage.refused.clone().unwrap();
    let effects = core.step(now, Event::Recorded { id: ID, result: Ok(RECEIPT) });
    let [Effect::ReplyUse { id: ID, result: Err(error) }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(error.to_string(), text);
    error.clone()
}

fn refused(change: impl FnOnce(&mut UseRequest), body: &DecisionBody, now: Option<AxiomTime>) -> KeyError {
    let mut core = core();
    let decision = signed_by(&engine(), body);
    commit(&mut core, &decision);
    let mut request = request(decision);
    change(&mut request);
    refusal(&mut core, request, now)
}

/// covers: KEY-04, KEY-14, KEY-15, KEY-34, KEY-35
#[test]
fn a_signature_is_released_with_its_record_and_not_before() {
    let mut core = core();
    let decision = signed_by(&engine(), &body());
    commit(&mut core, &decision);
    let ask = BoundaryRequest::Use {
        epoch: 0,
        path: path("/orbital/users/alice"),
        operation: Operation::Sign { message: MESSAGE },
    };
    assert_eq!(
        sign(&mut core, 1, request(decision), Some(NOW)),
        [Effect::AskBoundary { id: ID, request: ask }]
    );
    let usage = KeyUsage {
        identity: ALICE,
        key_path: path("/orbital/users/alice"),
        operation: KeyOperation::Sign,
        message_hash: Some(MESSAGE),
        authorization: at(5),
        output_hash: Some(Hash::of(&[5; 64])),
        refused: None,
        reason: None,
        epoch: None,
        rotation: None,
    };
    let effects = core.step(Some(NOW), Event::BoundaryAnswered { id: ID, result: Ok(SIGNED) });
    let request_hash = body().request_hash;
    assert_eq!(effects, [Effect::Redeem { id: ID, usage, request_hash }]);
    let effects = core.step(Some(NOW), Event::Recorded { id: ID, result: Ok(RECEIPT) });
    let used = Used { output: SIGNATURE, receipt: RECEIPT };
    assert_eq!(effects, [Effect::ReplyUse { id: ID, result: Ok(used) }]);
    assert_eq!(core.pending(), 0);
}

#[test]
fn without_a_record_the_signature_is_dropped_and_the_decision_stays_spent() {
    let mut core = core();
    let decision = signed_by(&engine(), &body());
    commit(&mut core, &decision);
    sign(&mut core, 1, request(decision.clone()), Some(NOW));
    core.step(Some(NOW), Event::BoundaryAnswered { id: ID, result: Ok(SIGNED) });
    let effects = core.step(Some(NOW), Event::Recorded { id: ID, result: Err(NotRecorded) });
    assert_eq!(effects, [Effect::ReplyUse { id: ID, result: Err(KeyError::AuditUnavailable) }]);
    assert!(matches!(refusal(&mut core, request(decision), Some(NOW)), KeyError::InvalidDecision(_)));
}

/// What was denied can be used by nobody, so it takes no room from what can.
#[test]
fn denied_decisions_and_those_on_other_actions_are_not_remembered() {
    let mut core = core();
    let decision = signed_by(&engine(), &body());
    commit(&mut core, &decision);
    let denied = signed_by(&engine(), &DecisionBody { effect: PolicyEffect::Deny, ..body() });
    let suspend = PolicyAction::RevokeCapability { capability: base::CapabilityId([1; 16]) };
    let other = signed_by(&engine(), &DecisionBody { action: suspend, ..body() });
    for sequence in 0..crate::core::ledger::DECISIONS_MAX as u64 {
        let useless = if sequence % 2 == 0 { &denied } else { &other };
        let payload = Payload::PolicyDecision(envelope(useless.clone()));
        assert_eq!(core.apply(at(6 + sequence), NOW, &payload, Some(NOW)), []);
    }
    let effects = sign(&mut core, 1, request(decision), Some(NOW));
    assert!(matches!(effects[..], [Effect::AskBoundary { .. }]), "{effects:?}");
}

#[test]
fn a_refusal_that_cannot_be_recorded_says_so() {
    let mut core = core();
    sign(&mut core, 1, request(signed_by(&SigningKey::from_bytes(&[1; 32]), &body())), Some(NOW));
    let effects = core.step(Some(NOW), Event::Recorded { id: ID, result: Err(NotRecorded) });
    assert_eq!(effects, [Effect::ReplyUse { id: ID, result: Err(KeyError::AuditUnavailable) }]);
}

/// covers: KEY-13, KEY-16
#[test]
fn a_decision_serves_only_the_request_that_it_was_made_for() {
    let invalid = |error| matches!(error, KeyError::InvalidDecision(_));
    let unauthorized = |error| matches!(error, KeyError::Unauthorized(_));
    let now = Some(NOW);
    assert!(invalid(refused(|r| r.operation = Operation::Sign { message: Hash([8; 32]) }, &body(), now)));
    assert!(invalid(refused(|r| r.key_path = path("/orbital/users/alice/sub"), &body(), now)));
    assert!(unauthorized(refused(
        |r| r.requestor = ALICE,
        &DecisionBody { requestor: IdentityId([2; 32]), ..body() },
        now
    )));
    let encrypt = PolicyAction::Encrypt { key_path: path("/orbital/users/alice") };
    let effects = {
        let mut core = core();
        let decision = signed_by(&engine(), &DecisionBody { action: encrypt, ..body() });
        commit(&mut core, &decision);
        refusal(&mut core, request(decision), now)
    };
    assert!(invalid(effects));
    assert!(unauthorized(refused(|_| (), &DecisionBody { effect: PolicyEffect::Deny, ..body() }, now)));
    let never = DecisionBody {
        effect: PolicyEffect::AllowWithConditions,
        conditions: vec![PolicyCondition::Always, PolicyCondition::Never],
        ..body()
    };
    assert!(unauthorized(refused(|_| (), &never, now)));
    let met = DecisionBody { conditions: vec![PolicyCondition::After(NOW)], ..never };
    let decision = signed_by(&engine(), &met);
    let mut core = core();
    commit(&mut core, &decision);
    let effects = sign(&mut core, 1, request(decision), now);
    assert!(matches!(effects[..], [Effect::AskBoundary { .. }]), "{effects:?}");
    let spoiled = |change: fn(&mut SignedDecision)| refused(|r| change(&mut r.authorization), &body(), now);
    assert!(invalid(spoiled(|d| d.body[40] ^= 1)));
    assert!(invalid(spoiled(|d| d.signature.root.0[0] ^= 1)));
    assert!(invalid(spoiled(|d| d.signature.index = 0)));
    assert!(invalid(spoiled(|d| d.signature.path[0].0[0] ^= 1)));
    assert!(invalid(spoiled(|d| d.signature.path.truncate(1))));
}

/// covers: KEY-16
#[test]
fn a_decision_of_another_signer_is_refused_even_when_its_bytes_are_in_the_log() {
    let mut core = core();
    let forged = signed_by(&SigningKey::from_bytes(&[1; 32]), &body());
    commit(&mut core, &forged);
    assert!(matches!(refusal(&mut core, request(forged), Some(NOW)), KeyError::InvalidDecision(_)));
    let mut unborn = KeysCore::new();
    let good = signed_by(&engine(), &body());
    assert!(matches!(refusal(&mut unborn, request(good), Some(NOW)), KeyError::InvalidDecision(_)));
}

#[test]
fn a_decision_expires_at_thirty_seconds_and_when_time_is_unknown() {
    let last = NOW.saturating_add(DECISION_VALIDITY_NS - 1);
    let mut core = core();
    let decision = signed_by(&engine(), &body());
    commit(&mut core, &decision);
    assert!(matches!(sign(&mut core, 1, request(decision), Some(last))[..], [Effect::AskBoundary { .. }]));
    assert_eq!(refused(|_| (), &body(), Some(last.saturating_add(1))), KeyError::DecisionExpired);
    assert_eq!(refused(|_| (), &body(), None), KeyError::DecisionExpired);
}

#[test]
fn a_decision_is_used_once_also_by_two_at_a_time_and_after_a_restart() {
    let mut first = core();
    let decision = signed_by(&engine(), &body());
    commit(&mut first, &decision);
    sign(&mut first, 7, request(decision.clone()), Some(NOW));
    let used = KeyError::InvalidDecision("it was used before".to_owned());
    assert_eq!(refusal(&mut first, request(decision.clone()), Some(NOW)), used);
    let effects = first.step(Some(NOW), Event::BoundaryAnswered { id: RequestId(7), result: Ok(SIGNED) });
    let [Effect::Redeem { usage, .. }] = &effects[..] else { panic!("{effects:?}") };
    // A service that starts again knows what the log knows.
    let mut second = core();
    commit(&mut second, &decision);
    second.apply(at(6), NOW, &Payload::KeyUsage(envelope(usage.clone())), Some(NOW));
    assert_eq!(refusal(&mut second, request(decision.clone()), Some(NOW)), used);
    // A recorded refusal spends nothing.
    let mut third = core();
    commit(&mut third, &decision);
    let refused = KeyUsage { refused: Some("locked".to_owned()), output_hash: None, ..usage.clone() };
    third.apply(at(6), NOW, &Payload::KeyUsage(envelope(refused)), Some(NOW));
    assert!(matches!(sign(&mut third, 1, request(decision), Some(NOW))[..], [Effect::AskBoundary { .. }]));
}

#[test]
fn a_decision_that_is_not_in_the_log_yet_is_waited_for_and_then_refused() {
    let decision = signed_by(&engine(), &body());
    let mut core = core();
    assert_eq!(sign(&mut core, 1, request(decision.clone()), Some(NOW)), vec![]);
    assert_eq!(core.step(Some(NOW.saturating_add(COMMIT_WAIT_NS - 1)), Event::Tick), vec![]);
    assert!(matches!(commit(&mut core, &decision)[..], [Effect::AskBoundary { id: ID, .. }]));

    let mut core = self::core();
    sign(&mut core, 1, request(decision.clone()), Some(NOW));
    let effects = core.step(Some(NOW.saturating_add(COMMIT_WAIT_NS)), Event::Tick);
    assert!(matches!(&effects[..], [Effect::Record { usage, .. }] if usage.refused.is_some()));
    // Its late arrival changes nothing for a request that has been refused.
    assert_eq!(commit(&mut core, &decision), vec![]);
    let effects = core.step(Some(NOW), Event::Recorded { id: ID, result: Ok(RECEIPT) });
    assert!(matches!(effects[..], [Effect::ReplyUse { result: Err(KeyError::InvalidDecision(_)), .. }]));
}

#[test]
fn a_locked_or_dead_boundary_is_a_recorded_refusal() {
    for (failure, expected) in [
        (BoundaryFailure::Locked, KeyError::Locked),
        (BoundaryFailure::Failed("gone".to_owned()), KeyError::CryptoFailure("gone".to_owned())),
    ] {
        let mut core = core();
        let decision = signed_by(&engine(), &body());
        commit(&mut core, &decision);
        sign(&mut core, 1, request(decision), Some(NOW));
        let effects = core.step(Some(NOW), Event::BoundaryAnswered { id: ID, result: Err(failure) });
        assert!(matches!(&effects[..], [Effect::Record { usage, .. }] if usage.refused.is_some()));
        let effects = core.step(Some(NOW), Event::Recorded { id: ID, result: Ok(RECEIPT) });
        assert_eq!(effects, [Effect::ReplyUse { id: ID, result: Err(expected) }]);
    }
}

/// covers: KEY-03
#[test]
fn a_public_key_needs_no_decision_and_no_time() {
    let mut core = KeysCore::new();
    let effects =
        core.step(None, Event::PublicKeys { id: ID, path: path("/orbital/users/bob"), epoch: None });
    let ask = BoundaryRequest::PublicKeys { path: path("/orbital/users/bob"), epoch: 0 };
    assert_eq!(effects, [Effect::AskBoundary { id: ID, request: ask }]);
    let keys =
        PublicKeys { signing: VerifyingKey::Ed25519(PublicKey([6; 32])), exchange: Some(PublicKey([7; 32])) };
    let effects = core.step(None, Event::BoundaryAnswered { id: ID, result: Ok(Answer::PublicKeys(keys)) });
    assert_eq!(effects, [Effect::ReplyPublicKeys { id: ID, result: Ok(keys) }]);
}

#[test]
fn requests_under_way_are_bounded_and_stray_answers_change_nothing() {
    let mut core = KeysCore::new();
    for id in 0..PENDING_MAX as u64 {
        core.step(None, Event::PublicKeys { id: RequestId(id), path: path("/a"), epoch: None });
    }
    let effects =
        core.step(None, Event::PublicKeys { id: RequestId(u64::MAX), path: path("/a"), epoch: None });
    let busy = KeyError::Busy { limit: PENDING_MAX };
    assert_eq!(effects, [Effect::ReplyPublicKeys { id: RequestId(u64::MAX), result: Err(busy.clone()) }]);
    let request = request(signed_by(&engine(), &body()));
    let effects = sign(&mut core, u64::MAX, request, Some(NOW));
    assert_eq!(effects, [Effect::ReplyUse { id: RequestId(u64::MAX), result: Err(busy) }]);
    assert_eq!(core.step(None, Event::Recorded { id: ID, result: Ok(RECEIPT) }), vec![]);
    let unknown = RequestId(u64::MAX - 1);
    assert_eq!(core.step(None, Event::BoundaryAnswered { id: unknown, result: Ok(SIGNED) }), vec![]);
    assert_eq!(core.pending(), PENDING_MAX);
}

/// The decision is the one that `sign` has for the hash of the bytes; the boundary alone knows what they are.
///
/// covers: KEY-34, KEY-35
#[test]
fn bytes_are_signed_under_a_decision_for_their_hash_and_what_is_not_of_their_format_is_recorded() {
    let message = b"bytes of a format".to_vec();
    let operation = || Operation::SignBytes { message: message.clone() };
    let key_path = path("/orbital/users/alice");
    let ask = |message_hash| {
        let mut core = core();
        let action = PolicyAction::Sign { key_path: key_path.clone(), message_hash };
        let decision = signed_by(&engine(), &DecisionBody { action, ..body() });
        commit(&mut core, &decision);
        let request = UseRequest { operation: operation(), ..request(decision) };
        let effects = sign(&mut core, 1, request, Some(NOW));
        (core, effects)
    };
    let (_, effects) = ask(MESSAGE);
    assert!(matches!(&effects[..], [Effect::Record { usage, .. }] if usage.refused.is_some()));
    let (mut core, effects) = ask(Hash::of(&message));
    let asked = BoundaryRequest::Use { path: key_path.clone(), epoch: 0, operation: operation() };
    assert_eq!(effects, [Effect::AskBoundary { id: ID, request: asked }]);
    let effects = core.step(Some(NOW), Event::BoundaryAnswered { id: ID, result: Ok(SIGNED) });
    let [Effect::Redeem { usage, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((usage.operation, usage.message_hash), (KeyOperation::Sign, Some(Hash::of(&message))));
    assert_eq!(usage.output_hash, Some(Hash::of(&[5; 64])));

    let (mut core, _) = ask(Hash::of(&message));
    let failure = BoundaryFailure::WrongPurpose("no such format".to_owned());
    let effects = core.step(Some(NOW), Event::BoundaryAnswered { id: ID, result: Err(failure) });
    assert!(matches!(&effects[..], [Effect::Record { usage, .. }] if usage.refused.is_some()));
    let effects = core.step(Some(NOW), Event::Recorded { id: ID, result: Ok(RECEIPT) });
    let error = KeyError::WrongPurpose("no such format".to_owned());
    assert_eq!(effects, [Effect::ReplyUse { id: ID, result: Err(error) }]);
}

#[test]
fn what_prove_switches_off_is_off() {
    let decision = signed_by(&engine(), &body());
    let other = Operation::Sign { message: Hash([8; 32]) };
    let mut unbound = core();
    unbound.switch_off(Defence::Binding);
    commit(&mut unbound, &decision);
    let request = UseRequest { operation: other, ..request(decision.clone()) };
    assert!(matches!(sign(&mut unbound, 1, request, Some(NOW))[..], [Effect::AskBoundary { .. }]));
    let mut unrecorded = core();
    unrecorded.switch_off(Defence::Record);
    commit(&mut unrecorded, &decision);
    sign(&mut unrecorded, 1, self::request(decision), Some(NOW));
    let effects = unrecorded.step(Some(NOW), Event::BoundaryAnswered { id: ID, result: Ok(SIGNED) });
    assert!(matches!(effects[..], [Effect::ReplyUse { result: Ok(_), .. }]), "{effects:?}");
}

/// covers: KEY-06, KEY-07, KEY-16, KEY-35
#[test]
fn encryption_and_decryption_need_a_decision_of_their_own_and_are_recorded_by_hash() {
    let key_path = path("/orbital/users/alice");
    let plain = || Plain::new(b"plain".to_vec());
    let encrypt = Operation::Encrypt { plain: plain() };
    let decrypt = Operation::Decrypt { sealed: b"sealed".to_vec() };
    let may_encrypt = PolicyAction::Encrypt { key_path: key_path.clone() };
    let may_decrypt = PolicyAction::Decrypt { key_path: key_path.clone() };
    let ask = |action: &PolicyAction, operation: &Operation| {
        let mut core = core();
        let decision = signed_by(&engine(), &DecisionBody { action: action.clone(), ..body() });
        commit(&mut core, &decision);
        let request = UseRequest { operation: operation.clone(), ..request(decision) };
        let effects = sign(&mut core, 1, request, Some(NOW));
        (core, effects)
    };
    let sealed = Output::Encrypted(b"sealed".to_vec());
    for (action, operation, output, input_hash, output_hash) in [
        (&may_encrypt, &encrypt, sealed, Hash::of(b"plain"), Some(Hash::of(b"sealed"))),
        (&may_decrypt, &decrypt, Output::Decrypted(plain()), Hash::of(b"sealed"), None),
    ] {
        let (mut core, effects) = ask(action, operation);
        let asked = BoundaryRequest::Use { path: key_path.clone(), epoch: 0, operation: operation.clone() };
        assert_eq!(effects, [Effect::AskBoundary { id: ID, request: asked }]);
        let answered = Event::BoundaryAnswered { id: ID, result: Ok(Answer::Output(output.clone())) };
        let effects = core.step(Some(NOW), answered);
        let [Effect::Redeem { usage, .. }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!((usage.operation, usage.message_hash), (operation.kind(), Some(input_hash)));
        assert_eq!((usage.output_hash, &usage.refused), (output_hash, &None));
        let effects = core.step(Some(NOW), Event::Recorded { id: ID, result: Ok(RECEIPT) });
        assert_eq!(effects, [Effect::ReplyUse { id: ID, result: Ok(Used { output, receipt: RECEIPT }) }]);
    }
    // Leave for one is none for the other.
    for (action, operation) in
        [(&may_encrypt, &decrypt), (&may_decrypt, &encrypt), (&body().action, &decrypt)]
    {
        let (_, effects) = ask(action, operation);
        assert!(matches!(&effects[..], [Effect::Record { usage, .. }] if usage.refused.is_some()));
    }
    // What the boundary did instead of what was asked is not handed out.
    let (mut core, _) = ask(&may_encrypt, &encrypt);
    let effects = core.step(Some(NOW), Event::BoundaryAnswered { id: ID, result: Ok(SIGNED) });
    assert!(matches!(&effects[..], [Effect::Record { usage, .. }] if usage.refused.is_some()), "{effects:?}");
}
