//! `bailiwick identity svid` and `identity bundle`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use chain::payload::identity::{Identity, IdentityType};
use contracts::identity::v1 as pb;
use serde::Serialize;
use svid::{SpiffeId, TrustDomain};

use crate::{
    args::Output,
    node::{Node, failed},
    output,
};

/// Of what a service gets, what is public.
#[derive(Serialize)]
struct Svid {
    service: String,
    spiffe_id: String,
    status: String,
    trust_domain: String,
    x509_lifetime_s: u64,
    jwt_lifetime_s: u64,
}

async fn trust_bundle(node: &Node) -> Result<pb::TrustBundle> {
    let mut identities = node.identities("system.identity.get_trust_bundle").await?;
    Ok(identities.get_trust_bundle(pb::GetTrustBundleRequest {}).await.map_err(failed)?.into_inner())
}

/// By its boot name; what no channel of a service stands for has no SVID.
pub async fn show(node: &Node, output: Output, service: &str) -> Result<()> {
    let id = node.identity_id(&format!("orbital.services.{service}")).await?;
    let mut identities = node.identities("system.identity.get_identity").await?;
    let found =
        identities.get_identity(pb::GetIdentityRequest { id: id.0.to_vec() }).await.map_err(failed)?;
    let identity = Identity::try_from(&found.into_inner())?;
    if identity.identity_type != IdentityType::Service {
        bail!("{service} is a {:?}, and SVIDs are for services", identity.identity_type);
    }
    let bundle = trust_bundle(node).await?;
    let spiffe_id: SpiffeId = TrustDomain::parse(&bundle.trust_domain)?.member(&["services", service])?;
    let svid = Svid {
        service: service.to_owned(),
        spiffe_id: spiffe_id.to_string(),
        status: format!("{:?}", identity.status),
        trust_domain: bundle.trust_domain,
        x509_lifetime_s: bundle.x509_lifetime_s,
        jwt_lifetime_s: bundle.jwt_lifetime_s,
    };
    output::show(output, &svid, || {
        format!(
            "{}\n  service      {} ({})\n  X.509-SVID   {} s, renewed at half of it\n  JWT-SVID     {} s\n",
            svid.spiffe_id, svid.service, svid.status, svid.x509_lifetime_s, svid.jwt_lifetime_s
        )
    })
}

pub async fn bundle(node: &Node, pem: bool, to: Option<&Path>) -> Result<()> {
    let bundle = trust_bundle(node).await?;
    let text = match pem {
        true => svid::pem("CERTIFICATE", &bundle.x509_authority),
        false => format!("{}\n", bundle.bundle),
    };
    match to {
        Some(to) => std::fs::write(to, text).with_context(|| format!("writing {}", to.display())),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}
