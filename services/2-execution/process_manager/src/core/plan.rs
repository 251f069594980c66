//! The two plans of a program: the monitor's with the house around it, and the program's inside.

use base::ProcessId;
use chain::payload::process::ResourceLimits;
use kit::env::{CREDENTIALS_FOLDER, CREDENTIALS_VARIABLE};
use sandbox::{
    Access, Descriptor, Executable, Guard, GuardSet, Landlock, Limits, Mount, Namespaces, PathRule, Plan,
    Resource, Rlimit, Seccomp, Sockets, UserName,
    seccomp::{NotifyCall, Profile},
};

use super::{
    PathGrant, Spawn, Watch, io_limits,
    limits::{LAYER_BYTES_MAX, TMP_BYTES_MAX},
    secret,
    watch::is_below,
};

/// Slot of the program's image in the monitor's launch.
pub const IMAGE_SLOT: u32 = 3;
/// Slots of a launch, in order: monitor's own image, configuration, control socket, program's image, files for
/// standard output and error, the monitor's own standard error. All but the first become descriptors from 3 on.
pub const MONITOR_SLOTS: u32 = 7;
/// After them, if the program has secrets: their contents, one after the other.
pub const SECRETS_SLOT: u32 = MONITOR_SLOTS;
/// Where a monitor has the folder of its program's layers, if that has any; of the launch it is the last slot.
pub const LAYERS_FD: u32 = 8;
/// Where a monitor has the sockets on which its program asks for names, of UDP and behind it of TCP, if it has a way out.
pub const NAMES_FD: u32 = 9;
/// Where it has the packets that its program sends, if that has a place for datagrams.
pub const DATAGRAMS_FD: u32 = 11;
/// What a program with a way out has as its list of name servers, below the images.
pub use kit::way_out::NAME_SERVERS_FILE;
const NAME_SERVERS: &str = "/etc/resolv.conf";
/// The last slot that becomes a descriptor.
const ERROR_SLOT: u32 = MONITOR_SLOTS - 1;

/// Shown read-only to every program, where the host has it.
const SHOWN: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc"];
/// Secrets below what is shown.
const SECRETS: [&str; 16] = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/security/opasswd",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/ssl/private",
    "/etc/krb5.keytab",
    "/etc/NetworkManager/system-connections",
    "/etc/wireguard",
    "/etc/bailiwick",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssh/ssh_host_ecdsa_key",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_dsa_key",
];
const HOME: &str = "/home/program";
const IMAGE_FOLDER: &str = "/run/bailiwick/image";
/// Calls whose refusals are named. Sending is left out: each `send` on any socket is one.
const NOTICED: [NotifyCall; 4] =
    [NotifyCall::Open, NotifyCall::Connect, NotifyCall::Exec, NotifyCall::ChangeName];

/// Calls that the monitor answers where they are about TCP: another program with a way out may have handed over a socket of
/// the host's network, which is recognised by nobody else.
const ANSWERED: [NotifyCall; 3] = [NotifyCall::Connect, NotifyCall::Bind, NotifyCall::Listen];

/// What the host looks like, as the supervisor told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where the images lie on the host.
    pub images: String,
    /// Folders of the node itself, which no grant shows.
    pub hidden: Vec<String>,
    /// `argv` of a monitor.
    pub monitor: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Plans {
    /// For the keeper.
    pub monitor: Plan,
    /// For the monitor. Its slots are the image and the standard streams.
    pub program: Plan,
    pub watch: Watch,
    /// Where the image stands inside; none if there is no mount namespace.
    pub image_path: Option<String>,
}

/// Builds both. The number names cgroup, logs and the layers of copy-on-write folders.
#[must_use]
pub fn plans(spawn: &Spawn, host: &Host, pid: ProcessId) -> Plans {
    let label = &format!("program-{pid}");
    let mounted = !spawn.disabled.contains(Guard::Mountns);
    let image_path = image_path(spawn);
    let mounts = mounts(spawn, host, pid, &image_path);
    let mut outer = Plan::new(label, Executable::Slot(0), Profile::Program).with_mounts(mounts);
    let of_image = spawn.root.as_ref().is_some_and(|root| root.tree.is_some());
    // An image has secrets of its own, if any.
    outer.masked.extend(SECRETS.iter().filter(|_| !of_image).map(|path| (*path).to_owned()));
    let shown = spawn.paths.iter().map(|grant| (grant.source.as_str(), grant.inside.as_str()));
    let usual = SHOWN.iter().filter(|_| spawn.root.is_none()).map(|path| (*path, *path));
    outer.masked.extend(hidden_inside(shown.chain(usual), host));
    let watch = Watch {
        granted: spawn.all_paths().map(|grant| grant.inside.clone()).collect(),
        home: home(spawn).to_owned(),
        masked: outer.masked.iter().filter(|path| !is_below(path, "/proc")).cloned().collect(),
    };
    let mut landlock = landlock(&outer, mounted);
    // The monitor carries out what is about TCP, in the program's own network too.
    landlock.tcp = !is_answered(spawn);
    (outer.arguments, outer.part) = (host.monitor.clone(), true);
    outer.namespaces = Namespaces::ALL;
    // The monitor reads what its program names and forks it: its locks are the namespaces and its lost capabilities.
    (outer.landlock, outer.seccomp) = (None, None);
    outer.required = GuardSet::of(&[
        Guard::Mountns,
        Guard::Pidns,
        Guard::Netns,
        Guard::Ipcns,
        Guard::NoNewPrivs,
        Guard::Caps,
    ]);
    if let Some((uid, gid)) = spawn.root.as_ref().and_then(|root| root.user) {
        (outer.identity.uid, outer.identity.gid) = (uid, gid);
    }
    outer.user_name = user_name(spawn);
    outer.loopback = true;
    outer.name_server = (!spawn.egress.is_empty()).then_some(NAMES_FD);
    outer.datagrams = has_datagrams(spawn).then_some(DATAGRAMS_FD);
    outer.priority = spawn.priority;
    outer.limits = outer_limits(&spawn.limits);
    outer.disabled = spawn.disabled;
    outer.working_directory.clone_from(&spawn.cwd);
    outer.descriptors = (1..ERROR_SLOT).map(|slot| Descriptor { slot, target: slot + 2 }).collect();
    outer.descriptors.push(Descriptor { slot: ERROR_SLOT, target: 2 });
    if layers_bytes_max(spawn).is_some() {
        let slot = MONITOR_SLOTS + u32::from(!spawn.secrets.is_empty());
        outer.descriptors.push(Descriptor { slot, target: LAYERS_FD });
    }
    let program = program(spawn, label, landlock, mounted.then_some(image_path.as_str()));
    Plans { monitor: outer, program, watch, image_path: mounted.then_some(image_path) }
}

/// Where the program can see the file that was found, its image stands over it: programs that look around themselves, for
/// libraries (`$ORIGIN`) or for what came with them, find what they expect.
fn image_path(spawn: &Spawn) -> String {
    let name = super::normalize(&spawn.name);
    let is_absolute = spawn.name.starts_with('/');
    if spawn.root.is_some() && is_absolute {
        return name;
    }
    let is_visible = |path: &str| {
        let shown = SHOWN.iter().filter(|_| spawn.root.is_none());
        let shown = shown.into_iter().any(|top| is_below(path, top) && path != *top);
        shown || spawn.paths.iter().any(|grant| is_below(path, &grant.inside) && path != grant.inside)
    };
    let named = Some(name.as_str()).filter(|_| is_absolute);
    let found = spawn.path.as_deref().filter(|_| spawn.root.is_none());
    if let Some(path) = named.into_iter().chain(found).find(|path| is_visible(path)) {
        return path.to_owned();
    }
    format!("{IMAGE_FOLDER}/{}", name.rsplit('/').next().unwrap_or_default())
}

/// Of the ids that no image says anything about.
const USER_NAME: &str = "program";

/// A name for the program's ids, unless it may change what it sees of names.
fn user_name(spawn: &Spawn) -> Option<UserName> {
    let is_own = |grant: &PathGrant| {
        let holds = |file: &&str| is_below(file, &grant.inside);
        (grant.writable || grant.copied) && ["/etc/passwd", "/etc/group"].iter().any(holds)
    };
    let home = home(spawn);
    let is_plain = !home.is_empty() && !home.contains([':', '\n']);
    (is_plain && !spawn.all_paths().any(is_own))
        .then(|| UserName { name: USER_NAME.to_owned(), home: home.to_owned() })
}

/// Where a program is at home.
fn home(spawn: &Spawn) -> &str {
    spawn.root.as_ref().map_or(HOME, |root| &root.home)
}

/// What a program may write to its copy-on-write folders, if it has any.
#[must_use]
pub fn layers_bytes_max(spawn: &Spawn) -> Option<u64> {
    let has_one = spawn.all_paths().any(|grant| grant.copied);
    has_one.then(|| spawn.limits.disk_bytes.unwrap_or(LAYER_BYTES_MAX))
}

/// Where the layers of a program lie on the host, one folder for each.
pub(super) fn layer_folder(host: &Host, pid: ProcessId) -> String {
    format!("{}/layers/{pid}", host.images)
}

fn mounts(spawn: &Spawn, host: &Host, pid: ProcessId, image_path: &str) -> Vec<Mount> {
    let tmpfs =
        |target: &str, size_bytes_max, mode| Mount::Tmpfs { target: target.to_owned(), size_bytes_max, mode };
    let bind = |source: &str, target: &str, writable, optional| Mount::Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        writable,
        optional,
    };
    let private = spawn.limits.disk_bytes.unwrap_or(TMP_BYTES_MAX);
    let own = [Mount::Proc, Mount::Dev, tmpfs("/tmp", private, 0o1777), tmpfs("/run", 1 << 20, 0o755)];
    // What a program changes in an image is not kept, so those layers have the last numbers and are not recorded.
    let mut layers = (0..).map(|number: u32| format!("{}/{number}", layer_folder(host, pid)));
    let mut show = |grant: &PathGrant| match grant.copied.then(|| layers.next()).flatten() {
        Some(layer) => Mount::Overlay { source: grant.source.clone(), target: grant.inside.clone(), layer },
        None => bind(&grant.source, &grant.inside, grant.writable, false),
    };
    let granted: Vec<Mount> = spawn.paths.iter().map(&mut show).collect();
    let mut mounts: Vec<Mount> = Vec::new();
    match &spawn.root {
        None => {
            mounts.extend(SHOWN.iter().map(|path| bind(path, path, false, true)));
            mounts.extend(own);
            mounts.extend([
                tmpfs(HOME, private, 0o700),
                tmpfs("/root", 4096, 0o700),
                Mount::Symlink { target: "/var/tmp".to_owned(), points_to: "../tmp".to_owned() },
            ]);
        }
        Some(root) => {
            mounts.extend(root.links.iter().map(|(name, points_to)| Mount::Symlink {
                target: format!("/{name}"),
                points_to: points_to.clone(),
            }));
            mounts.extend(root.paths.iter().map(&mut show));
            mounts.extend(own);
        }
    }
    mounts.extend(granted);
    mounts.extend(secret::mount(&spawn.secrets, SECRETS_SLOT));
    if !spawn.egress.is_empty() {
        mounts.push(bind(&format!("{}/{NAME_SERVERS_FILE}", host.images), NAME_SERVERS, false, false));
    }
    let image = format!("{}/blake3-{}", host.images, spawn.image.to_hex());
    mounts.push(bind(&image, image_path, false, false));
    mounts
}

/// Where the node's own folders would show through what is mounted: pairs of a host's path and where it is inside.
pub(super) fn hidden_inside<'a>(shown: impl Iterator<Item = (&'a str, &'a str)>, host: &Host) -> Vec<String> {
    let inside = |hidden: &str, source: &str, target: &str| {
        if is_below(source, hidden) {
            return Some(target.to_owned());
        }
        let rest = hidden.strip_prefix(source.trim_end_matches('/')).filter(|_| is_below(hidden, source))?;
        Some(format!("{}{rest}", target.trim_end_matches('/')))
    };
    let all: Vec<(&str, &str)> = shown.collect();
    host.hidden
        .iter()
        .flat_map(|hidden| all.iter().filter_map(move |(source, target)| inside(hidden, source, target)))
        .collect()
}

/// The rules that allow what the mounts show; where there are no mounts, the same of the host.
fn landlock(outer: &Plan, mounted: bool) -> Landlock {
    let mut landlock = Landlock::of_mounts(&outer.mounts);
    if !mounted {
        let mut rules = vec![PathRule { path: "/".to_owned(), access: Access::List }];
        for mount in &outer.mounts {
            let rule = match mount {
                Mount::Bind { source, writable, .. } => {
                    (source.as_str(), if *writable { Access::Write } else { Access::Read })
                }
                Mount::Proc => ("/proc", Access::Modify),
                Mount::Dev => ("/dev", Access::Modify),
                // Without mounts there is no layer, and the folder itself must not be changed.
                Mount::Overlay { source, .. } => (source.as_str(), Access::Read),
                Mount::Tmpfs { .. } | Mount::Symlink { .. } | Mount::Folder { .. } | Mount::Sealed { .. } => {
                    continue;
                }
            };
            rules.push(PathRule { path: rule.0.to_owned(), access: rule.1 });
        }
        landlock.rules = rules;
    }
    // There is no network but its own loopback, which programs use to talk with themselves.
    landlock.tcp = true;
    landlock
}

fn outer_limits(limits: &ResourceLimits) -> Limits {
    Limits {
        memory_bytes_max: Some(limits.memory_bytes),
        // The monitor is one of them.
        processes_max: Some(u64::from(limits.threads) + 1),
        cpu_weight: None,
        cpu_millicores_max: limits.cpu_millicores,
        cpu_seconds_max: None,
        io: io_limits::of_program(limits),
    }
}

/// Whether the monitor answers what is about TCP: not of a program that an admin left in the host's network, or without the
/// filter that would show it.
fn is_answered(spawn: &Spawn) -> bool {
    let is_shown = !spawn.disabled.contains(Guard::Netns) && !spawn.disabled.contains(Guard::Seccomp);
    is_shown || !spawn.egress.is_empty()
}

/// Whether a place is for datagrams, which then leave its network as packets. `network` reads the places.
#[must_use]
pub fn has_datagrams(spawn: &Spawn) -> bool {
    let is_own = !spawn.disabled.contains(Guard::Netns);
    is_own && spawn.egress.iter().any(|place| place.ends_with("/udp"))
}

/// Calls that the monitor sees.
fn shown(spawn: &Spawn) -> Vec<NotifyCall> {
    let mut shown = if spawn.notice_refused { NOTICED.to_vec() } else { Vec::new() };
    if is_answered(spawn) {
        shown.retain(|call| !ANSWERED.contains(call));
        shown.extend(ANSWERED);
    }
    if !spawn.egress.is_empty() {
        shown.push(NotifyCall::Socket);
    }
    shown
}

fn program(spawn: &Spawn, label: &str, landlock: Landlock, image_path: Option<&str>) -> Plan {
    let executable = match image_path {
        Some(path) => Executable::Path(path.to_owned()),
        None => Executable::Slot(0),
    };
    let mut plan = Plan::new(label, executable, Profile::Program);
    plan.arguments = std::iter::once(&spawn.name).chain(&spawn.args).cloned().collect();
    plan.environment = environment(spawn);
    plan.working_directory.clone_from(&spawn.cwd);
    plan.namespaces = Namespaces::NONE;
    plan.landlock = Some(landlock);
    plan.seccomp = Some(Seccomp {
        profile: Profile::Program,
        sockets: Sockets { unix: true, inet: true, netlink_route: true },
        notify: shown(spawn),
    });
    let files = u64::from(spawn.limits.files);
    plan.rlimits.push(Rlimit { resource: Resource::OpenFiles, soft: files, hard: files });
    // Between two looks at its layers, one file grows to this and no further.
    if let Some(bytes) = spawn.limits.disk_bytes.or(layers_bytes_max(spawn)) {
        plan.rlimits.push(Rlimit { resource: Resource::FileBytes, soft: bytes, hard: bytes });
    }
    if spawn.limits.cpu_time_ms > 0 {
        // The monitor counts the whole tree; this holds one process if it cannot.
        let seconds = spawn.limits.cpu_time_ms.div_ceil(1000) + 1;
        plan.rlimits.push(Rlimit { resource: Resource::CpuSeconds, soft: seconds, hard: seconds + 1 });
    }
    plan.disabled = spawn.disabled;
    plan.controlling_terminal = spawn.terminal.is_some();
    plan.descriptors = (0..3).map(|stream| Descriptor { slot: stream + 1, target: stream }).collect();
    plan
}

/// Ids of the capabilities that a program was given, separated by spaces; there if it was given any.
pub(super) const CAPABILITIES_VARIABLE: &str = "BAILIWICK_CAPABILITIES";

/// Exactly what was given, the three without which nothing runs, and which capabilities came with it.
fn environment(spawn: &Spawn) -> Vec<(String, String)> {
    let usual = [("PATH", kit::images::USUAL_PATH), ("HOME", home(spawn)), ("TMPDIR", "/tmp")];
    let mut environment = spawn.env.clone();
    for (name, value) in usual {
        if !environment.iter().any(|(given, _)| given == name) {
            environment.push((name.to_owned(), value.to_owned()));
        }
    }
    if spawn.proxy {
        for (name, value) in kit::way_out::proxy_variables() {
            if !environment.iter().any(|(given, _)| *given == name) {
                environment.push((name, value));
            }
        }
    }
    if !spawn.secrets.is_empty() {
        environment.retain(|(name, _)| name != CREDENTIALS_VARIABLE);
        environment.push((CREDENTIALS_VARIABLE.to_owned(), CREDENTIALS_FOLDER.to_owned()));
    }
    if !spawn.capabilities.is_empty() {
        let ids: Vec<String> = spawn.capabilities.iter().map(ToString::to_string).collect();
        environment.retain(|(name, _)| name != CAPABILITIES_VARIABLE);
        environment.push((CAPABILITIES_VARIABLE.to_owned(), ids.join(" ")));
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::process_manager::v1 as pb;

    fn spawn(change: impl FnOnce(&mut pb::SpawnRequest)) -> Spawn {
        let mut request = pb::SpawnRequest {
            image: vec![1; 32],
            identity: vec![2; 32],
            name: "cat".to_owned(),
            idempotency_key: vec![3; 16],
            args: vec!["a b".to_owned(), "c".to_owned()],
            ..pb::SpawnRequest::default()
        };
        change(&mut request);
        let all: Vec<String> = Guard::ALL.iter().map(|guard| guard.name().to_owned()).collect();
        Spawn::parse(request, &all).unwrap()
    }

    fn host() -> Host {
        Host {
            images: "/srv/node/state/images".to_owned(),
            hidden: vec!["/srv/node/state".to_owned(), "/home/me/.local/state/bailiwick".to_owned()],
            monitor: vec!["bailiwick".to_owned(), "process".to_owned(), "monitor".to_owned()],
        }
    }

    fn grant(path: &str, inside: &str, writable: bool) -> pb::PathGrant {
        let (path, inside) = (path.to_owned(), inside.to_owned());
        pb::PathGrant { path, inside, writable, copy_on_write: false }
    }

    /// covers: PRC-10
    #[test]
    fn both_plans_are_valid_and_arguments_stay_in_order() {
        let plans = plans(&spawn(|_| {}), &host(), ProcessId(1));
        assert_eq!(plans.monitor.validate(MONITOR_SLOTS as usize), Ok(()));
        assert_eq!(plans.program.validate(4), Ok(()));
        assert_eq!(plans.program.arguments, ["cat", "a b", "c"]);
        assert_eq!(plans.image_path.as_deref(), Some("/run/bailiwick/image/cat"));
        assert_eq!(plans.monitor.limits.processes_max, Some(65));
        assert!(plans.program.no_new_privs && plans.program.capabilities_kept == 0);
        assert_eq!(plans.program.seccomp.unwrap().notify, ANSWERED);
    }

    #[test]
    fn a_program_with_a_proxy_is_told_of_it_in_both_spellings_and_what_was_given_stays() {
        let environment = |proxy| {
            let given = [("ALL_PROXY".to_owned(), "mine".to_owned())];
            let spawn = spawn(|r| {
                (r.proxy, r.egress, r.env) = (proxy, vec!["192.0.2.1:443".to_owned()], given.into());
            });
            plans(&spawn, &host(), ProcessId(1)).program.environment
        };
        let has = |all: &[(String, String)], name: &str, value: &str| {
            all.iter().filter(|(one, _)| one == name).map(|(_, value)| value.as_str()).eq([value])
        };
        let with = environment(true);
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
            assert!(has(&with, name, "http://127.0.0.1:3128"), "{name}: {with:?}");
        }
        assert!(has(&with, "ALL_PROXY", "mine") && has(&with, "all_proxy", "socks5h://127.0.0.1:3128"));
        assert!(
            has(&with, "NO_PROXY", "localhost,127.0.0.1,::1")
                && with.iter().any(|(one, _)| one == "no_proxy")
        );
        assert!(!environment(false).iter().any(|(name, _)| name.eq_ignore_ascii_case("http_proxy")));
    }

    #[test]
    fn a_way_out_is_watched_and_held_by_landlock_too() {
        for notice_refused in [false, true] {
            let with = |egress: &[&str]| {
                let egress = egress.iter().map(|place| (*place).to_owned()).collect();
                plans(
                    &spawn(|r| (r.egress, r.notice_refused) = (egress, notice_refused)),
                    &host(),
                    ProcessId(1),
                )
            };
            let (open, shut) = (with(&["192.0.2.1:443"]), with(&[]));
            assert_eq!(open.monitor.validate(MONITOR_SLOTS as usize), Ok(()));
            assert_eq!((open.monitor.name_server, shut.monitor.name_server), (Some(NAMES_FD), None));
            let has_list = |plans: &Plans| {
                let is_it =
                    |mount: &&Mount| matches!(mount, Mount::Bind { target, .. } if target == NAME_SERVERS);
                plans.monitor.mounts.iter().filter(is_it).count()
            };
            assert_eq!((has_list(&open), has_list(&shut)), (1, 0));
            assert_eq!((open.monitor.datagrams, shut.monitor.datagrams), (None, None));
            let carried = with(&["192.0.2.1:443", "192.0.2.1:53/udp"]).monitor;
            assert_eq!(carried.validate(MONITOR_SLOTS as usize), Ok(()));
            assert_eq!(carried.datagrams, Some(DATAGRAMS_FD));
            let (open, shut) = (open.program, shut.program);
            let shown = |plan: &Plan| plan.seccomp.clone().unwrap().notify;
            // One without a way out may be handed a socket by one that has it.
            for plan in [&open, &shut] {
                assert!(ANSWERED.iter().all(|call| shown(plan).contains(call)));
            }
            assert!(
                shown(&open).contains(&NotifyCall::Socket) && !shown(&shut).contains(&NotifyCall::Socket)
            );
            assert_eq!((open.landlock.unwrap().tcp, shut.landlock.unwrap().tcp), (false, false));
        }
        for disabled in ["netns", "seccomp"] {
            let bare =
                plans(&spawn(|r| r.disabled_guards = vec![disabled.to_owned()]), &host(), ProcessId(1));
            assert!(bare.program.landlock.unwrap().tcp, "nobody would carry it out: {disabled}");
            assert!(bare.program.seccomp.unwrap().notify.is_empty(), "{disabled}");
        }
    }

    #[test]
    fn an_absolute_name_that_is_visible_stays_the_path() {
        let path = |name: &str| {
            let spawn = spawn(|r| {
                r.name = name.to_owned();
                r.paths = vec![grant("/home/me/repo", "/repo", false)];
            });
            plans(&spawn, &host(), ProcessId(1)).image_path.unwrap()
        };
        assert_eq!(path("/usr/bin/cc"), "/usr/bin/cc");
        assert_eq!(path("/repo/tool"), "/repo/tool");
        assert_eq!(path("/home/me/repo/tool"), "/run/bailiwick/image/tool");
        assert_eq!(path("/usr"), "/run/bailiwick/image/usr");
        assert_eq!(path("./tool"), "/run/bailiwick/image/tool");
    }

    #[test]
    fn what_was_found_runs_where_it_was_found_if_it_is_seen_there() {
        let path = |name: &str, found: &str| {
            let spawn = spawn(|r| {
                (r.name, r.path) = (name.to_owned(), found.to_owned());
                r.paths = vec![grant("/home/me/repo", "", false), grant("/x/tool", "/tool", false)];
            });
            plans(&spawn, &host(), ProcessId(1)).image_path.unwrap()
        };
        assert_eq!(path("java", "/usr/bin/java"), "/usr/bin/java");
        assert_eq!(path("./tool", "/home/me/repo/tool"), "/home/me/repo/tool");
        assert_eq!(path("tool", "/opt/bin/tool"), "/run/bailiwick/image/tool");
        assert_eq!(path("/bin/cc", "/usr/bin/gcc"), "/bin/cc", "what was named comes first");
        assert_eq!(path("tool", ""), "/run/bailiwick/image/tool");
        assert_eq!(path("tool", "/tool"), "/run/bailiwick/image/tool", "it is another mount");
    }

    #[test]
    fn a_program_has_a_name_unless_it_may_change_names() {
        let named = |source: &str, inside: &str, writable: bool, copied: bool| {
            let spawn = spawn(|r| {
                r.paths = vec![pb::PathGrant { copy_on_write: copied, ..grant(source, inside, writable) }];
            });
            plans(&spawn, &host(), ProcessId(1)).monitor.user_name
        };
        let name = UserName { name: "program".to_owned(), home: "/home/program".to_owned() };
        assert_eq!(named("/data", "", true, false), Some(name.clone()));
        assert_eq!(named("/x", "/etc", false, false), Some(name));
        for (inside, writable) in [("/etc", true), ("/etc", false), ("/etc/passwd", true)] {
            assert_eq!(named("/x", inside, writable, !writable), None, "{inside}");
        }
    }

    #[test]
    fn copied_folders_have_a_layer_each_and_the_others_none() {
        let copied = |path: &str| pb::PathGrant { copy_on_write: true, ..grant(path, "", false) };
        let spawn = spawn(|r| r.paths = vec![copied("/a"), grant("/b", "", true), copied("/c")]);
        let plans = plans(&spawn, &host(), ProcessId(9));
        let overlays: Vec<(String, String)> = plans
            .monitor
            .mounts
            .iter()
            .filter_map(|mount| match mount {
                Mount::Overlay { target, layer, .. } => Some((target.clone(), layer.clone())),
                _ => None,
            })
            .collect();
        let layer = |number: u32| format!("/srv/node/state/images/layers/9/{number}");
        assert_eq!(overlays, [("/a".to_owned(), layer(0)), ("/c".to_owned(), layer(1))]);
    }

    #[test]
    fn the_disk_of_a_program_is_limited_in_all_its_folders() {
        let with = |disk_bytes: u64, copied: bool| {
            let spawn = spawn(|r| {
                r.resource_limits = Some(pb::ResourceLimits { disk_bytes, ..Default::default() });
                r.paths = vec![pb::PathGrant { copy_on_write: copied, ..grant("/a", "", false) }];
            });
            let plans = plans(&spawn, &host(), ProcessId(9));
            let private = plans.monitor.mounts.iter().find_map(|mount| match mount {
                Mount::Tmpfs { target, size_bytes_max, .. } if target == "/tmp" => Some(*size_bytes_max),
                _ => None,
            });
            let file = plans.program.rlimits.iter().find(|limit| limit.resource == Resource::FileBytes);
            let looks =
                plans.monitor.descriptors.contains(&Descriptor { slot: MONITOR_SLOTS, target: LAYERS_FD });
            (private.unwrap(), file.map(|limit| limit.hard), layers_bytes_max(&spawn), looks)
        };
        let given = 3 << 20;
        assert_eq!(with(0, false), (TMP_BYTES_MAX, None, None, false));
        assert_eq!(with(given, false), (given, Some(given), None, false));
        assert_eq!(with(0, true), (TMP_BYTES_MAX, Some(LAYER_BYTES_MAX), Some(LAYER_BYTES_MAX), true));
        assert_eq!(with(given, true), (given, Some(given), Some(given), true));
    }

    #[test]
    fn the_nodes_own_folders_do_not_show_through_a_grant() {
        let masked = |source: &str, inside: &str| {
            let spawn = spawn(|r| r.paths = vec![grant(source, inside, true)]);
            plans(&spawn, &host(), ProcessId(1)).monitor.masked
        };
        assert!(masked("/home/me", "").contains(&"/home/me/.local/state/bailiwick".to_owned()));
        assert!(masked("/home/me", "/m").contains(&"/m/.local/state/bailiwick".to_owned()));
        assert!(masked("/", "/host").contains(&"/host/srv/node/state".to_owned()));
        assert!(masked("/srv/node/state", "/x").contains(&"/x".to_owned()));
        assert!(masked("/srv/node/state/axiom", "/x").contains(&"/x".to_owned()));
        for other in ["/home/other", "/srv/node/stat", "/srv/node/states", "/home/me/.local/state/bail"] {
            let secrets = SECRETS.map(str::to_owned);
            assert!(
                masked(other, "/x").iter().all(|path| secrets.contains(path) || path.starts_with("/proc"))
            );
        }
    }

    #[test]
    fn a_limit_of_processor_time_holds_each_process_and_none_is_none() {
        let limit = |cpu_time_ms| {
            let limits = pb::ResourceLimits { cpu_time_ms, ..Default::default() };
            let plan = plans(&spawn(|r| r.resource_limits = Some(limits)), &host(), ProcessId(1)).program;
            plan.rlimits.into_iter().find(|limit| limit.resource == Resource::CpuSeconds)
        };
        assert!(limit(0).is_none());
        // The monitor counts the tree and comes first: this is a second late, and the kernel kills one second later.
        for (ms, soft) in [(1, 2), (1000, 2), (1001, 3), (60_000, 61)] {
            let found = limit(ms).unwrap();
            assert_eq!((found.soft, found.hard), (soft, soft + 1), "{ms} ms");
        }
    }

    #[test]
    fn private_folders_have_room_and_streams_stand_in_order() {
        let plans = plans(&spawn(|_| {}), &host(), ProcessId(1));
        let sizes = plans.monitor.mounts.iter().filter_map(|mount| match mount {
            Mount::Tmpfs { size_bytes_max, .. } => Some(*size_bytes_max),
            _ => None,
        });
        assert!(sizes.into_iter().all(|bytes| bytes >= 4096));
        let pairs =
            |plan: &Plan| plan.descriptors.iter().map(|one| (one.slot, one.target)).collect::<Vec<_>>();
        assert_eq!(pairs(&plans.program), [(1, 0), (2, 1), (3, 2)]);
        assert_eq!(pairs(&plans.monitor), [(1, 3), (2, 4), (3, 5), (4, 6), (5, 7), (6, 2)]);
    }

    /// covers: PRC-11, PRC-19
    #[test]
    fn the_environment_is_what_was_given_and_three_defaults() {
        let spawn = spawn(|r| {
            r.env = [("PATH", "/x"), ("A", "1")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        });
        let plan = plans(&spawn, &host(), ProcessId(1)).program;
        let pairs: Vec<String> =
            plan.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(pairs, ["A=1", "PATH=/x", "HOME=/home/program", "TMPDIR=/tmp"]);
    }

    /// covers: CAP-07
    #[test]
    fn a_program_is_told_the_capabilities_that_it_was_given() {
        let spawn = spawn(|r| {
            r.env = [(CAPABILITIES_VARIABLE.to_owned(), "made up".to_owned())].into();
            r.capabilities = vec![vec![1; 16], vec![2; 16]];
        });
        let plan = plans(&spawn, &host(), ProcessId(1)).program;
        let told: Vec<&str> = plan
            .environment
            .iter()
            .filter(|(name, _)| name == CAPABILITIES_VARIABLE)
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(told, [format!("{} {}", "01".repeat(16), "02".repeat(16))]);
    }

    #[test]
    fn without_a_mount_namespace_the_rules_name_the_host() {
        let spawn = spawn(|r| {
            r.disabled_guards = vec!["mountns".to_owned()];
            r.paths = vec![grant("/data", "/inside", true)];
        });
        let plans = plans(&spawn, &host(), ProcessId(1));
        assert_eq!(plans.program.executable, Executable::Slot(0));
        let rules = plans.program.landlock.unwrap().rules;
        assert!(rules.contains(&PathRule { path: "/data".to_owned(), access: Access::Write }));
        assert!(!rules.iter().any(|rule| rule.path == "/inside" || rule.path == "/tmp"));
    }
}
