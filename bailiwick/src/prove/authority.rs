//! Section `authority`: what policy, signatures, tokens and hashes must refuse, tried from outside.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use axiom::core::{Draft, Limits, Reading, Sequencer, Source, Unit, UnitReply, genesis_entry};
use base::{AxiomTime, Hash, Nonce, RuleId, TokenId, cbor};
use chain::{
    EntryType, merkle,
    payload::{
        Envelope,
        policy::{
            DecisionBody, DecisionSignature, PolicyAction, PolicyContext, PolicyEffect, PolicyRequest,
            ResourceRef, ResourceType, SignedDecision,
        },
    },
};
use contracts::{
    identity::v1::WhoAmIRequest,
    keys::v1::{SignRequest, keys_client::KeysClient},
    policy::v1 as pb,
    process_manager::v1::{ImageChunk, SpawnRequest},
};
use durable::RealDisk;
use ed25519_dalek::SigningKey;
use kit::{
    Peer,
    token::{self, Claims, TokenScope},
};
use seal::Signer;
use serde_json::Value;
use supervisor::{sealing::Secrets, signing};

use super::{Context, Section, Site, attack};
use crate::node::{Node, runtime};

/// A key that no default rule gives the operator.
pub(super) const OTHERS_KEY: &str = "/orbital/services/policy";
const OWN_KEY: &str = "/orbital/users/admin";

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("authority");
    let trusting = context.is_broken("decision-signature");
    let site = context.site()?;
    let node = site.node()?;
    let folder = site.folder("authority")?;
    policy_refuses(&mut section, site, &folder)?;
    forged_decision(&mut section, site, trusting)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        decisions_are_bound(&mut section, &node).await?;
        tokens_are_bound(&mut section, site, &node).await?;
        images_are_pinned(&mut section, site, &node).await
    })?;
    Ok(section)
}

/// No rule lets the operator sign with another's key: refused with an id alone, on record, and explained to the operator.
fn policy_refuses(section: &mut Section, site: &Site, folder: &Path) -> Result<()> {
    let message = folder.join("message");
    fs::write(&message, "not yours")?;
    let refused = site.tell(&["key", "sign", OTHERS_KEY, &message.to_string_lossy()])?;
    attack(
        section,
        refused.status.success(),
        "the operator signed with the key of policy, which no rule allows",
    );
    if refused.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&refused.stderr);
    section.check(
        refused.status.code() == Some(3),
        format!("a refusal ends with 3, not {}: {said}", refused.status),
    );
    section.check(!said.contains("rule"), "the caller was told a rule");
    let why = site.json(&["why", "last"])?;
    let text = |key: &str| why.get(key).and_then(Value::as_str).unwrap_or_default();
    section
        .check(!text("layer").is_empty() && !text("rule").is_empty(), "`why` names neither layer nor rule");
    section.check(text("smallest_change").contains("[[rule]]"), "`why` names no change that would allow it");
    let id = why.get("id").and_then(Value::as_u64).unwrap_or(0);
    let shown = site.json(&["log", "show", &id.to_string()])?;
    let kind = shown.pointer("/0/type").and_then(Value::as_str);
    section.check(kind == Some("PolicyDecision"), "the refusal is not in the log");
    section.check(shown.pointer("/0/body/effect").and_then(Value::as_str) == Some("Deny"), "it is no denial");
    Ok(())
}

/// The node's own sequencer core, fed with the node's genesis, is shown a decision that somebody else signed.
fn forged_decision(section: &mut Section, site: &Site, trusting: bool) -> Result<()> {
    let genesis = fs::read(site.layout()?.genesis())?;
    let (entry, hash) = genesis_entry(&genesis)?;
    let mut sequencer = Sequencer::new();
    sequencer.replay(&entry.header, &entry.payload, hash);
    let reading = Reading { wall_ns: entry.header.timestamp.0, boot_ns: 1 };
    sequencer.start(reading);
    if trusting {
        sequencer.trust_signatures();
    }
    let node = site.node()?;
    let payload = forged(&node, entry.header.timestamp)?;
    let unit = Unit { entries: vec![Draft { entry_type: EntryType::PolicyDecision, payload }] };
    let limits = Limits { body_bytes_max: 1 << 20, reserve_only: false, full: false };
    let batch = sequencer.batch(reading, limits, Source::Policy, vec![unit]);
    let accepted = matches!(batch.replies.first(), Some(UnitReply::Accepted(_)));
    attack(section, accepted, "the log took a decision that another key signed");
    Ok(())
}

/// A decision for the operator, signed by a key that nobody pinned.
fn forged(node: &Node, now: AxiomTime) -> Result<Vec<u8>> {
    let request = PolicyRequest {
        requestor: node.admin(),
        action: PolicyAction::Sign { key_path: OTHERS_KEY.parse()?, message_hash: Hash::of(b"forged") },
        resource: ResourceRef { resource_type: ResourceType::Key, id: OTHERS_KEY.to_owned() },
        context: PolicyContext { service: "keys".to_owned(), ..PolicyContext::default() },
        nonce: Nonce([7; 16]),
        signature: None,
    };
    let body = cbor::encode(&DecisionBody {
        request_hash: request.hash(),
        requestor: request.requestor,
        action: request.action,
        resource: request.resource,
        context: request.context,
        nonce: request.nonce,
        policy_state_hash: Hash::ZERO,
        matched_rules: vec![],
        effect: PolicyEffect::Allow,
        deciding_rule: RuleId::default_deny(),
        conditions: vec![],
        timestamp: now,
        reason: None,
    });
    let root = merkle::sign_root(&SigningKey::from_bytes(&[9; 32]), &merkle::leaf(&body));
    let signature = DecisionSignature { root, index: 0, count: 1, path: vec![] };
    let policy = node.genesis_name("orbital.services.policy").context("genesis names no policy")?;
    let body = SignedDecision { body, signature };
    Ok(Envelope { submitter: policy, key: base::EntryKey([8; 16]), authorization: None, body }.to_bytes()?)
}

fn sign_request(node: &Node, message: Hash) -> pb::PolicyRequest {
    pb::PolicyRequest {
        requestor: node.admin().0.to_vec(),
        action: Some(pb::Action {
            kind: "sign".to_owned(),
            key_path: OWN_KEY.to_owned(),
            message_hash: message.0.to_vec(),
            ..pb::Action::default()
        }),
        resource: Some(pb::ResourceRef { r#type: "key".to_owned(), id: OWN_KEY.to_owned() }),
        ..pb::PolicyRequest::default()
    }
}

/// A decision holds for its own message, once, and as it was signed.
async fn decisions_are_bound(section: &mut Section, node: &Node) -> Result<()> {
    let (message, other) = (Hash::of(b"this"), Hash::of(b"that"));
    let mut policy = node.policy("system.policy.evaluate").await?;
    let decision =
        policy.evaluate(sign_request(node, message)).await.map_err(crate::node::failed)?.into_inner();
    let request = |message: Hash, authorization: pb::PolicyDecision| SignRequest {
        key_path: OWN_KEY.to_owned(),
        message: message.0.to_vec(),
        requestor: node.admin().0.to_vec(),
        authorization: Some(authorization),
    };
    let mut keys: KeysClient<_> = node.keys("system.keys.sign").await?;
    let swapped = keys.sign(request(other, decision.clone())).await;
    attack(section, swapped.is_ok(), "a decision for one message signed another");
    let mut altered = decision.clone();
    if let Some(byte) = altered.signed.last_mut() {
        *byte ^= 1;
    }
    attack(section, keys.sign(request(message, altered)).await.is_ok(), "an altered decision was used");
    let first = keys.sign(request(message, decision.clone())).await;
    section.check(first.is_ok(), format!("the decision's own use failed: {first:?}"));
    attack(section, keys.sign(request(message, decision)).await.is_ok(), "a decision was used twice");
    Ok(())
}

/// The operator can open the seal of the token key, so the right signature is no obstacle: only the channel is wrong.
async fn tokens_are_bound(section: &mut Section, site: &Site, node: &Node) -> Result<()> {
    let layout = site.layout()?;
    let secret = signing::open(
        &RealDisk::open(&layout.state)?,
        Signer::Identity,
        &Secrets::of(&layout),
        &node.genesis.identity_key,
    )?;
    let mut axiom = node.axiom("system.axiom.get_head")?;
    let head = contracts::axiom::v1::GetHeadRequest {};
    let now = AxiomTime(axiom.get_head(head).await.map_err(crate::node::failed)?.into_inner().axiom_time_ns);
    let claims = |channel: &str, issued_at: AxiomTime| Claims {
        id: TokenId([5; 16]),
        identity: node.admin(),
        issued_at,
        expires_at: issued_at.saturating_add(60_000_000_000),
        scope: TokenScope::default(),
        channel: channel.to_owned(),
        authentication: None,
    };
    let issue = |claims| token::issue(&SigningKey::from_bytes(&secret), claims).map(|token| token.text);
    let right = issue(claims("admin", now))?;
    section.check(who_am_i(node, &right).await, "a token for this channel was refused");
    let elsewhere = issue(claims("process_manager", now))?;
    attack(section, who_am_i(node, &elsewhere).await, "a token of another channel was accepted");
    let old = issue(claims("admin", AxiomTime(now.0.saturating_sub(120_000_000_000))))?;
    attack(section, who_am_i(node, &old).await, "an expired token was accepted");
    let forged = token::issue(&SigningKey::from_bytes(&[3; 32]), claims("admin", now))?.text;
    attack(section, who_am_i(node, &forged).await, "a token of another issuer was accepted");
    Ok(())
}

async fn who_am_i(node: &Node, token: &str) -> bool {
    let Ok(context) = node.context("system.identity.who_am_i") else { return false };
    let peer = Peer::at(node.admin_socket("identity"));
    let Ok(calls) = peer.with(&context, Some(token)) else { return false };
    let mut client = contracts::identity::v1::identities_client::IdentitiesClient::new(calls);
    client.who_am_i(WhoAmIRequest {}).await.is_ok()
}

/// What is executed is what was named: content that changed under its name does not run.
async fn images_are_pinned(section: &mut Section, site: &Site, node: &Node) -> Result<()> {
    let program = fs::read("/bin/true").context("reading /bin/true")?;
    let chunks: Vec<ImageChunk> =
        program.chunks(64 * 1024).map(|data| ImageChunk { data: data.to_vec() }).collect();
    let mut processes = node.processes("system.process_manager.put_image").await?;
    let image =
        processes.put_image(tokio_stream::iter(chunks)).await.map_err(crate::node::failed)?.into_inner();
    let hash = Hash::from_slice(&image.hash).context("an image hash has 32 bytes")?;
    let file = site.layout()?.images().join(format!("blake3-{}", hash.to_hex()));
    let mut processes = node.processes("system.process_manager.spawn").await?;
    let request = |key: u8| SpawnRequest {
        image: image.hash.clone(),
        identity: node.admin().0.to_vec(),
        name: "true".to_owned(),
        idempotency_key: vec![key; 16],
        ..SpawnRequest::default()
    };
    flip_last_byte(&file)?;
    let spawned = processes.spawn(request(1)).await;
    attack(section, spawned.is_ok(), "an image ran whose content is not the one that was named");
    if spawned.is_err() {
        flip_last_byte(&file)?;
        let whole = processes.spawn(request(2)).await;
        section.check(whole.is_ok(), format!("an unchanged image did not run: {:?}", whole.err()));
    }
    Ok(())
}

fn flip_last_byte(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(file).with_context(|| format!("looking at {}", file.display()))?.permissions();
    fs::set_permissions(file, fs::Permissions::from_mode(0o700))?;
    let mut opened = fs::File::options().read(true).write(true).open(file)?;
    let mut byte = [0];
    opened.seek(SeekFrom::End(-1))?;
    opened.read_exact(&mut byte)?;
    opened.seek(SeekFrom::End(-1))?;
    opened.write_all(&[byte.first().copied().unwrap_or(0) ^ 1])?;
    fs::set_permissions(file, mode)?;
    Ok(())
}
