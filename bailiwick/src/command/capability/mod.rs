//! `bailiwick capability`.

use anyhow::{Context, Result, bail};
use base::{CapabilityId, IdentityId};
use contracts::{capability_service::v1 as pb, convert::bytes};
use serde::Serialize;

use crate::{
    args::{Capability, Output},
    exit::Failure,
    node::{Node, failed},
    output,
};

pub async fn run(node: &Node, output: Output, command: Capability) -> Result<()> {
    match command {
        Capability::Grant { resource, rights, to } => {
            let request = pb::GrantRequest {
                resource: Some(parse_resource(&resource)?),
                permissions: Some(parse_rights(&rights)?),
                grantee: node.identity_id(&to).await?.0.to_vec(),
                restrictions: None,
                expires_at_ns: None,
            };
            let mut capabilities = node.capabilities("system.capability_service.grant").await?;
            let granted = capabilities.grant(request).await.map_err(failed)?.into_inner();
            show(output, &[row(granted)?])
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
        Capability::List { holder } => {
            let holder = match holder {
                Some(name) => node.identity_id(&name).await?.0.to_vec(),
                None => Vec::new(),
            };
            let mut capabilities = node.capabilities("system.capability_service.list").await?;
            let filter = pb::CapabilityFilter { holder, resource: None };
            let list = capabilities.list(filter).await.map_err(failed)?.into_inner().capabilities;
            show(output, &list.into_iter().map(row).collect::<Result<Vec<_>>>()?)
        }
        Capability::Revoke { id, reason } => revoke(node, id.parse()?, reason).await,
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

#[derive(Serialize)]
struct Row {
    id: CapabilityId,
    resource: String,
    rights: String,
    holder: IdentityId,
    grantor: IdentityId,
    created_at: u64,
}

fn row(capability: pb::Capability) -> Result<Row> {
    let resource = capability.resource.context("a capability without a resource")?;
    let held = capability.permissions.unwrap_or_default();
    let bits =
        [(held.read, 'r'), (held.write, 'w'), (held.execute, 'x'), (held.delegate, 'd'), (held.revoke, 'v')];
    Ok(Row {
        id: CapabilityId(bytes("id", &capability.id)?),
        resource: format!("{}:{}", resource.object_type, resource.object_id),
        rights: bits.iter().filter(|(held, _)| *held).map(|(_, letter)| letter).collect(),
        holder: IdentityId(bytes("holder", &capability.holder)?),
        grantor: IdentityId(bytes("grantor", &capability.grantor)?),
        created_at: capability.created_at.map_or(0, |at| at.sequence),
    })
}

fn show(output: Output, rows: &[Row]) -> Result<()> {
    output::show(output, &rows, || {
        let cells = |row: &Row| {
            vec![
                row.id.to_string(),
                row.resource.clone(),
                row.rights.clone(),
                row.holder.to_string(),
                row.created_at.to_string(),
            ]
        };
        output::table(
            &["ID", "RESOURCE", "RIGHTS", "HOLDER", "ENTRY"],
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
