//! The load on real processes.

use std::{
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use base::{AxiomRef, CapabilityId, Hash, IdentityId, KeyPath, Sequence};
use chain::payload::{
    capability::{CapabilityGrant, ObjectType, Permissions, Resource},
    identity::{KeyOperation, KeyUsage},
    policy::{PolicyAction, PolicyRequest, ResourceRef, ResourceType},
};
use contracts::capability_service::v1::{self as rights, capabilities_client::CapabilitiesClient};
use kit::{
    Feed,
    authority::{Authority, AuthorityError, Entry},
    client::Calls,
};
use tokio::{runtime::Runtime, task::LocalSet};

use super::{Contestant, Round};
use crate::site::Operator;

/// Which act the load asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Decided by a rule on key paths; only `keys` folds it.
    KeyUse,
    /// What `capability_service` does for a caller; every service of the node folds it.
    Grant,
}

/// Makes acts that are all different.
pub(super) struct Maker {
    kind: Kind,
    submitter: IdentityId,
    admin: IdentityId,
    key_path: KeyPath,
    next: AtomicU64,
}

impl Maker {
    pub(super) fn new(kind: Kind, operator: &Operator) -> Result<Self> {
        let submitter = operator.service(kind.service())?;
        let admin = operator.admin();
        let own = operator.genesis.identities.iter().find(|identity| identity.identity_id == admin);
        let key_path = own.context("genesis names no admin")?.key_path.clone();
        Ok(Self { kind, submitter, admin, key_path, next: AtomicU64::new(1) })
    }

    pub(super) fn make(
        &self,
        ask: impl Fn(IdentityId, PolicyAction, ResourceRef) -> Result<PolicyRequest, AuthorityError>,
    ) -> Result<(PolicyRequest, Entry), AuthorityError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match self.kind {
            Kind::KeyUse => {
                let message_hash = Hash::of(&number.to_le_bytes());
                let action = PolicyAction::Sign { key_path: self.key_path.clone(), message_hash };
                let resource =
                    ResourceRef { resource_type: ResourceType::Key, id: self.key_path.to_string() };
                let request = ask(self.admin, action, resource)?;
                let usage = KeyUsage {
                    identity: self.admin,
                    key_path: self.key_path.clone(),
                    operation: KeyOperation::Sign,
                    message_hash: Some(message_hash),
                    authorization: AxiomRef { sequence: Sequence(0), hash: Hash::ZERO },
                    output_hash: Some(message_hash),
                    refused: None,
                    reason: None,
                    epoch: None,
                    rotation: None,
                };
                let entry = Entry::for_request(self.submitter, &request, usage)?;
                Ok((request, entry))
            }
            Kind::Grant => {
                let capability_id = CapabilityId(kit::authority::random_16()?);
                let resource =
                    Resource { object_type: ObjectType::File, object_id: format!("/bench/{number}") };
                let action = PolicyAction::DelegateCapability { capability: capability_id, to: self.admin };
                let guarded = ResourceRef {
                    resource_type: ResourceType::Capability,
                    id: format!("file:{}", resource.object_id),
                };
                let request = ask(self.admin, action, guarded)?;
                let grant = CapabilityGrant {
                    capability_id,
                    grantor: self.admin,
                    grantee: self.admin,
                    resource,
                    permissions: Permissions { read: true, ..Permissions::default() },
                    restrictions: None,
                    parent: None,
                };
                let entry = Entry::for_request(self.submitter, &request, grant)?;
                Ok((request, entry))
            }
        }
    }
}

impl Kind {
    /// Whose channel the load speaks on.
    pub(super) const fn service(self) -> &'static str {
        match self {
            Self::KeyUse => "keys",
            Self::Grant => "capability_service",
        }
    }
}

/// `Authority::act` on a service's own channel.
pub(super) struct Load<'r> {
    runtime: &'r Runtime,
    authority: Authority,
    maker: Rc<Maker>,
}

impl<'r> Load<'r> {
    pub(super) fn new(runtime: &'r Runtime, operator: &Operator, kind: Kind) -> Result<Self> {
        let socket = operator.layout.socket("authority", kind.service());
        let authority = {
            let _inside = runtime.enter();
            Authority::at(socket, kind.service(), Feed::new())
        };
        Ok(Self { runtime, authority, maker: Rc::new(Maker::new(kind, operator)?) })
    }
}

impl Contestant for Load<'_> {
    fn name(&self) -> String {
        match self.maker.kind {
            Kind::KeyUse => "key use, on the channel of keys".to_owned(),
            Kind::Grant => "grant, on the channel of capability_service".to_owned(),
        }
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn round(&mut self, in_flight: usize, time: Duration) -> Result<Round> {
        let (authority, maker) = (&self.authority, &self.maker);
        in_turn(self.runtime, in_flight, time, move || {
            let (authority, maker) = (authority.clone(), Rc::clone(maker));
            async move {
                let ask = |requestor, action, resource| authority.request(requestor, action, resource);
                let (request, entry) = maker.make(ask)?;
                let committed = authority.act(&request, entry).await?;
                if committed.decision.is_none() || committed.entry.is_none() || committed.duplicate {
                    bail!("an act was answered with {committed:?}");
                }
                Ok(())
            }
        })
    }
}

/// The whole road of a caller: `Grant` of the public contract on the admin socket.
pub(super) struct Public<'r> {
    runtime: &'r Runtime,
    client: CapabilitiesClient<Calls>,
    admin: IdentityId,
    next: Rc<AtomicU64>,
}

impl<'r> Public<'r> {
    pub(super) fn new(runtime: &'r Runtime, operator: &Operator) -> Result<Self> {
        let client = runtime.block_on(async {
            let token = operator.token().await?;
            operator.calls("capability_service", "system.capability_service.grant", Some(&token))
        })?;
        let client = CapabilitiesClient::new(client);
        Ok(Self { runtime, client, admin: operator.admin(), next: Rc::new(AtomicU64::new(1)) })
    }
}

impl Contestant for Public<'_> {
    fn name(&self) -> String {
        "grant, asked of capability_service by a caller".to_owned()
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn round(&mut self, in_flight: usize, time: Duration) -> Result<Round> {
        let (client, admin, next) = (&self.client, self.admin, &self.next);
        in_turn(self.runtime, in_flight, time, move || {
            let (mut client, number) = (client.clone(), next.fetch_add(1, Ordering::Relaxed));
            async move {
                let request = rights::GrantRequest {
                    resource: Some(rights::Resource {
                        object_type: "file".to_owned(),
                        object_id: format!("/public/{number}"),
                    }),
                    permissions: Some(rights::Permissions { read: true, ..rights::Permissions::default() }),
                    grantee: admin.0.to_vec(),
                    restrictions: None,
                    expires_at_ns: None,
                };
                client.grant(request).await?;
                Ok(())
            }
        })
    }
}

/// Keeps so many under way until the time is over, then waits for the last.
fn in_turn<F: Future<Output = Result<()>> + 'static>(
    runtime: &Runtime,
    in_flight: usize,
    time: Duration,
    act: impl Fn() -> F,
) -> Result<Round> {
    LocalSet::new().block_on(runtime, async {
        let start = Instant::now();
        let mut round = Round::default();
        let mut under_way = tokio::task::JoinSet::new();
        let begin = |under_way: &mut tokio::task::JoinSet<Result<f64>>| {
            let act = act();
            under_way.spawn_local(async move {
                let since = Instant::now();
                act.await?;
                Ok(since.elapsed().as_secs_f64() * 1e6)
            });
        };
        for _ in 0..in_flight {
            begin(&mut under_way);
        }
        while let Some(done) = under_way.join_next().await {
            round.latencies_us.push(done.context("an act was given up")??);
            round.acts += 1;
            if start.elapsed() < time {
                begin(&mut under_way);
            }
        }
        round.took = start.elapsed();
        Ok(round)
    })
}
