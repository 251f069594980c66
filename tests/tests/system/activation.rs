//! Services that a connection starts: sockets that are bound before the program, held over its death, and handed to it.

use std::{
    fs,
    io::Read,
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    process::Command,
    time::Duration,
};

use system_tests::{TestNode, kill, within};

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers each connection with its own number and the count of them, as systemd's clients take their sockets. Without
/// a word of the launcher it ends with 9.
const SERVER: &str = r#"
import os, socket, sys
if os.environ.get("LISTEN_PID") != str(os.getpid()):
    sys.exit(9)
names = os.environ["LISTEN_FDNAMES"].split(":")
assert len(names) == int(os.environ["LISTEN_FDS"])
mode, wanted = sys.argv[1], sys.argv[2]
server = socket.socket(fileno=3 + names.index(wanted))
served = 0
while True:
    client, _ = server.accept()
    served += 1
    client.sendall(f"{os.getpid()} {served} {':'.join(names)}".encode())
    client.close()
    if mode == "once":
        sys.exit(0)
"#;

fn has_python() -> bool {
    let has = fs::metadata("/usr/bin/python3").is_ok();
    if !has {
        println!(
            "skipped: the server of these tests is written in Python, and /usr/bin/python3 is not there"
        );
    }
    has
}

fn server(mode: &str, wanted: &str, more: &str) -> String {
    let text = SERVER.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!(
        "[program]\nimage = \"/usr/bin/python3\"\nargs = [\"-c\", \"{text}\", \"{mode}\", \"{wanted}\"]\n{more}"
    )
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn socket(name: &str, listen: &str, more: &str) -> String {
    format!("[[sockets]]\nname = \"{name}\"\nlisten = \"{listen}\"\n{more}\n")
}

/// What a server says to one more client; the client comes and waits whether or not anything runs.
fn ask(port: u16) -> String {
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|error| panic!("refused: {error}"));
    hear(client)
}

fn hear(mut client: impl Read + Timed) -> String {
    client.limit(PATIENCE);
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    said
}

trait Timed {
    fn limit(&self, limit: Duration);
}

impl Timed for TcpStream {
    fn limit(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).unwrap();
    }
}

impl Timed for UnixStream {
    fn limit(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).unwrap();
    }
}

#[test]
fn a_connection_starts_a_service_and_none_is_refused_while_it_dies_and_comes_back() {
    if !has_python() {
        return;
    }
    let Some(node) = TestNode::boot() else { return };
    let port = free_port();
    let listen = format!("tcp:127.0.0.1:{port}");
    let manifest = server("ever", "http", &socket("http", &listen, "on_demand = true"));
    let applied = node.apply("web", &manifest);
    assert!(applied.status.success(), "{applied:?}");
    assert_eq!(node.service("web")["listening"], true);
    assert_eq!(node.service("web")["sockets"], serde_json::json!([format!("http {listen}")]));
    assert!(node.ok(&["service", "list"]).contains("listening"));
    assert_eq!(node.log(&["ServiceStart"]).iter().filter(|e| e["body"]["name"] == "web").count(), 0);
    assert!(ask(port).ends_with(" 1 http"));
    assert!(ask(port).ends_with(" 2 http"), "the same process");
    for _ in 0..3 {
        let pid = node.service("web")["pid"].as_i64().unwrap();
        kill(pid);
        // One that is being killed can still take a connection with it.
        assert!(within(PATIENCE, || !std::path::Path::new(&format!("/proc/{pid}")).exists()));
        // Comes while nobody runs, and is served by the next one.
        assert!(ask(port).ends_with(" 1 http"));
        assert_ne!(node.service("web")["pid"].as_i64(), Some(pid));
    }
    let started = |node: &TestNode| {
        let log = node.log(&["ServiceStart"]);
        log.iter().filter(|entry| entry["body"]["name"] == "web").count()
    };
    assert_eq!(started(&node), 4);
    // The supervisor's own death changes no socket either.
    let supervisor = node.json(&["status"])["supervisor_pid"].as_i64().unwrap();
    kill(supervisor);
    assert!(ask(port).ends_with(" 2 http"), "the program has not noticed");
    node.settled();
    let web = node.service("web")["pid"].as_i64().unwrap();
    kill(web);
    assert!(within(PATIENCE, || !std::path::Path::new(&format!("/proc/{web}")).exists()));
    assert!(ask(port).ends_with(" 1 http"));
    node.ok(&["service", "stop", "web"]);
    assert_eq!(node.service("web")["listening"], false);
    node.ok(&["service", "remove", "web"]);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it is closed");
}

#[test]
fn one_that_ends_by_itself_waits_for_the_next_connection() {
    if !has_python() {
        return;
    }
    let Some(node) = TestNode::boot() else { return };
    let port = free_port();
    let listen = socket("http", &format!("tcp:127.0.0.1:{port}"), "on_demand = true");
    assert!(node.apply("web", &server("once", "http", &listen)).status.success());
    for _ in 0..3 {
        assert!(ask(port).ends_with(" 1 http"));
        assert!(within(PATIENCE, || node.service("web")["listening"] == true));
    }
    let failures = node.log(&["ServiceFailed"]);
    assert_eq!(failures.iter().filter(|entry| entry["body"]["name"] == "web").count(), 0);
    // The next supervisor waits for connections as the one before did.
    kill(node.json(&["status"])["supervisor_pid"].as_i64().unwrap());
    assert!(ask(port).ends_with(" 1 http"));
}

#[test]
fn unix_sockets_have_their_mode_and_keep_their_inode_over_a_changed_manifest() {
    if !has_python() {
        return;
    }
    let Some(mut node) = TestNode::boot() else { return };
    let folder = tempfile::Builder::new().prefix("bw").tempdir().unwrap();
    let (one, two) = (folder.path().join("deep/one.sock"), folder.path().join("two.sock"));
    let of = |path: &std::path::Path| format!("unix:{}", path.display());
    let sockets =
        [socket("one", &of(&one), "mode = \"0600\"\non_demand = true"), socket("two", &of(&two), "")];
    assert!(node.apply("web", &server("ever", "one", &sockets.concat())).status.success());
    let place = |path: &std::path::Path| fs::metadata(path).map(|it| (it.ino(), it.mode() & 0o777)).unwrap();
    let before = place(&one);
    assert_eq!((before.1, place(&two).1), (0o600, 0o660));
    assert!(hear(UnixStream::connect(&one).unwrap()).ends_with(" 1 one:two"));
    let pid = node.service("web")["pid"].clone();
    let changed = socket("one", &of(&one), "mode = \"0620\"\non_demand = true");
    assert!(node.apply("web", &server("ever", "one", &changed)).status.success());
    assert_eq!(place(&one), (before.0, 0o620));
    assert!(!two.exists(), "what the manifest does not name any more has gone");
    assert!(hear(UnixStream::connect(&one).unwrap()).ends_with(" 1 one"));
    assert_ne!(node.service("web")["pid"], pid);
    node.down();
    assert!(!one.exists(), "nobody answers there any more");
}

#[test]
fn what_cannot_be_bound_is_said_at_once_and_changes_nothing() {
    let Some(node) = TestNode::boot() else { return };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let entries = node.log(&[]).len();
    let free = free_port();
    let own = node.root().join("state/x.sock");
    for (listen, why) in [
        (format!("tcp:127.0.0.1:{port}"), "in use"),
        ("tcp:192.0.2.7:7000".to_owned(), "no such address"),
        ("tcp:localhost:7000".to_owned(), "is not HOST:PORT"),
        (format!("unix:{}", own.display()), "the node's own"),
    ] {
        // The first one could be had, and is let go again.
        let sockets = socket("a", &format!("tcp:127.0.0.1:{free}"), "") + &socket("b", &listen, "");
        let applied = node.apply("web", &format!("[program]\nimage = \"/bin/true\"\n{sockets}"));
        let said = String::from_utf8_lossy(&applied.stderr).into_owned();
        assert!(!applied.status.success() && said.contains(why), "{listen}: {said}");
        assert!(TcpStream::connect(("127.0.0.1", free)).is_err());
    }
    assert_eq!(node.log(&[]).len(), entries, "nothing was asked for or recorded");
    assert!(!node.ok(&["service", "list"]).contains("web"));
}

/// Leaves one end of a pair with a word in it, and finds it again in its next life.
const KEEPER: &str = r#"
import array, os, socket, sys, time
names = os.environ.get("LISTEN_FDNAMES", "").split(":")
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
if "left" in names:
    print("found", os.read(3 + names.index("left"), 9).decode(), len(names), flush=True)
else:
    r, w = os.pipe()
    os.write(w, b"a word")
    for fd in [r, w]:
        notify.sendmsg([b"FDSTORE=1\nFDNAME=" + (b"left" if fd == r else b"other")],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))], 0, os.environ["NOTIFY_SOCKET"])
notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(1000)
"#;

#[test]
fn a_program_finds_what_it_left_in_its_next_life() {
    if !has_python() {
        return;
    }
    let Some(node) = TestNode::boot() else { return };
    let text = KEEPER.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let manifest = format!(
        "[health]\nkind = \"sd_notify\"\n[program]\nimage = \"/usr/bin/python3\"\nargs = [\"-c\", \"{text}\"]\n"
    );
    let applied = node.apply("holder", &manifest);
    assert!(applied.status.success(), "{applied:?}");
    let pid = node.service("holder")["pid"].as_i64().unwrap();
    kill(pid);
    let said = || node.ok(&["service", "logs", "holder"]);
    assert!(within(PATIENCE, || said().contains("found a word 2")), "{}", said());
    // Stopped by somebody, it starts with nothing.
    node.ok(&["service", "stop", "holder"]);
    node.ok(&["service", "start", "holder"]);
    let pid = node.service("holder")["pid"].as_i64().unwrap();
    kill(pid);
    assert!(within(PATIENCE, || said().matches("found a word 2").count() == 2), "{}", said());
}

/// The same as another user, from a copy of the binary that it may read.
#[test]
fn a_rootless_node_holds_sockets_too() {
    const NOBODY: u32 = 65_534;
    if !has_python() || !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(binary) = system_tests::binary() else { return };
    let Some(node) = TestNode::empty() else { return };
    use std::os::unix::process::CommandExt;
    std::os::unix::fs::chown(node.root(), Some(NOBODY), Some(NOBODY)).unwrap();
    let copy = node.root().join("bailiwick");
    fs::copy(binary, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(&copy);
        command.arg("--root").arg(node.root().join("n")).args(args).uid(NOBODY).gid(NOBODY);
        command.stdin(std::process::Stdio::null()).output().unwrap()
    };
    struct Down<F: Fn()>(F);
    impl<F: Fn()> Drop for Down<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let up = run(&["up", "--detach", "--name", "test"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let _down = Down(|| drop(run(&["down"])));
    let port = free_port();
    let body = server("once", "http", &socket("http", &format!("tcp:127.0.0.1:{port}"), "on_demand = true"));
    let text = format!(
        "version = 1\n[service]\nname = \"web\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n{body}\n"
    );
    let file = node.file("web.toml", text);
    let applied = run(&["service", "apply", &file]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    assert!(ask(port).ends_with(" 1 http"));
    let low = node.file(
        "low.toml",
        "version = 1\n[service]\nname = \"low\"\nversion = \"1.0.0\"\nservice_type = \"User\"\n[program]\nimage = \"/bin/true\"\n[[sockets]]\nname = \"a\"\nlisten = \"tcp:127.0.0.1:9\"\n",
    );
    let refused = String::from_utf8_lossy(&run(&["service", "apply", &low]).stderr).into_owned();
    assert!(refused.contains("runs as root"), "{refused}");
}
