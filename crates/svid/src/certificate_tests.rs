use super::*;
use crate::key::tests::{public, signer};
use p256::ecdsa::signature::Verifier;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const FORMAT: &str = include_str!("../../../docs/format.md");

pub(crate) fn vector(name: &str) -> &'static str {
    let block = FORMAT.split_once("```svid\n").unwrap().1;
    block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap()
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn key(name: &str) -> P256Key {
    P256Key::from_bytes(&hex(vector(name))).unwrap()
}

fn domain() -> TrustDomain {
    TrustDomain::parse("node-a").unwrap()
}

fn serial_of_ones() -> [u8; SERIAL_BYTES] {
    let mut serial = [1; SERIAL_BYTES];
    serial[0] = 0x40;
    serial
}

fn authority() -> Certificate {
    Certificate {
        serial: serial_of_ones(),
        subject: Subject::Authority(domain()),
        key: key("x509-key"),
        not_before_s: 1_700_000_000,
        not_after_s: 1_700_000_000 + 10 * 365 * 86_400,
    }
}

fn workload() -> Certificate {
    Certificate {
        serial: serial_of_ones(),
        subject: Subject::Workload(domain().member(&["services", "web"]).unwrap()),
        key: public(&signer(1)),
        not_before_s: 1_700_000_000,
        not_after_s: 1_700_003_600,
    }
}

fn read(bytes: &[u8]) -> Result<Certificate, FormatError> {
    Certificate::read(bytes, &domain(), &key("x509-key"))
}

#[test]
fn certificates_are_those_of_the_fixed_vectors() {
    for (name, made) in [("authority", authority()), ("svid", workload())] {
        let signed = made.to_sign(&key("x509-key")).unwrap();
        assert_eq!(signed, hex(vector(&format!("{name}-tbs"))), "{name}");
        assert_eq!(read(&signed), Ok(made), "{name}");
        let signature: [u8; 64] = hex(vector(&format!("{name}-signature"))).try_into().unwrap();
        assert!(key("x509-key").verify(&signed, &signature), "{name}");
        let whole = certificate(&signed, &signature).unwrap();
        assert_eq!(Sha256::digest(&whole)[..], hex(vector(&format!("{name}-certificate-sha256"))), "{name}");
        assert!(
            signer(1).verifying_key().verify(&signed, &Signature::from_slice(&signature).unwrap()).is_err()
        );
    }
    assert_eq!(certificate(&[], &[0; 64]), None);
    assert_eq!(certificate(&[], &[0xff; 64]), None);
}

/// Takes a part out of a good one and puts another in, with the lengths around it.
fn with(change: impl Fn(&mut Vec<(&'static str, Vec<u8>)>)) -> Vec<u8> {
    let mut parts = workload().parts(&key("x509-key")).unwrap();
    change(&mut parts);
    element(SEQUENCE, &parts.into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<_>>())
}

fn with_extensions(extensions: &[u8]) -> Vec<u8> {
    with(|parts| parts[7].1 = element(context(3), &sequence(&[extensions])))
}

#[test]
fn what_is_not_the_one_form_is_refused_by_name() {
    let field = |name| Err(FormatError::Field(name));
    let all = workload().extensions(&key("x509-key"), false);
    let of_authority = {
        let rights = authority().extensions(&key("x509-key"), true);
        let name = workload().extensions(&key("x509-key"), false);
        // All that an authority has, and a workload's name.
        [&rights[..rights.len() - 28], &name[name.len() - 41..]].concat()
    };
    let good = with(|_| ());
    assert_eq!(read(&good), Ok(workload()));
    assert_eq!(read(&with_extensions(&of_authority)), field("extensions"), "CA:TRUE for a workload");
    for (bytes, expected) in [
        (with_extensions(&all[14..]), field("extensions")),
        (
            with_extensions(&[&all[..], &extension(&[0x55, 0x1d, 0x1f], false, &[5, 0])].concat()),
            field("extensions"),
        ),
        (with_extensions(&all[..all.len() - 41]), field("subject's name")),
        (with_extensions(&[]), field("subject's name")),
        (with(|parts| drop(parts.remove(0))), field("version")),
        (with(|parts| parts[0].1 = element(context(0), &element(INTEGER, &[1]))), field("version")),
        (with(|parts| parts[1].1 = element(INTEGER, &[1; 15])), field("serial number")),
        (with(|parts| parts[1].1 = element(INTEGER, &[0x80; 16])), field("serial number")),
        (with(|parts| parts[1].1 = element(INTEGER, &[0x3f; 16])), field("serial number")),
        (
            with(|parts| parts[2].1 = sequence(&[&element(OBJECT_IDENTIFIER, &EXTENDED_KEY_USAGE)])),
            field("algorithm"),
        ),
        (with(|parts| parts[3].1 = sequence(&[&attribute(&COMMON_NAME, "node-a")])), field("issuer")),
        (with(|parts| parts[4].1 = sequence(&[])), field("validity")),
        (with(|parts| parts[5].1 = sequence(&[&attribute(&COMMON_NAME, "root")])), field("subject")),
        (with(|parts| parts[6].1 = sequence(&[])), field("key")),
        (with(|parts| parts.push(("more", vec![5, 0]))), field("end")),
        ([&good[..], &[0]].concat(), Err(FormatError::NoCertificate)),
        (good[..good.len() - 1].to_vec(), Err(FormatError::NoCertificate)),
        (vec![7; 32], Err(FormatError::NoCertificate)),
        (Vec::new(), Err(FormatError::NoCertificate)),
    ] {
        assert_eq!(read(&bytes), expected);
    }
    // A length in a longer form.
    let long = [&[0x30, 0x82, 0, 0x80][..], &[0; 0x80]].concat();
    assert!(read(&long).is_err());
}

#[test]
fn nobody_becomes_an_authority_but_the_key_that_signs() {
    let own = key("x509-key");
    let make = |change: &dyn Fn(&mut Certificate), of: Certificate| {
        let mut changed = of;
        change(&mut changed);
        // Without the checks, as somebody else would make it.
        let parts = changed.parts(&own).unwrap();
        let bytes = element(SEQUENCE, &parts.into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<_>>());
        if *changed.subject.trust_domain() == domain() {
            assert_eq!(changed.to_sign(&own).is_ok(), read(&bytes).is_ok());
        }
        read(&bytes)
    };
    let other = TrustDomain::parse("node-b").unwrap();
    let stranger = Subject::Workload(other.member(&["services", "web"]).unwrap());
    let refused = Err(FormatError::OtherTrustDomain("node-b".to_owned()));
    assert_eq!(make(&|of| of.subject = stranger.clone(), workload()), refused);
    assert_eq!(make(&|of| of.subject = Subject::Authority(other.clone()), authority()), refused);
    let second = public(&signer(2));
    assert_eq!(make(&|of| of.key = second, authority()), Err(FormatError::OtherAuthority));
    assert_eq!(make(&|of| of.key = own, workload()), Err(FormatError::OwnKey));
    for (of, max) in [(workload(), SVID_LIFETIME_S_MAX), (authority(), AUTHORITY_LIFETIME_S_MAX)] {
        let lasts = |seconds: u64| {
            make(&|of: &mut Certificate| of.not_after_s = of.not_before_s + seconds, of.clone()).map(drop)
        };
        assert_eq!((lasts(1), lasts(max)), (Ok(()), Ok(())));
        assert_eq!(lasts(max + 1), Err(FormatError::Lifetime(max + 1, max)));
        assert_eq!(lasts(0), Err(FormatError::Lifetime(0, max)));
        let back = make(&|of| of.not_after_s = of.not_before_s - 1, of.clone());
        assert_eq!(back, Err(FormatError::Field("validity")));
    }
    // Signed by another key, it would not be of this authority.
    let signed = workload().to_sign(&second).unwrap();
    assert_eq!(read(&signed), Err(FormatError::Field("extensions")));
}

#[test]
fn a_random_number_becomes_a_serial_number() {
    for byte in 0..=255 {
        let number = serial([byte; SERIAL_BYTES]);
        assert!((0x40..0x80).contains(&number[0]) && number[1..] == [byte; SERIAL_BYTES - 1]);
    }
}

proptest! {
    #[test]
    fn a_changed_byte_is_refused_or_changes_what_varies(at in 0_usize..400, change in 1_u8..) {
        let good = workload().to_sign(&key("x509-key")).unwrap();
        let mut bad = good.clone();
        let at = at % bad.len();
        bad[at] ^= change;
        if let Ok(read) = read(&bad) {
            prop_assert_ne!(&read, &workload());
            prop_assert_eq!(read.to_sign(&key("x509-key")).unwrap(), bad);
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!read(&bytes).unwrap_err().to_string().contains('\n'));
    }
}
