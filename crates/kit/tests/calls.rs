//! What every call passes before a handler, by gRPC and by HTTP/1.1 on the same socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

mod common;

use std::time::Duration;

use base::limits::MESSAGE_BYTES_MAX;
use common::{KEYS, Rig, TestService, Wish, context, curl, raw, rig, until};
use contracts::keys::v1::{self as keys, keys_client::KeysClient};
use kit::{
    CallError, Peer,
    admission::{ClassLimit, Limits},
};
use serde_json::{Value, json};
use tonic::{Code, Request};

async fn started() -> Rig {
    rig::<TestService>(Wish::default()).started().await
}

fn header(capability: &str) -> String {
    context(capability).to_header()
}

fn hello() -> keys::VerifyRequest {
    keys::VerifyRequest { message: b"hello".to_vec(), ..Default::default() }
}

#[tokio::test]
async fn grpc_and_json_meet_the_same_handler_on_one_socket() {
    let rig = started().await;
    assert!(rig.keys("alice", "verify").verify(hello()).await.unwrap().into_inner().valid);
    let verify = format!("{KEYS}/Verify");
    let answer =
        curl(&rig.socket("alice"), &verify, Some(&header("system.keys.verify")), r#"{"message":"aGVsbG8="}"#)
            .await;
    assert_eq!((answer.status, answer.json()), (200, json!({"valid": true})));
    let empty = curl(&rig.socket("alice"), &verify, Some(&header("system.keys.verify")), "").await;
    assert_eq!((empty.status, empty.json()), (200, json!({"valid": false})));
    assert_eq!(rig.probe.handled(), 3);
}

#[tokio::test]
async fn a_stream_is_lines_and_a_failure_is_the_last() {
    let rig = started().await;
    let range = "/bailiwick.axiom.v1.Axiom/Range";
    let lines =
        |body: &str| -> Vec<Value> { body.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let answer =
        curl(&rig.socket("alice"), range, Some(&header("system.axiom.read")), r#"{"from":"3","to":"5"}"#)
            .await;
    assert!(answer.head.contains("application/x-ndjson"), "{}", answer.head);
    let sequences: Vec<Value> =
        lines(&answer.body).iter().map(|line| line["entries"][0]["sequence"].clone()).collect();
    assert_eq!(sequences, ["3", "4", "5"]);
    let late = r#"{"from":3,"to":3,"entryTypes":[99]}"#;
    let answer = curl(&rig.socket("alice"), range, Some(&header("system.axiom.read")), late).await;
    let lines = lines(&answer.body);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["error"]["data"]["reason"], "InvalidPath");
}

/// covers: CTX-01, CTX-03, CTX-04, CTX-14
#[tokio::test]
async fn without_a_complete_context_no_handler_runs() {
    let rig = started().await;
    let bare = KeysClient::new(Peer::at(rig.socket("alice")).channel()).verify(hello()).await.unwrap_err();
    assert_eq!(bare.code(), Code::InvalidArgument);
    assert_eq!(CallError::from(bare).reason(), "envelope_invalid");
    let good: Value = serde_json::from_str(&header("system.keys.verify")).unwrap();
    for member in ["app_id", "requester_identity_id", "actor_type", "capability", "is_remote", "trace_id"] {
        let mut less = good.clone();
        less.as_object_mut().unwrap().remove(member).unwrap();
        // The body is malformed too: structure of the context is reported first.
        let answer =
            curl(&rig.socket("alice"), &format!("{KEYS}/Verify"), Some(&less.to_string()), "{").await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("envelope_invalid")), "{member}");
        assert!(answer.json()["message"].as_str().unwrap().contains(member));
    }
    let none = curl(&rig.socket("alice"), &format!("{KEYS}/Verify"), None, "{}").await;
    assert_eq!((none.status, &none.json()["code"]), (400, &json!("envelope_invalid")));
    let two =
        format!("{}\r\nbailiwick-context: {}", header("system.keys.verify"), header("system.keys.verify"));
    assert_eq!(curl(&rig.socket("alice"), &format!("{KEYS}/Verify"), Some(&two), "{}").await.status, 400);
    assert_eq!(rig.probe.handled(), 0);
}

/// covers: CTX-02, CTX-05, CTX-09
#[tokio::test]
async fn an_unknown_member_actor_or_a_foreign_remote_context_is_refused() {
    let rig = started().await;
    let good: Value = serde_json::from_str(&header("system.keys.verify")).unwrap();
    let mut extra = good.clone();
    extra["role"] = json!("admin");
    let mut actor = good.clone();
    actor["actor_type"] = json!("root");
    let remote = json!({
        "app_id": "app_0", "actor_type": "service", "is_remote": true, "trace_id": "04".repeat(16),
        "sync_domain": "home", "remote_node_identity_id": "05".repeat(32),
    });
    for context in [extra, actor, remote] {
        let answer =
            curl(&rig.socket("alice"), &format!("{KEYS}/Verify"), Some(&context.to_string()), "{}").await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("envelope_invalid")), "{context}");
    }
    assert_eq!(rig.probe.handled(), 0);
}

/// covers: ERR-10
#[tokio::test]
async fn an_operation_without_a_row_does_not_exist() {
    let rig = started().await;
    let status =
        rig.keys("alice", "info").get_key_info(keys::GetKeyInfoRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    for path in
        [format!("{KEYS}/GetKeyInfo"), "/".to_owned(), "/bailiwick.lifecycle.v1.Lifecycle/Stop".to_owned()]
    {
        let answer = curl(&rig.socket("alice"), &path, Some(&header("system.keys.info")), "{}").await;
        assert_eq!((answer.status, answer.body.as_str()), (404, ""), "{path}");
    }
    assert_eq!(rig.probe.handled(), 0);
}

/// covers: GRT-01
#[tokio::test]
async fn the_row_says_who_may_call_and_which_capability_is_stated() {
    let rig = started().await;
    let derive = || keys::DerivePublicKeyRequest { path: "/orbital/users/a".to_owned(), epoch: None };
    let refused = rig.keys("alice", "derive").derive_public_key(derive()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let other = rig.keys("admin", "sign").derive_public_key(derive()).await.unwrap_err();
    assert_eq!(CallError::from(other).reason(), "acl_denied");
    assert_eq!(rig.probe.handled(), 0);
    assert!(rig.keys("admin", "derive").derive_public_key(derive()).await.is_ok());
}

/// covers: ERR-01, ERR-03
#[tokio::test]
async fn a_services_own_error_is_mapped_once_for_both_faces() {
    let rig = started().await;
    let status = rig
        .keys("admin", "derive")
        .derive_public_key(keys::DerivePublicKeyRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        CallError::from(status),
        CallError::Misuse { reason: "InvalidPath".to_owned(), text: "path \"\" is none".to_owned() }
    );
    let answer = curl(
        &rig.socket("admin"),
        &format!("{KEYS}/DerivePublicKey"),
        Some(&header("system.keys.derive")),
        "{}",
    )
    .await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.json(),
        json!({"code": "object_invalid", "category": "structural", "message": "path \"\" is none",
               "data": {"reason": "InvalidPath", "domain": "bailiwick.keys.v1"}})
    );
}

/// covers: SUP-107
#[tokio::test]
async fn busy_at_once_when_the_queue_of_a_class_is_full() {
    let heavy = ClassLimit { running_max: 1, queued_max: 2, retry_after_ms: 77 };
    let rig =
        rig::<TestService>(Wish { limits: Some(Limits { heavy, ..Limits::DEFAULT }), ..Wish::default() })
            .started()
            .await;
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let mut client = rig.keys("alice", "sign");
            tokio::spawn(async move { client.sign(keys::SignRequest::default()).await })
        })
        .collect();
    until("one call runs", || rig.probe.handled() == 1).await;
    let mut refusal = None;
    for _ in 0..100 {
        let asked = Request::new(keys::SignRequest::default());
        match tokio::time::timeout(Duration::from_millis(50), rig.keys("alice", "sign").sign(asked)).await {
            Ok(answer) => {
                refusal = Some(answer.unwrap_err());
                break;
            }
            // The three are not all queued yet; this one was given up and left no trace.
            Err(_) => continue,
        }
    }
    let refusal = refusal.unwrap();
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert_eq!(CallError::from(refusal).retry(), kit::Retry::After(77));
    assert!(rig.keys("alice", "verify").verify(hello()).await.is_ok(), "another class is not touched");
    rig.probe.sign.add_permits(100);
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn one_client_has_so_many_calls_in_flight_and_the_next_is_busy() {
    let heavy = ClassLimit { running_max: 4096, queued_max: 4096, retry_after_ms: 1 };
    let rig =
        rig::<TestService>(Wish { limits: Some(Limits { heavy, ..Limits::DEFAULT }), ..Wish::default() })
            .started()
            .await;
    let client = rig.keys("alice", "sign");
    let calls: Vec<_> = (0..1024)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.sign(keys::SignRequest::default()).await })
        })
        .collect();
    until("all calls run", || rig.probe.handled() == 1024).await;
    let refusal = client.clone().sign(keys::SignRequest::default()).await.unwrap_err();
    assert_eq!(CallError::from(refusal).reason(), "Busy");
    assert!(rig.keys("admin", "verify").verify(hello()).await.is_ok(), "another client is not touched");
    rig.probe.sign.add_permits(1024);
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    assert!(rig.keys("alice", "verify").verify(hello()).await.is_ok());
}

#[tokio::test]
async fn hostile_bytes_end_their_connection_and_nothing_else() {
    let rig = started().await;
    let socket = rig.socket("alice");
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface.extend([0xff; 64]);
    let header_line = format!("POST {KEYS}/Verify HTTP/1.1\r\nhost: x\r\n");
    let endless = format!("{header_line}x: {}\r\n\r\n", "a".repeat(64 * 1024));
    let many: String = (0..200).map(|n| format!("h{n}: x\r\n")).collect();
    for bytes in [
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"GET".repeat(5000),
        preface,
        endless.into_bytes(),
        format!("{header_line}{many}\r\n").into_bytes(),
        format!("{header_line}content-length: -1\r\n\r\n").into_bytes(),
        format!("{header_line}transfer-encoding: chunked\r\n\r\nzz\r\n").into_bytes(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a tls hello is not http\r\n\r\n".to_vec(),
    ] {
        if let Some(answer) = raw(&socket, &bytes).await {
            assert!((400..500).contains(&answer.status), "{}", answer.head);
        }
    }
    for body in
        ["{", "[]", "null0", "{\"message\":5}", "{\"unknown\":1}", "{} {}", "\u{0}", "{\"message\":\"***\"}"]
    {
        let answer =
            curl(&socket, &format!("{KEYS}/Verify"), Some(&header("system.keys.verify")), body).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("object_invalid")), "{body:?}");
    }
    for context in ["{}", "[1]", "{\"app_id\":{}}", "\u{fffd}"] {
        let answer = curl(&socket, &format!("{KEYS}/Verify"), Some(context), "{}").await;
        assert_eq!(answer.json()["code"], "envelope_invalid", "{context:?}");
    }
    assert_eq!(rig.probe.handled(), 0);
    assert!(rig.keys("alice", "verify").verify(hello()).await.is_ok());
    assert!(!rig.running.is_finished());
}

/// covers: SUP-107
#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_by_both_faces() {
    let rig = started().await;
    let sized = |message: usize| keys::VerifyRequest { message: vec![1; message], ..Default::default() };
    // Tag and length of the field take four bytes.
    assert!(rig.keys("alice", "verify").verify(sized(MESSAGE_BYTES_MAX - 4)).await.is_ok());
    let refused = rig.keys("alice", "verify").verify(sized(MESSAGE_BYTES_MAX - 3)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let answered = async |bytes: usize| {
        let mut body = format!("{{\"message\":\"{}\"}}", "A".repeat(MESSAGE_BYTES_MAX - 64));
        body.push_str(&" ".repeat(bytes - body.len()));
        let face = (rig.socket("alice"), format!("{KEYS}/Verify"));
        curl(&face.0, &face.1, Some(&header("system.keys.verify")), &body).await
    };
    let answer = answered(MESSAGE_BYTES_MAX).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    let answer = answered(MESSAGE_BYTES_MAX + 1).await;
    assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("object_invalid")));
    assert_eq!(rig.probe.handled(), 2);
}

#[tokio::test]
async fn a_deadline_ends_a_call_and_frees_its_place() {
    let heavy = ClassLimit { running_max: 1, queued_max: 1, retry_after_ms: 1 };
    let rig =
        rig::<TestService>(Wish { limits: Some(Limits { heavy, ..Limits::DEFAULT }), ..Wish::default() })
            .started()
            .await;
    let mut late = Request::new(keys::SignRequest::default());
    late.set_timeout(Duration::from_millis(100));
    let error = CallError::from(rig.keys("alice", "sign").sign(late).await.unwrap_err());
    assert!(matches!(error, CallError::Gone { .. }), "{error}");
    rig.probe.sign.add_permits(2);
    assert!(rig.keys("alice", "sign").sign(keys::SignRequest::default()).await.is_ok());
}

#[tokio::test]
async fn the_operator_sees_metrics_health_and_reflection() {
    let rig = started().await;
    rig.keys("alice", "verify").verify(hello()).await.unwrap();
    let get = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let metrics = raw(&rig.socket("admin"), get).await.unwrap();
    assert!(metrics.body.contains(
        "bailiwick_requests_total{service=\"keys\",operation=\"/bailiwick.keys.v1.Keys/Verify\"} 1"
    ));
    assert!(metrics.body.contains("bailiwick_authority_items_total{service=\"keys\"} 0"));
    assert_eq!(raw(&rig.socket("alice"), get).await.unwrap().status, 404, "not on an edge");
    let mut health =
        tonic_health::pb::health_client::HealthClient::new(Peer::at(rig.socket("admin")).channel());
    let serving = tonic_health::pb::health_check_response::ServingStatus::Serving as i32;
    for attempt in 0.. {
        let asked = tonic_health::pb::HealthCheckRequest { service: String::new() };
        if health.check(asked).await.unwrap().into_inner().status == serving {
            break;
        }
        assert!(attempt < 100, "never serving");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
