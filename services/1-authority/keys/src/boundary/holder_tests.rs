use super::*;
use crate::core::Plain;
use base::Hash;

fn counting(buffer: &mut [u8]) -> bool {
    buffer.iter_mut().zip(0..).for_each(|(byte, n)| *byte = n);
    true
}

fn sealing(kind: SecretKind, secret: &[u8]) -> Option<Sealing> {
    let read = |buffer: &mut [u8]| {
        buffer[..secret.len()].copy_from_slice(secret);
        Ok(secret.len())
    };
    Some(Sealing::read(kind, read).unwrap())
}

fn holder(secret: &[u8; 32]) -> Holder {
    Holder::new(sealing(SecretKind::KeyFile, secret), counting).unwrap()
}

fn path() -> KeyPath {
    KeyPath::parse("/orbital/users/alice/signing").unwrap()
}

fn state(holder: &mut Holder) -> (BoundaryState, Option<SecretKind>) {
    match holder.answer(Request::Status) {
        Response::Status { state, secret, .. } => (state, secret),
        other => panic!("{other:?}"),
    }
}

fn create(holder: &mut Holder) -> Vec<u8> {
    match holder.answer(Request::Create { sealing: SecretKind::KeyFile }) {
        Response::Created { sealed } => sealed,
        other => panic!("{other:?}"),
    }
}

/// covers: KEY-25
#[test]
fn a_seed_made_sealed_and_opened_elsewhere_gives_the_same_keys() {
    let mut first = holder(&[1; 32]);
    assert_eq!(state(&mut first), (BoundaryState::Empty, Some(SecretKind::KeyFile)));
    assert_eq!(
        first.answer(Request::PublicKey { path: path(), epoch: 0 }),
        Response::Refused(Refusal::Locked)
    );
    let sealed = create(&mut first);
    assert_eq!(state(&mut first), (BoundaryState::Ready, None), "the secret is dropped");
    let mut second = holder(&[1; 32]);
    assert_eq!(second.answer(Request::Unseal { sealed }), Response::Unsealed);
    let ask = || Request::Sign { path: path(), message: Hash([7; 32]), epoch: 0 };
    let signed = second.answer(ask());
    assert_eq!(signed, first.answer(ask()));
    // The seed of counting bytes is the one of the fixed vectors.
    let public_key = "88848f5b82a818a92c943b4ddd79320df2d5689ab0fcfc6fd7f6359844c757c5".parse().unwrap();
    let public_key = VerifyingKey::Ed25519(public_key);
    assert!(matches!(signed, Response::Signed { public_key: key, .. } if key == public_key));
    let told = first.answer(Request::PublicKey { path: path(), epoch: 0 });
    assert!(matches!(told, Response::PublicKey { public_key: key, .. } if key == public_key));
    // What one encrypts, the other opens, under the same path alone.
    let encrypt = Request::Encrypt { path: path(), plain: Plain::new(b"hello".to_vec()), epoch: 0 };
    let Response::Encrypted { sealed } = first.answer(encrypt) else { panic!() };
    let decrypt = |path| Request::Decrypt { path, sealed: sealed.clone() };
    let plain = Plain::new(b"hello".to_vec());
    assert_eq!(second.answer(decrypt(path())), Response::Decrypted { plain });
    let other = KeyPath::parse("/orbital/users/alice").unwrap();
    assert!(matches!(second.answer(decrypt(other)), Response::Refused(Refusal::Encryption(_))));
}

fn sshsig(namespace: &str) -> Vec<u8> {
    let mut bytes = b"SSHSIG".to_vec();
    for field in [namespace.as_bytes(), b"", b"sha512", &[1; 64]] {
        bytes.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
        bytes.extend(field);
    }
    bytes
}

#[test]
fn a_key_with_a_purpose_signs_its_format_and_nothing_else() {
    let mut holder = holder(&[1; 32]);
    create(&mut holder);
    let ssh = || path().child("@ssh").unwrap();
    let bytes = |path: KeyPath, message: Vec<u8>| Request::SignBytes { path, message, epoch: 0 };
    let Response::Signed { signature, public_key } = holder.answer(bytes(ssh(), sshsig("git"))) else {
        panic!()
    };
    let VerifyingKey::Ed25519(key) = public_key else { panic!() };
    assert_eq!(crate::core::verify(&key, &sshsig("git"), &signature), Ok(true));
    let told = holder.answer(Request::PublicKey { path: ssh(), epoch: 0 });
    assert_eq!(told, Response::PublicKey { public_key, exchange_key: None });
    let plain = Plain::new(b"hello".to_vec());
    let Response::Encrypted { sealed } =
        holder.answer(Request::Encrypt { path: path(), plain: plain.clone(), epoch: 0 })
    else {
        panic!()
    };
    let jwt = || path().child("@jwt").unwrap();
    let attacks = [
        Request::Sign { path: ssh(), message: Hash([7; 32]), epoch: 0 },
        Request::Encrypt { path: ssh(), plain: plain.clone(), epoch: 0 },
        Request::Decrypt { path: ssh(), sealed: sealed.clone() },
        bytes(path(), sshsig("git")),
        bytes(ssh(), sshsig("mail")),
        bytes(ssh(), vec![7; 32]),
        bytes(jwt(), sshsig("git")),
        bytes(path().child("@x509").unwrap(), sshsig("git")),
        Request::Sign { path: jwt(), message: Hash([7; 32]), epoch: 0 },
        Request::Encrypt { path: jwt(), plain: plain.clone(), epoch: 0 },
        bytes(ssh().child("below").unwrap(), sshsig("git")),
        Request::PublicKey { path: KeyPath::parse("/@jwt").unwrap(), epoch: 0 },
    ];
    for attack in &attacks {
        let answer = holder.answer(attack.clone());
        assert!(matches!(answer, Response::Refused(Refusal::Purpose(_))), "{attack:?}: {answer:?}");
    }
    // What `prove` must notice the absence of: the same are carried out, but for what there is no key of.
    holder.forget_purposes();
    for attack in attacks.iter().filter(|attack| !matches!(attack, Request::PublicKey { .. })) {
        let answer = holder.answer(attack.clone());
        assert!(!matches!(answer, Response::Refused(Refusal::Purpose(_))), "{attack:?}: {answer:?}");
    }
}

#[test]
fn certificates_and_tokens_are_signed_by_the_authority_that_the_path_names() {
    let mut holder = holder(&[1; 32]);
    create(&mut holder);
    // The seed of counting bytes, and the path of the fixed vectors.
    let authority = || KeyPath::parse("/orbital/services/identity/node-a/@x509").unwrap();
    let Response::PublicKey { public_key: VerifyingKey::P256(key), exchange_key: None } =
        holder.answer(Request::PublicKey { path: authority(), epoch: 0 })
    else {
        panic!()
    };
    let domain = svid::TrustDomain::parse("node-a").unwrap();
    let own = svid::Certificate {
        serial: svid::serial([1; svid::SERIAL_BYTES]),
        subject: svid::Subject::Authority(domain.clone()),
        key,
        not_before_s: 0,
        not_after_s: 1,
    };
    let message = own.to_sign(&key).unwrap();
    let ask = |path, message: &[u8]| Request::SignBytes { path, message: message.to_vec(), epoch: 0 };
    let answer = holder.answer(ask(authority(), &message));
    let Response::Signed { signature, public_key } = answer else { panic!("{answer:?}") };
    assert_eq!(public_key, VerifyingKey::P256(key));
    assert!(key.verify(&message, &signature.0));
    // The same bytes with the key of another trust domain, and another authority with this key.
    let elsewhere = KeyPath::parse("/orbital/services/identity/node-b/@x509").unwrap();
    let other =
        svid::Certificate { key: es256(&DerivedKey::derive(&[1; 32], &elsewhere, 0)).unwrap().1, ..own };
    let attacks = [ask(elsewhere, &message), ask(authority(), &other.to_sign(&other.key).unwrap())];
    for attack in attacks {
        let answer = holder.answer(attack.clone());
        assert!(matches!(answer, Response::Refused(Refusal::Purpose(_))), "{attack:?}: {answer:?}");
    }
}

#[test]
fn a_seed_is_never_replaced() {
    let mut ready = holder(&[1; 32]);
    let sealed = create(&mut ready);
    let again = Request::Create { sealing: SecretKind::KeyFile };
    assert_eq!(ready.answer(again.clone()), Response::Refused(Refusal::HasSeed));
    assert_eq!(ready.answer(Request::Unseal { sealed: sealed.clone() }), Response::Refused(Refusal::HasSeed));
    let mut locked = holder(&[2; 32]);
    assert!(matches!(locked.answer(Request::Unseal { sealed }), Response::Refused(Refusal::Seal(_))));
    assert!(matches!(state(&mut locked), (BoundaryState::Locked { .. }, Some(_))));
    assert_eq!(locked.answer(again), Response::Refused(Refusal::HasSeed));
    assert_eq!(
        locked.answer(Request::PublicKey { path: path(), epoch: 0 }),
        Response::Refused(Refusal::Locked)
    );
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.as_bytes().chunks(2).map(byte).collect()
}

#[test]
fn each_epoch_has_a_key_of_its_own_and_opens_what_was_encrypted_in_it() {
    let mut holder = holder(&[1; 32]);
    create(&mut holder);
    let mut key = |epoch| match holder.answer(Request::PublicKey { path: path(), epoch }) {
        Response::PublicKey { public_key, exchange_key } => (public_key, exchange_key.unwrap()),
        other => panic!("{other:?}"),
    };
    let keys: std::collections::BTreeSet<_> = [0, 1, 2, 256].map(|epoch| format!("{:?}", key(epoch))).into();
    assert_eq!(keys.len(), 4);
    // As docs/format.md has it, computed with PyNaCl and Python's hmac.
    assert_eq!(key(1).1.to_string(), "a73c9c798c8971696206ed6dc3386738439710f92c753bbab2399801a88fe960");
    let vector = "0201000000018f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f\
                  202122232425262728292a2b2c2d2e2f3031323334353637\
                  14e391e8bdb2bb5cc447b9164fa7936a7efb9662a27617cba582b2068999";
    let sealed = hex(vector);
    let plain = Plain::new(b"attack at dawn".to_vec());
    let opened = holder.answer(Request::Decrypt { path: path(), sealed: sealed.clone() });
    assert_eq!(opened, Response::Decrypted { plain });
    let mut other = sealed;
    other[1] = 2;
    let refused = holder.answer(Request::Decrypt { path: path(), sealed: other });
    assert!(matches!(refused, Response::Refused(Refusal::Encryption(_))), "{refused:?}");
    for epoch in [0, 1, 7] {
        let plain = Plain::new(b"hello".to_vec());
        let encrypt = Request::Encrypt { path: path(), plain: plain.clone(), epoch };
        let Response::Encrypted { sealed } = holder.answer(encrypt) else { panic!() };
        assert_eq!(sealed.first(), Some(&if epoch == 0 { 1 } else { 2 }));
        let opened = holder.answer(Request::Decrypt { path: path(), sealed });
        assert_eq!(opened, Response::Decrypted { plain });
    }
}

fn message(kind: u8, secret: &[u8]) -> Vec<u8> {
    [&[kind], secret].concat()
}

/// covers: KEY-32
#[test]
fn a_locked_boundary_does_nothing_until_it_is_armed_and_gets_the_right_secret() {
    let mut holder = holder(&[1; 32]);
    let sealed = create(&mut holder);
    let public = holder.answer(Request::PublicKey { path: path(), epoch: 0 });
    holder.sealed = Some(sealed);
    assert_eq!(holder.answer(Request::Arm), Response::Refused(Refusal::HasSeed));
    assert_eq!(holder.answer(Request::Lock), Response::Locked);
    assert!(holder.seed.as_slice().iter().all(|byte| *byte == 0), "the seed is wiped");
    let asks = [
        Request::PublicKey { path: path(), epoch: 0 },
        Request::Sign { path: path(), message: Hash([7; 32]), epoch: 0 },
        Request::SignBytes { path: path().child("@ssh").unwrap(), message: sshsig("git"), epoch: 0 },
        Request::Encrypt { path: path(), plain: Plain::new(b"hello".to_vec()), epoch: 0 },
        Request::Decrypt { path: path(), sealed: vec![1; 80] },
        Request::Seal,
    ];
    for ask in &asks {
        assert_eq!(holder.answer(ask.clone()), Response::Refused(Refusal::Locked), "{ask:?}");
    }
    let right = message(0, &[1; 32]);
    assert_eq!(holder.unlock(&right), Response::Refused(Refusal::NotArmed), "nobody allowed it");
    assert_eq!(holder.answer(Request::Arm), Response::Armed);
    assert_eq!(holder.unlock(&right), Response::Unsealed);
    assert_eq!(holder.answer(Request::PublicKey { path: path(), epoch: 0 }), public);
    // It is locked again, and the leave from before is used up.
    assert_eq!(holder.answer(Request::Lock), Response::Locked);
    assert_eq!(holder.unlock(&right), Response::Refused(Refusal::NotArmed));
    assert_eq!(holder.answer(Request::Arm), Response::Armed);
    for wrong in [vec![], vec![9], message(0, &[2; 32]), message(0, &[1; 31]), message(2, &[1; 2000])] {
        assert!(matches!(holder.unlock(&wrong), Response::Refused(_)), "{wrong:?}");
    }
    assert_eq!(holder.unlock(&right), Response::Refused(Refusal::NotArmed), "one more than the tries");
    assert_eq!(holder.answer(Request::Arm), Response::Armed);
    holder.armed = Some((Instant::now(), UNLOCK_TRIES_MAX));
    assert_eq!(holder.unlock(&right), Response::Refused(Refusal::NotArmed), "too late");
    // What `prove` must notice the absence of.
    holder.answer(Request::Arm);
    assert_eq!(holder.unlock(&right), Response::Unsealed);
    holder.forget_locks();
    assert_eq!(holder.answer(Request::Lock), Response::Locked);
    assert_eq!(holder.answer(Request::PublicKey { path: path(), epoch: 0 }), public);
}

#[test]
fn what_was_handed_over_is_opened_by_the_first_question_and_not_at_all_after_a_lock() {
    let sealed = create(&mut holder(&[1; 32]));
    let started = || {
        let mut started = holder(&[1; 32]);
        started.hold(sealed.clone());
        started
    };
    let mut open = started();
    assert_eq!(state(&mut open), (BoundaryState::Ready, None));
    let mut locked = started();
    assert_eq!(locked.answer(Request::Lock), Response::Locked);
    assert!(matches!(state(&mut locked), (BoundaryState::Locked { .. }, None)), "the secret is gone, too");
    assert_eq!(
        locked.answer(Request::PublicKey { path: path(), epoch: 0 }),
        Response::Refused(Refusal::Locked)
    );
}

fn temporary(content: &[u8]) -> (tempfile::NamedTempFile, OwnedFd) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let fd = OwnedFd::from(file.reopen().unwrap());
    (file, fd)
}

/// covers: KEY-18
#[test]
fn words_go_to_their_place_alone_and_bring_seed_and_signing_keys_back() {
    let mut first = holder(&[1; 32]);
    assert_eq!(first.answer(Request::WriteWords), Response::Refused(Refusal::Locked));
    create(&mut first);
    assert_eq!(first.answer(Request::WriteWords), Response::Refused(Refusal::NoPlace));
    let (page, place) = temporary(b"");
    first.words_at(Some(place));
    assert_eq!(first.answer(Request::WriteWords), Response::WordsWritten);
    assert_eq!(first.answer(Request::ReadWords), Response::Refused(Refusal::HasSeed));
    let phrase: Vec<String> = std::fs::read_to_string(page.path())
        .unwrap()
        .split_whitespace()
        .filter(|word| word.parse::<u8>().is_err())
        .map(str::to_owned)
        .collect();
    assert_eq!(phrase.len(), 24);

    // A signing key, sealed by a key file, copied under the seed.
    let (key, by) = ([0x33; 32], [7; 32]);
    let contents = Contents::SigningKey(Signer::Policy);
    let sealed = seal::seal(contents, &key, SecretKind::KeyFile, &by, &[5; SEAL_ENTROPY_BYTES]).unwrap();
    let ask = |signer: u8, sealed: &[u8]| Request::Copy { signer, sealed: sealed.to_vec() };
    assert_eq!(first.answer(ask(1, &sealed)), Response::Refused(Refusal::NoNextSecret));
    first.seal_next_by(sealing(SecretKind::KeyFile, &by));
    assert_eq!(first.answer(ask(4, &sealed)), Response::Refused(Refusal::NoSigner(4)));
    assert!(matches!(first.answer(ask(0, &sealed)), Response::Refused(Refusal::Seal(_))), "another signer's");
    let Response::Resealed { sealed: copy, public_key } = first.answer(ask(1, &sealed)) else { panic!() };
    assert_eq!(public_key, public_half(&key));
    assert_eq!(seal::sealed_by(&copy), Ok(SecretKind::RootSeed));

    // Elsewhere, with nothing but the words and the copy.
    let (_typed, place) = temporary(format!("{}\n", phrase.join(" ")).as_bytes());
    let mut second = Holder::new(None, counting).unwrap();
    assert_eq!(second.answer(Request::ReadWords), Response::Refused(Refusal::NoPlace));
    second.words_at(Some(place));
    assert_eq!(second.answer(Request::ReadWords), Response::WordsRead);
    let public = |holder: &mut Holder| holder.answer(Request::PublicKey { path: path(), epoch: 0 });
    assert_eq!(public(&mut second), public(&mut first));
    second.seal_next_by(sealing(SecretKind::KeyFile, &[8; 32]));
    let restore = Request::Restore { signer: 1, sealed: copy };
    let Response::Resealed { sealed, public_key } = second.answer(restore) else { panic!() };
    assert_eq!(public_key, public_half(&key));
    let mut opened = [0; 32];
    seal::open(contents, &sealed, SecretKind::KeyFile, &[8; 32], &mut opened).unwrap();
    assert_eq!(opened, key);

    // What is wrong is told by its place, and nothing was taken.
    let (_wrong, place) = temporary(format!("{} nonsense\n", phrase[..23].join(" ")).as_bytes());
    let mut third = Holder::new(None, counting).unwrap();
    third.words_at(Some(place));
    let refused = third.answer(Request::ReadWords);
    assert!(
        matches!(&refused, Response::Refused(Refusal::Words(why)) if why.starts_with("word 24 ")),
        "{refused:?}"
    );
    assert_eq!(state(&mut third).0, BoundaryState::Empty);
}

#[test]
fn an_open_seed_is_sealed_anew_by_the_next_secret_alone() {
    let mut old = holder(&[1; 32]);
    assert_eq!(old.answer(Request::Seal), Response::Refused(Refusal::Locked));
    let sealed = create(&mut old);
    assert_eq!(old.answer(Request::Seal), Response::Refused(Refusal::NoNextSecret));
    old.seal_next_by(sealing(SecretKind::Credential, b"a credential of some bytes"));
    let Response::Created { sealed: anew } = old.answer(Request::Seal) else { panic!() };
    assert_eq!(seal::sealed_by(&anew), Ok(SecretKind::Credential));
    let key = |holder: &mut Holder| holder.answer(Request::PublicKey { path: path(), epoch: 0 });
    let credential = sealing(SecretKind::Credential, b"a credential of some bytes");
    let mut new = Holder::new(credential, counting).unwrap();
    assert_eq!(new.answer(Request::Unseal { sealed: anew }), Response::Unsealed);
    assert_eq!(key(&mut new), key(&mut old));
    let credential = sealing(SecretKind::Credential, b"a credential of some bytes");
    let mut other = Holder::new(credential, counting).unwrap();
    assert!(matches!(other.answer(Request::Unseal { sealed }), Response::Refused(Refusal::Seal(_))));
}

#[test]
fn creation_needs_the_named_secret_and_entropy() {
    let mut other = holder(&[1; 32]);
    let asked = other.answer(Request::Create { sealing: SecretKind::Passphrase });
    assert_eq!(asked, Response::Refused(Refusal::NoSecret(SecretKind::Passphrase)));
    let mut without = Holder::new(None, counting).unwrap();
    let asked = without.answer(Request::Create { sealing: SecretKind::KeyFile });
    assert_eq!(asked, Response::Refused(Refusal::NoSecret(SecretKind::KeyFile)));
    let mut dry = Holder::new(sealing(SecretKind::KeyFile, &[1; 32]), |_| false).unwrap();
    let asked = dry.answer(Request::Create { sealing: SecretKind::KeyFile });
    assert_eq!(asked, Response::Refused(Refusal::NoEntropy));
    assert_eq!(state(&mut dry).0, BoundaryState::Empty);
}

#[test]
fn a_passphrase_loses_its_line_end_and_other_secrets_do_not() {
    assert_eq!(sealing(SecretKind::Passphrase, b"12345678\n").unwrap().secret(), b"12345678");
    assert_eq!(sealing(SecretKind::Credential, b"0123456789abcde\n").unwrap().secret().len(), 16);
    let long = vec![b'x'; SECRET_BYTES_MAX + 1];
    let read = |buffer: &mut [u8]| {
        buffer[..long.len()].copy_from_slice(&long);
        Ok(long.len())
    };
    assert!(matches!(Sealing::read(SecretKind::Passphrase, read), Err(SealingError::Length(_))));
}
