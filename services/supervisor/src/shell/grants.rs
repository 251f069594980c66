//! Who a service of the user is and what it may: made by `identity` and `capability_service`, which decide and record it;
//! the supervisor only asks.

use std::time::{Duration, Instant};

use base::{CapabilityId, IdentityId, KeyPath, Sequence, TraceId, key_paths};
use chain::payload::capability::{ObjectType, Resource};
use contracts::{
    capability_service::v1::{self as rights, capabilities_client::CapabilitiesClient},
    identity::v1::{self as identities, identities_client::IdentitiesClient},
};
use kit::{CallError, OperationContext, Peer, client::Calls};
use tonic::Status;

use super::{apply::Applier, knowledge, sockets};
use crate::{core::supervisor::SupervisorError, manifest::LoadedManifest};

/// How long the log may take to be read after the node has booted; until then nobody here knows who is there already.
const LOG_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How many times the feed's own patience (100 ms) a new identity is awaited here, so that the next request for the same
/// service finds it.
const FOLD_WAITS_MAX: usize = 20;
/// How long identity and rights are asked for again while a service that gives them is behind the log or not there.
const RIGHTS_TIMEOUT: Duration = Duration::from_secs(5);
const RIGHTS_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a reason as `capability_service` takes them.
const REASON_BYTES_MAX: usize = 256;

impl Applier {
    /// Who the manifest's service is and what it holds. What is there already is not asked for again, so this can be
    /// repeated.
    pub(super) async fn rights(
        &self,
        manifest: &LoadedManifest,
        is_asked_for: bool,
    ) -> Result<(IdentityId, Vec<CapabilityId>), SupervisorError> {
        let since = Instant::now();
        loop {
            let given = async {
                let identity = self.identity(manifest).await?;
                Ok((identity, self.grant(manifest, identity, is_asked_for).await?))
            };
            match given.await {
                Err(SupervisorError::Unavailable(why)) if since.elapsed() < RIGHTS_TIMEOUT => {
                    tracing::info!(service = manifest.name(), why, "its rights are asked for again");
                    tokio::time::sleep(RIGHTS_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// The identity at the manifest's key path; made if it is not there.
    async fn identity(&self, manifest: &LoadedManifest) -> Result<IdentityId, SupervisorError> {
        let path = usual_key_path(manifest)?;
        // Before the log was read, everybody would look new.
        let read = tokio::time::timeout(LOG_READ_TIMEOUT, self.knowledge.feed().caught_up()).await;
        read.map_err(|_| SupervisorError::Unavailable("the log has not been read yet".to_owned()))?;
        if let Some(known) = self.knowledge.identity(&path) {
            return Ok(known);
        }
        let mut client = IdentitiesClient::new(self.calls("identity", "system.identity.create_identity")?);
        // Services hang below the node's root, like those of genesis.
        let root = KeyPath::parse(key_paths::SYSTEM).ok().and_then(|root| self.knowledge.identity(&root));
        let parent = root.unwrap_or(self.knowledge.own);
        let request = identities::CreateIdentityRequest {
            name: manifest.name().to_owned(),
            identity_type: "Service".to_owned(),
            parent: parent.0.to_vec(),
            key_path: String::new(),
        };
        let made = client.create_identity(request).await.map_err(|status| failed("its identity", status))?;
        let made = made.into_inner();
        self.wait_for_fold(made.created_at.map_or(Sequence(0), |at| Sequence(at.sequence))).await;
        IdentityId::from_slice(&made.id)
            .ok_or_else(|| SupervisorError::Unavailable("identity answered without an id".to_owned()))
    }

    /// Grants what the manifest asks for and the service does not hold yet; optional ones if that can be. What was taken
    /// back is given again if somebody asks for it, never because the node was started again.
    async fn grant(
        &self,
        manifest: &LoadedManifest,
        holder: IdentityId,
        is_asked_for: bool,
    ) -> Result<Vec<CapabilityId>, SupervisorError> {
        let wanted = &manifest.manifest.capabilities;
        let required = wanted.required.iter().map(|requirement| (requirement, true));
        for (requirement, is_required) in required.chain(wanted.optional.iter().map(|other| (other, false))) {
            let resource = service_object(&requirement.capability_type);
            let permissions = requirement.rights();
            if self.knowledge.holds(&holder, &resource, permissions) {
                continue;
            }
            if !is_asked_for && self.knowledge.was_withdrawn(&holder, &resource) {
                let what = &requirement.capability_type;
                if is_required {
                    return Err(withdrawn(what));
                }
                tracing::info!(capability = what, "taken back, not granted again");
                continue;
            }
            let request = rights::GrantRequest {
                resource: Some((&resource).into()),
                permissions: Some(permissions.into()),
                grantee: holder.0.to_vec(),
                ..rights::GrantRequest::default()
            };
            let calls = self.calls("capability_service", "system.capability_service.grant")?;
            match CapabilitiesClient::new(calls).grant(request).await {
                Ok(granted) => {
                    let at = granted.into_inner().created_at;
                    self.wait_for_fold(at.map_or(Sequence(0), |at| Sequence(at.sequence))).await;
                }
                Err(status) if is_required => return Err(failed(&requirement.capability_type, status)),
                Err(status) => {
                    tracing::info!(capability = requirement.capability_type, %status, "not granted")
                }
            }
        }
        Ok(self.knowledge.capabilities(&holder))
    }

    /// Takes away what was misused (SUP-64): the revocation, with its reason, is the entry in the log.
    pub(super) async fn revoke(&self, capability: CapabilityId, why: &str) -> Result<(), SupervisorError> {
        let calls = self.calls("capability_service", "system.capability_service.revoke")?;
        let reason = why.get(..why.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default().to_owned();
        let request = rights::RevokeRequest { id: capability.0.to_vec(), reason };
        let revoked = CapabilitiesClient::new(calls).revoke(request).await;
        let reply = revoked.map_err(|status| failed("the revocation", status))?.into_inner();
        tracing::warn!(%capability, why, laggards = reply.laggards.join(" "), "a misused capability is revoked");
        Ok(())
    }

    fn calls(&self, service: &str, capability: &str) -> Result<Calls, SupervisorError> {
        let unavailable = |text: String| SupervisorError::Unavailable(text);
        let Some(edge) = self.registry.edge(service, sockets::SUPERVISOR) else {
            return Err(unavailable(format!("{service} is not installed")));
        };
        let trace = kit::authority::random_16().map_err(|error| unavailable(error.to_string()))?;
        let context = OperationContext::of_service(self.knowledge.own, capability, TraceId(trace));
        let context = context.map_err(|error| unavailable(error.to_string()))?;
        let peer = Peer::at(edge.path).seeing(self.knowledge.feed().seen());
        peer.with(&context, None).map_err(|error| unavailable(error.to_string()))
    }

    pub(super) async fn wait_for_fold(&self, sequence: Sequence) {
        for _ in 0..FOLD_WAITS_MAX {
            if self.knowledge.feed().wait_for(sequence).await.is_ok() {
                return;
            }
        }
    }
}

fn failed(what: &str, status: Status) -> SupervisorError {
    match CallError::from(status) {
        CallError::Refused { refusal: Some(sequence), .. } => {
            SupervisorError::PolicyDenied { refusal: sequence.0 }
        }
        // To ask again would change nothing.
        error @ (CallError::Refused { .. } | CallError::Misuse { .. }) => {
            SupervisorError::InvalidManifest(format!("{what}: {error}"))
        }
        error => SupervisorError::Unavailable(format!("{what}: {error}")),
    }
}

/// A service's key path follows from its name, so a manifest can name that one or none.
pub(super) fn usual_key_path(manifest: &LoadedManifest) -> Result<KeyPath, SupervisorError> {
    let refuse = |text: String| SupervisorError::InvalidManifest(text);
    let usual = knowledge::service_path(manifest.name())
        .ok_or_else(|| refuse("no key path can be made from this name".to_owned()))?;
    match manifest.manifest.key_path() {
        Some(named) if named != usual => Err(refuse(format!(
            "a service of this name has the key path {usual}, not {named}; leave key_path out or write that one"
        ))),
        _ => Ok(usual),
    }
}

fn withdrawn(capability_type: &str) -> SupervisorError {
    SupervisorError::InvalidManifest(format!(
        "its capability {capability_type} was taken back; `bailiwick service apply` grants it again"
    ))
}

/// A service as the object of a capability.
pub(super) fn service_object(capability_type: &str) -> Resource {
    Resource { object_type: ObjectType::Service, object_id: capability_type.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_path_is_the_usual_one_or_none() {
        let path = |identity: &str| {
            let text = format!(
                "version = 1\n[service]\nname = \"mine\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n{identity}"
            );
            usual_key_path(&crate::manifest::parse("test", &text).unwrap()).map(|path| path.to_string())
        };
        let usual = Ok("/orbital/services/mine".to_owned());
        assert_eq!(path(""), usual);
        assert_eq!(path("[identity]\nkey_path = \"/orbital/services/mine\"\n"), usual);
        let other = path("[identity]\nkey_path = \"/orbital/services/yours\"\n");
        assert!(
            matches!(other, Err(SupervisorError::InvalidManifest(text)) if text.contains("/services/mine"))
        );
    }
}
