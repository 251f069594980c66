//! Cedar policies as rules.

use std::collections::BTreeSet;

use base::{IdentityId, RuleId, limits::NAME_BYTES_MAX};
use chain::payload::policy::{PolicyEffect, PolicyRule};
use serde::Serialize;

use super::{
    COMPARISONS_MAX, CedarError, FILE_BYTES_MAX, Fault, PRIORITY_USUAL, Without,
    ast::Policy,
    comparison::Reader,
    parser,
    terms::Term,
    vocabulary::{RULE_DESCRIPTION, RULE_ID, RULE_NAME, RULE_PRIORITY},
};
use crate::{core::validate, rules};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// Valid, each with an id of its own, in the order of the file.
    pub rules: Vec<PolicyRule>,
    pub left_out: Vec<NotImported>,
    /// Rules that deny and stand at a higher priority than their policy says, because a `forbid` outweighs every
    /// `permit` and a rule only those that are not above it.
    pub raised: Vec<RuleId>,
}

/// A policy that no rule can say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotImported {
    /// Its `@id`, or its number in the file.
    pub policy: String,
    pub line: usize,
    pub column: usize,
    pub why: String,
    pub without: Without,
}

/// A policy that was understood.
struct Read {
    /// Its place in the file, and where it begins.
    number: usize,
    at: usize,
    permit: bool,
    priority: u32,
    /// Everything that it asks for, but not the last clause if that may name the rules above it.
    main: Term,
    /// What the last clause, an `unless`, excludes.
    except: Option<Term>,
}

/// The rules of these policies. Text that is no Cedar is refused whole.
pub fn import(file: &str, text: &str) -> Result<Import, CedarError> {
    let refused = |fault: Fault| {
        let (line, column) = rules::place(text, fault.at);
        CedarError { file: file.to_owned(), line, column, text: fault.text }
    };
    if text.len() > FILE_BYTES_MAX {
        let why = format!("a file of policies has at most {FILE_BYTES_MAX} bytes, not {}", text.len());
        return Err(refused(Fault::new(0, why)));
    }
    let policies = parser::policies(text).map_err(refused)?;
    let mut reader = Reader { left: COMPARISONS_MAX };
    let (mut read, mut left_out) = (Vec::new(), Vec::new());
    let leave_out = |policy: &Policy, number: usize, fault: Fault| {
        let (line, column) = rules::place(text, fault.at);
        let id = annotation(policy, RULE_ID).map_or_else(|| format!("policy{number}"), str::to_owned);
        let without = if policy.permit { Without::AllowsLess } else { Without::AllowsMore };
        NotImported { policy: id, line, column, why: fault.text, without }
    };
    for (number, policy) in policies.iter().enumerate() {
        match read_policy(&mut reader, number, policy) {
            Ok(one) => read.push(one),
            Err(fault) => left_out.push(leave_out(policy, number, fault)),
        }
    }
    let mut ids = Ids::of(&policies);
    let mut imported = Import::default();
    for one in &read {
        let Some(policy) = policies.get(one.number) else { continue };
        match rule(policy, one, &read, &mut ids) {
            Ok((rule, raised)) => {
                imported.raised.extend(raised.then(|| rule.id.clone()));
                imported.rules.push(rule);
            }
            Err(why) => left_out.push(leave_out(policy, one.number, Fault::new(one.at, why))),
        }
    }
    left_out.sort_by_key(|one| (one.line, one.column));
    imported.left_out = left_out;
    Ok(imported)
}

fn annotation<'a>(policy: &'a Policy, key: &str) -> Option<&'a str> {
    policy.annotations.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
}

fn read_policy(reader: &mut Reader, number: usize, policy: &Policy) -> Result<Read, Fault> {
    let given = annotation(policy, RULE_PRIORITY);
    let priority = given.map_or(Ok(PRIORITY_USUAL), str::parse);
    let priority =
        priority.map_err(|_| Fault::new(policy.at, "its @priority is no number from 0 to 4294967295"))?;
    let mut terms = policy.scope.iter().map(|one| reader.term(one)).collect::<Result<Vec<_>, _>>()?;
    let mut except = None;
    for (n, clause) in policy.clauses.iter().enumerate() {
        let term = reader.term(&clause.expression)?;
        match clause.unless {
            true if !policy.permit && given.is_some() && n + 1 == policy.clauses.len() => except = Some(term),
            true => terms.push(term.negated()),
            false => terms.push(term),
        }
    }
    Ok(Read { number, at: policy.at, permit: policy.permit, priority, main: Term::all(terms), except })
}

/// The rule, and whether its priority had to be raised.
fn rule(policy: &Policy, one: &Read, all: &[Read], ids: &mut Ids) -> Result<(PolicyRule, bool), String> {
    let mut priority = one.priority;
    let mut term = one.main.clone();
    if !one.permit {
        let above: Vec<&Read> =
            all.iter().filter(|other| other.permit && other.priority > one.priority).collect();
        let named = one.except.as_ref().is_some_and(|except| !above.is_empty() && is_any_of(except, &above));
        if !named {
            // What a clause excludes that is not the rules above, the rule itself must exclude.
            term = Term::all([term, one.except.clone().map_or(Term::TRUE, Term::negated)]);
            priority = above.iter().map(|permit| permit.priority).fold(priority, u32::max);
        }
    }
    let id = ids.take(one.number, annotation(policy, RULE_ID));
    let name = annotation(policy, RULE_NAME).or(annotation(policy, RULE_ID)).filter(|name| fits(name));
    let rule = PolicyRule {
        name: name.map_or_else(|| id.to_string(), str::to_owned),
        id,
        description: annotation(policy, RULE_DESCRIPTION).unwrap_or_default().to_owned(),
        priority,
        condition: term.condition()?,
        effect: if one.permit { PolicyEffect::Allow } else { PolicyEffect::Deny },
        restrictions: Vec::new(),
    };
    storable(&rule)?;
    Ok((rule, priority != one.priority))
}

fn fits(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
}

/// Whether the clause excludes what these permits allow, and nothing else: then the priorities say the same.
fn is_any_of(except: &Term, above: &[&Read]) -> bool {
    if above.iter().any(|permit| permit.main == Term::TRUE) {
        return *except == Term::TRUE;
    }
    except.alternatives().iter().eq(above.iter().flat_map(|permit| permit.main.alternatives()))
}

/// A rule file must be able to hold it.
fn storable(rule: &PolicyRule) -> Result<(), String> {
    validate(rule).map_err(|error| error.to_string())?;
    let printed = rules::to_toml(rule);
    match rules::parse("", &printed, IdentityId([0; IdentityId::BYTES])) {
        Ok(back) if back.as_slice() == std::slice::from_ref(rule) => Ok(()),
        _ => Err("a rule file cannot hold what it says".to_owned()),
    }
}

/// Ids that are given, and those that can be made up beside them.
struct Ids {
    given: BTreeSet<String>,
    used: BTreeSet<String>,
}

impl Ids {
    fn of(policies: &[Policy]) -> Self {
        let given =
            policies.iter().filter_map(|policy| annotation(policy, RULE_ID)).map(str::to_owned).collect();
        Self { given, used: BTreeSet::new() }
    }

    /// The id that is wanted, if it is one and free; else one with the policy's number, as Cedar counts.
    fn take(&mut self, number: usize, wanted: Option<&str>) -> RuleId {
        let free = |id: &RuleId| !self.used.contains(id.as_str()) && id.as_str() != RuleId::DEFAULT_DENY;
        let wanted = wanted.and_then(|id| RuleId::new(id).ok()).filter(free);
        let numbered = || {
            let mut marks = String::new();
            loop {
                let id = format!("policy{number}{marks}");
                if !self.given.contains(&id) {
                    return RuleId::new(id).unwrap_or_else(|_| RuleId::default_deny());
                }
                marks.push('_');
            }
        };
        let id = wanted.unwrap_or_else(numbered);
        self.used.insert(id.to_string());
        id
    }
}
