//! Manifests and the sockets that follow from them, shared by whoever launches and whoever answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base::layout::Layout;

use super::{
    keeper_client::Keeper,
    plans::House,
    sockets::{self, Socket, SocketError},
};
use crate::manifest::LoadedManifest;

#[derive(Debug, Default)]
struct State {
    manifests: BTreeMap<String, Arc<LoadedManifest>>,
    sockets: Vec<Socket>,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    layout: Layout,
    state: Arc<Mutex<State>>,
}

impl Registry {
    #[must_use]
    pub(super) fn new(layout: &Layout, manifests: impl IntoIterator<Item = Arc<LoadedManifest>>) -> Self {
        let registry = Self { layout: layout.clone(), state: Arc::default() };
        let manifests = manifests.into_iter().map(|manifest| (manifest.name().to_owned(), manifest));
        registry.replace(manifests.collect());
        registry
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, manifests: BTreeMap<String, Arc<LoadedManifest>>) {
        let sockets = sockets::of_node(&self.layout, manifests.values().map(|loaded| &loaded.manifest));
        *self.lock() = State { manifests, sockets };
    }

    pub(super) fn add(&self, manifest: Arc<LoadedManifest>) {
        let mut manifests = self.lock().manifests.clone();
        manifests.insert(manifest.name().to_owned(), manifest);
        self.replace(manifests);
    }

    /// The sockets that go with it, so that the keeper can let go of them.
    pub(super) fn remove(&self, name: &str) -> Vec<Socket> {
        let mut manifests = self.lock().manifests.clone();
        manifests.remove(name);
        let before = self.sockets();
        self.replace(manifests);
        let after = self.sockets();
        before.into_iter().filter(|socket| !after.contains(socket)).collect()
    }

    #[must_use]
    pub(super) fn sockets(&self) -> Vec<Socket> {
        self.lock().sockets.clone()
    }

    #[must_use]
    pub(super) fn manifests(&self) -> Vec<Arc<LoadedManifest>> {
        self.lock().manifests.values().map(Arc::clone).collect()
    }

    #[must_use]
    pub(super) fn manifest(&self, name: &str) -> Option<Arc<LoadedManifest>> {
        self.lock().manifests.get(name).map(Arc::clone)
    }

    /// The socket between a client and a server, if the client's manifest names it.
    #[must_use]
    pub(super) fn edge(&self, server: &str, client: &str) -> Option<Socket> {
        let state = self.lock();
        let edge = |socket: &&Socket| {
            socket.purpose == sockets::Purpose::Kit(kit::ChannelKind::Edge)
                && socket.server == server
                && socket.client.as_deref() == Some(client)
        };
        state.sockets.iter().find(edge).cloned()
    }

    /// Sees that the keeper holds every socket of which this says so; hands out the descriptors.
    pub(super) async fn ensure(
        &self,
        keeper: &Keeper,
        house: &House,
        which: impl Fn(&Socket) -> bool,
    ) -> Result<Vec<(Socket, std::os::fd::OwnedFd)>, SocketError> {
        let mut held = Vec::new();
        for socket in self.sockets().into_iter().filter(which) {
            let client = socket.client.as_deref().filter(|client| *client != sockets::SUPERVISOR);
            let owner = client.and_then(|client| house.uid_of(client));
            let fd = sockets::ensure(keeper, &socket, owner).await?;
            held.push((socket, fd));
        }
        Ok(held)
    }
}
