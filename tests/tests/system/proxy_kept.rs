//! What the proxy of a program keeps open: one connection, one authorisation, many requests, of one program alone and for as long as it
//! is allowed.

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use system_tests::{TestNode, within};

const LIMIT: Duration = Duration::from_secs(60);
/// Longer than a request that cannot be sent twice takes a connection for a sure one.
const NOT_SURE: Duration = Duration::from_millis(1_500);
const RULES: &str = r#"
[limits]
process_requests = 1000
host_requests = 1000
[[rule]]
id = "plain"
applies_to = "application"
url_pattern = "http*://*"
allow = true
priority = 60
"#;

/// Answers with the number of the connection. After `/last` it takes one more request, and hangs up without a word; after `/closes` at
/// once.
struct Server {
    place: SocketAddr,
    /// Lines of requests, and `end` of a connection.
    heard: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let told = Arc::clone(&heard);
        std::thread::spawn(move || {
            for (peer, number) in listener.incoming().flatten().zip(1..) {
                let told = Arc::clone(&told);
                std::thread::spawn(move || {
                    let _ = serve(peer, number, &told);
                    told.lock().unwrap().push(format!("end {number}"));
                });
            }
        });
        Self { place, heard }
    }

    fn heard(&self, line: &str) -> usize {
        self.heard.lock().unwrap().iter().filter(|one| one.starts_with(line)).count()
    }
}

fn serve(peer: TcpStream, number: u32, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(peer.try_clone()?);
    let (mut is_last, mut closes) = (false, false);
    while !closes {
        let (mut first, mut length) = (String::new(), 0);
        if lines.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        lines.read_exact(&mut vec![0; length])?;
        let what = first.rsplit_once(' ').unwrap().0.to_owned();
        heard.lock().unwrap().push(what.clone());
        if is_last {
            return Ok(());
        }
        (is_last, closes) = (what.ends_with("/last"), what.ends_with("/closes"));
        let body = format!("{number} {what}\n");
        write!(&peer, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}

/// A program that asks for what it is told to ask for, each time by another client.
struct Program {
    child: Child,
    says: ChildStdin,
    hears: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn new(node: &TestNode, server: &Server) -> Self {
        let place = server.place.to_string();
        let script = format!(
            "while read -r way path; do curl -sS --noproxy '' -x http://127.0.0.1:3128 -w '%{{http_code}}\\n' $way \
             http://{place}$path 2>/dev/null | tail -2 | head -1; done"
        );
        let mut command = node.command(&["run", "--proxy", "--egress", &place, "--", "bash", "-c", &script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (says, hears) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, says, hears: BufReader::new(hears).lines() }
    }

    /// What it was answered.
    fn ask(&mut self, way: &str, path: &str) -> String {
        writeln!(self.says, "{way} {path}").unwrap();
        self.hears.next().unwrap().unwrap()
    }

    fn get(&mut self, path: &str) -> String {
        self.ask("-XGET", path)
    }

    fn end(mut self) {
        drop(self.says);
        assert!(self.child.wait().unwrap().success());
    }
}

fn site() -> Option<(TestNode, Server)> {
    let node = TestNode::boot()?;
    let rules = node.file("rules.toml", RULES);
    node.ok(&["network", "rules", "set", &rules]);
    Some((node, Server::new()))
}

fn flows(node: &TestNode) -> Vec<Value> {
    node.json(&["network", "flows"]).as_array().unwrap().clone()
}

fn recorded(node: &TestNode) -> usize {
    node.log(&["ConnectionAuthorize"]).len()
}

/// covers: NET-30
#[test]
fn requests_of_a_program_to_one_place_go_over_one_connection_of_its_own_and_one_entry() {
    let Some((node, server)) = site() else { return };
    let (mut one, mut other) = (Program::new(&node, &server), Program::new(&node, &server));
    assert_eq!(one.get("/a"), "1 GET /a");
    assert_eq!(one.ask("-dbody", "/b"), "1 POST /b");
    assert_eq!(one.get("/c?x=1"), "1 GET /c?x=1");
    // Another program has its own, though the first one's lies ready.
    assert_eq!(other.get("/d"), "2 GET /d");
    assert_eq!((one.get("/e"), other.get("/f")), ("1 GET /e".to_owned(), "2 GET /f".to_owned()));
    assert_eq!(recorded(&node), 2);
    assert_eq!(flows(&node).len(), 2);
    // What a program has ends with it.
    other.end();
    assert!(within(LIMIT, || flows(&node).len() == 1), "{:?}", flows(&node));
    assert!(within(LIMIT, || server.heard("end 2") == 1));
    assert_eq!(server.heard("end 1"), 0);
    // And what is not used for a while.
    assert!(within(LIMIT, || flows(&node).is_empty() && server.heard("end 1") == 1));
    assert_eq!(one.get("/g"), "3 GET /g");
    one.end();
}

/// covers: NET-33
#[test]
fn what_is_kept_ends_with_what_allowed_it_and_each_request_is_judged() {
    let Some((node, server)) = site() else { return };
    let mut one = Program::new(&node, &server);
    assert_eq!(one.get("/a"), "1 GET /a");
    let connection = flows(&node)[0]["connection"].as_str().unwrap().to_owned();
    node.ok(&["network", "revoke", &connection, "--reason", "enough"]);
    assert_eq!(flows(&node), Vec::<Value>::new());
    assert!(within(LIMIT, || server.heard("end 1") == 1));
    assert_eq!(one.get("/b"), "2 GET /b");
    assert_eq!(recorded(&node), 2);
    // Another rule by URL: of what was asked last here nothing is refused, so the connection stays, and the next request is judged.
    let place = server.place;
    let narrow = RULES.replace("http*://*", &format!("http://{place}/b*"));
    let narrow = node.file("narrow.toml", narrow);
    node.ok(&["network", "rules", "set", &narrow]);
    assert!(one.get("/secret").contains("bailiwick"), "it is refused");
    assert_eq!(one.get("/bb"), "2 GET /bb");
    assert_eq!((server.heard("GET /secret"), recorded(&node)), (0, 2));
    // One that allows nothing of it any more.
    let none = node.file("none.toml", RULES.replace("http*://*", "https://*"));
    node.ok(&["network", "rules", "set", &none]);
    assert_eq!(flows(&node), Vec::<Value>::new());
    assert!(within(LIMIT, || server.heard("end 2") == 1));
    assert!(one.get("/b").contains("bailiwick"));
    // Requests count, not connections.
    let few = RULES.replace("host_requests = 1000", "host_requests = 2\nhost_window_ms = 600000");
    let few = node.file("few.toml", few);
    node.ok(&["network", "rules", "set", &few]);
    // What was counted before belongs to windows that have their own length.
    assert!(within(LIMIT, || one.get("/c").contains("bailiwick")));
    one.end();
}

#[test]
fn a_server_that_hangs_up_as_it_is_asked_is_asked_once_more_for_what_does_nothing_twice() {
    let Some((node, server)) = site() else { return };
    let mut one = Program::new(&node, &server);
    assert_eq!(one.get("/last"), "1 GET /last");
    assert_eq!(one.get("/a"), "2 GET /a");
    assert_eq!(server.heard("GET /a"), 2, "the first connection was tried");
    // Only once: what is new is not tried again.
    assert_eq!(one.get("/last"), "2 GET /last");
    // Not over one that may have been left.
    std::thread::sleep(NOT_SURE);
    assert_eq!(one.ask("-dbody", "/b"), "3 POST /b");
    assert_eq!(server.heard("POST /b"), 1);
    // Never twice, whichever connection it went over.
    assert_eq!(one.get("/last"), "3 GET /last");
    let said = one.ask("-dbody", "/c");
    assert!(said == "4 POST /c" || said.contains("bailiwick"), "{said}");
    assert_eq!(server.heard("POST /c"), 1);
    one.end();
    assert!(within(LIMIT, || flows(&node).is_empty()));
}

/// RFC 9112, 9.3.1: what cannot be sent twice is not, and what its server is known to have closed takes none of it.
#[test]
fn what_is_sent_right_after_its_server_has_closed_arrives_whole_and_once() {
    let Some((node, server)) = site() else { return };
    let mut one = Program::new(&node, &server);
    for number in 1..=20 {
        // What has no body is no more to be sent twice than what has one.
        let way = if number % 2 == 0 { "-dbody" } else { "-XPOST" };
        assert_eq!(one.ask(way, "/closes"), format!("{number} POST /closes"));
        assert_eq!(server.heard("POST /closes"), number);
        assert!(within(LIMIT, || server.heard("end ") == number));
    }
    one.end();
}
