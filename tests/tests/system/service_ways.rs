//! Ways out of services and into them as they are used: by real clients, of root and of a user, from images and daemons, beside handed
//! sockets, and while a service is replaced.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use system_tests::{TestNode, is_root, kill, within};

use crate::{
    egress_names::{Site, USER},
    egress_services::{GOES_OUT, Server, allow_all, free_port},
    images::{layer, layout},
};

const LIMIT: Duration = Duration::from_secs(60);
const PYTHON: &str = "/usr/bin/python3";

fn has_python() -> bool {
    let has = Path::new(PYTHON).exists();
    if !has {
        println!("skipped: {PYTHON} is needed");
    }
    has
}

fn applied(node: &TestNode, name: &str, rest: &str) {
    let done = node.apply(name, rest);
    assert!(done.status.success(), "{done:?} {}", node.service_log(name));
}

/// An application may ask for https alone, unless a rule says more.
const PLAIN: &str = "[[rule]]\nid = \"plain\"\napplies_to = \"application\"\nurl_pattern = \"http*://*\"\nallow = true\npriority = 60\n";

/// As a manifest's variables lead it, without them, and by UDP; then what is not named.
const CLIENTS: &str = r#"
get() { curl -sS --max-time 40 "$@" 2>/dev/null || echo "ended $?"; echo; }
echo "variable $HTTPS_PROXY $(env | grep -ci _proxy=)"
echo "proxied $(get http://api.test:8080/)"
echo "tunnel $(curl -sk --max-time 3 -o /dev/null -w %{http_connect} https://api.test/)"
for name in http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY; do unset $name; done
echo "direct $(get http://api.test:8080/)"
python3 -c "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(30)
s.sendto(b'hello', ('192.0.2.10', 7007)); print('udp', s.recvfrom(100)[0].decode())"
echo "other $(get http://other.test:8080/)"
echo "neighbour $(get http://192.0.2.11:8080/)"
echo over
exec sleep 100000
"#;

/// covers: NET-30
#[test]
fn real_clients_of_a_service_go_out_by_name_by_proxy_and_by_udp() {
    clients(None);
}

#[test]
fn real_clients_of_a_service_of_a_users_node_go_out_too() {
    clients(Some(USER));
}

fn clients(user: Option<u32>) {
    if !has_python() {
        return;
    }
    let Some(site) = Site::boot(user) else { return };
    let node = &site.node;
    allow_all(node);
    node.ok(&["network", "rules", "set", &node.file("urls.toml", PLAIN)]);
    let program = format!(
        "[program]\nimage = \"/bin/bash\"\nargs = [\"-c\", '''{CLIENTS}''']\n\
         [egress]\nallow = [\"api.test:8080\", \"api.test\", \"192.0.2.10:7007/udp\"]\nproxy = true\n"
    );
    applied(node, "served", &program);
    let log = || node.service_log("served");
    assert!(within(LIMIT, || log().lines().any(|line| line == "over")), "{}", log());
    let said = log();
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("bailiwick:")).collect();
    assert_eq!(
        lines,
        [
            "variable http://127.0.0.1:3128 8",
            "proxied page",
            "tunnel 200",
            "direct page",
            "udp hello",
            "other ended 6",
            "neighbour ended 7",
            "over"
        ],
        "{said}"
    );
    let own = node.log(&["IdentityCreated"]).pop().unwrap()["body"]["identity_id"].clone();
    let entries = node.log(&["ConnectionAuthorize"]);
    let mut seen: Vec<String> = entries
        .iter()
        .map(|entry| {
            let body = &entry["body"];
            assert_eq!((&body["identity"], &body["process"]), (&own, &0.into()), "{entry}");
            format!("{} {} {}", body["protocol"], body["remote"], body["name"]).replace('"', "")
        })
        .collect();
    seen.sort();
    let tcp = "tcp 192.0.2.10:8080 api.test";
    assert_eq!(seen, ["tcp 192.0.2.10:443 api.test", tcp, tcp, "udp 192.0.2.10:7007 null"]);
}

/// Answers on port 80 of its own network, and on what it is handed.
const ANSWERS: &str = "
import os, socket, sys, threading
assert os.environ['LISTEN_FDNAMES'] == 'side', os.environ['LISTEN_FDNAMES']
def serve(door, word):
    while True:
        peer, _ = door.accept()
        peer.sendall(word)
        peer.close()
threading.Thread(target=serve, args=(socket.socket(fileno=3), b'side'), daemon=True).start()
serve(socket.create_server(('0.0.0.0', 80)), sys.argv[1].encode())
";

fn hears(place: SocketAddr) -> std::io::Result<String> {
    let mut peer = TcpStream::connect(place)?;
    peer.set_read_timeout(Some(LIMIT))?;
    let mut heard = String::new();
    peer.read_to_string(&mut heard)?;
    Ok(heard)
}

/// Of root, or of another user who has no right over ports.
fn boot(user: Option<u32>) -> Option<TestNode> {
    let Some(user) = user else { return TestNode::boot() };
    let mut node = TestNode::empty()?;
    if !is_root() {
        println!("skipped: only root can make a node of another user");
        return None;
    }
    node.belongs_to(user, user);
    let ids = [format!("--reuid={user}"), format!("--regid={user}")];
    node.up_through(&["setpriv", &ids[0], &ids[1], "--clear-groups"]);
    Some(node)
}

#[test]
fn a_port_of_web_servers_is_published_beside_handed_sockets_and_nobody_is_refused_while_it_is_replaced() {
    published(None);
}

#[test]
fn a_users_node_publishes_a_port_of_web_servers_too() {
    published(Some(USER));
}

fn published(user: Option<u32>) {
    if !has_python() {
        return;
    }
    let Some(node) = boot(user) else { return };
    allow_all(&node);
    let (place, side, out) = (free_port(), free_port(), Server::new());
    let folder = Path::new(GOES_OUT).parent().unwrap().display();
    let of = |version: &str| {
        format!(
            "[program]\nimage = \"{PYTHON}\"\nargs = [\"-c\", \"\"\"{ANSWERS}\"\"\", \"{version}\"]\nfs = [\"{folder}\"]\n\
             [egress]\nallow = [\"{}\"]\n\
             [[sockets]]\nname = \"web\"\nlisten = \"tcp:[::]:{}\"\npublish = 80\n\
             [[sockets]]\nname = \"side\"\nlisten = \"tcp:{side}\"\n",
            out.place,
            place.port()
        )
    };
    applied(&node, "served", &of("one"));
    // Whoever comes before it listens waits, and is not reset.
    let first = hears(place);
    assert!(first.as_ref().is_ok_and(|word| word == "one"), "{first:?} {}", node.service_log("served"));
    assert_eq!(hears(side).unwrap(), "side");
    let entry = node.log(&["ConnectionAuthorize"]).pop().unwrap();
    let (local, remote) = (format!("[::]:{}", place.port()), entry["body"]["remote"].as_str().unwrap());
    assert_eq!(entry["body"]["local"], local);
    assert!(remote.starts_with("127.0.0.1:"), "who came by IPv4 is no address of IPv6: {remote}");
    let talk = format!("talk={}", out.place);
    let goes_out = || {
        let said = node.run(&["exec", "served", "--", GOES_OUT, &talk]);
        String::from_utf8_lossy(&said.stdout).contains("talk: answer")
    };
    assert!(goes_out());

    let (over, heard) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let one = hears(place).map_err(|error| error.kind());
                heard.lock().unwrap().push(one);
            }
        });
        for version in ["two", "three"] {
            let done = node.apply("served", &of(version));
            let is_new = || heard.lock().unwrap().last() == Some(&Ok(version.to_owned()));
            if !done.status.success() || !within(LIMIT, is_new) {
                over.store(true, Ordering::Release);
                panic!("{done:?} {:?} {}", heard.lock().unwrap().last(), node.service_log("served"));
            }
        }
        over.store(true, Ordering::Release);
    });
    let heard = heard.into_inner().unwrap();
    let lost: Vec<_> = heard.iter().filter(|one| !matches!(one, Ok(word) if !word.is_empty())).collect();
    println!("{} came while it was replaced twice, {lost:?} were lost", heard.len());
    // At most the one whom the program was just speaking to.
    assert!(lost.len() <= 2, "{lost:?}");
    assert!(goes_out() && hears(side).unwrap() == "side");
}

/// Of a socket that it is handed a program expects what it would have bound itself: also of one that an init has accepted at before.
#[test]
fn what_is_published_no_more_is_handed_over_as_it_was_bound() {
    if !has_python() {
        return;
    }
    let Some(node) = TestNode::boot() else { return };
    allow_all(&node);
    let place = free_port();
    let of = |does: &str, more: &str| {
        format!(
            "[program]\nimage = \"{PYTHON}\"\nargs = [\"-c\", \"{does}\"]\n\
             [[sockets]]\nname = \"web\"\nlisten = \"tcp:{place}\"\n{more}"
        )
    };
    let serves = "import http.server as s; s.test(s.SimpleHTTPRequestHandler, port=80, bind='127.0.0.1')";
    applied(&node, "served", &of(serves, "publish = 80\n"));
    assert!(page(place).starts_with("HTTP/1.0 200"), "{} {}", page(place), node.service_log("served"));
    let looks = "import os, time; print('waits', os.get_blocking(3), flush=True); time.sleep(100000)";
    applied(&node, "served", &of(looks, ""));
    let log = || node.service_log("served");
    assert!(within(LIMIT, || log().contains("waits ")) && log().contains("waits True"), "{}", log());
}

#[test]
fn a_service_in_an_image_and_a_daemon_go_out_as_their_manifests_say() {
    let Some(node) = TestNode::boot() else { return };
    allow_all(&node);
    let (named, other) = (Server::new(), Server::new());
    let files = layer(&[
        ("usr/bin/", b"", 0o755),
        ("usr/bin/goes_out", &std::fs::read(GOES_OUT).unwrap(), 0o755),
        ("etc/", b"", 0o755),
        ("etc/passwd", b"web:x:101:102::/:/x\n", 0o644),
    ]);
    let folder = node.root().join("layout");
    layout(&folder, &[files], &json!({ "Entrypoint": ["/usr/bin/goes_out"], "User": "web" }));
    node.ok(&["image", "import", folder.to_str().unwrap(), "--name", "out"]);
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let held_at = held.local_addr().unwrap();
    let words = format!("\"talk={}\", \"talk={}\", \"hold={held_at}\"", named.place, other.place);
    let places = format!("[egress]\nallow = [\"{}\", \"{held_at}\"]\n", named.place);
    applied(&node, "boxed", &format!("[program]\nimage = \"out\"\nargs = [{words}]\n{places}"));
    let log = || node.service_log("boxed");
    assert!(within(LIMIT, || log().contains("holding")), "{}", log());
    let (_peer, _) = held.accept().unwrap();
    // What its init has to say comes between, or not.
    let own = || log().lines().filter(|line| !line.starts_with("bailiwick: ")).collect::<Vec<_>>().join("\n");
    assert!(own().contains("talk: answer\ntalk: 111\n"), "{}", log());

    // The daemon outlives who made it, and is the service.
    let daemon = format!(
        "({GOES_OUT} talk={} talk={}; exec sleep 100000) & echo $! > /run/own.pid",
        named.place, other.place
    );
    let shown = Path::new(GOES_OUT).parent().unwrap().display();
    let more = "runs = \"forks\"\npid_file = \"/run/own.pid\"\n";
    applied(
        &node,
        "daemon",
        &format!(
            "[program]\nimage = \"/bin/sh\"\nargs = ['-c', '{daemon}']\nfs = [\"{shown}\"]\n{more}{places}"
        ),
    );
    let times = |word: &str| node.service_log("daemon").lines().filter(|line| *line == word).count();
    assert!(within(LIMIT, || times("talk: 111") == 1), "{}", node.service_log("daemon"));
    assert_eq!(times("talk: answer"), 1);
    // Each start of it anew.
    kill(node.pid("daemon"));
    assert!(within(LIMIT, || times("talk: 111") == 2), "{}", node.service_log("daemon"));
    assert_eq!((times("talk: answer"), named.came(), other.came()), (2, 3, 0));
}

/// Head of the answer to a request for a page.
fn page(place: SocketAddr) -> String {
    let asked = || -> std::io::Result<String> {
        let mut peer = TcpStream::connect(place)?;
        peer.set_read_timeout(Some(LIMIT))?;
        peer.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut heard = String::new();
        peer.read_to_string(&mut heard)?;
        Ok(heard.lines().next().unwrap_or_default().to_owned())
    };
    asked().unwrap_or_else(|error| error.to_string())
}

#[test]
fn ports_of_compose_and_quadlet_files_are_reached_when_they_are_imported_and_applied() {
    if !has_python() {
        return;
    }
    let Some(node) = TestNode::boot() else { return };
    allow_all(&node);
    let (one, two) = (free_port(), free_port());
    let compose = node.file(
        "compose.yml",
        format!(
            "services:\n  one:\n    image: {PYTHON}\n    command: [\"-m\", \"http.server\", \"80\"]\n    ports:\n      - \"{one}:80\"\n"
        ),
    );
    let quadlet = node.file(
        "two.container",
        format!("[Container]\nImage={PYTHON}\nExec=-m http.server 80\nPublishPort={two}:80\n"),
    );
    let out = node.root().join("made").display().to_string();
    for file in [&compose, &quadlet] {
        let made = node.run(&["import", file, "--out", &out]);
        let said =
            String::from_utf8_lossy(&made.stdout).into_owned() + &String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success() && said.contains("reaches nothing outside"), "{said}");
    }
    node.ok(&["apply", "-f", &out]);
    for (name, place) in [("one", one), ("two", two)] {
        assert!(
            page(place).starts_with("HTTP/1.0 200"),
            "{name}: {} {}",
            page(place),
            node.service_log(name)
        );
    }
    // As the report says that one service finds another.
    let sleeps = "[program]\nimage = \"/bin/sleep\"\nargs = [\"100000\"]\n";
    applied(&node, "three", &format!("{sleeps}[egress]\nallow = [\"{one}\"]\n"));
    let asks = format!("import urllib.request; print(urllib.request.urlopen('http://{one}/').status)");
    let said = node.run(&["exec", "three", "--", PYTHON, "-c", &asks]);
    assert_eq!(String::from_utf8_lossy(&said.stdout), "200\n", "{said:?}");
    node.ok(&["policy", "remove", "in"]);
    assert!(!page(one).starts_with("HTTP"), "{}", page(one));
}
