use super::*;

const SECOND: u64 = SECOND_NS;

fn authority() -> Authority {
    Authority::of_node("Node-A", AxiomTime(1_700_000_000 * SECOND + 5)).unwrap()
}

/// The generator of the curve.
fn key() -> P256Key {
    let point = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    let bytes: Vec<u8> =
        (0..65).map(|at| u8::from_str_radix(&point[at * 2..at * 2 + 2], 16).unwrap()).collect();
    P256Key::from_bytes(&bytes).unwrap()
}

#[test]
fn settings_have_limits_and_defaults() {
    assert_eq!(Settings::parse(""), Ok(Settings::default()));
    let text = |x509: u64, jwt: u64| format!("[svid]\nx509_lifetime_s = {x509}\njwt_lifetime_s = {jwt}\n");
    let parsed = Settings::parse(&text(10, 3600));
    assert_eq!(parsed, Ok(Settings { x509_lifetime_s: 10, jwt_lifetime_s: 3600 }));
    assert!(Settings::parse(&text(86_370, 10)).is_ok());
    let range = |key, value, max| Err(SettingsError::Range { key, value, max });
    assert_eq!(Settings::parse(&text(9, 10)), range("x509_lifetime_s", 9, 86_370));
    assert_eq!(Settings::parse(&text(86_371, 10)), range("x509_lifetime_s", 86_371, 86_370));
    assert_eq!(Settings::parse(&text(10, 9)), range("jwt_lifetime_s", 9, 3600));
    assert_eq!(Settings::parse(&text(10, 3601)), range("jwt_lifetime_s", 3601, 3600));
    for wrong in ["[svid]\nx = 1", "[other]", "x509_lifetime_s = 20", "["] {
        assert!(matches!(Settings::parse(wrong), Err(SettingsError::Toml(_))), "{wrong}");
    }
    let most = " ".repeat(SETTINGS_BYTES_MAX);
    assert!(Settings::parse(&most).is_ok());
    assert_eq!(Settings::parse(&format!("{most} ")), Err(SettingsError::Size(SETTINGS_BYTES_MAX + 1)));
}

#[test]
fn a_node_is_the_authority_of_its_name() {
    let authority = authority();
    assert_eq!(authority.domain().as_str(), "node-a");
    let path = authority.key_path("@x509").unwrap();
    assert_eq!(path.to_string(), "/orbital/services/identity/node-a/@x509");
    assert_eq!(authority.id_of("web").unwrap().as_str(), "spiffe://node-a/services/web");
    assert!(matches!(authority.id_of("a b"), Err(SvidError::NoId(_))));
    assert!(matches!(Authority::of_node("a b", AxiomTime(0)), Err(SvidError::NoTrustDomain(_))));
}

/// Whoever has one certificate of the authority can verify with it until it ends; the next one is out five years before.
#[test]
fn the_authoritys_certificate_follows_from_genesis_and_time() {
    let at =
        |seconds: u64| authority().own_certificate(&key(), AxiomTime((1_700_000_000 + seconds) * SECOND));
    let first = at(0);
    assert_eq!(
        (first.not_before_s, first.not_after_s),
        (1_700_000_000, 1_700_000_000 + 2 * AUTHORITY_PERIOD_S)
    );
    assert_eq!(at(AUTHORITY_PERIOD_S - 1), first);
    let second = at(AUTHORITY_PERIOD_S);
    assert_eq!(second.not_before_s, first.not_before_s + AUTHORITY_PERIOD_S);
    assert_ne!(second.serial, first.serial);
    assert_eq!(second.key, first.key);
    assert!(first.to_sign(&key()).is_ok() && second.to_sign(&key()).is_ok());
    let before = authority().own_certificate(&key(), AxiomTime(0));
    assert_eq!(before, first, "a clock before genesis");
}

#[test]
fn an_svid_lasts_as_long_as_the_settings_say_and_is_renewed_at_half() {
    let now = AxiomTime(1_700_000_000 * SECOND);
    let id = authority().id_of("web").unwrap();
    let made = Authority::certificate(id.clone(), key(), [0xff; SERIAL_BYTES], now, 3600);
    assert_eq!((made.not_before_s, made.not_after_s), (1_699_999_970, 1_700_003_600));
    let token = Authority::token(id, vec!["db".to_owned()], now, 300);
    assert_eq!((token.issued_at_s, token.expires_at_s), (1_700_000_000, 1_700_000_300));
    assert_eq!(renew_at(now, 3600), AxiomTime(1_700_001_800 * SECOND));
    assert_eq!(renew_at(now, 11), AxiomTime(1_700_000_005 * SECOND + SECOND / 2));
}

#[test]
fn one_client_gets_sixty_a_minute_and_no_other_pays_for_it() {
    let mut issues = Issues::default();
    let start = AxiomTime(1_000 * SECOND);
    for _ in 0..ISSUES_MAX {
        assert_eq!(issues.count("web", start), Ok(()));
    }
    assert_eq!(issues.count("web", start.saturating_add(ISSUES_WINDOW_NS - 1)), Err(SvidError::Busy));
    assert_eq!(issues.count("db", start), Ok(()));
    assert_eq!(issues.count("web", start.saturating_add(ISSUES_WINDOW_NS)), Ok(()));
    assert_eq!(issues.0.len(), 1, "who asks no more is forgotten");
}
