//! Compose files: what becomes of each key of a service.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

use import::{Fate, Import, compose, keys};

use Fate::{Approximated, Ignored, Mapped, Refused};

fn of(service: &str) -> Import {
    let indented: String = service.lines().map(|line| format!("    {line}\n")).collect();
    compose("compose.yml", &format!("services:\n  web:\n    image: /usr/bin/web\n{indented}")).unwrap()
}

#[track_caller]
fn check(service: &str, expected: Fate, line: &str) {
    let import = of(service);
    let key = service.split(':').next().unwrap();
    let worst = import.report.entries.iter().filter(|entry| entry.key == key).map(|entry| entry.fate).max();
    assert_eq!(worst, Some(expected), "{service}: {:#?}", import.report.entries);
    let made = import.manifests.first().unwrap().to_toml();
    assert!(made.contains(line), "{service}: {line} is not in\n{made}");
}

#[test]
fn keys_of_a_service() {
    check("command: -p 80 'a b'", Mapped, r#"args = ["-p", "80", "a b"]"#);
    check("command: [\"-p\", \"80\"]", Mapped, r#"args = ["-p", "80"]"#);
    check(
        "entrypoint: [\"/usr/bin/other\", \"-x\"]\ncommand: [\"y\"]",
        Mapped,
        "image = \"/usr/bin/other\"\nargs = [\"-x\", \"y\"]",
    );
    check("entrypoint: docker-entrypoint.sh", Refused, "image = \"/usr/bin/web\"");
    check("environment:\n  A: 1\n  B: \"two three\"", Mapped, "A = \"1\"\nB = \"two three\"");
    check("environment:\n  - A=1\n  - B", Refused, "A = \"1\"");
    check("environment:\n  A: ${X:-five}\n  B: $$HOME", Mapped, "A = \"five\"\nB = \"$HOME\"");
    check("environment:\n  A: ${X}", Refused, "");
    check(
        "env_file: /etc/default/web",
        Mapped,
        "env_files = [{ path = \"/etc/default/web\", optional = false }]",
    );
    check("env_file: ./web.env", Refused, "");
    check("user: web", Approximated, "user = \"web\"");
    check("cap_add: [NET_BIND_SERVICE]\nuser: web", Mapped, "privileges = [\"net_bind_service\"]");
    check("cap_add: [SYS_ADMIN]\nuser: web", Refused, "");
    check("cap_add: [CHOWN]", Refused, "");
    check(
        "volumes:\n  - /srv/web:/srv/web:ro\n  - data:/var/lib/web",
        Approximated,
        "path = \"/var/lib/web\"",
    );
    check("volumes:\n  - ./here:/there", Refused, "");
    check(
        "volumes:\n  - type: bind\n    source: /srv\n    target: /srv\n    read_only: true",
        Mapped,
        "fs = [\"/srv\"]",
    );
    check("tmpfs: /tmp", Mapped, "tmp_mb");
    check("tmpfs: /data", Refused, "");
    check("network_mode: host", Mapped, "network = \"host\"");
    check("network_mode: none", Mapped, "");
    check("network_mode: bridge", Approximated, "");
    check("network_mode: service:db", Refused, "");
    check("networks: [back]", Refused, "");
    check("links: [db]", Refused, "");
    check("extra_hosts:\n  - a:192.0.2.1", Refused, "");
    check("expose: [\"80\"]", Ignored, "");
    check("restart: unless-stopped", Mapped, "mode = \"always\"");
    check("restart: \"no\"", Mapped, "mode = \"never\"");
    check("restart: on-failure:3", Mapped, "mode = \"on_failure\"\nmax_restarts = 3");
    check("privileged: true", Refused, "");
    check("stop_signal: SIGQUIT", Mapped, "stop_signal = \"quit\"");
    check("stop_grace_period: 1m30s", Mapped, "stop_timeout_ms = 90000");
    check(
        "healthcheck:\n  test: curl -f http://localhost\n  interval: 1m\n  retries: 5",
        Mapped,
        "check_interval_ms = 60000",
    );
    check(
        "healthcheck:\n  test: [\"CMD\", \"/bin/true\"]\n  start_period: 5s",
        Approximated,
        "command = [\"/bin/true\"]",
    );
    check("healthcheck:\n  disable: true", Mapped, "");
    check("mem_limit: 512m", Mapped, "memory_mb = 512");
    check("pids_limit: 100", Mapped, "processes_max = 100");
    check(
        "blkio_config:\n  device_read_bps:\n    - path: /dev/sda\n      rate: '12mb'\n  device_write_iops:\n    - path: /dev/sda\n      rate: 30",
        Mapped,
        r#"io = [{ place = "/dev/sda", read_bytes = 12582912, write_operations = 30 }]"#,
    );
    check("blkio_config:\n  weight: 1000", Approximated, "io_weight = 10000\nio_optional = true");
    check("blkio_config:\n  weight: 9", Refused, "");
    check("blkio_config:\n  weight_device:\n    - path: /dev/sda\n      weight: 400", Refused, "");
    check("cpu_shares: 2048", Mapped, "cpu_shares = 200");
    check("working_dir: /srv", Mapped, "cwd = \"/srv\"");
    check("labels:\n  a: b", Ignored, "");
    check("deploy:\n  replicas: 3", Refused, "");
    check("x-ours: 1", Ignored, "");
    check("imgae: x", Refused, "");
}

#[test]
fn services_depend_on_each_other_and_container_images_are_named() {
    let text = "version: '3'\nx-base: &base\n  restart: always\nservices:\n  db:\n    <<: *base\n    image: postgres:15\n  web:\n    <<: *base\n    image: /usr/bin/web\n    depends_on:\n      db:\n        condition: service_healthy\nvolumes:\n  data: {}\nnetworks:\n  back: {}\n";
    let import = compose("compose.yml", text).unwrap();
    let [db, web] = import.manifests.as_slice() else { panic!("{:?}", import.manifests) };
    assert_eq!(web.dependencies.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["db"]);
    assert!(web.to_toml().contains("mode = \"always\""));
    let made = db.to_toml();
    assert!(
        made.contains("# Needs the container image postgres:15") && made.contains("image = \"postgres:15\""),
        "{made}"
    );
    let refused: Vec<(&str, usize)> =
        import.report.refused(&[]).map(|entry| (entry.key.as_str(), entry.place.line)).collect();
    assert_eq!(refused, []);
    let networks = import.report.entries.iter().find(|entry| entry.key == "networks").unwrap();
    assert_eq!((networks.fate, networks.place.line), (Ignored, 16));
    let once: Vec<&str> = import
        .report
        .entries
        .iter()
        .filter(|entry| entry.how.contains("[egress]"))
        .map(|entry| entry.how.as_str())
        .collect();
    assert!(matches!(once[..], [one] if one.starts_with("db, web reach nothing outside")), "{once:?}");
    assert!(web.to_toml().contains("# Its program reaches nothing outside yet"));
}

#[test]
fn published_ports_become_sockets_that_lead_to_the_program() {
    let of_web =
        "[[sockets]]\nname = \"port-80\"\nlisten = \"tcp:[::]:8080\"\npublish = 80\non_demand = false\n";
    check("ports: [\"8080:80\"]", Approximated, of_web);
    check("ports:\n  - 8080:80", Approximated, of_web);
    check(
        "ports:\n  - 127.0.0.1:${PORT:-8080}:80/tcp",
        Approximated,
        "listen = \"tcp:127.0.0.1:8080\"\npublish = 80",
    );
    for unknown in ["${BIND:-0.0.0.0}:8080:80", "${ALL:-0.0.0.0:8080:80}", "127.0.0.1:${PORT:?use-8080}:80"] {
        check(&format!("ports:\n  - {unknown}"), Refused, "");
    }
    check("ports:\n  - 3000-3001:80-81", Approximated, "listen = \"tcp:[::]:3001\"\npublish = 81");
    check(
        "ports:\n  - target: 80\n    published: \"8080\"\n    host_ip: 127.0.0.1\n    protocol: tcp\n    mode: host\n    name: web",
        Approximated,
        "name = \"web\"\nlisten = \"tcp:127.0.0.1:8080\"\npublish = 80",
    );
    check("ports:\n  - target: 80\n    published: 8080\n    host_ip: '::1'", Approximated, "tcp:[::1]:8080");
    // The others of a list stay.
    check("ports: [\"53:53/udp\", \"8080:80\"]", Refused, of_web);
    for refused in [
        "[\"80\"]",
        "[\"${PORT}:80\"]",
        "80:80",
        "[\"1000-1016:1000-1016\"]",
        "[{ target: 80 }]",
        "[{ target: 80, published: 8080-8090 }]",
        "[{ target: 80-90, published: 8080-8090 }]",
        "[{ target: 53, published: 53, protocol: udp }]",
        "[{ target: 80, published: 80, host_ip: web }]",
        "[{ target: 80, published: 80, of_ours: x }]",
        "[{ published: 80 }]",
    ] {
        let import = of(&format!("ports: {refused}"));
        let said = import.report.entries.iter().find(|entry| entry.key == "ports").unwrap();
        assert!(said.fate == Refused && said.how.len() > 10, "{refused}: {said:?}");
        assert!(!import.manifests[0].to_toml().contains("[[sockets]]"), "{refused}");
    }
}

#[test]
fn nothing_is_published_where_there_is_no_network_of_its_own() {
    for (more, fate, why) in [
        ("network_mode: host", Ignored, "binds its ports itself"),
        ("network_mode: none", Ignored, "publishes nothing"),
        ("user: web\ncap_add: [NET_BIND_SERVICE]", Refused, "privileges"),
    ] {
        // Whatever comes first.
        for text in [format!("ports: [\"80:80\"]\n{more}"), format!("{more}\nports: [\"80:80\"]")] {
            let import = of(&text);
            let said = import.report.entries.iter().find(|entry| entry.key == "ports").unwrap();
            assert!(said.fate == fate && said.how.contains(why), "{text}: {said:?}");
            assert!(!import.manifests[0].to_toml().contains("[[sockets]]"), "{text}");
        }
    }
    let reaches =
        |more: &str| of(more).report.entries.iter().any(|entry| entry.how.contains("nothing outside"));
    assert!(reaches("") && reaches("network_mode: bridge"));
    assert!(!reaches("network_mode: host") && !reaches("network_mode: none"));
}

#[test]
fn a_file_that_is_no_compose_file_is_refused() {
    for wrong in ["", "a: 1\n", "services: {}\n", "services: [", "- x\n"] {
        assert!(compose("f", wrong).unwrap_err().starts_with("f: "), "{wrong}");
    }
    assert!(compose("f", "services:\n  web: {}\n").unwrap().manifests.is_empty());
}

#[test]
fn every_key_of_the_table_is_looked_at() {
    for key in keys::COMPOSE.iter().flat_map(|row| row.names) {
        for value in ["x", "[a, b]", "{a: b}", "true", ""] {
            if *key == "image" {
                continue;
            }
            let import = of(&format!("{key}: {value}"));
            let fault = import.report.entries.iter().find(|entry| entry.how.contains("fault of the import"));
            assert!(fault.is_none(), "{fault:?}");
            let said = import.report.entries.iter().any(|entry| entry.key == *key);
            assert!(said, "{key}: {value}");
        }
    }
}
