//! Each guard: with it the attempt fails, without it the same attempt succeeds.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use sandbox::{Guard, GuardSet, Landlock, Plan, Resource, Rlimit};

use crate::common::{As, is_root, launchers, line, probe, run};

/// Runs the attempt with everything on, then with the guards off; `good` tells whether it succeeded.
fn flips(launcher: As, plan: &Plan, off: &[Guard], good: impl Fn(&str) -> bool) {
    let text = run(launcher, plan, &[]);
    assert!(!good(&text), "{launcher:?}: succeeded although {off:?} is on:\n{text}");
    let mut broken = plan.clone();
    broken.disabled = GuardSet::of(off);
    let text = run(launcher, &broken, &[]);
    assert!(good(&text), "{launcher:?}: failed although {off:?} is off:\n{text}");
    for guard in off {
        line(&text, &format!("missing {guard} switched off"));
    }
}

fn ok(attempt: &str) -> impl Fn(&str) -> bool {
    let start = format!("ok {attempt} ");
    move |text| text.lines().any(|line| line.starts_with(&start))
}

#[test]
fn mountns() {
    for launcher in launchers() {
        flips(*launcher, &probe("stat /etc/passwd"), &[Guard::Mountns], ok("stat /etc/passwd"));
    }
}

#[test]
fn pidns() {
    for launcher in launchers() {
        let mut plan = probe(&format!("stat /proc/{}", std::process::id()));
        // Outside its own pid namespace nobody can mount a proc; the host's is bound then.
        plan.masked.clear();
        flips(*launcher, &plan, &[Guard::Pidns], ok(&format!("stat /proc/{}", std::process::id())));
    }
}

#[test]
fn netns() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let attempt = format!("connect {}", listener.local_addr().unwrap());
    for launcher in launchers() {
        let mut plan = probe(&attempt);
        plan.seccomp.as_mut().unwrap().sockets.inet = true;
        plan.landlock.as_mut().unwrap().tcp = true;
        flips(*launcher, &plan, &[Guard::Netns], ok(&attempt));
    }
}

#[test]
fn landlock_scopes_tcp_and_abstract_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = format!("connect {}", listener.local_addr().unwrap());
    let name = format!("bailiwick-test-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for launcher in launchers() {
        for attempt in [connect.as_str(), &format!("abstract {name}"), "list /proc/1/task"] {
            let mut plan = probe(attempt);
            plan.namespaces.net = false;
            plan.seccomp.as_mut().unwrap().sockets.inet = true;
            // The rules of the mounts, without `/proc` and the list of everything.
            plan.landlock.as_mut().unwrap().rules.retain(|rule| rule.path == "/tmp");
            flips(*launcher, &plan, &[Guard::Landlock], ok(attempt));
        }
    }
}

#[test]
fn ipcns_utsns_and_cgroupns() {
    // SAFETY: makes a private message queue, removed below.
    let queue = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o666) };
    assert!(queue >= 0);
    let attempt = format!("message_queue {queue}");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for launcher in launchers() {
        flips(*launcher, &probe(&attempt), &[Guard::Ipcns], ok(&attempt));
        flips(*launcher, &probe("host_name"), &[Guard::Utsns], |text| {
            text.contains(&format!("ok host_name {host}"))
        });
        if *launcher == As::Root {
            let mut plan = probe("cgroups");
            plan.limits.processes_max = Some(50);
            let text = run(*launcher, &plan, &["cgroup"]);
            assert!(!line(&text, "ok cgroups").contains("probe"), "{text}");
            plan.disabled = GuardSet::of(&[Guard::Cgroupns]);
            let text = run(*launcher, &plan, &["cgroup"]);
            assert!(line(&text, "ok cgroups").contains("/probe"), "{text}");
        }
    }
    // SAFETY: the queue made above.
    assert_eq!(unsafe { libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut()) }, 0);
}

#[test]
fn userns() {
    if !is_root() {
        println!("skipped: without privileges nothing can be launched without a user namespace");
        return;
    }
    let plan = probe("read /proc/self/uid_map");
    flips(As::Root, &plan, &[Guard::Userns], |text| text.contains("0_0_4294967295"));
}

#[test]
fn seccomp_and_capabilities() {
    for launcher in launchers() {
        // Without capabilities the call is refused further in: another errno shows that the filter let it pass.
        let keyctl = format!("call {} 99", libc::SYS_keyctl);
        flips(*launcher, &probe(&keyctl), &[Guard::Seccomp], |text| {
            text.contains(&format!("error {} call", libc::EOPNOTSUPP))
        });
        let mut plan = probe("set_host_name");
        plan.seccomp = None;
        plan.required = GuardSet::EMPTY;
        flips(*launcher, &plan, &[Guard::Caps], ok("set_host_name"));
        flips(*launcher, &probe("status NoNewPrivs"), &[Guard::NoNewPrivs], |text| {
            text.contains("ok status NoNewPrivs 0")
        });
    }
}

#[test]
fn without_no_new_privs_capabilities_are_gone_all_the_same() {
    for launcher in launchers() {
        let mut plan = probe("status CapEff , status CapPrm , status CapBnd , mount");
        plan.disabled = GuardSet::of(&[Guard::NoNewPrivs]);
        let text = run(*launcher, &plan, &[]);
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(line(&text, &format!("ok status {set}")), "0000000000000000", "{text}");
        }
    }
}

#[test]
fn rlimits() {
    for launcher in launchers() {
        let mut plan = probe("open_files");
        plan.rlimits = vec![Rlimit { resource: Resource::OpenFiles, soft: 64, hard: 64 }];
        flips(*launcher, &plan, &[Guard::Rlimits], |text| {
            line(text, "ok open_files").parse::<u32>().unwrap() > 64
        });
    }
}

#[test]
fn foreign_entries_into_the_kernel_are_killed() {
    for launcher in launchers() {
        let x32 = 0x4000_0000 + libc::SYS_getpid;
        for attempt in [format!("call {x32} 0"), "call32".to_owned()] {
            let plan = probe(&attempt);
            let text = run(*launcher, &plan, &[]);
            assert_eq!(line(&text, "signal"), libc::SIGSYS.to_string(), "{text}");
        }
    }
}

/// Every landlock abi down to none: the launch works, and what is not held is said.
#[test]
fn older_kernels_are_played_through() {
    for launcher in launchers() {
        for abi in 0..=6 {
            let plan = probe("write /new , write /tmp/new , stat /etc/passwd");
            let text = run(*launcher, &plan, &[&format!("landlock_abi={abi}")]);
            line(&text, &format!("error {} stat /etc/passwd", libc::ENOENT));
            assert!(text.contains("ok write /tmp/new"), "{text}");
            assert!(!text.contains("ok write /new"), "{text}");
            assert_eq!(text.contains("missing landlock"), abi < 6, "{text}");
        }
        let mut plan = probe("pid");
        plan.seccomp.as_mut().unwrap().notify = vec![sandbox::seccomp::NotifyCall::Exec];
        let text = run(*launcher, &plan, &["seccomp_notify=no"]);
        assert!(line(&text, "missing seccomp").contains("notification"), "{text}");
    }
}

/// Neither privileges nor user namespaces: refused where required, else reported and held by Landlock alone.
#[test]
fn without_user_namespaces_a_required_guard_refuses_the_launch() {
    let options = ["user_namespaces=no", "privileged=no"];
    let text = run(As::Nobody, &probe("pid"), &options);
    assert!(line(&text, "failed check guards").contains("the plan requires"), "{text}");
    let mut plan = probe("read /etc/passwd , stat /etc/passwd");
    plan.required = GuardSet::EMPTY;
    plan.landlock = Some(Landlock { tcp: false, ..plan.landlock.unwrap() });
    let text = run(As::Nobody, &plan, &options);
    for guard in ["userns", "mountns", "pidns", "netns"] {
        line(&text, &format!("missing {guard}"));
    }
    line(&text, &format!("error {} read /etc/passwd", libc::EACCES));
}
