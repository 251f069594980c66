//! What a service is started as: its sandbox, what it sees, what it inherits.
//!
//! Every service gets: the image of this program as `bailiwick process service NAME`, namespaces of its own (user,
//! pid, mount, net, ipc, uts, cgroup), an empty read-only root with `/state` (its own folder), `/tmp`, and the sockets
//! that its manifest names below `/run/bailiwick`; the profile `service`, Landlock, and the limits of its manifest.
//! What single services get beyond that stands in [`extras`], each with its reason.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use base::{Hash, layout::Layout};
use sandbox::{
    Descriptor, Executable, Features, GuardSet, Identity, Limits, Mount, Plan, Resource, Rlimit,
    seccomp::Profile,
};
use thiserror::Error;

use super::{
    ownership::{self, INSIDE_UID, OVERFLOW_UID},
    sockets::{self, Socket},
};
use crate::{
    keeper::PROGRAMS_CHANNEL,
    manifest::{Priority, ServiceManifest},
};

/// A service's log is put aside above this, at its next start; with the one put aside that is 16 MiB a service.
pub(super) const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Sealed seed and the local key that opens it: for the boundary alone, so hidden from the service that owns the
/// folder.
const SEALED_SEED: &str = "seed.sealed";
const SEAL_KEY: &str = "seal.key";
/// Name of the credential that opens the seal, in `$CREDENTIALS_DIRECTORY`.
const SEAL_CREDENTIAL: &str = "bailiwick.seal";
/// Numbers below are standard streams.
const FIRST_TARGET: u32 = 3;

#[derive(Debug, Error)]
pub(super) enum PlanFault {
    #[error("cannot make or open {path:?}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("cannot make the socket between keys and its boundary: {0}")]
    Pair(io::Error),
    #[error("a descriptor cannot be duplicated: {0}")]
    Duplicate(io::Error),
}

/// The running program: opened once, hashed once, so that what was hashed is what runs.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) fd: OwnedFd,
    pub(super) hash: Hash,
}

impl Image {
    pub(super) fn running() -> io::Result<Self> {
        let file = File::open("/proc/self/exe")?;
        let hash = Hash::of_reader(&file)?;
        Ok(Self { fd: file.into(), hash })
    }
}

/// What every plan is made from.
#[derive(Debug)]
pub(super) struct House {
    pub(super) layout: Layout,
    pub(super) features: Features,
    pub(super) image: Image,
    /// Defences that `prove` may switch off; passed on to services.
    pub(super) allow_break: Vec<String>,
    pub(super) own_uid: u32,
}

/// A launch as the keeper takes it.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) plan: Plan,
    /// Names of descriptors that the keeper holds: the first slots.
    pub(super) stored: Vec<String>,
    pub(super) fds: Vec<OwnedFd>,
}

impl House {
    /// Services have host ids of their own only if there is a right to give them.
    #[must_use]
    pub(super) fn uid_of(&self, service: &str) -> Option<u32> {
        self.features.privileged.then(|| ownership::host_uid(service))
    }

    /// The operator as a service sees them on its admin socket.
    ///
    /// Credentials are translated into the reader's user namespace: rootless, the owner's id is the one that is
    /// mapped; as root it is mapped nowhere and shows as the overflow id, like every other unmapped id. The real
    /// check is the folder of the admin sockets, which is the owner's alone (0700).
    fn owner_uid_inside(&self) -> u32 {
        match (self.features.user_namespaces, self.features.privileged) {
            (true, true) => OVERFLOW_UID,
            (true, false) => INSIDE_UID,
            (false, _) => self.own_uid,
        }
    }

    /// What no program sees, whatever it is granted.
    pub(super) fn hidden(&self) -> [String; 2] {
        [&self.layout.state, &self.layout.run].map(|path| path.to_string_lossy().into_owned())
    }

    pub(super) fn identity_of(&self, service: &str) -> Identity {
        let host = self.uid_of(service);
        Identity { uid: INSIDE_UID, gid: INSIDE_UID, host_uid: host, host_gid: host }
    }

    /// `boundary` is the end of the pair for `keys`.
    pub(super) fn service(
        &self,
        manifest: &ServiceManifest,
        sockets: &[Socket],
        boundary: Option<OwnedFd>,
    ) -> Result<Order, PlanFault> {
        let name = manifest.service.name.as_str();
        self.prepare_folder(name)?;
        let extras = extras(self, name)?;
        let mut slots = Slots::default();
        let mut tokens = Vec::new();
        for socket in sockets.iter().filter(|socket| socket.server == name) {
            if let Some(token) = socket.token() {
                tokens.push(format!("{token}={}", slots.stored(socket.stored_name())));
            }
        }
        let mut environment = self.environment();
        for (variable, stored) in extras.stored {
            environment.push((variable.to_owned(), slots.stored(stored.to_owned()).to_string()));
        }
        for (variable, fd) in extras.fds {
            environment.push((variable.to_owned(), slots.passed(fd).to_string()));
        }
        environment.extend(extras.variables.into_iter().map(|(name, value)| (name.to_owned(), value)));
        if let Some(boundary) = boundary {
            tokens.push(format!("boundary={}", slots.passed(boundary)));
        }
        environment.push(("BAILIWICK_FDS".to_owned(), tokens.join(",")));
        let (executable, descriptors, stored, fds) = slots.finish(self.image_fd()?, self.open_log(name)?)?;
        let mut plan = Plan::new(name, executable, Profile::Service);
        plan.arguments = ["bailiwick", "process", "service", name].map(str::to_owned).to_vec();
        plan.environment = environment;
        plan.host_name = name.replace('_', "-");
        plan.identity = self.identity_of(name);
        let mut mounts = self.own_mounts(manifest, sockets);
        mounts.extend(extras.mounts);
        plan = plan.with_mounts(mounts);
        plan.masked.extend(extras.masked);
        plan.descriptors = descriptors;
        apply_resources(&mut plan, manifest);
        Ok(Order { plan, stored, fds })
    }

    /// The key boundary: no mount, no socket but one, nothing that it could open; what it needs is passed to it.
    pub(super) fn boundary(&self, end: OwnedFd) -> Result<Order, PlanFault> {
        let folder = self.layout.service_state("keys");
        let mut slots = Slots::default();
        let mut tokens = vec![format!("boundary={}", slots.passed(end))];
        tokens.push(format!("sealed={}", slots.passed(open(&folder.join(SEALED_SEED))?)));
        if let Some((kind, file)) = seal_secret(&folder) {
            tokens.push(format!("secret:{kind}={}", slots.passed(open(&file)?)));
        }
        let (executable, descriptors, stored, fds) =
            slots.finish(self.image_fd()?, self.open_log("keys_boundary")?)?;
        let mut plan = Plan::new("keys_boundary", executable, Profile::Boundary);
        plan.arguments = ["bailiwick", "process", "boundary"].map(str::to_owned).to_vec();
        plan.environment = vec![("BAILIWICK_FDS".to_owned(), tokens.join(","))];
        plan.identity = self.identity_of("keys_boundary");
        plan.descriptors = descriptors;
        Ok(Order { plan, stored, fds })
    }

    fn environment(&self) -> Vec<(String, String)> {
        let mut environment = vec![
            ("BAILIWICK_RUN".to_owned(), sockets::INSIDE.to_owned()),
            ("BAILIWICK_STATE".to_owned(), kit::env::STATE_FOLDER.to_owned()),
            ("BAILIWICK_OWNER_UID".to_owned(), self.owner_uid_inside().to_string()),
        ];
        if let Ok(level) = std::env::var("BAILIWICK_LOG") {
            environment.push(("BAILIWICK_LOG".to_owned(), level));
        }
        if !self.allow_break.is_empty() {
            environment.push(("BAILIWICK_ALLOW_BREAK".to_owned(), self.allow_break.join(",")));
        }
        environment
    }

    /// Makes a service's folder, the service's alone.
    pub(super) fn prepare_folder(&self, name: &str) -> Result<(), PlanFault> {
        let folder = self.layout.service_state(name);
        let alone = || std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700));
        let made =
            sockets::make_folder(&folder).and_then(|()| alone()).and_then(|()| match self.uid_of(name) {
                Some(uid) => ownership::give_tree(&folder, uid, &[SEAL_KEY, SEALED_SEED]),
                None => Ok(()),
            });
        made.map_err(|source| PlanFault::File { path: folder, source })
    }

    pub(super) fn own_mounts(&self, manifest: &ServiceManifest, all: &[Socket]) -> Vec<Mount> {
        let name = manifest.service.name.as_str();
        let mut mounts = vec![bind(&self.layout.service_state(name), kit::env::STATE_FOLDER, true)];
        if manifest.sandbox.tmp_mb > 0 {
            let size_bytes_max = u64::from(manifest.sandbox.tmp_mb) * 1024 * 1024;
            mounts.push(Mount::Tmpfs { target: "/tmp".to_owned(), size_bytes_max, mode: 0o700 });
        }
        for socket in all.iter().filter(|socket| socket.client.as_deref() == Some(name)) {
            if let Some(inside) = socket.inside() {
                mounts.push(bind(&socket.path, &inside, false));
            }
        }
        mounts
    }

    pub(super) fn image_fd(&self) -> Result<OwnedFd, PlanFault> {
        self.image.fd.try_clone().map_err(PlanFault::Duplicate)
    }

    /// Where a service's standard error goes; a full log is put aside first.
    pub(super) fn open_log(&self, name: &str) -> Result<OwnedFd, PlanFault> {
        let path = self.layout.service_log(name);
        open_log(&path).map_err(|source| PlanFault::File { path, source })
    }
}

fn open_log(path: &Path) -> io::Result<OwnedFd> {
    if let Some(folder) = path.parent() {
        sockets::make_folder(folder)?;
    }
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    Ok(OpenOptions::new().create(true).append(true).mode(0o600).open(path)?.into())
}

pub(super) fn open(path: &Path) -> Result<OwnedFd, PlanFault> {
    match File::open(path) {
        Ok(file) => Ok(file.into()),
        Err(source) => Err(PlanFault::File { path: path.to_owned(), source }),
    }
}

pub(super) fn bind(source: &Path, target: &str, writable: bool) -> Mount {
    Mount::Bind {
        source: source.to_string_lossy().into_owned(),
        target: target.to_owned(),
        writable,
        optional: false,
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

/// Limits of the manifest as the kernel's.
pub(super) fn apply_resources(plan: &mut Plan, manifest: &ServiceManifest) {
    let resources = &manifest.resources;
    plan.limits = Limits {
        memory_bytes_max: resources.memory_mb.map(|megabytes| u64::from(megabytes) * 1024 * 1024),
        processes_max: Some(u64::from(manifest.sandbox.processes_max)),
        // The usual share is 100 in both.
        cpu_weight: Some(resources.cpu_shares.clamp(1, 10_000)),
        ..Limits::default()
    };
    // Nobody is raised above the host's own programs, which would need a right that a user namespace does not have; the
    // order among services is kept by lowering the others.
    plan.priority = match resources.priority {
        Priority::Critical => sandbox::PRIORITY_NORMAL,
        Priority::High => sandbox::PRIORITY_NORMAL + 2,
        Priority::Normal => sandbox::PRIORITY_NORMAL + 4,
        Priority::Low => sandbox::PRIORITY_NORMAL + 8,
    };
    let files = u64::from(manifest.sandbox.open_files_max);
    plan.rlimits.push(Rlimit { resource: Resource::OpenFiles, soft: files, hard: files });
}

/// Guards that are off in a program's sandbox because `prove` asked for it.
#[must_use]
pub(super) fn broken(allow_break: &[String]) -> GuardSet {
    let guards = allow_break.iter().filter_map(|name| sandbox::Guard::parse(name));
    guards.fold(GuardSet::EMPTY, GuardSet::with)
}

/// What one service gets that others do not.
#[derive(Debug, Default)]
struct Extras {
    mounts: Vec<Mount>,
    masked: Vec<String>,
    /// Variable with the number of the descriptor, and the descriptor.
    fds: Vec<(&'static str, OwnedFd)>,
    /// The same for one that the keeper holds.
    stored: Vec<(&'static str, &'static str)>,
    variables: Vec<(&'static str, String)>,
}

/// The only place where services differ.
fn extras(house: &House, name: &str) -> Result<Extras, PlanFault> {
    let layout = &house.layout;
    let give = |path: PathBuf, is_folder: bool| {
        let made = if is_folder { sockets::make_folder(&path) } else { Ok(()) };
        let given = made.and_then(|()| match house.uid_of(name) {
            Some(uid) => ownership::give_tree(&path, uid, &[]),
            None => Ok(()),
        });
        given.map(|()| path.clone()).map_err(|source| PlanFault::File { path, source })
    };
    Ok(match name {
        // The highest acknowledged entry is kept outside of the log's own folder, and genesis is what a log without
        // entries begins with.
        "axiom" => {
            let head = layout.head();
            let folder = give(head.parent().map_or_else(|| head.clone(), Path::to_owned), true)?;
            let genesis = give(layout.genesis(), false)?;
            Extras {
                mounts: vec![bind(&folder, "/head", true), bind(&genesis, "/genesis.cbor", false)],
                ..Extras::default()
            }
        }
        // The boundary's files lie in this service's folder and are for the boundary alone.
        "keys" => Extras {
            masked: [SEAL_KEY, SEALED_SEED].iter().map(|file| format!("/state/{file}")).collect(),
            ..Extras::default()
        },
        // It starts programs through the keeper, from images that it keeps; their monitors are this same program.
        // The keeper mounts by the host's paths, so it must know where images and what programs never see are there.
        "process_manager" => {
            let images = give(layout.images(), true)?;
            Extras {
                mounts: vec![bind(&images, "/images", true)],
                fds: vec![("BAILIWICK_IMAGE_FD", house.image_fd()?)],
                variables: vec![
                    ("BAILIWICK_HOST_IMAGES", layout.images().to_string_lossy().into_owned()),
                    ("BAILIWICK_HOST_HIDDEN", house.hidden().join(":")),
                ],
                stored: vec![("BAILIWICK_KEEPER_FD", PROGRAMS_CHANNEL)],
                ..Extras::default()
            }
        }
        _ => Extras::default(),
    })
}

/// Slots of a plan: stored ones first, then those that are sent, and their numbers in the new process.
#[derive(Debug, Default)]
pub(super) struct Slots {
    stored: Vec<(String, u32)>,
    passed: Vec<(OwnedFd, u32)>,
}

impl Slots {
    fn next(&self) -> u32 {
        let used = self.stored.len().saturating_add(self.passed.len());
        FIRST_TARGET.saturating_add(u32::try_from(used).unwrap_or(u32::MAX))
    }

    pub(super) fn stored(&mut self, name: String) -> u32 {
        let target = self.next();
        self.stored.push((name, target));
        target
    }

    pub(super) fn passed(&mut self, fd: OwnedFd) -> u32 {
        let target = self.next();
        self.passed.push((fd, target));
        target
    }

    /// With the image, and the log as standard output and error.
    pub(super) fn finish(self, image: OwnedFd, log: OwnedFd) -> Result<Finished, PlanFault> {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (names, mut targets): (Vec<String>, Vec<u32>) = self.stored.into_iter().unzip();
        let first_sent = count(names.len());
        let mut fds = Vec::with_capacity(self.passed.len() + 2);
        for (fd, target) in self.passed {
            fds.push(fd);
            targets.push(target);
        }
        let mut descriptors: Vec<Descriptor> = targets
            .into_iter()
            .enumerate()
            .map(|(slot, target)| Descriptor { slot: count(slot), target })
            .collect();
        let log_slot = first_sent.saturating_add(count(fds.len()));
        descriptors.extend([1, 2].map(|target| Descriptor { slot: log_slot, target }));
        fds.extend([log, image]);
        Ok((Executable::Slot(log_slot.saturating_add(1)), descriptors, names, fds))
    }
}

pub(super) type Finished = (Executable, Vec<Descriptor>, Vec<String>, Vec<OwnedFd>);

/// A connected pair of packets: one end for `keys`, one for its boundary.
pub(super) fn boundary_pair() -> Result<(OwnedFd, OwnedFd), PlanFault> {
    let (one, other) = sandbox::fdpass::Channel::pair().map_err(PlanFault::Pair)?;
    let clone = |fd: &sandbox::fdpass::Channel| fd.as_fd().try_clone_to_owned().map_err(PlanFault::Duplicate);
    Ok((clone(&one)?, clone(&other)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::ChannelKind;

    fn house(root: &Path, privileged: bool) -> House {
        House {
            layout: Layout::under(root).unwrap(),
            features: Features { privileged, user_namespaces: true, ..Features::default() },
            image: Image { fd: File::open("/dev/null").unwrap().into(), hash: Hash::ZERO },
            allow_break: vec!["landlock".to_owned()],
            own_uid: 7,
        }
    }

    fn shipped(name: &str) -> ServiceManifest {
        let of = |(file, text): &(&str, &str)| crate::manifest::parse(file, text).unwrap().manifest;
        crate::manifest::shipped::ALL.iter().map(of).find(|manifest| manifest.service.name == name).unwrap()
    }

    fn all_sockets(layout: &Layout) -> Vec<Socket> {
        let all =
            ["axiom", "policy", "keys", "identity", "capability_service", "process_manager"].map(shipped);
        sockets::of_node(layout, &all)
    }

    fn variable<'a>(plan: &'a Plan, name: &str) -> &'a str {
        plan.environment.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    #[test]
    fn every_shipped_service_has_a_plan_that_can_be_carried_out() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path(), false);
        let all = all_sockets(&house.layout);
        std::fs::create_dir_all(&house.layout.state).unwrap();
        std::fs::write(house.layout.genesis(), "g").unwrap();
        for name in ["axiom", "policy", "keys", "identity", "capability_service", "process_manager"] {
            let order = house.service(&shipped(name), &all, None).unwrap();
            order.plan.validate(order.stored.len() + order.fds.len()).unwrap();
            assert_eq!(order.plan.arguments[3], name);
            assert!(variable(&order.plan, "BAILIWICK_FDS").contains("lifecycle="), "{name}");
            kit::env::parse_descriptors(variable(&order.plan, "BAILIWICK_FDS")).unwrap();
        }
    }

    #[test]
    fn a_service_sees_the_sockets_of_its_manifest_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path(), false);
        let all = all_sockets(&house.layout);
        let order = house.service(&shipped("keys"), &all, None).unwrap();
        let mut targets: Vec<&str> = order
            .plan
            .mounts
            .iter()
            .filter_map(|mount| match mount {
                Mount::Bind { target, .. } if target.starts_with(sockets::INSIDE) => Some(target.as_str()),
                _ => None,
            })
            .collect();
        targets.sort_unstable();
        assert_eq!(
            targets,
            [
                "/run/bailiwick/authority.sock",
                "/run/bailiwick/feed.sock",
                "/run/bailiwick/policy.sock",
                "/run/bailiwick/supervisor.sock"
            ]
        );
        assert_eq!(order.plan.masked, ["/state/seal.key", "/state/seed.sealed"]);
        assert!(order.stored.contains(&"edge:keys:identity".to_owned()));
        assert!(!order.stored.iter().any(|name| name.starts_with("edge:policy")));
    }

    #[test]
    fn the_operator_is_named_as_the_services_see_them() {
        let root = tempfile::tempdir().unwrap();
        let rootless = house(root.path(), false);
        assert_eq!((rootless.owner_uid_inside(), rootless.uid_of("keys")), (INSIDE_UID, None));
        let mut root_house = house(root.path(), true);
        assert_eq!(root_house.owner_uid_inside(), OVERFLOW_UID);
        assert_eq!(root_house.uid_of("keys"), Some(ownership::host_uid("keys")));
        root_house.features.user_namespaces = false;
        assert_eq!(root_house.owner_uid_inside(), 7);
    }

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

    #[test]
    fn a_log_is_put_aside_above_its_limit() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("logs/a.log");
        drop(open_log(&path).unwrap());
        File::options().write(true).open(&path).unwrap().set_len(LOG_BYTES_MAX).unwrap();
        drop(open_log(&path).unwrap());
        assert!(!root.path().join("logs/a.log.1").exists());
        File::options().write(true).open(&path).unwrap().set_len(LOG_BYTES_MAX + 1).unwrap();
        drop(open_log(&path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        assert!(root.path().join("logs/a.log.1").exists());
    }

    #[test]
    fn edges_of_a_server_come_with_the_clients_name() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path(), false);
        let all = all_sockets(&house.layout);
        std::fs::create_dir_all(&house.layout.state).unwrap();
        std::fs::write(house.layout.genesis(), "g").unwrap();
        let order = house.service(&shipped("axiom"), &all, None).unwrap();
        let known = kit::env::parse_descriptors(variable(&order.plan, "BAILIWICK_FDS")).unwrap();
        let clients = |kind: ChannelKind| -> Vec<String> {
            let mut clients: Vec<String> =
                known.iter().filter(|d| d.kind == kind).map(|d| d.client.to_string()).collect();
            clients.sort();
            clients
        };
        assert_eq!(clients(ChannelKind::Append), ["policy", "supervisor"]);
        assert_eq!(
            clients(ChannelKind::Feed),
            ["capability_service", "identity", "keys", "policy", "process_manager", "supervisor"]
        );
        let binds = |target: &str| {
            order.plan.mounts.iter().any(|m| matches!(m, Mount::Bind { target: t, .. } if t == target))
        };
        assert!(binds("/head") && binds("/genesis.cbor"));
    }
}
