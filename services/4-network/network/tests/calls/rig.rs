//! A node with the network service, and the servers that it is to reach.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use base::{Hash, KeyPath, RuleId};
use chain::payload::{
    Payload,
    network::{CallLimits, ConnectionAuthorize, NetworkPolicyUpdate, ProcessClass, UrlRule},
    policy::{PolicyCondition, PolicyEffect, PolicyRule},
    service::{ServiceRegister, ServiceType},
};
use contracts::network::v1::{
    self as wire, NetworkErrorKind, fetch_part::Part, network_client::NetworkClient,
};
use kit::client::Calls;
use network::{Network, core::default_policy};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tonic::{Response, Status};

use crate::node::{LIMIT, Node, admin, genesis_plan};

pub(crate) const AUTHORITY: &str = include_str!("../tls/authority.pem");
/// Of 127.0.0.1 and web.test.
pub(crate) const SERVER: (&str, &str) =
    (include_str!("../tls/server.pem"), include_str!("../tls/server.key"));
/// Of other.test.
pub(crate) const OTHER: (&str, &str) = (include_str!("../tls/other.pem"), include_str!("../tls/other.key"));
/// Longer than anything takes that is to happen.
pub(crate) const WAIT_MS: u32 = 20_000;
/// Shorter, where a time-out is what is looked for.
pub(crate) const SHORT_MS: u32 = 3_000;

/// An application is `terminal` here, as long as it is not registered as something else.
pub(crate) struct Rig {
    pub(crate) node: Node,
    token: String,
}

pub(crate) fn rule(id: &str, applies_to: ProcessClass, pattern: &str, allow: bool, priority: u32) -> UrlRule {
    UrlRule { id: id.to_owned(), applies_to, url_pattern: pattern.to_owned(), allow, priority }
}

/// Names this host, for applications.
pub(crate) fn here() -> UrlRule {
    rule("here", ProcessClass::Application, "127.0.0.1", true, 60)
}

pub(crate) fn fetched(url: &str) -> wire::FetchRequest {
    wire::FetchRequest {
        method: "GET".to_owned(),
        url: url.to_owned(),
        timeout_ms: WAIT_MS,
        ..wire::FetchRequest::default()
    }
}

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) head: Option<wire::FetchHead>,
    pub(crate) body: Vec<u8>,
    pub(crate) failed: Option<(NetworkErrorKind, String)>,
}

impl Fetched {
    pub(crate) fn status(&self) -> u32 {
        self.head.as_ref().unwrap_or_else(|| panic!("{self:?}")).status
    }

    pub(crate) fn kind(&self) -> NetworkErrorKind {
        self.failed.as_ref().unwrap_or_else(|| panic!("{self:?}")).0
    }

    pub(crate) fn text(&self) -> &str {
        &self.failed.as_ref().unwrap_or_else(|| panic!("{self:?}")).1
    }
}

pub(crate) fn kind(error: &wire::NetworkError) -> (NetworkErrorKind, String) {
    (error.kind(), error.text.clone())
}

impl Rig {
    /// Of a node whose applications may reach this host.
    pub(crate) async fn new() -> Self {
        let rig = Self::with_defaults().await;
        rig.rules(vec![here()]).await;
        rig
    }

    pub(crate) async fn with_defaults() -> Self {
        let mut plan = genesis_plan();
        plan.rules = vec![PolicyRule {
            id: RuleId::default_deny(),
            name: "what decides here".to_owned(),
            description: String::new(),
            priority: 0,
            condition: PolicyCondition::Always,
            effect: PolicyEffect::AllowWithConditions,
            restrictions: vec![],
        }];
        let node = Node::start::<Network>(None, plan).await;
        let token = node.token(admin(), "admin");
        Self { node, token }
    }

    pub(crate) fn client(&self, client: &str, verb: &str) -> NetworkClient<Calls> {
        let token = (client == "admin").then_some(self.token.as_str());
        NetworkClient::new(self.node.calls(client, &format!("system.network.{verb}"), token))
    }

    /// These beside the default ones, as the log would say it.
    pub(crate) async fn rules(&self, rules: Vec<UrlRule>) {
        self.policy(rules, |_| {}, true).await;
    }

    pub(crate) async fn policy(
        &self,
        rules: Vec<UrlRule>,
        change: impl FnOnce(&mut CallLimits),
        trusts: bool,
    ) {
        let mut policy = default_policy();
        policy.rules.extend(rules);
        change(&mut policy.limits);
        policy.authorities = if trusts { vec![AUTHORITY.to_owned()] } else { vec![] };
        let at = self.node.world.append::<NetworkPolicyUpdate>(policy);
        let until = tokio::time::Instant::now() + LIMIT;
        while self.query("admin", "", "").await.unwrap().updated_at != Some(at.into()) {
            assert!(tokio::time::Instant::now() < until, "the policy is not in force");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn register(&self, name: &str, service_type: ServiceType, class: &str) {
        self.node.world.append(ServiceRegister {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            service_type,
            binary: Hash::ZERO,
            manifest: Hash::ZERO,
            key_path: KeyPath::parse(&format!("/orbital/services/{name}")).unwrap(),
        });
        let until = tokio::time::Instant::now() + LIMIT;
        while self.query(name, "", "").await.unwrap().process_class != class {
            assert!(tokio::time::Instant::now() < until, "{name} is not of class {class}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn query(
        &self,
        by: &str,
        url: &str,
        whom: &str,
    ) -> Result<wire::PolicyQueryReply, Status> {
        let request = wire::PolicyQueryRequest { url: url.to_owned(), r#as: whom.to_owned() };
        self.client(by, "policy_query").policy_query(request).await.map(Response::into_inner)
    }

    pub(crate) async fn fetch(&self, by: &str, request: wire::FetchRequest) -> Fetched {
        self.try_fetch(by, request).await.unwrap()
    }

    pub(crate) async fn get(&self, url: &str) -> Fetched {
        self.fetch("terminal", fetched(url)).await
    }

    pub(crate) async fn try_fetch(&self, by: &str, request: wire::FetchRequest) -> Result<Fetched, Status> {
        let parts = self.client(by, "fetch").fetch(request).await?.into_inner();
        Self::collect(parts).await
    }

    pub(crate) async fn collect(mut parts: tonic::Streaming<wire::FetchPart>) -> Result<Fetched, Status> {
        let mut all = Fetched { head: None, body: vec![], failed: None };
        let mut ended = false;
        while let Some(part) = parts.message().await? {
            assert!(!ended, "nothing comes after the last");
            match part.part.unwrap() {
                Part::Head(head) => assert!(all.head.replace(head).is_none()),
                Part::Body(data) => {
                    assert!(all.head.is_some() && data.len() <= 65_536);
                    all.body.extend(data);
                }
                Part::End(end) => {
                    assert_eq!(end.body_bytes, all.body.len() as u64);
                    ended = true;
                }
                Part::Failed(error) => {
                    all.failed = Some(kind(&error));
                    ended = true;
                }
            }
        }
        assert!(ended, "there is a last one");
        Ok(all)
    }

    pub(crate) fn authorized(&self) -> Vec<ConnectionAuthorize> {
        let of = |(_, payload)| match payload {
            Payload::ConnectionAuthorize(entry) => entry.body,
            other => panic!("{other:?}"),
        };
        self.node.world.payloads(60).into_iter().map(of).collect()
    }

    /// Of everybody.
    pub(crate) async fn sockets(&self) -> usize {
        let list = self.client("admin", "list").list(wire::ListRequest::default()).await;
        list.unwrap().into_inner().sockets.len()
    }

    pub(crate) async fn gone(&self) {
        let until = tokio::time::Instant::now() + LIMIT;
        while self.sockets().await > 0 {
            assert!(tokio::time::Instant::now() < until, "a connection is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What was asked of a server: heads and bodies as they came.
pub(crate) type Heard = Arc<Mutex<Vec<String>>>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) heard: Heard,
}

impl Server {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn https(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// Each connection goes to `serve`.
pub(crate) async fn listen<F>(serve: impl Fn(TcpStream, Heard) -> F + Send + 'static) -> Server
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Heard::default());
    let told = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&told)));
        }
    });
    Server { address, heard }
}

/// One request: its head and its body.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let mut buffer = vec![0; 65_536];
    let mut wanted = None;
    while wanted.is_none_or(|bytes| all.len() < bytes) {
        match stream.read(&mut buffer).await {
            Ok(bytes) if bytes > 0 => all.extend_from_slice(&buffer[..bytes]),
            _ => break,
        }
        if wanted.is_none() {
            wanted = length(&all);
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Of a request whose head is there.
fn length(begun: &[u8]) -> Option<usize> {
    let head = begun.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&begun[..head]).to_lowercase();
    let body = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    Some(head + body.unwrap_or(0))
}

/// Answers every request with what `answer` says to it.
pub(crate) async fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Server {
    let answer = Arc::new(answer);
    listen(move |mut stream, heard| {
        let answer = Arc::clone(&answer);
        async move {
            let request = read_request(&mut stream).await;
            heard.lock().unwrap().push(request.clone());
            let _ = stream.write_all(&answer(&request)).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

/// The same with TLS.
pub(crate) async fn answering_with_tls(
    own: (&str, &str),
    answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
) -> Server {
    let (acceptor, answer) = (acceptor(own), Arc::new(answer));
    listen(move |stream, heard| {
        let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let request = read_request(&mut stream).await;
            heard.lock().unwrap().push(request.clone());
            let _ = stream.write_all(&answer(&request)).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

pub(crate) fn acceptor((certificate, key): (&str, &str)) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub(crate) fn sends_to(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}
