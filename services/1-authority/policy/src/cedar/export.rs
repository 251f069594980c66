//! Rules as Cedar policies.

use base::{RuleId, visible};
use chain::payload::policy::{
    ActionKind, ActionMatcher, PolicyCondition, PolicyEffect, PolicyRule, ResourceMatcher,
};

use super::{
    FILE_BYTES_MAX, POLICIES_MAX, TooLarge, Unmapped, Without,
    writer::{self, Policy},
};
use crate::core::{order, validate};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// A file of policies that decides as the rules in `kept` do.
    pub text: String,
    pub kept: Vec<RuleId>,
    /// Rules that deny where nothing below them allows: what nothing permits, Cedar denies as well.
    pub unneeded: Vec<RuleId>,
    pub left_out: Vec<LeftOut>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub rule: RuleId,
    pub why: Unmapped,
    pub without: Without,
}

/// A rule, and what it is as a policy.
struct Row<'a> {
    rule: &'a PolicyRule,
    written: Result<Policy, Unmapped>,
}

impl<'a> Row<'a> {
    fn of(rule: &'a PolicyRule) -> Self {
        let valid = validate(rule).map_err(|error| Unmapped::Invalid(error.to_string()));
        Self { rule, written: valid.and_then(|()| writer::policy(rule)) }
    }

    /// The condition of a `permit`.
    fn permits(&self) -> Option<&str> {
        match (&self.written, self.rule.effect) {
            (Ok(policy), PolicyEffect::Allow) => Some(&policy.condition),
            _ => None,
        }
    }
}

/// The rules, each with an id of its own, as policies in the order in which the rules are tried.
pub fn export(rules: &[PolicyRule]) -> Result<Export, TooLarge> {
    let mut rows: Vec<Row<'_>> = rules.iter().map(Row::of).collect();
    rows.sort_by_key(|row| (order(row.rule), row.rule.id.clone()));
    let last_permit = rows.iter().rposition(|row| row.permits().is_some());
    let last_allowed = rows.iter().rposition(|row| row.rule.effect != PolicyEffect::Deny);
    let highest = rows.iter().find(|row| row.permits().is_some()).map(|row| row.rule.priority);
    let mut export = Export::default();
    let mut policies = String::new();
    for (n, Row { rule, written }) in rows.iter().enumerate() {
        let policy = match written {
            Ok(policy) => policy,
            Err(why) => {
                let stronger = rule.effect != PolicyEffect::Allow || may_fault(rule);
                let more = stronger && last_permit.is_some_and(|last| last > n);
                let without = if more { Without::AllowsMore } else { Without::AllowsLess };
                export.left_out.push(LeftOut { rule: rule.id.clone(), why: why.clone(), without });
                continue;
            }
        };
        let outranked =
            rule.effect == PolicyEffect::Deny && highest.is_some_and(|priority| priority > rule.priority);
        if outranked && last_allowed.is_none_or(|last| last < n) {
            export.unneeded.push(rule.id.clone());
            continue;
        }
        policies.push('\n');
        policies.push_str(&policy.text);
        if outranked {
            policies.push_str(&format!("\nunless {{ {} }}", permits_above(rule.priority, &rows)?));
        }
        policies.push_str(";\n");
        export.kept.push(rule.id.clone());
        fits(export.kept.len(), policies.len())?;
    }
    export.text = head(&export) + &policies;
    fits(export.kept.len(), export.text.len())?;
    Ok(export)
}

const fn fits(policies: usize, bytes: usize) -> Result<(), TooLarge> {
    if policies > POLICIES_MAX {
        Err(TooLarge::Policies)
    } else if bytes > FILE_BYTES_MAX {
        Err(TooLarge::Bytes)
    } else {
        Ok(())
    }
}

/// The conditions of the rules that allow above this priority: they are tried before a rule that denies there. At an
/// equal priority none is.
fn permits_above(priority: u32, rows: &[Row<'_>]) -> Result<String, TooLarge> {
    let mut above = String::new();
    for condition in rows.iter().take_while(|row| row.rule.priority > priority).filter_map(Row::permits) {
        if !above.is_empty() {
            above.push_str(" || ");
        }
        above.push_str(condition);
        fits(0, above.len())?;
    }
    Ok(above)
}

/// Whether a rule that allows may deny because it cannot be evaluated.
fn may_fault(rule: &PolicyRule) -> bool {
    if validate(rule).is_err() {
        return true;
    }
    // An own key path cannot be told only where the resource is a key and the action does not name it.
    let frees =
        |kind: &ActionKind| matches!(kind, ActionKind::DelegateCapability | ActionKind::RevokeCapability);
    let names_the_key = match &rule.condition {
        PolicyCondition::And(members) => members.iter().any(|member| match member {
            PolicyCondition::Action(ActionMatcher::Kind(kind)) => !frees(kind),
            PolicyCondition::Action(ActionMatcher::AnyOf(kinds)) => !kinds.iter().any(frees),
            _ => false,
        }),
        _ => false,
    };
    holds_faults(&rule.condition, names_the_key)
}

/// The rule's nesting was checked.
fn holds_faults(condition: &PolicyCondition, names_the_key: bool) -> bool {
    match condition {
        PolicyCondition::RateLimit { .. } => true,
        PolicyCondition::Resource(ResourceMatcher::OwnKeyPath) => !names_the_key,
        PolicyCondition::And(members) | PolicyCondition::Or(members) => {
            members.iter().any(|member| holds_faults(member, names_the_key))
        }
        PolicyCondition::Not(inner) => holds_faults(inner, names_the_key),
        _ => false,
    }
}

/// What the file is, for whoever meets it alone.
fn head(export: &Export) -> String {
    let mut text = format!("// {} of Bailiwick's rules as Cedar policies.\n", export.kept.len());
    for rule in &export.unneeded {
        text.push_str(&format!("// Not needed here: {rule}, for what nothing permits is denied.\n"));
    }
    for LeftOut { rule, why, without } in &export.left_out {
        text.push_str(&format!("// Left out: {rule}; {}; {}.\n", visible(&why.to_string()), without.text()));
    }
    if export.left_out.iter().any(|one| one.without == Without::AllowsMore) {
        text.push_str("// THIS FILE ALLOWS MORE THAN THE RULES.\n");
    }
    text
}
