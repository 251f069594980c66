//! From the machine's order to a process of the keeper's: services, and the key boundary beside `keys`.
//!
//! Numbers that the keeper knows children by: a service has its launch number; what belongs to a service has the
//! same number with the highest bit.

use std::{os::fd::OwnedFd, sync::Arc};

use base::{Hash, IdentityId};
use chain::payload::service::ServiceError;
use sandbox::process;
use seal::Signer;

use super::{
    clients,
    inputs::Input,
    keeper_client::{Keeper, Started},
    knowledge::read_genesis,
    listeners::HandedOver,
    plans::{self, House, Order},
    preparing::Preparations,
    registry::Registry,
    run::Shell,
    settling::Launching,
    sockets::Socket,
    way_out,
};
use crate::{core::supervisor::LaunchId, manifest::LoadedManifest, signing};

/// Dropped at the other end when the launch is over.
type Ends = tokio::sync::oneshot::Receiver<()>;

const COMPANION: u64 = 1 << 63;
/// The service whose keys are held by a process of its own.
pub(super) const KEYS: &str = "keys";

/// Whose child a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Service(LaunchId),
    /// Lives and dies with this launch.
    Companion(LaunchId),
}

#[must_use]
pub(super) const fn kind(id: u64) -> Kind {
    if id & COMPANION != 0 { Kind::Companion(LaunchId(id & !COMPANION)) } else { Kind::Service(LaunchId(id)) }
}

#[must_use]
pub(super) const fn companion(launch: LaunchId) -> u64 {
    launch.0 | COMPANION
}

pub(super) type Fault = (ServiceError, String);

impl Shell {
    pub(super) fn launch(
        &mut self,
        launch: LaunchId,
        service: String,
        manifest: Arc<LoadedManifest>,
        identity: Option<IdentityId>,
        binary: Hash,
    ) {
        self.launches.insert(launch, service.clone());
        self.launching.insert(launch, Launching::new(Arc::clone(&manifest)));
        if let Some(current) = self.current.get(&service) {
            current.send_replace(Some(launch));
        }
        if let Err(error) = self.applier.listeners.give_back(&manifest.manifest) {
            tracing::warn!(service, %error, "a socket that is published no more still waits for nobody");
        }
        let ends = manifest.manifest.has_way().then(|| self.ways_out.begin(launch)).flatten();
        let way_out = ends.map(|ends| {
            let keeper = self.applier.keeper.clone();
            let house = Arc::clone(&self.applier.house);
            (way_out::Begin { keeper, house, path: self.network_socket(), identity }, ends)
        });
        let task = Task {
            house: Arc::clone(&self.applier.house),
            keeper: self.applier.keeper.clone(),
            registry: self.applier.registry.clone(),
            progress: Arc::clone(&self.progress),
            preparations: self.preparations.clone(),
            handed_over: self.handed_over(&manifest.manifest),
            manifest,
            identity,
        };
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let result = task.launch(launch, binary, way_out).await;
            let _ = inputs.send(Input::Launched { launch, result });
        });
    }

    /// What belongs to a service that has ended ends too.
    pub(super) fn end_companion(&mut self, launch: LaunchId) {
        if self.launches.get(&launch).is_some_and(|name| name == KEYS) {
            kill(&self.applier.keeper, companion(launch));
        }
    }

    /// Without its boundary `keys` can do nothing: both start again together.
    pub(super) fn companion_exited(&mut self, id: u64, launch: LaunchId) {
        self.acknowledge(id);
        if self.launches.contains_key(&launch) {
            tracing::warn!(%launch, "the key boundary has ended; keys is started again with a new one");
            kill(&self.applier.keeper, launch.0);
        }
    }
}

pub(super) fn kill(keeper: &Keeper, id: u64) {
    let sent = keeper.signal(id, process::Signal::KILL.as_raw());
    tokio::spawn(async move {
        // It has ended already, or ends now.
        let _ = sent.await;
    });
}

/// Everything that one launch needs.
struct Task {
    house: Arc<House>,
    keeper: Keeper,
    registry: Registry,
    preparations: Preparations,
    progress: Arc<super::contract::NodeProgress>,
    manifest: Arc<LoadedManifest>,
    identity: Option<IdentityId>,
    /// To a program.
    handed_over: Vec<HandedOver>,
}

impl Task {
    async fn launch(
        &self,
        launch: LaunchId,
        binary: Hash,
        way_out: Option<(way_out::Begin, Ends)>,
    ) -> Result<Started, Fault> {
        // A program's `binary` is its launcher, which is this image too.
        if binary != self.house.image.hash {
            let text = format!(
                "the running image has the hash {}, the manifest names {binary}",
                self.house.image.hash
            );
            return Err((ServiceError::BinaryMismatch, text));
        }
        if self.manifest.manifest.program.is_some() {
            let mut order = self.program().await?;
            if let Some((begin, ends)) = way_out {
                return self.start_with_way_out(launch, order, &begin, ends).await;
            }
            if order.plan.watched.is_some() {
                // Nothing is said to one that has no way out.
                let (_, theirs) = way_out::pair().map_err(failed)?;
                plans::give_control(&mut order, theirs);
            }
            return self.start(launch.0, order).await;
        }
        let handed = match (self.manifest.name(), signing::signer_of(self.manifest.name())) {
            (KEYS, _) => Some(("boundary", self.start_boundary(launch).await?)),
            (_, Some(signer)) => Some(("signing", self.signing_key(signer).await?)),
            _ => None,
        };
        let name = self.manifest.name();
        let (ours, theirs) = clients::pair().map_err(failed)?;
        // Asked for in this order and without a pause: a client that comes after this look at the sockets is told of on
        // the new channel.
        let kept = self.keeper.store(&clients::stored_name(name), ours);
        let order = self.house.service(&self.manifest.manifest, &self.sockets(), theirs, handed);
        let started = self.start(launch.0, order.map_err(failed)?);
        kept.await.map_err(failed)?;
        started.await
    }

    /// The channel to `network` waits for the init, so that the program's first call finds it.
    async fn start_with_way_out(
        &self,
        launch: LaunchId,
        mut order: Order,
        begin: &way_out::Begin,
        ends: Ends,
    ) -> Result<Started, Fault> {
        let (ours, theirs) = way_out::pair().map_err(failed)?;
        plans::give_control(&mut order, theirs);
        let way_out = begin.of(launch, &self.manifest, ours.try_clone().map_err(failed)?)?;
        let held = way_out.first().await?;
        self.keeper.store(&way_out::stored_name(self.manifest.name()), ours).await.map_err(failed)?;
        let started = self.start(launch.0, order).await?;
        way_out::keep(way_out, held, ends);
        Ok(started)
    }

    /// Those that go with the manifest that is launched: another one may be about to take its place.
    fn sockets(&self) -> Vec<Socket> {
        self.registry.sockets_with(self.manifest.name(), Some(&self.manifest))
    }

    /// Opening and hashing an image may take a while.
    async fn program(&self) -> Result<Order, Fault> {
        let (house, manifest) = (Arc::clone(&self.house), Arc::clone(&self.manifest));
        let (sockets, handed_over) = (self.sockets(), self.handed_over.clone());
        let asks =
            manifest.manifest.program.as_ref().map_or("its image", |program| &program.image).to_owned();
        let work = move || house.program(&manifest.manifest, &sockets, &handed_over);
        let made = self.preparations.run(self.manifest.name(), &asks, work).await;
        let mut order = made.map_err(failed)?.map_err(|error| match error {
            plans::ProgramFault::Mismatch { .. } => (ServiceError::BinaryMismatch, error.to_string()),
            error => failed(error),
        })?;
        plans::identify(&mut order.plan.environment, &self.manifest.manifest, self.identity);
        Ok(order)
    }

    /// Opening a seal may stretch a credential, which takes a while. The secret is read anew at each start.
    async fn signing_key(&self, signer: Signer) -> Result<OwnedFd, Fault> {
        let layout = self.house.layout.clone();
        let handed = tokio::task::spawn_blocking(move || {
            let genesis = read_genesis(&layout.genesis()).map_err(failed)?;
            signing::hand_over(&layout, &genesis, signer).map_err(failed)
        });
        handed.await.map_err(failed)?
    }

    /// The other end of its socket.
    async fn start_boundary(&self, launch: LaunchId) -> Result<OwnedFd, Fault> {
        let (ours, theirs) = plans::boundary_pair().map_err(failed)?;
        let house = Arc::clone(&self.house);
        let made = tokio::task::spawn_blocking(move || house.boundary(theirs)).await;
        let order = made.map_err(failed)?.map_err(failed)?;
        let started = self.start(companion(launch), order).await?;
        let mut companions =
            self.progress.companions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        companions.insert(KEYS.to_owned(), started.pid);
        Ok(ours)
    }

    /// The keeper is asked before this returns, not when the answer is awaited.
    fn start(&self, id: u64, order: Order) -> impl Future<Output = Result<Started, Fault>> + use<> {
        let Order { plan, stored, fds } = order;
        let launched = self.keeper.launch(id, &plan, stored, fds);
        async move { launched.await.map_err(|text| (ServiceError::LaunchFailed, text)) }
    }
}

fn failed(error: impl std::fmt::Display) -> Fault {
    (ServiceError::LaunchFailed, error.to_string())
}

/// A child that was there before this supervisor: who it belongs to.
pub(super) async fn end_stray(keeper: &Keeper, id: u64, is_running: bool) {
    let done = match is_running {
        true => keeper.signal(id, process::Signal::KILL.as_raw()).await,
        false => keeper.acknowledge(id).await,
    };
    if let Err(error) = done {
        tracing::debug!(%error, id, "a stray child");
    }
}

/// Where sd_notify datagrams go.
pub(super) fn listen(shell: &mut Shell, service: &str, fd: OwnedFd) {
    // One that ran before this supervisor goes on saying that it lives.
    let running = shell.launches.iter().rfind(|(_, name)| *name == service).map(|(launch, _)| *launch);
    let (current, watcher) = tokio::sync::watch::channel(running);
    if let Err(error) = super::notify::listen(service, fd, watcher, shell.inputs.clone()) {
        tracing::error!(%error, service, "cannot listen to what the service says");
    }
    shell.current.insert(service.to_owned(), current);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_services_and_companions_apart() {
        let launch = LaunchId(5);
        assert_eq!(kind(5), Kind::Service(launch));
        assert_eq!(kind(companion(launch)), Kind::Companion(launch));
    }
}
