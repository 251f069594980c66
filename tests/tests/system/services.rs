//! Services are apart, and held to what their manifests say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::Value;
use system_tests::{SERVICES, TestNode, within};

fn status(pid: i64, key: &str) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Folders below a process's own root, as it would reach them.
fn folders(pid: i64) -> BTreeSet<(u64, u64)> {
    let mut found = BTreeSet::new();
    let mut left = vec![Path::new(&format!("/proc/{pid}/root")).to_owned()];
    while let Some(folder) = left.pop() {
        // A link to a folder leads where the walk comes anyway, or out of this root.
        let Ok(listing) = fs::read_dir(&folder) else { continue };
        found.insert(fs::metadata(&folder).map(|it| (it.dev(), it.ino())).unwrap());
        left.extend(
            listing.flatten().filter(|it| it.file_type().is_ok_and(|t| t.is_dir())).map(|it| it.path()),
        );
    }
    found
}

/// covers: AX-04, SUP-02, CAP-12
#[test]
fn services_are_processes_apart_and_none_reaches_the_files_of_another() {
    let Some(node) = TestNode::boot() else { return };
    let pids: BTreeMap<String, i64> = node.pids().into_iter().collect();
    assert_eq!(pids.keys().map(String::as_str).collect::<BTreeSet<_>>(), SERVICES.into());
    for (name, pid) in &pids {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let words = String::from_utf8(words).unwrap();
        assert_eq!(words.split('\0').collect::<Vec<_>>()[1..4], ["process", "service", name]);
    }
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let link = |pid: &dyn std::fmt::Display| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let seen: BTreeSet<_> = pids.values().map(|pid| link(pid)).collect();
        assert_eq!(seen.len(), pids.len(), "services share a {kind} namespace");
        // The way out leads through one of them.
        let of_the_host: Vec<&String> =
            pids.iter().filter(|(_, pid)| link(pid) == link(&"self")).map(|(name, _)| name).collect();
        assert_eq!(of_the_host, if kind == "net" { vec!["network"] } else { vec![] }, "{kind}");
    }
    let state = node.root().join("state");
    let place = |name: &str| fs::metadata(state.join(name)).map(|it| (it.dev(), it.ino())).unwrap();
    for (name, pid) in &pids {
        // By its own names, by the host's, and wherever else it may be shown.
        assert_eq!(
            fs::metadata(format!("/proc/{pid}/root/state")).map(|it| (it.dev(), it.ino())).unwrap(),
            place(name)
        );
        let seen = folders(*pid);
        for other in pids.keys().filter(|other| *other != name) {
            let inside = format!("/proc/{pid}/root{}", state.join(other).display());
            assert!(fs::metadata(inside).is_err(), "{name} sees the folder of {other}");
            assert!(!seen.contains(&place(other)), "{name} reaches the folder of {other}");
        }
        if name == "network" {
            continue;
        }
        // The network of each other is empty, so a socket of its manifest is the only way to talk.
        let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
        let devices: Vec<&str> =
            devices.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
        assert_eq!(devices, ["lo"], "{name}");
    }
    // Run by root, each has a user of its own on the host.
    let uids: BTreeSet<u64> = pids.values().map(|pid| status(*pid, "Uid")[0]).collect();
    if rustix::process::geteuid().is_root() {
        assert_eq!(uids.len(), pids.len());
        assert!(!uids.contains(&0));
    }
    let modes = pids.keys().map(|name| fs::metadata(state.join(name)).unwrap().mode() & 0o777);
    assert!(modes.into_iter().all(|mode| mode == 0o700));
    let held = |name: &str| {
        let list = node.json(&["capability", "list", "--holder", &format!("orbital.services.{name}")]);
        let text = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
        let list = list.as_array().unwrap().iter();
        list.map(|it| (text(it, "resource"), text(it, "rights"))).collect::<BTreeSet<_>>()
    };
    let pair = |resource: &str, rights: &str| (resource.to_owned(), rights.to_owned());
    assert_eq!(held("axiom"), BTreeSet::new(), "the log holds no right on anything");
    assert_eq!(held("policy"), [pair("service:Axiom", "rw")].into());
    // It has the receipts of jobs signed.
    let three = [pair("service:Capability", "r"), pair("service:Keys", "x"), pair("service:Policy", "r")];
    assert_eq!(held("process_manager"), three.into());
}

/// Where the program of a process is mapped, which begins there as every ELF does; none where that cannot be read.
fn image_address(pid: i64) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let first = maps.lines().find(|line| line.contains(" 00000000 ") && line.contains('/'))?;
    u64::from_str_radix(first.split('-').next()?, 16).ok()
}

/// Tries in a sandbox of its own, as a service, to reach into each of the node's services.
fn intruder(canaries: &str, attempts: &[&str]) -> String {
    let binary = system_tests::binary().unwrap();
    let binary = binary.to_str().unwrap();
    let attempts = attempts.join(" ");
    format!(
        "[program]\nimage = \"/bin/sh\"\nfs = [\"{binary}\"]\n\
         args = [\"-c\", \"for it in {attempts}; do {binary} process attempt $it; echo $it $?; done; echo end; sleep 1000\"]\n\
         env = {{ BAILIWICK_CANARY = \"{canaries}\" }}\n"
    )
}

/// covers: SUP-62, PRC-17
#[test]
fn no_service_reaches_the_memory_of_another() {
    const ATTEMPTS: [&str; 4] =
        ["trace_a_process", "read_memory_of_a_process", "take_a_descriptor", "read_an_environment"];
    const REFUSED: i32 = 10;
    let Some(node) = TestNode::boot() else { return };
    let pids = node.pids();
    for (name, pid) in &pids {
        let address = image_address(*pid).unwrap_or(4096);
        let name = format!("against-{}", name.replace('_', "-"));
        let canaries = format!("process={pid}\\naddress={address}\\nsecret=\\u007fELF");
        let applied = node.apply(&name, &intruder(&canaries, &ATTEMPTS));
        assert!(applied.status.success(), "{applied:?}");
    }
    for (name, pid) in &pids {
        let intruder = format!("against-{}", name.replace('_', "-"));
        let said = || node.ok(&["service", "logs", &intruder]);
        assert!(within(Duration::from_secs(30), || said().contains("end\n")), "{}", said());
        for attempt in ATTEMPTS {
            assert!(said().contains(&format!("{attempt} {REFUSED}\n")), "{intruder}: {}", said());
        }
        assert_eq!(node.pid(name), *pid, "{name} noticed");
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // The user alone, without any sandbox around it, is refused; root is not, so the attempts are ones.
    let (victim, other) = (node.pid("policy"), node.pid("keys"));
    let address = image_address(victim).unwrap();
    let attempt = |name: &str, uid: Option<u64>| {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(system_tests::binary().unwrap());
        command.args(["process", "attempt", name]);
        command.env("BAILIWICK_CANARY", format!("process={victim}\naddress={address}\nsecret=\u{7f}ELF"));
        if let Some(uid) = uid {
            let uid = u32::try_from(uid).unwrap();
            command.uid(uid).gid(uid);
        }
        command.output().unwrap().status.code()
    };
    for name in &ATTEMPTS[..3] {
        assert_eq!(attempt(name, None), Some(0), "{name} as root");
        assert_eq!(attempt(name, Some(status(other, "Uid")[0])), Some(REFUSED), "{name} as keys");
    }
}

/// Path of the group of a controller that a process is in, wherever it is mounted; none where there is none of its own.
fn group(pid: i64, controller: &str, file: &str) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let roots = match controllers.split(',').any(|one| one == controller) {
            true => vec![format!("/sys/fs/cgroup/{controllers}"), format!("/sys/fs/cgroup/{controller}")],
            false if controllers.is_empty() => vec!["/sys/fs/cgroup".to_owned()],
            false => return None,
        };
        roots.iter().find_map(|root| fs::read_to_string(format!("{root}{path}/{file}")).ok())
    })
}

fn rlimit(pid: i64, name: &str) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    line.split_whitespace().next().unwrap().parse().ok()
}

fn nice(pid: i64) -> i64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = stat.rsplit_once(')').unwrap().1.to_owned();
    after.split_whitespace().nth(16).unwrap().parse().unwrap()
}

/// covers: SUP-32
#[test]
fn a_running_service_is_held_to_the_resources_of_its_manifest() {
    const MEMORY_BYTES: u64 = 48 << 20;
    let Some(node) = TestNode::boot() else { return };
    let resources = "[resources]\nmemory_mb = 48\ncpu_shares = 50\npriority = \"Low\"\n";
    let idle = "[program]\nimage = \"/bin/sleep\"\nargs = [\"1000\"]\n";
    assert!(node.apply("idle", &format!("{resources}{idle}")).status.success());
    let running = node.json(&["service", "status", "idle"]);
    let pid = running["pid"].as_i64().unwrap();
    let missing = running["missing"].to_string();
    // Lower than the services of the node, which are critical, and than a usual one.
    // None is raised above what started the node, which may itself be a background job.
    let own = nice(i64::from(std::process::id()));
    let lowered = |to: i64| to.max(own);
    assert_eq!((nice(pid), nice(node.pid("policy"))), (lowered(10), lowered(0)));
    assert!(node.apply("usual", idle).status.success());
    let usual = node.json(&["service", "status", "usual"])["pid"].as_i64().unwrap();
    assert_eq!(nice(usual), lowered(5));
    let memory = group(pid, "memory", "memory.limit_in_bytes").or_else(|| group(pid, "memory", "memory.max"));
    let memory = memory.and_then(|text| text.trim().parse().ok()).filter(|bytes| *bytes == MEMORY_BYTES);
    assert_eq!(memory.or_else(|| rlimit(pid, "Max address space")), Some(MEMORY_BYTES));
    let shares = |pid: i64| -> Option<u64> {
        let shares = group(pid, "cpu", "cpu.shares").or_else(|| group(pid, "cpu", "cpu.weight"));
        shares.and_then(|text| text.trim().parse().ok())
    };
    // Where no group of its own can be made, the service says so.
    if !missing.contains("CpuWeight") {
        assert_eq!(shares(pid).unwrap() * 2, shares(usual).unwrap(), "half the share of a usual service");
    }
    // One that takes more is ended, and that is on record.
    let hog = "[restart]\nmode = \"never\"\n[program]\nimage = \"/bin/sh\"\n\
               args = [\"-c\", \"taken=$(head -c 300000000 /dev/zero | tr '\\\\0' x); echo took it; sleep 1000\"]\n";
    let _ = node.apply("hog", &format!("{resources}{hog}"));
    let failed = || {
        let log = node.log(&["ServiceFailed"]);
        log.iter().find(|entry| entry["body"]["name"] == "hog").map(|entry| entry["body"].clone())
    };
    assert!(
        within(Duration::from_secs(60), || failed().is_some()),
        "{}",
        node.ok(&["service", "status", "hog"])
    );
    assert!(failed().unwrap()["error"].to_string().to_lowercase().contains("crashed"), "{:?}", failed());
    assert!(!node.ok(&["service", "logs", "hog"]).contains("took it"));
    assert_eq!(node.json(&["service", "status", "idle"])["pid"], pid, "another service noticed");
}

/// covers: IDN-33, IDN-54
#[test]
fn services_run_under_the_identities_of_their_manifests_and_without_a_network() {
    let Some(node) = TestNode::boot() else { return };
    let mut ids = BTreeMap::new();
    for name in SERVICES {
        let identity = node.json(&["identity", "show", &format!("orbital.services.{name}")]);
        let path = format!("/orbital/services/{name}");
        assert_eq!(
            (identity["key_path"].as_str(), identity["status"].as_str()),
            (Some(path.as_str()), Some("Active"))
        );
        assert_eq!(identity["public_key"].as_str().unwrap(), node.ok(&["key", "public", &path]).trim());
        ids.insert(name, identity["id"].clone());
    }
    // What each does in the log it does under its own name.
    node.ok(&["identity", "create", "carol"]);
    let suspended = node.json(&["identity", "suspend", "carol"]);
    assert_eq!(suspended["status"], "Suspended");
    node.ok(&["identity", "token"]);
    let program = node.ok(&["run", "--detach", "--", "sleep", "1000"]);
    node.ok(&["kill", program.trim()]);
    let granted = node.json(&["capability", "grant", "file:/data", "r", "admin"]);
    assert_eq!(granted.as_array().unwrap().len(), 1);
    let log = node.log(&[]);
    for (kind, service) in [
        ("PolicyDecision", "policy"),
        ("IdentityCreated", "identity"),
        ("IdentityUpdated", "identity"),
        ("ProcessCreate", "process_manager"),
        ("CapabilityGrant", "capability_service"),
    ] {
        let mut of_kind = log[1..].iter().filter(|entry| entry["type"] == kind).peekable();
        assert!(of_kind.peek().is_some(), "{kind}");
        for entry in of_kind {
            assert_eq!(entry["submitter"], ids[service], "{entry}");
        }
    }
}
