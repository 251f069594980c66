//! The key boundary: a companion of `keys` that sees nothing and is handed what it needs.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use sandbox::{Plan, seccomp::Profile};

use super::{House, Order, PlanFault, open, slots::Slots};

/// Sealed seed and the local key that opens it: for the boundary alone, so hidden from the service that owns the
/// folder.
const SEALED_SEED: &str = "seed.sealed";
const SEAL_KEY: &str = "seal.key";
pub(super) const FILES: [&str; 2] = [SEAL_KEY, SEALED_SEED];
/// Name of the credential that opens the seal, in `$CREDENTIALS_DIRECTORY`.
const SEAL_CREDENTIAL: &str = "bailiwick.seal";

impl House {
    /// The key boundary: no mount, no socket but one, nothing that it could open; what it needs is passed to it.
    pub(in crate::shell) fn boundary(&self, end: OwnedFd) -> Result<Order, PlanFault> {
        let folder = self.layout.service_state("keys");
        let mut slots = Slots::default();
        let mut tokens = vec![format!("boundary={}", slots.passed(end))];
        tokens.push(format!("sealed={}", slots.passed(open(&folder.join(SEALED_SEED))?)));
        if let Some((kind, file)) = seal_secret(&folder) {
            tokens.push(format!("secret:{kind}={}", slots.passed(open(&file)?)));
        }
        let (executable, descriptors, stored, fds) =
            slots.finish(self.image_fd()?, self.open_log("keys_boundary")?);
        let mut plan = Plan::new("keys_boundary", executable, Profile::Boundary);
        plan.arguments = ["bailiwick", "process", "boundary"].map(str::to_owned).to_vec();
        plan.environment = vec![("BAILIWICK_FDS".to_owned(), tokens.join(","))];
        plan.identity = self.identity_of("keys_boundary");
        plan.descriptors = descriptors;
        Ok(Order { plan, stored, fds })
    }
}

/// A credential of the service manager, else the node's own key file, else nothing: then the seed stays sealed.
fn seal_secret(folder: &Path) -> Option<(&'static str, PathBuf)> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let credential = credentials.map(|folder| folder.join(SEAL_CREDENTIAL)).filter(|file| file.is_file());
    let key_file = folder.join(SEAL_KEY);
    match credential {
        Some(file) => Some(("credential", file)),
        None => key_file.is_file().then_some(("key_file", key_file)),
    }
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
    use crate::shell::plans::tests::{house, variable};

    #[test]
    fn the_boundary_gets_descriptors_and_no_place() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path(), false);
        let folder = house.layout.service_state("keys");
        std::fs::create_dir_all(&folder).unwrap();
        let (end, _other) = boundary_pair().unwrap();
        assert!(house.boundary(end).is_err(), "no sealed seed");
        std::fs::write(folder.join(SEALED_SEED), "s").unwrap();
        std::fs::write(folder.join(SEAL_KEY), "k").unwrap();
        let (end, _other) = boundary_pair().unwrap();
        let order = house.boundary(end).unwrap();
        order.plan.validate(order.fds.len()).unwrap();
        assert_eq!(variable(&order.plan, "BAILIWICK_FDS"), "boundary=3,sealed=4,secret:key_file=5");
        assert!(order.plan.mounts.is_empty());
        assert_eq!(order.plan.namespaces, sandbox::Namespaces::ALL);
    }
}
