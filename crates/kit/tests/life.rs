//! The lifecycle of a service as the supervisor sees it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in its helpers"
)]

mod common;

use std::{sync::atomic::Ordering, time::Duration};

use common::{KEYS, TestService, Wish, context, curl, init_request, rig, until};
use contracts::{keys::v1 as keys, lifecycle::v1 as lifecycle};
use kit::{CallError, FailStart};
use serde_json::json;
use tonic::Code;

/// covers: SUP-56, SUP-57, SUP-58, SUP-59, ADM-19
#[tokio::test]
async fn no_client_is_served_before_started() {
    let rig = rig::<TestService>(Wish::default());
    let mut supervisor = rig.lifecycle();
    let verify = || async { rig.keys("alice", "verify").verify(keys::VerifyRequest::default()).await };
    let reason = |status| CallError::from(status).reason().to_owned();
    assert_eq!(reason(verify().await.unwrap_err()), "ERR_SVC_SYS_NOT_READY");
    let early = supervisor.start(lifecycle::StartRequest {}).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "Start follows InitComplete");
    assert_eq!(supervisor.init(init_request()).await.unwrap().into_inner(), lifecycle::InitComplete {});
    assert_eq!(reason(verify().await.unwrap_err()), "ERR_SVC_SYS_NOT_READY");
    let answer = curl(
        &rig.socket("alice"),
        &format!("{KEYS}/Verify"),
        Some(&context("system.keys.verify").to_header()),
        "{}",
    )
    .await;
    assert_eq!((answer.status, &answer.json()["data"]["service_state"]), (503, &json!("not_ready")));
    assert!(!supervisor.health_check(lifecycle::HealthCheckRequest {}).await.unwrap().into_inner().healthy);
    assert_eq!(rig.probe.handled(), 0);
    let started = supervisor.start(lifecycle::StartRequest {}).await.unwrap().into_inner();
    assert_eq!((started.version.as_str(), started.provides.len()), ("1.2.3", 1));
    assert!(verify().await.is_ok());
    let health = supervisor.health_check(lifecycle::HealthCheckRequest {}).await.unwrap().into_inner();
    assert!(health.healthy && health.components[0].name == "boundary");
    let status = supervisor.status_request(lifecycle::ServiceStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.name.as_str(), status.phase.as_str(), status.requests), ("keys", "serving", 4));
}

/// covers: SUP-59, SUP-91
#[tokio::test]
async fn a_repeated_init_or_start_changes_nothing() {
    let rig = rig::<TestService>(Wish::default()).started().await;
    for _ in 0..3 {
        let mut restarted = rig.lifecycle();
        restarted.init(init_request()).await.unwrap();
        let ready = restarted.start(lifecycle::StartRequest {}).await.unwrap().into_inner();
        assert_eq!((ready.name.as_str(), ready.endpoint.as_str()), ("keys", "/run/bailiwick/keys.sock"));
        assert_eq!((ready.version.as_str(), ready.provides.len()), ("1.2.3", 1));
    }
    assert_eq!(rig.probe.inits.load(Ordering::SeqCst), 1);
    assert!(rig.keys("alice", "verify").verify(keys::VerifyRequest::default()).await.is_ok());
}

/// covers: SUP-60, LIF-07
#[tokio::test]
async fn work_in_hand_is_finished_and_no_new_one_taken() {
    let rig = rig::<TestService>(Wish::default()).started().await;
    let mut client = rig.keys("alice", "sign");
    let request = keys::SignRequest { message: b"m".to_vec(), ..Default::default() };
    let in_hand = tokio::spawn(async move { client.sign(request).await });
    until("the call runs", || rig.probe.handled() == 1).await;
    let mut supervisor = rig.lifecycle();
    let mut draining =
        tokio::spawn(async move { supervisor.prepare_stop(lifecycle::PrepareStopRequest {}).await });
    let mut refused = None;
    for _ in 0..200 {
        if let Err(status) = rig.keys("alice", "verify").verify(keys::VerifyRequest::default()).await {
            refused = Some(CallError::from(status));
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(refused.unwrap().reason(), "ERR_SVC_SYS_DRAINING");
    assert!(
        tokio::time::timeout(Duration::from_millis(100), &mut draining).await.is_err(),
        "work is still in hand"
    );
    assert_eq!(rig.probe.drained.load(Ordering::SeqCst), 0);
    rig.probe.sign.add_permits(1);
    assert_eq!(in_hand.await.unwrap().unwrap().into_inner().signature, b"m");
    draining.await.unwrap().unwrap();
    assert_eq!(rig.probe.drained.load(Ordering::SeqCst), 1);
    let mut supervisor = rig.lifecycle();
    assert_eq!(
        supervisor.start(lifecycle::StartRequest {}).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    supervisor.stop(lifecycle::StopRequest {}).await.expect("the reply comes before the end");
    assert!(rig.running.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let wish = Wish { drain_timeout: Some(Duration::from_millis(100)), ..Wish::default() };
    let rig = rig::<TestService>(wish).started().await;
    let mut client = rig.keys("alice", "sign");
    let stuck = tokio::spawn(async move { client.sign(keys::SignRequest::default()).await });
    until("the call runs", || rig.probe.handled() == 1).await;
    let mut lifecycle = rig.lifecycle();
    tokio::time::timeout(Duration::from_secs(5), lifecycle.prepare_stop(lifecycle::PrepareStopRequest {}))
        .await
        .unwrap()
        .unwrap();
    lifecycle.stop(lifecycle::StopRequest {}).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(5), rig.running).await.unwrap().unwrap().is_ok());
    stuck.abort();
}

#[tokio::test]
async fn a_failed_init_ends_the_process_without_a_reply() {
    let rig = rig::<TestService>(Wish { fail_init: true, ..Wish::default() });
    assert!(rig.lifecycle().init(init_request()).await.is_err());
    let error =
        tokio::time::timeout(Duration::from_secs(5), rig.running).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(&error, FailStart::Init(cause) if cause.to_string() == "no seed"), "{error}");
}

#[tokio::test]
async fn a_service_that_is_not_ready_ends_and_has_served_nobody() {
    let rig = rig::<TestService>(Wish { fail_ready: true, ..Wish::default() });
    let mut supervisor = rig.lifecycle();
    supervisor.init(init_request()).await.unwrap();
    assert!(supervisor.start(lifecycle::StartRequest {}).await.is_err());
    let error =
        tokio::time::timeout(Duration::from_secs(5), rig.running).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(&error, FailStart::Ready(cause) if cause.to_string() == "not its key"), "{error}");
    assert_eq!(rig.probe.handled.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_malformed_init_is_refused_and_can_be_repeated() {
    let rig = rig::<TestService>(Wish::default());
    let with = |change: fn(&mut lifecycle::InitRequest)| {
        let mut request = init_request();
        change(&mut request);
        request
    };
    let too_many = with(|request| request.capabilities = vec![vec![0; 16]; 257]);
    let long = with(|request| request.config.as_mut().unwrap().manifest = "x".repeat(64 * 1024 + 1));
    for request in [
        lifecycle::InitRequest::default(),
        with(|request| request.config = None),
        with(|request| request.config.as_mut().unwrap().name = "policy".to_owned()),
        with(|request| request.identity = None),
        with(|request| request.identity.as_mut().unwrap().id = vec![1; 31]),
        with(|request| request.identity.as_mut().unwrap().key_path = "x".to_owned()),
        with(|request| request.capabilities = vec![vec![0; 15]]),
        too_many,
        long,
    ] {
        assert_eq!(rig.lifecycle().init(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let at_limit = with(|request| {
        request.capabilities = vec![vec![0; 16]; 256];
        request.config.as_mut().unwrap().manifest = "x".repeat(64 * 1024);
    });
    assert!(rig.lifecycle().init(at_limit).await.is_ok());
}
