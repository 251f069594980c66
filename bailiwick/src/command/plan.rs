//! `bailiwick plan`, `rollback` and `service generations`: what a change would do before it is done, and the way back.

use std::{fmt::Write as _, path::PathBuf};

use ::policy::core::trial::request_for;
use anyhow::{Context as _, Result, bail};
use chain::payload::policy::{ActionKind, PolicyEffect};
use contracts::supervisor::v1 as pb;
use serde::Serialize;

use super::{service, trial};
use crate::{
    args::Output,
    exit::{DIFFERS, Failure},
    node::{Node, failed},
    output::{self, said_if_slow},
    units,
};

/// One manifest and what would come of it.
#[derive(Debug, Serialize)]
struct Change {
    file: String,
    service: String,
    /// `new changed unchanged refused`
    change: String,
    /// Lines that go and come, as `diff -u` marks them.
    diff: Vec<String>,
    /// Services that start anew.
    restarts: Vec<String>,
    /// What policy would say to registering and starting it now; nothing was asked or recorded.
    policy: Option<Verdict>,
    why: String,
}

#[derive(Debug, Serialize)]
struct Verdict {
    allowed: bool,
    rule: String,
}

impl Change {
    fn stands_in_the_way(&self) -> bool {
        self.change == "refused" || self.policy.as_ref().is_some_and(|verdict| !verdict.allowed)
    }

    fn changes(&self) -> bool {
        matches!(self.change.as_str(), "new" | "changed")
    }
}

/// Ends with 1 if something would be refused.
pub async fn show(node: &Node, output: Output, named: &[PathBuf]) -> Result<()> {
    let mut manifests = Vec::new();
    for file in service::manifests(named)? {
        let manifest = std::fs::read_to_string(&file)
            .with_context(|| format!("reading the manifest {}", file.display()))?;
        manifests.push(pb::ApplyManifestRequest { manifest, file: file.display().to_string() });
    }
    let changes = foresee(node, manifests).await?;
    output::show(output, &changes, || text(&changes))?;
    if changes.iter().any(Change::stands_in_the_way) {
        return Err(Failure::new(DIFFERS, "not all of this could be applied").into());
    }
    Ok(())
}

async fn foresee(node: &Node, manifests: Vec<pb::ApplyManifestRequest>) -> Result<Vec<Change>> {
    let request = pb::PlanRequest { manifests: manifests.clone() };
    let mut supervisor = node.supervisor("system.supervisor.plan")?;
    let planned = supervisor.plan(request).await.map_err(failed)?.into_inner().changes;
    let (state, now) = trial::state_of(&node.layout.log())?;
    let verdict = |service: &str| {
        let request =
            request_for(node.admin(), ActionKind::ControlService, service, Default::default()).ok()?;
        let body = state.nth(&request, 1, now)?;
        let allowed = matches!(body.effect, PolicyEffect::Allow | PolicyEffect::AllowWithConditions);
        Some(Verdict { allowed, rule: body.deciding_rule.to_string() })
    };
    let changes = manifests.into_iter().zip(planned).map(|(asked, planned)| Change {
        policy: matches!(planned.change.as_str(), "new" | "changed")
            .then(|| verdict(&planned.name))
            .flatten(),
        diff: if planned.change == "changed" { diff(&planned.before, &planned.after) } else { Vec::new() },
        file: asked.file,
        service: planned.name,
        change: planned.change,
        restarts: planned.restarts,
        why: planned.why,
    });
    Ok(changes.collect())
}

fn diff(before: &str, after: &str) -> Vec<String> {
    let compared = similar::TextDiff::from_lines(before, after);
    let shown = compared.unified_diff().context_radius(2).to_string();
    shown.lines().map(str::to_owned).collect()
}

fn text(changes: &[Change]) -> String {
    let mut text = String::new();
    for change in changes {
        let name = if change.service.is_empty() { &change.file } else { &change.service };
        let sign = match change.change.as_str() {
            "new" => "+",
            "changed" => "~",
            "unchanged" => "=",
            _ => "!",
        };
        let _ = write!(text, "{sign} {name}: {}", change.change);
        if !change.why.is_empty() {
            let _ = write!(text, ": {}", change.why);
        }
        match change.restarts.as_slice() {
            [] => {}
            some => {
                let _ = write!(text, "; starts anew: {}", some.join(", "));
            }
        }
        if let Some(verdict) = &change.policy {
            let says = if verdict.allowed { "allowed" } else { "refused" };
            let _ = write!(text, "; {says} by rule {}", verdict.rule);
        }
        text.push('\n');
        for line in &change.diff {
            let _ = writeln!(text, "    {line}");
        }
    }
    let count = changes.iter().filter(|change| change.changes()).count();
    let _ = writeln!(text, "{count} of {} would change something; `bailiwick apply` does it", changes.len());
    text
}

#[derive(Serialize)]
struct Generations {
    current: u64,
    generations: Vec<Generation>,
}

#[derive(Serialize)]
struct Generation {
    number: u64,
    time_ms: u64,
    service: String,
    /// None: the service was taken away.
    manifest: Option<String>,
}

pub async fn generations(node: &Node, output: Output) -> Result<()> {
    let mut supervisor = node.supervisor("system.supervisor.list_generations")?;
    let all = supervisor.list_generations(pb::ListGenerationsRequest {}).await.map_err(failed)?.into_inner();
    let generations = all.changes.into_iter().map(|change| Generation {
        number: change.number,
        time_ms: change.time_ms,
        service: change.service,
        manifest: base::Hash::from_slice(&change.manifest).map(|hash| hash.to_string()),
    });
    let all = Generations { current: all.current, generations: generations.collect() };
    output::show(output, &all, || {
        let rows: Vec<Vec<String>> = all
            .generations
            .iter()
            .map(|one| {
                let mark = if one.number == all.current { " (in force)" } else { "" };
                let what = one.manifest.as_deref().map_or("removed", |_| "applied");
                vec![
                    format!("{}{mark}", one.number),
                    units::date(one.time_ms),
                    one.service.clone(),
                    what.to_owned(),
                    one.manifest.as_deref().map_or("-", |hash| hash.get(..19).unwrap_or(hash)).to_owned(),
                ]
            })
            .collect();
        output::table(&["NUMBER", "TIME (UTC)", "SERVICE", "CHANGE", "MANIFEST"], &rows)
    })
}

/// What a rollback does, or would do.
#[derive(Debug, Serialize)]
struct Rollback {
    generation: u64,
    changes: Vec<Change>,
    removed: Vec<String>,
    dry_run: bool,
}

/// Each step is an act of its own, decided and recorded like any; the first that fails ends it, and what is done stays.
pub async fn rollback(node: &Node, output: Output, number: Option<u64>, dry_run: bool) -> Result<()> {
    let number = match number {
        Some(number) => number,
        None => {
            let mut supervisor = node.supervisor("system.supervisor.list_generations")?;
            let all = supervisor
                .list_generations(pb::ListGenerationsRequest {})
                .await
                .map_err(failed)?
                .into_inner();
            all.current.checked_sub(1).context("nothing was ever changed on this node")?
        }
    };
    let mut supervisor = node.supervisor("system.supervisor.get_generation")?;
    let wanted =
        supervisor.get_generation(pb::GetGenerationRequest { number }).await.map_err(failed)?.into_inner();
    let asked = wanted.services.into_iter().filter(|service| !service.in_force).map(|service| {
        let file = format!("{} of generation {number}", service.name);
        pb::ApplyManifestRequest { manifest: service.manifest, file }
    });
    let asked: Vec<_> = asked.collect();
    let changes = foresee(node, asked.clone()).await?;
    let refused: Vec<&str> = changes
        .iter()
        .filter(|change| change.stands_in_the_way())
        .map(|change| change.file.as_str())
        .collect();
    if !refused.is_empty() && !dry_run {
        bail!(
            "nothing was changed: {} would be refused; `bailiwick rollback {number} --dry-run` says why",
            refused.join(", ")
        );
    }
    let rollback = Rollback { generation: number, changes, removed: wanted.absent, dry_run };
    if !dry_run {
        carry_out(node, asked, &rollback.removed).await?;
    }
    output::show(output, &rollback, || described(&rollback))
}

async fn carry_out(node: &Node, asked: Vec<pb::ApplyManifestRequest>, absent: &[String]) -> Result<()> {
    for name in absent {
        let what = format!("stopping {name}");
        let request = pb::StopServiceRequest { id: 0, name: name.clone() };
        let mut supervisor = node.supervisor_patient("system.supervisor.stop_service")?;
        said_if_slow(&what, supervisor.stop_service(request)).await.map_err(failed).context(what.clone())?;
        let mut supervisor = node.supervisor("system.supervisor.unregister")?;
        let removed = supervisor.unregister(pb::UnregisterRequest { name: name.clone() }).await;
        removed.map_err(failed).with_context(|| format!("removing {name}"))?;
    }
    for request in asked {
        let what = format!("applying {}", request.file);
        let mut supervisor = node.supervisor_patient("system.supervisor.apply_manifest")?;
        said_if_slow(&what, supervisor.apply_manifest(request))
            .await
            .map_err(failed)
            .context(what.clone())?;
    }
    Ok(())
}

fn described(rollback: &Rollback) -> String {
    let (is, was) = if rollback.dry_run { ("would be", "would be") } else { ("is", "was") };
    let mut lines = String::new();
    for change in &rollback.changes {
        let _ = writeln!(lines, "~ {} {was} put back", change.service);
        for line in &change.diff {
            let _ = writeln!(lines, "    {line}");
        }
        if !change.why.is_empty() {
            let _ = writeln!(lines, "    {}", change.why);
        }
    }
    for name in &rollback.removed {
        let _ = writeln!(lines, "- {name} {was} removed");
    }
    let _ = writeln!(lines, "the configuration {is} that of generation {}", rollback.generation);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_goes_and_what_comes() {
        let shown = diff("a\nb\nc\n", "a\nx\nc\n");
        assert!(shown.contains(&"-b".to_owned()) && shown.contains(&"+x".to_owned()), "{shown:?}");
        assert!(diff("a\n", "a\n").is_empty());
    }
}
