//! `bailiwick identity`.

use anyhow::Result;
use base::IdentityId;
use chain::payload::identity::Identity;
use contracts::identity::v1 as pb;

use super::{credential, passkey, svid};
use crate::{
    args::{Identity as Args, Output},
    node::{Node, failed},
    output,
};

pub async fn run(node: &Node, output: Output, command: Args) -> Result<()> {
    match command {
        Args::List => list(node, output).await,
        Args::Show { name } => {
            let id = node.identity_id(&name).await?;
            let mut identities = node.identities("system.identity.get_identity").await?;
            let found = identities
                .get_identity(pb::GetIdentityRequest { id: id.0.to_vec() })
                .await
                .map_err(failed)?;
            show(output, &found.into_inner())
        }
        Args::Whoami => {
            let mut identities = node.identities("system.identity.who_am_i").await?;
            show(output, &identities.who_am_i(pb::WhoAmIRequest {}).await.map_err(failed)?.into_inner())
        }
        Args::Svid { service } => svid::show(node, output, &service).await,
        Args::Bundle { pem, to } => svid::bundle(node, pem, to.as_deref()).await,
        Args::Create { name, identity_type, parent, key_path } => {
            let parent = match parent {
                Some(parent) => node.identity_id(&parent).await?,
                None => node.admin(),
            };
            let request = pb::CreateIdentityRequest {
                name,
                identity_type,
                parent: parent.0.to_vec(),
                key_path: key_path.unwrap_or_default(),
            };
            let mut identities = node.identities_acting("system.identity.create_identity").await?;
            show(output, &identities.create_identity(request).await.map_err(failed)?.into_inner())
        }
        Args::Suspend { name, reason } => status(node, output, &name, "Suspended", reason).await,
        Args::Resume { name, reason } => status(node, output, &name, "Active", reason).await,
        Args::Revoke { name, reason } => status(node, output, &name, "Revoked", reason).await,
        Args::Credential(command) => credential::run(node, output, command).await,
        Args::Passkey(command) => passkey::run(node, output, command).await,
        Args::Login { credential, key_file, key_path, token } => {
            let asked = credential::Login { credential, key_file, key_path };
            credential::login(node, asked, token).await
        }
        Args::Token { lifetime_s } => {
            let mut identities = node.identities("system.identity.issue_token").await?;
            let request = pb::IssueTokenRequest { lifetime_s, ..pb::IssueTokenRequest::default() };
            let token = identities.issue_token(request).await.map_err(failed)?.into_inner();
            println!("{}", token.token);
            Ok(())
        }
    }
}

async fn status(node: &Node, output: Output, name: &str, status: &str, reason: String) -> Result<()> {
    let id: IdentityId = node.identity_id(name).await?;
    let mut identities = node.identities_acting("system.identity.update_status").await?;
    let request = pb::UpdateStatusRequest { id: id.0.to_vec(), status: status.to_owned(), reason };
    let identity = identities.update_status(request).await.map_err(failed)?.into_inner();
    show(output, &identity)
}

async fn list(node: &Node, output: Output) -> Result<()> {
    let mut identities = node.identities("system.identity.list_identities").await?;
    let list = identities.list_identities(pb::IdentityFilter::default()).await.map_err(failed)?.into_inner();
    let list = list.identities.iter().map(Identity::try_from).collect::<Result<Vec<_>, _>>()?;
    output::show(output, &list, || {
        let row = |identity: &Identity| {
            vec![
                identity.name.clone(),
                format!("{:?}", identity.identity_type),
                format!("{:?}", identity.status),
                identity.key_path.to_string(),
                identity.id.to_string(),
            ]
        };
        output::table(
            &["NAME", "TYPE", "STATUS", "KEY PATH", "ID"],
            &list.iter().map(row).collect::<Vec<_>>(),
        )
    })
}

fn show(output: Output, identity: &pb::Identity) -> Result<()> {
    let identity = Identity::try_from(identity)?;
    output::show(output, &identity, || {
        format!(
            "{}\n  id          {}\n  type        {:?}\n  status      {:?}\n  key path    {}\n  public key  {}\n  created at  entry {}\n",
            identity.name,
            identity.id,
            identity.identity_type,
            identity.status,
            identity.key_path,
            identity.public_key,
            identity.created_at.sequence
        )
    })
}
