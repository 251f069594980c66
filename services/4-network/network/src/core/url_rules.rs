//! Rules by URL: for whom, which, and what is so without any (NET-50 to NET-55).

use ::core::net::IpAddr;
use std::{cmp::Reverse, collections::BTreeSet};

use base::{IdentityId, limits::NAME_BYTES_MAX};
use chain::payload::network::{CallLimits, NetworkPolicyUpdate, ProcessClass, UrlRule};

use super::{
    CallError, Target,
    limits::{
        AUTHORITIES_MAX, AUTHORITY_BYTES_MAX, CALL_LIMITS_DEFAULT, CALL_LIMITS_MAX, HEADER_BYTES_MIN,
        URL_PATTERN_BYTES_MAX, URL_RULES_MAX,
    },
    url::unescape,
};

/// Who asks, by the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Of the three, never `Named`.
    pub class: ProcessClass,
    /// Name of the service whose socket it is.
    pub name: String,
}

impl User {
    /// A class alone has no name.
    fn shown(&self) -> &str {
        if self.name.is_empty() { "this class" } else { &self.name }
    }

    fn is_meant(&self, rule: &UrlRule) -> bool {
        match &rule.applies_to {
            ProcessClass::Named(name) => *name == self.name,
            class => *class == self.class,
        }
    }
}

/// NET-54, with the second rule of open point 5.
#[must_use]
pub fn default_policy() -> NetworkPolicyUpdate {
    let rule = |id: &str, applies_to, url_pattern: &str, allow, priority| UrlRule {
        id: id.to_owned(),
        applies_to,
        url_pattern: url_pattern.to_owned(),
        allow,
        priority,
    };
    let application = ProcessClass::Application;
    NetworkPolicyUpdate {
        rules: vec![
            rule("system-allow-all", ProcessClass::System, "*", true, 100),
            rule("runtime-allow-all", ProcessClass::Runtime, "*", true, 90),
            rule("block-malware", application.clone(), "*.malware.example.com", false, 80),
            rule("block-malware-apex", application.clone(), "malware.example.com", false, 80),
            rule("app-https-only", application.clone(), "https://*", true, 50),
            rule("app-default-deny", application, "*", false, 1),
        ],
        limits: CALL_LIMITS_DEFAULT,
        authorities: vec![],
        by: IdentityId([0; 32]),
    }
}

/// The rule that decides: the first that matches from the highest priority; of two with the same one the refusal.
fn deciding<'a>(rules: &'a [UrlRule], user: &User, target: &Target) -> Option<&'a UrlRule> {
    let matching = rules.iter().filter(|rule| user.is_meant(rule) && matches(rule, target));
    matching.min_by_key(|rule| (Reverse(rule.priority), rule.allow))
}

/// The rule that allows it, or the refusal with the rule that refuses (NET-52).
pub fn decide<'a>(
    rules: &'a [UrlRule],
    user: &User,
    target: &Target,
) -> Result<&'a UrlRule, (Option<&'a UrlRule>, CallError)> {
    match deciding(rules, user, target) {
        Some(rule) if rule.allow => Ok(rule),
        Some(rule) => {
            let text = format!("rule {} refuses {} to {}", rule.id, target.as_str(), user.shown());
            Err((Some(rule), CallError::PolicyDenied(text)))
        }
        None => {
            let text = format!("no rule allows {} to {}", target.as_str(), user.shown());
            Err((None, CallError::PolicyDenied(text)))
        }
    }
}

/// Whether a rule names this very address, without any `*`: what is special is reached in no other way.
#[must_use]
pub fn names_address(rules: &[UrlRule], user: &User, target: &Target, ip: IpAddr) -> bool {
    let Some(there) = target.at(ip) else { return false };
    // Others that would allow it by accident do not stand in the way of one that does by name.
    let rule = rules
        .iter()
        .filter(|rule| user.is_meant(rule) && matches(rule, &there))
        .filter(|rule| {
            !rule.allow || literal_host(&rule.url_pattern).is_some_and(|host| host == there.host())
        })
        .min_by_key(|rule| (Reverse(rule.priority), rule.allow));
    rule.is_some_and(|rule| rule.allow)
}

/// A pattern with `://` is about the URL, any other about the host alone (open point 4). What it allows stays within the
/// part in which its `*` stands, so that a host in a path is none; what it refuses may lie anywhere.
fn matches(rule: &UrlRule, target: &Target) -> bool {
    let Some((scheme, rest)) = rule.url_pattern.split_once("://") else {
        return glob(&host_pattern(&rule.url_pattern), target.host());
    };
    let scheme = scheme.to_ascii_lowercase();
    // A WebSocket begins as a request of HTTP.
    let scheme = scheme.strip_prefix("ws").map_or(scheme.clone(), |rest| format!("http{rest}"));
    // As a target writes it.
    let rest = unescape(rest);
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest.as_str(), ""),
    };
    let own = if target.is_tls() { "https" } else { "http" };
    let authority = authority_pattern(own, authority);
    let path_is = match path {
        // What is refused without a path is refused whatever the path.
        "" if authority.ends_with('*') || !rule.allow => true,
        "" => target.path() == "/",
        path => glob(path, target.path()),
    };
    let in_parts = glob(&scheme, own) && glob(&authority, &target.authority()) && path_is;
    in_parts || (!rule.allow && glob(&format!("{scheme}://{authority}{path}"), target.as_str()))
}

fn host_pattern(pattern: &str) -> String {
    pattern.strip_suffix('.').unwrap_or(pattern).to_ascii_lowercase()
}

/// As a target writes it: without the scheme's own port.
fn authority_pattern(scheme: &str, authority: &str) -> String {
    let own = if scheme == "http" { ":80" } else { ":443" };
    host_pattern(authority.strip_suffix(own).unwrap_or(authority))
}

/// The host of a pattern that names one.
fn literal_host(pattern: &str) -> Option<String> {
    let host = match pattern.split_once("://") {
        None => pattern,
        Some((_, rest)) => {
            let authority = rest.split(['/', '?']).next().unwrap_or_default();
            match authority.rsplit_once(':') {
                // The colons of an address stand within brackets.
                Some((host, port)) if !port.ends_with(']') => host,
                _ => authority,
            }
        }
    };
    (!host.contains('*')).then(|| host_pattern(host))
}

/// `*` is anything, also nothing; all else is itself.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// What an administrator wants to put in force, with the defaults where nothing is said.
pub fn check_policy(policy: &mut NetworkPolicyUpdate) -> Result<(), String> {
    let (rules, authorities) = (policy.rules.len(), policy.authorities.len());
    if rules > URL_RULES_MAX {
        return Err(format!("there are {rules} rules, at most {URL_RULES_MAX} are taken"));
    }
    let mut seen = BTreeSet::new();
    for rule in &policy.rules {
        let of = base::visible(&rule.id);
        if !is_name(&rule.id) {
            return Err(format!(
                "rule id {of:?} has not 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` or `.`"
            ));
        }
        if !seen.insert(&rule.id) {
            return Err(format!("there are two rules {of}"));
        }
        if let ProcessClass::Named(name) = &rule.applies_to
            && !is_name(name)
        {
            return Err(format!(
                "rule {of} applies to {:?}, which is no name of a service",
                base::visible(name)
            ));
        }
        check_pattern(&rule.url_pattern).map_err(|text| format!("the pattern of rule {of} {text}"))?;
    }
    if authorities > AUTHORITIES_MAX {
        return Err(format!("there are {authorities} authorities, at most {AUTHORITIES_MAX} are taken"));
    }
    if policy.authorities.iter().any(|pem| pem.len() > AUTHORITY_BYTES_MAX) {
        return Err(format!("an authority has more than {AUTHORITY_BYTES_MAX} bytes"));
    }
    check_limits(&mut policy.limits)
}

fn is_name(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(known)
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    if !(1..=URL_PATTERN_BYTES_MAX).contains(&pattern.len()) {
        return Err(format!("has not 1 to {URL_PATTERN_BYTES_MAX} bytes"));
    }
    // A URL has no others: such a pattern would match nothing, and a refusal that matches nothing allows.
    if !pattern.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "has a blank or a character that no URL has; write names as xn--… and paths as %…".to_owned()
        );
    }
    match pattern.split_once("://") {
        None if pattern.contains(':') && !pattern.starts_with('[') => {
            Err("names a port and says no scheme; write `*://HOST:PORT/*`".to_owned())
        }
        None if pattern.contains(['/', '?', '#', '@']) => {
            Err("is about a path and says no scheme; write `*://HOST/PATH`".to_owned())
        }
        Some((_, rest))
            if rest.contains('#') || rest.split(['/', '?']).next().unwrap_or("").contains('@') =>
        {
            Err("has a part that no request has".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_limits(limits: &mut CallLimits) -> Result<(), String> {
    macro_rules! bounded {
        ($($name:ident)*) => {$(
            if limits.$name == 0 {
                limits.$name = CALL_LIMITS_DEFAULT.$name;
            }
            if limits.$name > CALL_LIMITS_MAX.$name {
                let (name, most) = (stringify!($name), CALL_LIMITS_MAX.$name);
                return Err(format!("{name} is {}, at most {most} is taken", limits.$name));
            }
        )*};
    }
    bounded!(process_requests process_window_ms host_requests host_window_ms);
    bounded!(request_bytes response_bytes header_bytes message_bytes);
    match limits.header_bytes < HEADER_BYTES_MIN {
        true => Err(format!("header_bytes is {}, at least {HEADER_BYTES_MIN} is taken", limits.header_bytes)),
        false => Ok(()),
    }
}

#[cfg(test)]
#[path = "url_rules_tests.rs"]
mod tests;
