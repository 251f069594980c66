//! One more command beside a running service of the user: decided, on record, no more than the service itself, and gone when
//! its caller, its service or the supervisor is.

use std::{
    fs,
    io::{Read, Write},
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::Value;
use system_tests::{TestNode, kill, within};

const SOON: Duration = Duration::from_secs(60);
/// Has left a mark where only it and what runs beside it can see it.
const SERVICE: &str = "[program]\nimage = \"/bin/sh\"\nargs = ['-c', 'echo here > /tmp/mark; exec sleep 100000']\n\
                       env = { GIVEN = \"first\" }\n[restart]\nmax_restarts = 100\ndelay_ms = 100\n";

fn served() -> Option<TestNode> {
    let node = TestNode::boot()?;
    let applied = node.apply("served", SERVICE);
    assert!(applied.status.success(), "{applied:?}");
    let marked = || node.run(&["exec", "served", "--", "test", "-e", "/tmp/mark"]).status.success();
    assert!(within(SOON, marked), "{:?}", node.run(&["exec", "served", "--", "ls", "/tmp"]));
    Some(node)
}

fn decisions(node: &TestNode) -> Vec<Value> {
    let log = node.log(&["PolicyDecision"]);
    log.into_iter().filter(|entry| !entry["body"]["action"]["execute"].is_null()).collect()
}

/// How the act of a decision was closed.
fn closed(node: &TestNode, decision: &Value) -> Option<Value> {
    let log = node.log(&["Receipt"]);
    let of_it = |it: &&Value| it["body"]["axiom_entry"]["sequence"] == decision["sequence"];
    log.iter().find(of_it).map(|entry| entry["body"]["status"].clone())
}

fn closes(node: &TestNode, expected: &Value) {
    let last = decisions(node).pop().unwrap();
    let is_so = || closed(node, &last).as_ref() == Some(expected);
    assert!(within(SOON, is_so), "{:?} instead of {expected}", closed(node, &last));
}

/// Processes whose words are so.
fn all_sleepers(mark: &str) -> Vec<i64> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i64>().ok());
    let words = |pid: &i64| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| words(pid) == format!("sleep\0{mark}\0")).collect()
}

fn sleepers(mark: &str) -> usize {
    all_sleepers(mark).len()
}

fn sleeper(mark: &str) -> i64 {
    all_sleepers(mark)[0]
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// One that stays, and has said that it is there.
fn beside(node: &TestNode, mark: &str) -> Child {
    let mut command =
        node.command(&["exec", "served", "--", "sh", "-c", &format!("echo up; exec sleep {mark}")]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    assert!(within(SOON, || sleepers(mark) == 1));
    child
}

#[test]
fn a_command_is_decided_recorded_and_closed_with_its_end() {
    let Some(node) = served() else { return };
    let script = "cat; echo $A $GIVEN; cat /tmp/mark; echo wrong >&2; exit 7";
    let mut command = node.command(&["exec", "served", "--env", "A=b", "--", "sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "through\nb first\nhere\n", "{output:?}");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(7), &b"wrong\n"[..]));
    let decided = decisions(&node).pop().unwrap();
    assert_eq!(decided["body"]["action"]["execute"]["target"]["service"], "served", "{decided}");
    let asked = decided.to_string();
    assert!(asked.contains(r#""command":"sh""#) && !asked.contains("through"), "{asked}");
    closes(&node, &serde_json::json!({ "failed": { "exit_code": 7 } }));
    // More than any pipe or queue holds, both ways.
    let mut command = node.command(&["exec", "served", "--", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let writer = std::thread::spawn({
        let sent = sent.clone();
        move || stdin.write_all(&sent)
    });
    assert!(child.wait_with_output().unwrap().stdout == sent);
    writer.join().unwrap().unwrap();
    let terminal = node.ok(&[
        "exec",
        "-t",
        "served",
        "--",
        "sh",
        "-c",
        "test -t 0 && test -t 1 && stty size < /dev/tty",
    ]);
    assert_eq!(terminal, "24 80\r\n");
    let late = node.run(&["exec", "served", "--timeout", "100ms", "--", "sleep", "1000"]);
    assert_eq!(late.status.code(), Some(137), "{late:?}");
    closes(&node, &"timeout".into());
}

/// What it may is what the service may: the same root, user, processes and filter.
#[test]
fn a_command_is_where_its_service_is_and_no_more() {
    let Some(node) = served() else { return };
    let child = beside(&node, "86398.0625");
    let spaces = |pid: i64| {
        let of = |one: &str| fs::read_link(format!("/proc/{pid}/ns/{one}")).unwrap();
        ["mnt", "pid", "net", "user", "ipc", "uts", "cgroup"].map(of)
    };
    let group = |pid: i64| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let (own, one) = (node.pid("served"), sleeper("86398.0625"));
    assert_eq!((spaces(one), group(one)), (spaces(own), group(own)));
    let rights = |pid: i64| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let names = ["Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:"];
        let of = |line: &&str| names.iter().any(|name| line.starts_with(name));
        status.lines().filter(of).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rights(one), rights(own));
    let of_own = rights(own).join("\n");
    assert!(of_own.contains("Seccomp:\t2") && of_own.contains("NoNewPrivs:\t1"), "{of_own}");
    end(child);
    let out =
        "test -e /root/.ssh && exit 4; ls /home/* 2>/dev/null && exit 5; unshare -U true && exit 6; echo end";
    let said = node.run(&["exec", "served", "--", "sh", "-c", out]);
    assert_eq!(String::from_utf8_lossy(&said.stdout), "end\n", "{said:?}");
    // A way out over what the first process has open is none.
    let folder = node.run(&["exec", "served", "-C", "/proc/1/root/../../..", "--", "ls"]);
    assert!(!folder.status.success(), "{folder:?}");
    let out = node.run(&["exec", "served", "--", "/proc/1/exe", "--version"]);
    assert!(!out.status.success() && out.stdout.is_empty(), "{out:?}");
}

#[test]
fn what_is_denied_or_nobodys_runs_nothing_and_is_said() {
    let Some(node) = served() else { return };
    let said = |args: &[&str]| {
        let output = node.run(args);
        assert_eq!(output.status.code(), Some(125), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let before = decisions(&node).len();
    for own in system_tests::SERVICES {
        assert!(said(&["exec", own, "--", "true"]).contains("service of the node itself"), "{own}");
    }
    assert!(said(&["exec", "nobody", "--", "true"]).contains("no service"));
    assert!(said(&["exec", "--service", "nobody", "--", "true"]).contains("there is no service"));
    assert!(said(&["exec", "served", "-C", "relative", "--", "true"]).contains("absolute"));
    assert_eq!(decisions(&node).len(), before, "nothing to decide");
    let absent = node.run(&["exec", "served", "--", "no-such-command"]);
    assert_eq!(absent.status.code(), Some(127));
    assert!(
        String::from_utf8_lossy(&absent.stderr).contains("no-such-command: open executable failed"),
        "{absent:?}"
    );
    assert_eq!(node.run(&["exec", "served", "--", "/etc/passwd"]).status.code(), Some(126));
    let rule = "[[rule]]\nid = \"none\"\nname = \"none\"\ndescription = \"d\"\npriority = 999\neffect = \"Deny\"\n\
                condition = { action = { kind = \"execute\" } }\n";
    node.ok(&["policy", "add", &node.file("rule.toml", rule)]);
    assert!(said(&["exec", "served", "--", "touch", "/tmp/denied"]).contains("bailiwick why"));
    assert_eq!(decisions(&node).pop().unwrap()["body"]["effect"], "Deny");
    node.ok(&["policy", "remove", "none"]);
    assert_eq!(node.run(&["exec", "served", "--", "test", "-e", "/tmp/denied"]).status.code(), Some(1));
    node.ok(&["service", "stop", "served"]);
    assert!(said(&["exec", "served", "--", "true"]).contains("does not run"));
}

#[test]
fn a_command_ends_with_its_caller_its_service_or_the_supervisor() {
    let Some(node) = served() else { return };
    let mut child = beside(&node, "86398.125");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(within(SOON, || sleepers("86398.125") == 0), "its caller has gone");
    closes(&node, &"cancelled".into());

    let child = beside(&node, "86398.25");
    kill(node.pid("served"));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(137), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("its service ended"), "{output:?}");
    closes(&node, &"cancelled".into());
    assert!(
        within(SOON, || node.run(&["exec", "served", "--", "true"]).status.success()),
        "it is there again"
    );

    let served = node.pid("served");
    let child = beside(&node, "86398.375");
    kill(node.json(&["status"])["supervisor_pid"].as_i64().unwrap());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(within(SOON, || sleepers("86398.375") == 0), "the supervisor has gone");
    assert!(
        within(SOON, || node.run(&["exec", "served", "--", "true"]).status.success()),
        "the next one serves"
    );
    assert_eq!(node.pid("served"), served, "and the service has noticed nothing");
}

#[test]
fn so_many_run_at_once_and_what_is_left_behind_keeps_nobody() {
    let Some(node) = served() else { return };
    let mut all: Vec<Child> = (0..8).map(|n| beside(&node, &format!("86398.5{n}"))).collect();
    let more = node.run(&["exec", "served", "--", "true"]);
    assert_eq!(more.status.code(), Some(125), "{more:?}");
    assert!(String::from_utf8_lossy(&more.stderr).contains("8 commands"), "{more:?}");
    all.iter_mut().for_each(|child| child.kill().unwrap());
    all.into_iter().for_each(|mut child| drop(child.wait()));
    assert!(within(SOON, || node.run(&["exec", "served", "--", "true"]).status.success()));
    let left = node.ok(&["exec", "served", "--", "sh", "-c", "sleep 86398.75 & echo left"]);
    assert_eq!(left, "left\n");
    // The shell that was forked for it may not have become it yet.
    assert!(within(SOON, || sleepers("86398.75") == 1), "it stays, and ends with its service");
    node.ok(&["service", "stop", "served"]);
    assert!(within(SOON, || sleepers("86398.75") == 0));
}

fn signal(pid: i64, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// What is on record as ended does not run, whenever the init that was asked comes to it.
#[test]
fn what_was_given_up_while_the_init_stood_still_never_runs() {
    use rustix::process::Signal;
    let Some(node) = served() else { return };
    let served = node.pid("served");
    let status = fs::read_to_string(format!("/proc/{served}/status")).unwrap();
    let init: i64 =
        status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    let before = decisions(&node).len();
    signal(init, Signal::STOP);
    let late = node.run(&["exec", "served", "--timeout", "100ms", "--", "touch", "/tmp/late"]);
    assert_eq!(late.status.code(), Some(137), "{late:?}");
    closes(&node, &"timeout".into());
    let mut child = node.command(&["exec", "served", "--", "touch", "/tmp/cancelled"]).spawn().unwrap();
    assert!(within(SOON, || decisions(&node).len() == before + 2));
    std::thread::sleep(Duration::from_millis(500));
    child.kill().unwrap();
    child.wait().unwrap();
    closes(&node, &"cancelled".into());
    signal(init, Signal::CONT);
    for name in ["late", "cancelled"] {
        let mark = format!("/tmp/{name}");
        assert_eq!(node.run(&["exec", "served", "--", "test", "-e", &mark]).status.code(), Some(1), "{name}");
    }
}

/// The same of the keeper, by whom the init is asked.
#[test]
fn what_was_given_up_while_the_keeper_stood_still_never_runs() {
    use rustix::process::Signal;
    let Some(node) = served() else { return };
    let keeper = node.json(&["status"])["keeper_pid"].as_i64().unwrap();
    let before = decisions(&node).len();
    signal(keeper, Signal::STOP);
    let late = node.run(&["exec", "served", "--timeout", "100ms", "--", "touch", "/tmp/late"]);
    let closed = late.status.code() == Some(137);
    let mut child = node.command(&["exec", "served", "--", "touch", "/tmp/cancelled"]).spawn().unwrap();
    let decided = within(SOON, || decisions(&node).len() == before + 2);
    // Longer than its answer is waited for.
    std::thread::sleep(Duration::from_secs(2));
    child.kill().unwrap();
    child.wait().unwrap();
    let last = decisions(&node).pop().unwrap();
    let is_closed = within(SOON, || self::closed(&node, &last) == Some("cancelled".into()));
    // Before anything is asserted: a keeper that stands still ends nothing.
    signal(keeper, Signal::CONT);
    assert!(closed, "{late:?}");
    assert!(decided && is_closed, "it is on record only when the keeper goes on");
    for name in ["late", "cancelled"] {
        let mark = format!("/tmp/{name}");
        assert_eq!(node.run(&["exec", "served", "--", "test", "-e", &mark]).status.code(), Some(1), "{name}");
    }
}
