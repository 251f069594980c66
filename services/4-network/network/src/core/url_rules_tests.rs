use super::*;
use crate::core::Schemes;

fn target(url: &str) -> Target {
    let schemes = if url.starts_with("ws") { Schemes::WebSocket } else { Schemes::Http };
    Target::parse(url, schemes).unwrap()
}

fn user(class: ProcessClass) -> User {
    User { class, name: "web".to_owned() }
}

fn rule(id: &str, pattern: &str, allow: bool, priority: u32) -> UrlRule {
    let (id, url_pattern) = (id.to_owned(), pattern.to_owned());
    UrlRule { id, applies_to: ProcessClass::Application, url_pattern, allow, priority }
}

fn by(rules: &[UrlRule], url: &str) -> (bool, String) {
    match decide(rules, &user(ProcessClass::Application), &target(url)) {
        Ok(rule) => (true, rule.id.clone()),
        Err((rule, CallError::PolicyDenied(_))) => {
            (false, rule.map_or_else(String::new, |rule| rule.id.clone()))
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn fits(pattern: &str, url: &str, allow: bool) -> bool {
    matches(&rule("r", pattern, allow, 1), &target(url))
}

/// covers: NET-54, NET-55
#[test]
fn without_any_rules_these_are_in_force() {
    let policy = default_policy();
    let by = |url: &str| by(&policy.rules, url);
    assert_eq!(by("https://api.example.com/data"), (true, "app-https-only".to_owned()));
    assert_eq!(by("http://api.example.com/"), (false, "app-default-deny".to_owned()));
    for url in [
        "https://x.malware.example.com/",
        "https://a.b.malware.example.com/",
        "https://X.MALWARE.EXAMPLE.COM./",
        "wss://x.malware.example.com/",
    ] {
        assert_eq!(by(url), (false, "block-malware".to_owned()), "{url}");
    }
    assert_eq!(by("https://malware.example.com/"), (false, "block-malware-apex".to_owned()));
    assert_eq!(by("https://malware.example.com.evil.test/"), (true, "app-https-only".to_owned()));
    assert_eq!(by("wss://api.example.com/"), (true, "app-https-only".to_owned()));
    assert_eq!(by("ws://api.example.com/"), (false, "app-default-deny".to_owned()));
    for (class, id) in
        [(ProcessClass::System, "system-allow-all"), (ProcessClass::Runtime, "runtime-allow-all")]
    {
        for url in ["http://api.example.com/", "https://x.malware.example.com/"] {
            assert_eq!(decide(&policy.rules, &user(class.clone()), &target(url)).unwrap().id, id);
        }
    }
    let mut checked = policy.clone();
    assert_eq!((check_policy(&mut checked), checked), (Ok(()), policy));
}

/// covers: NET-52
#[test]
fn the_highest_priority_decides_and_nothing_refuses() {
    let rules = [
        rule("low", "*", true, 1),
        rule("high", "*.b.test", false, 9),
        rule("middle", "a.b.test", true, 5),
        rule("same", "c.test", true, 3),
        rule("same-not", "c.test", false, 3),
    ];
    assert_eq!(by(&rules, "http://a.b.test/"), (false, "high".to_owned()));
    assert_eq!(by(&rules, "http://b.test/"), (true, "low".to_owned()));
    assert_eq!(by(&rules, "http://c.test/"), (false, "same-not".to_owned()));
    assert_eq!(by(&rules[1..], "http://d.test/"), (false, String::new()));
    assert_eq!(by(&[], "https://d.test/"), (false, String::new()));
}

/// covers: NET-51
#[test]
fn a_named_rule_is_for_the_service_of_that_name_beside_those_of_its_class() {
    let named = |name: &str, allow, priority| UrlRule {
        applies_to: ProcessClass::Named(name.to_owned()),
        ..rule(name, "*", allow, priority)
    };
    let rules = [named("web", true, 9), named("other", false, 99), rule("all", "*", false, 1)];
    assert_eq!(by(&rules, "http://a.test/"), (true, "web".to_owned()));
    assert_eq!(by(&[rule("all", "*", false, 10), named("web", true, 9)], "http://a.test/").1, "all");
    let system = UrlRule { applies_to: ProcessClass::System, ..rule("s", "*", true, 1) };
    assert_eq!(by(&[system], "http://a.test/"), (false, String::new()));
}

/// covers: NET-53
#[test]
fn a_pattern_is_about_the_url_or_about_the_host() {
    for (pattern, url, fits_it) in [
        ("a.test", "https://a.test/x", true),
        ("A.Test.", "https://a.test/", true),
        ("*.a.test", "https://b.a.test/", true),
        ("*.a.test", "https://a.test/", false),
        ("*.api.example.com", "https://other.test/x.api.example.com", false),
        ("*.api.example.com", "https://other.test/?x.api.example.com", false),
        ("https://*.api.example.com/*", "https://other.test/x.api.example.com/", false),
        ("https://*.api.example.com/*", "https://b.api.example.com/x/y", true),
        ("https://a.test/*", "https://a.test/x/y?z", true),
        ("https://a.test/*", "https://a.test.evil.test/", false),
        ("https://a.test", "https://a.test/", true),
        ("https://a.test", "https://a.test/x", false),
        ("https://a.test/x*z", "https://a.test/x/y/z", true),
        ("https://A.test:443/*", "https://a.test/", true),
        ("https://a.test/*", "https://a.test:444/", false),
        ("https://a.test:*/*", "https://a.test:444/", true),
        ("*://a.test/*", "http://a.test/x", true),
        ("wss://a.test/*", "https://a.test/x", true),
        ("wss://a.test/*", "wss://a.test/x", true),
        ("https://a.test/*", "wss://a.test/x", true),
        ("http://a.test/SECRET", "http://a.test/secret", false),
        ("http://a.test/secret", "http://a.test/%73ecret", true),
        ("https://*", "https://a.test/x/y", true),
        ("https://*", "http://a.test/", false),
        ("*", "http://a.test/", true),
        ("10.0.0.1", "http://10.0.0.1/", true),
        ("[::1]", "http://[::1]:80/", true),
    ] {
        assert_eq!(fits(pattern, url, true), fits_it, "{pattern} {url}");
    }
    // What is refused is refused wherever it stands.
    assert!(fits("https://*/secret*", "https://a.test/x/secret", false));
    assert!(fits("https://*secret*", "https://a.test/x/secret", false));
}

#[test]
fn a_glob_goes_through_once() {
    assert!(glob("a*b*c", "axxbyyc") && glob("a*b*c", "abc") && glob("*", "") && glob("**", "x"));
    assert!(!glob("a*b*c", "acb") && !glob("a*a", "a") && !glob("", "x") && glob("", ""));
    let long = "a".repeat(8_000);
    assert!(!glob(&"*a".repeat(128).replace("aa", "a*a"), "b") && glob(&"*a".repeat(128), &long));
}

#[test]
fn what_is_special_is_named_by_its_address() {
    let ip: IpAddr = [10, 0, 0, 5].into();
    let who = user(ProcessClass::Application);
    let by_name = target("http://db.internal:81/x");
    for (pattern, is_named) in [
        ("10.0.0.5", true),
        ("http://10.0.0.5:81/*", true),
        ("http://10.0.0.5:*/*", true),
        ("http://10.0.0.5/*", false),
        ("https://10.0.0.5:81/*", false),
        ("*", false),
        ("10.0.0.*", false),
        ("http://*", false),
        ("db.internal", false),
        ("http://db.internal:81/*", false),
    ] {
        assert_eq!(names_address(&[rule("r", pattern, true, 1)], &who, &by_name, ip), is_named, "{pattern}");
    }
    let denied = [rule("yes", "10.0.0.5", true, 1), rule("no", "10.*", false, 2)];
    assert!(!names_address(&denied, &who, &by_name, ip));
    let below = [rule("yes", "10.0.0.5", true, 2), rule("no", "*", false, 1), rule("all", "*", true, 3)];
    assert!(names_address(&below, &who, &by_name, ip));
    let v6 = [rule("r", "http://[::1]:*/*", true, 1)];
    assert!(names_address(&v6, &who, &by_name, "::1".parse().unwrap()));
}

#[test]
fn a_policy_is_bounded_before_it_is_recorded() {
    let with = |change: &dyn Fn(&mut NetworkPolicyUpdate)| {
        let mut policy = default_policy();
        change(&mut policy);
        check_policy(&mut policy).map(|()| policy)
    };
    let pattern = |text: &str| with(&|policy| policy.rules[0].url_pattern = text.to_owned()).is_ok();
    assert!(pattern(&"x".repeat(URL_PATTERN_BYTES_MAX)) && !pattern(&"x".repeat(URL_PATTERN_BYTES_MAX + 1)));
    for wrong in
        ["", "a b", "bücher.test", "a.test/x", "u@a.test", "http://u@a.test/", "http://a.test/#x", "a\n"]
    {
        assert!(!pattern(wrong), "{wrong:?}");
    }
    for right in ["*", "a.test", "*://a.test/*", "http://a.test/x?y=@z"] {
        assert!(pattern(right), "{right:?}");
    }
    let rules = |count: usize| {
        with(&|policy| policy.rules = (0..count).map(|at| rule(&format!("r{at}"), "*", true, 1)).collect())
            .is_ok()
    };
    assert!(rules(URL_RULES_MAX) && !rules(URL_RULES_MAX + 1));
    assert!(with(&|policy| policy.rules[1].id = policy.rules[0].id.clone()).is_err());
    assert!(with(&|policy| policy.rules[0].id = String::new()).is_err());
    assert!(with(&|policy| policy.rules[0].applies_to = ProcessClass::Named(String::new())).is_err());
    let authorities = |count: usize, bytes: usize| {
        with(&|policy| policy.authorities = vec!["x".repeat(bytes); count]).is_ok()
    };
    assert!(authorities(AUTHORITIES_MAX, AUTHORITY_BYTES_MAX));
    assert!(!authorities(AUTHORITIES_MAX + 1, 1) && !authorities(1, AUTHORITY_BYTES_MAX + 1));
    assert_eq!(with(&|policy| policy.limits.host_requests = 0).unwrap().limits, CALL_LIMITS_DEFAULT);
    assert!(with(&|policy| policy.limits.host_requests = CALL_LIMITS_MAX.host_requests + 1).is_err());
    assert!(with(&|policy| policy.limits.message_bytes = CALL_LIMITS_MAX.message_bytes + 1).is_err());
    assert!(with(&|policy| policy.limits.header_bytes = HEADER_BYTES_MIN - 1).is_err());
    assert!(with(&|policy| policy.limits.header_bytes = HEADER_BYTES_MIN).is_ok());
}

/// A refusal that means less than it seems to lets something through.
#[test]
fn what_is_refused_is_refused_in_every_spelling() {
    for (pattern, urls) in [
        ("*://evil.test:80/*", &["http://evil.test/x"][..]),
        ("*://evil.test:443/*", &["https://evil.test/x"]),
        ("https://evil.test", &["https://evil.test/", "https://evil.test/x?y"]),
        ("https://a.test/caf%c3%a9*", &["https://a.test/caf%C3%A9/menu"]),
        ("https://a.test/%61dmin*", &["https://a.test/admin/x"]),
        ("ws*://evil.test/*", &["ws://evil.test/x", "wss://evil.test/x", "https://evil.test/x"]),
    ] {
        let rules = [rule("all", "*", true, 1), rule("not", pattern, false, 2)];
        for url in urls {
            assert_eq!(by(&rules, url), (false, "not".to_owned()), "{pattern} {url}");
        }
    }
    let there = [rule("all", "*", true, 1), rule("not", "*://evil.test:443/*", false, 2)];
    assert!(by(&there, "http://evil.test/x").0, "another port is another place");
    let mut policy = default_policy();
    policy.rules = vec![rule("port", "evil.test:8443", false, 2)];
    assert!(check_policy(&mut policy).unwrap_err().contains("port"));
}
