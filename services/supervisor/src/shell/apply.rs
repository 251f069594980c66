//! A service of the user, from its manifest: identity, rights, sockets, registration; and the way back.
//!
//! Who it is and what it may is asked for in `grants`, its sockets are opened in `socket_changes`. The manifest is kept in the node's folder of manifests, from which the next boot takes it.

use std::{path::Path, sync::Arc};

use base::IdentityId;
use durable::RealDisk;
use kit::authority::Authority;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    execute::Executions,
    fd_store,
    history::History,
    image_holds::ImageHolds,
    inputs::{Answer, Inbox, Input},
    keeper_client::Keeper,
    knowledge::Knowledge,
    listeners::Listeners,
    plans::House,
    registry::Registry,
    sockets, timers,
    turns::Turns,
    way_out,
};
use crate::{
    core::{
        catalogue,
        supervisor::{Event, ServiceSetup, SupervisorError},
    },
    keeper::STORED_MAX,
    manifest::{LoadedManifest, ServiceType, check_places, parse},
};

/// Manifests of the folder that are taken in at the same time: each waits for decisions, for entries on the disk and for
/// its program, and hardly for the processor.
const APPLIED_AT_ONCE_MAX: usize = 16;
/// What the supervisor stores with the keeper for itself: its memory and its channels, with room.
const OWN_STORED_MAX: usize = 16;
/// Of all that it may store, what is left for sockets beside that and what programs leave.
const SOCKETS_STORED_MAX: usize = STORED_MAX - OWN_STORED_MAX - fd_store::ALL_MAX;
/// Files of the folder of manifests that are looked at.
const FILES_MAX: usize = crate::manifest::limits::SERVICES_MAX;

/// Everything that is needed to take in a manifest. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Applier {
    pub(super) house: Arc<House>,
    pub(super) keeper: Keeper,
    pub(super) registry: Registry,
    /// The sockets that programs are handed.
    pub(super) listeners: Listeners,
    pub(super) knowledge: Knowledge,
    pub(super) inbox: Inbox,
    /// Held while the node's sockets change.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    /// Held while one service's manifest is changed.
    pub(super) turns: Turns,
    pub(super) inputs: mpsc::UnboundedSender<Input>,
    pub(super) history: History,
    pub(super) authority: Authority,
    pub(super) executions: Executions,
    pub(super) image_holds: ImageHolds,
    pub(super) read_place: ReadPlace,
}

/// What is wrong with a place of `[egress]`. It is read by `network`, of which no other service knows, so whoever makes the supervisor
/// brings its reader along.
pub type ReadPlace = fn(&str) -> Result<(), String>;

/// See [`Applier::plan`].
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) name: String,
    /// As it would be kept.
    pub(super) text: String,
    /// None: it is new.
    pub(super) before: Option<String>,
    pub(super) restarts: Vec<String>,
}

impl Applier {
    pub(super) fn tell_loop(&self, input: Input) {
        let _ = self.inputs.send(input);
    }

    /// `by` is who asks; none for what the boot finds in the folder of manifests.
    pub(super) async fn apply(&self, by: Option<IdentityId>, file: &str, text: &str) -> Answer {
        // Before an image is asked for: what cannot be read is said first.
        let name = self.read(file, text)?.name().to_owned();
        let _alone = self.turns.take(&name).await?;
        // Held until the service is registered or was refused.
        let (text, _image) = self.pinned(by, &name, text).await?;
        let text = &text;
        let manifest = Arc::new(self.read(file, text)?);
        self.admit(&manifest)?;
        // First, because it is what fails most, and nothing has been asked for or recorded yet.
        self.listeners.open(&self.keeper, &self.house, &manifest.manifest).await?;
        let answer = self.register(by, &manifest).await;
        // Those of the manifest that the service has now; none if it has come to nothing.
        let in_force = self.registry.manifest(&name);
        let in_force = in_force.as_ref().map(|manifest| &manifest.manifest);
        self.listeners.keep_only(&self.keeper, &name, in_force).await;
        let (answer, is_this) = answer?;
        if by.is_some() && is_this {
            self.keep(&name, text)?;
            self.remember(&name, Some(text))?;
        }
        answer
    }

    /// What every service has been promised stays there for it: nobody is taken in who could only live on what is another's.
    fn admit(&self, manifest: &LoadedManifest) -> Result<(), SupervisorError> {
        let needed = self.registry.descriptors_with(manifest);
        if needed > SOCKETS_STORED_MAX {
            tracing::warn!(service = manifest.name(), needed, "the keeper has no room for its sockets");
            return Err(SupervisorError::Busy {
                what: "sockets of all services together",
                limit: SOCKETS_STORED_MAX,
            });
        }
        Ok(())
    }

    /// The answer, and whether this manifest is the one that the service has from now on.
    async fn register(
        &self,
        by: Option<IdentityId>,
        manifest: &Arc<LoadedManifest>,
    ) -> Result<(Answer, bool), SupervisorError> {
        let name = manifest.name().to_owned();
        let manifest = Arc::clone(manifest);
        let (identity, capabilities) = self.rights(&manifest, by.is_some()).await?;
        let left = self.open_sockets(&manifest).await?;
        let hash = manifest.hash;
        let setup = Box::new(ServiceSetup { manifest, identity, capabilities });
        let answer = self.inbox.call(by, move |request| Event::RegisterRequested { request, setup }).await;
        // Whatever the answer: one that fails to start is registered all the same and started again at the next boot;
        // one that was refused, or that was taken back because it failed, is not.
        let service = name.clone();
        let registered = self.inbox.view(move |machine| machine.manifest_to_be(&service)).await?;
        let is_this = registered.as_ref().is_some_and(|manifest| manifest.hash == hash);
        self.close_sockets(&name, registered, left).await;
        Ok((answer, is_this))
    }

    fn read(&self, file: &str, text: &str) -> Result<LoadedManifest, SupervisorError> {
        let refuse = |text: String| SupervisorError::InvalidManifest(text);
        let mut manifest = parse(file, text)
            .and_then(|manifest| check_places(&manifest, self.read_place).map(|()| manifest))
            .map_err(|errors| {
                refuse(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            })?;
        if manifest.manifest.service.service_type != ServiceType::User || manifest.manifest.program.is_none()
        {
            return Err(refuse("only services of type User with a [program] can be applied".to_owned()));
        }
        let calendar = manifest.manifest.timer.iter().flat_map(|timer| &timer.calendar);
        if calendar.into_iter().any(|calendar| !calendar.is_utc()) && timers::local_zone().is_none() {
            let text =
                "the time zone of this host cannot be read (/etc/localtime); end the calendar times with UTC";
            return Err(refuse(text.to_owned()));
        }
        manifest.manifest = manifest.manifest.with_running_image(self.house.image.hash);
        Ok(manifest)
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

    /// The change is a generation, to which one can go back.
    fn remember(&self, name: &str, text: Option<&str>) -> Result<(), SupervisorError> {
        self.history.add(name, text).map_err(|error| {
            SupervisorError::Unavailable(format!(
                "{name} is as asked, but the change is in no generation: {error}"
            ))
        })
    }

    /// What a manifest would change: the text that it replaces, and which services would start anew.
    pub(super) async fn plan(&self, file: &str, text: &str) -> Result<Planned, SupervisorError> {
        self.read(file, text)?;
        let text = self.would_be_pinned(text).await?;
        let manifest = Arc::new(self.read(file, &text)?);
        let name = manifest.name().to_owned();
        // Who it is does not matter to what it does to others.
        let identity = self.knowledge.own;
        let setup = ServiceSetup { manifest, identity, capabilities: Vec::new() };
        let (before, restarts) = self
            .inbox
            .view(move |machine| {
                let before = machine.manifest_to_be(setup.name()).map(|manifest| manifest.text.clone());
                machine.consequences(&setup).map(|restarts| (before, restarts))
            })
            .await??;
        Ok(Planned { name, text, before, restarts })
    }

    /// After a service was unregistered.
    pub(super) async fn forget(&self, name: &str) {
        if let Err(error) = self.remember(name, None) {
            tracing::error!(%error, "a service was removed");
        }
        let file = self.folder().join(format!("{name}.toml"));
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %file.display(), "a manifest stays and will be taken in again at the next boot");
        }
        self.close_sockets(name, None, Vec::new()).await;
        self.listeners.keep_only(&self.keeper, name, None).await;
        if let Err(error) = self.keeper.forget(&way_out::stored_name(name)).await {
            tracing::debug!(%error, name, "it had no way out");
        }
    }

    /// The services of the user that the folder names, several at a time; a bad one does not stop the others. Those that
    /// name another service of the user come after all that do not, one after the other.
    pub(super) async fn apply_folder(self) {
        // A log that is read from its beginning (the first start of a new build) takes longer than any apply waits.
        let feed = self.knowledge.feed();
        tokio::select! {
            () = feed.caught_up() => {}
            _ = feed.stopped() => {
                tracing::error!("{}", self.knowledge.trouble().unwrap_or_default());
                return;
            }
        }
        let (independent, others): (Vec<_>, Vec<_>) =
            read_folder(&self.folder()).into_iter().partition(|(file, text)| is_independent(file, text));
        let mut under_way = JoinSet::new();
        for (file, text) in independent {
            if under_way.len() >= APPLIED_AT_ONCE_MAX {
                under_way.join_next().await;
            }
            under_way.spawn(self.clone().apply_found(file, text));
        }
        while under_way.join_next().await.is_some() {}
        for (file, text) in others {
            self.clone().apply_found(file, text).await;
        }
    }

    async fn apply_found(self, file: String, text: String) {
        if let Err(error) = self.apply(None, &file, &text).await {
            tracing::error!(%error, file, "a service of the user was not started");
        }
    }
}

/// Needs nothing but the node's own services, which run already. One that cannot be read needs nothing either.
fn is_independent(file: &str, text: &str) -> bool {
    let dependencies = parse(file, text).map_or_else(|_| Vec::new(), |loaded| loaded.manifest.dependencies);
    dependencies.iter().all(|dependency| catalogue::find(&dependency.name).is_some())
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
