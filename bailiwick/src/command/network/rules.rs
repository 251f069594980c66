//! `network rules` and `network test`.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use ::policy::core::{Layer, decide};
use anyhow::{Context, Result};
use base::Nonce;
use chain::payload::{
    network::CallLimits,
    policy::{PolicyAction, PolicyContext, PolicyEffect, PolicyRequest, ResourceRef, ResourceType},
};
use contracts::network::v1 as pb;
use serde::{Deserialize, Serialize};

use super::super::trial::{state_of, trouble};
use crate::{
    args::Output,
    node::{Node, failed},
    output,
};

/// The file of `rules set`, and what `rules` shows.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    /// Certificates in PEM.
    #[serde(default)]
    authorities: Vec<String>,
    #[serde(default)]
    limits: CallLimits,
    #[serde(default)]
    rule: Vec<Rule>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    id: String,
    applies_to: String,
    url_pattern: String,
    allow: bool,
    priority: u32,
}

impl From<pb::NetworkPolicy> for Policy {
    fn from(policy: pb::NetworkPolicy) -> Self {
        let rule = |rule: pb::UrlRule| Rule {
            id: rule.id,
            applies_to: rule.applies_to,
            url_pattern: rule.url_pattern,
            allow: rule.allow,
            priority: rule.priority,
        };
        Self {
            authorities: policy.authorities,
            limits: (&policy.limits.unwrap_or_default()).into(),
            rule: policy.rules.into_iter().map(rule).collect(),
        }
    }
}

impl From<Policy> for pb::NetworkPolicy {
    fn from(policy: Policy) -> Self {
        let rule = |rule: Rule| pb::UrlRule {
            id: rule.id,
            applies_to: rule.applies_to,
            url_pattern: rule.url_pattern,
            allow: rule.allow,
            priority: rule.priority,
        };
        Self {
            rules: policy.rule.into_iter().map(rule).collect(),
            limits: Some((&policy.limits).into()),
            authorities: policy.authorities,
        }
    }
}

async fn query(node: &Node, url: String, whom: String) -> Result<pb::PolicyQueryReply> {
    let mut network = node.network("system.network.policy_query").await?;
    let request = pb::PolicyQueryRequest { url, r#as: whom };
    Ok(network.policy_query(request).await.map_err(failed)?.into_inner())
}

/// As a file that `rules set` takes.
pub(super) async fn show(node: &Node, output: Output) -> Result<()> {
    let reply = query(node, String::new(), String::new()).await?;
    let policy = Policy::from(reply.policy.unwrap_or_default());
    let text = toml::to_string(&policy).context("writing the rules")?;
    output::show(output, &policy, || match reply.updated_at {
        Some(at) => format!("# In force since entry {}.\n{text}", at.sequence),
        None => format!("# The default: nobody has set another.\n{text}"),
    })
}

#[derive(Serialize)]
struct Updated {
    rules: usize,
    entry: Option<u64>,
}

pub(super) async fn set(node: &Node, output: Output, file: &Path) -> Result<()> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {name}")).map_err(trouble)?;
    let policy: Policy = toml::from_str(&text).with_context(|| format!("reading {name}")).map_err(trouble)?;
    let rules = policy.rule.len();
    let mut network = node.network("system.network.policy_update").await?;
    let reply = network.policy_update(pb::NetworkPolicy::from(policy)).await.map_err(failed)?.into_inner();
    let updated = Updated { rules, entry: reply.updated_at.map(|at| at.sequence) };
    output::show(output, &updated, || {
        let entry = updated.entry.map_or_else(String::new, |entry| format!(", entry {entry}"));
        format!("{rules} rules are in force{entry}\n")
    })
}

#[derive(Serialize)]
struct Tested {
    /// Both allow; false where one refuses, none where the address is not known.
    allowed: Option<bool>,
    process_class: String,
    url: String,
    url_rule: String,
    url_allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_refusal: Option<String>,
    address: Option<SocketAddr>,
    connect_rule: Option<String>,
    connect_allowed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_refusal: Option<String>,
}

/// What policy's own rules say of a connection: `(allowed, rule, why not)`. Tried on the node's log alone.
async fn connects(node: &Node, whom: &str, to: SocketAddr) -> Result<(bool, Option<String>, Option<String>)> {
    let requestor = match whom {
        "" | "system" | "runtime" | "application" => node.admin(),
        service => node.identity_id(&format!("orbital.services.{service}")).await?,
    };
    let address = to.to_string();
    let request = PolicyRequest {
        requestor,
        resource: ResourceRef { resource_type: ResourceType::Network, id: address.clone() },
        action: PolicyAction::Connect { address },
        context: PolicyContext { service: "network".to_owned(), ..PolicyContext::default() },
        nonce: Nonce([0; 16]),
        signature: None,
    };
    let (state, now) = state_of(&node.layout.log())?;
    let verdict = decide(&state, &request, now);
    let rule = verdict.deciding.map(|stored| stored.rule.id.to_string());
    let allowed = matches!(verdict.layer, Layer::Rule) && verdict.effect != PolicyEffect::Deny;
    Ok((allowed, rule, verdict.reason()))
}

pub(super) async fn test(
    node: &Node,
    output: Output,
    url: String,
    whom: String,
    address: Option<IpAddr>,
) -> Result<()> {
    let reply = query(node, url, whom.clone()).await?;
    let decision = reply.decision.unwrap_or_default();
    let ip = address.or_else(|| decision.host.trim_matches(['[', ']']).parse().ok());
    let port = u16::try_from(decision.port).unwrap_or_default();
    let to = ip.filter(|_| port > 0).map(|ip| SocketAddr::new(ip, port));
    let connect = match to {
        Some(to) => Some(connects(node, &whom, to).await?),
        None => None,
    };
    let allowed = match &connect {
        _ if !decision.allowed => Some(false),
        Some((allowed, ..)) => Some(*allowed),
        None => None,
    };
    let tested = Tested {
        allowed,
        process_class: reply.process_class,
        url: decision.url,
        url_rule: decision.rule,
        url_allowed: decision.allowed,
        url_refusal: decision.failed.map(|error| error.text),
        address: to,
        connect_rule: connect.as_ref().and_then(|(_, rule, _)| rule.clone()),
        connect_allowed: connect.as_ref().map(|(allowed, ..)| *allowed),
        connect_refusal: connect.and_then(|(_, _, refusal)| refusal),
    };
    output::show(output, &tested, || text(&tested))
}

fn text(tested: &Tested) -> String {
    let word = |allowed: bool| if allowed { "allowed" } else { "refused" };
    let by = |rule: &str| if rule.is_empty() { "no rule".to_owned() } else { format!("rule {rule}") };
    let why = |refusal: &Option<String>| refusal.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let url = format!(
        "by URL      {} by {}{}\n",
        word(tested.url_allowed),
        by(&tested.url_rule),
        why(&tested.url_refusal)
    );
    let connect = match (tested.address, tested.connect_allowed) {
        (Some(to), Some(allowed)) => format!(
            "by address  {} by {} ({to}){}\n",
            word(allowed),
            by(tested.connect_rule.as_deref().unwrap_or_default()),
            why(&tested.connect_refusal)
        ),
        _ => "by address  not known before the name is asked for; say one with --address\n".to_owned(),
    };
    format!("{} ({})\n{url}{connect}", tested.url, tested.process_class)
}
