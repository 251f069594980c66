//! Manifests and the sockets that follow from them, shared by whoever launches and whoever answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base::layout::Layout;

use super::sockets::{self, Socket};
use crate::manifest::{LoadedManifest, ServiceManifest};

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

    /// Descriptors that the keeper would hold for all services with this manifest in the place of the one of its name: their
    /// sockets among each other and on the host, and the channels over which the node's own are told of clients and an init of its
    /// way out.
    #[must_use]
    pub(super) fn descriptors_with(&self, manifest: &LoadedManifest) -> usize {
        let edges = self.sockets_with(manifest.name(), Some(manifest)).len();
        let state = self.lock();
        let others = state.manifests.values().filter(|known| known.name() != manifest.name());
        let of = |known: &ServiceManifest| {
            known.sockets.len() + usize::from(known.program.is_none() || known.has_way())
        };
        edges + others.map(|known| of(&known.manifest)).sum::<usize>() + of(&manifest.manifest)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_keeper_holds_for_all_is_counted_with_the_manifest_that_is_to_come() {
        let parse = |name: &str, more: &str| {
            let text = format!(
                "version = 1\n[service]\nname = \"{name}\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n{more}"
            );
            Arc::new(crate::manifest::parse("test", &text).unwrap())
        };
        let sockets = |count: usize| {
            let one = |n| format!("[[sockets]]\nname = \"s\"\nlisten = \"udp:127.0.0.1:{n}\"\n");
            let all: String = (1..=count).map(one).collect();
            format!("[program]\nimage = \"/x\"\n{all}")
        };
        let layout = Layout::under(std::path::Path::new("/n")).unwrap();
        let registry = Registry::new(&layout, [parse("keys", ""), parse("one", &sockets(3))]);
        let empty = parse("two", &sockets(0));
        let before = registry.descriptors_with(&empty);
        assert_eq!(registry.descriptors_with(&parse("two", &sockets(5))), before + 5);
        // One in the place of another counts once.
        assert_eq!(registry.descriptors_with(&parse("one", &sockets(4))), before + 1);
        let edge = "[[dependencies]]\nname = \"keys\"\nversion = \">=1.0.0\"\nrequired = false\n";
        let caller = parse("two", &(sockets(0) + edge));
        assert_eq!(registry.descriptors_with(&caller), before + 1);
    }
}
