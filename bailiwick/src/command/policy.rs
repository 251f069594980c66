//! `bailiwick policy`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use base::{Hash, IdentityId, Nonce, TreeId};
use chain::payload::policy::PolicyRule;
use contracts::{convert::bytes, policy::v1 as pb};
use serde::Serialize;

use crate::{
    args::{Output, Policy},
    exit::{Failure, REFUSED},
    node::{Node, failed},
    output,
};

pub async fn run(node: &Node, output: Output, command: Policy) -> Result<()> {
    match command {
        Policy::List => list(node, output).await,
        Policy::Add { file } => add(node, output, &file).await,
        Policy::Remove { id } => {
            let mut policy = node.policy("system.policy.remove_rule").await?;
            policy.remove_rule(pb::RemoveRuleRequest { id }).await.map_err(failed)?;
            Ok(())
        }
        Policy::Check { file } => check(output, &file),
        // These work on files alone.
        Policy::Test { .. }
        | Policy::WhatIf(_)
        | Policy::WhoCan { .. }
        | Policy::Export(_)
        | Policy::Import(_) => Ok(()),
        Policy::State => state(node, output).await,
        Policy::Evaluate { action, resource, identity } => {
            evaluate(node, output, action, resource, identity).await
        }
    }
}

async fn list(node: &Node, output: Output) -> Result<()> {
    let mut policy = node.policy("system.policy.list_rules").await?;
    let rules = policy.list_rules(pb::RuleFilter::default()).await.map_err(failed)?.into_inner().rules;
    let rules = rules.iter().map(PolicyRule::try_from).collect::<Result<Vec<_>, _>>()?;
    output::show(output, &rules, || table(&rules))
}

fn table(rules: &[PolicyRule]) -> String {
    let row = |rule: &PolicyRule| {
        vec![
            rule.priority.to_string(),
            rule.id.to_string(),
            format!("{:?}", rule.effect),
            rule.description.clone(),
        ]
    };
    output::table(&["PRIORITY", "ID", "EFFECT", "DESCRIPTION"], &rules.iter().map(row).collect::<Vec<_>>())
}

/// Says whether a file's rules could be added, and shows them as they would be tried. `@admin` is whoever that will be.
pub fn check(output: Output, file: &Path) -> Result<()> {
    let mut rules = read(file, IdentityId([0; IdentityId::BYTES]))?;
    rules.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.id.cmp(&b.id)));
    output::show(output, &rules, || {
        format!("{}: {}\n{}", output::good("valid"), file.display(), table(&rules))
    })
}

/// The rules of a file, all of them valid.
pub(super) fn read(file: &Path, admin: IdentityId) -> Result<Vec<PolicyRule>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("reading the rules {}", file.display()))?;
    let rules = ::policy::rules::parse(&file.display().to_string(), &text, admin)?;
    if rules.is_empty() {
        bail!("{} holds no rule", file.display());
    }
    Ok(rules)
}

#[derive(Serialize)]
struct Added {
    id: String,
    created_at: u64,
}

/// Reads all rules of the file before the first is proposed.
async fn add(node: &Node, output: Output, file: &Path) -> Result<()> {
    let rules = read(file, node.admin())?;
    let mut policy = node.policy("system.policy.add_rule").await?;
    let mut added = Vec::new();
    for rule in &rules {
        let request = pb::AddRuleRequest { rule: Some(rule.into()) };
        let reply = policy.add_rule(request).await.map_err(failed)?.into_inner();
        added.push(Added { id: reply.id, created_at: reply.created_at.map_or(0, |at| at.sequence) });
    }
    output::show(output, &added, || {
        added.iter().map(|rule| format!("added {} in entry {}\n", rule.id, rule.created_at)).collect()
    })
}

#[derive(Serialize)]
struct State {
    state_hash: Hash,
    sequence: u64,
    rules: u32,
    identities: u32,
}

async fn state(node: &Node, output: Output) -> Result<()> {
    let mut policy = node.policy("system.policy.get_policy_state").await?;
    let state = policy.get_policy_state(pb::GetPolicyStateRequest {}).await.map_err(failed)?.into_inner();
    let state = State {
        state_hash: Hash(bytes("state_hash", &state.state_hash)?),
        sequence: state.sequence,
        rules: state.rules,
        identities: state.identities,
    };
    output::show(output, &state, || {
        format!(
            "{} rules, {} identities, up to entry {}\n{}\n",
            state.rules, state.identities, state.sequence, state.state_hash
        )
    })
}

#[derive(Serialize)]
struct Decided {
    effect: &'static str,
    deciding_rule: String,
    matched_rules: Vec<String>,
    decision: u64,
}

async fn evaluate(
    node: &Node,
    output: Output,
    kind: String,
    resource: String,
    identity: Option<String>,
) -> Result<()> {
    let requestor = match identity {
        Some(name) => node.identity_id(&name).await?,
        None => node.admin(),
    };
    let mut nonce = [0; Nonce::BYTES];
    getrandom::fill(&mut nonce).context("the kernel's random source")?;
    let (resource_type, action) = action_on(kind, &resource)?;
    let request = pb::PolicyRequest {
        requestor: requestor.0.to_vec(),
        action: Some(action),
        resource: Some(pb::ResourceRef { r#type: resource_type.to_owned(), id: resource }),
        context: Some(pb::PolicyContext::default()),
        nonce: nonce.to_vec(),
        signature: Vec::new(),
    };
    let mut policy = node.policy("system.policy.evaluate").await?;
    let decision = policy.evaluate(request).await.map_err(failed)?.into_inner();
    let effect = match decision.effect() {
        pb::Effect::Allow => "allow",
        pb::Effect::AllowWithConditions => "allow with conditions",
        pb::Effect::Deny | pb::Effect::Unspecified => "deny",
    };
    let decided = Decided {
        effect,
        deciding_rule: decision.deciding_rule,
        matched_rules: decision.matched_rules,
        decision: decision.axiom_ref.map_or(0, |at| at.sequence),
    };
    output::show(output, &decided, || {
        format!("{} by {}, decision {}\n", decided.effect, decided.deciding_rule, decided.decision)
    })?;
    if effect == "deny" {
        let text = format!("refused; `bailiwick why {}` explains", decided.decision);
        return Err(Failure::new(REFUSED, text).into());
    }
    Ok(())
}

/// The action of this kind whose one datum is the resource.
fn action_on(kind: String, resource: &str) -> Result<(&'static str, pb::Action)> {
    let text = resource.to_owned();
    let mut action = pb::Action { kind, ..pb::Action::default() };
    let resource_type = match action.kind.as_str() {
        "create_file" => {
            (action.path, action.file_type) = (text, "file".to_owned());
            "file"
        }
        "read_file" | "write_file" | "delete_file" => {
            action.path = text;
            "file"
        }
        "connect" | "listen" => {
            action.address = text;
            "network"
        }
        "sign" => {
            (action.key_path, action.message_hash) = (text, Hash::ZERO.0.to_vec());
            "key"
        }
        "encrypt" | "decrypt" => {
            action.key_path = text;
            "key"
        }
        "create_process" => {
            action.image = resource.parse::<Hash>()?.0.to_vec();
            "image"
        }
        "upgrade_system" => {
            action.image = resource.parse::<Hash>()?.0.to_vec();
            "system"
        }
        "terminate_process" => {
            action.pid = resource.parse().with_context(|| format!("{resource:?} is no process number"))?;
            "process"
        }
        "import_image" | "remove_image" | "take_image" => {
            action.name = text;
            "image"
        }
        "use_image" => {
            let (name, tree) =
                resource.rsplit_once('@').with_context(|| format!("{resource:?} is not NAME@sha256:ID"))?;
            action.name = name.to_owned();
            action.tree = tree.parse::<TreeId>()?.0.to_vec();
            "image"
        }
        "use_secret" => {
            let (name, place) =
                resource.split_once('@').with_context(|| format!("{resource:?} is not NAME@HOST:PORT"))?;
            (action.name, action.address) = (name.to_owned(), place.to_owned());
            "network"
        }
        "execute" => match resource.parse() {
            Ok(pid) => {
                action.pid = pid;
                "process"
            }
            Err(_) => {
                action.service = text;
                "service"
            }
        },
        other => bail!(
            "`policy evaluate` can ask about files, connections, keys, images and processes, not {other:?}"
        ),
    };
    Ok((resource_type, action))
}
