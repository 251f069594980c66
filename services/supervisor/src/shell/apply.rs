//! A service of the user, from its manifest: identity, rights, sockets, registration; and the way back.
//!
//! Who a service is and what it may is made by `identity` and `capability_service`, which decide and record it; the
//! supervisor only asks. The manifest is kept in the node's folder of manifests, from which the next boot takes it.

use std::{path::Path, sync::Arc};

use base::{CapabilityId, IdentityId, KeyPath, TraceId, key_paths};
use contracts::{
    capability_service::v1::{self as rights, capabilities_client::CapabilitiesClient},
    identity::v1::{self as identities, identities_client::IdentitiesClient},
};
use durable::RealDisk;
use kit::{CallError, OperationContext, Peer, client::Calls};
use tonic::Status;

use super::{
    inputs::{Answer, Inbox},
    keeper_client::Keeper,
    knowledge::{CAPABILITIES_MAX, Knowledge},
    plans::House,
    registry::Registry,
    sockets,
};
use crate::{
    core::supervisor::{Event, ServiceSetup, SupervisorError},
    manifest::{CapabilityRequirement, LoadedManifest, ServiceType, parse},
};

/// Files of the folder of manifests that are looked at.
const FILES_MAX: usize = crate::manifest::limits::SERVICES_MAX;

/// Everything that is needed to take in a manifest. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Applier {
    pub(super) house: Arc<House>,
    pub(super) keeper: Keeper,
    pub(super) registry: Registry,
    pub(super) knowledge: Knowledge,
    pub(super) inbox: Inbox,
}

impl Applier {
    /// `by` is who asks; none for what the boot finds in the folder of manifests.
    pub(super) async fn apply(&self, by: Option<IdentityId>, file: &str, text: &str) -> Answer {
        let manifest = Arc::new(self.read(file, text)?);
        let name = manifest.name().to_owned();
        let identity = self.identity(&manifest).await?;
        let capabilities = self.grant(&manifest, identity).await?;
        self.registry.add(Arc::clone(&manifest));
        let own = |socket: &sockets::Socket| socket.client.as_deref() == Some(&name);
        let held = self.registry.ensure(&self.keeper, &self.house, own).await;
        held.map_err(|error| SupervisorError::Unavailable(error.to_string()))?;
        let setup = Box::new(ServiceSetup { manifest, identity, capabilities });
        let answer = self.inbox.call(by, move |request| Event::RegisterRequested { request, setup }).await;
        if by.is_some() && stays_registered(&answer) {
            self.keep(&name, text)?;
        }
        answer
    }

    fn read(&self, file: &str, text: &str) -> Result<LoadedManifest, SupervisorError> {
        let refuse = |text: String| SupervisorError::InvalidManifest(text);
        let mut manifest = parse(file, text).map_err(|errors| {
            refuse(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })?;
        if manifest.manifest.service.service_type != ServiceType::User || manifest.manifest.program.is_none()
        {
            return Err(refuse("only services of type User with a [program] can be applied".to_owned()));
        }
        manifest.manifest = manifest.manifest.with_running_image(self.house.image.hash);
        Ok(manifest)
    }

    /// The identity at the manifest's key path; made if it is not there.
    async fn identity(&self, manifest: &LoadedManifest) -> Result<IdentityId, SupervisorError> {
        let refuse = || SupervisorError::InvalidManifest("no key path can be made from this name".to_owned());
        let path = manifest.manifest.key_path().ok_or_else(refuse)?;
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
            // Its usual place, which a manifest without [identity] means too.
            key_path: String::new(),
        };
        let made = client.create_identity(request).await.map_err(|status| failed("its identity", status))?;
        let made = made.into_inner();
        if made.key_path != path.to_string() {
            let text = format!(
                "a service of this name has the key path {}, not {path}; leave it out",
                made.key_path
            );
            return Err(SupervisorError::InvalidManifest(text));
        }
        IdentityId::from_slice(&made.id)
            .ok_or_else(|| SupervisorError::Unavailable("identity answered without an id".to_owned()))
    }

    /// What the manifest requires and the service does not hold yet. Optional ones are granted if they can be.
    async fn grant(
        &self,
        manifest: &LoadedManifest,
        holder: IdentityId,
    ) -> Result<Vec<CapabilityId>, SupervisorError> {
        let mut held = self.knowledge.capabilities(&holder);
        let wanted = &manifest.manifest.capabilities;
        if held.len() >= wanted.required.len() {
            return Ok(held);
        }
        let mut client =
            CapabilitiesClient::new(self.calls("capability_service", "system.capability_service.grant")?);
        let required = wanted.required.iter().map(|requirement| (requirement, true));
        for (requirement, is_required) in required.chain(wanted.optional.iter().map(|other| (other, false))) {
            if held.len() >= CAPABILITIES_MAX {
                break;
            }
            match client.grant(request(requirement, holder)).await {
                Ok(granted) => held.extend(CapabilityId::from_slice(&granted.into_inner().id)),
                Err(status) if is_required => return Err(failed(&requirement.capability_type, status)),
                Err(status) => {
                    tracing::info!(capability = requirement.capability_type, %status, "not granted")
                }
            }
        }
        Ok(held)
    }

    fn calls(&self, service: &str, capability: &str) -> Result<Calls, SupervisorError> {
        let unavailable = |text: String| SupervisorError::Unavailable(text);
        let Some(edge) = self.registry.edge(service, sockets::SUPERVISOR) else {
            return Err(unavailable(format!("{service} is not installed")));
        };
        let trace = kit::authority::random_16().map_err(|error| unavailable(error.to_string()))?;
        let context = OperationContext::of_service(self.knowledge.own, capability, TraceId(trace));
        let context = context.map_err(|error| unavailable(error.to_string()))?;
        Peer::at(edge.path).with(&context, None).map_err(|error| unavailable(error.to_string()))
    }

    fn folder(&self) -> std::path::PathBuf {
        self.house.layout.manifests()
    }

    /// So that the next boot finds it.
    fn keep(&self, name: &str, text: &str) -> Result<(), SupervisorError> {
        let folder = self.folder();
        let kept = sockets::make_folder(&folder)
            .map_err(|error| error.to_string())
            .and_then(|()| RealDisk::open(&folder).map_err(|error| error.to_string()))
            .and_then(|disk| {
                durable::replace(&disk, &format!("{name}.toml"), &[text.as_bytes()])
                    .map_err(|error| error.to_string())
            });
        kept.map_err(|text| {
            SupervisorError::Unavailable(format!("{name} runs, but its manifest is not kept: {text}"))
        })
    }

    /// After a service was unregistered.
    pub(super) async fn forget(&self, name: &str) {
        let file = self.folder().join(format!("{name}.toml"));
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %file.display(), "a manifest stays and will be taken in again at the next boot");
        }
        for socket in self.registry.remove(name) {
            if let Err(error) = self.keeper.forget(&socket.stored_name()).await {
                tracing::warn!(%error, socket = socket.stored_name(), "the keeper holds on to a socket");
            }
            let _ = std::fs::remove_file(&socket.path);
        }
    }

    /// The services of the user that the folder names, one after the other; a bad one does not stop the next.
    pub(super) async fn apply_folder(self) {
        for (file, text) in read_folder(&self.folder()) {
            if let Err(error) = self.apply(None, &file, &text).await {
                tracing::error!(%error, file, "a service of the user was not started");
            }
        }
    }
}

/// A service that fails to start is registered all the same, and started again at the next boot.
fn stays_registered(answer: &Answer) -> bool {
    use SupervisorError as E;
    match answer {
        Ok(_) => true,
        Err(error) => matches!(
            error,
            E::StartupTimeout(_)
                | E::ServiceCrashed { .. }
                | E::DependencyNotRunning { .. }
                | E::NotRunning(_)
        ),
    }
}

fn failed(what: &str, status: Status) -> SupervisorError {
    match CallError::from(status) {
        CallError::Refused { refusal: Some(sequence), .. } => {
            SupervisorError::PolicyDenied { refusal: sequence.0 }
        }
        error => SupervisorError::Unavailable(format!("{what}: {error}")),
    }
}

/// Manifest words as rights: `query` reads.
fn request(requirement: &CapabilityRequirement, holder: IdentityId) -> rights::GrantRequest {
    let has = |word: &str| requirement.permissions.iter().any(|permission| permission == word);
    rights::GrantRequest {
        resource: Some(rights::Resource {
            object_type: "service".to_owned(),
            object_id: requirement.capability_type.clone(),
        }),
        permissions: Some(rights::Permissions {
            read: has("read") || has("query"),
            write: has("write"),
            execute: has("execute"),
            delegate: has("delegate"),
            revoke: has("revoke"),
        }),
        grantee: holder.0.to_vec(),
        ..rights::GrantRequest::default()
    }
}

/// File name and text of each manifest, by name; what cannot be read is reported.
pub(super) fn read_folder(folder: &Path) -> Vec<(String, String)> {
    let Ok(listing) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort_unstable();
    files.truncate(FILES_MAX);
    let read = |file: &std::path::PathBuf| {
        let size = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        if size > crate::manifest::limits::MANIFEST_BYTES_MAX as u64 {
            tracing::error!(file = %file.display(), size, "a manifest is too large");
            return None;
        }
        match std::fs::read_to_string(file) {
            Ok(text) => Some((file.display().to_string(), text)),
            Err(error) => {
                tracing::error!(%error, file = %file.display(), "a manifest cannot be read");
                None
            }
        }
    };
    files.iter().filter_map(read).collect()
}
