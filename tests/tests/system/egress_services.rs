//! The way out of services' programs: what the manifest names and policy allows is reached as the service, on record first, and
//! nothing else; whoever dies meanwhile.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use system_tests::{TestNode, is_root, kill, within};

const LIMIT: Duration = Duration::from_secs(60);
const CONNREFUSED: &str = "talk: 111";
const ACCESS: &str = "talk: 13";
pub(crate) const GOES_OUT: &str = env!("CARGO_BIN_EXE_goes_out");

/// Answers `question`, and counts who came.
pub(crate) struct Server {
    pub(crate) place: SocketAddr,
    came: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let came = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&came);
        std::thread::spawn(move || {
            for mut peer in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let mut heard = [0; 8];
                    if peer.read_exact(&mut heard).is_ok() && &heard == b"question" {
                        let _ = peer.write_all(b"answer");
                    }
                });
            }
        });
        Self { place, came }
    }

    pub(crate) fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

/// A service that sees the program of these tests.
fn served(node: &TestNode, args: &str, more: &str) -> Output {
    let folder = Path::new(GOES_OUT).parent().unwrap().display();
    node.apply(
        "served",
        &format!(
            "[program]\nimage = \"/bin/sh\"\nargs = ['-c', '{args}']\nfs = [\"{folder}\"]\n{more}\n\
             [restart]\nmax_restarts = 100\ndelay_ms = 50\n"
        ),
    )
}

/// A node whose rules let everybody connect: what holds is the manifest.
fn boot() -> Option<TestNode> {
    let node = TestNode::boot()?;
    allow_all(&node);
    Some(node)
}

pub(crate) fn allow_all(node: &TestNode) {
    let rule = node.file(
        "rule.toml",
        "[[rule]]\nid = \"out\"\nname = \"out\"\npriority = 100\neffect = \"Allow\"\n\
         [rule.condition]\naction = { kind = \"connect\" }\n\
         [[rule]]\nid = \"in\"\nname = \"in\"\npriority = 100\neffect = \"Allow\"\n\
         [rule.condition]\naction = { kind = \"listen\" }\n",
    );
    node.ok(&["policy", "add", &rule]);
}

fn applied(node: &TestNode, args: &str, more: &str) {
    let applied = served(node, args, more);
    assert!(applied.status.success(), "{applied:?}");
}

fn allow(places: &[&str]) -> String {
    format!("[egress]\nallow = {places:?}")
}

const STAYS: &str = "exec sleep 100000";

/// What the program of these tests says beside it.
fn says(node: &TestNode, words: &[&str]) -> Vec<String> {
    let output = node.run(&[&["exec", "served", "--", GOES_OUT], words].concat());
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn authorised(node: &TestNode) -> Vec<Value> {
    node.log(&["ConnectionAuthorize"])
}

#[test]
fn a_service_reaches_what_its_manifest_names_and_nothing_else() {
    let Some(node) = boot() else { return };
    let (named, other) = (Server::new(), Server::new());
    let (talk, elsewhere) = (format!("talk={}", named.place), format!("talk={}", other.place));
    let out = allow(&[&named.place.to_string(), "192.0.2.0/24:443"]);
    applied(&node, &format!("{GOES_OUT} {talk} {elsewhere} talk=192.0.2.1:444; {STAYS}"), &out);
    let log = || node.service_log("served");
    assert!(within(LIMIT, || log().contains("192.0.2.1:444 was refused")), "{}", log());
    let said = log();
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("talk")).collect();
    // The loopback that was not named is the program's own, where nobody listens.
    assert_eq!(lines, ["talk: answer", CONNREFUSED, ACCESS], "{said}");
    assert_eq!((named.came(), other.came()), (1, 0));
    let entries = authorised(&node);
    assert_eq!(entries.len(), 1, "{entries:?}");
    let own = node.log(&["IdentityCreated"]).pop().unwrap();
    assert_eq!(entries[0]["body"]["remote"], named.place.to_string());
    assert_eq!(entries[0]["body"]["identity"], own["body"]["identity_id"], "{own}");
    assert_eq!(entries[0]["body"]["process"], 0);
    // A command beside it has the same way, and no other.
    assert_eq!(
        says(&node, &[&talk, &elsewhere, "talk=192.0.2.1:444"]),
        ["talk: answer", CONNREFUSED, ACCESS]
    );
    assert_eq!((named.came(), other.came(), authorised(&node).len()), (2, 0, 2));
    // Its own loopback is its own, for all that it does there.
    assert_eq!(says(&node, &["own"]), ["own: answer answer answer"]);
    assert_eq!((named.came(), authorised(&node).len()), (2, 2));
    // Without one it has its own loopback alone.
    applied(&node, STAYS, "");
    assert!(within(LIMIT, || says(&node, &[&talk]) == [CONNREFUSED]), "{:?}", says(&node, &[&talk]));
    assert_eq!(named.came(), 2);
    // Read before anything is changed, with its line and what is wrong with it.
    let before = node.pid("served");
    let refused = served(&node, STAYS, &allow(&["192.0.2.1:443", "127.1:80", "localhost"]));
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("127.1:80") && text.contains("localhost"), "{text}");
    let planned = node.run(&["plan", "-f", node.root().join("served.toml").to_str().unwrap(), "-o", "json"]);
    let planned: Value = serde_json::from_slice(&planned.stdout).unwrap();
    let why = planned[0]["why"].as_str().unwrap();
    assert_eq!(planned[0]["change"], "refused", "{planned}");
    assert!(why.contains("served.toml:11:") && why.contains("egress.allow[1]"), "{why}");
    assert!(why.contains("it is no address") && why.contains("egress.allow[2]"), "{why}");
    assert_eq!(node.pid("served"), before);
}

#[test]
fn policy_has_the_last_word_and_says_what_it_lacks() {
    let Some(node) = TestNode::boot() else { return };
    let server = Server::new();
    let place = server.place.to_string();
    applied(&node, &format!("{GOES_OUT} talk={place}; {STAYS}"), &allow(&[&place]));
    assert!(within(LIMIT, || node.service_log("served").contains(&format!("{place} was refused"))));
    assert_eq!((server.came(), authorised(&node).len()), (0, 0));
    let why = node.ok(&["why", "last"]);
    assert!(why.contains("orbital.services.served wanted Connect") && why.contains("default-deny"), "{why}");
    let (_, rule) = why.split_once("[[rule]]").unwrap();
    node.ok(&["policy", "add", &node.file("rule.toml", format!("[[rule]]{rule}"))]);
    assert_eq!(says(&node, &[&format!("talk={place}")]), ["talk: answer"]);
}

#[test]
fn what_runs_beside_a_service_goes_out_as_it_does_and_still_signals_it() {
    let Some(node) = boot() else { return };
    let (named, other) = (Server::new(), Server::new());
    let (talk, elsewhere) = (format!("talk={}", named.place), format!("talk={}", other.place));
    let both = format!("[\"{GOES_OUT}\", \"{talk}\", \"{elsewhere}\", \"own\"]");
    let folder = Path::new(GOES_OUT).parent().unwrap().display();
    let done = node.apply(
        "served",
        &format!(
            "[program]\nimage = \"/bin/sh\"\n\
             args = ['-c', 'trap \"{GOES_OUT} {talk}; echo reloaded\" HUP; echo $$ > /tmp/pid; while :; do sleep 0.1; done']\n\
             fs = [\"{folder}\"]\nbefore = [{{ command = {both} }}]\nafter = [{{ command = {both} }}]\n\
             reload = [\"/bin/sh\", \"-c\", \"kill -HUP $(cat /tmp/pid)\"]\n\
             [health]\nkind = \"exec\"\ncommand = [\"{GOES_OUT}\", \"{talk}\"]\ncheck_interval_ms = 500\n{}\n",
            allow(&[&named.place.to_string()])
        ),
    );
    assert!(done.status.success(), "{done:?}");
    let lines =
        |start: &str| node.service_log("served").lines().filter(|line| line.starts_with(start)).count();
    assert!(within(LIMIT, || lines("own: answer answer answer") == 2), "{}", node.service_log("served"));
    assert_eq!(lines(CONNREFUSED), 2, "{}", node.service_log("served"));
    // Two, and those of the checks.
    assert!(within(LIMIT, || lines("talk: answer") >= 4), "{}", node.service_log("served"));
    node.ok(&["service", "reload", "served"]);
    assert!(within(LIMIT, || lines("reloaded") == 1), "{}", node.service_log("served"));
    assert_eq!(node.service("served")["state"], "Running");
    assert_eq!(other.came(), 0);
}

#[test]
fn a_connection_of_a_service_is_shown_as_its_own_and_cut() {
    let Some(node) = boot() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    applied(&node, &format!("{GOES_OUT} hold={place}; {STAYS}"), &allow(&[&place]));
    let (mut peer, _) = listener.accept().unwrap();
    let flow = || node.json(&["network", "flows"]).as_array().unwrap().first().cloned();
    let connected = || flow().is_some_and(|flow| flow["state"] == "connected");
    assert!(within(LIMIT, connected), "{:?}", flow());
    let flow = flow().unwrap();
    assert_eq!(flow["service"], "served", "{flow}");
    assert!(flow["process"].is_null(), "{flow}");
    node.ok(&["network", "revoke", flow["connection"].as_str().unwrap(), "--reason", "enough"]);
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(within(LIMIT, || node.service_log("served").contains("hold: ")));
    // Whoever ends takes its connections with it, and the next start has a way out of its own.
    let pid = node.pid("served");
    let (mut peer, _) = {
        node.ok(&["service", "restart", "served"]);
        listener.accept().unwrap()
    };
    assert_ne!(node.pid("served"), pid);
    kill(node.pid("served"));
    assert_eq!(peer.read(&mut [0; 1]).unwrap_or(0), 0);
    drop(listener.accept().unwrap());
}

/// Service, init and supervisor of a node with one that goes out.
fn stands() -> Option<(TestNode, Server, String)> {
    let node = boot()?;
    let server = Server::new();
    applied(&node, STAYS, &allow(&[&server.place.to_string()]));
    let talk = format!("talk={}", server.place);
    assert!(within(LIMIT, || says(&node, &[&talk]) == ["talk: answer"]));
    Some((node, server, talk))
}

#[test]
fn when_the_network_service_dies_a_service_is_shut_in_until_it_is_back() {
    let Some((node, server, talk)) = stands() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let both = allow(&[&place, &server.place.to_string()]);
    applied(&node, &format!("{GOES_OUT} hold={place} until={}; {STAYS}", server.place), &both);
    let (mut peer, _) = listener.accept().unwrap();
    assert!(within(LIMIT, || node.service_log("served").contains("holding")));
    let others = || node.pids().into_iter().filter(|(name, _)| name != "network").collect::<Vec<_>>();
    let before = others();
    let since = Instant::now();
    kill(node.pid("network"));
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    println!("its connection was cut {} ms after the kill", since.elapsed().as_millis());
    let back =
        || node.service_log("served").lines().find(|line| line.starts_with("until: ")).map(str::to_owned);
    assert!(within(LIMIT, || back().is_some()), "{}", node.service_log("served"));
    println!("back {} ms after the kill", since.elapsed().as_millis());
    let back = back().unwrap();
    assert!(["until: answer after []", "until: answer after [100]"].contains(&back.as_str()), "{back}");
    assert_eq!(others(), before);
    assert_eq!(says(&node, &[&talk]), ["talk: answer"]);
}

/// Of what runs, if it does and the supervisor answers.
fn number(node: &TestNode, who: &str) -> Option<i64> {
    let status: Value = serde_json::from_slice(&node.run(&["status", "-o", "json"]).stdout).ok()?;
    if who == "supervisor" {
        return status["supervisor_pid"].as_i64();
    }
    status["services"].as_array()?.iter().find(|service| service["name"] == who)?["pid"].as_i64()
}

#[test]
fn the_next_supervisor_and_process_manager_leave_the_way_out_as_it_is() {
    let Some((node, server, talk)) = stands() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let both = allow(&[&place, &server.place.to_string()]);
    applied(&node, &format!("{GOES_OUT} hold={place}; {STAYS}"), &both);
    let (mut peer, _) = listener.accept().unwrap();
    let pid = node.pid("served");
    for who in ["supervisor", "process_manager", "supervisor"] {
        let before = number(&node, who).unwrap();
        kill(before);
        assert!(within(LIMIT, || number(&node, who).is_some_and(|now| now != before)), "{who}");
        assert!(
            within(LIMIT, || says(&node, &[&talk]) == ["talk: answer"]),
            "{who}: {:?}",
            says(&node, &[&talk])
        );
        assert_eq!(node.pid("served"), pid);
    }
    // What it had went on meanwhile.
    peer.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // The supervisor that took over opens the next channel too.
    kill(node.pid("network"));
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(within(LIMIT, || says(&node, &[&talk]) == ["talk: answer"]), "{:?}", says(&node, &[&talk]));
    assert_eq!(node.pid("served"), pid);
}

#[test]
fn a_socket_that_a_program_hands_to_a_service_leads_nowhere() {
    let Some(node) = boot() else { return };
    let server = Server::new();
    let place = server.place.to_string();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let grant = format!("{}:rw", folder.path().display());
    let path = folder.path().join("meet").display().to_string();
    let shown = Path::new(GOES_OUT).parent().unwrap().display().to_string();
    // The same user as the program, which must be able to open what that has made.
    let user = if is_root() { "user = \"root\"\n" } else { "" };
    let text = format!(
        "[program]\nimage = \"/bin/sh\"\nargs = ['-c', '{STAYS}']\nfs = [\"{shown}\", \"{grant}\"]\n{user}"
    );
    let done = node.apply("served", &text);
    assert!(done.status.success(), "{done:?}");
    let gives = format!("gives={path}");
    let giving = ["run", "--fs", &shown, "--fs", &grant, "--egress", &place, "--", GOES_OUT, &gives];
    let mut giving = node.command(&giving).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(giving.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "holding");
    let heard = says(&node, &[&format!("takes={path}+{place}")]);
    let last = heard.last().unwrap();
    assert_eq!(last, "takes: connect 13 bind done sendto 95 route 92 listen done raced 107", "{heard:?}");
    assert_eq!(said.next().unwrap().unwrap(), "gives: taken");
    assert!(giving.wait().unwrap().success());
    assert_eq!((server.came(), authorised(&node).len()), (0, 0));
}

/// A port of this host that nobody has.
pub(crate) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Asks for a page, and what it heard.
fn page(place: SocketAddr) -> std::io::Result<String> {
    let mut peer = TcpStream::connect(place)?;
    peer.set_read_timeout(Some(LIMIT))?;
    peer.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut heard = String::new();
    peer.read_to_string(&mut heard)?;
    Ok(heard)
}

/// covers: NET-12, NET-35
#[test]
fn what_a_service_publishes_is_reached_as_far_as_policy_lets_in_and_no_further() {
    let Some(node) = boot() else { return };
    if !Path::new("/usr/bin/python3").exists() {
        println!("skipped: python3 is needed");
        return;
    }
    let place = free_port();
    let serves = format!(
        "[program]\nimage = \"/usr/bin/python3\"\nargs = [\"-m\", \"http.server\", \"--bind\", \"127.0.0.1\", \"8080\"]\n\
         [[sockets]]\nname = \"web\"\nlisten = \"tcp:{place}\"\npublish = 8080\n\
         [restart]\nmax_restarts = 100\ndelay_ms = 50\n"
    );
    let done = node.apply("served", &serves);
    assert!(done.status.success(), "{done:?}");
    let serves = || page(place).is_ok_and(|heard| heard.starts_with("HTTP/1.0 200"));
    assert!(within(LIMIT, serves), "{:?} {}", page(place), node.service_log("served"));
    let entry = authorised(&node).pop().unwrap();
    assert_eq!(
        (&entry["body"]["direction"], &entry["body"]["local"]),
        (&"inbound".into(), &place.to_string().into())
    );
    let own = node.log(&["IdentityCreated"]).pop().unwrap();
    assert_eq!(entry["body"]["identity"], own["body"]["identity_id"]);
    // What is open is shown as the service's, and cut.
    let mut peer = TcpStream::connect(place).unwrap();
    let flow = || {
        let flows = node.json(&["network", "flows"]);
        let from = peer.local_addr().unwrap().to_string();
        flows
            .as_array()
            .unwrap()
            .iter()
            .find(|flow| flow["remote"] == from && flow["state"] == "connected")
            .cloned()
    };
    assert!(within(LIMIT, || flow().is_some()), "{}", node.json(&["network", "flows"]));
    let flow = flow().unwrap();
    assert_eq!((&flow["service"], &flow["local"]), (&"served".into(), &place.to_string().into()));
    node.ok(&["network", "revoke", flow["connection"].as_str().unwrap(), "--reason", "enough"]);
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    // Whoever comes while `network` is not there waits for it.
    let network = node.pid("network");
    kill(network);
    // What it holds as it ends, ends with it.
    assert!(within(LIMIT, || !Path::new(&format!("/proc/{network}")).exists()));
    let heard = page(place);
    assert!(heard.as_ref().is_ok_and(|heard| heard.starts_with("HTTP/1.0 200")), "{heard:?}");
    kill(node.pid("served"));
    assert!(within(LIMIT, serves));
    node.ok(&["policy", "remove", "in"]);
    let before = authorised(&node).len();
    let refused = page(place);
    assert!(refused.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset), "{refused:?}");
    assert_eq!(authorised(&node).len(), before);
    let why = node.ok(&["why", "last"]);
    assert!(why.contains("Listen") && why.contains(&place.to_string()), "{why}");
    // It leads nowhere out, and what was not published is not reached.
    assert_eq!(
        node.run(&[
            "exec",
            "served",
            "--",
            "python3",
            "-c",
            "import socket; socket.create_connection(('192.0.2.1', 80))"
        ])
        .status
        .code(),
        Some(1)
    );
}
