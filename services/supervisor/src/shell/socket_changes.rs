//! What changes among the node's sockets when a manifest comes or goes, while everything runs.
//!
//! A socket is held by the keeper before any launch can name it, and no launch names it any more when it is let go:
//! the registry is changed between the two. Nothing here waits between a look at the registry and what follows from it,
//! and the supervisor's tasks share one thread, so that a launch sees the sockets before or after, never half of them.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    apply::Applier,
    clients,
    inputs::Input,
    sockets::{self, CLIENTS_MAX, Purpose, Socket},
};
use crate::{core::supervisor::SupervisorError, manifest::LoadedManifest};

impl Applier {
    /// Opens what a manifest needs, and tells the services that it calls. The sockets that the manifest before it needed
    /// and this one does not come back: they stay open as long as that one runs.
    pub(super) async fn open_sockets(
        &self,
        manifest: &Arc<LoadedManifest>,
    ) -> Result<Vec<Socket>, SupervisorError> {
        let _alone = self.changing.lock().await;
        let name = manifest.name();
        let wanted = self.registry.sockets_with(name, Some(manifest));
        if let Some(server) = sockets::crowded(&wanted) {
            tracing::warn!(server, service = name, "has as many clients as it can have");
            return Err(SupervisorError::Busy { what: "clients of one service", limit: CLIENTS_MAX });
        }
        let before = self.registry.sockets();
        let left = before.iter().filter(|socket| !wanted.contains(socket)).cloned().collect();
        let new: Vec<Socket> = wanted.into_iter().filter(|socket| !before.contains(socket)).collect();
        for socket in &new {
            let held = sockets::ensure(&self.keeper, &self.house, socket).await;
            let held = held.map_err(|error| SupervisorError::Unavailable(error.to_string()))?;
            if let (Purpose::Notify, Some(service)) = (&socket.purpose, socket.client.clone()) {
                self.tell_loop(Input::Listen { service, socket: held });
            }
        }
        self.registry.set(name, Some(Arc::clone(manifest)));
        self.tell_servers(&new, |socket| new.contains(socket)).await;
        Ok(left)
    }

    /// Makes the manifest that a service has the registered one, and lets go of the sockets that nobody needs any more;
    /// `left` are those that were left open for the manifest before.
    pub(super) async fn close_sockets(
        &self,
        name: &str,
        manifest: Option<Arc<LoadedManifest>>,
        left: Vec<Socket>,
    ) {
        let _alone = self.changing.lock().await;
        let before = self.registry.sockets();
        self.registry.set(name, manifest);
        let after = self.registry.sockets();
        let (stay, mut gone): (Vec<Socket>, _) = left.into_iter().partition(|socket| after.contains(socket));
        gone.extend(before.into_iter().filter(|socket| !after.contains(socket)));
        for socket in &gone {
            if let Err(error) = self.keeper.forget(&socket.stored_name()).await {
                tracing::warn!(%error, socket = socket.stored_name(), "the keeper holds on to a socket");
            }
            let _ = std::fs::remove_file(&socket.path);
            if let (Purpose::Notify, Some(service)) = (&socket.purpose, socket.client.clone()) {
                self.tell_loop(Input::StopListening { service });
            }
        }
        // Those that stay after all may have been closed by whoever was told of something else meanwhile.
        let changed: Vec<Socket> = gone.into_iter().chain(stay.iter().cloned()).collect();
        self.tell_servers(&changed, |socket| stay.contains(socket)).await;
    }

    async fn tell_servers(&self, changed: &[Socket], is_new: impl Fn(&Socket) -> bool) {
        let all = self.registry.sockets();
        let edges = changed.iter().filter(|socket| socket.of_changing_client());
        let servers: BTreeSet<&str> = edges.map(|socket| socket.server.as_str()).collect();
        for server in servers {
            clients::tell(&self.keeper, &all, server, &is_new).await;
        }
    }
}
