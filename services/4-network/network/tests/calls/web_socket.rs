//! WebSockets: messages both ways, ends from both sides, and peers that break the protocol.

use std::sync::Arc;

use chain::payload::service::ServiceStop;
use contracts::network::v1::{
    self as wire, NetworkErrorKind as Kind, web_socket_event::Event, web_socket_message::Data,
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::{derive_accept_key, server},
    protocol::CloseFrame,
};
use tonic::{Status, Streaming};

use crate::{
    node::{LIMIT, reason},
    rig::{Heard, Rig, SERVER, Server, WAIT_MS, acceptor, answering, here, kind, listen, ok, read_request},
};

type Events = Streaming<wire::WebSocketEvent>;

fn ws(server: &Server) -> String {
    format!("ws://{}/chat?x=1", server.address)
}

fn asked(url: &str) -> wire::WebSocketOpenRequest {
    wire::WebSocketOpenRequest { url: url.to_owned(), timeout_ms: WAIT_MS, ..Default::default() }
}

async fn next(events: &mut Events) -> Event {
    let event = timeout(LIMIT, events.message()).await.expect("something comes");
    event.unwrap().expect("it goes on").event.unwrap()
}

async fn over(events: &mut Events) {
    assert!(timeout(LIMIT, events.message()).await.expect("it ends").unwrap().is_none());
}

impl Rig {
    async fn open(&self, by: &str, url: &str) -> (Events, Event) {
        let events = self.client(by, "web_socket").web_socket_open(asked(url)).await;
        let mut events = events.unwrap().into_inner();
        let first = next(&mut events).await;
        (events, first)
    }

    async fn opened(&self, url: &str) -> (Events, u64) {
        match self.open("terminal", url).await {
            (events, Event::Opened(opened)) => (events, opened.conn_id),
            (_, other) => panic!("{other:?}"),
        }
    }

    async fn send(&self, by: &str, conn_id: u64, data: Data) -> Result<(), Status> {
        let message = wire::WebSocketMessage { conn_id, data: Some(data) };
        self.client(by, "web_socket").web_socket_send(message).await.map(drop)
    }

    async fn close(&self, by: &str, conn_id: u64, code: u32, reason: &str) -> Result<(), Status> {
        let request = wire::WebSocketCloseRequest { conn_id, code, reason: reason.to_owned() };
        self.client(by, "web_socket").web_socket_close(request).await.map(drop)
    }
}

/// Gives back what it gets; `bye` makes it close.
async fn echo(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, heard: Heard) {
    let told = Arc::clone(&heard);
    #[allow(clippy::result_large_err, reason = "the trait of the handshake wants it so")]
    let chooses = |request: &server::Request, mut response: server::Response| {
        told.lock().unwrap().push(format!("{} {:?}", request.uri(), request.headers()));
        if request.headers().contains_key("sec-websocket-protocol") {
            response.headers_mut().insert("sec-websocket-protocol", "two".parse().unwrap());
        }
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, chooses).await else { return };
    while let Some(message) = socket.next().await {
        match message {
            Ok(Message::Text(text)) if text.as_str() == "bye" => {
                let frame = CloseFrame { code: 4001.into(), reason: "as you wish".into() };
                socket.close(Some(frame)).await.unwrap();
            }
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).await.unwrap(),
            Ok(Message::Close(frame)) => heard.lock().unwrap().push(format!("closed {frame:?}")),
            Ok(_) => {}
            Err(error) => heard.lock().unwrap().push(format!("ended {error}")),
        }
    }
    heard.lock().unwrap().push("gone".to_owned());
}

async fn echoing() -> Server {
    listen(echo).await
}

async fn heard(server: &Server, text: &str) {
    let hears = async {
        while !server.heard().iter().any(|line| line.contains(text)) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, hears).await.unwrap_or_else(|_| panic!("{text}: {:?}", server.heard()));
}

/// covers: NET-14, NET-46, NET-47
#[tokio::test]
async fn messages_keep_their_kind_both_ways() {
    let rig = Rig::new().await;
    let server = echoing().await;
    let request = wire::WebSocketOpenRequest {
        protocols: vec!["one".to_owned(), "two".to_owned()],
        headers: vec![wire::Header { name: "origin".to_owned(), value: "here".to_owned() }],
        ..asked(&ws(&server))
    };
    let events = rig.client("terminal", "web_socket").web_socket_open(request).await;
    let mut events = events.unwrap().into_inner();
    let Event::Opened(opened) = next(&mut events).await else { panic!() };
    assert_eq!(opened.protocol, "two");
    assert_eq!(rig.authorized()[0].connection.0.to_vec(), opened.connection);
    assert!(server.heard()[0].contains("/chat?x=1") && server.heard()[0].contains("\"here\""));
    let large = vec![7; 1024 * 1024 - 4_096];
    for data in [
        Data::Text("grüß".to_owned()),
        Data::Text(String::new()),
        Data::Binary(vec![0, 255, 1]),
        Data::Binary(vec![]),
        Data::Binary(b"looks like text".to_vec()),
        Data::Binary(large.clone()),
    ] {
        rig.send("terminal", opened.conn_id, data.clone()).await.unwrap();
        let Event::Message(message) = next(&mut events).await else { panic!() };
        assert_eq!((message.conn_id, message.data), (opened.conn_id, Some(data)));
    }
    let over = rig.send("terminal", opened.conn_id, Data::Binary([large, vec![7]].concat())).await;
    assert_eq!(reason(over), "InvalidArgument");
}

/// covers: NET-48
#[tokio::test]
async fn either_side_closes_with_a_code_and_a_reason() {
    let rig = Rig::new().await;
    let server = echoing().await;
    let (mut events, id) = rig.opened(&ws(&server)).await;
    rig.send("terminal", id, Data::Text("bye".to_owned())).await.unwrap();
    let Event::Closed(closed) = next(&mut events).await else { panic!() };
    assert_eq!((closed.conn_id, closed.code, closed.reason.as_str()), (id, 4001, "as you wish"));
    over(&mut events).await;
    assert_eq!(reason(rig.send("terminal", id, Data::Text(String::new())).await), "SocketNotFound");

    let (mut events, id) = rig.opened(&ws(&server)).await;
    for (code, reason_text) in
        [(999, ""), (1005, ""), (1006, ""), (5000, ""), (0, "x"), (1000, &*"x".repeat(124))]
    {
        assert_eq!(reason(rig.close("terminal", id, code, reason_text).await), "InvalidArgument", "{code}");
    }
    rig.close("terminal", id, 3000, &"x".repeat(123)).await.unwrap();
    heard(&server, "closed Some(CloseFrame { code: Iana(3000)").await;
    let Event::Closed(closed) = next(&mut events).await else { panic!() };
    assert_eq!(closed.code, 3000, "the peer says it back");
    over(&mut events).await;

    let (mut events, id) = rig.opened(&ws(&server)).await;
    rig.close("terminal", id, 0, "").await.unwrap();
    let Event::Closed(closed) = next(&mut events).await else { panic!() };
    assert_eq!(closed.code, 1005);
    rig.gone().await;
}

/// covers: NET-49
#[tokio::test]
async fn a_connection_is_its_openers_alone_and_its_number_is_not_used_again() {
    let rig = Rig::new().await;
    let server = echoing().await;
    let (mut events, id) = rig.opened(&ws(&server)).await;
    for (by, other) in [("network", id), ("admin", id), ("terminal", id + 1), ("terminal", 0)] {
        assert_eq!(reason(rig.send(by, other, Data::Text("x".to_owned())).await), "SocketNotFound", "{by}");
        assert_eq!(reason(rig.close(by, other, 1000, "").await), "SocketNotFound", "{by}");
    }
    rig.send("terminal", id, Data::Text("mine".to_owned())).await.unwrap();
    assert!(matches!(next(&mut events).await, Event::Message(_)), "it goes on");
    drop(events);
    rig.gone().await;
    let (_events, second) = rig.opened(&ws(&server)).await;
    assert!(second > id);
    assert_eq!(reason(rig.send("terminal", id, Data::Text("x".to_owned())).await), "SocketNotFound");
}

/// covers: NET-62
#[tokio::test]
async fn it_goes_with_whoever_opened_it() {
    let rig = Rig::new().await;
    let server = echoing().await;
    let (events, _) = rig.opened(&ws(&server)).await;
    drop(events);
    heard(&server, "closed Some(CloseFrame { code: Away").await;
    rig.gone().await;

    let server = echoing().await;
    let (mut events, id) = rig.opened(&ws(&server)).await;
    rig.node.world.append(ServiceStop { name: "terminal".to_owned(), reason: String::new(), late: false });
    heard(&server, "gone").await;
    assert!(matches!(next(&mut events).await, Event::Failed(_) | Event::Closed(_)));
    assert_eq!(reason(rig.send("terminal", id, Data::Text("x".to_owned())).await), "SocketNotFound");
    rig.gone().await;
}

/// covers: NET-33
#[tokio::test]
async fn it_ends_with_what_allowed_it() {
    let rig = Rig::new().await;
    let server = echoing().await;
    let (mut events, _) = rig.opened(&ws(&server)).await;
    let connection = rig.authorized()[0].connection.0.to_vec();
    let request = wire::RevokeRequest { connection, reason: "enough".to_owned() };
    rig.client("admin", "revoke").revoke(request).await.unwrap();
    let Event::Failed(error) = next(&mut events).await else { panic!() };
    assert_eq!(error.kind(), Kind::PolicyDenied);
    assert!(error.text.contains("revoked: enough"), "{error:?}");
    let (mut events, _) = rig.opened(&ws(&server)).await;
    rig.rules(vec![]).await;
    let Event::Failed(error) = next(&mut events).await else { panic!() };
    assert!(error.text.contains("was replaced"), "{error:?}");
    rig.gone().await;
}

#[tokio::test]
async fn to_open_one_is_a_request_under_the_same_rules() {
    let rig = Rig::with_defaults().await;
    let server = echoing().await;
    let failed = async |url: &str| match rig.open("terminal", url).await.1 {
        Event::Failed(error) => kind(&error).0,
        other => panic!("{other:?}"),
    };
    assert_eq!(failed(&ws(&server)).await, Kind::PolicyDenied);
    assert_eq!(failed(&format!("http://{}/", server.address)).await, Kind::InvalidUrl);
    assert!(server.heard().is_empty());
    rig.policy(vec![here()], |limits| limits.process_requests = 2, true).await;
    let plain = answering(|_| ok("no WebSocket")).await;
    assert_eq!(failed(&ws(&plain)).await, Kind::ConnectionFailed);
    let tls = listen(|stream, heard| async move {
        if let Ok(stream) = acceptor(SERVER).accept(stream).await {
            echo(stream, heard).await;
        }
    })
    .await;
    let (_events, id) = rig.opened(&format!("wss://{}/", tls.address)).await;
    rig.send("terminal", id, Data::Text("x".to_owned())).await.unwrap();
    assert_eq!(failed(&ws(&server)).await, Kind::RateLimitExceeded, "both counted");
    let request = wire::WebSocketOpenRequest { protocols: vec!["a b".to_owned()], ..asked(&ws(&server)) };
    let refused = rig.client("terminal", "web_socket").web_socket_open(request).await;
    assert_eq!(reason(refused.map(drop)), "InvalidArgument");
}

/// Shakes hands as it should, and then writes these bytes.
async fn breaking(bytes: Vec<u8>) -> Server {
    listen(move |stream, _| write_frames(stream, bytes.clone())).await
}

fn accept_for(request: &str) -> String {
    let of_line = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.to_owned())
    };
    derive_accept_key(request.lines().find_map(of_line).unwrap().as_bytes())
}

async fn write_frames(mut stream: TcpStream, bytes: Vec<u8>) {
    let request = read_request(&mut stream).await;
    let accept = accept_for(&request);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = stream.write_all(&bytes).await;
    // Until the other side has gone: it is the one to end this.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {}
}

/// The kinds of cases that Autobahn has: frames, control frames, fragments, UTF-8, closes and sizes.
#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_left() {
    let rig = Rig::new().await;
    let generous = |limits: &mut chain::payload::network::CallLimits| {
        limits.host_requests = 1_000;
        limits.process_requests = 1_000;
        limits.message_bytes = 1_000;
    };
    rig.policy(vec![here()], generous, true).await;
    let frame = |first: u8, payload: &[u8]| {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(length as u8),
            length => frame.extend([126, (length >> 8) as u8, length as u8]),
        }
        frame.extend(payload);
        frame
    };
    let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes()[..], reason].concat());
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("a frame that is masked".into(), vec![0x81, 0x81, 1, 2, 3, 4, b'x' ^ 1]),
        (
            "a length that is announced and never comes in full: too large".into(),
            [&[0x82, 127][..], &[0, 0, 0, 0, 0, 1, 0, 0]].concat(),
        ),
        ("a length with its highest bit".into(), [&[0x82, 127][..], &[0xff; 8]].concat()),
        ("a message that is too large".into(), frame(0x82, &[0; 1_001])),
        (
            "fragments that are too large together".into(),
            [frame(0x02, &[0; 600]), frame(0x80, &[0; 600])].concat(),
        ),
        ("a ping of 126 bytes".into(), frame(0x89, &[0; 126])),
        ("a ping in fragments".into(), [frame(0x09, b"x"), frame(0x80, b"y")].concat()),
        ("a close in fragments".into(), frame(0x08, b"")),
        ("going on with nothing".into(), frame(0x80, b"x")),
        ("a fragment of nothing".into(), frame(0x00, b"x")),
        ("a message within another".into(), [frame(0x01, b"x"), frame(0x81, b"y")].concat()),
        ("text that is no UTF-8".into(), frame(0x81, &[0xce, 0xba, 0xe1, 0xff])),
        ("text that ends within a letter".into(), frame(0x81, &[0xce])),
        ("a surrogate".into(), frame(0x81, &[0xed, 0xa0, 0x80])),
        ("a letter in more bytes than it has".into(), frame(0x81, &[0xc0, 0xaf])),
        (
            "fragments that are no UTF-8 together".into(),
            [frame(0x01, &[0xce]), frame(0x80, &[0xff])].concat(),
        ),
        ("a close of one byte".into(), frame(0x88, &[3])),
        ("a close whose reason is no UTF-8".into(), close(1000, &[0xff])),
        ("a close of 126 bytes".into(), close(1000, &[b'x'; 124])),
    ];
    for reserved in [0x40, 0x20, 0x10] {
        cases.push((format!("reserved bit {reserved:#x}"), frame(0x81 | reserved, b"x")));
        cases.push((format!("reserved bit {reserved:#x} of a ping"), frame(0x89 | reserved, b"x")));
    }
    for opcode in (3..=7).chain(0xb..=0xf) {
        cases.push((format!("opcode {opcode:#x}"), frame(0x80 | opcode, b"x")));
    }
    assert_eq!(cases.len(), 35);
    for (what, bytes) in cases {
        let server = breaking(bytes).await;
        let (mut events, _) = rig.opened(&ws(&server)).await;
        match next(&mut events).await {
            Event::Failed(error) => assert_eq!(error.kind(), Kind::Other, "{what}: {error:?}"),
            other => panic!("{what}: {other:?}"),
        }
        over(&mut events).await;
    }
    // Codes that nobody may send are at least not passed on as if they had been said.
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        let server = breaking(close(code, b"")).await;
        let (mut events, _) = rig.opened(&ws(&server)).await;
        let last = next(&mut events).await;
        let is_passed_on = matches!(&last, Event::Closed(closed) if closed.code == u32::from(code));
        assert!(!is_passed_on, "{code}: {last:?}");
    }
    // Pings before, between and after are answered, and nobody else's business.
    let well = [
        frame(0x89, b"1"),
        frame(0x01, b"a"),
        frame(0x89, b"2"),
        frame(0x80, b"b"),
        frame(0x8a, b"3"),
        close(1000, b"ok"),
    ];
    let server = breaking(well.concat()).await;
    let (mut events, id) = rig.opened(&ws(&server)).await;
    let Event::Message(message) = next(&mut events).await else { panic!() };
    assert_eq!((message.conn_id, message.data), (id, Some(Data::Text("ab".to_owned()))));
    let Event::Closed(closed) = next(&mut events).await else { panic!() };
    assert_eq!((closed.code, closed.reason.as_str()), (1000, "ok"));
    // One that goes without a word.
    let server = listen(|mut stream, _| async move {
        let request = read_request(&mut stream).await;
        let accept = accept_for(&request);
        let head = format!("HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
    })
    .await;
    let (mut events, _) = rig.opened(&ws(&server)).await;
    let Event::Closed(closed) = next(&mut events).await else { panic!() };
    assert_eq!(closed.code, 1006);
    rig.gone().await;
}

#[tokio::test]
async fn a_handshake_that_is_none_opens_nothing() {
    let rig = Rig::new().await;
    rig.policy(vec![here()], |limits| limits.host_requests = 1_000, true).await;
    let good = "connection: upgrade\r\nupgrade: websocket\r\n";
    for (what, answer) in [
        ("no accept", format!("HTTP/1.1 101 x\r\n{good}\r\n")),
        (
            "another's accept",
            format!("HTTP/1.1 101 x\r\n{good}sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
        ),
        ("no upgrade", "HTTP/1.1 101 x\r\nconnection: upgrade\r\n\r\n".to_owned()),
        ("a redirect", "HTTP/1.1 302 x\r\nlocation: ws://127.0.0.1/\r\n\r\n".to_owned()),
        ("a refusal", "HTTP/1.1 403 x\r\n\r\n".to_owned()),
        ("a large head", format!("HTTP/1.1 101 x\r\n{good}x: {}\r\n\r\n", "y".repeat(100_000))),
        ("nothing", String::new()),
        ("no HTTP", "hello\r\n\r\n".to_owned()),
    ] {
        let server = answering(move |_| answer.clone().into_bytes()).await;
        match rig.open("terminal", &ws(&server)).await {
            (_, Event::Failed(error)) => {
                assert!(matches!(error.kind(), Kind::Other | Kind::ConnectionFailed), "{what}: {error:?}");
            }
            (_, other) => panic!("{what}: {other:?}"),
        }
    }
    rig.gone().await;
}
