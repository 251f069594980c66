//! Servers that do not keep to it. Each ends as a result, and leaves the service as it was.

use std::time::Duration;

use chain::payload::network::ProcessClass;
use contracts::network::v1::{self as wire, NetworkErrorKind as Kind};
use tokio::io::AsyncWriteExt;

use crate::rig::{Rig, WAIT_MS, answering, fetched, here, listen, ok, read_request, rule};

/// covers: NET-21
#[tokio::test]
async fn answers_that_are_no_http_end_as_a_result() {
    let rig = Rig::new().await;
    rig.policy(vec![here()], |limits| limits.host_requests = 1_000, true).await;
    let many = |count: usize| "x: y\r\n".repeat(count);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("a line without an end", b"HTTP/1.1 200 OK".to_vec()),
        ("another protocol", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        ("a body alone", b"<html>hello</html>\r\n\r\n".to_vec()),
        ("a status of letters", b"HTTP/1.1 abc OK\r\n\r\n".to_vec()),
        ("a status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n".to_vec()),
        ("a version that is none", b"HTTP/9.9 200 OK\r\n\r\n".to_vec()),
        ("a name with a blank", b"HTTP/1.1 200 OK\r\nx y: z\r\n\r\n".to_vec()),
        ("a line that goes on", b"HTTP/1.1 200 OK\r\nx: y\r\n z\r\n\r\n".to_vec()),
        ("a NUL in a value", b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n".to_vec()),
        ("two lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy".to_vec()),
        ("a length below zero", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n".to_vec()),
        (
            "a length that overflows",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n".to_vec(),
        ),
        ("less than was promised", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort".to_vec()),
        ("a chunk of no size", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec()),
        (
            "a chunk that overflows",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n".to_vec(),
        ),
        ("a chunk that is cut", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nshort".to_vec()),
        ("more headers than there may be", format!("HTTP/1.1 200 OK\r\n{}\r\n", many(257)).into_bytes()),
        (
            "a head that is too large",
            format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(70_000)).into_bytes(),
        ),
        ("an endless line", vec![b'x'; 200_000]),
        ("interim answers for ever", b"HTTP/1.1 100 Continue\r\n\r\n".repeat(2_000)),
    ];
    for (what, bytes) in cases {
        let server = answering(move |_| bytes.clone()).await;
        let got = rig.get(&server.url("/")).await;
        let kind = got.kind();
        assert!(matches!(kind, Kind::Other | Kind::ConnectionFailed), "{what}: {got:?}");
        if what.contains("too large") {
            assert!(got.text().starts_with("too large"), "{what}: {got:?}");
        }
    }
    let server = answering(|_| ok("well")).await;
    assert_eq!(rig.get(&server.url("/")).await.body, b"well");
    rig.gone().await;
}

#[tokio::test]
async fn a_body_has_so_many_bytes_and_no_more() {
    let rig = Rig::new().await;
    rig.policy(vec![here()], |limits| limits.response_bytes = 100_000, true).await;
    let sized = |bytes: usize, says: bool| {
        let head = if says { format!("content-length: {bytes}\r\n") } else { String::new() };
        let mut answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n").into_bytes();
        answer.resize(answer.len() + bytes, b'x');
        answer
    };
    for says in [true, false] {
        let server = answering(move |_| sized(100_000, says)).await;
        assert_eq!(rig.get(&server.url("/")).await.body.len(), 100_000, "{says}");
        let server = answering(move |_| sized(100_001, says)).await;
        let over = rig.get(&server.url("/")).await;
        assert_eq!(over.kind(), Kind::Other);
        assert!(over.text().starts_with("too large") && over.head.is_none() == says, "{over:?}");
    }
    let endless = listen(|mut stream, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    })
    .await;
    assert!(rig.get(&endless.url("/")).await.text().starts_with("too large"));
    rig.gone().await;
}

#[tokio::test]
async fn what_is_compressed_stays_so() {
    let rig = Rig::new().await;
    // A kilobyte that would be a megabyte.
    let packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3];
    let body = packed.clone();
    let server = answering(move |_| {
        let mut answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 13\r\n\r\n".to_vec();
        answer.extend(&body);
        answer
    })
    .await;
    assert_eq!(rig.get(&server.url("/")).await.body, packed);
    let heard = server.heard().pop().unwrap();
    assert!(!heard.to_lowercase().contains("accept-encoding"), "{heard}");
}

#[tokio::test]
async fn a_peer_that_hangs_holds_up_nobody_else() {
    let rig = Rig::new().await;
    let silent = listen(|stream, _| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(stream);
    })
    .await;
    rig.policy(vec![here()], |limits| limits.host_requests = 1_000, true).await;
    let server = answering(|_| ok("well")).await;
    let url = silent.url("/");
    let mut waiting = Vec::new();
    for _ in 0..32 {
        let parts = rig.client("terminal", "fetch").fetch(fetched(&url)).await;
        waiting.push(parts.unwrap().into_inner());
    }
    let full = rig.get(&server.url("/")).await;
    assert_eq!(full.kind(), Kind::RateLimitExceeded, "one identity has so many under way");
    let named = rule("op", ProcessClass::System, "127.0.0.1", true, 200);
    rig.policy(vec![here(), named], |limits| limits.host_requests = 1_000, true).await;
    let other =
        rig.fetch("admin", wire::FetchRequest { timeout_ms: WAIT_MS, ..fetched(&server.url("/")) }).await;
    assert_eq!(other.body, b"well", "another goes on");
    drop(waiting);
    rig.gone().await;
}

/// Slow on purpose: a byte now and then, so that no read is ever late. The whole has an end all the same.
#[tokio::test]
async fn an_answer_that_trickles_ends_with_its_time() {
    const TRICKLE: Duration = Duration::from_millis(20);
    let rig = Rig::new().await;
    rig.policy(vec![here()], |limits| limits.host_requests = 1_000, true).await;
    let trickling = |begun: &'static [u8], byte: u8| {
        listen(move |mut stream, _| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(begun).await;
            while stream.write_all(&[byte]).await.is_ok() {
                tokio::time::sleep(TRICKLE).await;
            }
        })
    };
    let of_head = trickling(b"HTTP/1.1 200 OK\r\nx: ", b'y').await;
    let of_body = trickling(b"HTTP/1.1 200 OK\r\n\r\n", b'y').await;
    let of_chunk = trickling(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b'0').await;
    let server = answering(|_| ok("well")).await;
    let get = async |server: &crate::rig::Server| {
        rig.fetch("terminal", wire::FetchRequest { timeout_ms: 1_000, ..fetched(&server.url("/")) }).await
    };
    let url = server.url("/");
    let (head, body, chunk, other) =
        tokio::join!(get(&of_head), get(&of_body), get(&of_chunk), rig.get(&url));
    assert_eq!((head.kind(), body.kind()), (Kind::Timeout, Kind::Timeout), "{head:?} {body:?}");
    // The size of a chunk has an end of its own.
    assert!(matches!(chunk.kind(), Kind::Timeout | Kind::Other | Kind::ConnectionFailed), "{chunk:?}");
    assert_eq!(other.body, b"well");
    rig.gone().await;
}
