//! `bailiwick policy test`, `what-if` and `who-can`: what rules would do, tried on files and on the node's log alone.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use ::policy::{
    cases::{self, Report},
    core::{
        PolicyState,
        trial::{Change, Difference, WhatIf, who_can},
    },
};
use anyhow::{Context, Result};
use base::{AxiomRef, AxiomTime, IdentityId, RuleId, Sequence, layout::Layout};
use chain::{
    Placed,
    payload::policy::{ActionKind, PolicyCondition, PolicyEffect},
    verify_log,
};
use serde::{Deserialize, Serialize, de::value::StrDeserializer};

use super::{checkpoint::genesis, log_files::LogFiles, policy::read};
use crate::{
    args::{Output, WhatIfArgs},
    exit::{DIFFERS, Failure, USAGE},
    output, units,
};

/// Differences that are shown; the rest is counted.
const DIFFERENCES_SHOWN_MAX: usize = 10_000;
/// In a case file, the rules of the node's own log.
const NODE: &str = "node";

/// Reads every entry of the node's log; its end may be in the middle of being written.
fn fold(folder: &Path, mut visit: impl FnMut(AxiomRef, &Placed<'_>) -> Result<()>) -> Result<AxiomTime> {
    let mut last = AxiomTime::ZERO;
    let mut outcome = Ok(());
    // Rules and identities are those of all entries: from genesis on, wherever these lie.
    let files = LogFiles::whole(folder, &[])?;
    let read = verify_log(&files, &files.options(), |placed| {
        let header = &placed.record.header;
        let at = AxiomRef { sequence: header.sequence, hash: placed.hash };
        last = header.timestamp;
        if outcome.is_ok() {
            outcome = visit(at, placed).with_context(|| format!("reading entry {}", header.sequence));
        }
    });
    outcome?;
    match read {
        Err(fault) if !fault.may_be_torn_tail => Err(Failure::damaged(&fault))
            .with_context(|| format!("reading the log {}; is this the node's --root?", folder.display())),
        _ => Ok(last),
    }
}

/// The policy state at the end of the log, and the time to ask at: now, but not before the last entry.
pub(super) fn state_of(folder: &Path) -> Result<(PolicyState, AxiomTime)> {
    let mut state = PolicyState::default();
    let last = fold(folder, |at, placed| {
        let code = placed.record.header.entry_type.code();
        let payload = chain::payload::Payload::decode(code, placed.record.payload);
        match payload {
            Ok(payload) => state.apply_entry(at, &payload, placed.record.payload),
            Err(chain::payload::PayloadError::UnknownType(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    })?;
    Ok((state, last.max(wall_clock()?)))
}

fn wall_clock() -> Result<AxiomTime> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    Ok(AxiomTime(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
}

/// A file that cannot be used is no failed test and no difference.
pub(super) fn trouble(error: impl Into<anyhow::Error>) -> anyhow::Error {
    Failure::new(USAGE, format!("{:#}", error.into())).into()
}

#[derive(Serialize)]
struct Tested {
    ok: bool,
    passed: usize,
    failed: usize,
    cases: Vec<Report>,
}

/// Runs the cases of a file; needs no node, unless the file asks for the rules of one.
pub fn test(layout: impl FnOnce() -> Result<Layout>, output: Output, file: &Path) -> Result<()> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading the cases {name}"))
        .map_err(trouble)?;
    let admin = cases::id_of("admin");
    let (given, rules) = cases::parse(&name, &text, admin).map_err(trouble)?;
    let people = cases::people(&name, &given.identity).map_err(trouble)?;
    let (state, now) = match given.rules.as_deref() {
        None => (PolicyState::imagined(&people, rules), wall_clock()?),
        Some(NODE) => {
            let (state, now) = state_of(&layout()?.log())?;
            (state.with(&people, Vec::new()), now)
        }
        Some(path) => {
            let beside = file.parent().unwrap_or(Path::new("")).join(path);
            let rules = read(&beside, admin).map_err(trouble)?;
            (PolicyState::imagined(&people, rules), wall_clock()?)
        }
    };
    let cases: Vec<Report> = given.case.iter().map(|case| case.run(&state, now)).collect();
    let passed = cases.iter().filter(|case| case.passed).count();
    let failed = cases.len().saturating_sub(passed);
    let tested = Tested { ok: failed == 0, passed, failed, cases };
    output::show(output, &tested, || {
        let mut text: String = tested.cases.iter().map(line).collect();
        text.push_str(&format!("{passed} passed, {failed} failed\n"));
        text
    })?;
    match failed {
        0 => Ok(()),
        _ => Err(Failure::new(
            DIFFERS,
            format!("{failed} of {} cases in {name} came out otherwise", passed.saturating_add(failed)),
        )
        .into()),
    }
}

fn line(report: &Report) -> String {
    let verdict = if report.passed { output::good("pass") } else { output::bad("FAIL") };
    let why: String = report.why.iter().map(|why| format!("      {why}\n")).collect();
    format!("{verdict}  {}\n{why}", report.name)
}

#[derive(Serialize)]
struct Outcome {
    effect: PolicyEffect,
    rule: RuleId,
    conditions: Vec<PolicyCondition>,
}

#[derive(Serialize)]
struct Differs {
    sequence: Sequence,
    requestor: String,
    action: ActionKind,
    resource: String,
    recorded: Outcome,
    now: Outcome,
}

#[derive(Serialize)]
struct Tried {
    /// The first entry at which the changed rules are in force.
    since: Sequence,
    decisions: u64,
    different: u64,
    differences: Vec<Differs>,
}

/// Makes recorded decisions again under changed rules.
pub fn what_if(layout: &Layout, output: Output, args: &WhatIfArgs) -> Result<()> {
    let folder = layout.log();
    let admin = genesis(&folder)?.0.admin;
    let rules = read(&args.rules, admin).map_err(trouble)?;
    let change = Change { rules, without: args.without.iter().cloned().collect(), only: args.only };
    let since = since(&folder, &args.since).map_err(trouble)?;
    let mut what_if = WhatIf::new(change, since);
    let mut tried = Tried { since, decisions: 0, different: 0, differences: Vec::new() };
    fold(&folder, |at, placed| {
        let code = placed.record.header.entry_type.code();
        if let Some(difference) = what_if.step(at, code, placed.record.payload)? {
            tried.different = tried.different.saturating_add(1);
            if tried.differences.len() < DIFFERENCES_SHOWN_MAX {
                tried.differences.push(differs(what_if.state(), difference));
            }
        }
        Ok(())
    })?;
    tried.decisions = what_if.decisions();
    output::show(output, &tried, || table(&tried))?;
    match tried.different {
        0 => Ok(()),
        number => {
            let text = format!("{number} of {} decisions would differ", tried.decisions);
            Err(Failure::new(DIFFERS, text).into())
        }
    }
}

fn table(tried: &Tried) -> String {
    let said = |outcome: &Outcome| format!("{:?} by {}", outcome.effect, outcome.rule);
    let row = |one: &Differs| {
        vec![
            one.sequence.to_string(),
            one.requestor.clone(),
            name_of(one.action),
            one.resource.clone(),
            said(&one.recorded),
            said(&one.now),
        ]
    };
    let rows: Vec<_> = tried.differences.iter().map(row).collect();
    let head = ["SEQUENCE", "REQUESTOR", "ACTION", "RESOURCE", "RECORDED", "WOULD BE"];
    let mut text = if rows.is_empty() { String::new() } else { output::table(&head, &rows) };
    let hidden = tried.different.saturating_sub(rows.len() as u64);
    if hidden > 0 {
        text.push_str(&format!("and {hidden} more\n"));
    }
    let (decisions, since, different) = (tried.decisions, tried.since, tried.different);
    text.push_str(&format!(
        "{decisions} decisions from entry {since} on made again, {different} would differ\n"
    ));
    text
}

fn differs(state: &PolicyState, difference: Difference) -> Differs {
    let outcome = |body: &chain::payload::policy::DecisionBody| Outcome {
        effect: body.effect,
        rule: body.deciding_rule.clone(),
        conditions: body.conditions.clone(),
    };
    let body = &difference.recorded;
    let known = state.identities().get(&body.requestor);
    Differs {
        sequence: difference.at.sequence,
        requestor: known.map_or_else(|| body.requestor.to_string(), |known| known.name.clone()),
        action: body.action.kind(),
        resource: body.resource.id.clone(),
        recorded: outcome(body),
        now: outcome(&difference.now),
    }
}

/// An entry's sequence, or a time before the last entry.
fn since(folder: &Path, text: &str) -> Result<Sequence> {
    if let Ok(sequence) = text.parse() {
        return Ok(Sequence(sequence));
    }
    let back_ms = units::parse_duration_ms(text)
        .with_context(|| format!("--since takes an entry's sequence or a time like 2h, not {text:?}"))?;
    let last = fold(folder, |_, _| Ok(()))?;
    let from = AxiomTime(last.0.saturating_sub(back_ms.saturating_mul(1_000_000)));
    let mut first = None;
    fold(folder, |at, placed| {
        if placed.record.header.timestamp >= from {
            first.get_or_insert(at.sequence);
        }
        Ok(())
    })?;
    first.context("the log has no entry")
}

#[derive(Serialize)]
struct Who {
    identity: IdentityId,
    name: String,
    rule: RuleId,
    conditions: Vec<PolicyCondition>,
    /// A condition that does not hold now.
    unmet: Option<String>,
}

/// Every identity that the node's rules would allow this now.
pub fn who(layout: &Layout, output: Output, action: &str, resource: &str) -> Result<()> {
    let kind = kind_of(action)?;
    let (state, now) = state_of(&layout.log())?;
    let found = who_can(&state, kind, resource, now)?;
    let found: Vec<Who> = found
        .into_iter()
        .map(|one| Who {
            identity: one.identity,
            name: one.name,
            rule: one.rule,
            conditions: one.conditions,
            unmet: one.unmet,
        })
        .collect();
    output::show(output, &found, || {
        if found.is_empty() {
            return format!("nobody may {action} {resource}\n");
        }
        let row = |one: &Who| {
            let conditions = serde_json::to_string(&one.conditions).unwrap_or_default();
            let conditions = if one.conditions.is_empty() { String::new() } else { conditions };
            let unmet = one.unmet.as_ref().map(|why| format!("but not now: {why}"));
            vec![one.name.clone(), one.rule.to_string(), conditions, unmet.unwrap_or_default()]
        };
        let rows: Vec<_> = found.iter().map(row).collect();
        output::table(&["IDENTITY", "RULE", "CONDITIONS", ""], &rows)
    })
}

fn kind_of(text: &str) -> Result<ActionKind> {
    let reader: StrDeserializer<'_, serde::de::value::Error> =
        serde::de::IntoDeserializer::into_deserializer(text);
    // The error lists the actions that there are.
    ActionKind::deserialize(reader)
        .map_err(|error| Failure::new(USAGE, format!("{text:?} is no action: {error}")).into())
}

fn name_of(kind: ActionKind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{kind:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_have_the_names_that_rules_use() {
        assert_eq!(kind_of("read_file").unwrap(), ActionKind::ReadFile);
        assert_eq!(name_of(ActionKind::ReadFile), "read_file");
        let error = kind_of("read").unwrap_err().to_string();
        assert!(error.contains("\"read\" is no action") && error.contains("control_service"), "{error}");
    }
}
