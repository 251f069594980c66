//! Whoever started this node as a service of theirs (systemd, or another node): told when it is up and when it ends.
//!
//! The form is sd_notify's. systemd takes it from the node's supervisor with `NotifyAccess=all` alone, since the main
//! process is the keeper, which says nothing.

use std::os::{
    linux::net::SocketAddrExt,
    unix::net::{SocketAddr, UnixDatagram},
};

const VARIABLE: &str = "NOTIFY_SOCKET";

/// Silent where nobody asked to be told.
#[derive(Debug, Default)]
pub(super) struct HostManager {
    address: Option<SocketAddr>,
    told_of_end: bool,
}

impl HostManager {
    pub(super) fn find() -> Self {
        let named = std::env::var(VARIABLE).ok();
        let address = named.as_deref().and_then(|name| {
            address(name)
                .inspect_err(|error| tracing::warn!(name, %error, "{VARIABLE} is no address; nobody is told"))
                .ok()
        });
        Self { address, told_of_end: false }
    }

    /// Said again by each supervisor: it means the same.
    pub(super) fn ready(&self, missing: &[String]) {
        let status = match missing {
            [] => "all services run".to_owned(),
            some => format!("up without {}", some.join(", ")),
        };
        self.say(&format!("READY=1\nSTATUS={status}\n"));
    }

    pub(super) fn ends(&mut self) {
        if !std::mem::replace(&mut self.told_of_end, true) {
            self.say("STOPPING=1\nSTATUS=stopping services in order\n");
        }
    }

    fn say(&self, text: &str) {
        let Some(address) = &self.address else { return };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to_addr(text.as_bytes(), address)
        });
        if let Err(error) = sent {
            tracing::warn!(%error, "who started this node cannot be told of it");
        }
    }
}

/// A path, or with `@` before it a name in the abstract name space.
fn address(name: &str) -> std::io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_is_told_once_of_the_end_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let host = UnixDatagram::bind(&path).unwrap();
        let abstract_name = format!("@bailiwick-test-{}", std::process::id());
        let hidden = UnixDatagram::bind_addr(&address(&abstract_name).unwrap()).unwrap();
        for (name, socket) in [(path.to_str().unwrap(), &host), (abstract_name.as_str(), &hidden)] {
            let mut manager = HostManager { address: address(name).ok(), told_of_end: false };
            let heard = || {
                let mut buffer = [0; 128];
                let length = socket.recv(&mut buffer).unwrap();
                String::from_utf8_lossy(&buffer[..length]).into_owned()
            };
            manager.ready(&["network".to_owned()]);
            assert_eq!(heard(), "READY=1\nSTATUS=up without network\n");
            manager.ends();
            manager.ends();
            assert!(heard().starts_with("STOPPING=1\n"));
            socket.set_nonblocking(true).unwrap();
            assert!(socket.recv(&mut [0; 1]).is_err(), "said twice");
        }
        HostManager::default().ready(&[]);
    }
}
