//! Services of the user, as a newcomer meets them: applied to a running node, stopped, killed, taken away.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use system_tests::{TestNode, kill, within};

/// Far below the ten seconds after which a stop becomes a kill, also on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(15);

fn manifest(node: &TestNode, name: &str, program: &str, more: &str) -> String {
    let file = node.root().join(format!("{name}.toml"));
    let text = format!(
        "version = 1\n[service]\nname = \"{name}\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n[program]\n{program}\n{more}\n"
    );
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn shell(script: &str) -> String {
    format!("image = \"/bin/sh\"\nargs = ['-c', '''{script}''']")
}

fn of_process(pid: i64, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().split_whitespace().next().unwrap_or_default().to_owned()
}

#[test]
fn a_plain_program_stops_at_once_and_is_shut_in_like_any() {
    let Some(node) = TestNode::boot() else { return };
    for (name, program) in [
        ("sleeper", "image = \"/bin/sleep\"\nargs = [\"1000\"]".to_owned()),
        ("looper", shell("while :; do date; sleep 60; done")),
    ] {
        node.ok(&["service", "apply", &manifest(&node, name, &program, "")]);
        let pid = node.pid(name);
        let shown = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(shown.starts_with("/bin/s"), "status shows the program, not what stands before it: {shown}");
        assert_eq!(of_process(pid, "Seccomp"), "2");
        assert_eq!(of_process(pid, "NoNewPrivs"), "1");
        assert_eq!(of_process(pid, "CapEff"), "0000000000000000");
        assert!(node.service(name)["memory_bytes"].as_u64().unwrap() > 0);
        let begun = Instant::now();
        node.ok(&["service", "stop", name]);
        assert!(begun.elapsed() < AT_ONCE, "{name} took {:?} to stop", begun.elapsed());
        let stopped = node.service(name);
        assert_eq!((stopped["state"].as_str(), &stopped["last_error"]), (Some("Stopped"), &Value::Null));
    }
    let failed = node.json(&["log", "show", "0..", "--type", "ServiceFailed"]);
    assert_eq!(failed.as_array().unwrap().len(), 0, "{failed}");
}

/// covers: SUP-100
#[test]
fn a_killed_program_is_on_record_with_its_signal_and_comes_back() {
    let Some(node) = TestNode::boot() else { return };
    node.ok(&[
        "service",
        "apply",
        &manifest(&node, "sleeper", "image = \"/bin/sleep\"\nargs = [\"1000\"]", ""),
    ]);
    let before = node.pid("sleeper");
    kill(before);
    assert!(within(SOON, || node.service("sleeper")["pid"].as_i64().is_some_and(|pid| pid != before)));
    assert_eq!(node.service("sleeper")["last_error"], "was ended by signal 9");
    let failed = node.json(&["log", "show", "0..", "--type", "ServiceFailed"]);
    assert_eq!(failed[0]["body"]["error"]["crashed"]["status"], -9, "{failed}");
}

/// A call that is answered shows that the server accepts; without a context the answer is a refusal.
const CALLER: &str = r#"image = "/usr/bin/python3"
args = ["-uc", '''
import socket, time
while True:
    try:
        s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect("/run/bailiwick/identity.sock")
        s.send(b"POST /bailiwick.identity.v1.Identities/WhoAmI HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
               b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        print("answered", s.recv(12).decode())
    except OSError as error: print("failed", error)
    time.sleep(0.1)
''']"#;
const DEPENDS: &str = "[[dependencies]]\nname = \"identity\"";

fn answers(node: &TestNode) -> usize {
    node.service_log("caller").matches("answered HTTP/1.1 400").count()
}

#[test]
fn a_new_client_reaches_a_running_server_whoever_dies() {
    let Some(node) = TestNode::boot() else { return };
    if !std::path::Path::new("/usr/bin/python3").exists() {
        println!("skipped: /usr/bin/python3 is not there");
        return;
    }
    let server = || node.pids().into_iter().find(|(name, _)| name == "identity").unwrap().1;
    let before = server();
    let file = manifest(&node, "caller", CALLER, DEPENDS);
    node.ok(&["service", "apply", &file]);
    assert!(within(SOON, || answers(&node) > 2), "{}", node.service_log("caller"));
    assert_eq!(server(), before, "the server was not restarted for it");
    let goes_on = || {
        let so_far = answers(&node);
        within(SOON, || answers(&node) > so_far + 2)
    };
    kill(node.json(&["status"])["supervisor_pid"].as_i64().unwrap());
    node.settled();
    assert!(goes_on());
    kill(server());
    node.settled();
    assert!(goes_on());
    assert!(!node.service_log("caller").contains("failed"), "{}", node.service_log("caller"));
    // Another supervisor than the one that opened the road takes it away, and opens it again.
    let socket = node.root().join("run/edge/identity/caller.sock");
    assert!(socket.exists());
    node.ok(&["service", "stop", "caller"]);
    node.ok(&["service", "remove", "caller"]);
    assert!(!socket.exists());
    let heard =
        |what: &str| fs::read_to_string(node.root().join("state/logs/identity.log")).unwrap().contains(what);
    assert!(within(SOON, || heard("this client has gone")));
    node.ok(&["service", "apply", &file]);
    assert!(goes_on());
}

/// A manifest that is applied again keeps its identity, also before the supervisor has heard of it from the log, and
/// what it does not need any more is closed.
#[test]
fn a_manifest_is_applied_again_and_again() {
    let Some(node) = TestNode::boot() else { return };
    let script = shell("sleep 1000");
    for round in 0..3 {
        let depends = if round == 1 { DEPENDS } else { "" };
        let file = manifest(&node, "changing", &script, depends);
        node.ok(&["service", "apply", &file]);
        assert_eq!(node.root().join("run/edge/identity/changing.sock").exists(), round == 1);
    }
    let made = node.json(&["log", "show", "0..", "--type", "IdentityCreated"]);
    assert_eq!(made.as_array().unwrap().len(), 1, "{made}");
}

/// covers: SUP-92
#[test]
fn what_is_refused_or_taken_back_leaves_no_road() {
    let Some(node) = TestNode::boot() else { return };
    let (keys, identity) = (DEPENDS.replace("identity", "keys"), DEPENDS);
    let script = shell("ls /run/bailiwick; sleep 1000");
    node.ok(&["service", "apply", &manifest(&node, "mine", &script, &keys)]);
    let broken = manifest(&node, "mine", "image = \"/bin/none\"", identity);
    let refused = node.run(&["service", "apply", &broken]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("/bin/none") && said.contains("RolledBack"), "{said}");
    assert!(within(SOON, || node.service("mine")["state"] == "Running"), "the one before runs again");
    assert!(!node.root().join("run/edge/identity/mine.sock").exists());
    assert!(node.root().join("run/edge/keys/mine.sock").exists());
    assert!(
        within(SOON, || node.service_log("mine") == "keys.sock\nkeys.sock\n"),
        "{}",
        node.service_log("mine")
    );
    let kept = fs::read_to_string(node.root().join("config/manifests/mine.toml")).unwrap();
    assert!(kept.contains("sleep 1000"), "{kept}");
}

/// Both sd_notify programs: one that is applied to a running node, and the same one under the next supervisor.
#[test]
fn a_watchdog_is_heard_from_the_first_moment_and_after_the_supervisors_death() {
    let Some(node) = TestNode::boot() else { return };
    let program = r#"image = "/usr/bin/python3"
args = ["-uc", '''
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ["NOTIFY_SOCKET"])
s.send(b"READY=1\nMAINPID=%d" % os.getpid())
print("every", os.environ["WATCHDOG_USEC"])
while True:
    time.sleep(0.1); s.send(b"WATCHDOG=1")
''']"#;
    if !std::path::Path::new("/usr/bin/python3").exists() {
        println!("skipped: /usr/bin/python3 is not there");
        return;
    }
    let watched = "[health]\nkind = \"sd_notify\"\nwatchdog_ms = 3000";
    node.ok(&["service", "apply", &manifest(&node, "watched", program, watched)]);
    assert!(node.service_log("watched").contains("every 3000000"));
    let before = node.pid("watched");
    kill(node.json(&["status"])["supervisor_pid"].as_i64().unwrap());
    node.settled();
    // Longer than the watchdog waits.
    std::thread::sleep(Duration::from_secs(4));
    let after = node.service("watched");
    assert_eq!((after["pid"].as_i64(), after["restarts"].as_u64()), (Some(before), Some(0)), "{after}");
    assert!(after["uptime_ms"].as_u64().unwrap() > 4_000, "it ran all the time: {after}");
    // Stopped like frozen software: it says nothing any more.
    assert!(Command::new("kill").args(["-STOP", &before.to_string()]).status().unwrap().success());
    assert!(within(SOON, || node.service("watched")["pid"].as_i64().is_some_and(|pid| pid != before)));
}

#[test]
fn mistakes_are_named_and_end_with_a_code_that_means_something() {
    let Some(mut node) = TestNode::boot() else { return };
    let fails = |node: &TestNode, args: &[&str], code: i32, words: &[&str]| {
        let output = node.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
    };
    fails(&node, &["service", "status", "nobody"], 1, &["nobody", "service list"]);
    fails(&node, &["service", "logs", "nobody"], 1, &["nobody", "service list"]);
    fails(&node, &["service", "stop", "axiom"], 1, &["core service"]);
    let file = manifest(&node, "mine", &shell("echo begun; sleep 1000"), "");
    let broken = manifest(&node, "broken", "image = \"/etc/passwd\"", "");
    fails(&node, &["apply", "-f", &file, &broken], 1, &["/etc/passwd", "1 of 2"]);
    assert!(within(SOON, || node.service_log("mine") == "begun\n"));
    fails(&node, &["service", "remove", "mine"], 1, &["bailiwick service stop mine"]);
    assert!(node.ok(&["service", "stop", "mine"]).contains("Stopped"));
    assert!(node.ok(&["service", "remove", "mine"]).contains("removed"));
    let taken = manifest(&node, "mine", &shell("true"), "[identity]\nkey_path = \"/orbital/services/axiom\"");
    fails(&node, &["service", "apply", &taken], 1, &["/orbital/services/mine"]);
    node.down();
    fails(&node, &["service", "list"], 4, &["bailiwick up"]);
    fails(&node, &["down"], 4, &["bailiwick up"]);
}

/// A stop that takes longer than the command line used to wait is waited for, with a word.
#[test]
fn what_does_not_end_is_killed_and_meanwhile_said() {
    let Some(node) = TestNode::boot() else { return };
    let stubborn = "[health]\nstop_timeout_ms = 1500";
    let script = shell("trap \"\" TERM; while :; do sleep 1; done");
    node.ok(&["service", "apply", &manifest(&node, "stubborn", &script, stubborn)]);
    let stopped = node.run(&["service", "stop", "stubborn"]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert!(String::from_utf8_lossy(&stopped.stderr).contains("stopping stubborn"));
    assert!(String::from_utf8_lossy(&stopped.stdout).contains("was killed"));
}

/// covers: PRC-21
#[test]
fn a_refused_spawn_launches_nothing() {
    let Some(node) = TestNode::boot() else { return };
    let number = || node.ok(&["run", "--detach", "--", "true"]).trim().parse::<u64>().unwrap();
    let before = number();
    let rule = node.root().join("rule.toml");
    fs::write(
        &rule,
        "[[rule]]\nid = \"no-programs\"\nname = \"n\"\ndescription = \"d\"\npriority = 9000\neffect = \"Deny\"\n\
         [rule.condition]\naction = { kind = \"create_process\" }\n",
    )
    .unwrap();
    node.ok(&["policy", "add", rule.to_str().unwrap()]);
    for _ in 0..3 {
        assert_eq!(node.run(&["run", "--", "true"]).status.code(), Some(125));
    }
    assert!(node.json(&["why", "last"])["rule"] == "no-programs");
    node.ok(&["policy", "remove", "no-programs"]);
    // A launch takes a number, whatever becomes of it.
    assert_eq!(number(), before + 1);
}
