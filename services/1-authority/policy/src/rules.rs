//! Rule files: TOML with one `[[rule]]` table for each rule. The default rules are one such file.

use base::{IdentityId, visible};
use chain::payload::policy::PolicyRule;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::{
    Deserializer, Spanned, Value,
    de::{DeTable, DeValue},
};

use crate::core::{PolicyError, limits::RULE_BYTES_MAX, validate};

/// Bytes of a rule file.
pub const FILE_BYTES_MAX: usize = 64 * RULE_BYTES_MAX;
/// The default rules, the first thing that an operator reads.
pub const DEFAULT: &str = include_str!("../rules/default.toml");
/// Alone in a string of a rule file, it stands for the id of the first admin, which only genesis knows.
const ADMIN: &str = "@admin";

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}:{line}:{column}: {}{}", visible(text), key.as_ref().map(|key| format!(" (at `{}`)", visible(key))).unwrap_or_default())]
pub struct RuleFileError {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The key at fault, if it is known.
    pub key: Option<String>,
    pub text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    rule: Vec<Spanned<PolicyRule>>,
}

/// The default rules of a node with this admin.
pub fn defaults(admin: IdentityId) -> Result<Vec<PolicyRule>, RuleFileError> {
    parse("default.toml", DEFAULT, admin)
}

/// One rule as a rule file holds it.
#[must_use]
pub fn to_toml(rule: &PolicyRule) -> String {
    #[derive(Serialize)]
    struct Out<'a> {
        rule: [&'a PolicyRule; 1],
    }
    // A rule is made of what TOML can hold; were it not, there would be nothing to suggest.
    toml::to_string(&Out { rule: [rule] }).unwrap_or_default()
}

/// The rules of a file, valid and each with an id of its own. `"@admin"` stands for the first admin's id.
pub fn parse(file: &str, text: &str, admin: IdentityId) -> Result<Vec<PolicyRule>, RuleFileError> {
    parse_among(file, text, admin, &[])
}

/// The rules of a file that has other keys, too.
pub(crate) fn parse_among(
    file: &str,
    text: &str,
    admin: IdentityId,
    others: &[&str],
) -> Result<Vec<PolicyRule>, RuleFileError> {
    let source = Source { file, text };
    if text.len() > FILE_BYTES_MAX {
        let why = format!("a rule file has at most {FILE_BYTES_MAX} bytes, not {}", text.len());
        return Err(source.fault(0, None, why));
    }
    let mut table = DeTable::parse(text).map_err(|error| source.refused(&error))?;
    for other in others {
        table.get_mut().remove(*other);
    }
    for (_, value) in table.get_mut().iter_mut() {
        put_admin(value.get_mut(), admin);
    }
    let rules = typed(source, table.clone())?;
    let given = table.get_ref().get("rule").and_then(|all| all.get_ref().as_array());
    let mut seen = std::collections::BTreeSet::new();
    for (at, rule, given) in
        rules.iter().zip(given.into_iter().flatten()).map(|((at, rule), given)| (*at, rule, given))
    {
        if let Ok(taken) = Value::try_from(rule) {
            refuse_unknown(source, given, &taken)?;
        }
        if !seen.insert(rule.id.clone()) {
            return Err(source.fault(
                at,
                Some("id".to_owned()),
                format!("the rule id {} is used twice", rule.id),
            ));
        }
        if let Err(PolicyError::InvalidRule { rule, place, text }) = validate(rule) {
            return Err(source.fault(at, Some(place), format!("rule {rule} is not valid: {text}")));
        }
    }
    Ok(rules.into_iter().map(|(_, rule)| rule).collect())
}

/// Puts the admin's id in its place in the values, not in the text: what a string says otherwise stays, and every place
/// is one of the file as it was given.
fn put_admin(value: &mut DeValue<'_>, admin: IdentityId) {
    match value {
        DeValue::String(text) if text == ADMIN => *text = admin.to_string().into(),
        DeValue::Array(values) => values.iter_mut().for_each(|value| put_admin(value.get_mut(), admin)),
        DeValue::Table(table) => table.iter_mut().for_each(|(_, value)| put_admin(value.get_mut(), admin)),
        _ => {}
    }
}

/// Each rule with the place where it begins.
fn typed(source: Source<'_>, table: Spanned<DeTable<'_>>) -> Result<Vec<(usize, PolicyRule)>, RuleFileError> {
    let parsed = RuleFile::deserialize(Deserializer::from(table)).map_err(|error| source.refused(&error))?;
    Ok(parsed.rule.into_iter().map(|rule| (rule.span().start, rule.into_inner())).collect())
}

/// Every key that was given must be one that was taken; what is silently dropped would be a rule that nobody wrote.
fn refuse_unknown(
    source: Source<'_>,
    given: &Spanned<DeValue<'_>>,
    taken: &Value,
) -> Result<(), RuleFileError> {
    match (given.get_ref(), taken) {
        (DeValue::Table(table), Value::Table(known)) => {
            table.iter().try_for_each(|(key, value)| match known.get(key.get_ref().as_ref()) {
                Some(taken) => refuse_unknown(source, value, taken),
                None => {
                    let name = key.get_ref().to_string();
                    let why = format!("unknown key {name:?}");
                    Err(source.fault(key.span().start, Some(name), why))
                }
            })
        }
        (DeValue::Array(given), Value::Array(taken)) => {
            given.iter().zip(taken).try_for_each(|(given, taken)| refuse_unknown(source, given, taken))
        }
        _ => Ok(()),
    }
}

/// Line and column, both from 1, the column in characters.
pub(crate) fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line_start..).map_or(0, |line| line.chars().count()) + 1;
    (before.matches('\n').count() + 1, column)
}

#[derive(Clone, Copy)]
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn refused(&self, error: &toml::de::Error) -> RuleFileError {
        self.fault(error.span().map_or(0, |span| span.start), None, error.message().to_owned())
    }

    fn fault(&self, at: usize, key: Option<String>, text: String) -> RuleFileError {
        let (line, column) = place(self.text, at);
        RuleFileError { file: self.file.to_owned(), line, column, key, text }
    }
}
