use super::*;

const PLAIN: [u8; 32] = [0x5a; 32];
const ENTROPY: [u8; SEAL_ENTROPY_BYTES] = [9; SEAL_ENTROPY_BYTES];
const WORDS: &[u8] = b"correct horse battery staple";
const CHEAP: StretchCost = COST_MIN;
const POLICY: Contents = Contents::SigningKey(Signer::Policy);
const ALL: [Contents; 5] = [
    Contents::Seed,
    Contents::SigningKey(Signer::Sequencer),
    POLICY,
    Contents::SigningKey(Signer::Identity),
    Contents::SigningKey(Signer::Node),
];

fn counting() -> [u8; 32] {
    std::array::from_fn(|n| n as u8)
}

fn opened(contents: Contents, sealed: &[u8], kind: SecretKind, secret: &[u8]) -> Result<[u8; 32], SealError> {
    let mut plain = [1; 32];
    open(contents, sealed, kind, secret, &mut plain).map(|()| plain).inspect_err(|error| {
        let zeroed = plain == [0; 32] || plain == [1; 32];
        assert!(zeroed, "{error}: something of the secret was left behind");
    })
}

/// covers: KEY-41, KEY-43
#[test]
fn each_kind_of_secret_opens_what_it_sealed_and_no_other_does() {
    for (kind, secret) in [
        (SecretKind::KeyFile, &[3; 32][..]),
        (SecretKind::Credential, &[4; 16]),
        (SecretKind::Passphrase, WORDS),
    ] {
        for contents in [Contents::Seed, POLICY] {
            let sealed = seal(contents, &PLAIN, kind, secret, &ENTROPY).unwrap();
            assert_eq!((sealed.len(), sealed_by(&sealed)), (SEALED_BYTES, Ok(kind)));
            assert_eq!(opened(contents, &sealed, kind, secret), Ok(PLAIN));
            assert!(!sealed.windows(8).any(|w| w == &PLAIN[..8]), "the secret is readable");
            let mut other = secret.to_vec();
            other[0] ^= 1;
            assert_eq!(opened(contents, &sealed, kind, &other), Err(SealError::Refused));
            let given =
                if kind == SecretKind::Passphrase { SecretKind::Credential } else { SecretKind::Passphrase };
            let refused = Err(SealError::OtherKind { sealed_by: kind, given });
            assert_eq!(opened(contents, &sealed, given, WORDS), refused);
        }
    }
}

/// With the same secret and the same salt: what tells the contents apart is neither.
#[test]
fn what_was_sealed_as_one_thing_opens_as_no_other() {
    for (kind, secret, cost) in [
        (SecretKind::KeyFile, &[3; 32][..], SecretKind::KeyFile.cost()),
        (SecretKind::Credential, &[4; 16], CHEAP),
    ] {
        let mut bodies = Vec::new();
        for found in ALL {
            let sealed = seal_at_cost(found, &PLAIN, kind, cost, secret, &ENTROPY).unwrap();
            for wanted in ALL {
                let result = opened(wanted, &sealed, kind, secret);
                let expected =
                    if wanted == found { Ok(PLAIN) } else { Err(SealError::OtherContents { wanted, found }) };
                assert_eq!(result, expected);
                // Renamed by hand: the key of the contents that it claims does not open it.
                if wanted != found {
                    let mut claimed = sealed.clone();
                    claimed[..16].copy_from_slice(magic(wanted));
                    claimed[19] = wanted.code();
                    assert_eq!(opened(wanted, &claimed, kind, secret), Err(SealError::Refused));
                }
            }
            bodies.push(sealed[HEADER_BYTES..][..32].to_vec());
        }
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), ALL.len(), "two contents share a sealing key");
    }
}

#[test]
fn magic_and_contents_belong_together() {
    let sealed = seal(POLICY, &PLAIN, SecretKind::KeyFile, &[3; 32], &ENTROPY).unwrap();
    let mut seed_in_name = sealed.clone();
    seed_in_name[..16].copy_from_slice(SEED_MAGIC);
    assert_eq!(sealed_by(&seed_in_name), Err(SealError::Contents(2)));
    for code in [0, 5, 255] {
        let mut unknown = sealed.clone();
        unknown[19] = code;
        assert_eq!(sealed_by(&unknown), Err(SealError::Contents(code)), "no signing key");
    }
    assert!(ALL.iter().all(|contents| Contents::from_code(contents.code()) == Some(*contents)));
}

/// The file that the tests of the boundary start from, and the format's fixed vector.
#[test]
fn the_fixed_file_opens() {
    let file = include_bytes!("counting-seed.sealed");
    assert_eq!(opened(Contents::Seed, file, SecretKind::KeyFile, &[1; 32]), Ok(counting()));
    assert_eq!(seal(Contents::Seed, &counting(), SecretKind::KeyFile, &[1; 32], &ENTROPY).unwrap(), file);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_vectors_of_the_format_hold() {
    let key = Contents::SigningKey(Signer::Sequencer);
    let sealed = |contents, kind, secret| seal(contents, &counting(), kind, secret, &ENTROPY).unwrap();
    let made = [
        ("sealed-seed", sealed(Contents::Seed, SecretKind::KeyFile, &[1; 32][..])),
        ("sealed-sequencer-key", sealed(key, SecretKind::KeyFile, &[1; 32])),
        ("sealed-sequencer-key-by-credential", sealed(key, SecretKind::Credential, &[2; 16])),
    ];
    let lines: String = made.iter().map(|(name, bytes)| format!("{name}: {}\n", hex(bytes))).collect();
    let format = include_str!("../../../docs/format.md");
    let block = format.split("```sealed\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(block, lines);
}

#[test]
fn every_flipped_bit_of_the_file_is_refused() {
    let secret = [3; 32];
    for contents in [Contents::Seed, POLICY] {
        let sealed = seal(contents, &PLAIN, SecretKind::KeyFile, &secret, &ENTROPY).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = opened(contents, &bad, SecretKind::KeyFile, &secret).unwrap_err();
            let expected = match bit / 8 {
                0..16 => matches!(error, SealError::Magic),
                16..18 => matches!(error, SealError::Version(_)),
                18 => matches!(error, SealError::Kind(_) | SealError::Cost(_) | SealError::OtherKind { .. }),
                19 => matches!(error, SealError::Contents(_) | SealError::OtherContents { .. }),
                20..32 => matches!(error, SealError::Cost(_)),
                _ => error == SealError::Refused,
            };
            assert!(expected, "{contents} bit {bit}: {error}");
        }
    }
}

#[test]
fn recorded_cost_is_authenticated_too() {
    let sealed =
        seal_at_cost(Contents::Seed, &PLAIN, SecretKind::Passphrase, CHEAP, WORDS, &ENTROPY).unwrap();
    assert_eq!(opened(Contents::Seed, &sealed, SecretKind::Passphrase, WORDS), Ok(PLAIN));
    for byte in [20, 24, 28] {
        let mut bad = sealed.clone();
        bad[byte] += 1;
        let result = opened(Contents::Seed, &bad, SecretKind::Passphrase, WORDS);
        assert_eq!(result, Err(SealError::Refused), "byte {byte}");
    }
    // Same key, other header: only the associated data tells.
    let mut credential = sealed;
    credential[18] = SecretKind::Credential.code();
    assert_eq!(opened(Contents::Seed, &credential, SecretKind::Credential, WORDS), Err(SealError::Refused));
}

#[test]
fn a_format_from_the_future_and_a_wrong_length_are_named() {
    let sealed = seal(Contents::Seed, &PLAIN, SecretKind::KeyFile, &[3; 32], &ENTROPY).unwrap();
    let mut future = sealed.clone();
    future[16] = 2;
    future.push(0);
    assert_eq!(sealed_by(&future), Err(SealError::Version(2)));
    let mut long = sealed.clone();
    long.push(0);
    assert_eq!(sealed_by(&long), Err(SealError::Length(SEALED_BYTES + 1)));
    for length in 0..SEALED_BYTES {
        assert!(matches!(sealed_by(&sealed[..length]), Err(SealError::Length(_))), "{length}");
    }
}

#[test]
fn cost_is_bounded_before_it_is_paid() {
    let with = |memory_kib, passes, lanes| {
        check_cost(SecretKind::Passphrase, StretchCost { memory_kib, passes, lanes }).is_ok()
    };
    let (min, max) = (COST_MIN, COST_MAX);
    assert!(with(min.memory_kib, min.passes, min.lanes) && with(max.memory_kib, max.passes, max.lanes));
    assert!(!with(min.memory_kib - 1, 1, 1) && !with(max.memory_kib + 1, 1, 1));
    assert!(!with(min.memory_kib, 0, 1) && !with(min.memory_kib, max.passes + 1, 1));
    assert!(!with(min.memory_kib, 1, 0) && !with(min.memory_kib, 1, max.lanes + 1));
}

#[test]
fn secrets_have_their_lengths() {
    for (kind, min, max) in [
        (SecretKind::KeyFile, 32, 32),
        (SecretKind::Credential, CREDENTIAL_BYTES_MIN, SECRET_BYTES_MAX),
        (SecretKind::Passphrase, PASSPHRASE_BYTES_MIN, SECRET_BYTES_MAX),
    ] {
        for (length, legal) in [(min - 1, false), (min, true), (max, true), (max + 1, false)] {
            assert_eq!(kind.check(&vec![1; length]).is_ok(), legal, "{kind:?} {length}");
        }
    }
}

/// Names travel between processes and stand in errors.
#[test]
fn kinds_and_contents_have_the_names_that_are_written() {
    assert_eq!(
        SecretKind::ALL.map(SecretKind::name),
        ["key_file", "credential", "passphrase", "tpm2", "root_seed"]
    );
    for kind in SecretKind::ALL {
        assert_eq!(SecretKind::from_name(kind.name()), Some(kind));
    }
    assert_eq!(SecretKind::from_name("Passphrase"), None);
    assert_eq!(Contents::Seed.to_string(), "root seed");
    assert_eq!(POLICY.to_string(), "policy signing key");
    assert_eq!((SEALED_BYTES, SEAL_ENTROPY_BYTES), (136, 56));
    assert_eq!(COST_MAX, StretchCost { memory_kib: 262_144, passes: 16, lanes: 4 });
}
