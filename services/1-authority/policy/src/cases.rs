//! Case files: TOML with rules, or the name of rules, and what should come out of them. Run without a node.

use std::collections::BTreeMap;

use base::{AxiomTime, Hash, IdentityId, KeyPath, PublicKey, RuleId, limits::NAME_BYTES_MAX, visible};
use chain::payload::{
    identity::{IdentityCreated, IdentityType},
    policy::{ActionKind, PolicyCondition, PolicyEffect, PolicyRequest, PolicyRule},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    core::{
        PolicyState,
        limits::RATE_COUNT_MAX,
        trial::{NoSuchAct, request_for},
    },
    rules::{self, RuleFileError},
};

/// Cases of one file.
pub const CASES_MAX: usize = 10_000;
/// Identities of one file.
pub const IDENTITIES_MAX: usize = 1_000;
/// `times` of one case: one more than the largest rate limit.
pub const TIMES_MAX: u32 = RATE_COUNT_MAX + 1;
/// The keys of a case file that are not rules.
const OWN_KEYS: [&str; 3] = ["rules", "identity", "case"];

/// What a case file says beside its rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// A rule file, relative to this one, or `node` for the rules of the node's log. Without it the file has rules.
    pub rules: Option<String>,
    #[serde(default, rename = "rule")]
    _rule: serde::de::IgnoredAny,
    #[serde(default)]
    pub identity: Vec<Person>,
    #[serde(default)]
    pub case: Vec<Case>,
}

/// An identity that cases speak of, where no node knows one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    pub name: String,
    #[serde(rename = "type")]
    pub identity_type: IdentityType,
    /// By name; stands earlier in the file.
    pub parent: Option<String>,
    /// Below `/orbital/users` by default.
    pub key_path: Option<KeyPath>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Shown in the report; `requestor action resource` by default.
    pub name: Option<String>,
    /// Name or id.
    pub requestor: String,
    pub action: ActionKind,
    pub resource: String,
    #[serde(default)]
    pub context: BTreeMap<String, String>,
    /// Nanoseconds since 1970; now by default.
    pub time_ns: Option<u64>,
    /// The last of so many equal requests in a row is the one that is looked at.
    #[serde(default = "one")]
    pub times: u32,
    pub effect: PolicyEffect,
    pub rule: Option<RuleId>,
    pub conditions: Option<Vec<PolicyCondition>>,
}

const fn one() -> u32 {
    1
}

#[derive(Debug, Error)]
pub enum CaseError {
    #[error(transparent)]
    Rules(#[from] RuleFileError),
    #[error("{file}: {}", visible(.text))]
    File { file: String, text: String },
}

/// How a case came out. `why` is empty if it passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub name: String,
    pub passed: bool,
    pub effect: Option<PolicyEffect>,
    pub rule: Option<RuleId>,
    pub why: Vec<String>,
}

/// A case file and the rules that stand in it. `@admin` is this identity.
pub fn parse(file: &str, text: &str, admin: IdentityId) -> Result<(CaseFile, Vec<PolicyRule>), CaseError> {
    let fault = |text: String| CaseError::File { file: file.to_owned(), text };
    let rules = rules::parse_among(file, text, admin, &OWN_KEYS)?;
    let cases: CaseFile = toml::from_str(text).map_err(|error| fault(error.to_string()))?;
    let text = match (&cases.rules, rules.len()) {
        _ if cases.case.len() > CASES_MAX => {
            format!("a case file has at most {CASES_MAX} cases, not {}", cases.case.len())
        }
        _ if cases.identity.len() > IDENTITIES_MAX => {
            format!("a case file has at most {IDENTITIES_MAX} identities, not {}", cases.identity.len())
        }
        _ if cases.case.is_empty() => "there is no [[case]], so nothing is tested".to_owned(),
        (Some(named), 1..) => {
            format!("it has [[rule]] tables and names the rules {named:?}; one of them is enough")
        }
        (None, 0) => "it has neither a [[rule]] nor `rules = \"FILE\"` nor `rules = \"node\"`".to_owned(),
        _ => match cases.case.iter().find(|case| !(1..=TIMES_MAX).contains(&case.times)) {
            Some(case) => format!("`times` is 1 to {TIMES_MAX}, not {}", case.times),
            None => return Ok((cases, rules)),
        },
    };
    Err(fault(text))
}

/// The identities of a case file, with ids made from their names.
pub fn people(file: &str, people: &[Person]) -> Result<Vec<IdentityCreated>, CaseError> {
    let fault = |text: String| CaseError::File { file: file.to_owned(), text };
    let mut known: Vec<IdentityCreated> = Vec::new();
    for person in people {
        let name = &person.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(fault(format!("a name has 1 to {NAME_BYTES_MAX} bytes, not {}", name.len())));
        }
        if known.iter().any(|other| other.name == *name) {
            return Err(fault(format!("the identity {name:?} stands there twice")));
        }
        let parent = match &person.parent {
            None => None,
            Some(parent) => Some(known.iter().find(|other| other.name == *parent).ok_or_else(|| {
                fault(format!("the parent {parent:?} of {name:?} is no [[identity]] before it"))
            })?),
        };
        let key_path = match &person.key_path {
            Some(path) => path.clone(),
            None => KeyPath::parse(&format!("/orbital/users/{name}")).map_err(|error| {
                fault(format!("{name:?} gives no key path ({error}); say `key_path` for it"))
            })?,
        };
        let id = id_of(name);
        known.push(IdentityCreated {
            identity_id: id,
            name: name.clone(),
            identity_type: person.identity_type,
            parent: parent.map(|parent| parent.identity_id),
            public_key: PublicKey(id.0),
            key_path,
        });
    }
    Ok(known)
}

/// The id of an identity that only a case file knows.
#[must_use]
pub fn id_of(name: &str) -> IdentityId {
    IdentityId(Hash::of_parts(&[b"bailiwick case identity v1\0", name.as_bytes()]).0)
}

impl Case {
    fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("{} {:?} {}", self.requestor, self.action, self.resource))
    }

    fn request(&self, state: &PolicyState) -> Result<PolicyRequest, String> {
        let named = || state.identities().iter().find(|one| one.name == self.requestor).map(|one| one.id);
        let Some(requestor) = named().or_else(|| self.requestor.parse().ok()) else {
            return Err(format!("nobody is called {:?}: add an [[identity]] or use an id", self.requestor));
        };
        request_for(requestor, self.action, &self.resource, self.context.clone())
            .map_err(|error: NoSuchAct| error.to_string())
    }

    /// Decides and compares. A case that cannot be asked has failed.
    #[must_use]
    pub fn run(&self, state: &PolicyState, now: AxiomTime) -> Report {
        let mut report =
            Report { name: self.title(), passed: false, effect: None, rule: None, why: Vec::new() };
        let request = match self.request(state) {
            Ok(request) => request,
            Err(why) => {
                report.why.push(why);
                return report;
            }
        };
        let now = self.time_ns.map_or(now, AxiomTime);
        let Some(body) = state.nth(&request, self.times, now) else {
            report.why.push("the request cannot be evaluated".to_owned());
            return report;
        };
        if body.effect != self.effect {
            let reason = body.reason.map_or_else(String::new, |reason| format!(": {reason}"));
            report.why.push(format!("expected {:?}, got {:?}{reason}", self.effect, body.effect));
        }
        if let Some(rule) = self.rule.as_ref().filter(|rule| **rule != body.deciding_rule) {
            report.why.push(format!("expected rule {rule}, rule {} decided", body.deciding_rule));
        }
        if let Some(conditions) = self.conditions.as_ref().filter(|expected| **expected != body.conditions) {
            report.why.push(format!("expected conditions {conditions:?}, got {:?}", body.conditions));
        }
        report.passed = report.why.is_empty();
        (report.effect, report.rule) = (Some(body.effect), Some(body.deciding_rule));
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[[rule]]
id = "readers"
name = "Readers"
priority = 10
effect = "Allow"
condition = { and = [{ identity = { pattern = "b*" } }, { action = { kind = "read_file" } }, { rate_limit = { count = 2, window_ns = 1000 } }] }

[[identity]]
name = "bob"
type = "User"
"#;
    const NOW: AxiomTime = AxiomTime(1_767_225_600_000_000_000);

    fn reports(cases: &str) -> Vec<Report> {
        let text = format!("{FILE}{cases}");
        let (file, rules) = parse("cases.toml", &text, IdentityId([0; 32])).unwrap();
        let state = PolicyState::imagined(&people("cases.toml", &file.identity).unwrap(), rules);
        file.case.iter().map(|case| case.run(&state, NOW)).collect()
    }

    fn case(rest: &str) -> String {
        format!("[[case]]\nrequestor = \"bob\"\nresource = \"/a\"\n{rest}\n")
    }

    #[test]
    fn a_case_passes_if_all_that_it_expects_comes_out() {
        for (rest, why) in [
            ("action = \"read_file\"\neffect = \"Allow\"\nrule = \"readers\"\nconditions = []", ""),
            ("action = \"read_file\"\neffect = \"Allow\"\ntimes = 2", ""),
            ("action = \"read_file\"\neffect = \"Deny\"\ntimes = 3\nrule = \"DEFAULT_DENY\"", ""),
            ("action = \"write_file\"\neffect = \"Allow\"", "expected Allow, got Deny: no rule matches"),
            (
                "action = \"read_file\"\neffect = \"Allow\"\nrule = \"other\"",
                "expected rule other, rule readers",
            ),
            ("action = \"read_file\"\neffect = \"Allow\"\nconditions = [\"never\"]", "expected conditions"),
            ("action = \"sign\"\neffect = \"Deny\"", ""),
            ("action = \"create_process\"\neffect = \"Deny\"", "\"/a\" is nothing that CreateProcess"),
        ] {
            let report = reports(&case(rest)).remove(0);
            assert_eq!(report.passed, why.is_empty(), "{rest}: {report:?}");
            assert!(report.why.concat().contains(why), "{rest}: {report:?}");
        }
        let nobody =
            "[[case]]\nrequestor = \"eve\"\naction = \"read_file\"\nresource = \"/a\"\neffect = \"Deny\"\n";
        assert!(reports(nobody)[0].why[0].contains("nobody is called"), "a slip is no passed case");
    }

    #[test]
    fn a_file_that_tests_nothing_or_something_else_is_refused() {
        let refused = |text: &str| parse("f", text, IdentityId([0; 32])).unwrap_err().to_string();
        let good = case("action = \"read_file\"\neffect = \"Allow\"");
        assert!(refused(FILE).contains("no [[case]]"));
        assert!(refused(&good).contains("neither a [[rule]]"));
        assert!(refused(&format!("rules = \"node\"\n{FILE}{good}")).contains("one of them is enough"));
        assert!(refused(&format!("{FILE}{good}extra = 1")).contains("extra"));
        assert!(refused(&format!("{FILE}{good}[other]")).contains("other"));
        for (times, fits) in [(0, false), (1, true), (TIMES_MAX, true), (TIMES_MAX + 1, false)] {
            let text = format!("{FILE}{good}times = {times}");
            assert_eq!(parse("f", &text, IdentityId([0; 32])).is_ok(), fits, "{times}");
        }
        let many = |n: usize| parse("f", &format!("{FILE}{}", good.repeat(n)), IdentityId([0; 32])).is_ok();
        assert_eq!((many(CASES_MAX), many(CASES_MAX + 1)), (true, false));
        let crowd = |n: usize| {
            let all: String =
                (1..n).map(|n| format!("[[identity]]\nname = \"p{n}\"\ntype = \"User\"\n")).collect();
            parse("f", &format!("{FILE}{all}{good}"), IdentityId([0; 32])).is_ok()
        };
        assert_eq!((crowd(IDENTITIES_MAX), crowd(IDENTITIES_MAX + 1)), (true, false));
    }

    #[test]
    fn parents_stand_before_their_children() {
        let person = |name: &str, parent: Option<&str>| Person {
            name: name.to_owned(),
            identity_type: IdentityType::User,
            parent: parent.map(str::to_owned),
            key_path: None,
        };
        let known = people("f", &[person("a", None), person("b", Some("a"))]).unwrap();
        assert_eq!(known[1].parent, Some(id_of("a")));
        for wrong in [vec![person("b", Some("a")), person("a", None)], vec![person("a", None); 2]] {
            assert!(people("f", &wrong).is_err());
        }
    }
}
