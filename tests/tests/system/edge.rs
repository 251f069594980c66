//! Secrets that are put in at the edge: real curl in a sandbox asks in plain HTTP, the host hears the secret by TLS, and the
//! program never has it; whoever else is asked does not hear it.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use system_tests::{TestNode, kill, within};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const SECRET: &str = "correct-horse-battery-staple-73";
pub(crate) const AUTHORITY: &str =
    include_str!("../../../services/4-network/network/tests/tls/authority.pem");
/// Of 127.0.0.1, and of another host.
const SERVER: (&str, &str) = (
    include_str!("../../../services/4-network/network/tests/tls/server.pem"),
    include_str!("../../../services/4-network/network/tests/tls/server.key"),
);
const OTHER: (&str, &str) = (
    include_str!("../../../services/4-network/network/tests/tls/other.pem"),
    include_str!("../../../services/4-network/network/tests/tls/other.key"),
);
/// Requests of these tests are not what limits are about, and one server here speaks plain HTTP.
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
/// `get …`: the page, or `status/how curl ended`.
pub(crate) const TOOLS: &str = r#"
get() { curl -sS --noproxy '' -x http://127.0.0.1:3128 --max-time 50 -o /tmp/page -w '%{http_code}' "$@" >/tmp/said 2>/tmp/error; ended=$?
    if [ $ended = 0 ] && grep -q ^200 /tmp/said; then cat /tmp/page; else echo "$(cat /tmp/said)/$ended"; fi; }
"#;

/// Keeps the head of each request. `/redirect?PLACE` sends on, `/slow` never ends.
pub(crate) struct Server {
    pub(crate) place: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    /// While this is set nobody who comes is said anything, not even who is here.
    pub(crate) is_shut: Arc<AtomicBool>,
    pub(crate) came: Arc<AtomicUsize>,
}

impl Server {
    fn plain() -> Self {
        Self::of(None)
    }

    fn tls((certificate, key): (&str, &str)) -> Self {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self::of(Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn of(tls: Option<TlsAcceptor>) -> Self {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (send, receive) = std::sync::mpsc::channel();
        let (is_shut, came) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (keep, shut, counted) = (Arc::clone(&heard), Arc::clone(&is_shut), Arc::clone(&came));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                send.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let (tls, keep, shut) = (tls.clone(), Arc::clone(&keep), Arc::clone(&shut));
                    counted.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(async move {
                        while shut.load(Ordering::SeqCst) {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        match tls {
                            None => answer(stream, &keep).await,
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    answer(stream, &keep).await;
                                }
                            }
                        }
                    });
                }
            });
        });
        Self { place: receive.recv().unwrap(), heard, is_shut, came }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.place)
    }

    /// The heads of what was asked since the last time.
    pub(crate) fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, keep: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(bytes @ 1..) => head.extend_from_slice(&buffer[..bytes]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    keep.lock().unwrap().push(head);
    let said = match path.split_once('?') {
        Some(("/redirect", place)) => {
            format!(
                "HTTP/1.1 302 Found\r\nLocation: http://{place}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
        }
        _ if path.starts_with("/slow") => return std::future::pending().await,
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\npage\n".to_owned(),
    };
    let _ = stream.write_all(said.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// The values of a header in the head of a request.
pub(crate) fn values(head: &str, name: &str) -> Vec<String> {
    let header = |line: &str| {
        let (one, value) = line.split_once(':')?;
        one.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    };
    head.lines().filter_map(header).collect()
}

fn bearer() -> Vec<String> {
    vec![format!("Bearer {SECRET}")]
}

pub(crate) struct Edge {
    pub(crate) node: TestNode,
    /// With the secret, and the authority of the servers here; outside of the node.
    files: tempfile::TempDir,
    pub(crate) host: Server,
    other: Server,
    pub(crate) plain: Server,
}

impl Edge {
    pub(crate) fn boot() -> Option<Self> {
        let node = TestNode::boot()?;
        let rules = node.file("rules.toml", RULES);
        node.ok(&["network", "rules", "set", &rules]);
        let files = tempfile::tempdir().unwrap();
        fs::write(files.path().join("key"), format!("{SECRET}\n")).unwrap();
        fs::write(files.path().join("ca.pem"), AUTHORITY).unwrap();
        Some(Self {
            node,
            files,
            host: Server::tls(SERVER),
            other: Server::tls(OTHER),
            plain: Server::plain(),
        })
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.files.path().join(name).to_str().unwrap().to_owned()
    }

    /// Of `run`, for the secret at these places.
    pub(crate) fn words(&self, places: &[SocketAddr]) -> Vec<String> {
        let mut words = vec!["run".to_owned(), "--proxy".to_owned()];
        for server in [&self.host, &self.other, &self.plain] {
            words.extend(["--egress".to_owned(), server.place.to_string()]);
        }
        for place in places {
            let credential = format!("{place}={},ca={}", self.file("key"), self.file("ca.pem"));
            words.extend(["--credential".to_owned(), credential]);
        }
        words
    }

    pub(crate) fn script(&self, places: &[SocketAddr], lines: &[String]) -> Vec<String> {
        let script = format!("{TOOLS}{}", lines.join("\n"));
        let words = [self.words(places), ["--", "bash", "-c", &script].map(str::to_owned).to_vec()].concat();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = self.node.run(&words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim_end().to_owned()).collect()
    }

    pub(crate) fn rule(&self, id: &str, effect: &str, kind: &str, pattern: &str) {
        let text = format!(
            "[[rule]]\nid = \"{id}\"\nname = \"{id}\"\npriority = 10000\neffect = \"{effect}\"\n[rule.condition]\n\
             and = [{{ action = {{ kind = \"{kind}\" }} }}, {{ resource = {{ pattern = \"{pattern}\" }} }}]\n"
        );
        let file = self.node.file(&format!("{id}.toml"), text);
        self.node.ok(&["policy", "add", &file]);
    }

    pub(crate) fn decided(&self) -> Vec<bool> {
        let of_use = |entry: &Value| entry.to_string().contains("use_secret");
        let allows = |entry: &Value| entry.to_string().to_lowercase().contains("\"allow");
        self.node.log(&["PolicyDecision"]).iter().filter(|entry| of_use(entry)).map(allows).collect()
    }
}

#[test]
fn a_host_hears_the_secret_that_its_program_never_has_and_nobody_else_hears_it() {
    let Some(edge) = Edge::boot() else { return };
    let [host, other, plain] = [&edge.host, &edge.other, &edge.plain].map(|server| server.place);
    let said = edge.script(
        &[host, other],
        &[
            format!("get {}", edge.host.url("/")),
            format!(
                "get -H 'Authorization: Bearer mine' -H 'authorization: Basic eA==' {}",
                edge.host.url("/own")
            ),
            format!("get -H 'Connection: authorization' {}", edge.host.url("/hop")),
            format!("get -X POST -d body {}", edge.host.url("/post")),
        ],
    );
    assert_eq!(said, ["page"; 4]);
    let heard = edge.host.heard();
    assert_eq!(heard.len(), 4, "{heard:?}");
    for head in &heard {
        assert_eq!(values(head, "authorization"), bearer(), "{head}");
        assert_eq!(values(head, "host"), [host.to_string()], "{head}");
    }
    let said = edge.script(
        &[host, other],
        &[
            // Its certificate is another host's: nothing is said to it.
            format!("get {}", edge.other.url("/")),
            // Of the plain server no secret was named.
            format!("get {}", edge.plain.url("/")),
            // Who is sent on goes there without it.
            format!("get {}", edge.host.url(&format!("/redirect?{plain}"))),
            format!("get -L {}", edge.host.url(&format!("/redirect?{plain}"))),
            format!("get -L --location-trusted {}", edge.host.url(&format!("/redirect?{plain}"))),
            // Nobody here sees what is asked in a tunnel.
            format!("get -k https://{host}/tunnel"),
            format!("get -X TRACE {}", edge.host.url("/trace")),
        ],
    );
    assert_eq!(said, ["502/0", "page", "302/0", "page", "page", "page", "403/0"], "{said:?}");
    assert_eq!(edge.other.heard(), Vec::<String>::new());
    for head in edge.plain.heard() {
        assert!(!head.contains(SECRET), "{head}");
    }
    for head in edge.host.heard() {
        assert_eq!(head.contains(SECRET), head.contains("/redirect"), "{head}");
    }
    // One that was not given it, on the same node at the same time.
    let said = edge.script(&[], &[format!("get {}", edge.host.url("/")), format!("get -k https://{host}/")]);
    assert_eq!(said[1], "page", "{said:?}");
    for head in edge.host.heard() {
        assert!(!head.contains(SECRET), "{head}");
    }
    // By its name it is on record, also with each connection that it went over, and its value is not.
    let create = edge.node.log(&["ProcessCreate"])[0]["body"]["grants"].to_string();
    assert!(create.contains(&format!("credential:key@{host}")), "{create}");
    let entries = edge.node.log(&["ConnectionAuthorize"]);
    let with = entries.iter().filter(|entry| entry["body"]["secret"] == "key").count();
    assert_eq!(with, 8, "{entries:?}");
    assert!(
        edge.decided().len() >= 8 && edge.decided().iter().all(|allowed| *allowed),
        "{:?}",
        edge.decided()
    );
    assert_eq!(found_below(edge.node.root()), Vec::<PathBuf>::new());
}

/// Files in which the secret stands.
pub(crate) fn found_below(folder: &Path) -> Vec<PathBuf> {
    let output = Command::new("grep").args(["-rlaF", "--devices=skip", SECRET]).arg(folder).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
}

/// Processes with this name whose command has these words in it.
fn processes(name: &str, words: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let read = |pid: &u32, what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
    // One that is started by a descriptor is called something else by the kernel.
    let is_one = |pid: &u32| {
        let command = String::from_utf8_lossy(&read(pid, "cmdline")).into_owned();
        let first = command.split('\0').next().unwrap_or_default();
        first.rsplit('/').next() == Some(name) && command.contains(words)
    };
    pids.filter(is_one).collect()
}

/// In its memory, its environment and its arguments, and in what it has open.
fn has(pid: u32, text: &str) -> bool {
    let within = |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    let of = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
    if ["environ", "cmdline"].iter().any(|what| within(&of(what))) {
        return true;
    }
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        if fs::metadata(entry.path()).is_ok_and(|it| it.is_file() && it.len() < 1 << 20)
            && fs::read(entry.path()).is_ok_and(|bytes| within(&bytes))
        {
            return true;
        }
    }
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut looked = 0;
    for line in maps.lines() {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        if line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")) && to - from < 1 << 28 {
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            if memory.seek(SeekFrom::Start(from)).is_ok() && memory.read_exact(&mut bytes).is_ok() {
                looked += bytes.len();
                if within(&bytes) {
                    return true;
                }
            }
        }
    }
    assert!(looked > 0, "the memory of {pid} was not read");
    false
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn neither_memory_nor_environment_nor_files_of_the_program_have_it() {
    let Some(edge) = Edge::boot() else { return };
    let place = edge.host.place;
    // A secret that it does have is found in the same way.
    let script = format!("export SEEN=known-to-the-program-19; {TOOLS}get {}", edge.host.url("/slow"));
    let words = [edge.words(&[place]), ["--", "bash", "-c", &script].map(str::to_owned).to_vec()].concat();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let asks = edge.node.command(&words).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let _asks = Ended(asks);
    let url = edge.host.url("/slow");
    assert!(within(LIMIT, || !edge.host.heard.lock().unwrap().is_empty()), "nobody asked");
    let (shells, clients) = (processes("bash", &url), processes("curl", &url));
    assert!(!shells.is_empty() && !clients.is_empty(), "{shells:?} {clients:?}");
    for pid in shells.into_iter().chain(clients) {
        assert!(has(pid, "known-to-the-program-19"), "{pid}");
        assert!(!has(pid, SECRET), "{pid} has the secret");
        // What it sees of its own root: no secret was shown to it.
        let own = PathBuf::from(format!("/proc/{pid}/root"));
        for folder in ["tmp", "run"] {
            assert_eq!(found_below(&own.join(folder)), Vec::<PathBuf>::new());
        }
    }
    let flows = edge.node.json(&["network", "flows"]);
    let flow = flows.as_array().unwrap().iter().find(|flow| flow["remote"] == place.to_string()).unwrap();
    assert_eq!(flow["secret"], "key", "{flow}");
    assert!(!flows.to_string().contains(SECRET));
}

#[test]
fn a_rule_that_comes_takes_it_away_and_network_has_it_again_when_it_is_back() {
    let Some(edge) = Edge::boot() else { return };
    let place = edge.host.place;
    let script = format!("{TOOLS}while read word; do echo \"$word $(get {})\"; done", edge.host.url("/"));
    let words = [edge.words(&[place]), ["--", "bash", "-c", &script].map(str::to_owned).to_vec()].concat();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut child = edge.node.command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut tell, lines) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let _child = Ended(child);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(lines));
    let mut ask = |word: &str| {
        std::io::Write::write_all(&mut tell, format!("{word}\n").as_bytes()).unwrap();
        lines.next().unwrap().unwrap()
    };
    assert_eq!(ask("first"), "first page");
    // Whoever started the program hands it over once more.
    kill(edge.node.pid("network"));
    assert!(within(LIMIT, || ask("back") == "back page"));
    for head in edge.host.heard() {
        assert_eq!(values(&head, "authorization"), bearer(), "{head}");
    }
    edge.rule("no-use", "Deny", "use_secret", "key@**");
    assert_eq!(ask("denied"), "denied 403/0");
    edge.node.ok(&["policy", "remove", "no-use"]);
    // It is gone until the program is started again.
    assert_eq!(ask("gone"), "gone 403/0");
    assert_eq!(edge.host.heard(), Vec::<String>::new());
    assert_eq!(edge.script(&[place], &[format!("get {}", edge.host.url("/"))]), ["page"]);
    let decided = edge.decided();
    assert_eq!(decided.iter().filter(|allowed| !**allowed).count(), 1, "{decided:?}");
}

#[test]
fn a_services_manifest_names_it_for_this_service_alone() {
    let Some(edge) = Edge::boot() else { return };
    let place = edge.host.place;
    edge.rule("out", "Allow", "connect", "**");
    edge.rule("use", "Allow", "use_secret", &format!("token@{place}"));
    let manifest = |path: &str, credential: bool| {
        let named = format!(
            "[[egress.credentials]]\nhost = \"{place}\"\nsecret = \"token\"\npath = \"{path}\"\nheader = \"X-Api-Key\"\n\
             format = \"key {{}}\"\nauthority = \"{}\"\n",
            edge.file("ca.pem")
        );
        format!(
            "[program]\nimage = \"/bin/bash\"\nargs = ['-c', '''{TOOLS}get {}; exec sleep 100000''']\n{}[egress]\n\
             allow = [\"{place}\"]\nproxy = true\n{}[restart]\nmax_restarts = 0\n",
            edge.host.url("/"),
            "fs = [\"/opt\"]\n",
            if credential { named } else { String::new() }
        )
    };
    let applied = edge.node.apply("with", &manifest(&edge.file("key"), true));
    assert!(applied.status.success(), "{applied:?}");
    let log = |name: &str| edge.node.service_log(name);
    assert!(within(LIMIT, || log("with").contains("page")), "{}", log("with"));
    let heard = edge.host.heard();
    assert_eq!(values(&heard[0], "x-api-key"), [format!("key {SECRET}")], "{heard:?}");
    let applied = edge.node.apply("without", &manifest("", false));
    assert!(applied.status.success(), "{applied:?}");
    // It asks a server of TLS in plain HTTP.
    assert!(within(LIMIT, || log("without").contains('/')), "{}", log("without"));
    assert!(edge.host.heard().iter().all(|head| !head.contains(SECRET)));
    // What every program sees is no secret.
    let applied = edge.node.apply("sees", &manifest("/etc/hosts", true));
    let why = || format!("{applied:?} {} {}", edge.node.service("sees"), log("sees"));
    assert!(within(LIMIT, || why().contains("the program sees /etc/hosts")), "{}", why());
    assert_eq!(found_below(edge.node.root()), Vec::<PathBuf>::new());
}
