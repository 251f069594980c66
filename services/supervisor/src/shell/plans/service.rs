//! The node's own services: this program as `bailiwick process service NAME`, namespaces of its own (user, pid, mount,
//! net, ipc, uts, cgroup), an empty read-only root with `/state` (its own folder), `/tmp`, and the sockets that its
//! manifest names below `/run/bailiwick`; the profile `service`, Landlock, and the limits of its manifest. What single
//! services get beyond that stands in [`extras`], each with its reason.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use base::layout::{IDENTITY_SETTINGS, NETWORK_SETTINGS};
use kit::ChannelKind;
use sandbox::{Mount, Plan, seccomp::Profile};

use super::{House, Order, PlanFault, bind, limits, slots::Slots};
use crate::{
    keeper::PROGRAMS_CHANNEL,
    manifest::ServiceManifest,
    sealing::{SEAL_KEY_FILE, SEALED_SEED_FILE},
    shell::{
        ownership::{self, INSIDE_UID, OVERFLOW_UID},
        sockets::{self, Socket},
    },
    signing::{self, SEALED_KEY_FILE},
};

/// Where a test's wall clock shows in a sandbox.
const WALL_MOVED_FILE: &str = "/wall-moved";

impl House {
    /// `clients` is where it is told of clients that come and go; `handed` goes to this service alone: the name of its
    /// token, and the descriptor.
    pub(in crate::shell) fn service(
        &self,
        manifest: &ServiceManifest,
        sockets: &[Socket],
        clients: OwnedFd,
        handed: Option<(&str, OwnedFd)>,
    ) -> Result<Order, PlanFault> {
        let name = manifest.service.name.as_str();
        self.image.check()?;
        self.prepare_folder(name, self.uid_of(name).map(|uid| (uid, uid)))?;
        let extras = extras(self, name)?;
        let mut slots = Slots::default();
        let mut tokens = Vec::new();
        for socket in sockets.iter().filter(|socket| socket.server == name) {
            if let Some(token) = socket.token() {
                tokens.push(format!("{token}={}", slots.stored(socket.stored_name())));
            }
        }
        let mut environment = self.environment();
        environment.extend(sockets::workload_api(sockets, name));
        for (variable, stored) in extras.stored {
            environment.push((variable.to_owned(), slots.stored(stored.to_owned()).to_string()));
        }
        for (variable, fd) in extras.fds {
            environment.push((variable.to_owned(), slots.passed(fd).to_string()));
        }
        environment.extend(extras.variables.into_iter().map(|(name, value)| (name.to_owned(), value)));
        tokens.push(format!("{}={}", ChannelKind::Clients, slots.passed(clients)));
        if let Some((token, fd)) = handed {
            tokens.push(format!("{token}={}", slots.passed(fd)));
        }
        environment.push(("BAILIWICK_FDS".to_owned(), tokens.join(",")));
        let (executable, descriptors, stored, fds) = slots.finish(self.image_fd()?, self.open_log(name)?);
        let mut plan = Plan::new(name, executable, Profile::Service);
        plan.arguments = ["bailiwick", "process", "service", name].map(str::to_owned).to_vec();
        plan.environment = environment;
        plan.host_name = name.replace('_', "-");
        plan.identity = self.identity_of(name);
        let mut mounts = self.own_mounts(manifest, sockets);
        mounts.extend(extras.mounts);
        plan = plan.with_mounts(mounts);
        plan.masked.extend(extras.masked);
        plan.masked.extend(signing::signer_of(name).map(|_| format!("/state/{SEALED_KEY_FILE}")));
        plan.descriptors = descriptors;
        if extras.goes_out {
            open_the_way_out(&mut plan);
        }
        limits::apply(&mut plan, manifest);
        Ok(Order { plan, stored, fds })
    }

    fn environment(&self) -> Vec<(String, String)> {
        let mut environment = vec![
            ("BAILIWICK_RUN".to_owned(), sockets::INSIDE.to_owned()),
            ("BAILIWICK_STATE".to_owned(), kit::env::STATE_FOLDER.to_owned()),
            ("BAILIWICK_OWNER_UID".to_owned(), self.owner_uid_inside().to_string()),
        ];
        // How much is told, and how large the log's segments are on a small node.
        for name in ["BAILIWICK_LOG", "BAILIWICK_SEGMENT_BYTES"] {
            let Ok(value) = std::env::var(name) else { continue };
            environment.push((name.to_owned(), value));
        }
        environment.extend(self.broken());
        environment
    }

    /// The defences that `prove` has switched off, for the processes that have them.
    pub(super) fn broken(&self) -> Option<(String, String)> {
        let names = self.allow_break.join(",");
        (!names.is_empty()).then(|| ("BAILIWICK_ALLOW_BREAK".to_owned(), names))
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
    /// Lives in the host's network and may make sockets of the internet.
    goes_out: bool,
}

/// Everything else of its sandbox is as for the others.
fn open_the_way_out(plan: &mut Plan) {
    plan.namespaces.net = false;
    plan.loopback = false;
    if let Some(seccomp) = &mut plan.seccomp {
        seccomp.sockets.inet = true;
    }
    if let Some(landlock) = &mut plan.landlock {
        landlock.tcp = true;
    }
}

/// Hears of the host's links and addresses, and is bound to nothing else: in its own network namespace a service would
/// hear of none.
fn interface_news() -> std::io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, netlink, socket_with};
    const LINKS: u32 = 1;
    const ADDRESSES: u32 = 0x10;
    const ADDRESSES_V6: u32 = 0x100;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, LINKS | ADDRESSES | ADDRESSES_V6))?;
    Ok(socket)
}

/// Tells which connections of this host there are; none if the kernel has no such family. Anybody may ask, and nothing can be
/// changed without a right.
fn connections() -> Option<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};
    socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))
        .ok()
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
            let mut mounts = vec![bind(&folder, "/head", true), bind(&genesis, "/genesis.cbor", false)];
            let moved = std::env::var_os(kit::WALL_MOVED).filter(|_| kit::is_wall_moved());
            mounts.extend(moved.iter().map(|file| bind(Path::new(file), WALL_MOVED_FILE, false)));
            let variables = moved.map(|_| (kit::WALL_MOVED, WALL_MOVED_FILE.to_owned()));
            Extras { mounts, variables: variables.into_iter().collect(), ..Extras::default() }
        }
        // The boundary's files lie in this service's folder and are for the boundary alone.
        "keys" => Extras {
            masked: [SEAL_KEY_FILE, SEALED_SEED_FILE].iter().map(|file| format!("/state/{file}")).collect(),
            ..Extras::default()
        },
        // How long SVIDs live is the operator's to say.
        "identity" => Extras {
            mounts: vec![settings(&layout.identity_settings(), IDENTITY_SETTINGS)],
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
        // What it lists are the host's interfaces, and it is to have none itself.
        "driver_manager" => Extras {
            fds: vec![("BAILIWICK_NETLINK_FD", interface_news().map_err(PlanFault::Netlink)?)],
            ..Extras::default()
        },
        // The one way out; see its README for what it promises.
        "network" => Extras {
            mounts: vec![
                settings(&layout.network_settings(), NETWORK_SETTINGS),
                // Whom the host asks for names.
                settings(Path::new("/etc/resolv.conf"), "resolv.conf"),
            ],
            fds: connections().map(|fd| ("BAILIWICK_SOCK_DIAG_FD", fd)).into_iter().collect(),
            goes_out: true,
            ..Extras::default()
        },
        _ => Extras::default(),
    })
}

/// A file of the host's that a service may read, if it is there.
fn settings(source: &Path, name: &str) -> Mount {
    Mount::Bind {
        source: source.to_string_lossy().into_owned(),
        target: format!("{}/{name}", kit::env::CONFIG_FOLDER),
        writable: false,
        optional: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::plans::tests::{all_sockets, house, shipped, variable};
    use sandbox::Namespaces;
    use std::fs::File;

    fn clients() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_signer_is_handed_its_key_and_does_not_see_where_it_lies() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path(), false);
        let all = all_sockets(&house.layout);
        for (name, masked) in [("policy", vec!["/state/signing.sealed"]), ("process_manager", vec![])] {
            let (pipe, _) = rustix::pipe::pipe().unwrap();
            let order = house.service(&shipped(name), &all, clients(), Some(("signing", pipe))).unwrap();
            let fds = variable(&order.plan, "BAILIWICK_FDS");
            let known = kit::env::parse_descriptors(fds).unwrap();
            assert!(known.iter().any(|known| known.kind == ChannelKind::Signing), "{fds}");
            order.plan.validate(order.stored.len() + order.fds.len()).unwrap();
            let own: Vec<&String> = order.plan.masked.iter().filter(|m| m.starts_with("/state")).collect();
            assert_eq!(own, masked);
        }
    }

    #[test]
    fn every_shipped_service_has_a_plan_that_can_be_carried_out() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path(), false);
        let all = all_sockets(&house.layout);
        std::fs::create_dir_all(&house.layout.state).unwrap();
        std::fs::write(house.layout.genesis(), "g").unwrap();
        for (file, text) in crate::manifest::shipped::ALL {
            let manifest = crate::manifest::parse(file, text).unwrap().manifest;
            let name = manifest.service.name.as_str();
            let order = house.service(&manifest, &all, clients(), None).unwrap();
            order.plan.validate(order.stored.len() + order.fds.len()).unwrap();
            assert_eq!(order.plan.arguments[3], name);
            assert!(variable(&order.plan, "BAILIWICK_FDS").contains("lifecycle="), "{name}");
            kit::env::parse_descriptors(variable(&order.plan, "BAILIWICK_FDS")).unwrap();
            // One way out.
            let goes_out = name == "network";
            assert_eq!(order.plan.namespaces, Namespaces { net: !goes_out, ..Namespaces::ALL }, "{name}");
            assert_eq!(order.plan.seccomp.unwrap().sockets.inet, goes_out, "{name}");
            assert_eq!(order.plan.landlock.unwrap().tcp, goes_out, "{name}");
        }
    }

    /// covers: SUP-73
    #[test]
    fn a_service_of_the_node_starts_from_a_static_elf64_of_this_machine_alone() {
        use std::io::Read as _;
        let root = tempfile::tempdir().unwrap();
        let mut house = house(root.path(), false);
        let mut good = vec![0; 8192];
        File::open("/proc/self/exe").unwrap().read_exact(&mut good).unwrap();
        let with = |at: usize, byte: u8| {
            let mut image = good.clone();
            image[at] = byte;
            image
        };
        // In the header the class and the machine, behind it the kind of the first segment.
        let (elf32, foreign, dynamic) = (with(4, 1), with(18, 0xf7), with(64, 3));
        let mut starts = |image: &[u8], service_type: &str| {
            let file = root.path().join("image");
            std::fs::write(&file, image).unwrap();
            house.image.file = File::open(&file).unwrap();
            let (file, text) = crate::manifest::shipped::ALL[2];
            let text = text.replace("\"Core\"", &format!("\"{service_type}\""));
            let manifest = crate::manifest::parse(file, &text).unwrap().manifest;
            match house.service(&manifest, &[], clients(), None) {
                Ok(_) => true,
                Err(PlanFault::Image(_)) => false,
                Err(other) => panic!("{other}"),
            }
        };
        for service_type in ["Core", "System", "Driver"] {
            assert!(starts(&good, service_type));
            for image in [&b"#!/bin/sh\n"[..], &elf32, &foreign, &dynamic] {
                assert!(!starts(image, service_type), "{service_type} {:?}", image.get(..20));
            }
        }
    }

    #[test]
    fn a_service_sees_the_sockets_of_its_manifest_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path(), false);
        let all = all_sockets(&house.layout);
        let order = house.service(&shipped("keys"), &all, clients(), None).unwrap();
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
    fn edges_of_a_server_come_with_the_clients_name() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path(), false);
        let all = all_sockets(&house.layout);
        std::fs::create_dir_all(&house.layout.state).unwrap();
        std::fs::write(house.layout.genesis(), "g").unwrap();
        let order = house.service(&shipped("axiom"), &all, clients(), None).unwrap();
        let known = kit::env::parse_descriptors(variable(&order.plan, "BAILIWICK_FDS")).unwrap();
        let clients_of = |kind: ChannelKind| -> Vec<String> {
            let mut clients: Vec<String> =
                known.iter().filter(|d| d.kind == kind).map(|d| d.client.to_string()).collect();
            clients.sort();
            clients
        };
        assert_eq!(clients_of(ChannelKind::Append), ["policy", "supervisor"]);
        assert_eq!(
            clients_of(ChannelKind::Feed),
            [
                "capability_service",
                "driver_manager",
                "identity",
                "keys",
                "network",
                "policy",
                "process_manager",
                "supervisor"
            ]
        );
        let binds = |target: &str| {
            order.plan.mounts.iter().any(|m| matches!(m, Mount::Bind { target: t, .. } if t == target))
        };
        assert!(binds("/head") && binds("/genesis.cbor"));
    }
}
