//! `[program]` services: ordinary programs of the user, in a sandbox that shows the system's files read-only.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use base::Hash;
use kit::{
    env::{CREDENTIALS_FOLDER, CREDENTIALS_VARIABLE},
    way_out::{NAME_SERVERS_FILE, write_name_servers},
};
use sandbox::{Command, Descriptor, Executable, Forks, Mount, Plan, Sockets, seccomp::Profile};
use thiserror::Error;

use super::{
    House, Order, PlanFault,
    account::{Account, AccountFault},
    bind,
    environment::{EnvironmentFault, environment},
    folders, host_file,
    image::{ImageFault, ServiceImage},
    limits, ownership,
    secrets::{self, SecretFault},
    slots::{FIRST_TARGET, Slots, put_first},
    watched,
};
use crate::{
    manifest::{NetworkSwitch, ProgramConfig, Runs, SYSTEM, ServiceManifest},
    shell::{
        listeners::{HandedOver, published},
        sockets::{SUPERVISOR, Socket},
    },
};

/// Read where the host's network is given.
const SYSTEM_WITH_NETWORK: [&str; 1] = ["/etc/resolv.conf"];
/// The first process before it is one more.
const INIT: u64 = 1;

#[derive(Debug, Error)]
pub(in crate::shell) enum ProgramFault {
    #[error(transparent)]
    Plan(#[from] PlanFault),
    #[error(transparent)]
    Account(#[from] AccountFault),
    #[error(transparent)]
    Environment(#[from] EnvironmentFault),
    #[error(transparent)]
    Secret(#[from] SecretFault),
    #[error(transparent)]
    ServiceImage(#[from] ImageFault),
    #[error("cannot read the program {}: {source}", path.display())]
    Image { path: PathBuf, source: io::Error },
    #[error("image {wanted} has the hash {found}; put the right one there")]
    Mismatch { wanted: Hash, found: Hash },
    #[error("this is no [program]")]
    NoProgram,
    #[error("{0:?} is the node's own and is given to no program")]
    Hidden(String),
}

/// What is started in the sandbox of a program: itself, or something beside it.
struct Process {
    image: OwnedFd,
    /// Where it stands in a container image.
    path: Option<String>,
    arguments: Vec<String>,
    label: String,
    log: OwnedFd,
    root: Option<ServiceImage>,
}

impl House {
    pub(in crate::shell) fn program(
        &self,
        manifest: &ServiceManifest,
        sockets: &[Socket],
        handed_over: &[HandedOver],
    ) -> Result<Order, ProgramFault> {
        let program = manifest.program.as_ref().ok_or(ProgramFault::NoProgram)?;
        let name = manifest.service.name.as_str();
        let root = self.service_image(program)?;
        let mut account = self.account(name, program)?;
        let (path, arguments, image) = match &root {
            Some(root) => {
                if program.user.is_none() {
                    (account.identity.uid, account.identity.gid) = root.user();
                }
                places(root, program)?;
                let entry = root.entry(program)?;
                (Some(entry.path), entry.words, entry.file.into())
            }
            None => {
                let mut arguments = vec![program.image.clone()];
                arguments.extend(program.args.iter().cloned());
                (None, arguments, self.open_image(&program.image)?)
            }
        };
        self.prepare_folder(name, account.owner)?;
        self.give_sockets(name, sockets, &account)?;
        folders::make(program, account.owner, &self.hidden())?;
        let label = name.to_owned();
        let process = Process { image, path, arguments, label, log: self.open_log(name)?, root };
        let mut order = self.in_sandbox(manifest, sockets, program, account, process)?;
        match &manifest.egress {
            Some(egress) => watched::let_out(&mut order.plan, egress),
            // What `prove` switched off: a socket that it is handed is the kernel's to connect.
            None if self.allow_break.iter().any(|part| part == "service-handed") => {}
            None => watched::shut_in(&mut order.plan, program, &self.features),
        }
        watched::publish(&mut order, &published(manifest));
        hand_over(&mut order, handed_over);
        // Few programs are written to be PID 1.
        order.plan.init = true;
        order.plan.commands = commands(program);
        order.plan.commands.extend(check(manifest));
        order.plan.before = u32::try_from(program.before.len()).unwrap_or(0);
        order.plan.forks =
            (program.runs == Runs::Forks).then(|| Forks { pid_file: program.pid_file.clone() });
        order.plan.limits.processes_max =
            order.plan.limits.processes_max.map(|most| most.saturating_add(INIT));
        Ok(order)
    }

    fn in_sandbox(
        &self,
        manifest: &ServiceManifest,
        sockets: &[Socket],
        program: &ProgramConfig,
        account: Account,
        process: Process,
    ) -> Result<Order, ProgramFault> {
        let name = manifest.service.name.as_str();
        let Process { image, path, arguments, label, log, root } = process;
        let root = root.as_ref();
        let hidden = self.hidden();
        let has_network = manifest.sandbox.network == NetworkSwitch::Host;
        let (executable, descriptors, stored, mut fds) = Slots::default().finish(image, log);
        // In a container image its path leads to it: what looks for itself finds what it expects.
        let executable = path.map_or(executable, Executable::Path);
        let mut plan = Plan::new(&label, executable, Profile::Program);
        plan.arguments = arguments;
        plan.environment = environment(manifest, program, root, sockets, &hidden)?;
        plan.working_directory = program
            .cwd
            .clone()
            .unwrap_or_else(|| root.map_or("/", ServiceImage::working_directory).to_owned());
        plan.host_name = name.replace('_', "-");
        plan.identity = account.identity;
        plan.groups = account.groups;
        plan.umask = program.umask.map(|mask| mask.0);
        plan.capabilities_kept = kept(&program.privileges);
        plan.namespaces.user = plan.capabilities_kept == 0;
        plan.namespaces.net = !has_network;
        plan.loopback = !has_network;
        let mut own = folders::mounts(program);
        if let Some((memory, files)) = secrets::gather(program, &hidden)? {
            let slot = u32::try_from(stored.len().saturating_add(fds.len())).unwrap_or(u32::MAX);
            fds.push(memory);
            let target = CREDENTIALS_FOLDER.to_owned();
            own.push(Mount::Sealed { target: target.clone(), slot, files });
            plan.environment.retain(|(name, _)| name != CREDENTIALS_VARIABLE);
            plan.environment.push((CREDENTIALS_VARIABLE.to_owned(), target));
        }
        if manifest.egress.is_some() {
            own.extend(self.name_servers(root)?);
        }
        plan = plan.with_mounts(self.mounts(manifest, sockets, root, has_network, own));
        if let Some(landlock) = plan.landlock.as_mut() {
            // The network namespace is the limit: with its own there is only loopback to reach.
            landlock.tcp = true;
        }
        if let Some(seccomp) = plan.seccomp.as_mut() {
            seccomp.sockets = Sockets { unix: true, inet: true, netlink_route: true };
        }
        plan.masked.extend(self.masked_below(program)?);
        plan.descriptors = descriptors;
        plan.disabled = limits::broken(&self.allow_break);
        limits::apply(&mut plan, manifest);
        Ok(Order { plan, stored, fds })
    }

    fn mounts(
        &self,
        manifest: &ServiceManifest,
        sockets: &[Socket],
        root: Option<&ServiceImage>,
        has_network: bool,
        given: Vec<Mount>,
    ) -> Vec<Mount> {
        let program = manifest.program.as_ref();
        let network: &[&str] = if has_network { &SYSTEM_WITH_NETWORK } else { &[] };
        let usual: &[&str] = if root.is_none() { &SYSTEM } else { &[] };
        // An image that has no such file reads none.
        let network = network.iter().filter(|path| root.is_none_or(|root| root.has(path)));
        let system = usual.iter().chain(network).map(|path| Mount::Bind {
            source: (*path).to_owned(),
            target: (*path).to_owned(),
            writable: false,
            optional: true,
        });
        let granted = program
            .iter()
            .flat_map(|program| &program.fs)
            .map(|grant| bind(Path::new(&grant.path), &grant.path, grant.writable));
        let base = [Mount::Proc, Mount::Dev];
        let run = program.into_iter().flat_map(|program| folders::run(program, root.is_some()));
        let own = run.chain(self.own_mounts(manifest, sockets));
        let of_image = root.map(ServiceImage::mounts).unwrap_or_default();
        base.into_iter().chain(of_image).chain(system).chain(own).chain(granted).chain(given).collect()
    }

    /// Its monitor alone. In a container image without that file the C library asks there anyway.
    fn name_servers(&self, root: Option<&ServiceImage>) -> Result<Option<Mount>, PlanFault> {
        let [inside] = SYSTEM_WITH_NETWORK;
        if root.is_some_and(|root| !root.has(inside)) {
            return Ok(None);
        }
        let folder = self.layout.service_state(SUPERVISOR);
        let path = folder.join(NAME_SERVERS_FILE);
        let written = std::fs::create_dir_all(&folder).and_then(|()| write_name_servers(&folder));
        written.map_err(|source| PlanFault::File { path: path.clone(), source })?;
        Ok(Some(bind(&path, inside, false)))
    }

    /// A socket's file belongs to who connects; a manifest may have made that somebody else since it was bound.
    fn give_sockets(&self, name: &str, sockets: &[Socket], account: &Account) -> Result<(), PlanFault> {
        let Some((uid, _)) = account.owner else { return Ok(()) };
        let own = sockets.iter().filter(|socket| socket.client.as_deref() == Some(name));
        for socket in own {
            match ownership::give(&socket.path, uid) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(PlanFault::File { path: socket.path.clone(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The node's own folders below what is granted are covered; to grant one of them is refused.
    fn masked_below(&self, program: &ProgramConfig) -> Result<Vec<String>, ProgramFault> {
        let mut masked = Vec::new();
        for hidden in self.hidden() {
            for grant in &program.fs {
                if Path::new(&grant.path).starts_with(&hidden) {
                    return Err(ProgramFault::Hidden(grant.path.clone()));
                }
                if Path::new(&hidden).starts_with(&grant.path) && !masked.contains(&hidden) {
                    masked.push(hidden.clone());
                }
            }
        }
        Ok(masked)
    }

    /// What was opened is what was hashed, and what runs.
    fn open_image(&self, image: &str) -> Result<OwnedFd, ProgramFault> {
        let Ok(wanted) = image.parse::<Hash>() else { return Ok(open(Path::new(image))?.into()) };
        let path = self.layout.images().join(format!("blake3-{}", wanted.to_hex()));
        let file = open(&path)?;
        let found = Hash::of_reader(&file).map_err(|source| ProgramFault::Image { path, source })?;
        if found == wanted { Ok(file.into()) } else { Err(ProgramFault::Mismatch { wanted, found }) }
    }
}

/// What is shown over an image has a place in it.
fn places(root: &ServiceImage, program: &ProgramConfig) -> Result<(), ImageFault> {
    let granted = program.fs.iter().map(|grant| grant.path.as_str());
    let own = program.folders.iter().map(|folder| folder.path.as_str());
    let mut shown = granted
        .chain(own)
        .filter(|path| !["/run", "/tmp"].iter().any(|top| Path::new(path).starts_with(top)));
    shown.try_for_each(|path| root.check_place(path))
}

/// Where the check of its health stands in its plan: after all other commands.
#[must_use]
pub(in crate::shell) fn place_of_check(manifest: &ServiceManifest) -> Option<u8> {
    check(manifest)?;
    u8::try_from(manifest.program.as_ref()?.commands().len()).ok()
}

fn check(manifest: &ServiceManifest) -> Option<Command> {
    let words = &manifest.health.command;
    Some(Command { path: words.first()?.clone(), arguments: words.clone(), may_fail: true })
}

/// In the order of [`ProgramConfig::commands`].
fn commands(program: &ProgramConfig) -> Vec<Command> {
    let command = |words: &[String], may_fail| {
        Some(Command { path: words.first()?.clone(), arguments: words.to_vec(), may_fail })
    };
    program.commands().into_iter().filter_map(|(_, words, may_fail)| command(words, may_fail)).collect()
}

/// As systemd does it: numbers from 3 on, with their count, their names and whom they are meant for.
fn hand_over(order: &mut Order, all: &[HandedOver]) {
    if all.is_empty() {
        return;
    }
    let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
    put_first(order, &all.iter().map(|one| one.stored.clone()).collect::<Vec<_>>());
    let plan = &mut order.plan;
    let numbers = (0..count).map(|slot| Descriptor { slot, target: FIRST_TARGET.saturating_add(slot) });
    plan.descriptors.extend(numbers);
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    plan.environment.push(("LISTEN_FDS".to_owned(), count.to_string()));
    plan.environment.push(("LISTEN_FDNAMES".to_owned(), names.join(":")));
    plan.own_pid = Some("LISTEN_PID".to_owned());
}

/// Its init stands with it in a pid namespace and passes signals on, whoever the program has become.
fn kept(privileges: &[String]) -> u64 {
    let bits =
        privileges.iter().filter_map(|name| sandbox::capability_bit(name)).fold(0, |bits, bit| bits | bit);
    let kill = sandbox::capability_bit("kill").unwrap_or(0);
    if bits == 0 { 0 } else { bits | kill }
}

fn open(path: &Path) -> Result<File, ProgramFault> {
    host_file::open(path).map_err(|source| ProgramFault::Image { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::layout::Layout;
    use sandbox::{Features, seccomp::NotifyCall};

    fn house(root: &Path) -> House {
        std::fs::create_dir_all(root.join("state/images")).unwrap();
        House {
            layout: Layout::under(root).unwrap(),
            features: Features { user_namespaces: true, ..Features::default() },
            image: super::super::Image { file: File::open("/dev/null").unwrap(), hash: Hash::ZERO },
            allow_break: Vec::new(),
            own_uid: 7,
        }
    }

    fn manifest(program: &str, more: &str) -> ServiceManifest {
        let text = format!(
            "version = 1\n[service]\nname = \"mine\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n[program]\n{program}\n{more}"
        );
        crate::manifest::parse("test", &text).unwrap().manifest
    }

    /// covers: SUP-25
    #[test]
    fn an_image_runs_only_with_the_hash_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path());
        let hash = Hash::of(b"program");
        let file = house.layout.images().join(format!("blake3-{}", hash.to_hex()));
        let manifest = manifest(&format!("image = \"{hash}\""), "");
        assert!(matches!(house.program(&manifest, &[], &[]), Err(ProgramFault::Image { .. })));
        std::fs::write(&file, "program").unwrap();
        let order = house.program(&manifest, &[], &[]).unwrap();
        order.plan.validate(order.fds.len()).unwrap();
        std::fs::write(&file, "another").unwrap();
        assert!(
            matches!(house.program(&manifest, &[], &[]), Err(ProgramFault::Mismatch { wanted, .. }) if wanted == hash)
        );
    }

    #[test]
    fn the_nodes_own_folders_are_never_shown() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path());
        let around = manifest(&format!("image = \"/bin/true\"\nfs = [\"{}:rw\"]", root.path().display()), "");
        let plan = house.program(&around, &[], &[]).unwrap().plan;
        assert!(house.hidden().iter().all(|hidden| plan.masked.contains(hidden)));
        let inside = house.layout.service_state("keys");
        let inside = manifest(&format!("image = \"/bin/true\"\nfs = [\"{}\"]", inside.display()), "");
        assert!(matches!(house.program(&inside, &[], &[]), Err(ProgramFault::Hidden(_))));
    }

    #[test]
    fn a_program_has_a_network_of_its_own_unless_it_is_given_the_hosts() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path());
        let own = house.program(&manifest("image = \"/bin/true\"", ""), &[], &[]).unwrap().plan;
        assert!(own.namespaces.net && own.loopback);
        let host = manifest("image = \"/bin/true\"", "[sandbox]\nnetwork = \"host\"\n");
        let host = house.program(&host, &[], &[]).unwrap().plan;
        assert!(!host.namespaces.net && !host.loopback);
    }

    #[test]
    fn a_program_with_a_way_out_is_watched_by_its_init_and_asks_its_monitor_for_names() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path());
        std::fs::create_dir_all(house.layout.service_state(SUPERVISOR)).unwrap();
        let of = |egress: &str| {
            let mut order = house.program(&manifest("image = \"/bin/true\"", egress), &[], &[]).unwrap();
            let (control, _) = sandbox::fdpass::Channel::pair().unwrap();
            if order.plan.watched.is_some() {
                watched::give(&mut order, control.into());
            }
            order.plan.validate(order.stored.len() + order.fds.len()).unwrap();
            order.plan
        };
        let (plain, out) = (of(""), of("[egress]\nallow = [\"192.0.2.1:443\"]\n"));
        assert!(plain.watched.is_none() && plain.name_server.is_none());
        let watched = out.watched.as_ref().unwrap();
        assert!(watched.leads_out && !watched.proxy && out.name_server.is_some() && out.datagrams.is_none());
        let shown = &out.seccomp.as_ref().unwrap().notify;
        assert!(
            [NotifyCall::Socket, NotifyCall::Connect, NotifyCall::Bind, NotifyCall::Listen]
                .iter()
                .all(|call| shown.contains(call))
        );
        assert!(!out.landlock.as_ref().unwrap().tcp && plain.landlock.as_ref().unwrap().tcp);
        let names = |plan: &Plan| {
            let is =
                |mount: &&Mount| matches!(mount, Mount::Bind { target, .. } if target == "/etc/resolv.conf");
            plan.mounts.iter().filter(is).count()
        };
        assert_eq!((names(&plain), names(&out)), (0, 1));
        let proxied = of("[egress]\nallow = [\"192.0.2.1:443\", \"192.0.2.53:53/udp\"]\nproxy = true\n");
        assert!(proxied.watched.as_ref().unwrap().proxy && proxied.datagrams.is_some());
        let has = |plan: &Plan| plan.environment.iter().any(|(name, _)| name == "HTTPS_PROXY");
        assert!(has(&proxied) && !has(&out));
    }

    #[test]
    fn who_can_be_handed_sockets_is_watched_and_nobody_else() {
        let root = tempfile::tempdir().unwrap();
        let mut house = house(root.path());
        let watched = |house: &House, program: &str, more: &str| {
            let manifest = manifest(&format!("image = \"/bin/true\"\n{program}"), more);
            house.program(&manifest, &[], &[]).unwrap().plan.watched.map(|watched| watched.leads_out)
        };
        let sees = "fs = [\"/tmp\"]";
        assert_eq!(watched(&house, sees, ""), None, "the kernel shows no calls");
        house.features.seccomp_notify = true;
        assert_eq!(watched(&house, sees, ""), Some(false));
        assert_eq!(watched(&house, "", ""), None);
        assert_eq!(watched(&house, sees, "[sandbox]\nnetwork = \"host\"\n"), None);
        assert_eq!(watched(&house, sees, "[egress]\nallow = [\"192.0.2.1:443\"]\n"), Some(true));
    }

    #[test]
    fn a_service_has_an_init_before_it_which_runs_its_check_after_all_other_commands() {
        let root = tempfile::tempdir().unwrap();
        let house = house(root.path());
        let text = "image = \"/bin/true\"\nstop = [\"/bin/stop\"]";
        let plain = manifest(text, "[sandbox]\nprocesses_max = 3\n");
        let plan = house.program(&plain, &[], &[]).unwrap().plan;
        assert!(plan.init);
        assert_eq!(plan.limits.processes_max, Some(4));
        assert_eq!((plan.commands.len(), place_of_check(&plain)), (1, None));
        let checked = manifest(text, "[health]\nkind = \"exec\"\ncommand = [\"/bin/check\", \"now\"]\n");
        let order = house.program(&checked, &[], &[]).unwrap();
        order.plan.validate(order.stored.len() + order.fds.len()).unwrap();
        let place = usize::from(place_of_check(&checked).unwrap());
        let command = &order.plan.commands[place];
        assert_eq!((place, command.path.as_str(), command.arguments.len()), (1, "/bin/check", 2));
        assert_eq!(order.plan.before, 0, "it is run when it is asked for");
    }

    #[test]
    fn sockets_are_handed_over_before_what_was_left_and_are_counted_and_named() {
        let root = tempfile::tempdir().unwrap();
        let of = |stored: &str, name: &str| HandedOver { stored: stored.to_owned(), name: name.to_owned() };
        let handed = [of("listen:mine:1", "http"), of("fd:mine:9", "left")];
        let order = house(root.path()).program(&manifest("image = \"/bin/true\"", ""), &[], &handed).unwrap();
        assert_eq!(order.stored, ["listen:mine:1", "fd:mine:9"]);
        order.plan.validate(order.stored.len() + order.fds.len()).unwrap();
        let slot_of = |target| order.plan.descriptors.iter().find(|d| d.target == target).unwrap().slot;
        // The log and the image are what is sent, after what the keeper has.
        assert_eq!([3, 4, 1, 2].map(slot_of), [0, 1, 2, 2]);
        assert_eq!(order.plan.executable, Executable::Slot(3));
        let has =
            |name: &str, value: &str| order.plan.environment.contains(&(name.to_owned(), value.to_owned()));
        assert!(has("LISTEN_FDS", "2") && has("LISTEN_FDNAMES", "http:left"));
        assert_eq!(order.plan.own_pid.as_deref(), Some("LISTEN_PID"));
    }

    #[test]
    fn what_is_published_is_its_inits_and_moves_nothing_of_what_it_is_handed_itself() {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().join("secret");
        std::fs::write(&secret, "s").unwrap();
        let sockets = "[[sockets]]\nname = \"a\"\nlisten = \"tcp:127.0.0.1:80\"\npublish = 8080\n\
                       [[sockets]]\nname = \"b\"\nlisten = \"tcp:127.0.0.1:81\"\n";
        let program =
            format!("image = \"/bin/true\"\nsecrets = [{{ name = \"s\", path = \"{}\" }}]", secret.display());
        let manifest = manifest(&program, sockets);
        let handed = crate::shell::listeners::handed_over(&manifest);
        assert_eq!(handed.len(), 1);
        let mut order = house(root.path()).program(&manifest, &[], &handed).unwrap();
        let (control, _) = sandbox::fdpass::Channel::pair().unwrap();
        watched::give(&mut order, control.into());
        order.plan.validate(order.stored.len() + order.fds.len()).unwrap();
        let watched = order.plan.watched.unwrap();
        let [one] = &watched.published[..] else { panic!("{watched:?}") };
        let [(stored, port)] = &published(&manifest)[..] else { panic!() };
        assert_eq!((&order.stored[one.slot as usize], one.port), (stored, *port));
        let slot_of = |target| order.plan.descriptors.iter().find(|d| d.target == target).unwrap().slot;
        assert_eq!(order.stored[slot_of(3) as usize], handed[0].stored);
        // The log, the image, the secrets and the channel are what is sent, in this order.
        assert_eq!((slot_of(1), &order.plan.executable, watched.slot), (2, &Executable::Slot(3), 5));
        assert!(order.plan.mounts.iter().any(|mount| matches!(mount, Mount::Sealed { slot: 4, .. })));
    }

    #[test]
    fn a_watchdog_tells_its_program_the_interval() {
        let root = tempfile::tempdir().unwrap();
        let watched = "[health]\nkind = \"sd_notify\"\nwatchdog_ms = 1500\n";
        let watched = manifest("image = \"/bin/true\"", watched);
        let plan = house(root.path()).program(&watched, &[], &[]).unwrap().plan;
        assert!(plan.environment.contains(&("WATCHDOG_USEC".to_owned(), "1500000".to_owned())));
        let plain = manifest("image = \"/bin/true\"", "[health]\nkind = \"sd_notify\"\n");
        let plan = house(root.path()).program(&plain, &[], &[]).unwrap().plan;
        assert!(!plan.environment.iter().any(|(name, _)| name == "WATCHDOG_USEC"));
    }

    #[test]
    fn a_service_sees_no_environment_but_its_own() {
        let root = tempfile::tempdir().unwrap();
        let plan = house(root.path())
            .program(&manifest("image = \"/bin/true\"\nenv = { PATH = \"/x\" }", ""), &[], &[])
            .unwrap()
            .plan;
        let expected = [("PATH", "/x"), ("HOME", "/state")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(plan.environment, expected);
    }
}
