//! What becomes of each key, one line each: the unit's setting, its fate, and a line of the manifest.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

use import::{Fate, Host, Import, Named, keys, units};

/// A host with a few paths and files.
struct Small;

impl Host for Small {
    fn exists(&self, path: &str) -> bool {
        ["/etc", "/var", "/there", "/var/lib/own", "/etc/own", "/usr/bin/found"].contains(&path)
    }

    fn text(&self, path: &str) -> Option<Result<String, String>> {
        (path == "/there").then(|| Ok("OPTIONS=-a 'b c'\nEMPTY=\n".to_owned()))
    }

    fn home(&self, user: &str) -> Option<String> {
        (user == "own").then(|| "/var/lib/own".to_owned())
    }

    fn host_name(&self) -> Option<String> {
        Some("host.example".to_owned())
    }
}

fn import(text: &str) -> Import {
    of(&[("own.service", text)])
}

fn of(texts: &[(&str, &str)]) -> Import {
    let named = |(name, text): &(&str, &str)| Named {
        name: (*name).to_owned(),
        files: vec![((*name).to_owned(), (*text).to_owned())],
    };
    units(&texts.iter().map(named).collect::<Vec<_>>(), &Small).unwrap()
}

/// The worst fate of a key, and the manifest.
fn fate(import: &Import, key: &str) -> Option<Fate> {
    import.report.entries.iter().filter(|entry| entry.key == key).map(|entry| entry.fate).max()
}

#[track_caller]
fn check(settings: &str, expected: Fate, line: &str) {
    let start = if settings.contains("ExecStart=") { "" } else { "ExecStart=/bin/x\n" };
    let section = if settings.starts_with('[') { "" } else { "[Service]\n" };
    let import = import(&format!("[Service]\n{start}{section}{settings}\n"));
    let last = settings.lines().last().unwrap();
    let key = last.split('=').next().unwrap();
    let manifest = import.manifests.first().unwrap().to_toml();
    assert_eq!(fate(&import, key), Some(expected), "{settings}: {:#?}", import.report.entries);
    assert!(manifest.contains(line), "{settings}: {line} is not in\n{manifest}");
}

use Fate::{Approximated, Ignored, Mapped, Refused};

#[test]
fn commands() {
    check("ExecStart=/bin/a -x 'b c' %n", Mapped, r#"args = ["-x", "b c", "own.service"]"#);
    check("ExecStart=-/bin/a", Approximated, r#"image = "/bin/a""#);
    check("ExecStart=@/bin/a a -x", Mapped, r#"args = ["-x"]"#);
    check("ExecStart=@/bin/a other -x", Refused, r#"args = ["-x"]"#);
    check("ExecStart=:/bin/a $$X", Mapped, r#"args = ["$$X"]"#);
    check("ExecStart=found -x", Mapped, r#"image = "/usr/bin/found""#);
    check(
        "EnvironmentFile=/there\nExecStart=/bin/a $OPTIONS ${EMPTY}",
        Approximated,
        r#"args = ["-a", "b c", ""]"#,
    );
    check("EnvironmentFile=-/absent\nExecStart=/bin/a $OPTIONS", Approximated, "optional = true");
    check("Environment=A=1 \"B=2 3\"\nExecStart=/bin/a $A ${B}", Mapped, r#"args = ["1", "2 3"]"#);
    check(
        "Type=oneshot\nExecStart=/bin/a\nExecStart=/bin/b",
        Mapped,
        r#"before = [{ command = ["/bin/a"], may_fail = false }]"#,
    );
    check("Type=oneshot\nExecStart=/bin/a ; /bin/b", Mapped, r#"image = "/bin/b""#);
    check("ExecStart=/bin/a\nExecStart=\nExecStart=/bin/b", Mapped, r#"image = "/bin/b""#);
    check("ExecStartPre=-/bin/t", Mapped, r#"before = [{ command = ["/bin/t"], may_fail = true }]"#);
    check("ExecStartPost=/bin/t", Mapped, r#"after = [{ command = ["/bin/t"], may_fail = false }]"#);
    check("User=own\nExecStartPre=+/bin/t", Refused, "");
    check(
        "User=own\nExecStartPre=+/usr/bin/install -d -m 750 -o own /run/own",
        Mapped,
        r#"folders = [{ path = "/run/own", mode = "0750" }]"#,
    );
    check("ExecReload=/bin/kill -HUP $MAINPID", Mapped, r#"reload_signal = "hup""#);
    check("ExecReload=/bin/a reload", Mapped, r#"reload = ["/bin/a", "reload"]"#);
    check(
        "ExecReload=/bin/a\nExecReload=/bin/b 'c d'",
        Approximated,
        r#"reload = ["/bin/sh", "-c", "/bin/a && /bin/b 'c d'"]"#,
    );
    check("ExecReload=/bin/a $MAINPID", Refused, "");
    check("ExecReload=/bin/check\nExecReload=/bin/kill -HUP $MAINPID", Refused, r#"reload_signal = "hup""#);
    check("ExecStop=/bin/kill -s QUIT $MAINPID", Mapped, r#"stop_signal = "quit""#);
    check("ExecStop=/bin/a stop", Mapped, r#"stop = ["/bin/a", "stop"]"#);
    check("ExecStopPost=/bin/a", Refused, "");
    check("ExecCondition=/bin/a", Refused, "");
}

#[test]
fn a_unit_without_a_program_makes_no_manifest() {
    for text in [
        "[Service]\nType=oneshot\n",
        "[Unit]\nDescription=x\n",
        "[Service]\nExecStart=relative\n",
        "[Service]\nExecStart='open\n",
    ] {
        let import = import(text);
        assert!(import.manifests.is_empty(), "{text}");
        assert!(import.report.count(Refused) > 0, "{text}");
    }
}

#[test]
fn life() {
    check("Type=forking\nPIDFile=own.pid", Mapped, "pid_file = \"/run/own.pid\"");
    check("Type=simple\nPIDFile=/run/own.pid", Ignored, "runs = \"foreground\"");
    check("Type=notify", Mapped, "kind = \"sd_notify\"");
    check("Type=notify-reload", Mapped, "reload_signal = \"hup\"");
    check("ExecReload=/bin/a\nType=notify-reload", Mapped, "reload = [\"/bin/a\"]\n\n[restart]");
    check("EnvironmentFile=/etc/../x", Refused, "");
    check("Type=dbus", Approximated, "runs = \"foreground\"");
    check("Type=wrong", Refused, "");
    check("Type=oneshot\nRemainAfterExit=yes", Approximated, "runs = \"once\"");
    check("ExecStop=/bin/a\nType=oneshot\nRemainAfterExit=yes", Refused, "runs = \"once\"");
    check("Restart=always", Mapped, "mode = \"always\"");
    check("Restart=on-failure", Mapped, "max_restarts = 5");
    check("Restart=on-abort", Approximated, "mode = \"on_failure\"");
    check("Restart=always\nRestartSec=3min 5s", Mapped, "delay_ms = 185000");
    check("[Unit]\nStartLimitBurst=3\n[Service]\nRestart=always", Mapped, "max_restarts = 3");
    check("Restart=always\n[Unit]\nStartLimitIntervalSec=0", Approximated, "on_exhausted = \"RetryForever\"");
    check("Restart=always\nStartLimitInterval=60s", Mapped, "window_ms = 60000");
    check("TimeoutStartSec=infinity", Approximated, "startup_timeout_ms = 86400000");
    check("TimeoutStopSec=0", Approximated, "stop_timeout_ms = 86400000");
    check("TimeoutSec=7", Mapped, "startup_timeout_ms = 7000");
    check("Type=notify\nWatchdogSec=30", Mapped, "watchdog_ms = 30000");
    check("WatchdogSec=30", Refused, "");
    check("KillSignal=SIGINT", Mapped, "stop_signal = \"int\"");
    check("KillSignal=SIGKILL", Refused, "");
    check("KillMode=none", Refused, "");
    check("Restart=on-failure\nRestartPreventExitStatus=255", Approximated, "");
    check("RuntimeMaxSec=1h", Refused, "");
}

#[test]
fn as_whom() {
    check("User=own", Mapped, "user = \"own\"");
    check("User=own\nGroup=other", Mapped, "user = \"own:other\"");
    check("User=root", Mapped, "privileges = [");
    check("User=a b", Refused, "");
    check("DynamicUser=yes", Mapped, "[program]");
    check("SupplementaryGroups=a b", Mapped, "groups = [\"a\", \"b\"]");
    check("User=own\nExecStart=!/bin/a\nUser=own", Approximated, "user = \"root\"");
    check("UMask=077", Mapped, "umask = \"0077\"");
    check(
        "User=own\nAmbientCapabilities=CAP_NET_BIND_SERVICE",
        Mapped,
        "privileges = [\"net_bind_service\"]",
    );
    check("CapabilityBoundingSet=CAP_SETUID CAP_SETGID", Mapped, "privileges = [\"setgid\", \"setuid\"]");
    check("CapabilityBoundingSet=~CAP_SETUID", Approximated, "privileges = [");
    check("CapabilityBoundingSet=", Mapped, "user = \"root\"");
    check("[Unit]\nConditionCapability=CAP_NET_RAW", Mapped, "net_raw");
    check("[Unit]\nConditionCapability=CAP_SYS_TIME", Refused, "");
    check("User=own\nAmbientCapabilities=CAP_SYS_ADMIN", Refused, "");
    check("CapabilityBoundingSet=CAP_NONE", Refused, "");
    check("DynamicUser=yes\nAmbientCapabilities=CAP_NET_RAW", Refused, "");
    check("DynamicUser=yes\nSupplementaryGroups=adm", Refused, "");
    check("SupplementaryGroups=a:b", Refused, "");
    check("UMask=7777", Refused, "");
}

#[test]
fn a_service_of_root_keeps_what_the_list_says_and_no_more() {
    let keeps = |settings: &str| {
        let import = import(&format!("[Service]\nExecStart=/bin/x\n{settings}\n"));
        import.manifests.first().unwrap().program.privileges.clone()
    };
    assert!(
        !keeps("").iter().any(|one| ["sys_admin", "dac_read_search", "net_admin"].contains(&one.as_str()))
    );
    assert!(keeps("CapabilityBoundingSet=").is_empty());
    assert!(!keeps("CapabilityBoundingSet=~CAP_SETUID").contains(&"setuid".to_owned()));
    assert!(!keeps("RestrictRealtime=yes").contains(&"sys_nice".to_owned()));
    assert!(keeps("User=own").is_empty());
}

#[test]
fn files() {
    check("RuntimeDirectory=a b\nRuntimeDirectoryMode=0700", Mapped, "path = \"/run/b\", mode = \"0700\"");
    check("StateDirectory=a", Mapped, "STATE_DIRECTORY = \"/var/lib/a\"");
    check("RuntimeDirectory=../a", Refused, "");
    check("ConfigurationDirectory=own", Mapped, "\"/etc/own:rw\"");
    check("ConfigurationDirectory=other", Refused, "");
    check("ReadWritePaths=-/absent /var/lib/own", Approximated, "\"/var/lib/own:rw\"");
    check("RuntimeDirectory=own\nReadWriteDirectories=-/var/run/own", Mapped, "/run/own");
    check("BindReadOnlyPaths=/there", Mapped, "\"/there\"");
    check("BindPaths=/there:/elsewhere", Refused, "");
    check("InaccessiblePaths=/var/x", Refused, "");
    check("InaccessiblePaths=/home", Mapped, "");
    check("WorkingDirectory=/srv/x", Mapped, "cwd = \"/srv/x\"");
    check("User=own\nWorkingDirectory=~", Mapped, "cwd = \"/var/lib/own\"");
    check("LoadCredential=key:/etc/key", Mapped, "secrets = [{ name = \"key\", path = \"/etc/key\" }]");
    check("LoadCredential=key", Refused, "");
    check("StandardOutput=file:/x", Refused, "");
    check("PrivateNetwork=yes", Mapped, "[sandbox]\ntmp_mb");
    check("PrivateNetwork=no", Mapped, "network = \"host\"");
    check("ProtectSystem=strict", Mapped, "fs = [\"/etc\", \"/var\"]");
    check("PrivateDevices=no", Approximated, "");
    check("MemoryDenyWriteExecute=yes", Refused, "");
    check("SystemCallFilter=@system-service", Approximated, "");
}

#[test]
fn resources() {
    check("MemoryMax=300M", Mapped, "memory_mb = 300");
    check("MemoryMax=50%", Refused, "");
    check("MemoryHigh=1G", Approximated, "memory_mb = 1024");
    check("IOReadBandwidthMax=/data 5M", Mapped, r#"io = [{ place = "/data", read_bytes = 5000000 }]"#);
    check(
        "IOReadBandwidthMax=/data 5M\nIOWriteIOPSMax=/data 1K",
        Mapped,
        r#"io = [{ place = "/data", read_bytes = 5000000, write_operations = 1000 }]"#,
    );
    check("IOWriteBandwidthMax=/dev/sda 4095", Refused, "");
    check("IOReadIOPSMax=/dev/sda", Refused, "");
    check("IOReadIOPSMax=sda 5", Refused, "");
    check("IOReadIOPSMax=/dev/sda infinity", Ignored, "");
    check("IOWeight=200", Mapped, "io_weight = 200\nio_optional = true");
    check("IOWeight=10001", Refused, "");
    check("IODeviceWeight=/dev/sda 5", Refused, "");
    check("BlockIOWeight=500", Refused, "");
    check("CPUWeight=200", Mapped, "cpu_shares = 200");
    check("CPUShares=2048", Mapped, "cpu_shares = 200");
    check("TasksMax=20", Mapped, "processes_max = 20");
    check("TasksMax=infinity", Approximated, "processes_max = 32768");
    check("LimitNOFILE=1024:4096", Mapped, "open_files_max = 4096");
    check("LimitNOFILE=infinity", Approximated, "open_files_max = 1048576");
    check("LimitSTACK=8M", Refused, "");
    check("Nice=19", Approximated, "priority = \"Low\"");
    check("IPAddressDeny=any", Refused, "");
}

#[test]
fn conditions_and_relations() {
    check("[Unit]\nConditionPathExists=/there", Approximated, "");
    check("[Unit]\nConditionPathExists=!/there", Refused, "");
    check("[Unit]\nAssertPathExists=/absent", Refused, "");
    check("[Unit]\nConditionHost=x", Refused, "");
    check("[Unit]\nAfter=network.target", Ignored, "");
    check("[Unit]\nRequires=other.service", Refused, "");
    check("[Unit]\nWants=other.service", Ignored, "");
    check("[Unit]\nX-Ours=1", Ignored, "");
    check("[Unit]\nDescripion=1", Refused, "");
    check("[Unit]\nDescription=%H", Mapped, "description = \"host.example\"");
    check("[Unit]\nDescription=%m", Refused, "");
}

#[test]
fn units_of_one_import_depend_on_each_other() {
    let run = "[Service]\nExecStart=/bin/x\n";
    let import = of(&[
        ("one.service", &format!("[Unit]\nRequires=two.service\nAfter=alias.service\n{run}")),
        ("two.service", &format!("[Unit]\nBefore=three.service\n{run}[Install]\nAlias=alias.service\n")),
        ("three.service", run),
    ]);
    let of = |name: &str| import.manifests.iter().find(|one| one.name == name).unwrap().dependencies.clone();
    assert_eq!(
        of("one").iter().map(|one| (one.name.as_str(), one.required)).collect::<Vec<_>>(),
        [("two", true)]
    );
    assert_eq!(
        of("three").iter().map(|one| (one.name.as_str(), one.required)).collect::<Vec<_>>(),
        [("two", false)]
    );
    assert!(of("two").is_empty());
}

#[test]
fn a_circle_of_dependencies_is_broken_and_said() {
    let run = "[Service]\nExecStart=/bin/x\n";
    let import = of(&[
        ("one.service", &format!("[Unit]\nAfter=two.service\n{run}")),
        ("two.service", &format!("[Unit]\nAfter=one.service\n{run}")),
    ]);
    assert_eq!(import.manifests.iter().map(|one| one.dependencies.len()).sum::<usize>(), 1);
    assert!(
        import.report.entries.iter().any(|entry| entry.fate == Refused && entry.how.contains("each other"))
    );
}

#[test]
fn of_several_starts_each_has_its_reason_also_where_one_cannot_be_read() {
    let reasons = |text: &str| {
        let import = import(&format!("[Service]\n{text}"));
        let said = import.report.entries.iter().filter(|one| one.key.starts_with("Exec"));
        let said: Vec<(Fate, String)> = said.map(|one| (one.fate, one.how.clone())).collect();
        assert!(
            said.iter().all(|(fate, how)| *fate == Refused && !how.contains("fault")),
            "{text}: {said:?}"
        );
        (said.len(), import.manifests.len())
    };
    assert_eq!(reasons("ExecStart=/bin/x -g 'a'\nExecStart=/bin/x -g 'b\n"), (2, 0));
    assert_eq!(reasons("ExecStart=/bin/x ; /bin/y\nExecStart=/bin/x 'b\n"), (2, 0));
    assert_eq!(reasons("ExecStart=;\n"), (1, 0));
    let step = import("[Service]\nExecStart=/bin/x\nExecStartPre=;\n");
    let said = step.report.entries.iter().find(|one| one.key == "ExecStartPre").unwrap();
    assert_eq!((said.fate, said.how.as_str()), (Refused, "it names no command"));
}

#[test]
fn a_trigger_limit_is_the_services_and_counts_where_connections_start_it() {
    let service = "[Service]\nExecStart=/bin/x\n";
    let check = |service: &str, limit: &str, expected: &str, fates: &[Fate]| {
        let import =
            of(&[("x.service", service), ("x.socket", &format!("[Socket]\nListenStream=80\n{limit}"))]);
        let [manifest] = import.manifests.as_slice() else { panic!("{:?}", import.manifests) };
        let text = manifest.to_toml();
        assert!(
            text.contains(expected) && (!expected.is_empty() || !text.contains("trigger_limit")),
            "{text}"
        );
        let said = import.report.entries.iter().filter(|one| one.key.starts_with("TriggerLimit"));
        assert_eq!(said.map(|one| one.fate).collect::<Vec<_>>(), fates, "{limit}");
    };
    let both = "TriggerLimitIntervalSec=5s\nTriggerLimitBurst=3\n";
    check(service, both, "[trigger_limit]\ninterval_ms = 5000\nburst = 3\n", &[Mapped, Mapped]);
    check(service, "TriggerLimitBurst=1000\n", "[trigger_limit]\nburst = 1000\n", &[Mapped]);
    check(service, "TriggerLimitBurst=1001\n", "[trigger_limit]\nburst = 1000\n", &[Approximated]);
    check(service, "TriggerLimitBurst=0\n", "[trigger_limit]\nburst = 0\n", &[Mapped]);
    check(service, "TriggerLimitBurst=-1\n", "", &[Refused]);
    check(service, "TriggerLimitIntervalSec=soon\n", "", &[Refused]);
    let boots = format!("{service}[Install]\nWantedBy=multi-user.target\n");
    check(&boots, both, "", &[Ignored, Ignored]);
    let two = of(&[
        ("x.service", service),
        ("x.socket", &format!("[Socket]\nListenStream=80\n{both}")),
        ("y.socket", "[Socket]\nService=x.service\nListenStream=81\nTriggerLimitBurst=9\n"),
    ]);
    let [manifest] = two.manifests.as_slice() else { panic!("{:?}", two.manifests) };
    assert!(manifest.to_toml().contains("burst = 3"));
    assert!(
        two.report.entries.iter().any(|one| one.how.contains("the trigger limit of y.socket is left out"))
    );
}

#[test]
fn sockets_and_timers_are_a_part_of_their_service() {
    let service = "[Service]\nExecStart=/bin/x\n";
    let socket = "[Socket]\nListenStream=80\nListenDatagram=127.0.0.1:53\nListenStream=/run/x.sock\nSocketMode=0600\nSocketGroup=web\nBacklog=7\n";
    let timer = "[Timer]\nOnCalendar=Mon..Fri *-*-* 06:00\nOnBootSec=15min\nOnUnitActiveSec=1d\nRandomizedDelaySec=1h\nPersistent=true\n";
    let import = of(&[("x.service", service), ("x.socket", socket), ("x.timer", timer)]);
    let [manifest] = import.manifests.as_slice() else { panic!("{:?}", import.manifests) };
    let text = manifest.to_toml();
    for line in [
        "listen = \"tcp:[::]:80\"\non_demand = true\nbacklog = 7\n",
        "listen = \"udp:127.0.0.1:53\"",
        "listen = \"unix:/run/x.sock\"\non_demand = true\nbacklog = 7\nmode = \"0600\"\nuser = \"root:web\"\n",
        "calendar = [\"Mon..Fri *-*-* 06:00\"]\nafter_boot_ms = 900000\nevery_ms = 86400000\nrandom_delay_ms = 3600000\ncatch_up = true",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(import.report.count(Refused), 0, "{:#?}", import.report);
    let boots = of(&[
        ("x.service", &format!("{service}[Install]\nWantedBy=multi-user.target\n")),
        ("x.socket", socket),
    ]);
    assert!(boots.manifests.first().unwrap().sockets.iter().all(|socket| !socket.on_demand));
    let alone = of(&[("x.socket", socket)]);
    assert!(alone.manifests.is_empty() && alone.report.count(Refused) > 0);
    let each = of(&[("x.service", service), ("x.socket", "[Socket]\nListenStream=80\nAccept=yes\n")]);
    assert!(each.manifests.first().unwrap().sockets.is_empty());
    assert_eq!(fate(&each, "Accept"), Some(Refused));
    assert_eq!(fate(&each, "ListenStream"), Some(Refused));
}

#[test]
fn names_that_come_to_the_same_get_a_number() {
    let run = "[Service]\nExecStart=/bin/x\n";
    let import = of(&[("a@b.service", run), ("a-b.service", run)]);
    let names: Vec<&str> = import.manifests.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["a-b", "a-b-2"]);
}

#[test]
fn ports_of_a_quadlet_container_are_published() {
    let with = |more: &str| of(&[("web.container", &format!("[Container]\nImage=/usr/bin/web\n{more}\n"))]);
    for (more, expected, line) in [
        ("PublishPort=8080:80", Approximated, "listen = \"tcp:[::]:8080\"\npublish = 80"),
        (
            "PublishPort=127.0.0.1:8080:80/tcp\nPublishPort=443:443",
            Approximated,
            "listen = \"tcp:[::]:443\"\npublish = 443",
        ),
        ("PublishPort=3000-3001:80-81", Approximated, "listen = \"tcp:[::]:3001\"\npublish = 81"),
        ("Network=pasta:-t,80\nPublishPort=[::1]:80:80", Approximated, "listen = \"tcp:[::1]:80\""),
        ("PublishPort=80", Refused, ""),
        ("PublishPort=53:53/udp", Refused, ""),
        ("PublishPort=80:80\nNetwork=none", Ignored, ""),
        ("PublishPort=80:80\nUser=web\nAddCapability=NET_BIND_SERVICE", Refused, ""),
    ] {
        let import = with(more);
        assert_eq!(fate(&import, "PublishPort"), Some(expected), "{more}");
        let made = import.manifests.first().unwrap().to_toml();
        assert!(
            made.contains(line) && made.contains("[[sockets]]") == (expected == Approximated),
            "{more}: {made}"
        );
    }
    for (network, expected) in [
        ("bridge", Approximated),
        ("slirp4netns:port_handler=x", Approximated),
        ("back.network", Refused),
        ("back", Refused),
        ("container:db", Refused),
        ("ns:/run/netns/x", Refused),
    ] {
        assert_eq!(fate(&with(&format!("Network={network}")), "Network"), Some(expected), "{network}");
    }
    let two =
        of(&[("a.container", "[Container]\nImage=/bin/a\n"), ("b.container", "[Container]\nImage=/bin/b\n")]);
    let once =
        two.report.entries.iter().filter(|entry| entry.how.starts_with("a, b reach nothing outside")).count();
    assert_eq!(once, 1, "{:#?}", two.report.entries);
}

#[test]
fn a_quadlet_container_is_a_program_of_the_host() {
    let text = "[Unit]\nDescription=Web\nAfter=other.service\n[Container]\nImage=/usr/sbin/web\nExec=-p 80 'a b'\nEnvironment=A=1\n\
                Volume=/srv/web:/srv/web:ro\nVolume=data:/var/lib/web\nVolume=/a:/b\nPublishPort=80:80\nNetwork=host\nUser=web\n\
                AddCapability=NET_BIND_SERVICE\nHealthCmd=curl -f http://localhost\nHealthInterval=30s\nPodmanArgs=--x\n\
                [Service]\nRestart=always\nTimeoutStartSec=900\nExecStartPre=/bin/x\n[Install]\nWantedBy=default.target\n";
    let import = of(&[("web.container", text)]);
    let made = import.manifests.first().unwrap().to_toml();
    for line in [
        "name = \"web\"",
        "image = \"/usr/sbin/web\"\nargs = [\"-p\", \"80\", \"a b\"]",
        "user = \"web\"",
        "privileges = [\"net_bind_service\"]",
        "fs = [\"/srv/web\"]",
        "path = \"/var/lib/web\"",
        "network = \"host\"",
        "kind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"curl -f http://localhost\"]",
        "startup_timeout_ms = 900000\nstop_timeout_ms = 10000",
        "check_interval_ms = 30000",
        "mode = \"always\"",
    ] {
        assert!(made.contains(line), "{line} is not in\n{made}");
    }
    for (key, expected) in [
        ("PublishPort", Ignored),
        ("Volume", Refused),
        ("PodmanArgs", Refused),
        ("ExecStartPre", Refused),
        ("User", Approximated),
        ("Image", Mapped),
    ] {
        assert_eq!(fate(&import, key), Some(expected), "{key}");
    }
    let registry = of(&[("web.container", "[Container]\nImage=docker.io/library/nginx:1\n")]);
    let made = registry.manifests.first().unwrap().to_toml();
    assert!(
        made.contains("# Needs the container image")
            && made.contains("image = \"docker.io/library/nginx:1\""),
        "{made}"
    );
    assert_eq!(fate(&registry, "Image"), Some(Mapped));
    let entered = of(&[("web.container", "[Container]\nImage=web:1\nEntrypoint=run\nExec=a b\n")]);
    let made = entered.manifests.first().unwrap().to_toml();
    assert!(made.contains("entrypoint = [\"run\"]") && made.contains("args = [\"a\", \"b\"]"), "{made}");
    for wrong in ["web:1@sha256:12", "../web", "a b", "sha256:12", "${IMAGE}"] {
        let refused = of(&[("web.container", &format!("[Container]\nImage={wrong}\nEntrypoint=/bin/x\n"))]);
        assert_eq!(fate(&refused, "Image"), Some(Refused), "{wrong}");
    }
    assert!(of(&[("web.container", "[Container]\nExec=x\n")]).manifests.is_empty());
}

/// A key that is in the table and that no code looks at would be refused as a fault of the import.
#[test]
fn every_key_of_the_table_is_looked_at() {
    let run = "[Service]\nExecStart=/bin/x\n";
    let mut passed_over = Vec::new();
    for page in keys::PAGES {
        for (key, value) in
            page.keys.iter().flat_map(|row| row.names).flat_map(|key| [(key, "yes"), (key, "1"), (key, "/x")])
        {
            for section in page.sections {
                let text = format!("[{section}]\n{key}={value}\n");
                let import = match *section {
                    "Socket" => of(&[("own.service", run), ("own.socket", &text)]),
                    "Container" | "Quadlet" => {
                        of(&[("own.container", &format!("{text}[Container]\nImage=/bin/x\n"))])
                    }
                    "Timer" => of(&[("own.service", run), ("own.timer", &text)]),
                    _ => of(&[("own.service", &format!("{text}{run}"))]),
                };
                assert!(fate(&import, key).is_some(), "{key}");
                let fault =
                    import.report.entries.iter().find(|entry| entry.how.contains("fault of the import"));
                passed_over.extend(fault.map(|entry| format!("[{section}] {}={value}", entry.key)));
            }
        }
    }
    assert!(passed_over.is_empty(), "{passed_over:#?}");
}

#[test]
fn no_key_stands_in_the_table_twice() {
    for page in keys::PAGES {
        let mut names: Vec<&str> = page.keys.iter().flat_map(|row| row.names).copied().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{}", page.name);
    }
}

/// Found by the fuzz target: a section of another kind was passed over without a word.
#[test]
fn a_section_of_another_kind_is_not_read() {
    const RUN: &str = "[Service]\nExecStart=/bin/x\n";
    for (file, text) in [
        ("own.socket", "[Socket]\nListenStream=1\n[Service]\nExecStartPre=/bin/y\nUser=other\n"),
        ("own.timer", "[Timer]\nOnCalendar=daily\n[Service]\nExecStartPre=/bin/y\nUser=other\n"),
    ] {
        let import = of(&[("own.service", RUN), (file, text)]);
        for key in ["ExecStartPre", "User"] {
            assert_eq!(fate(&import, key), Some(Ignored), "{file} {key}: {:#?}", import.report.entries);
        }
        let manifest = import.manifests.first().unwrap().to_toml();
        assert!(!manifest.contains("/bin/y") && !manifest.contains("other"), "{manifest}");
    }
    let import = of(&[("own.service", &format!("{RUN}[Sokcet]\nListenStream=1\n"))]);
    assert_eq!(fate(&import, "ListenStream"), Some(Refused), "a misspelt section is no other kind's");
}
