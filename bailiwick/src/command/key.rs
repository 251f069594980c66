//! `bailiwick key`.

use std::{
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result, bail};
use base::{Hash, KeyPath, Nonce, PublicKey, Signature};
use contracts::{
    convert::bytes,
    keys::v1 as pb,
    policy::v1::{Action, Effect, PolicyContext, PolicyDecision, PolicyRequest, ResourceRef},
};
use keys::core::{
    CIPHERTEXT_BYTES_MAX, EPOCH_HEADER_BYTES, PLAINTEXT_BYTES_MAX, Purpose, SIGNED_BYTES_MAX, VerifyingKey,
};
use serde::Serialize;

use super::lock;
use crate::{
    args::{Key, Output},
    exit::{Failure, REFUSED, USAGE},
    node::{Node, failed},
    output,
};

pub async fn run(node: &Node, output: Output, command: Key) -> Result<()> {
    match command {
        Key::Public { path, ssh, epoch } => public(node, output, path, ssh, epoch).await,
        Key::Rotate { path, reason } => rotate(node, output, path, reason).await,
        Key::Info { path } => info(node, output, path).await,
        Key::Sign { path, file } => sign(node, output, path, &file).await,
        Key::Encrypt { path, file, to } => encrypt(node, path, &file, to.as_deref()).await,
        Key::Decrypt { path, file, to } => decrypt(node, path, &file, to.as_deref()).await,
        Key::Verify { public_key, signature, file } => {
            verify(node, output, &public_key, &signature, &file).await
        }
        Key::Lock { reason } => lock::lock(node, output, reason).await,
        Key::Unlock { now, reason } => lock::unlock(node, output, &now, reason).await,
        // Of a node that is stopped.
        Key::Reseal { .. } => Ok(()),
    }
}

#[derive(Serialize)]
struct Public {
    path: String,
    epoch: u32,
    /// Hexadecimal: 32 bytes of Ed25519, or the 65 of a point on P-256.
    public_key: String,
    /// The line of `authorized_keys`, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh: Option<String>,
    /// Of `@x509`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pem: Option<String>,
    /// Of `@jwt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    jwk: Option<String>,
}

async fn public(node: &Node, output: Output, path: String, ssh: bool, epoch: Option<u32>) -> Result<()> {
    if ssh {
        ssh_path(&path).map_err(|error| Failure::new(USAGE, format!("{error:#}")))?;
    }
    let (mut line, mut pem, mut jwk) = (None, None, None);
    let (key, epoch) = verifying_key(node, &path, epoch).await?;
    let public_key = match key {
        VerifyingKey::Ed25519(key) => {
            line = ssh.then(|| ssh::public_line(&key, &path));
            key.to_string()
        }
        VerifyingKey::P256(key) => {
            match Purpose::of(&path.parse()?)? {
                Some(Purpose::Jwt) => jwk = Some(key.to_jwk()),
                _ => pem = Some(key.to_pem()),
            }
            key.to_string()
        }
    };
    let public = Public { path, epoch, public_key, ssh: line, pem, jwk };
    output::show(output, &public, || {
        let text = public.ssh.as_ref().or(public.pem.as_ref()).or(public.jwk.as_ref());
        format!("{}\n", text.unwrap_or(&public.public_key).trim_end())
    })
}

/// Of an epoch, or of the one that signs now; with its number.
async fn verifying_key(node: &Node, path: &str, epoch: Option<u32>) -> Result<(VerifyingKey, u32)> {
    let mut keys = node.keys("system.keys.derive_public_key").await?;
    let request = pb::DerivePublicKeyRequest { path: path.to_owned(), epoch };
    let key = keys.derive_public_key(request).await.map_err(failed)?.into_inner();
    let verifying =
        VerifyingKey::from_bytes(&key.key).context("`keys` answered with what is no public key")?;
    Ok((verifying, key.epoch))
}

/// The one that signs now, of a path whose key is Ed25519.
pub(super) async fn public_key(node: &Node, path: &str) -> Result<PublicKey> {
    match verifying_key(node, path, None).await?.0 {
        VerifyingKey::Ed25519(key) => Ok(key),
        VerifyingKey::P256(_) => bail!("the key of {path} is not Ed25519"),
    }
}

#[derive(Serialize)]
struct Rotated {
    path: String,
    epoch: u32,
    /// Hexadecimal, as `key public` has it.
    public_key: String,
    receipt: u64,
}

async fn rotate(node: &Node, output: Output, path: String, reason: String) -> Result<()> {
    let mut keys = node.keys("system.keys.rotate").await?;
    let request = pb::RotateRequest { key_path: path.clone(), reason };
    let rotated = keys.rotate(request).await.map_err(failed)?.into_inner();
    let key = VerifyingKey::from_bytes(&rotated.public_key)
        .context("`keys` answered with what is no public key")?;
    let rotated = Rotated {
        path,
        epoch: rotated.epoch,
        public_key: hexadecimal(key),
        receipt: rotated.receipt.map_or(0, |receipt| receipt.sequence),
    };
    output::show(output, &rotated, || {
        format!("{} is in epoch {}, its public key is {}\n", rotated.path, rotated.epoch, rotated.public_key)
    })
}

fn hexadecimal(key: VerifyingKey) -> String {
    match key {
        VerifyingKey::Ed25519(key) => key.to_string(),
        VerifyingKey::P256(key) => key.to_string(),
    }
}

/// A path whose key ssh can use: any other could be shown, and would sign nothing for it.
pub(super) fn ssh_path(text: &str) -> Result<KeyPath> {
    let path: KeyPath = text.parse()?;
    match Purpose::of(&path)? {
        Some(Purpose::Ssh) => Ok(path),
        _ => bail!("a key for ssh has a path that ends in `/@ssh`, and {path} does not"),
    }
}

#[derive(Serialize)]
struct Info {
    path: String,
    epoch: u32,
    /// Hexadecimal, as `key public` has it; none while the seed is locked, as the next one.
    public_key: Option<String>,
    /// X25519: what is encrypted to it, `key decrypt` opens.
    encryption_key: Option<PublicKey>,
    algorithms: Vec<String>,
    state: String,
}

async fn info(node: &Node, output: Output, path: String) -> Result<()> {
    let mut keys = node.keys("system.keys.get_key_info").await?;
    let info =
        keys.get_key_info(pb::GetKeyInfoRequest { path, epoch: None }).await.map_err(failed)?.into_inner();
    let key = |name, key: &[u8]| -> Result<Option<PublicKey>> {
        Ok(if key.is_empty() { None } else { Some(PublicKey(bytes(name, key)?)) })
    };
    let info = Info {
        path: info.path,
        epoch: info.epoch,
        public_key: VerifyingKey::from_bytes(&info.signing_key).map(hexadecimal),
        encryption_key: key("encryption_key", &info.encryption_key)?,
        algorithms: info.algorithms,
        state: info.state,
    };
    let text = |key: Option<String>| key.unwrap_or_else(|| "-".to_owned());
    output::show(output, &info, || {
        format!(
            "{}\n  epoch           {}\n  public key      {}\n  encryption key  {}\n  algorithms      {}\n  state           {}\n",
            info.path,
            info.epoch,
            text(info.public_key.clone()),
            text(info.encryption_key.map(|key| key.to_string())),
            info.algorithms.join(", "),
            info.state
        )
    })
}

#[derive(Serialize)]
pub(super) struct Signed {
    path: String,
    message_hash: Hash,
    pub(super) signature: Signature,
    public_key: PublicKey,
    decision: u64,
    receipt: u64,
}

/// Hashes the file, asks for a decision, has the hash signed under it.
async fn sign(node: &Node, output: Output, path: String, file: &Path) -> Result<()> {
    let signed = sign_hash(node, path, hash_of(file)?).await?;
    output::show(output, &signed, || format!("{}\n", signed.signature))
}

pub(super) async fn sign_hash(node: &Node, path: String, message: Hash) -> Result<Signed> {
    let (decision, id) = decide(node, &path, sign_action(message), "signing").await?;
    let mut keys = node.keys("system.keys.sign").await?;
    let request = pb::SignRequest {
        key_path: path.clone(),
        message: message.0.to_vec(),
        requestor: node.admin().0.to_vec(),
        authorization: Some(decision),
    };
    let signed = keys.sign(request).await.map_err(failed)?.into_inner();
    Ok(Signed {
        path,
        message_hash: message,
        signature: Signature(bytes("signature", &signed.signature)?),
        public_key: PublicKey(bytes("public_key", &signed.public_key)?),
        decision: id,
        receipt: signed.receipt.map_or(0, |receipt| receipt.sequence),
    })
}

fn sign_action(message: Hash) -> Action {
    Action { kind: "sign".to_owned(), message_hash: message.0.to_vec(), ..Action::default() }
}

/// With the key of a purpose, whose format these bytes must have.
pub(super) async fn sign_bytes(node: &Node, path: &str, message: &[u8]) -> Result<Signature> {
    if message.len() > SIGNED_BYTES_MAX {
        bail!("at most {SIGNED_BYTES_MAX} bytes are signed as they are, not {}", message.len());
    }
    let (decision, _) = decide(node, path, sign_action(Hash::of(message)), "signing").await?;
    let mut keys = node.keys("system.keys.sign_bytes").await?;
    let request = pb::SignBytesRequest {
        key_path: path.to_owned(),
        message: message.to_vec(),
        requestor: node.admin().0.to_vec(),
        authorization: Some(decision),
    };
    let signed = keys.sign_bytes(request).await.map_err(failed)?.into_inner();
    Ok(Signature(bytes("signature", &signed.signature)?))
}

/// Asks whether the operator may do this with the key; a decision serves one use.
async fn decide(node: &Node, path: &str, action: Action, what: &str) -> Result<(PolicyDecision, u64)> {
    let mut nonce = [0; Nonce::BYTES];
    getrandom::fill(&mut nonce).context("the kernel's random source")?;
    let request = PolicyRequest {
        requestor: node.admin().0.to_vec(),
        action: Some(Action { key_path: path.to_owned(), ..action }),
        resource: Some(ResourceRef { r#type: "key".to_owned(), id: path.to_owned() }),
        context: Some(PolicyContext::default()),
        nonce: nonce.to_vec(),
        signature: Vec::new(),
    };
    let mut policy = node.policy("system.policy.evaluate").await?;
    let decision = policy.evaluate(request).await.map_err(failed)?.into_inner();
    let id = decision.axiom_ref.as_ref().map_or(0, |reference| reference.sequence);
    if decision.effect() == Effect::Deny {
        // The caller gets an id; the operator asks why.
        let text = format!("{what} was refused; `bailiwick why {id}` explains");
        return Err(Failure::new(REFUSED, text).into());
    }
    Ok((decision, id))
}

async fn encrypt(node: &Node, path: String, file: &Path, to: Option<&Path>) -> Result<()> {
    let plaintext = read_up_to(file, PLAINTEXT_BYTES_MAX)?;
    let action = Action { kind: "encrypt".to_owned(), ..Action::default() };
    let (decision, _) = decide(node, &path, action, "encryption").await?;
    let request = pb::EncryptRequest {
        key_path: path,
        plaintext,
        requestor: node.admin().0.to_vec(),
        authorization: Some(decision),
    };
    let mut keys = node.keys("system.keys.encrypt").await?;
    write_out(to, &keys.encrypt(request).await.map_err(failed)?.into_inner().ciphertext)
}

async fn decrypt(node: &Node, path: String, file: &Path, to: Option<&Path>) -> Result<()> {
    let ciphertext = read_up_to(file, CIPHERTEXT_BYTES_MAX + EPOCH_HEADER_BYTES)?;
    let action = Action { kind: "decrypt".to_owned(), ..Action::default() };
    let (decision, _) = decide(node, &path, action, "decryption").await?;
    let request = pb::DecryptRequest {
        key_path: path,
        ciphertext,
        requestor: node.admin().0.to_vec(),
        authorization: Some(decision),
    };
    let mut keys = node.keys("system.keys.decrypt").await?;
    write_out(to, &keys.decrypt(request).await.map_err(failed)?.into_inner().plaintext)
}

/// Reads before anybody is asked: a decision that cannot be used is not made.
pub(super) fn read_up_to(file: &Path, bytes_max: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more, so that a longer file is noticed.
    let limit = bytes_max as u64 + 1;
    let read = match file == Path::new("-") {
        true => std::io::stdin().take(limit).read_to_end(&mut bytes),
        false => std::fs::File::open(file)
            .with_context(|| format!("opening {}", file.display()))?
            .take(limit)
            .read_to_end(&mut bytes),
    };
    read.with_context(|| format!("reading {}", file.display()))?;
    if bytes.len() > bytes_max {
        bail!("{} has more than {bytes_max} bytes, which is what one piece can have", file.display());
    }
    Ok(bytes)
}

/// What was decrypted is for the owner of the file alone.
fn write_out(to: Option<&Path>, bytes: &[u8]) -> Result<()> {
    let Some(to) = to else {
        return std::io::stdout().write_all(bytes).context("writing to standard output");
    };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(to).and_then(|mut file| file.write_all(bytes));
    written.with_context(|| format!("writing {}", to.display()))
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
