//! Programs run as somebody, by somebody's right, below the node's first process; whatever is refused changes nothing.

use std::{fs, process::Output, time::Duration};

use base::Hash;
use contracts::process_manager::v1::{
    GetInfoRequest, KillRequest, ProcessInfo, SpawnRequest, SpawnResponse, processes_client::ProcessesClient,
};
use serde_json::Value;
use system_tests::{
    TestNode,
    client::{Client, reason},
    kill, within,
};
use tonic::Status;

/// A program that every host has, and that waits.
const SLEEP: &str = "/bin/sleep";

/// The operator at the process manager, with a token.
struct Manager(Client);

impl Manager {
    fn of(node: &TestNode) -> Self {
        let operator = Client::operator(node);
        let token = operator.issue(&[]);
        Self(operator.with_token(Some(&token)))
    }

    fn stub(&self, verb: &str) -> ProcessesClient<kit::client::Calls> {
        ProcessesClient::new(self.0.calls("process_manager", &format!("system.process_manager.{verb}")))
    }

    fn spawn(&self, change: impl FnOnce(&mut SpawnRequest)) -> Result<SpawnResponse, Status> {
        let mut request = SpawnRequest {
            image: Hash::of(&fs::read(SLEEP).unwrap()).0.to_vec(),
            args: vec!["1000".to_owned()],
            identity: self.0.identity().0.to_vec(),
            name: "sleep".to_owned(),
            idempotency_key: kit::authority::random_16().unwrap().to_vec(),
            ..SpawnRequest::default()
        };
        change(&mut request);
        Ok(self.0.wait(self.stub("spawn").spawn(request))?.into_inner())
    }

    fn info(&self, pid: u64) -> Result<ProcessInfo, Status> {
        Ok(self.0.wait(self.stub("get_info").get_info(GetInfoRequest { pid }))?.into_inner())
    }

    fn kill(&self, pid: u64) -> Result<(), Status> {
        let request = KillRequest { pid, signal: "kill".to_owned(), reason: "test".to_owned() };
        self.0.wait(self.stub("kill").kill(request)).map(|_| ())
    }
}

/// Starts a program that stays, and makes its image known.
fn detached(node: &TestNode) -> u64 {
    node.ok(&["run", "--detach", "--", SLEEP, "1000"]).trim().parse().unwrap()
}

fn row(node: &TestNode, pid: u64) -> Option<Value> {
    node.json(&["ps"]).as_array().unwrap().iter().find(|row| row["pid"] == pid).cloned()
}

fn lives(node: &TestNode, pid: u64) -> bool {
    row(node, pid).is_some_and(|row| row["state"] == "running")
}

fn creations(node: &TestNode) -> usize {
    node.log(&["ProcessCreate"]).len()
}

/// covers: PRC-12
#[test]
fn a_program_runs_as_its_identity_if_that_is_known_and_active() {
    let Some(node) = TestNode::boot() else { return };
    let bob = node.json(&["identity", "create", "bob"])["id"].clone();
    let run = || node.run(&["run", "--detach", "--as", "bob", "--", SLEEP, "1000"]);
    let pid = |output: Output| String::from_utf8(output.stdout).unwrap().trim().parse::<u64>().unwrap();
    let started = pid(run());
    assert_eq!(row(&node, started).unwrap()["identity"], bob);
    let log = node.log(&["ProcessCreate"]);
    let created = log.iter().find(|entry| entry["body"]["pid"] == started).unwrap();
    assert_eq!(created["body"]["identity"], bob);
    assert_eq!(created["body"]["by"], node.json(&["identity", "whoami"])["id"]);
    let before = creations(&node);
    node.ok(&["identity", "suspend", "bob"]);
    let refused = run();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("suspended or revoked"), "{said}");
    let unknown = Manager::of(&node).spawn(|request| request.identity = vec![7; 32]);
    assert_eq!(reason(unknown.unwrap_err()), "UnknownIdentity");
    assert_eq!(creations(&node), before, "nothing was created for somebody unknown or suspended");
    node.ok(&["identity", "resume", "bob"]);
    assert!(lives(&node, pid(run())));
    node.ok(&["identity", "revoke", "bob"]);
    assert!(!run().status.success());
    assert_eq!(creations(&node), before + 1);
}

/// covers: PRC-14, PRC-22
#[test]
fn starting_and_ending_a_program_is_decided_for_its_image_and_its_number() {
    let Some(node) = TestNode::boot() else { return };
    let pid = detached(&node);
    let image = Hash::of(&fs::read(SLEEP).unwrap());
    let decided = |kind: &str| {
        let log = node.log(&["PolicyDecision"]);
        let mut of_kind = log.iter().filter(|entry| entry["body"]["action"].get(kind).is_some());
        of_kind.next_back().map(|entry| entry["body"].clone())
    };
    let started = decided("create_process").unwrap();
    assert_eq!(started["action"]["create_process"]["image"], image.to_string());
    assert_eq!(started["effect"], "Allow");
    let deny = |id: &str, action: &str, resource: &str| {
        let rule = format!(
            "[[rule]]\nid = \"{id}\"\nname = \"{id}\"\ndescription = \"\"\npriority = 2000\neffect = \"Deny\"\n\
             [rule.condition]\nand = [{{ action = {{ kind = \"{action}\" }} }}, {{ resource = {{ exact = {resource} }} }}]\n"
        );
        node.ok(&["policy", "add", &node.file("deny.toml", rule)]);
    };
    deny("no-sleep", "create_process", &format!("{{ type = \"image\", id = \"{image}\" }}"));
    deny("no-end", "terminate_process", &format!("{{ type = \"process\", id = \"{pid}\" }}"));
    let before = creations(&node);
    let manager = Manager::of(&node);
    assert_eq!(reason(manager.spawn(|_| {}).unwrap_err()), "PolicyDenied");
    assert_eq!(reason(manager.kill(pid).unwrap_err()), "PolicyDenied");
    assert!(lives(&node, pid) && creations(&node) == before);
    assert_eq!(decided("terminate_process").unwrap()["effect"], "Deny");
    // Another image and another process are other questions.
    let other = node.ok(&["run", "--detach", "--", "/bin/sh", "-c", "sleep 1000; exit"]);
    node.ok(&["kill", "--signal", "kill", other.trim()]);
    node.ok(&["policy", "remove", "no-end"]);
    manager.kill(pid).unwrap();
    assert!(within(Duration::from_secs(10), || !lives(&node, pid)));
    let ended = decided("terminate_process").unwrap();
    assert_eq!(
        (&ended["action"]["terminate_process"]["pid"], &ended["effect"]),
        (&pid.into(), &"Allow".into())
    );
}

/// covers: PRC-15, IDN-31
#[test]
fn without_a_token_that_suffices_nothing_is_started_or_ended() {
    let Some(node) = TestNode::boot() else { return };
    let pid = detached(&node);
    let whole = Client::operator(&node).issue(&[]);
    let signing = Client::operator(&node).issue(&["sign"]);
    let mut altered = whole.clone();
    // Inside the signed part: a token ends in its signature.
    let at = altered.len() / 2;
    let other = if altered.as_bytes()[at] == b'A' { "B" } else { "A" };
    altered.replace_range(at..=at, other);
    let state = || {
        let running = |row: &&Value| row["state"] == "running";
        let list = node.json(&["ps"]).as_array().unwrap().iter().filter(running).cloned().collect::<Vec<_>>();
        let pids: Vec<u64> = list.iter().map(|row| row["pid"].as_u64().unwrap()).collect();
        (pids, node.log(&[]).len())
    };
    let before = state();
    assert_eq!(before.0, [pid]);
    for (token, expected) in [
        (None, "auth_required"),
        (Some("no token"), "auth_invalid"),
        (Some(altered.as_str()), "auth_invalid"),
        (Some(signing.as_str()), "auth_invalid"),
    ] {
        let manager = Manager(Client::operator(&node).with_token(token));
        assert_eq!(reason(manager.spawn(|_| {}).unwrap_err()), expected, "{token:?}");
        assert_eq!(reason(manager.kill(pid).unwrap_err()), expected, "{token:?}");
        assert_eq!(state(), before, "{token:?}");
    }
    let manager = Manager(Client::operator(&node).with_token(Some(&whole)));
    let started = manager.spawn(|_| {}).unwrap().pid;
    manager.kill(started).unwrap();
    assert!(state().1 > before.1);
}

/// covers: PRC-03, PRC-05, PRC-20, PRC-27
#[test]
fn a_spawned_program_can_be_asked_about() {
    let Some(node) = TestNode::boot() else { return };
    detached(&node);
    let manager = Manager::of(&node);
    let spawned = manager.spawn(|_| {}).unwrap();
    assert!(spawned.tid > 0);
    let at = spawned.axiom_ref.clone().unwrap();
    let entry = node.json(&["log", "show", &at.sequence.to_string()])[0].clone();
    assert_eq!(entry["type"], "ProcessCreate");
    assert_eq!(entry["hash"], Hash::from_slice(&at.hash).unwrap().to_string());
    assert_eq!(entry["body"]["pid"], spawned.pid);
    let info = manager.info(spawned.pid).unwrap();
    assert_eq!((info.pid, info.parent_pid, info.state.as_str()), (spawned.pid, None, "running"));
    assert_eq!(info.identity, manager.0.identity().0);
    assert_eq!(info.image, Hash::of(&fs::read(SLEEP).unwrap()).0);
    assert_eq!((info.created_at, info.thread_count), (Some(at), 1));
    assert!(info.resource_usage.is_some() && info.host_pid > 0);
    assert_eq!(reason(manager.info(spawned.pid + 1000).unwrap_err()), "NoSuchProcess");
    let no_image = manager.spawn(|request| request.image = vec![9; 32]);
    assert_eq!(reason(no_image.unwrap_err()), "ImageNotFound");
    manager.kill(spawned.pid).unwrap();
    assert!(within(Duration::from_secs(10), || {
        manager.info(spawned.pid).map_or(true, |info| info.state == "zombie")
    }));
}

/// covers: PRC-28
#[test]
fn a_running_program_tells_what_it_uses() {
    const WRITTEN: u64 = 4 << 20;
    const TMPFS: i64 = 0x0102_1994;
    let Some(node) = TestNode::boot() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let script = format!("printf '%{WRITTEN}s' x > {path}/file; while :; do :; done");
    let grant = format!("{path}:rw");
    let pid =
        node.ok(&["run", "--detach", "--fs", &grant, "--", "bash", "-c", &script]).trim().parse().unwrap();
    let manager = Manager::of(&node);
    let usage = || manager.info(pid).unwrap().resource_usage.unwrap();
    let busy = || usage().cpu_time_ns > 100_000_000;
    assert!(within(Duration::from_secs(20), busy), "{:?}", usage());
    let first = usage();
    assert!(first.memory_bytes > 100_000 && first.memory_peak_bytes >= first.memory_bytes, "{first:?}");
    // What lies in memory is written to no disk.
    if rustix::fs::statfs(folder.path()).unwrap().f_type != TMPFS {
        assert!(first.io_write_bytes >= WRITTEN, "{first:?}");
    }
    assert!(within(Duration::from_secs(20), || usage().cpu_time_ns > first.cpu_time_ns));
    let row = row(&node, pid).unwrap();
    assert!(row["memory_bytes"].as_u64() > Some(100_000) && row["threads"] == 1, "{row}");
    node.ok(&["kill", "--signal", "kill", &pid.to_string()]);
}

/// covers: PRC-18, PRC-36, PRC-37
#[test]
fn the_first_process_is_the_parent_of_programs_as_of_services() {
    let Some(node) = TestNode::boot() else { return };
    let keeper = node.json(&["status"])["keeper_pid"].as_i64().unwrap();
    let parent = |pid: i64| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<i64>().ok()).unwrap()
    };
    let program = detached(&node);
    let host_pid = row(&node, program).unwrap()["host_pid"].as_i64().unwrap();
    assert_eq!(parent(host_pid), keeper);
    for (name, pid) in node.pids() {
        assert_eq!(parent(pid), keeper, "{name}");
    }
    // So the end of what starts programs does not end them, and how one ended is still known.
    let manager = node.pid("process_manager");
    kill(manager);
    assert!(within(Duration::from_secs(15), || {
        node.pids().iter().any(|(name, pid)| name == "process_manager" && *pid != manager)
    }));
    node.settled();
    assert_eq!(parent(host_pid), keeper);
    node.ok(&["kill", "--signal", "kill", &program.to_string()]);
    let exits = || node.log(&["ProcessExit"]);
    assert!(within(Duration::from_secs(10), || exits().iter().any(|exit| exit["body"]["pid"] == program)));
}

/// Every file below a folder that can be read and that has these bytes; images are programs, and large.
fn holding(folder: &std::path::Path, bytes: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if entry.file_name().to_string_lossy().starts_with("blake3-") {
            continue;
        }
        if kind.is_dir() {
            found.extend(holding(&path, bytes));
        } else if kind.is_file()
            && fs::read(&path).is_ok_and(|content| content.windows(bytes.len()).any(|part| part == bytes))
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_secret_is_shown_to_its_program_and_stands_nowhere_else() {
    let Some(node) = TestNode::boot() else { return };
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("key");
    let secret = "correct-horse-battery-staple";
    fs::write(&file, secret).unwrap();
    let given = format!("token={}", file.display());
    let script = "cd $CREDENTIALS_DIRECTORY && wc -c < token && stat -c %a . token; \
                  chmod 600 token; echo x > token; rm -f token; ls; exec sleep 1000";
    let pid =
        node.ok(&["run", "--detach", "--secret", &given, "--", "/bin/sh", "-c", script]).trim().to_owned();
    let state = || node.json(&["ps"]).as_array().unwrap()[0].clone();
    let host_pid = state()["host_pid"].as_i64().unwrap();
    // Both the monitor and the program that stands below it.
    let program = || {
        let children = fs::read_to_string(format!("/proc/{host_pid}/task/{host_pid}/children")).ok()?;
        children.split_whitespace().next()?.parse::<i64>().ok()
    };
    let sleeps = || {
        program().is_some_and(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"))
        })
    };
    assert!(within(Duration::from_secs(10), sleeps));
    let shown = fs::read_to_string(node.root().join(format!("state/process_manager/programs/{pid}/stdout")));
    let shown = shown.unwrap_or_else(|_| {
        let found = holding(node.root(), b"500\n400\ntoken\n");
        fs::read_to_string(found.first().expect("the program's output")).unwrap()
    });
    assert_eq!(shown, format!("{}\n500\n400\ntoken\n", secret.len()), "it stays as it was");
    for pid in [host_pid, program().unwrap()] {
        for kind in ["environ", "cmdline"] {
            // Its monitor is nobody's to look at but root's.
            let bytes = match fs::read(format!("/proc/{pid}/{kind}")) {
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && pid == host_pid => {
                    continue;
                }
                read => read.unwrap(),
            };
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{kind} of {pid}");
        }
    }
    assert_eq!(holding(node.root(), secret.as_bytes()), Vec::<std::path::PathBuf>::new());
    assert_eq!(holding(node.root(), &Hash::of(secret.as_bytes()).0), Vec::<std::path::PathBuf>::new());
    let log = node.log(&["ProcessCreate"]);
    let grants = log.last().unwrap()["body"]["grants"].clone();
    assert_eq!(grants, serde_json::json!([format!("secret:token:{}", secret.len())]));
    node.ok(&["kill", "-s", "kill", &pid]);
}
