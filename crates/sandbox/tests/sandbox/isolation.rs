//! What a program in the sandbox can see and do, launched by root and by nobody.

use sandbox::{Descriptor, Mount};

use crate::common::{As, NOBODY, is_root, launchers, line, probe, run, shell};

/// covers: PRC-17, SUP-02
#[test]
fn it_sees_nothing_of_the_host() {
    for launcher in launchers() {
        let plan = probe(
            "pid , uid , list / , list /proc/1/root , stat /etc/passwd , stat /root , stat /usr , host_name , \
             connect 127.0.0.1:22 , env , kill 2 , list /tmp",
        );
        let text = run(*launcher, &plan, &[]);
        assert_eq!(line(&text, "ok pid"), "1", "{text}");
        assert_eq!(line(&text, "ok uid"), "1000 1000");
        assert_eq!(line(&text, "ok list / "), "dev proc tmp");
        for path in ["/etc/passwd", "/root", "/usr"] {
            line(&text, &format!("error 2 stat {path}"));
        }
        assert_eq!(line(&text, "ok host_name"), "bailiwick");
        assert!(!text.contains("ok connect"), "{text}");
        assert_eq!(line(&text, "ok env"), "");
        line(&text, &format!("error {} kill 2", libc::ESRCH));
        assert_eq!(line(&text, "ok list /tmp"), "");
        line(&text, "exit 0");
    }
}

#[test]
fn it_has_no_rights_and_cannot_gain_any() {
    for (launcher, init) in launchers().iter().flat_map(|launcher| [(launcher, false), (launcher, true)]) {
        let mut plan = probe(
            "status CapEff , status CapPrm , status CapBnd , status CapInh , status CapAmb , status NoNewPrivs , \
             status Seccomp , status Groups , mount , set_host_name",
        );
        plan.init = init;
        let text = run(*launcher, &plan, &[]);
        for set in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
            assert_eq!(line(&text, &format!("ok status {set}")), "0000000000000000", "{text}");
        }
        assert_eq!(line(&text, "ok status NoNewPrivs"), "1");
        assert_eq!(line(&text, "ok status Seccomp"), "2");
        line(&text, &format!("error {} mount", libc::EPERM));
        line(&text, &format!("error {} set_host_name", libc::EPERM));
        if *launcher == As::Root {
            assert_eq!(line(&text, "ok status Groups"), "");
        }
    }
}

#[test]
fn the_root_is_read_only_and_what_is_private_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).unwrap();
    std::fs::write(folder.path().join("seen"), "text").unwrap();
    let source = folder.path().to_str().unwrap().to_owned();
    let bind = |target: &str, writable| Mount::Bind {
        source: source.clone(),
        target: target.to_owned(),
        writable,
        optional: false,
    };
    for launcher in launchers() {
        let plan = probe(
            "write /new , write /dev/new , write /tmp/new , list /tmp , write /proc/sys/kernel/hostname , \
             read /shown/seen , write /shown/seen , write /work/deep/made , read /proc/interrupts , write /dev/null",
        );
        let mut mounts = plan.mounts.clone();
        mounts.extend([bind("/shown", false), bind("/work/deep", true)]);
        assert!(!std::fs::read("/proc/interrupts").unwrap().is_empty());
        let text = run(*launcher, &plan.with_mounts(mounts), &[]);
        for path in ["/new", "/dev/new", "/proc/sys/kernel/hostname", "/shown/seen"] {
            assert!(!text.contains(&format!("ok write {path} ")), "{text}");
        }
        assert_eq!(line(&text, "ok list /tmp"), "new");
        assert_eq!(line(&text, "ok read /shown/seen"), "text");
        assert!(text.contains("ok write /work/deep/made"), "{text}");
        assert_eq!(line(&text, "ok read /proc/interrupts"), "");
        assert!(text.contains("ok write /dev/null"), "{text}");
        std::fs::remove_file(folder.path().join("made")).unwrap();
        assert!(!std::path::Path::new("/tmp/new").exists());
    }
}

/// What is granted may hold any link: mount points and masks behind one are the sandbox's own.
#[test]
fn links_in_what_is_shown_do_not_lead_out() {
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).unwrap();
    std::fs::write(folder.path().join("seen"), "text").unwrap();
    for (name, to) in [("top", "/"), ("up", "../../../.."), ("hidden", "/shown/seen")] {
        std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    }
    let bind = |target: &str| Mount::Bind {
        source: folder.path().to_str().unwrap().to_owned(),
        target: target.to_owned(),
        writable: true,
        optional: false,
    };
    let tmpfs =
        |target: &str| Mount::Tmpfs { target: target.to_owned(), size_bytes_max: 1 << 20, mode: 0o755 };
    for launcher in launchers() {
        let plan = probe("list / , read /shown/seen , list /work");
        let mut mounts = plan.mounts.clone();
        mounts.extend([bind("/work"), bind("/shown"), tmpfs("/work/top/made_a"), tmpfs("/work/up/b/made")]);
        let mut plan = plan.with_mounts(mounts.clone());
        plan.masked.push("/work/hidden".to_owned());
        let text = run(*launcher, &plan, &[]);
        assert_eq!(line(&text, "ok list / "), "b dev made_a proc shown tmp work", "{text}");
        assert_eq!(line(&text, "ok read /shown/seen"), "", "{text}");
        assert_eq!(line(&text, "ok list /work"), "hidden seen top up");
        assert!(!std::path::Path::new("/made_a").exists() && !std::path::Path::new("/b/made").exists());
        // A descriptor of the launcher has a name in /proc, and nothing may be made through it.
        mounts.push(tmpfs("/proc/self/fd/0/made"));
        let text = run(*launcher, &plan.with_mounts(mounts), &[]);
        line(&text, &format!("failed mount: {}:", libc::ELOOP));
    }
}

/// As `/etc/resolv.conf` of many hosts leads into `/run`, which is empty inside.
#[test]
fn a_mount_on_a_link_that_leads_nowhere_is_where_the_link_leads() {
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    std::fs::write(folder.path().join("shown"), "inside").unwrap();
    for (name, to) in
        [("relative", "../run/deep/list"), ("absolute", "/run/other"), ("twice", "relative_too")]
    {
        std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    }
    std::os::unix::fs::symlink("../../../run/third", folder.path().join("relative_too")).unwrap();
    let bind = |source: &str, target: &str| Mount::Bind {
        source: format!("{}{source}", folder.path().display()),
        target: target.to_owned(),
        writable: false,
        optional: false,
    };
    for launcher in launchers() {
        let plan = probe(
            "read /links/relative , read /run/deep/list , read /links/absolute , read /run/third , list /run",
        );
        let mut mounts = plan.mounts.clone();
        mounts.push(Mount::Tmpfs { target: "/run".to_owned(), size_bytes_max: 1 << 20, mode: 0o755 });
        mounts.push(bind("", "/links"));
        mounts
            .extend(["relative", "absolute", "twice"].map(|link| bind("/shown", &format!("/links/{link}"))));
        let text = run(*launcher, &plan.with_mounts(mounts), &[]);
        for path in ["/links/relative", "/run/deep/list", "/links/absolute", "/run/third"] {
            assert_eq!(line(&text, &format!("ok read {path}")), "inside", "{text}");
        }
        assert_eq!(line(&text, "ok list /run"), "deep other third", "{text}");
        assert!(!std::path::Path::new("/run/deep/list").exists());
    }
}

#[test]
fn a_name_server_has_the_port_that_its_process_has_no_right_to() {
    for launcher in launchers() {
        let mut plan = probe("fds , read /proc/net/udp , read /proc/net/tcp");
        (plan.loopback, plan.name_server) = (true, Some(20));
        let text = run(*launcher, &plan, &[]);
        assert_eq!(line(&text, "ok fds"), "0 1 2 20 21", "{text}");
        assert!(line(&text, "ok read /proc/net/udp").contains("0100007F:0035"), "{text}");
        assert!(line(&text, "ok read /proc/net/tcp").contains("0100007F:0035"), "{text}");
    }
}

#[test]
fn what_is_sent_anywhere_comes_out_as_a_packet() {
    let v6 = "[32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]";
    for launcher in launchers() {
        for (to, own, seen) in [
            ("203.0.113.7:9", "[192, 0, 0, 8]", "[203, 0, 113, 7]"),
            ("[2001:db8::7]:9", "[253, 98, 108, 119, 107, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8]", v6),
        ] {
            let mut plan = probe(&format!("packet 22 {to}"));
            (plan.loopback, plan.name_server, plan.datagrams) = (true, Some(20), Some(22));
            plan.seccomp.as_mut().unwrap().sockets.inet = true;
            let text = run(*launcher, &plan, &[]);
            assert_eq!(line(&text, &format!("ok packet 22 {to}")), format!("{own} {seen}"), "{text}");
        }
    }
}

#[test]
fn exactly_the_planned_descriptors_arrive_under_their_numbers() {
    for (launcher, init) in launchers().iter().flat_map(|launcher| [(launcher, false), (launcher, true)]) {
        let mut plan = probe("fds , list /proc/self/fd");
        plan.init = init;
        plan.descriptors = vec![
            Descriptor { slot: 2, target: 1 },
            Descriptor { slot: 4, target: 7 },
            // Crossed with what the launcher itself holds at these numbers.
            Descriptor { slot: 4, target: 4 },
            Descriptor { slot: 4, target: 255 },
        ];
        let text = run(*launcher, &plan, &[]);
        assert_eq!(line(&text, "ok fds"), "0 1 2 4 7 255", "{text}");
    }
}

#[test]
fn root_can_give_an_own_uid_and_nobody_is_told_that_it_cannot() {
    for launcher in launchers() {
        for user in [true, false] {
            let mut plan = probe("uid , read /proc/self/uid_map , write /tmp/x");
            plan.namespaces.user = user;
            plan.identity.host_uid = Some(70_123);
            plan.identity.host_gid = Some(70_124);
            if *launcher == As::Nobody && !user {
                continue;
            }
            let text = run(*launcher, &plan, &[]);
            let inside = if user { "1000 1000" } else { "70123 70124" };
            assert_eq!(line(&text, "ok uid"), inside, "{text}");
            assert!(text.contains("ok write /tmp/x"), "{text}");
            match (launcher, user) {
                (As::Root, true) => assert_eq!(line(&text, "ok read /proc/self/uid_map"), "1000_70123_1"),
                (As::Nobody, _) => {
                    line(&text, "missing uid");
                    if is_root() {
                        assert_eq!(line(&text, "ok read /proc/self/uid_map"), format!("1000_{NOBODY}_1"));
                    }
                }
                _ => assert!(!text.contains("missing uid")),
            }
        }
    }
}

/// What a daemon that was written for root needs: to be a user of the host, with a few rights, that it loses with its ids.
#[test]
fn root_can_let_a_program_keep_a_few_rights_and_become_somebody() {
    if !is_root() {
        println!("skipped: keeping rights needs root");
        return;
    }
    const SETGID_SETUID_BIND: u64 = 1 << 6 | 1 << 7 | 1 << 10;
    let mut plan = shell(
        "id -u; id -G; grep -E 'Cap(Inh|Eff|Bnd|Amb)' /proc/self/status; touch /proc/sys/kernel/hostname 2>&1; \
         setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'id -u; grep CapEff /proc/self/status'; umask",
    );
    plan.namespaces.user = false;
    plan.identity = sandbox::Identity { uid: 0, gid: 0, host_uid: Some(0), host_gid: Some(0) };
    plan.capabilities_kept = SETGID_SETUID_BIND;
    plan.umask = Some(0o27);
    plan.groups = vec![4, 4];
    let text = run(As::Root, &plan, &[]);
    let kept = "00000000000004c0";
    let expected = [
        "0".to_owned(),
        "0 4".to_owned(),
        "CapInh:\t0000000000000000".to_owned(),
        format!("CapEff:\t{kept}"),
        format!("CapBnd:\t{kept}"),
        "CapAmb:\t0000000000000000".to_owned(),
        "touch: cannot touch '/proc/sys/kernel/hostname': Read-only file system".to_owned(),
        "65534".to_owned(),
        "CapEff:\t0000000000000000".to_owned(),
        "0027".to_owned(),
        "exit 0".to_owned(),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected, "{text}");
}

#[test]
fn root_can_let_a_program_be_a_user_of_the_host_with_its_groups() {
    if !is_root() {
        println!("skipped: other ids need root");
        return;
    }
    let mut plan = shell("id -u; id -G; stat -c '%u %g %a' /tmp/own; touch /tmp/own/x && echo made");
    plan.identity = sandbox::Identity { uid: 1234, gid: 1235, host_uid: Some(1234), host_gid: Some(1235) };
    plan.groups = vec![4, 1235];
    let mut mounts = plan.mounts.clone();
    mounts.push(Mount::Folder { target: "/tmp/own".to_owned(), mode: 0o2750 });
    plan = plan.with_mounts(mounts);
    let text = run(As::Root, &plan, &[]);
    assert_eq!(text, "1234\n1235 4\n1234 1235 2750\nmade\nexit 0\n");
    // The same without a user namespace, where root makes the folder.
    plan.namespaces.user = false;
    let text = run(As::Root, &plan, &[]);
    assert_eq!(text, "1234\n1235 4\n1234 1235 2750\nmade\nexit 0\n");
}

/// One that is not root has no other way to its rights than that they pass exec by themselves.
#[test]
fn a_user_of_the_host_keeps_its_few_rights_over_exec() {
    if !is_root() {
        println!("skipped: keeping rights needs root");
        return;
    }
    let mut plan = shell("grep -E 'Cap(Eff|Bnd|Amb)' /proc/self/status");
    plan.namespaces.user = false;
    plan.identity = sandbox::Identity { uid: 1234, gid: 1234, host_uid: Some(1234), host_gid: Some(1234) };
    plan.capabilities_kept = 1 << 10;
    let text = run(As::Root, &plan, &[]);
    let sets: Vec<&str> = text.lines().filter_map(|line| line.split_once('\t').map(|(_, set)| set)).collect();
    assert_eq!(sets, ["0000000000000400"; 3], "{text}");
}
