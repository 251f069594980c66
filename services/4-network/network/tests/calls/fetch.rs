//! Requests of HTTP, and what comes of them.

use std::time::Duration;

use chain::payload::{
    network::{Direction, ProcessClass},
    policy::PolicyAction,
    service::ServiceType,
};
use contracts::network::v1::{self as wire, NetworkErrorKind as Kind, fetch_part::Part};
use tokio::io::AsyncWriteExt;

use crate::{
    node::{reason, service_id},
    rig::{
        OTHER, Rig, SERVER, SHORT_MS, answering, answering_with_tls, fetched, here, listen, ok, read_request,
        rule, sends_to,
    },
};

fn header(name: &str, value: &str) -> wire::Header {
    wire::Header { name: name.to_owned(), value: value.to_owned() }
}

/// covers: NET-14, NET-18, NET-42, NET-44
#[tokio::test]
async fn a_request_is_on_record_before_it_is_made_and_its_answer_comes_as_it_is() {
    let rig = Rig::new().await;
    let server = answering(|request| match request.starts_with("GET /missing") {
        true => b"HTTP/1.1 404 Not Found\r\nx-one: 1\r\nx-one: 2\r\ncontent-length: 4\r\n\r\ngone".to_vec(),
        false => ok("hello"),
    })
    .await;
    let got = rig.fetch(
        "terminal",
        wire::FetchRequest {
            headers: vec![header("Accept", "text/plain"), header("X-Mine", "a b")],
            ..fetched(&server.url("/data?x=1"))
        },
    );
    let got = got.await;
    assert_eq!((got.status(), got.body.as_slice()), (200, &b"hello"[..]));
    let heard = server.heard();
    assert!(heard[0].starts_with("GET /data?x=1 HTTP/1.1\r\n"), "{heard:?}");
    for line in
        [format!("host: {}", server.address), "accept: text/plain".to_owned(), "x-mine: a b".to_owned()]
    {
        assert!(heard[0].contains(&format!("{line}\r\n")), "{line}: {heard:?}");
    }
    let entries = rig.authorized();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].direction, entries[0].identity), (Direction::Outbound, service_id("terminal")));
    assert_eq!(entries[0].remote, Some(server.address.to_string()));
    assert_eq!(got.head.unwrap().connection, entries[0].connection.0.to_vec());

    let missing = rig.get(&server.url("/missing")).await;
    assert_eq!((missing.status(), missing.body.as_slice()), (404, &b"gone"[..]), "a status is no failure");
    let twice = missing.head.unwrap().headers.into_iter().filter(|header| header.name == "x-one").count();
    assert_eq!(twice, 2);
    rig.gone().await;
}

/// covers: NET-43
#[tokio::test]
async fn seven_methods_exist() {
    let rig = Rig::new().await;
    let server = answering(|request| if request.starts_with("HEAD") { ok("") } else { ok("x") }).await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"] {
        let body = if matches!(method, "GET" | "HEAD" | "OPTIONS") { vec![] } else { b"body".to_vec() };
        let request = wire::FetchRequest { method: method.to_owned(), body, ..fetched(&server.url("/")) };
        assert_eq!(rig.fetch("terminal", request).await.status(), 200, "{method}");
        let heard = server.heard().pop().unwrap();
        assert!(heard.starts_with(&format!("{method} / HTTP/1.1\r\n")), "{heard}");
        assert_eq!(heard.ends_with("\r\n\r\nbody"), !matches!(method, "GET" | "HEAD" | "OPTIONS"), "{heard}");
    }
    for method in ["get", "TRACE", "CONNECT", "", "G E T"] {
        let request = wire::FetchRequest { method: method.to_owned(), ..fetched(&server.url("/")) };
        assert_eq!(reason(rig.try_fetch("terminal", request).await), "InvalidArgument", "{method}");
    }
    let request =
        wire::FetchRequest { headers: vec![header("Host", "evil.test")], ..fetched(&server.url("/")) };
    assert_eq!(reason(rig.try_fetch("terminal", request).await), "InvalidArgument");
    assert_eq!(server.heard().len(), 7);
}

/// covers: NET-52, NET-55, NET-59
#[tokio::test]
async fn what_the_rules_refuse_sends_nothing_and_uses_up_nothing() {
    let rig = Rig::with_defaults().await;
    let server = answering(|_| ok("x")).await;
    for _ in 0..30 {
        let refused = rig.get(&server.url("/")).await;
        assert_eq!(refused.kind(), Kind::PolicyDenied);
        assert!(refused.text().contains("app-default-deny"), "{}", refused.text());
    }
    // By TLS it would be allowed, and is special all the same.
    let refused = rig.get(&server.https("/")).await;
    assert_eq!(refused.kind(), Kind::PolicyDenied);
    assert!(refused.text().contains("loopback"), "{}", refused.text());
    assert_eq!((server.heard().len(), rig.authorized().len()), (0, 0));
    rig.rules(vec![here()]).await;
    for _ in 0..10 {
        assert_eq!(rig.get(&server.url("/")).await.status(), 200);
    }
}

/// covers: NET-53
#[tokio::test]
async fn a_url_that_cannot_be_read_is_so_before_any_rule() {
    let rig = Rig::with_defaults().await;
    for url in
        ["", "x", "http://", "ftp://a.test/", "http://u@a.test/", "http://a b/", "http://[::ffff:1.2.3.4]/"]
    {
        assert_eq!(rig.get(url).await.kind(), Kind::InvalidUrl, "{url}");
    }
}

/// Nobody has said here which addresses this host has.
///
/// covers: NET-52
#[tokio::test]
async fn an_address_that_may_be_this_hosts_is_reached_by_its_name_alone() {
    let rig = Rig::with_defaults().await;
    rig.rules(vec![here(), rule("wide", ProcessClass::Application, "*", true, 70)]).await;
    let refused = rig.get("http://192.0.2.1/").await;
    assert_eq!(refused.kind(), Kind::PolicyDenied);
    assert!(refused.text().contains("is not known yet"), "{}", refused.text());
    let server = answering(|_| sends_to("http://192.0.2.1/")).await;
    let redirected = rig.get(&server.url("/")).await;
    assert_eq!(redirected.kind(), Kind::PolicyDenied, "{redirected:?}");
    assert!(redirected.text().contains("192.0.2.1"), "{}", redirected.text());
    assert_eq!(rig.authorized().len(), 1, "of the redirecting server alone");
}

/// covers: NET-56, NET-57, NET-59
#[tokio::test]
async fn requests_are_counted_by_process_and_by_host() {
    let rig = Rig::new().await;
    let server = answering(|_| ok("x")).await;
    let long = |limits: &mut chain::payload::network::CallLimits| {
        limits.host_window_ms = 3_600_000;
        limits.process_window_ms = 3_600_000;
        limits.process_requests = 14;
    };
    rig.policy(vec![here(), rule("v6", ProcessClass::Application, "[::1]", true, 60)], long, true).await;
    for _ in 0..10 {
        assert_eq!(rig.get(&server.url("/")).await.status(), 200);
    }
    let refused = rig.get(&server.url("/")).await;
    assert_eq!(refused.kind(), Kind::RateLimitExceeded, "the eleventh to one host");
    assert_eq!((server.heard().len(), rig.authorized().len()), (10, 10));
    // Nobody is there, and it counts.
    for _ in 0..4 {
        assert_eq!(rig.get("http://[::1]:9/").await.kind(), Kind::ConnectionFailed);
    }
    assert_eq!(
        rig.get("http://[::1]:9/").await.kind(),
        Kind::RateLimitExceeded,
        "the fifteenth of one process"
    );
    let other = rig.fetch("admin", fetched("http://[::1]:9/")).await;
    assert_eq!(
        other.kind(),
        Kind::PolicyDenied,
        "the operator's class has no rule that names it: nothing is counted"
    );
}

/// covers: NET-60
#[tokio::test]
async fn tls_is_verified_for_the_host_that_was_asked_for() {
    let rig = Rig::new().await;
    let good = answering_with_tls(SERVER, |_| ok("secret")).await;
    let wrong = answering_with_tls(OTHER, |_| ok("secret")).await;
    assert_eq!(rig.get(&good.https("/")).await.body, b"secret");
    let refused = rig.get(&wrong.https("/")).await;
    assert_eq!(refused.kind(), Kind::ConnectionFailed);
    assert!(refused.text().contains("certificate"), "{}", refused.text());
    // The same peer, and nobody who vouches for it.
    rig.policy(vec![here()], |_| {}, false).await;
    let refused = rig.get(&good.https("/")).await;
    assert_eq!(refused.kind(), Kind::ConnectionFailed);
    assert!(refused.text().contains("certificate"), "{}", refused.text());
    assert_eq!((good.heard().len(), wrong.heard().len()), (1, 0));
    let plain = listen(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    assert_eq!(rig.get(&plain.https("/")).await.kind(), Kind::ConnectionFailed);
}

/// covers: NET-12
#[tokio::test]
async fn policy_decides_about_the_address_and_nothing_is_sent_without_it() {
    let rig = Rig::new().await;
    let server = answering(|_| ok("x")).await;
    let address = server.address.to_string();
    rig.node.world.set_verdict(
        move |request| !matches!(&request.action, PolicyAction::Connect { address: to } if *to == address),
    );
    assert_eq!(rig.get(&server.url("/")).await.kind(), Kind::PolicyDenied);
    assert_eq!((server.heard().len(), rig.authorized().len()), (0, 0));
    rig.gone().await;
}

/// covers: NET-61
#[tokio::test]
async fn a_request_has_an_end_and_then_its_connection_too() {
    let rig = Rig::new().await;
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let server = listen(move |mut stream, _| {
        let told = told.clone();
        async move {
            let request = read_request(&mut stream).await;
            let end = if request.contains("/body") { "\r\n" } else { "x: " };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n{end}");
            stream.write_all(head.as_bytes()).await.unwrap();
            // A byte now and then, for as long as it is taken.
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            told.send(()).unwrap();
        }
    })
    .await;
    for path in ["/head", "/body"] {
        let began = tokio::time::Instant::now();
        let request = wire::FetchRequest { timeout_ms: SHORT_MS, ..fetched(&server.url(path)) };
        let slow = rig.fetch("terminal", request).await;
        assert_eq!(slow.kind(), Kind::Timeout, "{path}: {slow:?}");
        assert_eq!(slow.head.is_some(), path == "/body");
        assert!(began.elapsed() >= Duration::from_millis(u64::from(SHORT_MS)));
        ended.recv().await.unwrap();
    }
    rig.gone().await;
}

#[tokio::test]
async fn redirects_are_followed_ten_times_each_decided_by_itself() {
    let rig = Rig::new().await;
    let server = answering(|request| {
        let number: u32 = request.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        if number == 0 { ok("there") } else { sends_to(&format!("/{}", number - 1)) }
    })
    .await;
    rig.policy(vec![here()], |limits| limits.host_requests = 1_000, true).await;
    let followed = rig.get(&server.url("/10")).await;
    assert_eq!((followed.status(), followed.body.as_slice()), (200, &b"there"[..]));
    let head = followed.head.unwrap();
    assert_eq!((head.redirects, head.url), (10, server.url("/0")));
    assert_eq!(rig.authorized().len(), 11);
    let endless = rig.get(&server.url("/11")).await;
    assert_eq!((endless.kind(), endless.text()), (Kind::Other, "there were more than 10 redirects"));
    let asked = wire::FetchRequest { no_redirects: true, ..fetched(&server.url("/5")) };
    assert_eq!(rig.fetch("terminal", asked).await.status(), 302);
    let rig = Rig::new().await;
    let few = |limits: &mut chain::payload::network::CallLimits| {
        limits.host_requests = 3;
        limits.host_window_ms = 3_600_000;
    };
    rig.policy(vec![here()], few, true).await;
    let counted = rig.get(&server.url("/9")).await;
    assert_eq!(counted.kind(), Kind::RateLimitExceeded, "each counts");
}

#[tokio::test]
async fn a_redirect_leads_nowhere_that_was_not_named_and_carries_no_credentials_away() {
    let rig = Rig::new().await;
    let there = answering(|_| ok("there")).await;
    let (to, other) = (there.url("/"), there.address);
    let plain = answering(move |request| {
        if request.contains("/metadata") {
            sends_to("http://169.254.169.254/latest/")
        } else if request.contains("/decimal") {
            sends_to("http://2130706434/")
        } else if request.contains("/file") {
            sends_to("file:///etc/passwd")
        } else {
            sends_to(&to)
        }
    })
    .await;
    for (path, kind) in
        [("/metadata", Kind::PolicyDenied), ("/decimal", Kind::PolicyDenied), ("/file", Kind::InvalidUrl)]
    {
        assert_eq!(rig.get(&plain.url(path)).await.kind(), kind, "{path}");
    }
    let request = wire::FetchRequest {
        method: "POST".to_owned(),
        headers: vec![header("Authorization", "Bearer x"), header("Cookie", "a=b"), header("X-Kept", "1")],
        body: b"body".to_vec(),
        ..fetched(&plain.url("/away"))
    };
    assert_eq!(rig.fetch("terminal", request).await.body, b"there");
    let heard = there.heard().pop().unwrap();
    assert!(heard.starts_with("GET /") && heard.contains("x-kept: 1"), "{heard}");
    assert!(!heard.contains("Bearer") && !heard.contains("cookie") && !heard.contains("body"), "{heard}");

    let to = format!("http://{other}/");
    let tls = answering_with_tls(SERVER, move |_| sends_to(&to)).await;
    let refused = rig.get(&tls.https("/")).await;
    assert_eq!(refused.kind(), Kind::PolicyDenied);
    assert!(refused.text().contains("without TLS"), "{}", refused.text());
    rig.register("terminal", ServiceType::System, "system").await;
    rig.rules(vec![rule("here", ProcessClass::System, "127.0.0.1", true, 200)]).await;
    assert_eq!(rig.get(&tls.https("/")).await.body, b"there", "only applications are kept to TLS");
}

/// covers: NET-33
#[tokio::test]
async fn a_download_ends_with_what_allowed_it() {
    let rig = Rig::new().await;
    let server = listen(|mut stream, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    for revokes in [true, false] {
        rig.rules(vec![here()]).await;
        let parts = rig.client("terminal", "fetch").fetch(fetched(&server.url("/"))).await;
        let mut parts = parts.unwrap().into_inner();
        let Some(Part::Head(head)) = parts.message().await.unwrap().unwrap().part else { panic!() };
        assert!(matches!(parts.message().await.unwrap().unwrap().part, Some(Part::Body(_))));
        if revokes {
            let request = wire::RevokeRequest { connection: head.connection, reason: "enough".to_owned() };
            rig.client("admin", "revoke").revoke(request).await.unwrap();
        } else {
            rig.rules(vec![]).await;
        }
        let last = loop {
            match parts.message().await.unwrap().unwrap().part.unwrap() {
                Part::Body(_) => {}
                last => break last,
            }
        };
        let Part::Failed(error) = last else { panic!("{last:?}") };
        let expected = if revokes { "revoked: enough" } else { "was replaced" };
        assert!(error.text.contains(expected), "{error:?}");
        rig.gone().await;
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_behind() {
    let rig = Rig::new().await;
    let server = listen(|mut stream, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
    })
    .await;
    let parts = rig.client("terminal", "fetch").fetch(fetched(&server.url("/"))).await;
    let mut parts = parts.unwrap().into_inner();
    assert!(parts.message().await.unwrap().is_some());
    assert_eq!(rig.sockets().await, 1);
    drop(parts);
    rig.gone().await;
}

#[tokio::test]
async fn a_large_body_goes_up_in_parts_and_has_an_end() {
    use wire::{FetchUploadPart, fetch_upload_part::Part as Up};
    let rig = Rig::new().await;
    let server = answering(|request| ok(&request.len().to_string())).await;
    let request = wire::FetchRequest { method: "POST".to_owned(), ..fetched(&server.url("/")) };
    let upload = async |bytes: usize| {
        let mut parts = vec![FetchUploadPart { part: Some(Up::Request(request.clone())) }];
        parts.extend(
            vec![b'x'; bytes]
                .chunks(512 * 1024)
                .map(|piece| FetchUploadPart { part: Some(Up::Body(piece.to_vec())) }),
        );
        let sent = rig.client("terminal", "fetch").fetch_upload(tokio_stream::iter(parts)).await;
        Rig::collect(sent.unwrap().into_inner()).await.unwrap()
    };
    let most = 4 * 1024 * 1024;
    let length: usize = String::from_utf8(upload(most).await.body).unwrap().parse().unwrap();
    assert!(length > most);
    let over = upload(most + 1).await;
    assert_eq!(over.kind(), Kind::Other);
    assert!(over.text().starts_with("too large"), "{}", over.text());
    let first = wire::FetchUploadPart { part: Some(Up::Body(vec![1])) };
    let sent = rig.client("terminal", "fetch").fetch_upload(tokio_stream::iter([first])).await;
    assert_eq!(reason(sent.map(drop)), "InvalidArgument");
}
