//! `bailiwick key lock` and `key unlock`.
//!
//! Whether it may be unlocked is decided and recorded by way of the service; what opens the seed goes to the boundary
//! itself, on a socket that the operator alone can reach and the boundary alone reads.

use std::path::Path;

use anyhow::{Context, Result, bail};
use contracts::keys::v1 as pb;
use keys::boundary::protocol::{Refusal, Response};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};
use seal::{SEALED_BYTES, SecretKind};
use serde::Serialize;
use supervisor::sealing::{self, SEALED_SEED_FILE, Secret, Secrets, UNLOCK_SOCKET};
use zeroize::Zeroizing;

use crate::{
    args::{Opens, Output},
    exit::Failure,
    node::{Node, failed},
    output, passphrase,
};

#[derive(Serialize)]
struct Changed {
    state: &'static str,
    /// The entry in the log.
    receipt: u64,
}

pub(super) async fn lock(node: &Node, output: Output, reason: String) -> Result<()> {
    let mut keys = node.keys("system.keys.lock").await?;
    let locked = keys.lock(pb::LockRequest { reason }).await.map_err(failed)?.into_inner();
    let changed = Changed { state: "locked", receipt: locked.receipt.map_or(0, |entry| entry.sequence) };
    output::show(output, &changed, || "locked: no key can be used until `bailiwick key unlock`\n".to_owned())
}

pub(super) async fn unlock(node: &Node, output: Output, now: &Opens, reason: String) -> Result<()> {
    let seed = node.layout.service_state(sealing::FOLDER).join(SEALED_SEED_FILE);
    let sealed = std::fs::read(&seed).with_context(|| format!("reading {}", seed.display()))?;
    if sealed.len() > SEALED_BYTES {
        bail!("{} has {} bytes, a sealed seed has {SEALED_BYTES}", seed.display(), sealed.len());
    }
    let kind = seal::sealed_by(&sealed).with_context(|| format!("{} cannot be read", seed.display()))?;
    // Before anybody is asked for leave: what is not there opens nothing.
    let secret = opener(kind, &Secrets::of(&node.layout), now)?;
    let mut keys = node.keys("system.keys.unlock").await?;
    let armed = keys.unlock(pb::UnlockRequest { reason }).await.map_err(failed)?.into_inner();
    match send_secret(&node.layout.socket("admin", UNLOCK_SOCKET), &secret)? {
        Response::Unsealed => {}
        Response::Refused(refusal @ Refusal::Seal(_)) => {
            let text = format!(
                "the seed stays locked: {refusal}; at most {} tries are taken for each `unlock`",
                armed.tries
            );
            return Err(Failure::new(1, text).into());
        }
        Response::Refused(refusal) => bail!("the seed stays locked: {refusal}"),
        _ => bail!("the key boundary answered with something else than was asked"),
    }
    let changed = Changed { state: "unsealed", receipt: armed.receipt.map_or(0, |entry| entry.sequence) };
    output::show(output, &changed, || "unlocked: keys can be used\n".to_owned())
}

/// What opens the seed as it is sealed now.
pub(super) fn opener(kind: SecretKind, secrets: &Secrets, now: &Opens) -> Result<Secret> {
    if kind == SecretKind::Passphrase {
        return passphrase::read(now.passphrase_file.as_deref(), "passphrase of the seed: ");
    }
    let secrets = match &now.credential_from {
        Some(folder) => secrets.clone().with_credential(folder),
        None => secrets.clone(),
    };
    Ok(secrets.read(kind)?)
}

fn send_secret(path: &Path, secret: &Secret) -> Result<Response> {
    let place = SecretKind::ALL.into_iter().position(|kind| kind == secret.kind).unwrap_or(usize::MAX);
    let mut message = Zeroizing::new(Vec::with_capacity(1 + secret.as_slice().len()));
    message.push(u8::try_from(place).unwrap_or(u8::MAX));
    message.extend_from_slice(secret.as_slice());
    let what = || format!("speaking to the key boundary on {}", path.display());
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?).with_context(what)?;
    send(&socket, &message, SendFlags::NOSIGNAL).with_context(what)?;
    let mut answer = [0; 4096];
    let (_, bytes) = recv(&socket, &mut answer[..], RecvFlags::TRUNC).with_context(what)?;
    let answer = answer.get(..bytes).filter(|answer| !answer.is_empty());
    let answer = answer.with_context(|| format!("the key boundary ended while {}", what()))?;
    Response::from_bytes(answer).context("the key boundary's answer")
}
