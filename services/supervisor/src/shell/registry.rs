//! Manifests and the sockets that follow from them, shared by whoever launches and whoever answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base::layout::Layout;

use super::sockets::{self, Socket};
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

    /// The node's sockets as they would be with this manifest in the place of the one of its name, or without that one.
    #[must_use]
    pub(super) fn sockets_with(&self, name: &str, manifest: Option<&LoadedManifest>) -> Vec<Socket> {
        let state = self.lock();
        let others = state.manifests.values().filter(|known| known.name() != name);
        let all = others.map(|known| &known.manifest).chain(manifest.map(|manifest| &manifest.manifest));
        sockets::of_node(&self.layout, all)
    }

    /// Puts a manifest in the place of the one of its name, or takes that one away.
    pub(super) fn set(&self, name: &str, manifest: Option<Arc<LoadedManifest>>) {
        let mut manifests = self.lock().manifests.clone();
        match manifest {
            Some(manifest) => manifests.insert(name.to_owned(), manifest),
            None => manifests.remove(name),
        };
        self.replace(manifests);
    }

    #[must_use]
    pub(super) fn sockets(&self) -> Vec<Socket> {
        self.lock().sockets.clone()
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
}
