//! The sockets of `[[sockets]]`: bound on the host's network when a manifest is taken in, held by the keeper until the
//! service is removed, and named in each launch. Nothing is accepted here.
//!
//! A socket is known by its service and its address, so a changed manifest that keeps an address keeps the socket, with
//! whoever waits in its queue. `bind` makes one, `demand` waits for somebody to come.

mod bind;
mod demand;

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base::Hash;
use rustix::io::Errno;

use super::{keeper_client::Keeper, plans::House};
use crate::{
    core::supervisor::SupervisorError,
    manifest::{ListenAddress, ServiceManifest, SocketConfig},
};

pub(super) use demand::watch;

/// Sockets of one service, by address.
type Held = BTreeMap<ListenAddress, Listener>;

#[derive(Clone, Debug)]
struct Listener {
    fd: Arc<OwnedFd>,
    /// An init has accepted there, or may have: then it waits for nobody (`O_NONBLOCK`), for all who have it.
    was_published: bool,
}

/// What is held. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners {
    held: Arc<Mutex<BTreeMap<String, Held>>>,
}

/// A descriptor of the keeper's that a program is handed, and how the program knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HandedOver {
    pub(super) stored: String,
    pub(super) name: String,
}

/// Under which the keeper holds a socket. An address may be longer than a name.
#[must_use]
pub(super) fn stored_name(service: &str, address: &ListenAddress) -> String {
    let [a, b, c, d, e, f, g, h, ..] = Hash::of(address.to_string().as_bytes()).0;
    let short = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    format!("listen:{service}:{short:016x}")
}

/// In the order of the manifest, which is the order of their numbers.
#[must_use]
pub(super) fn handed_over(manifest: &ServiceManifest) -> Vec<HandedOver> {
    let service = manifest.service.name.as_str();
    let of = |socket: &SocketConfig| HandedOver {
        stored: stored_name(service, &socket.listen),
        name: socket.name.clone(),
    };
    manifest.sockets.iter().filter(|socket| socket.publish.is_none()).map(of).collect()
}

/// What its init gets, each with the port of the program.
#[must_use]
pub(super) fn published(manifest: &ServiceManifest) -> Vec<(String, u16)> {
    let service = manifest.service.name.as_str();
    let of = |socket: &SocketConfig| Some((stored_name(service, &socket.listen), socket.publish?));
    manifest.sockets.iter().filter_map(of).collect()
}

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, service: &str) -> Held {
        self.lock().get(service).cloned().unwrap_or_default()
    }

    /// Binds what is not held yet. All or nothing: after an error, what is held is what was held before.
    pub(super) async fn open(
        &self,
        keeper: &Keeper,
        house: &House,
        manifest: &ServiceManifest,
    ) -> Result<(), SupervisorError> {
        let service = manifest.service.name.as_str();
        let mut bound: Vec<&ListenAddress> = Vec::new();
        for socket in &manifest.sockets {
            match self.open_one(keeper, house, service, socket).await {
                Ok(true) => bound.push(&socket.listen),
                Ok(false) => {}
                Err(why) => {
                    // What the keeper held already stays: a program may have it.
                    self.keep(keeper, service, |address| !bound.contains(&address)).await;
                    let listen = socket.listen.to_string();
                    return Err(SupervisorError::CannotListen { service: service.to_owned(), listen, why });
                }
            }
        }
        Ok(())
    }

    /// Whether it was bound just now.
    async fn open_one(
        &self,
        keeper: &Keeper,
        house: &House,
        service: &str,
        socket: &SocketConfig,
    ) -> Result<bool, String> {
        let name = stored_name(service, &socket.listen);
        let owner = bind::owner(socket, house.own_uid, house.features.privileged)?;
        let held = self.of(service).remove(&socket.listen);
        let was_published = socket.publish.is_some() || held.as_ref().is_some_and(|held| held.was_published);
        let known = match held {
            Some(held) => Some(held.fd),
            None => keeper.fetch(&name).await.map_err(|error| error.to_string())?.map(Arc::new),
        };
        let is_new = known.is_none();
        let fd = match known {
            Some(known) => {
                bind::adjust(&known, socket, owner)?;
                known
            }
            None => {
                let bound = bind::bind(socket, owner, &house.hidden())?;
                let kept = bound.try_clone().map_err(|error| error.to_string())?;
                if let Err(error) = keeper.store(&name, kept).await {
                    bind::remove_file(&socket.listen);
                    return Err(error.to_string());
                }
                Arc::new(bound)
            }
        };
        let held = Listener { fd, was_published };
        self.lock().entry(service.to_owned()).or_default().insert(socket.listen.clone(), held);
        Ok(is_new)
    }

    /// Before a program is started: what is published no more and is its own now waits as it did when it was bound. Of all others
    /// nothing is changed: what a program has set itself stays from one start to the next.
    pub(super) fn give_back(&self, manifest: &ServiceManifest) -> Result<(), Errno> {
        let mut all = self.lock();
        let Some(held) = all.get_mut(&manifest.service.name) else { return Ok(()) };
        for socket in &manifest.sockets {
            let Some(listener) = held.get_mut(&socket.listen) else { continue };
            if socket.publish.is_none() && listener.was_published {
                rustix::io::ioctl_fionbio(&*listener.fd, false)?;
            }
            listener.was_published = socket.publish.is_some();
        }
        Ok(())
    }

    /// Lets go of every socket of a service that its manifest does not name.
    pub(super) async fn keep_only(&self, keeper: &Keeper, service: &str, manifest: Option<&ServiceManifest>) {
        let named = |address: &ListenAddress| {
            manifest.is_some_and(|manifest| manifest.sockets.iter().any(|s| s.listen == *address))
        };
        self.keep(keeper, service, named).await;
    }

    async fn keep(&self, keeper: &Keeper, service: &str, stays: impl Fn(&ListenAddress) -> bool) {
        let gone: Vec<ListenAddress> =
            self.of(service).into_keys().filter(|address| !stays(address)).collect();
        for address in gone {
            if let Err(error) = keeper.forget(&stored_name(service, &address)).await {
                tracing::warn!(%error, service, %address, "the keeper holds on to a socket");
            }
            if let Some(held) = self.lock().get_mut(service) {
                held.remove(&address);
            }
            bind::remove_file(&address);
        }
        self.lock().retain(|_, held| !held.is_empty());
    }

    /// Of those that start their service.
    pub(super) fn on_demand(&self, manifest: &ServiceManifest) -> Vec<Arc<OwnedFd>> {
        let held = self.of(&manifest.service.name);
        let wanted = manifest.sockets.iter().filter(|socket| socket.on_demand);
        wanted.filter_map(|socket| held.get(&socket.listen)).map(|held| Arc::clone(&held.fd)).collect()
    }

    /// At the end of the node: nothing answers at these paths any more.
    pub(super) fn remove_files(&self) {
        let all = std::mem::take(&mut *self.lock());
        all.values().flat_map(Held::keys).for_each(bind::remove_file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{OFlags, fcntl_getfl};

    fn manifest(port: u16, more: &str) -> ServiceManifest {
        let text = format!(
            "version = 1\n[service]\nname = \"web\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n[program]\n\
             image = \"/bin/true\"\n[[sockets]]\nname = \"s\"\nlisten = \"tcp:127.0.0.1:{port}\"\n{more}"
        );
        crate::manifest::parse("web", &text).unwrap().manifest
    }

    /// A program that was handed it finds it as a program finds one that was just bound; one that has set it itself keeps it.
    #[test]
    fn what_is_published_no_more_waits_again_and_what_a_program_has_set_stays() {
        let fd = Arc::new(OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap()));
        let port = std::net::TcpListener::from(fd.try_clone().unwrap()).local_addr().unwrap().port();
        let (published, handed) = (manifest(port, "publish = 8080\n"), manifest(port, ""));
        let listeners = Listeners::default();
        let held = Listener { fd: Arc::clone(&fd), was_published: true };
        let held = Held::from([(handed.sockets[0].listen.clone(), held)]);
        listeners.lock().insert("web".to_owned(), held);
        let waits = || !fcntl_getfl(&fd).unwrap().contains(OFlags::NONBLOCK);
        // What the init does.
        rustix::io::ioctl_fionbio(&fd, true).unwrap();
        listeners.give_back(&published).unwrap();
        assert!(!waits(), "it is published still");
        listeners.give_back(&handed).unwrap();
        assert!(waits());
        // What its program does.
        rustix::io::ioctl_fionbio(&fd, true).unwrap();
        listeners.give_back(&handed).unwrap();
        assert!(!waits(), "it is the program's own");
        // The manifest of before, which takes the place of one that does not start.
        listeners.give_back(&published).unwrap();
        listeners.give_back(&handed).unwrap();
        assert!(waits());
    }
}
