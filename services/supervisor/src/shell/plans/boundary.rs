//! The key boundary: a companion of `keys` that sees nothing and is handed what it needs.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use sandbox::{Plan, seccomp::Profile};
use seal::{SEALED_BYTES, SecretKind};

use super::{House, Order, PlanFault, open, slots::Slots};
use crate::{
    sealing::{self, SEALED_SEED_FILE, Secrets, UNLOCK_SOCKET},
    shell::sockets,
};

/// One operator types one secret.
const UNLOCKS_WAITING: i32 = 4;

impl House {
    /// The key boundary: no mount, no socket but one, nothing that it could open; what it needs is passed to it. Blocks
    /// while a TPM works.
    pub(in crate::shell) fn boundary(&self, end: OwnedFd) -> Result<Order, PlanFault> {
        let folder = self.layout.service_state(sealing::FOLDER);
        let mut slots = Slots::default();
        let mut tokens = vec![format!("boundary={}", slots.passed(end))];
        let seed = folder.join(SEALED_SEED_FILE);
        tokens.push(format!("sealed={}", slots.passed(open(&seed)?)));
        let secrets = Secrets::of(&self.layout);
        // What cannot be told is left to the boundary, which says what is wrong with the file.
        let kind = sealed_by(&seed).unwrap_or_else(|| secrets.preferred());
        match secrets.descriptor(kind) {
            Ok(secret) => tokens.push(format!("secret:{}={}", kind.name(), slots.passed(secret))),
            // Without it the seed stays sealed, and the boundary says so.
            Err(fault) => tracing::warn!(error = &fault as &dyn std::error::Error, "the seed stays sealed"),
        }
        tokens.push(format!("unlock={}", slots.passed(self.unlock_socket()?)));
        let (executable, descriptors, stored, fds) =
            slots.finish(self.image_fd()?, self.open_log("keys_boundary")?);
        let mut plan = Plan::new("keys_boundary", executable, Profile::Boundary);
        plan.arguments = ["bailiwick", "process", "boundary"].map(str::to_owned).to_vec();
        plan.environment = vec![("BAILIWICK_FDS".to_owned(), tokens.join(","))];
        plan.environment.extend(self.broken());
        plan.identity = self.identity_of("keys_boundary");
        plan.descriptors = descriptors;
        Ok(Order { plan, stored, fds })
    }
}

impl House {
    /// Where the operator alone can connect, and the boundary alone listens: what opens the seal passes nobody else.
    /// Bound anew for each boundary; one that runs keeps its own when the supervisor is started again.
    fn unlock_socket(&self) -> Result<OwnedFd, PlanFault> {
        let path = self.layout.socket("admin", UNLOCK_SOCKET);
        let failed = |source: std::io::Error| PlanFault::File { path: path.clone(), source };
        path.parent().map_or(Ok(()), sockets::make_folder).map_err(failed)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let socket = socket.map_err(|errno| failed(errno.into()))?;
        let address = SocketAddrUnix::new(&path).map_err(|errno| failed(errno.into()))?;
        bind(&socket, &address).map_err(|errno| failed(errno.into()))?;
        listen(&socket, UNLOCKS_WAITING).map_err(|errno| failed(errno.into()))?;
        Ok(socket)
    }
}

fn sealed_by(seed: &Path) -> Option<SecretKind> {
    let mut sealed = [0; SEALED_BYTES];
    File::open(seed).and_then(|mut file| file.read_exact(&mut sealed)).ok()?;
    seal::sealed_by(&sealed).ok()
}

/// A connected pair of packets: one end for `keys`, one for its boundary.
pub(in crate::shell) fn boundary_pair() -> Result<(OwnedFd, OwnedFd), PlanFault> {
    let (one, other) = sandbox::fdpass::Channel::pair().map_err(PlanFault::Pair)?;
    let clone = |fd: &sandbox::fdpass::Channel| fd.as_fd().try_clone_to_owned().map_err(PlanFault::Duplicate);
    Ok((clone(&one)?, clone(&other)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealing::SEAL_KEY_FILE;
    use crate::shell::plans::tests::{house, variable};

    #[test]
    fn the_boundary_gets_descriptors_and_no_place() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path(), false);
        let folder = house.layout.service_state("keys");
        std::fs::create_dir_all(&folder).unwrap();
        let (end, _other) = boundary_pair().unwrap();
        assert!(house.boundary(end).is_err(), "no sealed seed");
        std::fs::write(folder.join(SEALED_SEED_FILE), "s").unwrap();
        std::fs::write(folder.join(SEAL_KEY_FILE), "k").unwrap();
        let (end, _other) = boundary_pair().unwrap();
        let order = house.boundary(end).unwrap();
        order.plan.validate(order.fds.len()).unwrap();
        assert_eq!(variable(&order.plan, "BAILIWICK_FDS"), "boundary=3,sealed=4,secret:key_file=5,unlock=6");
        assert!(order.plan.mounts.is_empty());
        assert_eq!(order.plan.namespaces, sandbox::Namespaces::ALL);
    }
}
