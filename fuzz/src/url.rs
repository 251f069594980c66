//! Any text as the URL of a request, and any as a pattern of a rule about it.
//!
//! Strategy: the first line is a URL, the second where it sends on to, the third a pattern.
//! Invariants: a refusal is one line; what is accepted reads as itself and as nothing else, names no user, and its host is an
//! address or a name in lower case that no other reader takes for one; a rule that allows it by its pattern stays within
//! the host that it names; what is refused is never fewer than what the same pattern allows.

use chain::payload::network::{ProcessClass, UrlRule};
use network::core::{Schemes, Target, User, decide};

use crate::check::one_line;

pub fn run(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let mut lines = text.splitn(3, '\n');
    let target = match Target::parse(lines.next().unwrap_or_default(), Schemes::Http) {
        Ok(target) => target,
        Err(error) => {
            one_line(&error);
            return false;
        }
    };
    holds(&target);
    match target.join(lines.next().unwrap_or_default()) {
        Ok(next) => holds(&next),
        Err(error) => one_line(&error),
    }
    patterns(&target, lines.next().unwrap_or("*"));
    true
}

fn holds(target: &Target) {
    let text = target.as_str();
    assert_eq!(Target::parse(text, Schemes::Http).as_ref(), Ok(target), "{text}");
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    assert!(matches!(scheme, "http" | "https") && (scheme == "https") == target.is_tls());
    assert_eq!(format!("{}{}", target.authority(), target.path()), rest);
    assert!(target.path().starts_with('/') && !text.contains(['#', '\\', ' ', '\n']), "{text}");
    let host = target.host();
    assert!(!host.is_empty() && !host.ends_with('.') && !host.contains(['@', '/', '*']));
    assert_eq!(host, host.to_ascii_lowercase());
    let bare = host.trim_matches(['[', ']']);
    assert_eq!(bare.parse().ok(), target.address(), "{host}");
    assert!(target.port() > 0);
}

fn patterns(target: &Target, pattern: &str) {
    let rule = |allow| {
        let (id, url_pattern) = ("r".to_owned(), pattern.to_owned());
        UrlRule { id, applies_to: ProcessClass::System, url_pattern, allow, priority: 1 }
    };
    let user = User { class: ProcessClass::System, name: "x".to_owned() };
    let allowed = decide(&[rule(true)], &user, target).is_ok();
    let refused = decide(&[rule(false)], &user, target).is_err_and(|(by, _)| by.is_some());
    assert!(!allowed || refused, "{pattern} allows more than it refuses");
    // A name that is written out is the name that is reached.
    let named = pattern.split_once("://").map_or(pattern, |(_, rest)| rest);
    let named = named.split(['/', '?', ':']).next().unwrap_or_default();
    if allowed && !named.contains('*') && !named.starts_with('[') {
        assert_eq!(named.trim_end_matches('.').to_ascii_lowercase(), target.host().trim_end_matches('.'));
    }
}
