//! nginx, redis and postgresql as Debian ships them, from their units: imported, shut in, healthy, killed, stopped.
//!
//! They run as root's services on a `/var` and a network of the test's own (a mount and a network namespace around the
//! node), so that nothing of the machine is touched, whatever listens on it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use system_tests::{TestNode, is_root, kill, within};

/// A database that recovers takes its time on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// A layer over `/var` and a loopback device; then whatever follows.
const HOUSE: &str = "set -e; ip link set lo up; mount -t tmpfs none \"$1\"; mkdir \"$1/up\" \"$1/work\"; \
    mount -t overlay none -o lowerdir=/var,upperdir=\"$1/up\",workdir=\"$1/work\" /var; shift; exec \"$@\"";
const UNITS: &str = "/lib/systemd/system";
/// What their units leave to the operator, who says it in a drop-in.
const RESTARTS: &str = "[Service]\nRestart=on-failure\nRestartSec=100ms\n";

struct House {
    node: TestNode,
    keeper: i64,
    manifests: PathBuf,
}

impl House {
    /// None, with the reason, where this cannot be had.
    fn new() -> Option<House> {
        House::of(None)
    }

    /// Root's, or that of another user of the host.
    fn of(user: Option<&str>) -> Option<House> {
        let mut node = TestNode::empty()?;
        if !is_root() {
            println!("skipped: services with users of their own need root");
            return None;
        }
        for (program, package) in [
            ("/usr/sbin/nginx", "nginx-light"),
            ("/usr/bin/redis-server", "redis-server"),
            ("/usr/bin/pg_ctlcluster", "postgresql"),
            ("/usr/bin/curl", "curl"),
        ] {
            if !Path::new(program).exists() {
                println!("skipped: {program} is not there (apt-get install {package})");
                return None;
            }
        }
        let layer = node.root().join("layer");
        fs::create_dir(&layer).unwrap();
        let layer = layer.to_str().unwrap().to_owned();
        let around =
            ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", HOUSE, "sh", &layer];
        let become_it = user.map(|user| {
            let (uid, gid) = ids_of(user);
            node.belongs_to(uid, gid);
            [
                "setpriv".to_owned(),
                format!("--reuid={uid}"),
                format!("--regid={gid}"),
                "--init-groups".to_owned(),
            ]
        });
        let become_it = become_it.iter().flatten().map(String::as_str);
        node.up_through(&around.into_iter().chain(become_it).collect::<Vec<_>>());
        // Any of the node's own processes is inside.
        let keeper = node.json(&["status"])["supervisor_pid"].as_i64().unwrap();
        let manifests = node.root().join("manifests");
        Some(House { node, keeper, manifests })
    }

    /// The unit as it is shipped, with a drop-in beside it.
    fn import(&self, unit: &str, shipped: &str, drop_in: &str) -> PathBuf {
        let folder = self.node.root().join("units");
        fs::create_dir_all(folder.join(format!("{unit}.d"))).unwrap();
        fs::copy(format!("{UNITS}/{shipped}"), folder.join(shipped)).unwrap();
        fs::write(folder.join(format!("{unit}.d/restarts.conf")), drop_in).unwrap();
        let file = folder.join(unit);
        let out = self.manifests.to_str().unwrap();
        let made = self.node.run(&["import", file.to_str().unwrap(), "--out", out]);
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        let name = unit.trim_end_matches(".service").replace('@', "-");
        let manifest = self.manifests.join(format!("{name}.toml"));
        assert!(manifest.is_file(), "{unit} gave no {}: {said}", manifest.display());
        manifest
    }

    fn apply(&self, manifest: &Path) {
        self.node.ok(&["apply", "-f", manifest.to_str().unwrap()]);
    }

    /// A client on the node's side of the network and of `/var`.
    fn client(&self, command: &[&str]) -> (bool, String) {
        let mut inside = Command::new("nsenter");
        inside.args(["--target", &self.keeper.to_string(), "--net", "--mount"]).args(command);
        let output = inside.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said + &String::from_utf8_lossy(&output.stderr))
    }

    fn answers(&self, command: &[&str], expected: &str) {
        let mut last = String::new();
        let answered = within(SOON, || {
            let (_, said) = self.client(command);
            last = said;
            last.contains(expected)
        });
        assert!(answered, "{command:?} never said {expected:?}, but {last:?}");
    }

    /// Shut in, without rights over the host, and back after SIGKILL.
    fn is_held_and_comes_back(&self, name: &str) {
        let before = self.node.pid(name);
        let of_process = fs::read_to_string(format!("/proc/{before}/status")).unwrap();
        for field in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
            assert!(of_process.contains(field), "{name}: {of_process}");
        }
        let root = fs::read_dir(format!("/proc/{before}/root/")).unwrap();
        let seen: Vec<String> =
            root.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        assert!(
            !seen.iter().any(|name| matches!(name.as_str(), "root" | "home" | "boot" | "sys")),
            "{seen:?}"
        );
        kill(before);
        let again = || self.node.service(name)["pid"].as_i64().is_some_and(|pid| pid != before);
        assert!(within(SOON, again), "{name} did not come back: {}", self.node.service_log(name));
        assert!(within(SOON, || self.node.service(name)["state"] == "Running"));
        let failed = self.node.log(&["ServiceFailed"]);
        let recorded = failed.iter().find(|entry| entry["body"]["name"] == name).unwrap();
        assert_eq!(recorded["body"]["error"]["crashed"]["status"], -9, "{recorded}");
    }

    /// By its own command or signal, not by force.
    fn stops_in_order(&self, name: &str) {
        self.node.ok(&["service", "stop", name]);
        let stopped = self.node.service(name);
        assert_eq!(stopped["state"], "Stopped", "{stopped}");
        let text = stopped["last_error"].as_str().unwrap_or_default();
        assert!(!text.contains("was killed"), "{stopped}");
    }
}

#[test]
fn nginx_serves_from_its_unit_and_survives_a_kill_and_a_reload() {
    let Some(house) = House::new() else { return };
    let page = ["curl", "-s", "http://127.0.0.1/"];
    house.apply(&house.import("nginx.service", "nginx.service", RESTARTS));
    house.answers(&page, "Welcome to nginx");
    let master = house.node.pid("nginx");
    house.node.ok(&["service", "reload", "nginx"]);
    assert_eq!(house.node.pid("nginx"), master, "a reload keeps the master");
    house.answers(&page, "Welcome to nginx");
    // Its workers have become somebody else and kept nothing.
    let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap();
    let worker = children.split_whitespace().next().unwrap();
    let of_worker = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    assert!(of_worker.contains("CapEff:\t0000000000000000"), "{of_worker}");
    house.is_held_and_comes_back("nginx");
    house.answers(&page, "Welcome to nginx");
    house.stops_in_order("nginx");
    assert!(!house.client(&page).0);
}

#[test]
fn redis_keeps_its_data_over_a_kill() {
    let Some(house) = House::new() else { return };
    house.apply(&house.import("redis-server.service", "redis-server.service", RESTARTS));
    house.answers(&["redis-cli", "set", "kept", "value-7"], "OK");
    // Its shipped configuration writes to the disk from time to time, and now.
    house.answers(&["redis-cli", "save"], "OK");
    assert_eq!(fs::metadata(format!("/proc/{}", house.node.pid("redis-server"))).unwrap().uid(), redis());
    house.is_held_and_comes_back("redis-server");
    house.answers(&["redis-cli", "get", "kept"], "value-7");
    house.stops_in_order("redis-server");
}

fn redis() -> u32 {
    ids_of("redis").0
}

fn ids_of(user: &str) -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let entry = passwd.lines().find(|line| line.starts_with(&format!("{user}:"))).unwrap();
    let mut numbers = entry.split(':').skip(2).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The one user that its unit needs is who the node runs as: no right of root's is left anywhere.
#[test]
fn redis_keeps_its_data_over_a_kill_on_a_node_of_its_own_user() {
    let Some(house) = House::of(Some("redis")) else { return };
    let keeper = fs::read_to_string(format!("/proc/{}/status", house.keeper)).unwrap();
    assert!(keeper.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}\n", redis())), "{keeper}");
    assert!(keeper.contains("CapEff:\t0000000000000000"), "{keeper}");
    house.apply(&house.import("redis-server.service", "redis-server.service", RESTARTS));
    house.answers(&["redis-cli", "set", "kept", "value-8"], "OK");
    house.answers(&["redis-cli", "save"], "OK");
    assert_eq!(fs::metadata(format!("/proc/{}", house.node.pid("redis-server"))).unwrap().uid(), redis());
    house.is_held_and_comes_back("redis-server");
    house.answers(&["redis-cli", "get", "kept"], "value-8");
    house.stops_in_order("redis-server");
    let (_, said) = house.client(&["redis-cli", "ping"]);
    assert!(said.contains("refused"), "{said}");
}

#[test]
fn postgresql_keeps_its_data_over_a_kill() {
    let Some(house) = House::new() else { return };
    let clusters = fs::read_dir("/etc/postgresql").into_iter().flatten().filter_map(Result::ok);
    let Some(version) = clusters.map(|entry| entry.file_name().to_string_lossy().into_owned()).next() else {
        println!("skipped: there is no postgresql cluster (pg_createcluster)");
        return;
    };
    let unit = format!("postgresql@{version}-main.service");
    let manifest = house.import(&unit, "postgresql@.service", RESTARTS);
    let name = format!("postgresql-{version}-main");
    house.apply(&manifest);
    // From where its socket is: in the service's own /run.
    let sql = |text: &str, expected: &str| {
        let main = house.node.pid(&name).to_string();
        let enter = ["nsenter", "--target", &main, "--net", "--mount", "--", "setpriv", "--reuid=postgres"];
        let psql = [
            "--regid=postgres",
            "--init-groups",
            "psql",
            "-h",
            "/run/postgresql",
            "-d",
            "postgres",
            "-Atc",
            text,
        ];
        house.answers(&[&enter[..], &psql[..]].concat(), expected);
    };
    sql("create table kept (value text)", "CREATE TABLE");
    sql("insert into kept values ('value-7')", "INSERT 0 1");
    house.is_held_and_comes_back(&name);
    sql("select value from kept", "value-7");
    house.stops_in_order(&name);
    let (_, said) =
        house.client(&["tail", "-n", "3", &format!("/var/log/postgresql/postgresql-{version}-main.log")]);
    assert!(said.contains("database system is shut down"), "{said}");
}
