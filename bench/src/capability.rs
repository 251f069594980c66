//! Rights: a look-up in a service that holds many, and taking back a tree of them until every service has applied it.

use std::{hint::black_box, path::Path, sync::Arc, time::Instant};

use anyhow::{Context, Result, bail};
use base::{AxiomTime, CapabilityId, EntryKey, IdentityId, KeyPath, PublicKey};
use chain::payload::{
    Envelope, Payload,
    capability::{CapabilityGrant, ObjectType, Permissions, Resource},
    identity::{IdentityCreated, IdentityType},
};
use contracts::capability_service::v1::{self as pb, capabilities_client::CapabilitiesClient};
use kit::{LocalState, client::Calls};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    report::{Part, Row, Subject, Unit},
    site::{Folder, Operator, Site},
};

const HELD: u32 = 100_000;
const HOLDERS: u32 = 1_000;
const GOAL_CHECK_NS: f64 = 100.0;
const CHECK_ROUNDS: usize = 30;
const CHECKS_OF_A_ROUND: u32 = 20_000;
const DESCENDANTS: usize = 10_000;
const GOAL_REVOKE_MS: f64 = 50.0;
const REVOKE_ROUNDS: usize = 5;
const REVOKE_ROUNDS_QUICK: usize = 2;
/// Delegations under way at once while a tree is made.
const IN_FLIGHT: usize = 64;
const READ: Permissions =
    Permissions { read: true, write: false, execute: false, delegate: false, revoke: false };

pub(crate) fn run(parent: &Path, quick: bool) -> Result<Part> {
    let mut part = Part::new("capability");
    let mut check_ns = checks()?;
    let check = vec![Subject::ours("the fold of every service", &mut check_ns)];
    let what = format!("check of a right among {HELD} of {HOLDERS} holders, in process");
    part.rows.push(Row::new(what, Unit::Nanoseconds, check).goal(GOAL_CHECK_NS));
    let folder = Folder::new(parent, "capability")?;
    let mut site = Site::started(folder.path().join("n"))?;
    let operator = Arc::new(site.operator()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    let mut revoke_ms = Vec::new();
    for round in 0..if quick { REVOKE_ROUNDS_QUICK } else { REVOKE_ROUNDS } {
        revoke_ms.push(runtime.block_on(revoke(&operator, round))?);
    }
    site.down()?;
    let revoke = vec![Subject::ours("until every service has applied it", &mut revoke_ms)];
    let what = format!("taking back a right with {DESCENDANTS} descendants");
    part.rows.push(Row::new(what, Unit::Milliseconds, revoke).goal(GOAL_REVOKE_MS));
    Ok(part)
}

fn resource(number: u32) -> Resource {
    Resource { object_type: ObjectType::File, object_id: format!("/srv/files/{number}") }
}

fn holder(number: u32) -> IdentityId {
    let mut id = [7; 32];
    id.iter_mut().zip((number % HOLDERS).to_be_bytes()).for_each(|(to, from)| *to = from);
    IdentityId(id)
}

fn envelope<T>(body: T) -> Box<Envelope<T>> {
    Box::new(Envelope { submitter: IdentityId([1; 32]), key: EntryKey([1; 16]), authorization: None, body })
}

fn checks() -> Result<Vec<f64>> {
    let local = LocalState::new();
    let now = AxiomTime(1_000);
    for number in 0..HOLDERS {
        let created = IdentityCreated {
            identity_id: holder(number),
            name: format!("holder{number}"),
            identity_type: IdentityType::User,
            parent: None,
            public_key: PublicKey(holder(number).0),
            key_path: KeyPath::parse("/orbital/users/holder")?,
        };
        local.apply_payload(now, &Payload::IdentityCreated(envelope(created)));
    }
    for number in 0..HELD {
        let mut id = [0; 16];
        id.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
        let grant = CapabilityGrant {
            capability_id: CapabilityId(id),
            grantor: IdentityId([1; 32]),
            grantee: holder(number),
            resource: resource(number),
            permissions: READ,
            restrictions: None,
            parent: None,
        };
        local.apply_payload(now, &Payload::CapabilityGrant(envelope(grant)));
    }
    // Spread over all of them, so that the fold is not asked for what the cache holds anyway; made before the clock runs.
    let asked: Vec<(IdentityId, Resource)> = (0..CHECKS_OF_A_ROUND)
        .map(|n| n.wrapping_mul(48_271) % HELD)
        .map(|n| (holder(n), resource(n)))
        .collect();
    let mut rounds = Vec::new();
    for _ in 0..CHECK_ROUNDS {
        let began = Instant::now();
        let held =
            asked.iter().filter(|(who, what)| black_box(local.holds(who, what, READ, Some(now)))).count();
        let ns = began.elapsed().as_secs_f64() * 1e9 / f64::from(CHECKS_OF_A_ROUND);
        if held != asked.len() {
            bail!("{held} of {} rights were held", asked.len());
        }
        rounds.push(ns);
    }
    Ok(rounds)
}

fn calls(operator: &Operator, verb: &str, token: &str) -> Result<CapabilitiesClient<Calls>> {
    let capability = format!("system.capability_service.{verb}");
    Ok(CapabilitiesClient::new(operator.calls("capability_service", &capability, Some(token))?))
}

/// Makes a tree of a root and `DESCENDANTS` below it, half of them two levels deep, and takes it back.
async fn revoke(operator: &Arc<Operator>, round: usize) -> Result<f64> {
    let token = operator.token().await?;
    let permissions = pb::Permissions { read: true, delegate: true, ..pb::Permissions::default() };
    let admin = operator.admin().0.to_vec();
    let request = pb::GrantRequest {
        resource: Some(pb::Resource { object_type: "file".to_owned(), object_id: format!("/bench/{round}") }),
        permissions: Some(permissions),
        grantee: admin.clone(),
        ..pb::GrantRequest::default()
    };
    let root = calls(operator, "grant", &token)?.grant(request).await?.into_inner().id;
    let first = delegate(operator, &token, permissions, vec![root.clone(); DESCENDANTS / 2]).await?;
    delegate(operator, &token, permissions, first).await?;
    let mut revoking = calls(operator, "revoke", &token)?;
    let began = Instant::now();
    let request = pb::RevokeRequest { id: root, reason: "bench".to_owned() };
    let laggards = revoking.revoke(request).await?.into_inner().laggards;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    if !laggards.is_empty() {
        bail!("{} had not applied it", laggards.join(", "));
    }
    Ok(ms)
}

/// One below each of these.
async fn delegate(
    operator: &Arc<Operator>,
    token: &str,
    permissions: pb::Permissions,
    sources: Vec<Vec<u8>>,
) -> Result<Vec<Vec<u8>>> {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut tasks = JoinSet::new();
    for capability in sources {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let mut calls = calls(operator, "delegate", token)?;
        let request = pb::DelegateRequest {
            capability,
            to: operator.admin().0.to_vec(),
            permissions: Some(permissions),
        };
        tasks.spawn(async move {
            let passed = calls.delegate(request).await;
            drop(slot);
            passed
        });
    }
    let mut ids = Vec::new();
    while let Some(passed) = tasks.join_next().await {
        ids.push(passed??.into_inner().id);
    }
    Ok(ids)
}
