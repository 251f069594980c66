//! Every way past a way out that a prototype of it had, each tried three times: on a node, where it is held; in the prototype with all of
//! its guards, where it is held; and there with the guard removed, where it is won. What is won so is worth to be guarded against,
//! and is held by this guard alone. Where two hold it, each of them alone does. `docs/bypasses.md` is the list.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
};

use sandbox::{
    Seccomp, Sockets,
    seccomp::{NotifyCall, Profile, assemble},
};
use system_tests::TestNode;

const PYTHON: &str = "/usr/bin/python3";
const PROGRAM: &str = include_str!("egress_bypasses.py");
/// What not every kernel has.
const MAY_BE_ABSENT: [&str; 4] = ["x32_numbers", "other_numbers", "hypervisor", "ring"];
/// Of the prototype alone: what is done to it is done to a node by other tests.
const NOT_BY_A_PROGRAM: [&str; 3] = ["parked", "orphaned", "source_route"];
/// Prototypes at once.
const WORKERS: usize = 4;

fn has_python() -> bool {
    let has = Path::new(PYTHON).exists();
    if !has {
        println!("skipped: no {PYTHON} (apt-get install python3)");
    }
    has
}

/// The filter of a program with a way out, as the kernel takes it.
fn filter() -> String {
    let seccomp = Seccomp {
        profile: Profile::Program,
        sockets: Sockets { unix: true, inet: true, netlink_route: true },
        notify: vec![NotifyCall::Connect, NotifyCall::Bind, NotifyCall::Listen, NotifyCall::Socket],
    };
    let bytes = assemble(&seccomp).into_iter().flat_map(|line| {
        let [a, b] = line.code.to_ne_bytes();
        [vec![a, b, line.jt, line.jf], line.k.to_ne_bytes().to_vec()].concat()
    });
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// Name, and the guards that all have to be removed.
fn bypasses() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(PYTHON).args(["-c", PROGRAM, "guards"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let row = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        (words.next().unwrap(), words.collect())
    };
    text.lines().map(row).collect()
}

/// How it ended: `won`, `held`, `absent`; and the line that says so.
fn in_prototype(filter: &str, name: &str, removed: &[String]) -> (String, String) {
    let words = ["-c", PROGRAM, "prototype", filter, name, &removed.join(",")];
    let output = Command::new(PYTHON).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{output:?}"));
    (said.split_whitespace().next().unwrap().to_owned(), text)
}

/// covers: NET-34
#[test]
fn each_bypass_is_won_when_its_guard_is_removed_and_only_then() {
    if !has_python() {
        return;
    }
    let filter = filter();
    let cases = bypasses().into_iter().flat_map(|(name, guards)| {
        let alone = guards.iter().filter(|_| guards.len() > 1).map(|guard| vec![guard.clone()]);
        let held = std::iter::once(Vec::new()).chain(alone);
        let held: Vec<_> = held.map(|removed| (name.clone(), removed, "held")).collect();
        held.into_iter().chain([(name, guards, "won")])
    });
    let cases = Mutex::new(cases.collect::<Vec<_>>());
    let next = || cases.lock().unwrap().pop();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((name, removed, expected)) = next() {
                    let (ended, text) = in_prototype(&filter, &name, &removed);
                    println!("without {removed:?}: {}", text.trim_end());
                    let no_namespaces = text.contains("no user namespaces") || text.contains("no Landlock");
                    let is_absent = ended == "absent" && (no_namespaces || MAY_BE_ABSENT.contains(&&*name));
                    assert!(is_absent || ended == expected, "{name} without {removed:?}: {text}");
                }
            });
        }
    });
}

/// covers: NET-34
#[test]
fn no_bypass_is_won_on_a_node() {
    if !has_python() {
        return;
    }
    let Some(node) = TestNode::boot() else { return };
    let mut servers = Command::new(PYTHON)
        .args(["-c", PROGRAM, "serve"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(servers.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let [allowed, other] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line:?}") };
    let all = bypasses();
    let names = all.keys().map(String::as_str).filter(|name| !NOT_BY_A_PROGRAM.contains(name));
    let names: Vec<&str> = names.collect();
    let words = ["run", "--egress", allowed, "--", PYTHON, "-c", PROGRAM, "try", allowed, other];
    let output = node.run(&[&words, &names[..]].concat());
    drop(servers.stdin.take());
    servers.wait().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{output:?}");
    for name in names {
        let ended = said.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        assert_eq!(ended, Some("held"), "{name}: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
    // Nothing of it is on record but what was asked for and given.
    let entries = node.log(&["ConnectionAuthorize"]);
    assert!(entries.iter().all(|entry| entry["body"]["remote"] == allowed), "{entries:?}");
}
