//! Passkeys, with an authenticator made here.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::ecdsa::{Signature as P256Signature, SigningKey as P256Key, signature::Signer as _};
use sha2::{Digest, Sha256};

use super::*;
use crate::core::{
    ASSERTION_SIGNATURE_BYTES_MAX, ATTESTATION_BYTES_MAX, AUTHENTICATOR_DATA_BYTES_MAX, Assertion,
    CLIENT_DATA_BYTES_MAX, RP_ID, Registration,
};

const PAGE: &str = "http://localhost:7443";
const AAGUID: [u8; 16] = [0xa1; 16];
const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const BACKUP_ELIGIBLE: u8 = 0x08;
const ATTESTED: u8 = 0x40;

/// An authenticator and the browser around it.
#[derive(Clone)]
struct Authenticator {
    key: P256Key,
    id: Vec<u8>,
    counter: u32,
    flags: u8,
    page: &'static str,
    rp_id: &'static str,
    /// Instead of the one that the challenge is answered by.
    answers: Option<[u8; 32]>,
    /// Blanks behind the client data.
    padding: usize,
}

impl Authenticator {
    fn new() -> Self {
        let key = P256Key::from_slice(&[7; 32]).unwrap();
        let flags = USER_PRESENT | USER_VERIFIED;
        Self { key, id: vec![4; 32], counter: 1, flags, page: PAGE, rp_id: RP_ID, answers: None, padding: 0 }
    }

    fn cose(&self) -> Vec<u8> {
        let point = self.key.verifying_key().to_sec1_point(false);
        let mut cose = minicbor::Encoder::new(vec![]);
        cose.map(5).unwrap().u8(1).unwrap().u8(2).unwrap().u8(3).unwrap().i8(-7).unwrap();
        cose.i8(-1).unwrap().u8(1).unwrap().i8(-2).unwrap().bytes(point.x().unwrap()).unwrap();
        cose.i8(-3).unwrap().bytes(point.y().unwrap()).unwrap();
        cose.into_writer()
    }

    fn client_data(&self, kind: &str, challenge: &Challenge) -> Vec<u8> {
        let answers = URL_SAFE_NO_PAD.encode(self.answers.unwrap_or(challenge_hash(challenge).0));
        let text = serde_json::json!({ "type": kind, "challenge": answers, "origin": self.page, "crossOrigin": false });
        let mut bytes = text.to_string().into_bytes();
        bytes.resize(bytes.len().max(self.padding), b' ');
        bytes
    }

    fn data(&self, flags: u8) -> Vec<u8> {
        let mut data = Sha256::digest(self.rp_id).to_vec();
        data.push(flags);
        data.extend(self.counter.to_be_bytes());
        data
    }

    fn attestation_object(&self) -> Vec<u8> {
        let mut data = self.data(self.flags | ATTESTED);
        data.extend(AAGUID);
        data.extend((self.id.len() as u16).to_be_bytes());
        data.extend(&self.id);
        data.extend(self.cose());
        let mut object = minicbor::Encoder::new(vec![]);
        object.map(3).unwrap().str("fmt").unwrap().str("none").unwrap();
        object.str("attStmt").unwrap().map(0).unwrap().str("authData").unwrap().bytes(&data).unwrap();
        object.into_writer()
    }

    fn create(&self, challenge: &Challenge) -> Registration {
        let client_data = self.client_data("webauthn.create", challenge);
        Registration {
            challenge: challenge.clone(),
            client_data,
            attestation_object: self.attestation_object(),
        }
    }

    fn get(&self, challenge: &Challenge) -> Assertion {
        let client_data = self.client_data("webauthn.get", challenge);
        let authenticator_data = self.data(self.flags);
        let signed = [&authenticator_data[..], &Sha256::digest(&client_data)].concat();
        let signature: P256Signature = self.key.sign(&signed);
        Assertion { client_data, authenticator_data, signature: signature.to_der().as_bytes().to_vec() }
    }
}

fn ask(
    core: &mut IdentityCore,
    n: u8,
    adding: bool,
    origin: Option<&str>,
) -> Result<Challenge, IdentityError> {
    let ask = Event::RequestChallenge {
        id: ID,
        credential: CREDENTIAL,
        adding,
        origin: origin.map(str::to_owned),
        channel: CHANNEL.to_owned(),
        random: ([n; 16], [n; 32]),
    };
    match &core.step(NOW, ask)[..] {
        [Effect::Reply { result: Ok(Reply::Challenge(challenge)), .. }] => Ok((**challenge).clone()),
        [Effect::Reply { result: Err(error), .. }] => Err(error.clone()),
        other => panic!("{other:?}"),
    }
}

fn adding(core: &IdentityCore, registration: Registration) -> AddCredentialRequest {
    let channel = CHANNEL.to_owned();
    let kind = NewCredential::Passkey { registration: Box::new(registration), channel };
    add_request(core, kind)
}

fn refused(core: &mut IdentityCore, now: AxiomTime, request: AddCredentialRequest) -> IdentityError {
    only_error(&core.step(now, Event::AddCredential { id: ID, request }))
}

/// A core that has the passkey.
fn registered(authenticator: &Authenticator) -> IdentityCore {
    let mut core = core();
    let challenge = ask(&mut core, 1, true, Some(PAGE)).unwrap();
    let request = adding(&core, authenticator.create(&challenge));
    added(&mut core, request);
    core
}

fn asserted(challenge: &Challenge, assertion: Assertion) -> AuthenticateRequest {
    AuthenticateRequest { proof: AuthProof::WebAuthnAssertion(assertion), ..answer(challenge) }
}

fn log_in(core: &mut IdentityCore, n: u8, authenticator: &Authenticator) -> Claims {
    let challenge = ask(core, n, false, Some(PAGE)).unwrap();
    logged_in(core, NOW, asserted(&challenge, authenticator.get(&challenge)))
}

fn login_fails(core: &mut IdentityCore, n: u8, authenticator: &Authenticator) -> IdentityError {
    let challenge = ask(core, n, false, Some(PAGE)).unwrap();
    failed(core, NOW, asserted(&challenge, authenticator.get(&challenge)))
}

fn counter(core: &IdentityCore) -> u32 {
    match &core.registry().credentials().get(&CREDENTIAL).unwrap().body {
        CredentialBody::Passkey { sign_count, .. } => *sign_count,
        other => panic!("{other:?}"),
    }
}

/// covers: IDN-17, IDN-27, IDN-32
#[test]
fn a_passkey_is_made_decided_recorded_and_logs_in() {
    let mut core = core();
    let mut authenticator = Authenticator { counter: 3, ..Authenticator::new() };
    let challenge = ask(&mut core, 1, true, Some(PAGE)).unwrap();
    assert_eq!((challenge.credential, challenge.origin.as_deref()), (CREDENTIAL, Some(PAGE)));
    let request = adding(&core, authenticator.create(&challenge));
    let identity = request.identity;
    let act = only_act(&core.step(NOW, Event::AddCredential { id: ID, request }));
    assert_eq!(act.action, PolicyAction::AddCredential { identity });
    let Proposal::CredentialAdded(recorded) = &act.proposal else { panic!("{act:?}") };
    let CredentialBody::Passkey { public_key, aaguid, sign_count, origin } = &recorded.body else {
        panic!("{recorded:?}")
    };
    assert_eq!((public_key, *aaguid, *sign_count), (&authenticator.cose(), AAGUID, 3));
    let origin = origin.as_ref().unwrap();
    assert_eq!((&origin.webauthn_id, origin.backup_eligible), (&authenticator.id, false));
    core.step(NOW, Event::Acted { id: ID, result: Ok(at(50)) });
    fold(&mut core, 50, NOW, &act.proposal);
    authenticator.counter = 9;
    let claims = log_in(&mut core, 2, &authenticator);
    assert_eq!(claims.authentication.unwrap().credential, CREDENTIAL);
    assert_eq!(counter(&core), 9, "where the counter stands is in the log");
}

/// covers: IDN-27, IDN-43
#[test]
fn a_registration_answers_its_challenge_on_its_page_with_its_user() {
    let good = Authenticator::new();
    let other_rp = Authenticator { rp_id: "example.org", ..good.clone() };
    let other_page = Authenticator { page: "http://localhost:7444", ..good.clone() };
    let foreign = Authenticator { page: "https://localhost.example.org", ..good.clone() };
    let unverified = Authenticator { flags: USER_PRESENT, ..good.clone() };
    let mut core = core();
    for (n, (authenticator, expected)) in [
        (&other_rp, IdentityError::OtherPage),
        (&other_page, IdentityError::OtherPage),
        (&foreign, IdentityError::OtherPage),
        (&unverified, IdentityError::UserNotVerified),
        (
            &Authenticator { answers: Some([1; 32]), ..good.clone() },
            IdentityError::Registration("it answers another challenge"),
        ),
        (
            &Authenticator { id: vec![4; 1_024], ..good.clone() },
            IdentityError::Registration("its id has no byte or too many"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let challenge = ask(&mut core, n as u8, true, Some(PAGE)).unwrap();
        let request = adding(&core, authenticator.create(&challenge));
        assert_eq!(refused(&mut core, NOW, request.clone()), expected);
        assert_eq!(refused(&mut core, NOW, request), IdentityError::ChallengeUnknown, "it works once");
    }
    let late = ask(&mut core, 20, true, Some(PAGE)).unwrap();
    let request = adding(&core, good.create(&late));
    assert_eq!(refused(&mut core, late.expires_at, request), IdentityError::ChallengeExpired);
    let elsewhere = ask(&mut core, 21, true, Some(PAGE)).unwrap();
    let mut request = adding(&core, good.create(&elsewhere));
    let NewCredential::Passkey { channel, .. } = &mut request.kind else { panic!() };
    *channel = "network".to_owned();
    assert_eq!(refused(&mut core, NOW, request), IdentityError::ChallengeUnknown);
    let longest = Authenticator { id: vec![4; 1_023], ..good };
    assert_eq!(
        log_in(&mut registered(&Authenticator { counter: 0, ..longest.clone() }), 2, &longest).channel,
        CHANNEL
    );
}

/// covers: IDN-27, IDN-43
#[test]
fn an_assertion_is_by_this_key_for_this_challenge_on_this_page_with_its_user() {
    let good = Authenticator { counter: 5, ..Authenticator::new() };
    let other_key = P256Key::from_slice(&[8; 32]).unwrap();
    for (n, (authenticator, expected)) in [
        (Authenticator { flags: USER_PRESENT, ..good.clone() }, IdentityError::UserNotVerified),
        (Authenticator { page: "http://localhost:7444", ..good.clone() }, IdentityError::OtherPage),
        (Authenticator { page: "https://example.org", ..good.clone() }, IdentityError::OtherPage),
        (Authenticator { rp_id: "example.org", ..good.clone() }, IdentityError::OtherPage),
        (Authenticator { key: other_key, ..good.clone() }, IdentityError::ProofRefused),
        (Authenticator { answers: Some([1; 32]), ..good.clone() }, IdentityError::ProofRefused),
        (Authenticator { flags: good.flags | BACKUP_ELIGIBLE, ..good.clone() }, IdentityError::ProofRefused),
    ]
    .into_iter()
    .enumerate()
    {
        // One core each: of many failures only some are recorded.
        let mut core = registered(&Authenticator::new());
        assert_eq!(login_fails(&mut core, 10 + n as u8, &authenticator), expected);
    }
    let mut core = registered(&Authenticator::new());
    let challenge = ask(&mut core, 30, false, Some(PAGE)).unwrap();
    let made = Assertion { client_data: good.create(&challenge).client_data, ..good.get(&challenge) };
    assert_eq!(failed(&mut core, NOW, asserted(&challenge, made)), IdentityError::ProofRefused);
    let challenge = ask(&mut core, 31, false, Some(PAGE)).unwrap();
    let by_hash = AuthProof::ApiKeyHash(key_proof(&KEY, &challenge));
    let by_hash = AuthenticateRequest { proof: by_hash, ..answer(&challenge) };
    assert_eq!(failed(&mut core, NOW, by_hash), IdentityError::ProofRefused, "a proof of another kind");
    let challenge = ask(&mut core, 32, false, Some(PAGE)).unwrap();
    let late = asserted(&challenge, good.get(&challenge));
    assert_eq!(failed(&mut core, challenge.expires_at, late), IdentityError::ChallengeExpired);
    let challenge = ask(&mut core, 33, false, Some(PAGE)).unwrap();
    let request = asserted(&challenge, good.get(&challenge));
    logged_in(&mut core, NOW, request.clone());
    let later = NOW.saturating_add(FAILURE_WINDOW_NS);
    assert_eq!(failed(&mut core, later, request), IdentityError::ChallengeUnknown, "a replay");
}

/// covers: IDN-45
#[test]
fn a_counter_that_does_not_advance_is_that_of_a_copy() {
    let mut authenticator = Authenticator { counter: 5, ..Authenticator::new() };
    let mut core = registered(&authenticator);
    for (n, counter) in [5, 4, 0].into_iter().enumerate() {
        authenticator.counter = counter;
        let error = login_fails(&mut core, 10 + n as u8, &authenticator);
        assert_eq!(error, IdentityError::PasskeyCopied, "{counter}");
    }
    authenticator.counter = 6;
    log_in(&mut core, 20, &authenticator);
    assert_eq!(login_fails(&mut core, 21, &authenticator), IdentityError::PasskeyCopied);
    authenticator.counter = u32::MAX;
    log_in(&mut core, 22, &authenticator);
    assert_eq!(counter(&core), u32::MAX);
    authenticator.counter = 0;
    let mut core = registered(&authenticator);
    log_in(&mut core, 20, &authenticator);
    log_in(&mut core, 21, &authenticator);
    assert_eq!(counter(&core), 0, "some count nothing");
}

/// covers: IDN-45
#[test]
fn the_fold_takes_no_counter_that_stands_still() {
    for (stored, reported, taken, stands) in [
        (0, Some(0), true, 0),
        (0, Some(1), true, 1),
        (5, Some(6), true, 6),
        (5, Some(5), false, 5),
        (5, Some(4), false, 5),
        (5, Some(0), false, 5),
        (5, None, false, 5),
    ] {
        let core = registered(&Authenticator { counter: stored, ..Authenticator::new() });
        let mut credentials = core.registry().credentials().clone();
        let used = credentials.used(&id_of(&core, "admin"), &CREDENTIAL, reported);
        let CredentialBody::Passkey { sign_count, .. } = credentials.get(&CREDENTIAL).unwrap().body else {
            panic!()
        };
        assert_eq!((used, sign_count), (taken, stands), "{stored} {reported:?}");
    }
}

#[test]
fn one_authenticator_is_not_added_twice_at_a_time() {
    let authenticator = Authenticator::new();
    let mut core = core();
    let challenge = ask(&mut core, 1, true, Some(PAGE)).unwrap();
    let request = adding(&core, authenticator.create(&challenge));
    only_act(&core.step(NOW, Event::AddCredential { id: ID, request }));
    for (n, (id, expected)) in
        [(authenticator.id.clone(), Some(IdentityError::PasskeyKnown)), (vec![5; 32], None)]
            .into_iter()
            .enumerate()
    {
        let n = 30 + n as u8;
        let credential = CredentialId([n; 16]);
        let effects = core.step(
            NOW,
            Event::RequestChallenge {
                id: RequestId(2),
                credential,
                adding: true,
                origin: Some(PAGE.to_owned()),
                channel: CHANNEL.to_owned(),
                random: ([n; 16], [n; 32]),
            },
        );
        let [Effect::Reply { result: Ok(Reply::Challenge(challenge)), .. }] = &effects[..] else {
            panic!("{effects:?}")
        };
        let made = Authenticator { id, ..authenticator.clone() }.create(challenge);
        let request = AddCredentialRequest { credential, ..adding(&core, made) };
        let effects = core.step(NOW, Event::AddCredential { id: RequestId(2), request });
        assert_eq!(outcome(&effects).err(), expected);
    }
}

/// covers: IDN-45
#[test]
fn one_counter_logs_in_once_however_fast_it_is_shown() {
    let authenticator = Authenticator { counter: 5, ..Authenticator::new() };
    let mut core = registered(&Authenticator::new());
    let (first, second) =
        (ask(&mut core, 2, false, Some(PAGE)).unwrap(), ask(&mut core, 3, false, Some(PAGE)).unwrap());
    let act = only_act(&authenticate(&mut core, NOW, asserted(&first, authenticator.get(&first))));
    core.step(NOW, Event::Acted { id: ID, result: Ok(at(60)) });
    let effects = authenticate(&mut core, NOW, asserted(&second, authenticator.get(&second)));
    assert_eq!(only_error(&effects), IdentityError::Busy(1), "the first is not folded yet");
    fold(&mut core, 60, NOW, &act.proposal);
    assert_eq!(login_fails(&mut core, 4, &authenticator), IdentityError::PasskeyCopied);
}

#[test]
fn a_passkey_is_known_once_and_challenged_for_a_page() {
    let authenticator = Authenticator::new();
    let mut core = registered(&authenticator);
    assert_eq!(ask(&mut core, 2, false, None), Err(IdentityError::Origin));
    assert!(matches!(ask(&mut core, 2, true, Some(PAGE)), Err(IdentityError::Busy(_))), "the id is taken");
    let mut other = IdentityCore::default();
    std::mem::swap(&mut other, &mut core);
    let fresh = CredentialId([9; 16]);
    let effects = other.step(
        NOW,
        Event::RequestChallenge {
            id: ID,
            credential: fresh,
            adding: true,
            origin: Some(PAGE.to_owned()),
            channel: CHANNEL.to_owned(),
            random: ([9; 16], [9; 32]),
        },
    );
    let [Effect::Reply { result: Ok(Reply::Challenge(challenge)), .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    let request =
        AddCredentialRequest { credential: fresh, ..adding(&other, authenticator.create(challenge)) };
    assert_eq!(refused(&mut other, NOW, request), IdentityError::PasskeyKnown);
    let mut core = with(recovery_key());
    assert_eq!(ask(&mut core, 3, false, Some(PAGE)), Err(IdentityError::Origin), "other kinds have no page");
    let challenge = ask(&mut core, 4, false, None).unwrap();
    let request = asserted(&challenge, authenticator.get(&challenge));
    assert_eq!(failed(&mut core, NOW, request), IdentityError::ProofRefused);
}

#[test]
fn pages_are_of_this_machine_and_written_one_way() {
    for (page, taken) in [
        ("http://localhost", true),
        ("http://localhost:1", true),
        ("http://localhost:65535", true),
        ("http://localhost:65536", false),
        ("http://localhost:0", false),
        ("http://localhost:80", false),
        ("http://localhost:080", false),
        ("http://localhost:+81", false),
        ("http://localhost/", false),
        ("http://localhost:7443/x", false),
        ("http://localhost.example.org", false),
        ("http://127.0.0.1:7443", false),
        ("https://localhost", false),
        ("", false),
    ] {
        let asked = ask(&mut core(), 1, true, Some(page));
        assert_eq!(asked.is_ok(), taken, "{page}: {asked:?}");
    }
}

#[test]
fn what_is_too_long_is_not_read() {
    let full = Authenticator { padding: CLIENT_DATA_BYTES_MAX, counter: 5, ..Authenticator::new() };
    let over = Authenticator { padding: CLIENT_DATA_BYTES_MAX + 1, ..full.clone() };
    let mut core = core();
    let too_long = IdentityError::Registration("it has too many bytes");
    let challenge = ask(&mut core, 1, true, Some(PAGE)).unwrap();
    let request = adding(&core, over.create(&challenge));
    assert_eq!(refused(&mut core, NOW, request), too_long);
    for (n, (bytes, expected)) in [
        (ATTESTATION_BYTES_MAX, IdentityError::Registration("webauthn-rs refuses it")),
        (ATTESTATION_BYTES_MAX + 1, too_long.clone()),
    ]
    .into_iter()
    .enumerate()
    {
        let challenge = ask(&mut core, 2 + n as u8, true, Some(PAGE)).unwrap();
        let registration = Registration { attestation_object: vec![0; bytes], ..full.create(&challenge) };
        let request = adding(&core, registration);
        assert_eq!(refused(&mut core, NOW, request), expected);
    }
    let mut core = registered(&Authenticator { counter: 1, ..full.clone() });
    assert_eq!(login_fails(&mut core, 5, &over), IdentityError::ProofRefused);
    let challenge = ask(&mut core, 6, false, Some(PAGE)).unwrap();
    let data = vec![0; AUTHENTICATOR_DATA_BYTES_MAX + 1];
    let long = Assertion { authenticator_data: data, ..full.get(&challenge) };
    assert_eq!(failed(&mut core, NOW, asserted(&challenge, long)), IdentityError::ProofRefused);
    let challenge = ask(&mut core, 7, false, Some(PAGE)).unwrap();
    let signature = vec![0; ASSERTION_SIGNATURE_BYTES_MAX + 1];
    let long = Assertion { signature, ..full.get(&challenge) };
    assert_eq!(failed(&mut core, NOW, asserted(&challenge, long)), IdentityError::ProofRefused);
    log_in(&mut core, 8, &full);
}

proptest! {
    /// What comes from outside is refused, whatever it is.
    #[test]
    fn a_spoilt_registration_or_assertion_is_refused_or_the_same(
        at in any::<prop::sample::Index>(), with in 1_u8.., cut in any::<bool>(),
    ) {
        let authenticator = Authenticator { counter: 5, ..Authenticator::new() };
        let spoil = |bytes: &mut Vec<u8>| {
            let at = at.index(bytes.len());
            match cut {
                true => bytes.truncate(at),
                false => bytes[at] ^= with,
            }
        };
        let mut core = core();
        let challenge = ask(&mut core, 1, true, Some(PAGE)).unwrap();
        let mut registration = authenticator.create(&challenge);
        spoil(&mut registration.attestation_object);
        let request = adding(&core, registration);
        let _ = core.step(NOW, Event::AddCredential { id: ID, request });
        let mut core = registered(&Authenticator::new());
        for (n, part) in [0, 1, 2].into_iter().enumerate() {
            let challenge = ask(&mut core, 10 + n as u8, false, Some(PAGE)).unwrap();
            let mut assertion = authenticator.get(&challenge);
            spoil(match part {
                0 => &mut assertion.client_data,
                1 => &mut assertion.authenticator_data,
                _ => &mut assertion.signature,
            });
            failed(&mut core, NOW, asserted(&challenge, assertion));
        }
    }
}
