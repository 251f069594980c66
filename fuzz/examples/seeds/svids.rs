//! What an authority is asked to sign.

use fuzz::svid::{DOMAIN, KEY};
use p256::ecdsa::{Signature, SigningKey, signature::Signer};
use svid::{Certificate, P256Key, SERIAL_BYTES, Subject, Token, TrustDomain};

use crate::{Seeds, chosen};

pub(crate) fn all() -> Seeds {
    let key = P256Key::from_bytes(&KEY).unwrap();
    let domain = TrustDomain::parse(DOMAIN).unwrap();
    // The generator's secret is 1.
    let secret = |last| {
        let mut secret = [0; 32];
        secret[31] = last;
        SigningKey::from_slice(&secret).unwrap()
    };
    let other = P256Key::from_bytes(secret(2).verifying_key().to_sec1_point(false).as_bytes()).unwrap();
    let id = domain.member(&["services", "web"]).unwrap();
    let certificate = |subject, key, not_before_s, lasts_s| Certificate {
        serial: svid::serial([1; SERIAL_BYTES]),
        subject,
        key,
        not_before_s,
        not_after_s: not_before_s + lasts_s,
    };
    let token = |audience: &[&str]| Token {
        subject: id.clone(),
        audience: audience.iter().map(|one| (*one).to_owned()).collect(),
        expires_at_s: 1_700_000_300,
        issued_at_s: 1_700_000_000,
    };
    let signed = |certificate: Certificate| certificate.to_sign(&key).unwrap();
    let input = token(&["db"]).to_sign(&key).unwrap();
    let signature: Signature = secret(1).sign(input.as_bytes());
    let whole = svid::join(&input, &signature.to_bytes().into());
    let wrong = svid::join(&input, &[1; 64]);
    vec![
        chosen("authority", 0, &signed(certificate(Subject::Authority(domain), key, 0, 315_360_000))),
        chosen(
            "workload",
            0,
            &signed(certificate(Subject::Workload(id.clone()), other, 1_700_000_000, 3600)),
        ),
        chosen(
            "after_2050",
            0,
            &signed(certificate(Subject::Workload(id.clone()), other, 2_600_000_000, 3600)),
        ),
        chosen("token", 1, input.as_bytes()),
        chosen("token_of_many", 1, token(&["a", "b", "c"]).to_sign(&key).unwrap().as_bytes()),
        chosen("whole", 2, whole.as_bytes()),
        chosen("wrong_signature", 2, wrong.as_bytes()),
    ]
}
