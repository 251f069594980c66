//! The topics of a rating: what each weighs and how bad its lines are.

use super::{Found, Names, Subject, User, places};

pub(super) struct Topic {
    pub(super) name: &'static str,
    /// Against the others; what leads to the host's files and rights weighs most.
    pub(super) weight: u32,
    pub(super) look: fn(&Subject) -> Vec<Found>,
}

pub(super) const TOPICS: &[Topic] = &[
    Topic { name: "writable files", weight: 22, look: writable },
    Topic { name: "readable files", weight: 10, look: readable },
    Topic { name: "network", weight: 16, look: network },
    Topic { name: "listening", weight: 4, look: listening },
    Topic { name: "user", weight: 10, look: user },
    Topic { name: "privileges", weight: 20, look: privileges },
    Topic { name: "node", weight: 4, look: node },
    Topic { name: "secrets", weight: 3, look: secrets },
    Topic { name: "limits", weight: 5, look: limits },
    Topic { name: "record", weight: 2, look: record },
    Topic { name: "image", weight: 3, look: image },
    Topic { name: "guards", weight: 40, look: guards },
];

/// What follows of writing somewhere, by the place: the first that matches, at it or below it.
const WRITING: &[(&str, u32, &str)] = &[
    ("/etc", 10, "changes who may do what on the host"),
    ("/usr", 10, "changes programs that others run"),
    ("/bin", 10, "changes programs that others run"),
    ("/sbin", 10, "changes programs that others run"),
    ("/lib", 10, "changes libraries that others load"),
    ("/lib64", 10, "changes libraries that others load"),
    ("/boot", 10, "changes what the machine starts"),
    ("/dev", 10, "reaches devices"),
    ("/sys", 10, "changes settings of the kernel"),
    ("/root", 9, "changes what root's shell runs"),
    ("/run", 7, "reaches sockets and state of the host's services"),
    ("/var/spool/cron", 10, "has the host run commands"),
];

/// What is alone in a folder of everybody: all of it.
const WHOLE: &[(&str, u32, u32)] =
    &[("/", 10, 10), ("/home", 8, 6), ("/var", 8, 5), ("/srv", 5, 3), ("/opt", 7, 2)];

/// Linux capabilities: what each is good for, whoever has it.
const PRIVILEGES: &[(&[&str], u32, &str)] = &[
    (&["net_bind_service", "wake_alarm", "block_suspend", "lease"], 1, "little can be done with it"),
    (&["sys_nice", "ipc_lock", "sys_resource", "audit_write"], 3, "takes resources from others"),
    (&["kill", "setpcap", "sys_time", "sys_tty_config", "net_raw", "net_broadcast"], 4, "disturbs others"),
    (
        &["chown", "fowner", "fsetid", "linux_immutable", "ipc_owner", "audit_control", "syslog"],
        6,
        "changes files and settings of others",
    ),
    (
        &["setuid", "setgid", "dac_override", "dac_read_search", "net_admin", "sys_chroot"],
        8,
        "acts as somebody else, or past permissions",
    ),
];
const PRIVILEGE_UNKNOWN: (u32, &str) = (10, "leads out of a sandbox, or nobody knows where it leads");

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn named(subject: &Subject, manifest: &str, flag: &str, value: &str) -> String {
    match subject.names {
        Names::Manifest => format!("{manifest} = {value}"),
        Names::Flags => format!("{flag} {value}"),
    }
}

fn whole(path: &str) -> Option<(u32, u32)> {
    let trimmed = path.trim_end_matches('/');
    let path = if trimmed.is_empty() { "/" } else { trimmed };
    WHOLE.iter().find(|(folder, ..)| *folder == path).map(|(_, write, read)| (*write, *read))
}

fn writable(subject: &Subject) -> Vec<Found> {
    let direct = subject.writable.iter().map(|path| {
        let known = WRITING.iter().find(|(folder, ..)| is_below(path, folder));
        let (badness, reason) = match (known, whole(path)) {
            (Some((_, badness, reason)), _) => (*badness, *reason),
            (None, Some((badness, _))) => (badness, "changes files of everybody on the host"),
            (None, None) => (3, "changes files of the host, for good"),
        };
        Found {
            line: named(subject, "program.fs", "--fs", &format!("{path}:rw")),
            badness,
            reason: reason.to_owned(),
            lower: "name only the folder it must change, or show it read-only or copy-on-write".to_owned(),
        }
    });
    let copied = subject.copied.iter().map(|path| Found {
        line: named(subject, "program.fs", "--fs", &format!("{path}:cow")),
        badness: 1,
        reason: "changes files of the host after a person has looked at them".to_owned(),
        lower: "show it read-only".to_owned(),
    });
    direct.chain(copied).collect()
}

fn readable(subject: &Subject) -> Vec<Found> {
    let all = subject.readable.iter().chain(&subject.writable).chain(&subject.copied);
    let mut found: Vec<Found> = all
        .map(|path| Found {
            line: named(subject, "program.fs", "--fs", path),
            badness: whole(path).map_or(2, |(_, read)| read),
            reason: "reads files of the host".to_owned(),
            lower: "name only the files it must read".to_owned(),
        })
        .collect();
    if !subject.own_root {
        found.push(Found {
            line: "the host's /usr and /etc".to_owned(),
            badness: 1,
            reason: "sees which programs and settings the host has; secrets below them are hidden".to_owned(),
            lower: "run it from an image or a root of its own".to_owned(),
        });
    }
    found
}

fn network(subject: &Subject) -> Vec<Found> {
    if !subject.host_network {
        return way_out(subject);
    }
    vec![Found {
        line: named(subject, "sandbox.network", "--network", "\"host\""),
        badness: 10,
        reason: "reaches every address that the host reaches, and services of the host's loopback".to_owned(),
        lower: "give it a network of its own, places that it may reach ([egress]), and sockets that the node holds ([[sockets]])"
            .to_owned(),
    }]
}

/// However many places: less than all that the host reaches.
const PLACES_BADNESS_MAX: u32 = 7;

fn way_out(subject: &Subject) -> Vec<Found> {
    let mut places: Vec<Found> = subject
        .egress
        .iter()
        .map(|place| {
            let (badness, reason, lower) = places::look(place);
            Found {
                line: named(subject, "egress.allow", "--egress", &format!("{place:?}")),
                badness,
                reason: reason.to_owned(),
                lower: lower.to_owned(),
            }
        })
        .collect();
    places.sort_by_key(|place| std::cmp::Reverse(place.badness));
    let mut left = PLACES_BADNESS_MAX;
    for place in &mut places {
        place.badness = place.badness.min(left);
        left -= place.badness;
    }
    if subject.proxy {
        places.push(Found {
            line: if subject.names == Names::Manifest { "egress.proxy = true" } else { "--proxy" }.to_owned(),
            badness: 1,
            reason: "speaks HTTP and SOCKS with the node, which reads what it says".to_owned(),
            lower: "leave it out for a program that connects by itself".to_owned(),
        });
    }
    places
}

fn listening(subject: &Subject) -> Vec<Found> {
    let found = subject.listens.iter().map(|(address, far)| Found {
        line: named(subject, "sockets.listen", "listens on", &format!("{address:?}")),
        badness: if *far { 4 } else { 1 },
        reason: if *far {
            "is spoken to by other machines"
        } else {
            "is spoken to by programs of this machine"
        }
        .to_owned(),
        lower: "listen on the loopback, or on a unix socket".to_owned(),
    });
    found.collect()
}

fn user(subject: &Subject) -> Vec<Found> {
    let User::Host(user) = &subject.user else { return Vec::new() };
    let name = user.split(':').next().unwrap_or_default();
    let is_root = name == "root" || name.parse() == Ok(0_u32);
    let (badness, reason, lower) = if is_root {
        (10, "is root of the host: files of root are its own", "name a user of its own, or none")
    } else {
        (
            3,
            "is a user of the host: files of that user are its own",
            "leave `user` out, if it owns nothing there",
        )
    };
    vec![Found {
        line: named(subject, "program.user", "user", &format!("{user:?}")),
        badness,
        reason: reason.to_owned(),
        lower: lower.to_owned(),
    }]
}

fn privileges(subject: &Subject) -> Vec<Found> {
    let found = subject.privileges.iter().map(|name| {
        let known = PRIVILEGES.iter().find(|(names, ..)| names.contains(&name.as_str()));
        let (badness, reason) = known.map_or(PRIVILEGE_UNKNOWN, |(_, badness, reason)| (*badness, *reason));
        Found {
            line: named(subject, "program.privileges", "privilege", &format!("{name:?}")),
            badness,
            reason: reason.to_owned(),
            lower: "do without: a socket below 1024 can be bound by the node ([[sockets]])".to_owned(),
        }
    });
    found.collect()
}

fn node(subject: &Subject) -> Vec<Found> {
    let found = subject.permissions.iter().map(|permission| Found {
        line: named(subject, "identity.permissions", "permission", &format!("{permission:?}")),
        badness: 3,
        reason: "may ask this of the node; policy still decides each time".to_owned(),
        lower: "take away what it does not ask for".to_owned(),
    });
    found.collect()
}

fn secrets(subject: &Subject) -> Vec<Found> {
    let found = subject.secrets.iter().map(|name| Found {
        line: named(subject, "program.secrets", "--secret", name),
        badness: 2,
        reason: "knows a secret, which it can tell to whoever it reaches".to_owned(),
        lower: "let it use a key of the node instead of having one".to_owned(),
    });
    found.collect()
}

fn limits(subject: &Subject) -> Vec<Found> {
    let limits = [
        (subject.memory_limited, 4, "resources.memory_mb", "--mem", "memory"),
        (subject.processes_limited, 3, "sandbox.processes_max", "--threads", "processes"),
        (subject.disk_limited, 2, "sandbox.tmp_mb", "--disk", "room on the disk"),
        (subject.cpu_limited, 1, "resources.cpu_shares", "--cpus", "processor time"),
        (subject.io_limited, 1, "resources.io", "--io-read, --io-write", "time of the disks"),
    ];
    let missing = limits.into_iter().filter(|(limited, ..)| !limited);
    missing
        .map(|(_, badness, manifest, flag, what)| {
            let name = if subject.names == Names::Manifest { manifest } else { flag };
            Found {
                line: format!("{name} is not given"),
                badness,
                reason: format!("can take all {what} of the host"),
                lower: format!("give {name}"),
            }
        })
        .collect()
}

fn record(subject: &Subject) -> Vec<Found> {
    if subject.watched {
        return Vec::new();
    }
    let (line, lower) = match subject.names {
        Names::Manifest => {
            ("sandbox.watch_refusals = false", "set it: refused calls are then recorded by name")
        }
        Names::Flags => ("--no-notice", "leave it out: refused calls are then recorded by name"),
    };
    vec![Found {
        line: line.to_owned(),
        badness: 10,
        reason: "what it tried and was refused is not on record".to_owned(),
        lower: lower.to_owned(),
    }]
}

fn image(subject: &Subject) -> Vec<Found> {
    if subject.pinned {
        return Vec::new();
    }
    vec![Found {
        line: "program.image is a path".to_owned(),
        badness: 10,
        reason: "whatever stands at the path at its next start is what runs".to_owned(),
        lower: "name it by its hash (`blake3:…`)".to_owned(),
    }]
}

fn guards(subject: &Subject) -> Vec<Found> {
    let found = subject.guards_off.iter().map(|guard| Found {
        line: format!("{} is switched off", guard.name()),
        badness: 5,
        reason: "a defence of every sandbox is missing".to_owned(),
        lower: "switch it on; this is for `prove` alone".to_owned(),
    });
    found.collect()
}
