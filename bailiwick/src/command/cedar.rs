//! `bailiwick policy export --cedar` and `import --cedar`: rules as Cedar policies and back, on files and the log alone.

use std::path::Path;

use ::policy::{
    cedar::{self, FILE_BYTES_MAX, LeftOut, NotImported, Without},
    rules::to_toml,
};
use anyhow::{Context, Result};
use base::{IdentityId, RuleId, layout::Layout, visible};
use chain::payload::policy::PolicyRule;
use serde::Serialize;

use super::{
    checkpoint::{genesis, read_text},
    policy::read,
    trial::{state_of, trouble},
};
use crate::{
    args::{ExportArgs, ImportArgs, Output},
    exit::{DIFFERS, Failure},
    output,
};

#[derive(Serialize)]
struct Exported {
    policies: String,
    kept: Vec<RuleId>,
    unneeded: Vec<RuleId>,
    left_out: Vec<Missing>,
}

#[derive(Serialize)]
struct Missing {
    rule: RuleId,
    why: String,
    without: Without,
}

/// The policies on standard output; what they lack on standard error, and in them as comments.
pub fn export(layout: impl FnOnce() -> Result<Layout>, output: Output, args: &ExportArgs) -> Result<()> {
    let rules = match &args.rules {
        Some(file) => rules_of(layout, file).map_err(trouble)?,
        None => {
            let (state, _) = state_of(&layout()?.log())?;
            state.rules().in_order().into_iter().map(|stored| PolicyRule::clone(&stored.rule)).collect()
        }
    };
    let export = cedar::export(&rules).map_err(trouble)?;
    let missing = |one: LeftOut| Missing { rule: one.rule, why: one.why.to_string(), without: one.without };
    let exported = Exported {
        policies: export.text,
        kept: export.kept,
        unneeded: export.unneeded,
        left_out: export.left_out.into_iter().map(missing).collect(),
    };
    output::show(output, &exported, || exported.policies.clone())?;
    if output == Output::Text {
        for one in &exported.left_out {
            eprintln!("left out: rule {}: {}; {}", one.rule, visible(&one.why), one.without.text());
        }
    }
    let left_out = exported.left_out.iter().map(|one| one.without);
    outcome(left_out, rules.len(), "rules", "the policies allow more than the rules")
}

/// Ends with 0 if nothing is missing.
fn outcome(
    left_out: impl ExactSizeIterator<Item = Without>,
    all: usize,
    what: &str,
    more: &str,
) -> Result<()> {
    let number = left_out.len();
    let allows_more = left_out.min() == Some(Without::AllowsMore);
    let more = if allows_more { format!("; {more}") } else { String::new() };
    match number {
        0 => Ok(()),
        _ => Err(Failure::new(DIFFERS, format!("{number} of {all} {what} left out{more}")).into()),
    }
}

/// Who `@admin` is, only a node knows; it is asked for only if the file says so.
fn rules_of(layout: impl FnOnce() -> Result<Layout>, file: &Path) -> Result<Vec<PolicyRule>> {
    let any = |byte: u8| IdentityId([byte; IdentityId::BYTES]);
    let rules = read(file, any(0))?;
    if rules == read(file, any(1))? {
        return Ok(rules);
    }
    let admin = layout().and_then(|layout| genesis(&layout.log()));
    let (node, _) = admin.context("the rules say `@admin`, and who that is only a node's log tells")?;
    read(file, node.admin)
}

#[derive(Serialize)]
struct Imported {
    rules: Vec<PolicyRule>,
    raised: Vec<RuleId>,
    left_out: Vec<NotImported>,
}

/// A rule file on standard output; what it lacks on standard error.
pub fn import(output: Output, args: &ImportArgs) -> Result<()> {
    let name = args.file.display().to_string();
    let text = read_text(&args.file, FILE_BYTES_MAX).map_err(trouble)?;
    let import = cedar::import(&name, &text).map_err(trouble)?;
    if import.rules.is_empty() && import.left_out.is_empty() {
        return Err(trouble(anyhow::anyhow!("{name} holds no policy")));
    }
    let imported = Imported { rules: import.rules, raised: import.raised, left_out: import.left_out };
    output::show(output, &imported, || imported.rules.iter().map(to_toml).collect::<Vec<_>>().join("\n"))?;
    if output == Output::Text {
        for id in &imported.raised {
            eprintln!(
                "raised: rule {id} stands as high as the rules that allow: in Cedar `forbid` outweighs them"
            );
        }
        for one in &imported.left_out {
            let (policy, why) = (visible(&one.policy), visible(&one.why));
            let (line, column, without) = (one.line, one.column, one.without.text());
            eprintln!("left out: {name}:{line}:{column}: policy {policy}: {why}; {without}");
        }
    }
    let left_out = imported.left_out.iter().map(|one| one.without);
    let all = imported.rules.len().saturating_add(left_out.len());
    outcome(left_out, all, "policies", "the rules allow more than the policies")
}
