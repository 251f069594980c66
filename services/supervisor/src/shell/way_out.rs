//! The way out of a service's program: a channel from `network` to the init before it, and another one when `network` has come back.
//!
//! The init is told over a channel of its own, made at each launch; the keeper holds the supervisor's end, so the next supervisor
//! goes on. Nobody waits for `network`: a program that starts before it, or outlives it, is answered `ENETDOWN`.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use base::IdentityId;
use contracts::{network::v1 as wire, way_out::ToInit};
use kit::way_out::{self, Asked, Credential};
use sandbox::fdpass::{Channel, PassError};
use tokio::{net::UnixStream, sync::oneshot};

use super::{
    clients,
    keeper_client::Keeper,
    launches::{self, Fault},
    plans::{CredentialFault, House},
    run::Shell,
    sockets::SUPERVISOR,
};
use crate::{
    core::supervisor::{LaunchId, Supervisor},
    manifest::LoadedManifest,
};
use chain::payload::service::ServiceError;

/// Who gives it.
const NETWORK: &str = "network";
/// Before a start goes on without it: a service is not held up by another that hangs. On a machine that is busy an answer takes its time, and
/// what runs before the program would find no way out.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// The same where `network` is there and does not give it: nothing changes that by itself.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// An init takes what it is told within milliseconds; one that has stood still for so long is tried again with the next.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// Under which the keeper holds the supervisor's end.
#[must_use]
pub(super) fn stored_name(service: &str) -> String {
    format!("way_out:{service}")
}

/// Of one launch.
pub(super) struct WayOut {
    keeper: Keeper,
    /// Where `network` listens for the supervisor.
    path: PathBuf,
    launch: LaunchId,
    hello: wire::ProgramHello,
    /// Reads its secrets, each time that they are asked for: here none stays.
    house: Arc<House>,
    manifest: Arc<LoadedManifest>,
    control: Channel,
}

impl WayOut {
    fn new(
        begin: &Begin,
        launch: LaunchId,
        manifest: &Arc<LoadedManifest>,
        identity: IdentityId,
        control: OwnedFd,
    ) -> Option<Self> {
        if !manifest.manifest.has_way() {
            return None;
        }
        let allow = manifest.manifest.egress.as_ref().map(|egress| egress.allow.clone());
        let hello = wire::ProgramHello {
            process: launch.0,
            identity: identity.0.to_vec(),
            egress: allow.unwrap_or_default(),
            service: manifest.name().to_owned(),
            ..Default::default()
        };
        Some(Self {
            keeper: begin.keeper.clone(),
            path: begin.path.clone(),
            launch,
            hello,
            house: Arc::clone(&begin.house),
            manifest: Arc::clone(manifest),
            control: Channel::from(control),
        })
    }

    /// Before the launch: the channel waits for the init. What is refused now would be refused for ever.
    pub(super) async fn first(&self) -> Result<Option<UnixStream>, Fault> {
        let (house, manifest) = (Arc::clone(&self.house), Arc::clone(&self.manifest));
        let read = move || house.credentials(&manifest.manifest).map(|all| (all, Vec::new()));
        match tokio::time::timeout(PATIENCE, self.ask(false, read)).await {
            Ok(Ok(Ok(stream))) => Ok(Some(stream)),
            Ok(Ok(Err(refused))) => {
                let text = format!("[egress] is refused: {refused}");
                Err((ServiceError::LaunchFailed, text))
            }
            Ok(Err(error)) => {
                tracing::warn!(service = self.hello.service, %error, "started without a way out, until network is there");
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }

    /// With what `read` has of its secrets.
    async fn ask(
        &self,
        again: bool,
        read: impl FnOnce() -> Result<(Vec<Credential>, Vec<CredentialFault>), CredentialFault> + Send + 'static,
    ) -> io::Result<Result<UnixStream, String>> {
        let (credentials, faults) = match tokio::task::spawn_blocking(read).await.map_err(io::Error::other)? {
            Ok(read) => read,
            Err(fault) => return Ok(Err(fault.to_string())),
        };
        let hello = wire::ProgramHello { again, ..self.hello.clone() };
        let Asked { stream, channel } = match way_out::ask(&self.path, &hello, &credentials).await? {
            Ok(asked) => asked,
            Err(refused) => return Ok(Err(refused)),
        };
        for fault in faults {
            let service = &self.hello.service;
            tracing::warn!(service, %fault, "a secret of its way out is withheld, until it is started again");
        }
        if let Some(channel) = channel {
            self.tell(&ToInit::Open, &[channel.as_fd()]).await?;
        }
        Ok(Ok(stream))
    }

    /// Of a program that runs, as it may by now be that a secret of its cannot be read.
    async fn ask_again(&self) -> io::Result<Result<UnixStream, String>> {
        let (house, manifest) = (Arc::clone(&self.house), Arc::clone(&self.manifest));
        self.ask(true, move || Ok(house.credentials_again(&manifest.manifest))).await
    }

    async fn tell(&self, word: &ToInit, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = word.encode();
        let told = async {
            loop {
                match self.control.send(&bytes, fds) {
                    Ok(()) => return Ok(()),
                    Err(PassError::Full) => tokio::time::sleep(FULL_PAUSE).await,
                    Err(error) => return Err(io::Error::other(error.to_string())),
                }
            }
        };
        tokio::time::timeout(TELL_TIMEOUT, told)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// For as long as the launch lives, which `ends` tells.
    async fn keep(self, mut held: Option<UnixStream>, mut ends: oneshot::Receiver<()>) {
        let mut refused = String::new();
        loop {
            tokio::select! {
                _ = &mut ends => return,
                () = self.once(held.take(), &mut refused) => {}
            }
        }
    }

    /// Why it was refused is said once.
    async fn once(&self, held: Option<UnixStream>, refused: &mut String) {
        let service = &self.hello.service;
        let stream = match held {
            Some(stream) => Ok(Ok(stream)),
            None => self.ask_again().await,
        };
        match stream {
            Ok(Ok(mut stream)) => {
                refused.clear();
                while let Ok(cut) = way_out::next_cut(&mut stream).await {
                    self.end(cut).await;
                }
            }
            Ok(Err(why)) => {
                if *refused != why {
                    tracing::warn!(service, why, "network gives a program no way out; it is asked again");
                    *refused = why;
                }
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            Err(error) => {
                tracing::debug!(service, %error, "no way out for a program");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// What was cut and is still there. What the program has where nobody finds it ends with it.
    async fn end(&self, cut: wire::ProgramCut) {
        let service = &self.hello.service;
        tracing::warn!(service, sockets = ?cut.sockets, end = cut.end, "connections that were cut are still there");
        if let Err(error) = self.tell(&ToInit::Cut(cut.sockets), &[]).await {
            tracing::warn!(service, %error, "its init is not told to end them");
        }
        if cut.end {
            launches::kill(&self.keeper, self.launch.0);
        }
    }
}

/// For one process: the supervisor's end, then the init's.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    clients::pair()
}

/// What a launch hands to its way out.
pub(super) struct Begin {
    pub(super) keeper: Keeper,
    pub(super) house: Arc<House>,
    pub(super) path: PathBuf,
    pub(super) identity: Option<IdentityId>,
}

impl Begin {
    pub(super) fn of(
        &self,
        launch: LaunchId,
        manifest: &Arc<LoadedManifest>,
        control: OwnedFd,
    ) -> Result<WayOut, Fault> {
        let failed = |text: &str| (ServiceError::LaunchFailed, text.to_owned());
        let identity = self.identity.ok_or_else(|| failed("a way out needs an identity"))?;
        WayOut::new(self, launch, manifest, identity, control)
            .ok_or_else(|| failed("the manifest names no way"))
    }
}

/// Goes on in a task of its own until `ends` is dropped or told.
pub(super) fn keep(way_out: WayOut, held: Option<UnixStream>, ends: oneshot::Receiver<()>) {
    tokio::spawn(way_out.keep(held, ends));
}

/// Those that are kept, one of each launch: dropped here, it ends.
#[derive(Debug, Default)]
pub(super) struct WaysOut(BTreeMap<LaunchId, oneshot::Sender<()>>);

impl WaysOut {
    /// Tells when the way out of this launch ends; none if it has one already, which goes on.
    pub(super) fn begin(&mut self, launch: LaunchId) -> Option<oneshot::Receiver<()>> {
        let Entry::Vacant(free) = self.0.entry(launch) else { return None };
        let (told, ends) = oneshot::channel();
        free.insert(told);
        Some(ends)
    }

    pub(super) fn end(&mut self, launch: LaunchId) {
        self.0.remove(&launch);
    }
}

impl Shell {
    /// Where `network` listens for the supervisor.
    pub(super) fn network_socket(&self) -> PathBuf {
        self.applier.house.layout.edge_socket(NETWORK, SUPERVISOR)
    }

    /// Of the programs that the supervisor before has left.
    pub(super) fn keep_ways_out(&mut self, machine: &Supervisor) {
        for launch in self.launches.keys().copied().collect::<Vec<_>>() {
            let Some(manifest) = machine.manifest_of(launch).filter(|it| it.manifest.has_way()) else {
                continue;
            };
            // What was launched since has its own already.
            let Some(ends) = self.ways_out.begin(launch) else { continue };
            let identity =
                machine.setups().find(|setup| setup.name() == manifest.name()).map(|it| it.identity);
            let (keeper, house) = (self.applier.keeper.clone(), Arc::clone(&self.applier.house));
            let begin = Begin { keeper, house, path: self.network_socket(), identity };
            tokio::spawn(async move {
                let service = manifest.name();
                match begin.keeper.fetch(&stored_name(service)).await {
                    Ok(Some(control)) => match begin.of(launch, &manifest, control) {
                        Ok(way_out) => way_out.keep(None, ends).await,
                        Err((_, error)) => tracing::error!(service, error, "its way out is not kept"),
                    },
                    Ok(None) => {
                        tracing::error!(service, "nobody holds the channel to its init; it has no way out")
                    }
                    Err(error) => tracing::error!(service, %error, "the channel to its init cannot be had"),
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The supervisor that takes over looks at all launches, and one of them may be its own.
    #[test]
    fn a_launch_keeps_the_way_out_that_it_has() {
        let mut ways = WaysOut::default();
        let mut ends = ways.begin(LaunchId(1)).unwrap();
        assert!(ways.begin(LaunchId(1)).is_none(), "two would take each other's channel");
        assert_eq!(ends.try_recv(), Err(oneshot::error::TryRecvError::Empty), "it goes on");
        let mut other = ways.begin(LaunchId(2)).unwrap();
        ways.end(LaunchId(1));
        assert_eq!(ends.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(other.try_recv(), Err(oneshot::error::TryRecvError::Empty), "that of another goes on");
        assert!(ways.begin(LaunchId(1)).is_some(), "of one that has ended there may be another");
    }

    #[test]
    fn the_keeper_knows_it_by_the_service() {
        assert_eq!(stored_name("web"), "way_out:web");
    }
}
