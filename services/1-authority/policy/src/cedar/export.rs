//! Rules as Cedar policies.

use std::cmp::Reverse;

use base::{RuleId, visible};
use chain::payload::policy::{
    ActionKind, ActionMatcher, PolicyCondition, PolicyEffect, PolicyRule, ResourceMatcher,
};

use super::{FILE_BYTES_MAX, POLICIES_MAX, TooLarge, Unmapped, Without, writer};
use crate::core::validate;

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

/// The rules, each with an id of its own, as policies in the order in which the rules are tried.
pub fn export(rules: &[PolicyRule]) -> Result<Export, TooLarge> {
    let mut sorted: Vec<&PolicyRule> = rules.iter().collect();
    sorted.sort_by_key(|rule| (Reverse(rule.priority), rank(rule.effect), rule.id.clone()));
    let written: Vec<_> = sorted.iter().map(|rule| write(rule)).collect();
    let last_permit = sorted
        .iter()
        .zip(&written)
        .rposition(|(rule, text)| rule.effect == PolicyEffect::Allow && text.is_ok());
    let last_allowed = sorted.iter().rposition(|rule| rule.effect != PolicyEffect::Deny);
    let mut export = Export::default();
    let mut policies = String::new();
    for (n, (rule, text)) in sorted.iter().zip(&written).enumerate() {
        let (policy, _) = match text {
            Ok(text) => text,
            Err(why) => {
                let stronger = rule.effect != PolicyEffect::Allow || may_fault(rule);
                let more = stronger && last_permit.is_some_and(|last| last > n);
                let without = if more { Without::AllowsMore } else { Without::AllowsLess };
                export.left_out.push(LeftOut { rule: rule.id.clone(), why: why.clone(), without });
                continue;
            }
        };
        let above =
            if rule.effect == PolicyEffect::Deny { permits_above(rule, &sorted, &written)? } else { None };
        if above.is_some() && last_allowed.is_none_or(|last| last < n) {
            export.unneeded.push(rule.id.clone());
            continue;
        }
        policies.push('\n');
        policies.push_str(policy);
        if let Some(above) = above {
            policies.push_str(&format!("\nunless {{ {above} }}"));
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

/// Deny before AllowWithConditions before Allow, as they are tried.
const fn rank(effect: PolicyEffect) -> u8 {
    match effect {
        PolicyEffect::Deny => 0,
        PolicyEffect::AllowWithConditions => 1,
        PolicyEffect::Allow => 2,
    }
}

type Written = Result<(String, String), Unmapped>;

fn write(rule: &PolicyRule) -> Written {
    validate(rule).map_err(|error| Unmapped::Invalid(error.to_string()))?;
    writer::policy(rule)
}

/// The conditions of the rules that allow and are tried before this one that denies. At an equal priority none is.
fn permits_above(
    rule: &PolicyRule,
    sorted: &[&PolicyRule],
    written: &[Written],
) -> Result<Option<String>, TooLarge> {
    let mut above: Option<String> = None;
    let higher = sorted.iter().zip(written).take_while(|(other, _)| other.priority > rule.priority);
    for (_, condition) in higher
        .filter(|(other, _)| other.effect == PolicyEffect::Allow)
        .filter_map(|(other, text)| Some((other, &text.as_ref().ok()?.1)))
    {
        let text = above.get_or_insert_default();
        if !text.is_empty() {
            text.push_str(" || ");
        }
        text.push_str(condition);
        fits(0, text.len())?;
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
