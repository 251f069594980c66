//! The way out of a node: found by name, decided, on record first, cut when it is taken back; and a node without it.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use base::{IdentityId, PublicKey};
use contracts::network::v1::{self as pb, network_client::NetworkClient};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use system_tests::{
    TestNode,
    client::{Client, reason},
    kill, within,
};
use tonic::{Response, Status};

const LIMIT: Duration = Duration::from_secs(20);
const WAIT_MS: u32 = 10_000;
/// Long enough for a packet on this host to arrive.
const QUIET: Duration = Duration::from_millis(300);

fn address(of: SocketAddr) -> pb::Address {
    let SocketAddr::V4(v4) = of else { panic!("{of}") };
    pb::Address { ip: v4.ip().octets().to_vec(), port: u32::from(of.port()), ..pb::Address::default() }
}

/// Somebody who uses the network service.
struct User(Client);

impl User {
    fn operator(node: &TestNode) -> Self {
        let operator = Client::operator(node);
        let token = operator.issue(&[]);
        Self(operator.with_token(Some(&token)))
    }

    fn stub(&self, verb: &str) -> NetworkClient<kit::client::Calls> {
        NetworkClient::new(self.0.calls("network", &format!("system.network.{verb}")))
    }

    fn socket(&self) -> Result<u64, Status> {
        let request = pb::SocketRequest { domain: "inet".to_owned(), socket_type: "stream".to_owned() };
        self.0.wait(self.stub("socket").socket(request)).map(|reply| reply.into_inner().socket)
    }

    fn connect(&self, socket: u64, to: SocketAddr) -> Result<pb::ConnectReply, Status> {
        let request = pb::ConnectRequest { socket, address: Some(address(to)), timeout_ms: WAIT_MS };
        self.0.wait(self.stub("connect").connect(request)).map(Response::into_inner)
    }

    fn send(&self, socket: u64, data: &[u8]) -> Result<(), Status> {
        let request = pb::SendRequest { socket, data: data.to_vec(), timeout_ms: WAIT_MS };
        self.0.wait(self.stub("send").send(request)).map(drop)
    }

    fn close(&self, socket: u64) -> Result<(), Status> {
        self.0.wait(self.stub("close").close(pb::CloseRequest { socket })).map(drop)
    }

    fn recv(&self, socket: u64) -> Result<Vec<u8>, Status> {
        let request = pb::RecvRequest { socket, max_bytes: 1024, timeout_ms: WAIT_MS };
        self.0.wait(self.stub("recv").recv(request)).map(|reply| reply.into_inner().data)
    }
}

/// What an application runs in these tests: this same program.
mod application {
    use super::*;
    use contracts::supervisor::v1::{
        ListServicesRequest, LookupServiceRequest, supervisor_client::SupervisorClient,
    };

    const PEER: &str = "TEST_PEER";
    const IDENTITY: &str = "TEST_IDENTITY";

    pub(super) fn manifest(node: &TestNode, name: &str, peer: SocketAddr) -> String {
        let key = node.ok(&["key", "public", &format!("/orbital/services/{name}")]);
        let identity = IdentityId::of_key(&key.trim().parse::<PublicKey>().unwrap());
        let image = std::env::current_exe().unwrap();
        format!(
            "[capabilities]\nrequired = [{{ type = \"Network\", permissions = [\"read\", \"write\"] }}]\n\
             [[dependencies]]\nname = \"network\"\nrequired = false\n\
             [[dependencies]]\nname = \"supervisor\"\nrequired = false\n\
             [program]\nimage = \"{}\"\nargs = [\"--exact\", \"network::application::as_an_application\", \"--nocapture\"]\n\
             env = {{ {PEER} = \"{peer}\", {IDENTITY} = \"{identity}\" }}\n",
            image.display()
        )
    }

    /// No test where nobody has said to whom to talk.
    #[test]
    fn as_an_application() {
        let Ok(peer) = std::env::var(PEER) else { return };
        let peer: SocketAddr = peer.parse().unwrap();
        let identity = std::env::var(IDENTITY).unwrap().parse().unwrap();
        let client = Client::new("/run/bailiwick", identity);
        let mut lookup =
            SupervisorClient::new(client.calls("supervisor", "system.supervisor.lookup_service"));
        let mut found = Err(Status::unavailable("not asked"));
        within(LIMIT, || {
            let request =
                LookupServiceRequest { name: "network".to_owned(), ..LookupServiceRequest::default() };
            found = client.wait(lookup.lookup_service(request));
            found.is_ok()
        });
        println!("SAID lookup {:?}", found.map(Response::into_inner).map_err(reason));
        let mut list = SupervisorClient::new(client.calls("supervisor", "system.supervisor.list_services"));
        let listed = client.wait(list.list_services(ListServicesRequest {}));
        println!("SAID list {}", listed.map_or_else(reason, |_| "ok".to_owned()));
        let direct = TcpStream::connect_timeout(&peer, Duration::from_secs(1)).map_err(|error| error.kind());
        println!("SAID direct {}", direct.is_ok());
        let user = User(client);
        let talk = || {
            let socket = user.socket()?;
            user.connect(socket, peer)?;
            user.send(socket, b"question")?;
            user.recv(socket)
        };
        let said = talk().map(|data| String::from_utf8(data).unwrap()).unwrap_or_else(reason);
        println!("SAID talk {said}");
        println!("SAID end");
        std::thread::sleep(Duration::from_secs(1000));
    }
}

fn said(node: &TestNode, name: &str) -> Vec<String> {
    let log = || node.ok(&["service", "logs", name]);
    assert!(within(Duration::from_secs(60), || log().contains("SAID end")), "{}", log());
    log().lines().filter_map(|line| line.split_once("SAID ")).map(|(_, rest)| rest.to_owned()).collect()
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    (listener, place)
}

/// None if nobody came within the time.
fn accepted(listener: &TcpListener, limit: Duration) -> Option<TcpStream> {
    listener.set_nonblocking(true).unwrap();
    let mut peer = None;
    within(limit, || {
        peer = listener.accept().ok().map(|(peer, _)| peer);
        peer.is_some()
    });
    let peer = peer?;
    peer.set_nonblocking(false).unwrap();
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    Some(peer)
}

/// Somebody with a connection to the listener, its socket, and the other end.
fn connected(node: &TestNode, listener: &TcpListener, place: SocketAddr) -> (User, u64, TcpStream) {
    let user = User::operator(node);
    let socket = user.socket().unwrap();
    user.connect(socket, place).unwrap();
    let peer = accepted(listener, LIMIT).unwrap();
    (user, socket, peer)
}

fn signal(pid: i64, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    pidfd_send_signal(pidfd_open(pid, PidfdFlags::empty()).unwrap(), signal).unwrap();
}

/// covers: SUP-75, NET-15, NET-17
#[test]
fn an_application_finds_the_network_by_name_and_reaches_what_a_rule_allows() {
    let Some(node) = TestNode::boot() else { return };
    let (listener, place) = listener();
    let answering = std::thread::spawn(move || {
        let mut peer = accepted(&listener, Duration::from_secs(90)).expect("somebody connects");
        let mut question = [0; 8];
        peer.read_exact(&mut question).unwrap();
        peer.write_all(b"answer").unwrap();
        question
    });
    let applied = node.apply("denied", &application::manifest(&node, "denied", place));
    assert!(applied.status.success(), "{applied:?}");
    let denied = said(&node, "denied");
    assert_eq!(denied[1..4], ["list NotForPrograms", "direct false", "talk PolicyDenied"], "{denied:?}");
    let why = node.ok(&["why", "last"]);
    assert!(why.contains(&place.to_string()) && why.contains("default-deny"), "{why}");
    assert_eq!(node.log(&["ConnectionAuthorize"]), Vec::<Value>::new());

    let rule = node.file(
        "rule.toml",
        format!(
            "[[rule]]\nid = \"out\"\nname = \"out\"\npriority = 600\neffect = \"Allow\"\n[rule.condition]\nand = [\n\
             {{ identity = {{ pattern = \"orbital.services.allowed\" }} }},\n\
             {{ action = {{ kind = \"connect\" }} }},\n\
             {{ resource = {{ exact = {{ type = \"network\", id = \"{place}\" }} }} }},\n]\n"
        ),
    );
    node.ok(&["policy", "add", &rule]);
    let applied = node.apply("allowed", &application::manifest(&node, "allowed", place));
    assert!(applied.status.success(), "{applied:?}");
    let allowed = said(&node, "allowed");
    assert!(allowed[0].contains("network.sockets"), "{allowed:?}");
    assert_eq!(allowed[1..4], ["list NotForPrograms", "direct false", "talk answer"], "{allowed:?}");
    assert_eq!(&answering.join().unwrap(), b"question");
    let entries = node.log(&["ConnectionAuthorize"]);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["body"]["remote"], place.to_string());
}

/// covers: AX-10, NET-07, NET-22
#[test]
fn nothing_leaves_before_the_log_has_it() {
    let Some(node) = TestNode::boot() else { return };
    let (listener, place) = listener();
    let me = node.json(&["identity", "whoami"])["id"].clone();
    let user = User::operator(&node);
    let socket = user.socket().unwrap();
    let axiom = node.pid("axiom");
    signal(axiom, Signal::STOP);
    let (connecting, early) = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| user.connect(socket, place));
        let early = accepted(&listener, QUIET);
        signal(axiom, Signal::CONT);
        (connecting.join().unwrap(), early)
    });
    assert!(early.is_none(), "somebody connected while nothing could be recorded");
    let connected = connecting.unwrap();
    assert!(accepted(&listener, LIMIT).is_some());
    let entries = node.log(&["ConnectionAuthorize"]);
    assert_eq!(entries[0]["sequence"], connected.authorized.unwrap().sequence);
    let network = node.json(&["identity", "show", "orbital.services.network"]);
    assert_eq!((&entries[0]["submitter"], &entries[0]["body"]["identity"]), (&network["id"], &me));
}

/// covers: CAP-11, NET-20
#[test]
fn the_network_service_gets_the_way_out_and_nothing_else() {
    let Some(node) = TestNode::boot() else { return };
    let link = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for (name, pid) in node.pids() {
        let pid = pid.to_string();
        for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
            let is_the_hosts = link(&pid, kind) == link("self", kind);
            assert_eq!(is_the_hosts, (name.as_str(), kind) == ("network", "net"), "{name} {kind}");
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for right in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(status.contains(&format!("{right}:\t0000000000000000\n")), "{name} {right}");
        }
        assert!(status.contains("Seccomp:\t2\n") && status.contains("NoNewPrivs:\t1\n"), "{name}");
    }
    let held = node.json(&["capability", "list", "--holder", "orbital.services.network"]);
    let mut held: Vec<String> =
        held.as_array().unwrap().iter().map(|one| one["resource"].as_str().unwrap().to_owned()).collect();
    held.sort();
    assert_eq!(held, ["service:Axiom", "service:Driver", "service:Policy"]);
    let interfaces = node.json(&["network", "interfaces"]);
    let names: Vec<&str> =
        interfaces.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"lo"), "{names:?}");
}

#[test]
fn a_connection_is_shown_and_cut() {
    let Some(node) = TestNode::boot() else { return };
    let (listener, place) = listener();
    let (user, socket, mut peer) = connected(&node, &listener, place);
    let flows = node.json(&["network", "flows"]);
    let [flow] = &flows.as_array().unwrap()[..] else { panic!("{flows}") };
    assert_eq!((&flow["remote"], &flow["state"]), (&place.to_string().into(), &"connected".into()));
    assert_eq!(flow["local"], peer.peer_addr().unwrap().to_string());
    let connection = flow["connection"].as_str().unwrap();
    let since = Instant::now();
    node.ok(&["network", "revoke", connection, "--reason", "enough"]);
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    println!("cut {} ms after the command was started", since.elapsed().as_millis());
    assert_eq!(user.send(socket, b"x").map_err(reason), Err("AuthorizationRequired".to_owned()));
    let revoked = node.log(&["ConnectionRevoke"]);
    assert_eq!((revoked.len(), &revoked[0]["body"]["reason"]), (1, &"enough".into()));
    let again = node.run(&["network", "revoke", &connection.replace(|_: char| true, "0")]);
    assert!(!again.status.success());
}

/// covers: NET-21, NET-36
#[test]
fn when_it_dies_nothing_goes_out_until_it_is_back_and_nobody_else_notices() {
    let Some(node) = TestNode::boot() else { return };
    let (listener, place) = listener();
    let (user, socket, mut peer) = connected(&node, &listener, place);
    let others = || node.pids().into_iter().filter(|(name, _)| name != "network").collect::<Vec<_>>();
    let (before, old) = (others(), node.pid("network"));
    let since = Instant::now();
    kill(old);
    let mut rest = Vec::new();
    // An end or a reset: the kernel closes what a dead process had.
    let _ = peer.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
    let mut back = None;
    assert!(within(LIMIT, || {
        back = user.socket().ok();
        back.is_some()
    }));
    println!("a new socket {} ms after the kill", since.elapsed().as_millis());
    let back = back.unwrap();
    // Whatever is asked again of what it had: nothing is sent, connected or closed in the place of it.
    let gone = || Err("SocketNotFound".to_owned());
    assert_eq!(user.send(socket, b"x").map_err(reason), gone());
    assert_eq!(user.connect(socket, place).map(drop).map_err(reason), gone());
    assert_eq!((user.close(socket).map_err(reason), user.close(socket).map_err(reason)), (gone(), gone()));
    assert!(accepted(&listener, QUIET).is_none(), "a connect was made again");
    assert_eq!(node.log(&["ConnectionAuthorize"]).len(), 1);
    user.connect(back, place).unwrap();
    assert!(accepted(&listener, LIMIT).is_some());
    assert_eq!(others(), before);
    assert_ne!(node.pid("network"), old);
}

/// covers: SUP-79, NET-16
#[test]
fn a_node_without_the_network_boots_and_does_everything_else() {
    let Some(mut node) = TestNode::empty() else { return };
    node.try_up_with(&["--without", "network", "--without", "driver_manager"], &[]).unwrap();
    let names: Vec<String> = node.pids().into_iter().map(|(name, _)| name).collect();
    assert!(
        !names.contains(&"network".to_owned()) && names.contains(&"process_manager".to_owned()),
        "{names:?}"
    );
    let status = node.json(&["status"]);
    let missing = status["not_installed"].as_array().unwrap();
    assert!(missing.contains(&"network".into()) && missing.contains(&"driver_manager".into()), "{status}");
    let ran = node.ok(&["run", "--", "/bin/echo", "still here"]);
    assert!(ran.contains("still here"), "{ran}");
    assert!(!node.run(&["network", "flows"]).status.success());
    node.down();
    let refused = node.try_up_with(&["--without", "keys"], &[]).unwrap_err();
    assert!(refused.contains("can be without"), "{refused}");
}
