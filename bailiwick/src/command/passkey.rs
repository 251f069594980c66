//! `bailiwick identity passkey`: the command shows a page on loopback and relays between it and `identity`.

mod page;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::{CredentialId, IdentityId};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use contracts::identity::v1::{
    self as pb, add_credential_request::Kind as NewKind, auth_proof::Proof, credential::Kind,
};
use identity::core::{RP_ID, challenge_hash};
use serde::Deserialize;
use tokio::sync::mpsc;

use self::page::{Ask, Asked, Page};
use super::credential::{authenticate, challenge_of, whose};
use crate::{
    args::{Output, Passkey as Args, PasskeyPage},
    node::{Node, failed},
    output,
};

/// What the page says of a ceremony, in base64.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Created {
    client_data: String,
    attestation_object: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Used {
    client_data: String,
    authenticator_data: String,
    signature: String,
}

/// Whose passkey, and which ones the browser is told of.
struct Whom {
    identity: IdentityId,
    name: String,
    passkeys: Vec<(CredentialId, Vec<u8>)>,
}

async fn whom(node: &Node, name: Option<String>) -> Result<Whom> {
    let identity = whose(node, name).await?;
    let id = identity.0.to_vec();
    let mut identities = node.identities("system.identity.list_credentials").await?;
    let list = identities.list_credentials(pb::ListCredentialsRequest { identity: id.clone() }).await;
    let mut passkeys = vec![];
    for credential in list.map_err(failed)?.into_inner().credentials {
        if let Some(Kind::Passkey(passkey)) = credential.kind {
            let id = contracts::convert::bytes("id", &credential.id)?;
            passkeys.push((CredentialId(id), passkey.webauthn_id));
        }
    }
    let mut identities = node.identities("system.identity.get_identity").await?;
    let found = identities.get_identity(pb::GetIdentityRequest { id }).await.map_err(failed)?;
    Ok(Whom { identity, name: found.into_inner().name, passkeys })
}

pub async fn run(node: &Node, output: Output, command: Args) -> Result<()> {
    match command {
        Args::Add { name, identity, page } => {
            let whom = whom(node, identity).await?;
            let (challenge, answer) = show(node, page, &whom, None).await?;
            let Created { client_data, attestation_object } = serde_json::from_slice(&answer)?;
            let kind = NewKind::Passkey(pb::CreatePasskey {
                client_data: decoded(&client_data)?,
                attestation_object: decoded(&attestation_object)?,
                challenge: Some(challenge),
            });
            let identity = whom.identity.0.to_vec();
            let request = pb::AddCredentialRequest { identity, name, kind: Some(kind) };
            let mut identities = node.identities_acting("system.identity.add_credential").await?;
            let added = identities.add_credential(request).await.map_err(failed)?.into_inner();
            let added = added.credential.context("the answer names no credential")?;
            let id = CredentialId(contracts::convert::bytes("id", &added.id)?);
            let shown = serde_json::json!({ "id": id, "name": added.name, "kind": "passkey" });
            output::show(output, &shown, || format!("{id}  passkey\n"))
        }
        Args::Login { identity, credential, token, page } => {
            let mut whom = whom(node, identity).await?;
            if let Some(wanted) = credential {
                let wanted = wanted.parse::<CredentialId>()?;
                whom.passkeys.retain(|(id, _)| *id == wanted);
            }
            let [(credential, _)] = whom.passkeys[..] else {
                bail!("{} has {} such passkeys; --credential names one", whom.name, whom.passkeys.len())
            };
            let (challenge, answer) = show(node, page, &whom, Some(credential)).await?;
            let Used { client_data, authenticator_data, signature } = serde_json::from_slice(&answer)?;
            let assertion = pb::WebAuthnAssertion {
                client_data: decoded(&client_data)?,
                authenticator_data: decoded(&authenticator_data)?,
                signature: decoded(&signature)?,
            };
            authenticate(node, credential, challenge, Proof::Webauthn(assertion), token).await
        }
    }
}

fn decoded(text: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).context("the page's answer is not base64")
}

/// Shows the page until it has answered once; the challenge that it answered, and what it said.
async fn show(
    node: &Node,
    args: PasskeyPage,
    whom: &Whom,
    credential: Option<CredentialId>,
) -> Result<(pb::Challenge, Vec<u8>)> {
    let page = Page::open(args.port).await?;
    let origin = page.origin().to_owned();
    eprintln!("Open this page in a browser on this machine: {}", page.url());
    let wait = Duration::from_secs(args.wait_s.into());
    let answered = page.serve(async |asked| {
        tokio::time::timeout(wait, ceremony(node, asked, &origin, whom, credential)).await
    });
    answered.await.with_context(|| format!("nobody has answered for {} s", args.wait_s))?
}

async fn ceremony(
    node: &Node,
    mut asked: mpsc::Receiver<Asked>,
    origin: &str,
    whom: &Whom,
    credential: Option<CredentialId>,
) -> Result<(pb::Challenge, Vec<u8>)> {
    // The last one: whoever asks again answers that.
    let mut challenge = None;
    while let Some((ask, reply)) = asked.recv().await {
        match ask {
            Ask::Challenge => {
                let fresh = request_challenge(node, origin, credential).await?;
                let asks = serde_json::json!({
                    "adding": credential.is_none(),
                    "challenge": URL_SAFE_NO_PAD.encode(challenge_hash(&challenge_of(&fresh)?).0),
                    "rp_id": RP_ID,
                    "user": whom.name,
                    "user_id": URL_SAFE_NO_PAD.encode(whom.identity.0),
                    "passkeys": whom.passkeys.iter().map(|(_, id)| URL_SAFE_NO_PAD.encode(id)).collect::<Vec<_>>(),
                });
                challenge = Some(fresh);
                let _ = reply.send(Ok(asks.to_string()));
            }
            Ask::Answer(body) => match challenge.take() {
                Some(challenge) => {
                    let said = serde_json::json!({ "said": "Done here; the command says what came of it." });
                    page::say_last(reply, Ok(said.to_string())).await;
                    return Ok((challenge, body.to_vec()));
                }
                None => {
                    let _ = reply.send(Err("ask for a challenge first".to_owned()));
                }
            },
        }
    }
    bail!("the page has ended")
}

async fn request_challenge(
    node: &Node,
    origin: &str,
    credential: Option<CredentialId>,
) -> Result<pb::Challenge> {
    let credential = credential.map(|id| id.0.to_vec()).unwrap_or_default();
    let request = pb::RequestChallengeRequest { credential, origin: origin.to_owned() };
    let mut identities = node.identities("system.identity.request_challenge").await?;
    Ok(identities.request_challenge(request).await.map_err(failed)?.into_inner())
}
