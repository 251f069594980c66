//! Section `revoke`: rights are passed on only in part, and what is taken back is gone, with all that came of it, from the
//! moment of the answer on: under load, while somebody goes on passing on, while a service stands still, after a restart.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use contracts::capability_service::v1 as pb;
use rustix::process::{Pid, Signal, kill_process};
use sandbox::wait_for;
use serde_json::Value;
use tonic::Code;

use super::{
    Context, Section, Site, attack, hold_still,
    rights::{PASS_ON, READ, Rights, file},
};
use crate::node::{failed, runtime};

/// The tree that is taken back at once: this many levels of this many branches each.
const LEVELS: usize = 3;
const BRANCHES: usize = 5;
/// Revocations, each with a caller that goes on passing on what is taken back.
const RACES: usize = 20;
/// What stood still or was killed must be replaced within this.
const BACK_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A client of its own, so that an abuse is not held against the operator's other calls.
const OTHER: &str = "orbital.services.policy";

pub fn run(context: &mut Context) -> Result<Section> {
    let mut section = Section::new("revoke");
    let site = context.site()?;
    let node = site.node()?;
    let runtime = runtime()?;
    let rights = Rights { node: &node };
    let taken = runtime.block_on(async {
        only_in_part(&mut section, &rights).await?;
        let taken = whole_tree(&mut section, &rights).await?;
        races(&mut section, &rights).await?;
        anyhow::Ok(taken)
    })?;
    stands_still(&mut section, site)?;
    killed(&mut section, site)?;
    runtime.block_on(async {
        for object in &taken {
            let held = rights.holds(object).await?;
            attack(&mut section, held, "a right that was taken back was there again after a restart");
        }
        anyhow::Ok(())
    })?;
    Ok(section)
}

/// What only this section asks.
impl Rights<'_> {
    async fn delegate(
        &self,
        source: &[u8],
        permissions: pb::Permissions,
    ) -> Result<Result<Vec<u8>, tonic::Status>> {
        let request = pb::DelegateRequest {
            capability: source.to_vec(),
            to: self.node.admin().0.to_vec(),
            permissions: Some(permissions),
        };
        let mut calls = self.node.capabilities("system.capability_service.delegate").await?;
        Ok(calls.delegate(request).await.map(|passed| passed.into_inner().id))
    }

    async fn must_delegate(&self, source: &[u8], permissions: pb::Permissions) -> Result<Vec<u8>> {
        self.delegate(source, permissions).await?.map_err(failed)
    }

    async fn permits(&self, object: &str) -> Result<bool> {
        let request = pb::UseRequest {
            identity: self.node.admin().0.to_vec(),
            resource: Some(file(object)),
            permissions: Some(READ),
            ..pb::UseRequest::default()
        };
        let mut calls = self.node.capabilities("system.capability_service.use").await?;
        Ok(calls.r#use(request).await.map_err(failed)?.into_inner().permitted)
    }

    /// Live capabilities on an object.
    async fn on(&self, object: &str) -> Result<BTreeSet<Vec<u8>>> {
        let request =
            pb::CapabilityFilter { resource: Some(file(object)), ..pb::CapabilityFilter::default() };
        let mut calls = self.node.capabilities("system.capability_service.list").await?;
        let list = calls.list(request).await.map_err(failed)?.into_inner();
        Ok(list.capabilities.into_iter().map(|capability| capability.id).collect())
    }
}

/// Nothing that is passed on is more than it came from.
async fn only_in_part(section: &mut Section, rights: &Rights<'_>) -> Result<()> {
    let root = rights.grant("/prove/part", PASS_ON).await?.0.to_vec();
    let leaf = rights.must_delegate(&root, READ).await?;
    let more = [
        ("more than it has was passed on", &root, pb::Permissions { write: true, ..READ }),
        ("the right to take back was made from nothing", &root, pb::Permissions { revoke: true, ..READ }),
        ("a right was passed on that must not be passed on", &leaf, READ),
        ("nothing was passed on", &root, pb::Permissions::default()),
        ("what nobody holds was passed on", &vec![7; 16], READ),
        ("an id of another size was passed on", &vec![7; 15], READ),
    ];
    for (what, source, permissions) in more {
        attack(section, rights.delegate(source, permissions).await?.is_ok(), what);
    }
    let foreign = granted_to_another(rights).await?;
    attack(section, rights.delegate(&foreign, READ).await?.is_ok(), "another's right was passed on");
    rights.revoke(&root).await?.map_err(failed)?;
    let again = rights.delegate(&root, READ).await?;
    attack(section, again.is_ok(), "what was taken back was passed on");
    Ok(())
}

async fn granted_to_another(rights: &Rights<'_>) -> Result<Vec<u8>> {
    let other = rights.node.genesis_name(OTHER).with_context(|| format!("genesis names no {OTHER}"))?;
    let granted = rights.try_grant_to(other, "/prove/other", PASS_ON).await?.map_err(failed)?;
    Ok(granted.id.0.to_vec())
}

/// A tree of rights, taken back at its root; the objects on which nothing may be held afterwards.
async fn whole_tree(section: &mut Section, rights: &Rights<'_>) -> Result<Vec<String>> {
    let object = "/prove/tree";
    let root = rights.grant(object, PASS_ON).await?.0.to_vec();
    let mut level = vec![root.clone()];
    let mut below = Vec::new();
    for _ in 0..LEVELS {
        let mut next = Vec::new();
        for source in &level {
            for _ in 0..BRANCHES {
                next.push(rights.must_delegate(source, PASS_ON).await?);
            }
        }
        below.extend(next.iter().cloned());
        level = next;
    }
    section.check(rights.holds(object).await?, "what was granted is not held");
    section.check(rights.permits(object).await?, "what was granted is not permitted");
    section.check(rights.on(object).await?.len() == below.len() + 1, "not all that was passed on is listed");
    let began = Instant::now();
    let laggards = rights.revoke(&root).await?.map_err(failed)?;
    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    section.count("µs for a tree", took);
    section.count("rights taken back", below.len() as u64 + 1);
    section.check(laggards.is_empty(), format!("{} may still honour it", laggards.join(", ")));
    attack(section, rights.holds(object).await?, "a right that was taken back is held");
    attack(section, rights.permits(object).await?, "a right that was taken back is permitted");
    attack(section, !rights.on(object).await?.is_empty(), "rights are left below one that was taken back");
    for source in &below {
        attack(section, rights.delegate(source, READ).await?.is_ok(), "a fallen right was passed on");
    }
    Ok(vec![object.to_owned()])
}

/// While a right is taken back, its holder goes on passing it on: nothing of it is left.
async fn races(section: &mut Section, rights: &Rights<'_>) -> Result<()> {
    let mut passed_on = 0;
    for race in 0..RACES {
        let object = format!("/prove/race/{race}");
        let root = rights.grant(&object, PASS_ON).await?.0.to_vec();
        let passing = async {
            let mut source = root.clone();
            let mut passed = 0_u64;
            loop {
                match rights.delegate(&source, PASS_ON).await? {
                    Ok(next) => (source, passed) = (next, passed + 1),
                    Err(status) if refuses(&status) => return anyhow::Ok(passed),
                    Err(status) => return Err(failed(status)),
                }
            }
        };
        let taking = async {
            tokio::time::sleep(Duration::from_micros(500) * u32::try_from(race).unwrap_or(0)).await;
            rights.revoke(&root).await?.map_err(failed)?;
            rights.holds(&object).await
        };
        let (passed, held) = tokio::try_join!(passing, taking)?;
        passed_on += passed;
        attack(section, held, "a right was held after the answer that took it back");
        let left = rights.on(&object).await?;
        attack(section, !left.is_empty(), "a right that was passed on at the last moment is left");
    }
    section.count("rights passed on in a race", passed_on);
    Ok(())
}

/// That nothing may be passed on any more, and not that nobody answered.
fn refuses(status: &tonic::Status) -> bool {
    matches!(status.code(), Code::PermissionDenied | Code::NotFound | Code::FailedPrecondition)
}

/// A service that does not learn of it does not go on serving with what it knew.
fn stands_still(section: &mut Section, site: &Site) -> Result<()> {
    let granted = site.json(&["capability", "grant", "file:/prove/still", "r", OTHER])?;
    let id = granted.pointer("/0/id").and_then(Value::as_str).context("a grant without an id")?;
    let pid = site.pid("process_manager")?;
    hold_still(section, pid)?;
    let began = Instant::now();
    let revoked = site.tell(&["capability", "revoke", id]);
    let replaced = replaced(site, "process_manager", pid);
    if !replaced {
        // Whatever is found, it must not stand still for what comes after.
        kill_process(pid, Signal::CONT).context("letting process_manager go on")?;
    }
    attack(section, !replaced, "a service that stood still during a revocation was left to serve");
    revoked?;
    section.count("ms until replaced", u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    settled(section, site);
    Ok(())
}

fn killed(section: &mut Section, site: &Site) -> Result<()> {
    let pid = site.pid("capability_service")?;
    kill_process(pid, Signal::KILL).context("killing capability_service")?;
    section.check(replaced(site, "capability_service", pid), "capability_service was not back in time");
    settled(section, site);
    Ok(())
}

fn replaced(site: &Site, service: &str, before: Pid) -> bool {
    wait_for(BACK_TIMEOUT, LOOK_EVERY, || site.pid(service).ok().filter(|now| *now != before)).is_some()
}

fn settled(section: &mut Section, site: &Site) {
    let running = || site.all_running().unwrap_or(false).then_some(());
    section.check(wait_for(BACK_TIMEOUT, LOOK_EVERY, running).is_some(), "not all services are back");
}
