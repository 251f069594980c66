use std::time::Duration;

use supervisor::core::restart::{ExhaustedAction, RestartPolicy, mode};
use supervisor::manifest::limits::{
    AFTER_MAX, ARGUMENTS_MAX, BACKOFF_MAX, BEFORE_MAX, CALENDAR_MAX, DEPENDENCIES_MAX, DESCRIPTION_BYTES_MAX,
    ENDPOINTS_MAX, ENV_FILES_MAX, FOLDERS_MAX, GROUPS_MAX, MANIFEST_BYTES_MAX, MEMORY_MB_MAX,
    PERMISSIONS_MAX, RESTARTS_MAX, SECRETS_MAX, SERVICE_NAME_BYTES_MAX, SERVICES_MAX, SOCKETS_MAX,
    THRESHOLD_MAX,
};
use supervisor::manifest::{
    self, CommandRole, HealthCheck, Priority, RestartMode, ServiceManifest, ServiceType, load, parse,
};

use crate::world::FIXTURES;

const EXAMPLE: &str = include_str!("../fixtures/seed_example.toml");
const HEAD: &str = "version = 1\n[service]\nname = \"a\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n";

fn good(extra: &str) -> ServiceManifest {
    parse("a.toml", &format!("{HEAD}{extra}")).unwrap_or_else(|errors| panic!("{extra}: {errors:?}")).manifest
}

/// The first error for a text, as it is shown.
#[track_caller]
fn refused(text: &str, expected: &str) {
    let errors = parse("a.toml", text).expect_err(text);
    let shown = errors[0].to_string();
    assert!(shown.starts_with(expected), "\n{shown}\nshould begin with\n{expected}");
}

#[track_caller]
fn refused_after_head(extra: &str, expected: &str) {
    refused(&format!("{HEAD}{extra}"), expected);
}

/// covers: SUP-23, SUP-24, SUP-26, SUP-31, SUP-36
#[test]
fn the_seeds_example_loads_unchanged() {
    let manifest = parse("filesystem.toml", EXAMPLE).unwrap().manifest;
    assert_eq!(manifest.version, 1);
    let service = &manifest.service;
    assert_eq!((service.name.as_str(), service.version.to_string().as_str()), ("filesystem", "1.0.0"));
    assert_eq!((service.service_type, service.binary.as_str()), (ServiceType::Core, "blake3:abc123..."));
    assert_eq!(service.description, "Filesystem namespace and metadata service");
    assert!(manifest.binary_hash().is_err(), "checked at start, not at load");
    let capabilities = &manifest.capabilities;
    let types: Vec<&str> = capabilities.required.iter().map(|c| c.capability_type.as_str()).collect();
    assert_eq!(types, ["Axiom", "BlockStorage", "Policy"]);
    assert_eq!(capabilities.required[2].permissions, ["query"]);
    assert_eq!(capabilities.optional[0].capability_type, "Network");
}

/// covers: SUP-27, SUP-33, SUP-34, SUP-35
#[test]
fn the_seeds_example_has_its_values_and_the_open_points_defaults() {
    let manifest = parse("filesystem.toml", EXAMPLE).unwrap().manifest;
    assert_eq!(manifest.key_path().unwrap().to_string(), "/orbital/services/filesystem");
    assert_eq!(manifest.permissions(), ["fs.read", "fs.write", "fs.admin"]);
    let resources = &manifest.resources;
    assert_eq!(
        (resources.memory_mb, resources.cpu_shares, resources.priority),
        (Some(64), 100, Priority::High)
    );
    let dependencies: Vec<String> =
        manifest.dependencies.iter().map(|d| format!("{} {} {}", d.name, d.version, d.required)).collect();
    assert_eq!(dependencies, ["axiom >=1.0.0 true", "policy >=1.0.0 true", "block_storage >=1.0.0 true"]);
    let endpoints: Vec<String> =
        manifest.endpoints.iter().map(|e| format!("{} {}", e.name, e.protocol)).collect();
    assert_eq!(endpoints, ["fs.namespace FsNamespace/1.0", "fs.content FsContent/1.0"]);
    let health = &manifest.health;
    assert_eq!((health.startup_timeout.as_millis(), health.check_interval.as_millis()), (5000, 1000));
    assert_eq!(health.check_endpoint.as_deref(), Some("fs.health"));
}

/// covers: SUP-69, SUP-85
#[test]
fn health_that_is_left_out_has_its_defaults() {
    let manifest = good("");
    let health = manifest.health;
    let ms = |duration: Duration| duration.as_millis();
    assert_eq!(
        (ms(health.startup_timeout), ms(health.check_interval), ms(health.check_timeout)),
        (5000, 5000, 1000)
    );
    assert_eq!((health.failure_threshold, health.success_threshold), (3, 2));
    assert_eq!(health.check(false), HealthCheck::Lifecycle);
    assert_eq!(health.check(true), HealthCheck::Process);
}

/// covers: SUP-36, SUP-77
#[test]
fn manifests_round_trip() {
    let all = "[health]\nkind = \"http\"\naddress = \"127.0.0.1:80\"\npath = \"/health\"\nstop_timeout_ms = 7\n\
        [restart]\nmode = \"never\"\nmax_restarts = 1\nwindow_ms = 2\ndelay_ms = 3\nbackoff = 1.1\nmax_delay_ms = 4\non_exhausted = \"Stop\"\n\
        [program]\nimage = \"/bin/sh\"\nargs = [\"-c\", \"true\"]\ncwd = \"/tmp\"\nfs = [\"/data:rw\", \"/etc\"]\nenv = { A = \"b\" }\n\
        [sandbox]\nnetwork = \"host\"\ntmp_mb = 1\nprocesses_max = 2\nopen_files_max = 16\nwatch_refusals = true\n";
    let full = format!("{HEAD}{all}");
    let texts = FIXTURES.iter().map(|(_, text)| *text).chain([EXAMPLE, HEAD, &full]);
    for text in texts.chain(manifest::shipped::ALL.iter().map(|(_, text)| *text)) {
        let manifest = parse("a.toml", text).unwrap().manifest;
        let written = toml::to_string(&manifest).unwrap();
        assert_eq!(
            parse("b.toml", &written).unwrap_or_else(|e| panic!("{e:?}\n{written}")).manifest,
            manifest
        );
    }
}

#[test]
fn an_unknown_key_is_refused_with_file_line_column_and_key() {
    refused(
        &format!("{HEAD}colour = 1\n"),
        "a.toml:6:1: key `service.colour`: unknown field `colour`, expected one of",
    );
    refused("colour = 1\n", "a.toml:1:1: key `colour`: unknown field");
    refused_after_head(
        "[[endpoints]]\nname = \"x\"\nprotocol = \"X/1.0\"\nport = 1\n",
        "a.toml:9:1: key `endpoints[0].port`",
    );
    refused_after_head(
        "[capabilities]\nrequired = [{ type = \"A\", perms = [] }]\n",
        "a.toml:7:27: key `capabilities.required[0].perms`",
    );
    for table in ["identity", "resources", "health", "restart", "program", "sandbox"] {
        refused_after_head(
            &format!("[{table}]\nnope = 1\n"),
            &format!("a.toml:7:1: key `{table}.nope`: unknown field"),
        );
    }
}

#[test]
fn what_a_file_says_cannot_leave_its_line_or_reach_the_terminal() {
    refused(
        &format!("{HEAD}\"\\u001b[2J\\n\" = 1\n"),
        "a.toml:6:1: key `service.\\u{1b}[2J\\n`: unknown field `\\u{1b}[2J; `, expected one of",
    );
    refused("version\u{1b}[2J = 1\n", "a.toml:1:9: key with no value, expected `=`");
}

#[test]
fn a_wrong_value_is_refused_where_it_stands() {
    refused("", "a.toml:1:1: key `version`: missing field `version`");
    refused("version = 1\n[service]\nname = \"a\"\n", "a.toml:2:1: key `service.version`: missing field");
    refused("version = 2\n[service]", "a.toml:2:1: key `service.name`: missing field");
    refused("version = \n", "a.toml:1:");
    refused("version = 1\nversion = 1\n", "a.toml:2:1: key `version`: duplicate key");
    refused(&HEAD.replace("version = 1\n", "version = 2\n"), "a.toml:1:11: key `version`: 2 is a format");
    refused(&HEAD.replace("User", "user"), "a.toml:5:16: key `service.service_type`: unknown variant `user`");
    refused(&HEAD.replace("1.0.0", "one"), "a.toml:4:11: key `service.version`: ");
    refused_after_head(
        "[resources]\nmemory_mb = -1\n",
        "a.toml:7:13: key `resources.memory_mb`: invalid value",
    );
    refused_after_head(
        "[health]\nstartup_timeout_ms = 1.5\n",
        "a.toml:7:22: key `health.startup_timeout_ms`: invalid type",
    );
    refused_after_head(
        "[[dependencies]]\nname = \"b\"\nversion = \"newest\"\n",
        "a.toml:8:11: key `dependencies[0].version`",
    );
    refused_after_head(
        "[[endpoints]]\nname = \"b\"\nprotocol = \"B\"\n",
        "a.toml:8:12: key `endpoints[0].protocol`: a protocol is written",
    );
    refused_after_head(
        "[identity]\nkey_path = \"x\"\n",
        "a.toml:7:12: key `identity.key_path`: a key path must start",
    );
    refused_after_head(
        "[program]\nimage = \"/x\"\nfs = [\"data\"]\n",
        "a.toml:8:6: key `program.fs`: a grant is an absolute path",
    );
}

#[test]
fn every_fault_is_named_at_once() {
    let errors =
        parse("a.toml", &format!("{HEAD}[resources]\ncpu_shares = 1\n[health]\nfailure_threshold = 0\n"))
            .unwrap_err();
    let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["resources.cpu_shares", "health.failure_threshold"]);
}

#[test]
fn names_are_checked() {
    let name = |name: &str| HEAD.replace("\"a\"", &format!("\"{name}\""));
    assert!(parse("a", &name(&"n".repeat(SERVICE_NAME_BYTES_MAX))).is_ok());
    for wrong in [
        "",
        "A",
        "1a",
        "a b",
        "a/b",
        "..",
        "supervisor",
        "init",
        "keeper",
        &"n".repeat(SERVICE_NAME_BYTES_MAX + 1),
    ] {
        refused(&name(wrong), "a.toml:3:8: key `service.name`: ");
    }
    refused_after_head(
        "[[dependencies]]\nname = \"a\"\n",
        "a.toml:7:8: key `dependencies[0].name`: a service cannot depend on itself",
    );
    refused_after_head(
        "[[dependencies]]\nname = \"b\"\n[[dependencies]]\nname = \"b\"\n",
        "a.toml:9:8: key `dependencies[1].name`: \"b\" is named twice",
    );
    refused_after_head("binary = \"sha256:00\"\n", "a.toml:6:10: key `service.binary`");
}

#[track_caller]
fn limit(at: &str, past: &str, key: &str) {
    good(at);
    let errors = parse("a.toml", &format!("{HEAD}{past}")).expect_err(key);
    assert_eq!(errors[0].key, key, "{errors:?}");
}

#[test]
fn each_limit_holds_at_and_one_past_it() {
    let health = |key: &str, value: u64| format!("[health]\n{key} = {value}\n");
    for key in ["startup_timeout_ms", "check_interval_ms", "check_timeout_ms", "stop_timeout_ms"] {
        limit(&health(key, 86_400_000), &health(key, 86_400_001), &format!("health.{key}"));
    }
    limit(&health("check_interval_ms", 10), &health("check_interval_ms", 9), "health.check_interval_ms");
    limit(&health("startup_timeout_ms", 1), &health("startup_timeout_ms", 0), "health.startup_timeout_ms");
    let threshold = u64::from(THRESHOLD_MAX);
    for key in ["failure_threshold", "success_threshold"] {
        limit(&health(key, threshold), &health(key, threshold + 1), &format!("health.{key}"));
        limit(&health(key, 1), &health(key, 0), &format!("health.{key}"));
    }
    let table = |table: &str, key: &str, value: &str| format!("[{table}]\n{key} = {value}\n");
    let restarts = |value: u32| table("restart", "max_restarts", &value.to_string());
    limit(&restarts(RESTARTS_MAX), &restarts(RESTARTS_MAX + 1), "restart.max_restarts");
    limit(&restarts(0), &table("restart", "backoff", "nan"), "restart.backoff");
    let backoff = |value: f32| table("restart", "backoff", &format!("{value:.1}"));
    limit(&backoff(BACKOFF_MAX), &backoff(BACKOFF_MAX + 1.0), "restart.backoff");
    limit(&backoff(1.0), &backoff(0.9), "restart.backoff");
    limit(&table("restart", "window_ms", "1"), &table("restart", "window_ms", "0"), "restart.window_ms");
    let memory = |value: u32| table("resources", "memory_mb", &value.to_string());
    limit(&memory(MEMORY_MB_MAX), &memory(MEMORY_MB_MAX + 1), "resources.memory_mb");
    limit(&memory(1), &memory(0), "resources.memory_mb");
    for (key, at, past) in [("cpu_shares", 2, 1), ("cpu_shares", 262_144, 262_145)] {
        limit(
            &table("resources", key, &at.to_string()),
            &table("resources", key, &past.to_string()),
            "resources.cpu_shares",
        );
    }
    let weight = |value: u32| table("resources", "io_weight", &value.to_string());
    limit(&weight(1), &weight(0), "resources.io_weight");
    limit(&weight(10_000), &weight(10_001), "resources.io_weight");
    let disk =
        |place: &str, rest: &str| table("resources", "io", &format!("[{{ place = {place:?}{rest} }}]"));
    let read = |bytes: u64| disk("all", &format!(", read_bytes = {bytes}"));
    limit(&read(4096), &read(4095), "resources.io[0].read_bytes");
    let writes = |count: u64| disk("/x", &format!(", write_operations = {count}"));
    limit(&writes(u64::from(u32::MAX)), &writes(1 << 32), "resources.io[0].write_operations");
    limit(&writes(1), &disk("/x", ""), "resources.io[0].place");
    limit(&writes(1), &disk("x", ", write_operations = 1"), "resources.io[0].place");
    let disks = |count: usize| {
        table("resources", "io", &format!("[{}]", "{ place = \"all\", read_bytes = 5000 },".repeat(count)))
    };
    limit(&disks(16), &disks(17), "resources.io");
    let many = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<String>();
    let dependency = |n: usize| format!("[[dependencies]]\nname = \"d{n}\"\n");
    limit(&many(DEPENDENCIES_MAX, &dependency), &many(DEPENDENCIES_MAX + 1, &dependency), "dependencies");
    let endpoint = |n: usize| format!("[[endpoints]]\nname = \"e{n}\"\nprotocol = \"E/1.0\"\n");
    limit(&many(ENDPOINTS_MAX, &endpoint), &many(ENDPOINTS_MAX + 1, &endpoint), "endpoints");
    let permissions =
        |count: usize| format!("[identity]\nkey_path = \"/a\"\npermissions = [{}]\n", "\"p\",".repeat(count));
    limit(&permissions(PERMISSIONS_MAX), &permissions(PERMISSIONS_MAX + 1), "identity.permissions");
    let args = |count: usize| format!("[program]\nimage = \"/x\"\nargs = [{}]\n", "\"a\",".repeat(count));
    limit(&args(ARGUMENTS_MAX), &args(ARGUMENTS_MAX + 1), "program.args");
    let text = |count: usize| format!("description = \"{}\"\n", "x".repeat(count));
    limit(&text(DESCRIPTION_BYTES_MAX), &text(DESCRIPTION_BYTES_MAX + 1), "service.description");
}

#[test]
fn files_and_their_number_are_limited() {
    let padded = |bytes: usize| format!("{HEAD}{}", "#".repeat(bytes - HEAD.len()));
    assert!(parse("a", &padded(MANIFEST_BYTES_MAX)).is_ok());
    refused(
        &padded(MANIFEST_BYTES_MAX + 1),
        "a.toml: a manifest has at most 65536 bytes, this one has 65537",
    );
    let texts: Vec<String> =
        (0..=SERVICES_MAX).map(|n| HEAD.replace("\"a\"", &format!("\"s{n}\""))).collect();
    let loading = load(texts.iter().map(|text| ("f", text.as_str())));
    assert_eq!((loading.manifests.len(), loading.errors.len()), (SERVICES_MAX, 1));
}

#[test]
fn health_kinds_take_what_belongs_to_them() {
    let kind = |text: &str| good(&format!("[health]\n{text}\n")).health.check(false);
    assert_eq!(
        kind("kind = \"exec\"\ncommand = [\"/c\", \"x\"]"),
        HealthCheck::Exec { command: vec!["/c".into(), "x".into()] }
    );
    assert_eq!(kind("kind = \"tcp\"\naddress = \"[::1]:1\""), HealthCheck::Tcp { address: "[::1]:1".into() });
    assert_eq!(
        kind("kind = \"http\"\naddress = \"a:1\""),
        HealthCheck::Http { address: "a:1".into(), path: "/".into() }
    );
    let watchdog = Some(Duration::from_millis(10));
    assert_eq!(kind("kind = \"sd_notify\"\nwatchdog_ms = 10"), HealthCheck::SdNotify { watchdog });
    let wrong = |text: &str, key: &str| {
        let errors = parse("a", &format!("{HEAD}[health]\n{text}\n")).expect_err(text);
        assert_eq!(errors[0].key, key, "{text}");
    };
    wrong("kind = \"exec\"", "health.command");
    wrong("kind = \"tcp\"", "health.address");
    wrong("kind = \"http\"", "health.address");
    wrong("kind = \"tcp\"\naddress = \"a\"", "health.address");
    wrong("kind = \"tcp\"\naddress = \"a:0\"", "health.address");
    wrong("kind = \"http\"\naddress = \"a:1\"\npath = \"x\"", "health.path");
    wrong("kind = \"tcp\"\naddress = \"a:1\"\npath = \"/\"", "health.path");
    wrong("command = [\"/c\"]", "health.command");
    wrong("watchdog_ms = 1000", "health.watchdog_ms");
    wrong("kind = \"sd_notify\"\nwatchdog_ms = 9", "health.watchdog_ms");
    wrong("kind = \"lifecycle\"\n[program]\nimage = \"/x\"", "health.kind");
}

#[test]
fn programs_and_switches_are_checked() {
    let wrong = |text: &str, key: &str| {
        let errors = parse("a", &format!("{HEAD}{text}\n")).expect_err(text);
        assert_eq!(errors[0].key, key, "{text}");
    };
    wrong("[program]\nimage = \"a shell\"", "program.image");
    wrong("[program]\nimage = \"web@sha256:1\"", "program.image");
    wrong("[program]\nimage = \"/bin/sh\"\nentrypoint = [\"/bin/sh\"]", "program.entrypoint");
    wrong("[program]\nimage = \"/x\"\ncwd = \"tmp\"", "program.cwd");
    wrong("[program]\nimage = \"/x\"\nenv = { \"A=B\" = \"x\" }", "program.env.A=B");
    wrong("[sandbox]\nnetwork = \"host\"", "sandbox.network");
    wrong("[sandbox]\nprocesses_max = 0", "sandbox.processes_max");
    wrong("[restart]\nmax_restarts = 0\non_exhausted = \"RetryForever\"", "restart.on_exhausted");
    let core = HEAD.replace("User", "Core") + "[program]\nimage = \"/x\"\n";
    assert_eq!(parse("a", &core).unwrap_err()[0].key, "program");
    let manifest = good("[program]\nimage = \"/x\"\n");
    assert_eq!(manifest.service.binary, manifest::RUNNING_IMAGE);
    assert_eq!(manifest.key_path().unwrap().to_string(), "/orbital/services/a");
}

#[test]
fn what_a_program_asks_of_the_host_is_checked() {
    let program = |text: &str| format!("[program]\nimage = \"/x\"\n{text}\n");
    let wrong = |text: &str, key: &str| {
        let errors = parse("a", &format!("{HEAD}{}", program(text))).expect_err(text);
        assert_eq!(errors[0].key, key, "{text}");
    };
    wrong("user = \"-x\"", "program.user");
    wrong("user = \"a:\"", "program.user");
    wrong("groups = [\"adm\"]", "program.groups");
    wrong("user = \"root\"\nprivileges = [\"sys_admin\"]", "program.privileges[0]");
    wrong("user = \"root\"\nprivileges = [\"CAP_CHOWN\"]", "program.privileges[0]");
    wrong("privileges = [\"chown\"]", "program.privileges");
    wrong("umask = \"1000\"", "program.umask");
    wrong("umask = \"8\"", "program.umask");
    wrong("pid_file = \"/run/x\"", "program.pid_file");
    wrong("runs = \"forks\"\npid_file = \"x\"", "program.pid_file");
    wrong("before = [{ command = [] }]", "program.before[0].command");
    wrong("before = [{ command = [\"true\"] }]", "program.before[0].command");
    wrong("after = [{ command = [\"x\"] }]", "program.after[0].command");
    wrong("stop = [\"bin/stop\"]", "program.stop");
    wrong("reload = [\"/x\"]\nreload_signal = \"hup\"", "program.reload_signal");
    wrong("reload_signal = \"kill\"", "program.reload_signal");
    wrong("env_files = [{ path = \"/etc/../x\" }]", "program.env_files[0].path");
    for path in ["/etc/x", "/run", "/runx/a", "/run/bailiwick/x", "/run/../etc", "/var/lib", "run/x"] {
        wrong(&format!("folders = [{{ path = \"{path}\" }}]"), "program.folders[0].path");
    }
    for name in ["", ".x", "a/b", "a b"] {
        wrong(&format!("secrets = [{{ name = \"{name}\", path = \"/x\" }}]"), "program.secrets[0].name");
    }
    wrong("secrets = [{ name = \"a\", path = \"x\" }]", "program.secrets[0].path");
    let twice = "secrets = [{ name = \"a\", path = \"/x\" }, { name = \"a\", path = \"/y\" }]";
    wrong(twice, "program.secrets[1].name");
    wrong("folders = [{ path = \"/run/x\", mode = \"10000\" }]", "program.folders[0].mode");
    let whole = "user = \"redis:redis\"\ngroups = [\"adm\", \"7\"]\nprivileges = [\"chown\"]\numask = \"0027\"\n\
                 runs = \"forks\"\npid_file = \"/run/x.pid\"\nbefore = [{ command = [\"/x\", \"-t\"], may_fail = true }]\n\
                 stop = [\"/x\"]\nstop_signal = \"quit\"\nreload = [\"/y\"]\n\
                 env_files = [{ path = \"/etc/default/x\", optional = true }]\n\
                 folders = [{ path = \"/run/x\", mode = \"2755\" }, { path = \"/var/lib/x/y\" }]";
    let manifest = good(&program(whole));
    let again: ServiceManifest = toml::from_str(&toml::to_string(&manifest).unwrap()).unwrap();
    assert_eq!(again, manifest);
    let program = manifest.program.unwrap();
    let roles = [CommandRole::Before(0), CommandRole::Stop, CommandRole::Reload];
    for (place, role) in roles.into_iter().enumerate() {
        assert_eq!(program.place(role), u8::try_from(place).ok());
        assert_eq!(program.role(u16::try_from(place).unwrap()), Some(role));
    }
    assert!(program.settles_later() && program.can_reload() && program.role(3).is_none());
}

#[test]
fn what_a_program_asks_of_the_host_is_limited() {
    let list = |key: &str, item: &str, count: usize| {
        let items = std::iter::repeat_n(item, count).collect::<Vec<_>>().join(", ");
        format!("[program]\nimage = \"/x\"\nuser = \"root\"\n{key} = [{items}]\n")
    };
    for (key, item, max) in [
        ("before", "{ command = [\"/x\"] }", BEFORE_MAX),
        ("after", "{ command = [\"/x\"] }", AFTER_MAX),
        ("groups", "\"adm\"", GROUPS_MAX),
        ("env_files", "{ path = \"/x\" }", ENV_FILES_MAX),
        ("folders", "{ path = \"/run/x\" }", FOLDERS_MAX),
    ] {
        limit(&list(key, item, max), &list(key, item, max + 1), &format!("program.{key}"));
    }
    let secrets = |count: usize| {
        let of = |n: usize| format!("{{ name = \"s{n}\", path = \"/x\" }}, ");
        format!("[program]\nimage = \"/x\"\nsecrets = [{}]\n", (0..count).map(of).collect::<String>())
    };
    limit(&secrets(SECRETS_MAX), &secrets(SECRETS_MAX + 1), "program.secrets");
    let user = |bytes: usize| format!("[program]\nimage = \"/x\"\nuser = \"{}\"\n", "u".repeat(bytes));
    limit(&user(32), &user(33), "program.user");
}

/// covers: SUP-65
#[test]
fn the_restart_table_takes_the_seeds_names_and_upstreams() {
    let seed = "[restart]\nmax_restarts = 7\nwindow_ms = 1000\ndelay_ms = 10\nbackoff = 3.0\nmax_delay_ms = 20\non_exhausted = \"Panic\"\n";
    let upstream = "[restart]\nmax_restarts = 7\nwindow_ms = 1000\ninitial_delay_ms = 10\nbackoff_factor = 3.0\nmax_delay_ms = 20\non_exhausted = \"Panic\"\n";
    for text in [seed, upstream] {
        let policy = RestartPolicy::new(ServiceType::User, good(text).restart.as_ref());
        let expected = RestartPolicy {
            max_restarts: 7,
            window: Duration::from_secs(1),
            delay: Duration::from_millis(10),
            backoff: 3.0,
            max_delay: Duration::from_millis(20),
            on_exhausted: ExhaustedAction::Panic,
        };
        assert_eq!(policy, expected);
    }
    let partly = good("[restart]\nmode = \"always\"\nmax_restarts = 2\n").restart;
    let policy = RestartPolicy::new(ServiceType::User, partly.as_ref());
    let default = RestartPolicy::of_type(ServiceType::User);
    assert_eq!(policy, RestartPolicy { max_restarts: 2, ..default });
    assert_eq!(mode(ServiceType::User, partly.as_ref()), RestartMode::Always);
}

/// covers: SUP-24
#[test]
fn two_manifests_with_one_name_are_refused() {
    let other = HEAD.replace("1.0.0", "2.0.0");
    let loading = load([("a.toml", HEAD), ("b.toml", other.as_str())]);
    assert!(loading.manifests.is_empty());
    let shown: Vec<String> = loading.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown[0],
        "a.toml:3:8: key `service.name`: \"a\" is also the name in b.toml; a name belongs to one service"
    );
    assert!(shown[1].starts_with("b.toml:3:8: key `service.name`"));
    // Nobody takes the place of a service of the node, and nobody stops it by trying.
    let thief = HEAD.replace("\"a\"", "\"axiom\"");
    let loading = load([FIXTURES[0], ("thief.toml", thief.as_str())]);
    assert_eq!(loading.manifests[0].file, FIXTURES[0].0);
    assert_eq!(loading.errors.iter().map(|e| e.file.as_str()).collect::<Vec<_>>(), ["thief.toml"]);
}

#[test]
fn a_timer_is_a_programs_and_says_when() {
    let program = "[program]\nimage = \"/bin/true\"\nruns = \"once\"\n";
    let timer = |text: &str| format!("{program}[timer]\n{text}\n");
    let whole = "calendar = [\"Mon..Fri *-*-* 06:00\"]\nafter_boot_ms = 900000\nevery_ms = 86400000\nrandom_delay_ms = 3600000\ncatch_up = true";
    let manifest = good(&timer(whole));
    assert!(manifest.is_triggered() && !manifest.is_on_demand());
    assert_eq!(toml::from_str(&toml::to_string(&manifest).unwrap()), Ok(manifest));
    refused_after_head("[timer]\nevery_ms = 1000\n", "a.toml:6:1: key `timer`: only a [program]");
    refused_after_head(&timer("catch_up = true"), "a.toml:9:1: key `timer`: it needs one of");
    refused_after_head(&timer("calendar = [\"25:00\"]"), "a.toml:10:");
    let times = |count: usize| timer(&format!("calendar = [{}]", vec!["\"daily\""; count].join(", ")));
    assert_eq!(good(&times(CALENDAR_MAX)).timer.unwrap().calendar.len(), CALENDAR_MAX);
    refused_after_head(&times(CALENDAR_MAX + 1), "a.toml:10:12: key `timer.calendar`: at most 16");
    good(&timer("every_ms = 1000"));
    good(&timer("every_ms = 31622400000"));
    for wrong in ["every_ms = 999", "every_ms = 31622400001"] {
        refused_after_head(&timer(wrong), "a.toml:10:12: key `timer.every_ms`");
    }
}

#[test]
fn sockets_are_a_programs_and_bounded() {
    let program = "[program]\nimage = \"/bin/true\"\n";
    let sockets = |count: usize| -> String {
        let of = |n: usize| format!("[[sockets]]\nname = \"s\"\nlisten = \"udp:127.0.0.1:{}\"\n", 4000 + n);
        (0..count).map(of).collect()
    };
    let manifest = good(&format!("{program}{}", sockets(SOCKETS_MAX)));
    assert_eq!(manifest.sockets.len(), SOCKETS_MAX);
    assert!(!manifest.is_on_demand());
    assert_eq!(toml::from_str(&toml::to_string(&manifest).unwrap()), Ok(manifest));
    let many = format!("{program}{}", sockets(SOCKETS_MAX + 1));
    refused_after_head(&many, "a.toml:8:1: key `sockets`: at most 16");
    refused_after_head(&sockets(1), "a.toml:6:1: key `sockets`: only a [program]");
    let one = |more: &str| format!("{program}[[sockets]]\nname = \"s\"\nlisten = \"unix:/run/s\"\n{more}");
    for (more, key) in [
        ("backlog = 0", "sockets[0].backlog"),
        ("backlog = 65536", "sockets[0].backlog"),
        ("mode = \"1666\"", "sockets[0].mode"),
        ("[[sockets]]\nname = \"a:b\"\nlisten = \"unix:/run/t\"", "sockets[1].name"),
        ("[[sockets]]\nname = \"b\"\nlisten = \"unix:/run/s\"", "sockets[1].listen"),
        ("[[sockets]]\nname = \"b\"\nlisten = \"udp:[::]:5\"\nuser = \"root\"", "sockets[1].user"),
    ] {
        let errors = parse("a.toml", &format!("{HEAD}{}", one(more))).unwrap_err();
        assert_eq!(errors[0].key, key, "{more}");
    }
    assert_eq!(good(&one("backlog = 65535\nmode = \"0777\"")).sockets[0].backlog, 65_535);
    let taken = format!("{program}env = {{ LISTEN_FDS = \"1\" }}\n");
    refused_after_head(&taken, "a.toml:8:22: key `program.env.LISTEN_FDS`");
}
