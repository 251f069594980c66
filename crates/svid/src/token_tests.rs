use super::*;
use crate::{
    certificate::tests::{hex, vector},
    key::tests::{public, signer},
};
use proptest::prelude::*;

fn key() -> P256Key {
    P256Key::from_bytes(&hex(vector("jwt-key"))).unwrap()
}

fn domain() -> TrustDomain {
    TrustDomain::parse("node-a").unwrap()
}

fn token() -> Token {
    Token {
        subject: domain().member(&["services", "web"]).unwrap(),
        audience: vec!["db".to_owned(), "spiffe://node-a/services/db".to_owned()],
        expires_at_s: 1_700_000_300,
        issued_at_s: 1_700_000_000,
    }
}

fn read(text: &str) -> Result<Token, FormatError> {
    Token::read(text.as_bytes(), &domain(), &key())
}

fn signed_part() -> &'static str {
    vector("token").rsplit_once('.').unwrap().0
}

#[test]
fn a_token_is_that_of_the_fixed_vector() {
    assert_eq!(token().to_sign(&key()).unwrap(), signed_part());
    assert_eq!(read(signed_part()), Ok(token()));
    let verify = |text: &str, audience: &str, now_s| Token::verify(text, &domain(), &key(), audience, now_s);
    let now = 1_700_000_299;
    for audience in &token().audience {
        assert_eq!(verify(vector("token"), audience, now), Ok(token()));
    }
    assert_eq!(verify(vector("token"), "d", now), Err(TokenError::Audience));
    assert_eq!(verify(vector("token"), "db", now + 1), Err(TokenError::Expired));
    let mut forged = vector("token").to_owned();
    forged.replace_range(forged.len() - 10..forged.len() - 9, "_");
    assert_eq!(verify(&forged, "db", now), Err(TokenError::Signature));
    let longer = format!("{}A", vector("token"));
    assert_eq!(verify(&longer, "db", now), Err(TokenError::Signature));
    for no_token in ["", ".", "..", signed_part()] {
        assert!(matches!(verify(no_token, "db", now), Err(TokenError::Format(_))), "{no_token}");
    }
}

fn with_claims(claims: &str) -> String {
    format!("{}.{}", encode(&header(&key())), encode(claims))
}

#[test]
fn what_is_not_the_one_form_is_refused_by_name() {
    let field = |name| Err(FormatError::Field(name));
    let good = token().claims();
    assert_eq!(read(&with_claims(&good)), Ok(token()));
    for (claims, expected) in [
        (good.replace("\"exp\"", " \"exp\""), field("audience")),
        (good.replace("1700000300", "01700000300"), field("list of claims")),
        (good.replace("1700000300", "+1700000300"), field("list of claims")),
        (good.replace("1700000300", "1700000300.0"), field("expiry")),
        (good.replace("\"iat\":1700000000", "\"iat\":1700000000,\"admin\":true"), field("time of issue")),
        (format!("{good} "), field("time of issue")),
        (format!("{good}}}"), field("time of issue")),
        (good.replace("{\"sub\"", "{\"iss\""), field("subject")),
        (good.replace("[\"db\",", "[\"\","), field("audience")),
        (good.replace("[\"db\",", "[\"d b\","), field("audience")),
        (good.replace("[\"db\",", "[\"d\\b\","), field("audience")),
    ] {
        assert_eq!(read(&with_claims(&claims)), expected, "{claims}");
    }
    let other = good.replace("spiffe://node-a/services/web", "spiffe://node-b/services/web");
    assert_eq!(read(&with_claims(&other)), Err(FormatError::OtherTrustDomain("node-b".to_owned())));
    assert!(matches!(read(&with_claims(&good.replace("/services/web", ""))), Err(FormatError::Name(_))));
    for head in [
        header(&public(&signer(1))),
        header(&key()).replace("ES256", "none"),
        header(&key()).replace("\"typ\":\"JWT\"", "\"typ\":\"JOSE\""),
        format!("{} ", header(&key())),
    ] {
        assert_eq!(read(&format!("{}.{}", encode(&head), encode(&good))), field("header"), "{head}");
    }
    assert_eq!(read(&format!("{}=", signed_part())), Err(FormatError::NoToken));
    for no_token in ["", "x", &"7".repeat(32)] {
        assert_eq!(read(no_token), Err(FormatError::NoToken));
    }
    assert_eq!(Token::read(&[0xff; 32], &domain(), &key()), Err(FormatError::NoToken));
}

#[test]
fn audiences_and_life_have_limits() {
    let with = |change: &dyn Fn(&mut Token)| {
        let mut changed = token();
        change(&mut changed);
        let text = with_claims(&changed.claims());
        assert_eq!(changed.to_sign(&key()).is_ok(), read(&text).is_ok());
        read(&text).map(drop)
    };
    let audience = |count: usize, bytes: usize| with(&|of| of.audience = vec!["a".repeat(bytes); count]);
    let refused = Err(FormatError::Field("audience"));
    assert_eq!(audience(AUDIENCES_MAX, AUDIENCE_BYTES_MAX), Ok(()));
    assert_eq!(audience(AUDIENCES_MAX + 1, 1), refused);
    assert_eq!(audience(1, AUDIENCE_BYTES_MAX + 1), refused);
    assert_eq!(audience(0, 1), refused);
    let life = |seconds| with(&|of| of.expires_at_s = of.issued_at_s + seconds);
    assert_eq!((life(1), life(TOKEN_LIFETIME_S_MAX)), (Ok(()), Ok(())));
    for wrong in [0, TOKEN_LIFETIME_S_MAX + 1] {
        assert_eq!(life(wrong), Err(FormatError::Lifetime(wrong, TOKEN_LIFETIME_S_MAX)));
    }
    assert_eq!(with(&|of| of.expires_at_s = of.issued_at_s - 1), Err(FormatError::Field("expiry")));
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let refusal = Token::read(&bytes, &domain(), &key()).unwrap_err();
        prop_assert!(!refusal.to_string().contains('\n'));
    }

    #[test]
    fn a_changed_character_is_refused_or_changes_what_varies(at in 0_usize..300, other in "[A-Za-z0-9_.-]") {
        let mut bad = signed_part().to_owned();
        let at = at % bad.len();
        bad.replace_range(at..=at, &other);
        if let Ok(read) = read(&bad) {
            prop_assert_eq!(read.to_sign(&key()).unwrap(), bad);
        }
    }
}
