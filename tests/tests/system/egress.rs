//! The way out of unmodified programs: what was named and what policy allows is reached, on record first, and nothing else.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, ChildStdout, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use system_tests::{TestNode, kill, within};

const LIMIT: Duration = Duration::from_secs(60);
/// Long enough for a packet on this host to arrive.
const QUIET: Duration = Duration::from_millis(300);

/// What the program says of the numbers that `connect` gave.
const CONNREFUSED: &str = "talk: 111";
const ACCESS: &str = "talk: 13";

/// Answers whoever asks, until the test's process ends, and counts who came.
struct Server {
    place: SocketAddr,
    came: Arc<AtomicUsize>,
}

impl Server {
    fn at(place: &str) -> Self {
        let listener = TcpListener::bind(place).unwrap();
        let place = listener.local_addr().unwrap();
        let came = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&came);
        std::thread::spawn(move || {
            for peer in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || answer(peer));
            }
        });
        Self { place, came }
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

/// `question` is answered with `answer`, a request of HTTP with a page.
fn answer(mut peer: TcpStream) {
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = peer.read(&mut buffer) {
        heard.extend_from_slice(&buffer[..read]);
        if heard == b"question" {
            let _ = peer.write_all(b"answer");
            return;
        }
        if heard.ends_with(b"\r\n\r\n") {
            let _ =
                peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\npage\n");
            return;
        }
    }
}

/// The program of these tests, visible inside.
fn program() -> (&'static str, String) {
    let file = env!("CARGO_BIN_EXE_goes_out");
    (file, format!("{}:ro", Path::new(file).parent().unwrap().display()))
}

fn arguments<'a>(grant: &'a str, places: &'a [String], rest: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["run", "--fs", grant];
    places.iter().for_each(|place| all.extend(["--egress", place]));
    all.push("--");
    all.extend(rest);
    all
}

/// What it says, line by line.
fn goes_out(node: &TestNode, places: &[String], words: &[&str]) -> Vec<String> {
    let (file, grant) = program();
    let output = node.run(&arguments(&grant, places, &[&[file], words].concat()));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn authorised(node: &TestNode) -> Vec<Value> {
    node.log(&["ConnectionAuthorize"])
}

#[test]
fn a_program_reaches_what_was_named_and_nothing_else() {
    let Some(node) = TestNode::boot() else { return };
    let (named, other) = (Server::at("127.0.0.1:0"), Server::at("127.0.0.1:0"));
    let (talk, elsewhere) = (format!("talk={}", named.place), format!("talk={}", other.place));
    let places = [named.place.to_string(), "192.0.2.0/24:443".to_owned()];
    let said =
        goes_out(&node, &places, &[&talk, &elsewhere, "talk=192.0.2.1:444", "talk=169.254.169.254:80"]);
    // The loopback that was not named is the program's own, where nobody listens.
    assert_eq!(said, ["talk: answer", CONNREFUSED, ACCESS, ACCESS]);
    assert_eq!((named.came(), other.came()), (1, 0));
    let entries = authorised(&node);
    assert_eq!(entries.len(), 1, "{entries:?}");
    let create = node.log(&["ProcessCreate"]);
    assert_eq!(entries[0]["body"]["remote"], named.place.to_string());
    assert_eq!(entries[0]["body"]["process"], create[0]["body"]["pid"]);
    assert_eq!(entries[0]["body"]["identity"], create[0]["body"]["identity"]);
    let grants = create[0]["body"]["grants"].to_string();
    assert!(grants.contains(&format!("egress:{}", named.place)), "{grants}");
    let why = node.ok(&["why", "last"]);
    assert!(why.contains("192.0.2.1:444") && why.contains("--egress 192.0.2.1:444"), "{why}");
    let without = goes_out(&node, &[], &[&talk]);
    assert_eq!(without, [CONNREFUSED]);
    assert_eq!(named.came(), 1);
    let refused = node.run(&["run", "--egress", "127.1:80", "--", "true"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("127.1:80"), "{text}");
}

#[test]
fn a_rule_has_the_last_word() {
    let Some(node) = TestNode::boot() else { return };
    let server = Server::at("127.0.0.1:0");
    let rule = node.file(
        "rule.toml",
        format!(
            "[[rule]]\nid = \"shut\"\nname = \"shut\"\npriority = 5000\neffect = \"Deny\"\n[rule.condition]\nand = [\n\
             {{ action = {{ kind = \"connect\" }} }},\n\
             {{ resource = {{ exact = {{ type = \"network\", id = \"{}\" }} }} }},\n]\n",
            server.place
        ),
    );
    node.ok(&["policy", "add", &rule]);
    let (places, talk) = ([server.place.to_string()], format!("talk={}", server.place));
    assert_eq!(goes_out(&node, &places, &[&talk]), [ACCESS]);
    assert_eq!((server.came(), authorised(&node).len()), (0, 0));
    let denied = node.log(&["PolicyDecision"]);
    let denied: Vec<&Value> = denied.iter().filter(|entry| entry["body"]["effect"] == "Deny").collect();
    assert_eq!(denied.len(), 1, "{denied:?}");
    let why = node.ok(&["why", &denied[0]["sequence"].to_string()]);
    assert!(why.contains("shut") && why.contains(&server.place.to_string()), "{why}");
    node.ok(&["policy", "remove", "shut"]);
    assert_eq!(goes_out(&node, &places, &[&talk]), ["talk: answer"]);
    assert_eq!(authorised(&node).len(), 1);
}

#[test]
fn programs_of_many_kinds_go_out_unchanged() {
    let Some(node) = TestNode::boot() else { return };
    let (server, sixth) = (Server::at("127.0.0.1:0"), Server::at("[::1]:0"));
    let places = [server.place.to_string(), sixth.place.to_string()];
    let words: Vec<String> = ["epoll", "threads", "fork", "bound"]
        .iter()
        .map(|what| format!("{what}={}", server.place))
        .chain([
            format!("talk={}", sixth.place),
            format!("epoll={}", sixth.place),
            format!("talk=[::ffff:127.0.0.1]:{}", server.place.port()),
            "own".to_owned(),
            "kinds".to_owned(),
        ])
        .collect();
    let said = goes_out(&node, &places, &words.iter().map(String::as_str).collect::<Vec<_>>());
    let expected = [
        "epoll: answer",
        "threads: 8 of 8",
        "fork: child: answer",
        // Bound to an address of its own network before it is said that the host's is meant.
        "bound: answer",
        "talk: answer",
        "epoll: answer",
        "talk: answer",
        "own: answer answer answer",
        "kinds: raw 1 sctp 93 vsock 97 packet 97 unix made datagram made freebind 92",
    ];
    assert_eq!(said, expected);
    let entries = authorised(&node);
    assert_eq!(entries.len(), 38, "one for each connection");
    if let Some(own) = address_of_this_host() {
        let server = Server::at(&format!("{own}:0"));
        let bound = format!("bound={}", server.place);
        let said = goes_out(&node, &[server.place.to_string()], &[&bound]);
        assert_eq!(said, ["bound: answer"], "a socket of its own network gives way to one of the host's");
    }
    let mapped = entries.iter().filter(|entry| entry["body"]["remote"].to_string().contains("ffff"));
    assert_eq!(mapped.count(), 0, "IPv4 has one name");
    let shell = [
        "bash",
        "-c",
        &format!(
            "exec 3<>/dev/tcp/127.0.0.1/{} && printf question >&3 && head -c 6 <&3",
            server.place.port()
        ),
    ];
    let output = node.run(&arguments("/usr:ro", &places, &shell));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "answer", "{output:?}");
    for client in [&["/usr/bin/curl", "-sS"][..], &["/usr/bin/wget", "-qO-"]] {
        if !Path::new(client[0]).exists() {
            println!("skipped: {} is not installed", client[0]);
            continue;
        }
        let url = format!("http://{}/", server.place);
        let command = [client, &[url.as_str()]].concat();
        let output = node.run(&arguments("/usr:ro", &places, &command));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "page\n", "{output:?}");
        let refused = node.run(&[&["run", "--"][..], &command].concat());
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    }
}

/// Beside the loopback. Nothing is sent to find it.
fn address_of_this_host() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}

fn signal(pid: i64, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    pidfd_send_signal(pidfd_open(pid, PidfdFlags::empty()).unwrap(), signal).unwrap();
}

#[test]
fn nothing_of_a_program_leaves_before_the_log_has_it() {
    let Some(node) = TestNode::boot() else { return };
    let server = Server::at("127.0.0.1:0");
    let (file, grant) = program();
    let places = [server.place.to_string()];
    let go = tempfile::tempdir().unwrap();
    let folder = go.path().display();
    // It waits until the log stands still.
    let script = format!("until [ -e {folder}/go ]; do sleep 0.02; done; exec {file} talk={}", server.place);
    let shown = format!("{folder}:ro");
    let mut all = vec!["run", "--fs", &shown];
    let rest = arguments(&grant, &places, &["bash", "-c", &script]);
    all.extend(&rest[1..]);
    let running = node.command(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(within(LIMIT, || node.log(&["ProcessCreate"]).len() == 1));
    let axiom = node.pid("axiom");
    signal(axiom, Signal::STOP);
    fs::write(format!("{folder}/go"), "").unwrap();
    std::thread::sleep(QUIET);
    let early = server.came();
    signal(axiom, Signal::CONT);
    let output = running.wait_with_output().unwrap();
    assert_eq!(early, 0, "it connected while nothing could be recorded");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "talk: answer\n", "{output:?}");
}

/// Longer than it takes until it is seen which connections nobody has any more.
const FORGOTTEN: Duration = Duration::from_secs(9);

/// A program that does this with a server of the test's, up to where it holds what it has.
fn started(node: &TestNode, what: &str) -> (TcpListener, Child, BufReader<ChildStdout>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let (file, grant) = program();
    let (places, word) = ([place.to_string()], format!("{what}={place}"));
    let all = arguments(&grant, &places, &[file, &word]);
    let mut running = node.command(&all).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(running.stdout.take().unwrap());
    assert_eq!(next(&mut said), "holding");
    (listener, running, said)
}

#[test]
fn a_connection_that_is_hidden_is_not_out_of_reach() {
    let Some(node) = TestNode::boot() else { return };
    let (listener, mut parking, mut said) = started(&node, "parked");
    let accepted = |listener: &TcpListener| {
        let (peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        peer
    };
    let (mut one, other) = (accepted(&listener), accepted(&listener));
    let (listener, mut unreadable, _said) = started(&node, "unreadable");
    let mut held = accepted(&listener);
    let unreadable_at = held.local_addr().unwrap().to_string();
    std::thread::sleep(FORGOTTEN);
    // The kernel has them, whoever has them; in a queue, or in a process that cannot be looked at.
    let flows = node.json(&["network", "flows"]);
    assert_eq!(flows.as_array().unwrap().len(), 3, "{flows}");
    one.write_all(b"!").unwrap();
    answer(other);
    assert_eq!(next(&mut said), "parked: read 1, the other: answer");
    assert!(parking.wait().unwrap().success());
    let flow = flows.as_array().unwrap().iter().find(|flow| flow["remote"] == unreadable_at);
    let connection = flow.unwrap_or_else(|| panic!("{flows}"))["connection"].as_str().unwrap();
    node.ok(&["network", "revoke", connection, "--reason", "enough"]);
    assert!(is_over(&mut held));
    assert!(!unreadable.wait().unwrap().success());
}

/// Whether the other side has ended already: what is revoked is cut before the answer.
fn is_over(peer: &mut TcpStream) -> bool {
    peer.set_nonblocking(true).unwrap();
    match peer.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// A program that holds a connection, and the peer's end of it.
fn holding(node: &TestNode, how: &str, words: &str) -> (Child, TcpStream, BufReader<ChildStdout>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let (file, grant) = program();
    let places = [place.to_string(), words.to_owned()];
    let hold = format!("{how}={place}");
    let until = format!("until={words}");
    let all = arguments(&grant, &places, &[file, &hold, &until]);
    let mut running = node.command(&all).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(running.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "holding\n");
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    (running, peer, said)
}

#[test]
fn a_socket_that_another_program_hands_over_leads_nowhere() {
    let Some(node) = TestNode::boot() else { return };
    let server = Server::at("127.0.0.1:0");
    let (file, shown) = program();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meet").display().to_string();
    let grant = format!("{}:rw", folder.path().display());
    let place = server.place.to_string();
    let gives = format!("gives={path}");
    let giving = ["run", "--fs", &shown, "--fs", &grant, "--egress", &place, "--", file, &gives];
    let mut giving = node.command(&giving).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(giving.stdout.take().unwrap());
    assert_eq!(next(&mut said), "holding");
    // It has no way out of its own.
    let takes = format!("takes={path}+{place}");
    let taking = ["run", "--fs", &shown, "--fs", &grant, "--", file, &takes];
    let mut taking = node.command(&taking).stdout(Stdio::piped()).spawn().unwrap();
    let mut heard = BufReader::new(taking.stdout.take().unwrap());
    let mut line = next(&mut heard);
    if let Some(listens) = line.strip_prefix("listens: ") {
        let listens: SocketAddr = listens.parse().unwrap();
        let reached = TcpStream::connect((server.place.ip(), listens.port()));
        assert!(reached.is_err(), "{line}");
        line = next(&mut heard);
    }
    assert_eq!(line, "takes: connect 13 bind done sendto 95 route 92 listen done raced 107");
    assert_eq!(next(&mut said), "gives: taken");
    assert!(giving.wait().unwrap().success() && taking.wait().unwrap().success());
    assert_eq!(server.came(), 0);
    assert!(authorised(&node).is_empty());
}

/// Takes no more connections: what asks for one hears nothing. Held by who asked before.
fn silent() -> (OwnedFd, SocketAddr, Vec<OwnedFd>) {
    let stream = |flags| socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    let listener = stream(SocketFlags::CLOEXEC);
    rustix::net::bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let place = SocketAddr::try_from(rustix::net::getsockname(&listener).unwrap()).unwrap();
    let asked = (0..4).map(|_| {
        let one = stream(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        let _ = rustix::net::connect(&one, &place);
        one
    });
    let asked = asked.collect();
    (listener, place, asked)
}

#[test]
fn a_connect_that_is_broken_off_is_not_another_way_out() {
    let Some(node) = TestNode::boot() else { return };
    let (_listener, place, _asked) = silent();
    let other = Server::at("127.0.0.1:0");
    let said = goes_out(&node, &[place.to_string()], &[&format!("broken={place}+{}", other.place)]);
    println!("{said:?}");
    assert_eq!(other.came(), 0, "{said:?}");
    let heard = said[0].strip_prefix("broken: ").unwrap();
    // Under way, broken off, and in its own network, where nobody listens.
    let expected = ["114", "104", "103", "111", "115"];
    assert!(heard.split(' ').all(|number| expected.contains(&number)), "{said:?}");
    let other = other.place.to_string();
    let entries = authorised(&node);
    assert!(
        !entries.is_empty() && entries.iter().all(|entry| entry["body"]["remote"] != other),
        "{entries:?}"
    );
}

#[test]
fn of_two_connects_of_one_socket_one_is_carried_out_and_shown() {
    let Some(node) = TestNode::boot() else { return };
    let (first, second) = (Server::at("127.0.0.1:0"), Server::at("127.0.0.1:0"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let last = listener.local_addr().unwrap();
    let (file, grant) = program();
    let places = [first.place, second.place, last].map(|place| place.to_string());
    let (both, hold) = (format!("both={}+{}", first.place, second.place), format!("hold={last}"));
    let all = arguments(&grant, &places, &[file, &both, &hold]);
    let mut running = node.command(&all).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(running.stdout.take().unwrap());
    assert_eq!(next(&mut said), "both: 16 of 16");
    assert_eq!(next(&mut said), "holding");
    let flows = node.json(&["network", "flows"]);
    assert_eq!(flows.as_array().unwrap().len(), 17, "{flows}");
    assert_eq!(first.came() + second.came(), 16);
    assert_eq!(authorised(&node).len(), 17);
    drop(listener);
    next(&mut said);
    assert!(running.wait().unwrap().success());
}

fn next(said: &mut impl BufRead) -> String {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn a_connection_of_a_program_is_shown_and_cut() {
    let Some(node) = TestNode::boot() else { return };
    let server = Server::at("127.0.0.1:0");
    let (mut running, mut peer, mut said) = holding(&node, "hold", &server.place.to_string());
    let flows = node.json(&["network", "flows"]);
    let [flow] = &flows.as_array().unwrap()[..] else { panic!("{flows}") };
    assert_eq!(
        (&flow["local"], &flow["state"]),
        (&peer.peer_addr().unwrap().to_string().into(), &"connected".into())
    );
    assert_eq!(flow["process"], node.log(&["ProcessCreate"])[0]["body"]["pid"]);
    let since = Instant::now();
    node.ok(&["network", "revoke", flow["connection"].as_str().unwrap(), "--reason", "enough"]);
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    println!("cut {} ms after the command was started", since.elapsed().as_millis());
    let held = next(&mut said);
    assert!(held.starts_with("hold: "), "{held}");
    // What was not taken back goes on.
    assert_eq!(next(&mut said), "until: answer after []");
    assert!(running.wait().unwrap().success());
    assert!(within(LIMIT, || node.json(&["network", "flows"]).as_array().unwrap().is_empty()));
}

/// covers: NET-32
#[test]
fn what_a_rule_limits_is_held_while_it_is_carried() {
    let Some(node) = TestNode::boot() else { return };
    let server = Server::at("127.0.0.1:0");
    let rule = |id: &str, limits: &str| {
        let text = format!(
            "[[rule]]\nid = \"{id}\"\nname = \"{id}\"\npriority = 950\neffect = \"AllowWithConditions\"\n\
             condition = {{ action = {{ kind = \"connect\" }} }}\n\
             restrictions = [{{ name = \"limited\", condition = \"always\", limits = {{ {limits} }} }}]\n"
        );
        node.ok(&["policy", "add", &node.file("rule.toml", text)]);
    };
    let place = server.place.to_string();
    let (talk, epoll) = (format!("talk={place}"), format!("epoll={place}"));
    rule("slow", "bandwidth_limit = 1000000");
    assert_eq!(
        goes_out(&node, std::slice::from_ref(&place), &[&talk, &epoll]),
        ["talk: answer", "epoll: answer"]
    );
    assert_eq!(server.came(), 2);
    let granted = authorised(&node)[0]["body"]["grant"].to_string();
    assert!(granted.contains("1000000"), "{granted}");
    // Through the relay it is cut as any other.
    let (mut running, mut peer, mut said) = holding(&node, "hold", &place);
    let flows = node.json(&["network", "flows"]);
    node.ok(&["network", "revoke", flows[0]["connection"].as_str().unwrap(), "--reason", "enough"]);
    assert!(is_over(&mut peer), "it was answered before it was cut");
    assert!(next(&mut said).starts_with("hold: "));
    assert_eq!(next(&mut said), "until: answer after []");
    assert!(running.wait().unwrap().success());
    node.ok(&["policy", "remove", "slow"]);
    rule("mute", "send = 0");
    let said = goes_out(&node, &[place], &[&talk]);
    assert!(said[0].starts_with("talk: ") && said[0] != "talk: answer", "{said:?}");
    node.ok(&["policy", "remove", "mute"]);
}

#[test]
fn who_removes_a_rule_is_answered_when_what_it_allowed_is_cut() {
    let Some(node) = TestNode::boot() else { return };
    let server = Server::at("127.0.0.1:0");
    let rule = "[[rule]]\nid = \"out\"\nname = \"out\"\npriority = 950\neffect = \"Allow\"\n\
                condition = { action = { kind = \"connect\" } }\n";
    node.ok(&["policy", "add", &node.file("rule.toml", rule)]);
    // Where its monitor does not find it: only who waits for the end can answer after it.
    let (mut running, mut peer, _said) = holding(&node, "hidden", &server.place.to_string());
    assert!(!is_over(&mut peer));
    node.ok(&["policy", "remove", "out"]);
    assert!(is_over(&mut peer), "it was answered before it was cut");
    running.wait().unwrap();
}

#[test]
fn a_connection_that_is_hidden_when_it_is_cut_takes_its_program_with_it() {
    let Some(node) = TestNode::boot() else { return };
    let server = Server::at("127.0.0.1:0");
    let (mut running, mut peer, _said) = holding(&node, "hidden", &server.place.to_string());
    let flows = node.json(&["network", "flows"]);
    let since = Instant::now();
    node.ok(&["network", "revoke", flows[0]["connection"].as_str().unwrap(), "--reason", "enough"]);
    assert!(is_over(&mut peer), "it was answered before it was cut");
    println!("cut and answered {} ms after the command was started", since.elapsed().as_millis());
    assert!(!running.wait().unwrap().success());
    assert_eq!(server.came(), 0);
}

#[test]
fn a_connection_that_was_handed_to_another_program_is_cut_there() {
    let Some(node) = TestNode::boot() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let (file, shown) = program();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meet").display().to_string();
    let grant = format!("{}:rw", folder.path().display());
    let hands = format!("hands={path}+{place}");
    let handing = ["run", "--fs", &shown, "--fs", &grant, "--egress", &place, "--", file, &hands];
    let mut handing = node.command(&handing).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(next(&mut BufReader::new(handing.stdout.take().unwrap())), "holding");
    let keeps = format!("keeps={path}");
    let keeping = ["run", "--fs", &shown, "--fs", &grant, "--", file, &keeps];
    let mut keeping = node.command(&keeping).stdout(Stdio::piped()).spawn().unwrap();
    let mut heard = BufReader::new(keeping.stdout.take().unwrap());
    assert_eq!(next(&mut heard), "holding");
    let (mut first, _) = listener.accept().unwrap();
    let (mut second, _) = listener.accept().unwrap();
    let flows = node.json(&["network", "flows"]);
    let first_at = first.peer_addr().unwrap().to_string();
    let flow = flows.as_array().unwrap().iter().find(|flow| flow["local"] == first_at);
    let connection = flow.unwrap_or_else(|| panic!("{flows}"))["connection"].as_str().unwrap();
    node.ok(&["network", "revoke", connection, "--reason", "enough"]);
    assert!(is_over(&mut first), "it was answered before it was cut");
    // Who had it goes on, and so does the other one, until its program ends.
    assert!(handing.try_wait().unwrap().is_none() && !is_over(&mut second));
    node.ok(&["kill", "1"]);
    assert!(!handing.wait().unwrap().success());
    assert!(within(LIMIT, || is_over(&mut second)));
    assert!(keeping.wait().unwrap().success());
    assert!(next(&mut heard).starts_with("keeps: "));
}

#[test]
fn when_the_network_service_dies_programs_are_shut_in_until_it_is_back() {
    let Some(node) = TestNode::boot() else { return };
    let server = Server::at("127.0.0.1:0");
    let (mut running, mut peer, mut said) = holding(&node, "hold", &server.place.to_string());
    let others = || node.pids().into_iter().filter(|(name, _)| name != "network").collect::<Vec<_>>();
    let before = others();
    let since = Instant::now();
    kill(node.pid("network"));
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    println!("its connection was cut {} ms after the kill", since.elapsed().as_millis());
    let held = next(&mut said);
    assert!(held.starts_with("hold: "), "{held}");
    let back = next(&mut said);
    println!("back {} ms after the kill: {back}", since.elapsed().as_millis());
    assert!(["until: answer after []", "until: answer after [100]"].contains(&back.as_str()), "{back}");
    assert!(running.wait().unwrap().success());
    assert_eq!(others(), before);
    assert_eq!(authorised(&node).len(), 2);
}
