//! Calls about rights that several sections make, as the operator, on objects of the sections' own.

use std::collections::BTreeMap;

use anyhow::Result;
use base::{CapabilityId, IdentityId};
use contracts::{capability_service::v1 as pb, convert::bytes};
use tonic::Status;

use crate::node::{Node, failed};

pub const READ: pb::Permissions =
    pb::Permissions { read: true, write: false, execute: false, delegate: false, revoke: false };
pub const PASS_ON: pb::Permissions = pb::Permissions { delegate: true, ..READ };

/// Acknowledged grants: capability, and the sequence that was told.
pub type Acknowledged = BTreeMap<CapabilityId, u64>;

pub struct Rights<'a> {
    pub node: &'a Node,
}

impl Rights<'_> {
    /// To the operator; what went wrong is the caller's to judge.
    pub async fn try_grant(
        &self,
        object: &str,
        permissions: pb::Permissions,
    ) -> Result<Result<Granted, Status>> {
        self.try_grant_to(self.node.admin(), object, permissions).await
    }

    pub async fn try_grant_to(
        &self,
        grantee: IdentityId,
        object: &str,
        permissions: pb::Permissions,
    ) -> Result<Result<Granted, Status>> {
        let request = pb::GrantRequest {
            resource: Some(file(object)),
            permissions: Some(permissions),
            grantee: grantee.0.to_vec(),
            ..pb::GrantRequest::default()
        };
        let mut calls = self.node.capabilities("system.capability_service.grant").await?;
        match calls.grant(request).await {
            Ok(granted) => Granted::of(&granted.into_inner()).map(Ok),
            Err(status) => Ok(Err(status)),
        }
    }

    pub async fn grant(&self, object: &str, permissions: pb::Permissions) -> Result<CapabilityId> {
        Ok(self.try_grant(object, permissions).await?.map_err(failed)?.id)
    }

    pub async fn holds(&self, object: &str) -> Result<bool> {
        let request = pb::CheckRequest {
            identity: self.node.admin().0.to_vec(),
            resource: Some(file(object)),
            permissions: Some(READ),
        };
        let mut calls = self.node.capabilities("system.capability_service.check").await?;
        Ok(calls.check(request).await.map_err(failed)?.into_inner().held)
    }

    /// Takes it back; services that may still honour it.
    pub async fn revoke(&self, id: &[u8]) -> Result<Result<Vec<String>, Status>> {
        let request = pb::RevokeRequest { id: id.to_vec(), reason: "prove".to_owned() };
        let mut calls = self.node.capabilities("system.capability_service.revoke").await?;
        Ok(calls.revoke(request).await.map(|revoked| revoked.into_inner().laggards))
    }
}

/// What was acknowledged.
#[derive(Clone, Copy)]
pub struct Granted {
    pub id: CapabilityId,
    pub sequence: u64,
}

impl Granted {
    fn of(granted: &pb::Capability) -> Result<Self> {
        let sequence = granted.created_at.as_ref().map_or(0, |at| at.sequence);
        Ok(Self { id: CapabilityId(bytes("id", &granted.id)?), sequence })
    }
}

pub fn file(object: &str) -> pb::Resource {
    pb::Resource { object_type: "file".to_owned(), object_id: object.to_owned() }
}
