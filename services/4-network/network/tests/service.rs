//! The service over real sockets, to peers on this host.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, helpers too"
)]

#[path = "../../../../crates/kit/tests/support/node.rs"]
mod node;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use base::{DurationNs, IdentityId, RuleId};
use chain::payload::{
    Payload, ReceiptStatus,
    identity::{IdentityChange, IdentityStatus, IdentityUpdated},
    network::{ConnectionAuthorize, Direction, NetworkGrant, Protocol},
    policy::{PolicyAction, PolicyCondition, PolicyEffect, PolicyRule, PolicyRuleRemoved, Restriction},
    service::ServiceStop,
};
use contracts::network::v1::{self as wire, network_client::NetworkClient};
use kit::client::Calls;
use network::{Network, core::to_wire};
use node::{LIMIT, Node, admin, genesis_plan, reason, service_id};
use tonic::{Response, Status};

/// Longer than anything here takes that is to happen, and waited for in full where it is not to.
const WAIT_MS: u32 = 10_000;
const QUIET: Duration = Duration::from_millis(200);

struct Rig {
    node: Node,
    token: String,
}

fn rule(limits: &[(&str, u64)]) -> PolicyRule {
    let limits = limits.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    PolicyRule {
        id: RuleId::default_deny(),
        name: "what decides here".to_owned(),
        description: String::new(),
        priority: 0,
        condition: PolicyCondition::Always,
        effect: PolicyEffect::AllowWithConditions,
        restrictions: vec![Restriction {
            name: "limits".to_owned(),
            condition: PolicyCondition::Always,
            limits,
        }],
    }
}

async fn limited(limits: &[(&str, u64)]) -> Rig {
    let mut plan = genesis_plan();
    plan.rules = vec![rule(limits)];
    let node = Node::start::<Network>(None, plan).await;
    let token = node.token(admin(), "admin");
    Rig { node, token }
}

async fn rig() -> Rig {
    limited(&[]).await
}

impl Rig {
    fn client(&self, client: &str, verb: &str) -> NetworkClient<Calls> {
        let token = (client == "admin").then_some(self.token.as_str());
        NetworkClient::new(self.node.calls(client, &format!("system.network.{verb}"), token))
    }

    async fn socket(&self, by: &str, socket_type: &str) -> u64 {
        let request = wire::SocketRequest { domain: "inet".to_owned(), socket_type: socket_type.to_owned() };
        self.client(by, "socket").socket(request).await.unwrap().into_inner().socket
    }

    async fn connect(&self, by: &str, socket: u64, to: SocketAddr) -> Result<wire::ConnectReply, Status> {
        let request = wire::ConnectRequest { socket, address: Some(to_wire(to)), timeout_ms: WAIT_MS };
        self.client(by, "connect").connect(request).await.map(Response::into_inner)
    }

    async fn send(&self, by: &str, socket: u64, data: &[u8]) -> Result<u32, Status> {
        let request = wire::SendRequest { socket, data: data.to_vec(), timeout_ms: WAIT_MS };
        self.client(by, "send").send(request).await.map(|reply| reply.into_inner().sent)
    }

    async fn recv(&self, by: &str, socket: u64, timeout_ms: u32) -> Result<Vec<u8>, Status> {
        let request = wire::RecvRequest { socket, max_bytes: 65_536, timeout_ms };
        self.client(by, "recv").recv(request).await.map(|reply| reply.into_inner().data)
    }

    async fn close(&self, by: &str, socket: u64) -> Result<(), Status> {
        self.client(by, "close").close(wire::CloseRequest { socket }).await.map(drop)
    }

    async fn bind(&self, by: &str, socket: u64, at: SocketAddr) -> Result<SocketAddr, Status> {
        let request = wire::BindRequest { socket, address: Some(to_wire(at)) };
        let local = self.client(by, "bind").bind(request).await?.into_inner().local.unwrap();
        let port = u16::try_from(local.port).unwrap();
        Ok(SocketAddr::from((<[u8; 4]>::try_from(local.ip).unwrap(), port)))
    }

    async fn listen(&self, by: &str, socket: u64) -> Result<wire::ListenReply, Status> {
        self.client(by, "listen")
            .listen(wire::ListenRequest { socket, backlog: 0 })
            .await
            .map(Response::into_inner)
    }

    async fn accept(&self, by: &str, socket: u64, timeout_ms: u32) -> Result<wire::AcceptReply, Status> {
        let request = wire::AcceptRequest { socket, timeout_ms };
        self.client(by, "accept").accept(request).await.map(Response::into_inner)
    }

    async fn list(&self, by: &str) -> Vec<wire::SocketInfo> {
        self.client(by, "list").list(wire::ListRequest::default()).await.unwrap().into_inner().sockets
    }

    async fn state(&self, by: &str, socket: u64) -> String {
        let found = self.list(by).await.into_iter().find(|info| info.socket == socket);
        found.map(|info| info.state).unwrap_or_default()
    }

    fn authorized(&self) -> Vec<ConnectionAuthorize> {
        let of = |(_, payload)| match payload {
            Payload::ConnectionAuthorize(entry) => entry.body,
            other => panic!("{other:?}"),
        };
        self.node.world.payloads(60).into_iter().map(of).collect()
    }

    /// Ends with what a pending receive of the client said.
    async fn cut_while_receiving(&self, socket: u64, cut: impl Future<Output = ()>) -> String {
        let (pending, ()) = tokio::join!(self.recv("terminal", socket, WAIT_MS), async {
            // The receive is under way when it is cut, as far as that can be seen from outside.
            tokio::time::sleep(QUIET).await;
            cut.await;
        });
        reason(pending)
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn accepted(listener: &TcpListener) -> TcpStream {
    let listener = listener.try_clone().unwrap();
    let (peer, _) = tokio::task::spawn_blocking(move || listener.accept().unwrap()).await.unwrap();
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    peer
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// covers: NET-03, NET-07, NET-08, NET-09, NET-30
#[tokio::test]
async fn a_connection_is_on_record_before_it_is_made_and_carries_both_ways() {
    let rig = rig().await;
    let (listener, address) = listener();
    let socket = rig.socket("terminal", "stream").await;
    let connected = rig.connect("terminal", socket, address).await.unwrap();
    let mut peer = accepted(&listener).await;
    let entries = rig.authorized();
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(entry.connection.0.to_vec(), connected.connection);
    assert_eq!((entry.direction, entry.protocol), (Direction::Outbound, Protocol::Tcp));
    assert_eq!(entry.remote, Some(address.to_string()));
    assert_eq!((entry.identity, entry.grant), (service_id("terminal"), NetworkGrant::UNLIMITED));
    assert_eq!(connected.local, Some(to_wire(peer.peer_addr().unwrap())));

    assert_eq!(rig.send("terminal", socket, b"ping").await.unwrap(), 4);
    let mut peer = blocking(move || {
        let mut read = [0; 4];
        peer.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"ping");
        peer.write_all(b"pong").unwrap();
        peer
    })
    .await;
    assert_eq!(rig.recv("terminal", socket, WAIT_MS).await.unwrap(), b"pong");
    assert_eq!(reason(rig.recv("terminal", socket, 0).await), "WouldBlock");
    assert_eq!(reason(rig.recv("terminal", socket, 1).await), "Timeout");
    let listed = rig.list("terminal").await;
    assert_eq!(
        (listed[0].sent_bytes, listed[0].received_bytes, listed[0].state.as_str()),
        (4, 4, "connected")
    );
    assert_eq!(listed[0].authorized, connected.authorized);

    rig.close("terminal", socket).await.unwrap();
    blocking(move || assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "an end, not a reset")).await;
    assert_eq!(rig.node.world.payloads(60).len(), 1, "what is carried is nobody's business");
}

/// The receipt comes after the answer.
async fn receipts(rig: &Rig, number: usize) -> Vec<ReceiptStatus> {
    let until = Instant::now() + LIMIT;
    loop {
        let all = rig.node.world.payloads(80);
        if all.len() >= number || Instant::now() > until {
            let of = |(_, payload)| match payload {
                Payload::Receipt(entry) => entry.body.status,
                other => panic!("{other:?}"),
            };
            return all.into_iter().map(of).collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// covers: NET-12, NET-34
#[tokio::test]
async fn a_denied_connect_sends_nothing_and_changes_nothing() {
    let rig = rig().await;
    let (listener, address) = listener();
    listener.set_nonblocking(true).unwrap();
    let denied = address.to_string();
    rig.node.world.set_verdict(
        move |request| !matches!(&request.action, PolicyAction::Connect { address } if *address == denied),
    );
    let socket = rig.socket("terminal", "stream").await;
    assert_eq!(reason(rig.connect("terminal", socket, address).await), "PolicyDenied");
    tokio::time::sleep(QUIET).await;
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "no SYN");
    assert_eq!(rig.authorized(), []);
    assert_eq!(rig.state("terminal", socket).await, "created");
    // The same socket goes where it may.
    let (other, elsewhere) = self::listener();
    rig.connect("terminal", socket, elsewhere).await.unwrap();
    accepted(&other).await;
    assert_eq!(receipts(&rig, 1).await, [ReceiptStatus::Success]);
}

#[tokio::test]
async fn a_connect_that_fails_leaves_the_socket_as_it_was_and_a_receipt() {
    let rig = rig().await;
    let (gone, address) = listener();
    drop(gone);
    let socket = rig.socket("terminal", "stream").await;
    let local = rig.bind("terminal", socket, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    assert_eq!(reason(rig.connect("terminal", socket, address).await), "ConnectionRefused");
    assert_eq!(rig.state("terminal", socket).await, "bound");
    assert_eq!(receipts(&rig, 1).await, [ReceiptStatus::Failed { exit_code: 1 }]);
    let (listener, address) = listener();
    let connected = rig.connect("terminal", socket, address).await.unwrap();
    assert_eq!(connected.local, Some(to_wire(local)));
    assert_eq!(accepted(&listener).await.peer_addr().unwrap(), local);
}

/// covers: NET-10, NET-11
#[tokio::test]
async fn a_socket_is_its_makers_alone_and_gone_once_closed() {
    let rig = rig().await;
    let (listener, address) = listener();
    let socket = rig.socket("terminal", "stream").await;
    assert_eq!(reason(rig.connect("network", socket, address).await), "SocketNotFound");
    rig.connect("terminal", socket, address).await.unwrap();
    let _peer = accepted(&listener).await;
    assert_eq!(reason(rig.send("network", socket, b"x").await), "SocketNotFound");
    assert_eq!(reason(rig.recv("network", socket, 0).await), "SocketNotFound");
    assert_eq!(reason(rig.close("network", socket).await), "SocketNotFound");
    assert_eq!((rig.list("network").await.len(), rig.list("admin").await.len()), (0, 1));
    rig.close("terminal", socket).await.unwrap();
    assert_eq!(reason(rig.send("terminal", socket, b"x").await), "SocketNotFound");
    assert_eq!(reason(rig.close("terminal", socket).await), "SocketNotFound");
    assert_ne!(rig.socket("terminal", "stream").await, socket);
    let bare = NetworkClient::new(rig.node.calls("admin", "system.network.socket", None));
    let request = wire::SocketRequest { domain: "inet".to_owned(), socket_type: "stream".to_owned() };
    assert_eq!(reason(bare.clone().socket(request).await), "auth_required");
}

/// covers: NET-04, NET-05, NET-06, NET-35
#[tokio::test]
async fn each_peer_is_decided_before_it_is_handed_on() {
    let rig = rig().await;
    let socket = rig.socket("terminal", "stream").await;
    assert_eq!(reason(rig.listen("terminal", socket).await), "InvalidArgument", "it is not bound");
    assert_eq!(reason(rig.accept("terminal", socket, 0).await), "InvalidArgument");
    let local = rig.bind("terminal", socket, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    rig.listen("terminal", socket).await.unwrap();
    assert_eq!(reason(rig.accept("terminal", socket, 0).await), "WouldBlock");

    // What listens is allowed; then nobody is let in, then everybody.
    rig.node.world.set_verdict(|_| false);
    let mut refused = blocking(move || TcpStream::connect(local).unwrap()).await;
    assert_eq!(reason(rig.accept("terminal", socket, 500).await), "Timeout");
    blocking(move || {
        refused.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(refused.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    })
    .await;
    rig.node.world.set_verdict(|_| true);
    let mut peer = blocking(move || TcpStream::connect(local).unwrap()).await;
    let (peer_address, answer) =
        (peer.local_addr().unwrap(), rig.accept("terminal", socket, WAIT_MS).await.unwrap());
    assert_eq!(answer.peer, Some(to_wire(peer_address)));
    let entries = rig.authorized();
    let remotes: Vec<Option<String>> = entries.iter().map(|entry| entry.remote.clone()).collect();
    assert_eq!(remotes, [None, Some(peer_address.to_string())]);
    assert!(
        entries
            .iter()
            .all(|entry| entry.direction == Direction::Inbound && entry.local == Some(local.to_string()))
    );
    blocking(move || peer.write_all(b"in").unwrap()).await;
    assert_eq!(rig.recv("terminal", answer.socket, WAIT_MS).await.unwrap(), b"in");
}

/// covers: NET-33
#[tokio::test]
async fn what_is_revoked_is_cut_while_it_carries() {
    let rig = rig().await;
    let (listener, address) = listener();
    let open = async || {
        let socket = rig.socket("terminal", "stream").await;
        let connected = rig.connect("terminal", socket, address).await.unwrap();
        (socket, connected.connection, accepted(&listener).await)
    };
    let ends_in_a_reset = async |mut peer: TcpStream| {
        let end = blocking(move || peer.read(&mut [0; 1]).unwrap_err().kind()).await;
        assert_eq!(end, ErrorKind::ConnectionReset);
    };
    let revoke = async |by: &str, connection: &[u8]| {
        let request = wire::RevokeRequest { connection: connection.to_vec(), reason: "enough".to_owned() };
        rig.client(by, "revoke").revoke(request).await
    };
    let (socket, connection, peer) = open().await;
    assert_eq!(reason(revoke("network", &connection).await), "SocketNotFound", "it is another's");
    let said =
        rig.cut_while_receiving(socket, async { drop(revoke("admin", &connection).await.unwrap()) }).await;
    assert_eq!(said, "AuthorizationRequired");
    ends_in_a_reset(peer).await;
    let entries = rig.node.world.payloads(61);
    let [(_, Payload::ConnectionRevoke(entry))] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((entry.body.connection.0.to_vec(), entry.body.by), (connection, admin()));
    assert_eq!(reason(rig.send("terminal", socket, b"x").await), "AuthorizationRequired");
    rig.close("terminal", socket).await.unwrap();

    let (socket, _, peer) = open().await;
    let (old, new) = (IdentityStatus::Active, IdentityStatus::Suspended);
    let suspend = |identity: IdentityId, old, new| {
        let change = IdentityChange::Status { old, new, by: admin(), reason: String::new() };
        rig.node.world.append(IdentityUpdated { identity, change });
    };
    rig.cut_while_receiving(socket, async { suspend(service_id("terminal"), old, new) }).await;
    ends_in_a_reset(peer).await;
    suspend(service_id("terminal"), new, old);
    let until = Instant::now() + LIMIT;
    while rig.client("terminal", "list").list(wire::ListRequest::default()).await.is_err()
        && Instant::now() < until
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let (socket, _, peer) = open().await;
    let rule = RuleId::default_deny();
    let said = rig
        .cut_while_receiving(socket, async {
            rig.node.world.append(PolicyRuleRemoved { rule, removed_by: admin() });
        })
        .await;
    assert_eq!(said, "AuthorizationRequired");
    ends_in_a_reset(peer).await;
    // The rule that would decide is gone, so nothing that it allows is made.
    let socket = rig.socket("terminal", "stream").await;
    assert_eq!(reason(rig.connect("terminal", socket, address).await), "AuthorizationRequired");
}

#[tokio::test]
async fn sockets_fall_with_the_service_that_made_them() {
    let rig = rig().await;
    let (listener, address) = listener();
    let socket = rig.socket("terminal", "stream").await;
    rig.connect("terminal", socket, address).await.unwrap();
    let mut peer = accepted(&listener).await;
    rig.node.world.append(ServiceStop { name: "terminal".to_owned(), reason: String::new(), late: false });
    let end = blocking(move || peer.read(&mut [0; 1]).unwrap_err().kind()).await;
    assert_eq!(end, ErrorKind::ConnectionReset);
    assert_eq!(rig.list("admin").await, []);
}

/// covers: NET-32
#[tokio::test]
async fn what_a_rule_limits_is_recorded_and_held() {
    let rig =
        limited(&[("bandwidth_limit", 100_000), ("duration_limit_ns", 1_500_000_000), ("recv", 0)]).await;
    let (listener, address) = listener();
    let socket = rig.socket("terminal", "stream").await;
    let began = Instant::now();
    rig.connect("terminal", socket, address).await.unwrap();
    let mut peer = accepted(&listener).await;
    let granted = NetworkGrant {
        send: true,
        recv: false,
        bandwidth_limit: 100_000,
        duration_limit: DurationNs(1_500_000_000),
    };
    assert_eq!(rig.authorized()[0].grant, granted);
    assert_eq!(reason(rig.recv("terminal", socket, 0).await), "PermissionDenied");
    // The first goes at once, the second when the first has used up its half second.
    let sending = Instant::now();
    for _ in 0..2 {
        assert_eq!(rig.send("terminal", socket, &[7; 50_000]).await.unwrap(), 50_000);
    }
    assert!(sending.elapsed() >= Duration::from_millis(490), "{:?}", sending.elapsed());
    let end = blocking(move || {
        let mut all = Vec::new();
        (peer.read_to_end(&mut all).map_err(|error| error.kind()), all.len())
    })
    .await;
    assert_eq!(end.0, Err(ErrorKind::ConnectionReset), "{}", end.1);
    assert!(began.elapsed() >= Duration::from_millis(1_490));
    assert_eq!(reason(rig.send("terminal", socket, b"x").await), "AuthorizationRequired");

    let rig = limited(&[("packets_per_second", 3)]).await;
    let socket = rig.socket("terminal", "stream").await;
    assert_eq!(
        reason(rig.connect("terminal", socket, address).await),
        "PermissionDenied",
        "nobody would hold it"
    );
    assert_eq!(rig.authorized(), []);
}

/// covers: NET-24, NET-28
#[tokio::test]
async fn datagrams_go_to_peers_that_were_decided_and_come_from_them() {
    let rig = rig().await;
    let (known, stranger) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    known.set_read_timeout(Some(LIMIT)).unwrap();
    let (to, other) = (known.local_addr().unwrap(), stranger.local_addr().unwrap());
    let denied = other.to_string();
    rig.node.world.set_verdict(
        move |request| !matches!(&request.action, PolicyAction::Connect { address } if *address == denied),
    );
    let socket = rig.socket("terminal", "datagram").await;
    let send_to = async |peer: SocketAddr, data: &[u8]| {
        let request = wire::SendToRequest { socket, address: Some(to_wire(peer)), data: data.to_vec() };
        rig.client("terminal", "send_to").send_to(request).await.map(|reply| reply.into_inner().sent)
    };
    assert_eq!(send_to(to, b"one").await.unwrap(), 3);
    assert_eq!(send_to(to, b"two").await.unwrap(), 3);
    assert_eq!(reason(send_to(other, b"no").await), "PolicyDenied");
    assert_eq!(rig.authorized().len(), 1, "once for each peer");
    assert_eq!(rig.authorized()[0].protocol, Protocol::Udp);
    stranger.set_nonblocking(true).unwrap();
    assert_eq!(stranger.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let (from, known) = blocking(move || {
        let mut buffer = [0; 9];
        let (bytes, from) = known.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], b"one");
        (from, known)
    })
    .await;
    // Nobody asked the stranger, so what it says is not heard; it comes first.
    let here = SocketAddr::from(([127, 0, 0, 1], from.port()));
    stranger.send_to(b"listen to me", here).unwrap();
    known.send_to(b"four", here).unwrap();
    let recv_from = async |max_bytes: u32, timeout_ms: u32| {
        let request = wire::RecvFromRequest { socket, max_bytes, timeout_ms };
        rig.client("terminal", "recv_from").recv_from(request).await.map(Response::into_inner)
    };
    let received = recv_from(4, WAIT_MS).await.unwrap();
    assert_eq!((received.data.as_slice(), received.peer), (&b"four"[..], Some(to_wire(to))));
    known.send_to(b"four", here).unwrap();
    assert_eq!(reason(recv_from(3, WAIT_MS).await), "BufferTooSmall");
    assert_eq!(reason(recv_from(3, 0).await), "WouldBlock");
    assert_eq!(reason(send_to(to, &[0; 65_508]).await), "InvalidArgument");
}

/// covers: NET-12
#[tokio::test]
async fn to_bind_a_datagram_socket_is_to_listen() {
    let rig = rig().await;
    rig.node.world.set_verdict(|request| !matches!(request.action, PolicyAction::Listen { .. }));
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let socket = rig.socket("terminal", "datagram").await;
    assert_eq!(reason(rig.bind("terminal", socket, free).await), "PolicyDenied");
    assert_eq!(rig.state("terminal", socket).await, "created");
    rig.node.world.set_verdict(|_| true);
    let unnamed = rig.bind("terminal", socket, "127.0.0.1:0".parse().unwrap()).await;
    assert_eq!(reason(unnamed), "InvalidArgument", "it is decided before the kernel chooses");
    let local = rig.bind("terminal", socket, free).await.unwrap();
    assert_eq!(rig.authorized()[0].direction, Direction::Inbound);
    let anybody = UdpSocket::bind("127.0.0.1:0").unwrap();
    anybody.send_to(b"hello", local).unwrap();
    let request = wire::RecvFromRequest { socket, max_bytes: 64, timeout_ms: WAIT_MS };
    let received = rig.client("terminal", "recv_from").recv_from(request).await.unwrap().into_inner();
    assert_eq!(received.data, b"hello");
}

/// covers: NET-32, NET-33
#[tokio::test]
async fn a_peer_of_a_datagram_socket_has_its_own_limits_and_its_own_end() {
    let rig = limited(&[("duration_limit_ns", 1_000_000_000), ("recv", 0)]).await;
    let (first, second) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    first.set_read_timeout(Some(LIMIT)).unwrap();
    let socket = rig.socket("terminal", "datagram").await;
    let send_to = async |peer: &UdpSocket| {
        let address = Some(to_wire(peer.local_addr().unwrap()));
        let request = wire::SendToRequest { socket, address, data: b"x".to_vec() };
        rig.client("terminal", "send_to").send_to(request).await.map(|reply| reply.into_inner().sent)
    };
    let began = Instant::now();
    assert_eq!(send_to(&first).await.unwrap(), 1);
    let from = blocking(move || {
        let from = first.recv_from(&mut [0; 9]).unwrap().1;
        (first, from)
    });
    let (first, from) = from.await;
    let here = SocketAddr::from(([127, 0, 0, 1], from.port()));
    first.send_to(b"back", here).unwrap();
    let request = wire::RecvFromRequest { socket, max_bytes: 64, timeout_ms: 200 };
    let heard = rig.client("terminal", "recv_from").recv_from(request).await;
    assert_eq!(reason(heard), "Timeout", "its authorisation does not cover receiving");

    assert_eq!(send_to(&second).await.unwrap(), 1);
    let connection = rig.authorized()[1].connection.0.to_vec();
    let request = wire::RevokeRequest { connection, reason: "enough".to_owned() };
    rig.client("admin", "revoke").revoke(request).await.unwrap();
    rig.node.world.set_verdict(|_| false);
    assert_eq!(reason(send_to(&second).await), "PolicyDenied", "it is asked for anew");
    assert_eq!(send_to(&first).await.unwrap(), 1, "the other peer stays");
    tokio::time::sleep_until((began + Duration::from_millis(1_500)).into()).await;
    assert_eq!(reason(send_to(&first).await), "PolicyDenied", "its time is over");
}

/// covers: NET-27
#[tokio::test]
async fn a_socket_is_shown_with_whose_it_is_where_it_goes_and_what_authorised_it() {
    let rig = rig().await;
    let (listener, address) = listener();
    let socket = rig.socket("terminal", "stream").await;
    let option = wire::SetOptionRequest { socket, name: "no_delay".to_owned(), value: 1 };
    rig.client("terminal", "set_option").set_option(option).await.unwrap();
    let [created] = &rig.list("terminal").await[..] else { panic!("one socket") };
    let names = (created.domain.as_str(), created.socket_type.as_str(), created.state.as_str());
    assert_eq!((created.socket, names), (socket, ("inet", "stream", "created")));
    assert_eq!((&created.remote, &created.authorized, created.connection.len()), (&None, &None, 0));
    let connected = rig.connect("terminal", socket, address).await.unwrap();
    let peer = accepted(&listener).await;
    let [shown] = &rig.list("terminal").await[..] else { panic!("one socket") };
    assert_eq!((shown.socket, shown.state.as_str()), (socket, "connected"));
    assert_eq!((&shown.local, &shown.remote), (&connected.local, &Some(to_wire(address))));
    assert_eq!(shown.local, Some(to_wire(peer.peer_addr().unwrap())));
    let [entry] = &rig.authorized()[..] else { panic!("one connection") };
    assert_eq!(
        (shown.owner.as_slice(), shown.connection.as_slice()),
        (&entry.identity.0[..], &entry.connection.0[..])
    );
    assert_eq!(shown.connection, connected.connection);
    assert!(shown.authorized.is_some(), "{shown:?}");
    let option = wire::GetOptionRequest { socket, name: "no_delay".to_owned() };
    let kept = rig.client("terminal", "get_option").get_option(option).await.unwrap().into_inner();
    assert_eq!(kept.value, 1);
}

/// covers: NET-28
#[tokio::test]
async fn options_are_set_by_name() {
    let rig = rig().await;
    let socket = rig.socket("terminal", "stream").await;
    let set = async |name: &str, value: u32| {
        let request = wire::SetOptionRequest { socket, name: name.to_owned(), value };
        rig.client("terminal", "set_option").set_option(request).await.map(|reply| reply.into_inner().value)
    };
    let get = async |name: &str| {
        let request = wire::GetOptionRequest { socket, name: name.to_owned() };
        rig.client("terminal", "get_option").get_option(request).await.map(|reply| reply.into_inner().value)
    };
    for (name, value) in [("no_delay", 1), ("keep_alive", 1), ("reuse_address", 1), ("ttl", 7)] {
        assert_eq!((set(name, value).await.unwrap(), get(name).await.unwrap()), (value, value), "{name}");
    }
    assert!(set("send_buffer", 20_000).await.unwrap() >= 20_000);
    assert_eq!(get("error").await.unwrap(), 0);
    for (name, value) in [("ttl", 256), ("error", 0), ("bind_to_device", 1)] {
        assert_eq!(reason(set(name, value).await), "InvalidArgument", "{name}");
    }
    let (_listener, address) = listener();
    let any = "127.0.0.1:0".parse().unwrap();
    rig.bind("terminal", socket, any).await.unwrap();
    assert_eq!(reason(rig.bind("terminal", socket, any).await), "InvalidArgument", "it is bound");
    let taken = rig.socket("terminal", "stream").await;
    assert_eq!(reason(rig.bind("terminal", taken, address).await), "AddressInUse");
    assert_eq!(rig.state("terminal", taken).await, "created");
}
