//! HTTP and names through a node: what an operator sees, from the command line and with curl.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::Arc,
};

use base::TraceId;
use kit::OperationContext;
use serde_json::Value;
use system_tests::{TestNode, client::Client};
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

const AUTHORITY: &str = include_str!("../../../services/4-network/network/tests/tls/authority.pem");
const CERTIFICATE: &str = include_str!("../../../services/4-network/network/tests/tls/server.pem");
const KEY: &str = include_str!("../../../services/4-network/network/tests/tls/server.key");

/// Answers one request after the other with its own first line.
fn answer(stream: &mut (impl Read + Write)) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.extend(byte);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    let line = text.lines().next().unwrap_or_default();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-seen: yes\r\n\r\n{line}", line.len());
    let _ = stream.flush();
}

fn serve(each: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(each));
    place
}

fn serve_tls() -> SocketAddr {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    serve(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        answer(&mut stream);
        stream.conn.send_close_notify();
        let _ = stream.flush();
    })
}

/// A nameserver that knows two names, and says of everything else that it is not there.
fn names() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let place = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = &buffer[12..length];
            let end = question.iter().position(|byte| *byte == 0).unwrap() + 5;
            let (question, kind) = (&question[..end], question[end - 3]);
            let is = |name: &[u8]| question.starts_with(name);
            let address = match () {
                () if is(b"\x03web\x04test\0") => Some(Ipv4Addr::LOCALHOST),
                // Who owns a name can let it lead anywhere.
                () if is(b"\x06rebind\x04test\0") => Some(Ipv4Addr::new(10, 0, 0, 1)),
                () => None,
            };
            let answers = address.filter(|_| kind == 1);
            let code = if address.is_some() { 0x80 } else { 0x83 };
            let mut reply =
                [&buffer[..2], &[0x81, code, 0, 1, 0, u8::from(answers.is_some()), 0, 0, 0, 0]].concat();
            reply.extend(question);
            if let Some(address) = answers {
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                reply.extend(address.octets());
            }
            socket.send_to(&reply, from).unwrap();
        }
    });
    place
}

fn rules(pattern: &str) -> String {
    format!(
        "authorities = ['''{AUTHORITY}''']\n\
         [limits]\nhost_requests = 50\n\
         [[rule]]\nid = \"all\"\napplies_to = \"system\"\nurl_pattern = \"*\"\nallow = true\npriority = 1\n\
         [[rule]]\nid = \"here\"\napplies_to = \"system\"\nurl_pattern = \"{pattern}\"\nallow = true\npriority = 9\n"
    )
}

/// What a command that is refused says.
fn refused(node: &TestNode, args: &[&str]) -> String {
    let output = node.run(args);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// covers: NET-60
#[test]
fn the_operator_fetches_what_the_rules_allow_and_the_log_says_so() {
    let Some(mut node) = TestNode::empty() else { return };
    fs::create_dir_all(node.root().join("config")).unwrap();
    fs::write(node.root().join("config/network.toml"), format!("nameservers = [\"{}\"]\n", names())).unwrap();
    node.up();
    let (plain, tls) = (serve(|mut stream| answer(&mut stream)), serve_tls());
    let (url, by_name) = (format!("http://{plain}/a?b"), format!("https://web.test:{}/c", tls.port()));

    let said = refused(&node, &["network", "fetch", &url]);
    assert!(said.contains("loopback"), "{said}");
    assert!(node.ok(&["network", "rules"]).contains("block-malware"));
    assert_eq!(node.json(&["network", "test", &url, "--as", "application"])["url_rule"], "app-default-deny");
    assert_eq!(node.log(&["ConnectionAuthorize"]), Vec::<Value>::new());

    let file = node.file("rules.toml", rules("127.0.0.1"));
    node.ok(&["network", "rules", "set", &file]);
    let entries = node.log(&["NetworkPolicyUpdate"]);
    assert_eq!((entries.len(), &entries[0]["body"]["rules"][1]["id"]), (1, &Value::from("here")));
    let shown = node.ok(&["network", "rules"]);
    assert!(shown.contains("In force since entry") && shown.contains("host_requests = 50"), "{shown}");
    let again = node.file("again.toml", &shown);
    node.ok(&["network", "rules", "set", &again]);

    assert_eq!(node.ok(&["network", "fetch", &url]), "GET /a?b HTTP/1.1");
    let body = node.file("body", vec![b'x'; 700_000]);
    let out = node.root().join("out");
    let posted =
        ["network", "fetch", &url, "-d", &format!("@{body}"), "-H", "X-Mine: 1", "-O", out.to_str().unwrap()];
    node.ok(&posted);
    assert_eq!(fs::read_to_string(&out).unwrap(), "POST /a?b HTTP/1.1");

    let fetched = node.json(&["network", "fetch", &by_name]);
    assert_eq!((&fetched["status"], &fetched["body"]), (&Value::from(200), &Value::from("GET /c HTTP/1.1")));
    let entries = node.log(&["ConnectionAuthorize"]);
    let last = &entries.last().unwrap()["body"];
    assert_eq!((&last["name"], &last["remote"]), (&Value::from("web.test"), &Value::from(tls.to_string())));
    assert_eq!(fetched["entry"], entries.last().unwrap()["sequence"]);

    let said = refused(&node, &["network", "fetch", "http://rebind.test/"]);
    assert!(said.contains("10.0.0.1") && said.contains("private"), "{said}");
    let resolved = node.json(&["network", "resolve", "WEB.test."]);
    assert_eq!(
        (&resolved[0]["address"], &resolved[0]["ttl_seconds"]),
        (&Value::from("127.0.0.1"), &Value::from(60))
    );
    assert!(!node.run(&["network", "resolve", "none.test"]).status.success());

    let tested = node.json(&["network", "test", &by_name, "--address", "127.0.0.1"]);
    assert_eq!(tested["allowed"], true, "{tested}");
    assert_eq!((&tested["url_rule"], &tested["connect_rule"]), (&Value::from("all"), &Value::from("owner")));
    assert_eq!(node.log(&["ConnectionAuthorize"]).len(), entries.len(), "nothing was sent");
}

/// A person with curl: what the node says, by JSON on its socket, one line for each part of an answer.
#[test]
fn curl_fetches_through_the_socket() {
    let Some(node) = TestNode::boot() else { return };
    let place = serve(|mut stream| answer(&mut stream));
    let file = node.file("rules.toml", rules(&format!("http://{place}/*")));
    node.ok(&["network", "rules", "set", &file]);
    let operator = Client::operator(&node);
    let token = operator.issue(&[]);
    let call = |method: &str, verb: &str, body: &str| {
        let capability = format!("system.network.{verb}");
        let context =
            OperationContext::of_service(operator.identity(), &capability, TraceId([4; 16])).unwrap();
        let socket = node.root().join("run/admin/network.sock");
        let output = Command::new("curl")
            .args(["-sS", "--unix-socket", socket.to_str().unwrap()])
            .args(["-H", "content-type: application/json"])
            .args(["-H", &format!("bailiwick-context: {}", context.to_header())])
            .args(["-H", &format!("authorization: Bearer {token}")])
            .args(["-d", body, &format!("http://node/bailiwick.network.v1.Network/{method}")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = call("Fetch", "fetch", &format!(r#"{{"method":"GET","url":"http://{place}/x"}}"#));
    let parts: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parts[0]["head"]["status"], 200, "{lines}");
    assert_eq!(parts[1]["body"], "R0VUIC94IEhUVFAvMS4x", "{lines}");
    assert_eq!(parts[2]["end"]["bodyBytes"], "15", "{lines}");
    let lines = call("Fetch", "fetch", r#"{"method":"GET","url":"http://127.0.0.1:1/"}"#);
    let part: Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(part["failed"]["kind"], "NETWORK_ERROR_KIND_POLICY_DENIED", "{lines}");
    let answer = call("PolicyQuery", "policy_query", &format!(r#"{{"url":"http://{place}/x"}}"#));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (&answer["decision"]["allowed"], &answer["decision"]["rule"]),
        (&Value::from(true), &Value::from("here"))
    );
    let wrong = call("Fetch", "fetch", r#"{"method":"STEAL","url":"http://127.0.0.1/"}"#);
    assert!(wrong.contains("InvalidArgument"), "{wrong}");
    assert_eq!(
        call("0x9003", "fetch", "{}"),
        "",
        "there is no such operation, so nothing is said in its name"
    );
    assert!(call("PolicyQuery", "policy_query", "{}").contains("\"here\""), "and it disturbs nobody");
}
