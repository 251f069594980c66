//! `bailiwick key`.

use std::path::Path;

use anyhow::{Context, Result};
use base::{Hash, Nonce, PublicKey, Signature};
use contracts::{
    convert::bytes,
    keys::v1 as pb,
    policy::v1::{Action, Effect, PolicyContext, PolicyRequest, ResourceRef},
};
use serde::Serialize;

use crate::{
    args::{Key, Output},
    exit::{Failure, REFUSED},
    node::{Node, failed},
    output,
};

pub async fn run(node: &Node, output: Output, command: Key) -> Result<()> {
    match command {
        Key::Public { path } => public(node, output, path).await,
        Key::Info { path } => info(node, output, path).await,
        Key::Sign { path, file } => sign(node, output, path, &file).await,
        Key::Verify { public_key, signature, file } => {
            verify(node, output, &public_key, &signature, &file).await
        }
    }
}

#[derive(Serialize)]
struct Public {
    path: String,
    public_key: PublicKey,
}

async fn public(node: &Node, output: Output, path: String) -> Result<()> {
    let mut keys = node.keys("system.keys.derive_public_key").await?;
    let request = pb::DerivePublicKeyRequest { path: path.clone() };
    let key = keys.derive_public_key(request).await.map_err(failed)?.into_inner();
    let public = Public { path, public_key: PublicKey(bytes("key", &key.key)?) };
    output::show(output, &public, || format!("{}\n", public.public_key))
}

#[derive(Serialize)]
struct Info {
    path: String,
    public_key: PublicKey,
    algorithms: Vec<String>,
    state: String,
}

async fn info(node: &Node, output: Output, path: String) -> Result<()> {
    let mut keys = node.keys("system.keys.get_key_info").await?;
    let info = keys.get_key_info(pb::GetKeyInfoRequest { path }).await.map_err(failed)?.into_inner();
    let info = Info {
        path: info.path,
        public_key: PublicKey(bytes("signing_key", &info.signing_key)?),
        algorithms: info.algorithms,
        state: info.state,
    };
    output::show(output, &info, || {
        format!(
            "{}\n  public key  {}\n  algorithms  {}\n  state       {}\n",
            info.path,
            info.public_key,
            info.algorithms.join(", "),
            info.state
        )
    })
}

#[derive(Serialize)]
struct Signed {
    path: String,
    message_hash: Hash,
    signature: Signature,
    public_key: PublicKey,
    decision: u64,
    receipt: u64,
}

/// Hashes the file, asks for a decision, has the hash signed under it.
async fn sign(node: &Node, output: Output, path: String, file: &Path) -> Result<()> {
    let message = hash_of(file)?;
    let mut nonce = [0; Nonce::BYTES];
    getrandom::fill(&mut nonce).context("the kernel's random source")?;
    let request = PolicyRequest {
        requestor: node.admin().0.to_vec(),
        action: Some(Action {
            kind: "sign".to_owned(),
            key_path: path.clone(),
            message_hash: message.0.to_vec(),
            ..Action::default()
        }),
        resource: Some(ResourceRef { r#type: "key".to_owned(), id: path.clone() }),
        context: Some(PolicyContext::default()),
        nonce: nonce.to_vec(),
        signature: Vec::new(),
    };
    let mut policy = node.policy("system.policy.evaluate").await?;
    let decision = policy.evaluate(request).await.map_err(failed)?.into_inner();
    let id = decision.axiom_ref.as_ref().map_or(0, |reference| reference.sequence);
    if decision.effect() == Effect::Deny {
        // The caller gets an id; the operator asks why.
        return Err(
            Failure::new(REFUSED, format!("signing was refused; `bailiwick why {id}` explains")).into()
        );
    }
    let mut keys = node.keys("system.keys.sign").await?;
    let request = pb::SignRequest {
        key_path: path.clone(),
        message: message.0.to_vec(),
        requestor: node.admin().0.to_vec(),
        authorization: Some(decision),
    };
    let signed = keys.sign(request).await.map_err(failed)?.into_inner();
    let signed = Signed {
        path,
        message_hash: message,
        signature: Signature(bytes("signature", &signed.signature)?),
        public_key: PublicKey(bytes("public_key", &signed.public_key)?),
        decision: id,
        receipt: signed.receipt.map_or(0, |receipt| receipt.sequence),
    };
    output::show(output, &signed, || format!("{}\n", signed.signature))
}

#[derive(Serialize)]
struct Verified {
    valid: bool,
}

async fn verify(node: &Node, output: Output, public_key: &str, signature: &str, file: &Path) -> Result<()> {
    let public_key: PublicKey = public_key.parse()?;
    let signature: Signature = signature.parse()?;
    let mut keys = node.keys("system.keys.verify").await?;
    let request = pb::VerifyRequest {
        public_key: public_key.0.to_vec(),
        message: hash_of(file)?.0.to_vec(),
        signature: signature.0.to_vec(),
    };
    let valid = keys.verify(request).await.map_err(failed)?.into_inner().valid;
    output::show(output, &Verified { valid }, || format!("{}\n", if valid { "valid" } else { "not valid" }))?;
    if valid { Ok(()) } else { Err(Failure::new(1, "the signature does not match").into()) }
}

/// Of a file, or of standard input.
fn hash_of(file: &Path) -> Result<Hash> {
    let hashed = if file == Path::new("-") {
        Hash::of_reader(std::io::stdin())
    } else {
        Hash::of_reader(std::fs::File::open(file).with_context(|| format!("opening {}", file.display()))?)
    };
    hashed.with_context(|| format!("reading {}", file.display()))
}
