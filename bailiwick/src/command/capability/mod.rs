//! `bailiwick capability`.

mod history;
mod limits;
mod tree;

use anyhow::{Context, Result, bail};
use base::{CapabilityId, IdentityId};
use chain::payload::capability::Restrictions;
use contracts::{axiom::v1::GetHeadRequest, capability_service::v1 as pb, convert::bytes};
use serde::Serialize;

use crate::{
    args::{Capability, Output},
    exit::Failure,
    node::{Node, failed},
    output,
};

pub async fn run(node: &Node, output: Output, command: Capability) -> Result<()> {
    match command {
        Capability::Grant { resource, rights, to, limits } => {
            let expires_in = limits.expires_in.as_deref().map(limits::nanoseconds).transpose()?;
            let expires_at_ns = match expires_in {
                Some(ns) => Some(axiom_time_ns(node).await?.saturating_add(ns)),
                None => None,
            };
            let request = pb::GrantRequest {
                resource: Some(parse_resource(&resource)?),
                permissions: Some(parse_rights(&rights)?),
                grantee: node.identity_id(&to).await?.0.to_vec(),
                restrictions: limits::restrictions(&limits)?,
                expires_at_ns,
            };
            let mut capabilities = node.capabilities("system.capability_service.grant").await?;
            let granted = capabilities.grant(request).await.map_err(failed)?.into_inner();
            show(output, &[row(granted)?])
        }
        Capability::Delegate { id, rights, to } => {
            let request = pb::DelegateRequest {
                capability: id.parse::<CapabilityId>()?.0.to_vec(),
                to: node.identity_id(&to).await?.0.to_vec(),
                permissions: Some(parse_rights(&rights)?),
            };
            let mut capabilities = node.capabilities("system.capability_service.delegate").await?;
            let passed = capabilities.delegate(request).await.map_err(failed)?.into_inner();
            show(output, &[row(passed)?])
        }
        Capability::Check { identity, resource, rights } => {
            let request = pb::CheckRequest {
                identity: node.identity_id(&identity).await?.0.to_vec(),
                resource: Some(parse_resource(&resource)?),
                permissions: Some(parse_rights(&rights)?),
            };
            let mut capabilities = node.capabilities("system.capability_service.check").await?;
            let held = capabilities.check(request).await.map_err(failed)?.into_inner().held;
            output::show(output, &serde_json::json!({ "held": held }), || {
                format!("{}\n", if held { "held" } else { "not held" })
            })?;
            if held { Ok(()) } else { Err(Failure::new(1, "not held").into()) }
        }
        Capability::Use { identity, resource, rights, context } => {
            let request = pb::UseRequest {
                identity: node.identity_id(&identity).await?.0.to_vec(),
                resource: Some(parse_resource(&resource)?),
                permissions: Some(parse_rights(&rights)?),
                context: limits::pairs(&context)?,
            };
            use_once(node, output, request).await
        }
        Capability::List { holder } => {
            let holder = identity(node, holder).await?;
            show(output, &list(node, holder, None).await?)
        }
        Capability::Who { resource } => {
            show(output, &list(node, None, Some(parse_resource(&resource)?)).await?)
        }
        Capability::Chain { id } => {
            let request = pb::GetChainRequest { capability: id.parse::<CapabilityId>()?.0.to_vec() };
            let mut capabilities = node.capabilities("system.capability_service.get_chain").await?;
            let chain = capabilities.get_chain(request).await.map_err(failed)?.into_inner().capabilities;
            show(output, &chain.into_iter().map(row).collect::<Result<Vec<_>>>()?)
        }
        Capability::Tree { id, holder } => {
            let root = id.map(|id| id.parse()).transpose()?;
            let holder = identity(node, holder).await?;
            let tree = tree::Tree::new(list(node, None, None).await?);
            let roots = tree.roots(root, holder);
            if let (Some(root), true) = (root, roots.is_empty()) {
                bail!("there is no capability {root}");
            }
            output::show(output, &tree.nested(&roots), || tree.text(&roots))
        }
        Capability::History { id, by, operation, since, until, limit } => {
            let now = axiom_time_ns(node).await?;
            let ago = |text: Option<String>| {
                let ns = text.map(|text| limits::nanoseconds(&text)).transpose();
                ns.map(|ns| ns.map(|ns| now.saturating_sub(ns)))
            };
            let filter = history::Filter {
                capability: id.map(|id| id.parse()).transpose()?,
                actor: identity(node, by).await?,
                operation,
                since_ns: ago(since)?.unwrap_or(0),
                until_ns: ago(until)?.unwrap_or(u64::MAX),
                limit: limit as usize,
            };
            history::show(node, output, filter).await
        }
        Capability::Revoke { id, reason } => revoke(node, id.parse()?, reason).await,
    }
}

async fn identity(node: &Node, name: Option<String>) -> Result<Option<IdentityId>> {
    match name {
        Some(name) => Ok(Some(node.identity_id(&name).await?)),
        None => Ok(None),
    }
}

async fn axiom_time_ns(node: &Node) -> Result<u64> {
    let head = node.axiom("system.axiom.get_head")?.get_head(GetHeadRequest {}).await;
    Ok(head.map_err(failed)?.into_inner().axiom_time_ns)
}

async fn use_once(node: &Node, output: Output, request: pb::UseRequest) -> Result<()> {
    let mut capabilities = node.capabilities("system.capability_service.use").await?;
    let reply = capabilities.r#use(request).await.map_err(failed)?.into_inner();
    let by = match reply.permitted {
        true => Some(CapabilityId(bytes("capability", &reply.capability)?)),
        false => None,
    };
    let told = serde_json::json!({
        "permitted": reply.permitted,
        "capability": by,
        "refused": (!reply.permitted).then_some(&reply.refused),
    });
    output::show(output, &told, || match by {
        Some(id) => format!("permitted by {id}\n"),
        None => format!("refused: {}\n", reply.refused),
    })?;
    if reply.permitted { Ok(()) } else { Err(Failure::new(1, "refused").into()) }
}

/// Everything that is selected, in as many messages as it takes.
async fn list(node: &Node, holder: Option<IdentityId>, resource: Option<pb::Resource>) -> Result<Vec<Row>> {
    let mut capabilities = node.capabilities("system.capability_service.list").await?;
    let holder = holder.map(|holder| holder.0.to_vec()).unwrap_or_default();
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let after = rows.last().map(|row| row.id.0.to_vec()).unwrap_or_default();
        let filter =
            pb::CapabilityFilter { holder: holder.clone(), resource: resource.clone(), after: Some(after) };
        let page = capabilities.list(filter).await.map_err(failed)?.into_inner();
        let is_last = !page.more || page.capabilities.is_empty();
        for capability in page.capabilities {
            rows.push(row(capability)?);
        }
        if is_last {
            return Ok(rows);
        }
    }
}

async fn revoke(node: &Node, id: CapabilityId, reason: String) -> Result<()> {
    let mut capabilities = node.capabilities("system.capability_service.revoke").await?;
    let request = pb::RevokeRequest { id: id.0.to_vec(), reason };
    let reply = capabilities.revoke(request).await.map_err(failed)?.into_inner();
    if reply.laggards.is_empty() {
        return Ok(());
    }
    bail!(
        "revoked, but not yet applied by {}; it holds there until they follow or are restarted",
        reply.laggards.join(", ")
    )
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    id: CapabilityId,
    resource: String,
    rights: String,
    holder: IdentityId,
    grantor: IdentityId,
    parent: Option<CapabilityId>,
    limits: Option<Restrictions>,
    generation: u64,
    created_at: u64,
}

fn row(capability: pb::Capability) -> Result<Row> {
    let resource = capability.resource.context("a capability without a resource")?;
    let parent = capability.parent.map(|parent| bytes("parent", &parent).map(CapabilityId)).transpose()?;
    Ok(Row {
        id: CapabilityId(bytes("id", &capability.id)?),
        resource: format!("{}:{}", resource.object_type, resource.object_id),
        rights: letters(capability.permissions.unwrap_or_default()),
        holder: IdentityId(bytes("holder", &capability.holder)?),
        grantor: IdentityId(bytes("grantor", &capability.grantor)?),
        parent,
        limits: capability.restrictions.as_ref().map(Into::into),
        generation: capability.generation,
        created_at: capability.created_at.map_or(0, |at| at.sequence),
    })
}

fn letters(held: pb::Permissions) -> String {
    let bits =
        [(held.read, 'r'), (held.write, 'w'), (held.execute, 'x'), (held.delegate, 'd'), (held.revoke, 'v')];
    bits.iter().filter(|(held, _)| *held).map(|(_, letter)| letter).collect()
}

fn show(output: Output, rows: &[Row]) -> Result<()> {
    output::show(output, &rows, || {
        let cells = |row: &Row| {
            vec![
                row.id.to_string(),
                row.resource.clone(),
                row.rights.clone(),
                row.holder.to_string(),
                row.limits.as_ref().map(limits::text).unwrap_or_default(),
                row.created_at.to_string(),
            ]
        };
        output::table(
            &["ID", "RESOURCE", "RIGHTS", "HOLDER", "LIMITS", "ENTRY"],
            &rows.iter().map(cells).collect::<Vec<_>>(),
        )
    })
}

fn parse_resource(text: &str) -> Result<pb::Resource> {
    let (object_type, object_id) = text.split_once(':').with_context(|| {
        format!("{text:?} is no resource; write TYPE:ID, with file, endpoint, process, memory, socket, device or service")
    })?;
    Ok(pb::Resource { object_type: object_type.to_owned(), object_id: object_id.to_owned() })
}

fn parse_rights(text: &str) -> Result<pb::Permissions> {
    let mut rights = pb::Permissions::default();
    for letter in text.chars() {
        let bit = match letter {
            'r' => &mut rights.read,
            'w' => &mut rights.write,
            'x' => &mut rights.execute,
            'd' => &mut rights.delegate,
            'v' => &mut rights.revoke,
            _ => bail!(
                "{text:?} are no rights; letters are r (read), w (write), x (execute), d (delegate), v (revoke)"
            ),
        };
        *bit = true;
    }
    if text.is_empty() { bail!("no rights were named") } else { Ok(rights) }
}
