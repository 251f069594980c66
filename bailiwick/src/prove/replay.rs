//! Section `replay`: the log alone gives the state that the node has, and every decision again; one that was made otherwise
//! is found, even if the key of the Policy Engine itself signed it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use base::{AxiomRef, Hash, RuleId, cbor};
use chain::{
    LogFolder, Placed, VerifyOptions, merkle,
    payload::{
        Payload,
        policy::{DecisionBody, DecisionSignature, PolicyEffect, SignedDecision},
    },
    verify_log,
};
use contracts::policy::v1::GetPolicyStateRequest;
use durable::RealDisk;
use ed25519_dalek::SigningKey;
use policy::core::{
    PolicyState,
    verify::{Replay, Verification, verify},
};
use seal::Signer;
use serde_json::Value;
use supervisor::{sealing::Secrets, signing};

use super::{Context, Section, Site, attack, authority::OTHERS_KEY};
use crate::{
    exit::DAMAGED,
    node::{Node, runtime},
};

/// Decisions that are forged in every way; more of them would only repeat what is known by then.
const FORGED_MAX: usize = 200;
/// A node at work may write between two looks.
const LOOKS_MAX: usize = 20;

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("replay");
    let trusting = context.is_broken("replay");
    let site = context.site()?;
    let node = site.node()?;
    work(site)?;
    twice(&mut section, site)?;
    as_it_runs(&mut section, site, &node)?;
    forged(&mut section, site, &node, trusting)?;
    flipped(&mut section, site)?;
    Ok(section)
}

/// Something allowed and something refused, so that there is something to decide again.
fn work(site: &Site) -> Result<()> {
    site.done(&["run", "--", "/bin/true"])?;
    let message = site.folder("replay")?.join("message");
    fs::write(&message, "not yours")?;
    site.tell(&["key", "sign", OTHERS_KEY, &message.to_string_lossy()]).map(drop)
}

/// A copy of the log, so that both replays see the same entries.
fn copied(site: &Site, name: &str) -> Result<std::path::PathBuf> {
    let (from, to) = (site.layout()?.log(), site.folder("replay")?.join(name));
    fs::create_dir_all(&to)?;
    for file in fs::read_dir(&from).with_context(|| format!("reading {}", from.display()))? {
        let file = file?;
        if file.file_type()?.is_file() {
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(to)
}

fn twice(section: &mut Section, site: &Site) -> Result<()> {
    let log = copied(site, "log")?;
    let replay = || site.json(&["log", "replay", &log.to_string_lossy()]);
    let (first, second) = (replay()?, replay()?);
    let number = |key: &str| first.get(key).and_then(Value::as_u64).unwrap_or(0);
    section.count("entries folded", number("entries"));
    section.count("decisions made again", number("decisions"));
    section.check(number("decisions") > 0, "no decision was made again");
    section.check(first.get("state_hash").is_some_and(Value::is_string), "a replay has no state hash");
    section.check(first == second, format!("two replays differ: {first} and {second}"));
    let none = first.get("mismatches").and_then(Value::as_array).is_some_and(Vec::is_empty);
    section.check(none, format!("decisions come out otherwise: {first}"));
    Ok(())
}

/// The running engine's state is the one that a stranger folds from its log.
fn as_it_runs(section: &mut Section, site: &Site, node: &Node) -> Result<()> {
    let runtime = runtime()?;
    let log = site.layout()?.log();
    let mut differs = String::new();
    for _ in 0..LOOKS_MAX {
        let told = runtime.block_on(async {
            let mut policy = node.policy("system.policy.get_policy_state").await?;
            let state = policy.get_policy_state(GetPolicyStateRequest {}).await;
            anyhow::Ok(state.map_err(crate::node::failed)?.into_inner())
        })?;
        let mut replay = Replay::default();
        each(&log, |at, placed| {
            replay.step(at, placed.record.header.entry_type.code(), placed.record.payload)?;
            Ok(())
        })?;
        let (running, folded) = (Hash::from_slice(&told.state_hash), replay.state_hash());
        if running == Some(folded) {
            section.check(true, "");
            return Ok(());
        }
        differs = format!("the engine's state is {running:?}, its log gives {folded:?}");
    }
    section.check(false, differs);
    Ok(())
}

fn each(log: &Path, mut visit: impl FnMut(AxiomRef, &Placed<'_>) -> Result<()>) -> Result<()> {
    let mut outcome = Ok(());
    let read = verify_log(&LogFolder::new(log), &VerifyOptions::default(), |placed| {
        let at = AxiomRef { sequence: placed.record.header.sequence, hash: placed.hash };
        if outcome.is_ok() {
            outcome = visit(at, placed);
        }
    });
    outcome?;
    match read {
        Err(fault) if !fault.may_be_torn_tail => Err(crate::exit::Failure::damaged(&fault).into()),
        _ => Ok(()),
    }
}

/// The operator can open the seal of the engine's key, so the signature is right: only the decision is not the one that
/// rules, request and time give.
fn forged(section: &mut Section, site: &Site, node: &Node, trusting: bool) -> Result<()> {
    let layout = site.layout()?;
    let key = signing::open(
        &RealDisk::open(&layout.state)?,
        Signer::Policy,
        &Secrets::of(&layout),
        &node.genesis.policy_key,
    )?;
    let key = SigningKey::from_bytes(&key);
    let mut replay = Replay::default();
    let mut decisions = 0;
    let log = copied(site, "forged")?;
    each(&log, |at, placed| {
        let (code, bytes) = (placed.record.header.entry_type.code(), placed.record.payload);
        if let Ok(Payload::PolicyDecision(envelope)) = Payload::decode(code, bytes)
            && decisions < FORGED_MAX
        {
            decisions += 1;
            let body: DecisionBody = cbor::decode(&envelope.body.body)?;
            for (what, other) in otherwise(&body) {
                judge(section, replay.state(), &key, &other, trusting, what);
            }
        }
        replay.step(at, code, bytes)?;
        Ok(())
    })?;
    section.count("decisions forged", decisions as u64);
    if decisions == 0 {
        bail!("the log holds no decision");
    }
    Ok(())
}

/// The same decision, changed in one place.
fn otherwise(body: &DecisionBody) -> Vec<(&'static str, DecisionBody)> {
    let mut all = Vec::new();
    let mut add = |what, change: &dyn Fn(&mut DecisionBody)| {
        let mut other = body.clone();
        change(&mut other);
        if other != *body {
            all.push((what, other));
        }
    };
    add("allowed what the rules deny, or the reverse", &|other| {
        other.effect = if body.allows() { PolicyEffect::Deny } else { PolicyEffect::Allow };
    });
    add("another rule is said to have decided", &|other| other.deciding_rule = RuleId::default_deny());
    add("a rule that matched is left out", &|other| {
        other.matched_rules.pop();
    });
    add("a rule that did not match is named", &|other| other.matched_rules.push(RuleId::default_deny()));
    add("a restriction is dropped", &|other| other.conditions.clear());
    add("it was asked on another resource", &|other| other.resource.id.push('x'));
    add("another service is said to have asked", &|other| other.context.service.push('x'));
    add("another request is named", &|other| other.request_hash = Hash::ZERO);
    add("it was another asking", &|other| other.nonce.0[0] ^= 1);
    add("it was decided on other rules", &|other| other.policy_state_hash = Hash::of(b"other rules"));
    add("another reason is given", &|other| other.reason = Some("because".to_owned()));
    all
}

fn judge(
    section: &mut Section,
    state: &PolicyState,
    key: &SigningKey,
    body: &DecisionBody,
    trusting: bool,
    what: &str,
) {
    let bytes = cbor::encode(body);
    let root = merkle::sign_root(key, &merkle::leaf(&bytes));
    let signature = DecisionSignature { root, index: 0, count: 1, path: vec![] };
    let accepted = match verify(state, &SignedDecision { body: bytes, signature }) {
        Verification::Verified => true,
        // Whoever believes what is signed does not make it again.
        Verification::Mismatch { .. } => trusting,
        Verification::InvalidSignature => {
            return section.check(false, format!("a forgery was not signed as it should be: {what}"));
        }
    };
    attack(section, accepted, what);
}

fn flipped(section: &mut Section, site: &Site) -> Result<()> {
    let log = copied(site, "flipped")?;
    let whole = site.tell(&["log", "replay", &log.to_string_lossy()])?;
    section.check(whole.status.success(), "a copy of the log does not replay");
    let mut files: Vec<_> = fs::read_dir(&log)?.collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.metadata().is_ok_and(|about| about.len() > 0));
    files.sort_unstable_by_key(fs::DirEntry::file_name);
    let first = files.first().context("the log has no file")?.path();
    let mut bytes = fs::read(&first)?;
    // Within the first group: the segment's header is shorter than a page, and genesis longer.
    let byte = bytes.get_mut(4096 + 512).context("the log is too short to be one")?;
    *byte ^= 1;
    fs::write(&first, bytes)?;
    let replayed = site.tell(&["log", "replay", &log.to_string_lossy()])?;
    attack(section, replayed.status.code() != Some(i32::from(DAMAGED)), "a log with a flipped bit replayed");
    Ok(())
}
