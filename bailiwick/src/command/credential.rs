//! `bailiwick identity credential` and `bailiwick identity login`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use base::{AxiomTime, CredentialId, Hash, IdentityId};
use contracts::{
    convert::bytes,
    identity::v1::{
        self as pb, add_credential_request::Kind as NewKind, auth_proof::Proof, credential::Kind,
    },
};
use identity::core::{Challenge, KEY_BYTES, KEY_PREFIX, challenge_hash, key_proof, parse_key};
use serde::Serialize;
use zeroize::Zeroizing;

use super::key;
use crate::{
    args::{Credential as Args, CredentialKind, Output, TokenArgs},
    node::{Node, failed},
    output, units,
};

/// Resource of a permission that names none.
const EVERYTHING: &str = "**";
/// A key and a newline, with room for blanks.
const KEY_FILE_BYTES_MAX: usize = KEY_PREFIX.len() + 2 * KEY_BYTES + 16;

#[derive(Serialize)]
struct Shown {
    id: CredentialId,
    name: String,
    kind: &'static str,
    /// What a person wants to know of this kind.
    about: String,
    created_at: u64,
    /// A new key, this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

fn shown(credential: &pb::Credential) -> Result<Shown> {
    let (kind, about) = match &credential.kind {
        Some(Kind::Passkey(_)) => ("passkey", String::new()),
        Some(Kind::RecoveryKey(key)) => ("recovery-key", if key.used { "used" } else { "unused" }.to_owned()),
        Some(Kind::ApiKey(key)) => {
            let named = key.permissions.iter().map(|one| format!("{}={}", one.action, one.resource));
            let until = key
                .expires_at_ns
                .map_or_else(|| "does not expire".to_owned(), |end| format!("expires at {}", AxiomTime(end)));
            ("api-key", format!("{}; {until}", named.collect::<Vec<_>>().join(", ")))
        }
        Some(Kind::DerivedKey(key)) => ("derived-key", key.key_path.clone()),
        None => ("unknown", String::new()),
    };
    Ok(Shown {
        id: CredentialId(bytes("id", &credential.id)?),
        name: credential.name.clone(),
        kind,
        about,
        created_at: credential.created_at.as_ref().map_or(0, |at| at.sequence),
        key: None,
    })
}

pub async fn whose(node: &Node, name: Option<String>) -> Result<IdentityId> {
    match name {
        Some(name) => node.identity_id(&name).await,
        None => Ok(node.admin()),
    }
}

fn permission(text: &str) -> pb::Permission {
    let (action, resource) = text.split_once('=').unwrap_or((text, EVERYTHING));
    pb::Permission { action: action.to_owned(), resource: resource.to_owned() }
}

pub async fn run(node: &Node, output: Output, command: Args) -> Result<()> {
    match command {
        Args::Add { name, kind, identity, permissions, expires, key_path } => {
            let kind = match kind {
                CredentialKind::ApiKey => {
                    let life_ms = expires.as_deref().map(units::parse_duration_ms).transpose()?;
                    let permissions = permissions.iter().map(|text| permission(text)).collect();
                    // Rounded up: 0 would be for ever.
                    let lifetime_s = life_ms.map_or(0, |life| life.div_ceil(1_000).max(1));
                    NewKind::ApiKey(pb::CreateApiKey { permissions, lifetime_s })
                }
                _ if !permissions.is_empty() || expires.is_some() => {
                    anyhow::bail!("only an API key has permissions and a time at which it expires")
                }
                CredentialKind::RecoveryKey => NewKind::RecoveryKey(pb::CreateRecoveryKey {}),
                CredentialKind::DerivedKey => {
                    NewKind::DerivedKey(pb::CreateDerivedKey { key_path: key_path.unwrap_or_default() })
                }
            };
            let identity = whose(node, identity).await?.0.to_vec();
            let request = pb::AddCredentialRequest { identity, name, kind: Some(kind) };
            let mut identities = node.identities_acting("system.identity.add_credential").await?;
            let added = identities.add_credential(request).await.map_err(failed)?.into_inner();
            let mut credential = shown(&added.credential.context("the answer names no credential")?)?;
            credential.key = Some(added.key).filter(|key| !key.is_empty());
            output::show(output, &credential, || {
                let mut text = format!("{}  {}\n", credential.id, credential.kind);
                if let Some(key) = &credential.key {
                    text.push_str(&format!(
                        "{key}\nThis key is not shown again; the node keeps only its hash.\n"
                    ));
                }
                text
            })
        }
        Args::List { identity } => {
            let identity = whose(node, identity).await?.0.to_vec();
            let mut identities = node.identities("system.identity.list_credentials").await?;
            let request = pb::ListCredentialsRequest { identity };
            let list = identities.list_credentials(request).await.map_err(failed)?.into_inner();
            let list = list.credentials.iter().map(shown).collect::<Result<Vec<_>>>()?;
            output::show(output, &list, || {
                let row = |one: &Shown| {
                    vec![
                        one.id.to_string(),
                        one.kind.to_owned(),
                        one.name.clone(),
                        one.about.clone(),
                        one.created_at.to_string(),
                    ]
                };
                output::table(
                    &["ID", "KIND", "NAME", "ABOUT", "ENTRY"],
                    &list.iter().map(row).collect::<Vec<_>>(),
                )
            })
        }
        Args::Revoke { id, identity, reason } => {
            let identity = whose(node, identity).await?.0.to_vec();
            let credential = id.parse::<CredentialId>()?.0.to_vec();
            let request = pb::RevokeCredentialRequest { identity, credential, reason };
            let mut identities = node.identities_acting("system.identity.revoke_credential").await?;
            let revoked = identities.revoke_credential(request).await.map_err(failed)?.into_inner();
            let entry = revoked.revoked_at.map_or(0, |at| at.sequence);
            output::show(output, &serde_json::json!({ "id": id, "revoked_at": entry }), || {
                format!("{id} is revoked by entry {entry}\n")
            })
        }
    }
}

pub struct Login {
    pub credential: String,
    pub key_file: Option<PathBuf>,
    pub key_path: String,
}

pub fn challenge_of(wire: &pb::Challenge) -> Result<Challenge> {
    Ok(Challenge {
        id: bytes("challenge.id", &wire.id)?,
        nonce: bytes("challenge.nonce", &wire.nonce)?,
        created_at: AxiomTime(wire.created_at_ns),
        expires_at: AxiomTime(wire.expires_at_ns),
        credential: CredentialId(bytes("challenge.credential", &wire.credential)?),
        origin: wire.origin.clone(),
    })
}

pub async fn login(node: &Node, asked: Login, token: TokenArgs) -> Result<()> {
    let credential = asked.credential.parse::<CredentialId>()?;
    let mut identities = node.identities("system.identity.request_challenge").await?;
    let request = pb::RequestChallengeRequest { credential: credential.0.to_vec(), origin: String::new() };
    let wire = identities.request_challenge(request).await.map_err(failed)?.into_inner();
    let challenge = challenge_of(&wire)?;
    let proof = match &asked.key_file {
        Some(file) => {
            let text = Zeroizing::new(key::read_up_to(file, KEY_FILE_BYTES_MAX)?);
            let text = std::str::from_utf8(&text).ok().and_then(parse_key);
            let key = text.with_context(|| {
                format!(
                    "{} holds no key: one is written {KEY_PREFIX} and 64 hexadecimal digits",
                    file.display()
                )
            })?;
            Proof::ApiKeyHash(key_proof(&key, &challenge).0.to_vec())
        }
        None => {
            let message: Hash = challenge_hash(&challenge);
            Proof::Signature(key::sign_hash(node, asked.key_path, message).await?.signature.0.to_vec())
        }
    };
    authenticate(node, credential, wire, proof, token).await
}

/// Shows the proof; keeps the token that it earns, or prints it.
pub async fn authenticate(
    node: &Node,
    credential: CredentialId,
    challenge: pb::Challenge,
    proof: Proof,
    token: TokenArgs,
) -> Result<()> {
    let request = pb::AuthenticateRequest {
        credential: credential.0.to_vec(),
        challenge: Some(challenge),
        proof: Some(pb::AuthProof { proof: Some(proof) }),
        lifetime_s: token.lifetime_s,
        actions: token.actions,
        resources: token.resources,
    };
    let mut identities = node.identities("system.identity.authenticate").await?;
    let issued = identities.authenticate(request).await.map_err(failed)?.into_inner();
    match token.keep {
        true => node.keep(&issued),
        false => println!("{}", issued.token),
    }
    Ok(())
}
